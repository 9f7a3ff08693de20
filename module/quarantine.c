// SPDX-License-Identifier: GPL-2.0-only
/*
 * Quarantine: pages that nobody owns any more, while somebody still refers to their memory.
 *
 * A page is abandoned when its client goes, or when its memory may be broken. Its slices stay taken
 * until nobody refers to the memory: until then the page is in quarantine. Slices with broken
 * memory leave only together with the whole folio.
 *
 * What always holds with arena->lock free:
 *
 *	a page on arena->abandoned or arena->quarantine has no client and no holds
 *	arena->nr_quarantined is the number of pages on arena->quarantine
 *	seg->broken has only slices of pages that are in quarantine
 */
#include "internal.h"

/* Pages to look at before others have arena->lock. */
#define STEP_LOOKS 16

/*
 * Whether @slices may leave quarantine. Broken memory is kept with its whole folio. A piece is a
 * folio by itself. An order-9 folio leaves when each of its slices is either in no page or in a
 * page that is in quarantine for broken memory.
 */
static bool may_leave(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slices)
{
	if (seg->in_pieces || !xalloc_segment_is_poisoned(seg, slices))
		return true;
	seg->broken |= slices;
	return !~(xalloc_segment_untaken(arena, seg->index) | seg->broken);
}

/* Whether @other is in quarantine for broken memory of a segment that @page is in, too. */
static bool shares_broken(struct xalloc_arena *arena, const struct xalloc_page *page,
			  const struct xalloc_page *other)
{
	u32 index = max(xalloc_page_first_segment(page), xalloc_page_first_segment(other));
	u32 last = min(xalloc_page_last_segment(page), xalloc_page_last_segment(other));
	struct xalloc_segment *seg;

	for (; index <= last; index++) {
		seg = xa_load(&arena->segments, index);
		if (seg && seg->broken & xalloc_page_slices_in(page, index) &&
		    seg->broken & xalloc_page_slices_in(other, index))
			return true;
	}
	return false;
}

static bool has_broken(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	struct xalloc_segment *seg;
	unsigned long index;

	xalloc_page_for_each_segment(arena, page, index, seg)
		if (seg->broken & xalloc_page_slices_in(page, index))
			return true;
	return false;
}

/* Move to @leaving the pages in quarantine that share a broken folio with a page on @leaving. */
static void gather_leaving(struct xalloc_arena *arena, struct list_head *leaving)
{
	struct xalloc_page *page, *other, *next;

	/* Grows while it is walked. */
	list_for_each_entry(page, leaving, link) {
		if (!has_broken(arena, page))
			continue;
		list_for_each_entry_safe(other, next, &arena->quarantine, link)
			if (shares_broken(arena, page, other))
				list_move_tail(&other->link, leaving);
	}
}

static bool may_all_leave(struct xalloc_arena *arena, struct list_head *leaving)
{
	struct xalloc_segment *seg;
	struct xalloc_page *page;
	unsigned long index;

	list_for_each_entry(page, leaving, link)
		xalloc_page_for_each_segment(arena, page, index, seg) {
			u32 slices = xalloc_page_slices_in(page, index);

			/* Pins first: to see them costs less than to look at each kpage. */
			if (!xalloc_segment_is_quiet(arena, seg, slices) ||
			    !may_leave(arena, seg, slices))
				return false;
		}
	return true;
}

/*
 * Ends the quarantine of a page if nobody refers to its memory. Pages with broken memory in the
 * same segment leave together or not at all: if one page left alone, its broken slices could be
 * granted again, because the segment still has that memory. A page that stays goes to the end of
 * the list.
 */
static void let_go(struct xalloc_arena *arena, struct xalloc_page *page)
{
	struct xalloc_page *next;
	LIST_HEAD(leaving);
	bool may;

	list_move_tail(&page->link, &leaving);
	/* First look at this page alone: that marks its broken slices, and mostly decides. */
	may = may_all_leave(arena, &leaving);
	if (may) {
		gather_leaving(arena, &leaving);
		may = list_is_singular(&leaving) || may_all_leave(arena, &leaving);
	}
	if (may)
		list_for_each_entry_safe(page, next, &leaving, link)
			if (!xalloc_page_leave(arena, page))
				arena->nr_quarantined--;
	list_splice_tail(&leaving, &arena->quarantine);
}

/**
 * xalloc_quarantine_abandoned() - give abandoned pages back, or put them into quarantine
 * @arena: the arena, in which pages may have been abandoned
 *
 * A fatal signal stops this function, unless the task exits already; the worker then goes on.
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again.
 */
void xalloc_quarantine_abandoned(struct xalloc_arena *arena)
{
	struct xalloc_page *page;
	u32 nr = 0;
	int rc;

	lockdep_assert_held(&arena->lock);
	while ((page = list_first_entry_or_null(&arena->abandoned, struct xalloc_page, link)) &&
	       !xalloc_is_killed()) {
		rc = xalloc_page_shorten(arena, page);
		if (rc <= 0) {
			list_move_tail(&page->link, &arena->quarantine);
			arena->nr_quarantined++;
			nr++;
		}
		if (!rc)
			let_go(arena, page);
		if (rc > 0 || nr % STEP_LOOKS == 0)
			xalloc_arena_breathe(arena);
	}
}

/**
 * xalloc_quarantine_reap() - look at each page in quarantine once, and end what can end
 * @arena: the arena
 *
 * A fatal signal stops this function, as xalloc_quarantine_abandoned().
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again.
 */
void xalloc_quarantine_reap(struct xalloc_arena *arena)
{
	u32 nr = arena->nr_quarantined;
	struct xalloc_page *page;
	int rc;

	lockdep_assert_held(&arena->lock);
	/* What stays goes to the end, and others may leave with the one that is looked at. */
	while (nr && !xalloc_is_killed()) {
		page = list_first_entry_or_null(&arena->quarantine, struct xalloc_page, link);
		if (!page)
			break;
		rc = xalloc_page_shorten(arena, page);
		if (rc < 0)
			list_move_tail(&page->link, &arena->quarantine);
		else if (!rc)
			let_go(arena, page);
		if (rc <= 0)
			nr--;
		if (rc > 0 || nr % STEP_LOOKS == 0)
			xalloc_arena_breathe(arena);
	}
}
