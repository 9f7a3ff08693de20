// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: what copies of arenas cost: the memory that a fork takes or that is prepared for
 * it, the limits that arena and copies are charged to, and time.
 */
#include "fork_fixture.h"

TEST_F(fork_copy, prepared_fork_takes_what_was_prepared)
{
	unsigned char *map = self->map;
	struct xalloc_ioc_stat stat;
	uint64_t cold;

	ASSERT_EQ(1, grant_page(self->arena, 4 * SEGMENT_SLICES, 0, NULL));
	pattern_fill(map, 4 * XALLOC_SEGMENT_BYTES, 1);
	ASSERT_EQ(0, fork_prepare(self->arena, 0));
	stat = stat_of(self->device);
	EXPECT_EQ(self->before.committed_bytes + 8 * XALLOC_SEGMENT_BYTES, stat.committed_bytes);
	/* Once more gives back what was prepared before. */
	ASSERT_EQ(0, fork_prepare(self->arena, 0));
	EXPECT_EQ(stat.committed_bytes, stat_of(self->device).committed_bytes);
	cold = stat_of(self->device).cold_bytes;
	pattern_fill(map, 4 * XALLOC_SEGMENT_BYTES, 2);
	EXPECT_EQ(0, in_child({
		require(is_filled(map, 4 * XALLOC_SEGMENT_BYTES, 2));
		require(stat_of(self->device).cold_bytes == cold);
		require(stat_of(self->device).committed_bytes == stat.committed_bytes);
	}));
	EXPECT_EQ(stat.committed_bytes - 4 * XALLOC_SEGMENT_BYTES,
		  stat_of(self->device).committed_bytes);
	EXPECT_EQ(0, fork_prepare(self->arena, 0));
	EXPECT_EQ(0, fork_prepare(self->arena, XALLOC_FORK_CANCEL));
	EXPECT_EQ(0, fork_prepare(self->arena, XALLOC_FORK_CANCEL));
	EXPECT_EQ(stat.committed_bytes - 4 * XALLOC_SEGMENT_BYTES,
		  stat_of(self->device).committed_bytes);
}

TEST_F(fork_copy, grant_after_prepare_is_copied_too)
{
	unsigned char *map = self->map;
	uint64_t first, second;

	ASSERT_EQ(1, grant_tagged(self->arena, 10, 0, 1, &first));
	pattern_fill(map + first, 10 * XALLOC_SLICE_BYTES, 1);
	ASSERT_EQ(0, fork_prepare(self->arena, 0));
	ASSERT_EQ(1, grant_tagged(self->arena, 70, 0, 2, &second));
	pattern_fill(map + second, 70 * XALLOC_SLICE_BYTES, 2);
	ASSERT_EQ(1, free_page(self->arena, first));
	EXPECT_EQ(0, in_child({
		int fd = attach_at(self->device, map, 0, NULL);

		require(is_filled(map + second, 70 * XALLOC_SLICE_BYTES, 2));
		require(stat_of(fd).pages == 1);
		require(stat_of(fd).granted_bytes == 70 * XALLOC_SLICE_BYTES);
	}));
}

/* Five segments, and a limit for nine: the arena's own, then that of the user. */
TEST_F(fork_copy, no_room_for_a_copy)
{
	unsigned char *map = self->map;
	struct xalloc_ioc_stat stat;

	ASSERT_EQ(1, grant_page(self->arena, 5 * SEGMENT_SLICES, 0, NULL));
	pattern_fill(map, 5 * XALLOC_SEGMENT_BYTES, 1);
	ASSERT_EQ(0, arena_limit(self->arena, 9 * XALLOC_SEGMENT_BYTES));
	stat = stat_of(self->device);
	/* So a caller makes its fork fail, and is as it was. */
	EXPECT_EQ(-EDQUOT, fork_prepare(self->arena, 0));
	counters_expect_now(_metadata, self->device, &stat);
	EXPECT_TRUE(is_filled(map, 5 * XALLOC_SEGMENT_BYTES, 1));
	/* Who forks all the same has a child without. */
	EXPECT_EQ(0, in_child({
		require(touch_read(map, NULL) == SIGBUS);
		require(touch_write(map + XALLOC_SEGMENT_BYTES, 1) == SIGBUS);
		require(attach_at(self->device, map, 0, NULL) == -ENOMEM);
		require(in_child(require(touch_read(map, NULL) == SIGBUS)) == 0);
	}));
	counters_expect_now(_metadata, self->device, &stat);
	EXPECT_TRUE(is_filled(map, 5 * XALLOC_SEGMENT_BYTES, 1));
	ASSERT_EQ(0, arena_limit(self->arena, 10 * XALLOC_SEGMENT_BYTES));
	EXPECT_EQ(0, fork_prepare(self->arena, 0));
	EXPECT_EQ(-EDQUOT, grant_page(self->arena, 1, 0, NULL));
	EXPECT_EQ(-EBUSY, arena_limit(self->arena, 9 * XALLOC_SEGMENT_BYTES));
	EXPECT_EQ(0, in_child(require(is_filled(map, 5 * XALLOC_SEGMENT_BYTES, 1))));
}

static void user_forks(int device)
{
	int arena = family_create(device, ARENA_BYTES, 0);
	unsigned char *map = arena_map(arena, ARENA_BYTES);

	require(map && grant_page(arena, 3 * SEGMENT_SLICES, 0, NULL) == 1);
	map[0] = 1;
	require(fork_prepare(arena, 0) == -ENOBUFS);
	require(in_child(require(touch_read(map, NULL) == SIGBUS)) == 0);
	require(free_page(arena, 0) == 1 && grant_page(arena, 2 * SEGMENT_SLICES, 0, NULL) == 1);
	map[0] = 2;
	require(fork_prepare(arena, 0) == 0);
	require(grant_page(arena, 1, XALLOC_PAGE_CONTIG, NULL) == -ENOBUFS);
	require(in_child({
		int fd = attach_at(device, map, 0, NULL);

		require(map[0] == 2);
		require(grant_page(fd, 1, 0, NULL) == -ENOBUFS);
		/* What it gives back is there for its parent again. */
		require(free_page(fd, 0) == 1);
		require(grant_page(fd, 2 * SEGMENT_SLICES, 0, NULL) == 1);
	}) == 0);
	require(grant_page(arena, 2 * SEGMENT_SLICES, 0, NULL) == 1);
}

/* RLIMIT_MEMLOCK of 8 MiB, four segments, is that of arena and copies together. */
TEST_F(fork_copy, copies_are_charged_to_the_user)
{
	EXPECT_EQ(0, in_child({
		struct rlimit memlock = { 8 * MIB, 8 * MIB };

		require(!setrlimit(RLIMIT_MEMLOCK, &memlock));
		require(!setgroups(0, NULL) && !setgid(TEST_UID) && !setuid(TEST_UID));
		user_forks(self->device);
	}));
}

/* What the parent only keeps ready makes room for a copy, as it does for a grant. */
TEST_F(fork_copy, reserve_makes_room)
{
	ASSERT_EQ(0, arena_limit(self->arena, 6 * XALLOC_SEGMENT_BYTES));
	ASSERT_EQ(1, grant_page(self->arena, 3 * SEGMENT_SLICES, 0, NULL));
	ASSERT_EQ(0, reserve_set(self->arena, 0, 3 * XALLOC_SEGMENT_BYTES));
	wait_for(stat_of(self->arena).reserved_bytes >= 3 * XALLOC_SEGMENT_BYTES, 20000);
	EXPECT_EQ(3 * XALLOC_SEGMENT_BYTES, stat_of(self->arena).reserved_bytes);
	EXPECT_EQ(0, fork_prepare(self->arena, 0));
	EXPECT_EQ(0, stat_of(self->arena).reserved_bytes);
}

/*
 * A grant of more than the arena's limit is refused before any table is made for the grant. With
 * LONG=1 that must be quick in one of three tries.
 */
TEST_F(fork_copy, limit_is_asked_first)
{
	uint64_t ms = UINT64_MAX, start;
	struct xalloc_ioc_info info;
	uint32_t nr_slices;
	int arena, i;

	ASSERT_EQ(0, info_read(self->device, &info));
	nr_slices = info.arena_bytes_max / XALLOC_SLICE_BYTES;
	for (i = 0; i < 3 && ms >= 1000; i++) {
		start = now_ms();
		arena = family_create(self->device, info.arena_bytes_max, XALLOC_SEGMENT_BYTES);
		ASSERT_LE(0, arena);
		EXPECT_EQ(-EDQUOT, grant_page(arena, nr_slices, 0, NULL));
		ms = now_ms() - start;
		close(arena);
	}
	if (times_are_judged()) {
		EXPECT_GT(1000, ms);
	}
}

/*
 * How long a fork takes for each GiB that is granted, as it comes and prepared. Each is the best of
 * some turns: the clock counts what else the machine does.
 */
TEST_F_TIMEOUT(fork_copy, what_it_costs, TEST_TIMEOUT_LONG)
{
	size_t bytes = is_long_run() ? 512 * MIB : 64 * MIB, per_gib = 1024 * MIB / bytes;
	uint64_t best[3] = { UINT64_MAX, UINT64_MAX, UINT64_MAX }, start, ms;
	unsigned char *map;
	bool judged = times_are_judged();
	int arena, turn, i;

	if ((size_t)meminfo_kb("MemAvailable") < 2 * bytes / 1024 + 64 * 1024)
		SKIP(return, "needs %zu MiB of available memory", 2 * bytes / MIB + 64);
	ASSERT_TRUE(total_raise());
	arena = family_create(self->device, bytes, 0);
	map = arena_map(arena, bytes);
	ASSERT_NE(NULL, map);
	ASSERT_EQ(1, grant_page(arena, bytes / XALLOC_SLICE_BYTES, 0, NULL));
	memset(map, 1, bytes);
	for (turn = 0; turn < (judged ? 3 : 1) || (judged && turn < 9 && best[2] >= best[0]);
	     turn++) {
		for (i = 0; i < 3; i++) {
			start = now_ms();
			EXPECT_EQ(0, i == 1 ? fork_prepare(arena, 0) : in_child(;));
			ms = now_ms() - start;
			if (ms < best[i])
				best[i] = ms;
		}
	}
	TH_LOG("ms per GiB: fork %zu; prepare %zu, then fork %zu; best of %d turns",
	       best[0] * per_gib, best[1] * per_gib, best[2] * per_gib, turn);
	if (judged) {
		EXPECT_LT(best[2], best[0]);
	}
	munmap(map, bytes);
	close(arena);
	EXPECT_TRUE(total_restore());
}

TEST_HARNESS_MAIN
