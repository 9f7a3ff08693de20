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

#define CHUNK_BYTES ((size_t)256 << 10)
#define CACHE_LINE 64

void *xl_meta_get(unsigned int pool, size_t bytes)
{
	struct xl_process *p = xl_process_peek();
	void *item;

	bytes = (bytes + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
	pthread_mutex_lock(&p->meta_lock);
	item = p->pools[pool];
	if (item) {
		p->pools[pool] = *(void **)item;
	} else {
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
