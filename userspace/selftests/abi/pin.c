// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: what becomes of memory that a pipe or an io_uring still refers to when its page is
 * freed, its limit is reached, or its owner is dead.
 */
#include "gup.h"
#include "selftest.h"

FIXTURE(pin)
{
	int device;
	int arena;
	unsigned char *map;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(pin)
{
	struct xalloc_page_grant page;

	self->device = device_setup(_metadata, &self->before);
	self->arena = arena_create(self->device, ARENA_BYTES, 0);
	ASSERT_LE(0, self->arena);
	ASSERT_EQ(1, grant_page(self->arena, ARENA_BYTES / XALLOC_SLICE_BYTES, 0, &page));
	self->map = arena_map(self->arena, ARENA_BYTES);
	ASSERT_NE(NULL, self->map);
}

FIXTURE_TEARDOWN(pin)
{
	if (self->map)
		munmap(self->map, ARENA_BYTES);
	if (self->arena >= 0)
		close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* A segment of its own in each of the tests below: 4 segments, one page each. */
static void one_page_per_segment(struct __test_metadata *_metadata, int arena)
{
	unsigned int i;

	ASSERT_EQ(1, free_page(arena, 0));
	for (i = 0; i < ARENA_BYTES / XALLOC_SEGMENT_BYTES; i++) {
		ASSERT_EQ(1, grant_page(arena, SEGMENT_SLICES, XALLOC_PAGE_CONTIG, NULL));
	}
}

TEST_F(pin, freed_while_a_pipe_holds_it)
{
	const uint64_t at = XALLOC_SEGMENT_BYTES;
	int fd;

	one_page_per_segment(_metadata, self->arena);
	pattern_fill(self->map + at, 4 * KPAGE_BYTES, 9);
	fd = pipe_with(_metadata, self->map + at, 4 * KPAGE_BYTES);
	ASSERT_EQ(1, free_page(self->arena, at));

	/* Unmapped from us, still there for the pipe, and still ours to account for. */
	expect_arena(_metadata, self->arena, 3, 4 * XALLOC_SEGMENT_BYTES, XALLOC_SEGMENT_BYTES);
	EXPECT_EQ(SIGBUS, touch_read(self->map + at, NULL));
	EXPECT_EQ(-ENOENT, free_page(self->arena, at));
	/* It stays so for as long as the pipe does. */
	EXPECT_FALSE(pinned_wait(_metadata, self->arena, 0, 300));
	expect_pipe_holds(_metadata, fd, 4 * KPAGE_BYTES, 9);
	close(fd);
	EXPECT_TRUE(pinned_wait(_metadata, self->arena, 0, 10000)) {
		TH_LOG("the pipe is gone, the segment is still called pinned");
	}
	expect_arena(_metadata, self->arena, 3, 3 * XALLOC_SEGMENT_BYTES, 0);
	EXPECT_EQ(SIGBUS, touch_read(self->map + at, NULL));
	EXPECT_EQ(1, grant_page(self->arena, SEGMENT_SLICES, XALLOC_PAGE_CONTIG, NULL));
	EXPECT_EQ(-1, nonzero_find(self->map + at, XALLOC_SEGMENT_BYTES));
}

/* What a living client freed may be granted again, pinned or not: it is the same memory. */
TEST_F(pin, granted_again_while_a_pipe_holds_it)
{
	const uint64_t at = 2 * XALLOC_SEGMENT_BYTES;
	struct xalloc_page_grant page;
	int fd;

	one_page_per_segment(_metadata, self->arena);
	pattern_fill(self->map + at, XALLOC_SEGMENT_BYTES, 10);
	fd = pipe_with(_metadata, self->map + at, 4 * KPAGE_BYTES);
	ASSERT_EQ(1, free_page(self->arena, at));
	ASSERT_EQ(1, grant_page(self->arena, SEGMENT_SLICES, XALLOC_PAGE_CONTIG, &page));
	EXPECT_EQ(at, page.offset);
	EXPECT_EQ(XALLOC_PAGE_CONTIG, page.flags);
	expect_arena(_metadata, self->arena, 4, 4 * XALLOC_SEGMENT_BYTES, 0);
	/* The pipe and the mapping have not parted ways. */
	EXPECT_EQ(-1, pattern_mismatch(self->map + at, XALLOC_SEGMENT_BYTES, 10));
	pattern_fill(self->map + at, 4 * KPAGE_BYTES, 11);
	expect_pipe_holds(_metadata, fd, 4 * KPAGE_BYTES, 11);
	close(fd);
	/* With the pipe gone it is a segment as any other. */
	ASSERT_EQ(1, free_page(self->arena, at));
	EXPECT_TRUE(pinned_wait(_metadata, self->arena, 0, 10000));
	expect_arena(_metadata, self->arena, 3, 3 * XALLOC_SEGMENT_BYTES, 0);
}

/* The limit counts what is pinned, so it cannot be escaped by freeing below a pipe. */
TEST_F(pin, pinned_memory_counts_against_the_limit)
{
	int arena = arena_create(self->device, ARENA_BYTES, 2 * XALLOC_SEGMENT_BYTES);
	struct xalloc_page_grant first, second, page;
	unsigned char *map;
	int fd, error;

	ASSERT_LE(0, arena);
	map = arena_map(arena, ARENA_BYTES);
	ASSERT_NE(NULL, map);
	ASSERT_EQ(1, grant_page(arena, SEGMENT_SLICES, XALLOC_PAGE_CONTIG, &first));
	ASSERT_EQ(1, grant_page(arena, SEGMENT_SLICES, XALLOC_PAGE_CONTIG, &second));
	fd = pipe_with(_metadata, map + first.offset, KPAGE_BYTES);
	ASSERT_EQ(1, free_page(arena, first.offset));
	expect_arena(_metadata, arena, 1, 2 * XALLOC_SEGMENT_BYTES, XALLOC_SEGMENT_BYTES);
	EXPECT_EQ(-EDQUOT, grant_page(arena, 2 * SEGMENT_SLICES, 0, NULL));
	/* The pinned segment itself is to be had, and nothing besides. */
	ASSERT_EQ(1, grant_page(arena, SEGMENT_SLICES, XALLOC_PAGE_CONTIG, &page));
	EXPECT_EQ(first.offset, page.offset);
	EXPECT_EQ(0, grant_segments(arena, 1, &error));
	EXPECT_EQ(-EDQUOT, error);
	close(fd);
	munmap(map, ARENA_BYTES);
	close(arena);
}

/* The arena is gone for its owner; what the pipe holds is counted until it lets go. */
TEST_F(pin, pipe_outlives_the_arena)
{
	struct xalloc_ioc_stat seen;
	int fd;

	pattern_fill(self->map, 8 * KPAGE_BYTES, 13);
	fd = pipe_with(_metadata, self->map, 8 * KPAGE_BYTES);
	munmap(self->map, ARENA_BYTES);
	self->map = NULL;
	close(self->arena);
	self->arena = -1;
	ASSERT_EQ(0, counters_read(self->device, &seen));
	EXPECT_EQ(self->before.arenas + 1, seen.arenas);
	EXPECT_EQ(self->before.clients, seen.clients);
	EXPECT_EQ(self->before.pages, seen.pages);
	EXPECT_EQ(self->before.granted_bytes, seen.granted_bytes);
	EXPECT_EQ(self->before.committed_bytes + XALLOC_SEGMENT_BYTES, seen.committed_bytes);
	EXPECT_EQ(self->before.pinned_bytes + XALLOC_SEGMENT_BYTES, seen.pinned_bytes);
	sleep_ms(200);
	expect_pipe_holds(_metadata, fd, 8 * KPAGE_BYTES, 13);
	close(fd);
	EXPECT_TRUE(counters_wait(self->device, &self->before, 10000));
}

/* The process that owned the memory is killed while a pipe of ours holds it. */
TEST_F(pin, pipe_outlives_the_process)
{
	struct xalloc_ioc_stat with_fixture, seen;
	int ends[2], ready[2];
	char byte;
	pid_t pid;

	ASSERT_EQ(0, counters_read(self->device, &with_fixture));
	ASSERT_EQ(0, pipe2(ends, O_CLOEXEC));
	ASSERT_EQ(0, pipe2(ready, O_CLOEXEC));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		int arena = arena_create(self->device, ARENA_BYTES, 0);
		unsigned char *map = arena_map(arena, ARENA_BYTES);
		struct iovec iov = { map, 4 * KPAGE_BYTES };

		if (!map || grant_page(arena, 2 * SEGMENT_SLICES, 0, NULL) != 1)
			_exit(1);
		pattern_fill(map, 2 * XALLOC_SEGMENT_BYTES, 14);
		if (vmsplice(ends[1], &iov, 1, 0) != (ssize_t)iov.iov_len)
			_exit(2);
		write(ready[1], "", 1);
		pause();
		_exit(3);
	}
	close(ends[1]);
	close(ready[1]);
	ASSERT_EQ(1, read(ready[0], &byte, 1));
	kill(pid, SIGKILL);
	EXPECT_EQ(256 + SIGKILL, child_status(pid));
	ASSERT_EQ(0, counters_read(self->device, &seen));
	EXPECT_EQ(with_fixture.pinned_bytes + XALLOC_SEGMENT_BYTES, seen.pinned_bytes);
	EXPECT_EQ(with_fixture.committed_bytes + XALLOC_SEGMENT_BYTES, seen.committed_bytes);
	EXPECT_EQ(with_fixture.clients, seen.clients);
	expect_pipe_holds(_metadata, ends[0], 4 * KPAGE_BYTES, 14);
	close(ends[0]);
	close(ready[0]);
	EXPECT_TRUE(counters_wait(self->device, &with_fixture, 10000));
}

/* Pages of a dead client are not handed to another while somebody holds their memory. */
TEST_F(pin, pages_of_a_dead_client_wait_for_the_pin)
{
	int arena = arena_create(self->device, XALLOC_SEGMENT_BYTES, 0);
	int heir = attach(arena, 0, NULL), fd, rc;
	struct xalloc_page_grant page;
	unsigned char *map, *theirs;

	ASSERT_LE(0, arena);
	ASSERT_LE(0, heir);
	ASSERT_EQ(1, grant_page(arena, SEGMENT_SLICES, 0, &page));
	map = arena_map(arena, XALLOC_SEGMENT_BYTES);
	ASSERT_NE(NULL, map);
	pattern_fill(map, XALLOC_SEGMENT_BYTES, 15);
	fd = pipe_with(_metadata, map, 4 * KPAGE_BYTES);
	munmap(map, XALLOC_SEGMENT_BYTES);
	close(arena);
	expect_arena(_metadata, heir, 0, XALLOC_SEGMENT_BYTES, XALLOC_SEGMENT_BYTES);

	theirs = arena_map(heir, XALLOC_SEGMENT_BYTES);
	ASSERT_NE(NULL, theirs);
	rc = grant_page(heir, 1, 0, &page);
	if (rc == 1) {
		/* Then it must not be the memory that the pipe still has. */
		memset(theirs + page.offset, 0xee, XALLOC_SLICE_BYTES);
		EXPECT_EQ(0, page.flags & XALLOC_PAGE_ZERO);
	}
	expect_pipe_holds(_metadata, fd, 4 * KPAGE_BYTES, 15);
	close(fd);
	EXPECT_NE(1, rc) {
		TH_LOG("granted what a pipe of the dead client still held");
	}
	EXPECT_TRUE(pinned_wait(_metadata, heir, 0, 10000));
	EXPECT_EQ(1, grant_page(heir, SEGMENT_SLICES, 0, &page));
	EXPECT_EQ(-1, nonzero_find(theirs, XALLOC_SEGMENT_BYTES));
	munmap(theirs, XALLOC_SEGMENT_BYTES);
	close(heir);
}

TEST_F(pin, freed_while_registered_with_io_uring)
{
	struct iovec whole = { self->map, ARENA_BYTES };
	struct io_uring ring;
	int rc = ring_setup(&ring), fd;
	struct xalloc_page_grant page;

	if (rc == -ENOSYS || rc == -EPERM)
		SKIP(return, "this kernel has no io_uring (%s)", strerror(-rc));
	ASSERT_EQ(0, rc);
	if (!is_kernel_at_least(6, 5)) {
		io_uring_queue_exit(&ring);
		SKIP(return, "io_uring of kernels before 6.5 registers no file mappings");
	}
	ASSERT_EQ(0, io_uring_register_buffers(&ring, &whole, 1));
	pattern_fill(self->map, ARENA_BYTES, 80);
	ASSERT_EQ(1, free_page(self->arena, 0));
	expect_arena(_metadata, self->arena, 0, ARENA_BYTES, ARENA_BYTES);
	EXPECT_EQ(SIGBUS, touch_read(self->map, NULL));

	/* Granted again, the registration reaches the memory that the mapping shows. */
	ASSERT_EQ(1, grant_page(self->arena, ARENA_BYTES / XALLOC_SLICE_BYTES, 0, &page));
	EXPECT_EQ(0, page.flags);
	EXPECT_EQ(-1, pattern_mismatch(self->map, ARENA_BYTES, 80));
	if (has_ram_disk()) {
		fd = open(RAM_DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
		ASSERT_LE(0, fd);
		pattern_fill(self->map, FILE_BYTES, 81);
		EXPECT_EQ(FILE_BYTES, ring_transfer(&ring, true, fd, self->map, FILE_BYTES, 0));
		memset(self->map, 0, FILE_BYTES);
		EXPECT_EQ(FILE_BYTES, ring_transfer(&ring, false, fd, self->map, FILE_BYTES, 0));
		EXPECT_EQ(-1, pattern_mismatch(self->map, FILE_BYTES, 81));
		close(fd);
	}
	ASSERT_EQ(1, free_page(self->arena, 0));
	expect_arena(_metadata, self->arena, 0, ARENA_BYTES, ARENA_BYTES);
	ASSERT_EQ(0, io_uring_unregister_buffers(&ring));
	EXPECT_TRUE(pinned_wait(_metadata, self->arena, 0, 10000));
	expect_arena(_metadata, self->arena, 0, 0, 0);
	io_uring_queue_exit(&ring);
}

TEST_HARNESS_MAIN
