// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages: runs of slices that are granted at once, and their records.
 *
 * A page is, in this order: a run taken from the placement, segments with memory below
 * all of it, and a record in arena->pages. Every slice that the placement has as taken
 * belongs to exactly one record, and no other slice does.
 *
 *	granted		on its client's list, counted; in an arena whose pages persist, after the
 *			client is gone on the list of arena->orphans, until a client claims it
 *	lazy		freed lazily (lazy.c): nobody's, counted as granted, on the list of
 *			arena->lazy
 *	exported	freed, or its client is gone, while a dma-buf holds it: still there for
 *			that one, counted as granted, on the list of arena->exported
 *	abandoned	its client is gone, or a dma-buf let go of it, or hardware has broken its
 *			memory, or a fatal signal ended its freeing: the slices stay taken, so that
 *			nobody is granted them, until nobody refers to the memory (quarantine.c)
 *
 * free.c frees pages, and parts of pages.
 */
#include <linux/bitops.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "internal.h"

/* Pages that one call of xalloc_page_list() looks at. */
#define LIST_LOOKS_MAX 4096

static int contradiction(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	return xalloc_segment_fence(arena, xalloc_page_first_segment(page),
				    xalloc_page_last_segment(page));
}

/**
 * xalloc_page_give() - give the slices of a page back to the placement
 * @arena: the arena
 * @page: the page, or the last segments of one
 *
 * The caller settles the segments below.
 *
 * Context: arena->lock held. Does not allocate.
 * Return: 0, or -EUCLEAN with nothing changed.
 */
int xalloc_page_give(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	if (xalloc_placement_give(&arena->placement, page->slice, page->nr_slices))
		return contradiction(arena, page);
	xalloc_segment_tell_fenced(arena);
	return 0;
}

/**
 * xalloc_page_settle() - give back those segments of a page that nobody has and nobody refers to
 * @arena: the arena
 * @page: the page, or the last segments of one; its slices were given to the placement
 *
 * Context: Process context, may sleep. arena->lock held.
 */
void xalloc_page_settle(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	struct xalloc_segment *seg;
	unsigned long index;

	xalloc_page_for_each_segment(arena, page, index, seg)
		xalloc_segment_settle(arena, seg);
}

/* Slices to commit before @page has memory everywhere. */
static u32 count_missing(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	u32 index, slices, nr_missing = 0;
	struct xalloc_segment *seg;

	for (index = xalloc_page_first_segment(page);
	     index <= xalloc_page_last_segment(page); index++) {
		seg = xa_load(&arena->segments, index);
		slices = xalloc_page_slices_in(page, index);
		if (seg)
			nr_missing += hweight32(slices & ~seg->present & ~seg->populating);
		else if (arena->policy == XALLOC_POLICY_SMALL)
			nr_missing += hweight32(slices);
		else
			nr_missing += XALLOC_SLICES_PER_SEGMENT;
	}
	return nr_missing;
}

/**
 * xalloc_page_check_limits() - whether an arena may commit more, by its own limit and its budget
 * @arena: the arena
 * @nr_more: how much more, in slices
 *
 * Spares work in vain: what counts is the charge, in segment.c.
 *
 * Context: arena->lock held.
 * Return: 0, or -EDQUOT or the error of the budget.
 */
int xalloc_page_check_limits(const struct xalloc_arena *arena, u32 nr_more)
{
	const struct xalloc_budget *budget = arena->budget;

	/* What others do to a budget now is seen when memory is charged. */
	if (budget && (u64)data_race(budget->nr_slices) + nr_more > data_race(budget->limit_slices))
		return budget->error;
	return nr_more > arena->limit_slices - arena->nr_committed_slices ? -EDQUOT : 0;
}

/* What was had before an error stays, idle. */
static int populate_segments(struct xalloc_arena *arena, const struct xalloc_page *page,
			     unsigned int how)
{
	u32 index;
	int err;

	/* Before memory is zeroed in vain. */
	err = xalloc_page_check_limits(arena, count_missing(arena, page));
	if (err)
		return err;
	for (index = xalloc_page_first_segment(page);
	     index <= xalloc_page_last_segment(page); index++) {
		err = xalloc_segment_populate(arena, index, xalloc_page_slices_in(page, index),
					      how);
		if (err)
			return err;
		cond_resched();
	}
	return 0;
}

static int undo_take_run(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	int err = xalloc_page_give(arena, page);

	if (!err)
		xalloc_page_settle(arena, page);
	return err;
}

/* Before tables are made in vain: whether the limits alone would refuse a page. */
static int check_length(const struct xalloc_arena *arena, u32 nr_slices)
{
	const struct xalloc_budget *budget = arena->budget;

	if (nr_slices > arena->nr_segments * XALLOC_SLICES_PER_SEGMENT)
		return 0;
	/* What others do to a budget now is seen when memory is charged. */
	if (budget && nr_slices > data_race(budget->limit_slices))
		return budget->error;
	return nr_slices > arena->limit_slices ? -EDQUOT : 0;
}

/*
 * Take a run and give memory to the slices below it. If that memory cannot be had, another
 * run may do with less, or with none.
 */
static int take_run(struct xalloc_arena *arena, struct xalloc_page *page,
		    const struct xalloc_placement_request *request, bool may_commit)
{
	unsigned int how = request->contig ? XALLOC_POPULATE_HUGE : 0;
	u32 nr_missing;
	int err, rc;

	err = check_length(arena, page->nr_slices);
	if (err)
		return err;
	err = xalloc_placement_take(&arena->placement, request, &page->slice);
	xalloc_segment_tell_fenced(arena);
	if (err)
		return err;
	list_add(&page->link, &arena->granting);
	nr_missing = count_missing(arena, page);
	if (nr_missing && !may_commit)
		return undo_take_run(arena, page) ?: -EAGAIN;
	err = populate_segments(arena, page, how);
	if (!err)
		return 0;
	rc = undo_take_run(arena, page);
	if (rc || err == -EINTR)
		return rc ?: err;

	if (xalloc_placement_take_frugal(&arena->placement, request, &page->slice))
		return err;
	if (count_missing(arena, page) < nr_missing)
		err = populate_segments(arena, page, how);
	if (!err)
		return 0;
	rc = undo_take_run(arena, page);
	return rc ?: err;
}

/* Whether another grant, which waits for memory, has taken slices of @page. */
static bool is_being_granted(const struct xalloc_arena *arena, const struct xalloc_page *page)
{
	const struct xalloc_page *other;

	list_for_each_entry(other, &arena->granting, link)
		if (other != page && other->slice < page->slice + page->nr_slices &&
		    page->slice < other->slice + other->nr_slices)
			return true;
	return false;
}

/* Why slices are not free: a page has them, or nobody may have them yet. */
static int why_not_free(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	struct xalloc_segment *seg;
	unsigned long index;

	xalloc_page_for_each_segment(arena, page, index, seg)
		if (seg->granted & xalloc_page_slices_in(page, index))
			return -EEXIST;
	return -EBUSY;
}

/* Whether the worker has taken slices of @page while it zeroes a segment of the reserve. */
static bool is_being_cleaned(const struct xalloc_arena *arena, const struct xalloc_page *page)
{
	return arena->cleaning && xalloc_page_slices_in(page, arena->cleaning->index);
}

/* Take the run where @page says that it is, and give memory to the slices below it. */
static int take_run_at(struct xalloc_arena *arena, struct xalloc_page *page, bool contig)
{
	int err, rc;

	err = check_length(arena, page->nr_slices);
	if (err)
		return err;
	while (!xalloc_placement_is_free(&arena->placement, page->slice, page->nr_slices)) {
		if (!is_being_cleaned(arena, page) && !is_being_granted(arena, page))
			return why_not_free(arena, page);
		err = xalloc_segment_wait(arena);
		if (err)
			return err;
	}
	err = xalloc_placement_take_at(&arena->placement, page->slice, page->nr_slices);
	xalloc_segment_tell_fenced(arena);
	if (err)
		return err;
	list_add(&page->link, &arena->granting);
	err = populate_segments(arena, page, contig ? XALLOC_POPULATE_HUGE : 0);
	if (!err)
		return 0;
	rc = undo_take_run(arena, page);
	return rc ?: err;
}

/* Returns whether no slice of it was granted since it was zeroed. */
static bool count_granted(struct xalloc_arena *arena, struct xalloc_page *page,
			  u32 *contig_bytes)
{
	struct xalloc_segment *seg;
	unsigned long index;
	bool zero = true;

	*contig_bytes = XALLOC_SEGMENT_BYTES;
	xalloc_page_for_each_segment(arena, page, index, seg) {
		if (xalloc_segment_grant(arena, seg, xalloc_page_slices_in(page, index)))
			zero = false;
		if (seg->in_pieces)
			*contig_bytes = XALLOC_SLICE_BYTES;
		if (index != xalloc_page_first_segment(page))
			seg->over = page;
	}
	arena->nr_pages++;
	xalloc_count(XALLOC_NR_PAGES, 1);
	return zero;
}

/**
 * xalloc_page_ungrant() - note that the slices of a page belong to no living client any more
 * @arena: the arena
 * @page: the page, or the last segments of one
 *
 * Context: arena->lock held.
 */
void xalloc_page_ungrant(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	u32 first = xalloc_page_first_segment(page);
	struct xalloc_segment *seg;
	unsigned long index;

	xa_for_each_range(&arena->segments, index, seg, first, xalloc_page_last_segment(page)) {
		xalloc_segment_ungrant(arena, seg, xalloc_page_slices_in(page, index));
		if (index != first || page->slice % XALLOC_SLICES_PER_SEGMENT == 0)
			seg->over = NULL;
	}
}

/**
 * xalloc_page_uncount() - note that a page belongs to no living client any more
 * @arena: the arena
 * @page: the page, all of it
 *
 * Context: arena->lock held.
 */
void xalloc_page_uncount(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	xalloc_page_ungrant(arena, page);
	arena->nr_pages--;
	xalloc_count(XALLOC_NR_PAGES, -1);
}

static void init_record(struct xalloc_page *page, struct xalloc_client *client, u64 tag)
{
	page->client = client;
	page->client_id = client->id;
	page->tag = tag;
	page->nr = ++client->arena->nr_grants;
}

static struct xalloc_page *alloc_page_record(struct xalloc_client *client, u64 tag, u32 nr_slices)
{
	struct xalloc_page *page = kzalloc(sizeof(*page), GFP_KERNEL_ACCOUNT);

	if (!page)
		return NULL;
	init_record(page, client, tag);
	page->nr_slices = nr_slices;
	INIT_LIST_HEAD(&page->link);
	return page;
}

/* In arena->pages, where no page can be: its run was just taken. */
static int add_record(struct xalloc_arena *arena, struct xalloc_page *page)
{
	int err = xa_insert(&arena->pages, page->slice, page, GFP_KERNEL_ACCOUNT);

	return err == -EBUSY ? contradiction(arena, page) : err;
}

/**
 * xalloc_page_grant() - grant one page
 * @client: to whom
 * @grant: nr_slices, align_slices, flags, tag and, with XALLOC_PAGE_AT, offset, checked against
 *	the arena's size; the rest is written
 * @may_commit: whether to commit memory. If false, only slices that have memory are granted, else
 *	-EAGAIN; must be true with XALLOC_PAGE_AT
 * @granted: list to which the page is added; it can be freed once the caller has
 *	marked it granted
 *
 * Memory that XALLOC_PAGE_ZERO asks for is zeroed by xalloc_page_zero().
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again where
 * memory has to be had.
 * Return: 0, or -ENOSPC, -EDQUOT, -ENOBUFS, -EUSERS, -ENOSR, -ENOMEM, -EINTR, -EUCLEAN, or -EAGAIN
 * if memory would have to be committed, with nothing changed. With XALLOC_PAGE_AT: -EEXIST if a
 * page is there, -EBUSY if slices are still kept from being granted, and -ENOSPC from the budget
 * alone.
 */
int xalloc_page_grant(struct xalloc_client *client, struct xalloc_page_grant *grant,
		      bool may_commit, struct list_head *granted)
{
	const struct xalloc_placement_request request = {
		.nr_slices = grant->nr_slices,
		.align_slices = grant->align_slices,
		.contig = grant->flags & XALLOC_PAGE_CONTIG,
	};
	struct xalloc_arena *arena = client->arena;
	struct xalloc_page *page;
	int err;

	lockdep_assert_held(&arena->lock);
	page = alloc_page_record(client, grant->tag, grant->nr_slices);
	if (!page)
		return -ENOMEM;
	page->slice = grant->offset / XALLOC_SLICE_BYTES;
	err = grant->flags & XALLOC_PAGE_AT ? take_run_at(arena, page, request.contig) :
					      take_run(arena, page, &request, may_commit);
	if (err)
		goto err_free;
	err = add_record(arena, page);
	if (err)
		goto err_give;

	if (count_granted(arena, page, &grant->contig_bytes))
		grant->flags |= XALLOC_PAGE_ZERO;
	else
		page->to_zero = grant->flags & XALLOC_PAGE_ZERO;
	grant->offset = (u64)page->slice * XALLOC_SLICE_BYTES;
	list_move_tail(&page->link, granted);
	return 0;

err_give:
	undo_take_run(arena, page);
err_free:
	list_del(&page->link);
	kfree(page);
	return err;
}

/**
 * xalloc_page_take_over() - grant a page that was freed lazily
 * @client: to whom
 * @page: the page; still on the list of arena->lazy, no longer in nr_lazy_slices
 * @grant: as for xalloc_page_grant()
 *
 * Context: arena->lock held. The caller puts the page on the list of the grant.
 */
void xalloc_page_take_over(struct xalloc_client *client, struct xalloc_page *page,
			   struct xalloc_page_grant *grant)
{
	struct xalloc_segment *seg;
	unsigned long index;

	init_record(page, client, grant->tag);
	page->granted = false;
	page->to_zero = grant->flags & XALLOC_PAGE_ZERO;
	grant->offset = (u64)page->slice * XALLOC_SLICE_BYTES;
	grant->contig_bytes = XALLOC_SEGMENT_BYTES;
	xalloc_page_for_each_segment(client->arena, page, index, seg)
		if (seg->in_pieces)
			grant->contig_bytes = XALLOC_SLICE_BYTES;
}

/**
 * xalloc_page_zero() - zero the memory of a page that its client does not know of yet
 * @arena: the arena
 * @page: a page on the list of a grant under way
 *
 * Context: Process context, may sleep. Needs no lock: nobody else can free the page.
 * Return: 0, or -EINTR if a fatal signal arrived before all was zero.
 */
int xalloc_page_zero(struct xalloc_arena *arena, struct xalloc_page *page)
{
	struct xalloc_segment *seg;
	unsigned long index;

	xalloc_page_for_each_segment(arena, page, index, seg) {
		if (fatal_signal_pending(current))
			return -EINTR;
		xalloc_segment_zero(seg, xalloc_page_slices_in(page, index));
	}
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_page_zero);

/**
 * xalloc_page_at() - the page that begins at an offset, if it is anybody's
 * @arena: the arena
 * @offset: in bytes
 *
 * Context: arena->lock held.
 * Return: the page, or -EINVAL, -ERANGE, -ENOENT.
 */
struct xalloc_page *xalloc_page_at(struct xalloc_arena *arena, u64 offset)
{
	struct xalloc_page *page;

	lockdep_assert_held(&arena->lock);
	if (offset % XALLOC_SLICE_BYTES)
		return ERR_PTR(-EINVAL);
	if (offset >= (u64)arena->nr_segments * XALLOC_SEGMENT_BYTES)
		return ERR_PTR(-ERANGE);
	page = xa_load(&arena->pages, offset / XALLOC_SLICE_BYTES);
	if (!page || !xalloc_page_is_owned(arena, page))
		return ERR_PTR(-ENOENT);
	return page;
}

/**
 * xalloc_page_around() - the granted page that a slice is in
 * @arena: the arena
 * @slice: number of the slice
 *
 * Context: arena->lock held. Looks at one segment.
 * Return: the page, or NULL.
 */
struct xalloc_page *xalloc_page_around(struct xalloc_arena *arena, u32 slice)
{
	struct xalloc_segment *seg = xa_load(&arena->segments, slice / XALLOC_SLICES_PER_SEGMENT);
	struct xalloc_page *page;
	u32 first;

	lockdep_assert_held(&arena->lock);
	if (!seg || !(seg->granted & BIT(slice % XALLOC_SLICES_PER_SEGMENT)))
		return NULL;
	for (first = slice;; first--) {
		page = xa_load(&arena->pages, first);
		if (page)
			break;
		if (first % XALLOC_SLICES_PER_SEGMENT == 0) {
			page = seg->over;
			break;
		}
	}
	return page && slice - page->slice < page->nr_slices ? page : NULL;
}

/**
 * xalloc_page_claim() - take a page over from a client that is gone
 * @client: who takes it over
 * @offset: where the page begins, in bytes
 *
 * Context: arena->lock held. Does not allocate.
 * Return: 0, or -EINVAL, -ERANGE, -ENOENT, -EBUSY if the page's client lives.
 */
int xalloc_page_claim(struct xalloc_client *client, u64 offset)
{
	struct xalloc_arena *arena = client->arena;
	struct xalloc_page *page = xalloc_page_at(arena, offset);

	if (IS_ERR(page))
		return PTR_ERR(page);
	if (page->client != &arena->orphans)
		return -EBUSY;
	page->client = client;
	page->client_id = client->id;
	list_move_tail(&page->link, &client->pages);
	return 0;
}

static bool is_listed(const struct xalloc_arena *arena, const struct xalloc_page *page,
		      const struct xalloc_ioc_list *which)
{
	if (!xalloc_page_is_owned(arena, page))
		return false;
	if (which->flags & XALLOC_LIST_ORPHANS && page->client != &arena->orphans)
		return false;
	return !which->client_id || page->client_id == which->client_id;
}

/**
 * xalloc_page_list() - tell of granted pages, in the order of their offsets
 * @arena: the arena
 * @which: flags, client_id and offset: of which pages; nr: room in @infos
 * @infos: filled in
 * @next: set to the offset from which to go on; the arena's size if there is no more
 *
 * Looks at a bounded number of pages, so that the lock is not held for long.
 *
 * Context: arena->lock held. Does not allocate.
 * Return: the number of @infos that were filled in, also 0 before the end.
 */
u32 xalloc_page_list(struct xalloc_arena *arena, const struct xalloc_ioc_list *which,
		     struct xalloc_page_info *infos, u64 *next)
{
	unsigned long slice = DIV_ROUND_UP_ULL(which->offset, XALLOC_SLICE_BYTES);
	u32 nr = 0, nr_looked_at = 0;
	struct xalloc_page *page;

	lockdep_assert_held(&arena->lock);
	xa_for_each_start(&arena->pages, slice, page, slice) {
		*next = (u64)slice * XALLOC_SLICE_BYTES;
		if (nr == which->nr || nr_looked_at++ == LIST_LOOKS_MAX)
			return nr;
		if (!is_listed(arena, page, which))
			continue;
		infos[nr++] = (struct xalloc_page_info){
			.offset = *next,
			.tag = page->tag,
			.client_id = page->client_id,
			.nr_slices = page->nr_slices,
			.flags = page->client == &arena->orphans ? XALLOC_PAGE_ORPHAN : 0,
		};
	}
	*next = (u64)arena->nr_segments * XALLOC_SEGMENT_BYTES;
	return nr;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_page_list);

/**
 * xalloc_page_next() - the next page that is somebody's
 * @arena: the arena
 * @slice: from where on
 *
 * Context: arena->lock held.
 * Return: the page, or NULL if there is no more.
 */
struct xalloc_page *xalloc_page_next(struct xalloc_arena *arena, u32 slice)
{
	unsigned long at = slice;
	struct xalloc_page *page;

	lockdep_assert_held(&arena->lock);
	xa_for_each_start(&arena->pages, at, page, at) {
		if (xalloc_page_is_owned(arena, page))
			return page;
		cond_resched();
	}
	return NULL;
}

/**
 * xalloc_page_copy() - grant a page like that of another arena, at the same place
 * @heir: the only client of the arena
 * @from: what the page is like
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again.
 * Return: 0, or as xalloc_page_grant() with nothing changed.
 */
int xalloc_page_copy(struct xalloc_client *heir, const struct xalloc_page *from)
{
	struct xalloc_arena *arena = heir->arena;
	struct xalloc_page *page;
	u32 contig_bytes;
	int err;

	lockdep_assert_held(&arena->lock);
	page = alloc_page_record(heir, from->tag, from->nr_slices);
	if (!page)
		return -ENOMEM;
	page->slice = from->slice;
	page->nr = from->nr;
	arena->nr_grants = max(arena->nr_grants, from->nr);
	page->granted = true;
	err = take_run_at(arena, page, false);
	if (err)
		goto err_free;
	err = add_record(arena, page);
	if (err)
		goto err_give;
	count_granted(arena, page, &contig_bytes);
	list_move_tail(&page->link, &heir->pages);
	return 0;

err_give:
	undo_take_run(arena, page);
err_free:
	list_del(&page->link);
	kfree(page);
	return err;
}

/**
 * xalloc_page_grant_idle() - grant slices that have memory to the arena itself
 * @arena: the arena
 * @slice: the first of them
 * @nr_slices: how many, all in one segment, all free and with memory
 *
 * The page belongs to nobody, as an orphan does.
 *
 * Context: Process context, may sleep. arena->lock held.
 * Return: 0, or -ENOMEM, -EUCLEAN with nothing changed.
 */
int xalloc_page_grant_idle(struct xalloc_arena *arena, u32 slice, u32 nr_slices)
{
	struct xalloc_page *page;
	u32 contig_bytes;
	int err;

	lockdep_assert_held(&arena->lock);
	page = alloc_page_record(&arena->orphans, 0, nr_slices);
	if (!page)
		return -ENOMEM;
	page->slice = slice;
	page->granted = true;
	err = xalloc_placement_take_at(&arena->placement, slice, nr_slices);
	xalloc_segment_tell_fenced(arena);
	if (err)
		goto err_free;
	err = add_record(arena, page);
	if (err)
		goto err_give;
	count_granted(arena, page, &contig_bytes);
	list_add_tail(&page->link, &arena->orphans.pages);
	arena->nr_changes++;
	return 0;

err_give:
	xalloc_page_give(arena, page);
err_free:
	kfree(page);
	return err;
}

/**
 * xalloc_page_end() - take a page away from its client, who goes away or frees it
 * @arena: the arena
 * @page: a page on its client's list
 *
 * It is abandoned, or joins the exported ones while it is held.
 *
 * Context: arena->lock held. Neither allocates nor fails.
 */
void xalloc_page_end(struct xalloc_arena *arena, struct xalloc_page *page)
{
	lockdep_assert_held(&arena->lock);
	arena->nr_changes++;
	if (!page->nr_holds) {
		xalloc_page_abandon(arena, page);
		return;
	}
	page->client = &arena->exported;
	arena->nr_exported_slices += page->nr_slices;
	list_move_tail(&page->link, &arena->exported.pages);
}

/**
 * xalloc_page_abandon() - have a page belong to nobody
 * @arena: the arena
 * @page: a page on the list of a client or of arena->exported, or on none while it is freed
 *
 * Its memory is given back by xalloc_quarantine_abandoned().
 *
 * Context: arena->lock held. Neither allocates nor fails.
 */
void xalloc_page_abandon(struct xalloc_arena *arena, struct xalloc_page *page)
{
	lockdep_assert_held(&arena->lock);
	xalloc_page_uncount(arena, page);
	page->client = NULL;
	list_move_tail(&page->link, &arena->abandoned);
}

/**
 * xalloc_page_leave() - give back an abandoned page
 * @arena: the arena
 * @page: a page on no client's list, whose memory was seen quiet; freed afterwards, unless
 *	records contradict each other
 *
 * Context: Process context, may sleep. arena->lock held.
 * Return: 0, or -EUCLEAN: the page stays, in segments that are out of use.
 */
int xalloc_page_leave(struct xalloc_arena *arena, struct xalloc_page *page)
{
	struct xalloc_segment *seg;
	unsigned long index;
	int err;

	err = xalloc_page_give(arena, page);
	if (err)
		return err;
	xalloc_page_for_each_segment(arena, page, index, seg)
		seg->broken &= ~xalloc_page_slices_in(page, index);
	xalloc_page_settle(arena, page);
	xalloc_page_forget(arena, page);
	return 0;
}

/** xalloc_page_forget() - drop the record of a page, and take the page off its list */
void xalloc_page_forget(struct xalloc_arena *arena, struct xalloc_page *page)
{
	lockdep_assert_held(&arena->lock);
	list_del(&page->link);
	xa_erase(&arena->pages, page->slice);
	kfree(page);
}

/**
 * xalloc_page_is_poisoned() - whether hardware has broken memory of a page
 * @arena: the arena
 * @page: the page, or a part of one
 *
 * Context: Process context, may sleep. arena->lock held.
 * Return: true if so.
 */
bool xalloc_page_is_poisoned(struct xalloc_arena *arena, const struct xalloc_page *page)
{
	struct xalloc_segment *seg;
	unsigned long index;

	xalloc_page_for_each_segment(arena, page, index, seg) {
		if (xalloc_segment_is_poisoned(seg, xalloc_page_slices_in(page, index)))
			return true;
		cond_resched();
	}
	return false;
}

/* --- splitting */

/**
 * xalloc_page_alloc_rest() - allocate the record for the second part of a page
 * @arena: the arena
 * @slice: where the second part is to begin
 *
 * Context: Process context, may sleep. arena->lock held.
 * Return: a record, with room for it in arena->pages; for xalloc_page_split_off() or
 * xalloc_page_drop_rest(). NULL if memory is short.
 */
struct xalloc_page *xalloc_page_alloc_rest(struct xalloc_arena *arena, u32 slice)
{
	struct xalloc_page *rest = kzalloc(sizeof(*rest), GFP_KERNEL_ACCOUNT);

	if (rest && xa_reserve(&arena->pages, slice, GFP_KERNEL_ACCOUNT)) {
		kfree(rest);
		return NULL;
	}
	return rest;
}

/** xalloc_page_drop_rest() - take back xalloc_page_alloc_rest(); @rest may be NULL */
void xalloc_page_drop_rest(struct xalloc_arena *arena, struct xalloc_page *rest, u32 slice)
{
	if (!rest)
		return;
	xa_release(&arena->pages, slice);
	kfree(rest);
}

/**
 * xalloc_page_split_off() - make two pages of one
 * @arena: the arena
 * @page: a page that nobody holds; keeps the slices before @slice
 * @rest: what xalloc_page_alloc_rest() returned; gets the others, and follows on the list
 * @slice: a slice of the page, not the first one
 *
 * Context: arena->lock held. Neither allocates nor fails.
 */
void xalloc_page_split_off(struct xalloc_arena *arena, struct xalloc_page *page,
			   struct xalloc_page *rest, u32 slice)
{
	struct xalloc_segment *seg;
	unsigned long index;

	lockdep_assert_held(&arena->lock);
	*rest = *page;
	rest->slice = slice;
	rest->nr_slices = page->slice + page->nr_slices - slice;
	page->nr_slices -= rest->nr_slices;
	list_add(&rest->link, &page->link);
	/* xalloc_page_alloc_rest() has made room. */
	xa_store(&arena->pages, slice, rest, GFP_KERNEL_ACCOUNT);
	xalloc_page_for_each_segment(arena, rest, index, seg) {
		if (index != xalloc_page_first_segment(rest))
			seg->over = rest;
		else if (slice % XALLOC_SLICES_PER_SEGMENT == 0)
			seg->over = NULL;
	}
	arena->nr_pages++;
	xalloc_count(XALLOC_NR_PAGES, 1);
}

/**
 * xalloc_page_split() - make two pages of one
 * @arena: the arena
 * @page: a page that nobody holds
 * @slice: where the second one is to begin: a slice of the page, not the first one
 *
 * Context: Process context, may sleep. arena->lock held.
 * Return: 0 or -ENOMEM.
 */
int xalloc_page_split(struct xalloc_arena *arena, struct xalloc_page *page, u32 slice)
{
	struct xalloc_page *rest = xalloc_page_alloc_rest(arena, slice);

	if (!rest)
		return -ENOMEM;
	xalloc_page_split_off(arena, page, rest, slice);
	return 0;
}
