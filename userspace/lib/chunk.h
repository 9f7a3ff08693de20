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
 * These two call hooks of the program; the caller holds no lock. After xl_chunk_add() the
 * allocation is tried again, as a hook or another thread may have used the chunk up. Or it returns
 * -errno; if @by_hook, a hook has refused the chunk, and no other try would help.
 */
int xl_chunk_add(struct xalloc_arena *arena, bool *by_hook);
/* Gives back the chunks that hold no page, but not those of xalloc_arena_commit(). */
void xl_chunks_trim(struct xalloc_arena *arena);
/* The lock of the chunks, for a fork. */
pthread_mutex_t *xl_chunks_lock(struct xl_chunks *c);
/*
 * In a child of fork(): what other threads were adding or removing goes back, without a call of a
 * hook. What this thread is in a hook for stays.
 */
void xl_chunks_recover(struct xalloc_arena *arena);
/* Whether an offset is the border of two chunks. False in an arena without chunks. */
bool xl_chunks_border(const struct xalloc_arena *arena, uint64_t offset);

#endif /* XL_CHUNK_H */
