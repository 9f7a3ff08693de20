// SPDX-License-Identifier: MIT
/*
 * Hooks: what the program wants to be told of the chunks of an arena.
 *
 * Hooks are called without a lock. Each call is for one chunk and one hook: the bit of the hook in
 * chunk->told says whether the hook knows the chunk, and it changes under the lock before the call.
 * So no chunk is told twice, whatever other threads do meanwhile. These rules keep memory from
 * being freed too early:
 *
 *	A chunk is freed when chunk->told and chunk->nr_calls are zero.
 *	A hook is freed when no chunk has its bit and hook->nr_calls is zero.
 *	A chunk becomes READY when each hook that is not leaving knows it.
 */
#include <errno.h>

#include "hook.h"
#include "os.h"

/* A call of a hook in progress. The thread that makes it has it on its stack. */
struct call {
	struct call *outer; /* the call whose hook has led to this one, or NULL */
	struct xl_chunks *chunks;
	struct xl_chunk *chunk;
	struct xalloc_hook *hook;
};

/* The innermost call of this thread, or NULL. */
static __thread struct call *calls __attribute__((tls_model("initial-exec")));

const void *xl_hook_self(void)
{
	return &calls;
}

bool xl_in_hook(void)
{
	return calls;
}

static size_t cookies_bytes(const struct xalloc_arena *arena)
{
	return arena->bytes / XL_SEGMENT * sizeof(uintptr_t);
}

/* --- calls */

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

static void set_cookie(struct xalloc_hook *hook, const struct xl_chunk *chunk, void *cookie)
{
	uint32_t i;

	for (i = chunk->first; i < chunk->first + chunk->nr; i++)
		atomic_store_explicit(&hook->cookies[i], (uintptr_t)cookie, memory_order_release);
}

static void *address_of(const struct xalloc_hook *hook, const struct xl_chunk *chunk)
{
	return (void *)(hook->arena->base + chunk->first * XL_SEGMENT);
}

int xl_hook_tell_added(struct xl_chunks *c, struct xl_chunk *chunk, struct xalloc_hook *hook)
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

void xl_hook_tell_removed(struct xl_chunks *c, struct xl_chunk *chunk, struct xalloc_hook *hook)
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

struct xalloc_hook *xl_hook_untold(const struct xl_chunks *c, const struct xl_chunk *chunk)
{
	struct xl_list *pos;

	for (pos = c->hooks.next; pos != &c->hooks; pos = pos->next) {
		struct xalloc_hook *hook = xl_entry(pos, struct xalloc_hook, link);

		if (!hook->leaves && !(chunk->told & 1U << hook->slot))
			return hook;
	}
	return NULL;
}

struct xalloc_hook *xl_hook_told(const struct xl_chunks *c, const struct xl_chunk *chunk)
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
static struct xl_chunk *first_unknown(struct xl_chunks *c, const struct xalloc_hook *hook)
{
	struct xl_list *pos;

	for (pos = c->list.next; pos != &c->list; pos = pos->next) {
		struct xl_chunk *chunk = xl_entry(pos, struct xl_chunk, link);

		if (chunk->state == XL_READY && !(chunk->told & 1U << hook->slot))
			return chunk;
	}
	return NULL;
}

/* The last chunk that @hook knows, or NULL. */
static struct xl_chunk *last_known(struct xl_chunks *c, const struct xalloc_hook *hook)
{
	struct xl_list *pos;

	for (pos = c->list.prev; pos != &c->list; pos = pos->prev) {
		struct xl_chunk *chunk = xl_entry(pos, struct xl_chunk, link);

		if (chunk->told & 1U << hook->slot)
			return chunk;
	}
	return NULL;
}

void xl_hooks_recover(struct xl_chunks *c)
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
		xl_entry(pos, struct xl_chunk, link)->nr_calls = 0;
		xl_entry(pos, struct xl_chunk, link)->told &= slots;
	}
	for (call = calls; call; call = call->outer) {
		if (call->chunks != c)
			continue;
		call->chunk->nr_calls++;
		call->hook->nr_calls++;
	}
}

/* --- hooks come and go */

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

static void free_hook(struct xalloc_hook *hook)
{
	xl_os_unmap(hook->cookies, cookies_bytes(hook->arena));
	hook->arena = NULL;
	xl_meta_put(XL_POOL_HOOK, hook);
}

/*
 * Withdraws all chunks from the hook, takes it out of the list and frees it. The lock is held
 * before and after, and released meanwhile.
 */
static void withdraw_hook(struct xl_chunks *c, struct xalloc_hook *hook)
{
	struct xl_chunk *chunk;

	hook->leaves = true;
	hook->changer = &calls;
	for (;;) {
		/* Other threads may be telling it of chunks that come or go. */
		while (hook->nr_calls)
			pthread_cond_wait(&c->changed, &c->lock);
		chunk = last_known(c, hook);
		if (!chunk)
			break;
		xl_hook_tell_removed(c, chunk, hook);
	}
	xl_list_del(&hook->link);
	free_hook(hook);
}

/* Tells the hook, which is new, of all chunks there are. Returns 0 or what the hook said. */
static int replay(struct xl_chunks *c, struct xalloc_hook *hook)
{
	struct xl_chunk *chunk;
	int ret;

	pthread_mutex_lock(&c->lock);
	ret = enter(c, hook);
	if (ret) {
		free_hook(hook);
	} else {
		while (!ret && (chunk = first_unknown(c, hook)))
			ret = xl_hook_tell_added(c, chunk, hook);
		if (ret)
			withdraw_hook(c, hook);
		else
			hook->changer = NULL;
	}
	pthread_mutex_unlock(&c->lock);
	return ret;
}

int xl_hook_add(struct xalloc_arena *arena, const struct xalloc_chunk_hook *config,
		struct xalloc_hook **hook)
{
	int ret, cancel;

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

void xl_hooks_leave(struct xalloc_arena *arena)
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
