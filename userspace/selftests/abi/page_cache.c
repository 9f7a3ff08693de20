// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: the memory of an arena is page cache: the kernel counts it, futexes work on it, and
 * nothing that the kernel does to page cache moves, splits or evicts it.
 */
#include "gup.h"
#include "kpages.h"
#include "selftest.h"
#include "sharing.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define NR_SEGMENTS 8
#define BYTES (NR_SEGMENTS * XALLOC_SEGMENT_BYTES)
#define MANY_BYTES (512 * MIB)	/* in more than one block of memory */
#define DEBUGFS "/sys/kernel/debug"

FIXTURE(page_cache)
{
	int device;
	int arena;
	unsigned char *map;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(page_cache)
{
	self->device = device_setup(_metadata, &self->before);
	if (!is_thp_kernel())
		SKIP(return, "the page cache of this kernel has no huge pages");
	self->arena = arena_create(self->device, BYTES, 0);
	self->map = arena_map(self->arena, BYTES);
	ASSERT_NE(NULL, self->map);
}

FIXTURE_TEARDOWN(page_cache)
{
	munmap(self->map, BYTES);
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* The kernel counts a segment at once. Other users of huge pages of files would disturb this. */
TEST_F(page_cache, memory_is_counted)
{
	long unevictable = meminfo_kb("Unevictable"), huge = meminfo_kb("FileHugePages");
	const long kb = XALLOC_SEGMENT_BYTES / 1024;
	struct xalloc_page_grant pages[3];
	unsigned char resident[BYTES / KPAGE_BYTES];
	unsigned int i;

	for (i = 0; i < 3; i++)
		ASSERT_EQ(1, grant_page(self->arena, SEGMENT_SLICES, 0, &pages[i]));
	EXPECT_EQ(unevictable + 3 * kb, meminfo_kb("Unevictable"));
	EXPECT_EQ(huge + 3 * kb, meminfo_kb("FileHugePages"));
	/* Whether or not it was ever touched. */
	ASSERT_EQ(0, mincore(self->map, BYTES, resident));
	for (i = 0; i < BYTES / KPAGE_BYTES; i++)
		ASSERT_EQ(i < 3 * XALLOC_SEGMENT_BYTES / KPAGE_BYTES, resident[i] & 1);
	ASSERT_EQ(1, free_page(self->arena, pages[1].offset));
	EXPECT_EQ(unevictable + 2 * kb, meminfo_kb("Unevictable"));
	EXPECT_EQ(huge + 2 * kb, meminfo_kb("FileHugePages"));
	ASSERT_EQ(1, free_page(self->arena, pages[0].offset));
	ASSERT_EQ(1, free_page(self->arena, pages[2].offset));
	EXPECT_EQ(unevictable, meminfo_kb("Unevictable"));
	EXPECT_EQ(huge, meminfo_kb("FileHugePages"));
}

/* The word of a mutex says whether somebody waits for it in the kernel. */
static bool has_waiter(const pthread_mutex_t *mutex)
{
	return *(volatile uint32_t *)&mutex->__data.__lock & FUTEX_WAITERS;
}

/* One process waits for a mutex in the arena, and another dies with the mutex. */
TEST_F(page_cache, mutex_of_a_dead_process)
{
	pthread_mutex_t *mutex = (pthread_mutex_t *)self->map;
	volatile bool *locked = (volatile bool *)(mutex + 1);
	pthread_mutexattr_t attr;
	pid_t pid;

	ASSERT_EQ(1, grant_page(self->arena, 1, 0, NULL));
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	ASSERT_EQ(0, pthread_mutex_init(mutex, &attr));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		/* A mapping is not inherited. */
		mutex = (pthread_mutex_t *)arena_map(self->arena, BYTES);
		require(mutex);
		require(!pthread_mutex_lock(mutex));
		*(volatile bool *)(mutex + 1) = true;
		while (!has_waiter(mutex))
			sched_yield();
		_exit(0);
	}
	while (!*locked)
		sched_yield();
	EXPECT_EQ(EOWNERDEAD, pthread_mutex_lock(mutex));
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(0, pthread_mutex_consistent(mutex));
	EXPECT_EQ(0, pthread_mutex_unlock(mutex));
	EXPECT_EQ(0, pthread_mutex_lock(mutex));
	EXPECT_EQ(0, pthread_mutex_unlock(mutex));
}

/* What moves, splits or evicts page cache, where this kernel has it. */
static void disturb(int arena, unsigned char *map)
{
	void *kpage = map + XALLOC_SEGMENT_BYTES + 5 * KPAGE_BYTES;
	int node = 0, status;

	write_text("/proc/sys/vm/drop_caches", "3");
	posix_fadvise(arena, 0, 0, POSIX_FADV_DONTNEED);
	madvise(kpage, KPAGE_BYTES, MADV_COLD);
	madvise(kpage, KPAGE_BYTES, MADV_PAGEOUT);
	write_text("/proc/sys/vm/drop_caches", "1");
	write_text("/proc/sys/vm/compact_memory", "1");
	syscall(SYS_move_pages, 0, 1UL, &kpage, &node, &status, 2);
	mount("debugfs", DEBUGFS, "debugfs", 0, NULL);
	write_text(DEBUGFS "/split_huge_pages", "1");
	write_text("/proc/sys/vm/drop_caches", "3");
}

TEST_F(page_cache, memory_stays_whole_and_in_its_place)
{
	uint64_t pfns[NR_SEGMENTS];
	unsigned int i, turn;
	size_t at;

	ASSERT_EQ(1, grant_page(self->arena, BYTES / XALLOC_SLICE_BYTES, 0, NULL));
	pattern_fill(self->map, BYTES, 1);
	for (i = 0; i < NR_SEGMENTS; i++) {
		pfns[i] = pfn_of(self->map + i * XALLOC_SEGMENT_BYTES);
		ASSERT_NE(0, pfns[i]);
		EXPECT_TRUE(kpage_has(pfns[i], KPF_UNEVICTABLE));
	}
	for (turn = 0; turn < 3; turn++) {
		/* Mapped by 2 MiB, then by kpages, then not at all. */
		if (turn == 1)
			ASSERT_EQ(0, mprotect(self->map + KPAGE_BYTES, KPAGE_BYTES, PROT_READ));
		if (turn == 2)
			ASSERT_EQ(0, madvise(self->map, BYTES, MADV_DONTNEED));
		disturb(self->arena, self->map);
		EXPECT_EQ(-1, pattern_mismatch(self->map, BYTES, 1));
		for (at = 0; at < BYTES; at += KPAGE_BYTES)
			ASSERT_EQ(pfns[at / XALLOC_SEGMENT_BYTES] +
				  at % XALLOC_SEGMENT_BYTES / KPAGE_BYTES, pfn_of(self->map + at));
	}
	/* A new mapping has 2 MiB entries again. */
	munmap(self->map, BYTES);
	self->map = arena_map(self->arena, BYTES);
	ASSERT_NE(NULL, self->map);
	EXPECT_EQ(-1, pattern_mismatch(self->map, BYTES, 1));
	EXPECT_EQ(BYTES / 1024, smaps_kb(self->map, BYTES, "FilePmdMapped"));
}

/* Redis disables huge pages. Two faults for each table are enough: make it, and fill it. */
TEST_F(page_cache, few_faults_without_huge_pages)
{
	long faults;
	size_t at;

	ASSERT_EQ(1, grant_page(self->arena, BYTES / XALLOC_SLICE_BYTES, 0, NULL));
	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	faults = page_faults();
	for (at = 0; at < BYTES; at += KPAGE_BYTES)
		self->map[at] = 1;
	EXPECT_GE(2 * NR_SEGMENTS, page_faults() - faults);
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
}

/* A freed page that a pipe holds stays in page cache, but a fault beside it does not map it. */
TEST_F(page_cache, fault_maps_nothing_that_is_free)
{
	struct xalloc_page_grant pages[SEGMENT_SLICES];
	int arena = arena_create_by(self->device, XALLOC_SEGMENT_BYTES, XALLOC_POLICY_SMALL, -1);
	unsigned char *map = arena_map(arena, XALLOC_SEGMENT_BYTES);
	int pipes[SEGMENT_SLICES];
	unsigned int i;

	ASSERT_NE(NULL, map);
	for (i = 0; i < SEGMENT_SLICES; i++) {
		ASSERT_EQ(1, grant_page(arena, 1, 0, &pages[i]));
		map[pages[i].offset] = 1;
		if (i % 2 == 0)
			pipes[i] = pipe_with(_metadata, map + pages[i].offset, KPAGE_BYTES);
	}
	for (i = 0; i < SEGMENT_SLICES; i += 2)
		ASSERT_EQ(1, free_page(arena, pages[i].offset));
	for (i = 0; i < SEGMENT_SLICES; i++) {
		int want = i % 2 ? 0 : SIGBUS;

		EXPECT_EQ(want, touch_read(map + pages[i].offset, NULL));
		EXPECT_EQ(want, touch_write(map + pages[i].offset + KPAGE_BYTES, 1));
	}
	for (i = 0; i < SEGMENT_SLICES; i += 2)
		close(pipes[i]);
	munmap(map, XALLOC_SEGMENT_BYTES);
	close(arena);
}

/* The kernel would try without end to move what is in the block. */
TEST_F(page_cache, blocks_of_memory_do_not_go_offline)
{
	unsigned long block_bytes = 0, block, last = -1UL;
	int arena = arena_create(self->device, MANY_BYTES, 0), pipe = -1, err;
	unsigned char *map = arena_map(arena, MANY_BYTES);
	FILE *file = fopen("/sys/devices/system/memory/block_size_bytes", "r");
	char path[80], first[80];
	size_t at;

	ASSERT_NE(NULL, map);
	if (!file)
		SKIP(goto out, "this kernel cannot take memory offline");
	ASSERT_EQ(1, fscanf(file, "%lx", &block_bytes));
	fclose(file);
	ASSERT_EQ(1, grant_page(arena, MANY_BYTES / XALLOC_SLICE_BYTES, 0, NULL));
	for (at = 0; at < MANY_BYTES; at += XALLOC_SEGMENT_BYTES) {
		map[at] = 1;
		block = pfn_of(map + at) * KPAGE_BYTES / block_bytes;
		if (block == last)
			continue;
		last = block;
		snprintf(path, sizeof(path), "/sys/devices/system/memory/memory%lu/online", block);
		err = write_errno(path, "0");
		/* The kernel refuses a block with a hole first. */
		if (err == -EINVAL)
			continue;
		EXPECT_EQ(-EBUSY, err);
		EXPECT_TRUE(file_says(path, "1"));
		if (pipe >= 0)
			break;
		pipe = pipe_with(_metadata, map + at, KPAGE_BYTES);
		memcpy(first, path, sizeof(first));
	}
	ASSERT_LE(0, pipe);
	/* The block also stays when the arena is gone and only the pipe holds its memory. */
	munmap(map, MANY_BYTES);
	close(arena);
	EXPECT_LT(self->before.arenas + 1, stat_of(self->device).arenas);
	EXPECT_EQ(-EBUSY, write_errno(first, "0"));
	close(pipe);
	return;
out:
	munmap(map, MANY_BYTES);
	close(arena);
}

TEST_HARNESS_MAIN
