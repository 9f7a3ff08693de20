/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of the preload library share. Each test runs its own program once more, with the
 * library preloaded and the name of a case in the environment. A constructor of the program then
 * runs that case before main().
 */
#ifndef XALLOC_PRELOAD_H
#define XALLOC_PRELOAD_H

#include "libtest.h"

#define CASE "XALLOC_TEST_CASE"

struct preload_case {
	const char *name;
	int (*run)(void);
};

/* Runs the case that the environment names, and exits. A constructor of the program calls this. */
void be_preloaded(const struct preload_case *cases, size_t nr);

int library_path(char *path, size_t size);

/* For run_child(): becomes this program again, with the library preloaded and @arg as the case. */
int exec_preloaded(void *arg);

#define EXPECT_CASE(name) \
	do { \
		char text[4096]; \
\
		EXPECT_EQ(0, run_child(exec_preloaded, name, text, sizeof(text))) \
		{ \
			TH_LOG("%s", text); \
		} \
	} while (0)

/* Of glibc; no header has them. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t nmemb, size_t size);
void *__libc_realloc(void *ptr, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void *__libc_valloc(size_t size);
void *__libc_pvalloc(size_t size);
void __libc_free(void *ptr);
int __libc_mallopt(int param, int value);

/* Whether @ptr is a block of libxalloc. */
bool is_block(const void *ptr);

/*
 * The same, but any block is right where nothing is preloaded: a case that runs on libc's malloc
 * shows that it is right itself.
 */
bool is_ours(const void *ptr);

#define NR_BLOCKS 400

extern void *blocks[NR_BLOCKS];

/* Each works on all blocks, whose contents follow from @seed, and returns 0 if all is well. */
int fill_blocks(uint64_t seed);

int expect_blocks(uint64_t seed);
int replace_blocks(uint64_t seed);

/* Calls @run with the number of this generation, 1 for a child of the first. */
int forks(int (*run)(unsigned int generation), unsigned int generation);

#endif /* XALLOC_PRELOAD_H */
