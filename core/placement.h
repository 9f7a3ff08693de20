/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Placement: which slices of an arena's offset space are free.
 *
 * Plain C, one source for the module and for user space. It never touches memory of the
 * arena, sleeps only to allocate tables, and leaves the locking to the caller.
 * A slice is named by its number from the start of the arena; segment s holds the
 * slices s * 32 to s * 32 + 31.
 *
 * Records. A segment has one unless it is bare, whole and not fenced: what nobody uses
 * costs nothing. Records are the leaves of a binary tree over the segment numbers; a
 * node exists while there is a record below it. What is missing is free and bare.
 *
 *	free	slices that can be taken, a bitmap
 *	lost	slices that are neither free nor taken: those of a fenced segment
 *	backing	what memory it has, as the caller said. A segment with a record and
 *		without memory has slices that were just taken, and gets memory next
 *
 * Queues. A segment with a free slice is on the queue of its kind (order-4 pieces, or
 * all else) and of its longest free run, which is 32 for a whole one; a segment without
 * one is on none. A bitmap names the queues that are not empty, so the tightest fit is
 * one bit search away, for any number of segments. Only free slices count: a segment may
 * hold any mix of pages, and none of them is assumed to own it.
 *
 * Spans. A node knows how many slices are free at the left end, at the right end and in
 * the longest run of what lies below it. Runs across segments are found by one descent.
 * Freed neighbours need no merging: a run is what the bitmaps say.
 *
 * What is proved by xalloc_placement_is_valid():
 *
 *	free & lost == 0, and lost == 0 unless the segment is fenced, when free == 0
 *	each record is that of a segment that needs one
 *	a segment is on the queue that its bitmap and its backing say, and on no other
 *	a queue is a ring whose links lead back, and its bit is set while it has a head
 *	each node has something below it, and its span and its counts are those of its halves
 *	nr_free_slices, nr_fenced, nr_records and table_bytes are what is counted anew
 *
 * What take and give rely on is checked where it is used, in constant time: that a segment
 * is on the queue that its bitmap says and its neighbours link back, and that a run which
 * the tree promised is free. Where that fails the segment is fenced and all that follows
 * from bitmaps is computed anew, in proportion to the records; the call goes on elsewhere.
 *
 * Costs, with n segments in the arena and r records:
 *
 *	take, up to 32 slices	O(1) to find on queues, O(log n) to find a bare segment and to
 *				carry the change up the tree
 *	take, across segments	O(log n), and O(log n) for each segment of the run
 *	take, aligned		the same, and O(r) before it fails for want of alignment
 *	take, frugal		O(r log n)
 *	give, set_backing	O(log n), for each segment of the run
 *	memory			at most a record and log2(n) nodes for a segment that has one:
 *				1040 bytes in the largest arena, 0.05 % of a segment; 80 where
 *				all of its neighbours have one too
 */
#ifndef XALLOC_PLACEMENT_H
#define XALLOC_PLACEMENT_H

#ifdef __KERNEL__
#include <linux/errno.h>
#include <linux/types.h>
#else
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#endif

#define XALLOC_SLICES_PER_SEGMENT 32u

/* No slice, no segment. */
#define XALLOC_PLACEMENT_NONE (~0u)

/* Most segments in one placement: 2^30 slices, so that the sum of two such numbers fits. */
#define XALLOC_PLACEMENT_SEGMENTS_MAX (1u << 25)

enum xalloc_placement_backing {
	XALLOC_BACKING_BARE,	/* no memory */
	XALLOC_BACKING_HUGE,	/* one order-9 folio */
	XALLOC_BACKING_PIECES,	/* order-4 folios */
};

/* A queue is for one kind and one longest run; those of pieces come after the others. */
enum xalloc_placement_queue {
	XALLOC_QUEUE_NONE = 0,
	XALLOC_QUEUE_WHOLE = 32,
	XALLOC_QUEUE_PIECES = 32,	/* added to the longest run */
	XALLOC_NR_QUEUES = 65,
};

/**
 * struct xalloc_placement_request - a run that is wanted
 * @nr_slices: its length, at least 1
 * @align_slices: its first slice is a multiple of this, a power of two; 0 or 1: any
 * @contig: it must lie inside one segment that has, or gets, an order-9 folio
 */
struct xalloc_placement_request {
	uint32_t nr_slices;
	uint32_t align_slices;
	bool contig;
};

struct xalloc_placement_node;

/* Record of a segment. */
struct xalloc_placement_segment {
	struct xalloc_placement_node *parent;
	struct xalloc_placement_segment *prev;	/* neighbours on the queue, circular */
	struct xalloc_placement_segment *next;
	uint32_t index;		/* number of the segment */
	uint32_t free;		/* bit n: slice n is free */
	uint32_t lost;		/* bit n: slice n is neither free nor taken */
	uint8_t queue;		/* enum xalloc_placement_queue */
	uint8_t backing;	/* enum xalloc_placement_backing */
	bool fenced;
};

/*
 * The children of a node of level 1 are segments, those of a higher node are nodes. An arena of one
 * segment has no node: its root is the segment.
 */
union xalloc_placement_child {
	struct xalloc_placement_node *node;
	struct xalloc_placement_segment *segment;
};

/* Free slices of a block, up to the end of the arena if that is inside of the block. */
struct xalloc_placement_span {
	uint32_t left;
	uint32_t right;
	uint32_t longest;
};

/* A block of 2^level segments, which begins at a multiple of 2^level. */
struct xalloc_placement_node {
	struct xalloc_placement_node *parent;
	union xalloc_placement_child child[2];
	struct xalloc_placement_span span;
	uint32_t nr_records;
};

struct xalloc_placement {
	uint32_t nr_segments;
	uint32_t nr_levels;		/* of nodes: the root is of this level */
	uint32_t nr_free_slices;
	uint32_t nr_records;
	uint32_t nr_fenced;
	size_t table_bytes;
	uint64_t queues;		/* bit q - 1: queue q is not empty */
	struct xalloc_placement_segment *head[XALLOC_NR_QUEUES];
	union xalloc_placement_child root;
};

/* The program that placement is built into supplies both. The memory is zeroed; NULL: none. */
void *xalloc_placement_alloc(size_t bytes);
void xalloc_placement_free(void *table);

void xalloc_placement_init(struct xalloc_placement *pl, uint32_t nr_segments);
void xalloc_placement_fini(struct xalloc_placement *pl);
int xalloc_placement_take(struct xalloc_placement *pl,
			  const struct xalloc_placement_request *request, uint32_t *slice);
int xalloc_placement_take_frugal(struct xalloc_placement *pl,
				 const struct xalloc_placement_request *request, uint32_t *slice);
int xalloc_placement_take_at(struct xalloc_placement *pl, uint32_t slice, uint32_t nr_slices);
int xalloc_placement_give(struct xalloc_placement *pl, uint32_t slice, uint32_t nr_slices);
int xalloc_placement_set_backing(struct xalloc_placement *pl, uint32_t segment,
				 enum xalloc_placement_backing backing);
void xalloc_placement_fence(struct xalloc_placement *pl, uint32_t segment);
const struct xalloc_placement_segment *
xalloc_placement_segment(const struct xalloc_placement *pl, uint32_t segment);
uint32_t xalloc_placement_next_record(const struct xalloc_placement *pl, uint32_t segment);
uint32_t xalloc_placement_find_bare(const struct xalloc_placement *pl);
enum xalloc_placement_backing xalloc_placement_backing(const struct xalloc_placement *pl,
						       uint32_t segment);
bool xalloc_placement_is_whole(const struct xalloc_placement *pl, uint32_t segment);
uint32_t xalloc_placement_free_mask(const struct xalloc_placement *pl, uint32_t segment);
bool xalloc_placement_is_free(const struct xalloc_placement *pl, uint32_t slice,
			      uint32_t nr_slices);
bool xalloc_placement_is_valid(const struct xalloc_placement *pl);
size_t xalloc_placement_table_bytes(const struct xalloc_placement *pl);

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
