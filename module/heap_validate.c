// SPDX-License-Identifier: GPL-2.0-only
/*
 * Validation of heaps: prove what the heads of slab.h and slab.c say.
 *
 * Built for kernels with KUnit alone. Allocates nothing. Nobody may use the heap meanwhile.
 */
#include <linux/bitmap.h>
#include <linux/percpu.h>

#include "internal.h"
#include "slab.h"

struct tally {
	u64 nr_slices;
	u64 nr_large;
	u64 nr_blocks;	/* from here on, of slabs with a class */
	u64 nr_free;
	u64 nr_live;
	u64 nr_entries;
	u64 nr_with_free;
	u64 nr_listed;	/* slabs with a class in lists */
	u64 nr_taken;
};

static bool block_is_valid(const struct xalloc_slab *slab, u32 i, struct tally *tally)
{
	if (slab->state[i] == XALLOC_BLOCK_LIVE)
		tally->nr_live++;
	else if (slab->state[i] != XALLOC_BLOCK_FREE)
		return false;
	return !test_bit(i, slab->free) || slab->state[i] == XALLOC_BLOCK_FREE;
}

static bool slab_is_valid(struct xalloc_heap *heap, const struct xalloc_slab *slab,
			  struct tally *tally)
{
	const struct xalloc_class_shape *shape;
	u32 i;

	tally->nr_slices += slab->nr_slices;
	if (slab->heap != heap || slab->class > XALLOC_CLASS_NONE)
		return false;
	for (i = 0; slab->memory && i < slab->nr_slices; i++)
		if (xalloc_slab_of((void *)(slab->memory + i * XALLOC_SLICE_BYTES)) != slab)
			return false;
	/* Also in what the last word has beyond the blocks. */
	if (slab->nr_free != bitmap_weight(slab->free, slab->nr_blocks) ||
	    slab->nr_free != bitmap_weight(slab->free, ALIGN(slab->nr_blocks, BITS_PER_LONG)))
		return false;
	if (slab->class == XALLOC_CLASS_NONE)
		return !slab->nr_blocks && slab->nr_slices == 1;
	if (slab->class == XALLOC_CLASS_LARGE) {
		tally->nr_large += slab->state[0] == XALLOC_BLOCK_LIVE;
		return slab->nr_blocks == 1 && !slab->nr_free;
	}
	shape = &xalloc_class_shapes[slab->class];
	if (slab->nr_blocks != shape->nr_blocks || slab->block_bytes != shape->block_bytes ||
	    slab->nr_slices != shape->nr_slices || slab->address != slab->memory ||
	    slab->blocks_bytes > slab->nr_slices * XALLOC_SLICE_BYTES)
		return false;
	for (i = 0; i < slab->nr_blocks; i++)
		if (!block_is_valid(slab, i, tally))
			return false;
	tally->nr_blocks += slab->nr_blocks;
	tally->nr_free += slab->nr_free;
	tally->nr_with_free += !!slab->nr_free;
	return true;
}

static bool entry_is_valid(struct xalloc_heap *heap, u32 class,
			   const struct xalloc_slab_entry *entry)
{
	struct xalloc_slab *slab = xalloc_slab_of(entry->block);

	return slab && slab->heap == heap && slab->class == class &&
	       xalloc_slab_state(slab, entry->block) == entry->state &&
	       *entry->state == XALLOC_BLOCK_FREE &&
	       !test_bit(entry->state - slab->state, slab->free);
}

static bool magazines_are_valid(struct xalloc_heap *heap, struct tally *tally)
{
	const struct xalloc_magazine *mag;
	unsigned int cpu;
	u32 context, class, i;

	for_each_possible_cpu(cpu)
		for (context = 0; context < XALLOC_NR_CONTEXTS; context++)
			for (class = 0; class <= XALLOC_CLASS_LARGE; class++) {
				mag = per_cpu_ptr(heap->cpu, cpu)->magazines[context][class];
				if (mag->nr > mag->nr_max || mag->nr > XALLOC_MAGAZINE_ENTRIES_MAX)
					return false;
				for (i = 0; i < mag->nr; i++)
					if (!entry_is_valid(heap, class, &mag->entries[i]))
						return false;
				tally->nr_entries += mag->nr;
			}
	return true;
}

static bool lists_are_valid(struct xalloc_heap *heap, struct tally *tally)
{
	struct xalloc_class *c = heap->classes;
	const struct xalloc_slab *slab;
	bool empties;
	u32 nr;

	for (; c < heap->classes + XALLOC_NR_CLASSES; c++) {
		nr = 0;
		empties = false;
		list_for_each_entry(slab, &c->partial, link) {
			if (slab->class != c - heap->classes || !slab->nr_free)
				return false;
			if (empties && slab->nr_free < slab->nr_blocks)
				return false;
			empties = slab->nr_free == slab->nr_blocks;
			nr++;
		}
		if (nr != c->nr_partial)
			return false;
		tally->nr_listed += nr;
		tally->nr_taken += c->nr_taken;
	}
	nr = 0;
	list_for_each_entry(slab, &heap->stock, link) {
		if (slab->nr_slices != 1 || slab->nr_free != slab->nr_blocks)
			return false;
		tally->nr_listed += slab->class < XALLOC_NR_CLASSES;
		nr++;
	}
	return nr == heap->nr_stock && list_empty(&heap->leaving);
}

static u64 granted_slices(struct xalloc_client *client)
{
	const struct xalloc_page *page;
	u64 nr = 0;

	mutex_lock(&client->arena->lock);
	list_for_each_entry(page, &client->pages, link)
		nr += page->nr_slices;
	mutex_unlock(&client->arena->lock);
	return nr;
}

/**
 * xalloc_heap_is_valid() - see whether all that is said of heaps is true of one
 * @heap: the heap, which nobody uses meanwhile
 *
 * Context: Process context, may sleep.
 * Return: whether it is.
 */
bool xalloc_heap_is_valid(struct xalloc_heap *heap)
{
	const struct xalloc_slab *slab;
	struct tally tally = {};
	bool valid = true;

	flush_work(&heap->work);
	rcu_read_lock();
	list_for_each_entry(slab, &heap->slabs, all)
		valid = valid && slab_is_valid(heap, slab, &tally);
	valid = valid && magazines_are_valid(heap, &tally) && lists_are_valid(heap, &tally);
	rcu_read_unlock();
	return valid && tally.nr_with_free == tally.nr_listed &&
	       tally.nr_blocks == tally.nr_free + tally.nr_entries + tally.nr_live &&
	       tally.nr_taken == tally.nr_entries + tally.nr_live &&
	       tally.nr_large == heap->nr_large && tally.nr_slices == heap->nr_slices &&
	       tally.nr_slices == granted_slices(heap->client);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_heap_is_valid);
