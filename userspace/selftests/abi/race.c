// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: threads at odds over one arena: the descriptor closed below ioctl and mmap,
 * memory given back below a fault, a mapping removed below both. Whatever the order, an
 * offset shows one memory to all mappings, and in the end the counters are as before.
 */
#include "holes.h"
#include "selftest.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#define NR_SEGMENTS 4
#define ARENA_BYTES (NR_SEGMENTS * XALLOC_SEGMENT_BYTES)

FIXTURE(race)
{
	int device;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(race)
{
	self->device = device_setup(_metadata, &self->before);
}

FIXTURE_TEARDOWN(race)
{
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/*
 * A test takes at least so many turns, and with LONG=1 at least a minute. It takes more while other
 * threads have not run yet, as on a busy machine, but not for ever.
 */
enum { MOST_MORE_TURNS = 20000 };

static uint64_t least_end(void)
{
	return is_long_run() ? now_ms() + 60000 : 0;
}

/*
 * What the threads of one test share. Threads may not use EXPECT (a failure there jumps);
 * they note the first thing that went wrong, and the test reads it when all have ended.
 */
struct shared {
	int device;
	atomic_int arena;	/* the descriptor that is at issue */
	atomic_bool stop;
	atomic_long nr_done;	/* turns of the thread under test, to show it was not idle */
	atomic_long nr_faults;	/* SIGBUS taken */
	atomic_long nr_spliced;
	atomic_long nr_mapped;
	atomic_long nr_trimmed;
	atomic_size_t hot;	/* offset of what was granted last */
	atomic_int wrong_line;
	long wrong_value;
	unsigned char *map;
	unsigned char *second;
	pthread_barrier_t start;
	pthread_barrier_t end;
};

/*
 * Whether there is another turn after @turn of them: none when something went wrong. Gives way to
 * threads that have not run yet.
 */
static bool goes_on(struct shared *s, uint64_t turn, unsigned int least, uint64_t end,
		    bool others_ran)
{
	if (atomic_load(&s->wrong_line))
		return false;
	if (turn < least || (end && now_ms() < end))
		return true;
	if (others_ran || turn >= least + MOST_MORE_TURNS)
		return false;
	sleep_ms(1);
	return true;
}

static void note_wrong(struct shared *s, int line, long value)
{
	int none = 0;

	if (atomic_compare_exchange_strong(&s->wrong_line, &none, line))
		s->wrong_value = value;
}

#define check(s, condition, value) \
	do { \
		if (!(condition)) \
			note_wrong(s, __LINE__, (long)(value)); \
	} while (0)

#define expect_nothing_wrong(s) \
	EXPECT_EQ(0, atomic_load(&(s)->wrong_line)) { \
		TH_LOG("first wrong at %s:%d, value %ld", __FILE__, atomic_load(&(s)->wrong_line), \
		       (s)->wrong_value); \
	}

static uint32_t thread_seed(void)
{
	static atomic_uint nr;

	return (0x9e3779b9U * (atomic_fetch_add(&nr, 1) + 1)) | 1;
}

static void spin(uint32_t turns)
{
	volatile uint32_t i;

	for (i = 0; i < turns; i++)
		;
}

/* Closing races with ioctl and mmap: rounds of one descriptor each. */

static void *round_ioctl(void *arg)
{
	struct shared *s = arg;
	struct xalloc_page_grant page;
	int rc;

	for (;;) {
		pthread_barrier_wait(&s->start);
		if (atomic_load(&s->stop))
			return NULL;
		/* The descriptor ends this, and what it had goes with it. */
		for (;;) {
			rc = grant_page(atomic_load(&s->arena), 1 + s->nr_done % 40, 0, &page);
			if (rc == -EBADF)
				break;
			check(s, rc == 1 || rc == -ENOSPC, rc);
			atomic_fetch_add(&s->nr_done, 1);
			if (rc != 1)
				continue;
			if (page.tag == 0 && s->nr_done % 3) {
				rc = free_page(atomic_load(&s->arena), page.offset);
				if (rc == -EBADF)
					break;
				check(s, rc == 1, rc);
			}
		}
		pthread_barrier_wait(&s->end);
	}
}

static void *round_mmap(void *arg)
{
	struct shared *s = arg;
	unsigned char *map;
	int i, sig;

	for (;;) {
		pthread_barrier_wait(&s->start);
		if (atomic_load(&s->stop))
			return NULL;
		for (;;) {
			map = arena_map(atomic_load(&s->arena), ARENA_BYTES);
			if (!map) {
				check(s, errno == EBADF, errno);
				break;
			}
			for (i = 0; i < NR_SEGMENTS; i++) {
				sig = touch_write(map + i * XALLOC_SEGMENT_BYTES, i);
				check(s, !sig || sig == SIGBUS, sig);
			}
			munmap(map, ARENA_BYTES);
		}
		pthread_barrier_wait(&s->end);
	}
}

TEST_F_TIMEOUT(race, close_against_ioctl_and_mmap, TEST_TIMEOUT_LONG)
{
	struct shared s = { .device = self->device };
	uint32_t seed = thread_seed();
	uint64_t end = least_end();
	unsigned int round;
	pthread_t threads[2];

	pthread_barrier_init(&s.start, NULL, 3);
	pthread_barrier_init(&s.end, NULL, 3);
	ASSERT_EQ(0, pthread_create(&threads[0], NULL, round_ioctl, &s));
	ASSERT_EQ(0, pthread_create(&threads[1], NULL, round_mmap, &s));
	/* The first rounds may all close the descriptor before a thread has used it. */
	for (round = 0; goes_on(&s, round, 150, end, atomic_load(&s.nr_done)); round++) {
		int arena = arena_create(self->device, ARENA_BYTES, 0);
		int copy = round % 2 ? dup(arena) : -1;

		if (arena < 0) {
			note_wrong(&s, __LINE__, arena);
			break;
		}
		/* No other thread makes descriptors, so the number stays closed. */
		atomic_store(&s.arena, arena);
		pthread_barrier_wait(&s.start);
		spin(random_next(&seed) % 200000);
		close(arena);
		pthread_barrier_wait(&s.end);
		if (copy >= 0)
			close(copy);
		if (!counters_wait(self->device, &self->before, 10000))
			note_wrong(&s, __LINE__, round);
	}
	atomic_store(&s.stop, true);
	pthread_barrier_wait(&s.start);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	TH_LOG("%u rounds, %ld grants", round, atomic_load(&s.nr_done));
	expect_nothing_wrong(&s);
	EXPECT_LT(0, atomic_load(&s.nr_done));
}

/*
 * A fault races with a give-back. One thread grants a segment, writes through one mapping
 * and compares through another, and frees; others fault the same offsets in through both.
 * A fault that lost the race and installed its page all the same would show there.
 */

/*
 * What is written at @offset of the arena in turn @turn. It names the offset, so that memory
 * which turns up elsewhere while somebody still has it is seen.
 */
static uint64_t word_of(uint64_t turn, size_t offset)
{
	return turn << 32 | offset;
}

static bool is_word_of_place(uint64_t value, size_t offset)
{
	return !value || (uint32_t)value == offset;
}

/* Mostly where the memory is that comes and goes, so that the two meet. */
static size_t touch_place(struct shared *s, uint32_t *seed)
{
	size_t at = random_next(seed) % (ARENA_BYTES / KPAGE_BYTES) * KPAGE_BYTES;

	if (random_next(seed) % 8)
		at = atomic_load(&s->hot) / XALLOC_SEGMENT_BYTES * XALLOC_SEGMENT_BYTES +
		     at % XALLOC_SEGMENT_BYTES;
	return at;
}

static void *touch_both(void *arg)
{
	struct shared *s = arg;
	uint32_t seed = thread_seed();
	uint64_t value;
	size_t at;
	int sig;

	while (!atomic_load(&s->stop)) {
		at = touch_place(s, &seed);
		sig = touch_read(s->map + at, &value);
		check(s, sig ? sig == SIGBUS : is_word_of_place(value, at), at);
		atomic_fetch_add(&s->nr_faults, sig == SIGBUS);
		sig = touch_read(s->second + at, &value);
		check(s, sig ? sig == SIGBUS : is_word_of_place(value, at), at);
		atomic_fetch_add(&s->nr_faults, sig == SIGBUS);
	}
	return NULL;
}

static void *map_and_unmap(void *arg)
{
	struct shared *s = arg;
	uint32_t seed = thread_seed();
	unsigned char *map;
	size_t at, hole;
	int i, sig;

	while (!atomic_load(&s->stop)) {
		map = arena_map(s->arena, ARENA_BYTES);
		if (!map) {
			note_wrong(s, __LINE__, errno);
			break;
		}
		for (i = 0; i < 8; i++) {
			at = touch_place(s, &seed);
			sig = touch_read(map + at, NULL);
			check(s, !sig || sig == SIGBUS, sig);
		}
		/* A hole in some segment, so that a huge entry is split while in use. */
		hole = touch_place(s, &seed);
		munmap(map + hole, KPAGE_BYTES);
		for (i = 0; i < 4; i++) {
			at = touch_place(s, &seed);
			if (at == hole)
				continue;
			sig = touch_read(map + at, NULL);
			check(s, !sig || sig == SIGBUS, sig);
		}
		if (hole)
			munmap(map, hole);
		if (hole + KPAGE_BYTES < ARENA_BYTES)
			munmap(map + hole + KPAGE_BYTES, ARENA_BYTES - hole - KPAGE_BYTES);
		atomic_fetch_add(&s->nr_mapped, 1);
	}
	return NULL;
}

/* Holds memory of the arena in a pipe, across whatever happens to it meanwhile. */
static void *splice_and_read(void *arg)
{
	struct shared *s = arg;
	uint32_t seed = thread_seed();
	int ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK)) {
		note_wrong(s, __LINE__, errno);
		return NULL;
	}
	while (!atomic_load(&s->stop)) {
		size_t at = touch_place(s, &seed) & ~(XALLOC_SLICE_BYTES - 1);
		struct iovec iov = { s->map + at, sizeof(uint64_t) };
		uint64_t value = 0;
		ssize_t rc = vmsplice(ends[1], &iov, 1, 0);

		if (rc < 0) {
			check(s, errno == EFAULT, errno);
			continue;
		}
		check(s, rc == sizeof(value), rc);
		spin(random_next(&seed) % 100000);
		rc = read(ends[0], &value, sizeof(value));
		check(s, rc == sizeof(value), rc);
		check(s, is_word_of_place(value, at), at);
		atomic_fetch_add(&s->nr_spliced, 1);
	}
	close(ends[0]);
	close(ends[1]);
	return NULL;
}

/* Grants, writes through one mapping, compares through the other, frees. */
static void grant_compare_free(struct shared *s, uint32_t nr_slices, uint64_t turn)
{
	struct xalloc_page_grant page;
	uint64_t value, word;
	size_t at, end;
	int rc, sig;

	rc = grant_page(s->arena, nr_slices, 0, &page);
	check(s, rc == 1, rc);
	if (rc != 1)
		return;
	atomic_store(&s->hot, page.offset);
	end = page.offset + nr_slices * XALLOC_SLICE_BYTES;
	for (at = page.offset; at < end; at += XALLOC_SLICE_BYTES) {
		word = word_of(turn, at);
		sig = touch_read(s->second + at, &value);
		check(s, !sig, sig);
		check(s, page.flags & XALLOC_PAGE_ZERO ? !value : is_word_of_place(value, at), at);
		sig = touch_write(s->map + at, word);
		check(s, !sig, sig);
		sig = touch_read(s->second + at, &value);
		check(s, !sig && value == word, at);
	}
	/* The other way round, at the far end of each slice. */
	for (at = page.offset + XALLOC_SLICE_BYTES - 8; at < end; at += XALLOC_SLICE_BYTES) {
		word = word_of(turn, at);
		sig = touch_write(s->second + at, word);
		check(s, !sig, sig);
		sig = touch_read(s->map + at, &value);
		check(s, !sig && value == word, at);
	}
	rc = free_page(s->arena, page.offset);
	check(s, rc == 1, rc);
	atomic_fetch_add(&s->nr_done, 1);
}

/* Fills the reserve, and takes it away again, while others grant from it. */
static void *reserve_and_trim(void *arg)
{
	struct shared *s = arg;
	uint32_t seed = thread_seed();
	int rc;

	while (!atomic_load(&s->stop)) {
		uint64_t high = random_next(&seed) % 5 * XALLOC_SEGMENT_BYTES;

		rc = reserve_set(s->arena, high / (2 * XALLOC_SEGMENT_BYTES) * XALLOC_SEGMENT_BYTES,
				 high);
		check(s, !rc, rc);
		spin(random_next(&seed) % 100000);
		rc = arena_trim(s->arena, random_next(&seed) % 3 * XALLOC_SEGMENT_BYTES, NULL);
		check(s, !rc, rc);
		atomic_fetch_add(&s->nr_trimmed, 1);
	}
	rc = reserve_set(s->arena, 0, 0);
	check(s, !rc, rc);
	return NULL;
}

/* What is different from one test to the next. */
struct give_back {
	bool misaligned;
	bool pinned;
	bool trimmed;
	uint32_t policy;
};

static bool others_ran(struct shared *s, struct give_back with)
{
	return atomic_load(&s->nr_faults) && atomic_load(&s->nr_mapped) &&
	       (!with.pinned || atomic_load(&s->nr_spliced)) &&
	       (!with.trimmed || atomic_load(&s->nr_trimmed));
}

static void fault_against_give_back(struct __test_metadata *_metadata, int device,
				    struct give_back with)
{
	/* A turn over pieces takes eight times as long. */
	unsigned int least = with.policy == XALLOC_POLICY_SMALL ? 30 : 120;
	uint64_t end = least_end(), turn = 0;
	struct shared s = { .device = device };
	unsigned char *range = range_reserve(2 * ARENA_BYTES, XALLOC_SEGMENT_BYTES), *fresh;
	uint32_t seed = thread_seed();
	pthread_t threads[4];
	uint64_t value;
	size_t at;

	ASSERT_NE(NULL, range);
	s.arena = arena_create_by(device, ARENA_BYTES, with.policy, -1);
	ASSERT_LE(0, s.arena);
	s.map = arena_map(s.arena, ARENA_BYTES);
	ASSERT_NE(NULL, s.map);
	s.second = mmap(range + (with.misaligned ? XALLOC_SLICE_BYTES : 0), ARENA_BYTES,
			PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, s.arena, 0);
	ASSERT_NE(MAP_FAILED, s.second);
	ASSERT_EQ(0, pthread_create(&threads[0], NULL, touch_both, &s));
	ASSERT_EQ(0, pthread_create(&threads[1], NULL, map_and_unmap, &s));
	if (with.pinned) {
		ASSERT_EQ(0, pthread_create(&threads[2], NULL, splice_and_read, &s));
	}
	if (with.trimmed) {
		ASSERT_EQ(0, pthread_create(&threads[3], NULL, reserve_and_trim, &s));
	}
	while (goes_on(&s, turn, least, end, others_ran(&s, with))) {
		uint32_t nr_slices = random_next(&seed) % 4 ? SEGMENT_SLICES :
				     1 + random_next(&seed) % (3 * SEGMENT_SLICES);

		grant_compare_free(&s, nr_slices, ++turn);
	}
	atomic_store(&s.stop, true);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	if (with.trimmed)
		pthread_join(threads[3], NULL);
	if (with.pinned) {
		pthread_join(threads[2], NULL);
		EXPECT_LT(0, atomic_load(&s.nr_spliced));
		EXPECT_TRUE(pinned_wait(_metadata, s.arena, 0, 10000));
	}
	TH_LOG("%ld grants, %ld SIGBUS, %ld times in a pipe", atomic_load(&s.nr_done),
	       atomic_load(&s.nr_faults), atomic_load(&s.nr_spliced));
	expect_nothing_wrong(&s);
	EXPECT_LT(0, atomic_load(&s.nr_done));
	EXPECT_LT(0, atomic_load(&s.nr_faults));
	EXPECT_LT(0, atomic_load(&s.nr_mapped));
	if (with.trimmed) {
		EXPECT_LT(0, atomic_load(&s.nr_trimmed));
	}

	/* One memory per offset, in the old mappings and in a new one. */
	ASSERT_EQ(1, grant_page(s.arena, ARENA_BYTES / XALLOC_SLICE_BYTES, 0, NULL));
	fresh = arena_map(s.arena, ARENA_BYTES);
	ASSERT_NE(NULL, fresh);
	for (at = 0; at < ARENA_BYTES; at += KPAGE_BYTES) {
		ASSERT_EQ(0, touch_write(s.map + at, at + 1));
		ASSERT_EQ(0, touch_read(s.second + at, &value));
		ASSERT_EQ(at + 1, value);
		ASSERT_EQ(0, touch_write(s.second + at, at + 2));
		ASSERT_EQ(0, touch_read(fresh + at, &value));
		ASSERT_EQ(at + 2, value);
	}
	munmap(fresh, ARENA_BYTES);
	munmap(s.second, ARENA_BYTES);
	munmap(s.map, ARENA_BYTES);
	close(s.arena);
}

TEST_F_TIMEOUT(race, fault_against_give_back, TEST_TIMEOUT_LONG)
{
	fault_against_give_back(_metadata, self->device, (struct give_back){});
}

TEST_F_TIMEOUT(race, fault_against_give_back_small_entries, TEST_TIMEOUT_LONG)
{
	fault_against_give_back(_metadata, self->device, (struct give_back){ .misaligned = true });
}

/* The kernel takes references to memory that is being given back, and keeps them for a while. */
TEST_F_TIMEOUT(race, pin_against_give_back, TEST_TIMEOUT_LONG)
{
	fault_against_give_back(_metadata, self->device, (struct give_back){ .pinned = true });
}

TEST_F_TIMEOUT(race, fault_against_trim, TEST_TIMEOUT_LONG)
{
	fault_against_give_back(_metadata, self->device, (struct give_back){ .trimmed = true });
}

/* Slice by slice. */
TEST_F_TIMEOUT(race, fault_against_give_back_of_pieces, TEST_TIMEOUT_LONG)
{
	fault_against_give_back(_metadata, self->device, (struct give_back){
				.pinned = true, .policy = XALLOC_POLICY_SMALL });
}

TEST_F_TIMEOUT(race, everything_against_give_back, TEST_TIMEOUT_LONG)
{
	fault_against_give_back(_metadata, self->device, (struct give_back){
				.misaligned = true, .pinned = true, .trimmed = true });
}

/* Slices are nobody's or one thread's: two grants that overlap find each other here. */
static atomic_uint slice_owner[ARENA_BYTES / XALLOC_SLICE_BYTES];

static void *grant_and_free(void *arg)
{
	enum { HELD = 12 };
	struct shared *s = arg;
	struct xalloc_page_grant held[HELD];
	uint32_t seed = thread_seed(), me = seed, i, slice, nr_held = 0, none;
	int client = random_next(&seed) % 2 ? attach(s->arena, 0, NULL) : dup(s->arena);
	int rc;

	check(s, client >= 0, client);
	while (!atomic_load(&s->stop) && !atomic_load(&s->wrong_line)) {
		if (nr_held < HELD && random_next(&seed) % 2) {
			struct xalloc_page_grant *page = &held[nr_held];
			uint32_t nr = 1 + random_next(&seed) % 20;
			uint32_t flags = random_next(&seed) % 2 ? XALLOC_PAGE_CONTIG : 0;

			rc = grant_page(client, nr, flags, page);
			check(s, rc == 1 || rc == -ENOSPC, rc);
			if (rc != 1)
				continue;
			atomic_fetch_add(&s->nr_done, 1);
			for (i = 0; i < nr; i++) {
				slice = page->offset / XALLOC_SLICE_BYTES + i;
				none = 0;
				check(s, atomic_compare_exchange_strong(&slice_owner[slice], &none,
									me), slice);
				touch_write(s->map + slice * XALLOC_SLICE_BYTES, me);
			}
			nr_held++;
		} else if (nr_held) {
			uint32_t pick = random_next(&seed) % nr_held;
			struct xalloc_page_grant page = held[pick];

			for (i = 0; i < page.nr_slices; i++) {
				uint64_t value = 0;

				slice = page.offset / XALLOC_SLICE_BYTES + i;
				rc = touch_read(s->map + slice * XALLOC_SLICE_BYTES, &value);
				check(s, !rc && value == me, slice);
				atomic_store(&slice_owner[slice], 0);
			}
			rc = free_page(client, page.offset);
			check(s, rc == 1, rc);
			held[pick] = held[--nr_held];
		}
	}
	/* The other threads may not have seen the end yet. */
	while (nr_held--) {
		slice = held[nr_held].offset / XALLOC_SLICE_BYTES;
		for (i = 0; i < held[nr_held].nr_slices; i++)
			atomic_store(&slice_owner[slice + i], 0);
		rc = free_page(client, held[nr_held].offset);
		check(s, rc == 1, rc);
	}
	close(client);
	return NULL;
}

TEST_F_TIMEOUT(race, grants_never_overlap, TEST_TIMEOUT_LONG)
{
	enum { NR = 4 };
	struct shared s = { .device = self->device };
	pthread_t threads[NR];
	struct xalloc_ioc_stat seen;
	uint64_t end;
	unsigned int i;

	s.arena = arena_create(self->device, ARENA_BYTES, 0);
	ASSERT_LE(0, s.arena);
	s.map = arena_map(s.arena, ARENA_BYTES);
	ASSERT_NE(NULL, s.map);
	for (i = 0; i < NR; i++) {
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, grant_and_free, &s));
	}
	end = least_end();
	while ((atomic_load(&s.nr_done) < 3000 || now_ms() < end) && !atomic_load(&s.wrong_line))
		sleep_ms(10);
	atomic_store(&s.stop, true);
	for (i = 0; i < NR; i++)
		pthread_join(threads[i], NULL);
	TH_LOG("%ld grants", atomic_load(&s.nr_done));
	expect_nothing_wrong(&s);
	EXPECT_LT(0, atomic_load(&s.nr_done));
	ASSERT_EQ(0, counters_read(s.arena, &seen));
	EXPECT_EQ(0, seen.pages);
	EXPECT_EQ(1, seen.clients);
	munmap(s.map, ARENA_BYTES);
	close(s.arena);
}

/* Two threads free the same page: one of them does, the other is told. */
static void *free_the_same(void *arg)
{
	struct shared *s = arg;
	int rc;

	for (;;) {
		pthread_barrier_wait(&s->start);
		if (atomic_load(&s->stop))
			return NULL;
		rc = free_page(s->arena, 0);
		check(s, rc == 1 || rc == -ENOENT, rc);
		atomic_fetch_add(&s->nr_done, rc == 1);
		pthread_barrier_wait(&s->end);
	}
}

/* Another client. It has slices in the middle of a hole as soon as they are free. */
static void *use_slices_of_a_hole(void *arg)
{
	struct xalloc_page_grant grant = {
		.flags = XALLOC_PAGE_AT, .nr_slices = 2, .offset = 24 * XALLOC_SLICE_BYTES,
	};
	struct shared *s = arg;
	volatile uint64_t *word = (uint64_t *)(s->map + grant.offset);
	int other = attach(s->arena, 0, NULL), i;

	check(s, other >= 0, other);
	for (;;) {
		pthread_barrier_wait(&s->start);
		if (atomic_load(&s->stop))
			break;
		while (grant_batch(other, &grant, 1) != 1)
			;
		*word = grant.offset;
		/* As long as the hole is being made, and a look after it. */
		do {
			i = atomic_load(&s->hot);
			check(s, *word == grant.offset, *word);
		} while (i);
		check(s, free_page(other, grant.offset) == 1, grant.offset);
		pthread_barrier_wait(&s->end);
	}
	close(other);
	return NULL;
}

TEST_F_TIMEOUT(race, hole_leaves_alone_what_others_are_granted_in_it, TEST_TIMEOUT_LONG)
{
	struct shared s = { .device = self->device };
	unsigned int rounds = 0, nr_holes = 0;
	uint64_t end = least_end();
	pthread_t thread;
	int rc;

	s.arena = arena_create(self->device, XALLOC_SEGMENT_BYTES, 0);
	ASSERT_LE(0, s.arena);
	s.map = arena_map(s.arena, XALLOC_SEGMENT_BYTES);
	ASSERT_NE(NULL, s.map);
	pthread_barrier_init(&s.start, NULL, 2);
	pthread_barrier_init(&s.end, NULL, 2);
	ASSERT_EQ(0, pthread_create(&thread, NULL, use_slices_of_a_hole, &s));
	do {
		rc = grant_page(s.arena, SEGMENT_SLICES, 0, NULL);
		check(&s, rc == 1, rc);
		atomic_store(&s.hot, 1);
		pthread_barrier_wait(&s.start);
		/* A fault may look like a pin for a moment; then this frees the slices. */
		rc = file_punch(s.arena, XALLOC_SLICE_BYTES, 30 * XALLOC_SLICE_BYTES);
		nr_holes += !rc;
		if (rc)
			rc = free_range(s.arena, XALLOC_SLICE_BYTES, 30 * XALLOC_SLICE_BYTES) - 1;
		check(&s, !rc, rc);
		atomic_store(&s.hot, 0);
		pthread_barrier_wait(&s.end);
		check(&s, free_page(s.arena, 0) == 1, 0);
		check(&s, free_page(s.arena, 31 * XALLOC_SLICE_BYTES) == 1, 31);
		rounds++;
	} while (goes_on(&s, rounds, 600, end, nr_holes));
	atomic_store(&s.stop, true);
	pthread_barrier_wait(&s.start);
	pthread_join(thread, NULL);
	expect_nothing_wrong(&s);
	EXPECT_LT(0, nr_holes);
	munmap(s.map, XALLOC_SEGMENT_BYTES);
	close(s.arena);
}

TEST_F_TIMEOUT(race, one_of_two_frees_wins, TEST_TIMEOUT_LONG)
{
	struct shared s = { .device = self->device };
	pthread_t threads[2];
	uint64_t end = least_end();
	unsigned int rounds = 0;

	s.arena = arena_create(self->device, XALLOC_SEGMENT_BYTES, 0);
	ASSERT_LE(0, s.arena);
	pthread_barrier_init(&s.start, NULL, 3);
	pthread_barrier_init(&s.end, NULL, 3);
	ASSERT_EQ(0, pthread_create(&threads[0], NULL, free_the_same, &s));
	ASSERT_EQ(0, pthread_create(&threads[1], NULL, free_the_same, &s));
	do {
		int rc = grant_page(s.arena, SEGMENT_SLICES, 0, NULL);

		check(&s, rc == 1, rc);
		pthread_barrier_wait(&s.start);
		pthread_barrier_wait(&s.end);
		rounds++;
	} while (goes_on(&s, rounds, 300, end, true));
	atomic_store(&s.stop, true);
	pthread_barrier_wait(&s.start);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	expect_nothing_wrong(&s);
	EXPECT_EQ(rounds, atomic_load(&s.nr_done));
	close(s.arena);
}

/* fork() while other threads map, fault and free. */
static void *grant_in_a_loop(void *arg)
{
	struct shared *s = arg;
	uint64_t turn = 0;

	do
		grant_compare_free(s, SEGMENT_SLICES, ++turn);
	while (!atomic_load(&s->stop) && !atomic_load(&s->wrong_line));
	return NULL;
}

TEST_F_TIMEOUT(race, fork_against_everything, TEST_TIMEOUT_LONG)
{
	struct shared s = { .device = self->device };
	pthread_t threads[3];
	const struct give_back none = {};
	uint64_t end = least_end();
	unsigned int rounds = 0;

	s.arena = arena_create(self->device, ARENA_BYTES, 0);
	ASSERT_LE(0, s.arena);
	s.map = arena_map(s.arena, ARENA_BYTES);
	s.second = arena_map(s.arena, ARENA_BYTES);
	ASSERT_NE(NULL, s.map);
	ASSERT_NE(NULL, s.second);
	ASSERT_EQ(0, pthread_create(&threads[0], NULL, grant_in_a_loop, &s));
	ASSERT_EQ(0, pthread_create(&threads[1], NULL, touch_both, &s));
	ASSERT_EQ(0, pthread_create(&threads[2], NULL, map_and_unmap, &s));
	do {
		pid_t pid = fork();
		int status;

		if (!pid)
			_exit(touch_read(s.map, NULL) == SIGSEGV ? 0 : 1);
		status = pid < 0 ? -errno : child_status(pid);
		check(&s, !status, status);
		rounds++;
	} while (goes_on(&s, rounds, 30, end, atomic_load(&s.nr_done) && others_ran(&s, none)));
	atomic_store(&s.stop, true);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	pthread_join(threads[2], NULL);
	TH_LOG("%u forks, %ld grants", rounds, atomic_load(&s.nr_done));
	expect_nothing_wrong(&s);
	EXPECT_LT(0, atomic_load(&s.nr_done));
	EXPECT_TRUE(others_ran(&s, none));
	munmap(s.map, ARENA_BYTES);
	munmap(s.second, ARENA_BYTES);
	close(s.arena);
}

TEST_HARNESS_MAIN
