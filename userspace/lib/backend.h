/* SPDX-License-Identifier: MIT */
/*
 * Where the memory of arenas comes from: the device, or, where XALLOC_BACKEND=local asks for
 * it, anonymous memory of this process, with the same placement as in the kernel.
 *
 * int: a value that is not negative, or -errno. All calls take an arena of their own kind. map(),
 * grant(), free(), stat() and export() may be made by any thread at any time, the others under
 * lock 1.
 */
#ifndef XL_BACKEND_H
#define XL_BACKEND_H

#include "internal.h"

struct xl_grant {
	uint64_t offset;
	bool at; /* in: at @offset and nowhere else, or -EEXIST */
	bool zero;
	bool huge; /* of a whole segment: not in pieces */
};

struct xl_backend {
	/* The largest arena there can be. */
	int (*bytes_max)(size_t *bytes);
	/*
	 * Sets @arena->id and what else the backend keeps in it, from its bytes and limit_bytes and
	 * from the rest of @config.
	 */
	int (*create)(struct xalloc_arena *arena, const struct xalloc_arena_config *config);
	/* The same for an arena that exists, which @fd is of. NULL where there are none. */
	int (*attach)(struct xalloc_arena *arena, int fd);
	void (*destroy)(struct xalloc_arena *arena);
	/*
	 * Maps @bytes of the arena from @offset on, at that offset from @arena->base. -EEXIST if
	 * something is mapped there. Called under the lock of the zone too.
	 */
	int (*map)(struct xalloc_arena *arena, uint64_t offset, size_t bytes);
	int (*grant)(struct xalloc_arena *arena, uint32_t nr_slices, uint64_t tag,
		     struct xl_grant *grant);
	/* How many of @nr pages, at most XALLOC_BATCH_MAX, were freed; not zero. */
	int (*free)(struct xalloc_arena *arena, const struct xalloc_range *pages, uint32_t nr);
	/* Fills in what is committed and granted. What it does not know it leaves as it is. */
	int (*stat)(struct xalloc_arena *arena, struct xalloc_arena_stat *stat);
	/* Gives memory without a grant back. NULL where none is kept. By any thread at any time. */
	void (*trim)(struct xalloc_arena *arena);
	/*
	 * With XL_PRELOAD, or NULL: has memory ready for the child of the next fork, or, @cancel,
	 * gives that back; and makes the arena, copied by the fork, one of this child.
	 */
	int (*fork_prepare)(struct xalloc_arena *arena, bool cancel);
	void (*fork_child)(struct xalloc_arena *arena);
	/* A descriptor of a dma-buf of whole slices. NULL where there are none. */
	int (*export)(struct xalloc_arena *arena, uint64_t offset, uint64_t bytes);
};

extern const struct xl_backend xl_device_backend; /* device.c */
extern const struct xl_backend xl_local_backend;  /* local.c */
/* local.c: memory that is there and stays; its map() only notes where it lies. */
extern const struct xl_backend xl_adopted_backend;
/* In the place of create(): with @arena->blocks and its bytes. Returns 0 or -errno. */
int xl_local_adopt(struct xalloc_arena *arena);

#endif /* XL_BACKEND_H */
