// SPDX-License-Identifier: GPL-2.0-only
/*
 * The arena's validator: that what the other suites ask after each step would say no.
 *
 * One thing is wrong at a time: bits of a field, or something in two places that should
 * agree. The validator must see it, and must be content when it is undone.
 */
#include <linux/slab.h>

#include "fixture.h"

/*
 * An arena of six segments. Of client 0 are a page at slice 0, 8 long, and one at 8, 40
 * long; of client 1 one at 48, 4 long. Segment 2 is in quarantine, segment 3 idle, both
 * pinned; 4 and 5 have no memory.
 */
struct scene {
	struct xalloc_arena *arena;
	struct xalloc_client *client;
	struct xalloc_segment *used;
	struct xalloc_segment *idle;
	struct xalloc_page *page;
	struct xalloc_page *quarantined;
};

enum damaged { ARENA, USED, IDLE, FOLIO, PAGE, QUARANTINED };

struct arena_row {
	const char *desc;
	/* Either bits of an object to flip, */
	enum damaged object;
	struct flip flip;
	/* or something else, done or undone. */
	void (*damage)(struct scene *scene, bool undo);
};

static void list_toggle(struct list_head *entry, struct list_head *list, bool undo)
{
	if (undo)
		list_add(entry, list);
	else
		list_del_init(entry);
}

static void page_off_its_list(struct scene *scene, bool undo)
{
	list_toggle(&scene->page->link, &scene->client->pages, undo);
}

static void page_off_quarantine(struct scene *scene, bool undo)
{
	list_toggle(&scene->quarantined->link, &scene->arena->quarantine, undo);
}

static void page_in_quarantine(struct scene *scene, bool undo)
{
	list_move(&scene->page->link,
		  undo ? &scene->client->pages : &scene->arena->quarantine);
}

static void segment_off_idle(struct scene *scene, bool undo)
{
	list_toggle(&scene->idle->idle, &scene->arena->rest, undo);
}

static void used_segment_on_idle(struct scene *scene, bool undo)
{
	if (undo)
		list_del_init(&scene->used->idle);
	else
		list_add(&scene->used->idle, &scene->arena->rest);
}

static void page_without_client(struct scene *scene, bool undo)
{
	scene->page->client = undo ? scene->client : NULL;
}

static void page_forgotten(struct scene *scene, bool undo)
{
	if (undo)
		xa_store(&scene->arena->pages, 0, scene->page, GFP_KERNEL);
	else
		xa_erase(&scene->arena->pages, 0);
}

static void page_found_elsewhere(struct scene *scene, bool undo)
{
	if (undo)
		xa_erase(&scene->arena->pages, 60);
	else
		xa_store(&scene->arena->pages, 60, scene->page, GFP_KERNEL);
}

static void page_found_past_the_end(struct scene *scene, bool undo)
{
	if (undo)
		xa_erase(&scene->arena->pages, 192);
	else
		xa_store(&scene->arena->pages, 192, scene->page, GFP_KERNEL);
}

static void segment_forgotten(struct scene *scene, bool undo)
{
	if (undo)
		xa_store(&scene->arena->segments, 3, scene->idle, GFP_KERNEL);
	else
		xa_erase(&scene->arena->segments, 3);
}

static void segment_found_elsewhere(struct scene *scene, bool undo)
{
	if (undo)
		xa_erase(&scene->arena->segments, 4);
	else
		xa_store(&scene->arena->segments, 4, scene->idle, GFP_KERNEL);
}

static void segment_found_past_the_end(struct scene *scene, bool undo)
{
	if (undo)
		xa_erase(&scene->arena->segments, 6);
	else
		xa_store(&scene->arena->segments, 6, scene->idle, GFP_KERNEL);
}

static void take_slice(struct scene *scene)
{
	const struct xalloc_placement_request one = { .nr_slices = 1, .contig = true };
	u32 slice;

	xalloc_placement_take(&scene->arena->placement, &one, &slice);
}

static void slice_taken_by_nobody(struct scene *scene, bool undo)
{
	if (undo)
		xalloc_placement_give(&scene->arena->placement, 52, 1);
	else
		take_slice(scene);
}

/* Slice 8 is the longer page's; it is taken again as the tightest fit. */
static void granted_slice_free(struct scene *scene, bool undo)
{
	if (undo)
		take_slice(scene);
	else
		xalloc_placement_give(&scene->arena->placement, 8, 1);
}

static void segment_without_memory_backed(struct scene *scene, bool undo)
{
	xalloc_placement_set_backing(&scene->arena->placement, 4,
				     undo ? XALLOC_BACKING_BARE : XALLOC_BACKING_HUGE);
}

static void less_charged_than_committed(struct scene *scene, bool undo)
{
	/* The arena drops no reference that it was not given: this is undone before. */
	scene->arena->payer.user = undo ? NULL : current_user();
}

static const struct arena_row arena_damages[] = {
	{ "a page more than there is", ARENA, FLIP(xalloc_arena, nr_pages, 4) },
	{ "a granted slice more than there is", ARENA, FLIP(xalloc_arena, nr_granted_slices, 1) },
	{ "a committed slice more than there is",
	  ARENA, FLIP(xalloc_arena, nr_committed_slices, 1) },
	{ "an idle slice more than there is", ARENA, FLIP(xalloc_arena, nr_idle_slices, 1) },
	{ "no client, but pages", ARENA, FLIP(xalloc_arena, nr_clients, 2) },
	{ "more slices than the limit", ARENA, FLIP(xalloc_arena, limit_slices, 160 ^ 96) },
	{ "a free slice more than there is",
	  ARENA, FLIP(xalloc_arena, placement.nr_free_slices, 1) },
	{ "a segment at another number than its own", USED, FLIP(xalloc_segment, index, 1) },
	{ "a slice less in a segment", USED, FLIP(xalloc_segment, granted, BIT(3)) },
	{ "a granted slice that was never touched", USED, FLIP(xalloc_segment, touched, BIT(9)) },
	{ "an idle segment with a granted slice", IDLE, FLIP(xalloc_segment, granted, 1) },
	{ "a granted slice without memory", USED, FLIP(xalloc_segment, present, 1) },
	{ "a slice with the memory of another", USED, FLIP(xalloc_segment, folio[5], 64) },
	{ "a segment whose memory is of the other kind", USED,
	  FLIP(xalloc_segment, in_pieces, 1) },
	{ "a reserved segment with a page", USED, FLIP(xalloc_segment, reserved, 1) },
	{ "a reserved segment more than there is", ARENA, FLIP(xalloc_arena, nr_reserved, 1) },
	{ "a page in quarantine more than there is", ARENA, FLIP(xalloc_arena, nr_quarantined, 2) },
	{ "a page over a segment that it is not in", USED, FLIP(xalloc_segment, over, 64) },
	{ "a dirty segment out of the reserve", IDLE, FLIP(xalloc_segment, dirty, 1) },
	{ "a small slice more than there is", ARENA, FLIP(xalloc_arena, nr_small_slices, 1) },
	{ "memory whose index is not its place", FOLIO, FLIP(folio, index, 512) },
	{ "a page at another slice than its own", PAGE, FLIP(xalloc_page, slice, 1) },
	{ "a page of no length", PAGE, FLIP(xalloc_page, nr_slices, 8) },
	{ "a page that is shorter than its run", PAGE, FLIP(xalloc_page, nr_slices, 8 ^ 7) },
	{ "a page that runs into the next", PAGE, FLIP(xalloc_page, nr_slices, 8 ^ 9) },
	{ "a page past the end", PAGE, FLIP(xalloc_page, nr_slices, 8 ^ 193) },
	{ "a page past what 32 bits count", PAGE, FLIP(xalloc_page, nr_slices, 8 ^ ~0u) },
	{ "a page with the number of another client", PAGE, FLIP(xalloc_page, client_id, 1) },
	{ "a page that its client has, but not yet", PAGE, FLIP(xalloc_page, granted, 1) },
	{ "a page in quarantine that nobody was granted",
	  QUARANTINED, FLIP(xalloc_page, granted, 1) },
	{ "a page in quarantine that is too long", QUARANTINED, FLIP(xalloc_page, nr_slices, 1) },
	{ "a page on no list", .damage = page_off_its_list },
	{ "a page in quarantine with a client", .damage = page_in_quarantine },
	{ "a page without a client out of quarantine", .damage = page_off_quarantine },
	{ "a page of a client without one", .damage = page_without_client },
	{ "a page that is not found", .damage = page_forgotten },
	{ "a page that is found twice", .damage = page_found_elsewhere },
	{ "a page that is found past the end", .damage = page_found_past_the_end },
	{ "an idle segment that is not on the list", .damage = segment_off_idle },
	{ "a segment on the list that is not idle", .damage = used_segment_on_idle },
	{ "a segment that is not found", .damage = segment_forgotten },
	{ "a segment that is found twice", .damage = segment_found_elsewhere },
	{ "a segment that is found past the end", .damage = segment_found_past_the_end },
	{ "a taken slice of no page", .damage = slice_taken_by_nobody },
	{ "a free slice of a page", .damage = granted_slice_free },
	{ "a segment without memory that has some to placement",
	  .damage = segment_without_memory_backed },
	{ "a payer who is charged less than is committed", .damage = less_charged_than_committed },
};

XALLOC_KUNIT_ROWS(arena_damages, arena_row);

static void do_damage(struct scene *scene, const struct arena_row *row, bool undo)
{
	void *objects[] = {
		[ARENA] = scene->arena,
		[USED] = scene->used,
		[IDLE] = scene->idle,
		[FOLIO] = scene->used->folio[0],
		[PAGE] = scene->page,
		[QUARANTINED] = scene->quarantined,
	};

	if (row->damage)
		row->damage(scene, undo);
	else
		flip(objects[row->object], &row->flip);
}

static void arena_damage_is_seen(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_arena(test, 6, 5);
	struct xalloc_client *one = fx_make_client(test), *two = fx_make_client(test);
	struct xalloc_client *dead = fx_make_client(test);
	struct scene scene = { .arena = arena, .client = one };

	KUNIT_ASSERT_EQ(test, fx_grant_at(one, 8, 0), 0);
	KUNIT_ASSERT_EQ(test, fx_grant_at(one, 40, 0), 8);
	KUNIT_ASSERT_EQ(test, fx_grant_at(two, 4, 0), 48);
	KUNIT_ASSERT_EQ(test, fx_grant_at(dead, 32, 0), 64);
	KUNIT_ASSERT_EQ(test, fx_grant_at(two, 32, 0), 96);
	fx_pin(test, 2);
	fx_pin(test, 3);
	fx_drop_client(test, dead);
	KUNIT_ASSERT_EQ(test, fx_free_at(two, 96), 0);
	FX_EXPECT_ALIVE(test, 3, 52, 4, 2);
	/* The worker must not meet the damage. */
	cancel_delayed_work_sync(&arena->reap);
	scene.used = xa_load(&arena->segments, 0);
	scene.idle = xa_load(&arena->segments, 3);
	scene.page = xa_load(&arena->pages, 0);
	scene.quarantined = xa_load(&arena->pages, 64);

	KUNIT_ASSERT_TRUE(test, xalloc_arena_is_valid(arena));
	do_damage(&scene, test->param_value, false);
	KUNIT_EXPECT_FALSE(test, xalloc_arena_is_valid(arena));
	do_damage(&scene, test->param_value, true);
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(arena));
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(arena_damage_is_seen, arena_damages_gen_params),
	{}
};

struct kunit_suite xalloc_validate_suite = {
	.name = "xalloc_validate",
	.init = fx_init,
	.exit = fx_exit,
	.test_cases = cases,
};
