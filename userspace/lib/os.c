// SPDX-License-Identifier: MIT
/*
 * The system calls of libxalloc: open, ioctl, mmap and a few questions.
 *
 * open(), close() and write() of libc are cancellation points: a thread that is cancelled there
 * would keep the locks of the library for ever. syscall() is none.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/xalloc.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os.h"

int xl_os_open(const char *path)
{
	int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

void xl_os_close(int fd)
{
	syscall(SYS_close, fd);
}

static int call(int fd, unsigned long request, void *arg)
{
	int ret = ioctl(fd, request, arg);

	return ret < 0 ? -errno : ret;
}

int xl_os_info(int fd, struct xalloc_ioc_info *info)
{
	*info = (struct xalloc_ioc_info){ .size = sizeof(*info) };
	return call(fd, XALLOC_IOC_INFO, info);
}

int xl_os_stat(int fd, struct xalloc_ioc_stat *stat)
{
	*stat = (struct xalloc_ioc_stat){ .size = sizeof(*stat) };
	return call(fd, XALLOC_IOC_STAT, stat);
}

int xl_os_arena_create(int device, size_t arena_bytes, size_t limit_bytes, uint64_t *id)
{
	struct xalloc_ioc_arena_create arg = {
		.size = sizeof(arg),
		.arena_bytes = arena_bytes,
		.limit_bytes = limit_bytes,
	};
	int ret = call(device, XALLOC_IOC_ARENA_CREATE, &arg);

	*id = arg.arena_id;
	return ret;
}

int xl_os_grant(int arena, uint32_t nr_slices, uint64_t tag, struct xl_grant *grant)
{
	struct xalloc_page_grant page = { .nr_slices = nr_slices, .tag = tag };
	struct xalloc_ioc_grant arg = {
		.size = sizeof(arg),
		.nr = 1,
		.pages = (uintptr_t)&page,
	};
	int ret = call(arena, XALLOC_IOC_GRANT, &arg);

	grant->offset = page.offset;
	grant->zero = page.flags & XALLOC_PAGE_ZERO;
	return ret < 0 ? ret : 0;
}

int xl_os_free(int arena, const uint64_t *offsets, uint32_t nr)
{
	struct xalloc_ioc_free arg = {
		.size = sizeof(arg),
		.nr = nr,
		.offsets = (uintptr_t)offsets,
	};

	return call(arena, XALLOC_IOC_FREE, &arg);
}

static void *reserve(void *addr, size_t bytes, int flags)
{
	void *got = mmap(addr, bytes, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);

	if (got == MAP_FAILED)
		return NULL;
	/* Should it fail, a child has these addresses too: no harm. */
	madvise(got, bytes, MADV_DONTFORK);
	return got;
}

void *xl_os_reserve(size_t bytes)
{
	return reserve(NULL, bytes, 0);
}

bool xl_os_reserve_free(void *addr, size_t bytes)
{
	return reserve(addr, bytes, MAP_FIXED_NOREPLACE);
}

void xl_os_unreserve(void *addr, size_t bytes)
{
	munmap(addr, bytes);
}

int xl_os_map_arena(void *addr, size_t bytes, int arena)
{
	void *got = mmap(addr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, arena, 0);
	int error = errno;

	if (got != MAP_FAILED)
		return 0;
	/* The kernel has unmapped what was there if the file refused: not for others to take. */
	xl_os_reserve_free(addr, bytes);
	return -error;
}

int xl_os_unmap_arena(void *addr, size_t bytes)
{
	return reserve(addr, bytes, MAP_FIXED) ? 0 : -errno;
}

static void *anonymous(size_t bytes, int flags, int advice)
{
	void *addr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags,
			  -1, 0);
	int error;

	if (addr == MAP_FAILED)
		return NULL;
	if (madvise(addr, bytes, advice) == 0)
		return addr;
	error = errno;
	munmap(addr, bytes);
	errno = error;
	return NULL;
}

void *xl_os_private(size_t bytes)
{
	return anonymous(bytes, 0, MADV_WIPEONFORK);
}

void xl_os_unprivate(void *addr, size_t bytes)
{
	munmap(addr, bytes);
}

void *xl_os_sparse(size_t bytes)
{
	return anonymous(bytes, MAP_NORESERVE, MADV_DONTFORK);
}

size_t xl_os_ram(void)
{
	return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
}

static size_t limit_of(int resource)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return SIZE_MAX;
	return limit.rlim_cur;
}

size_t xl_os_memlock(void)
{
	return limit_of(RLIMIT_MEMLOCK);
}

size_t xl_os_address_space(void)
{
	return limit_of(RLIMIT_AS);
}

bool xl_os_memlock_exempt(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (syscall(SYS_capget, &header, data))
		return false;
	return data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK);
}

void xl_os_say(const char *text, size_t bytes)
{
	/* Nobody is left to tell when this fails. */
	if (syscall(SYS_write, STDERR_FILENO, text, bytes) < 0)
		return;
}
