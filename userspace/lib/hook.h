/* SPDX-License-Identifier: MIT */
/*
 * Hooks: what the program wants to be told of the chunks of an arena. hook.c
 */
#ifndef XL_HOOK_H
#define XL_HOOK_H

#include "internal.h"
#include "placement.h"

enum xl_chunk_state {
	XL_ADDING,
	XL_READY,
	XL_REMOVING,
};

struct xl_chunk {
	struct xl_list link; /* xl_chunks.list; its first word is xl_meta_put()'s */
	enum xl_chunk_state state;
	const void *owner;  /* of a chunk that is not READY: the thread that adds or removes it */
	uint32_t first, nr; /* segments */
	uint32_t told;      /* bit n: the hook of slot n knows it */
	unsigned int nr_calls; /* of hooks, about this chunk, in progress */
	bool zero;             /* all of it reads as zero, except what xl_chunks.dirty marks */
	bool stays;            /* until the arena is destroyed */
	uint32_t nr_used;      /* slices */
	uint32_t nr_claimed;   /* slices that the thread that adds the chunk needs */
	struct xalloc_placement placement;
};

struct xalloc_hook {
	struct xl_list link; /* xl_chunks.hooks; its first word is xl_meta_put()'s */
	struct xalloc_arena *arena;
	struct xalloc_chunk_hook config;
	unsigned int slot;
	unsigned int nr_calls;     /* in progress */
	bool leaves;               /* it is told of no chunk any more */
	const void *changer;       /* the thread that adds or removes it, or NULL */
	atomic_uintptr_t *cookies; /* of a segment */
};

/* @lock: see internal.h. */
struct xl_chunks {
	void *next_free; /* xl_meta_put() */
	pthread_mutex_t lock;
	pthread_mutex_t grant_lock;       /* see internal.h; never held while a hook is called */
	const struct xl_backend *backend; /* the arena's own */
	size_t bytes_max;                 /* of a chunk */
	size_t bytes;                     /* of all chunks */
	struct xl_list list;              /* chunks, by address */
	struct xl_list hooks;             /* in the order in which they were added */
	uint64_t nr_granted;              /* slices */
	unsigned int nr_changing; /* threads that add a chunk, and chunks that are being removed */
	uint64_t nr_changed;      /* chunks that came or went */
	pthread_cond_t changed;   /* one of these two has changed, or a call of a hook has ended */
	struct xl_chunk *_Atomic *chunk_of; /* of a segment; or NULL */
	uint32_t *dirty; /* of a segment: bit n: slice n was granted since the chunk was added */
};

/* Names the thread in xl_chunk.owner and xalloc_hook.changer. */
const void *xl_hook_self(void);
/* Whether this thread is in a hook, of any arena. */
bool xl_in_hook(void);

/*
 * The lock of the chunks is held when these are called and when they return. Those that call a
 * hook release the lock meanwhile.
 */

/* The first hook that is to be told of @chunk, or NULL. */
struct xalloc_hook *xl_hook_untold(const struct xl_chunks *c, const struct xl_chunk *chunk);
/* The last hook that knows @chunk, or NULL. */
struct xalloc_hook *xl_hook_told(const struct xl_chunks *c, const struct xl_chunk *chunk);
/* Tells @hook of @chunk. Returns 0, or -errno if the hook refuses the chunk. */
int xl_hook_tell_added(struct xl_chunks *c, struct xl_chunk *chunk, struct xalloc_hook *hook);
void xl_hook_tell_removed(struct xl_chunks *c, struct xl_chunk *chunk, struct xalloc_hook *hook);
/*
 * In a child of fork(): forgets the calls that other threads were in, and the hooks that they were
 * adding or removing.
 */
void xl_hooks_recover(struct xl_chunks *c);

/*
 * These take the lock. The arena has chunks.
 */

/* Makes a hook and tells it of all chunks. Returns 0, -errno or what the hook returned. */
int xl_hook_add(struct xalloc_arena *arena, const struct xalloc_chunk_hook *config,
		struct xalloc_hook **hook);
/* Before the arena is destroyed: withdraws all chunks from all hooks, and removes the hooks. */
void xl_hooks_leave(struct xalloc_arena *arena);

#endif /* XL_HOOK_H */
