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

#endif /* XL_PRELOAD_H */
