// SPDX-License-Identifier: MIT
/*
 * What a fork does to a program that the preload library gives its memory.
 *
 * The child goes on with copies of all blocks: the kernel copies the arenas (XALLOC_ARENA_FORK),
 * the fork itself the metadata, and anonymous memory on the local backend. So that nothing half
 * done is copied the forking thread holds the locks over it. Other threads, which the child does
 * not have, may be at work on their caches, without a lock, or in depots: the child forgets these,
 * and all blocks are free that are not live, which their states say at any moment. A block such a
 * thread was just about to return, or to free, may stay taken: one for each thread. A chunk of
 * which such a thread was telling a hook goes back.
 */
#include <dlfcn.h>
#include <errno.h>
#include <sys/single_threaded.h>

#include "backend.h"
#include "cache.h"
#include "chunk.h"
#include "preload.h"
#include "zone.h"

/*
 * The process whose locks a fork that has begun holds, or NULL. A program with one thread needs
 * none, and may have interrupted itself with a signal, in the middle of a call.
 */
static struct xl_process *locked;

static pid_t (*next_fork)(void);

static void each_bin(struct xalloc_heap *heap, int (*visit)(pthread_mutex_t *lock))
{
	unsigned int cls;

	for (cls = 0; cls <= XL_CLASS_LARGE; cls++)
		visit(&xl_bin_of(heap, cls)->lock);
}

static void each_heap(struct xl_process *p, int (*visit)(pthread_mutex_t *lock))
{
	struct xl_list *pos, *heap;

	for (pos = p->arenas.next; pos != &p->arenas; pos = pos->next) {
		struct xalloc_arena *arena = xl_entry(pos, struct xalloc_arena, link);

		for (heap = arena->heaps.next; heap != &arena->heaps; heap = heap->next)
			each_bin(xl_entry(heap, struct xalloc_heap, link), visit);
	}
}

/* Locks 3 to 6, but for those of depots: who is in one has a cache, or holds lock 1. */
static void each_inner(struct xl_process *p, int (*visit)(pthread_mutex_t *lock))
{
	struct xl_list *pos;

	visit(xl_zone_lock());
	for (pos = p->arenas.next; pos != &p->arenas; pos = pos->next) {
		struct xalloc_arena *arena = xl_entry(pos, struct xalloc_arena, link);

		visit(&arena->lock);
		visit(&arena->shelf_lock);
		if (arena->chunks)
			visit(xl_chunks_lock(arena->chunks));
	}
	visit(&p->trace_lock);
	visit(&p->meta_lock);
}

static void unlock_all(bool in_child)
{
	each_inner(locked, pthread_mutex_unlock);
	each_heap(locked, pthread_mutex_unlock);
	/* glibc knows the writer by the number of its thread, which is another one in the child. */
	if (in_child)
		locked->flight =
			(pthread_rwlock_t)PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
	else
		pthread_rwlock_unlock(&locked->flight);
	pthread_mutex_unlock(&locked->lock);
	locked = NULL;
}

/*
 * Has memory ready for a child's copy of every arena, or gives it back. Returns 0 or -errno, then
 * of *@refused. With lock 1, if there are other threads.
 */
static int prepare_arenas(struct xl_process *p, bool cancel, struct xalloc_arena **refused)
{
	struct xl_list *pos;
	int ret = 0;

	for (pos = p->arenas.next; pos != &p->arenas && !ret; pos = pos->next) {
		*refused = xl_entry(pos, struct xalloc_arena, link);
		if ((*refused)->backend->fork_prepare)
			ret = (*refused)->backend->fork_prepare(*refused, cancel);
	}
	return ret;
}

static int prepare_locked(struct xl_process *p, bool cancel, struct xalloc_arena **refused)
{
	int ret;

	if (__libc_single_threaded)
		return prepare_arenas(p, cancel, refused);
	pthread_mutex_lock(&p->lock);
	ret = prepare_arenas(p, cancel, refused);
	pthread_mutex_unlock(&p->lock);
	return ret;
}

/* Called after the program's own handlers, which may allocate: see xl_fork_init(). */
static void prepare(void)
{
	struct xl_process *p = xl_process_peek();
	struct xalloc_arena *ignored;

	if (!p)
		return;
	if (!__libc_single_threaded) {
		_IO_list_lock();
		locked = p;
		pthread_mutex_lock(&p->lock);
		pthread_rwlock_wrlock(&p->flight);
		each_heap(p, pthread_mutex_lock);
	}
	/* For what was granted since the first time. Without it the child has what can be had. */
	prepare_arenas(p, false, &ignored);
	if (locked)
		each_inner(p, pthread_mutex_lock);
}

static void parent(void)
{
	if (!locked)
		return;
	unlock_all(false);
	_IO_list_unlock();
}

static void recover(struct xl_process *p)
{
	struct xl_list *pos;

	xl_caches_recover(p);
	for (pos = p->arenas.next; pos != &p->arenas; pos = pos->next)
		xl_chunks_recover(xl_entry(pos, struct xalloc_arena, link));
}

static void child(void)
{
	struct xl_process *p = xl_process_peek();
	bool had_threads = locked;
	struct xl_list *pos;

	if (!p)
		return;
	if (had_threads) {
		unlock_all(true);
		_IO_list_resetlock();
	}
	for (pos = p->arenas.next; pos != &p->arenas; pos = pos->next) {
		struct xalloc_arena *arena = xl_entry(pos, struct xalloc_arena, link);

		if (arena->backend->fork_child)
			arena->backend->fork_child(arena);
	}
	/* This may free memory of the arenas. */
	if (had_threads)
		recover(p);
}

/*
 * Before any other code of the program, -z initfirst sees to that: handlers that are registered
 * later are called outside of ours, where they may allocate.
 */
__attribute__((constructor)) int xl_fork_init(void)
{
	if (next_fork)
		return 0;
	next_fork = (pid_t(*)(void))dlsym(RTLD_NEXT, "fork");
	return -pthread_atfork(prepare, parent, child);
}

/* Whether a child can have its copies; if not, errno says why. */
static bool can_fork(struct xl_process *p)
{
	struct xalloc_arena *refused;
	struct xalloc_arena_stat stat;
	int ret = prepare_locked(p, false, &refused);

	if (!ret)
		return true;
	/*
	 * What is kept without need would be copied too. A program with one thread may have
	 * interrupted itself with a signal, and then its cache is not to be touched.
	 */
	if (!__libc_single_threaded) {
		xl_arenas_trim(NULL);
		ret = prepare_locked(p, false, &refused);
		if (!ret)
			return true;
	}
	if (!refused->backend->stat(refused, &stat))
		xl_arena_refused(refused, stat.committed_bytes, -ret, false);
	prepare_locked(p, true, &refused);
	errno = ENOMEM;
	return false;
}

/* As the one of libc, which cannot tell that there is no memory for the copies of arenas. */
XL_EXPORT pid_t fork(void)
{
	struct xl_process *p = xl_process_peek();
	pid_t pid;

	if (p && !can_fork(p))
		return -1;
	pid = next_fork();
	if (pid < 0 && p) {
		struct xalloc_arena *ignored;
		int error = errno;

		prepare_locked(p, true, &ignored);
		errno = error;
	}
	return pid;
}
