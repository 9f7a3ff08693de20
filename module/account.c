// SPDX-License-Identifier: GPL-2.0-only
/*
 * Charging: who pays for memory, and how much all of it may be.
 *
 * The payer of an arena is the user who created the arena. Who commits memory later does not
 * matter. The limit is the one in force at the creation: RLIMIT_MEMLOCK, or the parameter
 * user_limit_mb in its place. By RLIMIT_MEMLOCK, memory is charged to user->locked_vm, where
 * io_uring and others that pin for a file count too, not to an mm: an arena outlives address
 * spaces. By user_limit_mb, memory is charged to the user's account in this file, so that what
 * io_uring registers still has all of RLIMIT_MEMLOCK.
 *
 * With the parameter cgroup_pays, a cgroup pays in place of the user: the outermost one of the
 * creator's cgroup and its ancestors that has a limit of memory (memory.max). The kernel charges
 * all memory to cgroups anyway, so that RLIMIT_MEMLOCK and user_limit_mb do not apply then;
 * share_mb does. So two containers of one user do not exhaust each other.
 *
 * Each payer has an account of all that its arenas have, also of those whose creators were
 * privileged. The parameter share_mb is the most that one account may have, and the parameter
 * total_mb the most that all arenas together may have.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/hashtable.h>
#include <linux/memcontrol.h>
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

static bool cgroup_pays;
module_param(cgroup_pays, bool, 0644);
MODULE_PARM_DESC(cgroup_pays,
		 "charge new arenas to the outermost cgroup with memory.max, if there is one, and not to the user (default N)");

static unsigned int share_mb;
module_param(share_mb, uint, 0644);
MODULE_PARM_DESC(share_mb,
		 "most that the arenas of one payer, a user or a cgroup, may commit, in MiB (default 0: total_mb)");

static unsigned int total_mb;
module_param(total_mb, uint, 0644);
MODULE_PARM_DESC(total_mb, "most that all arenas may commit, in MiB (default 0: half of RAM)");

/* What one payer has. */
struct xalloc_account {
	struct hlist_node link;		/* in accounts */
	struct mem_cgroup *memcg;	/* the payer, or NULL: the user is */
	kuid_t uid;
	u32 nr_payers;			/* by accounts_lock */
	atomic_long_t nr_slices;
	atomic_long_t nr_kpages;	/* the part that user_limit_mb limits */
};

static DEFINE_HASHTABLE(accounts, 6);
static DEFINE_SPINLOCK(accounts_lock);	/* a leaf */
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

/*
 * The outermost cgroup from @memcg upwards that has a limit, with a reference, or NULL. Not the
 * closest one: a user who may make cgroups could make one with a limit that is none.
 */
static struct mem_cgroup *get_limited(struct mem_cgroup *memcg)
{
#ifdef CONFIG_MEMCG
	struct mem_cgroup *limited = NULL;

	for (; memcg; memcg = parent_mem_cgroup(memcg))
		if (READ_ONCE(memcg->memory.max) != PAGE_COUNTER_MAX)
			limited = memcg;
	if (limited)
		css_get(&limited->css);
	return limited;
#else
	return NULL;
#endif
}

static struct xalloc_account *find_account(unsigned long key, const struct mem_cgroup *memcg,
					   kuid_t uid)
{
	struct xalloc_account *account;

	hash_for_each_possible(accounts, account, link, key)
		if (account->memcg == memcg && (memcg || uid_eq(account->uid, uid)))
			return account;
	return NULL;
}

/* Takes over the reference to @memcg. */
static struct xalloc_account *get_account(struct mem_cgroup *memcg, kuid_t uid)
{
	unsigned long key = memcg ? (unsigned long)memcg : __kuid_val(uid);
	struct xalloc_account *account, *fresh;

	fresh = kzalloc(sizeof(*fresh), GFP_KERNEL_ACCOUNT);
	if (!fresh) {
		mem_cgroup_put(memcg);
		return NULL;
	}
	fresh->memcg = memcg;
	fresh->uid = uid;
	spin_lock(&accounts_lock);
	account = find_account(key, memcg, uid);
	if (!account) {
		hash_add(accounts, &fresh->link, key);
		swap(account, fresh);
	}
	account->nr_payers++;
	spin_unlock(&accounts_lock);
	if (fresh)
		mem_cgroup_put(memcg);
	kfree(fresh);
	return account;
}

static void put_account(struct xalloc_account *account)
{
	bool last;

	spin_lock(&accounts_lock);
	last = !--account->nr_payers;
	if (last)
		hash_del(&account->link);
	spin_unlock(&accounts_lock);
	if (!last)
		return;
	mem_cgroup_put(account->memcg);
	kfree(account);
}

/**
 * xalloc_payer_init() - make the current task's user, or its cgroup, the payer
 * @payer: the payer
 * @memcg: the memcg of the current task, or NULL
 *
 * Context: Process context, may sleep.
 * Return: 0 or -ENOMEM.
 */
int xalloc_payer_init(struct xalloc_payer *payer, struct mem_cgroup *memcg)
{
	struct mem_cgroup *limited = READ_ONCE(cgroup_pays) ? get_limited(memcg) : NULL;
	unsigned int limit_mb = READ_ONCE(user_limit_mb);

	*payer = (struct xalloc_payer){ .account = get_account(limited, current_uid()) };
	if (!payer->account)
		return -ENOMEM;
	if (limited || capable(CAP_IPC_LOCK))
		return 0;
	if (limit_mb) {
		payer->has_user_limit = true;
		payer->limit_kpages = (unsigned long)limit_mb << (20 - PAGE_SHIFT);
	} else {
		payer->limit_kpages = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
		payer->user = get_uid(current_user());
	}
	return 0;
}

/** xalloc_payer_copy() - make the payer of one arena that of another, too */
void xalloc_payer_copy(struct xalloc_payer *payer, const struct xalloc_payer *from)
{
	*payer = *from;
	if (payer->user)
		get_uid(payer->user);
	if (payer->account) {
		spin_lock(&accounts_lock);
		payer->account->nr_payers++;
		spin_unlock(&accounts_lock);
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

static unsigned long share_limit(void)
{
	unsigned long limit_mb = READ_ONCE(share_mb);

	return limit_mb ? limit_mb * SLICES_PER_MB : ULONG_MAX;
}

/* Charges share_mb and total_mb, which apply to privileged creators, too. */
static int charge_account(struct xalloc_account *account, u32 nr_slices)
{
	if (account && !add_below(&account->nr_slices, nr_slices, share_limit()))
		return -EUSERS;
	if (add_below(&nr_total_slices, nr_slices, total_limit()))
		return 0;
	if (account)
		atomic_long_sub(nr_slices, &account->nr_slices);
	return -ENOSR;
}

/* The counter that the user's limit is compared with; NULL if the payer has no such limit. */
static atomic_long_t *charged_of(const struct xalloc_payer *payer)
{
	if (payer->has_user_limit)
		return &payer->account->nr_kpages;
	return payer->user ? &payer->user->locked_vm : NULL;
}

/**
 * xalloc_payer_charge() - charge memory to a payer, and to the total of the module
 * @payer: the payer
 * @nr_slices: how much, in slices
 *
 * Return: 0, or -ENOBUFS (RLIMIT_MEMLOCK), -EUSERS (user_limit_mb or share_mb), -ENOSR (total_mb)
 * with nothing charged.
 */
int xalloc_payer_charge(struct xalloc_payer *payer, u32 nr_slices)
{
	atomic_long_t *charged = charged_of(payer);
	long nr_kpages = nr_slices * XALLOC_SLICE_KPAGES;
	int err;

	if (charged && !add_below(charged, nr_kpages, payer->limit_kpages))
		return payer->user ? -ENOBUFS : -EUSERS;
	err = charge_account(payer->account, nr_slices);
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
	if (payer->account)
		atomic_long_sub(nr_slices, &payer->account->nr_slices);
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
