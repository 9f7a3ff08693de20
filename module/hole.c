// SPDX-License-Identifier: GPL-2.0-only
/*
 * Holes: memory of a file that file calls and touches commit, and that file calls give back.
 *
 * A slice without a page is a hole. There are two kinds of arenas. In an arena with grants, grants
 * and fallocate() fill holes; frees and fallocate() with PUNCH_HOLE make holes. The arena of any
 * other file of xallocfs serves programs that want an ordinary file: there fallocate(), a write and
 * a touch of a mapping fill holes; PUNCH_HOLE and truncate() make holes. Such an arena refuses
 * grants, because a grant would choose free slices by itself. A page that fills holes and was not
 * granted to a client belongs to the arena.
 *
 * In an ordinary file the unit is a folio, because a mapping maps the whole folio. An order-9 folio
 * is granted as a whole: otherwise some of its slices would be holes that can be touched without a
 * fault. A piece is one slice. If only a part of a folio lies past the end of the file, or only a
 * part of it is punched, that part is zeroed and the folio stays. In an arena with grants the unit
 * is a slice.
 *
 * An ordinary file has an offset space of the largest size. The size of the inode says how much of
 * it can be used. The size changes only while the inode is locked. Readers lock the inode, too, so
 * that PUNCH_HOLE does not take their references for pins. A touch does not lock the inode: it
 * looks at the size once more under arena->lock.
 */
#include <linux/bitmap.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/jiffies.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>

#include "internal.h"

#define ALL_SLICES (~0u)

/* After so many segments arena->lock is let go for a moment. */
#define STEP_SEGMENTS 16

/* A reference that is still there after so many waits of 10, 20, 40 and 80 ms is a pin. */
#define NR_WAITS 4

/* Each segment with slices from @first to before @end that has memory or is being given some. */
#define for_each_segment_between(arena, first, end, index, seg)				\
	xa_for_each_range(&(arena)->segments, index, seg, (first) / XALLOC_SLICES_PER_SEGMENT, \
			  ((end) - 1) / XALLOC_SLICES_PER_SEGMENT)

/* The slices of segment @index from @first to before @end. */
static u32 slices_between(u32 index, u32 first, u32 end)
{
	return first < end ? xalloc_placement_mask(index, first, end - first) : 0;
}

/*
 * Grants slices of one segment to the arena. The slices have memory. Each piece becomes a page of
 * its own, so that a dma-buf of one piece holds no other piece.
 */
static int grant_slices(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slices)
{
	u32 base = seg->index * XALLOC_SLICES_PER_SEGMENT, first, end, nr;
	unsigned long bits = slices;
	int err = 0;

	/* Memory that a file had before and that could not be given back has old contents. */
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

/* Gets an order-9 folio, or pieces if there is no such folio or the budgets have no room for it. */
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
 * Fills the holes among @slices of a segment. If the segment gets an order-9 folio, all its holes
 * are filled. Sets @filled to the slices that were filled.
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
	/*
	 * Slices that are taken although no page has them have broken memory, which stays until its
	 * folio is freed.
	 */
	if (slices & ~xalloc_placement_free_mask(&arena->placement, index))
		return -EHWPOISON;
	err = populate(arena, index, slices);
	seg = xa_load(&arena->segments, index);
	if (!seg)
		return err;
	if (!err) {
		/* Other tasks may have filled some of the slices meanwhile. */
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

/* Tells the clients, by the status page, that memory was refused. */
static void tell_refusal(struct xalloc_arena *arena, int err, u32 nr_slices)
{
	if (err && err != -EINTR && err != -EHWPOISON)
		xalloc_reclaim_want(arena, (u64)nr_slices * XALLOC_SLICE_BYTES);
}

/* As fill_segment(). If memory is refused, reclaims some and tries once more. */
static int fill(struct xalloc_arena *arena, u32 index, u32 slices, u32 *filled)
{
	int err;

	lockdep_assert_held(&arena->lock);
	if (!arena->fills_holes)
		return -ENXIO;
	/* So the arena cannot become one with grants while the lock is let go. */
	arena->nr_filling++;
	err = fill_segment(arena, index, slices, filled);
	if (err && xalloc_reclaim_for(arena, err))
		err = fill_segment(arena, index, slices, filled);
	arena->nr_filling--;
	tell_refusal(arena, err, hweight32(slices));
	return err;
}

/* For an arena with grants: grants the slices among @slices that are in no page. */
static int grant_free(struct xalloc_client *client, u32 index, u32 slices)
{
	struct xalloc_arena *arena = client->arena;
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
			.flags = XALLOC_PAGE_AT | XALLOC_PAGE_ZERO,
			.offset = ((u64)index * XALLOC_SLICES_PER_SEGMENT + first) *
				  XALLOC_SLICE_BYTES,
			.nr_slices = ffz((unsigned long)slices >> first),
		};
		rc = xalloc_client_grant(client, &grant, 1, &granted);
		if (rc > 0)
			xalloc_client_grant_finish(client, &granted, true);
		/* -EEXIST: another client was granted some of these slices meanwhile. */
		else if (rc != -EEXIST)
			return rc;
	}
}

/* Ends lazy pages in the range: fallocate() and PUNCH_HOLE treat them as holes. */
static void end_lazy(struct xalloc_arena *arena, u32 first, u32 end)
{
	xalloc_lazy_release_range(arena, first, end);
	xalloc_reclaim_soon(arena);
}

/* 0 if the limits have room for all slices of the range that have no memory, each as a piece. */
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
 * @client: to whom the slices are granted, in an arena with grants
 * @first: the first of the slices
 * @end: the slice after the last one
 *
 * If the arena's limit or its budget has less room than the range has slices without memory, no
 * slice gets memory. After any other error, slices that have got memory keep it. The same limits
 * can also refuse later, because a huge page takes more than the range needs.
 *
 * Context: Process context, may sleep. The inode is locked. Takes and releases arena->lock.
 * Return: 0, or as from xalloc_segment_populate(), or -EHWPOISON if memory is broken; in an arena
 * with grants also -EBUSY, if somebody refers to memory of a client that is gone.
 */
int xalloc_hole_fill(struct xalloc_client *client, u32 first, u32 end)
{
	struct xalloc_arena *arena = client->arena;
	u32 index = first / XALLOC_SLICES_PER_SEGMENT, last = (end - 1) / XALLOC_SLICES_PER_SEGMENT;
	int err = check_room(arena, first, end);

	for (; index <= last && !err; index++) {
		u32 slices = slices_between(index, first, end);

		err = xalloc_hole_is_filled(arena) ? fill_locked(arena, index, slices) :
						     grant_free(client, index, slices);
		cond_resched();
	}
	return err;
}

/*
 * The granted slices of a segment from @first to before @end that can be freed. In an ordinary file
 * an order-9 folio is freed as a whole or not at all.
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
 * @kpage: the touched kpage, counted from the start of the file
 *
 * Context: Process context, may sleep; mm->mmap_lock or the lock of the vma is held. Takes and
 * releases arena->lock.
 * Return: 0, or -ENXIO if @kpage is past the end of the file, or as from xalloc_hole_fill().
 */
int xalloc_hole_touch(struct xalloc_arena *arena, pgoff_t kpage)
{
	u32 slice = kpage >> XALLOC_PIECE_ORDER, index = slice / XALLOC_SLICES_PER_SEGMENT, filled;
	int err = -ENXIO;

	if (mutex_lock_killable(&arena->lock))
		return -EINTR;
	if (!xalloc_hole_is_past_end(arena->mapping->host, kpage))
		err = fill(arena, index, BIT(slice % XALLOC_SLICES_PER_SEGMENT), &filled);
	/* If the file became shorter meanwhile, free only the slices that this call filled. */
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
		/* A write to broken memory would raise a machine check in the kernel. */
		if (!PageHWPoison(kpage))
			memzero_page(kpage, offset_in_page(from), end - from);
	}
}

/**
 * xalloc_hole_zero() - zero the memory of a part of a file; holes stay holes
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

/* 0 if @client may free the slices and no dma-buf holds them. */
static int check_pages(struct xalloc_client *client, const struct xalloc_segment *seg, u32 slices)
{
	u32 base = seg->index * XALLOC_SLICES_PER_SEGMENT;
	const struct xalloc_page *page;

	for (; slices; slices &= ~xalloc_page_slices_in(page, seg->index)) {
		page = xalloc_page_around(client->arena, base + __ffs(slices));
		/* Another task is freeing the page, or it was freed while a dma-buf holds it. */
		if (!page || !xalloc_page_is_owned(client->arena, page))
			return -EBUSY;
		if (!xalloc_page_is_open_to(page, client))
			return -EPERM;
		if (page->nr_holds)
			return -EBUSY;
	}
	return 0;
}

/* 0 if no device or pipe refers to memory of the slices. */
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
 * 0 if the slices from @first to before @end can be freed. A fault, or the kernel's compaction, has
 * references to a folio for a moment. As memfd_wait_for_pins() does, this looks several times
 * before it takes a reference for a pin.
 */
static int check_freeable(struct xalloc_client *client, u32 first, u32 end)
{
	int err = check_freeable_once(client, first, end), i;

	for (i = 0; i < NR_WAITS && err == -EBUSY; i++) {
		/* A late wake-up of something else, such as a lock, ends this sleep early, too. */
		schedule_timeout_killable(msecs_to_jiffies(10 << i));
		if (fatal_signal_pending(current))
			return -EINTR;
		err = check_freeable_once(client, first, end);
	}
	return err;
}

/*
 * Waits until no task gives memory to the segment. Returns the segment, NULL if there is none, or
 * -EINTR.
 */
static struct xalloc_segment *wait_for_segment(struct xalloc_arena *arena, u32 index)
{
	struct xalloc_segment *seg;

	while ((seg = xa_load(&arena->segments, index)) && seg->populating)
		if (xalloc_segment_wait(arena))
			return ERR_PTR(-EINTR);
	return seg;
}

/* Frees what can be freed in one segment. */
static int free_in_segment(struct xalloc_client *client, u32 index, u32 first, u32 end)
{
	struct xalloc_arena *arena = client->arena;
	struct xalloc_segment *seg;
	u32 slices;
	int err;

	/* While another task gives memory to the segment, freed slices would stay mapped. */
	seg = wait_for_segment(arena, index);
	if (IS_ERR_OR_NULL(seg))
		return PTR_ERR_OR_ZERO(seg);
	slices = slices_to_free(arena, seg, first, end);
	err = check_pages(client, seg, slices);
	if (err)
		return err;
	/* A page that keeps a part of the folio keeps all of it mapped: zero the freed part. */
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
	xalloc_quarantine_abandoned(arena);
	xalloc_reclaim_soon(arena);
	mutex_unlock(&arena->lock);
	return err;
}

/* Frees what can be freed between two offsets, and zeroes the rest. */
static int free_or_zero(struct xalloc_client *client, u64 from, u64 to)
{
	u32 first = DIV_ROUND_UP_ULL(from, XALLOC_SLICE_BYTES), end = to / XALLOC_SLICE_BYTES;
	/*
	 * What can have memory that was not freed: of an ordinary file the first and the last
	 * segment; of an arena with grants the first and the last slice, if the range has a part of
	 * it. Whole slices there may be another client's by now.
	 */
	u64 unit = xalloc_hole_is_filled(client->arena) ? XALLOC_SEGMENT_BYTES :
							 XALLOC_SLICE_BYTES;
	u64 head = min(to, round_up(from, unit));
	int err = 0;

	if (first < end)
		err = free_range(client, first, end);
	if (err)
		return err;
	xalloc_hole_zero(client->arena, from, head);
	xalloc_hole_zero(client->arena, max(head, round_down(to, unit)), to);
	return 0;
}

/**
 * xalloc_hole_punch() - make a hole
 * @client: a client of the arena
 * @from: where the hole begins, in bytes
 * @to: where it ends
 *
 * The range reads as zeros afterwards, and its memory is given back as far as it can be freed. If
 * somebody has a part of that memory pinned, nothing changes. Memory that is pinned after the check
 * stays at its offset until nobody refers to it. If the hole is filled again before that, it gets
 * the same memory, zeroed.
 *
 * Context: Process context, may sleep. The inode is locked. Takes and releases arena->lock.
 * Return: 0. With nothing changed: -EBUSY, -EINTR, or -EPERM for another client's pages. With a
 * part done: -EINTR, -ENOMEM, -EUCLEAN; or, because other tasks changed the range meanwhile,
 * -EBUSY, -EPERM or -ENOENT.
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
 * If the file becomes longer, the memory past the old end is zeroed, because a mapping may have
 * written to it. If it becomes shorter, the memory past the new end is given back.
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
	/* The size is set first, so that no touch fills the holes again. */
	i_size_write(inode, bytes);
	err = free_or_zero(&arena->orphans, bytes, (u64)end * XALLOC_SLICE_BYTES);
	if (err)
		i_size_write(inode, old);
	return err;
}
