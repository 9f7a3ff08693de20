// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lazy frees: pages that were freed, but whose memory stays for a moment.
 *
 * A page that is freed lazily belongs to nobody any more. It is on the list of arena->lazy, the one
 * that was freed first in front, and still counts as granted: it can be touched, and its slices
 * stay taken. One of these ends that state:
 *
 *	- A grant takes the page, or a part of it. Nothing is unmapped, and nothing is zeroed unless
 *	  the grant asks for zeros.
 *	- A grant for which no lazy page is long enough releases all of them, before it commits
 *	  memory. Their slices are then free slices with memory.
 *	- A grant of slices by their offset, or a file call, meets a part of the page.
 *	- A shrinker releases all of them, and gives their memory back, because memory is short.
 *	- Offsets, budget or memory do not suffice for something, or somebody trims the arena.
 *	- The worker finds that the page was freed a while ago (LAZY_DELAY in reclaim.c).
 *
 * Otherwise than by a release, the page is abandoned, and goes back as the page of a client that is
 * gone.
 */
#include <linux/jiffies.h>

#include "internal.h"

/* How many of the newest pages a grant looks at. */
#define LOOKS_MAX 64

/**
 * xalloc_lazy_add() - free a page lazily
 * @arena: the arena
 * @page: a page of a client, which nobody holds
 *
 * Context: arena->lock held. Neither allocates nor fails. The caller has the worker look by
 * xalloc_reclaim_lazy_soon().
 */
void xalloc_lazy_add(struct xalloc_arena *arena, struct xalloc_page *page)
{
	lockdep_assert_held(&arena->lock);
	page->client = &arena->lazy;
	page->freed_at = jiffies;
	list_move_tail(&page->link, &arena->lazy.pages);
	arena->nr_lazy_slices += page->nr_slices;
}

static struct xalloc_page *oldest(struct xalloc_arena *arena)
{
	return list_first_entry_or_null(&arena->lazy.pages, struct xalloc_page, link);
}

static void abandon(struct xalloc_arena *arena, struct xalloc_page *page)
{
	arena->nr_lazy_slices -= page->nr_slices;
	xalloc_page_abandon(arena, page);
}

/**
 * xalloc_lazy_end() - abandon pages that were freed lazily
 * @arena: the arena
 * @until: those that were freed then or before, in jiffies
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again for many pages. The
 * caller gives the memory back by xalloc_reclaim_abandoned().
 */
void xalloc_lazy_end(struct xalloc_arena *arena, unsigned long until)
{
	struct xalloc_page *page;
	u32 nr = 0;

	lockdep_assert_held(&arena->lock);
	while ((page = oldest(arena)) && time_before_eq(page->freed_at, until)) {
		abandon(arena, page);
		if (++nr % XALLOC_STEP_PAGES == 0)
			xalloc_arena_breathe(arena);
	}
}

/**
 * xalloc_lazy_end_range() - abandon pages that were freed lazily and have slices of a range
 * @arena: the arena
 * @first: the first of the slices
 * @end: the slice after the last one
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again for many pages. The
 * caller gives the memory back by xalloc_reclaim_abandoned().
 */
void xalloc_lazy_end_range(struct xalloc_arena *arena, u32 first, u32 end)
{
	struct xalloc_page *page;
	unsigned long slice;
	u32 nr = 0;

	lockdep_assert_held(&arena->lock);
	if (!arena->nr_lazy_slices)
		return;
	page = xalloc_page_around(arena, first);
	if (page && page->client == &arena->lazy)
		abandon(arena, page);
	xa_for_each_range(&arena->pages, slice, page, first, end - 1) {
		if (page->client == &arena->lazy)
			abandon(arena, page);
		if (++nr % XALLOC_STEP_PAGES == 0)
			xalloc_arena_breathe(arena);
	}
}

/**
 * xalloc_lazy_release() - make free slices with memory of pages that were freed lazily
 * @arena: the arena
 * @nr_slices: when that many were released, no other page is
 *
 * Of up to XALLOC_STEP_PAGES pages, the oldest. Pages with broken memory are abandoned instead. The
 * memory is idle and may still be mapped; somebody else has to give back what is not used.
 *
 * Context: Any in which memory is reclaimed. arena->lock held. Neither allocates nor fails.
 */
void xalloc_lazy_release(struct xalloc_arena *arena, u32 nr_slices)
{
	u32 before = arena->nr_lazy_slices, nr = 0;
	struct xalloc_page *page;

	lockdep_assert_held(&arena->lock);
	while (nr++ < XALLOC_STEP_PAGES && before - arena->nr_lazy_slices < nr_slices &&
	       (page = oldest(arena))) {
		if (xalloc_page_is_poisoned(arena, page) || xalloc_page_give(arena, page)) {
			abandon(arena, page);
		} else {
			arena->nr_lazy_slices -= page->nr_slices;
			xalloc_page_uncount(arena, page);
			xalloc_page_forget(arena, page);
		}
	}
}

/* Whether the slices lie in one order-9 folio. */
static bool is_contig(struct xalloc_arena *arena, u32 slice, u32 nr_slices)
{
	const struct xalloc_segment *seg;

	if (slice % XALLOC_SLICES_PER_SEGMENT + nr_slices > XALLOC_SLICES_PER_SEGMENT)
		return false;
	seg = xa_load(&arena->segments, slice / XALLOC_SLICES_PER_SEGMENT);
	return !seg->in_pieces;
}

/* Whether @grant can have the slices of @page from @slice on. */
static bool suits(struct xalloc_arena *arena, const struct xalloc_page *page, u32 slice,
		  const struct xalloc_page_grant *grant)
{
	u32 end = page->slice + page->nr_slices;

	return page->client == &arena->lazy && end - slice >= grant->nr_slices &&
	       !(grant->align_slices && slice % grant->align_slices) &&
	       !(grant->flags & XALLOC_PAGE_CONTIG && !is_contig(arena, slice, grant->nr_slices));
}

/* The shortest of the newest pages that @grant can have the beginning of, or NULL. */
static struct xalloc_page *find_any(struct xalloc_arena *arena,
				    const struct xalloc_page_grant *grant)
{
	struct xalloc_page *page, *best = NULL;
	u32 nr = 0;

	list_for_each_entry_reverse(page, &arena->lazy.pages, link) {
		if (nr++ == LOOKS_MAX)
			break;
		if (!suits(arena, page, page->slice, grant) ||
		    (best && best->nr_slices <= page->nr_slices))
			continue;
		best = page;
		if (best->nr_slices == grant->nr_slices)
			break;
	}
	return best;
}

/* A lazy page that is just what @grant wants, cut out of a longer one if need be, or NULL. */
static struct xalloc_page *find(struct xalloc_arena *arena, const struct xalloc_page_grant *grant)
{
	struct xalloc_page *page;
	u32 slice;

	if (grant->flags & XALLOC_PAGE_AT) {
		slice = grant->offset / XALLOC_SLICE_BYTES;
		page = xalloc_page_around(arena, slice);
	} else {
		page = find_any(arena, grant);
		slice = page ? page->slice : 0;
	}
	if (!page || !suits(arena, page, slice, grant))
		return NULL;
	/* The last part first: the first one keeps its record. */
	if (slice + grant->nr_slices < page->slice + page->nr_slices &&
	    xalloc_page_split(arena, page, slice + grant->nr_slices))
		return NULL;
	if (slice > page->slice && xalloc_page_split(arena, page, slice))
		return NULL;
	return xa_load(&arena->pages, slice);
}

static bool take(struct xalloc_client *client, struct xalloc_page_grant *grant,
		 struct list_head *granted)
{
	struct xalloc_arena *arena = client->arena;
	struct xalloc_page *page = find(arena, grant);

	if (!page)
		return false;
	if (xalloc_page_is_poisoned(arena, page)) {
		abandon(arena, page);
		return false;
	}
	arena->nr_lazy_slices -= page->nr_slices;
	xalloc_page_take_over(client, page, grant);
	list_move_tail(&page->link, granted);
	return true;
}

/**
 * xalloc_lazy_grant() - grant one page of memory that was freed lazily
 * @client: to whom
 * @grant: as for xalloc_page_grant()
 * @granted: likewise
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again for many pages.
 * Return: 0, or -EAGAIN if that does not serve: then no page that was freed lazily is in the way of
 * the grant any more.
 */
int xalloc_lazy_grant(struct xalloc_client *client, struct xalloc_page_grant *grant,
		      struct list_head *granted)
{
	struct xalloc_arena *arena = client->arena;
	u32 slice;

	lockdep_assert_held(&arena->lock);
	if (!arena->nr_lazy_slices)
		return -EAGAIN;
	if (take(client, grant, granted))
		return 0;
	if (grant->flags & XALLOC_PAGE_AT) {
		slice = grant->offset / XALLOC_SLICE_BYTES;
		xalloc_lazy_end_range(arena, slice, slice + grant->nr_slices);
		return -EAGAIN;
	}
	/* Free slices that have memory do as well. */
	if (!xalloc_page_grant(client, grant, false, granted))
		return 0;
	while (arena->nr_lazy_slices) {
		xalloc_lazy_release(arena, U32_MAX);
		xalloc_arena_breathe(arena);
	}
	return -EAGAIN;
}
