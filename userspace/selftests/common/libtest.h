/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of libxalloc share. They see the library as a program does, through its
 * header, and the module's counters to check that what is freed went back to the kernel.
 * With XALLOC_BACKEND=local they need no module, and skip what only the device can show.
 *
 * The harness runs each test in a child, which has not used the library before: the
 * environment that a test sets counts. The arena of the default heap lives until that child
 * ends, so the counters are compared in the parent, after that.
 */
#ifndef XALLOC_LIBTEST_H
#define XALLOC_LIBTEST_H

#include <libxalloc.h>
#include <stdatomic.h>

#include "selftest.h"

#define SEGMENT ((size_t)XALLOC_SEGMENT_BYTES)
#define SLICE ((size_t)XALLOC_SLICE_BYTES)

static inline bool is_local(void)
{
	const char *text = getenv("XALLOC_BACKEND");

	return text && !strcmp(text, "local");
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED true
#else
#define IS_SANITIZED false
#endif

/* Sanitizers are slow, as is the emulated machine, which has to zero all that is committed. */
static inline bool is_fast(void)
{
	return (is_local() && !IS_SANITIZED) || is_long_run();
}

#define SKIP_LOCAL(why) \
	do { \
		if (is_local()) \
			SKIP(return, "the local backend " why); \
	} while (0)

#define SKIP_SANITIZED(why) \
	do { \
		if (IS_SANITIZED) \
			SKIP(return, "the sanitizer " why); \
	} while (0)

/* Fixture @name with nothing but the check of the counters; the limit is of the default heap. */
#define LIBTEST_FIXTURE(name, limit)						\
FIXTURE(name) {									\
	struct xalloc_ioc_stat before;						\
};										\
FIXTURE_SETUP(name)								\
{										\
	if (!is_local())							\
		close(device_setup(_metadata, &self->before));			\
	setenv("XALLOC_LIMIT", limit, 1);					\
}										\
FIXTURE_TEARDOWN_PARENT(name)							\
{										\
	int device;								\
										\
	if (is_local())								\
		return;								\
	device = device_open();							\
	ASSERT_LE(0, device);							\
	counters_expect(_metadata, device, &self->before);			\
	close(device);								\
}

static inline struct xalloc_arena_stat stats_of(struct xalloc_arena *arena)
{
	struct xalloc_arena_stat stat = { .size = sizeof(stat) };

	if (xalloc_arena_stats(arena, &stat))
		abort();
	return stat;
}

static inline struct xalloc_arena *arena_of(size_t arena_bytes, size_t limit_bytes)
{
	struct xalloc_arena_config config = {
		.size = sizeof(config),
		.arena_bytes = arena_bytes,
		.limit_bytes = limit_bytes,
	};

	return xalloc_arena_create(&config);
}

/* A byte that differs between neighbours and between seeds. */
static inline unsigned char byte_of(uint64_t seed, size_t i)
{
	return seed * 37 + i * 11 + (i >> 8) * 7;
}

static inline void bytes_fill(void *ptr, size_t bytes, uint64_t seed)
{
	unsigned char *p = ptr;
	size_t i;

	for (i = 0; i < bytes; i++)
		p[i] = byte_of(seed, i);
}

/* Whether all are what bytes_fill() wrote. */
static inline bool bytes_same(const void *ptr, size_t bytes, uint64_t seed)
{
	const unsigned char *p = ptr;
	size_t i;

	for (i = 0; i < bytes; i++)
		if (p[i] != byte_of(seed, i))
			return false;
	return true;
}

static inline bool bytes_are(const void *ptr, size_t bytes, unsigned char value)
{
	const unsigned char *p = ptr;

	return !bytes || (p[0] == value && !memcmp(p, p + 1, bytes - 1));
}

static inline bool bytes_zero(const void *ptr, size_t bytes)
{
	return bytes_are(ptr, bytes, 0);
}

/*
 * Memory that this process has of its own, but for that of @arena: bytes of private mappings
 * that are resident. What lies in huge pages counts as such.
 */
static inline size_t resident_outside(struct xalloc_arena *arena)
{
	unsigned long first = 0, end = 0, from, to, kb;
	FILE *file = fopen("/proc/self/smaps", "r");
	struct iovec range = { 0 };
	bool outside = false;
	char line[512];
	size_t sum = 0;

	if (!file)
		return 0;
	if (arena && !xalloc_arena_range(arena, &range)) {
		first = (unsigned long)range.iov_base;
		end = first + range.iov_len;
	}
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			outside = to <= first || end <= from;
		else if (outside && sscanf(line, "Private_Dirty: %lu kB", &kb) == 1)
			sum += kb << 10;
	}
	fclose(file);
	return sum;
}

/* Until the thread waits for another, or has ended; *@tid is zero before it has begun. */
static inline void wait_until_asleep(const atomic_int *tid)
{
	char path[64], line[256], state = 0;
	FILE *file;

	for (; state != 'S'; sleep_ms(1)) {
		if (!atomic_load(tid))
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%d/stat", atomic_load(tid));
		file = fopen(path, "r");
		if (!file)
			return;
		/* Behind the name. */
		state = fgets(line, sizeof(line), file) ? strrchr(line, ')')[2] : 0;
		fclose(file);
	}
}

/* In what runs in a child, and returns its exit status: 0 if all is well. */
#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "line %d: %s: errno %d\n", __LINE__, #condition, errno); \
			return 1; \
		} \
	} while (0)

/*
 * Runs @run in a child and returns as child_status() does; what the child wrote to stderr is
 * in @text. @run returns the exit status; an abort leaves no core.
 */
static inline int run_child(int (*run)(void *), void *arg, char *text, size_t bytes)
{
	size_t len = 0;
	int pipes[2];
	ssize_t nr;
	pid_t pid;

	if (pipe(pipes))
		abort();
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		abort();
	if (!pid) {
		struct rlimit none = { 0 };

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGABRT, SIG_DFL);
		dup2(pipes[1], STDERR_FILENO);
		close(pipes[0]);
		close(pipes[1]);
		_exit(run(arg));
	}
	close(pipes[1]);
	while ((nr = read(pipes[0], text + len, bytes - 1 - len)) > 0)
		len += nr;
	text[len] = 0;
	close(pipes[0]);
	return child_status(pid);
}

#endif /* XALLOC_LIBTEST_H */
