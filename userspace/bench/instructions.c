// SPDX-License-Identifier: MIT
/*
 * Work for scripts/bench-instructions, which runs this in a guest whose time-stamp counter counts
 * instructions. Prints a line for each operation and turn: the operation's number, instructions,
 * what it is. What a first turn has to make, such as page tables, is there in most turns.
 */
#include "helpers.h"

#include <assert.h>
#include <x86intrin.h>

#define NR_TURNS 101

static unsigned int nr_counted;

/* Two readings of the counter are 4 instructions apart. */
#define COUNT(what, statement) \
	do { \
		uint64_t from = __rdtsc(), to; \
		statement; \
		to = __rdtsc(); \
		printf("%u\t%ju\t%s\n", nr_counted++, to - from, what); \
	} while (0)

static uint64_t grant(int arena, uint32_t nr_slices)
{
	struct xalloc_page_grant page;

	assert(grant_page(arena, nr_slices, 0, &page) == 1);
	return page.offset;
}

/* Two segments, mapped by entries of 2 MiB only if @shift is 0. */
static volatile unsigned char *map(int arena, size_t shift)
{
	unsigned char *at = range_reserve(4 * XALLOC_SEGMENT_BYTES, XALLOC_SEGMENT_BYTES) + shift;

	assert(mmap(at, 2 * XALLOC_SEGMENT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		    arena, 0) == at);
	return at;
}

static void touch(volatile unsigned char *at, unsigned int first, unsigned int end)
{
	for (; first < end; first++)
		at[first * KPAGE_BYTES] = 1;
}

static void turn_segment(int arena, volatile unsigned char *huge, volatile unsigned char *small)
{
	uint64_t page, other;

	COUNT("grant of 2 MiB, cold", page = grant(arena, SEGMENT_SLICES));
	COUNT("first touch, by a 2 MiB entry", touch(huge + page, 0, 1));
	COUNT("free and give-back, mapped by it", free_page(arena, page));
	page = grant(arena, SEGMENT_SLICES);
	COUNT("free and give-back, not mapped", free_page(arena, page));
	page = grant(arena, SEGMENT_SLICES);
	COUNT("first touch, by 4 KiB entries", touch(small + page, 0, 1));
	COUNT("touch of the 511 others", touch(small + page, 1, 512));
	COUNT("free and give-back, mapped by them", free_page(arena, page));
	other = grant(arena, 1);
	COUNT("grant of 64 KiB, committed before", page = grant(arena, 1));
	COUNT("free of 64 KiB, memory stays", free_page(arena, page));
	assert(free_page(arena, other) == 1);
}

static void turn_piece(int arena, volatile unsigned char *at)
{
	uint64_t page;

	COUNT("grant of a 64 KiB piece, cold", page = grant(arena, 1));
	COUNT("first touch of the piece", touch(at + page, 0, 1));
	COUNT("touch of its 15 others", touch(at + page, 1, 16));
	COUNT("free and give-back of the piece", free_page(arena, page));
}

static void turn_client(int arena)
{
	struct xalloc_page_grant pages[XALLOC_BATCH_MAX] = { 0 };
	int client, i;

	COUNT("open of a client", client = attach(arena, 0, NULL));
	for (i = 0; i < XALLOC_BATCH_MAX; i++)
		pages[i].nr_slices = 1;
	for (i = 0; i < 2048 / XALLOC_BATCH_MAX; i++)
		assert(grant_batch(client, pages, XALLOC_BATCH_MAX) == XALLOC_BATCH_MAX);
	COUNT("its close, with 2048 pages of 64 KiB", close(client));
	assert(!stat_of(arena).committed_bytes);
}

int main(void)
{
	int device = device_open(), turn;
	int arena = arena_create_by(device, 1UL << 30, XALLOC_POLICY_HUGE, -1);
	int in_pieces = arena_create_by(device, 1UL << 30, XALLOC_POLICY_SMALL, -1);
	volatile unsigned char *huge = map(arena, 0);
	volatile unsigned char *small = map(arena, KPAGE_BYTES);
	volatile unsigned char *pieces = map(in_pieces, 0);

	assert(total_raise());
	/* Stays, so that the table of the pieces' entries does. */
	touch(pieces + grant(in_pieces, 1), 0, 1);
	for (turn = 0; turn < NR_TURNS; turn++) {
		nr_counted = 0;
		turn_segment(arena, huge, small);
		turn_piece(in_pieces, pieces);
		turn_client(arena);
	}
	return 0;
}
