// SPDX-License-Identifier: GPL-2.0-only
/* Clients that share an arena: whose pages are whose, also when one of them is gone. */
#include "fixture.h"

static u32 list(struct kunit *test, u32 flags, u64 client_id, u64 *offset,
		struct xalloc_page_info *infos, u32 nr)
{
	const struct xalloc_ioc_list which = {
		.flags = flags,
		.client_id = client_id,
		.offset = *offset,
		.nr = nr,
	};
	struct fixture *fx = test->priv;

	mutex_lock(&fx->arena->lock);
	nr = xalloc_page_list(fx->arena, &which, infos, offset);
	mutex_unlock(&fx->arena->lock);
	return nr;
}

static int claim_at(struct xalloc_client *client, u32 slice)
{
	u64 offset = slice * (u64)XALLOC_SLICE_BYTES;
	int rc = xalloc_client_claim(client, &offset, 1);

	return rc == 1 ? 0 : rc;
}

static void persistent_page_outlives_its_client(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_persistent(test, 4);
	struct xalloc_client *dead = fx_make_client(test), *heir = fx_make_client(test);

	KUNIT_EXPECT_EQ(test, fx_grant_at(dead, 4, 0), 0);
	fx_fill(arena, 0, 4);
	fx_drop_client(test, dead);
	FX_EXPECT_ALIVE(test, 1, 4, 1, 0);
	KUNIT_EXPECT_TRUE(test, fx_faults_in(arena, 0));
	KUNIT_EXPECT_FALSE(test, fx_is_zero(arena, 0, 4));
	KUNIT_EXPECT_EQ(test, fx_grant_at(heir, 28, 0), 4);
	KUNIT_EXPECT_EQ(test, fx_free_at(heir, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_free_at(heir, 0), -ENOENT);
	FX_EXPECT_ALIVE(test, 1, 28, 1, 0);
}

static void any_client_frees_a_persistent_page(struct kunit *test)
{
	struct xalloc_client *one, *two;

	fx_make_persistent(test, 4);
	one = fx_make_client(test);
	two = fx_make_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(one, 4, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(one, 4, 0), 4);
	KUNIT_EXPECT_EQ(test, fx_free_at(two, 0), 0);
	FX_EXPECT_ALIVE(test, 1, 4, 1, 0);
	KUNIT_EXPECT_EQ(test, xalloc_page_hold(two, two, 4 * XALLOC_SLICE_BYTES,
					       XALLOC_SLICE_BYTES), 0);
}

static void orphan_is_claimed_by_one(struct kunit *test)
{
	struct xalloc_client *dead, *heir, *late;

	fx_make_persistent(test, 4);
	dead = fx_make_client(test);
	heir = fx_make_client(test);
	late = fx_make_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(dead, 4, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(heir, 4, 0), 4);
	KUNIT_EXPECT_EQ(test, claim_at(heir, 0), -EBUSY);
	KUNIT_EXPECT_EQ(test, claim_at(dead, 0), -EBUSY);
	KUNIT_EXPECT_EQ(test, claim_at(late, 4), -EBUSY);
	fx_drop_client(test, dead);
	KUNIT_EXPECT_EQ(test, claim_at(heir, 1), -ENOENT);
	KUNIT_EXPECT_EQ(test, claim_at(heir, 128), -ERANGE);
	KUNIT_EXPECT_EQ(test, claim_at(heir, 0), 0);
	KUNIT_EXPECT_EQ(test, claim_at(late, 0), -EBUSY);
	FX_EXPECT_ALIVE(test, 2, 8, 1, 0);
	/* A claimed page outlives this client, too. */
	fx_drop_client(test, heir);
	FX_EXPECT_ALIVE(test, 2, 8, 1, 0);
	KUNIT_EXPECT_EQ(test, claim_at(late, 0), 0);
	FX_EXPECT_ALIVE(test, 2, 8, 1, 0);
}

static void orphans_go_with_the_arena(struct kunit *test)
{
	struct fixture *fx = test->priv;
	struct xalloc_client *dead;
	struct folio *folio;

	fx_make_persistent(test, 4);
	dead = fx_make_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(dead, 40, 0), 0);
	folio = fx_pin(test, 1);
	fx_drop_client(test, dead);
	FX_EXPECT_ALIVE(test, 1, 40, 2, 0);
	fx_drop_arena(test);
	KUNIT_EXPECT_EQ(test, fx_counted(fx, XALLOC_NR_PAGES), 0);
	KUNIT_EXPECT_EQ(test, fx_counted(fx, XALLOC_NR_COMMITTED_SLICES),
			XALLOC_SLICES_PER_SEGMENT);
	fx_unpin(test, folio);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(fx_nothing_counted(fx)));
}

static void list_tells_of_each_page_once(struct kunit *test)
{
	struct xalloc_client *clients[2], *dead;
	u64 offset = 0, end, want = 0, dead_id;
	struct xalloc_page_info infos[3];
	u32 i, nr, nr_seen = 0;

	end = fx_make_persistent(test, 4)->nr_segments * (u64)XALLOC_SEGMENT_BYTES;
	clients[0] = fx_make_client(test);
	clients[1] = fx_make_client(test);
	dead = fx_make_client(test);
	dead_id = dead->id;
	for (i = 0; i < 30; i++) {
		struct xalloc_page_grant grant = {
			.nr_slices = 1 + i % 3,
			.tag = 1000 + i,
		};

		KUNIT_ASSERT_EQ(test, fx_grant_batch(i % 5 ? clients[i % 2] : dead, &grant, 1), 1);
	}
	fx_drop_client(test, dead);
	do {
		nr = list(test, 0, 0, &offset, infos, ARRAY_SIZE(infos));
		for (i = 0; i < nr; i++) {
			u32 at = infos[i].tag - 1000;

			KUNIT_EXPECT_GE(test, infos[i].offset, want);
			want = infos[i].offset + infos[i].nr_slices * XALLOC_SLICE_BYTES;
			KUNIT_EXPECT_EQ(test, infos[i].nr_slices, 1 + at % 3);
			KUNIT_EXPECT_EQ(test, infos[i].client_id,
					at % 5 ? clients[at % 2]->id : dead_id);
			KUNIT_EXPECT_EQ(test, infos[i].flags,
					at % 5 ? 0 : XALLOC_PAGE_ORPHAN);
			nr_seen++;
		}
	} while (nr);
	KUNIT_EXPECT_EQ(test, offset, end);
	KUNIT_EXPECT_EQ(test, nr_seen, 30);

	/* The dead client had six pages. */
	offset = 0;
	KUNIT_EXPECT_EQ(test, list(test, XALLOC_LIST_ORPHANS, 0, &offset, infos, 3), 3);
	KUNIT_EXPECT_EQ(test, infos[0].client_id, dead_id);
	KUNIT_EXPECT_EQ(test, list(test, XALLOC_LIST_ORPHANS, 0, &offset, infos, 3), 3);
	KUNIT_EXPECT_EQ(test, list(test, XALLOC_LIST_ORPHANS, 0, &offset, infos, 3), 0);
	KUNIT_EXPECT_EQ(test, offset, end);
	offset = 0;
	KUNIT_EXPECT_EQ(test, list(test, XALLOC_LIST_ORPHANS, clients[0]->id, &offset, infos, 3),
			0);
	offset = 0;
	KUNIT_EXPECT_EQ(test, list(test, 0, clients[1]->id, &offset, infos, 3), 3);
	KUNIT_EXPECT_EQ(test, infos[0].tag, 1001);
	/* From inside of a page on, the next. */
	offset = infos[0].offset + 1;
	KUNIT_EXPECT_EQ(test, list(test, 0, clients[1]->id, &offset, infos, 1), 1);
	KUNIT_EXPECT_EQ(test, infos[0].tag, 1003);
}

static int hold(struct xalloc_client *holder, const struct xalloc_client *owner, u32 slice,
		u32 nr_slices)
{
	return xalloc_page_hold(holder, owner, slice * (u64)XALLOC_SLICE_BYTES,
				nr_slices * (u64)XALLOC_SLICE_BYTES);
}

static void held_page_stays_when_it_is_freed(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 4, 0);
	struct xalloc_client *client = fx_make_client(test), *first = fx_make_client(test);
	struct xalloc_client *second = fx_make_client(test);

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 40, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 4, 0), 40);
	/* From inside of the first page to inside of the second. */
	KUNIT_ASSERT_EQ(test, hold(first, client, 35, 6), 0);
	KUNIT_ASSERT_EQ(test, hold(second, client, 0, 1), 0);
	KUNIT_EXPECT_EQ(test, first->nr_held, 2);
	fx_fill(arena, 0, 44);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), -ENOENT);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 40), 0);
	KUNIT_EXPECT_EQ(test, hold(client, client, 0, 1), -ENOENT);
	KUNIT_EXPECT_EQ(test, arena->nr_exported_slices, 44);
	FX_EXPECT_ALIVE(test, 2, 44, 2, 0);
	KUNIT_EXPECT_TRUE(test, fx_faults_in(arena, 1));
	KUNIT_EXPECT_FALSE(test, fx_is_zero(arena, 0, 1));
	/* Nor are their slices granted to others. */
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 84, 0), 44);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), -ENOSPC);
	fx_drop_client(test, first);
	KUNIT_EXPECT_EQ(test, arena->nr_exported_slices, 40);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 4, 0), 40);
	fx_drop_client(test, second);
	KUNIT_EXPECT_EQ(test, arena->nr_exported_slices, 0);
	FX_EXPECT_ALIVE(test, 2, 88, 3, 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 40, 0), 0);
}

static void held_page_outlives_its_client(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 4, 0);
	struct xalloc_client *dead = fx_make_client(test), *holder = fx_make_client(test);
	struct folio *folio;

	KUNIT_EXPECT_EQ(test, fx_grant_at(dead, 32, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(dead, 32, 0), 32);
	KUNIT_ASSERT_EQ(test, hold(holder, dead, 0, 1), 0);
	fx_drop_client(test, dead);
	FX_EXPECT_ALIVE(test, 1, 32, 1, 0);
	KUNIT_EXPECT_TRUE(test, fx_faults_in(arena, 0));
	KUNIT_EXPECT_EQ(test, fx_free_at(holder, 0), -ENOENT);
	/* A pin that the holder leaves behind is waited for. */
	folio = fx_pin(test, 0);
	fx_drop_client(test, holder);
	FX_EXPECT_ALIVE(test, 0, 0, 1, 1);
	KUNIT_EXPECT_FALSE(test, fx_faults_in(arena, 0));
	fx_unpin(test, folio);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(fx_seen(test).nr_committed == 0));
}

static void hold_is_refused(struct kunit *test)
{
	struct xalloc_client *client, *other, *holder;

	fx_make_arena(test, 4, 0);
	client = fx_make_client(test);
	other = fx_make_client(test);
	holder = fx_make_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 4, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(other, 4, 0), 4);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 4, 0), 8);
	KUNIT_EXPECT_EQ(test, xalloc_page_hold(holder, client, 0, 0), -EINVAL);
	KUNIT_EXPECT_EQ(test, xalloc_page_hold(holder, client, 1, XALLOC_SLICE_BYTES), -EINVAL);
	KUNIT_EXPECT_EQ(test, xalloc_page_hold(holder, client, 0, XALLOC_SLICE_BYTES + 1), -EINVAL);
	KUNIT_EXPECT_EQ(test, xalloc_page_hold(holder, client, FX_MIB(8), XALLOC_SLICE_BYTES),
			-ERANGE);
	KUNIT_EXPECT_EQ(test, xalloc_page_hold(holder, client, XALLOC_SLICE_BYTES,
					       -(u64)XALLOC_SLICE_BYTES), -ERANGE);
	KUNIT_EXPECT_EQ(test, hold(holder, client, 0, 5), -EPERM);
	KUNIT_EXPECT_EQ(test, hold(holder, client, 12, 1), -ENOENT);
	KUNIT_EXPECT_EQ(test, hold(holder, client, 8, 5), -ENOENT);
	KUNIT_EXPECT_EQ(test, holder->nr_held, 0);
	KUNIT_EXPECT_EQ(test, hold(holder, client, 8, 4), 0);
	FX_EXPECT_ALIVE(test, 3, 12, 1, 0);
}

#define FAR_SLICE BIT(26)

/* For the case below: one that holds nothing, and what became of it. */
static struct xalloc_client *far_holder;
static int far_rc;
static u64 far_ms;

static void hold_far_slice(struct xalloc_arena *arena)
{
	u64 start = ktime_get_ns();

	far_rc = hold(far_holder, far_holder, FAR_SLICE + 40, 1);
	far_ms = (ktime_get_ns() - start) / NSEC_PER_MSEC;
}

/* Taken, but of nobody yet; below it there is nothing but slices without a page. */
static void hold_below_a_grant_is_refused_at_once(struct kunit *test)
{
	struct xalloc_page_grant got = { .nr_slices = 64, .align_slices = FAR_SLICE };
	struct xalloc_client *client;

	fx_make_arena(test, 4 * (FAR_SLICE / XALLOC_SLICES_PER_SEGMENT), 0);
	client = fx_make_client(test);
	far_holder = fx_make_client(test);
	KUNIT_ASSERT_EQ(test, fx_grant_at(client, 1, 0), 0);
	fx_backing_meanwhile = hold_far_slice;
	KUNIT_ASSERT_EQ(test, fx_grant_batch(client, &got, 1), 1);
	KUNIT_EXPECT_EQ(test, got.offset, (u64)FAR_SLICE * XALLOC_SLICE_BYTES);
	KUNIT_EXPECT_EQ(test, far_rc, -ENOENT);
	/* With long=1 only: a busy machine may stop this task for a second. */
	if (xalloc_kunit_is_long())
		KUNIT_EXPECT_LT(test, far_ms, 1000);
	/* The grant is there by now. */
	KUNIT_EXPECT_EQ(test, hold(far_holder, client, FAR_SLICE + 40, 1), 0);
}

static void limit_is_lowered_and_raised(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 8, 2);
	struct xalloc_client *client = fx_make_client(test);

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 64, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), -EDQUOT);
	KUNIT_EXPECT_EQ(test, xalloc_arena_set_limit(arena, FX_MIB(6)), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), 64);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, 0), -EDQUOT);
	KUNIT_EXPECT_EQ(test, xalloc_arena_set_limit(arena, FX_MIB(4)), -EBUSY);
	KUNIT_EXPECT_EQ(test, xalloc_arena_set_limit(arena, FX_MIB(1)), -EINVAL);
	KUNIT_EXPECT_EQ(test, arena->limit_slices, 96);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 64), 0);
	KUNIT_EXPECT_EQ(test, xalloc_arena_set_limit(arena, FX_MIB(4)), 0);
	/* All of the arena, as when it is made. */
	KUNIT_EXPECT_EQ(test, xalloc_arena_set_limit(arena, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 192, 0), 64);
	FX_EXPECT_ALIVE(test, 2, 256, 8, 0);
}

static void lower_limit_takes_the_reserve(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 8, 0);
	struct xalloc_client *client = fx_make_client(test);

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, 0), 0);
	xalloc_reclaim_set_reserve(arena, 2, 4);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(fx_seen(test).nr_reserved == 4));
	KUNIT_EXPECT_EQ(test, xalloc_arena_set_limit(arena, FX_MIB(4)), 0);
	FX_EXPECT_ALIVE(test, 1, 32, 1, 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 64, 0), -EDQUOT);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, 0), 32);
	FX_EXPECT_ALIVE(test, 2, 64, 2, 0);
}

/* The worker frees what is left of the page. */
static void kill_ends_the_freeing(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 64, 0);
	struct xalloc_client *client = fx_make_client(test);
	struct xalloc_range begin = {};
	u32 nr_freed;

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 64 * 32, 0), 0);
	fx_backing_nr_freed = 0;
	fx_backing_once_freed = fx_kill;
	KUNIT_EXPECT_EQ(test, xalloc_client_free(client, &begin, 1, false), 1);
	nr_freed = READ_ONCE(fx_backing_nr_freed);
	fx_revive();
	KUNIT_EXPECT_LE(test, nr_freed, 16);
	KUNIT_EXPECT_EQ(test, xalloc_client_free(client, &begin, 1, false), -ENOENT);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(!READ_ONCE(arena->nr_committed_slices)));
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0);
}

static void kill_ends_the_zeroing(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 8, 0);
	struct xalloc_client *client = fx_make_client(test);
	struct xalloc_page *page;

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 96, 0), 0);
	fx_fill(arena, 0, 96);
	page = xa_load(&arena->pages, 0);
	fx_kill();
	KUNIT_EXPECT_EQ(test, xalloc_page_zero(arena, page), -EINTR);
	fx_revive();
	KUNIT_EXPECT_FALSE(test, fx_is_zero(arena, 0, 1));
	KUNIT_EXPECT_EQ(test, xalloc_page_zero(arena, page), 0);
	KUNIT_EXPECT_TRUE(test, fx_is_zero(arena, 0, 96));
}

static struct kunit_case cases[] = {
	KUNIT_CASE(kill_ends_the_freeing),
	KUNIT_CASE(kill_ends_the_zeroing),
	KUNIT_CASE(persistent_page_outlives_its_client),
	KUNIT_CASE(any_client_frees_a_persistent_page),
	KUNIT_CASE(orphan_is_claimed_by_one),
	KUNIT_CASE(orphans_go_with_the_arena),
	KUNIT_CASE(list_tells_of_each_page_once),
	KUNIT_CASE(held_page_stays_when_it_is_freed),
	KUNIT_CASE(held_page_outlives_its_client),
	KUNIT_CASE(hold_is_refused),
	KUNIT_CASE(hold_below_a_grant_is_refused_at_once),
	KUNIT_CASE(limit_is_lowered_and_raised),
	KUNIT_CASE(lower_limit_takes_the_reserve),
	{}
};

struct kunit_suite xalloc_client_suite = {
	.name = "xalloc_client",
	.init = fx_init,
	.exit = fx_exit,
	.test_cases = cases,
};
