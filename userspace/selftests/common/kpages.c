// SPDX-License-Identifier: GPL-2.0-only
#include "kpages.h"
#include "helpers.h"

/* Returns how many of the @nr entries from @first on the file has. */
static size_t read_entries(const char *path, uint64_t first, size_t nr, uint64_t *entries)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t bytes;

	if (fd < 0)
		return 0;
	bytes = pread(fd, entries, nr * sizeof(*entries), first * sizeof(*entries));
	close(fd);
	return bytes < 0 ? 0 : bytes / sizeof(*entries);
}

static uint64_t read_entry(const char *path, uint64_t index)
{
	uint64_t entry;

	return read_entries(path, index, 1, &entry) ? entry : 0;
}

uint64_t pagemap_entry(const volatile void *addr)
{
	return read_entry("/proc/self/pagemap", (uintptr_t)addr / KPAGE_BYTES);
}

static uint64_t pfn_in(uint64_t entry)
{
	return entry >> 63 ? entry & ((1ULL << 55) - 1) : 0;
}

uint64_t pfn_of(const volatile void *addr)
{
	return pfn_in(pagemap_entry(addr));
}

bool pfns_of(const volatile void *addr, size_t nr, uint64_t *pfns)
{
	const uint64_t first = (uintptr_t)addr / KPAGE_BYTES;
	size_t nr_read = read_entries("/proc/self/pagemap", first, nr, pfns), i;

	for (i = 0; i < nr_read; i++)
		pfns[i] = pfn_in(pfns[i]);
	return nr_read == nr;
}

bool kpage_has(uint64_t pfn, unsigned int flag)
{
	return read_entry("/proc/kpageflags", pfn) >> flag & 1;
}

bool is_in_folio(uint64_t pfn, unsigned int order)
{
	const uint64_t nr = 1UL << order, first = pfn & ~(nr - 1);
	/* And one behind it, which stays 0 at the end of memory. */
	uint64_t flags[XALLOC_SEGMENT_BYTES / KPAGE_BYTES + 1] = {};
	uint64_t i;

	if (read_entries("/proc/kpageflags", first, nr + 1, flags) < nr ||
	    !(flags[0] >> KPF_COMPOUND_HEAD & 1))
		return false;
	for (i = 1; i < nr; i++)
		if (!(flags[i] >> KPF_COMPOUND_TAIL & 1))
			return false;
	return !(flags[nr] >> KPF_COMPOUND_TAIL & 1);
}
