// SPDX-License-Identifier: MIT
/*
 * What a fork does to a program that the preload library gives its memory.
 *
 * The child goes on with copies of all blocks: the kernel copies the arenas (XALLOC_ARENA_FORK),
 * the fork itself the metadata, and anonymous memory on the local backend. So that nothing half
 * done is copied the forking thread holds all locks over it. Other threads, which the child does
 * not have, may be at work on their caches, without a lock: the child forgets these, and takes
 * what is free from the bits of live blocks alone, which are right at any moment. A block such a
 * thread was just about to return, or to free, may stay taken: one for each thread.
 */
#include <dlfcn.h>
#include <errno.h>

#include "backend.h"
#include "preload.h"

/* Calls @visit for each lock of @p and of what it has, in their order. */
static void each_lock(struct xl_process *p, int (*visit)(pthread_mutex_t *lock))
{
	struct xl_list *pos, *heap;

	visit(&p->lock);
	for (pos = p->arenas.next; pos != &p->arenas; pos = pos->next) {
		struct xalloc_arena *arena = xl_entry(pos, struct xalloc_arena, link);

		for (heap = arena->heaps.next; heap != &arena->heaps; heap = heap->next)
			visit(&xl_entry(heap, struct xalloc_heap, link)->lock);
	}
	for (pos = p->arenas.next; pos != &p->arenas; pos = pos->next)
		visit(&xl_entry(pos, struct xalloc_arena, link)->lock);
	visit(&p->trace_lock);
	visit(&p->meta_lock);
}

static void prepare(void)
{
	struct xl_process *p = xl_process_peek();

	if (!p)
		return;
	/* Then what this thread has cached is as free in the child as here. */
	xl_cache_flush(p);
	each_lock(p, pthread_mutex_lock);
}

static void parent(void)
{
	struct xl_process *p = xl_process_peek();

	if (p)
		each_lock(p, pthread_mutex_unlock);
}

static void child(void)
{
	struct xl_process *p = xl_process_peek();
	struct xl_list *pos;

	if (!p)
		return;
	each_lock(p, pthread_mutex_unlock);
	xl_os_barrier_init();
	xl_caches_recover(p);
	for (pos = p->arenas.next; pos != &p->arenas; pos = pos->next) {
		struct xalloc_arena *arena = xl_entry(pos, struct xalloc_arena, link);

		if (arena->backend->fork_child)
			arena->backend->fork_child(arena);
	}
}

int xl_fork_init(void)
{
	return -pthread_atfork(prepare, parent, child);
}

/*
 * Has memory ready for a child's copy of every arena, or gives it back. Returns 0 or -errno, then
 * of *@refused.
 */
static int prepare_arenas(struct xl_process *p, bool cancel, struct xalloc_arena **refused)
{
	struct xl_list *pos;
	int ret = 0;

	pthread_mutex_lock(&p->lock);
	for (pos = p->arenas.next; pos != &p->arenas && !ret; pos = pos->next) {
		*refused = xl_entry(pos, struct xalloc_arena, link);
		if ((*refused)->backend->fork_prepare)
			ret = (*refused)->backend->fork_prepare(*refused, cancel);
	}
	pthread_mutex_unlock(&p->lock);
	return ret;
}

/* Whether a child can have its copies; if not, errno says why. */
static bool can_fork(struct xl_process *p)
{
	struct xalloc_arena *refused;
	struct xl_backend_stat stat;
	int ret = prepare_arenas(p, false, &refused);

	if (!ret)
		return true;
	/* What is kept without need would be copied too. */
	xl_arenas_trim(NULL);
	ret = prepare_arenas(p, false, &refused);
	if (!ret)
		return true;
	if (!refused->backend->stat(refused, &stat))
		xl_arena_refused(refused, stat.committed_bytes, -ret);
	prepare_arenas(p, true, &refused);
	errno = ENOMEM;
	return false;
}

/* As the one of libc, which cannot tell that there is no memory for the copies of arenas. */
XL_EXPORT pid_t fork(void)
{
	static pid_t (*_Atomic next)(void);
	struct xl_process *p = xl_process_peek();
	pid_t pid;

	if (!next)
		next = (pid_t(*)(void))dlsym(RTLD_NEXT, "fork");
	if (p && !can_fork(p))
		return -1;
	pid = next();
	if (pid < 0 && p) {
		struct xalloc_arena *ignored;
		int error = errno;

		prepare_arenas(p, true, &ignored);
		errno = error;
	}
	return pid;
}
