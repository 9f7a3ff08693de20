// SPDX-License-Identifier: GPL-2.0-only
/*
 * Families: an arena that is copied at fork, with its copies.
 *
 * What they have in common is the limit: forking must not be a way around it. A family lives
 * as long as one of its arenas, zombies included, so its equation is over all of them:
 *
 *	nr_slices == sum of nr_committed_slices <= limit_slices
 */
#include <linux/slab.h>

#include "internal.h"

/**
 * xalloc_family_create() - create a family, with one reference, for its first arena
 * @limit_slices: most slices that its arenas may commit together
 *
 * Return: the family or NULL.
 */
struct xalloc_family *xalloc_family_create(u32 limit_slices)
{
	struct xalloc_family *family = kzalloc(sizeof(*family), GFP_KERNEL_ACCOUNT);

	if (!family)
		return NULL;
	refcount_set(&family->refs, 1);
	spin_lock_init(&family->lock);
	INIT_LIST_HEAD(&family->views);
	family->limit_slices = limit_slices;
	return family;
}

/** xalloc_family_get() - take a reference, for another arena */
void xalloc_family_get(struct xalloc_family *family)
{
	refcount_inc(&family->refs);
}

/** xalloc_family_put() - drop the reference of an arena that has one */
void xalloc_family_put(struct xalloc_family *family)
{
	if (!family || !refcount_dec_and_test(&family->refs))
		return;
	WARN_ON_ONCE(family->nr_slices || !list_empty(&family->views));
	kfree(family);
}

/**
 * xalloc_family_charge() - count memory against the limit of a family
 * @family: the family, or NULL, which has no limit
 * @nr_slices: how much, in slices
 *
 * Return: 0 or -EDQUOT.
 */
int xalloc_family_charge(struct xalloc_family *family, u32 nr_slices)
{
	int err = 0;

	if (!family)
		return 0;
	spin_lock(&family->lock);
	if (nr_slices > family->limit_slices - family->nr_slices)
		err = -EDQUOT;
	else
		family->nr_slices += nr_slices;
	spin_unlock(&family->lock);
	return err;
}

/** xalloc_family_uncharge() - take back a xalloc_family_charge(), or a part of it */
void xalloc_family_uncharge(struct xalloc_family *family, u32 nr_slices)
{
	if (!family)
		return;
	spin_lock(&family->lock);
	family->nr_slices -= nr_slices;
	spin_unlock(&family->lock);
}

/**
 * xalloc_family_set_limit() - set the limit of a family
 * @family: the family
 * @limit_slices: the new limit
 *
 * Return: 0, or -EBUSY if more than that is committed.
 */
int xalloc_family_set_limit(struct xalloc_family *family, u32 limit_slices)
{
	int err = 0;

	spin_lock(&family->lock);
	if (family->nr_slices > limit_slices)
		err = -EBUSY;
	else
		family->limit_slices = limit_slices;
	spin_unlock(&family->lock);
	return err;
}
