/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What all selftests may use, also without the harness: the calls with their errors as negative
 * numbers, the module's counters, faults that are caught, and facts about this kernel.
 */
#ifndef XALLOC_HELPERS_H
#define XALLOC_HELPERS_H

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <signal.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/xalloc.h>

#define DEVICE_PATH "/dev/xalloc"
#define SEGMENT_SLICES ((unsigned int)(XALLOC_SEGMENT_BYTES / XALLOC_SLICE_BYTES))
#define KPAGE_BYTES 4096UL
#define MIB (1UL << 20)

/* The number of a user and of a group that nothing else on the machine uses. */
#define TEST_UID 54321

/*
 * A test that takes so many seconds is stuck, and is ended. One that works needs far less, also on
 * a debug kernel and on a busy machine. A child of a test is ended before its test.
 */
#define STUCK_SECONDS 1200
#define CHILD_STUCK_SECONDS (STUCK_SECONDS / 2)

/* LONG=1 in the environment asks for the full figures instead of the short ones. */
bool is_long_run(void);

uint64_t now_ns(void);
uint64_t now_ms(void);
void sleep_ms(unsigned int ms);

/* Seed of a random test: SEED= of the environment, or the clock. The test prints it. */
uint32_t random_seed(void);

/* xorshift32; @state is not zero. */
static inline uint32_t random_next(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* Calls: the result, or the negative errno. */

int call(int fd, unsigned long cmd, void *arg);
int device_open(void);

/* A new client on the same arena; @arg, which may be NULL, is filled in. */
int attach(int arena, uint32_t flags, struct xalloc_ioc_attach *arg);

/* Opens the file of a descriptor again, by /proc. */
int fd_reopen(int fd, int flags);

int info_read(int fd, struct xalloc_ioc_info *info);
int counters_read(int fd, struct xalloc_ioc_stat *stat);

/* All zeros where it cannot be read. */
struct xalloc_ioc_stat stat_of(int fd);

int arena_create_flags(int fd, uint64_t arena_bytes, uint64_t limit_bytes, uint32_t flags);
int arena_create(int device, uint64_t arena_bytes, uint64_t limit_bytes);

/* @node is a NUMA node, or -1. */
int arena_create_by(int device, uint64_t arena_bytes, uint32_t policy, int node);

int reserve_set(int arena, uint64_t low_bytes, uint64_t high_bytes);

/* Returns 0 with @trimmed_bytes, which may be NULL, or the negative errno. */
int arena_trim(int arena, uint64_t keep_bytes, uint64_t *trimmed_bytes);

int grant_batch(int arena, struct xalloc_page_grant *pages, uint32_t nr);

/* One page; @page may be NULL. Returns 1, or the negative errno. */
int grant_page(int arena, uint32_t nr_slices, uint32_t flags, struct xalloc_page_grant *page);

int free_ranges(int arena, const struct xalloc_range *ranges, uint32_t nr);

/* Whole pages. */
int free_batch(int arena, const uint64_t *offsets, uint32_t nr);

/* Each returns 1, or the negative errno. */
int free_range(int arena, uint64_t offset, uint64_t bytes);
int free_page(int arena, uint64_t offset);

/* A range of slices; of no bytes: the whole page. Returns 1, or the negative errno. */
int free_lazily(int arena, uint64_t offset, uint64_t bytes);

/* Grants pages of one segment each until one is refused; returns how many came. */
int grant_segments(int arena, int most, int *error);

/* Counters. */

#define POLL_MS 5

/*
 * Waits for what others do (a worker of the module or of io_uring, a task that is being reaped)
 * a little after a call has returned. Returns whether @condition came true in @ms of sleep: those
 * others sleep, too, while the machine stalls.
 */
#define wait_for(condition, ms) \
	({ \
		unsigned int left = (ms) / POLL_MS; \
		bool came; \
\
		while (!(came = (condition)) && left--) \
			sleep_ms(POLL_MS); \
		came; \
	})

/* Waits until the counters are @want. */
bool counters_wait(int fd, const struct xalloc_ioc_stat *want, unsigned int ms);

/* Mapping. */

/* NULL where mmap() fails; errno tells why. */
unsigned char *arena_map_at(int arena, uint64_t offset, size_t bytes, int prot);

/* The status page of the arena, or NULL. */
const volatile struct xalloc_status *status_map(int arena);

unsigned char *arena_map(int arena, size_t bytes);

/* The negative errno of an mmap() that must fail; 0 where it did not. */
int mmap_error(size_t bytes, int prot, int flags, int fd, off_t offset);

/* Address space of @bytes, aligned to @align, that nothing else will be put into. */
unsigned char *range_reserve(size_t bytes, size_t align);

/* Guarded access: a touch that raises a signal returns the signal instead of ending the test. */

/* A program's own signal handler ends with a call of this. */
void guard_handler(int sig);

void guard_install(void);

/* Returns 0, or the signal that the access raised. */
int touch_read(const volatile void *addr, uint64_t *value);

int touch_write(volatile void *addr, uint64_t value);

/* Patterns: each 8 bytes depend on @seed and on where they are. */

static inline uint64_t pattern_word(uint64_t seed, size_t i)
{
	return (seed + 1) * 0x9e3779b97f4a7c15ULL ^ (i * 0xc2b2ae3d27d4eb4fULL);
}

void pattern_fill(void *addr, size_t bytes, uint64_t seed);

/* Offset of the first wrong byte, rounded down to 8, or -1. */
ssize_t pattern_mismatch(const void *addr, size_t bytes, uint64_t seed);

/* Offset of the first byte that is not zero, rounded down to 8, or -1. */
ssize_t nonzero_find(const void *addr, size_t bytes);

/* Facts about this process and kernel. */

/* Sum of @field in kB over the mappings that overlap the range; -1 without smaps. */
long smaps_kb(const void *addr, size_t bytes, const char *field);

long page_faults(void);

/* A field of /proc/meminfo in kB, -1 where there is none. */
long meminfo_kb(const char *field);

bool is_kernel_at_least(unsigned int major, unsigned int minor);

/* Whether the kernel can map 2 MiB at once. UML cannot. */
bool is_thp_kernel(void);

/* Whether a line of the file has @text in it. */
bool file_says(const char *path, const char *text);

/* KASAN holds freed objects back, slows each access, and keeps each stack trace for ever. */
bool kernel_has_kasan(void);

/*
 * How many turns a test makes in which threads or processes meet by chance, or how many threads or
 * arenas it has: @nr, but a tenth of that where KASAN slows each, except with LONG=1.
 */
unsigned int turns(unsigned int nr);

/*
 * Whether tests judge by the clock: with LONG=1 only, because a busy machine would make them fail,
 * and never with KASAN, which slows everything down.
 */
bool times_are_judged(void);

bool write_text(const char *path, const char *text);

/* Writes to a file of sysfs. Returns 0 or the negative errno. */
int write_errno(const char *path, const char *text);

/* First number in the file, -1 where it cannot be read. */
long long read_number(const char *path);

/* Waits for a child; its exit status, or 256 plus the signal that ended it. */
int child_status(pid_t pid);

/* Runs a program without input and output. Returns what child_status() returns for it. */
int program_run(const char *const argv[]);

/* Parameters of the module. */
#define PARAMETER(name) "/sys/module/xalloc/parameters/" name

/* For tests that fill the machine: arenas may have all of its memory, until total_restore(). */
bool total_raise(void);

bool total_restore(void);

/* For a child: if the condition is false, says so and ends the child. */
#define require(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "# %s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			_exit(1); \
		} \
	} while (0)

#endif /* XALLOC_HELPERS_H */
