// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: the page by which clients of an arena are told that memory of it is wanted back, and
 * the second file of an arena, in which they keep notes.
 */
#include "selftest.h"
#include "sharing.h"

#define ARENA_BYTES (1024 * MIB)
#define NAME NAMES "/status-test"

FIXTURE(status_page)
{
	int device;
	int arena;
	const volatile struct xalloc_status *status;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(status_page)
{
	self->device = device_setup(_metadata, &self->before);
	self->arena = arena_create(self->device, ARENA_BYTES, 4 * XALLOC_SEGMENT_BYTES);
	ASSERT_LE(0, self->arena);
	self->status = status_map(self->arena);
	ASSERT_NE(NULL, self->status);
}

FIXTURE_TEARDOWN(status_page)
{
	munmap((void *)self->status, KPAGE_BYTES);
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

TEST_F(status_page, begins_at_zero_and_is_for_reading)
{
	int reader = attach(self->arena, XALLOC_ATTACH_RDONLY, NULL);
	void *map = (void *)self->status;
	uint64_t value;
	pid_t pid;

	EXPECT_EQ(sizeof(struct xalloc_status), self->status->size);
	EXPECT_EQ(0, self->status->generation);
	EXPECT_EQ(0, self->status->wanted_bytes);
	EXPECT_EQ(-1, nonzero_find(map + sizeof(struct xalloc_status),
				   KPAGE_BYTES - sizeof(struct xalloc_status)));
	EXPECT_EQ(-EACCES, mmap_error(KPAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, self->arena,
				      XALLOC_STATUS_OFFSET));
	EXPECT_EQ(-EINVAL, mmap_error(KPAGE_BYTES, PROT_READ, MAP_PRIVATE, self->arena,
				      XALLOC_STATUS_OFFSET));
	EXPECT_EQ(-ENXIO, mmap_error(2 * KPAGE_BYTES, PROT_READ, MAP_SHARED, self->arena,
				     XALLOC_STATUS_OFFSET));
	EXPECT_EQ(-ENXIO, mmap_error(KPAGE_BYTES, PROT_READ, MAP_SHARED, self->arena,
				     XALLOC_STATUS_OFFSET + KPAGE_BYTES));
	EXPECT_EQ(-1, mprotect(map, KPAGE_BYTES, PROT_READ | PROT_WRITE));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(SIGSEGV, touch_write(map, 1));
	EXPECT_EQ(-ENOENT, attach_at(self->device, map, 0, NULL));
	EXPECT_EQ(0, mmap_error(KPAGE_BYTES, PROT_READ, MAP_SHARED, reader, XALLOC_STATUS_OFFSET));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		guard_install();
		require(touch_read(map, &value) == SIGSEGV);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
	close(reader);
}

/* Whoever is refused, all that look are told, and by how much. */
TEST_F(status_page, refused_grant_is_told)
{
	int other = attach(self->arena, 0, NULL);
	const volatile struct xalloc_status *status = status_map(other);

	ASSERT_NE(NULL, status);
	ASSERT_EQ(1, grant_page(self->arena, 4 * SEGMENT_SLICES, 0, NULL));
	EXPECT_EQ(0, status->generation);
	EXPECT_EQ(-EDQUOT, grant_page(other, 7, 0, NULL));
	EXPECT_EQ(1, status->generation);
	EXPECT_EQ(7 * XALLOC_SLICE_BYTES, status->wanted_bytes);
	EXPECT_EQ(1, self->status->generation);
	/* What no arena can have is not wanted of this one. */
	EXPECT_EQ(-EFBIG, grant_page(other, UINT32_MAX, 0, NULL));
	EXPECT_EQ(1, status->generation);
	EXPECT_EQ(-EDQUOT, grant_page(self->arena, 3, 0, NULL));
	EXPECT_EQ(2, status->generation);
	EXPECT_EQ(10 * XALLOC_SLICE_BYTES, status->wanted_bytes);
	munmap((void *)status, KPAGE_BYTES);
	close(other);
}

TEST_F(status_page, arena_goes_below_the_page)
{
	int arena = arena_create(self->device, 4 * MIB, 0);
	const volatile struct xalloc_status *status = status_map(arena);

	ASSERT_NE(NULL, status);
	close(arena);
	EXPECT_EQ(0, status->generation);
	EXPECT_EQ(self->before.arenas + 2, stat_of(self->device).arenas);
	munmap((void *)status, KPAGE_BYTES);
	EXPECT_EQ(self->before.arenas + 1, stat_of(self->device).arenas);
}

/* With nothing in reserve: what is granted is all that could come back. */
TEST_F_TIMEOUT(status_page, shortage_of_the_machine_is_told, 300)
{
	pid_t pid;

	if (meminfo_kb("MemAvailable") < 1200 * 1024)
		SKIP(return, "needs 1200 MiB of available memory");
	ASSERT_EQ(0, arena_limit(self->arena, 0));
	/* Not mapped, so that it is none of this process when somebody must be killed. */
	ASSERT_EQ(1, grant_page(self->arena, 768 * MIB / XALLOC_SLICE_BYTES, 0, NULL));
	EXPECT_EQ(0, self->status->generation);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		const volatile struct xalloc_status *status = status_map(self->arena);
		size_t bytes = meminfo_kb("MemTotal") * 1024UL, at;
		unsigned char *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		write_text("/proc/self/oom_score_adj", "1000");
		require(status && map != MAP_FAILED);
		for (at = 0; at < bytes && !status->generation; at += KPAGE_BYTES)
			map[at] = 1;
		_exit(0);
	}
	/* Told before anybody has to die. */
	EXPECT_EQ(0, child_status(pid));
	TH_LOG("told %llu times, %llu MiB wanted", (unsigned long long)self->status->generation,
	       (unsigned long long)self->status->wanted_bytes / MIB);
	EXPECT_LT(0, self->status->generation);
	EXPECT_LT(0, self->status->wanted_bytes);
	EXPECT_EQ(1, stat_of(self->arena).pages);
}

/* The descriptor, or the negative errno; @bytes is left as the call leaves it. */
static int meta_open(int arena, uint64_t *bytes)
{
	struct xalloc_ioc_meta arg = { .size = sizeof(arg), .bytes = *bytes };
	int rc = call(arena, XALLOC_IOC_META, &arg);

	*bytes = arg.bytes;
	return rc;
}

static int meta_open_of(int arena, uint64_t bytes)
{
	return meta_open(arena, &bytes);
}

TEST_F(status_page, second_file_has_one_size)
{
	int reader = attach(self->arena, XALLOC_ATTACH_RDONLY, NULL), meta, other, seen;
	uint64_t bytes = 8 * KPAGE_BYTES, value;
	struct stat st;
	uint64_t *map;
	pid_t pid;

	EXPECT_EQ(-ENOENT, meta_open_of(self->arena, 0));
	EXPECT_EQ(-EBADF, meta_open_of(reader, KPAGE_BYTES));
	EXPECT_EQ(-EINVAL, meta_open_of(self->arena, KPAGE_BYTES + 1));
	EXPECT_EQ(-EFBIG, meta_open_of(self->arena, ARENA_BYTES + KPAGE_BYTES));
	meta = meta_open(self->arena, &bytes);
	ASSERT_LE(0, meta);
	EXPECT_EQ(FD_CLOEXEC, fcntl(meta, F_GETFD));
	EXPECT_EQ(-EEXIST, meta_open_of(self->arena, KPAGE_BYTES));
	bytes = 0;
	other = meta_open(self->arena, &bytes);
	ASSERT_LE(0, other);
	EXPECT_EQ(8 * KPAGE_BYTES, bytes);
	ASSERT_EQ(0, fstat(other, &st));
	EXPECT_EQ(8 * KPAGE_BYTES, st.st_size);
	/* The file has no owner. */
	EXPECT_EQ(-1, ftruncate(meta, KPAGE_BYTES));
	EXPECT_EQ(EOVERFLOW, errno);
	EXPECT_EQ(-1, ftruncate(meta, 64 * KPAGE_BYTES));
	EXPECT_EQ(EOVERFLOW, errno);

	map = mmap(NULL, 8 * KPAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, meta, 0);
	ASSERT_NE(MAP_FAILED, map);
	EXPECT_EQ(-1, nonzero_find(map, 8 * KPAGE_BYTES));
	map[5] = 55;
	EXPECT_EQ(sizeof(value), pread(other, &value, sizeof(value), 5 * sizeof(value)));
	EXPECT_EQ(55, value);
	seen = meta_open_of(reader, 0);
	ASSERT_LE(0, seen);
	EXPECT_EQ(-EACCES, mmap_error(KPAGE_BYTES, PROT_WRITE, MAP_SHARED, seen, 0));
	EXPECT_EQ(-1, pwrite(seen, &value, sizeof(value), 0));
	EXPECT_EQ(sizeof(value), pread(seen, &value, sizeof(value), 5 * sizeof(value)));
	EXPECT_EQ(55, value);
	/* A process with that descriptor can neither open the file again nor change its mode. */
	EXPECT_EQ(-EACCES, fd_reopen(seen, O_RDWR));
	EXPECT_EQ(-EACCES, fd_reopen(seen, O_RDONLY));
	EXPECT_EQ(-1, fchmod(seen, 0666));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		require(!setgroups(0, NULL) && !setgid(TEST_UID) && !setuid(TEST_UID));
		require(fd_reopen(seen, O_RDWR) == -EACCES);
		require(fd_reopen(seen, O_RDONLY) == -EACCES);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
	/* None of it is the arena's. */
	EXPECT_EQ(0, stat_of(self->arena).committed_bytes);
	close(seen);
	close(other);
	close(meta);
	close(reader);
	munmap(map, 8 * KPAGE_BYTES);
}

TEST_F(status_page, second_file_stays_with_a_name)
{
	uint64_t value = 77;
	int arena, meta;

	unlink(NAME);
	arena = name_create(NAME, 4 * MIB);
	meta = meta_open_of(arena, KPAGE_BYTES);
	ASSERT_LE(0, meta);
	EXPECT_EQ(sizeof(value), pwrite(meta, &value, sizeof(value), 0));
	close(meta);
	close(arena);
	arena = name_open(NAME, O_RDWR);
	meta = meta_open_of(arena, 0);
	ASSERT_LE(0, meta);
	value = 0;
	EXPECT_EQ(sizeof(value), pread(meta, &value, sizeof(value), 0));
	EXPECT_EQ(77, value);
	close(arena);
	EXPECT_EQ(0, unlink(NAME));
	/* Who has it open keeps it. */
	EXPECT_EQ(sizeof(value), pread(meta, &value, sizeof(value), 0));
	close(meta);
}

TEST_HARNESS_MAIN
