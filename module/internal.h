/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The words and the lock order of xalloc, and what its files share.
 *
 *	arena	a space of offsets with a limit; a file
 *	segment	2 MiB of an arena with memory: one order-9 folio, or order-4 folios, its
 *		pieces
 *	slice	64 KiB; 32 to a segment
 *	page	a run of slices that was granted at once. A struct page is a kpage here
 *	client	one struct file on an arena, or the owner of a copy's pages before a file is open
 *	payer	the user, or the cgroup, whom an arena is charged to
 *	copy	what a child of fork has in the place of its parent's arena
 *	family	an arena and its copies
 *	view	the arena of a family that one address space has
 *	reserve	segments of an arena with memory and without a page, kept for grants
 *	rest	segments with idle memory that somebody still refers to
 *	budget	a limit that several arenas have together, struct xalloc_budget. "The budgets" are
 *		all limits that a grant meets
 *	pool	order-9 folios of nobody, kept for arenas
 *
 * Lock order, outermost first:
 *
 *	1. mm->mmap_lock	held when .mmap, .close and .open, which copies at fork, are
 *			entered; for .fault, the lock of the vma may be held instead. Never
 *			wanted with 2 held, so user memory is copied outside of 2
 *	2. arena->lock	mutex. Everything in struct xalloc_arena below it; the clients'
 *			lists of pages; struct xalloc_segment and struct xalloc_page. Of two
 *			arenas, nobody wants both
 *	3. folio lock of a segment. Serialises the fault, which maps, with giving back,
 *			which unmaps
 *	4. i_mmap_rwsem and page-table locks, inside xalloc_unmap() and the fault
 *
 * MMU notifiers run inside of 4, so below 2. That is safe, because a notifier may neither fault nor
 * wait for memory, and so never needs 1 or 2.
 *
 * The fault takes 2 only to give memory to a hole of a file (hole.c), and lets it go before it
 * takes 3. Otherwise it takes 3 alone. It finds a segment by RCU in arena->segments and believes
 * it only under the folio lock. zombies_lock in arena.c, accounts_lock in account.c
 * and the locks of pool.c, of families and of budgets are leaves. arenas_lock in reclaim.c comes
 * after 2: a shrinker that holds arenas_lock only tries to take 2. The lock of an inode, which the
 * size of a file changes with, is outside of 1, that of a view is between 1 and 2.
 *
 * In-kernel heaps: heap->mutex comes before 2; map_mutex in slab.c, taken with or without
 * it, is a leaf. The lock of a class and then heap->lock are spinlocks, taken with bottom
 * halves disabled, and nothing else is taken under them. Magazines belong to a CPU and
 * have no lock (heap.c).
 */
#ifndef XALLOC_INTERNAL_H
#define XALLOC_INTERNAL_H

#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>
#include <linux/seq_file.h>
#include <linux/types.h>
#include <linux/workqueue.h>
#include <linux/xalloc.h>
#include <linux/xarray.h>

#include "placement.h"

#define XALLOC_SEGMENT_ORDER (const_ilog2(XALLOC_SEGMENT_BYTES) - PAGE_SHIFT)
#define XALLOC_SEGMENT_KPAGES (XALLOC_SEGMENT_BYTES / PAGE_SIZE)
#define XALLOC_PIECE_ORDER (const_ilog2(XALLOC_SLICE_BYTES) - PAGE_SHIFT)
#define XALLOC_SLICE_KPAGES (XALLOC_SLICE_BYTES / PAGE_SIZE)

/*
 * What there is in the whole module, changed where a thing is made and where it is unmade
 * and nowhere else, so that what leaks stays counted.
 */
enum xalloc_counter {
	XALLOC_NR_ARENAS,
	XALLOC_NR_CLIENTS,
	XALLOC_NR_PAGES,
	XALLOC_NR_GRANTED_SLICES,
	XALLOC_NR_COMMITTED_SLICES,
	XALLOC_NR_IDLE_SLICES,
	XALLOC_NR_RESERVED_SLICES,
	XALLOC_NR_CHARGED_SLICES,
	/* Those above are zero when no arena is left. */
	XALLOC_NR_ARENA_COUNTERS,
	XALLOC_NR_POOLED_SLICES = XALLOC_NR_ARENA_COUNTERS,
	/* These only grow. */
	XALLOC_NR_COLD_SLICES,
	XALLOC_NR_POISONED_SLICES,
	XALLOC_NR_COUNTERS,
};

/* Each CPU has its own, because a grant changes several of them. */
struct xalloc_counters {
	long nr[XALLOC_NR_COUNTERS];
};

DECLARE_PER_CPU(struct xalloc_counters, xalloc_counters);

static inline void xalloc_count(enum xalloc_counter counter, long by)
{
	this_cpu_add(xalloc_counters.nr[counter], by);
}

long xalloc_counted(enum xalloc_counter counter);

struct xalloc_account;

/* Constant from create on: see account.c. */
struct xalloc_payer {
	struct xalloc_account *account;	/* NULL: a kernel client, for which nobody pays */
	struct user_struct *user;	/* limited by RLIMIT_MEMLOCK, or NULL */
	bool has_user_limit;		/* limited by user_limit_mb instead */
	unsigned long limit_kpages;	/* that limit, as it was then */
};

struct xalloc_arena;
struct xalloc_view;

/**
 * struct xalloc_budget - a limit that several arenas have together
 * @refs: arenas, also destroyed ones that have a rest left, and an xallocfs
 * @lock: protects all below
 * @limit_slices: most slices that they may have committed together
 * @nr_slices: what they have
 * @error: what a refusal says
 */
struct xalloc_budget {
	refcount_t refs;
	spinlock_t lock;	/* a leaf */
	u32 limit_slices;
	u32 nr_slices;
	int error;
};

/**
 * struct xalloc_family - an arena and its copies, also destroyed ones that have a rest left
 * @refs: arenas
 * @lock: protects all below
 * @views: those of its living members
 */
struct xalloc_family {
	refcount_t refs;
	spinlock_t lock;	/* a leaf */
	struct list_head views;
};

/**
 * struct xalloc_view - the arena of a family that an address space has
 * @link: on family->views
 * @refs: clients; the last one is dropped with family->lock held
 * @mm: the address space, alive or not
 * @file: the vm_file of its mappings, one for the family; has no client
 * @arena: the first of the family, or a copy, which is the view's
 * @is_copy: which of the two
 * @heir: client that owns the pages of a copy; NULL once a file has it. By family->lock
 * @lock: protects the rest; taken with mmap_lock held, comes before arena->lock
 * @prepared: heir of a copy that the next fork may take, or NULL
 * @nr_changes: of @arena when that was made
 */
struct xalloc_view {
	struct list_head link;
	refcount_t refs;
	struct mm_struct *mm;
	struct file *file;
	struct xalloc_arena *arena;
	bool is_copy;
	struct xalloc_client *heir;
	struct mutex lock;	/* between 1 and 2 above */
	struct xalloc_client *prepared;
	u64 nr_changes;
};

struct xalloc_client {
	u64 id;
	struct xalloc_arena *arena;
	struct xalloc_view *view;	/* that it is for, if the arena is of a family */
	refcount_t refs;		/* of a client of a view: file and mappings; see view.c */
	struct list_head pages;
	struct xalloc_page **held;	/* by a client that is a dma-buf (dmabuf.c) */
	u32 nr_held;
};

/* Where the memory of segments comes from; tests put failures in its place. */
struct xalloc_backing {
	struct folio *(*alloc)(const struct xalloc_arena *arena, unsigned int order, pgoff_t index,
			       bool *warm);
	void (*free)(struct folio *folio);
	void (*zero)(struct folio *folio);
};

/**
 * struct xalloc_segment - a segment that has memory, or is just being given some
 * @index: number of the segment in the arena
 * @present: slices that have memory
 * @granted: slices in pages of living clients; written with arena->lock held
 * @touched: slices granted since their memory was zeroed
 * @broken: slices of pages in quarantine because hardware has broken some of their memory
 * @populating: slices being given memory by somebody who has let go of arena->lock
 * @in_pieces: by folios of order 4, a slice each; else one of order 9 is all slices
 * @reserved: idle, and part of the arena's reserve
 * @dirty: reserved, and to be zeroed
 * @idle: on arena->rest, arena->reserve or arena->dirty while a part of it is idle
 * @over: the granted page that is in it and begins in an earlier segment, or NULL
 * @rcu: the fault may still look at it
 * @folio: the memory of each slice; the segment holds one reference to each folio
 */
struct xalloc_segment {
	u32 index;
	u32 present;
	u32 granted;
	u32 touched;
	u32 broken;
	u32 populating;
	bool in_pieces;
	bool reserved;
	bool dirty;
	struct list_head idle;
	struct xalloc_page *over;
	struct rcu_head rcu;
	struct folio *folio[XALLOC_SLICES_PER_SEGMENT];
};

/* Where a slice is in the arena, in kpages. */
static inline pgoff_t xalloc_segment_offset(const struct xalloc_segment *seg, u32 slice)
{
	return ((pgoff_t)seg->index << XALLOC_SEGMENT_ORDER) + slice * XALLOC_SLICE_KPAGES;
}

/* First kpage of a slice that has memory. */
static inline struct page *xalloc_segment_kpage(const struct xalloc_segment *seg, u32 slice)
{
	return folio_page(seg->folio[slice], seg->in_pieces ? 0 : slice * XALLOC_SLICE_KPAGES);
}

/* For xalloc_segment_populate(). */
#define XALLOC_POPULATE_HUGE BIT(0)
#define XALLOC_POPULATE_BACKGROUND BIT(1)
#define XALLOC_POPULATE_PIECES BIT(2)

struct xalloc_arena {
	u64 id;
	u32 nr_segments;		/* size of the offset space */
	u32 policy;			/* XALLOC_POLICY_* */
	int node;			/* or NUMA_NO_NODE */
	struct xalloc_payer payer;
	struct mem_cgroup *memcg;	/* of the maker; the kernel charges it */
	struct xalloc_family *family;	/* or NULL: not copied at fork */
	struct xalloc_budget *budget;	/* with other arenas, or NULL */
	const struct xalloc_backing *backing;
	struct xalloc_status *status;	/* a kpage that clients read; written with lock held */

	struct mutex lock;		/* protects all below */
	struct address_space *mapping;	/* NULL: cannot be mapped (tests, zombies) */
	struct xalloc_placement placement;
	struct xarray segments;		/* segment number -> struct xalloc_segment */
	struct xarray pages;		/* first slice -> struct xalloc_page */
	struct list_head rest;		/* segments with idle slices that are not in reserve */
	struct list_head reserve;	/* segments of the reserve that are zero */
	struct list_head dirty;		/* segments of the reserve that are to be zeroed */
	struct list_head granting;	/* pages that have their slices, and get memory */
	struct list_head abandoned;	/* pages of nobody that nobody has looked at yet */
	struct list_head quarantine;	/* pages of nobody, slices still taken */
	/* Owns the orphans. Also owns all pages of a file that is used as a file. Never counted. */
	struct xalloc_client orphans;
	struct xalloc_client exported;	/* likewise, of pages freed while they are held */
	struct xalloc_client lazy;	/* likewise, of pages freed lazily: see lazy.c */
	struct delayed_work lazy_work;
	wait_queue_head_t populated;	/* some segment was populated, or zeroed by the worker */
	struct delayed_work reap;
	unsigned long reap_delay;	/* jiffies; doubles while nothing new waits */
	u64 nr_waiting;			/* count_waiting() at the last look, see reclaim.c */
	u64 nr_given_back;		/* slices, ever */
	u32 nr_clients;
	u32 nr_pages;
	u32 nr_granted_slices;
	u32 limit_slices;		/* most slices to be committed */
	u32 nr_committed_slices;	/* with memory, or about to be given some */
	u32 nr_idle_slices;
	u32 nr_quarantined;		/* pages */
	u32 nr_small_slices;		/* committed, in pieces */
	u32 nr_off_node_slices;		/* committed, not on node */
	u32 nr_exported_slices;		/* granted, in pages of exported */
	u32 nr_lazy_slices;		/* granted, in pages of lazy */
	u64 nr_cold_slices;		/* that grants had to wait for, ever */
	u64 nr_grants;			/* ever; each page has its number */
	u64 nr_changes;			/* grants and frees, ever; see @nr_changes of a view */
	unsigned long wanted_at;	/* jiffies: the shrinker wanted memory of it */
	struct file *meta;		/* what clients note, or NULL */
	u32 nr_fenced;			/* segments out of use, of which was told */
	u32 nr_filling;			/* tasks that give memory to holes (hole.c) */
	bool dying;			/* no client will come any more */
	bool fills_holes;		/* see hole.c; cleared once, also read without lock */
	bool is_dumped;			/* new mappings are in core files; no lock */
	bool pages_persist;		/* pages outlive their clients; any writer may free them */

	u32 reserve_low;		/* marks, in segments */
	u32 reserve_high;
	u32 nr_reserved;		/* segments */
	bool reserve_low_seen;		/* below the low mark since it was last filled */
	bool filling;			/* the worker is at it, or will be */
	bool fill_is_away;		/* the worker has let go of lock for a segment */
	struct task_struct *filler;	/* the worker, while it allocates for the reserve */
	u32 nr_reclaimers;		/* tasks in xalloc_reclaim_trim(); the worker pauses */
	struct xalloc_segment *cleaning;	/* that segment, if it is being zeroed */
	unsigned long fill_not_before;	/* jiffies */
	struct delayed_work fill;
	wait_queue_head_t filled;	/* filling has become false */
	struct list_head reclaim_link;	/* by arenas_lock in reclaim.c */
	struct list_head reserved_link;	/* likewise, and by the lock of a list_lru there */
	struct list_head zombie;	/* by zombies_lock in arena.c */
};

/* Size of the offset space, and of the file, in kpages. */
static inline unsigned long xalloc_arena_nr_kpages(const struct xalloc_arena *arena)
{
	return (unsigned long)arena->nr_segments << XALLOC_SEGMENT_ORDER;
}

/* What an arena is made from. */
struct xalloc_arena_config {
	u64 arena_bytes;	/* a multiple of XALLOC_SEGMENT_BYTES */
	u64 limit_bytes;	/* likewise; 0 or above @arena_bytes: @arena_bytes */
	u32 policy;		/* XALLOC_POLICY_* */
	int node;		/* or NUMA_NO_NODE */
	bool fork;		/* a child of fork gets a copy */
	bool pages_persist;		/* pages outlive their clients; any writer may free them */
	bool is_dumped;		/* mappings are in core files */
	struct xalloc_budget *budget;	/* of the file system, or NULL */
	bool fills_holes;	/* writes and touches commit memory (hole.c) */
};

/**
 * struct xalloc_page - a run of slices that was granted at once
 * @client: whose it is; the arena's orphans if that one is gone; exported if it is freed, but
 *	held; lazy if it is freed lazily; NULL if it is abandoned or in quarantine
 * @link: on arena->granting, then on the list of a grant under way, on @client's list, abandoned
 *	or in quarantine; on none while it is freed
 * @tag: the number that came with the grant
 * @client_id: of @client, also when it is gone
 * @nr: which grant of the arena this is; that of the original in a copy. The parts of a page that
 *	was split keep the number
 * @slice: first slice
 * @nr_slices: length
 * @nr_holds: clients that hold it
 * @freed_at: jiffies, of a page that is freed lazily
 * @granted: false until the client was told, and while it is freed
 * @to_zero: to be zeroed before that
 */
struct xalloc_page {
	struct xalloc_client *client;
	struct list_head link;
	u64 tag;
	u64 client_id;
	u64 nr;
	u32 slice;
	u32 nr_slices;
	u32 nr_holds;
	unsigned long freed_at;
	bool granted;
	bool to_zero;
};

/* Whether somebody was told of it and did not free it. */
static inline bool xalloc_page_is_owned(const struct xalloc_arena *arena,
					const struct xalloc_page *page)
{
	return page->granted && page->client && page->client != &arena->exported &&
	       page->client != &arena->lazy;
}

/* Whether @client may free, split and export @page, which has an owner. */
static inline bool xalloc_page_is_open_to(const struct xalloc_page *page,
					  const struct xalloc_client *client)
{
	return page->client == client || client->arena->pages_persist || client->arena->fills_holes;
}

static inline u32 xalloc_page_first_segment(const struct xalloc_page *page)
{
	return page->slice / XALLOC_SLICES_PER_SEGMENT;
}

static inline u32 xalloc_page_last_segment(const struct xalloc_page *page)
{
	return (page->slice + page->nr_slices - 1) / XALLOC_SLICES_PER_SEGMENT;
}

/* Which slices of a segment are in the page. */
static inline u32 xalloc_page_slices_in(const struct xalloc_page *page, u32 index)
{
	return xalloc_placement_mask(index, page->slice, page->nr_slices);
}

/* Each segment that has memory, or is given some, below @page. */
#define xalloc_page_for_each_segment(arena, page, index, seg)				\
	xa_for_each_range(&(arena)->segments, index, seg, xalloc_page_first_segment(page),	\
			  xalloc_page_last_segment(page))

/* Pages to look at before others have arena->lock. */
#define XALLOC_STEP_PAGES 1024

/* Between two steps of what takes long. */
static inline void xalloc_arena_breathe(struct xalloc_arena *arena)
{
	mutex_unlock(&arena->lock);
	cond_resched();
	mutex_lock(&arena->lock);
}

/* account.c */
int xalloc_payer_init(struct xalloc_payer *payer, struct mem_cgroup *memcg);
void xalloc_payer_copy(struct xalloc_payer *payer, const struct xalloc_payer *from);
void xalloc_payer_exempt(struct xalloc_payer *payer);
void xalloc_payer_fini(struct xalloc_payer *payer);
int xalloc_payer_charge(struct xalloc_payer *payer, u32 nr_slices);
void xalloc_payer_uncharge(struct xalloc_payer *payer, u32 nr_slices);
u64 xalloc_total_room(void);
void xalloc_stat_all(struct xalloc_ioc_stat *stat);

/* budget.c */
struct xalloc_budget *xalloc_budget_create(u32 limit_slices, int error);
struct xalloc_budget *xalloc_budget_get(struct xalloc_budget *budget);
void xalloc_budget_put(struct xalloc_budget *budget);
int xalloc_budget_charge(struct xalloc_budget *budget, u32 nr_slices);
void xalloc_budget_uncharge(struct xalloc_budget *budget, u32 nr_slices);
int xalloc_budget_set_limit(struct xalloc_budget *budget, u32 limit_slices);

/* backing.c */
extern const struct xalloc_backing xalloc_backing_kernel;
void xalloc_backing_init_inode(struct inode *inode);
bool xalloc_backing_remove(struct folio *folio, bool may_wait);
void xalloc_backing_end(struct xalloc_arena *arena);
bool xalloc_backing_is_unmovable(struct folio *folio);
bool xalloc_backing_is_poisoned(struct folio *folio);
void xalloc_backing_put(struct folio *folio);

/* References that segment and page cache have to a folio, without those of mappings and pins. */
static inline int xalloc_backing_nr_refs(struct folio *folio)
{
	return 1 + (folio->mapping ? (int)folio_nr_pages(folio) : 0);
}

/* hole.c */
int xalloc_hole_fill(struct xalloc_client *client, u32 first, u32 end);
int xalloc_hole_touch(struct xalloc_arena *arena, pgoff_t kpage);
void xalloc_hole_zero(struct xalloc_arena *arena, u64 from, u64 to);
int xalloc_hole_punch(struct xalloc_client *client, u64 from, u64 to);
int xalloc_hole_set_size(struct xalloc_arena *arena, u64 bytes);

/* Whether memory of an arena is committed by writes and touches, and not by grants. */
static inline bool xalloc_hole_is_filled(const struct xalloc_arena *arena)
{
	/* Before other members: pairs with smp_store_release() in xalloc_arena_redefine(). */
	return smp_load_acquire(&arena->fills_holes);
}

/* Whether a kpage of a file lies past the end of the file. */
static inline bool xalloc_hole_is_past_end(const struct inode *inode, pgoff_t kpage)
{
	return kpage >= DIV_ROUND_UP_ULL(i_size_read(inode), PAGE_SIZE);
}

/* read_write.c */
ssize_t xalloc_read_iter(struct kiocb *iocb, struct iov_iter *to);
ssize_t xalloc_write_iter(struct kiocb *iocb, struct iov_iter *from);
loff_t xalloc_llseek(struct file *file, loff_t offset, int whence);
long xalloc_fallocate(struct file *file, int mode, loff_t offset, loff_t bytes);

/* offline.c */
int xalloc_offline_init(void);
void xalloc_offline_fini(void);

/* pool.c */
int xalloc_pool_init(void);
void xalloc_pool_fini(void);
struct folio *xalloc_pool_take(const struct xalloc_arena *arena);
void xalloc_pool_untake(struct folio *folio);

/*
 * Whether to stop for a fatal signal. An exiting task goes on: otherwise the memory that it leaves
 * would only wait longer.
 */
static inline bool xalloc_is_killed(void)
{
	return fatal_signal_pending(current) && !(current->flags & PF_EXITING);
}

/* quarantine.c */
void xalloc_quarantine_abandoned(struct xalloc_arena *arena);
void xalloc_quarantine_reap(struct xalloc_arena *arena);

/* reclaim.c */
int xalloc_reclaim_module_init(void);
void xalloc_reclaim_module_fini(void);
struct xalloc_arena *xalloc_reclaim_alloc(void);
void xalloc_reclaim_free(struct xalloc_arena *arena);
void xalloc_reclaim_init(struct xalloc_arena *arena);
void xalloc_reclaim_start(struct xalloc_arena *arena);
void xalloc_reclaim_fini(struct xalloc_arena *arena);
u32 xalloc_reclaim(struct xalloc_arena *arena, u32 nr_reserve);
u32 xalloc_reclaim_trim(struct xalloc_arena *arena, u32 nr_reserve);
bool xalloc_reclaim_for(struct xalloc_arena *arena, int err);
void xalloc_reclaim_soon(struct xalloc_arena *arena);
void xalloc_reclaim_lazy_soon(struct xalloc_arena *arena);
bool xalloc_reclaim_pass(struct xalloc_arena *arena);
void xalloc_reclaim_zombie(struct xalloc_arena *arena);
void xalloc_reclaim_set_reserve(struct xalloc_arena *arena, u32 low, u32 high);
void xalloc_reclaim_clean_soon(struct xalloc_arena *arena);
void xalloc_reclaim_fill_soon(struct xalloc_arena *arena);
void xalloc_reclaim_want(struct xalloc_arena *arena, u64 bytes);

/* unmap.c */
void xalloc_unmap(const struct xalloc_arena *arena, struct address_space *mapping, pgoff_t first,
		  pgoff_t nr_kpages);
bool xalloc_unmap_is_needed(struct folio *folio);
bool xalloc_unmap_sees_pin(struct folio *folio);

/* segment.c */
void xalloc_segment_tell_fenced(struct xalloc_arena *arena);
int xalloc_segment_fence(struct xalloc_arena *arena, u32 first, u32 last);
int xalloc_segment_wait(struct xalloc_arena *arena);
int xalloc_segment_populate(struct xalloc_arena *arena, u32 index, u32 slices, unsigned int how);
bool xalloc_segment_is_quiet(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slices);
bool xalloc_segment_is_poisoned(const struct xalloc_segment *seg, u32 slices);
u32 xalloc_segment_untaken(struct xalloc_arena *arena, u32 index);
void xalloc_segment_settle(struct xalloc_arena *arena, struct xalloc_segment *seg);
void xalloc_segment_drop(struct xalloc_arena *arena, struct xalloc_segment *seg);
u32 xalloc_segment_drop_idle(struct xalloc_arena *arena, struct xalloc_segment *seg, bool may_wait);
void xalloc_segment_clean(struct xalloc_arena *arena, struct xalloc_segment *seg);
void xalloc_segment_zero(struct xalloc_segment *seg, u32 slices);
int xalloc_segment_copy(struct xalloc_segment *to, const struct xalloc_segment *from, u32 slices);
u32 xalloc_segment_grant(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slices);
void xalloc_segment_ungrant(struct xalloc_arena *arena, struct xalloc_segment *seg, u32 slices);
struct folio *xalloc_segment_lock_folio(struct xalloc_arena *arena, u32 slice);
struct folio *xalloc_segment_get_folio(struct xalloc_arena *arena, u32 slice);
u32 xalloc_segment_extent(struct xalloc_arena *arena, u32 slice, u32 nr_slices,
			  struct page **kpage);
struct page **xalloc_segment_kpages(struct xalloc_arena *arena, u32 slice, u32 nr_kpages);

/* page.c */
int xalloc_page_grant(struct xalloc_client *client, struct xalloc_page_grant *grant,
		      bool may_commit, struct list_head *granted);
void xalloc_page_take_over(struct xalloc_client *client, struct xalloc_page *page,
			   struct xalloc_page_grant *grant);
int xalloc_page_grant_idle(struct xalloc_arena *arena, u32 slice, u32 nr_slices);
int xalloc_page_check_limits(const struct xalloc_arena *arena, u32 nr_more);
int xalloc_page_zero(struct xalloc_arena *arena, struct xalloc_page *page);
int xalloc_page_claim(struct xalloc_client *client, u64 offset);
struct xalloc_page *xalloc_page_at(struct xalloc_arena *arena, u64 offset);
struct xalloc_page *xalloc_page_around(struct xalloc_arena *arena, u32 slice);
struct xalloc_page *xalloc_page_next(struct xalloc_arena *arena, u32 slice);
int xalloc_page_copy(struct xalloc_client *heir, const struct xalloc_page *from);
u32 xalloc_page_list(struct xalloc_arena *arena, const struct xalloc_ioc_list *which,
		     struct xalloc_page_info *infos, u64 *next);
int xalloc_page_give(struct xalloc_arena *arena, const struct xalloc_page *page);
void xalloc_page_settle(struct xalloc_arena *arena, const struct xalloc_page *page);
void xalloc_page_ungrant(struct xalloc_arena *arena, const struct xalloc_page *page);
void xalloc_page_uncount(struct xalloc_arena *arena, const struct xalloc_page *page);
void xalloc_page_end(struct xalloc_arena *arena, struct xalloc_page *page);
void xalloc_page_abandon(struct xalloc_arena *arena, struct xalloc_page *page);
int xalloc_page_leave(struct xalloc_arena *arena, struct xalloc_page *page);
void xalloc_page_forget(struct xalloc_arena *arena, struct xalloc_page *page);
bool xalloc_page_is_poisoned(struct xalloc_arena *arena, const struct xalloc_page *page);
struct xalloc_page *xalloc_page_alloc_rest(struct xalloc_arena *arena, u32 slice);
void xalloc_page_drop_rest(struct xalloc_arena *arena, struct xalloc_page *rest, u32 slice);
void xalloc_page_split_off(struct xalloc_arena *arena, struct xalloc_page *page,
			   struct xalloc_page *rest, u32 slice);
int xalloc_page_split(struct xalloc_arena *arena, struct xalloc_page *page, u32 slice);

/* free.c */
int xalloc_page_free(struct xalloc_client *client, u64 offset, bool lazily);
int xalloc_page_free_range(struct xalloc_client *client, u32 first, u32 end, bool lazily);
int xalloc_page_free_slices(struct xalloc_client *client, u32 index, u32 slices);
int xalloc_page_shorten(struct xalloc_arena *arena, struct xalloc_page *page);

/* lazy.c */
bool xalloc_lazy_add(struct xalloc_arena *arena, struct xalloc_page *page);
bool xalloc_lazy_release(struct xalloc_arena *arena, unsigned long until, u32 nr_slices);
void xalloc_lazy_release_all(struct xalloc_arena *arena);
void xalloc_lazy_release_range(struct xalloc_arena *arena, u32 first, u32 end);
int xalloc_lazy_grant(struct xalloc_client *client, struct xalloc_page_grant *grant,
		      struct list_head *granted);

/* hold.c */
int xalloc_page_hold(struct xalloc_client *holder, const struct xalloc_client *owner, u64 offset,
		     u64 bytes);
void xalloc_page_unhold(struct xalloc_client *holder);

/* arena.c */
void xalloc_arena_fini(void);
u64 xalloc_arena_bytes_max(void);
struct xalloc_arena *xalloc_arena_create(const struct xalloc_arena_config *config);
int xalloc_arena_redefine(struct xalloc_arena *arena, const struct xalloc_arena_config *config);
struct xalloc_arena *xalloc_arena_create_like(const struct xalloc_arena *from);
void xalloc_arena_vacate(struct xalloc_arena *arena);
void xalloc_arena_destroy(struct xalloc_arena *arena);
int xalloc_arena_set_limit(struct xalloc_arena *arena, u64 limit_bytes);
void xalloc_arena_stat(struct xalloc_arena *arena, struct xalloc_ioc_stat *stat);
bool xalloc_arena_is_valid(struct xalloc_arena *arena);

/* client.c */
struct xalloc_client *xalloc_client_create(struct xalloc_arena *arena);
void xalloc_client_destroy(struct xalloc_client *client);
int xalloc_client_grant(struct xalloc_client *client, struct xalloc_page_grant *grants, u32 nr,
			struct list_head *granted);
void xalloc_client_grant_finish(struct xalloc_client *client, struct list_head *granted,
				bool keep);
int xalloc_client_free(struct xalloc_client *client, const struct xalloc_range *ranges, u32 nr,
		       bool lazily);
int xalloc_client_claim(struct xalloc_client *client, const u64 *offsets, u32 nr);

/* file.c. A file on an arena has its client as private data. */
struct file *xalloc_file_create(const struct xalloc_arena_config *config);
struct file *xalloc_file_attach(struct file *file, int flags);
__poll_t xalloc_file_poll(struct file *file, struct poll_table_struct *wait);
void xalloc_file_show_stat(struct seq_file *m, const struct xalloc_ioc_stat *stat);
void xalloc_file_show_fdinfo(struct seq_file *m, struct file *file);

/* xallocfs.c */
int xalloc_names_init(void);
void xalloc_names_fini(void);
int xalloc_name_define(struct file *file, const struct xalloc_arena_config *config);

/* heap.c; what kernel clients call is in heap.h */
int xalloc_heap_init(void);
void xalloc_heap_fini(void);

/* dmabuf.c */
#ifdef CONFIG_DMA_SHARED_BUFFER
int xalloc_dmabuf_export(struct file *file, u64 offset, u64 bytes);
#else
static inline int xalloc_dmabuf_export(struct file *file, u64 offset, u64 bytes)
{
	return -EOPNOTSUPP;
}
#endif

/* family.c */
struct xalloc_family *xalloc_family_create(void);
void xalloc_family_get(struct xalloc_family *family);
void xalloc_family_put(struct xalloc_family *family);

/* copy.c */
struct xalloc_client *xalloc_copy_create(struct xalloc_arena *from, u64 *nr_changes);
int xalloc_copy_fill(struct xalloc_client *heir, struct xalloc_arena *from);
void xalloc_copy_destroy(struct xalloc_client *heir);

/* view.c */
struct xalloc_client *xalloc_view_create(struct xalloc_arena *arena, struct file *file);
struct xalloc_client *xalloc_view_open(struct xalloc_arena *arena, bool writable);
void xalloc_view_get(struct xalloc_client *client);
void xalloc_view_put(struct xalloc_client *client);
struct page *xalloc_view_status(struct xalloc_arena *arena, const struct mm_struct *mm);
struct xalloc_client *xalloc_view_of_child(struct xalloc_client *client, struct mm_struct *mm);
int xalloc_view_prepare(struct xalloc_view *view, bool cancel);

/* meta.c */
struct file *xalloc_meta_open(struct xalloc_arena *arena, u64 *bytes, int flags);

/* mmap.c */
int xalloc_mmap(struct file *file, struct vm_area_struct *vma);
int xalloc_mmap_export(struct file *file, struct vm_area_struct *vma);
int xalloc_mmap_set_dumped(struct xalloc_arena *arena, bool is_dumped);
struct file *xalloc_mmap_find(unsigned long address, bool *writable, u64 *offset);

/* ioctl.c */
long xalloc_device_ioctl(struct file *file, unsigned int cmd, unsigned long arg);
long xalloc_arena_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

/* dev.c */
int xalloc_dev_init(void);
void xalloc_dev_fini(void);

#endif /* XALLOC_INTERNAL_H */
