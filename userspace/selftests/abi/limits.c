// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: who pays for memory and what stops him: RLIMIT_MEMLOCK of an ordinary user,
 * who is fixed as the payer when the arena is made; the module's limits for a user and for all.
 */
#include "selftest.h"
#include "sharing.h"

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define MEMLOCK_BYTES (8 * MIB)
#define MEMLOCK_SEGMENTS ((int)(MEMLOCK_BYTES / XALLOC_SEGMENT_BYTES))
#define ARENA_BYTES (64 * MIB)

/* One more user, as TEST_UID. */
#define TEST_UID_OTHER 54322

FIXTURE(limits)
{
	int device;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(limits)
{
	self->device = device_setup(_metadata, &self->before);
}

FIXTURE_TEARDOWN(limits)
{
	/* Also after a test that gave up half way. */
	write_text(PARAMETER("user_limit_mb"), "0");
	write_text(PARAMETER("share_mb"), "0");
	total_restore();
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

static void limit_set(rlim_t now, rlim_t most)
{
	struct rlimit limit = { now, most };

	if (setrlimit(RLIMIT_MEMLOCK, &limit))
		_exit(201);
}

/*
 * Becomes a user without privileges, a member of the group xalloc where there is one. The
 * process stays dumpable, so that /proc/self/fd is its own and only the arena refuses.
 */
static void user_become(uid_t uid)
{
	struct group *group = getgrnam("xalloc");
	gid_t gid = group ? group->gr_gid : (gid_t)uid;

	if (setgroups(1, &gid) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
		_exit(202);
	prctl(PR_SET_DUMPABLE, 1);
}

/* Runs @body as TEST_UID with 8 MiB of RLIMIT_MEMLOCK; 0 where all that it required was so. */
static int as_user(void (*body)(int device), int device)
{
	pid_t pid = fork();

	if (!pid) {
		limit_set(MEMLOCK_BYTES, MEMLOCK_BYTES);
		user_become(TEST_UID);
		body(device);
		_exit(0);
	}
	return pid < 0 ? -errno : child_status(pid);
}

static uint64_t charged_bytes(int fd)
{
	struct xalloc_ioc_stat seen;

	require(!counters_read(fd, &seen));
	return seen.charged_bytes;
}

static int arena_new(int device)
{
	int arena = arena_create(device, ARENA_BYTES, 0);

	require(arena >= 0);
	return arena;
}

static void four_segments(int device)
{
	int arena = arena_new(device), error;

	require(charged_bytes(arena) == 0);
	require(grant_segments(arena, 100, &error) == MEMLOCK_SEGMENTS);
	require(error == -ENOBUFS);
	require(charged_bytes(arena) == MEMLOCK_BYTES);
	/* Not one slice more, and nothing left behind of the attempts. */
	require(grant_page(arena, 1, 0, NULL) == -ENOBUFS);
	require(grant_page(arena, 2 * SEGMENT_SLICES, 0, NULL) == -ENOBUFS);
	require(charged_bytes(arena) == MEMLOCK_BYTES);
}

TEST_F(limits, eight_mib_are_four_segments)
{
	EXPECT_EQ(0, as_user(four_segments, self->device));
}

static void by_the_group(int device)
{
	int own = device_open(), error;

	(void)device;
	require(own >= 0);
	require(grant_segments(arena_new(own), 100, &error) == MEMLOCK_SEGMENTS);
	require(error == -ENOBUFS);
}

TEST_F(limits, user_of_the_group_opens_the_device)
{
	struct group *group = getgrnam("xalloc");
	struct stat st;

	ASSERT_EQ(0, stat(DEVICE_PATH, &st));
	if (!group || st.st_gid != group->gr_gid)
		SKIP(return, "%s does not belong to a group xalloc here", DEVICE_PATH);
	EXPECT_EQ(0, as_user(by_the_group, self->device));
}

static void one_large_page(int device)
{
	int arena = arena_new(device);

	require(grant_page(arena, MEMLOCK_SEGMENTS * SEGMENT_SLICES + 1, 0, NULL) == -ENOBUFS);
	require(charged_bytes(arena) == 0);
	require(grant_page(arena, MEMLOCK_SEGMENTS * SEGMENT_SLICES, 0, NULL) == 1);
	require(charged_bytes(arena) == MEMLOCK_BYTES);
}

TEST_F(limits, one_large_page_is_charged_whole_or_not_at_all)
{
	EXPECT_EQ(0, as_user(one_large_page, self->device));
}

static void batch_over_the_limit(int device)
{
	struct xalloc_page_grant pages[8];
	int arena = arena_new(device), i;

	memset(pages, 0, sizeof(pages));
	for (i = 0; i < 8; i++)
		pages[i].nr_slices = SEGMENT_SLICES;
	require(grant_batch(arena, pages, 8) == MEMLOCK_SEGMENTS);
	require(grant_batch(arena, pages + MEMLOCK_SEGMENTS, 4) == -ENOBUFS);
}

TEST_F(limits, batch_stops_at_the_limit)
{
	EXPECT_EQ(0, as_user(batch_over_the_limit, self->device));
}

static void free_releases(int device)
{
	int arena = arena_new(device), error, other, round;
	struct xalloc_page_grant page;

	for (round = 0; round < 3; round++) {
		require(grant_segments(arena, 100, &error) == MEMLOCK_SEGMENTS);
		require(free_page(arena, 0) == 1);
		require(charged_bytes(arena) == MEMLOCK_BYTES - XALLOC_SEGMENT_BYTES);
		require(grant_page(arena, SEGMENT_SLICES, 0, &page) == 1);
		require(grant_page(arena, 1, 0, NULL) == -ENOBUFS);
		/* Closing gives all of it back, to any arena of the user. */
		close(arena);
		other = arena_new(device);
		require(grant_segments(other, 100, &error) == MEMLOCK_SEGMENTS);
		require(error == -ENOBUFS);
		close(other);
		arena = arena_new(device);
	}
	require(charged_bytes(device) == 0);
}

TEST_F(limits, free_and_close_release_the_charge)
{
	ASSERT_EQ(0, self->before.charged_bytes);
	EXPECT_EQ(0, as_user(free_releases, self->device));
}

static void summed_over_arenas(int device)
{
	int first = arena_new(device), second = arena_new(device), error;
	pid_t pid;

	require(grant_segments(first, 1, &error) == 1);
	require(grant_segments(second, 100, &error) == MEMLOCK_SEGMENTS - 1);
	require(error == -ENOBUFS);
	require(grant_page(first, SEGMENT_SLICES, 0, NULL) == -ENOBUFS);
	require(charged_bytes(device) == MEMLOCK_BYTES);
	/* And over the processes of the user. */
	pid = fork();
	if (!pid) {
		require(grant_page(arena_new(device), 1, 0, NULL) == -ENOBUFS);
		_exit(0);
	}
	require(child_status(pid) == 0);
}

TEST_F(limits, summed_over_arenas_and_processes_of_the_user)
{
	ASSERT_EQ(0, self->before.charged_bytes);
	EXPECT_EQ(0, as_user(summed_over_arenas, self->device));
}

TEST_F(limits, other_user_has_a_limit_of_its_own)
{
	int full[2], done[2], error;
	char byte;
	pid_t pid;

	ASSERT_EQ(0, pipe(full));
	ASSERT_EQ(0, pipe(done));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		int arena;

		close(done[1]);
		limit_set(MEMLOCK_BYTES, MEMLOCK_BYTES);
		user_become(TEST_UID_OTHER);
		arena = arena_new(self->device);
		require(grant_segments(arena, 100, &error) == MEMLOCK_SEGMENTS);
		require(write(full[1], "", 1) == 1);
		require(read(done[0], &byte, 1) == 0);
		_exit(0);
	}
	close(full[1]);
	close(done[0]);
	ASSERT_EQ(1, read(full[0], &byte, 1));
	EXPECT_EQ(0, as_user(four_segments, self->device));
	close(done[1]);
	EXPECT_EQ(0, child_status(pid));
	close(full[0]);
}

/* Whoever commits, the creator pays: another user through the same descriptor, and root. */
TEST_F(limits, creator_pays_for_all)
{
	int ready[2], done[2], arena, error, theirs;
	pid_t pid;
	char byte;

	ASSERT_EQ(0, pipe(ready));
	ASSERT_EQ(0, pipe(done));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(done[1]);
		limit_set(MEMLOCK_BYTES, MEMLOCK_BYTES);
		user_become(TEST_UID);
		arena = arena_new(self->device);
		require(write(ready[1], &arena, sizeof(arena)) == sizeof(arena));
		require(read(done[0], &byte, 1) == 0);
		/* Three for root, whom the limit does not bind; one for the creator. */
		require(grant_segments(arena, 100, &error) == MEMLOCK_SEGMENTS - 3);
		require(error == -ENOBUFS);
		require(charged_bytes(arena) == MEMLOCK_BYTES);
		_exit(0);
	}
	close(ready[1]);
	close(done[0]);
	ASSERT_EQ(sizeof(arena), read(ready[0], &arena, sizeof(arena)));
	/* Root, with CAP_IPC_LOCK, as a second client of the user's arena. */
	arena = syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, pid, 0), arena, 0);
	theirs = attach(arena, 0, NULL);
	ASSERT_LE(0, theirs);
	close(arena);
	EXPECT_EQ(3, grant_segments(theirs, 3, &error));
	EXPECT_EQ(3 * XALLOC_SEGMENT_BYTES, charged_bytes(theirs));
	close(done[1]);
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(1, grant_segments(theirs, 100, &error)) {
		TH_LOG("root commits %d in an arena of a user with 8 MiB", error);
	}
	EXPECT_EQ(-ENOBUFS, error);
	close(theirs);
	close(ready[0]);
}

static void passed_on(int device)
{
	int arena = arena_new(device), error;

	require(grant_segments(arena, 100, &error) == MEMLOCK_SEGMENTS);
	require(charged_bytes(device) == MEMLOCK_BYTES);
	close(arena);
}

/* The descriptor goes to another user by fork: what he commits is charged to the first. */
TEST_F(limits, descriptor_of_another_user)
{
	int status, error;
	pid_t pid;

	ASSERT_EQ(0, self->before.charged_bytes);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		int arena;

		/* Real and effective user differ: the arena is made by TEST_UID. */
		limit_set(MEMLOCK_BYTES, MEMLOCK_BYTES);
		require(!setresuid(TEST_UID, TEST_UID, 0));
		arena = arena_new(self->device);
		require(!setresuid(0, 0, 0));
		user_become(TEST_UID_OTHER);
		require(grant_segments(arena, 100, &error) == MEMLOCK_SEGMENTS);
		require(error == -ENOBUFS);
		require(charged_bytes(arena) == MEMLOCK_BYTES);
		/* His own limit is untouched. */
		require(grant_segments(arena_new(self->device), 100, &error) == MEMLOCK_SEGMENTS);
		require(error == -ENOBUFS);
		require(charged_bytes(self->device) == 2 * MEMLOCK_BYTES);
		_exit(0);
	}
	status = child_status(pid);
	EXPECT_EQ(0, status);
	EXPECT_EQ(0, as_user(passed_on, self->device));
}

TEST_F(limits, root_is_exempt)
{
	struct rlimit saved, none = { 0, 0 };
	int arena, error;

	ASSERT_EQ(0, getrlimit(RLIMIT_MEMLOCK, &saved));
	none.rlim_max = saved.rlim_max;
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &none));
	arena = arena_create(self->device, ARENA_BYTES, 0);
	ASSERT_LE(0, arena);
	EXPECT_EQ(8, grant_segments(arena, 8, &error));
	EXPECT_EQ(0, charged_bytes(arena));
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &saved));
	close(arena);
}

/* The verdict falls at creation: who gives his privileges up keeps an exempt arena. */
TEST_F(limits, exemption_is_fixed_at_creation)
{
	int arena, error;
	pid_t pid;

	arena = arena_create(self->device, ARENA_BYTES, 0);
	ASSERT_LE(0, arena);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		limit_set(0, 0);
		user_become(TEST_UID);
		require(grant_segments(arena, 6, &error) == 6);
		require(charged_bytes(arena) == 0);
		/* An arena of his own he may have, but nothing in it. */
		require(grant_page(arena_new(self->device), 1, 0, NULL) == -ENOBUFS);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
	close(arena);
}

TEST_F(limits, limit_is_noted_at_creation)
{
	struct xalloc_page_grant page;
	int error, first, second;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		limit_set(MEMLOCK_BYTES, 2 * MEMLOCK_BYTES);
		user_become(TEST_UID);
		first = arena_new(self->device);
		limit_set(2 * MEMLOCK_BYTES, 2 * MEMLOCK_BYTES);
		require(grant_segments(first, 100, &error) == MEMLOCK_SEGMENTS);
		require(error == -ENOBUFS);
		second = arena_new(self->device);
		require(grant_segments(second, 100, &error) == MEMLOCK_SEGMENTS);
		require(error == -ENOBUFS);
		/* The sum is above what the first has noted, and at what the second has. */
		require(free_page(second, 0) == 1);
		require(grant_page(first, SEGMENT_SLICES, 0, NULL) == -ENOBUFS);
		require(grant_page(second, SEGMENT_SLICES, 0, &page) == 1);
		/* Lowered, it binds the arenas that come. */
		limit_set(MEMLOCK_BYTES, 2 * MEMLOCK_BYTES);
		require(free_page(second, page.offset) == 1);
		require(grant_page(second, SEGMENT_SLICES, 0, NULL) == 1);
		require(grant_page(arena_new(self->device), 1, 0, NULL) == -ENOBUFS);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
}

TEST_F(limits, unlimited_is_unlimited)
{
	int error;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		limit_set(RLIM_INFINITY, RLIM_INFINITY);
		user_become(TEST_UID);
		require(grant_segments(arena_new(self->device), 32, &error) == 32);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
}

static void reopen_own(int device)
{
	int arena = arena_new(device), again = fd_reopen(arena, O_RDONLY);

	require(again >= 0);
	require(stat_of(again).clients == 2);
	require(grant_page(again, 1, 0, NULL) == -EBADF);
}

/* Each way to another descriptor, by a user who may write in the arena but does not own it. */
TEST_F(limits, only_the_owner_sets_the_limit)
{
	const char *path = NAMES "/limits";
	int arena = arena_create(self->device, ARENA_BYTES, 2 * XALLOC_SEGMENT_BYTES);
	int named;
	pid_t pid;

	/* An earlier run may have given up half way. */
	unlink(path);
	named = name_create(path, ARENA_BYTES);
	ASSERT_LE(0, arena);
	ASSERT_LE(0, named);
	EXPECT_EQ(0, arena_limit(named, 2 * XALLOC_SEGMENT_BYTES));
	EXPECT_EQ(0, fchmod(named, 0666));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		int again;

		user_become(TEST_UID);
		again = attach(arena, 0, NULL);
		require(again >= 0);
		require(arena_limit(arena, ARENA_BYTES) == -EPERM);
		require(arena_limit(again, ARENA_BYTES) == -EPERM);
		require(arena_limit(again, XALLOC_SEGMENT_BYTES) == -EPERM);
		require(arena_limit(named, ARENA_BYTES) == -EPERM);
		require(grant_page(again, 2 * SEGMENT_SLICES, 0, NULL) == 1);
		require(grant_page(again, 1, 0, NULL) == -EDQUOT);
		require(arena_limit(arena_new(self->device), XALLOC_SEGMENT_BYTES) == 0);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
	/* The owner of a name is the owner of its file. */
	EXPECT_EQ(0, fchown(named, TEST_UID, -1));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		user_become(TEST_UID);
		require(arena_limit(named, ARENA_BYTES) == 0);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(0, unlink(path));
	close(named);
	close(arena);
}

TEST_F(limits, creator_may_reopen)
{
	EXPECT_EQ(0, as_user(reopen_own, self->device));
}

/* A descriptor that was passed on can be used, but not be opened again by /proc. */
TEST_F(limits, other_user_may_not_reopen)
{
	int arena = arena_create(self->device, ARENA_BYTES, 0);
	pid_t pid;

	ASSERT_LE(0, arena);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		user_become(TEST_UID);
		require(grant_page(arena, 1, 0, NULL) == 1);
		require(fd_reopen(arena, O_RDWR) == -EACCES);
		require(fd_reopen(arena, O_RDONLY) == -EACCES);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
	close(arena);
}

/* Death of a user's process gives his budget back. */
TEST_F(limits, death_releases_the_charge)
{
	int ready[2], error, round;
	char byte;

	ASSERT_EQ(0, self->before.charged_bytes);
	for (round = 0; round < 5; round++) {
		pid_t pid;

		ASSERT_EQ(0, pipe(ready));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			unsigned char *map;
			int arena;

			limit_set(MEMLOCK_BYTES, MEMLOCK_BYTES);
			user_become(TEST_UID);
			arena = arena_new(self->device);
			require(grant_segments(arena, 100, &error) == MEMLOCK_SEGMENTS);
			map = arena_map(arena, ARENA_BYTES);
			require(map && !touch_write(map, 1));
			require(write(ready[1], "", 1) == 1);
			pause();
		}
		close(ready[1]);
		ASSERT_EQ(1, read(ready[0], &byte, 1));
		EXPECT_EQ(MEMLOCK_BYTES, charged_bytes(self->device));
		kill(pid, SIGKILL);
		EXPECT_EQ(256 + SIGKILL, child_status(pid));
		EXPECT_EQ(0, charged_bytes(self->device));
		close(ready[0]);
	}
}

/* The same account as the kernel's own: what is pinned stays charged until it is let go. */
TEST_F(limits, pinned_stays_charged)
{
	int ends[2], error;
	pid_t pid;

	ASSERT_EQ(0, self->before.charged_bytes);
	ASSERT_EQ(0, pipe(ends));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		unsigned char *map;
		struct iovec iov;
		int arena;

		limit_set(MEMLOCK_BYTES, MEMLOCK_BYTES);
		user_become(TEST_UID);
		arena = arena_new(self->device);
		require(grant_segments(arena, 100, &error) == MEMLOCK_SEGMENTS);
		map = arena_map(arena, ARENA_BYTES);
		require(map);
		require(!touch_write(map, 1));
		iov = (struct iovec){ map, KPAGE_BYTES };
		require(vmsplice(ends[1], &iov, 1, 0) == KPAGE_BYTES);
		munmap(map, ARENA_BYTES);
		close(arena);
		require(charged_bytes(self->device) == XALLOC_SEGMENT_BYTES);
		require(grant_segments(arena_new(self->device), 100, &error) ==
			MEMLOCK_SEGMENTS - 1);
		require(error == -ENOBUFS);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(XALLOC_SEGMENT_BYTES, charged_bytes(self->device));
	close(ends[0]);
	close(ends[1]);
	EXPECT_TRUE(counters_wait(self->device, &self->before, 10000));
	EXPECT_EQ(0, as_user(four_segments, self->device));
}

/* Each turn leaves a piece of memory in a pipe and drops all else, by another way each time. */
static void pin_and_run(int device)
{
	int ends[100][2], nr, arena = -1, rc = 1;
	struct xalloc_page_grant page;
	unsigned char *map;

	for (nr = 0; nr < 100; nr++) {
		struct iovec iov;

		if (arena < 0 || nr % 3 == 0)
			arena = arena_new(device);
		rc = grant_page(arena, SEGMENT_SLICES, 0, &page);
		/* What was freed before may be granted again, and is pinned once more. */
		if (rc < 0)
			break;
		map = arena_map_at(arena, page.offset, XALLOC_SEGMENT_BYTES,
				   PROT_READ | PROT_WRITE);
		require(map && !touch_write(map, 1));
		require(!pipe(ends[nr]));
		iov = (struct iovec){ map, KPAGE_BYTES };
		require(vmsplice(ends[nr][1], &iov, 1, 0) == KPAGE_BYTES);
		munmap(map, XALLOC_SEGMENT_BYTES);
		require(charged_bytes(device) <= MEMLOCK_BYTES);
		if (nr % 3 == 0) {
			require(free_page(arena, page.offset) == 1);
		} else if (nr % 3 == 2) {
			close(arena);
			arena = -1;
		}
	}
	require(rc == -ENOBUFS);
	require(charged_bytes(device) == MEMLOCK_BYTES);
	/* Nor by asking again. */
	sleep_ms(300);
	require(grant_page(arena_new(device), 1, 0, NULL) == -ENOBUFS);
}

TEST_F(limits, pinning_does_not_escape)
{
	ASSERT_EQ(0, self->before.charged_bytes);
	EXPECT_EQ(0, as_user(pin_and_run, self->device));
	EXPECT_TRUE(counters_wait(self->device, &self->before, 10000));
}

/* With the module's limit of 6 MiB and 8 MiB of RLIMIT_MEMLOCK. */
static void three_segments(int device)
{
	int arena = arena_new(device), other = arena_new(device), error;
	struct xalloc_page_grant page;

	require(grant_segments(arena, 100, &error) == 3);
	require(error == -EUSERS);
	require(charged_bytes(arena) == 6 * MIB);
	require(grant_segments(other, 100, &error) == 0);
	require(error == -EUSERS);
	require(free_page(arena, 0) == 1);
	require(grant_page(other, SEGMENT_SLICES, 0, &page) == 1);
	require(free_page(other, page.offset) == 1);
}

TEST_F(limits, user_limit_is_in_the_place_of_memlock)
{
	ASSERT_TRUE(write_text(PARAMETER("user_limit_mb"), "6"));
	EXPECT_EQ(0, as_user(three_segments, self->device));
	/* Of each user, and of none who has left. */
	EXPECT_EQ(0, as_user(three_segments, self->device));
	ASSERT_TRUE(write_text(PARAMETER("user_limit_mb"), "0"));
	EXPECT_EQ(0, as_user(four_segments, self->device));
}

static void memlock_is_left(int device)
{
	int arena = arena_new(device), error;

	require(grant_segments(arena, 100, &error) == 16);
	require(error == -EUSERS);
	/* Whoever locks memory else has all of RLIMIT_MEMLOCK. */
	require(mlock(malloc(7 * MIB), 7 * MIB) == 0);
}

TEST_F(limits, user_limit_may_be_above_memlock)
{
	ASSERT_TRUE(write_text(PARAMETER("user_limit_mb"), "32"));
	EXPECT_EQ(0, as_user(memlock_is_left, self->device));
}

/* An arena keeps the account it was made with, and its limit. */
TEST_F(limits, user_limit_is_noted_at_creation)
{
	int made[2], go[2], arena, error;
	char byte;
	pid_t pid;

	ASSERT_EQ(0, pipe(made));
	ASSERT_EQ(0, pipe(go));
	ASSERT_TRUE(write_text(PARAMETER("user_limit_mb"), "4"));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(go[1]);
		user_become(TEST_UID);
		arena = arena_new(self->device);
		require(write(made[1], "", 1) == 1);
		require(read(go[0], &byte, 1) == 0);
		require(grant_segments(arena, 100, &error) == 2);
		require(error == -EUSERS);
		_exit(0);
	}
	close(go[0]);
	ASSERT_EQ(1, read(made[0], &byte, 1));
	ASSERT_TRUE(write_text(PARAMETER("user_limit_mb"), "0"));
	close(go[1]);
	EXPECT_EQ(0, child_status(pid));
	close(made[0]);
	close(made[1]);
}

static void three_of_the_users_share(int device)
{
	int arena, error;

	arena = arena_new(device);
	require(grant_segments(arena, 100, &error) == 3);
	require(error == -EUSERS);
}

/* Each payer may have a share, root too. It is that of the moment. */
TEST_F(limits, share_is_of_each_payer)
{
	int one = arena_create(self->device, 64 * MIB, 0), error;
	int two = arena_create(self->device, 64 * MIB, 0);

	ASSERT_TRUE(write_text(PARAMETER("share_mb"), "6"));
	EXPECT_EQ(2, grant_segments(one, 2, &error));
	EXPECT_EQ(1, grant_segments(two, 10, &error));
	EXPECT_EQ(-EUSERS, error);
	EXPECT_EQ(0, as_user(three_of_the_users_share, self->device));
	ASSERT_TRUE(write_text(PARAMETER("share_mb"), "8"));
	EXPECT_EQ(1, grant_segments(two, 10, &error));
	EXPECT_EQ(-EUSERS, error);
	/* Less than there is refuses all that is new, and takes nothing away. */
	ASSERT_TRUE(write_text(PARAMETER("share_mb"), "2"));
	EXPECT_EQ(1, free_page(one, 0));
	EXPECT_EQ(0, grant_segments(one, 10, &error));
	EXPECT_EQ(-EUSERS, error);
	EXPECT_EQ(3 * XALLOC_SEGMENT_BYTES,
		  stat_of(one).committed_bytes + stat_of(two).committed_bytes);
	close(two);
	close(one);
}

/* Also of root, who is exempt from all else. */
TEST_F(limits, total_is_of_all_arenas)
{
	int one = arena_create(self->device, 64 * MIB, 0), error;
	int two = arena_create(self->device, 64 * MIB, 0);
	struct xalloc_page_grant page;

	ASSERT_TRUE(write_text(PARAMETER("total_mb"), "20"));
	EXPECT_EQ(7, grant_segments(one, 7, &error));
	EXPECT_EQ(3, grant_segments(two, 100, &error));
	EXPECT_EQ(-ENOSR, error);
	EXPECT_EQ(-ENOSR, grant_page(one, 1, 0, NULL));
	/* What is not had stays uncharged. */
	EXPECT_EQ(-ENOSR, grant_page(one, 40, 0, NULL));
	EXPECT_EQ(1, free_page(one, 0));
	EXPECT_EQ(1, grant_page(two, 32, 0, &page));
	EXPECT_EQ(-ENOSR, grant_page(one, 1, 0, NULL));
	close(two);
	EXPECT_EQ(1, grant_page(one, 4 * SEGMENT_SLICES, 0, NULL));
	EXPECT_EQ(-ENOSR, grant_page(one, SEGMENT_SLICES, 0, NULL));
	close(one);
}

TEST_HARNESS_MAIN
