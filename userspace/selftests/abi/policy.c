// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: huge pages required, preferred and not wanted, also where the kernel has none
 * left; alignment; memory that is zeroed for a grant; pieces that go back one by one.
 */
#include "kpages.h"
#include "selftest.h"

#define NO_NODE (-1)
#define AT_ONCE_MS 100
#define LEFT_KB (96 * 1024)
#define NR_REFUSED 5
/* Pages of 16 segments: more than the kernel can compact while they are granted. */
#define NR_PREFERRED 4
#define PREFERRED_BYTES (16 * XALLOC_SEGMENT_BYTES)

FIXTURE(policy)
{
	int device;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(policy)
{
	self->device = device_setup(_metadata, &self->before);
}

FIXTURE_TEARDOWN(policy)
{
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

TEST_F(policy, config_is_checked)
{
	struct xalloc_ioc_arena_create arg = { .size = sizeof(arg), .arena_bytes = 2 * MIB };
	int fd = arena_create_by(self->device, 2 * MIB, XALLOC_POLICY_SMALL, 0);

	EXPECT_LE(0, fd);
	EXPECT_EQ(-EOPNOTSUPP, grant_page(fd, 1, XALLOC_PAGE_CONTIG, NULL));
	close(fd);
	arg.policy = XALLOC_POLICY_SMALL + 1;
	EXPECT_EQ(-EINVAL, call(self->device, XALLOC_IOC_ARENA_CREATE, &arg));
	arg.policy = 0;
	arg.node = 1;
	EXPECT_EQ(-EINVAL, call(self->device, XALLOC_IOC_ARENA_CREATE, &arg));
	arg.flags = XALLOC_ARENA_NODE;
	arg.node = 1023;
	EXPECT_EQ(-ENODEV, call(self->device, XALLOC_IOC_ARENA_CREATE, &arg));
	arg.node = UINT32_MAX;
	EXPECT_EQ(-EINVAL, call(self->device, XALLOC_IOC_ARENA_CREATE, &arg));
}

TEST_F(policy, small_arena_is_usable)
{
	int arena = arena_create_by(self->device, 4 * MIB, XALLOC_POLICY_SMALL, NO_NODE);
	struct xalloc_page_grant page;
	unsigned char *map;
	uint64_t value;

	ASSERT_EQ(1, grant_page(arena, 40, 0, &page));
	EXPECT_EQ(XALLOC_SLICE_BYTES, page.contig_bytes);
	EXPECT_EQ(40 * XALLOC_SLICE_BYTES, stat_of(arena).committed_bytes);
	EXPECT_EQ(40 * XALLOC_SLICE_BYTES, stat_of(arena).small_bytes);
	map = arena_map(arena, 4 * MIB);
	ASSERT_NE(NULL, map);
	EXPECT_EQ(-1, nonzero_find(map, 40 * XALLOC_SLICE_BYTES));
	pattern_fill(map, 40 * XALLOC_SLICE_BYTES, 1);
	EXPECT_EQ(-1, pattern_mismatch(map, 40 * XALLOC_SLICE_BYTES, 1));
	/* Beyond it there is nothing, also in a segment that has memory. */
	EXPECT_EQ(SIGBUS, touch_read(map + 40 * XALLOC_SLICE_BYTES, &value));
	EXPECT_EQ(1, free_page(arena, page.offset));
	EXPECT_EQ(SIGBUS, touch_read(map, &value));
	EXPECT_EQ(0, stat_of(arena).committed_bytes);
	munmap(map, 4 * MIB);
	close(arena);
}

TEST_F(policy, alignment_is_kept)
{
	struct xalloc_page_grant page;
	uint32_t align;
	int arena;

	for (align = 0; align <= 1024; align = align ? 2 * align : 1) {
		arena = arena_create(self->device, 64 * MIB, 0);
		/* In the way of what is aligned to all of the arena. */
		ASSERT_EQ(1, grant_page(arena, 1, 0, &page));
		EXPECT_EQ(0, page.offset);
		page = (struct xalloc_page_grant){ .nr_slices = 3, .align_slices = align };
		EXPECT_EQ(align < 1024 ? 1 : -ENOSPC, grant_batch(arena, &page, 1)) {
			TH_LOG("alignment %u", align);
		}
		EXPECT_EQ(0, page.offset / XALLOC_SLICE_BYTES % (align ?: 1));
		close(arena);
	}
	arena = arena_create(self->device, 64 * MIB, 0);
	page = (struct xalloc_page_grant){ .nr_slices = 1, .align_slices = 3 };
	EXPECT_EQ(-EINVAL, grant_batch(arena, &page, 1));
	page.align_slices = 2048;
	EXPECT_EQ(-EFBIG, grant_batch(arena, &page, 1));
	close(arena);
}

TEST_F(policy, zero_on_grant)
{
	int arena = arena_create(self->device, 2 * MIB, 0);
	unsigned char *map = arena_map(arena, 2 * MIB);
	struct xalloc_page_grant page;

	/* The first page keeps the memory in place. */
	ASSERT_EQ(1, grant_page(arena, 1, 0, NULL));
	ASSERT_EQ(1, grant_page(arena, 31, 0, &page));
	pattern_fill(map, 2 * MIB, 1);
	ASSERT_EQ(1, free_page(arena, page.offset));
	ASSERT_EQ(1, grant_page(arena, 15, 0, &page));
	EXPECT_EQ(0, page.flags);
	ASSERT_EQ(1, grant_page(arena, 16, XALLOC_PAGE_ZERO, &page));
	EXPECT_EQ(XALLOC_PAGE_ZERO, page.flags);
	EXPECT_EQ(MIB, page.offset);
	EXPECT_EQ(-1, nonzero_find(map + MIB, MIB));
	EXPECT_EQ(-1, pattern_mismatch(map, MIB, 1));
	munmap(map, 2 * MIB);
	close(arena);
}

/*
 * Takes memory in pieces, all but what the system lives on, and gives back all but the
 * first of each 2 MiB. Returns how many pieces it keeps.
 */
static uint32_t fragment(struct __test_metadata *_metadata, int arena, size_t bytes)
{
	static struct xalloc_page_grant pages[XALLOC_BATCH_MAX];
	unsigned char *map = arena_map(arena, bytes);
	uint64_t *offsets = calloc(bytes / XALLOC_SLICE_BYTES, sizeof(*offsets));
	uint64_t *pfns = calloc(bytes / KPAGE_BYTES, sizeof(*pfns)), pfn;
	uint32_t nr = 0, nr_freed = 0, n;
	int i, rc;

	ASSERT_NE(NULL, map);
	ASSERT_NE(NULL, offsets);
	ASSERT_NE(NULL, pfns);
	do {
		for (i = 0; i < XALLOC_BATCH_MAX; i++)
			pages[i] = (struct xalloc_page_grant){ .nr_slices = 1 };
		rc = grant_batch(arena, pages, XALLOC_BATCH_MAX);
		for (i = 0; i < rc; i++)
			offsets[nr++] = pages[i].offset;
	} while (rc == XALLOC_BATCH_MAX && meminfo_kb("MemFree") > LEFT_KB);
	TH_LOG("%u pieces, %ld MiB free", nr, meminfo_kb("MemFree") / 1024);
	for (n = 0; n < nr; n++)
		touch_read(map + offsets[n], NULL);
	ASSERT_TRUE(pfns_of(map, bytes / KPAGE_BYTES, pfns));
	for (n = 0; n < nr; n++) {
		pfn = pfns[offsets[n] / KPAGE_BYTES];
		ASSERT_NE(0, pfn);
		if (pfn * KPAGE_BYTES % XALLOC_SEGMENT_BYTES)
			offsets[nr_freed++] = offsets[n];
	}
	/* Unmap first, or each free would unmap its own piece. */
	munmap(map, bytes);
	for (n = 0; n < nr_freed; n += rc) {
		uint32_t some = nr_freed - n < XALLOC_BATCH_MAX ? nr_freed - n : XALLOC_BATCH_MAX;

		rc = free_batch(arena, offsets + n, some);
		ASSERT_EQ(some, rc);
	}
	free(offsets);
	free(pfns);
	return nr - nr_freed;
}

TEST_F_TIMEOUT(policy, fragmented_memory, TEST_TIMEOUT_LONG)
{
	size_t bytes = meminfo_kb("MemTotal") * 1024UL / (2 * MIB) * (2 * MIB);
	int small = arena_create_by(self->device, bytes, XALLOC_POLICY_SMALL, NO_NODE);
	int huge = arena_create_by(self->device, bytes, XALLOC_POLICY_HUGE, NO_NODE);
	int preferred = arena_create_by(self->device, 2 * NR_PREFERRED * PREFERRED_BYTES,
					XALLOC_POLICY_HUGE_PREFERRED, NO_NODE);
	struct xalloc_page_grant page, pages[NR_PREFERRED] = {};
	struct xalloc_ioc_stat stat;
	uint32_t nr_kept, nr_granted = 0;
	uint64_t start, ms, least = UINT64_MAX, most = 0;
	int i = 0, rc;

	ASSERT_LE(0, small);
	ASSERT_TRUE(total_raise());
	nr_kept = fragment(_metadata, small, bytes);
	EXPECT_EQ(nr_kept * XALLOC_SLICE_BYTES, stat_of(small).committed_bytes);
	TH_LOG("%u pieces kept, %ld MiB free", nr_kept, meminfo_kb("MemFree") / 1024);
	while (i < NR_REFUSED) {
		start = now_ms();
		rc = grant_page(huge, SEGMENT_SLICES, 0, &page);
		ms = now_ms() - start;
		if (rc == 1) {
			/* Was whole, or compaction has made it whole since the last try. */
			ASSERT_EQ(XALLOC_SEGMENT_BYTES, page.contig_bytes);
			nr_granted++;
		} else {
			ASSERT_EQ(-ENOMEM, rc);
			if (ms < least)
				least = ms;
			if (ms > most)
				most = ms;
			i++;
		}
	}
	EXPECT_EQ(0, stat_of(huge).small_bytes);
	/* Or memory was not fragmented, but used up. */
	EXPECT_GT(bytes / 4 / XALLOC_SEGMENT_BYTES, nr_granted);
	TH_LOG("%u segments granted; refused within %llu to %llu ms", nr_granted,
	       (unsigned long long)least, (unsigned long long)most);
	/* The machine is emulated and shared, and may stall for longer than most of them take. */
	if (times_are_judged()) {
		EXPECT_GE(AT_ONCE_MS, least);
	}
	for (i = 0; i < NR_PREFERRED; i++)
		pages[i].nr_slices = PREFERRED_BYTES / XALLOC_SLICE_BYTES;
	EXPECT_EQ(NR_PREFERRED, grant_batch(preferred, pages, NR_PREFERRED));
	stat = stat_of(preferred);
	EXPECT_EQ(NR_PREFERRED * PREFERRED_BYTES, stat.committed_bytes);
	/* The kernel compacts meanwhile: some of it may be huge by now. */
	TH_LOG("%llu of %llu MiB in pieces", (unsigned long long)(stat.small_bytes / MIB),
	       (unsigned long long)(stat.committed_bytes / MIB));
	EXPECT_LT(0, stat.small_bytes);
	rc = grant_page(preferred, 1, XALLOC_PAGE_CONTIG, &page);
	EXPECT_TRUE(rc == -ENOMEM || (rc == 1 && page.contig_bytes == XALLOC_SEGMENT_BYTES));
	/* The pieces of all of them lie in each 2 MiB there is, those of one do not. */
	for (i = 1; i < NR_PREFERRED; i++)
		EXPECT_EQ(1, free_page(preferred, pages[i].offset));
	stat = stat_of(preferred);
	close(small);
	/* With what is whole again, both have huge pages. */
	EXPECT_EQ(1, grant_page(huge, 1, 0, NULL));
	EXPECT_EQ(1, grant_page(preferred, 32, XALLOC_PAGE_CONTIG, NULL));
	/* Not more pieces than before. A piece that was idle may have gone meanwhile. */
	EXPECT_GE(stat.small_bytes, stat_of(preferred).small_bytes);
	close(huge);
	close(preferred);
	EXPECT_TRUE(total_restore());
}

TEST_HARNESS_MAIN
