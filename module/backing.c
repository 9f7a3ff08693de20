// SPDX-License-Identifier: GPL-2.0-only
/*
 * Backing: where the memory of segments comes from, and where it goes.
 *
 * Order 9, because that is what the page tables map with one entry and what fast GUP pins
 * with one reference; order 4 is the fallback, because fast GUP takes its slow path for
 * order 0 here. All of it is charged to the memcg of the arena's maker, zeroed, and of no
 * movable kind, so that a long-term pin need not migrate it first. An arena without a
 * memcg limit above it takes order 9 from the pool (pool.c) first, uncharged.
 */
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/page-flags.h>
#include <linux/sched/mm.h>

#include "internal.h"

/*
 * How hard to try. An order-9 folio is had at once or not: what compaction makes of the
 * memory nearby is taken, but nothing is reclaimed over and over for it. The nodes are those
 * that the cpuset of who commits has.
 */
static const gfp_t huge_gfp = GFP_USER | __GFP_ACCOUNT | __GFP_COMP | __GFP_ZERO | __GFP_NOWARN |
			      __GFP_NORETRY;
static const gfp_t piece_gfp = GFP_USER | __GFP_ACCOUNT | __GFP_COMP | __GFP_ZERO | __GFP_NOWARN |
			       __GFP_RETRY_MAYFAIL;

static struct page *alloc_charged(const struct xalloc_arena *arena, unsigned int order)
{
	gfp_t gfp = order == XALLOC_SEGMENT_ORDER ? huge_gfp : piece_gfp;
	int nid = arena->node == NUMA_NO_NODE ? numa_mem_id() : arena->node;
	struct mem_cgroup *old = set_active_memcg(arena->memcg);
	struct page *kpage;

	kpage = alloc_pages_node(nid, gfp | __GFP_THISNODE, order);
	/* Another node does where none was asked for, and where one was only preferred. */
	if (!kpage && (arena->node == NUMA_NO_NODE ||
		       arena->policy == XALLOC_POLICY_HUGE_PREFERRED))
		kpage = alloc_pages_node(nid, gfp, order);
	set_active_memcg(old);
	return kpage;
}

/* Sets @warm if nobody had to wait for memory to be zeroed. */
static struct folio *backing_alloc(const struct xalloc_arena *arena, unsigned int order,
				   bool *warm)
{
	struct folio *folio = NULL;
	struct page *kpage;

	if (order == XALLOC_SEGMENT_ORDER)
		folio = xalloc_pool_take(arena);
	*warm = folio;
	if (!folio) {
		kpage = alloc_charged(arena, order);
		if (!kpage)
			return NULL;
		folio = page_folio(kpage);
	}
	xalloc_count(XALLOC_NR_COMMITTED_SLICES, folio_nr_pages(folio) / XALLOC_SLICE_KPAGES);
	return folio;
}

/**
 * xalloc_backing_is_poisoned() - whether hardware has broken a part of a folio
 * @folio: the folio
 *
 * The kernel marks single kpages and tells nobody, so this looks at each kpage.
 *
 * Return: true if so.
 */
bool xalloc_backing_is_poisoned(struct folio *folio)
{
	unsigned long i;

	if (!IS_ENABLED(CONFIG_MEMORY_FAILURE))
		return false;
	for (i = 0; i < folio_nr_pages(folio); i++)
		if (PageHWPoison(folio_page(folio, i)))
			return true;
	return false;
}

/**
 * xalloc_backing_put() - drop a folio of nobody, to the kernel unless hardware has broken it
 * @folio: the folio, with the one reference that is dropped
 *
 * The buddy allocator would hand a broken kpage out again inside of a large one. What is
 * kept from it stays charged to its memcg.
 */
void xalloc_backing_put(struct folio *folio)
{
	if (xalloc_backing_is_poisoned(folio))
		xalloc_count(XALLOC_NR_POISONED_SLICES,
			     folio_nr_pages(folio) / XALLOC_SLICE_KPAGES);
	else
		folio_put(folio);
}

static void backing_free(struct folio *folio)
{
	xalloc_count(XALLOC_NR_COMMITTED_SLICES,
		     -(long)(folio_nr_pages(folio) / XALLOC_SLICE_KPAGES));
	xalloc_backing_put(folio);
}

static void backing_zero(struct folio *folio)
{
	folio_zero_range(folio, 0, folio_size(folio));
}

const struct xalloc_backing xalloc_backing_kernel = {
	.alloc = backing_alloc,
	.free = backing_free,
	.zero = backing_zero,
};
EXPORT_SYMBOL_IF_KUNIT(xalloc_backing_kernel);
