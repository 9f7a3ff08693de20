// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mapping: a plain fault on a file, so that all of GUP works.
 *
 * The fault returns the folio locked and referenced. The core maps all of it by one 2 MiB
 * entry where address, offset and vma allow. Elsewhere it uses 4 KiB entries: before 6.18 one
 * for each fault, since then all of the folio at once. Once there is a table of small entries, a
 * write fault maps all of a folio in page cache, and a read fault maps what the core's fault-around
 * asks for. The mapping has none of VM_IO, VM_PFNMAP and VM_MIXEDMAP, because GUP refuses or
 * miscounts those.
 */
#include <linux/mempolicy.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <asm/pgalloc.h>

#include "internal.h"

/* NULL in a child that got no copy. */
static struct xalloc_client *client_of(const struct vm_area_struct *vma)
{
	return vma->vm_private_data;
}

/*
 * Keep a folio with a broken kpage out of 2 MiB entries, for good. Otherwise the core maps the
 * whole folio: by a 2 MiB entry if memory_failure() did not mark the folio, and from 6.18 on also
 * by small entries, unless the folio ends beyond the end of the file. PG_checked says that this
 * was done before.
 */
static void forbid_huge_entries(struct vm_fault *vmf, struct xalloc_arena *arena,
				struct folio *folio)
{
	unsigned long nr_kpages = folio_nr_pages(folio);

	if (folio_test_checked(folio))
		return;
	folio_set_checked(folio);
	folio_set_has_hwpoisoned(folio);
	/* The index of a folio in page cache must stay; map_cached() leaves out broken kpages. */
	if (!folio->mapping)
		folio->index = xalloc_arena_nr_kpages(arena);
	/* A process that still has the broken kpage mapped must fault too, and get SIGBUS. */
	xalloc_unmap(arena, vmf->vma->vm_file->f_mapping, round_down(vmf->pgoff, nr_kpages),
		     nr_kpages);
}

/* Whether the core has a table of small entries there, and will not map by 2 MiB. */
static bool has_table(const struct vm_fault *vmf)
{
	pmd_t pmd = READ_ONCE(*vmf->pmd);

	return pmd_present(pmd) && !pmd_trans_huge(pmd);
}

/*
 * Whether one of the kpages that this fault may map is broken. The look at the other 511 is spared
 * where the touched kpage alone is mapped, or where map_cached() looks at each.
 */
static bool may_map_broken(const struct vm_fault *vmf, struct folio *folio)
{
	if (has_table(vmf) && (folio->mapping || !XALLOC_FAULT_MAPS_FOLIO))
		return PageHWPoison(vmf->page);
	/* Once more the touched one: the core must not be the first to find it broken. */
	return xalloc_backing_is_poisoned(folio) || PageHWPoison(vmf->page);
}

/* Installs the page table. For the last folio of a file, filemap_map_pages() of 6.12 does not. */
static void install_table(struct vm_fault *vmf)
{
	struct mm_struct *mm = vmf->vma->vm_mm;
	spinlock_t *ptl;	/* of the table above */

	if (!pmd_none(READ_ONCE(*vmf->pmd)) || !vmf->prealloc_pte)
		return;
	ptl = pmd_lock(mm, vmf->pmd);
	if (pmd_none(*vmf->pmd)) {
		mm_inc_nr_ptes(mm);
		/* The table is empty before it is seen: as in the core's pmd_install(). */
		smp_wmb();
		pmd_populate(mm, vmf->pmd, vmf->prealloc_pte);
		vmf->prealloc_pte = NULL;
	}
	spin_unlock(ptl);
}

/*
 * Have the core map all kpages of a folio in page cache that are not broken, as far as the vma and
 * one table of small entries reach. @nr_kpages is the size of the folio. Returns 0 if the touched
 * kpage was not mapped, because somebody has locked or freed the folio meanwhile.
 */
static vm_fault_t map_cached(struct vm_fault *vmf, unsigned long nr_kpages)
{
	const struct vm_area_struct *vma = vmf->vma;
	unsigned long from = max(vma->vm_start, vmf->address & PMD_MASK);
	unsigned long to = min(vma->vm_end, (vmf->address & PMD_MASK) + PMD_SIZE);
	pgoff_t first = vmf->pgoff - ((vmf->address - from) >> PAGE_SHIFT);
	pgoff_t last = vmf->pgoff + ((to - vmf->address - 1) >> PAGE_SHIFT);
	pgoff_t folio_first = round_down(vmf->pgoff, nr_kpages);

	first = max(first, folio_first);
	last = min(last, folio_first + nr_kpages - 1);
	install_table(vmf);
	return filemap_map_pages(vmf, first, last);
}

/* The folio at the touched kpage, referenced and locked, or NULL if no page is there. */
static struct folio *lock_touched(struct vm_fault *vmf, struct xalloc_arena *arena)
{
	/*
	 * What a dma-buf has is there, also when the file has become shorter. A core file needs no
	 * memory for holes.
	 */
	bool fills = xalloc_hole_is_filled(arena) && !client_of(vmf->vma)->nr_held &&
		     !(current->flags & PF_DUMPCORE);
	u32 slice = vmf->pgoff >> XALLOC_PIECE_ORDER;
	struct folio *folio;

	do {
		/* There may be memory past the end of the file. It must not be mapped. */
		if (fills && xalloc_hole_is_past_end(file_inode(vmf->vma->vm_file), vmf->pgoff))
			return NULL;
		folio = xalloc_segment_lock_folio(arena, slice);
		/* Others may make a hole of it again. */
	} while (!folio && fills && !xalloc_hole_touch(arena, vmf->pgoff));
	if (folio)
		vmf->page = folio_page(folio, vmf->pgoff % folio_nr_pages(folio));
	return folio;
}

static void put_locked(struct folio *folio)
{
	folio_unlock(folio);
	folio_put(folio);
}

static bool is_copied(const struct vm_fault *vmf)
{
	return vmf->flags & FAULT_FLAG_WRITE && !(vmf->vma->vm_flags & VM_SHARED);
}

static vm_fault_t fault_in(struct vm_fault *vmf, struct xalloc_arena *arena)
{
	struct folio *folio = lock_touched(vmf, arena);
	unsigned long nr_kpages;
	bool is_broken;

	if (!folio)
		return VM_FAULT_SIGBUS;
	is_broken = may_map_broken(vmf, folio);
	if (is_broken)
		forbid_huge_entries(vmf, arena, folio);
	/* Refused here: the core would unmap the folio and try to evict it. */
	if (is_broken && PageHWPoison(vmf->page)) {
		put_locked(folio);
		return VM_FAULT_HWPOISON;
	}
	/* The core copies the kpage for a write to a private mapping. */
	if (!folio->mapping || !(is_broken || has_table(vmf)) || is_copied(vmf))
		return VM_FAULT_LOCKED;

	/* filemap_map_pages() takes the folio lock itself. */
	nr_kpages = folio_nr_pages(folio);
	put_locked(folio);
	if (map_cached(vmf, nr_kpages))
		return VM_FAULT_NOPAGE;
	folio = lock_touched(vmf, arena);
	if (!folio)
		return VM_FAULT_SIGBUS;
	if (!xalloc_backing_is_poisoned(folio))
		return VM_FAULT_LOCKED;
	/* Only the way above maps such a folio: the CPU takes the fault again. */
	put_locked(folio);
	return VM_FAULT_NOPAGE;
}

/* Called for a read before fault(). A 2 MiB entry is for fault(), which looks for broken kpages. */
static vm_fault_t arena_map_pages(struct vm_fault *vmf, pgoff_t first, pgoff_t last)
{
	return has_table(vmf) ? filemap_map_pages(vmf, first, last) : 0;
}

static vm_fault_t arena_fault(struct vm_fault *vmf)
{
	struct xalloc_client *client = client_of(vmf->vma);

	return client ? fault_in(vmf, client->arena) : VM_FAULT_SIGBUS;
}

static vm_fault_t status_fault(struct vm_fault *vmf)
{
	vmf->page = virt_to_page(client_of(vmf->vma)->arena->status);
	get_page(vmf->page);
	return 0;
}

static vm_fault_t status_fault_by_view(struct vm_fault *vmf)
{
	const struct vm_area_struct *vma = vmf->vma;

	vmf->page = xalloc_view_status(file_inode(vma->vm_file)->i_private, vma->vm_mm);
	return 0;
}

/* At a split, and at fork: then @vma is the child's, with all but vm_mm as in the parent. */
static void arena_vma_open(struct vm_area_struct *vma)
{
	struct xalloc_client *client = client_of(vma);

	if (!client)
		return;
	if (client->view->mm == vma->vm_mm) {
		xalloc_view_get(client);
		return;
	}
	vma->vm_private_data = xalloc_view_of_child(client, vma->vm_mm);
	/* Write protection by userfaultfd would make fork copy page tables of the parent. */
	vma->vm_userfaultfd_ctx = NULL_VM_UFFD_CTX;
	vm_flags_clear(vma, VM_UFFD_MISSING | VM_UFFD_WP | VM_UFFD_MINOR);
}

static void arena_vma_close(struct vm_area_struct *vma)
{
	if (client_of(vma))
		xalloc_view_put(client_of(vma));
}

#ifdef CONFIG_NUMA
/*
 * Where memory lies is a matter of the arena. This policy has not MPOL_F_MOF, so that NUMA
 * balancing does not unmap by turns what it could not move.
 */
static struct mempolicy policy = {
	.refcnt = ATOMIC_INIT(1),
	.mode = MPOL_LOCAL,
};

static XALLOC_GET_POLICY(arena_get_policy)
{
	return &policy;
}
#endif

/*
 * The core dump code calls this. It dumps a mapping that has a name whatever coredump_filter says,
 * so only mappings to be dumped have one. /proc/PID/maps shows the name of the file, not this one.
 */
static const char *arena_name(struct vm_area_struct *vma)
{
	const struct xalloc_client *client = client_of(vma);

	/* A mapping of a file has not VM_DONTEXPAND, also if the file has become an arena since. */
	if (!client || (vma->vm_flags & (VM_DONTEXPAND | VM_DONTDUMP)) != VM_DONTEXPAND)
		return NULL;
	return "[xalloc]";
}

/* A mapping of a file, which keeps the file's client. */
static const struct vm_operations_struct vm_ops = {
	.name = arena_name,
	.fault = arena_fault,
	.map_pages = arena_map_pages,
#ifdef CONFIG_NUMA
	.get_policy = arena_get_policy,
#endif
};

static const struct vm_operations_struct status_vm_ops = {
	.fault = status_fault,
};

/* A mapping of a family, which keeps a client of a view. */
static const struct vm_operations_struct view_vm_ops = {
	.open = arena_vma_open,
	.close = arena_vma_close,
	.name = arena_name,
	.fault = arena_fault,
#ifdef CONFIG_NUMA
	.get_policy = arena_get_policy,
#endif
};

/* Holds no client, so that a fork does not copy the arena just for this page. */
static const struct vm_operations_struct view_status_vm_ops = {
	.fault = status_fault_by_view,
};

static void map_plain(struct vm_area_struct *vma, struct xalloc_client *client,
		      const struct vm_operations_struct *ops)
{
	vma->vm_private_data = client;
	vma->vm_ops = ops;
}

static vm_flags_t dump_flag(const struct xalloc_client *client)
{
	return READ_ONCE(client->arena->is_dumped) ? 0 : VM_DONTDUMP;
}

/* Not inherited by fork: a child would see the parent's writes. */
static void map_by_file(struct vm_area_struct *vma, struct xalloc_client *client,
			const struct vm_operations_struct *ops)
{
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTCOPY | dump_flag(client));
	map_plain(vma, client, ops);
}

/* A child of fork gets a mapping of its own copy at the same address: see view.c. */
static void map_by_view(struct vm_area_struct *vma, struct xalloc_client *client,
			const struct vm_operations_struct *ops)
{
	vm_flags_set(vma, VM_DONTEXPAND | dump_flag(client));
	vma_set_file(vma, client->view->file);
	vma->vm_ops = ops;
}

static int mmap_status(struct vm_area_struct *vma, struct xalloc_client *client)
{
	if (vma_pages(vma) != 1)
		return -ENXIO;
	if (vma->vm_flags & VM_WRITE)
		return -EACCES;
	vm_flags_clear(vma, VM_MAYWRITE);
	/*
	 * A child that has a copy of the arena goes on with its parent's code, which reads the page
	 * at this address. The parent cannot use MADV_DOFORK: the kernel refuses it since 7.0.
	 */
	if (client->view)
		map_by_view(vma, client, &view_status_vm_ops);
	else
		map_by_file(vma, client, &status_vm_ops);
	return 0;
}

static int check_range(struct vm_area_struct *vma, const struct xalloc_arena *arena)
{
	unsigned long nr_kpages = xalloc_arena_nr_kpages(arena);

	if (vma->vm_pgoff > nr_kpages || vma_pages(vma) > nr_kpages - vma->vm_pgoff)
		return -ENXIO;
	return 0;
}

/**
 * xalloc_mmap() - map a range of an arena, or its status page
 * @file: a file of the arena
 * @vma: the mapping to be; its pgoff is the offset in the arena, or XALLOC_STATUS_OFFSET's
 *
 * Context: mm->mmap_lock held for writing.
 * Return: 0, -EINVAL for a private mapping of an arena with grants, -ENXIO past the end of the
 * arena's offset space, -ESTALE for a file of another process, -EACCES to write to the status page,
 * or for the file of an export.
 */
int xalloc_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct xalloc_client *client = file->private_data;
	int err;

	if (!(vma->vm_flags & VM_MAYSHARE) && !xalloc_hole_is_filled(client->arena))
		return -EINVAL;
	/*
	 * The file of an export. Who has the dma-buf mapped reaches it by remap_file_pages(), which
	 * asks for any range of it; only that of the dma-buf is theirs, and dmabuf.c maps that.
	 */
	if (client->nr_held)
		return -EACCES;
	if (client->view && client->view->mm != vma->vm_mm)
		return -ESTALE;
	if (vma->vm_pgoff == XALLOC_STATUS_OFFSET >> PAGE_SHIFT)
		return mmap_status(vma, client);
	err = check_range(vma, client->arena);
	if (err)
		return err;
	if (client->view) {
		xalloc_view_get(client);
		vma->vm_private_data = client;
		map_by_view(vma, client, &view_vm_ops);
	} else if (xalloc_hole_is_filled(client->arena)) {
		/* As any file: a child of fork has it, too. */
		map_plain(vma, client, &vm_ops);
	} else {
		map_by_file(vma, client, &vm_ops);
	}
	return 0;
}

/**
 * xalloc_mmap_export() - map a range of an arena, for whoever has the dma-buf
 * @file: the file of the export
 * @vma: the mapping to be; its pgoff is the offset in the arena
 *
 * Context: mm->mmap_lock held for writing.
 * Return: 0, -EINVAL for a private mapping, -ENXIO past the end of the arena.
 */
int xalloc_mmap_export(struct file *file, struct vm_area_struct *vma)
{
	struct xalloc_client *client = file->private_data;
	int err;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	err = check_range(vma, client->arena);
	if (!err)
		map_by_file(vma, client, &vm_ops);
	return err;
}

static bool is_of_arena(const struct vm_area_struct *vma, const struct xalloc_arena *arena)
{
	return (vma->vm_ops == &vm_ops || vma->vm_ops == &view_vm_ops) && client_of(vma) &&
	       client_of(vma)->arena == arena;
}

/**
 * xalloc_mmap_set_dumped() - set whether mappings of an arena are in core files
 * @arena: the arena
 * @is_dumped: true: mappings are in core files
 *
 * Changes the existing mappings of the current address space, and all later mappings of the arena.
 *
 * Context: Process context, may sleep. Takes and releases mm->mmap_lock.
 * Return: 0 or -EINTR.
 */
int xalloc_mmap_set_dumped(struct xalloc_arena *arena, bool is_dumped)
{
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	unsigned long address = 0;

	if (mmap_write_lock_killable(mm))
		return -EINTR;
	WRITE_ONCE(arena->is_dumped, is_dumped);
	for (; (vma = find_vma(mm, address)); address = vma->vm_end) {
		if (!is_of_arena(vma, arena))
			continue;
		if (is_dumped)
			vm_flags_clear(vma, VM_DONTDUMP);
		else
			vm_flags_set(vma, VM_DONTDUMP);
	}
	mmap_write_unlock(mm);
	return 0;
}

/**
 * xalloc_mmap_find() - what is mapped at an address of the current task
 * @address: the address
 * @writable: set to whether it was mapped by a file that was open for writing
 * @offset: set to the offset in the arena
 *
 * Context: Process context, may sleep. Takes and releases mm->mmap_lock.
 * Return: the file, with a reference, or -ENOENT if that is none of an arena, or a dma-buf,
 * -ENOMEM if it was to be a copy that was not to be had, -EINTR.
 */
struct file *xalloc_mmap_find(unsigned long address, bool *writable, u64 *offset)
{
	struct mm_struct *mm = current->mm;
	struct file *file = ERR_PTR(-ENOENT);
	struct vm_area_struct *vma;

	if (mmap_read_lock_killable(mm))
		return ERR_PTR(-EINTR);
	vma = vma_lookup(mm, address);
	if (!vma)
		goto out;
	if (vma->vm_ops == &view_vm_ops && !client_of(vma)) {
		file = ERR_PTR(-ENOMEM);
		goto out;
	}
	/* An export's client holds pages; whoever has it mapped may have only those. */
	if (vma->vm_ops != &view_vm_ops && (vma->vm_ops != &vm_ops || client_of(vma)->nr_held))
		goto out;
	file = get_file(vma->vm_file);
	/* A private mapping may be written to, whatever the file was opened for. */
	*writable = vma->vm_flags & VM_MAYWRITE && vma->vm_flags & VM_MAYSHARE;
	*offset = ((u64)vma->vm_pgoff << PAGE_SHIFT) + (address - vma->vm_start);
out:
	mmap_read_unlock(mm);
	return file;
}
