// SPDX-License-Identifier: MIT
/*
 * Work for scripts/bench-placement, which counts the instructions of measured_take() and
 * measured_give().
 *
 *	placement PATTERN SEGMENTS STEPS
 *
 * All patterns but "hole" begin with nine tenths of the segments partly used.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "placement.h"

#define PER_SEGMENT XALLOC_SLICES_PER_SEGMENT

struct run {
	uint32_t slice;
	uint32_t nr_slices;
};

static struct xalloc_placement pl;
static struct run *runs;
static uint32_t nr_runs;

void *xalloc_placement_alloc(size_t bytes)
{
	return calloc(1, bytes);
}

void xalloc_placement_free(void *table)
{
	free(table);
}

static uint32_t below(uint32_t end)
{
	static uint64_t state = 88172645463325252ull;

	/* Marsaglia's xorshift64 */
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)((state >> 16) % end);
}

static void check(int err)
{
	if (err) {
		fprintf(stderr, "placement: error %d\n", -err);
		exit(1);
	}
}

static uint32_t take(uint32_t nr)
{
	const struct xalloc_placement_request request = { .nr_slices = nr };
	uint32_t slice;

	check(xalloc_placement_take(&pl, &request, &slice));
	return slice;
}

__attribute__((noinline)) static uint32_t measured_take(uint32_t nr)
{
	return take(nr);
}

__attribute__((noinline)) static void measured_give(uint32_t slice, uint32_t nr)
{
	check(xalloc_placement_give(&pl, slice, nr));
}

/* Returns 1 if a run was had. */
static uint32_t try_take(uint32_t nr, uint32_t *slice)
{
	const struct xalloc_placement_request request = { .nr_slices = nr };

	return !xalloc_placement_take(&pl, &request, slice);
}

static void note(uint32_t slice, uint32_t nr)
{
	runs[nr_runs++] = (struct run){ slice, nr };
}

static struct run pick(void)
{
	uint32_t n = below(nr_runs);
	struct run run = runs[n];

	runs[n] = runs[--nr_runs];
	return run;
}

/* Two segments of twenty are whole. The others have slices taken, at random, each by itself. */
static void use_parts(uint32_t nr_segments)
{
	uint32_t total = nr_segments * PER_SEGMENT, slice, s;

	check(take(total));
	for (s = 0; s < nr_segments; s++)
		check(xalloc_placement_set_backing(&pl, s, XALLOC_BACKING_HUGE));
	for (s = 0; s < nr_segments; s++) {
		uint32_t percent = s % 20 / 2 == 4 ? 0 : 10 + below(80), nr = 0;

		for (slice = s * PER_SEGMENT; slice < (s + 1) * PER_SEGMENT; slice++) {
			bool last = slice % PER_SEGMENT == PER_SEGMENT - 1;

			if (percent && (below(100) < percent || (last && !nr)) &&
			    !(last && nr == PER_SEGMENT - 1)) {
				note(slice, 1);
				nr++;
			} else {
				check(xalloc_placement_give(&pl, slice, 1));
			}
		}
	}
}

/* The same slice again and again. */
static void same(uint32_t steps)
{
	while (steps--) {
		uint32_t slice = measured_take(1);

		measured_give(slice, 1);
	}
}

/* A slice is taken, another one is given, so that holes move. */
static void churn(uint32_t steps)
{
	while (steps--) {
		struct run run = pick();

		measured_give(run.slice, run.nr_slices);
		note(measured_take(1), 1);
	}
}

/* Between two takes, pages of all sizes come and go. */
static void mixed(uint32_t steps)
{
	while (steps--) {
		uint32_t nr = 1 + below(below(4) ? 4 : PER_SEGMENT), slice;
		struct run run = pick();

		if (run.nr_slices == 1)
			measured_give(run.slice, 1);
		else
			check(xalloc_placement_give(&pl, run.slice, run.nr_slices));
		if (pl.nr_free_slices > pl.nr_segments * PER_SEGMENT / 2 && try_take(nr, &slice))
			note(slice, nr);
		if (run.nr_slices == 1)
			note(measured_take(1), 1);
	}
}

/* The one free slice of the arena: each take and give is seen up to the root of the tree. */
static void hole(uint32_t steps)
{
	measured_give(pl.nr_segments / 3 * PER_SEGMENT + 5, 1);
	same(steps);
}

/* A run of 3 MiB, where it fits, and away. */
static void run_same(uint32_t steps)
{
	while (steps--) {
		uint32_t slice = measured_take(48);

		measured_give(slice, 48);
	}
}

/* Runs of 3 MiB lie all over the arena; one goes, another comes, single slices move. */
static void run_churn(uint32_t steps)
{
	struct run *large = calloc(pl.nr_segments, sizeof(*large));
	uint32_t nr_large = 0, n;

	while (nr_large < pl.nr_segments / 32 + 1)
		large[nr_large++] = (struct run){ take(48), 48 };
	while (steps--) {
		struct run run = pick();

		check(xalloc_placement_give(&pl, run.slice, 1));
		note(take(1), 1);
		n = below(nr_large);
		measured_give(large[n].slice, 48);
		large[n].slice = measured_take(48);
	}
	free(large);
}

static const struct pattern {
	const char *name;
	void (*steps)(uint32_t steps);
} patterns[] = {
	{ "same", same }, { "churn", churn },       { "mixed", mixed },
	{ "hole", hole }, { "run-same", run_same }, { "run-churn", run_churn },
};

int main(int argc, char **argv)
{
	uint32_t nr_segments, steps;
	size_t i;

	if (argc != 4) {
		fprintf(stderr, "usage: placement PATTERN SEGMENTS STEPS\n");
		return 2;
	}
	nr_segments = (uint32_t)strtoul(argv[2], NULL, 0);
	steps = (uint32_t)strtoul(argv[3], NULL, 0);
	runs = calloc((size_t)nr_segments * PER_SEGMENT, sizeof(*runs));
	xalloc_placement_init(&pl, nr_segments);
	if (strcmp(argv[1], "hole"))
		use_parts(nr_segments);
	else
		check(take(nr_segments * PER_SEGMENT));
	for (i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
		if (!strcmp(argv[1], patterns[i].name)) {
			patterns[i].steps(steps);
			xalloc_placement_fini(&pl);
			free(runs);
			return 0;
		}
	}
	fprintf(stderr, "placement: no pattern %s\n", argv[1]);
	return 2;
}
