// SPDX-License-Identifier: MIT
/*
 * Private memory for metadata: pools of items of one type and size each.
 *
 * A pool keeps what was put into it for ever, so that a pointer to an item that was put
 * back points to an item of the same type.
 */
#include <errno.h>

#include "internal.h"
#include "os.h"

#define CHUNK_BYTES ((size_t)128 << 10)
#define CACHE_LINE 64
/* For what threads get with locks held, some hundred bytes at a time. */
#define READY_BYTES (CHUNK_BYTES / 2)
/* Placement gets a record and a node for each segment of a long run. */
#define SLICE_BYTES (2 * CACHE_LINE / (XL_SEGMENT / XL_SLICE))

/* Has @bytes in the spare chunk. Returns whether there is memory for them. */
static bool add_spare(struct xl_process *p, size_t bytes)
{
	struct iovec new = { .iov_len = xl_round_up(bytes, CHUNK_BYTES) }, old;

	new.iov_base = xl_os_private(new.iov_len);
	if (!new.iov_base)
		return false;
	old = new;
	pthread_mutex_lock(&p->meta_lock);
	/* Another thread may have been faster. */
	if (p->spare.iov_len < new.iov_len) {
		old = p->spare;
		p->spare = new;
		p->meta_bytes += new.iov_len - old.iov_len;
	}
	pthread_mutex_unlock(&p->meta_lock);
	if (old.iov_len)
		xl_os_unprivate(old.iov_base, old.iov_len);
	return true;
}

void xl_meta_ready(uint32_t nr_slices)
{
	struct xl_process *p = xl_process_peek();
	size_t bytes = READY_BYTES + nr_slices * SLICE_BYTES;

	if (p && atomic_load_explicit(&p->meta_bytes, memory_order_relaxed) < bytes)
		add_spare(p, bytes);
}

/* Of what no pool has had; NULL if that is too little. */
static void *cut(struct xl_process *p, size_t bytes, size_t alignment)
{
	size_t skip = -(uintptr_t)p->chunk.iov_base & (alignment - 1);
	void *item;

	if (p->chunk.iov_len < skip + bytes) {
		if (p->spare.iov_len < bytes)
			return NULL;
		skip = 0;
		p->chunk = p->spare;
		p->spare.iov_len = 0;
	}
	item = (char *)p->chunk.iov_base + skip;
	p->chunk.iov_base = (char *)item + bytes;
	p->chunk.iov_len -= skip + bytes;
	atomic_store_explicit(&p->meta_bytes, p->chunk.iov_len + p->spare.iov_len,
			      memory_order_relaxed);
	return item;
}

void *xl_meta_get(unsigned int pool, size_t bytes)
{
	/* Of pages there are so many that it counts what they take. */
	size_t alignment = pool <= XL_CLASS_LARGE ? XL_QUANTUM : CACHE_LINE;
	struct xl_process *p = xl_process_peek();
	void *item;

	bytes = xl_round_up(bytes, alignment);
	do {
		pthread_mutex_lock(&p->meta_lock);
		item = p->pools[pool];
		if (item)
			p->pools[pool] = *(void **)item;
		else
			item = cut(p, bytes, alignment);
		pthread_mutex_unlock(&p->meta_lock);
	} while (!item && add_spare(p, bytes));
	if (!item)
		errno = ENOMEM;
	return item;
}

void xl_meta_put(unsigned int pool, void *item)
{
	struct xl_process *p = xl_process_peek();

	pthread_mutex_lock(&p->meta_lock);
	*(void **)item = p->pools[pool];
	p->pools[pool] = item;
	pthread_mutex_unlock(&p->meta_lock);
}
