// SPDX-License-Identifier: MIT
/*
 * Memory back, and what is said of refusals.
 *
 * What heaps and threads keep without need goes back when the kernel refuses an allocation that it
 * could serve: that of the arena, or, when the memory of the user or of the machine ran out, that
 * of all arenas. It also goes back when the kernel has said on an arena's status page that it wants
 * memory, and when the program asks.
 */
#include <errno.h>

#include "backend.h"
#include "cache.h"
#include "chunk.h"
#include "misuse.h"
#include "os.h"
#include "shelf.h"

static void trim_heaps(struct xalloc_arena *arena)
{
	struct xl_list *pos;

	for (pos = arena->heaps.next; pos != &arena->heaps; pos = pos->next)
		xl_heap_trim(xl_entry(pos, struct xalloc_heap, link));
}

void xl_arenas_trim(const struct xalloc_arena *only)
{
	struct xl_process *p = xl_process_peek();
	struct xl_list *pos;
	uintptr_t raced;

	xl_cache_flush(p);
	pthread_mutex_lock(&p->lock);
	raced = xl_depots_flush(p);
	for (pos = p->arenas.next; pos != &p->arenas; pos = pos->next) {
		struct xalloc_arena *arena = xl_entry(pos, struct xalloc_arena, link);

		if (only && only != arena)
			continue;
		trim_heaps(arena);
		xl_shelves_trim(arena);
	}
	pthread_mutex_unlock(&p->lock);
	if (raced)
		xl_free_raced((void *)raced);
}

void xl_arena_trim(struct xalloc_arena *arena, int error, atomic_ulong *seen)
{
	unsigned long generation = xl_arena_generation(arena);

	/* What the caller was refused has raised it already. */
	atomic_store_explicit(seen, generation, memory_order_relaxed);
	atomic_store_explicit(&arena->generation, generation, memory_order_relaxed);
	xl_arenas_trim(error == -EDQUOT || error == -ENOSPC ? arena : NULL);
}

void xl_arena_trim_if_wanted(struct xalloc_arena *arena, atomic_ulong *seen)
{
	if (xl_arena_generation(arena) != atomic_load_explicit(seen, memory_order_relaxed))
		xl_arena_trim(arena, 0, seen);
}

int xalloc_arena_trim(struct xalloc_arena *arena)
{
	if (!xl_process_peek() || !atomic_load(&arena->alive))
		return -ESTALE;
	xl_arenas_trim(arena);
	xl_chunks_trim(arena);
	if (arena->backend->trim)
		arena->backend->trim(arena);
	return 0;
}

int xl_arena_refused(struct xalloc_arena *arena, size_t bytes, int error, bool by_hook)
{
	struct xl_process *p = xl_process_peek();
	void (*say)(const char *format, ...) = xl_explain;
	struct xalloc_heap *heap;
	const char *why;

	atomic_store_explicit(&arena->refused, error, memory_order_relaxed);
	/* Programs that do not know of the library seldom say what they could not have. */
	if (!atomic_fetch_add_explicit(&arena->nr_refused, 1, memory_order_relaxed) && XL_PRELOAD)
		say = xl_say;
	if (by_hook) {
		say("xalloc: %zu bytes in arena %llu refused by a chunk hook: error %d\n", bytes,
		    (unsigned long long)arena->id, error);
		return error;
	}
	switch (error) {
	case EDQUOT:
		heap = atomic_load_explicit(&p->default_heap, memory_order_acquire);
		why = heap && heap->arena == arena ?
			      "the limit of the default heap; XALLOC_LIMIT sets it" :
			      "the limit of the arena";
		break;
	case ENOBUFS:
		why = "RLIMIT_MEMLOCK (ulimit -l) of the user who created the arena";
		break;
	case EUSERS:
		why = "the xalloc module's limit for the user who created the arena";
		break;
	case ENOSR:
		why = "the xalloc module's limit for all arenas together";
		break;
	case ENOSPC:
		why = "no free run of that length in the arena";
		break;
	case EFBIG:
		why = "larger than the arena, or than its largest chunk";
		break;
	case ENOMEM:
		why = "the machine has no memory for it";
		break;
	default:
		say("xalloc: %zu bytes in arena %llu refused: error %d\n", bytes,
		    (unsigned long long)arena->id, error);
		return error;
	}
	say("xalloc: %zu bytes in arena %llu of %zu MiB refused: %s\n", bytes,
	    (unsigned long long)arena->id, arena->limit_bytes >> 20, why);
	return ENOMEM;
}
