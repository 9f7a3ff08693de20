// SPDX-License-Identifier: MIT
/*
 * Heaps: which page a block comes from, and when pages come and go.
 *
 * A heap keeps at most one page of each class without a used block, so that a program that
 * allocates and frees one block in turns does not call the kernel each time. These pages go
 * back when the kernel refuses an allocation that they could serve: those of the arena, or, when
 * the memory of the user or of the machine ran out, of all arenas. It is then tried again.
 */
#include <errno.h>

#include "page.h"

struct xalloc_heap *xl_heap_create(struct xalloc_arena *arena)
{
	struct xalloc_heap *heap = xl_meta_get(XL_POOL_HEAP, sizeof(*heap));
	unsigned int cls;

	if (!heap)
		return NULL;
	/* Not the lock: a stale pointer may be looked up, and then locks it at any time. */
	pthread_mutex_lock(&heap->lock);
	heap->arena = arena;
	heap->nr_blocks = 0;
	heap->used_bytes = 0;
	xl_list_init(&heap->pages);
	for (cls = 0; cls < XL_NR_CLASSES; cls++) {
		xl_list_init(&heap->classes[cls].partial);
		heap->classes[cls].nr_empty = 0;
	}
	atomic_store(&heap->alive, true);
	pthread_mutex_unlock(&heap->lock);
	xl_list_add_before(&arena->heaps, &heap->link);
	return heap;
}

void xl_heap_destroy(struct xl_process *p, struct xalloc_heap *heap)
{
	uint64_t offsets[XALLOC_BATCH_MAX];
	struct xl_list *pos;
	uint32_t nr = 0;

	pthread_mutex_lock(&heap->lock);
	atomic_store(&heap->alive, false);
	while ((pos = heap->pages.next) != &heap->pages) {
		offsets[nr++] = xl_page_detach(p, heap, xl_entry(pos, struct xl_page, all));
		if (nr == XALLOC_BATCH_MAX) {
			xl_page_free_offsets(heap->arena, offsets, nr);
			nr = 0;
		}
	}
	xl_page_free_offsets(heap->arena, offsets, nr);
	pthread_mutex_unlock(&heap->lock);
	xl_list_del(&heap->link);
	xl_meta_put(XL_POOL_HEAP, heap);
}

static void release(struct xl_process *p, struct xalloc_heap *heap, struct xl_page *page)
{
	uint64_t offset = xl_page_detach(p, heap, page);

	xl_page_free_offsets(heap->arena, &offset, 1);
}

void xl_heap_trim(struct xl_process *p, struct xalloc_heap *heap)
{
	unsigned int cls;

	pthread_mutex_lock(&heap->lock);
	for (cls = 0; cls < XL_NR_CLASSES; cls++) {
		struct xl_class_pages *pages = &heap->classes[cls];
		struct xl_page *page;

		if (!pages->nr_empty)
			continue;
		/* It was put at the tail. */
		page = xl_entry(pages->partial.prev, struct xl_page, partial);
		xl_list_del(&page->partial);
		pages->nr_empty = 0;
		release(p, heap, page);
	}
	pthread_mutex_unlock(&heap->lock);
}

/* The address of a new block, or 0 with *@error set to -errno. */
static uintptr_t alloc_locked(struct xl_process *p, struct xalloc_heap *heap, unsigned int cls,
			      size_t alignment, size_t size, bool *zero, int *error)
{
	struct xl_class_pages *pages = NULL;
	struct xl_page *page = NULL;
	uint32_t block;

	if (cls != XL_CLASS_LARGE) {
		pages = &heap->classes[cls];
		if (!xl_list_empty(&pages->partial))
			page = xl_entry(pages->partial.next, struct xl_page, partial);
	}
	if (!page) {
		*error = xl_page_create(p, heap, cls, alignment, size, &page);
		if (*error)
			return 0;
		if (pages)
			xl_list_add_head(&pages->partial, &page->partial);
	} else if (page->nr_free == page->nr_blocks) {
		pages->nr_empty--;
	}
	block = xl_page_take(page, zero);
	if (pages && !page->nr_free)
		xl_list_del(&page->partial);
	heap->nr_blocks++;
	heap->used_bytes += page->block_bytes;
	return xl_page_address(heap, page) + page->first_block + block * page->block_bytes;
}

void *xl_heap_alloc(struct xalloc_heap *heap, size_t alignment, size_t size, bool *zero)
{
	struct xl_process *p = xl_process_peek();
	struct xalloc_arena *arena;
	uintptr_t address = 0;
	bool ignored, again;
	unsigned int cls;
	int error = 0;

	if (!alignment || alignment & (alignment - 1)) {
		errno = EINVAL;
		return NULL;
	}
	if (!size)
		size = 1;
	cls = xl_class_of(alignment, size);
	for (again = false;; again = true) {
		/* In a child of fork() a heap of the parent reads as zero. */
		if (!p || !atomic_load(&heap->alive)) {
			errno = ESTALE;
			return NULL;
		}
		pthread_mutex_lock(&heap->lock);
		arena = heap->arena;
		address =
			alloc_locked(p, heap, cls, alignment, size, zero ? zero : &ignored, &error);
		pthread_mutex_unlock(&heap->lock);
		if (address)
			return (void *)address;
		if (again || error == -EFBIG)
			break;
		/* Also when it finds nothing: another thread may just have made the room. */
		xl_arenas_trim(error == -EDQUOT || error == -ENOSPC ? arena : NULL);
	}
	errno = xl_arena_refused(arena, size, -error);
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
	/* Of a large block, each number of slices is a class. */
	return cls != XL_CLASS_LARGE ||
	       (where->page->block_bytes >= size && where->page->block_bytes - size < XL_SLICE);
}

bool xl_block_is_loose(const struct xl_where *where)
{
	return xl_page_state(where->page, where->block) == XL_USED_LOOSE;
}

void xl_block_set_loose(const struct xl_where *where, bool loose)
{
	xl_page_set_state(where->page, where->block, loose ? XL_USED_LOOSE : XL_USED);
}

void xl_block_free(const struct xl_where *where)
{
	struct xalloc_heap *heap = where->heap;
	struct xl_page *page = where->page;
	struct xl_class_pages *pages;

	xl_page_put(page, where->block);
	heap->nr_blocks--;
	heap->used_bytes -= page->block_bytes;
	if (page->cls == XL_CLASS_LARGE) {
		release(where->process, heap, page);
		return;
	}
	pages = &heap->classes[page->cls];
	if (page->nr_free > 1)
		xl_list_del(&page->partial);
	if (page->nr_free < page->nr_blocks) {
		xl_list_add_head(&pages->partial, &page->partial);
	} else if (!pages->nr_empty) {
		/* The tail, so that pages in use fill up before this one is used again. */
		xl_list_add_before(&pages->partial, &page->partial);
		pages->nr_empty = 1;
	} else {
		release(where->process, heap, page);
	}
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
		heap = xl_heap_create(arena);
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
		xl_heap_destroy(p, heap);
		ret = 0;
	}
	pthread_mutex_unlock(&p->lock);
	return ret;
}
