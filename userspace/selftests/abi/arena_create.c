// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: who may open /dev/xalloc, what an arena is when it was just created, and
 * that it is gone with the last descriptor and mapping.
 */
#include "selftest.h"

#include <sys/syscall.h>

FIXTURE(arena_create)
{
	int device;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(arena_create)
{
	self->device = device_setup(_metadata, &self->before);
}

FIXTURE_TEARDOWN(arena_create)
{
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

TEST_F(arena_create, info)
{
	int arena = arena_create(self->device, XALLOC_SEGMENT_BYTES, 0);
	struct xalloc_ioc_info info, from_arena;

	ASSERT_LE(0, arena);
	memset(&info, 0xff, sizeof(info));
	info.size = sizeof(info);
	info.pad = 0;
	ASSERT_EQ(0, call(self->device, XALLOC_IOC_INFO, &info));
	EXPECT_EQ(sizeof(info), info.size);
	EXPECT_EQ(0, info.pad);
	EXPECT_EQ(XALLOC_ABI_VERSION, info.abi_version);
	EXPECT_EQ(XALLOC_SLICE_BYTES, info.slice_bytes);
	EXPECT_EQ(XALLOC_SEGMENT_BYTES, info.segment_bytes);
	EXPECT_EQ(XALLOC_BATCH_MAX, info.batch_max);
	EXPECT_LE(1ULL << 40, info.arena_bytes_max);
	EXPECT_EQ(0, info.arena_bytes_max % XALLOC_SEGMENT_BYTES);
	EXPECT_EQ(0, info.features & ~XALLOC_FEATURE_PMD);
	EXPECT_EQ(is_thp_kernel(), !!(info.features & XALLOC_FEATURE_PMD));

	ASSERT_EQ(0, info_read(arena, &from_arena));
	EXPECT_EQ(0, memcmp(&info, &from_arena, sizeof(info)));
	close(arena);
}

TEST_F(arena_create, commits_nothing)
{
	int arena = arena_create(self->device, 1ULL << 30, 0);
	struct xalloc_ioc_stat want = self->before, seen;

	ASSERT_LE(0, arena);
	want.arenas++;
	want.clients++;
	counters_expect_now(_metadata, self->device, &want);

	ASSERT_EQ(0, counters_read(arena, &seen));
	EXPECT_EQ(1, seen.arenas);
	EXPECT_EQ(1, seen.clients);
	EXPECT_EQ(0, seen.pages);
	EXPECT_EQ(0, seen.granted_bytes);
	EXPECT_EQ(0, seen.committed_bytes);
	EXPECT_EQ(0, seen.pinned_bytes);
	EXPECT_EQ(0, seen.charged_bytes);

	/* Without a wait: the descriptor was the only one, and nothing pins the arena. */
	close(arena);
	counters_expect_now(_metadata, self->device, &self->before);
}

TEST_F(arena_create, largest_arena)
{
	struct xalloc_page_grant page;
	struct xalloc_ioc_info info;
	int arena;

	ASSERT_EQ(0, info_read(self->device, &info));
	arena = arena_create(self->device, info.arena_bytes_max, 0);
	ASSERT_LE(0, arena);
	EXPECT_EQ(1, grant_page(arena, 1, 0, &page));
	EXPECT_GT(info.arena_bytes_max, page.offset);
	close(arena);
}

TEST_F(arena_create, limit_above_the_arena_means_the_arena)
{
	int arena = arena_create(self->device, 2 * XALLOC_SEGMENT_BYTES,
				 64 * XALLOC_SEGMENT_BYTES);
	int error;

	ASSERT_LE(0, arena);
	EXPECT_EQ(2, grant_segments(arena, 3, &error));
	EXPECT_EQ(-ENOSPC, error);
	close(arena);
	arena = arena_create(self->device, 2 * XALLOC_SEGMENT_BYTES,
			     UINT64_MAX & ~(XALLOC_SEGMENT_BYTES - 1));
	ASSERT_LE(0, arena);
	EXPECT_EQ(2, grant_segments(arena, 3, &error));
	EXPECT_EQ(-ENOSPC, error);
	close(arena);
}

TEST_F(arena_create, ids_are_never_used_again)
{
	enum { ROUNDS = 300, KEEP = 8 };
	static uint64_t arena_ids[ROUNDS], client_ids[ROUNDS];
	int kept[KEEP], i, j, fd;

	for (i = 0; i < ROUNDS; i++) {
		struct xalloc_ioc_arena_create arg = {
			.size = sizeof(arg), .arena_bytes = XALLOC_SEGMENT_BYTES,
		};

		fd = call(self->device, XALLOC_IOC_ARENA_CREATE, &arg);
		ASSERT_LE(0, fd);
		arena_ids[i] = arg.arena_id;
		client_ids[i] = arg.client_id;
		for (j = 0; j < i; j++) {
			ASSERT_NE(arena_ids[j], arg.arena_id);
			ASSERT_NE(client_ids[j], arg.client_id);
		}
		if (i < KEEP)
			kept[i] = fd;
		else
			close(fd);
	}
	for (i = 0; i < KEEP; i++)
		close(kept[i]);
}

TEST_F(arena_create, descriptor_is_close_on_exec)
{
	int arena = arena_create(self->device, XALLOC_SEGMENT_BYTES, 0);
	char script[80];
	pid_t pid;

	ASSERT_LE(0, arena);
	EXPECT_EQ(FD_CLOEXEC, fcntl(arena, F_GETFD));
	snprintf(script, sizeof(script), "[ ! -e /proc/self/fd/%d ]", arena);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		execl("/bin/sh", "sh", "-c", script, NULL);
		_exit(127);
	}
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(1, grant_page(arena, 1, 0, NULL));
	close(arena);
}

TEST_F(arena_create, no_descriptor_left_is_emfile)
{
	struct rlimit saved, tight;
	int lowest, arena;

	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &saved));
	lowest = dup(self->device);
	ASSERT_LE(0, lowest);
	close(lowest);
	tight = saved;
	tight.rlim_cur = lowest;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &tight));
	arena = arena_create(self->device, XALLOC_SEGMENT_BYTES, 0);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &saved));
	EXPECT_EQ(-EMFILE, arena);
	counters_expect_now(_metadata, self->device, &self->before);
}

/* A dup is the same client, XALLOC_IOC_ATTACH makes another one. */
TEST_F(arena_create, clients)
{
	int arena = arena_create(self->device, 8 * MIB, 0);
	struct xalloc_page_grant page;
	struct xalloc_ioc_stat seen;
	int same, other;

	ASSERT_LE(0, arena);
	same = dup(arena);
	ASSERT_EQ(0, counters_read(arena, &seen));
	EXPECT_EQ(1, seen.clients);
	other = attach(arena, 0, NULL);
	ASSERT_LE(0, other);
	ASSERT_EQ(0, counters_read(arena, &seen));
	EXPECT_EQ(2, seen.clients);
	EXPECT_EQ(1, seen.arenas);

	ASSERT_EQ(1, grant_page(arena, 1, 0, &page));
	EXPECT_EQ(-EPERM, free_page(other, page.offset));
	EXPECT_EQ(1, free_page(same, page.offset));

	/* The arena outlives the descriptor that it was created with. */
	close(arena);
	close(same);
	ASSERT_EQ(0, counters_read(other, &seen));
	EXPECT_EQ(1, seen.clients);
	EXPECT_EQ(1, grant_page(other, 1, 0, NULL));
	close(other);
	counters_expect_now(_metadata, self->device, &self->before);
}

TEST_F(arena_create, pages_go_with_their_client)
{
	int arena = arena_create(self->device, 16 * MIB, 0);
	struct xalloc_ioc_stat seen;
	int other;

	ASSERT_LE(0, arena);
	other = attach(arena, 0, NULL);
	ASSERT_LE(0, other);
	ASSERT_EQ(1, grant_page(arena, SEGMENT_SLICES, 0, NULL));
	ASSERT_EQ(1, grant_page(other, 2 * SEGMENT_SLICES, 0, NULL));
	ASSERT_EQ(0, counters_read(arena, &seen));
	EXPECT_EQ(2, seen.pages);
	EXPECT_EQ(3 * XALLOC_SEGMENT_BYTES, seen.committed_bytes);
	close(other);
	ASSERT_EQ(0, counters_read(arena, &seen));
	EXPECT_EQ(1, seen.clients);
	EXPECT_EQ(1, seen.pages);
	EXPECT_EQ(XALLOC_SEGMENT_BYTES, seen.granted_bytes);
	EXPECT_EQ(XALLOC_SEGMENT_BYTES, seen.committed_bytes);
	close(arena);
}

/* A mapping holds the open file description, so the client with its pages lives on. */
TEST_F(arena_create, mapping_keeps_the_client)
{
	int arena = arena_create(self->device, 4 * MIB, 0);
	struct xalloc_page_grant page;
	struct xalloc_ioc_stat seen;
	unsigned char *map;

	ASSERT_LE(0, arena);
	ASSERT_EQ(1, grant_page(arena, 2, 0, &page));
	map = arena_map(arena, 4 * MIB);
	ASSERT_NE(NULL, map);
	pattern_fill(map + page.offset, 2 * XALLOC_SLICE_BYTES, 11);
	close(arena);
	ASSERT_EQ(0, counters_read(self->device, &seen));
	EXPECT_EQ(self->before.arenas + 1, seen.arenas);
	EXPECT_EQ(self->before.clients + 1, seen.clients);
	EXPECT_EQ(self->before.pages + 1, seen.pages);
	EXPECT_EQ(-1, pattern_mismatch(map + page.offset, 2 * XALLOC_SLICE_BYTES, 11));
	munmap(map, 4 * MIB);
	counters_expect_now(_metadata, self->device, &self->before);
}

TEST_F(arena_create, arena_outlives_the_device_descriptor)
{
	int device = device_open();
	int arena;

	ASSERT_LE(0, device);
	arena = arena_create(device, 4 * MIB, 0);
	ASSERT_LE(0, arena);
	close(device);
	EXPECT_EQ(1, grant_page(arena, 1, 0, NULL));
	close(arena);
}

/* What a descriptor says it is: an inode of its own, and the size of the arena. */
TEST_F(arena_create, inode)
{
	int arena = arena_create(self->device, 6 * MIB, 0);
	int other = arena_create(self->device, 4 * MIB, 0);
	struct stat first, second;

	ASSERT_LE(0, arena);
	ASSERT_LE(0, other);
	ASSERT_EQ(0, fstat(arena, &first));
	ASSERT_EQ(0, fstat(other, &second));
	EXPECT_EQ(6 * MIB, first.st_size);
	EXPECT_EQ(4 * MIB, second.st_size);
	EXPECT_FALSE(first.st_dev == second.st_dev && first.st_ino == second.st_ino);
	EXPECT_EQ(0, first.st_mode & 077);
	EXPECT_NE(0, ftruncate(arena, 2 * MIB));
	EXPECT_NE(0, ftruncate(arena, 8 * MIB));
	ASSERT_EQ(0, fstat(arena, &first));
	EXPECT_EQ(6 * MIB, first.st_size);
	close(other);
	close(arena);
}

/* Runs as @uid, member of @gid alone; the negative errno of opening the device. */
static int open_as(uid_t uid, gid_t gid)
{
	pid_t pid = fork();

	if (!pid) {
		int fd;

		if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
			_exit(255);
		fd = device_open();
		_exit(fd < 0 ? -fd : 0);
	}
	return pid < 0 ? -errno : -child_status(pid);
}

TEST_F(arena_create, device_mode)
{
	struct group *group = getgrnam("xalloc");
	struct stat st;

	ASSERT_EQ(0, stat(DEVICE_PATH, &st));
	EXPECT_TRUE(S_ISCHR(st.st_mode));
	EXPECT_EQ(0, st.st_uid);
	EXPECT_EQ(-EACCES, open_as(TEST_UID, TEST_UID));
	if (st.st_mode & 0070) {
		ASSERT_NE(NULL, group) {
			TH_LOG("%s is open to group %u, and there is no group xalloc",
			       DEVICE_PATH, st.st_gid);
		}
		EXPECT_EQ(0660, st.st_mode & 07777);
		EXPECT_EQ(group->gr_gid, st.st_gid);
		EXPECT_EQ(0, open_as(TEST_UID, group->gr_gid));
	} else {
		EXPECT_EQ(0600, st.st_mode & 07777);
		EXPECT_EQ(0, st.st_gid);
	}
}

/* The module cannot be unloaded below a user, whatever it is that he has left of it. */
TEST_F(arena_create, module_in_use_stays_loaded)
{
	int arena = arena_create(self->device, XALLOC_SEGMENT_BYTES, 0);
	unsigned char *map;
	int second;

	ASSERT_LE(0, arena);
	if (access("/sys/module/xalloc/refcnt", F_OK)) {
		close(arena);
		SKIP(return, "xalloc is not a module that can be unloaded here");
	}
	ASSERT_EQ(1, grant_page(arena, 1, 0, NULL));
	map = arena_map(arena, XALLOC_SEGMENT_BYTES);
	ASSERT_NE(NULL, map);
	second = attach(arena, 0, NULL);
	ASSERT_LE(0, second);

	/* The descriptor of the device would hold the module; the fixture opens it again. */
	close(self->device);
	EXPECT_EQ(-1, syscall(SYS_delete_module, "xalloc", O_NONBLOCK));
	close(arena);
	EXPECT_EQ(-1, syscall(SYS_delete_module, "xalloc", O_NONBLOCK));
	munmap(map, XALLOC_SEGMENT_BYTES);
	EXPECT_EQ(-1, syscall(SYS_delete_module, "xalloc", O_NONBLOCK)) {
		TH_LOG("unloaded below a reopened descriptor");
	}
	self->device = device_open();
	close(second);
	ASSERT_LE(0, self->device);
}

TEST_F(arena_create, many_arenas)
{
	enum { NR = 200 };
	static int fds[NR];
	struct xalloc_ioc_stat want = self->before;
	int i;

	for (i = 0; i < NR; i++) {
		fds[i] = arena_create(self->device, 64 * MIB, 0);
		ASSERT_LE(0, fds[i]);
	}
	want.arenas += NR;
	want.clients += NR;
	counters_expect_now(_metadata, self->device, &want);
	for (i = 0; i < NR; i++)
		close(fds[(i * 7) % NR]);
	counters_expect_now(_metadata, self->device, &self->before);
}

TEST_HARNESS_MAIN
