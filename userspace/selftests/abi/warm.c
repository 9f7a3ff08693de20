// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: memory that is there before a grant wants it, in the reserve of an arena and
 * in the pool of the module, and that it goes when others need it.
 */
#include <poll.h>
#include <sys/wait.h>

#include "selftest.h"

#define ARENA_BYTES (512 * MIB)
#define WARM_BYTES (256 * MIB)
#define WARM_SLICES (WARM_BYTES / XALLOC_SLICE_BYTES)
#define NEEDED_KB (1400 * 1024)

FIXTURE(warm)
{
	int device;
	int arena;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(warm)
{
	self->device = device_setup(_metadata, &self->before);
	self->arena = arena_create(self->device, ARENA_BYTES, 0);
	ASSERT_LE(0, self->arena);
}

FIXTURE_TEARDOWN(warm)
{
	write_text(PARAMETER("pool_segments"), "0");
	total_restore();
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* Waits until poll() says that nothing is being filled. */
static bool wait_filled(int arena)
{
	struct pollfd pollfd = { .fd = arena, .events = POLLOUT };

	return poll(&pollfd, 1, 60 * 1000) == 1 && pollfd.revents == POLLOUT;
}

static bool wait_pooled(int device, uint64_t bytes)
{
	return wait_for(stat_of(device).pooled_bytes == bytes, 60 * 1000);
}

static void touch(unsigned char *map, size_t step, unsigned char value)
{
	size_t at;

	for (at = 0; at < WARM_BYTES; at += step)
		map[at] = value;
}

/* A fault and each touch cost tens of times what they do on a CPU; clearing memory does not. */
static bool cpu_is_emulated(void)
{
	return file_says("/proc/cpuinfo", "QEMU TCG");
}

/*
 * What a user waits for: grant, map, and a touch of all that can fault. On an emulated CPU the
 * touch of every 4 KiB would be most of it. Returns ns, 0 on failure.
 */
static uint64_t grant_and_touch(struct __test_metadata *_metadata, int arena)
{
	size_t step = cpu_is_emulated() ? XALLOC_SEGMENT_BYTES : KPAGE_BYTES;
	struct xalloc_page_grant page;
	uint64_t start = now_ns(), taken;
	unsigned char *map;
	long faults;

	EXPECT_EQ(1, grant_page(arena, WARM_SLICES, 0, &page));
	map = arena_map_at(arena, page.offset, WARM_BYTES, PROT_READ | PROT_WRITE);
	EXPECT_NE(NULL, map);
	if (!map)
		return 0;
	touch(map, step, 1);
	taken = now_ns() - start;
	EXPECT_TRUE(page.flags & XALLOC_PAGE_ZERO);
	faults = page_faults();
	touch(map, KPAGE_BYTES, 0);
	EXPECT_EQ(faults, page_faults());
	EXPECT_EQ(-1, nonzero_find(map, WARM_BYTES));
	munmap(map, WARM_BYTES);
	EXPECT_EQ(1, free_page(arena, page.offset));
	return taken;
}

/*
 * A grant that waits for its memory counts the memory as cold; one of warm memory counts nothing.
 * With LONG=1 times are judged too: a twentieth of the cold time is the promise, a tenth where the
 * CPU is emulated, because most of the time is faults then. A busy machine only makes a turn
 * longer, so the best of three turns counts, or of more turns where three do not decide.
 */
static void warm_against_cold(struct __test_metadata *_metadata, int device, int arena,
			      bool by_pool)
{
	uint64_t cold = UINT64_MAX, warm = UINT64_MAX, taken;
	unsigned int part = cpu_is_emulated() ? 10 : 20;
	char text[24];
	bool judged = times_are_judged();
	int turn;

	snprintf(text, sizeof(text), "%lu", WARM_BYTES / XALLOC_SEGMENT_BYTES);
	for (turn = 0; turn < (judged ? 3 : 1) || (judged && turn < 9 && warm > cold / part);
	     turn++) {
		struct xalloc_ioc_stat stat = stat_of(arena);

		taken = grant_and_touch(_metadata, arena);
		cold = taken < cold ? taken : cold;
		EXPECT_EQ(stat.cold_bytes + WARM_BYTES, stat_of(arena).cold_bytes);
		if (by_pool) {
			ASSERT_TRUE(write_text(PARAMETER("pool_segments"), text));
			ASSERT_TRUE(wait_pooled(device, WARM_BYTES));
		} else {
			ASSERT_EQ(0, reserve_set(arena, 0, WARM_BYTES));
			ASSERT_TRUE(wait_filled(arena));
			ASSERT_EQ(WARM_BYTES, stat_of(arena).reserved_bytes);
		}
		stat = stat_of(arena);
		taken = grant_and_touch(_metadata, arena);
		warm = taken < warm ? taken : warm;
		EXPECT_EQ(stat.cold_bytes, stat_of(arena).cold_bytes);
		ASSERT_EQ(0, reserve_set(arena, 0, 0));
		ASSERT_EQ(0, stat_of(arena).committed_bytes);
		ASSERT_TRUE(write_text(PARAMETER("pool_segments"), "0"));
		ASSERT_TRUE(wait_pooled(device, 0));
	}
	ASSERT_NE(0, warm);
	TH_LOG("%llu us cold, %llu us warm: 1/%llu", (unsigned long long)cold / 1000,
	       (unsigned long long)warm / 1000, (unsigned long long)(cold / warm));
	if (judged) {
		EXPECT_LE(warm, cold / part);
	}
}

TEST_F_TIMEOUT(warm, reserve_takes_a_part_of_the_cold_time, 300)
{
	if (meminfo_kb("MemAvailable") < NEEDED_KB)
		SKIP(return, "needs %d kB of memory", NEEDED_KB);
	if (!is_thp_kernel())
		SKIP(return, "faults of 4 KiB cost more than memory does: no huge pages");
	warm_against_cold(_metadata, self->device, self->arena, false);
}

TEST_F_TIMEOUT(warm, pool_takes_a_part_of_the_cold_time, 300)
{
	if (meminfo_kb("MemAvailable") < NEEDED_KB)
		SKIP(return, "needs %d kB of memory", NEEDED_KB);
	if (!is_thp_kernel())
		SKIP(return, "faults of 4 KiB cost more than memory does: no huge pages");
	warm_against_cold(_metadata, self->device, self->arena, true);
}

TEST_F(warm, marks_are_checked)
{
	int small = arena_create_by(self->device, 4 * MIB, XALLOC_POLICY_SMALL, -1);
	int reader = fd_reopen(self->arena, O_RDONLY);

	EXPECT_EQ(-EINVAL, reserve_set(self->arena, 2 * MIB, MIB));
	EXPECT_EQ(-EINVAL, reserve_set(self->arena, 4 * MIB, 2 * MIB));
	EXPECT_EQ(-EINVAL, reserve_set(self->arena, MIB, 2 * MIB));
	EXPECT_EQ(-EFBIG, reserve_set(self->arena, 0, ARENA_BYTES + 2 * MIB));
	EXPECT_EQ(-EFBIG, reserve_set(self->arena, 0, -2 * MIB));
	EXPECT_EQ(-EOPNOTSUPP, reserve_set(small, 0, 2 * MIB));
	ASSERT_LE(0, reader);
	EXPECT_EQ(-EBADF, reserve_set(reader, 0, 2 * MIB));
	EXPECT_EQ(-EBADF, arena_trim(reader, 0, NULL));
	close(reader);
	close(small);
}

TEST_F(warm, trim_tells_what_went)
{
	uint64_t trimmed;

	ASSERT_EQ(0, reserve_set(self->arena, 0, 8 * MIB));
	ASSERT_TRUE(wait_filled(self->arena));
	EXPECT_EQ(8 * MIB, stat_of(self->arena).reserved_bytes);
	EXPECT_EQ(8 * MIB, stat_of(self->device).reserved_bytes - self->before.reserved_bytes);
	EXPECT_EQ(0, arena_trim(self->arena, UINT64_MAX, &trimmed));
	EXPECT_EQ(0, trimmed);
	EXPECT_EQ(0, arena_trim(self->arena, 5 * MIB, &trimmed));
	EXPECT_EQ(2 * MIB, trimmed);
	EXPECT_EQ(6 * MIB, stat_of(self->arena).reserved_bytes);
	EXPECT_EQ(0, arena_trim(self->arena, 0, &trimmed));
	EXPECT_EQ(6 * MIB, trimmed);
	EXPECT_EQ(0, stat_of(self->arena).committed_bytes);
}

/* Takes memory until the kernel takes it from the reserve or the pool. */
static void need_memory(size_t bytes)
{
	unsigned char *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t at;

	if (map == MAP_FAILED)
		_exit(1);
	for (at = 0; at < bytes; at += KPAGE_BYTES)
		map[at] = 1;
	_exit(0);
}

/* All but what is kept for others; nothing else is left to reclaim. */
static int run_short(uint64_t warm_bytes)
{
	size_t bytes = (meminfo_kb("MemAvailable") - 96 * 1024) * 1024 + warm_bytes / 4 * 3;
	pid_t pid = fork();

	if (!pid)
		need_memory(bytes);
	return child_status(pid);
}

TEST_F_TIMEOUT(warm, reserve_goes_when_memory_is_short, 300)
{
	uint64_t bytes;

	if (meminfo_kb("MemAvailable") < NEEDED_KB)
		SKIP(return, "needs %d kB of memory", NEEDED_KB);
	ASSERT_EQ(0, reserve_set(self->arena, 0, ARENA_BYTES));
	ASSERT_TRUE(wait_filled(self->arena));
	bytes = stat_of(self->arena).reserved_bytes;
	ASSERT_LE(WARM_BYTES, bytes);
	EXPECT_EQ(0, run_short(bytes));
	TH_LOG("%llu of %llu MiB left",
	       (unsigned long long)(stat_of(self->arena).reserved_bytes / MIB),
	       (unsigned long long)(bytes / MIB));
	EXPECT_GT(bytes, stat_of(self->arena).reserved_bytes);
}

#define STREAM_BYTES (1000 * MIB)

/* A disk that has no memory for what was never written to it. Returns the descriptor, or -1. */
static int open_empty_disk(void)
{
	static char size[32];
	static const char *const unload[] = { "modprobe", "-q", "-r", "brd", NULL };
	static const char *const load[] = { "modprobe", "brd", "rd_nr=1", size, NULL };
	int disk;

	snprintf(size, sizeof(size), "rd_size=%llu", (unsigned long long)STREAM_BYTES / 1024);
	program_run(unload);
	program_run(load);
	disk = open("/dev/ram0", O_RDONLY | O_CLOEXEC);
	if (disk >= 0 && lseek(disk, 0, SEEK_END) < (off_t)STREAM_BYTES) {
		close(disk);
		return -1;
	}
	return disk;
}

/* Holds memory, granted or locked, while it reads the disk by the page cache. */
static void hold_and_stream(int device, int disk, bool is_granted)
{
	size_t bytes = (meminfo_kb("MemAvailable") / 1024 - 400) / 2 * XALLOC_SEGMENT_BYTES, at;
	static char buffer[1 << 20];
	unsigned char *map;

	if (is_granted) {
		require(grant_page(arena_create(device, bytes, 0), bytes / XALLOC_SLICE_BYTES, 0,
				   NULL) == 1);
	} else {
		map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		require(map != MAP_FAILED && !mlock(map, bytes));
	}
	for (at = 0; at < STREAM_BYTES; at += sizeof(buffer))
		require(pread(disk, buffer, sizeof(buffer), at) == sizeof(buffer));
	_exit(0);
}

/* A fill that met a shortage has ended early. */
static bool fill_whole(int arena)
{
	return wait_for(!reserve_set(arena, 0, ARENA_BYTES) && wait_filled(arena) &&
			stat_of(arena).reserved_bytes == ARENA_BYTES, 120 * 1000);
}

TEST_F_TIMEOUT(warm, what_is_granted_does_not_cost_the_reserve, TEST_TIMEOUT_LONG)
{
	uint64_t left[2];
	int disk, i;
	pid_t pid;

	if (meminfo_kb("MemAvailable") < NEEDED_KB)
		SKIP(return, "needs %d kB of memory", NEEDED_KB);
	disk = open_empty_disk();
	if (disk < 0)
		SKIP(return, "needs a disk of brd of %llu MiB",
		     (unsigned long long)(STREAM_BYTES / MIB));
	ASSERT_TRUE(total_raise());
	for (i = 0; i < 2; i++) {
		/* Of what the first turn has read nothing is in the way. */
		posix_fadvise(disk, 0, 0, POSIX_FADV_DONTNEED);
		ASSERT_TRUE(fill_whole(self->arena));
		pid = fork();
		if (!pid)
			hold_and_stream(self->device, disk, i);
		EXPECT_EQ(0, child_status(pid));
		/* Only grants have it filled again. */
		left[i] = stat_of(self->arena).reserved_bytes;
	}
	close(disk);
	TH_LOG("of %llu MiB %llu are left beside locked memory, %llu beside granted memory",
	       (unsigned long long)(ARENA_BYTES / MIB), (unsigned long long)(left[0] / MIB),
	       (unsigned long long)(left[1] / MIB));
	/* They differ by a few segments. One shrinker for both left a quarter of it, or less. */
	EXPECT_LE(ARENA_BYTES / 8, left[0]);
	EXPECT_LE(left[0] / 2, left[1]);
}

TEST_F_TIMEOUT(warm, pool_goes_when_memory_is_short, 300)
{
	uint64_t bytes;

	if (meminfo_kb("MemAvailable") < NEEDED_KB)
		SKIP(return, "needs %d kB of memory", NEEDED_KB);
	ASSERT_TRUE(write_text(PARAMETER("pool_segments"), "256"));
	ASSERT_TRUE(wait_pooled(self->device, 512 * MIB));
	bytes = stat_of(self->device).pooled_bytes;
	EXPECT_EQ(0, run_short(bytes));
	TH_LOG("%llu of %llu MiB left",
	       (unsigned long long)(stat_of(self->device).pooled_bytes / MIB),
	       (unsigned long long)(bytes / MIB));
	EXPECT_GT(bytes, stat_of(self->device).pooled_bytes);
}

TEST_HARNESS_MAIN
