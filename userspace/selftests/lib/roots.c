// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: LeakSanitizer looks into blocks for pointers to memory of malloc().
 *
 * Built with AddressSanitizer this program has leaks looked for. Otherwise it takes the part of
 * LeakSanitizer: it notes where the library says that pointers may be.
 */
#include <sanitizer/lsan_interface.h>

#include "preload.h"
#include "selftest.h"

LIBTEST_FIXTURE(lib_roots, "32M")

/* Memory that the program has mapped for itself. */
static struct xalloc_arena *adopted_arena(void)
{
	void *memory = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0);

	return memory == MAP_FAILED ? NULL : xalloc_arena_adopt(memory, 4 * MIB);
}

#ifdef __SANITIZE_ADDRESS__

#define NR_POINTERS 200

/* In a function of its own, so that few copies stay on the stack. */
static __attribute__((noinline)) bool allocate_pointers(char **pointers)
{
	int i;

	for (i = 0; i < NR_POINTERS; i++) {
		pointers[i] = malloc(100);
		if (!pointers[i])
			return false;
		memset(pointers[i], i, 100);
	}
	return true;
}

/* Overwrites what is left on the stack of earlier calls. */
static __attribute__((noinline)) void wipe_stack(void)
{
	volatile char room[20000];

	memset((char *)room, 0, sizeof(room));
}

static bool finds_leaks(void)
{
	wipe_stack();
	return __lsan_do_recoverable_leak_check();
}

static int looks_into(struct xalloc_heap *heap, size_t bytes)
{
	char **pointers = heap ? xalloc_heap_malloc(heap, bytes) : xalloc_malloc(bytes);

	CHECK(pointers && allocate_pointers(pointers));
	CHECK(!finds_leaks());
	memset(pointers, 0, bytes);
	/* So that the first look was one. */
	CHECK(finds_leaks());
	return 0;
}

static int default_heap(void)
{
	return looks_into(NULL, NR_POINTERS * sizeof(void *));
}

static int large_block(void)
{
	return looks_into(NULL, 3 * MIB);
}

static int own_arena(void)
{
	return looks_into(xalloc_heap_create(arena_of(8 * MIB, 0)), 5000);
}

static int adopted(void)
{
	return looks_into(xalloc_heap_create(adopted_arena()), 5000);
}

static int destroyed_arena(void)
{
	struct xalloc_arena *arena = arena_of(8 * MIB, 0);
	char **pointers = xalloc_heap_malloc(xalloc_heap_create(arena), 5000);

	CHECK(pointers && allocate_pointers(pointers));
	CHECK(!finds_leaks());
	CHECK(!xalloc_arena_destroy(arena));
	CHECK(finds_leaks());
	return 0;
}

static const struct preload_case cases[] = {
	{ "default_heap", default_heap },
	{ "large_block", large_block },
	{ "own_arena", own_arena },
	{ "adopted", adopted },
	{ "destroyed_arena", destroyed_arena },
};

/* The runtime reads its options before a constructor can set them. */
static __attribute__((constructor)) void start(void)
{
	be_preloaded(cases, ARRAY_SIZE(cases));
}

static int exec_case(void *arg)
{
	setenv(CASE, arg, 1);
	setenv("ASAN_OPTIONS", "detect_leaks=1", 1);
	setenv("LSAN_OPTIONS", "report_objects=0:max_leaks=1", 1);
	execl("/proc/self/exe", program_invocation_short_name, NULL);
	return 1;
}

TEST_F(lib_roots, pointers_in_blocks_are_found)
{
	char text[32768];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		EXPECT_EQ(0, run_child(exec_case, (void *)cases[i].name, text, sizeof(text))) {
			TH_LOG("%s: %s", cases[i].name, text);
		}
	}
}

#else

#define NR_ROOTS 4096

static struct root {
	const void *begin;
	size_t size;
} roots[NR_ROOTS];

static int nr_roots, nr_unknown;

void __lsan_register_root_region(const void *begin, size_t size)
{
	if (nr_roots < NR_ROOTS)
		roots[nr_roots++] = (struct root){ begin, size };
}

void __lsan_unregister_root_region(const void *begin, size_t size)
{
	int i;

	for (i = 0; i < nr_roots; i++) {
		if (roots[i].begin == begin && roots[i].size == size) {
			roots[i] = roots[--nr_roots];
			return;
		}
	}
	nr_unknown++;
}

static size_t bytes_of_roots(void)
{
	size_t bytes = 0;
	int i;

	for (i = 0; i < nr_roots; i++)
		bytes += roots[i].size;
	return bytes;
}

/* How much of the block is in roots. A large one may lie in several, which touch. */
static size_t bytes_in_roots(const char *ptr, size_t bytes)
{
	size_t sum = 0;
	int i;

	for (i = 0; i < nr_roots; i++) {
		const char *begin = roots[i].begin, *end = begin + roots[i].size;

		begin = begin > ptr ? begin : ptr;
		end = end < ptr + bytes ? end : ptr + bytes;
		if (begin < end)
			sum += end - begin;
	}
	return sum;
}

TEST_F(lib_roots, what_is_granted_is_a_root)
{
	struct xalloc_arena *arenas[] = { arena_of(16 * MIB, 0), adopted_arena() };
	struct xalloc_heap *heap;
	size_t size, i;
	char *ptr;

	xalloc_free(xalloc_malloc(1));
	for (i = 0; i < ARRAY_SIZE(arenas); i++) {
		size_t others;

		heap = xalloc_heap_create(arenas[i]);
		ASSERT_NE(NULL, heap);
		for (size = 1; size < MIB; size = size * 3 / 2 + 1) {
			ptr = xalloc_heap_malloc(heap, size);
			ASSERT_NE(NULL, ptr);
			ASSERT_EQ(size, bytes_in_roots(ptr, size));
			if (size % 2)
				xalloc_free(ptr);
			ptr = xalloc_malloc(size);
			ASSERT_NE(NULL, ptr);
			ASSERT_EQ(size, bytes_in_roots(ptr, size));
			xalloc_free(ptr);
		}
		ASSERT_NE(NULL, xalloc_heap_aligned_alloc(heap, MIB, MIB));
		ASSERT_EQ(0, xalloc_arena_trim(xalloc_arena_default()));
		others = stats_of(xalloc_arena_default()).granted_bytes;
		ASSERT_EQ(others + stats_of(arenas[i]).granted_bytes, bytes_of_roots());
		ASSERT_EQ(0, xalloc_arena_destroy(arenas[i]));
		ASSERT_EQ(others, bytes_of_roots());
	}
	ASSERT_EQ(0, nr_unknown);
	ASSERT_GT(NR_ROOTS, nr_roots);
}

#endif

TEST_HARNESS_MAIN
