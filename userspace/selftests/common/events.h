/* SPDX-License-Identifier: GPL-2.0-only */
/* Counts what the kernel does for this thread, by its trace events and by probes. */
#ifndef XALLOC_EVENTS_H
#define XALLOC_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Makes the event "xalloc/@name" of each call of the kernel function @function. @fields names what
 * is recorded of a call, in the words of the kernel's Documentation/trace/kprobetrace.rst. Returns
 * false where the kernel has no probes.
 */
bool probe_make(const char *name, const char *function, const char *fields);
void probe_remove(const char *name);

/*
 * A descriptor that counts an event ("kmem/kmem_cache_alloc") in this thread, or only those that
 * @filter holds for (NULL: all). -ENODEV where the kernel has no such event, or another negative
 * error.
 */
int events_open(const char *event, const char *filter);

/* How many events there were since events_open(). */
uint64_t events_read(int counter);

#endif
