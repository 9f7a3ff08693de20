// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: files of xallocfs whose memory somebody refers to: a pipe, a dma-buf, an io_uring.
 * That memory does not go, the calls that would take it change nothing, and all see one memory.
 */
#include "gup.h"
#include "holes.h"

#define NAME NAMES "/holes-pinned-test"
#define NR_SEGMENTS 4
#define BYTES (NR_SEGMENTS * SEGMENT)
/* What is held lies in the third segment. */
#define HELD (2 * SEGMENT + 5 * SLICE)
#define HELD_BYTES SLICE

FIXTURE(holes_pinned)
{
	int device;
	int fd;
	int holder;
	struct io_uring ring;
	unsigned char *map;
	struct xalloc_ioc_stat before;
};

FIXTURE_VARIANT(holes_pinned)
{
	enum { BY_PIPE, BY_DMABUF, BY_RING } how;
};

FIXTURE_VARIANT_ADD(holes_pinned, by_pipe)
{
	.how = BY_PIPE,
};

FIXTURE_VARIANT_ADD(holes_pinned, by_dmabuf)
{
	.how = BY_DMABUF,
};

FIXTURE_VARIANT_ADD(holes_pinned, by_io_uring)
{
	.how = BY_RING,
};

/* The descriptor, or the negative errno. */
static int export(int fd, uint64_t offset, uint64_t bytes)
{
	struct xalloc_ioc_export arg = { .size = sizeof(arg), .offset = offset, .bytes = bytes };

	return call(fd, XALLOC_IOC_EXPORT, &arg);
}

#define hold(self, variant) \
	do { \
		if ((variant)->how == BY_PIPE) \
			(self)->holder = pipe_with(_metadata, (self)->map + HELD, HELD_BYTES); \
		else if ((variant)->how == BY_DMABUF) \
			(self)->holder = export((self)->fd, HELD, HELD_BYTES); \
		else \
			(self)->holder = ring_hold(&(self)->ring, (self)->map + HELD); \
		ASSERT_LE(0, (self)->holder); \
	} while (0)

/* Returns the descriptor of a file that the ring writes to, or the negative error. */
static int ring_hold(struct io_uring *ring, void *addr)
{
	struct iovec held = { addr, HELD_BYTES };
	int rc = io_uring_register_buffers(ring, &held, 1);

	return rc ? rc : memfd_create("copy", MFD_CLOEXEC);
}

/* What the holder sees, which is gone from a pipe then. */
#define seen_by_holder(self, variant, copy) \
	do { \
		memset(copy, 0x55, HELD_BYTES); \
		if ((variant)->how == BY_PIPE) { \
			EXPECT_EQ(HELD_BYTES, read((self)->holder, copy, HELD_BYTES)); \
		} else if ((variant)->how == BY_DMABUF) { \
			void *seen_ = arena_map_at((self)->holder, 0, HELD_BYTES, PROT_READ); \
\
			ASSERT_NE(NULL, seen_); \
			memcpy(copy, seen_, HELD_BYTES); \
			munmap(seen_, HELD_BYTES); \
		} else { \
			EXPECT_EQ(HELD_BYTES, ring_transfer(&(self)->ring, true, (self)->holder, \
							    (self)->map + HELD, HELD_BYTES, 0)); \
			EXPECT_EQ(HELD_BYTES, pread((self)->holder, copy, HELD_BYTES, 0)); \
		} \
	} while (0)

/* The pipe stays open: when it was read it refers to nothing. A ring lets go a little later. */
#define let_go(self, variant) \
	do { \
		if ((variant)->how == BY_RING) { \
			EXPECT_EQ(0, io_uring_unregister_buffers(&(self)->ring)); \
			EXPECT_TRUE(wait_for(!file_punch((self)->fd, HELD - 5 * SLICE, SEGMENT), \
					     10000)); \
		} else if ((variant)->how == BY_DMABUF) { \
			close((self)->holder); \
			(self)->holder = -1; \
		} \
	} while (0)

FIXTURE_SETUP(holes_pinned)
{
	int rc;

	/* First what may be skipped, because a skip leaves all that was made. */
	if (variant->how == BY_RING) {
		if (!is_kernel_at_least(6, 5))
			SKIP(return, "io_uring of kernels before 6.5 registers no file mappings");
		rc = ring_setup(&self->ring);
		if (rc == -ENOSYS || rc == -EPERM)
			SKIP(return, "this kernel has no io_uring (%s)", strerror(-rc));
		ASSERT_EQ(0, rc);
	}
	unlink(NAME);
	self->device = device_setup(_metadata, &self->before);
	self->holder = -1;
	self->fd = file_create(NAME);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, file_allocate(self->fd, 0, 0, BYTES));
	self->map = file_map(self->fd, BYTES, 0);
	ASSERT_NE(NULL, self->map);
	pattern_fill(self->map, BYTES, 1);
}

FIXTURE_TEARDOWN(holes_pinned)
{
	if (variant->how == BY_RING)
		io_uring_queue_exit(&self->ring);
	if (self->holder >= 0)
		close(self->holder);
	munmap(self->map, BYTES);
	close(self->fd);
	unlink(NAME);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* Each call that would take what is held, alone or with more. */
static void expect_all_busy(struct __test_metadata *_metadata, int fd, unsigned char *map)
{
	static const struct {
		off_t offset;
		off_t bytes;
	} ranges[] = {
		{ 0, BYTES },
		{ 2 * SEGMENT, SEGMENT },
		{ SEGMENT, 2 * SEGMENT },
		{ 2 * SEGMENT, 2 * SEGMENT },
		{ SEGMENT + 77, BYTES - 100 },
		{ 5, 1L << 32 },
	};
	static const off_t sizes[] = { 0, 1, SEGMENT + 5, 2 * SEGMENT };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ranges); i++) {
		EXPECT_EQ(-EBUSY, file_punch(fd, ranges[i].offset, ranges[i].bytes));
		if (ranges[i].offset % KPAGE_BYTES == 0) {
			EXPECT_EQ(-EBUSY, range_remove(map + ranges[i].offset, ranges[i].bytes));
		}
	}
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		EXPECT_EQ(-EBUSY, file_resize(fd, sizes[i]));
		EXPECT_EQ(-1, truncate(NAME, sizes[i]));
		EXPECT_EQ(EBUSY, errno);
	}
	EXPECT_EQ(-EBUSY, name_open(NAME, O_RDWR | O_TRUNC));
	EXPECT_EQ(-EBUSY, name_open(NAME, O_WRONLY | O_CREAT | O_TRUNC));
}

TEST_F(holes_pinned, nothing_changes)
{
	unsigned char *copy = anonymous_map(BYTES);
	ino_t inode;
	struct stat st;

	ASSERT_NE(NULL, copy);
	ASSERT_EQ(0, fstat(self->fd, &st));
	inode = st.st_ino;
	hold(self, variant);
	expect_all_busy(_metadata, self->fd, self->map);
	expect_file(self->fd, BYTES, BYTES);
	ASSERT_EQ(0, stat(NAME, &st));
	EXPECT_EQ(inode, st.st_ino);
	EXPECT_EQ(BYTES, pread(self->fd, copy, BYTES, 0));
	EXPECT_EQ(-1, pattern_mismatch(copy, BYTES, 1));
	EXPECT_EQ(-1, pattern_mismatch(self->map, BYTES, 1));
	/* The holder and the mapping have not parted ways. */
	pattern_fill(self->map + HELD, HELD_BYTES, 2);
	seen_by_holder(self, variant, copy);
	EXPECT_EQ(-1, pattern_mismatch(copy, HELD_BYTES, 2));
	let_go(self, variant);
	EXPECT_EQ(0, file_punch(self->fd, 2 * SEGMENT, SEGMENT));
	expect_file(self->fd, BYTES, BYTES - SEGMENT);
	EXPECT_EQ(0, touch_read(self->map + HELD, NULL));
	EXPECT_EQ(-1, nonzero_find(self->map + 2 * SEGMENT, SEGMENT));
	EXPECT_EQ(0, range_remove(self->map, SEGMENT));
	EXPECT_EQ(0, file_resize(self->fd, 2 * SEGMENT));
	expect_file(self->fd, 2 * SEGMENT, SEGMENT);
	close(name_open(NAME, O_RDWR | O_TRUNC));
	expect_file(self->fd, 0, 0);
	munmap(copy, BYTES);
}

/* All other memory of the file goes, and the file becomes longer. */
TEST_F(holes_pinned, rest_of_the_file_goes)
{
	unsigned char copy[HELD_BYTES];

	hold(self, variant);
	EXPECT_EQ(0, file_punch(self->fd, 0, 2 * SEGMENT));
	EXPECT_EQ(0, file_resize(self->fd, 3 * SEGMENT));
	expect_file(self->fd, 3 * SEGMENT, SEGMENT);
	EXPECT_EQ(0, file_resize(self->fd, BYTES + SEGMENT));
	EXPECT_EQ(0, touch_write(self->map, 5));
	expect_file(self->fd, BYTES + SEGMENT, 2 * SEGMENT);
	EXPECT_EQ(-EBUSY, file_resize(self->fd, 0));
	EXPECT_EQ(-1, nonzero_find(self->map + SEGMENT, SEGMENT));
	seen_by_holder(self, variant, copy);
	EXPECT_EQ(0, memcmp(copy, self->map + HELD, HELD_BYTES));
	EXPECT_EQ(pattern_word(1, HELD / 8), *(uint64_t *)copy);
	let_go(self, variant);
	EXPECT_EQ(0, file_resize(self->fd, 0));
	expect_file(self->fd, 0, 0);
}

/* A part of a huge page is zeroed and stays, so it does not go from whoever refers to it. */
TEST_F(holes_pinned, part_of_the_huge_page_is_zeroed)
{
	unsigned char copy[HELD_BYTES];
	uint64_t value = 1;

	if (stat_of(self->fd).small_bytes)
		SKIP(return, "the kernel had no huge page");
	hold(self, variant);
	/* Beside what is held. */
	EXPECT_EQ(0, file_punch(self->fd, 2 * SEGMENT, 5 * SLICE));
	EXPECT_EQ(0, file_punch(self->fd, HELD + HELD_BYTES, SLICE));
	EXPECT_EQ(-1, nonzero_find(self->map + 2 * SEGMENT, 5 * SLICE));
	EXPECT_EQ(-1, nonzero_find(self->map + HELD + HELD_BYTES, SLICE));
	EXPECT_EQ(pattern_word(1, (HELD + 2 * SLICE) / 8),
		  *(uint64_t *)(self->map + HELD + 2 * SLICE));
	/* The first half of what is held, and by a size that is shorter the last quarter. */
	EXPECT_EQ(0, file_punch(self->fd, HELD, HELD_BYTES / 2));
	EXPECT_EQ(0, file_resize(self->fd, HELD + HELD_BYTES * 3 / 4));
	expect_file(self->fd, HELD + HELD_BYTES * 3 / 4, 3 * SEGMENT);
	EXPECT_EQ(0, file_resize(self->fd, BYTES));
	EXPECT_EQ(0, touch_write(self->map + HELD, 0x1234));
	seen_by_holder(self, variant, copy);
	EXPECT_EQ(0, memcmp(copy, self->map + HELD, HELD_BYTES));
	memcpy(&value, copy, 8);
	EXPECT_EQ(0x1234, value);
	EXPECT_EQ(-1, nonzero_find(copy + 8, HELD_BYTES / 2 - 8));
	memcpy(&value, copy + HELD_BYTES / 2, 8);
	EXPECT_EQ(pattern_word(1, (HELD + HELD_BYTES / 2) / 8), value);
	EXPECT_EQ(-1, nonzero_find(copy + HELD_BYTES * 3 / 4, HELD_BYTES / 4));
	let_go(self, variant);
	EXPECT_EQ(0, file_resize(self->fd, 0));
}

/* Whoever takes memory of a mapping touches it. An export does not, and wants memory. */
TEST_F(holes_pinned, memory_of_a_hole)
{
	unsigned char copy[HELD_BYTES];

	EXPECT_EQ(0, file_resize(self->fd, 0));
	EXPECT_EQ(0, file_resize(self->fd, BYTES));
	expect_file(self->fd, BYTES, 0);
	if (variant->how == BY_DMABUF) {
		EXPECT_EQ(-ENOENT, export(self->fd, HELD, HELD_BYTES));
		EXPECT_EQ(0, file_allocate(self->fd, 0, HELD, HELD_BYTES));
		EXPECT_EQ(-ENOENT, export(self->fd, HELD, 2 * SEGMENT));
	}
	hold(self, variant);
	expect_file(self->fd, BYTES, SEGMENT);
	EXPECT_EQ(-EBUSY, file_punch(self->fd, 0, BYTES));
	pattern_fill(self->map + HELD, HELD_BYTES / 2, 6);
	EXPECT_EQ(HELD_BYTES / 2, pwrite(self->fd, self->map, HELD_BYTES / 2,
					 HELD + HELD_BYTES / 2));
	seen_by_holder(self, variant, copy);
	EXPECT_EQ(-1, pattern_mismatch(copy, HELD_BYTES / 2, 6));
	EXPECT_EQ(-1, nonzero_find(copy + HELD_BYTES / 2, HELD_BYTES / 2));
	let_go(self, variant);
	EXPECT_EQ(0, file_punch(self->fd, 0, BYTES));
	expect_file(self->fd, BYTES, 0);
}

/* What is held by more than one goes when the last of them lets go. */
TEST_F(holes_pinned, second_holder)
{
	unsigned char copy[HELD_BYTES];
	int pipe = pipe_with(_metadata, self->map + HELD - SLICE, KPAGE_BYTES);
	int dmabuf = export(self->fd, HELD - 2 * SLICE, SLICE);

	ASSERT_LE(0, dmabuf);
	hold(self, variant);
	seen_by_holder(self, variant, copy);
	if (variant->how == BY_RING)
		EXPECT_EQ(0, io_uring_unregister_buffers(&self->ring));
	close(self->holder);
	self->holder = -1;
	expect_all_busy(_metadata, self->fd, self->map);
	close(pipe);
	expect_all_busy(_metadata, self->fd, self->map);
	close(dmabuf);
	/* A ring lets go a little later. */
	EXPECT_TRUE(wait_for(!file_resize(self->fd, 0), variant->how == BY_RING ? 10000 : 0));
	expect_file(self->fd, 0, 0);
}

/* The name goes, then the file, then the mapping, and the holder still has it. */
TEST_F(holes_pinned, holder_is_the_last)
{
	unsigned char copy[HELD_BYTES];

	hold(self, variant);
	EXPECT_EQ(0, unlink(NAME));
	pattern_fill(self->map + HELD, HELD_BYTES, 3);
	EXPECT_EQ(-EBUSY, file_resize(self->fd, 0));
	close(self->fd);
	EXPECT_EQ(self->before.committed_bytes + BYTES, stat_of(self->device).committed_bytes);
	pattern_fill(self->map + HELD, HELD_BYTES, 4);
	EXPECT_EQ(pattern_word(1, 3 * SEGMENT / 8), *(uint64_t *)(self->map + 3 * SEGMENT));
	/* A ring is asked by the address. */
	if (variant->how == BY_RING)
		seen_by_holder(self, variant, copy);
	munmap(self->map, BYTES);
	EXPECT_TRUE(wait_for(stat_of(self->device).committed_bytes ==
			     self->before.committed_bytes + SEGMENT ||
			     variant->how == BY_DMABUF, 10000));
	EXPECT_LE(self->before.committed_bytes + SEGMENT, stat_of(self->device).committed_bytes);
	if (variant->how != BY_RING)
		seen_by_holder(self, variant, copy);
	EXPECT_EQ(-1, pattern_mismatch(copy, HELD_BYTES, 4));
	/* For the teardown. */
	self->fd = -1;
	self->map = anonymous_map(BYTES);
}

TEST_HARNESS_MAIN
