// SPDX-License-Identifier: GPL-2.0-only
/* Copies of arenas: what is in them, what they cost, and that they are apart. */
#include "fixture.h"

/* What the copy that a case makes is to be like. */
struct copy_row {
	const char *desc;
	u32 policy;
};

static const struct copy_row copies[] = {
	{ "of huge pages", XALLOC_POLICY_HUGE },
	{ "of small pieces", XALLOC_POLICY_SMALL },
};

XALLOC_KUNIT_ROWS(copies, copy_row);

/* Pages of one slice, of several segments, of two clients, with a hole between. */
static const struct {
	u32 nr_slices;
	bool freed;
} pages[] = {
	{ 1 }, { 5, true }, { 31 }, { 70 }, { 1, true }, { 33 },
};

static void fill_arena(struct kunit *test, struct xalloc_arena *arena)
{
	struct xalloc_client *clients[2];
	u32 slices[ARRAY_SIZE(pages)], slice;
	int i;

	clients[0] = fx_make_client(test);
	clients[1] = fx_make_client(test);
	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		struct xalloc_page_grant grant = {
			.nr_slices = pages[i].nr_slices,
			.tag = 1000 + i,
		};

		KUNIT_ASSERT_EQ(test, fx_grant_batch(clients[i % 2], &grant, 1), 1);
		slices[i] = grant.offset / XALLOC_SLICE_BYTES;
		for (slice = slices[i]; slice < slices[i] + pages[i].nr_slices; slice++)
			memset(fx_slice_memory(arena, slice), slice + 1, XALLOC_SLICE_BYTES);
	}
	for (i = 0; i < ARRAY_SIZE(pages); i++)
		if (pages[i].freed)
			KUNIT_ASSERT_EQ(test, fx_free_at(clients[i % 2], slices[i]), 0);
}

/* The heir of a copy of @arena, without contents. */
static struct xalloc_client *make_copy(struct kunit *test, struct xalloc_arena *arena,
				       u64 *nr_changes)
{
	struct xalloc_client *heir = xalloc_copy_create(arena, nr_changes);

	KUNIT_ASSERT_FALSE(test, IS_ERR(heir));
	return heir;
}

/* Every page of @from is in @to, at its place and with its contents; and no other is. */
static void expect_same(struct kunit *test, struct xalloc_arena *to, struct xalloc_arena *from)
{
	struct xalloc_page *page, *copy;
	unsigned long slice;
	u32 i;

	KUNIT_EXPECT_EQ(test, to->pages_persist, from->pages_persist);
	KUNIT_EXPECT_EQ(test, to->nr_pages, from->nr_pages);
	KUNIT_EXPECT_EQ(test, to->nr_granted_slices, from->nr_granted_slices);
	xa_for_each(&from->pages, slice, page) {
		copy = xa_load(&to->pages, slice);
		KUNIT_ASSERT_NOT_NULL(test, copy);
		KUNIT_EXPECT_EQ(test, copy->nr_slices, page->nr_slices);
		KUNIT_EXPECT_EQ(test, copy->tag, page->tag);
		for (i = 0; i < page->nr_slices; i++)
			KUNIT_ASSERT_EQ(test, memcmp(fx_slice_memory(to, slice + i),
						     fx_slice_memory(from, slice + i),
						     XALLOC_SLICE_BYTES), 0);
	}
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(to));
}

/* Page cache has room for one folio at each offset, and the family has several. */
static void memory_of_a_family_is_no_page_cache(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_family(test, 0, XALLOC_POLICY_HUGE);

	fill_arena(test, arena);
	KUNIT_EXPECT_EQ(test, arena->mapping->nrpages, 0);
	KUNIT_EXPECT_NULL(test, fx_folio_at(arena, 0)->mapping);
}

static void copy_has_the_same_pages(struct kunit *test)
{
	const struct copy_row *row = test->param_value;
	struct xalloc_arena *arena = fx_make_family(test, 0, row->policy);
	struct xalloc_client *heir;
	u64 nr_changes;

	fill_arena(test, arena);
	heir = make_copy(test, arena, &nr_changes);
	KUNIT_EXPECT_EQ(test, nr_changes, arena->nr_changes);
	KUNIT_EXPECT_EQ(test, xalloc_copy_fill(heir, arena), 0);
	expect_same(test, heir->arena, arena);
	/* They are two memories. */
	memset(fx_slice_memory(arena, 0), 0x77, XALLOC_SLICE_BYTES);
	KUNIT_EXPECT_NE(test, *(u8 *)fx_slice_memory(heir->arena, 0), 0x77);
	xalloc_copy_destroy(heir);
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(arena));
}

static void copy_of_a_copy(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_family(test, 0, XALLOC_POLICY_HUGE);
	struct xalloc_client *child, *grandchild;
	u64 nr_changes;

	arena->pages_persist = true;
	fill_arena(test, arena);
	child = make_copy(test, arena, &nr_changes);
	KUNIT_EXPECT_EQ(test, xalloc_copy_fill(child, arena), 0);
	KUNIT_EXPECT_EQ(test, fx_free_at(child, 0), 0);
	grandchild = make_copy(test, child->arena, &nr_changes);
	KUNIT_EXPECT_EQ(test, xalloc_copy_fill(grandchild, child->arena), 0);
	expect_same(test, grandchild->arena, child->arena);
	KUNIT_EXPECT_PTR_EQ(test, grandchild->arena->family, arena->family);
	xalloc_copy_destroy(child);
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(grandchild->arena));
	xalloc_copy_destroy(grandchild);
}

/* Between the two steps a thread of the parent may free. */
static void page_that_is_freed_meanwhile_is_not_copied(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_family(test, 0, XALLOC_POLICY_HUGE);
	struct fixture *fx = test->priv;
	struct xalloc_client *heir;
	u64 nr_changes;

	fill_arena(test, arena);
	heir = make_copy(test, arena, &nr_changes);
	KUNIT_ASSERT_EQ(test, fx_free_at(fx->clients[0], 0), 0);
	KUNIT_EXPECT_NE(test, nr_changes, arena->nr_changes);
	KUNIT_EXPECT_EQ(test, xalloc_copy_fill(heir, arena), 0);
	expect_same(test, heir->arena, arena);
	xalloc_copy_destroy(heir);
}

/* What is left of a page stays, in two pages here as there. */
static void part_that_is_freed_meanwhile_is_not_copied(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_family(test, 0, XALLOC_POLICY_HUGE);
	struct xalloc_client *client = fx_make_client(test), *heir;
	const struct xalloc_range middle = { 20 * XALLOC_SLICE_BYTES, 30 * XALLOC_SLICE_BYTES };
	u64 nr_changes;

	KUNIT_ASSERT_EQ(test, fx_grant_at(client, 70, 0), 0);
	memset(fx_slice_memory(arena, 69), 0x11, XALLOC_SLICE_BYTES);
	heir = make_copy(test, arena, &nr_changes);
	KUNIT_ASSERT_EQ(test, xalloc_client_free(client, &middle, 1, false), 1);
	KUNIT_EXPECT_EQ(test, arena->nr_pages, 2);
	KUNIT_EXPECT_EQ(test, xalloc_copy_fill(heir, arena), 0);
	expect_same(test, heir->arena, arena);
	xalloc_copy_destroy(heir);
}

/* One that is to be dropped from the copy, whose records of it contradict each other. */
static void page_that_cannot_be_dropped_stays_the_heirs(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_family(test, 0, XALLOC_POLICY_HUGE);
	struct fixture *fx = test->priv;
	struct xalloc_client *heir;
	struct xalloc_page *page;
	u64 nr_changes;
	u32 nr = 0;

	fill_arena(test, arena);
	heir = make_copy(test, arena, &nr_changes);
	KUNIT_ASSERT_EQ(test, fx_free_at(fx->clients[0], 0), 0);
	KUNIT_ASSERT_EQ(test, xalloc_placement_give(&heir->arena->placement, 0, 1), 0);
	KUNIT_EXPECT_EQ(test, xalloc_copy_fill(heir, arena), 0);
	list_for_each_entry(page, &heir->pages, link)
		nr++;
	KUNIT_EXPECT_EQ(test, nr, heir->arena->nr_pages);
	xalloc_copy_destroy(heir);
}

/* That of a client who is gone, and that is still pinned, is nobody's. */
static void page_in_quarantine_is_not_copied(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_family(test, 0, XALLOC_POLICY_HUGE);
	struct fixture *fx = test->priv;
	struct xalloc_client *heir;
	u64 nr_changes;

	fill_arena(test, arena);
	fx_pin(test, 0);
	fx_drop_client(test, fx->clients[0]);
	KUNIT_EXPECT_FALSE(test, list_empty(&arena->quarantine));
	heir = make_copy(test, arena, &nr_changes);
	KUNIT_EXPECT_EQ(test, heir->arena->nr_pages, arena->nr_pages);
	KUNIT_EXPECT_EQ(test, heir->arena->nr_granted_slices, arena->nr_granted_slices);
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(heir->arena));
	xalloc_copy_destroy(heir);
}

/* Four segments and their copy fit below eight. */
static void copies_count_against_the_limit(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_family(test, 8, XALLOC_POLICY_HUGE);
	struct xalloc_client *client = fx_make_client(test), *heir;
	u64 nr_changes;

	KUNIT_ASSERT_EQ(test, fx_grant_at(client, 128, 0), 0);
	heir = make_copy(test, arena, &nr_changes);
	KUNIT_EXPECT_EQ(test, arena->budget->nr_slices, 256);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), -EDQUOT);
	KUNIT_EXPECT_EQ(test, fx_grant_at(heir, 1, 0), -EDQUOT);
	KUNIT_EXPECT_EQ(test, xalloc_arena_set_limit(arena, FX_MIB(14)), -EBUSY);
	xalloc_copy_destroy(heir);
	KUNIT_EXPECT_EQ(test, arena->budget->nr_slices, 128);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 1, 0), 128);
	KUNIT_EXPECT_EQ(test, PTR_ERR(xalloc_copy_create(arena, &nr_changes)), -EDQUOT);
	KUNIT_EXPECT_EQ(test, arena->budget->nr_slices, 160);
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(arena));
	KUNIT_EXPECT_EQ(test, xalloc_arena_set_limit(arena, FX_MIB(20)), 0);
	heir = make_copy(test, arena, &nr_changes);
	xalloc_copy_destroy(heir);
}

static void copy_is_charged_to_the_same_payer(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_family(test, 0, XALLOC_POLICY_HUGE);
	struct xalloc_client *client, *heir;
	u64 nr_changes;

	fx_make_payer(arena, 3);
	client = fx_make_client(test);
	KUNIT_ASSERT_EQ(test, fx_grant_at(client, 64, 0), 0);
	KUNIT_EXPECT_EQ(test, PTR_ERR(xalloc_copy_create(arena, &nr_changes)), -ENOBUFS);
	KUNIT_ASSERT_EQ(test, fx_free_at(client, 0), 0);
	KUNIT_ASSERT_EQ(test, fx_grant_at(client, 32, 0), 0);
	heir = make_copy(test, arena, &nr_changes);
	KUNIT_EXPECT_PTR_EQ(test, heir->arena->payer.user, arena->payer.user);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 64, 0), -ENOBUFS);
	xalloc_copy_destroy(heir);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 64, 0), 32);
}

/* A killed task copies one segment and then stops. */
static void kill_ends_the_copying(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_family(test, 0, XALLOC_POLICY_HUGE);
	struct xalloc_client *client = fx_make_client(test), *heir;
	u64 nr_changes;

	KUNIT_ASSERT_EQ(test, fx_grant_at(client, 96, 0), 0);
	fx_fill(arena, 0, 96);
	heir = make_copy(test, arena, &nr_changes);
	fx_kill();
	KUNIT_EXPECT_EQ(test, xalloc_copy_fill(heir, arena), -EINTR);
	KUNIT_EXPECT_EQ(test, PTR_ERR(xalloc_copy_create(arena, &nr_changes)), -EINTR);
	fx_revive();
	KUNIT_EXPECT_TRUE(test, fx_is_zero(heir->arena, 32, 64));
	xalloc_copy_destroy(heir);
	FX_EXPECT_ALIVE(test, 1, 96, 3, 0, 0);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(kill_ends_the_copying),
	KUNIT_CASE(memory_of_a_family_is_no_page_cache),
	KUNIT_CASE_PARAM(copy_has_the_same_pages, copies_gen_params),
	KUNIT_CASE(copy_of_a_copy),
	KUNIT_CASE(page_that_is_freed_meanwhile_is_not_copied),
	KUNIT_CASE(part_that_is_freed_meanwhile_is_not_copied),
	KUNIT_CASE(page_that_cannot_be_dropped_stays_the_heirs),
	KUNIT_CASE(page_in_quarantine_is_not_copied),
	KUNIT_CASE(copies_count_against_the_limit),
	KUNIT_CASE(copy_is_charged_to_the_same_payer),
	{}
};

struct kunit_suite xalloc_copy_suite = {
	.name = "xalloc_copy",
	.init = fx_init,
	.exit = fx_exit,
	.test_cases = cases,
};
