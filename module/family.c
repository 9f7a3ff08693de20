// SPDX-License-Identifier: GPL-2.0-only
/* Families: an arena that is copied at fork, with its copies. It lives as long as one of them. */
#include <linux/slab.h>

#include "internal.h"

/**
 * xalloc_family_create() - create a family, with one reference, for its first arena
 * Return: the family or NULL.
 */
struct xalloc_family *xalloc_family_create(void)
{
	struct xalloc_family *family = kzalloc(sizeof(*family), GFP_KERNEL_ACCOUNT);

	if (!family)
		return NULL;
	refcount_set(&family->refs, 1);
	spin_lock_init(&family->lock);
	INIT_LIST_HEAD(&family->views);
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
	WARN_ON_ONCE(!list_empty(&family->views));
	kfree(family);
}
