/* SPDX-License-Identifier: MIT */
/* The addresses where arenas lie, and the tables of what is in them. zone.c */
#ifndef XL_ZONE_H
#define XL_ZONE_H

#include "internal.h"

/* The zone is cut into plots. No two arenas have a part of the same one. */
#define XL_PLOT ((size_t)64 << 20)

/*
 * Chooses a zone, for a default heap of @default_limit bytes; @has_slacks: with the table
 * xl_map.slacks. Once in a process, and again in each child that starts anew. The caller holds
 * lock 1. Returns 0 or -errno.
 */
int xl_zone_start(size_t default_limit, bool has_slacks);
/* How many addresses the default arena has, and how many it could have. */
size_t xl_zone_default_bytes(void);
size_t xl_zone_default_most(void);
/* How often this process and its forebears have started. A fork does not change it. */
unsigned long xl_zone_nr_starts(void);
/* Of what is mapped: for a fork. */
pthread_mutex_t *xl_zone_lock(void);

/* Whether @address is one where arenas of a forebear lay; @started: the process has a zone. */
bool xl_zone_inherited(uintptr_t address, bool started);

/* Unmaps the tables of an arena, in which no page is. The caller holds lock 1. */
void xl_zone_leave(struct xalloc_arena *arena);

/*
 * Maps what a part of the arena needs: its tables, and its memory if @arena->grows. Takes
 * the lock of the zone. Returns 0 or -errno: -EEXIST where somebody else has mapped something.
 */
int xl_zone_use(struct xalloc_arena *arena, uint64_t offset, size_t bytes);

/* Whether that was done for the segment at @address. */
bool xl_zone_is_mapped(uintptr_t address);
/* The same for the states of blocks of tiny classes in the segment at @offset, which is in use. */
int xl_zone_use_tiny(struct xalloc_arena *arena, uint64_t offset);

/* The page that a slice is in, or NULL; for any number. */
static inline struct xl_page *xl_zone_page(size_t slice)
{
	if (slice >= xl_map.bytes / XL_SLICE ||
	    !atomic_load_explicit(&xl_map.is_mapped[slice / (XL_PLOT / XL_SLICE)],
				  memory_order_acquire))
		return NULL;
	return atomic_load_explicit(&xl_map.page_of[slice], memory_order_acquire);
}

#endif /* XL_ZONE_H */
