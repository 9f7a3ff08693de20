// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: how an arena is mapped and by what page-table entries, what mmap() refuses,
 * and what a touch finds before a grant, after a free, across fork and exec, and where a
 * mapping was split, moved or laid askew.
 */
#include "kpages.h"
#include "selftest.h"

#define ARENA_BYTES (16 * MIB)

FIXTURE(mmap_fault)
{
	int device;
	int arena;
	struct xalloc_ioc_stat before;
	bool has_pmd;
};

FIXTURE_SETUP(mmap_fault)
{
	struct xalloc_ioc_info info;

	self->device = device_setup(_metadata, &self->before);
	ASSERT_EQ(0, info_read(self->device, &info));
	self->has_pmd = info.features & XALLOC_FEATURE_PMD;
	ASSERT_EQ(is_thp_kernel(), self->has_pmd);
	self->arena = arena_create(self->device, ARENA_BYTES, 0);
	ASSERT_LE(0, self->arena);
}

FIXTURE_TEARDOWN(mmap_fault)
{
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* The whole arena granted as one page. */
static void grant_all(struct __test_metadata *_metadata, int arena, uint64_t bytes)
{
	struct xalloc_page_grant page;

	ASSERT_EQ(1, grant_page(arena, bytes / XALLOC_SLICE_BYTES, 0, &page));
	ASSERT_EQ(0, page.offset);
}

/* Touches each hardware page once; the number of faults that took. */
static long faults_of_touching(volatile unsigned char *map, size_t bytes)
{
	long before = page_faults();
	size_t at;

	for (at = 0; at < bytes; at += KPAGE_BYTES)
		map[at] = 1;
	return page_faults() - before;
}

static void expect_faults(struct __test_metadata *_metadata, int device, uint64_t arena_bytes,
			  bool has_pmd)
{
	int arena = arena_create(device, arena_bytes, 0);
	long want = arena_bytes / (has_pmd ? XALLOC_SEGMENT_BYTES : KPAGE_BYTES);
	unsigned char *map, *warm;
	long faults, kb;

	ASSERT_LE(0, arena);
	grant_all(_metadata, arena, arena_bytes);
	map = arena_map(arena, arena_bytes);
	ASSERT_NE(NULL, map);
	/* Once elsewhere, so that code, stack and page tables of the count are there. */
	warm = arena_map(arena, XALLOC_SEGMENT_BYTES);
	ASSERT_NE(NULL, warm);
	faults_of_touching(warm, XALLOC_SEGMENT_BYTES);
	munmap(warm, XALLOC_SEGMENT_BYTES);

	EXPECT_EQ(0, (uintptr_t)map % XALLOC_SEGMENT_BYTES);
	faults = faults_of_touching(map, arena_bytes);
	kb = smaps_kb(map, arena_bytes, "FilePmdMapped");
	TH_LOG("%" PRIu64 " MiB: %ld faults, FilePmdMapped %ld kB", arena_bytes / MIB, faults, kb);
	EXPECT_EQ(want, faults);
	if (has_pmd) {
		EXPECT_EQ((long)(arena_bytes / 1024), kb);
	}
	munmap(map, arena_bytes);
	close(arena);
}

TEST_F(mmap_fault, faults_once_per_segment)
{
	if (!self->has_pmd)
		SKIP(return, "this kernel has no transparent huge pages");
	expect_faults(_metadata, self->device, 64 * MIB, self->has_pmd);
}

TEST_F_TIMEOUT(mmap_fault, one_gib_takes_512_faults, TEST_TIMEOUT_LONG)
{
	if (!is_long_run())
		SKIP(return, "only with LONG=1");
	if (!self->has_pmd)
		SKIP(return, "this kernel has no transparent huge pages");
	ASSERT_LT(1200 * 1024, meminfo_kb("MemAvailable")) {
		TH_LOG("a guest for LONG=1 needs 2500M of memory");
	}
	expect_faults(_metadata, self->device, 1024 * MIB, true);
}

TEST_F(mmap_fault, every_byte_is_kept)
{
	unsigned char *map = arena_map(self->arena, ARENA_BYTES);

	ASSERT_NE(NULL, map);
	grant_all(_metadata, self->arena, ARENA_BYTES);
	EXPECT_EQ(-1, nonzero_find(map, ARENA_BYTES));
	pattern_fill(map, ARENA_BYTES, 1);
	EXPECT_EQ(-1, pattern_mismatch(map, ARENA_BYTES, 1));
	munmap(map, ARENA_BYTES);
}

TEST_F(mmap_fault, pmd_only_where_touched)
{
	unsigned char *map;
	unsigned int i;

	if (!self->has_pmd)
		SKIP(return, "this kernel has no transparent huge pages");
	map = arena_map(self->arena, ARENA_BYTES);
	ASSERT_NE(NULL, map);
	grant_all(_metadata, self->arena, ARENA_BYTES);
	EXPECT_EQ(0, smaps_kb(map, ARENA_BYTES, "FilePmdMapped"));
	for (i = 0; i < 4; i++) {
		map[2 * i * XALLOC_SEGMENT_BYTES + 12345] = 1;
		EXPECT_EQ((long)(i + 1) * 2048, smaps_kb(map, ARENA_BYTES, "FilePmdMapped"));
		EXPECT_EQ((long)(i + 1) * 2048, smaps_kb(map, ARENA_BYTES, "Rss"));
	}
	munmap(map, ARENA_BYTES);
}

TEST_F(mmap_fault, part_with_an_offset)
{
	unsigned char *whole = arena_map(self->arena, ARENA_BYTES), *part;
	static const struct {
		uint64_t offset;
		uint64_t bytes;
	} rows[] = {
		{ 0, KPAGE_BYTES },
		{ KPAGE_BYTES, KPAGE_BYTES },
		{ XALLOC_SLICE_BYTES, 3 * XALLOC_SLICE_BYTES },
		{ XALLOC_SEGMENT_BYTES - KPAGE_BYTES, 2 * KPAGE_BYTES },
		{ 2 * XALLOC_SEGMENT_BYTES, 2 * XALLOC_SEGMENT_BYTES },
		{ 3 * XALLOC_SEGMENT_BYTES + XALLOC_SLICE_BYTES, 2 * XALLOC_SEGMENT_BYTES },
		{ ARENA_BYTES - KPAGE_BYTES, KPAGE_BYTES },
		{ ARENA_BYTES - XALLOC_SEGMENT_BYTES, XALLOC_SEGMENT_BYTES },
	};
	unsigned int i;

	ASSERT_NE(NULL, whole);
	grant_all(_metadata, self->arena, ARENA_BYTES);
	pattern_fill(whole, ARENA_BYTES, 3);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		part = arena_map_at(self->arena, rows[i].offset, rows[i].bytes,
				    PROT_READ | PROT_WRITE);
		ASSERT_NE(NULL, part);
		EXPECT_EQ(0, memcmp(part, whole + rows[i].offset, rows[i].bytes)) {
			TH_LOG("offset %#" PRIx64, rows[i].offset);
		}
		part[rows[i].bytes - 1] ^= 0xff;
		EXPECT_EQ(part[rows[i].bytes - 1], whole[rows[i].offset + rows[i].bytes - 1]);
		part[rows[i].bytes - 1] ^= 0xff;
		if (self->has_pmd && !(rows[i].offset % XALLOC_SEGMENT_BYTES) &&
		    rows[i].bytes >= XALLOC_SEGMENT_BYTES) {
			EXPECT_EQ((long)rows[i].bytes / 1024,
				  smaps_kb(part, rows[i].bytes, "FilePmdMapped"));
		}
		munmap(part, rows[i].bytes);
	}
	EXPECT_EQ(-1, pattern_mismatch(whole, ARENA_BYTES, 3));
	munmap(whole, ARENA_BYTES);
}

/* A length that is not whole hardware pages is rounded up, as mmap() does. */
TEST_F(mmap_fault, what_mmap_refuses)
{
	const int rw = PROT_READ | PROT_WRITE;
	const struct {
		const char *what;
		size_t bytes;
		int prot;
		int flags;
		off_t offset;
		int want;
	} rows[] = {
		{ "private", ARENA_BYTES, rw, MAP_PRIVATE, 0, -EINVAL },
		{ "private, read-only", ARENA_BYTES, PROT_READ, MAP_PRIVATE, 0, -EINVAL },
		{ "executable", ARENA_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, 0, -EPERM },
		{ "executable alone", ARENA_BYTES, PROT_EXEC, MAP_SHARED, 0, -EPERM },
		{ "all rights", ARENA_BYTES, rw | PROT_EXEC, MAP_SHARED, 0, -EPERM },
		{ "one page too long", ARENA_BYTES + KPAGE_BYTES, rw, MAP_SHARED, 0, -ENXIO },
		{ "one byte too long", ARENA_BYTES + 1, rw, MAP_SHARED, 0, -ENXIO },
		{ "at the end", KPAGE_BYTES, rw, MAP_SHARED, ARENA_BYTES, -ENXIO },
		{ "across the end", 2 * KPAGE_BYTES, rw, MAP_SHARED, ARENA_BYTES - KPAGE_BYTES,
		  -ENXIO },
		{ "whole, one page on", ARENA_BYTES, rw, MAP_SHARED, KPAGE_BYTES, -ENXIO },
		{ "far past the end", KPAGE_BYTES, rw, MAP_SHARED, 1LL << 40, -ENXIO },
		{ "ends where 2^64 does", 2 * KPAGE_BYTES, rw, MAP_SHARED,
		  (off_t)-(off_t)KPAGE_BYTES, -EOVERFLOW },
		{ "no length", 0, rw, MAP_SHARED, 0, -EINVAL },
		{ "unaligned offset", KPAGE_BYTES, rw, MAP_SHARED, 512, -EINVAL },
	};
	unsigned int i;
	int rc;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		EXPECT_EQ(rows[i].want, mmap_error(rows[i].bytes, rows[i].prot, rows[i].flags,
						   self->arena, rows[i].offset)) {
			TH_LOG("%s", rows[i].what);
		}
	}
	/* Fits 64 bits and no file: both names are true of it. */
	rc = mmap_error(2 * KPAGE_BYTES, rw, MAP_SHARED, self->arena,
			INT64_MAX & ~(KPAGE_BYTES - 1));
	EXPECT_TRUE(rc == -ENXIO || rc == -EOVERFLOW) {
		TH_LOG("ends past the largest file: %d", rc);
	}
	EXPECT_EQ(-ENODEV, mmap_error(KPAGE_BYTES, rw, MAP_SHARED, self->device, 0));
	EXPECT_EQ(-ENODEV, mmap_error(KPAGE_BYTES, PROT_READ, MAP_PRIVATE, self->device, 0));
}

TEST_F(mmap_fault, mprotect_exec_is_eacces)
{
	unsigned char *map = arena_map(self->arena, ARENA_BYTES);

	ASSERT_NE(NULL, map);
	EXPECT_EQ(-1, mprotect(map, ARENA_BYTES, PROT_READ | PROT_EXEC));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(-1, mprotect(map, KPAGE_BYTES, PROT_EXEC));
	EXPECT_EQ(EACCES, errno);
	munmap(map, ARENA_BYTES);
}

TEST_F(mmap_fault, mprotect_of_a_piece)
{
	unsigned char *map = arena_map(self->arena, ARENA_BYTES);
	unsigned char *piece = map + XALLOC_SEGMENT_BYTES + 3 * XALLOC_SLICE_BYTES;

	ASSERT_NE(NULL, map);
	grant_all(_metadata, self->arena, ARENA_BYTES);
	pattern_fill(map, ARENA_BYTES, 5);
	ASSERT_EQ(0, mprotect(piece, XALLOC_SLICE_BYTES, PROT_READ));
	EXPECT_EQ(SIGSEGV, touch_write(piece, 0));
	EXPECT_EQ(0, touch_read(piece, NULL));
	EXPECT_EQ(0, touch_read(piece - 8, NULL));
	ASSERT_EQ(0, mprotect(piece, XALLOC_SLICE_BYTES, PROT_NONE));
	EXPECT_EQ(SIGSEGV, touch_read(piece, NULL));
	ASSERT_EQ(0, mprotect(piece, XALLOC_SLICE_BYTES, PROT_READ | PROT_WRITE));
	EXPECT_EQ(-1, pattern_mismatch(map, ARENA_BYTES, 5));
	munmap(map, ARENA_BYTES);
}

TEST_F(mmap_fault, readonly_descriptor_maps_readonly)
{
	int reader = fd_reopen(self->arena, O_RDONLY);
	unsigned char *map, *view;

	ASSERT_LE(0, reader);
	grant_all(_metadata, self->arena, ARENA_BYTES);
	map = arena_map(self->arena, ARENA_BYTES);
	ASSERT_NE(NULL, map);
	EXPECT_EQ(-EACCES, mmap_error(ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, reader, 0));
	view = arena_map_at(reader, 0, ARENA_BYTES, PROT_READ);
	ASSERT_NE(NULL, view);
	pattern_fill(map, ARENA_BYTES, 6);
	EXPECT_EQ(-1, pattern_mismatch(view, ARENA_BYTES, 6));
	EXPECT_EQ(SIGSEGV, touch_write(view, 0));
	EXPECT_EQ(-1, mprotect(view, ARENA_BYTES, PROT_READ | PROT_WRITE));
	EXPECT_EQ(EACCES, errno);
	munmap(view, ARENA_BYTES);
	munmap(map, ARENA_BYTES);
	close(reader);
}

TEST_F(mmap_fault, uncommitted_is_sigbus)
{
	unsigned char *map = arena_map(self->arena, ARENA_BYTES);
	struct xalloc_page_grant page;
	struct xalloc_ioc_stat seen;
	uint64_t at, first;

	ASSERT_NE(NULL, map);
	for (at = 0; at < ARENA_BYTES; at += XALLOC_SEGMENT_BYTES / 2) {
		EXPECT_EQ(SIGBUS, touch_read(map + at, NULL));
		EXPECT_EQ(SIGBUS, touch_write(map + at, 1));
	}
	EXPECT_EQ(SIGBUS, touch_read(map + ARENA_BYTES - 8, NULL));
	ASSERT_EQ(0, counters_read(self->arena, &seen));
	EXPECT_EQ(0, seen.committed_bytes);

	/* One page makes its segment addressable, and no other. */
	ASSERT_EQ(1, grant_page(self->arena, 1, 0, &page));
	first = page.offset & ~(XALLOC_SEGMENT_BYTES - 1);
	for (at = 0; at < ARENA_BYTES; at += XALLOC_SEGMENT_BYTES) {
		int want = at == first ? 0 : SIGBUS;

		EXPECT_EQ(want, touch_read(map + at, NULL));
		EXPECT_EQ(want, touch_write(map + at + XALLOC_SEGMENT_BYTES - 8, 1));
	}
	munmap(map, ARENA_BYTES);
}

/* What the kernel reads or writes for us meets the same hole as EFAULT. */
TEST_F(mmap_fault, uncommitted_is_efault_to_system_calls)
{
	unsigned char *map = arena_map(self->arena, ARENA_BYTES);
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	ASSERT_NE(NULL, map);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-1, read(fd, map, 100));
	EXPECT_EQ(EFAULT, errno);
	grant_all(_metadata, self->arena, ARENA_BYTES);
	EXPECT_EQ(100, read(fd, map, 100));
	close(fd);
	munmap(map, ARENA_BYTES);
}

TEST_F(mmap_fault, freed_segment_is_sigbus_in_every_mapping)
{
	unsigned char *first = arena_map(self->arena, ARENA_BYTES);
	unsigned char *second = arena_map(self->arena, ARENA_BYTES);
	struct xalloc_page_grant keep, page;
	struct xalloc_ioc_stat seen;
	uint64_t value;

	ASSERT_NE(NULL, first);
	ASSERT_NE(NULL, second);
	ASSERT_EQ(1, grant_page(self->arena, SEGMENT_SLICES / 2, XALLOC_PAGE_CONTIG, &keep));
	ASSERT_EQ(1, grant_page(self->arena, SEGMENT_SLICES / 2, XALLOC_PAGE_CONTIG, &page));
	ASSERT_EQ(keep.offset / XALLOC_SEGMENT_BYTES, page.offset / XALLOC_SEGMENT_BYTES);
	EXPECT_EQ(0, touch_write(first + keep.offset, 77));
	EXPECT_EQ(0, touch_read(second + keep.offset, &value));
	EXPECT_EQ(77, value);

	/* While one page lives the segment does. */
	ASSERT_EQ(1, free_page(self->arena, page.offset));
	EXPECT_EQ(0, touch_read(first + page.offset, NULL));
	EXPECT_EQ(0, touch_read(second + page.offset, NULL));
	ASSERT_EQ(1, free_page(self->arena, keep.offset));
	EXPECT_EQ(SIGBUS, touch_read(first + keep.offset, NULL));
	EXPECT_EQ(SIGBUS, touch_write(second + keep.offset, 1));
	EXPECT_EQ(SIGBUS, touch_read(second + page.offset, NULL));
	EXPECT_EQ(0, smaps_kb(first, ARENA_BYTES, "Rss"));
	EXPECT_EQ(0, smaps_kb(second, ARENA_BYTES, "Rss"));
	ASSERT_EQ(0, counters_read(self->arena, &seen));
	EXPECT_EQ(0, seen.committed_bytes);

	/* The mapping is good for the next grant there, and that memory is new. */
	ASSERT_EQ(1, grant_page(self->arena, SEGMENT_SLICES, XALLOC_PAGE_CONTIG, &page));
	EXPECT_EQ(0, touch_read(first + page.offset, &value));
	EXPECT_EQ(0, value);
	munmap(first, ARENA_BYTES);
	munmap(second, ARENA_BYTES);
}

TEST_F(mmap_fault, misaligned_fixed_mapping_is_right)
{
	unsigned char *range = range_reserve(ARENA_BYTES + XALLOC_SEGMENT_BYTES,
					     XALLOC_SEGMENT_BYTES);
	unsigned char *map = arena_map(self->arena, ARENA_BYTES);
	static const uint64_t shifts[] = {
		KPAGE_BYTES, XALLOC_SLICE_BYTES, XALLOC_SEGMENT_BYTES - KPAGE_BYTES,
	};
	unsigned int i;

	ASSERT_NE(NULL, range);
	ASSERT_NE(NULL, map);
	grant_all(_metadata, self->arena, ARENA_BYTES);
	for (i = 0; i < ARRAY_SIZE(shifts); i++) {
		unsigned char *askew = mmap(range + shifts[i], ARENA_BYTES, PROT_READ | PROT_WRITE,
					    MAP_SHARED | MAP_FIXED, self->arena, 0);

		ASSERT_EQ(range + shifts[i], askew);
		pattern_fill(map, ARENA_BYTES, i);
		EXPECT_EQ(-1, pattern_mismatch(askew, ARENA_BYTES, i));
		pattern_fill(askew, ARENA_BYTES, 100 + i);
		EXPECT_EQ(-1, pattern_mismatch(map, ARENA_BYTES, 100 + i));
		if (self->has_pmd) {
			EXPECT_EQ(0, smaps_kb(askew, ARENA_BYTES, "FilePmdMapped"));
			EXPECT_EQ((long)ARENA_BYTES / 1024,
				  smaps_kb(map, ARENA_BYTES, "FilePmdMapped"));
		}
		EXPECT_EQ((long)ARENA_BYTES / 1024, smaps_kb(askew, ARENA_BYTES, "Rss"));
		munmap(askew, ARENA_BYTES);
	}
	munmap(map, ARENA_BYTES);
}

/* Small entries, too, go when the segment does. */
TEST_F(mmap_fault, misaligned_mapping_loses_a_freed_segment)
{
	unsigned char *range = range_reserve(2 * ARENA_BYTES, XALLOC_SEGMENT_BYTES);
	struct xalloc_page_grant page;
	unsigned char *askew;
	uint64_t at;

	ASSERT_NE(NULL, range);
	askew = mmap(range + XALLOC_SLICE_BYTES, ARENA_BYTES, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_FIXED, self->arena, 0);
	ASSERT_EQ(range + XALLOC_SLICE_BYTES, askew);
	ASSERT_EQ(1, grant_page(self->arena, SEGMENT_SLICES, XALLOC_PAGE_CONTIG, &page));
	pattern_fill(askew + page.offset, XALLOC_SEGMENT_BYTES, 1);
	ASSERT_EQ(1, free_page(self->arena, page.offset));
	for (at = 0; at < XALLOC_SEGMENT_BYTES; at += KPAGE_BYTES) {
		ASSERT_EQ(SIGBUS, touch_read(askew + page.offset + at, NULL));
	}
	munmap(askew, ARENA_BYTES);
}

TEST_F(mmap_fault, partial_munmap_keeps_the_rest)
{
	unsigned char *map = arena_map(self->arena, ARENA_BYTES);
	unsigned char *witness = arena_map(self->arena, ARENA_BYTES);
	uint64_t hole = XALLOC_SEGMENT_BYTES + 5 * XALLOC_SLICE_BYTES;
	uint64_t hole_bytes = 3 * XALLOC_SLICE_BYTES, at;
	unsigned char *back;

	ASSERT_NE(NULL, map);
	ASSERT_NE(NULL, witness);
	grant_all(_metadata, self->arena, ARENA_BYTES);
	pattern_fill(map, ARENA_BYTES, 8);
	ASSERT_EQ(0, munmap(map + hole, hole_bytes));
	EXPECT_EQ(SIGSEGV, touch_read(map + hole, NULL));
	EXPECT_EQ(SIGSEGV, touch_read(map + hole + hole_bytes - 8, NULL));
	for (at = 0; at < ARENA_BYTES; at += KPAGE_BYTES) {
		uint64_t value;

		if (at >= hole && at < hole + hole_bytes)
			continue;
		ASSERT_EQ(0, touch_read(map + at, &value));
		ASSERT_EQ(pattern_word(8, at / 8), value);
	}
	EXPECT_EQ(-1, pattern_mismatch(witness, ARENA_BYTES, 8));
	back = mmap(map + hole, hole_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		    self->arena, hole);
	ASSERT_EQ(map + hole, back);
	EXPECT_EQ(-1, pattern_mismatch(map, ARENA_BYTES, 8));

	/* A segment of which only pieces are mapped is given back as any other. */
	ASSERT_EQ(0, munmap(map + hole, KPAGE_BYTES));
	ASSERT_EQ(1, free_page(self->arena, 0));
	EXPECT_EQ(SIGBUS, touch_read(map + hole - 8, NULL));
	EXPECT_EQ(SIGBUS, touch_read(map + hole + KPAGE_BYTES, NULL));
	munmap(map, ARENA_BYTES);
	munmap(witness, ARENA_BYTES);
}

TEST_F(mmap_fault, mapped_twice_is_the_same_memory)
{
	unsigned char *first = arena_map(self->arena, ARENA_BYTES);
	unsigned char *second = arena_map(self->arena, ARENA_BYTES);
	int other = attach(self->arena, 0, NULL);
	unsigned char *third;

	ASSERT_NE(NULL, first);
	ASSERT_NE(NULL, second);
	ASSERT_LE(0, other);
	third = arena_map(other, ARENA_BYTES);
	ASSERT_NE(NULL, third);
	EXPECT_NE(first, second);
	grant_all(_metadata, self->arena, ARENA_BYTES);
	pattern_fill(first, ARENA_BYTES, 21);
	EXPECT_EQ(-1, pattern_mismatch(second, ARENA_BYTES, 21));
	EXPECT_EQ(-1, pattern_mismatch(third, ARENA_BYTES, 21));
	pattern_fill(third, ARENA_BYTES, 22);
	EXPECT_EQ(-1, pattern_mismatch(first, ARENA_BYTES, 22));
	munmap(first, ARENA_BYTES);
	EXPECT_EQ(-1, pattern_mismatch(second, ARENA_BYTES, 22));
	munmap(second, ARENA_BYTES);
	munmap(third, ARENA_BYTES);
	close(other);
}

TEST_F(mmap_fault, mremap_within_its_size)
{
	unsigned char *map = arena_map(self->arena, ARENA_BYTES), *moved;
	unsigned char *range = range_reserve(2 * ARENA_BYTES, XALLOC_SEGMENT_BYTES);

	ASSERT_NE(NULL, map);
	ASSERT_NE(NULL, range);
	grant_all(_metadata, self->arena, ARENA_BYTES);
	pattern_fill(map, ARENA_BYTES, 31);

	moved = mremap(map, ARENA_BYTES, ARENA_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, range);
	ASSERT_EQ(range, moved);
	EXPECT_EQ(SIGSEGV, touch_read(map, NULL));
	EXPECT_EQ(-1, pattern_mismatch(moved, ARENA_BYTES, 31));
	if (self->has_pmd) {
		EXPECT_EQ((long)ARENA_BYTES / 1024,
			  smaps_kb(moved, ARENA_BYTES, "FilePmdMapped"));
	}

	/* To an address that no huge entry can be at. */
	moved = mremap(range, ARENA_BYTES, ARENA_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED,
		       range + ARENA_BYTES + KPAGE_BYTES);
	ASSERT_EQ(range + ARENA_BYTES + KPAGE_BYTES, moved);
	EXPECT_EQ(-1, pattern_mismatch(moved, ARENA_BYTES, 31));

	ASSERT_EQ(moved, mremap(moved, ARENA_BYTES, ARENA_BYTES / 2, 0));
	EXPECT_EQ(-1, pattern_mismatch(moved, ARENA_BYTES / 2, 31));
	EXPECT_EQ(MAP_FAILED, mremap(moved, ARENA_BYTES / 2, ARENA_BYTES, MREMAP_MAYMOVE));
	munmap(moved, ARENA_BYTES / 2);
}

TEST_F(mmap_fault, fork_does_not_inherit_the_mapping)
{
	unsigned char *map = arena_map(self->arena, ARENA_BYTES);
	struct xalloc_ioc_stat seen;
	pid_t pid;

	ASSERT_NE(NULL, map);
	grant_all(_metadata, self->arena, ARENA_BYTES);
	pattern_fill(map, ARENA_BYTES, 41);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		unsigned char *own;
		unsigned char vec;

		if (touch_read(map, NULL) != SIGSEGV)
			_exit(1);
		if (mincore(map, KPAGE_BYTES, &vec) != -1 || errno != ENOMEM)
			_exit(2);
		/* The descriptor it has; that maps the same memory. */
		own = arena_map(self->arena, ARENA_BYTES);
		if (!own)
			_exit(3);
		if (pattern_mismatch(own, ARENA_BYTES, 41) != -1)
			_exit(4);
		pattern_fill(own, XALLOC_SEGMENT_BYTES, 42);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(-1, pattern_mismatch(map, XALLOC_SEGMENT_BYTES, 42));
	ASSERT_EQ(0, counters_read(self->arena, &seen));
	EXPECT_EQ(1, seen.clients);
	EXPECT_EQ(1, seen.pages);
	EXPECT_EQ(1, free_page(self->arena, 0));
	munmap(map, ARENA_BYTES);
}

/* The mapping of a process that execs goes; it was the last that held the client. */
TEST_F(mmap_fault, exec_drops_the_client)
{
	int ready[2];
	char byte;
	pid_t pid;

	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		int arena = arena_create(self->device, ARENA_BYTES, 0);
		unsigned char *map = arena_map(arena, ARENA_BYTES);

		if (grant_page(arena, SEGMENT_SLICES, 0, NULL) != 1 || !map)
			_exit(1);
		map[0] = 1;
		/* The shell says one byte after the exec and waits for its end of input. */
		dup2(ready[1], 1);
		execl("/bin/sh", "sh", "-c", "echo; sleep 300", NULL);
		_exit(127);
	}
	close(ready[1]);
	ASSERT_EQ(1, read(ready[0], &byte, 1));
	struct xalloc_ioc_stat want = self->before;

	want.arenas++;
	want.clients++;
	counters_expect(_metadata, self->device, &want);
	kill(pid, SIGKILL);
	child_status(pid);
	close(ready[0]);
}

TEST_F(mmap_fault, reopened_descriptor_maps)
{
	int other = attach(self->arena, 0, NULL);
	unsigned char *map, *theirs;

	ASSERT_LE(0, other);
	grant_all(_metadata, self->arena, ARENA_BYTES);
	map = arena_map(self->arena, ARENA_BYTES);
	theirs = arena_map(other, ARENA_BYTES);
	ASSERT_NE(NULL, map);
	ASSERT_NE(NULL, theirs);
	pattern_fill(map, ARENA_BYTES, 51);
	EXPECT_EQ(-1, pattern_mismatch(theirs, ARENA_BYTES, 51));
	/* The page is gone with its client; the other's mapping finds nothing there. */
	munmap(map, ARENA_BYTES);
	close(self->arena);
	EXPECT_EQ(SIGBUS, touch_read(theirs, NULL));
	munmap(theirs, ARENA_BYTES);
	self->arena = other;
}

/* Physical addresses of a page lie side by side in pieces of its contig_bytes. */
TEST_F(mmap_fault, contiguous_as_it_says)
{
	unsigned char *map = arena_map(self->arena, ARENA_BYTES);
	struct xalloc_page_grant page;
	uint64_t at, pfn, last = 0;

	ASSERT_NE(NULL, map);
	if (access("/proc/self/pagemap", R_OK))
		SKIP(goto out, "this kernel has no /proc/self/pagemap");
	ASSERT_EQ(1, grant_page(self->arena, ARENA_BYTES / XALLOC_SLICE_BYTES, 0, &page));
	ASSERT_LE(XALLOC_SLICE_BYTES, page.contig_bytes);
	for (at = 0; at < ARENA_BYTES; at += KPAGE_BYTES) {
		map[at] = 1;
		pfn = pfn_of(map + at);
		ASSERT_NE(0, pfn);
		if (at % page.contig_bytes) {
			ASSERT_EQ(last + 1, pfn) {
				TH_LOG("offset %#" PRIx64, at);
			}
		}
		last = pfn;
	}
out:
	munmap(map, ARENA_BYTES);
}

/* MADV_DONTNEED unmaps and forgets nothing. MADV_REMOVE, which does, is in file_calls.c. */
TEST_F(mmap_fault, madvise_loses_no_data)
{
	unsigned char *map = arena_map(self->arena, ARENA_BYTES);

	ASSERT_NE(NULL, map);
	grant_all(_metadata, self->arena, ARENA_BYTES);
	pattern_fill(map, ARENA_BYTES, 61);
	madvise(map, ARENA_BYTES, MADV_DONTNEED);
	EXPECT_EQ(-1, pattern_mismatch(map, ARENA_BYTES, 61));
	madvise(map + KPAGE_BYTES, ARENA_BYTES / 2, MADV_DONTNEED);
	EXPECT_EQ(-1, pattern_mismatch(map, ARENA_BYTES, 61));
	EXPECT_EQ(-1, madvise(map, ARENA_BYTES, MADV_DODUMP));
	madvise(map, ARENA_BYTES, MADV_FREE);
	EXPECT_EQ(-1, pattern_mismatch(map, ARENA_BYTES, 61));
	munmap(map, ARENA_BYTES);
}

/* Hints to reclaim what cannot be reclaimed: whole, in part, and by small entries. */
TEST_F(mmap_fault, reclaim_hints_lose_no_data)
{
	unsigned char *map, *range, *askew;

	if (!self->has_pmd)
		SKIP(return, "MADV_COLD of a large page never ends on a kernel without transparent huge pages");
	range = range_reserve(2 * ARENA_BYTES, XALLOC_SEGMENT_BYTES);
	ASSERT_NE(NULL, range);
	map = arena_map(self->arena, ARENA_BYTES);
	ASSERT_NE(NULL, map);
	askew = mmap(range + KPAGE_BYTES, ARENA_BYTES, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_FIXED, self->arena, 0);
	ASSERT_EQ(range + KPAGE_BYTES, askew);
	grant_all(_metadata, self->arena, ARENA_BYTES);
	pattern_fill(map, ARENA_BYTES, 62);
	EXPECT_EQ(-1, pattern_mismatch(askew, ARENA_BYTES, 62));
	madvise(map, ARENA_BYTES, MADV_COLD);
	madvise(map, ARENA_BYTES, MADV_PAGEOUT);
	madvise(map + KPAGE_BYTES, XALLOC_SEGMENT_BYTES, MADV_COLD);
	madvise(map + KPAGE_BYTES, XALLOC_SEGMENT_BYTES, MADV_PAGEOUT);
	madvise(askew, ARENA_BYTES, MADV_COLD);
	madvise(askew, ARENA_BYTES, MADV_PAGEOUT);
	madvise(askew + XALLOC_SLICE_BYTES, XALLOC_SLICE_BYTES, MADV_COLD);
	madvise(askew + XALLOC_SLICE_BYTES, XALLOC_SLICE_BYTES, MADV_PAGEOUT);
	EXPECT_EQ(-1, pattern_mismatch(map, ARENA_BYTES, 62));
	EXPECT_EQ(-1, pattern_mismatch(askew, ARENA_BYTES, 62));
	munmap(askew, ARENA_BYTES);
	munmap(map, ARENA_BYTES);
}

TEST_HARNESS_MAIN
