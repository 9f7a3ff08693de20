// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Searches of the tree for free runs.
 *
 * placement.h has the words and the invariants. Here:
 *
 *	a search changes nothing
 *	the blocks of the tree are visited from low to high, so the first run that fits is the
 *	lowest
 *	xalloc_run_find_inside() and next_run() enter no block in which every run is too short,
 *	as its span says
 *
 * A run is found by spans, which are wrong if the placement is damaged. So the caller looks at the
 * bitmaps before it takes the run: get_records() in placement.c.
 */
#include "placement_tree.h"

/**
 * xalloc_run_find_inside() - find the lowest run that lies inside one segment
 * @pl: the placement
 * @request: what run, of up to 32 slices
 * @recorded: only in a segment that has a record
 *
 * Return: its first slice, or XALLOC_PLACEMENT_NONE.
 */
uint32_t xalloc_run_find_inside(const struct xalloc_placement *pl,
				const struct xalloc_placement_request *request, bool recorded)
{
	uint32_t align = align_of(request), slice;
	struct cursor cur;

	cursor_init(&cur, pl);
	do {
		uint64_t first, end;

		/* Enter the block, unless no slice in it is a multiple of align. */
		while (cur.level && cur.at.node &&
		       cur.at.node->span.longest >= request->nr_slices) {
			first = align_up((uint64_t)cur.first * PER_SEGMENT, align);
			end = (cur.first + (1ull << cur.level)) * PER_SEGMENT;
			if (first >= end)
				break;
			cursor_descend(&cur);
		}
		if (!cur.at.node && !recorded) {
			first = align_up((uint64_t)cur.first * PER_SEGMENT, align);
			end = cur.first + nr_segments_in(pl, cur.first, cur.level);
			if (first < end * PER_SEGMENT)
				return (uint32_t)first;
		}
		if (cur.at.node && !cur.level &&
		    !(request->contig && cur.at.segment->backing == XALLOC_BACKING_PIECES)) {
			slice = find_in_segment(request, cur.first, cur.at.segment->free);
			if (slice != NONE)
				return slice;
		}
	} while (cursor_skip(&cur, pl));
	return NONE;
}

/*
 * The free runs of the arena from low to high, each as long as it goes. Runs that touch no end of
 * their segment are left out, because each caller has looked inside of segments before, or wants
 * more than a segment has.
 */
struct runs {
	struct cursor cur;
	uint32_t start;		/* of the run that reaches the cursor, or the end of the last run */
	bool done;
};

static void runs_init(struct runs *runs, const struct xalloc_placement *pl)
{
	cursor_init(&runs->cur, pl);
	runs->start = 0;
	runs->done = false;
}

static bool run_ends(struct runs *runs, uint32_t end, uint32_t nr, uint32_t *first)
{
	*first = runs->start;
	if (end <= *first || end - *first < nr)
		return false;
	runs->start = end;
	return true;
}

/* The next run of at least @nr slices, from *@first to before *@end. */
static bool next_run(struct runs *runs, const struct xalloc_placement *pl, uint32_t nr,
		     uint32_t *first, uint32_t *end)
{
	struct cursor *cur = &runs->cur;

	while (!runs->done) {
		uint32_t base = cur->first * PER_SEGMENT;
		uint32_t size = nr_segments_in(pl, cur->first, cur->level) * PER_SEGMENT;
		struct xalloc_placement_span span = span_of(cur->at, cur->level, size);

		if (span.left < size) {
			if (run_ends(runs, base + span.left, nr, first))
				goto found;
			if (span.longest >= nr && cur->level) {
				cursor_descend(cur);
				continue;
			}
			runs->start = base + size - span.right;
		}
		runs->done = !cursor_skip(cur, pl);
	}
	if (!run_ends(runs, pl->nr_segments * PER_SEGMENT, nr, first))
		return false;
found:
	*end = runs->start;
	return true;
}

/**
 * xalloc_run_find_across() - find the lowest run, across segments where it must
 * @pl: the placement
 * @request: what run
 *
 * Return: its first slice, or XALLOC_PLACEMENT_NONE.
 */
uint32_t xalloc_run_find_across(const struct xalloc_placement *pl,
				const struct xalloc_placement_request *request)
{
	uint32_t first, end;
	struct runs runs;

	runs_init(&runs, pl);
	while (next_run(&runs, pl, request->nr_slices, &first, &end)) {
		uint64_t slice = align_up(first, align_of(request));

		if (slice + request->nr_slices <= end)
			return (uint32_t)slice;
	}
	return NONE;
}

/* How many segments below @segment have a record. */
static uint32_t count_records_below(const struct xalloc_placement *pl, uint32_t segment)
{
	union xalloc_placement_child at = pl->root;
	uint32_t level = pl->nr_levels, nr = 0;

	if (segment >= pl->nr_segments)
		return pl->nr_records;
	while (level && at.node) {
		union xalloc_placement_child left = at.node->child[0];

		level--;
		if (segment >> level & 1)
			nr += !left.node ? 0 : level ? left.node->nr_records : 1;
		at = at.node->child[segment >> level & 1];
	}
	return nr;
}

/* The best run so far, and how many segments without memory it lies in. */
struct best {
	uint32_t slice;
	uint32_t nr_bare;
};

static void try_run(struct best *best, const struct xalloc_placement *pl, uint64_t slice,
		    uint32_t nr, uint32_t end)
{
	uint32_t first = (uint32_t)(slice / PER_SEGMENT), last, nr_bare;

	if (slice + nr > end)
		return;
	last = (uint32_t)(slice + nr - 1) / PER_SEGMENT;
	nr_bare = last + 1 - first -
		  (count_records_below(pl, last + 1) - count_records_below(pl, first));
	if (nr_bare < best->nr_bare || (nr_bare == best->nr_bare && slice < best->slice)) {
		best->nr_bare = nr_bare;
		best->slice = (uint32_t)slice;
	}
}

/*
 * Find the run that lies in the fewest segments without memory; of several, the lowest.
 *
 * Of the runs that begin in one segment the first one ends lowest; where that is not at the
 * start of the segment, the segment is partly used and has memory. Moved on by a segment, or
 * by as many as the alignment asks for, a run loses bare segments at its low end and gains
 * as many segments at its high end; so it lies over fewer bare ones than before only if one
 * of these has memory. Only such runs are tried, and the first of each free run.
 */
static struct best find_fewest_bare(const struct xalloc_placement *pl,
				    const struct xalloc_placement_request *request)
{
	uint32_t nr = request->nr_slices, align = align_of(request), first, end;
	uint32_t coarse = align > PER_SEGMENT ? align : PER_SEGMENT;
	uint32_t above = (nr - 1) / PER_SEGMENT * PER_SEGMENT;
	struct best best = { NONE, NONE };
	struct cursor cur;
	struct runs runs;

	runs_init(&runs, pl);
	while (next_run(&runs, pl, nr, &first, &end)) {
		bool more = true;

		try_run(&best, pl, align_up(first, align), nr, end);
		cursor_find(&cur, pl, first / PER_SEGMENT);
		for (; more && cursor_record(&cur, pl); more = cursor_skip(&cur, pl)) {
			uint32_t base = cur.first * PER_SEGMENT;

			if (base >= end)
				break;
			if (base >= first + above)
				try_run(&best, pl, align_up(base - above, coarse), nr, end);
		}
	}
	return best;
}

/**
 * xalloc_run_find_frugal() - find a run that needs as little new memory as any
 * @pl: the placement
 * @request: what run
 *
 * Among these, one inside a segment before others, and the lowest.
 *
 * Return: its first slice, or XALLOC_PLACEMENT_NONE.
 */
uint32_t xalloc_run_find_frugal(struct xalloc_placement *pl,
				const struct xalloc_placement_request *request)
{
	bool fits_segment = request->nr_slices <= PER_SEGMENT;
	struct best best = { NONE, NONE };
	uint32_t slice;

	slice = fits_segment ? xalloc_run_find_inside(pl, request, true) : NONE;
	if (slice == NONE && !request->contig)
		best = find_fewest_bare(pl, request);
	if (slice == NONE && best.nr_bare && fits_segment)
		slice = xalloc_run_find_inside(pl, request, false);
	return slice != NONE ? slice : best.slice;
}
