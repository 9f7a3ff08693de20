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

void *xl_meta_get(unsigned int pool, size_t bytes)
{
	struct xl_process *p = xl_process_peek();
	void *item;

	/* Of pages there are so many that it counts what they take. */
	if (pool <= XL_CLASS_LARGE)
		bytes = xl_round_up(bytes, XL_QUANTUM);
	else
		bytes = xl_round_up(bytes, CACHE_LINE);
	pthread_mutex_lock(&p->meta_lock);
	item = p->pools[pool];
	if (item) {
		p->pools[pool] = *(void **)item;
	} else {
		if (pool > XL_CLASS_LARGE) {
			p->chunk_bytes -= p->chunk_bytes % CACHE_LINE;
			p->chunk = (char *)xl_round_up((uintptr_t)p->chunk, CACHE_LINE);
		}
		if (p->chunk_bytes < bytes) {
			char *chunk = xl_os_private(CHUNK_BYTES);

			if (!chunk)
				goto out;
			p->chunk = chunk;
			p->chunk_bytes = CHUNK_BYTES;
		}
		item = p->chunk;
		p->chunk += bytes;
		p->chunk_bytes -= bytes;
	}
out:
	pthread_mutex_unlock(&p->meta_lock);
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
