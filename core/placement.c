// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The calls of placement.h: queues, taking and giving, and the validator.
 *
 * placement.h has the words and the invariants. This file keeps those of queues:
 *
 *	when a call returns, each record is on the queue that queue_of() computes from it
 *	a record for which needs_record() is false is dropped before the call returns
 *
 * So every change of a bitmap or a backing is followed by requeue(), and a change of a bitmap
 * also by xalloc_tree_update_spans(). rebuild() computes all queues and spans anew instead.
 *
 * A call checks everything before it changes a bitmap:
 *
 *	take	get_records() makes all records of the run and checks the bitmaps, so that
 *		take_run() cannot fail
 *	give	the whole run must be taken before the first slice becomes free
 *
 * A segment for which is_sound() is false is not used: mend() fences it and rebuilds the rest.
 * The call goes on, and may find segments fenced that it comes to later.
 */
#include "placement_tree.h"

#define WHOLE_HUGE (1ull << (XALLOC_QUEUE_WHOLE - 1))
#define PARTLY_HUGE (WHOLE_HUGE - 1)
#define WHOLE_PIECES (WHOLE_HUGE << XALLOC_QUEUE_PIECES)
#define PARTLY_PIECES (PARTLY_HUGE << XALLOC_QUEUE_PIECES)

/* How many segments of a queue are tried for an aligned run, before the next queue. */
#define NR_PROBES 4

#define NR_SORTS 4

/* --- queues */

static uint32_t queue_of(const struct xalloc_placement_segment *seg)
{
	if (!seg->free || !needs_record(seg))
		return XALLOC_QUEUE_NONE;
	return longest_run(seg->free) +
	       (seg->backing == XALLOC_BACKING_PIECES ? XALLOC_QUEUE_PIECES : 0);
}

static bool links_lead_back(const struct xalloc_placement *pl,
			    const struct xalloc_placement_segment *seg)
{
	return seg->next && seg->prev && seg->next->prev == seg && seg->prev->next == seg &&
	       (seg->next != seg || pl->head[seg->queue] == seg);
}

/*
 * Whether @seg says that it is on the queue where it belongs, and its neighbours there link back.
 * Asked before a segment is taken from or changed.
 */
static bool is_sound(const struct xalloc_placement *pl, const struct xalloc_placement_segment *seg)
{
	return seg->queue == queue_of(seg) &&
	       (seg->queue == XALLOC_QUEUE_NONE || links_lead_back(pl, seg));
}

static void queue_del(struct xalloc_placement *pl, struct xalloc_placement_segment *seg)
{
	if (seg->next == seg) {
		pl->head[seg->queue] = NULL;
		pl->queues &= ~(1ull << (seg->queue - 1));
	} else {
		seg->prev->next = seg->next;
		seg->next->prev = seg->prev;
		if (pl->head[seg->queue] == seg)
			pl->head[seg->queue] = seg->next;
	}
	seg->queue = XALLOC_QUEUE_NONE;
}

static void queue_add(struct xalloc_placement *pl, struct xalloc_placement_segment *seg,
		      uint32_t queue)
{
	struct xalloc_placement_segment *head = pl->head[queue];

	if (!head) {
		seg->prev = seg;
		seg->next = seg;
		pl->head[queue] = seg;
		pl->queues |= 1ull << (queue - 1);
	} else {
		seg->next = head;
		seg->prev = head->prev;
		seg->prev->next = seg;
		head->prev = seg;
	}
	seg->queue = (uint8_t)queue;
}

/* Compute anew all that follows from bitmaps and backings: queues, spans, free slices. */
static void rebuild(struct xalloc_placement *pl)
{
	struct xalloc_placement_segment *seg;
	struct cursor cur;
	uint32_t queue;
	bool more;

	pl->queues = 0;
	for (queue = 0; queue < XALLOC_NR_QUEUES; queue++)
		pl->head[queue] = NULL;
	pl->nr_free_slices = (pl->nr_segments - pl->nr_records) * PER_SEGMENT;
	cursor_init(&cur, pl);
	for (more = true; more && (seg = cursor_record(&cur, pl)); more = cursor_skip(&cur, pl)) {
		pl->nr_free_slices += count_bits(seg->free);
		xalloc_tree_update_spans(pl, seg, true);
		seg->queue = XALLOC_QUEUE_NONE;
		queue = queue_of(seg);
		if (queue != XALLOC_QUEUE_NONE)
			queue_add(pl, seg, queue);
	}
}

static void fence(struct xalloc_placement *pl, struct xalloc_placement_segment *seg)
{
	if (seg->fenced)
		return;
	seg->fenced = true;
	pl->nr_fenced++;
	seg->lost = seg->free;
	seg->free = 0;
}

/* Fence the corrupt @seg (NULL: a queue marked non-empty was empty), then rebuild the rest. */
static void mend(struct xalloc_placement *pl, struct xalloc_placement_segment *seg)
{
	if (seg)
		fence(pl, seg);
	rebuild(pl);
}

/*
 * Move @seg, which was sound before it changed, to the queue where it belongs now. If the head of
 * that queue is corrupt, rebuild() puts @seg there.
 */
static void requeue(struct xalloc_placement *pl, struct xalloc_placement_segment *seg)
{
	uint32_t queue = queue_of(seg);
	struct xalloc_placement_segment *head = pl->head[queue];

	if (queue == seg->queue)
		return;
	if (queue != XALLOC_QUEUE_NONE && head &&
	    (head->queue != queue || !links_lead_back(pl, head))) {
		mend(pl, head);
		return;
	}
	if (seg->queue != XALLOC_QUEUE_NONE)
		queue_del(pl, seg);
	if (queue != XALLOC_QUEUE_NONE)
		queue_add(pl, seg, queue);
}

/* @seg is sound and not fenced. */
static void set_free(struct xalloc_placement *pl, struct xalloc_placement_segment *seg,
		     uint32_t free)
{
	pl->nr_free_slices += count_bits(free) - count_bits(seg->free);
	seg->free = free;
	requeue(pl, seg);
	xalloc_tree_update_spans(pl, seg, false);
	if (!needs_record(seg))
		xalloc_tree_drop_record(pl, seg);
}

/*
 * Find the tightest fit. Partly used segments come before whole ones, so that the memory of whole
 * ones can go back; in each sort, segments made of pieces come last.
 *
 * Alignments are up to a segment here. A free run of nr + align - 1 slices always has an aligned
 * run of nr in it, and so has a whole segment. A shorter one may, so a few segments are tried.
 */
static uint32_t find_on_queues(struct xalloc_placement *pl,
			       const struct xalloc_placement_request *request)
{
	static const uint64_t order[NR_SORTS] = {
		PARTLY_HUGE, PARTLY_PIECES, WHOLE_HUGE, WHOLE_PIECES,
	};
	uint64_t fit = (ALL_FREE << (request->nr_slices - 1)) &
		       (uint32_t)(PARTLY_HUGE | WHOLE_HUGE);
	uint32_t i, probe, slice;

	if (!request->contig)
		fit |= fit << XALLOC_QUEUE_PIECES;
again:
	for (i = 0; i < NR_SORTS; i++) {
		uint64_t queues;

		for (queues = pl->queues & order[i] & fit; queues; queues &= queues - 1) {
			uint32_t queue = (uint32_t)__builtin_ctzll(queues) + 1;
			struct xalloc_placement_segment *seg = pl->head[queue];

			for (probe = 0; probe < NR_PROBES; probe++) {
				if (!seg || seg->queue != queue || !is_sound(pl, seg)) {
					mend(pl, seg);
					goto again;
				}
				slice = find_in_segment(request, seg->index, seg->free);
				if (slice != NONE)
					return slice;
				seg = seg->next;
				if (seg == pl->head[queue])
					break;
			}
		}
	}
	return NONE;
}

static uint32_t find_tightest(struct xalloc_placement *pl,
			      const struct xalloc_placement_request *request)
{
	uint32_t align = align_of(request), slice, bare;

	if (request->nr_slices > PER_SEGMENT)
		return xalloc_run_find_across(pl, request);
	if (align <= PER_SEGMENT) {
		slice = find_on_queues(pl, request);
		if (slice != NONE)
			return slice;
		bare = xalloc_placement_find_bare(pl);
		if (bare != NONE)
			return bare * PER_SEGMENT;
	}
	/* Without alignment, a queue had whatever fits. */
	slice = align > 1 ? xalloc_run_find_inside(pl, request, false) : NONE;
	if (slice == NONE && !request->contig)
		slice = xalloc_run_find_across(pl, request);
	return slice;
}

/* --- what others call */

/**
 * xalloc_placement_init() - start with every slice free and every segment bare
 * @pl: the placement
 * @nr_segments: 1 to XALLOC_PLACEMENT_SEGMENTS_MAX
 */
void xalloc_placement_init(struct xalloc_placement *pl, uint32_t nr_segments)
{
	uint32_t queue;

	pl->nr_segments = nr_segments;
	pl->nr_levels = 0;
	while (1u << pl->nr_levels < nr_segments)
		pl->nr_levels++;
	pl->nr_free_slices = nr_segments * PER_SEGMENT;
	pl->nr_records = 0;
	pl->nr_fenced = 0;
	pl->table_bytes = 0;
	pl->queues = 0;
	for (queue = 0; queue < XALLOC_NR_QUEUES; queue++)
		pl->head[queue] = NULL;
	pl->root.node = NULL;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_init);

/**
 * xalloc_placement_fini() - free the tables, whatever is taken
 * @pl: the placement; afterwards as xalloc_placement_init() leaves it, except for queues
 */
void xalloc_placement_fini(struct xalloc_placement *pl)
{
	struct cursor cur;

	for (;;) {
		cursor_init(&cur, pl);
		if (!cursor_record(&cur, pl))
			break;
		xalloc_tree_drop_record(pl, cur.at.segment);
	}
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_fini);

/* Drop the records that get_records() made for nothing. */
static void drop_unneeded(struct xalloc_placement *pl, uint32_t first, uint32_t last)
{
	uint32_t s;

	for (s = first; s <= last; s++) {
		struct xalloc_placement_segment *seg = find_record(pl, s);

		if (seg && !needs_record(seg))
			xalloc_tree_drop_record(pl, seg);
	}
}

/* Get a record for each segment of a run, which must be free. @last_seg: set to the last record. */
static int get_records(struct xalloc_placement *pl, uint32_t slice, uint32_t nr,
		       struct xalloc_placement_segment **last_seg)
{
	uint32_t first = slice / PER_SEGMENT, last = (slice + nr - 1) / PER_SEGMENT, s;

	for (s = first; s <= last; s++) {
		struct xalloc_placement_segment *seg = xalloc_tree_get_record(pl, s);
		int err = 0;

		*last_seg = seg;
		if (!seg)
			err = -ENOMEM;
		else if (xalloc_placement_mask(s, slice, nr) & ~seg->free || !is_sound(pl, seg))
			err = -EUCLEAN;
		if (err == -EUCLEAN)
			mend(pl, seg);
		if (err) {
			drop_unneeded(pl, first, s);
			return err;
		}
	}
	return 0;
}

static void take_run(struct xalloc_placement *pl, uint32_t slice, uint32_t nr,
		     struct xalloc_placement_segment *last_seg)
{
	uint32_t last = (slice + nr - 1) / PER_SEGMENT, s;

	for (s = slice / PER_SEGMENT; s <= last; s++) {
		struct xalloc_placement_segment *seg = s < last ? find_record(pl, s) : last_seg;
		uint32_t mask = xalloc_placement_mask(s, slice, nr);

		if (seg->fenced)	/* by mend(), for a segment of the run before this one */
			seg->lost &= ~mask;
		else
			set_free(pl, seg, seg->free & ~mask);
	}
}

static int take(struct xalloc_placement *pl, const struct xalloc_placement_request *request,
		uint32_t *slice,
		uint32_t (*find)(struct xalloc_placement *pl,
				 const struct xalloc_placement_request *request))
{
	uint32_t found, nr = request->nr_slices;
	struct xalloc_placement_segment *last;
	bool mended = false;
	int err;

	for (;;) {
		if (nr > pl->nr_free_slices || (request->contig && nr > PER_SEGMENT))
			return -ENOSPC;
		found = find(pl, request);
		if (found == NONE)
			return -ENOSPC;
		err = get_records(pl, found, nr, &last);
		if (err != -EUCLEAN || mended)
			break;
		/* mend() has computed anew what misled the search, so one more try is enough. */
		mended = true;
	}
	if (err)
		return err;
	take_run(pl, found, nr, last);
	*slice = found;
	return 0;
}

/**
 * xalloc_placement_take() - take a run of free slices
 * @pl: the placement
 * @request: what run
 * @slice: where the first slice of the run is written
 *
 * Up to 32 slices come from the segment whose longest free run is the tightest fit:
 * from a partly used one, then a whole one, then the lowest bare one, and in each sort
 * from those of pieces last. They cross segments only where no single one has them.
 * Longer runs take the lowest offset where they fit and may start at any slice; so do
 * runs aligned to more than a segment.
 *
 * Context: May sleep for memory.
 * Return: 0, or -ENOSPC, -ENOMEM with nothing changed, -EUCLEAN if the placement
 * contradicts itself beyond mending.
 */
int xalloc_placement_take(struct xalloc_placement *pl,
			  const struct xalloc_placement_request *request, uint32_t *slice)
{
	return take(pl, request, slice, find_tightest);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_take);

/**
 * xalloc_placement_take_frugal() - take a run that needs as little new memory as any
 * @pl: the placement
 * @request: what run
 * @slice: where the first slice of the run is written
 *
 * For a caller that got no memory for the run of xalloc_placement_take(). Looks at every
 * segment that has memory.
 *
 * Context: May sleep for memory.
 * Return: as xalloc_placement_take().
 */
int xalloc_placement_take_frugal(struct xalloc_placement *pl,
				 const struct xalloc_placement_request *request, uint32_t *slice)
{
	return take(pl, request, slice, xalloc_run_find_frugal);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_take_frugal);

/**
 * xalloc_placement_take_at() - take a given run of free slices
 * @pl: the placement
 * @slice: first slice of the run
 * @nr_slices: length of the run, at least 1; it ends in the arena
 *
 * Context: May sleep for memory.
 * Return: 0, or -ENOMEM with nothing changed, -EUCLEAN if part of the run is not free: then
 * the first segment with such a part is fenced.
 */
int xalloc_placement_take_at(struct xalloc_placement *pl, uint32_t slice, uint32_t nr_slices)
{
	struct xalloc_placement_segment *last;
	int err = get_records(pl, slice, nr_slices, &last);

	if (!err)
		take_run(pl, slice, nr_slices, last);
	return err;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_take_at);

/**
 * xalloc_placement_give() - give a run of taken slices back
 * @pl: the placement
 * @slice: first slice of the run
 * @nr_slices: length of the run, at least 1
 *
 * The run need not be one that was taken at once.
 *
 * Context: Does not allocate.
 * Return: 0, or -EUCLEAN, with nothing changed, if part of the run is not taken or does
 * not exist: the caller's records contradict the placement.
 */
int xalloc_placement_give(struct xalloc_placement *pl, uint32_t slice, uint32_t nr_slices)
{
	uint64_t end = (uint64_t)slice + nr_slices;
	struct xalloc_placement_segment *seg;
	uint32_t s, first, last;

	if (!nr_slices || end > (uint64_t)pl->nr_segments * PER_SEGMENT)
		return -EUCLEAN;
	first = slice / PER_SEGMENT;
	last = (uint32_t)(end - 1) / PER_SEGMENT;
	for (s = first; s <= last; s++) {
		seg = find_record(pl, s);
		if (!seg || (seg->free | seg->lost) & xalloc_placement_mask(s, slice, nr_slices))
			return -EUCLEAN;
	}
	for (s = first; s <= last; s++) {
		uint32_t mask = xalloc_placement_mask(s, slice, nr_slices);

		if (first != last)
			seg = find_record(pl, s);
		if (!is_sound(pl, seg))
			mend(pl, seg);
		if (seg->fenced)
			seg->lost |= mask;
		else
			set_free(pl, seg, seg->free | mask);
	}
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_give);

/**
 * xalloc_placement_set_backing() - note what memory a segment has now
 * @pl: the placement
 * @segment: the segment
 * @backing: its memory; XALLOC_BACKING_BARE: it has none any more
 *
 * Context: May sleep for memory if no slice of the segment is taken and it was bare.
 * Return: 0, or -ENOMEM with nothing changed if there is no memory for the record.
 */
int xalloc_placement_set_backing(struct xalloc_placement *pl, uint32_t segment,
				 enum xalloc_placement_backing backing)
{
	struct xalloc_placement_segment *seg = find_record(pl, segment);

	if (!seg && backing == XALLOC_BACKING_BARE)
		return 0;
	if (!seg)
		seg = xalloc_tree_get_record(pl, segment);
	if (!seg)
		return -ENOMEM;
	if (!is_sound(pl, seg))
		mend(pl, seg);
	seg->backing = (uint8_t)backing;
	requeue(pl, seg);
	if (!needs_record(seg))
		xalloc_tree_drop_record(pl, seg);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_set_backing);

/**
 * xalloc_placement_fence() - take a segment out of use for good
 * @pl: the placement
 * @segment: the segment, which has memory or a taken slice
 *
 * Its free slices cannot be taken any more. Its taken slices can be given, but do not become
 * free. Computes the queues and the tree anew.
 *
 * Context: Does not allocate.
 */
void xalloc_placement_fence(struct xalloc_placement *pl, uint32_t segment)
{
	struct xalloc_placement_segment *seg = find_record(pl, segment);

	if (seg)
		mend(pl, seg);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_fence);

/**
 * xalloc_placement_segment() - the record of a segment
 * @pl: the placement
 * @segment: the segment
 *
 * Return: the record, or NULL if the segment is bare, whole and not fenced.
 */
const struct xalloc_placement_segment *
xalloc_placement_segment(const struct xalloc_placement *pl, uint32_t segment)
{
	return find_record(pl, segment);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_segment);

/**
 * xalloc_placement_next_record() - the next segment that is not both bare and whole
 * @pl: the placement
 * @segment: where to begin
 *
 * Return: the lowest such segment from @segment on, or XALLOC_PLACEMENT_NONE.
 */
uint32_t xalloc_placement_next_record(const struct xalloc_placement *pl, uint32_t segment)
{
	struct cursor cur;

	if (segment >= pl->nr_segments)
		return NONE;
	cursor_find(&cur, pl, segment);
	return cursor_record(&cur, pl) ? cur.first : NONE;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_next_record);

/**
 * xalloc_placement_find_bare() - the segment that a reserve fills next
 * @pl: the placement
 *
 * Return: the lowest segment that is whole and bare, or XALLOC_PLACEMENT_NONE.
 */
uint32_t xalloc_placement_find_bare(const struct xalloc_placement *pl)
{
	union xalloc_placement_child at = pl->root;
	uint32_t level = pl->nr_levels, first = 0;

	if (pl->nr_records == pl->nr_segments)
		return NONE;
	while (level && at.node) {
		union xalloc_placement_child left = at.node->child[0];
		uint32_t nr_left;

		level--;
		nr_left = !left.node ? 0 : level ? left.node->nr_records : 1;
		if (nr_left < nr_segments_in(pl, first, level)) {
			at = left;
		} else {
			at = at.node->child[1];
			first += 1u << level;
		}
	}
	return first;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_find_bare);

/** xalloc_placement_backing() - what memory a segment has, as it was last noted */
enum xalloc_placement_backing xalloc_placement_backing(const struct xalloc_placement *pl,
						       uint32_t segment)
{
	const struct xalloc_placement_segment *seg = find_record(pl, segment);

	return seg ? (enum xalloc_placement_backing)seg->backing : XALLOC_BACKING_BARE;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_backing);

/** xalloc_placement_is_whole() - no slice of @segment is taken */
bool xalloc_placement_is_whole(const struct xalloc_placement *pl, uint32_t segment)
{
	const struct xalloc_placement_segment *seg = find_record(pl, segment);

	return !seg || (seg->free | seg->lost) == ALL_FREE;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_is_whole);

/** xalloc_placement_free_mask() - bit n: slice n of @segment is free */
uint32_t xalloc_placement_free_mask(const struct xalloc_placement *pl, uint32_t segment)
{
	const struct xalloc_placement_segment *seg = find_record(pl, segment);

	return seg ? seg->free : ALL_FREE;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_free_mask);

/**
 * xalloc_placement_is_free() - whether all slices of a run can be taken
 * @pl: the placement
 * @slice: first slice of the run
 * @nr_slices: length of the run, at least 1; it ends in the arena
 *
 * Costs O(log n) for each segment of the run.
 *
 * Return: true if so.
 */
bool xalloc_placement_is_free(const struct xalloc_placement *pl, uint32_t slice,
			      uint32_t nr_slices)
{
	uint32_t last = (slice + nr_slices - 1) / PER_SEGMENT, s;

	for (s = slice / PER_SEGMENT; s <= last; s++)
		if (xalloc_placement_mask(s, slice, nr_slices) &
		    ~xalloc_placement_free_mask(pl, s))
			return false;
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_is_free);

/** xalloc_placement_table_bytes() - bytes that the records and the tree take now */
size_t xalloc_placement_table_bytes(const struct xalloc_placement *pl)
{
	return pl->table_bytes;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_table_bytes);

/* --- the validator */

static bool queues_are_valid(const struct xalloc_placement *pl, uint32_t nr_queued)
{
	uint32_t queue;

	if (pl->head[XALLOC_QUEUE_NONE])
		return false;
	for (queue = 1; queue < XALLOC_NR_QUEUES; queue++) {
		const struct xalloc_placement_segment *seg = pl->head[queue];

		if (!seg != !(pl->queues >> (queue - 1) & 1))
			return false;
		if (!seg)
			continue;
		do {
			if (seg->queue != queue || !seg->next || seg->next->prev != seg ||
			    !nr_queued)
				return false;
			nr_queued--;
			seg = seg->next;
		} while (seg != pl->head[queue]);
	}
	return nr_queued == 0;
}

static bool segment_is_valid(const struct xalloc_placement_segment *seg, uint32_t index)
{
	return seg->index == index && needs_record(seg) && !(seg->free & seg->lost) &&
	       !(seg->fenced ? seg->free : seg->lost) &&
	       seg->backing <= XALLOC_BACKING_PIECES && seg->queue == queue_of(seg);
}

/**
 * xalloc_placement_is_valid() - prove what the head of placement.h claims
 * @pl: the placement
 *
 * Counts every record, queue and node anew. For tests and for the debug build.
 *
 * Return: true if bitmaps, queues, tree and counts agree.
 */
bool xalloc_placement_is_valid(const struct xalloc_placement *pl)
{
	uint32_t nr_free, nr_records = 0, nr_fenced = 0, nr_queued = 0;
	size_t table_bytes = 0;
	struct cursor cur;

	if (!pl->nr_segments || pl->nr_segments > XALLOC_PLACEMENT_SEGMENTS_MAX ||
	    pl->nr_segments > 1u << pl->nr_levels || pl->nr_segments <= (1u << pl->nr_levels) / 2)
		return false;
	nr_free = pl->nr_segments * PER_SEGMENT;
	cursor_init(&cur, pl);
	if (cur.at.node && (cur.level ? cur.at.node->parent : cur.at.segment->parent))
		return false;
	do {
		for (; cur.at.node && cur.level; cursor_descend(&cur)) {
			if (!xalloc_tree_node_is_valid(pl, &cur))
				return false;
			table_bytes += sizeof(*cur.at.node);
		}
		if (!cur.at.node)
			continue;
		if (!segment_is_valid(cur.at.segment, cur.first))
			return false;
		nr_free -= PER_SEGMENT - count_bits(cur.at.segment->free);
		nr_records++;
		nr_fenced += cur.at.segment->fenced;
		nr_queued += cur.at.segment->queue != XALLOC_QUEUE_NONE;
		table_bytes += sizeof(*cur.at.segment);
	} while (cursor_skip(&cur, pl));
	return nr_free == pl->nr_free_slices && nr_records == pl->nr_records &&
	       nr_fenced == pl->nr_fenced && table_bytes == pl->table_bytes &&
	       queues_are_valid(pl, nr_queued);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_placement_is_valid);
