// SPDX-License-Identifier: GPL-2.0-only
/*
 * Arenas: from create to the last reference to their memory.
 *
 * An arena belongs to its inode (file.c) and is destroyed with it, when no file and no
 * mapping is left. Memory that somebody still refers to then keeps a rest of the arena
 * alive, a zombie: segments and payer, no more. A worker looks after zombies and after
 * living arenas with idle segments or pages in quarantine until they have none.
 *
 * With arena->lock free, no grant under way, and the reserve neither being filled nor zeroed:
 *
 *	slices taken in placement	== sum of nr_slices over arena->pages
 *	nr_granted_slices		== the same over pages that have a client
 *					== sum of granted over segments
 *	nr_committed_slices		== sum of present and populating over segments
 *					<= limit_slices
 *	nr_idle_slices			== sum of idle over segments; those with any are on
 *					arena->rest, arena->reserve or arena->dirty
 *	nr_reserved			== reserved segments, each of order 9, idle and whole
 *					but for slices of a grant under way; those to be
 *					zeroed are on arena->dirty, the others on arena->reserve
 *	every slice of a granted page has memory
 *
 * which xalloc_arena_is_valid() checks.
 */
#include <linux/file.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "internal.h"

static LIST_HEAD(zombies);
static DEFINE_SPINLOCK(zombies_lock);	/* protects zombies and arena->zombie */
static atomic64_t last_arena_id;

/**
 * xalloc_arena_bytes_max() - how large an arena can be
 * Return: bytes; an offset space costs memory only where it is used.
 */
u64 xalloc_arena_bytes_max(void)
{
	return (u64)XALLOC_PLACEMENT_SEGMENTS_MAX * XALLOC_SEGMENT_BYTES;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_arena_bytes_max);

/**
 * xalloc_placement_alloc() - memory for a table of placement, charged to the memcg
 * @bytes: its size
 *
 * Context: Process context, may sleep.
 * Return: zeroed memory, or NULL.
 */
void *xalloc_placement_alloc(size_t bytes)
{
	return kzalloc(bytes, GFP_KERNEL_ACCOUNT);
}

/** xalloc_placement_free() - free a table of placement */
void xalloc_placement_free(void *table)
{
	kfree(table);
}

static void free_arena(struct xalloc_arena *arena)
{
	xalloc_payer_fini(&arena->payer);
	xalloc_family_put(arena->family);
	xalloc_budget_put(arena->budget);
	free_page((unsigned long)arena->status);
	mem_cgroup_put(arena->memcg);
	xa_destroy(&arena->pages);
	xa_destroy(&arena->segments);
	mutex_destroy(&arena->lock);
	xalloc_placement_fini(&arena->placement);
	xalloc_reclaim_free(arena);
	xalloc_count(XALLOC_NR_ARENAS, -1);
}

/* Whoever takes a zombie off the list is the one to free it. */
static bool take_zombie(struct xalloc_arena *arena)
{
	bool taken;

	spin_lock(&zombies_lock);
	taken = !list_empty(&arena->zombie);
	list_del_init(&arena->zombie);
	spin_unlock(&zombies_lock);
	return taken;
}

static void arena_reap_work(struct work_struct *work)
{
	struct xalloc_arena *arena = container_of(work, struct xalloc_arena, reap.work);

	/* A living arena is on no list; it is freed with its inode. */
	if (xalloc_reclaim_pass(arena) && take_zombie(arena))
		free_arena(arena);
}

static int check_config(const struct xalloc_arena_config *config)
{
	if (!config->arena_bytes || config->arena_bytes % XALLOC_SEGMENT_BYTES ||
	    config->limit_bytes % XALLOC_SEGMENT_BYTES || config->policy > XALLOC_POLICY_SMALL)
		return -EINVAL;
	if (config->arena_bytes > xalloc_arena_bytes_max())
		return -EFBIG;
	if (config->node != NUMA_NO_NODE &&
	    (config->node < 0 || config->node >= nr_node_ids ||
	     !node_state(config->node, N_MEMORY)))
		return -ENODEV;
	return 0;
}

/*
 * Slices of a limit that was asked for. More than the machine has cannot be committed, nor,
 * where there are no copies, more than the arena has.
 */
static u32 limit_slices(u64 limit_bytes, u64 arena_bytes, bool fork)
{
	u64 most = round_up((u64)totalram_pages() << PAGE_SHIFT, XALLOC_SEGMENT_BYTES);

	if (!fork)
		most = min(most, arena_bytes);
	return min(limit_bytes ?: most, most) / XALLOC_SLICE_BYTES;
}

/* All but who pays. */
static struct xalloc_arena *alloc_arena(u32 nr_segments, u32 policy, int node)
{
	struct xalloc_arena *arena = xalloc_reclaim_alloc();

	if (!arena)
		return NULL;
	arena->status = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!arena->status) {
		xalloc_reclaim_free(arena);
		return NULL;
	}
	arena->status->size = sizeof(*arena->status);
	arena->nr_segments = nr_segments;
	arena->limit_slices = nr_segments * XALLOC_SLICES_PER_SEGMENT;
	arena->policy = policy;
	arena->node = node;
	arena->id = atomic64_inc_return(&last_arena_id);
	arena->backing = &xalloc_backing_kernel;
	xalloc_placement_init(&arena->placement, nr_segments);
	mutex_init(&arena->lock);
	xa_init_flags(&arena->segments, XA_FLAGS_ACCOUNT);
	xa_init_flags(&arena->pages, XA_FLAGS_ACCOUNT);
	INIT_LIST_HEAD(&arena->zombie);
	INIT_LIST_HEAD(&arena->granting);
	INIT_LIST_HEAD(&arena->orphans.pages);
	arena->orphans.arena = arena;
	INIT_LIST_HEAD(&arena->exported.pages);
	arena->exported.arena = arena;
	INIT_LIST_HEAD(&arena->lazy.pages);
	arena->lazy.arena = arena;
	init_waitqueue_head(&arena->populated);
	INIT_DELAYED_WORK(&arena->reap, arena_reap_work);
	xalloc_reclaim_init(arena);
	xalloc_count(XALLOC_NR_ARENAS, 1);
	return arena;
}

/**
 * xalloc_arena_create() - create an arena
 * @config: what it is to be like
 *
 * The current task's user, or its cgroup, becomes the payer.
 *
 * Context: Process context, may sleep.
 * Return: the arena, or -EINVAL, -EFBIG, -ENODEV, -ENOMEM.
 */
struct xalloc_arena *xalloc_arena_create(const struct xalloc_arena_config *config)
{
	struct xalloc_arena *arena;
	u32 limit;
	int err;

	err = check_config(config);
	if (err)
		return ERR_PTR(err);
	arena = alloc_arena(config->arena_bytes / XALLOC_SEGMENT_BYTES, config->policy,
			    config->node);
	if (!arena)
		return ERR_PTR(-ENOMEM);
	limit = limit_slices(config->limit_bytes, config->arena_bytes, config->fork);
	if (config->fork) {
		arena->family = xalloc_family_create();
		arena->budget = xalloc_budget_create(limit, -EDQUOT);
	} else {
		arena->limit_slices = limit;
		arena->budget = xalloc_budget_get(config->budget);
	}
	arena->memcg = get_mem_cgroup_from_mm(current->mm);
	err = xalloc_payer_init(&arena->payer, arena->memcg);
	if (config->fork && (!arena->family || !arena->budget))
		err = -ENOMEM;
	if (err) {
		free_arena(arena);
		return ERR_PTR(err);
	}
	arena->fills_holes = config->fills_holes;
	arena->pages_persist = config->pages_persist;
	arena->is_dumped = config->is_dumped;
	xalloc_reclaim_start(arena);
	return arena;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_arena_create);

/**
 * xalloc_arena_redefine() - turn an empty arena whose holes are filled into one with grants
 * @arena: the arena, of a file without bytes
 * @config: what it is to be like; its payers stay
 *
 * Context: Process context, may sleep. The inode is locked.
 * Return: 0, or -EINVAL, -EFBIG, -ENODEV, -EINTR, -EEXIST if that was done before, -EBUSY if the
 * file has memory, if a task is giving it some, or if somebody still refers to memory that it had.
 */
int xalloc_arena_redefine(struct xalloc_arena *arena, const struct xalloc_arena_config *config)
{
	int err;

	err = check_config(config);
	if (err)
		return err;
	if (mutex_lock_killable(&arena->lock))
		return -EINTR;
	if (!arena->fills_holes)
		err = -EEXIST;
	else if (arena->nr_committed_slices || !xa_empty(&arena->pages) || arena->nr_filling)
		err = -EBUSY;
	if (!err) {
		xalloc_placement_fini(&arena->placement);
		arena->nr_segments = config->arena_bytes / XALLOC_SEGMENT_BYTES;
		xalloc_placement_init(&arena->placement, arena->nr_segments);
		arena->limit_slices = limit_slices(config->limit_bytes, config->arena_bytes, false);
		arena->policy = config->policy;
		arena->node = config->node;
		arena->pages_persist = config->pages_persist;
		arena->is_dumped = config->is_dumped;
		/* Last: pairs with xalloc_hole_is_filled(). */
		smp_store_release(&arena->fills_holes, false);
	}
	mutex_unlock(&arena->lock);
	return err;
}

/**
 * xalloc_arena_create_like() - create a member of a family
 * @from: another member; that size and policy, and that payers, whoever calls this
 *
 * Context: Process context, may sleep.
 * Return: the arena, without pages, or NULL.
 */
struct xalloc_arena *xalloc_arena_create_like(const struct xalloc_arena *from)
{
	struct mem_cgroup *old = set_active_memcg(from->memcg);
	struct xalloc_arena *arena = alloc_arena(from->nr_segments, from->policy, from->node);

	set_active_memcg(old);
	if (!arena)
		return NULL;
	arena->backing = from->backing;
	arena->pages_persist = from->pages_persist;
	arena->is_dumped = READ_ONCE(from->is_dumped);
	arena->family = from->family;
	xalloc_family_get(arena->family);
	arena->budget = xalloc_budget_get(from->budget);
	xalloc_payer_copy(&arena->payer, &from->payer);
#ifdef CONFIG_MEMCG
	arena->memcg = from->memcg;
	if (arena->memcg)
		css_get(&arena->memcg->css);
#endif
	xalloc_reclaim_start(arena);
	return arena;
}

/**
 * xalloc_arena_vacate() - give back what is in an arena that nobody can reach any more
 * @arena: the first one of a family, whose inode the copies still hold; without a client
 *
 * What is exported stays while it is.
 *
 * Context: Process context, may sleep; mm->mmap_lock may be held.
 */
void xalloc_arena_vacate(struct xalloc_arena *arena)
{
	struct xalloc_page *page;
	u32 nr = 0;

	mutex_lock(&arena->lock);
	arena->reserve_low = 0;
	arena->reserve_high = 0;
	xalloc_lazy_release_all(arena);
	while ((page = list_first_entry_or_null(&arena->orphans.pages, struct xalloc_page, link))) {
		xalloc_page_end(arena, page);
		if (++nr % XALLOC_STEP_PAGES == 0)
			xalloc_arena_breathe(arena);
	}
	xalloc_reclaim(arena, 0);
	xalloc_reclaim_soon(arena);
	mutex_unlock(&arena->lock);
}

/**
 * xalloc_arena_destroy() - destroy an arena that has no client and no mapping any more
 * @arena: the arena; not to be used after this
 *
 * Segments that somebody still refers to stay charged to the payer until they do not.
 *
 * Context: Process context, may sleep. Never fails.
 */
void xalloc_arena_destroy(struct xalloc_arena *arena)
{
	struct xalloc_page *page, *next;
	bool empty;

	/* First, for the worker to stop at once. */
	mutex_lock(&arena->lock);
	arena->dying = true;
	arena->reserve_low = 0;
	arena->reserve_high = 0;
	mutex_unlock(&arena->lock);
	xalloc_reclaim_fini(arena);
	xalloc_backing_end(arena);
	if (arena->meta)
		fput(arena->meta);
	mutex_lock(&arena->lock);
	xalloc_lazy_release_all(arena);
	list_for_each_entry_safe(page, next, &arena->orphans.pages, link) {
		xalloc_page_abandon(arena, page);
		cond_resched();
	}
	WARN_ON_ONCE(arena->nr_clients || arena->nr_granted_slices);
	arena->mapping = NULL;
	/* Nobody is granted anything here again: quarantine has lost its purpose. */
	list_splice_init(&arena->abandoned, &arena->quarantine);
	list_for_each_entry_safe(page, next, &arena->quarantine, link) {
		xalloc_page_forget(arena, page);
		cond_resched();
	}
	arena->nr_quarantined = 0;
	spin_lock(&zombies_lock);
	list_add(&arena->zombie, &zombies);
	spin_unlock(&zombies_lock);
	xalloc_reclaim(arena, 0);
	empty = !arena->nr_committed_slices;
	mutex_unlock(&arena->lock);

	/* The worker may free the arena, so not before the lock is let go entirely. */
	if (!empty)
		xalloc_reclaim_zombie(arena);
	else if (take_zombie(arena))
		free_arena(arena);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_arena_destroy);

static int try_set_limit(struct xalloc_arena *arena, u32 nr_slices)
{
	if (arena->family)
		return xalloc_budget_set_limit(arena->budget, nr_slices);
	if (arena->nr_committed_slices > nr_slices)
		return -EBUSY;
	arena->limit_slices = nr_slices;
	return 0;
}

/**
 * xalloc_arena_set_limit() - set the limit of an arena
 * @arena: the arena
 * @limit_bytes: as in struct xalloc_arena_config
 *
 * What a lower limit leaves no room for is taken from the reserve.
 *
 * Context: Process context, may sleep.
 * Return: 0, or -EINVAL, -EINTR, -EBUSY if more than that is committed otherwise.
 */
int xalloc_arena_set_limit(struct xalloc_arena *arena, u64 limit_bytes)
{
	u64 arena_bytes = (u64)arena->nr_segments * XALLOC_SEGMENT_BYTES;
	u32 nr_slices = limit_slices(limit_bytes, arena_bytes, arena->family);
	int err;

	if (limit_bytes % XALLOC_SEGMENT_BYTES)
		return -EINVAL;
	if (mutex_lock_killable(&arena->lock))
		return -EINTR;
	err = try_set_limit(arena, nr_slices);
	if (err && xalloc_reclaim_for(arena, -EDQUOT))
		err = try_set_limit(arena, nr_slices);
	xalloc_reclaim_soon(arena);
	mutex_unlock(&arena->lock);
	return err;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_arena_set_limit);

/** xalloc_arena_stat() - fill in what is alive in one arena */
void xalloc_arena_stat(struct xalloc_arena *arena, struct xalloc_ioc_stat *stat)
{
	lockdep_assert_held(&arena->lock);
	*stat = (struct xalloc_ioc_stat){ .size = stat->size };
	stat->arenas = 1;
	stat->clients = arena->nr_clients;
	stat->pages = arena->nr_pages;
	stat->granted_bytes = (u64)arena->nr_granted_slices * XALLOC_SLICE_BYTES;
	stat->committed_bytes = (u64)arena->nr_committed_slices * XALLOC_SLICE_BYTES;
	stat->reserved_bytes = (u64)arena->nr_reserved * XALLOC_SEGMENT_BYTES;
	stat->pinned_bytes = (u64)arena->nr_idle_slices * XALLOC_SLICE_BYTES -
			     stat->reserved_bytes;
	if (arena->payer.user || arena->payer.has_user_limit)
		stat->charged_bytes = stat->committed_bytes;
	stat->small_bytes = (u64)arena->nr_small_slices * XALLOC_SLICE_BYTES;
	stat->off_node_bytes = (u64)arena->nr_off_node_slices * XALLOC_SLICE_BYTES;
	stat->fenced_bytes = (u64)arena->placement.nr_fenced * XALLOC_SEGMENT_BYTES;
	stat->exported_bytes = (u64)arena->nr_exported_slices * XALLOC_SLICE_BYTES;
	stat->lazy_bytes = (u64)arena->nr_lazy_slices * XALLOC_SLICE_BYTES;
	stat->cold_bytes = arena->nr_cold_slices * XALLOC_SLICE_BYTES;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_arena_stat);

/*
 * The references of zombies are dropped here and their charges end. Whoever pins the
 * memory keeps it; it goes back to the kernel with the last pin.
 */
static void drop_zombie(struct xalloc_arena *arena)
{
	struct xalloc_segment *seg;
	unsigned long index;

	cancel_delayed_work_sync(&arena->reap);
	mutex_lock(&arena->lock);
	xa_for_each(&arena->segments, index, seg)
		xalloc_segment_drop(arena, seg);
	mutex_unlock(&arena->lock);
	free_arena(arena);
}

/** xalloc_arena_fini() - module exit of what arenas share; only zombies can be left */
void xalloc_arena_fini(void)
{
	struct xalloc_arena *arena;

	for (;;) {
		spin_lock(&zombies_lock);
		arena = list_first_entry_or_null(&zombies, struct xalloc_arena, zombie);
		if (arena)
			list_del_init(&arena->zombie);
		spin_unlock(&zombies_lock);
		if (!arena)
			break;
		drop_zombie(arena);
	}
}
