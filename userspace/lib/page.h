/* SPDX-License-Identifier: MIT */
/* Pages, for heap.c, large.c and lookup.c. If not said otherwise, the bin is locked. */
#ifndef XL_PAGE_H
#define XL_PAGE_H

#include "internal.h"

/*
 * Grants a page of @cls, for blocks of @size at @alignment if it is large. It is of no heap yet.
 * Nothing is locked. Returns 0 or -errno, or -XL_ADD_CHUNK.
 */
int xl_page_grant(struct xalloc_arena *arena, unsigned int cls, size_t alignment, size_t size,
		  struct xl_page **page);
/* The same for a large page of @nr_slices at @offset and nowhere else: -EEXIST if that is taken. */
int xl_page_grant_at(struct xalloc_arena *arena, uint64_t offset, uint32_t nr_slices,
		     struct xl_page **page);
/* Makes two large pages of one, the first with @nr_slices. Returns whether there was memory. */
bool xl_page_split(struct xalloc_heap *heap, struct xl_page *page, uint32_t nr_slices);
/* Adds it to a heap. No block is used, and the page is on no partial list. */
void xl_page_attach(struct xalloc_heap *heap, struct xl_page *page);
/* Takes the page, which is on no partial list, from its heap to @gone. */
void xl_page_detach(struct xalloc_heap *heap, struct xl_page *page, struct xl_list *gone);

/* A slab has so many lanes, places from which on a thread looks for free blocks. */
#define XL_NR_LANES 256

/*
 * Takes up to @nr blocks out of the free map, which are XL_KEPT then, and counts them in @done.
 * This and xl_page_put() return 0, or the address of a block that two threads have freed.
 */
uintptr_t xl_page_take(struct xl_page *page, uint8_t lane, uintptr_t *entries, uint32_t nr,
		       uint32_t *done);
/* Puts it back. */
uintptr_t xl_page_put(struct xl_page *page, uint32_t block);

/* What is not live is free. No other thread changes states. */
void xl_page_recover(struct xl_page *page);

uintptr_t xl_page_address(const struct xalloc_heap *heap, const struct xl_page *page);
uintptr_t xl_block_address(const struct xl_page *page, uint32_t block);

/*
 * The page of a slice, its bin locked, and its heap; NULL when the slice has none. lookup.c
 */
struct xl_page *xl_page_lock(size_t slice, struct xalloc_heap **heap);

#endif /* XL_PAGE_H */
