// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: the core file of a preloaded program has its blocks, and little else.
 */
#include "preload.h"
#include "selftest.h"

#define CORE_PATTERN "/proc/sys/kernel/core_pattern"
#define CORE_PIPE_LIMIT "/proc/sys/kernel/core_pipe_limit"
#define CORE "/tmp/xalloc-core"
/* What is more than this is cut off, so that a large core fills no memory. */
#define CORE_HANDLER "|/bin/dd of=" CORE " bs=1M count=64 iflag=fullblock"
#define CORE_MOST (8 * MIB)

/* Made as it is needed, so that it is nowhere else in the program's memory. */
static void make_text(char *text, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		text[i] = 'a' + i * i % 23;
}

static int dump_core(void)
{
	/* Through a pointer, for the compiler knows the call. */
	void *(*volatile allocate)(size_t) = malloc;
	char *ptr = allocate(100);

	CHECK(is_ours(ptr));
	make_text(ptr, 100);
	abort();
}

static const struct preload_case cases[] = {
	{ "dump_core", dump_core },
};

static __attribute__((constructor)) void start(void)
{
	be_preloaded(cases, ARRAY_SIZE(cases));
}

FIXTURE(lib_core_file)
{
	struct xalloc_ioc_stat before;
	char pattern[256], pipe_limit[32];
};

static bool text_read(const char *path, char *text, size_t bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = read(fd, text, bytes - 1);

	close(fd);
	text[len > 0 ? len : 0] = 0;
	return len > 0;
}

FIXTURE_SETUP(lib_core_file)
{
	SKIP_SANITIZED("has a malloc of its own");
	SKIP_LOCAL("changes kernel.core_pattern, which is for guests");
	close(device_setup(_metadata, &self->before));
	ASSERT_TRUE(text_read(CORE_PATTERN, self->pattern, sizeof(self->pattern)));
	ASSERT_TRUE(text_read(CORE_PIPE_LIMIT, self->pipe_limit, sizeof(self->pipe_limit)));
	ASSERT_TRUE(write_text(CORE_PATTERN, CORE_HANDLER));
	/* The program's end waits for the handler's. */
	ASSERT_TRUE(write_text(CORE_PIPE_LIMIT, "8"));
	unsetenv("XALLOC_LIMIT");
}

FIXTURE_TEARDOWN_PARENT(lib_core_file)
{
	int device;

	if (is_local() || IS_SANITIZED)
		return;
	write_text(CORE_PATTERN, self->pattern);
	write_text(CORE_PIPE_LIMIT, self->pipe_limit);
	unlink(CORE);
	device = device_open();
	ASSERT_LE(0, device);
	counters_expect(_metadata, device, &self->before);
	close(device);
}

static int exec_plain(void *arg)
{
	setenv(CASE, arg, 1);
	execl("/proc/self/exe", program_invocation_short_name, NULL);
	return 1;
}

static void expect_small_core(struct __test_metadata *_metadata, int (*exec)(void *))
{
	char text[4096], wanted[100];
	struct stat stat;
	char *core;
	int fd;

	unlink(CORE);
	EXPECT_EQ(256 + SIGABRT, run_child(exec, "dump_core", text, sizeof(text))) {
		TH_LOG("%s", text);
	}
	fd = open(CORE, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, fstat(fd, &stat));
	ASSERT_NE(0, stat.st_size);
	core = mmap(NULL, stat.st_size, PROT_READ, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, core);
	TH_LOG("%zu KiB", (size_t)stat.st_size >> 10);
	EXPECT_GE(CORE_MOST, (size_t)stat.st_size);
	make_text(wanted, sizeof(wanted));
	EXPECT_NE(NULL, memmem(core, stat.st_size, wanted, sizeof(wanted)));
	munmap(core, stat.st_size);
	close(fd);
}

/* With libc's malloc: then this test is right. */
TEST_F(lib_core_file, of_a_plain_program_has_the_block)
{
	expect_small_core(_metadata, exec_plain);
}

TEST_F(lib_core_file, has_the_block_and_little_else)
{
	expect_small_core(_metadata, exec_preloaded);
}

TEST_F(lib_core_file, has_the_block_of_the_local_backend_and_little_else)
{
	setenv("XALLOC_BACKEND", "local", 1);
	expect_small_core(_metadata, exec_preloaded);
}

TEST_HARNESS_MAIN
