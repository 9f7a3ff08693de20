// SPDX-License-Identifier: MIT
/*
 * Caches: the default heap as threads see it, and the paths without a lock.
 *
 * A thread has a heap of the default arena, from whose pages it takes blocks, and keeps addresses
 * of free blocks, a stack for each size class. To allocate is to pop one, to free is to push it,
 * whoever took it from its page: the byte that says whether it is live (XL_LIVE) is changed by who
 * has the block, so neither needs a lock nor an atomic instruction. Blocks that are too many go
 * back to their pages, under the lock of the heap each is from, many at once; with more threads
 * than one to a depot first, from which threads whose stack is empty take them: what one thread
 * allocates and another frees goes round without a look at its page.
 *
 * Each step looks at what the byte was. A block that two threads free at once gets into both their
 * stacks; when the second of them gives it out, or puts it back, the byte or the free map says that
 * it is not there to be had. Only if one gives it out between the other's look at the byte and the
 * write that follows both may have it.
 *
 * The heap of a thread that ends is parked, with its pages, and serves the next thread. The idea
 * of a heap for each thread is mimalloc's; that of stacks of addresses which grow as they are used
 * and take what any thread allocated is tcmalloc's, that of the depot is Bonwick's.
 */
#include <errno.h>
#include <string.h>

#include "backend.h"
#include "checks.h"
#include "chunk.h"
#include "os.h"
#include "page.h"

#define STACK_MAX 128
/* No stack holds more than this, unless it holds one block. */
#define STACK_BYTES ((size_t)96 << 10)

/*
 * @entry, or 0, is the one that was pushed last; the others are in xl_cache.stacks[], behind a 0.
 * With @entry among them the address that is to be returned would have to wait for @top.
 */
struct stack {
	uintptr_t entry;
	/* Bytes from the start of the cache to where @entry goes when another is pushed. */
	_Atomic uint32_t top;
	uint32_t end; /* of @top; 0 before the first use */
};

/* Used by its thread alone; others read counts. Wiped by a fork. */
struct xl_cache {
	/* First, for their addresses; of a free item the first word is xl_meta_put()'s. */
	struct stack of[XL_NR_CLASSES];
	struct xalloc_heap *heap; /* NULL: it has none, as in a child of fork() */
	size_t idle_bytes;        /* sum of all limits in bytes */
	unsigned int victim;      /* the class whose stack is next to become shorter */
	atomic_ulong generation;  /* of the arena, when this thread last gave memory back */
	bool ran_dry[XL_NR_CLASSES];
	uintptr_t stacks[XL_NR_CLASSES][STACK_MAX];
};

static struct xl_cache no_cache;
static __thread struct xl_cache *cache __attribute__((tls_model("initial-exec"))) = &no_cache;
/* Its destructor parks the cache of a thread that ends. Without a key no thread has a cache. */
static pthread_key_t exit_key;
static bool has_key;
/* This thread has ended, but for what still runs when its cache is gone. */
static __thread bool has_left __attribute__((tls_model("initial-exec")));

#if XL_PRELOAD
/*
 * A resolver of an IFUNC may allocate. ld.so calls those of the program before it gives the main
 * thread its variables, which are zero until then. It calls the resolver of this library, which is
 * for nothing else, before those of the program: the main thread then allocates without a cache,
 * until ld.so sets its variables to their initial values.
 */
static void do_nothing(void)
{
}

static __attribute__((used)) void (*resolve(void))(void)
{
	cache = &no_cache;
	has_left = true;
	return do_nothing;
}

static void resolved(void) __attribute__((ifunc("resolve")));
static __attribute__((used)) void (*const reference)(void) = resolved;
#endif

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define noinline __attribute__((noinline))

static uint32_t base_of(unsigned int cls)
{
	return offsetof(struct xl_cache, stacks) +
	       cls * sizeof(((struct xl_cache *)NULL)->stacks[0]);
}

static inline uintptr_t *entry_at(struct xl_cache *c, uint32_t offset)
{
	return (uintptr_t *)((char *)c + offset);
}

uint32_t xl_cache_count(const struct xl_cache *c, unsigned int cls)
{
	uint32_t top = atomic_load_explicit(&c->of[cls].top, memory_order_relaxed);

	return top ? (top - base_of(cls)) / sizeof(uintptr_t) : 0;
}

static void set_count(struct xl_cache *c, unsigned int cls, uint32_t count)
{
	atomic_store_explicit(&c->of[cls].top, base_of(cls) + count * sizeof(uintptr_t),
			      memory_order_relaxed);
}

static uint32_t limit_of(const struct xl_cache *c, unsigned int cls)
{
	return c->of[cls].end ? (c->of[cls].end - base_of(cls)) / sizeof(uintptr_t) : 0;
}

/* --- stacks grow and shrink */

/* Puts the @nr blocks back that were pushed first. */
static void put_oldest(struct xl_process *p, struct xl_cache *c, unsigned int cls, uint32_t nr)
{
	uint32_t count = xl_cache_count(c, cls);
	uintptr_t *stack = c->stacks[cls];
	uint32_t done = 0;

	stack[count] = c->of[cls].entry;
	/* The first one speaks for all: who frees blocks of others mostly frees many. */
	if (!xl_heap_has(c->heap, stack[1]))
		done = xl_depot_put(p, cls, stack + 1, nr);
	xl_heap_put(stack + 1 + done, nr - done);
	memmove(stack + 1, stack + 1 + nr, (count - nr) * sizeof(*stack));
	c->of[cls].entry = stack[count - nr];
	set_count(c, cls, count - nr);
}

static void start_stack(struct xl_cache *c, unsigned int cls)
{
	c->stacks[cls][0] = 0;
	set_count(c, cls, 0);
	c->of[cls].end = base_of(cls);
}

static void set_limit(struct xl_process *p, struct xl_cache *c, unsigned int cls, uint32_t limit)
{
	size_t bytes = xl_classes[cls].block_bytes;

	if (xl_cache_count(c, cls) > limit)
		put_oldest(p, c, cls, xl_cache_count(c, cls) - limit);
	c->idle_bytes -= limit_of(c, cls) * bytes;
	c->idle_bytes += limit * bytes;
	if (!c->of[cls].end)
		start_stack(c, cls);
	c->of[cls].end = base_of(cls) + limit * sizeof(uintptr_t);
}

/*
 * Makes the stack of the next class shorter, unless it ran dry since its last turn: those that are
 * used keep their room, and what the others have is found a little at a time.
 */
static void shrink_next(struct xl_process *p, struct xl_cache *c)
{
	unsigned int cls = c->victim;

	if (c->ran_dry[cls])
		c->ran_dry[cls] = false;
	else if (limit_of(c, cls))
		set_limit(p, c, cls, limit_of(c, cls) * 3 / 4);
	c->victim = (cls + 1) % XL_NR_CLASSES;
}

/* Gives the stack of @cls more room, if there is any, at the expense of another if need be. */
static void grow(struct xl_process *p, struct xl_cache *c, unsigned int cls)
{
	size_t bytes = xl_classes[cls].block_bytes;
	size_t most = STACK_BYTES / bytes;
	uint32_t old = limit_of(c, cls), limit = old + old / 2 + 1;

	if (most > STACK_MAX - 1)
		most = STACK_MAX - 1;
	if (limit > most)
		limit = most;
	if (limit <= old)
		return;
	if (c->idle_bytes + (limit - old) * bytes > XL_IDLE_BYTES)
		shrink_next(p, c);
	/* It may have been this one. */
	old = limit_of(c, cls);
	if (c->idle_bytes + (limit - old) * bytes <= XL_IDLE_BYTES)
		set_limit(p, c, cls, limit);
}

void xl_cache_flush(struct xl_process *p)
{
	struct xl_cache *c = cache;
	unsigned int cls;

	if (!c->heap)
		return;
	for (cls = 0; cls < XL_NR_CLASSES; cls++)
		if (limit_of(c, cls))
			set_limit(p, c, cls, 0);
}

/* --- threads come and go */

static void park(void *arg)
{
	struct xl_process *p = xl_process_peek();
	struct xl_cache *c = arg;

	/* Not that of a parent. */
	if (!p || !c->heap || c != cache)
		return;
	xl_cache_flush(p);
	cache = &no_cache;
	has_left = true;
	pthread_mutex_lock(&p->lock);
	if (atomic_fetch_sub_explicit(&p->nr_caches, 1, memory_order_relaxed) <= 2)
		xl_depots_flush(p);
	pthread_mutex_lock(&c->heap->lock);
	c->heap->cache = NULL;
	pthread_mutex_unlock(&c->heap->lock);
	xl_heap_trim(p, c->heap);
	xl_list_add_head(&p->parked, &c->heap->parked);
	pthread_mutex_unlock(&p->lock);
	c->heap = NULL;
	xl_meta_put(XL_POOL_CACHE, c);
}

/* Calls @visit for each heap of threads; returns how many times that was true. */
static unsigned int each_cached(struct xl_process *p,
				bool (*visit)(struct xl_process *p, struct xalloc_heap *heap))
{
	struct xl_list *heaps = &p->default_arena->heaps, *pos;
	unsigned int nr = 0;

	for (pos = heaps->next; pos != heaps; pos = pos->next) {
		struct xalloc_heap *heap = xl_entry(pos, struct xalloc_heap, link);

		if (heap->tag & XL_TAG_CACHED)
			nr += visit(p, heap);
	}
	return nr;
}

static bool has_other(struct xl_process *p, struct xalloc_heap *heap)
{
	(void)p;
	return heap->cache && heap->cache != cache;
}

/* What it holds: it is free in the heap. */
static void forget(struct xl_cache *c)
{
	unsigned int cls;

	for (cls = 0; cls < XL_NR_CLASSES; cls++) {
		c->of[cls].entry = 0;
		if (c->of[cls].end)
			set_count(c, cls, 0);
	}
}

static bool recover(struct xl_process *p, struct xalloc_heap *heap)
{
	bool parks = has_other(p, heap);

	xl_heap_recover(heap);
	if (heap->cache == cache)
		forget(cache);
	if (parks) {
		xl_meta_put(XL_POOL_CACHE, heap->cache);
		heap->cache = NULL;
		xl_list_add_head(&p->parked, &heap->parked);
	}
	return parks;
}

void xl_caches_recover(struct xl_process *p)
{
	if (!p->default_arena || !each_cached(p, has_other))
		return;
	xl_depots_forget(p);
	atomic_store_explicit(&p->nr_caches, cache->heap ? 1 : 0, memory_order_relaxed);
	each_cached(p, recover);
}

/* Runs before the constructors of the program, because the program may take all keys. */
__attribute__((constructor(101))) void xl_caches_init(void)
{
	if (!has_key)
		has_key = !pthread_key_create(&exit_key, park);
}

/* A heap for this thread: one that another has left, or a new one. */
static struct xalloc_heap *adopt_heap(struct xl_process *p, struct xl_cache *c)
{
	struct xalloc_heap *heap;

	pthread_mutex_lock(&p->lock);
	if (!xl_list_empty(&p->parked)) {
		heap = xl_entry(p->parked.next, struct xalloc_heap, parked);
		xl_list_del(&heap->parked);
	} else {
		heap = xl_heap_create(p->default_arena, true);
	}
	if (heap) {
		pthread_mutex_lock(&heap->lock);
		heap->cache = c;
		pthread_mutex_unlock(&heap->lock);
		atomic_fetch_add_explicit(&p->nr_caches, 1, memory_order_relaxed);
	}
	pthread_mutex_unlock(&p->lock);
	return heap;
}

/* Gives this thread a cache, or returns NULL: the thread then uses the shared heap. */
static struct xl_cache *start(void)
{
	struct xl_process *p = xl_process_peek();
	struct xl_cache *c;

	if (xl_checks || has_left || !has_key)
		return NULL;
	c = xl_meta_get(XL_POOL_CACHE, sizeof(*c));
	if (!c)
		return NULL;
	/* What is left of it to touch: entries 0 of the stacks are 0 for ever. */
	memset(c, 0, offsetof(struct xl_cache, stacks));
	c->heap = adopt_heap(p, c);
	if (!c->heap) {
		xl_meta_put(XL_POOL_CACHE, c);
		return NULL;
	}
	atomic_store_explicit(&c->generation, xl_arena_generation(c->heap->arena),
			      memory_order_relaxed);
	cache = c;
	/* Where it allocates, it may do so from this cache: in the preload library. */
	if (pthread_setspecific(exit_key, c)) {
		park(c);
		return NULL;
	}
	return c;
}

/* --- allocating */

static noinline void *give_out_slow(uintptr_t entry, unsigned int cls)
{
	void *ptr = (void *)xl_address_of(entry);

	if (!(entry & XL_FRESH) || !xl_make_live(entry - XL_FRESH, cls))
		xl_free_raced(ptr);
	return ptr;
}

/* What was in a stack. */
static inline void *give_out(uintptr_t entry, unsigned int cls)
{
	if (unlikely(!xl_make_live(entry, cls)))
		return give_out_slow(entry, cls);
	return (void *)(entry - XL_KEPT);
}

static inline struct stack *stack_of(struct xl_cache *c, unsigned int cls)
{
	struct stack *stack = &c->of[cls];

	/* Otherwise gcc computes it again for what is atomic. */
	__asm__("" : "+r"(stack));
	return stack;
}

/* Returns an entry, or 0 if the stack is empty. */
static inline uintptr_t pop(struct xl_cache *c, unsigned int cls)
{
	struct stack *stack = stack_of(c, cls);
	uintptr_t entry = stack->entry;
	uint32_t top;

	if (unlikely(!entry))
		return 0;
	top = atomic_load_explicit(&stack->top, memory_order_relaxed) - sizeof(entry);
	stack->entry = *entry_at(c, top);
	atomic_store_explicit(&stack->top, top, memory_order_relaxed);
	return entry;
}

/* The stack of @cls is empty. Returns an entry, or 0 with errno set. */
static uintptr_t refill(unsigned int cls, size_t size)
{
	struct xl_process *p = xl_process_peek();
	struct xl_cache *c = cache;
	uintptr_t *stack, entry;
	bool by_hook = false;
	uint32_t nr;
	int error;

	xl_arena_trim_if_wanted(c->heap->arena, &c->generation);
	c->ran_dry[cls] = true;
	grow(p, c, cls);
	if (!c->of[cls].end)
		start_stack(c, cls);
	stack = c->stacks[cls];
	nr = xl_depot_take(p, cls, stack + 1, limit_of(c, cls) / 2 + 1);
	if (!nr)
		nr = xl_heap_take(c->heap, cls, stack + 1, limit_of(c, cls) / 2 + 1, &error);
	if (!nr && error == -XL_ADD_CHUNK) {
		error = xl_chunk_add(c->heap->arena, &by_hook);
		if (!error) {
			/* The hook may have allocated, too. */
			entry = pop(c, cls);
			return entry ? entry : refill(cls, size);
		}
	}
	if (!nr && !by_hook) {
		int refused = error;

		xl_arena_trim(c->heap->arena, error, &c->generation);
		nr = xl_heap_take(c->heap, cls, stack + 1, 1, &error);
		if (error == -XL_ADD_CHUNK)
			error = refused;
	}
	if (!nr) {
		errno = xl_arena_refused(c->heap->arena, size, -error, by_hook);
		return 0;
	}
	set_count(c, cls, nr - 1);
	c->of[cls].entry = stack[nr - 1];
	return stack[nr];
}

/* Returns whether there was room. */
static inline bool push(struct xl_cache *c, unsigned int cls, uintptr_t entry)
{
	struct stack *stack = stack_of(c, cls);
	uint32_t top = atomic_load_explicit(&stack->top, memory_order_relaxed);

	if (unlikely(top >= stack->end))
		return false;
	*entry_at(c, top) = stack->entry;
	stack->entry = entry;
	atomic_store_explicit(&stack->top, top + sizeof(entry), memory_order_relaxed);
	return true;
}

static void *alloc_class(unsigned int cls, size_t size, bool *zero)
{
	uintptr_t entry = pop(cache, cls);

	if (!entry)
		entry = refill(cls, size);
	*zero = entry & XL_FRESH;
	return entry ? give_out(entry, cls) : NULL;
}

noinline void *xl_default_alloc(size_t alignment, size_t size, bool *zero)
{
	struct xalloc_heap *heap;
	unsigned int cls;
	bool ignored;

	if (!alignment || alignment & (alignment - 1)) {
		errno = EINVAL;
		return NULL;
	}
	/* In the first call there are neither options nor size classes yet. */
	if (unlikely(!cache->heap) && !xl_heap_default())
		return NULL;
	cls = xl_class_of(alignment, size ? size : 1);
	if (cls != XL_CLASS_LARGE && (likely(cache->heap) || start()))
		return alloc_class(cls, size, zero ? zero : &ignored);
	heap = xl_heap_default();
	return heap ? xl_heap_alloc(heap, alignment, size, zero) : NULL;
}

void *xalloc_malloc(size_t size)
{
	unsigned int cls;
	uintptr_t entry;

	if (unlikely(size > XL_SLICE))
		return xl_default_alloc(XL_QUANTUM, size, NULL);
	cls = xl_class_of_size[(size + XL_QUANTUM - 1) / XL_QUANTUM];
	entry = pop(cache, cls);
	return likely(entry) ? give_out(entry, cls) : xl_default_alloc(XL_QUANTUM, size, NULL);
}

/* --- freeing */

static noinline void free_slow(const char *call, void *ptr)
{
	if (ptr)
		xl_free_locked(call, ptr);
}

/* The stack of @cls is full, or this thread has none. */
static noinline void push_slow(unsigned int cls, uintptr_t entry)
{
	struct xl_process *p = xl_process_peek();
	struct xl_cache *c = cache;
	int error = errno;
	uint32_t count;

	if (!c->heap)
		c = start();
	if (c) {
		grow(p, c, cls);
		count = xl_cache_count(c, cls);
		if (count == limit_of(c, cls) && count)
			put_oldest(p, c, cls, (count + 1) / 2);
	}
	if (!c || !push(c, cls, entry))
		xl_heap_put(&entry, 1);
	errno = error;
}

static inline __attribute__((always_inline)) void free_block(const char *call, void *ptr)
{
	uintptr_t offset = (uintptr_t)ptr - xl_map.base;
	/* What is no multiple of the quantum becomes more than any unit. */
	size_t unit = offset / XL_QUANTUM | offset << 60;
	uintptr_t entry = (uintptr_t)ptr + XL_KEPT;
	uint32_t cls;

	if (unlikely(!xl_has_tag(unit))) {
		free_slow(call, ptr);
		return;
	}
	cls = xl_tag(unit) - XL_TAG_CACHED;
	if (unlikely(cls >= XL_NR_CLASSES) || unlikely(!xl_make_kept(entry, cls))) {
		free_slow(call, ptr);
		return;
	}
	if (unlikely(!push(cache, cls, entry)))
		push_slow(cls, entry);
}

void xalloc_free(void *ptr)
{
	free_block("xalloc_free", ptr);
}

static void free_sized(const char *call, void *ptr, size_t alignment, size_t size)
{
	size_t unit = xl_unit((uintptr_t)ptr);
	uint32_t cls = XL_CLASS_LARGE;

	if (xl_has_tag(unit))
		cls = xl_tag(unit) % XL_TAG_STEP;
	if (unlikely(cls == XL_CLASS_LARGE || !alignment || alignment & (alignment - 1) ||
		     cls != xl_class_of(alignment, size ? size : 1)))
		xl_check_size(call, ptr, alignment, size);
	free_block(call, ptr);
}

void xalloc_free_sized(void *ptr, size_t size)
{
	free_sized("xalloc_free_sized", ptr, XL_QUANTUM, size);
}

void xalloc_free_aligned_sized(void *ptr, size_t alignment, size_t size)
{
	free_sized("xalloc_free_aligned_sized", ptr, alignment, size);
}
