// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: limits of addresses, of data and of what may be committed leave a program that has
 * the library preloaded its room, whoever sets them.
 */
#include <pthread.h>

#include "preload.h"
#include "selftest.h"

#define OVERCOMMIT "/proc/sys/vm/overcommit_memory"
#define LIMIT_AS (1000000UL << 10)
#define LIMIT_DATA (500000UL << 10)

/* Through a pointer, for the compiler knows the call. */
static void *(*volatile allocate)(size_t) = malloc;

static int fill(size_t size, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += size) {
		char *ptr = allocate(size);

		CHECK(is_ours(ptr));
		memset(ptr, 1, size);
	}
	return 0;
}

static int limit_itself(size_t limit_bytes, size_t bytes)
{
	struct rlimit limit = { limit_bytes, limit_bytes };
	size_t nr = 0;

	CHECK(is_ours(allocate(10)));
	CHECK(!setrlimit(RLIMIT_AS, &limit));
	while (nr < bytes / 64 && allocate(64))
		nr++;
	fprintf(stderr, "%zu of %zu MiB in blocks of 64 bytes\n", nr * 64 >> 20, bytes >> 20);
	CHECK(nr == bytes / 64);
	return 0;
}

static int limit_itself_to_512m(void)
{
	return limit_itself(512 * MIB, 384 * MIB);
}

static int limit_itself_to_4g(void)
{
	return limit_itself(4096 * MIB, 3072 * MIB);
}

static void *use_some(void *arg)
{
	return fill(1000, 100000) ? arg : NULL;
}

/* What the program maps itself, and its threads, beside 64 MiB in blocks. */
static int map_and_run_threads(void)
{
	pthread_t threads[8];
	size_t i;
	void *ret;

	CHECK(!fill(100 << 10, 64 * MIB));
	CHECK(mmap(NULL, 256 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
	      MAP_FAILED);
	for (i = 0; i < ARRAY_SIZE(threads); i++)
		CHECK(!pthread_create(&threads[i], NULL, use_some, "failed"));
	for (i = 0; i < ARRAY_SIZE(threads); i++)
		CHECK(!pthread_join(threads[i], &ret) && !ret);
	CHECK(!fill(1000, MIB));
	return 0;
}

static const struct preload_case cases[] = {
	{ "limit_itself_to_512m", limit_itself_to_512m },
	{ "limit_itself_to_4g", limit_itself_to_4g },
	{ "map_and_run_threads", map_and_run_threads },
};

static __attribute__((constructor)) void start(void)
{
	be_preloaded(cases, ARRAY_SIZE(cases));
}

FIXTURE(lib_rlimits)
{
	struct xalloc_ioc_stat before;
	long long overcommit;
};

FIXTURE_SETUP(lib_rlimits)
{
	if (!is_local())
		close(device_setup(_metadata, &self->before));
	self->overcommit = read_number(OVERCOMMIT);
	unsetenv("XALLOC_LIMIT");
}

FIXTURE_TEARDOWN_PARENT(lib_rlimits)
{
	int device;

	if (is_local())
		return;
	write_text(OVERCOMMIT, self->overcommit == 1 ? "1" : "0");
	device = device_open();
	ASSERT_LE(0, device);
	counters_expect(_metadata, device, &self->before);
	close(device);
}

TEST_F(lib_rlimits, a_program_that_limits_itself_has_the_rest)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("limit_itself_to_512m");
	if (is_local() && meminfo_kb("MemTotal") / 4 > 3200 << 10 &&
	    meminfo_kb("MemAvailable") > 4096 << 10) {
		EXPECT_CASE("limit_itself_to_4g");
	} else {
		TH_LOG("left out: 4 GiB");
	}
}

/* A case, or NULL for python3, under a limit. */
struct limited {
	char *name;
	bool is_preloaded;
	int resource;
	size_t bytes;
};

static const struct limited limits[] = {
	{ .resource = RLIMIT_AS, .bytes = LIMIT_AS },
	{ .resource = RLIMIT_DATA, .bytes = LIMIT_DATA },
};

static const char script[] =
	"import json, threading\n"
	"kept = []\n"
	"def work(n):\n"
	"    kept.append(json.dumps({str(i): [i] * (i % 9) for i in range(n)}))\n"
	"threads = [threading.Thread(target=work, args=(1000 + i,)) for i in range(8)]\n"
	"for t in threads: t.start()\n"
	"for t in threads: t.join()\n"
	"kept += [bytes(1000 + i % 100) for i in range(20000)]\n"
	"assert sum(len(json.loads(text)) for text in kept[:8]) == 8028\n"
	"assert sum(map(len, kept[8:])) == 20990000\n";

static int run_limited(void *arg)
{
	const struct limited *limited = arg;
	struct rlimit limit = { limited->bytes, limited->bytes };
	char path[4096];

	if (limited->is_preloaded) {
		CHECK(!library_path(path, sizeof(path)));
		setenv("LD_PRELOAD", path, 1);
	}
	if (limited->name)
		setenv(CASE, limited->name, 1);
	/* So that each object of it is a block. */
	setenv("PYTHONMALLOC", "malloc", 1);
	CHECK(!limited->bytes || !setrlimit(limited->resource, &limit));
	if (limited->name)
		execl("/proc/self/exe", program_invocation_short_name, NULL);
	else
		execlp("python3", "python3", "-c", script, NULL);
	return 1;
}

/* Says nothing, with libc's malloc and with ours. */
static void expect_to_run(struct __test_metadata *_metadata, struct limited limited)
{
	char text[4096];

	ASSERT_EQ(0, run_child(run_limited, &limited, text, sizeof(text))) {
		TH_LOG("without the library: %s", text);
	}
	limited.is_preloaded = true;
	EXPECT_EQ(0, run_child(run_limited, &limited, text, sizeof(text)));
	EXPECT_STREQ("", text);
}

/* With KASAN each start of python3 takes half a minute, and says no more than without. */
static bool runs_python(void)
{
	static const char *const argv[] = { "python3", "-c", "pass", NULL };

	return !kernel_has_kasan() && program_run(argv) == 0;
}

TEST_F_TIMEOUT(lib_rlimits, python_runs_under_limits, TEST_TIMEOUT_LONG)
{
	SKIP_SANITIZED("has a malloc of its own");
	if (kernel_has_kasan())
		SKIP(return, "a kernel with KASAN takes minutes for it and says no more");
	if (!runs_python())
		SKIP(return, "there is no python3");
	expect_to_run(_metadata, limits[0]);
	expect_to_run(_metadata, limits[1]);
}

TEST_F(lib_rlimits, limits_leave_room_for_what_the_program_maps)
{
	struct limited limited;
	size_t i;

	SKIP_SANITIZED("has a malloc of its own");
	for (i = 0; i < ARRAY_SIZE(limits); i++) {
		limited = limits[i];
		limited.name = "map_and_run_threads";
		expect_to_run(_metadata, limited);
	}
}

TEST_F_TIMEOUT(lib_rlimits, programs_run_where_nothing_is_overcommitted, TEST_TIMEOUT_LONG)
{
	int i;

	SKIP_SANITIZED("has a malloc of its own");
	SKIP_LOCAL("changes vm.overcommit_memory, which is for guests");
	ASSERT_TRUE(write_text(OVERCOMMIT, "2"));
	for (i = 0; i < 2; i++) {
		expect_to_run(_metadata, (struct limited){ .name = "map_and_run_threads" });
		if (runs_python())
			expect_to_run(_metadata, (struct limited){ 0 });
		setenv("XALLOC_BACKEND", "local", 1);
	}
}

TEST_HARNESS_MAIN
