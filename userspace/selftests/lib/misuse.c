// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: a free of anything but the start of a live block is found, says on stderr what
 * it is, and ends the program by SIGABRT.
 */
#include <pthread.h>

#include "libtest.h"
#include "selftest.h"

LIBTEST_FIXTURE(lib_misuse, "32M")

struct misuse {
	const char *name;
	void (*run)(const struct misuse *misuse);
	size_t size;
	const char *says;
};

/* What is about to be misused, for the parent, which looks for it in the message. */
static void announce(const void *ptr)
{
	fprintf(stderr, "[%p]\n", ptr);
}

static char *block(const struct misuse *misuse)
{
	char *ptr = xalloc_malloc(misuse->size);

	if (!ptr)
		_exit(3);
	return ptr;
}

static void free_twice(const struct misuse *misuse)
{
	char *other = block(misuse), *ptr = block(misuse);

	announce(ptr);
	xalloc_free(ptr);
	xalloc_free(ptr);
	xalloc_free(other);
}

static void free_interior(const struct misuse *misuse)
{
	char *ptr = block(misuse) + misuse->size / 2;

	announce(ptr);
	xalloc_free(ptr);
}

static void free_last_byte(const struct misuse *misuse)
{
	char *ptr = block(misuse);

	ptr += xalloc_usable_size(ptr) - 1;
	announce(ptr);
	xalloc_free(ptr);
}

static void free_inside_freed(const struct misuse *misuse)
{
	char *ptr = block(misuse);

	announce(ptr + 1);
	xalloc_free(ptr);
	xalloc_free(ptr + 1);
}

static void free_foreign(const struct misuse *misuse)
{
	char *ptr = calloc(1, misuse->size);

	announce(ptr);
	xalloc_free(ptr);
}

static void free_stack(const struct misuse *misuse)
{
	char *kept = block(misuse), here;

	announce(&here);
	xalloc_free(&here);
	xalloc_free(kept);
}

static void free_never_granted(const struct misuse *misuse)
{
	char *ptr = block(misuse);

	ptr += 20 * MIB;
	announce(ptr);
	xalloc_free(ptr);
}

static void free_wrong_size(const struct misuse *misuse)
{
	char *ptr = block(misuse);

	announce(ptr);
	xalloc_free_sized(ptr, misuse->size + misuse->size / 4 + 16);
}

static void free_wrong_alignment(const struct misuse *misuse)
{
	char *ptr = xalloc_aligned_alloc(4096, misuse->size);

	announce(ptr);
	xalloc_free_aligned_sized(ptr, 4095, misuse->size);
}

static void free_after_heap_destroy(const struct misuse *misuse)
{
	struct xalloc_heap *heap = xalloc_heap_create(xalloc_arena_default());
	char *ptr = xalloc_heap_malloc(heap, misuse->size);

	announce(ptr);
	xalloc_heap_destroy(heap);
	xalloc_free(ptr);
}

static void free_after_arena_destroy(const struct misuse *misuse)
{
	struct xalloc_arena *arena = arena_of(4 * MIB, 0);
	char *ptr = xalloc_heap_malloc(xalloc_heap_create(arena), misuse->size);

	announce(ptr);
	xalloc_arena_destroy(arena);
	xalloc_free(ptr);
}

static void realloc_freed(const struct misuse *misuse)
{
	char *ptr = block(misuse);

	announce(ptr);
	xalloc_free(ptr);
	ptr = xalloc_realloc(ptr, misuse->size * 2);
	fprintf(stderr, "%p\n", ptr);
}

static void usable_size_of_interior(const struct misuse *misuse)
{
	char *ptr = block(misuse) + 1;

	announce(ptr);
	fprintf(stderr, "%zu\n", xalloc_usable_size(ptr));
}

/* Overwrites everything the allocator ever gave out around the block. */
static void free_twice_after_a_wild_write(const struct misuse *misuse)
{
	char *ptr = block(misuse);

	memset((char *)((uintptr_t)ptr & ~(SLICE - 1)), 0xff, SLICE);
	free_twice(misuse);
}

static void *free_at_once(void *arg)
{
	void **ptr_and_barrier = arg;

	pthread_barrier_wait(ptr_and_barrier[1]);
	xalloc_free(ptr_and_barrier[0]);
	return NULL;
}

static void free_twice_at_once(const struct misuse *misuse)
{
	pthread_barrier_t barrier;
	char *ptr = block(misuse);
	void *arg[2] = { ptr, &barrier };
	pthread_t thread;

	announce(ptr);
	pthread_barrier_init(&barrier, NULL, 2);
	if (pthread_create(&thread, NULL, free_at_once, arg))
		_exit(3);
	free_at_once(arg);
	pthread_join(thread, NULL);
	/* Both may have it in their caches: the second to put it back or give it out sees it. */
	xalloc_arena_trim(xalloc_arena_default());
}

#define FREED "is free already"
#define NOT_THERE "no block is there"
#define INSIDE "inside a block, not its start"

static const struct misuse misuses[] = {
	{ "double free, smallest", free_twice, 1, FREED },
	{ "double free, small", free_twice, 100, FREED },
	/* A block may have been alone in its page, which has gone back then. */
	{ "double free, one slice", free_twice, 65536, "free" },
	{ "double free, large", free_twice, 65537, FREED },
	{ "double free, huge", free_twice, 5 << 20, FREED },
	{ "double free after a wild write", free_twice_after_a_wild_write, 64, FREED },
	{ "double free by two threads", free_twice_at_once, 64, "free" },
	{ "double free by two threads, large", free_twice_at_once, 1 << 20, "free" },
	{ "interior, small", free_interior, 100, INSIDE },
	{ "interior, one slice", free_interior, 65536, INSIDE },
	{ "interior, huge", free_interior, 5 << 20, INSIDE },
	{ "last byte, small", free_last_byte, 100, INSIDE },
	{ "last byte, large", free_last_byte, 70000, INSIDE },
	{ "inside a free block, small", free_inside_freed, 100, "inside a free block" },
	{ "inside a free block, large", free_inside_freed, 70000, "inside a free block" },
	{ "of malloc", free_foreign, 100, "not an address of xalloc" },
	{ "on the stack", free_stack, 100, "not an address of xalloc" },
	{ "never granted", free_never_granted, 100, NOT_THERE },
	{ "wrong size, small", free_wrong_size, 100, "wrong size" },
	{ "wrong size, large", free_wrong_size, 300000, "wrong size" },
	{ "wrong alignment", free_wrong_alignment, 100, "wrong size" },
	{ "after heap_destroy, small", free_after_heap_destroy, 100, NOT_THERE },
	{ "after heap_destroy, huge", free_after_heap_destroy, 3 << 20, NOT_THERE },
	{ "after arena_destroy", free_after_arena_destroy, 100, NOT_THERE },
	{ "realloc of a free block, small", realloc_freed, 100, FREED },
	{ "realloc of a free block, huge", realloc_freed, 3 << 20, NOT_THERE },
	{ "usable_size of interior", usable_size_of_interior, 100, INSIDE },
};

static int run_misuse(void *arg)
{
	const struct misuse *misuse = arg;

	misuse->run(misuse);
	return 0;
}

TEST_F(lib_misuse, each_ends_with_sigabrt_and_a_line_that_says_what_it_was)
{
	char text[4096], pointer[64], *end;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(misuses); i++) {
		int status = run_child(run_misuse, (void *)&misuses[i], text, sizeof(text));

		ASSERT_EQ(256 + SIGABRT, status) {
			TH_LOG("%s: %s", misuses[i].name, text);
		}
		ASSERT_NE(NULL, strstr(text, misuses[i].says)) {
			TH_LOG("%s: %s", misuses[i].name, text);
		}
		/* After the line with the pointer: the same pointer, in one line more. */
		end = strchr(text, ']');
		ASSERT_NE(NULL, end);
		snprintf(pointer, sizeof(pointer), "%.*s", (int)(end - text - 1), text + 1);
		ASSERT_NE(NULL, strstr(end, pointer));
		ASSERT_EQ(text + strlen(text) - 1, strchr(end + 2, '\n'));
	}
}

static sigjmp_buf misused;
static struct xalloc_misuse last;
static char last_message[512];

static void leave(const struct xalloc_misuse *misuse)
{
	last = *misuse;
	snprintf(last_message, sizeof(last_message), "%s", misuse->message);
	siglongjmp(misused, 1);
}

static int misuses_caught;

/* Calls @expression, which the handler must leave. */
#define MISUSE(expression) \
	do { \
		if (!sigsetjmp(misused, 0)) { \
			expression; \
			ASSERT_TRUE(false); \
		} \
		misuses_caught++; \
	} while (0)

TEST_F(lib_misuse, a_handler_may_leave_and_all_goes_on)
{
	struct xalloc_heap *heap = xalloc_heap_create(arena_of(8 * MIB, 0));
	char *ptr, *volatile blocks[100];
	volatile uint32_t seed = random_seed() | 1;
	volatile int i, nr = is_long_run() ? 100000 : 2000;

	TH_LOG("SEED=%u", seed);
	xalloc_set_misuse_handler(leave);
	for (i = 0; i < 100; i++) {
		size_t size = random_next((uint32_t *)&seed) % (i % 2 ? 2000 : 200000);

		blocks[i] = i % 3 ? xalloc_malloc(size) : xalloc_heap_malloc(heap, size);
		ASSERT_NE(NULL, blocks[i]);
	}
	for (i = 0; i < nr; i++) {
		uint32_t r = random_next((uint32_t *)&seed);

		ptr = blocks[r % 100];
		switch (r / 100 % 4) {
		case 0:
			MISUSE(xalloc_free(ptr + 1 + r % xalloc_usable_size(ptr) % 15));
			ASSERT_EQ(blocks[r % 100] + 1 + r % last.block_bytes % 15, last.ptr);
			break;
		case 1:
			MISUSE(xalloc_free_sized(ptr, 2 * xalloc_usable_size(ptr) + 1));
			ASSERT_EQ(0, strcmp("xalloc_free_sized", last.call));
			break;
		case 2:
			xalloc_free(ptr);
			MISUSE(xalloc_free(blocks[r % 100]));
			ASSERT_EQ(blocks[r % 100], last.ptr);
			blocks[r % 100] = xalloc_malloc(r % 5000);
			break;
		default:
			MISUSE(xalloc_free((void *)&seed));
			ASSERT_EQ(0, last.block_bytes);
			ASSERT_EQ(NULL, last.page);
		}
	}
	ASSERT_EQ(nr, misuses_caught);
	ptr = xalloc_malloc(100);
	MISUSE(xalloc_free(ptr + 16));
	ASSERT_EQ(sizeof(last), last.size);
	ASSERT_EQ(112, last.block_bytes);
	ASSERT_NE(NULL, strstr(last_message, "size class 112"));
	ASSERT_EQ(NULL, strchr(last_message, '\n'));
	ASSERT_EQ(0, (uintptr_t)last.page % SLICE);
	xalloc_set_misuse_handler(NULL);
	for (i = 0; i < 100; i++)
		xalloc_free(blocks[i]);
}

TEST_F(lib_misuse, a_handler_is_told_the_length_of_blocks_alone)
{
	struct xalloc_arena *arena = arena_of(8 * MIB, 0);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	struct iovec range;
	char *ptr;

	ASSERT_EQ(0, xalloc_arena_range(arena, &range));
	ptr = xalloc_heap_malloc(heap, 48);
	ASSERT_EQ(range.iov_base, ptr);
	xalloc_set_misuse_handler(leave);
	/* Where a slab has no room for another block. */
	MISUSE(xalloc_free(ptr + SLICE - 16));
	ASSERT_EQ(0, last.block_bytes);
	ASSERT_EQ(ptr, last.page);
	ASSERT_NE(NULL, strstr(last_message, "where no block can be"));
	ASSERT_NE(NULL, strstr(last_message, "in the rest of a slab of size class 48"));
	ptr = xalloc_heap_malloc(heap, 100000);
	MISUSE(xalloc_free(ptr + 4096));
	ASSERT_EQ(102400, last.block_bytes);
	MISUSE(xalloc_free(ptr + 102400));
	ASSERT_EQ(0, last.block_bytes);
	ASSERT_NE(NULL, strstr(last_message, "free memory of"));
}

static int aborts_survived;

static void survive(int signal)
{
	(void)signal;
	if (++aborts_survived < 3)
		siglongjmp(misused, 1);
}

static int misuse_again_and_again(void *arg)
{
	(void)arg;
	signal(SIGABRT, survive);
	sigsetjmp(misused, 1);
	fprintf(stderr, "misuse %d\n", aborts_survived);
	xalloc_free(arg);
	return 0;
}

/* A test framework that goes on after SIGABRT. */
TEST_F(lib_misuse, the_next_is_said_by_who_survived_the_first)
{
	char text[4096];
	int on_the_stack;

	ASSERT_EQ(256 + SIGABRT,
		  run_child(misuse_again_and_again, &on_the_stack, text, sizeof(text)));
	ASSERT_NE(NULL, strstr(text, "misuse 2\nxalloc: xalloc_free")) {
		TH_LOG("%s", text);
	}
}

static void count_misuse(const struct xalloc_misuse *misuse)
{
	fprintf(stderr, "handler: %zu\n", misuse->block_bytes);
}

static int free_twice_with_handler(void *arg)
{
	xalloc_set_misuse_handler(count_misuse);
	return run_misuse(arg);
}

TEST_F(lib_misuse, a_handler_that_returns_is_followed_by_the_line_and_abort)
{
	static const struct misuse twice = { "", free_twice, 100, FREED };
	char text[4096];
	int status = run_child(free_twice_with_handler, (void *)&twice, text, sizeof(text));

	ASSERT_EQ(256 + SIGABRT, status);
	ASSERT_NE(NULL, strstr(text, "handler: 112\n"));
	ASSERT_NE(NULL, strstr(strstr(text, "handler"), FREED));
}

TEST_F(lib_misuse, a_racing_double_free_never_gets_through)
{
	static const struct misuse racing[] = {
		{ "small", free_twice_at_once, 64, FREED },
		{ "large", free_twice_at_once, 1 << 20, FREED },
	};
	int i, nr = is_long_run() ? 2000 : 40;
	char text[4096];

	for (i = 0; i < nr; i++)
		ASSERT_EQ(256 + SIGABRT,
			  run_child(run_misuse, (void *)&racing[i % 2], text, sizeof(text)));
}

TEST_HARNESS_MAIN
