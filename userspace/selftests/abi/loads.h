/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Two processes that work in an arena and in a file, and look at each byte, while a test disturbs
 * them. The first segment and two slices of the second are the test's.
 */
#ifndef XALLOC_LOADS_H
#define XALLOC_LOADS_H

#include "holes.h"

#include <stdatomic.h>

/* Of the arena and of the file. */
#define BYTES (6 * SEGMENT)
#define NR_SLICES (BYTES / SLICE)
/* A pipe and a ring refer to these slices. */
#define IN_PIPE (SEGMENT + 5 * SLICE)
#define IN_RING (SEGMENT + 9 * SLICE)

/* Such a process. Its parent reads this. */
struct load {
	pid_t pid;
	unsigned char *map;
	atomic_long nr_turns;
	atomic_long nr_refused;
	atomic_long nr_busy;
	atomic_bool stop;
};

/* What the process itself knows. */
struct work {
	struct load *load;
	int fd;
	unsigned char *map;
	uint32_t random;
	uint64_t seed;
};

static uint32_t below(struct work *work, uint32_t end)
{
	return random_next(&work->random) % end;
}

static void work_begin(struct work *work, struct load *load, int fd, size_t shift, uint32_t seed)
{
	*work = (struct work){
		.load = load,
		.fd = fd,
		.map = file_map(fd, BYTES, shift),
		.random = seed,
		.seed = seed,
	};
	require(work->map);
	load->map = work->map;
}

static void require_bytes(const void *addr, size_t bytes, uint64_t seed, const char *what,
			  uint64_t at)
{
	/* 0 stands for zeros. */
	ssize_t wrong = seed ? pattern_mismatch(addr, bytes, seed) : nonzero_find(addr, bytes);

	if (wrong < 0)
		return;
	fprintf(stderr, "# wrong byte at %#" PRIx64 " + %#zx: %s\n", at, wrong, what);
	_exit(1);
}

/* By the mapping, or by a call, which fills no hole. */
static void check_bytes(struct work *work, uint64_t at, size_t bytes, uint64_t seed, bool by_call)
{
	static unsigned char copy[SEGMENT];

	if (!by_call) {
		require_bytes(work->map + at, bytes, seed, "a mapping", at);
		return;
	}
	require(pread(work->fd, copy, bytes, at) == (ssize_t)bytes);
	require_bytes(copy, bytes, seed, "what a read returned", at);
}

struct page {
	uint64_t offset;
	uint64_t seed;
	size_t bytes;	/* 0: none */
};

static void page_get(struct work *work, struct page *page)
{
	static const uint32_t lengths[] = { 1, 1, 1, 2, 5, SEGMENT_SLICES };
	struct xalloc_page_grant grant = {
		.nr_slices = lengths[below(work, ARRAY_SIZE(lengths))],
		.flags = below(work, 2) ? XALLOC_PAGE_ZERO : 0,
	};
	int rc = grant_batch(work->fd, &grant, 1);

	/* A block that is to go offline, and memory that runs short, leave no huge page. */
	require(rc == 1 || rc == -ENOMEM || rc == -ENOSPC);
	if (rc != 1) {
		work->load->nr_refused++;
		return;
	}
	*page = (struct page){
		.offset = grant.offset, .seed = ++work->seed, .bytes = grant.nr_slices * SLICE,
	};
	if (grant.flags & XALLOC_PAGE_ZERO)
		check_bytes(work, page->offset, page->bytes, 0, false);
	pattern_fill(work->map + page->offset, page->bytes, page->seed);
}

static void page_put(struct work *work, struct page *page)
{
	require(free_page(work->fd, page->offset) == 1);
	page->bytes = 0;
}

/* Pages come and go. */
static inline void work_in_arena(struct load *load, int fd, size_t shift, uint32_t seed)
{
	struct page pages[24] = {}, *page;
	struct work work;
	unsigned int i;

	work_begin(&work, load, fd, shift, seed);
	for (; !load->stop; load->nr_turns++) {
		page = &pages[below(&work, ARRAY_SIZE(pages))];
		if (page->bytes) {
			check_bytes(&work, page->offset, page->bytes, page->seed, !below(&work, 4));
			if (below(&work, 2))
				page_put(&work, page);
		} else {
			page_get(&work, page);
		}
		if (!below(&work, 16))
			require(!arena_trim(fd, 0, NULL));
	}
	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		if (!pages[i].bytes)
			continue;
		check_bytes(&work, pages[i].offset, pages[i].bytes, pages[i].seed, false);
		page_put(&work, &pages[i]);
	}
	munmap(work.map, BYTES);
}

static bool is_own(uint64_t slice)
{
	return slice >= SEGMENT_SLICES && slice < NR_SLICES && slice != IN_PIPE / SLICE &&
	       slice != IN_RING / SLICE;
}

/* Writes a slice by a call, after a call, or by a touch. Returns whether it had memory. */
static bool slice_write(struct work *work, uint64_t slice, uint64_t seed)
{
	static unsigned char copy[SLICE];
	unsigned char *addr = work->map + slice * SLICE;
	int rc;

	switch (below(work, 3)) {
	case 0:
		pattern_fill(copy, SLICE, seed);
		rc = errno_or(pwrite(work->fd, copy, SLICE, slice * SLICE));
		require(rc == (int)SLICE || rc == -ENOSPC);
		return rc > 0;
	case 1:
		rc = file_allocate(work->fd, 0, slice * SLICE, SLICE);
		require(!rc || rc == -ENOSPC);
		break;
	default:
		rc = touch_write(addr, seed);
		require(!rc || rc == SIGBUS);
	}
	if (!rc)
		pattern_fill(addr, SLICE, seed);
	return !rc;
}

/* Makes a hole of some slices, or of a segment. Returns how many slices are zeros by that. */
static uint64_t hole_make(struct work *work, uint64_t *first)
{
	uint64_t nr = 0, most = 1 + below(work, 4);
	int rc;

	if (!below(work, 4)) {
		most = SEGMENT_SLICES;
		*first -= *first % SEGMENT_SLICES;
	}
	/* Others refer to memory in this segment. */
	if (most == SEGMENT_SLICES && *first == SEGMENT_SLICES) {
		require(file_punch(work->fd, SEGMENT, SEGMENT) == -EBUSY);
		return 0;
	}
	while (nr < most && is_own(*first + nr))
		nr++;
	if (!nr)
		return 0;
	rc = below(work, 2) ? file_punch(work->fd, *first * SLICE, nr * SLICE) :
			      range_remove(work->map + *first * SLICE, nr * SLICE);
	/* What the kernel tries to move has one more reference for a moment. */
	require(!rc || rc == -EBUSY);
	if (rc)
		work->load->nr_busy++;
	return rc ? 0 : nr;
}

/* Slices are written, and become holes. What is refused changes nothing. */
static inline void work_in_file(struct load *load, int fd, size_t shift, uint32_t seed)
{
	static uint64_t seeds[NR_SLICES];	/* 0: a hole, or zeros */
	struct work work;
	uint64_t slice, nr;

	work_begin(&work, load, fd, shift, seed);
	for (; !load->stop; load->nr_turns++) {
		slice = below(&work, NR_SLICES);
		if (below(&work, 2)) {
			nr = hole_make(&work, &slice);
			memset(seeds + slice, 0, nr * sizeof(*seeds));
		} else if (is_own(slice)) {
			if (slice_write(&work, slice, ++work.seed))
				seeds[slice] = work.seed;
			else
				load->nr_refused++;
		}
		for (slice = below(&work, 8); slice < NR_SLICES; slice += 8)
			if (is_own(slice))
				check_bytes(&work, slice * SLICE, SLICE, seeds[slice],
					    !seeds[slice] || !below(&work, 4));
	}
	for (slice = 0; slice < NR_SLICES; slice++)
		if (is_own(slice))
			check_bytes(&work, slice * SLICE, SLICE, seeds[slice], true);
	munmap(work.map, BYTES);
}

#endif /* XALLOC_LOADS_H */
