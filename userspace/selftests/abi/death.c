// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: a process that made, mapped and touched arenas is killed at any moment; its
 * memory comes back, the counters are as before, and free memory shows no trend.
 */
#include "selftest.h"

#define ARENA_BYTES (16 * MIB)

/*
 * What the rest of the system may do to free memory between two samples. A leak of one hardware
 * page a round would be 2 MiB in 500 rounds, of one segment a round 1 GiB.
 */
#define FREE_TOLERANCE_KB 1536

FIXTURE(death)
{
	int device;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(death)
{
	self->device = device_setup(_metadata, &self->before);
}

FIXTURE_TEARDOWN(death)
{
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* The child: says that it is ready, then works until it is killed. */
static void live(int device, int ready, uint32_t seed)
{
	int arena = arena_create(device, ARENA_BYTES, 0);
	unsigned char *map = arena_map(arena, ARENA_BYTES);
	struct xalloc_page_grant pages[16];
	uint64_t offsets[16], at;
	int i, nr;

	if (arena < 0 || !map)
		_exit(1);
	if (grant_page(arena, 3 * SEGMENT_SLICES, 0, NULL) != 1)
		_exit(2);
	for (at = 0; at < 3 * XALLOC_SEGMENT_BYTES; at += KPAGE_BYTES)
		if (touch_write(map + at, at))
			_exit(3);
	if (write(ready, "", 1) != 1)
		_exit(4);
	for (;;) {
		memset(pages, 0, sizeof(pages));
		for (i = 0; i < 16; i++)
			pages[i].nr_slices = 1 + random_next(&seed) % 24;
		nr = grant_batch(arena, pages, 16);
		for (i = 0; i < nr; i++) {
			touch_write(map + pages[i].offset, 1);
			offsets[i] = pages[i].offset;
		}
		if (nr > 0 && free_batch(arena, offsets, nr) != nr)
			_exit(5);
		if (random_next(&seed) % 4 == 0) {
			munmap(map, ARENA_BYTES);
			map = arena_map(arena, ARENA_BYTES);
		}
	}
}

/* One life; the exit status of the child, 256 + SIGKILL where all went well. */
static int live_and_die(int device, uint32_t *state)
{
	uint32_t delay_us = random_next(state) % 8000;
	int ready[2], status;
	char byte;
	pid_t pid;

	if (pipe(ready))
		return -errno;
	pid = fork();
	if (!pid) {
		close(ready[0]);
		live(device, ready[1], random_next(state) | 1);
	}
	close(ready[1]);
	if (pid > 0 && read(ready[0], &byte, 1) == 1)
		usleep(delay_us);
	if (pid > 0)
		kill(pid, SIGKILL);
	status = pid < 0 ? -errno : child_status(pid);
	close(ready[0]);
	return status;
}

/*
 * Free pages that CPUs keep on lists of their own, 2 MiB ones among them; they do not count
 * in MemFree, and nothing that a user can write drains them.
 */
static long per_cpu_free_kb(void)
{
	FILE *file = fopen("/proc/zoneinfo", "r");
	char line[256];
	long sum = 0, count;

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, " count: %ld", &count) == 1)
			sum += count * (KPAGE_BYTES / 1024);
	fclose(file);
	return sum;
}

static long free_settled_kb(void)
{
	long best = 0, seen;
	int i;

	for (i = 0; i < 5; i++) {
		sync();
		write_text("/proc/sys/vm/drop_caches", "3");
		sleep_ms(100);
		seen = meminfo_kb("MemFree") + per_cpu_free_kb();
		if (seen > best)
			best = seen;
	}
	return best;
}

TEST_F_TIMEOUT(death, killed_over_and_over, TEST_TIMEOUT_LONG)
{
	unsigned int rounds = is_long_run() ? 1000 : 50, round;
	uint32_t seed = random_seed() | 1, state = seed;
	long half_kb = 0, end_kb;

	TH_LOG("SEED=%u, %u rounds", seed, rounds);
	for (round = 1; round <= rounds; round++) {
		ASSERT_EQ(256 + SIGKILL, live_and_die(self->device, &state)) {
			TH_LOG("round %u", round);
		}
		/* At once: the parent hears of a death after all that was to be closed is. */
		counters_expect_now(_metadata, self->device, &self->before);
		if (round == rounds / 2)
			half_kb = free_settled_kb();
	}
	end_kb = free_settled_kb();
	TH_LOG("%ld kB free after round %u, %ld kB after round %u", half_kb, rounds / 2, end_kb,
	       rounds);
	if (kernel_has_kasan())
		TH_LOG("free memory is not judged: it has KASAN's books in it");
	else
		EXPECT_LE(half_kb - end_kb, FREE_TOLERANCE_KB);
}

/* Killed before, while and after the arena is made: no handshake, only a random delay. */
TEST_F_TIMEOUT(death, killed_while_creating, TEST_TIMEOUT_LONG)
{
	unsigned int rounds = is_long_run() ? 500 : 40, round, i;
	uint32_t seed = random_seed() | 1, state = seed;

	TH_LOG("SEED=%u, %u rounds", seed, rounds);
	for (round = 0; round < rounds; round++) {
		pid_t pid = fork();

		ASSERT_LE(0, pid);
		if (!pid) {
			for (i = 0;; i++) {
				int arena = arena_create(self->device, ARENA_BYTES, 0);

				grant_page(arena, 1 + i % 100, 0, NULL);
				if (arena_map(arena, ARENA_BYTES) && i % 2)
					munmap(arena_map(arena, ARENA_BYTES), ARENA_BYTES);
				close(arena);
				if (i == 8)
					_exit(0);
			}
		}
		usleep(random_next(&state) % 20000);
		kill(pid, SIGKILL);
		child_status(pid);
		counters_expect_now(_metadata, self->device, &self->before);
	}
}

/* A large grant takes long; the signal arrives in the middle of it. */
TEST_F_TIMEOUT(death, killed_in_the_middle_of_a_large_grant, TEST_TIMEOUT_LONG)
{
	unsigned int rounds = is_long_run() ? 200 : 10, round;
	uint32_t seed = random_seed() | 1, state = seed;
	const uint64_t bytes = 256 * MIB;

	if (meminfo_kb("MemAvailable") < 512 * 1024)
		SKIP(return, "needs 512 MiB of available memory, there are %ld kB",
		     meminfo_kb("MemAvailable"));
	TH_LOG("SEED=%u, %u rounds", seed, rounds);
	for (round = 0; round < rounds; round++) {
		pid_t pid = fork();

		ASSERT_LE(0, pid);
		if (!pid) {
			int arena = arena_create(self->device, bytes, 0);

			for (;;) {
				grant_page(arena, bytes / XALLOC_SLICE_BYTES, 0, NULL);
				free_page(arena, 0);
			}
		}
		usleep(random_next(&state) % 200000);
		kill(pid, SIGKILL);
		EXPECT_EQ(256 + SIGKILL, child_status(pid));
		counters_expect_now(_metadata, self->device, &self->before);
	}
}

/* Its descriptor lives on in another process: then so do the arena and its pages. */
TEST_F(death, maker_dies_and_the_arena_lives)
{
	struct xalloc_ioc_stat seen;
	unsigned char *map;
	int arena;
	pid_t pid;

	arena = arena_create(self->device, ARENA_BYTES, 0);
	ASSERT_LE(0, arena);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		map = arena_map(arena, ARENA_BYTES);
		if (!map || grant_page(arena, SEGMENT_SLICES, 0, NULL) != 1)
			_exit(1);
		pattern_fill(map, XALLOC_SEGMENT_BYTES, 5);
		raise(SIGKILL);
	}
	EXPECT_EQ(256 + SIGKILL, child_status(pid));
	ASSERT_EQ(0, counters_read(arena, &seen));
	EXPECT_EQ(1, seen.clients);
	EXPECT_EQ(1, seen.pages);
	map = arena_map(arena, ARENA_BYTES);
	ASSERT_NE(NULL, map);
	EXPECT_EQ(-1, pattern_mismatch(map, XALLOC_SEGMENT_BYTES, 5));
	/* The same open file description is the same client. */
	EXPECT_EQ(1, free_page(arena, 0));
	munmap(map, ARENA_BYTES);
	close(arena);
}

/* A process that has nothing but a descriptor: no other line of the report names its memory. */
TEST_F(death, report_before_a_kill_names_the_arena)
{
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	int arena = arena_create(self->device, ARENA_BYTES, 0);
	char want[128], line[4096];
	bool found = false;
	ssize_t len;
	pid_t pid;

	ASSERT_LE(0, log);
	ASSERT_EQ(1, grant_page(arena, 3 * SEGMENT_SLICES, 0, NULL));
	lseek(log, 0, SEEK_END);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		require(write_text("/proc/self/oom_score_adj", "1000"));
		require(write_text("/proc/sysrq-trigger", "f"));
		pause();
	}
	EXPECT_EQ(256 + SIGKILL, child_status(pid));
	snprintf(want, sizeof(want), "has %u kB, its 1 clients were granted %u kB",
		 (unsigned int)(3 * XALLOC_SEGMENT_BYTES / 1024),
		 (unsigned int)(3 * XALLOC_SEGMENT_BYTES / 1024));
	while (!found && ((len = read(log, line, sizeof(line) - 1)) > 0 || errno == EPIPE)) {
		line[len > 0 ? len : 0] = 0;
		found = strstr(line, want);
	}
	EXPECT_TRUE(found);
	close(log);
	close(arena);
}

TEST_HARNESS_MAIN
