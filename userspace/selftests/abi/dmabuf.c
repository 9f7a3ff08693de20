// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: ranges of an arena as dma-bufs: mapped, pinned, imported by a driver of the kernel,
 * and still there when the page is freed, the exporter killed or the descriptor closed.
 */
#include "events.h"
#include "selftest.h"
#include "sharing.h"

#include <linux/dma-buf.h>
#include <linux/videodev2.h>
#include <sys/prctl.h>
#include <sys/uio.h>

#define ARENA_BYTES (16 * MIB)
#define RANGE_BYTES (2 * MIB)

FIXTURE(dmabuf)
{
	int device;
	int arena;
	unsigned char *map;
	struct xalloc_page_grant page;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(dmabuf)
{
	self->device = device_setup(_metadata, &self->before);
	self->arena = arena_create(self->device, ARENA_BYTES, 0);
	ASSERT_LE(0, self->arena);
	ASSERT_EQ(1, grant_page(self->arena, 2 * SEGMENT_SLICES, 0, &self->page));
	self->map = arena_map(self->arena, ARENA_BYTES);
	ASSERT_NE(NULL, self->map);
}

FIXTURE_TEARDOWN(dmabuf)
{
	munmap(self->map, ARENA_BYTES);
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* The descriptor, or the negative errno. */
static int export(int arena, uint64_t offset, uint64_t bytes)
{
	struct xalloc_ioc_export arg = { .size = sizeof(arg), .offset = offset, .bytes = bytes };

	return call(arena, XALLOC_IOC_EXPORT, &arg);
}

static int sync_dmabuf(int dmabuf, uint64_t flags)
{
	struct dma_buf_sync arg = { .flags = flags };

	return call(dmabuf, DMA_BUF_IOCTL_SYNC, &arg);
}

/* The mapping is one of a file of the arena, of which the call asks for any other range. */
TEST_F(dmabuf, remap_file_pages_reaches_nothing_else)
{
	int dmabuf = export(self->arena, XALLOC_SEGMENT_BYTES, XALLOC_SLICE_BYTES);
	unsigned char *seen = arena_map_at(dmabuf, 0, XALLOC_SLICE_BYTES, PROT_READ | PROT_WRITE);
	uint64_t value = 0;

	ASSERT_NE(NULL, seen);
	pattern_fill(self->map, XALLOC_SLICE_BYTES, 1);
	EXPECT_EQ(0, touch_write(seen, 5));
	EXPECT_EQ(-1, remap_file_pages(seen, XALLOC_SLICE_BYTES, 0, 0, 0));
	if (!touch_read(seen, &value)) {
		EXPECT_EQ(5, value);
	}
	/* Whoever has the arena mapped may. */
	EXPECT_EQ(0, remap_file_pages(self->map, XALLOC_SLICE_BYTES, 0,
				      XALLOC_SEGMENT_BYTES / KPAGE_BYTES, 0));
	EXPECT_EQ(0, touch_read(self->map, &value));
	EXPECT_EQ(5, value);
	munmap(seen, XALLOC_SLICE_BYTES);
	close(dmabuf);
}

/* Before there is any page, and far from the only one. With LONG=1: quick in one of three tries. */
TEST_F(dmabuf, range_without_a_page_in_the_largest_arena)
{
	uint64_t ms = UINT64_MAX, start;
	struct xalloc_ioc_info info;
	int arena, i;

	ASSERT_EQ(0, info_read(self->device, &info));
	for (i = 0; i < 3 && ms >= 1000; i++) {
		start = now_ms();
		arena = arena_create(self->device, info.arena_bytes_max, 0);
		ASSERT_LE(0, arena);
		EXPECT_EQ(-ENOENT, export(arena, info.arena_bytes_max - XALLOC_SLICE_BYTES,
					  XALLOC_SLICE_BYTES));
		ASSERT_EQ(1, grant_page(arena, 1, 0, NULL));
		EXPECT_EQ(-ENOENT, export(arena, info.arena_bytes_max - XALLOC_SLICE_BYTES,
					  XALLOC_SLICE_BYTES));
		ms = now_ms() - start;
		close(arena);
	}
	if (times_are_judged()) {
		EXPECT_GT(1000, ms);
	}
}

TEST_F(dmabuf, is_the_same_memory)
{
	int dmabuf = export(self->arena, XALLOC_SEGMENT_BYTES, RANGE_BYTES), pipes[2];
	unsigned char *seen = range_reserve(RANGE_BYTES, XALLOC_SEGMENT_BYTES), *again;
	struct iovec iov = { .iov_len = RANGE_BYTES }, from;

	ASSERT_LE(0, dmabuf);
	EXPECT_EQ(FD_CLOEXEC, fcntl(dmabuf, F_GETFD));
	EXPECT_EQ(RANGE_BYTES, lseek(dmabuf, 0, SEEK_END));
	ASSERT_NE(MAP_FAILED, mmap(seen, RANGE_BYTES, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_FIXED, dmabuf, 0));
	pattern_fill(self->map + XALLOC_SEGMENT_BYTES, RANGE_BYTES, 1);
	EXPECT_EQ(0, sync_dmabuf(dmabuf, DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW));
	EXPECT_EQ(-1, pattern_mismatch(seen, RANGE_BYTES, 1));
	pattern_fill(seen, RANGE_BYTES, 2);
	EXPECT_EQ(0, sync_dmabuf(dmabuf, DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW));
	EXPECT_EQ(-1, pattern_mismatch(self->map + XALLOC_SEGMENT_BYTES, RANGE_BYTES, 2));
	if (is_thp_kernel()) {
		EXPECT_EQ(RANGE_BYTES / 1024, (size_t)smaps_kb(seen, RANGE_BYTES, "FilePmdMapped"));
	}
	/* It can be pinned, as the arena can. */
	iov.iov_base = malloc(RANGE_BYTES);
	from = (struct iovec){ seen, RANGE_BYTES };
	EXPECT_EQ(RANGE_BYTES, process_vm_readv(getpid(), &iov, 1, &from, 1, 0));
	EXPECT_EQ(-1, pattern_mismatch(iov.iov_base, RANGE_BYTES, 2));
	free(iov.iov_base);
	ASSERT_EQ(0, pipe(pipes));
	from.iov_len = KPAGE_BYTES;
	EXPECT_EQ(KPAGE_BYTES, vmsplice(pipes[1], &from, 1, 0));
	close(pipes[0]);
	close(pipes[1]);
	/* A part of it. */
	again = mmap(NULL, XALLOC_SLICE_BYTES, PROT_READ, MAP_SHARED, dmabuf, MIB);
	ASSERT_NE(MAP_FAILED, (void *)again);
	EXPECT_EQ(0, memcmp(again, seen + MIB, XALLOC_SLICE_BYTES));
	munmap(again, XALLOC_SLICE_BYTES);
	munmap(seen, RANGE_BYTES);
	close(dmabuf);
}

TEST_F(dmabuf, refusals)
{
	int reader = fd_reopen(self->arena, O_RDONLY), other = attach(self->arena, 0, NULL), dmabuf;
	struct xalloc_page_grant page;

	ASSERT_EQ(1, grant_page(other, 1, 0, &page));
	EXPECT_EQ(-EBADF, export(reader, 0, RANGE_BYTES));
	EXPECT_EQ(-EINVAL, export(self->arena, 0, 0));
	EXPECT_EQ(-EINVAL, export(self->arena, 1, XALLOC_SLICE_BYTES));
	EXPECT_EQ(-EINVAL, export(self->arena, 0, XALLOC_SLICE_BYTES - 1));
	EXPECT_EQ(-ERANGE, export(self->arena, ARENA_BYTES, XALLOC_SLICE_BYTES));
	EXPECT_EQ(-ERANGE, export(self->arena, XALLOC_SLICE_BYTES, ARENA_BYTES));
	EXPECT_EQ(-EFBIG, export(self->arena, XALLOC_SLICE_BYTES, -XALLOC_SLICE_BYTES));
	EXPECT_EQ(-EPERM, export(other, 0, RANGE_BYTES));
	EXPECT_EQ(-EPERM, export(self->arena, page.offset, XALLOC_SLICE_BYTES));
	EXPECT_EQ(-ENOENT, export(self->arena, 8 * MIB, XALLOC_SLICE_BYTES));
	EXPECT_EQ(-ENOENT, export(other, page.offset, 2 * XALLOC_SLICE_BYTES));
	dmabuf = export(self->arena, 0, XALLOC_SLICE_BYTES);
	ASSERT_LE(0, dmabuf);
	EXPECT_EQ(-EINVAL, mmap_error(2 * XALLOC_SLICE_BYTES, PROT_READ, MAP_SHARED, dmabuf, 0));
	EXPECT_EQ(-EINVAL, mmap_error(XALLOC_SLICE_BYTES, PROT_READ, MAP_PRIVATE, dmabuf, 0));
	EXPECT_EQ(-EPERM, mmap_error(XALLOC_SLICE_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, dmabuf,
				     0));
	close(dmabuf);
	close(other);
	close(reader);
}

/* Freed, but neither granted to others nor changed until the dma-buf and its mapping are gone. */
TEST_F(dmabuf, exported_memory_stays_when_it_is_freed)
{
	int dmabuf = export(self->arena, XALLOC_SLICE_BYTES, RANGE_BYTES), i;
	struct xalloc_page_grant page;
	unsigned char *seen;

	ASSERT_LE(0, dmabuf);
	seen = arena_map_at(dmabuf, 0, RANGE_BYTES, PROT_READ | PROT_WRITE);
	ASSERT_NE(NULL, seen);
	pattern_fill(seen, RANGE_BYTES, 3);
	EXPECT_EQ(1, free_page(self->arena, self->page.offset));
	EXPECT_EQ(-ENOENT, free_page(self->arena, self->page.offset));
	EXPECT_EQ(2 * XALLOC_SEGMENT_BYTES, stat_of(self->arena).exported_bytes);
	for (i = 0; grant_page(self->arena, 1, 0, &page) == 1; i++)
		EXPECT_LE(2 * XALLOC_SEGMENT_BYTES, page.offset);
	EXPECT_EQ(ARENA_BYTES / XALLOC_SLICE_BYTES - 2 * SEGMENT_SLICES, (size_t)i);
	EXPECT_EQ(-1, pattern_mismatch(seen, RANGE_BYTES, 3));
	/* The mapping alone holds it, too. */
	close(dmabuf);
	EXPECT_EQ(2 * XALLOC_SEGMENT_BYTES, stat_of(self->arena).exported_bytes);
	EXPECT_EQ(-ENOSPC, grant_page(self->arena, 1, 0, NULL));
	EXPECT_EQ(-1, pattern_mismatch(seen, RANGE_BYTES, 3));
	munmap(seen, RANGE_BYTES);
	for (i = 0; i < 100 && stat_of(self->arena).exported_bytes; i++)
		sleep_ms(10);
	EXPECT_EQ(0, stat_of(self->arena).exported_bytes);
	EXPECT_EQ(1, grant_page(self->arena, 2 * SEGMENT_SLICES, 0, NULL));
}

/* A child with an arena of its own exports two ranges to us, and is killed. */
static bool export_and_die(int device, int dmabufs[2], uint64_t seed)
{
	int socks[2], arena, i;
	unsigned char *map;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, socks))
		return false;
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		arena = arena_create(device, ARENA_BYTES, 0);
		map = arena_map(arena, ARENA_BYTES);
		require(map && grant_page(arena, 2 * SEGMENT_SLICES, 0, NULL) == 1);
		pattern_fill(map, 2 * RANGE_BYTES, seed);
		for (i = 0; i < 2; i++)
			fd_send(socks[1], export(arena, i * RANGE_BYTES, RANGE_BYTES));
		pause();
	}
	for (i = 0; i < 2; i++)
		dmabufs[i] = fd_receive(socks[0]);
	kill(pid, SIGKILL);
	close(socks[0]);
	close(socks[1]);
	return child_status(pid) == 256 + SIGKILL && dmabufs[0] >= 0 && dmabufs[1] >= 0;
}

TEST_F(dmabuf, exporter_may_die)
{
	unsigned char *seen;
	int dmabufs[2];

	ASSERT_TRUE(export_and_die(self->device, dmabufs, 4));
	EXPECT_EQ(self->before.arenas + 2, stat_of(self->device).arenas);
	seen = arena_map_at(dmabufs[0], 0, RANGE_BYTES, PROT_READ);
	ASSERT_NE(NULL, seen);
	EXPECT_EQ(-1, pattern_mismatch(seen, RANGE_BYTES, 4));
	munmap(seen, RANGE_BYTES);
	close(dmabufs[0]);
	close(dmabufs[1]);
}

/* vivid, a camera of the kernel's own: its pictures are still ones without the text in them. */

#define PICTURE_BYTES (640 * 360 * 2)

/* By the n_devs that the module is loaded with: 0 writes by the CPU, 1 wants DMA addresses, too. */
enum { BY_CPU, BY_DMA, NR_CAMERAS };

static int camera_open(int which)
{
	static const char *const modprobe[] = {
		"modprobe", "vivid", "n_devs=2", "node_types=0x1,0x1", "num_inputs=1,1",
		"input_types=0,0", "allocators=0,1", NULL
	};
	struct v4l2_format format = {
		.type = V4L2_BUF_TYPE_VIDEO_CAPTURE,
		.fmt.pix = {
			.width = 640, .height = 360,
			.pixelformat = V4L2_PIX_FMT_YUYV, .field = V4L2_FIELD_NONE,
		},
	};
	struct v4l2_queryctrl query = { .id = V4L2_CTRL_FLAG_NEXT_CTRL };
	struct v4l2_control no_text = {};
	struct v4l2_capability cap;
	char path[32];
	int fd, i;

	program_run(modprobe);
	for (i = 0; i < 16; i++) {
		snprintf(path, sizeof(path), "/dev/video%d", i);
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd >= 0 && !ioctl(fd, VIDIOC_QUERYCAP, &cap) &&
		    !strcmp((char *)cap.driver, "vivid") && !which--)
			break;
		close(fd);
		fd = -1;
	}
	if (fd < 0)
		return -1;
	for (; !ioctl(fd, VIDIOC_QUERYCTRL, &query); query.id |= V4L2_CTRL_FLAG_NEXT_CTRL)
		if (!strcmp((char *)query.name, "OSD Text Mode"))
			no_text = (struct v4l2_control){ query.id, query.maximum };
	if (!no_text.id || ioctl(fd, VIDIOC_S_CTRL, &no_text) ||
	    ioctl(fd, VIDIOC_S_FMT, &format) || format.fmt.pix.sizeimage != PICTURE_BYTES) {
		close(fd);
		return -1;
	}
	return fd;
}

/* One picture, into the first of two dma-bufs, or, without these, to memory of the driver's. */
static int take_picture(int camera, const int *dmabufs, unsigned char *copy)
{
	uint32_t memory = dmabufs ? V4L2_MEMORY_DMABUF : V4L2_MEMORY_MMAP;
	struct v4l2_requestbuffers request = {
		.count = 2, .type = V4L2_BUF_TYPE_VIDEO_CAPTURE, .memory = memory,
	};
	int type = V4L2_BUF_TYPE_VIDEO_CAPTURE, err = 0, i;
	struct v4l2_buffer buffer;
	void *map;

	if (ioctl(camera, VIDIOC_REQBUFS, &request) || request.count != 2)
		return -errno;
	for (i = 0; i < 2 && !err; i++) {
		buffer = (struct v4l2_buffer){ .index = i, .type = type, .memory = memory };
		if (dmabufs)
			buffer.m.fd = dmabufs[i];
		if (ioctl(camera, VIDIOC_QBUF, &buffer))
			err = -errno;
	}
	if (!err && ioctl(camera, VIDIOC_STREAMON, &type))
		err = -errno;
	buffer = (struct v4l2_buffer){ .type = type, .memory = memory };
	for (i = 0; i < 2 && !err; i++)
		if (ioctl(camera, VIDIOC_DQBUF, &buffer))
			err = -errno;
	if (!err && !dmabufs) {
		if (ioctl(camera, VIDIOC_QUERYBUF, &buffer))
			err = -errno;
		map = mmap(NULL, buffer.length, PROT_READ, MAP_SHARED, camera, buffer.m.offset);
		memcpy(copy, map, PICTURE_BYTES);
		munmap(map, buffer.length);
	}
	ioctl(camera, VIDIOC_STREAMOFF, &type);
	request.count = 0;
	ioctl(camera, VIDIOC_REQBUFS, &request);
	return err;
}

static void expect_pictures(struct __test_metadata *_metadata, int which, int device, int arena,
			    unsigned char *map, const uint64_t offsets[2])
{
	static unsigned char want[PICTURE_BYTES];
	int camera = camera_open(which), dmabufs[2], dead[2], i;
	unsigned char *seen;

	if (camera < 0)
		SKIP(return, "this kernel has no module vivid");
	ASSERT_EQ(0, take_picture(camera, NULL, want));
	ASSERT_NE(-1, nonzero_find(want, PICTURE_BYTES));
	for (i = 0; i < 2; i++) {
		dmabufs[i] = export(arena, offsets[i], MIB);
		ASSERT_LE(0, dmabufs[i]);
	}
	memset(map, 0x5a, 2 * XALLOC_SEGMENT_BYTES);
	ASSERT_EQ(0, take_picture(camera, dmabufs, NULL));
	for (i = 0; i < 2; i++) {
		seen = map + offsets[i];
		EXPECT_EQ(0, memcmp(seen, want, PICTURE_BYTES));
		/* And nowhere else. */
		EXPECT_EQ(0x5a, seen[PICTURE_BYTES]);
		EXPECT_EQ(0x5a, seen[-1]);
		close(dmabufs[i]);
	}

	/* The same when whoever exported it is dead. */
	ASSERT_TRUE(export_and_die(device, dead, 5));
	ASSERT_EQ(0, take_picture(camera, dead, NULL));
	for (i = 0; i < 2; i++) {
		seen = arena_map_at(dead[i], 0, RANGE_BYTES, PROT_READ);
		ASSERT_NE(NULL, seen);
		EXPECT_EQ(0, memcmp(seen, want, PICTURE_BYTES));
		munmap(seen, RANGE_BYTES);
		close(dead[i]);
	}
	close(camera);
}

/* By vmap; the first range crosses from one segment into the next. */
TEST_F(dmabuf, camera_takes_pictures_by_the_cpu)
{
	const uint64_t offsets[2] = { 2 * MIB - 2 * XALLOC_SLICE_BYTES, 3 * MIB };

	expect_pictures(_metadata, BY_CPU, self->device, self->arena, self->map, offsets);
}

/* With an attachment that is mapped; such a device takes contiguous memory alone. */
TEST_F(dmabuf, camera_takes_pictures_by_dma)
{
	const uint64_t offsets[2] = { XALLOC_SLICE_BYTES, 2 * MIB };

	expect_pictures(_metadata, BY_DMA, self->device, self->arena, self->map, offsets);
}

/* 1 MiB of one segment is one entry for a device that takes that, and not one for each slice. */
TEST_F(dmabuf, device_has_long_entries)
{
	int camera = camera_open(BY_DMA), dmabufs[2], all, single, i;

	if (camera < 0)
		SKIP(return, "this kernel has no module vivid");
	/* Of struct sg_table: orig_nents. */
	if (!probe_make("mapped", "dma_map_sgtable", "entries=+12($arg2):u32"))
		SKIP(goto out, "this kernel has no probes");
	all = events_open("xalloc/mapped", NULL);
	ASSERT_LE(0, all);
	single = events_open("xalloc/mapped", "entries == 1");
	ASSERT_LE(0, single);
	for (i = 0; i < 2; i++) {
		dmabufs[i] = export(self->arena, i * XALLOC_SEGMENT_BYTES, MIB);
		ASSERT_LE(0, dmabufs[i]);
	}
	ASSERT_EQ(0, take_picture(camera, dmabufs, NULL));
	EXPECT_EQ(2, events_read(single));
	EXPECT_EQ(2, events_read(all));
	for (i = 0; i < 2; i++)
		close(dmabufs[i]);
	close(single);
	close(all);
	probe_remove("mapped");
out:
	close(camera);
}

/* With a descriptor of a dma-buf and nothing else of the module open. */
TEST_F(dmabuf, export_keeps_the_module)
{
	int dmabufs[2];

	ASSERT_TRUE(export_and_die(self->device, dmabufs, 6));
	close(dmabufs[1]);
	EXPECT_LT(0, read_number("/sys/module/xalloc/refcnt"));
	close(dmabufs[0]);
}

TEST_HARNESS_MAIN
