// SPDX-License-Identifier: GPL-2.0-only
/* Heaps: blocks for kernel clients. Whatever changes a heap is followed by its validator. */
#include <linux/file.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "../module/slab.h"
#include "fixture.h"

static struct xalloc_heap *heap;	/* of the case; cases run one after the other */

static struct xalloc_heap *make_heap(struct kunit *test, u32 nr_segments, bool mappable)
{
	const struct xalloc_heap_config config = {
		.arena_bytes = nr_segments * (u64)XALLOC_SEGMENT_BYTES,
		.mappable = mappable,
	};

	heap = xalloc_heap_create(&config);
	if (IS_ERR(heap)) {
		KUNIT_EXPECT_EQ(test, PTR_ERR(heap), 0);
		heap = NULL;
	}
	KUNIT_ASSERT_NOT_NULL(test, heap);
	return heap;
}

static void drop_heap(void)
{
	xalloc_heap_destroy(heap);
	heap = NULL;
}

static void heap_exit(struct kunit *test)
{
	drop_heap();
	fx_exit(test);
}

static struct xalloc_heap_stat stat_of(struct xalloc_heap *h)
{
	struct xalloc_heap_stat stat;

	xalloc_heap_stat(h, &stat);
	return stat;
}

static unsigned long physical(const void *block)
{
	return (unsigned long)block - PAGE_OFFSET;
}

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

/* --- a block's memory says whose it is, so that an overlap of any kind shows */

struct held {
	void *block;
	size_t bytes;
	u32 stamp;
};

static void stamp_block(const struct held *held)
{
	u8 *byte = held->block;

	if (held->bytes <= 8192) {
		memset(byte, held->stamp, held->bytes);
	} else {
		memset(byte, held->stamp, 4096);
		memset(byte + held->bytes - 4096, held->stamp, 4096);
	}
	if (held->bytes >= 2 * sizeof(u32)) {
		memcpy(byte, &held->stamp, sizeof(u32));
		memcpy(byte + held->bytes - sizeof(u32), &held->stamp, sizeof(u32));
	}
}

static bool has_stamp(const struct held *held)
{
	u8 *byte = held->block, value = held->stamp;
	u32 inner = 0;

	if (held->bytes >= 2 * sizeof(u32)) {
		inner = sizeof(u32);
		if (memcmp(byte, &held->stamp, inner) ||
		    memcmp(byte + held->bytes - inner, &held->stamp, inner))
			return false;
	}
	if (held->bytes <= 8192)
		return !memchr_inv(byte + inner, value, held->bytes - 2 * inner);
	return !memchr_inv(byte + inner, value, 4096 - inner) &&
	       !memchr_inv(byte + held->bytes - 4096, value, 4096 - inner);
}

static void every_class_serves(struct kunit *test)
{
	struct held *held;
	u32 class, nr, i;

	make_heap(test, 64, false);
	held = kunit_kzalloc(test, 300 * sizeof(*held), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, held);
	for (class = 0; class < XALLOC_NR_CLASSES; class++) {
		u32 bytes = xalloc_class_shapes[class].block_bytes;

		/* More than magazines and a slab hold. */
		nr = min(300u, 3 * xalloc_class_shapes[class].nr_blocks);
		for (i = 0; i < nr; i++) {
			held[i].block = xalloc_heap_alloc(heap, bytes, GFP_KERNEL);
			held[i].bytes = bytes;
			held[i].stamp = class * 1000 + i;
			KUNIT_ASSERT_NOT_NULL(test, held[i].block);
			KUNIT_ASSERT_EQ(test, physical(held[i].block) % 16, 0);
			if (is_power_of_2(bytes))
				KUNIT_ASSERT_EQ(test, physical(held[i].block) % bytes, 0);
			stamp_block(&held[i]);
		}
		KUNIT_ASSERT_EQ(test, stat_of(heap).live_blocks, nr);
		KUNIT_ASSERT_TRUE(test, xalloc_heap_is_valid(heap));
		for (i = 0; i < nr; i++) {
			KUNIT_ASSERT_TRUE(test, has_stamp(&held[i]));
			xalloc_heap_free(heap, held[i].block);
		}
		KUNIT_ASSERT_EQ(test, stat_of(heap).live_blocks, 0);
		KUNIT_ASSERT_TRUE(test, xalloc_heap_is_valid(heap));
	}
	KUNIT_EXPECT_EQ(test, stat_of(heap).refused_frees, 0);
}

static void alignment_is_kept(struct kunit *test)
{
	static const size_t sizes[] = {
		1, 17, 100, 1000, 4097, 30000, 65536, 65537, 300000, 2097152,
	};
	size_t alignment;
	void *block;
	u32 i;

	make_heap(test, 8, false);
	for (alignment = 1; alignment <= XALLOC_HEAP_BLOCK_MAX; alignment *= 2) {
		for (i = 0; i < ARRAY_SIZE(sizes); i++) {
			block = xalloc_heap_alloc_aligned(heap, sizes[i], alignment, GFP_KERNEL);
			KUNIT_ASSERT_NOT_NULL(test, block);
			KUNIT_EXPECT_EQ(test, physical(block) % alignment, 0);
			memset(block, 0xa5, sizes[i]);
			xalloc_heap_free(heap, block);
		}
		KUNIT_ASSERT_TRUE(test, xalloc_heap_is_valid(heap));
	}
	KUNIT_EXPECT_NULL(test, xalloc_heap_alloc_aligned(heap, 64, 3, GFP_KERNEL));
	KUNIT_EXPECT_NULL(test, xalloc_heap_alloc_aligned(heap, 64, 0, GFP_KERNEL));
	KUNIT_EXPECT_NULL(test, xalloc_heap_alloc_aligned(heap, 64, XALLOC_HEAP_BLOCK_MAX * 2,
							  GFP_KERNEL));
	KUNIT_EXPECT_NULL(test, xalloc_heap_alloc(heap, 0, GFP_KERNEL));
	KUNIT_EXPECT_NULL(test, xalloc_heap_alloc(heap, XALLOC_HEAP_BLOCK_MAX + 1, GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, stat_of(heap).live_blocks, 0);
	KUNIT_EXPECT_EQ(test, stat_of(heap).refused_frees, 0);
}

static void zero_clears_what_was_there(struct kunit *test)
{
	static const size_t sizes[] = { 5, 64, 1000, 20000, 65536, 200000 };
	u8 *block;
	u32 i;

	make_heap(test, 4, false);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		block = xalloc_heap_alloc(heap, sizes[i], GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, block);
		memset(block, 0xff, sizes[i]);
		xalloc_heap_free(heap, block);
		block = xalloc_heap_alloc(heap, sizes[i], GFP_KERNEL | __GFP_ZERO);
		KUNIT_ASSERT_NOT_NULL(test, block);
		KUNIT_EXPECT_FALSE(test, memchr_inv(block, 0, sizes[i]));
		memset(block, 0xff, sizes[i]);
		xalloc_heap_free(heap, block);
		KUNIT_EXPECT_EQ(test, xalloc_heap_alloc_bulk(heap, sizes[i],
							     GFP_KERNEL | __GFP_ZERO, 1,
							     (void **)&block), 1);
		KUNIT_EXPECT_FALSE(test, memchr_inv(block, 0, sizes[i]));
		xalloc_heap_free(heap, block);
	}
}

static void bulk_is_as_good_as_single(struct kunit *test)
{
	static const size_t sizes[] = { 16, 64, 1024, 9000, 65536, 100000 };
	void *blocks[100];
	struct held held;
	u32 i, j, nr;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		make_heap(test, 16, false);
		nr = sizes[i] > 9000 ? 20 : ARRAY_SIZE(blocks);
		KUNIT_ASSERT_EQ(test, xalloc_heap_alloc_bulk(heap, sizes[i], GFP_KERNEL, nr,
							     blocks), nr);
		for (j = 0; j < nr; j++) {
			held = (struct held){ blocks[j], sizes[i], j };
			stamp_block(&held);
		}
		for (j = 0; j < nr; j++) {
			held = (struct held){ blocks[j], sizes[i], j };
			KUNIT_ASSERT_TRUE(test, has_stamp(&held));
		}
		KUNIT_EXPECT_EQ(test, stat_of(heap).live_blocks, nr);
		blocks[1] = blocks[0];	/* one is freed twice, and one kept */
		xalloc_heap_free_bulk(heap, nr, blocks);
		KUNIT_EXPECT_EQ(test, stat_of(heap).live_blocks, 1);
		KUNIT_EXPECT_EQ(test, stat_of(heap).refused_frees, 1);
		KUNIT_ASSERT_TRUE(test, xalloc_heap_is_valid(heap));
		drop_heap();
	}
}

/* --- wrong frees */

static void wrong_free_is_refused(struct kunit *test)
{
	const struct xalloc_heap_config other_config = { .arena_bytes = XALLOC_SEGMENT_BYTES };
	u8 on_stack = 0, *foreign = kunit_kzalloc(test, 64, GFP_KERNEL);
	u8 *mapped = vmalloc(PAGE_SIZE);
	struct xalloc_heap *other = xalloc_heap_create(&other_config);
	struct held a = { .bytes = 100, .stamp = 1 }, b = { .bytes = 100, .stamp = 2 };
	u8 *large, *others;
	u64 nr = 0;

	make_heap(test, 8, false);
	KUNIT_ASSERT_FALSE(test, IS_ERR(other));
	a.block = xalloc_heap_alloc(heap, a.bytes, GFP_KERNEL);
	b.block = xalloc_heap_alloc(heap, b.bytes, GFP_KERNEL);
	large = xalloc_heap_alloc(heap, 300000, GFP_KERNEL);
	others = xalloc_heap_alloc(other, 100, GFP_KERNEL);
	stamp_block(&a);
	stamp_block(&b);

#define EXPECT_REFUSED(address) do {							\
	xalloc_heap_free(heap, address);						\
	KUNIT_EXPECT_EQ(test, stat_of(heap).refused_frees, ++nr);			\
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(heap));				\
	KUNIT_EXPECT_TRUE(test, has_stamp(&a) && has_stamp(&b));			\
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
		       PAGE_OFFSET + XALLOC_SLICE_BYTES - 64);
	xalloc_heap_free(heap, NULL);
	KUNIT_EXPECT_EQ(test, stat_of(heap).refused_frees, nr);
	KUNIT_EXPECT_EQ(test, stat_of(heap).live_blocks, 3);
	KUNIT_EXPECT_EQ(test, stat_of(other).live_blocks, 1);

	xalloc_heap_free(heap, large);
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

	make_heap(test, 4, false);
	for (i = 0; i < ARRAY_SIZE(blocks); i++)
		blocks[i] = xalloc_heap_alloc(heap, 640, GFP_KERNEL);
	for (i = 0; i < ARRAY_SIZE(blocks); i++)
		xalloc_heap_free(heap, blocks[i]);
	/* Some lie in a magazine, some in slabs, the slabs of some are gone. */
	for (i = 0; i < ARRAY_SIZE(blocks); i++)
		xalloc_heap_free(heap, blocks[i]);
	KUNIT_EXPECT_EQ(test, stat_of(heap).refused_frees, ARRAY_SIZE(blocks));
	KUNIT_EXPECT_GT(test, stat_of(heap).cached_blocks, 0);
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(heap));
	/* Each is to be had once. */
	for (i = 0; i < ARRAY_SIZE(blocks); i++) {
		blocks[i] = xalloc_heap_alloc(heap, 640, GFP_KERNEL);
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

	make_heap(test, 4, false);
	for (i = 0; i < ARRAY_SIZE(task); i++)
		task[i] = xalloc_heap_alloc(heap, 64 << i % 8, GFP_KERNEL);
	local_bh_disable();
	for (i = 0; i < ARRAY_SIZE(softirq); i++)
		softirq[i] = xalloc_heap_alloc(heap, 64 << i % 8, GFP_ATOMIC);
	for (i = 0; i < ARRAY_SIZE(task); i++)
		xalloc_heap_free(heap, task[i]);
	local_bh_enable();
	for (i = 0; i < ARRAY_SIZE(softirq); i++) {
		KUNIT_EXPECT_NOT_NULL(test, task[i]);
		KUNIT_EXPECT_NOT_NULL(test, softirq[i]);
		xalloc_heap_free(heap, softirq[i]);
	}
	KUNIT_EXPECT_EQ(test, stat_of(heap).live_blocks, 0);
	KUNIT_EXPECT_GE(test, stat_of(heap).cached_blocks, 2 * ARRAY_SIZE(task));
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(heap));
	xalloc_heap_drain_cpu(heap, cpu);
	KUNIT_EXPECT_EQ(test, stat_of(heap).cached_blocks, 0);
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(heap));
	/* It works on as before, and is drained again by destroy. */
	task[0] = xalloc_heap_alloc(heap, 64, GFP_KERNEL);
	KUNIT_EXPECT_NOT_NULL(test, task[0]);
	xalloc_heap_free(heap, task[0]);
	KUNIT_EXPECT_GT(test, stat_of(heap).cached_blocks, 0);
	KUNIT_EXPECT_EQ(test, stat_of(heap).refused_frees, 0);
}

static void stock_serves_who_may_not_sleep(struct kunit *test)
{
	u64 before;
	u32 nr = 0;

	make_heap(test, 4, false);
	before = stat_of(heap).slab_bytes;
	KUNIT_EXPECT_GT(test, before, 0);
	KUNIT_EXPECT_NULL(test, xalloc_heap_alloc(heap, 100000, GFP_ATOMIC));
	/* No schedule in between, so that the worker gets no chance. */
	preempt_disable();
	while (xalloc_heap_alloc(heap, XALLOC_HEAP_STOCK_BLOCK_MAX, GFP_ATOMIC))
		nr++;
	preempt_enable();
	KUNIT_EXPECT_EQ(test, nr * XALLOC_HEAP_STOCK_BLOCK_MAX, before);
	KUNIT_EXPECT_EQ(test, stat_of(heap).slab_bytes, before);
	/* And then it does. */
	KUNIT_EXPECT_TRUE(test, fx_wait_for(stat_of(heap).slab_bytes == 2 * before));
	KUNIT_EXPECT_NOT_NULL(test, xalloc_heap_alloc(heap, 1, GFP_NOWAIT));
	KUNIT_EXPECT_NOT_NULL(test, xalloc_heap_alloc(heap, 1, GFP_NOFS));
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(heap));
}

static void empty_slabs_make_room(struct kunit *test)
{
	static const size_t sizes[] = { 8000, 300, 40000, 65536, 2097152, 16, 1048576, 5000 };
	static void *blocks[140000];
	u32 round, nr, i;

	/* All of the arena for one size after the other. */
	make_heap(test, 1, false);
	for (round = 0; round < ARRAY_SIZE(sizes); round++) {
		for (nr = 0; nr < ARRAY_SIZE(blocks); nr++) {
			blocks[nr] = xalloc_heap_alloc(heap, sizes[round], GFP_KERNEL);
			if (!blocks[nr])
				break;
		}
		/* The first long blocks may lie where others find no room beside them. */
		KUNIT_EXPECT_GE_MSG(test, nr * sizes[round], sizes[round] > 8192 ?
				    XALLOC_SEGMENT_BYTES / 2 : XALLOC_SEGMENT_BYTES * 7 / 8,
				    "blocks of %zu", sizes[round]);
		KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(heap));
		for (i = 0; i < nr; i++)
			xalloc_heap_free(heap, blocks[i]);
		KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(heap));
		/* Two of a class, or what the cache of the next rounds must not keep. */
		xalloc_heap_drain_cpu(heap, raw_smp_processor_id());
	}
	KUNIT_EXPECT_EQ(test, stat_of(heap).live_blocks, 0);
	KUNIT_EXPECT_EQ(test, stat_of(heap).refused_frees, 0);
}

static void empty_slabs_are_given_back(struct kunit *test)
{
	static void *blocks[5000];
	u32 i, round;

	make_heap(test, 32, false);
	for (round = 0; round < 3; round++) {
		for (i = 0; i < ARRAY_SIZE(blocks); i++)
			blocks[i] = xalloc_heap_alloc(heap, 8192, GFP_KERNEL);
		KUNIT_EXPECT_GE(test, stat_of(heap).slab_bytes, ARRAY_SIZE(blocks) * 8192);
		for (i = 0; i < ARRAY_SIZE(blocks); i++)
			xalloc_heap_free(heap, blocks[i]);
		KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(heap));
		/* The stock, one in the class, and what the entries of a magazine lie in. */
		KUNIT_EXPECT_LE(test, stat_of(heap).slab_bytes,
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

	make_heap(test, 8, true);
	arena = heap->client->arena;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		block = xalloc_heap_alloc_aligned(heap, sizes[i], 4096 << i, GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, block);
		KUNIT_ASSERT_EQ(test, xalloc_heap_handle(heap, block, &handle), 0);
		KUNIT_EXPECT_EQ(test, handle.arena_id, arena->id);
		KUNIT_EXPECT_PTR_EQ(test, (u8 *)fx_slice_memory(arena, handle.offset /
								XALLOC_SLICE_BYTES) +
				    handle.offset % XALLOC_SLICE_BYTES, block);
		KUNIT_EXPECT_EQ(test, xalloc_heap_handle(heap, block + 8, &handle), -EINVAL);
		xalloc_heap_free(heap, block);
		KUNIT_EXPECT_EQ(test, xalloc_heap_handle(heap, block, &handle), -EINVAL);
	}
	KUNIT_EXPECT_EQ(test, xalloc_heap_handle(heap, NULL, &handle), -EINVAL);
	KUNIT_EXPECT_EQ(test, xalloc_heap_handle(heap, &handle, &handle), -EINVAL);
}

static void others_cannot_free_the_heaps_pages(struct kunit *test)
{
	struct xalloc_heap_handle handle;
	struct file *reader, *writer;
	void *block;

	make_heap(test, 4, true);
	block = xalloc_heap_alloc(heap, XALLOC_SEGMENT_BYTES, GFP_KERNEL);
	KUNIT_ASSERT_EQ(test, xalloc_heap_handle(heap, block, &handle), 0);
	reader = xalloc_heap_file(heap, O_RDONLY);
	writer = xalloc_heap_file(heap, O_RDWR);
	KUNIT_ASSERT_FALSE(test, IS_ERR(reader) || IS_ERR(writer));
	KUNIT_EXPECT_TRUE(test, reader->f_mode & FMODE_READ);
	KUNIT_EXPECT_FALSE(test, reader->f_mode & FMODE_WRITE);
	KUNIT_EXPECT_TRUE(test, writer->f_mode & FMODE_WRITE);
	KUNIT_EXPECT_PTR_EQ(test, file_inode(reader), file_inode(writer));
	KUNIT_EXPECT_EQ(test, fx_free_offset(writer->private_data, handle.offset), -EPERM);
	KUNIT_EXPECT_EQ(test, PTR_ERR(xalloc_heap_file(heap, O_WRONLY)), -EINVAL);
	/* The arena outlives the heap as long as user space has a file. */
	drop_heap();
	flush_delayed_fput();
	KUNIT_EXPECT_EQ(test, fx_counted(test->priv, XALLOC_NR_ARENAS), 1);
	KUNIT_EXPECT_EQ(test, fx_counted(test->priv, XALLOC_NR_GRANTED_SLICES), 0);
	fput(reader);
	fput(writer);
	make_heap(test, 4, false);
	KUNIT_EXPECT_EQ(test, PTR_ERR(xalloc_heap_file(heap, O_RDONLY)), -EINVAL);
}

static void mapped_block_is_longer_than_a_segment(struct kunit *test)
{
	const size_t bytes = 3 * XALLOC_SEGMENT_BYTES + 12345;
	struct xalloc_heap_handle handle;
	struct xalloc_arena *arena;
	u8 *block, *other;
	size_t at;

	make_heap(test, 8, true);
	arena = heap->client->arena;
	other = xalloc_heap_vmap(heap, 1);
	block = xalloc_heap_vmap(heap, bytes);
	KUNIT_ASSERT_NOT_NULL(test, block);
	KUNIT_ASSERT_NOT_NULL(test, other);
	KUNIT_ASSERT_EQ(test, xalloc_heap_handle(heap, block, &handle), 0);
	for (at = 0; at < bytes; at += PAGE_SIZE) {
		u64 offset = handle.offset + at;

		block[at] = at / PAGE_SIZE;
		KUNIT_ASSERT_EQ(test, ((u8 *)fx_slice_memory(arena, offset / XALLOC_SLICE_BYTES))
				[offset % XALLOC_SLICE_BYTES], (u8)(at / PAGE_SIZE));
	}
	KUNIT_EXPECT_EQ(test, xalloc_heap_handle(heap, block + PAGE_SIZE, &handle), -EINVAL);
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(heap));
	KUNIT_EXPECT_EQ(test, stat_of(heap).live_blocks, 2);
	KUNIT_EXPECT_NULL(test, xalloc_heap_vmap(heap, 0));
	KUNIT_EXPECT_NULL(test, xalloc_heap_vmap(heap, 9 * XALLOC_SEGMENT_BYTES));
	KUNIT_EXPECT_NULL(test, xalloc_heap_vmap(heap, 8 * XALLOC_SEGMENT_BYTES));
	xalloc_heap_vunmap(heap, block + 1);
	xalloc_heap_free(heap, block);
	KUNIT_EXPECT_EQ(test, stat_of(heap).refused_frees, 2);
	xalloc_heap_vunmap(heap, block);
	xalloc_heap_vunmap(heap, block);
	xalloc_heap_vunmap(heap, NULL);
	KUNIT_EXPECT_EQ(test, stat_of(heap).refused_frees, 3);
	KUNIT_EXPECT_EQ(test, stat_of(heap).live_blocks, 1);
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(heap));
	/* The other is left to destroy. */
}

static void destroy_frees_everything(struct kunit *test)
{
	u32 i;

	make_heap(test, 32, false);
	for (i = 0; i < 2000; i++)
		KUNIT_ASSERT_NOT_NULL(test, xalloc_heap_alloc(heap, 1 + i * 7, GFP_KERNEL));
	KUNIT_ASSERT_NOT_NULL(test, xalloc_heap_alloc(heap, 1000000, GFP_KERNEL));
	KUNIT_ASSERT_NOT_NULL(test, xalloc_heap_vmap(heap, 5000000));
	KUNIT_EXPECT_EQ(test, stat_of(heap).live_blocks, 2002);
	drop_heap();
	KUNIT_EXPECT_TRUE(test, fx_nothing_counted(test->priv));
}

/* --- the validator notices damage */

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
	{ "a live block that is not", damage_live_state },
	{ "a free block that is live", damage_free_state },
	{ "a state that there is not", damage_state },
	{ "a class", damage_class },
	{ "an owner", damage_owner },
	{ "a place", damage_place },
	{ "a length", damage_length },
	{ "a count of slabs in a class", damage_partial },
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

	make_heap(test, 4, false);
	/* The first block, while the last ones are free in the slab and some in a magazine. */
	block = xalloc_heap_alloc(heap, 512, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, block);
	rcu_read_lock();
	slab = xalloc_slab_of(block);
	rcu_read_unlock();
	mag = per_cpu_ptr(heap->cpu, raw_smp_processor_id())
		      ->magazines[XALLOC_IN_TASK][slab->class];
	xalloc_heap_free(heap, block);
	do {
		block = xalloc_heap_alloc(heap, 512, GFP_KERNEL);
	} while (block && block != (void *)slab->address);
	KUNIT_ASSERT_NOT_NULL(test, block);
	xalloc_heap_free(heap, xalloc_heap_alloc(heap, 512, GFP_KERNEL));
	KUNIT_ASSERT_TRUE(test, xalloc_heap_is_valid(heap));
	row->damage(slab, mag);
	KUNIT_EXPECT_FALSE(test, xalloc_heap_is_valid(heap));
	row->damage(slab, mag);
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(heap));
}

/* --- each allocation fails in its turn */

struct failure_row {
	const char *desc;
	bool mappable;
	int (*try)(struct kunit *test);
	/* That must be met at the least; the kernel's tools allocate along, now and then. */
	u32 nr_failures;
};

static int try_create(struct kunit *test)
{
	const struct failure_row *row = test->param_value;
	const struct xalloc_heap_config config = {
		.arena_bytes = FX_MIB(8),
		.mappable = row->mappable,
	};

	heap = xalloc_heap_create(&config);
	if (!IS_ERR(heap))
		return 0;
	heap = NULL;
	return -ENOMEM;
}

static int try_blocks(struct kunit *test)
{
	const size_t sizes[] = { 20, 4000, 20000, 65536, 100000 };
	int err = 0;
	void *block;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		block = xalloc_heap_alloc(heap, sizes[i], GFP_KERNEL);
		if (!block)
			err = -ENOMEM;
		else if (i != 1)	/* which is left to destroy */
			xalloc_heap_free(heap, block);
	}
	return err;
}

static int try_vmap(struct kunit *test)
{
	void *block = xalloc_heap_vmap(heap, 3 * XALLOC_SEGMENT_BYTES);

	xalloc_heap_vunmap(heap, block);
	return block ? 0 : -ENOMEM;
}

static int try_file(struct kunit *test)
{
	struct file *file = xalloc_heap_file(heap, O_RDONLY);

	if (IS_ERR(file))
		return -ENOMEM;
	fput(file);
	return 0;
}

static const struct failure_row failures[] = {
	{ "creating a heap of the kernel's own", false, try_create, 8 },
	{ "creating a heap that can be mapped", true, try_create, 12 },
	{ "allocating blocks of several sizes", false, try_blocks, 2 },
	{ "allocating a mapped block", false, try_vmap, 2 },
	{ "opening a file on the arena", true, try_file, 1 },
};

XALLOC_KUNIT_ROWS(failures, failure_row);

static void no_failed_allocation_leaks(struct kunit *test)
{
#ifdef CONFIG_FAULT_INJECTION
	const struct failure_row *row = test->param_value;
	u32 nth, nr_failures = 0;
	bool met = true;
	int err;

	for (nth = 1; met && nth < 1000; nth++) {
		if (row->try != try_create)
			make_heap(test, 4, row->mappable);
		current->fail_nth = nth;
		err = row->try(test);
		met = !current->fail_nth;
		current->fail_nth = 0;
		nr_failures += !!err;
		KUNIT_EXPECT_TRUE(test, met || !err);
		if (heap)
			KUNIT_ASSERT_TRUE_MSG(test, xalloc_heap_is_valid(heap),
					      "allocation %u failed", nth);
		drop_heap();
		flush_delayed_fput();
		KUNIT_ASSERT_TRUE_MSG(test, fx_wait_for(fx_nothing_counted(test->priv)),
				      "allocation %u failed", nth);
	}
	KUNIT_EXPECT_FALSE(test, met);
	KUNIT_EXPECT_GE_MSG(test, nr_failures, row->nr_failures,
			    "is ignore-gfp-wait of failslab and fail_page_alloc N?");
	kunit_info(test, "%u allocations, %u of which failed it", nth - 2, nr_failures);
#else
	kunit_skip(test, "the kernel is built without CONFIG_FAULT_INJECTION");
#endif
}

/* --- at random, against a model that is the list of what is held */

#define NR_HELD 512

struct walk {
	struct kunit *test;
	struct rnd_state rnd;
	struct held held[NR_HELD];
	u32 nr_held;
	u32 last_stamp;
	u64 nr_refused;
};

static size_t random_bytes(struct walk *w)
{
	u32 below = xalloc_kunit_below(&w->rnd, 100) ? 12 : 18;
	size_t base = 8 << xalloc_kunit_below(&w->rnd, below + 1);

	return base + 1 + xalloc_kunit_below(&w->rnd, base);
}

static void hold(struct walk *w, void *block, size_t bytes)
{
	struct held *held = &w->held[w->nr_held++];

	*held = (struct held){ block, bytes, ++w->last_stamp };
	stamp_block(held);
}

static void *let_go(struct walk *w, u32 n)
{
	void *block = w->held[n].block;

	KUNIT_ASSERT_TRUE(w->test, has_stamp(&w->held[n]));
	w->held[n] = w->held[--w->nr_held];
	return block;
}

static gfp_t random_gfp(struct walk *w)
{
	gfp_t gfp = xalloc_kunit_below(&w->rnd, 4) ? GFP_KERNEL : GFP_NOWAIT;

	return xalloc_kunit_below(&w->rnd, 4) ? gfp : gfp | __GFP_ZERO;
}

static void walk_alloc(struct walk *w)
{
	size_t bytes = random_bytes(w), alignment = 1;
	gfp_t gfp = random_gfp(w);
	void *block;

	if (w->nr_held == NR_HELD)
		return;
	if (xalloc_kunit_below(&w->rnd, 4)) {
		block = xalloc_heap_alloc(heap, bytes, gfp);
	} else {
		alignment <<= xalloc_kunit_below(&w->rnd, 18);
		block = xalloc_heap_alloc_aligned(heap, bytes, alignment, gfp);
	}
	if (!block)
		return;
	KUNIT_ASSERT_EQ(w->test, physical(block) % alignment, 0);
	if (gfp & __GFP_ZERO)
		KUNIT_ASSERT_FALSE(w->test, memchr_inv(block, 0, bytes));
	hold(w, block, bytes);
}

static void walk_alloc_bulk(struct walk *w)
{
	u32 nr = 1 + xalloc_kunit_below(&w->rnd, 20), done, i;
	size_t bytes = random_bytes(w);
	void *blocks[20];

	if (w->nr_held + nr > NR_HELD)
		return;
	done = xalloc_heap_alloc_bulk(heap, bytes, random_gfp(w), nr, blocks);
	KUNIT_ASSERT_LE(w->test, done, nr);
	for (i = 0; i < done; i++)
		hold(w, blocks[i], bytes);
}

static void walk_free(struct walk *w)
{
	void *block;

	if (!w->nr_held)
		return;
	block = let_go(w, xalloc_kunit_below(&w->rnd, w->nr_held));
	xalloc_heap_free(heap, block);
	if (xalloc_kunit_below(&w->rnd, 8))
		return;
	xalloc_heap_free(heap, block);
	w->nr_refused++;
}

static void walk_free_bulk(struct walk *w)
{
	u32 nr = min(w->nr_held, 1 + xalloc_kunit_below(&w->rnd, 20)), i;
	void *blocks[20];

	for (i = 0; i < nr; i++)
		blocks[i] = let_go(w, xalloc_kunit_below(&w->rnd, w->nr_held));
	xalloc_heap_free_bulk(heap, nr, blocks);
}

static void walk_free_inside(struct walk *w)
{
	const struct held *held = &w->held[xalloc_kunit_below(&w->rnd, w->nr_held ?: 1)];

	if (!w->nr_held || held->bytes < 2)
		return;
	xalloc_heap_free(heap, (u8 *)held->block + 1 +
			 xalloc_kunit_below(&w->rnd, held->bytes - 1));
	w->nr_refused++;
}

static void walk_step(struct walk *w)
{
	switch (xalloc_kunit_below(&w->rnd, 200)) {
	case 0 ... 79:
		walk_alloc(w);
		break;
	case 80 ... 89:
		walk_alloc_bulk(w);
		break;
	case 90 ... 179:
		walk_free(w);
		break;
	case 180 ... 193:
		walk_free_bulk(w);
		break;
	case 194 ... 198:
		walk_free_inside(w);
		break;
	default:
		xalloc_heap_drain_cpu(heap, raw_smp_processor_id());
	}
}

/* The same as a softirq does it, in which nothing can be granted. */
static void walk_step_in_softirq(struct walk *w)
{
	size_t bytes = 1 + xalloc_kunit_below(&w->rnd, 9000);
	void *freed = w->nr_held ? let_go(w, xalloc_kunit_below(&w->rnd, w->nr_held)) : NULL;
	void *block;

	local_bh_disable();
	block = xalloc_heap_alloc(heap, bytes, GFP_ATOMIC);
	xalloc_heap_free(heap, freed);
	local_bh_enable();
	if (block && w->nr_held < NR_HELD)
		hold(w, block, bytes);
	else
		xalloc_heap_free(heap, block);
}

struct walk_row {
	const char *desc;
	u32 nr_segments;
};

static const struct walk_row walks[] = {
	{ "an arena with room for all", 64 },
	{ "an arena that is too small", 4 },
};

XALLOC_KUNIT_ROWS(walks, walk_row);

static void agrees_with_the_model(struct kunit *test)
{
	const struct walk_row *row = test->param_value;
	struct walk *w = kunit_kzalloc(test, sizeof(*w), GFP_KERNEL);
	u32 steps = xalloc_kunit_steps(20000, 1000000), i;

	KUNIT_ASSERT_NOT_NULL(test, w);
	w->test = test;
	make_heap(test, row->nr_segments, true);
	xalloc_kunit_seed(test, &w->rnd);
	for (i = 0; i < steps; i++) {
		if (xalloc_kunit_below(&w->rnd, 8))
			walk_step(w);
		else
			walk_step_in_softirq(w);
		if (i % 100 == 0) {
			KUNIT_ASSERT_TRUE(test, xalloc_heap_is_valid(heap));
			KUNIT_ASSERT_EQ(test, stat_of(heap).live_blocks, w->nr_held);
			cond_resched();
		}
	}
	KUNIT_EXPECT_EQ(test, stat_of(heap).refused_frees, w->nr_refused);
	while (w->nr_held)
		xalloc_heap_free(heap, let_go(w, 0));
	xalloc_heap_drain_cpu(heap, raw_smp_processor_id());
	KUNIT_EXPECT_EQ(test, stat_of(heap).live_blocks, 0);
	KUNIT_EXPECT_EQ(test, stat_of(heap).cached_blocks, 0);
	KUNIT_EXPECT_TRUE(test, xalloc_heap_is_valid(heap));
}

static struct kunit_case cases[] = {
	KUNIT_CASE(class_is_the_smallest_that_holds),
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
	KUNIT_CASE(empty_slabs_make_room),
	KUNIT_CASE(empty_slabs_are_given_back),
	KUNIT_CASE(handle_leads_to_the_same_memory),
	KUNIT_CASE(others_cannot_free_the_heaps_pages),
	KUNIT_CASE(mapped_block_is_longer_than_a_segment),
	KUNIT_CASE(destroy_frees_everything),
	KUNIT_CASE_PARAM(damage_is_seen, damages_gen_params),
	KUNIT_CASE_PARAM(no_failed_allocation_leaks, failures_gen_params),
	KUNIT_CASE_PARAM(agrees_with_the_model, walks_gen_params),
	{}
};

struct kunit_suite xalloc_heap_suite = {
	.name = "xalloc_heap",
	.init = fx_init,
	.exit = heap_exit,
	.test_cases = cases,
};
