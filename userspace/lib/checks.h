/* SPDX-License-Identifier: MIT */
/*
 * What XALLOC_OPTIONS can have done to each block: zero_on_free, canary, trace. checks.c
 *
 * While any of them is on no thread has a cache, so that each call comes through xl_alloc()
 * and free_locked(). Otherwise nothing here is called but xl_checks_usable().
 */
#ifndef XL_CHECKS_H
#define XL_CHECKS_H

#include "internal.h"

/* A new block, before its caller has it, with no lock held. Returns @ptr. */
void *xl_checks_alloc(const struct xalloc_arena *arena, void *ptr, unsigned int cls, size_t size);
/* A live block that is about to be freed; its bin is locked, but not when this aborts. */
void xl_checks_free(const char *call, void *ptr, struct xl_where *where);
/* One that is about to be resized where it is, if it can be, and one that was. */
void xl_checks_resize(const char *call, void *ptr, struct xl_where *where, size_t size);
void xl_checks_resized(void *ptr, const struct xl_where *where, size_t size);
/* How much of a block may be used, its bin locked. */
size_t xl_checks_usable(const void *ptr, const struct xl_where *where);
/* The heap goes with all its blocks. */
void xl_checks_heap_gone(struct xalloc_heap *heap);

#endif /* XL_CHECKS_H */
