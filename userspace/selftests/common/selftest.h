/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For each program of the selftests: the harness, the helpers, and what they expect in a test.
 *
 * Every test must leave the counters of the device as it found them; a fixture takes
 * them with counters_read() in its set-up and calls counters_expect() in its teardown.
 * The programs expect to be the only users of the module while they run, as root.
 */
#ifndef XALLOC_SELFTEST_H
#define XALLOC_SELFTEST_H

#include "helpers.h"
#include "kselftest_harness.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT STUCK_SECONDS
#define TEST_TIMEOUT_LONG 3000

/*
 * Fixture body that most programs share: the device and its counters before the test.
 * Programs that need more have members of their own and call the same helpers.
 */
int device_setup(struct __test_metadata *_metadata, struct xalloc_ioc_stat *before);

void counters_expect_now(struct __test_metadata *_metadata, int fd,
			 const struct xalloc_ioc_stat *want);
void counters_expect(struct __test_metadata *_metadata, int fd,
		     const struct xalloc_ioc_stat *want);

/* Waits for @pinned_bytes of the arena or device behind @fd. */
bool pinned_wait(struct __test_metadata *_metadata, int fd, uint64_t pinned_bytes,
		 unsigned int ms);

#endif /* XALLOC_SELFTEST_H */
