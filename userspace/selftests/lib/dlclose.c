// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: a program loads libxalloc by dlopen() and gives it back by dlclose(), while threads
 * have used it and blocks live on.
 *
 * This program must not be linked with the library, so it calls nothing of libtest.c.
 */
#include <dlfcn.h>
#include <pthread.h>

#include "libtest.h"
#include "selftest.h"

#define NR_ROUNDS 100

FIXTURE(lib_dlclose) {
	struct xalloc_ioc_stat before;
	char library[4096];
};

static bool has_device(void)
{
	const char *text = getenv("XALLOC_BACKEND");

	return !text || strcmp(text, "local");
}

FIXTURE_SETUP(lib_dlclose)
{
	ssize_t len = readlink("/proc/self/exe", self->library, sizeof(self->library) - 64);

	ASSERT_LT(0, len);
	self->library[len] = 0;
	strcpy(strrchr(self->library, '/'), "/../../lib/libxalloc.so");
	if (has_device())
		close(device_setup(_metadata, &self->before));
	setenv("XALLOC_LIMIT", "16M", 1);
}

FIXTURE_TEARDOWN_PARENT(lib_dlclose)
{
	int device;

	if (!has_device())
		return;
	device = device_open();
	ASSERT_LE(0, device);
	counters_expect(_metadata, device, &self->before);
	close(device);
}

struct library {
	void *handle;
	void *(*malloc)(size_t size);
	void (*free)(void *ptr);
};

/* Returns false with the reason on stderr. */
static bool load(const char *path, struct library *library)
{
	library->handle = dlopen(path, RTLD_NOW);
	if (!library->handle) {
		fprintf(stderr, "%s\n", dlerror());
		return false;
	}
	library->malloc = (void *(*)(size_t))dlsym(library->handle, "xalloc_malloc");
	library->free = (void (*)(void *))dlsym(library->handle, "xalloc_free");
	return library->malloc && library->free;
}

struct worker {
	struct library library;
	pthread_barrier_t barrier;
	void *block;
};

static void *use(void *arg)
{
	struct worker *worker = arg;

	worker->block = worker->library.malloc(100);
	worker->library.free(worker->library.malloc(1000));
	pthread_barrier_wait(&worker->barrier);
	/* The library is closed meanwhile. */
	pthread_barrier_wait(&worker->barrier);
	return worker->block;
}

TEST_F(lib_dlclose, a_thread_that_used_the_library_ends_after_dlclose)
{
	struct worker worker;
	pthread_t thread;
	void *block;

	ASSERT_EQ(0, pthread_barrier_init(&worker.barrier, NULL, 2));
	ASSERT_TRUE(load(self->library, &worker.library));
	ASSERT_EQ(0, pthread_create(&thread, NULL, use, &worker));
	pthread_barrier_wait(&worker.barrier);
	ASSERT_EQ(0, dlclose(worker.library.handle));
	pthread_barrier_wait(&worker.barrier);
	ASSERT_EQ(0, pthread_join(thread, &block));
	ASSERT_NE(NULL, block);
	memset(block, 1, 100);
}

/* How many keys the program could still have. */
static int count_free_keys(void)
{
	pthread_key_t keys[2048];
	int nr = 0, i;

	while (nr < 2048 && !pthread_key_create(&keys[nr], NULL))
		nr++;
	for (i = 0; i < nr; i++)
		pthread_key_delete(keys[i]);
	return nr;
}

/* Of the address space, in kB and in mappings. */
static void measure(long *kb, int *nr)
{
	FILE *file = fopen("/proc/self/status", "r");
	char line[512];

	*kb = 0;
	*nr = 0;
	if (!file)
		return;
	while (fgets(line, sizeof(line), file))
		sscanf(line, "VmSize: %ld", kb);
	fclose(file);
	file = fopen("/proc/self/maps", "r");
	if (!file)
		return;
	while (fgets(line, sizeof(line), file))
		++*nr;
	fclose(file);
}

TEST_F(lib_dlclose, rounds_of_dlopen_and_dlclose_leave_nothing_behind)
{
	int nr_keys = 0, nr_mappings = 0, nr, i;
	struct library library;
	long kb = 0, now_kb;
	void *block = NULL;

	SKIP_SANITIZED("maps memory of its own");
	for (i = 0; i < NR_ROUNDS; i++) {
		ASSERT_TRUE(load(self->library, &library));
		/* Of the round before: it is still a block. */
		if (block)
			library.free(block);
		block = library.malloc(100);
		ASSERT_NE(NULL, block);
		memset(block, 1, 100);
		ASSERT_EQ(0, dlclose(library.handle));
		memset(block, 2, 100);
		if (i) {
			measure(&now_kb, &nr);
			EXPECT_EQ(kb, now_kb);
			EXPECT_EQ(nr_mappings, nr);
			ASSERT_EQ(nr_keys, count_free_keys());
		} else {
			/* What this program itself needs to count is there now. */
			nr_keys = count_free_keys();
			measure(&kb, &nr_mappings);
			measure(&kb, &nr_mappings);
		}
	}
	ASSERT_LT(0, kb);
	ASSERT_LT(0, nr_mappings);
}

/* --- a program that has taken all keys before it loads the library */

#define NR_THREADS 4
#define NR_LEFT 100

struct allocator {
	struct library *library;
	char *left[NR_LEFT];
};

static size_t bytes_of(int i)
{
	return i * 7 % 3000 + 1;
}

/* Frees all but the first blocks, each of which begins and ends with its number. */
static void *allocate(void *arg)
{
	struct allocator *a = arg;
	int i;

	for (i = 0; i < 5000; i++) {
		char *ptr = a->library->malloc(bytes_of(i));

		if (!ptr)
			return "no memory";
		ptr[0] = i;
		ptr[bytes_of(i) - 1] = i;
		if (i < NR_LEFT)
			a->left[i] = ptr;
		else
			a->library->free(ptr);
	}
	return NULL;
}

TEST_F(lib_dlclose, threads_of_a_program_that_has_all_keys_get_blocks)
{
	struct allocator allocators[NR_THREADS];
	pthread_t threads[NR_THREADS];
	struct library library;
	pthread_key_t key;
	void *complaint;
	int i, j;

	while (!pthread_key_create(&key, NULL))
		;
	ASSERT_TRUE(load(self->library, &library));
	for (i = 0; i < NR_THREADS; i++) {
		allocators[i].library = &library;
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, allocate, &allocators[i]));
	}
	for (i = 0; i < NR_THREADS; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], &complaint));
		ASSERT_EQ(NULL, complaint);
	}
	for (i = 0; i < NR_THREADS; i++) {
		for (j = 0; j < NR_LEFT; j++) {
			char *ptr = allocators[i].left[j];

			ASSERT_EQ((char)j, ptr[0]);
			ASSERT_EQ((char)j, ptr[bytes_of(j) - 1]);
			library.free(ptr);
		}
	}
}

TEST_HARNESS_MAIN
