// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: memory of a page that is freed lazily stays until a grant takes it, and else goes
 * back by itself; to its client the page is freed at once.
 */
#include "gup.h"
#include "selftest.h"
#include "sharing.h"

#define LIMIT (4 * XALLOC_SEGMENT_BYTES)
#define NR_SLICES ((unsigned int)(LIMIT / XALLOC_SLICE_BYTES))
#define AT(slice) ((slice) * XALLOC_SLICE_BYTES)
#define WAIT_MS 30000

FIXTURE(lazy)
{
	int device, arena;
	unsigned char *map;
	struct xalloc_ioc_stat before;
};

FIXTURE_VARIANT(lazy)
{
	uint32_t policy;
	uint64_t unit;	/* Memory goes back by so many bytes. */
};

FIXTURE_VARIANT_ADD(lazy, huge)
{
	.policy = XALLOC_POLICY_HUGE,
	.unit = XALLOC_SEGMENT_BYTES,
};

FIXTURE_VARIANT_ADD(lazy, small)
{
	.policy = XALLOC_POLICY_SMALL,
	.unit = XALLOC_SLICE_BYTES,
};

FIXTURE_SETUP(lazy)
{
	self->device = device_setup(_metadata, &self->before);
	self->arena = arena_create_by(self->device, LIMIT, variant->policy, -1);
	ASSERT_LE(0, self->arena);
	self->map = arena_map(self->arena, LIMIT);
	ASSERT_NE(NULL, self->map);
}

FIXTURE_TEARDOWN(lazy)
{
	munmap(self->map, LIMIT);
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

static int grant_at(int arena, unsigned int slice, unsigned int nr_slices, uint32_t flags)
{
	struct xalloc_page_grant page = {
		.nr_slices = nr_slices, .flags = flags | XALLOC_PAGE_AT, .offset = AT(slice),
	};

	return grant_batch(arena, &page, 1);
}

static int list(int arena, struct xalloc_page_info *infos, uint32_t nr)
{
	struct xalloc_ioc_list arg = {
		.size = sizeof(arg), .nr = nr, .pages = (uintptr_t)infos,
	};

	return call(arena, XALLOC_IOC_LIST, &arg);
}

TEST_F(lazy, page_is_freed_to_its_client)
{
	struct xalloc_ioc_export export = { .size = sizeof(export), .bytes = AT(4) };
	struct xalloc_page_info info;
	struct xalloc_page_grant page;

	ASSERT_EQ(1, grant_page(self->arena, 4, 0, &page));
	ASSERT_EQ(0, page.offset);
	ASSERT_EQ(1, free_lazily(self->arena, 0, 0));
	EXPECT_EQ(AT(4), stat_of(self->arena).lazy_bytes);
	EXPECT_EQ(AT(4), stat_of(self->arena).granted_bytes);
	EXPECT_EQ(-ENOENT, free_page(self->arena, 0));
	EXPECT_EQ(-ENOENT, free_lazily(self->arena, 0, 0));
	EXPECT_EQ(-ENOENT, free_range(self->arena, 0, AT(2)));
	EXPECT_EQ(-ENOENT, call(self->arena, XALLOC_IOC_EXPORT, &export));
	EXPECT_EQ(0, list(self->arena, &info, 1));
}

TEST_F(lazy, grant_takes_page_as_it_is)
{
	struct xalloc_page_grant page;
	uint64_t committed;

	ASSERT_EQ(1, grant_page(self->arena, 4, 0, &page));
	ASSERT_EQ(1, grant_page(self->arena, 4, 0, NULL));
	pattern_fill(self->map + page.offset, AT(4), 7);
	committed = stat_of(self->arena).committed_bytes;
	ASSERT_EQ(1, free_lazily(self->arena, page.offset, 0));
	page = (struct xalloc_page_grant){ .nr_slices = 4, .tag = 5 };
	ASSERT_EQ(1, grant_batch(self->arena, &page, 1));
	EXPECT_EQ(0, page.offset);
	EXPECT_EQ(variant->unit, page.contig_bytes);
	EXPECT_EQ(0, page.flags & XALLOC_PAGE_ZERO);
	/* Not a promise to users: it shows that nothing was zeroed or committed anew. */
	EXPECT_EQ(-1, pattern_mismatch(self->map, AT(4), 7));
	EXPECT_EQ(0, stat_of(self->arena).lazy_bytes);
	EXPECT_EQ(committed, stat_of(self->arena).committed_bytes);
	EXPECT_EQ(2, stat_of(self->arena).pages);
	EXPECT_EQ(1, free_page(self->arena, 0));
}

TEST_F(lazy, zeros_are_zeros)
{
	struct xalloc_page_grant page;

	ASSERT_EQ(1, grant_page(self->arena, 4, 0, &page));
	pattern_fill(self->map + page.offset, AT(4), 7);
	ASSERT_EQ(1, free_lazily(self->arena, page.offset, 0));
	ASSERT_EQ(1, grant_page(self->arena, 4, XALLOC_PAGE_ZERO, &page));
	EXPECT_EQ(0, page.offset);
	EXPECT_NE(0, page.flags & XALLOC_PAGE_ZERO);
	EXPECT_EQ(-1, nonzero_find(self->map, AT(4)));
}

TEST_F(lazy, grant_takes_part_of_page)
{
	struct xalloc_page_info infos[4];
	struct xalloc_page_grant page;

	ASSERT_EQ(1, grant_page(self->arena, 16, 0, NULL));
	ASSERT_EQ(1, free_lazily(self->arena, 0, 0));
	ASSERT_EQ(1, grant_page(self->arena, 3, 0, &page));
	EXPECT_EQ(0, page.offset);
	EXPECT_EQ(AT(13), stat_of(self->arena).lazy_bytes);
	/* From the middle of what is left. */
	ASSERT_EQ(1, grant_at(self->arena, 8, 2, 0));
	EXPECT_EQ(AT(11), stat_of(self->arena).lazy_bytes);
	ASSERT_EQ(2, list(self->arena, infos, 4));
	EXPECT_EQ(AT(8), infos[1].offset);
	EXPECT_EQ(2, infos[1].nr_slices);
	/* A grant that touches a part of one, and slices of a page. */
	EXPECT_EQ(-EEXIST, grant_at(self->arena, 7, 2, 0));
	EXPECT_EQ(1, grant_at(self->arena, 3, 2, 0));
}

TEST_F(lazy, aligned_grant_takes_what_fits)
{
	struct xalloc_page_grant page = { .nr_slices = 2, .align_slices = 4 };

	ASSERT_EQ(1, grant_page(self->arena, 1, 0, NULL));
	ASSERT_EQ(1, grant_page(self->arena, 2, 0, NULL));
	ASSERT_EQ(1, grant_page(self->arena, 1, 0, NULL));
	ASSERT_EQ(1, grant_page(self->arena, 3, 0, NULL));
	ASSERT_EQ(1, free_lazily(self->arena, AT(1), 0));
	ASSERT_EQ(1, free_lazily(self->arena, AT(4), 0));
	ASSERT_EQ(1, grant_batch(self->arena, &page, 1));
	EXPECT_EQ(AT(4), page.offset);
	EXPECT_EQ(AT(3), stat_of(self->arena).lazy_bytes);
}

TEST_F(lazy, short_pages_serve_long_one)
{
	uint64_t committed, cold;
	unsigned int i;

	for (i = 0; i < NR_SLICES; i++)
		ASSERT_EQ(1, grant_page(self->arena, 1, 0, NULL));
	committed = stat_of(self->arena).committed_bytes;
	cold = stat_of(self->arena).cold_bytes;
	for (i = 0; i < SEGMENT_SLICES; i++)
		ASSERT_EQ(1, free_lazily(self->arena, AT(i), 0));
	ASSERT_EQ(1, grant_page(self->arena, SEGMENT_SLICES, 0, NULL));
	EXPECT_EQ(0, stat_of(self->arena).lazy_bytes);
	EXPECT_EQ(committed, stat_of(self->arena).committed_bytes);
	EXPECT_EQ(cold, stat_of(self->arena).cold_bytes);
}

/* A grant of free slices that have memory needs nothing of what was freed lazily. */
TEST_F(lazy, grant_of_free_memory_leaves_pages)
{
	struct xalloc_page_grant page;

	if (variant->policy == XALLOC_POLICY_SMALL)
		SKIP(return, "pieces have no free slices with memory");
	ASSERT_EQ(1, grant_page(self->arena, 4, 0, NULL));
	ASSERT_EQ(1, free_lazily(self->arena, 0, 0));
	ASSERT_EQ(1, grant_page(self->arena, 20, 0, &page));
	EXPECT_EQ(AT(4), page.offset);
	EXPECT_EQ(AT(4), stat_of(self->arena).lazy_bytes);
}

TEST_F(lazy, contiguous_grant_stays_in_a_segment)
{
	struct xalloc_page_grant page;

	if (variant->policy == XALLOC_POLICY_SMALL)
		SKIP(return, "XALLOC_PAGE_CONTIG is not for pieces");
	ASSERT_EQ(1, grant_page(self->arena, 24, 0, NULL));
	ASSERT_EQ(1, grant_at(self->arena, 24, 16, 0));
	ASSERT_EQ(1, free_lazily(self->arena, AT(24), 0));
	ASSERT_EQ(1, grant_page(self->arena, 16, XALLOC_PAGE_CONTIG, &page));
	EXPECT_LE(page.offset % XALLOC_SEGMENT_BYTES + AT(16), XALLOC_SEGMENT_BYTES);
}

TEST_F(lazy, memory_goes_back_without_a_call)
{
	ASSERT_EQ(1, grant_page(self->arena, 2 * SEGMENT_SLICES, 0, NULL));
	memset(self->map, 1, 2 * XALLOC_SEGMENT_BYTES);
	ASSERT_EQ(1, free_lazily(self->arena, 0, XALLOC_SEGMENT_BYTES));
	EXPECT_TRUE(wait_for(!stat_of(self->arena).lazy_bytes, WAIT_MS));
	EXPECT_TRUE(wait_for(stat_of(self->arena).committed_bytes == XALLOC_SEGMENT_BYTES,
			     WAIT_MS));
	EXPECT_EQ(SIGBUS, touch_read(self->map, NULL));
	EXPECT_EQ(0, touch_read(self->map + XALLOC_SEGMENT_BYTES, NULL));
}

TEST_F(lazy, client_that_is_gone_leaves_nothing)
{
	int client = attach(self->arena, 0, NULL);

	ASSERT_LE(0, client);
	ASSERT_EQ(1, grant_page(client, 4, 0, NULL));
	ASSERT_EQ(1, free_lazily(client, 0, AT(2)));
	close(client);
	EXPECT_EQ(AT(2), stat_of(self->arena).granted_bytes);
	EXPECT_TRUE(wait_for(!stat_of(self->arena).committed_bytes, WAIT_MS));
}

/* Each takes memory that was freed lazily before it refuses something. */
TEST_F(lazy, nothing_is_refused_for_pages)
{
	struct xalloc_ioc_limit limit = { .size = sizeof(limit), .limit_bytes = LIMIT / 2 };
	uint64_t trimmed;
	unsigned int i;

	ASSERT_EQ(1, grant_page(self->arena, NR_SLICES, 0, NULL));
	ASSERT_EQ(1, free_lazily(self->arena, 0, LIMIT));
	EXPECT_EQ(0, call(self->arena, XALLOC_IOC_LIMIT, &limit));
	EXPECT_EQ(0, stat_of(self->arena).committed_bytes);

	/* By offset, at the limit. */
	ASSERT_EQ(1, grant_at(self->arena, 0, NR_SLICES / 2, 0));
	ASSERT_EQ(1, free_lazily(self->arena, 0, 0));
	EXPECT_EQ(1, grant_at(self->arena, NR_SLICES / 2, NR_SLICES / 2, 0));
	EXPECT_EQ(1, free_page(self->arena, LIMIT / 2));

	/* No lazy page is long enough, and each is in another segment. */
	for (i = 0; i < NR_SLICES / 2; i++)
		ASSERT_EQ(1, grant_page(self->arena, 1, 0, NULL));
	for (i = 0; i < NR_SLICES / 2; i++)
		ASSERT_EQ(1, free_lazily(self->arena, AT(i), 0));
	EXPECT_EQ(1, grant_page(self->arena, NR_SLICES / 2, 0, NULL));

	ASSERT_EQ(1, free_lazily(self->arena, 0, LIMIT / 2));
	EXPECT_EQ(0, arena_trim(self->arena, 0, &trimmed));
	EXPECT_EQ(LIMIT / 2, trimmed);
	EXPECT_EQ(0, stat_of(self->arena).committed_bytes);
}

TEST_F(lazy, file_calls_see_a_hole)
{
	ASSERT_EQ(1, grant_page(self->arena, 8, 0, NULL));
	memset(self->map, 1, AT(8));
	ASSERT_EQ(1, free_lazily(self->arena, 0, 0));
	ASSERT_EQ(0, fallocate(self->arena, 0, AT(2), AT(2)));
	EXPECT_EQ(-1, nonzero_find(self->map + AT(2), AT(2)));
	EXPECT_EQ(0, stat_of(self->arena).lazy_bytes);
	EXPECT_EQ(AT(2), stat_of(self->arena).granted_bytes);

	ASSERT_EQ(1, grant_at(self->arena, 8, 8, 0));
	ASSERT_EQ(1, free_lazily(self->arena, AT(8), 0));
	EXPECT_EQ(0, fallocate(self->arena, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, AT(4),
			       AT(12)));
	EXPECT_EQ(AT(2), stat_of(self->arena).granted_bytes);
}

/* As after any free: memory that a pipe refers to stays at its offset, and is granted again. */
TEST_F(lazy, pinned_memory_stays)
{
	int pipe;

	ASSERT_EQ(1, grant_page(self->arena, SEGMENT_SLICES, 0, NULL));
	pattern_fill(self->map, AT(1), 3);
	pipe = pipe_with(_metadata, self->map, AT(1));
	ASSERT_EQ(1, free_lazily(self->arena, 0, 0));
	ASSERT_EQ(1, grant_page(self->arena, SEGMENT_SLICES, 0, NULL));
	ASSERT_EQ(1, free_lazily(self->arena, 0, 0));
	ASSERT_TRUE(wait_for(!stat_of(self->arena).lazy_bytes, WAIT_MS));
	EXPECT_LE(variant->unit, stat_of(self->arena).pinned_bytes);
	EXPECT_EQ(1, grant_at(self->arena, 0, 1, 0));
	EXPECT_EQ(-1, pattern_mismatch(self->map, AT(1), 3));
	EXPECT_EQ(1, free_page(self->arena, 0));
	expect_pipe_holds(_metadata, pipe, AT(1), 3);
	close(pipe);
	EXPECT_TRUE(wait_for(!stat_of(self->arena).committed_bytes, WAIT_MS));
}

/* A page of another client, one that a dma-buf has, and a flag that no kernel knows. */
TEST_F(lazy, refusals_are_those_of_free)
{
	struct xalloc_ioc_export export = { .size = sizeof(export), .bytes = AT(4) };
	struct xalloc_ioc_free arg = { .size = sizeof(arg), .flags = 1U << 2, .nr = 1 };
	int other = attach(self->arena, 0, NULL), dmabuf;

	ASSERT_LE(0, other);
	ASSERT_EQ(1, grant_page(self->arena, 4, 0, NULL));
	EXPECT_EQ(-EPERM, free_lazily(other, 0, 0));
	EXPECT_EQ(-EPERM, free_lazily(other, AT(1), AT(1)));
	EXPECT_EQ(-EOPNOTSUPP, call(self->arena, XALLOC_IOC_FREE, &arg));
	dmabuf = call(self->arena, XALLOC_IOC_EXPORT, &export);
	if (dmabuf >= 0) {
		EXPECT_EQ(-EBUSY, free_lazily(self->arena, 0, AT(1)));
		EXPECT_EQ(1, free_lazily(self->arena, 0, 0));
		EXPECT_EQ(AT(4), stat_of(self->arena).exported_bytes);
		EXPECT_EQ(0, stat_of(self->arena).lazy_bytes);
		close(dmabuf);
	}
	close(other);
}

TEST_HARNESS_MAIN
