// SPDX-License-Identifier: GPL-2.0-only
/*
 * Freeing: the end of pages, or of parts of them.
 *
 * A long page is freed in steps of some segments, and arena->lock is let go between the steps. Each
 * step takes the last segments of the page and leaves a shorter page.
 *
 * To free a part of a page, the page is first split into two or three pages, each with a record.
 * Then the page that consists of the part is freed. All memory for records is allocated before
 * anything changes.
 */
#include <linux/bitmap.h>
#include <linux/sched/signal.h>

#include "internal.h"

/* Segments of one step. To give them back takes as long as to zero one. */
#define STEP_SEGMENTS 16

/* The first of the last STEP_SEGMENTS segments of a long page; 0 for a page that is not long. */
static u32 find_cut(const struct xalloc_page *page)
{
	u32 last = xalloc_page_last_segment(page);

	if (last - xalloc_page_first_segment(page) < STEP_SEGMENTS)
		return 0;
	return last - STEP_SEGMENTS + 1;
}

/* The part of @page that lies in segment @index and in later segments. */
static struct xalloc_page tail_of(const struct xalloc_page *page, u32 index)
{
	u32 slice = index * XALLOC_SLICES_PER_SEGMENT;

	return (struct xalloc_page){
		.slice = slice,
		.nr_slices = page->slice + page->nr_slices - slice,
	};
}

/* Shortens @page to what lies before segment @index, and gives the later segments back. */
static int cut(struct xalloc_arena *arena, struct xalloc_page *page, u32 index)
{
	const struct xalloc_page tail = tail_of(page, index);
	int err;

	err = xalloc_page_give(arena, &tail);
	if (err)
		return err;
	if (page->client)
		xalloc_page_ungrant(arena, &tail);
	page->nr_slices -= tail.nr_slices;
	xalloc_page_settle(arena, &tail);
	return 0;
}

/**
 * xalloc_page_shorten() - free the last segments of a long page, if nobody refers to them
 * @arena: the arena
 * @page: an abandoned page
 *
 * Context: Process context, may sleep. arena->lock held.
 * Return: 1 if the page is shorter; 0 if it is not long, or if hardware has broken memory of its
 * last segments, or if records contradict each other; -EBUSY if somebody refers to its last
 * segments.
 */
int xalloc_page_shorten(struct xalloc_arena *arena, struct xalloc_page *page)
{
	u32 from = find_cut(page);
	struct xalloc_segment *seg;
	unsigned long index;

	if (!from)
		return 0;
	xa_for_each_range(&arena->segments, index, seg, from, xalloc_page_last_segment(page)) {
		u32 slices = xalloc_page_slices_in(page, index);

		if (!xalloc_segment_is_quiet(arena, seg, slices))
			return -EBUSY;
		if (xalloc_segment_is_poisoned(seg, slices))
			return 0;
	}
	return !cut(arena, page, from);
}

/* Hides @page, so that no other task finds it while it is freed. */
static void hide(struct xalloc_client *client, struct xalloc_page *page)
{
	page->granted = false;
	page->client = client;
	page->client_id = client->id;
	list_del_init(&page->link);
}

/* Frees @page, which is hidden. -EHWPOISON: the part that is not freed has broken memory. */
static int free_hidden(struct xalloc_arena *arena, struct xalloc_page *page)
{
	u32 from;
	int err;

	while ((from = find_cut(page))) {
		const struct xalloc_page tail = tail_of(page, from);

		if (xalloc_page_is_poisoned(arena, &tail))
			return -EHWPOISON;
		err = cut(arena, page, from);
		if (err)
			return err;
		xalloc_arena_breathe(arena);
		if (fatal_signal_pending(current))
			return -EINTR;
	}
	if (xalloc_page_is_poisoned(arena, page))
		return -EHWPOISON;
	err = xalloc_page_give(arena, page);
	if (err)
		return err;
	xalloc_page_uncount(arena, page);
	xalloc_page_settle(arena, page);
	xalloc_page_forget(arena, page);
	return 0;
}

/**
 * xalloc_page_free() - free a page
 * @client: the client that frees: the owner, or any client if the pages of the arena persist
 * @offset: where the page begins, in bytes
 * @lazily: whether its memory stays for a while: see lazy.c
 *
 * The slices can be granted again at once. Memory that becomes idle is given back if nobody refers
 * to it, or kept in the arena's reserve. Broken memory must not be granted: a page with broken
 * memory is abandoned, and xalloc_quarantine_abandoned() handles it. If a fatal signal arrives
 * while a long page is freed, the rest of the page is abandoned, too.
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again for a long page.
 * Return: 0, or -EINVAL, -ERANGE, -ENOENT, -EPERM, -EUCLEAN with nothing freed.
 */
int xalloc_page_free(struct xalloc_client *client, u64 offset, bool lazily)
{
	struct xalloc_arena *arena = client->arena;
	struct xalloc_client *owner;
	struct xalloc_page *page;
	u64 client_id;
	u32 nr_slices;
	int err;

	page = xalloc_page_at(arena, offset);
	if (IS_ERR(page))
		return PTR_ERR(page);
	if (!xalloc_page_is_open_to(page, client))
		return -EPERM;
	if (page->nr_holds) {
		xalloc_page_end(arena, page);
		return 0;
	}
	arena->nr_changes++;
	if (lazily && xalloc_lazy_add(arena, page))
		return 0;
	owner = page->client;
	client_id = page->client_id;
	nr_slices = page->nr_slices;
	hide(client, page);
	err = free_hidden(arena, page);
	if (!err)
		return 0;
	page->granted = true;
	if (err == -EUCLEAN && page->nr_slices == nr_slices) {
		/* The lock was not let go, so the owner is still there. */
		page->client = owner;
		page->client_id = client_id;
		list_add_tail(&page->link, &owner->pages);
		return err;
	}
	xalloc_page_abandon(arena, page);
	return 0;
}

/* --- parts of pages */

static int check_page(const struct xalloc_client *client, const struct xalloc_page *page)
{
	if (!xalloc_page_is_owned(client->arena, page))
		return -ENOENT;
	return xalloc_page_is_open_to(page, client) ? 0 : -EPERM;
}

/*
 * The page that begins before @slice and ends after it, or NULL. An error if @client may not split
 * that page.
 */
static struct xalloc_page *page_across(struct xalloc_client *client, u32 slice)
{
	struct xalloc_arena *arena = client->arena;
	struct xalloc_page *page = NULL;
	int err;

	if (slice < arena->nr_segments * XALLOC_SLICES_PER_SEGMENT)
		page = xalloc_page_around(arena, slice);
	if (!page || page->slice == slice)
		return NULL;
	err = check_page(client, page);
	if (!err && page->nr_holds)
		err = -EBUSY;
	return err ? ERR_PTR(err) : page;
}

/* Splits pages so that one begins at @first and one at @end. A failure changes nothing. */
static int split_at(struct xalloc_client *client, u32 first, u32 end)
{
	struct xalloc_arena *arena = client->arena;
	struct xalloc_page *before = page_across(client, first), *after = page_across(client, end);
	struct xalloc_page *rest_before = NULL, *rest_after = NULL;

	/* page_across() checks again, because other tasks may have had the lock. */
	if (IS_ERR(before) || IS_ERR(after))
		return IS_ERR(before) ? PTR_ERR(before) : PTR_ERR(after);
	if (before)
		rest_before = xalloc_page_alloc_rest(arena, first);
	if (after)
		rest_after = xalloc_page_alloc_rest(arena, end);
	if ((before && !rest_before) || (after && !rest_after)) {
		xalloc_page_drop_rest(arena, rest_before, first);
		xalloc_page_drop_rest(arena, rest_after, end);
		return -ENOMEM;
	}
	/* The last part first, because @before and @after may be the same page. */
	if (after)
		xalloc_page_split_off(arena, after, rest_after, end);
	if (before)
		xalloc_page_split_off(arena, before, rest_before, first);
	return 0;
}

/*
 * 0 if @client may free the slices. A page that a dma-buf holds can only be freed as a whole. Lets
 * the lock go between steps.
 */
static int check_may_free(struct xalloc_client *client, u32 first, u32 end)
{
	struct xalloc_arena *arena = client->arena;
	u32 slice, next, nr = 0;
	struct xalloc_page *page;
	int err;

	for (slice = first; slice < end; slice = next) {
		page = xalloc_page_around(arena, slice);
		err = page ? check_page(client, page) : -ENOENT;
		if (err)
			return err;
		next = page->slice + page->nr_slices;
		if (page->nr_holds && (page->slice < first || next > end))
			return -EBUSY;
		if (++nr % XALLOC_STEP_PAGES)
			continue;
		xalloc_arena_breathe(arena);
		if (fatal_signal_pending(current))
			return -EINTR;
	}
	return 0;
}

/**
 * xalloc_page_free_range() - free slices of pages
 * @client: the client that frees, as for xalloc_page_free()
 * @first: the first of the slices
 * @end: the slice after the last one
 * @lazily: as for xalloc_page_free()
 *
 * All slices must be in pages that @client may free. If only a part of a page is freed, each rest
 * of it becomes a page with the tag and the client of the whole page.
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again for many pages and
 * for long ones. If other tasks free some of the pages meanwhile, the call ends there, and has
 * freed a part.
 * Return: 0, or -ENOENT, -EPERM, -ENOMEM, -EINTR, -EUCLEAN, or -EBUSY if a dma-buf holds a page of
 * which only a part would be freed.
 */
int xalloc_page_free_range(struct xalloc_client *client, u32 first, u32 end, bool lazily)
{
	struct xalloc_arena *arena = client->arena;
	struct xalloc_page *page;
	u32 nr = 0;
	int err;

	lockdep_assert_held(&arena->lock);
	err = check_may_free(client, first, end) ?: split_at(client, first, end);
	while (!err && first < end) {
		page = xa_load(&arena->pages, first);
		if (!page || page->slice + page->nr_slices > end)
			return -ENOENT;
		first = page->slice + page->nr_slices;
		err = xalloc_page_free(client, (u64)page->slice * XALLOC_SLICE_BYTES, lazily);
		if (!err && ++nr % XALLOC_STEP_PAGES == 0)
			xalloc_arena_breathe(arena);
		if (!err && first < end && fatal_signal_pending(current))
			err = -EINTR;
	}
	return err;
}

/**
 * xalloc_page_free_slices() - free slices of one segment, each run of them as a range
 * @client: the client that frees, as for xalloc_page_free()
 * @index: number of the segment
 * @slices: the slices, one bit each
 *
 * Context: as for xalloc_page_free_range().
 * Return: 0, or the error of the first run that cannot be freed; the runs below it are freed then.
 */
int xalloc_page_free_slices(struct xalloc_client *client, u32 index, u32 slices)
{
	u32 base = index * XALLOC_SLICES_PER_SEGMENT, first, end;
	unsigned long bits = slices;
	int err = 0;

	for_each_set_bitrange(first, end, &bits, XALLOC_SLICES_PER_SEGMENT) {
		err = xalloc_page_free_range(client, base + first, base + end, false);
		if (err)
			break;
	}
	return err;
}
