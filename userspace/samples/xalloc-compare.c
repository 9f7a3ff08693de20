// SPDX-License-Identifier: MIT
/*
 * xalloc-compare: what the same amount of buffer memory costs in four kinds of memory
 *
 * Each kind is measured in a process of its own, so that the kernel counts it alone: faults
 * by getrusage(), huge pages by smaps_rollup, registration by a clock, the pool of huge pages
 * by meminfo, arenas by the module. The exit status is 0 only if the figures are what each
 * kind promises: 2 MiB pages throughout, or none, one fault a page, nothing kept.
 */
#include <fcntl.h>
#include <liburing.h>
#include <libxalloc.h>
#include <linux/xalloc.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "advice.h"

#define HUGE_BYTES ((size_t)2 << 20)
#define NR_REGISTRATIONS 15
#define MIB_DEFAULT 64
/* io_uring takes no larger buffer. */
#define MIB_MAX 1024

enum row {
	ROW_HUGE_MIB,
	ROW_FAULTS,
	ROW_REGISTER_MS,
	ROW_POOL_MIB, /* taken from what was reserved before */
	ROW_PINNED_MIB,
	ROW_KEPT_MIB, /* that the rest of the system did not get back */
	NR_ROWS
};

static const struct {
	const char *label;
	int decimals;
} rows[NR_ROWS] = {
	[ROW_HUGE_MIB] = { "mapped by 2 MiB pages, MiB" },
	[ROW_FAULTS] = { "page faults at first touch" },
	[ROW_REGISTER_MS] = { "io_uring registration, ms", 2 },
	[ROW_POOL_MIB] = { "reserved ahead, MiB" },
	[ROW_PINNED_MIB] = { "pinned without registration, MiB" },
	[ROW_KEPT_MIB] = { "held back after exit, MiB" },
};

/* One column; a child writes most of it, in memory it shares with its parent. */
struct column {
	double cell[NR_ROWS]; /* NAN: could not be had, and the note says why */
	size_t pool_free;     /* bytes, while the buffer was there */
	bool is_unsupported;  /* the kernel registers no memory of this kind */
	char note[600];
};

struct kind {
	const char *name;
	void *(*get)(struct column *column);
	size_t page_bytes; /* of each page; 0 where the kernel decides */
};

static int device;
static size_t buffer_bytes;
static struct xalloc_arena *arena;

__attribute__((format(printf, 2, 3))) static void *note(struct column *column, const char *format,
							...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(column->note, sizeof(column->note), format, args);
	va_end(args);
	return NULL;
}

static double mib(size_t bytes)
{
	return bytes / 1048576.0;
}

static void *get_malloc(struct column *column)
{
	/* Aligned as O_DIRECT wants it. */
	void *buffer = aligned_alloc(4096, buffer_bytes);

	return buffer ? buffer : note(column, "%s", strerror(errno));
}

static void *get_malloc_without_thp(struct column *column)
{
	if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
		return note(column, "PR_SET_THP_DISABLE: %s", strerror(errno));
	return get_malloc(column);
}

static void *get_hugetlb(struct column *column)
{
	/* 2 MiB, whatever size the machine has by default. */
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | 21 << MAP_HUGE_SHIFT;
	void *buffer = mmap(NULL, buffer_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);

	if (buffer != MAP_FAILED)
		return buffer;
	if (errno == EINVAL)
		return note(column, "this kernel has no huge pages of 2 MiB");
	return note(column, "%s: it needs pages reserved ahead (sudo sysctl vm.nr_hugepages=%zu)",
		    strerror(errno), buffer_bytes / HUGE_BYTES);
}

static void *get_xalloc(struct column *column)
{
	const struct xalloc_arena_config config = {
		.size = sizeof(config),
		.arena_bytes = buffer_bytes,
	};
	struct xalloc_heap *heap;
	void *buffer;

	arena = xalloc_arena_create(&config);
	heap = arena ? xalloc_heap_create(arena) : NULL;
	if (!heap)
		return note(column, "no arena: %s", arena_advice(errno));
	buffer = xalloc_heap_malloc(heap, buffer_bytes);
	return buffer ? buffer : note(column, "no block: %s", block_advice(arena, buffer_bytes));
}

enum { MALLOC, NO_THP, HUGETLB, XALLOC, NR_KINDS };

static const struct kind kinds[NR_KINDS] = {
	[MALLOC] = { "malloc", get_malloc, 0 },
	[NO_THP] = { "malloc, no THP", get_malloc_without_thp, 4096 },
	[HUGETLB] = { "MAP_HUGETLB", get_hugetlb, HUGE_BYTES },
	[XALLOC] = { "xalloc", get_xalloc, HUGE_BYTES },
};

/* The sum of the lines "NAME: VALUE" of a file of proc. */
static size_t sum_of(const char *path, const char *const *names)
{
	FILE *file = fopen(path, "re");
	unsigned long long value;
	char line[200], name[100];
	size_t sum = 0;
	int i;

	if (!file)
		die("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%99[^:]: %llu", name, &value) != 2)
			continue;
		for (i = 0; names[i]; i++)
			if (!strcmp(name, names[i]))
				sum += value;
	}
	fclose(file);
	return sum;
}

static size_t huge_bytes(void)
{
	static const char *const names[] = { "AnonHugePages",  "ShmemPmdMapped",  "FilePmdMapped",
					     "Shared_Hugetlb", "Private_Hugetlb", NULL };

	return sum_of("/proc/self/smaps_rollup", names) << 10;
}

/* What the kernel counts to the process, and what the arena holds. */
static size_t pinned_bytes(void)
{
	static const char *const names[] = { "VmPin", "VmLck", NULL };
	struct xalloc_arena_stat stat = { .size = sizeof(stat) };

	if (arena && xalloc_arena_stats(arena, &stat))
		die("the state of the arena cannot be read");
	return (sum_of("/proc/self/status", names) << 10) + stat.committed_bytes;
}

static size_t pool_bytes_free(void)
{
	const char *path = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
	FILE *file = fopen(path, "re");
	size_t nr;

	/* A kernel without hugetlbfs has no pool. */
	if (!file)
		return 0;
	if (fscanf(file, "%zu", &nr) != 1)
		die("%s cannot be read", path);
	fclose(file);
	return nr * HUGE_BYTES;
}

static size_t module_bytes(void)
{
	struct xalloc_ioc_stat stat = { .size = sizeof(stat) };

	if (ioctl(device, XALLOC_IOC_STAT, &stat))
		die("the state of the module cannot be read: %s", strerror(errno));
	return stat.committed_bytes;
}

static long faults_so_far(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* The median of some registrations, each undone before the next. */
static void measure_registration(void *buffer, struct column *column)
{
	const struct iovec range = { buffer, buffer_bytes };
	double ms[NR_REGISTRATIONS];
	struct io_uring ring;
	int ret, i;

	ret = io_uring_queue_init(1, &ring, 0);
	if (ret) {
		note(column, "no ring: %s", ring_advice(ret));
		return;
	}
	for (i = 0; i < NR_REGISTRATIONS; i++) {
		ms[i] = now_ms();
		ret = io_uring_register_buffers(&ring, &range, 1);
		ms[i] = now_ms() - ms[i];
		if (ret) {
			note(column, "no registration: %s", register_advice(ret, buffer_bytes));
			column->is_unsupported = ret == -EOPNOTSUPP;
			break;
		}
		io_uring_unregister_buffers(&ring);
	}
	io_uring_queue_exit(&ring);
	if (ret)
		return;
	qsort(ms, NR_REGISTRATIONS, sizeof(ms[0]), by_value);
	column->cell[ROW_REGISTER_MS] = ms[NR_REGISTRATIONS / 2];
}

/* One page is touched before, so that no fault for the code itself is counted. */
static long touch(volatile char *buffer, size_t bytes)
{
	const long faults = faults_so_far();
	size_t i;

	for (i = 0; i < bytes; i += 4096)
		buffer[i] = 1;
	return faults_so_far() - faults;
}

static void measure(const struct kind *kind, struct column *column)
{
	const size_t pool_free = pool_bytes_free();
	char *buffer, other;
	size_t huge;

	buffer = kind->get(column);
	if (!buffer)
		return;
	huge = huge_bytes();
	touch(&other, 1);
	column->cell[ROW_FAULTS] = touch(buffer, buffer_bytes);
	column->cell[ROW_HUGE_MIB] = mib(huge_bytes() - huge);
	column->pool_free = pool_bytes_free();
	column->cell[ROW_POOL_MIB] = mib(pool_free - column->pool_free);
	measure_registration(buffer, column);
	column->cell[ROW_PINNED_MIB] = mib(pinned_bytes());
}

/* Measures in a child, and then what the child left behind. */
static void measure_kind(const struct kind *kind, struct column *column)
{
	const size_t before = module_bytes();
	size_t after;
	int status, i;
	pid_t child;

	for (i = 0; i < NR_ROWS; i++)
		column->cell[i] = NAN;
	child = fork();
	if (child < 0)
		die("fork: %s", strerror(errno));
	if (!child) {
		measure(kind, column);
		_exit(0);
	}
	if (waitpid(child, &status, 0) != child || status)
		die("%s: its process failed (status %#x)", kind->name, status);
	if (isnan(column->cell[ROW_FAULTS]))
		return;

	/* Some of it ends a little later than the process. */
	for (i = 0, after = before; i < 200; i++) {
		after = module_bytes();
		if (after <= before)
			break;
		usleep(10000);
	}
	column->cell[ROW_KEPT_MIB] = after > before ? mib(after - before) : 0;
	if (column->cell[ROW_POOL_MIB] > 0)
		column->cell[ROW_KEPT_MIB] += mib(pool_bytes_free() - column->pool_free);
}

/* QEMU says so where it executes the instructions itself. */
static bool is_emulated(void)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	bool is_tcg = false;
	char line[200];

	while (file && !is_tcg && fgets(line, sizeof(line), file))
		is_tcg = !strncmp(line, "model name", 10) && strstr(line, "QEMU TCG");
	if (file)
		fclose(file);
	return is_tcg;
}

static void print_table(const struct column *columns)
{
	bool emulated = is_emulated();
	char cell[64];
	int row, i;

	printf("%-34s", "");
	for (i = 0; i < NR_KINDS; i++)
		printf("  %s", kinds[i].name);
	putchar('\n');
	for (row = 0; row < NR_ROWS; row++) {
		snprintf(cell, sizeof(cell), "%s%s", rows[row].label,
			 row == ROW_REGISTER_MS && emulated ? "*" : "");
		printf("%-34s", cell);
		for (i = 0; i < NR_KINDS; i++) {
			snprintf(cell, sizeof(cell), "%.*f", rows[row].decimals,
				 columns[i].cell[row]);
			printf("%*s", (int)strlen(kinds[i].name) + 2,
			       isnan(columns[i].cell[row]) ? "-" : cell);
		}
		putchar('\n');
	}
	if (emulated)
		puts("* emulated: the processor is software; compare its times with each other only");
	for (i = 0; i < NR_KINDS; i++)
		if (columns[i].note[0])
			printf("- %s: %s\n", kinds[i].name, columns[i].note);
}

static bool is_right(const struct kind *kind, const struct column *column, enum row row,
		     double right)
{
	if (column->cell[row] == right)
		return true;
	fprintf(stderr, "wrong: %s: %s: %.2f, must be %.2f\n", kind->name, rows[row].label,
		column->cell[row], right);
	return false;
}

/* Whether a kind of one page size kept all that it promises. */
static bool is_kept_promise(const struct kind *kind, const struct column *column)
{
	const bool is_xalloc = kind == &kinds[XALLOC], is_hugetlb = kind == &kinds[HUGETLB];
	const double all = mib(buffer_bytes);
	bool right;

	right = is_right(kind, column, ROW_FAULTS, buffer_bytes / kind->page_bytes);
	right &= is_right(kind, column, ROW_HUGE_MIB, kind->page_bytes == HUGE_BYTES ? all : 0);
	right &= is_right(kind, column, ROW_PINNED_MIB, is_xalloc ? all : 0);
	right &= is_right(kind, column, ROW_KEPT_MIB, is_hugetlb ? column->cell[ROW_POOL_MIB] : 0);
	return right;
}

static bool is_wanting(const struct column *column)
{
	return isnan(column->cell[ROW_FAULTS]) ||
	       (isnan(column->cell[ROW_REGISTER_MS]) && !column->is_unsupported);
}

int main(int argc, char **argv)
{
	unsigned long nr_mib = argc > 1 ? strtoul(argv[1], NULL, 10) : MIB_DEFAULT;
	struct column *columns;
	bool right = true;
	int i;

	if (argc > 2 || !nr_mib || nr_mib % 2 || nr_mib > MIB_MAX) {
		fprintf(stderr, "Usage: xalloc-compare [MIB]   (even, at most %d; default %d)\n",
			MIB_MAX, MIB_DEFAULT);
		return 2;
	}
	buffer_bytes = nr_mib << 20;
	device = open("/dev/xalloc", O_RDWR | O_CLOEXEC);
	if (device < 0)
		die("%s", arena_advice(errno));
	columns = mmap(NULL, NR_KINDS * sizeof(*columns), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (columns == MAP_FAILED)
		die("%s", strerror(errno));

	/* Needs most, and there is nothing to compare without it. */
	measure_kind(&kinds[XALLOC], &columns[XALLOC]);
	if (is_wanting(&columns[XALLOC]))
		die("%s", columns[XALLOC].note);
	for (i = 0; i < XALLOC; i++)
		measure_kind(&kinds[i], &columns[i]);

	printf("%lu MiB of buffers in four kinds of memory\n\n", nr_mib);
	print_table(columns);
	fflush(stdout);
	for (i = 0; i < NR_KINDS; i++)
		if (kinds[i].page_bytes && !isnan(columns[i].cell[ROW_FAULTS]))
			right &= is_kept_promise(&kinds[i], &columns[i]);
	return right ? 0 : 1;
}
