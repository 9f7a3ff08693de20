// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: what libxalloc gives to others: dma-bufs that hold the block they were made of, and
 * the state of all arenas as JSON that other programs can read.
 */
#include "libtest.h"
#include "selftest.h"

LIBTEST_FIXTURE(lib_share, "32M")

TEST_F(lib_share, a_dmabuf_holds_the_block_where_it_says)
{
	static const size_t sizes[] = { 1, 100, 5000, 65536, 100000, 3 << 20 };
	size_t i, offset, bytes;
	unsigned char *ptr, *seen;
	int fd;

	SKIP_LOCAL("has no dma-bufs");
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		ASSERT_NE(NULL, xalloc_malloc(sizes[i]));
		ptr = xalloc_malloc(sizes[i]);
		ASSERT_NE(NULL, ptr);
		bytes_fill(ptr, sizes[i], i);
		offset = SIZE_MAX;
		fd = xalloc_dmabuf(ptr, sizes[i], &offset);
		ASSERT_LE(0, fd);
		ASSERT_GT(SLICE, offset);
		ASSERT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD));
		bytes = lseek(fd, 0, SEEK_END);
		ASSERT_EQ((offset + sizes[i] + SLICE - 1) / SLICE * SLICE, bytes);
		seen = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		ASSERT_NE(MAP_FAILED, (void *)seen);
		ASSERT_TRUE(bytes_same(seen + offset, sizes[i], i));
		bytes_fill(seen + offset, sizes[i], i + 1);
		ASSERT_TRUE(bytes_same(ptr, sizes[i], i + 1));
		ASSERT_EQ(0, munmap(seen, bytes));
		close(fd);
		xalloc_free(ptr);
	}
}

TEST_F(lib_share, a_dmabuf_of_a_part_and_after_the_arena)
{
	struct xalloc_arena *arena = arena_of(8 * MIB, 0);
	unsigned char *ptr = xalloc_heap_malloc(xalloc_heap_create(arena), 3 * MIB), *seen;
	size_t offset;
	int fd;

	SKIP_LOCAL("has no dma-bufs");
	ASSERT_NE(NULL, ptr);
	bytes_fill(ptr, 3 * MIB, 7);
	fd = xalloc_dmabuf(ptr + MIB + 5, 10, &offset);
	ASSERT_LE(0, fd);
	ASSERT_EQ(((uintptr_t)ptr + MIB + 5) % SLICE, offset);
	ASSERT_EQ((off_t)SLICE, lseek(fd, 0, SEEK_END));
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	seen = mmap(NULL, SLICE, PROT_READ, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, (void *)seen);
	ASSERT_EQ(byte_of(7, MIB + 5), seen[offset]);
	ASSERT_EQ(byte_of(7, MIB + 14), seen[offset + 9]);
	munmap(seen, SLICE);
	close(fd);
}

TEST_F(lib_share, dmabuf_refusals)
{
	char *ptr = xalloc_malloc(100), *freed = xalloc_malloc(100), here;
	size_t offset;

	ASSERT_NE(NULL, ptr);
	xalloc_free(freed);
	ASSERT_EQ(-EINVAL, xalloc_dmabuf(ptr, 0, &offset));
	ASSERT_EQ(-ENOENT, xalloc_dmabuf(&here, 1, &offset));
	ASSERT_EQ(-ENOENT, xalloc_dmabuf(NULL, 1, &offset));
	ASSERT_EQ(-ENOENT, xalloc_dmabuf(freed, 1, &offset));
	ASSERT_EQ(-ENOENT, xalloc_dmabuf(ptr + 20 * MIB, 1, &offset));
	ASSERT_EQ(-ERANGE, xalloc_dmabuf(ptr, xalloc_usable_size(ptr) + 1, &offset));
	ASSERT_EQ(-ERANGE, xalloc_dmabuf(ptr + 1, xalloc_usable_size(ptr), &offset));
	ASSERT_EQ(-ERANGE, xalloc_dmabuf(ptr + 1, SIZE_MAX, &offset));
	if (is_local()) {
		ASSERT_EQ(-EOPNOTSUPP, xalloc_dmabuf(ptr, 1, &offset));
	}
	xalloc_free(ptr);
}

/* Runs @script of python on @text as the object "doc"; returns its exit status. */
static int with_json(const char *text, const char *script)
{
	char command[2048];
	FILE *python;

	snprintf(command, sizeof(command),
		 "python3 -c 'import json, sys\ndoc = json.load(sys.stdin)\n%s'", script);
	python = popen(command, "w");
	if (!python)
		return -1;
	fputs(text, python);
	return WEXITSTATUS(pclose(python));
}

TEST_F_TIMEOUT(lib_share, json_before_the_first_use, TEST_TIMEOUT_LONG)
{
	char text[100];

	ASSERT_GT(100, xalloc_stats_json(text, sizeof(text)));
	ASSERT_EQ(0, with_json(text, "assert doc[\"arenas\"] == []"));
}

TEST_F(lib_share, json_is_cut_as_snprintf_does)
{
	char text[4096], part[4096];
	int len, size;

	ASSERT_NE(NULL, xalloc_malloc(100));
	len = xalloc_stats_json(NULL, 0);
	ASSERT_LT(0, len);
	ASSERT_GT((int)sizeof(text), len);
	ASSERT_EQ(len, xalloc_stats_json(text, sizeof(text)));
	ASSERT_EQ(len, (int)strlen(text));
	for (size = 1; size <= len + 1; size++) {
		memset(part, 7, sizeof(part));
		ASSERT_EQ(len, xalloc_stats_json(part, size));
		ASSERT_EQ(size - 1, (int)strlen(part));
		ASSERT_EQ(0, strncmp(part, text, size - 1));
		ASSERT_EQ(7, part[size]);
	}
}

TEST_F_TIMEOUT(lib_share, json_says_what_the_arenas_hold, TEST_TIMEOUT_LONG)
{
	struct xalloc_arena *arena = arena_of(8 * MIB, 4 * MIB);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	static char text[65536];
	char script[1024];
	int i;

	for (i = 0; i < 5; i++)
		ASSERT_NE(NULL, xalloc_heap_malloc(heap, 100));
	ASSERT_NE(NULL, xalloc_heap_malloc(heap, 100000));
	ASSERT_EQ(NULL, xalloc_heap_malloc(heap, 5 * MIB));
	ASSERT_NE(NULL, xalloc_malloc(64));
	ASSERT_GT((int)sizeof(text), xalloc_stats_json(text, sizeof(text)));
	snprintf(script, sizeof(script),
		 "own = next(a for a in doc[\"arenas\"] if a[\"arena_id\"] == %llu)\n"
		 "heap, = own[\"heaps\"]\n"
		 "assert not own[\"default\"] and doc[\"backend\"] == \"%s\"\n"
		 "assert own[\"limit_bytes\"] == 4 << 20 and own[\"refused\"] == %d\n"
		 "assert own[\"nr_blocks\"] == 6 and own[\"used_bytes\"] == 5 * 112 + 102400\n"
		 "assert heap[\"kind\"] == \"own\" and heap[\"large\"][\"nr_blocks\"] == 1\n"
		 "assert heap[\"classes\"] == [{\"block_bytes\": 112, \"nr_blocks\": 5}]\n"
		 "first = next(a for a in doc[\"arenas\"] if a[\"default\"])\n"
		 "assert sum(c[\"nr_blocks\"] for h in first[\"heaps\"] for c in h[\"classes\"]) == 1\n",
		 (unsigned long long)stats_of(arena).arena_id, is_local() ? "local" : "device",
		 stats_of(arena).refused);
	ASSERT_EQ(0, with_json(text, script)) {
		TH_LOG("%s", text);
	}
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_HARNESS_MAIN
