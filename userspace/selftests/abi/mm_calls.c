// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: what the kernel's calls on mappings do to one of an arena: each does what
 * Documentation/abi.rst says, and none loses a byte.
 */
#include "kpages.h"
#include "selftest.h"
#include "sharing.h"

#include <linux/userfaultfd.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#define ARENA_BYTES (8 * MIB)
#define ADVICE(_advice, _error) { #_advice, _advice, _error }

FIXTURE(mm_calls)
{
	int device;
	int arena;
	unsigned char *map;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(mm_calls)
{
	self->device = device_setup(_metadata, &self->before);
	self->arena = arena_create(self->device, ARENA_BYTES, 0);
	ASSERT_LE(0, self->arena);
	ASSERT_EQ(1, grant_page(self->arena, ARENA_BYTES / XALLOC_SLICE_BYTES, 0, NULL));
	self->map = arena_map(self->arena, ARENA_BYTES);
	ASSERT_NE(NULL, self->map);
	pattern_fill(self->map, ARENA_BYTES, 1);
}

FIXTURE_TEARDOWN(mm_calls)
{
	munmap(self->map, ARENA_BYTES);
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* Each on all of the mapping and on a piece of it. MADV_COLD and _PAGEOUT are in mmap_fault.c. */
TEST_F(mm_calls, madvise)
{
	static const struct {
		const char *name;
		int advice;
		int error;
	} rows[] = {
		ADVICE(MADV_NORMAL, 0), ADVICE(MADV_RANDOM, 0), ADVICE(MADV_SEQUENTIAL, 0),
		ADVICE(MADV_WILLNEED, 0), ADVICE(MADV_DONTNEED, 0),
		ADVICE(MADV_POPULATE_READ, 0), ADVICE(MADV_POPULATE_WRITE, 0),
		ADVICE(MADV_HUGEPAGE, 0), ADVICE(MADV_NOHUGEPAGE, 0), ADVICE(MADV_HUGEPAGE, 0),
		ADVICE(MADV_MERGEABLE, 0), ADVICE(MADV_UNMERGEABLE, 0),
		ADVICE(MADV_DONTDUMP, 0), ADVICE(MADV_DONTFORK, 0), ADVICE(MADV_KEEPONFORK, 0),
		/* There is no private memory. MADV_REMOVE is in file_calls.c. */
		ADVICE(MADV_FREE, EINVAL), ADVICE(MADV_WIPEONFORK, EINVAL),
		/* What is left out of core dumps was decided when it was mapped. */
		ADVICE(MADV_DODUMP, EINVAL),
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		int rc = madvise(self->map, ARENA_BYTES, rows[i].advice) ? errno : 0;

		/* Where the kernel was built without the thing. */
		if (rc == EINVAL && (rows[i].advice == MADV_HUGEPAGE ||
				     rows[i].advice == MADV_NOHUGEPAGE) && !is_thp_kernel())
			continue;
		EXPECT_EQ(rows[i].error, rc) {
			TH_LOG("%s", rows[i].name);
		}
		rc = madvise(self->map + KPAGE_BYTES, XALLOC_SEGMENT_BYTES, rows[i].advice) ?
			     errno : 0;
		EXPECT_EQ(rows[i].error, rc) {
			TH_LOG("%s of a piece", rows[i].name);
		}
		EXPECT_EQ(-1, pattern_mismatch(self->map, ARENA_BYTES, 1)) {
			TH_LOG("%s", rows[i].name);
		}
	}
}

/* It is locked in any case, so that nothing is to be counted. */
TEST_F(mm_calls, mlock)
{
	EXPECT_EQ(0, mlock(self->map, ARENA_BYTES));
	EXPECT_EQ(0, smaps_kb(self->map, ARENA_BYTES, "Locked"));
	EXPECT_EQ(0, munlock(self->map, ARENA_BYTES));
	EXPECT_EQ(0, mlockall(MCL_CURRENT | MCL_FUTURE));
	munmap(self->map, ARENA_BYTES);
	self->map = arena_map(self->arena, ARENA_BYTES);
	ASSERT_NE(NULL, self->map);
	EXPECT_EQ(0, munlockall());
	EXPECT_EQ(-1, pattern_mismatch(self->map, ARENA_BYTES, 1));
}

TEST_F(mm_calls, size_does_not_change)
{
	EXPECT_EQ(-1, ftruncate(self->arena, XALLOC_SEGMENT_BYTES));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(-1, pattern_mismatch(self->map, ARENA_BYTES, 1));
}

TEST_F(mm_calls, mremap_does_not_grow)
{
	EXPECT_EQ(MAP_FAILED, mremap(self->map, ARENA_BYTES, 2 * ARENA_BYTES, MREMAP_MAYMOVE));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, pattern_mismatch(self->map, ARENA_BYTES, 1));
}

TEST_F(mm_calls, userfaultfd_is_refused)
{
	static const uint64_t modes[] = {
		UFFDIO_REGISTER_MODE_MISSING, UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_api api = { .api = UFFD_API };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	size_t i;

	if (fd < 0)
		SKIP(return, "this kernel has no userfaultfd (%s)", strerror(errno));
	ASSERT_EQ(0, ioctl(fd, UFFDIO_API, &api));
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		struct uffdio_register reg = {
			.range = { (uintptr_t)self->map, ARENA_BYTES }, .mode = modes[i],
		};

		EXPECT_EQ(-1, ioctl(fd, UFFDIO_REGISTER, &reg));
		EXPECT_EQ(EINVAL, errno);
	}
	close(fd);
}

static bool is_soft_dirty(const volatile void *addr)
{
	return pagemap_entry(addr) >> 55 & 1;
}

TEST_F(mm_calls, soft_dirty_tells_of_writes)
{
	uint64_t value;

	ASSERT_EQ(0, access("/proc/self/pagemap", R_OK));
	/* A new mapping counts as dirty until it is cleared. */
	if (!is_soft_dirty(self->map))
		SKIP(return, "this kernel has no soft-dirty bits");
	ASSERT_TRUE(write_text("/proc/self/clear_refs", "4"));
	EXPECT_EQ(0, touch_read(self->map, &value));
	EXPECT_EQ(0, touch_read(self->map + XALLOC_SEGMENT_BYTES, &value));
	EXPECT_FALSE(is_soft_dirty(self->map));
	EXPECT_EQ(0, touch_write(self->map, value));
	EXPECT_TRUE(is_soft_dirty(self->map));
	EXPECT_FALSE(is_soft_dirty(self->map + XALLOC_SEGMENT_BYTES));
}

TEST_F(mm_calls, ptrace_reads_and_writes)
{
	long *word = (long *)(self->map + XALLOC_SEGMENT_BYTES);
	pid_t pid = fork();
	int status;

	ASSERT_LE(0, pid);
	if (!pid) {
		/* The mapping is not inherited; the descriptor is. */
		if (mmap(self->map, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 self->arena, 0) != self->map)
			_exit(2);
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(*word == 43 ? 0 : 1);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	*word = 42;
	errno = 0;
	EXPECT_EQ(42, ptrace(PTRACE_PEEKDATA, pid, word, NULL));
	EXPECT_EQ(0, errno);
	EXPECT_EQ(0, ptrace(PTRACE_POKEDATA, pid, word, (void *)43L));
	EXPECT_EQ(43, *word);
	EXPECT_EQ(0, ptrace(PTRACE_CONT, pid, NULL, NULL));
	EXPECT_EQ(0, child_status(pid));
}

#define CORE "/tmp/xalloc-selftest-core"

/* How often the eight bytes are in the file. */
static long count_in(const char *path, uint64_t what)
{
	static unsigned char buffer[1 << 20];
	FILE *file = fopen(path, "re");
	size_t len, at;
	long nr = 0;

	if (!file)
		return -1;
	while ((len = fread(buffer, 1, sizeof(buffer), file)) > 0)
		for (at = 0; at + 8 <= len; at += 8)
			nr += !memcmp(buffer + at, &what, 8);
	fclose(file);
	return nr;
}

TEST_F(mm_calls, core_dump_leaves_it_out)
{
	const uint64_t in_arena = 0x1234567887654321, beside = 0x8765432112345678;
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	char pattern[256] = "";
	FILE *file = fopen("/proc/sys/kernel/core_pattern", "re");
	pid_t pid;
	size_t i;

	ASSERT_NE(NULL, file);
	ASSERT_NE(NULL, fgets(pattern, sizeof(pattern), file));
	fclose(file);
	unlink(CORE);
	ASSERT_TRUE(write_text("/proc/sys/kernel/core_pattern", CORE));
	pid = fork();
	if (!pid) {
		unsigned char *map = arena_map(self->arena, ARENA_BYTES);
		volatile uint64_t *heap = malloc(1 << 16);

		for (i = 0; i < ARENA_BYTES / 8; i++)
			((volatile uint64_t *)map)[i] = in_arena;
		for (i = 0; i < (1 << 16) / 8; i++)
			heap[i] = beside;
		if (setrlimit(RLIMIT_CORE, &unlimited))
			_exit(1);
		signal(SIGABRT, SIG_DFL);
		abort();
	}
	EXPECT_EQ(256 + SIGABRT, child_status(pid));
	write_text("/proc/sys/kernel/core_pattern", strtok(pattern, "\n"));
	EXPECT_LT(1000, count_in(CORE, beside));
	/* One is on the stack of who wrote it. */
	EXPECT_GT(100, count_in(CORE, in_arena));
	unlink(CORE);
}

/* A child has no mapping. Before 7.0 the advice gives it one, of the same memory, no copy. */
TEST_F(mm_calls, madv_dofork_shares_it_or_is_refused)
{
	if (is_kernel_at_least(7, 0)) {
		EXPECT_EQ(-1, madvise(self->map, ARENA_BYTES, MADV_DOFORK));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(0, in_child(require(touch_write(self->map, 77) == SIGSEGV)));
		EXPECT_EQ(-1, pattern_mismatch(self->map, ARENA_BYTES, 1));
		return;
	}
	ASSERT_EQ(0, madvise(self->map, ARENA_BYTES, MADV_DOFORK));
	EXPECT_EQ(0, in_child(self->map[0] = 77));
	EXPECT_EQ(77, self->map[0]);
}

TEST_HARNESS_MAIN
