// SPDX-License-Identifier: MIT
/* Memory of arenas for others: handles, addresses, and dma-bufs. */
#include <errno.h>

#include "backend.h"

/* A verdict of XL_BLOCK or XL_INTERIOR; the bin is then locked. */
static bool find_live(const void *ptr, struct xl_where *where)
{
	enum xl_verdict verdict = xl_find(ptr, where);

	if (verdict == XL_BLOCK || verdict == XL_INTERIOR)
		return true;
	if (verdict <= XL_NO_BLOCK)
		xl_where_unlock(where);
	return false;
}

int xalloc_handle(const void *ptr, struct xalloc_block_handle *handle)
{
	struct xl_where where;

	if (!find_live(ptr, &where))
		return -ENOENT;
	handle->arena_id = where.heap->arena->id;
	handle->offset = (uintptr_t)ptr - (uintptr_t)where.heap->arena->blocks.iov_base;
	xl_where_unlock(&where);
	return 0;
}

void *xalloc_at(const struct xalloc_arena *arena, uint64_t offset)
{
	if (!atomic_load(&arena->alive)) {
		errno = ESTALE;
		return NULL;
	}
	if (offset >= arena->blocks.iov_len) {
		errno = ERANGE;
		return NULL;
	}
	return (char *)arena->blocks.iov_base + offset;
}

int xalloc_dmabuf(const void *ptr, size_t size, size_t *offset)
{
	struct xalloc_arena *arena;
	struct xl_where where;
	uint64_t first, end;
	bool fits;

	if (!size)
		return -EINVAL;
	if (!find_live(ptr, &where))
		return -ENOENT;
	arena = where.heap->arena;
	fits = size <= xl_block_bytes(&where) - where.inside;
	xl_where_unlock(&where);
	if (!fits)
		return -ERANGE;
	if (!arena->backend->export)
		return -EOPNOTSUPP;
	first = (uintptr_t)ptr - arena->base;
	end = xl_round_up(first + size, XL_SLICE);
	*offset = first % XL_SLICE;
	first -= *offset;
	atomic_store_explicit(&arena->has_exports, true, memory_order_relaxed);
	return arena->backend->export(arena, first, end - first);
}
