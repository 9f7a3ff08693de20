/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every difference between the kernels that xalloc builds for. The sources are written
 * for the newest of them; what an older kernel lacks is supplied here, headed by the release
 * that brought it. A test for a macro goes before a test for a version, because distributions
 * backport; sparse has no __has_include.
 */
#ifndef XALLOC_COMPAT_H
#define XALLOC_COMPAT_H

#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "xalloc needs Linux 6.1 or later: older kernels lack interfaces it uses"
#endif

/* The newest series of scripts/kernel.d/list. On a newer kernel the module says it is untested. */
#define XALLOC_NEWEST_TESTED "7.3"
#define XALLOC_IS_UNTESTED (LINUX_VERSION_CODE >= KERNEL_VERSION(7, 4, 0))

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
#include <linux/user_namespace.h>
#define mnt_idmap user_namespace
#define nop_mnt_idmap init_user_ns
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/* 6.5: copy_splice_read(), which reads into memory of the pipe; the older one does so, too */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#define copy_splice_read generic_file_splice_read
#endif

/* 6.6: a flag marks large folios that the kernel may split; before, their destructor did */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
#include <linux/mm.h>
#define folio_clear_large_rmappable(folio)						\
	set_compound_page_dtor(&(folio)->page, COMPOUND_PAGE_DTOR)
#endif

/* 6.7: get_policy of a vma has a parameter ilx. XALLOC_GET_POLICY() is that function's head. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
#define XALLOC_GET_POLICY(name)								\
	struct mempolicy *(name)(struct vm_area_struct *vma, unsigned long address)
#else
#define XALLOC_GET_POLICY(name)								\
	struct mempolicy *(name)(struct vm_area_struct *vma, unsigned long address, pgoff_t *ilx)
#endif

/* 6.7: times of inodes are set by functions, of which some stable releases have one */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
#include <linux/fs.h>
#define inode_set_ctime_current xalloc_inode_set_ctime_current
static inline struct timespec64 inode_set_ctime_current(struct inode *inode)
{
	inode->i_ctime = current_time(inode);
	return inode->i_ctime;
}

static inline void inode_set_mtime_to_ts(struct inode *inode, struct timespec64 now)
{
	inode->i_mtime = now;
}

static inline void simple_inode_init_ts(struct inode *inode)
{
	inode->i_atime = inode_set_ctime_current(inode);
	inode->i_mtime = inode->i_ctime;
}
#endif

/*
 * 6.7: shrinkers are allocated. Before, it was registering one that may fail: then it never
 * runs, and unregistering it does nothing.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
#include <linux/printk.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
static inline struct shrinker *shrinker_alloc(unsigned int flags, const char *name)
{
	struct shrinker *shrinker = kzalloc(sizeof(*shrinker), GFP_KERNEL);

	if (shrinker) {
		shrinker->flags = flags;
		shrinker->seeks = DEFAULT_SEEKS;
	}
	return shrinker;
}

static inline void shrinker_register(struct shrinker *shrinker)
{
	if (register_shrinker(shrinker, "xalloc"))
		pr_warn("xalloc: no memory for a shrinker\n");
}

static inline void shrinker_free(struct shrinker *shrinker)
{
	unregister_shrinker(shrinker);
	kfree(shrinker);
}
#endif

/* 6.3: copy_mc_highpage() */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
#include <linux/highmem.h>
#include <linux/uaccess.h>
static inline int copy_mc_highpage(struct page *to, struct page *from)
{
	void *source = kmap_local_page(from), *target = kmap_local_page(to);
	unsigned long nr_left = copy_mc_to_kernel(target, source, PAGE_SIZE);

	kunmap_local(target);
	kunmap_local(source);
	return nr_left;
}
#endif

/*
 * 6.8: the operation that removes broken memory is error_remove_folio, and takes a folio, no page.
 * XALLOC_ERROR_REMOVE() is the head of the operation, whose name is XALLOC_ERROR_REMOVE_OP.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
#define generic_error_remove_folio(mapping, folio)					\
	generic_error_remove_page(mapping, &(folio)->page)
#define XALLOC_ERROR_REMOVE_OP error_remove_page
#define XALLOC_ERROR_REMOVE(name)							\
	int (name)(struct address_space *mapping, struct page *kpage)
#else
#define XALLOC_ERROR_REMOVE_OP error_remove_folio
#define XALLOC_ERROR_REMOVE(name)							\
	int (name)(struct address_space *mapping, struct folio *folio)
#endif

/* 6.8: list_lru_add() and list_lru_del() that find the list by the item are called *_obj() */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
#define list_lru_add_obj list_lru_add
#define list_lru_del_obj list_lru_del
#endif

/* 6.10: folio_mapcount() is there for modules. Order-9 folios of files alone are asked for it. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 10, 0)
#include <linux/mm.h>
#define folio_mapcount xalloc_folio_mapcount
static inline int folio_mapcount(struct folio *folio)
{
	int nr_entire = folio_entire_mapcount(folio), nr = 0;
	long i;

	/* In this order: a mapping of the entire folio goes from the kpages first. */
	smp_rmb();
	for (i = 0; i < folio_nr_pages(folio); i++)
		nr += atomic_read(&folio_page(folio, i)->_mapcount) + 1;
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
	/* A mapping of the entire folio is counted on each kpage, too. */
	nr -= nr_entire * folio_nr_pages(folio);
#endif
	return nr + nr_entire;
}
#endif

/* 6.13: symbol namespaces are strings */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
#define XALLOC_IMPORT_KUNIT_SYMBOLS MODULE_IMPORT_NS(EXPORTED_FOR_KUNIT_TESTING)
#define XALLOC_IMPORT_DMA_BUF_SYMBOLS MODULE_IMPORT_NS(DMA_BUF)
#else
#define XALLOC_IMPORT_KUNIT_SYMBOLS MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING")
#define XALLOC_IMPORT_DMA_BUF_SYMBOLS MODULE_IMPORT_NS("DMA_BUF")
#endif

/* 6.13: the callback of a list_lru gets no lock. XALLOC_LRU_WALK() is that function's head. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
#define XALLOC_LRU_WALK(name)								\
	enum lru_status name(struct list_head *item, struct list_lru_one *list,		\
			     spinlock_t *lock, void *arg)
#else
#define XALLOC_LRU_WALK(name)								\
	enum lru_status name(struct list_head *item, struct list_lru_one *list, void *arg)
#endif

/* 6.14: KUnit is told whether to run the suites that it is given */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 14, 0)
#define xalloc_kunit_run_suites(suites, nr) __kunit_test_suites_init(suites, nr)
#else
#define xalloc_kunit_run_suites(suites, nr) __kunit_test_suites_init(suites, nr, true)
#endif

/* 6.15: mkdir of an inode returns a dentry, or NULL for the one that it was called with */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#define XALLOC_MKDIR_TYPE int
#define XALLOC_MKDIR_RESULT(err) (err)
#else
#define XALLOC_MKDIR_TYPE struct dentry *
#define XALLOC_MKDIR_RESULT(err) ERR_PTR(err)
#endif

/* 6.17: system_dfl_wq, the new name of system_unbound_wq */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 17, 0)
#define system_dfl_wq system_unbound_wq
#endif

/* 6.18: inode_just_drop(), the new name of generic_delete_inode() */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 18, 0)
#define inode_just_drop generic_delete_inode
#endif

/* 6.18: a fault maps all of a folio by small entries, no longer the touched kpage alone */
#define XALLOC_FAULT_MAPS_FOLIO (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 18, 0))

/*
 * 6.19: a dentry that stays without a user is marked as such, and simple_unlink() takes the
 * mark away. Before, such a dentry had an extra reference, which kill_litter_super() dropped.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
#include <linux/dcache.h>
#define d_make_persistent xalloc_d_make_persistent
static inline void d_make_persistent(struct dentry *dentry, struct inode *inode)
{
	d_instantiate(dentry, inode);
	dget(dentry);
}

#define xalloc_kill_super_with_names kill_litter_super
#else
#define xalloc_kill_super_with_names kill_anon_super
#endif

/* 7.0: a file has no leases unless it says so; before, it says that it has none */
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
#define XALLOC_NO_LEASES .setlease = simple_nosetlease,
#else
#define XALLOC_NO_LEASES
#endif

/* 7.0: flags of a vma are a type of their own */
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
#define VMA_NORESERVE_BIT VM_NORESERVE
#define mk_vma_flags(flag) (flag)
#endif

/* 7.1: zap_vma_range(), the third name of what unmaps a range inside of a vma */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
#include <linux/mm.h>
#define zap_vma_range zap_page_range
#elif LINUX_VERSION_CODE < KERNEL_VERSION(7, 1, 0)
#include <linux/mm.h>
#define zap_vma_range(vma, address, size) zap_page_range_single(vma, address, size, NULL)
#endif

/* 7.3: create of an inode has no parameter excl. XALLOC_CREATE() is that function's head. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 3, 0)
#define XALLOC_CREATE(name)								\
	name(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,		\
	     umode_t mode, bool excl)
#else
#define XALLOC_CREATE(name)								\
	name(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry, umode_t mode)
#endif

/* 6.6: kunit_get_current_test(), for code that can do without the rest of KUnit */
#include <linux/sched.h>
static inline bool xalloc_is_in_kunit(void)
{
#if IS_ENABLED(CONFIG_KUNIT)
	return current->kunit_test;
#else
	return false;
#endif
}

#endif /* XALLOC_COMPAT_H */
