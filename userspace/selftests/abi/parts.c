// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: slices inside of pages are freed, what remains is a page, and its memory stays; a
 * page is granted at an offset that the caller names, also in the hole that a freed part left.
 */
#include "gup.h"
#include "selftest.h"
#include "sharing.h"

#define LONG_BYTES (40 * XALLOC_SEGMENT_BYTES)
#define NR_SLICES_MAX (LONG_BYTES / XALLOC_SLICE_BYTES)
#define WAIT_MS 10000
#define PIPE_BYTES (4 * KPAGE_BYTES)
#define FIRST_TAG 1
#define AT(slice) ((slice) * XALLOC_SLICE_BYTES)

/* The model: what LIST is to say of the page that has a slice. */
struct slice {
	uint64_t tag;	/* 0: the slice is free */
	uint64_t id;
	uint32_t flags;
	bool is_first;
};

/* The arena and its clients. Each test has a process of its own. */
static struct {
	int clients[2];
	uint64_t ids[2];
	unsigned char *map;
	unsigned int nr_slices;
	unsigned int piece_slices;	/* Memory goes back by so many slices. */
	unsigned int nr_pinned;		/* So many pieces are pinned and have no page. */
	bool persists;			/* A page stays when its client goes. */
	struct slice model[NR_SLICES_MAX + 1];
	uint64_t last_tag;
	uint32_t answered;		/* flags of the last grant */
} arena;

FIXTURE(parts)
{
	int device;
	struct xalloc_ioc_stat before;
};

FIXTURE_VARIANT(parts)
{
	uint32_t policy;
	uint32_t flags;
};

FIXTURE_VARIANT_ADD(parts, huge)
{
	.policy = XALLOC_POLICY_HUGE,
};

FIXTURE_VARIANT_ADD(parts, small)
{
	.policy = XALLOC_POLICY_SMALL,
};

FIXTURE_VARIANT_ADD(parts, persistent)
{
	.policy = XALLOC_POLICY_HUGE, .flags = XALLOC_ARENA_PERSIST,
};

static void arena_make(struct __test_metadata *_metadata, int device, uint64_t bytes,
		       const FIXTURE_VARIANT(parts) * variant)
{
	struct xalloc_ioc_arena_create create = {
		.size = sizeof(create),
		.flags = variant->flags,
		.arena_bytes = bytes,
		.policy = variant->policy,
	};
	int fd = call(device, XALLOC_IOC_ARENA_CREATE, &create), i;
	struct xalloc_ioc_attach arg;

	for (i = 0; i < 2; i++) {
		arena.clients[i] = attach(fd, 0, &arg);
		arena.ids[i] = arg.client_id;
	}
	close(fd);
	arena.persists = variant->flags & XALLOC_ARENA_PERSIST;
	arena.map = arena_map(arena.clients[0], bytes);
	ASSERT_NE(NULL, arena.map);
	arena.nr_slices = bytes / XALLOC_SLICE_BYTES;
	arena.piece_slices = variant->policy == XALLOC_POLICY_SMALL ? 1 : SEGMENT_SLICES;
}

static void arena_drop(void)
{
	munmap(arena.map, AT(arena.nr_slices));
	close(arena.clients[1]);
	close(arena.clients[0]);
}

FIXTURE_SETUP(parts)
{
	self->device = device_setup(_metadata, &self->before);
	arena_make(_metadata, self->device, ARENA_BYTES, variant);
}

FIXTURE_TEARDOWN(parts)
{
	arena_drop();
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* Notes in the model that the slices are free. */
static void forget(unsigned int first, unsigned int nr)
{
	memset(arena.model + first, 0, nr * sizeof(*arena.model));
	arena.model[first + nr].is_first = arena.model[first + nr].tag;
}

static int free_part(int who, unsigned int first, unsigned int nr)
{
	int rc = free_range(arena.clients[who], AT(first), AT(nr));

	if (rc == 1)
		forget(first, nr);
	return rc;
}

/* Fills each slice with a pattern. Returns 1, the negative errno, or 0 for a wrong answer. */
static int grant_to(int who, unsigned int first, unsigned int nr, uint32_t flags)
{
	struct xalloc_page_grant page = {
		.nr_slices = nr, .flags = flags, .offset = AT(first), .tag = ++arena.last_tag,
	};
	int rc = grant_batch(arena.clients[who], &page, 1);
	unsigned int i;

	if (rc != 1)
		return rc;
	arena.answered = page.flags;
	if ((page.flags != flags && page.flags != (flags | XALLOC_PAGE_ZERO)) ||
	    (flags & XALLOC_PAGE_AT && page.offset != AT(first)) ||
	    page.offset + AT(nr) > AT(arena.nr_slices) ||
	    (page.flags & XALLOC_PAGE_ZERO && nonzero_find(arena.map + page.offset, AT(nr)) != -1))
		return 0;
	first = page.offset / AT(1);
	for (i = first; i < first + nr; i++) {
		if (arena.model[i].tag)
			return 0;
		arena.model[i] = (struct slice){
			page.tag, arena.ids[who], 0, i == first,
		};
		pattern_fill(arena.map + AT(i), AT(1), page.tag + i);
	}
	return 1;
}

static int grant_at(int who, unsigned int first, unsigned int nr)
{
	return grant_to(who, first, nr, XALLOC_PAGE_AT);
}

/* Whether LIST, STAT and the memory are as the model says. */
static bool is_as_modelled(void)
{
	static struct xalloc_page_info want[NR_SLICES_MAX], seen[NR_SLICES_MAX];
	unsigned int nr = 0, nr_granted = 0, nr_pieces = arena.nr_pinned, nr_owned = 0, i;
	struct xalloc_ioc_stat stat = stat_of(arena.clients[0]);
	int listed = list_all(arena.clients[0], 0, seen, NR_SLICES_MAX);

	for (i = 0; i < arena.nr_slices; i++) {
		const struct slice *slice = &arena.model[i];

		if (i % arena.piece_slices == 0)
			nr_owned = 0;
		if (slice->is_first)
			want[nr++] = (struct xalloc_page_info){
				AT(i), slice->tag, slice->id, 0, slice->flags,
			};
		if (slice->tag) {
			want[nr - 1].nr_slices++;
			nr_granted++;
			nr_pieces += !nr_owned++;
			if (pattern_mismatch(arena.map + AT(i), AT(1), slice->tag + i) != -1)
				break;
		}
		/* What is freed and exported can be touched. */
		if (!nr_owned && (i + 1) % arena.piece_slices == 0 && !stat.exported_bytes &&
		    touch_read(arena.map + AT(i), NULL) != SIGBUS)
			break;
	}
	/* STAT counts a freed page that is exported, LIST does not have it. */
	if (i == arena.nr_slices && listed == (int)nr &&
	    !memcmp(want, seen, nr * sizeof(*want)) &&
	    (stat.exported_bytes ||
	     (stat.pages == nr && stat.granted_bytes == AT(nr_granted) &&
	      stat.committed_bytes == AT(nr_pieces * arena.piece_slices) &&
	      stat.pinned_bytes == AT(arena.nr_pinned * arena.piece_slices))))
		return true;
	fprintf(stderr, "# looked at %u slices; %d pages and %llu pieces, of %u and %u\n", i,
		listed, stat.committed_bytes / AT(arena.piece_slices), nr, nr_pieces);
	return false;
}

/* A call that is refused changes nothing, and one that succeeds nothing besides. */
#define STEP(want, ...) do {			\
	EXPECT_EQ(want, __VA_ARGS__);		\
	EXPECT_TRUE(is_as_modelled());	\
} while (0)

TEST_F(parts, what_remains_is_a_page)
{
	STEP(1, grant_at(0, 4, 40));
	STEP(1, grant_at(0, 44, 30));
	STEP(1, grant_at(0, 74, 2));
	/* In the middle, at both ends, around a border of segments. */
	STEP(1, free_part(0, 10, 2));
	STEP(1, free_part(0, 4, 1));
	STEP(1, free_part(0, 9, 1));
	STEP(1, free_part(0, 31, 2));
	/* Over three pages, and then where two of them begin and end. */
	STEP(1, free_part(0, 40, 35));
	STEP(-ENOENT, free_page(arena.clients[0], AT(34)));
	forget(33, 7);
	STEP(1, free_page(arena.clients[0], AT(33)));
}

TEST_F(parts, refused_range)
{
	static const struct xalloc_range bad[] = {
		{ AT(1), AT(1) - 1 }, { AT(1), AT(1) + 1 }, { AT(1) + 1, AT(1) }, { AT(1), -1UL },
		/* From here on they are too far. */
		{ AT(127), AT(2) }, { AT(128), AT(1) }, { AT(1), AT(128) }, { AT(1), 1ULL << 63 },
		{ 1ULL << 63, 1ULL << 63 }, { AT(1), -AT(1) }, { -AT(1), AT(2) },
	};
	unsigned int i;

	STEP(1, grant_at(0, 0, 20));
	STEP(1, grant_at(0, 30, 10));
	STEP(1, grant_at(1, 40, 4));
	STEP(1, grant_at(0, 44, 10));
	STEP(1, free_part(0, 7, 3));
	STEP(-ENOENT, free_part(0, 7, 3));
	STEP(-ENOENT, free_part(0, 0, 8));
	STEP(-ENOENT, free_part(0, 0, 20));
	STEP(-ENOENT, free_part(0, 15, 20));
	if (!arena.persists) {
		STEP(-EPERM, free_part(0, 40, 1));
		STEP(-EPERM, free_part(0, 30, 24));
		STEP(-EPERM, free_part(1, 0, 1));
	}
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		STEP(i < 4 ? -EINVAL : -ERANGE, free_ranges(arena.clients[0], &bad[i], 1));
}

TEST_F(parts, batch_stops_at_the_first_bad_entry)
{
	const struct xalloc_range ranges[] = {
		{ AT(2), AT(3) },
		{ AT(20), 0 },
		{ AT(4), AT(2) },	/* The first entry has freed one of these. */
		{ AT(10), AT(1) },
	};
	struct xalloc_page_grant pages[] = {
		{ .nr_slices = 10, .flags = XALLOC_PAGE_AT, .offset = AT(60) },
		{ .nr_slices = 10, .flags = XALLOC_PAGE_AT, .offset = AT(69) },
	};

	STEP(1, grant_at(0, 0, 20));
	STEP(1, grant_at(0, 20, 20));
	forget(2, 3);
	forget(20, 20);
	STEP(2, free_ranges(arena.clients[0], ranges, ARRAY_SIZE(ranges)));
	STEP(-ENOENT, free_ranges(arena.clients[0], ranges + 2, 2));
	EXPECT_EQ(1, grant_batch(arena.clients[0], pages, 2));
	STEP(1, free_page(arena.clients[0], AT(60)));
}

/* Parts go with their client, or are orphans as the whole would be. A new client comes. */
static bool client_dies(void)
{
	struct xalloc_ioc_attach arg;
	unsigned int i;

	close(arena.clients[1]);
	for (i = 0; i < arena.nr_slices; i++) {
		if (arena.model[i].id != arena.ids[1])
			continue;
		if (arena.persists)
			arena.model[i].flags |= XALLOC_PAGE_ORPHAN;
		else
			forget(i, 1);
	}
	arena.clients[1] = attach(arena.clients[0], 0, &arg);
	arena.ids[1] = arg.client_id;
	return arena.clients[1] >= 0;
}

TEST_F(parts, pages_of_another_client)
{
	int lives = arena.persists ? 1 : -EPERM, dead = arena.persists ? 1 : -ENOENT;

	STEP(1, grant_at(1, 0, 40));
	STEP(1, grant_at(1, 40, 10));
	STEP(lives, free_part(0, 38, 3));
	STEP(lives, free_part(0, 10, 10));
	STEP(1, free_part(1, 30, 2));
	STEP(1, free_part(1, 41, 4));
	STEP(true, client_dies());
	STEP(dead, free_part(0, 24, 2));
	STEP(dead, free_part(0, 0, 5));
}

static int export(int client, unsigned int first, unsigned int nr)
{
	struct xalloc_ioc_export arg = { sizeof(arg), 0, AT(first), AT(nr) };

	return call(client, XALLOC_IOC_EXPORT, &arg);
}

TEST_F(parts, exported_page_is_freed_as_a_whole)
{
	int dmabuf;

	STEP(1, grant_at(0, 0, 10));
	STEP(1, grant_at(0, 10, 40));
	STEP(1, grant_at(0, 50, 10));
	dmabuf = export(arena.clients[0], 20, 2);
	ASSERT_LE(0, dmabuf);
	STEP(-EBUSY, free_part(0, 20, 2));
	STEP(-EBUSY, free_part(0, 12, 4));
	STEP(-EBUSY, free_part(0, 0, 49));
	STEP(-EBUSY, free_part(0, 49, 11));
	/* All of it, and parts of its neighbours. */
	STEP(1, free_part(0, 5, 50));
	EXPECT_EQ(AT(40), stat_of(arena.clients[0]).exported_bytes);
	STEP(-ENOENT, free_part(0, 12, 2));
	STEP(-EEXIST, grant_at(0, 12, 2));
	close(dmabuf);
	STEP(true, wait_for(grant_at(0, 12, 2) == 1, WAIT_MS));
}

TEST_F(parts, long_page_goes_back_in_parts)
{
	arena_drop();
	arena_make(_metadata, self->device, LONG_BYTES, variant);
	STEP(1, grant_at(0, 0, NR_SLICES_MAX));
	STEP(1, free_part(0, 0, 101));
	STEP(1, free_part(0, 1250, 30));
	STEP(1, free_part(0, 640, 64));
	STEP(1, free_part(0, 101, 59));
	STEP(1, free_part(0, 500, 140));
	/* The holes can be granted again, whether or not they have memory. */
	STEP(1, grant_at(1, 510, 100));
	STEP(1, grant_at(0, 1250, 30));
	STEP(1, free_part(0, 704, 500));
	STEP(1, free_part(0, 160, 340));
	STEP(1, free_part(1, 511, 98));
}

/* Freed by a client that lives, so it may be granted again at once: it is the same memory. */
TEST_F(parts, pinned_part_stays)
{
	int fds[2];

	STEP(1, grant_at(0, 0, 128));
	fds[0] = pipe_with(_metadata, arena.map + AT(40), PIPE_BYTES);
	fds[1] = pipe_with(_metadata, arena.map + AT(100), PIPE_BYTES);
	arena.nr_pinned = 1;
	STEP(1, free_part(0, 32, 32));
	/* What is free in a huge page that has a page does not count as pinned. */
	arena.nr_pinned = arena.piece_slices == 1 ? 2 : 1;
	STEP(1, free_part(0, 98, 4));
	EXPECT_EQ(1, grant_to(1, 99, 2, XALLOC_PAGE_AT));
	EXPECT_EQ(XALLOC_PAGE_AT, arena.answered);
	arena.nr_pinned = 1;
	EXPECT_TRUE(is_as_modelled());
	expect_pipe_holds(_metadata, fds[0], PIPE_BYTES, FIRST_TAG + 40);
	/* The pattern is that of the second grant. */
	expect_pipe_holds(_metadata, fds[1], PIPE_BYTES, FIRST_TAG + 1 + 100);
	close(fds[0]);
	close(fds[1]);
	arena.nr_pinned = 0;
	EXPECT_TRUE(pinned_wait(_metadata, arena.clients[0], 0, WAIT_MS));
	STEP(1, free_part(1, 100, 1));
}

TEST_F(parts, page_at_an_offset)
{
	const bool is_small = arena.piece_slices == 1;
	const uint32_t contig = XALLOC_PAGE_AT | XALLOC_PAGE_CONTIG;
	struct xalloc_page_grant page = { .nr_slices = 1, .flags = XALLOC_PAGE_AT, .offset = 1 };

	STEP(1, grant_at(0, 127, 1));
	EXPECT_EQ(XALLOC_PAGE_AT | XALLOC_PAGE_ZERO, arena.answered);
	STEP(1, grant_at(0, 0, 1));
	STEP(1, grant_at(1, 20, 50));
	STEP(-EEXIST, grant_at(0, 0, 1));
	STEP(-EEXIST, grant_at(1, 20, 50));
	STEP(-EEXIST, grant_at(1, 10, 11));
	STEP(-EEXIST, grant_at(1, 69, 5));
	STEP(-EEXIST, grant_at(1, 1, 126));
	STEP(-EINVAL, grant_batch(arena.clients[0], &page, 1));
	STEP(-ERANGE, grant_at(0, 128, 1));
	STEP(-ERANGE, grant_at(0, 126, 3));
	STEP(-ERANGE, grant_at(0, -1U, 1));
	STEP(-EFBIG, grant_at(0, 0, 129));
	/* The hole of a freed part has been used, unless its memory went back. */
	STEP(1, free_part(1, 33, 10));
	STEP(-EEXIST, grant_at(0, 33, 11));
	STEP(1, grant_at(0, 33, 5));
	EXPECT_EQ(XALLOC_PAGE_AT | (is_small ? XALLOC_PAGE_ZERO : 0), arena.answered);
	STEP(1, grant_to(0, 38, 5, XALLOC_PAGE_AT | XALLOC_PAGE_ZERO));
	STEP(1, free_part(0, 33, 10));
	STEP(1, free_part(1, 20, 13));
	STEP(1, free_part(1, 43, 27));
	STEP(1, grant_at(0, 20, 76));
	STEP(1, free_part(0, 20, 76));
	STEP(is_small ? -EOPNOTSUPP : 1, grant_to(0, 32, 32, contig));
	if (is_small)
		return;
	STEP(1, free_part(0, 40, 24));
	STEP(1, grant_to(0, 60, 4, contig));
	STEP(-EINVAL, grant_to(0, 94, 4, contig));
	STEP(-EFBIG, grant_to(0, 64, 33, contig));
}

/* Of what a dead client left, the part that a pipe has memory of waits for the pipe. */
TEST_F(parts, part_of_a_dead_client)
{
	int fd;

	if (arena.persists)
		SKIP(return, "a client leaves its pages");
	STEP(1, grant_at(1, 20, 40));
	STEP(1, free_part(1, 30, 2));
	fd = pipe_with(_metadata, arena.map + AT(40), PIPE_BYTES);
	arena.nr_pinned = 28 / arena.piece_slices ?: 1;
	STEP(true, client_dies());
	STEP(-EBUSY, grant_at(0, 40, 1));
	STEP(-EBUSY, grant_at(1, 31, 10));
	STEP(-EBUSY, grant_at(1, 59, 2));
	STEP(-ENOENT, free_part(0, 40, 1));
	STEP(1, grant_at(0, 20, 12));
	/* A huge page that has a page again does not count as pinned. */
	arena.nr_pinned -= arena.piece_slices == 1 ? 0 : 1;
	STEP(1, grant_at(1, 60, 10));
	expect_pipe_holds(_metadata, fd, PIPE_BYTES, FIRST_TAG + 40);
	/* The pipe is empty, and still there. */
	arena.nr_pinned = 0;
	STEP(true, wait_for(grant_at(1, 32, 28) == 1, WAIT_MS));
	close(fd);
}

/* Nobody leaves memory behind: the page is had, or another has it. */
TEST_F(parts, two_want_the_same_offset)
{
	pid_t pid = fork();
	int client = arena.clients[!pid], nr = turns(2000), wrong = 0, i;

	ASSERT_LE(0, pid);
	for (i = 0; i < nr; i++) {
		struct xalloc_page_grant page = { .nr_slices = 8, .flags = XALLOC_PAGE_AT };
		int rc = grant_batch(client, &page, 1);

		rc = rc == 1 ? free_range(client, 0, AT(8)) : rc;
		wrong = rc == 1 || rc == -EEXIST ? wrong : rc;
	}
	if (!pid)
		_exit(-wrong);
	EXPECT_EQ(0, wrong);
	STEP(0, child_status(pid));
}

/* One call, or the death of a client. Returns whether the answer is as the model says. */
static bool random_step(uint32_t *state)
{
	uint32_t dice = random_next(state) % 100, nr = 1 + random_next(state) % 24, run = 0, i;
	uint32_t first = random_next(state) % arena.nr_slices, who = random_next(state) % 2;
	uint32_t flags = random_next(state) % 4 ? 0 : XALLOC_PAGE_ZERO, nr_taken = 0, nr_own = 0;
	int rc;

	if (dice == 0)
		return client_dies();
	if (dice < 20) {
		rc = grant_to(who, 0, nr, flags);
		for (i = 0; i < arena.nr_slices && run < nr; i++)
			run = arena.model[i].tag ? 0 : run + 1;
		return rc == 1 || (rc == -ENOSPC && run < nr);
	}
	for (i = first; i < first + nr && i < arena.nr_slices; i++) {
		nr_taken += !!arena.model[i].tag;
		nr_own += arena.model[i].tag &&
			  (arena.persists || arena.model[i].id == arena.ids[who]);
	}
	if (dice < 45)
		rc = grant_to(who, first, nr, flags | XALLOC_PAGE_AT);
	else
		rc = free_part(who, first, nr);
	if (first + nr > arena.nr_slices)
		return rc == -ERANGE;
	if (dice < 45)
		return rc == (nr_taken ? -EEXIST : 1);
	return (nr_taken < nr && rc == -ENOENT) || (nr_own < nr_taken && rc == -EPERM) ||
	       (nr_own == nr && rc == 1);
}

TEST_F(parts, random_walk)
{
	unsigned int steps = turns(is_long_run() ? 20000 : 500), step;
	uint32_t seed = random_seed() | 1, state = seed;
	bool good = true;

	TH_LOG("SEED=%u, %u steps", seed, steps);
	for (step = 0; step < steps && good; step++)
		good = random_step(&state) && is_as_modelled();
	EXPECT_TRUE(good) {
		TH_LOG("step %u; run again with SEED=%u", step, seed);
	}
}

TEST_HARNESS_MAIN
