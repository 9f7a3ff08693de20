// SPDX-License-Identifier: MIT
/*
 * What glibc's malloc has beyond the calls of C: statistics, trimming and tuning. All of it is
 * about the default arena. Statistics that libxalloc does not keep are zero: how many free blocks
 * there are, and the largest sums of the past.
 */
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "preload.h"

/* All zero before the first allocation. */
static struct xalloc_arena_stat read_stat(void)
{
	struct xl_process *p = xl_process_peek();
	struct xalloc_heap *heap =
		p ? atomic_load_explicit(&p->default_heap, memory_order_acquire) : NULL;
	struct xalloc_arena_stat stat = { .size = sizeof(stat) };

	if (!heap || xalloc_arena_stats(heap->arena, &stat))
		return (struct xalloc_arena_stat){ 0 };
	/* The numbers are from different moments. */
	if (stat.granted_bytes > stat.committed_bytes)
		stat.granted_bytes = stat.committed_bytes;
	if (stat.used_bytes > stat.committed_bytes)
		stat.used_bytes = stat.committed_bytes;
	return stat;
}

/* Whether memory went back. How much the program would like to keep, @pad, does not matter. */
XL_EXPORT int malloc_trim(size_t pad)
{
	uint64_t before = read_stat().committed_bytes;

	(void)pad;
	if (!before)
		return 0;
	xalloc_arena_trim(xalloc_arena_default());
	return read_stat().committed_bytes < before;
}

XL_EXPORT struct mallinfo2 mallinfo2(void)
{
	struct xalloc_arena_stat stat = read_stat();

	return (struct mallinfo2){
		.arena = stat.committed_bytes,
		.uordblks = stat.used_bytes,
		.fordblks = stat.committed_bytes - stat.used_bytes,
		.keepcost = stat.committed_bytes - stat.granted_bytes,
	};
}

/* The largest int stands for all that is more. */
static int to_int(size_t number)
{
	return number < INT_MAX ? (int)number : INT_MAX;
}

XL_EXPORT struct mallinfo __libc_mallinfo(void)
{
	struct mallinfo2 info = mallinfo2();

	return (struct mallinfo){
		.arena = to_int(info.arena),
		.uordblks = to_int(info.uordblks),
		.fordblks = to_int(info.fordblks),
		.keepcost = to_int(info.keepcost),
	};
}

XL_EXPORT struct mallinfo mallinfo(void)
{
	return __libc_mallinfo();
}

/* Returns whether there is such a parameter. None of them does anything here. */
XL_EXPORT int mallopt(int param, int value)
{
	(void)value;
	switch (param) {
	case M_MXFAST:
	case M_NLBLKS:
	case M_GRAIN:
	case M_KEEP:
	case M_TRIM_THRESHOLD:
	case M_TOP_PAD:
	case M_MMAP_THRESHOLD:
	case M_MMAP_MAX:
	case M_CHECK_ACTION:
	case M_PERTURB:
	case M_ARENA_TEST:
	case M_ARENA_MAX:
		return 1;
	default:
		return 0;
	}
}

static void write_sums(FILE *file, const struct mallinfo2 *info)
{
	fprintf(file, "<total type=\"fast\" count=\"0\" size=\"0\"/>\n");
	fprintf(file, "<total type=\"rest\" count=\"0\" size=\"%zu\"/>\n", info->fordblks);
}

static void write_system(FILE *file, const struct mallinfo2 *info)
{
	fprintf(file, "<system type=\"current\" size=\"%zu\"/>\n", info->arena);
	fprintf(file, "<aspace type=\"total\" size=\"%zu\"/>\n", info->arena);
}

/* As that of glibc, of one arena without sizes of free blocks. */
XL_EXPORT int malloc_info(int flags, FILE *file)
{
	struct mallinfo2 info = mallinfo2();

	if (flags)
		return EINVAL;
	fprintf(file, "<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n</sizes>\n");
	write_sums(file, &info);
	write_system(file, &info);
	fprintf(file, "</heap>\n");
	write_sums(file, &info);
	fprintf(file, "<total type=\"mmap\" count=\"0\" size=\"0\"/>\n");
	write_system(file, &info);
	fprintf(file, "</malloc>\n");
	return 0;
}

static void write_stats(const char *title, const struct mallinfo2 *info)
{
	fprintf(stderr, "%s:\n", title);
	fprintf(stderr, "system bytes     = %10zu\n", info->arena);
	fprintf(stderr, "in use bytes     = %10zu\n", info->uordblks);
}

XL_EXPORT void malloc_stats(void)
{
	struct mallinfo2 info = mallinfo2();

	write_stats("Arena 0", &info);
	write_stats("Total (incl. mmap)", &info);
}

/* --- other names, by which a program's own malloc() may call that of libc */

XL_EXPORT void *__libc_malloc(size_t size)
{
	return malloc(size);
}

XL_EXPORT void *__libc_calloc(size_t nmemb, size_t size)
{
	return calloc(nmemb, size);
}

XL_EXPORT void *__libc_realloc(void *ptr, size_t size)
{
	return realloc(ptr, size);
}

XL_EXPORT void *__libc_memalign(size_t alignment, size_t size)
{
	return memalign(alignment, size);
}

XL_EXPORT void *__libc_valloc(size_t size)
{
	return valloc(size);
}

XL_EXPORT void *__libc_pvalloc(size_t size)
{
	return pvalloc(size);
}

XL_EXPORT void __libc_free(void *ptr)
{
	free(ptr);
}

/* Programs are not linked with it any more. */
XL_EXPORT void cfree(void *ptr)
{
	free(ptr);
}

XL_EXPORT int __libc_mallopt(int param, int value)
{
	return mallopt(param, value);
}
