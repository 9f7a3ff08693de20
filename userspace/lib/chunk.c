// SPDX-License-Identifier: MIT
/*
 * Chunks: arenas whose memory is told to hooks before it is used.
 *
 * With a hook, the arena's own backend grants whole chunks alone. The backend here takes its place
 * and places pages in the chunks as the kernel would. A grant that finds no room returns
 * -XL_ADD_CHUNK. The caller then adds a chunk and tries again.
 *
 * A chunk goes ADDING -> READY -> REMOVING. Pages are placed in READY chunks only. hook.c says when
 * a chunk may become READY, and when it may be freed.
 */
#include <errno.h>
#include <string.h>

#include "backend.h"
#include "chunk.h"
#include "hook.h"
#include "os.h"
#include "zone.h"

/*
 * The length of the first chunk without chunk_bytes. The limit can make it smaller, and a large
 * block can make it larger.
 */
#define FIRST_BYTES ((size_t)32 << 20)

/* What a grant that finds no room needs: that nr_changed is another than @seen, or a chunk. */
struct need {
	uint64_t seen;
	uint32_t nr_slices;
};

/* Of this thread's last grant. */
static __thread struct need last_need __attribute__((tls_model("initial-exec")));

static size_t chunk_of_bytes(const struct xalloc_arena *arena)
{
	return arena->bytes / XL_SEGMENT * sizeof(struct xl_chunk *);
}

static size_t dirty_bytes(const struct xalloc_arena *arena)
{
	return arena->bytes / XL_SEGMENT * sizeof(uint32_t);
}

static struct xalloc_range range_of(const struct xl_chunk *chunk)
{
	return (struct xalloc_range){ chunk->first * XL_SEGMENT, chunk->nr * XL_SEGMENT };
}

static struct xl_chunk *chunk_at(const struct xl_chunks *c, uint64_t offset)
{
	return atomic_load_explicit(&c->chunk_of[offset / XL_SEGMENT], memory_order_relaxed);
}

/* With the lock. The next chunk that begins in @segment or behind it, or NULL. */
static struct xl_chunk *chunk_from(const struct xl_chunks *c, uint32_t segment)
{
	struct xl_list *pos;

	for (pos = c->list.next; pos != &c->list; pos = pos->next) {
		struct xl_chunk *chunk = xl_entry(pos, struct xl_chunk, link);

		if (chunk->first >= segment)
			return chunk;
	}
	return NULL;
}

bool xl_chunks_border(const struct xalloc_arena *arena, uint64_t offset)
{
	return arena->chunks &&
	       (!offset || chunk_at(arena->chunks, offset - 1) != chunk_at(arena->chunks, offset));
}

/* --- pages */

/* Returns whether they were zero. */
static bool mark_dirty(struct xl_chunks *c, uint32_t slice, uint32_t nr_slices)
{
	uint32_t segment = slice / XL_SEGMENT_SLICES, mask;
	bool zero = true;

	for (; segment * XL_SEGMENT_SLICES < slice + nr_slices; segment++) {
		mask = xalloc_placement_mask(segment, slice, nr_slices);
		zero = zero && !(c->dirty[segment] & mask);
		c->dirty[segment] |= mask;
	}
	return zero;
}

/* As backend->grant(), with the lock. */
static int grant_in(struct xl_chunks *c, uint32_t nr_slices, struct xl_grant *grant)
{
	struct xalloc_placement_request request = { .nr_slices = nr_slices };
	struct xl_list *pos;
	uint32_t slice = 0;
	int ret;

	for (pos = c->list.next; pos != &c->list; pos = pos->next) {
		struct xl_chunk *chunk = xl_entry(pos, struct xl_chunk, link);

		if (chunk->state != XL_READY)
			continue;
		ret = xalloc_placement_take(&chunk->placement, &request, &slice);
		if (ret == -ENOMEM)
			return ret;
		if (ret)
			continue;
		slice += chunk->first * XL_SEGMENT_SLICES;
		chunk->nr_used += nr_slices;
		c->nr_granted += nr_slices;
		*grant = (struct xl_grant){
			.offset = slice * XL_SLICE,
			.zero = mark_dirty(c, slice, nr_slices) && chunk->zero,
		};
		return 0;
	}
	return -XL_ADD_CHUNK;
}

static int chunk_grant(struct xalloc_arena *arena, uint32_t nr_slices, uint64_t tag,
		       struct xl_grant *grant)
{
	struct xl_chunks *c = arena->chunks;
	int ret;

	(void)tag;
	if (grant->at)
		return -EOPNOTSUPP;
	if (nr_slices > c->bytes_max / XL_SLICE)
		return -EFBIG;
	xl_meta_ready(nr_slices);
	pthread_mutex_lock(&c->lock);
	ret = grant_in(c, nr_slices, grant);
	last_need = (struct need){ .seen = c->nr_changed, .nr_slices = nr_slices };
	pthread_mutex_unlock(&c->lock);
	return ret;
}

static int free_one(struct xalloc_arena *arena, const struct xalloc_range *page)
{
	struct xl_chunks *c = arena->chunks;
	struct xl_chunk *chunk = chunk_at(c, page->offset);
	uint32_t nr_slices = page->bytes / XL_SLICE;
	int ret;

	/* It was granted at the moment when the arena got its first hook. */
	if (!chunk) {
		ret = c->backend->free(arena, page, 1);
		return ret < 0 ? ret : 0;
	}

	ret = xalloc_placement_give(&chunk->placement,
				    page->offset / XL_SLICE - chunk->first * XL_SEGMENT_SLICES,
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

static void chunk_trim(struct xalloc_arena *arena)
{
	const struct xl_backend *backend = arena->chunks->backend;

	if (backend->trim)
		backend->trim(arena);
}

static void chunk_destroy(struct xalloc_arena *arena)
{
	struct xl_chunks *c = arena->chunks;
	struct xl_list *pos;

	while ((pos = c->list.next) != &c->list) {
		struct xl_chunk *chunk = xl_entry(pos, struct xl_chunk, link);

		xl_list_del(pos);
		xalloc_placement_fini(&chunk->placement);
		xl_meta_put(XL_POOL_CHUNK, chunk);
	}
	xl_os_unmap((void *)c->chunk_of, chunk_of_bytes(arena));
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
	.trim = chunk_trim,
	.export = chunk_export,
};

/* --- chunks come and go */

/* With the lock: puts a chunk into the list and the table. */
static void insert(struct xl_chunks *c, struct xl_chunk *chunk)
{
	struct xl_chunk *next = chunk_from(c, chunk->first);
	uint32_t i;

	xl_list_add_before(next ? &next->link : &c->list, &chunk->link);
	c->bytes += chunk->nr * XL_SEGMENT;
	for (i = chunk->first; i < chunk->first + chunk->nr; i++) {
		atomic_store_explicit(&c->chunk_of[i], chunk, memory_order_relaxed);
		c->dirty[i] = 0;
	}
}

/* With the lock: takes it out of both. */
static void take_out(struct xl_chunks *c, struct xl_chunk *chunk)
{
	uint32_t i;

	xl_list_del(&chunk->link);
	c->bytes -= chunk->nr * XL_SEGMENT;
	for (i = chunk->first; i < chunk->first + chunk->nr; i++)
		atomic_store_explicit(&c->chunk_of[i], NULL, memory_order_relaxed);
}

/*
 * Withdraws a chunk without pages from all hooks, and frees it. The lock is held before and after,
 * and released meanwhile.
 */
static void withdraw_chunk(struct xalloc_arena *arena, struct xl_chunk *chunk)
{
	struct xalloc_range range = range_of(chunk);
	struct xl_chunks *c = arena->chunks;
	struct xalloc_hook *hook;

	chunk->state = XL_REMOVING;
	chunk->owner = xl_hook_self();
	while ((hook = xl_hook_told(c, chunk)))
		xl_hook_tell_removed(c, chunk, hook);
	/* Another thread may be removing a hook, and telling it of this chunk. */
	while (chunk->nr_calls)
		pthread_cond_wait(&c->changed, &c->lock);
	/* Before anybody can be granted it again. */
	take_out(c, chunk);
	pthread_mutex_unlock(&c->lock);
	xalloc_placement_fini(&chunk->placement);
	xl_meta_put(XL_POOL_CHUNK, chunk);
	c->backend->free(arena, &range, 1);
	pthread_mutex_lock(&c->lock);
}

/* Has the arena's own backend grant a chunk, at an offset if @grant->at, and maps its tables. */
static int grant_chunk(struct xalloc_arena *arena, struct xl_grant *grant, size_t bytes)
{
	size_t alignment = arena->chunk_bytes ? arena->chunk_bytes : XL_SEGMENT;
	struct xl_chunks *c = arena->chunks;
	struct xalloc_range range;
	int ret;

	ret = c->backend->grant(arena, bytes / XL_SLICE, bytes, grant);
	if (ret < 0)
		return ret;
	range = (struct xalloc_range){ grant->offset, bytes };
	if (xl_zone_use(arena, range.offset, range.bytes))
		ret = -ENOMEM;
	else if (range.offset % alignment)
		/* Only where somebody else has pages in the arena. */
		ret = -ENOSPC;
	else
		return 0;
	c->backend->free(arena, &range, 1);
	return ret;
}

/* With the lock: whether another thread is adding a chunk in which there will be room. */
static bool is_coming(const struct xl_chunks *c, uint32_t nr_slices)
{
	struct xl_list *pos;

	for (pos = c->list.next; pos != &c->list; pos = pos->next) {
		const struct xl_chunk *chunk = xl_entry(pos, struct xl_chunk, link);

		if (chunk->state == XL_ADDING &&
		    chunk->nr * XL_SEGMENT_SLICES - chunk->nr_claimed >= nr_slices)
			return true;
	}
	return false;
}

/*
 * Whether a grant that has found no room is to be tried again, or to wait for another thread's
 * chunk, rather than to add a chunk.
 */
static bool is_late(struct xl_chunks *c, const struct need *need)
{
	bool late;

	pthread_mutex_lock(&c->lock);
	late = c->nr_changed != need->seen || (!xl_in_hook() && is_coming(c, need->nr_slices));
	pthread_mutex_unlock(&c->lock);
	return late;
}

/*
 * As grant_chunk(). If *@bytes are refused, tries half, and so on, down to @least, so that the rest
 * of a limit is used.
 */
static int grant_largest(struct xalloc_arena *arena, struct xl_grant *grant, size_t *bytes,
			 size_t least)
{
	int ret = grant_chunk(arena, grant, *bytes);

	while (ret && *bytes > least) {
		*bytes = xl_round_up(*bytes / 2, XL_SEGMENT);
		if (*bytes < least)
			*bytes = least;
		ret = grant_chunk(arena, grant, *bytes);
	}
	return ret;
}

/*
 * Obtains memory for a chunk of @bytes, or at least of @least. One thread at a time does this;
 * otherwise two threads could both be refused memory that is enough for one, or each add a chunk
 * where one is enough. Returns -XL_ADD_CHUNK if there is another chunk for @need, which may be
 * NULL.
 */
static int obtain(struct xalloc_arena *arena, struct xl_grant *grant, size_t bytes, size_t least,
		  const struct need *need, struct xl_chunk *chunk)
{
	struct xl_chunks *c = arena->chunks;
	int ret = -XL_ADD_CHUNK;

	pthread_mutex_lock(&c->grant_lock);
	if (!need || !is_late(c, need))
		ret = grant_largest(arena, grant, &bytes, least);
	if (!ret) {
		chunk->first = grant->offset / XL_SEGMENT;
		chunk->nr = bytes / XL_SEGMENT;
		chunk->zero = grant->zero;
		xalloc_placement_init(&chunk->placement, chunk->nr);
		pthread_mutex_lock(&c->lock);
		insert(c, chunk);
		pthread_mutex_unlock(&c->lock);
	}
	pthread_mutex_unlock(&c->grant_lock);
	return ret;
}

/*
 * Obtains a chunk and tells the hooks of it. Without @need the chunk stays. @by_hook: see
 * xl_chunk_add().
 */
static int add(struct xalloc_arena *arena, struct xl_grant grant, size_t bytes, size_t least,
	       const struct need *need, bool *by_hook)
{
	struct xl_chunk *chunk = xl_meta_get(XL_POOL_CHUNK, sizeof(*chunk));
	struct xl_chunks *c = arena->chunks;
	struct xalloc_hook *hook;
	int ret;

	if (!chunk)
		return -ENOMEM;
	memset(chunk, 0, sizeof(*chunk));
	chunk->owner = xl_hook_self();
	chunk->stays = !need;
	chunk->nr_claimed = need ? need->nr_slices : 0;
	ret = obtain(arena, &grant, bytes, least, need, chunk);
	if (ret) {
		xl_meta_put(XL_POOL_CHUNK, chunk);
		return ret;
	}
	pthread_mutex_lock(&c->lock);
	while (!ret && (hook = xl_hook_untold(c, chunk)))
		ret = xl_hook_tell_added(c, chunk, hook);
	if (ret) {
		*by_hook = true;
		withdraw_chunk(arena, chunk);
	} else {
		chunk->state = XL_READY;
	}
	pthread_mutex_unlock(&c->lock);
	return ret;
}

/* With the lock: the sum of all chunks, rounded down to a power of two: so the arena doubles. */
static size_t next_bytes(const struct xl_chunks *c)
{
	size_t bytes = FIRST_BYTES;

	if (c->bytes > bytes)
		bytes = (size_t)1 << (63 - __builtin_clzll(c->bytes));
	return bytes < c->bytes_max ? bytes : c->bytes_max;
}

int xl_chunk_add(struct xalloc_arena *arena, bool *by_hook)
{
	struct xl_chunks *c = arena->chunks;
	struct need need = last_need;
	size_t bytes, least;
	int ret, cancel;

	/* The chunk would be ADDING for ever, or c->lock kept. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	*by_hook = false;
	pthread_mutex_lock(&c->lock);
	c->nr_changing++;
	bytes = arena->chunk_bytes ? arena->chunk_bytes : next_bytes(c);
	least = arena->chunk_bytes ? bytes : xl_round_up(need.nr_slices * XL_SLICE, XL_SEGMENT);
	if (bytes < least)
		bytes = least;
	pthread_mutex_unlock(&c->lock);
	ret = add(arena, (struct xl_grant){ .at = false }, bytes, least, &need, by_hook);
	pthread_mutex_lock(&c->lock);
	c->nr_changing--;
	c->nr_changed += !ret || *by_hook;
	pthread_cond_broadcast(&c->changed);
	if (ret == -XL_ADD_CHUNK) {
		while (c->nr_changed == need.seen && is_coming(c, need.nr_slices))
			pthread_cond_wait(&c->changed, &c->lock);
		ret = 0;
	} else if (ret < 0 && !*by_hook) {
		bool waits = c->nr_changing && !xl_in_hook();

		/* Perhaps another thread has, or had, the memory: there is enough then. */
		while (waits && c->nr_changing && c->nr_changed == need.seen)
			pthread_cond_wait(&c->changed, &c->lock);
		if (waits || c->nr_changed != need.seen)
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
	struct xl_list *pos, *next;

	if (!c)
		return;
	/* Others may have been leaving it. */
	c->changed = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
	c->grant_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	c->nr_changing = 0;
	xl_hooks_recover(c);
	for (pos = c->list.next; pos != &c->list; pos = next) {
		struct xl_chunk *chunk = xl_entry(pos, struct xl_chunk, link);
		struct xalloc_range range = range_of(chunk);

		next = pos->next;
		if (chunk->state == XL_READY)
			continue;
		if (chunk->owner == xl_hook_self()) {
			c->nr_changing++;
			continue;
		}
		take_out(c, chunk);
		/* If this thread is in a hook for it, the record is still needed. */
		if (!chunk->nr_calls)
			xl_meta_put(XL_POOL_CHUNK, chunk);
		c->backend->free(arena, &range, 1);
	}
}

void xl_chunks_trim(struct xalloc_arena *arena)
{
	struct xl_chunks *c = arena->chunks;
	uint32_t segment = 0;
	struct xl_chunk *chunk;
	int cancel;

	if (!c)
		return;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&c->lock);
	while ((chunk = chunk_from(c, segment))) {
		segment = chunk->first + chunk->nr;
		if (chunk->state != XL_READY || chunk->nr_used || chunk->nr_calls || chunk->stays)
			continue;
		c->nr_changing++;
		withdraw_chunk(arena, chunk);
		c->nr_changing--;
		c->nr_changed++;
		pthread_cond_broadcast(&c->changed);
	}
	pthread_mutex_unlock(&c->lock);
	pthread_setcancelstate(cancel, NULL);
}

/* --- calls of the program */

/* Puts chunks between an arena, in which nothing is granted, and its backend. */
static int use_chunks(struct xalloc_arena *arena)
{
	struct xalloc_arena_stat stat;
	struct xl_chunks *c;
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
	c->bytes_max = arena->limit_bytes < XL_GIB ? arena->limit_bytes : XL_GIB;
	if (arena->chunk_bytes)
		c->bytes_max = arena->chunk_bytes;
	xl_list_init(&c->list);
	xl_list_init(&c->hooks);
	c->backend = arena->backend;
	c->chunk_of = xl_os_sparse(chunk_of_bytes(arena));
	c->dirty = xl_os_sparse(dirty_bytes(arena));
	if (!c->chunk_of || !c->dirty) {
		if (c->chunk_of)
			xl_os_unmap((void *)c->chunk_of, chunk_of_bytes(arena));
		if (c->dirty)
			xl_os_unmap(c->dirty, dirty_bytes(arena));
		xl_meta_put(XL_POOL_CHUNKS, c);
		return -ENOMEM;
	}
	arena->chunks = c;
	arena->backend = &chunk_backend;
	return 0;
}

/* Makes the arena use chunks, if it does not yet. Returns 0 or -errno. */
static int have_chunks(struct xalloc_arena *arena)
{
	struct xl_process *p = xl_process_peek();
	int ret = 0;

	if (!p || !atomic_load(&arena->alive))
		return -ESTALE;
	if (arena->adopted)
		return -EOPNOTSUPP;
	if (xl_in_hook())
		return -EDEADLK;
	pthread_mutex_lock(&p->lock);
	if (!arena->chunks)
		ret = use_chunks(arena);
	pthread_mutex_unlock(&p->lock);
	return ret;
}

/*
 * Adds a chunk at @offset that stays. Also returns 0 when another thread may have added one there.
 * The lock is held before and after, and released meanwhile.
 */
static int commit_chunk(struct xalloc_arena *arena, uint64_t offset, size_t bytes)
{
	struct xl_grant grant = { .at = true, .offset = offset };
	struct xl_chunks *c = arena->chunks;
	uint64_t seen = c->nr_changed;
	bool by_hook = false, others;
	int ret;

	c->nr_changing++;
	pthread_mutex_unlock(&c->lock);
	ret = add(arena, grant, bytes, bytes, NULL, &by_hook);
	pthread_mutex_lock(&c->lock);
	c->nr_changing--;
	others = c->nr_changing || c->nr_changed != seen;
	c->nr_changed += !ret || by_hook;
	pthread_cond_broadcast(&c->changed);
	if (ret != -EEXIST || by_hook || !others)
		return ret;
	while (c->nr_changing && c->nr_changed == seen)
		pthread_cond_wait(&c->changed, &c->lock);
	return 0;
}

/* Adds the chunks that are missing between two offsets. The lock is released meanwhile. */
static int commit_range(struct xalloc_arena *arena, uint64_t from, uint64_t end)
{
	struct xl_chunks *c = arena->chunks;
	int ret = 0;

	while (from < end && !ret) {
		struct xl_chunk *chunk = chunk_at(c, from), *next;
		uint64_t to = from + c->bytes_max;

		if (chunk && chunk->state == XL_READY) {
			chunk->stays = true;
			from = (uint64_t)(chunk->first + chunk->nr) * XL_SEGMENT;
		} else if (chunk) {
			pthread_cond_wait(&c->changed, &c->lock);
		} else {
			next = chunk_from(c, from / XL_SEGMENT);
			if (next && to > next->first * XL_SEGMENT)
				to = next->first * XL_SEGMENT;
			ret = commit_chunk(arena, from, (to < end ? to : end) - from);
		}
	}
	return ret;
}

int xalloc_arena_commit(struct xalloc_arena *arena, uint64_t offset, size_t bytes)
{
	uint64_t unit = arena->chunk_bytes ? arena->chunk_bytes : XL_SEGMENT, end;
	int ret, cancel;

	if (!bytes)
		return -EINVAL;
	if (__builtin_add_overflow(offset, bytes, &end) || end > arena->bytes / unit * unit)
		return -ERANGE;
	end = xl_round_up(end, unit);
	ret = have_chunks(arena);
	if (ret)
		return ret;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&arena->chunks->lock);
	ret = commit_range(arena, offset / unit * unit, end);
	pthread_mutex_unlock(&arena->chunks->lock);
	pthread_setcancelstate(cancel, NULL);
	return ret;
}

struct xalloc_hook *xalloc_chunk_hook_add(struct xalloc_arena *arena,
					  const struct xalloc_chunk_hook *config)
{
	bool is_known = config && config->size == sizeof(*config);
	int ret = is_known ? have_chunks(arena) : -EINVAL;
	struct xalloc_hook *hook = NULL;

	if (!ret)
		ret = xl_hook_add(arena, config, &hook);
	if (!ret)
		return hook;
	errno = -ret;
	return NULL;
}
