// SPDX-License-Identifier: GPL-2.0-only
/* The reserve: memory that is there before a grant wants it, and goes when others want it. */
#include "fixture.h"

static bool is_filled(struct xalloc_arena *arena)
{
	return !READ_ONCE(arena->filling);
}

static struct xalloc_arena *make_arena_with_reserve(struct kunit *test, u32 nr_segments,
						    u32 limit_segments, u32 low, u32 high)
{
	struct xalloc_arena *arena = fx_make_arena(test, nr_segments, limit_segments);

	xalloc_reclaim_set_reserve(arena, low, high);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(is_filled(arena)));
	return arena;
}

static void trim(struct xalloc_arena *arena, u32 nr_keep)
{
	mutex_lock(&arena->lock);
	xalloc_reclaim(arena, nr_keep);
	mutex_unlock(&arena->lock);
}

static void grant_takes_from_the_reserve(struct kunit *test)
{
	struct xalloc_arena *arena = make_arena_with_reserve(test, 8, 0, 0, 3);
	struct xalloc_client *client = fx_make_client(test);
	struct xalloc_page_grant got;

	FX_EXPECT_ALIVE(test, 0, 0, 3, 3, 3);
	KUNIT_EXPECT_FALSE(test, fx_faults_in(arena, 0));
	KUNIT_EXPECT_EQ(test, fx_grant(client, 80, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.flags, XALLOC_PAGE_ZERO);
	KUNIT_EXPECT_TRUE(test, fx_is_zero(arena, got.offset / XALLOC_SLICE_BYTES, 80));
	KUNIT_EXPECT_EQ(test, fx_alive(test).nr_cold_slices, 0);
	FX_EXPECT_ALIVE(test, 1, 80, 3, 0, 0);
	/* The next one waits for memory. */
	KUNIT_EXPECT_EQ(test, fx_grant(client, 32, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, fx_alive(test).nr_cold_slices, 32);
	FX_EXPECT_ALIVE(test, 2, 112, 4, 0, 0);
}

static void worker_fills_below_the_low_mark(struct kunit *test)
{
	struct xalloc_arena *arena = make_arena_with_reserve(test, 8, 0, 2, 3);
	struct xalloc_client *client = fx_make_client(test);

	/* Not yet: two are left. */
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), 0);
	KUNIT_EXPECT_TRUE(test, is_filled(arena));
	FX_EXPECT_ALIVE(test, 1, 1, 3, 2, 2);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, 0), 32);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(is_filled(arena)));
	FX_EXPECT_ALIVE(test, 2, 33, 5, 3, 3);
	KUNIT_EXPECT_EQ(test, fx_alive(test).nr_cold_slices, 0);
}

static void freed_memory_is_kept_and_zeroed(struct kunit *test)
{
	struct xalloc_arena *arena = make_arena_with_reserve(test, 8, 0, 1, 2);
	struct xalloc_client *client = fx_make_client(test);
	struct xalloc_page_grant got;

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 128, 0), 0);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(is_filled(arena)));
	FX_EXPECT_ALIVE(test, 1, 128, 6, 2, 2);
	trim(arena, 0);
	FX_EXPECT_ALIVE(test, 1, 128, 4, 0, 0);
	fx_fill(arena, 0, 128);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(is_filled(arena)));
	FX_EXPECT_ALIVE(test, 0, 0, 2, 2, 2);
	KUNIT_EXPECT_FALSE(test, fx_faults_in(arena, 0));
	KUNIT_EXPECT_TRUE(test, list_empty(&arena->dirty));
	KUNIT_EXPECT_EQ(test, fx_grant(client, 64, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.flags, XALLOC_PAGE_ZERO);
	KUNIT_EXPECT_TRUE(test, fx_is_zero(arena, got.offset / XALLOC_SLICE_BYTES, 64));
}

static void trim_keeps_what_it_is_told(struct kunit *test)
{
	struct xalloc_arena *arena = make_arena_with_reserve(test, 8, 0, 0, 6);

	FX_EXPECT_ALIVE(test, 0, 0, 6, 6, 6);
	trim(arena, 2);
	FX_EXPECT_ALIVE(test, 0, 0, 2, 2, 2);
	trim(arena, 0);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0, 0);
	/* Nobody has granted anything: it stays as it was trimmed. */
	KUNIT_EXPECT_TRUE(test, is_filled(arena));
}

static void only_a_grant_looks_at_the_low_mark(struct kunit *test)
{
	struct xalloc_arena *arena = make_arena_with_reserve(test, 12, 0, 4, 6);
	struct xalloc_client *client = fx_make_client(test);

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, 0), 0);
	trim(arena, 1);
	KUNIT_EXPECT_TRUE(test, is_filled(arena));
	trim(arena, 0);
	FX_EXPECT_ALIVE(test, 1, 32, 1, 0, 0);
	/* What is freed is kept, and zeroed; no more is had. */
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(is_filled(arena)));
	KUNIT_EXPECT_TRUE(test, list_empty(&arena->dirty));
	FX_EXPECT_ALIVE(test, 0, 0, 1, 1, 1);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), 0);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(is_filled(arena)));
	FX_EXPECT_ALIVE(test, 1, 1, 7, 6, 6);
}

static void lower_marks_give_back(struct kunit *test)
{
	struct xalloc_arena *arena = make_arena_with_reserve(test, 8, 0, 0, 6);

	xalloc_reclaim_set_reserve(arena, 1, 1);
	FX_EXPECT_ALIVE(test, 0, 0, 1, 1, 1);
	xalloc_reclaim_set_reserve(arena, 0, 0);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0, 0);
}

static void reserve_keeps_to_the_limit(struct kunit *test)
{
	struct xalloc_arena *arena = make_arena_with_reserve(test, 8, 3, 4, 5);
	struct xalloc_client *client = fx_make_client(test);

	FX_EXPECT_ALIVE(test, 0, 0, 3, 3, 3);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 96, 0), 0);
	FX_EXPECT_ALIVE(test, 1, 96, 3, 0, 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, 0), -EDQUOT);
	KUNIT_EXPECT_TRUE(test, arena->nr_committed_slices == 96);
}

/* Segments 0 and 2 are in reserve; a run of three that begins at 3 needs their budget. */
static void grant_beyond_the_budget_has_the_reserves(struct kunit *test)
{
	struct xalloc_arena *arena = make_arena_with_reserve(test, 6, 4, 0, 2);
	struct xalloc_client *client = fx_make_client(test);
	struct xalloc_page_grant got = { .nr_slices = 64, .align_slices = 128 };

	/* The first aligned run is at 0: both segments, one of the reserve. */
	KUNIT_EXPECT_EQ(test, fx_grant_batch(client, &got, 1), 1);
	KUNIT_EXPECT_EQ(test, got.offset, 0);
	xalloc_reclaim_set_reserve(arena, 2, 2);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(is_filled(arena)));
	FX_EXPECT_ALIVE(test, 1, 64, 4, 2, 2);
	/* At slice 128, where nothing is in reserve. */
	got = (struct xalloc_page_grant){ .nr_slices = 64, .align_slices = 128 };
	KUNIT_EXPECT_EQ(test, fx_grant_batch(client, &got, 1), 1);
	KUNIT_EXPECT_EQ(test, got.offset, 128 * XALLOC_SLICE_BYTES);
	FX_EXPECT_ALIVE(test, 2, 128, 4, 0, 0);
}

static void payer_pays_for_the_reserve(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 8, 0);
	struct fixture *fx = test->priv;

	fx_make_payer(arena, 3);
	xalloc_reclaim_set_reserve(arena, 4, 5);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(is_filled(arena)));
	FX_EXPECT_ALIVE(test, 0, 0, 3, 3, 3);
	KUNIT_EXPECT_EQ(test, fx_counted(fx, XALLOC_NR_CHARGED_SLICES), 96);
	KUNIT_EXPECT_EQ(test, fx_grant_at(fx_make_client(test), 128, 0), -ENOBUFS);
}

static void failed_filling_leaves_what_it_had(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 8, 0);

	fx_backing_countdown = 3;
	xalloc_reclaim_set_reserve(arena, 4, 4);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(is_filled(arena)));
	FX_EXPECT_ALIVE(test, 0, 0, 2, 2, 2);
}

static void pinned_memory_is_no_reserve(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 4, 0);
	struct xalloc_client *client = fx_make_client(test);
	struct folio *folio;

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 64, 0), 0);
	xalloc_reclaim_set_reserve(arena, 0, 4);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(is_filled(arena)));
	trim(arena, 0);
	folio = fx_pin(test, 1);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
	FX_EXPECT_ALIVE(test, 0, 0, 2, 2, 1);
	fx_unpin(test, folio);
	/* It becomes reserve when the worker looks next. */
	KUNIT_EXPECT_TRUE(test, fx_wait_for(fx_seen(test).nr_reserved == 2));
	KUNIT_EXPECT_TRUE(test, fx_wait_for(is_filled(arena)));
	FX_EXPECT_ALIVE(test, 0, 0, 2, 2, 2);
}

static void arena_goes_with_its_reserve(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 64, 0);

	/* While it is being filled, too. */
	xalloc_reclaim_set_reserve(arena, 60, 60);
	fx_drop_arena(test);
}

/* The worker has segment 0, and zeroes it for as long as the case likes. */
static void grant_does_not_wait_for_zeroing(struct kunit *test)
{
	struct xalloc_arena *arena = make_arena_with_reserve(test, 3, 0, 0, 3);
	struct xalloc_client *client = fx_make_client(test);
	DECLARE_COMPLETION_ONSTACK(go_on);
	struct xalloc_page_grant got;

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, 0), 0);
	fx_fill(arena, 0, 32);
	WRITE_ONCE(fx_backing_zero_waits, &go_on);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(READ_ONCE(arena->cleaning)));
	FX_EXPECT_ALIVE(test, 0, 0, 3, 3, 3);
	KUNIT_EXPECT_GE(test, fx_grant_at(client, 1, 0), 32);
	KUNIT_EXPECT_GE(test, fx_grant_at(client, 32, 0), 32);
	KUNIT_EXPECT_PTR_NE(test, READ_ONCE(arena->cleaning), NULL);
	/* Trimming leaves the segment that is being zeroed. */
	trim(arena, 0);
	FX_EXPECT_ALIVE(test, 2, 33, 3, 1, 1);
	complete_all(&go_on);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(is_filled(arena)));
	WRITE_ONCE(fx_backing_zero_waits, NULL);
	KUNIT_EXPECT_EQ(test, fx_grant(client, 32, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.offset, 0);
	KUNIT_EXPECT_EQ(test, got.flags, XALLOC_PAGE_ZERO);
	KUNIT_EXPECT_TRUE(test, fx_is_zero(arena, 0, 32));
	FX_EXPECT_ALIVE(test, 3, 65, 3, 0, 0);
}

static void end_zeroing(struct work_struct *work)
{
	complete_all(fx_backing_zero_waits);
}

/* There is no other segment: the grant waits until the worker is done with it. */
static void grant_waits_for_the_last_segment(struct kunit *test)
{
	struct xalloc_arena *arena = make_arena_with_reserve(test, 1, 0, 0, 1);
	struct xalloc_client *client = fx_make_client(test);
	DECLARE_COMPLETION_ONSTACK(go_on);
	struct delayed_work end;

	INIT_DELAYED_WORK_ONSTACK(&end, end_zeroing);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, 0), 0);
	WRITE_ONCE(fx_backing_zero_waits, &go_on);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(READ_ONCE(arena->cleaning)));
	schedule_delayed_work(&end, HZ / 10);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, 0), 0);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(is_filled(arena)));
	cancel_delayed_work_sync(&end);
	destroy_delayed_work_on_stack(&end);
	WRITE_ONCE(fx_backing_zero_waits, NULL);
	FX_EXPECT_ALIVE(test, 1, 32, 1, 0, 0);
}

/* A trim, and lower marks, give back all memory, also what the worker is zeroing. */
static void trim_waits_for_the_worker(struct kunit *test)
{
	struct xalloc_arena *arena = make_arena_with_reserve(test, 3, 0, 0, 3);
	struct xalloc_client *client = fx_make_client(test);
	DECLARE_COMPLETION_ONSTACK(go_on);
	struct delayed_work end;
	bool by_marks = false;

	INIT_DELAYED_WORK_ONSTACK(&end, end_zeroing);
	do {
		KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, 0), 0);
		WRITE_ONCE(fx_backing_zero_waits, &go_on);
		KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
		KUNIT_EXPECT_TRUE(test, fx_wait_for(READ_ONCE(arena->cleaning)));
		schedule_delayed_work(&end, HZ / 10);
		if (by_marks) {
			xalloc_reclaim_set_reserve(arena, 0, 0);
		} else {
			mutex_lock(&arena->lock);
			KUNIT_EXPECT_EQ(test, xalloc_reclaim_trim(arena, 0), 3 * 32);
			mutex_unlock(&arena->lock);
		}
		FX_EXPECT_ALIVE(test, 0, 0, 0, 0, 0);
		flush_delayed_work(&end);
		WRITE_ONCE(fx_backing_zero_waits, NULL);
		reinit_completion(&go_on);
		by_marks = !by_marks;
	} while (by_marks);
	destroy_delayed_work_on_stack(&end);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(trim_waits_for_the_worker),
	KUNIT_CASE(grant_does_not_wait_for_zeroing),
	KUNIT_CASE(grant_waits_for_the_last_segment),
	KUNIT_CASE(grant_takes_from_the_reserve),
	KUNIT_CASE(worker_fills_below_the_low_mark),
	KUNIT_CASE(freed_memory_is_kept_and_zeroed),
	KUNIT_CASE(trim_keeps_what_it_is_told),
	KUNIT_CASE(only_a_grant_looks_at_the_low_mark),
	KUNIT_CASE(lower_marks_give_back),
	KUNIT_CASE(reserve_keeps_to_the_limit),
	KUNIT_CASE(grant_beyond_the_budget_has_the_reserves),
	KUNIT_CASE(payer_pays_for_the_reserve),
	KUNIT_CASE(failed_filling_leaves_what_it_had),
	KUNIT_CASE(pinned_memory_is_no_reserve),
	KUNIT_CASE(arena_goes_with_its_reserve),
	{}
};

struct kunit_suite xalloc_reserve_suite = {
	.name = "xalloc_reserve",
	.init = fx_init,
	.exit = fx_exit,
	.test_cases = cases,
};
