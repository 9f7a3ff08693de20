// SPDX-License-Identifier: MIT
/*
 * Start-up: what the first call of a process does.
 *
 * struct xl_process lies in memory that a fork wipes, unless XL_PRELOAD. So in a child the library
 * is simply not started, and no lock is held, also when another thread of the parent was in the
 * middle of a call. If the child allocates, it takes a zone of its own.
 */
#include <errno.h>

#include "backend.h"
#include "cache.h"
#include "os.h"
#include "zone.h"

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

	p->backend = p->options.local ? &xl_local_backend : &xl_device_backend;

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
	p->flight = (pthread_rwlock_t)PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
	xl_list_init(&p->arenas);
	xl_list_init(&p->caches);
	xl_classes_init();
	atomic_store_explicit(&p->ready, true, memory_order_release);
	return 0;
}

struct xl_process *xl_process_get(void)
{
	struct xl_process *p = xl_process_peek();
	int ret = 0;

	if (p)
		return p;
	p = xl_process_object(true);
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
