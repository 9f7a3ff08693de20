// SPDX-License-Identifier: GPL-2.0-only
/*
 * Slabs: from the grant of a page to a heap until the page is given back.
 *
 * A slab is in one of these states:
 *
 *	partial		has blocks that are free in the slab; in the list of its class
 *	full		has none; in no list
 *	large		one block without a class, LIVE; in no list
 *	stock		empty, one slice; heap->stock, to be had without a grant
 *	leaving		empty; heap->leaving, until the worker gives the page back
 *
 * and always in heap->slabs and in the map. With class->lock free:
 *
 *	nr_free			== bits set in free
 *	a bit is set		only if the block is not LIVE and in no entry
 *	nr_blocks		== nr_free + entries with its blocks + LIVE blocks
 *	class->nr_taken		== nr_blocks - nr_free of all slabs of the class
 *
 * so an empty slab (nr_free == nr_blocks) has no block anywhere else. An empty slab stays
 * in its class as long as it is the only partial one, or leaves it: to the stock up to
 * STOCK_MAX slabs, else to be given back. In the list of a class those that are empty are
 * last: blocks are taken from the first, and what gets a first block back goes before it.
 *
 * A free looks a block's slab up in the map, by its physical address, and reads the record
 * under RCU: it may race with the slab's end if the caller's free is wrong, and then must
 * find a record that says that no block is LIVE. So records are never changed for another
 * class; a slab gets a new one, and the old is freed after a grace period.
 */
#include <linux/bitmap.h>
#include <linux/bitops.h>
#include <linux/jiffies.h>
#include <linux/list.h>
#include <linux/math64.h>
#include <linux/slab.h>

#include "internal.h"
#include "slab.h"

/*
 * The worker fills the stock up to MIN. What becomes empty goes there up to MAX, a segment,
 * which is what an arena gains at the least by giving back: a load that breathes by less
 * neither grants nor gives back.
 */
#define STOCK_MIN 4
#define STOCK_MAX XALLOC_SLICES_PER_SEGMENT
/* From a try to fill the stock that failed, and was not cheap, to the next. */
#define FILL_DELAY (HZ / 10)
/* The rest of a slab, into which no block fits, is at most this part of it. */
#define TAIL_SHARE 8
#define SLAB_BLOCKS_MIN 4
/* What a magazine may hold back from others. */
#define MAGAZINE_BYTES (64 << 10)

struct xalloc_class_shape xalloc_class_shapes[XALLOC_NR_CLASSES];
EXPORT_SYMBOL_IF_KUNIT(xalloc_class_shapes);

static const struct xalloc_slab_map empty_map;
struct xalloc_slab_map __rcu *xalloc_slab_map =
	(struct xalloc_slab_map __force __rcu *)&empty_map;
EXPORT_SYMBOL_IF_KUNIT(xalloc_slab_map);
/* Allocators wait for what is queued there, also in work that memory is reclaimed by. */
static struct workqueue_struct *work_wq;

/**
 * xalloc_slab_work_init() - module init of the work of heaps
 * Return: 0 or -ENOMEM.
 */
int xalloc_slab_work_init(void)
{
	work_wq = alloc_workqueue("xalloc_heap", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	return work_wq ? 0 : -ENOMEM;
}

/** xalloc_slab_work_fini() - module exit of the work of heaps, of which none is left */
void xalloc_slab_work_fini(void)
{
	destroy_workqueue(work_wq);
}

static DEFINE_MUTEX(map_mutex);	/* protects the map, but for the replacing of slabs */

/** xalloc_slab_classes_init() - compute the classes, once, at module init */
void xalloc_slab_classes_init(void)
{
	u32 class;

	for (class = 0; class < XALLOC_NR_CLASSES; class++) {
		struct xalloc_class_shape *shape = &xalloc_class_shapes[class];
		u32 bytes;

		shape->block_bytes = xalloc_class_bytes(class);
		do {
			bytes = ++shape->nr_slices * XALLOC_SLICE_BYTES;
			shape->nr_blocks = bytes / shape->block_bytes;
		} while (shape->nr_blocks < SLAB_BLOCKS_MIN ||
			 bytes % shape->block_bytes > bytes / TAIL_SHARE);
		shape->nr_entries = clamp_t(u32, MAGAZINE_BYTES / shape->block_bytes, 2,
					    XALLOC_MAGAZINE_ENTRIES_MAX);
		shape->nr_batch = (shape->nr_entries + 1) / 2;
	}
}

/* --- the map */

/**
 * xalloc_slab_map_cover() - make the map cover all memory that the machine has now
 *
 * Context: Process context, may sleep.
 * Return: 0 or -ENOMEM.
 */
int xalloc_slab_map_cover(void)
{
	unsigned long nr_frames = DIV_ROUND_UP((unsigned long)high_memory - PAGE_OFFSET,
					       XALLOC_SEGMENT_BYTES);
	struct xalloc_slab_map *old, *new;
	int err = 0;

	mutex_lock(&map_mutex);
	old = rcu_dereference_protected(xalloc_slab_map, lockdep_is_held(&map_mutex));
	if (old->nr_frames >= nr_frames)
		goto unlock;
	new = kvzalloc(struct_size(new, frames, nr_frames), GFP_KERNEL);
	if (!new) {
		err = -ENOMEM;
		goto unlock;
	}
	new->nr_frames = nr_frames;
	memcpy(new->frames, old->frames, old->nr_frames * sizeof(old->frames[0]));
	rcu_assign_pointer(xalloc_slab_map, new);
	if (old != &empty_map)
		kvfree_rcu(old, rcu);
unlock:
	mutex_unlock(&map_mutex);
	return err;
}

/** xalloc_slab_map_fini() - free the map at module exit; no slab is left */
void xalloc_slab_map_fini(void)
{
	struct xalloc_slab_map *map = rcu_dereference_protected(xalloc_slab_map, true);

	if (map != &empty_map)
		kvfree(map);
}

static struct xalloc_slab_frame *map_frame(unsigned long slice)
{
	struct xalloc_slab_map *map;

	map = rcu_dereference_protected(xalloc_slab_map, lockdep_is_held(&map_mutex));
	return rcu_dereference_protected(map->frames[slice / XALLOC_SLAB_SLICES_MAX],
					 lockdep_is_held(&map_mutex));
}

static void map_remove(const struct xalloc_slab *slab, u32 nr_slices)
{
	unsigned long slice = (slab->memory - PAGE_OFFSET) / XALLOC_SLICE_BYTES;
	unsigned long end = slice + nr_slices;
	struct xalloc_slab_frame *frame;
	struct xalloc_slab_map *map;

	mutex_lock(&map_mutex);
	map = rcu_dereference_protected(xalloc_slab_map, lockdep_is_held(&map_mutex));
	for (; slice < end; slice++) {
		frame = map_frame(slice);
		RCU_INIT_POINTER(frame->slabs[slice % XALLOC_SLAB_SLICES_MAX], NULL);
		if (--frame->nr_slabs)
			continue;
		RCU_INIT_POINTER(map->frames[slice / XALLOC_SLAB_SLICES_MAX], NULL);
		kfree_rcu(frame, rcu);
	}
	mutex_unlock(&map_mutex);
}

static int map_insert_slice(struct xalloc_slab *slab, unsigned long slice)
{
	struct xalloc_slab_frame *frame;
	struct xalloc_slab_map *map;

	map = rcu_dereference_protected(xalloc_slab_map, lockdep_is_held(&map_mutex));
	/* Memory that the machine was given after the last heap. */
	if (slice / XALLOC_SLAB_SLICES_MAX >= map->nr_frames)
		return -ENOMEM;
	frame = map_frame(slice);
	if (!frame) {
		frame = kzalloc(sizeof(*frame), GFP_KERNEL);
		if (!frame)
			return -ENOMEM;
		rcu_assign_pointer(map->frames[slice / XALLOC_SLAB_SLICES_MAX], frame);
	}
	frame->nr_slabs++;
	rcu_assign_pointer(frame->slabs[slice % XALLOC_SLAB_SLICES_MAX], slab);
	return 0;
}

static int map_insert(struct xalloc_slab *slab)
{
	unsigned long slice = (slab->memory - PAGE_OFFSET) / XALLOC_SLICE_BYTES;
	int err = 0;
	u32 i;

	mutex_lock(&map_mutex);
	for (i = 0; i < slab->nr_slices && !err; i++)
		err = map_insert_slice(slab, slice + i);
	mutex_unlock(&map_mutex);
	if (err)
		map_remove(slab, i - 1);
	return err;
}

/* @slab stands where another of one slice stood, whose place in the map is not empty. */
static void map_replace(struct xalloc_slab *slab)
{
	unsigned long slice = (slab->memory - PAGE_OFFSET) / XALLOC_SLICE_BYTES;
	struct xalloc_slab_frame *frame;

	rcu_read_lock();
	frame = rcu_dereference(rcu_dereference(xalloc_slab_map)
				->frames[slice / XALLOC_SLAB_SLICES_MAX]);
	rcu_assign_pointer(frame->slabs[slice % XALLOC_SLAB_SLICES_MAX], slab);
	rcu_read_unlock();
}

/* --- records, and the pages below them */

/* A record of @nr_blocks free blocks; where they lie is not known yet. */
static struct xalloc_slab *create_record(struct xalloc_heap *heap, u32 class, u32 block_bytes,
					 u32 nr_blocks, gfp_t gfp)
{
	size_t bytes = ALIGN(struct_size_t(struct xalloc_slab, state, nr_blocks), sizeof(long));
	struct xalloc_slab *slab;

	slab = kzalloc(bytes + BITS_TO_LONGS(nr_blocks) * sizeof(long), gfp);
	if (!slab)
		return NULL;
	slab->heap = heap;
	slab->class = class;
	slab->blocks_bytes = nr_blocks * block_bytes;
	slab->block_bytes = block_bytes;
	slab->reciprocal = div_u64((1ull << XALLOC_RECIPROCAL_SHIFT) + block_bytes - 1,
				   block_bytes);
	slab->nr_blocks = nr_blocks;
	slab->nr_free = nr_blocks;
	slab->free = (void *)slab + bytes;
	bitmap_set(slab->free, 0, nr_blocks);
	INIT_LIST_HEAD(&slab->link);
	return slab;
}

static struct xalloc_slab *create_class_record(struct xalloc_heap *heap, u32 class, gfp_t gfp)
{
	const struct xalloc_class_shape *shape = &xalloc_class_shapes[class];

	return create_record(heap, class, shape->block_bytes, shape->nr_blocks, gfp);
}

static struct xalloc_slab *create_large_record(struct xalloc_heap *heap, u32 nr_slices)
{
	struct xalloc_slab *slab = create_record(heap, XALLOC_CLASS_LARGE,
						 nr_slices * XALLOC_SLICE_BYTES, 1, GFP_KERNEL);

	if (!slab)
		return NULL;
	/* It is never free in the slab: the slab ends with it. */
	slab->nr_free = 0;
	__clear_bit(0, slab->free);
	return slab;
}

static int grant(struct xalloc_heap *heap, u32 nr_slices, u32 flags, u32 *slice)
{
	struct xalloc_page_grant grant = { .nr_slices = nr_slices, .flags = flags };
	LIST_HEAD(granted);
	int rc;

	rc = xalloc_client_grant(heap->client, &grant, 1, &granted);
	if (rc < 0)
		return rc;
	xalloc_client_grant_finish(heap->client, &granted, true);
	*slice = grant.offset / XALLOC_SLICE_BYTES;
	return 0;
}

static unsigned long slice_memory(struct xalloc_heap *heap, u32 slice)
{
	struct xalloc_segment *seg;

	/* It stays as long as a page in it is granted. */
	seg = xa_load(&heap->client->arena->segments, slice / XALLOC_SLICES_PER_SEGMENT);
	return (unsigned long)page_address(xalloc_segment_kpage(seg, slice %
								XALLOC_SLICES_PER_SEGMENT));
}

/* --- the stock, and giving back */

static void add_to_stock(struct xalloc_heap *heap, struct xalloc_slab *slab)
{
	lockdep_assert_held(&heap->lock);
	list_add(&slab->link, &heap->stock);
	heap->nr_stock++;
}

static void add_to_leaving(struct xalloc_heap *heap, struct xalloc_slab *slab)
{
	lockdep_assert_held(&heap->lock);
	list_add_tail(&slab->link, &heap->leaving);
	queue_work(work_wq, &heap->work);
}

/* Whether the worker is to fill the stock up now. */
static bool wants_filling(struct xalloc_heap *heap)
{
	lockdep_assert_held(&heap->lock);
	return heap->nr_stock < STOCK_MIN && !heap->fill_waits &&
	       time_after_eq(jiffies, READ_ONCE(heap->fill_after));
}

static bool give_back_one(struct xalloc_heap *heap)
{
	struct xalloc_slab *slab;
	struct xalloc_range range = {};

	spin_lock_bh(&heap->lock);
	slab = list_first_entry_or_null(&heap->leaving, struct xalloc_slab, link);
	if (slab) {
		list_del(&slab->link);
		list_del(&slab->all);
		heap->nr_slices -= slab->nr_slices;
		/* There may be memory again. */
		WRITE_ONCE(heap->fill_after, jiffies);
	}
	spin_unlock_bh(&heap->lock);
	if (!slab)
		return false;
	if (slab->memory)
		map_remove(slab, slab->nr_slices);
	range.offset = slab->slice * (u64)XALLOC_SLICE_BYTES;
	/* If the arena's records are broken the page goes with the client. */
	xalloc_client_free(heap->client, &range, 1, false);
	kfree_rcu(slab, rcu);
	return true;
}

/* Give back what is empty, but for @nr_spared of the stock: somebody needs the memory. */
static void shed(struct xalloc_heap *heap, u32 nr_spared)
{
	struct xalloc_slab *slab;
	struct xalloc_class *c;

	for (c = heap->classes; c < heap->classes + XALLOC_NR_CLASSES; c++) {
		spin_lock_bh(&c->lock);
		while (c->nr_partial) {
			slab = list_last_entry(&c->partial, struct xalloc_slab, link);
			if (slab->nr_free != slab->nr_blocks)
				break;
			list_del(&slab->link);
			c->nr_partial--;
			spin_lock(&heap->lock);
			add_to_leaving(heap, slab);
			spin_unlock(&heap->lock);
		}
		spin_unlock_bh(&c->lock);
	}
	spin_lock_bh(&heap->lock);
	for (; heap->nr_stock > nr_spared; heap->nr_stock--) {
		slab = list_first_entry(&heap->stock, struct xalloc_slab, link);
		list_del(&slab->link);
		add_to_leaving(heap, slab);
	}
	spin_unlock_bh(&heap->lock);
	/* The worker frees, because this task may be about to be killed, and cannot. */
	flush_work(&heap->work);
}

static void set_fill_waits(struct xalloc_heap *heap, bool waits)
{
	spin_lock_bh(&heap->lock);
	heap->fill_waits = waits;
	if (wants_filling(heap))
		queue_work(work_wq, &heap->work);
	spin_unlock_bh(&heap->lock);
}

/* What a grant may cost others. */
enum effort {
	EFFORT_NONE,	/* nothing */
	EFFORT_EMPTY,	/* what is empty, but not the stock of those who cannot wait */
	EFFORT_STOCK,	/* that too, if nothing else helps; it is filled up again */
};

/* If there is no memory, tries again without what is empty. With heap->mutex held for that. */
static int grant_by(struct xalloc_heap *heap, u32 nr_slices, u32 flags, enum effort effort,
		    u32 *slice)
{
	int err = grant(heap, nr_slices, flags, slice);

	if (!err || err == -EINTR || effort == EFFORT_NONE)
		return err;
	/* Else the worker, which gives it back, could take it as well. */
	set_fill_waits(heap, true);
	shed(heap, STOCK_MIN);
	err = grant(heap, nr_slices, flags, slice);
	if (err && err != -EINTR && effort == EFFORT_STOCK) {
		shed(heap, 0);
		err = grant(heap, nr_slices, flags, slice);
	}
	set_fill_waits(heap, false);
	return err;
}

/*
 * Have a page granted to a record, and enter it; into the map as well if the page is in
 * one piece, in which its first block is then aligned. On an error the record is gone.
 */
static int grant_to(struct xalloc_heap *heap, struct xalloc_slab *slab, u32 nr_slices,
		    size_t alignment, u32 flags, enum effort effort)
{
	int err = grant_by(heap, nr_slices, flags, effort, &slab->slice);

	if (err) {
		kfree(slab);
		return err;
	}
	slab->nr_slices = nr_slices;
	if (flags & XALLOC_PAGE_CONTIG) {
		slab->memory = slice_memory(heap, slab->slice);
		slab->address = PAGE_OFFSET + ALIGN(slab->memory - PAGE_OFFSET, alignment);
		err = map_insert(slab);
		if (err)
			slab->memory = 0;
	}
	spin_lock_bh(&heap->lock);
	list_add(&slab->all, &heap->slabs);
	heap->nr_slices += nr_slices;
	if (err)
		add_to_leaving(heap, slab);
	else if (slab->class == XALLOC_CLASS_LARGE)
		heap->nr_large++;
	spin_unlock_bh(&heap->lock);
	return err;
}

/**
 * xalloc_slab_fill_stock() - have at least STOCK_MIN empty slabs
 * @heap: the heap
 *
 * Context: Process context, may sleep. Takes arena->lock and heap->lock.
 * Return: 0, -ENOMEM or an error of xalloc_client_grant().
 */
int xalloc_slab_fill_stock(struct xalloc_heap *heap)
{
	struct xalloc_slab *slab;
	int err;

	while (READ_ONCE(heap->nr_stock) < STOCK_MIN) {
		slab = create_record(heap, XALLOC_CLASS_NONE, XALLOC_SLICE_BYTES, 0, GFP_KERNEL);
		if (!slab)
			return -ENOMEM;
		err = grant_to(heap, slab, 1, 1, XALLOC_PAGE_CONTIG, EFFORT_NONE);
		if (err)
			return err;
		spin_lock_bh(&heap->lock);
		add_to_stock(heap, slab);
		spin_unlock_bh(&heap->lock);
	}
	return 0;
}

static void heap_work(struct work_struct *w)
{
	struct xalloc_heap *heap = container_of(w, struct xalloc_heap, work);
	bool fill;

	while (give_back_one(heap))
		cond_resched();
	spin_lock_bh(&heap->lock);
	fill = wants_filling(heap);
	spin_unlock_bh(&heap->lock);
	/* Who finds the stock low after a while asks again. */
	if (fill && xalloc_slab_fill_stock(heap))
		WRITE_ONCE(heap->fill_after, jiffies + FILL_DELAY);
}

/*
 * An empty slab of one slice from the stock, of which @nr_spared are left to others. It
 * gets the record @new.
 */
static bool take_stock(struct xalloc_heap *heap, struct xalloc_slab *new, u32 nr_spared)
{
	struct xalloc_slab *old = NULL;

	spin_lock_bh(&heap->lock);
	if (heap->nr_stock > nr_spared) {
		old = list_first_entry(&heap->stock, struct xalloc_slab, link);
		list_del(&old->link);
		heap->nr_stock--;
		new->slice = old->slice;
		new->nr_slices = old->nr_slices;
		new->memory = old->memory;
		new->address = old->memory;
		list_replace(&old->all, &new->all);
		map_replace(new);
	}
	if (wants_filling(heap))
		queue_work(work_wq, &heap->work);
	spin_unlock_bh(&heap->lock);
	if (!old)
		return false;
	kfree_rcu(old, rcu);
	return true;
}

static struct xalloc_slab *create_slab(struct xalloc_heap *heap, u32 class, gfp_t gfp)
{
	u32 nr_slices = xalloc_class_shapes[class].nr_slices;
	u32 nr_spared = xalloc_slab_may_grant(gfp) ? STOCK_MIN : 0;
	struct xalloc_slab *slab;

	/* By the caller's flags: under GFP_ATOMIC the kernel's reserve may serve. */
	slab = create_class_record(heap, class, xalloc_slab_may_grant(gfp) ? GFP_KERNEL :
				   (gfp & GFP_ATOMIC) | __GFP_NOWARN);
	if (!slab)
		return NULL;
	if (nr_slices == 1 && take_stock(heap, slab, nr_spared))
		return slab;
	if (xalloc_slab_may_grant(gfp))
		return grant_to(heap, slab, nr_slices, 1, XALLOC_PAGE_CONTIG, EFFORT_EMPTY) ?
		       NULL : slab;
	kfree(slab);
	return NULL;
}

/* Give @class a slab, unless another task just did. */
static bool grow(struct xalloc_heap *heap, u32 class, gfp_t gfp)
{
	struct xalloc_class *c = &heap->classes[class];
	struct xalloc_slab *slab;
	bool grown = true;

	if (xalloc_slab_may_grant(gfp))
		mutex_lock(&heap->mutex);
	if (!READ_ONCE(c->nr_partial)) {
		slab = create_slab(heap, class, gfp);
		grown = slab;
		if (slab) {
			spin_lock_bh(&c->lock);
			list_add_tail(&slab->link, &c->partial);
			c->nr_partial++;
			spin_unlock_bh(&c->lock);
		}
	}
	if (xalloc_slab_may_grant(gfp))
		mutex_unlock(&heap->mutex);
	return grown;
}

/* --- blocks */

static u32 take_from(struct xalloc_slab *slab, struct xalloc_slab_entry *entries, u32 nr)
{
	unsigned long *word = slab->free;
	u32 taken = 0, base = 0, index;

	if (nr > slab->nr_free)
		nr = slab->nr_free;
	for (; taken < nr; word++, base += BITS_PER_LONG) {
		while (*word && taken < nr) {
			index = base + __ffs(*word);
			*word &= *word - 1;
			entries[taken].block = (void *)(slab->address + index * slab->block_bytes);
			entries[taken++].state = &slab->state[index];
		}
	}
	slab->nr_free -= taken;
	return taken;
}

static u32 take_partial(struct xalloc_heap *heap, u32 class, struct xalloc_slab_entry *entries,
			u32 nr)
{
	struct xalloc_class *c = &heap->classes[class];
	struct xalloc_slab *slab;
	u32 taken = 0;

	spin_lock_bh(&c->lock);
	while (taken < nr && c->nr_partial) {
		slab = list_first_entry(&c->partial, struct xalloc_slab, link);
		taken += take_from(slab, entries + taken, nr - taken);
		if (!slab->nr_free) {
			list_del_init(&slab->link);
			c->nr_partial--;
		}
	}
	c->nr_taken += taken;
	spin_unlock_bh(&c->lock);
	return taken;
}

/**
 * xalloc_slab_take() - take free blocks of a class out of their slabs
 * @heap: the heap
 * @class: the class
 * @entries: filled in
 * @nr: how many are wanted, at least 1
 * @gfp: with all of GFP_KERNEL the heap may grow by a grant, else from its stock
 *
 * Context: Process and softirq context. May sleep if @gfp has all of GFP_KERNEL. Takes the
 * lock of the class.
 * Return: how many there were. 0: the heap could not grow.
 */
u32 xalloc_slab_take(struct xalloc_heap *heap, u32 class, struct xalloc_slab_entry *entries,
		     u32 nr, gfp_t gfp)
{
	u32 taken;

	do {
		taken = take_partial(heap, class, entries, nr);
	} while (!taken && grow(heap, class, gfp));
	return taken;
}

/* An empty slab leaves its class, unless it is the only one with free blocks. */
static void leave_class(struct xalloc_heap *heap, struct xalloc_slab *slab)
{
	struct xalloc_class *c = &heap->classes[slab->class];

	lockdep_assert_held(&c->lock);
	if (c->nr_partial == 1)
		return;
	list_del(&slab->link);
	c->nr_partial--;
	spin_lock(&heap->lock);
	if (slab->nr_slices == 1 && heap->nr_stock < STOCK_MAX)
		add_to_stock(heap, slab);
	else
		add_to_leaving(heap, slab);
	spin_unlock(&heap->lock);
}

/**
 * xalloc_slab_give() - put free blocks of a class back into their slabs
 * @heap: the heap
 * @class: the class
 * @entries: the blocks, not LIVE
 * @nr: how many
 *
 * Context: Process and softirq context. Takes the lock of the class and heap->lock.
 */
void xalloc_slab_give(struct xalloc_heap *heap, u32 class, const struct xalloc_slab_entry *entries,
		      u32 nr)
{
	struct xalloc_class *c = &heap->classes[class];
	struct xalloc_slab *slab;
	u32 i;

	rcu_read_lock();
	spin_lock_bh(&c->lock);
	c->nr_taken -= nr;
	for (i = 0; i < nr; i++) {
		/* It has this block to get back, so it stays. */
		slab = xalloc_slab_of(entries[i].block);
		__set_bit(entries[i].state - slab->state, slab->free);
		if (!slab->nr_free++) {
			list_add(&slab->link, &c->partial);
			c->nr_partial++;
		}
		if (slab->nr_free == slab->nr_blocks)
			leave_class(heap, slab);
	}
	spin_unlock_bh(&c->lock);
	rcu_read_unlock();
}

/**
 * xalloc_slab_take_large() - a block of its own slices
 * @heap: the heap
 * @nr_slices: its length, at most a segment
 * @alignment: of its address, a power of two, at most a segment
 *
 * Context: Process context, may sleep. Takes heap->mutex and arena->lock.
 * Return: the block, LIVE, or NULL.
 */
void *xalloc_slab_take_large(struct xalloc_heap *heap, u32 nr_slices, size_t alignment)
{
	u32 nr_extra = max_t(size_t, alignment / XALLOC_SLICE_BYTES, 1) - 1;
	struct xalloc_slab *slab;
	void *block;
	int err;

	slab = create_large_record(heap, nr_slices);
	if (!slab)
		return NULL;
	mutex_lock(&heap->mutex);
	/* Somewhere in a run that is so much longer, or in a segment, it is aligned. */
	err = grant_to(heap, slab, min_t(u32, nr_slices + nr_extra, XALLOC_SLAB_SLICES_MAX),
		       alignment, XALLOC_PAGE_CONTIG, EFFORT_STOCK);
	mutex_unlock(&heap->mutex);
	if (err)
		return NULL;
	block = (void *)slab->address;
	/* Not before all is entered: from here on whoever frees it, rightly or not, ends it. */
	WRITE_ONCE(slab->state[0], XALLOC_BLOCK_LIVE);
	return block;
}

/**
 * xalloc_slab_take_scattered() - slices that need not be neighbours in physical memory
 * @heap: the heap
 * @nr_slices: how many, at most the arena has
 *
 * Context: Process context, may sleep. Takes heap->mutex and arena->lock.
 * Return: the record of a slab with one block without address, LIVE; or NULL.
 */
struct xalloc_slab *xalloc_slab_take_scattered(struct xalloc_heap *heap, u32 nr_slices)
{
	struct xalloc_slab *slab = create_large_record(heap, 1);
	int err;

	if (!slab)
		return NULL;
	mutex_lock(&heap->mutex);
	err = grant_to(heap, slab, nr_slices, 1, 0, EFFORT_STOCK);
	mutex_unlock(&heap->mutex);
	if (err)
		return NULL;
	WRITE_ONCE(slab->state[0], XALLOC_BLOCK_LIVE);
	return slab;
}

/**
 * xalloc_slab_give_large() - end a large or mapped block
 * @heap: the heap
 * @slab: the record of its slab; the block is not LIVE any more
 *
 * Its page is given back by the worker.
 *
 * Context: Process and softirq context. Takes heap->lock.
 */
void xalloc_slab_give_large(struct xalloc_heap *heap, struct xalloc_slab *slab)
{
	spin_lock_bh(&heap->lock);
	heap->nr_large--;
	add_to_leaving(heap, slab);
	spin_unlock_bh(&heap->lock);
}

/* --- the heap's part of it */

/** xalloc_slab_heap_init() - initialise what of a heap is used here */
void xalloc_slab_heap_init(struct xalloc_heap *heap)
{
	struct xalloc_class *c;

	for (c = heap->classes; c < heap->classes + XALLOC_NR_CLASSES; c++) {
		spin_lock_init(&c->lock);
		INIT_LIST_HEAD(&c->partial);
	}
	mutex_init(&heap->mutex);
	spin_lock_init(&heap->lock);
	INIT_LIST_HEAD(&heap->slabs);
	INIT_LIST_HEAD(&heap->stock);
	INIT_LIST_HEAD(&heap->leaving);
	INIT_WORK(&heap->work, heap_work);
	heap->fill_after = jiffies;
}

/**
 * xalloc_slab_heap_fini() - forget all slabs of a heap, whatever is LIVE
 * @heap: the heap, of which nobody is a user any more
 *
 * Their pages stay with the client of the heap, and go with it.
 *
 * Context: Process context, may sleep.
 */
void xalloc_slab_heap_fini(struct xalloc_heap *heap)
{
	struct xalloc_slab *slab, *next;

	cancel_work_sync(&heap->work);
	list_for_each_entry_safe(slab, next, &heap->slabs, all) {
		if (slab->memory)
			map_remove(slab, slab->nr_slices);
		kfree_rcu(slab, rcu);
		cond_resched();
	}
	mutex_destroy(&heap->mutex);
}
