// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: arenas of libxalloc that processes share, by name and by descriptor; what stays in
 * them; and all that a configuration can ask for.
 */
#include "libtest.h"
#include "selftest.h"
#include "sharing.h"

#define NAME NAMES "/lib-named-test"
#define BYTES (8 * MIB)

LIBTEST_FIXTURE(lib_named, "32M")

static struct xalloc_arena *create(struct xalloc_arena_config config)
{
	config.size = sizeof(config);
	if (!config.arena_bytes)
		config.arena_bytes = BYTES;
	return xalloc_arena_create(&config);
}

static struct xalloc_arena *create_named(unsigned int flags)
{
	unlink(NAME);
	return create((struct xalloc_arena_config){ .path = NAME, .flags = flags });
}

static uint64_t offset_of(const void *ptr)
{
	struct xalloc_block_handle handle;

	return xalloc_handle(ptr, &handle) ? UINT64_MAX : handle.offset;
}

struct job {
	uint64_t offset;
	int fd;
	int answer;
};

/* In another process: sees the block of the parent, answers with the offset of its own. */
static int meet(void *arg)
{
	struct xalloc_arena *arena;
	struct job *job = arg;
	uint64_t offset;
	char *ptr;

	arena = job->fd < 0 ? xalloc_arena_open(NAME) : xalloc_arena_from_fd(job->fd);
	if (!arena || stats_of(arena).arena_bytes != BYTES)
		return 1;
	ptr = xalloc_at(arena, job->offset);
	if (!ptr || !bytes_same(ptr, 5000, 1))
		return 2;
	bytes_fill(ptr, 5000, 2);
	if (xalloc_handle(ptr, &(struct xalloc_block_handle){ 0 }) != -ENOENT)
		return 3;
	ptr = xalloc_heap_malloc(xalloc_heap_create(arena), 3 * MIB);
	if (!ptr)
		return 4;
	bytes_fill(ptr, 3 * MIB, 3);
	offset = offset_of(ptr);
	if (write(job->answer, &offset, sizeof(offset)) != sizeof(offset))
		return 5;
	/* Until the parent has looked. */
	read(job->answer, &offset, 1);
	return xalloc_arena_destroy(arena) ? 6 : 0;
}

/* Runs meet() and looks at its block. Returns its exit status, or -1. */
static int meet_with(struct xalloc_arena *arena, int fd)
{
	struct job job = { .fd = fd };
	uint64_t offset = UINT64_MAX;
	bool same = false;
	int pair[2];
	char *ptr;
	pid_t pid;

	ptr = xalloc_heap_malloc(xalloc_heap_create(arena), 5000);
	bytes_fill(ptr, 5000, 1);
	job.offset = offset_of(ptr);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return -1;
	pid = fork();
	if (!pid) {
		job.answer = pair[1];
		close(pair[0]);
		_exit(meet(&job));
	}
	close(pair[1]);
	if (read(pair[0], &offset, sizeof(offset)) == sizeof(offset))
		same = bytes_same(xalloc_at(arena, offset), 3 * MIB, 3);
	close(pair[0]);
	return child_status(pid) ?: same && bytes_same(ptr, 5000, 2) ? 0 : -1;
}

TEST_F(lib_named, a_block_is_the_same_for_who_opens_the_name)
{
	struct xalloc_arena *arena, *again;
	struct stat file;
	char *ptr;

	SKIP_LOCAL("has no names");
	arena = create_named(0);
	ASSERT_NE(NULL, arena);
	ASSERT_EQ(0, stat(NAME, &file));
	ASSERT_EQ(0600, file.st_mode & 07777);
	ASSERT_EQ((off_t)BYTES, file.st_size);
	ASSERT_EQ(0, meet_with(arena, -1));
	/* What the other process had went with it. */
	ASSERT_GT(3 * MIB, stats_of(arena).granted_bytes);
	/* In the same process it is a second arena at other addresses, with the same id. */
	again = xalloc_arena_open(NAME);
	ASSERT_NE(NULL, again);
	ASSERT_EQ(stats_of(arena).arena_id, stats_of(again).arena_id);
	ASSERT_EQ(0, stats_of(again).nr_blocks);
	ptr = xalloc_heap_calloc(xalloc_heap_create(again), 1, 100);
	strcpy(ptr, "both");
	ASSERT_EQ(0, strcmp("both", xalloc_at(arena, offset_of(ptr))));
	ASSERT_NE(ptr, xalloc_at(arena, offset_of(ptr)));
	ASSERT_EQ(0, xalloc_arena_destroy(again));
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	ASSERT_EQ(0, unlink(NAME));
}

TEST_F(lib_named, a_descriptor_is_enough_inherited_or_sent)
{
	struct xalloc_arena *arena, *received;
	int pair[2], fd;

	SKIP_LOCAL("has no descriptors");
	arena = create((struct xalloc_arena_config){ 0 });
	ASSERT_NE(NULL, arena);
	ASSERT_EQ(0, meet_with(arena, xalloc_arena_fd(arena)));

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	fd_send(pair[0], xalloc_arena_fd(arena));
	fd = fd_receive(pair[1]);
	received = xalloc_arena_from_fd(fd);
	ASSERT_NE(NULL, received);
	/* A client of its own: neither needs the other's descriptor. */
	ASSERT_EQ(0, close(fd));
	ASSERT_NE(xalloc_arena_fd(arena), xalloc_arena_fd(received));
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	ASSERT_NE(NULL, xalloc_heap_malloc(xalloc_heap_create(received), MIB));
	ASSERT_EQ(0, xalloc_arena_destroy(received));
	close(pair[0]);
	close(pair[1]);
}

static int free_of_another(void *arg)
{
	struct job *job = arg;
	struct xalloc_arena *arena = xalloc_arena_open(NAME);

	xalloc_free(xalloc_at(arena, job->offset));
	return 0;
}

TEST_F(lib_named, a_block_of_another_process_cannot_be_freed)
{
	struct xalloc_arena *arena;
	char text[4096];
	struct job job;

	SKIP_LOCAL("has no names");
	arena = create_named(0);
	ASSERT_NE(NULL, arena);
	job.offset = offset_of(xalloc_heap_malloc(xalloc_heap_create(arena), 100));
	ASSERT_EQ(256 + SIGABRT, run_child(free_of_another, &job, text, sizeof(text)));
	ASSERT_NE(NULL, strstr(text, "no block is there"));
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	ASSERT_EQ(0, unlink(NAME));
}

/* Leaves a block behind; @arg is where to say its offset. */
static int leave_block(void *arg)
{
	struct xalloc_arena *arena = xalloc_arena_open(NAME);
	char *ptr = arena ? xalloc_heap_malloc(xalloc_heap_create(arena), 300000) : NULL;
	uint64_t offset;

	if (!ptr)
		return 1;
	bytes_fill(ptr, 300000, 5);
	offset = offset_of(ptr);
	return write(*(int *)arg, &offset, sizeof(offset)) != sizeof(offset);
}

TEST_F(lib_named, what_persists_outlives_arenas_and_processes)
{
	uint64_t offset, killed = 0;
	struct xalloc_arena *arena;
	struct xalloc_heap *heap;
	char *ptr, *small, text[64];
	int pipes[2];

	SKIP_LOCAL("keeps nothing");
	arena = create_named(XALLOC_PERSIST);
	ASSERT_NE(NULL, arena);
	heap = xalloc_heap_create(arena);
	ptr = xalloc_heap_malloc(heap, 100000);
	small = xalloc_heap_malloc(heap, 100);
	ASSERT_NE(NULL, ptr);
	bytes_fill(ptr, 100000, 4);
	offset = offset_of(ptr);
	/* What no block is in does not stay: a slab here, a run there. */
	xalloc_free(small);
	xalloc_free(xalloc_heap_malloc(heap, MIB));
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	/* Nor what heap_destroy() has freed. */
	arena = xalloc_arena_open(NAME);
	ASSERT_NE(NULL, arena);
	ASSERT_EQ(2 * SLICE, stats_of(arena).granted_bytes);
	heap = xalloc_heap_create(arena);
	ASSERT_NE(NULL, xalloc_heap_malloc(heap, 100000));
	ASSERT_EQ(0, xalloc_heap_destroy(heap));
	ASSERT_EQ(2 * SLICE, stats_of(arena).granted_bytes);
	/* A process that just ends. */
	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(0, run_child(leave_block, &pipes[1], text, sizeof(text)));
	ASSERT_EQ((ssize_t)sizeof(killed), read(pipes[0], &killed, sizeof(killed)));
	ASSERT_TRUE(bytes_same(xalloc_at(arena, offset), 100000, 4));
	ASSERT_TRUE(bytes_same(xalloc_at(arena, killed), 300000, 5));
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	ASSERT_EQ(0, unlink(NAME));
	close(pipes[0]);
	close(pipes[1]);
}

TEST_F(lib_named, memory_of_the_kind_that_was_asked_for)
{
	static const struct xalloc_arena_config small = {
		.pages = XALLOC_PAGES_SMALL,
		.flags = XALLOC_ON_NODE,
	};
	static const struct xalloc_arena_config reserving = {
		.pages = XALLOC_PAGES_HUGE_PREFERRED,
		.reserve_low_bytes = 1,
		.reserve_high_bytes = 4 * MIB,
	};
	struct xalloc_arena *arena;
	struct xalloc_ioc_stat stat;
	int tries = 0;

	SKIP_LOCAL("has one kind of memory");
	arena = create(small);
	ASSERT_NE(NULL, arena);
	ASSERT_NE(NULL, xalloc_heap_malloc(xalloc_heap_create(arena), 100000));
	stat = stat_of(xalloc_arena_fd(arena));
	ASSERT_EQ(2 * SLICE, stat.small_bytes);
	ASSERT_EQ(0, stat.off_node_bytes);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));

	arena = create(reserving);
	ASSERT_NE(NULL, arena);
	/* It is filled in the background. */
	while (stat_of(xalloc_arena_fd(arena)).reserved_bytes < 4 * MIB && tries++ < 500)
		sleep_ms(10);
	ASSERT_EQ(4 * MIB, stat_of(xalloc_arena_fd(arena)).reserved_bytes);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_named, what_means_nothing_is_einval)
{
	static const struct xalloc_arena_config configs[] = {
		{ .flags = 8 },
		{ .pages = 3 },
		{ .node = 1 },
		{ .reserved = 1 },
		{ .reserve_low_bytes = 4 * MIB, .reserve_high_bytes = 2 * MIB },
	};
	struct xalloc_arena_config first = {
		.size = offsetof(struct xalloc_arena_config, path),
		.arena_bytes = 2 * MIB,
		.flags = 8,
	};
	struct xalloc_arena *arena;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(configs); i++) {
		errno = 0;
		ASSERT_EQ(NULL, create(configs[i]));
		ASSERT_EQ(EINVAL, errno);
	}
	/* A program that knows the first three members alone. */
	arena = xalloc_arena_create(&first);
	ASSERT_NE(NULL, arena);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

#define REFUSED(error, config...) \
	do { \
		errno = 0; \
		ASSERT_EQ(NULL, create((struct xalloc_arena_config){ config })); \
		ASSERT_EQ(error, errno); \
	} while (0)

#define REFUSED_TO_ATTACH(error, call) \
	do { \
		errno = 0; \
		ASSERT_EQ(NULL, call); \
		ASSERT_EQ(error, errno); \
	} while (0)

TEST_F(lib_named, refusals_of_the_local_backend)
{
	struct xalloc_arena *arena;

	if (!is_local())
		SKIP(return, "the device has all of this");
	REFUSED(EOPNOTSUPP, .path = "/tmp/nothing-here");
	REFUSED(EOPNOTSUPP, .flags = XALLOC_PERSIST);
	REFUSED(EOPNOTSUPP, .flags = XALLOC_ON_NODE);
	REFUSED(EOPNOTSUPP, .pages = XALLOC_PAGES_SMALL);
	REFUSED(EOPNOTSUPP, .reserve_high_bytes = 1);
	REFUSED_TO_ATTACH(EOPNOTSUPP, xalloc_arena_open("/tmp/nothing-here"));
	REFUSED_TO_ATTACH(EOPNOTSUPP, xalloc_arena_from_fd(0));
	arena = create((struct xalloc_arena_config){ .pages = XALLOC_PAGES_HUGE_PREFERRED });
	ASSERT_NE(NULL, arena);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_named, refusals_of_the_device)
{
	struct xalloc_arena *arena;
	int fd;

	SKIP_LOCAL("refuses more");
	unlink(NAME);
	REFUSED_TO_ATTACH(ENOENT, xalloc_arena_open(NAME));
	REFUSED_TO_ATTACH(ENOTTY, xalloc_arena_open("/dev/null"));
	REFUSED_TO_ATTACH(EBADF, xalloc_arena_from_fd(-1));
	REFUSED_TO_ATTACH(ENOTTY, xalloc_arena_from_fd(device_open()));
	REFUSED(ENOENT, .path = NAMES "/none/here");
	REFUSED(ENOTTY, .path = "/tmp/lib-named-test");
	ASSERT_EQ(-1, access("/tmp/lib-named-test", F_OK));
	/* What is refused later leaves no file. */
	REFUSED(ENODEV, .path = NAME, .flags = XALLOC_ON_NODE, .node = 60);
	REFUSED(EOPNOTSUPP, .path = NAME, .pages = XALLOC_PAGES_SMALL, .reserve_high_bytes = 1);
	REFUSED(ENOMEM, .path = NAME, .arena_bytes = 1UL << 44);
	ASSERT_EQ(-1, access(NAME, F_OK));
	fd = open(NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	REFUSED_TO_ATTACH(EBUSY, xalloc_arena_open(NAME));
	REFUSED(EEXIST, .path = NAME);
	ASSERT_EQ(0, ftruncate(fd, 1));
	REFUSED_TO_ATTACH(EOPNOTSUPP, xalloc_arena_open(NAME));
	ASSERT_EQ(0, access(NAME, F_OK));
	close(fd);
	arena = create_named(0);
	ASSERT_NE(NULL, arena);
	fd = open(NAME, O_RDONLY | O_CLOEXEC);
	REFUSED_TO_ATTACH(EBADF, xalloc_arena_from_fd(fd));
	close(fd);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	ASSERT_EQ(0, unlink(NAME));
}

TEST_HARNESS_MAIN
