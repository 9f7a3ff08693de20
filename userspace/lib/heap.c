// SPDX-License-Identifier: MIT
/*
 * Heaps: which page a block comes from, and when pages come and go.
 *
 * A heap has a bin for each size class, with a lock of its own. A bin keeps one page without a used
 * block, so that a program that allocates and frees one block in turns does not call the kernel
 * each time. Such pages go back when xl_heap_trim() asks for them. The default heap, of whose
 * blocks threads keep some, keeps no such pages.
 *
 * Everything here is one try. malloc.c knows what to do when it fails.
 */
#include <errno.h>

#include "chunk.h"
#include "os.h"
#include "page.h"

/* @nr more blocks, modulo 2^64, that are not in a free map. */
static void count_taken(struct xalloc_heap *heap, unsigned int cls, size_t nr)
{
	xl_bin_of(heap, cls)->nr_taken += nr;
	xl_arena_count(heap->arena, nr * xl_classes[cls].block_bytes);
}

struct xalloc_heap *xl_heap_create(struct xalloc_arena *arena, uint32_t tag)
{
	struct xalloc_heap *heap = xl_meta_get(XL_POOL_HEAP, sizeof(*heap));
	unsigned int cls;

	if (!heap)
		return NULL;
	heap->tag = tag;
	heap->arena = arena;
	for (cls = 0; cls <= XL_CLASS_LARGE; cls++) {
		struct xl_bin *bin = xl_bin_of(heap, cls);

		/* Not the lock: a stale pointer may be looked up, and then locks it at any time. */
		pthread_mutex_lock(&bin->lock);
		bin->nr_empty = 0;
		bin->nr_taken = 0;
		xl_list_init(&bin->pages);
		xl_list_init(&bin->partial);
		if (cls == XL_CLASS_LARGE)
			xl_large_init(&heap->large);
		pthread_mutex_unlock(&bin->lock);
	}
	atomic_store(&heap->alive, true);
	xl_list_add_before(&arena->heaps, &heap->link);
	return heap;
}

void xl_heap_destroy(struct xalloc_heap *heap)
{
	struct xl_list gone, *pos;
	unsigned int cls;

	atomic_store(&heap->alive, false);
	xl_list_init(&gone);
	for (cls = 0; cls <= XL_CLASS_LARGE; cls++) {
		struct xl_bin *bin = xl_bin_of(heap, cls);

		pthread_mutex_lock(&bin->lock);
		if (cls == XL_CLASS_LARGE)
			xl_large_destroy(heap);
		else
			count_taken(heap, cls, -bin->nr_taken);
		while ((pos = bin->pages.next) != &bin->pages)
			xl_page_detach(heap, xl_entry(pos, struct xl_page, all), &gone);
		pthread_mutex_unlock(&bin->lock);
	}
	xl_pages_free(heap->arena, &gone);
	xl_list_del(&heap->link);
	xl_meta_put(XL_POOL_HEAP, heap);
}

/* A block came into the free map of a page. */
static void came_back(struct xalloc_heap *heap, struct xl_page *page, struct xl_list *gone)
{
	struct xl_bin *bin = xl_bin_of(heap, page->cls);
	uint32_t nr_blocks = xl_classes[page->cls].nr_blocks;

	if (page->nr_free < nr_blocks) {
		if (page->nr_free == 1)
			xl_list_add_head(&bin->partial, &page->partial);
		return;
	}
	if (nr_blocks > 1)
		xl_list_del(&page->partial);
	if (bin->nr_empty || heap->tag & XL_TAG_CACHED) {
		xl_page_detach(heap, page, gone);
		return;
	}
	/* The tail, so that pages in use fill up before this one is used again. */
	xl_list_add_before(&bin->partial, &page->partial);
	bin->nr_empty++;
}

void xl_heap_trim(struct xalloc_heap *heap)
{
	struct xl_list gone;
	unsigned int cls;

	xl_list_init(&gone);
	xl_flight_begin(xl_process_peek());
	for (cls = 0; cls <= XL_CLASS_LARGE; cls++) {
		struct xl_bin *bin = xl_bin_of(heap, cls);

		pthread_mutex_lock(&bin->lock);
		for (; bin->nr_empty; bin->nr_empty--) {
			/* They were put at the tail. */
			struct xl_page *page = xl_entry(bin->partial.prev, struct xl_page, partial);

			xl_list_del(&page->partial);
			xl_page_detach(heap, page, &gone);
		}
		if (cls == XL_CLASS_LARGE)
			xl_large_trim(heap, true, &gone);
		pthread_mutex_unlock(&bin->lock);
	}
	xl_pages_free(heap->arena, &gone);
	xl_flight_end(xl_process_peek());
}

/* Takes blocks of pages that are there. Returns 0, or the address that two threads have freed. */
static uintptr_t take_locked(struct xalloc_heap *heap, unsigned int cls, uint8_t lane,
			     uintptr_t *entries, uint32_t nr, uint32_t *done)
{
	struct xl_bin *bin = xl_bin_of(heap, cls);
	uintptr_t raced = 0;

	while (*done < nr && !xl_list_empty(&bin->partial) && !raced) {
		struct xl_page *page = xl_entry(bin->partial.next, struct xl_page, partial);

		if (page->nr_free == xl_classes[cls].nr_blocks)
			bin->nr_empty--;
		raced = xl_page_take(page, lane, entries, nr, done);
		if (!page->nr_free)
			xl_list_del(&page->partial);
	}
	count_taken(heap, cls, *done);
	return raced;
}

static uintptr_t take(struct xalloc_heap *heap, unsigned int cls, uint8_t lane,
		      struct xl_page *granted, uintptr_t *entries, uint32_t nr, uint32_t *done)
{
	struct xl_bin *bin = xl_bin_of(heap, cls);
	uintptr_t raced;

	xl_os_lock(&bin->lock);
	if (granted) {
		xl_page_attach(heap, granted);
		/* Pages in use come first. */
		xl_list_add_before(&bin->partial, &granted->partial);
		bin->nr_empty++;
	}
	raced = take_locked(heap, cls, lane, entries, nr, done);
	pthread_mutex_unlock(&bin->lock);
	return raced;
}

static uint32_t take_medium(struct xalloc_heap *heap, unsigned int cls, uintptr_t *entry,
			    int *error)
{
	bool zero;

	*error = xl_large_alloc(heap, XL_KPAGE, xl_classes[cls].block_bytes, entry, &zero);
	if (*error)
		return 0;
	xl_set_state(*entry, cls, XL_KEPT);
	atomic_store_explicit(xl_medium_of(*entry), cls, memory_order_relaxed);
	*entry += XL_KEPT + (zero ? XL_FRESH : 0);
	return 1;
}

uint32_t xl_heap_take(struct xalloc_heap *heap, unsigned int cls, uint8_t lane, uintptr_t *entries,
		      uint32_t nr, int *error)
{
	struct xl_page *page = NULL;
	uint32_t done = 0;
	uintptr_t raced;

	if (cls > XL_CLASS_LARGE)
		return take_medium(heap, cls, entries, error);
	*error = 0;
	raced = take(heap, cls, lane, NULL, entries, nr, &done);
	if (!raced && !done) {
		xl_flight_begin(xl_process_peek());
		*error = xl_page_grant(heap->arena, cls, 1, 1, &page);
		/* If it was refused another thread may have had the page, and left some of it. */
		raced = take(heap, cls, lane, *error ? NULL : page, entries, nr, &done);
		xl_flight_end(xl_process_peek());
	}
	if (raced) {
		*error = -XL_RACED;
		entries[0] = raced;
		return 0;
	}
	return done;
}

/* Of a block that a cache holds; NULL if that cannot be. */
static struct xl_page *page_of(const struct xalloc_heap *heap, unsigned int cls, uintptr_t entry)
{
	uintptr_t address = xl_address_of(entry);
	struct xl_page *page;

	if (xl_tag(xl_unit(address)) != heap->tag + cls || !xl_is_state(address, cls, XL_KEPT))
		return NULL;
	page = atomic_load_explicit(&xl_map.page_of[(address - xl_map.base) / XL_SLICE],
				    memory_order_acquire);
	/* It stays while a block is not in the free map. */
	if (!page || atomic_load_explicit(&page->heap, memory_order_relaxed) != heap)
		return NULL;
	return page;
}

/* Puts one block back that was taken for a cache. Returns 0, or its address if it is none. */
static uintptr_t put(struct xalloc_heap *heap, unsigned int cls, uintptr_t entry,
		     struct xl_list *gone)
{
	uintptr_t address = xl_address_of(entry);
	struct xl_page *page;

	if (cls > XL_CLASS_LARGE)
		return xl_large_put(heap, address, gone);
	page = page_of(heap, cls, entry);
	if (!page || xl_page_put(page, xl_class_divide(cls, address - xl_page_address(heap, page))))
		return address;
	came_back(heap, page, gone);
	return 0;
}

uintptr_t xl_heap_put(struct xalloc_heap *heap, unsigned int cls, const uintptr_t *entries,
		      uint32_t nr)
{
	bool medium = cls > XL_CLASS_LARGE;
	struct xl_bin *bin = xl_bin_of(heap, medium ? XL_CLASS_LARGE : cls);
	struct xl_list gone;
	uintptr_t raced = 0;
	uint32_t i;

	if (!nr)
		return 0;
	xl_list_init(&gone);
	xl_flight_begin(xl_process_peek());
	xl_os_lock(&bin->lock);
	for (i = 0; i < nr && !raced; i++)
		raced = put(heap, cls, entries[i], &gone);
	if (!medium)
		count_taken(heap, cls, -(size_t)i);
	pthread_mutex_unlock(&bin->lock);
	xl_pages_free(heap->arena, &gone);
	xl_flight_end(xl_process_peek());
	return raced;
}

void xl_heap_recover(struct xalloc_heap *heap)
{
	struct xl_list *pos, gone;
	struct xl_page *page;
	unsigned int cls;
	uint32_t nr;

	for (cls = 0; cls < XL_NR_CLASSES; cls++) {
		struct xl_bin *bin = xl_bin_of(heap, cls);

		bin->nr_empty = 0;
		count_taken(heap, cls, -bin->nr_taken);
		xl_list_init(&bin->partial);
		for (pos = bin->pages.next; pos != &bin->pages; pos = pos->next) {
			page = xl_entry(pos, struct xl_page, all);
			xl_page_recover(page);
			nr = xl_classes[cls].nr_blocks;
			count_taken(heap, cls, nr - page->nr_free);
			if (page->nr_free == nr) {
				xl_list_add_before(&bin->partial, &page->partial);
				bin->nr_empty++;
			} else if (page->nr_free) {
				xl_list_add_head(&bin->partial, &page->partial);
			}
		}
	}
	xl_list_init(&gone);
	xl_large_recover(heap, &gone);
	xl_pages_free(heap->arena, &gone);
}

uintptr_t xl_heap_alloc(struct xalloc_heap *heap, unsigned int cls, size_t alignment, size_t size,
			bool *zero, int *error, uintptr_t *raced)
{
	uintptr_t entry, address;

	if (alignment > heap->arena->alignment_max) {
		*error = -EFBIG;
		return 0;
	}
	if (cls == XL_CLASS_LARGE) {
		*error = xl_large_alloc(heap, alignment, size, &address, zero);
		return *error ? 0 : address;
	}
	if (!xl_heap_take(heap, cls, 0, &entry, 1, error)) {
		*raced = entry;
		return 0;
	}
	*zero = entry & XL_FRESH;
	address = xl_address_of(entry);
	xl_set_state(address, cls, XL_LIVE);
	return address;
}

/* The rest takes a live block that xl_find() found. */

bool xl_block_fits(const struct xl_where *where, size_t alignment, size_t size)
{
	unsigned int cls;

	if (!size)
		size = 1;
	if (!alignment || alignment & (alignment - 1))
		return false;
	cls = xl_class_of(alignment, size);
	if (cls != where->page->cls)
		return false;
	return cls != XL_CLASS_LARGE || xl_large_fits(where->extent, size);
}

size_t xl_block_bytes(const struct xl_where *where)
{
	return where->extent ? where->extent->nr * XL_KPAGE :
			       xl_classes[where->page->cls].block_bytes;
}

bool xl_block_is_loose(const struct xl_where *where)
{
	return where->extent ? where->extent->loose :
			       atomic_load_explicit(&where->page->loose, memory_order_relaxed);
}

void xl_block_set_loose(const struct xl_where *where)
{
	if (where->extent)
		where->extent->loose = true;
	else
		atomic_store_explicit(&where->page->loose, true, memory_order_relaxed);
}

bool xl_block_resize(const struct xl_where *where, size_t size, struct xl_list *gone)
{
	size_t bytes = xl_block_bytes(where);

	if (where->extent && xl_class_of(XL_QUANTUM, size) == XL_CLASS_LARGE)
		return xl_large_resize(where->heap, where->extent, size, gone);
	if (xl_block_fits(where, XL_QUANTUM, size))
		return true;
	/* While more than half of it is used it stays, and a free may name any size. */
	if (size > bytes || size <= bytes / 2)
		return false;
	if (where->extent && !xl_large_resize(where->heap, where->extent, size, gone))
		return false;
	xl_block_set_loose(where);
	return true;
}

uintptr_t xl_block_free(const struct xl_where *where, struct xl_list *gone)
{
	uintptr_t raced;

	if (where->extent) {
		xl_large_free(where->heap, where->extent, gone);
		return 0;
	}
	raced = xl_page_put(where->page, where->block);
	if (!raced) {
		came_back(where->heap, where->page, gone);
		count_taken(where->heap, where->page->cls, -(size_t)1);
	}
	return raced;
}
