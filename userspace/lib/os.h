/* SPDX-License-Identifier: MIT */
/*
 * What libxalloc asks of the system besides the device.
 * int: a value that is not negative, or -errno. Addresses: NULL with errno set.
 */
#ifndef XL_OS_H
#define XL_OS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xl_file {
	uint64_t device, number;
};

/*
 * 1 in the preload library, which is this one compiled once more. There a child of fork() goes on
 * with what its parent had; else it starts anew.
 */
#ifndef XL_PRELOAD
#define XL_PRELOAD 0
#endif

int xl_os_open(const char *path);
void xl_os_close(int fd);
/* A descriptor of the same, close-on-exec, out of the way of others; or @fd. @fd is closed. */
int xl_os_raise(int fd);
/* Which file a descriptor is of. Returns 0 or -errno. */
int xl_os_identify(int fd, struct xl_file *file);
/* Creates a file that was not there, for its owner alone. */
int xl_os_open_new(const char *path);
void xl_os_unlink(const char *path);
/* Size of a file. Returns 0 or -errno. */
int xl_os_file_bytes(int fd, size_t *bytes);

/*
 * Map memory at @addr, where nothing is mapped: else -EEXIST. Of a file from @offset on; or
 * anonymous, which is huge behind the first @small_bytes if it can be and which, unless
 * XL_PRELOAD, a child of fork() does not have; or for tables, as xl_os_sparse().
 */
int xl_os_map_file(void *addr, size_t bytes, int fd, uint64_t offset);
int xl_os_map_anonymous(void *addr, size_t bytes, size_t small_bytes);
int xl_os_map_table(void *addr, size_t bytes);
void xl_os_unmap(void *addr, size_t bytes);
/* A page of a file, to be read. A child of fork() does not have it, unless XL_PRELOAD. */
const void *xl_os_map_page(int fd, uint64_t offset);
void xl_os_unmap_page(const void *page);
/* Makes anonymous memory zero, and gives it back where it can. */
void xl_os_zero(void *addr, size_t bytes);
/* Zeroed private memory that, unless XL_PRELOAD, is zeroed again in a child of fork(). */
void *xl_os_private(size_t bytes);
void xl_os_unprivate(void *addr, size_t bytes);
/* The same, but a fork copies it. */
void *xl_os_lasting(size_t bytes);
/* As xl_os_private(), in a size that is used here and there only. */
void *xl_os_sparse(size_t bytes);
/* Whether the program is built with ThreadSanitizer, which ends it if it maps some addresses. */
bool xl_os_is_tsan(void);
/* Has a fork zero a whole page of .bss in the child. Returns 0 or -errno. */
int xl_os_wipe_on_fork(void *page);
/* A number that nobody can guess. */
uint64_t xl_os_random(void);

/*
 * Says whether memory may hold pointers to other memory, so that LeakSanitizer looks there. Nothing
 * happens in a program without LeakSanitizer.
 */
void xl_os_set_root(const void *addr, size_t bytes, bool is_root);

/* Bytes of RAM. */
size_t xl_os_ram(void);
/* RLIMIT_MEMLOCK and RLIMIT_AS in bytes, SIZE_MAX for none. */
size_t xl_os_memlock(void);
size_t xl_os_address_space(void);
/* Whether RLIMIT_MEMLOCK does not bind this process. */
bool xl_os_memlock_exempt(void);
/* For a lock that is mostly let go sooner than a sleeper would wake up. */
void xl_os_lock(pthread_mutex_t *lock);
/* No longer if a signal comes. */
void xl_os_sleep(unsigned int ms);
/* One write(2) to stderr. */
void xl_os_say(const char *text, size_t bytes);
/* All of it. Returns 0 or -errno. */
int xl_os_write(int fd, const char *text, size_t bytes);

#endif /* XL_OS_H */
