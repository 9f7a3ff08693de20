// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: libxalloc at its edges: every alignment with every size, on both kinds of heaps;
 * sizes that overflow on their way; errno after each kind of free; an arena that is full, again
 * and again, and loses nothing by it.
 */
#include <pthread.h>

#include "libtest.h"
#include "selftest.h"

#define LIMIT (64 * MIB)

LIBTEST_FIXTURE(lib_edge, "64M")

static void *alloc_aligned(struct xalloc_heap *heap, size_t alignment, size_t size)
{
	return heap ? xalloc_heap_aligned_alloc(heap, alignment, size) :
		      xalloc_aligned_alloc(alignment, size);
}

/* Two blocks at a time, so that one of them is not where everything begins. */
static bool is_had(struct xalloc_heap *heap, size_t alignment, size_t size)
{
	char *a = alloc_aligned(heap, alignment, size), *b = alloc_aligned(heap, alignment, size);
	size_t last = size ? size - 1 : 0;
	bool ok = a && b && a != b && (uintptr_t)a % alignment == 0 &&
		  (uintptr_t)b % alignment == 0 && xalloc_usable_size(a) >= size &&
		  xalloc_usable_size(b) >= size;

	if (ok) {
		a[0] = 1;
		a[last] = 1;
		b[0] = 2;
		b[last] = 2;
		ok = a[0] == 1 && a[last] == 1;
	}
	xalloc_free_aligned_sized(a, alignment, size);
	xalloc_free(b);
	return ok;
}

TEST_F_TIMEOUT(lib_edge, every_alignment_with_every_size, TEST_TIMEOUT_LONG)
{
	struct xalloc_arena *arena = arena_of(LIMIT, 0);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	size_t alignment, base, size, nr = 0;
	int more;

	ASSERT_NE(NULL, heap);
	for (alignment = 1; alignment <= LIMIT / 4; alignment *= is_fast() ? 2 : 8) {
		for (base = 1; base <= LIMIT / 8; base *= is_fast() ? 2 : 8) {
			for (more = is_fast() ? -1 : 1; more <= 1; more++) {
				size = base + more;
				ASSERT_TRUE(is_had(NULL, alignment, size)) {
					TH_LOG("%zu bytes at %zu", size, alignment);
				}
				ASSERT_TRUE(is_had(heap, alignment, size)) {
					TH_LOG("%zu bytes at %zu in a heap", size, alignment);
				}
				nr += 4;
			}
		}
	}
	TH_LOG("%zu blocks", nr);
	ASSERT_EQ(0, stats_of(xalloc_arena_default()).nr_blocks);
	ASSERT_EQ(0, stats_of(arena).nr_blocks);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

/* All allocating calls must refuse @size with ENOMEM, and @alignment with it. */
static const char *refused(struct xalloc_heap *heap, volatile size_t size, size_t alignment)
{
	char *ptr = xalloc_malloc(24), *large = xalloc_heap_malloc(heap, 100000);
	const char *call = NULL;

	if (!ptr || !large)
		return "nothing at all";
	bytes_fill(ptr, 24, size);
	bytes_fill(large, 100000, size);
#define REFUSED(...)						\
do {								\
	errno = 0;						\
	if ((__VA_ARGS__) || errno != ENOMEM)			\
		call = #__VA_ARGS__;				\
} while (0)
	REFUSED(xalloc_malloc(size));
	REFUSED(xalloc_heap_malloc(heap, size));
	REFUSED(xalloc_calloc(size, 1));
	REFUSED(xalloc_calloc(1, size));
	REFUSED(xalloc_calloc(size / 2 + 1, 2));
	REFUSED(xalloc_calloc(size, size));
	REFUSED(xalloc_heap_calloc(heap, size, 1));
	REFUSED(xalloc_heap_calloc(heap, 7, size / 7 + 1));
	REFUSED(xalloc_heap_calloc(heap, size, size));
	REFUSED(xalloc_aligned_alloc(alignment, size));
	REFUSED(xalloc_heap_aligned_alloc(heap, alignment, size));
	REFUSED(xalloc_realloc(NULL, size));
	REFUSED(xalloc_realloc(ptr, size));
	REFUSED(xalloc_realloc(large, size));
	REFUSED(xalloc_heap_realloc(heap, NULL, size));
	REFUSED(xalloc_heap_realloc(heap, ptr, size));
	REFUSED(xalloc_heap_realloc(heap, large, size));
#undef REFUSED
	if (!bytes_same(ptr, 24, size) || !bytes_same(large, 100000, size))
		call = "realloc changed what it could not move";
	xalloc_free_sized(ptr, 24);
	xalloc_free_sized(large, 100000);
	return call;
}

TEST_F(lib_edge, sizes_that_overflow_are_enomem_in_every_call)
{
	struct xalloc_arena *arena = arena_of(LIMIT, 0);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	size_t alignment, bit, size, nr = 0;
	const char *call;
	void *ptr;

	ASSERT_NE(NULL, heap);
	for (bit = 28; bit < 64; bit += is_fast() ? 1 : 7) {
		static const size_t less[] = {
			0, 1, 15, 16, 17, 4095, 4096, 4097, 65535, 65536, 65537, 2097151, 2097152,
			2097153,
		};
		size_t i;

		for (i = 0; i < 2 * ARRAY_SIZE(less); i++) {
			/* Below a power of two and, the last of which is 2^64, above. */
			size = (2UL << bit) - less[i / 2];
			if (i % 2)
				size = (1UL << bit) + less[i / 2];
			if (!size)
				continue;
			alignment = 1UL << (nr * 7) % 64;
			call = refused(heap, size, alignment);
			ASSERT_EQ(NULL, call) {
				TH_LOG("size %#zx, alignment %#zx: %s: errno %d", size, alignment,
				       call, errno);
			}
			nr++;
		}
	}
	TH_LOG("%zu sizes", nr);
	/* More alignment than the arena has: only by luck, which must be true then. */
	for (alignment = LIMIT * 2; alignment; alignment *= 2) {
		errno = 0;
		ptr = xalloc_heap_aligned_alloc(heap, alignment, 1);
		ASSERT_TRUE(ptr ? (uintptr_t)ptr % alignment == 0 : errno == ENOMEM);
		xalloc_free(ptr);
	}
	ASSERT_EQ(0, stats_of(arena).nr_blocks);
	ASSERT_EQ(0, stats_of(xalloc_arena_default()).nr_blocks);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

static void *frees[2000];
static int nr_frees;
static size_t frees_bytes;

/* Or as many as there are. */
static void *allocate_all(void *arg)
{
	struct xalloc_heap *heap = arg;
	int i;

	memset(frees, 0, sizeof(frees));
	for (i = 0; i < nr_frees; i++) {
		frees[i] = heap ? xalloc_heap_malloc(heap, frees_bytes) :
				  xalloc_malloc(frees_bytes);
		if (!frees[i])
			break;
	}
	return NULL;
}

/* Returns how many of the frees changed errno. */
static void *free_all(void *arg)
{
	uintptr_t nr_wrong = 0;
	int i;

	(void)arg;
	for (i = 0; i < nr_frees; i++) {
		errno = EXDEV + i % 7;
		if (i % 2)
			xalloc_free(frees[i]);
		else
			xalloc_free_sized(frees[i], frees_bytes);
		nr_wrong += errno != EXDEV + i % 7;
	}
	return (void *)nr_wrong;
}

TEST_F(lib_edge, no_free_changes_errno)
{
	/* So many that caches overflow, slabs empty, runs go back to the kernel. */
	static const size_t sizes[] = { 16, 1000, 20000, 65536, 65537, 300000, 3000000 };
	struct xalloc_arena *arena = arena_of(LIMIT, 0);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	pthread_t thread;
	unsigned int how;
	void *nr_wrong;
	size_t i;

	ASSERT_NE(NULL, heap);
	nr_frees = is_fast() ? ARRAY_SIZE(frees) : 400;
	/* Then system calls fail that the local backend makes, not that it could not do without. */
	if (is_local() && mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
		TH_LOG("memory cannot be locked: %s", strerror(errno));
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (how = 0; how < 6; how++) {
			struct xalloc_heap *from = how < 3 ? heap : NULL;

			frees_bytes = sizes[i];
			/* By this thread, by another one than this, by one that is new to it. */
			if (how % 3 == 1) {
				ASSERT_EQ(0, pthread_create(&thread, NULL, allocate_all, from));
				ASSERT_EQ(0, pthread_join(thread, NULL));
			} else {
				allocate_all(from);
			}
			if (how % 3 == 2) {
				ASSERT_EQ(0, pthread_create(&thread, NULL, free_all, NULL));
				ASSERT_EQ(0, pthread_join(thread, &nr_wrong));
			} else {
				nr_wrong = free_all(NULL);
			}
			ASSERT_EQ(NULL, nr_wrong) {
				TH_LOG("%zu bytes, way %u", frees_bytes, how);
			}
		}
	}
	ASSERT_EQ(0, stats_of(xalloc_arena_default()).nr_blocks);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

#define NR_KEPT 40000

static void *kept[NR_KEPT];

/* Fills with blocks of random sizes until @nr_refused requests were refused. Returns how many. */
static size_t fill_randomly(struct xalloc_heap *heap, uint32_t *seed, unsigned int nr_refused)
{
	size_t nr = 0;

	while (nr < NR_KEPT && nr_refused) {
		size_t size = random_next(seed) & ((2UL << random_next(seed) % 21) - 1);

		errno = 0;
		kept[nr] = heap ? xalloc_heap_malloc(heap, size) : xalloc_malloc(size);
		if (kept[nr])
			nr++;
		else if (errno == ENOMEM)
			nr_refused--;
		else
			return 0;
	}
	return nr;
}

TEST_F_TIMEOUT(lib_edge, a_full_arena_recovers_and_nothing_is_lost, TEST_TIMEOUT_LONG)
{
	struct xalloc_arena *arena = arena_of(LIMIT, LIMIT / 2), *of;
	unsigned int round, nr_rounds = is_long_run() ? 400 : is_local() ? 20 : 6;
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	uint32_t seed = random_seed() | 1;
	struct xalloc_arena_stat stat;
	size_t nr, i;
	void *ptr;

	TH_LOG("SEED=%u", seed);
	ASSERT_NE(NULL, heap);
	for (round = 0; round < nr_rounds; round++) {
		of = round % 2 ? xalloc_arena_default() : arena;
		nr = fill_randomly(round % 2 ? NULL : heap, &seed, 50);
		ASSERT_NE(0, nr);
		stat = stats_of(of);
		ASSERT_EQ(nr, stat.nr_blocks);
		ASSERT_LE(stat.committed_bytes, stat.limit_bytes);
		ASSERT_NE(0, stat.refused);
		/* In a random order. */
		for (i = nr; i; i--) {
			size_t k = random_next(&seed) % i;

			ptr = kept[k];
			kept[k] = kept[i - 1];
			xalloc_free(ptr);
		}
		stat = stats_of(of);
		ASSERT_EQ(0, stat.nr_blocks);
		ASSERT_EQ(0, stat.used_bytes);
		/* All of it, in one block: nothing is kept that is in the way. */
		ptr = round % 2 ? xalloc_malloc(stat.limit_bytes) :
				  xalloc_heap_malloc(heap, stat.limit_bytes);
		ASSERT_NE(NULL, ptr) {
			TH_LOG("round %u", round);
		}
		xalloc_free(ptr);
	}
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

#define NR_ROUND 100

/* Blocks of all kinds come and go, or are left to heap_destroy and arena_destroy. */
static void *use_and_leave(void *arg)
{
	struct xalloc_arena *arena = arena_of(32 * MIB, 0);
	struct xalloc_heap *heaps[2] = { xalloc_heap_create(arena), xalloc_heap_create(arena) };
	uint32_t *seed = arg, i;
	void *ptrs[NR_ROUND];

	for (i = 0; i < NR_ROUND; i++) {
		size_t size = random_next(seed) & ((2UL << (4 + random_next(seed) % 14)) - 1);

		ptrs[i] = i % 3 < 2 ? xalloc_heap_malloc(heaps[i % 3], size) : xalloc_malloc(size);
		if (i % 4 == 0)
			ptrs[i] = xalloc_realloc(ptrs[i], size * 2);
		if (!ptrs[i])
			abort();
	}
	for (i = 0; i < NR_ROUND; i++)
		if (i % 3 || random_next(seed) % 2)
			xalloc_free(ptrs[i]);
	if (xalloc_heap_destroy(heaps[0]) || xalloc_arena_destroy(arena))
		abort();
	return NULL;
}

/* Blocks of the smallest size, wherever there can be any: then all tables are in use. */
static void fill_and_free(struct xalloc_heap *heap)
{
	void **last = NULL, **ptr;

	while ((ptr = heap ? xalloc_heap_malloc(heap, 16) : xalloc_malloc(16))) {
		*ptr = last;
		last = ptr;
	}
	for (; last; last = ptr) {
		ptr = *last;
		xalloc_free(last);
	}
}

TEST_F(lib_edge, metadata_serves_again_and_again)
{
	struct xalloc_arena *arena = arena_of(32 * MIB, 0);
	unsigned int round, nr_rounds = is_long_run() ? 20000 : is_local() ? 2000 : 40;
	uint32_t seed = random_seed() | 1;
	size_t before = 0, after;
	pthread_t thread;

	SKIP_SANITIZED("has more memory of its own than what is measured");
	TH_LOG("SEED=%u", seed);
	fill_and_free(NULL);
	fill_and_free(xalloc_heap_create(arena));
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	for (round = 0; round < nr_rounds; round++) {
		if (round % 4) {
			use_and_leave(&seed);
		} else {
			ASSERT_EQ(0, pthread_create(&thread, NULL, use_and_leave, &seed));
			ASSERT_EQ(0, pthread_join(thread, NULL));
		}
		/* By then what a process keeps ready is there, whatever the seed. */
		if (round == nr_rounds / 2)
			before = resident_outside(xalloc_arena_default());
	}
	after = resident_outside(xalloc_arena_default());
	TH_LOG("%zu KiB outside of arenas after %u rounds, %zu after %u", before >> 10,
	       nr_rounds / 2, after >> 10, nr_rounds);
	ASSERT_LE(after, before + 128 * 1024);
	ASSERT_EQ(0, stats_of(xalloc_arena_default()).nr_blocks);
}

TEST_HARNESS_MAIN
