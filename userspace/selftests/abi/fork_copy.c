// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: arenas that a child of fork gets a copy of: each process keeps its own data, and the
 * child's calls reach its copy alone.
 */
#include "fork_fixture.h"

#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/uio.h>

TEST_F(fork_copy, parent_child_and_grandchild_keep_their_own)
{
	unsigned char *map = self->map;
	size_t bytes = 3 * XALLOC_SEGMENT_BYTES;
	int sync[2];
	char byte;
	pid_t pid;

	ASSERT_EQ(1, grant_page(self->arena, 3 * SEGMENT_SLICES, 0, NULL));
	pattern_fill(map, bytes, 1);
	ASSERT_EQ(0, pipe(sync));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		/* The parent has written by then. */
		require(read(sync[0], &byte, 1) == 1);
		require(is_filled(map, bytes, 1));
		pattern_fill(map, bytes, 2);
		require(in_child({
			require(is_filled(map, bytes, 2));
			pattern_fill(map, bytes, 3);
			require(is_filled(map, bytes, 3));
		}) == 0);
		require(is_filled(map, bytes, 2));
		_exit(0);
	}
	pattern_fill(map, bytes, 4);
	EXPECT_EQ(1, write(sync[1], "", 1));
	EXPECT_EQ(0, child_status(pid));
	EXPECT_TRUE(is_filled(map, bytes, 4));
	close(sync[0]);
	close(sync[1]);
}

/* Pieces of a segment that are gone, or may not be written to, before the fork and after it. */
TEST_F(fork_copy, parts_of_a_segment)
{
	unsigned char *map = self->map;

	ASSERT_EQ(1, grant_page(self->arena, 2 * SEGMENT_SLICES, 0, NULL));
	pattern_fill(map, 2 * XALLOC_SEGMENT_BYTES, 1);
	ASSERT_EQ(0, mprotect(map + 3 * KPAGE_BYTES, KPAGE_BYTES, PROT_READ));
	ASSERT_EQ(0, munmap(map + 8 * KPAGE_BYTES, 2 * KPAGE_BYTES));
	EXPECT_EQ(0, in_child({
		require(is_filled(map, 8 * KPAGE_BYTES, 1));
		require(touch_write(map + 3 * KPAGE_BYTES, 5) == SIGSEGV);
		require(touch_read(map + 8 * KPAGE_BYTES, NULL) == SIGSEGV);
		require(!mprotect(map + 3 * KPAGE_BYTES, KPAGE_BYTES, PROT_READ | PROT_WRITE));
		require(!munmap(map + XALLOC_SEGMENT_BYTES, KPAGE_BYTES));
		memset(map + 3 * KPAGE_BYTES, 9, KPAGE_BYTES);
		memset(map + XALLOC_SEGMENT_BYTES + KPAGE_BYTES, 9, KPAGE_BYTES);
		require(in_child({
			require(map[3 * KPAGE_BYTES] == 9);
			require(map[XALLOC_SEGMENT_BYTES + KPAGE_BYTES] == 9);
			require(touch_read(map + XALLOC_SEGMENT_BYTES, NULL) == SIGSEGV);
		}) == 0);
	}));
	EXPECT_TRUE(is_filled(map, 8 * KPAGE_BYTES, 1));
	EXPECT_EQ(0, touch_read(map + XALLOC_SEGMENT_BYTES, NULL));
}

TEST_F(fork_copy, several_mappings_are_one_copy)
{
	unsigned char *map = self->map;
	unsigned char *other = arena_map_at(self->arena, XALLOC_SEGMENT_BYTES, XALLOC_SEGMENT_BYTES,
					    PROT_READ | PROT_WRITE);

	ASSERT_NE(NULL, other);
	ASSERT_EQ(1, grant_page(self->arena, 2 * SEGMENT_SLICES, 0, NULL));
	EXPECT_EQ(0, in_child({
		struct xalloc_ioc_attach one, two;
		int fd = attach_at(self->device, map, 0, &one);
		int fd2 = attach_at(self->device, other, 0, &two);

		require(fd >= 0 && fd2 >= 0);
		require(one.arena_id == two.arena_id && one.client_id != two.client_id);
		require(one.offset == 0 && two.offset == XALLOC_SEGMENT_BYTES);
		map[XALLOC_SEGMENT_BYTES] = 7;
		require(other[0] == 7);
		require(stat_of(fd).arenas == 1 && stat_of(fd).clients == 2);
	}));
	EXPECT_EQ(0, other[0]);
	munmap(other, XALLOC_SEGMENT_BYTES);
}

TEST_F(fork_copy, inherited_descriptor_is_estale)
{
	unsigned char *map = self->map;

	ASSERT_EQ(1, grant_page(self->arena, 1, 0, NULL));
	EXPECT_EQ(0, in_child({
		struct xalloc_ioc_info info;
		struct xalloc_ioc_stat stat;
		struct xalloc_page_info page;
		uint64_t offset = 0;

		require(grant_page(self->arena, 1, 0, NULL) == -ESTALE);
		require(free_page(self->arena, 0) == -ESTALE);
		require(counters_read(self->arena, &stat) == -ESTALE);
		require(attach(self->arena, 0, NULL) == -ESTALE);
		require(list_some(self->arena, 0, 0, &offset, &page, 1) == -ESTALE);
		require(fork_prepare(self->arena, 0) == -ESTALE);
		require(mmap_error(ARENA_BYTES, PROT_READ, MAP_SHARED, self->arena, 0) == -ESTALE);
		require(mmap_error(KPAGE_BYTES, PROT_READ, MAP_SHARED, self->arena,
				   XALLOC_STATUS_OFFSET) == -ESTALE);
		require(info_read(self->arena, &info) == 0);
		require(attach_at(self->arena, map, 0, NULL) >= 0);
		/* Opened again it is one of the copy. */
		require(counters_read(fd_reopen(self->arena, O_RDONLY), &stat) == 0);
		require(stat.pages == 1);
	}));
	EXPECT_EQ(1, free_page(self->arena, 0));
}

TEST_F(fork_copy, first_descriptor_has_the_pages)
{
	unsigned char *map = self->map;
	uint64_t offsets[3];
	int i;

	for (i = 0; i < 3; i++)
		ASSERT_EQ(1, grant_tagged(self->arena, 20 + i, 0, 100 + i, &offsets[i]));
	EXPECT_EQ(0, in_child({
		struct xalloc_page_info pages[4];
		struct xalloc_ioc_attach arg;
		int reader = attach_at(self->device, map, XALLOC_ATTACH_RDONLY, NULL);
		int fd = attach_at(self->device, map, 0, &arg);
		int other = attach_at(self->device, map, 0, NULL);

		require(reader >= 0 && fd >= 0 && other >= 0);
		require(list_all(fd, 0, pages, 4) == 3);
		for (i = 0; i < 3; i++) {
			require(pages[i].offset == offsets[i] && pages[i].tag == 100U + i);
			require(pages[i].nr_slices == 20U + i);
			require(pages[i].client_id == arg.client_id);
			require(!pages[i].flags);
		}
		require(free_page(reader, offsets[0]) == -EBADF);
		require(free_page(other, offsets[0]) == -EPERM);
		require(free_page(fd, offsets[0]) == 1);
		require(grant_page(other, 32, 0, NULL) == 1);
		/* The client's pages go with its last descriptor and mapping. */
		close(fd);
		require(stat_of(other).pages == 3);
		require(!munmap(map, ARENA_BYTES));
		require(stat_of(other).pages == 1);
	}));
	EXPECT_EQ(3, stat_of(self->arena).pages);
	for (i = 0; i < 3; i++)
		EXPECT_EQ(1, free_page(self->arena, offsets[i]));
}

/* A structure that can be read and not written: the call fails, and the copy is as it was. */
TEST_F(fork_copy, attach_that_cannot_be_told_leaves_the_copy)
{
	struct xalloc_ioc_attach *arg = mmap(NULL, KPAGE_BYTES, PROT_READ | PROT_WRITE,
						MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char *map = self->map;

	ASSERT_EQ(1, grant_page(self->arena, 1, 0, NULL));
	map[0] = 6;
	arg->size = sizeof(*arg);
	arg->address = (uintptr_t)map;
	EXPECT_EQ(0, in_child({
		require(!mprotect(arg, KPAGE_BYTES, PROT_READ));
		require(call(self->device, XALLOC_IOC_ATTACH, arg) == -EFAULT);
		require(map[0] == 6);
		require(stat_of(attach_at(self->device, map, 0, NULL)).pages == 1);
	}));
	munmap(arg, KPAGE_BYTES);
}

/* One that has neither the arena nor a copy opens a descriptor that it was passed. */
TEST_F(fork_copy, another_process_cannot_open_it_again)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), self->arena);
	ASSERT_EQ(0, munmap(self->map, ARENA_BYTES));
	EXPECT_EQ(0, in_child({
		require(attach(self->arena, 0, NULL) == -ESTALE);
		require(fd_reopen(self->arena, O_RDONLY) == -ESTALE);
		require(name_open(path, O_RDONLY) == -ESTALE);
	}));
	self->map = arena_map(self->arena, ARENA_BYTES);
	ASSERT_NE(NULL, self->map);
}

TEST_F(fork_copy, copy_is_mapped_huge_and_can_be_pinned)
{
	unsigned char *map = self->map, seen[64];
	struct iovec local = { seen, sizeof(seen) }, remote;

	if (!is_thp_kernel())
		SKIP(return, "the kernel has no huge pages");
	ASSERT_EQ(1, grant_page(self->arena, 4 * SEGMENT_SLICES, 0, NULL));
	pattern_fill(map, 4 * XALLOC_SEGMENT_BYTES, 6);
	EXPECT_EQ(0, in_child({
		int pipes[2];
		struct iovec vec = { map + 5 * KPAGE_BYTES, sizeof(seen) };

		require(is_filled(map, 4 * XALLOC_SEGMENT_BYTES, 6));
		require(smaps_kb(map, ARENA_BYTES, "FilePmdMapped") == 8192);
		require(!pipe(pipes));
		require(vmsplice(pipes[1], &vec, 1, 0) == sizeof(seen));
		require(read(pipes[0], seen, sizeof(seen)) == sizeof(seen));
		require(!memcmp(seen, map + 5 * KPAGE_BYTES, sizeof(seen)));
		remote = (struct iovec){ map + 7 * KPAGE_BYTES, sizeof(seen) };
		require(process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == sizeof(seen));
		require(!memcmp(seen, map + 7 * KPAGE_BYTES, sizeof(seen)));
	}));
}

/* A child goes on with code that reads the page, at the same address. */
TEST_F(fork_copy, child_has_the_status_page)
{
	const volatile struct xalloc_status *status = status_map(self->arena);

	ASSERT_NE(NULL, status);
	EXPECT_EQ(0, in_child({
		uint64_t generation;
		int fd;

		require(!touch_read((void *)status, NULL));
		require(status->size == sizeof(struct xalloc_status));
		/* It is that of the copy. */
		generation = status->generation;
		fd = attach_at(self->device, self->map, 0, NULL);
		require(grant_page(fd, ARENA_BYTES / XALLOC_SLICE_BYTES, 0, NULL) == 1);
		require(grant_page(fd, 1, 0, NULL) < 0);
		require(status->generation > generation);
	}));
	/* The module gives the page to children by itself: since 7.0 the advice is refused. */
	EXPECT_EQ(is_kernel_at_least(7, 0) ? EINVAL : 0,
		  madvise((void *)status, KPAGE_BYTES, MADV_DOFORK) ? errno : 0);
	munmap((void *)status, KPAGE_BYTES);
}

TEST_F(fork_copy, attach_at_refuses)
{
	int reader = attach(self->arena, XALLOC_ATTACH_RDONLY, NULL), dmabuf;
	unsigned char *seen = arena_map_at(reader, 0, ARENA_BYTES, PROT_READ), *exported;
	struct xalloc_ioc_export arg = { .size = sizeof(arg), .bytes = XALLOC_SEGMENT_BYTES };
	int own;

	ASSERT_NE(NULL, seen);
	ASSERT_EQ(1, grant_page(self->arena, SEGMENT_SLICES, 0, NULL));
	EXPECT_EQ(-ENOTTY, attach_at(self->device, NULL, 0, NULL));
	EXPECT_EQ(-ENOENT, attach_at(self->device, &reader, 0, NULL));
	EXPECT_EQ(-ENOENT, attach_at(self->device, (void *)(1UL << 63), 0, NULL));
	EXPECT_EQ(-EOPNOTSUPP, attach_at(self->device, self->map, 2, NULL));
	/* What was mapped by a reader gives another reader. */
	EXPECT_EQ(-EBADF, attach_at(self->device, seen, 0, NULL));
	own = attach_at(self->device, seen, XALLOC_ATTACH_RDONLY, NULL);
	EXPECT_LE(0, own);
	EXPECT_EQ(-EBADF, grant_page(own, 1, 0, NULL));
	close(own);
	/* Who was given a range is not given the arena. */
	dmabuf = call(self->arena, XALLOC_IOC_EXPORT, &arg);
	if (dmabuf == -EOPNOTSUPP)
		SKIP(goto out, "the kernel has no dma-buf");
	ASSERT_LE(0, dmabuf);
	exported = mmap(NULL, XALLOC_SEGMENT_BYTES, PROT_READ, MAP_SHARED, dmabuf, 0);
	ASSERT_NE(MAP_FAILED, exported);
	EXPECT_EQ(-ENOENT, attach_at(self->device, exported, XALLOC_ATTACH_RDONLY, NULL));
	munmap(exported, XALLOC_SEGMENT_BYTES);
	close(dmabuf);
out:
	munmap(seen, ARENA_BYTES);
	close(reader);
}

/* In a copy of an arena that persists, pages outlive the client that has all of them. */
TEST_F(fork_copy, pages_of_a_copy_persist)
{
	int arena = arena_create_flags(self->device, ARENA_BYTES, 0,
				       XALLOC_ARENA_FORK | XALLOC_ARENA_PERSIST);
	unsigned char *map = arena_map(arena, ARENA_BYTES);
	struct xalloc_page_grant page;

	ASSERT_NE(NULL, map);
	ASSERT_EQ(1, grant_page(arena, 20, 0, &page));
	EXPECT_EQ(0, in_child({
		struct xalloc_page_info info;
		int fd = attach_at(self->device, map, 0, NULL);
		int other = attach_at(self->device, map, 0, NULL);

		require(fd >= 0 && other >= 0);
		close(fd);
		require(!munmap(map, ARENA_BYTES));
		require(list_all(other, XALLOC_LIST_ORPHANS, &info, 1) == 1);
		require(info.offset == page.offset && info.flags == XALLOC_PAGE_ORPHAN);
		require(free_page(other, page.offset) == 1);
	}));
	EXPECT_EQ(1, stat_of(arena).pages);
	munmap(map, ARENA_BYTES);
	close(arena);
}

/* An arena that a fork does not copy, too. */
TEST_F(fork_copy, attach_at_serves_who_lost_the_descriptor)
{
	int arena = arena_create_flags(self->device, ARENA_BYTES, 0, XALLOC_ARENA_PERSIST), again;
	unsigned char *map = arena_map(arena, ARENA_BYTES);
	struct xalloc_ioc_attach arg;

	ASSERT_NE(NULL, map);
	ASSERT_EQ(1, grant_page(arena, 1, 0, NULL));
	map[5] = 5;
	close(arena);
	again = attach_at(self->device, map + XALLOC_SEGMENT_BYTES, 0, &arg);
	ASSERT_LE(0, again);
	EXPECT_EQ(XALLOC_SEGMENT_BYTES, arg.offset);
	EXPECT_EQ(1, stat_of(again).pages);
	/* The mapping is one of the first client, which therefore is there. */
	EXPECT_EQ(2, stat_of(again).clients);
	EXPECT_EQ(5, map[5]);
	munmap(map, ARENA_BYTES);
	close(again);
}

/* Replaces the inherited mappings by a mapping of the copy. */
static unsigned char *map_anew(int device, unsigned char *map)
{
	int own = attach_at(device, map, 0, NULL);

	munmap(map, ARENA_BYTES);
	return arena_map(own, ARENA_BYTES);
}

/* What a daemon does. Returns whether the copy is all that is left of both. */
static bool lives_on_its_copy(int device, int arena, unsigned char *map, bool maps_anew)
{
	uint64_t others = stat_of(device).committed_bytes - 4 * XALLOC_SEGMENT_BYTES;
	int own;

	close(arena);
	if (maps_anew)
		map = map_anew(device, map);
	if (!wait_for(stat_of(device).committed_bytes == others + 2 * XALLOC_SEGMENT_BYTES, 60000))
		return false;
	own = attach_at(device, map, 0, NULL);
	return map[0] == 5 && stat_of(own).committed_bytes == 2 * XALLOC_SEGMENT_BYTES &&
	       grant_page(own, 2 * SEGMENT_SLICES, 0, NULL) == 1;
}

static void leave_a_daemon(struct __test_metadata *_metadata, int device, bool maps_anew)
{
	char result = 0;
	int ends[2];

	ASSERT_EQ(0, pipe(ends));
	EXPECT_EQ(0, in_child({
		int arena = arena_create_flags(device, ARENA_BYTES, 4 * XALLOC_SEGMENT_BYTES,
					       XALLOC_ARENA_FORK | XALLOC_ARENA_PERSIST);
		unsigned char *map = arena_map(arena, ARENA_BYTES);
		pid_t parent = getpid();

		require(map);
		require(status_map(arena));
		require(grant_page(arena, 2 * SEGMENT_SLICES, 0, NULL) == 1);
		map[0] = 5;
		if (!fork()) {
			while (getppid() == parent)
				sleep_ms(5);
			result = lives_on_its_copy(device, arena, map, maps_anew) ? 'y' : 'n';
			require(write(ends[1], &result, 1) == 1);
			_exit(0);
		}
	}));
	close(ends[1]);
	EXPECT_EQ(1, read(ends[0], &result, 1));
	EXPECT_EQ('y', result);
	close(ends[0]);
}

TEST_F(fork_copy, what_a_parent_leaves_goes_when_it_dies)
{
	leave_a_daemon(_metadata, self->device, true);
}

TEST_F(fork_copy, what_a_parent_leaves_goes_though_its_mappings_are_kept)
{
	leave_a_daemon(_metadata, self->device, false);
}

/* A child that has kept a descriptor for reading alone still has the pages. */
TEST_F(fork_copy, pages_stay_for_a_reader)
{
	unsigned char *map = self->map;

	ASSERT_EQ(1, grant_page(self->arena, 1, 0, NULL));
	map[0] = 8;
	EXPECT_EQ(0, in_child({
		int reader = attach_at(self->device, map, XALLOC_ATTACH_RDONLY, NULL);
		unsigned char *seen = arena_map_at(reader, 0, ARENA_BYTES, PROT_READ);

		require(reader >= 0 && seen && !munmap(map, ARENA_BYTES));
		require(seen[0] == 8 && stat_of(reader).pages == 1);
		require(attach_at(self->device, seen, 0, NULL) == -EBADF);
	}));
	EXPECT_EQ(8, map[0]);
}

/* For the status page alone nothing is copied; the child reads it all the same. */
TEST_F(fork_copy, status_page_alone_copies_nothing)
{
	const volatile struct xalloc_status *status = status_map(self->arena);

	ASSERT_NE(NULL, status);
	ASSERT_EQ(1, grant_page(self->arena, 1, 0, NULL));
	ASSERT_EQ(0, madvise(self->map, ARENA_BYTES, MADV_DONTFORK));
	EXPECT_EQ(0, in_child({
		require(stat_of(self->device).arenas == self->before.arenas + 1);
		require(status->size == sizeof(struct xalloc_status));
	}));
	munmap((void *)status, KPAGE_BYTES);
}

/* A program that closes all descriptors goes on with the memory that it has mapped. */
TEST_F(fork_copy, a_mapping_keeps_the_pages_of_its_process)
{
	unsigned char *map = self->map;
	uint64_t offset;

	ASSERT_EQ(1, grant_tagged(self->arena, 1, 0, 7, &offset));
	map[offset] = 7;
	EXPECT_EQ(0, in_child({
		int fd = attach_at(self->device, map, 0, NULL);

		require(fd >= 0 && !close(fd) && !close(self->arena));
		require(!touch_read(map + offset, NULL) && map[offset] == 7);
		fd = attach_at(self->device, map, 0, NULL);
		require(stat_of(fd).pages == 1 && stat_of(fd).clients == 2);
		require(!munmap(map, ARENA_BYTES));
		require(stat_of(fd).pages == 0 && stat_of(fd).clients == 1);
	}));
	close(self->arena);
	EXPECT_EQ(7, map[offset]);
	self->arena = attach_at(self->device, map, 0, NULL);
	EXPECT_EQ(1, stat_of(self->arena).pages);
	EXPECT_EQ(2, stat_of(self->arena).clients);
}

static void *write_on(void *arg)
{
	volatile unsigned char *map = arg;
	size_t i;

	for (i = 0; map[0] != 0xff; i = (i + 4096) % XALLOC_SEGMENT_BYTES)
		map[1 + i % (XALLOC_SEGMENT_BYTES - 1)]++;
	return NULL;
}

struct grants {
	int arena;
	atomic_bool stop;
	atomic_long nr_done;
	atomic_int error;	/* what ended them before */
};

static void *grant_on(void *arg)
{
	struct grants *grants = arg;
	struct xalloc_page_grant page;
	int rc;

	while (!atomic_load(&grants->stop)) {
		rc = grant_page(grants->arena, SEGMENT_SLICES, 0, &page);
		if (rc == 1)
			rc = free_page(grants->arena, page.offset);
		if (rc != 1) {
			atomic_store(&grants->error, rc);
			break;
		}
		atomic_fetch_add(&grants->nr_done, 1);
	}
	return NULL;
}

TEST_F(fork_copy, while_a_thread_writes_and_another_is_granted)
{
	struct grants grants = { .arena = self->arena };
	pthread_t writes, is_granted;
	unsigned char *map = self->map;
	int i;

	ASSERT_EQ(1, grant_page(self->arena, SEGMENT_SLICES, 0, NULL));
	map[0] = 1;
	ASSERT_EQ(0, pthread_create(&writes, NULL, write_on, map));
	ASSERT_EQ(0, pthread_create(&is_granted, NULL, grant_on, &grants));
	/* And until the other has been granted something, however long that takes. */
	for (i = 0; i < 30 || (!atomic_load(&grants.nr_done) && !atomic_load(&grants.error)); i++)
		EXPECT_EQ(0, in_child({
			require(map[0] == 1);
			memset(map, 9, XALLOC_SEGMENT_BYTES);
			/* No thread here. */
			require(map[4097] == 9);
		}));
	map[0] = 0xff;
	atomic_store(&grants.stop, true);
	pthread_join(writes, NULL);
	pthread_join(is_granted, NULL);
	TH_LOG("%d forks, %ld grants", i, atomic_load(&grants.nr_done));
	EXPECT_EQ(0, atomic_load(&grants.error));
	EXPECT_LT(0, atomic_load(&grants.nr_done));
}

/* Of the newest C libraries alone. */
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

/* A fork waits until its event was read. */
static void *read_event(void *fd)
{
	struct uffd_msg msg;

	if (read(*(int *)fd, &msg, sizeof(msg)) == sizeof(msg) && msg.event == UFFD_EVENT_FORK)
		close(msg.arg.fork.ufd);
	return NULL;
}

/* With it, fork copies the page tables of other mappings. */
TEST_F(fork_copy, write_protection_by_userfaultfd)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_EVENT_FORK,
	};
	struct uffdio_register reg = {
		.range = { (uintptr_t)self->map, XALLOC_SEGMENT_BYTES },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_writeprotect protect = {
		.range = { (uintptr_t)self->map, XALLOC_SEGMENT_BYTES },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	pthread_t reader;

	ASSERT_EQ(1, grant_page(self->arena, SEGMENT_SLICES, 0, NULL));
	pattern_fill(self->map, XALLOC_SEGMENT_BYTES, 1);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "this kernel has no asynchronous write protection (%d)", errno);
	if (ioctl(uffd, UFFDIO_REGISTER, &reg)) {
		/* Most kernels refuse it for any mapping that cannot be extended. */
		EXPECT_EQ(EINVAL, errno);
		close(uffd);
		return;
	}
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_WRITEPROTECT, &protect));
	self->map[0] = self->map[0];
	ASSERT_EQ(0, pthread_create(&reader, NULL, read_event, &uffd));
	EXPECT_EQ(0, in_child({
		require(is_filled(self->map, XALLOC_SEGMENT_BYTES, 1));
		pattern_fill(self->map, XALLOC_SEGMENT_BYTES, 2);
	}));
	pthread_join(reader, NULL);
	EXPECT_TRUE(is_filled(self->map, XALLOC_SEGMENT_BYTES, 1));
	close(uffd);
}

/* Parent and child free what the other one has at the same place. */
TEST_F(fork_copy, frees_unmap_nothing_of_relatives)
{
	size_t bytes = 8 * XALLOC_SEGMENT_BYTES;
	int down[2], up[2], child;
	unsigned int i;
	long faults;
	char byte;

	for (i = 0; i < 8; i++)
		ASSERT_EQ(1, grant_page(self->arena, SEGMENT_SLICES, 0, NULL));
	memset(self->map, 1, bytes);
	ASSERT_EQ(0, pipe(down));
	ASSERT_EQ(0, pipe(up));
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		int fd = attach_at(self->device, self->map, 0, NULL);

		memset(self->map, 2, bytes);
		/* The second half of ours, then the first of the parent's. */
		for (i = 4; i < 8; i++)
			require(free_page(fd, i * XALLOC_SEGMENT_BYTES) == 1);
		require(touch_read(self->map + 4 * XALLOC_SEGMENT_BYTES, NULL) == SIGBUS);
		require(write(up[1], "", 1) == 1);
		require(read(down[0], &byte, 1) == 1);
		faults = page_faults();
		memset(self->map, 3, bytes / 2);
		require(page_faults() == faults);
		_exit(0);
	}
	EXPECT_EQ(1, read(up[0], &byte, 1));
	/* After the read: since the fork, the first writes to the stack take faults, too. */
	faults = page_faults();
	memset(self->map, 4, bytes);
	EXPECT_EQ(0, page_faults() - faults);
	for (i = 0; i < 4; i++)
		EXPECT_EQ(1, free_page(self->arena, i * XALLOC_SEGMENT_BYTES));
	EXPECT_EQ(SIGBUS, touch_read(self->map, NULL));
	EXPECT_EQ(1, write(down[1], "", 1));
	EXPECT_EQ(0, child_status(child));
	for (i = 0; i < 2; i++) {
		close(up[i]);
		close(down[i]);
	}
}

TEST_F(fork_copy, other_arenas_are_not_inherited)
{
	int arena = arena_create(self->device, ARENA_BYTES, 0);
	unsigned char *map = arena_map(arena, ARENA_BYTES);

	ASSERT_NE(NULL, map);
	ASSERT_EQ(1, grant_page(arena, 1, 0, NULL));
	EXPECT_EQ(-EOPNOTSUPP, fork_prepare(arena, 0));
	EXPECT_EQ(0, in_child({
		require(touch_read(map, NULL) == SIGSEGV);
		/* But its descriptor is a client as before. */
		require(stat_of(arena).pages == 1);
	}));
	munmap(map, ARENA_BYTES);
	close(arena);
}

TEST_HARNESS_MAIN
