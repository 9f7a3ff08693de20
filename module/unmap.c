// SPDX-License-Identifier: GPL-2.0-only
/*
 * Unmapping: how memory leaves the page tables, and who refers to it beside them.
 *
 * Each entry of a page table has one reference to its folio and counts as one mapping of it. So
 * what is counted answers both questions at no cost to anybody: whether a folio is mapped at all,
 * and whether somebody refers to it who is not a page table, which is a pin. Only what is idle and
 * mapped is unmapped, with the idle memory beside it at once.
 *
 * A page table gets an entry by a fault, which takes the folio lock. fork copies the page tables of
 * a shared mapping only if userfaultfd write-protects the mapping; arena_vma_open() ends that
 * protection in the child's vma. fork also copies the page tables of a private mapping of a file
 * that has copies of its own. Then a pin may be missed, and what was to be kept is freed: it is
 * seen when the folio is unmapped, and stays at its offset.
 *
 * All members of a family share the mapping of the inode, at the same offsets. There only the vmas
 * of the arena are unmapped, so that no member takes faults for what another one frees.
 */
#include <linux/mm.h>
#include <linux/pagemap.h>

#include "internal.h"

/**
 * xalloc_unmap() - unmap a range of an arena in all address spaces that have the arena
 * @arena: the arena
 * @mapping: of the inode by which it is mapped
 * @first: where the range begins, in kpages
 * @nr_kpages: its length
 *
 * Context: Process context, may sleep. Takes i_mmap_rwsem; folio locks may be held.
 */
void xalloc_unmap(const struct xalloc_arena *arena, struct address_space *mapping, pgoff_t first,
		  pgoff_t nr_kpages)
{
	const struct xalloc_client *client;
	struct vm_area_struct *vma;
	struct rb_node *node;
	pgoff_t from, to;

	if (!arena->family) {
		/* What a private mapping has copied is its own. */
		unmap_mapping_pages(mapping, first, nr_kpages, false);
		return;
	}
	i_mmap_lock_read(mapping);
	for (node = rb_first_cached(&mapping->i_mmap); node; node = rb_next(node)) {
		vma = rb_entry(node, struct vm_area_struct, shared.rb);
		from = max(first, vma->vm_pgoff);
		to = min(first + nr_kpages, vma->vm_pgoff + vma_pages(vma));
		/* The vma holds its client until it has left the tree. */
		client = READ_ONCE(vma->vm_private_data);
		if (from < to && client && client->arena == arena)
			zap_vma_range(vma, vma->vm_start + ((from - vma->vm_pgoff) << PAGE_SHIFT),
				      (to - from) << PAGE_SHIFT);
	}
	i_mmap_unlock_read(mapping);
}

/**
 * xalloc_unmap_is_needed() - whether an idle folio is in page tables
 * @folio: a folio whose slices are idle
 *
 * Context: Process context, may sleep. Takes the folio lock: a fault that saw the slices granted
 * has mapped the folio by then, and a later one refuses.
 * Return: true if so.
 */
bool xalloc_unmap_is_needed(struct folio *folio)
{
	bool mapped;

	folio_lock(folio);
	mapped = folio_mapped(folio);
	folio_unlock(folio);
	return mapped;
}

/**
 * xalloc_unmap_sees_pin() - whether somebody else than page tables refers to a folio
 * @folio: a folio with granted slices
 *
 * Unmaps nothing: those who use the granted slices take no fault.
 *
 * Context: Process context, may sleep. Takes the folio lock.
 * Return: false only if nobody does. A reference that is just being dropped counts.
 */
bool xalloc_unmap_sees_pin(struct folio *folio)
{
	int nr_refs, nr_mapped;

	/* No fault maps it meanwhile, so that mappings only go, each before its reference. */
	folio_lock(folio);
	nr_refs = folio_ref_count(folio);
	/* References first: a mapping that goes in between is taken for a pin; no pin is missed. */
	smp_rmb();
	nr_mapped = folio_mapcount(folio);
	folio_unlock(folio);
	return nr_refs != xalloc_backing_nr_refs(folio) + nr_mapped;
}
