// SPDX-License-Identifier: MIT
/*
 * Large blocks: pieces of granted runs, exact to a hardware page.
 *
 * The runs of a heap are cut into extents, each a block or free, without regard to where one run
 * ends and the next begins: where two runs touch, a block may lie in both. Free neighbours are
 * merged at once. What is free is found by its length in lists, eight to a doubling, as TLSF does
 * it; of the first list that has it the smallest is taken.
 *
 * Of a free extent the whole segments go back, and whole runs: at once, or, in the default heap,
 * when more than keep_bytes() could go. Before a part of a run goes back, the run is split.
 *
 * A block that grows takes the free extent behind it, and then has the kernel grant the offsets
 * behind that. If somebody else has these, it moves once to where it has free offsets behind it.
 *
 * Under the lock of the bin, for all extents of the heap:
 *
 *	extent_of[] of the first and of the last hardware page of an extent is the extent; of
 *	others it is NULL
 *	an extent is on a list of free ones  <=>  it is no block; no two free ones touch
 *	free_bytes is the sum of the lengths of those on lists, idle_bytes that of their parts
 *	that can go
 *	each hardware page of a run is in one extent
 */
#include <errno.h>

#include "backend.h"
#include "chunk.h"
#include "os.h"
#include "page.h"
#include "zone.h"

#define KPAGES_PER_SLICE (XL_SLICE / XL_KPAGE)

/*
 * Of what could go the default heap keeps KEEP_BYTES and as much as is in use, where that is
 * little; of what is in use beyond FEW_BYTES four times as much, because a program whose use goes
 * up and down would get the same memory again and again. It keeps at most KEEP_MOST, and
 * KEEP_SHARE of what is in use.
 */
#define KEEP_BYTES XL_SEGMENT
#define FEW_BYTES XL_SEGMENT
#define KEEP_MOST ((size_t)24 << 20)
#define KEEP_SHARE 16
/*
 * It keeps MISSED_BYTES more after this has happened MISSED_OFTEN times: as much or less went, and
 * then memory had to be granted again.
 */
#define MISSED_BYTES (2 * XL_SEGMENT)
#define MISSED_OFTEN 8

/* Blocks of more than this that have to move to grow get free offsets behind them. */
#define FAR_BYTES (XL_SEGMENT / 2)

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
static struct xl_page *run_of(const struct xalloc_heap *heap, size_t kpage)
{
	size_t inside = xl_map.base + kpage * XL_KPAGE - heap->arena->base;
	struct xl_page *page;

	/* What is known of the next arena goes when that is destroyed. */
	if (inside >= heap->arena->bytes)
		return NULL;
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

static size_t run_end(const struct xalloc_heap *heap, const struct xl_page *page)
{
	return run_first(heap, page) + page->nr_slices * KPAGES_PER_SLICE;
}

/*
 * Finds the part of the free extent @e that can go: from *@first to before *@end. Returns whether
 * there is one; unless @all, it must be most of the extent, because what is left at both ends
 * holds no block as long as the extent would.
 */
static bool find_part(const struct xalloc_heap *heap, const struct xl_extent *e, bool all,
		      size_t *first, size_t *end)
{
	size_t e_end = e->first + e->nr;
	struct xl_page *page;

	*first = xl_round_up(e->first, XL_SEGMENT / XL_KPAGE);
	*end = e_end & ~(XL_SEGMENT / XL_KPAGE - 1);
	/* Soon found: no segment is in it, and no run begins or ends where it does. */
	if (!all && *first >= *end && e->first % KPAGES_PER_SLICE && e_end % KPAGES_PER_SLICE)
		return false;
	/* The kernel frees no part of a page that a dma-buf holds. */
	if (atomic_load_explicit(&heap->arena->has_exports, memory_order_relaxed)) {
		*first = e_end;
		*end = e->first;
	}
	page = run_of(heap, e->first);
	if (run_first(heap, page) == e->first)
		*first = e->first;
	else if (*first > run_end(heap, page))
		*first = run_end(heap, page);
	page = run_of(heap, e_end - 1);
	if (run_end(heap, page) == e_end)
		*end = e_end;
	else if (*end < run_first(heap, page))
		*end = run_first(heap, page);
	return *first < *end && (all || *end - *first >= e->nr / 8 * 5);
}

static void add_free(struct xalloc_heap *heap, struct xl_extent *e)
{
	size_t first, end;

	xl_list_add_head(&heap->large.free[list_of(e->nr)], &e->free);
	e->part = find_part(heap, e, false, &first, &end) ? end - first : 0;
	heap->large.free_bytes += e->nr * XL_KPAGE;
	heap->large.idle_bytes += e->part * XL_KPAGE;
}

static void del_free(struct xalloc_heap *heap, struct xl_extent *e)
{
	xl_list_del(&e->free);
	heap->large.free_bytes -= e->nr * XL_KPAGE;
	heap->large.idle_bytes -= e->part * XL_KPAGE;
}

/* The free extent with @kpage, which an extent touches at @border; or NULL. */
static struct xl_extent *free_neighbour(struct xalloc_heap *heap, size_t kpage, size_t border)
{
	struct xl_extent *e;

	if (!run_of(heap, kpage))
		return NULL;
	/* No block lies in two chunks. */
	if (xl_chunks_border(heap->arena, xl_map.base + border * XL_KPAGE - heap->arena->base))
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

/* --- memory back */

/* Makes a run end at @kpage, a multiple of a slice inside of it. Returns whether it does. */
static bool split_run(struct xalloc_heap *heap, size_t kpage)
{
	struct xl_page *page = run_of(heap, kpage);

	return !page || run_first(heap, page) == kpage ||
	       xl_page_split(heap, page, (kpage - run_first(heap, page)) / KPAGES_PER_SLICE);
}

/*
 * Takes what can go of the free extent @e out of the heap; but, unless @all, where more than
 * FEW_BYTES are in use only so much that not more than @keep bytes are left that could go. Without
 * memory for the records of what is left nothing goes.
 */
static void release(struct xalloc_heap *heap, struct xl_extent *e, bool all, size_t keep,
		    struct xl_list *gone)
{
	size_t e_first = e->first, e_end = e->first + e->nr, first, end, at, more;
	struct xl_extent *rest = NULL;

	if (!find_part(heap, e, all, &first, &end))
		return;
	/* From the end, whole segments. */
	more = (heap->large.idle_bytes - keep) / XL_KPAGE;
	if (!all && heap->large.used_bytes > FEW_BYTES && more < end - first) {
		at = (end - more) & ~(XL_SEGMENT / XL_KPAGE - 1);
		if (at > first)
			first = at;
	}
	if (!split_run(heap, first) || !split_run(heap, end))
		return;
	if (e_first < first && end < e_end) {
		rest = extent_get(heap);
		if (!rest)
			return;
		rest->zero = e->zero;
	}
	heap->large.missing = (end - first) * XL_KPAGE <= MISSED_BYTES;
	del_free(heap, e);
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
	for (at = first; at < end;) {
		struct xl_page *page = run_of(heap, at);

		at = run_end(heap, page);
		xl_page_detach(heap, page, gone);
	}
}

static size_t keep_bytes(const struct xalloc_heap *heap)
{
	size_t used = heap->large.used_bytes, keep = KEEP_BYTES + used;
	size_t most = KEEP_MOST + used / KEEP_SHARE;

	if (!xl_heap_is_default(xl_process_peek(), heap))
		return 0;
	if (heap->large.nr_missed == MISSED_OFTEN)
		keep += MISSED_BYTES;
	if (used > FEW_BYTES)
		keep += 3 * (used - FEW_BYTES);
	return keep < most ? keep : most;
}

/* After @e, which is free now. */
static void trim_after(struct xalloc_heap *heap, struct xl_extent *e, struct xl_list *gone)
{
	size_t keep = keep_bytes(heap);

	if (heap->large.idle_bytes <= keep)
		return;
	release(heap, e, false, keep, gone);
	if (keep && heap->large.idle_bytes > keep)
		xl_large_trim(heap, false, gone);
}

void xl_large_trim(struct xalloc_heap *heap, bool all, struct xl_list *gone)
{
	size_t keep = all ? 0 : keep_bytes(heap);
	unsigned int list, probes = 0;

	/* The longest ones first. What is shorter than a slice is no run. */
	for (list = XL_NR_FREE_LISTS; list-- > list_of(KPAGES_PER_SLICE);) {
		struct xl_list *head = &heap->large.free[list], *pos, *next;

		for (pos = head->next; pos != head; pos = next) {
			next = pos->next;
			if (!all && (heap->large.idle_bytes <= keep || ++probes > NR_PROBES))
				return;
			release(heap, xl_entry(pos, struct xl_extent, free), all, keep, gone);
		}
	}
}

/* --- extents */

/* Merges a free extent, which is on no list, with its neighbours and puts it on one. */
static struct xl_extent *settle(struct xalloc_heap *heap, struct xl_extent *e)
{
	struct xl_extent *left = e->first ? free_neighbour(heap, e->first - 1, e->first) : NULL;
	struct xl_extent *right = free_neighbour(heap, e->first + e->nr, e->first + e->nr);
	size_t first = e->first, nr = e->nr;

	set_ends(e, NULL);
	if (left) {
		set_ends(left, NULL);
		del_free(heap, left);
		first = left->first;
		nr += left->nr;
		e->zero = e->zero && left->zero;
		extent_put(left);
	}
	if (right) {
		set_ends(right, NULL);
		del_free(heap, right);
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

static uintptr_t address_of(const struct xl_extent *e)
{
	return xl_map.base + e->first * XL_KPAGE;
}

/* Counts the block @e as used, which it has become. */
static void use(struct xalloc_heap *heap, struct xl_extent *e)
{
	heap->large.used_bytes += e->nr * XL_KPAGE;
	xl_arena_count(heap->arena, e->nr * XL_KPAGE);
}

/* The block @e is to become free, longer or shorter, and no longer medium. */
static void unuse(struct xalloc_heap *heap, struct xl_extent *e)
{
	heap->large.used_bytes -= e->nr * XL_KPAGE;
	xl_arena_count(heap->arena, -(e->nr * XL_KPAGE));
	if (!(heap->tag & XL_TAG_CACHED))
		return;
	xl_set_state(address_of(e), XL_CLASS_LARGE, XL_FREE);
	atomic_store_explicit(xl_medium_of(address_of(e)), 0, memory_order_relaxed);
	atomic_store_explicit(xl_asked_of(address_of(e)), 0, memory_order_relaxed);
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
	del_free(heap, e);
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
	e->roomy = false;
	use(heap, e);
	return 0;
}

/* Adds a run that was granted, all of it free; it is of no heap if that cannot be. */
static int add_run(struct xalloc_heap *heap, struct xl_page *page)
{
	struct xl_extent *e = extent_get(heap);

	if (!e)
		return -ENOMEM;
	xl_page_attach(heap, page);
	set_range(e, run_first(heap, page), page->nr_slices * KPAGES_PER_SLICE);
	e->zero = page->zero;
	if (heap->large.missing && heap->large.nr_missed < MISSED_OFTEN)
		heap->large.nr_missed++;
	heap->large.missing = false;
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
	*address = address_of(e);
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
	xl_flight_begin(xl_process_peek());
	pthread_mutex_lock(&bin->lock);
	ret = alloc_free(heap, nr, alignment, address, zero);
	if (ret == -ENOSPC)
		plan = plan_of(heap, nr);
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
		if (ret == -ENOSPC && error) {
			ret = error;
			/* Runs that did not do may be in the way of the next. */
			xl_large_trim(heap, true, &gone);
		}
		if (ret && ++plan.next < plan.end && ret != -XL_ADD_CHUNK)
			ret = -ENOSPC;
	}
	/* What was granted and did not do, or is more than is kept. */
	if (plan.next)
		xl_large_trim(heap, ret, &gone);
	pthread_mutex_unlock(&bin->lock);
	xl_pages_free(heap->arena, &gone);
	xl_flight_end(xl_process_peek());
	return ret;
}

void xl_large_free(struct xalloc_heap *heap, struct xl_extent *e, struct xl_list *gone)
{
	unuse(heap, e);
	e->used = false;
	e->zero = false;
	trim_after(heap, settle(heap, e), gone);
}

/* Makes the block longer at the expense of the free extent behind it. */
static bool grow(struct xalloc_heap *heap, struct xl_extent *e, size_t nr)
{
	size_t more = nr - e->nr;
	struct xl_extent *right = free_neighbour(heap, e->first + e->nr, e->first + e->nr);

	if (!right || right->nr < more)
		return false;
	del_free(heap, right);
	set_ends(right, NULL);
	if (right->nr == more) {
		extent_put(right);
	} else {
		set_range(right, right->first + more, right->nr - more);
		add_free(heap, right);
	}
	unuse(heap, e);
	set_ends(e, NULL);
	set_range(e, e->first, nr);
	use(heap, e);
	e->loose = false;
	return true;
}

/* Makes it shorter. */
static bool shrink(struct xalloc_heap *heap, struct xl_extent *e, size_t nr, struct xl_list *gone)
{
	struct xl_extent *rest = extent_get(heap);
	size_t first = e->first, less = e->nr - nr;

	if (!rest)
		return false;
	unuse(heap, e);
	set_ends(e, NULL);
	set_range(e, first, nr);
	set_range(rest, first + nr, less);
	use(heap, e);
	e->loose = false;
	e->roomy = false;
	trim_after(heap, settle(heap, rest), gone);
	return true;
}

/* Whether the medium block @e, or one of another kind, can hold @size and stay medium. */
static bool stays_medium(struct xl_extent *e, size_t size)
{
	unsigned int cls = atomic_load_explicit(xl_medium_of(address_of(e)), memory_order_relaxed);
	unsigned int asked = xl_is_medium(size) ? xl_medium_class_of(size) : 0;

	if (!cls || !asked || cls - asked > XL_MEDIUM_ABOVE)
		return false;
	atomic_store_explicit(xl_asked_of(address_of(e)), asked, memory_order_relaxed);
	return true;
}

bool xl_large_resize(struct xalloc_heap *heap, struct xl_extent *e, size_t size,
		     struct xl_list *gone)
{
	size_t nr = kpages(size);

	if (stays_medium(e, size))
		return true;
	if (e->roomy && nr < e->nr && e->nr - nr < XL_SEGMENT / XL_KPAGE) {
		e->loose = true;
		return true;
	}
	return nr == e->nr || (nr > e->nr ? grow(heap, e, nr) : shrink(heap, e, nr, gone));
}

/* --- growth where the kernel has to grant more */

/* The first hardware page behind the block, and behind what is free there, that is of no run. */
static size_t edge_of(struct xalloc_heap *heap, const struct xl_extent *e)
{
	size_t end = e->first + e->nr;
	struct xl_extent *right = free_neighbour(heap, end, end);

	if (right)
		end += right->nr;
	return run_of(heap, end) ? 0 : end;
}

/* Has @nr_slices granted at @edge and adds them to the heap. */
static int grant_at(struct xalloc_heap *heap, size_t edge, size_t nr_slices)
{
	struct xl_bin *bin = xl_bin_of(heap, XL_CLASS_LARGE);
	uint64_t offset = xl_map.base + edge * XL_KPAGE - heap->arena->base;
	struct xl_page *page;
	struct xl_list gone;
	int ret;

	if (offset + nr_slices * XL_SLICE > heap->arena->bytes)
		return -EFBIG;
	xl_flight_begin(xl_process_peek());
	ret = xl_page_grant_at(heap->arena, offset, nr_slices, &page);
	if (ret) {
		xl_flight_end(xl_process_peek());
		return ret;
	}
	xl_list_init(&gone);
	pthread_mutex_lock(&bin->lock);
	ret = add_run(heap, page);
	pthread_mutex_unlock(&bin->lock);
	if (ret) {
		xl_list_add_head(&gone, &page->all);
		xl_pages_free(heap->arena, &gone);
	}
	xl_flight_end(xl_process_peek());
	return ret;
}

/* Up to the end of a segment, where the arena is large. */
static size_t slices_from(const struct xalloc_heap *heap, size_t edge, size_t end)
{
	size_t exact = (end - edge + KPAGES_PER_SLICE - 1) / KPAGES_PER_SLICE;

	if (heap->arena->limit_bytes < SEGMENTS_LIMIT)
		return exact;
	return (xl_round_up(end, XL_SEGMENT / XL_KPAGE) - edge) / KPAGES_PER_SLICE;
}

/*
 * Makes the block at least @nr long, and takes what else is free in its last segment: what another
 * block had there would be in the way of growing again.
 */
static bool grow_into(struct xalloc_heap *heap, struct xl_extent *e, size_t nr)
{
	size_t end = e->first + e->nr, segment_end, most;
	struct xl_extent *right = free_neighbour(heap, end, end);

	if (!right || e->nr + right->nr < nr)
		return false;
	segment_end = xl_round_up(e->first + nr, XL_SEGMENT / XL_KPAGE);
	most = e->nr + right->nr;
	if (most > segment_end - e->first)
		most = segment_end - e->first;
	grow(heap, e, most);
	e->loose = true;
	e->roomy = true;
	return true;
}

int xl_large_extend(struct xalloc_heap *heap, uintptr_t address, size_t size)
{
	struct xl_bin *bin = xl_bin_of(heap, XL_CLASS_LARGE);
	size_t nr = kpages(size), first = (address - xl_map.base) / XL_KPAGE, edge;
	struct xl_extent *e;
	bool grows = false;
	int ret;

	pthread_mutex_lock(&bin->lock);
	e = xl_map.extent_of[first];
	edge = edge_of(heap, e);
	pthread_mutex_unlock(&bin->lock);
	if (!edge || edge >= first + nr)
		return -EEXIST;
	ret = grant_at(heap, edge, slices_from(heap, edge, first + nr));
	if (ret && ret != -EEXIST)
		ret = grant_at(heap, edge,
			       (first + nr - edge + KPAGES_PER_SLICE - 1) / KPAGES_PER_SLICE);
	if (ret)
		return ret;
	pthread_mutex_lock(&bin->lock);
	grows = grow_into(heap, e, nr);
	pthread_mutex_unlock(&bin->lock);
	return grows ? 0 : -EEXIST;
}

int xl_large_alloc_far(struct xalloc_heap *heap, size_t size, uintptr_t *address)
{
	struct xl_bin *bin = xl_bin_of(heap, XL_CLASS_LARGE);
	const struct xalloc_arena *arena = heap->arena;
	size_t step =
		arena->bytes >= 2 * arena->limit_bytes ? arena->limit_bytes : arena->bytes / 4;
	size_t nr_places, place, nr = kpages(size), tries;
	int ret = -EOPNOTSUPP;
	struct xl_extent *e;
	size_t at;

	step = xl_round_up(step, XL_SEGMENT);
	if (size <= FAR_BYTES || arena->chunks || size > step)
		return ret;
	nr_places = arena->bytes / step;
	for (tries = 1; tries < nr_places; tries++) {
		place = 1 +
			atomic_fetch_add_explicit(&heap->large.nr_far, 1, memory_order_relaxed) %
				(nr_places - 1);
		at = (arena->base - xl_map.base + place * step) / XL_KPAGE;
		ret = grant_at(heap, at, slices_from(heap, at, at + nr));
		if (ret && ret != -EEXIST && ret != -EBUSY)
			break;
		if (ret)
			continue;
		pthread_mutex_lock(&bin->lock);
		e = xl_map.extent_of[at];
		if (e && !e->used && e->first == at && e->nr >= nr)
			ret = carve(heap, e, at, nr);
		else
			ret = -EEXIST;
		if (!ret)
			*address = address_of(e);
		pthread_mutex_unlock(&bin->lock);
		break;
	}
	return ret;
}

bool xl_large_fits(const struct xl_extent *e, size_t size)
{
	unsigned int asked = atomic_load_explicit(xl_asked_of(address_of(e)), memory_order_relaxed);

	if (!asked)
		return kpages(size) == e->nr;
	return xl_is_medium(size) && xl_medium_class_of(size) == asked;
}

bool xl_large_is_live(const struct xl_extent *e)
{
	uintptr_t address = address_of(e);

	return e->used && (!atomic_load_explicit(xl_medium_of(address), memory_order_relaxed) ||
			   xl_is_state(address, XL_CLASS_LARGE, XL_LIVE));
}

void xl_large_count(struct xalloc_heap *heap, uint64_t *nr_blocks, uint64_t *bytes)
{
	struct xl_list *pos;

	for (pos = heap->large.all.next; pos != &heap->large.all; pos = pos->next) {
		const struct xl_extent *e = xl_entry(pos, struct xl_extent, all);

		if (xl_large_is_live(e)) {
			++*nr_blocks;
			*bytes += e->nr * XL_KPAGE;
		}
	}
}

uintptr_t xl_large_put(struct xalloc_heap *heap, uintptr_t address, struct xl_list *gone)
{
	size_t kpage = (address - xl_map.base) / XL_KPAGE;
	struct xl_extent *e = run_of(heap, kpage) ? xl_map.extent_of[kpage] : NULL;

	if (!e || !e->used || address_of(e) != address ||
	    !xl_is_state(address, XL_CLASS_LARGE, XL_KEPT))
		return address;
	xl_large_free(heap, e, gone);
	return 0;
}

void xl_large_recover(struct xalloc_heap *heap, struct xl_list *gone)
{
	struct xl_list *pos = heap->large.all.next;

	while (pos != &heap->large.all) {
		struct xl_extent *e = xl_entry(pos, struct xl_extent, all);

		/* Free ones may be merged with it. */
		do
			pos = pos->next;
		while (pos != &heap->large.all && !xl_entry(pos, struct xl_extent, all)->used);
		if (e->used && !xl_large_is_live(e))
			xl_large_free(heap, e, gone);
	}
}

void xl_large_init(struct xl_large *large)
{
	unsigned int list;

	*large = (struct xl_large){ 0 };
	xl_list_init(&large->all);
	for (list = 0; list < XL_NR_FREE_LISTS; list++)
		xl_list_init(&large->free[list]);
}

void xl_large_destroy(struct xalloc_heap *heap)
{
	struct xl_list *pos;

	xl_arena_count(heap->arena, -heap->large.used_bytes);
	while ((pos = heap->large.all.next) != &heap->large.all) {
		struct xl_extent *e = xl_entry(pos, struct xl_extent, all);

		set_ends(e, NULL);
		extent_put(e);
	}
}
