// SPDX-License-Identifier: MIT
/*
 * Start-up: the one struct xl_process, adopted memory, and what a fork does.
 *
 * The object lies in memory that a fork wipes, unless XL_PRELOAD. So in a child the library is
 * simply not started, and no lock is held, also when another thread of the parent was in the
 * middle of a call. If the child allocates, it takes a zone of its own.
 */
#include <errno.h>

#include "internal.h"
#include "os.h"
#include "zone.h"

static struct xl_process *_Atomic process;

/*
 * Adopted memory, of this process and of its forebears, none of which a fork wipes: a child that
 * frees such a block is not to blame.
 */
static struct xl_adopted {
	struct xl_adopted *next;
	uintptr_t first;
	size_t bytes;
	uintptr_t shift;        /* of the arena */
	unsigned long start_nr; /* of its process */
} * adopted;

/* How many times this process and its forebears have started. A fork does not wipe it. */
static unsigned long nr_starts;

/* Once in a process and its children. */
static void say_addresses(int error)
{
	static atomic_flag said = ATOMIC_FLAG_INIT;
	size_t limit = xl_os_address_space();

	if (atomic_flag_test_and_set(&said))
		return;
	if (limit != SIZE_MAX)
		xl_say("xalloc: no addresses for the tables of the library: RLIMIT_AS (ulimit -v) is %zu MiB\n",
		       limit >> 20);
	else
		xl_say("xalloc: no addresses for the tables of the library (error %d)\n", error);
}

/* Returns 0, or -EINVAL after a line on stderr. */
static int check_limit(struct xl_options *options)
{
	size_t most = xl_zone_default_most();

	if (options->limit_bytes <= most)
		return 0;
	if (options->limit_is_set) {
		xl_say("xalloc: XALLOC_LIMIT is %zu MiB; there are no addresses for more than %zu MiB\n",
		       options->limit_bytes >> 20, most >> 20);
		return -EINVAL;
	}
	options->limit_bytes = most;
	return 0;
}

static int start(struct xl_process *p)
{
	static bool have_handler;
	int ret;

	if (p->start_error)
		return p->start_error;
	ret = xl_options_read(&p->options);
	if (ret) {
		p->start_error = ret;
		return ret;
	}

	/* They stay for the children of children. */
	if (!have_handler) {
		xl_caches_init();
		ret = xl_fork_init();
		if (ret)
			return ret;
		have_handler = true;
	}

	ret = xl_zone_start(p->options.limit_bytes, p->options.canary);
	if (ret) {
		say_addresses(-ret);
		return ret;
	}
	ret = check_limit(&p->options);
	if (ret) {
		p->start_error = ret;
		return ret;
	}
	nr_starts++;
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
	if (!p) {
		say_addresses(errno);
		errno = ENOMEM;
		return NULL;
	}
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
	return a->start_nr == nr_starts;
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
	struct xl_process *p = atomic_load_explicit(&process, memory_order_acquire);
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
	a->start_nr = nr_starts;
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
