// SPDX-License-Identifier: GPL-2.0-only
/*
 * Holds: pages that a dma-buf keeps where they are, whoever frees them.
 *
 * page->nr_holds counts the clients whose held[] has the page. One that is freed while it is
 * held is exported, which page.c describes.
 */
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "internal.h"

/*
 * Counts the pages that the slices are in, all of them granted. If @nr_room is not 0, also holds
 * these pages: holder->held has room for @nr_room. After an error, the caller has to let go of the
 * pages held so far.
 */
static int hold_pages(struct xalloc_client *holder, const struct xalloc_client *owner, u32 slice,
		      u32 end, u32 nr_room)
{
	struct xalloc_arena *arena = holder->arena;
	struct xalloc_page *page;
	u32 nr = 0;

	while (slice < end) {
		page = xalloc_page_around(arena, slice);
		if (!page || !xalloc_page_is_owned(arena, page))
			return -ENOENT;
		if (!xalloc_page_is_open_to(page, owner))
			return -EPERM;
		if (nr_room && nr == nr_room)
			return -EAGAIN;
		if (nr_room) {
			holder->held[holder->nr_held++] = page;
			page->nr_holds++;
		}
		slice = page->slice + page->nr_slices;
		if (++nr % XALLOC_STEP_PAGES)
			continue;
		xalloc_arena_breathe(arena);
		if (fatal_signal_pending(current))
			return -EINTR;
	}
	return nr;
}

/* Counts the pages, then holds them. -EAGAIN: there are more pages now than were counted. */
static int try_hold(struct xalloc_client *holder, const struct xalloc_client *owner, u32 slice,
		    u32 end)
{
	int nr, rc;

	nr = hold_pages(holder, owner, slice, end, 0);
	if (nr < 0)
		return nr;
	holder->held = kvmalloc_array(nr, sizeof(*holder->held), GFP_KERNEL_ACCOUNT);
	if (!holder->held)
		return -ENOMEM;
	rc = hold_pages(holder, owner, slice, end, nr);
	if (rc < 0)
		xalloc_page_unhold(holder);
	return min(rc, 0);
}

/**
 * xalloc_page_hold() - keep pages where they are, also when they are freed
 * @holder: on behalf of which client, that holds none yet
 * @owner: the client that must be allowed to free them
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
	do {
		rc = try_hold(holder, owner, slice, end);
	} while (rc == -EAGAIN);
	xalloc_quarantine_abandoned(arena);
	mutex_unlock(&arena->lock);
	return rc;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_page_hold);

static void end_export(struct xalloc_arena *arena, struct xalloc_page *page)
{
	arena->nr_exported_slices -= page->nr_slices;
	xalloc_page_abandon(arena, page);
}

/**
 * xalloc_page_unhold() - let go of all pages that a client holds
 * @holder: the client, which goes away, or gets no hold of what it wanted
 *
 * Those that were freed meanwhile are abandoned.
 *
 * Context: arena->lock held; let go and taken again. Neither allocates nor fails.
 */
void xalloc_page_unhold(struct xalloc_client *holder)
{
	struct xalloc_arena *arena = holder->arena;
	struct xalloc_page *page;

	lockdep_assert_held(&arena->lock);
	while (holder->nr_held) {
		page = holder->held[--holder->nr_held];
		if (!--page->nr_holds && page->client == &arena->exported)
			end_export(arena, page);
		if (holder->nr_held % XALLOC_STEP_PAGES == 0)
			xalloc_arena_breathe(arena);
	}
	kvfree(holder->held);
	holder->held = NULL;
}
