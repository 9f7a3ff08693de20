// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: how the library starts, also where a program leaves it little to start with, and
 * what happens when threads end.
 */
#include <limits.h>
#include <pthread.h>

#include "preload.h"
#include "selftest.h"

LIBTEST_FIXTURE(lib_start_end, "64M")

#define NR_THREADS 4

/* --- no key is left */

static int take_all_keys(void)
{
	pthread_key_t key;
	int nr = 0;

	while (!pthread_key_create(&key, NULL))
		nr++;
	CHECK(nr > 100);
	return 0;
}

/* Blocks of the threads, which main frees. */
static void *left[NR_THREADS][100];

static void *allocate_and_leave(void *arg)
{
	void **mine = left[(uintptr_t)arg];
	size_t i;

	for (i = 0; i < 5000; i++) {
		size_t size = i * 7 % 3000 + (i % 1000 == 0 ? 100000 : 0);
		char *ptr = i % 2 ? xalloc_malloc(size) : xalloc_calloc(1, size);

		if (!ptr)
			return "NULL";
		if (i % 2 == 0 && !bytes_zero(ptr, size))
			return "not zero";
		bytes_fill(ptr, size, i);
		ptr = xalloc_realloc(ptr, 2 * size + 1);
		if (!ptr || !bytes_same(ptr, size, i))
			return "realloc";
		if (i < ARRAY_SIZE(left[0]))
			mine[i] = ptr;
		else
			xalloc_free(ptr);
	}
	return NULL;
}

static int threads_allocate(void)
{
	pthread_t threads[NR_THREADS];
	void *complaint;
	size_t i, j;

	for (i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_create(&threads[i], NULL, allocate_and_leave, (void *)i));
	for (i = 0; i < NR_THREADS; i++) {
		CHECK(!pthread_join(threads[i], &complaint));
		if (complaint)
			fprintf(stderr, "%s\n", (char *)complaint);
		CHECK(!complaint);
	}
	CHECK(stats_of(xalloc_arena_default()).nr_blocks == NR_THREADS * ARRAY_SIZE(left[0]));
	for (i = 0; i < NR_THREADS; i++)
		for (j = 0; j < ARRAY_SIZE(left[0]); j++)
			xalloc_free(left[i][j]);
	CHECK(!stats_of(xalloc_arena_default()).nr_blocks);
	return 0;
}

static int child_allocates(void *arg)
{
	(void)arg;
	return threads_allocate();
}

static int all_keys_are_taken(void *arg)
{
	char text[1024];
	int status;

	(void)arg;
	CHECK(!take_all_keys());
	errno = 0;
	CHECK(!threads_allocate());
	status = run_child(child_allocates, NULL, text, sizeof(text));
	fputs(text, stderr);
	return status;
}

TEST_F(lib_start_end, a_program_that_has_all_keys_gets_blocks)
{
	char text[1024];

	SKIP_SANITIZED("needs a key for each thread");
	ASSERT_EQ(0, run_child(all_keys_are_taken, NULL, text, sizeof(text))) {
		TH_LOG("%s", text);
	}
}

static int all_keys_are_taken_preloaded(void)
{
	/* Through a pointer, for the compiler knows the call. */
	void *(*volatile allocate)(size_t) = malloc;
	int i;

	CHECK(!take_all_keys());
	for (i = 0; i < 1000; i++) {
		void *ptr = allocate(i);

		CHECK(ptr && is_block(ptr));
		if (i % 2)
			free(ptr);
	}
	return 0;
}

/* --- threads end */

/* Each call of a destructor allocates, frees, and asks for another call. */
static pthread_key_t key_before, key_after;
static atomic_int nr_calls;

static void allocate_late(void *arg)
{
	uintptr_t round = (uintptr_t)arg;
	pthread_key_t key = round % 2 ? key_before : key_after;
	char *ptrs[40];
	size_t i;

	atomic_fetch_add(&nr_calls, 1);
	for (i = 0; i < ARRAY_SIZE(ptrs); i++) {
		ptrs[i] = xalloc_malloc(i * 50);
		if (!ptrs[i])
			abort();
		memset(ptrs[i], 1, i * 50);
	}
	for (i = 0; i < ARRAY_SIZE(ptrs); i++)
		xalloc_free(ptrs[i]);
	pthread_setspecific(key, (void *)(round + 2));
}

static void *set_and_end(void *arg)
{
	/* Some threads allocate nothing before their end. */
	if (arg)
		xalloc_free(xalloc_malloc(10));
	pthread_setspecific(key_before, (void *)1);
	pthread_setspecific(key_after, (void *)2);
	return NULL;
}

TEST_F(lib_start_end, destructors_of_the_program_may_allocate)
{
	struct xalloc_arena_stat stat;
	pthread_t thread;
	uintptr_t i;

	SKIP_SANITIZED("is done with a thread before its last destructors");
	ASSERT_EQ(0, pthread_key_create(&key_before, allocate_late));
	xalloc_free(xalloc_malloc(1));
	ASSERT_EQ(0, pthread_key_create(&key_after, allocate_late));
	for (i = 0; i < 100; i++) {
		ASSERT_EQ(0, pthread_create(&thread, NULL, set_and_end, (void *)(i % 2)));
		ASSERT_EQ(0, pthread_join(thread, NULL));
	}
	ASSERT_EQ(100 * 2 * PTHREAD_DESTRUCTOR_ITERATIONS, atomic_load(&nr_calls));
	stat = stats_of(xalloc_arena_default());
	ASSERT_EQ(0, stat.nr_blocks);
	/* What threads kept serves the next. */
	ASSERT_GT(8 * MIB, stat.granted_bytes);
}

/* --- the environment */

/* What was there when the program started is not what counts. */
static int environment_is_cleared(void)
{
	CHECK(!clearenv());
	errno = 0;
	CHECK(xalloc_malloc(1) || errno != EINVAL);
	return 0;
}

static int environment_is_new(void)
{
	CHECK(!clearenv());
	setenv("XALLOC_BACKEND", "local", 1);
	setenv("XALLOC_LIMIT", "6M", 1);
	CHECK(stats_of(xalloc_arena_default()).limit_bytes == 6 * MIB);
	return 0;
}

static int exec_with_bad_limit(void *arg)
{
	setenv("XALLOC_LIMIT", "nonsense", 1);
	setenv(CASE, arg, 1);
	execl("/proc/self/exe", program_invocation_short_name, NULL);
	return 1;
}

TEST_F(lib_start_end, the_environment_of_the_first_call_counts)
{
	char text[1024];

	EXPECT_EQ(0, run_child(exec_with_bad_limit, "environment_is_cleared", text, sizeof(text))) {
		TH_LOG("%s", text);
	}
	EXPECT_EQ(0, run_child(exec_with_bad_limit, "environment_is_new", text, sizeof(text))) {
		TH_LOG("%s", text);
	}
}

static const struct preload_case cases[] = {
	{ "environment_is_cleared", environment_is_cleared },
	{ "environment_is_new", environment_is_new },
	{ "all_keys_are_taken", all_keys_are_taken_preloaded },
};

static __attribute__((constructor)) void start(void)
{
	be_preloaded(cases, ARRAY_SIZE(cases));
}

TEST_F(lib_start_end, a_preloaded_program_that_has_all_keys_gets_blocks)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("all_keys_are_taken");
}

TEST_HARNESS_MAIN
