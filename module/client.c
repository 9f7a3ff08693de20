// SPDX-License-Identifier: GPL-2.0-only
/* Clients: one struct file on an arena, and the pages that it was granted. */
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "internal.h"

static atomic64_t last_client_id;

/**
 * xalloc_client_create() - create a client
 * @arena: on which arena; must outlive the client
 *
 * Return: the client, or -ENOMEM.
 */
struct xalloc_client *xalloc_client_create(struct xalloc_arena *arena)
{
	struct xalloc_client *client = kzalloc(sizeof(*client), GFP_KERNEL_ACCOUNT);

	if (!client)
		return ERR_PTR(-ENOMEM);
	client->id = atomic64_inc_return(&last_client_id);
	client->arena = arena;
	INIT_LIST_HEAD(&client->pages);
	mutex_lock(&arena->lock);
	arena->nr_clients++;
	mutex_unlock(&arena->lock);
	xalloc_count(XALLOC_NR_CLIENTS, 1);
	return client;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_client_create);

/* What has just been freed. */
static void reclaim_new(struct xalloc_arena *arena)
{
	xalloc_quarantine_abandoned(arena);
	xalloc_reclaim_clean_soon(arena);
	xalloc_reclaim_soon(arena);
	xalloc_reclaim_lazy_soon(arena);
}

/**
 * xalloc_client_destroy() - destroy a client, and free its pages or make them orphans
 * @client: the client
 *
 * Memory that somebody still refers to is granted to nobody until nobody does.
 *
 * Context: Process context, may sleep. Never fails.
 */
void xalloc_client_destroy(struct xalloc_client *client)
{
	struct xalloc_arena *arena = client->arena;
	struct xalloc_page *page;
	u32 nr = 0;

	mutex_lock(&arena->lock);
	xalloc_page_unhold(client);
	while ((page = list_first_entry_or_null(&client->pages, struct xalloc_page, link))) {
		if (arena->pages_persist) {
			page->client = &arena->orphans;
			list_move_tail(&page->link, &arena->orphans.pages);
		} else {
			xalloc_page_end(arena, page);
		}
		if (++nr % XALLOC_STEP_PAGES == 0)
			xalloc_arena_breathe(arena);
	}
	arena->nr_clients--;
	/* References that were the client's may have gone just now. */
	arena->nr_waiting = 0;
	reclaim_new(arena);
	mutex_unlock(&arena->lock);
	xalloc_count(XALLOC_NR_CLIENTS, -1);
	kfree(client);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_client_destroy);

static int grant_page(struct xalloc_client *client, struct xalloc_page_grant *grant,
		      struct list_head *granted)
{
	int err, i;

	/* Try pages that were freed lazily first. */
	if (!xalloc_lazy_grant(client, grant, granted))
		return 0;
	xalloc_quarantine_abandoned(client->arena);
	err = xalloc_page_grant(client, grant, true, granted);
	/* Once for want of offsets, once for want of memory. */
	for (i = 0; i < 2 && err && xalloc_reclaim_for(client->arena, err); i++)
		err = xalloc_page_grant(client, grant, true, granted);
	return err;
}

static int zero_pages(struct xalloc_arena *arena, struct list_head *granted)
{
	struct xalloc_page *page;
	int err = 0;

	list_for_each_entry(page, granted, link) {
		if (page->to_zero)
			err = xalloc_page_zero(arena, page);
		if (err)
			break;
	}
	return err;
}

/**
 * xalloc_client_grant() - grant pages, in order, as far as they can be had
 * @client: to whom
 * @grants: what to grant, checked against the arena's size; filled in
 * @nr: entries in @grants, at least 1
 * @granted: list to which the pages are added, for xalloc_client_grant_finish()
 *
 * Context: Process context, may sleep.
 * Return: the number granted, at least 1, or the error of the first. -EINTR with all pages taken
 * back if a fatal signal arrived before their memory was zeroed.
 */
int xalloc_client_grant(struct xalloc_client *client, struct xalloc_page_grant *grants, u32 nr,
			struct list_head *granted)
{
	struct xalloc_arena *arena = client->arena;
	int err = 0;
	u32 i;

	if (mutex_lock_killable(&arena->lock))
		return -EINTR;
	for (i = 0; i < nr; i++) {
		err = grant_page(client, &grants[i], granted);
		if (err)
			break;
	}
	if (err && err != -EINTR && err != -EUCLEAN)
		xalloc_reclaim_want(arena, (u64)grants[i].nr_slices * XALLOC_SLICE_BYTES);
	if (i)
		xalloc_reclaim_fill_soon(arena);
	/* Memory for a page that was not to be had as a whole went back, or is still held. */
	xalloc_reclaim_clean_soon(arena);
	xalloc_reclaim_soon(arena);
	mutex_unlock(&arena->lock);
	if (zero_pages(arena, granted)) {
		xalloc_client_grant_finish(client, granted, false);
		return -EINTR;
	}
	return i ? i : err;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_client_grant);

/**
 * xalloc_client_grant_finish() - hand granted pages out, or take them back
 * @client: whose they are
 * @granted: the list that xalloc_client_grant() filled
 * @keep: the client knows of them
 *
 * Until this the pages cannot be freed, so that taking them back meets none that the
 * client has guessed, freed and been granted anew.
 *
 * Context: Process context, may sleep. Never fails.
 */
void xalloc_client_grant_finish(struct xalloc_client *client, struct list_head *granted,
				bool keep)
{
	struct xalloc_arena *arena = client->arena;
	struct xalloc_page *page, *next;

	mutex_lock(&arena->lock);
	list_for_each_entry_safe(page, next, granted, link) {
		page->granted = true;
		arena->nr_changes++;
		list_move_tail(&page->link, &client->pages);
		if (!keep)
			xalloc_page_end(arena, page);
	}
	if (!keep)
		reclaim_new(arena);
	mutex_unlock(&arena->lock);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_client_grant_finish);

static int free_range(struct xalloc_client *client, const struct xalloc_range *range, bool lazily)
{
	const u64 arena_bytes = (u64)client->arena->nr_segments * XALLOC_SEGMENT_BYTES;

	if (!range->bytes)
		return xalloc_page_free(client, range->offset, lazily);
	if (range->offset % XALLOC_SLICE_BYTES || range->bytes % XALLOC_SLICE_BYTES)
		return -EINVAL;
	if (range->offset >= arena_bytes || range->bytes > arena_bytes - range->offset)
		return -ERANGE;
	return xalloc_page_free_range(client, range->offset / XALLOC_SLICE_BYTES,
				      (range->offset + range->bytes) / XALLOC_SLICE_BYTES, lazily);
}

/**
 * xalloc_client_free() - free pages and parts of pages, in order, as far as they can be freed
 * @client: who frees
 * @ranges: what to free; of no bytes: the whole page that begins there
 * @nr: entries in @ranges, at least 1
 * @lazily: whether their memory stays for a while: see lazy.c
 *
 * Context: Process context, may sleep.
 * Return: the number freed, at least 1, or the error of the first.
 */
int xalloc_client_free(struct xalloc_client *client, const struct xalloc_range *ranges, u32 nr,
		       bool lazily)
{
	struct xalloc_arena *arena = client->arena;
	int err = 0;
	u32 i;

	if (mutex_lock_killable(&arena->lock))
		return -EINTR;
	for (i = 0; i < nr; i++) {
		err = fatal_signal_pending(current) ? -EINTR :
						      free_range(client, &ranges[i], lazily);
		if (err)
			break;
	}
	reclaim_new(arena);
	mutex_unlock(&arena->lock);
	return i ? i : err;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_client_free);

/**
 * xalloc_client_claim() - take orphans over, in order, as far as they can be had
 * @client: who takes them over
 * @offsets: where they begin, in bytes
 * @nr: entries in @offsets, at least 1
 *
 * Context: Process context, may sleep.
 * Return: the number claimed, at least 1, or the error of the first.
 */
int xalloc_client_claim(struct xalloc_client *client, const u64 *offsets, u32 nr)
{
	struct xalloc_arena *arena = client->arena;
	int err = 0;
	u32 i;

	if (mutex_lock_killable(&arena->lock))
		return -EINTR;
	for (i = 0; i < nr; i++) {
		err = fatal_signal_pending(current) ? -EINTR :
						      xalloc_page_claim(client, offsets[i]);
		if (err)
			break;
	}
	mutex_unlock(&arena->lock);
	return i ? i : err;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_client_claim);
