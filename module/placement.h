/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Placement: which slices of an arena's offset space are free.
 *
 * Plain C, one source for the module and for user space: no memory of the arena is
 * touched, nothing is allocated, nothing sleeps, and the caller does the locking.
 * A slice is named by its number from the start of the arena; segment s holds the
 * slices s * 32 to s * 32 + 31.
 *
 * Each slice is free or taken. Runs of up to 32 slices are found by queues: every
 * segment with a free slice is on exactly one queue,
 *
 *	queue 1 to 31	some slices taken, the longest free run is that long
 *	WHOLE		all 32 free, and the segment has memory
 *	BARE		all 32 free, and the segment has none
 *
 * and a segment without a free slice is on none. A bitmap names the queues that are
 * not empty, so the tightest fit is one bit search away and costs the same for any
 * number of segments. Only free slices count: a segment may hold any mix of pages,
 * and none of them is assumed to own it.
 *
 * Runs that cross segments are found by a binary tree over the segments. A node knows
 * of the span below it how many slices are free at its left end, at its right end and
 * in its longest run; the lowest run that fits is found by one descent. Freed
 * neighbours need no merging: a run is what the bitmaps say.
 */
#ifndef XALLOC_PLACEMENT_H
#define XALLOC_PLACEMENT_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#endif

#define XALLOC_SLICES_PER_SEGMENT 32u

/* No slice, no segment. */
#define XALLOC_PLACEMENT_NONE (~0u)

/* Most segments in one placement: slice numbers fit 32 bits, the table an int of bytes. */
#define XALLOC_PLACEMENT_SEGMENTS_MAX (1u << 25)

enum xalloc_placement_queue {
	XALLOC_QUEUE_NONE = 0,
	/* 1 to 31: longest free run of a partly used segment */
	XALLOC_QUEUE_WHOLE = 32,
	XALLOC_QUEUE_BARE = 33,
	XALLOC_NR_QUEUES = 34,
};

struct xalloc_placement_segment {
	uint32_t free;	/* bit n: slice n is free */
	uint32_t prev;	/* neighbours on the queue, circular */
	uint32_t next;
	uint8_t queue;	/* enum xalloc_placement_queue */
	bool backed;	/* has memory, says the caller */
};

/* Free slices below a node of the tree. */
struct xalloc_placement_span {
	uint32_t left;
	uint32_t right;
	uint32_t longest;
};

struct xalloc_placement {
	uint32_t nr_segments;
	uint32_t nr_leaves;		/* nr_segments rounded up to a power of two */
	uint32_t nr_free_slices;
	uint64_t queues;		/* bit q: queue q is not empty */
	uint32_t head[XALLOC_NR_QUEUES];
	struct xalloc_placement_segment *segment;
	struct xalloc_placement_span *span;	/* 1 is the root, n has 2n and 2n + 1 */
};

size_t xalloc_placement_table_bytes(uint32_t nr_segments);
void xalloc_placement_init(struct xalloc_placement *pl, uint32_t nr_segments, void *table);
uint32_t xalloc_placement_take(struct xalloc_placement *pl, uint32_t nr_slices, bool contig);
uint32_t xalloc_placement_take_frugal(struct xalloc_placement *pl, uint32_t nr_slices, bool contig);
bool xalloc_placement_give(struct xalloc_placement *pl, uint32_t slice, uint32_t nr_slices);
void xalloc_placement_set_backed(struct xalloc_placement *pl, uint32_t segment, bool backed);
bool xalloc_placement_is_valid(const struct xalloc_placement *pl);

/* No slice of @segment is taken. */
static inline bool xalloc_placement_is_whole(const struct xalloc_placement *pl, uint32_t segment)
{
	return pl->segment[segment].free == ~0u;
}

/* Bits of the slices of @segment that lie in the run of @nr_slices from @slice. */
static inline uint32_t xalloc_placement_mask(uint32_t segment, uint32_t slice, uint32_t nr_slices)
{
	uint64_t base = (uint64_t)segment * XALLOC_SLICES_PER_SEGMENT;
	uint64_t end = (uint64_t)slice + nr_slices;
	uint32_t from, to;

	if (end <= base || slice >= base + XALLOC_SLICES_PER_SEGMENT)
		return 0;
	from = slice > base ? (uint32_t)(slice - base) : 0;
	to = end < base + XALLOC_SLICES_PER_SEGMENT ? (uint32_t)(end - base) :
						      XALLOC_SLICES_PER_SEGMENT;
	return (uint32_t)(((1ull << to) - 1) & ~((1ull << from) - 1));
}

#endif /* XALLOC_PLACEMENT_H */
