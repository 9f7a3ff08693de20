// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: the malloc-shaped calls of libxalloc on the default heap give blocks of any
 * size and alignment, zeroed where asked, kept over realloc, and refuse what cannot be had.
 */
#include <pthread.h>

#include "libtest.h"
#include "selftest.h"

#define LIMIT_MIB 64

LIBTEST_FIXTURE(lib_malloc, "64M")

/* Sizes from 1 to @last: all small ones, then those around each step of about 3 %. */
static size_t next_size(size_t size)
{
	return size < 300 ? size + 1 : size + size / 32;
}

TEST_F(lib_malloc, every_size_is_had_aligned_and_usable)
{
	size_t size, usable;
	char *ptr;

	for (size = 1; size <= 20 * MIB; size = next_size(size)) {
		ptr = xalloc_malloc(size);
		ASSERT_NE(NULL, ptr) {
			TH_LOG("%zu bytes: %s", size, strerror(errno));
		}
		usable = xalloc_usable_size(ptr);
		ASSERT_LE(size, usable);
		ASSERT_EQ(0, (uintptr_t)ptr % (size <= SLICE ? 16 : KPAGE_BYTES));
		/* The header's promises: 16, an eighth, a quarter, a hardware page. */
		if (size <= 128) {
			ASSERT_EQ((size + 15) / 16 * 16, usable);
		} else if (size <= SLICE) {
			ASSERT_GT(size + size / 8 + 1, usable);
		} else if (size <= MIB) {
			ASSERT_GT(size + size / 4, usable);
		} else {
			ASSERT_EQ((size + KPAGE_BYTES - 1) / KPAGE_BYTES * KPAGE_BYTES, usable);
		}
		ptr[0] = 1;
		ptr[size / 2] = 2;
		ptr[usable - 1] = 3;
		xalloc_free(ptr);
	}
	ASSERT_EQ(0, stats_of(xalloc_arena_default()).nr_blocks);
}

TEST_F(lib_malloc, one_block_takes_the_whole_limit)
{
	char *ptr = xalloc_malloc(LIMIT_MIB * MIB);
	size_t i;

	ASSERT_NE(NULL, ptr);
	for (i = 0; i < LIMIT_MIB * MIB; i += MIB)
		ptr[i] = i / MIB;
	for (i = 0; i < LIMIT_MIB * MIB; i += MIB)
		ASSERT_EQ((char)(i / MIB), ptr[i]);
	errno = 0;
	ASSERT_EQ(NULL, xalloc_malloc(1));
	ASSERT_EQ(ENOMEM, errno);
	xalloc_free(ptr);
	ptr = xalloc_malloc(1);
	ASSERT_NE(NULL, ptr);
	xalloc_free(ptr);
}

TEST_F(lib_malloc, blocks_of_size_zero_have_addresses_of_their_own)
{
	void *a = xalloc_malloc(0), *b = xalloc_malloc(0), *c = xalloc_calloc(0, 8);

	ASSERT_NE(NULL, a);
	ASSERT_NE(NULL, b);
	ASSERT_NE(NULL, c);
	ASSERT_NE(a, b);
	ASSERT_NE(b, c);
	a = xalloc_realloc(a, 0);
	ASSERT_NE(NULL, a);
	xalloc_free_sized(a, 0);
	xalloc_free(b);
	xalloc_free(c);
}

TEST_F(lib_malloc, null_is_no_block)
{
	void *ptr;

	errno = EXDEV;
	xalloc_free(NULL);
	xalloc_free_sized(NULL, 7);
	xalloc_free_aligned_sized(NULL, 64, 7);
	ASSERT_EQ(0, xalloc_usable_size(NULL));
	ASSERT_EQ(EXDEV, errno);
	ptr = xalloc_realloc(NULL, 100);
	ASSERT_NE(NULL, ptr);
	errno = EXDEV;
	xalloc_free(ptr);
	ASSERT_EQ(EXDEV, errno);
}

TEST_F(lib_malloc, sizes_that_cannot_be_are_enomem)
{
	static const size_t sizes[] = {
		LIMIT_MIB * MIB + 1, 1UL << 40, (size_t)PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1,
		SIZE_MAX - SLICE, SIZE_MAX - 15, SIZE_MAX,
	};
	volatile size_t size;
	size_t i;
	void *ptr;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		size = sizes[i];
		errno = 0;
		ASSERT_EQ(NULL, xalloc_malloc(size));
		ASSERT_EQ(ENOMEM, errno);
		errno = 0;
		ASSERT_EQ(NULL, xalloc_calloc(1, size));
		ASSERT_EQ(ENOMEM, errno);
		errno = 0;
		ASSERT_EQ(NULL, xalloc_aligned_alloc(4096, size));
		ASSERT_EQ(ENOMEM, errno);
		ptr = xalloc_malloc(10);
		bytes_fill(ptr, 10, i);
		errno = 0;
		ASSERT_EQ(NULL, xalloc_realloc(ptr, size));
		ASSERT_EQ(ENOMEM, errno);
		ASSERT_TRUE(bytes_same(ptr, 10, i));
		xalloc_free(ptr);
	}
	size = SIZE_MAX / 2;
	ASSERT_EQ(NULL, xalloc_calloc(size, 3));
	ASSERT_EQ(NULL, xalloc_calloc(3, size));
	size = 1UL << 32;
	ASSERT_EQ(NULL, xalloc_calloc(size, size));
	ASSERT_EQ(0, stats_of(xalloc_arena_default()).nr_blocks);
}

TEST_F(lib_malloc, every_alignment_is_had_up_to_the_limit)
{
	static const size_t sizes[] = { 1, 100, 4096, 5000, 65536, 65537, 3 * 65536, 1 << 20 };
	size_t alignment, i;
	void *ptr;

	for (alignment = 1; alignment <= LIMIT_MIB / 2 * MIB; alignment *= 2) {
		for (i = 0; i < ARRAY_SIZE(sizes); i++) {
			/* Puts the next free run off any large alignment. */
			void *before = xalloc_malloc(SLICE + 1);

			ptr = xalloc_aligned_alloc(alignment, sizes[i]);
			ASSERT_NE(NULL, ptr) {
				TH_LOG("%zu bytes at %zu: %s", sizes[i], alignment,
				       strerror(errno));
			}
			ASSERT_EQ(0, (uintptr_t)ptr % alignment);
			ASSERT_LE(sizes[i], xalloc_usable_size(ptr));
			memset(ptr, 0x5a, sizes[i]);
			ASSERT_NE(NULL, before);
			xalloc_free_aligned_sized(ptr, alignment, sizes[i]);
			xalloc_free(before);
		}
	}
	/* Nothing else is there: the one aligned address of the whole arena. */
	ptr = xalloc_aligned_alloc(LIMIT_MIB * MIB, LIMIT_MIB * MIB);
	ASSERT_NE(NULL, ptr);
	ASSERT_EQ(0, (uintptr_t)ptr % (LIMIT_MIB * MIB));
	xalloc_free(ptr);
	ASSERT_EQ(0, stats_of(xalloc_arena_default()).nr_blocks);
}

TEST_F(lib_malloc, alignments_that_cannot_be_are_refused)
{
	volatile size_t alignment;

	for (alignment = 0; alignment < 100; alignment++) {
		if (alignment && !(alignment & (alignment - 1)))
			continue;
		errno = 0;
		ASSERT_EQ(NULL, xalloc_aligned_alloc(alignment, 16));
		ASSERT_EQ(EINVAL, errno);
	}
	for (alignment = 1UL << 40; alignment; alignment *= 2) {
		errno = 0;
		ASSERT_EQ(NULL, xalloc_aligned_alloc(alignment, SLICE));
		ASSERT_EQ(ENOMEM, errno);
	}
	ASSERT_EQ(0, stats_of(xalloc_arena_default()).granted_bytes);
}

TEST_F(lib_malloc, calloc_is_zero_also_where_others_wrote)
{
	static const size_t sizes[] = {
		1, 16, 100, 1000, 4096, 40000, 65536, 65537, 300000, 3 << 20,
	};
	unsigned char *ptrs[16], *ptr;
	unsigned int round, k;
	size_t i, size;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		size = sizes[i];
		for (round = 0; round < 3; round++) {
			for (k = 0; k < 16; k++) {
				ptr = xalloc_calloc(1, size);
				ASSERT_NE(NULL, ptr);
				ASSERT_TRUE(bytes_zero(ptr, size));
				memset(ptr, 0xa5, xalloc_usable_size(ptr));
				ptrs[k] = ptr;
			}
			/* One stays, so that slabs and segments with dirty blocks do too. */
			for (k = round == 2 ? 0 : 1; k < 16; k++)
				xalloc_free(ptrs[k]);
			if (round == 0)
				continue;
			xalloc_free(round == 1 ? ptrs[0] : NULL);
		}
	}
}

TEST_F(lib_malloc, realloc_keeps_the_contents)
{
	size_t size = 1, next;
	void *ptr = xalloc_malloc(size);

	ASSERT_NE(NULL, ptr);
	bytes_fill(ptr, size, 1);
	for (; size < 8 * MIB; size = next) {
		next = size + size / 3 + 1;
		ptr = xalloc_realloc(ptr, next);
		ASSERT_NE(NULL, ptr);
		ASSERT_TRUE(bytes_same(ptr, size, 1));
		bytes_fill(ptr, next, 1);
	}
	for (; size > 1; size = next) {
		next = size - size / 3;
		if (next == size)
			next--;
		ptr = xalloc_realloc(ptr, next);
		ASSERT_NE(NULL, ptr);
		ASSERT_TRUE(bytes_same(ptr, next, 1));
	}
	xalloc_free_sized(ptr, 1);
	ASSERT_EQ(0, stats_of(xalloc_arena_default()).nr_blocks);
}

TEST_F(lib_malloc, realloc_stays_where_the_class_stays)
{
	void *ptr = xalloc_malloc(1000);

	ASSERT_EQ(1024, xalloc_usable_size(ptr));
	ASSERT_EQ(ptr, xalloc_realloc(ptr, 1024));
	ASSERT_EQ(ptr, xalloc_realloc(ptr, 961));
	xalloc_free_sized(ptr, 961);
	ptr = xalloc_malloc(SLICE * 2);
	ASSERT_EQ(ptr, xalloc_realloc(ptr, SLICE + 1));
	ASSERT_EQ(SLICE + KPAGE_BYTES, xalloc_usable_size(ptr));
	xalloc_free_sized(ptr, SLICE + 1);
}

TEST_F(lib_malloc, realloc_to_nothing_keeps_the_byte_that_it_counts_as)
{
	static const size_t sizes[] = { 1, 10, 1000, 100000 };
	volatile size_t nothing = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		char *ptr = xalloc_malloc(sizes[i]);

		*ptr = 'x';
		ptr = xalloc_realloc(ptr, nothing);
		ASSERT_NE(NULL, ptr);
		ASSERT_EQ('x', *ptr);
		xalloc_free_sized(ptr, nothing);
	}
}

TEST_F(lib_malloc, realloc_to_less_does_not_fail_when_memory_is_out)
{
	size_t bytes = (LIMIT_MIB - 2) * MIB;
	void *most = xalloc_malloc(bytes), *rest[32], *ptr;
	int i;

	ASSERT_NE(NULL, most);
	for (i = 0; i < 32; i++) {
		rest[i] = xalloc_malloc(SLICE);
		ASSERT_NE(NULL, rest[i]);
	}
	ASSERT_EQ(NULL, xalloc_malloc(100));
	bytes_fill(most, 1000, 5);
	ptr = xalloc_realloc(most, 1000);
	ASSERT_EQ(most, ptr);
	ASSERT_TRUE(bytes_same(ptr, 1000, 5));
	/* Of another class than its size: must not be taken for a mistake. */
	xalloc_free_sized(ptr, 1000);
	for (i = 0; i < 32; i++)
		xalloc_free_sized(rest[i], SLICE);
}

TEST_F(lib_malloc, enomem_at_the_limit_loses_nothing)
{
	static const size_t sizes[] = { 48, 1000, 5000, 40000, 65536, 200000, 2 << 20 };
	size_t i, nr, nr_before, nr_refused = 0;
	struct xalloc_arena_stat stat;
	int round;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		nr_before = 0;
		for (round = 0; round < 2; round++) {
			void **list = NULL, **ptr;

			/* The list of all blocks is in them. */
			for (nr = 0; (ptr = xalloc_malloc(sizes[i])); nr++) {
				*ptr = list;
				list = ptr;
			}
			ASSERT_EQ(ENOMEM, errno);
			stat = stats_of(xalloc_arena_default());
			ASSERT_EQ(EDQUOT, stat.refused);
			ASSERT_EQ(nr, stat.nr_blocks);
			ASSERT_EQ(LIMIT_MIB * MIB, stat.committed_bytes);
			/* Less than an eighth to rounding, as much as a slab at the end. */
			ASSERT_LE(LIMIT_MIB * MIB, nr * (sizes[i] + sizes[i] / 3) + MIB);
			if (round) {
				/*
				 * What was kept of smaller blocks may have been in the way. Where
				 * runs lie decides whether one more large block fits.
				 */
				ASSERT_LE(nr_before, nr + (sizes[i] > SLICE));
				ASSERT_LT(nr_refused, stat.nr_refused);
			}
			nr_before = nr;
			nr_refused = stat.nr_refused;
			for (; list; list = ptr) {
				ptr = *list;
				xalloc_free_sized(list, sizes[i]);
			}
		}
		stat = stats_of(xalloc_arena_default());
		ASSERT_EQ(0, stat.nr_blocks);
		ASSERT_EQ(0, stat.used_bytes);
	}
}

TEST_F(lib_malloc, slabs_hold_what_is_asked_in_little_more)
{
	struct xalloc_arena *arena = arena_of(64 * MIB, 0);
	size_t size, usable, granted, nr;

	ASSERT_NE(NULL, arena);
	/* One more than each class, the worst of each: what one full slab takes for it. */
	for (size = 129; size < SLICE; size = usable + 1) {
		struct xalloc_heap *heap = xalloc_heap_create(arena);

		ASSERT_NE(NULL, heap);
		usable = xalloc_usable_size(xalloc_heap_malloc(heap, size));
		granted = stats_of(arena).granted_bytes;
		for (nr = 1; stats_of(arena).granted_bytes == granted; nr++)
			ASSERT_NE(NULL, xalloc_heap_malloc(heap, size));
		nr--;
		ASSERT_LE(granted * 100, nr * size * 115) {
			TH_LOG("%zu blocks of %zu bytes in a slab of %zu", nr, size, granted);
		}
		ASSERT_EQ(0, xalloc_heap_destroy(heap));
	}
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_malloc, large_blocks_grow_where_there_is_room)
{
	char *ptr = xalloc_malloc(2 * SLICE), *behind;

	ASSERT_NE(NULL, ptr);
	bytes_fill(ptr, 2 * SLICE, 1);
	/* The rest of what was granted for it. */
	ASSERT_EQ(ptr, xalloc_realloc(ptr, 4 * SLICE));
	behind = xalloc_malloc(2 * SLICE);
	ASSERT_EQ(ptr + 4 * SLICE, behind);
	bytes_fill(behind, 2 * SLICE, 2);
	ASSERT_NE(ptr, ptr = xalloc_realloc(ptr, 5 * SLICE));
	ASSERT_TRUE(bytes_same(ptr, 2 * SLICE, 1));
	ASSERT_TRUE(bytes_same(behind, 2 * SLICE, 2));
	xalloc_free(ptr);
	xalloc_free(behind);
}

TEST_F(lib_malloc, odd_large_blocks_fill_an_arena)
{
	struct xalloc_arena *arena = arena_of(256 * MIB, 0);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	char **list = NULL, **ptr;
	size_t nr, k;

	ASSERT_NE(NULL, heap);
	for (nr = 0; (ptr = xalloc_heap_malloc(heap, MIB + 1)); nr++) {
		ptr[0] = (char *)list;
		bytes_fill(ptr + 1, 100, nr);
		((char *)ptr)[MIB] = nr;
		list = ptr;
	}
	TH_LOG("%zu blocks of 1 MiB + 1 B in 256 MiB", nr);
	ASSERT_LE(254, nr);
	for (k = nr; k--; list = ptr) {
		ptr = (char **)list[0];
		ASSERT_TRUE(bytes_same(list + 1, 100, k));
		ASSERT_EQ((char)k, ((char *)list)[MIB]);
		xalloc_free_sized(list, MIB + 1);
	}
	ASSERT_EQ(0, stats_of(arena).committed_bytes);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_malloc, memory_that_is_kept_does_not_count_against_the_limit)
{
	size_t size = 2 * MIB, i, k;
	char *blocks[LIMIT_MIB / 2], *ptr;

	for (k = 1; k < ARRAY_SIZE(blocks); k *= 2) {
		for (i = 0; i < ARRAY_SIZE(blocks); i++)
			ASSERT_NE(NULL, blocks[i] = xalloc_malloc(size));
		/* Gaps of k segments, none of which can hold what comes. */
		for (i = 0; i < ARRAY_SIZE(blocks); i++)
			if (i / k % 2)
				xalloc_free_sized(blocks[i], size);
		ASSERT_NE(NULL, ptr = xalloc_calloc(1, LIMIT_MIB / 2 * MIB));
		for (i = 0; i < LIMIT_MIB / 2 * MIB; i += 4096) {
			ASSERT_EQ(0, ptr[i]);
			ptr[i] = 1;
		}
		ASSERT_EQ(LIMIT_MIB * MIB, stats_of(xalloc_arena_default()).committed_bytes);
		xalloc_free(ptr);
		for (i = 0; i < ARRAY_SIZE(blocks); i++) {
			if (i / k % 2)
				continue;
			memset(blocks[i], 0xff, size);
			xalloc_free_sized(blocks[i], size);
		}
	}
}

TEST_F(lib_malloc, freed_blocks_are_used_again_before_memory_is_taken)
{
	static const size_t sizes[] = { 16, 80, 700, 9000 };
	static uint64_t *blocks[20000];
	size_t i, k, nr, granted;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		nr = 4 * MIB / sizes[i] < ARRAY_SIZE(blocks) ? 4 * MIB / sizes[i] :
							       ARRAY_SIZE(blocks);
		for (k = 0; k < nr; k++) {
			ASSERT_NE(NULL, blocks[k] = xalloc_malloc(sizes[i]));
			*blocks[k] = k;
		}
		granted = stats_of(xalloc_arena_default()).granted_bytes;
		/* Backwards, so that the holes are below where blocks were taken last. */
		for (k = nr - 1; k < nr; k -= 3)
			xalloc_free(blocks[k]);
		for (k = nr - 1; k < nr; k -= 3) {
			ASSERT_NE(NULL, blocks[k] = xalloc_malloc(sizes[i]));
			*blocks[k] = k;
		}
		ASSERT_EQ(granted, stats_of(xalloc_arena_default()).granted_bytes);
		for (k = 0; k < nr; k++) {
			ASSERT_EQ(k, *blocks[k]);
			xalloc_free_sized(blocks[k], sizes[i]);
		}
	}
	ASSERT_EQ(0, stats_of(xalloc_arena_default()).nr_blocks);
}

static void *handed_over[1000];
static pthread_barrier_t turn;

static void *free_handed_over(void *nr_rounds)
{
	uintptr_t round;
	size_t i;

	for (round = 0; round < (uintptr_t)nr_rounds; round++) {
		pthread_barrier_wait(&turn);
		for (i = 0; i < ARRAY_SIZE(handed_over); i++)
			xalloc_free(handed_over[i]);
		pthread_barrier_wait(&turn);
	}
	return NULL;
}

TEST_F(lib_malloc, what_another_thread_frees_comes_back)
{
	static const size_t sizes[] = { 64, 700, 9000 };
	const uintptr_t nr_rounds = 20;
	size_t granted, i, k, before;
	pthread_t thread;
	uintptr_t round;

	ASSERT_EQ(0, pthread_barrier_init(&turn, NULL, 2));
	xalloc_free(xalloc_malloc(1));
	xalloc_arena_trim(xalloc_arena_default());
	before = stats_of(xalloc_arena_default()).granted_bytes;
	for (k = 0; k < ARRAY_SIZE(sizes); k++) {
		ASSERT_EQ(0, pthread_create(&thread, NULL, free_handed_over, (void *)nr_rounds));
		for (round = 0; round < nr_rounds; round++) {
			for (i = 0; i < ARRAY_SIZE(handed_over); i++) {
				ASSERT_NE(NULL, handed_over[i] = xalloc_malloc(sizes[k]));
				memset(handed_over[i], 1, sizes[k]);
			}
			if (round == 1)
				granted = stats_of(xalloc_arena_default()).granted_bytes;
			ASSERT_EQ(i, stats_of(xalloc_arena_default()).nr_blocks);
			pthread_barrier_wait(&turn);
			pthread_barrier_wait(&turn);
			ASSERT_EQ(0, stats_of(xalloc_arena_default()).nr_blocks);
		}
		/* Once caches are full, no more memory is taken. */
		ASSERT_GE(granted, stats_of(xalloc_arena_default()).granted_bytes);
		ASSERT_EQ(0, pthread_join(thread, NULL));
		xalloc_arena_trim(xalloc_arena_default());
		ASSERT_EQ(before, stats_of(xalloc_arena_default()).granted_bytes);
	}
}

TEST_HARNESS_MAIN
