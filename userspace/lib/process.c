// SPDX-License-Identifier: MIT
/* The one object that holds the state of the library in this process. */
#include "internal.h"
#include "os.h"

static struct xl_process *_Atomic process;

struct xl_process *xl_process_peek(void)
{
	struct xl_process *p = atomic_load_explicit(&process, memory_order_acquire);

	return p && atomic_load_explicit(&p->ready, memory_order_acquire) ? p : NULL;
}

struct xl_process *xl_process_object(bool create)
{
	struct xl_process *old = atomic_load_explicit(&process, memory_order_acquire);
	struct xl_process *p;

	if (old || !create)
		return old;
	p = xl_os_private(sizeof(*p));
	if (!p || atomic_compare_exchange_strong(&process, &old, p))
		return p;
	xl_os_unprivate(p, sizeof(*p));
	return old;
}
