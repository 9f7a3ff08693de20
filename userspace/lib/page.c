// SPDX-License-Identifier: MIT
/*
 * Pages: granted runs of slices, and the blocks in them.
 *
 * A page belongs to one heap from xl_page_attach() to xl_page_detach(), and the lock of its bin
 * protects it. At every unlock of that lock, for each page:
 *
 *	nr_free == number of bits set in the free map
 *	the bit of a block is set  <=>  its state is zero
 *	it is not  =>  the page stays, for the block is live, or in a cache or a depot
 *	a slab is on the partial list of its class  <=>  nr_free > 0
 *	page_of[] of each of its slices is the page, tags[] the heap's and the class
 *
 * What has the state XL_KEPT or XL_LIVE is changed without the lock, by whose it is.
 *
 * The memory of blocks is not touched here: nothing in it is needed or believed.
 */
#include <errno.h>
#include <string.h>

#include "backend.h"
#include "os.h"
#include "page.h"
#include "run.h"
#include "shelf.h"
#include "zone.h"

#define MAP_BITS 64

static size_t map_words(uint32_t nr_blocks)
{
	return (nr_blocks + MAP_BITS - 1) / MAP_BITS;
}

uintptr_t xl_page_address(const struct xalloc_heap *heap, const struct xl_page *page)
{
	return heap->arena->base + page->slice * XL_SLICE;
}

uintptr_t xl_block_address(const struct xl_page *page, uint32_t block)
{
	struct xalloc_heap *heap = atomic_load_explicit(&page->heap, memory_order_relaxed);

	return xl_page_address(heap, page) + block * (size_t)xl_classes[page->cls].block_bytes;
}

static void set_map(struct xalloc_heap *heap, struct xl_page *page, struct xl_page *value)
{
	size_t slice = (xl_page_address(heap, page) - xl_map.base) / XL_SLICE;
	uint32_t tag = value ? heap->tag + page->cls : XL_TAG_MAPPED;
	uint32_t i;

	for (i = 0; i < page->nr_slices; i++) {
		atomic_store_explicit(&xl_map.tags[slice + i], tag, memory_order_release);
		atomic_store_explicit(&xl_map.page_of[slice + i], value, memory_order_release);
	}
}

/*
 * Pages are roots, and not whole arenas: where nothing is granted, an arena of the device has no
 * memory, and one of the local backend may have many GiB of zeros.
 */
static void set_root(const struct xalloc_heap *heap, const struct xl_page *page, bool is_root)
{
	uintptr_t address = xl_page_address(heap, page) + heap->arena->shift;

	xl_os_set_root((void *)address, page->nr_slices * XL_SLICE, is_root);
}

/* How many slices of each segment pages have. */
static void count_slices(struct xalloc_arena *arena, const struct xl_page *page, bool more)
{
	uint32_t slice = page->slice, end = slice + page->nr_slices, some;

	if (!arena->segments)
		return;
	for (; slice < end; slice += some) {
		_Atomic uint8_t *count = &arena->segments[slice / XL_SEGMENT_SLICES].nr_slices;

		some = XL_SEGMENT_SLICES - slice % XL_SEGMENT_SLICES;
		if (some > end - slice)
			some = end - slice;
		if (more && !atomic_fetch_add_explicit(count, some, memory_order_relaxed))
			atomic_fetch_add_explicit(&arena->nr_segments, 1, memory_order_relaxed);
		else if (!more &&
			 atomic_fetch_sub_explicit(count, some, memory_order_relaxed) == some)
			atomic_fetch_sub_explicit(&arena->nr_segments, 1, memory_order_relaxed);
	}
}

/* Of what lived when its heap was destroyed. */
static void clear_states(const struct xalloc_heap *heap, const struct xl_page *page)
{
	uintptr_t address = xl_page_address(heap, page);
	uint32_t block;

	if (page->cls == XL_CLASS_LARGE || page->nr_free == xl_classes[page->cls].nr_blocks)
		return;
	for (block = 0; block < xl_classes[page->cls].nr_blocks; block++)
		xl_set_state(address + block * (size_t)xl_classes[page->cls].block_bytes, page->cls,
			     XL_FREE);
}

/*
 * Grants @nr_slices, or more, so that they hold @nr_slices from a multiple of @alignment on.
 * Above a slice of alignment that is a matter of luck, so the exact run is tried first.
 */
static int grant(struct xalloc_arena *arena, size_t alignment, uint64_t tag, uint32_t *nr_slices,
		 struct xl_grant *granted)
{
	size_t first = -arena->base & (alignment - 1);
	size_t more;
	int ret;

	if (first > arena->bytes - *nr_slices * XL_SLICE)
		return -EFBIG;
	ret = xl_run_grant(arena, tag, *nr_slices, granted);
	if (ret || (arena->base + granted->offset) % alignment == 0)
		return ret;
	xl_run_free(arena, *nr_slices, granted);
	more = *nr_slices + alignment / XL_SLICE - 1;
	if (more > arena->bytes / XL_SLICE)
		more = arena->bytes / XL_SLICE; /* starts at 0, so @first is in it */
	*nr_slices = more;
	return xl_run_grant(arena, tag, *nr_slices, granted);
}

/* Takes the page off its shelf, if any. Returns whether @run, which it sets, goes to the kernel. */
static bool leave_shelf(struct xalloc_arena *arena, const struct xl_page *page,
			struct xalloc_range *run)
{
	run->offset = page->slice * XL_SLICE;
	run->bytes = page->nr_slices * XL_SLICE;
	return !page->shelf || xl_shelf_put(arena, page->shelf, run);
}

#define PAGE_BYTES(nr_blocks) (sizeof(struct xl_page) + map_words(nr_blocks) * sizeof(uint64_t))

static void init_large(struct xl_page *page, uint32_t slice, uint32_t nr_slices, bool zero)
{
	page->cls = XL_CLASS_LARGE;
	page->shelf = NULL;
	page->slice = slice;
	page->nr_slices = nr_slices;
	page->nr_free = 0;
	page->zero = zero;
	atomic_store_explicit(&page->loose, false, memory_order_relaxed);
}

int xl_page_grant(struct xalloc_arena *arena, unsigned int cls, size_t alignment, size_t size,
		  struct xl_page **created)
{
	struct xl_class large = { .nr_blocks = 1 };
	const struct xl_class *c = &large;
	struct xl_grant granted;
	struct xl_page *page;
	uint32_t nr_slices;
	int ret;

	if (cls == XL_CLASS_LARGE) {
		if (size > arena->bytes)
			return -EFBIG;
		nr_slices = (size + XL_SLICE - 1) / XL_SLICE;
	} else {
		c = &xl_classes[cls];
		nr_slices = c->nr_slices;
		alignment = XL_SLICE;
	}
	page = xl_meta_get(cls, PAGE_BYTES(c->nr_blocks));
	if (!page)
		return -ENOMEM;
	if (alignment < XL_SLICE)
		alignment = XL_SLICE;
	page->nr_slices = nr_slices;
	page->shelf = NULL;
	if (cls != XL_CLASS_LARGE)
		page->shelf = xl_shelf_take(arena, c->block_bytes, nr_slices, &granted);
	ret = page->shelf ? 0 : grant(arena, alignment, size, &page->nr_slices, &granted);
	if (!ret && cls < XL_NR_TINY) {
		ret = xl_zone_use_tiny(arena, granted.offset);
		if (ret) {
			struct xalloc_range run;

			page->slice = granted.offset / XL_SLICE;
			if (leave_shelf(arena, page, &run))
				xl_runs_free(arena, &run, 1);
			ret = -ENOMEM;
		}
	}
	if (ret) {
		xl_meta_put(cls, page);
		return ret;
	}

	page->cls = cls;
	page->slice = granted.offset / XL_SLICE;
	page->nr_free = c->nr_blocks;
	page->hint = 0;
	memset(page->free_map, 0xff, map_words(c->nr_blocks) * sizeof(uint64_t));
	if (c->nr_blocks % MAP_BITS)
		page->free_map[c->nr_blocks / MAP_BITS] = (1ULL << c->nr_blocks % MAP_BITS) - 1;
	page->nr_old = 0;
	page->zero = granted.zero;
	atomic_store_explicit(&page->loose, false, memory_order_relaxed);
	*created = page;
	return 0;
}

int xl_page_grant_at(struct xalloc_arena *arena, uint64_t offset, uint32_t nr_slices,
		     struct xl_page **created)
{
	struct xl_grant granted = { .offset = offset, .at = true };
	struct xl_page *page = xl_meta_get(XL_CLASS_LARGE, PAGE_BYTES(1));
	int ret;

	if (!page)
		return -ENOMEM;
	ret = arena->backend->grant(arena, nr_slices, nr_slices * XL_SLICE, &granted);
	if (!ret) {
		ret = xl_zone_use(arena, offset, nr_slices * XL_SLICE);
		if (ret)
			xl_run_free(arena, nr_slices, &granted);
	}
	if (ret) {
		xl_meta_put(XL_CLASS_LARGE, page);
		return ret;
	}
	init_large(page, offset / XL_SLICE, nr_slices, granted.zero);
	*created = page;
	return 0;
}

bool xl_page_split(struct xalloc_heap *heap, struct xl_page *page, uint32_t nr_slices)
{
	struct xl_page *second = xl_meta_get(XL_CLASS_LARGE, PAGE_BYTES(1));

	if (!second)
		return false;
	set_root(heap, page, false);
	count_slices(heap->arena, page, false);
	init_large(second, page->slice + nr_slices, page->nr_slices - nr_slices, page->zero);
	page->nr_slices = nr_slices;
	count_slices(heap->arena, page, true);
	set_root(heap, page, true);
	xl_page_attach(heap, second);
	return true;
}

void xl_page_attach(struct xalloc_heap *heap, struct xl_page *page)
{
	atomic_store_explicit(&page->heap, heap, memory_order_relaxed);
	xl_list_add_head(&xl_bin_of(heap, page->cls)->pages, &page->all);
	count_slices(heap->arena, page, true);
	set_map(heap, page, page);
	set_root(heap, page, true);
}

void xl_page_detach(struct xalloc_heap *heap, struct xl_page *page, struct xl_list *gone)
{
	/* In this order: a slice without a tag has no live block. */
	clear_states(heap, page);
	set_map(heap, page, NULL);
	set_root(heap, page, false);
	atomic_store_explicit(&page->heap, NULL, memory_order_relaxed);
	xl_list_del(&page->all);
	count_slices(heap->arena, page, false);
	xl_list_add_head(gone, &page->all);
}

void xl_pages_free(struct xalloc_arena *arena, struct xl_list *gone)
{
	struct xalloc_range runs[XALLOC_BATCH_MAX];
	uint32_t nr = 0;

	while (!xl_list_empty(gone)) {
		struct xl_page *page = xl_entry(gone->next, struct xl_page, all);

		if (leave_shelf(arena, page, &runs[nr]))
			nr++;
		xl_list_del(&page->all);
		xl_meta_put(page->cls, page);
		if (nr == XALLOC_BATCH_MAX || xl_list_empty(gone)) {
			xl_runs_free(arena, runs, nr);
			nr = 0;
		}
	}
}

uintptr_t xl_page_take(struct xl_page *page, uint8_t lane, uintptr_t *entries, uint32_t nr,
		       uint32_t *done)
{
	const struct xl_class *c = &xl_classes[page->cls];
	uint32_t start = lane * c->nr_blocks / XL_NR_LANES, word = start / MAP_BITS, block;
	uintptr_t first = xl_block_address(page, 0), address;
	uint64_t before = (1ULL << start % MAP_BITS) - 1, free;

	while (!page->free_map[page->hint])
		page->hint++;
	if (word < page->hint) {
		word = page->hint;
		before = 0;
	}
	while (*done < nr && page->nr_free) {
		free = page->free_map[word] & ~before;
		for (; free && *done < nr; free &= free - 1) {
			block = word * MAP_BITS + __builtin_ctzll(free);
			address = first + block * (size_t)c->block_bytes;
			/* Whoever frees it late may have written after it was put back. */
			if (!xl_is_free(address, page->cls))
				return address;
			xl_set_state(address, page->cls, XL_KEPT);
			entries[*done] = address + XL_KEPT;
			if (block >= page->nr_old) {
				page->nr_old = block + 1;
				entries[*done] += page->zero ? XL_FRESH : 0;
			}
			++*done;
			page->nr_free--;
			page->free_map[word] &= ~(1ULL << block % MAP_BITS);
		}
		before = 0;
		if (++word == map_words(c->nr_blocks))
			word = page->hint;
	}
	return 0;
}

void xl_page_recover(struct xl_page *page)
{
	const struct xl_class *c = &xl_classes[page->cls];
	uintptr_t address = xl_block_address(page, 0);
	uint32_t block;

	page->nr_free = 0;
	page->hint = 0;
	memset(page->free_map, 0, map_words(c->nr_blocks) * sizeof(uint64_t));
	for (block = 0; block < c->nr_blocks; block++, address += c->block_bytes) {
		if (xl_is_state(address, page->cls, XL_LIVE))
			continue;
		xl_set_state(address, page->cls, XL_FREE);
		page->free_map[block / MAP_BITS] |= 1ULL << block % MAP_BITS;
		page->nr_free++;
	}
}

uintptr_t xl_page_put(struct xl_page *page, uint32_t block)
{
	uint64_t bit = 1ULL << block % MAP_BITS;
	uint32_t word = block / MAP_BITS;

	if (page->free_map[word] & bit)
		return xl_block_address(page, block);
	xl_set_state(xl_block_address(page, block), page->cls, XL_FREE);
	page->free_map[word] |= bit;
	page->nr_free++;
	if (word < page->hint)
		page->hint = word;
	return 0;
}
