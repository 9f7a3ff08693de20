/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the xalloc selftests share: the calls with their errors as negative numbers,
 * the module's counters, faults that are caught, and facts about this kernel.
 *
 * Every test must leave the counters of the device as it found them; a fixture takes
 * them with counters_read() in its set-up and calls counters_expect() in its teardown.
 * The programs expect to be the only users of the module while they run, as root.
 */
#ifndef XALLOC_SELFTEST_H
#define XALLOC_SELFTEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <setjmp.h>
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
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/xalloc.h>

#include "kselftest_harness.h"

/* Software emulation with a debug kernel takes a hundred times what hardware does. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 240
#define TEST_TIMEOUT_LONG 3000

#define DEVICE_PATH "/dev/xalloc"
#define SEGMENT_SLICES ((unsigned int)(XALLOC_SEGMENT_BYTES / XALLOC_SLICE_BYTES))
#define KPAGE_BYTES 4096UL
#define MIB (1UL << 20)

/* A user and a group that no one else on the machine runs as. */
#define TEST_UID 54321
#define TEST_UID_OTHER 54322

/* LONG=1 in the environment asks for the full figures instead of the short ones. */
static inline bool is_long_run(void)
{
	const char *text = getenv("LONG");

	return text && *text && strcmp(text, "0");
}

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static inline uint64_t now_ms(void)
{
	return now_ns() / 1000000;
}

static inline void sleep_ms(unsigned int ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L };

	nanosleep(&ts, NULL);
}

/* Seed of a random test: SEED= of the environment, or the clock. The test prints it. */
static inline uint32_t random_seed(void)
{
	const char *text = getenv("SEED");

	return text ? strtoul(text, NULL, 0) : (uint32_t)(time(NULL) * 2654435761U ^ getpid());
}

/* xorshift32; @state is not zero. */
static inline uint32_t random_next(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* Calls: the result, or the negative errno. */

static inline int call(int fd, unsigned long cmd, void *arg)
{
	int rc = ioctl(fd, cmd, arg);

	return rc < 0 ? -errno : rc;
}

static inline int device_open(void)
{
	int fd = open(DEVICE_PATH, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* A new client on the same arena. */
static inline int fd_reopen_flags(int fd, int flags)
{
	char path[40];
	int copy;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	copy = open(path, flags | O_CLOEXEC);
	return copy < 0 ? -errno : copy;
}

static inline int fd_reopen(int fd)
{
	return fd_reopen_flags(fd, O_RDWR);
}

static inline int info_read(int fd, struct xalloc_ioc_info *info)
{
	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	return call(fd, XALLOC_IOC_INFO, info);
}

static inline int counters_read(int fd, struct xalloc_ioc_stat *stat)
{
	memset(stat, 0, sizeof(*stat));
	stat->size = sizeof(*stat);
	return call(fd, XALLOC_IOC_STAT, stat);
}

/* All zeros where it cannot be read. */
static inline struct xalloc_ioc_stat stat_of(int fd)
{
	struct xalloc_ioc_stat stat;

	if (counters_read(fd, &stat))
		memset(&stat, 0, sizeof(stat));
	return stat;
}

static inline int arena_create_flags(int fd, uint64_t arena_bytes, uint64_t limit_bytes,
				     uint32_t flags)
{
	struct xalloc_ioc_arena_create arg = {
		.size = sizeof(arg),
		.flags = flags,
		.arena_bytes = arena_bytes,
		.limit_bytes = limit_bytes,
	};

	return call(fd, XALLOC_IOC_ARENA_CREATE, &arg);
}

static inline int arena_create(int device, uint64_t arena_bytes, uint64_t limit_bytes)
{
	return arena_create_flags(device, arena_bytes, limit_bytes, 0);
}

/* @node is a NUMA node, or -1. */
static inline int arena_create_by(int device, uint64_t arena_bytes, uint32_t policy, int node)
{
	struct xalloc_ioc_arena_create arg = {
		.size = sizeof(arg),
		.flags = node < 0 ? 0 : XALLOC_ARENA_NODE,
		.arena_bytes = arena_bytes,
		.policy = policy,
		.node = node < 0 ? 0 : node,
	};

	return call(device, XALLOC_IOC_ARENA_CREATE, &arg);
}

static inline int reserve_set(int arena, uint64_t low_bytes, uint64_t high_bytes)
{
	struct xalloc_ioc_reserve arg = {
		.size = sizeof(arg),
		.low_bytes = low_bytes,
		.high_bytes = high_bytes,
	};

	return call(arena, XALLOC_IOC_RESERVE, &arg);
}

/* Returns 0 with @trimmed_bytes, which may be NULL, or the negative errno. */
static inline int arena_trim(int arena, uint64_t keep_bytes, uint64_t *trimmed_bytes)
{
	struct xalloc_ioc_trim arg = { .size = sizeof(arg), .keep_bytes = keep_bytes };
	int rc = call(arena, XALLOC_IOC_TRIM, &arg);

	if (trimmed_bytes)
		*trimmed_bytes = arg.trimmed_bytes;
	return rc;
}

static inline int grant_batch(int arena, struct xalloc_page_grant *pages, uint32_t nr)
{
	struct xalloc_ioc_grant arg = {
		.size = sizeof(arg),
		.nr = nr,
		.pages = (uintptr_t)pages,
	};

	return call(arena, XALLOC_IOC_GRANT, &arg);
}

/* One page; @page may be NULL. Returns 1, or the negative errno. */
static inline int grant_page(int arena, uint32_t nr_slices, uint32_t flags,
			     struct xalloc_page_grant *page)
{
	struct xalloc_page_grant one = { .nr_slices = nr_slices, .flags = flags };
	int rc = grant_batch(arena, &one, 1);

	if (page)
		*page = one;
	return rc;
}

static inline int free_batch(int arena, const uint64_t *offsets, uint32_t nr)
{
	struct xalloc_ioc_free arg = {
		.size = sizeof(arg),
		.nr = nr,
		.offsets = (uintptr_t)offsets,
	};

	return call(arena, XALLOC_IOC_FREE, &arg);
}

/* Returns 1, or the negative errno. */
static inline int free_page(int arena, uint64_t offset)
{
	return free_batch(arena, &offset, 1);
}

/* Grants pages of one segment each until one is refused; returns how many came. */
static inline int grant_segments(int arena, int most, int *error)
{
	int nr;

	*error = 0;
	for (nr = 0; nr < most; nr++) {
		int rc = grant_page(arena, SEGMENT_SLICES, 0, NULL);

		if (rc < 0) {
			*error = rc;
			break;
		}
	}
	return nr;
}

/* Counters. */

static inline bool counters_equal(const struct xalloc_ioc_stat *a,
				  const struct xalloc_ioc_stat *b)
{
	return a->arenas == b->arenas && a->clients == b->clients && a->pages == b->pages &&
	       a->granted_bytes == b->granted_bytes &&
	       a->committed_bytes == b->committed_bytes &&
	       a->pinned_bytes == b->pinned_bytes && a->charged_bytes == b->charged_bytes &&
	       a->reserved_bytes == b->reserved_bytes;
}

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
static inline bool counters_wait(int fd, const struct xalloc_ioc_stat *want, unsigned int ms)
{
	struct xalloc_ioc_stat seen;
	int rc;

	return wait_for((rc = counters_read(fd, &seen)) || counters_equal(&seen, want), ms) && !rc;
}

static inline void counters_expect_now(struct __test_metadata *_metadata, int fd,
				       const struct xalloc_ioc_stat *want)
{
	struct xalloc_ioc_stat seen;

	EXPECT_EQ(0, counters_read(fd, &seen));
	EXPECT_EQ(want->arenas, seen.arenas);
	EXPECT_EQ(want->clients, seen.clients);
	EXPECT_EQ(want->pages, seen.pages);
	EXPECT_EQ(want->granted_bytes, seen.granted_bytes);
	EXPECT_EQ(want->committed_bytes, seen.committed_bytes);
	EXPECT_EQ(want->pinned_bytes, seen.pinned_bytes);
	EXPECT_EQ(want->charged_bytes, seen.charged_bytes);
	EXPECT_EQ(want->reserved_bytes, seen.reserved_bytes);
}

static inline void counters_expect(struct __test_metadata *_metadata, int fd,
				   const struct xalloc_ioc_stat *want)
{
	counters_wait(fd, want, 5000);
	counters_expect_now(_metadata, fd, want);
}

/* Waits for @pinned_bytes of the arena or device behind @fd. */
static inline bool pinned_wait(struct __test_metadata *_metadata, int fd, uint64_t pinned_bytes,
			       unsigned int ms)
{
	struct xalloc_ioc_stat seen;
	bool came;
	int rc;

	came = wait_for((rc = counters_read(fd, &seen)) || seen.pinned_bytes == pinned_bytes, ms);
	ASSERT_EQ(0, rc);
	return came;
}

/* Mapping. */

/* NULL where mmap() fails; errno tells why. */
static inline unsigned char *arena_map_at(int arena, uint64_t offset, size_t bytes, int prot)
{
	void *addr = mmap(NULL, bytes, prot, MAP_SHARED, arena, offset);

	return addr == MAP_FAILED ? NULL : addr;
}

static inline unsigned char *arena_map(int arena, size_t bytes)
{
	return arena_map_at(arena, 0, bytes, PROT_READ | PROT_WRITE);
}

/* The negative errno of an mmap() that must fail; 0 where it did not. */
static inline int mmap_error(size_t bytes, int prot, int flags, int fd, off_t offset)
{
	void *addr = mmap(NULL, bytes, prot, flags, fd, offset);

	if (addr == MAP_FAILED)
		return -errno;
	munmap(addr, bytes);
	return 0;
}

/* Address space of @bytes, aligned to @align, that nothing else will be put into. */
static inline unsigned char *range_reserve(size_t bytes, size_t align)
{
	unsigned char *addr = mmap(NULL, bytes + align, PROT_NONE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (addr == MAP_FAILED)
		return NULL;
	return (unsigned char *)(((uintptr_t)addr + align - 1) & ~(uintptr_t)(align - 1));
}

/* Guarded access: a bad touch gives its signal back instead of ending the test. */

static __thread sigjmp_buf guard_env;
static __thread volatile sig_atomic_t guard_armed;

static inline void guard_handler(int sig)
{
	sigset_t set;

	/* In spite of SA_NODEFER ThreadSanitizer runs handlers with the signal blocked. */
	sigemptyset(&set);
	sigaddset(&set, sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	if (guard_armed)
		siglongjmp(guard_env, sig);
	signal(sig, SIG_DFL);
	raise(sig);
}

static inline void guard_install(void)
{
	struct sigaction action = { .sa_handler = guard_handler, .sa_flags = SA_NODEFER };

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
}

/* Returns 0, or the signal that the access raised. */
static inline int touch_read(const volatile void *addr, uint64_t *value)
{
	int sig = sigsetjmp(guard_env, 0);

	if (!sig) {
		uint64_t seen;

		guard_armed = 1;
		seen = *(const volatile uint64_t *)addr;
		if (value)
			*value = seen;
	}
	guard_armed = 0;
	return sig;
}

static inline int touch_write(volatile void *addr, uint64_t value)
{
	int sig = sigsetjmp(guard_env, 0);

	if (!sig) {
		guard_armed = 1;
		*(volatile uint64_t *)addr = value;
	}
	guard_armed = 0;
	return sig;
}

/* Patterns: each 8 bytes depend on @seed and on where they are. */

static inline uint64_t pattern_word(uint64_t seed, size_t i)
{
	return (seed + 1) * 0x9e3779b97f4a7c15ULL ^ (i * 0xc2b2ae3d27d4eb4fULL);
}

static inline void pattern_fill(void *addr, size_t bytes, uint64_t seed)
{
	uint64_t *words = addr;
	size_t i;

	for (i = 0; i < bytes / sizeof(*words); i++)
		words[i] = pattern_word(seed, i);
}

/* Offset of the first wrong byte, rounded down to 8, or -1. */
static inline ssize_t pattern_mismatch(const void *addr, size_t bytes, uint64_t seed)
{
	const uint64_t *words = addr;
	size_t i;

	for (i = 0; i < bytes / sizeof(*words); i++)
		if (words[i] != pattern_word(seed, i))
			return i * sizeof(*words);
	return -1;
}

/* Offset of the first byte that is not zero, rounded down to 8, or -1. */
static inline ssize_t nonzero_find(const void *addr, size_t bytes)
{
	const uint64_t *words = addr;
	size_t i;

	for (i = 0; i < bytes / sizeof(*words); i++)
		if (words[i])
			return i * sizeof(*words);
	return -1;
}

/* Facts about this process and kernel. */

/* Sum of @field in kB over the mappings that overlap the range; -1 without smaps. */
static inline long smaps_kb(const void *addr, size_t bytes, const char *field)
{
	unsigned long first = (unsigned long)addr, end = first + bytes, from, to;
	FILE *file = fopen("/proc/self/smaps", "r");
	bool inside = false, seen = false;
	size_t len = strlen(field);
	char line[512];
	long sum = 0;

	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
			inside = from < end && first < to;
		} else if (inside && !strncmp(line, field, len) && line[len] == ':') {
			sum += strtol(line + len + 1, NULL, 10);
			seen = true;
		}
	}
	fclose(file);
	return seen ? sum : -1;
}

static inline long page_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

/* A field of /proc/meminfo in kB, -1 where there is none. */
static inline long meminfo_kb(const char *field)
{
	FILE *file = fopen("/proc/meminfo", "r");
	size_t len = strlen(field);
	char line[128];
	long value = -1;

	if (!file)
		return -1;
	while (value < 0 && fgets(line, sizeof(line), file))
		if (!strncmp(line, field, len) && line[len] == ':')
			value = strtol(line + len + 1, NULL, 10);
	fclose(file);
	return value;
}

static inline bool is_kernel_at_least(unsigned int major, unsigned int minor)
{
	unsigned int have_major, have_minor;
	struct utsname name;

	uname(&name);
	if (sscanf(name.release, "%u.%u", &have_major, &have_minor) != 2)
		return false;
	return have_major > major || (have_major == major && have_minor >= minor);
}

/* The file exists where the kernel can map 2 MiB at once; UML cannot. */
static inline bool is_thp_kernel(void)
{
	return !access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK);
}

/* Whether a line of the file has @text in it. */
static inline bool file_says(const char *path, const char *text)
{
	FILE *file = fopen(path, "re");
	bool found = false;
	char line[256];

	while (file && !found && fgets(line, sizeof(line), file))
		found = strstr(line, text);
	if (file)
		fclose(file);
	return found;
}

/* It holds freed objects back, taxes each access, and never forgets a stack. */
static inline bool kernel_has_kasan(void)
{
	return file_says("/proc/kallsyms", " kasan_quarantine_reduce");
}

/*
 * Whether tests judge by the clock: with LONG=1 only, because a busy machine would make them fail,
 * and never with KASAN, which slows everything down.
 */
static inline bool times_are_judged(void)
{
	return is_long_run() && !kernel_has_kasan();
}

/* A fault and each touch cost tens of times what they do on a CPU; clearing memory does not. */
static inline bool cpu_is_emulated(void)
{
	return file_says("/proc/cpuinfo", "QEMU TCG");
}

static inline bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done;

	if (fd < 0)
		return false;
	done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return done;
}

/* First number in the file, -1 where it cannot be read. */
static inline long long read_number(const char *path)
{
	FILE *file = fopen(path, "r");
	long long value = -1;

	if (!file)
		return -1;
	if (fscanf(file, "%lld", &value) != 1)
		value = -1;
	fclose(file);
	return value;
}

/* Waits for a child; its exit status, or 256 plus the signal that ended it. */
static inline int child_status(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

/* Silently; its status, as of child_status(). */
static inline int program_run(const char *const argv[])
{
	pid_t pid = fork();

	if (!pid) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
		execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	return pid < 0 ? -errno : child_status(pid);
}

/* Parameters of the module. */
#define PARAMETER(name) "/sys/module/xalloc/parameters/" name

/* For tests that fill the machine: arenas may have all of its memory, until total_restore(). */
static inline bool total_raise(void)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", meminfo_kb("MemTotal") / 1024);
	return write_text(PARAMETER("total_mb"), text);
}

static inline bool total_restore(void)
{
	return write_text(PARAMETER("total_mb"), "0");
}

/* In a child: says what was not as it must be, and leaves. */
#define require(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "# %s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			_exit(1); \
		} \
	} while (0)

/*
 * Fixture body that most programs share: the device and its counters before the test.
 * Programs that need more have members of their own and call the same helpers.
 */
static inline int device_setup(struct __test_metadata *_metadata, struct xalloc_ioc_stat *before)
{
	int device;

	ASSERT_EQ(0, geteuid()) {
		TH_LOG("the xalloc selftests run as root");
	}
	device = device_open();
	ASSERT_LE(0, device) {
		TH_LOG("cannot open %s: %s; is the module loaded?", DEVICE_PATH,
		       strerror(-device));
	}
	ASSERT_EQ(0, counters_read(device, before));
	guard_install();
	return device;
}

#endif /* XALLOC_SELFTEST_H */
