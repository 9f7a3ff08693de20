// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: several processes share an arena, and one of them is killed at a random moment,
 * also in the middle of a call: the others go on, their pages stay theirs, and nothing leaks.
 */
#include "selftest.h"
#include "sharing.h"

#define ARENA_BYTES (64 * MIB)
#define NAME NAMES "/shared-test"
#define NR_WORKERS 4
#define NR_OWN 24
#define NR_PAGES_MAX 1024

FIXTURE(shared)
{
	int device;
	int arena;
	struct xalloc_ioc_stat before;
};

FIXTURE_VARIANT(shared)
{
	uint32_t flags;
};

FIXTURE_VARIANT_ADD(shared, persistent)
{
	.flags = XALLOC_ARENA_PERSIST,
};

FIXTURE_VARIANT_ADD(shared, not_persistent)
{
	.flags = 0,
};

FIXTURE_SETUP(shared)
{
	self->device = device_setup(_metadata, &self->before);
	unlink(NAME);
	self->arena = name_create_flags(NAME, ARENA_BYTES, variant->flags);
	ASSERT_LE(0, self->arena);
}

FIXTURE_TEARDOWN(shared)
{
	close(self->arena);
	unlink(NAME);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

struct worker {
	int arena;
	unsigned char *map;
	uint32_t random;
	struct xalloc_page_grant own[NR_OWN];
	int nr_own;
};

/* A word at the start of each slice, and one at its end. */
static void mark(struct worker *w, uint64_t offset, uint32_t nr_slices, uint64_t tag)
{
	uint32_t i;

	for (i = 0; i < nr_slices; i++) {
		volatile uint64_t *slice = (void *)(w->map + offset + i * XALLOC_SLICE_BYTES);

		slice[0] = pattern_word(tag, i);
		slice[XALLOC_SLICE_BYTES / 8 - 1] = ~pattern_word(tag, i);
	}
}

static bool is_marked(struct worker *w, uint64_t offset, uint32_t nr_slices, uint64_t tag)
{
	uint32_t i;

	for (i = 0; i < nr_slices; i++) {
		volatile uint64_t *slice = (void *)(w->map + offset + i * XALLOC_SLICE_BYTES);

		if (slice[0] != pattern_word(tag, i) ||
		    slice[XALLOC_SLICE_BYTES / 8 - 1] != ~pattern_word(tag, i))
			return false;
	}
	return true;
}

static void grant_some(struct worker *w)
{
	struct xalloc_page_grant pages[8];
	int nr = 1 + random_next(&w->random) % 8, i, rc;

	if (nr > NR_OWN - w->nr_own)
		nr = NR_OWN - w->nr_own;
	memset(pages, 0, sizeof(pages));
	for (i = 0; i < nr; i++) {
		pages[i].nr_slices = 1 + random_next(&w->random) % 20;
		pages[i].tag = (uint64_t)getpid() << 32 | random_next(&w->random);
	}
	rc = nr ? grant_batch(w->arena, pages, nr) : 0;
	require(rc >= 0 || rc == -ENOSPC || rc == -EDQUOT);
	for (i = 0; i < rc; i++) {
		mark(w, pages[i].offset, pages[i].nr_slices, pages[i].tag);
		w->own[w->nr_own++] = pages[i];
	}
}

static void free_some(struct worker *w)
{
	uint64_t offsets[8];
	int nr = 0, i;

	while (w->nr_own && nr < 8) {
		i = random_next(&w->random) % w->nr_own;
		require(is_marked(w, w->own[i].offset, w->own[i].nr_slices, w->own[i].tag));
		offsets[nr++] = w->own[i].offset;
		w->own[i] = w->own[--w->nr_own];
	}
	require(!nr || free_batch(w->arena, offsets, nr) == nr);
}

/* What a process that was killed has left behind: its own from then on, as what it was granted. */
static void claim_some(struct worker *w)
{
	struct xalloc_page_info orphans[4];
	uint64_t offset = 0;
	int nr, i, rc;

	if (w->nr_own + (int)ARRAY_SIZE(orphans) > NR_OWN)
		free_some(w);
	nr = list_some(w->arena, XALLOC_LIST_ORPHANS, 0, &offset, orphans, ARRAY_SIZE(orphans));
	require(nr >= 0);
	for (i = 0; i < nr; i++) {
		rc = claim(w->arena, orphans[i].offset);
		/* Another one was first, and may have freed it since. */
		require(rc == 1 || rc == -EBUSY || rc == -ENOENT);
		if (rc != 1)
			continue;
		mark(w, orphans[i].offset, orphans[i].nr_slices, orphans[i].tag);
		w->own[w->nr_own++] = (struct xalloc_page_grant){
			.offset = orphans[i].offset,
			.nr_slices = orphans[i].nr_slices,
			.tag = orphans[i].tag,
		};
	}
}

/* Until nobody holds the other end of @stop; says by @ready that it is at work. */
static void work(int inherited, int ready, int stop, uint32_t seed)
{
	struct worker w = { .random = seed };
	char byte;
	int i;

	w.arena = seed % 2 ? attach(inherited, 0, NULL) : name_open(NAME, O_RDWR);
	w.map = arena_map(w.arena, ARENA_BYTES);
	require(w.map);
	grant_some(&w);
	require(write(ready, "", 1) == 1);
	while (read(stop, &byte, 1) < 0 && errno == EAGAIN) {
		switch (random_next(&w.random) % 4) {
		case 0:
			free_some(&w);
			break;
		case 1:
			claim_some(&w);
			break;
		default:
			grant_some(&w);
		}
		for (i = 0; i < w.nr_own; i++)
			require(is_marked(&w, w.own[i].offset, w.own[i].nr_slices, w.own[i].tag));
	}
	while (w.nr_own)
		free_some(&w);
}

/* What the killed process has left behind is what there is. */
static void expect_balance(struct __test_metadata *_metadata, int arena, bool persists)
{
	static struct xalloc_page_info pages[NR_PAGES_MAX];
	int nr = list_all(arena, 0, pages, NR_PAGES_MAX), i;
	struct xalloc_ioc_stat stat = stat_of(arena);
	uint64_t slices = 0, end = 0;

	EXPECT_EQ(stat.pages, nr);
	if (!persists) {
		EXPECT_EQ(0, nr);
	}
	for (i = 0; i < nr; i++) {
		EXPECT_LE(end, pages[i].offset);
		end = pages[i].offset + pages[i].nr_slices * XALLOC_SLICE_BYTES;
		slices += pages[i].nr_slices;
		EXPECT_EQ(XALLOC_PAGE_ORPHAN, pages[i].flags);
		EXPECT_EQ(1, free_page(arena, pages[i].offset));
	}
	EXPECT_EQ(stat.granted_bytes, slices * XALLOC_SLICE_BYTES);
	EXPECT_EQ(1, stat.clients);
}

static void one_round(struct __test_metadata *_metadata, int arena, uint32_t *random)
{
	int ready[2], stop[2], i, victim = random_next(random) % NR_WORKERS;
	pid_t pids[NR_WORKERS];
	char bytes[NR_WORKERS];

	ASSERT_EQ(0, pipe(ready));
	ASSERT_EQ(0, pipe2(stop, O_NONBLOCK));
	for (i = 0; i < NR_WORKERS; i++) {
		uint32_t seed = random_next(random);

		pids[i] = fork();
		ASSERT_LE(0, pids[i]);
		if (!pids[i]) {
			close(ready[0]);
			close(stop[1]);
			work(arena, ready[1], stop[0], seed);
			_exit(0);
		}
	}
	close(ready[1]);
	close(stop[0]);
	for (i = 0; i < NR_WORKERS; i++)
		EXPECT_EQ(1, read(ready[0], &bytes[i], 1));
	usleep(random_next(random) % 8000);
	kill(pids[victim], SIGKILL);
	EXPECT_EQ(256 + SIGKILL, child_status(pids[victim]));
	/* The others have some time without it. */
	usleep(random_next(random) % 4000);
	close(stop[1]);
	for (i = 0; i < NR_WORKERS; i++)
		if (i != victim)
			EXPECT_EQ(0, child_status(pids[i]));
	close(ready[0]);
}

TEST_F_TIMEOUT(shared, one_is_killed_and_the_others_go_on, TEST_TIMEOUT_LONG)
{
	unsigned int rounds = is_long_run() ? 500 : 25, round;
	uint32_t seed = random_seed() | 1, state = seed;

	TH_LOG("SEED=%u, %u rounds", seed, rounds);
	for (round = 0; round < rounds; round++) {
		one_round(_metadata, self->arena, &state);
		expect_balance(_metadata, self->arena, variant->flags);
		EXPECT_EQ(0, stat_of(self->arena).pages);
		if (!__test_passed(_metadata)) {
			TH_LOG("in round %u", round);
			break;
		}
	}
}

TEST_HARNESS_MAIN
