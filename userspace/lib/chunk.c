// SPDX-License-Identifier: MIT
/*
 * Chunks: arenas whose memory is told to a hook before it is used.
 *
 * With a hook, an arena's own backend grants whole chunks alone, and this one, in its place, places
 * pages in them as the kernel would. A grant that finds no room says XL_ADD_CHUNK,
 * and who allocates adds a chunk and tries again.
 *
 * A chunk goes NONE -> ADDING -> READY -> REMOVING -> NONE. Pages are placed in READY ones; the
 * hook is called without the lock in the two states between.
 */
#include <errno.h>
#include <string.h>

#include "placement.h"
#include "backend.h"
#include "chunk.h"
#include "os.h"
#include "zone.h"

enum state {
	NONE,
	ADDING,
	READY,
	REMOVING,
};

struct chunk {
	enum state state;
	const bool *in_hook; /* of the thread that adds or removes it */
	bool zero;           /* but for what is dirty */
	uint32_t nr_used;    /* slices */
	struct xalloc_placement placement;
};

/* This thread is in a hook: what it waits for may be itself. */
static __thread bool in_hook __attribute__((tls_model("initial-exec")));

/* nr_changed when this thread's last grant found no room. */
static __thread uint64_t nr_seen __attribute__((tls_model("initial-exec")));

/* @lock: see internal.h. */
struct xl_chunks {
	void *next_free; /* xl_meta_put() */
	pthread_mutex_t lock;
	const struct xl_backend *backend; /* the arena's own */
	int (*on_add)(void *ctx, void *address, size_t bytes);
	void (*on_remove)(void *ctx, void *address, size_t bytes);
	void *ctx;
	uint64_t nr_granted;      /* slices */
	unsigned int nr_changing; /* threads in xl_chunk_add(), and chunks that go */
	uint64_t nr_changed;      /* chunks that came or went */
	pthread_cond_t changed;
	uint32_t nr;
	struct chunk *chunks;
	uint32_t *dirty; /* of a segment: bit n: slice n was granted since the chunk was added */
};

static size_t chunks_bytes(const struct xalloc_arena *arena)
{
	return arena->bytes / arena->chunk_bytes * sizeof(struct chunk);
}

static size_t dirty_bytes(const struct xalloc_arena *arena)
{
	return arena->bytes / XL_SEGMENT * sizeof(uint32_t);
}

static struct xalloc_range range_of(const struct xalloc_arena *arena, uint32_t i)
{
	return (struct xalloc_range){ i * arena->chunk_bytes, arena->chunk_bytes };
}

static void *address_of(const struct xalloc_arena *arena, uint32_t i)
{
	return (void *)(arena->base + i * arena->chunk_bytes);
}

/* --- pages */

/* Returns whether they were zero. */
static bool mark_dirty(struct xl_chunks *c, uint32_t slice, uint32_t nr_slices)
{
	uint32_t segment = slice / XALLOC_SLICES_PER_SEGMENT, mask;
	bool zero = true;

	for (; segment * XALLOC_SLICES_PER_SEGMENT < slice + nr_slices; segment++) {
		mask = xalloc_placement_mask(segment, slice, nr_slices);
		zero = zero && !(c->dirty[segment] & mask);
		c->dirty[segment] |= mask;
	}
	return zero;
}

static int chunk_grant(struct xalloc_arena *arena, uint32_t nr_slices, uint64_t tag,
		       struct xl_grant *grant)
{
	struct xalloc_placement_request request = { .nr_slices = nr_slices };
	struct xl_chunks *c = arena->chunks;
	uint32_t i, slice = 0;
	int ret = -XL_ADD_CHUNK;

	(void)tag;
	if (grant->at)
		return -EOPNOTSUPP;
	if (nr_slices > arena->chunk_bytes / XL_SLICE)
		return -EFBIG;
	xl_meta_ready(nr_slices);
	pthread_mutex_lock(&c->lock);
	for (i = 0; i < c->nr; i++) {
		if (c->chunks[i].state != READY)
			continue;
		ret = xalloc_placement_take(&c->chunks[i].placement, &request, &slice);
		if (!ret || ret == -ENOMEM)
			break;
		ret = -XL_ADD_CHUNK;
	}
	if (!ret) {
		slice += i * (arena->chunk_bytes / XL_SLICE);
		c->chunks[i].nr_used += nr_slices;
		c->nr_granted += nr_slices;
		*grant = (struct xl_grant){
			.offset = slice * XL_SLICE,
			.zero = mark_dirty(c, slice, nr_slices) && c->chunks[i].zero,
		};
	}
	nr_seen = c->nr_changed;
	pthread_mutex_unlock(&c->lock);
	return ret;
}

static int free_one(struct xalloc_arena *arena, const struct xalloc_range *page)
{
	struct xl_chunks *c = arena->chunks;
	struct chunk *chunk = &c->chunks[page->offset / arena->chunk_bytes];
	uint32_t nr_slices = page->bytes / XL_SLICE;
	int ret;

	ret = xalloc_placement_give(&chunk->placement, page->offset % arena->chunk_bytes / XL_SLICE,
				    nr_slices);
	if (ret)
		return ret;
	chunk->nr_used -= nr_slices;
	c->nr_granted -= nr_slices;
	return 0;
}

static int chunk_free(struct xalloc_arena *arena, const struct xalloc_range *pages, uint32_t nr)
{
	uint32_t done = 0;
	int ret = 0;

	pthread_mutex_lock(&arena->chunks->lock);
	while (done < nr && !ret) {
		ret = free_one(arena, &pages[done]);
		done += !ret;
	}
	pthread_mutex_unlock(&arena->chunks->lock);
	return done ? (int)done : ret;
}

static int chunk_stat(struct xalloc_arena *arena, struct xalloc_arena_stat *stat)
{
	struct xl_chunks *c = arena->chunks;
	int ret = c->backend->stat(arena, stat);

	pthread_mutex_lock(&c->lock);
	stat->granted_bytes = c->nr_granted * XL_SLICE;
	pthread_mutex_unlock(&c->lock);
	return ret;
}

static int chunk_export(struct xalloc_arena *arena, uint64_t offset, uint64_t bytes)
{
	const struct xl_backend *backend = arena->chunks->backend;

	return backend->export ? backend->export(arena, offset, bytes) : -EOPNOTSUPP;
}

static int chunk_map(struct xalloc_arena *arena, uint64_t offset, size_t bytes)
{
	return arena->chunks->backend->map(arena, offset, bytes);
}

static void chunk_destroy(struct xalloc_arena *arena)
{
	struct xl_chunks *c = arena->chunks;
	uint32_t i;

	for (i = 0; i < c->nr; i++)
		if (c->chunks[i].state == READY)
			xalloc_placement_fini(&c->chunks[i].placement);
	xl_os_unmap(c->chunks, chunks_bytes(arena));
	xl_os_unmap(c->dirty, dirty_bytes(arena));
	c->backend->destroy(arena);
	xl_meta_put(XL_POOL_CHUNKS, c);
}

static const struct xl_backend chunk_backend = {
	.destroy = chunk_destroy,
	.map = chunk_map,
	.grant = chunk_grant,
	.free = chunk_free,
	.stat = chunk_stat,
	.export = chunk_export,
};

/* --- chunks come and go, without a lock */

static void set_state(struct xl_chunks *c, struct chunk *chunk, enum state state)
{
	pthread_mutex_lock(&c->lock);
	chunk->state = state;
	pthread_mutex_unlock(&c->lock);
}

static int call_on_add(struct xalloc_arena *arena, uint32_t i)
{
	struct xl_chunks *c = arena->chunks;
	bool outer = in_hook;
	int ret;

	if (!c->on_add)
		return 0;
	in_hook = true;
	ret = c->on_add(c->ctx, address_of(arena, i), arena->chunk_bytes);
	in_hook = outer;
	return ret;
}

static void call_on_remove(struct xalloc_arena *arena, uint32_t i)
{
	struct xl_chunks *c = arena->chunks;
	bool outer = in_hook;

	if (!c->on_remove)
		return;
	in_hook = true;
	c->on_remove(c->ctx, address_of(arena, i), arena->chunk_bytes);
	in_hook = outer;
}

static int add(struct xalloc_arena *arena, bool *by_hook)
{
	struct xl_chunks *c = arena->chunks;
	struct xalloc_range range;
	struct xl_grant grant = { .at = false };
	struct chunk *chunk;
	uint32_t i;
	int ret;

	ret = c->backend->grant(arena, arena->chunk_bytes / XL_SLICE, arena->chunk_bytes, &grant);
	if (ret < 0)
		return ret;
	range = (struct xalloc_range){ grant.offset, arena->chunk_bytes };
	i = grant.offset / arena->chunk_bytes;
	chunk = &c->chunks[i];
	ret = xl_zone_use(arena, range.offset, range.bytes);
	if (ret) {
		ret = -ENOMEM;
	} else if (grant.offset % arena->chunk_bytes) {
		/* Only where somebody else has pages in the arena. */
		ret = -ENOSPC;
	} else {
		chunk->in_hook = &in_hook;
		set_state(c, chunk, ADDING);
		ret = call_on_add(arena, i);
		*by_hook = ret < 0;
	}
	if (ret < 0) {
		if (chunk->state == ADDING)
			set_state(c, chunk, NONE);
		c->backend->free(arena, &range, 1);
		return ret;
	}
	xalloc_placement_init(&chunk->placement, arena->chunk_bytes / XL_SEGMENT);
	chunk->nr_used = 0;
	chunk->zero = grant.zero;
	memset(c->dirty + grant.offset / XL_SEGMENT, 0,
	       arena->chunk_bytes / XL_SEGMENT * sizeof(*c->dirty));
	set_state(c, chunk, READY);
	return 0;
}

int xl_chunk_add(struct xalloc_arena *arena, bool *by_hook)
{
	struct xl_chunks *c = arena->chunks;
	uint64_t seen = nr_seen;
	int ret, cancel;

	/* The chunk would be ADDING for ever, or c->lock kept. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&c->lock);
	c->nr_changing++;
	pthread_mutex_unlock(&c->lock);
	*by_hook = false;
	ret = add(arena, by_hook);
	pthread_mutex_lock(&c->lock);
	c->nr_changing--;
	c->nr_changed += !ret || *by_hook;
	pthread_cond_broadcast(&c->changed);
	if (ret < 0 && !*by_hook) {
		bool waits = c->nr_changing && !in_hook;

		/* Perhaps another thread has, or had, the memory: there is enough then. */
		while (waits && c->nr_changing && c->nr_changed == seen)
			pthread_cond_wait(&c->changed, &c->lock);
		if (waits || c->nr_changed != seen)
			ret = 0;
	}
	pthread_mutex_unlock(&c->lock);
	pthread_setcancelstate(cancel, NULL);
	return ret;
}

pthread_mutex_t *xl_chunks_lock(struct xl_chunks *c)
{
	return &c->lock;
}

void xl_chunks_recover(struct xalloc_arena *arena)
{
	struct xl_chunks *c = arena->chunks;
	uint32_t i;

	if (!c)
		return;
	/* Others may have been leaving it. */
	c->changed = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
	if (!c->nr_changing)
		return;
	c->nr_changing = 0;
	for (i = 0; i < c->nr; i++) {
		struct xalloc_range range = range_of(arena, i);
		struct chunk *chunk = &c->chunks[i];

		if (chunk->state != ADDING && chunk->state != REMOVING)
			continue;
		if (chunk->in_hook == &in_hook) {
			c->nr_changing++;
			continue;
		}
		chunk->state = NONE;
		c->backend->free(arena, &range, 1);
	}
}

void xl_chunks_trim(struct xalloc_arena *arena)
{
	struct xl_chunks *c = arena->chunks;
	uint32_t i;
	int cancel;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	for (i = 0; c && i < c->nr; i++) {
		struct xalloc_range range = range_of(arena, i);
		struct chunk *chunk = &c->chunks[i];
		bool idle;

		pthread_mutex_lock(&c->lock);
		idle = chunk->state == READY && !chunk->nr_used;
		if (idle) {
			chunk->state = REMOVING;
			chunk->in_hook = &in_hook;
			c->nr_changing++;
		}
		pthread_mutex_unlock(&c->lock);
		if (!idle)
			continue;
		call_on_remove(arena, i);
		xalloc_placement_fini(&chunk->placement);
		/* Before anybody can be granted it again. */
		set_state(c, chunk, NONE);
		c->backend->free(arena, &range, 1);
		pthread_mutex_lock(&c->lock);
		c->nr_changing--;
		c->nr_changed++;
		pthread_cond_broadcast(&c->changed);
		pthread_mutex_unlock(&c->lock);
	}
	pthread_setcancelstate(cancel, NULL);
}

/* Calls @on_remove for the first @nr chunks, as far as there are any. */
static void remove_first(struct xalloc_arena *arena, uint32_t nr,
			 void (*on_remove)(void *ctx, void *address, size_t bytes), void *ctx)
{
	uint32_t i;

	for (i = 0; on_remove && i < nr; i++)
		if (arena->chunks->chunks[i].state == READY)
			on_remove(ctx, address_of(arena, i), arena->chunk_bytes);
}

void xl_chunks_leave(struct xalloc_arena *arena)
{
	struct xl_chunks *c = arena->chunks;
	int cancel;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	if (c)
		remove_first(arena, c->nr, c->on_remove, c->ctx);
	pthread_setcancelstate(cancel, NULL);
}

/* --- the hook */

/* Puts chunks between an arena, in which nothing is granted, and its backend. */
static int use_chunks(struct xalloc_arena *arena)
{
	struct xalloc_arena_stat stat;
	struct xl_chunks *c;
	size_t bytes = arena->limit_bytes < XL_GIB ? arena->limit_bytes : XL_GIB;
	int ret;

	ret = arena->backend->stat(arena, &stat);
	if (ret < 0)
		return ret;
	if (stat.granted_bytes)
		return -EBUSY;
	c = xl_meta_get(XL_POOL_CHUNKS, sizeof(*c));
	if (!c)
		return -ENOMEM;
	memset(c, 0, sizeof(*c));
	if (!arena->chunk_bytes)
		arena->chunk_bytes = (size_t)1 << (63 - __builtin_clzll(bytes));
	c->backend = arena->backend;
	c->nr = arena->bytes / arena->chunk_bytes;
	c->chunks = xl_os_sparse(chunks_bytes(arena));
	c->dirty = xl_os_sparse(dirty_bytes(arena));
	if (!c->chunks || !c->dirty) {
		if (c->chunks)
			xl_os_unmap(c->chunks, chunks_bytes(arena));
		if (c->dirty)
			xl_os_unmap(c->dirty, dirty_bytes(arena));
		xl_meta_put(XL_POOL_CHUNKS, c);
		return -ENOMEM;
	}
	arena->chunks = c;
	arena->backend = &chunk_backend;
	return 0;
}

/* Tells the new hook of the chunks there are, and then the old one that they go. */
static int replace_hook(struct xalloc_arena *arena,
			int (*on_add)(void *ctx, void *address, size_t bytes),
			void (*on_remove)(void *ctx, void *address, size_t bytes), void *ctx)
{
	struct xl_chunks *c = arena->chunks;
	uint32_t i;
	int ret = 0;

	for (i = 0; on_add && i < c->nr && !ret; i++)
		if (c->chunks[i].state == READY)
			ret = on_add(ctx, address_of(arena, i), arena->chunk_bytes);
	if (ret < 0) {
		remove_first(arena, i - 1, on_remove, ctx);
		return ret;
	}
	remove_first(arena, c->nr, c->on_remove, c->ctx);
	c->on_add = on_add;
	c->on_remove = on_remove;
	c->ctx = ctx;
	return 0;
}

int xalloc_set_chunk_hook(struct xalloc_arena *arena,
			  int (*on_add)(void *ctx, void *address, size_t bytes),
			  void (*on_remove)(void *ctx, void *address, size_t bytes), void *ctx)
{
	struct xl_process *p = xl_process_peek();
	int ret = 0, cancel;

	if (!p || !atomic_load(&arena->alive))
		return -ESTALE;
	if (arena->adopted)
		return -EOPNOTSUPP;
	pthread_mutex_lock(&p->lock);
	if (!arena->chunks)
		ret = use_chunks(arena);
	pthread_mutex_unlock(&p->lock);
	if (ret)
		return ret;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	ret = replace_hook(arena, on_add, on_remove, ctx);
	pthread_setcancelstate(cancel, NULL);
	return ret;
}
