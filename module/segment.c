// SPDX-License-Identifier: GPL-2.0-only
/*
 * Segments: giving memory to 2 MiB of an arena, and taking it away again.
 *
 * A segment is idle while no living client has a page in it. An idle segment is what
 * can be given back: first nr_granted is zero, then the folio is locked, unmapped
 * everywhere and unlocked. A fault that got in before has mapped by then and is
 * unmapped; one that comes after sees nr_granted under the folio lock and refuses. So
 * once unmapped, a reference beyond the segment's own is a pin: then the segment stays
 * where it is, with its memory and its charge, and device and CPU never part ways.
 */
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>

#include "internal.h"

/**
 * xalloc_segment_create() - give memory to a segment
 * @arena: its arena
 * @index: number of the segment, which has no memory yet
 *
 * The segment is idle at first.
 *
 * Context: Process context, may sleep. arena->lock held.
 * Return: the segment, or -EDQUOT (the arena's limit), -ENOBUFS (the payer's
 * RLIMIT_MEMLOCK) or -ENOMEM, with nothing charged.
 */
struct xalloc_segment *xalloc_segment_create(struct xalloc_arena *arena, u32 index)
{
	struct xalloc_segment *seg;
	int err;

	lockdep_assert_held(&arena->lock);
	if (arena->nr_committed >= arena->limit_segments)
		return ERR_PTR(-EDQUOT);
	seg = kzalloc(sizeof(*seg), GFP_KERNEL_ACCOUNT);
	if (!seg)
		return ERR_PTR(-ENOMEM);
	seg->index = index;
	err = xalloc_payer_charge(&arena->payer);
	if (err)
		goto err_free_seg;
	err = -ENOMEM;
	seg->folio = arena->backing->alloc();
	if (!seg->folio)
		goto err_uncharge;
	/* The page tables take 2 MiB entries only for a folio whose index fits its place. */
	seg->folio->index = (pgoff_t)index << XALLOC_SEGMENT_ORDER;
	/* Publishes the segment to the fault, which refuses it while it is idle. */
	err = xa_insert(&arena->segments, index, seg, GFP_KERNEL_ACCOUNT);
	if (err)
		goto err_free_folio;
	list_add_tail(&seg->idle, &arena->idle);
	arena->nr_idle++;
	xalloc_count(XALLOC_NR_IDLE_SEGMENTS, 1);
	arena->nr_committed++;
	xalloc_placement_set_backed(&arena->placement, index, true);
	return seg;

err_free_folio:
	arena->backing->free(seg->folio);
err_uncharge:
	xalloc_payer_uncharge(&arena->payer);
err_free_seg:
	kfree(seg);
	return ERR_PTR(err);
}

/**
 * xalloc_segment_is_quiet() - unmap a segment and see that nobody else refers to it
 * @arena: its arena
 * @seg: the segment
 *
 * Who has it mapped and pages in it takes a fault on the next touch.
 *
 * Context: Process context, may sleep. arena->lock held. Takes the folio lock.
 * Return: true only if nobody does. A reference that is just being dropped counts.
 */
bool xalloc_segment_is_quiet(struct xalloc_arena *arena, struct xalloc_segment *seg)
{
	lockdep_assert_held(&arena->lock);
	/* Spares the users of other pages in it the faults where the answer is plain. */
	if (seg->nr_granted && folio_maybe_dma_pinned(seg->folio))
		return false;
	if (arena->mapping) {
		folio_lock(seg->folio);
		unmap_mapping_range(arena->mapping,
				    (loff_t)seg->index * XALLOC_SEGMENT_BYTES,
				    XALLOC_SEGMENT_BYTES, 1);
		folio_unlock(seg->folio);
	}
	return folio_ref_count(seg->folio) == 1;
}

/**
 * xalloc_segment_destroy() - give an idle segment's memory back to the kernel
 * @arena: its arena
 * @seg: the segment, idle
 *
 * Context: Process context, may sleep. arena->lock held. Takes the folio lock.
 * Return: false if somebody still refers to the memory; then the segment stays as it
 * is, but unmapped.
 */
bool xalloc_segment_destroy(struct xalloc_arena *arena, struct xalloc_segment *seg)
{
	lockdep_assert_held(&arena->lock);
	if (WARN_ON_ONCE(seg->nr_granted) || !xalloc_segment_is_quiet(arena, seg))
		return false;
	xa_erase(&arena->segments, seg->index);
	xalloc_placement_set_backed(&arena->placement, seg->index, false);
	list_del(&seg->idle);
	arena->nr_idle--;
	xalloc_count(XALLOC_NR_IDLE_SEGMENTS, -1);
	arena->nr_committed--;
	/* A fault that found the folio just before holds a reference and will drop it. */
	arena->backing->free(seg->folio);
	xalloc_payer_uncharge(&arena->payer);
	kfree_rcu(seg, rcu);
	return true;
}

/**
 * xalloc_segment_add_granted() - change the number of slices living clients have
 * @arena: its arena
 * @seg: the segment
 * @by: slices more, or if negative, less
 *
 * Context: arena->lock held.
 */
void xalloc_segment_add_granted(struct xalloc_arena *arena, struct xalloc_segment *seg, s32 by)
{
	bool was_idle = !seg->nr_granted;

	lockdep_assert_held(&arena->lock);
	/* Pairs with READ_ONCE() in xalloc_segment_lock_folio(). */
	WRITE_ONCE(seg->nr_granted, seg->nr_granted + by);
	arena->nr_granted_slices += by;
	xalloc_count(XALLOC_NR_GRANTED_SLICES, by);
	if (was_idle == !seg->nr_granted)
		return;
	if (was_idle)
		list_del(&seg->idle);
	else
		list_add_tail(&seg->idle, &arena->idle);
	arena->nr_idle += was_idle ? -1 : 1;
	xalloc_count(XALLOC_NR_IDLE_SEGMENTS, was_idle ? -1 : 1);
}

/* The folio of a segment that the fault may map now, without a reference. */
static struct folio *mappable_folio(struct xalloc_arena *arena, u32 index)
{
	struct xalloc_segment *seg = xa_load(&arena->segments, index);

	RCU_LOCKDEP_WARN(!rcu_read_lock_held(), "segment looked at outside of RCU");
	return seg && READ_ONCE(seg->nr_granted) ? seg->folio : NULL;
}

/**
 * xalloc_segment_lock_folio() - the memory of a segment, for the fault
 * @arena: the arena
 * @index: number of a segment
 *
 * Nothing that was seen before the folio lock counts: giving back takes the lock after
 * the segment became idle, so what is seen under it stays true until it is dropped.
 *
 * Context: Process context, sleeps for the folio lock.
 * Return: the folio, referenced and locked, or NULL if the segment has no page.
 */
struct folio *xalloc_segment_lock_folio(struct xalloc_arena *arena, u32 index)
{
	struct folio *folio;

	for (;;) {
		rcu_read_lock();
		folio = mappable_folio(arena, index);
		if (!folio) {
			rcu_read_unlock();
			return NULL;
		}
		if (!folio_try_get(folio)) {
			/* Being freed: the segment is gone from the array by now. */
			rcu_read_unlock();
			cpu_relax();
			continue;
		}
		/* Freed and in use elsewhere between the two? Then do not lock it. */
		if (mappable_folio(arena, index) != folio) {
			rcu_read_unlock();
			folio_put(folio);
			continue;
		}
		rcu_read_unlock();

		folio_lock(folio);
		rcu_read_lock();
		if (mappable_folio(arena, index) == folio) {
			rcu_read_unlock();
			return folio;
		}
		rcu_read_unlock();
		folio_unlock(folio);
		folio_put(folio);
	}
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_segment_lock_folio);
