// SPDX-License-Identifier: MIT
/*
 * One workload on one allocator, as a process of its own: prints ns an operation and the most
 * memory that was resident, but for files, in KiB more than at the start. Built twice: with
 * malloc() as it is, for what LD_PRELOAD names, and with the calls of libxalloc in its place.
 * scripts/bench runs it.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef BENCH_XALLOC
#include <libxalloc.h>
#define malloc xalloc_malloc
#define realloc xalloc_realloc
#define free xalloc_free
#endif

#define NR_BATCH 100
#define NR_SIZES 65536
#define NR_RING 1024
#define NR_SLOTS_MAX 100000
#define NR_LARGE 24
#define NR_THREADS_MAX 2

static uint32_t sizes[NR_SIZES];
static unsigned int nr_threads = 1;
static uint64_t nr_ops;

static uint32_t next(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

static void die(const char *what)
{
	fprintf(stderr, "malloc: %s\n", what);
	exit(1);
}

static void *must(void *ptr)
{
	if (!ptr)
		die("out of memory");
	return ptr;
}

/* So that the compiler keeps a pair that nobody looks at. */
static inline void *seen(void *ptr)
{
	__asm__ volatile("" : "+r"(ptr) : : "memory");
	return ptr;
}

static void pairs(unsigned int thread, size_t size)
{
	uint64_t i;

	(void)thread;
	for (i = 0; i < nr_ops; i++)
		free(seen(malloc(size)));
}

/*
 * Pairs of 70 KiB to 1 MiB. With every allocator the first and the last byte are written, because
 * nobody takes a block of this size and leaves it alone, and because an allocator that returns its
 * pages to the kernel has to pay for getting them back. Filling the block would measure the memory.
 */
static void pairs_large(unsigned int thread, size_t size)
{
	uint32_t at = thread * 1000;
	uint64_t i;
	char *ptr;

	for (i = 0; i < nr_ops; i++) {
		size = sizes[(at + i) % NR_SIZES];
		ptr = must(malloc(size));
		ptr[0] = 1;
		ptr[size - 1] = 1;
		free(seen(ptr));
	}
}

/* Batches: three of four up to 1 KiB, the others up to 16 KiB. */
static void mixed(unsigned int thread, size_t size)
{
	void *ptrs[NR_BATCH];
	uint64_t i;
	uint32_t k, at = thread * 1000;

	(void)size;
	for (i = 0; i < nr_ops; i += NR_BATCH) {
		for (k = 0; k < NR_BATCH; k++)
			ptrs[k] = must(malloc(sizes[(at + k) % NR_SIZES]));
		for (k = 0; k < NR_BATCH; k++)
			free(ptrs[k]);
		at += NR_BATCH;
	}
}

/*
 * Larson's: each block replaces a random one that any thread may have allocated, of @nr_slots for
 * each thread.
 */
static char *_Atomic slots[NR_SLOTS_MAX * NR_THREADS_MAX];

static void server(unsigned int thread, size_t nr_slots)
{
	uint32_t seed = 12345 + thread;
	uint64_t i;

	for (i = 0; i < nr_ops; i++) {
		uint32_t slot = next(&seed) % (nr_slots * nr_threads);
		char *ptr = must(malloc(10 + next(&seed) % 491));

		ptr[0] = 1;
		free(atomic_exchange_explicit(&slots[slot], ptr, memory_order_acq_rel));
	}
}

/* One thread allocates, the other frees. */
static char *_Atomic ring[NR_RING];

/* Where the other thread is not running, waiting alone would measure the scheduler. */
static void relax(unsigned int *nr)
{
	if (++*nr % 256)
		__builtin_ia32_pause();
	else
		sched_yield();
}

static void handover(unsigned int thread, size_t size)
{
	unsigned int nr = 0;
	uint64_t i;
	char *ptr;

	for (i = 0; i < nr_ops; i++) {
		char *_Atomic *slot = &ring[i % NR_RING];

		if (!thread) {
			ptr = must(malloc(size));
			ptr[0] = 1;
			while (atomic_load_explicit(slot, memory_order_acquire))
				relax(&nr);
			atomic_store_explicit(slot, ptr, memory_order_release);
		} else {
			while (!(ptr = atomic_load_explicit(slot, memory_order_acquire)))
				relax(&nr);
			atomic_store_explicit(slot, NULL, memory_order_release);
			free(ptr);
		}
	}
}

/* A buffer grows by a quarter, from 16 bytes to 1 MiB, and is filled each time. */
static void grow(unsigned int thread, size_t size)
{
	char *ptr = NULL;
	size_t first = size, used = 0;
	uint64_t i;

	(void)thread;
	for (i = 0; i < nr_ops; i++) {
		ptr = must(realloc(ptr, size));
		memset(ptr + used, 1, size - used);
		used = size;
		size += size / 4;
		if (size > 1 << 20) {
			free(ptr);
			ptr = NULL;
			size = first;
			used = 0;
		}
	}
	free(ptr);
}

/* Blocks of 64 KiB to 2 MiB, odd in bytes, replaced at random; each page of them is used. */
static void large(unsigned int thread, size_t size)
{
	char *ptrs[NR_LARGE] = { NULL };
	uint32_t seed = 99 + thread, k;
	size_t bytes, at;
	uint64_t i;

	(void)size;
	for (i = 0; i < nr_ops; i++) {
		k = next(&seed) % NR_LARGE;
		free(ptrs[k]);
		bytes = (65536u << next(&seed) % 6) + next(&seed) % 65536;
		ptrs[k] = must(malloc(bytes));
		for (at = 0; at < bytes; at += 4096)
			ptrs[k][at] = 1;
	}
	for (k = 0; k < NR_LARGE; k++)
		free(ptrs[k]);
}

static const struct workload {
	const char *name;
	void (*run)(unsigned int thread, size_t size);
	size_t size;
	uint64_t nr_ops;
	unsigned int nr_threads; /* 0: as asked for */
} workloads[] = {
	{ "pairs-64", pairs, 64, 4000000, 0 },
	{ "pairs-1k", pairs, 1024, 4000000, 0 },
	{ "pairs-4k", pairs, 4096, 4000000, 0 },
	{ "pairs-64k", pairs, 65536, 2000000, 0 },
	{ "pairs-large", pairs_large, 0, 1000000, 0 },
	{ "mixed", mixed, 0, 3000000, 0 },
	{ "server", server, 1000, 2000000, 0 },
	{ "server-100k", server, NR_SLOTS_MAX, 2000000, 0 },
	{ "handover-64", handover, 64, 1000000, 2 },
	{ "handover-1k", handover, 1024, 500000, 2 },
	{ "handover-64k", handover, 65536, 500000, 2 },
	{ "realloc", grow, 16, 200000, 0 },
	{ "large", large, 0, 20000, 0 },
};

static pthread_barrier_t barrier;
static const struct workload *workload;

/* Of large sizes each is a 64th above the one before, and as likely as any other. */
static void draw_sizes(void)
{
	uint32_t steps[256], seed = 4711, nr = 0, size, i;

	for (size = 70 << 10; size <= 1 << 20; size += size / 64)
		steps[nr++] = size;
	for (i = 0; i < NR_SIZES; i++)
		if (workload->run == pairs_large)
			sizes[i] = steps[next(&seed) % nr];
		else
			sizes[i] = 1 + next(&seed) % (i % 4 ? 1024 : 16384);
}

/* One thread waits for nobody, so what other processes take of its CPU need not be counted. */
static double now(void)
{
	struct timespec t;

	clock_gettime(nr_threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void *run_thread(void *arg)
{
	unsigned int thread = (uintptr_t)arg;

	free(must(malloc(1)));
	pthread_barrier_wait(&barrier);
	workload->run(thread, workload->size);
	pthread_barrier_wait(&barrier);
	return NULL;
}

/* A line of /proc/self/status in KiB. */
static unsigned long status_of(const char *name)
{
	FILE *file = fopen("/proc/self/status", "r");
	unsigned long value = 0;
	char line[256];

	if (!file)
		die("no /proc");
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, name, strlen(name)))
			value = strtoul(line + strlen(name) + 1, NULL, 10);
	fclose(file);
	return value;
}

int main(int argc, char **argv)
{
	pthread_t threads[NR_THREADS_MAX];
	unsigned long before;
	uintptr_t i;
	double ns;

	for (i = 0; argc >= 2 && i < sizeof(workloads) / sizeof(workloads[0]); i++)
		if (!strcmp(argv[1], workloads[i].name))
			workload = &workloads[i];
	if (argc == 2 && !strcmp(argv[1], "list")) {
		for (i = 0; i < sizeof(workloads) / sizeof(workloads[0]); i++)
			puts(workloads[i].name);
		return 0;
	}
	if (!workload)
		die("usage: malloc list|WORKLOAD [THREADS [OPERATIONS]]");
	if (argc > 2)
		nr_threads = strtoul(argv[2], NULL, 10);
	if (workload->nr_threads)
		nr_threads = workload->nr_threads;
	if (!nr_threads || nr_threads > NR_THREADS_MAX)
		die("one or two threads");
	nr_ops = argc > 3 ? strtoull(argv[3], NULL, 10) : workload->nr_ops;
	draw_sizes();

	before = status_of("RssAnon");
	if (pthread_barrier_init(&barrier, NULL, nr_threads + 1))
		die("no barrier");
	for (i = 0; i < nr_threads; i++)
		if (pthread_create(&threads[i], NULL, run_thread, (void *)i))
			die("no thread");
	pthread_barrier_wait(&barrier);
	ns = now();
	pthread_barrier_wait(&barrier);
	ns = now() - ns;
	for (i = 0; i < nr_threads; i++)
		pthread_join(threads[i], NULL);
	printf("%.3f %lu\n", ns / nr_ops, status_of("VmHWM") - status_of("RssFile") - before);
	return 0;
}
