// SPDX-License-Identifier: MIT
/*
 * Heaps: which page a block comes from, and when pages come and go.
 *
 * A heap keeps one page of each class without a used block, so that a program that
 * allocates and frees one block in turns does not call the kernel each time. The default
 * heap also keeps large pages, some of them and for a second. Such pages go
 * back when the kernel refuses an allocation that they could serve: those of the arena, or, when
 * the memory of the user or of the machine ran out, of all arenas. It is then tried again. They
 * also go back when the kernel has said on the arena's status page that it wants memory.
 */
#include <errno.h>

#include "checks.h"
#include "chunk.h"
#include "os.h"
#include "page.h"

static void init_classes(struct xalloc_heap *heap)
{
	unsigned int cls;

	for (cls = 0; cls < XL_NR_CLASSES; cls++) {
		heap->classes[cls] = (struct xl_class_pages){ 0 };
		xl_list_init(&heap->classes[cls].partial);
	}
}

struct xalloc_heap *xl_heap_create(struct xalloc_arena *arena, bool cached)
{
	struct xalloc_heap *heap =
		xl_meta_get(cached ? XL_POOL_CACHED_HEAP : XL_POOL_HEAP, sizeof(*heap));

	if (!heap)
		return NULL;
	/* Not the lock: a stale pointer may be looked up, and then locks it at any time. */
	pthread_mutex_lock(&heap->lock);
	if (!heap->tag)
		heap->tag = cached ? XL_TAG_CACHED : XL_TAG_OWN;
	heap->arena = arena;
	heap->cache = NULL;
	xl_large_init(&heap->large);
	xl_list_init(&heap->pages);
	init_classes(heap);
	atomic_store(&heap->alive, true);
	pthread_mutex_unlock(&heap->lock);
	xl_list_add_before(&arena->heaps, &heap->link);
	return heap;
}

void xl_heap_destroy(struct xalloc_heap *heap)
{
	struct xalloc_range runs[XALLOC_BATCH_MAX];
	struct xl_list *pos;
	uint32_t nr = 0;

	pthread_mutex_lock(&heap->lock);
	atomic_store(&heap->alive, false);
	if (xl_checks)
		xl_checks_heap_gone(heap);
	xl_large_destroy(heap);
	while ((pos = heap->pages.next) != &heap->pages) {
		runs[nr++] = xl_page_detach(heap, xl_entry(pos, struct xl_page, all));
		if (nr == XALLOC_BATCH_MAX) {
			xl_page_free_runs(heap->arena, runs, nr);
			nr = 0;
		}
	}
	xl_page_free_runs(heap->arena, runs, nr);
	pthread_mutex_unlock(&heap->lock);
	xl_list_del(&heap->link);
	xl_meta_put(XL_POOL_HEAP, heap);
}

static void release(struct xalloc_heap *heap, struct xl_page *page)
{
	struct xalloc_range run = xl_page_detach(heap, page);

	xl_page_free_runs(heap->arena, &run, 1);
}

static void release_empty(struct xalloc_heap *heap, unsigned int cls)
{
	struct xl_class_pages *pages = &heap->classes[cls];

	while (pages->nr_empty) {
		/* They were put at the tail. */
		struct xl_page *page = xl_entry(pages->partial.prev, struct xl_page, partial);

		xl_list_del(&page->partial);
		pages->nr_empty--;
		release(heap, page);
	}
}

/* A block came into the free map of a page of @heap, which is locked. */
static void came_back(struct xalloc_heap *heap, struct xl_page *page)
{
	struct xl_class_pages *pages = &heap->classes[page->cls];
	uint32_t nr_blocks = xl_classes[page->cls].nr_blocks;

	pages->nr_taken--;
	if (page->nr_free < nr_blocks) {
		if (page->nr_free == 1)
			xl_list_add_head(&pages->partial, &page->partial);
		return;
	}
	if (nr_blocks > 1)
		xl_list_del(&page->partial);
	if (pages->nr_empty) {
		release(heap, page);
		return;
	}
	/* The tail, so that pages in use fill up before this one is used again. */
	xl_list_add_before(&pages->partial, &page->partial);
	pages->nr_empty++;
}

void xl_heap_trim(struct xl_process *p, struct xalloc_heap *heap)
{
	unsigned int cls;

	pthread_mutex_lock(&heap->lock);
	for (cls = 0; cls < XL_NR_CLASSES; cls++)
		release_empty(heap, cls);
	xl_large_trim(p, heap, true);
	pthread_mutex_unlock(&heap->lock);
}

/* A page of @cls with a free block. */
static int partial_page(struct xalloc_heap *heap, unsigned int cls, struct xl_page **page)
{
	struct xl_class_pages *pages = &heap->classes[cls];
	int ret;

	if (!xl_list_empty(&pages->partial)) {
		*page = xl_entry(pages->partial.next, struct xl_page, partial);
		return 0;
	}
	ret = xl_page_create(heap, cls, 1, 1, page);
	if (ret)
		return ret;
	xl_list_add_head(&pages->partial, &(*page)->partial);
	pages->nr_empty++;
	return 0;
}

/* As xl_heap_take(), of a heap that is locked. */
static uint32_t take_locked(struct xalloc_heap *heap, unsigned int cls, uintptr_t *entries,
			    uint32_t nr, int *error)
{
	struct xl_class_pages *pages = &heap->classes[cls];
	struct xl_page *page;
	uint32_t done = 0;

	*error = 0;
	while (done < nr) {
		/* A new page only for the first block. */
		if (done && xl_list_empty(&pages->partial))
			break;
		*error = partial_page(heap, cls, &page);
		if (*error)
			break;
		if (page->nr_free == xl_classes[cls].nr_blocks)
			pages->nr_empty--;
		done += xl_page_take(page, entries + done, nr - done);
		if (!page->nr_free)
			xl_list_del(&page->partial);
	}
	pages->nr_taken += done;
	return done;
}

uint32_t xl_heap_take(struct xalloc_heap *heap, unsigned int cls, uintptr_t *entries, uint32_t nr,
		      int *error)
{
	xl_os_lock(&heap->lock);
	nr = take_locked(heap, cls, entries, nr, error);
	pthread_mutex_unlock(&heap->lock);
	return nr;
}

/* Of a block that a cache holds. */
static struct xl_page *page_of(uintptr_t entry)
{
	uintptr_t address = xl_address_of(entry);
	uint32_t tag = xl_tag(xl_unit(address));

	if (!(tag & XL_TAG_CACHED) || !xl_is_state(address, tag % XL_TAG_STEP, XL_KEPT))
		return NULL;
	return atomic_load_explicit(&xl_map.page_of[(address - xl_map.base) / XL_SLICE],
				    memory_order_acquire);
}

bool xl_heap_has(const struct xalloc_heap *heap, uintptr_t entry)
{
	struct xl_page *page = page_of(entry);

	return page && atomic_load_explicit(&page->heap, memory_order_relaxed) == heap;
}

/* Puts blocks of the heap of the first one back. Returns the bits in @left of the others. */
static uint64_t put_of_one(const uintptr_t *entries, uint64_t left)
{
	uintptr_t entry = entries[__builtin_ctzll(left)];
	struct xl_page *page = page_of(entry);
	struct xalloc_heap *heap;
	uint64_t todo;

	/* They stay while a block is not in the free map. */
	heap = page ? atomic_load_explicit(&page->heap, memory_order_relaxed) : NULL;
	if (!heap)
		xl_page_raced(NULL, xl_address_of(entry));
	xl_os_lock(&heap->lock);
	for (todo = left; todo; todo &= todo - 1) {
		entry = entries[__builtin_ctzll(todo)];
		page = page_of(entry);
		if (!page)
			xl_page_raced(heap, xl_address_of(entry));
		if (heap != atomic_load_explicit(&page->heap, memory_order_relaxed))
			continue;
		left &= ~(todo & -todo);
		xl_page_put(page, xl_class_divide(page->cls, xl_address_of(entry) -
								     xl_page_address(heap, page)));
		came_back(heap, page);
	}
	pthread_mutex_unlock(&heap->lock);
	return left;
}

void xl_heap_put(const uintptr_t *entries, uint32_t nr)
{
	uint32_t some;
	uint64_t left;

	for (; nr; nr -= some, entries += some) {
		some = nr < 64 ? nr : 64;
		left = some < 64 ? (1ULL << some) - 1 : UINT64_MAX;
		while (left)
			left = put_of_one(entries, left);
	}
}

void xl_heap_recover(struct xalloc_heap *heap)
{
	struct xl_class_pages *pages;
	struct xl_page *page;
	struct xl_list *pos;
	uint32_t nr;

	init_classes(heap);
	for (pos = heap->pages.next; pos != &heap->pages; pos = pos->next) {
		page = xl_entry(pos, struct xl_page, all);
		pages = &heap->classes[page->cls];
		xl_page_recover(page);
		nr = xl_classes[page->cls].nr_blocks;
		pages->nr_taken += nr - page->nr_free;
		if (page->nr_free == nr) {
			xl_list_add_before(&pages->partial, &page->partial);
			pages->nr_empty++;
		} else if (page->nr_free) {
			xl_list_add_head(&pages->partial, &page->partial);
		}
	}
}

/* The address of a new block, or 0 with *@error set to -errno. */
static uintptr_t alloc_locked(struct xl_process *p, struct xalloc_heap *heap, unsigned int cls,
			      size_t alignment, size_t size, bool *zero, int *error)
{
	struct xl_extent *extent;
	uintptr_t entry, address;

	if (cls == XL_CLASS_LARGE) {
		*error = xl_large_alloc(p, heap, alignment, size, &extent);
		if (*error)
			return 0;
		*zero = extent->zero;
		return xl_map.base + extent->first * XL_KPAGE;
	}
	if (!take_locked(heap, cls, &entry, 1, error))
		return 0;
	*zero = entry & XL_FRESH;
	address = xl_address_of(entry);
	xl_set_state(address, cls, XL_LIVE);
	return address;
}

void *xl_heap_alloc(struct xalloc_heap *heap, size_t alignment, size_t size, bool *zero)
{
	struct xl_process *p = xl_process_peek();
	struct xalloc_arena *arena;
	uintptr_t address = 0;
	bool ignored, again, by_hook = false;
	unsigned int cls;
	int error = 0;

	if (!alignment || alignment & (alignment - 1)) {
		errno = EINVAL;
		return NULL;
	}
	if (!size)
		size = 1;
	cls = xl_class_of(alignment, size);
	for (again = false;;) {
		/* In a child of fork() a heap of the parent reads as zero. */
		if (!p || !atomic_load(&heap->alive)) {
			errno = ESTALE;
			return NULL;
		}
		xl_arena_trim_if_wanted(heap->arena, &heap->arena->generation);
		pthread_mutex_lock(&heap->lock);
		arena = heap->arena;
		if (alignment <= arena->alignment_max)
			address = alloc_locked(p, heap, cls, alignment, size,
					       zero ? zero : &ignored, &error);
		else
			error = -EFBIG;
		pthread_mutex_unlock(&heap->lock);
		if (address) {
			address += arena->shift;
			return xl_checks ? xl_checks_alloc(arena, (void *)address, cls, size) :
					   (void *)address;
		}
		if (error == -XL_ADD_CHUNK) {
			error = xl_chunk_add(arena, &by_hook);
			if (!error) {
				again = false;
				continue;
			}
		}
		if (again || by_hook || error == -EFBIG)
			break;
		/* Also when it finds nothing: another thread may just have made the room. */
		xl_arena_trim(arena, error, &arena->generation);
		again = true;
	}
	errno = xl_arena_refused(arena, size, -error, by_hook);
	return NULL;
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

bool xl_block_resize(const struct xl_where *where, size_t size)
{
	if (where->extent && xl_class_of(XL_QUANTUM, size ? size : 1) == XL_CLASS_LARGE)
		return xl_large_resize(where->process, where->heap, where->extent, size);
	return xl_block_fits(where, XL_QUANTUM, size);
}

void xl_block_free(const struct xl_where *where)
{
	if (where->extent) {
		xl_large_free(where->process, where->heap, where->extent);
		return;
	}
	xl_page_put(where->page, where->block);
	came_back(where->heap, where->page);
}

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
		heap = xl_heap_create(arena, false);
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
		xl_heap_destroy(heap);
		ret = 0;
	}
	pthread_mutex_unlock(&p->lock);
	return ret;
}
