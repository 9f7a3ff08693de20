// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: clients that share an arena: attached for writing or for reading, pages that
 * outlive their client, the list of pages, claiming, the limit.
 */
#include "selftest.h"
#include "sharing.h"

#include <sys/prctl.h>

#define ARENA_BYTES (64 * MIB)

FIXTURE(ownership)
{
	int device;
	int arena;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(ownership)
{
	self->device = device_setup(_metadata, &self->before);
	self->arena = arena_create(self->device, ARENA_BYTES, 0);
	ASSERT_LE(0, self->arena);
}

FIXTURE_TEARDOWN(ownership)
{
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

static uint64_t client_id_of(int arena)
{
	struct xalloc_page_info info = {};
	struct xalloc_page_grant page;
	uint64_t offset;

	if (grant_page(arena, 1, 0, &page) != 1)
		return 0;
	offset = page.offset;
	list_some(arena, 0, 0, &offset, &info, 1);
	free_page(arena, page.offset);
	return info.client_id;
}

TEST_F(ownership, attached_client_is_another)
{
	struct xalloc_ioc_attach arg;
	struct xalloc_page_grant page;
	int other = attach(self->arena, 0, &arg);

	ASSERT_LE(0, other);
	EXPECT_EQ(FD_CLOEXEC, fcntl(other, F_GETFD));
	EXPECT_EQ(2, stat_of(self->arena).clients);
	EXPECT_EQ(1, stat_of(self->arena).arenas);
	EXPECT_EQ(arg.client_id, client_id_of(other));
	EXPECT_NE(arg.client_id, client_id_of(self->arena));
	ASSERT_EQ(1, grant_page(self->arena, 1, 0, &page));
	EXPECT_EQ(-EPERM, free_page(other, page.offset));
	ASSERT_EQ(1, grant_page(other, 1, 0, NULL));
	close(other);
	EXPECT_EQ(1, stat_of(self->arena).pages);
	EXPECT_EQ(1, free_page(self->arena, page.offset));
}

TEST_F(ownership, attach_tells_the_flags_of_the_arena)
{
	static const uint32_t flags[] = {
		0, XALLOC_ARENA_PERSIST, XALLOC_ARENA_DUMP, XALLOC_ARENA_FORK,
		XALLOC_ARENA_PERSIST | XALLOC_ARENA_DUMP | XALLOC_ARENA_FORK,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		int arena = arena_create_flags(self->device, ARENA_BYTES, 0, flags[i]), other;
		struct xalloc_ioc_attach arg = {
			.size = sizeof(arg), .offset = 1, .arena_flags = ~0,
		};

		other = call(arena, XALLOC_IOC_ATTACH, &arg);
		EXPECT_LE(0, other);
		EXPECT_EQ(flags[i], arg.arena_flags);
		EXPECT_EQ(0, arg.offset);
		close(other);
		close(arena);
	}
}

TEST_F(ownership, reader_maps_for_reading_and_changes_nothing)
{
	int reader = attach(self->arena, XALLOC_ATTACH_RDONLY, NULL);
	struct xalloc_page_info info;
	struct xalloc_page_grant page;
	uint64_t value, offset = 0;
	unsigned char *map, *seen;

	ASSERT_LE(0, reader);
	ASSERT_EQ(1, grant_page(self->arena, 1, 0, &page));
	map = arena_map(self->arena, ARENA_BYTES);
	seen = arena_map_at(reader, 0, ARENA_BYTES, PROT_READ);
	ASSERT_NE(NULL, map);
	ASSERT_NE(NULL, seen);
	pattern_fill(map, XALLOC_SLICE_BYTES, 7);
	EXPECT_EQ(-1, pattern_mismatch(seen, XALLOC_SLICE_BYTES, 7));
	EXPECT_EQ(SIGSEGV, touch_write(seen, 1));
	EXPECT_EQ(0, touch_read(seen, &value));
	EXPECT_EQ(-EACCES, mmap_error(ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, reader, 0));
	EXPECT_EQ(-1, mprotect(seen, ARENA_BYTES, PROT_READ | PROT_WRITE));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(-EBADF, grant_page(reader, 1, 0, NULL));
	EXPECT_EQ(-EBADF, free_page(reader, page.offset));
	EXPECT_EQ(-EBADF, claim(reader, page.offset));
	EXPECT_EQ(-EBADF, arena_limit(reader, 0));
	EXPECT_EQ(-EBADF, reserve_set(reader, 0, 0));
	EXPECT_EQ(-EBADF, arena_trim(reader, 0, NULL));
	EXPECT_EQ(-EBADF, attach(reader, 0, NULL));
	/* But may look, and let others look. */
	EXPECT_EQ(1, stat_of(reader).pages);
	EXPECT_EQ(1, list_some(reader, 0, 0, &offset, &info, 1));
	offset = attach(reader, XALLOC_ATTACH_RDONLY, NULL);
	EXPECT_LE(0, (int)offset);
	close(offset);
	munmap(map, ARENA_BYTES);
	munmap(seen, ARENA_BYTES);
	close(reader);
}

/* Opens the file of a mapping again, by /proc. The descriptor, or the negative errno. */
static int map_reopen(const unsigned char *map, size_t bytes, int flags)
{
	char path[80];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)map,
		 (unsigned long)map + bytes);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static void expect_reads_only(struct __test_metadata *_metadata, int reader, int device,
			      const char *what)
{
	unsigned char *seen = arena_map_at(reader, 0, ARENA_BYTES, PROT_READ);

	ASSERT_LE(0, reader) {
		TH_LOG("%s: %s", what, strerror(-reader));
	}
	ASSERT_NE(NULL, seen);
	EXPECT_EQ(-EACCES, mmap_error(ARENA_BYTES, PROT_WRITE, MAP_SHARED, reader, 0));
	EXPECT_EQ(-1, mprotect(seen, ARENA_BYTES, PROT_READ | PROT_WRITE));
	EXPECT_EQ(-EACCES, fd_reopen(reader, O_RDWR));
	EXPECT_EQ(-EACCES, fd_reopen(reader, O_WRONLY));
	EXPECT_EQ(-EACCES, map_reopen(seen, ARENA_BYTES, O_RDWR));
	EXPECT_EQ(-EBADF, attach(reader, 0, NULL));
	EXPECT_EQ(-EBADF, attach_at(device, seen, 0, NULL));
	EXPECT_EQ(-1, fchmod(reader, 0666));
	munmap(seen, ARENA_BYTES);
	close(reader);
}

/* Each path from a descriptor for reading to another one, as root, whom modes do not restrict. */
TEST_F(ownership, reading_leads_to_reading_alone)
{
	int reader = attach(self->arena, XALLOC_ATTACH_RDONLY, NULL), sockets[2];
	unsigned char *seen = arena_map_at(reader, 0, ARENA_BYTES, PROT_READ);

	ASSERT_NE(NULL, seen);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
	expect_reads_only(_metadata, dup(reader), self->device, "dup");
	expect_reads_only(_metadata, attach(reader, XALLOC_ATTACH_RDONLY, NULL), self->device,
			  "ATTACH");
	expect_reads_only(_metadata, attach_at(self->device, seen, XALLOC_ATTACH_RDONLY, NULL),
			  self->device, "ATTACH by address");
	expect_reads_only(_metadata, fd_reopen(reader, O_RDONLY), self->device, "/proc/self/fd");
	expect_reads_only(_metadata, map_reopen(seen, ARENA_BYTES, O_RDONLY), self->device,
			  "/proc/self/map_files");
	fd_send(sockets[0], reader);
	expect_reads_only(_metadata, fd_receive(sockets[1]), self->device, "SCM_RIGHTS");
	/* /proc does not say which descriptor was used, so the same holds for that of a writer. */
	EXPECT_EQ(-EACCES, fd_reopen(self->arena, O_RDWR));
	expect_reads_only(_metadata, fd_reopen(self->arena, O_RDONLY), self->device, "a writer's");
	munmap(seen, ARENA_BYTES);
	close(sockets[0]);
	close(sockets[1]);
	close(reader);
}

/* A child: a client of its own, with five pages. Then it waits. */
static void fill_and_wait(int arena, int ready)
{
	int own = attach(arena, 0, NULL), i;
	unsigned char *map = arena_map(own, ARENA_BYTES);
	struct xalloc_page_grant page;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	require(own >= 0 && map);
	for (i = 0; i < 5; i++) {
		page = (struct xalloc_page_grant){ .nr_slices = 20, .tag = 100 + i };
		require(grant_batch(own, &page, 1) == 1);
		pattern_fill(map + page.offset, 20 * XALLOC_SLICE_BYTES, page.tag);
	}
	require(write(ready, "", 1) == 1);
	pause();
}

TEST_F(ownership, orphans_of_a_killed_process_are_found_and_claimed)
{
	int arena = arena_create_flags(self->device, ARENA_BYTES, 0, XALLOC_ARENA_PERSIST);
	unsigned char *map = arena_map(arena, ARENA_BYTES);
	struct xalloc_page_info infos[10];
	uint64_t offset = 0, next;
	int ready[2], other, i;
	char byte;
	pid_t pid;

	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		fill_and_wait(arena, ready[1]);
	close(ready[1]);
	ASSERT_EQ(1, read(ready[0], &byte, 1));
	EXPECT_EQ(5, stat_of(arena).pages);
	EXPECT_EQ(0, list_some(arena, XALLOC_LIST_ORPHANS, 0, &offset, infos, 10));
	offset = 0;
	EXPECT_EQ(5, list_some(arena, 0, 0, &offset, infos, 10));
	EXPECT_EQ(-EBUSY, claim(arena, infos[1].offset));
	kill(pid, SIGKILL);
	EXPECT_EQ(256 + SIGKILL, child_status(pid));

	EXPECT_EQ(5, stat_of(arena).pages);
	offset = 0;
	ASSERT_EQ(5, list_some(arena, XALLOC_LIST_ORPHANS, 0, &offset, infos, 10));
	EXPECT_EQ(ARENA_BYTES, offset);
	other = attach(arena, 0, NULL);
	for (i = 0; i < 5; i++) {
		EXPECT_EQ(100 + i, infos[i].tag);
		EXPECT_EQ(20, infos[i].nr_slices);
		EXPECT_EQ(XALLOC_PAGE_ORPHAN, infos[i].flags);
		EXPECT_EQ(infos[0].client_id, infos[i].client_id);
		EXPECT_EQ(-1, pattern_mismatch(map + infos[i].offset, 20 * XALLOC_SLICE_BYTES,
					       infos[i].tag));
		EXPECT_EQ(1, claim(arena, infos[i].offset));
		EXPECT_EQ(-EBUSY, claim(other, infos[i].offset));
	}
	offset = 0;
	EXPECT_EQ(0, list_some(arena, XALLOC_LIST_ORPHANS, 0, &offset, infos, 10));
	next = 0;
	EXPECT_EQ(5, list_some(arena, 0, client_id_of(arena), &next, infos, 10));
	EXPECT_EQ(0, infos[0].flags);
	for (i = 0; i < 5; i++)
		EXPECT_EQ(1, free_page(other, infos[i].offset));
	EXPECT_EQ(0, stat_of(arena).pages);
	close(other);
	close(ready[0]);
	munmap(map, ARENA_BYTES);
	close(arena);
}

TEST_F(ownership, orphans_go_with_the_last_descriptor)
{
	int arena = arena_create_flags(self->device, ARENA_BYTES, 0, XALLOC_ARENA_PERSIST);
	int other = attach(arena, 0, NULL);

	ASSERT_EQ(1, grant_page(other, 70, 0, NULL));
	close(other);
	EXPECT_EQ(1, stat_of(arena).pages);
	close(arena);
	/* The teardown expects that nothing is left. */
}

/* A call passes so many pages over that it may list none, but goes on. */
TEST_F(ownership, list_finds_one_page_behind_many)
{
	int arena = arena_create_by(self->device, 512 * MIB, XALLOC_POLICY_SMALL, -1), other, i, rc;
	static struct xalloc_page_grant pages[XALLOC_BATCH_MAX];
	struct xalloc_page_info info;
	uint64_t offset = 0, last;
	uint32_t nr_calls = 0, nr = 0;
	struct xalloc_ioc_attach arg;

	ASSERT_LE(0, arena);
	for (nr = 0; nr < 4352; nr += XALLOC_BATCH_MAX) {
		for (i = 0; i < XALLOC_BATCH_MAX; i++)
			pages[i] = (struct xalloc_page_grant){ .nr_slices = 1 };
		ASSERT_EQ(XALLOC_BATCH_MAX, grant_batch(arena, pages, XALLOC_BATCH_MAX));
	}
	other = attach(arena, 0, &arg);
	ASSERT_EQ(1, grant_page(other, 1, 0, &pages[0]));
	do {
		last = offset;
		rc = list_some(arena, 0, arg.client_id, &offset, &info, 1);
		nr_calls++;
	} while (rc == 0 && offset > last && offset < 512 * MIB);
	EXPECT_EQ(1, rc);
	EXPECT_EQ(pages[0].offset, info.offset);
	EXPECT_LT(1, nr_calls);
	close(other);
	close(arena);
}

TEST_F(ownership, list_arguments)
{
	struct xalloc_page_info infos[1];
	uint64_t offset = ARENA_BYTES;

	EXPECT_EQ(0, list_some(self->arena, 0, 0, &offset, infos, 1));
	EXPECT_EQ(ARENA_BYTES, offset);
	offset++;
	EXPECT_EQ(-ERANGE, list_some(self->arena, 0, 0, &offset, infos, 1));
	offset = UINT64_MAX;
	EXPECT_EQ(-ERANGE, list_some(self->arena, 0, 0, &offset, infos, 1));
	offset = 0;
	EXPECT_EQ(-EINVAL, list_some(self->arena, 0, 0, &offset, infos, 0));
	EXPECT_EQ(-EINVAL, list_some(self->arena, 0, 0, &offset, infos, XALLOC_BATCH_MAX + 1));
	EXPECT_EQ(-EINVAL, claim(self->arena, 1));
	EXPECT_EQ(-ERANGE, claim(self->arena, ARENA_BYTES));
	EXPECT_EQ(-ENOENT, claim(self->arena, 0));
	/* A flag that only the answer of LIST has. */
	EXPECT_EQ(-EOPNOTSUPP, grant_page(self->arena, 1, XALLOC_PAGE_ORPHAN, NULL));
}

TEST_F(ownership, limit_is_exact)
{
	int error;

	EXPECT_EQ(0, arena_limit(self->arena, 5 * XALLOC_SEGMENT_BYTES));
	EXPECT_EQ(5, grant_segments(self->arena, 10, &error));
	EXPECT_EQ(-EDQUOT, error);
	EXPECT_EQ(-EBUSY, arena_limit(self->arena, 4 * XALLOC_SEGMENT_BYTES));
	EXPECT_EQ(-EINVAL, arena_limit(self->arena, XALLOC_SLICE_BYTES));
	EXPECT_EQ(0, arena_limit(self->arena, 7 * XALLOC_SEGMENT_BYTES));
	EXPECT_EQ(2, grant_segments(self->arena, 10, &error));
	EXPECT_EQ(-EDQUOT, error);
	EXPECT_EQ(0, arena_limit(self->arena, UINT64_MAX / XALLOC_SEGMENT_BYTES *
						    XALLOC_SEGMENT_BYTES));
	EXPECT_EQ(1, grant_page(self->arena, 25 * SEGMENT_SLICES, 0, NULL));
}

/* The number in the line "xalloc-NAME: number" of a descriptor's fdinfo, or -1. */
static long long fdinfo_of(int fd, const char *name)
{
	char path[64], line[128], found[64];
	long long value, result = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "r");
	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "xalloc-%63[^:]: %lld", found, &value) == 2 &&
		    !strcmp(found, name))
			result = value;
	fclose(file);
	return result;
}

TEST_F(ownership, fdinfo_tells_what_an_arena_holds)
{
	struct xalloc_ioc_attach arg;
	int other = attach(self->arena, 0, &arg);

	ASSERT_EQ(1, grant_page(other, 33, 0, NULL));
	EXPECT_EQ(arg.arena_id, fdinfo_of(other, "arena"));
	EXPECT_EQ(arg.client_id, fdinfo_of(other, "client"));
	EXPECT_EQ(33 * 64, fdinfo_of(other, "granted-kB"));
	EXPECT_EQ(4096, fdinfo_of(other, "committed-kB"));
	close(other);
}

TEST_F(ownership, fdinfo_of_the_device_tells_what_all_arenas_hold)
{
	struct xalloc_ioc_stat stat;

	ASSERT_EQ(1, grant_page(self->arena, 33, 0, NULL));
	stat = stat_of(self->device);
	EXPECT_EQ(stat.arenas, fdinfo_of(self->device, "arenas"));
	EXPECT_EQ(stat.clients, fdinfo_of(self->device, "clients"));
	EXPECT_EQ(stat.granted_bytes / 1024, fdinfo_of(self->device, "granted-kB"));
	EXPECT_EQ(stat.committed_bytes / 1024, fdinfo_of(self->device, "committed-kB"));
	EXPECT_EQ(stat.pinned_bytes / 1024, fdinfo_of(self->device, "pinned-kB"));
	EXPECT_EQ(stat.reserved_bytes / 1024, fdinfo_of(self->device, "reserved-kB"));
}

TEST_HARNESS_MAIN
