// SPDX-License-Identifier: GPL-2.0-only
#include "kpages.h"
#include "helpers.h"

static uint64_t read_entry(const char *path, uint64_t index)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	if (fd < 0)
		return 0;
	if (pread(fd, &entry, sizeof(entry), index * sizeof(entry)) != sizeof(entry))
		entry = 0;
	close(fd);
	return entry;
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
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ssize_t bytes;
	size_t i;

	if (fd < 0)
		return false;
	bytes = pread(fd, pfns, nr * sizeof(*pfns), (uintptr_t)addr / KPAGE_BYTES * sizeof(*pfns));
	close(fd);
	for (i = 0; i < nr; i++)
		pfns[i] = pfn_in(pfns[i]);
	return bytes == (ssize_t)(nr * sizeof(*pfns));
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
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	ssize_t bytes;
	uint64_t i;

	if (fd < 0)
		return false;
	bytes = pread(fd, flags, (nr + 1) * sizeof(*flags), first * sizeof(*flags));
	close(fd);
	if (bytes < (ssize_t)(nr * sizeof(*flags)) || !(flags[0] >> KPF_COMPOUND_HEAD & 1))
		return false;
	for (i = 1; i < nr; i++)
		if (!(flags[i] >> KPF_COMPOUND_TAIL & 1))
			return false;
	return !(flags[nr] >> KPF_COMPOUND_TAIL & 1);
}
