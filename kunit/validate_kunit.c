// SPDX-License-Identifier: GPL-2.0-only
/*
 * Validators: that what the other suites ask after each step would say no.
 *
 * One thing is wrong at a time: bits of a field, or something in two places that should
 * agree. The validator must see it, and must be content when it is undone.
 */
#include <linux/slab.h>

#include "fixture.h"

struct flip {
	size_t offset;
	size_t size;
	u64 bits;
};

#define FLIP(type, field, _bits) {					\
	.offset = offsetof(struct type, field),				\
	.size = sizeof_field(struct type, field),			\
	.bits = (_bits),						\
}

static void flip(void *object, const struct flip *flip)
{
	void *field = object + flip->offset;

	switch (flip->size) {
	case 1:
		*(u8 *)field ^= flip->bits;
		break;
	case 4:
		*(u32 *)field ^= flip->bits;
		break;
	case 8:
		*(u64 *)field ^= flip->bits;
		break;
	}
}

/*
 * Five segments: 0 and 4 share queue 8, 1 is full, 2 is whole and has memory, 3 is bare.
 * The tree has eight leaves, from 8 on.
 */
struct five {
	struct xalloc_placement pl;
	struct xalloc_placement_segment segment[5];
	struct xalloc_placement_span span[16];
};

struct placement_row {
	const char *desc;
	struct flip flip;
};

static const struct placement_row placement_damages[] = {
	{ "a free slice more than there is", FLIP(five, pl.nr_free_slices, 1) },
	{ "a segment less than there is", FLIP(five, pl.nr_segments, 1) },
	{ "half the leaves", FLIP(five, pl.nr_leaves, 12) },
	{ "the bit of a queue that is empty", FLIP(five, pl.queues, BIT(5)) },
	{ "no bit for a queue that is not", FLIP(five, pl.queues, BIT(8)) },
	{ "a bit past the queues", FLIP(five, pl.queues, BIT_ULL(XALLOC_NR_QUEUES)) },
	{ "the head of an empty queue", FLIP(five, pl.head[5], ~0u) },
	{ "no head of a queue that is not", FLIP(five, pl.head[8], ~0u) },
	{ "a head from another queue", FLIP(five, pl.head[8], 2) },
	{ "a head that is on no queue", FLIP(five, pl.head[XALLOC_QUEUE_BARE], 2) },
	{ "a head past the segments", FLIP(five, pl.head[8], 5) },
	{ "a taken slice as free", FLIP(five, segment[1].free, BIT(0)) },
	{ "a free slice as taken", FLIP(five, segment[0].free, BIT(8)) },
	{ "a free slice of a whole segment as taken", FLIP(five, segment[2].free, BIT(31)) },
	{ "a segment with memory as bare", FLIP(five, segment[2].backed, 1) },
	{ "a bare segment as one with memory", FLIP(five, segment[3].backed, 1) },
	{ "a full segment on a queue", FLIP(five, segment[1].queue, 8) },
	{ "a segment on a queue of longer runs", FLIP(five, segment[0].queue, 1) },
	{ "a whole segment on a queue of used ones", FLIP(five, segment[2].queue, 32) },
	{ "a segment on a queue past the last", FLIP(five, segment[3].queue, 64) },
	{ "a next that leaves the ring too early", FLIP(five, segment[0].next, 4) },
	{ "a next on another queue", FLIP(five, segment[0].next, 6) },
	{ "a next past the segments", FLIP(five, segment[0].next, 1) },
	{ "a previous on another queue", FLIP(five, segment[0].prev, 6) },
	{ "a previous that is itself", FLIP(five, segment[0].prev, 4) },
	{ "a previous past the segments", FLIP(five, segment[4].prev, 5) },
	{ "a next of the only one on its queue", FLIP(five, segment[3].next, 1) },
	{ "a previous of the only one on its queue", FLIP(five, segment[3].prev, 1) },
	{ "a left run of a segment", FLIP(five, span[8].left, 8) },
	{ "a right run of a segment", FLIP(five, span[10].right, 32) },
	{ "a longest run of a segment", FLIP(five, span[12].longest, 1) },
	{ "a run past the last segment", FLIP(five, span[13].longest, 32) },
	{ "a left run of a node", FLIP(five, span[5].left, 1) },
	{ "a right run of a node", FLIP(five, span[4].right, 16) },
	{ "a longest run of a node", FLIP(five, span[6].longest, 8) },
	{ "a left run of the root", FLIP(five, span[1].left, 1) },
	{ "a right run of the root", FLIP(five, span[1].right, 1) },
	{ "a longest run of the root", FLIP(five, span[1].longest, 1) },
};

XALLOC_KUNIT_ROWS(placement_damages, placement_row);

static void placement_damage_is_seen(struct kunit *test)
{
	static const u32 free[] = { 0x0000ff00, 0, ~0u, ~0u, 0x00ff0000 };
	const struct placement_row *row = test->param_value;
	struct five *five = kunit_kzalloc(test, sizeof(*five), GFP_KERNEL);
	struct five before;
	u32 slice;

	BUILD_BUG_ON(offsetof(struct five, span) != offsetofend(struct five, segment));
	KUNIT_ASSERT_NOT_NULL(test, five);
	KUNIT_ASSERT_EQ(test, xalloc_placement_table_bytes(5),
			sizeof(five->segment) + sizeof(five->span));
	xalloc_placement_init(&five->pl, 5, five->segment);
	KUNIT_ASSERT_EQ(test, xalloc_placement_take(&five->pl, 160, false), 0);
	for (slice = 0; slice < 160; slice++)
		if (free[slice / 32] & BIT(slice % 32))
			KUNIT_ASSERT_TRUE(test, xalloc_placement_give(&five->pl, slice, 1));
	for (slice = 0; slice < 160; slice += 32)
		xalloc_placement_set_backed(&five->pl, slice / 32, slice / 32 != 3);

	KUNIT_ASSERT_TRUE(test, xalloc_placement_is_valid(&five->pl));
	before = *five;
	flip(five, &row->flip);
	KUNIT_EXPECT_NE(test, memcmp(&before, five, sizeof(before)), 0);
	KUNIT_EXPECT_FALSE(test, xalloc_placement_is_valid(&five->pl));
	flip(five, &row->flip);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(&five->pl));
}

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
	list_toggle(&scene->idle->idle, &scene->arena->idle, undo);
}

static void used_segment_on_idle(struct scene *scene, bool undo)
{
	if (undo)
		list_del(&scene->used->idle);
	else
		list_add(&scene->used->idle, &scene->arena->idle);
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

static void slice_taken_by_nobody(struct scene *scene, bool undo)
{
	if (undo)
		xalloc_placement_give(&scene->arena->placement, 52, 1);
	else
		xalloc_placement_take(&scene->arena->placement, 1, true);
}

/* Slice 8 is the longer page's; it is taken again as the tightest fit. */
static void granted_slice_free(struct scene *scene, bool undo)
{
	if (undo)
		xalloc_placement_take(&scene->arena->placement, 1, true);
	else
		xalloc_placement_give(&scene->arena->placement, 8, 1);
}

static void segment_without_memory_backed(struct scene *scene, bool undo)
{
	xalloc_placement_set_backed(&scene->arena->placement, 4, !undo);
}

static void less_charged_than_committed(struct scene *scene, bool undo)
{
	/* The arena drops no reference that it was not given: this is undone before. */
	scene->arena->payer.user = undo ? NULL : current_user();
}

static const struct arena_row arena_damages[] = {
	{ "a page more than there is", ARENA, FLIP(xalloc_arena, nr_pages, 4) },
	{ "a granted slice more than there is", ARENA, FLIP(xalloc_arena, nr_granted_slices, 1) },
	{ "a segment more than there is", ARENA, FLIP(xalloc_arena, nr_committed, 1) },
	{ "an idle segment more than there is", ARENA, FLIP(xalloc_arena, nr_idle, 1) },
	{ "no client, but pages", ARENA, FLIP(xalloc_arena, nr_clients, 2) },
	{ "more segments than the limit", ARENA, FLIP(xalloc_arena, limit_segments, 5 ^ 3) },
	{ "a free slice more than there is",
	  ARENA, FLIP(xalloc_arena, placement.nr_free_slices, 1) },
	{ "a segment at another number than its own", USED, FLIP(xalloc_segment, index, 1) },
	{ "a slice less in a segment", USED, FLIP(xalloc_segment, nr_granted, 1) },
	{ "a granted slice that was never touched", USED, FLIP(xalloc_segment, touched, BIT(9)) },
	{ "an idle segment with a granted slice", IDLE, FLIP(xalloc_segment, nr_granted, 1) },
	{ "memory whose index is not its place", FOLIO, FLIP(folio, index, 512) },
	{ "a page at another slice than its own", PAGE, FLIP(xalloc_page, slice, 1) },
	{ "a page of no length", PAGE, FLIP(xalloc_page, nr_slices, 8) },
	{ "a page that is shorter than its run", PAGE, FLIP(xalloc_page, nr_slices, 8 ^ 7) },
	{ "a page that runs into the next", PAGE, FLIP(xalloc_page, nr_slices, 8 ^ 9) },
	{ "a page past the end", PAGE, FLIP(xalloc_page, nr_slices, 8 ^ 193) },
	{ "a page past what 32 bits count", PAGE, FLIP(xalloc_page, nr_slices, 8 ^ ~0u) },
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
		[FOLIO] = scene->used->folio,
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
	KUNIT_CASE_PARAM(placement_damage_is_seen, placement_damages_gen_params),
	KUNIT_CASE_PARAM(arena_damage_is_seen, arena_damages_gen_params),
	{}
};

struct kunit_suite xalloc_validate_suite = {
	.name = "xalloc_validate",
	.init = fx_init,
	.exit = fx_exit,
	.test_cases = cases,
};
