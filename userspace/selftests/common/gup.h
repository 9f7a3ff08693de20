/* SPDX-License-Identifier: GPL-2.0-only */
/* What abi/gup.c and abi/pin.c share: a disk, a pipe and a ring that have memory of an arena. */
#ifndef XALLOC_GUP_H
#define XALLOC_GUP_H

#include "helpers.h"

#include <liburing.h>
#include <sys/uio.h>

#define ARENA_BYTES (8 * MIB)
#define FILE_BYTES (4 * MIB)
#define RAM_DISK "/dev/ram0"

/* Of the harness. */
struct __test_metadata;

/* A disk in memory whose block layer takes references to the pages it is given. */
bool has_ram_disk(void);

/*
 * A pipe that holds @bytes at @addr without a copy. Returns its reading end; the writing
 * end is closed.
 */
int pipe_with(struct __test_metadata *_metadata, void *addr, size_t bytes);

void expect_pipe_holds(struct __test_metadata *_metadata, int fd, size_t bytes, uint64_t seed);
void expect_arena(struct __test_metadata *_metadata, int fd, uint64_t pages,
		  uint64_t committed_bytes, uint64_t pinned_bytes);

/* Sets up a ring, or returns why there is none. */
int ring_setup(struct io_uring *ring);

int ring_transfer(struct io_uring *ring, bool is_write, int fd, void *addr, size_t bytes,
		  uint64_t file_offset);

#endif /* XALLOC_GUP_H */
