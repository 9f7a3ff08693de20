/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every difference between the kernels that xalloc builds for. The sources are written
 * for 6.12; what an older kernel lacks is supplied here, headed by the release that
 * brought it. A test for a macro goes before a test for a version, because distributions
 * backport; sparse has no __has_include.
 */
#ifndef XALLOC_COMPAT_H
#define XALLOC_COMPAT_H

#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "xalloc needs Linux 6.1 or later: older kernels lack interfaces it uses"
#endif

/* 6.2: kunit/visibility.h */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
#include <kunit/visibility.h>
#else
#include <linux/export.h>
#include <linux/kconfig.h>
#if IS_ENABLED(CONFIG_KUNIT)
#define VISIBLE_IF_KUNIT
#define EXPORT_SYMBOL_IF_KUNIT(symbol) EXPORT_SYMBOL_NS(symbol, EXPORTED_FOR_KUNIT_TESTING)
#else
#define VISIBLE_IF_KUNIT static
#define EXPORT_SYMBOL_IF_KUNIT(...)
#endif
#endif

/* 6.3: vm_flags_set(); inode operations take a mnt_idmap where a user_namespace was */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
#include <linux/mm.h>
#define mnt_idmap user_namespace
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}
#endif

/* 6.13: symbol namespaces are strings */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
#define XALLOC_IMPORT_KUNIT_SYMBOLS MODULE_IMPORT_NS(EXPORTED_FOR_KUNIT_TESTING)
#else
#define XALLOC_IMPORT_KUNIT_SYMBOLS MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING")
#endif

#endif /* XALLOC_COMPAT_H */
