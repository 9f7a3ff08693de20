// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: arenas of memory that somebody else allocated, wherever it lies and however long it
 * is.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "libtest.h"
#include "selftest.h"

LIBTEST_FIXTURE(lib_adopt, "16M")

#define ROOM ((size_t)24 << 20)

/* Of ROOM bytes, filled with what is not zero. */
static char *memory_of_another(void)
{
	char *memory = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		abort();
	memset(memory, 0x5a, ROOM);
	return memory;
}

static bool lies_in(const void *ptr, size_t bytes, const char *memory, size_t size)
{
	return (const char *)ptr >= memory && (const char *)ptr + bytes <= memory + size;
}

TEST_F(lib_adopt, any_address_and_length)
{
	static const size_t sizes[] = {
		0, 1, 4095, 65535, 65536, 100000, 2097151, 2097152, 5000000
	};
	static const size_t offsets[] = { 0, 1, 16, 4096, 65535, 65536, 1000003, 2097152 };
	struct xalloc_heap *heap;
	struct xalloc_arena *arena;
	size_t i, k, used;
	char *memory = memory_of_another(), *block;
	struct iovec range;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		for (k = 0; k < ARRAY_SIZE(sizes); k++) {
			char *first = memory + offsets[i];
			size_t size = sizes[k] + 131071, bytes = 4096;

			memset(memory, 0x5a, ROOM);
			arena = xalloc_arena_adopt(first, size);
			ASSERT_NE(NULL, arena);
			ASSERT_EQ(0, xalloc_arena_range(arena, &range));
			ASSERT_TRUE(lies_in(range.iov_base, range.iov_len, first, size));
			ASSERT_EQ(0, (uintptr_t)range.iov_base % SLICE);
			ASSERT_EQ(0, range.iov_len % SLICE);
			ASSERT_GT(SLICE, (size_t)((char *)range.iov_base - first));
			ASSERT_GT(SLICE, first + size - (char *)range.iov_base - range.iov_len);
			ASSERT_EQ(range.iov_len, stats_of(arena).arena_bytes);
			ASSERT_EQ(range.iov_len, stats_of(arena).committed_bytes);
			ASSERT_EQ(range.iov_len, stats_of(arena).limit_bytes);

			heap = xalloc_heap_create(arena);
			ASSERT_NE(NULL, heap);
			for (used = 0; (block = xalloc_heap_malloc(heap, bytes)); used += bytes) {
				ASSERT_TRUE(lies_in(block, bytes, range.iov_base, range.iov_len));
				memset(block, 1, bytes);
			}
			ASSERT_EQ(ENOMEM, errno);
			ASSERT_EQ(range.iov_len, used);
			ASSERT_EQ(0, xalloc_heap_destroy(heap));
			ASSERT_EQ(0, stats_of(arena).granted_bytes);
			ASSERT_EQ(0, xalloc_arena_destroy(arena));
			/* What is not its own is as it was. */
			first = range.iov_base;
			ASSERT_TRUE(bytes_are(memory, first - memory, 0x5a));
			first += range.iov_len;
			ASSERT_TRUE(bytes_are(first, memory + ROOM - first, 0x5a));
		}
	}
}

TEST_F(lib_adopt, every_kind_of_block)
{
	struct xalloc_chunk_hook hook = { .size = sizeof(hook) };
	struct xalloc_block_handle handle;
	struct xalloc_arena *arena;
	struct xalloc_heap *heap;
	char *memory = memory_of_another() + 4096, *ptr;
	struct iovec range;
	size_t size;

	arena = xalloc_arena_adopt(memory, ROOM - 8192);
	ASSERT_NE(NULL, arena);
	heap = xalloc_heap_create(arena);
	ASSERT_NE(NULL, heap);
	ASSERT_EQ(0, xalloc_arena_range(arena, &range));
	for (size = 1; size < ROOM / 4; size = size * 3 / 2 + 1) {
		ptr = xalloc_heap_calloc(heap, 1, size);
		ASSERT_NE(NULL, ptr);
		ASSERT_TRUE(lies_in(ptr, size, range.iov_base, range.iov_len));
		ASSERT_TRUE(bytes_zero(ptr, size));
		bytes_fill(ptr, size, size);
		ASSERT_EQ(0, xalloc_handle(ptr, &handle));
		ASSERT_EQ(ptr, xalloc_at(arena, handle.offset));
		ASSERT_EQ(ptr, (char *)range.iov_base + handle.offset);
		ptr = xalloc_realloc(ptr, size * 2);
		ASSERT_NE(NULL, ptr);
		ASSERT_TRUE(lies_in(ptr, size * 2, range.iov_base, range.iov_len));
		ASSERT_TRUE(bytes_same(ptr, size, size));
		xalloc_free_sized(ptr, size * 2);
	}
	for (size = 16; size <= 16 << 20; size *= 2) {
		ptr = xalloc_heap_aligned_alloc(heap, size, 100);
		/* There may be no such address. */
		if (!ptr) {
			ASSERT_EQ(ENOMEM, errno);
			ASSERT_LT(SEGMENT, size);
			continue;
		}
		ASSERT_EQ(0, (uintptr_t)ptr % size);
		ASSERT_TRUE(lies_in(ptr, 100, range.iov_base, range.iov_len));
		xalloc_free_aligned_sized(ptr, size, 100);
	}
	ASSERT_EQ(0, stats_of(arena).nr_blocks);
	errno = 0;
	ASSERT_EQ(NULL, xalloc_at(arena, range.iov_len));
	ASSERT_EQ(ERANGE, errno);
	ASSERT_EQ(-EOPNOTSUPP, xalloc_arena_fd(arena));
	errno = 0;
	ASSERT_EQ(NULL, xalloc_chunk_hook_add(arena, &hook));
	ASSERT_EQ(EOPNOTSUPP, errno);
	ptr = xalloc_heap_malloc(heap, 100);
	ASSERT_EQ(-EOPNOTSUPP, xalloc_dmabuf(ptr, 100, &size));
	ASSERT_EQ(0, xalloc_arena_trim(arena));
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_adopt, what_cannot_be_adopted)
{
	char *memory = memory_of_another();
	struct xalloc_arena *arena, *other;
	struct iovec range;

	memory += -(uintptr_t)memory % SLICE;
#define EXPECT_REFUSED(error, address, size) \
	do { \
		errno = 0; \
		EXPECT_EQ(NULL, xalloc_arena_adopt(address, size)); \
		EXPECT_EQ(error, errno); \
	} while (0)
	EXPECT_REFUSED(EINVAL, NULL, SLICE);
	EXPECT_REFUSED(EINVAL, memory, 0);
	EXPECT_REFUSED(EINVAL, memory, SLICE - 1);
	EXPECT_REFUSED(EINVAL, memory + 1, SLICE);
	EXPECT_REFUSED(EINVAL, memory, SIZE_MAX);
	EXPECT_REFUSED(EINVAL, (void *)(UINTPTR_MAX - 100), 50);
	EXPECT_EQ(0, xalloc_arena_range(xalloc_arena_default(), &range));
	EXPECT_REFUSED(EINVAL, range.iov_base, range.iov_len);
	EXPECT_REFUSED(EINVAL, (char *)range.iov_base + SLICE, SLICE);
	arena = xalloc_arena_adopt(memory + SLICE, 2 * SLICE);
	ASSERT_NE(NULL, arena);
	EXPECT_REFUSED(EEXIST, memory, 2 * SLICE);
	EXPECT_REFUSED(EEXIST, memory + SLICE, 2 * SLICE);
	EXPECT_REFUSED(EEXIST, memory + 2 * SLICE, 2 * SLICE);
	EXPECT_REFUSED(EEXIST, memory, 16 * SLICE);
	/* Beside it there may be others, in any number. */
	other = xalloc_arena_adopt(memory + 3 * SLICE, SLICE);
	EXPECT_NE(NULL, other);
	EXPECT_EQ(0, xalloc_arena_destroy(arena));
	arena = xalloc_arena_adopt(memory + SLICE, 2 * SLICE);
	EXPECT_NE(NULL, arena);
	EXPECT_EQ(0, xalloc_arena_destroy(arena));
	EXPECT_EQ(0, xalloc_arena_destroy(other));
}

static const struct misuse {
	const char *name;
	size_t size;		/* of the block */
	size_t at;		/* what is freed */
	int times;
	const char *options;
	size_t written;		/* past the size */
	const char *says;
} misuses[] = {
	{ "twice", 100, 0, 2, "verbose=0", 0, "is free already" },
	{ "inside", 100, 16, 1, "verbose=0", 0, "inside a block" },
	{ "large, twice", 300000, 0, 2, "verbose=0", 0, "is free already" },
	{ "large, inside", 300000, 4096, 1, "verbose=0", 0, "inside a block" },
	{ "once", 100, 0, 1, "canary=1,zero_on_free=1,trace=1", 0, NULL },
	{ "large, once", 300000, 0, 1, "canary=1,zero_on_free=1,trace=1", 0, NULL },
	{ "overrun", 100, 0, 1, "canary=1", 1, "written past the 100 bytes" },
};

static int run_misuse(void *arg)
{
	const struct misuse *misuse = arg;
	struct xalloc_arena *arena;
	struct xalloc_heap *heap;
	char *ptr;
	int i;

	setenv("XALLOC_OPTIONS", misuse->options, 1);
	arena = xalloc_arena_adopt(memory_of_another() + 12345, ROOM - 20000);
	CHECK(arena);
	heap = xalloc_heap_create(arena);
	CHECK(heap);
	/* So that the page stays: a large block is what another has left of its own. */
	CHECK(xalloc_realloc(xalloc_heap_malloc(heap, 4 * misuse->size), misuse->size));
	ptr = xalloc_heap_malloc(heap, misuse->size);
	CHECK(ptr);
	memset(ptr, 1, misuse->size + misuse->written);
	for (i = 0; i < misuse->times; i++)
		xalloc_free(ptr + misuse->at);
	if (strstr(misuse->options, "zero"))
		CHECK(bytes_zero(ptr, misuse->size));
	CHECK(!xalloc_heap_destroy(heap));
	CHECK(!xalloc_arena_destroy(arena));
	return 0;
}

TEST_F(lib_adopt, misuse_is_found)
{
	char text[4096];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(misuses); i++) {
		int status = run_child(run_misuse, (void *)&misuses[i], text, sizeof(text));

		EXPECT_EQ(misuses[i].says ? 256 + SIGABRT : 0, status) {
			TH_LOG("%s: %s", misuses[i].name, text);
		}
		EXPECT_NE(NULL, strstr(text, misuses[i].says ?: "")) {
			TH_LOG("%s: %s", misuses[i].name, text);
		}
	}
}

/* Where in the range adopted memory is accounted for there is no memory, and so no block. */
static int free_a_stale_address(void *arg)
{
	struct xalloc_arena *arena = arena_of(4 * MIB, 0);
	char *stale = xalloc_heap_malloc(xalloc_heap_create(arena), 100), *memory;

	(void)arg;
	CHECK(stale);
	CHECK(!xalloc_arena_destroy(arena));
	memory = memory_of_another();
	arena = xalloc_arena_adopt(memory + (-(uintptr_t)memory & (4 * MIB - 1)), 4 * MIB);
	CHECK(arena);
	CHECK(xalloc_heap_malloc(xalloc_heap_create(arena), 100));
	xalloc_free(stale);
	return 0;
}

TEST_F(lib_adopt, a_stale_address_does_not_lead_to_adopted_memory)
{
	char text[4096];

	EXPECT_EQ(256 + SIGABRT, run_child(free_a_stale_address, NULL, text, sizeof(text)));
	EXPECT_NE(NULL, strstr(text, "no block is there")) {
		TH_LOG("%s", text);
	}
}

TEST_F(lib_adopt, destroying_it_with_zero_on_free_clears_blocks_alone)
{
	static const size_t sizes[] = { 16, 100, 5000, 70000 };
	char *memory = memory_of_another();
	struct xalloc_arena *arena;
	struct xalloc_heap *heap;
	size_t i, at, nr = 0;

	setenv("XALLOC_OPTIONS", "zero_on_free=1", 1);
	arena = xalloc_arena_adopt(memory, ROOM);
	ASSERT_NE(NULL, arena);
	heap = xalloc_heap_create(arena);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		char *ptr = xalloc_heap_malloc(heap, sizes[i]);

		ASSERT_NE(NULL, ptr);
		nr += xalloc_usable_size(ptr);
	}
	EXPECT_EQ(0, xalloc_arena_destroy(arena));
	for (at = 0; at < ROOM; at++)
		nr -= !memory[at];
	EXPECT_EQ(0, nr);
}

/* A child has the memory, as it is private, but not the arena; it may have one of its own there. */
static int child_frees(void *ptr)
{
	struct xalloc_arena *arena;
	struct xalloc_heap *heap;
	void *own;

	xalloc_free(ptr);
	CHECK(xalloc_malloc(100));
	xalloc_free(ptr);
	errno = 0;
	CHECK(!xalloc_realloc(ptr, 200) && errno == ESTALE);
	arena = xalloc_arena_adopt((char *)ptr - (uintptr_t)ptr % SLICE, SLICE);
	CHECK(arena);
	heap = xalloc_heap_create(arena);
	CHECK(heap);
	own = xalloc_heap_malloc(heap, 100);
	CHECK(own);
	xalloc_free(own);
	CHECK(!xalloc_arena_destroy(arena));
	return 0;
}

TEST_F(lib_adopt, a_child_may_free_what_it_does_not_have)
{
	struct xalloc_arena *arena = xalloc_arena_adopt(memory_of_another(), ROOM);
	struct xalloc_heap *heap;
	char text[4096];
	void *ptr;

	ASSERT_NE(NULL, arena);
	heap = xalloc_heap_create(arena);
	ASSERT_NE(NULL, heap);
	ptr = xalloc_heap_malloc(heap, 100);
	ASSERT_NE(NULL, ptr);
	EXPECT_EQ(0, run_child(child_frees, ptr, text, sizeof(text))) {
		TH_LOG("%s", text);
	}
	xalloc_free(ptr);
	EXPECT_EQ(0, stats_of(arena).nr_blocks);
	EXPECT_EQ(0, xalloc_arena_destroy(arena));
}

struct shared {
	void *_Atomic slots[64];
	struct xalloc_heap *heap;
};

static void *exchange(void *arg)
{
	struct shared *shared = arg;
	uint32_t seed = (uintptr_t)&seed, i;

	for (i = 0; i < 20000; i++) {
		size_t size = 1 + random_next(&seed) % (i % 64 ? 2000 : 200000);
		char *ptr = xalloc_heap_malloc(shared->heap, size);

		if (!ptr)
			abort();
		ptr[0] = 1;
		ptr[size - 1] = 1;
		xalloc_free(atomic_exchange(&shared->slots[random_next(&seed) % 64], ptr));
	}
	return NULL;
}

TEST_F(lib_adopt, threads_free_each_others_blocks)
{
	struct xalloc_arena *arena = xalloc_arena_adopt(memory_of_another() + 100, ROOM - 100);
	struct shared shared = { .heap = arena ? xalloc_heap_create(arena) : NULL };
	pthread_t threads[4];
	int i;

	ASSERT_NE(NULL, shared.heap);
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, exchange, &shared));
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, pthread_join(threads[i], NULL));
	for (i = 0; i < 64; i++)
		xalloc_free(shared.slots[i]);
	EXPECT_EQ(0, stats_of(arena).nr_blocks);
	EXPECT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_HARNESS_MAIN
