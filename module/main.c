// SPDX-License-Identifier: GPL-2.0-only
/* xalloc: module init and exit, in mirrored order. */
#include <linux/init.h>
#include <linux/module.h>
#include <generated/utsrelease.h>

#include "internal.h"

static int __init xalloc_init(void)
{
	int err;

	if (XALLOC_IS_UNTESTED)
		pr_notice("xalloc: untested on Linux %s; the newest tested is %s\n", UTS_RELEASE,
			  XALLOC_NEWEST_TESTED);
	err = xalloc_pool_init();
	if (err)
		return err;
	err = xalloc_reclaim_module_init();
	if (err)
		goto err_pool;
	err = xalloc_offline_init();
	if (err)
		goto err_reclaim;
	err = xalloc_heap_init();
	if (err)
		goto err_offline;
	err = xalloc_names_init();
	if (err)
		goto err_heap;
	err = xalloc_dev_init();
	if (err)
		goto err_names;
	return 0;

err_names:
	xalloc_names_fini();
err_heap:
	xalloc_heap_fini();
err_offline:
	xalloc_offline_fini();
err_reclaim:
	xalloc_arena_fini();
	xalloc_reclaim_module_fini();
err_pool:
	xalloc_pool_fini();
	return err;
}

static void __exit xalloc_exit(void)
{
	xalloc_dev_fini();
	xalloc_names_fini();
	xalloc_heap_fini();
	xalloc_offline_fini();
	xalloc_arena_fini();
	xalloc_reclaim_module_fini();
	xalloc_pool_fini();
}

module_init(xalloc_init);
module_exit(xalloc_exit);

MODULE_DESCRIPTION("Arenas of pinned huge-page memory");
MODULE_AUTHOR("The xalloc authors");
MODULE_LICENSE("GPL");
MODULE_VERSION(XALLOC_VERSION);
