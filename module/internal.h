/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The words and the lock order of xalloc, and what its files share.
 *
 *	arena	a space of offsets with a budget; a file
 *	segment	2 MiB of an arena with memory, one order-9 folio
 *	slice	64 KiB; 32 to a segment
 *	page	a run of slices that was granted at once. A struct page is a kpage here
 *	client	one struct file on an arena
 *	payer	whose RLIMIT_MEMLOCK an arena is charged to
 *
 * Lock order, outermost first:
 *
 *	1. arena->lock	mutex. Everything in struct xalloc_arena below it; the clients'
 *			lists of pages; struct xalloc_segment and struct xalloc_page
 *	2. mm->mmap_lock	held when .mmap and .fault are entered; never wanted with 1
 *			held, so user memory is copied outside of 1
 *	3. folio lock of a segment. Serialises the fault, which maps, with giving back,
 *			which unmaps
 *	4. i_mmap_rwsem and page-table locks, inside unmap_mapping_range() and the fault
 *
 * The fault takes 3 alone. It finds a segment by RCU in arena->segments and believes
 * it only under the folio lock. arenas_lock and zombies_lock in arena.c are leaves.
 */
#ifndef XALLOC_INTERNAL_H
#define XALLOC_INTERNAL_H

#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/sched/user.h>
#include <linux/types.h>
#include <linux/workqueue.h>
#include <linux/xalloc.h>
#include <linux/xarray.h>

#include "placement.h"

#define XALLOC_SEGMENT_ORDER (const_ilog2(XALLOC_SEGMENT_BYTES) - PAGE_SHIFT)
#define XALLOC_SEGMENT_KPAGES (XALLOC_SEGMENT_BYTES / PAGE_SIZE)

/*
 * What is alive in the whole module, changed where a thing is made and where it is
 * unmade and nowhere else, so that what leaks stays counted.
 */
enum xalloc_counter {
	XALLOC_NR_ARENAS,
	XALLOC_NR_CLIENTS,
	XALLOC_NR_PAGES,
	XALLOC_NR_GRANTED_SLICES,
	XALLOC_NR_SEGMENTS,
	XALLOC_NR_IDLE_SEGMENTS,
	XALLOC_NR_CHARGED_SEGMENTS,
	XALLOC_NR_COUNTERS,
};

extern atomic_long_t xalloc_counters[XALLOC_NR_COUNTERS];

static inline void xalloc_count(enum xalloc_counter counter, long by)
{
	atomic_long_add(by, &xalloc_counters[counter]);
}

/* Constant from create on. */
struct xalloc_payer {
	struct user_struct *user;	/* NULL: exempt by CAP_IPC_LOCK */
	unsigned long limit_kpages;	/* RLIMIT_MEMLOCK then in force */
};

/* Where segments come from; tests put failures in its place. */
struct xalloc_backing {
	struct folio *(*alloc)(void);
	void (*free)(struct folio *folio);
};

/**
 * struct xalloc_segment - a segment that has memory
 * @folio: its memory; the segment holds one reference
 * @index: number of the segment in the arena
 * @nr_granted: slices in pages of living clients. While it is zero the segment is
 *	idle and the fault refuses it; written with arena->lock held
 * @touched: slices granted since the folio was zeroed
 * @idle: on arena->idle while idle
 * @rcu: the fault may still look at it
 */
struct xalloc_segment {
	struct folio *folio;
	u32 index;
	u32 nr_granted;
	u32 touched;
	struct list_head idle;
	struct rcu_head rcu;
};

struct xalloc_arena {
	u64 id;
	u32 nr_segments;		/* size of the offset space */
	u32 limit_segments;		/* most segments with memory */
	struct xalloc_payer payer;
	const struct xalloc_backing *backing;
	struct address_space *mapping;	/* NULL: cannot be mapped (tests, zombies) */

	struct mutex lock;		/* protects all below */
	struct xalloc_placement placement;
	struct xarray segments;		/* segment number -> struct xalloc_segment */
	struct xarray pages;		/* first slice -> struct xalloc_page */
	struct list_head idle;		/* segments without a page of a living client */
	struct list_head quarantine;	/* pages of dead clients, slices still taken */
	struct delayed_work reap;
	unsigned long reap_delay;	/* jiffies; doubles while something remains */
	u32 nr_clients;
	u32 nr_pages;
	u32 nr_granted_slices;
	u32 nr_committed;		/* segments with memory */
	u32 nr_idle;
	bool broken;			/* records contradict each other */
	struct list_head zombie;	/* by zombies_lock in arena.c */
	struct list_head link;		/* all arenas, by arenas_lock in arena.c */
};

struct xalloc_client {
	u64 id;
	struct xalloc_arena *arena;
	struct list_head pages;
};

/**
 * struct xalloc_page - a run of slices that was granted at once
 * @client: whose it is; NULL in quarantine
 * @link: on @client's list, on the list of a grant under way, or in quarantine
 * @tag: the number that came with the grant
 * @slice: first slice
 * @nr_slices: length
 * @granted: false until the client was told
 */
struct xalloc_page {
	struct xalloc_client *client;
	struct list_head link;
	u64 tag;
	u32 slice;
	u32 nr_slices;
	bool granted;
};

/* account.c */
void xalloc_payer_init(struct xalloc_payer *payer);
void xalloc_payer_fini(struct xalloc_payer *payer);
int xalloc_payer_charge(struct xalloc_payer *payer);
void xalloc_payer_uncharge(struct xalloc_payer *payer);

/* backing.c */
extern const struct xalloc_backing xalloc_backing_huge;

/* segment.c */
struct xalloc_segment *xalloc_segment_create(struct xalloc_arena *arena, u32 index);
bool xalloc_segment_is_quiet(struct xalloc_arena *arena, struct xalloc_segment *seg);
bool xalloc_segment_destroy(struct xalloc_arena *arena, struct xalloc_segment *seg);
void xalloc_segment_add_granted(struct xalloc_arena *arena, struct xalloc_segment *seg, s32 by);
struct folio *xalloc_segment_lock_folio(struct xalloc_arena *arena, u32 index);

/* page.c */
int xalloc_page_grant(struct xalloc_client *client, struct xalloc_page_grant *grant,
		      struct list_head *granted);
int xalloc_page_free(struct xalloc_client *client, u64 offset);
void xalloc_page_abandon(struct xalloc_arena *arena, struct xalloc_page *page);
int xalloc_page_let_go(struct xalloc_arena *arena, struct xalloc_page *page);
void xalloc_page_forget(struct xalloc_arena *arena, struct xalloc_page *page);

/* arena.c */
int xalloc_arena_init(void);
void xalloc_arena_fini(void);
u64 xalloc_arena_bytes_max(void);
struct xalloc_arena *xalloc_arena_create(u64 arena_bytes, u64 limit_bytes);
void xalloc_arena_destroy(struct xalloc_arena *arena);
bool xalloc_arena_reap(struct xalloc_arena *arena);
void xalloc_arena_reap_soon(struct xalloc_arena *arena);
void xalloc_arena_stat(struct xalloc_arena *arena, struct xalloc_ioc_stat *stat);
int xalloc_arena_contradiction(struct xalloc_arena *arena);
bool xalloc_arena_is_valid(struct xalloc_arena *arena);

/* client.c */
struct xalloc_client *xalloc_client_create(struct xalloc_arena *arena);
void xalloc_client_destroy(struct xalloc_client *client);
int xalloc_client_grant(struct xalloc_client *client, struct xalloc_page_grant *grants, u32 nr,
			struct list_head *granted);
void xalloc_client_grant_finish(struct xalloc_client *client, struct list_head *granted,
				bool keep);
int xalloc_client_free(struct xalloc_client *client, const u64 *offsets, u32 nr);

/* file.c */
struct file *xalloc_file_create(u64 arena_bytes, u64 limit_bytes);

/* mmap.c */
int xalloc_mmap(struct file *file, struct vm_area_struct *vma);

/* ioctl.c */
long xalloc_device_ioctl(struct file *file, unsigned int cmd, unsigned long arg);
long xalloc_arena_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

/* dev.c */
int xalloc_dev_init(void);
void xalloc_dev_fini(void);

#endif /* XALLOC_INTERNAL_H */
