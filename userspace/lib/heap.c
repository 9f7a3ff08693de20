// SPDX-License-Identifier: MIT
/*
 * Heaps: which page a block comes from, and when pages come and go.
 *
 * A heap keeps one page of each class without a used block, so that a program that
 * allocates and frees one block in turns does not call the kernel each time. Of a heap that a
 * thread has, only this thread releases pages: it may be about to look at their bits. The default
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

#define NR_SPINS 200

/* Who holds the lock of a heap mostly lets it go sooner than a sleeper would wake up. */
void xl_heap_lock(struct xalloc_heap *heap)
{
	int i;

	for (i = 0; i < NR_SPINS; i++) {
		if (!pthread_mutex_trylock(&heap->lock))
			return;
		__builtin_ia32_pause();
	}
	pthread_mutex_lock(&heap->lock);
}

static void init_classes(struct xalloc_heap *heap)
{
	unsigned int cls;

	heap->nr_remote = 0;
	for (cls = 0; cls < XL_NR_CLASSES; cls++) {
		heap->classes[cls] = (struct xl_class_pages){ 0 };
		xl_list_init(&heap->classes[cls].partial);
		xl_list_init(&heap->classes[cls].remote);
	}
}

struct xalloc_heap *xl_heap_create(struct xl_process *p, struct xalloc_arena *arena, bool cached)
{
	struct xalloc_heap *heap =
		xl_meta_get(cached ? XL_POOL_CACHED_HEAP : XL_POOL_HEAP, sizeof(*heap));

	if (!heap)
		return NULL;
	/* Not the lock: a stale pointer may be looked up, and then locks it at any time. */
	pthread_mutex_lock(&heap->lock);
	if (!heap->tag)
		heap->tag = ++p->nr_heaps * XL_TAG_STEP | (cached ? XL_TAG_CACHED : 0);
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

void xl_heap_destroy(struct xl_process *p, struct xalloc_heap *heap)
{
	uint64_t offsets[XALLOC_BATCH_MAX];
	struct xl_list *pos;
	uint32_t nr = 0;

	pthread_mutex_lock(&heap->lock);
	atomic_store(&heap->alive, false);
	xl_large_destroy(heap);
	while ((pos = heap->pages.next) != &heap->pages) {
		if (xl_checks)
			xl_checks_page_gone(heap, xl_entry(pos, struct xl_page, all));
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

/* Takes the page off its list of those with blocks that other threads freed. */
static void clear_remote(struct xalloc_heap *heap, struct xl_page *page)
{
	/* A full barrier: what others free later they tell again, what before will be seen. */
	if (!atomic_exchange(&page->is_remote, false))
		return;
	xl_list_del(&page->remote);
	heap->nr_remote--;
}

static void release(struct xl_process *p, struct xalloc_heap *heap, struct xl_page *page)
{
	uint64_t offset;

	clear_remote(heap, page);
	offset = xl_page_detach(p, heap, page);
	xl_page_free_offsets(heap->arena, &offset, 1);
}

static void release_empty(struct xl_process *p, struct xalloc_heap *heap, unsigned int cls)
{
	struct xl_class_pages *pages = &heap->classes[cls];

	while (pages->nr_empty) {
		/* They were put at the tail. */
		struct xl_page *page = xl_entry(pages->partial.prev, struct xl_page, partial);

		xl_list_del(&page->partial);
		pages->nr_empty--;
		release(p, heap, page);
	}
}

/* Of a page of @heap, which is locked, @nr blocks came into its free map. */
static void came_back(struct xl_process *p, struct xalloc_heap *heap, struct xl_page *page,
		      uint32_t nr)
{
	struct xl_class_pages *pages = &heap->classes[page->cls];

	pages->nr_taken -= nr;
	if (page->nr_free > nr)
		xl_list_del(&page->partial);
	if (page->nr_free < xl_classes[page->cls].nr_blocks) {
		xl_list_add_head(&pages->partial, &page->partial);
	} else if (!pages->nr_empty) {
		/* The tail, so that pages in use fill up before this one is used again. */
		xl_list_add_before(&pages->partial, &page->partial);
		pages->nr_empty++;
	} else {
		release(p, heap, page);
	}
}

/*
 * Takes back what other threads freed in the page that was noted first, by the thread that has the
 * heap, or any if none has it. Returns whether there was such a page.
 */
static bool collect(struct xl_process *p, struct xalloc_heap *heap, unsigned int cls)
{
	struct xl_list *head = &heap->classes[cls].remote;
	struct xl_page *page;
	uint32_t nr;

	if (xl_list_empty(head))
		return false;
	page = xl_entry(head->next, struct xl_page, remote);
	clear_remote(heap, page);
	nr = xl_page_collect(page);
	if (nr)
		came_back(p, heap, page, nr);
	return true;
}

void xl_heap_trim(struct xl_process *p, struct xalloc_heap *heap)
{
	unsigned int cls;

	pthread_mutex_lock(&heap->lock);
	if (xl_cache_is_own(heap))
		for (cls = 0; cls < XL_NR_CLASSES; cls++) {
			while (collect(p, heap, cls))
				;
			release_empty(p, heap, cls);
		}
	xl_large_trim(p, heap, true);
	pthread_mutex_unlock(&heap->lock);
}

/* A page of @cls with a free block. */
static int partial_page(struct xl_process *p, struct xalloc_heap *heap, unsigned int cls,
			struct xl_page **page)
{
	struct xl_class_pages *pages = &heap->classes[cls];
	int ret;

	while (xl_list_empty(&pages->partial) && collect(p, heap, cls))
		;
	if (!xl_list_empty(&pages->partial)) {
		*page = xl_entry(pages->partial.next, struct xl_page, partial);
		return 0;
	}
	ret = xl_page_create(p, heap, cls, 1, 1, page);
	if (ret)
		return ret;
	xl_list_add_head(&pages->partial, &(*page)->partial);
	pages->nr_empty++;
	return 0;
}

/* As xl_heap_take(), of a heap that is locked. */
static uint32_t take_locked(struct xl_process *p, struct xalloc_heap *heap, unsigned int cls,
			    uintptr_t *entries, uint32_t nr, int *error)
{
	struct xl_class_pages *pages = &heap->classes[cls];
	struct xl_page *page;
	uint32_t done = 0;

	*error = 0;
	while (done < nr) {
		/* A new page only for the first block. */
		if (done && xl_list_empty(&pages->partial) && xl_list_empty(&pages->remote))
			break;
		*error = partial_page(p, heap, cls, &page);
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

uint32_t xl_heap_take(struct xl_process *p, struct xalloc_heap *heap, unsigned int cls,
		      uintptr_t *entries, uint32_t nr, int *error)
{
	xl_heap_lock(heap);
	nr = take_locked(p, heap, cls, entries, nr, error);
	pthread_mutex_unlock(&heap->lock);
	return nr;
}

void xl_heap_put(struct xl_process *p, struct xalloc_heap *heap, const uintptr_t *entries,
		 uint32_t nr)
{
	struct xl_page *page;
	uintptr_t address;
	uint32_t i;

	xl_heap_lock(heap);
	for (i = 0; i < nr; i++) {
		address = entries[i] & ~(uintptr_t)XL_FRESH;
		/* A page with a block that is not in its free map stays. */
		page = atomic_load_explicit(&xl_map.page_of[(address - p->base) / XL_SLICE],
					    memory_order_relaxed);
		xl_page_put(page,
			    xl_class_divide(page->cls, address - xl_page_address(heap, page)));
		came_back(p, heap, page, 1);
	}
	pthread_mutex_unlock(&heap->lock);
}

bool xl_heap_took_back(size_t unit)
{
	struct xl_bits *bits = xl_bits_of(unit);
	struct xalloc_heap *heap;
	struct xl_page *page = xl_page_lock(unit / XL_UNITS_PER_SLICE, &heap);
	uint64_t twice = atomic_load(&bits->remote) & ~atomic_load(&bits->live);

	if (page)
		pthread_mutex_unlock(&heap->lock);
	return !(twice >> unit % 64 & 1);
}

void xl_heap_note_remote(size_t unit)
{
	struct xalloc_heap *heap;
	struct xl_page *page = xl_page_lock(unit / XL_UNITS_PER_SLICE, &heap);

	if (!page)
		return;
	/* A page that came since may be told for nothing, but it is one of this heap. */
	if (page->cls != XL_CLASS_LARGE && !atomic_exchange(&page->is_remote, true)) {
		/* The longer a page waits, the more comes back with it. */
		xl_list_add_before(&heap->classes[page->cls].remote, &page->remote);
		heap->nr_remote++;
	}
	pthread_mutex_unlock(&heap->lock);
}

uint32_t xl_heap_count_remote(const struct xalloc_heap *heap, unsigned int cls)
{
	const struct xl_list *head = &heap->classes[cls].remote, *pos;
	uint32_t nr = 0;

	for (pos = head->next; pos != head; pos = pos->next)
		nr += xl_page_count_remote(xl_entry(pos, struct xl_page, remote));
	return nr;
}

void xl_heap_settle(struct xl_process *p, struct xalloc_heap *heap)
{
	unsigned int cls;

	xl_heap_lock(heap);
	for (cls = 0; heap->nr_remote && cls < XL_NR_CLASSES; cls++)
		if (heap->cache)
			xl_heap_count_remote(heap, cls);
		else
			while (collect(p, heap, cls))
				;
	pthread_mutex_unlock(&heap->lock);
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
	uintptr_t entry = 0;

	if (cls == XL_CLASS_LARGE) {
		*error = xl_large_alloc(p, heap, alignment, size, &extent);
		if (*error)
			return 0;
		*zero = extent->zero;
		return xl_map.base + extent->first * XL_KPAGE;
	}
	if (!take_locked(p, heap, cls, &entry, 1, error))
		return 0;
	*zero = entry & XL_FRESH;
	entry &= ~(uintptr_t)XL_FRESH;
	xl_set_live(xl_unit(entry), true);
	return entry;
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
			error = xl_chunk_add(arena);
			if (!error) {
				again = false;
				continue;
			}
		}
		if (again || error == -EFBIG)
			break;
		/* Also when it finds nothing: another thread may just have made the room. */
		xl_arena_trim(arena, error, &arena->generation);
		again = true;
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
	xl_set_live(xl_page_unit(where->page, where->block), false);
	xl_page_put(where->page, where->block);
	came_back(where->process, where->heap, where->page, 1);
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
		heap = xl_heap_create(p, arena, false);
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
