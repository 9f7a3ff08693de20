/* SPDX-License-Identifier: GPL-2.0-only */
/* What the kernel says of single kpages. Only root may know where they are. */
#ifndef XALLOC_KPAGES_H
#define XALLOC_KPAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bits of an entry in /proc/kpageflags. */
#define KPF_BUDDY 10
#define KPF_COMPOUND_HEAD 15
#define KPF_COMPOUND_TAIL 16
#define KPF_UNEVICTABLE 18
#define KPF_HWPOISON 19

/* What /proc/self/pagemap says of the kpage that is mapped at @addr; 0 where it cannot be read. */
uint64_t pagemap_entry(const volatile void *addr);

/* The page frame number of the memory that is mapped at @addr; 0 if none is. */
uint64_t pfn_of(const volatile void *addr);

/* The same of @nr kpages from @addr on, by one system call. Returns whether that could be read. */
bool pfns_of(const volatile void *addr, size_t nr, uint64_t *pfns);

bool kpage_has(uint64_t pfn, unsigned int flag);

/* Whether the kpage is in a folio of 2^@order kpages, at most XALLOC_SEGMENT_BYTES. */
bool is_in_folio(uint64_t pfn, unsigned int order);

#endif
