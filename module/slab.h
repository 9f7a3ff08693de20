/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of the in-kernel heaps share: size classes, slabs, the heap.
 *
 *	class	blocks of one size
 *	slab	a page that is cut into blocks of one class, or holds one large block
 *	record	struct xalloc_slab: all that is known of a slab; it lies outside of it
 *	entry	a free block in a magazine, or on its way between magazine and slab
 *
 * A block is LIVE, or free in an entry, or free in its slab. Free to LIVE is written by
 * who has its entry; LIVE to free is an atomic exchange, so that of several who free a
 * block one alone is told that it was LIVE.
 */
#ifndef XALLOC_SLAB_H
#define XALLOC_SLAB_H

#include <linux/cpumask.h>
#include <linux/list.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "heap.h"
#include "size_class.h"

/* In the place of a class: one block, of slices; an empty slab without blocks. */
#define XALLOC_CLASS_LARGE XALLOC_NR_CLASSES
#define XALLOC_CLASS_NONE (XALLOC_NR_CLASSES + 1)

#define XALLOC_SLAB_SLICES_MAX (XALLOC_SEGMENT_BYTES / XALLOC_SLICE_BYTES)
/*
 * n / d == n * ceil(2^S / d) >> S as long as n * d < 2^S: here n is below a segment and d
 * at most a segment.
 */
#define XALLOC_RECIPROCAL_SHIFT (2 * const_ilog2(XALLOC_SEGMENT_BYTES))

#define XALLOC_MAGAZINE_ENTRIES_MAX 63
#define XALLOC_BATCH_ENTRIES_MAX ((XALLOC_MAGAZINE_ENTRIES_MAX + 1) / 2)

/**
 * struct xalloc_class_shape - what slabs and magazines of a class look like; constant
 * @block_bytes: size of a block
 * @nr_slices: length of a slab
 * @nr_blocks: blocks in a slab
 * @nr_entries: that a magazine holds
 * @nr_batch: entries that move between magazine and slabs at once
 */
struct xalloc_class_shape {
	u32 block_bytes;
	u32 nr_slices;
	u32 nr_blocks;
	u32 nr_entries;
	u32 nr_batch;
};

enum xalloc_block_state {
	XALLOC_BLOCK_FREE,
	XALLOC_BLOCK_LIVE,
};

struct xalloc_slab_entry {
	void *block;
	u8 *state;
};

/**
 * struct xalloc_slab - record of a slab
 * @address: of its first block. This and what follows up to @class is constant
 * @blocks_bytes: bytes of all its blocks
 * @block_bytes: bytes of one
 * @reciprocal: to divide by @block_bytes
 * @heap: whose it is
 * @class: its class
 * @memory: address of the page, from which a large block may be off by its alignment;
 *	0: not in the map
 * @slice: first slice in the arena
 * @nr_slices: length of the page
 * @nr_blocks: number of blocks
 * @nr_free: bits in @free. This and @free by the lock of the class
 * @free: a bit for each block that is free in the slab
 * @link: with free blocks in the slab: in the list of its class, by the lock of the class.
 *	Without a class: in heap->stock, or in heap->leaving with any class, by heap->lock
 * @all: on heap->slabs, by heap->lock
 * @rcu: frees look records up under RCU
 * @state: enum xalloc_block_state of each block
 */
struct xalloc_slab {
	unsigned long address;
	u32 blocks_bytes;
	u32 block_bytes;
	u64 reciprocal;
	struct xalloc_heap *heap;
	u32 class;
	unsigned long memory;
	u32 slice;
	u32 nr_slices;
	u32 nr_blocks;
	u32 nr_free;
	unsigned long *free;
	struct list_head link;
	struct list_head all;
	struct rcu_head rcu;
	u8 state[];
};

/**
 * struct xalloc_class - slabs of a class in a heap
 * @lock: protects all here, and nr_free and free of the slabs
 * @nr_partial: slabs in @partial
 * @partial: slabs with free blocks
 * @nr_taken: blocks that are not free in their slabs
 */
struct xalloc_class {
	spinlock_t lock;	/* protects all below, nr_free and free of slabs */
	u32 nr_partial;
	struct list_head partial;
	u64 nr_taken;
} ____cacheline_aligned_in_smp;

/* Free blocks of a class at hand for one CPU. */
struct xalloc_magazine {
	u32 nr;
	u32 nr_max;
	struct xalloc_slab_entry entries[];
};

enum xalloc_context {
	XALLOC_IN_TASK,
	XALLOC_IN_SOFTIRQ,
	XALLOC_NR_CONTEXTS,
};

/* The place of XALLOC_CLASS_LARGE never has a magazine with room. */
struct xalloc_heap_cpu {
	struct xalloc_magazine *magazines[XALLOC_NR_CONTEXTS][XALLOC_NR_CLASSES + 1];
};

struct xalloc_heap {
	struct xalloc_heap_cpu __percpu *cpu;
	struct xalloc_client *client;
	struct file *file;		/* whose client that is; NULL: a client without */
	struct mutex mutex;		/* who grants to the heap and gives back */
	spinlock_t lock;		/* protects all up to leaving */
	struct list_head slabs;		/* all of them */
	u32 nr_slices;			/* in them */
	u32 nr_large;			/* of them with one block, large or mapped, that is LIVE */
	struct list_head stock;		/* empty ones of one slice */
	u32 nr_stock;
	bool fill_waits;		/* for a grant that needs all there is */
	unsigned long fill_after;	/* jiffies; the worker does not fill the stock before */
	struct list_head leaving;	/* empty ones, for the worker to give back */
	struct work_struct work;
	struct xarray vmaps;		/* address / PAGE_SIZE -> slab of a mapped block */
	struct hlist_node hotplug;
	atomic64_t nr_refused;
	struct xalloc_class classes[XALLOC_NR_CLASSES];
};

/* The slabs in 2 MiB of physical memory. */
struct xalloc_slab_frame {
	struct xalloc_slab __rcu *slabs[XALLOC_SLAB_SLICES_MAX];
	u32 nr_slabs;
	struct rcu_head rcu;
};

/* All of the direct map. */
struct xalloc_slab_map {
	struct rcu_head rcu;
	unsigned long nr_frames;
	struct xalloc_slab_frame __rcu *frames[];
};

extern struct xalloc_class_shape xalloc_class_shapes[XALLOC_NR_CLASSES];
extern struct xalloc_slab_map __rcu *xalloc_slab_map;

/*
 * The record of the slab around an address, or NULL. Any address may be asked for: nothing
 * that it leads to is read but the map. Under RCU, or with preemption disabled.
 */
static inline struct xalloc_slab *xalloc_slab_of(const void *block)
{
	/* In the direct map this is the physical address, in which slices are aligned. */
	unsigned long slice = ((unsigned long)block - PAGE_OFFSET) / XALLOC_SLICE_BYTES;
	unsigned long frame = slice / XALLOC_SLAB_SLICES_MAX;
	const struct xalloc_slab_map *map;
	const struct xalloc_slab_frame *f;

	map = rcu_dereference_check(xalloc_slab_map, rcu_read_lock_sched_held());
	if (unlikely(frame >= map->nr_frames))
		return NULL;
	f = rcu_dereference_check(map->frames[frame], rcu_read_lock_sched_held());
	if (unlikely(!f))
		return NULL;
	return rcu_dereference_check(f->slabs[slice % XALLOC_SLAB_SLICES_MAX],
				     rcu_read_lock_sched_held());
}

/* The state of the block of @slab that begins at @block; NULL if none does. */
static inline u8 *xalloc_slab_state(struct xalloc_slab *slab, const void *block)
{
	unsigned long offset = (unsigned long)block - slab->address, index;

	if (unlikely(offset >= slab->blocks_bytes))
		return NULL;
	index = offset * slab->reciprocal >> XALLOC_RECIPROCAL_SHIFT;
	if (unlikely(index * slab->block_bytes != offset))
		return NULL;
	return &slab->state[index];
}

/* slab.c */
void xalloc_slab_classes_init(void);
int xalloc_slab_work_init(void);
void xalloc_slab_work_fini(void);
int xalloc_slab_map_cover(void);
void xalloc_slab_map_fini(void);
void xalloc_slab_heap_init(struct xalloc_heap *heap);
void xalloc_slab_heap_fini(struct xalloc_heap *heap);
u32 xalloc_slab_take(struct xalloc_heap *heap, u32 class, struct xalloc_slab_entry *entries,
		     u32 nr, gfp_t gfp);
void xalloc_slab_give(struct xalloc_heap *heap, u32 class, const struct xalloc_slab_entry *entries,
		      u32 nr);
void *xalloc_slab_take_large(struct xalloc_heap *heap, u32 nr_slices, size_t alignment);
struct xalloc_slab *xalloc_slab_take_scattered(struct xalloc_heap *heap, u32 nr_slices);
void xalloc_slab_give_large(struct xalloc_heap *heap, struct xalloc_slab *slab);
int xalloc_slab_fill_stock(struct xalloc_heap *heap);

/* vmap.c */
int xalloc_vmap_slice(struct xalloc_heap *heap, const void *block, u32 *slice);
void xalloc_vmap_fini(struct xalloc_heap *heap);

/* heap.c */
void xalloc_heap_refuse(struct xalloc_heap *heap, const void *block, bool is_block,
			unsigned long caller);
void xalloc_heap_drain_cpu(struct xalloc_heap *heap, unsigned int cpu);

/* heap_validate.c */
bool xalloc_heap_is_valid(struct xalloc_heap *heap);

/* Whether a call may wait for a grant: with all of GFP_KERNEL, also by the task's own scope. */
static inline bool xalloc_slab_may_grant(gfp_t gfp)
{
	return (current_gfp_context(gfp) & GFP_KERNEL) == GFP_KERNEL;
}

#endif /* XALLOC_SLAB_H */
