/* SPDX-License-Identifier: MIT */
/*
 * Chunks: arenas whose memory is told to hooks before it is used. chunk.c
 */
#ifndef XL_CHUNK_H
#define XL_CHUNK_H

#include "internal.h"

/* What backend->grant() says, negated, when an arena needs another chunk. No errno. */
#define XL_ADD_CHUNK 4096

/*
 * These call the program's hook: no lock is held. After xl_chunk_add() the allocation is tried
 * again, as the hook or another thread may have used the chunk up. Or it returns -errno; if
 * @by_hook it is the hook's and that of the allocation, for no other try would help.
 */
int xl_chunk_add(struct xalloc_arena *arena, bool *by_hook);
/* Gives back the chunks that no page is in. Nothing happens to an arena without a hook. */
void xl_chunks_trim(struct xalloc_arena *arena);
/* The lock of the chunks, for a fork. */
pthread_mutex_t *xl_chunks_lock(struct xl_chunks *c);
/*
 * In a child of fork(): what other threads were adding or removing goes back, without a call of the
 * hook. What this thread is in a hook for stays.
 */
void xl_chunks_recover(struct xalloc_arena *arena);
/* Whether an offset is the border of two chunks. False in an arena without chunks. */
bool xl_chunks_border(const struct xalloc_arena *arena, uint64_t offset);
/* Whether this thread is in a hook, of any arena. */
bool xl_chunks_in_hook(void);
/* Before the arena is destroyed: withdraws all chunks from all hooks, and removes the hooks. */
void xl_chunks_leave(struct xalloc_arena *arena);

#endif /* XL_CHUNK_H */
