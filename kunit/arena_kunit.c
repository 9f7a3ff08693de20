// SPDX-License-Identifier: GPL-2.0-only
/* Arenas: what creating, granting and freeing give and refuse, and who pays. */
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>

#include "fixture.h"

#define PER_SEGMENT XALLOC_SLICES_PER_SEGMENT

/* Create */

struct create_row {
	const char *desc;
	u64 arena_bytes;
	u64 limit_bytes;
	int err;
};

static const struct create_row bad_creates[] = {
	{ "an arena of no size", 0, 0, -EINVAL },
	{ "an arena of one byte", 1, 0, -EINVAL },
	{ "an arena of a slice", XALLOC_SLICE_BYTES, 0, -EINVAL },
	{ "an arena of a byte less than a segment", FX_MIB(2) - 1, 0, -EINVAL },
	{ "an arena of a slice more than a segment", FX_MIB(2) + XALLOC_SLICE_BYTES, 0, -EINVAL },
	{ "a limit of one byte", FX_MIB(8), 1, -EINVAL },
	{ "a limit of half a segment", FX_MIB(8), FX_MIB(1), -EINVAL },
	{ "a limit above the size that is no whole segment", FX_MIB(8), FX_MIB(9), -EINVAL },
	{ "the largest limit there is, which is no whole segment", FX_MIB(8), U64_MAX, -EINVAL },
	{ "the largest size there is, which is no whole segment", U64_MAX, 0, -EINVAL },
	{ "the largest whole number of segments", U64_MAX - FX_MIB(2) + 1, 0, -EFBIG },
	{ "more segments than 32 bits count", FX_MIB(2) << 32, 0, -EFBIG },
	{ "more segments than placement takes",
	  FX_MIB(2) * (XALLOC_PLACEMENT_SEGMENTS_MAX + 1ull), 0, -EFBIG },
};

XALLOC_KUNIT_ROWS(bad_creates, create_row);

static void create_refuses(struct kunit *test)
{
	const struct create_row *row = test->param_value;
	struct xalloc_arena *arena = fx_create_arena(row->arena_bytes, row->limit_bytes, 0);

	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(arena), row->err);
	if (!IS_ERR(arena))
		xalloc_arena_destroy(arena);
}

static void create_takes_the_largest_and_no_more(struct kunit *test)
{
	struct fixture *fx = test->priv;
	u64 most = xalloc_arena_bytes_max();
	struct xalloc_arena *arena;

	KUNIT_EXPECT_EQ(test, most % XALLOC_SEGMENT_BYTES, 0);
	arena = fx_create_arena(most + XALLOC_SEGMENT_BYTES, 0, 0);
	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(arena), -EFBIG);
	fx->arena = fx_create_arena(most, 0, 0);
	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(fx->arena), 0);
	KUNIT_EXPECT_EQ(test, fx->arena->nr_segments, most / XALLOC_SEGMENT_BYTES);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0);
}

static const struct create_row limits[] = {
	{ "no limit is the arena's size", FX_MIB(8), 0, 4 },
	{ "a limit below the size", FX_MIB(8), FX_MIB(2), 1 },
	{ "a limit that is the size", FX_MIB(8), FX_MIB(8), 4 },
	{ "a limit above the size is the size", FX_MIB(8), FX_MIB(10), 4 },
	{ "the largest limit there is", FX_MIB(8), U64_MAX - FX_MIB(2) + 1, 4 },
};

XALLOC_KUNIT_ROWS(limits, create_row);

static void create_sets_the_limit(struct kunit *test)
{
	const struct create_row *row = test->param_value;
	struct fixture *fx = test->priv;

	fx->arena = fx_create_arena(row->arena_bytes, row->limit_bytes, 0);
	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(fx->arena), 0);
	KUNIT_EXPECT_EQ(test, fx->arena->nr_segments, 4);
	KUNIT_EXPECT_EQ(test, fx->arena->limit_slices / XALLOC_SLICES_PER_SEGMENT, row->err);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0);
}

static void ids_are_not_used_again(struct kunit *test)
{
	struct xalloc_client *client;
	u64 arena_id, client_id;

	arena_id = fx_make_arena(test, 1, 0)->id;
	client = fx_make_client(test);
	client_id = client->id;
	fx_drop_client(test, client);
	fx_drop_arena(test);
	KUNIT_EXPECT_GT(test, fx_make_arena(test, 1, 0)->id, arena_id);
	KUNIT_EXPECT_GT(test, fx_make_client(test)->id, client_id);
}

/* Grant */

struct grant_row {
	const char *desc;
	u32 nr_slices;
	u32 flags;
	u32 nr_segments;
};

static const struct grant_row grants[] = {
	{ "one slice", 1, 0, 1 },
	{ "one slice, contiguous", 1, XALLOC_PAGE_CONTIG, 1 },
	{ "a slice less than a segment", 31, 0, 1 },
	{ "a segment", 32, 0, 1 },
	{ "a segment, contiguous", 32, XALLOC_PAGE_CONTIG, 1 },
	{ "a slice more than a segment", 33, 0, 2 },
	{ "one and a half segments", 48, 0, 2 },
	{ "two segments", 64, 0, 2 },
	{ "the whole arena but a slice", 127, 0, 4 },
	{ "the whole arena", 128, 0, 4 },
};

XALLOC_KUNIT_ROWS(grants, grant_row);

static void grant_commits_and_free_gives_back(struct kunit *test)
{
	const struct grant_row *row = test->param_value;
	struct xalloc_arena *arena = fx_make_arena(test, 4, 0);
	struct xalloc_client *client = fx_make_client(test);
	struct xalloc_page_grant got = {
		.nr_slices = row->nr_slices,
		.flags = row->flags,
		.tag = 0x123456789abcdef0,
	};
	struct xalloc_page *page;

	KUNIT_EXPECT_EQ(test, fx_grant_batch(client, &got, 1), 1);
	KUNIT_EXPECT_EQ(test, got.offset, 0);
	KUNIT_EXPECT_EQ(test, got.nr_slices, row->nr_slices);
	KUNIT_EXPECT_EQ(test, got.flags, row->flags | XALLOC_PAGE_ZERO);
	KUNIT_EXPECT_EQ(test, got.contig_bytes, XALLOC_SEGMENT_BYTES);
	FX_EXPECT_ALIVE(test, 1, row->nr_slices, row->nr_segments, 0);
	KUNIT_EXPECT_TRUE(test, fx_is_zero(arena, 0, row->nr_segments * PER_SEGMENT));
	page = xa_load(&arena->pages, 0);
	KUNIT_ASSERT_NOT_NULL(test, page);
	KUNIT_EXPECT_EQ(test, page->tag, got.tag);

	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), -ENOENT);
}

static const struct grant_row bad_grants[] = {
	{ "a slice more than the arena", 129, 0, 0 },
	{ "the longest page there is", ~0u, 0, 0 },
	{ "a contiguous page of more than a segment", 33, XALLOC_PAGE_CONTIG, 0 },
};

XALLOC_KUNIT_ROWS(bad_grants, grant_row);

static void what_does_not_fit_is_enospc(struct kunit *test)
{
	const struct grant_row *row = test->param_value;
	struct xalloc_client *client;

	fx_make_arena(test, 4, 0);
	client = fx_make_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, row->nr_slices, row->flags), -ENOSPC);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0);
}

static void batch_stops_where_the_offset_space_ends(struct kunit *test)
{
	struct xalloc_page_grant batch[] = {
		{ .nr_slices = 20 }, { .nr_slices = 20 }, { .nr_slices = 40 }, { .nr_slices = 1 },
	};

	fx_make_arena(test, 2, 0);
	KUNIT_EXPECT_EQ(test, fx_grant_batch(fx_make_client(test), batch, ARRAY_SIZE(batch)), 2);
	FX_EXPECT_ALIVE(test, 2, 40, 2, 0);
}

static void pages_of_all_kinds_share_segments(struct kunit *test)
{
	struct xalloc_client *client;

	fx_make_arena(test, 2, 0);
	client = fx_make_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 8, 0), 1);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 20, XALLOC_PAGE_CONTIG), 9);
	FX_EXPECT_ALIVE(test, 3, 29, 1, 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 35, 0), 29);
	FX_EXPECT_ALIVE(test, 4, 64, 2, 0);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 1), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 9, 0), -ENOSPC);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 3, 0), 1);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 5, 0), 4);
	FX_EXPECT_ALIVE(test, 5, 64, 2, 0);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 29), 0);
	FX_EXPECT_ALIVE(test, 4, 29, 1, 0);
}

static void limit_refuses_the_exact_segment(struct kunit *test)
{
	struct xalloc_page_grant batch[] = {
		{ .nr_slices = 32 }, { .nr_slices = 32 }, { .nr_slices = 32 }, { .nr_slices = 32 },
	};
	struct xalloc_client *client;

	fx_make_arena(test, 8, 3);
	client = fx_make_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 97, 0), -EDQUOT);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 256, 0), -EDQUOT);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0);
	KUNIT_EXPECT_EQ(test, fx_grant_batch(client, batch, 4), 3);
	FX_EXPECT_ALIVE(test, 3, 96, 3, 0);
	KUNIT_EXPECT_EQ(test, fx_grant_batch(client, batch, 4), -EDQUOT);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), -EDQUOT);
	FX_EXPECT_ALIVE(test, 3, 96, 3, 0);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 32), 0);
	FX_EXPECT_ALIVE(test, 2, 64, 2, 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 33, 0), -EDQUOT);
	FX_EXPECT_ALIVE(test, 2, 64, 2, 0);
	KUNIT_EXPECT_GE(test, fx_grant_at(client, 32, 0), 0);
	FX_EXPECT_ALIVE(test, 3, 96, 3, 0);
}

static void limit_grants_what_is_committed_already(struct kunit *test)
{
	struct xalloc_client *client;

	fx_make_arena(test, 8, 2);
	client = fx_make_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 20, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 24, 0), 32);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 8, 0), 56);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 32), 0);
	/* Free are slices 20 to 55, in two segments that have memory. */
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 30, 0), 20);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 7, 0), -EDQUOT);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 6, 0), 50);
	FX_EXPECT_ALIVE(test, 4, 64, 2, 0);
}

struct nth_row {
	const char *desc;
	u32 nth;
};

static const struct nth_row segments_of_six[] = {
	{ "no memory for the first segment", 1 },
	{ "no memory for the second segment", 2 },
	{ "no memory for the third segment", 3 },
	{ "no memory for the fourth segment", 4 },
	{ "no memory for the last segment", 5 },
};

XALLOC_KUNIT_ROWS(segments_of_six, nth_row);

/* Slices 16 to 175: half a segment that has memory, four, and half of one more. */
static void failed_grant_leaves_nothing(struct kunit *test)
{
	const struct nth_row *row = test->param_value;
	struct xalloc_arena *arena = fx_make_arena(test, 8, 0);
	struct xalloc_client *client = fx_make_client(test);
	struct xalloc_page_grant got, batch[] = { { .nr_slices = 8 }, { .nr_slices = 152 } };

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 16, 0), 0);
	fx_backing_countdown = row->nth;
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 160, 0), -ENOMEM);
	KUNIT_EXPECT_EQ(test, fx_backing_countdown, 0);
	FX_EXPECT_ALIVE(test, 1, 16, 1, 0);

	fx_backing_countdown = row->nth;
	KUNIT_EXPECT_EQ(test, fx_grant_batch(client, batch, 2), 1);
	FX_EXPECT_ALIVE(test, 2, 24, 1, 0);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 16), 0);
	FX_EXPECT_ALIVE(test, 1, 16, 1, 0);

	/* What was not granted was not touched either. */
	KUNIT_EXPECT_EQ(test, fx_grant(client, 152, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.offset, 16 * XALLOC_SLICE_BYTES);
	KUNIT_EXPECT_EQ(test, got.flags, 0);
	KUNIT_EXPECT_EQ(test, fx_grant(client, 8, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.flags, XALLOC_PAGE_ZERO);
	KUNIT_EXPECT_TRUE(test, fx_is_zero(arena, 16, 160));
	FX_EXPECT_ALIVE(test, 3, 176, 6, 0);
}

static void fatal_signal_gives_nothing(struct kunit *test)
{
	struct xalloc_client *client;
	int in_memory, beyond;

	fx_make_arena(test, 4, 0);
	client = fx_make_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 8, 0), 0);

	sigaddset(&current->pending.signal, SIGKILL);
	set_thread_flag(TIF_SIGPENDING);
	in_memory = fx_grant_at(client, 8, 0);
	beyond = fx_grant_at(client, 100, 0);
	sigdelset(&current->pending.signal, SIGKILL);
	recalc_sigpending();

	KUNIT_EXPECT_EQ(test, in_memory, 8);
	KUNIT_EXPECT_EQ(test, beyond, -EINTR);
	FX_EXPECT_ALIVE(test, 2, 16, 1, 0);
}

/* Free */

struct free_row {
	const char *desc;
	u64 offset;
	int err;
};

#define SLICES(n) ((n) * (u64)XALLOC_SLICE_BYTES)

/*
 * Of 2 segments: pages of ours at slices 0 to 2 and 6, of another client's at 3 and 4,
 * one that was freed at 5.
 */
static const struct free_row bad_frees[] = {
	{ "the second slice of a page", SLICES(1), -ENOENT },
	{ "the last slice of a page", SLICES(2), -ENOENT },
	{ "a page of another client", SLICES(3), -EPERM },
	{ "the inside of a page of another client", SLICES(4), -ENOENT },
	{ "a page that was freed before", SLICES(5), -ENOENT },
	{ "a slice that was never granted", SLICES(7), -ENOENT },
	{ "a segment that has no memory", SLICES(32), -ENOENT },
	{ "the last slice of the arena", SLICES(63), -ENOENT },
	{ "the end of the arena", SLICES(64), -ERANGE },
	{ "a slice far past the end", SLICES(1ull << 32), -ERANGE },
	{ "a slice whose number is that of a page in 32 bits", SLICES(6 + (1ull << 32)), -ERANGE },
	{ "the last slice there is", 0 - SLICES(1), -ERANGE },
	{ "one byte", 1, -EINVAL },
	{ "a hardware page inside a slice", 4096, -EINVAL },
	{ "one byte past a page", SLICES(6) + 1, -EINVAL },
	{ "a byte past the end", SLICES(64) + 1, -EINVAL },
	{ "the last byte there is", U64_MAX, -EINVAL },
};

XALLOC_KUNIT_ROWS(bad_frees, free_row);

static void free_refuses(struct kunit *test)
{
	const struct free_row *row = test->param_value;
	struct xalloc_client *ours, *other;
	struct xalloc_range batch[] = {
		{ .offset = SLICES(6) },
		{ .offset = row->offset },
		{ .offset = SLICES(0) },
	};

	fx_make_arena(test, 2, 0);
	ours = fx_make_client(test);
	other = fx_make_client(test);
	KUNIT_ASSERT_EQ(test, fx_grant_at(ours, 3, 0), 0);
	KUNIT_ASSERT_EQ(test, fx_grant_at(other, 2, 0), 3);
	KUNIT_ASSERT_EQ(test, fx_grant_at(ours, 1, 0), 5);
	KUNIT_ASSERT_EQ(test, fx_grant_at(ours, 1, 0), 6);
	KUNIT_ASSERT_EQ(test, fx_free_at(ours, 5), 0);
	FX_EXPECT_ALIVE(test, 3, 6, 1, 0);

	KUNIT_EXPECT_EQ(test, fx_free_offset(ours, row->offset), row->err);
	FX_EXPECT_ALIVE(test, 3, 6, 1, 0);
	/* A batch ends there, with what came before freed and what comes after not. */
	KUNIT_EXPECT_EQ(test, xalloc_client_free(ours, batch, 3, false), 1);
	FX_EXPECT_ALIVE(test, 2, 5, 1, 0);
	KUNIT_EXPECT_EQ(test, xalloc_client_free(ours, batch, 3, false), -ENOENT);
	KUNIT_EXPECT_EQ(test, xalloc_client_free(ours, batch + 1, 2, false), row->err);
	KUNIT_EXPECT_EQ(test, xalloc_client_free(ours, batch + 2, 1, false), 1);
	FX_EXPECT_ALIVE(test, 1, 2, 1, 0);
}

static void page_cannot_be_freed_before_it_is_known(struct kunit *test)
{
	struct xalloc_page_grant got = { .nr_slices = 2 };
	struct xalloc_client *client;
	LIST_HEAD(granted);

	fx_make_arena(test, 2, 0);
	client = fx_make_client(test);
	KUNIT_EXPECT_EQ(test, xalloc_client_grant(client, &got, 1, &granted), 1);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), -ENOENT);
	FX_EXPECT_ALIVE(test, 1, 2, 1, 0);
	xalloc_client_grant_finish(client, &granted, true);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0);
}

static void grant_that_nobody_learns_of_is_taken_back(struct kunit *test)
{
	struct xalloc_page_grant batch[] = {
		{ .nr_slices = 2 }, { .nr_slices = 60 }, { .nr_slices = 32 },
	};
	struct xalloc_client *client;
	LIST_HEAD(granted);

	fx_make_arena(test, 4, 0);
	client = fx_make_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), 0);
	KUNIT_EXPECT_EQ(test, xalloc_client_grant(client, batch, 3, &granted), 3);
	FX_EXPECT_ALIVE(test, 4, 95, 3, 0);
	xalloc_client_grant_finish(client, &granted, false);
	FX_EXPECT_ALIVE(test, 1, 1, 1, 0);
}

static void client_takes_its_pages_with_it(struct kunit *test)
{
	struct xalloc_client *one, *two;
	u32 i;

	fx_make_arena(test, 8, 0);
	one = fx_make_client(test);
	two = fx_make_client(test);
	for (i = 0; i < 40; i++)
		KUNIT_EXPECT_GE(test, fx_grant_at(i % 2 ? one : two, 1 + i % 5, 0), 0);
	FX_EXPECT_ALIVE(test, 40, 120, 4, 0);
	fx_drop_client(test, one);
	FX_EXPECT_ALIVE(test, 20, 60, 4, 0);
	/* Nobody refers to them: they can be granted at once, to the last. */
	for (i = 60; i < 256; i++)
		KUNIT_EXPECT_GE(test, fx_grant_at(two, 1, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(two, 1, 0), -ENOSPC);
	FX_EXPECT_ALIVE(test, 20 + 196, 256, 8, 0);
	fx_drop_client(test, two);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0);
}

/* Slice 5 is free to placement, and of a page. */
static void contradicting_records_fence_their_segments(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 4, 0);
	struct xalloc_client *client = fx_make_client(test);
	struct xalloc_ioc_stat stat = {};

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 40, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 4, 0), 40);
	KUNIT_ASSERT_EQ(test, xalloc_placement_give(&arena->placement, 5, 1), 0);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), -EUCLEAN);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), -EUCLEAN);
	/* Neither slice 5 nor the rest of the second segment is granted; others are. */
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), 64);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 64, 0), -ENOSPC);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 40), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 63, 0), 65);
	/* What is granted there stays. */
	KUNIT_EXPECT_TRUE(test, fx_faults_in(arena, 0));
	KUNIT_EXPECT_TRUE(test, fx_faults_in(arena, 1));
	mutex_lock(&arena->lock);
	xalloc_arena_stat(arena, &stat);
	mutex_unlock(&arena->lock);
	KUNIT_EXPECT_EQ(test, stat.fenced_bytes, FX_MIB(4));
	/* The end of the arena still gives back all of it. */
	fx_drop_client(test, client);
	fx_drop_arena(test);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(fx_nothing_counted(test->priv)));
}

/* Zero */

static void zero_is_said_of_zero_memory_only(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 2, 0);
	struct xalloc_client *client = fx_make_client(test);
	struct xalloc_page_grant got;

	KUNIT_EXPECT_EQ(test, fx_grant(client, 4, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.flags, XALLOC_PAGE_ZERO);
	fx_fill(arena, 0, 4);
	KUNIT_EXPECT_EQ(test, fx_grant(client, 4, XALLOC_PAGE_CONTIG, &got), 0);
	KUNIT_EXPECT_EQ(test, got.flags, XALLOC_PAGE_ZERO | XALLOC_PAGE_CONTIG);
	KUNIT_EXPECT_TRUE(test, fx_is_zero(arena, 4, 28));

	/* The same slices again, while the other page keeps the segment. */
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 24, 0), 8);
	KUNIT_EXPECT_EQ(test, fx_grant(client, 2, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.offset, 0);
	KUNIT_EXPECT_EQ(test, got.flags, 0);

	/* A run of which a part was granted before. */
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 8), 0);
	KUNIT_EXPECT_EQ(test, fx_grant(client, 56, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.offset, SLICES(8));
	KUNIT_EXPECT_EQ(test, got.flags, 0);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 8), 0);
	FX_EXPECT_ALIVE(test, 2, 6, 1, 0);
	KUNIT_EXPECT_EQ(test, fx_grant(client, 32, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.offset, SLICES(32));
	KUNIT_EXPECT_EQ(test, got.flags, XALLOC_PAGE_ZERO);
	fx_fill(arena, 32, 32);

	/* Given back and committed anew. */
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 32), 0);
	KUNIT_EXPECT_EQ(test, fx_grant(client, 32, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.offset, SLICES(32));
	KUNIT_EXPECT_EQ(test, got.flags, XALLOC_PAGE_ZERO);
	KUNIT_EXPECT_TRUE(test, fx_is_zero(arena, 32, 32));
}

/* Charge */

struct charge_row {
	const char *desc;
	u32 extra_kpages;
	u32 locked_kpages;	/* by others, meanwhile */
	u32 nr_segments;	/* that can be had */
};

static const struct charge_row charges[] = {
	{ "a limit of two segments", 1024, 0, 2 },
	{ "a limit of a hardware page less than two segments", 1023, 0, 1 },
	{ "a limit of a hardware page more than two segments", 1025, 0, 2 },
	{ "a limit of less than a segment", 511, 0, 0 },
	{ "no limit left", 0, 0, 0 },
	{ "a limit of which others use a part", 1024, 1, 1 },
	{ "a limit of which others use all", 1024, 1024, 0 },
	{ "a limit of which others use more than there is", 1024, 4096, 0 },
};

XALLOC_KUNIT_ROWS(charges, charge_row);

static void payers_limit_is_enobufs(struct kunit *test)
{
	const struct charge_row *row = test->param_value;
	struct fixture *fx = test->priv;
	struct xalloc_arena *arena = fx_make_arena(test, 4, 0);
	struct xalloc_client *client = fx_make_client(test);
	struct user_struct *user = current_user();
	long locked_vm = atomic_long_read(&user->locked_vm);
	u32 i;

	fx_make_payer(arena, 0);
	arena->payer.limit_kpages += row->extra_kpages;
	atomic_long_add(row->locked_kpages, &user->locked_vm);
	for (i = 0; i < row->nr_segments; i++)
		KUNIT_EXPECT_GE(test, fx_grant_at(client, 32, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, 0), -ENOBUFS);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), -ENOBUFS);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 64, 0), -ENOBUFS);
	FX_EXPECT_ALIVE(test, row->nr_segments, row->nr_segments * 32, row->nr_segments, 0);
	KUNIT_EXPECT_EQ(test, fx_counted(fx, XALLOC_NR_CHARGED_SLICES),
			row->nr_segments * XALLOC_SLICES_PER_SEGMENT);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&user->locked_vm),
			locked_vm + row->locked_kpages +
			row->nr_segments * XALLOC_SEGMENT_KPAGES);
	if (row->nr_segments) {
		KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
		KUNIT_EXPECT_GE(test, fx_grant_at(client, 1, 0), 0);
	}
	fx_drop_client(test, client);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0);
	atomic_long_sub(row->locked_kpages, &user->locked_vm);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&user->locked_vm), locked_vm);
}

static void no_memory_is_not_charged(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 4, 0);
	struct xalloc_client *client = fx_make_client(test);
	long locked_vm = atomic_long_read(&current_user()->locked_vm);

	fx_make_payer(arena, 4);
	fx_backing_countdown = 2;
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 64, 0), -ENOMEM);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&current_user()->locked_vm), locked_vm);
}

struct creator_row {
	const char *desc;
	bool capable;
	unsigned long memlock;	/* RLIMIT_MEMLOCK in bytes */
};

static const struct creator_row creators[] = {
	{ "who may lock memory does not pay", true, 0 },
	{ "who may not pays up to 8 MiB", false, 8 << 20 },
	{ "who may not pays up to whole hardware pages", false, 8191 },
	{ "who may not is refused all without a limit to use", false, 0 },
	{ "who may not pays without end if there is no limit", false, RLIM_INFINITY },
};

XALLOC_KUNIT_ROWS(creators, creator_row);

/* An arena of someone who may not lock memory, or who may; with this RLIMIT_MEMLOCK. */
static struct xalloc_arena *create_as(struct kunit *test, bool capable, unsigned long memlock,
				      u64 arena_bytes)
{
	struct rlimit *limit = &current->signal->rlim[RLIMIT_MEMLOCK], before = *limit;
	struct cred *cred = prepare_creds();
	struct xalloc_arena *arena;
	const struct cred *old;

	KUNIT_ASSERT_NOT_NULL(test, cred);
	if (!capable)
		cap_clear(cred->cap_effective);
	old = override_creds(cred);
	limit->rlim_cur = memlock;
	arena = fx_create_arena(arena_bytes, 0, 0);
	*limit = before;
	revert_creds(old);
	put_cred(cred);
	return arena;
}

static void creator_becomes_the_payer(struct kunit *test)
{
	const struct creator_row *row = test->param_value;
	struct fixture *fx = test->priv;

	fx->arena = create_as(test, row->capable, row->memlock, FX_MIB(8));
	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(fx->arena), 0);
	KUNIT_EXPECT_PTR_EQ(test, fx->arena->payer.user, row->capable ? NULL : current_user());
	if (row->capable)
		return;
	KUNIT_EXPECT_EQ(test, fx->arena->payer.limit_kpages, row->memlock / PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, fx_grant_at(fx_make_client(test), 32, 0),
			row->memlock < XALLOC_SEGMENT_BYTES ? -ENOBUFS : 0);
}

/* An offset space costs memory where it is used: tables come with a grant and go with it. */
static void unused_offsets_cost_nothing(struct kunit *test)
{
	struct fixture *fx = test->priv;
	struct xalloc_client *client;
	int slice;

	fx->arena = fx_create_arena(xalloc_arena_bytes_max(), 0, 0);
	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(fx->arena), 0);
	KUNIT_EXPECT_EQ(test, xalloc_placement_table_bytes(&fx->arena->placement), 0);
	client = fx_make_client(test);
	slice = fx_grant_at(client, 33, 0);
	KUNIT_ASSERT_EQ(test, slice, 0);
	KUNIT_EXPECT_LE(test, xalloc_placement_table_bytes(&fx->arena->placement) * 500,
			2 * XALLOC_SEGMENT_BYTES);
	FX_EXPECT_ALIVE(test, 1, 33, 2, 0);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, slice), 0);
	KUNIT_EXPECT_EQ(test, xalloc_placement_table_bytes(&fx->arena->placement), 0);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0);
}

/* Nor is one bound to the machine's memory, which is what can be committed. */
static void more_than_all_memory_is_refused_at_once(struct kunit *test)
{
	u32 most = totalram_pages() / XALLOC_SEGMENT_KPAGES + 1;
	struct fixture *fx = test->priv;

	fx->arena = fx_create_arena(xalloc_arena_bytes_max(), 0, 0);
	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(fx->arena), 0);
	KUNIT_EXPECT_LE(test, fx->arena->limit_slices / XALLOC_SLICES_PER_SEGMENT, most);
	KUNIT_EXPECT_EQ(test, fx_grant_at(fx_make_client(test), (most + 1) * 32, 0), -EDQUOT);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0);
}

/* Files */

static void file_is_the_arena(struct kunit *test)
{
	struct fixture *fx = test->priv;
	struct file *file = fx_create_file(FX_MIB(8), FX_MIB(4));
	struct xalloc_client *client;

	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(file), 0);
	fx->file = file;
	client = file->private_data;
	fx->arena = client->arena;
	KUNIT_EXPECT_EQ(test, i_size_read(file_inode(file)), FX_MIB(8));
	KUNIT_EXPECT_EQ(test, fx->arena->limit_slices, 2 * XALLOC_SLICES_PER_SEGMENT);
	KUNIT_EXPECT_PTR_EQ(test, fx->arena->mapping, file->f_mapping);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 40, 0), 0);
	KUNIT_EXPECT_TRUE(test, fx_faults_in(fx->arena, 1));
	FX_EXPECT_ALIVE(test, 1, 40, 2, 0);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 64, 0), 0);
	fx->arena = NULL;
}

/* Memory is in page cache while a segment has it, and never after the arena is destroyed. */
static void memory_is_page_cache_of_the_file(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena_by(test, 4, 0, XALLOC_POLICY_HUGE_PREFERRED);
	struct xalloc_client *client = fx_make_client(test);
	struct fixture *fx = test->priv;
	struct folio *folio;

	if (!IS_ENABLED(CONFIG_XARRAY_MULTI))
		kunit_skip(test, "page cache takes no large folios in this kernel");
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 33, 0), 0);
	fx_backing_no_huge = true;
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 63, 0), 33);
	KUNIT_EXPECT_EQ(test, arena->mapping->nrpages, 96 * XALLOC_SLICE_KPAGES);
	folio = fx_pin_slice(test, 64);
	KUNIT_EXPECT_EQ(test, folio_order(folio), XALLOC_PIECE_ORDER);
	KUNIT_EXPECT_PTR_EQ(test, folio->mapping, arena->mapping);
	KUNIT_EXPECT_EQ(test, folio->index, 64 * XALLOC_SLICE_KPAGES);
	KUNIT_EXPECT_TRUE(test, folio_test_uptodate(folio));

	/* The rest of the second segment goes, pinned pieces stay. */
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 33), 0);
	KUNIT_EXPECT_EQ(test, arena->mapping->nrpages, 65 * XALLOC_SLICE_KPAGES);
	KUNIT_EXPECT_PTR_EQ(test, folio->mapping, arena->mapping);
	KUNIT_EXPECT_FALSE(test, folio_test_uptodate(folio));
	fx_drop_client(test, client);
	xalloc_arena_destroy(arena);
	fx->arena = NULL;
	KUNIT_EXPECT_EQ(test, fx->inode->i_mapping->nrpages, 0);
	KUNIT_EXPECT_NULL(test, folio->mapping);
}

static void file_refuses_what_create_refuses(struct kunit *test)
{
	const struct create_row *row = test->param_value;
	struct file *file = fx_create_file(row->arena_bytes, row->limit_bytes);

	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(file), row->err);
	if (!IS_ERR(file))
		fput(file);
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(create_refuses, bad_creates_gen_params),
	KUNIT_CASE(create_takes_the_largest_and_no_more),
	KUNIT_CASE_PARAM(create_sets_the_limit, limits_gen_params),
	KUNIT_CASE(ids_are_not_used_again),
	KUNIT_CASE_PARAM(grant_commits_and_free_gives_back, grants_gen_params),
	KUNIT_CASE_PARAM(what_does_not_fit_is_enospc, bad_grants_gen_params),
	KUNIT_CASE(batch_stops_where_the_offset_space_ends),
	KUNIT_CASE(pages_of_all_kinds_share_segments),
	KUNIT_CASE(limit_refuses_the_exact_segment),
	KUNIT_CASE(limit_grants_what_is_committed_already),
	KUNIT_CASE_PARAM(failed_grant_leaves_nothing, segments_of_six_gen_params),
	KUNIT_CASE(fatal_signal_gives_nothing),
	KUNIT_CASE_PARAM(free_refuses, bad_frees_gen_params),
	KUNIT_CASE(page_cannot_be_freed_before_it_is_known),
	KUNIT_CASE(grant_that_nobody_learns_of_is_taken_back),
	KUNIT_CASE(client_takes_its_pages_with_it),
	KUNIT_CASE(contradicting_records_fence_their_segments),
	KUNIT_CASE(zero_is_said_of_zero_memory_only),
	KUNIT_CASE_PARAM(payers_limit_is_enobufs, charges_gen_params),
	KUNIT_CASE(no_memory_is_not_charged),
	KUNIT_CASE_PARAM(creator_becomes_the_payer, creators_gen_params),
	KUNIT_CASE(unused_offsets_cost_nothing),
	KUNIT_CASE(more_than_all_memory_is_refused_at_once),
	KUNIT_CASE(file_is_the_arena),
	KUNIT_CASE(memory_is_page_cache_of_the_file),
	KUNIT_CASE_PARAM(file_refuses_what_create_refuses, bad_creates_gen_params),
	{}
};

struct kunit_suite xalloc_arena_suite = {
	.name = "xalloc_arena",
	.init = fx_init,
	.exit = fx_exit,
	.test_cases = cases,
};
