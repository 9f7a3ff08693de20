// SPDX-License-Identifier: GPL-2.0-only
/*
 * Backing: where the memory of segments comes from, and where it goes.
 *
 * Order 9, because that is what the page tables map with one entry and what fast GUP pins
 * with one reference; order 4 is the fallback, because fast GUP takes its slow path for
 * order 0 here. All of it is charged to the memcg of the arena's maker, zeroed, and of no
 * movable kind, so that a long-term pin need not migrate it first. Order 9 is first taken from the
 * pool (pool.c).
 *
 * One attempt is made for each order. An arena that was asked for on a node has its memory from
 * there, or, where a node is only preferred, from another. Otherwise the memory policy and the
 * cpuset of the task that commits decide, as for its other memory; mbind() of a mapping does not,
 * because a module cannot ask for that policy.
 *
 * The memory of an arena is page cache of the arena's inode: the kernel then counts it, and
 * everything works on it that works on a file. Two kinds of arenas have memory of no mapping
 * instead. Those of a family share one inode, whose page cache has room for one folio at each
 * offset. Those that nobody maps have no inode. Only mmap.c, which maps broken memory, also looks
 * at the kind.
 *
 * A segment has a reference to each of its folios. That one keeps the folio whole and in its
 * place: without it, the kernel would split the folio, or evict it, on the word of any user.
 * Page cache has references of its own, one for each kpage.
 *
 * A folio is up to date while a slice of it is granted. The kernel maps what it finds up to date
 * in page cache, with the folio locked, and nothing else. So ungranting, then locking and unlocking
 * the folio, keeps it from being mapped, by xalloc and by the kernel.
 */
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/page-flags.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>

#include "internal.h"

/*
 * How hard to try. An order-9 folio is had at once or not: what compaction makes of the
 * memory nearby is taken, but nothing is reclaimed over and over for it.
 */
static const gfp_t huge_gfp = GFP_USER | __GFP_ZERO | __GFP_NOWARN | __GFP_NORETRY;
static const gfp_t piece_gfp = GFP_USER | __GFP_ZERO | __GFP_NOWARN | __GFP_RETRY_MAYFAIL;

static gfp_t gfp_of(unsigned int order)
{
	return order == XALLOC_SEGMENT_ORDER ? huge_gfp : piece_gfp;
}

/* Whether an arena has page cache. Its XArray takes large folios only with this option. */
static bool is_cached(const struct xalloc_arena *arena)
{
	return IS_ENABLED(CONFIG_XARRAY_MULTI) && arena->mapping && !arena->family;
}

/* filemap_add_folio() charges memory of the page cache; other memory is charged here. */
static struct folio *alloc_charged(const struct xalloc_arena *arena, unsigned int order)
{
	bool by_task = arena->node == NUMA_NO_NODE;
	gfp_t gfp = gfp_of(order);
	struct page *kpage;

	/* Where a node is only preferred, the next one does. */
	if (!by_task && arena->policy != XALLOC_POLICY_HUGE_PREFERRED)
		gfp |= __GFP_THISNODE;
	if (is_cached(arena))
		return by_task ? folio_alloc(gfp, order) :
				 __folio_alloc_node(gfp, order, arena->node);
	/* Not large-rmappable: the kernel would split such a folio by its mapping, and has none. */
	gfp |= __GFP_ACCOUNT | __GFP_COMP;
	kpage = by_task ? alloc_pages(gfp, order) : alloc_pages_node(arena->node, gfp, order);
	return kpage ? page_folio(kpage) : NULL;
}

/* Puts a folio at @index, in page cache or not. The core maps by 2 MiB only if the index fits. */
static int insert(const struct xalloc_arena *arena, struct folio *folio, pgoff_t index)
{
	int err;

	if (!is_cached(arena)) {
		/* A folio of the pool is large-rmappable, and this one must not be. */
		folio_clear_large_rmappable(folio);
		folio->index = index;
		return 0;
	}
	/* Charging the memcg reclaims as hard as allocating the memory did. */
	err = filemap_add_folio(arena->mapping, folio, index,
				gfp_of(folio_order(folio)) & ~__GFP_ZERO);
	if (!err)
		folio_unlock(folio);
	return err;
}

/* Whether a memcg limits what @memcg may use. */
static bool is_limited(struct mem_cgroup *memcg)
{
#ifdef CONFIG_MEMCG
	for (; memcg; memcg = parent_mem_cgroup(memcg))
		if (READ_ONCE(memcg->memory.max) != PAGE_COUNTER_MAX ||
		    READ_ONCE(memcg->memory.high) != PAGE_COUNTER_MAX)
			return true;
#endif
	return false;
}

/* A folio of the pool, inserted, or NULL. Outside of page cache it would lead around a limit. */
static struct folio *alloc_pooled(const struct xalloc_arena *arena, pgoff_t index)
{
	struct folio *folio = NULL;

	if (is_cached(arena) || !is_limited(arena->memcg))
		folio = xalloc_pool_take(arena);
	if (!folio || !insert(arena, folio, index))
		return folio;
	xalloc_pool_untake(folio);
	return NULL;
}

/* Sets @warm if nobody had to wait for memory to be zeroed. */
static struct folio *backing_alloc(const struct xalloc_arena *arena, unsigned int order,
				   pgoff_t index, bool *warm)
{
	struct mem_cgroup *old = set_active_memcg(arena->memcg);
	struct folio *folio = NULL;

	if (order == XALLOC_SEGMENT_ORDER)
		folio = alloc_pooled(arena, index);
	*warm = folio;
	if (!folio) {
		folio = alloc_charged(arena, order);
		if (folio && insert(arena, folio, index)) {
			folio_put(folio);
			folio = NULL;
		}
	}
	set_active_memcg(old);
	if (folio)
		xalloc_count(XALLOC_NR_COMMITTED_SLICES,
			     folio_nr_pages(folio) / XALLOC_SLICE_KPAGES);
	return folio;
}

/**
 * xalloc_backing_remove() - take a folio out of the page cache, if it is there
 * @folio: a folio of idle slices that is not mapped
 * @may_wait: whether to wait for others who have the folio locked
 *
 * Context: Process context, also while memory is reclaimed; sleeps only if @may_wait. Takes the
 * folio lock.
 * Return: false if somebody has the folio locked.
 */
bool xalloc_backing_remove(struct folio *folio, bool may_wait)
{
	if (!folio->mapping)
		return true;
	if (may_wait)
		folio_lock(folio);
	else if (!folio_trylock(folio))
		return false;
	/* The only exported function that removes one folio. It does not fail for regular files. */
	WARN_ON_ONCE(generic_error_remove_folio(folio->mapping, folio));
	folio_unlock(folio);
	return true;
}

/**
 * xalloc_backing_end() - take all folios of an arena out of the page cache
 * @arena: a dying arena without mappings
 *
 * Context: Process context, may sleep. The last step with arena->mapping.
 */
void xalloc_backing_end(struct xalloc_arena *arena)
{
	if (is_cached(arena))
		truncate_inode_pages(arena->mapping, 0);
}

/* The core finds folios by LRU lists and machine checks, but may not migrate or remove them. */
static int no_migrate(struct address_space *mapping, struct folio *to, struct folio *from,
		      enum migrate_mode mode)
{
	return -EBUSY;
}

static XALLOC_ERROR_REMOVE(no_error_remove)
{
	return -EBUSY;
}

static const struct address_space_operations mapping_ops = {
	.dirty_folio = noop_dirty_folio,
	.migrate_folio = no_migrate,
	.XALLOC_ERROR_REMOVE_OP = no_error_remove,
};

/**
 * xalloc_backing_is_unmovable() - whether a folio is unmovable memory of an arena
 * @folio: any folio, with a reference
 *
 * Also true for every unevictable folio outside of page cache: the kernel cannot move that one, and
 * an arena may have left it, broken or pinned.
 *
 * Context: Process context, may sleep. Takes the folio lock if the folio is unevictable.
 * Return: true if so.
 */
bool xalloc_backing_is_unmovable(struct folio *folio)
{
	bool is_unmovable;

	if (!folio_test_unevictable(folio) || folio_test_anon(folio))
		return false;
	folio_lock(folio);
	is_unmovable = !folio->mapping || folio->mapping->a_ops == &mapping_ops;
	folio_unlock(folio);
	return is_unmovable;
}

/**
 * xalloc_backing_init_inode() - prepare the page cache of an inode for an arena
 * @inode: a regular file
 */
void xalloc_backing_init_inode(struct inode *inode)
{
	inode->i_mapping->a_ops = &mapping_ops;
	mapping_set_large_folios(inode->i_mapping);
	mapping_set_unevictable(inode->i_mapping);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_backing_init_inode);

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
	/* Read the size once: otherwise the compiler reads it again for each kpage. */
	struct page *kpage = folio_page(folio, 0), *end = kpage + folio_nr_pages(folio);

	if (!IS_ENABLED(CONFIG_MEMORY_FAILURE))
		return false;
	for (; kpage < end; kpage++)
		if (PageHWPoison(kpage))
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
	xalloc_backing_remove(folio, true);
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
