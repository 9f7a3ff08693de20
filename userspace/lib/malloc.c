// SPDX-License-Identifier: MIT
/* The calls on blocks, of the default heap and of others, and what is done when a try fails. */
#include <errno.h>
#include <string.h>

#include "cache.h"
#include "checks.h"
#include "chunk.h"
#include "misuse.h"

#define noinline __attribute__((noinline))

/* --- giving out */

static noinline void *give_out_slow(uintptr_t entry, unsigned int cls)
{
	void *ptr = (void *)xl_address_of(entry);

	if (!(entry & XL_FRESH) || !xl_make_live(entry - XL_FRESH, cls))
		xl_free_raced(ptr);
	return ptr;
}

/* What was in a stack. */
static inline void *give_out(uintptr_t entry, unsigned int cls)
{
	if (unlikely(!xl_make_live(entry, cls)))
		return give_out_slow(entry, cls);
	return (void *)(entry - XL_KEPT);
}

static inline void *give_out_medium(uintptr_t entry, unsigned int cls, unsigned int asked)
{
	void *ptr = give_out(entry, cls);

	atomic_store_explicit(xl_asked_of((uintptr_t)ptr), asked, memory_order_relaxed);
	return ptr;
}

/* One try, with the cache of this thread. As xl_heap_alloc(). */
static uintptr_t try_cache(struct xl_cache *c, unsigned int cls, bool *zero, int *error,
			   uintptr_t *raced)
{
	uintptr_t entry = xl_cache_pop(c, cls);

	if (!entry)
		entry = xl_cache_refill(c, cls, error, raced);
	*zero = entry & XL_FRESH;
	if (!entry)
		return 0;
	return (uintptr_t)(cls > XL_CLASS_LARGE ? give_out_medium(entry, cls, cls) :
						  give_out(entry, cls));
}

/* The cache from which blocks of *@cls in @heap are had, or NULL. A large one may become medium. */
static struct xl_cache *cache_for(const struct xalloc_heap *heap, size_t alignment, size_t size,
				  unsigned int *cls)
{
	struct xl_cache *c;

	if (!(heap->tag & XL_TAG_CACHED) ||
	    (*cls == XL_CLASS_LARGE && (alignment > XL_KPAGE || !xl_is_medium(size))))
		return NULL;
	c = likely(xl_cache->heap) ? xl_cache : xl_cache_start();
	if (c && *cls == XL_CLASS_LARGE)
		*cls = xl_medium_class_of(size);
	return c;
}

void *xl_alloc(struct xalloc_heap *heap, size_t alignment, size_t size, bool *zero)
{
	bool ignored, again = false, exact = false, by_hook = false;
	uintptr_t address, raced = 0;
	struct xalloc_arena *arena;
	struct xl_cache *c;
	unsigned int cls;
	int error = 0;

	if (!alignment || alignment & (alignment - 1)) {
		errno = EINVAL;
		return NULL;
	}
	/* In the first call there are neither options nor size classes yet. */
	if (!heap) {
		heap = likely(xl_cache->heap) ? xl_cache->heap : xl_heap_default();
		if (!heap)
			return NULL;
	}
	size += !size;
	for (;;) {
		/* In a child of fork() a heap of the parent reads as zero. */
		if (!xl_process_peek() || !atomic_load(&heap->alive)) {
			errno = ESTALE;
			return NULL;
		}
		arena = heap->arena;
		cls = xl_class_of(alignment, size);
		c = exact ? NULL : cache_for(heap, alignment, size, &cls);
		xl_arena_trim_if_wanted(arena, c ? &c->generation : &arena->generation);
		if (c)
			address = try_cache(c, cls, zero ? zero : &ignored, &error, &raced);
		else
			address = xl_heap_alloc(heap, cls, alignment, size, zero ? zero : &ignored,
						&error, &raced);
		if (likely(address)) {
			address += arena->shift;
			return xl_checks ? xl_checks_alloc(arena, (void *)address, cls, size) :
					   (void *)address;
		}
		if (error == -XL_RACED)
			xl_free_raced((void *)raced);
		if (error == -XL_ADD_CHUNK) {
			error = xl_chunk_add(arena, &by_hook);
			if (!error) {
				again = false;
				continue;
			}
		}
		if (by_hook || error == -EFBIG)
			break;
		/* There may be room for as much as was asked for, if not for a medium block. */
		if (again && cls > XL_CLASS_LARGE) {
			exact = true;
			continue;
		}
		if (again)
			break;
		/* Also when it finds nothing: another thread may just have made the room. */
		xl_arena_trim(arena, error, c ? &c->generation : &arena->generation);
		again = true;
	}
	errno = xl_arena_refused(arena, size, -error, by_hook);
	return NULL;
}

/* More than a slice. */
static noinline void *malloc_large(size_t size)
{
	unsigned int asked, cls;
	uintptr_t entry = 0;

	if (xl_is_medium(size)) {
		asked = xl_medium_class_of(size);
		cls = asked;
		entry = xl_cache_pop(xl_cache, cls);
		if (!entry && cls + XL_MEDIUM_ABOVE < XL_NR_CACHED) {
			cls += XL_MEDIUM_ABOVE;
			entry = xl_cache_pop(xl_cache, cls);
		}
		if (entry)
			return give_out_medium(entry, cls, asked);
	}
	return xl_alloc(NULL, XL_QUANTUM, size, NULL);
}

void *xalloc_malloc(size_t size)
{
	unsigned int cls;
	uintptr_t entry;

	if (unlikely(size > XL_SLICE))
		return malloc_large(size);
	cls = xl_class_of_size[(size + XL_QUANTUM - 1) / XL_QUANTUM];
	entry = xl_cache_pop(xl_cache, cls);
	return likely(entry) ? give_out(entry, cls) : xl_alloc(NULL, XL_QUANTUM, size, NULL);
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
	ptr = xl_alloc(heap, XL_QUANTUM, bytes, &zero);
	if (ptr && !zero)
		memset(ptr, 0, bytes);
	return ptr;
}

/* --- freeing */

/* As xl_find(), for a call that may take pages out of their heap. */
static enum xl_verdict find_to_change(const void *ptr, struct xl_where *where)
{
	struct xl_process *p = xl_process_peek();
	/* For other addresses xl_find() takes lock 1, which comes first; adopted memory stays. */
	bool flies = p && (uintptr_t)ptr - xl_map.base < xl_map.bytes;
	enum xl_verdict verdict;

	xl_meta_ready(0);
	if (flies)
		xl_flight_begin(p);
	verdict = xl_find(ptr, where);
	where->flies = flies;
	return verdict;
}

/* A block that no cache takes; aborts when it is none. */
static void free_locked(const char *call, void *ptr)
{
	enum xl_verdict verdict;
	struct xl_where where;
	struct xl_list gone;
	int error = errno;
	uintptr_t raced;

	verdict = find_to_change(ptr, &where);
	/* Given out again since it was seen to be free. */
	if (verdict == XL_BLOCK && where.heap->tag & XL_TAG_CACHED &&
	    (!where.extent || *xl_medium_of((uintptr_t)ptr)))
		verdict = XL_FREED;
	if (verdict == XL_BLOCK) {
		struct xalloc_arena *arena = where.heap->arena;

		if (xl_checks)
			xl_checks_free(call, ptr, &where);
		xl_list_init(&gone);
		raced = xl_block_free(&where, &gone);
		xl_where_unlock(&where);
		xl_pages_free(arena, &gone);
		if (where.flies)
			xl_flight_end(where.process);
		if (raced)
			xl_free_raced(ptr);
		xl_cache_look(where.process);
	} else if (verdict != XL_INHERITED) {
		xl_misuse(call, ptr, verdict, &where);
	}
	errno = error;
}

/* Returns whether it was a medium block, which is in a cache now. Its slice has a tag. */
static bool free_medium(void *ptr)
{
	uintptr_t entry = (uintptr_t)ptr + XL_KEPT;
	unsigned int cls = atomic_load_explicit(xl_medium_of((uintptr_t)ptr), memory_order_relaxed);

	if (cls <= XL_CLASS_LARGE || cls >= XL_NR_CACHED || !xl_make_kept(entry, cls))
		return false;
	if (unlikely(!xl_cache_push(xl_cache, cls, entry)))
		xl_cache_push_slow(cls, entry);
	return true;
}

static noinline void free_slow(const char *call, void *ptr, uint32_t cls)
{
	if (ptr && (cls != XL_CLASS_LARGE || (uintptr_t)ptr % XL_KPAGE || !free_medium(ptr)))
		free_locked(call, ptr);
}

static inline __attribute__((always_inline)) void free_block(const char *call, void *ptr)
{
	uintptr_t offset = (uintptr_t)ptr - xl_map.base;
	/* What is no multiple of the quantum becomes more than any unit. */
	size_t unit = offset / XL_QUANTUM | offset << 60;
	uintptr_t entry = (uintptr_t)ptr + XL_KEPT;
	uint32_t cls;

	if (unlikely(!xl_has_tag(unit))) {
		free_slow(call, ptr, XL_NR_CLASSES + 1);
		return;
	}
	cls = xl_tag(unit) - XL_TAG_CACHED;
	if (unlikely(cls >= XL_NR_CLASSES) || unlikely(!xl_make_kept(entry, cls))) {
		free_slow(call, ptr, cls);
		return;
	}
	if (unlikely(!xl_cache_push(xl_cache, cls, entry)))
		xl_cache_push_slow(cls, entry);
}

void xalloc_free(void *ptr)
{
	free_block("xalloc_free", ptr);
}

/* Aborts when @ptr is a block, but of another size. */
static void check_size(const char *call, void *ptr, size_t alignment, size_t size)
{
	enum xl_verdict verdict;
	struct xl_where where;

	if (!ptr)
		return;
	verdict = xl_find(ptr, &where);
	if (verdict == XL_BLOCK) {
		if (!xl_block_fits(&where, alignment, size) && !xl_block_is_loose(&where))
			xl_mismatch(call, ptr, size, &where);
		xl_where_unlock(&where);
	} else if (verdict != XL_INHERITED) {
		xl_misuse(call, ptr, verdict, &where);
	}
}

static void free_sized(const char *call, void *ptr, size_t alignment, size_t size)
{
	size_t unit = xl_unit((uintptr_t)ptr);
	uint32_t cls = XL_CLASS_LARGE;

	if (xl_has_tag(unit))
		cls = xl_tag(unit) % XL_TAG_STEP;
	if (unlikely(cls == XL_CLASS_LARGE || !alignment || alignment & (alignment - 1) ||
		     cls != xl_class_of(alignment, size ? size : 1)))
		check_size(call, ptr, alignment, size);
	free_block(call, ptr);
}

void xalloc_free_sized(void *ptr, size_t size)
{
	free_sized("xalloc_free_sized", ptr, XL_QUANTUM, size);
}

void xalloc_free_aligned_sized(void *ptr, size_t alignment, size_t size)
{
	free_sized("xalloc_free_aligned_sized", ptr, alignment, size);
}

/* --- resizing */

/*
 * Makes a large block longer by memory behind it, if that can be had: nothing is copied then, and
 * there need not be memory for two blocks. Returns whether it was done.
 */
static bool extend(struct xalloc_heap *heap, uintptr_t address, size_t size)
{
	struct xalloc_arena *arena = heap->arena;
	int ret = xl_large_extend(heap, address, size);

	if (!ret || ret == -EEXIST || ret == -EBUSY || ret == -EFBIG || ret == -EOPNOTSUPP)
		return !ret;
	xl_arena_trim(arena, ret, &arena->generation);
	return !xl_large_extend(heap, address, size);
}

/* Allocates a block into which one is copied that cannot stay where it is. */
static void *alloc_moved(struct xalloc_heap *heap, bool is_large, size_t old_bytes, size_t size)
{
	struct xalloc_heap *from = heap ? heap : xl_heap_default();
	uintptr_t address;

	/* One that has grown grows again, it is assumed. */
	if (is_large && size > old_bytes && !xl_checks && !xl_large_alloc_far(from, size, &address))
		return (void *)(address + from->arena->shift);
	/* A medium block seldom has free memory behind it. With this alignment it is none. */
	return xl_alloc(heap, size > old_bytes && size > XL_SLICE ? 2 * XL_KPAGE : XL_QUANTUM, size,
			NULL);
}

/* Into @heap, or, without one, into the heap the block is from. */
static void *realloc_block(const char *call, struct xalloc_heap *heap, void *ptr, size_t size)
{
	bool fits, stays, is_large;
	struct xalloc_arena *arena;
	enum xl_verdict verdict;
	struct xl_where where;
	struct xl_list gone;
	size_t old_bytes;
	void *moved;

	size += !size;
	verdict = find_to_change(ptr, &where);
	if (verdict == XL_INHERITED) {
		errno = ESTALE;
		return NULL;
	}
	if (verdict != XL_BLOCK)
		xl_misuse(call, ptr, verdict, &where);
	stays = !heap || heap == where.heap;
	if (!heap && !xl_heap_is_default(where.process, where.heap))
		heap = where.heap;
	arena = where.heap->arena;
	is_large = where.extent && xl_class_of(XL_QUANTUM, size) == XL_CLASS_LARGE;
	old_bytes = xl_checks_usable(ptr, &where);
	if (xl_checks)
		xl_checks_resize(call, ptr, &where, stays ? size : SIZE_MAX);
	xl_list_init(&gone);
	fits = stays && xl_block_resize(&where, size, &gone);
	if (xl_checks && fits)
		xl_checks_resized(ptr, &where, size);
	xl_where_unlock(&where);
	xl_pages_free(arena, &gone);
	if (where.flies)
		xl_flight_end(where.process);
	if (fits)
		return ptr;
	if (stays && is_large && size > old_bytes && !xl_checks &&
	    extend(where.heap, (uintptr_t)ptr - arena->shift, size))
		return ptr;

	moved = alloc_moved(heap, stays && is_large, old_bytes, size);
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
	xl_where_unlock(&where);
	return ptr;
}

/*
 * The size class of a live block of the default heap, found without a lock; or XL_CLASS_LARGE,
 * which says nothing.
 */
static inline unsigned int class_of_live(const void *ptr)
{
	uintptr_t offset = (uintptr_t)ptr - xl_map.base;
	size_t unit = offset / XL_QUANTUM | offset << 60;
	uint32_t cls;

	if (!xl_has_tag(unit))
		return XL_CLASS_LARGE;
	cls = xl_tag(unit) - XL_TAG_CACHED;
	if (cls >= XL_NR_CLASSES || !xl_is_state((uintptr_t)ptr, cls, XL_LIVE))
		return XL_CLASS_LARGE;
	return cls;
}

/*
 * Whether a block of @cls can be one of @size where it is: of its class, or of more than half its
 * size. Then a free may name any size.
 */
static inline bool stays_in_class(const void *ptr, unsigned int cls, size_t size)
{
	size_t bytes = xl_classes[cls].block_bytes;

	if (size > bytes || size <= bytes / 2)
		return size <= bytes && xl_class_of(XL_QUANTUM, size + !size) == cls;
	if (xl_class_of(XL_QUANTUM, size) != cls)
		atomic_store_explicit(&xl_map.page_of[xl_unit((uintptr_t)ptr) /
						      (XL_SLICE / XL_QUANTUM)]
					       ->loose,
				      true, memory_order_relaxed);
	return true;
}

void *xalloc_calloc(size_t nmemb, size_t size)
{
	return heap_calloc(NULL, nmemb, size);
}

void *xalloc_aligned_alloc(size_t alignment, size_t size)
{
	return xl_alloc(NULL, alignment, size, NULL);
}

void *xalloc_realloc(void *ptr, size_t size)
{
	unsigned int cls;

	if (!ptr)
		return xalloc_malloc(size);
	cls = class_of_live(ptr);
	if (cls != XL_CLASS_LARGE && stays_in_class(ptr, cls, size))
		return ptr;
	return realloc_block("xalloc_realloc", NULL, ptr, size);
}

void *xalloc_heap_malloc(struct xalloc_heap *heap, size_t size)
{
	return xl_alloc(heap, XL_QUANTUM, size, NULL);
}

void *xalloc_heap_calloc(struct xalloc_heap *heap, size_t nmemb, size_t size)
{
	return heap_calloc(heap, nmemb, size);
}

void *xalloc_heap_aligned_alloc(struct xalloc_heap *heap, size_t alignment, size_t size)
{
	return xl_alloc(heap, alignment, size, NULL);
}

void *xalloc_heap_realloc(struct xalloc_heap *heap, void *ptr, size_t size)
{
	return ptr ? realloc_block("xalloc_heap_realloc", heap, ptr, size) :
		     xl_alloc(heap, XL_QUANTUM, size, NULL);
}

size_t xalloc_usable_size(const void *ptr)
{
	enum xl_verdict verdict;
	struct xl_where where;
	unsigned int cls;
	size_t bytes;

	if (!ptr)
		return 0;
	cls = class_of_live(ptr);
	if (cls != XL_CLASS_LARGE)
		return xl_classes[cls].block_bytes;
	verdict = xl_find(ptr, &where);
	if (verdict != XL_BLOCK)
		xl_misuse("xalloc_usable_size", ptr, verdict, &where);
	bytes = xl_checks_usable(ptr, &where);
	xl_where_unlock(&where);
	return bytes;
}

/* --- heaps */

struct xalloc_heap *xalloc_heap_create(struct xalloc_arena *arena)
{
	struct xl_process *p = xl_process_peek();
	struct xalloc_heap *heap = NULL;

	if (!p) {
		errno = ESTALE;
		return NULL;
	}
	pthread_mutex_lock(&p->lock);
	if (atomic_load(&arena->alive))
		heap = xl_heap_create(arena, XL_TAG_OWN);
	else
		errno = ESTALE;
	pthread_mutex_unlock(&p->lock);
	return heap;
}

int xalloc_heap_destroy(struct xalloc_heap *heap)
{
	struct xl_process *p = xl_process_peek();
	int ret = -ESTALE;

	if (!p)
		return ret;
	pthread_mutex_lock(&p->lock);
	if (atomic_load(&heap->alive)) {
		if (xl_checks)
			xl_checks_heap_gone(heap);
		xl_heap_destroy(heap);
		ret = 0;
	}
	pthread_mutex_unlock(&p->lock);
	return ret;
}
