// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: what XALLOC_OPTIONS can ask for: zeros over what is freed, a canary behind what was
 * asked for, a report of what lives, and who allocated it; of which pages the default heap is, and
 * on which node.
 */
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "libtest.h"
#include "selftest.h"

LIBTEST_FIXTURE(lib_options, "32M")

static struct xalloc_heap *own_heap(void)
{
	return xalloc_heap_create(arena_of(8 * MIB, 0));
}

/* --- canary */

struct overrun {
	const char *name;
	size_t size;
	size_t at;          /* the byte that is written */
	unsigned char with;
	int how;            /* 0 free, 1 realloc, 2 sized free, 3 in a heap, 4 after a realloc */
	const char *says;   /* NULL: nothing is wrong */
};

static const struct overrun overruns[] = {
	{ "first byte", 100, 100, 7, 0, "written past the 100 bytes" },
	{ "first byte, with zero", 100, 100, 0, 0, "first at +100" },
	{ "last byte", 100, 111, 7, 0, "first at +111" },
	{ "realloc", 100, 105, 7, 1, "xalloc_realloc(" },
	{ "sized free", 100, 101, 7, 2, "first at +101" },
	{ "in a heap", 100, 100, 7, 3, "size class 112" },
	{ "medium", 3000, 3001, 7, 0, "size class 3072" },
	{ "large", 70000, 70000, 7, 0, "a large block of 73728 bytes" },
	{ "large, last byte", 70000, 73727, 7, 0, "first at +73727" },
	{ "after it was made longer in place", 100, 110, 7, 4, "past the 110 bytes" },
	{ "zero bytes", 0, 1, 7, 0, "past the 1 bytes" },
	{ "inside", 100, 99, 7, 0, NULL },
	{ "inside, realloc", 100, 99, 7, 1, NULL },
	{ "inside after it was made longer", 100, 109, 7, 4, NULL },
	{ "no slack", 112, 111, 7, 0, NULL },
};

static int run_overrun(void *arg)
{
	const struct overrun *overrun = arg;
	char *ptr;

	setenv("XALLOC_OPTIONS", "canary", 1);
	ptr = overrun->how == 3 ? xalloc_heap_malloc(own_heap(), overrun->size) :
				  xalloc_malloc(overrun->size);
	if (overrun->how == 4)
		ptr = xalloc_realloc(ptr, overrun->size + 10);
	ptr[overrun->at] = overrun->with;
	if (overrun->how == 1)
		ptr = xalloc_realloc(ptr, 20 * overrun->size);
	if (overrun->how == 2)
		xalloc_free_sized(ptr, overrun->size);
	else
		xalloc_free(ptr);
	return 0;
}

TEST_F(lib_options, canary_finds_writes_past_the_size)
{
	char text[4096];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(overruns); i++) {
		const struct overrun *overrun = &overruns[i];
		int status = run_child(run_overrun, (void *)overrun, text, sizeof(text));

		ASSERT_EQ(overrun->says ? 256 + SIGABRT : 0, status) {
			TH_LOG("%s: %s", overrun->name, text);
		}
		ASSERT_NE(NULL, strstr(text, overrun->says ?: "")) {
			TH_LOG("%s: %s", overrun->name, text);
		}
	}
}

TEST_F(lib_options, with_canary_the_usable_size_is_what_was_asked_for)
{
	struct xalloc_heap *heap;
	size_t size, usable;
	char *ptr;

	setenv("XALLOC_OPTIONS", "canary=1", 1);
	heap = own_heap();
	for (size = 1; size < 300000; size = size * 5 / 4 + 1) {
		ptr = size % 2 ? xalloc_malloc(size) : xalloc_heap_malloc(heap, size);
		ASSERT_NE(NULL, ptr);
		usable = xalloc_usable_size(ptr);
		ASSERT_EQ(size, usable);
		bytes_fill(ptr, size, size);
		ptr = xalloc_realloc(ptr, size + size / 3);
		ASSERT_NE(NULL, ptr);
		ASSERT_TRUE(bytes_same(ptr, size, size));
		ptr = xalloc_realloc(ptr, size / 2);
		ASSERT_EQ(size / 2 ?: 1, xalloc_usable_size(ptr));
		ASSERT_TRUE(bytes_same(ptr, size / 2, size));
		xalloc_free(ptr);
		ptr = xalloc_aligned_alloc(4096, size);
		memset(ptr, 1, size);
		xalloc_free_aligned_sized(ptr, 4096, size);
		ptr = xalloc_calloc(1, size);
		ASSERT_TRUE(bytes_zero(ptr, size));
		xalloc_free(ptr);
	}
}

static void *churn(void *arg)
{
	uint32_t seed = (uintptr_t)arg * 77 + 1, i;
	char *blocks[64] = { 0 };

	for (i = 0; i < 20000; i++) {
		uint32_t k = random_next(&seed) % 64;
		size_t size = random_next(&seed) % 3000;

		if (blocks[k] && random_next(&seed) % 2)
			xalloc_free(blocks[k]);
		else if (blocks[k])
			continue;
		blocks[k] = xalloc_malloc(size);
		memset(blocks[k], i, size);
	}
	for (i = 0; i < 64; i++)
		xalloc_free(blocks[i]);
	return NULL;
}

TEST_F(lib_options, all_of_them_with_threads)
{
	struct xalloc_arena_stat stat;
	pthread_t threads[4];
	uintptr_t i;

	setenv("XALLOC_OPTIONS", "canary,zero_on_free=1,trace=3", 1);
	xalloc_free(xalloc_malloc(1));
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, churn, (void *)i));
	for (i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	stat = stats_of(xalloc_arena_default());
	ASSERT_EQ(0, stat.nr_blocks);
}

/* --- zero_on_free */

TEST_F(lib_options, zero_on_free_leaves_nothing_behind)
{
	static const size_t sizes[] = { 1, 100, 5000, 65536, 200000 };
	struct xalloc_arena *arena;
	struct xalloc_heap *heap, *stays;
	struct iovec range;
	char *ptr, *again;
	size_t i;

	setenv("XALLOC_OPTIONS", "zero_on_free=1", 1);
	arena = arena_of(8 * MIB, 0);
	heap = xalloc_heap_create(arena);
	stays = xalloc_heap_create(arena);
	/* One block in each segment that is used, so that the kernel has no cause to zero it. */
	ASSERT_EQ(0, xalloc_arena_range(arena, &range));
	ASSERT_NE(NULL, xalloc_heap_malloc(stays, 100));
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		/* The page stays granted for a neighbour. */
		ASSERT_NE(NULL, xalloc_heap_malloc(heap, sizes[i]));
		ptr = xalloc_heap_malloc(heap, sizes[i]);
		ASSERT_NE(NULL, xalloc_heap_malloc(heap, sizes[i]));
		bytes_fill(ptr, sizes[i], i);
		ptr[0] = 1;
		xalloc_free(ptr);
		again = xalloc_heap_malloc(heap, sizes[i]);
		ASSERT_EQ(ptr, again);
		ASSERT_TRUE(bytes_zero(again, xalloc_usable_size(again)));
	}
	/* What realloc() cuts off. */
	ptr = xalloc_heap_malloc(heap, 400000);
	memset(ptr, 1, 400000);
	ASSERT_EQ(ptr, xalloc_realloc(ptr, 100000));
	again = xalloc_heap_malloc(heap, 200000);
	ASSERT_TRUE(again > ptr && again < ptr + 400000);
	ASSERT_TRUE(bytes_zero(again, 200000));
	memset(again, 1, 200000);
	/* What goes with its heap. */
	ASSERT_EQ(0, xalloc_heap_destroy(heap));
	while ((ptr = xalloc_heap_malloc(stays, SLICE)))
		ASSERT_TRUE(bytes_zero(ptr, SLICE));
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

/* What is cut off and zeroed held the canary. */
TEST_F(lib_options, zero_on_free_and_canary_let_realloc_make_less_of_a_block)
{
	struct xalloc_heap *heap;
	size_t size, less;
	char *ptr;

	setenv("XALLOC_OPTIONS", "zero_on_free=1,canary=1", 1);
	heap = own_heap();
	for (size = 1; size < 300000; size = size * 3 / 2 + 1) {
		for (less = size; less; less /= 3) {
			ptr = size % 2 ? xalloc_malloc(size) : xalloc_heap_malloc(heap, size);
			ASSERT_NE(NULL, ptr);
			bytes_fill(ptr, size, size);
			ptr = xalloc_realloc(ptr, less);
			ASSERT_EQ(less, xalloc_usable_size(ptr));
			ASSERT_TRUE(bytes_same(ptr, less, size));
			xalloc_free(ptr);
		}
	}
}

TEST_F(lib_options, a_realloc_that_fails_leaves_the_canary)
{
	struct xalloc_heap *heap;
	char *ptr;

	setenv("XALLOC_OPTIONS", "zero_on_free=1,canary=1", 1);
	heap = xalloc_heap_create(arena_of(2 * MIB, 0));
	ASSERT_NE(NULL, heap);
	ptr = xalloc_heap_aligned_alloc(heap, 1024, 10);
	while (xalloc_heap_malloc(heap, SLICE) || xalloc_heap_malloc(heap, 512))
		;
	/* More than was asked for, less than there is, and of another class. */
	ASSERT_EQ(NULL, xalloc_realloc(ptr, 500));
	ASSERT_EQ(ENOMEM, errno);
	ASSERT_EQ(10, xalloc_usable_size(ptr));
	xalloc_free(ptr);
}

/* --- leaks and traces */

static __attribute__((noinline)) void *allocate_here(size_t size)
{
	void *ptr = xalloc_malloc(size);

	/* Not the last thing that is done, so that this function is on the stack. */
	__asm__ volatile("" : : "r"(ptr) : "memory");
	return ptr;
}

static void *leave_one(void *arg)
{
	return xalloc_malloc((uintptr_t)arg);
}

static int run_leaks(void *arg)
{
	struct xalloc_heap *heap;
	pthread_t thread;
	void *remote;
	int i;

	setenv("XALLOC_OPTIONS", arg, 1);
	heap = own_heap();
	for (i = 0; i < 10; i++)
		xalloc_free(xalloc_malloc(200));
	allocate_here(100);
	allocate_here(100);
	if (!xalloc_heap_malloc(heap, 100000) || !xalloc_heap_malloc(heap, 30))
		return 1;
	/* Freed by another thread than the one that has its heap. */
	if (pthread_create(&thread, NULL, leave_one, (void *)1000) ||
	    pthread_join(thread, &remote))
		return 1;
	xalloc_free(remote);
	exit(0);
}

TEST_F(lib_options, leaks_are_reported_at_exit)
{
	char text[8192];

	ASSERT_EQ(0, run_child(run_leaks, "leaks=1", text, sizeof(text)));
	ASSERT_NE(NULL, strstr(text, "xalloc: 4 blocks of 102656 bytes live\n")) {
		TH_LOG("%s", text);
	}
	ASSERT_NE(NULL, strstr(text, "\nxalloc: 2 of size class 112\n"));
	ASSERT_NE(NULL, strstr(text, "\nxalloc: 1 of size class 32\n"));
	ASSERT_NE(NULL, strstr(text, "\nxalloc: 1 large ones of 102400 bytes together\n"));
	ASSERT_EQ(NULL, strstr(text, "allocated by"));

	ASSERT_EQ(0, run_child(run_leaks, "leaks=0", text, sizeof(text)));
	ASSERT_EQ(0, strcmp("", text));
}

static int count(const char *text, const char *word)
{
	int nr = 0;

	for (; (text = strstr(text, word)); text++)
		nr++;
	return nr;
}

TEST_F(lib_options, traces_name_who_allocated_what_lives)
{
	char text[32768], first[64];

	ASSERT_EQ(0, run_child(run_leaks, "leaks,trace=1", text, sizeof(text)));
	ASSERT_EQ(4, count(text, ", allocated by\n")) {
		TH_LOG("%s", text);
	}
	ASSERT_EQ(2, count(text, " of 100 bytes, allocated by\n"));
	/* The frames of this program, each with its address. */
	snprintf(first, sizeof(first), "%s", program_invocation_short_name);
	ASSERT_LE(8, count(text, first));
	/* A block of the default heap, then the two calls of allocate_here(), and so on. */
	ASSERT_EQ(0, run_child(run_leaks, "leaks,trace=1000", text, sizeof(text)));
	ASSERT_EQ(0, count(text, "allocated by"));
}

/* What xalloc_report() returns; what it writes is in @text. */
static int read_report(char *text, size_t bytes)
{
	ssize_t len = 0;
	int pipes[2], ret;

	if (pipe(pipes))
		abort();
	ret = xalloc_report(pipes[1]);
	if (!ret) {
		len = read(pipes[0], text, bytes - 1);
		if (len <= 0)
			abort();
	}
	text[len] = 0;
	close(pipes[0]);
	close(pipes[1]);
	return ret;
}

TEST_F(lib_options, a_trace_has_the_size_that_realloc_made_in_place)
{
	char text[8192], *ptr;

	setenv("XALLOC_OPTIONS", "trace=1", 1);
	ptr = xalloc_malloc(200000);
	ASSERT_EQ(ptr, xalloc_realloc(ptr, 70000));
	ASSERT_EQ(0, read_report(text, sizeof(text)));
	ASSERT_EQ(1, count(text, " of 70000 bytes, allocated by\n")) {
		TH_LOG("%s", text);
	}
}

TEST_F(lib_options, the_report_goes_where_it_is_asked_for)
{
	char text[8192];

	setenv("XALLOC_OPTIONS", "trace=1", 1);
	ASSERT_EQ(0, read_report(text, sizeof(text)));
	ASSERT_EQ(0, strcmp(text, "xalloc: 0 blocks of 0 bytes live\n"));
	ASSERT_NE(NULL, allocate_here(64));
	ASSERT_EQ(0, read_report(text, sizeof(text)));
	ASSERT_NE(NULL, strstr(text, "1 blocks of 64 bytes live"));
	ASSERT_EQ(-EBADF, xalloc_report(-1));
}

TEST_F(lib_options, traces_go_with_heaps_and_come_back_with_addresses)
{
	struct xalloc_heap *heap;
	char text[8192];
	int i;

	setenv("XALLOC_OPTIONS", "trace=1", 1);
	for (i = 0; i < 100; i++) {
		heap = own_heap();
		ASSERT_NE(NULL, xalloc_heap_malloc(heap, 100));
		ASSERT_NE(NULL, xalloc_heap_malloc(heap, 100000));
		ASSERT_EQ(0, xalloc_heap_destroy(heap));
	}
	ASSERT_EQ(0, read_report(text, sizeof(text)));
	ASSERT_EQ(0, strcmp(text, "xalloc: 0 blocks of 0 bytes live\n"));
}

/* --- pages and node */

#define CGROUP_ROOT "/sys/fs/cgroup"
#define CGROUP CGROUP_ROOT "/xalloc-lib-options"
/* Room for two or three huge pages beside what the process has. */
#define CGROUP_MAX "8388608"

/* Whether the default heap is in pieces, by the library and by the kernel. */
static bool is_small(void)
{
	struct xalloc_arena_stat stat = stats_of(xalloc_arena_default());
	struct xalloc_ioc_stat kernel = stat_of(xalloc_arena_fd(xalloc_arena_default()));

	if (!stat.committed_bytes || stat.small_bytes != kernel.small_bytes)
		abort();
	return stat.small_bytes == stat.committed_bytes;
}

static int uses_huge(void *arg)
{
	setenv("XALLOC_OPTIONS", arg, 1);
	CHECK(xalloc_malloc(100000));
	CHECK(!is_small());
	return 0;
}

static int uses_pieces(void *arg)
{
	setenv("XALLOC_OPTIONS", arg, 1);
	CHECK(xalloc_malloc(100000));
	CHECK(is_small());
	return 0;
}

TEST_F(lib_options, pages_says_what_the_default_heap_commits)
{
	static const struct {
		const char *options;
		int (*run)(void *arg);
	} runs[] = {
		{ "leaks=0", uses_huge }, { "pages=huge", uses_huge },
		{ "pages=huge_preferred", uses_huge }, { "verbose,pages=small", uses_pieces },
		/* The last one counts. */
		{ "pages=huge,pages=small", uses_pieces },
		{ "pages=small,pages=huge,verbose=0", uses_huge },
	};
	char text[1024];
	size_t i;

	SKIP_LOCAL("has one kind of memory");
	for (i = 0; i < ARRAY_SIZE(runs); i++) {
		ASSERT_EQ(0, run_child(runs[i].run, (void *)runs[i].options, text, sizeof(text))) {
			TH_LOG("%s: %s", runs[i].options, text);
		}
		ASSERT_EQ(0, strcmp(text, ""));
	}
}

/* How a default heap is refused, and that an arena that the program asks for is not. */
struct refusal {
	const char *options;
	int error;
	const char *says;
};

static int is_refused(void *arg)
{
	const struct refusal *refusal = arg;
	int i;

	setenv("XALLOC_OPTIONS", refusal->options, 1);
	for (i = 0; i < 3; i++) {
		errno = 0;
		CHECK(!xalloc_malloc(1));
		CHECK(errno == refusal->error);
		CHECK(!xalloc_arena_default());
	}
	CHECK(xalloc_heap_malloc(own_heap(), 1));
	return 0;
}

TEST_F(lib_options, a_default_heap_that_cannot_be_is_one_line)
{
	static const struct refusal refusals[] = {
		{ "pages=small", EOPNOTSUPP, "pages=small" },
		{ "node=0", EOPNOTSUPP, "node=" },
		{ "node=60", ENODEV, "node=60 " },
		{ "node=999999999,pages=small", ENODEV, "node=999999999 " },
	};
	char text[1024];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(refusals); i++) {
		bool of_local = refusals[i].error == EOPNOTSUPP;

		if (is_local() != of_local)
			continue;
		ASSERT_EQ(0, run_child(is_refused, (void *)&refusals[i], text, sizeof(text))) {
			TH_LOG("%s: %s", refusals[i].options, text);
		}
		ASSERT_NE(NULL, strstr(text, "XALLOC_OPTIONS"));
		ASSERT_NE(NULL, strstr(text, refusals[i].says)) {
			TH_LOG("%s", text);
		}
		ASSERT_EQ(1, count(text, "\n"));
	}
}

/* Of the memory behind @ptr. */
static int node_of(void *ptr)
{
	int node = -1;

	*(volatile char *)ptr = 1;
	syscall(SYS_move_pages, 0, 1UL, &ptr, NULL, &node, 0);
	return node;
}

static int is_on_node(void *arg)
{
	void *ptr;

	setenv("XALLOC_OPTIONS", arg, 1);
	ptr = xalloc_malloc(100000);
	CHECK(ptr);
	CHECK(node_of(ptr) == atoi(strchr(arg, '=') + 1));
	return 0;
}

TEST_F(lib_options, node_says_where_the_default_heap_commits)
{
	static const char *const options[] = {
		"node=0", "node=1", "node=0,pages=huge", "node=1,pages=huge", "node=1,pages=small",
	};
	char text[1024];
	size_t i;

	SKIP_LOCAL("has its memory from any node");
	for (i = 0; i < ARRAY_SIZE(options); i++) {
		if (options[i][5] == '1' && access("/sys/devices/system/node/node1", F_OK))
			SKIP(return, "this machine has no node 1: scripts/vm --nodes 2");
		ASSERT_EQ(0, run_child(is_on_node, (void *)options[i], text, sizeof(text))) {
			TH_LOG("%s: %s", options[i], text);
		}
	}
}

/* In the cgroup, allocates until it is refused, or until memory comes in pieces. */
static int runs_out(void *arg)
{
	const char *options = arg;
	bool falls_back = !strstr(options, "pages=huge,");
	struct xalloc_arena_stat stat;
	int i;

	CHECK(write_text(CGROUP "/cgroup.procs", "0"));
	setenv("XALLOC_OPTIONS", options, 1);
	do {
		void *ptr = xalloc_malloc(SLICE + 1);

		stat = stats_of(xalloc_arena_default());
		if (!ptr)
			break;
	} while (!stat.small_bytes);
	CHECK(stat.committed_bytes >= SEGMENT);
	CHECK(stat.small_bytes == stat_of(xalloc_arena_fd(xalloc_arena_default())).small_bytes);
	if (!falls_back) {
		CHECK(!stat.small_bytes && stat.nr_refused == 1 && stat.refused == ENOMEM);
		return 0;
	}
	CHECK(stat.small_bytes && stat.small_bytes < stat.committed_bytes && !stat.nr_refused);
	/* More of them, which are not said again. */
	for (i = 0; i < 3; i++)
		CHECK(xalloc_malloc(SLICE + 1));
	CHECK(stats_of(xalloc_arena_default()).small_bytes > stat.small_bytes);
	return 0;
}

/* A cgroup without room for another huge page is a machine that has none, for those in it. */
TEST_F(lib_options, where_huge_pages_run_out_the_default_heap_has_pieces)
{
	static const struct {
		const char *options;
		int nr_pieces, nr_refused; /* lines */
	} runs[] = {
		{ "verbose", 1, 0 }, { "pages=huge_preferred,verbose", 1, 0 },
		{ "leaks=0", 0, 0 },
		{ "pages=huge,verbose", 0, 1 }, { "pages=huge,verbose=0", 0, 0 },
	};
	char text[2048];
	int status;
	size_t i;

	SKIP_LOCAL("has one kind of memory");
	if (!file_says(CGROUP_ROOT "/cgroup.controllers", "memory"))
		SKIP(return, "no memory controller of cgroup2 at %s", CGROUP_ROOT);
	write_text(CGROUP_ROOT "/cgroup.subtree_control", "+memory");
	for (i = 0; i < ARRAY_SIZE(runs); i++) {
		rmdir(CGROUP);
		ASSERT_EQ(0, mkdir(CGROUP, 0755));
		ASSERT_TRUE(write_text(CGROUP "/memory.max", CGROUP_MAX));
		write_text(CGROUP "/memory.swap.max", "0");
		status = run_child(runs_out, (void *)runs[i].options, text, sizeof(text));
		/* What the arena had is still to go. */
		EXPECT_TRUE(wait_for(!rmdir(CGROUP), 10000));
		ASSERT_EQ(0, status) {
			TH_LOG("%s: %s", runs[i].options, text);
		}
		ASSERT_EQ(runs[i].nr_pieces, count(text, " goes on with pieces of 64 KiB: ")) {
			TH_LOG("%s: %s", runs[i].options, text);
		}
		ASSERT_EQ(runs[i].nr_refused, count(text, "refused: the machine has no memory"));
		ASSERT_EQ(runs[i].nr_pieces + runs[i].nr_refused, count(text, "\n"));
	}
}

TEST_HARNESS_MAIN
