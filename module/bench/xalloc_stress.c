// SPDX-License-Identifier: GPL-2.0-only
/*
 * A load on in-kernel heaps that a test can put CPUs off and on under.
 *
 * Loading the module first has two CPUs free the same blocks at the same time, of which
 * one must be refused each time. Then a thread per CPU and timers, which are softirqs,
 * exchange blocks through slots until the module is unloaded: each takes what it finds in
 * a slot, sees that its contents are whole, frees it and leaves a new one. On unloading
 * the counters must be exact; and if one CPU alone is online by then, every block of the
 * arena must be to be had, which is not so if a dead CPU still has some.
 *
 * The log has a line "xalloc_stress: ..." for each thing that is wrong, and at the end one
 * that begins with "xalloc_stress: end".
 */
#include <linux/completion.h>
#include <linux/cpu.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/timer.h>

#include "../heap.h"

#define NR_SLOTS 2048
#define NR_RACE_ROUNDS 100
#define NR_RACE_BLOCKS 200
#define NR_RACES (NR_RACE_ROUNDS * NR_RACE_BLOCKS)
#define ARENA_BYTES (16u << 20)
/* Blocks of this size fill a slab to its end, so that it is known how many there are. */
#define FILL_BYTES 1024

/* One load on mixed sizes, one on a single size. */
struct load {
	const char *name;
	struct xalloc_heap *heap;
	size_t bytes_max;
	bool is_mixed;
	void *slots[NR_SLOTS];
	atomic_long_t nr_allocs;
	atomic_long_t nr_failed;
	atomic_long_t nr_frees;
	atomic_long_t nr_torn;
};

static struct load loads[] = {
	{ .name = "mixed", .bytes_max = 20000, .is_mixed = true },
	{ .name = "single", .bytes_max = FILL_BYTES },
};

static struct task_struct *tasks[NR_CPUS];
static DEFINE_PER_CPU(struct timer_list, timers);
static bool stopping;

/* First word: length; last byte: a check of it. */
static void stamp(u32 *block, u32 bytes)
{
	*block = bytes;
	((u8 *)block)[bytes - 1] = bytes * 7;
}

static bool is_whole(const struct load *load, const u32 *block)
{
	u32 bytes = *block;

	return bytes >= 8 && bytes <= load->bytes_max &&
	       ((const u8 *)block)[bytes - 1] == (u8)(bytes * 7);
}

static void exchange(struct load *load, struct rnd_state *rnd, gfp_t gfp)
{
	u32 bytes = load->is_mixed ? 8 + prandom_u32_state(rnd) % (load->bytes_max - 8) :
				     load->bytes_max;
	u32 *new = xalloc_heap_alloc(load->heap, bytes, gfp), *old;

	if (new) {
		stamp(new, bytes);
		atomic_long_inc(&load->nr_allocs);
	} else {
		atomic_long_inc(&load->nr_failed);
	}
	old = xchg(&load->slots[prandom_u32_state(rnd) % NR_SLOTS], new);
	if (!old)
		return;
	if (!is_whole(load, old))
		atomic_long_inc(&load->nr_torn);
	xalloc_heap_free(load->heap, old);
	atomic_long_inc(&load->nr_frees);
}

static int load_main(void *data)
{
	struct rnd_state rnd;
	u32 i;

	prandom_seed_state(&rnd, (unsigned long)data + 1);
	while (!kthread_should_stop()) {
		for (i = 0; i < 200; i++)
			exchange(&loads[i % ARRAY_SIZE(loads)], &rnd, GFP_KERNEL);
		cond_resched();
	}
	return 0;
}

static void load_timer(struct timer_list *timer)
{
	struct rnd_state rnd;
	unsigned int cpu;
	u32 i;

	prandom_seed_state(&rnd, get_random_u32());
	for (i = 0; i < 40; i++)
		exchange(&loads[i % ARRAY_SIZE(loads)], &rnd, GFP_ATOMIC);
	/* The timer of a CPU that is gone runs on another until that one is back. */
	if (READ_ONCE(stopping))
		return;
	timer->expires = jiffies + 1;
	for_each_possible_cpu(cpu)
		if (timer == per_cpu_ptr(&timers, cpu))
			break;
	add_timer_on(timer, cpu_online(cpu) ? cpu : raw_smp_processor_id());
}

/* --- two that free the same blocks */

static void *race_blocks[NR_RACE_BLOCKS];
static atomic_t nr_arrived;
static atomic_t nr_ended;
static DECLARE_COMPLETION(race_ended);

static void meet(u32 nr)
{
	atomic_inc_return(&nr_arrived);
	while (atomic_read_acquire(&nr_arrived) < 2 * nr)
		cond_resched();
}

static int race_main(void *data)
{
	struct xalloc_heap *heap = loads[0].heap;
	bool is_first = data;
	u32 i, j;

	for (i = 0; i < NR_RACE_ROUNDS; i++) {
		for (j = 0; is_first && j < NR_RACE_BLOCKS; j++)
			race_blocks[j] = xalloc_heap_alloc(heap, 64, GFP_KERNEL);
		meet(2 * i + 1);
		for (j = 0; j < NR_RACE_BLOCKS; j++)
			xalloc_heap_free(heap, race_blocks[j]);
		meet(2 * i + 2);
	}
	if (atomic_inc_return(&nr_ended) == 2)
		complete(&race_ended);
	return 0;
}

static int race(void)
{
	struct xalloc_heap_stat stat;
	struct task_struct *task[2];
	u32 i;

	for (i = 0; i < 2; i++) {
		task[i] = kthread_create(race_main, i ? NULL : race_blocks, "xalloc_race");
		if (IS_ERR(task[i])) {
			if (i)
				kthread_stop(task[0]);
			return PTR_ERR(task[i]);
		}
		kthread_bind(task[i], i);
	}
	for (i = 0; i < 2; i++)
		wake_up_process(task[i]);
	wait_for_completion(&race_ended);
	xalloc_heap_stat(loads[0].heap, &stat);
	if (stat.refused_frees == NR_RACES && !stat.live_blocks)
		return 0;
	pr_info("xalloc_stress: wrong: of %u blocks freed twice %llu were refused, %llu live\n",
		NR_RACES, stat.refused_frees, stat.live_blocks);
	return -EIO;
}

/* --- the end */

static void check_counters(struct load *load)
{
	u64 held = atomic_long_read(&load->nr_allocs) - atomic_long_read(&load->nr_frees);
	struct xalloc_heap_stat stat;
	u64 nr_slots = 0;
	u32 i;

	xalloc_heap_stat(load->heap, &stat);
	for (i = 0; i < NR_SLOTS; i++)
		nr_slots += !!load->slots[i];
	if (stat.live_blocks != held || nr_slots != held)
		pr_info("xalloc_stress: wrong: %s: %llu live, %llu in slots, %llu by the counts\n",
			load->name, stat.live_blocks, nr_slots, held);
	if (atomic_long_read(&load->nr_torn))
		pr_info("xalloc_stress: wrong: %s: %ld blocks were not whole\n", load->name,
			atomic_long_read(&load->nr_torn));
	if (stat.refused_frees != (load->is_mixed ? NR_RACES : 0))
		pr_info("xalloc_stress: wrong: %s: %llu frees refused\n", load->name,
			stat.refused_frees);
	for (i = 0; i < NR_SLOTS; i++)
		xalloc_heap_free(load->heap, load->slots[i]);
	xalloc_heap_stat(load->heap, &stat);
	if (stat.live_blocks)
		pr_info("xalloc_stress: wrong: %s: %llu live when all were freed\n", load->name,
			stat.live_blocks);
}

/* With one CPU left, its two magazines and the slabs have all blocks there are. */
static void fill_arena(struct load *load)
{
	u32 nr = 0, nr_all = ARENA_BYTES / FILL_BYTES;

	while (xalloc_heap_alloc(load->heap, FILL_BYTES, GFP_KERNEL))
		nr++;
	local_bh_disable();
	while (xalloc_heap_alloc(load->heap, FILL_BYTES, GFP_ATOMIC))
		nr++;
	local_bh_enable();
	if (num_online_cpus() == 1 && nr != nr_all)
		pr_info("xalloc_stress: wrong: %u of %u blocks are to be had\n", nr, nr_all);
}

static void stop(void)
{
	unsigned int cpu;

	WRITE_ONCE(stopping, true);
	for_each_possible_cpu(cpu) {
		if (tasks[cpu])
			kthread_stop(tasks[cpu]);
		timer_delete_sync(per_cpu_ptr(&timers, cpu));
	}
}

static void destroy_heaps(void)
{
	u32 i;

	for (i = 0; i < ARRAY_SIZE(loads); i++)
		xalloc_heap_destroy(loads[i].heap);
}

static int start(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		timer_setup(per_cpu_ptr(&timers, cpu), load_timer, TIMER_PINNED);
	for_each_online_cpu(cpu) {
		/* Not bound for good: when its CPU goes it moves to another. */
		tasks[cpu] = kthread_run_on_cpu(load_main, (void *)(unsigned long)cpu, cpu,
						"xalloc_stress/%u");
		if (IS_ERR(tasks[cpu])) {
			int err = PTR_ERR(tasks[cpu]);

			tasks[cpu] = NULL;
			stop();
			return err;
		}
		per_cpu_ptr(&timers, cpu)->expires = jiffies + 1;
		add_timer_on(per_cpu_ptr(&timers, cpu), cpu);
	}
	return 0;
}

static int __init stress_init(void)
{
	const struct xalloc_heap_config config = { .arena_bytes = ARENA_BYTES };
	int err;
	u32 i;

	if (num_online_cpus() < 2)
		return -ENODEV;
	for (i = 0; i < ARRAY_SIZE(loads); i++) {
		loads[i].heap = xalloc_heap_create(&config);
		if (IS_ERR(loads[i].heap)) {
			err = PTR_ERR(loads[i].heap);
			loads[i].heap = NULL;
			goto err_destroy;
		}
	}
	err = race();
	if (err)
		goto err_destroy;
	err = start();
	if (err)
		goto err_destroy;
	return 0;

err_destroy:
	destroy_heaps();
	return err;
}

static void __exit stress_exit(void)
{
	u32 i;

	stop();
	for (i = 0; i < ARRAY_SIZE(loads); i++) {
		check_counters(&loads[i]);
		pr_info("xalloc_stress: %s: %ld allocated, %ld not to be had\n", loads[i].name,
			atomic_long_read(&loads[i].nr_allocs),
			atomic_long_read(&loads[i].nr_failed));
	}
	fill_arena(&loads[1]);
	destroy_heaps();
	pr_info("xalloc_stress: end, %u CPUs online\n", num_online_cpus());
}

module_init(stress_init);
module_exit(stress_exit);

MODULE_DESCRIPTION("A load on in-kernel heaps of xalloc");
MODULE_AUTHOR("The xalloc authors");
MODULE_LICENSE("GPL");
