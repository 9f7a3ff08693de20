/* SPDX-License-Identifier: MIT */
/* What the samples say when they cannot have what they need: the reason, and what to do. */
#ifndef ADVICE_H
#define ADVICE_H

#include <errno.h>
#include <libxalloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void complain(const char *format, va_list args)
{
	fprintf(stderr, "%s: ", program_invocation_short_name);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain(format, args);
	va_end(args);
	exit(1);
}

/* Ends the program where this machine cannot do what it shows. A test that ends so is skipped. */
__attribute__((noreturn, format(printf, 1, 2))) static inline void skip(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain(format, args);
	va_end(args);
	exit(4);
}

/* RLIMIT_MEMLOCK is too low for an arena of @bytes that is registered with io_uring. */
static inline const char *memlock_advice(size_t bytes)
{
	static char text[400];

	snprintf(text, sizeof(text),
		 "RLIMIT_MEMLOCK (ulimit -l) is too low: %zu KiB are charged for the memory and as many again for its registration.\n"
		 "Put this line into /etc/security/limits.d/xalloc.conf and log in again:\n"
		 "@xalloc - memlock %zu",
		 bytes >> 10, 2 * bytes >> 10);
	return text;
}

/* Why there is no arena; @error is errno of xalloc_arena_create(). */
static inline const char *arena_advice(int error)
{
	switch (error) {
	case ENOENT:
	case ENXIO:
	case ENODEV:
		return "there is no /dev/xalloc: load the module (sudo make load)";
	case EACCES:
	case EPERM:
		return "no access to /dev/xalloc: sudo adduser $USER xalloc, then log in again";
	default:
		return strerror(error);
	}
}

/* Why @arena, which shall hold @bytes, refused a block. */
static inline const char *block_advice(struct xalloc_arena *arena, size_t bytes)
{
	struct xalloc_arena_stat stat = { .size = sizeof(stat) };

	if (xalloc_arena_stats(arena, &stat))
		return "its state cannot be read";
	if (stat.refused == ENOBUFS)
		return memlock_advice(bytes);
	if (stat.refused == ENOMEM)
		return "the machine has no free 2 MiB page";
	return strerror(stat.refused);
}

/* Why there is no ring; @error is what io_uring_queue_init() returned. */
static inline const char *ring_advice(int error)
{
	switch (error) {
	case -ENOSYS:
		return "this kernel has no io_uring";
	case -EPERM:
		return "io_uring is switched off (sysctl kernel.io_uring_disabled, or a container)";
	default:
		return strerror(-error);
	}
}

/* Why @bytes are not registered; @error is what io_uring_register_buffers() returned. */
static inline const char *register_advice(int error, size_t bytes)
{
	switch (error) {
	case -EOPNOTSUPP:
		return "io_uring takes no arena as a fixed buffer (not in 6.1, in 6.12 it does)";
	case -ENOMEM:
		return memlock_advice(bytes);
	default:
		return strerror(-error);
	}
}

#endif /* ADVICE_H */
