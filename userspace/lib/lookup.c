// SPDX-License-Identifier: MIT
/*
 * From a pointer to its block: one subtraction, one table, and the state of the block.
 *
 * Whatever is not the start of a live block is told apart here. Only one misuse cannot be seen: a
 * second free of an address that was given out again in between.
 */
#include "page.h"
#include "zone.h"

struct xl_page *xl_page_lock(size_t slice, struct xalloc_heap **heap)
{
	struct xl_page *page;
	struct xl_bin *bin;

	for (;;) {
		page = xl_zone_page(slice);
		if (!page)
			return NULL;
		*heap = atomic_load_explicit(&page->heap, memory_order_relaxed);
		if (!*heap)
			continue;
		bin = xl_bin_of(*heap, page->cls);
		xl_os_lock(&bin->lock);
		/* Released, and perhaps granted again, before the lock was had? */
		if (xl_zone_page(slice) == page &&
		    atomic_load_explicit(&page->heap, memory_order_relaxed) == *heap)
			return page;
		pthread_mutex_unlock(&bin->lock);
	}
}

enum xl_verdict xl_find(const void *ptr, struct xl_where *where)
{
	struct xl_process *p = xl_process_peek();
	uintptr_t address = xl_inside((uintptr_t)ptr);
	const struct xl_class *c;
	bool is_free;
	size_t inside;

	*where = (struct xl_where){ .process = p };
	if (!p || address - xl_map.base >= xl_map.bytes)
		return xl_inherited(address) ? XL_INHERITED : XL_FOREIGN;
	where->page = xl_page_lock((address - xl_map.base) / XL_SLICE, &where->heap);
	if (!where->page)
		return XL_NO_PAGE;
	/* Where adopted memory is accounted for there is none. */
	if (address + where->heap->arena->shift != (uintptr_t)ptr) {
		xl_where_unlock(where);
		return XL_NO_PAGE;
	}

	if (where->page->cls == XL_CLASS_LARGE) {
		where->extent = xl_large_find(where->heap, address);
		if (!where->extent)
			return XL_NO_BLOCK;
		where->inside = address - xl_map.base - where->extent->first * XL_KPAGE;
		if (xl_large_is_live(where->extent))
			return where->inside ? XL_INTERIOR : XL_BLOCK;
		/* What was free before has been merged with it. */
		if (!where->extent->used)
			where->inside %= XL_KPAGE;
		return where->inside ? XL_INTERIOR_FREED : XL_FREED;
	}
	c = &xl_classes[where->page->cls];
	inside = address - xl_page_address(where->heap, where->page);
	if (inside / c->block_bytes >= c->nr_blocks) {
		where->inside = inside - (size_t)c->nr_blocks * c->block_bytes;
		return XL_NO_BLOCK;
	}
	where->block = inside / c->block_bytes;
	where->inside = inside % c->block_bytes;
	is_free = !xl_is_state(xl_block_address(where->page, where->block), where->page->cls,
			       XL_LIVE);
	if (where->inside)
		return is_free ? XL_INTERIOR_FREED : XL_INTERIOR;
	return is_free ? XL_FREED : XL_BLOCK;
}
