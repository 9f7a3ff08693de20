// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: memory that hardware has broken is not granted again and does not go back to
 * the kernel. It is broken by madvise(MADV_HWPOISON), for good, in the kernel's books.
 */
#include "selftest.h"

#include <sys/uio.h>

#define ARENA_BYTES (4 * MIB)

FIXTURE(poison)
{
	int device;
	int arena;
	unsigned char *map;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(poison)
{
	self->device = device_setup(_metadata, &self->before);
	self->arena = arena_create(self->device, ARENA_BYTES, 0);
	self->map = arena_map(self->arena, ARENA_BYTES);
	ASSERT_NE(NULL, self->map);
}

FIXTURE_TEARDOWN(poison)
{
	munmap(self->map, ARENA_BYTES);
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* Returns false where the kernel has no such thing. */
static bool break_kpage(void *addr)
{
	*(volatile char *)addr = 1;
	return !madvise(addr, KPAGE_BYTES, MADV_HWPOISON) || errno != EINVAL;
}

TEST_F(poison, broken_slice_is_not_granted_again)
{
	struct xalloc_page_grant page;
	struct xalloc_ioc_stat stat = {};
	uint32_t i;

	ASSERT_EQ(1, grant_page(self->arena, 1, 0, NULL));
	ASSERT_EQ(1, grant_page(self->arena, 2, 0, &page));
	if (!break_kpage(self->map + page.offset + 3 * KPAGE_BYTES))
		SKIP(return, "this kernel cannot mark memory as broken");
	ASSERT_EQ(1, free_page(self->arena, page.offset));
	/* All of the arena but those two slices. */
	for (i = 0; i < 61; i++) {
		ASSERT_EQ(1, grant_page(self->arena, 1, 0, &page));
		EXPECT_TRUE(page.offset < XALLOC_SLICE_BYTES ||
			    page.offset >= 3 * XALLOC_SLICE_BYTES);
	}
	EXPECT_EQ(-ENOSPC, grant_page(self->arena, 1, 0, NULL));

	/* When nobody has a page in it any more, all of it goes, but not to the kernel. */
	for (i = 0; i < 32; i++)
		free_page(self->arena, i * XALLOC_SLICE_BYTES);
	for (i = 0; i < 200; i++) {
		ASSERT_EQ(0, counters_read(self->device, &stat));
		if (stat.poisoned_bytes != self->before.poisoned_bytes)
			break;
		sleep_ms(20);
	}
	EXPECT_EQ(self->before.poisoned_bytes + 2 * MIB, stat.poisoned_bytes);
	ASSERT_EQ(0, counters_read(self->arena, &stat));
	EXPECT_EQ(2 * MIB, stat.committed_bytes);
	/* The offsets are good again, with other memory. */
	ASSERT_EQ(1, grant_page(self->arena, 32, 0, &page));
	EXPECT_EQ(0, page.offset);
	EXPECT_EQ(-1, nonzero_find(self->map, 2 * MIB));
}

/* Neither waits for the other for ever. */
TEST_F(poison, two_broken_pages_of_a_segment_leave_together)
{
	struct xalloc_page_grant pages[3];
	struct xalloc_ioc_stat stat = {};
	int i;

	for (i = 0; i < 3; i++)
		ASSERT_EQ(1, grant_page(self->arena, 4, 0, &pages[i]));
	if (!break_kpage(self->map + pages[0].offset))
		SKIP(return, "this kernel cannot mark memory as broken");
	ASSERT_TRUE(break_kpage(self->map + pages[2].offset));
	for (i = 0; i < 3; i++)
		ASSERT_EQ(1, free_page(self->arena, pages[i].offset));
	for (i = 0; i < 200; i++) {
		ASSERT_EQ(0, counters_read(self->arena, &stat));
		if (!stat.committed_bytes)
			break;
		sleep_ms(20);
	}
	EXPECT_EQ(0, stat.committed_bytes);
	ASSERT_EQ(0, counters_read(self->device, &stat));
	EXPECT_EQ(self->before.poisoned_bytes + 2 * MIB, stat.poisoned_bytes);
}

/* Not for a moment between the leaving of the one and that of the other, either. */
TEST_F(poison, half_broken_segment_is_not_granted_again)
{
	struct xalloc_page_grant pages[2];
	uint64_t offsets[2];
	int i;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(1, grant_page(self->arena, 16, 0, &pages[i]));
		offsets[i] = pages[i].offset;
		if (!break_kpage(self->map + offsets[i]))
			SKIP(return, "this kernel cannot mark memory as broken");
	}
	ASSERT_EQ(2, free_batch(self->arena, offsets, 2));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(1, grant_page(self->arena, 16, XALLOC_PAGE_CONTIG, &pages[i]));
		EXPECT_EQ(0, touch_read(self->map + pages[i].offset, NULL));
	}
	EXPECT_EQ(2 * MIB, stat_of(self->arena).committed_bytes);
}

/* One page of the broken segment cannot leave, because of a pin in another segment. */
TEST_F(poison, broken_page_waits_for_one_that_is_pinned)
{
	struct xalloc_page_grant pages[2], other;
	struct iovec pinned = { self->map + 2 * MIB, KPAGE_BYTES };
	int pipes[2];

	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(1, grant_page(self->arena, 16, 0, &pages[0]));
	ASSERT_EQ(1, grant_page(self->arena, 40, 0, &pages[1]));
	ASSERT_EQ(16 * XALLOC_SLICE_BYTES, pages[1].offset);
	self->map[2 * MIB] = 1;
	ASSERT_EQ(KPAGE_BYTES, vmsplice(pipes[1], &pinned, 1, 0));
	if (!break_kpage(self->map))
		SKIP(goto out, "this kernel cannot mark memory as broken");
	ASSERT_TRUE(break_kpage(self->map + MIB));
	EXPECT_EQ(1, free_page(self->arena, pages[1].offset));
	EXPECT_EQ(1, free_page(self->arena, 0));
	EXPECT_EQ(1, grant_page(self->arena, 8, 0, &other));
	EXPECT_EQ(56 * XALLOC_SLICE_BYTES, other.offset);
	EXPECT_EQ(-ENOSPC, grant_page(self->arena, 1, 0, NULL));
	EXPECT_EQ(1, free_page(self->arena, other.offset));
out:
	close(pipes[0]);
	close(pipes[1]);
	EXPECT_TRUE(wait_for(!stat_of(self->arena).committed_bytes, 5000));
}

TEST_F(poison, broken_memory_is_no_reserve)
{
	struct xalloc_ioc_stat stat = {};

	ASSERT_EQ(1, grant_page(self->arena, 32, 0, NULL));
	ASSERT_EQ(0, reserve_set(self->arena, 0, 0));
	if (!break_kpage(self->map + MIB))
		SKIP(return, "this kernel cannot mark memory as broken");
	ASSERT_EQ(0, reserve_set(self->arena, 2 * MIB, 2 * MIB));
	ASSERT_EQ(1, free_page(self->arena, 0));
	ASSERT_EQ(0, counters_read(self->device, &stat));
	EXPECT_EQ(self->before.poisoned_bytes + 2 * MIB, stat.poisoned_bytes);
}

TEST_F(poison, broken_memory_outlives_its_arena)
{
	struct xalloc_ioc_stat stat = {};

	ASSERT_EQ(1, grant_page(self->arena, 40, 0, NULL));
	if (!break_kpage(self->map + MIB))
		SKIP(return, "this kernel cannot mark memory as broken");
	munmap(self->map, ARENA_BYTES);
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	ASSERT_EQ(0, counters_read(self->device, &stat));
	EXPECT_EQ(self->before.poisoned_bytes + 2 * MIB, stat.poisoned_bytes);
	self->arena = -1;
	self->map = NULL;
}

TEST_HARNESS_MAIN
