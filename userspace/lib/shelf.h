/* SPDX-License-Identifier: MIT */
/* Where slabs of short blocks lie. Callers hold no lock but lock 1. */
#ifndef XL_SHELF_H
#define XL_SHELF_H

#include "internal.h"

struct xl_grant;

/* A segment that was granted as a whole. Protected by xalloc_arena.shelf_lock. */
struct xl_shelf {
	void *next_free;     /* xl_meta_put() */
	struct xl_list link; /* xalloc_arena.shelves, while slices are free */
	uint64_t offset;
	uint32_t free;     /* slices that no slab has */
	uint32_t dirty;    /* slices that may not be zero */
	bool is_dissolved; /* slices without a slab are the kernel's */
};

/*
 * Takes @nr_slices side by side, for a slab of blocks of @block_bytes, from a shelf that has
 * them, or from a new one. They are mapped. Returns the shelf; NULL if the slab is to lie
 * elsewhere.
 */
struct xl_shelf *xl_shelf_take(struct xalloc_arena *arena, uint32_t block_bytes, uint32_t nr_slices,
			       struct xl_grant *granted);
/*
 * Puts the slices @run of a slab back. Returns whether @run goes back to the kernel: if the shelf
 * is empty then, it is no more, and @run becomes its segment.
 */
bool xl_shelf_put(struct xalloc_arena *arena, struct xl_shelf *shelf, struct xalloc_range *run);
/* Gives back what is free of all shelves, which take no slab from then on. */
void xl_shelves_trim(struct xalloc_arena *arena);

#endif /* XL_SHELF_H */
