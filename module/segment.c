// SPDX-License-Identifier: GPL-2.0-only
/*
 * Segments: giving memory to 2 MiB of an arena, and taking it away again.
 *
 * A segment has either one folio of order 9, which is all of its slices, or up to 32 of
 * order 4, the pieces, each of which is one slice and comes and goes by itself.
 *
 *	present		slices that have memory
 *	granted		slices in pages of living clients, all of them present
 *	idle		what is present without being granted: single pieces, but an order-9
 *			folio only as a whole
 *	populating	slices for which memory is being had, with arena->lock free
 *
 * Idle memory is given back in this order. First the slices are cleared in granted. Then the folio
 * is locked and unlocked: a fault that was earlier has mapped the folio by then, and a later fault
 * finds the slices cleared and refuses. Then the folio is unmapped if it is mapped, and no fault
 * maps it again. A reference that is left beside the segment's own is a pin: the memory stays where
 * it is, with its charge, so that device and CPU go on seeing the same memory.
 *
 * An idle order-9 segment that is quiet and of which no slice is taken may stay as part
 * of the arena's reserve. What else is idle is the rest, which waits for somebody to let go.
 */
#include <linux/bitops.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/page-flags.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "internal.h"

#define ALL_SLICES (~0u)

/* Most slices to unmap at once: 128 MiB, for which page tables are held a millisecond at most. */
#define UNMAP_SLICES_MAX 2048

/**
 * xalloc_segment_tell_fenced() - warn if segments were taken out of use since the last call
 * @arena: the arena
 *
 * Context: arena->lock held.
 */
void xalloc_segment_tell_fenced(struct xalloc_arena *arena)
{
	lockdep_assert_held(&arena->lock);
	if (arena->nr_fenced == arena->placement.nr_fenced)
		return;
	arena->nr_fenced = arena->placement.nr_fenced;
	WARN_ONCE(!xalloc_is_in_kunit(), "xalloc: records of arena %llu contradict each other",
		  arena->id);
}

/**
 * xalloc_segment_fence() - take segments out of use whose records contradict each other
 * @arena: the arena
 * @first: first of the segments
 * @last: last one
 *
 * A fault of this module, not of its users. Nothing more is granted in these segments, for
 * good; what is granted there stays as it is, and the arena goes on elsewhere.
 *
 * Context: arena->lock held.
 * Return: -EUCLEAN.
 */
int xalloc_segment_fence(struct xalloc_arena *arena, u32 first, u32 last)
{
	lockdep_assert_held(&arena->lock);
	for (; first <= last; first++)
		xalloc_placement_fence(&arena->placement, first);
	xalloc_segment_tell_fenced(arena);
	return -EUCLEAN;
}

static u32 idle_slices(const struct xalloc_segment *seg)
{
	if (seg->in_pieces)
		return seg->present & ~seg->granted;
	return seg->granted ? 0 : seg->present;
}

/* Put a segment on the list where it belongs now. One without idle slices is on none. */
static void relist(struct xalloc_arena *arena, struct xalloc_segment *seg)
{
	list_del_init(&seg->idle);
	if (seg->reserved)
		list_add_tail(&seg->idle, seg->dirty ? &arena->dirty : &arena->reserve);
	else if (idle_slices(seg))
		list_add_tail(&seg->idle, &arena->rest);
}

static void unreserve(struct xalloc_arena *arena, struct xalloc_segment *seg)
{
	if (!seg->reserved)
		return;
	seg->dirty = false;
	seg->reserved = false;
	arena->nr_reserved--;
	xalloc_count(XALLOC_NR_RESERVED_SLICES, -(long)XALLOC_SLICES_PER_SEGMENT);
	relist(arena, seg);
}

static void reserve(struct xalloc_arena *arena, struct xalloc_segment *seg)
{
	seg->dirty = seg->touched;
	seg->reserved = true;
	arena->nr_reserved++;
	xalloc_count(XALLOC_NR_RESERVED_SLICES, XALLOC_SLICES_PER_SEGMENT);
	relist(arena, seg);
}

/* All changes of present and granted go through here, so that what they entail follows. */
static void set_slices(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 present,
		       u32 granted)
{
	u32 idle_before = idle_slices(seg), idle;
	s32 more;

	lockdep_assert_held(&arena->lock);
	more = (s32)hweight32(granted) - (s32)hweight32(seg->granted);
	arena->nr_granted_slices += more;
	xalloc_count(XALLOC_NR_GRANTED_SLICES, more);
	seg->present = present;
	/* After the folios below it: pairs with mappable_folio(). */
	smp_store_release(&seg->granted, granted);

	idle = idle_slices(seg);
	more = (s32)hweight32(idle) - (s32)hweight32(idle_before);
	arena->nr_idle_slices += more;
	xalloc_count(XALLOC_NR_IDLE_SLICES, more);
	if (granted || !present)
		unreserve(arena, seg);
	if (!idle != !idle_before)
		relist(arena, seg);
}

/*
 * Memory for @nr_slices may be had: counted against the arena's limits and its payer. Of all looks
 * at limits this is the one that counts; those in page.c only spare work in vain.
 */
static int charge(struct xalloc_arena *arena, u32 nr_slices)
{
	int err;

	if (nr_slices > arena->limit_slices - arena->nr_committed_slices)
		return -EDQUOT;
	err = xalloc_budget_charge(arena->budget, nr_slices);
	if (err)
		return err;
	err = xalloc_payer_charge(&arena->payer, nr_slices);
	if (err)
		xalloc_budget_uncharge(arena->budget, nr_slices);
	else
		arena->nr_committed_slices += nr_slices;
	return err;
}

static void uncharge(struct xalloc_arena *arena, u32 nr_slices)
{
	xalloc_payer_uncharge(&arena->payer, nr_slices);
	xalloc_budget_uncharge(arena->budget, nr_slices);
	arena->nr_committed_slices -= nr_slices;
}

/* Slices that are here for want of what the arena's policy prefers. */
static void count_fallback(struct xalloc_arena *arena, struct folio *folio, int sign)
{
	int nr_slices = sign * (int)(folio_nr_pages(folio) / XALLOC_SLICE_KPAGES);

	if (folio_order(folio) != XALLOC_SEGMENT_ORDER)
		arena->nr_small_slices += nr_slices;
	if (arena->node != NUMA_NO_NODE && folio_nid(folio) != arena->node)
		arena->nr_off_node_slices += nr_slices;
}

/* With arena->lock let go, so that others grant and free while memory is zeroed. */
static struct folio *alloc_unlocked(struct xalloc_arena *arena, struct xalloc_segment *seg,
				    u32 slices, unsigned int order, bool background)
{
	struct folio *folio;
	bool warm = false;

	seg->populating = slices;
	mutex_unlock(&arena->lock);
	folio = arena->backing->alloc(arena, order, xalloc_segment_offset(seg, __ffs(slices)),
				      &warm);
	mutex_lock(&arena->lock);
	seg->populating = 0;
	if (!folio)
		return NULL;
	if (!warm && !background) {
		arena->nr_cold_slices += hweight32(slices);
		xalloc_count(XALLOC_NR_COLD_SLICES, hweight32(slices));
	}
	count_fallback(arena, folio, 1);
	return folio;
}

/* To the kernel, or, if hardware has broken it, to nobody. */
static void drop_folio(struct xalloc_arena *arena, struct folio *folio)
{
	u32 nr_slices = folio_nr_pages(folio) / XALLOC_SLICE_KPAGES;

	count_fallback(arena, folio, -1);
	/* A fault that found the folio just before holds a reference and will drop it. */
	arena->backing->free(folio);
	uncharge(arena, nr_slices);
	arena->nr_given_back += nr_slices;
}

static int add_huge(struct xalloc_arena *arena, struct xalloc_segment *seg, bool background)
{
	struct folio *folio;
	int err, i;

	err = charge(arena, XALLOC_SLICES_PER_SEGMENT);
	if (err)
		return err;
	folio = alloc_unlocked(arena, seg, ALL_SLICES, XALLOC_SEGMENT_ORDER, background);
	if (!folio) {
		uncharge(arena, XALLOC_SLICES_PER_SEGMENT);
		return -ENOMEM;
	}
	err = xalloc_placement_set_backing(&arena->placement, seg->index, XALLOC_BACKING_HUGE);
	if (err) {
		drop_folio(arena, folio);
		return err;
	}
	for (i = 0; i < XALLOC_SLICES_PER_SEGMENT; i++)
		WRITE_ONCE(seg->folio[i], folio);
	seg->touched = 0;
	set_slices(arena, seg, ALL_SLICES, 0);
	return 0;
}

static int add_piece(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slice)
{
	struct folio *folio;
	int err;

	err = charge(arena, 1);
	if (err)
		return err;
	folio = alloc_unlocked(arena, seg, BIT(slice), XALLOC_PIECE_ORDER, false);
	if (!folio) {
		uncharge(arena, 1);
		return -ENOMEM;
	}
	err = seg->in_pieces ? 0 : xalloc_placement_set_backing(&arena->placement, seg->index,
								XALLOC_BACKING_PIECES);
	if (err) {
		drop_folio(arena, folio);
		return err;
	}
	seg->in_pieces = true;
	WRITE_ONCE(seg->folio[slice], folio);
	seg->touched &= ~BIT(slice);
	set_slices(arena, seg, seg->present | BIT(slice), seg->granted);
	return 0;
}

static int add_pieces(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slices)
{
	int err = 0;

	/* Only these are ours to add; nobody else takes memory away below taken slices. */
	for (slices &= ~seg->present; slices && !err; slices &= slices - 1) {
		if (fatal_signal_pending(current))
			return -EINTR;
		err = add_piece(arena, seg, __ffs(slices));
		cond_resched();
	}
	return err;
}

static int add_slices(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slices,
		      unsigned int how)
{
	int err;

	if (!seg->present && arena->policy != XALLOC_POLICY_SMALL &&
	    !(how & XALLOC_POPULATE_PIECES)) {
		err = add_huge(arena, seg, how & XALLOC_POPULATE_BACKGROUND);
		if (err != -ENOMEM || arena->policy == XALLOC_POLICY_HUGE ||
		    how & XALLOC_POPULATE_HUGE)
			return err;
	}
	return add_pieces(arena, seg, slices);
}

/* Take a segment without memory off the arena. */
static void forget(struct xalloc_arena *arena, struct xalloc_segment *seg)
{
	xa_erase(&arena->segments, seg->index);
	kfree_rcu(seg, rcu);
}

/**
 * xalloc_segment_wait() - wait until a segment was populated, or zeroed by the worker
 * @arena: the arena, in which somebody is
 *
 * Context: Process context, sleeps. arena->lock held; let go and taken again.
 * Return: 0, or -EINTR if a fatal signal arrived.
 */
int xalloc_segment_wait(struct xalloc_arena *arena)
{
	DEFINE_WAIT(wait);

	/* Before the lock is let go: whoever is done says so with it held. */
	prepare_to_wait(&arena->populated, &wait, TASK_KILLABLE);
	mutex_unlock(&arena->lock);
	if (!fatal_signal_pending(current))
		schedule();
	finish_wait(&arena->populated, &wait);
	mutex_lock(&arena->lock);
	return fatal_signal_pending(current) ? -EINTR : 0;
}

/**
 * xalloc_segment_populate() - give memory to slices of a segment
 * @arena: its arena
 * @index: number of the segment
 * @slices: which of its slices; the caller has taken them from the placement, or fills the
 *	reserve, or fills a hole (hole.c) and grants them before it lets arena->lock go
 * @how: XALLOC_POPULATE_HUGE: an order-9 folio or nothing; XALLOC_POPULATE_PIECES: no order-9
 *	folio; XALLOC_POPULATE_BACKGROUND: nobody waits for it
 *
 * An order-9 folio where the arena's policy has it, pieces where the policy says so. The
 * memory is idle at first. What was had before an error stays, idle.
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again.
 * Return: 0, or -EDQUOT (the arena's limit), the error of arena->budget, -ENOBUFS, -EUSERS, -ENOSR
 * (as from xalloc_payer_charge()), -ENOMEM, -EINTR, -EUCLEAN.
 */
int xalloc_segment_populate(struct xalloc_arena *arena, u32 index, u32 slices, unsigned int how)
{
	struct xalloc_segment *seg;
	int err;

	for (;;) {
		lockdep_assert_held(&arena->lock);
		seg = xa_load(&arena->segments, index);
		if (!seg || !seg->populating)
			break;
		err = xalloc_segment_wait(arena);
		if (err)
			return err;
	}
	if (seg && !(slices & ~seg->present))
		return 0;
	/* Others whose wishes were fewer were there first. */
	if (seg && seg->in_pieces && how & XALLOC_POPULATE_HUGE)
		return -ENOMEM;
	if (fatal_signal_pending(current))
		return -EINTR;
	if (!seg) {
		seg = kzalloc(sizeof(*seg), GFP_KERNEL_ACCOUNT);
		if (!seg)
			return -ENOMEM;
		seg->index = index;
		INIT_LIST_HEAD(&seg->idle);
		/* Publishes the segment to the fault, which refuses it until it is granted. */
		err = xa_insert(&arena->segments, index, seg, GFP_KERNEL_ACCOUNT);
		if (err) {
			kfree(seg);
			if (err == -EBUSY)
				err = xalloc_segment_fence(arena, index, index);
			return err;
		}
	}
	err = add_slices(arena, seg, slices, how);
	if (!seg->present)
		forget(arena, seg);
	wake_up_all(&arena->populated);
	return err;
}

/* Whether a slice is idle and mapped. If so, its folio is the slices from *@from to before *@to. */
static bool is_mapped(struct xalloc_arena *arena, u32 slice, u32 *from, u32 *to)
{
	struct xalloc_segment *seg = xa_load(&arena->segments, slice / XALLOC_SLICES_PER_SEGMENT);
	u32 at = slice % XALLOC_SLICES_PER_SEGMENT;

	if (!seg || !(idle_slices(seg) & BIT(at)) || !xalloc_unmap_is_needed(seg->folio[at]))
		return false;
	*from = slice - (seg->in_pieces ? 0 : at);
	*to = *from + (seg->in_pieces ? 1 : XALLOC_SLICES_PER_SEGMENT);
	return true;
}

/* Unmap the folio at a slice if it is mapped, and what is idle and mapped beside it at once. */
static void unmap_around(struct xalloc_arena *arena, u32 slice)
{
	u32 from, to, first, end;

	if (!arena->mapping || !is_mapped(arena, slice, &first, &end))
		return;
	while (end - first < UNMAP_SLICES_MAX && is_mapped(arena, end, &from, &to))
		end = to;
	while (first && end - first < UNMAP_SLICES_MAX && is_mapped(arena, first - 1, &from, &to))
		first = from;
	xalloc_unmap(arena, arena->mapping, (pgoff_t)first * XALLOC_SLICE_KPAGES,
		     (pgoff_t)(end - first) * XALLOC_SLICE_KPAGES);
}

/**
 * xalloc_segment_is_quiet() - see that nobody else refers to slices, and unmap what is idle
 * @arena: its arena
 * @seg: the segment
 * @slices: which; of an order-9 segment, the answer is about all of it
 *
 * If a part of an order-9 segment is granted, the segment stays mapped, and references of page
 * tables do not count. A process that has idle slices mapped takes a fault on the next touch.
 *
 * Context: Process context, may sleep. arena->lock held. Takes the folio lock.
 * Return: true only if nobody does. A reference that is just being dropped counts.
 */
bool xalloc_segment_is_quiet(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slices)
{
	lockdep_assert_held(&arena->lock);
	slices &= seg->present;
	if (!seg->in_pieces && seg->granted)
		return !slices || !xalloc_unmap_sees_pin(seg->folio[0]);
	for (; slices; slices &= slices - 1) {
		u32 slice = seg->in_pieces ? __ffs(slices) : 0;

		unmap_around(arena, seg->index * XALLOC_SLICES_PER_SEGMENT + slice);
		if (folio_ref_count(seg->folio[slice]) != xalloc_backing_nr_refs(seg->folio[slice]))
			return false;
		if (!seg->in_pieces)
			break;
	}
	return true;
}

/**
 * xalloc_segment_is_poisoned() - whether hardware has broken memory of some slices
 * @seg: the segment
 * @slices: which of its slices
 *
 * The kernel marks single kpages and tells nobody, so each has to be looked at.
 *
 * Return: true if so.
 */
bool xalloc_segment_is_poisoned(const struct xalloc_segment *seg, u32 slices)
{
	unsigned int first, i;

	if (!IS_ENABLED(CONFIG_MEMORY_FAILURE))
		return false;
	for (slices &= seg->present; slices; slices &= slices - 1) {
		first = __ffs(slices);
		for (i = 0; i < XALLOC_SLICE_KPAGES; i++)
			if (PageHWPoison(xalloc_segment_kpage(seg, first) + i))
				return true;
	}
	return false;
}

/* All of an order-9 segment. */
static void drop_huge(struct xalloc_arena *arena, struct xalloc_segment *seg)
{
	set_slices(arena, seg, 0, 0);
	xalloc_placement_set_backing(&arena->placement, seg->index, XALLOC_BACKING_BARE);
	drop_folio(arena, seg->folio[0]);
	forget(arena, seg);
}

static void drop_piece(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slice)
{
	struct folio *folio = seg->folio[slice];

	set_slices(arena, seg, seg->present & ~BIT(slice), seg->granted);
	WRITE_ONCE(seg->folio[slice], NULL);
	drop_folio(arena, folio);
}

/* Forgets a segment in pieces when its last piece is gone and nobody populates it. */
static void forget_empty(struct xalloc_arena *arena, struct xalloc_segment *seg)
{
	if (seg->present || seg->populating)
		return;
	xalloc_placement_set_backing(&arena->placement, seg->index, XALLOC_BACKING_BARE);
	forget(arena, seg);
}

static void settle_pieces(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slices)
{
	for (; slices; slices &= slices - 1)
		if (xalloc_segment_is_quiet(arena, seg, slices & -slices))
			drop_piece(arena, seg, __ffs(slices));
	forget_empty(arena, seg);
}

/**
 * xalloc_segment_untaken() - slices of a segment that are in no page
 * @arena: its arena
 * @index: number of the segment
 *
 * Context: arena->lock held.
 * Return: bits of the slices; of a fenced segment, they are not free either.
 */
u32 xalloc_segment_untaken(struct xalloc_arena *arena, u32 index)
{
	const struct xalloc_placement_segment *placed =
		xalloc_placement_segment(&arena->placement, index);

	return placed ? placed->free | placed->lost : ALL_SLICES;
}

/* Whether a segment is to stay, as part of the reserve. Broken memory does not. */
static bool is_for_reserve(struct xalloc_arena *arena, const struct xalloc_segment *seg)
{
	return arena->nr_reserved < arena->reserve_high &&
	       !~xalloc_placement_free_mask(&arena->placement, seg->index) &&
	       !xalloc_segment_is_poisoned(seg, ALL_SLICES);
}

/**
 * xalloc_segment_settle() - give back what of a segment nobody has and nobody refers to
 * @arena: its arena
 * @seg: the segment; may be gone afterwards
 *
 * Memory that somebody still refers to is unmapped and stays. An idle order-9 segment may become
 * part of the reserve; a segment of the reserve is given back only above the high mark.
 *
 * Context: Process context, may sleep. arena->lock held. Takes the folio lock.
 */
void xalloc_segment_settle(struct xalloc_arena *arena, struct xalloc_segment *seg)
{
	u32 slices;

	lockdep_assert_held(&arena->lock);
	slices = idle_slices(seg);
	if (!arena->dying)
		slices &= xalloc_segment_untaken(arena, seg->index);
	if (!slices || seg->populating)
		return;
	if (seg->in_pieces) {
		settle_pieces(arena, seg, slices);
		return;
	}
	if (slices != ALL_SLICES || (seg->reserved && arena->nr_reserved <= arena->reserve_high))
		return;
	if (!xalloc_segment_is_quiet(arena, seg, slices))
		unreserve(arena, seg);
	else if (!seg->reserved && is_for_reserve(arena, seg))
		reserve(arena, seg);
	else
		drop_huge(arena, seg);
}

/**
 * xalloc_segment_drop() - let go of all memory of an idle segment, whoever refers to it
 * @arena: its arena, which goes away
 * @seg: the segment; gone afterwards
 *
 * Context: Process context. arena->lock held.
 */
void xalloc_segment_drop(struct xalloc_arena *arena, struct xalloc_segment *seg)
{
	u32 slices;

	lockdep_assert_held(&arena->lock);
	if (!seg->in_pieces) {
		drop_huge(arena, seg);
		return;
	}
	for (slices = seg->present; slices; slices &= slices - 1)
		drop_piece(arena, seg, __ffs(slices));
	forget(arena, seg);
}

/*
 * Unmaps a folio of idle slices, and takes the folio out of page cache if nobody refers to it. The
 * slices stay unmapped while they are idle: no fault maps them.
 */
static bool leave_cache(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slice,
			bool may_wait)
{
	struct folio *folio = seg->folio[slice];

	/* A fault takes its reference before it looks whether the slices are granted. */
	smp_mb();
	if (folio_mapped(folio))
		xalloc_unmap(arena, arena->mapping, xalloc_segment_offset(seg, slice),
			     folio_nr_pages(folio));
	return folio_ref_count(folio) == xalloc_backing_nr_refs(folio) &&
	       xalloc_backing_remove(folio, may_wait);
}

static u32 drop_idle_pieces(struct xalloc_arena *arena, struct xalloc_segment *seg, bool may_wait)
{
	u32 slices = idle_slices(seg) & xalloc_segment_untaken(arena, seg->index), nr = 0;

	for (; slices; slices &= slices - 1) {
		if (!leave_cache(arena, seg, __ffs(slices), may_wait))
			continue;
		drop_piece(arena, seg, __ffs(slices));
		nr++;
	}
	forget_empty(arena, seg);
	return nr;
}

/**
 * xalloc_segment_drop_idle() - give back the idle memory of a segment
 * @arena: its arena
 * @seg: a segment of the reserve or of the rest; may be gone afterwards, or out of the reserve if
 *	somebody refers to it
 * @may_wait: whether to wait for somebody who has a folio locked; else that folio stays
 *
 * Slices that a grant or the worker has taken stay.
 *
 * Context: Any in which memory is reclaimed, if @may_wait is false. arena->lock held. Takes
 * i_mmap_rwsem if idle memory is mapped.
 * Return: the number of slices given back.
 */
u32 xalloc_segment_drop_idle(struct xalloc_arena *arena, struct xalloc_segment *seg, bool may_wait)
{
	lockdep_assert_held(&arena->lock);
	if (seg->populating)
		return 0;
	if (seg->in_pieces)
		return drop_idle_pieces(arena, seg, may_wait);
	if (!xalloc_placement_is_whole(&arena->placement, seg->index))
		return 0;
	if (!leave_cache(arena, seg, 0, may_wait)) {
		if (folio_ref_count(seg->folio[0]) != xalloc_backing_nr_refs(seg->folio[0]))
			unreserve(arena, seg);
		return 0;
	}
	drop_huge(arena, seg);
	return XALLOC_SLICES_PER_SEGMENT;
}

/**
 * xalloc_segment_clean() - zero a segment of the reserve, while others grant and free
 * @arena: its arena
 * @seg: a dirty segment of the reserve; may be gone afterwards
 *
 * The slices are taken while the worker zeroes them, so that nobody is granted them and the segment
 * stays. Two kinds of segments are not zeroed: one with broken memory is given back, and one of
 * which a grant under way has taken slices only stops being part of the reserve.
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again.
 */
void xalloc_segment_clean(struct xalloc_arena *arena, struct xalloc_segment *seg)
{
	u32 slice = seg->index * XALLOC_SLICES_PER_SEGMENT;
	bool is_broken;

	lockdep_assert_held(&arena->lock);
	if (!xalloc_placement_is_whole(&arena->placement, seg->index) ||
	    xalloc_placement_take_at(&arena->placement, slice, XALLOC_SLICES_PER_SEGMENT)) {
		xalloc_segment_tell_fenced(arena);
		unreserve(arena, seg);
		return;
	}
	arena->cleaning = seg;
	mutex_unlock(&arena->lock);
	is_broken = xalloc_segment_is_poisoned(seg, ALL_SLICES);
	if (!is_broken)
		arena->backing->zero(seg->folio[0]);
	mutex_lock(&arena->lock);
	arena->cleaning = NULL;
	if (xalloc_placement_give(&arena->placement, slice, XALLOC_SLICES_PER_SEGMENT))
		xalloc_segment_fence(arena, seg->index, seg->index);
	if (is_broken) {
		drop_huge(arena, seg);
	} else {
		seg->touched = 0;
		seg->dirty = false;
		relist(arena, seg);
	}
}

/**
 * xalloc_segment_zero() - zero slices
 * @seg: the segment
 * @slices: which, all with memory
 *
 * Context: Process context, may sleep. arena->lock held, or nobody else can free the slices.
 */
void xalloc_segment_zero(struct xalloc_segment *seg, u32 slices)
{
	for (; slices; slices &= slices - 1) {
		struct page *kpage = xalloc_segment_kpage(seg, __ffs(slices));
		unsigned int i;

		/* A write to a broken one would be the kernel's own machine check. */
		for (i = 0; i < XALLOC_SLICE_KPAGES; i++)
			if (!PageHWPoison(kpage + i))
				clear_highpage(kpage + i);
		cond_resched();
	}
}

/**
 * xalloc_segment_copy() - copy what is in granted slices
 * @to: the segment to copy to
 * @from: the one at the same place of another arena
 * @slices: which, all granted in both
 *
 * Context: Process context, may sleep. The lock of the arena of @from held; nobody else
 * knows of that of @to.
 * Return: 0, or -EHWPOISON if hardware has broken a part of @from.
 */
int xalloc_segment_copy(struct xalloc_segment *to, const struct xalloc_segment *from, u32 slices)
{
	if (xalloc_segment_is_poisoned(from, slices))
		return -EHWPOISON;
	for (; slices; slices &= slices - 1) {
		struct page *kpage = xalloc_segment_kpage(to, __ffs(slices));
		struct page *original = xalloc_segment_kpage(from, __ffs(slices));
		unsigned int i;

		for (i = 0; i < XALLOC_SLICE_KPAGES; i++)
			if (copy_mc_highpage(kpage + i, original + i))
				return -EHWPOISON;
		cond_resched();
	}
	return 0;
}

/* Let the kernel map the folios of granted slices by itself: see backing.c. */
static void mark_mappable(struct xalloc_segment *seg, u32 slices)
{
	if (!seg->in_pieces) {
		folio_mark_uptodate(seg->folio[0]);
		return;
	}
	for (; slices; slices &= slices - 1)
		folio_mark_uptodate(seg->folio[__ffs(slices)]);
}

/* The opposite, for slices not granted any more: an order-9 folio only when no slice is granted. */
static void clear_mappable(struct xalloc_segment *seg, u32 slices)
{
	if (!seg->in_pieces) {
		if (!seg->granted)
			folio_clear_uptodate(seg->folio[0]);
		return;
	}
	for (; slices; slices &= slices - 1)
		folio_clear_uptodate(seg->folio[__ffs(slices)]);
}

/**
 * xalloc_segment_grant() - note that slices belong to a page of a living client now
 * @arena: the arena
 * @seg: the segment
 * @slices: which, all present
 *
 * Context: arena->lock held.
 * Return: those of them that were granted before since their memory was zeroed.
 */
u32 xalloc_segment_grant(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slices)
{
	u32 touched = seg->touched & slices;

	WARN_ON_ONCE(slices & ~seg->present || slices & seg->granted);
	seg->touched |= slices;
	set_slices(arena, seg, seg->present, seg->granted | slices);
	mark_mappable(seg, slices);
	return touched;
}

/**
 * xalloc_segment_ungrant() - note that slices belong to no page of a living client now
 * @arena: the arena
 * @seg: the segment
 * @slices: which, all granted
 *
 * Context: arena->lock held.
 */
void xalloc_segment_ungrant(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slices)
{
	WARN_ON_ONCE(slices & ~seg->granted);
	set_slices(arena, seg, seg->present, seg->granted & ~slices);
	clear_mappable(seg, slices);
}

/* The folio at a slice that the fault may map now, without a reference. */
static struct folio *mappable_folio(struct xalloc_arena *arena, u32 slice)
{
	struct xalloc_segment *seg = xa_load(&arena->segments, slice / XALLOC_SLICES_PER_SEGMENT);
	u32 granted;

	RCU_LOCKDEP_WARN(!rcu_read_lock_held(), "segment looked at outside of RCU");
	if (!seg)
		return NULL;
	slice %= XALLOC_SLICES_PER_SEGMENT;
	/* Before the folios: pairs with set_slices(). */
	granted = smp_load_acquire(&seg->granted);
	if (!(READ_ONCE(seg->in_pieces) ? granted & BIT(slice) : granted))
		return NULL;
	return READ_ONCE(seg->folio[slice]);
}

/**
 * xalloc_segment_lock_folio() - the memory of a slice, for the fault
 * @arena: the arena
 * @slice: number of the slice in the arena
 *
 * Nothing that was seen before the folio lock counts: giving back takes the lock after
 * the slices became idle, so what is seen under it stays true until it is dropped.
 *
 * Context: Process context, sleeps for the folio lock.
 * Return: the folio, referenced and locked, or NULL if no page is there.
 */
struct folio *xalloc_segment_lock_folio(struct xalloc_arena *arena, u32 slice)
{
	struct folio *folio;

	for (;;) {
		rcu_read_lock();
		folio = mappable_folio(arena, slice);
		if (!folio) {
			rcu_read_unlock();
			return NULL;
		}
		if (!folio_try_get(folio)) {
			/* Being freed: the segment does not have it any more. */
			rcu_read_unlock();
			cpu_relax();
			continue;
		}
		/* Freed and in use elsewhere between the two? Then do not lock it. */
		if (mappable_folio(arena, slice) != folio) {
			rcu_read_unlock();
			folio_put(folio);
			continue;
		}
		rcu_read_unlock();

		folio_lock(folio);
		rcu_read_lock();
		if (mappable_folio(arena, slice) == folio) {
			rcu_read_unlock();
			return folio;
		}
		rcu_read_unlock();
		folio_unlock(folio);
		folio_put(folio);
	}
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_segment_lock_folio);

/**
 * xalloc_segment_get_folio() - the memory of a slice that is granted
 * @arena: the arena
 * @slice: number of the slice in the arena
 *
 * Context: Process context, sleeps for the folio lock.
 * Return: the folio, referenced, or NULL if the slice is in no page of a living client.
 */
struct folio *xalloc_segment_get_folio(struct xalloc_arena *arena, u32 slice)
{
	struct folio *folio = xalloc_segment_lock_folio(arena, slice);
	const struct xalloc_segment *seg;
	bool granted;

	if (!folio)
		return NULL;
	/* An order-9 folio is also found if only another slice of it is granted. */
	rcu_read_lock();
	seg = xa_load(&arena->segments, slice / XALLOC_SLICES_PER_SEGMENT);
	granted = seg && READ_ONCE(seg->granted) & BIT(slice % XALLOC_SLICES_PER_SEGMENT);
	rcu_read_unlock();
	folio_unlock(folio);
	if (granted)
		return folio;
	folio_put(folio);
	return NULL;
}

/**
 * xalloc_segment_extent() - memory of slices that lies in one piece
 * @arena: the arena
 * @slice: the first of them, in a page that stays
 * @nr_slices: how many there are
 * @kpage: set to the first kpage of the memory
 *
 * Context: Process context.
 * Return: how many slices from @slice on are in the same folio, at most @nr_slices.
 */
u32 xalloc_segment_extent(struct xalloc_arena *arena, u32 slice, u32 nr_slices,
			  struct page **kpage)
{
	struct xalloc_segment *seg = xa_load(&arena->segments, slice / XALLOC_SLICES_PER_SEGMENT);
	u32 at = slice % XALLOC_SLICES_PER_SEGMENT;

	*kpage = xalloc_segment_kpage(seg, at);
	return seg->in_pieces ? 1 : min(nr_slices, XALLOC_SLICES_PER_SEGMENT - at);
}

/**
 * xalloc_segment_kpages() - the kpages below slices that have memory
 * @arena: the arena
 * @slice: the first of them
 * @nr_kpages: how many kpages
 *
 * Context: Process context, may sleep. The slices are in pages that stay.
 * Return: an array, to be freed by kvfree(), or NULL.
 */
struct page **xalloc_segment_kpages(struct xalloc_arena *arena, u32 slice, u32 nr_kpages)
{
	struct page **kpages = kvmalloc_array(nr_kpages, sizeof(*kpages), GFP_KERNEL_ACCOUNT);
	struct page *first;
	u32 i = 0, nr;

	if (!kpages)
		return NULL;
	while (i < nr_kpages) {
		nr = xalloc_segment_extent(arena, slice, U32_MAX, &first);
		slice += nr;
		for (nr *= XALLOC_SLICE_KPAGES; nr && i < nr_kpages; nr--)
			kpages[i++] = first++;
		cond_resched();
	}
	return kpages;
}
