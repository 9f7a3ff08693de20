// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: a memory cgroup of 64 MiB, which pays for all of an arena that was made in it, and
 * refuses without a kill.
 */
#include "events.h"
#include "selftest.h"
#include "sharing.h"

#include <poll.h>

#define CGROUP_ROOT "/sys/fs/cgroup"
#define CGROUP CGROUP_ROOT "/xalloc-selftest"
#define OTHER_CGROUP CGROUP "-2"

FIXTURE(memcg)
{
	int device;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(memcg)
{
	char controllers[256] = "";
	FILE *file = fopen(CGROUP_ROOT "/cgroup.controllers", "r");

	self->device = device_setup(_metadata, &self->before);
	if (file) {
		if (!fgets(controllers, sizeof(controllers), file))
			controllers[0] = 0;
		fclose(file);
	}
	if (!strstr(controllers, "memory"))
		SKIP(return, "no memory controller of cgroup2 at %s", CGROUP_ROOT);
	write_text(CGROUP_ROOT "/cgroup.subtree_control", "+memory");
	rmdir(OTHER_CGROUP);
	rmdir(CGROUP);
	ASSERT_EQ(0, mkdir(CGROUP, 0755));
	ASSERT_TRUE(write_text(CGROUP "/memory.max", "67108864"));
	write_text(CGROUP "/memory.swap.max", "0");
	ASSERT_EQ(0, mkdir(OTHER_CGROUP, 0755));
	ASSERT_TRUE(write_text(OTHER_CGROUP "/memory.max", "67108864"));
	write_text(OTHER_CGROUP "/memory.swap.max", "0");
}

FIXTURE_TEARDOWN(memcg)
{
	/* Also after a test that gave up half way. */
	write_text(PARAMETER("cgroup_pays"), "N");
	write_text(PARAMETER("share_mb"), "0");
	counters_expect(_metadata, self->device, &self->before);
	EXPECT_EQ(0, rmdir(OTHER_CGROUP));
	EXPECT_EQ(0, rmdir(CGROUP)) {
		TH_LOG("%s: %s", CGROUP, strerror(errno));
	}
	close(self->device);
}

static long long event_count(const char *name)
{
	FILE *file = fopen(CGROUP "/memory.events", "r");
	long long value, found = -1;
	char word[32];

	if (!file)
		return -1;
	while (fscanf(file, "%31s %lld", word, &value) == 2)
		if (!strcmp(word, name))
			found = value;
	fclose(file);
	return found;
}

/* The child joins the group, fills an arena until it is refused, and waits to be told. */
static pid_t fill_in_cgroup(int device, bool map, int *told, int *tell)
{
	int up[2], down[2];
	pid_t pid;

	if (pipe(up) || pipe(down))
		return -1;
	pid = fork();
	if (!pid) {
		int result[2], arena;
		unsigned char *addr;
		char byte;

		close(down[1]);
		require(write_text(CGROUP "/cgroup.procs", "0"));
		arena = arena_create(device, 256 * MIB, 0);
		require(arena >= 0);
		result[0] = grant_segments(arena, 128, &result[1]);
		if (map) {
			addr = arena_map(arena, 256 * MIB);
			require(addr);
			pattern_fill(addr, result[0] * XALLOC_SEGMENT_BYTES, 1);
		}
		require(write(up[1], result, sizeof(result)) == sizeof(result));
		require(read(down[0], &byte, 1) == 0);
		/* One back, one to be had. */
		require(free_page(arena, 0) == 1);
		require(grant_page(arena, SEGMENT_SLICES, 0, NULL) == 1);
		_exit(0);
	}
	close(up[1]);
	close(down[0]);
	*told = up[0];
	*tell = down[1];
	return pid;
}

static void expect_enomem_without_kill(struct __test_metadata *_metadata, int device, bool map)
{
	long long current, charged;
	int told, tell, result[2], i;
	pid_t pid = fill_in_cgroup(device, map, &told, &tell);

	ASSERT_LE(0, pid);
	ASSERT_EQ(sizeof(result), read(told, result, sizeof(result)));
	charged = read_number(CGROUP "/memory.current");
	TH_LOG("%d segments in 64 MiB, memory.current %lld", result[0], charged);
	EXPECT_EQ(-ENOMEM, result[1]);
	EXPECT_LE(24, result[0]);
	EXPECT_GE(32, result[0]);
	EXPECT_LE((long long)(result[0] * XALLOC_SEGMENT_BYTES), charged);
	close(tell);
	EXPECT_EQ(0, child_status(pid)) {
		TH_LOG("the process in the group did not live through it");
	}
	close(told);
	EXPECT_EQ(0, event_count("oom_kill"));
	/* What is left is less than a segment: slab, and what the CPUs keep in stock. */
	for (i = 0; i < 100; i++) {
		current = read_number(CGROUP "/memory.current");
		if (current < (long long)XALLOC_SEGMENT_BYTES)
			break;
		sleep_ms(50);
	}
	EXPECT_GT((long long)XALLOC_SEGMENT_BYTES, current);
}

TEST_F(memcg, limit_is_enomem_without_a_kill)
{
	expect_enomem_without_kill(_metadata, self->device, false);
}

TEST_F(memcg, limit_with_memory_in_use)
{
	expect_enomem_without_kill(_metadata, self->device, true);
}

/* One page of more than the group may have: refused, and nothing of it stays charged. */
TEST_F(memcg, too_large_a_page_leaves_nothing)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		struct xalloc_ioc_stat seen;
		int arena;

		require(write_text(CGROUP "/cgroup.procs", "0"));
		arena = arena_create(self->device, 256 * MIB, 0);
		require(arena >= 0);
		require(grant_page(arena, 256 * MIB / XALLOC_SLICE_BYTES, 0, NULL) == -ENOMEM);
		require(!counters_read(arena, &seen));
		require(seen.committed_bytes == 0 && seen.pages == 0);
		require(read_number(CGROUP "/memory.current") < (long long)XALLOC_SEGMENT_BYTES);
		require(grant_page(arena, 16 * SEGMENT_SLICES, 0, NULL) == 1);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(0, event_count("oom_kill"));
}

/* Runs @body in a child that has joined the group. */
static int in_group(void (*body)(int device), int device)
{
	pid_t pid = fork();

	if (!pid) {
		require(write_text(CGROUP "/cgroup.procs", "0"));
		body(device);
		_exit(0);
	}
	return child_status(pid);
}

static void commit_in_group(int arena)
{
	require(grant_page(arena, 48 * SEGMENT_SLICES, 0, NULL) == 1);
	require(read_number(CGROUP "/memory.current") < (long long)XALLOC_SEGMENT_BYTES);
}

static void commit_out_of_group(int device)
{
	int arena = arena_create(device, 256 * MIB, 0), error;

	require(arena >= 0);
	require(write_text(CGROUP_ROOT "/cgroup.procs", "0"));
	require(grant_segments(arena, 64, &error) <= 32 && error == -ENOMEM);
	require(read_number(CGROUP "/memory.current") > (long long)(48 * MIB));
}

TEST_F(memcg, maker_pays_wherever_memory_is_committed)
{
	int arena = arena_create(self->device, 256 * MIB, 0);

	ASSERT_LE(0, arena);
	EXPECT_EQ(0, in_group(commit_in_group, arena));
	EXPECT_EQ(0, in_group(commit_out_of_group, self->device));
	EXPECT_EQ(0, event_count("oom_kill"));
	close(arena);
}

static void reserve_in_group(int device)
{
	int arena = arena_create(device, 256 * MIB, 0);
	struct pollfd pollfd = { .fd = arena, .events = POLLOUT };
	struct xalloc_ioc_stat seen;

	require(arena >= 0);
	require(!reserve_set(arena, 0, 256 * MIB));
	require(poll(&pollfd, 1, 60000) == 1);
	require(!counters_read(arena, &seen));
	require(seen.reserved_bytes >= 48 * MIB && seen.reserved_bytes <= 64 * MIB);
	require(read_number(CGROUP "/memory.current") >= (long long)seen.reserved_bytes);
	/* A grant has it. */
	require(grant_page(arena, seen.reserved_bytes / XALLOC_SLICE_BYTES, 0, NULL) == 1);
}

TEST_F(memcg, reserve_is_charged)
{
	EXPECT_EQ(0, in_group(reserve_in_group, self->device));
	EXPECT_EQ(0, event_count("oom_kill"));
}

/* 48 MiB of plain memory do not fit beside the reserve. */
static void need_in_group(int device)
{
	int arena = arena_create(device, 256 * MIB, 0);
	struct pollfd pollfd = { .fd = arena, .events = POLLOUT };
	struct xalloc_ioc_stat seen;
	unsigned char *plain;

	require(!reserve_set(arena, 0, 40 * MIB));
	require(poll(&pollfd, 1, 60000) == 1);
	require(!counters_read(arena, &seen));
	require(seen.reserved_bytes == 40 * MIB);
	plain = mmap(NULL, 48 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	require(plain != MAP_FAILED);
	memset(plain, 1, 48 * MIB);
	require(!counters_read(arena, &seen));
	require(seen.reserved_bytes <= 16 * MIB);
}

static void use_plain(size_t bytes)
{
	unsigned char *plain = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	require(plain != MAP_FAILED);
	memset(plain, 1, bytes);
	munmap(plain, bytes);
}

/* The reserve of one arena comes back by a free, after all of it went before another one's. */
static void need_twice_in_group(int device)
{
	int arena = arena_create(device, 64 * MIB, 0), other = arena_create(device, 64 * MIB, 0);
	struct xalloc_page_grant page;
	struct xalloc_ioc_stat seen;

	require(!reserve_set(arena, 0, 20 * MIB) && !reserve_set(other, 0, 20 * MIB));
	do {
		sleep_ms(10);
		require(!counters_read(device, &seen));
	} while (seen.reserved_bytes != 40 * MIB);
	use_plain(54 * MIB);
	require(!counters_read(device, &seen) && seen.reserved_bytes <= 10 * MIB);
	require(grant_page(arena, 20 * MIB / XALLOC_SLICE_BYTES, 0, &page) == 1);
	require(free_page(arena, page.offset) == 1);
	require(!counters_read(arena, &seen) && seen.reserved_bytes == 20 * MIB);
	use_plain(54 * MIB);
}

TEST_F(memcg, reserve_that_comes_back_goes_again)
{
	EXPECT_EQ(0, in_group(need_twice_in_group, self->device));
	EXPECT_EQ(0, event_count("oom_kill"));
}

TEST_F(memcg, reserve_goes_when_its_group_is_short)
{
	int other = arena_create(self->device, 64 * MIB, 0);
	struct xalloc_ioc_stat seen = {};

	/* That of others stays. */
	ASSERT_EQ(0, reserve_set(other, 0, 16 * MIB));
	while (seen.reserved_bytes != 16 * MIB) {
		ASSERT_EQ(0, counters_read(other, &seen));
		sleep_ms(10);
	}
	EXPECT_EQ(0, in_group(need_in_group, self->device));
	EXPECT_EQ(0, event_count("oom_kill"));
	ASSERT_EQ(0, counters_read(other, &seen));
	EXPECT_EQ(16 * MIB, seen.reserved_bytes);
	close(other);
}

/* Memory that was freed lazily makes room for plain memory. */
static void need_lazily_freed(int device)
{
	int arena = arena_create(device, 256 * MIB, 0), i;
	struct xalloc_page_grant page;
	unsigned char *map = arena_map(arena, 256 * MIB);

	require(map);
	for (i = 0; i < 5; i++) {
		require(grant_page(arena, 40 * MIB / XALLOC_SLICE_BYTES, 0, &page) == 1);
		memset(map + page.offset, 1, 40 * MIB);
		require(free_lazily(arena, page.offset, 0) == 1);
		require(stat_of(arena).lazy_bytes == 40 * MIB);
		use_plain(54 * MIB);
	}
}

TEST_F(memcg, lazy_frees_go_when_their_group_is_short)
{
	EXPECT_EQ(0, in_group(need_lazily_freed, self->device));
	EXPECT_EQ(0, event_count("oom_kill"));
}

/* What a tenant tells: how much it got, and why no more. */
struct told {
	int nr_segments;
	int error;
	uint64_t charged_bytes;
};

/*
 * A tenant joins a group, becomes a user who may lock 8 MiB, and fills an arena. The tenant keeps
 * that until @stop is closed. Returns its number.
 */
static pid_t tenant_start(int device, const char *procs, const int stop[2], struct told *told)
{
	int answer[2];
	pid_t pid;

	if (pipe(answer))
		return -1;
	pid = fork();
	if (!pid) {
		struct rlimit limit = { 8 * MIB, 8 * MIB };
		char byte;
		int arena;

		close(stop[1]);
		require(write_text(procs, "0"));
		require(!setrlimit(RLIMIT_MEMLOCK, &limit));
		require(!setresuid(TEST_UID, TEST_UID, TEST_UID));
		arena = arena_create(device, 256 * MIB, 0);
		require(arena >= 0);
		told->nr_segments = grant_segments(arena, 128, &told->error);
		told->charged_bytes = stat_of(arena).charged_bytes;
		require(write(answer[1], told, sizeof(*told)) == sizeof(*told));
		require(read(stop[0], &byte, 1) == 0);
		_exit(0);
	}
	close(answer[1]);
	if (read(answer[0], told, sizeof(*told)) != sizeof(*told))
		told->nr_segments = -1;
	close(answer[0]);
	return pid;
}

/* Two tenants at once: what each was told. */
static void tenants_run(struct __test_metadata *_metadata, int device, const char *second_procs,
			struct told told[2])
{
	int stop[2], i;
	pid_t pids[2];

	ASSERT_EQ(0, pipe(stop));
	pids[0] = tenant_start(device, CGROUP "/cgroup.procs", stop, &told[0]);
	pids[1] = tenant_start(device, second_procs, stop, &told[1]);
	close(stop[1]);
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, child_status(pids[i]));
	close(stop[0]);
	EXPECT_EQ(0, event_count("oom_kill"));
}

TEST_F(memcg, groups_pay_each_for_themselves)
{
	struct told told[2];
	int i;

	/* The user pays: the first tenant leaves the second nothing. */
	tenants_run(_metadata, self->device, OTHER_CGROUP "/cgroup.procs", told);
	EXPECT_EQ(4, told[0].nr_segments);
	EXPECT_EQ(4 * XALLOC_SEGMENT_BYTES, told[0].charged_bytes);
	EXPECT_EQ(0, told[1].nr_segments);
	EXPECT_EQ(-ENOBUFS, told[1].error);

	ASSERT_TRUE(write_text(PARAMETER("cgroup_pays"), "Y"));
	tenants_run(_metadata, self->device, OTHER_CGROUP "/cgroup.procs", told);
	for (i = 0; i < 2; i++) {
		EXPECT_LE(24, told[i].nr_segments);
		EXPECT_GE(32, told[i].nr_segments);
		EXPECT_EQ(-ENOMEM, told[i].error);
		EXPECT_EQ(0, told[i].charged_bytes);
	}
	/* Where no group has a limit the user pays, as before. */
	tenants_run(_metadata, self->device, CGROUP_ROOT "/cgroup.procs", told);
	EXPECT_LE(24, told[0].nr_segments);
	EXPECT_EQ(4, told[1].nr_segments);
	EXPECT_EQ(-ENOBUFS, told[1].error);
}

TEST_F(memcg, group_that_pays_has_a_share)
{
	struct told told[2];
	int i;

	ASSERT_TRUE(write_text(PARAMETER("cgroup_pays"), "Y"));
	ASSERT_TRUE(write_text(PARAMETER("share_mb"), "32"));
	tenants_run(_metadata, self->device, OTHER_CGROUP "/cgroup.procs", told);
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(16, told[i].nr_segments);
		EXPECT_EQ(-EUSERS, told[i].error);
	}
	/* Two tenants in one group have one share. */
	tenants_run(_metadata, self->device, CGROUP "/cgroup.procs", told);
	EXPECT_EQ(16, told[0].nr_segments);
	EXPECT_EQ(0, told[1].nr_segments);
}

#define POOL_SEGMENTS 160

static bool pool_fill(int device)
{
	return write_text(PARAMETER("pool_segments"), "160") &&
	       wait_for(stat_of(device).pooled_bytes == POOL_SEGMENTS * XALLOC_SEGMENT_BYTES,
			60 * 1000);
}

/* The limit has room for fewer than 144 segments, and the pool has more; no byte is zeroed here. */
static void grant_from_the_pool(int device)
{
	long long before = read_number(CGROUP "/memory.current"), charged;
	int arena = arena_create(device, 512 * MIB, 0), error, nr;

	nr = grant_segments(arena, POOL_SEGMENTS, &error);
	charged = read_number(CGROUP "/memory.current") - before;
	require(nr >= 128 && nr < 144 && error == -ENOMEM);
	require(stat_of(arena).cold_bytes == 0);
	require(charged >= nr * (long long)XALLOC_SEGMENT_BYTES);
	/* What the limit refused is in the pool as before. */
	require(stat_of(device).pooled_bytes >= (POOL_SEGMENTS - nr) * XALLOC_SEGMENT_BYTES);
	close(arena);
	require(read_number(CGROUP "/memory.current") - before < 4 * (long long)MIB);
}

/* Memory of the pool is charged when it enters an arena. */
TEST_F(memcg, pool_serves_a_group_with_a_limit)
{
	if (!is_thp_kernel())
		SKIP(return, "this kernel keeps an arena's memory out of the page cache");
	ASSERT_TRUE(write_text(CGROUP "/memory.max", "301989888"));
	ASSERT_TRUE(pool_fill(self->device));
	EXPECT_EQ(0, in_group(grant_from_the_pool, self->device));
	EXPECT_EQ(0, event_count("oom_kill"));
	EXPECT_TRUE(write_text(PARAMETER("pool_segments"), "0"));
}

static void copy_beside_the_pool(int device)
{
	int arena = family_create(device, 64 * MIB, 0);

	require(grant_page(arena, 4 * SEGMENT_SLICES, 0, NULL) == 1);
	require(stat_of(arena).cold_bytes == 4 * XALLOC_SEGMENT_BYTES);
	require(stat_of(device).pooled_bytes == POOL_SEGMENTS * XALLOC_SEGMENT_BYTES);
}

/* Outside of page cache memory of the pool would be charged to nobody. */
TEST_F(memcg, pool_does_not_serve_a_family_with_a_limit)
{
	int arena = family_create(self->device, 64 * MIB, 0);

	ASSERT_TRUE(pool_fill(self->device));
	EXPECT_EQ(0, in_group(copy_beside_the_pool, self->device));
	/* But families without a limit. */
	EXPECT_EQ(1, grant_page(arena, 4 * SEGMENT_SLICES, 0, NULL));
	EXPECT_EQ(0, stat_of(arena).cold_bytes);
	EXPECT_TRUE(write_text(PARAMETER("pool_segments"), "0"));
	close(arena);
}

/*
 * Opens a counter of the XArray nodes that this thread allocates; @more is appended to the filter.
 * An event has the name of the cache since 7.0; before, nothing else has the size of a node.
 */
static int nodes_open(const char *more)
{
	char filter[96];
	int fd;

	snprintf(filter, sizeof(filter), "name == \"radix_tree_node\"%s", more);
	fd = events_open("kmem/kmem_cache_alloc", filter);
	if (fd != -EINVAL)
		return fd;
	snprintf(filter, sizeof(filter), "bytes_req == %lld%s",
		 read_number("/sys/kernel/slab/radix_tree_node/object_size"), more);
	return events_open("kmem/kmem_cache_alloc", filter);
}

/* XArrays find pages and segments. A user who grants makes the kernel allocate their nodes. */
TEST_F(memcg, nodes_of_xarrays_are_charged)
{
	int arena = arena_create_by(self->device, 1024 * MIB, XALLOC_POLICY_SMALL, -1);
	int all = nodes_open(""), free_of_charge = nodes_open(" && accounted == 0");
	unsigned int i;

	ASSERT_LE(0, arena);
	if (all == -ENODEV)
		SKIP(goto out, "this kernel has no events of its slabs");
	ASSERT_LE(0, all);
	ASSERT_LE(0, free_of_charge);
	/* 256 pages in 8 segments, then a page in each of 128 segments. */
	for (i = 0; i < 256; i++)
		ASSERT_EQ(1, grant_page(arena, 1, 0, NULL));
	for (i = 0; i < 128; i++)
		ASSERT_EQ(1, grant_page(arena, SEGMENT_SLICES / 2 + 1, 0, NULL));
	TH_LOG("%llu nodes", (unsigned long long)events_read(all));
	EXPECT_LT(64, events_read(all));
	/* Debug kernels have a few for themselves; the nodes of the pages alone are about 70. */
	EXPECT_GT(32, events_read(free_of_charge));
	close(free_of_charge);
	close(all);
out:
	close(arena);
}

TEST_HARNESS_MAIN
