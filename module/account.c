// SPDX-License-Identifier: GPL-2.0-only
/*
 * Charging: who pays for memory, and how much all of it may be.
 *
 * The payer is the user who created the arena, whoever commits later, with the limit in
 * force at that moment: RLIMIT_MEMLOCK, or the parameter user_limit_mb in its place. By the
 * first, memory is charged to user->locked_vm, where io_uring and others that pin for a
 * file count too, not to an mm: an arena outlives address spaces. By the second it is
 * charged to an account of the module's own, so that what io_uring registers still has
 * all of RLIMIT_MEMLOCK.
 *
 * All arenas together, those of privileged creators too, have the parameter total_mb.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "internal.h"

#define SLICES_PER_MB (SZ_1M / XALLOC_SLICE_BYTES)

static unsigned int user_limit_mb;
module_param(user_limit_mb, uint, 0644);
MODULE_PARM_DESC(user_limit_mb,
		 "most that arenas of one user may commit, in MiB, from their creation on (default 0: RLIMIT_MEMLOCK)");

static unsigned int total_mb;
module_param(total_mb, uint, 0644);
MODULE_PARM_DESC(total_mb, "most that all arenas may commit, in MiB (default 0: half of RAM)");

/* What one user is charged for while user_limit_mb is set. */
struct xalloc_account {
	u32 uid;
	u32 nr_payers;			/* by the lock of accounts */
	atomic_long_t nr_kpages;
};

static DEFINE_XARRAY(accounts);		/* uid -> struct xalloc_account */
static atomic_long_t nr_total_slices;

DEFINE_PER_CPU(struct xalloc_counters, xalloc_counters);

/**
 * xalloc_counted() - the sum of a counter over all CPUs
 * @counter: which
 *
 * Return: the sum, at least 0. Changes that other CPUs make at this moment may be missing.
 */
long xalloc_counted(enum xalloc_counter counter)
{
	long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu(xalloc_counters, cpu).nr[counter]);
	return max(sum, 0L);
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_counted);

static struct xalloc_account *get_account(kuid_t kuid)
{
	u32 uid = from_kuid(&init_user_ns, kuid);
	struct xalloc_account *account, *old;

	account = kzalloc(sizeof(*account), GFP_KERNEL);
	if (!account)
		return ERR_PTR(-ENOMEM);
	account->uid = uid;
	xa_lock(&accounts);
	old = __xa_cmpxchg(&accounts, uid, NULL, account, GFP_KERNEL);
	if (old) {
		kfree(account);
		account = xa_is_err(old) ? ERR_PTR(xa_err(old)) : old;
	}
	if (!IS_ERR(account))
		account->nr_payers++;
	xa_unlock(&accounts);
	return account;
}

static void put_account(struct xalloc_account *account)
{
	bool last;

	xa_lock(&accounts);
	last = !--account->nr_payers;
	if (last)
		__xa_erase(&accounts, account->uid);
	xa_unlock(&accounts);
	if (last)
		kfree(account);
}

/**
 * xalloc_payer_init() - make the current task's user the payer
 * @payer: the payer
 *
 * Context: Process context, may sleep.
 * Return: 0 or -ENOMEM.
 */
int xalloc_payer_init(struct xalloc_payer *payer)
{
	unsigned int limit_mb = READ_ONCE(user_limit_mb);
	struct xalloc_account *account;

	*payer = (struct xalloc_payer){};
	if (capable(CAP_IPC_LOCK))
		return 0;
	if (!limit_mb) {
		payer->limit_kpages = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
		payer->user = get_uid(current_user());
		return 0;
	}
	payer->limit_kpages = (unsigned long)limit_mb << (20 - PAGE_SHIFT);
	account = get_account(current_uid());
	if (IS_ERR(account))
		return PTR_ERR(account);
	payer->account = account;
	return 0;
}

/** xalloc_payer_copy() - make the payer of one arena that of another, too */
void xalloc_payer_copy(struct xalloc_payer *payer, const struct xalloc_payer *from)
{
	*payer = *from;
	if (payer->user)
		get_uid(payer->user);
	if (payer->account) {
		xa_lock(&accounts);
		payer->account->nr_payers++;
		xa_unlock(&accounts);
	}
}

/** xalloc_payer_exempt() - have nobody pay; nothing was charged yet */
void xalloc_payer_exempt(struct xalloc_payer *payer)
{
	xalloc_payer_fini(payer);
	*payer = (struct xalloc_payer){};
}

void xalloc_payer_fini(struct xalloc_payer *payer)
{
	free_uid(payer->user);
	if (payer->account)
		put_account(payer->account);
}

static bool add_below(atomic_long_t *counter, long more, unsigned long limit)
{
	long old = atomic_long_read(counter), new;

	do {
		new = old + more;
		if ((unsigned long)new > limit)
			return false;
	} while (!atomic_long_try_cmpxchg(counter, &old, new));
	return true;
}

static unsigned long total_limit(void)
{
	unsigned long limit_mb = READ_ONCE(total_mb);

	return limit_mb ? limit_mb * SLICES_PER_MB : totalram_pages() / 2 / XALLOC_SLICE_KPAGES;
}

/**
 * xalloc_total_room() - how much all arenas together may still commit
 * Return: slices.
 */
u64 xalloc_total_room(void)
{
	unsigned long used = atomic_long_read(&nr_total_slices), limit = total_limit();

	return limit - min(used, limit);
}

static int charge_total(u32 nr_slices)
{
	return add_below(&nr_total_slices, nr_slices, total_limit()) ? 0 : -ENOSR;
}

static atomic_long_t *charged_of(const struct xalloc_payer *payer)
{
	if (payer->account)
		return &payer->account->nr_kpages;
	return payer->user ? &payer->user->locked_vm : NULL;
}

/**
 * xalloc_payer_charge() - charge memory to a payer, and to the total of the module
 * @payer: the payer
 * @nr_slices: how much, in slices
 *
 * Return: 0, or -ENOBUFS (RLIMIT_MEMLOCK), -EUSERS (user_limit_mb), -ENOSR (total_mb) with
 * nothing charged.
 */
int xalloc_payer_charge(struct xalloc_payer *payer, u32 nr_slices)
{
	atomic_long_t *charged = charged_of(payer);
	long nr_kpages = nr_slices * XALLOC_SLICE_KPAGES;
	int err;

	if (charged && !add_below(charged, nr_kpages, payer->limit_kpages))
		return payer->account ? -EUSERS : -ENOBUFS;
	err = charge_total(nr_slices);
	if (!charged)
		return err;
	if (err)
		atomic_long_sub(nr_kpages, charged);
	else
		xalloc_count(XALLOC_NR_CHARGED_SLICES, nr_slices);
	return err;
}

/** xalloc_payer_uncharge() - take back a xalloc_payer_charge(), or a part of it */
void xalloc_payer_uncharge(struct xalloc_payer *payer, u32 nr_slices)
{
	atomic_long_t *charged = charged_of(payer);

	atomic_long_sub(nr_slices, &nr_total_slices);
	if (!charged)
		return;
	atomic_long_sub(nr_slices * XALLOC_SLICE_KPAGES, charged);
	xalloc_count(XALLOC_NR_CHARGED_SLICES, -(long)nr_slices);
}

/** xalloc_stat_all() - fill in the sums over all arenas */
void xalloc_stat_all(struct xalloc_ioc_stat *stat)
{
	u64 now[XALLOC_NR_COUNTERS];
	int i;

	for (i = 0; i < XALLOC_NR_COUNTERS; i++)
		now[i] = xalloc_counted(i);
	*stat = (struct xalloc_ioc_stat){
		.size = stat->size,
		.arenas = now[XALLOC_NR_ARENAS],
		.clients = now[XALLOC_NR_CLIENTS],
		.pages = now[XALLOC_NR_PAGES],
		.granted_bytes = now[XALLOC_NR_GRANTED_SLICES] * XALLOC_SLICE_BYTES,
		.committed_bytes = now[XALLOC_NR_COMMITTED_SLICES] * XALLOC_SLICE_BYTES,
		/* The two counters do not change together, so the second may be larger. */
		.pinned_bytes = (now[XALLOC_NR_IDLE_SLICES] -
				 min(now[XALLOC_NR_IDLE_SLICES], now[XALLOC_NR_RESERVED_SLICES])) *
				XALLOC_SLICE_BYTES,
		.charged_bytes = now[XALLOC_NR_CHARGED_SLICES] * XALLOC_SLICE_BYTES,
		.reserved_bytes = now[XALLOC_NR_RESERVED_SLICES] * XALLOC_SLICE_BYTES,
		.cold_bytes = now[XALLOC_NR_COLD_SLICES] * XALLOC_SLICE_BYTES,
		.pooled_bytes = now[XALLOC_NR_POOLED_SLICES] * XALLOC_SLICE_BYTES,
		.poisoned_bytes = now[XALLOC_NR_POISONED_SLICES] * XALLOC_SLICE_BYTES,
	};
}
