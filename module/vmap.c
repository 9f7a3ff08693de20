// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mapped blocks of heaps: longer than a segment, from slices that need not be neighbours
 * in physical memory, at neighbouring addresses of the vmalloc range.
 *
 * Each is a slab of its own that is not in the map of slabs, but in heap->vmaps by its
 * address. Who takes it out of there, of several who free the block, ends it.
 */
#include <linux/mm.h>
#include <linux/vmalloc.h>

#include "internal.h"
#include "slab.h"

static unsigned long key_of(const void *block)
{
	return (unsigned long)block / PAGE_SIZE;
}

/**
 * xalloc_heap_vmap() - allocate a block that may be longer than a segment
 * @heap: the heap
 * @bytes: its size, at least 1
 *
 * The block is not in the direct map; vmalloc_to_page() finds its kpages. It has a handle
 * like any other block.
 *
 * Context: Process context, may sleep.
 * Return: the block, aligned to a kpage, or NULL. To be freed by xalloc_heap_vunmap().
 */
void *xalloc_heap_vmap(struct xalloc_heap *heap, size_t bytes)
{
	u64 arena_bytes = (u64)heap->client->arena->nr_segments * XALLOC_SEGMENT_BYTES;
	struct xalloc_slab *slab;
	struct page **kpages;
	void *block;
	u32 nr_kpages;

	if (!bytes || bytes > arena_bytes)
		return NULL;
	slab = xalloc_slab_take_scattered(heap, DIV_ROUND_UP(bytes, XALLOC_SLICE_BYTES));
	if (!slab)
		return NULL;
	nr_kpages = DIV_ROUND_UP(bytes, PAGE_SIZE);
	kpages = xalloc_segment_kpages(heap->client->arena, slab->slice, nr_kpages);
	if (!kpages)
		goto err_give;
	block = vmap(kpages, nr_kpages, VM_MAP, PAGE_KERNEL);
	kvfree(kpages);
	if (!block)
		goto err_give;
	if (xa_insert(&heap->vmaps, key_of(block), slab, GFP_KERNEL))
		goto err_vunmap;
	return block;

err_vunmap:
	vunmap(block);
err_give:
	WRITE_ONCE(slab->state[0], XALLOC_BLOCK_FREE);
	xalloc_slab_give_large(heap, slab);
	return NULL;
}
EXPORT_SYMBOL_GPL(xalloc_heap_vmap);

/**
 * xalloc_heap_vunmap() - free a block of xalloc_heap_vmap()
 * @heap: the heap
 * @block: the block, or NULL
 *
 * Context: Process context, may sleep.
 */
void xalloc_heap_vunmap(struct xalloc_heap *heap, const void *block)
{
	struct xalloc_slab *slab;

	if (!block)
		return;
	slab = (unsigned long)block % PAGE_SIZE ? NULL : xa_erase(&heap->vmaps, key_of(block));
	if (!slab) {
		xalloc_heap_refuse(heap, block, false, _RET_IP_);
		return;
	}
	vunmap(block);
	WRITE_ONCE(slab->state[0], XALLOC_BLOCK_FREE);
	xalloc_slab_give_large(heap, slab);
}
EXPORT_SYMBOL_GPL(xalloc_heap_vunmap);

/**
 * xalloc_vmap_slice() - where in the arena a mapped block begins
 * @heap: the heap
 * @block: the block
 * @slice: filled in
 *
 * Return: 0, or -EINVAL if it is no mapped block of the heap.
 */
int xalloc_vmap_slice(struct xalloc_heap *heap, const void *block, u32 *slice)
{
	struct xalloc_slab *slab;
	int err = -EINVAL;

	rcu_read_lock();
	slab = (unsigned long)block % PAGE_SIZE ? NULL : xa_load(&heap->vmaps, key_of(block));
	if (slab) {
		*slice = slab->slice;
		err = 0;
	}
	rcu_read_unlock();
	return err;
}

/** xalloc_vmap_fini() - unmap all mapped blocks of a heap; their slabs stay */
void xalloc_vmap_fini(struct xalloc_heap *heap)
{
	struct xalloc_slab *slab;
	unsigned long key;

	xa_for_each(&heap->vmaps, key, slab)
		vunmap((void *)(key * PAGE_SIZE));
	xa_destroy(&heap->vmaps);
}
