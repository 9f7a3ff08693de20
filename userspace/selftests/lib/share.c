// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: what libxalloc gives to others: dma-bufs that hold the block they were made of, and
 * the state of all arenas as JSON that other programs can read.
 */
#include "libtest.h"
#include "selftest.h"

#include <cjson/cJSON.h>

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

/* A member of @object that is a number, or NaN. */
static double number_in(const cJSON *object, const char *name)
{
	return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

/* The member of the array @name in @object whose member @key is @value, or NULL. */
static cJSON *find_in(const cJSON *object, const char *name, const char *key, double value)
{
	cJSON *each;

	cJSON_ArrayForEach(each, cJSON_GetObjectItemCaseSensitive(object, name))
		if (number_in(each, key) == value)
			return each;
	return NULL;
}

/* How many blocks the classes of all heaps of an arena hold. */
static double small_blocks_of(const cJSON *arena)
{
	const cJSON *heap, *class;
	double sum = 0;

	cJSON_ArrayForEach(heap, cJSON_GetObjectItemCaseSensitive(arena, "heaps"))
		cJSON_ArrayForEach(class, cJSON_GetObjectItemCaseSensitive(heap, "classes"))
			sum += number_in(class, "nr_blocks");
	return sum;
}

TEST_F(lib_share, json_before_the_first_use)
{
	char text[100];
	cJSON *doc;

	ASSERT_GT(100, xalloc_stats_json(text, sizeof(text)));
	ASSERT_NE(NULL, doc = cJSON_ParseWithOpts(text, NULL, true));
	ASSERT_TRUE(cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(doc, "arenas")));
	ASSERT_EQ(0, cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(doc, "arenas")));
	cJSON_Delete(doc);
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

TEST_F(lib_share, json_says_what_the_arenas_hold)
{
	struct xalloc_arena *arena = arena_of(8 * MIB, 4 * MIB);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	cJSON *doc, *own, *first, *class, *large;
	static char text[65536];
	int i;

	for (i = 0; i < 5; i++)
		ASSERT_NE(NULL, xalloc_heap_malloc(heap, 100));
	ASSERT_NE(NULL, xalloc_heap_malloc(heap, 100000));
	ASSERT_EQ(NULL, xalloc_heap_malloc(heap, 5 * MIB));
	ASSERT_NE(NULL, xalloc_malloc(64));
	ASSERT_GT((int)sizeof(text), xalloc_stats_json(text, sizeof(text)));
	ASSERT_NE(NULL, doc = cJSON_ParseWithOpts(text, NULL, true)) {
		TH_LOG("%s", text);
	}
	ASSERT_STREQ(is_local() ? "local" : "device",
		     cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(doc, "backend")));
	own = find_in(doc, "arenas", "arena_id", stats_of(arena).arena_id);
	ASSERT_NE(NULL, own);
	EXPECT_TRUE(cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(own, "default")));
	EXPECT_EQ(4 * MIB, number_in(own, "limit_bytes"));
	EXPECT_EQ(stats_of(arena).refused, number_in(own, "refused"));
	EXPECT_EQ(6, number_in(own, "nr_blocks"));
	EXPECT_EQ(5 * 112 + 102400, number_in(own, "used_bytes"));
	ASSERT_EQ(1, cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(own, "heaps")));
	own = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(own, "heaps"), 0);
	EXPECT_STREQ("own", cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(own, "kind")));
	large = cJSON_GetObjectItemCaseSensitive(own, "large");
	EXPECT_EQ(1, number_in(large, "nr_blocks"));
	ASSERT_EQ(1, cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(own, "classes")));
	class = find_in(own, "classes", "block_bytes", 112);
	ASSERT_NE(NULL, class);
	EXPECT_EQ(5, number_in(class, "nr_blocks"));
	EXPECT_EQ(2, cJSON_GetArraySize(class));

	cJSON_ArrayForEach(first, cJSON_GetObjectItemCaseSensitive(doc, "arenas"))
		if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(first, "default")))
			break;
	ASSERT_NE(NULL, first);
	EXPECT_EQ(1, small_blocks_of(first));
	cJSON_Delete(doc);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_HARNESS_MAIN
