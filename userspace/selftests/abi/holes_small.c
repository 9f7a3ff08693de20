// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: files of xallocfs that are used as files, where the kernel has no huge page left.
 * The memory comes in pieces of 64 KiB, each of which goes by itself.
 */
#include "gup.h"
#include "holes.h"

#include <pthread.h>
#include <stdatomic.h>

#define NAME NAMES "/holes-small-test"
#define BYTES (3 * SEGMENT)
#define LEFT_KB (128 * 1024)
#define NR_REFUSED 5

FIXTURE(holes_small)
{
	int device;
	int fd;
	int small;
	int huge;
	unsigned char *map;
	struct xalloc_ioc_stat before;
};

/* Takes memory in pieces, and gives back most of it: what it keeps is in each 2 MiB. */
static void fragment(struct __test_metadata *_metadata, int arena)
{
	static struct xalloc_page_grant pages[XALLOC_BATCH_MAX];
	uint64_t offsets[XALLOC_BATCH_MAX];
	uint32_t nr = 0, i, n;
	int rc;

	do {
		for (i = 0; i < XALLOC_BATCH_MAX; i++)
			pages[i] = (struct xalloc_page_grant){ .nr_slices = 1 };
		rc = grant_batch(arena, pages, XALLOC_BATCH_MAX);
		nr += rc > 0 ? rc : 0;
	} while (rc == XALLOC_BATCH_MAX && meminfo_kb("MemFree") > LEFT_KB);
	TH_LOG("%u pieces, %ld MiB free", nr, meminfo_kb("MemFree") / 1024);
	/* Of an arena without holes all offsets are known. */
	for (i = 0, n = 0; i < nr; i++) {
		if (i % 8)
			offsets[n++] = i * SLICE;
		if (n == XALLOC_BATCH_MAX || (i == nr - 1 && n)) {
			ASSERT_EQ(n, free_batch(arena, offsets, n));
			n = 0;
		}
	}
}

/* Some 2 MiB are whole, or become so when the kernel moves what is in them. */
static void take_huge_pages(int arena)
{
	while (grant_page(arena, SEGMENT_SLICES, 0, NULL) == 1)
		;
}

FIXTURE_SETUP(holes_small)
{
	const size_t all = meminfo_kb("MemTotal") * 1024UL / SEGMENT * SEGMENT;
	int i;

	unlink(NAME);
	self->device = device_setup(_metadata, &self->before);
	ASSERT_TRUE(total_raise());
	self->small = arena_create_by(self->device, all, XALLOC_POLICY_SMALL, -1);
	self->huge = arena_create_by(self->device, all, XALLOC_POLICY_HUGE, -1);
	ASSERT_LE(0, self->small);
	ASSERT_LE(0, self->huge);
	self->fd = file_create(NAME);
	ASSERT_LE(0, self->fd);
	self->map = file_map(self->fd, BYTES, 0);
	ASSERT_NE(NULL, self->map);
	fragment(_metadata, self->small);
	for (i = 0; i < NR_REFUSED;) {
		take_huge_pages(self->huge);
		ASSERT_EQ(0, file_allocate(self->fd, 0, 0, BYTES));
		if (stat_of(self->fd).small_bytes == BYTES)
			i++;
		ASSERT_TRUE(wait_for(!file_resize(self->fd, 0), 10000));
	}
	TH_LOG("%lld MiB huge", (long long)stat_of(self->huge).committed_bytes / (long long)MIB);
}

FIXTURE_TEARDOWN(holes_small)
{
	munmap(self->map, BYTES);
	close(self->fd);
	close(self->huge);
	close(self->small);
	unlink(NAME);
	total_restore();
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* Compaction works behind the back of the test. */
#define expect_small(self, bytes) \
	do { \
		if (stat_of((self)->fd).small_bytes != stat_of((self)->fd).committed_bytes) \
			SKIP(return, "the kernel has made a huge page"); \
		EXPECT_EQ(bytes, stat_of((self)->fd).committed_bytes); \
		EXPECT_EQ(bytes, file_blocks((self)->fd)); \
	} while (0)

TEST_F(holes_small, pieces_come_one_by_one)
{
	uint64_t value = 1;
	off_t at;

	EXPECT_EQ(0, file_resize(self->fd, 5000001));
	EXPECT_EQ(0, touch_read(self->map + 3 * SLICE + 8, &value));
	EXPECT_EQ(0, value);
	expect_small(self, SLICE);
	EXPECT_EQ(2, pwrite(self->fd, "xy", 2, 9 * SLICE - 1));
	expect_small(self, 3 * SLICE);
	EXPECT_EQ(0, file_allocate(self->fd, 0, 9 * SLICE, 1));
	EXPECT_EQ(0, file_allocate(self->fd, 0, SEGMENT - 1, SLICE + 2));
	expect_small(self, 6 * SLICE);
	EXPECT_EQ(3 * SLICE, lseek(self->fd, 0, SEEK_DATA));
	EXPECT_EQ(4 * SLICE, lseek(self->fd, 3 * SLICE, SEEK_HOLE));
	EXPECT_EQ(8 * SLICE, lseek(self->fd, 4 * SLICE, SEEK_DATA));
	EXPECT_EQ(10 * SLICE, lseek(self->fd, 8 * SLICE + 5, SEEK_HOLE));
	EXPECT_EQ(SEGMENT - SLICE, lseek(self->fd, 10 * SLICE, SEEK_DATA));
	EXPECT_EQ(SEGMENT + 2 * SLICE, lseek(self->fd, SEGMENT, SEEK_HOLE));
	EXPECT_EQ(-1, lseek(self->fd, SEGMENT + 2 * SLICE, SEEK_DATA));
	/* The end of the file lies in a piece. */
	take_huge_pages(self->huge);
	EXPECT_EQ(0, touch_write(self->map + 5000000, 1));
	expect_small(self, 7 * SLICE);
	EXPECT_EQ(SIGBUS, touch_write(self->map + 5000000 + KPAGE_BYTES, 1));
	EXPECT_EQ(SIGBUS, touch_write(self->map + 77 * SLICE, 1));
	for (at = 0; at < 5000001; at += KPAGE_BYTES)
		EXPECT_EQ(0, touch_read(self->map + at, NULL));
	expect_small(self, 77 * SLICE);
}

/* Memory that is to come in pieces counts as such before it is had. */
TEST_F(holes_small, limit_counts_pieces)
{
	EXPECT_EQ(0, file_resize(self->fd, BYTES));
	EXPECT_EQ(0, arena_limit(self->fd, SEGMENT));
	EXPECT_EQ(0, touch_write(self->map + SLICE, 1));
	EXPECT_EQ(0, touch_write(self->map + SEGMENT, 1));
	expect_small(self, 2 * SLICE);
	EXPECT_EQ(0, file_allocate(self->fd, 0, SEGMENT, SEGMENT - SLICE));
	expect_small(self, SEGMENT);
	EXPECT_EQ(SIGBUS, touch_write(self->map, 1));
	EXPECT_EQ(-EDQUOT, file_allocate(self->fd, 0, 0, SLICE));
	EXPECT_EQ(0, file_punch(self->fd, SLICE, SLICE));
	EXPECT_EQ(0, touch_write(self->map, 1));
	expect_small(self, SEGMENT);
}

TEST_F(holes_small, pieces_go_one_by_one)
{
	static const struct {
		off_t offset;
		off_t bytes;
		unsigned int slices;
	} rows[] = {
		{ SLICE, SLICE, 1 },
		{ 3 * SLICE - 5, SLICE + 10, 1 },
		{ 5 * SLICE + 5, SLICE - 10, 0 },
		{ 7 * SLICE, SLICE - 1, 0 },
		{ 7 * SLICE + 1, 3 * SLICE, 2 },
		{ SEGMENT - SLICE, 2 * SLICE, 2 },
		{ SEGMENT + 1, SEGMENT, 31 },
		{ 0, SEGMENT, 32 },
	};
	unsigned char *want = anonymous_map(BYTES), *got = anonymous_map(BYTES);
	unsigned int i;

	ASSERT_TRUE(want && got);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		pattern_fill(want, BYTES, i);
		take_huge_pages(self->huge);
		ASSERT_EQ(BYTES, pwrite(self->fd, want, BYTES, 0));
		expect_small(self, BYTES);
		EXPECT_EQ(0, file_punch(self->fd, rows[i].offset, rows[i].bytes));
		expect_small(self, BYTES - rows[i].slices * SLICE);
		memset(want + rows[i].offset, 0, rows[i].bytes);
		take_huge_pages(self->huge);
		EXPECT_EQ(BYTES, pread(self->fd, got, BYTES, 0));
		EXPECT_EQ(0, memcmp(want, got, BYTES)) {
			TH_LOG("row %u", i);
		}
		EXPECT_EQ(0, memcmp(want, self->map, BYTES));
		expect_small(self, BYTES);
	}
	EXPECT_EQ(0, range_remove(self->map + SLICE, 2 * SLICE));
	expect_small(self, BYTES - 2 * SLICE);
	EXPECT_EQ(0, file_resize(self->fd, SEGMENT + 5 * SLICE + 1));
	expect_small(self, SEGMENT + 4 * SLICE);
	EXPECT_EQ(SIGBUS, touch_read(self->map + SEGMENT + 6 * SLICE, NULL));
	EXPECT_EQ(0, file_resize(self->fd, BYTES));
	EXPECT_EQ(want[SEGMENT + 5 * SLICE], self->map[SEGMENT + 5 * SLICE]);
	EXPECT_TRUE(is_zero(self->map + SEGMENT + 5 * SLICE + 1, SLICE));
	munmap(want, BYTES);
	munmap(got, BYTES);
}

/* Takes all memory but that of one slice, which is held, by each call that could take it. */
static void expect_held(struct __test_metadata *_metadata, int fd, unsigned char *map, off_t held)
{
	const off_t end = held + SLICE;

	EXPECT_EQ(-EBUSY, file_punch(fd, held, SLICE));
	EXPECT_EQ(-EBUSY, file_punch(fd, held - 3 * SLICE + 1, 5 * SLICE));
	EXPECT_EQ(-EBUSY, file_punch(fd, 0, BYTES));
	EXPECT_EQ(-EBUSY, file_resize(fd, held));
	EXPECT_EQ(-EBUSY, file_resize(fd, 0));
	EXPECT_EQ(-EBUSY, range_remove(map, BYTES));
	EXPECT_EQ(BYTES, file_size(fd));
	EXPECT_EQ(BYTES, file_blocks(fd));
	EXPECT_EQ(-1, pattern_mismatch(map, BYTES, 1));
	EXPECT_EQ(0, file_punch(fd, 0, held - SLICE));
	EXPECT_EQ(0, range_remove(map + held - SLICE, SLICE));
	EXPECT_EQ(BYTES - held, file_blocks(fd));
	EXPECT_EQ(0, file_punch(fd, end, SLICE));
	EXPECT_EQ(BYTES - held - SLICE, file_blocks(fd));
	EXPECT_EQ(0, file_resize(fd, end));
	EXPECT_EQ(SLICE, file_blocks(fd));
	EXPECT_EQ(-1, nonzero_find(map, held));
	/* A part of it is zeroed. */
	EXPECT_EQ(0, file_resize(fd, end - 8));
	EXPECT_EQ(0, file_punch(fd, held, 8));
	EXPECT_EQ(0, file_punch(fd, 0, held + 16));
	EXPECT_EQ(SLICE, file_blocks(fd));
	EXPECT_EQ(pattern_word(1, held / 8 + 2), *(uint64_t *)(map + held + 16));
	EXPECT_EQ(-EBUSY, file_punch(fd, held, SLICE));
}

TEST_F(holes_small, piece_in_a_pipe)
{
	int pipe;

	ASSERT_EQ(0, file_allocate(self->fd, 0, 0, BYTES));
	expect_small(self, BYTES);
	pattern_fill(self->map, BYTES, 1);
	pipe = pipe_with(_metadata, self->map + 5 * SLICE + KPAGE_BYTES, KPAGE_BYTES);
	expect_held(_metadata, self->fd, self->map, 5 * SLICE);
	pattern_fill(self->map + 5 * SLICE + KPAGE_BYTES, KPAGE_BYTES, 2);
	expect_pipe_holds(_metadata, pipe, KPAGE_BYTES, 2);
	close(pipe);
	EXPECT_EQ(0, file_punch(self->fd, 5 * SLICE, SLICE));
	EXPECT_EQ(0, file_blocks(self->fd));
}

TEST_F(holes_small, piece_in_a_dmabuf)
{
	struct xalloc_ioc_export arg = {
		.size = sizeof(arg), .offset = SEGMENT + 5 * SLICE, .bytes = SLICE,
	};
	int dmabuf;

	ASSERT_EQ(0, file_allocate(self->fd, 0, 0, BYTES));
	expect_small(self, BYTES);
	pattern_fill(self->map, BYTES, 1);
	dmabuf = call(self->fd, XALLOC_IOC_EXPORT, &arg);
	ASSERT_LE(0, dmabuf);
	expect_held(_metadata, self->fd, self->map, arg.offset);
	close(dmabuf);
	EXPECT_EQ(0, file_resize(self->fd, 0));
	EXPECT_EQ(0, file_blocks(self->fd));
}

struct compactor {
	atomic_bool stop;
	atomic_long nr_done;
};

static void *compactor_thread(void *arg)
{
	struct compactor *compactor = arg;

	for (; !compactor->stop; compactor->nr_done++)
		write_text("/proc/sys/vm/compact_memory", "1");
	return NULL;
}

/* The kernel looks at all pieces for some that it can move. Nobody has asked for these. */
TEST_F(holes_small, kernel_compacts_meanwhile)
{
	const long nr_turns = turns(is_long_run() ? 1000 : 100);
	struct compactor compactor = {};
	long nr_busy = 0, i;
	pthread_t thread;
	int rc;

	if (access("/proc/sys/vm/compact_memory", W_OK))
		SKIP(return, "this kernel does not compact");
	ASSERT_EQ(0, pthread_create(&thread, NULL, compactor_thread, &compactor));
	for (i = 0; i < nr_turns || compactor.nr_done < 5; i++) {
		EXPECT_EQ(0, file_allocate(self->fd, 0, 0, BYTES));
		memset(self->map, 1, BYTES);
		rc = i % 2 ? file_resize(self->fd, 0) : file_punch(self->fd, 0, BYTES);
		nr_busy += rc == -EBUSY;
		EXPECT_TRUE(!rc || rc == -EBUSY);
	}
	compactor.stop = true;
	pthread_join(thread, NULL);
	/* Compaction has references to a folio for a moment, and a piece may go as late as that. */
	TH_LOG("busy in %ld of %ld", nr_busy, i);
	EXPECT_EQ(0, file_resize(self->fd, 0));
	EXPECT_TRUE(wait_for(!file_blocks(self->fd), 60000));
}

TEST_HARNESS_MAIN
