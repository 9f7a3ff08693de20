// SPDX-License-Identifier: GPL-2.0-only
/*
 * Heaps: allocating and freeing blocks for kernel clients.
 *
 * A CPU has two magazines of free blocks for each class of a heap: one for tasks, one for
 * what runs with bottom halves disabled, softirqs among it. Both are touched with
 * preemption disabled only, and nobody needs more than that:
 *
 *	a task with bottom halves enabled is interrupted by softirqs, which use the other
 *	magazine; no second task runs here, because it is not preempted
 *
 *	what has bottom halves disabled is interrupted by hardirqs, which may not use heaps;
 *	a softirq waits for it, whether it is another softirq or a task
 *
 *	on PREEMPT_RT a softirq is a task like any other and preempts nobody who has
 *	preemption disabled
 *
 * An empty magazine is filled, and a full one relieved of its older half, by a batch that
 * passes over the stack: between magazine and slabs preemption is enabled, so that the
 * locks of slabs, which sleep on PREEMPT_RT, are taken with nothing disabled. Until a CPU
 * has its first batch of a class the place of the magazine is taken by one without room.
 *
 * The magazines of a CPU that is gone are emptied once it is dead, when nobody can have
 * begun anything on it.
 */
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/slab.h>

#include "internal.h"
#include "slab.h"

/* Refused frees of a heap that are reported; the others are counted alone. */
#define REPORTS_MAX 10

static struct xalloc_magazine no_magazine;
static enum cpuhp_state hotplug_state;

static struct xalloc_magazine **my_slot(struct xalloc_heap *heap, u32 class)
{
	VM_WARN_ON_ONCE(in_hardirq());
	return &this_cpu_ptr(heap->cpu)->magazines[in_softirq() ? XALLOC_IN_SOFTIRQ :
							  XALLOC_IN_TASK][class];
}

/* With preemption disabled. */
static struct xalloc_magazine *my_magazine(struct xalloc_heap *heap, u32 class)
{
	return *my_slot(heap, class);
}

static void *pop(struct xalloc_magazine *mag)
{
	struct xalloc_slab_entry *entry = &mag->entries[--mag->nr];

	WRITE_ONCE(*entry->state, XALLOC_BLOCK_LIVE);
	return entry->block;
}

static void push(struct xalloc_magazine *mag, void *block, u8 *state)
{
	mag->entries[mag->nr++] = (struct xalloc_slab_entry){ .block = block, .state = state };
}

static struct xalloc_magazine *create_magazine(u32 class)
{
	u32 nr_max = xalloc_class_shapes[class].nr_entries;
	struct xalloc_magazine *mag;

	mag = kmalloc(struct_size(mag, entries, nr_max), GFP_NOWAIT | __GFP_NOWARN);
	if (!mag)
		return NULL;
	mag->nr = 0;
	mag->nr_max = nr_max;
	return mag;
}

/* Put entries into a magazine of this CPU as far as there is room. Returns how many. */
static u32 keep(struct xalloc_heap *heap, u32 class, const struct xalloc_slab_entry *entries,
		u32 nr)
{
	struct xalloc_magazine *new = NULL, *mag;

	preempt_disable();
	if (my_magazine(heap, class) == &no_magazine) {
		preempt_enable();
		new = create_magazine(class);
		preempt_disable();
		/* This may be another CPU, or its first magazine came in between. */
		if (new && my_magazine(heap, class) == &no_magazine) {
			/* Pairs with READ_ONCE() in xalloc_heap_stat(): not before it is empty. */
			smp_store_release(my_slot(heap, class), new);
			new = NULL;
		}
	}
	mag = my_magazine(heap, class);
	nr = min(nr, mag->nr_max - mag->nr);
	memcpy(mag->entries + mag->nr, entries, nr * sizeof(*entries));
	mag->nr += nr;
	preempt_enable();
	kfree(new);
	return nr;
}

static noinline void *alloc_slow(struct xalloc_heap *heap, u32 class, gfp_t gfp)
{
	struct xalloc_slab_entry batch[XALLOC_BATCH_ENTRIES_MAX];
	u32 nr, kept;

	nr = xalloc_slab_take(heap, class, batch, xalloc_class_shapes[class].nr_batch, gfp);
	if (!nr)
		return NULL;
	nr--;
	WRITE_ONCE(*batch[nr].state, XALLOC_BLOCK_LIVE);
	kept = keep(heap, class, batch, nr);
	if (kept < nr)
		xalloc_slab_give(heap, class, batch + kept, nr - kept);
	return batch[nr].block;
}

static noinline void *alloc_large(struct xalloc_heap *heap, size_t bytes, size_t alignment,
				  gfp_t gfp)
{
	if (!bytes || bytes > XALLOC_HEAP_BLOCK_MAX || !xalloc_slab_may_grant(gfp))
		return NULL;
	return xalloc_slab_take_large(heap, DIV_ROUND_UP(bytes, XALLOC_SLICE_BYTES), alignment);
}

static __always_inline void *alloc_class(struct xalloc_heap *heap, u32 class, gfp_t gfp)
{
	struct xalloc_magazine *mag;
	void *block;

	preempt_disable();
	mag = my_magazine(heap, class);
	if (unlikely(!mag->nr)) {
		preempt_enable();
		return alloc_slow(heap, class, gfp);
	}
	block = pop(mag);
	preempt_enable();
	return block;
}

/**
 * xalloc_heap_alloc() - allocate a block
 * @heap: the heap
 * @bytes: its size, 1 to XALLOC_HEAP_BLOCK_MAX
 * @gfp: see the head of heap.h
 *
 * Context: Process and softirq context. May sleep if @gfp has all of GFP_KERNEL.
 * Return: the block, or NULL; also for a size that no block can have.
 */
void *xalloc_heap_alloc(struct xalloc_heap *heap, size_t bytes, gfp_t gfp)
{
	void *block;

	might_alloc(gfp);
	if (unlikely(bytes - 1 >= XALLOC_SLICE_BYTES))
		block = alloc_large(heap, bytes, 1, gfp);
	else
		block = alloc_class(heap, xalloc_class_of(bytes), gfp);
	if (unlikely(gfp & __GFP_ZERO) && block)
		memset(block, 0, bytes);
	return block;
}
EXPORT_SYMBOL_GPL(xalloc_heap_alloc);

/**
 * xalloc_heap_alloc_aligned() - allocate a block at an aligned address
 * @heap: the heap
 * @bytes: its size, 1 to XALLOC_HEAP_BLOCK_MAX
 * @alignment: a power of two, at most XALLOC_HEAP_BLOCK_MAX; of the physical address too
 * @gfp: see the head of heap.h
 *
 * Context: Process and softirq context. May sleep if @gfp has all of GFP_KERNEL.
 * Return: the block, or NULL; also for a size or an alignment that no block can have.
 */
void *xalloc_heap_alloc_aligned(struct xalloc_heap *heap, size_t bytes, size_t alignment,
				gfp_t gfp)
{
	void *block;

	might_alloc(gfp);
	if (!is_power_of_2(alignment) || alignment > XALLOC_HEAP_BLOCK_MAX)
		return NULL;
	if (bytes - 1 >= XALLOC_SLICE_BYTES || alignment > XALLOC_SLICE_BYTES)
		block = alloc_large(heap, bytes, alignment, gfp);
	else
		block = alloc_class(heap, xalloc_class_of_aligned(bytes, alignment), gfp);
	if ((gfp & __GFP_ZERO) && block)
		memset(block, 0, bytes);
	return block;
}
EXPORT_SYMBOL_GPL(xalloc_heap_alloc_aligned);

/**
 * xalloc_heap_alloc_bulk() - allocate blocks of one size, as far as they can be had
 * @heap: the heap
 * @bytes: their size, 1 to XALLOC_HEAP_BLOCK_MAX
 * @gfp: see the head of heap.h
 * @nr: how many
 * @blocks: filled in
 *
 * Context: Process and softirq context. May sleep if @gfp has all of GFP_KERNEL.
 * Return: how many were allocated, @nr at most.
 */
u32 xalloc_heap_alloc_bulk(struct xalloc_heap *heap, size_t bytes, gfp_t gfp, u32 nr,
			   void **blocks)
{
	struct xalloc_magazine *mag;
	u32 done = 0, class, end, i;

	might_alloc(gfp);
	if (unlikely(bytes - 1 >= XALLOC_SLICE_BYTES)) {
		while (done < nr && (blocks[done] = xalloc_heap_alloc(heap, bytes, gfp)))
			done++;
		return done;
	}
	class = xalloc_class_of(bytes);
	for (;;) {
		preempt_disable();
		mag = my_magazine(heap, class);
		end = done + min(mag->nr, nr - done);
		while (done < end)
			blocks[done++] = pop(mag);
		preempt_enable();
		if (likely(done == nr))
			break;
		blocks[done] = alloc_slow(heap, class, gfp);
		if (!blocks[done])
			break;
		done++;
	}
	if (unlikely(gfp & __GFP_ZERO))
		for (i = 0; i < done; i++)
			memset(blocks[i], 0, bytes);
	return done;
}
EXPORT_SYMBOL_GPL(xalloc_heap_alloc_bulk);

/**
 * xalloc_heap_refuse() - count, and the first times report, a free that is wrong
 * @heap: the heap
 * @block: what was to be freed
 * @is_block: there is such a block, but it is not allocated
 * @caller: who wanted to
 */
noinline void xalloc_heap_refuse(struct xalloc_heap *heap, const void *block, bool is_block,
			unsigned long caller)
{
	if (atomic64_inc_return(&heap->nr_refused) <= REPORTS_MAX)
		pr_warn("xalloc: heap on arena %llu: %pS frees %p, which is %s\n",
			heap->client->arena->id, (void *)caller, block,
			is_block ? "not allocated" : "no block of it");
}

/*
 * The state of the block of @heap that begins at @block, with the record of its slab, under
 * RCU or with preemption disabled; NULL if there is no such block.
 */
static __always_inline u8 *find(struct xalloc_heap *heap, const void *block,
				struct xalloc_slab **slab)
{
	*slab = xalloc_slab_of(block);
	if (unlikely(!*slab || (*slab)->heap != heap))
		return NULL;
	return xalloc_slab_state(*slab, block);
}

static __always_inline bool end_life(u8 *state)
{
	return xchg(state, XALLOC_BLOCK_FREE) == XALLOC_BLOCK_LIVE;
}

/* A block that is not LIVE any more and finds no room in its magazine. */
static noinline void free_slow(struct xalloc_heap *heap, u32 class, void *block, u8 *state)
{
	const struct xalloc_slab_entry entry = { .block = block, .state = state };
	struct xalloc_slab_entry batch[XALLOC_BATCH_ENTRIES_MAX];
	struct xalloc_magazine *mag;
	u32 nr = 0;

	preempt_disable();
	mag = my_magazine(heap, class);
	if (mag->nr && mag->nr == mag->nr_max) {
		nr = xalloc_class_shapes[class].nr_batch;
		memcpy(batch, mag->entries, nr * sizeof(*batch));
		mag->nr -= nr;
		memmove(mag->entries, mag->entries + nr, mag->nr * sizeof(*batch));
	}
	preempt_enable();
	if (nr)
		xalloc_slab_give(heap, class, batch, nr);
	if (!keep(heap, class, &entry, 1))
		xalloc_slab_give(heap, class, &entry, 1);
}

/* Inline, so that _RET_IP_ is in the caller of the heap; it is read where a free is refused. */
static __always_inline void free_block(struct xalloc_heap *heap, const void *block)
{
	struct xalloc_slab *slab;
	struct xalloc_magazine *mag;
	u32 class;
	u8 *state;

	preempt_disable();
	state = find(heap, block, &slab);
	if (unlikely(!state || !end_life(state))) {
		preempt_enable();
		if (block)
			xalloc_heap_refuse(heap, block, state, _RET_IP_);
		return;
	}
	class = slab->class;
	mag = my_magazine(heap, class);
	if (likely(mag->nr < mag->nr_max)) {
		push(mag, (void *)block, state);
		preempt_enable();
		return;
	}
	preempt_enable();
	/* This task alone knows of the block by now, so its slab stays. */
	if (class == XALLOC_CLASS_LARGE)
		xalloc_slab_give_large(heap, slab);
	else
		free_slow(heap, class, (void *)block, state);
}

/**
 * xalloc_heap_free() - free a block
 * @heap: the heap it was allocated from
 * @block: the block, or NULL
 *
 * Context: Process and softirq context, does not sleep.
 */
void xalloc_heap_free(struct xalloc_heap *heap, const void *block)
{
	free_block(heap, block);
}
EXPORT_SYMBOL_GPL(xalloc_heap_free);

/**
 * xalloc_heap_free_bulk() - free blocks
 * @heap: the heap they were allocated from
 * @nr: how many
 * @blocks: the blocks, of any sizes; NULL among them means none
 *
 * Context: Process and softirq context, does not sleep.
 */
void xalloc_heap_free_bulk(struct xalloc_heap *heap, u32 nr, void **blocks)
{
	u32 i;

	for (i = 0; i < nr; i++)
		free_block(heap, blocks[i]);
}
EXPORT_SYMBOL_GPL(xalloc_heap_free_bulk);

/**
 * xalloc_heap_handle() - tell where in the arena a block lies
 * @heap: the heap
 * @block: the block, from xalloc_heap_alloc() or xalloc_heap_vmap()
 * @handle: filled in
 *
 * Context: Process and softirq context, does not sleep.
 * Return: 0, or -EINVAL if it is no allocated block of the heap.
 */
int xalloc_heap_handle(struct xalloc_heap *heap, const void *block,
		       struct xalloc_heap_handle *handle)
{
	struct xalloc_slab *slab;
	unsigned long inside = 0;
	int err = -EINVAL;
	u32 slice;
	u8 *state;

	if (is_vmalloc_addr(block)) {
		err = xalloc_vmap_slice(heap, block, &slice);
	} else {
		rcu_read_lock();
		state = find(heap, block, &slab);
		if (state && READ_ONCE(*state) == XALLOC_BLOCK_LIVE) {
			slice = slab->slice;
			inside = (unsigned long)block - slab->memory;
			err = 0;
		}
		rcu_read_unlock();
	}
	if (err)
		return err;
	handle->arena_id = heap->client->arena->id;
	handle->offset = slice * (u64)XALLOC_SLICE_BYTES + inside;
	return 0;
}
EXPORT_SYMBOL_GPL(xalloc_heap_handle);

/**
 * xalloc_heap_stat() - count what a heap holds
 * @heap: the heap
 * @stat: filled in
 *
 * Context: Process context, may sleep.
 */
void xalloc_heap_stat(struct xalloc_heap *heap, struct xalloc_heap_stat *stat)
{
	const struct xalloc_heap_cpu *hc;
	unsigned int cpu;
	u64 nr_taken = 0;
	u32 context, i;

	*stat = (struct xalloc_heap_stat){
		.live_blocks = READ_ONCE(heap->nr_large),
		.slab_bytes = READ_ONCE(heap->nr_slices) * (u64)XALLOC_SLICE_BYTES,
		.refused_frees = atomic64_read(&heap->nr_refused),
	};
	for (i = 0; i < XALLOC_NR_CLASSES; i++)
		nr_taken += READ_ONCE(heap->classes[i].nr_taken);
	/* A CPU that dies takes its magazines along. */
	cpus_read_lock();
	for_each_possible_cpu(cpu) {
		hc = per_cpu_ptr(heap->cpu, cpu);
		for (context = 0; context < XALLOC_NR_CONTEXTS; context++)
			for (i = 0; i < XALLOC_NR_CLASSES; i++)
				stat->cached_blocks +=
					READ_ONCE(READ_ONCE(hc->magazines[context][i])->nr);
	}
	cpus_read_unlock();
	/* While blocks come and go one may have been seen here and not there. */
	stat->live_blocks += nr_taken - min(nr_taken, stat->cached_blocks);
}
EXPORT_SYMBOL_GPL(xalloc_heap_stat);

/* --- the heap as a whole */

/**
 * xalloc_heap_drain_cpu() - empty the magazines of a CPU and take them away
 * @heap: the heap
 * @cpu: a CPU that is dead, or on which nobody uses the heap
 *
 * Context: Process and softirq context. Takes the locks of classes.
 */
void xalloc_heap_drain_cpu(struct xalloc_heap *heap, unsigned int cpu)
{
	struct xalloc_heap_cpu *hc = per_cpu_ptr(heap->cpu, cpu);
	struct xalloc_magazine *mag;
	u32 context, class;

	for (context = 0; context < XALLOC_NR_CONTEXTS; context++) {
		for (class = 0; class < XALLOC_NR_CLASSES; class++) {
			mag = hc->magazines[context][class];
			if (mag == &no_magazine)
				continue;
			hc->magazines[context][class] = &no_magazine;
			xalloc_slab_give(heap, class, mag->entries, mag->nr);
			kfree(mag);
		}
	}
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_heap_drain_cpu);

static int heap_cpu_dead(unsigned int cpu, struct hlist_node *node)
{
	xalloc_heap_drain_cpu(hlist_entry(node, struct xalloc_heap, hotplug), cpu);
	return 0;
}

static int create_magazines(struct xalloc_heap *heap)
{
	struct xalloc_heap_cpu *hc;
	u32 context, class;
	unsigned int cpu;

	heap->cpu = alloc_percpu(struct xalloc_heap_cpu);
	if (!heap->cpu)
		return -ENOMEM;
	for_each_possible_cpu(cpu) {
		hc = per_cpu_ptr(heap->cpu, cpu);
		for (context = 0; context < XALLOC_NR_CONTEXTS; context++)
			for (class = 0; class <= XALLOC_NR_CLASSES; class++)
				hc->magazines[context][class] = &no_magazine;
	}
	return 0;
}

static int create_client(struct xalloc_heap *heap, const struct xalloc_heap_config *config)
{
	/* Blocks are contiguous, which pieces are not. */
	const struct xalloc_arena_config arena_config = {
		.arena_bytes = config->arena_bytes,
		.limit_bytes = config->limit_bytes,
		.policy = XALLOC_POLICY_HUGE,
		.node = NUMA_NO_NODE,
	};
	struct xalloc_arena *arena;

	if (config->mappable) {
		heap->file = xalloc_file_create(&arena_config);
		if (IS_ERR(heap->file))
			return PTR_ERR(heap->file);
		heap->client = heap->file->private_data;
		/* Nobody can open a file of the heap again, and no user can set the limit. */
		file_inode(heap->file)->i_mode = S_IFREG;
		file_inode(heap->file)->i_uid = INVALID_UID;
		return 0;
	}
	arena = xalloc_arena_create(&arena_config);
	if (IS_ERR(arena))
		return PTR_ERR(arena);
	xalloc_payer_exempt(&arena->payer);
	heap->client = xalloc_client_create(arena);
	if (IS_ERR(heap->client)) {
		xalloc_arena_destroy(arena);
		return PTR_ERR(heap->client);
	}
	return 0;
}

static void destroy_client(struct xalloc_heap *heap)
{
	struct xalloc_arena *arena = heap->client->arena;

	if (heap->file) {
		fput(heap->file);
		return;
	}
	xalloc_client_destroy(heap->client);
	xalloc_arena_destroy(arena);
}

/**
 * xalloc_heap_create() - create a heap and the arena below it
 * @config: what is wanted
 *
 * Commits one segment for the stock.
 *
 * Context: Process context, may sleep.
 * Return: the heap, or an error of XALLOC_IOC_ARENA_CREATE or XALLOC_IOC_GRANT.
 */
struct xalloc_heap *xalloc_heap_create(const struct xalloc_heap_config *config)
{
	struct xalloc_heap *heap;
	int err;

	err = xalloc_slab_map_cover();
	if (err)
		return ERR_PTR(err);
	heap = kvzalloc(sizeof(*heap), GFP_KERNEL);
	if (!heap)
		return ERR_PTR(-ENOMEM);
	xalloc_slab_heap_init(heap);
	xa_init(&heap->vmaps);
	err = create_magazines(heap);
	if (err)
		goto err_free;
	err = create_client(heap, config);
	if (err)
		goto err_free_magazines;
	err = xalloc_slab_fill_stock(heap);
	if (err)
		goto err_destroy_client;
	/* Not before there is something to drain. Its callback never fails. */
	err = cpuhp_state_add_instance_nocalls(hotplug_state, &heap->hotplug);
	if (err)
		goto err_destroy_client;
	return heap;

err_destroy_client:
	xalloc_slab_heap_fini(heap);
	destroy_client(heap);
err_free_magazines:
	free_percpu(heap->cpu);
err_free:
	kvfree(heap);
	return ERR_PTR(err);
}
EXPORT_SYMBOL_GPL(xalloc_heap_create);

/**
 * xalloc_heap_destroy() - destroy a heap with all its blocks
 * @heap: the heap, in which nobody allocates or frees any more; or NULL
 *
 * Blocks that were not freed are gone as well. Memory of a mappable arena that somebody
 * outside still refers to stays charged until nobody does; an arena of which user space
 * has a file stays, without the heap's pages.
 *
 * Context: Process context, may sleep. Never fails.
 */
void xalloc_heap_destroy(struct xalloc_heap *heap)
{
	unsigned int cpu;

	if (!heap)
		return;
	cpuhp_state_remove_instance_nocalls(hotplug_state, &heap->hotplug);
	for_each_possible_cpu(cpu)
		xalloc_heap_drain_cpu(heap, cpu);
	xalloc_vmap_fini(heap);
	xalloc_slab_heap_fini(heap);
	destroy_client(heap);
	free_percpu(heap->cpu);
	kvfree(heap);
}
EXPORT_SYMBOL_GPL(xalloc_heap_destroy);

/**
 * xalloc_heap_file() - a file on the arena of a heap, for user space
 * @heap: a heap whose arena is mappable
 * @flags: O_RDONLY: it cannot be mapped for writing, and is granted nothing; or O_RDWR
 *
 * The file is a client of its own, which cannot free what the heap was granted. Opened for
 * writing it can be granted pages, and then shares the arena's limit with the heap.
 *
 * Context: Process context, may sleep.
 * Return: the file, for fd_install(), or -EINVAL, -ENOMEM, -ENFILE.
 */
struct file *xalloc_heap_file(struct xalloc_heap *heap, int flags)
{
	if (!heap->file || (flags != O_RDONLY && flags != O_RDWR))
		return ERR_PTR(-EINVAL);
	return xalloc_file_attach(heap->file, flags);
}
EXPORT_SYMBOL_GPL(xalloc_heap_file);

/**
 * xalloc_heap_init() - module init of what heaps share
 * Return: 0, or -ENOMEM, -ENOSPC: the kernel has no state for CPU hotplug left.
 */
int xalloc_heap_init(void)
{
	int rc;

	xalloc_slab_classes_init();
	rc = xalloc_slab_work_init();
	if (rc)
		return rc;
	rc = cpuhp_setup_state_multi(CPUHP_BP_PREPARE_DYN, "mm/xalloc:dead", NULL, heap_cpu_dead);
	if (rc < 0) {
		xalloc_slab_work_fini();
		return rc;
	}
	hotplug_state = rc;
	return 0;
}

/** xalloc_heap_fini() - module exit of what heaps share; no heap is left */
void xalloc_heap_fini(void)
{
	cpuhp_remove_multi_state(hotplug_state);
	xalloc_slab_work_fini();
	/* Nobody looks at frames any more, but they may wait for kfree_rcu(). */
	xalloc_slab_map_fini();
}
