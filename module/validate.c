// SPDX-License-Identifier: GPL-2.0-only
/*
 * Validation: prove what the heads of arena.c, page.c and segment.c claim.
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
	u64 nr_slices;			/* of all pages gone by */
	u32 nr_pages;
	u32 nr_quarantined;
	u32 nr_committed;
	u32 nr_idle;
	u32 nr_granted_slices;
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
		return page->granted;
	if (page->client->arena != arena)
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

static bool segment_is_valid(struct xalloc_arena *arena, struct tally *tally, u32 index)
{
	const struct xalloc_placement_segment *placed = &arena->placement.segment[index];
	const struct xalloc_segment *seg = xa_load(&arena->segments, index);
	u64 end = ((u64)index + 1) * XALLOC_SLICES_PER_SEGMENT;
	u32 taken = 0, granted = 0;

	while (tally->page && tally->page->slice < end) {
		const struct xalloc_page *page = tally->page;
		u32 slices = xalloc_placement_mask(index, page->slice, page->nr_slices);

		if (!slices || taken & slices)
			return false;
		taken |= slices;
		if (page->client)
			granted |= slices;
		if ((u64)page->slice + page->nr_slices > end)
			break;
		if (!next_page(arena, tally))
			return false;
	}
	if (placed->free != ~taken || placed->backed != !!seg)
		return false;
	if (!seg)
		return !taken;
	if (seg->index != index || !seg->folio || folio_ref_count(seg->folio) < 1 ||
	    folio_order(seg->folio) != XALLOC_SEGMENT_ORDER ||
	    seg->folio->index != (pgoff_t)index << XALLOC_SEGMENT_ORDER)
		return false;
	if (seg->nr_granted != hweight32(granted) || granted & ~seg->touched)
		return false;
	tally->nr_committed++;
	tally->nr_idle += !seg->nr_granted;
	tally->nr_granted_slices += seg->nr_granted;
	return true;
}

static bool idle_is_valid(struct xalloc_arena *arena)
{
	const struct xalloc_segment *seg;
	u32 nr = 0;

	list_for_each_entry(seg, &arena->idle, idle) {
		if (seg->nr_granted || xa_load(&arena->segments, seg->index) != seg)
			return false;
		if (++nr > arena->nr_idle)
			return false;
	}
	return nr == arena->nr_idle;
}

static bool quarantine_is_valid(struct xalloc_arena *arena, u32 nr_quarantined)
{
	const struct xalloc_page *page;
	u32 nr = 0;

	list_for_each_entry(page, &arena->quarantine, link) {
		if (page->client || xa_load(&arena->pages, page->slice) != page)
			return false;
		if (++nr > nr_quarantined)
			return false;
	}
	return nr == nr_quarantined;
}

static bool is_valid(struct xalloc_arena *arena)
{
	struct tally tally = {};
	unsigned long index;
	void *entry;
	u32 s;

	if (!xalloc_placement_is_valid(&arena->placement) || !next_page(arena, &tally))
		return false;
	for (s = 0; s < arena->nr_segments; s++)
		if (!segment_is_valid(arena, &tally, s))
			return false;
	/* None past the end, and none twice below it. */
	if (tally.page)
		return false;
	xa_for_each_start(&arena->segments, index, entry, arena->nr_segments)
		return false;
	if (tally.nr_slices + arena->placement.nr_free_slices !=
	    (u64)arena->nr_segments * XALLOC_SLICES_PER_SEGMENT)
		return false;
	if (tally.nr_pages != arena->nr_pages || tally.nr_listed != tally.nr_handed_out ||
	    tally.nr_granted_slices != arena->nr_granted_slices ||
	    tally.nr_committed != arena->nr_committed || tally.nr_idle != arena->nr_idle)
		return false;
	if (arena->nr_committed > arena->limit_segments || (arena->nr_pages && !arena->nr_clients))
		return false;
	if (arena->payer.user && (u64)atomic_long_read(&arena->payer.user->locked_vm) <
				 (u64)arena->nr_committed * XALLOC_SEGMENT_KPAGES)
		return false;
	return idle_is_valid(arena) && quarantine_is_valid(arena, tally.nr_quarantined);
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
