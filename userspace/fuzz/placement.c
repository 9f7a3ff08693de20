// SPDX-License-Identifier: MIT
/*
 * Placement against its model, for libFuzzer: the input is a size of arena and then a
 * sequence of calls. A few bytes of it may stand for a burst of random ones, so that short
 * inputs lead deep. Every eighth call, and at the end, all is compared; then all that is taken
 * is given, and the placement must be as it was at first, without a table.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../kunit/placement_model.h"
#include "input.h"

#define SEGMENTS_MAX 40
#define SLICES_MAX (SEGMENTS_MAX * XALLOC_SLICES_PER_SEGMENT)

/* Allocations of tables until one fails; 0: none does. */
static unsigned int fail_in;
static size_t table_bytes;

void *xalloc_placement_alloc(size_t bytes)
{
	size_t *table;

	if (fail_in && --fail_in == 0)
		return NULL;
	table = calloc(1, 16 + bytes);
	if (!table)
		abort();
	*table = bytes;
	table_bytes += bytes;
	return (char *)table + 16;
}

void xalloc_placement_free(void *table)
{
	size_t *head = (size_t *)((char *)table - 16);

	table_bytes -= *head;
	free(head);
}

static void expect(const char *wrong)
{
	if (wrong) {
		fprintf(stderr, "placement: %s\n", wrong);
		abort();
	}
}

struct run {
	uint32_t slice;
	uint32_t nr_slices;
};

static struct run runs[SLICES_MAX];
static uint32_t nr_runs;

static void compare(const struct placement_model *m)
{
	expect(placement_model_compare(m));
	if (xalloc_placement_table_bytes(m->pl) != table_bytes)
		expect("tables are not counted right");
}

static void take(struct placement_model *m, struct input *in)
{
	struct xalloc_placement_request request;
	uint32_t how = next_byte(in), slice;
	int err;

	request.nr_slices = 1 + (how & 3 ? next_byte(in) % XALLOC_SLICES_PER_SEGMENT :
					   next_word(in) % SLICES_MAX);
	request.align_slices = how & 4 ? 1u << next_byte(in) % 14 : 0;
	request.contig = how & 8;
	fail_in = how & 16 ? 1 + next_byte(in) % 16 : 0;
	expect(placement_model_take(m, &request, how & 32, &err, &slice));
	if (err == -ENOMEM) {
		if (fail_in)
			expect("-ENOMEM without a failure");
		compare(m);
	}
	fail_in = 0;
	if (!err)
		runs[nr_runs++] = (struct run){ slice, request.nr_slices };
}

/* Leave no segment whole, so that only holes are left. */
static void take_whole_segments(struct placement_model *m)
{
	const struct xalloc_placement_request request = { .nr_slices = XALLOC_SLICES_PER_SEGMENT };
	uint32_t slice;
	int err;

	for (;;) {
		expect(placement_model_take(m, &request, false, &err, &slice));
		if (err)
			break;
		runs[nr_runs++] = (struct run){ slice, request.nr_slices };
	}
}

/* All of a run, or one end of it, as a caller that splits may do. */
static void give(struct placement_model *m, struct input *in)
{
	struct run *run, part;
	uint32_t how = next_byte(in);

	if (!nr_runs)
		return;
	run = &runs[next_word(in) % nr_runs];
	part = *run;
	if (how & 1 && run->nr_slices > 1) {
		part.nr_slices = 1 + next_word(in) % (run->nr_slices - 1);
		run->nr_slices -= part.nr_slices;
		if (how & 2)
			run->slice += part.nr_slices;
		else
			part.slice += run->nr_slices;
	} else {
		*run = runs[--nr_runs];
	}
	fail_in = 1;
	expect(placement_model_give(m, part.slice, part.nr_slices));
	fail_in = 0;
}

/* A run that is no page: given only if the model says that none of it is one's. */
static void give_blindly(struct placement_model *m, struct input *in)
{
	uint32_t total = m->pl->nr_segments * XALLOC_SLICES_PER_SEGMENT;
	uint32_t slice = next_word(in) % (total + 2), nr = next_byte(in), i;

	if (nr == 255)
		nr = UINT32_MAX - next_word(in);
	for (i = 0; i < nr && slice + i < total; i++)
		if (m->slices[slice + i] != MODEL_TAKEN)
			break;
	if (!nr || i < nr)
		expect(placement_model_give(m, slice, nr));
}

static void set_backing(struct placement_model *m, struct input *in)
{
	uint32_t how = next_byte(in), s = next_byte(in) % m->pl->nr_segments;
	int err;

	fail_in = how & 4 ? 1 + next_byte(in) % 8 : 0;
	expect(placement_model_set_backing(m, s, (how & 3) % 3, &err));
	if (err == -ENOMEM)
		compare(m);
	fail_in = 0;
}

static void finish(struct placement_model *m)
{
	uint32_t s, nr_fenced = m->pl->nr_fenced;
	int err;

	while (nr_runs) {
		nr_runs--;
		expect(placement_model_give(m, runs[nr_runs].slice, runs[nr_runs].nr_slices));
	}
	for (s = 0; s < m->pl->nr_segments; s++)
		expect(placement_model_set_backing(m, s, XALLOC_BACKING_BARE, &err));
	compare(m);
	if (m->pl->nr_records != nr_fenced)
		expect("a record is left of a segment that needs none");
	xalloc_placement_fini(m->pl);
	if (table_bytes)
		expect("a table is left");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { .data = data, .size = size };
	struct xalloc_placement pl;
	struct placement_model m;
	uint32_t nr_segments = 1 + next_byte(&in) % SEGMENTS_MAX, step;
	void *memory = calloc(1, placement_model_bytes(nr_segments));

	if (!memory)
		abort();
	xalloc_placement_init(&pl, nr_segments);
	placement_model_init(&m, &pl, memory);
	for (step = 0; !is_at_end(&in); step++) {
		uint32_t what = next_byte(&in) % 32;

		if (what < 14) {
			take(&m, &in);
		} else if (what < 24) {
			give(&m, &in);
		} else if (what < 26) {
			give_blindly(&m, &in);
		} else if (what < 29) {
			set_backing(&m, &in);
		} else if (what < 30) {
			take_whole_segments(&m);
		} else if (what < 31) {
			if (next_byte(&in) < 32)
				expect(placement_model_fence(&m, next_byte(&in) % nr_segments));
		} else if (!in.burst) {
			in.state = next_word(&in);
			in.burst = 8 * next_byte(&in);
		}
		if (step % 8 == 0)
			compare(&m);
	}
	finish(&m);
	free(memory);
	return 0;
}
