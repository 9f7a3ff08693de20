// SPDX-License-Identifier: GPL-2.0-only
/* Placement: what it promises, row by row. */
#include <linux/bitops.h>
#include <linux/log2.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "helpers.h"

#define PER_SEGMENT XALLOC_SLICES_PER_SEGMENT
#define NONE XALLOC_PLACEMENT_NONE
#define ALL_FREE (~0u)

/* Tables are allocated each by itself, so that KASAN sees a step past one. */
static struct xalloc_placement *placement_create(struct kunit *test, u32 nr_segments)
{
	struct xalloc_placement *pl = kunit_kzalloc(test, sizeof(*pl), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, pl);
	xalloc_placement_init(pl, nr_segments);
	test->priv = pl;
	return pl;
}

/* The tables of the last placement of a case; what was there is not needed any more. */
static void placement_exit(struct kunit *test)
{
	if (test->priv)
		xalloc_placement_fini(test->priv);
	test->priv = NULL;
}

static u32 take_request(struct kunit *test, struct xalloc_placement *pl,
			const struct xalloc_placement_request *request)
{
	u32 slice = NONE;
	int err = xalloc_placement_take(pl, request, &slice);

	KUNIT_EXPECT_EQ(test, err, slice == NONE ? -ENOSPC : 0);
	return slice;
}

static u32 take(struct kunit *test, struct xalloc_placement *pl, u32 nr, bool contig)
{
	return take_request(test, pl, &(struct xalloc_placement_request){
		.nr_slices = nr,
		.contig = contig,
	});
}

static int give(struct xalloc_placement *pl, u32 slice, u32 nr)
{
	return xalloc_placement_give(pl, slice, nr);
}

static u32 queue_of(const struct xalloc_placement *pl, u32 s)
{
	const struct xalloc_placement_segment *seg = xalloc_placement_segment(pl, s);

	return seg ? seg->queue : XALLOC_QUEUE_NONE;
}

/* Bit n of @free[s]: slice n of segment s is free; bit s of @backed: it has memory. */
static struct xalloc_placement *placement_from(struct kunit *test, const u32 *free,
					       u32 nr_segments, u32 backed, u32 pieces)
{
	struct xalloc_placement *pl = placement_create(test, nr_segments);
	u32 s, n;

	KUNIT_ASSERT_EQ(test, take(test, pl, nr_segments * PER_SEGMENT, false), 0);
	for (s = 0; s < nr_segments; s++) {
		enum xalloc_placement_backing backing = XALLOC_BACKING_BARE;

		if (backed & BIT(s))
			backing = XALLOC_BACKING_HUGE;
		if (pieces & BIT(s))
			backing = XALLOC_BACKING_PIECES;
		KUNIT_ASSERT_EQ(test, xalloc_placement_set_backing(pl, s, backing), 0);
		for (n = 0; n < PER_SEGMENT; n++)
			if (free[s] & BIT(n))
				KUNIT_ASSERT_EQ(test, give(pl, s * PER_SEGMENT + n, 1), 0);
	}
	KUNIT_ASSERT_TRUE(test, xalloc_placement_is_valid(pl));
	return pl;
}

/* Sizes of arenas: around powers of two, and beyond what fits one page of table. */
struct size_row {
	const char *desc;
	u32 nr_segments;
};

static const struct size_row sizes[] = {
	{ "an arena of 1 segment", 1 },
	{ "an arena of 2 segments", 2 },
	{ "an arena of 3 segments", 3 },
	{ "an arena of 5 segments", 5 },
	{ "an arena of 33 segments", 33 },
	{ "an arena of 512 segments", 512 },
};

XALLOC_KUNIT_ROWS(sizes, size_row);

static void begins_free(struct kunit *test)
{
	const struct size_row *row = test->param_value;
	struct xalloc_placement *pl = placement_create(test, row->nr_segments);
	u32 s;

	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
	KUNIT_EXPECT_EQ(test, pl->nr_free_slices, row->nr_segments * PER_SEGMENT);
	KUNIT_EXPECT_EQ(test, pl->queues, 0);
	KUNIT_EXPECT_EQ(test, xalloc_placement_table_bytes(pl), 0);
	KUNIT_EXPECT_EQ(test, xalloc_placement_find_bare(pl), 0);
	KUNIT_EXPECT_EQ(test, xalloc_placement_next_record(pl, 0), NONE);
	for (s = 0; s < row->nr_segments; s++) {
		KUNIT_ASSERT_TRUE(test, xalloc_placement_is_whole(pl, s));
		KUNIT_ASSERT_EQ(test, xalloc_placement_free_mask(pl, s), ALL_FREE);
		KUNIT_ASSERT_EQ(test, xalloc_placement_backing(pl, s), XALLOC_BACKING_BARE);
	}
}

static void takes_bare_segments_from_the_low_end(struct kunit *test)
{
	const struct size_row *row = test->param_value;
	struct xalloc_placement *pl = placement_create(test, row->nr_segments);
	u32 s;

	for (s = 0; s < row->nr_segments; s++) {
		KUNIT_ASSERT_EQ(test, xalloc_placement_find_bare(pl), s);
		KUNIT_ASSERT_EQ(test, take(test, pl, PER_SEGMENT, true),
				s * PER_SEGMENT);
	}
	KUNIT_EXPECT_EQ(test, xalloc_placement_find_bare(pl), NONE);
	KUNIT_EXPECT_EQ(test, take(test, pl, PER_SEGMENT, true), NONE);
}

static void take_and_give(struct kunit *test, struct xalloc_placement *pl, u32 nr, bool contig,
			  bool there)
{
	u32 total = pl->nr_segments * PER_SEGMENT;
	u32 slice = take(test, pl, nr, contig);

	KUNIT_ASSERT_EQ(test, slice != NONE, there);
	KUNIT_ASSERT_TRUE(test, xalloc_placement_is_valid(pl));
	if (there) {
		KUNIT_ASSERT_LE(test, (u64)slice + nr, total);
		KUNIT_ASSERT_EQ(test, slice % PER_SEGMENT, 0);
		KUNIT_ASSERT_EQ(test, pl->nr_free_slices, total - nr);
		KUNIT_ASSERT_EQ(test, give(pl, slice, nr), 0);
		KUNIT_ASSERT_TRUE(test, xalloc_placement_is_valid(pl));
	}
	KUNIT_ASSERT_EQ(test, pl->nr_free_slices, total);
}

/*
 * A run of @k segments has a shape of its own in the tree where @k is near a power of two
 * or near the whole arena of @nr. Each check of a large arena walks all of it, so the short
 * run leaves out what is between.
 */
static bool is_near_boundary(u32 k, u32 nr)
{
	return k <= 8 || k + 2 >= nr || is_power_of_2(k - 1) || is_power_of_2(k) ||
	       is_power_of_2(k + 1);
}

static void sizes_around_segments(struct kunit *test)
{
	const struct size_row *row = test->param_value;
	struct xalloc_placement *pl = placement_create(test, row->nr_segments);
	u32 total = row->nr_segments * PER_SEGMENT, k, nr;

	for (k = 0; k <= row->nr_segments; k++) {
		if (!xalloc_kunit_steps(is_near_boundary(k, row->nr_segments), 1))
			continue;
		for (nr = max(k * PER_SEGMENT, 2u) - 1; nr <= k * PER_SEGMENT + 1; nr++) {
			take_and_give(test, pl, nr, false, nr <= total);
			take_and_give(test, pl, nr, true, nr <= PER_SEGMENT);
		}
	}
	take_and_give(test, pl, ~0u, false, false);
	take_and_give(test, pl, ~0u, true, false);
}

/* Which run is taken, from up to four segments. */
struct fit_row {
	const char *desc;
	u32 free[4];
	u32 backed;
	u32 nr_slices;
	bool contig;
	u32 slice;
	u32 pieces;
	u32 align;
};

static const struct fit_row fits[] = {
	{ "one slice goes to the tightest hole, not to the first",
	  { 0xff, 0x3, 0xffff, ALL_FREE }, 0xf, 1, false, 32 },
	{ "a hole that is too small is passed over",
	  { 0xff, 0x3, 0xffff, ALL_FREE }, 0xf, 3, false, 0 },
	{ "a hole counts by its longest run, not by its free slices",
	  { 0x55555555, 0x7, 0, 0 }, 0xf, 2, false, 32 },
	{ "inside a segment the lowest run that fits is taken",
	  { 0, 0x0f0000f3, 0, 0 }, 0xf, 2, false, 32 },
	{ "inside a segment a run that is too short is passed over",
	  { 0, 0x0f0000f3, 0, 0 }, 0xf, 3, false, 36 },
	{ "a partly used segment goes before a whole one",
	  { ALL_FREE, 0x7fffffff, 0, ALL_FREE }, 0x7, 4, false, 32 },
	{ "a whole segment with memory goes before a bare one",
	  { ALL_FREE, 0, ALL_FREE, 0 }, 0x4, 4, false, 64 },
	{ "a bare segment is taken when nothing else fits",
	  { 0xff, 0, 0x7, ALL_FREE }, 0x7, 9, false, 96 },
	{ "31 slices fit a segment that has 31",
	  { ALL_FREE, 0xfffffffe, 0, 0 }, 0xf, 31, true, 33 },
	{ "32 slices need a whole segment while there is one",
	  { 0xffff0000, 0x0000ffff, ALL_FREE, 0 }, 0xf, 32, false, 64 },
	{ "32 slices straddle when no segment is whole",
	  { 0xffff0000, 0x0000ffff, 0, 0 }, 0xf, 32, false, 16 },
	{ "32 contiguous slices do not straddle",
	  { 0xffff0000, 0x0000ffff, 0, 0 }, 0xf, 32, true, NONE },
	{ "2 slices stay inside a segment although a lower run straddles",
	  { 0x80000000, 0xffff0001, 0, 0 }, 0xf, 2, false, 48 },
	{ "2 slices straddle when no segment has two",
	  { 0x80000000, 0x1, 0, 0 }, 0xf, 2, false, 31 },
	{ "2 contiguous slices do not straddle",
	  { 0x80000000, 0x1, 0, 0 }, 0xf, 2, true, NONE },
	{ "33 slices start at any slice",
	  { 0xff000000, 0x01ffffff, 0, 0 }, 0xf, 33, false, 24 },
	{ "33 slices take the lowest place, not the tightest",
	  { 0xffffff00, ALL_FREE, 0, 0 }, 0xf, 33, false, 8 },
	{ "34 slices are not had from 33",
	  { 0xff000000, 0x01ffffff, 0, 0 }, 0xf, 34, false, NONE },
	{ "a run goes through a whole segment into the next",
	  { 0x80000000, ALL_FREE, 0x1, 0 }, 0xf, 34, false, 31 },
	{ "a run does not jump a taken slice between segments",
	  { 0x7fffffff, ALL_FREE, 0, 0 }, 0xf, 33, false, NONE },
	{ "a run in the middle of the tree is found from the left half",
	  { 0, 0xffff0000, 0x0001ffff, 0 }, 0xf, 33, false, 48 },
	{ "a long run may mix segments with memory and without",
	  { ALL_FREE, ALL_FREE, ALL_FREE, ALL_FREE }, 0x5, 128, false, 0 },
	{ "the last slice of the arena is found",
	  { 0, 0, 0, 0x80000000 }, 0xf, 1, false, 127 },
	{ "no run goes past the end of the arena",
	  { 0, 0, 0, 0xc0000000 }, 0xf, 3, false, NONE },
	{ "no more than 32 slices are contiguous",
	  { ALL_FREE, ALL_FREE, ALL_FREE, ALL_FREE }, 0xf, 33, true, NONE },
	{ "an arena without a free slice grants none",
	  { 0, 0, 0, 0 }, 0xf, 1, false, NONE },
	{ "a larger hole in a huge folio goes before the tightest one in pieces",
	  { 0xf, 0xff, 0, 0 }, 0x2, 4, false, 32, 0x1 },
	{ "a partly used segment of pieces goes before a whole huge one",
	  { 0xf, ALL_FREE, 0, 0 }, 0x2, 4, false, 0, 0x1 },
	{ "a whole huge segment goes before one of pieces",
	  { ALL_FREE, ALL_FREE, 0, 0 }, 0x2, 4, false, 32, 0x1 },
	{ "a whole segment of pieces goes before a bare one",
	  { ALL_FREE, ALL_FREE, 0, 0 }, 0x0, 4, false, 32, 0x2 },
	{ "pieces are not contiguous",
	  { 0xf, ALL_FREE, 0, 0 }, 0x0, 4, true, NONE, 0x3 },
	{ "a contiguous run passes over pieces to a bare segment",
	  { 0xf, ALL_FREE, ALL_FREE, 0 }, 0x0, 4, true, 64, 0x3 },
	{ "a run may lie over a huge folio and pieces",
	  { 0xff000000, 0x01ffffff, 0, 0 }, 0x1, 33, false, 24, 0x2 },
	{ "an aligned run is not the lowest that fits",
	  { 0xfffe, 0, 0, 0 }, 0xf, 4, false, 4, 0, 4 },
	{ "a tight hole that has no aligned place is passed over",
	  { 0x1e, 0xff, 0, 0 }, 0xf, 4, false, 32, 0, 4 },
	{ "an aligned run passes over partly used segments to a whole one",
	  { 0x7ffe, 0x7ffe, ALL_FREE, 0 }, 0x7, 8, false, 64, 0, 8 },
	{ "an aligned run is found though the head of its queue has none",
	  { 0x1e, 0x1e, 0x1e, 0xf0 }, 0xf, 4, true, 100, 0, 4 },
	{ "an aligned run straddles when no segment has it",
	  { 0xf0000000, 0xff, 0, 0 }, 0xf, 12, false, 28, 0, 4 },
	{ "an aligned contiguous run does not straddle",
	  { 0xf0000000, 0xff, 0, 0 }, 0xf, 12, true, NONE, 0, 4 },
	{ "32 aligned slices are a whole segment",
	  { 0xffff0000, ALL_FREE, 0, 0 }, 0xf, 32, false, 32, 0, 32 },
	{ "alignment to two segments passes over an odd one",
	  { 0, ALL_FREE, 0xff, 0 }, 0xf, 2, false, 64, 0, 64 },
	{ "contiguous and aligned to two segments",
	  { 0xff, ALL_FREE, 0xff, 0 }, 0xe, 2, true, 64, 0x1, 64 },
	{ "alignment to the arena is its first slice",
	  { ALL_FREE, ALL_FREE, 0, ALL_FREE }, 0xf, 33, false, 0, 0, 128 },
	{ "alignment to the arena when its first slice is taken",
	  { 0xfffffffe, ALL_FREE, 0, ALL_FREE }, 0xf, 1, false, NONE, 0, 128 },
	{ "a long run begins at an aligned slice inside its run",
	  { 0xfe000000, ALL_FREE, 0xffff, 0 }, 0xf, 33, false, 28, 0, 4 },
	{ "a long run is aligned to two segments",
	  { 0xff000000, ALL_FREE, ALL_FREE, ALL_FREE }, 0xf, 40, false, 64, 0, 64 },
	{ "a long run that fits but is nowhere aligned",
	  { 0xfffffffe, ALL_FREE, 0x1, 0 }, 0xf, 64, false, NONE, 0, 32 },
};

XALLOC_KUNIT_ROWS(fits, fit_row);

static void takes_the_tightest_fit(struct kunit *test)
{
	const struct fit_row *row = test->param_value;
	struct xalloc_placement *pl = placement_from(test, row->free, ARRAY_SIZE(row->free),
						     row->backed, row->pieces);
	const struct xalloc_placement_request request = {
		row->nr_slices, row->align, row->contig,
	};
	u32 nr_free = pl->nr_free_slices;

	KUNIT_EXPECT_EQ(test, take_request(test, pl, &request), row->slice);
	KUNIT_EXPECT_EQ(test, pl->nr_free_slices,
			row->slice == NONE ? nr_free : nr_free - row->nr_slices);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
}

/* Whatever is looked at first, what is there is found before -ENOSPC. */
static void aligned_run_is_found_in_the_last_segment(struct kunit *test)
{
	static const struct xalloc_placement_request requests[] = {
		{ .nr_slices = 4, .align_slices = 4 },
		{ .nr_slices = 4, .align_slices = 4, .contig = true },
	};
	u32 free[32], i;

	for (i = 0; i < ARRAY_SIZE(free); i++)
		free[i] = i < 31 ? 0x1e : 0xf0;
	for (i = 0; i < ARRAY_SIZE(requests); i++) {
		struct xalloc_placement *pl = placement_from(test, free, ARRAY_SIZE(free), ~0u, 0);

		KUNIT_EXPECT_EQ(test, take_request(test, pl, &requests[i]), 31 * PER_SEGMENT + 4);
		KUNIT_EXPECT_EQ(test, take_request(test, pl, &requests[i]), NONE);
		placement_exit(test);
	}
}

static const struct fit_row frugal_fits[] = {
	{ "a larger hole with memory goes before a bare segment",
	  { ALL_FREE, 0xffff, 0, 0 }, 0x2, 8, true, 32 },
	{ "a run straddles two segments with memory before it takes a bare one",
	  { ALL_FREE, 0xff000000, 0x00ffffff, 0 }, 0x6, 32, false, 56 },
	{ "a contiguous run takes the bare segment all the same",
	  { ALL_FREE, 0xff000000, 0x00ffffff, 0 }, 0x6, 32, true, 0 },
	{ "of two runs the one over fewer bare segments is taken, though higher",
	  { ALL_FREE, 0x1, 0xffff0000, 0x1ffff }, 0x8, 33, false, 80 },
	{ "of two equal runs the lower one is taken",
	  { 0xff, 0xff, ALL_FREE, 0 }, 0x3, 8, false, 0 },
	{ "a long run begins past a bare segment where it can",
	  { ALL_FREE, ALL_FREE, ALL_FREE, ALL_FREE }, 0x6, 64, false, 32 },
	{ "a long run takes as little of a bare segment as it can",
	  { ALL_FREE, ALL_FREE, ALL_FREE, ALL_FREE }, 0x6, 96, false, 0 },
	{ "a long aligned run begins past a bare segment",
	  { ALL_FREE, ALL_FREE, ALL_FREE, ALL_FREE }, 0xc, 40, false, 64, 0, 64 },
	{ "pieces are memory",
	  { ALL_FREE, 0xffff, 0, 0 }, 0x0, 8, false, 32, 0x2 },
	{ "pieces are not contiguous here either",
	  { ALL_FREE, 0xffff, 0, 0 }, 0x0, 8, true, 0, 0x2 },
	{ "what is nowhere free is not had",
	  { 0xffff, 0xffff, 0xffff, 0xffff }, 0xf, 17, false, NONE },
	{ "no more than 32 slices are contiguous here either",
	  { ALL_FREE, ALL_FREE, ALL_FREE, ALL_FREE }, 0xf, 33, true, NONE },
};

XALLOC_KUNIT_ROWS(frugal_fits, fit_row);

static void takes_the_least_new_memory(struct kunit *test)
{
	const struct fit_row *row = test->param_value;
	struct xalloc_placement *pl = placement_from(test, row->free, ARRAY_SIZE(row->free),
						     row->backed, row->pieces);
	const struct xalloc_placement_request request = {
		row->nr_slices, row->align, row->contig,
	};
	u32 nr_free = pl->nr_free_slices, slice = NONE;

	KUNIT_EXPECT_EQ(test, xalloc_placement_take_frugal(pl, &request, &slice),
			row->slice == NONE ? -ENOSPC : 0);
	KUNIT_EXPECT_EQ(test, slice, row->slice);
	KUNIT_EXPECT_EQ(test, pl->nr_free_slices,
			row->slice == NONE ? nr_free : nr_free - row->nr_slices);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
}

struct fill_row {
	const char *desc;
	u32 nr_slices;
	u32 nr_pages;	/* that fit 4096 slices */
};

static const struct fill_row fills[] = {
	{ "4096 pages of 1 slice", 1, 4096 },
	{ "2048 pages of 2 slices", 2, 2048 },
	{ "pages of 3 slices leave 2 slices of each segment", 3, 1280 },
	{ "pages of 17 slices leave 15 slices of each segment", 17, 128 },
	{ "pages of 31 slices leave 1 slice of each segment", 31, 128 },
	{ "128 pages of 32 slices", 32, 128 },
	{ "pages of 33 slices lie end to end", 33, 124 },
	{ "pages of 48 slices lie end to end", 48, 85 },
	{ "one page takes the whole arena", 4096, 1 },
};

XALLOC_KUNIT_ROWS(fills, fill_row);

static void fills_to_the_last_slice(struct kunit *test)
{
	const struct fill_row *row = test->param_value;
	const u32 nr_segments = 128, total = 4096;
	struct xalloc_placement *pl = placement_create(test, nr_segments);
	u8 *taken = kunit_kzalloc(test, total, GFP_KERNEL);
	u32 *starts = kunit_kzalloc(test, total * sizeof(*starts), GFP_KERNEL);
	u32 nr_pages = 0, nr_taken = 0, slice, i;

	KUNIT_ASSERT_NOT_NULL(test, taken);
	KUNIT_ASSERT_NOT_NULL(test, starts);
	while ((slice = take(test, pl, row->nr_slices, false)) != NONE) {
		KUNIT_ASSERT_LE(test, slice + row->nr_slices, total);
		for (i = 0; i < row->nr_slices; i++)
			KUNIT_ASSERT_EQ(test, taken[slice + i]++, 0);
		starts[nr_pages++] = slice;
		nr_taken += row->nr_slices;
	}
	KUNIT_EXPECT_EQ(test, nr_pages, row->nr_pages);
	KUNIT_EXPECT_EQ(test, pl->nr_free_slices, total - nr_taken);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));

	/* What is left is had in single slices, to the last. */
	while ((slice = take(test, pl, 1, true)) != NONE) {
		KUNIT_ASSERT_LT(test, slice, total);
		KUNIT_ASSERT_EQ(test, taken[slice]++, 0);
		nr_taken++;
	}
	KUNIT_EXPECT_EQ(test, nr_taken, total);
	KUNIT_EXPECT_EQ(test, pl->nr_free_slices, 0);
	KUNIT_EXPECT_EQ(test, pl->queues, 0);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));

	/* Every third page first, so that most have taken neighbours. */
	for (i = 0; i < nr_pages; i++) {
		u32 n = (u64)i * 3 % nr_pages;

		if (nr_pages % 3 == 0)
			n = i;
		KUNIT_ASSERT_EQ(test, give(pl, starts[n], row->nr_slices), 0);
		for (slice = starts[n]; slice < starts[n] + row->nr_slices; slice++)
			taken[slice] = 0;
	}
	for (slice = 0; slice < total; slice++)
		if (taken[slice])
			KUNIT_ASSERT_EQ(test, give(pl, slice, 1), 0);
	KUNIT_EXPECT_EQ(test, pl->nr_free_slices, total);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
	KUNIT_EXPECT_EQ(test, take(test, pl, total, false), 0);
}

static void long_run_leaves_the_rest_of_its_last_segment(struct kunit *test)
{
	struct xalloc_placement *pl = placement_create(test, 2);

	KUNIT_EXPECT_EQ(test, take(test, pl, 48, false), 0);
	KUNIT_EXPECT_EQ(test, queue_of(pl, 1), 16);
	KUNIT_EXPECT_EQ(test, take(test, pl, 16, true), 48);
	KUNIT_EXPECT_EQ(test, pl->nr_free_slices, 0);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
}

/*
 * mimalloc#870: a segment that goes back on a queue after a free was assumed to be owned
 * by one large page. Here it holds small, medium and large ones at a time, and its queue
 * is that of its longest free run at every step.
 */
static void mixed_kinds_share_a_segment(struct kunit *test)
{
	static const struct {
		const char *desc;
		bool take;
		u32 slice;
		u32 nr_slices;
		u32 queue;	/* of segment 0, after it */
	} steps[] = {
		{ "small page in an empty segment", true, 0, 1, 31 },
		{ "medium page beside it", true, 1, 8, 23 },
		{ "large page beside both", true, 9, 20, 3 },
		{ "small page in what is left", true, 29, 2, 1 },
		{ "last slice", true, 31, 1, XALLOC_QUEUE_NONE },
		{ "free a medium page between two others", false, 1, 8, 8 },
		{ "small page takes a part of the hole", true, 1, 1, 7 },
		{ "free the large page: the holes become one", false, 9, 20, 27 },
		{ "medium page in the common hole", true, 2, 8, 19 },
		{ "free the first page: the longest run stays", false, 0, 1, 19 },
		{ "the tightest hole of the segment is its lowest", true, 0, 1, 19 },
		{ "large page takes what is left", true, 10, 19, XALLOC_QUEUE_NONE },
		{ "free a small page at the end", false, 29, 2, 2 },
		{ "free the large page before it: they become one", false, 10, 19, 21 },
		{ "free the last slice: they become one", false, 31, 1, 22 },
		{ "free the first", false, 0, 1, 22 },
		{ "free the medium page", false, 2, 8, 30 },
		{ "free the last page: the segment is whole", false, 1, 1, XALLOC_QUEUE_WHOLE },
		{ "a page as large as the segment", true, 0, 32, XALLOC_QUEUE_NONE },
		{ "free it", false, 0, 32, XALLOC_QUEUE_WHOLE },
	};
	struct xalloc_placement *pl = placement_create(test, 2);
	u32 slice, i;

	KUNIT_ASSERT_EQ(test, xalloc_placement_set_backing(pl, 0, XALLOC_BACKING_HUGE), 0);
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		if (steps[i].take)
			KUNIT_EXPECT_EQ_MSG(test,
					    take(test, pl, steps[i].nr_slices, true),
					    steps[i].slice, "%s", steps[i].desc);
		else
			KUNIT_EXPECT_EQ_MSG(test, give(pl, steps[i].slice, steps[i].nr_slices),
					    0, "%s", steps[i].desc);
		KUNIT_EXPECT_EQ_MSG(test, queue_of(pl, 0), steps[i].queue, "%s",
				    steps[i].desc);
		KUNIT_EXPECT_TRUE_MSG(test, xalloc_placement_is_valid(pl), "%s", steps[i].desc);
		KUNIT_EXPECT_EQ_MSG(test, queue_of(pl, 1), XALLOC_QUEUE_NONE, "%s",
				    steps[i].desc);
		/* It is never taken as a whole one while it is not, whatever its queue. */
		slice = take(test, pl, PER_SEGMENT, false);
		KUNIT_EXPECT_EQ_MSG(test, slice,
				    steps[i].queue == XALLOC_QUEUE_WHOLE ? 0 : PER_SEGMENT,
				    "%s", steps[i].desc);
		KUNIT_ASSERT_EQ(test, give(pl, slice, PER_SEGMENT), 0);
	}
}

struct place_row {
	const char *desc;
	u32 slice;
};

static const struct place_row places[] = {
	{ "neighbours at the start of the arena", 0 },
	{ "neighbours inside a segment", 11 },
	{ "neighbours that end where a segment ends", 23 },
	{ "neighbours with the boundary of segments in the first", 31 },
	{ "neighbours with the boundary of segments between two", 30 },
	{ "neighbours with the boundary of segments in the last", 26 },
	{ "neighbours that begin where a segment begins", 32 },
	{ "neighbours across the middle of the tree", 60 },
	{ "neighbours at the end of the arena", 87 },
};

XALLOC_KUNIT_ROWS(places, place_row);

/* Three runs of 2, 3 and 4 slices side by side, given in every order. */
static void freed_neighbours_coalesce(struct kunit *test)
{
	static const u8 orders[][3] = {
		{ 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 },
	};
	static const u32 at[] = { 0, 2, 5 }, nr[] = { 2, 3, 4 };
	const struct place_row *row = test->param_value;
	u32 o, i;

	for (o = 0; o < ARRAY_SIZE(orders); o++) {
		struct xalloc_placement *pl = placement_create(test, 3);

		KUNIT_ASSERT_EQ(test, take(test, pl, 96, false), 0);
		for (i = 0; i < 3; i++) {
			u32 n = orders[o][i];

			KUNIT_EXPECT_EQ(test, take(test, pl, 9, false), NONE);
			KUNIT_EXPECT_EQ(test, give(pl, row->slice + at[n], nr[n]), 0);
			KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
		}
		KUNIT_EXPECT_EQ(test, take(test, pl, 9, false), row->slice);
		KUNIT_EXPECT_EQ(test, pl->nr_free_slices, 0);
		KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
		placement_exit(test);
	}
}

/* Three segments: 0 is taken, 1 is free from its slice 8 to 15, 2 is taken. */
struct give_row {
	const char *desc;
	u32 slice;
	u32 nr_slices;
};

static const struct give_row bad_gives[] = {
	{ "a slice that is free", 40, 1 },
	{ "a run that begins free", 47, 2 },
	{ "a run that ends free", 39, 2 },
	{ "a run with a free slice inside", 32, 32 },
	{ "a run over segments whose last is partly free", 0, 64 },
	{ "a run over segments whose first is partly free", 32, 64 },
	{ "the whole arena while a part is free", 0, 96 },
	{ "no slice", 0, 0 },
	{ "no slice at the end", 96, 0 },
	{ "a slice past the end", 96, 1 },
	{ "a run that goes past the end", 95, 2 },
	{ "a run that is longer than the arena", 0, 97 },
	{ "a run from the last number there is", NONE, 1 },
	{ "a run whose end does not fit 32 bits", NONE, 2 },
	{ "a run whose end is zero in 32 bits", 2, NONE - 1 },
	{ "the longest run there is", 0, NONE },
};

XALLOC_KUNIT_ROWS(bad_gives, give_row);

static void bad_give_is_refused_and_changes_nothing(struct kunit *test)
{
	static const u32 free[] = { 0, 0x0000ff00, 0 };
	const struct give_row *row = test->param_value;
	struct xalloc_placement *pl = placement_from(test, free, ARRAY_SIZE(free), 0x7, 0);
	struct xalloc_placement before = *pl;
	struct xalloc_placement_segment segments[3];
	u32 s;

	for (s = 0; s < 3; s++)
		memcpy(&segments[s], xalloc_placement_segment(pl, s), sizeof(segments[s]));
	KUNIT_EXPECT_EQ(test, give(pl, row->slice, row->nr_slices), -EUCLEAN);
	for (s = 0; s < 3; s++)
		KUNIT_EXPECT_EQ(test, memcmp(&segments[s], xalloc_placement_segment(pl, s),
					     sizeof(segments[s])), 0);
	KUNIT_EXPECT_EQ(test, memcmp(&before, pl, sizeof(before)), 0);
}

/* What is not free is a contradiction: the caller's records say that it is. */
static void given_run_is_taken_where_it_is_free(struct kunit *test)
{
	struct xalloc_placement *pl = placement_create(test, 4);
	u32 slice;

	KUNIT_EXPECT_EQ(test, xalloc_placement_take_at(pl, 40, 50), 0);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
	KUNIT_EXPECT_EQ(test, pl->nr_free_slices, 78);
	KUNIT_EXPECT_EQ(test, xalloc_placement_take_at(pl, 0, 40), 0);
	KUNIT_EXPECT_EQ(test, xalloc_placement_take_at(pl, 90, 38), 0);
	KUNIT_EXPECT_EQ(test, pl->nr_free_slices, 0);
	KUNIT_EXPECT_EQ(test, xalloc_placement_give(pl, 0, 128), 0);
	KUNIT_EXPECT_EQ(test, xalloc_placement_take_at(pl, 31, 1), 0);
	KUNIT_EXPECT_EQ(test, xalloc_placement_take_at(pl, 0, 32), -EUCLEAN);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
	for (slice = 32; slice < 128; slice++)
		KUNIT_EXPECT_EQ(test, xalloc_placement_take_at(pl, slice, 1), 0);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
}

static void same_run_is_given_once(struct kunit *test)
{
	struct xalloc_placement *pl = placement_create(test, 3);

	KUNIT_EXPECT_EQ(test, take(test, pl, 40, false), 0);
	KUNIT_EXPECT_EQ(test, give(pl, 0, 40), 0);
	KUNIT_EXPECT_EQ(test, give(pl, 0, 40), -EUCLEAN);
	KUNIT_EXPECT_EQ(test, give(pl, 39, 1), -EUCLEAN);
	KUNIT_EXPECT_EQ(test, pl->nr_free_slices, 96);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
}

/* Every run of three segments as the only free one: it is found, and no longer one is. */
static void every_run_is_found(struct kunit *test)
{
	const u32 total = 3 * PER_SEGMENT;
	struct xalloc_placement *pl = placement_create(test, 3);
	u32 slice, nr, n;

	KUNIT_ASSERT_EQ(test, take(test, pl, total, false), 0);
	for (slice = 0; slice < total; slice++) {
		for (nr = 1; slice + nr <= total; nr++) {
			u32 pieces[] = {
				hweight32(xalloc_placement_mask(0, slice, nr)),
				hweight32(xalloc_placement_mask(1, slice, nr)),
				hweight32(xalloc_placement_mask(2, slice, nr)),
			};
			u32 piece = max3(pieces[0], pieces[1], pieces[2]);

			KUNIT_ASSERT_EQ(test, give(pl, slice, nr), 0);
			KUNIT_ASSERT_TRUE(test, xalloc_placement_is_valid(pl));
			KUNIT_ASSERT_EQ(test, pieces[0] + pieces[1] + pieces[2], nr);
			KUNIT_ASSERT_EQ(test, take(test, pl, nr + 1, false), NONE);
			KUNIT_ASSERT_EQ(test, take(test, pl, piece + 1, true), NONE);
			n = take(test, pl, piece, true);
			KUNIT_ASSERT_NE(test, n, NONE);
			KUNIT_ASSERT_EQ(test, n / PER_SEGMENT, (n + piece - 1) / PER_SEGMENT);
			KUNIT_ASSERT_EQ(test, give(pl, n, piece), 0);
			KUNIT_ASSERT_EQ(test, take(test, pl, nr, false), slice);
			KUNIT_ASSERT_TRUE(test, xalloc_placement_is_valid(pl));
		}
		cond_resched();
	}
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(begins_free, sizes_gen_params),
	KUNIT_CASE_PARAM(takes_bare_segments_from_the_low_end, sizes_gen_params),
	KUNIT_CASE_PARAM(sizes_around_segments, sizes_gen_params),
	KUNIT_CASE_PARAM(takes_the_tightest_fit, fits_gen_params),
	KUNIT_CASE(aligned_run_is_found_in_the_last_segment),
	KUNIT_CASE_PARAM(takes_the_least_new_memory, frugal_fits_gen_params),
	KUNIT_CASE_PARAM(fills_to_the_last_slice, fills_gen_params),
	KUNIT_CASE(long_run_leaves_the_rest_of_its_last_segment),
	KUNIT_CASE(mixed_kinds_share_a_segment),
	KUNIT_CASE_PARAM(freed_neighbours_coalesce, places_gen_params),
	KUNIT_CASE_PARAM(bad_give_is_refused_and_changes_nothing, bad_gives_gen_params),
	KUNIT_CASE(given_run_is_taken_where_it_is_free),
	KUNIT_CASE(same_run_is_given_once),
	KUNIT_CASE(every_run_is_found),
	{}
};

struct kunit_suite xalloc_placement_suite = {
	.name = "xalloc_placement",
	.exit = placement_exit,
	.test_cases = cases,
};
