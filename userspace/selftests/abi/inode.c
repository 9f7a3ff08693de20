// SPDX-License-Identifier: GPL-2.0-only
/*
 * The inode of an arena, as whoever opened it may reach it through the VFS.
 */
#include "selftest.h"

#include <sys/inotify.h>
#include <sys/stat.h>

FIXTURE(inode)
{
	int device;
	int arena;
	char path[64];
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(inode)
{
	self->device = device_open();
	ASSERT_LE(0, self->device);
	ASSERT_EQ(0, counters_read(self->device, &self->before));
	self->arena = arena_create(self->device, XALLOC_SEGMENT_BYTES, 0);
	ASSERT_LE(0, self->arena);
	snprintf(self->path, sizeof(self->path), "/proc/self/fd/%d", self->arena);
}

FIXTURE_TEARDOWN(inode)
{
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/*
 * Description: an inotify watch holds the inode. When the last arena was closed, the end
 * of the file system waited for ever for a watch that it could not find, with the caller
 * of close() unkillable.
 */
TEST_F(inode, last_close_ends_the_watches)
{
	union {
		struct inotify_event event;
		char bytes[4096];
	} buffer;
	const struct inotify_event *event;
	int inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), watch;
	uint32_t seen = 0;
	ssize_t n, at;

	ASSERT_LE(0, inotify);
	watch = inotify_add_watch(inotify, self->path, IN_ALL_EVENTS);
	ASSERT_LE(0, watch);
	ASSERT_EQ(0, close(self->arena));
	self->arena = -1;
	n = read(inotify, &buffer, sizeof(buffer));
	ASSERT_LT(0, n);
	for (at = 0; at < n; at += sizeof(*event) + event->len) {
		event = (const void *)(buffer.bytes + at);
		seen |= event->mask;
	}
	EXPECT_TRUE(seen & IN_UNMOUNT);
	EXPECT_TRUE(seen & IN_IGNORED);
	EXPECT_EQ(-1, inotify_rm_watch(inotify, watch));
	close(inotify);
}

/*
 * Description: fchmod() could make an arena executable, and the kernel warns when
 * something is executed that is no regular file.
 */
TEST_F(inode, attributes_cannot_be_changed)
{
	struct stat before, after;

	ASSERT_EQ(0, fstat(self->arena, &before));
	EXPECT_EQ(-1, fchmod(self->arena, 0700));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(-1, fchown(self->arena, 1, 1));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(-1, chmod(self->path, 0700));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(-1, ftruncate(self->arena, 0));
	ASSERT_EQ(0, fstat(self->arena, &after));
	EXPECT_EQ(before.st_mode, after.st_mode);
	EXPECT_EQ(before.st_uid, after.st_uid);
	EXPECT_EQ(before.st_size, after.st_size);
}

TEST_HARNESS_MAIN
