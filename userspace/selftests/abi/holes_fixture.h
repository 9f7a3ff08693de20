/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The fixture of the programs whose tests use one file, which is mapped. The program defines
 * MAP_BYTES, the length of the mapping, before it includes this.
 */
#ifndef XALLOC_HOLES_FIXTURE_H
#define XALLOC_HOLES_FIXTURE_H

#include "holes.h"

#define NAME NAMES "/holes-test"

FIXTURE(holes)
{
	int device;
	int fd;
	unsigned char *map;
	long huge_kb;
	struct xalloc_ioc_stat before;
};

FIXTURE_VARIANT(holes)
{
	size_t shift;
};

/* The kernel can map 2 MiB at once only at an address that is a multiple of 2 MiB. */
FIXTURE_VARIANT_ADD(holes, by_huge_pages)
{
	.shift = 0,
};

FIXTURE_VARIANT_ADD(holes, by_kpages)
{
	.shift = KPAGE_BYTES,
};

FIXTURE_SETUP(holes)
{
	unlink(NAME);
	self->device = device_setup(_metadata, &self->before);
	self->huge_kb = meminfo_kb("FileHugePages");
	self->fd = file_create(NAME);
	ASSERT_LE(0, self->fd);
	/* A mapping may go past the end of the file. */
	self->map = file_map(self->fd, MAP_BYTES, variant->shift);
	ASSERT_NE(NULL, self->map);
}

FIXTURE_TEARDOWN(holes)
{
	munmap(self->map, MAP_BYTES);
	close(self->fd);
	unlink(NAME);
	counters_expect(_metadata, self->device, &self->before);
	EXPECT_EQ(self->huge_kb, meminfo_kb("FileHugePages"));
	close(self->device);
}

#endif /* XALLOC_HOLES_FIXTURE_H */
