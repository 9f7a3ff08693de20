// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: arenas and heaps of libxalloc have the size, limit, range, handles and counts
 * that were asked for, keep apart, refuse what cannot be, and give all memory back.
 */
#include "libtest.h"
#include "selftest.h"
#include "sharing.h"

LIBTEST_FIXTURE(lib_arena, "32M")

TEST_F(lib_arena, sizes_are_rounded_up_and_told)
{
	struct xalloc_arena *arena = arena_of(5 * MIB + 1, 1);
	struct xalloc_arena_stat stat;
	struct iovec range;

	ASSERT_NE(NULL, arena);
	stat = stats_of(arena);
	ASSERT_EQ(sizeof(stat), stat.size);
	ASSERT_EQ(6 * MIB, stat.arena_bytes);
	ASSERT_EQ(2 * MIB, stat.limit_bytes);
	ASSERT_EQ(0, stat.committed_bytes);
	ASSERT_EQ(0, stat.granted_bytes);
	ASSERT_EQ(0, stat.nr_heaps);
	ASSERT_EQ(0, stat.refused);
	ASSERT_EQ(0, xalloc_arena_range(arena, &range));
	ASSERT_EQ(6 * MIB, range.iov_len);
	ASSERT_EQ(0, (uintptr_t)range.iov_base % SEGMENT);
	if (is_local()) {
		ASSERT_EQ(-EOPNOTSUPP, xalloc_arena_fd(arena));
	} else {
		ASSERT_LE(0, xalloc_arena_fd(arena));
		ASSERT_EQ(FD_CLOEXEC, fcntl(xalloc_arena_fd(arena), F_GETFD));
	}
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_arena, defaults_are_the_limit_of_the_default_heap)
{
	struct xalloc_arena *arena = xalloc_arena_create(NULL), *zero = arena_of(0, 0);

	ASSERT_NE(NULL, arena);
	ASSERT_NE(NULL, zero);
	ASSERT_EQ(32 * MIB, stats_of(arena).arena_bytes);
	ASSERT_EQ(32 * MIB, stats_of(zero).limit_bytes);
	ASSERT_EQ(32 * MIB, stats_of(xalloc_arena_default()).limit_bytes);
	ASSERT_NE(stats_of(arena).arena_id, stats_of(zero).arena_id);
	ASSERT_EQ(-EBUSY, xalloc_arena_destroy(xalloc_arena_default()));
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	ASSERT_EQ(0, xalloc_arena_destroy(zero));
}

TEST_F(lib_arena, configs_of_other_versions)
{
	struct {
		struct xalloc_arena_config config;
		size_t newer;
	} later = { .config = { .size = sizeof(later), .arena_bytes = 2 * MIB } };
	struct xalloc_arena *arena;
	struct {
		struct xalloc_arena_stat stat;
		uint64_t newer;
	} more = { .stat = { .size = sizeof(more) }, .newer = 7 };
	struct xalloc_arena_stat less = { .size = offsetof(struct xalloc_arena_stat, limit_bytes) };

	arena = xalloc_arena_create(&later.config);
	ASSERT_NE(NULL, arena);
	ASSERT_EQ(0, xalloc_arena_stats(arena, &more.stat));
	ASSERT_EQ(sizeof(struct xalloc_arena_stat), more.stat.size);
	ASSERT_EQ(7, more.newer);
	less.limit_bytes = 7;
	ASSERT_EQ(0, xalloc_arena_stats(arena, &less));
	ASSERT_EQ(2 * MIB, less.arena_bytes);
	ASSERT_EQ(7, less.limit_bytes);
	less.size = 4;
	ASSERT_EQ(-EINVAL, xalloc_arena_stats(arena, &less));
	ASSERT_EQ(0, xalloc_arena_destroy(arena));

	later.newer = 1;
	ASSERT_EQ(NULL, xalloc_arena_create(&later.config));
	ASSERT_EQ(E2BIG, errno);
	later.config.size = sizeof(size_t);
	ASSERT_EQ(NULL, xalloc_arena_create(&later.config));
	ASSERT_EQ(EINVAL, errno);
	later.config.size = 0;
	ASSERT_EQ(NULL, xalloc_arena_create(&later.config));
	ASSERT_EQ(EINVAL, errno);
}

TEST_F(lib_arena, sizes_no_arena_can_have_are_efbig)
{
	ASSERT_EQ(NULL, arena_of(SIZE_MAX, 0));
	ASSERT_EQ(EFBIG, errno);
	ASSERT_EQ(NULL, arena_of(SEGMENT, SIZE_MAX));
	ASSERT_EQ(EFBIG, errno);
	/* Also where the range has no room for it. */
	ASSERT_EQ(NULL, arena_of(1UL << 62, 0));
	ASSERT_EQ(EFBIG, errno);
}

TEST_F(lib_arena, a_limit_below_the_size_refuses_with_edquot)
{
	struct xalloc_arena *arena = arena_of(16 * MIB, 4 * MIB);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	void *ptr;

	ASSERT_NE(NULL, heap);
	ASSERT_NE(NULL, ptr = xalloc_heap_malloc(heap, 4 * MIB));
	ASSERT_EQ(NULL, xalloc_heap_malloc(heap, 1));
	ASSERT_EQ(ENOMEM, errno);
	ASSERT_EQ(EDQUOT, stats_of(arena).refused);
	ASSERT_EQ(1, stats_of(arena).nr_refused);
	xalloc_free(ptr);
	ASSERT_NE(NULL, xalloc_heap_malloc(heap, 1));
	ASSERT_EQ(NULL, xalloc_heap_malloc(heap, 17 * MIB));
	ASSERT_EQ(EFBIG, stats_of(arena).refused);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_arena, what_one_heap_keeps_serves_another)
{
	struct xalloc_arena *arena = arena_of(2 * MIB, 0);
	struct xalloc_heap *a = xalloc_heap_create(arena), *b = xalloc_heap_create(arena);
	void *ptr;

	ASSERT_NE(NULL, ptr = xalloc_heap_malloc(a, 16));
	xalloc_free(ptr);
	ASSERT_NE(0, stats_of(arena).granted_bytes);
	ASSERT_NE(NULL, ptr = xalloc_heap_malloc(b, 2 * MIB));
	ASSERT_EQ(0, stats_of(arena).nr_refused);
	xalloc_free(ptr);
	ASSERT_EQ(0, stats_of(arena).granted_bytes);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_arena, what_a_heap_keeps_is_not_in_the_way_of_an_alignment)
{
	struct xalloc_arena *arena = arena_of(4 * MIB, 0);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	void *ptr;

	ASSERT_NE(NULL, ptr = xalloc_heap_malloc(heap, 16));
	xalloc_free(ptr);
	/* Only the start of the arena is aligned so, where the empty slab is. */
	ASSERT_NE(NULL, ptr = xalloc_heap_aligned_alloc(heap, 4 * MIB, 2 * SLICE));
	ASSERT_EQ(0, (uintptr_t)ptr % (4 * MIB));
	xalloc_free(ptr);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_arena, heap_destroy_gives_all_its_blocks_back)
{
	struct xalloc_arena *arena = arena_of(32 * MIB, 0);
	struct xalloc_heap *stays = xalloc_heap_create(arena), *heap;
	uint32_t seed = random_seed() | 1, round, i;
	void *ptr = xalloc_heap_malloc(stays, 5000);
	struct xalloc_arena_stat before, stat;

	TH_LOG("SEED=%u", seed);
	ASSERT_NE(NULL, ptr);
	bytes_fill(ptr, 5000, 1);
	before = stats_of(arena);
	for (round = 0; round < 5; round++) {
		heap = xalloc_heap_create(arena);
		ASSERT_NE(NULL, heap);
		for (i = 0; i < 600; i++) {
			size_t size = random_next(&seed) % (1U << random_next(&seed) % 18);
			void *block = xalloc_heap_malloc(heap, size);

			ASSERT_NE(NULL, block);
			memset(block, round, size);
			if (random_next(&seed) % 4 == 0)
				xalloc_free(block);
		}
		ASSERT_EQ(2, stats_of(arena).nr_heaps);
		ASSERT_EQ(0, xalloc_heap_destroy(heap));
		stat = stats_of(arena);
		ASSERT_EQ(before.granted_bytes, stat.granted_bytes);
		ASSERT_EQ(before.committed_bytes, stat.committed_bytes);
		ASSERT_EQ(before.nr_blocks, stat.nr_blocks);
		ASSERT_EQ(before.used_bytes, stat.used_bytes);
	}
	ASSERT_TRUE(bytes_same(ptr, 5000, 1));
	xalloc_free(ptr);
	ASSERT_EQ(0, xalloc_heap_destroy(stays));
	ASSERT_EQ(0, stats_of(arena).committed_bytes);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_arena, arena_destroy_takes_heaps_and_blocks_along)
{
	int device, i;

	SKIP_LOCAL("has no counters outside of the process");
	device = device_open();
	for (i = 0; i < 20; i++) {
		struct xalloc_arena *arena = arena_of(8 * MIB, 0);
		struct xalloc_heap *heap = xalloc_heap_create(arena);

		ASSERT_NE(NULL, xalloc_heap_calloc(heap, 3, 100));
		ASSERT_NE(NULL, xalloc_heap_malloc(heap, 3 * MIB));
		ASSERT_NE(NULL, xalloc_heap_malloc(xalloc_heap_create(arena), 100));
		ASSERT_EQ(0, xalloc_arena_destroy(arena));
	}
	counters_expect(_metadata, device, &self->before);
	close(device);
}

TEST_F(lib_arena, what_is_destroyed_is_stale)
{
	struct xalloc_arena *arena = arena_of(8 * MIB, 0);
	struct xalloc_heap *heap = xalloc_heap_create(arena), *other = xalloc_heap_create(arena);
	struct xalloc_arena_stat stat = { .size = sizeof(stat) };
	struct iovec range;

	ASSERT_EQ(0, xalloc_heap_destroy(heap));
	ASSERT_EQ(-ESTALE, xalloc_heap_destroy(heap));
	errno = 0;
	ASSERT_EQ(NULL, xalloc_heap_malloc(heap, 1));
	ASSERT_EQ(ESTALE, errno);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	ASSERT_EQ(-ESTALE, xalloc_arena_destroy(arena));
	ASSERT_EQ(-ESTALE, xalloc_heap_destroy(other));
	ASSERT_EQ(-ESTALE, xalloc_arena_fd(arena));
	ASSERT_EQ(-ESTALE, xalloc_arena_range(arena, &range));
	ASSERT_EQ(-ESTALE, xalloc_arena_stats(arena, &stat));
	errno = 0;
	ASSERT_EQ(NULL, xalloc_heap_calloc(other, 1, 1));
	ASSERT_EQ(ESTALE, errno);
	errno = 0;
	ASSERT_EQ(NULL, xalloc_heap_create(arena));
	ASSERT_EQ(ESTALE, errno);
	errno = 0;
	ASSERT_EQ(NULL, xalloc_at(arena, 0));
	ASSERT_EQ(ESTALE, errno);
}

TEST_F(lib_arena, blocks_lie_in_the_range_of_their_arena)
{
	struct xalloc_arena *arenas[8];
	struct iovec ranges[8];
	uint32_t seed = 77;
	int i, k;

	for (i = 0; i < 8; i++) {
		arenas[i] = arena_of((i + 1) * SEGMENT, 0);
		ASSERT_NE(NULL, arenas[i]);
		ASSERT_EQ(0, xalloc_arena_range(arenas[i], &ranges[i]));
	}
	/* Gaps are used again, and nothing overlaps. */
	for (k = 0; k < 30; k++) {
		i = random_next(&seed) % 8;
		ASSERT_EQ(0, xalloc_arena_destroy(arenas[i]));
		arenas[i] = arena_of((1 + random_next(&seed) % 8) * SEGMENT, 0);
		ASSERT_NE(NULL, arenas[i]);
		ASSERT_EQ(0, xalloc_arena_range(arenas[i], &ranges[i]));
	}
	for (i = 0; i < 8; i++) {
		char *base = ranges[i].iov_base, *ptr;

		for (k = 0; k < 8; k++) {
			char *other = ranges[k].iov_base;

			ASSERT_TRUE(k == i || base + ranges[i].iov_len <= other ||
				    other + ranges[k].iov_len <= base);
		}
		ptr = xalloc_heap_malloc(xalloc_heap_create(arenas[i]), ranges[i].iov_len);
		ASSERT_EQ(base, ptr);
		memset(ptr, i, ranges[i].iov_len);
	}
	for (i = 0; i < 8; i++) {
		ASSERT_EQ(i, *((char *)ranges[i].iov_base + ranges[i].iov_len - 1));
		ASSERT_EQ(0, xalloc_arena_destroy(arenas[i]));
	}
}

TEST_F(lib_arena, a_handle_leads_back_and_to_the_same_memory_elsewhere)
{
	struct xalloc_arena *arena = arena_of(16 * MIB, 0);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	static const size_t sizes[] = { 1, 64, 5000, 65536, 100000, 3 << 20 };
	struct xalloc_block_handle handle, inside;
	unsigned char *ptr, *other;
	size_t i;

	SKIP_LOCAL("has no descriptor to map an arena by");
	other = arena_map(xalloc_arena_fd(arena), 16 * MIB);
	ASSERT_NE(NULL, other);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		ptr = xalloc_heap_malloc(heap, sizes[i]);
		ASSERT_NE(NULL, ptr);
		bytes_fill(ptr, sizes[i], i);
		ASSERT_EQ(0, xalloc_handle(ptr, &handle));
		ASSERT_EQ(stats_of(arena).arena_id, handle.arena_id);
		ASSERT_EQ(ptr, xalloc_at(arena, handle.offset));
		ASSERT_TRUE(bytes_same(other + handle.offset, sizes[i], i));
		ASSERT_EQ(0, xalloc_handle(ptr + sizes[i] - 1, &inside));
		ASSERT_EQ(handle.offset + sizes[i] - 1, inside.offset);
		xalloc_free(ptr);
		ASSERT_EQ(-ENOENT, xalloc_handle(ptr, &handle));
	}
	ASSERT_EQ(-ENOENT, xalloc_handle(&handle, &handle));
	ASSERT_EQ(-ENOENT, xalloc_handle(NULL, &handle));
	ASSERT_NE(NULL, xalloc_at(arena, 16 * MIB - 1));
	ASSERT_EQ(NULL, xalloc_at(arena, 16 * MIB));
	ASSERT_EQ(ERANGE, errno);
	ASSERT_EQ(NULL, xalloc_at(arena, UINT64_MAX));
	ASSERT_EQ(0, munmap(other, 16 * MIB));
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_arena, realloc_stays_in_the_heap_or_moves_to_the_one_named)
{
	struct xalloc_arena *arena = arena_of(8 * MIB, 0), *second = arena_of(8 * MIB, 0);
	struct xalloc_heap *heap = xalloc_heap_create(arena), *other = xalloc_heap_create(second);
	struct xalloc_block_handle handle;
	void *ptr = xalloc_heap_malloc(heap, 100);

	bytes_fill(ptr, 100, 3);
	ptr = xalloc_realloc(ptr, 10000);
	ASSERT_EQ(0, xalloc_handle(ptr, &handle));
	ASSERT_EQ(stats_of(arena).arena_id, handle.arena_id);
	/* The same size: moves all the same. */
	ptr = xalloc_heap_realloc(other, ptr, 10000);
	ASSERT_EQ(0, xalloc_handle(ptr, &handle));
	ASSERT_EQ(stats_of(second).arena_id, handle.arena_id);
	ASSERT_TRUE(bytes_same(ptr, 100, 3));
	ASSERT_EQ(0, stats_of(arena).nr_blocks);
	ASSERT_EQ(ptr, xalloc_heap_realloc(other, ptr, 10001));
	ptr = xalloc_heap_realloc(heap, NULL, 5);
	ASSERT_EQ(1, stats_of(arena).nr_blocks);
	ASSERT_EQ(0, (uintptr_t)xalloc_heap_aligned_alloc(heap, 4096, 5) % 4096);
	ASSERT_EQ(NULL, xalloc_heap_aligned_alloc(heap, 48, 5));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	ASSERT_EQ(0, xalloc_arena_destroy(second));
}

TEST_F(lib_arena, memory_that_is_referenced_elsewhere_stays_what_it_is)
{
	struct xalloc_arena *arena = arena_of(4 * MIB, 0);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	char *ptr = xalloc_heap_malloc(heap, 2 * MIB), seen[4096];
	struct iovec part = { .iov_base = ptr, .iov_len = sizeof(seen) };
	int pipes[2];

	SKIP_LOCAL("does not keep what is pinned");
	ASSERT_NE(NULL, ptr);
	ASSERT_EQ(0, pipe(pipes));
	bytes_fill(ptr, sizeof(seen), 9);
	ASSERT_EQ((ssize_t)sizeof(seen), vmsplice(pipes[1], &part, 1, 0));
	xalloc_free(ptr);
	ASSERT_EQ(2 * MIB, stats_of(arena).pinned_bytes);
	ASSERT_EQ((ssize_t)sizeof(seen), read(pipes[0], seen, sizeof(seen)));
	ASSERT_TRUE(bytes_same(seen, sizeof(seen), 9));
	ASSERT_TRUE(pinned_wait(_metadata, xalloc_arena_fd(arena), 0, 5000));
	close(pipes[0]);
	close(pipes[1]);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

/* Another client of the default arena is refused: what the library keeps without need goes back. */
TEST_F(lib_arena, kept_memory_goes_back_when_it_is_wanted)
{
	struct xalloc_arena *arena = xalloc_arena_default();
	void *live;
	size_t limit;
	int other;

	SKIP_LOCAL("has no kernel that could want memory back");
	ASSERT_NE(NULL, arena);
	limit = stats_of(arena).limit_bytes;
	/* It keeps no more than is in use, and a little. */
	live = xalloc_malloc(4 * SEGMENT);
	ASSERT_NE(NULL, live);
	xalloc_free(xalloc_malloc(4 * SEGMENT));
	ASSERT_LE(8 * SEGMENT, stats_of(arena).granted_bytes);
	other = attach(xalloc_arena_fd(arena), 0, NULL);
	ASSERT_LE(0, other);
	ASSERT_EQ(-EDQUOT, grant_page(other, (limit - 6 * SEGMENT) / SLICE, 0, NULL));
	xalloc_free(xalloc_malloc(2 * SLICE));
	EXPECT_GE(5 * SEGMENT, stats_of(arena).granted_bytes);
	EXPECT_EQ(1, grant_page(other, (limit - 6 * SEGMENT) / SLICE, 0, NULL));
	xalloc_free(live);
	close(other);
}

TEST_HARNESS_MAIN
