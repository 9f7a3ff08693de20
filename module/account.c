// SPDX-License-Identifier: GPL-2.0-only
/*
 * Charging: whose RLIMIT_MEMLOCK a segment counts against.
 *
 * The payer is the user who created the arena, with the limit in force at that moment,
 * whoever commits later. Segments are charged to user->locked_vm, where io_uring and
 * others that pin for a file count too, not to an mm: an arena outlives address spaces.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>

#include "internal.h"

atomic_long_t xalloc_counters[XALLOC_NR_COUNTERS];
EXPORT_SYMBOL_IF_KUNIT(xalloc_counters);

/** xalloc_payer_init() - make the current task's user the payer */
void xalloc_payer_init(struct xalloc_payer *payer)
{
	payer->limit_kpages = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
	payer->user = capable(CAP_IPC_LOCK) ? NULL : get_uid(current_user());
}

void xalloc_payer_fini(struct xalloc_payer *payer)
{
	free_uid(payer->user);
}

/**
 * xalloc_payer_charge() - charge one segment
 * @payer: the payer
 *
 * Return: 0, or -ENOBUFS with nothing charged.
 */
int xalloc_payer_charge(struct xalloc_payer *payer)
{
	long old, new;

	if (!payer->user)
		return 0;
	old = atomic_long_read(&payer->user->locked_vm);
	do {
		new = old + XALLOC_SEGMENT_KPAGES;
		if ((unsigned long)new > payer->limit_kpages)
			return -ENOBUFS;
	} while (!atomic_long_try_cmpxchg(&payer->user->locked_vm, &old, new));
	xalloc_count(XALLOC_NR_CHARGED_SEGMENTS, 1);
	return 0;
}

/** xalloc_payer_uncharge() - take back one xalloc_payer_charge() */
void xalloc_payer_uncharge(struct xalloc_payer *payer)
{
	if (!payer->user)
		return;
	atomic_long_sub(XALLOC_SEGMENT_KPAGES, &payer->user->locked_vm);
	xalloc_count(XALLOC_NR_CHARGED_SEGMENTS, -1);
}
