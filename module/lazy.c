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
 *	- None of the LOOKS_MAX newest pages suits a grant, and no free slices with memory do. Then
 *	  the grant releases all lazy pages before it commits memory: their slices become free
 *	  slices with memory.
 *	- A shrinker releases the oldest pages, as many as it needs, and gives their memory back.
 *	- A grant of slices by their offset, or a file call, meets a part of the page.
 *	- Offsets, budget or memory do not suffice for something, or somebody trims the arena.
 *	- The worker finds that the page was freed a while ago (LAZY_DELAY in reclaim.c).
 *
 * In all cases but the first the page is released, as xalloc_page_free() does: its slices are free
 * at once. A page with broken memory is abandoned instead.
 */
#include <linux/jiffies.h>

#include "internal.h"

/* How many of the newest pages a grant looks at. */
#define LOOKS_MAX 64

/* Longer pages are freed at once, by steps: to look for broken memory in one takes too long. */
#define SEGMENTS_MAX 32

/* What is released before others have arena->lock. */
#define STEP_SLICES (SEGMENTS_MAX * XALLOC_SLICES_PER_SEGMENT)
#define STEP_PAGES 64

/**
 * xalloc_lazy_add() - free a page lazily, unless it is too long for that
 * @arena: the arena
 * @page: a page of a client, which nobody holds
 *
 * Context: arena->lock held. Neither allocates nor fails. The caller calls
 * xalloc_reclaim_lazy_soon(), which starts the worker.
 * Return: false if the page is too long; it is as it was then.
 */
bool xalloc_lazy_add(struct xalloc_arena *arena, struct xalloc_page *page)
{
	lockdep_assert_held(&arena->lock);
	if (xalloc_page_last_segment(page) - xalloc_page_first_segment(page) >= SEGMENTS_MAX)
		return false;
	page->client = &arena->lazy;
	page->freed_at = jiffies;
	list_move_tail(&page->link, &arena->lazy.pages);
	arena->nr_lazy_slices += page->nr_slices;
	return true;
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

/* Makes free slices of a page, which keep their memory. A page with broken memory is abandoned. */
static void release(struct xalloc_arena *arena, struct xalloc_page *page)
{
	if (xalloc_page_is_poisoned(arena, page) || xalloc_page_give(arena, page)) {
		abandon(arena, page);
		return;
	}
	arena->nr_lazy_slices -= page->nr_slices;
	xalloc_page_uncount(arena, page);
	xalloc_page_forget(arena, page);
}

/**
 * xalloc_lazy_release() - release pages that were freed lazily, the oldest first
 * @arena: the arena
 * @until: only those that were freed then or before, in jiffies
 * @nr_slices: stop after so many slices
 *
 * The slices are free afterwards, and keep their memory, which is idle and may still be mapped. The
 * caller has xalloc_reclaim() or xalloc_reclaim_soon() give back the memory that it does not use.
 *
 * Context: Any in which memory is reclaimed. arena->lock held. Neither allocates nor fails.
 * Return: whether there are more of these pages.
 */
bool xalloc_lazy_release(struct xalloc_arena *arena, unsigned long until, u32 nr_slices)
{
	u32 before = arena->nr_lazy_slices;
	struct xalloc_page *page;

	lockdep_assert_held(&arena->lock);
	while ((page = oldest(arena)) && time_before_eq(page->freed_at, until)) {
		if (before - arena->nr_lazy_slices >= nr_slices)
			return true;
		release(arena, page);
	}
	return false;
}

/**
 * xalloc_lazy_release_all() - release all pages that were freed lazily before this call
 * @arena: the arena
 *
 * As xalloc_lazy_release(), by steps. A fatal signal stops this function, unless the task exits.
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again.
 */
void xalloc_lazy_release_all(struct xalloc_arena *arena)
{
	unsigned long now = jiffies;

	while (xalloc_lazy_release(arena, now, STEP_SLICES)) {
		xalloc_arena_breathe(arena);
		if (xalloc_is_killed())
			break;
	}
}

/**
 * xalloc_lazy_release_range() - release pages that were freed lazily and have slices of a range
 * @arena: the arena
 * @first: the first of the slices
 * @end: the slice after the last one
 *
 * As xalloc_lazy_release(), by steps.
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again for many pages.
 */
void xalloc_lazy_release_range(struct xalloc_arena *arena, u32 first, u32 end)
{
	struct xalloc_page *page;
	unsigned long slice;
	u32 nr = 0;

	lockdep_assert_held(&arena->lock);
	if (!arena->nr_lazy_slices)
		return;
	page = xalloc_page_around(arena, first);
	if (page && page->client == &arena->lazy)
		release(arena, page);
	xa_for_each_range(&arena->pages, slice, page, first, end - 1) {
		if (page->client == &arena->lazy)
			release(arena, page);
		if (++nr % STEP_PAGES == 0)
			xalloc_arena_breathe(arena);
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
 * Return: 0, or -EAGAIN if neither a lazy page nor free slices with memory suit. Lazy pages that
 * would hinder the grant have ended then. The caller calls xalloc_quarantine_abandoned(), and then
 * xalloc_page_grant().
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
		xalloc_lazy_release_range(arena, slice, slice + grant->nr_slices);
		return -EAGAIN;
	}
	/* Free slices that have memory do as well. */
	if (!xalloc_page_grant(client, grant, false, granted))
		return 0;
	xalloc_lazy_release_all(arena);
	return -EAGAIN;
}
