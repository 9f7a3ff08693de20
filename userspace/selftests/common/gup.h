/* SPDX-License-Identifier: GPL-2.0-only */
/* What abi/gup.c and abi/pin.c share: a disk, a pipe and a ring that have memory of an arena. */
#ifndef XALLOC_GUP_H
#define XALLOC_GUP_H

#include "selftest.h"

#include <liburing.h>
#include <sys/uio.h>

#define ARENA_BYTES (8 * MIB)
#define FILE_BYTES (4 * MIB)
#define RAM_DISK "/dev/ram0"

/* A disk in memory whose block layer takes references to the pages it is given. */
static inline bool has_ram_disk(void)
{
	static const char *const modprobe[] = {
		"modprobe", "brd", "rd_nr=1", "rd_size=65536", NULL
	};

	if (access(RAM_DISK, F_OK))
		program_run(modprobe);
	return !access(RAM_DISK, R_OK | W_OK);
}

/*
 * A pipe that holds @bytes at @addr without a copy. Returns its reading end; the writing
 * end is closed.
 */
static inline int pipe_with(struct __test_metadata *_metadata, void *addr, size_t bytes)
{
	struct iovec iov = { addr, bytes };
	int ends[2];

	ASSERT_EQ(0, pipe2(ends, O_CLOEXEC));
	ASSERT_EQ(bytes, vmsplice(ends[1], &iov, 1, SPLICE_F_NONBLOCK));
	close(ends[1]);
	return ends[0];
}

static inline void expect_pipe_holds(struct __test_metadata *_metadata, int fd, size_t bytes,
				     uint64_t seed)
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

static inline void expect_arena(struct __test_metadata *_metadata, int fd, uint64_t pages,
				uint64_t committed_bytes, uint64_t pinned_bytes)
{
	struct xalloc_ioc_stat seen;

	EXPECT_EQ(0, counters_read(fd, &seen));
	EXPECT_EQ(pages, seen.pages);
	EXPECT_EQ(committed_bytes, seen.committed_bytes);
	EXPECT_EQ(pinned_bytes, seen.pinned_bytes);
}

/* Sets up a ring, or returns why there is none. */
static inline int ring_setup(struct io_uring *ring)
{
	return io_uring_queue_init(8, ring, 0);
}

static inline int ring_transfer(struct io_uring *ring, bool is_write, int fd, void *addr,
				size_t bytes, uint64_t file_offset)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int rc;

	if (is_write)
		io_uring_prep_write_fixed(sqe, fd, addr, bytes, file_offset, 0);
	else
		io_uring_prep_read_fixed(sqe, fd, addr, bytes, file_offset, 0);
	rc = io_uring_submit_and_wait(ring, 1);
	if (rc < 0)
		return rc;
	rc = io_uring_wait_cqe(ring, &cqe);
	if (rc)
		return rc;
	rc = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return rc;
}

#endif /* XALLOC_GUP_H */
