// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copies: what a child of fork gets in the place of its parent's arena.
 *
 * A copy is an arena with the same pages at the same offsets and memory of its own, charged to
 * the same payers. It is made in two steps: pages and memory, which may fail and takes time, and
 * contents, which does neither. All pages are those of one client, the heir, whom the first
 * descriptor of the child becomes. While it is made nobody else knows of it, so that of the
 * two arenas only one is ever locked.
 */
#include <linux/sched.h>

#include "internal.h"

/* Returns whether there is another page; *@like tells what it is like, *@slice where it ends. */
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
 * xalloc_copy_create() - make a copy of an arena but for its contents
 * @from: the arena, of a family
 * @nr_changes: set to from->nr_changes; while that stays the same, so do the pages
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
		/* As grant_page() in client.c does: give back what is kept ready, and try again. */
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

/**
 * xalloc_copy_fill() - copy the contents
 * @heir: what xalloc_copy_create() returned
 * @from: the arena that it is a copy of
 *
 * Pages that were freed meanwhile are dropped from the copy.
 *
 * Context: Process context, may sleep. Takes and releases from->lock for each segment.
 * Return: 0, -EHWPOISON if hardware has broken a part of them, -EINTR if a fatal signal arrived.
 */
int xalloc_copy_fill(struct xalloc_client *heir, struct xalloc_arena *from)
{
	struct xalloc_arena *to = heir->arena;
	struct xalloc_page *page, *next;
	LIST_HEAD(gone);
	int err = 0;

	list_for_each_entry_safe(page, next, &heir->pages, link) {
		err = xalloc_page_copy_contents(to, from, page);
		if (err == -ENOENT)
			list_move_tail(&page->link, &gone);
		else if (err)
			break;
	}

	mutex_lock(&to->lock);
	list_for_each_entry_safe(page, next, &gone, link) {
		/* Back first: where records contradict each other it stays the heir's. */
		list_move_tail(&page->link, &heir->pages);
		xalloc_page_free(heir, (u64)page->slice * XALLOC_SLICE_BYTES);
	}
	xalloc_reclaim_abandoned(to);
	mutex_unlock(&to->lock);
	return err == -ENOENT ? 0 : err;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_copy_fill);

/** xalloc_copy_destroy() - destroy a copy and its heir, which nobody has become */
void xalloc_copy_destroy(struct xalloc_client *heir)
{
	struct xalloc_arena *arena = heir->arena;

	xalloc_client_destroy(heir);
	xalloc_arena_destroy(arena);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_copy_destroy);
