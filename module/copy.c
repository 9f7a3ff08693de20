// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copies: a child of fork gets a copy of its parent's arena.
 *
 * A copy is an arena with the same pages at the same offsets. It has memory of its own, charged to
 * the same payers. It is made in two steps. The first step makes pages and memory; it may fail and
 * takes time. The second step copies the contents; it does neither. All pages of a copy belong to
 * one client, the heir. The first descriptor of the child becomes that client. While a copy is
 * made, no other task knows of it, so only one of the two arenas is locked at a time.
 */
#include <linux/bitops.h>
#include <linux/sched/signal.h>

#include "internal.h"

/* Returns whether there is a page from *@slice on. *@like becomes that page, *@slice its end. */
static bool next_page(struct xalloc_arena *from, u32 *slice, struct xalloc_page *like)
{
	struct xalloc_page *page;

	mutex_lock(&from->lock);
	page = xalloc_page_next(from, *slice);
	if (page) {
		*like = *page;
		*slice = page->slice + page->nr_slices;
	}
	mutex_unlock(&from->lock);
	return page;
}

static int add_page(struct xalloc_client *heir, const struct xalloc_page *like)
{
	struct xalloc_arena *to = heir->arena;
	int err;

	mutex_lock(&to->lock);
	err = xalloc_page_copy(heir, like);
	mutex_unlock(&to->lock);
	return err;
}

static bool reclaim_for(struct xalloc_arena *from, int err)
{
	bool reclaimed;

	mutex_lock(&from->lock);
	reclaimed = xalloc_reclaim_for(from, err);
	mutex_unlock(&from->lock);
	return reclaimed;
}

/**
 * xalloc_copy_create() - make a copy of an arena without its contents
 * @from: the arena, of a family
 * @nr_changes: set to from->nr_changes; while that stays the same, the pages stay the same
 *
 * Context: Process context, may sleep. Takes and releases from->lock.
 * Return: the heir, or as from xalloc_page_grant().
 */
struct xalloc_client *xalloc_copy_create(struct xalloc_arena *from, u64 *nr_changes)
{
	struct xalloc_client *heir;
	struct xalloc_arena *to;
	struct xalloc_page like;
	u32 slice = 0;
	int err;

	to = xalloc_arena_create_like(from);
	if (!to)
		return ERR_PTR(-ENOMEM);
	heir = xalloc_client_create(to);
	if (IS_ERR(heir)) {
		xalloc_arena_destroy(to);
		return heir;
	}
	mutex_lock(&from->lock);
	*nr_changes = from->nr_changes;
	mutex_unlock(&from->lock);
	while (next_page(from, &slice, &like)) {
		err = add_page(heir, &like);
		/* As grant_page() in client.c: give back memory that is kept ready, and retry. */
		if (err && reclaim_for(from, err))
			err = add_page(heir, &like);
		if (err) {
			xalloc_copy_destroy(heir);
			return ERR_PTR(err);
		}
		cond_resched();
	}
	return heir;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_copy_create);

/* The slices among @slices of segment @index that are still in pages of the grant @nr. */
static u32 still_granted(struct xalloc_arena *arena, u32 index, u32 slices, u64 nr)
{
	const struct xalloc_page *page;
	u32 bits, found = 0;

	for (bits = slices; bits; bits &= bits - 1) {
		page = xalloc_page_around(arena, index * XALLOC_SLICES_PER_SEGMENT + __ffs(bits));
		if (page && xalloc_page_is_owned(arena, page) && page->nr == nr)
			found |= bits & -bits;
	}
	return found;
}

/* Copies the slices among *@slices that are still granted, and removes them from *@slices. */
static int copy_slices(struct xalloc_arena *to, struct xalloc_arena *from, u32 index, u32 *slices,
		       u64 nr)
{
	u32 found;
	int err = 0;

	if (mutex_lock_killable(&from->lock))
		return -EINTR;
	found = still_granted(from, index, *slices, nr);
	if (found)
		err = xalloc_segment_copy(xa_load(&to->segments, index),
					  xa_load(&from->segments, index), found);
	mutex_unlock(&from->lock);
	*slices &= ~found;
	return err;
}

/* Frees slices of a segment of the copy. */
static int free_slices(struct xalloc_client *heir, u32 index, u32 slices)
{
	int err;

	mutex_lock(&heir->arena->lock);
	err = xalloc_page_free_slices(heir, index, slices);
	xalloc_quarantine_abandoned(heir->arena);
	mutex_unlock(&heir->arena->lock);
	/* If records contradict each other, the heir keeps the page. */
	return err == -EUCLEAN ? 0 : err;
}

/* Copies the contents of @page, a page of the copy as it was before this call. */
static int copy_contents(struct xalloc_client *heir, struct xalloc_arena *from,
			 const struct xalloc_page *page)
{
	u32 index, slices;
	int err;

	for (index = xalloc_page_first_segment(page); index <= xalloc_page_last_segment(page);
	     index++) {
		slices = xalloc_page_slices_in(page, index);
		err = copy_slices(heir->arena, from, index, &slices, page->nr);
		if (!err && slices)
			err = free_slices(heir, index, slices);
		if (!err && fatal_signal_pending(current))
			err = -EINTR;
		if (err)
			return err;
	}
	return 0;
}

/**
 * xalloc_copy_fill() - copy the contents
 * @heir: what xalloc_copy_create() returned
 * @from: the arena that it is a copy of
 *
 * Slices of @from that were freed meanwhile are freed in the copy, too.
 *
 * Context: Process context, may sleep. Takes and releases from->lock for each segment.
 * Return: 0, -EHWPOISON if hardware has broken a part of the contents, -EINTR if a fatal signal
 * arrived, -ENOMEM if a part of a page was to be freed in the copy and there was no memory for it.
 */
int xalloc_copy_fill(struct xalloc_client *heir, struct xalloc_arena *from)
{
	struct xalloc_page *page, *next, like;
	int err;

	/* copy_contents() may free or split the page. The pages after it stay. */
	list_for_each_entry_safe(page, next, &heir->pages, link) {
		like = *page;
		err = copy_contents(heir, from, &like);
		if (err)
			return err;
	}
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_copy_fill);

/** xalloc_copy_destroy() - destroy a copy whose heir no descriptor has become */
void xalloc_copy_destroy(struct xalloc_client *heir)
{
	struct xalloc_arena *arena = heir->arena;

	xalloc_client_destroy(heir);
	xalloc_arena_destroy(arena);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_copy_destroy);
