// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mapping: a plain fault on a file, so that all of GUP works.
 *
 * The fault returns the folio locked and referenced; the core maps all of it by one
 * 2 MiB entry where address, offset and vma allow, and by 4 KiB entries elsewhere. No
 * VM_IO, VM_PFNMAP or VM_MIXEDMAP, which GUP refuses or miscounts, and folio->mapping
 * stays NULL, so that nothing takes the memory for page cache.
 */
#include <linux/mm.h>
#include <linux/pagemap.h>

#include "internal.h"

static vm_fault_t mmap_fault(struct vm_fault *vmf)
{
	struct xalloc_client *client = vmf->vma->vm_file->private_data;
	struct folio *folio;

	folio = xalloc_segment_lock_folio(client->arena, vmf->pgoff >> XALLOC_PIECE_ORDER);
	if (!folio)
		return VM_FAULT_SIGBUS;
	vmf->page = folio_page(folio, vmf->pgoff - folio->index);
	/* Refused here, because the core would look for it in folio->mapping. */
	if (PageHWPoison(vmf->page)) {
		folio_unlock(folio);
		folio_put(folio);
		return VM_FAULT_HWPOISON;
	}
	return VM_FAULT_LOCKED;
}

static const struct vm_operations_struct vm_ops = {
	.fault = mmap_fault,
};

/**
 * xalloc_mmap() - map a range of an arena
 * @file: a file of the arena
 * @vma: the mapping to be; its pgoff is the offset in the arena
 *
 * Context: mm->mmap_lock held for writing.
 * Return: 0, -EINVAL for a private mapping, -ENXIO past the end of the arena, or if there
 * is none.
 */
int xalloc_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct xalloc_client *client = xalloc_file_client(file);
	unsigned long nr_kpages;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if (!client)
		return -ENXIO;
	nr_kpages = (unsigned long)client->arena->nr_segments << XALLOC_SEGMENT_ORDER;
	if (vma->vm_pgoff > nr_kpages || vma_pages(vma) > nr_kpages - vma->vm_pgoff)
		return -ENXIO;
	/* A child of fork would see the parent's memory change under it: not copied. */
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP | VM_DONTCOPY);
	vma->vm_ops = &vm_ops;
	return 0;
}
