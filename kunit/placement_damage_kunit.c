// SPDX-License-Identifier: GPL-2.0-only
/*
 * Placement, damaged: one thing is wrong at a time, bits of a field or a pointer. The
 * validator sees it and is content when it is undone; calls that meet it go on elsewhere.
 */
#include <linux/bitops.h>
#include <linux/slab.h>

#include "helpers.h"

/*
 * Six segments: 0 and 4 share queue 8, 1 is full, 2 is whole and has memory, 3 is bare and has
 * no record, 5 is fenced and has one slice taken. Nodes are named for the segments below.
 */
enum place {
	NOTHING,
	PL,
	SEGMENT_0,
	SEGMENT_1,
	SEGMENT_2,
	SEGMENT_4,
	SEGMENT_5,
	NODE_0_7,
	NODE_0_3,
	NODE_0_1,
	NODE_2_3,
	NODE_4_7,
	NR_PLACES,
};

/* Bits of a field at @at are wrong; or if it is a pointer, it is one to @to. */
struct placement_row {
	const char *desc;
	enum place at;
	struct flip flip;
	enum place to;
};

#define POINTER(type, field) FLIP(type, field, 0)
#define NEXT POINTER(xalloc_placement_segment, next)
#define PREV POINTER(xalloc_placement_segment, prev)
#define PLACED(field, bits) FLIP(xalloc_placement, field, bits)
#define SEGMENT(field, bits) FLIP(xalloc_placement_segment, field, bits)
#define NODE(field, bits) FLIP(xalloc_placement_node, field, bits)

static const struct placement_row placement_damages[] = {
	{ "a free slice more than there is", PL, PLACED(nr_free_slices, 1) },
	{ "a segment less than there is", PL, PLACED(nr_segments, 6 ^ 5) },
	{ "more segments than the tree has room for", PL, PLACED(nr_segments, 6 ^ 9) },
	{ "no segment", PL, PLACED(nr_segments, 6) },
	{ "a level more than needed", PL, PLACED(nr_levels, 3 ^ 4) },
	{ "a record more than there is", PL, PLACED(nr_records, 5 ^ 6) },
	{ "a fenced segment more than there is", PL, PLACED(nr_fenced, 3) },
	{ "a table more than there is", PL, PLACED(table_bytes, 1) },
	{ "the bit of a queue that is empty", PL, PLACED(queues, BIT(4)) },
	{ "no bit for a queue that is not", PL, PLACED(queues, BIT(7)) },
	{ "the head of an empty queue", PL, POINTER(xalloc_placement, head[5]), SEGMENT_0 },
	{ "the head of no queue", PL, POINTER(xalloc_placement, head[0]), SEGMENT_1 },
	{ "no head of a queue that is not empty", PL, POINTER(xalloc_placement, head[8]), NOTHING },
	{ "a head from another queue", PL, POINTER(xalloc_placement, head[8]), SEGMENT_2 },
	{ "a head that is on no queue", PL, POINTER(xalloc_placement, head[32]), SEGMENT_1 },
	{ "a tree that begins further down", PL, POINTER(xalloc_placement, root), NODE_0_3 },
	{ "no tree", PL, POINTER(xalloc_placement, root), NOTHING },
	{ "a taken slice as free", SEGMENT_1, SEGMENT(free, BIT(0)) },
	{ "a free slice as taken", SEGMENT_0, SEGMENT(free, BIT(8)) },
	{ "a free slice of a whole segment as taken", SEGMENT_2, SEGMENT(free, BIT(31)) },
	{ "a free slice of a fenced segment", SEGMENT_5, SEGMENT(free, BIT(0)) },
	{ "a lost slice of a segment that is not fenced", SEGMENT_1, SEGMENT(lost, BIT(0)) },
	{ "a slice that is free and lost", SEGMENT_0, SEGMENT(lost, BIT(8)) },
	{ "a fenced segment as one that is not", SEGMENT_5, SEGMENT(fenced, 1) },
	{ "a segment as fenced", SEGMENT_1, SEGMENT(fenced, 1) },
	{ "a whole segment with memory as bare", SEGMENT_2, SEGMENT(backing, 1) },
	{ "a segment of pieces on a queue of others", SEGMENT_0, SEGMENT(backing, 1 ^ 2) },
	{ "memory of no kind", SEGMENT_1, SEGMENT(backing, 1 ^ 3) },
	{ "a record of another segment", SEGMENT_1, SEGMENT(index, 1) },
	{ "a full segment on a queue", SEGMENT_1, SEGMENT(queue, 8) },
	{ "a segment on a queue of longer runs", SEGMENT_0, SEGMENT(queue, 1) },
	{ "a whole segment on a queue of used ones", SEGMENT_2, SEGMENT(queue, 32 ^ 31) },
	{ "a segment on a queue past the last", SEGMENT_2, SEGMENT(queue, 64) },
	{ "a segment on no queue", SEGMENT_2, SEGMENT(queue, 32) },
	{ "a next that leaves the ring too early", SEGMENT_0, NEXT, SEGMENT_0 },
	{ "a next on another queue", SEGMENT_0, NEXT, SEGMENT_2 },
	{ "no next", SEGMENT_0, NEXT, NOTHING },
	{ "a previous on another queue", SEGMENT_0, PREV, SEGMENT_2 },
	{ "a previous that is itself", SEGMENT_0, PREV, SEGMENT_0 },
	{ "no previous", SEGMENT_4, PREV, NOTHING },
	{ "a next of the only one on its queue", SEGMENT_2, NEXT, SEGMENT_0 },
	{ "a previous of the only one on its queue", SEGMENT_2, PREV, SEGMENT_0 },
	{ "a segment below another node",
	  SEGMENT_2, POINTER(xalloc_placement_segment, parent), NODE_0_1 },
	{ "a node below another", NODE_0_1, POINTER(xalloc_placement_node, parent), NODE_4_7 },
	{ "a root below another node", NODE_0_7, POINTER(xalloc_placement_node, parent), NODE_4_7 },
	{ "a node with nothing below",
	  NODE_2_3, POINTER(xalloc_placement_node, child[0]), NOTHING },
	{ "a segment in the place of another",
	  NODE_0_1, POINTER(xalloc_placement_node, child[1]), SEGMENT_0 },
	{ "a segment that is not found",
	  NODE_0_1, POINTER(xalloc_placement_node, child[0]), NOTHING },
	{ "a record less below a node", NODE_0_1, NODE(nr_records, 2 ^ 1) },
	{ "a record more below the root", NODE_0_7, NODE(nr_records, 5 ^ 4) },
	{ "a left run of the lowest node", NODE_2_3, NODE(span.left, 64 ^ 32) },
	{ "a right run of the lowest node", NODE_0_1, NODE(span.right, 1) },
	{ "a longest run of the lowest node", NODE_0_1, NODE(span.longest, 8 ^ 9) },
	{ "a run past the last segment", NODE_4_7, NODE(span.right, 32) },
	{ "a left run of a node", NODE_0_3, NODE(span.left, 1) },
	{ "a right run of a node", NODE_0_3, NODE(span.right, 64 ^ 72) },
	{ "a longest run of a node", NODE_4_7, NODE(span.longest, 8) },
	{ "a left run of the root", NODE_0_7, NODE(span.left, 1) },
	{ "a right run of the root", NODE_0_7, NODE(span.right, 1) },
	{ "a longest run of the root", NODE_0_7, NODE(span.longest, 1) },
};

XALLOC_KUNIT_ROWS(placement_damages, placement_row);

struct scene {
	struct xalloc_placement pl;
	void *places[NR_PLACES];
	void *before;
};

static int damage_init(struct kunit *test)
{
	static const u32 free[] = { 0x0000ff00, 0, ~0u, ~0u, 0x00ff0000, 0x7fffffff };
	const struct xalloc_placement_request all = { .nr_slices = 192 };
	struct scene *scene = kunit_kzalloc(test, sizeof(*scene), GFP_KERNEL);
	struct xalloc_placement *pl = &scene->pl;
	void **places = scene->places;
	u32 slice, s;

	KUNIT_ASSERT_NOT_NULL(test, scene);
	test->priv = scene;
	xalloc_placement_init(pl, 6);
	KUNIT_ASSERT_EQ(test, xalloc_placement_take(pl, &all, &slice), 0);
	for (s = 0; s < 6; s++)
		xalloc_placement_set_backing(pl, s, s != 3);
	for (slice = 0; slice < 192; slice++)
		if (free[slice / 32] & BIT(slice % 32))
			KUNIT_ASSERT_EQ(test, xalloc_placement_give(pl, slice, 1), 0);
	xalloc_placement_fence(pl, 5);
	KUNIT_ASSERT_TRUE(test, xalloc_placement_is_valid(pl));

	places[PL] = pl;
	places[NODE_0_7] = pl->root.node;
	places[NODE_0_3] = pl->root.node->child[0].node;
	places[NODE_4_7] = pl->root.node->child[1].node;
	places[NODE_0_1] = pl->root.node->child[0].node->child[0].node;
	places[NODE_2_3] = pl->root.node->child[0].node->child[1].node;
	places[SEGMENT_0] = (void *)xalloc_placement_segment(pl, 0);
	places[SEGMENT_1] = (void *)xalloc_placement_segment(pl, 1);
	places[SEGMENT_2] = (void *)xalloc_placement_segment(pl, 2);
	places[SEGMENT_4] = (void *)xalloc_placement_segment(pl, 4);
	places[SEGMENT_5] = (void *)xalloc_placement_segment(pl, 5);
	return 0;
}

static void damage_exit(struct kunit *test)
{
	struct scene *scene = test->priv;

	if (scene)
		xalloc_placement_fini(&scene->pl);
}

static void do_damage(struct kunit *test, const struct placement_row *row)
{
	struct scene *scene = test->priv;
	void **pointer = scene->places[row->at] + row->flip.offset;

	if (row->flip.bits) {
		flip(scene->places[row->at], &row->flip);
	} else {
		scene->before = *pointer;
		*pointer = scene->places[row->to];
		KUNIT_EXPECT_PTR_NE(test, scene->before, *pointer);
	}
}

static void undo_damage(struct kunit *test, const struct placement_row *row)
{
	struct scene *scene = test->priv;
	void **pointer = scene->places[row->at] + row->flip.offset;

	if (row->flip.bits)
		flip(scene->places[row->at], &row->flip);
	else
		*pointer = scene->before;
}

static void damage_is_seen(struct kunit *test)
{
	struct scene *scene = test->priv;

	do_damage(test, test->param_value);
	KUNIT_EXPECT_FALSE(test, xalloc_placement_is_valid(&scene->pl));
	undo_damage(test, test->param_value);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(&scene->pl));
}

/* What is done on the damage, and what comes of it. */
struct met_row {
	const char *desc;
	struct placement_row damage;
	struct {
		u32 take;	/* so many slices */
		u32 give;	/* or this slice, of segment 0 or 4 */
		u32 back;	/* or else this segment gets memory of pieces */
	} call;
	u32 slice;		/* that is taken; NONE: nothing is */
	u32 fenced;		/* bit s: segment s is */
};

#define HEAD_OF_8 POINTER(xalloc_placement, head[8])
#define NONE XALLOC_PLACEMENT_NONE

static const struct met_row mets[] = {
	{ "a head that is on another queue is fenced",
	  { NULL, PL, HEAD_OF_8, SEGMENT_2 }, { .take = 8 }, 8, BIT(2) | BIT(5) },
	{ "a full head is fenced",
	  { NULL, PL, HEAD_OF_8, SEGMENT_1 }, { .take = 8 }, 8, BIT(1) | BIT(5) },
	{ "a head that is not there is found by the other",
	  { NULL, PL, HEAD_OF_8, NOTHING }, { .take = 8 }, 8, BIT(5) },
	{ "a queue that is empty has no head",
	  { NULL, PL, PLACED(queues, BIT(8)) }, { .take = 9 }, 64, BIT(5) },
	{ "a segment that says it is on another queue is fenced",
	  { NULL, SEGMENT_0, SEGMENT(queue, 1) }, { .take = 8 }, 144, BIT(0) | BIT(5) },
	{ "a segment whose run is shorter than its queue says is fenced",
	  { NULL, SEGMENT_0, SEGMENT(free, BIT(8)) }, { .take = 8 }, 144, BIT(0) | BIT(5) },
	{ "a segment without a free slice on a queue is fenced",
	  { NULL, SEGMENT_0, SEGMENT(free, 0xff00) }, { .take = 8 }, 144, BIT(0) | BIT(5) },
	{ "a segment whose run is longer than its queue says is fenced",
	  { NULL, SEGMENT_0, SEGMENT(free, BIT(7)) }, { .take = 8 }, 144, BIT(0) | BIT(5) },
	{ "a segment that became pieces unnoticed is fenced",
	  { NULL, SEGMENT_0, SEGMENT(backing, 1 ^ 2) }, { .take = 8 }, 144, BIT(0) | BIT(5) },
	{ "a segment whose next does not lead back is fenced",
	  { NULL, SEGMENT_0, NEXT, SEGMENT_2 }, { .take = 8 }, 144, BIT(0) | BIT(5) },
	{ "a segment that is its own next is fenced",
	  { NULL, SEGMENT_0, NEXT, SEGMENT_0 }, { .take = 8 }, 144, BIT(0) | BIT(5) },
	{ "a segment without a next is fenced",
	  { NULL, SEGMENT_0, NEXT, NOTHING }, { .take = 8 }, 144, BIT(0) | BIT(5) },
	{ "a segment whose previous does not lead back is fenced",
	  { NULL, SEGMENT_0, PREV, SEGMENT_2 }, { .take = 8 }, 144, BIT(0) | BIT(5) },
	{ "a segment without a previous is fenced",
	  { NULL, SEGMENT_0, PREV, NOTHING }, { .take = 8 }, 144, BIT(0) | BIT(5) },
	{ "what is given to a segment on another queue is lost",
	  { NULL, SEGMENT_0, SEGMENT(queue, 1) }, { .give = 1 }, NONE, BIT(0) | BIT(5) },
	{ "what is given beside a wrong next is lost",
	  { NULL, SEGMENT_0, NEXT, SEGMENT_2 }, { .give = 1 }, NONE, BIT(0) | BIT(5) },
	{ "what is given beside a wrong previous is lost",
	  { NULL, SEGMENT_0, PREV, SEGMENT_2 }, { .give = 1 }, NONE, BIT(0) | BIT(5) },
	{ "what is given beside a neighbour that does not lead back is lost",
	  { NULL, SEGMENT_4, PREV, SEGMENT_2 },
	  { .give = 1 }, NONE, BIT(0) | BIT(5) },
	{ "memory is noted of a segment that is fenced for it",
	  { NULL, SEGMENT_0, SEGMENT(queue, 1) }, { .back = 0 }, NONE, BIT(0) | BIT(5) },
	{ "a run that the tree makes up is not taken",
	  { NULL, NODE_0_3, NODE(span.left, 128) }, { .take = 60 }, 64, BIT(0) | BIT(5) },
	{ "a run that the tree makes up at the root is not taken",
	  { NULL, NODE_0_7, NODE(span.left, 192) }, { .take = 70 }, NONE, BIT(0) | BIT(5) },
};

XALLOC_KUNIT_ROWS(mets, met_row);

/* Production's way: whatever is met, the call ends, and what is left is used rightly. */
static void damage_is_met(struct kunit *test)
{
	const struct met_row *row = test->param_value;
	const struct xalloc_placement_request request = { .nr_slices = row->call.take };
	const struct xalloc_placement_request one = { .nr_slices = 1 };
	struct scene *scene = test->priv;
	struct xalloc_placement *pl = &scene->pl;
	u32 slice = NONE, s, fenced = 0, nr_free;
	int err;

	do_damage(test, &row->damage);
	if (row->call.take) {
		err = xalloc_placement_take(pl, &request, &slice);
		KUNIT_EXPECT_EQ(test, err, row->slice == NONE ? -ENOSPC : 0);
		KUNIT_EXPECT_EQ(test, slice, row->slice);
	} else if (row->call.give) {
		KUNIT_EXPECT_EQ(test, xalloc_placement_give(pl, row->call.give, 1), 0);
		KUNIT_EXPECT_EQ(test, xalloc_placement_give(pl, row->call.give, 1), -EUCLEAN);
	} else {
		KUNIT_EXPECT_EQ(test, xalloc_placement_set_backing(pl, row->call.back,
								   XALLOC_BACKING_PIECES), 0);
	}
	for (s = 0; s < 6; s++) {
		const struct xalloc_placement_segment *seg = xalloc_placement_segment(pl, s);

		fenced |= seg && seg->fenced ? BIT(s) : 0;
	}
	KUNIT_EXPECT_EQ(test, fenced, row->fenced);
	KUNIT_EXPECT_EQ(test, pl->nr_fenced, hweight32(row->fenced));
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));

	/* All that is left is had slice by slice, none of it from a fenced segment. */
	for (nr_free = pl->nr_free_slices; nr_free; nr_free--) {
		KUNIT_ASSERT_EQ(test, xalloc_placement_take(pl, &one, &slice), 0);
		KUNIT_ASSERT_FALSE(test, row->fenced & BIT(slice / 32));
	}
	KUNIT_EXPECT_EQ(test, xalloc_placement_take(pl, &one, &slice), -ENOSPC);
	KUNIT_EXPECT_TRUE(test, xalloc_placement_is_valid(pl));
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(damage_is_seen, placement_damages_gen_params),
	KUNIT_CASE_PARAM(damage_is_met, mets_gen_params),
	{}
};

struct kunit_suite xalloc_placement_damage_suite = {
	.name = "xalloc_placement_damage",
	.init = damage_init,
	.exit = damage_exit,
	.test_cases = cases,
};
