/* SPDX-License-Identifier: GPL-2.0-only */
/* What the selftests of shared, named and copied arenas have in common. */
#ifndef XALLOC_SHARING_H
#define XALLOC_SHARING_H

#include "helpers.h"

#include <sys/socket.h>

/* Where scripts/vm and make load mount xallocfs. */
#define NAMES "/run/xalloc"

/*
 * A new client, by what is mapped at @address; @fd is the device or any arena. The descriptor, or
 * the negative errno; @arg, which may be NULL, is filled in.
 */
int attach_at(int fd, const volatile void *address, uint32_t flags,
	      struct xalloc_ioc_attach *arg);

/* One call. Returns how many pages it listed, or the negative errno. *@offset is where to go on. */
int list_some(int arena, uint32_t flags, uint64_t client_id, uint64_t *offset,
	      struct xalloc_page_info *pages, uint32_t nr);

/* Lists the pages of the arena, at most @nr. Returns how many it listed, or the negative errno. */
int list_all(int arena, uint32_t flags, struct xalloc_page_info *pages, int nr);

/* Returns 1, or the negative errno. */
int claim(int arena, uint64_t offset);

/* A page with a tag. Returns 1, or the negative errno. */
int grant_tagged(int arena, uint32_t nr_slices, uint32_t flags, uint64_t tag, uint64_t *offset);

int arena_limit(int arena, uint64_t limit_bytes);

/* An arena that a child of fork gets a copy of. */
int family_create(int device, uint64_t arena_bytes, uint64_t limit_bytes);

int fork_prepare(int arena, uint32_t flags);

/* Runs the statements in a child, which then exits with 0. The result is the child's status. */
#define in_child(...) ({						\
	pid_t pid_ = fork();						\
									\
	if (!pid_) {							\
		guard_install();					\
		__VA_ARGS__;						\
		_exit(0);						\
	}								\
	pid_ < 0 ? -errno : child_status(pid_);				\
})

/* Passing descriptors to another process. */

void fd_send(int sock, int fd);
int fd_receive(int sock);

/* A new arena with a name; @flags are XALLOC_ARENA_*. The descriptor, or the negative errno. */
int name_create_flags(const char *path, uint64_t arena_bytes, uint32_t flags);
int name_create(const char *path, uint64_t arena_bytes);

/* The descriptor, or the negative errno. */
int name_open(const char *path, int flags);

#endif /* XALLOC_SHARING_H */
