// SPDX-License-Identifier: GPL-2.0-only
/*
 * The reserve of an arena: segments with memory and without a page, kept at their offsets.
 *
 * A grant takes them before any other memory, so that nobody waits for it. A worker brings
 * the reserve to its high mark when a grant leaves it below the low mark, zeroes what comes
 * back to it, and charges the arena's payer and memcg as a grant does. What is freed stays
 * up to the high mark. Trimming gives it back, and so does a shrinker when the machine's
 * memory runs short; after that nothing is filled for a while, unless somebody asks for it.
 * Where an arena has no reserve, another shrinker tells its clients by their status page to give
 * back what they can. The reclaim of a single memcg does not see it.
 */
#include <linux/jiffies.h>
#include <linux/mutex.h>
#include <linux/shrinker.h>

#include "internal.h"

#define PAUSE (5 * HZ)

/* Most arenas that one call of the shrinker looks at, and the least time between two wishes. */
#define SCAN_ARENAS_MAX 64
#define WANT_PERIOD (HZ / 10)

static LIST_HEAD(arenas);
static DEFINE_MUTEX(arenas_lock);	/* protects arenas and arena->reserve_link */
static struct workqueue_struct *fill_wq;

/* One segment more, or one that is zero again. Returns false when there is no more to do. */
static bool fill_one(struct xalloc_arena *arena)
{
	struct xalloc_segment *seg;
	u32 index;
	int err;

	if (arena->dying)
		return false;
	if (arena->nr_dirty) {
		list_for_each_entry(seg, &arena->idle, idle)
			if (seg->dirty) {
				xalloc_segment_clean(arena, seg);
				return true;
			}
		WARN_ON_ONCE(1);
		arena->nr_dirty = 0;
	}
	if (!arena->reserve_low_seen || arena->nr_reserved >= arena->reserve_high ||
	    time_before(jiffies, arena->fill_not_before))
		return false;
	index = xalloc_placement_find_bare(&arena->placement);
	if (index == XALLOC_PLACEMENT_NONE)
		return false;
	arena->reserve_populating = true;
	err = xalloc_segment_populate(arena, index, ~0u,
				      XALLOC_POPULATE_HUGE | XALLOC_POPULATE_BACKGROUND);
	arena->reserve_populating = false;
	if (err) {
		arena->fill_not_before = jiffies + PAUSE;
		return false;
	}
	seg = xa_load(&arena->segments, index);
	if (seg)
		xalloc_segment_settle(arena, seg, arena->reserve_high);
	xalloc_arena_reap_soon(arena);
	return true;
}

static void reserve_fill_work(struct work_struct *work)
{
	struct xalloc_arena *arena = container_of(work, struct xalloc_arena, fill.work);
	bool more;

	do {
		mutex_lock(&arena->lock);
		more = fill_one(arena);
		if (!more) {
			arena->filling = false;
			arena->reserve_low_seen = false;
		}
		mutex_unlock(&arena->lock);
		cond_resched();
	} while (more);
	wake_up_all(&arena->filled);
}

static void fill_soon(struct xalloc_arena *arena)
{
	unsigned long now = jiffies;

	arena->filling = true;
	mod_delayed_work(fill_wq, &arena->fill, time_before(now, arena->fill_not_before) ?
						arena->fill_not_before - now : 0);
}

/**
 * xalloc_reserve_clean() - have the worker zero what has come back to the reserve
 * @arena: the arena
 *
 * Does not look at the low mark: what was trimmed is wanted again by grants alone.
 *
 * Context: arena->lock held.
 */
void xalloc_reserve_clean(struct xalloc_arena *arena)
{
	lockdep_assert_held(&arena->lock);
	if (!arena->filling && arena->nr_dirty)
		fill_soon(arena);
}

/**
 * xalloc_reserve_check() - have the worker look if the reserve wants filling or zeroing
 * @arena: the arena, in which something was granted
 *
 * Context: arena->lock held.
 */
void xalloc_reserve_check(struct xalloc_arena *arena)
{
	lockdep_assert_held(&arena->lock);
	if (arena->nr_reserved < arena->reserve_low)
		arena->reserve_low_seen = true;
	if (!arena->filling && (arena->nr_dirty || arena->reserve_low_seen))
		fill_soon(arena);
}

/**
 * xalloc_reserve_release() - let go of all that a grant could have instead
 * @arena: the arena, whose budget or memory does not suffice
 *
 * What is in the reserve, and what only waited for somebody to let go of it.
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again.
 * Return: whether anything was given back.
 */
bool xalloc_reserve_release(struct xalloc_arena *arena)
{
	lockdep_assert_held(&arena->lock);
	/* Or the worker would take it again at once. */
	arena->fill_not_before = jiffies + PAUSE;
	while (arena->reserve_populating && !xalloc_segment_wait(arena))
		;
	return xalloc_arena_reap(arena, 0);
}

/**
 * xalloc_reserve_set() - set the marks of an arena's reserve and have it filled
 * @arena: the arena
 * @low: segments below which it is filled
 * @high: segments to which it is filled, and which are kept; at least @low
 *
 * What is above @high is given back.
 *
 * Context: Process context, may sleep. Takes and releases arena->lock.
 */
void xalloc_reserve_set(struct xalloc_arena *arena, u32 low, u32 high)
{
	mutex_lock(&arena->lock);
	arena->reserve_low = low;
	arena->reserve_high = high;
	arena->fill_not_before = jiffies;
	xalloc_arena_reap(arena, high);
	xalloc_arena_reap_soon(arena);
	if (arena->nr_reserved < high) {
		arena->reserve_low_seen = true;
		fill_soon(arena);
	}
	mutex_unlock(&arena->lock);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_reserve_set);

/**
 * xalloc_reserve_init() - the reserve of a new arena, empty
 * @arena: the arena
 */
void xalloc_reserve_init(struct xalloc_arena *arena)
{
	arena->fill_not_before = jiffies;
	init_waitqueue_head(&arena->filled);
	INIT_LIST_HEAD(&arena->reserve_link);
	INIT_DELAYED_WORK(&arena->fill, reserve_fill_work);
}

/**
 * xalloc_reserve_start() - have the shrinker look at an arena
 * @arena: the arena, complete
 */
void xalloc_reserve_start(struct xalloc_arena *arena)
{
	mutex_lock(&arenas_lock);
	list_add(&arena->reserve_link, &arenas);
	mutex_unlock(&arenas_lock);
}

/**
 * xalloc_reserve_fini() - end the worker and the shrinker of an arena that goes away
 * @arena: the arena, dying
 *
 * What is in the reserve stays there.
 *
 * Context: Process context, may sleep. arena->lock not held.
 */
void xalloc_reserve_fini(struct xalloc_arena *arena)
{
	mutex_lock(&arenas_lock);
	list_del_init(&arena->reserve_link);
	mutex_unlock(&arenas_lock);
	cancel_delayed_work_sync(&arena->fill);
}

/* Returns how many segments went. */
static unsigned long shrink(struct xalloc_arena *arena, unsigned long nr_segments)
{
	struct xalloc_segment *seg, *next;
	unsigned long nr_dropped = 0;

	list_for_each_entry_safe(seg, next, &arena->idle, idle) {
		if (nr_dropped == nr_segments)
			break;
		if (seg->reserved && xalloc_segment_drop_reserved(arena, seg))
			nr_dropped++;
	}
	arena->fill_not_before = jiffies + PAUSE;
	return nr_dropped;
}

/* Asks the clients of the arena, unless its reserve can go first. Nothing goes by this itself. */
static unsigned long want(struct xalloc_arena *arena, unsigned long nr_segments)
{
	u32 nr_granted = DIV_ROUND_UP(arena->nr_granted_slices, XALLOC_SLICES_PER_SEGMENT);

	if (arena->nr_reserved || !nr_granted ||
	    !time_after(jiffies, arena->wanted_at + WANT_PERIOD))
		return 0;
	arena->wanted_at = jiffies;
	xalloc_arena_want(arena, min_t(u64, nr_segments, nr_granted) * XALLOC_SEGMENT_BYTES);
	return 0;
}

/* Calls @act on arenas until @nr_segments segments went. Returns how many did. */
static unsigned long act_on_arenas(unsigned long nr_segments,
				   unsigned long (*act)(struct xalloc_arena *arena,
							unsigned long nr_segments))
{
	struct xalloc_arena *arena;
	unsigned long nr_done = 0;
	LIST_HEAD(seen);
	u32 i;

	if (!mutex_trylock(&arenas_lock))
		return 0;
	for (i = 0; i < SCAN_ARENAS_MAX && nr_done < nr_segments; i++) {
		arena = list_first_entry_or_null(&arenas, struct xalloc_arena, reserve_link);
		if (!arena)
			break;
		/* The task that reclaims may hold the lock. */
		if (mutex_trylock(&arena->lock)) {
			nr_done += act(arena, nr_segments - nr_done);
			mutex_unlock(&arena->lock);
		}
		list_move_tail(&arena->reserve_link, &seen);
	}
	/* The next round begins with others. */
	list_splice_tail(&seen, &arenas);
	mutex_unlock(&arenas_lock);
	return nr_done;
}

static unsigned long count_kpages(enum xalloc_counter counter)
{
	return atomic_long_read(&xalloc_counters[counter]) * XALLOC_SLICE_KPAGES ?: SHRINK_EMPTY;
}

static unsigned long count_reserved(struct shrinker *shrinker, struct shrink_control *sc)
{
	return count_kpages(XALLOC_NR_RESERVED_SLICES);
}

static unsigned long scan_reserved(struct shrinker *shrinker, struct shrink_control *sc)
{
	unsigned long nr_segments = DIV_ROUND_UP(sc->nr_to_scan, XALLOC_SEGMENT_KPAGES);
	unsigned long nr_dropped = act_on_arenas(nr_segments, shrink);

	return nr_dropped ? nr_dropped * XALLOC_SEGMENT_KPAGES : SHRINK_STOP;
}

static unsigned long count_granted(struct shrinker *shrinker, struct shrink_control *sc)
{
	return count_kpages(XALLOC_NR_GRANTED_SLICES);
}

/* Frees nothing: it asks clients, who alone know what they can spare. */
static unsigned long scan_granted(struct shrinker *shrinker, struct shrink_control *sc)
{
	act_on_arenas(DIV_ROUND_UP(sc->nr_to_scan, XALLOC_SEGMENT_KPAGES), want);
	return SHRINK_STOP;
}

/*
 * Two shrinkers: the kernel asks each for a share of its count. With one, reserves would shrink in
 * proportion to granted memory, which cannot be taken.
 */
static struct shrinker *reserved_shrinker;
static struct shrinker *granted_shrinker;

/**
 * xalloc_reserve_module_init() - module init of what reserves share
 * Return: 0 or -ENOMEM.
 */
int xalloc_reserve_module_init(void)
{
	fill_wq = alloc_workqueue("xalloc_fill", WQ_UNBOUND, 0);
	if (!fill_wq)
		return -ENOMEM;
	reserved_shrinker = shrinker_alloc(0, "xalloc-reserve");
	if (!reserved_shrinker)
		goto err_workqueue;
	granted_shrinker = shrinker_alloc(0, "xalloc-want");
	if (!granted_shrinker)
		goto err_reserved;
	reserved_shrinker->count_objects = count_reserved;
	reserved_shrinker->scan_objects = scan_reserved;
	reserved_shrinker->batch = XALLOC_SEGMENT_KPAGES;
	shrinker_register(reserved_shrinker);
	granted_shrinker->count_objects = count_granted;
	granted_shrinker->scan_objects = scan_granted;
	granted_shrinker->batch = XALLOC_SEGMENT_KPAGES;
	shrinker_register(granted_shrinker);
	return 0;

err_reserved:
	shrinker_free(reserved_shrinker);
err_workqueue:
	destroy_workqueue(fill_wq);
	return -ENOMEM;
}

/** xalloc_reserve_module_fini() - module exit of what reserves share */
void xalloc_reserve_module_fini(void)
{
	shrinker_free(granted_shrinker);
	shrinker_free(reserved_shrinker);
	destroy_workqueue(fill_wq);
}
