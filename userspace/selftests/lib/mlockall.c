// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: a program that locks all of its memory, before or after its first block, as root or
 * as a user with 8 MiB, locks no more than its blocks and a few MiB.
 */
#include "preload.h"
#include "selftest.h"

#define LOCKED_MOST (8 * MIB)

/* Through a pointer, for the compiler knows the call. */
static void *(*volatile allocate)(size_t) = malloc;

static size_t live;

static int fill(size_t size, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += size) {
		char *ptr = allocate(size);

		CHECK(is_ours(ptr));
		memset(ptr, 1, size);
		live += size;
	}
	return 0;
}

/* Locks @before the first malloc and @after it, then allocates @more. */
static int lock(bool as_user, int before, int after, size_t more)
{
	struct rlimit limit = { LOCKED_MOST, LOCKED_MOST }, data = { 512 * MIB, 512 * MIB };
	size_t rss, lck;

	/* Tables that are too large shall fail the test, not take the machine's memory. */
	CHECK(!setrlimit(RLIMIT_DATA, &data));
	if (as_user) {
		CHECK(!setrlimit(RLIMIT_MEMLOCK, &limit));
		CHECK(!setgroups(0, NULL) && !setresgid(TEST_UID, TEST_UID, TEST_UID));
		CHECK(!setresuid(TEST_UID, TEST_UID, TEST_UID));
	}
	CHECK(!before || !mlockall(before));
	CHECK(!fill(100, 100));
	fprintf(stderr, "VmSize %zu KiB, ", status_bytes("VmSize") >> 10);
	CHECK(!after || !mlockall(after));
	CHECK(!fill(1000, more / 2) && !fill(100 << 10, more / 2));
	rss = status_bytes("VmRSS");
	lck = status_bytes("VmLck");
	fprintf(stderr, "%zu KiB live, VmRSS %zu, VmLck %zu\n", live >> 10, rss >> 10, lck >> 10);
	CHECK(rss <= live + LOCKED_MOST);
	CHECK(lck <= live + LOCKED_MOST);
	return 0;
}

static int lock_before(void)
{
	return lock(false, MCL_FUTURE, 0, 16 * MIB);
}

static int lock_after(void)
{
	return lock(false, 0, MCL_CURRENT, 0);
}

static int lock_both(void)
{
	return lock(false, MCL_CURRENT | MCL_FUTURE, MCL_CURRENT | MCL_FUTURE, 16 * MIB);
}

static int lock_before_as_user(void)
{
	return lock(true, MCL_FUTURE, 0, 0);
}

static int lock_after_as_user(void)
{
	return lock(true, 0, MCL_CURRENT, 0);
}

static int lock_both_as_user(void)
{
	return lock(true, MCL_CURRENT | MCL_FUTURE, MCL_CURRENT | MCL_FUTURE, 0);
}

static const struct preload_case cases[] = {
	{ "lock_before", lock_before },
	{ "lock_after", lock_after },
	{ "lock_both", lock_both },
	{ "lock_before_as_user", lock_before_as_user },
	{ "lock_after_as_user", lock_after_as_user },
	{ "lock_both_as_user", lock_both_as_user },
};

static __attribute__((constructor)) void start(void)
{
	be_preloaded(cases, ARRAY_SIZE(cases));
}

FIXTURE(lib_mlockall)
{
	struct xalloc_ioc_stat before;
	struct stat device;
};

FIXTURE_SETUP(lib_mlockall)
{
	if (!is_local()) {
		close(device_setup(_metadata, &self->before));
		ASSERT_EQ(0, stat(DEVICE_PATH, &self->device));
	}
	unsetenv("XALLOC_LIMIT");
}

FIXTURE_TEARDOWN_PARENT(lib_mlockall)
{
	int device;

	if (is_local())
		return;
	chmod(DEVICE_PATH, self->device.st_mode & 07777);
	device = device_open();
	ASSERT_LE(0, device);
	counters_expect(_metadata, device, &self->before);
	close(device);
}

TEST_F(lib_mlockall, all_may_be_locked_before_the_first_block)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("lock_before");
}

TEST_F(lib_mlockall, all_may_be_locked_after_the_first_block)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("lock_after");
	EXPECT_CASE("lock_both");
}

#define SKIP_WITHOUT_USERS() \
	do { \
		SKIP_SANITIZED("has a malloc of its own"); \
		if (geteuid()) \
			SKIP(return, "only root can become another user"); \
		if (!is_local()) \
			ASSERT_EQ(0, chmod(DEVICE_PATH, 0666)); \
	} while (0)

TEST_F(lib_mlockall, a_user_may_lock_all_before_the_first_block)
{
	SKIP_WITHOUT_USERS();
	EXPECT_CASE("lock_before_as_user");
}

TEST_F(lib_mlockall, a_user_may_lock_all_after_the_first_block)
{
	SKIP_WITHOUT_USERS();
	EXPECT_CASE("lock_after_as_user");
	EXPECT_CASE("lock_both_as_user");
}

TEST_HARNESS_MAIN
