// SPDX-License-Identifier: GPL-2.0-only
/*
 * Charging: whose RLIMIT_MEMLOCK memory counts against.
 *
 * The payer is the user who created the arena, with the limit in force at that moment,
 * whoever commits later. Memory is charged to user->locked_vm, where io_uring and
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

/** xalloc_payer_exempt() - have nobody pay; nothing was charged yet */
void xalloc_payer_exempt(struct xalloc_payer *payer)
{
	free_uid(payer->user);
	payer->user = NULL;
}

void xalloc_payer_fini(struct xalloc_payer *payer)
{
	free_uid(payer->user);
}

/**
 * xalloc_payer_charge() - charge memory
 * @payer: the payer
 * @nr_slices: how much, in slices
 *
 * Return: 0, or -ENOBUFS with nothing charged.
 */
int xalloc_payer_charge(struct xalloc_payer *payer, u32 nr_slices)
{
	long old, new;

	if (!payer->user)
		return 0;
	old = atomic_long_read(&payer->user->locked_vm);
	do {
		new = old + nr_slices * XALLOC_SLICE_KPAGES;
		if ((unsigned long)new > payer->limit_kpages)
			return -ENOBUFS;
	} while (!atomic_long_try_cmpxchg(&payer->user->locked_vm, &old, new));
	xalloc_count(XALLOC_NR_CHARGED_SLICES, nr_slices);
	return 0;
}

/** xalloc_payer_uncharge() - take back a xalloc_payer_charge(), or a part of it */
void xalloc_payer_uncharge(struct xalloc_payer *payer, u32 nr_slices)
{
	if (!payer->user)
		return;
	atomic_long_sub(nr_slices * XALLOC_SLICE_KPAGES, &payer->user->locked_vm);
	xalloc_count(XALLOC_NR_CHARGED_SLICES, -(long)nr_slices);
}
