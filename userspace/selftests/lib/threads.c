// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: how much of the limit is in blocks when many threads allocate, and what threads
 * that idle keep from the others.
 */
#include <pthread.h>
#include <semaphore.h>

#include "libtest.h"
#include "selftest.h"

/* 157 KiB in all. */
#define NR_SIZES 28
#define LAST_SIZE 40000

LIBTEST_FIXTURE(lib_threads, "128M")

static sem_t done, go;
static atomic_size_t live;
static atomic_bool refused;

static size_t next_size(size_t size)
{
	return size * 5 / 4 + 16;
}

/* One block of each size. */
static void keep_each_size(void **blocks)
{
	size_t size = 16, i;

	for (i = 0; size < LAST_SIZE; i++, size = next_size(size)) {
		blocks[i] = xalloc_malloc(size);
		if (!blocks[i]) {
			atomic_store(&refused, true);
			return;
		}
		*(char *)blocks[i] = 1;
		atomic_fetch_add(&live, size);
	}
	if (i != NR_SIZES)
		abort();
}

static void free_each_size(void **blocks)
{
	for (size_t i = 0; i < NR_SIZES; i++)
		xalloc_free(blocks[i]);
}

static _Noreturn void idle(void)
{
	sem_post(&done);
	for (;;)
		pause();
}

static void *keep_and_idle(void *arg)
{
	void *blocks[NR_SIZES] = { arg };

	keep_each_size(blocks);
	idle();
}

static void *free_and_idle(void *arg)
{
	void *blocks[NR_SIZES] = { arg };

	keep_each_size(blocks);
	sem_post(&done);
	sem_wait(&go);
	free_each_size(blocks);
	idle();
}

static void *keep_one_and_idle(void *arg)
{
	char *ptr = xalloc_malloc(*(size_t *)arg);

	if (ptr)
		*ptr = 1;
	else
		atomic_store(&refused, true);
	idle();
}

#define PASSING_BYTES (4 * MIB)

/* Blocks of the size that is given, or of each size. */
static void *pass_and_idle(void *arg)
{
	size_t fixed = *(size_t *)arg, size = fixed ?: 16, sum, nr = 0;
	void **blocks = mmap(NULL, PASSING_BYTES, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (blocks == MAP_FAILED)
		abort();
	for (sum = 0; sum < PASSING_BYTES; sum += size) {
		if (!fixed)
			size = size < LAST_SIZE ? next_size(size) : 16;
		blocks[nr] = xalloc_malloc(size);
		if (!blocks[nr++])
			atomic_store(&refused, true);
	}
	while (nr--)
		xalloc_free(blocks[nr]);
	munmap(blocks, PASSING_BYTES);
	idle();
}

/* Starts threads, each when the one before idles or waits, until memory is refused to one. */
static unsigned int start(struct __test_metadata *_metadata, unsigned int nr_threads,
			  void *(*run)(void *), size_t *arg)
{
	pthread_attr_t attr;
	pthread_t thread;
	unsigned int nr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, IS_SANITIZED ? MIB : 64 << 10);
	sem_init(&done, 0, 0);
	sem_init(&go, 0, 0);
	for (nr = 0; nr < nr_threads && !atomic_load(&refused); nr++) {
		ASSERT_EQ(0, pthread_create(&thread, &attr, run, arg));
		while (sem_wait(&done))
			;
	}
	return nr;
}

TEST_F_TIMEOUT(lib_threads, are_refused_when_most_of_the_limit_is_in_blocks, TEST_TIMEOUT_LONG)
{
	struct xalloc_arena_stat stat;
	unsigned int nr;

	if (is_long_run())
		setenv("XALLOC_LIMIT", "1G", 1);
	else if (!is_fast())
		setenv("XALLOC_LIMIT", "64M", 1);
	nr = start(_metadata, 1000, keep_and_idle, NULL);
	stat = stats_of(xalloc_arena_default());
	TH_LOG("%u threads, %zu of %zu MiB live, %zu committed", nr, live >> 20,
	       (size_t)stat.limit_bytes >> 20, (size_t)stat.committed_bytes >> 20);
	/* All of them fit into 1 GiB. */
	if (!refused && is_long_run())
		return;
	EXPECT_EQ(stat.limit_bytes, stat.committed_bytes);
	EXPECT_LE(stat.limit_bytes / 10 * 8, live);
}

TEST_F_TIMEOUT(lib_threads, that_idle_keep_little_in_all, TEST_TIMEOUT_LONG)
{
	unsigned int nr, nr_threads = turns(1000);
	struct xalloc_arena *arena;

	setenv("XALLOC_LIMIT", "4G", 1);
	arena = xalloc_arena_default();
	ASSERT_NE(NULL, arena);
	nr = start(_metadata, nr_threads, free_and_idle, NULL);
	ASSERT_EQ(nr_threads, nr);
	ASSERT_FALSE(refused);
	TH_LOG("%zu MiB committed for %zu live", (size_t)committed_by(arena) >> 20, live >> 20);
	while (nr--)
		sem_post(&go);
	for (nr = 0; nr < nr_threads; nr++)
		while (sem_wait(&done))
			;
	ASSERT_EQ(0, stats_of(arena).nr_blocks);
	wait_for(committed_by(arena) <= 64 * MIB, 60000);
	TH_LOG("%zu MiB committed when all idle", (size_t)committed_by(arena) >> 20);
	EXPECT_GE(64 * MIB, committed_by(arena));
}

TEST_F(lib_threads, with_one_block_each_share_memory)
{
	size_t size = 1000;

	setenv("XALLOC_LIMIT", "8M", 1);
	EXPECT_EQ(129, start(_metadata, 129, keep_one_and_idle, &size));
	EXPECT_FALSE(refused);
}

/* Threads have had 4 MiB each, of blocks of @passed; the main one gets blocks of @size. */
static void expect_most(struct __test_metadata *_metadata, size_t passed, size_t size)
{
	size_t used;

	setenv("XALLOC_LIMIT", "252M", 1);
	EXPECT_EQ(60, start(_metadata, 60, pass_and_idle, &passed));
	EXPECT_FALSE(refused);
	ASSERT_EQ(0, stats_of(xalloc_arena_default()).nr_blocks);
	while (xalloc_malloc(size))
		;
	used = stats_of(xalloc_arena_default()).used_bytes;
	TH_LOG("%zu of 252 MiB in blocks of %zu bytes", used >> 20, size);
	EXPECT_LE(240 * MIB, used);
}

TEST_F(lib_threads, that_idle_after_one_size_leave_small_blocks_to_others)
{
	expect_most(_metadata, 20000, 1000);
}

TEST_F(lib_threads, that_idle_after_one_size_leave_large_blocks_to_others)
{
	expect_most(_metadata, 20000, 100 << 10);
}

TEST_F(lib_threads, that_idle_after_all_sizes_leave_small_blocks_to_others)
{
	expect_most(_metadata, 0, 1000);
}

TEST_F(lib_threads, that_idle_after_all_sizes_leave_large_blocks_to_others)
{
	expect_most(_metadata, 0, 100 << 10);
}

TEST_HARNESS_MAIN
