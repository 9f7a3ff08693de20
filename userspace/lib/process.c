// SPDX-License-Identifier: MIT
/*
 * Start-up: the one struct xl_process, the range all arenas lie in, and what a fork does.
 *
 * The object lies in memory that a fork wipes, unless XL_PRELOAD. So in a child the library is
 * simply not started, and no lock is held, also when another thread of the parent was in the
 * middle of a call. The child reserves a range of its own, if it allocates. The range of the
 * parent, which it does not have, it reserves at once, so that nothing of the child gets the
 * address of a block of the parent. A child of the child does so with both ranges, and so on
 * up to XL_FOREBEARS of them.
 */
#include <errno.h>

#include "internal.h"
#include "os.h"

/* Bounds the addresses reserved, a range for each. */
#define XL_FOREBEARS 4

/*
 * So that the states and the tags of the first blocks do not differ in their page alone: to many
 * CPUs a load then seems to depend on a store until their whole addresses are compared.
 */
#define TAGS_OFFSET 250

static struct xl_process *_Atomic process;

/*
 * What a fork does not wipe; protected by process->lock, but in xl_reserve_parents(). @bytes is
 * zero while @base changes.
 */
static struct xl_ranges {
	struct xl_range {
		uintptr_t base;
		atomic_size_t bytes;
	} owned, inherited[XL_FOREBEARS];
	unsigned int nr_inherited; /* ever; the latest are kept */
} ranges;

/*
 * Adopted memory, of this process and of its forebears, none of which a fork wipes: a child that
 * frees such a block is not to blame.
 */
static struct xl_adopted {
	struct xl_adopted *next;
	struct xl_range range;
	uintptr_t shift;         /* of the arena */
	unsigned int generation; /* ranges.nr_inherited of its process */
} * adopted;

static void set_range(struct xl_range *range, uintptr_t base, size_t bytes)
{
	atomic_store(&range->bytes, 0);
	range->base = base;
	atomic_store(&range->bytes, bytes);
}

static bool holds(const struct xl_range *range, uintptr_t address)
{
	return address - range->base < range->bytes;
}

static bool overlaps(const struct xl_range *range, uintptr_t base, size_t bytes)
{
	return holds(range, base) || (range->bytes && range->base - base < bytes);
}

static bool is_inherited(uintptr_t address)
{
	unsigned int i;

	for (i = 0; i < XL_FOREBEARS; i++)
		if (holds(&ranges.inherited[i], address))
			return true;
	return false;
}

static bool overlaps_inherited(uintptr_t base, size_t bytes)
{
	unsigned int i;

	for (i = 0; i < XL_FOREBEARS; i++)
		if (overlaps(&ranges.inherited[i], base, bytes))
			return true;
	return false;
}

static void reserve_again(const struct xl_range *range)
{
	if (range->bytes)
		xl_os_reserve_free((void *)range->base, range->bytes);
}

/* In a new child, before anything else can take the addresses. */
void xl_reserve_parents(void)
{
	unsigned int i;

	reserve_again(&ranges.owned);
	for (i = 0; i < XL_FOREBEARS; i++)
		reserve_again(&ranges.inherited[i]);
}

/* So that arenas of sizes that are powers of two fill the range. */
static size_t range_alignment(size_t bytes)
{
	size_t floor = (size_t)1 << (63 - __builtin_clzll(bytes));

	return floor < XL_GIB ? floor : XL_GIB;
}

/* Returns addresses with room for @bytes at a multiple of range_alignment(), or 0. */
static uintptr_t reserve_range(size_t bytes)
{
	size_t room = bytes + range_alignment(bytes);
	void *base = xl_os_reserve(room);

	/* Only where xl_reserve_parents() did not run, as after _Fork(), or came too late. */
	if (base && overlaps_inherited((uintptr_t)base, room)) {
		void *again = xl_os_reserve(room);

		xl_os_unreserve(base, room);
		base = again;
	}
	return (uintptr_t)base;
}

static void say_range(struct xl_process *p, size_t bytes, int ret)
{
	size_t limit = xl_os_address_space();

	if (p->said_range)
		return;
	p->said_range = true;
	if (limit != SIZE_MAX)
		xl_say("xalloc: no %zu MiB of addresses: RLIMIT_AS (ulimit -v) is %zu MiB; raise it or set XALLOC_RANGE to less\n",
		       bytes >> 20, limit >> 20);
	else
		xl_say("xalloc: no %zu MiB of addresses (error %d); set XALLOC_RANGE to less\n",
		       bytes >> 20, -ret);
}

static void unmap_table(void *table, size_t bytes)
{
	if (table)
		xl_os_unreserve(table, bytes);
}

/*
 * The tables of the range. Those of a parent, which the fork has wiped, serve again if they are
 * large enough, and stay in any case: another thread may just look for an inherited block.
 */
static int map_tables(uintptr_t base, size_t bytes)
{
	size_t nr_slices = bytes / XL_SLICE;
	struct xl_map map = xl_map;

	if (bytes / XL_QUANTUM > map.nr_units) {
		map.base = 0;
		map.tags = xl_os_sparse((nr_slices + TAGS_OFFSET) * sizeof(*map.tags));
		map.extent_of = xl_os_sparse(bytes / XL_KPAGE * sizeof(*map.extent_of));
		map.page_of = xl_os_sparse(nr_slices * sizeof(*map.page_of));
		map.states = (uintptr_t)xl_os_sparse(bytes / XL_STATE_BYTES);
		map.tiny_states = (uintptr_t)xl_os_sparse(bytes / XL_QUANTUM);
		if (!map.tags || !map.extent_of || !map.page_of || !map.states ||
		    !map.tiny_states) {
			unmap_table(map.tags, (nr_slices + TAGS_OFFSET) * sizeof(*map.tags));
			unmap_table(map.extent_of, bytes / XL_KPAGE * sizeof(*map.extent_of));
			unmap_table(map.page_of, nr_slices * sizeof(*map.page_of));
			unmap_table((void *)map.states, bytes / XL_STATE_BYTES);
			unmap_table((void *)map.tiny_states, bytes / XL_QUANTUM);
			return -ENOMEM;
		}
		map.tags += TAGS_OFFSET;
	}
	/* Their first bytes are for what lies at @base. */
	map.states += map.base / XL_STATE_BYTES - base / XL_STATE_BYTES;
	map.tiny_states += map.base / XL_QUANTUM - base / XL_QUANTUM;
	map.nr_units = bytes / XL_QUANTUM;
	map.base = base;
	xl_map = map;
	return 0;
}

static int start(struct xl_process *p)
{
	static bool have_handler;
	size_t bytes, alignment;
	uintptr_t base;
	int ret;

	if (p->start_error)
		return p->start_error;
	ret = xl_options_read(&p->options);
	if (ret) {
		p->start_error = ret;
		return ret;
	}
	if (ranges.owned.bytes) {
		xl_reserve_parents();
		set_range(&ranges.inherited[ranges.nr_inherited++ % XL_FOREBEARS],
			  ranges.owned.base, ranges.owned.bytes);
		set_range(&ranges.owned, 0, 0);
	}

	/* They stay for the children of children. */
	if (!have_handler) {
		ret = xl_caches_init();
		if (!ret)
			ret = xl_fork_init();
		if (ret)
			return ret;
		have_handler = true;
	}

	bytes = p->options.range_bytes;
	alignment = range_alignment(bytes);
	base = reserve_range(bytes);
	if (!base) {
		ret = -errno;
		say_range(p, bytes, ret);
		return ret;
	}
	ret = map_tables(xl_round_up(base, alignment), bytes);
	if (ret) {
		say_range(p, bytes, ret);
		xl_os_unreserve((void *)base, bytes + alignment);
		return ret;
	}
	set_range(&ranges.owned, base, bytes + alignment);
	p->base = xl_map.base;
	p->bytes = bytes;
	xl_list_init(&p->arenas);
	xl_list_init(&p->parked);
	xl_classes_init();
	atomic_store_explicit(&p->ready, true, memory_order_release);
	return 0;
}

struct xl_process *xl_process_peek(void)
{
	struct xl_process *p = atomic_load_explicit(&process, memory_order_acquire);

	return p && atomic_load_explicit(&p->ready, memory_order_acquire) ? p : NULL;
}

static struct xl_process *object(void)
{
	struct xl_process *old = atomic_load_explicit(&process, memory_order_acquire);
	struct xl_process *p;

	if (old)
		return old;
	p = xl_os_private(sizeof(*p));
	if (!p || atomic_compare_exchange_strong(&process, &old, p))
		return p;
	xl_os_unprivate(p, sizeof(*p));
	return old;
}

struct xl_process *xl_process_get(void)
{
	struct xl_process *p = xl_process_peek();
	int ret = 0;

	if (p)
		return p;
	p = object();
	if (!p)
		return NULL;
	/* All zero is PTHREAD_MUTEX_INITIALIZER, here and for each lock in wiped memory. */
	pthread_mutex_lock(&p->lock);
	if (!atomic_load_explicit(&p->ready, memory_order_relaxed))
		ret = start(p);
	pthread_mutex_unlock(&p->lock);
	if (ret) {
		errno = -ret;
		return NULL;
	}
	return p;
}

static bool is_own(const struct xl_adopted *a)
{
	return a->generation == ranges.nr_inherited;
}

/* The caller holds lock 1. */
static struct xl_adopted *find_adopted(uintptr_t address, bool own)
{
	struct xl_adopted *a;

	for (a = adopted; a; a = a->next)
		if (holds(&a->range, address) && is_own(a) == own)
			return a;
	return NULL;
}

bool xl_inherited(uintptr_t address)
{
	struct xl_process *p = atomic_load_explicit(&process, memory_order_acquire);
	bool ready, ret;

	if (!p)
		return false;
	pthread_mutex_lock(&p->lock);
	ready = atomic_load_explicit(&p->ready, memory_order_relaxed);
	ret = is_inherited(address) || (!ready && holds(&ranges.owned, address)) ||
	      find_adopted(address, false) || (!ready && find_adopted(address, true));
	pthread_mutex_unlock(&p->lock);
	return ret;
}

int xl_adopted_add(struct xalloc_arena *arena)
{
	uintptr_t first = (uintptr_t)arena->blocks.iov_base;
	size_t bytes = arena->blocks.iov_len;
	struct xl_adopted *a;

	for (a = adopted; a; a = a->next)
		if (is_own(a) && overlaps(&a->range, first, bytes))
			return -EEXIST;
	a = xl_os_lasting(sizeof(*a));
	if (!a)
		return -ENOMEM;
	set_range(&a->range, first, bytes);
	a->shift = arena->shift;
	a->generation = ranges.nr_inherited;
	a->next = adopted;
	adopted = a;
	return 0;
}

void xl_adopted_del(const struct xalloc_arena *arena)
{
	struct xl_adopted **link = &adopted, *a;

	for (; (a = *link); link = &a->next) {
		if (is_own(a) && a->shift == arena->shift &&
		    a->range.base == (uintptr_t)arena->blocks.iov_base) {
			*link = a->next;
			xl_os_unreserve(a, sizeof(*a));
			return;
		}
	}
}

uintptr_t xl_inside(uintptr_t address)
{
	struct xl_process *p = xl_process_peek();
	struct xl_adopted *a;

	if (!p || address - p->base < p->bytes)
		return address;
	pthread_mutex_lock(&p->lock);
	a = find_adopted(address, true);
	if (a)
		address -= a->shift;
	pthread_mutex_unlock(&p->lock);
	return address;
}
