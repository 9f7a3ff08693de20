// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory offlining: refuses it for a block that has memory of an arena.
 *
 * The kernel tries to move page cache until it succeeds or a signal comes. The memory of an arena
 * cannot be moved. Therefore the module tells the kernel at once that the block is busy. The same
 * goes for folios that a dead arena has left, broken or pinned. For other memory outside of page
 * cache, the kernel sees by itself that it cannot move that memory.
 */
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/notifier.h>

#include "internal.h"

/* Whether a kpage cannot be moved. Sets @nr to the number of kpages up to the next folio. */
static bool is_unmovable(struct page *kpage, unsigned long *nr)
{
	struct folio *folio = page_folio(kpage);
	bool unmovable = false;

	*nr = 1;
	if (!folio_try_get(folio))
		return false;
	/* A kpage may leave its folio while nobody has a reference: check again. */
	if (page_folio(kpage) == folio) {
		unmovable = xalloc_backing_is_unmovable(folio);
		*nr = folio_nr_pages(folio) - folio_page_idx(folio, kpage);
	}
	folio_put(folio);
	return unmovable;
}

static int memory_changes(struct notifier_block *block, unsigned long action, void *data)
{
	const struct memory_notify *range = data;
	unsigned long pfn, nr;
	struct page *kpage;

	if (action != MEM_GOING_OFFLINE)
		return NOTIFY_OK;
	for (pfn = range->start_pfn; pfn < range->start_pfn + range->nr_pages; pfn += nr) {
		nr = 1;
		kpage = pfn_to_online_page(pfn);
		if (kpage && is_unmovable(kpage, &nr))
			return notifier_from_errno(-EBUSY);
		cond_resched();
	}
	return NOTIFY_OK;
}

static struct notifier_block notifier = {
	.notifier_call = memory_changes,
};

/**
 * xalloc_offline_init() - be asked before memory goes offline
 * Return: 0 or -errno.
 */
int xalloc_offline_init(void)
{
	return register_memory_notifier(&notifier);
}

/** xalloc_offline_fini() - be asked no more */
void xalloc_offline_fini(void)
{
	unregister_memory_notifier(&notifier);
}
