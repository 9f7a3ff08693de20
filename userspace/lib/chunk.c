// SPDX-License-Identifier: MIT
/*
 * Chunks: arenas whose memory is told to hooks before it is used.
 *
 * With a hook, the arena's own backend grants whole chunks alone. The backend here takes its place
 * and places pages in the chunks as the kernel would. A grant that finds no room says XL_ADD_CHUNK.
 * The caller then adds a chunk and tries again.
 *
 * A chunk goes ADDING -> READY -> REMOVING. Pages are placed in READY chunks only. Hooks are called
 * without a lock. Each call is for one chunk and one hook: the bit of the hook in chunk->told says
 * whether the hook knows the chunk, and it changes under the lock before the call. So no chunk is
 * told twice, whatever other threads do meanwhile. These rules keep the memory there:
 *
 *	A chunk is freed when chunk->told and chunk->nr_calls are zero.
 *	A hook is freed when no chunk has its bit and hook->nr_calls is zero.
 *	A chunk becomes READY when each hook that is not leaving knows it.
 */
#include <errno.h>
#include <string.h>

#include "placement.h"
#include "backend.h"
#include "chunk.h"
#include "os.h"
#include "zone.h"

/* One bit of chunk.told for each hook of an arena. */
#define NR_HOOKS_MAX 32

/* The first chunk of an arena that leaves the length of its chunks to the library, at most. */
#define FIRST_BYTES ((size_t)32 << 20)

enum state {
	ADDING,
	READY,
	REMOVING,
};

struct chunk {
	struct xl_list link; /* xl_chunks.list; its first word is xl_meta_put()'s */
	enum state state;
	const void *owner;  /* of a chunk that is not READY: the thread that adds or removes it */
	uint32_t first, nr; /* segments */
	uint32_t told;      /* bit n: the hook of slot n knows it */
	unsigned int nr_calls; /* of hooks, about this chunk, in progress */
	bool zero;             /* but for what is dirty */
	bool stays;            /* until the arena is destroyed */
	uint32_t nr_used;      /* slices */
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

/* A call of a hook in progress. The thread that makes it has it on its stack. */
struct call {
	struct call *outer; /* the hook of which has allocated or freed */
	struct xl_chunks *chunks;
	struct chunk *chunk;
	struct xalloc_hook *hook;
};

/*
 * The innermost call of this thread, or NULL. A thread in a hook waits for no other thread, which
 * may wait for it. The address of this variable names the thread.
 */
static __thread struct call *calls __attribute__((tls_model("initial-exec")));

/* What this thread's last grant that found no room saw and wanted: nr_changed, and slices. */
static __thread uint64_t nr_seen __attribute__((tls_model("initial-exec")));
static __thread uint32_t nr_wanted __attribute__((tls_model("initial-exec")));

/* @lock: see internal.h. */
struct xl_chunks {
	void *next_free; /* xl_meta_put() */
	pthread_mutex_t lock;
	pthread_mutex_t grant_lock;       /* before all others; not during a call of a hook */
	const struct xl_backend *backend; /* the arena's own */
	size_t bytes_max;                 /* of a chunk */
	size_t bytes;                     /* of all chunks */
	struct xl_list list;              /* chunks, by address */
	struct xl_list hooks;             /* in the order in which they were added */
	uint64_t nr_granted;              /* slices */
	unsigned int nr_changing;         /* threads in xl_chunk_add(), and chunks that go */
	uint64_t nr_changed;              /* chunks that came or went */
	pthread_cond_t changed;           /* or a call of a hook has ended */
	struct chunk *_Atomic *chunk_of;  /* of a segment; or NULL */
	uint32_t *dirty; /* of a segment: bit n: slice n was granted since the chunk was added */
};

static size_t chunk_of_bytes(const struct xalloc_arena *arena)
{
	return arena->bytes / XL_SEGMENT * sizeof(struct chunk *);
}

static size_t dirty_bytes(const struct xalloc_arena *arena)
{
	return arena->bytes / XL_SEGMENT * sizeof(uint32_t);
}

static size_t cookies_bytes(const struct xalloc_arena *arena)
{
	return arena->bytes / XL_SEGMENT * sizeof(uintptr_t);
}

static struct xalloc_range range_of(const struct chunk *chunk)
{
	return (struct xalloc_range){ chunk->first * XL_SEGMENT, chunk->nr * XL_SEGMENT };
}

static struct chunk *chunk_at(const struct xl_chunks *c, uint64_t offset)
{
	return atomic_load_explicit(&c->chunk_of[offset / XL_SEGMENT], memory_order_relaxed);
}

/* With the lock. The next chunk that begins in @segment or behind it, or NULL. */
static struct chunk *chunk_from(const struct xl_chunks *c, uint32_t segment)
{
	struct xl_list *pos;

	for (pos = c->list.next; pos != &c->list; pos = pos->next) {
		struct chunk *chunk = xl_entry(pos, struct chunk, link);

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
	uint32_t segment = slice / XALLOC_SLICES_PER_SEGMENT, mask;
	bool zero = true;

	for (; segment * XALLOC_SLICES_PER_SEGMENT < slice + nr_slices; segment++) {
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
		struct chunk *chunk = xl_entry(pos, struct chunk, link);

		if (chunk->state != READY)
			continue;
		ret = xalloc_placement_take(&chunk->placement, &request, &slice);
		if (ret == -ENOMEM)
			return ret;
		if (ret)
			continue;
		slice += chunk->first * XALLOC_SLICES_PER_SEGMENT;
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
	nr_seen = c->nr_changed;
	nr_wanted = nr_slices;
	pthread_mutex_unlock(&c->lock);
	return ret;
}

static int free_one(struct xl_chunks *c, const struct xalloc_range *page)
{
	struct chunk *chunk = chunk_at(c, page->offset);
	uint32_t nr_slices = page->bytes / XL_SLICE;
	int ret;

	ret = xalloc_placement_give(&chunk->placement,
				    page->offset / XL_SLICE -
					    chunk->first * XALLOC_SLICES_PER_SEGMENT,
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
		ret = free_one(arena->chunks, &pages[done]);
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
	struct xl_list *pos;

	while ((pos = c->list.next) != &c->list) {
		struct chunk *chunk = xl_entry(pos, struct chunk, link);

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
	.export = chunk_export,
};

/* --- calls of hooks; all with the lock, which they let go during the call */

static void begin_call(struct call *call)
{
	call->outer = calls;
	calls = call;
	call->chunk->nr_calls++;
	call->hook->nr_calls++;
	pthread_mutex_unlock(&call->chunks->lock);
}

static void end_call(struct call *call)
{
	pthread_mutex_lock(&call->chunks->lock);
	call->hook->nr_calls--;
	call->chunk->nr_calls--;
	calls = call->outer;
	pthread_cond_broadcast(&call->chunks->changed);
}

static void set_cookie(struct xalloc_hook *hook, const struct chunk *chunk, void *cookie)
{
	uint32_t i;

	for (i = chunk->first; i < chunk->first + chunk->nr; i++)
		atomic_store_explicit(&hook->cookies[i], (uintptr_t)cookie, memory_order_release);
}

static void *address_of(const struct xalloc_hook *hook, const struct chunk *chunk)
{
	return (void *)(hook->arena->base + chunk->first * XL_SEGMENT);
}

static int tell_added(struct xl_chunks *c, struct chunk *chunk, struct xalloc_hook *hook)
{
	struct call call = { .chunks = c, .chunk = chunk, .hook = hook };
	void *cookie = NULL;
	int ret = 0;

	chunk->told |= 1U << hook->slot;
	begin_call(&call);
	if (hook->config.added)
		ret = hook->config.added(hook->config.ctx, address_of(hook, chunk),
					 chunk->nr * XL_SEGMENT, &cookie);
	if (ret >= 0)
		set_cookie(hook, chunk, cookie);
	end_call(&call);
	if (ret < 0)
		chunk->told &= ~(1U << hook->slot);
	return ret < 0 ? ret : 0;
}

static void tell_removed(struct xl_chunks *c, struct chunk *chunk, struct xalloc_hook *hook)
{
	struct call call = { .chunks = c, .chunk = chunk, .hook = hook };
	uintptr_t cookie;

	chunk->told &= ~(1U << hook->slot);
	begin_call(&call);
	cookie = atomic_load_explicit(&hook->cookies[chunk->first], memory_order_relaxed);
	if (hook->config.removed)
		hook->config.removed(hook->config.ctx, address_of(hook, chunk),
				     chunk->nr * XL_SEGMENT, (void *)cookie);
	set_cookie(hook, chunk, NULL);
	end_call(&call);
}

/* The first hook that is to be told of @chunk, or NULL. */
static struct xalloc_hook *first_untold(struct xl_chunks *c, const struct chunk *chunk)
{
	struct xl_list *pos;

	for (pos = c->hooks.next; pos != &c->hooks; pos = pos->next) {
		struct xalloc_hook *hook = xl_entry(pos, struct xalloc_hook, link);

		if (!hook->leaves && !(chunk->told & 1U << hook->slot))
			return hook;
	}
	return NULL;
}

/* The last hook that knows @chunk, or NULL. */
static struct xalloc_hook *last_told(struct xl_chunks *c, const struct chunk *chunk)
{
	struct xl_list *pos;

	for (pos = c->hooks.prev; pos != &c->hooks; pos = pos->prev) {
		struct xalloc_hook *hook = xl_entry(pos, struct xalloc_hook, link);

		if (chunk->told & 1U << hook->slot)
			return hook;
	}
	return NULL;
}

/* A READY chunk that @hook is to be told of, or NULL. */
static struct chunk *first_unknown(struct xl_chunks *c, const struct xalloc_hook *hook)
{
	struct xl_list *pos;

	for (pos = c->list.next; pos != &c->list; pos = pos->next) {
		struct chunk *chunk = xl_entry(pos, struct chunk, link);

		if (chunk->state == READY && !(chunk->told & 1U << hook->slot))
			return chunk;
	}
	return NULL;
}

/* The last chunk that @hook knows, or NULL. */
static struct chunk *last_known(struct xl_chunks *c, const struct xalloc_hook *hook)
{
	struct xl_list *pos;

	for (pos = c->list.prev; pos != &c->list; pos = pos->prev) {
		struct chunk *chunk = xl_entry(pos, struct chunk, link);

		if (chunk->told & 1U << hook->slot)
			return chunk;
	}
	return NULL;
}

/* --- chunks come and go */

/* With the lock: in the list and in the table, or out of them. */
static void insert(struct xl_chunks *c, struct chunk *chunk)
{
	struct chunk *next = chunk_from(c, chunk->first);
	uint32_t i;

	xl_list_add_before(next ? &next->link : &c->list, &chunk->link);
	c->bytes += chunk->nr * XL_SEGMENT;
	for (i = chunk->first; i < chunk->first + chunk->nr; i++) {
		atomic_store_explicit(&c->chunk_of[i], chunk, memory_order_relaxed);
		c->dirty[i] = 0;
	}
}

static void take_out(struct xl_chunks *c, struct chunk *chunk)
{
	uint32_t i;

	xl_list_del(&chunk->link);
	c->bytes -= chunk->nr * XL_SEGMENT;
	for (i = chunk->first; i < chunk->first + chunk->nr; i++)
		atomic_store_explicit(&c->chunk_of[i], NULL, memory_order_relaxed);
}

/* With the lock, which it lets go. Withdraws a chunk without pages from all hooks, and frees it. */
static void withdraw_chunk(struct xalloc_arena *arena, struct chunk *chunk)
{
	struct xalloc_range range = range_of(chunk);
	struct xl_chunks *c = arena->chunks;
	struct xalloc_hook *hook;

	chunk->state = REMOVING;
	chunk->owner = &calls;
	while ((hook = last_told(c, chunk)))
		tell_removed(c, chunk, hook);
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

/* Has a chunk granted, where @grant says if that is said, and its tables mapped. */
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

/*
 * Fills in a chunk of @bytes. If that is refused, tries half of it and so on, down to @least. So
 * what is left of a limit is used, too. One thread at a time does so: else two of them might be
 * refused what one of them could have.
 */
static int obtain(struct xalloc_arena *arena, struct xl_grant *grant, size_t bytes, size_t least,
		  struct chunk *chunk)
{
	struct xl_chunks *c = arena->chunks;
	int ret;

	pthread_mutex_lock(&c->grant_lock);
	for (;;) {
		ret = grant_chunk(arena, grant, bytes);
		if (!ret || bytes <= least)
			break;
		bytes = xl_round_up(bytes / 2, XL_SEGMENT);
		if (bytes < least)
			bytes = least;
	}
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

/* Obtains a chunk and tells the hooks of it. @stays: see struct chunk; @by_hook: xl_chunk_add(). */
static int add(struct xalloc_arena *arena, struct xl_grant grant, size_t bytes, size_t least,
	       bool stays, bool *by_hook)
{
	struct chunk *chunk = xl_meta_get(XL_POOL_CHUNK, sizeof(*chunk));
	struct xl_chunks *c = arena->chunks;
	struct xalloc_hook *hook;
	int ret;

	if (!chunk)
		return -ENOMEM;
	memset(chunk, 0, sizeof(*chunk));
	chunk->owner = &calls;
	chunk->stays = stays;
	ret = obtain(arena, &grant, bytes, least, chunk);
	if (ret) {
		xl_meta_put(XL_POOL_CHUNK, chunk);
		return ret;
	}
	pthread_mutex_lock(&c->lock);
	while (!ret && (hook = first_untold(c, chunk)))
		ret = tell_added(c, chunk, hook);
	if (ret) {
		*by_hook = true;
		withdraw_chunk(arena, chunk);
	} else {
		chunk->state = READY;
	}
	pthread_mutex_unlock(&c->lock);
	return ret;
}

/* With the lock: as much as all chunks have, so that the arena doubles; within bounds. */
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
	uint64_t seen = nr_seen;
	size_t bytes, least;
	int ret = 0, cancel;
	bool is_late;

	/* The chunk would be ADDING for ever, or c->lock kept. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	*by_hook = false;
	pthread_mutex_lock(&c->lock);
	/* Another thread has added one meanwhile. */
	is_late = c->nr_changed != seen;
	c->nr_changing++;
	bytes = arena->chunk_bytes ? arena->chunk_bytes : next_bytes(c);
	least = arena->chunk_bytes ? bytes : xl_round_up(nr_wanted * XL_SLICE, XL_SEGMENT);
	if (bytes < least)
		bytes = least;
	pthread_mutex_unlock(&c->lock);
	if (!is_late)
		ret = add(arena, (struct xl_grant){ .at = false }, bytes, least, false, by_hook);
	pthread_mutex_lock(&c->lock);
	c->nr_changing--;
	c->nr_changed += !is_late && (!ret || *by_hook);
	pthread_cond_broadcast(&c->changed);
	if (ret < 0 && !*by_hook) {
		bool waits = c->nr_changing && !calls;

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

/* Forgets the calls that other threads were in, and the hooks that they were adding or removing. */
static void recover_calls(struct xl_chunks *c)
{
	struct xl_list *pos, *next;
	uint32_t slots = 0;
	struct call *call;

	for (pos = c->hooks.next; pos != &c->hooks; pos = next) {
		struct xalloc_hook *hook = xl_entry(pos, struct xalloc_hook, link);

		next = pos->next;
		hook->nr_calls = 0;
		if (hook->changer && hook->changer != &calls)
			xl_list_del(pos);
		else
			slots |= 1U << hook->slot;
	}
	for (pos = c->list.next; pos != &c->list; pos = pos->next) {
		xl_entry(pos, struct chunk, link)->nr_calls = 0;
		xl_entry(pos, struct chunk, link)->told &= slots;
	}
	for (call = calls; call; call = call->outer) {
		if (call->chunks != c)
			continue;
		call->chunk->nr_calls++;
		call->hook->nr_calls++;
	}
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
	recover_calls(c);
	for (pos = c->list.next; pos != &c->list; pos = next) {
		struct chunk *chunk = xl_entry(pos, struct chunk, link);
		struct xalloc_range range = range_of(chunk);

		next = pos->next;
		if (chunk->state == READY)
			continue;
		if (chunk->owner == &calls) {
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
	struct chunk *chunk;
	int cancel;

	if (!c)
		return;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&c->lock);
	while ((chunk = chunk_from(c, segment))) {
		segment = chunk->first + chunk->nr;
		if (chunk->state != READY || chunk->nr_used || chunk->nr_calls || chunk->stays)
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

bool xl_chunks_in_hook(void)
{
	return calls;
}

/* --- hooks */

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

/* use_chunks(), if need be, for a call of the program. Returns 0 or -errno. */
static int have_chunks(struct xalloc_arena *arena)
{
	struct xl_process *p = xl_process_peek();
	int ret = 0;

	if (!p || !atomic_load(&arena->alive))
		return -ESTALE;
	if (arena->adopted)
		return -EOPNOTSUPP;
	if (calls)
		return -EDEADLK;
	pthread_mutex_lock(&p->lock);
	if (!arena->chunks)
		ret = use_chunks(arena);
	pthread_mutex_unlock(&p->lock);
	return ret;
}

/*
 * Adds a chunk at @offset that stays, with the lock, which it lets go. Returns 0 also when another
 * thread may have added one there meanwhile.
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
	ret = add(arena, grant, bytes, bytes, true, &by_hook);
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

/* With the lock, which it lets go: adds what is missing of chunks between two offsets. */
static int commit_range(struct xalloc_arena *arena, uint64_t from, uint64_t end)
{
	struct xl_chunks *c = arena->chunks;
	int ret = 0;

	while (from < end && !ret) {
		struct chunk *chunk = chunk_at(c, from), *next;
		uint64_t to = from + c->bytes_max;

		if (chunk && chunk->state == READY) {
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
	int ret = have_chunks(arena), cancel;
	uint64_t end, unit;

	if (ret)
		return ret;
	if (!bytes)
		return -EINVAL;
	if (__builtin_add_overflow(offset, bytes, &end) || end > arena->bytes)
		return -ERANGE;
	unit = arena->chunk_bytes ? arena->chunk_bytes : XL_SEGMENT;
	end = xl_round_up(end, unit);
	if (end > arena->bytes)
		end = arena->bytes;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&arena->chunks->lock);
	ret = commit_range(arena, offset / unit * unit, end);
	pthread_mutex_unlock(&arena->chunks->lock);
	pthread_setcancelstate(cancel, NULL);
	return ret;
}

/* With the lock: gives the hook a slot and its place in the list. Returns 0 or -ENOSPC. */
static int enter(struct xl_chunks *c, struct xalloc_hook *hook)
{
	uint32_t slots = 0;
	struct xl_list *pos;

	for (pos = c->hooks.next; pos != &c->hooks; pos = pos->next)
		slots |= 1U << xl_entry(pos, struct xalloc_hook, link)->slot;
	if (!~slots)
		return -ENOSPC;
	hook->slot = __builtin_ctz(~slots);
	xl_list_add_before(&c->hooks, &hook->link);
	return 0;
}

/* With the lock. Withdraws all chunks from the hook, takes it out of the list and frees it. */
static void withdraw_hook(struct xl_chunks *c, struct xalloc_hook *hook)
{
	struct chunk *chunk;

	hook->leaves = true;
	hook->changer = &calls;
	for (;;) {
		/* Other threads may be telling it of chunks that come or go. */
		while (hook->nr_calls)
			pthread_cond_wait(&c->changed, &c->lock);
		chunk = last_known(c, hook);
		if (!chunk)
			break;
		tell_removed(c, chunk, hook);
	}
	xl_list_del(&hook->link);
	xl_os_unmap(hook->cookies, cookies_bytes(hook->arena));
	hook->arena = NULL;
	xl_meta_put(XL_POOL_HOOK, hook);
}

/* Tells the hook, which is new, of all chunks there are. Returns 0 or what the hook said. */
static int replay(struct xl_chunks *c, struct xalloc_hook *hook)
{
	struct chunk *chunk;
	int ret;

	pthread_mutex_lock(&c->lock);
	ret = enter(c, hook);
	if (ret) {
		xl_os_unmap(hook->cookies, cookies_bytes(hook->arena));
		xl_meta_put(XL_POOL_HOOK, hook);
	} else {
		while (!ret && (chunk = first_unknown(c, hook)))
			ret = tell_added(c, chunk, hook);
		if (ret)
			withdraw_hook(c, hook);
		else
			hook->changer = NULL;
	}
	pthread_mutex_unlock(&c->lock);
	return ret;
}

static int add_hook(struct xalloc_arena *arena, const struct xalloc_chunk_hook *config,
		    struct xalloc_hook **hook)
{
	int ret, cancel;

	if (!config || config->size != sizeof(*config))
		return -EINVAL;
	ret = have_chunks(arena);
	if (ret)
		return ret;
	*hook = xl_meta_get(XL_POOL_HOOK, sizeof(**hook));
	if (!*hook)
		return -ENOMEM;
	**hook = (struct xalloc_hook){
		.arena = arena,
		.config = *config,
		.changer = &calls,
		.cookies = xl_os_sparse(cookies_bytes(arena)),
	};
	if (!(*hook)->cookies) {
		xl_meta_put(XL_POOL_HOOK, *hook);
		return -ENOMEM;
	}
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	ret = replay(arena->chunks, *hook);
	pthread_setcancelstate(cancel, NULL);
	return ret;
}

struct xalloc_hook *xalloc_chunk_hook_add(struct xalloc_arena *arena,
					  const struct xalloc_chunk_hook *config)
{
	struct xalloc_hook *hook = NULL;
	int ret = add_hook(arena, config, &hook);

	if (!ret)
		return hook;
	errno = -ret;
	return NULL;
}

int xalloc_chunk_hook_remove(struct xalloc_hook *hook)
{
	struct xalloc_arena *arena = hook->arena;
	int cancel;

	/* In a child of fork() a hook of the parent reads as zero. */
	if (!arena || !atomic_load(&arena->alive))
		return -ESTALE;
	if (calls)
		return -EDEADLK;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&arena->chunks->lock);
	withdraw_hook(arena->chunks, hook);
	pthread_mutex_unlock(&arena->chunks->lock);
	pthread_setcancelstate(cancel, NULL);
	return 0;
}

void *xalloc_chunk_cookie(const struct xalloc_hook *hook, const void *ptr)
{
	const struct xalloc_arena *arena = hook->arena;
	size_t offset;

	if (!arena)
		return NULL;
	offset = (uintptr_t)ptr - arena->base;
	if (offset >= arena->bytes)
		return NULL;
	return (void *)atomic_load_explicit(&hook->cookies[offset / XL_SEGMENT],
					    memory_order_acquire);
}

void xl_chunks_leave(struct xalloc_arena *arena)
{
	struct xl_chunks *c = arena->chunks;
	int cancel;

	if (!c)
		return;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&c->lock);
	while (!xl_list_empty(&c->hooks))
		withdraw_hook(c, xl_entry(c->hooks.prev, struct xalloc_hook, link));
	pthread_mutex_unlock(&c->lock);
	pthread_setcancelstate(cancel, NULL);
}
