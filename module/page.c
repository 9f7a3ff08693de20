// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages: runs of slices, from grant to free.
 *
 * A page is, in this order: a run taken from the placement, segments with memory below
 * all of it, and a record in arena->pages. Every slice that the placement has as taken
 * belongs to exactly one record, and no other slice does.
 *
 *	granted		on its client's list, counted
 *	quarantine	its client is gone and somebody may still refer to its memory: the
 *			slices stay taken, so that nobody is granted them, until every
 *			segment below them was seen quiet
 */
#include <linux/bitops.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "internal.h"

static u32 first_segment(const struct xalloc_page *page)
{
	return page->slice / XALLOC_SLICES_PER_SEGMENT;
}

static u32 last_segment(const struct xalloc_page *page)
{
	return (page->slice + page->nr_slices - 1) / XALLOC_SLICES_PER_SEGMENT;
}

static u32 slices_in(const struct xalloc_page *page, u32 index)
{
	return xalloc_placement_mask(index, page->slice, page->nr_slices);
}

/* Back to the placement; segments that this leaves without a taken slice stay idle. */
static int give_run(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	if (!xalloc_placement_give(&arena->placement, page->slice, page->nr_slices))
		return xalloc_arena_contradiction(arena);
	return 0;
}

/* Give back what idle segments below @page can be given back. */
static void destroy_idle_segments(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	struct xalloc_segment *seg;
	unsigned long index;

	xa_for_each_range(&arena->segments, index, seg, first_segment(page), last_segment(page))
		if (xalloc_placement_is_whole(&arena->placement, index))
			xalloc_segment_destroy(arena, seg);
}

static u32 count_missing(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	u32 nr_missing = last_segment(page) - first_segment(page) + 1;
	struct xalloc_segment *seg;
	unsigned long index;

	xa_for_each_range(&arena->segments, index, seg, first_segment(page), last_segment(page))
		nr_missing--;
	return nr_missing;
}

static bool exceeds_limit(const struct xalloc_arena *arena, u32 nr_more)
{
	return nr_more > arena->limit_segments - arena->nr_committed;
}

/* What it created before an error stays idle. */
static int create_segments(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	u32 nr_missing = count_missing(arena, page);
	struct xalloc_segment *seg;
	u32 index;

	/* Before memory is zeroed in vain. What only waited for a pin to drop makes room. */
	if (exceeds_limit(arena, nr_missing)) {
		xalloc_arena_reap(arena);
		nr_missing = count_missing(arena, page);
		if (exceeds_limit(arena, nr_missing))
			return -EDQUOT;
	}
	for (index = first_segment(page); nr_missing; index++) {
		if (xa_load(&arena->segments, index))
			continue;
		if (fatal_signal_pending(current))
			return -EINTR;
		seg = xalloc_segment_create(arena, index);
		if (IS_ERR(seg) && xalloc_arena_reap(arena))
			seg = xalloc_segment_create(arena, index);
		if (IS_ERR(seg))
			return PTR_ERR(seg);
		nr_missing--;
		cond_resched();
	}
	return 0;
}

static int undo_take_run(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	int err = give_run(arena, page);

	if (!err)
		destroy_idle_segments(arena, page);
	return err;
}

/*
 * Take a run and give memory to the segments below it. If that memory cannot be had,
 * another run may do with less, or with none.
 */
static int take_run(struct xalloc_arena *arena, struct xalloc_page *page, bool contig)
{
	u32 nr_missing;
	int err, rc;

	page->slice = xalloc_placement_take(&arena->placement, page->nr_slices, contig);
	if (page->slice == XALLOC_PLACEMENT_NONE)
		return -ENOSPC;
	nr_missing = count_missing(arena, page);
	err = create_segments(arena, page);
	if (!err)
		return 0;
	rc = undo_take_run(arena, page);
	if (rc || err == -EINTR)
		return rc ?: err;

	page->slice = xalloc_placement_take_frugal(&arena->placement, page->nr_slices, contig);
	if (page->slice == XALLOC_PLACEMENT_NONE)
		return err;
	if (count_missing(arena, page) < nr_missing)
		err = create_segments(arena, page);
	if (!err)
		return 0;
	rc = undo_take_run(arena, page);
	return rc ?: err;
}

/* Returns whether no slice of it was granted since it was zeroed. */
static bool count_granted(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	bool zero = true;
	struct xalloc_segment *seg;
	unsigned long index;

	xa_for_each_range(&arena->segments, index, seg, first_segment(page), last_segment(page)) {
		u32 slices = slices_in(page, index);

		zero = zero && !(seg->touched & slices);
		seg->touched |= slices;
		xalloc_segment_add_granted(arena, seg, hweight32(slices));
	}
	arena->nr_pages++;
	xalloc_count(XALLOC_NR_PAGES, 1);
	return zero;
}

static void uncount_granted(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	struct xalloc_segment *seg;
	unsigned long index;

	xa_for_each_range(&arena->segments, index, seg, first_segment(page), last_segment(page))
		xalloc_segment_add_granted(arena, seg, -(s32)hweight32(slices_in(page, index)));
	arena->nr_pages--;
	xalloc_count(XALLOC_NR_PAGES, -1);
}

/**
 * xalloc_page_grant() - grant one page
 * @client: to whom
 * @grant: nr_slices, flags and tag, checked against the arena's size; the rest is
 *	written
 * @granted: list to which the page is added; it can be freed once the caller has
 *	marked it granted
 *
 * Context: Process context, may sleep. arena->lock held.
 * Return: 0, or -ENOSPC, -EDQUOT, -ENOBUFS, -ENOMEM, -EINTR with nothing changed.
 */
int xalloc_page_grant(struct xalloc_client *client, struct xalloc_page_grant *grant,
		      struct list_head *granted)
{
	struct xalloc_arena *arena = client->arena;
	struct xalloc_page *page;
	int err;

	lockdep_assert_held(&arena->lock);
	page = kzalloc(sizeof(*page), GFP_KERNEL_ACCOUNT);
	if (!page)
		return -ENOMEM;
	page->client = client;
	page->tag = grant->tag;
	page->nr_slices = grant->nr_slices;
	err = take_run(arena, page, grant->flags & XALLOC_PAGE_CONTIG);
	if (err)
		goto err_free;
	err = xa_insert(&arena->pages, page->slice, page, GFP_KERNEL_ACCOUNT);
	if (err == -EBUSY)
		err = xalloc_arena_contradiction(arena);
	if (err)
		goto err_give;

	grant->flags &= XALLOC_PAGE_CONTIG;
	if (count_granted(arena, page))
		grant->flags |= XALLOC_PAGE_ZERO;
	grant->offset = (u64)page->slice * XALLOC_SLICE_BYTES;
	grant->contig_bytes = XALLOC_SEGMENT_BYTES;
	list_add_tail(&page->link, granted);
	return 0;

err_give:
	undo_take_run(arena, page);
err_free:
	kfree(page);
	return err;
}

/**
 * xalloc_page_free() - free a page of a living client
 * @client: who frees
 * @offset: where the page begins, in bytes
 *
 * The slices can be granted again at once. Segments that become idle are given back
 * as far as nobody refers to them.
 *
 * Context: Process context, may sleep. arena->lock held.
 * Return: 0, or -EINVAL, -ERANGE, -ENOENT, -EPERM, -EUCLEAN with nothing freed.
 */
int xalloc_page_free(struct xalloc_client *client, u64 offset)
{
	struct xalloc_arena *arena = client->arena;
	struct xalloc_page *page;
	int err;

	lockdep_assert_held(&arena->lock);
	if (offset % XALLOC_SLICE_BYTES)
		return -EINVAL;
	if (offset >= (u64)arena->nr_segments * XALLOC_SEGMENT_BYTES)
		return -ERANGE;
	page = xa_load(&arena->pages, offset / XALLOC_SLICE_BYTES);
	if (!page || !page->granted || !page->client)
		return -ENOENT;
	if (page->client != client)
		return -EPERM;
	err = give_run(arena, page);
	if (err)
		return err;
	uncount_granted(arena, page);
	destroy_idle_segments(arena, page);
	list_del(&page->link);
	xalloc_page_forget(arena, page);
	return 0;
}

/**
 * xalloc_page_abandon() - put a page of a client that goes away into quarantine
 * @arena: the arena
 * @page: a page on its client's list
 *
 * Context: arena->lock held. Neither allocates nor fails.
 */
void xalloc_page_abandon(struct xalloc_arena *arena, struct xalloc_page *page)
{
	lockdep_assert_held(&arena->lock);
	uncount_granted(arena, page);
	page->client = NULL;
	list_move_tail(&page->link, &arena->quarantine);
}

/**
 * xalloc_page_let_go() - end the quarantine of a page if nobody refers to its memory
 * @arena: the arena
 * @page: a page in quarantine; freed on success
 *
 * Context: Process context, may sleep. arena->lock held.
 * Return: 0, -EBUSY if somebody does, -EUCLEAN.
 */
int xalloc_page_let_go(struct xalloc_arena *arena, struct xalloc_page *page)
{
	struct xalloc_segment *seg;
	unsigned long index;
	int err;

	lockdep_assert_held(&arena->lock);
	xa_for_each_range(&arena->segments, index, seg, first_segment(page), last_segment(page))
		if (!xalloc_segment_is_quiet(arena, seg))
			return -EBUSY;
	err = give_run(arena, page);
	if (err)
		return err;
	list_del(&page->link);
	xalloc_page_forget(arena, page);
	return 0;
}

/** xalloc_page_forget() - drop the record of a page that is on no list any more */
void xalloc_page_forget(struct xalloc_arena *arena, struct xalloc_page *page)
{
	lockdep_assert_held(&arena->lock);
	xa_erase(&arena->pages, page->slice);
	kfree(page);
}
