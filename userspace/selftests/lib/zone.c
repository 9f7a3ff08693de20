// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults that were found in the part of the library that maps addresses as they are used: threads
 * that map at once, arenas side by side, and addresses that cannot be had.
 */
#include <pthread.h>
#include <sys/resource.h>

#include "selftest.h"
#include "libtest.h"

#define NR_THREADS 24
#define NR_BLOCKS 100

LIBTEST_FIXTURE(lib_zone, "256M")

static pthread_barrier_t barrier;

static void *fill_and_free(void *arg)
{
	size_t bytes = 16000 + *(int *)arg % 8 * 2000, nr = 0;
	void *blocks[NR_BLOCKS];

	pthread_barrier_wait(&barrier);
	while (nr < NR_BLOCKS && (blocks[nr] = xalloc_malloc(bytes)))
		nr++;
	while (nr)
		xalloc_free(blocks[--nr]);
	return NULL;
}

static int threads_begin(void *arg)
{
	pthread_t threads[NR_THREADS];
	int ids[NR_THREADS], i;

	(void)arg;
	pthread_barrier_init(&barrier, NULL, NR_THREADS);
	for (i = 0; i < NR_THREADS; i++) {
		ids[i] = i;
		CHECK(!pthread_create(&threads[i], NULL, fill_and_free, &ids[i]));
	}
	for (i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_join(threads[i], NULL));
	return 0;
}

/* A free of a block that was in use was called a double one. */
TEST_F_TIMEOUT(lib_zone, threads_map_segments_at_once, TEST_TIMEOUT_LONG)
{
	char text[1024];
	int i;

	for (i = 0; i < (is_fast() ? 100 : 3); i++)
		ASSERT_EQ(0, run_child(threads_begin, NULL, text, sizeof(text))) {
			TH_LOG("round %d: %s", i, text);
		}
}

static atomic_bool stops;

static void *come_and_go(void *arg)
{
	size_t *nr_wrong = arg;

	while (!atomic_load(&stops)) {
		struct xalloc_arena *arena = arena_of(64 * MIB, 2 * SEGMENT);
		struct xalloc_heap *heap = arena ? xalloc_heap_create(arena) : NULL;

		*nr_wrong += !heap || !xalloc_heap_malloc(heap, 100000) ||
			     xalloc_arena_destroy(arena);
	}
	return NULL;
}

/* The first large block of an arena looked at what is known of the arena before it. */
TEST_F_TIMEOUT(lib_zone, an_arena_goes_beside_one_that_is_used, TEST_TIMEOUT_LONG)
{
	struct xalloc_arena *before = arena_of(64 * MIB, 2 * SEGMENT);
	struct xalloc_arena *arena = arena_of(64 * MIB, 2 * SEGMENT);
	struct xalloc_heap *heap;
	size_t nr_wrong = 0;
	pthread_t thread;
	int i;

	ASSERT_NE(NULL, before);
	ASSERT_NE(NULL, arena);
	heap = xalloc_heap_create(arena);
	ASSERT_NE(NULL, heap);
	ASSERT_EQ(0, xalloc_arena_destroy(before));
	ASSERT_EQ(0, pthread_create(&thread, NULL, come_and_go, &nr_wrong));
	for (i = 0; i < (is_fast() ? 100000 : 300); i++) {
		void *ptr = xalloc_heap_malloc(heap, 100000);

		ASSERT_NE(NULL, ptr);
		xalloc_free(ptr);
	}
	atomic_store(&stops, true);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, nr_wrong);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_zone, what_others_have_mapped_stays)
{
	unsigned char *theirs, *blocks[100];
	struct iovec range;
	size_t nr;

	xalloc_free(xalloc_malloc(1));
	ASSERT_EQ(0, xalloc_arena_range(xalloc_arena_default(), &range));
	theirs = mmap((char *)range.iov_base + 32 * MIB, KPAGE_BYTES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	ASSERT_NE(MAP_FAILED, theirs);
	bytes_fill(theirs, KPAGE_BYTES, 1);
	for (nr = 0; nr < 100 && (blocks[nr] = xalloc_malloc(MIB)); nr++) {
		ASSERT_TRUE(blocks[nr] + MIB <= theirs || blocks[nr] >= theirs + KPAGE_BYTES);
		bytes_fill(blocks[nr], KPAGE_BYTES, nr);
	}
	ASSERT_LT(20, nr);
	while (nr--) {
		ASSERT_TRUE(bytes_same(blocks[nr], KPAGE_BYTES, nr));
		xalloc_free(blocks[nr]);
	}
	ASSERT_TRUE(bytes_same(theirs, KPAGE_BYTES, 1));
	ASSERT_EQ(0, munmap(theirs, KPAGE_BYTES));
}

static int addresses_end(void *arg)
{
	struct rlimit limit = { .rlim_max = RLIM_INFINITY };
	void *ptr;

	(void)arg;
	CHECK(xalloc_malloc(100));
	limit.rlim_cur = status_bytes("VmSize") + 8 * MIB;
	CHECK(!setrlimit(RLIMIT_AS, &limit));
	errno = 0;
	CHECK(!xalloc_malloc(64 * MIB));
	CHECK(errno == ENOMEM);
	CHECK(!xalloc_arena_trim(xalloc_arena_default()));
	CHECK(stats_of(xalloc_arena_default()).committed_bytes <= 2 * SEGMENT);
	limit.rlim_cur = RLIM_INFINITY;
	CHECK(!setrlimit(RLIMIT_AS, &limit));
	ptr = xalloc_malloc(64 * MIB);
	CHECK(ptr);
	CHECK(bytes_zero(ptr, 64 * MIB));
	return 0;
}

/* What was granted and could not be mapped was written to. */
TEST_F(lib_zone, no_address_is_no_memory)
{
	char text[1024];

	SKIP_SANITIZED("has more addresses than any RLIMIT_AS");
	ASSERT_EQ(0, run_child(addresses_end, NULL, text, sizeof(text))) {
		TH_LOG("%s", text);
	}
}

TEST_HARNESS_MAIN
