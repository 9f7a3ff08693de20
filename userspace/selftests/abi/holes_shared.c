// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: files of xallocfs that are used as files, as programs do it: processes that write,
 * wait for each other and die, numpy's way to map a file, who pays, and the same calls on tmpfs.
 */
#define MAP_BYTES (10 * MIB)
#include "holes_fixture.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

#define OTHER NAMES "/holes-test-other"

/* For a child: a mapping of its own, by the name of the file. */
static unsigned char *map_anew(void)
{
	unsigned char *map = arena_map(name_open(NAME, O_RDWR), MAP_BYTES);

	require(map);
	return map;
}

/* Two processes touch the same holes in opposite orders, and each writes words of its own. */
TEST_F(holes, two_processes_write)
{
	size_t nr = MAP_BYTES / 512, i;
	pid_t pid;

	ASSERT_EQ(0, file_resize(self->fd, MAP_BYTES));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		unsigned char *map = map_anew();

		for (i = nr; i--;)
			*(volatile uint64_t *)(map + i * 512) = i + 1;
		_exit(0);
	}
	for (i = 0; i < nr; i++)
		*(volatile uint64_t *)(self->map + i * 512 + 8) = ~i;
	EXPECT_EQ(0, child_status(pid));
	for (i = 0; i < nr; i++) {
		ASSERT_EQ(i + 1, *(uint64_t *)(self->map + i * 512));
		ASSERT_EQ(~i, *(uint64_t *)(self->map + i * 512 + 8));
	}
	expect_file(self->fd, MAP_BYTES, MAP_BYTES);
}

/* What two processes use to wait for each other. It lies in the file. */
struct meeting {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	sem_t to_child;
	sem_t to_parent;
	pthread_mutex_t left;	/* by a process that is dead */
	volatile unsigned long turn;
	volatile bool is_left;
};

enum { NR_TURNS = 300 };

static void mutex_make(pthread_mutex_t *mutex)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(mutex, &attr);
}

static void meeting_make(struct meeting *meeting)
{
	pthread_condattr_t attr;

	mutex_make(&meeting->mutex);
	mutex_make(&meeting->left);
	pthread_condattr_init(&attr);
	pthread_condattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_cond_init(&meeting->cond, &attr);
	sem_init(&meeting->to_child, 1, 0);
	sem_init(&meeting->to_parent, 1, 0);
}

/* The turns are taken one by one, by two processes, one of which has the odd ones. */
static bool take_turns(struct meeting *meeting, bool is_odd)
{
	int nr = turns(NR_TURNS), i, rc = 0;

	for (i = 0; i < nr && !rc; i++) {
		rc = pthread_mutex_lock(&meeting->mutex);
		while (!rc && meeting->turn % 2 != is_odd)
			rc = pthread_cond_wait(&meeting->cond, &meeting->mutex);
		meeting->turn++;
		rc = rc ?: pthread_cond_signal(&meeting->cond);
		rc = rc ?: pthread_mutex_unlock(&meeting->mutex);
	}
	for (i = 0; i < nr && !rc; i++) {
		if (is_odd)
			rc = sem_wait(&meeting->to_child) ?: sem_post(&meeting->to_parent);
		else
			rc = sem_post(&meeting->to_child) ?: sem_wait(&meeting->to_parent);
	}
	return !rc;
}

/* The word of a mutex says whether somebody waits for it in the kernel. */
static bool has_waiter(const pthread_mutex_t *mutex)
{
	return *(volatile uint32_t *)&mutex->__data.__lock & FUTEX_WAITERS;
}

TEST_F(holes, processes_wait_for_each_other)
{
	/* At the end of the file, in a segment of its own. */
	const off_t at = 2 * SEGMENT + KPAGE_BYTES - sizeof(struct meeting) / 64 * 64 - 64;
	struct meeting *meeting = (struct meeting *)(self->map + at);
	pid_t pid;

	if (!is_thp_kernel())
		SKIP(return, "the memory is outside of the page cache of this kernel");
	ASSERT_EQ(0, file_resize(self->fd, at + sizeof(*meeting)));
	meeting_make(meeting);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		meeting = (struct meeting *)(map_anew() + at);
		require(take_turns(meeting, true));
		require(!pthread_mutex_lock(&meeting->left));
		meeting->is_left = true;
		while (!has_waiter(&meeting->left))
			sched_yield();
		raise(SIGKILL);
	}
	EXPECT_TRUE(take_turns(meeting, false));
	EXPECT_EQ(2 * turns(NR_TURNS), meeting->turn);
	while (!meeting->is_left)
		sched_yield();
	EXPECT_EQ(EOWNERDEAD, pthread_mutex_lock(&meeting->left));
	EXPECT_EQ(256 + SIGKILL, child_status(pid));
	EXPECT_EQ(0, pthread_mutex_consistent(&meeting->left));
	EXPECT_EQ(0, pthread_mutex_unlock(&meeting->left));
	EXPECT_EQ(0, pthread_mutex_lock(&meeting->left));
	EXPECT_EQ(0, pthread_mutex_unlock(&meeting->left));
	expect_file(self->fd, at + sizeof(*meeting), SEGMENT);
}

/* Who creates a file pays for what others commit in it, and no more than that one may. */
TEST_F(holes, creator_pays)
{
	unsigned char *bytes = anonymous_map(6 * MIB), *map;
	struct stat root;
	int fd;

	ASSERT_NE(NULL, bytes);
	unlink(OTHER);
	ASSERT_EQ(0, stat(NAMES, &root));
	ASSERT_EQ(0, chmod(NAMES, 01777));
	EXPECT_EQ(0, in_child({
		struct rlimit memlock = { 4 * MIB, 4 * MIB };

		require(!setrlimit(RLIMIT_MEMLOCK, &memlock));
		require(!setgroups(0, NULL) && !setgid(TEST_UID) && !setuid(TEST_UID));
		require(file_create(OTHER) >= 0);
	}));
	ASSERT_EQ(0, chmod(NAMES, root.st_mode & 07777));
	fd = name_open(OTHER, O_RDWR);
	ASSERT_LE(0, fd);
	/* It goes with the descriptor, also if the test fails. */
	EXPECT_EQ(0, unlink(OTHER));
	map = arena_map(fd, 8 * MIB);
	ASSERT_NE(NULL, map);
	EXPECT_EQ(-EDQUOT, file_allocate(fd, 0, 0, 6 * MIB));
	EXPECT_EQ(0, file_size(fd));
	EXPECT_EQ(4 * MIB, write(fd, bytes, 6 * MIB));
	EXPECT_EQ(-1, write(fd, bytes, 2 * MIB));
	EXPECT_EQ(EDQUOT, errno);
	EXPECT_EQ(0, file_resize(fd, 8 * MIB));
	EXPECT_EQ(SIGBUS, touch_read(map + 4 * MIB, NULL));
	expect_file(fd, 8 * MIB, 4 * MIB);
	EXPECT_EQ(self->before.charged_bytes + 4 * MIB, stat_of(self->device).charged_bytes);
	EXPECT_EQ(0, file_punch(fd, 0, 2 * MIB));
	EXPECT_EQ(self->before.charged_bytes + 2 * MIB, stat_of(self->device).charged_bytes);
	EXPECT_EQ(0, touch_write(map + 4 * MIB, 1));
	EXPECT_EQ(SIGBUS, touch_write(map, 1));
	munmap(map, 8 * MIB);
	munmap(bytes, 6 * MIB);
	close(fd);
}

/* As np.memmap() does it. */
TEST_F(holes, memory_map_of_a_program)
{
	const size_t bytes = 3 * MIB + 24;
	unsigned char *map, *want = anonymous_map(bytes);
	int fd;

	ASSERT_NE(NULL, want);
	pattern_fill(want, bytes, 4);
	EXPECT_EQ(bytes - 1, lseek(self->fd, bytes - 1, SEEK_SET));
	EXPECT_EQ(1, write(self->fd, "", 1));
	map = arena_map(self->fd, bytes);
	ASSERT_NE(NULL, map);
	memcpy(map, want, bytes);
	EXPECT_EQ(0, msync(map, bytes, MS_SYNC));
	munmap(map, bytes);
	/* Another reads it, in a copy by sendfile() and by a mapping. */
	fd = name_open(NAME, O_RDONLY);
	map = arena_map_at(fd, 0, bytes, PROT_READ);
	ASSERT_NE(NULL, map);
	EXPECT_EQ(0, memcmp(map, want, bytes));
	munmap(map, bytes);
	expect_file(fd, bytes, 2 * SEGMENT);
	/* A reader may touch a hole. */
	EXPECT_EQ(0, file_resize(self->fd, 8 * MIB));
	map = arena_map_at(fd, 0, 8 * MIB, PROT_READ);
	ASSERT_NE(NULL, map);
	EXPECT_EQ(0, touch_read(map + 6 * MIB, NULL));
	EXPECT_EQ(-1, nonzero_find(map + bytes, 8 * MIB - bytes));
	EXPECT_EQ(-EBADF, file_allocate(fd, 0, 0, 1));
	EXPECT_GT(0, file_resize(fd, 0));
	munmap(map, 8 * MIB);
	close(fd);
	munmap(want, bytes);
}

/* Random calls, each on both files. */

/* One random call on @fd. Returns what it returned, or the negative errno. */
static long random_call(uint32_t *random, int fd, unsigned char *map, unsigned char *piece)
{
	off_t offset = random_offset(random, MAP_BYTES - PIECE_BYTES), size = file_size(fd);
	off_t bytes = random_offset(random, MAP_BYTES - offset);
	size_t n = 1 + random_next(random) % PIECE_BYTES;
	uint32_t op = random_next(random) % 10;

	memset(piece, 1 + random_next(random) % 255, n);
	switch (op) {
	case 0:
		return errno_or(pwrite(fd, piece, n, offset));
	case 1:
		lseek(fd, offset, SEEK_SET);
		return errno_or(write(fd, piece, n));
	case 2:
		return errno_or(pread(fd, piece, n, offset));
	case 3:
		return file_resize(fd, random_next(random) % 3 ? offset + bytes : offset);
	case 4:
		return file_allocate(fd, 0, offset, bytes);
	case 5:
		return file_allocate(fd, FALLOC_FL_KEEP_SIZE, offset, bytes);
	case 6:
		return file_punch(fd, offset, bytes);
	case 7:
		return range_remove(map + offset / KPAGE_BYTES * KPAGE_BYTES, n);
	default:
		/* Within the file. */
		if (offset >= size)
			return 0;
		n = (off_t)n < size - offset ? (off_t)n : size - offset;
		if (op == 8)
			memcpy(map + offset, piece, n);
		else
			memcpy(piece, map + offset, n);
		return n;
	}
}

TEST_F(holes, does_as_tmpfs_does)
{
	unsigned char *pieces[2] = { anonymous_map(PIECE_BYTES), anonymous_map(PIECE_BYTES) };
	unsigned char *whole[2] = { anonymous_map(MAP_BYTES), anonymous_map(MAP_BYTES) };
	int fds[2] = { self->fd, memfd_create("model", MFD_CLOEXEC) }, i;
	unsigned int nr_steps = turns(500), step;
	unsigned char *maps[2] = { self->map, arena_map(fds[1], MAP_BYTES) };
	uint32_t seed = random_seed() | 1, random[2] = { seed, seed };
	long rc[2], sum = 0;

	ASSERT_TRUE(maps[1] && pieces[0] && pieces[1] && whole[0] && whole[1]);
	TH_LOG("SEED=%u", seed);
	for (step = 0; step < nr_steps; step++) {
		for (i = 0; i < 2; i++)
			rc[i] = random_call(&random[i], fds[i], maps[i], pieces[i]);
		ASSERT_EQ(rc[1], rc[0]) {
			TH_LOG("step %d", step);
		}
		ASSERT_EQ(0, memcmp(pieces[1], pieces[0], PIECE_BYTES)) {
			TH_LOG("step %d", step);
		}
		ASSERT_EQ(file_size(fds[1]), file_size(fds[0]));
		ASSERT_EQ(file_blocks(fds[0]), stat_of(fds[0]).committed_bytes);
		for (i = 0; i < 2; i++)
			rc[i] = pread(fds[i], whole[i], MAP_BYTES, 0);
		ASSERT_EQ(rc[1], rc[0]);
		ASSERT_EQ(0, memcmp(whole[1], whole[0], rc[1])) {
			TH_LOG("step %d", step);
		}
		sum += rc[0];
	}
	EXPECT_LT(0, sum);
	EXPECT_EQ(0, file_punch(self->fd, 0, 2 * MAP_BYTES));
	EXPECT_EQ(0, file_blocks(self->fd));
	for (i = 0; i < 2; i++) {
		munmap(pieces[i], PIECE_BYTES);
		munmap(whole[i], MAP_BYTES);
	}
	munmap(maps[1], MAP_BYTES);
	close(fds[1]);
}

/* As with any file: one memory for parent and child, but for a private mapping. */
TEST_F(holes, child_inherits_mappings)
{
	unsigned char *private;

	ASSERT_EQ(0, file_resize(self->fd, 2 * XALLOC_SEGMENT_BYTES));
	private = mmap(NULL, 2 * XALLOC_SEGMENT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE,
		       self->fd, 0);
	ASSERT_NE(MAP_FAILED, (void *)private);
	self->map[0] = 1;
	private[KPAGE_BYTES] = 2;
	EXPECT_EQ(0, in_child({
		require(self->map[0] == 1 && private[0] == 1 && private[KPAGE_BYTES] == 2);
		self->map[1] = 3;
		private[KPAGE_BYTES] = 4;
		self->map[XALLOC_SEGMENT_BYTES] = 5;
	}));
	EXPECT_EQ(3, self->map[1]);
	EXPECT_EQ(3, private[1]);
	EXPECT_EQ(5, private[XALLOC_SEGMENT_BYTES]);
	EXPECT_EQ(0, self->map[KPAGE_BYTES]);
	EXPECT_EQ(2, private[KPAGE_BYTES]);
	/* A hole takes nothing from a copy. */
	EXPECT_EQ(0, file_punch(self->fd, 0, XALLOC_SEGMENT_BYTES));
	EXPECT_EQ(0, private[0]);
	EXPECT_EQ(2, private[KPAGE_BYTES]);
	munmap(private, 2 * XALLOC_SEGMENT_BYTES);
}

/* A private mapping for which reading was enough leads to nothing that writes. */
TEST_F(holes, private_mapping_of_a_reader)
{
	int reader = name_open(NAME, O_RDONLY), device = device_open(), fd;
	unsigned char *private;

	ASSERT_LE(0, reader);
	ASSERT_EQ(0, file_resize(self->fd, KPAGE_BYTES));
	private = mmap(NULL, KPAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, reader, 0);
	ASSERT_NE(MAP_FAILED, (void *)private);
	private[0] = 1;
	EXPECT_EQ(-EBADF, attach_at(device, private, 0, NULL));
	fd = attach_at(device, private, XALLOC_ATTACH_RDONLY, NULL);
	EXPECT_LE(0, fd);
	close(fd);
	EXPECT_EQ(0, self->map[0]);
	munmap(private, KPAGE_BYTES);
	close(device);
	close(reader);
}

TEST_HARNESS_MAIN
