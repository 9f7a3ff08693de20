/* SPDX-License-Identifier: MIT */
/* The preload library: libxalloc, compiled with XL_PRELOAD=1, under the names of libc. */
#ifndef XL_PRELOAD_H
#define XL_PRELOAD_H

#include <unistd.h>

#include "internal.h"

#define XL_EXPORT __attribute__((visibility("default")))

/* Of C23; <stdlib.h> may not have them yet. */
void free_sized(void *ptr, size_t size);
void free_aligned_sized(void *ptr, size_t alignment, size_t size);

/*
 * Of glibc, whose fork() takes this lock after the handlers. A thread that has it, in fflush(NULL)
 * say, may wait for the lock of a stream; and a thread that has one may wait for memory. So it
 * comes before all of ours. In a child that had other threads glibc resets it.
 */
void _IO_list_lock(void);
void _IO_list_unlock(void);
void _IO_list_resetlock(void);

#endif /* XL_PRELOAD_H */
