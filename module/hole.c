// SPDX-License-Identifier: GPL-2.0-only
/*
 * Holes: memory of a file that file calls and touches commit, and that file calls give back.
 *
 * An arena that is made by ioctl commits by grants alone. The arena of any other file of xallocfs
 * is for those who want a file. There a slice without a page is a hole. A write, a touch of a
 * mapping and fallocate() fill holes; truncate() and fallocate() with PUNCH_HOLE make them. A page
 * that fills a hole belongs to the arena. Grants, which would find free slices by themselves, are
 * not for these arenas.
 *
 * The unit is a folio, because a mapping maps the whole folio: an order-9 folio is granted as a
 * whole, so that no slice of it is a hole that can be touched without a fault. A piece is one
 * slice. What of a folio lies past the end of the file, or is punched without the rest, is zeroed
 * and stays.
 *
 * A file has an offset space of the largest size. The size of the inode says how much of it can be
 * used. It changes with the inode locked, which also keeps readers, whose references would look
 * like pins, out of the way of what gives back. A touch holds no lock of the inode: under
 * arena->lock it looks at the size once more.
 */
#include <linux/bitops.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>

#include "internal.h"

#define ALL_SLICES (~0u)

/* Segments to look at before others have arena->lock. */
#define STEP_SEGMENTS 16

/* Slices of segment @index that are in the range, which ends before slice @end. */
static u32 slices_between(u32 index, u32 first, u32 end)
{
	return first < end ? xalloc_placement_mask(index, first, end - first) : 0;
}

/* Grants to the arena slices of one segment that have memory, as many at once as there are. */
static int grant_slices(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slices)
{
	u32 base = seg->index * XALLOC_SLICES_PER_SEGMENT, first, nr;
	int err = 0;

	/* What was in a file before, and could not be given back, must not be seen again. */
	xalloc_segment_zero(seg, slices & seg->touched);
	for (; slices && !err; slices &= ~(u32)GENMASK(first + nr - 1, first)) {
		first = __ffs(slices);
		nr = ffz((unsigned long)slices >> first);
		err = xalloc_page_grant_idle(arena, base + first, nr);
	}
	return err;
}

/* Fills holes among @slices of a segment, or all of the segment if it gets an order-9 folio. */
static int fill_segment(struct xalloc_arena *arena, u32 index, u32 slices)
{
	struct xalloc_segment *seg = xa_load(&arena->segments, index);
	int err;

	if (seg)
		slices &= ~seg->granted;
	if (!slices)
		return 0;
	/* Broken memory, which nobody is granted, and which stays until all of its folio is freed. */
	if (slices & ~xalloc_placement_free_mask(&arena->placement, index))
		return -EHWPOISON;
	err = xalloc_segment_populate(arena, index, slices, 0);
	seg = xa_load(&arena->segments, index);
	if (!seg)
		return err;
	if (!err) {
		/* Others may have filled some meanwhile. */
		slices = (seg->in_pieces ? slices : ALL_SLICES) & ~seg->granted;
		if (slices & ~xalloc_placement_free_mask(&arena->placement, index))
			err = -EHWPOISON;
		else
			err = grant_slices(arena, seg, slices);
	}
	if (err)
		xalloc_segment_settle(arena, seg);
	return err;
}

/* Tries again with what can be given back. */
static int fill(struct xalloc_arena *arena, u32 index, u32 slices)
{
	int err;

	lockdep_assert_held(&arena->lock);
	if (!arena->fills_holes)
		return -ENXIO;
	err = fill_segment(arena, index, slices);
	if (err && xalloc_reclaim_for(arena, err))
		err = fill_segment(arena, index, slices);
	return err;
}

/**
 * xalloc_hole_fill() - give memory to slices that have none
 * @arena: an arena whose holes are filled
 * @first: the first of the slices
 * @end: the slice after the last one
 *
 * What was had before an error stays.
 *
 * Context: Process context, may sleep. The inode is locked. Takes and releases arena->lock.
 * Return: 0, or as from xalloc_segment_populate(), -EHWPOISON where memory is broken.
 */
int xalloc_hole_fill(struct xalloc_arena *arena, u32 first, u32 end)
{
	u32 index = first / XALLOC_SLICES_PER_SEGMENT, last = (end - 1) / XALLOC_SLICES_PER_SEGMENT;
	int err = 0;

	for (; index <= last && !err; index++) {
		if (mutex_lock_killable(&arena->lock))
			return -EINTR;
		err = fill(arena, index, slices_between(index, first, end));
		xalloc_reclaim_soon(arena);
		mutex_unlock(&arena->lock);
		cond_resched();
	}
	return err;
}

/*
 * Slices of a segment that are granted and of which the whole folio lies in slices from @first to
 * before @end.
 */
static u32 whole_slices(const struct xalloc_segment *seg, u32 first, u32 end)
{
	u32 slices = slices_between(seg->index, first, end) & seg->granted;

	return seg->in_pieces || slices == ALL_SLICES ? slices : 0;
}

/* Frees slices of one segment, by runs. */
static int free_slices(struct xalloc_arena *arena, u32 index, u32 slices)
{
	u32 base = index * XALLOC_SLICES_PER_SEGMENT, first, nr;
	int err = 0;

	for (; slices && !err; slices &= ~(u32)GENMASK(first + nr - 1, first)) {
		first = __ffs(slices);
		nr = ffz((unsigned long)slices >> first);
		err = xalloc_page_free_range(&arena->orphans, base + first, base + first + nr);
	}
	return err;
}

/* Frees what of a segment lies past the end of the file, folio by folio. */
static int free_past_end(struct xalloc_arena *arena, u32 index)
{
	u64 bytes = i_size_read(arena->mapping->host);
	const struct xalloc_segment *seg = xa_load(&arena->segments, index);

	return free_slices(arena, index,
			   whole_slices(seg, DIV_ROUND_UP_ULL(bytes, XALLOC_SLICE_BYTES),
					(index + 1) * XALLOC_SLICES_PER_SEGMENT));
}

/**
 * xalloc_hole_touch() - give memory to a hole that a mapping has touched
 * @arena: an arena whose holes are filled
 * @kpage: the touched one
 *
 * Context: Process context, may sleep; mm->mmap_lock or the lock of the vma is held. Takes and
 * releases arena->lock.
 * Return: 0, or as from xalloc_hole_fill(), -ENXIO past the end of the file.
 */
int xalloc_hole_touch(struct xalloc_arena *arena, pgoff_t kpage)
{
	const struct inode *inode = arena->mapping->host;
	u32 slice = kpage >> XALLOC_PIECE_ORDER, index = slice / XALLOC_SLICES_PER_SEGMENT;
	int err = -ENXIO;

	if (mutex_lock_killable(&arena->lock))
		return -EINTR;
	if (kpage < DIV_ROUND_UP_ULL(i_size_read(inode), PAGE_SIZE))
		err = fill(arena, index, BIT(slice % XALLOC_SLICES_PER_SEGMENT));
	/* The file was made shorter while memory was had. */
	if (!err && kpage >= DIV_ROUND_UP_ULL(i_size_read(inode), PAGE_SIZE))
		err = free_past_end(arena, index) ?: -ENXIO;
	xalloc_reclaim_soon(arena);
	mutex_unlock(&arena->lock);
	return err;
}

static void zero_in_folio(struct folio *folio, u64 from, u64 to)
{
	struct page *kpage;
	u64 end;

	for (; from < to; from = end) {
		end = min(to, round_down(from, PAGE_SIZE) + PAGE_SIZE);
		kpage = folio_page(folio, (from >> PAGE_SHIFT) % folio_nr_pages(folio));
		/* A write to a broken one would be the kernel's own machine check. */
		if (!PageHWPoison(kpage))
			memzero_page(kpage, offset_in_page(from), end - from);
	}
}

/**
 * xalloc_hole_zero() - zero what has memory in a part of a file
 * @arena: the arena
 * @from: where the part begins, in bytes
 * @to: where it ends
 *
 * Context: Process context, may sleep. The inode is locked.
 */
void xalloc_hole_zero(struct xalloc_arena *arena, u64 from, u64 to)
{
	struct folio *folio;
	u64 end;

	for (; from < to; from = end) {
		end = min(to, round_down(from, XALLOC_SLICE_BYTES) + XALLOC_SLICE_BYTES);
		folio = xalloc_segment_get_folio(arena, from / XALLOC_SLICE_BYTES);
		if (!folio)
			continue;
		zero_in_folio(folio, from, end);
		folio_put(folio);
		cond_resched();
	}
}

/* Whether a device, a pipe or a dma-buf has memory of the slices. */
static bool is_pinned(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slices)
{
	u32 base = seg->index * XALLOC_SLICES_PER_SEGMENT;
	const struct xalloc_page *page;

	for (; slices; slices &= slices - 1) {
		page = xalloc_page_around(arena, base + __ffs(slices));
		if ((page && page->nr_holds) || xalloc_unmap_sees_pin(seg->folio[__ffs(slices)]))
			return true;
		if (!seg->in_pieces)
			break;
	}
	return false;
}

static int check_pins(struct xalloc_arena *arena, u32 first, u32 end)
{
	struct xalloc_segment *seg;
	unsigned long index;
	u32 nr = 0;
	int err = 0;

	if (mutex_lock_killable(&arena->lock))
		return -EINTR;
	xa_for_each_range(&arena->segments, index, seg, first / XALLOC_SLICES_PER_SEGMENT,
			  (end - 1) / XALLOC_SLICES_PER_SEGMENT) {
		if (is_pinned(arena, seg, whole_slices(seg, first, end)))
			err = -EBUSY;
		if (err)
			break;
		if (++nr % STEP_SEGMENTS == 0)
			xalloc_arena_breathe(arena);
	}
	mutex_unlock(&arena->lock);
	return err;
}

/* Frees the granted folios that lie in a range of slices as a whole. */
static int free_folios(struct xalloc_arena *arena, u32 first, u32 end)
{
	struct xalloc_segment *seg;
	unsigned long index;
	int err = 0;

	if (mutex_lock_killable(&arena->lock))
		return -EINTR;
	xa_for_each_range(&arena->segments, index, seg, first / XALLOC_SLICES_PER_SEGMENT,
			  (end - 1) / XALLOC_SLICES_PER_SEGMENT) {
		err = free_slices(arena, index, whole_slices(seg, first, end));
		if (!err && fatal_signal_pending(current))
			err = -EINTR;
		if (err)
			break;
		xalloc_arena_breathe(arena);
	}
	xalloc_reclaim_abandoned(arena);
	xalloc_reclaim_soon(arena);
	mutex_unlock(&arena->lock);
	return err;
}

/**
 * xalloc_hole_punch() - make a hole in a file
 * @arena: an arena whose holes are filled
 * @from: where the hole begins, in bytes
 * @to: where it ends
 *
 * All of it reads as zeros afterwards. Folios that lie in it as a whole are given back, unless
 * somebody has one of them pinned: then nothing changes. If memory is pinned only after that was
 * looked at, it goes on being what is at its offset, for a CPU as for the device, and is given back
 * later.
 *
 * Context: Process context, may sleep. The inode is locked. Takes and releases arena->lock.
 * Return: 0, or -EBUSY, or -EINTR, -ENOMEM with a part done.
 */
int xalloc_hole_punch(struct xalloc_arena *arena, u64 from, u64 to)
{
	u32 first = DIV_ROUND_UP_ULL(from, XALLOC_SLICE_BYTES), end = to / XALLOC_SLICE_BYTES;
	u64 head = min(to, round_up(from, XALLOC_SEGMENT_BYTES));
	int err = 0;

	if (first < end)
		err = check_pins(arena, first, end) ?: free_folios(arena, first, end);
	if (err)
		return err;
	/* Folios that are in it in part are in its first segment and in its last one. */
	xalloc_hole_zero(arena, from, head);
	xalloc_hole_zero(arena, max(head, round_down(to, XALLOC_SEGMENT_BYTES)), to);
	return 0;
}

/**
 * xalloc_hole_set_size() - make a file longer or shorter
 * @arena: its arena, whose holes are filled
 * @bytes: the new size
 *
 * What a mapping may have written past the old end is zeroed. A shorter file gives back what lies
 * past the new end.
 *
 * Context: Process context, may sleep. The inode is locked. Takes and releases arena->lock.
 * Return: 0, or as from xalloc_hole_punch(), with the size unchanged.
 */
int xalloc_hole_set_size(struct xalloc_arena *arena, u64 bytes)
{
	const u64 most = (u64)arena->nr_segments * XALLOC_SEGMENT_BYTES;
	struct inode *inode = arena->mapping->host;
	u64 old = i_size_read(inode);
	int err;

	if (bytes >= old) {
		xalloc_hole_zero(arena, old, min(bytes, round_up(old, XALLOC_SEGMENT_BYTES)));
		i_size_write(inode, bytes);
		return 0;
	}
	/* First the size: no touch fills again what goes. */
	i_size_write(inode, bytes);
	err = xalloc_hole_punch(arena, bytes, most);
	if (err)
		i_size_write(inode, old);
	return err;
}
