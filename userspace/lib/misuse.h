/* SPDX-License-Identifier: MIT */
/* What is said of a misuse: to the program's handler, or to stderr; then abort(). misuse.c */
#ifndef XL_MISUSE_H
#define XL_MISUSE_H

#include "internal.h"

/* Unlocks, and says what @call was given. */
_Noreturn void xl_misuse(const char *call, const void *ptr, enum xl_verdict verdict,
			 struct xl_where *where);
/* The free of @ptr is one too many; of two threads, in give-out of one. No bin is locked. */
_Noreturn void xl_free_raced(const void *ptr);
/* Unlocks, and says that @size does not fit the block. */
_Noreturn void xl_mismatch(const char *call, const void *ptr, size_t size, struct xl_where *where);
/* Unlocks, and says that byte @at was written, of a block for which @size bytes were asked. */
_Noreturn void xl_overrun(const char *call, const void *ptr, size_t size, size_t at,
			  struct xl_where *where);

#endif /* XL_MISUSE_H */
