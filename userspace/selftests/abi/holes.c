// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: files of xallocfs that are used as files. Their size changes, memory comes by write,
 * touch and fallocate and goes by punch and truncate, and what has no memory reads as zeros.
 */
#define MAP_BYTES (16 * MIB)
#include "holes_fixture.h"

#include <sys/sendfile.h>

TEST_F(holes, write_makes_the_file_longer)
{
	unsigned char bytes[100];

	expect_file(self->fd, 0, 0);
	EXPECT_EQ(0, read(self->fd, bytes, sizeof(bytes)));
	EXPECT_EQ(3, write(self->fd, "abc", 3));
	expect_file(self->fd, 3, SEGMENT);
	/* Beyond the end: what is between has no memory. */
	EXPECT_EQ(3, pwrite(self->fd, "xyz", 3, 4 * SEGMENT + 5));
	expect_file(self->fd, 4 * SEGMENT + 8, 2 * SEGMENT);
	EXPECT_EQ(58, pread(self->fd, bytes, 100, 4 * SEGMENT - 50));
	EXPECT_TRUE(is_zero(bytes, 55) && !memcmp(bytes + 55, "xyz", 3));
	EXPECT_EQ(100, pread(self->fd, bytes, 100, 2 * SEGMENT));
	EXPECT_TRUE(is_zero(bytes, 100));
	EXPECT_EQ(0, pread(self->fd, bytes, 100, 4 * SEGMENT + 8));
	EXPECT_EQ(0, pread(self->fd, bytes, 100, 40 * SEGMENT));
	/* A read commits nothing, and nor does a write of nothing. */
	EXPECT_EQ(0, pwrite(self->fd, "", 0, 8 * SEGMENT));
	expect_file(self->fd, 4 * SEGMENT + 8, 2 * SEGMENT);
	EXPECT_EQ(0, memcmp(self->map, "abc", 4));
	EXPECT_EQ(0, memcmp(self->map + 4 * SEGMENT + 4, "\0xyz", 4));
}

TEST_F(holes, append_goes_to_the_end)
{
	int other = name_open(NAME, O_RDWR | O_APPEND);
	char bytes[8] = {};

	ASSERT_LE(0, other);
	EXPECT_EQ(2, write(other, "ab", 2));
	EXPECT_EQ(0, file_resize(self->fd, SEGMENT + 3));
	EXPECT_EQ(0, lseek(other, 0, SEEK_SET));
	EXPECT_EQ(2, write(other, "cd", 2));
	EXPECT_EQ(SEGMENT + 5, lseek(other, 0, SEEK_CUR));
	expect_file(self->fd, SEGMENT + 5, 2 * SEGMENT);
	EXPECT_EQ(3, pread(self->fd, bytes, 8, SEGMENT + 2));
	EXPECT_EQ(0, memcmp(bytes, "\0cd", 3));
	close(other);
}

/* Bytes that go in and come out in pieces of many lengths, also with O_DIRECT. */
TEST_F(holes, odd_pieces)
{
	static const int flags[] = { 0, O_DIRECT };
	const size_t bytes = 5000001;
	unsigned char *want = anonymous_map(MAP_BYTES), *got = anonymous_map(MAP_BYTES);
	uint32_t random = 1;
	unsigned int i;
	size_t at, n;
	int fd;

	ASSERT_TRUE(want && got);
	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		fd = name_open(NAME, O_RDWR | flags[i]);
		ASSERT_LE(0, fd);
		pattern_fill(want, MAP_BYTES, i);
		memset(got, 0xff, MAP_BYTES);
		for (at = 0; at < bytes; at += n) {
			n = 1 + random_next(&random) % 70000;
			n = n < bytes - at ? n : bytes - at;
			ASSERT_EQ(n, write(fd, want + at, n));
		}
		expect_file(fd, bytes, 3 * SEGMENT);
		EXPECT_EQ(0, lseek(fd, 0, SEEK_SET));
		for (at = 0; at < bytes; at += n) {
			n = 1 + random_next(&random) % 70000;
			ASSERT_EQ(n < bytes - at ? n : bytes - at, read(fd, got + at, n));
		}
		EXPECT_EQ(0, memcmp(want, got, bytes));
		EXPECT_EQ(0, memcmp(want, self->map, bytes));
		EXPECT_EQ(0xff, got[bytes]);
		EXPECT_EQ(0, file_resize(fd, 0));
		expect_file(fd, 0, 0);
		close(fd);
	}
	munmap(want, MAP_BYTES);
	munmap(got, MAP_BYTES);
}

TEST_F(holes, touch_commits)
{
	uint64_t value = 1;

	EXPECT_EQ(SIGBUS, touch_read(self->map, NULL));
	EXPECT_EQ(0, file_resize(self->fd, 3 * SEGMENT + 1));
	expect_file(self->fd, 3 * SEGMENT + 1, 0);
	EXPECT_EQ(0, touch_read(self->map + SEGMENT + 8 * KPAGE_BYTES, &value));
	EXPECT_EQ(0, value);
	expect_file(self->fd, 3 * SEGMENT + 1, SEGMENT);
	EXPECT_EQ(0, touch_write(self->map, 7));
	expect_file(self->fd, 3 * SEGMENT + 1, 2 * SEGMENT);
	EXPECT_EQ(-1, nonzero_find(self->map + 8, 2 * SEGMENT - 8));
	EXPECT_EQ(8, pread(self->fd, &value, 8, 0));
	EXPECT_EQ(7, value);
	expect_file(self->fd, 3 * SEGMENT + 1, 2 * SEGMENT);
	/* The kernel touches, too. */
	EXPECT_EQ(3, pwrite(self->fd, self->map + 2 * SEGMENT, 3, 5));
	expect_file(self->fd, 3 * SEGMENT + 1, 3 * SEGMENT);
}

TEST_F(holes, touch_past_the_end)
{
	size_t at;

	EXPECT_EQ(0, file_resize(self->fd, SEGMENT + 1));
	/* Not even in the last segment, while it has no memory. */
	EXPECT_EQ(SIGBUS, touch_read(self->map + SEGMENT + KPAGE_BYTES, NULL));
	EXPECT_EQ(SIGBUS, touch_write(self->map + 2 * SEGMENT - 8, 1));
	EXPECT_EQ(SIGBUS, touch_write(self->map + 2 * SEGMENT, 1));
	expect_file(self->fd, SEGMENT + 1, 0);
	EXPECT_EQ(0, touch_write(self->map + SEGMENT, 1));
	EXPECT_EQ(0, touch_write(self->map + SEGMENT + KPAGE_BYTES - 8, 1));
	EXPECT_EQ(SIGBUS, touch_write(self->map + 2 * SEGMENT, 1));
	expect_file(self->fd, SEGMENT + 1, SEGMENT);
	/* Touches do not make it longer. Memory beyond the end is not shown. */
	EXPECT_EQ(0, file_allocate(self->fd, FALLOC_FL_KEEP_SIZE, 2 * SEGMENT, SEGMENT));
	expect_file(self->fd, SEGMENT + 1, 2 * SEGMENT);
	EXPECT_EQ(SIGBUS, touch_read(self->map + 2 * SEGMENT, NULL));

	EXPECT_EQ(0, file_resize(self->fd, 3 * SEGMENT));
	for (at = 0; at < 3 * SEGMENT; at += SLICE)
		EXPECT_EQ(0, touch_write(self->map + at, 1));
	EXPECT_EQ(0, file_resize(self->fd, SEGMENT));
	EXPECT_EQ(0, touch_read(self->map + SEGMENT - 8, NULL));
	for (at = SEGMENT; at < MAP_BYTES; at += SLICE)
		EXPECT_EQ(SIGBUS, touch_read(self->map + at, NULL));
	expect_file(self->fd, SEGMENT, SEGMENT);
	EXPECT_EQ(0, file_resize(self->fd, 0));
	EXPECT_EQ(SIGBUS, touch_read(self->map, NULL));
	expect_file(self->fd, 0, 0);
}

enum longer { BY_RESIZE, BY_WRITE, BY_APPEND, BY_ALLOCATE, NR_LONGER };

/* Where the file may end with less than a huge page of memory. */
static const off_t ends[] = {
	1, 77, KPAGE_BYTES - 1, KPAGE_BYTES, SLICE, SLICE + 5, MIB, SEGMENT - 1, SEGMENT + 4097,
};

/* What was in the file before, and what a mapping wrote past the end of the file. */
TEST_F(holes, zeros_when_it_is_longer_again)
{
	unsigned char *got = anonymous_map(3 * SEGMENT), *want = anonymous_map(3 * SEGMENT);
	int append = name_open(NAME, O_WRONLY | O_APPEND), rc = -1;
	unsigned int i, how;
	off_t end, border, at;

	ASSERT_TRUE(got && want);
	ASSERT_LE(0, append);
	for (i = 0; i < ARRAY_SIZE(ends); i++) {
		end = ends[i];
		border = (end + SEGMENT - 1) / SEGMENT * SEGMENT;
		for (how = 0; how < NR_LONGER; how++) {
			memset(want, 0xee, 3 * SEGMENT);
			ASSERT_EQ(3 * SEGMENT, pwrite(self->fd, want, 3 * SEGMENT, 0));
			ASSERT_EQ(0, file_resize(self->fd, end));
			expect_file(self->fd, end, border);
			/* All words of the kpage in which it ends, then one of each kpage. */
			for (at = (end + 7) / 8 * 8; at < border;)
				at += touch_write(self->map + at, UINT64_MAX) || at > end + 8000 ?
				      KPAGE_BYTES : 8;
			ASSERT_EQ(end, pread(self->fd, got, 3 * SEGMENT, 0));
			memset(want + end, 0, 3 * SEGMENT - end);
			if (how == BY_RESIZE)
				rc = file_resize(self->fd, 3 * SEGMENT);
			else if (how == BY_WRITE)
				rc = pwrite(self->fd, "", 1, 3 * SEGMENT - 1) - 1;
			else if (how == BY_APPEND)
				rc = write(append, got + end, 3 * SEGMENT - end) -
				     (3 * SEGMENT - end);
			else if (how == BY_ALLOCATE)
				rc = file_allocate(self->fd, 0, 0, 3 * SEGMENT);
			EXPECT_EQ(0, rc);
			EXPECT_EQ(3 * SEGMENT, pread(self->fd, got, 3 * SEGMENT, 0));
			EXPECT_EQ(0, memcmp(want, got, 3 * SEGMENT)) {
				TH_LOG("end %jd, way %u", (intmax_t)end, how);
			}
			EXPECT_EQ(0, memcmp(want, self->map, 3 * SEGMENT));
			memset(got, 0, 3 * SEGMENT);
		}
	}
	close(append);
	munmap(got, 3 * SEGMENT);
	munmap(want, 3 * SEGMENT);
}

TEST_F(holes, fallocate_commits)
{
	EXPECT_EQ(0, file_allocate(self->fd, FALLOC_FL_KEEP_SIZE, 0, 3 * SEGMENT));
	expect_file(self->fd, 0, 3 * SEGMENT);
	EXPECT_EQ(0, file_allocate(self->fd, 0, SEGMENT - 1, 2));
	expect_file(self->fd, SEGMENT + 1, 3 * SEGMENT);
	/* What is there stays. */
	memset(self->map, 0xaa, SEGMENT);
	EXPECT_EQ(0, file_allocate(self->fd, 0, 0, 4 * SEGMENT));
	expect_file(self->fd, 4 * SEGMENT, 4 * SEGMENT);
	EXPECT_EQ(0xaa, self->map[SEGMENT - 1]);
	EXPECT_EQ(-1, nonzero_find(self->map + SEGMENT, 3 * SEGMENT));
	EXPECT_EQ(0, file_allocate(self->fd, 0, 5 * SEGMENT, 1));
	expect_file(self->fd, 5 * SEGMENT + 1, 5 * SEGMENT);
	EXPECT_EQ(-EINVAL, file_allocate(self->fd, 0, 0, 0));
	EXPECT_EQ(-EINVAL, file_punch(self->fd, 0, 0));
	EXPECT_EQ(0, file_punch(self->fd, 0, 8 * SEGMENT));
	expect_file(self->fd, 5 * SEGMENT + 1, 0);
}

TEST_F(holes, other_modes_are_refused)
{
	static const int modes[] = {
		FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_ZERO_RANGE, FALLOC_FL_INSERT_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_UNSHARE_RANGE,
		FALLOC_FL_PUNCH_HOLE,
	};
	unsigned int i;

	memset(self->map, 0xaa, file_allocate(self->fd, 0, 0, SEGMENT) ? 0 : SEGMENT);
	for (i = 0; i < ARRAY_SIZE(modes); i++)
		EXPECT_EQ(-EOPNOTSUPP, file_allocate(self->fd, modes[i], 0, SLICE));
	EXPECT_EQ(0xaa, self->map[0]);
	expect_file(self->fd, SEGMENT, SEGMENT);
}

/* Exactly the range is zero after that, and whole segments of it are given back. */
TEST_F(holes, punch)
{
	static const struct {
		off_t offset;
		off_t bytes;
		unsigned int segments;
	} rows[] = {
		{ 77, 1, 0 },
		{ KPAGE_BYTES - 1, 2, 0 },
		{ SLICE, SLICE, 0 },
		{ SLICE + 1, SEGMENT - SLICE - 2, 0 },
		{ SEGMENT - 5, 10, 0 },
		{ 1, SEGMENT - 1, 0 },
		{ 0, SEGMENT, 1 },
		{ SEGMENT - 4097, SEGMENT + 9999, 1 },
		{ SEGMENT, 2 * SEGMENT, 2 },
		{ SEGMENT + 1, 2 * SEGMENT, 1 },
		{ 2 * SEGMENT, 20 * SEGMENT, 2 },
		{ 20 * SEGMENT, SEGMENT, 0 },
	};
	const off_t size = 4 * SEGMENT - 12345;
	unsigned char *want = anonymous_map(4 * SEGMENT), *got = anonymous_map(4 * SEGMENT);
	unsigned int i, by_map;

	ASSERT_TRUE(want && got);
	for (i = 0; i < 2 * ARRAY_SIZE(rows); i++) {
		off_t offset = rows[i / 2].offset, bytes = rows[i / 2].bytes;

		/* With madvise() instead, where the range is such that it can be. */
		by_map = i % 2;
		if (by_map && (offset % KPAGE_BYTES || offset + bytes > (off_t)MAP_BYTES))
			continue;
		if (by_map)
			bytes = (bytes + KPAGE_BYTES - 1) / KPAGE_BYTES * KPAGE_BYTES;
		pattern_fill(want, 4 * SEGMENT, i);
		ASSERT_EQ(size, pwrite(self->fd, want, size, 0));
		expect_file(self->fd, size, 4 * SEGMENT);
		EXPECT_EQ(0, by_map ? range_remove(self->map + offset, bytes) :
				      file_punch(self->fd, offset, bytes));
		expect_file(self->fd, size, (4 - rows[i / 2].segments) * SEGMENT);
		if (offset < size)
			memset(want + offset, 0, bytes < size - offset ? bytes : size - offset);
		EXPECT_EQ(size, pread(self->fd, got, 4 * SEGMENT, 0));
		EXPECT_EQ(0, memcmp(want, got, size)) {
			TH_LOG("row %u, by %s", i / 2, by_map ? "madvise" : "fallocate");
		}
		expect_file(self->fd, size, (4 - rows[i / 2].segments) * SEGMENT);
		/* A touch commits it again. */
		EXPECT_EQ(0, memcmp(want, self->map, size));
		expect_file(self->fd, size, 4 * SEGMENT);
		EXPECT_EQ(0, file_resize(self->fd, 0));
	}
	munmap(want, 4 * SEGMENT);
	munmap(got, 4 * SEGMENT);
}

/* As the kernel counts it, also without a call: each way to give it back, at once. */
TEST_F(holes, memory_is_given_back)
{
	const long kb = SEGMENT / 1024;
	const long unevictable = meminfo_kb("Unevictable");

	if (!is_thp_kernel())
		SKIP(return, "the page cache of this kernel has no huge pages");
	EXPECT_EQ(0, file_allocate(self->fd, 0, 0, 6 * SEGMENT));
	memset(self->map, 1, 6 * SEGMENT);
	EXPECT_EQ(self->huge_kb + 6 * kb, meminfo_kb("FileHugePages"));
	EXPECT_EQ(unevictable + 6 * kb, meminfo_kb("Unevictable"));
	EXPECT_EQ(0, file_punch(self->fd, SEGMENT, SEGMENT));
	EXPECT_EQ(self->huge_kb + 5 * kb, meminfo_kb("FileHugePages"));
	EXPECT_EQ(0, range_remove(self->map, SEGMENT));
	EXPECT_EQ(self->huge_kb + 4 * kb, meminfo_kb("FileHugePages"));
	EXPECT_EQ(0, file_resize(self->fd, 5 * SEGMENT));
	EXPECT_EQ(self->huge_kb + 3 * kb, meminfo_kb("FileHugePages"));
	EXPECT_EQ(self->before.committed_bytes + 3 * SEGMENT,
		  stat_of(self->device).committed_bytes);
	close(name_open(NAME, O_RDWR | O_TRUNC));
	EXPECT_EQ(self->huge_kb, meminfo_kb("FileHugePages"));
	EXPECT_EQ(unevictable, meminfo_kb("Unevictable"));
	expect_file(self->fd, 0, 0);
	EXPECT_EQ(self->before.committed_bytes, stat_of(self->device).committed_bytes);
	EXPECT_EQ(self->before.granted_bytes, stat_of(self->device).granted_bytes);
	EXPECT_EQ(self->before.pages, stat_of(self->device).pages);
}

/* Whether data begins with the slice or with the huge page that was written to is not said. */
TEST_F(holes, seek)
{
	const off_t at = 2 * SEGMENT + 3 * SLICE + 100;
	off_t data, hole;

	EXPECT_EQ(-1, lseek(self->fd, 0, SEEK_DATA));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(0, file_resize(self->fd, 4 * SEGMENT + 1));
	EXPECT_EQ(-1, lseek(self->fd, 0, SEEK_DATA));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(5, lseek(self->fd, 5, SEEK_HOLE));
	EXPECT_EQ(1, pwrite(self->fd, "x", 1, at));
	data = lseek(self->fd, 0, SEEK_DATA);
	EXPECT_TRUE(data == 2 * (off_t)SEGMENT || data == at - 100);
	EXPECT_EQ(at, lseek(self->fd, at, SEEK_DATA));
	EXPECT_EQ(0, lseek(self->fd, 0, SEEK_HOLE));
	hole = lseek(self->fd, data, SEEK_HOLE);
	EXPECT_TRUE(hole == 3 * (off_t)SEGMENT || hole == at - 100 + (off_t)SLICE);
	EXPECT_EQ(-1, lseek(self->fd, hole, SEEK_DATA));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(4 * SEGMENT + 1, lseek(self->fd, 0, SEEK_END));
	/* The end of the file is that of the last data. */
	EXPECT_EQ(0, touch_write(self->map + 4 * SEGMENT, 1));
	EXPECT_EQ(4 * SEGMENT, lseek(self->fd, hole, SEEK_DATA));
	EXPECT_EQ(4 * SEGMENT + 1, lseek(self->fd, 4 * SEGMENT, SEEK_HOLE));
	EXPECT_EQ(-1, lseek(self->fd, 4 * SEGMENT + 1, SEEK_DATA));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(0, file_punch(self->fd, 2 * SEGMENT, SEGMENT));
	EXPECT_EQ(4 * SEGMENT, lseek(self->fd, 0, SEEK_DATA));
	EXPECT_EQ(0, file_resize(self->fd, 4 * SEGMENT));
	EXPECT_EQ(-1, lseek(self->fd, 0, SEEK_DATA));
}

TEST_F(holes, limit)
{
	unsigned char *bytes = anonymous_map(6 * MIB);

	ASSERT_NE(NULL, bytes);
	memset(bytes, 0x77, 6 * MIB);
	ASSERT_EQ(0, arena_limit(self->fd, 4 * MIB));
	EXPECT_EQ(4 * MIB, write(self->fd, bytes, 6 * MIB));
	EXPECT_EQ(-1, write(self->fd, bytes, 2 * MIB));
	EXPECT_EQ(EDQUOT, errno);
	expect_file(self->fd, 4 * MIB, 4 * MIB);
	EXPECT_EQ(0, file_resize(self->fd, 6 * MIB));
	EXPECT_EQ(SIGBUS, touch_read(self->map + 4 * MIB, NULL));
	EXPECT_EQ(SIGBUS, touch_write(self->map + 6 * MIB - 8, 1));
	EXPECT_EQ(-EDQUOT, file_allocate(self->fd, FALLOC_FL_KEEP_SIZE, 0, 6 * MIB));
	expect_file(self->fd, 6 * MIB, 4 * MIB);
	/* The kernel cannot touch it, either. Data can be written. */
	EXPECT_EQ(-1, pwrite(self->fd, self->map + 4 * MIB, 8, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(MIB, pwrite(self->fd, bytes, 2 * MIB, 3 * MIB));
	EXPECT_EQ(0, memcmp(self->map, bytes, 4 * MIB));
	EXPECT_EQ(-EBUSY, arena_limit(self->fd, 2 * MIB));
	/* What was given back counts no more. */
	EXPECT_EQ(0, file_punch(self->fd, 0, 2 * MIB));
	EXPECT_EQ(0, touch_write(self->map + 4 * MIB, 1));
	EXPECT_EQ(SIGBUS, touch_write(self->map, 1));
	EXPECT_EQ(0, arena_limit(self->fd, 0));
	EXPECT_EQ(0, touch_write(self->map, 1));
	EXPECT_EQ(0, file_allocate(self->fd, 0, 0, 6 * MIB));
	EXPECT_EQ(6 * MIB, pwrite(self->fd, bytes, 6 * MIB, 0));
	EXPECT_EQ(0, memcmp(self->map, bytes, 6 * MIB));
	expect_file(self->fd, 6 * MIB, 6 * MIB);
	munmap(bytes, 6 * MIB);
}

/* Nothing is committed if the limit has no room for all. */
TEST_F(holes, refused_fallocate_changes_nothing)
{
	ASSERT_EQ(0, arena_limit(self->fd, 4 * MIB));
	EXPECT_EQ(-EDQUOT, file_allocate(self->fd, 0, 0, 6 * MIB));
	expect_file(self->fd, 0, 0);
	EXPECT_EQ(1, pwrite(self->fd, "x", 1, 3 * MIB));
	EXPECT_EQ(-EDQUOT, file_allocate(self->fd, FALLOC_FL_KEEP_SIZE, 0, 6 * MIB));
	expect_file(self->fd, 3 * MIB + 1, 2 * MIB);
	EXPECT_EQ(0, lseek(self->fd, 0, SEEK_HOLE));
	EXPECT_EQ('x', self->map[3 * MIB]);
}

/* Each way to want memory that the limit refuses is told to those who could give some back. */
TEST_F(holes, status_page_tells_of_refusals)
{
	const volatile struct xalloc_status *status = status_map(self->fd);
	uint64_t seen;

	ASSERT_NE(NULL, (void *)status);
	ASSERT_EQ(0, arena_limit(self->fd, 2 * MIB));
	EXPECT_EQ(0, file_resize(self->fd, 8 * MIB));
	EXPECT_EQ(1, write(self->fd, "x", 1));
	seen = status->generation;
	EXPECT_EQ(-EDQUOT, file_allocate(self->fd, 0, 0, 6 * MIB));
	EXPECT_LT(seen, status->generation);
	seen = status->generation;
	EXPECT_EQ(-1, pwrite(self->fd, "x", 1, 4 * MIB));
	EXPECT_LT(seen, status->generation);
	seen = status->generation;
	EXPECT_EQ(SIGBUS, touch_write(self->map + 6 * MIB, 1));
	EXPECT_LT(seen, status->generation);
	munmap((void *)status, KPAGE_BYTES);
}

/* That of a file, and that of the process, if it is smaller. */
TEST_F(holes, largest_size)
{
	struct xalloc_ioc_info info;
	off_t most;

	ASSERT_EQ(0, info_read(self->fd, &info));
	most = info.arena_bytes_max;
	EXPECT_EQ(0, file_resize(self->fd, most));
	EXPECT_EQ(-EFBIG, file_resize(self->fd, most + 1));
	EXPECT_EQ(-EFBIG, file_resize(self->fd, INT64_MAX));
	EXPECT_EQ(-EFBIG, file_allocate(self->fd, 0, most, 1));
	EXPECT_EQ(-EFBIG, file_allocate(self->fd, 0, most - SLICE, SLICE + 1));
	EXPECT_EQ(-1, pwrite(self->fd, "xx", 2, most));
	EXPECT_EQ(EFBIG, errno);
	EXPECT_EQ(1, pwrite(self->fd, "xx", 2, most - 1));
	expect_file(self->fd, most, SEGMENT);
	EXPECT_EQ(most - 1, lseek(self->fd, most - 1, SEEK_DATA));
	EXPECT_EQ(0, file_punch(self->fd, 0, most));
	expect_file(self->fd, most, 0);

	EXPECT_EQ(0, file_resize(self->fd, 100));
	EXPECT_EQ(0, in_child({
		struct rlimit limit = { MIB, MIB };

		signal(SIGXFSZ, SIG_IGN);
		require(!setrlimit(RLIMIT_FSIZE, &limit));
		require(file_resize(self->fd, MIB + 1) == -EFBIG);
		require(file_allocate(self->fd, 0, 0, MIB + 1) == -EFBIG);
		require(pwrite(self->fd, "x", 1, MIB) == -1 && errno == EFBIG);
		require(file_size(self->fd) == 100 && !file_blocks(self->fd));
		require(pwrite(self->fd, "xx", 2, MIB - 1) == 1);
		require(file_resize(self->fd, 100) == 0);
		require(file_resize(self->fd, MIB) == 0);
	}));
	expect_file(self->fd, MIB, SEGMENT);
}

/* By calls that read or write memory of the file itself, of which some is a hole yet. */
TEST_F(holes, copies_within_the_file)
{
	unsigned char *want = anonymous_map(8 * MIB);
	int copy = memfd_create("copy", MFD_CLOEXEC);
	off_t from = 0;

	ASSERT_NE(NULL, want);
	pattern_fill(want, 2 * MIB, 5);
	EXPECT_EQ(0, file_resize(self->fd, 8 * MIB));
	EXPECT_EQ(2 * MIB, pwrite(self->fd, want, 2 * MIB, 0));
	memmove(want + MIB, want, 2 * MIB);
	EXPECT_EQ(2 * MIB, pwrite(copy, self->map, 2 * MIB, 0));
	EXPECT_EQ(2 * MIB, pread(copy, self->map + MIB, 2 * MIB, 0));
	/* Both ends are holes. */
	EXPECT_EQ(MIB, pwrite(self->fd, self->map + 4 * MIB, MIB, 6 * MIB));
	EXPECT_EQ(0, file_punch(self->fd, 4 * MIB, 4 * MIB));
	EXPECT_EQ(MIB, pread(self->fd, self->map + 4 * MIB, MIB, 6 * MIB));
	EXPECT_EQ(0, memcmp(want, self->map, 8 * MIB));
	/* The same bytes. */
	EXPECT_EQ(0, file_punch(self->fd, 6 * MIB, 2 * MIB));
	EXPECT_EQ(3 * MIB, pwrite(self->fd, self->map + 5 * MIB, 3 * MIB, 5 * MIB));
	EXPECT_EQ(0, ftruncate(copy, 0));
	while (from < 8 * (off_t)MIB)
		ASSERT_LT(0, sendfile(copy, self->fd, &from, 8 * MIB));
	EXPECT_EQ(8 * MIB, pread(copy, self->map, 8 * MIB, 0));
	EXPECT_EQ(0, memcmp(want, self->map, 8 * MIB));
	close(copy);
	munmap(want, 8 * MIB);
}

TEST_HARNESS_MAIN
