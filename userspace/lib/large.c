// SPDX-License-Identifier: MIT
/*
 * Large blocks: pieces of granted runs, exact to a hardware page.
 *
 * The runs of a heap are cut into extents, each a block or free, without regard to where one run
 * ends and the next begins: where two runs touch, a block may lie in both. Free neighbours are
 * merged at once. What is free is found by its length in lists, eight to a doubling, as TLSF does
 * it; of the first list that has it the smallest is taken. A run without a block goes back: at
 * once, or, in the default heap, after a while or before another is granted.
 *
 * Under the lock of the bin, for all extents of the heap:
 *
 *	extent_of[] of the first and of the last hardware page of an extent is the extent; of
 *	others it is NULL
 *	an extent is on a list of free ones  <=>  it is no block; no two free ones touch
 *	a run is idle  <=>  no block lies in it, which is when nr_used is 0
 *	the first unit of an extent is live  <=>  it is a block
 */
#include <errno.h>

#include "backend.h"
#include "chunk.h"
#include "os.h"
#include "page.h"
#include "zone.h"

#define KPAGES_PER_SLICE (XL_SLICE / XL_KPAGE)

/*
 * Idle runs that the default heap keeps: most of them, most of their memory, to which a part of
 * that in use is added, and how long.
 */
#define NR_IDLE 32
#define IDLE_BYTES ((size_t)16 << 20)
#define IDLE_SHARE 16
#define IDLE_NS 1000000000ull

/* Arenas with a limit from this one on are granted whole segments, in which blocks pack well. */
#define SEGMENTS_LIMIT (32 * XL_SEGMENT)

/* Up to so much is joined with what is free: if that fails, it is granted for nothing. */
#define JOINED_BYTES (4 * XL_SEGMENT)

/* So many extents of a list are looked at before the next list. */
#define NR_PROBES 32

#define LISTS_PER_DOUBLING 8

static size_t kpages(size_t bytes)
{
	return (bytes - 1) / XL_KPAGE + 1;
}

static unsigned int list_of(size_t nr)
{
	unsigned int shift;

	if (nr < LISTS_PER_DOUBLING)
		return nr;
	shift = 63 - __builtin_clzll(nr) - 3;
	return (shift + 1) * LISTS_PER_DOUBLING + (nr >> shift) % LISTS_PER_DOUBLING;
}

static void add_free(struct xalloc_heap *heap, struct xl_extent *e)
{
	xl_list_add_head(&heap->large.free[list_of(e->nr)], &e->free);
}

static void set_ends(struct xl_extent *e, struct xl_extent *value)
{
	xl_map.extent_of[e->first] = value;
	xl_map.extent_of[e->first + e->nr - 1] = value;
}

static void set_range(struct xl_extent *e, size_t first, size_t nr)
{
	e->first = first;
	e->nr = nr;
	set_ends(e, e);
}

static struct xl_extent *extent_get(struct xalloc_heap *heap)
{
	struct xl_extent *e = xl_meta_get(XL_POOL_EXTENT, sizeof(*e));

	if (!e)
		return NULL;
	*e = (struct xl_extent){ 0 };
	xl_list_add_head(&heap->large.all, &e->all);
	return e;
}

static void extent_put(struct xl_extent *e)
{
	xl_list_del(&e->all);
	xl_meta_put(XL_POOL_EXTENT, e);
}

/* The run of @heap that hardware page @kpage lies in, or NULL. */
static struct xl_page *run_of(struct xalloc_heap *heap, size_t kpage)
{
	struct xl_page *page;

	page = xl_zone_page(kpage / KPAGES_PER_SLICE);
	if (!page || atomic_load_explicit(&page->heap, memory_order_relaxed) != heap ||
	    page->cls != XL_CLASS_LARGE)
		return NULL;
	return page;
}

static size_t run_first(const struct xalloc_heap *heap, const struct xl_page *page)
{
	return (xl_page_address(heap, page) - xl_map.base) / XL_KPAGE;
}

/* The free extent with @kpage, which an extent touches at @border; or NULL. */
static struct xl_extent *free_neighbour(struct xalloc_heap *heap, size_t kpage, size_t border)
{
	struct xl_extent *e;

	if (!run_of(heap, kpage))
		return NULL;
	/* No block lies in two chunks. */
	if (heap->arena->chunks &&
	    (xl_map.base + border * XL_KPAGE - heap->arena->base) % heap->arena->chunk_bytes == 0)
		return NULL;
	e = xl_map.extent_of[kpage];
	return e && !e->used ? e : NULL;
}

struct xl_extent *xl_large_find(struct xalloc_heap *heap, uintptr_t address)
{
	size_t kpage = (address - xl_map.base) / XL_KPAGE, at = kpage;
	struct xl_extent *e;

	while (!xl_map.extent_of[at]) {
		if (!at || !run_of(heap, at - 1))
			return NULL;
		at--;
	}
	e = xl_map.extent_of[at];
	return kpage - e->first < e->nr ? e : NULL;
}

/* --- runs */

static void take_idle(struct xalloc_heap *heap, struct xl_page *page)
{
	xl_list_del(&page->partial);
	heap->large.nr_idle--;
	heap->large.idle_bytes -= page->nr_slices * XL_SLICE;
}

static void add_idle(struct xalloc_heap *heap, struct xl_page *page)
{
	page->idle_since = xl_os_now();
	xl_list_add_head(&heap->large.idle, &page->partial);
	heap->large.nr_idle++;
	heap->large.idle_bytes += page->nr_slices * XL_SLICE;
}

/* Counts @nr hardware pages from @first on as used, or as free again. */
static void count_used(struct xalloc_heap *heap, size_t first, size_t nr, bool used)
{
	size_t end = first + nr, run_end, some;
	struct xl_page *page;

	while (first < end) {
		page = run_of(heap, first);
		run_end = run_first(heap, page) + page->nr_slices * KPAGES_PER_SLICE;
		some = (run_end < end ? run_end : end) - first;
		if (used) {
			if (!page->nr_used)
				take_idle(heap, page);
			page->nr_used += some;
		} else {
			page->nr_used -= some;
			if (!page->nr_used)
				add_idle(heap, page);
		}
		first += some;
	}
}

/* Takes an idle run out of the heap, unless memory for what is left of its extent is missing. */
static bool release_run(struct xalloc_heap *heap, struct xl_page *page, struct xl_list *gone)
{
	size_t first = run_first(heap, page), end = first + page->nr_slices * KPAGES_PER_SLICE;
	struct xl_extent *e = xl_large_find(heap, xl_page_address(heap, page)), *rest = NULL;
	size_t e_first = e->first, e_end = e->first + e->nr;

	if (e_first < first && end < e_end) {
		rest = extent_get(heap);
		if (!rest)
			return false;
		rest->zero = e->zero;
	}
	xl_list_del(&e->free);
	set_ends(e, NULL);
	if (e_first < first) {
		set_range(e, e_first, first - e_first);
		add_free(heap, e);
	}
	if (end < e_end) {
		if (!rest)
			rest = e;
		set_range(rest, end, e_end - end);
		add_free(heap, rest);
	} else if (e_first == first) {
		extent_put(e);
	}
	take_idle(heap, page);
	xl_page_detach(heap, page, gone);
	return true;
}

void xl_large_trim(struct xalloc_heap *heap, bool all, struct xl_list *gone)
{
	struct xl_process *p = xl_process_peek();
	struct xl_large *large = &heap->large;
	struct xl_page *page;
	uint64_t now;

	if (!large->nr_idle)
		return;
	now = xl_os_now();
	all = all || heap != atomic_load_explicit(&p->default_heap, memory_order_relaxed);
	while (large->nr_idle) {
		page = xl_entry(large->idle.prev, struct xl_page, partial);
		if (!all && large->nr_idle <= NR_IDLE &&
		    large->idle_bytes <= IDLE_BYTES + large->used_bytes / IDLE_SHARE &&
		    now - page->idle_since < IDLE_NS)
			break;
		if (!release_run(heap, page, gone))
			break;
	}
}

/* Merges a free extent, which is on no list, with its neighbours and puts it on one. */
static struct xl_extent *settle(struct xalloc_heap *heap, struct xl_extent *e)
{
	struct xl_extent *left = e->first ? free_neighbour(heap, e->first - 1, e->first) : NULL;
	struct xl_extent *right = free_neighbour(heap, e->first + e->nr, e->first + e->nr);
	size_t first = e->first, nr = e->nr;

	set_ends(e, NULL);
	if (left) {
		set_ends(left, NULL);
		xl_list_del(&left->free);
		first = left->first;
		nr += left->nr;
		e->zero = e->zero && left->zero;
		extent_put(left);
	}
	if (right) {
		set_ends(right, NULL);
		xl_list_del(&right->free);
		nr += right->nr;
		e->zero = e->zero && right->zero;
		extent_put(right);
	}
	set_range(e, first, nr);
	add_free(heap, e);
	return e;
}

/* --- blocks */

/* Where @nr hardware pages, aligned, lie in @e; NULL as the number of none is ~0. */
static size_t place_in(const struct xl_extent *e, size_t nr, size_t alignment)
{
	uintptr_t address = xl_map.base + e->first * XL_KPAGE;
	size_t skip = (-address & (alignment - 1)) / XL_KPAGE;

	return skip <= e->nr && e->nr - skip >= nr ? e->first + skip : SIZE_MAX;
}

/* Of extents that are as long it is the lowest. */
static struct xl_extent *find_free(struct xalloc_heap *heap, size_t nr, size_t alignment,
				   size_t *at)
{
	struct xl_extent *best = NULL;
	unsigned int list, probes;

	for (list = list_of(nr); list < XL_NR_FREE_LISTS && !best; list++) {
		struct xl_list *head = &heap->large.free[list], *pos;

		for (pos = head->next, probes = 0; pos != head && probes < NR_PROBES;
		     pos = pos->next, probes++) {
			struct xl_extent *e = xl_entry(pos, struct xl_extent, free);
			size_t place = place_in(e, nr, alignment);

			if (place != SIZE_MAX && (!best || e->nr < best->nr ||
						  (e->nr == best->nr && e->first < best->first))) {
				best = e;
				*at = place;
			}
		}
	}
	return best;
}

/* Makes a block of @nr hardware pages from @at on out of the free extent @e. */
static int carve(struct xalloc_heap *heap, struct xl_extent *e, size_t at, size_t nr)
{
	size_t first = e->first, end = e->first + e->nr;
	struct xl_extent *left = NULL, *right = NULL;

	if (first < at) {
		left = extent_get(heap);
		if (!left)
			return -ENOMEM;
		left->zero = e->zero;
	}
	if (at + nr < end) {
		right = extent_get(heap);
		if (!right) {
			if (left)
				extent_put(left);
			return -ENOMEM;
		}
		right->zero = e->zero;
	}
	xl_list_del(&e->free);
	set_ends(e, NULL);
	if (left) {
		set_range(left, first, at - first);
		add_free(heap, left);
	}
	if (right) {
		set_range(right, at + nr, end - at - nr);
		add_free(heap, right);
	}
	set_range(e, at, nr);
	e->used = true;
	e->loose = false;
	count_used(heap, at, nr, true);
	return 0;
}

/* Adds a run that was granted, all of it free; it is of no heap if that cannot be. */
static int add_run(struct xalloc_heap *heap, struct xl_page *page)
{
	struct xl_extent *e = extent_get(heap);

	if (!e)
		return -ENOMEM;
	xl_page_attach(heap, page);
	page->nr_used = 0;
	add_idle(heap, page);
	set_range(e, run_first(heap, page), page->nr_slices * KPAGES_PER_SLICE);
	e->zero = page->zero;
	settle(heap, e);
	return 0;
}

/* What is to be granted for a block, one try after the other. */
struct plan {
	size_t bytes[4];
	unsigned int next, end;
};

/*
 * If what is free elsewhere makes up for it, a segment less is tried, and then one more: they are
 * granted from the lowest on, so they mostly touch what is free.
 */
static struct plan plan_of(struct xalloc_heap *heap, size_t nr)
{
	size_t bytes = nr * XL_KPAGE, whole = xl_round_up(bytes, XL_SEGMENT), at;
	struct plan plan = {
		.bytes = { whole - XL_SEGMENT, XL_SEGMENT, whole, bytes },
		.end = 4,
	};

	if (whole > JOINED_BYTES || whole <= XL_SEGMENT ||
	    !find_free(heap, kpages(bytes - plan.bytes[0]), XL_KPAGE, &at))
		plan.next = 2;
	if (heap->arena->limit_bytes < SEGMENTS_LIMIT || whole > heap->arena->bytes)
		plan.next = 3;
	return plan;
}

/* Makes a block of what is free. Returns -ENOSPC if nothing is as long. */
static int alloc_free(struct xalloc_heap *heap, size_t nr, size_t alignment, uintptr_t *address,
		      bool *zero)
{
	struct xl_extent *e;
	size_t at;
	int ret;

	e = find_free(heap, nr, alignment, &at);
	if (!e)
		return -ENOSPC;
	ret = carve(heap, e, at, nr);
	if (ret)
		return ret;
	heap->large.nr_blocks++;
	heap->large.used_bytes += nr * XL_KPAGE;
	*address = xl_map.base + e->first * XL_KPAGE;
	*zero = e->zero;
	return 0;
}

int xl_large_alloc(struct xalloc_heap *heap, size_t alignment, size_t size, uintptr_t *address,
		   bool *zero)
{
	struct xl_bin *bin = xl_bin_of(heap, XL_CLASS_LARGE);
	struct xl_page *page;
	struct xl_list gone;
	struct plan plan = { .end = 1 };
	size_t nr;
	int ret;

	if (size > heap->arena->bytes)
		return -EFBIG;
	nr = kpages(size);
	if (alignment < XL_KPAGE)
		alignment = XL_KPAGE;
	xl_list_init(&gone);
	pthread_mutex_lock(&bin->lock);
	xl_large_trim(heap, false, &gone);
	ret = alloc_free(heap, nr, alignment, address, zero);
	if (ret == -ENOSPC) {
		/* What is idle was of no use. */
		xl_large_trim(heap, true, &gone);
		plan = plan_of(heap, nr);
	}
	while (ret == -ENOSPC && plan.next < plan.end) {
		size_t bytes = plan.bytes[plan.next];
		int error;

		pthread_mutex_unlock(&bin->lock);
		xl_pages_free(heap->arena, &gone);
		error = xl_page_grant(heap->arena, XL_CLASS_LARGE,
				      plan.next < 2 ? XL_SLICE : alignment, bytes, &page);
		pthread_mutex_lock(&bin->lock);
		if (!error) {
			error = add_run(heap, page);
			if (error)
				xl_list_add_head(&gone, &page->all);
		}
		/* Also if it was refused: another thread may have freed some. */
		ret = alloc_free(heap, nr, alignment, address, zero);
		if (ret == -ENOSPC && error)
			ret = error;
		if (ret && plan.next)
			xl_large_trim(heap, true, &gone);
		if (ret && ++plan.next < plan.end && ret != -XL_ADD_CHUNK)
			ret = -ENOSPC;
	}
	pthread_mutex_unlock(&bin->lock);
	xl_pages_free(heap->arena, &gone);
	return ret;
}

void xl_large_free(struct xalloc_heap *heap, struct xl_extent *e, struct xl_list *gone)
{
	heap->large.nr_blocks--;
	heap->large.used_bytes -= e->nr * XL_KPAGE;
	count_used(heap, e->first, e->nr, false);
	e->used = false;
	e->zero = false;
	settle(heap, e);
	xl_large_trim(heap, false, gone);
}

/* Makes the block longer at the expense of the free extent behind it. */
static bool grow(struct xalloc_heap *heap, struct xl_extent *e, size_t nr)
{
	size_t more = nr - e->nr;
	struct xl_extent *right = free_neighbour(heap, e->first + e->nr, e->first + e->nr);

	if (!right || right->nr < more)
		return false;
	count_used(heap, right->first, more, true);
	xl_list_del(&right->free);
	set_ends(right, NULL);
	if (right->nr == more) {
		extent_put(right);
	} else {
		set_range(right, right->first + more, right->nr - more);
		add_free(heap, right);
	}
	set_ends(e, NULL);
	set_range(e, e->first, nr);
	return true;
}

/* Makes it shorter. */
static bool shrink(struct xalloc_heap *heap, struct xl_extent *e, size_t nr, struct xl_list *gone)
{
	struct xl_extent *rest = extent_get(heap);
	size_t first = e->first, less = e->nr - nr;

	if (!rest)
		return false;
	set_ends(e, NULL);
	set_range(e, first, nr);
	set_range(rest, first + nr, less);
	count_used(heap, first + nr, less, false);
	settle(heap, rest);
	xl_large_trim(heap, false, gone);
	return true;
}

bool xl_large_resize(struct xalloc_heap *heap, struct xl_extent *e, size_t size,
		     struct xl_list *gone)
{
	size_t old = e->nr, nr = kpages(size);

	if (nr > old ? !grow(heap, e, nr) : nr < old && !shrink(heap, e, nr, gone))
		return false;
	heap->large.used_bytes += (nr - old) * XL_KPAGE;
	e->loose = false;
	return true;
}

bool xl_large_fits(const struct xl_extent *e, size_t size)
{
	return kpages(size) == e->nr;
}

void xl_large_init(struct xl_large *large)
{
	unsigned int list;

	*large = (struct xl_large){ 0 };
	xl_list_init(&large->all);
	xl_list_init(&large->idle);
	for (list = 0; list < XL_NR_FREE_LISTS; list++)
		xl_list_init(&large->free[list]);
}

void xl_large_destroy(struct xalloc_heap *heap)
{
	struct xl_list *pos;

	while ((pos = heap->large.all.next) != &heap->large.all) {
		struct xl_extent *e = xl_entry(pos, struct xl_extent, all);

		set_ends(e, NULL);
		extent_put(e);
	}
}
