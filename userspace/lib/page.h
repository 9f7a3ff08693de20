/* SPDX-License-Identifier: MIT */
/* Pages, for heap.c and lookup.c. All take a page whose heap is locked. */
#ifndef XL_PAGE_H
#define XL_PAGE_H

#include "internal.h"

/*
 * Grants a page of @cls to @heap, for blocks of @size at @alignment if it is large. No block
 * is used and the page is on no partial list. Returns 0 or -errno.
 */
int xl_page_create(struct xalloc_heap *heap, unsigned int cls, size_t alignment, size_t size,
		   struct xl_page **created);
/*
 * Takes the page, which is on no partial list, from its heap. Its metadata is gone; what
 * is returned is its run, for xl_page_free_runs().
 */
struct xalloc_range xl_page_detach(struct xalloc_heap *heap, struct xl_page *page);
/* Gives @nr runs, at most XALLOC_BATCH_MAX, back to the kernel. */
void xl_page_free_runs(struct xalloc_arena *arena, const struct xalloc_range *runs, uint32_t nr);

/* Takes up to @nr blocks out of the free map, which are XL_KEPT then. Returns how many. */
uint32_t xl_page_take(struct xl_page *page, uintptr_t *entries, uint32_t nr);
/* Puts it back. This and xl_page_take() abort where two threads have freed a block. */
void xl_page_put(struct xl_page *page, uint32_t block);

/* Aborts, as two threads have freed the block. Unlocks @heap before, unless NULL. */
_Noreturn void xl_page_raced(struct xalloc_heap *heap, uintptr_t address);

/* What is not live is free. No other thread changes states. */
void xl_page_recover(struct xl_page *page);

uintptr_t xl_page_address(const struct xalloc_heap *heap, const struct xl_page *page);
uintptr_t xl_block_address(const struct xl_page *page, uint32_t block);

/*
 * The page of a slice and its heap, which is locked; NULL when the slice has none. lookup.c
 */
struct xl_page *xl_page_lock(size_t slice, struct xalloc_heap **heap);

#endif /* XL_PAGE_H */
