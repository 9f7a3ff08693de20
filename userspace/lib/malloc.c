// SPDX-License-Identifier: MIT
/* The calls on blocks, of the default heap and of others. */
#include <errno.h>
#include <string.h>

#include "backend.h"
#include "checks.h"
#include "zone.h"

static size_t lower(size_t a, size_t b)
{
	return a < b ? a : b;
}

static struct xalloc_arena *create_default_arena(struct xl_process *p)
{
	struct xalloc_arena_config config = { .size = sizeof(config) };
	size_t limit = p->options.limit_bytes;
	struct xalloc_arena *arena;
	size_t most;
	int ret;

	ret = p->options.backend->bytes_max(&most);
	if (ret) {
		errno = -ret;
		return NULL;
	}
	config.arena_bytes = lower(xl_zone_default_bytes(), most);
	config.limit_bytes = lower(limit, config.arena_bytes);
	arena = xl_arena_create(p, &config, true);
	if (arena)
		arena->keep_bytes = XL_LOCAL_KEEP;
	return arena;
}

struct xalloc_heap *xl_heap_default(void)
{
	struct xl_process *p = xl_process_get();
	struct xalloc_heap *heap;

	if (!p)
		return NULL;
	heap = atomic_load_explicit(&p->default_heap, memory_order_acquire);
	if (heap)
		return heap;
	pthread_mutex_lock(&p->lock);
	heap = atomic_load_explicit(&p->default_heap, memory_order_relaxed);
	if (!heap) {
		if (!p->default_arena)
			p->default_arena = create_default_arena(p);
		if (p->default_arena)
			heap = xl_heap_create(p->default_arena, false);
		atomic_store_explicit(&p->default_heap, heap, memory_order_release);
	}
	pthread_mutex_unlock(&p->lock);
	return heap;
}

struct xalloc_arena *xalloc_arena_default(void)
{
	struct xalloc_heap *heap = xl_heap_default();

	return heap ? heap->arena : NULL;
}

/* Whether threads have it, or it has the large blocks of the default heap. */
static bool is_default(struct xl_process *p, const struct xalloc_heap *heap)
{
	return heap->tag & XL_TAG_CACHED ||
	       heap == atomic_load_explicit(&p->default_heap, memory_order_relaxed);
}

/* In the default heap if there is no @heap. */
static void *heap_alloc(struct xalloc_heap *heap, size_t alignment, size_t size, bool *zero)
{
	return heap ? xl_heap_alloc(heap, alignment, size, zero) :
		      xl_default_alloc(alignment, size, zero);
}

static void *heap_calloc(struct xalloc_heap *heap, size_t nmemb, size_t size)
{
	size_t bytes;
	void *ptr;
	bool zero;

	if (__builtin_mul_overflow(nmemb, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	ptr = heap_alloc(heap, XL_QUANTUM, bytes, &zero);
	if (ptr && !zero)
		memset(ptr, 0, bytes);
	return ptr;
}

void xl_free_locked(const char *call, void *ptr)
{
	enum xl_verdict verdict;
	struct xl_where where;
	int error = errno;

	verdict = xl_find(ptr, &where);
	/* Given out again since it was seen to be free. */
	if (verdict == XL_BLOCK && where.heap->tag & XL_TAG_CACHED)
		verdict = XL_FREED;
	if (verdict == XL_BLOCK) {
		if (xl_checks)
			xl_checks_free(call, ptr, &where);
		xl_block_free(&where);
		pthread_mutex_unlock(&where.heap->lock);
	} else if (verdict != XL_INHERITED) {
		xl_misuse(call, ptr, verdict, &where);
	}
	errno = error;
}

void xl_check_size(const char *call, void *ptr, size_t alignment, size_t size)
{
	enum xl_verdict verdict;
	struct xl_where where;

	if (!ptr)
		return;
	verdict = xl_find(ptr, &where);
	if (verdict == XL_BLOCK) {
		if (!xl_block_fits(&where, alignment, size) && !xl_block_is_loose(&where))
			xl_mismatch(call, ptr, size, &where);
		pthread_mutex_unlock(&where.heap->lock);
	} else if (verdict != XL_INHERITED) {
		xl_misuse(call, ptr, verdict, &where);
	}
}

/* Into @heap, or, without one, into the heap the block is from. */
static void *realloc_block(const char *call, struct xalloc_heap *heap, void *ptr, size_t size)
{
	enum xl_verdict verdict;
	struct xl_where where;
	size_t old_bytes;
	bool fits, stays;
	void *moved;

	size += !size;
	verdict = xl_find(ptr, &where);
	if (verdict == XL_INHERITED) {
		errno = ESTALE;
		return NULL;
	}
	if (verdict != XL_BLOCK)
		xl_misuse(call, ptr, verdict, &where);
	stays = !heap || heap == where.heap;
	if (!heap && !is_default(where.process, where.heap))
		heap = where.heap;
	old_bytes = xl_checks_usable(ptr, &where);
	if (xl_checks)
		xl_checks_resize(call, ptr, &where, stays ? size : SIZE_MAX);
	fits = stays && xl_block_resize(&where, size);
	if (xl_checks && fits)
		xl_checks_resized(ptr, &where, size);
	pthread_mutex_unlock(&where.heap->lock);
	if (fits)
		return ptr;

	moved = heap_alloc(heap, XL_QUANTUM, size, NULL);
	if (moved) {
		memcpy(moved, ptr, size < old_bytes ? size : old_bytes);
		xalloc_free(ptr);
		return moved;
	}
	if (!stays || size > old_bytes)
		return NULL;
	verdict = xl_find(ptr, &where);
	if (verdict != XL_BLOCK)
		xl_misuse(call, ptr, verdict, &where);
	xl_block_set_loose(&where);
	pthread_mutex_unlock(&where.heap->lock);
	return ptr;
}

void *xalloc_calloc(size_t nmemb, size_t size)
{
	return heap_calloc(NULL, nmemb, size);
}

void *xalloc_aligned_alloc(size_t alignment, size_t size)
{
	return xl_default_alloc(alignment, size, NULL);
}

void *xalloc_realloc(void *ptr, size_t size)
{
	return ptr ? realloc_block("xalloc_realloc", NULL, ptr, size) : xalloc_malloc(size);
}

void *xalloc_heap_malloc(struct xalloc_heap *heap, size_t size)
{
	return xl_heap_alloc(heap, XL_QUANTUM, size, NULL);
}

void *xalloc_heap_calloc(struct xalloc_heap *heap, size_t nmemb, size_t size)
{
	return heap_calloc(heap, nmemb, size);
}

void *xalloc_heap_aligned_alloc(struct xalloc_heap *heap, size_t alignment, size_t size)
{
	return xl_heap_alloc(heap, alignment, size, NULL);
}

void *xalloc_heap_realloc(struct xalloc_heap *heap, void *ptr, size_t size)
{
	return ptr ? realloc_block("xalloc_heap_realloc", heap, ptr, size) :
		     xl_heap_alloc(heap, XL_QUANTUM, size, NULL);
}

size_t xalloc_usable_size(const void *ptr)
{
	enum xl_verdict verdict;
	struct xl_where where;
	size_t bytes;

	if (!ptr)
		return 0;
	verdict = xl_find(ptr, &where);
	if (verdict != XL_BLOCK)
		xl_misuse("xalloc_usable_size", ptr, verdict, &where);
	bytes = xl_checks_usable(ptr, &where);
	pthread_mutex_unlock(&where.heap->lock);
	return bytes;
}
