// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include "placement_model.h"

#define PER_SEGMENT XALLOC_SLICES_PER_SEGMENT
#define NONE XALLOC_PLACEMENT_NONE

/* Places in the order of preference: a sort of segments, and the longest run in them. */
enum sort {
	PARTLY_HUGE,
	PARTLY_PIECES,
	WHOLE_HUGE,
	WHOLE_PIECES,
	BARE,
};

static uint32_t place_of(enum sort sort, uint32_t longest)
{
	return sort * 64 + longest;
}

static bool is_free(const struct placement_model *m, uint32_t slice, uint32_t nr)
{
	uint32_t total = m->pl->nr_segments * PER_SEGMENT, i;

	if (nr > total || slice > total - nr)
		return false;
	for (i = 0; i < nr; i++)
		if (m->slices[slice + i] != MODEL_FREE)
			return false;
	return true;
}

static uint32_t longest_in(const struct placement_model *m, uint32_t s)
{
	uint32_t slice, have = 0, longest = 0;

	for (slice = s * PER_SEGMENT; slice < (s + 1) * PER_SEGMENT; slice++) {
		have = m->slices[slice] == MODEL_FREE ? have + 1 : 0;
		if (have > longest)
			longest = have;
	}
	return longest;
}

static bool is_bare(const struct placement_model *m, uint32_t s)
{
	return m->backings[s] == XALLOC_BACKING_BARE && !m->fenced[s] &&
	       longest_in(m, s) == PER_SEGMENT;
}

static uint32_t place_of_segment(const struct placement_model *m, uint32_t s)
{
	bool pieces = m->backings[s] == XALLOC_BACKING_PIECES;
	uint32_t longest = longest_in(m, s);

	if (is_bare(m, s))
		return place_of(BARE, longest);
	if (longest == PER_SEGMENT)
		return place_of(pieces ? WHOLE_PIECES : WHOLE_HUGE, longest);
	return place_of(pieces ? PARTLY_PIECES : PARTLY_HUGE, longest);
}

/* Lowest aligned run inside segment @s. */
static uint32_t lowest_inside(const struct placement_model *m,
			      const struct xalloc_placement_request *request, uint32_t s)
{
	uint32_t align = request->align_slices ? request->align_slices : 1, slice;

	if (request->contig && m->backings[s] == XALLOC_BACKING_PIECES)
		return NONE;
	for (slice = s * PER_SEGMENT; slice + request->nr_slices <= (s + 1) * PER_SEGMENT; slice++)
		if (slice % align == 0 && is_free(m, slice, request->nr_slices))
			return slice;
	return NONE;
}

static uint32_t lowest_across(const struct placement_model *m,
			      const struct xalloc_placement_request *request)
{
	uint32_t align = request->align_slices ? request->align_slices : 1, slice, have = 0;

	for (slice = 0; slice < m->pl->nr_segments * PER_SEGMENT; slice++) {
		uint32_t first;

		have = m->slices[slice] == MODEL_FREE ? have + 1 : 0;
		if (have < request->nr_slices)
			continue;
		first = slice + 1 - request->nr_slices;
		if (first % align == 0)
			return first;
	}
	return NONE;
}

/* What is wrong with @slice as the answer for a run that some segment can have inside. */
static const char *judge_inside(const struct placement_model *m,
				const struct xalloc_placement_request *request, uint32_t slice)
{
	uint32_t align = request->align_slices ? request->align_slices : 1;
	uint32_t s, lowest = NONE, sure = NONE, got;

	/* Where the request fits for certain, and where at all. */
	for (s = 0; s < m->pl->nr_segments; s++) {
		uint32_t place = place_of_segment(m, s);

		if (lowest_inside(m, request, s) == NONE)
			continue;
		if (lowest == NONE)
			lowest = lowest_inside(m, request, s);
		if (place % 64 >= request->nr_slices + align - 1 || place % 64 == PER_SEGMENT)
			sure = place < sure ? place : sure;
	}
	if (align > PER_SEGMENT)
		return slice == lowest ? NULL : "not the lowest segment that is aligned";
	s = slice / PER_SEGMENT;
	if (slice == NONE || lowest_inside(m, request, s) != slice)
		return "not the lowest fit inside a segment";
	got = place_of_segment(m, s);
	if (got > sure || (align == 1 && got != sure))
		return "not the tightest fit";
	if (got >= place_of(BARE, 0))
		while (s-- > 0)
			if (is_bare(m, s))
				return "not the lowest bare segment";
	return NULL;
}

static uint32_t count_bare(const struct placement_model *m, uint32_t slice, uint32_t nr)
{
	uint32_t s, nr_bare = 0;

	for (s = slice / PER_SEGMENT; s <= (slice + nr - 1) / PER_SEGMENT; s++)
		nr_bare += is_bare(m, s);
	return nr_bare;
}

static uint32_t frugal(const struct placement_model *m,
		       const struct xalloc_placement_request *request)
{
	uint32_t align = request->align_slices ? request->align_slices : 1;
	uint32_t s, slice, end, inside = NONE, best = NONE, fewest = NONE, have = 0;

	for (s = 0; s < m->pl->nr_segments; s++) {
		slice = lowest_inside(m, request, s);
		if (slice == NONE)
			continue;
		if (!is_bare(m, s))
			return slice;
		if (inside == NONE)
			inside = slice;
	}
	for (end = 1; !request->contig && end <= m->pl->nr_segments * PER_SEGMENT; end++) {
		have = m->slices[end - 1] == MODEL_FREE ? have + 1 : 0;
		slice = end - request->nr_slices;
		if (have < request->nr_slices || slice % align)
			continue;
		if (count_bare(m, slice, request->nr_slices) < fewest) {
			fewest = count_bare(m, slice, request->nr_slices);
			best = slice;
		}
	}
	return fewest && inside != NONE ? inside : best;
}

static bool fits_inside(const struct placement_model *m,
			const struct xalloc_placement_request *request)
{
	uint32_t s;

	for (s = 0; request->nr_slices <= PER_SEGMENT && s < m->pl->nr_segments; s++)
		if (lowest_inside(m, request, s) != NONE)
			return true;
	return false;
}

static const char *judge(const struct placement_model *m,
			 const struct xalloc_placement_request *request, bool is_frugal,
			 uint32_t slice)
{
	if (is_frugal)
		return slice == frugal(m, request) ? NULL : "not the most frugal run";
	if (fits_inside(m, request))
		return judge_inside(m, request, slice);
	if (request->contig)
		return slice == NONE ? NULL : "a run that cannot be contiguous";
	return slice == lowest_across(m, request) ? NULL : "not the lowest run";
}

/* Begin with @memory of placement_model_bytes() for a placement on which nothing is taken. */
void placement_model_init(struct placement_model *m, struct xalloc_placement *pl, void *memory)
{
	m->pl = pl;
	m->slices = memory;
	m->backings = m->slices + pl->nr_segments * PER_SEGMENT;
	m->fenced = m->backings + pl->nr_segments;
	m->nr_free_slices = pl->nr_segments * PER_SEGMENT;
}

/* Take a run. *@err is what placement said; *@slice is NONE unless that is 0. */
const char *placement_model_take(struct placement_model *m,
				 const struct xalloc_placement_request *request, bool is_frugal,
				 int *err, uint32_t *slice)
{
	const char *wrong;
	uint32_t i;

	*slice = NONE;
	*err = is_frugal ? xalloc_placement_take_frugal(m->pl, request, slice) :
			   xalloc_placement_take(m->pl, request, slice);
	if (*err == -ENOMEM)
		return *slice == NONE ? NULL : "a run without memory for tables";
	if (*err != (*slice == NONE ? -ENOSPC : 0))
		return "an error that is none";
	wrong = judge(m, request, is_frugal, *slice);
	if (wrong || *slice == NONE)
		return wrong;
	for (i = 0; i < request->nr_slices; i++)
		m->slices[*slice + i] = MODEL_TAKEN;
	m->nr_free_slices -= request->nr_slices;
	return NULL;
}

/* Give a run, good or not. */
const char *placement_model_give(struct placement_model *m, uint32_t slice, uint32_t nr_slices)
{
	uint64_t end = (uint64_t)slice + nr_slices, i;
	bool good = nr_slices && end <= (uint64_t)m->pl->nr_segments * PER_SEGMENT;
	int err = xalloc_placement_give(m->pl, slice, nr_slices);

	for (i = slice; good && i < end; i++)
		good = m->slices[i] == MODEL_TAKEN;
	if (err != (good ? 0 : -EUCLEAN))
		return good ? "a good run is not given" : "a bad run is given";
	for (i = slice; good && i < end; i++) {
		bool fenced = m->fenced[i / PER_SEGMENT];

		m->slices[i] = fenced ? MODEL_LOST : MODEL_FREE;
		m->nr_free_slices += !fenced;
	}
	return NULL;
}

/* Give memory to a segment or take it away. */
const char *placement_model_set_backing(struct placement_model *m, uint32_t segment,
					enum xalloc_placement_backing backing, int *err)
{
	*err = xalloc_placement_set_backing(m->pl, segment, backing);
	if (*err == -ENOMEM)
		return is_bare(m, segment) ? NULL : "-ENOMEM although there is a record";
	if (*err)
		return "an error that is none";
	m->backings[segment] = backing;
	return NULL;
}

/* Fence a segment; one that is bare stays as it is. */
const char *placement_model_fence(struct placement_model *m, uint32_t segment)
{
	uint32_t slice;

	xalloc_placement_fence(m->pl, segment);
	if (is_bare(m, segment))
		return NULL;
	m->fenced[segment] = true;
	for (slice = segment * PER_SEGMENT; slice < (segment + 1) * PER_SEGMENT; slice++) {
		if (m->slices[slice] == MODEL_FREE) {
			m->slices[slice] = MODEL_LOST;
			m->nr_free_slices--;
		}
	}
	return NULL;
}

/* Ask the validator, and compare all that placement tells with the model. */
const char *placement_model_compare(const struct placement_model *m)
{
	uint32_t s, n, bare = NONE, nr_records = 0, nr_fenced = 0;

	if (!xalloc_placement_is_valid(m->pl))
		return "the placement is not valid";
	for (s = 0; s < m->pl->nr_segments; s++) {
		uint32_t mask = 0, taken = 0;

		for (n = 0; n < PER_SEGMENT; n++) {
			mask |= (uint32_t)(m->slices[s * PER_SEGMENT + n] == MODEL_FREE) << n;
			taken |= (uint32_t)(m->slices[s * PER_SEGMENT + n] == MODEL_TAKEN) << n;
		}
		if (xalloc_placement_free_mask(m->pl, s) != mask)
			return "free slices differ";
		if (xalloc_placement_is_whole(m->pl, s) != !taken)
			return "a segment is whole or is not";
		if (xalloc_placement_backing(m->pl, s) != m->backings[s])
			return "a backing differs";
		if (is_bare(m, s) && bare == NONE)
			bare = s;
		nr_records += !is_bare(m, s);
		nr_fenced += m->fenced[s];
	}
	if (xalloc_placement_find_bare(m->pl) != bare)
		return "the lowest bare segment differs";
	if (m->pl->nr_free_slices != m->nr_free_slices)
		return "the number of free slices differs";
	if (m->pl->nr_records != nr_records || !nr_records != !m->pl->table_bytes)
		return "the number of records differs";
	if (m->pl->nr_fenced != nr_fenced)
		return "the number of fenced segments differs";
	return NULL;
}
