// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: where pages are placed, that neighbours coalesce, what a limit stops, that
 * memory is zero when it is said to be, and a random walk beside a plain model.
 */
#include "selftest.h"

#define ARENA_BYTES (16 * MIB)
#define ARENA_SLICES ((unsigned int)(ARENA_BYTES / XALLOC_SLICE_BYTES))

FIXTURE(grant_free)
{
	int device;
	int arena;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(grant_free)
{
	self->device = device_setup(_metadata, &self->before);
	self->arena = arena_create(self->device, ARENA_BYTES, 0);
	ASSERT_LE(0, self->arena);
}

FIXTURE_TEARDOWN(grant_free)
{
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

static bool is_power_of_two(uint64_t value)
{
	return value && !(value & (value - 1));
}

static bool is_in_one_piece(uint64_t offset, uint64_t bytes, uint64_t piece_bytes)
{
	return offset / piece_bytes == (offset + bytes - 1) / piece_bytes;
}

static void expect_stat(struct __test_metadata *_metadata, int arena, uint64_t pages,
			uint64_t granted_bytes, uint64_t committed_bytes)
{
	struct xalloc_ioc_stat seen;

	EXPECT_EQ(0, counters_read(arena, &seen));
	EXPECT_EQ(pages, seen.pages);
	EXPECT_EQ(granted_bytes, seen.granted_bytes);
	EXPECT_EQ(committed_bytes, seen.committed_bytes);
	EXPECT_EQ(0, seen.pinned_bytes);
}

TEST_F(grant_free, every_size_to_the_arena)
{
	struct xalloc_page_grant page;
	unsigned int nr, segments;

	for (nr = 1; nr <= ARENA_SLICES; nr++) {
		uint64_t bytes = nr * XALLOC_SLICE_BYTES;

		ASSERT_EQ(1, grant_page(self->arena, nr, 0, &page)) {
			TH_LOG("page of %u slices", nr);
		}
		EXPECT_EQ(0, page.offset % XALLOC_SLICE_BYTES);
		EXPECT_LE(page.offset + bytes, ARENA_BYTES);
		EXPECT_EQ(XALLOC_PAGE_ZERO, page.flags);
		EXPECT_TRUE(is_power_of_two(page.contig_bytes));
		EXPECT_LE(XALLOC_SLICE_BYTES, page.contig_bytes);
		EXPECT_GE(XALLOC_SEGMENT_BYTES, page.contig_bytes);
		segments = (page.offset % XALLOC_SEGMENT_BYTES + bytes + XALLOC_SEGMENT_BYTES - 1) /
			   XALLOC_SEGMENT_BYTES;
		expect_stat(_metadata, self->arena, 1, bytes, segments * XALLOC_SEGMENT_BYTES);
		ASSERT_EQ(1, free_page(self->arena, page.offset));
		expect_stat(_metadata, self->arena, 0, 0, 0);
	}
}

TEST_F(grant_free, contig_lies_in_one_segment)
{
	struct xalloc_page_grant page, hole;
	unsigned int nr, round;

	/* An odd page first, so that runs of most lengths do not fit behind it. */
	for (nr = 1; nr <= SEGMENT_SLICES; nr++) {
		uint64_t offsets[8];

		ASSERT_EQ(1, grant_page(self->arena, 5, 0, &hole));
		for (round = 0; round < 7; round++) {
			ASSERT_EQ(1, grant_page(self->arena, nr, XALLOC_PAGE_CONTIG, &page)) {
				TH_LOG("page %u of %u slices", round, nr);
			}
			offsets[round] = page.offset;
			EXPECT_EQ(XALLOC_PAGE_CONTIG, page.flags & XALLOC_PAGE_CONTIG);
			EXPECT_TRUE(is_in_one_piece(page.offset, nr * XALLOC_SLICE_BYTES,
						    XALLOC_SEGMENT_BYTES));
			EXPECT_TRUE(is_in_one_piece(page.offset, nr * XALLOC_SLICE_BYTES,
						    page.contig_bytes));
		}
		ASSERT_EQ(7, free_batch(self->arena, offsets, 7));
		ASSERT_EQ(1, free_page(self->arena, hole.offset));
	}
}

/* Runs that cross segments exist, though no segment alone has that much left. */
TEST_F(grant_free, run_straddles_segments)
{
	int arena = arena_create(self->device, 2 * XALLOC_SEGMENT_BYTES, 0);
	struct xalloc_page_grant pages[2 * SEGMENT_SLICES], page;
	unsigned int i;

	ASSERT_LE(0, arena);
	memset(pages, 0, sizeof(pages));
	for (i = 0; i < ARRAY_SIZE(pages); i++)
		pages[i].nr_slices = 1;
	ASSERT_EQ(ARRAY_SIZE(pages), grant_batch(arena, pages, ARRAY_SIZE(pages)));
	/* Free slices 20 to 43 of 64. */
	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		unsigned int slice = pages[i].offset / XALLOC_SLICE_BYTES;

		if (slice >= 20 && slice < 44) {
			ASSERT_EQ(1, free_page(arena, pages[i].offset));
		}
	}
	EXPECT_EQ(-ENOSPC, grant_page(arena, 25, 0, NULL));
	EXPECT_EQ(-ENOSPC, grant_page(arena, 13, XALLOC_PAGE_CONTIG, NULL));
	ASSERT_EQ(1, grant_page(arena, 24, 0, &page));
	EXPECT_EQ(20 * XALLOC_SLICE_BYTES, page.offset);
	EXPECT_EQ(-ENOSPC, grant_page(arena, 1, 0, NULL));
	ASSERT_EQ(1, free_page(arena, page.offset));
	ASSERT_EQ(1, grant_page(arena, 12, XALLOC_PAGE_CONTIG, &page));
	ASSERT_EQ(1, grant_page(arena, 12, XALLOC_PAGE_CONTIG, &page));
	EXPECT_EQ(-ENOSPC, grant_page(arena, 1, 0, NULL));
	close(arena);
}

/* A limit that is reached leaves such a run to be had: it costs no more memory. */
TEST_F(grant_free, run_straddles_segments_under_a_limit)
{
	int arena = arena_create(self->device, ARENA_BYTES, 2 * XALLOC_SEGMENT_BYTES);
	struct xalloc_page_grant pages[2 * SEGMENT_SLICES], page;
	unsigned int i, first = UINT32_MAX;

	ASSERT_LE(0, arena);
	memset(pages, 0, sizeof(pages));
	for (i = 0; i < ARRAY_SIZE(pages); i++)
		pages[i].nr_slices = 1;
	ASSERT_EQ(ARRAY_SIZE(pages), grant_batch(arena, pages, ARRAY_SIZE(pages)));
	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		if (pages[i].offset / XALLOC_SLICE_BYTES < first)
			first = pages[i].offset / XALLOC_SLICE_BYTES;
	}
	/* The two segments are neighbours where the test can say anything. */
	ASSERT_EQ(0, first % SEGMENT_SLICES);
	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		ASSERT_GT(first + 2 * SEGMENT_SLICES, pages[i].offset / XALLOC_SLICE_BYTES);
	}
	for (i = 20; i < 44; i++) {
		ASSERT_EQ(1, free_page(arena, (first + i) * XALLOC_SLICE_BYTES));
	}
	EXPECT_EQ(-EDQUOT, grant_page(arena, 25, 0, NULL));
	EXPECT_EQ(-EDQUOT, grant_page(arena, 13, XALLOC_PAGE_CONTIG, NULL));
	ASSERT_EQ(1, grant_page(arena, 24, 0, &page));
	EXPECT_EQ((first + 20) * XALLOC_SLICE_BYTES, page.offset);
	close(arena);
}

static void fill_exactly(struct __test_metadata *_metadata, int device, uint64_t arena_bytes)
{
	unsigned int total = arena_bytes / XALLOC_SLICE_BYTES, got = 0, i;
	int arena = arena_create(device, arena_bytes, 0);
	uint8_t *taken = calloc(total, 1);
	struct xalloc_page_grant page;

	ASSERT_LE(0, arena);
	ASSERT_NE(NULL, taken);
	while (got < total) {
		ASSERT_EQ(1, grant_page(arena, 1, 0, &page)) {
			TH_LOG("slice %u of %u", got, total);
		}
		ASSERT_GT(arena_bytes, page.offset);
		ASSERT_EQ(0, taken[page.offset / XALLOC_SLICE_BYTES]++);
		got++;
	}
	EXPECT_EQ(-ENOSPC, grant_page(arena, 1, 0, NULL));
	expect_stat(_metadata, arena, total, arena_bytes, arena_bytes);

	/* Every other slice free is no run of two; the other half makes it whole. */
	for (i = 0; i < total; i += 2) {
		ASSERT_EQ(1, free_page(arena, i * XALLOC_SLICE_BYTES));
	}
	EXPECT_EQ(-ENOSPC, grant_page(arena, 2, 0, NULL));
	for (i = 1; i < total; i += 2) {
		ASSERT_EQ(1, free_page(arena, i * XALLOC_SLICE_BYTES));
	}
	expect_stat(_metadata, arena, 0, 0, 0);
	ASSERT_EQ(1, grant_page(arena, total, 0, &page));
	EXPECT_EQ(0, page.offset);
	EXPECT_EQ(XALLOC_PAGE_ZERO, page.flags);
	expect_stat(_metadata, arena, 1, arena_bytes, arena_bytes);
	free(taken);
	close(arena);
}

TEST_F(grant_free, fills_the_arena_exactly)
{
	fill_exactly(_metadata, self->device, 64 * MIB);
}

TEST_F(grant_free, fills_4096_of_4096_slices)
{
	if (meminfo_kb("MemAvailable") < 512 * 1024)
		SKIP(return, "needs 512 MiB of available memory, there are %ld kB",
		     meminfo_kb("MemAvailable"));
	fill_exactly(_metadata, self->device, 256 * MIB);
}

TEST_F(grant_free, freed_neighbours_coalesce)
{
	uint32_t seed = random_seed() | 1, state = seed;
	uint64_t offsets[ARENA_SLICES];
	struct xalloc_page_grant page;
	unsigned int nr, left, round;

	TH_LOG("SEED=%u", seed);
	for (round = 0; round < 20; round++) {
		for (left = ARENA_SLICES, nr = 0; left; nr++) {
			uint32_t want = 1 + random_next(&state) % 40;

			if (want > left)
				want = left;
			/* Where the last pages do not fit as runs, single slices must. */
			if (grant_page(self->arena, want, 0, &page) == 1) {
				left -= want;
			} else {
				ASSERT_EQ(1, grant_page(self->arena, 1, 0, &page));
				left--;
			}
			offsets[nr] = page.offset;
		}
		EXPECT_EQ(-ENOSPC, grant_page(self->arena, 1, 0, NULL));
		while (nr) {
			uint32_t pick = random_next(&state) % nr;

			ASSERT_EQ(1, free_page(self->arena, offsets[pick]));
			offsets[pick] = offsets[--nr];
		}
		ASSERT_EQ(1, grant_page(self->arena, ARENA_SLICES, 0, &page));
		ASSERT_EQ(1, free_page(self->arena, page.offset));
	}
}

TEST_F(grant_free, double_free_is_enoent)
{
	struct xalloc_page_grant page, keep;

	ASSERT_EQ(1, grant_page(self->arena, 3, 0, &keep));
	ASSERT_EQ(1, grant_page(self->arena, 3, 0, &page));
	EXPECT_EQ(1, free_page(self->arena, page.offset));
	EXPECT_EQ(-ENOENT, free_page(self->arena, page.offset));
	/* The last page of a segment as well. */
	EXPECT_EQ(1, free_page(self->arena, keep.offset));
	EXPECT_EQ(-ENOENT, free_page(self->arena, keep.offset));
	expect_stat(_metadata, self->arena, 0, 0, 0);
}

TEST_F(grant_free, interior_free_is_enoent)
{
	struct xalloc_page_grant page;
	struct xalloc_ioc_stat seen;
	unsigned int i;

	ASSERT_EQ(1, grant_page(self->arena, 70, 0, &page));
	for (i = 1; i < 70; i++) {
		EXPECT_EQ(-ENOENT, free_page(self->arena, page.offset + i * XALLOC_SLICE_BYTES));
	}
	ASSERT_EQ(0, counters_read(self->arena, &seen));
	EXPECT_EQ(1, seen.pages);
	EXPECT_EQ(70 * XALLOC_SLICE_BYTES, seen.granted_bytes);
	EXPECT_EQ(1, free_page(self->arena, page.offset));
}

TEST_F(grant_free, page_of_another_client_is_eperm)
{
	int other = attach(self->arena, 0, NULL);
	struct xalloc_page_grant mine, theirs;
	uint64_t offsets[2];

	ASSERT_LE(0, other);
	ASSERT_EQ(1, grant_page(self->arena, 2, 0, &mine));
	ASSERT_EQ(1, grant_page(other, 2, 0, &theirs));
	EXPECT_NE(mine.offset, theirs.offset);
	EXPECT_EQ(-EPERM, free_page(other, mine.offset));
	EXPECT_EQ(-EPERM, free_page(self->arena, theirs.offset));
	EXPECT_EQ(-ENOENT, free_page(other, mine.offset + XALLOC_SLICE_BYTES));
	offsets[0] = mine.offset;
	offsets[1] = theirs.offset;
	EXPECT_EQ(1, free_batch(self->arena, offsets, 2));
	EXPECT_EQ(-ENOENT, free_page(self->arena, mine.offset));
	EXPECT_EQ(1, free_page(other, theirs.offset));
	close(other);
}

TEST_F(grant_free, batch_stops_at_the_first_that_cannot_be_had)
{
	struct xalloc_page_grant pages[] = {
		{ .nr_slices = 100 },
		{ .nr_slices = 100 },
		{ .nr_slices = 100 },
		{ .nr_slices = 1 },
	};
	struct xalloc_ioc_stat seen;

	/* 256 slices: the third entry has no room; the fourth would have. */
	EXPECT_EQ(2, grant_batch(self->arena, pages, 4));
	ASSERT_EQ(0, counters_read(self->arena, &seen));
	EXPECT_EQ(2, seen.pages);
	EXPECT_EQ(200 * XALLOC_SLICE_BYTES, seen.granted_bytes);
	EXPECT_EQ(-ENOSPC, grant_batch(self->arena, pages + 2, 2));
	EXPECT_EQ(1, grant_batch(self->arena, pages + 3, 1));
	EXPECT_EQ(1, free_page(self->arena, pages[0].offset));
	EXPECT_EQ(1, free_page(self->arena, pages[1].offset));
	EXPECT_EQ(1, free_page(self->arena, pages[3].offset));
	expect_stat(_metadata, self->arena, 0, 0, 0);
}

TEST_F(grant_free, batch_of_free_stops_at_the_first_that_cannot_be_freed)
{
	static const struct {
		const char *what;
		uint64_t bad;
		int want;
	} rows[] = {
		{ "never granted", ARENA_BYTES - XALLOC_SLICE_BYTES, -ENOENT },
		{ "past the end", ARENA_BYTES, -ERANGE },
	};
	struct xalloc_page_grant pages[3];
	uint64_t offsets[4];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		memset(pages, 0, sizeof(pages));
		pages[0].nr_slices = 1;
		pages[1].nr_slices = 2;
		pages[2].nr_slices = 3;
		ASSERT_EQ(3, grant_batch(self->arena, pages, 3));
		offsets[0] = pages[0].offset;
		offsets[1] = pages[1].offset;
		offsets[2] = rows[i].bad;
		offsets[3] = pages[2].offset;
		EXPECT_EQ(2, free_batch(self->arena, offsets, 4)) {
			TH_LOG("%s", rows[i].what);
		}
		EXPECT_EQ(rows[i].want, free_batch(self->arena, offsets + 2, 2)) {
			TH_LOG("%s", rows[i].what);
		}
		expect_stat(_metadata, self->arena, 1, 3 * XALLOC_SLICE_BYTES,
			    XALLOC_SEGMENT_BYTES);
		EXPECT_EQ(1, free_batch(self->arena, offsets + 3, 1));
	}
	/* One page twice in one batch. */
	ASSERT_EQ(1, grant_page(self->arena, 1, 0, &pages[0]));
	offsets[0] = pages[0].offset;
	offsets[1] = pages[0].offset;
	EXPECT_EQ(1, free_batch(self->arena, offsets, 2));
	expect_stat(_metadata, self->arena, 0, 0, 0);
}

TEST_F(grant_free, tags_come_back_unchanged)
{
	struct xalloc_page_grant pages[] = {
		{ .nr_slices = 1, .tag = 0 },
		{ .nr_slices = 1, .tag = 1 },
		{ .nr_slices = 1, .tag = UINT64_MAX },
		{ .nr_slices = 1, .tag = 1ULL << 63 },
		{ .nr_slices = 1, .tag = 0x0123456789abcdefULL },
	};
	struct xalloc_page_grant asked[ARRAY_SIZE(pages)];
	unsigned int i;

	memcpy(asked, pages, sizeof(pages));
	ASSERT_EQ(ARRAY_SIZE(pages), grant_batch(self->arena, pages, ARRAY_SIZE(pages)));
	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		EXPECT_EQ(asked[i].tag, pages[i].tag);
		EXPECT_EQ(asked[i].nr_slices, pages[i].nr_slices);
		EXPECT_EQ(0, pages[i].align_slices);
	}
}

TEST_F(grant_free, fresh_memory_is_zero)
{
	unsigned char *map = arena_map(self->arena, ARENA_BYTES);
	struct xalloc_page_grant page;
	unsigned int round;

	ASSERT_NE(NULL, map);
	for (round = 0; round < 4; round++) {
		ASSERT_EQ(1, grant_page(self->arena, ARENA_SLICES, 0, &page));
		EXPECT_EQ(XALLOC_PAGE_ZERO, page.flags);
		EXPECT_EQ(-1, nonzero_find(map, ARENA_BYTES));
		memset(map, 0xa5, ARENA_BYTES);
		ASSERT_EQ(1, free_page(self->arena, page.offset));
	}
	munmap(map, ARENA_BYTES);
}

/* Memory that another arena's pages have been in comes back zero. */
TEST_F(grant_free, nothing_leaks_between_arenas)
{
	unsigned int round;

	for (round = 0; round < 8; round++) {
		int arena = arena_create(self->device, ARENA_BYTES, 0);
		unsigned char *map;

		ASSERT_LE(0, arena);
		map = arena_map(arena, ARENA_BYTES);
		ASSERT_NE(NULL, map);
		ASSERT_EQ(1, grant_page(arena, ARENA_SLICES, 0, NULL));
		EXPECT_EQ(-1, nonzero_find(map, ARENA_BYTES));
		memset(map, 0x5a, ARENA_BYTES);
		munmap(map, ARENA_BYTES);
		close(arena);
	}
}

/*
 * The slices of a segment that stays are zero only for the first who is granted them. There is one
 * segment, so that what is granted again can be nowhere else.
 */
TEST_F(grant_free, zero_flag_is_true)
{
	int arena = arena_create(self->device, XALLOC_SEGMENT_BYTES, 0);
	unsigned char *map = arena_map(arena, XALLOC_SEGMENT_BYTES);
	struct xalloc_page_grant keep, first, again, wider;

	ASSERT_NE(NULL, map);
	ASSERT_EQ(1, grant_page(arena, 1, 0, &keep));
	EXPECT_EQ(XALLOC_PAGE_ZERO, keep.flags);
	ASSERT_EQ(1, grant_page(arena, 31, XALLOC_PAGE_CONTIG, &first));
	EXPECT_EQ(XALLOC_PAGE_CONTIG | XALLOC_PAGE_ZERO, first.flags);
	memset(map + first.offset, 0xff, 31 * XALLOC_SLICE_BYTES);
	ASSERT_EQ(1, free_page(arena, first.offset));
	ASSERT_EQ(1, grant_page(arena, 31, XALLOC_PAGE_CONTIG, &again));
	EXPECT_EQ(first.offset, again.offset);
	EXPECT_EQ(XALLOC_PAGE_CONTIG, again.flags);
	ASSERT_EQ(1, free_page(arena, again.offset));

	/* A run with one dirty slice in it is not zero. */
	ASSERT_EQ(1, free_page(arena, keep.offset));
	ASSERT_EQ(1, grant_page(arena, 16, XALLOC_PAGE_CONTIG, &keep));
	ASSERT_EQ(1, grant_page(arena, 1, XALLOC_PAGE_CONTIG, &first));
	ASSERT_EQ(1, free_page(arena, first.offset));
	ASSERT_EQ(1, grant_page(arena, 16, XALLOC_PAGE_CONTIG, &wider));
	EXPECT_LE(wider.offset, first.offset);
	EXPECT_GT(wider.offset + 16 * XALLOC_SLICE_BYTES, first.offset);
	EXPECT_EQ(XALLOC_PAGE_CONTIG, wider.flags);
	munmap(map, XALLOC_SEGMENT_BYTES);
	close(arena);
}

TEST_F(grant_free, limit_is_exact_to_the_segment)
{
	int arena = arena_create(self->device, ARENA_BYTES, 3 * XALLOC_SEGMENT_BYTES);
	struct xalloc_page_grant pages[3], small;
	unsigned int i;

	ASSERT_LE(0, arena);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(1, grant_page(arena, SEGMENT_SLICES, 0, &pages[i]));
	}
	EXPECT_EQ(-EDQUOT, grant_page(arena, 1, 0, NULL));
	EXPECT_EQ(-EDQUOT, grant_page(arena, SEGMENT_SLICES, 0, NULL));
	expect_stat(_metadata, arena, 3, 3 * XALLOC_SEGMENT_BYTES, 3 * XALLOC_SEGMENT_BYTES);

	/* One segment given back is one segment to be had. */
	ASSERT_EQ(1, free_page(arena, pages[1].offset));
	EXPECT_EQ(-EDQUOT, grant_page(arena, 2 * SEGMENT_SLICES, 0, NULL));
	expect_stat(_metadata, arena, 2, 2 * XALLOC_SEGMENT_BYTES, 2 * XALLOC_SEGMENT_BYTES);
	for (i = 0; i < SEGMENT_SLICES; i++) {
		ASSERT_EQ(1, grant_page(arena, 1, 0, &small)) {
			TH_LOG("slice %u of the third segment", i);
		}
	}
	EXPECT_EQ(-EDQUOT, grant_page(arena, 1, 0, NULL));
	/* Room in a segment that is paid for costs nothing. */
	ASSERT_EQ(1, free_page(arena, small.offset));
	EXPECT_EQ(1, grant_page(arena, 1, 0, &small));
	close(arena);

	/* More than the limit in one page: nothing is left behind of the attempt. */
	arena = arena_create(self->device, ARENA_BYTES, 3 * XALLOC_SEGMENT_BYTES);
	ASSERT_LE(0, arena);
	EXPECT_EQ(-EDQUOT, grant_page(arena, 3 * SEGMENT_SLICES + 1, 0, NULL));
	EXPECT_EQ(-EDQUOT, grant_page(arena, ARENA_SLICES, 0, NULL));
	expect_stat(_metadata, arena, 0, 0, 0);
	EXPECT_EQ(1, grant_page(arena, 3 * SEGMENT_SLICES, 0, NULL));
	close(arena);
}

TEST_F(grant_free, limit_in_a_batch)
{
	int arena = arena_create(self->device, ARENA_BYTES, XALLOC_SEGMENT_BYTES);
	struct xalloc_page_grant pages[SEGMENT_SLICES + 8];
	unsigned int i;

	ASSERT_LE(0, arena);
	memset(pages, 0, sizeof(pages));
	for (i = 0; i < ARRAY_SIZE(pages); i++)
		pages[i].nr_slices = 1;
	EXPECT_EQ(SEGMENT_SLICES, grant_batch(arena, pages, ARRAY_SIZE(pages)));
	EXPECT_EQ(-EDQUOT, grant_batch(arena, pages + SEGMENT_SLICES, 8));
	close(arena);
}

/* ENOSPC is about offsets, EDQUOT about memory; where both hold, offsets come first. */
TEST_F(grant_free, full_arena_is_enospc)
{
	struct xalloc_page_grant page;

	ASSERT_EQ(1, grant_page(self->arena, ARENA_SLICES, 0, &page));
	EXPECT_EQ(-ENOSPC, grant_page(self->arena, 1, 0, NULL));
	EXPECT_EQ(-ENOSPC, grant_page(self->arena, ARENA_SLICES, 0, NULL));
	ASSERT_EQ(1, free_page(self->arena, page.offset));
	EXPECT_EQ(1, grant_page(self->arena, 1, 0, NULL));
}

/*
 * The model: who has which slice, and which slices nobody had since their segment got its
 * memory. It places nothing itself; it judges where the module placed.
 */
struct model {
	unsigned int nr_slices;
	unsigned int limit_segments;
	uint64_t owner[ARENA_SLICES];	/* 0: free */
	bool used[ARENA_SLICES];
	unsigned int nr_pages;
	struct model_page {
		unsigned int first;
		unsigned int nr;
		uint64_t id;
	} pages[ARENA_SLICES];
	uint64_t next_id;
};

static unsigned int segment_live(const struct model *m, unsigned int segment)
{
	unsigned int i, live = 0;

	for (i = 0; i < SEGMENT_SLICES; i++)
		live += !!m->owner[segment * SEGMENT_SLICES + i];
	return live;
}

static unsigned int committed_segments(const struct model *m)
{
	unsigned int i, nr = 0;

	for (i = 0; i < m->nr_slices / SEGMENT_SLICES; i++)
		nr += !!segment_live(m, i);
	return nr;
}

/* Segments that a run at @first would need memory for; UINT_MAX where it does not fit. */
static unsigned int run_cost(const struct model *m, unsigned int first, unsigned int nr,
			     bool contig)
{
	unsigned int i, cost = 0;

	if (first + nr > m->nr_slices)
		return UINT32_MAX;
	if (contig && first / SEGMENT_SLICES != (first + nr - 1) / SEGMENT_SLICES)
		return UINT32_MAX;
	for (i = first; i < first + nr; i++) {
		if (m->owner[i])
			return UINT32_MAX;
		if ((i == first || !(i % SEGMENT_SLICES)) && !segment_live(m, i / SEGMENT_SLICES))
			cost++;
	}
	return cost;
}

static unsigned int cheapest_run(const struct model *m, unsigned int nr, bool contig)
{
	unsigned int first, cost, best = UINT32_MAX;

	for (first = 0; first + nr <= m->nr_slices; first++) {
		cost = run_cost(m, first, nr, contig);
		if (cost < best)
			best = cost;
	}
	return best;
}

static bool model_grant(struct __test_metadata *_metadata, struct model *m, int arena,
			unsigned char *map, unsigned int nr, bool contig)
{
	unsigned int left = m->limit_segments - committed_segments(m), i, first;
	struct xalloc_page_grant page;
	bool zero = true;
	uint64_t *words;
	int rc = grant_page(arena, nr, contig ? XALLOC_PAGE_CONTIG : 0, &page);

	if (rc != 1) {
		unsigned int cheapest = cheapest_run(m, nr, contig);
		/*
		 * Short runs must find room that is paid for already. For long ones any
		 * place that fits the arena will do, so a limit may strike early there.
		 */
		bool early = cheapest <= left && nr <= SEGMENT_SLICES;
		/* A run longer than the limit is refused before a place is looked for. */
		bool is_too_long = nr > m->limit_segments * SEGMENT_SLICES;
		int want = cheapest == UINT32_MAX && !is_too_long ? -ENOSPC : -EDQUOT;

		EXPECT_EQ(want, rc) {
			TH_LOG("%u slices%s", nr, contig ? " in one piece" : "");
		}
		EXPECT_FALSE(early) {
			TH_LOG("%u slices%s need %u segments, %u are left", nr,
			       contig ? " in one piece" : "", cheapest, left);
		}
		return rc == want && !early;
	}
	first = page.offset / XALLOC_SLICE_BYTES;
	EXPECT_EQ(0, page.offset % XALLOC_SLICE_BYTES);
	EXPECT_GE(left, run_cost(m, first, nr, contig)) {
		TH_LOG("%u slices%s at slice %u: not free, not in the arena, or over the limit",
		       nr, contig ? " in one piece" : "", first);
		return false;
	}
	for (i = first; i < first + nr; i++)
		zero = zero && !m->used[i];
	EXPECT_EQ((contig ? XALLOC_PAGE_CONTIG : 0) | (zero ? XALLOC_PAGE_ZERO : 0), page.flags) {
		TH_LOG("%u slices at slice %u", nr, first);
		return false;
	}
	words = (uint64_t *)(map + page.offset);
	if (zero && (words[0] || words[nr * XALLOC_SLICE_BYTES / 8 - 1])) {
		EXPECT_EQ(0, words[0]);
		EXPECT_EQ(0, words[nr * XALLOC_SLICE_BYTES / 8 - 1]);
		return false;
	}
	m->next_id++;
	for (i = first; i < first + nr; i++) {
		m->owner[i] = m->next_id;
		m->used[i] = true;
		words = (uint64_t *)(map + i * XALLOC_SLICE_BYTES);
		words[0] = m->next_id;
		words[XALLOC_SLICE_BYTES / 8 - 1] = m->next_id;
	}
	m->pages[m->nr_pages++] = (struct model_page){ first, nr, m->next_id };
	return true;
}

static bool model_free(struct __test_metadata *_metadata, struct model *m, int arena,
		       unsigned char *map, unsigned int pick)
{
	struct model_page page = m->pages[pick];
	unsigned int i, j, segment;

	for (i = page.first; i < page.first + page.nr; i++) {
		uint64_t *words = (uint64_t *)(map + i * XALLOC_SLICE_BYTES);

		if (words[0] != page.id || words[XALLOC_SLICE_BYTES / 8 - 1] != page.id) {
			EXPECT_EQ(page.id, words[0]);
			EXPECT_EQ(page.id, words[XALLOC_SLICE_BYTES / 8 - 1]);
			return false;
		}
	}
	EXPECT_EQ(1, free_page(arena, page.first * XALLOC_SLICE_BYTES)) {
		return false;
	}
	m->pages[pick] = m->pages[--m->nr_pages];
	for (i = page.first; i < page.first + page.nr; i++)
		m->owner[i] = 0;
	for (i = page.first; i < page.first + page.nr; i++) {
		segment = i / SEGMENT_SLICES;
		if (segment_live(m, segment))
			continue;
		for (j = 0; j < SEGMENT_SLICES; j++)
			m->used[segment * SEGMENT_SLICES + j] = false;
	}
	return true;
}

static void model_run(struct __test_metadata *_metadata, int device, unsigned int limit_segments)
{
	unsigned int steps = turns(is_long_run() ? 200000 : 6000), step, i;
	int arena = arena_create(device, ARENA_BYTES, limit_segments * XALLOC_SEGMENT_BYTES);
	uint32_t seed = random_seed() | 1, state = seed;
	struct model *m = calloc(1, sizeof(*m));
	struct xalloc_ioc_stat seen;
	unsigned char *map;
	bool good = true;

	TH_LOG("SEED=%u, %u steps", seed, steps);
	ASSERT_LE(0, arena);
	ASSERT_NE(NULL, m);
	map = arena_map(arena, ARENA_BYTES);
	ASSERT_NE(NULL, map);
	m->nr_slices = ARENA_SLICES;
	m->limit_segments = limit_segments;
	for (step = 0; step < steps && good; step++) {
		uint32_t dice = random_next(&state) % 100;
		/* Phases of growth and of decline, so that full and empty are both seen. */
		uint32_t grow = step / 300 % 2 ? 40 : 60;

		if (dice < grow || !m->nr_pages) {
			uint32_t kind = random_next(&state) % 16, nr;

			if (kind < 10)
				nr = 1 + random_next(&state) % 8;
			else if (kind < 14)
				nr = 1 + random_next(&state) % SEGMENT_SLICES;
			else
				nr = 1 + random_next(&state) % 100;
			good = model_grant(_metadata, m, arena, map, nr,
					   nr <= SEGMENT_SLICES && random_next(&state) % 4 == 0);
		} else {
			good = model_free(_metadata, m, arena, map,
					  random_next(&state) % m->nr_pages);
		}
		if (!good || step % 16)
			continue;
		uint64_t granted = 0;

		for (i = 0; i < m->nr_pages; i++)
			granted += m->pages[i].nr * XALLOC_SLICE_BYTES;
		good = !counters_read(arena, &seen) && seen.pages == m->nr_pages &&
		       seen.granted_bytes == granted && !seen.pinned_bytes &&
		       seen.committed_bytes == committed_segments(m) * XALLOC_SEGMENT_BYTES;
		if (!good) {
			expect_stat(_metadata, arena, m->nr_pages, granted,
				    committed_segments(m) * XALLOC_SEGMENT_BYTES);
		}
	}
	EXPECT_TRUE(good) {
		TH_LOG("step %u; run again with SEED=%u", step, seed);
	}
	while (good && m->nr_pages)
		good = model_free(_metadata, m, arena, map, 0);
	munmap(map, ARENA_BYTES);
	close(arena);
	free(m);
}

TEST_F_TIMEOUT(grant_free, random_walk, TEST_TIMEOUT_LONG)
{
	model_run(_metadata, self->device, ARENA_SLICES / SEGMENT_SLICES);
}

TEST_F_TIMEOUT(grant_free, random_walk_under_a_limit, TEST_TIMEOUT_LONG)
{
	model_run(_metadata, self->device, 3);
}

/* Two clients of one arena never hold the same slice, and each frees its own alone. */
TEST_F(grant_free, clients_share_segments_not_slices)
{
	enum { ROUNDS = 400 };
	int fds[2] = { self->arena, attach(self->arena, 0, NULL) };
	uint8_t owner[ARENA_SLICES] = { 0 };
	uint32_t seed = random_seed() | 1, state = seed;
	struct xalloc_page_grant page;
	unsigned int round, slice, who;

	TH_LOG("SEED=%u", seed);
	ASSERT_LE(0, fds[1]);
	for (round = 0; round < ROUNDS; round++) {
		who = random_next(&state) % 2;
		slice = random_next(&state) % ARENA_SLICES;
		if (owner[slice]) {
			int want = owner[slice] == who + 1 ? 1 : -EPERM;

			ASSERT_EQ(want, free_page(fds[who], slice * XALLOC_SLICE_BYTES));
			if (want == 1)
				owner[slice] = 0;
		} else {
			ASSERT_EQ(-ENOENT, free_page(fds[who], slice * XALLOC_SLICE_BYTES));
		}
		if (grant_page(fds[who], 1, 0, &page) == 1) {
			slice = page.offset / XALLOC_SLICE_BYTES;
			ASSERT_EQ(0, owner[slice]);
			owner[slice] = who + 1;
		}
	}
	close(fds[1]);
	for (slice = 0; slice < ARENA_SLICES; slice++) {
		int want = owner[slice] == 1 ? 1 : -ENOENT;

		EXPECT_EQ(want, free_page(self->arena, slice * XALLOC_SLICE_BYTES));
	}
	expect_stat(_metadata, self->arena, 0, 0, 0);
}

TEST_HARNESS_MAIN
