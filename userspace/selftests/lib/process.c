// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: what libxalloc makes of the process it is in: its environment, its limits, its
 * user, and fork.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "libtest.h"
#include "selftest.h"

LIBTEST_FIXTURE(lib_process, "16M")

/* Each of these runs in a child, which sets up its process first, and returns 0 if all is well. */

#define GIB (1UL << 30)
#define TIB (1UL << 40)

static int first_malloc_is_einval(void *arg)
{
	const char *const *variable = arg;
	int i;

	setenv(variable[0], variable[1], 1);
	for (i = 0; i < 3; i++) {
		errno = 0;
		CHECK(!xalloc_malloc(1));
		CHECK(errno == EINVAL);
	}
	errno = 0;
	CHECK(!arena_of(SEGMENT, 0));
	CHECK(errno == EINVAL);
	return 0;
}

TEST_F(lib_process, bad_variables_are_einval_and_one_line_that_names_them)
{
	static char nines[1000];
	static const char *const variables[][2] = {
		{ "XALLOC_LIMIT", nines }, { "XALLOC_OPTIONS", nines },
		{ "XALLOC_LIMIT", "" }, { "XALLOC_LIMIT", "0" }, { "XALLOC_LIMIT", "1M" },
		{ "XALLOC_LIMIT", "lots" }, { "XALLOC_LIMIT", "-4M" }, { "XALLOC_LIMIT", "4m" },
		{ "XALLOC_LIMIT", "4MB" }, { "XALLOC_LIMIT", "4 M" }, { "XALLOC_LIMIT", " 4M" },
		{ "XALLOC_LIMIT", "M" }, { "XALLOC_LIMIT", "4.5G" }, { "XALLOC_LIMIT", "0x400000" },
		{ "XALLOC_LIMIT", "18446744073709551616" }, { "XALLOC_LIMIT", "16777216T" },
		/* More than there are addresses. */
		{ "XALLOC_LIMIT", "64T" },
		{ "XALLOC_OPTIONS", "nonsense" }, { "XALLOC_OPTIONS", "verbose,nonsense=1" },
		{ "XALLOC_BACKEND", "" }, { "XALLOC_BACKEND", "Local" },
		{ "XALLOC_OPTIONS", "verbose=2" }, { "XALLOC_OPTIONS", "helpx" },
		{ "XALLOC_OPTIONS", "canary=" }, { "XALLOC_OPTIONS", "canary=x" },
		{ "XALLOC_OPTIONS", "trace" }, { "XALLOC_OPTIONS", "trace=" },
		{ "XALLOC_OPTIONS", "trace=-1" }, { "XALLOC_OPTIONS", "trace=1x" },
		{ "XALLOC_OPTIONS", "trace=9999999999" }, { "XALLOC_OPTIONS", "leaks=10" },
		{ "XALLOC_OPTIONS", "zero_on" }, { "XALLOC_OPTIONS", "=" },
		{ "XALLOC_OPTIONS", "leaks,=1" }, { "XALLOC_OPTIONS", "canary=1=1" },
		{ "XALLOC_OPTIONS", "pages" }, { "XALLOC_OPTIONS", "pages=" },
		{ "XALLOC_OPTIONS", "pages=1" }, { "XALLOC_OPTIONS", "pages=Huge" },
		{ "XALLOC_OPTIONS", "pages=hug" }, { "XALLOC_OPTIONS", "pages=huge_" },
		{ "XALLOC_OPTIONS", "pages=smaller" }, { "XALLOC_OPTIONS", "pages=huge=1" },
		{ "XALLOC_OPTIONS", "node" }, { "XALLOC_OPTIONS", "node=" },
		{ "XALLOC_OPTIONS", "node=-1" }, { "XALLOC_OPTIONS", "node=all" },
		{ "XALLOC_OPTIONS", "node=0x1" }, { "XALLOC_OPTIONS", "node=4294967296" },
	};
	char text[1024];
	size_t i;

	memset(nines, '9', sizeof(nines) - 1);
	for (i = 0; i < ARRAY_SIZE(variables); i++) {
		ASSERT_EQ(0, run_child(first_malloc_is_einval, (void *)variables[i], text,
				       sizeof(text))) {
			TH_LOG("%s=%s: %s", variables[i][0], variables[i][1], text);
		}
		ASSERT_NE(NULL, strstr(text, variables[i][0]));
		/* Of a list, the line names the entry that is wrong. */
		if (!strncmp(variables[i][1], "pages", 5) || !strncmp(variables[i][1], "node", 4)) {
			ASSERT_NE(NULL, strstr(text, variables[i][1]));
		}
		ASSERT_EQ(text + strlen(text) - 1, strchr(text, '\n'));
	}
}

static int limit_is(void *arg)
{
	size_t bytes = *(size_t *)arg;
	size_t nr;

	CHECK(stats_of(xalloc_arena_default()).limit_bytes == bytes);
	for (nr = 0; nr < bytes / SEGMENT; nr++)
		CHECK(xalloc_malloc(SEGMENT));
	errno = 0;
	CHECK(!xalloc_malloc(1));
	CHECK(errno == ENOMEM);
	CHECK(stats_of(xalloc_arena_default()).refused == EDQUOT);
	return 0;
}

TEST_F(lib_process, the_limit_is_read_with_its_suffix)
{
	static const struct {
		const char *text;
		size_t bytes;
	} limits[] = {
		{ "4M", 4 * MIB }, { "4194304", 4 * MIB }, { "6144K", 6 * MIB }, { "5M", 4 * MIB },
	};
	char text[1024];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(limits); i++) {
		setenv("XALLOC_LIMIT", limits[i].text, 1);
		ASSERT_EQ(0, run_child(limit_is, (void *)&limits[i].bytes, text, sizeof(text))) {
			TH_LOG("%s: %s", limits[i].text, text);
		}
		ASSERT_EQ(0, text[0]);
	}
}

static int unset_limit_is_a_quarter(void *arg)
{
	size_t ram = (size_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);

	(void)arg;
	unsetenv("XALLOC_LIMIT");
	CHECK(stats_of(xalloc_arena_default()).limit_bytes == ram / 4 / SEGMENT * SEGMENT);
	return 0;
}

TEST_F(lib_process, root_has_a_quarter_of_memory_when_nothing_is_set)
{
	char text[1024];

	ASSERT_EQ(0, run_child(unset_limit_is_a_quarter, NULL, text, sizeof(text))) {
		TH_LOG("%s", text);
	}
}

static int refused_is_explained(void *arg)
{
	(void)arg;
	setenv("XALLOC_LIMIT", "4M", 1);
	setenv("XALLOC_OPTIONS", "help,verbose", 1);
	CHECK(!xalloc_malloc(5 * MIB));
	CHECK(!xalloc_malloc(64ULL << 40));
	return 0;
}

/* The size classes that start-up computes are needed for it. */
TEST_F(lib_process, the_first_call_gets_the_alignment_it_asks_for)
{
	int i;

	for (i = 0; i < 10; i++) {
		void *ptr = xalloc_aligned_alloc(64, 80);

		ASSERT_NE(NULL, ptr);
		ASSERT_EQ(0, (uintptr_t)ptr % 64);
		if (i % 2)
			xalloc_free_aligned_sized(ptr, 64, 80);
	}
}

TEST_F(lib_process, options_help_and_verbose_write_lines)
{
	char text[2048];

	ASSERT_EQ(0, run_child(refused_is_explained, NULL, text, sizeof(text)));
	ASSERT_NE(NULL, strstr(text, "verbose=1"));
	ASSERT_NE(NULL, strstr(text, "5242880 bytes"));
	ASSERT_NE(NULL, strstr(text, "XALLOC_LIMIT"));
	ASSERT_NE(NULL, strstr(text, "larger than the arena"));
}

static int addresses_run_out(void *arg)
{
	struct xalloc_arena *arena, *last = NULL;
	size_t bytes = TIB;
	int i, nr = 0;

	(void)arg;
	arena = arena_of(bytes, 0);
	/* Where there are 512 GiB in all, as in user-mode Linux. */
	if (!arena) {
		bytes = 2 * GIB;
		arena = arena_of(bytes, 0);
	}
	for (; nr < 64 && arena; nr++) {
		last = arena;
		errno = 0;
		arena = arena_of(bytes, 0);
	}
	CHECK(nr >= 1 && nr < 64);
	CHECK(errno == ENOMEM);
	for (i = 0; i < 3; i++)
		CHECK(!arena_of(bytes, 0));
	CHECK(!xalloc_arena_destroy(last));
	CHECK(arena_of(bytes, 0));
	return 0;
}

TEST_F(lib_process, missing_addresses_are_enomem_and_one_line)
{
	char text[1024];

	ASSERT_EQ(0, run_child(addresses_run_out, NULL, text, sizeof(text))) {
		TH_LOG("%s", text);
	}
	ASSERT_NE(NULL, strstr(text, "no addresses"));
	ASSERT_EQ(text + strlen(text) - 1, strchr(text, '\n'));
}

#define OVERCOMMIT "/proc/sys/vm/overcommit_memory"

/* A kernel that counts what is mapped refuses it. */
static int arena_is_more_than_memory(void *arg)
{
	struct xalloc_arena *arena;

	(void)arg;
	setenv("XALLOC_BACKEND", "local", 1);
	setenv("XALLOC_LIMIT", "16M", 1);
	CHECK(write_text(OVERCOMMIT, "2"));
	CHECK(arena_of(2 * MIB, 0));
	errno = 0;
	CHECK(!arena_of(64 * GIB, 0));
	CHECK(errno == ENOMEM);
	arena = arena_of(2 * MIB, 0);
	CHECK(arena);
	CHECK(!xalloc_arena_destroy(arena));
	CHECK(xalloc_malloc(8 * MIB));
	return 0;
}

TEST_F(lib_process, an_arena_that_the_kernel_refuses_is_enomem)
{
	char text[1024];
	int status;

	SKIP_LOCAL("changes vm.overcommit_memory, which is for guests");
	status = run_child(arena_is_more_than_memory, NULL, text, sizeof(text));
	EXPECT_TRUE(write_text(OVERCOMMIT, "0"));
	ASSERT_EQ(0, status) {
		TH_LOG("%s", text);
	}
}

static size_t mapped_bytes(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	size_t nr = 0;

	if (file) {
		if (fscanf(file, "%zu", &nr) != 1)
			nr = 0;
		fclose(file);
	}
	return nr * KPAGE_BYTES;
}

static int no_address_is_left(void *arg)
{
	struct rlimit limit = { .rlim_cur = mapped_bytes(), .rlim_max = RLIM_INFINITY };

	(void)arg;
	CHECK(!setrlimit(RLIMIT_AS, &limit));
	errno = 0;
	CHECK(!xalloc_malloc(1));
	CHECK(errno == ENOMEM);
	CHECK(!xalloc_malloc(1));
	limit.rlim_cur = RLIM_INFINITY;
	CHECK(!setrlimit(RLIMIT_AS, &limit));
	CHECK(xalloc_malloc(1));
	return 0;
}

TEST_F(lib_process, an_address_space_limit_is_enomem_and_one_line)
{
	char text[1024];

	SKIP_SANITIZED("has more addresses than any RLIMIT_AS");
	ASSERT_EQ(0, run_child(no_address_is_left, NULL, text, sizeof(text))) {
		TH_LOG("%s", text);
	}
	ASSERT_NE(NULL, strstr(text, "RLIMIT_AS"));
	ASSERT_EQ(text + strlen(text) - 1, strchr(text, '\n'));
}

/* Becomes an ordinary user, who may open the device if @may. */
static int become_user(bool may, size_t memlock)
{
	struct rlimit limit = { .rlim_cur = memlock, .rlim_max = memlock };
	mode_t mode = may ? 0666 : 0600;
	int ret;

	if (chmod(DEVICE_PATH, mode))
		return -errno;
	ret = setrlimit(RLIMIT_MEMLOCK, &limit);
	if (ret || setgroups(0, NULL) || setresgid(TEST_UID, TEST_UID, TEST_UID) ||
	    setresuid(TEST_UID, TEST_UID, TEST_UID))
		return -errno;
	return 0;
}

/* Runs @run in a child with the mode of the device put back afterwards. */
static int run_user(int (*run)(void *), char *text, size_t bytes)
{
	struct stat before;
	int status;

	if (stat(DEVICE_PATH, &before))
		return -errno;
	status = run_child(run, NULL, text, bytes);
	if (chmod(DEVICE_PATH, before.st_mode & 07777))
		return -errno;
	return status;
}

static int user_has_memlock(void *arg)
{
	size_t nr, eight = 8 * MIB;
	struct xalloc_arena *arena;
	struct xalloc_heap *heap;

	(void)arg;
	CHECK(!become_user(true, eight));
	unsetenv("XALLOC_LIMIT");
	CHECK(stats_of(xalloc_arena_default()).limit_bytes == eight);

	/* An arena may be larger than what its user may have pinned. */
	arena = arena_of(32 * MIB, 0);
	CHECK(arena);
	heap = xalloc_heap_create(arena);
	for (nr = 0; nr < 4; nr++)
		CHECK(xalloc_heap_malloc(heap, SEGMENT));
	errno = 0;
	CHECK(!xalloc_heap_malloc(heap, 1));
	CHECK(errno == ENOMEM);
	CHECK(stats_of(arena).refused == ENOBUFS);
	CHECK(stats_of(arena).charged_bytes == eight);
	/* All arenas of a user together. */
	CHECK(!xalloc_malloc(1));
	CHECK(stats_of(xalloc_arena_default()).refused == ENOBUFS);
	CHECK(!xalloc_arena_destroy(arena));
	for (nr = 0; nr < 4; nr++)
		CHECK(xalloc_malloc(SEGMENT));
	CHECK(!xalloc_malloc(1));
	return 0;
}

TEST_F(lib_process, an_ordinary_user_gets_rlimit_memlock)
{
	char text[1024];

	SKIP_LOCAL("is open to all, and charged to nobody");
	ASSERT_EQ(0, run_user(user_has_memlock, text, sizeof(text))) {
		TH_LOG("%s", text);
	}
}

static int user_has_what_another_arena_kept(void *arg)
{
	struct xalloc_heap *heap;
	size_t nr;

	(void)arg;
	CHECK(!become_user(true, 8 * MIB));
	heap = xalloc_heap_create(arena_of(8 * MIB, 0));
	CHECK(heap);
	xalloc_free(xalloc_malloc(16));
	CHECK(stats_of(xalloc_arena_default()).charged_bytes == SEGMENT);
	for (nr = 0; nr < 4; nr++)
		CHECK(xalloc_heap_malloc(heap, SEGMENT));
	CHECK(!stats_of(xalloc_arena_default()).charged_bytes);
	return 0;
}

TEST_F(lib_process, what_one_arena_keeps_serves_another_of_the_user)
{
	char text[1024];

	SKIP_LOCAL("is open to all, and charged to nobody");
	ASSERT_EQ(0, run_user(user_has_what_another_arena_kept, text, sizeof(text))) {
		TH_LOG("%s", text);
	}
}

static int user_without_rights(void *arg)
{
	(void)arg;
	setenv("XALLOC_OPTIONS", "verbose", 1);
	CHECK(!become_user(false, 8 * MIB));
	errno = 0;
	CHECK(!xalloc_malloc(1));
	CHECK(errno == EACCES);
	errno = 0;
	CHECK(!arena_of(SEGMENT, 0));
	CHECK(errno == EACCES);
	return 0;
}

TEST_F(lib_process, a_user_who_may_not_open_the_device_is_told_what_to_do)
{
	char text[1024];

	SKIP_LOCAL("is open to all, and charged to nobody");
	ASSERT_EQ(0, run_user(user_without_rights, text, sizeof(text))) {
		TH_LOG("%s", text);
	}
	ASSERT_NE(NULL, strstr(text, DEVICE_PATH));
	ASSERT_NE(NULL, strstr(text, "group xalloc"));
}

struct parent {
	struct xalloc_arena *arena;
	struct xalloc_heap *heap;
	char *small, *large;
};

static int child_starts_anew(void *arg)
{
	struct xalloc_arena_stat stat = { .size = sizeof(stat) };
	struct parent *parent = arg;
	struct iovec range;
	char *ptr;
	int i;

	CHECK(xalloc_arena_fd(parent->arena) == -ESTALE);
	CHECK(xalloc_arena_range(parent->arena, &range) == -ESTALE);
	CHECK(xalloc_arena_stats(parent->arena, &stat) == -ESTALE);
	CHECK(xalloc_arena_destroy(parent->arena) == -ESTALE);
	CHECK(xalloc_heap_destroy(parent->heap) == -ESTALE);
	errno = 0;
	CHECK(!xalloc_heap_malloc(parent->heap, 1));
	CHECK(errno == ESTALE);
	xalloc_free(parent->small);

	for (i = 0; i < 2; i++) {
		CHECK(touch_read(parent->small, NULL) == SIGSEGV);
		/* Without a meaning here, but as a destructor would. */
		xalloc_free(parent->small);
		xalloc_free_sized(parent->large, 100000);
		errno = 0;
		CHECK(!xalloc_realloc(parent->small, 10000));
		CHECK(errno == ESTALE);

		ptr = xalloc_malloc(100000);
		CHECK(ptr);
		bytes_fill(ptr, 100000, 5);
		CHECK(ptr != parent->small && ptr != parent->large);
		CHECK(bytes_same(ptr, 100000, 5));
		xalloc_free(ptr);
	}
	CHECK(xalloc_arena_stats(parent->arena, &stat) == -ESTALE);
	return 0;
}

static int grandchild_starts_anew(void *arg)
{
	struct parent own = { .arena = arena_of(8 * MIB, 0) };
	char text[1024];
	int status;

	(void)arg;
	own.heap = xalloc_heap_create(own.arena);
	own.small = xalloc_malloc(100);
	own.large = xalloc_heap_malloc(own.heap, 100000);
	CHECK(own.large && own.small);
	status = run_child(child_starts_anew, &own, text, sizeof(text));
	fputs(text, stderr);
	return status;
}

TEST_F(lib_process, a_forked_child_starts_anew)
{
	struct parent parent = { .arena = arena_of(8 * MIB, 0) };
	char text[1024];

	guard_install();
	parent.heap = xalloc_heap_create(parent.arena);
	parent.small = xalloc_malloc(100);
	parent.large = xalloc_heap_malloc(parent.heap, 100000);
	ASSERT_NE(NULL, parent.small);
	ASSERT_NE(NULL, parent.large);
	bytes_fill(parent.small, 100, 1);
	bytes_fill(parent.large, 100000, 2);
	ASSERT_EQ(0, run_child(child_starts_anew, &parent, text, sizeof(text))) {
		TH_LOG("%s", text);
	}
	ASSERT_EQ(0, run_child(grandchild_starts_anew, NULL, text, sizeof(text))) {
		TH_LOG("%s", text);
	}
	ASSERT_TRUE(bytes_same(parent.small, 100, 1));
	ASSERT_TRUE(bytes_same(parent.large, 100000, 2));
	xalloc_free(parent.small);
	ASSERT_EQ(0, xalloc_arena_destroy(parent.arena));
}

/* Allocates, so that a range of its own comes between those of its parent and its child. */
static int grandchild_frees(void *arg)
{
	struct parent *parent = arg;

	CHECK(xalloc_malloc(100));
	xalloc_free(parent->small);
	xalloc_free(parent->large);
	CHECK(touch_read(parent->small, NULL) == SIGSEGV);
	return 0;
}

static int child_allocates_and_forks(void *arg)
{
	char text[1024];
	int status;

	CHECK(xalloc_malloc(100));
	status = run_child(grandchild_frees, arg, text, sizeof(text));
	fputs(text, stderr);
	return status;
}

TEST_F(lib_process, a_grandchild_may_free_what_it_does_not_have)
{
	struct parent parent = { .small = xalloc_malloc(100), .large = xalloc_malloc(100000) };
	char text[1024];

	guard_install();
	ASSERT_NE(NULL, parent.small);
	ASSERT_NE(NULL, parent.large);
	ASSERT_EQ(0, run_child(child_allocates_and_forks, &parent, text, sizeof(text))) {
		TH_LOG("%s", text);
	}
}

static atomic_bool went_on;

/* What opens, closes and writes, with a cancellation pending. */
static void *call_cancelled(void *arg)
{
	struct xalloc_arena *arena;

	pthread_cancel(pthread_self());
	xalloc_free(xalloc_malloc(100));
	arena = arena_of(SEGMENT, 0);
	if (arena)
		xalloc_arena_destroy(arena);
	arg = xalloc_malloc(100 * MIB);
	atomic_store(&went_on, true);
	pthread_testcancel();
	return arg;
}

static int cancelled_thread_keeps_nothing(void *arg)
{
	pthread_t thread;
	void *result;

	(void)arg;
	alarm(CHILD_STUCK_SECONDS);
	setenv("XALLOC_OPTIONS", "verbose", 1);
	CHECK(!pthread_create(&thread, NULL, call_cancelled, NULL));
	CHECK(!pthread_join(thread, &result));
	CHECK(result == PTHREAD_CANCELED);
	CHECK(xalloc_malloc(100));
	CHECK(atomic_load(&went_on));
	return 0;
}

TEST_F(lib_process, a_cancelled_thread_keeps_no_lock)
{
	char text[1024];

	ASSERT_EQ(0, run_child(cancelled_thread_keeps_nothing, NULL, text, sizeof(text))) {
		TH_LOG("%s", text);
	}
	ASSERT_NE(NULL, strstr(text, "refused"));
}

static atomic_bool stop;

static void *allocate_until_stop(void *arg)
{
	while (!atomic_load(&stop)) {
		struct xalloc_arena *arena = arena_of(SEGMENT, 0);

		xalloc_free(xalloc_malloc(70000));
		xalloc_arena_destroy(arena);
	}
	return arg;
}

static int child_allocates(void *arg)
{
	(void)arg;
	alarm(CHILD_STUCK_SECONDS);
	CHECK(xalloc_malloc(100));
	CHECK(arena_of(SEGMENT, 0));
	return 0;
}

TEST_F(lib_process, a_fork_in_the_middle_of_another_threads_call)
{
	pthread_t thread;
	char text[1024];
	int i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, allocate_until_stop, NULL));
	for (i = 0; i < (is_long_run() ? 1000 : 50); i++) {
		ASSERT_EQ(0, run_child(child_allocates, NULL, text, sizeof(text))) {
			TH_LOG("%s", text);
		}
	}
	atomic_store(&stop, true);
	ASSERT_EQ(0, pthread_join(thread, NULL));
}

TEST_F(lib_process, a_process_that_dies_leaves_nothing)
{
	struct xalloc_ioc_stat before, with;
	int device, i;
	int pipes[2];
	pid_t pid;
	char c;

	SKIP_LOCAL("has no counters outside of the process");
	device = device_open();
	ASSERT_EQ(0, counters_read(device, &before));
	for (i = 0; i < (is_long_run() ? 200 : 10); i++) {
		ASSERT_EQ(0, pipe(pipes));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			memset(xalloc_calloc(1, 3 * MIB), 1, MIB);
			c = xalloc_malloc(100) && arena_of(SEGMENT, 0) ? 1 : 0;
			if (write(pipes[1], &c, 1) < 0)
				_exit(1);
			pause();
			_exit(1);
		}
		ASSERT_EQ(1, read(pipes[0], &c, 1));
		ASSERT_EQ(1, c);
		ASSERT_EQ(0, counters_read(device, &with));
		ASSERT_EQ(before.arenas + 2, with.arenas);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_EQ(256 + SIGKILL, child_status(pid));
		counters_expect(_metadata, device, &before);
		close(pipes[0]);
		close(pipes[1]);
	}
	close(device);
}

TEST_HARNESS_MAIN
