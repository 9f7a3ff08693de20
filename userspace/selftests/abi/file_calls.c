// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: an arena under the calls that every program makes on files: read, write, lseek with
 * SEEK_DATA and SEEK_HOLE, sendfile, splice, fsync. Data is what is granted; all else is a hole.
 */
#include "selftest.h"
#include "sharing.h"

#include <sys/sendfile.h>
#include <sys/uio.h>

#define SLICE XALLOC_SLICE_BYTES
#define SEGMENT XALLOC_SEGMENT_BYTES
#define ARENA_BYTES (4 * SEGMENT)
#define NAME NAMES "/file-calls-test"

FIXTURE(file_calls)
{
	int device;
	int fd;
	unsigned char *map;
	struct xalloc_ioc_stat before;
};

FIXTURE_VARIANT(file_calls)
{
	bool has_name;
};

FIXTURE_VARIANT_ADD(file_calls, by_device)
{
	.has_name = false,
};

FIXTURE_VARIANT_ADD(file_calls, by_name)
{
	.has_name = true,
};

/* Granted are the first slice, the last one of the first segment, and all of the third segment. */
static const struct {
	uint64_t offset;
	uint64_t bytes;
} data[] = {
	{ 0, SLICE },
	{ SEGMENT - SLICE, SLICE },
	{ 2 * SEGMENT, SEGMENT },
};

FIXTURE_SETUP(file_calls)
{
	struct xalloc_page_grant pages[SEGMENT_SLICES], page;
	unsigned int i;

	self->device = device_setup(_metadata, &self->before);
	if (variant->has_name) {
		unlink(NAME);
		self->fd = open(NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		ASSERT_LE(0, self->fd);
		ASSERT_LE(0, arena_create(self->fd, ARENA_BYTES, 0));
	} else {
		self->fd = arena_create(self->device, ARENA_BYTES, 0);
	}
	self->map = arena_map(self->fd, ARENA_BYTES);
	ASSERT_NE(NULL, self->map);
	for (i = 0; i < SEGMENT_SLICES; i++)
		ASSERT_EQ(1, grant_page(self->fd, 1, 0, &pages[i]));
	ASSERT_EQ(1, grant_page(self->fd, SEGMENT_SLICES, 0, &page));
	ASSERT_EQ(1, grant_page(self->fd, SEGMENT_SLICES, 0, NULL));
	ASSERT_EQ(1, free_page(self->fd, page.offset));
	for (i = 1; i < SEGMENT_SLICES - 1; i++)
		ASSERT_EQ(1, free_page(self->fd, pages[i].offset));
	for (i = 0; i < ARRAY_SIZE(data); i++)
		pattern_fill(self->map + data[i].offset, data[i].bytes, i);
}

FIXTURE_TEARDOWN(file_calls)
{
	munmap(self->map, ARENA_BYTES);
	close(self->fd);
	unlink(NAME);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* What a file with these data and holes has. */
static void fill_expected(unsigned char *want)
{
	unsigned int i;

	memset(want, 0, ARENA_BYTES);
	for (i = 0; i < ARRAY_SIZE(data); i++)
		pattern_fill(want + data[i].offset, data[i].bytes, i);
}

static void *anonymous_map(size_t bytes)
{
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return map == MAP_FAILED ? NULL : map;
}

/* Moves at most one slice from a file to another by a pipe. Returns how many bytes, or -1. */
static ssize_t splice_through(int from, off_t *from_at, int to, off_t *to_at, size_t bytes)
{
	ssize_t nr, rest;
	int pipes[2];

	if (pipe(pipes))
		return -1;
	nr = splice(from, from_at, pipes[1], NULL, bytes < SLICE ? bytes : SLICE, 0);
	for (rest = nr; rest > 0;) {
		ssize_t moved = splice(pipes[0], NULL, to, to_at, rest, 0);

		if (moved <= 0)
			nr = -1;
		rest = moved <= 0 ? 0 : rest - moved;
	}
	close(pipes[0]);
	close(pipes[1]);
	return nr;
}

TEST_F(file_calls, read_sees_data_and_zeros)
{
	unsigned char *want = anonymous_map(ARENA_BYTES), *got = anonymous_map(ARENA_BYTES);
	void *nowhere = range_reserve(KPAGE_BYTES, KPAGE_BYTES);
	const struct iovec parts[] = { { got, 5000 }, { got + 5000, 2 * SLICE } };

	ASSERT_TRUE(want && got);
	fill_expected(want);
	memset(got, 0xff, ARENA_BYTES);
	EXPECT_EQ(ARENA_BYTES, read(self->fd, got, ARENA_BYTES));
	EXPECT_EQ(0, memcmp(want, got, ARENA_BYTES));
	EXPECT_EQ(0, read(self->fd, got, 1));
	EXPECT_EQ(ARENA_BYTES, lseek(self->fd, 0, SEEK_CUR));
	/* Across the border of a page and a hole, at odd offsets. */
	memset(got, 0xff, ARENA_BYTES);
	EXPECT_EQ(5000 + 2 * SLICE, preadv(self->fd, parts, 2, SEGMENT - SLICE - 77));
	EXPECT_EQ(0, memcmp(want + SEGMENT - SLICE - 77, got, 5000 + 2 * SLICE));
	EXPECT_EQ(10, pread(self->fd, got, 100, ARENA_BYTES - 10));
	EXPECT_EQ(0, pread(self->fd, got, 1, ARENA_BYTES + 5));
	/* Into memory of the arena itself. */
	EXPECT_EQ(SLICE, pread(self->fd, self->map, SLICE, SEGMENT - SLICE));
	EXPECT_EQ(-1, pattern_mismatch(self->map, SLICE, 1));
	EXPECT_EQ(-1, pread(self->fd, nowhere, 10, 0));
	EXPECT_EQ(EFAULT, errno);
	munmap(want, ARENA_BYTES);
	munmap(got, ARENA_BYTES);
}

TEST_F(file_calls, write_reaches_data_alone)
{
	void *nowhere = range_reserve(KPAGE_BYTES, KPAGE_BYTES);
	unsigned char *bytes = anonymous_map(SEGMENT);
	uint64_t committed = stat_of(self->fd).committed_bytes;

	ASSERT_TRUE(bytes);
	pattern_fill(bytes, SEGMENT, 7);
	EXPECT_EQ(SEGMENT, pwrite(self->fd, bytes, SEGMENT, 2 * SEGMENT));
	EXPECT_EQ(-1, pattern_mismatch(self->map + 2 * SEGMENT, SEGMENT, 7));
	EXPECT_EQ(100, pwrite(self->fd, bytes, 100, SLICE - 100));
	EXPECT_EQ(0, memcmp(self->map + SLICE - 100, bytes, 100));
	/* As far as there is data. */
	EXPECT_EQ(50, pwrite(self->fd, bytes, 100, SLICE - 50));
	EXPECT_EQ(-1, pwrite(self->fd, bytes, 100, SLICE));
	EXPECT_EQ(ENOSPC, errno);
	EXPECT_EQ(-1, pwrite(self->fd, bytes, 1, ARENA_BYTES));
	EXPECT_EQ(ENOSPC, errno);
	/* From memory of the arena itself. */
	EXPECT_EQ(SLICE, pwrite(self->fd, self->map + 2 * SEGMENT, SLICE, SEGMENT - SLICE));
	EXPECT_EQ(-1, pattern_mismatch(self->map + SEGMENT - SLICE, SLICE, 7));
	EXPECT_EQ(-1, pwrite(self->fd, nowhere, 10, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(committed, stat_of(self->fd).committed_bytes);
	munmap(bytes, SEGMENT);
}

TEST_F(file_calls, seek_finds_data_and_holes)
{
	static const struct {
		off_t from;
		off_t data;
		off_t hole;
	} rows[] = {
		{ 0, 0, SLICE },
		{ 77, 77, SLICE },
		{ SLICE, SEGMENT - SLICE, SLICE },
		{ SLICE + 77, SEGMENT - SLICE, SLICE + 77 },
		{ SEGMENT - 1, SEGMENT - 1, SEGMENT },
		{ SEGMENT, 2 * SEGMENT, SEGMENT },
		{ 2 * SEGMENT + 5, 2 * SEGMENT + 5, 3 * SEGMENT },
		{ 3 * SEGMENT, -1, 3 * SEGMENT },
		{ ARENA_BYTES - 1, -1, ARENA_BYTES - 1 },
		{ ARENA_BYTES, -1, -1 },
		{ -1, -1, -1 },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		EXPECT_EQ(rows[i].data, lseek(self->fd, rows[i].from, SEEK_DATA)) {
			TH_LOG("data from %#jx", (intmax_t)rows[i].from);
		}
		EXPECT_EQ(rows[i].data < 0 ? ENXIO : errno, errno);
		EXPECT_EQ(rows[i].hole, lseek(self->fd, rows[i].from, SEEK_HOLE)) {
			TH_LOG("hole from %#jx", (intmax_t)rows[i].from);
		}
		EXPECT_EQ(rows[i].hole < 0 ? ENXIO : errno, errno);
	}
	EXPECT_EQ(ARENA_BYTES, lseek(self->fd, 0, SEEK_END));
	EXPECT_EQ(ARENA_BYTES - 5, lseek(self->fd, -5, SEEK_CUR));
	EXPECT_EQ(-1, lseek(self->fd, -1, SEEK_SET));
	EXPECT_EQ(EINVAL, errno);
	/* A full arena ends with a hole. */
	while (grant_page(self->fd, 1, 0, NULL) == 1)
		;
	EXPECT_EQ(ARENA_BYTES, lseek(self->fd, 0, SEEK_HOLE));
	EXPECT_EQ(SLICE, lseek(self->fd, SLICE, SEEK_DATA));
}

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

/* What is in no page yet becomes pages of the client; what is in pages stays as it is. */
TEST_F(file_calls, fallocate_grants)
{
	struct xalloc_ioc_stat stat;

	EXPECT_EQ(0, fallocate(self->fd, 0, SEGMENT - 3 * SLICE + 1, 2 * SLICE));
	stat = stat_of(self->fd);
	EXPECT_EQ(4, stat.pages);
	EXPECT_EQ((2 + 2 + SEGMENT_SLICES) * SLICE, stat.granted_bytes);
	EXPECT_EQ(-1, nonzero_find(self->map + SEGMENT - 3 * SLICE, 2 * SLICE));
	EXPECT_EQ(-1, pattern_mismatch(self->map + SEGMENT - SLICE, SLICE, 1));
	EXPECT_EQ(1, free_page(self->fd, SEGMENT - 3 * SLICE));
	EXPECT_EQ(stat.granted_bytes - 2 * SLICE, stat_of(self->fd).granted_bytes);

	EXPECT_EQ(0, fallocate(self->fd, 0, 0, ARENA_BYTES));
	EXPECT_EQ(ARENA_BYTES, stat_of(self->fd).granted_bytes);
	EXPECT_EQ(ARENA_BYTES, lseek(self->fd, 0, SEEK_HOLE));
	EXPECT_EQ(-1, pattern_mismatch(self->map + 2 * SEGMENT, SEGMENT, 2));
	EXPECT_EQ(-1, fallocate(self->fd, 0, 0, ARENA_BYTES + 1));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-1, fallocate(self->fd, FALLOC_FL_KEEP_SIZE, 0, ARENA_BYTES + 1));
	EXPECT_EQ(ENOSPC, errno);
	EXPECT_EQ(-1, fallocate(self->fd, FALLOC_FL_ZERO_RANGE, 0, SLICE));
	EXPECT_EQ(EOPNOTSUPP, errno);
}

TEST_F(file_calls, punched_slices_are_free_and_zero)
{
	int by_madvise;

	for (by_madvise = 0; by_madvise < 2; by_madvise++) {
		off_t from = 2 * SEGMENT + (3 + by_madvise * 8) * SLICE;

		if (by_madvise) {
			EXPECT_EQ(0, madvise(self->map + from, 2 * SLICE, MADV_REMOVE));
		} else {
			EXPECT_EQ(0, fallocate(self->fd, PUNCH, from, 2 * SLICE));
		}
		EXPECT_EQ(from, lseek(self->fd, 2 * SEGMENT + by_madvise * 8 * SLICE, SEEK_HOLE));
		EXPECT_EQ(from + 2 * SLICE, lseek(self->fd, from, SEEK_DATA));
		EXPECT_EQ(-1, nonzero_find(self->map + from, 2 * SLICE));
		EXPECT_EQ(-ENOENT, free_range(self->fd, from, SLICE));
	}
	EXPECT_EQ(-1, pattern_mismatch(self->map + 2 * SEGMENT, 3 * SLICE, 2));
	/* Of whole slices only: a part of one is zeroed. */
	EXPECT_EQ(0, fallocate(self->fd, PUNCH, 100, SLICE - 100));
	EXPECT_EQ(-1, nonzero_find(self->map + 104, SLICE - 104));
	EXPECT_EQ(SLICE, lseek(self->fd, 0, SEEK_HOLE));
	/* All of a segment: its memory goes. */
	EXPECT_EQ(2 * SEGMENT, stat_of(self->fd).committed_bytes);
	EXPECT_EQ(0, fallocate(self->fd, PUNCH, 2 * SEGMENT, SEGMENT));
	EXPECT_EQ(SEGMENT, stat_of(self->fd).committed_bytes);
	EXPECT_EQ(SIGBUS, touch_read(self->map + 2 * SEGMENT, NULL));
	EXPECT_EQ(2 * SLICE, stat_of(self->fd).granted_bytes);
}

/* Nothing is punched that is another client's or that somebody refers to. */
TEST_F(file_calls, punch_is_refused_as_a_whole)
{
	struct iovec one = { self->map + 2 * SEGMENT + SLICE, KPAGE_BYTES };
	struct xalloc_page_grant page;
	struct xalloc_ioc_stat stat;
	int other = attach(self->fd, 0, NULL), ends[2];

	ASSERT_LE(0, other);
	EXPECT_EQ(1, grant_page(other, 1, 0, &page));
	EXPECT_EQ(SLICE, page.offset);
	stat = stat_of(self->fd);
	EXPECT_EQ(-1, fallocate(self->fd, PUNCH, 0, ARENA_BYTES));
	EXPECT_EQ(EPERM, errno);
	counters_expect_now(_metadata, self->fd, &stat);
	close(other);
	ASSERT_EQ(0, pipe(ends));
	ASSERT_EQ((ssize_t)KPAGE_BYTES, vmsplice(ends[1], &one, 1, 0));
	EXPECT_EQ(-1, fallocate(self->fd, PUNCH, 0, ARENA_BYTES));
	EXPECT_EQ(EBUSY, errno);
	EXPECT_EQ(-1, pattern_mismatch(self->map, SLICE, 0));
	EXPECT_EQ(-1, pattern_mismatch(self->map + 2 * SEGMENT, SEGMENT, 2));
	close(ends[0]);
	close(ends[1]);
	EXPECT_EQ(0, fallocate(self->fd, PUNCH, 0, ARENA_BYTES));
	EXPECT_EQ(0, stat_of(self->fd).granted_bytes);
}

/* sendfile() and splice() copy, and pin no memory of the arena. */
TEST_F(file_calls, copies_by_the_kernel)
{
	unsigned char *want = anonymous_map(ARENA_BYTES), *got;
	int file = memfd_create("copy", MFD_CLOEXEC);
	off_t from = 0, to = 2 * SEGMENT, at = 0;
	ssize_t nr;

	ASSERT_LE(0, file);
	ASSERT_TRUE(want);
	fill_expected(want);
	while (from < (off_t)ARENA_BYTES) {
		nr = sendfile(file, self->fd, &from, ARENA_BYTES);
		ASSERT_LT(0, nr);
	}
	got = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	ASSERT_NE(MAP_FAILED, (void *)got);
	EXPECT_EQ(0, memcmp(want, got, ARENA_BYTES));
	EXPECT_EQ(0, stat_of(self->fd).pinned_bytes);
	pattern_fill(got, SEGMENT, 9);
	while (at < (off_t)SEGMENT) {
		nr = splice_through(file, &at, self->fd, &to, SEGMENT - at);
		ASSERT_LT(0, nr);
	}
	EXPECT_EQ(-1, pattern_mismatch(self->map + 2 * SEGMENT, SEGMENT, 9));
	munmap(got, ARENA_BYTES);
	munmap(want, ARENA_BYTES);
	close(file);
}

/* A pipe keeps the bytes that the arena held at the time of splice(). */
TEST_F(file_calls, pipe_has_a_copy)
{
	unsigned char got[KPAGE_BYTES];
	off_t at = 0;
	int pipes[2];

	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(KPAGE_BYTES, splice(self->fd, &at, pipes[1], NULL, KPAGE_BYTES, 0));
	pattern_fill(self->map, KPAGE_BYTES, 8);
	ASSERT_EQ(KPAGE_BYTES, read(pipes[0], got, KPAGE_BYTES));
	EXPECT_EQ(-1, pattern_mismatch(got, KPAGE_BYTES, 0));
	close(pipes[0]);
	close(pipes[1]);
}

/* An open by somebody else would wait for the holder of a lease. */
TEST_F(file_calls, no_leases)
{
	EXPECT_EQ(-1, fcntl(self->fd, F_SETLEASE, F_RDLCK));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, fcntl(self->fd, F_SETLEASE, F_WRLCK));
	EXPECT_EQ(EINVAL, errno);
}

/* There is no disk to wait for. */
TEST_F(file_calls, synchronises_at_once)
{
	EXPECT_EQ(0, fsync(self->fd));
	EXPECT_EQ(0, fdatasync(self->fd));
	EXPECT_EQ(0, msync(self->map, ARENA_BYTES, MS_SYNC));
}

TEST_F(file_calls, reader_does_not_write)
{
	int reader = fd_reopen(self->fd, O_RDONLY);
	char byte = 1;

	ASSERT_LE(0, reader);
	EXPECT_EQ(1, pread(reader, &byte, 1, 0));
	EXPECT_EQ(-1, pwrite(reader, &byte, 1, 0));
	EXPECT_EQ(EBADF, errno);
	close(reader);
}

/* The file of a family works only in the process that it belongs to. */
TEST(family_file_is_stale_in_a_child)
{
	struct xalloc_ioc_stat before;
	int device = device_setup(_metadata, &before);
	int arena = family_create(device, ARENA_BYTES, 0);
	unsigned char *map = arena_map(arena, ARENA_BYTES);
	uint64_t word;

	ASSERT_NE(NULL, map);
	ASSERT_EQ(1, grant_page(arena, SEGMENT_SLICES, 0, NULL));
	pattern_fill(map, SEGMENT, 1);
	EXPECT_EQ(8, pread(arena, &word, 8, 80));
	EXPECT_EQ(pattern_word(1, 10), word);
	EXPECT_EQ(0, in_child({
		require(pread(arena, &word, 8, 80) == -1 && errno == ESTALE);
		require(pwrite(arena, &word, 8, 80) == -1 && errno == ESTALE);
		require(lseek(arena, 0, SEEK_DATA) == -1 && errno == ESTALE);
	}));
	munmap(map, ARENA_BYTES);
	close(arena);
	counters_expect(_metadata, device, &before);
	close(device);
}

TEST_HARNESS_MAIN
