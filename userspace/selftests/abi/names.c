// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: arenas with names: how one comes to be in a file, who may open it, what outlives
 * whom, and what is refused.
 */
#include "selftest.h"
#include "sharing.h"

#include <limits.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>

#define ARENA_BYTES (16 * MIB)
#define NAME NAMES "/names-test"
#define OTHER NAMES "/names-test-other"

FIXTURE(names)
{
	int device;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(names)
{
	self->device = device_setup(_metadata, &self->before);
	ASSERT_EQ(0, access(NAMES, W_OK)) {
		TH_LOG("no xallocfs at " NAMES ": 'make load' and scripts/vm mount it");
	}
	unlink(NAME);
	unlink(OTHER);
}

FIXTURE_TEARDOWN(names)
{
	unlink(NAME);
	unlink(OTHER);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

static off_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) ? -errno : st.st_size;
}

/* Memory that is committed for a file: what du and ls -s show. */
static long long committed_of(const char *path)
{
	struct stat st;

	return stat(path, &st) ? -errno : st.st_blocks * 512LL;
}

TEST_F(names, arena_is_created_in_an_empty_file)
{
	int fd = open(NAME, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
	struct xalloc_ioc_arena_create create = {
		.size = sizeof(create),
		.arena_bytes = ARENA_BYTES,
	};
	struct xalloc_ioc_info info;
	int other;

	ASSERT_LE(0, fd);
	EXPECT_EQ(0, size_of(NAME));
	EXPECT_EQ(0, stat_of(fd).committed_bytes);
	EXPECT_EQ(-EOPNOTSUPP, grant_page(fd, 1, 0, NULL));
	EXPECT_EQ(-EOPNOTSUPP, free_page(fd, 0));
	EXPECT_EQ(-ENOTTY, call(fd, _IO(XALLOC_IOC_MAGIC, 0xff), &info));
	EXPECT_EQ(0, info_read(fd, &info));
	EXPECT_EQ(XALLOC_ABI_VERSION, info.abi_version);
	other = name_open(NAME, O_RDWR);
	ASSERT_LE(0, other);

	/* What is refused leaves it empty. */
	EXPECT_EQ(-EOPNOTSUPP, family_create(fd, ARENA_BYTES, 0));
	EXPECT_EQ(-EINVAL, arena_create(fd, ARENA_BYTES + 1, 0));
	EXPECT_EQ(-EFAULT, call(fd, XALLOC_IOC_ARENA_CREATE, NULL));
	EXPECT_EQ(0, size_of(NAME));
	EXPECT_EQ(0, call(fd, XALLOC_IOC_ARENA_CREATE, &create));
	EXPECT_NE(0, create.arena_id);
	EXPECT_NE(0, create.client_id);
	EXPECT_EQ(-EEXIST, arena_create(fd, ARENA_BYTES, 0));
	EXPECT_EQ(ARENA_BYTES, size_of(NAME));
	EXPECT_EQ(1, grant_page(fd, 1, 0, NULL));
	/* Whoever opened the empty file has the arena, too. */
	EXPECT_EQ(-EEXIST, arena_create(other, ARENA_BYTES, 0));
	EXPECT_EQ(2, stat_of(other).clients);
	EXPECT_EQ(-EPERM, free_page(other, 0));
	close(other);
	close(fd);
}

/* Nor after it was empty again, while somebody refers to what it had. */
TEST_F(names, no_arena_is_created_in_a_file_with_bytes)
{
	int fd = open(NAME, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, 1));
	EXPECT_EQ(-EEXIST, arena_create(fd, ARENA_BYTES, 0));
	ASSERT_EQ(1, write(fd, "x", 1));
	EXPECT_EQ(-EEXIST, arena_create(fd, ARENA_BYTES, 0));
	ASSERT_EQ(0, ftruncate(fd, 0));
	EXPECT_EQ(0, arena_create(fd, ARENA_BYTES, 0));
	EXPECT_EQ(ARENA_BYTES, size_of(NAME));
	EXPECT_EQ(1, grant_page(fd, 1, 0, NULL));
	close(fd);
}

TEST_F(names, reader_of_an_empty_file_creates_nothing)
{
	int fd = open(NAME, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	ASSERT_LE(0, fd);
	EXPECT_EQ(-EBADF, arena_create(fd, ARENA_BYTES, 0));
	EXPECT_EQ(0, size_of(NAME));
	close(fd);
}

/* A structure that can be read and not written: nobody would know of the arena. */
TEST_F(names, creator_who_cannot_be_told_creates_nothing)
{
	struct xalloc_ioc_arena_create *create = mmap(NULL, KPAGE_BYTES, PROT_READ | PROT_WRITE,
						      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = open(NAME, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	ASSERT_LE(0, fd);
	create->size = sizeof(*create);
	create->arena_bytes = ARENA_BYTES;
	ASSERT_EQ(0, mprotect(create, KPAGE_BYTES, PROT_READ));
	EXPECT_EQ(-EFAULT, call(fd, XALLOC_IOC_ARENA_CREATE, create));
	EXPECT_EQ(0, size_of(NAME));
	EXPECT_EQ(-EOPNOTSUPP, grant_page(fd, 1, 0, NULL));
	EXPECT_EQ(0, arena_create(fd, ARENA_BYTES, 0));
	close(fd);
	munmap(create, KPAGE_BYTES);
}

/* One creator alone, however many try. */
TEST_F(names, of_many_who_create_one_succeeds)
{
	int round, i;

	for (round = 0; round < 15; round++) {
		int won = 0;
		pid_t pids[4];

		for (i = 0; i < 4; i++) {
			pids[i] = fork();
			ASSERT_LE(0, pids[i]);
			if (!pids[i]) {
				int fd = open(NAME, O_RDWR | O_CREAT, 0600);

				require(fd >= 0);
				_exit(arena_create(fd, ARENA_BYTES, 0) ? 1 : 0);
			}
		}
		for (i = 0; i < 4; i++)
			won += child_status(pids[i]) == 0;
		EXPECT_EQ(1, won);
		EXPECT_EQ(ARENA_BYTES, size_of(NAME));
		EXPECT_EQ(0, unlink(NAME));
	}
}

TEST_F(names, arena_outlives_its_processes)
{
	struct xalloc_page_info pages[4];
	uint64_t offset;
	unsigned char *map;
	pid_t pid;
	int fd;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		fd = name_create_flags(NAME, ARENA_BYTES, XALLOC_ARENA_PERSIST);
		map = arena_map(fd, ARENA_BYTES);
		require(map);
		require(grant_tagged(fd, 40, 0, 111, &offset) == 1);
		pattern_fill(map + offset, 40 * XALLOC_SLICE_BYTES, 1);
		require(grant_tagged(fd, 3, 0, 222, &offset) == 1);
		require(free_page(fd, offset) == 1);
		require(grant_tagged(fd, 1, 0, 333, &offset) == 1);
		pattern_fill(map + offset, XALLOC_SLICE_BYTES, 3);
		raise(SIGKILL);
	}
	EXPECT_EQ(256 + SIGKILL, child_status(pid));
	EXPECT_EQ(self->before.arenas + 1, stat_of(self->device).arenas);
	EXPECT_EQ(self->before.clients, stat_of(self->device).clients);
	EXPECT_EQ(self->before.pages + 2, stat_of(self->device).pages);
	fd = name_open(NAME, O_RDWR);
	ASSERT_LE(0, fd);
	map = arena_map(fd, ARENA_BYTES);
	ASSERT_NE(NULL, map);
	ASSERT_EQ(2, list_all(fd, XALLOC_LIST_ORPHANS, pages, 4));
	EXPECT_EQ(111, pages[0].tag);
	EXPECT_EQ(333, pages[1].tag);
	EXPECT_EQ(-1, pattern_mismatch(map + pages[0].offset, 40 * XALLOC_SLICE_BYTES, 1));
	EXPECT_EQ(-1, pattern_mismatch(map + pages[1].offset, XALLOC_SLICE_BYTES, 3));
	EXPECT_EQ(1, claim(fd, pages[0].offset));
	EXPECT_EQ(1, free_page(fd, pages[1].offset));
	munmap(map, ARENA_BYTES);
	close(fd);
	/* A claimed page stays, too. */
	fd = name_open(NAME, O_RDONLY);
	EXPECT_EQ(1, list_all(fd, 0, pages, 4));
	close(fd);
}

TEST_F(names, arena_outlives_its_name)
{
	int fd = name_create_flags(NAME, ARENA_BYTES, XALLOC_ARENA_PERSIST), other;
	unsigned char *map = arena_map(fd, ARENA_BYTES);

	ASSERT_NE(NULL, map);
	ASSERT_EQ(1, grant_page(fd, SEGMENT_SLICES, 0, NULL));
	pattern_fill(map, XALLOC_SEGMENT_BYTES, 8);
	ASSERT_EQ(0, unlink(NAME));
	EXPECT_EQ(-ENOENT, name_open(NAME, O_RDWR));
	/* Another of the same name is another. */
	other = name_create(NAME, ARENA_BYTES);
	ASSERT_LE(0, other);
	EXPECT_EQ(0, stat_of(other).pages);
	close(other);
	other = attach(fd, 0, NULL);
	close(fd);
	EXPECT_EQ(1, stat_of(other).pages);
	close(other);
	EXPECT_EQ(-1, pattern_mismatch(map, XALLOC_SEGMENT_BYTES, 8));
	munmap(map, ARENA_BYTES);
	EXPECT_EQ(self->before.committed_bytes, stat_of(self->device).committed_bytes);
}

TEST_F(names, reader_maps_for_reading)
{
	int fd = name_create(NAME, ARENA_BYTES), reader = name_open(NAME, O_RDONLY);
	unsigned char *map;

	ASSERT_LE(0, fd);
	ASSERT_LE(0, reader);
	ASSERT_EQ(1, grant_page(fd, 1, 0, NULL));
	EXPECT_EQ(-EACCES, mmap_error(ARENA_BYTES, PROT_WRITE, MAP_SHARED, reader, 0));
	map = arena_map_at(reader, 0, ARENA_BYTES, PROT_READ);
	ASSERT_NE(NULL, map);
	EXPECT_EQ(-1, mprotect(map, ARENA_BYTES, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, touch_read(map, NULL));
	EXPECT_EQ(-EBADF, grant_page(reader, 1, 0, NULL));
	EXPECT_EQ(-EBADF, attach(reader, 0, NULL));
	munmap(map, ARENA_BYTES);
	close(reader);
	close(fd);
}

TEST_F(names, size_is_the_arenas)
{
	int fd = name_create(NAME, ARENA_BYTES);

	ASSERT_LE(0, fd);
	EXPECT_EQ(-1, ftruncate(fd, 0));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-1, truncate(NAME, 2 * ARENA_BYTES));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-EPERM, name_open(NAME, O_RDWR | O_TRUNC));
	EXPECT_EQ(ARENA_BYTES, size_of(NAME));
	EXPECT_EQ(-EPERM, mmap_error(ARENA_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0));
	EXPECT_EQ(0, fchmod(fd, 0777));
	EXPECT_EQ(-1, execl(NAME, NAME, NULL));
	EXPECT_EQ(EACCES, errno);
	close(fd);
}

TEST_F(names, blocks_are_the_committed_memory)
{
	int fd = open(NAME, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct xalloc_page_grant small, large;
	struct stat st;

	ASSERT_LE(0, fd);
	EXPECT_EQ(0, committed_of(NAME));
	ASSERT_EQ(0, arena_create_flags(fd, ARENA_BYTES, 0, XALLOC_ARENA_PERSIST));
	EXPECT_EQ(0, committed_of(NAME));
	ASSERT_EQ(1, grant_page(fd, 1, 0, &small));
	EXPECT_EQ(stat_of(fd).committed_bytes, committed_of(NAME));
	EXPECT_EQ(2 * MIB, committed_of(NAME));
	ASSERT_EQ(1, grant_page(fd, 3 * SEGMENT_SLICES, 0, &large));
	EXPECT_EQ(stat_of(fd).committed_bytes, committed_of(NAME));
	EXPECT_EQ(8 * MIB, committed_of(NAME));
	/* By the descriptor too, and the size stays the arena's. */
	ASSERT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(8 * MIB / 512, st.st_blocks);
	EXPECT_EQ(ARENA_BYTES, st.st_size);
	close(fd);
	EXPECT_EQ(8 * MIB, committed_of(NAME));
	fd = name_open(NAME, O_RDWR);
	EXPECT_EQ(1, free_page(fd, large.offset));
	EXPECT_EQ(1, free_page(fd, small.offset));
	EXPECT_EQ(0, arena_trim(fd, 0, NULL));
	EXPECT_EQ(0, committed_of(NAME));
	close(fd);
}

TEST_F(names, names_are_those_of_a_file_system)
{
	char longest[256], path[300];
	int fd = name_create(NAME, ARENA_BYTES), other;
	struct xalloc_ioc_stat stat;

	ASSERT_LE(0, fd);
	EXPECT_EQ(-EEXIST, name_create(NAME, ARENA_BYTES));
	EXPECT_EQ(0, rename(NAME, OTHER));
	EXPECT_EQ(0, link(OTHER, NAME));
	EXPECT_EQ(0, unlink(OTHER));
	EXPECT_EQ(0, mkdir(OTHER, 0700));
	EXPECT_EQ(-1, rmdir(NAMES "/nothing"));
	EXPECT_EQ(0, rename(NAME, OTHER "/inside"));
	EXPECT_EQ(-1, rmdir(OTHER));
	EXPECT_EQ(ENOTEMPTY, errno);
	other = name_open(OTHER "/inside", O_RDWR);
	EXPECT_EQ(2, stat_of(other).clients);
	close(other);
	/* Replaced by another, it lives on behind its descriptor. */
	other = name_create(NAME, ARENA_BYTES);
	ASSERT_EQ(1, grant_page(fd, 1, 0, NULL));
	EXPECT_EQ(0, rename(NAME, OTHER "/inside"));
	EXPECT_EQ(1, stat_of(fd).pages);
	close(other);
	close(fd);
	EXPECT_EQ(0, unlink(OTHER "/inside"));
	EXPECT_EQ(0, rmdir(OTHER));
	EXPECT_EQ(0, counters_read(self->device, &stat));
	EXPECT_EQ(self->before.arenas, stat.arenas);

	memset(longest, 'x', sizeof(longest));
	longest[255] = 0;
	snprintf(path, sizeof(path), NAMES "/%s", longest);
	fd = name_create(path, ARENA_BYTES);
	EXPECT_LE(0, fd);
	close(fd);
	EXPECT_EQ(0, unlink(path));
	snprintf(path, sizeof(path), NAMES "/%sx", longest);
	EXPECT_EQ(-ENAMETOOLONG, name_create(path, ARENA_BYTES));
	fd = name_create(NAMES "/\n\x01\xff", ARENA_BYTES);
	EXPECT_LE(0, fd);
	close(fd);
	EXPECT_EQ(0, unlink(NAMES "/\n\x01\xff"));
}

TEST_F(names, symbolic_link_leads_to_its_target)
{
	char target[PATH_MAX], seen[PATH_MAX];
	struct stat st;
	int fd;

	fd = name_create(NAME, ARENA_BYTES);
	ASSERT_LE(0, fd);
	/* By a path from the link's directory, and by a link to that link. */
	ASSERT_EQ(0, symlink(strrchr(NAME, '/') + 1, OTHER));
	ASSERT_EQ(0, symlink(OTHER, NAMES "/third"));
	close(fd);
	fd = name_open(NAMES "/third", O_RDWR);
	ASSERT_LE(0, fd);
	EXPECT_EQ(1, grant_page(fd, 1, 0, NULL));
	close(fd);
	ASSERT_EQ(0, lstat(OTHER, &st));
	EXPECT_TRUE(S_ISLNK(st.st_mode));
	EXPECT_EQ((off_t)strlen(strrchr(NAME, '/') + 1), st.st_size);
	EXPECT_EQ(st.st_size, readlink(OTHER, seen, sizeof(seen)));
	EXPECT_EQ(0, strncmp(seen, strrchr(NAME, '/') + 1, st.st_size));
	/* A link lives without its target, and without a place to lead to. */
	EXPECT_EQ(0, rename(OTHER, NAMES "/moved"));
	EXPECT_EQ(-ENOENT, name_open(NAMES "/third", O_RDWR));
	EXPECT_EQ(0, unlink(NAME));
	EXPECT_EQ(-ENOENT, name_open(NAMES "/moved", O_RDWR));
	EXPECT_EQ(0, unlink(NAMES "/moved"));
	EXPECT_EQ(0, unlink(NAMES "/third"));
	/* The longest target that a path can have. */
	memset(target, 'x', sizeof(target));
	target[sizeof(target) - 1] = 0;
	ASSERT_EQ(0, symlink(target, OTHER));
	EXPECT_EQ((ssize_t)strlen(target), readlink(OTHER, seen, sizeof(seen)));
	EXPECT_EQ(0, memcmp(target, seen, strlen(target)));
	EXPECT_EQ(0, unlink(OTHER));
}

TEST_F(names, file_without_a_name_is_given_one)
{
	int fd = open(NAMES, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), other;
	char path[40];

	ASSERT_LE(0, fd);
	EXPECT_EQ(0, arena_create_flags(fd, ARENA_BYTES, 0, XALLOC_ARENA_PERSIST));
	EXPECT_EQ(1, grant_page(fd, 5, 0, NULL));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	EXPECT_EQ(0, linkat(AT_FDCWD, path, AT_FDCWD, NAME, AT_SYMLINK_FOLLOW));
	close(fd);
	other = name_open(NAME, O_RDWR);
	EXPECT_EQ(1, stat_of(other).pages);
	close(other);
	/* And one that is given none is gone. */
	fd = open(NAMES, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	EXPECT_EQ(0, arena_create(fd, ARENA_BYTES, 0));
	close(fd);
	EXPECT_EQ(self->before.arenas + 1, stat_of(self->device).arenas);
}

/* What @body makes of it as TEST_UID, in the group of the test's own alone. */
#define as_stranger(...) in_child({					\
	require(!setgroups(0, NULL));					\
	require(!setgid(TEST_UID) && !setuid(TEST_UID));		\
	__VA_ARGS__;							\
})

TEST_F(names, modes_and_owners_decide)
{
	int fd = name_create(NAME, ARENA_BYTES);
	struct stat root;

	ASSERT_LE(0, fd);
	/* The group of the directory may not look into it otherwise. */
	ASSERT_EQ(0, stat(NAMES, &root));
	EXPECT_EQ(0, as_stranger(require(name_open(NAME, O_RDWR) == -EACCES)));
	ASSERT_EQ(0, chmod(NAMES, 01777));
	EXPECT_EQ(0, as_stranger({
		require(name_open(NAME, O_RDWR) == -EACCES);
		require(name_open(NAME, O_RDONLY) == -EACCES);
		require(unlink(NAME) == -1);
	}));
	ASSERT_EQ(0, fchmod(fd, 0644));
	EXPECT_EQ(0, as_stranger({
		require(name_open(NAME, O_RDWR) == -EACCES);
		require(name_open(NAME, O_RDONLY) >= 0);
	}));
	ASSERT_EQ(0, fchown(fd, TEST_UID, TEST_UID));
	EXPECT_EQ(0, as_stranger({
		int own = name_open(NAME, O_RDWR);

		require(own >= 0 && grant_page(own, 1, 0, NULL) == 1);
		require(!chmod(NAME, 0600) && !unlink(NAME));
		/* A file of the user's own, and an arena that the user pays for. */
		own = name_create(NAME, ARENA_BYTES);
		require(own >= 0);
	}));
	EXPECT_EQ(0, unlink(NAME));
	ASSERT_EQ(0, chmod(NAMES, root.st_mode & 07777));
	close(fd);
}

/* Who names an arena pays for what others commit in it, and no more than that one may. */
TEST_F(names, creator_pays_whoever_opens)
{
	struct stat root;
	int fd, error;

	ASSERT_EQ(0, stat(NAMES, &root));
	ASSERT_EQ(0, chmod(NAMES, 01777));
	EXPECT_EQ(0, as_stranger({
		struct rlimit memlock = { 8 * MIB, 8 * MIB };

		require(!setrlimit(RLIMIT_MEMLOCK, &memlock));
		require(name_create(NAME, ARENA_BYTES) >= 0);
		require(name_create_flags(OTHER, ARENA_BYTES, XALLOC_ARENA_PERSIST) >= 0);
	}));
	fd = name_open(NAME, O_RDWR);
	ASSERT_LE(0, fd);
	EXPECT_EQ(3, grant_segments(fd, 3, &error));
	close(fd);
	/* Pages of a client that is gone are charged no more, except in an arena that persists. */
	fd = name_open(OTHER, O_RDWR);
	EXPECT_EQ(1, grant_page(fd, 3 * SEGMENT_SLICES, 0, NULL));
	close(fd);
	fd = name_open(NAME, O_RDWR);
	EXPECT_EQ(1, grant_segments(fd, 4, &error));
	EXPECT_EQ(-ENOBUFS, error);
	close(fd);
	EXPECT_EQ(self->before.charged_bytes + 6 * MIB, stat_of(self->device).charged_bytes);
	ASSERT_EQ(0, chmod(NAMES, root.st_mode & 07777));
}

#define MOUNT_POINT "/tmp/xalloc-names-test"

/* Mounts with fd=@fd, or without that option if @fd is -1. Returns 0 or the negative errno. */
static int mount_by(int fd)
{
	char option[32] = "";

	if (fd != -1)
		snprintf(option, sizeof(option), "fd=%d", fd);
	return mount("none", MOUNT_POINT, "xallocfs", 0, option) ? -errno : 0;
}

/* As a user who is root in a user namespace of their own, and may lock 8 MiB. */
static void mount_in_namespace(int device)
{
	struct rlimit limit = { 8 * MIB, 8 * MIB };
	int reader = fd_reopen(device, O_RDONLY), fd;
	char ids[32];

	require(reader >= 0);
	require(!setrlimit(RLIMIT_MEMLOCK, &limit));
	require(!setresgid(TEST_UID, TEST_UID, TEST_UID));
	require(!setresuid(TEST_UID, TEST_UID, TEST_UID) && !prctl(PR_SET_DUMPABLE, 1));
	require(!unshare(CLONE_NEWUSER | CLONE_NEWNS));
	require(write_text("/proc/self/setgroups", "deny"));
	snprintf(ids, sizeof(ids), "0 %d 1", TEST_UID);
	require(write_text("/proc/self/gid_map", ids) && write_text("/proc/self/uid_map", ids));
	require(!getuid());

	require(mount_by(-1) == -EPERM);
	require(mount_by(1000) == -EINVAL);
	require(mount_by(open("/dev/null", O_RDWR | O_CLOEXEC)) == -EINVAL);
	require(mount_by(reader) == -EINVAL);
	require(!mount_by(device));
	fd = open(MOUNT_POINT "/file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	require(fd >= 0 && write(fd, "abc", 3) == 3);
	require(!ftruncate(fd, 64 * MIB));
	/* Root of the namespace has no privilege outside: the user's limit holds. */
	require(fallocate(fd, 0, 0, 64 * MIB) == -1 && errno == EDQUOT);
	require(stat_of(fd).charged_bytes <= 8 * MIB && stat_of(fd).charged_bytes);
	close(fd);
	require(!umount(MOUNT_POINT));
}

TEST_F(names, user_namespace_mounts_by_the_device)
{
	pid_t pid;

	ASSERT_TRUE(!mkdir(MOUNT_POINT, 0777) || errno == EEXIST);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		mount_in_namespace(self->device);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(0, rmdir(MOUNT_POINT));
}

TEST_HARNESS_MAIN
