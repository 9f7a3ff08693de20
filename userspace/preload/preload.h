/* SPDX-License-Identifier: MIT */
/* The preload library: libxalloc, compiled with XL_PRELOAD=1, under the names of libc. */
#ifndef XL_PRELOAD_H
#define XL_PRELOAD_H

#include <malloc.h>
#include <unistd.h>

#include "internal.h"

#define XL_EXPORT __attribute__((visibility("default")))

/* Of C23; <stdlib.h> may not have them yet. */
void free_sized(void *ptr, size_t size);
void free_aligned_sized(void *ptr, size_t alignment, size_t size);

/* Of glibc; no header has them. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t nmemb, size_t size);
void *__libc_realloc(void *ptr, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void *__libc_valloc(size_t size);
void *__libc_pvalloc(size_t size);
void __libc_free(void *ptr);
void cfree(void *ptr);
struct mallinfo __libc_mallinfo(void);
int __libc_mallopt(int param, int value);

/*
 * Of glibc, whose fork() takes this lock after the handlers. A thread that has it, in fflush(NULL)
 * say, may wait for the lock of a stream; and a thread that has one may wait for memory. So it
 * comes before all of ours. In a child that had other threads glibc resets it.
 */
void _IO_list_lock(void);
void _IO_list_unlock(void);
void _IO_list_resetlock(void);

#endif /* XL_PRELOAD_H */
