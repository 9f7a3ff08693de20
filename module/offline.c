// SPDX-License-Identifier: GPL-2.0-only
/*
 * Offline: a block of memory that the machine is to lose, with memory of an arena in it.
 *
 * The kernel tries to move page cache until it succeeds or a signal comes. The memory of an arena
 * cannot be moved. Therefore the module tells the kernel at once that the block is busy. Memory in
 * no page cache needs no such answer: the kernel sees by itself that it cannot move that memory.
 */
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/notifier.h>

#include "internal.h"

/* Whether a kpage is in memory that cannot be moved. Sets @nr to how many kpages to go on by. */
static bool is_fixed(struct page *kpage, unsigned long *nr)
{
	struct folio *folio = page_folio(kpage);
	bool fixed = false;

	*nr = 1;
	if (!folio_try_get(folio))
		return false;
	/* Only with a reference does the kpage stay in the folio. */
	if (page_folio(kpage) == folio) {
		fixed = xalloc_backing_is_fixed(folio);
		*nr = folio_nr_pages(folio) - folio_page_idx(folio, kpage);
	}
	folio_put(folio);
	return fixed;
}

static int answer(struct notifier_block *block, unsigned long action, void *data)
{
	const struct memory_notify *range = data;
	unsigned long pfn, nr;
	struct page *kpage;

	if (action != MEM_GOING_OFFLINE)
		return NOTIFY_OK;
	for (pfn = range->start_pfn; pfn < range->start_pfn + range->nr_pages; pfn += nr) {
		nr = 1;
		kpage = pfn_to_online_page(pfn);
		if (kpage && is_fixed(kpage, &nr))
			return notifier_from_errno(-EBUSY);
		cond_resched();
	}
	return NOTIFY_OK;
}

static struct notifier_block notifier = {
	.notifier_call = answer,
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
