// SPDX-License-Identifier: MIT
/*
 * Start-up: the one struct xl_process, the range all arenas lie in, and what a fork does.
 *
 * The object lies in memory that a fork wipes. So in a child the library is simply not
 * started, and no lock is held, also when another thread of the parent was in the
 * middle of a call. The child reserves a range of its own. The parent's stays reserved in it
 * (but for the arenas, which the kernel does not copy), so that an address of one can
 * never be an address of the other.
 */
#include <errno.h>

#include "internal.h"
#include "os.h"

static struct xl_process *_Atomic process;

/* What a fork does not wipe; protected by process->lock. */
static struct xl_ranges {
	struct xl_range {
		uintptr_t base;
		size_t bytes;
	} owned, inherited;
} ranges;

static bool holds(const struct xl_range *range, uintptr_t address)
{
	return address - range->base < range->bytes;
}

static bool overlap(const struct xl_range *a, const struct xl_range *b)
{
	return a->bytes && b->bytes && (holds(a, b->base) || holds(b, a->base));
}

/* So that arenas of sizes that are powers of two fill the range. */
static size_t range_alignment(size_t bytes)
{
	size_t floor = (size_t)1 << (63 - __builtin_clzll(bytes));

	return floor < XL_GIB ? floor : XL_GIB;
}

static int reserve(struct xl_range *range, size_t bytes)
{
	range->bytes = bytes;
	range->base = (uintptr_t)xl_os_reserve(bytes);
	return range->base ? 0 : -errno;
}

/* @range has room for @bytes at a multiple of range_alignment(). */
static int reserve_range(size_t bytes, struct xl_range *range)
{
	struct xl_range again;
	int ret;

	ret = reserve(range, bytes + range_alignment(bytes));
	/* The parent's range has holes where its arenas were; do not land in one. */
	if (!ret && overlap(range, &ranges.inherited)) {
		ret = reserve(&again, range->bytes);
		xl_os_unreserve((void *)range->base, range->bytes);
		*range = again;
	}
	return ret;
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

static int start(struct xl_process *p)
{
	struct xl_range range;
	size_t bytes;
	int ret;

	if (p->start_error)
		return p->start_error;
	ret = xl_options_read(&p->options);
	if (ret) {
		p->start_error = ret;
		return ret;
	}
	bytes = p->options.range_bytes;

	ranges.inherited = ranges.owned.bytes ? ranges.owned : ranges.inherited;
	ranges.owned = (struct xl_range){ 0 };
	ret = reserve_range(bytes, &range);
	if (ret) {
		say_range(p, bytes, ret);
		return ret;
	}
	p->page_of = xl_os_sparse(bytes / XL_SLICE * sizeof(*p->page_of));
	if (!p->page_of) {
		ret = -errno;
		say_range(p, bytes, ret);
		xl_os_unreserve((void *)range.base, range.bytes);
		return ret;
	}
	ranges.owned = range;
	p->base = (range.base + range_alignment(bytes) - 1) & ~(range_alignment(bytes) - 1);
	p->bytes = bytes;
	xl_list_init(&p->arenas);
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

bool xl_inherited(uintptr_t address)
{
	struct xl_process *p = atomic_load_explicit(&process, memory_order_acquire);
	bool ret;

	if (!p)
		return false;
	pthread_mutex_lock(&p->lock);
	ret = holds(&ranges.inherited, address) ||
	      (!atomic_load_explicit(&p->ready, memory_order_relaxed) &&
	       holds(&ranges.owned, address));
	pthread_mutex_unlock(&p->lock);
	return ret;
}
