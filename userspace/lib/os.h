/* SPDX-License-Identifier: MIT */
/*
 * What libxalloc asks of the system, and nothing else: so that something else can stand in.
 * int: a value that is not negative, or -errno. Addresses: NULL with errno set.
 */
#ifndef XL_OS_H
#define XL_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xalloc_ioc_info;
struct xalloc_ioc_stat;

struct xl_grant {
	uint64_t offset;
	bool zero;
};

int xl_os_open(const char *path);
void xl_os_close(int fd);

int xl_os_info(int fd, struct xalloc_ioc_info *info);
int xl_os_stat(int fd, struct xalloc_ioc_stat *stat);
/* Returns the descriptor of the arena. */
int xl_os_arena_create(int device, size_t arena_bytes, size_t limit_bytes, uint64_t *id);
int xl_os_grant(int arena, uint32_t nr_slices, uint64_t tag, struct xl_grant *grant);
/* How many of @nr offsets, at most XALLOC_BATCH_MAX, were freed; not zero. */
int xl_os_free(int arena, const uint64_t *offsets, uint32_t nr);

/* Addresses without memory; a child of fork() does not have them. */
void *xl_os_reserve(size_t bytes);
/* The same at @addr, if nothing is there. Returns whether it was so. */
bool xl_os_reserve_free(void *addr, size_t bytes);
void xl_os_unreserve(void *addr, size_t bytes);
/* Puts an arena over a part of what was reserved, and takes it off again. */
int xl_os_map_arena(void *addr, size_t bytes, int arena);
int xl_os_unmap_arena(void *addr, size_t bytes);
/* Zeroed private memory that is zeroed again in a child of fork(). */
void *xl_os_private(size_t bytes);
void xl_os_unprivate(void *addr, size_t bytes);
/* The same in a size that is used here and there only; a child of fork() does not have it. */
void *xl_os_sparse(size_t bytes);

/* Bytes of RAM. */
size_t xl_os_ram(void);
/* RLIMIT_MEMLOCK and RLIMIT_AS in bytes, SIZE_MAX for none. */
size_t xl_os_memlock(void);
size_t xl_os_address_space(void);
/* Whether RLIMIT_MEMLOCK does not bind this process. */
bool xl_os_memlock_exempt(void);
/* One write(2) to stderr. */
void xl_os_say(const char *text, size_t bytes);

#endif /* XL_OS_H */
