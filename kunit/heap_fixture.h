/* SPDX-License-Identifier: GPL-2.0-only */
/* The fixture of cases about heaps, beside that of fixture.h. */
#ifndef XALLOC_KUNIT_HEAP_FIXTURE_H
#define XALLOC_KUNIT_HEAP_FIXTURE_H

#include "../module/slab.h"
#include "fixture.h"

extern struct xalloc_heap *fx_heap;	/* of the case; cases run one after the other */

/* A block whose memory says whose it is, so that an overlap of any kind shows. */
struct fx_held {
	void *block;
	size_t bytes;
	u32 stamp;
};

static inline unsigned long fx_physical(const void *block)
{
	return (unsigned long)block - PAGE_OFFSET;
}

struct xalloc_heap *fx_make_heap(struct kunit *test, u32 nr_segments, bool mappable);
void fx_drop_heap(void);
void fx_heap_exit(struct kunit *test);
struct xalloc_heap_stat fx_heap_stat(struct xalloc_heap *heap);
void fx_stamp(const struct fx_held *held);
bool fx_has_stamp(const struct fx_held *held);

#endif /* XALLOC_KUNIT_HEAP_FIXTURE_H */
