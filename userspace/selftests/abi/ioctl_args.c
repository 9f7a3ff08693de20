// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: which values of the arguments of creating, granting and freeing are refused, and
 * that a call that was refused granted, freed and created nothing.
 */
#include "selftest.h"

#define ARENA_BYTES (8 * MIB)
#define ARENA_SLICES (ARENA_BYTES / XALLOC_SLICE_BYTES)

FIXTURE(ioctl_args)
{
	int device;
	int arena;
	struct xalloc_ioc_stat before;
	/* The one page that every test finds granted, and the counters with it. */
	uint64_t offset;
	struct xalloc_ioc_stat with_page;
};

FIXTURE_SETUP(ioctl_args)
{
	struct xalloc_page_grant page;

	self->device = device_setup(_metadata, &self->before);
	self->arena = arena_create(self->device, ARENA_BYTES, 0);
	ASSERT_LE(0, self->arena);
	ASSERT_EQ(1, grant_page(self->arena, 1, 0, &page));
	self->offset = page.offset;
	ASSERT_EQ(0, counters_read(self->device, &self->with_page));
}

FIXTURE_TEARDOWN(ioctl_args)
{
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

TEST_F(ioctl_args, arena_create_arguments)
{
	static const struct {
		const char *what;
		__u64 arena_bytes;
		__u64 limit_bytes;
		int want;
	} rows[] = {
		{ "no size", 0, 0, -EINVAL },
		{ "one byte", 1, 0, -EINVAL },
		{ "one hardware page", KPAGE_BYTES, 0, -EINVAL },
		{ "one slice", XALLOC_SLICE_BYTES, 0, -EINVAL },
		{ "a segment and a byte", XALLOC_SEGMENT_BYTES + 1, 0, -EINVAL },
		{ "a segment less a slice", XALLOC_SEGMENT_BYTES - XALLOC_SLICE_BYTES, 0, -EINVAL },
		{ "all ones", UINT64_MAX, 0, -EINVAL },
		{ "limit of one byte", 8 * MIB, 1, -EINVAL },
		{ "limit of one slice", 8 * MIB, XALLOC_SLICE_BYTES, -EINVAL },
		{ "limit of a segment and a byte", 8 * MIB, XALLOC_SEGMENT_BYTES + 1, -EINVAL },
		{ "largest multiple", UINT64_MAX & ~(XALLOC_SEGMENT_BYTES - 1), 0, -EFBIG },
		{ "negative as a file size", 1ULL << 63, 0, -EFBIG },
		{ "largest file size", INT64_MAX & ~(XALLOC_SEGMENT_BYTES - 1), 0, -EFBIG },
	};
	struct xalloc_ioc_info info;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		int rc = arena_create(self->device, rows[i].arena_bytes, rows[i].limit_bytes);

		EXPECT_EQ(rows[i].want, rc) {
			TH_LOG("%s", rows[i].what);
		}
		if (rc >= 0)
			close(rc);
	}
	ASSERT_EQ(0, info_read(self->device, &info));
	EXPECT_EQ(-EFBIG, arena_create(self->device, info.arena_bytes_max + XALLOC_SEGMENT_BYTES,
				       0));
	counters_expect_now(_metadata, self->device, &self->with_page);
}

TEST_F(ioctl_args, grant_arguments)
{
	static const struct {
		const char *what;
		__u32 nr_slices;
		__u32 flags;
		int want;
	} rows[] = {
		{ "no slices", 0, 0, -EINVAL },
		{ "no slices in one piece", 0, XALLOC_PAGE_CONTIG, -EINVAL },
		{ "a slice more than the arena", ARENA_SLICES + 1, 0, -EFBIG },
		{ "most slices", UINT32_MAX, 0, -EFBIG },
		{ "2^16 slices, 4 GiB", 1U << 16, 0, -EFBIG },
		{ "2^31 slices", 1U << 31, 0, -EFBIG },
		{ "a slice more than a segment in one piece", SEGMENT_SLICES + 1,
		  XALLOC_PAGE_CONTIG, -EFBIG },
		{ "most slices in one piece", UINT32_MAX, XALLOC_PAGE_CONTIG, -EFBIG },
		{ "known and unknown flag", 1, XALLOC_PAGE_CONTIG | 1U << 31, -EOPNOTSUPP },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		EXPECT_EQ(rows[i].want,
			  grant_page(self->arena, rows[i].nr_slices, rows[i].flags, NULL)) {
			TH_LOG("%s", rows[i].what);
		}
	}
	counters_expect_now(_metadata, self->device, &self->with_page);
}

TEST_F(ioctl_args, malformed_entry_anywhere_grants_nothing)
{
	static const struct {
		const char *what;
		struct xalloc_page_grant page;
		int want;
	} rows[] = {
		{ "alignment to no power of two", { .nr_slices = 1, .align_slices = 3 }, -EINVAL },
		{ "alignment to more than there is",
		  { .nr_slices = 1, .align_slices = 2 * ARENA_SLICES }, -EFBIG },
		{ "no slices", { .nr_slices = 0 }, -EINVAL },
		{ "unknown flag", { .nr_slices = 1, .flags = 1U << 7 }, -EOPNOTSUPP },
	};
	struct xalloc_page_grant pages[8];
	size_t i, j, at;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		for (at = 0; at < ARRAY_SIZE(pages); at++) {
			memset(pages, 0, sizeof(pages));
			for (j = 0; j < ARRAY_SIZE(pages); j++)
				pages[j].nr_slices = 1;
			pages[at] = rows[i].page;
			EXPECT_EQ(rows[i].want,
				  grant_batch(self->arena, pages, ARRAY_SIZE(pages))) {
				TH_LOG("%s in entry %zu", rows[i].what, at);
			}
		}
	}
	counters_expect_now(_metadata, self->device, &self->with_page);
}

/* Whether or not this counts as malformed, what is returned is what was granted. */
TEST_F(ioctl_args, too_long_entry_later_is_reported_truly)
{
	struct xalloc_page_grant pages[] = {
		{ .nr_slices = 1 }, { .nr_slices = ARENA_SLICES + 1 }, { .nr_slices = 1 },
	};
	struct xalloc_ioc_stat seen;
	int rc = grant_batch(self->arena, pages, ARRAY_SIZE(pages));

	EXPECT_TRUE(rc == 1 || rc == -EFBIG) {
		TH_LOG("returned %d", rc);
	}
	ASSERT_EQ(0, counters_read(self->device, &seen));
	EXPECT_EQ(self->with_page.pages + (rc == 1), seen.pages);
	if (rc == 1) {
		EXPECT_EQ(1, free_page(self->arena, pages[0].offset));
	}
	counters_expect_now(_metadata, self->device, &self->with_page);
}

TEST_F(ioctl_args, batch_size)
{
	static struct xalloc_page_grant pages[XALLOC_BATCH_MAX + 1];
	static uint64_t offsets[XALLOC_BATCH_MAX + 1];
	static const __u32 bad[] = { 0, XALLOC_BATCH_MAX + 1, 1U << 16, 1U << 31, UINT32_MAX };
	int arena = arena_create(self->device, 32 * MIB, 0);
	size_t i;

	ASSERT_LE(0, arena);
	for (i = 0; i < ARRAY_SIZE(pages); i++)
		pages[i].nr_slices = 1;
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EINVAL, grant_batch(arena, pages, bad[i])) {
			TH_LOG("batch of %u", bad[i]);
		}
		EXPECT_EQ(-EINVAL, free_batch(arena, offsets, bad[i])) {
			TH_LOG("batch of %u", bad[i]);
		}
	}
	EXPECT_EQ(XALLOC_BATCH_MAX, grant_batch(arena, pages, XALLOC_BATCH_MAX));
	for (i = 0; i < XALLOC_BATCH_MAX; i++)
		offsets[i] = pages[i].offset;
	EXPECT_EQ(XALLOC_BATCH_MAX, free_batch(arena, offsets, XALLOC_BATCH_MAX));
	close(arena);
	counters_expect_now(_metadata, self->device, &self->with_page);
}

TEST_F(ioctl_args, free_arguments)
{
	struct xalloc_page_grant page, other;
	size_t i;

	ASSERT_EQ(1, grant_page(self->arena, 4, 0, &page));
	ASSERT_EQ(1, grant_page(self->arena, 1, 0, &other));
	ASSERT_EQ(1, free_page(self->arena, other.offset));
	ASSERT_EQ(0, counters_read(self->device, &self->with_page));

	const struct {
		const char *what;
		uint64_t offset;
		int want;
	} rows[] = {
		{ "end of the arena", ARENA_BYTES, -ERANGE },
		{ "a segment past the end", ARENA_BYTES + XALLOC_SEGMENT_BYTES, -ERANGE },
		{ "4 GiB", 1ULL << 32, -ERANGE },
		{ "slice number that wraps at 32 bits", (1ULL << 48) + page.offset, -ERANGE },
		{ "top bit", (1ULL << 63) + page.offset, -ERANGE },
		{ "last slice there can be", UINT64_MAX & ~(XALLOC_SLICE_BYTES - 1), -ERANGE },
		{ "second slice of a page", page.offset + XALLOC_SLICE_BYTES, -ENOENT },
		{ "last slice of a page", page.offset + 3 * XALLOC_SLICE_BYTES, -ENOENT },
		{ "freed before", other.offset, -ENOENT },
		{ "never granted", ARENA_BYTES - XALLOC_SLICE_BYTES, -ENOENT },
		{ "last segment", ARENA_BYTES - XALLOC_SEGMENT_BYTES, -ENOENT },
	};

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		EXPECT_EQ(rows[i].want, free_page(self->arena, rows[i].offset)) {
			TH_LOG("%s, offset %#" PRIx64, rows[i].what, rows[i].offset);
		}
	}
	counters_expect_now(_metadata, self->device, &self->with_page);
}

/* Not the start of a page, and not the start of any slice either. */
TEST_F(ioctl_args, free_of_an_unaligned_offset_frees_nothing)
{
	static const unsigned int more[] = { 1, 8, KPAGE_BYTES, XALLOC_SLICE_BYTES - 1 };
	size_t i;
	int rc;

	for (i = 0; i < ARRAY_SIZE(more); i++) {
		rc = free_page(self->arena, self->offset + more[i]);
		EXPECT_TRUE(rc == -ENOENT || rc == -EINVAL) {
			TH_LOG("%u past the start: %d", more[i], rc);
		}
	}
	EXPECT_GT(0, free_page(self->arena, UINT64_MAX));
	counters_expect_now(_metadata, self->device, &self->with_page);
}

/* Members that are only given out are not read: old contents of the caller's stack. */
TEST_F(ioctl_args, results_are_not_read)
{
	struct xalloc_page_grant page = {
		.nr_slices = 1, .offset = UINT64_MAX, .contig_bytes = UINT32_MAX, .tag = 7,
	};
	struct xalloc_ioc_arena_create create = {
		.size = sizeof(create), .arena_bytes = XALLOC_SEGMENT_BYTES,
		.arena_id = UINT64_MAX, .client_id = UINT64_MAX,
	};
	int fd;

	EXPECT_EQ(1, grant_batch(self->arena, &page, 1));
	EXPECT_GT(ARENA_BYTES, page.offset);
	EXPECT_EQ(7, page.tag);
	EXPECT_EQ(1, free_page(self->arena, page.offset));
	fd = call(self->device, XALLOC_IOC_ARENA_CREATE, &create);
	ASSERT_LE(0, fd);
	EXPECT_NE(UINT64_MAX, create.arena_id);
	EXPECT_NE(UINT64_MAX, create.client_id);
	close(fd);
}

TEST_HARNESS_MAIN
