/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of libxalloc share. They see the library as a program does, through its
 * header, and the module's counters to check that what is freed went back to the kernel.
 * With XALLOC_BACKEND=local they need no module, and skip what only the device can show.
 *
 * The harness runs each test in a child, which has not used the library before: the
 * environment that a test sets counts. The arena of the default heap lives until that child
 * ends, so the counters are compared in the parent, after that.
 *
 * Some macros use the harness: a program includes selftest.h too.
 */
#ifndef XALLOC_LIBTEST_H
#define XALLOC_LIBTEST_H

#include <libxalloc.h>
#include <stdatomic.h>

#include "helpers.h"

#define SEGMENT ((size_t)XALLOC_SEGMENT_BYTES)
#define SLICE ((size_t)XALLOC_SLICE_BYTES)

bool is_local(void);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED true
#else
#define IS_SANITIZED false
#endif

/* Sanitizers are slow, as is the emulated machine, which has to zero all that is committed. */
bool is_fast(void);

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

struct xalloc_arena_stat stats_of(struct xalloc_arena *arena);

/* What the kernel has committed, asked without a call of the library that could give it back. */
uint64_t committed_by(struct xalloc_arena *arena);

struct xalloc_arena *arena_of(size_t arena_bytes, size_t limit_bytes);

/* A byte that differs between neighbours and between seeds. */
static inline unsigned char byte_of(uint64_t seed, size_t i)
{
	return seed * 37 + i * 11 + (i >> 8) * 7;
}

void bytes_fill(void *ptr, size_t bytes, uint64_t seed);

/* Whether all are what bytes_fill() wrote. */
bool bytes_same(const void *ptr, size_t bytes, uint64_t seed);

bool bytes_are(const void *ptr, size_t bytes, unsigned char value);
bool bytes_zero(const void *ptr, size_t bytes);

/*
 * How many bytes of this process's memory are resident and private, without the memory of @arena.
 * A huge page counts whole.
 */
size_t resident_outside(struct xalloc_arena *arena);

/* A field of /proc/self/status that is in kB, in bytes. Allocates nothing. */
size_t status_bytes(const char *field);

/* Waits until the thread sleeps or has ended. *@tid is 0 until the thread has begun. */
void wait_until_asleep(const atomic_int *tid);

/* For a function that runs in a child and returns the child's exit status: 0 if all is well. */
#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "line %d: %s: errno %d\n", __LINE__, #condition, errno); \
			return 1; \
		} \
	} while (0)

/*
 * Runs @run in a child and returns what child_status() returns for it. What the child wrote to
 * stderr is in @text. @run returns the exit status. An abort of the child leaves no core.
 */
int run_child(int (*run)(void *), void *arg, char *text, size_t bytes);

#endif /* XALLOC_LIBTEST_H */
