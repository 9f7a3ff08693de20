// SPDX-License-Identifier: MIT
/*
 * Caches: what threads keep of the default heap.
 *
 * A thread keeps addresses of free blocks in stacks, one for each size class. An allocation pops
 * an address, and a free pushes it, also if another thread had taken the block from its page. A
 * byte says whether the block is live (XL_LIVE). Only the thread that has the block changes that
 * byte, so an allocation and a free need neither a lock nor an atomic instruction. Blocks that
 * are too many go back to their pages, many at once under the lock of their bin. A thread that
 * frees more of a class than it allocates puts them into a depot, from which threads whose stack is
 * empty take them: what one thread allocates and another frees goes round without a look at its
 * page. Other threads put back what they took, and find it again, as each begins to look for blocks
 * in a lane of its own: the states of blocks of two threads then mostly are in different lines of
 * the CPU's cache.
 *
 * Each step looks at what the byte was. A block that two threads free at once gets into both their
 * stacks; when the second of them gives it out, or puts it back, the byte or the free map says that
 * it is not there to be had. Only if one gives it out between the other's look at the byte and the
 * write that follows both may have it.
 *
 * All threads share the pages, and all of them together may keep xl_idle_most() of each kind. So
 * a thread that has freed its blocks and does nothing holds little, and none of its pages.
 *
 * The idea of stacks of addresses which grow as they are used and take what any thread allocated is
 * tcmalloc's, that of the depot is Bonwick's.
 */
#include <errno.h>
#include <string.h>

#include "cache.h"
#include "misuse.h"
#include "os.h"
#include "page.h"

/* No stack holds more than this, unless it holds one block. */
#define STACK_BYTES ((size_t)96 << 10)
/* But so many of blocks longer than a quarter of it, if they are less than half of what is held. */
#define FEW_BLOCKS 8
/* In place of an end: the stack counts as full. Below any top, but not 0: that is "never used". */
#define POKED 1
/* Where pages are sparse, xl_cache_look() is called each time a stack is so many blocks longer. */
#define ROOM 2
/* In so few segments pages are never called sparse. */
#define FEW_SEGMENTS 3
/* No thread holds more than this, however few there are: blocks of slabs, and medium ones. */
#define THREAD_BYTES ((size_t)1 << 20)
#define THREAD_MEDIUM_BYTES ((size_t)8 << 20)

static struct xl_cache no_cache;
__thread struct xl_cache *xl_cache __attribute__((tls_model("initial-exec"))) = &no_cache;
/* Its destructor ends the cache of a thread that ends. Without a key no thread has a cache. */
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
	xl_cache = &no_cache;
	has_left = true;
	return do_nothing;
}

static void resolved(void) __attribute__((ifunc("resolve")));
static __attribute__((used)) void (*const reference)(void) = resolved;
#endif

static uint32_t base_of(unsigned int cls)
{
	return offsetof(struct xl_cache, stacks) +
	       cls * sizeof(((struct xl_cache *)NULL)->stacks[0]);
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
	return c->limits[cls];
}

static uint32_t end_of(const struct xl_cache *c, unsigned int cls)
{
	return atomic_load_explicit(&c->of[cls].end, memory_order_relaxed);
}

static void set_end(struct xl_cache *c, unsigned int cls, uint32_t end)
{
	atomic_store_explicit(&c->of[cls].end, end, memory_order_relaxed);
}

static void start_stack(struct xl_cache *c, unsigned int cls)
{
	c->stacks[cls][0] = 0;
	set_count(c, cls, 0);
	set_end(c, cls, base_of(cls));
}

/* So many blocks may be pushed before xl_cache_push_slow() is called. */
static void set_room(struct xl_cache *c, unsigned int cls, uint32_t nr)
{
	uint32_t end = xl_cache_count(c, cls) + nr;

	if (!end_of(c, cls))
		start_stack(c, cls);
	if (end > limit_of(c, cls))
		end = limit_of(c, cls);
	set_end(c, cls, base_of(cls) + end * sizeof(uintptr_t));
}

/* --- stacks grow and shrink */

/* @nr blocks more were put back, or taken if it is negative. */
static void add_surplus(struct xl_cache *c, unsigned int cls, int nr)
{
	int surplus = c->surplus[cls] + nr;

	if (surplus >= INT16_MIN && surplus <= INT16_MAX)
		c->surplus[cls] = surplus;
}

static void put(struct xl_process *p, struct xl_cache *c, unsigned int cls,
		const uintptr_t *entries, uint32_t nr)
{
	uint32_t done = 0;
	uintptr_t raced;

	add_surplus(c, cls, nr);
	if (c->surplus[cls] > 0)
		done = xl_depot_put(p, cls, entries, nr);
	raced = xl_heap_put(c->heap, cls, entries + done, nr - done);
	if (raced)
		xl_free_raced((void *)raced);
}

/* Puts the @nr blocks back that were pushed first. */
static void put_oldest(struct xl_process *p, struct xl_cache *c, unsigned int cls, uint32_t nr)
{
	uint32_t count = xl_cache_count(c, cls);
	uintptr_t *stack = c->stacks[cls];

	stack[count] = c->of[cls].entry;
	put(p, c, cls, stack + 1, nr);
	memmove(stack + 1, stack + 1 + nr, (count - nr) * sizeof(*stack));
	c->of[cls].entry = stack[count - nr];
	set_count(c, cls, count - nr);
}

static bool is_medium(unsigned int cls)
{
	return cls > XL_CLASS_LARGE;
}

static void set_limit(struct xl_process *p, struct xl_cache *c, unsigned int cls, uint32_t limit)
{
	size_t bytes = xl_classes[cls].block_bytes;

	if (xl_cache_count(c, cls) > limit)
		put_oldest(p, c, cls, xl_cache_count(c, cls) - limit);
	c->idle_bytes[is_medium(cls)] -= limit_of(c, cls) * bytes;
	c->idle_bytes[is_medium(cls)] += limit * bytes;
	c->limits[cls] = limit;
	set_room(c, cls, XL_STACK_MAX);
}

/*
 * Makes the stack of the next class shorter, unless it ran dry since its last turn: those that are
 * used keep their room, and what the others have is found a little at a time.
 */
static void shrink_next(struct xl_process *p, struct xl_cache *c, bool medium)
{
	unsigned int cls = c->victims[medium];

	if (c->ran_dry[cls])
		c->ran_dry[cls] = false;
	else if (limit_of(c, cls))
		set_limit(p, c, cls, limit_of(c, cls) * 3 / 4);
	c->victims[medium] = cls + 1;
	if (cls + 1 == XL_CLASS_LARGE)
		c->victims[medium] = 0;
	else if (cls + 1 == XL_NR_CACHED)
		c->victims[medium] = XL_CLASS_LARGE + 1;
}

/* How many blocks of @cls a stack may hold, of a thread that may hold @share. */
static uint32_t most_of(unsigned int cls, size_t share)
{
	size_t most = share / 8 < STACK_BYTES ? share / 8 : STACK_BYTES;
	size_t bytes = xl_classes[cls].block_bytes;

	/* Of long blocks some more, so that not each is handed on by itself. */
	if (bytes > STACK_BYTES / 4)
		most = share / 2 < FEW_BLOCKS * bytes ? share / 2 : FEW_BLOCKS * bytes;
	if (is_medium(cls))
		most = share / 2;
	most /= bytes;
	return most < XL_STACK_MAX ? most : XL_STACK_MAX - 1;
}

/*
 * What a thread may hold in all classes of the kind of @cls, slabs or medium: an even share of
 * all.
 */
static size_t share_of(const struct xl_process *p, unsigned int cls)
{
	uint32_t nr = atomic_load_explicit(&p->nr_caches, memory_order_relaxed);
	size_t share = xl_idle_most(p) / (nr ? nr : 1);
	size_t most = is_medium(cls) ? THREAD_MEDIUM_BYTES : THREAD_BYTES;

	return share < most ? share : most;
}

/*
 * Gives the stack of @cls more room, if there is any, at the expense of another if need be. No
 * stack gets more than most_of(): a part of the thread's share.
 */
static void grow(struct xl_process *p, struct xl_cache *c, unsigned int cls)
{
	size_t bytes = xl_classes[cls].block_bytes, share = share_of(p, cls);
	uint32_t old = limit_of(c, cls), limit = old + old / 2 + 1, most = most_of(cls, share);
	const size_t *idle = &c->idle_bytes[is_medium(cls)];

	if (limit > most)
		limit = most;
	if (limit <= old)
		return;
	if (*idle + (limit - old) * bytes > share)
		shrink_next(p, c, is_medium(cls));
	/* It may have been this one. */
	old = limit_of(c, cls);
	if (limit > old && *idle + (limit - old) * bytes <= share)
		set_limit(p, c, cls, limit);
}

/* Makes the stack of @cls shorter if the share has become less since it grew. */
static void fit(struct xl_process *p, struct xl_cache *c, unsigned int cls)
{
	uint32_t most = most_of(cls, share_of(p, cls));

	if (limit_of(c, cls) > most)
		set_limit(p, c, cls, most);
}

/*
 * Makes the next push to each stack of each thread slow, so that a stack that is too long is made
 * shorter. Called with xl_process.meta_lock held, when there are twice as many threads. If a thread
 * sets its end at the same moment the poke may be lost; that does no harm.
 */
static void poke_all(struct xl_process *p)
{
	struct xl_list *pos;
	unsigned int cls;

	for (pos = p->caches.next; pos != &p->caches; pos = pos->next) {
		struct xl_cache *c = xl_entry(pos, struct xl_cache, link);

		for (cls = 0; cls < XL_NR_CACHED; cls++)
			if (end_of(c, cls) > POKED)
				set_end(c, cls, POKED);
	}
}

void xl_cache_flush(struct xl_process *p)
{
	struct xl_cache *c = xl_cache;
	unsigned int cls;

	if (!c->heap)
		return;
	for (cls = 0; cls < XL_NR_CACHED; cls++)
		if (limit_of(c, cls))
			set_limit(p, c, cls, 0);
}

/* What the cache holds. */
static size_t held_bytes(const struct xl_cache *c)
{
	unsigned int cls;
	size_t held = 0;

	for (cls = 0; cls < XL_NR_CACHED; cls++)
		if (c->of[cls].entry)
			held += xl_cache_count(c, cls) * (size_t)xl_classes[cls].block_bytes;
	return held;
}

bool xl_cache_look(struct xl_process *p)
{
	struct xl_cache *c = xl_cache;
	struct xalloc_arena *arena;
	size_t nr, used, live;
	uintptr_t raced;

	if (!c->heap)
		return false;
	arena = c->heap->arena;
	nr = atomic_load_explicit(&arena->nr_segments, memory_order_relaxed);
	if (nr <= FEW_SEGMENTS)
		return false;
	used = atomic_load_explicit(&arena->used_bytes, memory_order_relaxed);
	if (used >= nr * XL_SEGMENT / 2) {
		/* The cache holds no more than the sum of its limits. */
		if (used >= nr * XL_SEGMENT / 2 + c->idle_bytes[0] + c->idle_bytes[1])
			c->sparse_bytes = SIZE_MAX;
		return false;
	}
	if (c->sparse_bytes != SIZE_MAX) {
		/* What other caches hold counts as live. */
		live = used - held_bytes(c);
		if (live / 4 > c->sparse_bytes + XL_SEGMENT / 2)
			c->sparse_bytes = live;
		if (live >= c->sparse_bytes / 2)
			return true;
	}
	xl_cache_flush(p);
	raced = xl_depots_flush(p);
	if (raced)
		xl_free_raced((void *)raced);
	c->sparse_bytes = atomic_load_explicit(&arena->used_bytes, memory_order_relaxed);
	return true;
}

/* --- threads come and go */

static void leave(void *arg)
{
	struct xl_process *p = xl_process_peek();
	struct xl_cache *c = arg;
	uintptr_t raced = 0;

	/* Not that of a parent. */
	if (!p || !c->heap || c != xl_cache)
		return;
	xl_cache_flush(p);
	xl_cache = &no_cache;
	has_left = true;
	if (atomic_fetch_sub_explicit(&p->nr_caches, 1, memory_order_relaxed) <= 2)
		raced = xl_depots_flush(p);
	pthread_mutex_lock(&p->meta_lock);
	xl_list_del(&c->link);
	pthread_mutex_unlock(&p->meta_lock);
	c->heap = NULL;
	xl_meta_put(XL_POOL_CACHE, c);
	if (raced)
		xl_free_raced((void *)raced);
}

/* What it holds: it is free in the heap. */
static void forget(struct xl_cache *c)
{
	unsigned int cls;

	for (cls = 0; cls < XL_NR_CACHED; cls++) {
		c->of[cls].entry = 0;
		if (end_of(c, cls))
			set_count(c, cls, 0);
	}
}

void xl_caches_recover(struct xl_process *p)
{
	struct xl_list *pos, *next;
	bool found = false;

	for (pos = p->caches.next; pos != &p->caches; pos = next) {
		struct xl_cache *c = xl_entry(pos, struct xl_cache, link);

		next = pos->next;
		if (c == xl_cache)
			continue;
		xl_list_del(pos);
		xl_meta_put(XL_POOL_CACHE, c);
		found = true;
	}
	/* With one thread nothing was half done. */
	if (!found)
		return;
	xl_depots_forget(p);
	atomic_store_explicit(&p->nr_caches, xl_cache->heap ? 1 : 0, memory_order_relaxed);
	xl_heap_recover(atomic_load_explicit(&p->default_heap, memory_order_relaxed));
	if (xl_cache->heap)
		forget(xl_cache);
}

/* Runs before the constructors of the program, because the program may take all keys. */
__attribute__((constructor(101))) void xl_caches_init(void)
{
	if (!has_key)
		has_key = !pthread_key_create(&exit_key, leave);
}

/* The lanes of the first threads are as far from each other as can be: the bits in reverse. */
static uint8_t lane_of(unsigned int nr)
{
	uint8_t lane = 0;
	unsigned int bit;

	for (bit = XL_NR_LANES / 2; bit; bit /= 2, nr /= 2)
		lane |= nr % 2 ? bit : 0;
	return lane;
}

struct xl_cache *xl_cache_start(void)
{
	struct xl_process *p = xl_process_peek();
	struct xl_cache *c;
	unsigned int nr;

	if (xl_checks || has_left || !has_key)
		return NULL;
	c = xl_meta_get(XL_POOL_CACHE, sizeof(*c));
	if (!c)
		return NULL;
	/* What is left of it to touch: entries 0 of the stacks are 0 for ever. */
	memset(c, 0, offsetof(struct xl_cache, stacks));
	c->heap = atomic_load_explicit(&p->default_heap, memory_order_acquire);
	c->sparse_bytes = SIZE_MAX;
	c->victims[true] = XL_CLASS_LARGE + 1;
	/* If memory has been wanted back since it last went, this thread gives it back. */
	atomic_store_explicit(&c->generation, c->heap->arena->generation, memory_order_relaxed);
	pthread_mutex_lock(&p->meta_lock);
	c->lane = lane_of(p->nr_started++);
	xl_list_add_head(&p->caches, &c->link);
	nr = atomic_fetch_add_explicit(&p->nr_caches, 1, memory_order_relaxed) + 1;
	if (nr >= 2 * p->nr_fitted) {
		poke_all(p);
		p->nr_fitted = nr;
	} else if (nr < p->nr_fitted / 4) {
		p->nr_fitted = nr;
	}
	pthread_mutex_unlock(&p->meta_lock);
	xl_cache = c;
	/* Where it allocates, it may do so from this cache: in the preload library. */
	if (pthread_setspecific(exit_key, c)) {
		leave(c);
		return NULL;
	}
	return c;
}

/* --- the slow paths */

uintptr_t xl_cache_refill(struct xl_cache *c, unsigned int cls, int *error, uintptr_t *raced)
{
	struct xl_process *p = xl_process_peek();
	uintptr_t *stack = c->stacks[cls];
	uint32_t nr;

	c->ran_dry[cls] = true;
	grow(p, c, cls);
	if (!end_of(c, cls))
		start_stack(c, cls);
	*error = 0;
	nr = xl_depot_take(p, cls, stack + 1, limit_of(c, cls) + !limit_of(c, cls));
	if (!nr)
		nr = xl_heap_take(c->heap, cls, c->lane, stack + 1, limit_of(c, cls) / 2 + 1,
				  error);
	if (!nr) {
		*raced = stack[1];
		return 0;
	}
	add_surplus(c, cls, -(int)nr);
	set_count(c, cls, nr - 1);
	c->of[cls].entry = nr > 1 ? stack[nr - 1] : 0;
	return stack[nr];
}

void xl_cache_push_slow(unsigned int cls, uintptr_t entry)
{
	struct xl_process *p = xl_process_peek();
	struct xl_cache *c = xl_cache;
	int error = errno;
	uintptr_t raced;
	uint32_t count;
	bool sparse;

	if (!c->heap)
		c = xl_cache_start();
	if (c) {
		fit(p, c, cls);
		count = xl_cache_count(c, cls);
		if (count == limit_of(c, cls))
			grow(p, c, cls);
		sparse = xl_cache_look(p);
		count = xl_cache_count(c, cls);
		if (count && count == limit_of(c, cls))
			put_oldest(p, c, cls, c->surplus[cls] > 0 ? count : (count + 1) / 2);
		set_room(c, cls, sparse ? ROOM : XL_STACK_MAX);
	}
	if (!c || !xl_cache_push(c, cls, entry)) {
		raced = xl_heap_put(atomic_load_explicit(&p->default_heap, memory_order_relaxed),
				    cls, &entry, 1);
		if (raced)
			xl_free_raced((void *)raced);
	}
	errno = error;
}
