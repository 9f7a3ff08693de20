// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: memory of an arena in the hands of the kernel: O_DIRECT on a block device
 * and on ext4, process_vm_readv and _writev, vmsplice, io_uring's fixed buffers; mapped by
 * entries of 2 MiB and of 4 KiB, and backed by small pieces.
 */
#include "gup.h"
#include "selftest.h"

#include <sched.h>
#include <sys/mount.h>

FIXTURE(gup)
{
	int device;
	int arena;
	unsigned char *map;
	struct xalloc_ioc_stat before;
};

FIXTURE_VARIANT(gup)
{
	uint32_t policy;
	size_t off;		/* of the mapping's address from where entries of 2 MiB fit */
};

FIXTURE_VARIANT_ADD(gup, pmd)
{
};

FIXTURE_VARIANT_ADD(gup, pte)
{
	.off = KPAGE_BYTES,
};

FIXTURE_VARIANT_ADD(gup, small)
{
	.policy = XALLOC_POLICY_SMALL,
};

FIXTURE_SETUP(gup)
{
	unsigned char *range = range_reserve(ARENA_BYTES + XALLOC_SEGMENT_BYTES,
					     XALLOC_SEGMENT_BYTES);
	struct xalloc_page_grant page;

	self->device = device_setup(_metadata, &self->before);
	ASSERT_NE(NULL, range);
	self->arena = arena_create_by(self->device, ARENA_BYTES, variant->policy, -1);
	ASSERT_LE(0, self->arena);
	ASSERT_EQ(1, grant_page(self->arena, ARENA_BYTES / XALLOC_SLICE_BYTES, 0, &page));
	self->map = mmap(range + variant->off, ARENA_BYTES, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, self->arena, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->map);
}

FIXTURE_TEARDOWN(gup)
{
	if (self->map)
		munmap(self->map, ARENA_BYTES);
	if (self->arena >= 0)
		close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

TEST_F(gup, is_mapped_as_the_variant_says)
{
	bool pmd = is_thp_kernel() && !variant->off && variant->policy != XALLOC_POLICY_SMALL;

	pattern_fill(self->map, ARENA_BYTES, 1);
	EXPECT_EQ(pmd ? ARENA_BYTES / 1024 : 0,
		  (size_t)smaps_kb(self->map, ARENA_BYTES, "FilePmdMapped"));
}

/* Writes from the arena, wipes the arena, and reads back, at several places and lengths. */
static void direct_io_round_trip(struct __test_metadata *_metadata, int fd, unsigned char *map)
{
	static const struct {
		size_t at;
		size_t bytes;
	} rows[] = {
		{ 0, KPAGE_BYTES },
		{ 512, 512 },
		{ KPAGE_BYTES, XALLOC_SLICE_BYTES },
		{ XALLOC_SEGMENT_BYTES - KPAGE_BYTES, 2 * KPAGE_BYTES },
		{ XALLOC_SLICE_BYTES, XALLOC_SEGMENT_BYTES },
		{ XALLOC_SEGMENT_BYTES, FILE_BYTES },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		unsigned char *buffer = map + rows[i].at;
		size_t bytes = rows[i].bytes;

		pattern_fill(buffer, bytes, i);
		ASSERT_EQ(bytes, pwrite(fd, buffer, bytes, 0)) {
			TH_LOG("write of %zu at %#zx: %s", bytes, rows[i].at, strerror(errno));
		}
		memset(map, 0, ARENA_BYTES);
		ASSERT_EQ(bytes, pread(fd, buffer, bytes, 0)) {
			TH_LOG("read of %zu at %#zx: %s", bytes, rows[i].at, strerror(errno));
		}
		EXPECT_EQ(-1, pattern_mismatch(buffer, bytes, i)) {
			TH_LOG("%zu bytes at %#zx", bytes, rows[i].at);
		}
		EXPECT_EQ(-1, nonzero_find(map, rows[i].at));
		EXPECT_EQ(-1, nonzero_find(buffer + bytes, ARENA_BYTES - rows[i].at - bytes));
	}
}

TEST_F(gup, o_direct_on_a_block_device)
{
	int fd;

	if (!has_ram_disk())
		SKIP(return, "no %s: this kernel has no brd", RAM_DISK);
	fd = open(RAM_DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_LE(0, fd);
	direct_io_round_trip(_metadata, fd, self->map);
	close(fd);
}

/* In a mount namespace of its own, which takes the mount with it when the test ends. */
static int ext4_mount(const char *where)
{
	static const char *const mkfs[] = { "mkfs.ext4", "-q", "-F", RAM_DISK, NULL };

	if (program_run(mkfs))
		return -ENOENT;
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -errno;
	return mount(RAM_DISK, where, "ext4", 0, NULL) ? -errno : 0;
}

TEST_F(gup, o_direct_on_ext4)
{
	int fd, rc;

	if (!has_ram_disk())
		SKIP(return, "no %s: this kernel has no brd", RAM_DISK);
	rc = ext4_mount("/mnt");
	if (rc == -ENODEV)
		SKIP(return, "this kernel has no ext4");
	ASSERT_EQ(0, rc) {
		TH_LOG("mkfs.ext4 (of e2fsprogs) or mount of %s: %s", RAM_DISK, strerror(-rc));
	}
	fd = open("/mnt/file", O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
	ASSERT_LE(0, fd);
	direct_io_round_trip(_metadata, fd, self->map);
	close(fd);
	EXPECT_EQ(0, umount("/mnt"));
}

/* Ordinary calls copy; they fault the memory in on the kernel's side. */
TEST_F(gup, buffered_io)
{
	char name[] = "/dev/shm/xalloc-gup-XXXXXX";
	int fd = mkstemp(name);

	ASSERT_LE(0, fd);
	unlink(name);
	direct_io_round_trip(_metadata, fd, self->map);
	close(fd);
}

TEST_F(gup, process_vm_readv_and_writev)
{
	unsigned char *copy = malloc(ARENA_BYTES);
	struct iovec local = { copy, ARENA_BYTES }, remote = { self->map, ARENA_BYTES };
	ssize_t rc;
	pid_t pid;

	ASSERT_NE(NULL, copy);
	pattern_fill(self->map, ARENA_BYTES, 1);
	rc = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
	if (rc < 0 && errno == ENOSYS)
		SKIP(goto out, "this kernel has no process_vm_readv");
	ASSERT_EQ(ARENA_BYTES, rc);
	EXPECT_EQ(-1, pattern_mismatch(copy, ARENA_BYTES, 1));

	/* From a process that has not mapped the arena, into one that has. */
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		memset(copy, 0, ARENA_BYTES);
		if (process_vm_readv(getppid(), &local, 1, &remote, 1, 0) != ARENA_BYTES)
			_exit(1);
		if (pattern_mismatch(copy, ARENA_BYTES, 1) != -1)
			_exit(2);
		pattern_fill(copy, ARENA_BYTES, 2);
		if (process_vm_writev(getppid(), &local, 1, &remote, 1, 0) != ARENA_BYTES)
			_exit(3);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(-1, pattern_mismatch(self->map, ARENA_BYTES, 2));

	/* What is not committed ends the transfer there. */
	ASSERT_EQ(1, free_page(self->arena, 0));
	EXPECT_EQ(-1, process_vm_readv(getpid(), &local, 1, &remote, 1, 0));
	EXPECT_EQ(EFAULT, errno);
out:
	free(copy);
}

TEST_F(gup, vmsplice)
{
	int fd;

	pattern_fill(self->map, 16 * KPAGE_BYTES, 5);
	fd = pipe_with(_metadata, self->map, 16 * KPAGE_BYTES);
	expect_pipe_holds(_metadata, fd, 16 * KPAGE_BYTES, 5);
	close(fd);
	ASSERT_EQ(1, free_page(self->arena, 0));
	expect_arena(_metadata, self->arena, 0, 0, 0);
}

TEST_F(gup, io_uring_fixed_buffers)
{
	struct iovec whole = { self->map, ARENA_BYTES };
	struct io_uring ring;
	int rc = ring_setup(&ring), fd;

	if (rc == -ENOSYS || rc == -EPERM)
		SKIP(return, "this kernel has no io_uring (%s)", strerror(-rc));
	ASSERT_EQ(0, rc);
	rc = io_uring_register_buffers(&ring, &whole, 1);
	if (!is_kernel_at_least(6, 5)) {
		/* These kernels refuse every file mapping but shmem and hugetlbfs. */
		EXPECT_EQ(-EOPNOTSUPP, rc);
		io_uring_queue_exit(&ring);
		ASSERT_EQ(1, free_page(self->arena, 0));
		EXPECT_TRUE(pinned_wait(_metadata, self->arena, 0, 10000));
		expect_arena(_metadata, self->arena, 0, 0, 0);
		return;
	}
	ASSERT_EQ(0, rc);
	if (!has_ram_disk()) {
		io_uring_queue_exit(&ring);
		SKIP(return, "no %s: this kernel has no brd", RAM_DISK);
	}
	fd = open(RAM_DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_LE(0, fd);
	pattern_fill(self->map, ARENA_BYTES, 70);
	EXPECT_EQ(FILE_BYTES, ring_transfer(&ring, true, fd, self->map + XALLOC_SLICE_BYTES,
					    FILE_BYTES, 0));
	memset(self->map, 0, ARENA_BYTES);
	EXPECT_EQ(FILE_BYTES, ring_transfer(&ring, false, fd, self->map + XALLOC_SLICE_BYTES,
					    FILE_BYTES, 0));
	/* Word for word what was at that place of the whole before. */
	EXPECT_EQ(pattern_word(70, XALLOC_SLICE_BYTES / 8),
		  *(uint64_t *)(self->map + XALLOC_SLICE_BYTES));
	EXPECT_EQ(pattern_word(70, (XALLOC_SLICE_BYTES + FILE_BYTES) / 8 - 1),
		  *(uint64_t *)(self->map + XALLOC_SLICE_BYTES + FILE_BYTES - 8));
	EXPECT_EQ(-1, nonzero_find(self->map, XALLOC_SLICE_BYTES));
	/* Past the end of what was registered. */
	EXPECT_EQ(-EFAULT, ring_transfer(&ring, true, fd, self->map + ARENA_BYTES - KPAGE_BYTES,
					 2 * KPAGE_BYTES, 0));
	close(fd);
	io_uring_queue_exit(&ring);
}

/* Nothing is registered of an arena that has nothing. */
TEST_F(gup, io_uring_registers_no_hole)
{
	struct iovec whole = { self->map, ARENA_BYTES };
	struct io_uring ring;
	int rc = ring_setup(&ring);

	if (rc == -ENOSYS || rc == -EPERM)
		SKIP(return, "this kernel has no io_uring (%s)", strerror(-rc));
	ASSERT_EQ(0, rc);
	ASSERT_EQ(1, free_page(self->arena, 0));
	EXPECT_EQ(-EFAULT, io_uring_register_buffers(&ring, &whole, 1));
	/* A hole after three good segments. */
	ASSERT_EQ(1, grant_page(self->arena, 3 * SEGMENT_SLICES, 0, NULL));
	EXPECT_GT(0, io_uring_register_buffers(&ring, &whole, 1));
	ASSERT_EQ(1, free_page(self->arena, 0));
	EXPECT_TRUE(pinned_wait(_metadata, self->arena, 0, 10000));
	expect_arena(_metadata, self->arena, 0, 0, 0);
	io_uring_queue_exit(&ring);
}

TEST_HARNESS_MAIN
