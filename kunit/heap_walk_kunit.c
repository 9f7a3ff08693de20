// SPDX-License-Identifier: GPL-2.0-only
/* Heaps at random, against a model that is the list of what is held. */
#include <linux/bottom_half.h>
#include <linux/sched.h>
#include <linux/string.h>

#include "heap_fixture.h"

#define NR_HELD 512

struct walk {
	struct kunit *test;
	struct rnd_state rnd;
	struct fx_held held[NR_HELD];
	u32 nr_held;
	u32 last_stamp;
	u64 nr_refused;
};

static size_t random_bytes(struct walk *w)
{
	u32 below = xalloc_kunit_below(&w->rnd, 100) ? 12 : 18;
	size_t base = 8 << xalloc_kunit_below(&w->rnd, below + 1);

	return base + 1 + xalloc_kunit_below(&w->rnd, base);
}

static void hold(struct walk *w, void *block, size_t bytes)
{
	struct fx_held *held = &w->held[w->nr_held++];

	*held = (struct fx_held){ block, bytes, ++w->last_stamp };
	fx_stamp(held);
}

static void *let_go(struct walk *w, u32 n)
{
	void *block = w->held[n].block;

	KUNIT_ASSERT_TRUE(w->test, fx_has_stamp(&w->held[n]));
	w->held[n] = w->held[--w->nr_held];
	return block;
}

static gfp_t random_gfp(struct walk *w)
{
	gfp_t gfp = xalloc_kunit_below(&w->rnd, 4) ? GFP_KERNEL : GFP_NOWAIT;

	return xalloc_kunit_below(&w->rnd, 4) ? gfp : gfp | __GFP_ZERO;
}

static void walk_alloc(struct walk *w)
{
	size_t bytes = random_bytes(w), alignment = 1;
	gfp_t gfp = random_gfp(w);
	void *block;

	if (w->nr_held == NR_HELD)
		return;
	if (xalloc_kunit_below(&w->rnd, 4)) {
		block = xalloc_heap_alloc(fx_heap, bytes, gfp);
	} else {
		alignment <<= xalloc_kunit_below(&w->rnd, 18);
		block = xalloc_heap_alloc_aligned(fx_heap, bytes, alignment, gfp);
	}
	if (!block)
		return;
	KUNIT_ASSERT_EQ(w->test, fx_physical(block) % alignment, 0);
	if (gfp & __GFP_ZERO)
		KUNIT_ASSERT_FALSE(w->test, memchr_inv(block, 0, bytes));
	hold(w, block, bytes);
}

static void walk_alloc_bulk(struct walk *w)
{
	u32 nr = 1 + xalloc_kunit_below(&w->rnd, 20), done, i;
	size_t bytes = random_bytes(w);
	void *blocks[20];

	if (w->nr_held + nr > NR_HELD)
		return;
	done = xalloc_heap_alloc_bulk(fx_heap, bytes, random_gfp(w), nr, blocks);
	KUNIT_ASSERT_LE(w->test, done, nr);
	for (i = 0; i < done; i++)
		hold(w, blocks[i], bytes);
}

static void walk_free(struct walk *w)
{
	void *block;

	if (!w->nr_held)
		return;
	block = let_go(w, xalloc_kunit_below(&w->rnd, w->nr_held));
	xalloc_heap_free(fx_heap, block);
	if (xalloc_kunit_below(&w->rnd, 8))
		return;
	xalloc_heap_free(fx_heap, block);
	w->nr_refused++;
}

static void walk_free_bulk(struct walk *w)
{
	u32 nr = min(w->nr_held, 1 + xalloc_kunit_below(&w->rnd, 20)), i;
	void *blocks[20];

	for (i = 0; i < nr; i++)
		blocks[i] = let_go(w, xalloc_kunit_below(&w->rnd, w->nr_held));
	xalloc_heap_free_bulk(fx_heap, nr, blocks);
}

static void walk_free_inside(struct walk *w)
{
	const struct fx_held *held = &w->held[xalloc_kunit_below(&w->rnd, w->nr_held ?: 1)];

	if (!w->nr_held || held->bytes < 2)
		return;
	xalloc_heap_free(fx_heap, (u8 *)held->block + 1 +
			 xalloc_kunit_below(&w->rnd, held->bytes - 1));
	w->nr_refused++;
}

static void walk_step(struct walk *w)
{
	switch (xalloc_kunit_below(&w->rnd, 200)) {
	case 0 ... 79:
		walk_alloc(w);
		break;
	case 80 ... 89:
		walk_alloc_bulk(w);
		break;
	case 90 ... 179:
		walk_free(w);
		break;
	case 180 ... 193:
		walk_free_bulk(w);
		break;
	case 194 ... 198:
		walk_free_inside(w);
		break;
	default:
		xalloc_heap_drain_cpu(fx_heap, raw_smp_processor_id());
	}
}

/* The same as a softirq does it, in which nothing can be granted. */
static void walk_step_in_softirq(struct walk *w)
{
	size_t bytes = 1 + xalloc_kunit_below(&w->rnd, 9000);
	void *freed = w->nr_held ? let_go(w, xalloc_kunit_below(&w->rnd, w->nr_held)) : NULL;
	void *block;

	local_bh_disable();
	block = xalloc_heap_alloc(fx_heap, bytes, GFP_ATOMIC);
	xalloc_heap_free(fx_heap, freed);
	local_bh_enable();
	if (block && w->nr_held < NR_HELD)
		hold(w, block, bytes);
	else
		xalloc_heap_free(fx_heap, block);
}

struct walk_row {
	const char *desc;
	u32 nr_segments;
};

static const struct walk_row walks[] = {
	{ "an arena with room for all", 64 },
	{ "an arena that is too small", 4 },
};

XALLOC_KUNIT_ROWS(walks, walk_row);

static void agrees_with_the_model(struct kunit *test)
{
	const struct walk_row *row = test->param_value;
	struct walk *w = kunit_kzalloc(test, sizeof(*w), GFP_KERNEL);
	u32 steps = xalloc_kunit_steps(20000, 1000000), i;

	KUNIT_ASSERT_NOT_NULL(test, w);
	w->test = test;
	fx_make_heap(test, row->nr_segments, true);
	xalloc_kunit_seed(test, &w->rnd);
	for (i = 0; i < steps; i++) {
		if (xalloc_kunit_below(&w->rnd, 8))
			walk_step(w);
		else
			walk_step_in_softirq(w);
		if (i % 100 == 0) {
			KUNIT_ASSERT_TRUE(test, xalloc_heap_is_valid(fx_heap));
			KUNIT_ASSERT_EQ(test, fx_heap_stat(fx_heap).live_blocks, w->nr_held);
			cond_resched();
		}
	}
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).refused_frees, w->nr_refused);
	while (w->nr_held)
		xalloc_heap_free(fx_heap, let_go(w, 0));
	xalloc_heap_drain_cpu(fx_heap, raw_smp_processor_id());
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).live_blocks, 0);
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).cached_blocks, 0);
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(agrees_with_the_model, walks_gen_params),
	{}
};

struct kunit_suite xalloc_heap_walk_suite = {
	.name = "xalloc_heap_walk",
	.init = fx_init,
	.exit = fx_heap_exit,
	.test_cases = cases,
};
