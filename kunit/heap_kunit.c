// SPDX-License-Identifier: GPL-2.0-only
/* Heaps: blocks for kernel clients. Whatever changes a heap is followed by its validator. */
#include <linux/file.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "heap_fixture.h"

/* --- classes */

static void class_is_the_smallest_that_holds(struct kunit *test)
{
	size_t bytes;
	u32 class, at = 0;

	KUNIT_EXPECT_EQ(test, xalloc_class_shapes[XALLOC_NR_CLASSES - 1].block_bytes,
			XALLOC_SLICE_BYTES);
	for (bytes = 1; bytes <= XALLOC_SLICE_BYTES; bytes++) {
		if (bytes > xalloc_class_shapes[at].block_bytes)
			at++;
		class = xalloc_class_of(bytes);
		KUNIT_ASSERT_EQ(test, class, at);
		KUNIT_ASSERT_LE(test, bytes, xalloc_class_shapes[class].block_bytes);
	}
	KUNIT_EXPECT_EQ(test, at, XALLOC_NR_CLASSES - 1);
}

static void aligned_class_is_the_smallest_that_fits(struct kunit *test)
{
	u32 class, wanted, alignment;

	for (class = 0; class < XALLOC_NR_CLASSES; class++) {
		u32 bytes = xalloc_class_bytes(class);

		for (alignment = 1; alignment <= XALLOC_SLICE_BYTES; alignment *= 2) {
			for (wanted = class; xalloc_class_bytes(wanted) % alignment;)
				wanted++;
			KUNIT_ASSERT_EQ(test, xalloc_class_of_aligned(bytes, alignment), wanted);
		}
	}
}

static void classes_waste_little(struct kunit *test)
{
	const struct xalloc_class_shape *shape;
	u32 class, bytes, rest;

	for (class = 0; class < XALLOC_NR_CLASSES; class++) {
		shape = &xalloc_class_shapes[class];
		KUNIT_EXPECT_EQ(test, shape->block_bytes % XALLOC_CLASS_QUANTUM, 0);
		if (shape->block_bytes > XALLOC_CLASS_LINEAR_BYTES)
			KUNIT_EXPECT_LE(test, shape->block_bytes * 8, shape[-1].block_bytes * 9);
		bytes = shape->nr_slices * XALLOC_SLICE_BYTES;
		rest = bytes - shape->nr_blocks * shape->block_bytes;
		KUNIT_EXPECT_LE(test, rest, bytes / 8);
		KUNIT_EXPECT_LE(test, shape->nr_slices, XALLOC_SLAB_SLICES_MAX);
		if (shape->block_bytes <= XALLOC_HEAP_STOCK_BLOCK_MAX)
			KUNIT_EXPECT_EQ(test, shape->nr_slices, 1);
		KUNIT_EXPECT_LE(test, shape->nr_entries, XALLOC_MAGAZINE_ENTRIES_MAX);
		KUNIT_EXPECT_LE(test, shape->nr_batch, XALLOC_BATCH_ENTRIES_MAX);
		KUNIT_EXPECT_GT(test, shape->nr_entries, shape->nr_batch);
	}
}

static void reciprocals_divide(struct kunit *test)
{
	struct xalloc_slab slab = { .blocks_bytes = XALLOC_SEGMENT_BYTES };
	u32 class, nr, i;
	u64 index;

	for (class = 0; class < XALLOC_NR_CLASSES; class++) {
		u32 d = xalloc_class_shapes[class].block_bytes;

		slab.reciprocal = DIV_ROUND_UP_ULL(1ull << XALLOC_RECIPROCAL_SHIFT, d);
		nr = XALLOC_SEGMENT_BYTES / d;
		for (i = 0; i < nr; i++) {
			index = (u64)i * d * slab.reciprocal >> XALLOC_RECIPROCAL_SHIFT;
			KUNIT_ASSERT_EQ(test, index, i);
			index = ((u64)i * d + d - 1) * slab.reciprocal >> XALLOC_RECIPROCAL_SHIFT;
			KUNIT_ASSERT_EQ(test, index, i);
		}
	}
}

/* --- blocks */

static void every_class_serves(struct kunit *test)
{
	struct fx_held *held;
	u32 class, nr, i;

	fx_make_heap(test, 64, false);
	held = kunit_kzalloc(test, 300 * sizeof(*held), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, held);
	for (class = 0; class < XALLOC_NR_CLASSES; class++) {
		u32 bytes = xalloc_class_shapes[class].block_bytes;

		/* More than magazines and a slab hold. */
		nr = min(300u, 3 * xalloc_class_shapes[class].nr_blocks);
		for (i = 0; i < nr; i++) {
			held[i].block = xalloc_heap_alloc(fx_heap, bytes, GFP_KERNEL);
			held[i].bytes = bytes;
			held[i].stamp = class * 1000 + i;
			KUNIT_ASSERT_NOT_NULL(test, held[i].block);
			KUNIT_ASSERT_EQ(test, fx_physical(held[i].block) % 16, 0);
			if (is_power_of_2(bytes))
				KUNIT_ASSERT_EQ(test, fx_physical(held[i].block) % bytes, 0);
			fx_stamp(&held[i]);
		}
		KUNIT_ASSERT_EQ(test, fx_heap_stat(fx_heap).live_blocks, nr);
		KUNIT_ASSERT_TRUE(test, xalloc_heap_is_valid(fx_heap));
		for (i = 0; i < nr; i++) {
			KUNIT_ASSERT_TRUE(test, fx_has_stamp(&held[i]));
			xalloc_heap_free(fx_heap, held[i].block);
		}
		KUNIT_ASSERT_EQ(test, fx_heap_stat(fx_heap).live_blocks, 0);
		KUNIT_ASSERT_TRUE(test, xalloc_heap_is_valid(fx_heap));
	}
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).refused_frees, 0);
}

static void alignment_is_kept(struct kunit *test)
{
	static const size_t sizes[] = {
		1, 17, 100, 1000, 4097, 30000, 65536, 65537, 300000, 2097152,
	};
	size_t alignment;
	void *block;
	u32 i;

	fx_make_heap(test, 8, false);
	for (alignment = 1; alignment <= XALLOC_HEAP_BLOCK_MAX; alignment *= 2) {
		for (i = 0; i < ARRAY_SIZE(sizes); i++) {
			block = xalloc_heap_alloc_aligned(fx_heap, sizes[i], alignment, GFP_KERNEL);
			KUNIT_ASSERT_NOT_NULL(test, block);
			KUNIT_EXPECT_EQ(test, fx_physical(block) % alignment, 0);
			memset(block, 0xa5, sizes[i]);
			xalloc_heap_free(fx_heap, block);
		}
		KUNIT_ASSERT_TRUE(test, xalloc_heap_is_valid(fx_heap));
	}
	KUNIT_EXPECT_NULL(test, xalloc_heap_alloc_aligned(fx_heap, 64, 3, GFP_KERNEL));
	KUNIT_EXPECT_NULL(test, xalloc_heap_alloc_aligned(fx_heap, 64, 0, GFP_KERNEL));
	KUNIT_EXPECT_NULL(test, xalloc_heap_alloc_aligned(fx_heap, 64, XALLOC_HEAP_BLOCK_MAX * 2,
							  GFP_KERNEL));
	KUNIT_EXPECT_NULL(test, xalloc_heap_alloc(fx_heap, 0, GFP_KERNEL));
	KUNIT_EXPECT_NULL(test, xalloc_heap_alloc(fx_heap, XALLOC_HEAP_BLOCK_MAX + 1, GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).live_blocks, 0);
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).refused_frees, 0);
}

static void zero_clears_what_was_there(struct kunit *test)
{
	static const size_t sizes[] = { 5, 64, 1000, 20000, 65536, 200000 };
	u8 *block, *blocks[5];
	u32 i, j;

	fx_make_heap(test, 4, false);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		block = xalloc_heap_alloc(fx_heap, sizes[i], GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, block);
		memset(block, 0xff, sizes[i]);
		xalloc_heap_free(fx_heap, block);
		block = xalloc_heap_alloc(fx_heap, sizes[i], GFP_KERNEL | __GFP_ZERO);
		KUNIT_ASSERT_NOT_NULL(test, block);
		KUNIT_EXPECT_FALSE(test, memchr_inv(block, 0, sizes[i]));
		xalloc_heap_free(fx_heap, block);
		KUNIT_ASSERT_EQ(test, xalloc_heap_alloc_bulk(fx_heap, sizes[i], GFP_KERNEL,
							     ARRAY_SIZE(blocks), (void **)blocks),
				ARRAY_SIZE(blocks));
		for (j = 0; j < ARRAY_SIZE(blocks); j++)
			memset(blocks[j], 0xff, sizes[i]);
		xalloc_heap_free_bulk(fx_heap, ARRAY_SIZE(blocks), (void **)blocks);
		KUNIT_ASSERT_EQ(test, xalloc_heap_alloc_bulk(fx_heap, sizes[i],
							     GFP_KERNEL | __GFP_ZERO,
							     ARRAY_SIZE(blocks), (void **)blocks),
				ARRAY_SIZE(blocks));
		for (j = 0; j < ARRAY_SIZE(blocks); j++)
			KUNIT_EXPECT_FALSE(test, memchr_inv(blocks[j], 0, sizes[i]));
		xalloc_heap_free_bulk(fx_heap, ARRAY_SIZE(blocks), (void **)blocks);
	}
}

static void bulk_is_as_good_as_single(struct kunit *test)
{
	static const size_t sizes[] = { 16, 64, 1024, 9000, 65536, 100000 };
	void *blocks[100];
	struct fx_held held;
	u32 i, j, nr;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		fx_make_heap(test, 16, false);
		nr = sizes[i] > 9000 ? 20 : ARRAY_SIZE(blocks);
		KUNIT_ASSERT_EQ(test, xalloc_heap_alloc_bulk(fx_heap, sizes[i], GFP_KERNEL, nr,
							     blocks), nr);
		for (j = 0; j < nr; j++) {
			held = (struct fx_held){ blocks[j], sizes[i], j };
			fx_stamp(&held);
		}
		for (j = 0; j < nr; j++) {
			held = (struct fx_held){ blocks[j], sizes[i], j };
			KUNIT_ASSERT_TRUE(test, fx_has_stamp(&held));
		}
		KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).live_blocks, nr);
		blocks[1] = blocks[0];	/* one is freed twice, and one kept */
		xalloc_heap_free_bulk(fx_heap, nr, blocks);
		KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).live_blocks, 1);
		KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).refused_frees, 1);
		KUNIT_ASSERT_TRUE(test, xalloc_heap_is_valid(fx_heap));
		fx_drop_heap();
	}
}

/* --- wrong frees */

static void wrong_free_is_refused(struct kunit *test)
{
	const struct xalloc_heap_config other_config = { .arena_bytes = XALLOC_SEGMENT_BYTES };
	u8 on_stack = 0, *foreign = kunit_kzalloc(test, 64, GFP_KERNEL);
	u8 *mapped = vmalloc(PAGE_SIZE);
	struct xalloc_heap *other = xalloc_heap_create(&other_config);
	struct fx_held a = { .bytes = 100, .stamp = 1 }, b = { .bytes = 100, .stamp = 2 };
	u8 *large, *others;
	u64 nr = 0;

	fx_make_heap(test, 8, false);
	KUNIT_ASSERT_FALSE(test, IS_ERR(other));
	a.block = xalloc_heap_alloc(fx_heap, a.bytes, GFP_KERNEL);
	b.block = xalloc_heap_alloc(fx_heap, b.bytes, GFP_KERNEL);
	large = xalloc_heap_alloc(fx_heap, 300000, GFP_KERNEL);
	others = xalloc_heap_alloc(other, 100, GFP_KERNEL);
	fx_stamp(&a);
	fx_stamp(&b);

#define EXPECT_REFUSED(address) do {							\
	xalloc_heap_free(fx_heap, address);						\
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).refused_frees, ++nr);			\
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));				\
	KUNIT_EXPECT_TRUE(test, fx_has_stamp(&a) && fx_has_stamp(&b));			\
} while (0)

	EXPECT_REFUSED((u8 *)a.block + 1);
	EXPECT_REFUSED((u8 *)a.block + 16);
	EXPECT_REFUSED((u8 *)a.block - 1);
	EXPECT_REFUSED(large + 1);
	EXPECT_REFUSED(large + XALLOC_SLICE_BYTES);
	EXPECT_REFUSED(others);
	EXPECT_REFUSED(&on_stack);
	EXPECT_REFUSED(foreign);
	EXPECT_REFUSED(mapped);
	EXPECT_REFUSED((void *)wrong_free_is_refused);
	EXPECT_REFUSED((void *)1);
	EXPECT_REFUSED((void *)-1);
	EXPECT_REFUSED((void *)PAGE_OFFSET);
	EXPECT_REFUSED(high_memory);
	/* Behind the last block of its slab. */
	EXPECT_REFUSED((u8 *)ALIGN_DOWN((unsigned long)a.block - PAGE_OFFSET, XALLOC_SLICE_BYTES) +
		       PAGE_OFFSET + XALLOC_SLICE_BYTES - 16);
	xalloc_heap_free(fx_heap, NULL);
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).refused_frees, nr);
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).live_blocks, 3);
	KUNIT_EXPECT_EQ(test, fx_heap_stat(other).live_blocks, 1);

	xalloc_heap_free(fx_heap, large);
	EXPECT_REFUSED(large);
	xalloc_heap_free(other, others);
	xalloc_heap_destroy(other);
	EXPECT_REFUSED(others);
#undef EXPECT_REFUSED
	vfree(mapped);
}

static void double_free_is_refused_wherever_the_block_is(struct kunit *test)
{
	static void *blocks[1000];
	u32 i;

	fx_make_heap(test, 4, false);
	for (i = 0; i < ARRAY_SIZE(blocks); i++)
		blocks[i] = xalloc_heap_alloc(fx_heap, 640, GFP_KERNEL);
	for (i = 0; i < ARRAY_SIZE(blocks); i++)
		xalloc_heap_free(fx_heap, blocks[i]);
	/* Some lie in a magazine, some in slabs, the slabs of some are gone. */
	for (i = 0; i < ARRAY_SIZE(blocks); i++)
		xalloc_heap_free(fx_heap, blocks[i]);
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).refused_frees, ARRAY_SIZE(blocks));
	KUNIT_EXPECT_GT(test, fx_heap_stat(fx_heap).cached_blocks, 0);
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
	/* Each is to be had once. */
	for (i = 0; i < ARRAY_SIZE(blocks); i++) {
		blocks[i] = xalloc_heap_alloc(fx_heap, 640, GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, blocks[i]);
		*(u32 *)blocks[i] = i;
	}
	for (i = 0; i < ARRAY_SIZE(blocks); i++)
		KUNIT_ASSERT_EQ(test, *(u32 *)blocks[i], i);
}

/* --- magazines, stock, giving back */

static void drained_cpu_caches_nothing(struct kunit *test)
{
	void *task[40], *softirq[40];
	unsigned int cpu = raw_smp_processor_id();	/* the only one */
	u32 i;

	fx_make_heap(test, 4, false);
	for (i = 0; i < ARRAY_SIZE(task); i++)
		task[i] = xalloc_heap_alloc(fx_heap, 64 << i % 8, GFP_KERNEL);
	local_bh_disable();
	for (i = 0; i < ARRAY_SIZE(softirq); i++)
		softirq[i] = xalloc_heap_alloc(fx_heap, 64 << i % 8, GFP_ATOMIC);
	for (i = 0; i < ARRAY_SIZE(task); i++)
		xalloc_heap_free(fx_heap, task[i]);
	local_bh_enable();
	for (i = 0; i < ARRAY_SIZE(softirq); i++) {
		KUNIT_EXPECT_NOT_NULL(test, task[i]);
		KUNIT_EXPECT_NOT_NULL(test, softirq[i]);
		xalloc_heap_free(fx_heap, softirq[i]);
	}
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).live_blocks, 0);
	KUNIT_EXPECT_GE(test, fx_heap_stat(fx_heap).cached_blocks, 2 * ARRAY_SIZE(task));
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
	xalloc_heap_drain_cpu(fx_heap, cpu);
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).cached_blocks, 0);
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
	/* It works on as before, and is drained again by destroy. */
	task[0] = xalloc_heap_alloc(fx_heap, 64, GFP_KERNEL);
	KUNIT_EXPECT_NOT_NULL(test, task[0]);
	xalloc_heap_free(fx_heap, task[0]);
	KUNIT_EXPECT_GT(test, fx_heap_stat(fx_heap).cached_blocks, 0);
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).refused_frees, 0);
}

static void stock_serves_who_may_not_sleep(struct kunit *test)
{
	u64 before;
	u32 nr = 0;

	fx_make_heap(test, 4, false);
	before = fx_heap_stat(fx_heap).slab_bytes;
	KUNIT_EXPECT_GT(test, before, 0);
	KUNIT_EXPECT_NULL(test, xalloc_heap_alloc(fx_heap, 100000, GFP_ATOMIC));
	/* No schedule in between, so that the worker gets no chance. */
	preempt_disable();
	while (xalloc_heap_alloc(fx_heap, XALLOC_HEAP_STOCK_BLOCK_MAX, GFP_ATOMIC))
		nr++;
	preempt_enable();
	KUNIT_EXPECT_EQ(test, nr * XALLOC_HEAP_STOCK_BLOCK_MAX, before);
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).slab_bytes, before);
	/* And then it does. */
	KUNIT_EXPECT_TRUE(test, fx_wait_for(fx_heap_stat(fx_heap).slab_bytes == 2 * before));
	KUNIT_EXPECT_NOT_NULL(test, xalloc_heap_alloc(fx_heap, 1, GFP_NOWAIT));
	KUNIT_EXPECT_NOT_NULL(test, xalloc_heap_alloc(fx_heap, 1, GFP_NOFS));
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
}

/* What the stock alone has, while the worker gets no chance. Some of it is gone after that. */
static u32 count_stock(void)
{
	u32 nr = 0;

	preempt_disable();
	while (xalloc_heap_alloc(fx_heap, XALLOC_HEAP_STOCK_BLOCK_MAX, GFP_ATOMIC))
		nr++;
	preempt_enable();
	return nr;
}

#define NR_STOCK_BLOCKS (4 * (XALLOC_SLICE_BYTES / XALLOC_HEAP_STOCK_BLOCK_MAX))

static void stock_outlasts_who_may_sleep(struct kunit *test)
{
	u32 nr = 0;

	fx_make_heap(test, 1, false);
	while (xalloc_heap_alloc(fx_heap, 1024, GFP_KERNEL))
		nr++;
	KUNIT_EXPECT_EQ(test, nr, (XALLOC_SLICES_PER_SEGMENT - 4) * XALLOC_SLICE_BYTES / 1024);
	KUNIT_EXPECT_EQ(test, count_stock(), NR_STOCK_BLOCKS);
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
}

static void large_block_takes_other_empty_slabs_first(struct kunit *test)
{
	static void *blocks[XALLOC_SEGMENT_BYTES / 8192];
	struct xalloc_slab *last;
	u32 nr = 0;

	fx_make_heap(test, 1, false);
	while ((blocks[nr] = xalloc_heap_alloc(fx_heap, 8192, GFP_KERNEL)))
		nr++;
	xalloc_heap_free_bulk(fx_heap, nr, blocks);
	xalloc_heap_drain_cpu(fx_heap, raw_smp_processor_id());
	KUNIT_ASSERT_TRUE(test, xalloc_heap_is_valid(fx_heap));
	KUNIT_ASSERT_EQ(test, fx_heap->nr_stock, XALLOC_SLICES_PER_SEGMENT - 1);
	last = list_last_entry(&fx_heap->stock, struct xalloc_slab, link);
	KUNIT_EXPECT_NOT_NULL(test, xalloc_heap_alloc(fx_heap, 28 * XALLOC_SLICE_BYTES,
						      GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, fx_heap->nr_stock, 4);
	KUNIT_EXPECT_PTR_EQ(test, list_last_entry(&fx_heap->stock, struct xalloc_slab, link), last);
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
}

static void stock_that_a_large_block_took_is_filled_up(struct kunit *test)
{
	struct xalloc_heap_handle handle;
	struct xalloc_slab *slab;
	void *block, *large;

	fx_make_heap(test, 2, false);
	slab = list_first_entry(&fx_heap->stock, struct xalloc_slab, link);
	block = xalloc_heap_alloc(fx_heap, 28 * XALLOC_SLICE_BYTES, GFP_KERNEL);
	KUNIT_ASSERT_EQ(test, xalloc_heap_handle(fx_heap, block, &handle), 0);
	KUNIT_ASSERT_EQ(test, handle.offset / XALLOC_SEGMENT_BYTES,
			slab->slice / XALLOC_SLICES_PER_SEGMENT);
	/* In the other segment, so that the first is the only one with room for the large one. */
	KUNIT_ASSERT_NOT_NULL(test, xalloc_heap_alloc(fx_heap, 2 * XALLOC_SLICE_BYTES, GFP_KERNEL));
	xalloc_heap_free(fx_heap, block);
	large = xalloc_heap_alloc(fx_heap, XALLOC_SEGMENT_BYTES, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, large);
	KUNIT_ASSERT_EQ(test, xalloc_heap_handle(fx_heap, large, &handle), 0);
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
	KUNIT_EXPECT_EQ(test, count_stock(), NR_STOCK_BLOCKS);
}

/* Blocks of a slab of the stock, one call after the other. */
static void take_slab_of_stock(struct kunit *test)
{
	u32 i;

	for (i = 0; i < XALLOC_SLICE_BYTES / 4096; i++)
		KUNIT_ASSERT_NOT_NULL(test, xalloc_heap_alloc(fx_heap, 4096, GFP_ATOMIC));
}

static void stock_waits_for_who_makes_room(struct kunit *test)
{
	void *block;

	/* 4 slices of stock, one with a block, all others. */
	fx_make_heap(test, 1, false);
	block = xalloc_heap_alloc(fx_heap, 8192, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, xalloc_heap_alloc(fx_heap, 27 * XALLOC_SLICE_BYTES,
						      GFP_KERNEL));
	take_slab_of_stock(test);
	take_slab_of_stock(test);
	flush_work(&fx_heap->work);
	xalloc_heap_free(fx_heap, block);
	xalloc_heap_drain_cpu(fx_heap, raw_smp_processor_id());
	KUNIT_ASSERT_EQ(test, fx_heap->nr_stock, 2);
	/* The slice that is empty is for this, though the stock is low. */
	KUNIT_EXPECT_NOT_NULL(test, xalloc_heap_alloc(fx_heap, 2048, GFP_KERNEL));
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
	KUNIT_EXPECT_EQ(test, count_stock(), NR_STOCK_BLOCKS / 2);
}

static void worker_lets_time_pass_when_there_is_no_memory(struct kunit *test)
{
	unsigned long before;
	void *block;

	fx_make_heap(test, 1, false);
	block = xalloc_heap_alloc(fx_heap, 28 * XALLOC_SLICE_BYTES, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, block);
	before = jiffies;
	take_slab_of_stock(test);
	flush_work(&fx_heap->work);
	KUNIT_ASSERT_EQ(test, fx_heap->nr_stock, 3);
	KUNIT_ASSERT_TRUE(test, time_after(READ_ONCE(fx_heap->fill_after), before));
	/* Not the time itself, which may have passed by now. */
	WRITE_ONCE(fx_heap->fill_after, jiffies + HZ * 3600);
	preempt_disable();
	take_slab_of_stock(test);
	KUNIT_EXPECT_FALSE(test, work_pending(&fx_heap->work));
	preempt_enable();
	WRITE_ONCE(fx_heap->fill_after, jiffies);
	preempt_disable();
	take_slab_of_stock(test);
	KUNIT_EXPECT_TRUE(test, work_pending(&fx_heap->work));
	preempt_enable();
	flush_work(&fx_heap->work);
	KUNIT_EXPECT_EQ(test, fx_heap->nr_stock, 1);
	/* Memory that comes back is worth a try at once. */
	xalloc_heap_free(fx_heap, block);
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
	KUNIT_EXPECT_EQ(test, fx_heap->nr_stock, 4);
}

static void dying_task_commits_nothing(struct kunit *test)
{
	void *here, *more;

	fx_make_heap(test, 2, false);
	/* Not sent: a thread of the kernel would block it. */
	sigaddset(&current->pending.signal, SIGKILL);
	set_thread_flag(TIF_SIGPENDING);
	here = xalloc_heap_alloc(fx_heap, 2 * XALLOC_SLICE_BYTES, GFP_KERNEL);
	more = xalloc_heap_alloc(fx_heap, XALLOC_SEGMENT_BYTES, GFP_KERNEL);
	sigdelset(&current->pending.signal, SIGKILL);
	recalc_sigpending();
	KUNIT_EXPECT_NOT_NULL(test, here);
	KUNIT_EXPECT_NULL(test, more);
	KUNIT_EXPECT_NOT_NULL(test, xalloc_heap_alloc(fx_heap, XALLOC_SEGMENT_BYTES, GFP_KERNEL));
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
}

static void empty_slabs_make_room(struct kunit *test)
{
	static const size_t sizes[] = { 8000, 300, 40000, 65536, 2097152, 16, 1048576, 5000 };
	static void *blocks[140000];
	u32 round, nr, i;

	/* All of the arena for one size after the other. */
	fx_make_heap(test, 1, false);
	for (round = 0; round < ARRAY_SIZE(sizes); round++) {
		for (nr = 0; nr < ARRAY_SIZE(blocks); nr++) {
			blocks[nr] = xalloc_heap_alloc(fx_heap, sizes[round], GFP_KERNEL) ?:
				     xalloc_heap_alloc(fx_heap, sizes[round], GFP_ATOMIC);
			if (!blocks[nr])
				break;
		}
		/* The first long blocks may lie where others find no room beside them. */
		KUNIT_EXPECT_GE_MSG(test, nr * sizes[round], sizes[round] > 8192 ?
				    XALLOC_SEGMENT_BYTES / 2 : XALLOC_SEGMENT_BYTES * 7 / 8,
				    "blocks of %zu", sizes[round]);
		KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
		for (i = 0; i < nr; i++)
			xalloc_heap_free(fx_heap, blocks[i]);
		KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
		/* Two of a class, or what the cache of the next rounds must not keep. */
		xalloc_heap_drain_cpu(fx_heap, raw_smp_processor_id());
	}
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).live_blocks, 0);
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).refused_frees, 0);
}

static void empty_slabs_are_given_back(struct kunit *test)
{
	static void *blocks[5000];
	u32 i, round;

	fx_make_heap(test, 32, false);
	for (round = 0; round < 3; round++) {
		for (i = 0; i < ARRAY_SIZE(blocks); i++)
			blocks[i] = xalloc_heap_alloc(fx_heap, 8192, GFP_KERNEL);
		KUNIT_EXPECT_GE(test, fx_heap_stat(fx_heap).slab_bytes, ARRAY_SIZE(blocks) * 8192);
		for (i = 0; i < ARRAY_SIZE(blocks); i++)
			xalloc_heap_free(fx_heap, blocks[i]);
		KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
		/* The stock, one in the class, and what the entries of a magazine lie in. */
		KUNIT_EXPECT_LE(test, fx_heap_stat(fx_heap).slab_bytes,
				XALLOC_SEGMENT_BYTES + (1 + 8) * XALLOC_SLICE_BYTES);
	}
}

/* --- where blocks are, and what user space gets */

static void handle_leads_to_the_same_memory(struct kunit *test)
{
	static const size_t sizes[] = { 16, 900, 8192, 50000, 65536, 700000, 2097152 };
	struct xalloc_heap_handle handle;
	struct xalloc_arena *arena;
	u8 *block;
	u32 i;

	fx_make_heap(test, 8, true);
	arena = fx_heap->client->arena;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		block = xalloc_heap_alloc_aligned(fx_heap, sizes[i], 4096 << i, GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, block);
		KUNIT_ASSERT_EQ(test, xalloc_heap_handle(fx_heap, block, &handle), 0);
		KUNIT_EXPECT_EQ(test, handle.arena_id, arena->id);
		KUNIT_EXPECT_PTR_EQ(test, (u8 *)fx_slice_memory(arena, handle.offset /
								XALLOC_SLICE_BYTES) +
				    handle.offset % XALLOC_SLICE_BYTES, block);
		KUNIT_EXPECT_EQ(test, xalloc_heap_handle(fx_heap, block + 8, &handle), -EINVAL);
		xalloc_heap_free(fx_heap, block);
		KUNIT_EXPECT_EQ(test, xalloc_heap_handle(fx_heap, block, &handle), -EINVAL);
	}
	KUNIT_EXPECT_EQ(test, xalloc_heap_handle(fx_heap, NULL, &handle), -EINVAL);
	KUNIT_EXPECT_EQ(test, xalloc_heap_handle(fx_heap, &handle, &handle), -EINVAL);
}

static void others_cannot_free_the_heaps_pages(struct kunit *test)
{
	struct xalloc_heap_handle handle;
	struct file *reader, *writer;
	void *block;

	fx_make_heap(test, 4, true);
	block = xalloc_heap_alloc(fx_heap, XALLOC_SEGMENT_BYTES, GFP_KERNEL);
	KUNIT_ASSERT_EQ(test, xalloc_heap_handle(fx_heap, block, &handle), 0);
	reader = xalloc_heap_file(fx_heap, O_RDONLY);
	writer = xalloc_heap_file(fx_heap, O_RDWR);
	KUNIT_ASSERT_FALSE(test, IS_ERR(reader) || IS_ERR(writer));
	/* No user sets its limit, whatever the capabilities of that user. */
	KUNIT_EXPECT_FALSE(test, file_owner_or_capable(writer));
	KUNIT_EXPECT_TRUE(test, reader->f_mode & FMODE_READ);
	KUNIT_EXPECT_FALSE(test, reader->f_mode & FMODE_WRITE);
	KUNIT_EXPECT_TRUE(test, writer->f_mode & FMODE_WRITE);
	KUNIT_EXPECT_PTR_EQ(test, file_inode(reader), file_inode(writer));
	KUNIT_EXPECT_EQ(test, fx_free_offset(writer->private_data, handle.offset), -EPERM);
	KUNIT_EXPECT_EQ(test, PTR_ERR(xalloc_heap_file(fx_heap, O_WRONLY)), -EINVAL);
	/* The arena outlives the heap as long as user space has a file. */
	fx_drop_heap();
	flush_delayed_fput();
	KUNIT_EXPECT_EQ(test, fx_counted(test->priv, XALLOC_NR_ARENAS), 1);
	KUNIT_EXPECT_EQ(test, fx_counted(test->priv, XALLOC_NR_GRANTED_SLICES), 0);
	fput(reader);
	fput(writer);
	fx_make_heap(test, 4, false);
	KUNIT_EXPECT_EQ(test, PTR_ERR(xalloc_heap_file(fx_heap, O_RDONLY)), -EINVAL);
}

static void mapped_block_is_longer_than_a_segment(struct kunit *test)
{
	const size_t bytes = 3 * XALLOC_SEGMENT_BYTES + 12345;
	struct xalloc_heap_handle handle;
	struct xalloc_arena *arena;
	u8 *block, *other;
	size_t at;

	fx_make_heap(test, 8, true);
	arena = fx_heap->client->arena;
	other = xalloc_heap_vmap(fx_heap, 1);
	block = xalloc_heap_vmap(fx_heap, bytes);
	KUNIT_ASSERT_NOT_NULL(test, block);
	KUNIT_ASSERT_NOT_NULL(test, other);
	KUNIT_ASSERT_EQ(test, xalloc_heap_handle(fx_heap, block, &handle), 0);
	for (at = 0; at < bytes; at += PAGE_SIZE) {
		u64 offset = handle.offset + at;

		block[at] = at / PAGE_SIZE;
		KUNIT_ASSERT_EQ(test, ((u8 *)fx_slice_memory(arena, offset / XALLOC_SLICE_BYTES))
				[offset % XALLOC_SLICE_BYTES], (u8)(at / PAGE_SIZE));
	}
	KUNIT_EXPECT_EQ(test, xalloc_heap_handle(fx_heap, block + PAGE_SIZE, &handle), -EINVAL);
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).live_blocks, 2);
	KUNIT_EXPECT_NULL(test, xalloc_heap_vmap(fx_heap, 0));
	KUNIT_EXPECT_NULL(test, xalloc_heap_vmap(fx_heap, 9 * XALLOC_SEGMENT_BYTES));
	KUNIT_EXPECT_NULL(test, xalloc_heap_vmap(fx_heap, 8 * XALLOC_SEGMENT_BYTES));
	xalloc_heap_vunmap(fx_heap, block + 1);
	xalloc_heap_free(fx_heap, block);
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).refused_frees, 2);
	xalloc_heap_vunmap(fx_heap, block);
	xalloc_heap_vunmap(fx_heap, block);
	xalloc_heap_vunmap(fx_heap, NULL);
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).refused_frees, 3);
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).live_blocks, 1);
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(fx_heap));
	/* The other is left to destroy. */
}

static void destroy_frees_everything(struct kunit *test)
{
	u32 i;

	fx_make_heap(test, 32, false);
	for (i = 0; i < 2000; i++)
		KUNIT_ASSERT_NOT_NULL(test, xalloc_heap_alloc(fx_heap, 1 + i * 7, GFP_KERNEL));
	KUNIT_ASSERT_NOT_NULL(test, xalloc_heap_alloc(fx_heap, 1000000, GFP_KERNEL));
	KUNIT_ASSERT_NOT_NULL(test, xalloc_heap_vmap(fx_heap, 5000000));
	KUNIT_EXPECT_EQ(test, fx_heap_stat(fx_heap).live_blocks, 2002);
	fx_drop_heap();
	KUNIT_EXPECT_TRUE(test, fx_nothing_counted(test->priv));
}

static struct kunit_case cases[] = {
	KUNIT_CASE(class_is_the_smallest_that_holds),
	KUNIT_CASE(aligned_class_is_the_smallest_that_fits),
	KUNIT_CASE(classes_waste_little),
	KUNIT_CASE(reciprocals_divide),
	KUNIT_CASE(every_class_serves),
	KUNIT_CASE(alignment_is_kept),
	KUNIT_CASE(zero_clears_what_was_there),
	KUNIT_CASE(bulk_is_as_good_as_single),
	KUNIT_CASE(wrong_free_is_refused),
	KUNIT_CASE(double_free_is_refused_wherever_the_block_is),
	KUNIT_CASE(drained_cpu_caches_nothing),
	KUNIT_CASE(stock_serves_who_may_not_sleep),
	KUNIT_CASE(stock_outlasts_who_may_sleep),
	KUNIT_CASE(large_block_takes_other_empty_slabs_first),
	KUNIT_CASE(stock_that_a_large_block_took_is_filled_up),
	KUNIT_CASE(stock_waits_for_who_makes_room),
	KUNIT_CASE(worker_lets_time_pass_when_there_is_no_memory),
	KUNIT_CASE(dying_task_commits_nothing),
	KUNIT_CASE(empty_slabs_make_room),
	KUNIT_CASE(empty_slabs_are_given_back),
	KUNIT_CASE(handle_leads_to_the_same_memory),
	KUNIT_CASE(others_cannot_free_the_heaps_pages),
	KUNIT_CASE(mapped_block_is_longer_than_a_segment),
	KUNIT_CASE(destroy_frees_everything),
	{}
};

struct kunit_suite xalloc_heap_suite = {
	.name = "xalloc_heap",
	.init = fx_init,
	.exit = fx_heap_exit,
	.test_cases = cases,
};
