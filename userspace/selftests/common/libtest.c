// SPDX-License-Identifier: GPL-2.0-only
#include "libtest.h"

bool is_local(void)
{
	const char *text = getenv("XALLOC_BACKEND");

	return text && !strcmp(text, "local");
}

bool is_fast(void)
{
	return (is_local() && !IS_SANITIZED) || is_long_run();
}

struct xalloc_arena_stat stats_of(struct xalloc_arena *arena)
{
	struct xalloc_arena_stat stat = { .size = sizeof(stat) };

	if (xalloc_arena_stats(arena, &stat))
		abort();
	return stat;
}

uint64_t committed_by(struct xalloc_arena *arena)
{
	struct xalloc_ioc_stat stat;

	if (is_local())
		return stats_of(arena).committed_bytes;
	if (counters_read(xalloc_arena_fd(arena), &stat))
		abort();
	return stat.committed_bytes;
}

struct xalloc_arena *arena_of(size_t arena_bytes, size_t limit_bytes)
{
	struct xalloc_arena_config config = {
		.size = sizeof(config),
		.arena_bytes = arena_bytes,
		.limit_bytes = limit_bytes,
	};

	return xalloc_arena_create(&config);
}

void bytes_fill(void *ptr, size_t bytes, uint64_t seed)
{
	unsigned char *p = ptr;
	size_t i;

	for (i = 0; i < bytes; i++)
		p[i] = byte_of(seed, i);
}

bool bytes_same(const void *ptr, size_t bytes, uint64_t seed)
{
	const unsigned char *p = ptr;
	size_t i;

	for (i = 0; i < bytes; i++)
		if (p[i] != byte_of(seed, i))
			return false;
	return true;
}

bool bytes_are(const void *ptr, size_t bytes, unsigned char value)
{
	const unsigned char *p = ptr;

	return !bytes || (p[0] == value && !memcmp(p, p + 1, bytes - 1));
}

bool bytes_zero(const void *ptr, size_t bytes)
{
	return bytes_are(ptr, bytes, 0);
}

size_t resident_outside(struct xalloc_arena *arena)
{
	unsigned long first = 0, end = 0, from, to, kb;
	FILE *file = fopen("/proc/self/smaps", "r");
	struct iovec range = { 0 };
	bool outside = false;
	char line[512];
	size_t sum = 0;

	if (!file)
		return 0;
	if (arena && !xalloc_arena_range(arena, &range)) {
		first = (unsigned long)range.iov_base;
		end = first + range.iov_len;
	}
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			outside = to <= first || end <= from;
		else if (outside && sscanf(line, "Private_Dirty: %lu kB", &kb) == 1)
			sum += kb << 10;
	}
	fclose(file);
	return sum;
}

size_t status_bytes(const char *field)
{
	char text[8192], *at;
	ssize_t len;
	int fd;

	/* Without stdio, which allocates. */
	fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[len > 0 ? len : 0] = 0;
	at = strstr(text, field);
	return at ? strtoul(at + strlen(field) + 1, NULL, 10) << 10 : SIZE_MAX;
}

void wait_until_asleep(const atomic_int *tid)
{
	char path[64], line[256], state = 0;
	FILE *file;

	for (; state != 'S'; sleep_ms(1)) {
		if (!atomic_load(tid))
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%d/stat", atomic_load(tid));
		file = fopen(path, "r");
		if (!file)
			return;
		/* Behind the name. */
		state = fgets(line, sizeof(line), file) ? strrchr(line, ')')[2] : 0;
		fclose(file);
	}
}

int run_child(int (*run)(void *), void *arg, char *text, size_t bytes)
{
	size_t len = 0;
	int pipes[2];
	ssize_t nr;
	pid_t pid;

	if (pipe(pipes))
		abort();
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		abort();
	if (!pid) {
		struct rlimit none = { 0 };

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGABRT, SIG_DFL);
		dup2(pipes[1], STDERR_FILENO);
		close(pipes[0]);
		close(pipes[1]);
		_exit(run(arg));
	}
	close(pipes[1]);
	while ((nr = read(pipes[0], text + len, bytes - 1 - len)) > 0)
		len += nr;
	text[len] = 0;
	close(pipes[0]);
	return child_status(pid);
}
