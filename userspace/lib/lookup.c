// SPDX-License-Identifier: MIT
/*
 * From a pointer to its block: one subtraction, one table, and the state of the block.
 *
 * Whatever is not the start of a live block is told apart here, so that a free of it ends the
 * program with a line that says what happened. Only one misuse cannot be seen: a second
 * free of an address that was given out again in between.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "os.h"
#include "page.h"

struct xl_page *xl_page_lock(size_t slice, struct xalloc_heap **heap)
{
	struct xl_page *page;

	for (;;) {
		page = atomic_load_explicit(&xl_map.page_of[slice], memory_order_acquire);
		if (!page)
			return NULL;
		*heap = atomic_load_explicit(&page->heap, memory_order_relaxed);
		if (!*heap)
			continue;
		pthread_mutex_lock(&(*heap)->lock);
		/* Released, and perhaps granted again, before the lock was had? */
		if (atomic_load_explicit(&xl_map.page_of[slice], memory_order_relaxed) == page &&
		    atomic_load_explicit(&page->heap, memory_order_relaxed) == *heap)
			return page;
		pthread_mutex_unlock(&(*heap)->lock);
	}
}

enum xl_verdict xl_find(const void *ptr, struct xl_where *where)
{
	struct xl_process *p = xl_process_peek();
	uintptr_t address = (uintptr_t)ptr;
	bool is_free;
	size_t inside;

	*where = (struct xl_where){ .process = p };
	if (!p || address - p->base >= p->bytes)
		return xl_inherited(address) ? XL_INHERITED : XL_FOREIGN;
	where->page = xl_page_lock((address - p->base) / XL_SLICE, &where->heap);
	if (!where->page)
		return XL_NO_PAGE;

	if (where->page->cls == XL_CLASS_LARGE) {
		where->extent = xl_large_find(p, where->heap, address);
		if (!where->extent)
			return XL_NO_BLOCK;
		where->inside = address - p->base - where->extent->first * XL_KPAGE;
		if (where->extent->used)
			return where->inside ? XL_INTERIOR : XL_BLOCK;
		/* What was free before has been merged with it. */
		where->inside %= XL_KPAGE;
		return where->inside ? XL_INTERIOR_FREED : XL_FREED;
	}
	inside = address - xl_page_address(where->heap, where->page);
	if (inside / where->page->block_bytes >= where->page->nr_blocks)
		return XL_NO_BLOCK;
	where->block = inside / where->page->block_bytes;
	where->inside = inside % where->page->block_bytes;
	is_free = !xl_is_live(xl_page_unit(where->page, where->block));
	if (where->inside)
		return is_free ? XL_INTERIOR_FREED : XL_INTERIOR;
	return is_free ? XL_FREED : XL_BLOCK;
}

/* For a message, when the lock is gone. */
struct place {
	char block[48];
	void *page;
};

static struct place unlock(struct xl_where *where)
{
	struct place place = { .page = (void *)xl_page_address(where->heap, where->page) };
	unsigned long long bytes =
		where->page->cls == XL_CLASS_LARGE && !where->extent ? 0 : xl_block_bytes(where);

	if (where->page->cls == XL_CLASS_LARGE)
		snprintf(place.block, sizeof(place.block), "%s of %llu bytes",
			 where->extent && where->extent->used ? "a large block" : "free memory",
			 bytes);
	else
		snprintf(place.block, sizeof(place.block), "a block of size class %llu", bytes);
	pthread_mutex_unlock(&where->heap->lock);
	return place;
}

static atomic_flag aborting = ATOMIC_FLAG_INIT;

void xl_misuse(const char *call, const void *ptr, enum xl_verdict verdict, struct xl_where *where)
{
	static const char *const what[] = {
		[XL_INTERIOR] = "inside a block, not its start",
		[XL_FREED] = "is free already (double free)",
		[XL_INTERIOR_FREED] = "inside a free block",
		[XL_NO_BLOCK] = "where no block can be",
		[XL_NO_PAGE] =
			"no block is there: never given out, or freed and its page given back",
		[XL_FOREIGN] = "not an address of xalloc",
		[XL_INHERITED] = "a block of the parent, which a forked child does not have",
	};
	struct place place;

	/* What one thread says is enough. */
	if (atomic_flag_test_and_set(&aborting))
		for (;;)
			xl_os_pause();
	if (verdict > XL_NO_BLOCK) {
		xl_say("xalloc: %s(%p): %s\n", call, ptr, what[verdict]);
	} else {
		size_t inside = where->inside;

		place = unlock(where);
		xl_say("xalloc: %s(%p): %s; +%zu bytes in %s, in the page at %p\n", call, ptr,
		       what[verdict], inside, place.block, place.page);
	}
	abort();
}

void xl_free_raced(const void *ptr)
{
	struct xl_where where;

	/* Its bits are of no more use: two threads have just written them. */
	xl_find(ptr, &where);
	xl_misuse("xalloc_free", ptr, XL_FREED, &where);
}

void xl_mismatch(const char *call, const void *ptr, size_t size, struct xl_where *where)
{
	struct place place = unlock(where);

	xl_say("xalloc: %s(%p, %zu): wrong size; it is %s, in the page at %p\n", call, ptr, size,
	       place.block, place.page);
	abort();
}
