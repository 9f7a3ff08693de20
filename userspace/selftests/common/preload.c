// SPDX-License-Identifier: GPL-2.0-only
#include "preload.h"

void be_preloaded(const struct preload_case *cases, size_t nr)
{
	const char *name = getenv(CASE);
	size_t i;

	for (i = 0; name && i < nr; i++) {
		if (strcmp(name, cases[i].name))
			continue;
		/* In the program itself: what it starts is as it is. */
		unsetenv(CASE);
		_exit(cases[i].run());
	}
}

int library_path(char *path, size_t size)
{
	ssize_t len = readlink("/proc/self/exe", path, size - 64);

	CHECK(len > 0);
	path[len] = 0;
	strcpy(strrchr(path, '/'), "/../../lib/libxalloc-preload.so");
	CHECK(access(path, R_OK) == 0);
	return 0;
}

int exec_preloaded(void *arg)
{
	char path[4096];

	CHECK(!library_path(path, sizeof(path)));
	setenv("LD_PRELOAD", path, 1);
	setenv(CASE, arg, 1);
	/* What the runner has left open is not the library's. */
	closefrom(3);
	execl("/proc/self/exe", program_invocation_short_name, NULL);
	return 1;
}

bool is_block(const void *ptr)
{
	struct xalloc_block_handle handle;

	return xalloc_handle(ptr, &handle) == 0;
}

bool is_ours(const void *ptr)
{
	return ptr && (!getenv("LD_PRELOAD") || is_block(ptr));
}

void *blocks[NR_BLOCKS];

/* A mix that has small blocks, medium ones and large ones. */
static size_t bytes_of(unsigned int i)
{
	return i % 40 == 39 ? 300000 + i : 1 + i * i % 9000;
}

int fill_blocks(uint64_t seed)
{
	unsigned int i;

	for (i = 0; i < NR_BLOCKS; i++) {
		blocks[i] = malloc(bytes_of(i));
		CHECK(blocks[i]);
		bytes_fill(blocks[i], bytes_of(i), seed + i);
	}
	return 0;
}

int expect_blocks(uint64_t seed)
{
	unsigned int i;

	for (i = 0; i < NR_BLOCKS; i++)
		CHECK(is_block(blocks[i]) && bytes_same(blocks[i], bytes_of(i), seed + i));
	return 0;
}

int replace_blocks(uint64_t seed)
{
	unsigned int i;

	for (i = 0; i < NR_BLOCKS; i++)
		free(blocks[i]);
	return fill_blocks(seed);
}

int forks(int (*run)(unsigned int generation), unsigned int generation)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (!pid)
		_exit(run(generation));
	return child_status(pid);
}
