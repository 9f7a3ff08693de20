// SPDX-License-Identifier: GPL-2.0-only
/*
 * Heaps beside SLUB: loading this module runs one comparison and puts it in the log.
 *
 * The two sides take turns, SLUB first, so that what drifts meets both alike. A line per
 * turn, "xalloc_bench: CASE SLUB HEAP", gives the cycles of the time stamp counter that
 * each side took; scripts/bench-heap makes ratios of them. In a guest whose counter counts
 * instructions these are instructions.
 */
#include <linux/completion.h>
#include <linux/cpu.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/slab.h>
#include <linux/timex.h>

#include "../heap.h"

static uint nr_turns = 15;
module_param_named(turns, nr_turns, uint, 0444);
MODULE_PARM_DESC(turns, "Turns of each case");

static uint nr_pairs = 20000;
module_param_named(pairs, nr_pairs, uint, 0444);
MODULE_PARM_DESC(pairs, "Blocks that a turn allocates and frees on each CPU");

static bool two_cpus;
module_param(two_cpus, bool, 0444);
MODULE_PARM_DESC(two_cpus, "The cases of two CPUs that free each other's blocks, not those of one");

#define NR_BULK 16
#define NR_SIZES 1024
#define NR_HELD 128
#define NR_HANDFUL 512

static struct xalloc_heap *heap;
static struct kmem_cache *cache;
static u16 sizes[NR_SIZES];
static void *held[NR_HELD];

static int pair_64_slub(void)
{
	uint i;

	for (i = 0; i < nr_pairs; i++) {
		void *block = kmem_cache_alloc(cache, GFP_KERNEL);

		if (!block)
			return -ENOMEM;
		kmem_cache_free(cache, block);
	}
	return 0;
}

static int pair_64_heap(void)
{
	uint i;

	for (i = 0; i < nr_pairs; i++) {
		void *block = xalloc_heap_alloc(heap, 64, GFP_KERNEL);

		if (!block)
			return -ENOMEM;
		xalloc_heap_free(heap, block);
	}
	return 0;
}

static int pair_1k_slub(void)
{
	uint i;

	for (i = 0; i < nr_pairs; i++) {
		void *block = kmalloc(1024, GFP_KERNEL);

		if (!block)
			return -ENOMEM;
		kfree(block);
	}
	return 0;
}

static int pair_1k_heap(void)
{
	uint i;

	for (i = 0; i < nr_pairs; i++) {
		void *block = xalloc_heap_alloc(heap, 1024, GFP_KERNEL);

		if (!block)
			return -ENOMEM;
		xalloc_heap_free(heap, block);
	}
	return 0;
}

/* The oldest of NR_HELD blocks makes room for one of another size. */
static int mixed_slub(void)
{
	uint i;

	for (i = 0; i < nr_pairs; i++) {
		kfree(held[i % NR_HELD]);
		held[i % NR_HELD] = kmalloc(sizes[i % NR_SIZES], GFP_KERNEL);
		if (!held[i % NR_HELD])
			return -ENOMEM;
	}
	for (i = 0; i < NR_HELD; i++)
		kfree(held[i]);
	memset(held, 0, sizeof(held));
	return 0;
}

static int mixed_heap(void)
{
	uint i;

	for (i = 0; i < nr_pairs; i++) {
		xalloc_heap_free(heap, held[i % NR_HELD]);
		held[i % NR_HELD] = xalloc_heap_alloc(heap, sizes[i % NR_SIZES], GFP_KERNEL);
		if (!held[i % NR_HELD])
			return -ENOMEM;
	}
	for (i = 0; i < NR_HELD; i++)
		xalloc_heap_free(heap, held[i]);
	memset(held, 0, sizeof(held));
	return 0;
}

static int bulk_slub(void)
{
	uint i;

	for (i = 0; i < nr_pairs; i += NR_BULK) {
		if (!kmem_cache_alloc_bulk(cache, GFP_KERNEL, NR_BULK, held))
			return -ENOMEM;
		kmem_cache_free_bulk(cache, NR_BULK, held);
	}
	memset(held, 0, sizeof(held));
	return 0;
}

static int bulk_heap(void)
{
	uint i;

	for (i = 0; i < nr_pairs; i += NR_BULK) {
		if (xalloc_heap_alloc_bulk(heap, 64, GFP_KERNEL, NR_BULK, held) != NR_BULK)
			return -ENOMEM;
		xalloc_heap_free_bulk(heap, NR_BULK, held);
	}
	memset(held, 0, sizeof(held));
	return 0;
}

/*
 * Two CPUs: each allocates a handful and frees the other's, in rounds. What a side took is
 * the time both were allocating and freeing, without that in which one waited.
 */

struct partner {
	struct partner *other;
	void *blocks[NR_HANDFUL];
	size_t bytes;
	bool is_heap;
	cycles_t cycles;
	int err;
};

static struct partner partners[2];
static atomic_t nr_arrived;
static atomic_t nr_ended;
static struct completion all_ended;

/* Both get here @nr times before one goes on. */
static void meet(u32 nr)
{
	/* Orders the blocks' array: written before, read after. */
	atomic_inc_return(&nr_arrived);
	while (atomic_read_acquire(&nr_arrived) < 2 * nr)
		cond_resched();
}

static void get_handful(struct partner *p)
{
	u32 i;

	for (i = 0; i < NR_HANDFUL; i++) {
		p->blocks[i] = p->is_heap ? xalloc_heap_alloc(heap, p->bytes, GFP_KERNEL) :
					    kmalloc(p->bytes, GFP_KERNEL);
		if (!p->blocks[i])
			p->err = -ENOMEM;
	}
}

static void free_handful(struct partner *p)
{
	u32 i;

	for (i = 0; i < NR_HANDFUL; i++)
		if (p->is_heap)
			xalloc_heap_free(heap, p->blocks[i]);
		else
			kfree(p->blocks[i]);
}

static int partner_main(void *data)
{
	struct partner *p = data;
	u32 nr_rounds = DIV_ROUND_UP(nr_pairs, NR_HANDFUL), i;
	cycles_t start;

	for (i = 0; i < nr_rounds; i++) {
		meet(2 * i + 1);
		start = get_cycles();
		get_handful(p);
		p->cycles += get_cycles() - start;
		meet(2 * i + 2);
		start = get_cycles();
		free_handful(p->other);
		p->cycles += get_cycles() - start;
	}
	if (atomic_inc_return(&nr_ended) == 2)
		complete(&all_ended);
	return 0;
}

static int exchange(size_t bytes, bool is_heap, cycles_t *cycles)
{
	struct task_struct *tasks[2];
	u32 i;

	atomic_set(&nr_arrived, 0);
	atomic_set(&nr_ended, 0);
	init_completion(&all_ended);
	for (i = 0; i < 2; i++) {
		partners[i] = (struct partner){
			.other = &partners[!i], .bytes = bytes, .is_heap = is_heap,
		};
		tasks[i] = kthread_create(partner_main, &partners[i], "xalloc_bench");
		if (IS_ERR(tasks[i])) {
			if (i)
				kthread_stop(tasks[0]);
			return PTR_ERR(tasks[i]);
		}
		kthread_bind(tasks[i], i);
	}
	for (i = 0; i < 2; i++)
		wake_up_process(tasks[i]);
	wait_for_completion(&all_ended);
	*cycles = partners[0].cycles + partners[1].cycles;
	return partners[0].err ?: partners[1].err;
}

static int remote_64_slub(cycles_t *cycles)
{
	return exchange(64, false, cycles);
}

static int remote_64_heap(cycles_t *cycles)
{
	return exchange(64, true, cycles);
}

static int remote_1k_slub(cycles_t *cycles)
{
	return exchange(1024, false, cycles);
}

static int remote_1k_heap(cycles_t *cycles)
{
	return exchange(1024, true, cycles);
}

/* --- */

struct bench_case {
	const char *name;
	/* One CPU: measured as a whole; two: they measure themselves. */
	int (*slub)(void);
	int (*heap)(void);
	int (*slub_two)(cycles_t *cycles);
	int (*heap_two)(cycles_t *cycles);
};

static const struct bench_case cases[] = {
	{ .name = "pair_64", .slub = pair_64_slub, .heap = pair_64_heap },
	{ .name = "pair_1k", .slub = pair_1k_slub, .heap = pair_1k_heap },
	{ .name = "mixed", .slub = mixed_slub, .heap = mixed_heap },
	{ .name = "bulk_16", .slub = bulk_slub, .heap = bulk_heap },
	{ .name = "remote_64", .slub_two = remote_64_slub, .heap_two = remote_64_heap },
	{ .name = "remote_1k", .slub_two = remote_1k_slub, .heap_two = remote_1k_heap },
};

static int measure(int (*one)(void), int (*two)(cycles_t *cycles), cycles_t *cycles)
{
	cycles_t start;
	int err;

	if (two)
		return two(cycles);
	start = get_cycles();
	err = one();
	*cycles = get_cycles() - start;
	return err;
}

static int run_case(const struct bench_case *c)
{
	cycles_t slub, ours;
	uint turn;
	int err;

	/* The first turn fills the caches of both, and does not count. */
	for (turn = 0; turn <= nr_turns; turn++) {
		err = measure(c->slub, c->slub_two, &slub) ?:
		      measure(c->heap, c->heap_two, &ours);
		if (err)
			return err;
		if (turn)
			pr_info("xalloc_bench: %s %llu %llu\n", c->name, (u64)slub, (u64)ours);
	}
	return 0;
}

/* 16 bytes to 8 KiB, each doubling as likely as any other. */
static void make_sizes(void)
{
	struct rnd_state rnd;
	u32 i, base;

	prandom_seed_state(&rnd, 1);
	for (i = 0; i < NR_SIZES; i++) {
		base = 8 << prandom_u32_state(&rnd) % 10;
		sizes[i] = base + 1 + prandom_u32_state(&rnd) % base;
	}
}

static int __init bench_init(void)
{
	const struct xalloc_heap_config config = { .arena_bytes = 64 << 20 };
	int err = 0;
	u32 i;

	if (two_cpus && num_online_cpus() < 2)
		return -ENODEV;
	make_sizes();
	cache = kmem_cache_create("xalloc_bench", 64, 0, 0, NULL);
	if (!cache)
		return -ENOMEM;
	heap = xalloc_heap_create(&config);
	if (IS_ERR(heap)) {
		err = PTR_ERR(heap);
		goto destroy_cache;
	}
	for (i = 0; i < ARRAY_SIZE(cases) && !err; i++)
		if (!cases[i].heap == two_cpus)
			err = run_case(&cases[i]);
	if (!err)
		pr_info("xalloc_bench: end\n");
	xalloc_heap_destroy(heap);
destroy_cache:
	kmem_cache_destroy(cache);
	return err;
}

static void __exit bench_exit(void)
{
}

module_init(bench_init);
module_exit(bench_exit);

MODULE_DESCRIPTION("In-kernel heaps of xalloc beside SLUB");
MODULE_AUTHOR("The xalloc authors");
MODULE_LICENSE("GPL");
