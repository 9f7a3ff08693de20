// SPDX-License-Identifier: GPL-2.0-only
/*
 * Validation: prove what the heads of arena.c, page.c and segment.c say.
 *
 * Built for kernels with KUnit alone, where every test asks it after what it did.
 * It allocates nothing, so that it can be asked while allocations fail.
 */
#include <linux/bitops.h>
#include <linux/mm.h>

#include "internal.h"

/* What the records of pages say, gathered in the order of their slices. */
struct tally {
	struct xalloc_page *page;	/* the next page, or the one that goes on */
	unsigned long at;		/* its place in arena->pages */
	u64 nr_slices;			/* of all pages gone by, and those that are lost */
	u32 nr_pages;
	u32 nr_quarantined;
	u32 nr_clientless;		/* pages that may be there without a client */
	u32 nr_exported_slices;
	u32 nr_lazy_slices;
	u32 nr_committed_slices;
	u32 nr_idle_slices;
	u32 nr_granted_slices;
	u32 nr_small_slices;
	u32 nr_reserved;
	u64 nr_listed;			/* pages on the lists of their clients */
	u64 nr_handed_out;		/* pages that have to be there */
};

static bool page_is_valid(struct xalloc_arena *arena, struct tally *tally)
{
	const struct xalloc_page *page = tally->page, *other;
	u64 end = (u64)page->slice + page->nr_slices;

	if (page->slice != tally->at || !page->nr_slices ||
	    end > (u64)arena->nr_segments * XALLOC_SLICES_PER_SEGMENT)
		return false;
	if (page->link.next->prev != &page->link || page->link.prev->next != &page->link)
		return false;
	if (!page->client)
		return page->granted && !page->nr_holds;
	if (page->client->arena != arena)
		return false;
	if (page->client == &arena->orphans)
		tally->nr_clientless++;
	else if (page->client == &arena->exported)
		tally->nr_exported_slices += page->nr_slices;
	else if (page->client == &arena->lazy)
		tally->nr_lazy_slices += page->nr_slices, tally->nr_clientless++;
	else if (page->client_id != page->client->id)
		return false;
	if ((page->client == &arena->orphans && !arena->pages_persist && !arena->fills_holes) ||
	    (page->client == &arena->exported && !page->nr_holds) ||
	    (page->client == &arena->lazy && (page->nr_holds || !page->granted)))
		return false;
	if (!page->granted)
		return true;
	tally->nr_handed_out++;
	/* Each list is gone through once, by the page at its head. */
	if (page->link.prev != &page->client->pages)
		return true;
	list_for_each_entry(other, &page->client->pages, link) {
		if (other->client != page->client || !other->granted)
			return false;
		if (++tally->nr_listed > arena->nr_pages)
			return false;
	}
	return true;
}

/* The page at the cursor, judged when it is first seen; the cursor moves past it. */
static bool next_page(struct xalloc_arena *arena, struct tally *tally)
{
	if (tally->page) {
		tally->nr_slices += tally->page->nr_slices;
		if (tally->page->client)
			tally->nr_pages++;
		else
			tally->nr_quarantined++;
		tally->page = xa_find_after(&arena->pages, &tally->at, ULONG_MAX, XA_PRESENT);
	} else {
		tally->page = xa_find(&arena->pages, &tally->at, ULONG_MAX, XA_PRESENT);
	}
	return !tally->page || page_is_valid(arena, tally);
}

/* Slices of pages in one segment: of all, and of those that were granted to a client. */
static bool add_up_segment(struct xalloc_arena *arena, struct tally *tally, u32 index, u32 *taken,
			   u32 *granted)
{
	u64 end = ((u64)index + 1) * XALLOC_SLICES_PER_SEGMENT;

	*taken = 0;
	*granted = 0;
	while (tally->page && tally->page->slice < end) {
		const struct xalloc_page *page = tally->page;
		u32 slices = xalloc_placement_mask(index, page->slice, page->nr_slices);

		if (!slices || *taken & slices)
			return false;
		*taken |= slices;
		if (page->client)
			*granted |= slices;
		if ((u64)page->slice + page->nr_slices > end)
			break;
		if (!next_page(arena, tally))
			return false;
	}
	return true;
}

static bool folios_are_valid(const struct xalloc_arena *arena, const struct xalloc_segment *seg)
{
	unsigned int order = seg->in_pieces ? XALLOC_PIECE_ORDER : XALLOC_SEGMENT_ORDER;
	u32 i;

	for (i = 0; i < XALLOC_SLICES_PER_SEGMENT; i++) {
		struct folio *folio = seg->folio[i];

		if (!(seg->present & BIT(i))) {
			if (seg->in_pieces && folio)
				return false;
			continue;
		}
		if (!folio || folio_ref_count(folio) < 1 || folio_order(folio) != order ||
		    (folio->index != xalloc_segment_offset(seg, seg->in_pieces ? i : 0) &&
		     folio->index != xalloc_arena_nr_kpages(arena)) ||
		    (!seg->in_pieces && folio != seg->folio[0]))
			return false;
	}
	return true;
}

/* One that has a record in placement: each that has memory or a taken slice. */
static bool segment_is_valid(struct xalloc_arena *arena, struct tally *tally, u32 index)
{
	const struct xalloc_placement_segment *placed =
		xalloc_placement_segment(&arena->placement, index);
	const struct xalloc_segment *seg = xa_load(&arena->segments, index);
	enum xalloc_placement_backing backing = placed->backing;
	const struct xalloc_page *over = tally->page;
	u32 taken, granted;

	if (!over || !over->client || over->slice / XALLOC_SLICES_PER_SEGMENT >= index)
		over = NULL;
	if (!add_up_segment(arena, tally, index, &taken, &granted))
		return false;
	/* Nobody's for as long as the worker zeroes it. */
	if (seg && seg == arena->cleaning) {
		taken |= ~0u;
		tally->nr_slices += XALLOC_SLICES_PER_SEGMENT;
	}
	if ((placed->free | placed->lost) != ~taken)
		return false;
	tally->nr_slices += hweight32(placed->lost);
	if (!seg)
		return !taken && backing == XALLOC_BACKING_BARE;
	if (seg->index != index || seg->granted != granted || seg->over != over ||
	    granted & ~seg->touched || granted & ~seg->present || !folios_are_valid(arena, seg))
		return false;
	tally->nr_committed_slices += hweight32(seg->present | seg->populating);
	tally->nr_granted_slices += hweight32(granted);
	if (!seg->present)
		return seg->populating && !seg->reserved;
	if (seg->in_pieces) {
		tally->nr_idle_slices += hweight32(seg->present & ~granted);
		tally->nr_small_slices += hweight32(seg->present);
		return backing == XALLOC_BACKING_PIECES && !seg->reserved;
	}
	tally->nr_idle_slices += granted ? 0 : XALLOC_SLICES_PER_SEGMENT;
	tally->nr_reserved += seg->reserved;
	if (seg->reserved ? granted || seg->dirty != !!seg->touched : seg->dirty)
		return false;
	return backing == XALLOC_BACKING_HUGE && !~seg->present;
}

/* A list of segments, all of them reserved and dirty as told. */
static bool list_is_valid(struct xalloc_arena *arena, const struct list_head *list, bool reserved,
			  bool dirty, u32 *nr_slices)
{
	const struct xalloc_segment *seg;

	list_for_each_entry(seg, list, idle) {
		u32 idle = seg->in_pieces ? seg->present & ~seg->granted :
			   seg->granted ? 0 : seg->present;

		if (!idle || xa_load(&arena->segments, seg->index) != seg ||
		    seg->reserved != reserved || seg->dirty != dirty)
			return false;
		*nr_slices += hweight32(idle);
		if (*nr_slices > arena->nr_idle_slices)
			return false;
	}
	return true;
}

static bool idle_is_valid(struct xalloc_arena *arena)
{
	u32 nr_slices = 0;

	return list_is_valid(arena, &arena->rest, false, false, &nr_slices) &&
	       list_is_valid(arena, &arena->reserve, true, false, &nr_slices) &&
	       list_is_valid(arena, &arena->dirty, true, true, &nr_slices) &&
	       nr_slices == arena->nr_idle_slices;
}

static bool nobodys_are_valid(struct xalloc_arena *arena, const struct list_head *list, u32 nr)
{
	const struct xalloc_page *page;

	list_for_each_entry(page, list, link)
		if (!nr-- || page->client || xa_load(&arena->pages, page->slice) != page)
			return false;
	return !nr;
}

static bool is_valid(struct xalloc_arena *arena)
{
	const struct xalloc_placement *placement = &arena->placement;
	struct tally tally = {};
	unsigned long index;
	void *entry;
	u32 s;

	if (!xalloc_placement_is_valid(placement) || !next_page(arena, &tally))
		return false;
	for (s = xalloc_placement_next_record(placement, 0); s != XALLOC_PLACEMENT_NONE;
	     s = xalloc_placement_next_record(placement, s + 1))
		if (!segment_is_valid(arena, &tally, s))
			return false;
	/* None where placement knows of none, or past the end, and none twice below it. */
	if (tally.page)
		return false;
	xa_for_each(&arena->segments, index, entry)
		if (index >= arena->nr_segments || !xalloc_placement_segment(placement, index))
			return false;
	if (tally.nr_slices + placement->nr_free_slices !=
	    (u64)arena->nr_segments * XALLOC_SLICES_PER_SEGMENT)
		return false;
	if (tally.nr_pages != arena->nr_pages || tally.nr_listed != tally.nr_handed_out ||
	    tally.nr_granted_slices != arena->nr_granted_slices ||
	    tally.nr_committed_slices != arena->nr_committed_slices ||
	    tally.nr_idle_slices != arena->nr_idle_slices ||
	    tally.nr_small_slices != arena->nr_small_slices ||
	    tally.nr_exported_slices != arena->nr_exported_slices ||
	    tally.nr_lazy_slices != arena->nr_lazy_slices ||
	    tally.nr_reserved != arena->nr_reserved ||
	    tally.nr_quarantined < arena->nr_quarantined)
		return false;
	if (arena->nr_committed_slices > arena->limit_slices ||
	    (arena->nr_pages > tally.nr_clientless && !arena->nr_clients))
		return false;
	if (arena->payer.user && (u64)atomic_long_read(&arena->payer.user->locked_vm) <
				 (u64)arena->nr_committed_slices * XALLOC_SLICE_KPAGES)
		return false;
	return idle_is_valid(arena) &&
	       nobodys_are_valid(arena, &arena->quarantine, arena->nr_quarantined) &&
	       nobodys_are_valid(arena, &arena->abandoned,
				 tally.nr_quarantined - arena->nr_quarantined);
}

/**
 * xalloc_arena_is_valid() - count everything in an arena anew
 * @arena: the arena
 *
 * Costs time in proportion to the arena.
 *
 * Context: Process context, may sleep. Takes and releases arena->lock.
 * Return: true if pages, segments, placement, lists and counts agree.
 */
bool xalloc_arena_is_valid(struct xalloc_arena *arena)
{
	bool valid;

	mutex_lock(&arena->lock);
	valid = is_valid(arena);
	mutex_unlock(&arena->lock);
	return valid;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_arena_is_valid);
