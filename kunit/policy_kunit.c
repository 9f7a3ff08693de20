// SPDX-License-Identifier: GPL-2.0-only
/* Policies: which memory is committed, what is said of it, and how pieces come and go. */
#include "fixture.h"

static void required_fails_without_huge_pages(struct kunit *test)
{
	struct xalloc_client *client;

	fx_make_arena_by(test, 4, 0, XALLOC_POLICY_HUGE);
	client = fx_make_client(test);
	fx_backing_no_huge = true;
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), -ENOMEM);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0, 0);
	fx_backing_no_huge = false;
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_alive(test).nr_small_slices, 0);
}

static void preferred_falls_back_and_says_so(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena_by(test, 4, 0, XALLOC_POLICY_HUGE_PREFERRED);
	struct xalloc_client *client = fx_make_client(test);
	struct xalloc_page_grant got;

	KUNIT_EXPECT_EQ(test, fx_grant(client, 8, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.contig_bytes, XALLOC_SEGMENT_BYTES);
	fx_backing_no_huge = true;
	/* The rest of the first segment, and eight slices of the next. */
	KUNIT_EXPECT_EQ(test, fx_grant(client, 32, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.flags, XALLOC_PAGE_ZERO);
	KUNIT_EXPECT_EQ(test, got.contig_bytes, XALLOC_SLICE_BYTES);
	KUNIT_EXPECT_EQ(test, fx_alive(test).nr_small_slices, 32);
	KUNIT_EXPECT_EQ(test, arena->nr_committed_slices, 64);
	KUNIT_EXPECT_TRUE(test, fx_is_zero(arena, got.offset / XALLOC_SLICE_BYTES, 32));
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(arena));
	fx_backing_no_huge = false;
	KUNIT_EXPECT_EQ(test, fx_grant(client, 32, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.contig_bytes, XALLOC_SEGMENT_BYTES);
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(arena));
}

static void contig_is_never_in_pieces(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena_by(test, 2, 0, XALLOC_POLICY_HUGE_PREFERRED);
	struct xalloc_client *client = fx_make_client(test);
	struct xalloc_page_grant got;

	fx_backing_no_huge = true;
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, XALLOC_PAGE_CONTIG), -ENOMEM);
	KUNIT_EXPECT_EQ(test, arena->nr_committed_slices, 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), 0);
	KUNIT_EXPECT_EQ(test, arena->nr_committed_slices, 1);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, XALLOC_PAGE_CONTIG), -ENOMEM);
	fx_backing_no_huge = false;
	KUNIT_EXPECT_EQ(test, fx_grant(client, 1, XALLOC_PAGE_CONTIG, &got), 0);
	KUNIT_EXPECT_EQ(test, got.offset, XALLOC_SEGMENT_BYTES);
	KUNIT_EXPECT_EQ(test, got.contig_bytes, XALLOC_SEGMENT_BYTES);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, XALLOC_PAGE_CONTIG), -ENOSPC);
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(arena));
}

static void pieces_come_and_go_by_themselves(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena_by(test, 2, 0, XALLOC_POLICY_SMALL);
	struct xalloc_client *client = fx_make_client(test);
	struct fixture *fx = test->priv;
	u32 slice;

	for (slice = 0; slice < 64; slice++) {
		KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), slice);
		KUNIT_EXPECT_EQ(test, fx_counted(fx, XALLOC_NR_COMMITTED_SLICES), slice + 1);
	}
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), -ENOSPC);
	for (slice = 0; slice < 64; slice += 2) {
		KUNIT_EXPECT_TRUE(test, fx_slice_faults_in(arena, slice));
		KUNIT_EXPECT_EQ(test, fx_free_at(client, slice), 0);
		KUNIT_EXPECT_FALSE(test, fx_slice_faults_in(arena, slice));
		KUNIT_EXPECT_TRUE(test, fx_slice_faults_in(arena, slice + 1));
		KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(arena));
	}
	KUNIT_EXPECT_EQ(test, arena->nr_committed_slices, 32);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 2, 0), -ENOSPC);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), 0);
	KUNIT_EXPECT_TRUE(test, fx_is_zero(arena, 0, 1));
	KUNIT_EXPECT_EQ(test, arena->nr_committed_slices, 33);
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(arena));
}

static void limit_counts_single_pieces(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena_by(test, 4, 1, XALLOC_POLICY_SMALL);
	struct xalloc_client *client = fx_make_client(test);

	fx_make_payer(arena, 1);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 33, 0), -EDQUOT);
	KUNIT_EXPECT_EQ(test, arena->nr_committed_slices, 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 31, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 2, 0), -EDQUOT);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), 31);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), -EDQUOT);
	KUNIT_EXPECT_EQ(test, arena->nr_committed_slices, 32);
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(arena));
}

static void pinned_piece_stays_alone(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena_by(test, 1, 0, XALLOC_POLICY_SMALL);
	struct xalloc_client *client = fx_make_client(test), *dead = fx_make_client(test);
	struct folio *folio;

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 8, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(dead, 8, 0), 8);
	fx_fill(arena, 0, 16);
	folio = fx_pin_slice(test, 3);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 0), 0);
	KUNIT_EXPECT_EQ(test, arena->nr_committed_slices, 9);
	KUNIT_EXPECT_EQ(test, arena->nr_idle_slices, 1);
	KUNIT_EXPECT_PTR_EQ(test, fx_folio_at(arena, 3), folio);
	KUNIT_EXPECT_FALSE(test, fx_slice_faults_in(arena, 3));
	fx_unpin(test, folio);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(READ_ONCE(arena->nr_committed_slices) == 8));

	/* A dead client's page waits as a whole, for its one pinned piece. */
	folio = fx_pin_slice(test, 9);
	fx_drop_client(test, dead);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 24, 0), -ENOSPC);
	fx_unpin(test, folio);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(!READ_ONCE(arena->nr_committed_slices)));
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, 0), 0);
	KUNIT_EXPECT_TRUE(test, fx_is_zero(arena, 0, 32));
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(arena));
}

static void zombie_of_pieces_goes(struct kunit *test)
{
	struct xalloc_client *client;
	struct fixture *fx = test->priv;
	struct folio *folio;

	fx_make_arena_by(test, 1, 0, XALLOC_POLICY_SMALL);
	client = fx_make_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 8, 0), 0);
	folio = fx_pin_slice(test, 3);
	fx_drop_client(test, client);
	fx_drop_arena(test);
	KUNIT_EXPECT_EQ(test, fx_counted(fx, XALLOC_NR_COMMITTED_SLICES), 1);
	KUNIT_EXPECT_EQ(test, fx_counted(fx, XALLOC_NR_ARENAS), 1);
	fx_unpin(test, folio);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(fx_nothing_counted(fx)));
}

struct nth_row {
	const char *desc;
	u32 nth;
};

static const struct nth_row pieces_of_eight[] = {
	{ "no memory for the first piece", 1 },
	{ "no memory for the second piece", 2 },
	{ "no memory for the last piece", 8 },
};

XALLOC_KUNIT_ROWS(pieces_of_eight, nth_row);

static void failed_grant_leaves_no_pieces(struct kunit *test)
{
	const struct nth_row *row = test->param_value;
	struct xalloc_arena *arena = fx_make_arena_by(test, 2, 0, XALLOC_POLICY_SMALL);
	struct xalloc_client *client = fx_make_client(test);

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 28, 0), 0);
	fx_backing_countdown = row->nth;
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 8, 0), -ENOMEM);
	KUNIT_EXPECT_EQ(test, arena->nr_committed_slices, 28);
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(arena));
	KUNIT_EXPECT_LE(test, 0, fx_grant_at(client, 8, 0));
	KUNIT_EXPECT_EQ(test, arena->nr_committed_slices, 36);
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(arena));
}

struct zero_row {
	const char *desc;
	u32 policy;
};

static const struct zero_row policies[] = {
	{ "in an order-9 segment", XALLOC_POLICY_HUGE },
	{ "in pieces", XALLOC_POLICY_SMALL },
};

XALLOC_KUNIT_ROWS(policies, zero_row);

/* Slices 1 and 2 were used; 0 keeps the memory of the segment in place. */
static void zero_on_grant_zeroes_used_memory(struct kunit *test)
{
	const struct zero_row *row = test->param_value;
	struct xalloc_arena *arena = fx_make_arena_by(test, 1, 0, row->policy);
	struct xalloc_client *client = fx_make_client(test);
	struct xalloc_page_grant got;

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 2, 0), 1);
	fx_fill(arena, 0, 3);
	fx_pin_slice(test, 1);
	fx_pin_slice(test, 2);
	KUNIT_EXPECT_EQ(test, fx_free_at(client, 1), 0);
	KUNIT_EXPECT_EQ(test, fx_grant(client, 1, 0, &got), 0);
	KUNIT_EXPECT_EQ(test, got.flags, 0);
	KUNIT_EXPECT_FALSE(test, fx_is_zero(arena, 1, 1));
	KUNIT_EXPECT_EQ(test, fx_grant(client, 1, XALLOC_PAGE_ZERO, &got), 0);
	KUNIT_EXPECT_EQ(test, got.flags, XALLOC_PAGE_ZERO);
	KUNIT_EXPECT_EQ(test, got.offset, 2 * XALLOC_SLICE_BYTES);
	KUNIT_EXPECT_TRUE(test, fx_is_zero(arena, 2, 1));
	/* Its neighbours are as they were. */
	KUNIT_EXPECT_FALSE(test, fx_is_zero(arena, 0, 1));
	KUNIT_EXPECT_FALSE(test, fx_is_zero(arena, 1, 1));
}

static void node_must_be_there(struct kunit *test)
{
	struct xalloc_arena_config config = { .arena_bytes = FX_MIB(4), .node = nr_node_ids };
	struct fixture *fx = test->priv;
	struct xalloc_client *client;

	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(xalloc_arena_create(&config)), -ENODEV);
	config.node = -2;
	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(xalloc_arena_create(&config)), -ENODEV);
	config.node = first_memory_node;
	fx->arena = xalloc_arena_create(&config);
	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(fx->arena), 0);
	client = fx_make_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 40, 0), 0);
	KUNIT_EXPECT_EQ(test, fx->arena->nr_off_node_slices, 0);
	KUNIT_EXPECT_EQ(test, folio_nid(fx_folio_at(fx->arena, 0)), first_memory_node);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(required_fails_without_huge_pages),
	KUNIT_CASE(preferred_falls_back_and_says_so),
	KUNIT_CASE(contig_is_never_in_pieces),
	KUNIT_CASE(pieces_come_and_go_by_themselves),
	KUNIT_CASE(limit_counts_single_pieces),
	KUNIT_CASE(pinned_piece_stays_alone),
	KUNIT_CASE(zombie_of_pieces_goes),
	KUNIT_CASE_PARAM(failed_grant_leaves_no_pieces, pieces_of_eight_gen_params),
	KUNIT_CASE_PARAM(zero_on_grant_zeroes_used_memory, policies_gen_params),
	KUNIT_CASE(node_must_be_there),
	{}
};

struct kunit_suite xalloc_policy_suite = {
	.name = "xalloc_policy",
	.init = fx_init,
	.exit = fx_exit,
	.test_cases = cases,
};
