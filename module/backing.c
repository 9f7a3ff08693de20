// SPDX-License-Identifier: GPL-2.0-only
/*
 * Backing: where the memory of segments comes from, which is the buddy allocator.
 *
 * A segment is one compound page of order 9, because that is what the page tables map
 * with one entry and what fast GUP pins with one reference. It is charged to the memcg
 * of the task that commits, zeroed, and of no movable kind, so that a long-term pin
 * need not migrate it first.
 */
#include <linux/gfp.h>
#include <linux/mm.h>

#include "internal.h"

static struct folio *backing_alloc(void)
{
	const gfp_t gfp = GFP_KERNEL_ACCOUNT | __GFP_COMP | __GFP_ZERO | __GFP_NOWARN;
	struct page *kpage;

	/* What the local node has at hand, then what compaction can make anywhere. */
	kpage = alloc_pages(gfp | __GFP_NORETRY | __GFP_THISNODE, XALLOC_SEGMENT_ORDER);
	if (!kpage)
		kpage = alloc_pages(gfp | __GFP_RETRY_MAYFAIL, XALLOC_SEGMENT_ORDER);
	if (!kpage)
		return NULL;
	xalloc_count(XALLOC_NR_SEGMENTS, 1);
	return page_folio(kpage);
}

static void backing_free(struct folio *folio)
{
	xalloc_count(XALLOC_NR_SEGMENTS, -1);
	folio_put(folio);
}

const struct xalloc_backing xalloc_backing_huge = {
	.alloc = backing_alloc,
	.free = backing_free,
};
EXPORT_SYMBOL_IF_KUNIT(xalloc_backing_huge);
