// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: an arena's memory is on its node, and where the node has none left, required
 * fails and preferred says what it did. Needs a machine with two nodes.
 */
#include "selftest.h"

#include <sys/syscall.h>

FIXTURE(numa)
{
	int device;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(numa)
{
	self->device = device_setup(_metadata, &self->before);
	ASSERT_EQ(0, access("/sys/devices/system/node/node1", F_OK)) {
		TH_LOG("this machine has no node 1: scripts/vm --nodes 2");
	}
}

FIXTURE_TEARDOWN(numa)
{
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* Kpages of a mapping on a node, as /proc/self/numa_maps has it; -1 where it has no line. */
static long kpages_on_node(const void *map, int node)
{
	FILE *file = fopen("/proc/self/numa_maps", "re");
	char line[1024], key[16], *at;
	long nr = -1;

	snprintf(key, sizeof(key), " N%d=", node);
	while (file && nr < 0 && fgets(line, sizeof(line), file)) {
		if (strtoul(line, NULL, 16) != (unsigned long)map)
			continue;
		at = strstr(line, key);
		nr = at ? strtol(at + strlen(key), NULL, 10) : 0;
	}
	if (file)
		fclose(file);
	return nr;
}

static long vmstat(const char *name)
{
	FILE *file = fopen("/proc/vmstat", "re");
	char key[64];
	long nr, found = -1;

	while (file && fscanf(file, "%63s %ld", key, &nr) == 2)
		if (!strcmp(key, name))
			found = nr;
	if (file)
		fclose(file);
	return found;
}

TEST_F(numa, memory_is_on_the_node)
{
	static const uint32_t policies[] = {
		XALLOC_POLICY_HUGE, XALLOC_POLICY_HUGE_PREFERRED, XALLOC_POLICY_SMALL,
	};
	const size_t bytes = 32 * MIB;
	unsigned char *map;
	size_t at, i;
	int node;

	for (i = 0; i < ARRAY_SIZE(policies); i++) {
		for (node = 0; node < 2; node++) {
			int arena = arena_create_by(self->device, bytes, policies[i], node);

			ASSERT_EQ(1, grant_page(arena, bytes / XALLOC_SLICE_BYTES, 0, NULL));
			map = arena_map(arena, bytes);
			ASSERT_NE(NULL, map);
			for (at = 0; at < bytes; at += KPAGE_BYTES)
				map[at] = 1;
			EXPECT_EQ(bytes / KPAGE_BYTES, kpages_on_node(map, node)) {
				TH_LOG("policy %u, node %d", policies[i], node);
			}
			EXPECT_EQ(0, kpages_on_node(map, !node));
			munmap(map, bytes);
			close(arena);
		}
	}
}

TEST_F(numa, reserve_is_on_the_node)
{
	int arena = arena_create_by(self->device, 8 * MIB, XALLOC_POLICY_HUGE, 1);
	unsigned char *map = arena_map(arena, 8 * MIB);
	struct xalloc_ioc_stat stat = {};
	size_t at;

	ASSERT_EQ(0, reserve_set(arena, 0, 8 * MIB));
	while (!counters_read(arena, &stat) && stat.reserved_bytes != 8 * MIB)
		sleep_ms(10);
	ASSERT_EQ(1, grant_page(arena, 128, 0, NULL));
	for (at = 0; at < 8 * MIB; at += KPAGE_BYTES)
		map[at] = 1;
	EXPECT_EQ(8 * MIB / KPAGE_BYTES, kpages_on_node(map, 1));
	munmap(map, 8 * MIB);
	close(arena);
}

#define POLICY_PREFERRED 1
#define POLICY_BIND 2
#define POLICY_INTERLEAVE 3

static bool policy_set(int mode, unsigned long nodes)
{
	return !syscall(SYS_set_mempolicy, mode, mode ? &nodes : NULL, mode ? 64UL : 0UL);
}

/* An arena of no node follows the task's policy, also for what the pool of each node has ready. */
TEST_F(numa, policy_of_the_task_decides)
{
	static const struct {
		const char *name;
		int mode;
		unsigned long nodes;
		long on[2];	/* of 16 segments; -1: some */
	} rows[] = {
		{ "bind to 0", POLICY_BIND, 1, { 16, 0 } },
		{ "bind to 1", POLICY_BIND, 2, { 0, 16 } },
		{ "prefer 1", POLICY_PREFERRED, 2, { 0, 16 } },
		{ "interleave", POLICY_INTERLEAVE, 3, { -1, -1 } },
	};
	const size_t bytes = 32 * MIB;
	unsigned int i, n, warm;
	unsigned char *map;
	int arena, node;

	for (warm = 0; warm < 2; warm++) {
		if (warm) {
			ASSERT_TRUE(write_text(PARAMETER("pool_segments"), "16"));
			ASSERT_TRUE(wait_for(stat_of(self->device).pooled_bytes == 64 * MIB,
					     60 * 1000));
		}
		for (i = 0; i < ARRAY_SIZE(rows); i++) {
			arena = arena_create(self->device, bytes, 0);
			ASSERT_TRUE(policy_set(rows[i].mode, rows[i].nodes));
			for (n = 0; n < 16; n++)
				ASSERT_EQ(1, grant_page(arena, SEGMENT_SLICES, 0, NULL));
			ASSERT_TRUE(policy_set(0, 0));
			map = arena_map(arena, bytes);
			ASSERT_NE(NULL, map);
			for (n = 0; n < 16; n++)
				map[n * XALLOC_SEGMENT_BYTES] = 1;
			for (node = 0; node < 2; node++) {
				long on = kpages_on_node(map, node) /
					  (long)(XALLOC_SEGMENT_BYTES / KPAGE_BYTES);

				EXPECT_TRUE(rows[i].on[node] < 0 ? on > 0 :
								   on == rows[i].on[node]) {
					TH_LOG("%s: %ld on node %d", rows[i].name, on, node);
				}
			}
			munmap(map, bytes);
			close(arena);
		}
	}
	EXPECT_TRUE(write_text(PARAMETER("pool_segments"), "0"));
}

TEST_F_TIMEOUT(numa, full_node_is_told, 300)
{
	size_t all = meminfo_kb("MemTotal") * 1024UL / (2 * MIB) * (2 * MIB);
	int filler = arena_create_by(self->device, all, XALLOC_POLICY_SMALL, 1);
	int required = arena_create_by(self->device, 32 * MIB, XALLOC_POLICY_HUGE, 1);
	int preferred = arena_create_by(self->device, 32 * MIB, XALLOC_POLICY_HUGE_PREFERRED, 1);
	struct xalloc_ioc_stat stat = {};
	int rc;

	ASSERT_LE(0, filler);
	ASSERT_TRUE(total_raise());
	/* In ever smaller pages, until not even a slice is to be had. */
	for (rc = 4096; rc; rc /= 2)
		while (grant_page(filler, rc, 0, NULL) == 1)
			;
	EXPECT_EQ(-ENOMEM, grant_page(required, 32, 0, NULL));
	EXPECT_EQ(1, grant_page(preferred, 256, 0, NULL));
	ASSERT_EQ(0, counters_read(preferred, &stat));
	EXPECT_EQ(16 * MIB, stat.committed_bytes);
	EXPECT_EQ(16 * MIB, stat.off_node_bytes);
	close(filler);
	EXPECT_EQ(1, grant_page(required, 32, 0, NULL));
	ASSERT_EQ(0, counters_read(required, &stat));
	EXPECT_EQ(0, stat.off_node_bytes);
	close(required);
	close(preferred);
	EXPECT_TRUE(total_restore());
}

/*
 * NUMA balancing marks page table entries in turn, to learn who uses the memory. It does not mark
 * memory that it cannot move, like the arena's. It does mark the plain memory beside the arena, so
 * that numa_pte_updates shows that NUMA balancing was at work.
 */
TEST_F(numa, balancing_leaves_it_alone)
{
	const size_t bytes = 32 * MIB;
	int arena = arena_create(self->device, bytes, 0);
	unsigned char *map = arena_map(arena, bytes), *plain;
	long faults, most = 0, before, turn;
	size_t at;

	if (!write_text("/proc/sys/kernel/numa_balancing", "1"))
		SKIP(goto out, "this kernel has no NUMA balancing");
	ASSERT_EQ(1, grant_page(arena, bytes / XALLOC_SLICE_BYTES, 0, NULL));
	plain = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)plain);
	memset(map, 1, bytes);
	memset(plain, 1, bytes);
	/* By then it has been all over this process several times. */
	before = vmstat("numa_pte_updates");
	for (turn = 0; turn < 5000 && vmstat("numa_pte_updates") < before + 8000; turn++) {
		faults = page_faults();
		for (at = 0; at < bytes; at += KPAGE_BYTES)
			map[at]++;
		faults = page_faults() - faults;
		if (faults > most)
			most = faults;
		for (at = 0; at < bytes; at += KPAGE_BYTES)
			plain[at]++;
	}
	/* It marks this program's own stack and data, too, but not all of the arena's segments. */
	EXPECT_GT(bytes / XALLOC_SEGMENT_BYTES, most);
	if (vmstat("numa_pte_updates") < before + 8000)
		SKIP(goto out_plain, "NUMA balancing marked nothing in %ld turns", turn);
out_plain:
	munmap(plain, bytes);
	write_text("/proc/sys/kernel/numa_balancing", "0");
out:
	munmap(map, bytes);
	close(arena);
}

TEST_HARNESS_MAIN
