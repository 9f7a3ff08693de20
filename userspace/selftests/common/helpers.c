// SPDX-License-Identifier: GPL-2.0-only
#include "helpers.h"

#include <setjmp.h>
#include <sys/utsname.h>
#include <time.h>

bool is_long_run(void)
{
	const char *text = getenv("LONG");

	return text && *text && strcmp(text, "0");
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

uint64_t now_ms(void)
{
	return now_ns() / 1000000;
}

void sleep_ms(unsigned int ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L };

	nanosleep(&ts, NULL);
}

uint32_t random_seed(void)
{
	const char *text = getenv("SEED");

	return text ? strtoul(text, NULL, 0) : (uint32_t)(time(NULL) * 2654435761U ^ getpid());
}

/* Calls. */

int call(int fd, unsigned long cmd, void *arg)
{
	int rc = ioctl(fd, cmd, arg);

	return rc < 0 ? -errno : rc;
}

int device_open(void)
{
	int fd = open(DEVICE_PATH, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int attach(int arena, uint32_t flags, struct xalloc_ioc_attach *arg)
{
	struct xalloc_ioc_attach own = { .size = sizeof(own), .flags = flags };
	int rc = call(arena, XALLOC_IOC_ATTACH, &own);

	if (arg)
		*arg = own;
	return rc;
}

int fd_reopen(int fd, int flags)
{
	char path[40];
	int copy;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	copy = open(path, flags | O_CLOEXEC);
	return copy < 0 ? -errno : copy;
}

int info_read(int fd, struct xalloc_ioc_info *info)
{
	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	return call(fd, XALLOC_IOC_INFO, info);
}

int counters_read(int fd, struct xalloc_ioc_stat *stat)
{
	memset(stat, 0, sizeof(*stat));
	stat->size = sizeof(*stat);
	return call(fd, XALLOC_IOC_STAT, stat);
}

struct xalloc_ioc_stat stat_of(int fd)
{
	struct xalloc_ioc_stat stat;

	if (counters_read(fd, &stat))
		memset(&stat, 0, sizeof(stat));
	return stat;
}

int arena_create_flags(int fd, uint64_t arena_bytes, uint64_t limit_bytes, uint32_t flags)
{
	struct xalloc_ioc_arena_create arg = {
		.size = sizeof(arg),
		.flags = flags,
		.arena_bytes = arena_bytes,
		.limit_bytes = limit_bytes,
	};

	return call(fd, XALLOC_IOC_ARENA_CREATE, &arg);
}

int arena_create(int device, uint64_t arena_bytes, uint64_t limit_bytes)
{
	return arena_create_flags(device, arena_bytes, limit_bytes, 0);
}

int arena_create_by(int device, uint64_t arena_bytes, uint32_t policy, int node)
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

int reserve_set(int arena, uint64_t low_bytes, uint64_t high_bytes)
{
	struct xalloc_ioc_reserve arg = {
		.size = sizeof(arg),
		.low_bytes = low_bytes,
		.high_bytes = high_bytes,
	};

	return call(arena, XALLOC_IOC_RESERVE, &arg);
}

int arena_trim(int arena, uint64_t keep_bytes, uint64_t *trimmed_bytes)
{
	struct xalloc_ioc_trim arg = { .size = sizeof(arg), .keep_bytes = keep_bytes };
	int rc = call(arena, XALLOC_IOC_TRIM, &arg);

	if (trimmed_bytes)
		*trimmed_bytes = arg.trimmed_bytes;
	return rc;
}

int grant_batch(int arena, struct xalloc_page_grant *pages, uint32_t nr)
{
	struct xalloc_ioc_grant arg = {
		.size = sizeof(arg),
		.nr = nr,
		.pages = (uintptr_t)pages,
	};

	return call(arena, XALLOC_IOC_GRANT, &arg);
}

int grant_page(int arena, uint32_t nr_slices, uint32_t flags, struct xalloc_page_grant *page)
{
	struct xalloc_page_grant one = { .nr_slices = nr_slices, .flags = flags };
	int rc = grant_batch(arena, &one, 1);

	if (page)
		*page = one;
	return rc;
}

int free_ranges(int arena, const struct xalloc_range *ranges, uint32_t nr)
{
	struct xalloc_ioc_free arg = {
		.size = sizeof(arg),
		.flags = XALLOC_FREE_RANGES,
		.nr = nr,
		.offsets = (uintptr_t)ranges,
	};

	return call(arena, XALLOC_IOC_FREE, &arg);
}

int free_range(int arena, uint64_t offset, uint64_t bytes)
{
	const struct xalloc_range range = { .offset = offset, .bytes = bytes };

	return free_ranges(arena, &range, 1);
}

int free_batch(int arena, const uint64_t *offsets, uint32_t nr)
{
	struct xalloc_ioc_free arg = {
		.size = sizeof(arg),
		.nr = nr,
		.offsets = (uintptr_t)offsets,
	};

	return call(arena, XALLOC_IOC_FREE, &arg);
}

int free_page(int arena, uint64_t offset)
{
	return free_batch(arena, &offset, 1);
}

int free_lazily(int arena, uint64_t offset, uint64_t bytes)
{
	struct xalloc_range range = { .offset = offset, .bytes = bytes };
	struct xalloc_ioc_free arg = {
		.size = sizeof(arg), .flags = XALLOC_FREE_LAZY | XALLOC_FREE_RANGES, .nr = 1,
		.offsets = (uintptr_t)&range,
	};

	return call(arena, XALLOC_IOC_FREE, &arg);
}

int grant_segments(int arena, int most, int *error)
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

static bool counters_equal(const struct xalloc_ioc_stat *a, const struct xalloc_ioc_stat *b)
{
	return a->arenas == b->arenas && a->clients == b->clients && a->pages == b->pages &&
	       a->granted_bytes == b->granted_bytes &&
	       a->committed_bytes == b->committed_bytes &&
	       a->pinned_bytes == b->pinned_bytes && a->charged_bytes == b->charged_bytes &&
	       a->reserved_bytes == b->reserved_bytes;
}

bool counters_wait(int fd, const struct xalloc_ioc_stat *want, unsigned int ms)
{
	struct xalloc_ioc_stat seen;
	int rc;

	return wait_for((rc = counters_read(fd, &seen)) || counters_equal(&seen, want), ms) && !rc;
}

/* Mapping. */

unsigned char *arena_map_at(int arena, uint64_t offset, size_t bytes, int prot)
{
	void *addr = mmap(NULL, bytes, prot, MAP_SHARED, arena, offset);

	return addr == MAP_FAILED ? NULL : addr;
}

const volatile struct xalloc_status *status_map(int arena)
{
	return (void *)arena_map_at(arena, XALLOC_STATUS_OFFSET, KPAGE_BYTES, PROT_READ);
}

unsigned char *arena_map(int arena, size_t bytes)
{
	return arena_map_at(arena, 0, bytes, PROT_READ | PROT_WRITE);
}

int mmap_error(size_t bytes, int prot, int flags, int fd, off_t offset)
{
	void *addr = mmap(NULL, bytes, prot, flags, fd, offset);

	if (addr == MAP_FAILED)
		return -errno;
	munmap(addr, bytes);
	return 0;
}

unsigned char *range_reserve(size_t bytes, size_t align)
{
	unsigned char *addr = mmap(NULL, bytes + align, PROT_NONE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (addr == MAP_FAILED)
		return NULL;
	return (unsigned char *)(((uintptr_t)addr + align - 1) & ~(uintptr_t)(align - 1));
}

/* Guarded access. */

static __thread sigjmp_buf guard_env;
static __thread volatile sig_atomic_t guard_armed;

void guard_handler(int sig)
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

void guard_install(void)
{
	struct sigaction action = { .sa_handler = guard_handler, .sa_flags = SA_NODEFER };

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
}

int touch_read(const volatile void *addr, uint64_t *value)
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

int touch_write(volatile void *addr, uint64_t value)
{
	int sig = sigsetjmp(guard_env, 0);

	if (!sig) {
		guard_armed = 1;
		*(volatile uint64_t *)addr = value;
	}
	guard_armed = 0;
	return sig;
}

/* Patterns. */

void pattern_fill(void *addr, size_t bytes, uint64_t seed)
{
	uint64_t *words = addr;
	size_t i;

	for (i = 0; i < bytes / sizeof(*words); i++)
		words[i] = pattern_word(seed, i);
}

ssize_t pattern_mismatch(const void *addr, size_t bytes, uint64_t seed)
{
	const uint64_t *words = addr;
	size_t i;

	for (i = 0; i < bytes / sizeof(*words); i++)
		if (words[i] != pattern_word(seed, i))
			return i * sizeof(*words);
	return -1;
}

ssize_t nonzero_find(const void *addr, size_t bytes)
{
	const uint64_t *words = addr;
	size_t i;

	for (i = 0; i < bytes / sizeof(*words); i++)
		if (words[i])
			return i * sizeof(*words);
	return -1;
}

/* Facts about this process and kernel. */

long smaps_kb(const void *addr, size_t bytes, const char *field)
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

long page_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

long meminfo_kb(const char *field)
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

bool is_kernel_at_least(unsigned int major, unsigned int minor)
{
	unsigned int have_major, have_minor;
	struct utsname name;

	uname(&name);
	if (sscanf(name.release, "%u.%u", &have_major, &have_minor) != 2)
		return false;
	return have_major > major || (have_major == major && have_minor >= minor);
}

bool is_thp_kernel(void)
{
	return !access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK);
}

bool file_says(const char *path, const char *text)
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

bool kernel_has_kasan(void)
{
	static enum { UNKNOWN, NO, YES } has;

	if (has == UNKNOWN)
		has = file_says("/proc/kallsyms", " kasan_quarantine_reduce") ? YES : NO;
	return has == YES;
}

unsigned int turns(unsigned int nr)
{
	return !is_long_run() && kernel_has_kasan() ? nr / 10 : nr;
}

bool times_are_judged(void)
{
	return is_long_run() && !kernel_has_kasan();
}

int write_errno(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	err = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return err;
}

bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done;

	if (fd < 0)
		return false;
	done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return done;
}

long long read_number(const char *path)
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

int child_status(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

int program_run(const char *const argv[])
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

bool total_raise(void)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", meminfo_kb("MemTotal") / 1024);
	return write_text(PARAMETER("total_mb"), text);
}

bool total_restore(void)
{
	return write_text(PARAMETER("total_mb"), "0");
}
