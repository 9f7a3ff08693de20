// SPDX-License-Identifier: MIT
/*
 * Options that look at each block: zero_on_free, canary and trace; and the report of what lives.
 *
 * The canary is the slack between the size that was asked for and the size of the block. How
 * long it is stands in a table beside the blocks, as nothing in the arena is believed.
 */
#include "checks.h"

#include <errno.h>
#include <execinfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "misuse.h"
#include "os.h"
#include "page.h"

#define NR_FRAMES 24
#define NR_BUCKETS 16384u

/* A block whose allocation was sampled; protected by xl_process.trace_lock. */
struct xl_trace {
	void *next_free; /* xl_meta_put() */
	struct xl_trace *next;
	uintptr_t address;
	size_t size;
	int nr_frames;
	void *frames[NR_FRAMES];
};

/* backtrace() allocates when it is first called. */
static __thread bool in_trace __attribute__((tls_model("initial-exec")));

/* --- canary */

/* The slack of a block. */
static uint16_t *slack_of(const struct xalloc_arena *arena, const void *ptr)
{
	return xl_map.slacks + xl_unit((uintptr_t)ptr - arena->shift);
}

/* Never zero, which is what strings end with. */
static unsigned char canary_of(const void *ptr)
{
	return 0xa5 ^ ((uintptr_t)ptr >> 4 & 0x5a);
}

static void set_canary(const struct xalloc_arena *arena, char *ptr, size_t size, size_t block_bytes)
{
	/* At most one less than a slice. */
	size += !size;
	*slack_of(arena, ptr) = block_bytes - size;
	memset(ptr + size, canary_of(ptr), block_bytes - size);
}

static void check_canary(const char *call, const char *ptr, struct xl_where *where)
{
	size_t slack = *slack_of(where->heap->arena, ptr), end = xl_block_bytes(where), i;

	for (i = end - slack; i < end; i++)
		if ((unsigned char)ptr[i] != canary_of(ptr))
			xl_overrun(call, ptr, end - slack, i, where);
}

/* --- traces */

static struct xl_trace **bucket_of(struct xl_process *p, uintptr_t address)
{
	return &p->traces[address / XL_QUANTUM * 2654435761u % NR_BUCKETS];
}

static void add_trace(struct xl_process *p, void *ptr, size_t size)
{
	struct xl_trace *trace, **bucket;

	if (in_trace || atomic_fetch_add(&p->nr_traced, 1) % p->options.trace)
		return;
	trace = xl_meta_get(XL_POOL_TRACE, sizeof(*trace));
	if (!trace)
		return;
	in_trace = true;
	trace->nr_frames = backtrace(trace->frames, NR_FRAMES);
	in_trace = false;
	trace->address = (uintptr_t)ptr;
	trace->size = size;
	pthread_mutex_lock(&p->trace_lock);
	if (!p->traces)
		p->traces = xl_os_private(NR_BUCKETS * sizeof(*p->traces));
	if (p->traces) {
		bucket = bucket_of(p, trace->address);
		trace->next = *bucket;
		*bucket = trace;
	}
	pthread_mutex_unlock(&p->trace_lock);
}

/* Of blocks from @first to before @end in one bucket. */
static void drop_traces(struct xl_trace **link, uintptr_t first, uintptr_t end)
{
	struct xl_trace *trace;

	while ((trace = *link)) {
		if (trace->address - first < end - first) {
			*link = trace->next;
			xl_meta_put(XL_POOL_TRACE, trace);
		} else {
			link = &trace->next;
		}
	}
}

/* Copies the trace with number @nr of a bucket, if there is one. */
static bool copy_trace(struct xl_process *p, unsigned int bucket, unsigned int nr,
		       struct xl_trace *copy)
{
	struct xl_trace *trace = NULL;

	pthread_mutex_lock(&p->trace_lock);
	if (p->traces)
		trace = p->traces[bucket];
	while (trace && nr--)
		trace = trace->next;
	if (trace)
		*copy = *trace;
	pthread_mutex_unlock(&p->trace_lock);
	return trace;
}

/* --- what calls see */

void *xl_checks_alloc(const struct xalloc_arena *arena, void *ptr, unsigned int cls, size_t size)
{
	struct xl_process *p = xl_process_peek();
	size_t block_bytes =
		cls == XL_CLASS_LARGE ? xl_round_up(size, XL_KPAGE) : xl_classes[cls].block_bytes;

	if (p->options.canary)
		set_canary(arena, ptr, size, block_bytes);
	if (p->options.trace)
		add_trace(p, ptr, size);
	return ptr;
}

void xl_checks_free(const char *call, void *ptr, struct xl_where *where)
{
	struct xl_process *p = where->process;

	if (p->options.canary)
		check_canary(call, ptr, where);
	if (p->options.zero_on_free)
		memset(ptr, 0, xl_block_bytes(where));
	if (p->options.trace) {
		pthread_mutex_lock(&p->trace_lock);
		if (p->traces)
			drop_traces(bucket_of(p, (uintptr_t)ptr), (uintptr_t)ptr,
				    (uintptr_t)ptr + 1);
		pthread_mutex_unlock(&p->trace_lock);
	}
}

void xl_checks_resize(const char *call, void *ptr, struct xl_where *where, size_t size)
{
	struct xl_process *p = where->process;
	size_t old = xl_checks_usable(ptr, where);

	if (p->options.canary)
		check_canary(call, ptr, where);
	if (!p->options.zero_on_free || size >= old)
		return;
	/* What becomes free here; if the block moves or stays, it is free soon or not used. */
	memset((char *)ptr + size, 0, old - size);
}

void xl_checks_resized(void *ptr, const struct xl_where *where, size_t size)
{
	struct xl_process *p = where->process;
	struct xl_trace *trace;

	if (p->options.canary)
		set_canary(where->heap->arena, ptr, size, xl_block_bytes(where));
	if (!p->options.trace)
		return;
	pthread_mutex_lock(&p->trace_lock);
	trace = p->traces ? *bucket_of(p, (uintptr_t)ptr) : NULL;
	while (trace && trace->address != (uintptr_t)ptr)
		trace = trace->next;
	if (trace)
		trace->size = size;
	pthread_mutex_unlock(&p->trace_lock);
}

size_t xl_checks_usable(const void *ptr, const struct xl_where *where)
{
	const uint16_t *slack = NULL;

	if (where->process->options.canary)
		slack = slack_of(where->heap->arena, ptr);
	return xl_block_bytes(where) - (slack ? *slack : 0);
}

static void clear_blocks(const struct xalloc_heap *heap, const struct xl_page *page)
{
	uintptr_t address;
	uint32_t block;

	if (page->cls == XL_CLASS_LARGE)
		return;
	for (block = 0; block < xl_classes[page->cls].nr_blocks; block++) {
		address = xl_block_address(page, block);
		if (xl_is_state(address, page->cls, XL_LIVE))
			memset((void *)(address + heap->arena->shift), 0,
			       xl_classes[page->cls].block_bytes);
	}
}

static void drop_traces_of_page(struct xl_process *p, const struct xalloc_heap *heap,
				const struct xl_page *page)
{
	uintptr_t first = xl_page_address(heap, page) + heap->arena->shift;
	unsigned int bucket;

	pthread_mutex_lock(&p->trace_lock);
	for (bucket = 0; p->traces && bucket < NR_BUCKETS; bucket++)
		drop_traces(&p->traces[bucket], first, first + page->nr_slices * XL_SLICE);
	pthread_mutex_unlock(&p->trace_lock);
}

void xl_checks_heap_gone(struct xalloc_heap *heap)
{
	struct xl_process *p = xl_process_peek();
	bool clears = p->options.zero_on_free && !heap->arena->leaving;
	struct xl_list *pos;
	unsigned int cls;

	for (cls = 0; cls <= XL_CLASS_LARGE; cls++) {
		struct xl_bin *bin = xl_bin_of(heap, cls);

		pthread_mutex_lock(&bin->lock);
		for (pos = bin->pages.next; pos != &bin->pages; pos = pos->next) {
			const struct xl_page *page = xl_entry(pos, struct xl_page, all);

			if (clears)
				clear_blocks(heap, page);
			if (p->options.trace)
				drop_traces_of_page(p, heap, page);
		}
		pos = cls == XL_CLASS_LARGE && clears ? heap->large.all.next : &heap->large.all;
		for (; pos != &heap->large.all; pos = pos->next) {
			const struct xl_extent *e = xl_entry(pos, struct xl_extent, all);

			if (e->used)
				memset((void *)(xl_map.base + e->first * XL_KPAGE +
						heap->arena->shift),
				       0, e->nr * XL_KPAGE);
		}
		pthread_mutex_unlock(&bin->lock);
	}
}

/* --- the report */

struct living {
	uint64_t nr[XL_NR_CLASSES + 1];
	uint64_t large_bytes;
};

static void count_page(const struct xl_page *page, struct living *living)
{
	uint32_t block;

	if (page->cls == XL_CLASS_LARGE)
		return;
	for (block = 0; block < xl_classes[page->cls].nr_blocks; block++)
		living->nr[page->cls] +=
			xl_is_state(xl_block_address(page, block), page->cls, XL_LIVE);
}

static void count_heap(struct xalloc_heap *heap, struct living *living)
{
	struct xl_list *pos;
	unsigned int cls;

	for (cls = 0; cls <= XL_CLASS_LARGE; cls++) {
		struct xl_bin *bin = xl_bin_of(heap, cls);

		pthread_mutex_lock(&bin->lock);
		for (pos = bin->pages.next; pos != &bin->pages; pos = pos->next)
			count_page(xl_entry(pos, struct xl_page, all), living);
		if (cls == XL_CLASS_LARGE)
			xl_large_count(heap, &living->nr[cls], &living->large_bytes);
		pthread_mutex_unlock(&bin->lock);
	}
}

static void count_all(struct xl_process *p, struct living *living)
{
	struct xl_list *pos, *heap;

	pthread_mutex_lock(&p->lock);
	for (pos = p->arenas.next; pos != &p->arenas; pos = pos->next) {
		struct xalloc_arena *arena = xl_entry(pos, struct xalloc_arena, link);

		/* What is to stay is no leak. */
		if (arena->persists)
			continue;
		for (heap = arena->heaps.next; heap != &arena->heaps; heap = heap->next)
			count_heap(xl_entry(heap, struct xalloc_heap, link), living);
	}
	pthread_mutex_unlock(&p->lock);
}

__attribute__((format(printf, 2, 3))) static int put_line(int fd, const char *format, ...)
{
	char line[128];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	return xl_os_write(fd, line, len);
}

static int put_traces(int fd, struct xl_process *p)
{
	struct xl_trace trace;
	unsigned int bucket, nr;
	int ret = 0;

	for (bucket = 0; bucket < NR_BUCKETS; bucket++) {
		for (nr = 0; !ret && copy_trace(p, bucket, nr, &trace); nr++) {
			ret = put_line(fd, "xalloc: %p of %zu bytes, allocated by\n",
				       (void *)trace.address, trace.size);
			backtrace_symbols_fd(trace.frames, trace.nr_frames, fd);
		}
	}
	return ret;
}

int xalloc_report(int fd)
{
	struct xl_process *p = xl_process_peek();
	struct living living = { 0 };
	uint64_t nr = 0, bytes = 0;
	unsigned int cls;
	int ret;

	if (p)
		count_all(p, &living);
	for (cls = 0; cls < XL_NR_CLASSES; cls++) {
		nr += living.nr[cls];
		bytes += living.nr[cls] * xl_classes[cls].block_bytes;
	}
	nr += living.nr[XL_CLASS_LARGE];
	bytes += living.large_bytes;
	ret = put_line(fd, "xalloc: %llu blocks of %llu bytes live\n", (unsigned long long)nr,
		       (unsigned long long)bytes);
	for (cls = 0; cls < XL_NR_CLASSES && !ret; cls++)
		if (living.nr[cls])
			ret = put_line(fd, "xalloc: %llu of size class %u\n",
				       (unsigned long long)living.nr[cls],
				       xl_classes[cls].block_bytes);
	if (living.nr[XL_CLASS_LARGE] && !ret)
		ret = put_line(fd, "xalloc: %llu large ones of %llu bytes together\n",
			       (unsigned long long)living.nr[XL_CLASS_LARGE],
			       (unsigned long long)living.large_bytes);
	return p && !ret ? put_traces(fd, p) : ret;
}

__attribute__((destructor)) static void report_leaks(void)
{
	struct xl_process *p = xl_process_peek();

	if (p && p->options.leaks)
		xalloc_report(STDERR_FILENO);
}
