// SPDX-License-Identifier: GPL-2.0-only
/*
 * Budgets: a limit that several arenas have together.
 *
 * An arena and the copies that forks make of it share a budget, because a fork must not be a way
 * around the limit. The files of an xallocfs share one, too. A budget lives until the file
 * system and all its arenas, also zombies, are gone. So its equation is over all of these arenas:
 *
 *	nr_slices == sum of nr_committed_slices <= limit_slices
 */
#include <linux/slab.h>

#include "internal.h"

/**
 * xalloc_budget_create() - create a budget, with one reference
 * @limit_slices: most slices that its arenas may commit together
 * @error: the negative errno of a refusal
 *
 * Return: the budget or NULL.
 */
struct xalloc_budget *xalloc_budget_create(u32 limit_slices, int error)
{
	struct xalloc_budget *budget = kzalloc(sizeof(*budget), GFP_KERNEL_ACCOUNT);

	if (!budget)
		return NULL;
	refcount_set(&budget->refs, 1);
	spin_lock_init(&budget->lock);
	budget->limit_slices = limit_slices;
	budget->error = error;
	return budget;
}

/** xalloc_budget_get() - take a reference for another arena; @budget may be NULL */
struct xalloc_budget *xalloc_budget_get(struct xalloc_budget *budget)
{
	if (budget)
		refcount_inc(&budget->refs);
	return budget;
}

/** xalloc_budget_put() - drop a reference; @budget may be NULL */
void xalloc_budget_put(struct xalloc_budget *budget)
{
	if (!budget || !refcount_dec_and_test(&budget->refs))
		return;
	WARN_ON_ONCE(budget->nr_slices);
	kfree(budget);
}

/**
 * xalloc_budget_charge() - count memory against a budget
 * @budget: the budget; NULL means no limit
 * @nr_slices: how many slices
 *
 * Return: 0, or the budget's error.
 */
int xalloc_budget_charge(struct xalloc_budget *budget, u32 nr_slices)
{
	int err = 0;

	if (!budget)
		return 0;
	spin_lock(&budget->lock);
	if (nr_slices > budget->limit_slices - budget->nr_slices)
		err = budget->error;
	else
		budget->nr_slices += nr_slices;
	spin_unlock(&budget->lock);
	return err;
}

/** xalloc_budget_uncharge() - undo a xalloc_budget_charge(), or a part of it */
void xalloc_budget_uncharge(struct xalloc_budget *budget, u32 nr_slices)
{
	if (!budget)
		return;
	spin_lock(&budget->lock);
	budget->nr_slices -= nr_slices;
	spin_unlock(&budget->lock);
}

/**
 * xalloc_budget_set_limit() - set the limit of a budget
 * @budget: the budget
 * @limit_slices: the new limit
 *
 * Return: 0, or -EBUSY if more than @limit_slices is committed.
 */
int xalloc_budget_set_limit(struct xalloc_budget *budget, u32 limit_slices)
{
	int err = 0;

	spin_lock(&budget->lock);
	if (budget->nr_slices > limit_slices)
		err = -EBUSY;
	else
		budget->limit_slices = limit_slices;
	spin_unlock(&budget->lock);
	return err;
}
