// SPDX-License-Identifier: MIT
/*
 * Depots: blocks on their way from the cache of one thread to that of another.
 *
 * A thread that frees what others allocated has more and more blocks, while the others run out of
 * them. Each way through the pages takes the lock of a bin, and for each block a look at the page,
 * its free map and its state. A depot, one for each class, takes them as they are: XL_KEPT, so that
 * their pages stay, and those that were freed twice are found as in a cache. The depot of magazines
 * in Solaris's kernel memory allocator is the model.
 *
 * What waits in a class that is not used any more waits until memory is wanted back, so it is
 * little: see xl_idle_most().
 */
#include <string.h>

#include "internal.h"

uint32_t xl_depot_count(const struct xl_process *p, unsigned int cls)
{
	return atomic_load_explicit(&p->depots[cls].nr, memory_order_relaxed);
}

uint32_t xl_depot_put(struct xl_process *p, unsigned int cls, const uintptr_t *entries, uint32_t nr)
{
	struct xl_depot *depot = &p->depots[cls];
	size_t bytes = xl_classes[cls].block_bytes;
	size_t all = atomic_load_explicit(&p->depot_bytes, memory_order_relaxed);
	uint32_t held;

	/* Nobody else takes them, or there are enough. Threads at once may put a little more. */
	if (atomic_load_explicit(&p->nr_caches, memory_order_relaxed) < 2 ||
	    all + nr * bytes > xl_idle_most(p))
		return 0;
	xl_os_lock(&depot->lock);
	held = xl_depot_count(p, cls);
	if (nr > XL_DEPOT_MAX - held)
		nr = XL_DEPOT_MAX - held;
	atomic_fetch_add_explicit(&p->depot_bytes, nr * bytes, memory_order_relaxed);
	memcpy(depot->entries + held, entries, nr * sizeof(*entries));
	atomic_store_explicit(&depot->nr, held + nr, memory_order_relaxed);
	pthread_mutex_unlock(&depot->lock);
	return nr;
}

uint32_t xl_depot_take(struct xl_process *p, unsigned int cls, uintptr_t *entries, uint32_t nr)
{
	struct xl_depot *depot = &p->depots[cls];
	uint32_t held;

	if (!xl_depot_count(p, cls))
		return 0;
	xl_os_lock(&depot->lock);
	held = xl_depot_count(p, cls);
	if (nr > held)
		nr = held;
	atomic_fetch_sub_explicit(&p->depot_bytes, nr * (size_t)xl_classes[cls].block_bytes,
				  memory_order_relaxed);
	memcpy(entries, depot->entries + held - nr, nr * sizeof(*entries));
	atomic_store_explicit(&depot->nr, held - nr, memory_order_relaxed);
	pthread_mutex_unlock(&depot->lock);
	return nr;
}

uintptr_t xl_depots_flush(struct xl_process *p)
{
	struct xalloc_heap *heap = atomic_load_explicit(&p->default_heap, memory_order_acquire);
	uintptr_t entries[XL_DEPOT_MAX], raced = 0;
	unsigned int cls;

	/* Without a default heap nothing was put there. */
	for (cls = 0; heap && cls < XL_NR_CACHED && !raced; cls++)
		raced = xl_heap_put(heap, cls, entries,
				    xl_depot_take(p, cls, entries, XL_DEPOT_MAX));
	return raced;
}

void xl_depots_forget(struct xl_process *p)
{
	static const struct xl_depot empty;
	struct xl_depot *depot = p->depots;

	atomic_store_explicit(&p->depot_bytes, 0, memory_order_relaxed);
	/* Another thread may have been at work in one. What was never used is not touched. */
	for (; depot < p->depots + XL_NR_CACHED; depot++)
		if (memcmp(depot, &empty, offsetof(struct xl_depot, entries)))
			memset(depot, 0, offsetof(struct xl_depot, entries));
}
