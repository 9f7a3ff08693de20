// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: whether core files have the memory of an arena, as its creator and its owner say; a
 * dump commits nothing.
 */
#include "selftest.h"
#include "sharing.h"
#include <elf.h>
#include <sys/prctl.h>

#define ARENA_BYTES (8 * MIB)
#define CORE_PATTERN "/proc/sys/kernel/core_pattern"
#define CORE_USES_PID "/proc/sys/kernel/core_uses_pid"
#define CORE "/tmp/xalloc-core"
/* Bits of /proc/PID/coredump_filter: as at boot, and with shared mappings of files. */
#define FILTER_AT_BOOT "0x33"
#define FILTER_WITH_FILES "0x3b"

FIXTURE(core_dump)
{
	int device;
	char pattern[256];
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(core_dump)
{
	FILE *file = fopen(CORE_PATTERN, "r");

	self->device = device_setup(_metadata, &self->before);
	ASSERT_NE(NULL, file);
	ASSERT_NE(NULL, fgets(self->pattern, sizeof(self->pattern), file));
	fclose(file);
	if (!write_text(CORE_PATTERN, CORE))
		SKIP(return, "only root may say where core files go");
	write_text(CORE_USES_PID, "0");
}

FIXTURE_TEARDOWN(core_dump)
{
	write_text(CORE_PATTERN, self->pattern);
	unlink(CORE);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* What the child maps, and what it does before it dies. */
struct scene {
	int arena;
	unsigned char *map;
	const char *filter;
	bool is_changed;
	uint32_t dump_flags;
};

static int dump_set(int arena, uint32_t flags)
{
	struct xalloc_ioc_dump arg = { .size = sizeof(arg), .flags = flags };

	return call(arena, XALLOC_IOC_DUMP, &arg);
}

static void die(const struct scene *scene)
{
	const struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };
	int arena = scene->arena;
	unsigned char *map;

	/* A child of fork does not inherit the test's mapping. */
	map = mmap(scene->map, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, arena,
		   0);
	require(map == scene->map);
	if (scene->is_changed)
		require(!dump_set(arena, scene->dump_flags));
	require(write_text("/proc/self/coredump_filter", scene->filter));
	require(!setrlimit(RLIMIT_CORE, &limit) && !prctl(PR_SET_DUMPABLE, 1));
	signal(SIGABRT, SIG_DFL);
	abort();
}

/* Reads from the core file what was at @addr. Returns whether the file has it. */
static bool core_read(const void *addr, void *to, size_t bytes)
{
	uint64_t wanted = (uintptr_t)addr;
	int fd = open(CORE, O_RDONLY), i;
	bool found = false;
	Elf64_Phdr part;
	Elf64_Ehdr head;

	require(fd >= 0 && read(fd, &head, sizeof(head)) == sizeof(head));
	for (i = 0; i < head.e_phnum && !found; i++) {
		require(pread(fd, &part, sizeof(part), head.e_phoff + i * sizeof(part)) ==
			sizeof(part));
		if (part.p_type != PT_LOAD || wanted < part.p_vaddr ||
		    wanted + bytes > part.p_vaddr + part.p_filesz)
			continue;
		require(pread(fd, to, bytes, part.p_offset + wanted - part.p_vaddr) ==
			(ssize_t)bytes);
		found = true;
	}
	close(fd);
	return found;
}

static void dump(struct __test_metadata *_metadata, const struct scene *scene)
{
	pid_t pid;

	unlink(CORE);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		die(scene);
	ASSERT_EQ(256 + SIGABRT, child_status(pid));
}

/* An arena with one page of two slices, and its mapping. */
static struct scene scene_make(struct __test_metadata *_metadata, int device, uint32_t flags)
{
	struct scene scene = {
		.arena = arena_create_flags(device, ARENA_BYTES, 0, flags),
		.filter = FILTER_AT_BOOT,
	};

	ASSERT_LE(0, scene.arena);
	scene.map = arena_map(scene.arena, ARENA_BYTES);
	ASSERT_NE(NULL, scene.map);
	ASSERT_EQ(1, grant_page(scene.arena, 2, 0, NULL));
	pattern_fill(scene.map, 2 * XALLOC_SLICE_BYTES, 9);
	return scene;
}

static void scene_drop(const struct scene *scene)
{
	munmap(scene->map, ARENA_BYTES);
	close(scene->arena);
}

static void expect_in_core(struct __test_metadata *_metadata, const struct scene *scene)
{
	static unsigned char found[2 * XALLOC_SLICE_BYTES];
	struct xalloc_ioc_stat before = stat_of(scene->arena);

	dump(_metadata, scene);
	EXPECT_TRUE(core_read(scene->map, found, sizeof(found)));
	EXPECT_EQ(-1, pattern_mismatch(found, sizeof(found), 9));
	/* Where there is no page there is nothing, and nothing was committed for it. */
	EXPECT_TRUE(core_read(scene->map + ARENA_BYTES / 2, found, sizeof(found)));
	EXPECT_EQ(-1, nonzero_find(found, sizeof(found)));
	EXPECT_EQ(before.committed_bytes, stat_of(scene->arena).committed_bytes);
}

static void expect_not_in_core(struct __test_metadata *_metadata, const struct scene *scene)
{
	unsigned char byte;

	dump(_metadata, scene);
	EXPECT_FALSE(core_read(scene->map, &byte, 1));
}

TEST_F(core_dump, arena_is_left_out)
{
	struct scene scene = scene_make(_metadata, self->device, 0);

	expect_not_in_core(_metadata, &scene);
	scene.is_changed = true;
	scene.dump_flags = XALLOC_DUMP_ON;
	expect_in_core(_metadata, &scene);
	/* Also the mappings that are made after the change. */
	scene.is_changed = false;
	scene.filter = "0";
	expect_in_core(_metadata, &scene);
	scene_drop(&scene);
}

TEST_F(core_dump, arena_is_in)
{
	struct scene scene = scene_make(_metadata, self->device, XALLOC_ARENA_DUMP);

	expect_in_core(_metadata, &scene);
	scene.is_changed = true;
	expect_not_in_core(_metadata, &scene);
	scene_drop(&scene);
}

/* The child has a copy, at the same address. */
static void die_with_copy(void)
{
	const struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };

	require(!setrlimit(RLIMIT_CORE, &limit) && !prctl(PR_SET_DUMPABLE, 1));
	signal(SIGABRT, SIG_DFL);
	abort();
}

TEST_F(core_dump, copy_is_as_its_original)
{
	struct scene scene = scene_make(_metadata, self->device,
					XALLOC_ARENA_FORK | XALLOC_ARENA_DUMP);
	unsigned char found[KPAGE_BYTES];
	int i;

	for (i = 0; i < 2; i++) {
		pid_t pid = fork();

		ASSERT_LE(0, pid);
		if (!pid)
			die_with_copy();
		ASSERT_EQ(256 + SIGABRT, child_status(pid));
		EXPECT_EQ(!i, core_read(scene.map, found, sizeof(found)));
		EXPECT_EQ(0, dump_set(scene.arena, 0));
	}
	scene_drop(&scene);
}

/* A file is dumped as any other. Its holes stay holes. */
TEST_F(core_dump, file_follows_the_filter)
{
	static unsigned char found[XALLOC_SLICE_BYTES];
	struct scene scene = { .filter = FILTER_WITH_FILES };
	struct stat before, after;

	unlink(NAMES "/core_dump-test");
	scene.arena = open(NAMES "/core_dump-test", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_LE(0, scene.arena);
	ASSERT_EQ(0, ftruncate(scene.arena, ARENA_BYTES));
	scene.map = arena_map(scene.arena, ARENA_BYTES);
	ASSERT_NE(NULL, scene.map);
	pattern_fill(scene.map, sizeof(found), 9);
	ASSERT_EQ(0, fstat(scene.arena, &before));
	dump(_metadata, &scene);
	EXPECT_TRUE(core_read(scene.map, found, sizeof(found)));
	EXPECT_EQ(-1, pattern_mismatch(found, sizeof(found), 9));
	EXPECT_TRUE(core_read(scene.map + ARENA_BYTES / 2, found, sizeof(found)));
	EXPECT_EQ(-1, nonzero_find(found, sizeof(found)));
	ASSERT_EQ(0, fstat(scene.arena, &after));
	EXPECT_EQ(before.st_blocks, after.st_blocks);
	scene.filter = FILTER_AT_BOOT;
	expect_not_in_core(_metadata, &scene);
	EXPECT_EQ(-EOPNOTSUPP, dump_set(scene.arena, 0));
	scene_drop(&scene);
	EXPECT_EQ(0, unlink(NAMES "/core_dump-test"));
}

TEST_F(core_dump, only_the_owner_may_change_it)
{
	struct scene scene = scene_make(_metadata, self->device, 0);
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		require(!setresuid(TEST_UID, TEST_UID, TEST_UID));
		require(dump_set(scene.arena, XALLOC_DUMP_ON) == -EPERM);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
	expect_not_in_core(_metadata, &scene);
	scene_drop(&scene);
}

TEST_HARNESS_MAIN
