// SPDX-License-Identifier: GPL-2.0-only
/*
 * Walks: clients that are granted pages, write to them, free them, also lazily, and die at random,
 * while somebody outside takes and drops references and segments cannot be had.
 */
#include <linux/slab.h>

#include "fixture.h"

#define PER_SEGMENT XALLOC_SLICES_PER_SEGMENT

struct random_row {
	const char *desc;
	u32 nr_segments;
	u32 limit_segments;
	u32 charged_segments;	/* most that the payer may have; 0: nobody pays */
	bool unmappable;	/* memory that is no page cache */
};

static const struct random_row walks[] = {
	{ "a small arena without a limit", 4, 0, 0 },
	{ "an arena with a limit of half of it", 16, 8, 0 },
	{ "an arena whose payer may have half of it", 16, 0, 8 },
	{ "an arena of more segments than a node of an xarray holds", 70, 40, 0 },
	{ "memory outside of page cache", 16, 8, 0, true },
};

XALLOC_KUNIT_ROWS(walks, random_row);

#define NR_RECORDS 512

/*
 * What the model knows of a page. A dead client's page is known until none of its segments
 * is pinned for a moment: from then on its slices may be granted again.
 */
struct record {
	struct xalloc_client *client;	/* NULL: dead */
	u32 slice;
	u32 nr_slices;
	u64 stamp;
};

struct walk {
	struct kunit *test;
	struct xalloc_arena *arena;
	struct rnd_state rnd;
	struct xalloc_client *clients[3];
	struct record *records;
	u32 nr_records;
	u64 last_stamp;
	struct {
		struct folio *folio;
		u32 index;
	} pins[4];
	u32 nr_pins;
};

/* Both ends of each slice, so that an overlap of any kind damages a stamp. */
static void stamp_page(struct walk *w, const struct record *rec)
{
	u32 i;

	for (i = rec->slice; i < rec->slice + rec->nr_slices; i++) {
		u64 *memory = fx_slice_memory(w->arena, i);

		memory[0] = rec->stamp + i;
		memory[XALLOC_SLICE_BYTES / 8 - 1] = rec->stamp - i;
	}
}

static void check_stamps(struct walk *w, const struct record *rec)
{
	u32 i;

	for (i = rec->slice; i < rec->slice + rec->nr_slices; i++) {
		u64 *memory = fx_slice_memory(w->arena, i);

		KUNIT_ASSERT_EQ(w->test, memory[0], rec->stamp + i);
		KUNIT_ASSERT_EQ(w->test, memory[XALLOC_SLICE_BYTES / 8 - 1], rec->stamp - i);
	}
}

static bool has_stamps(struct walk *w, u32 slice, u32 nr_slices)
{
	u32 i;

	for (i = slice; i < slice + nr_slices; i++) {
		u64 *memory = fx_slice_memory(w->arena, i);

		if (memory[0] || memory[XALLOC_SLICE_BYTES / 8 - 1])
			return true;
	}
	return false;
}

static bool is_pinned(struct walk *w, const struct record *rec)
{
	u32 i;

	for (i = 0; i < w->nr_pins; i++)
		if (xalloc_placement_mask(w->pins[i].index, rec->slice, rec->nr_slices))
			return true;
	return false;
}

static void forget_the_dead(struct walk *w)
{
	u32 i;

	for (i = 0; i < w->nr_records;)
		if (!w->records[i].client && !is_pinned(w, &w->records[i]))
			w->records[i] = w->records[--w->nr_records];
		else
			i++;
}

static void note_grant(struct walk *w, struct xalloc_client *client,
		       const struct xalloc_page_grant *got, u32 flags)
{
	struct record *rec = &w->records[w->nr_records];
	u32 slice = got->offset / XALLOC_SLICE_BYTES, i;
	u32 last = slice + got->nr_slices - 1;

	KUNIT_ASSERT_EQ(w->test, got->offset % XALLOC_SLICE_BYTES, 0);
	KUNIT_ASSERT_LT(w->test, (u64)slice + got->nr_slices - 1,
			w->arena->nr_segments * PER_SEGMENT);
	if (flags & XALLOC_PAGE_CONTIG)
		KUNIT_ASSERT_EQ(w->test, slice / PER_SEGMENT, last / PER_SEGMENT);
	for (i = 0; i < w->nr_records; i++)
		KUNIT_ASSERT_TRUE(w->test, w->records[i].slice > last ||
				  w->records[i].slice + w->records[i].nr_slices <= slice);
	if (got->flags & XALLOC_PAGE_ZERO)
		KUNIT_ASSERT_FALSE(w->test, has_stamps(w, slice, got->nr_slices));
	w->nr_records++;
	*rec = (struct record){
		.client = client,
		.slice = slice,
		.nr_slices = got->nr_slices,
		.stamp = ++w->last_stamp << 32,
	};
	stamp_page(w, rec);
}

static u32 random_nr_slices(struct walk *w)
{
	switch (xalloc_kunit_below(&w->rnd, 8)) {
	case 0 ... 3:
		return 1 + xalloc_kunit_below(&w->rnd, 6);
	case 4 ... 6:
		return 1 + xalloc_kunit_below(&w->rnd, PER_SEGMENT);
	default:
		return PER_SEGMENT - 1 + xalloc_kunit_below(&w->rnd, 3 * PER_SEGMENT);
	}
}

/* Pages that somebody has. */
static u32 count_owned(struct xalloc_arena *arena)
{
	return arena->nr_pages - list_count_nodes(&arena->lazy.pages);
}

static void walk_grant(struct walk *w)
{
	struct xalloc_client *client = w->clients[xalloc_kunit_below(&w->rnd, 3)];
	u32 nr = 1 + xalloc_kunit_below(&w->rnd, 4), i, nr_owned = count_owned(w->arena);
	bool keep = xalloc_kunit_below(&w->rnd, 16);
	struct xalloc_page_grant batch[4] = {};
	u32 flags[4];
	LIST_HEAD(granted);
	bool armed;
	int rc;

	if (w->nr_records + nr > NR_RECORDS)
		return;
	for (i = 0; i < nr; i++) {
		batch[i].nr_slices = random_nr_slices(w);
		batch[i].flags = xalloc_kunit_below(&w->rnd, 3) ? 0 : XALLOC_PAGE_CONTIG;
		flags[i] = batch[i].flags;
	}
	if (!xalloc_kunit_below(&w->rnd, 8))
		fx_backing_countdown = 1 + xalloc_kunit_below(&w->rnd, 4);
	armed = fx_backing_countdown;
	rc = xalloc_client_grant(client, batch, nr, &granted);
	if (rc > 0)
		xalloc_client_grant_finish(client, &granted, keep);
	if (rc <= 0) {
		KUNIT_ASSERT_LT(w->test, rc, 0);
		KUNIT_ASSERT_TRUE(w->test, rc == -ENOSPC || rc == -EDQUOT || rc == -ENOBUFS ||
				  (rc == -ENOMEM && armed));
		KUNIT_ASSERT_TRUE(w->test, rc != -ENOBUFS || w->arena->payer.user);
	}
	if (rc == -EDQUOT)
		KUNIT_ASSERT_GT(w->test, w->arena->nr_committed_slices / PER_SEGMENT +
				(batch[0].nr_slices + 30) / PER_SEGMENT + 1,
				w->arena->limit_slices / PER_SEGMENT);
	fx_backing_countdown = 0;
	for (i = 0; keep && (int)i < rc; i++)
		note_grant(w, client, &batch[i], flags[i]);
	KUNIT_ASSERT_EQ(w->test, count_owned(w->arena), nr_owned + (keep && rc > 0 ? rc : 0));
}

static void walk_free(struct walk *w)
{
	u32 n = xalloc_kunit_below(&w->rnd, w->nr_records ?: 1);
	struct record rec;

	if (!w->nr_records || !w->records[n].client)
		return;
	rec = w->records[n];
	check_stamps(w, &rec);
	if (rec.client != w->clients[0])
		KUNIT_ASSERT_EQ(w->test, fx_free_at(w->clients[0], rec.slice), -EPERM);
	if (rec.nr_slices > 1)
		KUNIT_ASSERT_EQ(w->test, fx_free_at(rec.client, rec.slice + 1), -ENOENT);
	if (xalloc_kunit_below(&w->rnd, 3))
		KUNIT_ASSERT_EQ(w->test, fx_free_at(rec.client, rec.slice), 0);
	else
		KUNIT_ASSERT_EQ(w->test, fx_free_lazily_at(rec.client, rec.slice), 0);
	KUNIT_ASSERT_EQ(w->test, fx_free_at(rec.client, rec.slice), -ENOENT);
	w->records[n] = w->records[--w->nr_records];
}

static void walk_die(struct walk *w)
{
	u32 c = xalloc_kunit_below(&w->rnd, 3), i;

	for (i = 0; i < w->nr_records; i++) {
		if (w->records[i].client != w->clients[c])
			continue;
		check_stamps(w, &w->records[i]);
		w->records[i].client = NULL;
	}
	fx_drop_client(w->test, w->clients[c]);
	w->clients[c] = fx_make_client(w->test);
}

/* The memory of a page of a living client, any of its segments. */
static void walk_pin(struct walk *w)
{
	u32 n = xalloc_kunit_below(&w->rnd, w->nr_records ?: 1), index;
	const struct record *rec = &w->records[n];

	if (!w->nr_records || !rec->client || w->nr_pins == ARRAY_SIZE(w->pins))
		return;
	index = (rec->slice + xalloc_kunit_below(&w->rnd, rec->nr_slices)) / PER_SEGMENT;
	w->pins[w->nr_pins].folio = fx_pin(w->test, index);
	w->pins[w->nr_pins++].index = index;
}

static void walk_unpin(struct walk *w)
{
	u32 n = xalloc_kunit_below(&w->rnd, w->nr_pins ?: 1);

	if (!w->nr_pins)
		return;
	fx_unpin(w->test, w->pins[n].folio);
	w->pins[n] = w->pins[--w->nr_pins];
}

/* What is referred to from outside is where it was. */
static void check_pins(struct walk *w)
{
	u32 i;

	for (i = 0; i < w->nr_pins; i++)
		KUNIT_ASSERT_PTR_EQ(w->test, fx_folio_at(w->arena, PER_SEGMENT * w->pins[i].index),
				    w->pins[i].folio);
}

static void agrees_with_the_model(struct kunit *test)
{
	const struct random_row *row = test->param_value;
	struct walk *w = kunit_kzalloc(test, sizeof(*w), GFP_KERNEL);
	u32 steps = xalloc_kunit_steps(5000, 100000), every = DIV_ROUND_UP(row->nr_segments, 16);
	u32 i, weight;

	KUNIT_ASSERT_NOT_NULL(test, w);
	w->records = kunit_kzalloc(test, NR_RECORDS * sizeof(*w->records), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, w->records);
	w->test = test;
	w->arena = row->unmappable ?
			   fx_make_unmappable(test, row->nr_segments, row->limit_segments) :
			   fx_make_arena(test, row->nr_segments, row->limit_segments);
	if (row->charged_segments)
		fx_make_payer(w->arena, row->charged_segments);
	for (i = 0; i < ARRAY_SIZE(w->clients); i++)
		w->clients[i] = fx_make_client(test);
	xalloc_kunit_seed(test, &w->rnd);
	for (i = 0; i < steps; i++) {
		weight = xalloc_kunit_below(&w->rnd, 1000);
		if (weight < 400)
			walk_grant(w);
		else if (weight < 900)
			walk_free(w);
		else if (weight < 940)
			walk_pin(w);
		else if (weight < 980)
			walk_unpin(w);
		else if (weight < 999)
			walk_die(w);
		else
			msleep(100);	/* for the worker */
		forget_the_dead(w);
		check_pins(w);
		if (i % every == 0)
			KUNIT_ASSERT_TRUE(test, xalloc_arena_is_valid(w->arena));
		cond_resched();
	}
	for (i = 0; i < w->nr_records; i++)
		if (w->records[i].client)
			check_stamps(w, &w->records[i]);
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(w->arena));
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(agrees_with_the_model, walks_gen_params),
	{}
};

struct kunit_suite xalloc_walk_suite = {
	.name = "xalloc_walk",
	.init = fx_init,
	.exit = fx_exit,
	.test_cases = cases,
};
