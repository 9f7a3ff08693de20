// SPDX-License-Identifier: GPL-2.0-only
/* xalloc_heap_is_valid() notices damage. */
#include <linux/bitops.h>
#include <linux/percpu.h>

#include "heap_fixture.h"

/* Each damages when called first, and mends when called again. */
struct damage_row {
	const char *desc;
	void (*damage)(struct xalloc_slab *slab, struct xalloc_magazine *mag);
};

static void damage_nr_free(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	slab->nr_free ^= 1;
}

static void damage_bit(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	__change_bit(slab->nr_blocks - 1, slab->free);
}

static void damage_bit_and_count(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	slab->nr_free += test_bit(0, slab->free) ? -1 : 1;
	__change_bit(0, slab->free);
}

static void damage_bit_behind(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	__change_bit(slab->nr_blocks, slab->free);
}

static void damage_live_state(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	slab->state[0] ^= XALLOC_BLOCK_LIVE;
}

static void damage_free_state(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	slab->state[slab->nr_blocks - 1] ^= XALLOC_BLOCK_LIVE;
}

static void damage_state(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	slab->state[0] ^= 0x40;
}

static void damage_class(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	slab->class ^= 1;
}

static void damage_owner(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	slab->heap = (void *)((unsigned long)slab->heap ^ 8);
}

static void damage_place(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	slab->memory ^= XALLOC_SEGMENT_BYTES;
	slab->address ^= XALLOC_SEGMENT_BYTES;
}

static void damage_length(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	slab->nr_slices ^= 2;
}

static void damage_partial(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	slab->heap->classes[slab->class].nr_partial ^= 1;
}

static void damage_nr_taken(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	slab->heap->classes[slab->class].nr_taken ^= 1;
}

static void damage_nr_slices(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	slab->heap->nr_slices ^= 1;
}

static void damage_nr_large(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	slab->heap->nr_large ^= 1;
}

static void damage_stock(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	slab->heap->nr_stock ^= 1;
}

static void damage_entry(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	mag->entries[0].state = (void *)((unsigned long)mag->entries[0].state ^ 1);
}

static void damage_nr_entries(struct xalloc_slab *slab, struct xalloc_magazine *mag)
{
	mag->nr ^= 1;
}

static const struct damage_row damages[] = {
	{ "a count of free blocks", damage_nr_free },
	{ "a bit of a free block", damage_bit },
	{ "a bit of a live block, with its count", damage_bit_and_count },
	{ "a bit behind those of blocks", damage_bit_behind },
	{ "a live block that is not", damage_live_state },
	{ "a free block that is live", damage_free_state },
	{ "a state that there is not", damage_state },
	{ "a class", damage_class },
	{ "an owner", damage_owner },
	{ "a place", damage_place },
	{ "a length", damage_length },
	{ "a count of slabs in a class", damage_partial },
	{ "a count of blocks taken in a class", damage_nr_taken },
	{ "a count of slices", damage_nr_slices },
	{ "a count of large blocks", damage_nr_large },
	{ "a count of slabs in the stock", damage_stock },
	{ "an entry of a magazine", damage_entry },
	{ "a count of entries", damage_nr_entries },
};

XALLOC_KUNIT_ROWS(damages, damage_row);

static void damage_is_seen(struct kunit *test)
{
	const struct damage_row *row = test->param_value;
	struct xalloc_magazine *mag;
	struct xalloc_slab *slab;
	void *block;

	fx_make_heap(test, 4, false);
	/*
	 * The first block, while the last ones are free in the slab and some in a magazine. Of the
	 * last word of its bits some are of no block.
	 */
	block = xalloc_heap_alloc(fx_heap, 640, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, block);
	rcu_read_lock();
	slab = xalloc_slab_of(block);
	rcu_read_unlock();
	mag = per_cpu_ptr(fx_heap->cpu, raw_smp_processor_id())
		      ->magazines[XALLOC_IN_TASK][slab->class];
	xalloc_heap_free(fx_heap, block);
	do {
		block = xalloc_heap_alloc(fx_heap, 640, GFP_KERNEL);
	} while (block && block != (void *)slab->address);
	KUNIT_ASSERT_NOT_NULL(test, block);
	xalloc_heap_free(fx_heap, xalloc_heap_alloc(fx_heap, 640, GFP_KERNEL));
	KUNIT_ASSERT_TRUE(test, xalloc_heap_is_valid(fx_heap));
	row->damage(slab, mag);
	KUNIT_EXPECT_FALSE(test, xalloc_heap_is_valid(fx_heap));
	row->damage(slab, mag);
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(damage_is_seen, damages_gen_params),
	{}
};

struct kunit_suite xalloc_heap_damage_suite = {
	.name = "xalloc_heap_damage",
	.init = fx_init,
	.exit = fx_heap_exit,
	.test_cases = cases,
};
