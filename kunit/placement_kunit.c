// SPDX-License-Identifier: GPL-2.0-only
/*
 * Placement: what it promises, row by row, and against a plain model.
 *
 * The model has one byte a slice and searches from the start. It says which answers of
 * xalloc_placement_take() are right; xalloc_placement_is_valid() says that queues, tree
 * and counts agree; both are asked after every step where that is affordable.
 */
#include <linux/bitops.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "helpers.h"

#define PER_SEGMENT XALLOC_SLICES_PER_SEGMENT
#define NONE XALLOC_PLACEMENT_NONE
#define ALL_FREE (~0u)

/* The table has the exact size, so that KASAN sees a step past it. */
static struct xalloc_placement *placement_create(struct kunit *test, u32 nr_segments)
{
	struct xalloc_placement *pl = kunit_kzalloc(test, sizeof(*pl), GFP_KERNEL);
	void *table = kunit_kzalloc(test, xalloc_placement_table_bytes(nr_segments), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, pl);
	KUNIT_ASSERT_NOT_NULL(test, table);
	xalloc_placement_init(pl, nr_segments, table);
	return pl;
}

static void placement_destroy(struct kunit *test, struct xalloc_placement *pl)
{
	kunit_kfree(test, pl->segment);
	kunit_kfree(test, pl);
}

/* Bit n of @free[s]: slice n of segment s is free; bit s of @backed: it has memory. */
static struct xalloc_placement *placement_from(struct kunit *test, const u32 *free,
					       u32 nr_segments, u32 backed)
{
	struct xalloc_placement *pl = placement_create(test, nr_segments);
	u32 s, n;

	KUNIT_ASSERT_EQ(test, xalloc_placement_take(pl, nr_segments * PER_SEGMENT, false), 0);
	for (s = 0; s < nr_segments; s++) {
		xalloc_placement_set_backed(pl, s, backed & BIT(s));
		for (n = 0; n < PER_SEGMENT; n++)
			if (free[s] & BIT(n))
				KUNIT_ASSERT_TRUE(test,
						  xalloc_placement_give(pl, s * PER_SEGMENT + n,
									1));
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
	KUNIT_EXPECT_EQ(test, pl->queues, BIT_ULL(XALLOC_QUEUE_BARE));
	for (s = 0; s < row->nr_segments; s++) {
		KUNIT_ASSERT_TRUE(test, xalloc_placement_is_whole(pl, s));
		KUNIT_ASSERT_EQ(test, pl->segment[s].queue, XALLOC_QUEUE_BARE);
	}
}

static void takes_bare_segments_from_the_low_end(struct kunit *test)
{
	const struct size_row *row = test->param_value;
	struct xalloc_placement *pl = placement_create(test, row->nr_segments);
	u32 s;

	for (s = 0; s < row->nr_segments; s++)
		KUNIT_ASSERT_EQ(test, xalloc_placement_take(pl, PER_SEGMENT, true),
				s * PER_SEGMENT);
	KUNIT_EXPECT_EQ(test, xalloc_placement_take(pl, PER_SEGMENT, true), NONE);
}

static void take_and_give(struct kunit *test, struct xalloc_placement *pl, u32 nr, bool contig,
			  bool there)
{
	u32 total = pl->nr_segments * PER_SEGMENT;
	u32 slice = xalloc_placement_take(pl, nr, contig);

	KUNIT_ASSERT_EQ(test, slice != NONE, there);
	KUNIT_ASSERT_TRUE(test, xalloc_placement_is_valid(pl));
	if (there) {
		KUNIT_ASSERT_LE(test, (u64)slice + nr, total);
		KUNIT_ASSERT_EQ(test, slice % PER_SEGMENT, 0);
		KUNIT_ASSERT_EQ(test, pl->nr_free_slices, total - nr);
		KUNIT_ASSERT_TRUE(test, xalloc_placement_give(pl, slice, nr));
		KUNIT_ASSERT_TRUE(test, xalloc_placement_is_valid(pl));
	}
	KUNIT_ASSERT_EQ(test, pl->nr_free_slices, total);
}

static void sizes_around_segments(struct kunit *test)
{
	const struct size_row *row = test->param_value;
	struct xalloc_placement *pl = placement_create(test, row->nr_segments);
	u32 total = row->nr_segments * PER_SEGMENT, k, nr;

	for (k = 0; k <= row->nr_segments; k++) {
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
};

XALLOC_KUNIT_ROWS(fits, fit_row);

static void takes_the_tightest_fit(struct kunit *test)
{
	const struct fit_row *row = test->param_value;
	struct xalloc_placement *pl = placement_from(test, row->free, ARRAY_SIZE(row->free),
						     row->backed);
	u32 nr_free = pl->nr_free_slices;

	KUNIT_EXPECT_EQ(test, xalloc_placement_take(pl, row->nr_slices, row->contig),
			row->slice);
	KUNIT_EXPECT_EQ(test, pl->nr_free_slices,
			row->slice == NONE ? nr_free : nr_free - row->nr_slices);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
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
						     row->backed);
	u32 nr_free = pl->nr_free_slices;

	KUNIT_EXPECT_EQ(test, xalloc_placement_take_frugal(pl, row->nr_slices, row->contig),
			row->slice);
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
	while ((slice = xalloc_placement_take(pl, row->nr_slices, false)) != NONE) {
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
	while ((slice = xalloc_placement_take(pl, 1, true)) != NONE) {
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
		KUNIT_ASSERT_TRUE(test, xalloc_placement_give(pl, starts[n], row->nr_slices));
		for (slice = starts[n]; slice < starts[n] + row->nr_slices; slice++)
			taken[slice] = 0;
	}
	for (slice = 0; slice < total; slice++)
		if (taken[slice])
			KUNIT_ASSERT_TRUE(test, xalloc_placement_give(pl, slice, 1));
	KUNIT_EXPECT_EQ(test, pl->nr_free_slices, total);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
	KUNIT_EXPECT_EQ(test, xalloc_placement_take(pl, total, false), 0);
}

static void long_run_leaves_the_rest_of_its_last_segment(struct kunit *test)
{
	struct xalloc_placement *pl = placement_create(test, 2);

	KUNIT_EXPECT_EQ(test, xalloc_placement_take(pl, 48, false), 0);
	KUNIT_EXPECT_EQ(test, pl->segment[1].queue, 16);
	KUNIT_EXPECT_EQ(test, xalloc_placement_take(pl, 16, true), 48);
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
	u32 i;

	xalloc_placement_set_backed(pl, 0, true);
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		if (steps[i].take)
			KUNIT_EXPECT_EQ_MSG(test,
					    xalloc_placement_take(pl, steps[i].nr_slices, true),
					    steps[i].slice, "%s", steps[i].desc);
		else
			KUNIT_EXPECT_TRUE_MSG(test,
					      xalloc_placement_give(pl, steps[i].slice,
								    steps[i].nr_slices),
					      "%s", steps[i].desc);
		KUNIT_EXPECT_EQ_MSG(test, pl->segment[0].queue, steps[i].queue, "%s",
				    steps[i].desc);
		KUNIT_EXPECT_TRUE_MSG(test, xalloc_placement_is_valid(pl), "%s", steps[i].desc);
		KUNIT_EXPECT_EQ_MSG(test, pl->segment[1].queue, XALLOC_QUEUE_BARE, "%s",
				    steps[i].desc);
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

		KUNIT_ASSERT_EQ(test, xalloc_placement_take(pl, 96, false), 0);
		for (i = 0; i < 3; i++) {
			KUNIT_EXPECT_EQ(test, xalloc_placement_take(pl, 9, false), NONE);
			KUNIT_EXPECT_TRUE(test,
					  xalloc_placement_give(pl, row->slice + at[orders[o][i]],
								nr[orders[o][i]]));
			KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
		}
		KUNIT_EXPECT_EQ(test, xalloc_placement_take(pl, 9, false), row->slice);
		KUNIT_EXPECT_EQ(test, pl->nr_free_slices, 0);
		KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
		placement_destroy(test, pl);
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
	struct xalloc_placement *pl = placement_from(test, free, ARRAY_SIZE(free), 0x7);
	struct xalloc_placement before = *pl;
	size_t table_bytes = xalloc_placement_table_bytes(3);
	void *table = kunit_kzalloc(test, table_bytes, GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, table);
	memcpy(table, pl->segment, table_bytes);
	KUNIT_EXPECT_FALSE(test, xalloc_placement_give(pl, row->slice, row->nr_slices));
	KUNIT_EXPECT_EQ(test, memcmp(table, pl->segment, table_bytes), 0);
	KUNIT_EXPECT_EQ(test, memcmp(&before, pl, sizeof(before)), 0);
}

static void same_run_is_given_once(struct kunit *test)
{
	struct xalloc_placement *pl = placement_create(test, 3);

	KUNIT_EXPECT_EQ(test, xalloc_placement_take(pl, 40, false), 0);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_give(pl, 0, 40));
	KUNIT_EXPECT_FALSE(test, xalloc_placement_give(pl, 0, 40));
	KUNIT_EXPECT_FALSE(test, xalloc_placement_give(pl, 39, 1));
	KUNIT_EXPECT_EQ(test, pl->nr_free_slices, 96);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
}

/* Every run of three segments as the only free one: it is found, and no longer one is. */
static void every_run_is_found(struct kunit *test)
{
	const u32 total = 3 * PER_SEGMENT;
	struct xalloc_placement *pl = placement_create(test, 3);
	u32 slice, nr, n;

	KUNIT_ASSERT_EQ(test, xalloc_placement_take(pl, total, false), 0);
	for (slice = 0; slice < total; slice++) {
		for (nr = 1; slice + nr <= total; nr++) {
			u32 pieces[] = {
				hweight32(xalloc_placement_mask(0, slice, nr)),
				hweight32(xalloc_placement_mask(1, slice, nr)),
				hweight32(xalloc_placement_mask(2, slice, nr)),
			};
			u32 piece = max3(pieces[0], pieces[1], pieces[2]);

			KUNIT_ASSERT_TRUE(test, xalloc_placement_give(pl, slice, nr));
			KUNIT_ASSERT_TRUE(test, xalloc_placement_is_valid(pl));
			KUNIT_ASSERT_EQ(test, pieces[0] + pieces[1] + pieces[2], nr);
			KUNIT_ASSERT_EQ(test, xalloc_placement_take(pl, nr + 1, false), NONE);
			KUNIT_ASSERT_EQ(test, xalloc_placement_take(pl, piece + 1, true), NONE);
			n = xalloc_placement_take(pl, piece, true);
			KUNIT_ASSERT_NE(test, n, NONE);
			KUNIT_ASSERT_EQ(test, n / PER_SEGMENT, (n + piece - 1) / PER_SEGMENT);
			KUNIT_ASSERT_TRUE(test, xalloc_placement_give(pl, n, piece));
			KUNIT_ASSERT_EQ(test, xalloc_placement_take(pl, nr, false), slice);
			KUNIT_ASSERT_TRUE(test, xalloc_placement_is_valid(pl));
		}
		cond_resched();
	}
}

static void table_is_small(struct kunit *test)
{
	static const u32 nr[] = { 1, 2, 3, 5, 33, 512, 513, 524287, 524288,
				  XALLOC_PLACEMENT_SEGMENTS_MAX };
	u32 i;

	for (i = 0; i < ARRAY_SIZE(nr); i++)
		KUNIT_EXPECT_LE_MSG(test, (u64)xalloc_placement_table_bytes(nr[i]),
				    nr[i] * (u64)XALLOC_SEGMENT_BYTES / 500,
				    "more than 0.2 %% of %u segments", nr[i]);
}

static bool big_works(struct xalloc_placement *pl, u32 nr_segments)
{
	u32 total = nr_segments * PER_SEGMENT, one;

	if (!xalloc_placement_is_valid(pl) || pl->nr_free_slices != total)
		return false;
	if (xalloc_placement_take(pl, total, false) != 0 || pl->queues ||
	    !xalloc_placement_is_valid(pl) || xalloc_placement_take(pl, 1, false) != NONE)
		return false;
	/* The last two segments but their last slice, and one slice far away. */
	if (!xalloc_placement_give(pl, total - 64, 63) || !xalloc_placement_give(pl, 12345, 1))
		return false;
	one = xalloc_placement_take(pl, 1, true);
	if (one != 12345 || xalloc_placement_take(pl, 63, false) != total - 64)
		return false;
	return xalloc_placement_give(pl, 0, total) && xalloc_placement_is_valid(pl);
}

static void a_terabyte_is_placed(struct kunit *test)
{
	const u32 nr_segments = 524288;
	struct xalloc_placement pl;
	void *table = vzalloc(xalloc_placement_table_bytes(nr_segments));

	KUNIT_ASSERT_NOT_NULL(test, table);
	xalloc_placement_init(&pl, nr_segments, table);
	KUNIT_EXPECT_TRUE(test, big_works(&pl, nr_segments));
	vfree(table);
}

struct model {
	u32 nr_segments;
	u32 nr_free_slices;
	u8 *taken;	/* by slice */
	u8 *backed;	/* by segment */
};

static u32 model_lowest(const struct model *m, u32 from, u32 end, u32 nr)
{
	u32 slice, have = 0;

	for (slice = from; slice < end; slice++) {
		have = m->taken[slice] ? 0 : have + 1;
		if (have == nr)
			return slice + 1 - nr;
	}
	return NONE;
}

/* The queue that segment @s belongs on. */
static u32 model_queue(const struct model *m, u32 s)
{
	u32 slice, have = 0, longest = 0;

	for (slice = s * PER_SEGMENT; slice < (s + 1) * PER_SEGMENT; slice++) {
		have = m->taken[slice] ? 0 : have + 1;
		longest = max(longest, have);
	}
	if (longest == PER_SEGMENT)
		return m->backed[s] ? XALLOC_QUEUE_WHOLE : XALLOC_QUEUE_BARE;
	return longest;
}

static u32 model_tightest_queue(const struct model *m, u32 nr)
{
	u32 s, queue, tightest = XALLOC_NR_QUEUES;

	for (s = 0; s < m->nr_segments; s++) {
		queue = model_queue(m, s);
		if (queue >= nr && queue < tightest)
			tightest = queue;
	}
	return tightest;
}

static void model_mark(struct model *m, u32 slice, u32 nr, u8 taken)
{
	memset(m->taken + slice, taken, nr);
	m->nr_free_slices += taken ? -nr : nr;
}

static u32 take_and_compare(struct kunit *test, struct xalloc_placement *pl, struct model *m,
			    u32 nr, bool contig)
{
	u32 queue = nr <= PER_SEGMENT ? model_tightest_queue(m, nr) : XALLOC_NR_QUEUES;
	u32 slice = xalloc_placement_take(pl, nr, contig);

	if (queue < XALLOC_NR_QUEUES) {
		u32 s = slice / PER_SEGMENT;

		KUNIT_ASSERT_LT(test, slice, m->nr_segments * PER_SEGMENT);
		KUNIT_ASSERT_EQ(test, model_queue(m, s), queue);
		KUNIT_ASSERT_EQ(test, slice, model_lowest(m, s * PER_SEGMENT,
							  (s + 1) * PER_SEGMENT, nr));
	} else if (contig) {
		KUNIT_ASSERT_EQ(test, slice, NONE);
	} else {
		KUNIT_ASSERT_EQ(test, slice, model_lowest(m, 0, m->nr_segments * PER_SEGMENT, nr));
	}
	if (slice != NONE)
		model_mark(m, slice, nr, 1);
	return slice;
}

/* The lowest of the runs that lie over the fewest segments without memory. */
static u32 model_frugal(const struct model *m, u32 nr, bool contig)
{
	u32 total = m->nr_segments * PER_SEGMENT, fewest = NONE, best = NONE, have = 0, end;

	for (end = 1; end <= total; end++) {
		u32 slice = end - nr, s, nr_bare = 0;

		have = m->taken[end - 1] ? 0 : have + 1;
		if (have < nr)
			continue;
		if (contig && slice / PER_SEGMENT != (end - 1) / PER_SEGMENT)
			continue;
		for (s = slice / PER_SEGMENT; s <= (end - 1) / PER_SEGMENT; s++)
			nr_bare += !m->backed[s];
		if (nr_bare < fewest) {
			fewest = nr_bare;
			best = slice;
		}
	}
	return best;
}

static u32 take_frugal_and_compare(struct kunit *test, struct xalloc_placement *pl,
				   struct model *m, u32 nr, bool contig)
{
	u32 slice = xalloc_placement_take_frugal(pl, nr, contig);

	KUNIT_ASSERT_EQ(test, slice, model_frugal(m, nr, contig));
	if (slice != NONE)
		model_mark(m, slice, nr, 1);
	return slice;
}

static void compare_all(struct kunit *test, const struct xalloc_placement *pl,
			const struct model *m)
{
	u32 slice;

	KUNIT_ASSERT_TRUE(test, xalloc_placement_is_valid(pl));
	KUNIT_ASSERT_EQ(test, pl->nr_free_slices, m->nr_free_slices);
	for (slice = 0; slice < m->nr_segments * PER_SEGMENT; slice++)
		if (!!(pl->segment[slice / PER_SEGMENT].free & BIT(slice % PER_SEGMENT)) ==
		    m->taken[slice])
			KUNIT_FAIL(test, "slice %u differs from the model", slice);
}

static u32 random_size(struct rnd_state *rnd, u32 nr_segments)
{
	u32 k;

	switch (xalloc_kunit_below(rnd, 10)) {
	case 0 ... 4:
		return 1 + xalloc_kunit_below(rnd, 4);
	case 5 ... 7:
		return 1 + xalloc_kunit_below(rnd, PER_SEGMENT);
	case 8:
		k = xalloc_kunit_below(rnd, min(nr_segments, 8u)) + 1;
		return k * PER_SEGMENT - 1 + xalloc_kunit_below(rnd, 3);
	default:
		return 1 + xalloc_kunit_below(rnd, nr_segments * PER_SEGMENT);
	}
}

struct run {
	u32 slice;
	u32 nr_slices;
};

/* All of a run, or its first or last part, as a caller that splits may do. */
static void give_some(struct kunit *test, struct xalloc_placement *pl, struct model *m,
		      struct rnd_state *rnd, struct run *runs, u32 *nr_runs)
{
	struct run *run = &runs[xalloc_kunit_below(rnd, *nr_runs)], part = *run;

	if (run->nr_slices > 1 && xalloc_kunit_below(rnd, 4) == 0) {
		part.nr_slices = 1 + xalloc_kunit_below(rnd, run->nr_slices - 1);
		run->nr_slices -= part.nr_slices;
		if (xalloc_kunit_below(rnd, 2))
			run->slice += part.nr_slices;
		else
			part.slice += run->nr_slices;
	} else {
		*run = runs[--*nr_runs];
	}
	KUNIT_ASSERT_TRUE(test, xalloc_placement_give(pl, part.slice, part.nr_slices));
	model_mark(m, part.slice, part.nr_slices, 0);
}

/* A random run, given if the model says that every slice of it is taken. */
static void give_blindly(struct kunit *test, struct xalloc_placement *pl,
			 const struct model *m, struct rnd_state *rnd)
{
	u32 total = m->nr_segments * PER_SEGMENT;
	u32 slice = xalloc_kunit_below(rnd, total + 2), nr = random_size(rnd, m->nr_segments), i;
	bool good = slice + nr <= total;

	for (i = 0; good && i < nr; i++)
		good = m->taken[slice + i];
	if (!good)
		KUNIT_ASSERT_FALSE(test, xalloc_placement_give(pl, slice, nr));
}

static void agrees_with_the_model(struct kunit *test)
{
	const struct size_row *row = test->param_value;
	const u32 total = row->nr_segments * PER_SEGMENT;
	struct xalloc_placement *pl = placement_create(test, row->nr_segments);
	struct model m = {
		.nr_segments = row->nr_segments,
		.nr_free_slices = total,
		.taken = kunit_kzalloc(test, total, GFP_KERNEL),
		.backed = kunit_kzalloc(test, row->nr_segments, GFP_KERNEL),
	};
	struct run *runs = kunit_kzalloc(test, total * sizeof(*runs), GFP_KERNEL);
	/* Where counting everything costs more than the step, it is done less often. */
	u32 every = DIV_ROUND_UP(row->nr_segments, 8);
	u32 steps = xalloc_kunit_steps(20000, 1000000) / (row->nr_segments > 64 ? 10 : 1);
	u32 i, s, slice, size, nr_runs = 0, percent = 70;
	struct rnd_state rnd;
	bool contig;

	KUNIT_ASSERT_NOT_NULL(test, m.taken);
	KUNIT_ASSERT_NOT_NULL(test, m.backed);
	KUNIT_ASSERT_NOT_NULL(test, runs);
	xalloc_kunit_seed(test, &rnd);
	for (i = 0; i < steps; i++) {
		/* Fill for a while, drain for a while, so that both ends are reached. */
		if (i % (4 * row->nr_segments + 64) == 0)
			percent = 25 + xalloc_kunit_below(&rnd, 60);
		if (xalloc_kunit_below(&rnd, 8) == 0) {
			s = xalloc_kunit_below(&rnd, row->nr_segments);
			m.backed[s] = !m.backed[s];
			xalloc_placement_set_backed(pl, s, m.backed[s]);
		} else if (xalloc_kunit_below(&rnd, 8) == 0) {
			give_blindly(test, pl, &m, &rnd);
		} else if (!nr_runs || xalloc_kunit_below(&rnd, 100) < percent) {
			size = random_size(&rnd, row->nr_segments);
			contig = xalloc_kunit_below(&rnd, 3) == 0;
			slice = xalloc_kunit_below(&rnd, 4) ?
				take_and_compare(test, pl, &m, size, contig) :
				take_frugal_and_compare(test, pl, &m, size, contig);
			if (slice != NONE)
				runs[nr_runs++] = (struct run){ slice, size };
		} else {
			give_some(test, pl, &m, &rnd, runs, &nr_runs);
		}
		if (i % every == 0)
			compare_all(test, pl, &m);
		cond_resched();
	}
	while (nr_runs)
		give_some(test, pl, &m, &rnd, runs, &nr_runs);
	compare_all(test, pl, &m);
	KUNIT_EXPECT_EQ(test, pl->nr_free_slices, total);
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(begins_free, sizes_gen_params),
	KUNIT_CASE_PARAM(takes_bare_segments_from_the_low_end, sizes_gen_params),
	KUNIT_CASE_PARAM(sizes_around_segments, sizes_gen_params),
	KUNIT_CASE_PARAM(takes_the_tightest_fit, fits_gen_params),
	KUNIT_CASE_PARAM(takes_the_least_new_memory, frugal_fits_gen_params),
	KUNIT_CASE_PARAM(fills_to_the_last_slice, fills_gen_params),
	KUNIT_CASE(long_run_leaves_the_rest_of_its_last_segment),
	KUNIT_CASE(mixed_kinds_share_a_segment),
	KUNIT_CASE_PARAM(freed_neighbours_coalesce, places_gen_params),
	KUNIT_CASE_PARAM(bad_give_is_refused_and_changes_nothing, bad_gives_gen_params),
	KUNIT_CASE(same_run_is_given_once),
	KUNIT_CASE(every_run_is_found),
	KUNIT_CASE(table_is_small),
	KUNIT_CASE(a_terabyte_is_placed),
	KUNIT_CASE_PARAM(agrees_with_the_model, sizes_gen_params),
	{}
};

struct kunit_suite xalloc_placement_suite = {
	.name = "xalloc_placement",
	.test_cases = cases,
};
