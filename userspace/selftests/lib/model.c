// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: random calls on several heaps of libxalloc at once, against a plain table of
 * what every block must hold; and the same by threads that free each other's blocks.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "libtest.h"
#include "selftest.h"

LIBTEST_FIXTURE(lib_model, "48M")

#define NR_BLOCKS 300
#define NR_HEAPS 3
#define NR_THREADS 4

struct block {
	unsigned char *ptr;
	size_t bytes;
	size_t alignment;
	uint64_t seed;
	unsigned int heap;
};

/* Heap 0 is the default one. */
static struct xalloc_heap *heaps[NR_HEAPS];

/* Mostly small, sometimes large: each doubling as likely as the next. */
static size_t random_size(uint32_t *seed)
{
	unsigned int bits = random_next(seed) % 100;

	bits = bits < 3 ? 21 : bits < 15 ? 18 : 1 + bits % 15;
	return random_next(seed) & ((1U << bits) - 1);
}

static void *block_alloc(struct block *block, uint32_t *seed)
{
	struct xalloc_heap *heap;

	block->bytes = random_size(seed);
	block->alignment = 16;
	block->heap = random_next(seed) % NR_HEAPS;
	block->seed = random_next(seed);
	heap = heaps[block->heap];
	switch (random_next(seed) % 4) {
	case 0:
		block->alignment = 1UL << random_next(seed) % 19;
		return heap ? xalloc_heap_aligned_alloc(heap, block->alignment, block->bytes) :
			      xalloc_aligned_alloc(block->alignment, block->bytes);
	case 1:
		block->ptr = heap ? xalloc_heap_calloc(heap, 1, block->bytes) :
				    xalloc_calloc(1, block->bytes);
		if (block->ptr && !bytes_zero(block->ptr, block->bytes))
			abort();
		return block->ptr;
	default:
		return heap ? xalloc_heap_malloc(heap, block->bytes) : xalloc_malloc(block->bytes);
	}
}

static bool block_is_right(const struct block *block)
{
	return (uintptr_t)block->ptr % block->alignment == 0 &&
	       bytes_same(block->ptr, block->bytes, block->seed);
}

static void block_free(struct block *block, uint32_t *seed)
{
	switch (random_next(seed) % 3) {
	case 0:
		xalloc_free(block->ptr);
		break;
	case 1:
		xalloc_free_aligned_sized(block->ptr, block->alignment, block->bytes);
		break;
	default:
		if (block->alignment <= 16)
			xalloc_free_sized(block->ptr, block->bytes);
		else
			xalloc_free(block->ptr);
	}
	block->ptr = NULL;
}

/* Returns false when memory is out; the block is as it was then. */
static bool block_realloc(struct block *block, uint32_t *seed)
{
	size_t bytes = random_size(seed);
	unsigned int heap = random_next(seed) % NR_HEAPS;
	bool by_heap = heaps[heap] && random_next(seed) % 2;
	void *ptr;

	ptr = by_heap ? xalloc_heap_realloc(heaps[heap], block->ptr, bytes) :
			xalloc_realloc(block->ptr, bytes);
	if (!ptr)
		return false;
	if (by_heap)
		block->heap = heap;
	block->ptr = ptr;
	if (!bytes_same(ptr, bytes < block->bytes ? bytes : block->bytes, block->seed))
		abort();
	block->bytes = bytes;
	block->alignment = 16;
	bytes_fill(ptr, bytes, block->seed);
	return true;
}

static void random_calls(struct __test_metadata *_metadata, uint32_t nr)
{
	static struct block blocks[NR_BLOCKS];
	struct xalloc_arena *arena, *arenas[2];
	uint32_t seed = random_seed() | 1, nr_refused = 0, i, k;

	TH_LOG("SEED=%u", seed);
	/* So little that it runs out now and then. */
	setenv("XALLOC_LIMIT", "10M", 1);
	arena = arena_of(64 * MIB, 16 * MIB);
	for (i = 1; i < NR_HEAPS; i++)
		ASSERT_NE(NULL, heaps[i] = xalloc_heap_create(arena));
	for (i = 0; i < nr; i++) {
		struct block *block = &blocks[random_next(&seed) % NR_BLOCKS];
		struct xalloc_block_handle handle;

		if (!block->ptr) {
			block->ptr = block_alloc(block, &seed);
			if (!block->ptr) {
				ASSERT_EQ(ENOMEM, errno);
				nr_refused++;
				continue;
			}
			bytes_fill(block->ptr, block->bytes, block->seed);
		}
		ASSERT_TRUE(block_is_right(block)) {
			TH_LOG("call %u, %zu bytes", i, block->bytes);
		}
		ASSERT_LE(block->bytes, xalloc_usable_size(block->ptr));
		ASSERT_EQ(0, xalloc_handle(block->ptr, &handle));
		if (block->heap)
			ASSERT_EQ(block->ptr, xalloc_at(arena, handle.offset));
		switch (random_next(&seed) % 4) {
		case 0:
			nr_refused += !block_realloc(block, &seed);
			break;
		case 1:
			break;
		default:
			block_free(block, &seed);
		}
	}
	TH_LOG("%u of %u calls found no memory", nr_refused, nr);
	ASSERT_NE(0, nr_refused);
	for (i = 0, k = 0; i < NR_BLOCKS; i++) {
		if (!blocks[i].ptr)
			continue;
		ASSERT_TRUE(block_is_right(&blocks[i]));
		k++;
	}
	arenas[0] = arena;
	arenas[1] = xalloc_arena_default();
	ASSERT_EQ(k, stats_of(arenas[0]).nr_blocks + stats_of(arenas[1]).nr_blocks);
	for (i = 0; i < NR_BLOCKS; i++)
		xalloc_free(blocks[i].ptr);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, stats_of(arenas[i]).nr_blocks);
		ASSERT_EQ(0, stats_of(arenas[i]).used_bytes);
	}
	for (i = 1; i < NR_HEAPS; i++)
		ASSERT_EQ(0, xalloc_heap_destroy(heaps[i]));
	ASSERT_EQ(0, stats_of(arena).committed_bytes);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F_TIMEOUT(lib_model, random_calls_keep_what_blocks_hold, TEST_TIMEOUT_LONG)
{
	random_calls(_metadata, is_long_run() ? 300000 : is_fast() ? 20000 : 5000);
}

TEST_F_TIMEOUT(lib_model, random_calls_with_options_that_look_at_each_block, TEST_TIMEOUT_LONG)
{
	setenv("XALLOC_OPTIONS", "canary=1,zero_on_free=1,trace=7", 1);
	random_calls(_metadata, is_long_run() ? 100000 : 5000);
}

/* Where a thread leaves a block for any other to check and free. */
static struct block *_Atomic mailboxes[64];

static struct thread {
	pthread_t id;
	uint32_t seed;
	uint32_t nr;
	uint32_t nr_wrong;
	uint32_t nr_refused;
} threads[NR_THREADS];

static void take_and_free(struct thread *thread, struct block *block)
{
	if (!block)
		return;
	thread->nr_wrong += !block_is_right(block);
	block_free(block, &thread->seed);
	free(block);
}

static void *exchange_blocks(void *arg)
{
	struct thread *thread = arg;
	uint32_t i;

	for (i = 0; i < thread->nr; i++) {
		struct block *block = malloc(sizeof(*block));

		block->ptr = block_alloc(block, &thread->seed);
		if (!block->ptr) {
			thread->nr_refused++;
			free(block);
			block = NULL;
		} else {
			bytes_fill(block->ptr, block->bytes, block->seed);
		}
		block = atomic_exchange(&mailboxes[random_next(&thread->seed) %
						   ARRAY_SIZE(mailboxes)], block);
		take_and_free(thread, block);
	}
	return NULL;
}

TEST_F_TIMEOUT(lib_model, threads_free_each_others_blocks, TEST_TIMEOUT_LONG)
{
	struct xalloc_arena *arena = arena_of(64 * MIB, 0);
	uint32_t seed = random_seed() | 1, i;

	TH_LOG("SEED=%u", seed);
	for (i = 1; i < NR_HEAPS; i++)
		ASSERT_NE(NULL, heaps[i] = xalloc_heap_create(arena));
	for (i = 0; i < NR_THREADS; i++) {
		threads[i].seed = random_next(&seed);
		threads[i].nr = is_long_run() ? 40000 : is_fast() ? 5000 : 1000;
		ASSERT_EQ(0, pthread_create(&threads[i].id, NULL, exchange_blocks, &threads[i]));
	}
	for (i = 0; i < NR_THREADS; i++) {
		ASSERT_EQ(0, pthread_join(threads[i].id, NULL));
		ASSERT_EQ(0, threads[i].nr_wrong);
		ASSERT_LT(threads[i].nr_refused, threads[i].nr / 10);
	}
	for (i = 0; i < ARRAY_SIZE(mailboxes); i++)
		take_and_free(&threads[0], mailboxes[i]);
	ASSERT_EQ(0, threads[0].nr_wrong);
	ASSERT_EQ(0, stats_of(arena).nr_blocks);
	ASSERT_EQ(0, stats_of(xalloc_arena_default()).nr_blocks);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

static pthread_barrier_t barrier;

static void *allocate_at_once(void *arg)
{
	struct thread *thread = arg;
	void *ptr;

	pthread_barrier_wait(&barrier);
	ptr = xalloc_heap_malloc(heaps[1 + thread->seed], 12 * SLICE);
	thread->nr_refused += !ptr;
	return ptr;
}

/* Each is refused first; one of them finds that the other has made the room for both. */
TEST_F(lib_model, what_a_heap_kept_serves_two_threads_at_once)
{
	struct xalloc_arena *arena = arena_of(SEGMENT, 0);
	size_t round, size, i;
	void *ptr;

	for (i = 1; i < NR_HEAPS; i++)
		ASSERT_NE(NULL, heaps[i] = xalloc_heap_create(arena));
	ASSERT_EQ(0, pthread_barrier_init(&barrier, NULL, 2));
	for (round = 0; round < (is_long_run() ? 2000 : 100); round++) {
		for (size = 16; stats_of(arena).granted_bytes < 21 * SLICE; size += 16) {
			ASSERT_NE(NULL, ptr = xalloc_heap_malloc(heaps[1], size));
			xalloc_free(ptr);
		}
		for (i = 0; i < 2; i++) {
			threads[i] = (struct thread){ .seed = i };
			ASSERT_EQ(0, pthread_create(&threads[i].id, NULL, allocate_at_once,
						    &threads[i]));
		}
		for (i = 0; i < 2; i++) {
			ASSERT_EQ(0, pthread_join(threads[i].id, &ptr));
			ASSERT_EQ(0, threads[i].nr_refused) {
				TH_LOG("round %zu", round);
			}
			xalloc_free(ptr);
		}
	}
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

static void *create_and_destroy(void *arg)
{
	struct thread *thread = arg;
	uint32_t i;

	for (i = 0; i < thread->nr; i++) {
		struct xalloc_arena *arena = arena_of((1 + i % 4) * SEGMENT, 0);
		struct xalloc_heap *heap = xalloc_heap_create(arena);
		unsigned char *ptr = xalloc_heap_calloc(heap, 1, 70000);

		thread->nr_wrong += !bytes_zero(ptr, 70000);
		bytes_fill(ptr, 70000, thread->seed + i);
		thread->nr_wrong += !bytes_same(ptr, 70000, thread->seed + i);
		thread->nr_wrong += xalloc_arena_destroy(arena) != 0;
	}
	return NULL;
}

TEST_F_TIMEOUT(lib_model, threads_create_and_destroy_arenas, TEST_TIMEOUT_LONG)
{
	uint32_t i;

	for (i = 0; i < NR_THREADS; i++) {
		threads[i] = (struct thread){ .seed = i * 1000, .nr = is_long_run() ? 3000 : 60 };
		ASSERT_EQ(0, pthread_create(&threads[i].id, NULL, create_and_destroy, &threads[i]));
	}
	for (i = 0; i < NR_THREADS; i++) {
		ASSERT_EQ(0, pthread_join(threads[i].id, NULL));
		ASSERT_EQ(0, threads[i].nr_wrong);
	}
}

TEST_HARNESS_MAIN
