// SPDX-License-Identifier: MIT
/*
 * Adopted memory, and which addresses are a forebear's.
 *
 * Adopted memory lies outside of the zone. What is known of it is kept for an address in the zone,
 * and the distance between the two is the shift of its arena.
 */
#include <errno.h>

#include "internal.h"
#include "os.h"
#include "zone.h"

/*
 * Adopted memory of this process and of its forebears. A fork does not wipe this list, because a
 * child may free a block of a forebear, and that is no misuse.
 */
static struct xl_adopted {
	struct xl_adopted *next;
	uintptr_t first;
	size_t bytes;
	uintptr_t shift;        /* of the arena */
	unsigned long start_nr; /* of its process */
} * adopted;

static bool is_own(const struct xl_adopted *a)
{
	return a->start_nr == xl_zone_nr_starts();
}

static bool holds(const struct xl_adopted *a, uintptr_t address)
{
	return address - a->first < a->bytes;
}

/* The caller holds lock 1. */
static struct xl_adopted *find_adopted(uintptr_t address, bool own)
{
	struct xl_adopted *a;

	for (a = adopted; a; a = a->next)
		if (holds(a, address) && is_own(a) == own)
			return a;
	return NULL;
}

bool xl_inherited(uintptr_t address)
{
	struct xl_process *p = xl_process_object(false);
	bool ready, ret;

	if (!p)
		return false;
	pthread_mutex_lock(&p->lock);
	ready = atomic_load_explicit(&p->ready, memory_order_relaxed);
	ret = xl_zone_inherited(address, ready) || find_adopted(address, false) ||
	      (!ready && find_adopted(address, true));
	pthread_mutex_unlock(&p->lock);
	return ret;
}

int xl_adopted_add(struct xalloc_arena *arena)
{
	uintptr_t first = (uintptr_t)arena->blocks.iov_base;
	size_t bytes = arena->blocks.iov_len;
	struct xl_adopted *a;

	for (a = adopted; a; a = a->next)
		if (is_own(a) && (holds(a, first) || a->first - first < bytes))
			return -EEXIST;
	a = xl_os_lasting(sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->first = first;
	a->bytes = bytes;
	a->shift = arena->shift;
	a->start_nr = xl_zone_nr_starts();
	a->next = adopted;
	adopted = a;
	return 0;
}

void xl_adopted_del(const struct xalloc_arena *arena)
{
	struct xl_adopted **link = &adopted, *a;

	for (; (a = *link); link = &a->next) {
		if (is_own(a) && a->shift == arena->shift &&
		    a->first == (uintptr_t)arena->blocks.iov_base) {
			*link = a->next;
			xl_os_unmap(a, sizeof(*a));
			return;
		}
	}
}

uintptr_t xl_inside(uintptr_t address)
{
	struct xl_process *p = xl_process_peek();
	struct xl_adopted *a;

	if (!p || address - xl_map.base < xl_map.bytes)
		return address;
	pthread_mutex_lock(&p->lock);
	a = find_adopted(address, true);
	if (a)
		address -= a->shift;
	pthread_mutex_unlock(&p->lock);
	return address;
}
