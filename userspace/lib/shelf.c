// SPDX-License-Identifier: MIT
/*
 * Shelves: segments that hold only slabs of short blocks.
 *
 * Even a thread with a small share keeps some short blocks, and one such block keeps its whole
 * slab. These slabs are little memory in all; but if they lie among other pages, each keeps a
 * whole segment from going back. So a segment is granted as a whole, and only these slabs are put
 * into it, side by side. It goes back when its last slab has gone.
 *
 * A shelf that was full is put at the head of the list when a slab leaves it, and new slabs are
 * put on the first shelf of the list: so shelves that are almost full fill up, and others empty.
 *
 * When memory is wanted back, shelves are dissolved: what is free of them goes, and the rest slab
 * by slab.
 */
#include "run.h"
#include "shelf.h"

#define ALL UINT32_MAX

/* Slabs of longer blocks have few blocks each, and threads keep few of these. */
#define SHORT_BYTES 4096
/*
 * No shelves in an arena with a smaller limit, or while fewer segments have pages: a segment would
 * be much there.
 */
#define LIMIT_LEAST (128 * XL_SEGMENT)
#define NR_SEGMENTS_LEAST 10

static bool may_create(struct xalloc_arena *arena)
{
	size_t nr = atomic_load_explicit(&arena->nr_segments, memory_order_relaxed);

	/* One was refused, and no segment has gone since. */
	if (nr >= atomic_load_explicit(&arena->shelf_refused, memory_order_relaxed))
		return false;
	return nr >= NR_SEGMENTS_LEAST && arena->limit_bytes >= LIMIT_LEAST;
}

static uint32_t mask_of(uint32_t first, uint32_t nr)
{
	return (uint32_t)((1ULL << nr) - 1) << first;
}

static struct xl_shelf *take(struct xalloc_arena *arena, uint32_t nr_slices,
			     struct xl_grant *granted)
{
	struct xl_list *pos;

	for (pos = arena->shelves.next; pos != &arena->shelves; pos = pos->next) {
		struct xl_shelf *shelf = xl_entry(pos, struct xl_shelf, link);
		uint32_t fits = shelf->free, first, mask, i;

		for (i = 1; i < nr_slices; i++)
			fits &= shelf->free >> i;
		if (!fits)
			continue;
		first = __builtin_ctz(fits);
		mask = mask_of(first, nr_slices);
		granted->offset = shelf->offset + first * XL_SLICE;
		granted->zero = !(shelf->dirty & mask);
		shelf->free &= ~mask;
		shelf->dirty |= mask;
		if (!shelf->free)
			xl_list_del(&shelf->link);
		return shelf;
	}
	return NULL;
}

static void destroy(struct xalloc_arena *arena, struct xl_shelf *shelf)
{
	struct xalloc_range run = { .offset = shelf->offset, .bytes = XL_SEGMENT };

	xl_runs_free(arena, &run, 1);
	xl_meta_put(XL_POOL_SHELF, shelf);
}

/* Has a segment granted and mapped for a shelf, which is not on the list yet. NULL if refused. */
static struct xl_shelf *create(struct xalloc_arena *arena)
{
	struct xl_shelf *shelf = xl_meta_get(XL_POOL_SHELF, sizeof(*shelf));
	struct xl_grant whole;

	if (!shelf)
		return NULL;
	if (xl_run_grant(arena, XL_SEGMENT, XL_SEGMENT_SLICES, &whole)) {
		xl_meta_put(XL_POOL_SHELF, shelf);
		shelf = NULL;
	} else {
		shelf->offset = whole.offset;
		shelf->free = ALL;
		shelf->dirty = whole.zero ? 0 : ALL;
		shelf->is_dissolved = false;
		/* In pieces each slab goes back by itself. */
		if (!whole.huge || whole.offset % XL_SEGMENT) {
			destroy(arena, shelf);
			shelf = NULL;
		}
	}
	atomic_store_explicit(&arena->shelf_refused,
			      shelf ? SIZE_MAX : atomic_load(&arena->nr_segments),
			      memory_order_relaxed);
	return shelf;
}

struct xl_shelf *xl_shelf_take(struct xalloc_arena *arena, uint32_t block_bytes, uint32_t nr_slices,
			       struct xl_grant *granted)
{
	struct xl_shelf *shelf, *created;

	if (!arena->segments || arena->chunks || block_bytes > SHORT_BYTES)
		return NULL;
	pthread_mutex_lock(&arena->shelf_lock);
	shelf = take(arena, nr_slices, granted);
	pthread_mutex_unlock(&arena->shelf_lock);
	if (shelf || !may_create(arena))
		return shelf;
	created = create(arena);
	if (!created)
		return NULL;
	pthread_mutex_lock(&arena->shelf_lock);
	/* Another thread may have added one meanwhile. */
	shelf = take(arena, nr_slices, granted);
	if (!shelf) {
		xl_list_add_head(&arena->shelves, &created->link);
		shelf = take(arena, nr_slices, granted);
		created = NULL;
	}
	pthread_mutex_unlock(&arena->shelf_lock);
	if (created)
		destroy(arena, created);
	return shelf;
}

bool xl_shelf_put(struct xalloc_arena *arena, struct xl_shelf *shelf, struct xalloc_range *run)
{
	bool is_dissolved, is_empty;

	pthread_mutex_lock(&arena->shelf_lock);
	is_dissolved = shelf->is_dissolved;
	if (!shelf->free && !is_dissolved)
		xl_list_add_head(&arena->shelves, &shelf->link);
	shelf->free |= mask_of(run->offset % XL_SEGMENT / XL_SLICE, run->bytes / XL_SLICE);
	is_empty = shelf->free == ALL;
	if (is_empty && !is_dissolved)
		xl_list_del(&shelf->link);
	pthread_mutex_unlock(&arena->shelf_lock);
	if (is_empty && !is_dissolved) {
		run->offset = shelf->offset;
		run->bytes = XL_SEGMENT;
	}
	if (is_empty)
		xl_meta_put(XL_POOL_SHELF, shelf);
	return is_empty || is_dissolved;
}

/* Dissolves a shelf. Returns the mask of what is free, and may be given back at once, or 0. */
static uint32_t dissolve(struct xalloc_arena *arena, uint64_t *offset)
{
	struct xl_shelf *shelf;
	uint32_t free = 0;

	pthread_mutex_lock(&arena->shelf_lock);
	if (!xl_list_empty(&arena->shelves)) {
		shelf = xl_entry(arena->shelves.next, struct xl_shelf, link);
		xl_list_del(&shelf->link);
		shelf->is_dissolved = true;
		free = shelf->free;
		*offset = shelf->offset;
	}
	pthread_mutex_unlock(&arena->shelf_lock);
	return free;
}

void xl_shelves_trim(struct xalloc_arena *arena)
{
	/* Between two runs lies a slab at least. */
	struct xalloc_range runs[XL_SEGMENT_SLICES / 2];
	struct xl_process *p = xl_process_peek();
	uint32_t free, first, nr, nr_runs;
	uint64_t offset;

	/* The kernel frees no part of what a dma-buf holds. */
	if (!arena->segments || atomic_load_explicit(&arena->has_exports, memory_order_relaxed))
		return;
	xl_flight_begin(p);
	while ((free = dissolve(arena, &offset))) {
		for (nr_runs = 0; free; free &= ~mask_of(first, nr)) {
			first = __builtin_ctz(free);
			nr = __builtin_ctz(~(free >> first));
			runs[nr_runs++] = (struct xalloc_range){
				.offset = offset + first * XL_SLICE,
				.bytes = nr * XL_SLICE,
			};
		}
		xl_runs_free(arena, runs, nr_runs);
	}
	xl_flight_end(p);
}
