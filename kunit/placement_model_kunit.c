// SPDX-License-Identifier: GPL-2.0-only
/* Placement at random, against its model. */
#include <linux/bitops.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "helpers.h"
#include "placement_model.h"

#define PER_SEGMENT XALLOC_SLICES_PER_SEGMENT
#define NONE XALLOC_PLACEMENT_NONE

struct run {
	u32 slice;
	u32 nr_slices;
};

struct walk {
	struct kunit *test;
	struct xalloc_placement pl;
	struct placement_model model;
	struct rnd_state rnd;
	struct run *runs;
	u32 nr_runs;
};

#define EXPECT_RIGHT(w, call) do {						\
	const char *_wrong = (call);						\
										\
	KUNIT_ASSERT_STREQ((w)->test, _wrong ?: "right", "right");		\
} while (0)

struct size_row {
	const char *desc;
	u32 nr_segments;
};

static const struct size_row sizes[] = {
	{ "an arena of 1 segment", 1 },
	{ "an arena of 2 segments", 2 },
	{ "an arena of 5 segments", 5 },
	{ "an arena of 33 segments", 33 },
	{ "an arena of 128 segments", 128 },
};

XALLOC_KUNIT_ROWS(sizes, size_row);

static struct walk *walk_create(struct kunit *test, u32 nr_segments)
{
	struct walk *w = kunit_kzalloc(test, sizeof(*w), GFP_KERNEL);
	void *memory = kunit_kzalloc(test, placement_model_bytes(nr_segments), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, w);
	KUNIT_ASSERT_NOT_NULL(test, memory);
	w->runs = kunit_kzalloc(test, nr_segments * PER_SEGMENT * sizeof(*w->runs), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, w->runs);
	w->test = test;
	xalloc_placement_init(&w->pl, nr_segments);
	test->priv = w;
	placement_model_init(&w->model, &w->pl, memory);
	xalloc_kunit_seed(test, &w->rnd);
	return w;
}

static void model_exit(struct kunit *test)
{
	struct walk *w = test->priv;

	if (w)
		xalloc_placement_fini(&w->pl);
}

static u32 below(struct walk *w, u32 end)
{
	return xalloc_kunit_below(&w->rnd, end);
}

static u32 random_size(struct walk *w)
{
	u32 nr_segments = w->pl.nr_segments, k;

	switch (below(w, 10)) {
	case 0 ... 4:
		return 1 + below(w, 4);
	case 5 ... 7:
		return 1 + below(w, PER_SEGMENT);
	case 8:
		k = 1 + below(w, min(nr_segments, 8u));
		return k * PER_SEGMENT - 1 + below(w, 3);
	default:
		return 1 + below(w, nr_segments * PER_SEGMENT);
	}
}

static void walk_take(struct walk *w)
{
	struct xalloc_placement_request request = {
		.nr_slices = random_size(w),
		.contig = below(w, 3) == 0,
	};
	u32 slice;
	int err;

	if (below(w, 3) == 0)
		request.align_slices = 1u << below(w, below(w, 4) ? 6 : 14);
	EXPECT_RIGHT(w, placement_model_take(&w->model, &request, below(w, 4) == 0, &err, &slice));
	KUNIT_ASSERT_NE(w->test, err, -ENOMEM);
	if (!err)
		w->runs[w->nr_runs++] = (struct run){ slice, request.nr_slices };
}

/* All of a run, or its first or last part, as a caller that splits may do. */
static void walk_give(struct walk *w)
{
	struct run *run = &w->runs[below(w, w->nr_runs)], part = *run;

	if (run->nr_slices > 1 && below(w, 4) == 0) {
		part.nr_slices = 1 + below(w, run->nr_slices - 1);
		run->nr_slices -= part.nr_slices;
		if (below(w, 2))
			run->slice += part.nr_slices;
		else
			part.slice += run->nr_slices;
	} else {
		*run = w->runs[--w->nr_runs];
	}
	EXPECT_RIGHT(w, placement_model_give(&w->model, part.slice, part.nr_slices));
}

/* A random run, unless all of it is taken: then it is somebody's. */
static void walk_give_blindly(struct walk *w)
{
	u32 total = w->pl.nr_segments * PER_SEGMENT;
	u32 slice = below(w, total + 2), nr = random_size(w), i = 0;

	while (i < nr && slice + i < total && w->model.slices[slice + i] == MODEL_TAKEN)
		i++;
	if (i < nr)
		EXPECT_RIGHT(w, placement_model_give(&w->model, slice, nr));
}

static void walk_set_backing(struct walk *w)
{
	int err;

	EXPECT_RIGHT(w, placement_model_set_backing(&w->model, below(w, w->pl.nr_segments),
						    below(w, 3), &err));
	KUNIT_ASSERT_EQ(w->test, err, 0);
}

/* All is given and no segment has memory: one free run is left, and no table but of fences. */
static void walk_end(struct walk *w)
{
	const struct xalloc_placement_request all = {
		.nr_slices = w->pl.nr_segments * PER_SEGMENT,
	};
	u32 s, slice;
	int err;

	while (w->nr_runs)
		walk_give(w);
	for (s = 0; s < w->pl.nr_segments; s++)
		EXPECT_RIGHT(w, placement_model_set_backing(&w->model, s, XALLOC_BACKING_BARE,
							    &err));
	EXPECT_RIGHT(w, placement_model_compare(&w->model));
	KUNIT_EXPECT_EQ(w->test, w->pl.nr_records, w->pl.nr_fenced);
	if (w->pl.nr_fenced)
		return;
	KUNIT_EXPECT_EQ(w->test, xalloc_placement_table_bytes(&w->pl), 0);
	KUNIT_EXPECT_EQ(w->test, w->pl.nr_free_slices, all.nr_slices);
	EXPECT_RIGHT(w, placement_model_take(&w->model, &all, false, &err, &slice));
	KUNIT_EXPECT_EQ(w->test, slice, 0);
}

/* With a comparison after each step where that is affordable, and every 1000 steps at least. */
static void walk(struct walk *w, u32 steps, u32 nr_fences)
{
	u32 every = min(DIV_ROUND_UP(w->pl.nr_segments, 8) * 8, 1000u), percent = 70, i;

	for (i = 0; i < steps; i++) {
		/* Fill for a while, drain for a while, so that both ends are reached. */
		if (i % (4 * w->pl.nr_segments + 64) == 0)
			percent = 25 + below(w, 60);
		if (nr_fences && i % (steps / nr_fences) == steps / nr_fences / 2)
			EXPECT_RIGHT(w, placement_model_fence(&w->model,
							      below(w, w->pl.nr_segments)));
		if (below(w, 8) == 0)
			walk_set_backing(w);
		else if (below(w, 8) == 0)
			walk_give_blindly(w);
		else if (!w->nr_runs || below(w, 100) < percent)
			walk_take(w);
		else
			walk_give(w);
		if (i % every == 0)
			EXPECT_RIGHT(w, placement_model_compare(&w->model));
		cond_resched();
	}
	walk_end(w);
}

static void agrees_with_the_model(struct kunit *test)
{
	const struct size_row *row = test->param_value;
	struct walk *w = walk_create(test, row->nr_segments);

	/* The model searches the arena, so its steps take time in proportion to that. */
	walk(w, xalloc_kunit_steps(20000, 1000000) / (row->nr_segments > 64 ? 10 : 1), 0);
}

static void agrees_with_fences_too(struct kunit *test)
{
	const struct size_row *row = test->param_value;
	struct walk *w = walk_create(test, row->nr_segments);

	walk(w, xalloc_kunit_steps(5000, 100000), DIV_ROUND_UP(row->nr_segments, 2));
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(agrees_with_the_model, sizes_gen_params),
	KUNIT_CASE_PARAM(agrees_with_fences_too, sizes_gen_params),
	{}
};

struct kunit_suite xalloc_placement_model_suite = {
	.name = "xalloc_placement_model",
	.exit = model_exit,
	.test_cases = cases,
};
