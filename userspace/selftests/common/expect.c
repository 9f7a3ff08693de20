// SPDX-License-Identifier: GPL-2.0-only
/*
 * What all programs expect in a test. The harness defines these four names as globals in each file
 * that includes it. The program has them already, so here they get other names.
 */
#define _fixture_global common_fixture_global
#define __active_test common_active_test
#define __wait_for_test common_wait_for_test
#define __run_test common_run_test
#include "selftest.h"

#include "gup.h"

void counters_expect_now(struct __test_metadata *_metadata, int fd,
			 const struct xalloc_ioc_stat *want)
{
	struct xalloc_ioc_stat seen;

	EXPECT_EQ(0, counters_read(fd, &seen));
	EXPECT_EQ(want->arenas, seen.arenas);
	EXPECT_EQ(want->clients, seen.clients);
	EXPECT_EQ(want->pages, seen.pages);
	EXPECT_EQ(want->granted_bytes, seen.granted_bytes);
	EXPECT_EQ(want->committed_bytes, seen.committed_bytes);
	EXPECT_EQ(want->pinned_bytes, seen.pinned_bytes);
	EXPECT_EQ(want->charged_bytes, seen.charged_bytes);
	EXPECT_EQ(want->reserved_bytes, seen.reserved_bytes);
}

void counters_expect(struct __test_metadata *_metadata, int fd,
		     const struct xalloc_ioc_stat *want)
{
	counters_wait(fd, want, 60000);
	counters_expect_now(_metadata, fd, want);
}

bool pinned_wait(struct __test_metadata *_metadata, int fd, uint64_t pinned_bytes,
		 unsigned int ms)
{
	struct xalloc_ioc_stat seen;
	bool came;
	int rc;

	came = wait_for((rc = counters_read(fd, &seen)) || seen.pinned_bytes == pinned_bytes, ms);
	ASSERT_EQ(0, rc);
	return came;
}

int device_setup(struct __test_metadata *_metadata, struct xalloc_ioc_stat *before)
{
	int device;

	ASSERT_EQ(0, geteuid()) {
		TH_LOG("the xalloc selftests run as root");
	}
	device = device_open();
	ASSERT_LE(0, device) {
		TH_LOG("cannot open %s: %s; is the module loaded?", DEVICE_PATH,
		       strerror(-device));
	}
	ASSERT_EQ(0, counters_read(device, before));
	guard_install();
	return device;
}

int pipe_with(struct __test_metadata *_metadata, void *addr, size_t bytes)
{
	struct iovec iov = { addr, bytes };
	int ends[2];

	ASSERT_EQ(0, pipe2(ends, O_CLOEXEC));
	ASSERT_EQ(bytes, vmsplice(ends[1], &iov, 1, SPLICE_F_NONBLOCK));
	close(ends[1]);
	return ends[0];
}

void expect_pipe_holds(struct __test_metadata *_metadata, int fd, size_t bytes, uint64_t seed)
{
	unsigned char *copy = malloc(bytes);
	size_t got = 0;
	ssize_t rc = 0;

	ASSERT_NE(NULL, copy);
	while (got < bytes) {
		rc = read(fd, copy + got, bytes - got);
		if (rc <= 0)
			break;
		got += rc;
	}
	EXPECT_EQ(bytes, got);
	if (got == bytes) {
		EXPECT_EQ(-1, pattern_mismatch(copy, bytes, seed));
	}
	free(copy);
}

void expect_arena(struct __test_metadata *_metadata, int fd, uint64_t pages,
		  uint64_t committed_bytes, uint64_t pinned_bytes)
{
	struct xalloc_ioc_stat seen;

	EXPECT_EQ(0, counters_read(fd, &seen));
	EXPECT_EQ(pages, seen.pages);
	EXPECT_EQ(committed_bytes, seen.committed_bytes);
	EXPECT_EQ(pinned_bytes, seen.pinned_bytes);
}
