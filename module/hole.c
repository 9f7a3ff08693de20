// SPDX-License-Identifier: GPL-2.0-only
/*
 * Holes: memory of a file that file calls and touches commit, and that file calls give back.
 *
 * A slice without a page is a hole. fallocate() fills holes, by pages that belong to the arena, and
 * with PUNCH_HOLE it makes holes. In an arena with grants, only grants and frees do so besides. The
 * arena of any other file of xallocfs is for those who want a file: there a
 * write and a touch of a mapping fill holes, too, and truncate() makes them. Grants, which would
 * find free slices by themselves, are not for these arenas.
 *
 * In a file the unit is a folio, because a mapping maps the whole folio: an order-9 folio is
 * granted as a whole, so that no slice of it is a hole that can be touched without a fault. A piece
 * is one slice. What of a folio lies past the end of the file, or is punched without the rest, is
 * zeroed and stays. In an arena with grants the unit is a slice.
 *
 * A file has an offset space of the largest size. The size of the inode says how much of it can be
 * used. The size changes only while the inode is locked. Readers lock the inode, too, so that
 * PUNCH_HOLE does not take their references for pins. A touch holds no lock of the inode: under
 * arena->lock it looks at the size once more.
 */
#include <linux/bitmap.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/jiffies.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>

#include "internal.h"

#define ALL_SLICES (~0u)

/* Segments to look at before others have arena->lock. */
#define STEP_SEGMENTS 16

/* Before a reference is taken for a pin: 10, 20, 40 and 80 ms. */
#define NR_WAITS 4

/* Each segment that has memory, or is given some, in the range, which ends before slice @end. */
#define for_each_segment_between(arena, first, end, index, seg)				\
	xa_for_each_range(&(arena)->segments, index, seg, (first) / XALLOC_SLICES_PER_SEGMENT,	\
			  ((end) - 1) / XALLOC_SLICES_PER_SEGMENT)

/* Slices of segment @index that are in the range, which ends before slice @end. */
static u32 slices_between(u32 index, u32 first, u32 end)
{
	return first < end ? xalloc_placement_mask(index, first, end - first) : 0;
}

/*
 * Grants to the arena slices of one segment that have memory. A piece is a page by itself, so that
 * a dma-buf which holds it holds no other.
 */
static int grant_slices(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slices)
{
	u32 base = seg->index * XALLOC_SLICES_PER_SEGMENT, first, end, nr;
	unsigned long bits = slices;
	int err = 0;

	/* What was in a file before, and could not be given back, must not be seen again. */
	xalloc_segment_zero(seg, slices & seg->touched);
	for_each_set_bitrange(first, end, &bits, XALLOC_SLICES_PER_SEGMENT) {
		nr = seg->in_pieces ? 1 : end - first;
		for (; first < end && !err; first += nr)
			err = xalloc_page_grant_idle(arena, base + first, nr);
		if (err)
			break;
	}
	return err;
}

/* An order-9 folio, or pieces: also if a budget has room for these alone. */
static int populate(struct xalloc_arena *arena, u32 index, u32 slices)
{
	int err = xalloc_segment_populate(arena, index, slices, 0);

	switch (err) {
	case -EDQUOT:
	case -ENOSPC:
	case -ENOBUFS:
	case -EUSERS:
	case -ENOSR:
		return xalloc_segment_populate(arena, index, slices, XALLOC_POPULATE_PIECES);
	}
	return err;
}

/*
 * Fills holes among @slices of a segment, or all of the segment if it gets an order-9 folio. Sets
 * @filled to what was filled.
 */
static int fill_segment(struct xalloc_arena *arena, u32 index, u32 slices, u32 *filled)
{
	struct xalloc_segment *seg = xa_load(&arena->segments, index);
	int err;

	*filled = 0;
	if (seg)
		slices &= ~seg->granted;
	if (!slices)
		return 0;
	/* Broken memory, which nobody is granted, and which stays until its folio is freed. */
	if (slices & ~xalloc_placement_free_mask(&arena->placement, index))
		return -EHWPOISON;
	err = populate(arena, index, slices);
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
	else
		*filled = slices;
	return err;
}

/* Has the clients know that memory was refused. */
static void tell_refusal(struct xalloc_arena *arena, int err, u32 nr_slices)
{
	if (err && err != -EINTR && err != -EHWPOISON)
		xalloc_reclaim_want(arena, (u64)nr_slices * XALLOC_SLICE_BYTES);
}

/* If memory is refused, gives back what can be given back, and tries once more. */
static int fill(struct xalloc_arena *arena, u32 index, u32 slices, u32 *filled)
{
	int err;

	lockdep_assert_held(&arena->lock);
	if (!arena->fills_holes)
		return -ENXIO;
	/* Keeps the arena as it is while the lock is let go. */
	arena->nr_filling++;
	err = fill_segment(arena, index, slices, filled);
	if (err && xalloc_reclaim_for(arena, err))
		err = fill_segment(arena, index, slices, filled);
	arena->nr_filling--;
	tell_refusal(arena, err, hweight32(slices));
	return err;
}

/* In an arena with grants: grants those of @slices of a segment that are in no page. */
static int grant_free(struct xalloc_arena *arena, u32 index, u32 slices)
{
	struct xalloc_page_grant grant;
	struct xalloc_segment *seg;
	LIST_HEAD(granted);
	u32 first;
	int rc;

	for (;;) {
		if (mutex_lock_killable(&arena->lock))
			return -EINTR;
		seg = xa_load(&arena->segments, index);
		if (seg)
			slices &= ~seg->granted;
		mutex_unlock(&arena->lock);
		if (!slices)
			return 0;
		first = __ffs(slices);
		grant = (struct xalloc_page_grant){
			.flags = XALLOC_PAGE_AT | XALLOC_PAGE_ARENA | XALLOC_PAGE_ZERO,
			.offset = ((u64)index * XALLOC_SLICES_PER_SEGMENT + first) *
				  XALLOC_SLICE_BYTES,
			.nr_slices = ffz((unsigned long)slices >> first),
		};
		rc = xalloc_client_grant(&arena->orphans, &grant, 1, &granted);
		if (rc > 0)
			xalloc_client_grant_finish(&arena->orphans, &granted, true);
		/* Others may have been granted a part meanwhile. */
		else if (rc != -EEXIST)
			return rc;
	}
}

/* To a file call, what was freed lazily is a hole. */
static void end_lazy(struct xalloc_arena *arena, u32 first, u32 end)
{
	xalloc_lazy_end_range(arena, first, end);
	xalloc_reclaim_abandoned(arena);
}

/* Whether the limits have room for the slices of a range that have no memory, each as a piece. */
static int check_room(struct xalloc_arena *arena, u32 first, u32 end)
{
	u32 nr_missing = end - first, nr = 0;
	struct xalloc_segment *seg;
	unsigned long index;
	int err;

	if (mutex_lock_killable(&arena->lock))
		return -EINTR;
	end_lazy(arena, first, end);
	for_each_segment_between(arena, first, end, index, seg) {
		nr_missing -= hweight32(slices_between(index, first, end) & seg->present);
		if (++nr % XALLOC_STEP_PAGES == 0)
			xalloc_arena_breathe(arena);
	}
	err = xalloc_page_check_limits(arena, nr_missing);
	tell_refusal(arena, err, nr_missing);
	mutex_unlock(&arena->lock);
	return err;
}

static int fill_locked(struct xalloc_arena *arena, u32 index, u32 slices)
{
	u32 filled;
	int err;

	if (mutex_lock_killable(&arena->lock))
		return -EINTR;
	err = fill(arena, index, slices, &filled);
	xalloc_reclaim_soon(arena);
	mutex_unlock(&arena->lock);
	return err;
}

/**
 * xalloc_hole_fill() - give memory to slices that have none
 * @arena: the arena
 * @first: the first of the slices
 * @end: the slice after the last one
 *
 * Nothing is had if the arena's limit or its budget has less room than the range has slices without
 * memory. What was had before another error stays; the same limits can refuse later, because a huge
 * page takes more than the range needs.
 *
 * Context: Process context, may sleep. The inode is locked. Takes and releases arena->lock.
 * Return: 0, or as from xalloc_segment_populate(), -EHWPOISON where memory is broken; in an arena
 * with grants, also -EBUSY where somebody refers to memory that a client left.
 */
int xalloc_hole_fill(struct xalloc_arena *arena, u32 first, u32 end)
{
	u32 index = first / XALLOC_SLICES_PER_SEGMENT, last = (end - 1) / XALLOC_SLICES_PER_SEGMENT;
	int err = check_room(arena, first, end);

	for (; index <= last && !err; index++) {
		u32 slices = slices_between(index, first, end);

		err = xalloc_hole_is_filled(arena) ? fill_locked(arena, index, slices) :
						     grant_free(arena, index, slices);
		cond_resched();
	}
	return err;
}

/*
 * Slices of a segment that are granted and can be freed, of those from @first to before @end. In a
 * file that is an order-9 folio as a whole or not at all.
 */
static u32 slices_to_free(const struct xalloc_arena *arena, const struct xalloc_segment *seg,
			  u32 first, u32 end)
{
	u32 slices = slices_between(seg->index, first, end) & seg->granted;

	return seg->in_pieces || slices == ALL_SLICES || !arena->fills_holes ? slices : 0;
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
	u32 slice = kpage >> XALLOC_PIECE_ORDER, index = slice / XALLOC_SLICES_PER_SEGMENT, filled;
	int err = -ENXIO;

	if (mutex_lock_killable(&arena->lock))
		return -EINTR;
	if (!xalloc_hole_is_past_end(arena->mapping->host, kpage))
		err = fill(arena, index, BIT(slice % XALLOC_SLICES_PER_SEGMENT), &filled);
	/* The file was made shorter while memory was had. What others have filled is theirs. */
	if (!err && xalloc_hole_is_past_end(arena->mapping->host, kpage))
		err = xalloc_page_free_slices(&arena->orphans, index, filled) ?: -ENXIO;
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

/* Whether @client may free slices, and no dma-buf has memory of them. */
static int check_pages(struct xalloc_client *client, const struct xalloc_segment *seg, u32 slices)
{
	u32 base = seg->index * XALLOC_SLICES_PER_SEGMENT;
	const struct xalloc_page *page;

	for (; slices; slices &= ~xalloc_page_slices_in(page, seg->index)) {
		page = xalloc_page_around(client->arena, base + __ffs(slices));
		/* Somebody frees it already, or did while a dma-buf has it. */
		if (!page || !xalloc_page_is_owned(client->arena, page))
			return -EBUSY;
		if (page->client != client && !page->of_arena)
			return -EPERM;
		if (page->nr_holds)
			return -EBUSY;
	}
	return 0;
}

/* Whether no device or pipe has memory of the slices. */
static int check_pins(const struct xalloc_segment *seg, u32 slices)
{
	for (; slices; slices &= slices - 1) {
		if (xalloc_unmap_sees_pin(seg->folio[__ffs(slices)]))
			return -EBUSY;
		if (!seg->in_pieces)
			break;
	}
	return 0;
}

static int check_freeable_once(struct xalloc_client *client, u32 first, u32 end)
{
	struct xalloc_arena *arena = client->arena;
	struct xalloc_segment *seg;
	unsigned long index;
	u32 slices, nr = 0;
	int err = 0;

	if (mutex_lock_killable(&arena->lock))
		return -EINTR;
	end_lazy(arena, first, end);
	for_each_segment_between(arena, first, end, index, seg) {
		slices = slices_to_free(arena, seg, first, end);
		err = check_pages(client, seg, slices) ?: check_pins(seg, slices);
		if (!err && fatal_signal_pending(current))
			err = -EINTR;
		if (err)
			break;
		if (++nr % STEP_SEGMENTS == 0)
			xalloc_arena_breathe(arena);
	}
	mutex_unlock(&arena->lock);
	return err;
}

/*
 * Whether the slices can be freed. A fault, or the kernel's compaction, has references to a folio
 * for a moment: as memfd_wait_for_pins() does, this looks again before it takes them for pins.
 */
static int check_freeable(struct xalloc_client *client, u32 first, u32 end)
{
	int err = check_freeable_once(client, first, end), i;

	for (i = 0; i < NR_WAITS && err == -EBUSY; i++) {
		if (schedule_timeout_killable(msecs_to_jiffies(10 << i)))
			return -EINTR;
		err = check_freeable_once(client, first, end);
	}
	return err;
}

/* The segment, when nobody is giving memory to slices of it; NULL if there is none. */
static struct xalloc_segment *wait_for_segment(struct xalloc_arena *arena, u32 index)
{
	struct xalloc_segment *seg;

	while ((seg = xa_load(&arena->segments, index)) && seg->populating)
		if (xalloc_segment_wait(arena))
			return ERR_PTR(-EINTR);
	return seg;
}

/* One segment's part of free_range(). */
static int free_in_segment(struct xalloc_client *client, u32 index, u32 first, u32 end)
{
	struct xalloc_arena *arena = client->arena;
	struct xalloc_segment *seg;
	u32 slices;
	int err;

	/* While others give memory to the segment, what is freed there would stay mapped. */
	seg = wait_for_segment(arena, index);
	if (IS_ERR_OR_NULL(seg))
		return PTR_ERR_OR_ZERO(seg);
	slices = slices_to_free(arena, seg, first, end);
	err = check_pages(client, seg, slices);
	if (err)
		return err;
	/* A folio that stays is still mapped. */
	if (!seg->in_pieces && slices != seg->granted)
		xalloc_segment_zero(seg, slices);
	return xalloc_page_free_slices(client, index, slices);
}

static int free_range(struct xalloc_client *client, u32 first, u32 end)
{
	struct xalloc_arena *arena = client->arena;
	struct xalloc_segment *seg;
	unsigned long index;
	int err = 0;

	if (mutex_lock_killable(&arena->lock))
		return -EINTR;
	for_each_segment_between(arena, first, end, index, seg) {
		err = free_in_segment(client, index, first, end);
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

/* Frees what can be freed between two offsets, and zeroes the rest. */
static int free_or_zero(struct xalloc_client *client, u64 from, u64 to)
{
	u32 first = DIV_ROUND_UP_ULL(from, XALLOC_SLICE_BYTES), end = to / XALLOC_SLICE_BYTES;
	u64 head = min(to, round_up(from, XALLOC_SEGMENT_BYTES));
	int err = 0;

	if (first < end)
		err = free_range(client, first, end);
	if (err)
		return err;
	/* What is left is in the first segment and in the last one. */
	xalloc_hole_zero(client->arena, from, head);
	xalloc_hole_zero(client->arena, max(head, round_down(to, XALLOC_SEGMENT_BYTES)), to);
	return 0;
}

/**
 * xalloc_hole_punch() - make a hole
 * @client: a client of the arena
 * @from: where the hole begins, in bytes
 * @to: where it ends
 *
 * All of it reads as zeros afterwards. What can be freed is given back, unless somebody has a part
 * of it pinned: then nothing changes. Memory that is pinned after that look stays at its offset
 * until nobody refers to it: if the hole is filled again before, it is the same memory, zeroed.
 *
 * Context: Process context, may sleep. The inode is locked. Takes and releases arena->lock.
 * Return: 0; -EBUSY, -EPERM for another client's pages, or -EINTR, with nothing changed; with a
 * part done, -EINTR, -ENOMEM, -EUCLEAN, or for what others did meanwhile -EBUSY, -EPERM or -ENOENT.
 */
int xalloc_hole_punch(struct xalloc_client *client, u64 from, u64 to)
{
	u32 first = DIV_ROUND_UP_ULL(from, XALLOC_SLICE_BYTES), end = to / XALLOC_SLICE_BYTES;
	int err = first < end ? check_freeable(client, first, end) : 0;

	return err ?: free_or_zero(client, from, to);
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
	const u32 end = arena->nr_segments * XALLOC_SLICES_PER_SEGMENT;
	u32 first = DIV_ROUND_UP_ULL(bytes, XALLOC_SLICE_BYTES);
	struct inode *inode = arena->mapping->host;
	u64 old = i_size_read(inode);
	int err;

	if (bytes >= old) {
		xalloc_hole_zero(arena, old, min(bytes, round_up(old, XALLOC_SEGMENT_BYTES)));
		i_size_write(inode, bytes);
		return 0;
	}
	err = check_freeable(&arena->orphans, first, end);
	if (err)
		return err;
	/* First the size: no touch fills again what goes. */
	i_size_write(inode, bytes);
	err = free_or_zero(&arena->orphans, bytes, (u64)end * XALLOC_SLICE_BYTES);
	if (err)
		i_size_write(inode, old);
	return err;
}
