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

TEST_HARNESS_MAIN
