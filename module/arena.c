// SPDX-License-Identifier: GPL-2.0-only
/*
 * Arenas: from create to the last reference to their memory.
 *
 * An arena belongs to its inode (file.c) and is destroyed with it, when no file and no
 * mapping is left. Memory that somebody still refers to then keeps a rest of the arena
 * alive, a zombie: segments and payer, no more. A worker looks after zombies and after
 * living arenas with idle segments or pages in quarantine until they have none.
 *
 * With arena->lock free:
 *
 *	slices taken in placement	== sum of nr_slices over arena->pages
 *	nr_granted_slices		== the same over pages not in quarantine
 *					== sum of nr_granted over segments
 *	nr_committed			== entries in arena->segments <= limit_segments
 *	nr_idle				== segments with nr_granted 0, all on arena->idle
 *	every slice of a page lies in a segment that has memory
 *
 * which xalloc_arena_is_valid() checks.
 */
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "internal.h"

#define REAP_DELAY_MIN (HZ / 20)
#define REAP_DELAY_MAX (2 * HZ)

static struct workqueue_struct *reap_wq;
static LIST_HEAD(zombies);
static DEFINE_SPINLOCK(zombies_lock);	/* protects zombies and arena->zombie */
static atomic64_t last_arena_id;
static LIST_HEAD(arenas);
static DEFINE_MUTEX(arenas_lock);	/* protects arenas and arena->link */

/*
 * What an arena costs without a page, most of it the table of its placement, is kernel
 * memory that RLIMIT_MEMLOCK does not bound, and a user may have very many arenas. Those
 * of one user take at most this part of the machine's memory.
 */
#define EMPTY_PART_OF_RAM 256

static size_t empty_bytes(const struct xalloc_arena *arena)
{
	/* Arena, client, inode, dentry and file together come to less than a kpage. */
	return PAGE_SIZE + xalloc_placement_table_bytes(arena->nr_segments);
}

/* Enter @arena, whose size and payer are known, if its payer may have it. */
static int enter_arena(struct xalloc_arena *arena)
{
	size_t bytes = empty_bytes(arena);
	struct xalloc_arena *other;
	int err = 0;

	mutex_lock(&arenas_lock);
	list_for_each_entry(other, &arenas, link)
		if (other->payer.user == arena->payer.user)
			bytes += empty_bytes(other);
	if (arena->payer.user && bytes / PAGE_SIZE > totalram_pages() / EMPTY_PART_OF_RAM)
		err = -ENOMEM;
	else
		list_add(&arena->link, &arenas);
	mutex_unlock(&arenas_lock);
	return err;
}

static void leave_arena(struct xalloc_arena *arena)
{
	mutex_lock(&arenas_lock);
	list_del(&arena->link);
	mutex_unlock(&arenas_lock);
}

/**
 * xalloc_arena_bytes_max() - how large an arena can be
 * Return: bytes; as much as the machine has memory.
 */
u64 xalloc_arena_bytes_max(void)
{
	u64 ram = (u64)totalram_pages() << PAGE_SHIFT;

	return min_t(u64, round_down(ram, XALLOC_SEGMENT_BYTES),
		     (u64)XALLOC_PLACEMENT_SEGMENTS_MAX * XALLOC_SEGMENT_BYTES);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_arena_bytes_max);

/**
 * xalloc_arena_contradiction() - note that the records of an arena contradict each other
 * @arena: the arena
 *
 * A fault of this module, not of its users. The arena grants and frees no more; what
 * is granted stays mapped.
 *
 * Return: -EUCLEAN.
 */
int xalloc_arena_contradiction(struct xalloc_arena *arena)
{
	lockdep_assert_held(&arena->lock);
	WARN_ONCE(!arena->broken, "xalloc: records of arena %llu contradict each other",
		  arena->id);
	arena->broken = true;
	return -EUCLEAN;
}

static bool has_rest(const struct xalloc_arena *arena)
{
	return !list_empty(&arena->idle) || !list_empty(&arena->quarantine);
}

/**
 * xalloc_arena_reap() - let go of all that nobody refers to any more
 * @arena: the arena
 *
 * Ends what quarantine can be ended and gives back what idle segments can be given
 * back.
 *
 * Context: Process context, may sleep. arena->lock held.
 * Return: whether a segment was given back.
 */
bool xalloc_arena_reap(struct xalloc_arena *arena)
{
	u32 before = arena->nr_committed;
	struct xalloc_segment *seg, *next_seg;
	struct xalloc_page *page, *next_page;

	lockdep_assert_held(&arena->lock);
	list_for_each_entry_safe(page, next_page, &arena->quarantine, link) {
		xalloc_page_let_go(arena, page);
		cond_resched();
	}
	list_for_each_entry_safe(seg, next_seg, &arena->idle, idle) {
		if (xalloc_placement_is_whole(&arena->placement, seg->index))
			xalloc_segment_destroy(arena, seg);
		cond_resched();
	}
	return before != arena->nr_committed;
}

/**
 * xalloc_arena_reap_soon() - have the worker look for what can be let go
 * @arena: the arena
 *
 * To be called when a segment may have become idle while it was pinned. Does nothing
 * if there is no such segment.
 *
 * Context: arena->lock held.
 */
void xalloc_arena_reap_soon(struct xalloc_arena *arena)
{
	lockdep_assert_held(&arena->lock);
	if (!has_rest(arena))
		return;
	/* A look that is due soon already is not put off: frees could do that for ever. */
	if (arena->reap_delay > REAP_DELAY_MIN)
		mod_delayed_work(reap_wq, &arena->reap, REAP_DELAY_MIN);
	else
		queue_delayed_work(reap_wq, &arena->reap, REAP_DELAY_MIN);
	arena->reap_delay = REAP_DELAY_MIN;
}

static void free_arena(struct xalloc_arena *arena)
{
	leave_arena(arena);
	xalloc_payer_fini(&arena->payer);
	xa_destroy(&arena->pages);
	xa_destroy(&arena->segments);
	mutex_destroy(&arena->lock);
	kvfree(arena->placement.segment);
	kfree(arena);
	xalloc_count(XALLOC_NR_ARENAS, -1);
}

/* Whoever takes a zombie off the list is the one to free it. */
static bool claim_zombie(struct xalloc_arena *arena)
{
	bool claimed;

	spin_lock(&zombies_lock);
	claimed = !list_empty(&arena->zombie);
	list_del_init(&arena->zombie);
	spin_unlock(&zombies_lock);
	return claimed;
}

static void reap_work(struct work_struct *work)
{
	struct xalloc_arena *arena = container_of(work, struct xalloc_arena, reap.work);
	bool empty;

	mutex_lock(&arena->lock);
	xalloc_arena_reap(arena);
	empty = !arena->nr_committed;
	if (has_rest(arena)) {
		arena->reap_delay = min_t(unsigned long, 2 * arena->reap_delay, REAP_DELAY_MAX);
		queue_delayed_work(reap_wq, &arena->reap, arena->reap_delay);
	}
	mutex_unlock(&arena->lock);

	/* A living arena is on no list; it is freed with its inode. */
	if (empty && claim_zombie(arena))
		free_arena(arena);
}

/**
 * xalloc_arena_create() - create an arena
 * @arena_bytes: size of the offset space, in bytes
 * @limit_bytes: most memory to commit, in bytes; 0 or above @arena_bytes: @arena_bytes
 *
 * The current task's user becomes the payer.
 *
 * Context: Process context, may sleep.
 * Return: the arena, or -EINVAL, -EFBIG, -ENOMEM.
 */
struct xalloc_arena *xalloc_arena_create(u64 arena_bytes, u64 limit_bytes)
{
	struct xalloc_arena *arena;
	void *table;
	int err;

	if (!arena_bytes || arena_bytes % XALLOC_SEGMENT_BYTES ||
	    limit_bytes % XALLOC_SEGMENT_BYTES)
		return ERR_PTR(-EINVAL);
	if (arena_bytes > xalloc_arena_bytes_max())
		return ERR_PTR(-EFBIG);
	if (!limit_bytes || limit_bytes > arena_bytes)
		limit_bytes = arena_bytes;

	arena = kzalloc(sizeof(*arena), GFP_KERNEL_ACCOUNT);
	if (!arena)
		return ERR_PTR(-ENOMEM);
	arena->nr_segments = arena_bytes / XALLOC_SEGMENT_BYTES;
	arena->limit_segments = limit_bytes / XALLOC_SEGMENT_BYTES;
	xalloc_payer_init(&arena->payer);
	err = enter_arena(arena);
	if (err)
		goto err_free;
	err = -ENOMEM;
	table = kvzalloc(xalloc_placement_table_bytes(arena->nr_segments), GFP_KERNEL_ACCOUNT);
	if (!table)
		goto err_leave;
	xalloc_placement_init(&arena->placement, arena->nr_segments, table);
	arena->id = atomic64_inc_return(&last_arena_id);
	arena->backing = &xalloc_backing_huge;
	mutex_init(&arena->lock);
	xa_init(&arena->segments);
	xa_init(&arena->pages);
	INIT_LIST_HEAD(&arena->idle);
	INIT_LIST_HEAD(&arena->quarantine);
	INIT_LIST_HEAD(&arena->zombie);
	INIT_DELAYED_WORK(&arena->reap, reap_work);
	xalloc_count(XALLOC_NR_ARENAS, 1);
	return arena;

err_leave:
	leave_arena(arena);
err_free:
	xalloc_payer_fini(&arena->payer);
	kfree(arena);
	return ERR_PTR(err);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_arena_create);

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

	cancel_delayed_work_sync(&arena->reap);
	mutex_lock(&arena->lock);
	WARN_ON_ONCE(arena->nr_clients || arena->nr_granted_slices);
	arena->mapping = NULL;
	/* Nobody is granted anything here again: quarantine has lost its purpose. */
	list_for_each_entry_safe(page, next, &arena->quarantine, link) {
		xalloc_placement_give(&arena->placement, page->slice, page->nr_slices);
		list_del(&page->link);
		xalloc_page_forget(arena, page);
	}
	spin_lock(&zombies_lock);
	list_add(&arena->zombie, &zombies);
	spin_unlock(&zombies_lock);
	xalloc_arena_reap(arena);
	empty = !arena->nr_committed;
	mutex_unlock(&arena->lock);

	/* The worker may free the arena, so not before the lock is let go entirely. */
	if (!empty)
		queue_delayed_work(reap_wq, &arena->reap, REAP_DELAY_MIN);
	else if (claim_zombie(arena))
		free_arena(arena);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_arena_destroy);

/** xalloc_arena_stat() - fill in what is alive in one arena */
void xalloc_arena_stat(struct xalloc_arena *arena, struct xalloc_ioc_stat *stat)
{
	lockdep_assert_held(&arena->lock);
	stat->arenas = 1;
	stat->clients = arena->nr_clients;
	stat->pages = arena->nr_pages;
	stat->granted_bytes = (u64)arena->nr_granted_slices * XALLOC_SLICE_BYTES;
	stat->committed_bytes = (u64)arena->nr_committed * XALLOC_SEGMENT_BYTES;
	stat->pinned_bytes = (u64)arena->nr_idle * XALLOC_SEGMENT_BYTES;
	stat->charged_bytes = arena->payer.user ? stat->committed_bytes : 0;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_arena_stat);

/**
 * xalloc_arena_init() - module init of what arenas share
 * Return: 0 or -ENOMEM.
 */
int xalloc_arena_init(void)
{
	reap_wq = alloc_workqueue("xalloc_reap", WQ_UNBOUND, 0);
	return reap_wq ? 0 : -ENOMEM;
}

/*
 * The references of zombies are dropped here and their charges end. Whoever pins the
 * memory keeps it; it goes back to the kernel with the last pin.
 */
static void drop_zombie(struct xalloc_arena *arena)
{
	struct xalloc_segment *seg, *next;

	cancel_delayed_work_sync(&arena->reap);
	list_for_each_entry_safe(seg, next, &arena->idle, idle) {
		arena->backing->free(seg->folio);
		xalloc_payer_uncharge(&arena->payer);
		kfree(seg);
	}
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
	destroy_workqueue(reap_wq);
}
