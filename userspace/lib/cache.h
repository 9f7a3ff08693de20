/* SPDX-License-Identifier: MIT */
/*
 * What threads keep of the blocks of the default heap, so that most calls need no lock. cache.c;
 * the paths without a lock are here, for malloc.c.
 */
#ifndef XL_CACHE_H
#define XL_CACHE_H

#include "internal.h"

#define XL_STACK_MAX 128

/*
 * @entry, or 0, is the one that was pushed last; the others are in xl_cache.stacks[], behind a 0.
 * With @entry among them the address that is to be returned would have to wait for @top.
 */
struct xl_stack {
	uintptr_t entry;
	/* Bytes from the start of the cache to where @entry goes when another is pushed. */
	_Atomic uint32_t top;
	/* Where @top must stop for now; 0 before the first use. Other threads may lower it. */
	_Atomic uint32_t end;
};

/* Used by its thread alone; others read counts. Wiped by a fork, unless XL_PRELOAD. */
struct xl_cache {
	/* First, for their addresses; of a free item the first word is xl_meta_put()'s. */
	struct xl_stack of[XL_NR_CACHED];
	struct xl_list link;      /* xl_process.caches */
	struct xalloc_heap *heap; /* the default heap; NULL: none, as in a child of fork() */
	size_t idle_bytes[2];     /* sum of all limits in bytes; of slab classes, of medium ones */
	/* In live blocks when the cache was last emptied because pages were sparse. */
	size_t sparse_bytes;
	unsigned int victims[2]; /* the classes whose stacks are next to become shorter */
	uint8_t lane;            /* where in a slab this thread looks for blocks first */
	atomic_ulong generation; /* of the arena, when this thread last gave memory back */
	bool ran_dry[XL_NR_CACHED];
	uint8_t limits[XL_NR_CACHED]; /* of the stacks, in blocks */
	/* So many blocks more were put back than taken; at most as many as it can count. */
	int16_t surplus[XL_NR_CACHED];
	uintptr_t stacks[XL_NR_CACHED][XL_STACK_MAX];
};

/* Of this thread: one without a heap and without room at first. */
extern XL_HIDDEN __thread struct xl_cache *xl_cache __attribute__((tls_model("initial-exec")));

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

static inline uintptr_t *xl_entry_at(struct xl_cache *c, uint32_t offset)
{
	return (uintptr_t *)((char *)c + offset);
}

static inline struct xl_stack *xl_stack_of(struct xl_cache *c, unsigned int cls)
{
	struct xl_stack *stack = &c->of[cls];

	/* Otherwise gcc computes it again for what is atomic. */
	__asm__("" : "+r"(stack));
	return stack;
}

/* Returns an entry, or 0 if the stack is empty. */
static inline uintptr_t xl_cache_pop(struct xl_cache *c, unsigned int cls)
{
	struct xl_stack *stack = xl_stack_of(c, cls);
	uintptr_t entry = stack->entry;
	uint32_t top;

	if (unlikely(!entry))
		return 0;
	top = atomic_load_explicit(&stack->top, memory_order_relaxed) - sizeof(entry);
	stack->entry = *xl_entry_at(c, top);
	atomic_store_explicit(&stack->top, top, memory_order_relaxed);
	return entry;
}

/* Returns whether there was room. */
static inline bool xl_cache_push(struct xl_cache *c, unsigned int cls, uintptr_t entry)
{
	struct xl_stack *stack = xl_stack_of(c, cls);
	uint32_t top = atomic_load_explicit(&stack->top, memory_order_relaxed);

	if (unlikely(top >= atomic_load_explicit(&stack->end, memory_order_relaxed)))
		return false;
	*xl_entry_at(c, top) = stack->entry;
	stack->entry = entry;
	atomic_store_explicit(&stack->top, top + sizeof(entry), memory_order_relaxed);
	return true;
}

/* Takes the key by which the caches of threads end. Does nothing the second time. */
void xl_caches_init(void);
/* Gives this thread a cache, once there is a default heap. NULL: it uses the heap itself. */
struct xl_cache *xl_cache_start(void);
/*
 * The stack of @cls is empty. Takes blocks from a depot or the heap, and returns one of them; or 0
 * with *@error set as by xl_heap_take(), for -XL_RACED with *@raced. One try.
 */
uintptr_t xl_cache_refill(struct xl_cache *c, unsigned int cls, int *error, uintptr_t *raced);
/* Puts back a block for which the stack has no room, or which is freed without a cache. */
void xl_cache_push_slow(unsigned int cls, uintptr_t entry);

/*
 * Puts back what this thread and depots hold if that may let segments go: when of those that have
 * pages less than half is in blocks, and in live ones less than half of the last time; but not for
 * few segments. Returns whether less than half is in blocks.
 */
bool xl_cache_look(struct xl_process *p);
/* Puts back all that the cache of this thread holds, or puts it into depots. */
void xl_cache_flush(struct xl_process *p);
/* In a child of fork(): what other threads held is free. */
void xl_caches_recover(struct xl_process *p);
/* How many blocks of @cls @cache holds; true for a moment. */
uint32_t xl_cache_count(const struct xl_cache *cache, unsigned int cls);

#endif /* XL_CACHE_H */
