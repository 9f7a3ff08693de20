// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: memory that hardware has broken is not granted again, does not go back to the
 * kernel, and is not mapped again, while its neighbours are. It is broken in the kernel's books
 * only, and for good, in two ways that the kernel treats differently: by madvise(MADV_HWPOISON),
 * and by hard_offline_page, which takes the path of a real machine check.
 */
#include "holes.h"
#include "kpages.h"

#include <sys/prctl.h>
#include <sys/uio.h>

#define ARENA_BYTES (4 * MIB)

#define HARD_OFFLINE "/sys/devices/system/memory/hard_offline_page"

static volatile sig_atomic_t sigbus_code;
static void *volatile told_address;

static void note_code(int sig, siginfo_t *info, void *context)
{
	(void)context;
	sigbus_code = info->si_code;
	guard_handler(sig);
}

/* Whether a read of @addr is SIGBUS, with the code that the kernel gives for broken memory. */
static bool is_refused_as_broken(const volatile void *addr)
{
	sigbus_code = 0;
	return touch_read(addr, NULL) == SIGBUS && sigbus_code == BUS_MCEERR_AR;
}

enum breaker { BY_MADVISE, BY_OFFLINE };

static void note_address(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	told_address = info->si_addr;
}

/*
 * Writes to the kpage at @addr and breaks it. Returns false where the kernel cannot. From 6.12 on
 * the kernel sends SIGBUS to a process that has the kpage mapped and has set PR_MCE_KILL_EARLY; the
 * handler puts the address into told_address.
 */
static bool break_kpage(enum breaker how, void *addr)
{
	struct sigaction action = { .sa_sigaction = note_address, .sa_flags = SA_SIGINFO }, before;
	char text[32];
	uint64_t pfn;

	*(volatile char *)addr = 1;
	pfn = pfn_of(addr);
	told_address = NULL;
	prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0);
	sigaction(SIGBUS, &action, &before);
	if (how == BY_MADVISE) {
		madvise(addr, KPAGE_BYTES, MADV_HWPOISON);
	} else {
		snprintf(text, sizeof(text), "%#" PRIx64, pfn * KPAGE_BYTES);
		write_text(HARD_OFFLINE, text);
	}
	sigaction(SIGBUS, &before, NULL);
	/* The calls mostly fail, because the kernel cannot unmap the kpage; so look at its mark. */
	return kpage_has(pfn, KPF_HWPOISON);
}

/* Whether break_kpage() must succeed: some kernels have only one of the two ways. */
static bool kernel_can_break(enum breaker how)
{
	/* A length of 0 only asks whether the kernel knows the advice. */
	return how == BY_MADVISE ? !madvise(NULL, 0, MADV_HWPOISON) : !access(HARD_OFFLINE, F_OK);
}

FIXTURE(poison)
{
	int device;
	int arena;
	unsigned char *map;
	struct xalloc_ioc_stat before;
};

FIXTURE_VARIANT(poison)
{
	enum breaker how;
};

FIXTURE_VARIANT_ADD(poison, madvise)
{
	.how = BY_MADVISE,
};

FIXTURE_VARIANT_ADD(poison, offline)
{
	.how = BY_OFFLINE,
};

FIXTURE_SETUP(poison)
{
	self->device = device_setup(_metadata, &self->before);
	if (!kernel_can_break(variant->how))
		SKIP(return, "this kernel cannot mark memory as broken in this way");
	self->arena = arena_create(self->device, ARENA_BYTES, 0);
	self->map = arena_map(self->arena, ARENA_BYTES);
	ASSERT_NE(NULL, self->map);
}

FIXTURE_TEARDOWN(poison)
{
	munmap(self->map, ARENA_BYTES);
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* A file can be read around it, and loses it by a hole; then it is whole again. */
TEST_F(poison, file_is_mended_by_a_hole)
{
	int fd = open(NAMES, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	char bytes[2 * KPAGE_BYTES];
	unsigned char *map;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, file_resize(fd, ARENA_BYTES));
	map = arena_map(fd, ARENA_BYTES);
	ASSERT_NE(NULL, map);
	ASSERT_EQ(0, touch_write(map + XALLOC_SEGMENT_BYTES, 7));
	ASSERT_TRUE(break_kpage(variant->how, map + 3 * KPAGE_BYTES));
	EXPECT_EQ((ssize_t)KPAGE_BYTES, pread(fd, bytes, sizeof(bytes), 2 * KPAGE_BYTES));
	EXPECT_EQ(-1, pread(fd, bytes, sizeof(bytes), 3 * KPAGE_BYTES));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(-1, pwrite(fd, bytes, 1, 3 * KPAGE_BYTES));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(0, file_punch(fd, 0, SEGMENT));
	EXPECT_TRUE(wait_for(file_blocks(fd) == (long)SEGMENT, 5000));
	EXPECT_EQ(1, pwrite(fd, "x", 1, 3 * KPAGE_BYTES));
	EXPECT_EQ('x', map[3 * KPAGE_BYTES]);
	EXPECT_EQ(0, map[0]);
	EXPECT_EQ(7, map[XALLOC_SEGMENT_BYTES]);
	munmap(map, ARENA_BYTES);
	close(fd);
}

TEST_F(poison, broken_slice_is_not_granted_again)
{
	struct xalloc_page_grant page;
	struct xalloc_ioc_stat stat = {};
	uint32_t i;

	ASSERT_EQ(1, grant_page(self->arena, 1, 0, NULL));
	ASSERT_EQ(1, grant_page(self->arena, 2, 0, &page));
	ASSERT_TRUE(break_kpage(variant->how, self->map + page.offset + 3 * KPAGE_BYTES));
	ASSERT_EQ(1, free_page(self->arena, page.offset));
	/* All of the arena but those two slices. */
	for (i = 0; i < 61; i++) {
		ASSERT_EQ(1, grant_page(self->arena, 1, 0, &page));
		EXPECT_TRUE(page.offset < XALLOC_SLICE_BYTES ||
			    page.offset >= 3 * XALLOC_SLICE_BYTES);
	}
	EXPECT_EQ(-ENOSPC, grant_page(self->arena, 1, 0, NULL));

	/* When nobody has a page in it any more, all of it goes, but not to the kernel. */
	for (i = 0; i < 32; i++)
		free_page(self->arena, i * XALLOC_SLICE_BYTES);
	for (i = 0; i < 200; i++) {
		ASSERT_EQ(0, counters_read(self->device, &stat));
		if (stat.poisoned_bytes != self->before.poisoned_bytes)
			break;
		sleep_ms(20);
	}
	EXPECT_EQ(self->before.poisoned_bytes + 2 * MIB, stat.poisoned_bytes);
	ASSERT_EQ(0, counters_read(self->arena, &stat));
	EXPECT_EQ(2 * MIB, stat.committed_bytes);
	/* The offsets are good again, with other memory. */
	ASSERT_EQ(1, grant_page(self->arena, 32, 0, &page));
	EXPECT_EQ(0, page.offset);
	EXPECT_EQ(-1, nonzero_find(self->map, 2 * MIB));
}

/* Neither waits for the other for ever. */
TEST_F(poison, two_broken_pages_of_a_segment_leave_together)
{
	struct xalloc_page_grant pages[3];
	struct xalloc_ioc_stat stat = {};
	int i;

	for (i = 0; i < 3; i++)
		ASSERT_EQ(1, grant_page(self->arena, 4, 0, &pages[i]));
	ASSERT_TRUE(break_kpage(variant->how, self->map + pages[0].offset));
	ASSERT_TRUE(break_kpage(variant->how, self->map + pages[2].offset));
	for (i = 0; i < 3; i++)
		ASSERT_EQ(1, free_page(self->arena, pages[i].offset));
	for (i = 0; i < 200; i++) {
		ASSERT_EQ(0, counters_read(self->arena, &stat));
		if (!stat.committed_bytes)
			break;
		sleep_ms(20);
	}
	EXPECT_EQ(0, stat.committed_bytes);
	ASSERT_EQ(0, counters_read(self->device, &stat));
	EXPECT_EQ(self->before.poisoned_bytes + 2 * MIB, stat.poisoned_bytes);
}

/* Not for a moment between the leaving of the one and that of the other, either. */
TEST_F(poison, half_broken_segment_is_not_granted_again)
{
	struct xalloc_page_grant pages[2];
	uint64_t offsets[2];
	int i;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(1, grant_page(self->arena, 16, 0, &pages[i]));
		offsets[i] = pages[i].offset;
		ASSERT_TRUE(break_kpage(variant->how, self->map + offsets[i]));
	}
	ASSERT_EQ(2, free_batch(self->arena, offsets, 2));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(1, grant_page(self->arena, 16, XALLOC_PAGE_CONTIG, &pages[i]));
		EXPECT_EQ(0, touch_read(self->map + pages[i].offset, NULL));
	}
	EXPECT_EQ(2 * MIB, stat_of(self->arena).committed_bytes);
}

/* One page of the broken segment cannot leave, because of a pin in another segment. */
TEST_F(poison, broken_page_waits_for_one_that_is_pinned)
{
	struct xalloc_page_grant pages[2], other;
	struct iovec pinned = { self->map + 2 * MIB, KPAGE_BYTES };
	int pipes[2];

	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(1, grant_page(self->arena, 16, 0, &pages[0]));
	ASSERT_EQ(1, grant_page(self->arena, 40, 0, &pages[1]));
	ASSERT_EQ(16 * XALLOC_SLICE_BYTES, pages[1].offset);
	self->map[2 * MIB] = 1;
	ASSERT_EQ(KPAGE_BYTES, vmsplice(pipes[1], &pinned, 1, 0));
	ASSERT_TRUE(break_kpage(variant->how, self->map));
	ASSERT_TRUE(break_kpage(variant->how, self->map + MIB));
	EXPECT_EQ(1, free_page(self->arena, pages[1].offset));
	EXPECT_EQ(1, free_page(self->arena, 0));
	EXPECT_EQ(1, grant_page(self->arena, 8, 0, &other));
	EXPECT_EQ(56 * XALLOC_SLICE_BYTES, other.offset);
	EXPECT_EQ(-ENOSPC, grant_page(self->arena, 1, 0, NULL));
	EXPECT_EQ(1, free_page(self->arena, other.offset));
	close(pipes[0]);
	close(pipes[1]);
	EXPECT_TRUE(wait_for(!stat_of(self->arena).committed_bytes, 5000));
}

TEST_F(poison, broken_memory_is_no_reserve)
{
	struct xalloc_ioc_stat stat = {};

	ASSERT_EQ(1, grant_page(self->arena, 32, 0, NULL));
	ASSERT_EQ(0, reserve_set(self->arena, 0, 0));
	ASSERT_TRUE(break_kpage(variant->how, self->map + MIB));
	ASSERT_EQ(0, reserve_set(self->arena, 2 * MIB, 2 * MIB));
	ASSERT_EQ(1, free_page(self->arena, 0));
	ASSERT_EQ(0, counters_read(self->device, &stat));
	EXPECT_EQ(self->before.poisoned_bytes + 2 * MIB, stat.poisoned_bytes);
}

TEST_F(poison, broken_memory_outlives_its_arena)
{
	struct xalloc_ioc_stat stat = {};

	ASSERT_EQ(1, grant_page(self->arena, 40, 0, NULL));
	ASSERT_TRUE(break_kpage(variant->how, self->map + MIB));
	munmap(self->map, ARENA_BYTES);
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	ASSERT_EQ(0, counters_read(self->device, &stat));
	EXPECT_EQ(self->before.poisoned_bytes + 2 * MIB, stat.poisoned_bytes);
	self->arena = -1;
	self->map = NULL;
}

/* If the kernel copied broken memory, the kernel itself would have the machine check. */
TEST_F(poison, child_has_no_copy_of_an_arena_with_broken_memory)
{
	int arena = family_create(self->device, ARENA_BYTES, 0);
	unsigned char *map = arena_map(arena, ARENA_BYTES);

	ASSERT_NE(NULL, map);
	ASSERT_EQ(1, grant_page(arena, 2 * SEGMENT_SLICES, 0, NULL));
	pattern_fill(map, ARENA_BYTES, 1);
	ASSERT_TRUE(break_kpage(variant->how, map + MIB));
	EXPECT_EQ(0, in_child({
		require(touch_read(map, NULL) == SIGBUS);
		require(touch_read(map + MIB, NULL) == SIGBUS);
		require(touch_write(map + 3 * MIB, 1) == SIGBUS);
	}));
	EXPECT_EQ(-1, pattern_mismatch(map, MIB, 1));
	munmap(map, ARENA_BYTES);
	close(arena);
}

FIXTURE(broken_neighbour)
{
	int device;
	int arena;
	unsigned char *map;
	size_t bytes;		/* of the arena and of the mapping */
	struct xalloc_ioc_stat before;
};

FIXTURE_VARIANT(broken_neighbour)
{
	enum breaker how;
	uint32_t policy;
	size_t off;		/* of the mapping from an address where 2 MiB entries fit */
	bool is_last;		/* one segment: the last folio of a file is special */
};

FIXTURE_VARIANT_ADD(broken_neighbour, madvise_huge)
{
	.how = BY_MADVISE,
};

FIXTURE_VARIANT_ADD(broken_neighbour, madvise_askew)
{
	.how = BY_MADVISE,
	.off = XALLOC_SLICE_BYTES,
};

FIXTURE_VARIANT_ADD(broken_neighbour, madvise_small)
{
	.how = BY_MADVISE,
	.policy = XALLOC_POLICY_SMALL,
};

FIXTURE_VARIANT_ADD(broken_neighbour, madvise_last)
{
	.how = BY_MADVISE,
	.is_last = true,
};

FIXTURE_VARIANT_ADD(broken_neighbour, madvise_last_askew)
{
	.how = BY_MADVISE,
	.off = XALLOC_SLICE_BYTES,
	.is_last = true,
};

FIXTURE_VARIANT_ADD(broken_neighbour, offline_huge)
{
	.how = BY_OFFLINE,
};

FIXTURE_VARIANT_ADD(broken_neighbour, offline_askew)
{
	.how = BY_OFFLINE,
	.off = XALLOC_SLICE_BYTES,
};

FIXTURE_VARIANT_ADD(broken_neighbour, offline_small)
{
	.how = BY_OFFLINE,
	.policy = XALLOC_POLICY_SMALL,
};

/* The kpage that is broken: neither the first of its piece nor of its segment. */
#define BROKEN (5 * XALLOC_SLICE_BYTES + 3 * KPAGE_BYTES)

FIXTURE_SETUP(broken_neighbour)
{
	unsigned char *range = range_reserve(ARENA_BYTES + XALLOC_SEGMENT_BYTES,
					     XALLOC_SEGMENT_BYTES);
	struct sigaction action = { .sa_sigaction = note_code,
				    .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct xalloc_page_grant page;

	self->device = device_setup(_metadata, &self->before);
	if (!kernel_can_break(variant->how))
		SKIP(return, "this kernel cannot mark memory as broken in this way");
	sigaction(SIGBUS, &action, NULL);
	ASSERT_NE(NULL, range);
	self->bytes = variant->is_last ? XALLOC_SEGMENT_BYTES : ARENA_BYTES;
	self->arena = arena_create_by(self->device, self->bytes, variant->policy, -1);
	ASSERT_LE(0, self->arena);
	self->map = mmap(range + variant->off, self->bytes, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, self->arena, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->map);
	ASSERT_EQ(1, grant_page(self->arena, SEGMENT_SLICES, 0, &page));
	ASSERT_EQ(0, page.offset);
	pattern_fill(self->map, XALLOC_SEGMENT_BYTES, 1);
	ASSERT_TRUE(break_kpage(variant->how, self->map + BROKEN));
}

FIXTURE_TEARDOWN(broken_neighbour)
{
	munmap(self->map, self->bytes);
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* All kpages of the segment can be read, except the broken one. */
static void expect_only_broken_is_missing(struct __test_metadata *_metadata,
					  const unsigned char *map)
{
	unsigned char want[XALLOC_SEGMENT_BYTES];
	size_t at;

	pattern_fill(want, sizeof(want), 1);
	for (at = 0; at < sizeof(want); at += KPAGE_BYTES) {
		if (at == BROKEN)
			continue;
		ASSERT_EQ(0, touch_read(map + at, NULL)) {
			TH_LOG("offset %#zx", at);
		}
		ASSERT_EQ(0, memcmp(map + at, want + at, KPAGE_BYTES)) {
			TH_LOG("offset %#zx", at);
		}
	}
	EXPECT_TRUE(is_refused_as_broken(map + BROKEN));
	EXPECT_EQ(SIGBUS, touch_write((void *)(map + BROKEN), 1));
}

/* The SIGBUS comes before the process touches the broken kpage. */
TEST_F(broken_neighbour, is_told_to_those_who_have_it_mapped)
{
	if (!is_kernel_at_least(6, 12))
		SKIP(return, "this kernel tells a process only when it touches broken memory");
	EXPECT_EQ((void *)(self->map + BROKEN), told_address);
}

/* A fault on one kpage may map others with it, by one large entry or by many small ones. */
TEST_F(broken_neighbour, is_not_mapped_by_a_touch_beside_it)
{
	static const size_t beside[] = {
		BROKEN - KPAGE_BYTES, BROKEN + KPAGE_BYTES, 0, XALLOC_SEGMENT_BYTES - KPAGE_BYTES,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(beside); i++) {
		ASSERT_EQ(0, madvise(self->map, self->bytes, MADV_DONTNEED));
		EXPECT_EQ(0, touch_read(self->map + beside[i], NULL));
		EXPECT_EQ(0, pfn_of(self->map + BROKEN));
		EXPECT_TRUE(is_refused_as_broken(self->map + BROKEN)) {
			TH_LOG("after a read at %#zx", beside[i]);
		}
		ASSERT_EQ(0, madvise(self->map, self->bytes, MADV_DONTNEED));
		EXPECT_EQ(0, touch_write(self->map + beside[i], pattern_word(1, beside[i] / 8)));
		EXPECT_EQ(0, pfn_of(self->map + BROKEN));
		EXPECT_TRUE(is_refused_as_broken(self->map + BROKEN)) {
			TH_LOG("after a write at %#zx", beside[i]);
		}
	}
}

TEST_F(broken_neighbour, is_all_that_is_missing)
{
	ASSERT_EQ(0, madvise(self->map, self->bytes, MADV_DONTNEED));
	EXPECT_TRUE(is_refused_as_broken(self->map + BROKEN));
	expect_only_broken_is_missing(_metadata, self->map);
}

/* A mapping with an entry for the broken kpage loses it when another mapping takes a fault. */
TEST_F(broken_neighbour, is_unmapped_everywhere_by_the_first_fault)
{
	unsigned char *other = arena_map(self->arena, self->bytes);

	ASSERT_NE(NULL, other);
	EXPECT_EQ(0, touch_read(other + BROKEN + KPAGE_BYTES, NULL));
	EXPECT_EQ(0, pfn_of(self->map + BROKEN));
	expect_only_broken_is_missing(_metadata, self->map);
	expect_only_broken_is_missing(_metadata, other);
	munmap(other, self->bytes);
}

TEST_F(broken_neighbour, is_unmapped_everywhere_by_a_fault_on_itself)
{
	unsigned char *other = arena_map(self->arena, self->bytes);

	ASSERT_NE(NULL, other);
	EXPECT_TRUE(is_refused_as_broken(other + BROKEN));
	EXPECT_EQ(0, pfn_of(self->map + BROKEN));
	expect_only_broken_is_missing(_metadata, self->map);
	munmap(other, self->bytes);
}

TEST_F(broken_neighbour, is_not_mapped_by_a_dmabuf)
{
	struct xalloc_ioc_export arg = { .size = sizeof(arg), .bytes = XALLOC_SEGMENT_BYTES };
	int dmabuf = call(self->arena, XALLOC_IOC_EXPORT, &arg);
	unsigned char *other;

	if (dmabuf == -EOPNOTSUPP)
		SKIP(return, "this kernel has no dma-bufs");
	ASSERT_LE(0, dmabuf);
	other = arena_map(dmabuf, XALLOC_SEGMENT_BYTES);
	ASSERT_NE(NULL, other);
	expect_only_broken_is_missing(_metadata, other);
	munmap(other, XALLOC_SEGMENT_BYTES);
	close(dmabuf);
}

/* System calls that are given the address of the broken kpage fail with EFAULT. */
TEST_F(broken_neighbour, is_an_error_to_system_calls)
{
	struct iovec from = { self->map + BROKEN, 8 }, to;
	char bytes[8];
	int pipes[2];

	to = (struct iovec){ bytes, sizeof(bytes) };
	ASSERT_EQ(0, madvise(self->map, self->bytes, MADV_DONTNEED));
	ASSERT_EQ(0, pipe(pipes));
	EXPECT_EQ(-1, write(pipes[1], self->map + BROKEN, 8));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, process_vm_readv(getpid(), &to, 1, &from, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, vmsplice(pipes[1], &from, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(8, write(pipes[1], self->map + BROKEN + KPAGE_BYTES, 8));
	close(pipes[0]);
	close(pipes[1]);
}

TEST_F(broken_neighbour, leaves_with_its_folio_alone)
{
	uint64_t bytes = variant->policy == XALLOC_POLICY_SMALL ? XALLOC_SLICE_BYTES :
								 XALLOC_SEGMENT_BYTES;
	uint64_t pfn = pfn_of(self->map + BROKEN);
	struct xalloc_ioc_stat stat = {};
	struct xalloc_page_grant page;

	ASSERT_NE(0, pfn);
	EXPECT_EQ(0, touch_read(self->map + BROKEN + KPAGE_BYTES, NULL));
	ASSERT_EQ(1, free_page(self->arena, 0));
	EXPECT_TRUE(wait_for(!stat_of(self->arena).committed_bytes, 5000));
	ASSERT_EQ(0, counters_read(self->device, &stat));
	EXPECT_EQ(self->before.poisoned_bytes + bytes, stat.poisoned_bytes);
	/* The kernel has not got the broken kpage back. */
	EXPECT_TRUE(kpage_has(pfn, KPF_HWPOISON));
	EXPECT_FALSE(kpage_has(pfn, KPF_BUDDY));

	/* The offsets have other memory now, which is mapped as usual. */
	ASSERT_EQ(1, grant_page(self->arena, SEGMENT_SLICES, 0, &page));
	EXPECT_EQ(0, page.offset);
	EXPECT_EQ(-1, nonzero_find(self->map, XALLOC_SEGMENT_BYTES));
	EXPECT_NE(pfn, pfn_of(self->map + BROKEN));
	if (is_thp_kernel() && !variant->policy && !variant->off) {
		EXPECT_EQ(2048, smaps_kb(self->map, self->bytes, "FilePmdMapped"));
	}
}

TEST_HARNESS_MAIN
