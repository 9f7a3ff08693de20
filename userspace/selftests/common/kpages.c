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

uint64_t pfn_of(const volatile void *addr)
{
	uint64_t entry = pagemap_entry(addr);

	return entry >> 63 ? entry & ((1ULL << 55) - 1) : 0;
}

bool kpage_has(uint64_t pfn, unsigned int flag)
{
	return read_entry("/proc/kpageflags", pfn) >> flag & 1;
}
