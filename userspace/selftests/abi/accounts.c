// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: the life of a file and of an arena of small pieces, and that all who count memory
 * agree at each step, to the slice: STAT, stat, df, meminfo, the memory cgroup, mincore.
 */
#include "holes.h"

#include <sys/statfs.h>
#include <sys/uio.h>

#define NAME NAMES "/accounts-test"
#define CGROUP_ROOT "/sys/fs/cgroup"
#define CGROUP CGROUP_ROOT "/xalloc-accounts"
#define BYTES (8 * SEGMENT)

/* Bytes that somebody says are in use. */
struct accounts {
	long long device;
	long long df;
	long long unevictable;
	long long group_unevictable;
	long long group_file;
};

FIXTURE(accounts)
{
	int device;
	struct xalloc_ioc_stat before;
	struct accounts base;
};

static long long group_stat(const char *name)
{
	FILE *file = fopen(CGROUP "/memory.stat", "re");
	long long value, found = -1;
	char word[64];

	while (file && fscanf(file, "%63s %lld", word, &value) == 2)
		if (!strcmp(word, name))
			found = value;
	if (file)
		fclose(file);
	return found;
}

static struct accounts accounts_read(int device)
{
	struct statfs fs = {};

	/* Counts that CPUs still keep to themselves. */
	write_text("/proc/sys/vm/stat_refresh", "1");
	statfs(NAMES, &fs);
	return (struct accounts){
		.device = stat_of(device).committed_bytes,
		.df = (long long)(fs.f_blocks - fs.f_bfree) * fs.f_bsize,
		.unevictable = meminfo_kb("Unevictable") * 1024LL,
		.group_unevictable = group_stat("unevictable"),
		.group_file = group_stat("file"),
	};
}

/* The memory of the group is counted by CPU, and summed up every two seconds. */
static bool group_agrees(const struct accounts *base, long long bytes)
{
	return group_stat("unevictable") - base->group_unevictable == bytes &&
	       group_stat("file") - base->group_file == bytes;
}

#define EXPECT_AGREEMENT(_bytes) do {						\
	long long bytes_ = (_bytes);						\
	struct accounts now_;							\
										\
	EXPECT_TRUE(wait_for(group_agrees(&self->base, bytes_), 30 * 1000)) {	\
		TH_LOG("unevictable %lld, file %lld, not %lld",			\
		       group_stat("unevictable") - self->base.group_unevictable, \
		       group_stat("file") - self->base.group_file, bytes_);	\
	}									\
	now_ = accounts_read(self->device);					\
	EXPECT_EQ(bytes_, now_.device - self->base.device);			\
	EXPECT_EQ(bytes_, now_.df - self->base.df);				\
	EXPECT_EQ(bytes_, now_.unevictable - self->base.unevictable);		\
} while (0)

/* The same of the file, and of what is mapped of it. */
#define EXPECT_FILE(_fd, _map, _bytes) do {					\
	struct stat st_;							\
										\
	EXPECT_AGREEMENT(_bytes);						\
	ASSERT_EQ(0, fstat(_fd, &st_));						\
	EXPECT_EQ(_bytes, st_.st_blocks * 512ULL);				\
	EXPECT_EQ(_bytes, stat_of(_fd).committed_bytes);			\
	EXPECT_EQ(_bytes, resident_bytes(_map));				\
} while (0)

static size_t resident_bytes(void *map)
{
	unsigned char resident[BYTES / KPAGE_BYTES];
	size_t i, nr = 0;

	if (mincore(map, BYTES, resident))
		return -errno;
	for (i = 0; i < sizeof(resident); i++)
		nr += resident[i] & 1;
	return nr * KPAGE_BYTES;
}

FIXTURE_SETUP(accounts)
{
	self->device = device_setup(_metadata, &self->before);
	if (!is_thp_kernel())
		SKIP(return, "this kernel keeps an arena's memory out of the page cache");
	if (!file_says(CGROUP_ROOT "/cgroup.controllers", "memory"))
		SKIP(return, "no memory controller of cgroup2 at %s", CGROUP_ROOT);
	unlink(NAME);
	write_text(CGROUP_ROOT "/cgroup.subtree_control", "+memory");
	rmdir(CGROUP);
	ASSERT_EQ(0, mkdir(CGROUP, 0755));
	ASSERT_TRUE(write_text(CGROUP "/cgroup.procs", "0"));
	self->base = accounts_read(self->device);
}

FIXTURE_TEARDOWN(accounts)
{
	EXPECT_AGREEMENT(0);
	write_text(CGROUP_ROOT "/cgroup.procs", "0");
	EXPECT_TRUE(wait_for(!rmdir(CGROUP), 30 * 1000));
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

TEST_F(accounts, life_of_a_file)
{
	struct xalloc_ioc_export export = { .size = sizeof(export), .bytes = SEGMENT };
	int fd = file_create(NAME), ends[2], dmabuf;
	unsigned char *map;
	struct iovec one;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, file_resize(fd, BYTES));
	map = arena_map(fd, BYTES);
	ASSERT_NE(NULL, map);
	EXPECT_FILE(fd, map, 0);
	/* Commit, by each way. */
	ASSERT_EQ(1, pwrite(fd, "x", 1, 0));
	EXPECT_FILE(fd, map, SEGMENT);
	ASSERT_EQ(0, file_allocate(fd, 0, 2 * SEGMENT, 2 * SEGMENT));
	EXPECT_FILE(fd, map, 3 * SEGMENT);
	map[5 * SEGMENT + 12345] = 1;
	EXPECT_FILE(fd, map, 4 * SEGMENT);
	EXPECT_EQ((long)(SEGMENT / 1024), smaps_kb(map, BYTES, "Rss"));
	/* Pin and export: nothing more is used. */
	one = (struct iovec){ map + 2 * SEGMENT, KPAGE_BYTES };
	ASSERT_EQ(0, pipe(ends));
	ASSERT_EQ((ssize_t)KPAGE_BYTES, vmsplice(ends[1], &one, 1, 0));
	export.offset = 3 * SEGMENT;
	dmabuf = call(fd, XALLOC_IOC_EXPORT, &export);
	ASSERT_LE(0, dmabuf);
	EXPECT_FILE(fd, map, 4 * SEGMENT);
	/* Punch, and be refused what is in use. */
	ASSERT_EQ(0, file_punch(fd, 0, SEGMENT));
	EXPECT_FILE(fd, map, 3 * SEGMENT);
	EXPECT_EQ(-EBUSY, file_punch(fd, 0, BYTES));
	EXPECT_FILE(fd, map, 3 * SEGMENT);
	close(ends[0]);
	close(ends[1]);
	ASSERT_EQ(0, file_punch(fd, 2 * SEGMENT, SEGMENT));
	EXPECT_FILE(fd, map, 2 * SEGMENT);
	ASSERT_EQ(0, file_resize(fd, 4 * SEGMENT));
	EXPECT_FILE(fd, map, SEGMENT);
	/* Die: first the name, then what is left of the file but the export, then that. */
	ASSERT_EQ(0, unlink(NAME));
	munmap(map, BYTES);
	close(fd);
	EXPECT_AGREEMENT(SEGMENT);
	close(dmabuf);
	EXPECT_AGREEMENT(0);
}

static void live_in_small_pieces(struct __test_metadata *_metadata,
				 FIXTURE_DATA(accounts) * self, uint32_t flags)
{
	uint64_t left = flags & XALLOC_ARENA_PERSIST ? 11 * SLICE : 2 * SLICE;
	struct xalloc_ioc_arena_create create = {
		.size = sizeof(create),
		.flags = flags,
		.arena_bytes = BYTES,
		.policy = XALLOC_POLICY_SMALL,
	};
	int fd = file_create(NAME), ends[2];
	unsigned char *map;
	struct iovec one;
	pid_t pid;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, call(fd, XALLOC_IOC_ARENA_CREATE, &create));
	map = arena_map(fd, BYTES);
	ASSERT_NE(NULL, map);
	EXPECT_FILE(fd, map, 0);
	ASSERT_EQ(1, grant_page(fd, 5, 0, NULL));
	EXPECT_FILE(fd, map, 5 * SLICE);
	ASSERT_EQ(0, file_allocate(fd, 0, 7 * SLICE, SLICE));
	EXPECT_FILE(fd, map, 6 * SLICE);
	ASSERT_EQ(1, free_range(fd, 0, SLICE));
	EXPECT_FILE(fd, map, 5 * SLICE);
	/* A pinned piece stays when its page is freed. */
	one = (struct iovec){ map + 2 * SLICE, KPAGE_BYTES };
	ASSERT_EQ(0, pipe(ends));
	ASSERT_EQ((ssize_t)KPAGE_BYTES, vmsplice(ends[1], &one, 1, 0));
	ASSERT_EQ(1, free_range(fd, SLICE, 3 * SLICE));
	EXPECT_AGREEMENT(3 * SLICE);
	EXPECT_EQ(SLICE, stat_of(fd).pinned_bytes);
	/* But nobody can touch it any more. */
	EXPECT_EQ(2 * SLICE, resident_bytes(map));
	close(ends[0]);
	close(ends[1]);
	ASSERT_EQ(0, arena_trim(fd, 0, NULL));
	EXPECT_FILE(fd, map, 2 * SLICE);
	/* A client dies, with its page or without. */
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		int own = name_open(NAME, O_RDWR);

		require(grant_page(own, 9, 0, NULL) == 1);
		raise(SIGKILL);
	}
	EXPECT_EQ(256 + SIGKILL, child_status(pid));
	EXPECT_FILE(fd, map, left);
	munmap(map, BYTES);
	close(fd);
	/* The page from fallocate() goes or stays as the granted one. */
	EXPECT_AGREEMENT(flags & XALLOC_ARENA_PERSIST ? left : 0);
	ASSERT_EQ(0, unlink(NAME));
	EXPECT_AGREEMENT(0);
}

TEST_F(accounts, life_of_small_pieces)
{
	live_in_small_pieces(_metadata, self, 0);
}

TEST_F(accounts, life_of_small_pieces_that_persist)
{
	live_in_small_pieces(_metadata, self, XALLOC_ARENA_PERSIST);
}

TEST_HARNESS_MAIN
