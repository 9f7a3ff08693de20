/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The fixture of a case: an arena, its clients and references to its memory from outside,
 * which are plain ones to the folio, as a pipe holds them.
 *
 * A case begins and ends with the counters of the module where they were, so that each of
 * them shows that nothing leaks. Whatever it leaves in the fixture is dropped at its end.
 */
#ifndef XALLOC_KUNIT_FIXTURE_H
#define XALLOC_KUNIT_FIXTURE_H

#include <linux/completion.h>
#include <linux/delay.h>

#include "helpers.h"

#define FX_NR_CLIENTS 4
#define FX_NR_PINS 8

#define FX_MIB(n) ((n) * 1048576ull)

struct fixture {
	long before[XALLOC_NR_COUNTERS];
	struct xalloc_arena *arena;
	struct xalloc_client *clients[FX_NR_CLIENTS];
	struct folio *pins[FX_NR_PINS];
	struct file *file;	/* or this, which has an arena and a client of its own */
	struct vfsmount *mount;	/* of xallocfs, which inode or file is on */
	struct inode *inode;	/* of the arena, without a file */
};

/* Segments to be had from the arena's backing: at 1 the next is refused, at 0 none is. */
extern u32 fx_backing_countdown;
/* Called, once, before the next is had, while arena->lock is free. */
extern void (*fx_backing_meanwhile)(struct xalloc_arena *arena);
/* After one was had, every allocation of the case fails, until it clears make_it_fail. */
extern bool fx_backing_then_fail;
/* No order-9 folio is to be had. */
extern bool fx_backing_no_huge;
/* If set, the worker waits for it before it zeroes a segment of the reserve. */
extern struct completion *fx_backing_zero_waits;
/* Called, once, after the next folio was given back; how many were. */
extern void (*fx_backing_once_freed)(void);
extern u32 fx_backing_nr_freed;

struct fx_alive {
	u32 nr_pages;
	u32 nr_granted_slices;
	u32 nr_committed;
	u32 nr_idle;
	u32 nr_reserved;
	/* Not looked at by FX_EXPECT_ALIVE(). */
	u32 nr_small_slices;
	u32 nr_cold_slices;
};

void fx_kill(void);
void fx_revive(void);
long fx_counted(struct fixture *fx, enum xalloc_counter counter);
bool fx_nothing_counted(struct fixture *fx);
struct xalloc_arena *fx_create_arena(u64 arena_bytes, u64 limit_bytes, u32 policy);
struct file *fx_create_file(u64 arena_bytes, u64 limit_bytes);
struct xalloc_arena *fx_make_arena_by(struct kunit *test, u32 nr_segments, u32 limit_segments,
				      u32 policy);
struct xalloc_arena *fx_make_arena(struct kunit *test, u32 nr_segments, u32 limit_segments);
struct xalloc_arena *fx_make_persistent(struct kunit *test, u32 nr_segments);
struct xalloc_arena *fx_make_unmappable(struct kunit *test, u32 nr_segments, u32 limit_segments);
struct xalloc_arena *fx_make_family(struct kunit *test, u32 limit_segments, u32 policy);
struct file *fx_open_name(struct kunit *test, const char *name);
struct xalloc_arena *fx_make_name(struct kunit *test, u64 limit_bytes);
void fx_make_payer(struct xalloc_arena *arena, u32 more_segments);
void fx_drop_arena(struct kunit *test);
struct xalloc_client *fx_make_client(struct kunit *test);
void fx_drop_client(struct kunit *test, struct xalloc_client *client);
struct folio *fx_folio_at(struct xalloc_arena *arena, u32 slice);
struct folio *fx_pin(struct kunit *test, u32 index);
struct folio *fx_pin_slice(struct kunit *test, u32 slice);
void fx_unpin(struct kunit *test, struct folio *folio);
int fx_grant_batch(struct xalloc_client *client, struct xalloc_page_grant *grants, u32 nr);
int fx_grant(struct xalloc_client *client, u32 nr_slices, u32 flags, struct xalloc_page_grant *got);
int fx_grant_at(struct xalloc_client *client, u32 nr_slices, u32 flags);
int fx_free_offset(struct xalloc_client *client, u64 offset);
int fx_free_at(struct xalloc_client *client, u32 slice);
int fx_free_lazily_at(struct xalloc_client *client, u32 slice);
void *fx_slice_memory(struct xalloc_arena *arena, u32 slice);
bool fx_is_zero(struct xalloc_arena *arena, u32 slice, u32 nr_slices);
void fx_fill(struct xalloc_arena *arena, u32 slice, u32 nr_slices);
bool fx_faults_in(struct xalloc_arena *arena, u32 index);
bool fx_slice_faults_in(struct xalloc_arena *arena, u32 slice);
struct fx_alive fx_seen(struct kunit *test);
struct fx_alive fx_alive(struct kunit *test);
int fx_init(struct kunit *test);
void fx_drop_all(struct fixture *fx);
void fx_exit(struct kunit *test);

/* Waits for the worker to make @condition true, longer than it ever waits itself. */
#define fx_wait_for(condition) ({					\
	bool _met;							\
	int _ms;							\
									\
	for (_ms = 0; !(_met = (condition)) && _ms < 60000; _ms += 20)	\
		msleep(20);						\
	_met;								\
})

/* Pages, granted slices, committed, idle and reserved segments; and all records agree. */
#define FX_EXPECT_ALIVE(test, ...) do {						\
	struct fx_alive _want = { __VA_ARGS__ }, _now = fx_alive(test);		\
	struct fixture *_fx = (test)->priv;					\
										\
	KUNIT_EXPECT_EQ(test, _now.nr_pages, _want.nr_pages);			\
	KUNIT_EXPECT_EQ(test, _now.nr_granted_slices, _want.nr_granted_slices);	\
	KUNIT_EXPECT_EQ(test, _now.nr_committed, _want.nr_committed);		\
	KUNIT_EXPECT_EQ(test, _now.nr_idle, _want.nr_idle);			\
	KUNIT_EXPECT_EQ(test, _now.nr_reserved, _want.nr_reserved);		\
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(_fx->arena));		\
} while (0)

#endif /* XALLOC_KUNIT_FIXTURE_H */
