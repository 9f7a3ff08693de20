// SPDX-License-Identifier: GPL-2.0-only
/*
 * The pool: zeroed order-9 folios on every node, had and zeroed before anybody waits.
 *
 * They belong to no memcg, because what was charged to one stays charged until it is
 * freed: so they come from a worker. One that enters page cache is charged then, to the arena's
 * memcg. An arena whose memory is outside of page cache gets one only if no memcg limit is above.
 * What an arena gives back goes to the kernel and not here. A worker fills each node up
 * to the parameter pool_segments; a shrinker takes all of it away when memory runs short,
 * and after that nothing is filled for a while, so that the two do not work against each
 * other.
 */
#include <linux/cpuset.h>
#include <linux/gfp.h>
#include <linux/jiffies.h>
#include <linux/mempolicy.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/nodemask.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "internal.h"

#define PAUSE (5 * HZ)
/* Whoever takes from the pool is at work, and filling it would compete with that. */
#define FILL_DELAY (HZ / 10)

struct pool {
	spinlock_t lock;		/* protects folios and nr */
	struct list_head folios;	/* by folio->lru */
	unsigned int nr;
};

static struct pool *pools;		/* by node */
static unsigned int pool_segments;
static unsigned long not_before;	/* jiffies until which nothing is filled */
static bool in_use;			/* by kernel_param_lock() */

static void fill(struct work_struct *work);
static DECLARE_DELAYED_WORK(fill_work, fill);

static struct folio *take(struct pool *pool)
{
	struct folio *folio;

	spin_lock(&pool->lock);
	folio = list_first_entry_or_null(&pool->folios, struct folio, lru);
	if (folio) {
		list_del(&folio->lru);
		WRITE_ONCE(pool->nr, pool->nr - 1);
		xalloc_count(XALLOC_NR_POOLED_SLICES, -(long)XALLOC_SLICES_PER_SEGMENT);
	}
	spin_unlock(&pool->lock);
	return folio;
}

static void put(struct pool *pool, struct folio *folio)
{
	spin_lock(&pool->lock);
	list_add(&folio->lru, &pool->folios);
	WRITE_ONCE(pool->nr, pool->nr + 1);
	xalloc_count(XALLOC_NR_POOLED_SLICES, XALLOC_SLICES_PER_SEGMENT);
	spin_unlock(&pool->lock);
}

static unsigned long drain(struct pool *pool, unsigned int keep, unsigned long nr_segments)
{
	unsigned long nr_drained = 0;
	struct folio *folio;

	while (nr_drained < nr_segments && READ_ONCE(pool->nr) > keep) {
		folio = take(pool);
		if (!folio)
			break;
		xalloc_backing_put(folio);
		nr_drained++;
	}
	return nr_drained;
}

/*
 * What is free, or what a glance at the neighbourhood frees; no more for a mere stock. Not
 * through kswapd, whose shrinking would drain what is being filled.
 */
static bool fill_one(int nid)
{
	const gfp_t gfp = GFP_KERNEL & ~__GFP_KSWAPD_RECLAIM;
	struct folio *folio;

	folio = __folio_alloc_node(gfp | __GFP_ZERO | __GFP_NOWARN | __GFP_NORETRY |
				   __GFP_THISNODE, XALLOC_SEGMENT_ORDER, nid);
	if (folio)
		put(&pools[nid], folio);
	return folio;
}

static void fill(struct work_struct *work)
{
	unsigned int target;
	int nid;

	if (time_before(jiffies, READ_ONCE(not_before))) {
		mod_delayed_work(system_dfl_wq, &fill_work, PAUSE);
		return;
	}
	for_each_node_state(nid, N_MEMORY) {
		target = READ_ONCE(pool_segments);
		drain(&pools[nid], target, ULONG_MAX);
		while (READ_ONCE(pools[nid].nr) < READ_ONCE(pool_segments)) {
			if (time_before(jiffies, READ_ONCE(not_before)) || !fill_one(nid)) {
				mod_delayed_work(system_dfl_wq, &fill_work, PAUSE);
				break;
			}
			cond_resched();
		}
	}
}

static int set_pool_segments(const char *val, const struct kernel_param *kp)
{
	int err = param_set_uint(val, kp);

	/* Called under kernel_param_lock(), also before init and after exit. */
	if (!err && in_use) {
		WRITE_ONCE(not_before, jiffies);
		mod_delayed_work(system_dfl_wq, &fill_work, 0);
	}
	return err;
}

static const struct kernel_param_ops pool_segments_ops = {
	.set = set_pool_segments,
	.get = param_get_uint,
};
module_param_cb(pool_segments, &pool_segments_ops, &pool_segments, 0644);
MODULE_PARM_DESC(pool_segments, "zeroed 2 MiB segments to hold ready on each node (default 0)");

/*
 * The node to take from, as the page allocator has it for who commits: near the CPU, if neither
 * cpuset nor policy of the task says otherwise. NUMA_NO_NODE: from none.
 */
static int choose_node(const struct xalloc_arena *arena)
{
	int nid = arena->node == NUMA_NO_NODE ? numa_mem_id() : arena->node;
#ifdef CONFIG_NUMA
	const struct mempolicy *policy = current->mempolicy;

	if (arena->node == NUMA_NO_NODE && policy && policy->mode != MPOL_LOCAL) {
		/* All other modes are left to the page allocator. */
		if (policy->mode != MPOL_BIND && policy->mode != MPOL_PREFERRED)
			return NUMA_NO_NODE;
		if (!node_isset(nid, policy->nodes))
			nid = first_node(policy->nodes);
	}
#endif
	return node_isset(nid, cpuset_current_mems_allowed) ? nid : NUMA_NO_NODE;
}

/**
 * xalloc_pool_take() - take a zeroed order-9 folio
 * @arena: for which arena
 *
 * Context: Process context, does not sleep.
 * Return: the folio with one reference, charged to no memcg, or NULL.
 */
struct folio *xalloc_pool_take(const struct xalloc_arena *arena)
{
	int nid = choose_node(arena);
	struct folio *folio;

	if (nid == NUMA_NO_NODE || !READ_ONCE(pools[nid].nr))
		return NULL;
	folio = take(&pools[nid]);
	if (folio)
		queue_delayed_work(system_dfl_wq, &fill_work, FILL_DELAY);
	return folio;
}

/** xalloc_pool_untake() - put a folio back that xalloc_pool_take() gave and nobody used */
void xalloc_pool_untake(struct folio *folio)
{
	put(&pools[folio_nid(folio)], folio);
}

static unsigned long pool_count(struct shrinker *shrinker, struct shrink_control *sc)
{
	unsigned long nr = READ_ONCE(pools[sc->nid].nr);

	return nr ? nr * XALLOC_SEGMENT_KPAGES : SHRINK_EMPTY;
}

static unsigned long pool_scan(struct shrinker *shrinker, struct shrink_control *sc)
{
	unsigned long nr = DIV_ROUND_UP(sc->nr_to_scan, XALLOC_SEGMENT_KPAGES);

	WRITE_ONCE(not_before, jiffies + PAUSE);
	nr = drain(&pools[sc->nid], 0, nr);
	queue_delayed_work(system_dfl_wq, &fill_work, PAUSE);
	return nr ? nr * XALLOC_SEGMENT_KPAGES : SHRINK_STOP;
}

static struct shrinker *shrinker;

/**
 * xalloc_pool_init() - module init of the pool
 * Return: 0 or -ENOMEM.
 */
int xalloc_pool_init(void)
{
	struct pool *table;
	int nid;

	table = kcalloc(nr_node_ids, sizeof(*table), GFP_KERNEL);
	if (!table)
		return -ENOMEM;
	for (nid = 0; nid < nr_node_ids; nid++) {
		spin_lock_init(&table[nid].lock);
		INIT_LIST_HEAD(&table[nid].folios);
	}
	shrinker = shrinker_alloc(SHRINKER_NUMA_AWARE, "xalloc-pool");
	if (!shrinker) {
		kfree(table);
		return -ENOMEM;
	}
	shrinker->count_objects = pool_count;
	shrinker->scan_objects = pool_scan;
	not_before = jiffies;
	shrinker->batch = XALLOC_SEGMENT_KPAGES;
	pools = table;
	shrinker_register(shrinker);
	kernel_param_lock(THIS_MODULE);
	in_use = true;
	kernel_param_unlock(THIS_MODULE);
	mod_delayed_work(system_dfl_wq, &fill_work, 0);
	return 0;
}

/** xalloc_pool_fini() - module exit of the pool: all of it goes back to the kernel */
void xalloc_pool_fini(void)
{
	int nid;

	/* The parameter's file is there until after this. */
	kernel_param_lock(THIS_MODULE);
	in_use = false;
	pool_segments = 0;
	kernel_param_unlock(THIS_MODULE);
	shrinker_free(shrinker);
	/* It ends by itself once nothing more is to be held ready, and not_before is gone by. */
	cancel_delayed_work_sync(&fill_work);
	for (nid = 0; nid < nr_node_ids; nid++)
		drain(&pools[nid], 0, ULONG_MAX);
	kfree(pools);
}
