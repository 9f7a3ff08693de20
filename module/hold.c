// SPDX-License-Identifier: GPL-2.0-only
/*
 * Holds: pages that a dma-buf keeps where they are, whoever frees them.
 *
 * page->nr_holds counts the clients whose held[] has the page. One that is freed while it is
 * held is exported, which page.c describes.
 */
#include <linux/bitops.h>
#include <linux/slab.h>

#include "internal.h"

/*
 * The page that @slice is in, looked for from there down, as far as slices are taken: those of a
 * grant under way have no page yet, and below them there may be nothing for a long way.
 */
static struct xalloc_page *find_around(struct xalloc_arena *arena, u32 slice)
{
	u32 first, index = slice / XALLOC_SLICES_PER_SEGMENT;
	u32 untaken = xalloc_segment_untaken(arena, index);
	struct xalloc_page *page;

	for (first = slice;; first--) {
		if (first / XALLOC_SLICES_PER_SEGMENT != index) {
			index = first / XALLOC_SLICES_PER_SEGMENT;
			untaken = xalloc_segment_untaken(arena, index);
			cond_resched();
		}
		if (untaken & BIT(first % XALLOC_SLICES_PER_SEGMENT))
			return NULL;
		page = xa_load(&arena->pages, first);
		if (page || !first)
			break;
	}
	return page && slice - page->slice < page->nr_slices ? page : NULL;
}

/* How many pages all of these slices are in; if there is room for them, they are held. */
static int hold_pages(struct xalloc_client *holder, const struct xalloc_client *owner, u32 slice,
		      u32 end)
{
	struct xalloc_arena *arena = holder->arena;
	struct xalloc_page *page;
	int nr = 0;

	for (; slice < end; slice = page->slice + page->nr_slices) {
		page = find_around(arena, slice);
		if (!page || !xalloc_page_is_owned(arena, page))
			return -ENOENT;
		if (page->client != owner && !page->of_arena)
			return -EPERM;
		if (holder->held) {
			holder->held[nr] = page;
			page->nr_holds++;
		}
		nr++;
		cond_resched();
	}
	return nr;
}

/**
 * xalloc_page_hold() - keep pages where they are, also when they are freed
 * @holder: on behalf of which client, that holds none yet
 * @owner: whose they must be, unless they are the arena's
 * @offset: where the range that is wanted begins, in bytes
 * @bytes: its length; it may begin and end inside of pages
 *
 * Context: Process context, may sleep. Takes and releases arena->lock.
 * Return: 0, or -EINVAL, -ERANGE, -ENOENT, -EPERM, -ENOMEM, -EINTR.
 */
int xalloc_page_hold(struct xalloc_client *holder, const struct xalloc_client *owner, u64 offset,
		     u64 bytes)
{
	struct xalloc_arena *arena = holder->arena;
	u64 arena_bytes = (u64)arena->nr_segments * XALLOC_SEGMENT_BYTES;
	u32 slice, end;
	int rc;

	if (!bytes || offset % XALLOC_SLICE_BYTES || bytes % XALLOC_SLICE_BYTES)
		return -EINVAL;
	if (offset >= arena_bytes || bytes > arena_bytes - offset)
		return -ERANGE;
	slice = offset / XALLOC_SLICE_BYTES;
	end = slice + bytes / XALLOC_SLICE_BYTES;
	if (mutex_lock_killable(&arena->lock))
		return -EINTR;
	rc = hold_pages(holder, owner, slice, end);
	if (rc > 0) {
		holder->held = kvmalloc_array(rc, sizeof(*holder->held), GFP_KERNEL_ACCOUNT);
		rc = holder->held ? hold_pages(holder, owner, slice, end) : -ENOMEM;
	}
	if (rc > 0)
		holder->nr_held = rc;
	mutex_unlock(&arena->lock);
	return min(rc, 0);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_page_hold);

static void end_export(struct xalloc_arena *arena, struct xalloc_page *page)
{
	arena->nr_exported_slices -= page->nr_slices;
	xalloc_page_abandon(arena, page);
}

/**
 * xalloc_page_unhold() - let go of all pages that a client holds
 * @holder: the client, which goes away
 *
 * Those that were freed meanwhile go into quarantine.
 *
 * Context: arena->lock held. Neither allocates nor fails.
 */
void xalloc_page_unhold(struct xalloc_client *holder)
{
	struct xalloc_arena *arena = holder->arena;
	u32 i;

	lockdep_assert_held(&arena->lock);
	for (i = 0; i < holder->nr_held; i++) {
		struct xalloc_page *page = holder->held[i];

		if (!--page->nr_holds && page->client == &arena->exported)
			end_export(arena, page);
	}
	kvfree(holder->held);
	holder->held = NULL;
	holder->nr_held = 0;
}
