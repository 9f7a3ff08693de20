// SPDX-License-Identifier: MIT
/*
 * Arenas: where they lie, what they hold, and the calls on them.
 *
 * An arena lies at an address that is a multiple of the largest power of two in its size; so
 * blocks can be aligned up to the arena's size. It is mapped as a whole when it is created, for
 * those who look at offsets that others have allocated; but the default arena is mapped as it is
 * used.
 */
#include <errno.h>
#include <string.h>

#include "backend.h"
#include "checks.h"
#include "chunk.h"
#include "hook.h"
#include "os.h"
#include "zone.h"

/*
 * Returns the address of a gap of whole plots, at @from or above, which is @phase modulo
 * @alignment, and, in @next, the arena after it; 0 when there is none.
 */
static uintptr_t find_gap(struct xl_process *p, size_t bytes, uintptr_t phase, size_t alignment,
			  uintptr_t from, struct xl_list **next)
{
	struct xl_list *pos = p->arenas.next;

	for (;; pos = pos->next) {
		struct xalloc_arena *arena = xl_entry(pos, struct xalloc_arena, link);
		uintptr_t end =
			pos == &p->arenas ? xl_map.base + xl_map.bytes : arena->base & -XL_PLOT;
		uintptr_t at = from + ((phase - from) & (alignment - 1));

		if (at <= end && end - at >= bytes) {
			*next = pos;
			return at;
		}
		if (pos == &p->arenas)
			return 0;
		end = xl_round_up(arena->base + arena->bytes, XL_PLOT);
		if (from < end)
			from = end;
	}
}

static void say_addresses(struct xl_process *p, size_t bytes)
{
	if (!p->said_addresses)
		xl_say("xalloc: no addresses for an arena of %zu MiB: there are %zu MiB for all arenas\n",
		       bytes >> 20, xl_map.bytes >> 20);
	p->said_addresses = true;
}

/* Maps what is to be there before a page is granted. The arena has its place. */
static int map(struct xalloc_arena *arena)
{
	/* A library that has lost its descriptor finds the arena by its first address. */
	if (arena->grows)
		return xl_zone_use(arena, 0, XL_SEGMENT);
	return arena->backend->map(arena, 0, arena->bytes);
}

/*
 * Adds @arena, of @arena->bytes, to the list of arenas, at a place in the zone, and maps it.
 * Adopted memory stays where it is; its place agrees with that modulo as much as can be.
 */
static int place(struct xl_process *p, struct xalloc_arena *arena)
{
	uintptr_t phase =
		arena->adopted ? (uintptr_t)arena->blocks.iov_base & ~(XL_SEGMENT - 1) : 0;
	uintptr_t from = xl_map.base + (arena->grows ? 0 : xl_zone_default_bytes());
	size_t alignment = (size_t)1 << (63 - __builtin_clzll(arena->bytes));
	struct xl_list *next;
	int ret;

	/* The default arena has the first plots, wherever the zone begins. */
	if (alignment < XL_PLOT || arena->grows)
		alignment = XL_PLOT;
	for (;;) {
		arena->base = find_gap(p, arena->bytes, phase, alignment, from, &next);
		if (!arena->base && alignment > XL_PLOT) {
			alignment = XL_PLOT;
			continue;
		}
		if (!arena->base) {
			say_addresses(p, arena->bytes);
			return -ENOMEM;
		}
		if (arena->adopted) {
			arena->shift = phase - arena->base;
			arena->alignment_max = alignment;
		} else {
			arena->blocks = (struct iovec){ (void *)arena->base, arena->bytes };
			arena->alignment_max = SIZE_MAX;
		}
		ret = map(arena);
		if (!ret)
			break;
		/* Somebody else has mapped something there. Of adopted memory that is known. */
		if (ret != -EEXIST || arena->adopted || arena->grows)
			return ret;
		from = (arena->base & -XL_PLOT) + XL_PLOT;
	}
	xl_list_add_before(next, &arena->link);
	atomic_store(&arena->alive, true);
	return 0;
}

static struct xalloc_arena *arena_get(struct xl_process *p)
{
	struct xalloc_arena *arena = xl_meta_get(XL_POOL_ARENA, sizeof(*arena));

	if (!arena)
		return NULL;
	memset(arena, 0, sizeof(*arena));
	arena->backend = p->backend;
	xl_list_init(&arena->heaps);
	xl_list_init(&arena->shelves);
	arena->shelf_refused = SIZE_MAX;
	return arena;
}

/* Places what the backend has created or attached to, or destroys it. Returns 0 or -errno. */
static int place_or_destroy(struct xl_process *p, struct xalloc_arena *arena)
{
	int ret = place(p, arena);

	if (ret)
		arena->backend->destroy(arena);
	return ret;
}

static struct xalloc_arena *arena_put(struct xalloc_arena *arena, int ret)
{
	xl_meta_put(XL_POOL_ARENA, arena);
	errno = -ret;
	return NULL;
}

struct xalloc_arena *xl_arena_create(struct xl_process *p, const struct xalloc_arena_config *config,
				     bool grows)
{
	struct xalloc_arena *arena = arena_get(p);
	int ret;

	if (!arena)
		return NULL;
	arena->bytes = config->arena_bytes;
	arena->grows = grows;
	/* Without memory for them the arena does without. */
	if (grows)
		arena->segments =
			xl_os_sparse(arena->bytes / XL_SEGMENT * sizeof(*arena->segments));
	arena->persists = config->flags & XALLOC_PERSIST;
	arena->chunk_bytes = config->chunk_bytes;
	arena->limit_bytes = config->limit_bytes;
	if (arena->limit_bytes > arena->bytes)
		arena->limit_bytes = arena->bytes;
	ret = arena->backend->create(arena, config);
	if (ret < 0)
		return arena_put(arena, ret);
	ret = place_or_destroy(p, arena);
	if (!ret)
		return arena;
	if (config->path)
		xl_os_unlink(config->path);
	return arena_put(arena, ret);
}

/* --- the default arena */

static size_t lower(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Says once if XALLOC_OPTIONS is why there is no default arena. @error: the errno. */
static void say_options(struct xl_process *p, int error)
{
	if (p->said_options)
		return;
	if (error == ENODEV && p->options.node != SIZE_MAX)
		xl_say("xalloc: XALLOC_OPTIONS: node=%zu is no node of this machine with memory\n",
		       p->options.node);
	else if (error == EOPNOTSUPP && p->options.local)
		xl_say("xalloc: XALLOC_OPTIONS: XALLOC_BACKEND=local has no pages=small and no node=\n");
	else
		return;
	p->said_options = true;
	errno = error;
}

static struct xalloc_arena *create_default_arena(struct xl_process *p)
{
	struct xalloc_arena_config config = { .size = sizeof(config) };
	size_t limit = p->options.limit_bytes;
	struct xalloc_arena *arena;
	size_t most;
	int ret;

	ret = p->backend->bytes_max(&most);
	if (ret) {
		errno = -ret;
		return NULL;
	}
	/* A program that does not know of the library has its blocks in its core file. */
	config.flags = XL_PRELOAD ? XALLOC_DUMP : 0;
	config.pages = p->options.pages;
	if (p->options.node != SIZE_MAX) {
		config.flags |= XALLOC_ON_NODE;
		config.node = p->options.node;
	}
	config.arena_bytes = lower(xl_zone_default_bytes(), most);
	config.limit_bytes = lower(limit, config.arena_bytes);
	arena = xl_arena_create(p, &config, true);
	if (arena)
		arena->keep_bytes = XL_LOCAL_KEEP;
	else
		say_options(p, errno);
	return arena;
}

struct xalloc_heap *xl_heap_default(void)
{
	struct xl_process *p = xl_process_get();
	struct xalloc_heap *heap;

	if (!p)
		return NULL;
	heap = atomic_load_explicit(&p->default_heap, memory_order_acquire);
	if (heap)
		return heap;
	pthread_mutex_lock(&p->lock);
	heap = atomic_load_explicit(&p->default_heap, memory_order_relaxed);
	if (!heap) {
		if (!p->default_arena)
			p->default_arena = create_default_arena(p);
		/* While each block is looked at no thread has a cache. */
		if (p->default_arena)
			heap = xl_heap_create(p->default_arena,
					      xl_checks ? XL_TAG_OWN : XL_TAG_CACHED);
		atomic_store_explicit(&p->default_heap, heap, memory_order_release);
	}
	pthread_mutex_unlock(&p->lock);
	return heap;
}

struct xalloc_arena *xalloc_arena_default(void)
{
	struct xalloc_heap *heap = xl_heap_default();

	return heap ? heap->arena : NULL;
}

/* --- the calls */

/* Rounds up to whole segments. Returns whether there is such a number. */
static bool round_up(size_t *bytes)
{
	if (__builtin_add_overflow(*bytes, XL_SEGMENT - 1, bytes))
		return false;
	*bytes &= ~(XL_SEGMENT - 1);
	return true;
}

static int read_config(const struct xalloc_arena_config *from, struct xalloc_arena_config *config)
{
	const char *bytes = (const char *)from;
	size_t i;

	*config = (struct xalloc_arena_config){ 0 };
	if (!from)
		return 0;
	if (from->size < offsetof(struct xalloc_arena_config, path))
		return -EINVAL;
	for (i = sizeof(*config); i < from->size; i++)
		if (bytes[i])
			return -E2BIG;
	memcpy(config, from, from->size < sizeof(*config) ? from->size : sizeof(*config));
	if (config->flags & ~(XALLOC_ON_NODE | XALLOC_PERSIST | XALLOC_DUMP) || config->reserved ||
	    config->pages > XALLOC_PAGES_SMALL ||
	    config->reserve_low_bytes > config->reserve_high_bytes ||
	    (config->node && !(config->flags & XALLOC_ON_NODE)))
		return -EINVAL;
	if (config->chunk_bytes &&
	    (config->chunk_bytes % XL_SEGMENT || config->chunk_bytes & (config->chunk_bytes - 1)))
		return -EINVAL;
	return 0;
}

struct xalloc_arena *xalloc_arena_create(const struct xalloc_arena_config *from)
{
	struct xl_process *p = xl_process_get();
	struct xalloc_arena_config config;
	struct xalloc_arena *arena;
	int ret;

	if (!p)
		return NULL;
	ret = read_config(from, &config);
	if (ret) {
		errno = -ret;
		return NULL;
	}
	if (!config.arena_bytes)
		config.arena_bytes = p->options.limit_bytes;
	if (!config.limit_bytes)
		config.limit_bytes = config.arena_bytes;
	if (!round_up(&config.arena_bytes) || !round_up(&config.limit_bytes) ||
	    !round_up(&config.reserve_low_bytes) || !round_up(&config.reserve_high_bytes)) {
		errno = EFBIG;
		return NULL;
	}
	if (config.chunk_bytes > config.arena_bytes || config.chunk_bytes > config.limit_bytes) {
		errno = EINVAL;
		return NULL;
	}
	pthread_mutex_lock(&p->lock);
	arena = xl_arena_create(p, &config, false);
	pthread_mutex_unlock(&p->lock);
	return arena;
}

struct xalloc_arena *xalloc_arena_from_fd(int fd)
{
	struct xl_process *p = xl_process_get();
	struct xalloc_arena *arena;
	int ret = -EOPNOTSUPP;

	if (!p)
		return NULL;
	pthread_mutex_lock(&p->lock);
	arena = arena_get(p);
	if (arena) {
		if (arena->backend->attach)
			ret = arena->backend->attach(arena, fd);
		arena->limit_bytes = arena->bytes;
		if (ret >= 0)
			ret = place_or_destroy(p, arena);
		if (ret < 0)
			arena = arena_put(arena, ret);
	}
	pthread_mutex_unlock(&p->lock);
	return arena;
}

struct xalloc_arena *xalloc_arena_open(const char *path)
{
	struct xl_process *p = xl_process_get();
	struct xalloc_arena *arena;
	int fd;

	if (!p)
		return NULL;
	/* Opening some files does something. */
	fd = p->backend->attach ? xl_os_open(path) : -EOPNOTSUPP;
	if (fd < 0) {
		errno = -fd;
		return NULL;
	}
	arena = xalloc_arena_from_fd(fd);
	xl_os_close(fd);
	return arena;
}

struct xalloc_arena *xalloc_arena_adopt(void *memory, size_t size)
{
	struct xl_process *p = xl_process_get();
	uintptr_t first, end, address = (uintptr_t)memory;
	struct xalloc_arena *arena;
	int ret;

	if (!p)
		return NULL;
	if (__builtin_add_overflow(address, size, &end) ||
	    __builtin_add_overflow(address, XL_SLICE - 1, &first) ||
	    (address < xl_map.base + xl_map.bytes && end > xl_map.base)) {
		errno = EINVAL;
		return NULL;
	}
	first &= ~(XL_SLICE - 1);
	end &= ~(XL_SLICE - 1);
	if (!memory || first >= end) {
		errno = EINVAL;
		return NULL;
	}
	pthread_mutex_lock(&p->lock);
	arena = arena_get(p);
	if (arena) {
		arena->adopted = true;
		arena->backend = &xl_adopted_backend;
		arena->blocks = (struct iovec){ (void *)first, end - first };
		arena->bytes = xl_round_up(end - (first & ~(XL_SEGMENT - 1)), XL_SEGMENT);
		arena->limit_bytes = arena->bytes;
		ret = xl_local_adopt(arena);
		if (!ret)
			ret = place_or_destroy(p, arena);
		if (ret)
			arena = arena_put(arena, ret);
	}
	pthread_mutex_unlock(&p->lock);
	return arena;
}

/* In a child of fork() an arena of the parent reads as zero: not alive. */
static bool is_alive(const struct xalloc_arena *arena)
{
	return atomic_load(&arena->alive);
}

int xalloc_arena_destroy(struct xalloc_arena *arena)
{
	struct xl_process *p = xl_process_peek();
	struct xl_list *pos;
	int ret = 0;

	if (!p)
		return -ESTALE;
	/* Destroying waits until every hook has returned. */
	if (xl_in_hook())
		return -EDEADLK;
	pthread_mutex_lock(&p->lock);
	if (!is_alive(arena))
		ret = -ESTALE;
	else if (arena == p->default_arena)
		ret = -EBUSY;
	else
		atomic_store(&arena->alive, false);
	pthread_mutex_unlock(&p->lock);
	if (ret)
		return ret;
	xl_hooks_leave(arena);
	pthread_mutex_lock(&p->lock);
	if (arena->persists) {
		for (pos = arena->heaps.next; pos != &arena->heaps; pos = pos->next)
			xl_heap_trim(xl_entry(pos, struct xalloc_heap, link));
		arena->leaving = true;
	}
	while ((pos = arena->heaps.next) != &arena->heaps) {
		struct xalloc_heap *heap = xl_entry(pos, struct xalloc_heap, link);

		if (xl_checks)
			xl_checks_heap_gone(heap);
		xl_heap_destroy(heap);
	}
	if (!arena->adopted)
		xl_os_unmap((void *)arena->base, arena->bytes);
	xl_zone_leave(arena);
	arena->backend->destroy(arena);
	xl_list_del(&arena->link);
	xl_meta_put(XL_POOL_ARENA, arena);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

int xalloc_arena_fd(const struct xalloc_arena *arena)
{
	return is_alive(arena) ? arena->fd : -ESTALE;
}

int xalloc_arena_range(const struct xalloc_arena *arena, struct iovec *range)
{
	if (!is_alive(arena))
		return -ESTALE;
	*range = arena->blocks;
	return 0;
}
