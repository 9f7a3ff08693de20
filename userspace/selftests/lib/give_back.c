// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: what goes back to the kernel when blocks shrink or are freed, beside blocks that
 * stay: at once what was large, in a while what was small, all of it at a trim.
 */
#include <pthread.h>

#include "libtest.h"
#include "selftest.h"

/* The module gives back in about 2 s what was freed lazily. */
static unsigned int idle_ms = 60000;

LIBTEST_FIXTURE(lib_give_back, "640M")

/* Two ways to have a block: of an arena of its own, or of the default heap. */
struct place {
	struct xalloc_arena *arena;
	struct xalloc_heap *heap;
};

static struct place place_of(struct __test_metadata *_metadata, bool own)
{
	struct place place = {
		.arena = own ? arena_of(640 * MIB, 0) : xalloc_arena_default(),
	};

	ASSERT_NE(NULL, place.arena);
	if (own) {
		place.heap = xalloc_heap_create(place.arena);
		ASSERT_NE(NULL, place.heap);
	}
	return place;
}

static void *alloc_in(struct place place, size_t size)
{
	return place.heap ? xalloc_heap_malloc(place.heap, size) : xalloc_malloc(size);
}

static void expect_committed(struct __test_metadata *_metadata, struct place place, size_t most)
{
	struct xalloc_arena_stat stat = stats_of(place.arena);

	EXPECT_GE(most, stat.committed_bytes) {
		TH_LOG("%s: %zu KiB committed, %zu granted, %zu used",
		       place.heap ? "own arena" : "default heap",
		       (size_t)stat.committed_bytes >> 10, (size_t)stat.granted_bytes >> 10,
		       (size_t)stat.used_bytes >> 10);
	}
}

TEST_F(lib_give_back, what_a_block_was_longer_goes_at_once)
{
	static const size_t lengths[] = { 40 * MIB, 40 * MIB - 100000, 100 * MIB };
	struct place place;
	size_t i, own;
	char *ptr;

	for (own = 0; own < 2; own++) {
		place = place_of(_metadata, own);
		for (i = 0; i < ARRAY_SIZE(lengths); i++) {
			ptr = alloc_in(place, lengths[i]);
			ASSERT_NE(NULL, ptr);
			bytes_fill(ptr, MIB, i);
			ptr = xalloc_realloc(ptr, MIB);
			ASSERT_NE(NULL, ptr);
			expect_committed(_metadata, place, 4 * MIB);
			ASSERT_TRUE(bytes_same(ptr, MIB, i));
			xalloc_free(ptr);
		}
	}
}

/* One that is freed between two that stay, which begin and end where it is not aligned. */
static void free_beside(struct __test_metadata *_metadata, bool own, bool trimmed)
{
	size_t bytes = (is_fast() ? 500 : 64) * MIB - 131072;
	struct place place = place_of(_metadata, own);
	char *large, *beside;

	large = alloc_in(place, bytes);
	beside = alloc_in(place, 100000);
	ASSERT_NE(NULL, large);
	ASSERT_NE(NULL, beside);
	large[0] = 1;
	large[bytes - 1] = 1;
	bytes_fill(beside, 100000, 1);
	xalloc_free(large);
	if (trimmed)
		ASSERT_EQ(0, xalloc_arena_trim(place.arena));
	expect_committed(_metadata, place, 4 * MIB);
	EXPECT_TRUE(bytes_same(beside, 100000, 1));
	xalloc_free(beside);
}

TEST_F(lib_give_back, a_large_block_beside_a_small_one_goes_at_once)
{
	free_beside(_metadata, false, false);
	free_beside(_metadata, true, false);
}

TEST_F(lib_give_back, a_large_block_beside_a_small_one_goes_at_a_trim)
{
	free_beside(_metadata, false, true);
	free_beside(_metadata, true, true);
}

/* --- many blocks of one size */

enum order { ALMOST_ALL_THEN_THE_REST, RANDOM_ORDER };

struct crowd {
	struct place place;
	size_t size, nr, nr_freed_first;
	enum order order;
	uint32_t seed;
	void **blocks;
};

/* The list of them, which is no block. */
static bool crowd_fill(struct crowd *crowd)
{
	crowd->blocks = mmap(NULL, crowd->nr * sizeof(void *), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (crowd->blocks == MAP_FAILED)
		return false;
	for (size_t i = 0; i < crowd->nr; i++) {
		crowd->blocks[i] = alloc_in(crowd->place, crowd->size);
		if (!crowd->blocks[i])
			return false;
	}
	return true;
}

/* A thread, or a call. */
static void *crowd_free(void *arg)
{
	struct crowd *crowd = arg;
	size_t i, k;
	void *ptr;

	if (crowd->order == RANDOM_ORDER) {
		for (i = crowd->nr; i; i--) {
			k = random_next(&crowd->seed) % i;
			ptr = crowd->blocks[k];
			crowd->blocks[k] = crowd->blocks[i - 1];
			xalloc_free(ptr);
		}
		return NULL;
	}
	for (i = 0; i < crowd->nr; i++)
		if (i % crowd->nr_freed_first)
			xalloc_free(crowd->blocks[i]);
	for (i = 0; i < crowd->nr; i += crowd->nr_freed_first)
		xalloc_free(crowd->blocks[i]);
	return NULL;
}

static void crowd_leave(struct crowd *crowd)
{
	munmap(crowd->blocks, crowd->nr * sizeof(void *));
}

static void expect_idle(struct __test_metadata *_metadata, struct crowd *crowd, size_t most)
{
	struct xalloc_arena *arena = crowd->place.arena;

	ASSERT_EQ(0, stats_of(arena).nr_blocks);
	/* What did not go in a minute shows what is wrong; another one would show no more. */
	if (!wait_for(committed_by(arena) <= most, idle_ms))
		idle_ms = 3000;
	EXPECT_GE(most, committed_by(arena)) {
		TH_LOG("%s: %zu blocks of %zu bytes", crowd->place.heap ? "own arena" :
		       "default heap", crowd->nr, crowd->size);
	}
}

TEST_F_TIMEOUT(lib_give_back, all_but_some_small_blocks_and_then_these, TEST_TIMEOUT_LONG)
{
	struct crowd crowd = {
		.place = place_of(_metadata, false),
		.size = 100,
		.nr = is_fast() ? 3500000 : 300000,
		.nr_freed_first = 20000,
	};

	ASSERT_TRUE(crowd_fill(&crowd));
	crowd_free(&crowd);
	expect_idle(_metadata, &crowd, 8 * MIB);
	crowd_leave(&crowd);
}

static const size_t sizes[] = { 16, 1000, 20000, 60000, 200000 };

#define CROWD_BYTES (64 * MIB)

/* Of each size; freed by this thread, or by one that ends, or by one that idles. */
static void free_each_size(struct __test_metadata *_metadata, bool own, enum order order,
			   bool by_other)
{
	struct crowd crowd = {
		.place = place_of(_metadata, own),
		.nr_freed_first = 500,
		.order = order,
		.seed = random_seed() | 1,
	};
	pthread_t thread;

	TH_LOG("SEED=%u", crowd.seed);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		crowd.size = sizes[i];
		crowd.nr = (is_fast() ? CROWD_BYTES : CROWD_BYTES / 4) / sizes[i];
		ASSERT_TRUE(crowd_fill(&crowd));
		if (by_other) {
			ASSERT_EQ(0, pthread_create(&thread, NULL, crowd_free, &crowd));
			ASSERT_EQ(0, pthread_join(thread, NULL));
		} else {
			crowd_free(&crowd);
		}
		expect_idle(_metadata, &crowd, 8 * MIB);
		crowd_leave(&crowd);
	}
}

TEST_F_TIMEOUT(lib_give_back, each_size_in_order, TEST_TIMEOUT_LONG)
{
	free_each_size(_metadata, false, ALMOST_ALL_THEN_THE_REST, false);
}

TEST_F_TIMEOUT(lib_give_back, each_size_in_a_random_order, TEST_TIMEOUT_LONG)
{
	free_each_size(_metadata, false, RANDOM_ORDER, false);
}

TEST_F_TIMEOUT(lib_give_back, each_size_freed_by_another_thread, TEST_TIMEOUT_LONG)
{
	free_each_size(_metadata, false, ALMOST_ALL_THEN_THE_REST, true);
	free_each_size(_metadata, false, RANDOM_ORDER, true);
}

TEST_F_TIMEOUT(lib_give_back, each_size_of_an_own_arena, TEST_TIMEOUT_LONG)
{
	free_each_size(_metadata, true, ALMOST_ALL_THEN_THE_REST, false);
	free_each_size(_metadata, true, RANDOM_ORDER, true);
}

/* The segments that the block is in. */
static size_t segments_of(const void *ptr, size_t size)
{
	uintptr_t first = (uintptr_t)ptr / SEGMENT, last = ((uintptr_t)ptr + size - 1) / SEGMENT;

	return (last - first + 1) * SEGMENT;
}

/* After a trim there is memory behind blocks alone. */
static void expect_trimmed(struct __test_metadata *_metadata, bool own)
{
	struct crowd crowd = { .place = place_of(_metadata, own), .order = RANDOM_ORDER,
			       .seed = random_seed() | 1 };
	void *kept;

	TH_LOG("SEED=%u", crowd.seed);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		crowd.size = sizes[i];
		crowd.nr = CROWD_BYTES / 4 / sizes[i];
		ASSERT_TRUE(crowd_fill(&crowd));
		/* One of them stays, which is not freed in its turn. */
		kept = crowd.blocks[crowd.nr / 2];
		crowd.blocks[crowd.nr / 2] = NULL;
		crowd_free(&crowd);
		ASSERT_EQ(0, xalloc_arena_trim(crowd.place.arena));
		expect_committed(_metadata, crowd.place, segments_of(kept, sizes[i]));
		xalloc_free(kept);
		ASSERT_EQ(0, xalloc_arena_trim(crowd.place.arena));
		expect_committed(_metadata, crowd.place, 0);
		crowd_leave(&crowd);
	}
}

TEST_F(lib_give_back, all_without_a_block_goes_at_a_trim_of_an_own_arena)
{
	expect_trimmed(_metadata, true);
}

TEST_F(lib_give_back, all_without_a_block_goes_at_a_trim_of_the_default_arena)
{
	expect_trimmed(_metadata, false);
}

/* What is granted when one small block in 2 MiB is left, and the thread has had medium ones. */
static size_t granted_when_sparse(struct xalloc_arena *arena)
{
	static void *blocks[4096], *medium[32];
	size_t granted;

	for (size_t i = 0; i < ARRAY_SIZE(blocks); i++)
		blocks[i] = xalloc_malloc(4096);
	for (size_t i = 0; i < ARRAY_SIZE(medium); i++)
		medium[i] = xalloc_malloc(100000);
	for (size_t i = 0; i < ARRAY_SIZE(medium); i++)
		xalloc_free(medium[i]);
	for (size_t i = 0; i < ARRAY_SIZE(blocks); i++)
		if (i % 512)
			xalloc_free(blocks[i]);
	granted = stats_of(arena).granted_bytes;
	for (size_t i = 0; i < ARRAY_SIZE(blocks); i += 512)
		xalloc_free(blocks[i]);
	return granted;
}

TEST_F(lib_give_back, caches_do_not_keep_more_when_a_heap_has_gone)
{
	struct xalloc_arena *arena = xalloc_arena_default();
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	size_t before;

	ASSERT_NE(NULL, heap);
	granted_when_sparse(arena);
	before = granted_when_sparse(arena);
	for (int i = 0; i < 64; i++)
		ASSERT_NE(NULL, xalloc_heap_malloc(heap, MIB));
	ASSERT_EQ(0, xalloc_heap_destroy(heap));
	EXPECT_GE(before + MIB, granted_when_sparse(arena));
}

TEST_F(lib_give_back, a_cache_is_emptied_when_less_than_half_is_in_blocks)
{
	static const size_t sizes_kept[] = { 100000, 150000, 200000, 300000 };
	static void *blocks[8192], *medium[32];
	struct xalloc_arena *arena;
	size_t i, k, before;

	/* So that the thread may keep 8 MiB. */
	setenv("XALLOC_LIMIT", "2G", 1);
	arena = xalloc_arena_default();
	ASSERT_NE(NULL, arena);
	for (i = 0; i < ARRAY_SIZE(blocks); i++)
		blocks[i] = xalloc_malloc(4096);
	for (k = 0; k < ARRAY_SIZE(sizes_kept); k++) {
		for (i = 0; i < ARRAY_SIZE(medium); i++)
			medium[i] = xalloc_malloc(sizes_kept[k]);
		for (i = 0; i < ARRAY_SIZE(medium); i++)
			xalloc_free(medium[i]);
	}
	before = stats_of(arena).granted_bytes;
	/* Of each slab some stay. */
	for (i = 0; i < ARRAY_SIZE(blocks); i++)
		if (i % 5 > 1)
			xalloc_free(blocks[i]);
	EXPECT_LE(stats_of(arena).granted_bytes + 3 * MIB, before);
}

/* Slabs of short blocks have segments of their own, but not at the expense of large blocks. */
TEST_F(lib_give_back, free_memory_beside_short_blocks_serves_large_ones)
{
	size_t size = 1000, nr = 0, stays = SEGMENT / size, used;
	struct xalloc_arena *arena;
	void **first = NULL, **block;

	setenv("XALLOC_LIMIT", "256M", 1);
	arena = xalloc_arena_default();
	ASSERT_NE(NULL, arena);
	for (; (block = xalloc_malloc(size)); first = block, nr++)
		*block = first;
	ASSERT_LT(240 * MIB, nr * size);
	for (nr = 0; first; nr++) {
		block = first;
		first = *block;
		if (nr % stays)
			xalloc_free(block);
	}
	while (xalloc_malloc(100000))
		;
	used = stats_of(arena).used_bytes;
	TH_LOG("%zu of 256 MiB in blocks", used >> 20);
	EXPECT_LE(230 * MIB, used);
}

#define NR_AT_ONCE 16

static pthread_barrier_t at_once;

static void *alloc_at_once(void *arg)
{
	void *blocks[64];

	(void)arg;
	pthread_barrier_wait(&at_once);
	for (size_t i = 0; i < ARRAY_SIZE(blocks); i++)
		blocks[i] = xalloc_malloc(100 + 16 * i);
	for (size_t i = 0; i < ARRAY_SIZE(blocks); i++)
		xalloc_free(blocks[i]);
	return NULL;
}

TEST_F(lib_give_back, threads_that_begin_at_once_leave_nothing)
{
	struct xalloc_arena *arena = xalloc_arena_default();
	pthread_t threads[NR_AT_ONCE];
	void *blocks[20];
	size_t i;

	ASSERT_NE(NULL, arena);
	pthread_barrier_init(&at_once, NULL, NR_AT_ONCE);
	for (i = 0; i < ARRAY_SIZE(blocks); i++)
		blocks[i] = xalloc_malloc(SEGMENT);
	for (i = 0; i < NR_AT_ONCE; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, alloc_at_once, NULL));
	for (i = 0; i < NR_AT_ONCE; i++)
		pthread_join(threads[i], NULL);
	for (i = 0; i < ARRAY_SIZE(blocks); i++)
		xalloc_free(blocks[i]);
	ASSERT_EQ(0, xalloc_arena_trim(arena));
	EXPECT_EQ(0, stats_of(arena).committed_bytes);
}

TEST_HARNESS_MAIN
