// SPDX-License-Identifier: MIT
/*
 * malloc and its kin for unmodified programs, as libc has them.
 *
 * Where libc and libxalloc differ libc is followed: realloc() to nothing frees. If there can be no
 * default heap the program ends with status 127, as one does that cannot be started: most
 * programs would make less of a NULL.
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

#include "preload.h"

#define STATUS_NO_HEAP 127

/* Returns NULL, if there is a default heap; else the reason was said. */
static __attribute__((noinline)) void *refused(void)
{
	struct xl_process *p = xl_process_peek();

	if (!p || !atomic_load_explicit(&p->default_heap, memory_order_relaxed))
		_exit(STATUS_NO_HEAP);
	return NULL;
}

static inline void *or_refused(void *ptr)
{
	return __builtin_expect(!ptr, 0) ? refused() : ptr;
}

XL_EXPORT void *malloc(size_t size)
{
	return or_refused(xalloc_malloc(size));
}

/* Whether that is more than any heap has; then errno says so. */
static bool overflows(size_t nmemb, size_t size, size_t *bytes)
{
	if (!__builtin_mul_overflow(nmemb, size, bytes))
		return false;
	errno = ENOMEM;
	return true;
}

XL_EXPORT void *calloc(size_t nmemb, size_t size)
{
	size_t bytes;

	if (overflows(nmemb, size, &bytes))
		return NULL;
	return or_refused(xalloc_calloc(1, bytes));
}

XL_EXPORT void free(void *ptr)
{
	xalloc_free(ptr);
}

XL_EXPORT void *realloc(void *ptr, size_t size)
{
	if (ptr && !size) {
		xalloc_free(ptr);
		return NULL;
	}
	return or_refused(xalloc_realloc(ptr, size));
}

XL_EXPORT void *reallocarray(void *ptr, size_t nmemb, size_t size)
{
	size_t bytes;

	return overflows(nmemb, size, &bytes) ? NULL : realloc(ptr, bytes);
}

/* Alignments that are no power of two mean the next one, as in glibc. */
XL_EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
	if (alignment <= XL_QUANTUM)
		return malloc(size);
	if (alignment > SIZE_MAX / 2 + 1) {
		errno = EINVAL;
		return NULL;
	}
	alignment = (size_t)1 << (64 - __builtin_clzll(alignment - 1));
	return or_refused(xalloc_aligned_alloc(alignment, size));
}

XL_EXPORT void *memalign(size_t alignment, size_t size)
{
	return aligned_alloc(alignment, size);
}

XL_EXPORT int posix_memalign(void **ptr, size_t alignment, size_t size)
{
	int error = errno, ret = 0;
	void *block;

	if (!alignment || alignment % sizeof(void *) || alignment & (alignment - 1))
		return EINVAL;
	block = aligned_alloc(alignment, size);
	if (block)
		*ptr = block;
	else
		ret = errno;
	errno = error;
	return ret;
}

XL_EXPORT void *valloc(size_t size)
{
	return aligned_alloc(XL_KPAGE, size);
}

XL_EXPORT void *pvalloc(size_t size)
{
	size_t bytes;

	if (__builtin_add_overflow(size, XL_KPAGE - 1, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return aligned_alloc(XL_KPAGE, bytes & ~(XL_KPAGE - 1));
}

XL_EXPORT size_t malloc_usable_size(void *ptr)
{
	return xalloc_usable_size(ptr);
}

XL_EXPORT void free_sized(void *ptr, size_t size)
{
	xalloc_free_sized(ptr, size);
}

XL_EXPORT void free_aligned_sized(void *ptr, size_t alignment, size_t size)
{
	xalloc_free_aligned_sized(ptr, alignment, size);
}
