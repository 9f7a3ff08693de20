// SPDX-License-Identifier: GPL-2.0-only
/* Tables of placement: what they cost, that they go, and calls that can have none. */
#include <linux/bitops.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "helpers.h"

#define TERABYTE 524288u	/* in segments */

static int table_init(struct kunit *test)
{
	test->priv = kunit_kzalloc(test, sizeof(struct xalloc_placement), GFP_KERNEL);
	return test->priv ? 0 : -ENOMEM;
}

static void table_exit(struct kunit *test)
{
	struct xalloc_placement *pl = test->priv;

	if (pl)
		xalloc_placement_fini(pl);
}

struct cost_row {
	const char *desc;
	u32 nr_segments;
	u32 nr_committed;
	u32 stride;
};

static const struct cost_row costs[] = {
	{ "256 MiB, all committed", 128, 128, 1 },
	{ "1 TiB, the lowest GiB committed", TERABYTE, 512, 1 },
	{ "1 TiB, a GiB committed, as scattered as can be", TERABYTE, 512, TERABYTE / 512 },
	{ "1 TiB, a segment committed", TERABYTE, 1, 1 },
	{ "64 TiB, a GiB committed, as scattered as can be",
	  XALLOC_PLACEMENT_SEGMENTS_MAX, 512, XALLOC_PLACEMENT_SEGMENTS_MAX / 512 },
	{ "64 TiB, a segment committed", XALLOC_PLACEMENT_SEGMENTS_MAX, 1, 1 },
};

XALLOC_KUNIT_ROWS(costs, cost_row);

/* At most 0.2 % of what is committed; half of that, because kmalloc() rounds up to a bit less. */
static void tables_cost_little_and_go(struct kunit *test)
{
	const struct cost_row *row = test->param_value;
	struct xalloc_placement *pl = test->priv;
	u64 committed = (u64)row->nr_committed * XALLOC_SEGMENT_BYTES;
	u32 i;

	xalloc_placement_init(pl, row->nr_segments);
	for (i = 0; i < row->nr_committed; i++)
		KUNIT_ASSERT_EQ(test, xalloc_placement_set_backing(pl, i * row->stride,
								   XALLOC_BACKING_HUGE), 0);
	kunit_info(test, "%zu bytes for %llu", xalloc_placement_table_bytes(pl), committed);
	KUNIT_EXPECT_GT(test, xalloc_placement_table_bytes(pl), 0);
	KUNIT_EXPECT_LE(test, xalloc_placement_table_bytes(pl) * 1000, committed);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
	for (i = 0; i < row->nr_committed; i++)
		KUNIT_ASSERT_EQ(test, xalloc_placement_set_backing(pl, i * row->stride,
								   XALLOC_BACKING_BARE), 0);
	KUNIT_EXPECT_EQ(test, xalloc_placement_table_bytes(pl), 0);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
}

static void far_ends_are_reached(struct kunit *test)
{
	static const struct xalloc_placement_request requests[] = {
		{ .nr_slices = 1, .align_slices = TERABYTE * 16 },
		{ .nr_slices = 4096 },
		{ .nr_slices = 33, .align_slices = TERABYTE * 16 },
		{ .nr_slices = TERABYTE * 16 - 4097, .align_slices = TERABYTE * 16 },
	};
	static const u32 slices[] = { 0, 1, TERABYTE * 16 };
	struct xalloc_placement *pl = test->priv;
	u32 slice, i;

	xalloc_placement_init(pl, TERABYTE);
	for (i = 0; i < ARRAY_SIZE(slices); i++) {
		KUNIT_ASSERT_EQ(test, xalloc_placement_take(pl, &requests[i], &slice), 0);
		KUNIT_EXPECT_EQ(test, slice, slices[i]);
	}
	/* Both places that are aligned so are taken. */
	KUNIT_EXPECT_EQ(test, xalloc_placement_take(pl, &requests[3], &slice), -ENOSPC);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
	KUNIT_EXPECT_EQ(test, xalloc_placement_find_bare(pl), 4097 / 32 + 1);
	KUNIT_EXPECT_EQ(test, xalloc_placement_next_record(pl, 4097 / 32 + 1), TERABYTE / 2);
	for (i = 0; i < ARRAY_SIZE(slices); i++)
		KUNIT_EXPECT_EQ(test, xalloc_placement_give(pl, slices[i], requests[i].nr_slices),
				0);
	KUNIT_EXPECT_EQ(test, xalloc_placement_table_bytes(pl), 0);
	/* The last segment: the others have memory, so none of them is bare. */
	KUNIT_EXPECT_EQ(test, xalloc_placement_set_backing(pl, TERABYTE - 1, XALLOC_BACKING_HUGE),
			0);
	KUNIT_EXPECT_EQ(test, xalloc_placement_take(pl, &(struct xalloc_placement_request){
			.nr_slices = 1 }, &slice), 0);
	KUNIT_EXPECT_EQ(test, slice, (TERABYTE - 1) * 32);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
}

static int take_across(struct xalloc_placement *pl)
{
	const struct xalloc_placement_request request = {
		.nr_slices = 70,
		.align_slices = TERABYTE,
	};
	u32 slice;

	return xalloc_placement_take(pl, &request, &slice);
}

static int take_frugally(struct xalloc_placement *pl)
{
	const struct xalloc_placement_request request = {
		.nr_slices = 32,
		.align_slices = TERABYTE,
	};
	u32 slice;

	return xalloc_placement_take_frugal(pl, &request, &slice);
}

static int back_the_last(struct xalloc_placement *pl)
{
	return xalloc_placement_set_backing(pl, pl->nr_segments - 1, XALLOC_BACKING_PIECES);
}

static int give_fence_and_unback(struct xalloc_placement *pl)
{
	int err = xalloc_placement_give(pl, 7, 120);

	xalloc_placement_fence(pl, 2);
	return err ?: xalloc_placement_set_backing(pl, 3, XALLOC_BACKING_BARE);
}

struct memory_row {
	const char *desc;
	int (*call)(struct xalloc_placement *pl);
	/*
	 * That must be met at the least. Their number is not fixed, because kmemleak and SLUB
	 * allocate along; the fuzzer of user space lets each table fail in its turn.
	 */
	u32 nr_failures;
};

static const struct memory_row memories[] = {
	{ "a run over three segments", take_across, 5 },
	{ "a frugal run", take_frugally, 5 },
	{ "memory for a bare segment", back_the_last, 5 },
	{ "giving, fencing and taking memory away need no table", give_fence_and_unback, 0 },
};

XALLOC_KUNIT_ROWS(memories, memory_row);

/* With the first allocation failing, then the second, until none is left to fail. */
static void no_failed_table_changes_anything(struct kunit *test)
{
#ifdef CONFIG_FAULT_INJECTION
	const struct xalloc_placement_request used = { .nr_slices = 130 };
	const struct memory_row *row = test->param_value;
	struct xalloc_placement *pl = test->priv;
	u32 nth, slice, nr_failures = 0;
	bool met = true;
	int err;

	for (nth = 1; met && nth < 1000; nth++) {
		struct xalloc_placement before;

		xalloc_placement_init(pl, XALLOC_PLACEMENT_SEGMENTS_MAX);
		KUNIT_ASSERT_EQ(test, xalloc_placement_take(pl, &used, &slice), 0);
		KUNIT_ASSERT_EQ(test, xalloc_placement_set_backing(pl, 3, XALLOC_BACKING_HUGE), 0);
		before = *pl;
		current->fail_nth = nth;
		err = row->call(pl);
		met = !current->fail_nth;
		current->fail_nth = 0;
		if (err) {
			KUNIT_EXPECT_EQ(test, err, -ENOMEM);
			KUNIT_EXPECT_TRUE(test, met);
			KUNIT_EXPECT_EQ(test, memcmp(&before, pl, sizeof(before)), 0);
			nr_failures++;
		}
		KUNIT_ASSERT_TRUE(test, xalloc_placement_is_valid(pl));
		xalloc_placement_fini(pl);
		KUNIT_ASSERT_EQ(test, xalloc_placement_table_bytes(pl), 0);
	}
	KUNIT_EXPECT_FALSE(test, met);
	KUNIT_EXPECT_GE_MSG(test, nr_failures, row->nr_failures,
			    "is ignore-gfp-wait of failslab and fail_page_alloc N?");
	if (!row->nr_failures)
		KUNIT_EXPECT_EQ(test, nth, 2);
	kunit_info(test, "%u allocations, %u of which failed it", nth - 2, nr_failures);
#else
	kunit_skip(test, "the kernel is built without CONFIG_FAULT_INJECTION");
#endif
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(tables_cost_little_and_go, costs_gen_params),
	KUNIT_CASE(far_ends_are_reached),
	KUNIT_CASE_PARAM(no_failed_table_changes_anything, memories_gen_params),
	{}
};

struct kunit_suite xalloc_placement_table_suite = {
	.name = "xalloc_placement_table",
	.init = table_init,
	.exit = table_exit,
	.test_cases = cases,
};
