/* SPDX-License-Identifier: GPL-2.0-only */
/* The fixture of the tests of arenas that a child of fork gets a copy of. */
#ifndef XALLOC_FORK_FIXTURE_H
#define XALLOC_FORK_FIXTURE_H

#include "selftest.h"
#include "sharing.h"

#define ARENA_BYTES (64 * MIB)

FIXTURE(fork_copy)
{
	int device;
	int arena;
	unsigned char *map;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(fork_copy)
{
	self->device = device_setup(_metadata, &self->before);
	self->arena = family_create(self->device, ARENA_BYTES, 0);
	ASSERT_LE(0, self->arena);
	self->map = arena_map(self->arena, ARENA_BYTES);
	ASSERT_NE(NULL, self->map);
}

FIXTURE_TEARDOWN(fork_copy)
{
	munmap(self->map, ARENA_BYTES);
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

static inline bool is_filled(const unsigned char *map, size_t bytes, uint64_t seed)
{
	return pattern_mismatch(map, bytes, seed) == -1;
}

#endif /* XALLOC_FORK_FIXTURE_H */
