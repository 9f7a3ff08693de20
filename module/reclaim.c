// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reclaim: memory that nobody has any more, until it is given back or granted again.
 *
 * Segments with idle memory go as soon as nobody refers to them; those that cannot are the rest. A
 * worker looks at the rest and at the pages in quarantine (quarantine.c), ever less often while
 * nothing new comes. Another worker releases pages that were freed lazily (lazy.c), unless a grant,
 * a trim or a shrinker ends them first.
 *
 * The reserve is idle memory that is kept for grants, so that nobody waits for it. A worker brings
 * it to its high mark when a grant leaves it below the low mark, zeroes what comes back to it, and
 * charges the arena's payer and memcg as a grant does. What is freed stays up to the high mark.
 * Trimming gives the reserve back. A grant that gets no memory otherwise has the whole reserve. A
 * shrinker takes the reserve when memory runs short, of the machine or of the memcg that pays; then
 * the worker does not fill that reserve for a while, unless somebody sets its marks anew. Where an
 * arena has no reserve, another shrinker tells its clients by their status page to give back what
 * they can.
 *
 * Whatever takes long goes by steps, with arena->lock let go between them.
 */
#include <linux/jiffies.h>
#include <linux/list_lru.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/oom.h>
#include <linux/shrinker.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "internal.h"

#define REAP_DELAY_MIN (HZ / 20)
#define REAP_DELAY_MAX (2 * HZ)

/*
 * The worker looks once in this time, and ends lazy pages that are at least so old. So their memory
 * stays for one to two of these.
 */
#define LAZY_DELAY HZ

/* Segments of the rest to look at before others have arena->lock. */
#define STEP_LOOKS 16

/* How long nothing is filled after memory was short. */
#define PAUSE (5 * HZ)

/* Most arenas that one call of the shrinker looks at, and most segments of an arena's rest. */
#define SCAN_ARENAS_MAX 64
#define SHRINK_LOOKS_MAX 256

/* The least time between two wishes. */
#define WANT_PERIOD (HZ / 10)

static struct kmem_cache *arena_cache;
static LIST_HEAD(arenas);
static DEFINE_MUTEX(arenas_lock);	/* protects all links of arenas in this file */
/*
 * Arenas that may have a reserve or lazy frees, sorted by the memcg that pays for them: this list
 * tells the kernel which memcgs to ask. A shrinker takes an arena off that has none of these and no
 * marks.
 */
static struct list_lru reserved_arenas;
static bool has_reserved_arenas;

static struct workqueue_struct *fill_wq;
static struct workqueue_struct *reap_wq;

/* --- reaping */

/* Idle slices and pages that wait to be given back; in a zombie, all slices that have memory. */
static u64 count_waiting(const struct xalloc_arena *arena)
{
	u32 nr_kept = min(arena->nr_reserved, arena->reserve_high);

	if (arena->dying)
		return arena->nr_committed_slices;
	return (u64)arena->nr_idle_slices - nr_kept * XALLOC_SLICES_PER_SEGMENT +
	       arena->nr_quarantined + !list_empty(&arena->abandoned);
}

static void reap_rest(struct xalloc_arena *arena)
{
	struct xalloc_segment *seg;
	struct list_head *at;
	u32 nr = 0;

	list_for_each(at, &arena->rest)
		nr++;
	for (; nr && !xalloc_is_killed(); nr--) {
		seg = list_first_entry_or_null(&arena->rest, struct xalloc_segment, idle);
		if (!seg)
			break;
		list_move_tail(&seg->idle, &arena->rest);
		xalloc_segment_settle(arena, seg);
		if (nr % STEP_LOOKS == 0)
			xalloc_arena_breathe(arena);
	}
}

/* One with memory that is to be zeroed goes first. Returns how many went of up to @nr_segments. */
static u32 drop_reserve(struct xalloc_arena *arena, u32 nr_segments, bool may_wait)
{
	struct list_head *lists[] = { &arena->dirty, &arena->reserve };
	struct xalloc_segment *seg, *next;
	u32 i, nr = 0;

	for (i = 0; i < ARRAY_SIZE(lists); i++)
		list_for_each_entry_safe(seg, next, lists[i], idle) {
			if (nr == nr_segments)
				return nr;
			if (xalloc_segment_drop_idle(arena, seg, may_wait))
				nr++;
		}
	return nr;
}

static void trim_reserve(struct xalloc_arena *arena, u32 nr_keep)
{
	u32 nr;

	while (arena->nr_reserved > nr_keep && !xalloc_is_killed()) {
		nr = min_t(u32, arena->nr_reserved - nr_keep, STEP_LOOKS);
		if (!drop_reserve(arena, nr, true))
			break;
		xalloc_arena_breathe(arena);
	}
}

/**
 * xalloc_reclaim() - give back all that nobody refers to any more
 * @arena: the arena
 * @nr_reserve: most segments to keep in the reserve
 *
 * A fatal signal stops this function, unless the task exits already; the worker then goes on.
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again.
 * Return: the number of slices given back by this task and, meanwhile, by others.
 */
u32 xalloc_reclaim(struct xalloc_arena *arena, u32 nr_reserve)
{
	u64 before = arena->nr_given_back;

	lockdep_assert_held(&arena->lock);
	xalloc_quarantine_abandoned(arena);
	xalloc_quarantine_reap(arena);
	reap_rest(arena);
	trim_reserve(arena, nr_reserve);
	/* What has come back to it. */
	xalloc_reclaim_clean_soon(arena);
	return arena->nr_given_back - before;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_reclaim);

/**
 * xalloc_reclaim_trim() - xalloc_reclaim(), of all that can be had now
 * @arena: the arena
 * @nr_reserve: most segments to keep in the reserve
 *
 * What was freed lazily goes, too.
 *
 * Waits for the segment that the worker is filling or zeroing, which would stay otherwise.
 * The worker fills nothing meanwhile.
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again.
 * Return: the number of slices given back by this task and, meanwhile, by others.
 */
u32 xalloc_reclaim_trim(struct xalloc_arena *arena, u32 nr_reserve)
{
	u32 nr;

	lockdep_assert_held(&arena->lock);
	arena->nr_reclaimers++;
	while (arena->fill_is_away && !xalloc_segment_wait(arena))
		;
	xalloc_lazy_release_all(arena);
	nr = xalloc_reclaim(arena, nr_reserve);
	arena->nr_reclaimers--;
	xalloc_reclaim_clean_soon(arena);
	return nr;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_reclaim_trim);

/**
 * xalloc_reclaim_for() - make room for what has just failed
 * @arena: the arena, whose offsets, budget or memory did not suffice
 * @err: the error
 *
 * Lazy pages end in every case. For want of offsets, only memory that nobody refers to any more is
 * given back besides. For want of budget or memory, the whole reserve is given back, too. What a
 * mount's budget refuses is -ENOSPC as well.
 *
 * Context: Process context, may sleep. arena->lock held; let go and taken again.
 * Return: whether it is worth to try again.
 */
bool xalloc_reclaim_for(struct xalloc_arena *arena, int err)
{
	u32 nr_free = arena->placement.nr_free_slices, nr_reserve = 0;
	bool is_worth;

	lockdep_assert_held(&arena->lock);
	switch (err) {
	case -ENOSPC:
	case -EBUSY:
		if (!xalloc_page_check_limits(arena, XALLOC_SLICES_PER_SEGMENT))
			nr_reserve = arena->reserve_high;
		break;
	case -EDQUOT:
	case -ENOBUFS:
	case -EUSERS:
	case -ENOSR:
	case -ENOMEM:
		/* Or the worker would take it again at once. */
		arena->fill_not_before = jiffies + PAUSE;
		break;
	default:
		return false;
	}
	is_worth = xalloc_reclaim_trim(arena, nr_reserve) ||
		   arena->placement.nr_free_slices > nr_free;
	xalloc_reclaim_fill_soon(arena);
	return is_worth;
}

/**
 * xalloc_reclaim_soon() - have the worker look for what can be given back
 * @arena: the arena, in which something may wait for somebody to let go of it
 *
 * If more waits than at the last look, the worker looks soon. Otherwise the worker looks after the
 * delay that it has come to, which is at most REAP_DELAY_MAX.
 *
 * Context: arena->lock held.
 */
void xalloc_reclaim_soon(struct xalloc_arena *arena)
{
	u64 nr_waiting = count_waiting(arena);
	bool is_new = nr_waiting > arena->nr_waiting;

	lockdep_assert_held(&arena->lock);
	arena->nr_waiting = nr_waiting;
	if (!nr_waiting)
		return;
	/* A look that is due soon already is not put off: frees could do that for ever. */
	if (is_new && arena->reap_delay > REAP_DELAY_MIN)
		mod_delayed_work(reap_wq, &arena->reap, REAP_DELAY_MIN);
	else
		queue_delayed_work(reap_wq, &arena->reap, is_new ? REAP_DELAY_MIN :
								   arena->reap_delay);
	if (is_new)
		arena->reap_delay = REAP_DELAY_MIN;
}

/**
 * xalloc_reclaim_zombie() - have the worker look after what is left of an arena
 * @arena: the arena, a zombie, which may be freed at any moment after this
 *
 * Context: arena->lock not held.
 */
void xalloc_reclaim_zombie(struct xalloc_arena *arena)
{
	queue_delayed_work(reap_wq, &arena->reap, REAP_DELAY_MIN);
}

/**
 * xalloc_reclaim_pass() - what the worker does: look once, and later again if need be
 * @arena: the arena
 *
 * Context: Process context, may sleep. Takes and releases arena->lock.
 * Return: whether the arena has no memory any more.
 */
bool xalloc_reclaim_pass(struct xalloc_arena *arena)
{
	bool is_empty;

	mutex_lock(&arena->lock);
	xalloc_reclaim(arena, arena->reserve_high);
	is_empty = !arena->nr_committed_slices;
	arena->nr_waiting = count_waiting(arena);
	if (arena->nr_waiting) {
		arena->reap_delay = min_t(unsigned long, 2 * arena->reap_delay, REAP_DELAY_MAX);
		queue_delayed_work(reap_wq, &arena->reap, arena->reap_delay);
	}
	mutex_unlock(&arena->lock);
	return is_empty;
}

/* --- lazy frees */

static void lazy_work(struct work_struct *work)
{
	struct xalloc_arena *arena = container_of(work, struct xalloc_arena, lazy_work.work);
	unsigned long until = jiffies - LAZY_DELAY;

	mutex_lock(&arena->lock);
	while (xalloc_lazy_release(arena, until, XALLOC_SLICES_PER_SEGMENT))
		xalloc_arena_breathe(arena);
	xalloc_reclaim(arena, arena->reserve_high);
	xalloc_reclaim_soon(arena);
	if (arena->nr_lazy_slices)
		queue_delayed_work(reap_wq, &arena->lazy_work, LAZY_DELAY);
	mutex_unlock(&arena->lock);
}

/* Has the shrinker know of an arena. */
static void list_reserved(struct xalloc_arena *arena)
{
	mutex_lock(&arenas_lock);
	list_lru_add_obj(&reserved_arenas, &arena->reserved_link);
	mutex_unlock(&arenas_lock);
}

/**
 * xalloc_reclaim_lazy_soon() - have the worker give back what was freed lazily, after a delay
 * @arena: the arena, in which something may have been freed lazily
 *
 * Context: Process context, may sleep. arena->lock held.
 */
void xalloc_reclaim_lazy_soon(struct xalloc_arena *arena)
{
	lockdep_assert_held(&arena->lock);
	if (!arena->nr_lazy_slices)
		return;
	queue_delayed_work(reap_wq, &arena->lazy_work, LAZY_DELAY);
	if (list_empty_careful(&arena->reserved_link))
		list_reserved(arena);
}

/* --- the reserve */

/* One segment that is zero again. Returns false when there is no more to do. */
static bool clean_one(struct xalloc_arena *arena)
{
	struct xalloc_segment *seg;

	seg = list_first_entry_or_null(&arena->dirty, struct xalloc_segment, idle);
	if (arena->dying || !seg)
		return false;
	arena->fill_is_away = true;
	xalloc_segment_clean(arena, seg);
	arena->fill_is_away = false;
	wake_up_all(&arena->populated);
	return true;
}

/* One segment more. Returns false when there is no more to do. */
static bool fill_one(struct xalloc_arena *arena)
{
	struct xalloc_segment *seg;
	u32 index;
	int err;

	if (arena->dying || !arena->reserve_low_seen || arena->nr_reserved >= arena->reserve_high ||
	    time_before(jiffies, arena->fill_not_before))
		return false;
	index = xalloc_placement_find_bare(&arena->placement);
	if (index == XALLOC_PLACEMENT_NONE)
		return false;
	arena->fill_is_away = true;
	WRITE_ONCE(arena->filler, current);
	err = xalloc_segment_populate(arena, index, ~0u,
				      XALLOC_POPULATE_HUGE | XALLOC_POPULATE_BACKGROUND);
	WRITE_ONCE(arena->filler, NULL);
	arena->fill_is_away = false;
	if (err) {
		/* Not before the next grant that leaves the reserve below its low mark. */
		arena->reserve_low_seen = false;
		arena->fill_not_before = jiffies + PAUSE;
		return false;
	}
	seg = xa_load(&arena->segments, index);
	if (seg)
		xalloc_segment_settle(arena, seg);
	xalloc_reclaim_soon(arena);
	return true;
}

/* Have the worker look at once, or when memory is not short any more. */
static void queue_fill(struct xalloc_arena *arena)
{
	unsigned long now = jiffies;
	bool is_late = list_empty(&arena->dirty) && time_before(now, arena->fill_not_before);

	if (arena->dying)
		return;
	arena->filling = true;
	mod_delayed_work(fill_wq, &arena->fill, is_late ? arena->fill_not_before - now : 0);
}

/* The worker has nothing to do now. */
static void end_filling(struct xalloc_arena *arena)
{
	arena->filling = false;
	/* They have it look again. */
	if (arena->nr_reclaimers)
		return;
	if (arena->reserve_low_seen && arena->nr_reserved < arena->reserve_high &&
	    time_before(jiffies, arena->fill_not_before))
		queue_fill(arena);
	else
		arena->reserve_low_seen = false;
}

static void reserve_fill_work(struct work_struct *work)
{
	struct xalloc_arena *arena = container_of(work, struct xalloc_arena, fill.work);
	bool more;

	do {
		mutex_lock(&arena->lock);
		/* A mark may have been lowered meanwhile. */
		if (arena->nr_reserved > arena->reserve_high) {
			trim_reserve(arena, arena->reserve_high);
			xalloc_reclaim_soon(arena);
		}
		more = !arena->nr_reclaimers && (clean_one(arena) || fill_one(arena));
		if (!more)
			end_filling(arena);
		mutex_unlock(&arena->lock);
		cond_resched();
	} while (more);
	wake_up_all(&arena->filled);
}

/**
 * xalloc_reclaim_clean_soon() - have the worker zero what has come back to the reserve
 * @arena: the arena
 *
 * The worker also goes on with a filling that was interrupted, but does not look at the low mark:
 * what was trimmed is wanted again by grants alone.
 *
 * Context: arena->lock held.
 */
void xalloc_reclaim_clean_soon(struct xalloc_arena *arena)
{
	lockdep_assert_held(&arena->lock);
	if (!arena->filling && (arena->reserve_low_seen || !list_empty(&arena->dirty)))
		queue_fill(arena);
}

/**
 * xalloc_reclaim_fill_soon() - have the worker look if the reserve wants filling or zeroing
 * @arena: the arena, in which something was granted
 *
 * Context: arena->lock held.
 */
void xalloc_reclaim_fill_soon(struct xalloc_arena *arena)
{
	lockdep_assert_held(&arena->lock);
	if (arena->nr_reserved < arena->reserve_low)
		arena->reserve_low_seen = true;
	xalloc_reclaim_clean_soon(arena);
}

/**
 * xalloc_reclaim_set_reserve() - set the marks of an arena's reserve and have it filled
 * @arena: the arena
 * @low: segments below which it is filled
 * @high: segments to which it is filled, and which are kept; at least @low
 *
 * What is above @high is given back.
 *
 * Context: Process context, may sleep. Takes and releases arena->lock.
 */
void xalloc_reclaim_set_reserve(struct xalloc_arena *arena, u32 low, u32 high)
{
	mutex_lock(&arena->lock);
	arena->reserve_low = low;
	arena->reserve_high = high;
	if (high)
		list_reserved(arena);
	arena->fill_not_before = jiffies;
	xalloc_reclaim_trim(arena, high);
	xalloc_reclaim_soon(arena);
	/* Another task may have set other marks meanwhile. */
	if (arena->nr_reserved < arena->reserve_high) {
		arena->reserve_low_seen = true;
		queue_fill(arena);
	}
	mutex_unlock(&arena->lock);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_reclaim_set_reserve);

/**
 * xalloc_reclaim_alloc() - memory for an arena, of a kind that the memcg's reclaim can find
 *
 * Context: Process context, may sleep. The memcg is the active one.
 * Return: the arena, zeroed, or NULL. To be freed by xalloc_reclaim_free().
 */
struct xalloc_arena *xalloc_reclaim_alloc(void)
{
	return kmem_cache_alloc_lru(arena_cache, &reserved_arenas, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
}

/** xalloc_reclaim_free() - free the memory of an arena */
void xalloc_reclaim_free(struct xalloc_arena *arena)
{
	kmem_cache_free(arena_cache, arena);
}

/**
 * xalloc_reclaim_init() - a new arena has nothing to reclaim
 * @arena: the arena
 */
void xalloc_reclaim_init(struct xalloc_arena *arena)
{
	arena->fill_not_before = jiffies;
	init_waitqueue_head(&arena->filled);
	INIT_LIST_HEAD(&arena->rest);
	INIT_LIST_HEAD(&arena->reserve);
	INIT_LIST_HEAD(&arena->dirty);
	INIT_LIST_HEAD(&arena->abandoned);
	INIT_LIST_HEAD(&arena->quarantine);
	INIT_LIST_HEAD(&arena->reclaim_link);
	INIT_LIST_HEAD(&arena->reserved_link);
	arena->reap_delay = REAP_DELAY_MIN;
	arena->wanted_at = jiffies;
	INIT_DELAYED_WORK(&arena->fill, reserve_fill_work);
	INIT_DELAYED_WORK(&arena->lazy_work, lazy_work);
}

/**
 * xalloc_reclaim_start() - have the shrinker look at an arena
 * @arena: the arena, complete
 */
void xalloc_reclaim_start(struct xalloc_arena *arena)
{
	mutex_lock(&arenas_lock);
	list_add(&arena->reclaim_link, &arenas);
	mutex_unlock(&arenas_lock);
}

/**
 * xalloc_reclaim_fini() - end the workers and the shrinkers of an arena that goes away
 * @arena: the arena, dying
 *
 * What is in the reserve stays there, and xalloc_reclaim_soon() may queue a worker again.
 *
 * Context: Process context, may sleep. arena->lock not held.
 */
void xalloc_reclaim_fini(struct xalloc_arena *arena)
{
	mutex_lock(&arenas_lock);
	list_del_init(&arena->reclaim_link);
	list_lru_del_obj(&reserved_arenas, &arena->reserved_link);
	mutex_unlock(&arenas_lock);
	cancel_delayed_work_sync(&arena->fill);
	cancel_delayed_work_sync(&arena->lazy_work);
	cancel_delayed_work_sync(&arena->reap);
}

/**
 * xalloc_reclaim_want() - tell clients that memory of their arena is wanted back
 * @arena: the arena
 * @bytes: how much
 *
 * Context: arena->lock held.
 */
void xalloc_reclaim_want(struct xalloc_arena *arena, u64 bytes)
{
	struct xalloc_status *status = arena->status;

	lockdep_assert_held(&arena->lock);
	WRITE_ONCE(status->wanted_bytes, status->wanted_bytes + bytes);
	/* A client that sees the new generation sees the new wanted_bytes, too. */
	smp_store_release(&status->generation, status->generation + 1);
}

/* --- shrinkers */

/* Segments of the reserve, and as many as what was freed lazily would fill. */
static u32 nr_spare(const struct xalloc_arena *arena)
{
	return READ_ONCE(arena->nr_reserved) +
	       DIV_ROUND_UP(READ_ONCE(arena->nr_lazy_slices), XALLOC_SLICES_PER_SEGMENT);
}

/* Called with the lock of the list held, which keeps the arena from being freed. */
static XALLOC_LRU_WALK(count_one)
{
	struct xalloc_arena *arena = container_of(item, struct xalloc_arena, reserved_link);
	unsigned long *nr = arg;

	*nr += nr_spare(arena);
	/* Many that have nothing must not hide the others. */
	return nr_spare(arena) ? LRU_SKIP : LRU_ROTATE;
}

/* Arenas to take from, and what they may have. */
struct taking {
	struct list_head arenas;	/* by reserved_link */
	unsigned long nr_found;		/* segments that they have */
	unsigned long nr_wanted;
};

static XALLOC_LRU_WALK(take_one)
{
	struct xalloc_arena *arena = container_of(item, struct xalloc_arena, reserved_link);
	struct taking *taking = arg;

	if (taking->nr_found >= taking->nr_wanted)
		return LRU_SKIP;
	taking->nr_found += nr_spare(arena);
	list_lru_isolate_move(list, item, &taking->arenas);
	return LRU_REMOVED;
}

/*
 * Releases the oldest lazy pages, about @nr_segments of them, and gives back idle memory of the
 * rest. Returns how much went back, in segments, rounded up.
 */
static u32 drop_lazy(struct xalloc_arena *arena, u32 nr_segments)
{
	struct xalloc_segment *seg, *next;
	u32 nr_looks = 0, nr = 0;

	xalloc_lazy_release(arena, jiffies, nr_segments * XALLOC_SLICES_PER_SEGMENT);
	/* What has just become idle is at the end. */
	list_for_each_entry_safe_reverse(seg, next, &arena->rest, idle) {
		if (nr_looks++ == SHRINK_LOOKS_MAX)
			break;
		nr += xalloc_segment_drop_idle(arena, seg, false);
	}
	return DIV_ROUND_UP(nr, XALLOC_SLICES_PER_SEGMENT);
}

/*
 * Returns how many segments went. An arena that has neither a reserve nor lazy frees nor marks
 * leaves the list.
 */
static u32 take_reserve(struct xalloc_arena *arena, u32 nr_segments)
{
	bool stays = true;
	u32 nr = 0;

	lockdep_assert_held(&arenas_lock);
	list_del_init(&arena->reserved_link);
	/* The task that reclaims may hold the lock, or be the worker that fills this reserve. */
	if (READ_ONCE(arena->filler) != current && mutex_trylock(&arena->lock)) {
		if (arena->nr_reserved) {
			nr = drop_reserve(arena, nr_segments, false);
			arena->fill_not_before = jiffies + PAUSE;
		}
		if (nr < nr_segments && arena->nr_lazy_slices)
			nr += drop_lazy(arena, nr_segments - nr);
		xalloc_reclaim_soon(arena);
		stays = nr_spare(arena) || arena->reserve_high;
		mutex_unlock(&arena->lock);
	}
	if (stays)
		list_lru_add_obj(&reserved_arenas, &arena->reserved_link);
	return nr;
}

static unsigned long count_reserved(struct shrinker *shrinker, struct shrink_control *sc)
{
	unsigned long nr_arenas = SCAN_ARENAS_MAX, nr = 0;

	/*
	 * Pairs with xalloc_reclaim_module_init(). After SHRINK_EMPTY the kernel does not ask again
	 * until an arena is added to the list of the memcg.
	 */
	if (!smp_load_acquire(&has_reserved_arenas) ||
	    !list_lru_shrink_count(&reserved_arenas, sc))
		return SHRINK_EMPTY;
	list_lru_walk_one(&reserved_arenas, sc->nid, sc->memcg, count_one, &nr, &nr_arenas);
	return nr * XALLOC_SEGMENT_KPAGES;
}

/* Gives back outside of the list's lock, which is a spinlock. */
static unsigned long scan_reserved(struct shrinker *shrinker, struct shrink_control *sc)
{
	struct taking taking = {
		.arenas = LIST_HEAD_INIT(taking.arenas),
		.nr_wanted = DIV_ROUND_UP(sc->nr_to_scan, XALLOC_SEGMENT_KPAGES),
	};
	unsigned long nr_arenas = SCAN_ARENAS_MAX, nr = 0;
	struct xalloc_arena *arena, *next;

	/* arenas_lock keeps the arenas from being freed. No task allocates memory with it held. */
	mutex_lock(&arenas_lock);
	list_lru_walk_one(&reserved_arenas, sc->nid, sc->memcg, take_one, &taking, &nr_arenas);
	list_for_each_entry_safe(arena, next, &taking.arenas, reserved_link)
		nr += take_reserve(arena, taking.nr_wanted - min(nr, taking.nr_wanted));
	mutex_unlock(&arenas_lock);
	return nr * XALLOC_SEGMENT_KPAGES ?: SHRINK_STOP;
}

/* Asks the clients of an arena for memory. The other shrinker takes care of reserves. */
static void want(struct xalloc_arena *arena, unsigned long nr_segments)
{
	u32 nr_granted = DIV_ROUND_UP(arena->nr_granted_slices, XALLOC_SLICES_PER_SEGMENT);

	if (arena->nr_reserved || !nr_granted ||
	    !time_after(jiffies, arena->wanted_at + WANT_PERIOD))
		return;
	arena->wanted_at = jiffies;
	xalloc_reclaim_want(arena, min_t(u64, nr_segments, nr_granted) * XALLOC_SEGMENT_BYTES);
}

static unsigned long count_granted(struct shrinker *shrinker, struct shrink_control *sc)
{
	return xalloc_counted(XALLOC_NR_GRANTED_SLICES) * XALLOC_SLICE_KPAGES ?: SHRINK_EMPTY;
}

/* Frees nothing: it asks clients, who alone know what they can spare. */
static unsigned long scan_granted(struct shrinker *shrinker, struct shrink_control *sc)
{
	unsigned long nr_segments = DIV_ROUND_UP(sc->nr_to_scan, XALLOC_SEGMENT_KPAGES);
	struct xalloc_arena *arena;
	LIST_HEAD(seen);
	u32 i;

	if (!mutex_trylock(&arenas_lock))
		return SHRINK_STOP;
	for (i = 0; i < SCAN_ARENAS_MAX; i++) {
		arena = list_first_entry_or_null(&arenas, struct xalloc_arena, reclaim_link);
		if (!arena)
			break;
		/* The task that reclaims may hold the lock. */
		if (mutex_trylock(&arena->lock)) {
			want(arena, nr_segments);
			mutex_unlock(&arena->lock);
		}
		list_move_tail(&arena->reclaim_link, &seen);
	}
	/* The next round begins with others. */
	list_splice_tail(&seen, &arenas);
	mutex_unlock(&arenas_lock);
	return SHRINK_STOP;
}

/*
 * Two shrinkers: the kernel asks each for a share of its count. With one, reserves would shrink in
 * proportion to granted memory, which cannot be taken.
 */
static struct shrinker *reserved_shrinker;
static struct shrinker *granted_shrinker;

/* --- when the machine is out of memory */

#define NR_REPORTED 3

/* The largest of all arenas except @nr_but that are given, or NULL. */
static struct xalloc_arena *find_largest(const struct xalloc_arena *const *but, u32 nr_but)
{
	struct xalloc_arena *arena, *largest = NULL;
	u32 i;

	list_for_each_entry(arena, &arenas, reclaim_link) {
		for (i = 0; i < nr_but && but[i] != arena; i++)
			;
		if (i == nr_but && (!largest || READ_ONCE(arena->nr_committed_slices) >
						READ_ONCE(largest->nr_committed_slices)))
			largest = arena;
	}
	return largest;
}

static u64 slices_in_kb(const u32 *nr_slices)
{
	return (u64)READ_ONCE(*nr_slices) * (XALLOC_SLICE_BYTES / SZ_1K);
}

/*
 * Part of the kernel's report before it kills: what the descriptors of a process hold is in no
 * other line of that report.
 */
static int report_oom(struct notifier_block *block, unsigned long unused, void *freed)
{
	const struct xalloc_arena *reported[NR_REPORTED], *arena;
	u64 committed_kb;
	u32 nr = 0;

	/* The task that is out of memory may hold it. */
	if (!mutex_trylock(&arenas_lock))
		return NOTIFY_OK;
	while (nr < NR_REPORTED && (arena = find_largest(reported, nr))) {
		reported[nr++] = arena;
		committed_kb = slices_in_kb(&arena->nr_committed_slices);
		if (!committed_kb)
			break;
		pr_warn("xalloc: arena %llu has %llu kB, its %u clients were granted %llu kB\n",
			arena->id, committed_kb, READ_ONCE(arena->nr_clients),
			slices_in_kb(&arena->nr_granted_slices));
	}
	mutex_unlock(&arenas_lock);
	return NOTIFY_OK;
}

static struct notifier_block oom_notifier = {
	.notifier_call = report_oom,
};

/**
 * xalloc_reclaim_module_init() - module init of what arenas share here
 * Return: 0 or -ENOMEM.
 */
int xalloc_reclaim_module_init(void)
{
	int err = -ENOMEM;

	arena_cache = KMEM_CACHE(xalloc_arena, 0);
	if (!arena_cache)
		return -ENOMEM;
	fill_wq = alloc_workqueue("xalloc_fill", WQ_UNBOUND, 0);
	if (!fill_wq)
		goto err_cache;
	reap_wq = alloc_workqueue("xalloc_reap", WQ_UNBOUND, 0);
	if (!reap_wq)
		goto err_fill_wq;
	reserved_shrinker = shrinker_alloc(SHRINKER_MEMCG_AWARE | SHRINKER_NUMA_AWARE,
					   "xalloc-reserve");
	if (!reserved_shrinker)
		goto err_reap_wq;
	granted_shrinker = shrinker_alloc(0, "xalloc-want");
	if (!granted_shrinker)
		goto err_reserved;
	reserved_shrinker->count_objects = count_reserved;
	reserved_shrinker->scan_objects = scan_reserved;
	reserved_shrinker->batch = XALLOC_SEGMENT_KPAGES;
	shrinker_register(reserved_shrinker);
	/* Only now: before 6.7 a shrinker gets its number when it is registered. */
	err = list_lru_init_memcg(&reserved_arenas, reserved_shrinker);
	if (err)
		goto err_granted;
	/* Pairs with count_reserved(), which comes before each scan. */
	smp_store_release(&has_reserved_arenas, true);
	granted_shrinker->count_objects = count_granted;
	granted_shrinker->scan_objects = scan_granted;
	granted_shrinker->batch = XALLOC_SEGMENT_KPAGES;
	shrinker_register(granted_shrinker);
	register_oom_notifier(&oom_notifier);
	return 0;

err_granted:
	shrinker_free(granted_shrinker);
err_reserved:
	shrinker_free(reserved_shrinker);
err_reap_wq:
	destroy_workqueue(reap_wq);
err_fill_wq:
	destroy_workqueue(fill_wq);
err_cache:
	kmem_cache_destroy(arena_cache);
	return err;
}

/** xalloc_reclaim_module_fini() - module exit of what arenas share here */
void xalloc_reclaim_module_fini(void)
{
	unregister_oom_notifier(&oom_notifier);
	shrinker_free(granted_shrinker);
	shrinker_free(reserved_shrinker);
	list_lru_destroy(&reserved_arenas);
	destroy_workqueue(reap_wq);
	destroy_workqueue(fill_wq);
	kmem_cache_destroy(arena_cache);
}
