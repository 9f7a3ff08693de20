/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the files of placement share: bitmaps of a segment, and the tree of records.
 *
 *	placement.c		queues, and what others call
 *	placement_run.c		runs found by the tree
 *	placement_tree.c	records and nodes come and go
 */
#ifndef XALLOC_PLACEMENT_TREE_H
#define XALLOC_PLACEMENT_TREE_H

#include "placement.h"

#ifdef __KERNEL__
#include <linux/export.h>
#else
#define EXPORT_SYMBOL_IF_KUNIT(...)
#endif

#define NONE XALLOC_PLACEMENT_NONE
#define PER_SEGMENT XALLOC_SLICES_PER_SEGMENT
#define ALL_FREE (~0u)

static inline uint32_t count_bits(uint32_t bits)
{
	bits -= (bits >> 1) & 0x55555555;
	bits = (bits & 0x33333333) + ((bits >> 2) & 0x33333333);
	bits = (bits + (bits >> 4)) & 0x0f0f0f0f;
	return bits * 0x01010101u >> 24;
}

static inline uint32_t low_run(uint32_t free)
{
	return free == ALL_FREE ? PER_SEGMENT : (uint32_t)__builtin_ctz(~free);
}

static inline uint32_t high_run(uint32_t free)
{
	return free == ALL_FREE ? PER_SEGMENT : (uint32_t)__builtin_clz(~free);
}

/* Each step shortens every run by one, so the longest one dies last. */
static inline uint32_t longest_run(uint32_t free)
{
	uint32_t n = 0;

	if (free == ALL_FREE)
		return PER_SEGMENT;
	for (; free; free &= free >> 1)
		n++;
	return n;
}

/* Bit n: @nr slices from n on are free; @nr is 1 to 32. */
static inline uint32_t run_starts(uint32_t free, uint32_t nr)
{
	uint32_t have = 1;

	while (have < nr) {
		uint32_t step = nr - have < have ? nr - have : have;

		free &= free >> step;
		have += step;
	}
	return free;
}

/* Bit n: slice n of @segment is a multiple of @align. */
static inline uint32_t aligned_starts(uint32_t segment, uint32_t align)
{
	static const uint32_t starts[] = { ALL_FREE,   0x55555555, 0x11111111,
					   0x01010101, 0x00010001, 0x00000001 };

	if (align <= PER_SEGMENT)
		return starts[__builtin_ctz(align)];
	return segment & (align / PER_SEGMENT - 1) ? 0 : 1;
}

static inline uint64_t align_up(uint64_t slice, uint32_t align)
{
	return (slice + align - 1) & ~(uint64_t)(align - 1);
}

static inline uint32_t align_of(const struct xalloc_placement_request *request)
{
	return request->align_slices ? request->align_slices : 1;
}

/* Lowest start in a segment whose free slices are @free. */
static inline uint32_t find_in_segment(const struct xalloc_placement_request *request,
				       uint32_t segment, uint32_t free)
{
	uint32_t starts = run_starts(free, request->nr_slices) &
			  aligned_starts(segment, align_of(request));

	return starts ? segment * PER_SEGMENT + (uint32_t)__builtin_ctz(starts) : NONE;
}

static inline uint32_t nr_segments_in(const struct xalloc_placement *pl, uint32_t first,
				      uint32_t level)
{
	uint32_t size = 1u << level;

	if (first >= pl->nr_segments)
		return 0;
	return size < pl->nr_segments - first ? size : pl->nr_segments - first;
}

/* The span of a block of @size slices, which is what a link to @level leads to. */
static inline struct xalloc_placement_span span_of(union xalloc_placement_child at, uint32_t level,
						   uint32_t size)
{
	struct xalloc_placement_span span = { size, size, size };

	if (at.node && level) {
		span = at.node->span;
	} else if (at.node) {
		span.left = low_run(at.segment->free);
		span.right = high_run(at.segment->free);
		span.longest = longest_run(at.segment->free);
	}
	return span;
}

/* A block of the tree, and what is there: a node, a record, or nothing. It never goes back. */
struct cursor {
	union xalloc_placement_child at;
	struct xalloc_placement_node *parent;
	uint32_t level;
	uint32_t first;
};

static inline void cursor_init(struct cursor *cur, const struct xalloc_placement *pl)
{
	cur->at = pl->root;
	cur->parent = NULL;
	cur->level = pl->nr_levels;
	cur->first = 0;
}

static inline void cursor_descend(struct cursor *cur)
{
	cur->parent = cur->at.node;
	cur->at = cur->parent->child[0];
	cur->level--;
}

/* Go to the largest block that begins where this one ends. False: the arena ends there. */
static inline bool cursor_skip(struct cursor *cur, const struct xalloc_placement *pl)
{
	while (cur->level < pl->nr_levels && cur->first >> cur->level & 1) {
		cur->first -= 1u << cur->level++;
		cur->parent = cur->parent->parent;
	}
	if (cur->level == pl->nr_levels)
		return false;
	cur->first += 1u << cur->level;
	cur->at = cur->parent->child[1];
	return cur->first < pl->nr_segments;
}

/* Go to the next record, from @cur on. NULL if none is left. */
static inline struct xalloc_placement_segment *
cursor_record(struct cursor *cur, const struct xalloc_placement *pl)
{
	for (;;) {
		if (cur->at.node && !cur->level)
			return cur->at.segment;
		if (cur->at.node)
			cursor_descend(cur);
		else if (!cursor_skip(cur, pl))
			return NULL;
	}
}

/* Go to the record of @segment, or to the block without a record that it is in. */
static inline void cursor_find(struct cursor *cur, const struct xalloc_placement *pl,
			       uint32_t segment)
{
	cursor_init(cur, pl);
	while (cur->level && cur->at.node) {
		uint32_t half = segment >> --cur->level & 1;

		cur->parent = cur->at.node;
		cur->at = cur->parent->child[half];
		cur->first += half << cur->level;
	}
}

static inline struct xalloc_placement_segment *
find_record(const struct xalloc_placement *pl, uint32_t segment)
{
	union xalloc_placement_child at = pl->root;
	uint32_t level = pl->nr_levels;

	while (level && at.node)
		at = at.node->child[segment >> --level & 1];
	return at.segment;
}

static inline bool needs_record(const struct xalloc_placement_segment *seg)
{
	return seg->free != ALL_FREE || seg->backing != XALLOC_BACKING_BARE || seg->fenced;
}

void xalloc_tree_update_spans(struct xalloc_placement *pl,
			      const struct xalloc_placement_segment *seg, bool all);
struct xalloc_placement_segment *xalloc_tree_get_record(struct xalloc_placement *pl,
							uint32_t segment);
void xalloc_tree_drop_record(struct xalloc_placement *pl, struct xalloc_placement_segment *seg);
bool xalloc_tree_node_is_valid(const struct xalloc_placement *pl, const struct cursor *cur);

uint32_t xalloc_run_find_inside(const struct xalloc_placement *pl,
				const struct xalloc_placement_request *request, bool recorded);
uint32_t xalloc_run_find_across(const struct xalloc_placement *pl,
				const struct xalloc_placement_request *request);
uint32_t xalloc_run_find_frugal(struct xalloc_placement *pl,
				const struct xalloc_placement_request *request);

#endif /* XALLOC_PLACEMENT_TREE_H */
