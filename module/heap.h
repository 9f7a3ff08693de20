/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Heaps: blocks of any size for kernel clients, from the pages of an arena.
 *
 * A heap owns an arena. The arena is the kernel's alone, or it can be mapped: then user
 * space is given a file on it, finds a block by its handle {arena id, offset}, and reads
 * or writes it in place. Nothing of the allocator lies in a block, so what user space
 * writes there damages data, never the heap.
 *
 * Blocks up to XALLOC_HEAP_BLOCK_MAX are physically contiguous and lie in the direct map:
 * virt_to_phys(), scatterlists and dma_map_single() take them. Their size is rounded up to
 * a class, of which there are eight per doubling from 128 bytes on; a block whose size is a
 * power of two is aligned to its size, up to XALLOC_SLICE_BYTES, any other to 16 bytes.
 *
 * Contexts: process and softirq, with or without bottom halves disabled, but with interrupts
 * enabled; not hardirq and not NMI. What sleeps says so.
 *
 * GFP flags: memory is granted to the heap only under GFP_KERNEL, all of it: a grant takes
 * a mutex that others hold while they reclaim. Without __GFP_DIRECT_RECLAIM, __GFP_IO and
 * __GFP_FS together a call takes what free blocks there are, then the heap's stock of
 * empty slabs, which a worker fills up again, then fails. The stock serves blocks up to
 * XALLOC_HEAP_STOCK_BLOCK_MAX; its last four slabs are kept for such calls, unless a large or
 * mapped block cannot be had otherwise. __GFP_ZERO clears the bytes that were asked for. Other
 * flags mean nothing here. For a task that has been sent a fatal signal no memory is committed:
 * it gets what the arena has already, or NULL.
 *
 * A free of what is no live block of the heap (freed before, inside a block, foreign) is
 * refused, counted and, the first times, reported. It changes nothing.
 */
#ifndef XALLOC_HEAP_H
#define XALLOC_HEAP_H

#include <linux/gfp_types.h>
#include <linux/types.h>
#include <linux/xalloc.h>

struct file;
struct xalloc_heap;

#define XALLOC_HEAP_BLOCK_MAX XALLOC_SEGMENT_BYTES
#define XALLOC_HEAP_STOCK_BLOCK_MAX (XALLOC_SLICE_BYTES / 8)

/**
 * struct xalloc_heap_config - what a heap is made over
 * @arena_bytes: size of the arena; a multiple of XALLOC_SEGMENT_BYTES
 * @limit_bytes: most memory to commit; 0: @arena_bytes
 * @mappable: user space can be given the arena; then the current task's user is charged,
 *	as by XALLOC_IOC_ARENA_CREATE. Without it no user is; the
 *	current task's memory cgroup is charged in either case
 */
struct xalloc_heap_config {
	u64 arena_bytes;
	u64 limit_bytes;
	bool mappable;
};

/**
 * struct xalloc_heap_handle - where a block lies, in words that user space understands
 * @arena_id: the arena, as &xalloc_ioc_arena_create.arena_id
 * @offset: where the block begins, in bytes; to be added to where the arena is mapped
 */
struct xalloc_heap_handle {
	u64 arena_id;
	u64 offset;
};

/**
 * struct xalloc_heap_stat - what a heap holds
 * @live_blocks: blocks that were allocated and not freed
 * @cached_blocks: free blocks at hand for some CPU
 * @slab_bytes: memory granted to the heap, its stock included
 * @refused_frees: frees that were refused since the heap was made
 *
 * Exact while nobody allocates or frees.
 */
struct xalloc_heap_stat {
	u64 live_blocks;
	u64 cached_blocks;
	u64 slab_bytes;
	u64 refused_frees;
};

struct xalloc_heap *xalloc_heap_create(const struct xalloc_heap_config *config);
void xalloc_heap_destroy(struct xalloc_heap *heap);
struct file *xalloc_heap_file(struct xalloc_heap *heap, int flags);

void *xalloc_heap_alloc(struct xalloc_heap *heap, size_t bytes, gfp_t gfp);
void *xalloc_heap_alloc_aligned(struct xalloc_heap *heap, size_t bytes, size_t alignment,
				gfp_t gfp);
u32 xalloc_heap_alloc_bulk(struct xalloc_heap *heap, size_t bytes, gfp_t gfp, u32 nr,
			   void **blocks);
void xalloc_heap_free(struct xalloc_heap *heap, const void *block);
void xalloc_heap_free_bulk(struct xalloc_heap *heap, u32 nr, void **blocks);

void *xalloc_heap_vmap(struct xalloc_heap *heap, size_t bytes);
void xalloc_heap_vunmap(struct xalloc_heap *heap, const void *address);

int xalloc_heap_handle(struct xalloc_heap *heap, const void *block,
		       struct xalloc_heap_handle *handle);
void xalloc_heap_stat(struct xalloc_heap *heap, struct xalloc_heap_stat *stat);

#endif /* XALLOC_HEAP_H */
