// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: what is unmapped when memory is freed or its client is closed, counted in the
 * address ranges that the kernel unmaps, and what that costs neighbours, counted in their faults.
 */
#include "events.h"
#include "gup.h"
#include "selftest.h"

#define NR_SEGMENTS 64
#define BYTES (NR_SEGMENTS * XALLOC_SEGMENT_BYTES)
#define NR_NEIGHBOURS_MAX 128

/* The kernel calls it once for each range of each vma that it unmaps. */
#define UNMAP_FUNCTION "tlb_gather_mmu"

FIXTURE(unmap)
{
	int device;
	int arena;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(unmap)
{
	self->device = device_setup(_metadata, &self->before);
	self->arena = arena_create(self->device, BYTES, 0);
	ASSERT_LE(0, self->arena);
}

FIXTURE_TEARDOWN(unmap)
{
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* The arena full of pages of @nr_slices; those of @client. */
static void fill_arena(struct __test_metadata *_metadata, int client, unsigned int nr_slices)
{
	unsigned int nr = NR_SEGMENTS * SEGMENT_SLICES / nr_slices;

	while (nr--)
		ASSERT_EQ(1, grant_page(client, nr_slices, 0, NULL));
}

static void touch_segments(unsigned char *map)
{
	unsigned int i;

	for (i = 0; i < NR_SEGMENTS; i++)
		map[i * XALLOC_SEGMENT_BYTES] = 1;
}

/* How many pages of half a segment there is room for. */
static unsigned int grant_halves(int arena)
{
	unsigned int nr = 0;

	while (grant_page(arena, SEGMENT_SLICES / 2, 0, NULL) == 1)
		nr++;
	return nr;
}

FIXTURE_VARIANT(unmap)
{
	unsigned int nr_neighbours;	/* mappings, of which the first may touch the arena */
	unsigned int nr_slices;		/* of each page */
};

FIXTURE_VARIANT_ADD(unmap, beside_one)
{
	.nr_neighbours = 1,
	.nr_slices = 1,
};

FIXTURE_VARIANT_ADD(unmap, beside_128)
{
	.nr_neighbours = NR_NEIGHBOURS_MAX,
	.nr_slices = 1,
};

FIXTURE_VARIANT_ADD(unmap, one_page_beside_128)
{
	.nr_neighbours = NR_NEIGHBOURS_MAX,
	.nr_slices = NR_SEGMENTS * SEGMENT_SLICES,
};

/* Closes a client whose pages fill the arena, and expects @want ranges to be unmapped. */
static void expect_unmaps(struct __test_metadata *_metadata, FIXTURE_DATA(unmap) * self,
			  const FIXTURE_VARIANT(unmap) * variant, bool touched, uint64_t want)
{
	unsigned char *maps[NR_NEIGHBOURS_MAX];
	int client = attach(self->arena, 0, NULL), counter;
	uint64_t before;
	unsigned int i;

	ASSERT_LE(0, client);
	if (!probe_make("unmapped", UNMAP_FUNCTION, ""))
		SKIP(goto out, "this kernel has no probes");
	counter = events_open("xalloc/unmapped", NULL);
	ASSERT_LE(0, counter);
	for (i = 0; i < variant->nr_neighbours; i++) {
		maps[i] = arena_map(self->arena, BYTES);
		ASSERT_NE(NULL, maps[i]);
	}
	fill_arena(_metadata, client, variant->nr_slices);
	if (touched)
		touch_segments(maps[0]);
	before = events_read(counter);
	ASSERT_EQ(0, close(client));
	EXPECT_EQ(want, events_read(counter) - before);
	EXPECT_EQ(0, stat_of(self->arena).committed_bytes);
	for (i = 0; i < variant->nr_neighbours; i++)
		munmap(maps[i], BYTES);
	close(counter);
	probe_remove("unmapped");
	return;
out:
	close(client);
}

TEST_F(unmap, close_unmaps_nothing_that_is_not_mapped)
{
	expect_unmaps(_metadata, self, variant, false, 0);
}

/* One run of segments, in each mapping that there is. */
TEST_F(unmap, close_unmaps_a_run_once)
{
	expect_unmaps(_metadata, self, variant, true, variant->nr_neighbours);
}

/* Each segment has half a dead client's, which a pipe holds, and half ours. */
TEST(neighbours_of_a_pin_take_no_faults)
{
	struct xalloc_ioc_stat before;
	int device = device_setup(_metadata, &before);
	int arena = arena_create(device, BYTES, 0), client = attach(arena, 0, NULL);
	unsigned char *map = arena_map(arena, BYTES);
	int pipes[NR_SEGMENTS];
	uint64_t trimmed;
	unsigned int i;
	long faults;

	ASSERT_LE(0, client);
	ASSERT_NE(NULL, map);
	for (i = 0; i < NR_SEGMENTS; i++) {
		struct xalloc_page_grant dead, ours;

		ASSERT_EQ(1, grant_page(client, SEGMENT_SLICES / 2, 0, &dead));
		ASSERT_EQ(1, grant_page(arena, SEGMENT_SLICES / 2, 0, &ours));
		ASSERT_EQ(dead.offset + XALLOC_SEGMENT_BYTES / 2, ours.offset);
		map[ours.offset] = 1;
		pipes[i] = pipe_with(_metadata, map + dead.offset, KPAGE_BYTES);
	}
	ASSERT_EQ(0, close(client));
	faults = page_faults();
	for (i = 0; i < 20; i++) {
		EXPECT_EQ(0, arena_trim(arena, 0, &trimmed));
		touch_segments(map + XALLOC_SEGMENT_BYTES / 2);
	}
	EXPECT_EQ(0, page_faults() - faults);
	/* The pins of half of them drop. */
	for (i = 0; i < NR_SEGMENTS; i++)
		if (i % 2)
			close(pipes[i]);
	EXPECT_EQ(0, arena_trim(arena, 0, &trimmed));
	touch_segments(map + XALLOC_SEGMENT_BYTES / 2);
	EXPECT_EQ(0, page_faults() - faults);
	/* What the dead client had there can be granted again, the rest cannot. */
	EXPECT_EQ(NR_SEGMENTS / 2, grant_halves(arena));
	for (i = 0; i < NR_SEGMENTS; i += 2)
		close(pipes[i]);
	EXPECT_EQ(0, arena_trim(arena, 0, &trimmed));
	EXPECT_EQ(NR_SEGMENTS / 2, grant_halves(arena));
	munmap(map, BYTES);
	close(arena);
	counters_expect(_metadata, device, &before);
	close(device);
}

TEST_HARNESS_MAIN
