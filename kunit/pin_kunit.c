// SPDX-License-Identifier: GPL-2.0-only
/* Pins: memory that somebody outside refers to, while its page, client or arena goes. */
#include "fixture.h"

static void pinned_segment_stays_until_it_is_let_go(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 4, 0);
	struct xalloc_client *client = fx_make_client(test);
	struct folio *folio;

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 64, 0), 0);
	folio = fx_pin(test, 1);
	KUNIT_EXPECT_TRUE(test, fx_faults_in(arena, 1));
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
	FX_EXPECT_ALIVE(test, 0, 0, 1, 1);
	KUNIT_EXPECT_PTR_EQ(test, fx_folio_at(arena, 32), folio);
	KUNIT_EXPECT_FALSE(test, fx_faults_in(arena, 1));
	/* The worker looks a few times, in vain. */
	msleep(300);
	FX_EXPECT_ALIVE(test, 0, 0, 1, 1);
	fx_unpin(test, folio);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(!fx_seen(test).nr_committed));
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0);
}

static void pinned_segment_is_granted_again_at_once(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 4, 1);
	struct xalloc_client *client = fx_make_client(test);
	struct xalloc_page_grant got;
	struct folio *folio;

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, 0), 0);
	fx_fill(arena, 0, 32);
	folio = fx_pin(test, 0);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
	FX_EXPECT_ALIVE(test, 0, 0, 1, 1);
	/* Before a segment without memory, which the limit would refuse besides. */
	KUNIT_EXPECT_EQ(test, fx_grant(client, 3, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.offset, 0);
	KUNIT_EXPECT_EQ(test, got.flags, 0);
	KUNIT_EXPECT_PTR_EQ(test, fx_folio_at(arena, 0), folio);
	KUNIT_EXPECT_TRUE(test, fx_faults_in(arena, 0));
	FX_EXPECT_ALIVE(test, 1, 3, 1, 0);
	fx_unpin(test, folio);
	msleep(300);
	FX_EXPECT_ALIVE(test, 1, 3, 1, 0);
}

static void pinned_segment_counts_against_the_limit(struct kunit *test)
{
	struct xalloc_client *client;

	fx_make_arena(test, 4, 2);
	client = fx_make_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, 0), 0);
	fx_pin(test, 0);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 96, 0), -EDQUOT);
	FX_EXPECT_ALIVE(test, 0, 0, 1, 1);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 33, 0), 0);
	FX_EXPECT_ALIVE(test, 1, 33, 2, 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, 0), -EDQUOT);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
	FX_EXPECT_ALIVE(test, 0, 0, 1, 1);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 64, 0), 0);
}

static void dead_clients_pages_wait_for_the_pin(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 4, 0);
	struct xalloc_client *dead = fx_make_client(test), *heir = fx_make_client(test);
	struct xalloc_page_grant got;
	struct folio *folio;

	KUNIT_EXPECT_EQ(test, fx_grant_at(dead, 32, 0), 0);
	fx_fill(arena, 0, 32);
	folio = fx_pin(test, 0);
	fx_drop_client(test, dead);
	FX_EXPECT_ALIVE(test, 0, 0, 1, 1);
	KUNIT_EXPECT_FALSE(test, fx_faults_in(arena, 0));
	KUNIT_EXPECT_EQ(test, fx_free_at(heir, 0), -ENOENT);
	KUNIT_EXPECT_EQ(test, fx_grant_at(heir, 1, 0), 32);
	KUNIT_EXPECT_EQ(test, fx_grant_at(heir, 96, 0), -ENOSPC);
	KUNIT_EXPECT_EQ(test, fx_grant_at(heir, 95, 0), 33);
	msleep(300);
	KUNIT_EXPECT_EQ(test, fx_grant_at(heir, 1, 0), -ENOSPC);
	FX_EXPECT_ALIVE(test, 2, 96, 4, 1);
	fx_unpin(test, folio);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(fx_seen(test).nr_committed == 3));
	FX_EXPECT_ALIVE(test, 2, 96, 3, 0);
	KUNIT_EXPECT_EQ(test, fx_grant(heir, 32, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.offset, 0);
	KUNIT_EXPECT_EQ(test, got.flags, XALLOC_PAGE_ZERO);
	KUNIT_EXPECT_TRUE(test, fx_is_zero(arena, 0, 32));
}

static void dead_clients_pages_wait_beside_living_ones(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 1, 0);
	struct xalloc_client *dead = fx_make_client(test), *heir = fx_make_client(test);
	struct xalloc_page_grant got;
	struct folio *folio;
	int slice;

	KUNIT_EXPECT_EQ(test, fx_grant_at(dead, 20, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(heir, 12, 0), 20);
	fx_fill(arena, 0, 32);
	folio = fx_pin(test, 0);
	fx_drop_client(test, dead);
	FX_EXPECT_ALIVE(test, 1, 12, 1, 0);
	KUNIT_EXPECT_TRUE(test, fx_faults_in(arena, 0));
	msleep(300);
	KUNIT_EXPECT_EQ(test, fx_grant_at(heir, 1, 0), -ENOSPC);
	fx_unpin(test, folio);
	KUNIT_EXPECT_TRUE(test, fx_wait_for((slice = fx_grant_at(heir, 1, 0)) != -ENOSPC));
	KUNIT_EXPECT_EQ(test, slice, 0);
	KUNIT_EXPECT_EQ(test, fx_grant(heir, 19, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.flags, 0);
	FX_EXPECT_ALIVE(test, 3, 32, 1, 0);
}

static void one_pin_holds_all_of_a_dead_page(struct kunit *test)
{
	struct xalloc_client *dead, *heir;
	struct folio *folio;

	fx_make_arena(test, 3, 0);
	dead = fx_make_client(test);
	heir = fx_make_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(dead, 80, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(dead, 8, 0), 80);
	folio = fx_pin(test, 1);
	fx_drop_client(test, dead);
	/* The second page lies in segment 2, which nobody refers to. */
	FX_EXPECT_ALIVE(test, 0, 0, 3, 3);
	KUNIT_EXPECT_EQ(test, fx_grant_at(heir, 17, 0), -ENOSPC);
	KUNIT_EXPECT_EQ(test, fx_grant_at(heir, 16, 0), 80);
	fx_unpin(test, folio);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(fx_seen(test).nr_committed == 1));
	FX_EXPECT_ALIVE(test, 1, 16, 1, 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(heir, 80, 0), 0);
}

static void grant_ends_a_quarantine_that_is_over(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 4, 1);
	struct xalloc_client *dead = fx_make_client(test), *heir = fx_make_client(test);
	struct folio *folio;

	KUNIT_EXPECT_EQ(test, fx_grant_at(dead, 32, 0), 0);
	folio = fx_pin(test, 0);
	fx_drop_client(test, dead);
	KUNIT_EXPECT_EQ(test, fx_grant_at(heir, 1, 0), -EDQUOT);
	FX_EXPECT_ALIVE(test, 0, 0, 1, 1);
	/* Not the worker's doing. */
	cancel_delayed_work_sync(&arena->reap);
	fx_unpin(test, folio);
	KUNIT_EXPECT_GE(test, fx_grant_at(heir, 1, 0), 0);
	FX_EXPECT_ALIVE(test, 1, 1, 1, 0);
}

struct zombie_row {
	const char *desc;
	bool charged;
	bool freed;
};

static const struct zombie_row zombies[] = {
	{ "pinned page of a client that died, nobody pays", false, false },
	{ "pinned page that was freed before, nobody pays", false, true },
	{ "pinned page of a client that died, charged", true, false },
	{ "pinned page that was freed before, charged", true, true },
};

XALLOC_KUNIT_ROWS(zombies, zombie_row);

static void destroyed_arena_counts_until_the_pin_drops(struct kunit *test)
{
	const struct zombie_row *row = test->param_value;
	struct fixture *fx = test->priv;
	struct xalloc_arena *arena = fx_make_arena(test, 4, 0);
	struct xalloc_client *client = fx_make_client(test);
	struct user_struct *user = current_user();
	long locked_vm = atomic_long_read(&user->locked_vm);
	struct folio *folio;

	if (row->charged)
		fx_make_payer(arena, 4);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 96, 0), 0);
	folio = fx_pin(test, 1);
	if (row->freed)
		KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
	fx_drop_client(test, client);
	fx_drop_arena(test);

	KUNIT_EXPECT_EQ(test, fx_counted(fx, XALLOC_NR_ARENAS), 1);
	KUNIT_EXPECT_EQ(test, fx_counted(fx, XALLOC_NR_CLIENTS), 0);
	KUNIT_EXPECT_EQ(test, fx_counted(fx, XALLOC_NR_PAGES), 0);
	KUNIT_EXPECT_EQ(test, fx_counted(fx, XALLOC_NR_COMMITTED_SLICES), 32);
	msleep(300);
	KUNIT_EXPECT_EQ(test, fx_counted(fx, XALLOC_NR_ARENAS), 1);
	KUNIT_EXPECT_EQ(test, fx_counted(fx, XALLOC_NR_COMMITTED_SLICES), 32);
	KUNIT_EXPECT_EQ(test, fx_counted(fx, XALLOC_NR_IDLE_SLICES), 32);
	KUNIT_EXPECT_EQ(test, fx_counted(fx, XALLOC_NR_CHARGED_SLICES), 32 * row->charged);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&user->locked_vm) - locked_vm,
			row->charged * (long)XALLOC_SEGMENT_KPAGES);

	fx_unpin(test, folio);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(fx_nothing_counted(fx)));
	KUNIT_EXPECT_EQ(test, atomic_long_read(&user->locked_vm), locked_vm);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(pinned_segment_stays_until_it_is_let_go),
	KUNIT_CASE(pinned_segment_is_granted_again_at_once),
	KUNIT_CASE(pinned_segment_counts_against_the_limit),
	KUNIT_CASE(dead_clients_pages_wait_for_the_pin),
	KUNIT_CASE(dead_clients_pages_wait_beside_living_ones),
	KUNIT_CASE(one_pin_holds_all_of_a_dead_page),
	KUNIT_CASE(grant_ends_a_quarantine_that_is_over),
	KUNIT_CASE_PARAM(destroyed_arena_counts_until_the_pin_drops, zombies_gen_params),
	{}
};

struct kunit_suite xalloc_pin_suite = {
	.name = "xalloc_pin",
	.init = fx_init,
	.exit = fx_exit,
	.test_cases = cases,
};
