// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: a program allocates before libc has started: in the resolver of an IFUNC, while
 * ld.so relocates the program, and in a function of .preinit_array.
 *
 * Outside of the cases these calls are made too, and then are libc's.
 */
#include "preload.h"
#include "selftest.h"

LIBTEST_FIXTURE(lib_early, "32M")

static void *in_resolver, *in_preinit, *linked;

/* Sanitizers do not work so early. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static void nothing(void)
{
}
#else
static void do_nothing(void)
{
}

static __attribute__((used)) void (*resolve(void))(void)
{
	in_resolver = malloc(100);
	free(malloc(1000));
	return do_nothing;
}

static void nothing(void) __attribute__((ifunc("resolve")));

static void run_early(int argc, char **argv, char **envp)
{
	(void)argc;
	(void)argv;
	in_preinit = malloc(100);
	for (; *envp; envp++)
		if (!strcmp(*envp, CASE "=linked"))
			linked = xalloc_malloc(100);
}

static __attribute__((section(".preinit_array"), used)) void (*preinit)(int, char **, char **) =
	run_early;
#endif

static int is_served(void)
{
	int i;

	nothing();
	CHECK(in_resolver && is_block(in_resolver));
	CHECK(in_preinit && is_block(in_preinit));
	CHECK(stats_of(xalloc_arena_default()).limit_bytes == 32 * MIB);
	for (i = 0; i < 100; i++)
		CHECK(!replace_blocks(i));
	CHECK(!expect_blocks(99));
	free(in_resolver);
	free(in_preinit);
	return 0;
}

static int is_served_linked(void)
{
	CHECK(linked && is_block(linked));
	CHECK(stats_of(xalloc_arena_default()).limit_bytes == 32 * MIB);
	xalloc_free(linked);
	return 0;
}

static const struct preload_case cases[] = {
	{ "preloaded", is_served },
	{ "linked", is_served_linked },
};

static __attribute__((constructor)) void start(void)
{
	be_preloaded(cases, ARRAY_SIZE(cases));
}

TEST_F(lib_early, a_preloaded_program_may_allocate_before_libc_starts)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("preloaded");
}

static int exec_linked(void *arg)
{
	setenv(CASE, arg, 1);
	execl("/proc/self/exe", program_invocation_short_name, NULL);
	return 1;
}

TEST_F(lib_early, the_environment_is_seen_before_libc_starts)
{
	char text[4096];

	SKIP_SANITIZED("does not work so early");
	EXPECT_EQ(0, run_child(exec_linked, "linked", text, sizeof(text))) {
		TH_LOG("%s", text);
	}
}

TEST_HARNESS_MAIN
