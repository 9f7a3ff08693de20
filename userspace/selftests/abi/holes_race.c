// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: threads at odds over one file of xallocfs that is used as a file: some use it, some
 * give its memory back, some refer to it. Nobody sees wrong bytes, nor is refused without a reason.
 */
#define MAP_BYTES (10 * MIB)
#include "gup.h"
#include "holes_fixture.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { NR_STEPS = 2000, NR_THREADS = 4 };

/*
 * Threads at odds over one file. What they write is derived from the offset, so each byte that
 * they read has that value or is zero. They may not use EXPECT: they note what was wrong first.
 */
struct stress {
	int fd;
	unsigned char *map;
	bool with_pipes;	/* somebody may refer to what is to go */
	unsigned int nr_steps;
	atomic_uint seed;
	atomic_int wrong_line;
	atomic_long nr_busy;
	atomic_long nr_signals;
	atomic_long nr_held;
	atomic_long nr_data;
	long wrong_value;
};

static unsigned char byte_at(off_t offset)
{
	return ((uint32_t)offset * 2654435761U) >> 24 | 1;
}

static void bytes_make(unsigned char *bytes, off_t offset, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		bytes[i] = byte_at(offset + i);
}

/* Where the first byte is that is neither what was written nor zero, or -1. */
static off_t bytes_wrong(struct stress *s, const unsigned char *bytes, off_t offset, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (bytes[i] && bytes[i] != byte_at(offset + i))
			return offset + i;
	s->nr_data += bytes[0] != 0;
	return -1;
}

#define check(s, condition, value) \
	do { \
		int none_ = 0; \
\
		if (!(condition) && \
		    atomic_compare_exchange_strong(&(s)->wrong_line, &none_, __LINE__)) \
			(s)->wrong_value = (value); \
	} while (0)

/* A pipe holds one kpage, which cannot go meanwhile and shows what is written to it. */
static void hold_a_while(struct stress *s, off_t offset)
{
	unsigned char *addr = s->map + offset / KPAGE_BYTES * KPAGE_BYTES, bytes[KPAGE_BYTES];
	struct iovec iov = { addr, KPAGE_BYTES };
	int ends[2];
	ssize_t rc;

	check(s, !pipe(ends), errno);
	rc = errno_or(vmsplice(ends[1], &iov, 1, SPLICE_F_NONBLOCK));
	check(s, rc == KPAGE_BYTES || rc == -EFAULT, rc);
	if (rc == KPAGE_BYTES) {
		offset = addr - s->map;
		bytes_make(bytes, offset, 8);
		touch_write(addr, *(uint64_t *)bytes);
		sched_yield();
		check(s, read(ends[0], bytes, KPAGE_BYTES) == KPAGE_BYTES, errno);
		check(s, bytes_wrong(s, bytes, offset, KPAGE_BYTES) == -1, offset);
		s->nr_held++;
	}
	close(ends[0]);
	close(ends[1]);
}

static void stress_step(struct stress *s, uint32_t *random, unsigned char *piece)
{
	off_t offset = random_offset(random, MAP_BYTES - PIECE_BYTES);
	off_t bytes = 1 + random_offset(random, MAP_BYTES - offset - 1), wrong;
	size_t n = 1 + random_next(random) % PIECE_BYTES;
	uint64_t value;
	long rc = 0;

	switch (random_next(random) % (s->with_pipes ? 10 : 9)) {
	case 0:
	case 1:
		bytes_make(piece, offset, n);
		rc = errno_or(pwrite(s->fd, piece, n, offset));
		check(s, rc == (long)n, rc);
		return;
	case 2:
		rc = errno_or(pread(s->fd, piece, n, offset));
		check(s, rc >= 0 && rc <= (long)n, rc);
		wrong = bytes_wrong(s, piece, offset, rc < 0 ? 0 : rc);
		check(s, wrong == -1, wrong);
		return;
	case 3:
		rc = touch_read(s->map + offset / 8 * 8, &value);
		check(s, !rc || rc == SIGBUS, rc);
		wrong = rc ? -1 : bytes_wrong(s, (unsigned char *)&value, offset / 8 * 8, 8);
		check(s, wrong == -1, wrong);
		s->nr_signals += rc != 0;
		return;
	case 4:
		bytes_make((unsigned char *)&value, offset / 8 * 8, 8);
		rc = touch_write(s->map + offset / 8 * 8, value);
		check(s, !rc || rc == SIGBUS, rc);
		s->nr_signals += rc != 0;
		return;
	case 5:
		rc = file_punch(s->fd, offset, bytes);
		break;
	case 6:
		rc = range_remove(s->map + offset / KPAGE_BYTES * KPAGE_BYTES, n);
		break;
	case 7:
		rc = file_resize(s->fd, bytes % 3 ? (off_t)MAP_BYTES : offset);
		break;
	case 8:
		rc = file_allocate(s->fd, bytes % 2 ? FALLOC_FL_KEEP_SIZE : 0, offset, bytes);
		break;
	case 9:
		hold_a_while(s, offset);
		return;
	}
	s->nr_busy += rc == -EBUSY;
	check(s, !rc || rc == -EBUSY, rc);
}

static void *stress_thread(void *arg)
{
	struct stress *s = arg;
	unsigned char *piece = anonymous_map(PIECE_BYTES);
	uint32_t random = atomic_fetch_add(&s->seed, 0x9e3779b9) | 1;
	unsigned int i;

	for (i = 0; i < s->nr_steps && !s->wrong_line; i++)
		stress_step(s, &random, piece);
	munmap(piece, PIECE_BYTES);
	return NULL;
}

static void expect_stress(struct __test_metadata *_metadata, int fd, unsigned char *map,
			  bool with_pipes)
{
	struct stress s = { .fd = fd, .map = map, .with_pipes = with_pipes };
	unsigned char *whole = anonymous_map(MAP_BYTES);
	pthread_t threads[NR_THREADS];
	int i;

	ASSERT_NE(NULL, whole);
	s.seed = random_seed();
	s.nr_steps = turns(NR_STEPS);
	TH_LOG("SEED=%u", s.seed);
	for (i = 0; i < NR_THREADS; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, stress_thread, &s));
	for (i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	EXPECT_EQ(0, s.wrong_line) {
		TH_LOG("first wrong at line %d, value %ld", s.wrong_line, s.wrong_value);
	}
	TH_LOG("%ld busy, %ld SIGBUS, %ld held, %ld read data", s.nr_busy, s.nr_signals, s.nr_held,
	       s.nr_data);
	EXPECT_LT(0, s.nr_data);
	/* A read and the mapping agree, and it all goes. */
	EXPECT_EQ(0, file_resize(fd, MAP_BYTES));
	EXPECT_EQ(MAP_BYTES, pread(fd, whole, MAP_BYTES, 0));
	EXPECT_EQ(-1, bytes_wrong(&s, whole, 0, MAP_BYTES));
	EXPECT_EQ(0, memcmp(whole, map, MAP_BYTES));
	expect_file(fd, MAP_BYTES, MAP_BYTES);
	EXPECT_EQ(0, file_resize(fd, 0));
	expect_file(fd, 0, 0);
	munmap(whole, MAP_BYTES);
}

/* A thread that uses a file as programs do, while another gives its memory back. */

enum use { READ_TOUCH, WRITE_TOUCH, READ, WRITE, ALLOCATE, SEEK, MAP, NR_USES };

static const char *const uses[NR_USES] = {
	"reading touch", "writing touch", "read", "write", "fallocate", "lseek", "mmap",
};

struct user {
	int fd;
	unsigned char *map;
	enum use use;
	atomic_bool stop;
	atomic_long nr_done;
	atomic_long nr_wrong;
};

static bool use_once(struct user *user, uint32_t *random, unsigned char *piece)
{
	off_t offset = random_next(random) % MAP_BYTES / SLICE * SLICE;
	unsigned char *map;

	switch (user->use) {
	case READ_TOUCH:
		return !touch_read(user->map + offset, NULL);
	case WRITE_TOUCH:
		return !touch_write(user->map + offset, 1);
	case READ:
		return pread(user->fd, piece, SLICE, offset) == SLICE;
	case WRITE:
		return pwrite(user->fd, piece, SLICE, offset) == SLICE;
	case ALLOCATE:
		return !file_allocate(user->fd, 0, offset, SLICE);
	case SEEK:
		return lseek(user->fd, offset, SEEK_DATA) >= 0 || errno == ENXIO;
	default:
		map = arena_map(user->fd, MAP_BYTES);
		return map && !touch_write(map + offset, 1) && !munmap(map, MAP_BYTES);
	}
}

static void *use_thread(void *arg)
{
	struct user *user = arg;
	unsigned char *piece = anonymous_map(PIECE_BYTES);
	uint32_t random = 1;

	while (!user->stop) {
		user->nr_wrong += !use_once(user, &random, piece);
		user->nr_done++;
	}
	munmap(piece, PIECE_BYTES);
	return NULL;
}

/*
 * No use of a file fails while another thread punches. A punch may be EBUSY for a reference of a
 * moment, but only if it meets one at each of its looks.
 */
TEST_F(holes, nobody_is_in_the_way)
{
	struct user user = { .fd = self->fd, .map = self->map };
	pthread_t thread;
	long nr = turns(NR_STEPS), nr_busy, i;

	ASSERT_EQ(0, file_resize(self->fd, MAP_BYTES));
	for (user.use = 0; user.use < NR_USES; user.use++) {
		user.stop = false;
		user.nr_done = 0;
		user.nr_wrong = 0;
		nr_busy = 0;
		ASSERT_EQ(0, pthread_create(&thread, NULL, use_thread, &user));
		for (i = 0; i < nr || user.nr_done < nr / 4; i++) {
			int rc = file_punch(self->fd, i % 5 * SEGMENT, SEGMENT);

			nr_busy += rc == -EBUSY;
			EXPECT_TRUE(!rc || rc == -EBUSY);
		}
		user.stop = true;
		pthread_join(thread, NULL);
		EXPECT_EQ(0, user.nr_wrong) {
			TH_LOG("%s failed", uses[user.use]);
		}
		TH_LOG("%s: busy in %ld of %ld", uses[user.use], nr_busy, i);
		EXPECT_EQ(0, file_punch(self->fd, 0, MAP_BYTES));
	}
}

/* One unmaps what another punches at the same time. */
struct leaver {
	int fd;
	unsigned char turn;
	pthread_barrier_t barrier;
};

enum { NR_LEAVES = 120 };

static void *leaver_thread(void *arg)
{
	struct leaver *leaver = arg;
	unsigned char *map;

	for (leaver->turn = 1; leaver->turn <= NR_LEAVES; leaver->turn++) {
		map = file_map(leaver->fd, SEGMENT, leaver->turn % 2 * KPAGE_BYTES);
		memset(map, leaver->turn, SEGMENT);
		pthread_barrier_wait(&leaver->barrier);
		munmap(map, SEGMENT);
		pthread_barrier_wait(&leaver->barrier);
		/* The other looks at what became of it. */
		pthread_barrier_wait(&leaver->barrier);
	}
	return NULL;
}

/*
 * Either it is EBUSY and all is there, or the memory goes, which may be a moment after the call: a
 * reference that came meanwhile has to go first.
 */
TEST_F(holes, punch_beside_munmap)
{
	struct leaver leaver = { .fd = self->fd };
	unsigned char *copy = anonymous_map(SEGMENT), turn;
	int rc, nr_busy = 0, nr_late = 0, nr_wrong = 0;
	pthread_t thread;

	ASSERT_NE(NULL, copy);
	ASSERT_EQ(0, file_resize(self->fd, SEGMENT));
	ASSERT_EQ(0, pthread_barrier_init(&leaver.barrier, NULL, 2));
	ASSERT_EQ(0, pthread_create(&thread, NULL, leaver_thread, &leaver));
	for (turn = 1; turn <= NR_LEAVES; turn++) {
		pthread_barrier_wait(&leaver.barrier);
		sched_yield();
		rc = file_punch(self->fd, 0, SEGMENT);
		nr_late += !rc && file_blocks(self->fd);
		nr_busy += rc == -EBUSY;
		EXPECT_EQ(SEGMENT, pread(self->fd, copy, SEGMENT, 0));
		nr_wrong += copy[0] != (rc ? turn : 0) || memcmp(copy, copy + 1, SEGMENT - 1);
		/* Also where a touch commits it again. */
		nr_wrong += memcmp(copy, self->map, SEGMENT) != 0;
		self->map[5] = ~turn;
		nr_wrong += pread(self->fd, copy, 6, 0) != 6 || copy[5] != (unsigned char)~turn;
		pthread_barrier_wait(&leaver.barrier);
		EXPECT_EQ(0, file_punch(self->fd, 0, SEGMENT));
		/* No other call is needed for it to go. */
		EXPECT_TRUE(wait_for(!file_blocks(self->fd), 60000));
		pthread_barrier_wait(&leaver.barrier);
	}
	pthread_join(thread, NULL);
	TH_LOG("of %d turns %d busy, %d late", NR_LEAVES, nr_busy, nr_late);
	EXPECT_EQ(0, nr_wrong);
	munmap(copy, SEGMENT);
}

static void *punch_thread(void *arg)
{
	struct user *user = arg;
	int rc;

	for (; !user->stop; user->nr_done++) {
		rc = file_punch(user->fd, 0, SEGMENT);
		user->nr_wrong += rc && rc != -EBUSY;
		/* Some turns leave the other time to get to its end. */
		if (user->nr_done % 8 == 0)
			sched_yield();
	}
	return NULL;
}

/* Whoever got hold of memory has the memory that the mapping shows until it is let go. */
TEST_F(holes, pipe_beside_punch)
{
	struct user user = { .fd = self->fd };
	struct iovec iov = { self->map + 3 * KPAGE_BYTES, 8 };
	long nr = turns(NR_STEPS), i, nr_split = 0, nr_refused = 0;
	uint64_t seen;
	pthread_t thread;
	int ends[2];

	ASSERT_EQ(0, file_resize(self->fd, SEGMENT));
	ASSERT_EQ(0, pipe(ends));
	ASSERT_EQ(0, pthread_create(&thread, NULL, punch_thread, &user));
	for (i = 1; i < 10 * nr || user.nr_done < nr; i++) {
		if (vmsplice(ends[1], &iov, 1, SPLICE_F_NONBLOCK) != 8) {
			nr_refused++;
			continue;
		}
		nr_split += touch_write(iov.iov_base, i) != 0;
		EXPECT_EQ(8, read(ends[0], &seen, 8));
		nr_split += seen != (uint64_t)i;
	}
	user.stop = true;
	pthread_join(thread, NULL);
	TH_LOG("%ld pipes, %ld punches", i, user.nr_done);
	EXPECT_EQ(0, user.nr_wrong);
	EXPECT_EQ(0, nr_refused);
	EXPECT_EQ(0, nr_split);
	close(ends[0]);
	close(ends[1]);
}

TEST_F(holes, threads_at_odds)
{
	expect_stress(_metadata, self->fd, self->map, false);
}

TEST_F(holes, threads_at_odds_and_pipes)
{
	expect_stress(_metadata, self->fd, self->map, true);
}

TEST_HARNESS_MAIN
