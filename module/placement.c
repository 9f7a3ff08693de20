// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include "placement.h"

#ifdef __KERNEL__
#include "internal.h"
#else
#define EXPORT_SYMBOL_IF_KUNIT(...)
#endif

#define NONE XALLOC_PLACEMENT_NONE
#define PER_SEGMENT XALLOC_SLICES_PER_SEGMENT
#define ALL_FREE (~0u)

static uint32_t round_up_pow2(uint32_t n)
{
	return n <= 1 ? 1 : 1u << (32 - __builtin_clz(n - 1));
}

static uint32_t low_run(uint32_t free)
{
	return free == ALL_FREE ? PER_SEGMENT : (uint32_t)__builtin_ctz(~free);
}

static uint32_t high_run(uint32_t free)
{
	return free == ALL_FREE ? PER_SEGMENT : (uint32_t)__builtin_clz(~free);
}

/* Each step shortens every run by one, so the longest one dies last. */
static uint32_t longest_run(uint32_t free)
{
	uint32_t n = 0;

	for (; free; free &= free >> 1)
		n++;
	return n;
}

/* Lowest start of @nr free slices in a row; @nr is 1 to 32. NONE if there is none. */
static uint32_t find_run(uint32_t free, uint32_t nr)
{
	uint32_t have = 1;

	/* Invariant: bit n of free is set if slices n to n + have - 1 are free. */
	while (have < nr) {
		uint32_t step = nr - have < have ? nr - have : have;

		free &= free >> step;
		have += step;
	}
	return free ? (uint32_t)__builtin_ctz(free) : NONE;
}

static void queue_del(struct xalloc_placement *pl, uint32_t s)
{
	struct xalloc_placement_segment *seg = &pl->segment[s];

	if (seg->queue == XALLOC_QUEUE_NONE)
		return;
	if (seg->next == s) {
		pl->head[seg->queue] = NONE;
		pl->queues &= ~(1ull << seg->queue);
	} else {
		pl->segment[seg->prev].next = seg->next;
		pl->segment[seg->next].prev = seg->prev;
		if (pl->head[seg->queue] == s)
			pl->head[seg->queue] = seg->next;
	}
	seg->queue = XALLOC_QUEUE_NONE;
}

/* At the tail, so that untouched segments are taken from the low end of the arena. */
static void queue_add(struct xalloc_placement *pl, uint32_t s, uint32_t queue)
{
	struct xalloc_placement_segment *seg = &pl->segment[s];
	uint32_t head = pl->head[queue];

	if (head == NONE) {
		seg->prev = s;
		seg->next = s;
		pl->head[queue] = s;
		pl->queues |= 1ull << queue;
	} else {
		seg->next = head;
		seg->prev = pl->segment[head].prev;
		pl->segment[seg->prev].next = s;
		pl->segment[head].prev = s;
	}
	seg->queue = (uint8_t)queue;
}

static uint32_t queue_of(const struct xalloc_placement_segment *seg)
{
	if (seg->free == ALL_FREE)
		return seg->backed ? XALLOC_QUEUE_WHOLE : XALLOC_QUEUE_BARE;
	return longest_run(seg->free);
}

static struct xalloc_placement_span leaf_span(uint32_t free)
{
	struct xalloc_placement_span span = { low_run(free), high_run(free), longest_run(free) };

	return span;
}

/* @slices: length of each of the two halves. */
static struct xalloc_placement_span join_spans(const struct xalloc_placement_span *a,
					       const struct xalloc_placement_span *b,
					       uint32_t slices)
{
	struct xalloc_placement_span span;

	span.left = a->left == slices ? slices + b->left : a->left;
	span.right = b->right == slices ? slices + a->right : b->right;
	span.longest = a->longest > b->longest ? a->longest : b->longest;
	if (a->right + b->left > span.longest)
		span.longest = a->right + b->left;
	return span;
}

static bool spans_equal(const struct xalloc_placement_span *a,
			const struct xalloc_placement_span *b)
{
	return a->left == b->left && a->right == b->right && a->longest == b->longest;
}

/* Carry a change of segment @s up the tree, as far as it is seen. */
static void update_spans(struct xalloc_placement *pl, uint32_t s)
{
	uint32_t node = pl->nr_leaves + s, slices = PER_SEGMENT;
	struct xalloc_placement_span span = leaf_span(pl->segment[s].free);

	while (!spans_equal(&pl->span[node], &span)) {
		pl->span[node] = span;
		node /= 2;
		if (!node)
			break;
		span = join_spans(&pl->span[2 * node], &pl->span[2 * node + 1], slices);
		slices *= 2;
	}
}

static void set_free(struct xalloc_placement *pl, uint32_t s, uint32_t free)
{
	struct xalloc_placement_segment *seg = &pl->segment[s];
	uint32_t queue;

	seg->free = free;
	queue = queue_of(seg);
	if (queue != seg->queue) {
		queue_del(pl, s);
		if (queue != XALLOC_QUEUE_NONE)
			queue_add(pl, s, queue);
	}
	update_spans(pl, s);
}

static void take_run(struct xalloc_placement *pl, uint32_t slice, uint32_t nr)
{
	uint32_t s;

	for (s = slice / PER_SEGMENT; s <= (slice + nr - 1) / PER_SEGMENT; s++)
		set_free(pl, s, pl->segment[s].free & ~xalloc_placement_mask(s, slice, nr));
	pl->nr_free_slices -= nr;
}

/* Lowest run of @nr free slices anywhere, across segments where it must. */
static uint32_t find_across(const struct xalloc_placement *pl, uint32_t nr)
{
	uint32_t node = 1, first = 0, slices = pl->nr_leaves * PER_SEGMENT;

	if (pl->span[1].longest < nr)
		return NONE;
	while (node < pl->nr_leaves) {
		const struct xalloc_placement_span *a = &pl->span[2 * node];
		const struct xalloc_placement_span *b = &pl->span[2 * node + 1];

		slices /= 2;
		node = 2 * node;
		if (a->longest >= nr)
			continue;
		if (a->right + b->left >= nr)
			return first + slices - a->right;
		node++;
		first += slices;
	}
	return first + find_run(pl->segment[node - pl->nr_leaves].free, nr);
}

/* The tightest fit inside one segment, one that has memory before one that has none. */
static uint32_t find_inside(const struct xalloc_placement *pl, uint32_t nr)
{
	uint64_t queues = pl->queues & ~((1ull << nr) - 1);
	uint32_t s;

	if (!queues)
		return NONE;
	s = pl->head[__builtin_ctzll(queues)];
	return s * PER_SEGMENT + find_run(pl->segment[s].free, nr);
}

/*
 * The run of @nr free slices that lies over the fewest segments without memory, the
 * lowest such run. In proportion to the number of segments.
 *
 * A run that leaves its first segment does best to begin where that segment's free end
 * begins: that moves its own end as far down as it goes. So each segment is the first
 * one of at most two candidates, and going down, both how far the free slices above it
 * reach and how many segments there have no memory are known from the step before.
 */
static uint32_t find_frugal(const struct xalloc_placement *pl, uint32_t nr, bool contig)
{
	/* Segments above the first that every run of nr slices reaches; some reach one more. */
	const uint32_t above = (nr - 1) / PER_SEGMENT;
	uint32_t fewest = NONE, best = NONE, s;
	uint32_t nr_bare = 0;	/* segments without memory from s + 1 to s + above */
	uint64_t reach = 0;	/* free slices in a row from the start of segment s + 1 */

	for (s = pl->nr_segments; s-- > 0;) {
		const struct xalloc_placement_segment *seg = &pl->segment[s];
		uint32_t high = high_run(seg->free), bare = !seg->backed + nr_bare;

		if (nr <= PER_SEGMENT && find_run(seg->free, nr) != NONE) {
			if ((uint32_t)!seg->backed <= fewest) {
				fewest = !seg->backed;
				best = s * PER_SEGMENT + find_run(seg->free, nr);
			}
		} else if (!contig && high && high < nr && high + reach >= nr) {
			if (high + above * PER_SEGMENT < nr)
				bare += !pl->segment[s + above + 1].backed;
			if (bare <= fewest) {
				fewest = bare;
				best = (s + 1) * PER_SEGMENT - high;
			}
		}
		reach = seg->free == ALL_FREE ? PER_SEGMENT + reach : low_run(seg->free);
		nr_bare += !seg->backed;
		if (s + above < pl->nr_segments)
			nr_bare -= !pl->segment[s + above].backed;
	}
	return best;
}

/**
 * xalloc_placement_table_bytes() - size of the table that a placement works on
 * @nr_segments: 1 to XALLOC_PLACEMENT_SEGMENTS_MAX
 *
 * Return: bytes that the caller hands to xalloc_placement_init(), 8-byte aligned.
 */
size_t xalloc_placement_table_bytes(uint32_t nr_segments)
{
	return nr_segments * sizeof(struct xalloc_placement_segment) +
	       2 * (size_t)round_up_pow2(nr_segments) * sizeof(struct xalloc_placement_span);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_table_bytes);

/**
 * xalloc_placement_init() - start with every slice free and no segment backed
 * @pl: the placement
 * @nr_segments: 1 to XALLOC_PLACEMENT_SEGMENTS_MAX
 * @table: xalloc_placement_table_bytes() of zeroed memory; stays the caller's
 */
void xalloc_placement_init(struct xalloc_placement *pl, uint32_t nr_segments, void *table)
{
	uint32_t node, q, s, slices = PER_SEGMENT;

	pl->nr_segments = nr_segments;
	pl->nr_leaves = round_up_pow2(nr_segments);
	pl->nr_free_slices = nr_segments * PER_SEGMENT;
	pl->queues = 0;
	for (q = 0; q < XALLOC_NR_QUEUES; q++)
		pl->head[q] = NONE;
	pl->segment = table;
	pl->span = (void *)(pl->segment + nr_segments);

	for (s = 0; s < nr_segments; s++) {
		pl->segment[s].free = ALL_FREE;
		queue_add(pl, s, XALLOC_QUEUE_BARE);
		pl->span[pl->nr_leaves + s] = leaf_span(ALL_FREE);
	}
	/* Leaves past the last segment stay zero: nothing is free there. */
	for (node = pl->nr_leaves - 1; node; node--) {
		pl->span[node] = join_spans(&pl->span[2 * node], &pl->span[2 * node + 1], slices);
		if ((node & (node - 1)) == 0)
			slices *= 2;
	}
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_init);

/**
 * xalloc_placement_take() - take a run of free slices
 * @pl: the placement
 * @nr_slices: length of the run, at least 1
 * @contig: the run must lie inside one segment
 *
 * Up to 32 slices come from the segment whose longest free run is the tightest fit,
 * and cross segments only where no single one has them. Longer runs take the lowest
 * offset where they fit and may start at any slice.
 *
 * Return: the first slice of the run, or XALLOC_PLACEMENT_NONE with nothing changed.
 */
uint32_t xalloc_placement_take(struct xalloc_placement *pl, uint32_t nr_slices, bool contig)
{
	uint32_t slice = NONE;

	if (nr_slices <= PER_SEGMENT)
		slice = find_inside(pl, nr_slices);
	if (slice == NONE && !contig)
		slice = find_across(pl, nr_slices);
	if (slice != NONE)
		take_run(pl, slice, nr_slices);
	return slice;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_take);

/**
 * xalloc_placement_take_frugal() - take a run that needs as little new memory as any
 * @pl: the placement
 * @nr_slices: length of the run, at least 1
 * @contig: the run must lie inside one segment
 *
 * For when memory for the run of xalloc_placement_take() could not be had. Looks at
 * every segment.
 *
 * Return: as xalloc_placement_take().
 */
uint32_t xalloc_placement_take_frugal(struct xalloc_placement *pl, uint32_t nr_slices, bool contig)
{
	uint32_t slice = find_frugal(pl, nr_slices, contig);

	if (slice != NONE)
		take_run(pl, slice, nr_slices);
	return slice;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_take_frugal);

/**
 * xalloc_placement_give() - give a run of taken slices back
 * @pl: the placement
 * @slice: first slice of the run
 * @nr_slices: length of the run, at least 1
 *
 * The run need not be one that was taken at once.
 *
 * Return: false, with nothing changed, if part of the run is free or does not exist:
 * the caller's records contradict the placement.
 */
bool xalloc_placement_give(struct xalloc_placement *pl, uint32_t slice, uint32_t nr_slices)
{
	uint64_t end = (uint64_t)slice + nr_slices;
	uint32_t s, first, last;

	if (!nr_slices || end > (uint64_t)pl->nr_segments * PER_SEGMENT)
		return false;
	first = slice / PER_SEGMENT;
	last = (uint32_t)(end - 1) / PER_SEGMENT;
	for (s = first; s <= last; s++)
		if (pl->segment[s].free & xalloc_placement_mask(s, slice, nr_slices))
			return false;
	for (s = first; s <= last; s++)
		set_free(pl, s, pl->segment[s].free | xalloc_placement_mask(s, slice, nr_slices));
	pl->nr_free_slices += nr_slices;
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_give);

/**
 * xalloc_placement_set_backed() - note that a segment has memory now, or has none
 * @pl: the placement
 * @segment: the segment
 * @backed: it has memory
 *
 * Only steers which segment is taken from next.
 */
void xalloc_placement_set_backed(struct xalloc_placement *pl, uint32_t segment, bool backed)
{
	pl->segment[segment].backed = backed;
	set_free(pl, segment, pl->segment[segment].free);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_set_backed);

static bool queues_are_valid(const struct xalloc_placement *pl, uint32_t nr_queued)
{
	uint32_t q;

	if (pl->queues >> XALLOC_NR_QUEUES)
		return false;
	for (q = 0; q < XALLOC_NR_QUEUES; q++) {
		bool used = pl->queues >> q & 1;
		uint32_t head = pl->head[q], s = head;

		if (!used && head == NONE)
			continue;
		if (!used || head >= pl->nr_segments)
			return false;
		do {
			const struct xalloc_placement_segment *seg = &pl->segment[s];

			if (seg->queue != q || seg->next >= pl->nr_segments || !nr_queued ||
			    pl->segment[seg->next].prev != s)
				return false;
			nr_queued--;
			s = seg->next;
		} while (s != head);
	}
	return nr_queued == 0;
}

/**
 * xalloc_placement_is_valid() - prove what the head of this file claims
 * @pl: the placement
 *
 * Counts every segment, queue and node anew, so it costs time in proportion to the
 * arena. For tests and for the debug build.
 *
 * Return: true if bitmaps, queues, tree and counts agree.
 */
bool xalloc_placement_is_valid(const struct xalloc_placement *pl)
{
	uint32_t s, node, free, nr_queued = 0, nr_free = 0, slices = PER_SEGMENT;

	for (s = 0; s < pl->nr_segments; s++) {
		const struct xalloc_placement_segment *seg = &pl->segment[s];
		struct xalloc_placement_span span = leaf_span(seg->free);

		if (seg->queue != queue_of(seg))
			return false;
		if (!spans_equal(&pl->span[pl->nr_leaves + s], &span))
			return false;
		nr_queued += seg->queue != XALLOC_QUEUE_NONE;
		for (free = seg->free; free; free &= free - 1)
			nr_free++;
	}
	if (nr_free != pl->nr_free_slices)
		return false;
	for (node = pl->nr_leaves - 1; node; node--) {
		struct xalloc_placement_span span =
			join_spans(&pl->span[2 * node], &pl->span[2 * node + 1], slices);

		if (!spans_equal(&pl->span[node], &span))
			return false;
		if ((node & (node - 1)) == 0)
			slices *= 2;
	}
	return queues_are_valid(pl, nr_queued);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_is_valid);
