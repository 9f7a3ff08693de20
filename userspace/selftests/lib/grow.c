// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: blocks grow and shrink where they are. A block that keeps its address was not
 * copied. The contents of blocks that grow, and of their neighbours, are looked at all the while.
 */
#include "libtest.h"
#include "selftest.h"

#define STEP MIB
/* From this size on a block moves no more. */
#define MOVES_BELOW (8 * MIB)
#define MOST_BLOCKS 4

LIBTEST_FIXTURE(lib_grow, "260M")

/* The heap that blocks are in; NULL: the default one. */
static struct xalloc_heap *heap;

static void *alloc(size_t size)
{
	return heap ? xalloc_heap_malloc(heap, size) : xalloc_malloc(size);
}

static void *resize(void *ptr, size_t size)
{
	return heap ? xalloc_heap_realloc(heap, ptr, size) : xalloc_realloc(ptr, size);
}

/* One byte of each 4 KiB is written and looked at. */
static void stamp(unsigned char *ptr, size_t from, size_t to, uint64_t seed)
{
	for (size_t i = from; i < to; i += KPAGE_BYTES)
		ptr[i + i / KPAGE_BYTES % KPAGE_BYTES] = byte_of(seed, i / KPAGE_BYTES);
}

static bool is_stamped(const unsigned char *ptr, size_t bytes, uint64_t seed)
{
	for (size_t i = 0; i < bytes; i += KPAGE_BYTES)
		if (ptr[i + i / KPAGE_BYTES % KPAGE_BYTES] != byte_of(seed, i / KPAGE_BYTES))
			return false;
	return true;
}

/* Blocks that grow, and what is allocated while they do. */
struct growth {
	unsigned int nr_blocks;
	size_t bytes;     /* that each of them reaches */
	size_t most_aside; /* of a block aside, 0 for none */
	unsigned char *blocks[MOST_BLOCKS];
	void *asides[4000];
	size_t aside_bytes[4000];
	unsigned int nr_asides;
	uint32_t seed;
};

static void aside(struct __test_metadata *_metadata, struct growth *growth)
{
	unsigned int i = growth->nr_asides++;
	size_t size = 1 + random_next(&growth->seed) % growth->most_aside;

	growth->asides[i] = alloc(size);
	growth->aside_bytes[i] = size;
	ASSERT_NE(NULL, growth->asides[i]);
	bytes_fill(growth->asides[i], size, i);
}

/* Grows the blocks in turns, a step at a time. */
static void grow(struct __test_metadata *_metadata, struct growth *growth)
{
	unsigned int nr_moves = 0, i, k;
	unsigned char *ptr;
	size_t bytes;

	growth->seed = random_seed() | 1;
	TH_LOG("SEED=%u", growth->seed);
	for (bytes = STEP; bytes <= growth->bytes; bytes += STEP) {
		for (i = 0; i < growth->nr_blocks; i++) {
			ptr = resize(growth->blocks[i], bytes);
			ASSERT_NE(NULL, ptr) {
				TH_LOG("block %u cannot have %zu MiB: errno %d", i, bytes >> 20,
				       errno);
			}
			if (bytes > MOVES_BELOW && ptr != growth->blocks[i])
				nr_moves++;
			growth->blocks[i] = ptr;
			stamp(ptr, bytes - STEP, bytes, i);
			for (k = 0; growth->most_aside && k < 5; k++)
				aside(_metadata, growth);
		}
	}
	EXPECT_EQ(0, nr_moves);
	for (i = 0; i < growth->nr_blocks; i++)
		EXPECT_TRUE(is_stamped(growth->blocks[i], growth->bytes, i));
	for (i = 0; i < growth->nr_asides; i++)
		ASSERT_TRUE(bytes_same(growth->asides[i], growth->aside_bytes[i], i));
}

/* All of it is freed, and goes back. */
static void drop(struct __test_metadata *_metadata, struct growth *growth,
		 struct xalloc_arena *arena)
{
	unsigned int i;

	for (i = 0; i < growth->nr_blocks; i++)
		xalloc_free(growth->blocks[i]);
	for (i = 0; i < growth->nr_asides; i++)
		xalloc_free_sized(growth->asides[i], growth->aside_bytes[i]);
	EXPECT_EQ(0, stats_of(arena).nr_blocks);
	EXPECT_EQ(0, xalloc_arena_trim(arena));
	EXPECT_EQ(0, stats_of(arena).committed_bytes);
}

TEST_F_TIMEOUT(lib_grow, one_block_to_the_limit, TEST_TIMEOUT_LONG)
{
	static struct growth growth = { .nr_blocks = 1, .bytes = 256 * MIB };

	grow(_metadata, &growth);
	/* What is refused changes nothing. */
	errno = 0;
	ASSERT_EQ(NULL, resize(growth.blocks[0], 262 * MIB));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_TRUE(is_stamped(growth.blocks[0], growth.bytes, 0));
	drop(_metadata, &growth, xalloc_arena_default());
}

TEST_F_TIMEOUT(lib_grow, two_blocks_in_turns, TEST_TIMEOUT_LONG)
{
	static struct growth growth = { .nr_blocks = 2, .bytes = 128 * MIB };

	grow(_metadata, &growth);
	drop(_metadata, &growth, xalloc_arena_default());
}

TEST_F_TIMEOUT(lib_grow, four_blocks_in_turns, TEST_TIMEOUT_LONG)
{
	static struct growth growth = { .nr_blocks = 4, .bytes = 64 * MIB };

	grow(_metadata, &growth);
	drop(_metadata, &growth, xalloc_arena_default());
}

TEST_F_TIMEOUT(lib_grow, with_small_blocks_in_between, TEST_TIMEOUT_LONG)
{
	static struct growth growth = {
		.nr_blocks = 2, .bytes = 120 * MIB, .most_aside = 5000,
	};

	grow(_metadata, &growth);
	drop(_metadata, &growth, xalloc_arena_default());
}

TEST_F_TIMEOUT(lib_grow, with_large_blocks_in_between, TEST_TIMEOUT_LONG)
{
	static struct growth growth = {
		.nr_blocks = 1, .bytes = 128 * MIB, .most_aside = 200000,
	};

	grow(_metadata, &growth);
	drop(_metadata, &growth, xalloc_arena_default());
}

/* Before it grows there is a block on each side of it. */
TEST_F_TIMEOUT(lib_grow, between_neighbours, TEST_TIMEOUT_LONG)
{
	static struct growth growth = { .nr_blocks = 1, .bytes = 128 * MIB };
	static const size_t sizes[] = { 100, 5000, 100000, 3 * MIB };
	unsigned char *neighbours[2 * ARRAY_SIZE(sizes)];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(neighbours); i++) {
		if (i == ARRAY_SIZE(sizes))
			growth.blocks[0] = alloc(STEP);
		neighbours[i] = alloc(sizes[i % ARRAY_SIZE(sizes)]);
		ASSERT_NE(NULL, neighbours[i]);
		bytes_fill(neighbours[i], sizes[i % ARRAY_SIZE(sizes)], i);
	}
	grow(_metadata, &growth);
	for (i = 0; i < ARRAY_SIZE(neighbours); i++) {
		EXPECT_TRUE(bytes_same(neighbours[i], sizes[i % ARRAY_SIZE(sizes)], i));
		xalloc_free(neighbours[i]);
	}
	drop(_metadata, &growth, xalloc_arena_default());
}

TEST_F_TIMEOUT(lib_grow, one_block_to_the_size_of_its_arena, TEST_TIMEOUT_LONG)
{
	static struct growth growth = { .nr_blocks = 1, .bytes = 256 * MIB };
	struct xalloc_arena *arena = arena_of(256 * MIB, 0);

	heap = xalloc_heap_create(arena);
	ASSERT_NE(NULL, heap);
	grow(_metadata, &growth);
	ASSERT_EQ(NULL, resize(growth.blocks[0], 257 * MIB));
	drop(_metadata, &growth, arena);
}

TEST_F_TIMEOUT(lib_grow, two_blocks_of_an_own_arena, TEST_TIMEOUT_LONG)
{
	static struct growth growth = {
		.nr_blocks = 2, .bytes = 120 * MIB, .most_aside = 5000,
	};
	struct xalloc_arena *arena = arena_of(1024 * MIB, 260 * MIB);

	heap = xalloc_heap_create(arena);
	ASSERT_NE(NULL, heap);
	grow(_metadata, &growth);
	drop(_metadata, &growth, arena);
}

/* The slices behind it are a page of small blocks; so it moves. */
TEST_F(lib_grow, one_block_that_cannot_costs_no_memory)
{
	struct xalloc_arena *arena = arena_of(4 * SEGMENT, 0);
	void *first, *second;
	int i;

	heap = xalloc_heap_create(arena);
	ASSERT_NE(NULL, heap);
	for (i = 0; i < 10; i++) {
		first = alloc(4 * SLICE);
		second = alloc(100);
		ASSERT_NE(NULL, first);
		ASSERT_NE(NULL, second);
		first = resize(first, 6 * SLICE);
		ASSERT_NE(NULL, first);
		xalloc_free(first);
		xalloc_free(second);
		EXPECT_EQ(0, xalloc_arena_trim(arena));
	}
	first = alloc(4 * SEGMENT);
	EXPECT_NE(NULL, first);
	xalloc_free(first);
}

/* --- within a block */

static const size_t sizes[] = { 100, 1000, 20000, 60000, 100000, MIB, 10 * MIB };

/* Whether a block of @size keeps its address and its contents when it is shrunk to @to. */
static bool stays(struct __test_metadata *_metadata, size_t size, size_t to)
{
	unsigned char *ptr = alloc(size), *after;

	ASSERT_NE(NULL, ptr);
	bytes_fill(ptr, size, to);
	after = resize(ptr, to);
	ASSERT_NE(NULL, after);
	EXPECT_TRUE(bytes_same(after, to, to));
	EXPECT_LE(to, xalloc_usable_size(after));
	/* The size that was asked for last is the block's. */
	xalloc_free_sized(after, to);
	return after == ptr;
}

/* To sizes above a half of the block. */
static void shrink_each(struct __test_metadata *_metadata)
{
	unsigned int i, k, nr_moves, nr = is_fast() ? 20 : 4;
	uint32_t seed = random_seed() | 1;
	size_t size, half;
	void *ptr;

	TH_LOG("SEED=%u", seed);
	EXPECT_TRUE(stays(_metadata, 60000, 50000));
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		size = sizes[i];
		ptr = alloc(size);
		half = xalloc_usable_size(ptr) / 2;
		xalloc_free(ptr);
		nr_moves = !stays(_metadata, size, half + 1) + !stays(_metadata, size, size - 1);
		for (k = 0; k < nr; k++)
			nr_moves += !stays(_metadata, size, half + 1 + random_next(&seed) %
					   (size - half - 1));
		EXPECT_EQ(0, nr_moves) {
			TH_LOG("of %u blocks of %zu bytes", nr + 2, size);
		}
	}
}

/* As far as it is usable. */
static void grow_each(struct __test_metadata *_metadata)
{
	unsigned char *ptr;
	size_t i, usable;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		ptr = alloc(sizes[i]);
		ASSERT_NE(NULL, ptr);
		bytes_fill(ptr, sizes[i], i);
		usable = xalloc_usable_size(ptr);
		EXPECT_EQ(ptr, resize(ptr, usable));
		EXPECT_TRUE(bytes_same(ptr, sizes[i], i));
		xalloc_free_sized(ptr, usable);
	}
}

TEST_F(lib_grow, to_more_than_a_half_is_in_place)
{
	shrink_each(_metadata);
	grow_each(_metadata);
	EXPECT_EQ(0, stats_of(xalloc_arena_default()).nr_blocks);
}

TEST_F(lib_grow, to_more_than_a_half_is_in_place_in_an_own_arena)
{
	struct xalloc_arena *arena = arena_of(64 * MIB, 0);

	heap = xalloc_heap_create(arena);
	ASSERT_NE(NULL, heap);
	shrink_each(_metadata);
	grow_each(_metadata);
	EXPECT_EQ(0, stats_of(arena).nr_blocks);
}

/* A block that has room takes more of what is free behind it, and then less than it has. */
TEST_F(lib_grow, a_block_with_room_may_be_freed_with_its_size)
{
	size_t size, usable = 0;
	unsigned char *ptr = alloc(MIB + MIB / 2);
	void *behind = NULL;

	for (size = 2 * MIB + KPAGE_BYTES; usable <= size && size < 16 * MIB; size += MIB) {
		ptr = resize(ptr, size);
		ASSERT_NE(NULL, ptr);
		usable = xalloc_usable_size(ptr);
	}
	while (behind < (void *)(ptr + usable)) {
		behind = alloc(MIB + MIB / 2);
		ASSERT_NE(NULL, behind);
	}
	if (behind != ptr + usable)
		SKIP(return, "something else is behind the block");
	xalloc_free(behind);
	ASSERT_EQ(ptr, resize(ptr, usable + KPAGE_BYTES));
	ASSERT_EQ(ptr, resize(ptr, usable - 25 * KPAGE_BYTES));
	xalloc_free_sized(ptr, usable - 25 * KPAGE_BYTES);
}

TEST_HARNESS_MAIN
