// SPDX-License-Identifier: MIT
/*
 * The system calls of libxalloc but for those of the device: open, mmap and a few questions.
 *
 * open(), close() and write() of libc are cancellation points: a thread that is cancelled there
 * would keep the locks of the library for ever. syscall() is none.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "os.h"

/* Where descriptors of the library lie: the last so many, below a table that costs nothing. */
#define NR_HIGH_FDS 64
#define FD_MAX 1024

#define XL_OS_PAGE 4096

#define NR_SPINS 200

static void xl_tsan_init(void) __attribute__((weakref("__tsan_init")));

/* Of LeakSanitizer; NULL in a program without it. */
void __lsan_register_root_region(const void *addr, size_t bytes) __attribute__((weak));
void __lsan_unregister_root_region(const void *addr, size_t bytes) __attribute__((weak));

int xl_os_open(const char *path)
{
	int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int xl_os_open_new(const char *path)
{
	int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, 0600);

	return fd < 0 ? -errno : fd;
}

void xl_os_unlink(const char *path)
{
	unlink(path);
}

int xl_os_file_bytes(int fd, size_t *bytes)
{
	struct stat file;

	if (fstat(fd, &file))
		return -errno;
	*bytes = file.st_size;
	return 0;
}

void xl_os_close(int fd)
{
	syscall(SYS_close, fd);
}

static size_t limit_of(int resource)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return SIZE_MAX;
	return limit.rlim_cur;
}

int xl_os_raise(int fd)
{
	size_t limit = limit_of(RLIMIT_NOFILE);
	int high = -1;

	if (limit > FD_MAX)
		limit = FD_MAX;
	if (limit > NR_HIGH_FDS)
		high = fcntl(fd, F_DUPFD_CLOEXEC, (int)(limit - NR_HIGH_FDS));
	if (high < 0)
		high = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (high < 0)
		return fd;
	xl_os_close(fd);
	return high;
}

int xl_os_identify(int fd, struct xl_file *file)
{
	struct stat status;

	if (fstat(fd, &status))
		return -errno;
	*file = (struct xl_file){ .device = status.st_dev, .number = status.st_ino };
	return 0;
}

void xl_os_unmap(void *addr, size_t bytes)
{
	munmap(addr, bytes);
}

/* At @addr and nowhere else. Returns 0 or -errno: -EEXIST if it cannot be there. */
static int map_at(void *addr, size_t bytes, int flags, int fd, uint64_t offset)
{
	void *got =
		mmap(addr, bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE, fd, offset);

	if (got == addr)
		return 0;
	if (got == MAP_FAILED)
		return errno == EINVAL ? -EEXIST : -errno;
	/* Valgrind, ThreadSanitizer, and kernels before 4.17 take the address for a wish. */
	munmap(got, bytes);
	return -EEXIST;
}

int xl_os_map_file(void *addr, size_t bytes, int fd, uint64_t offset)
{
	return map_at(addr, bytes, MAP_SHARED, fd, offset);
}

const void *xl_os_map_page(int fd, uint64_t offset)
{
	void *page = mmap(NULL, XL_OS_PAGE, PROT_READ, MAP_SHARED, fd, offset);

	if (page == MAP_FAILED)
		return NULL;
	/*
	 * An older module leaves the page out of a child unless this advice asks for the page. A
	 * newer one gives it to a child by itself, because Linux 7.0 and later refuse the advice.
	 */
	if (XL_PRELOAD)
		madvise(page, XL_OS_PAGE, MADV_DOFORK);
	return page;
}

void xl_os_unmap_page(const void *page)
{
	munmap((void *)page, XL_OS_PAGE);
}

int xl_os_map_anonymous(void *addr, size_t bytes, size_t small_bytes)
{
	int ret = map_at(addr, bytes, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (ret)
		return ret;
	if (!XL_PRELOAD && madvise(addr, bytes, MADV_DONTFORK)) {
		ret = -errno;
		munmap(addr, bytes);
		return ret;
	}
	/* Where there are no huge pages, small ones do; so no matter if this fails. */
	if (small_bytes < bytes)
		madvise((char *)addr + small_bytes, bytes - small_bytes, MADV_HUGEPAGE);
	return 0;
}

void xl_os_zero(void *addr, size_t bytes)
{
	/*
	 * EINVAL: it is locked, by mlockall() say. ENOMEM: some of it is not mapped, so not in
	 * use.
	 */
	if (madvise(addr, bytes, MADV_DONTNEED) && errno == EINVAL)
		memset(addr, 0, bytes);
}

/* For new private memory: what a fork does with it. Returns 0 or -errno, with nothing mapped. */
static int advise(void *addr, size_t bytes, int advice)
{
	int ret;

	/* A huge page for the first byte of each table would be most of a small program. */
	madvise(addr, bytes, MADV_NOHUGEPAGE);
	if (XL_PRELOAD || madvise(addr, bytes, advice) == 0)
		return 0;
	ret = -errno;
	munmap(addr, bytes);
	return ret;
}

static void *anonymous(size_t bytes, int flags, int advice)
{
	void *addr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags,
			  -1, 0);
	int ret;

	if (addr == MAP_FAILED)
		return NULL;
	ret = advise(addr, bytes, advice);
	if (!ret)
		return addr;
	errno = -ret;
	return NULL;
}

int xl_os_map_table(void *addr, size_t bytes)
{
	int ret = map_at(addr, bytes, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (ret)
		return ret;
	ret = advise(addr, bytes, MADV_WIPEONFORK);
	/* A core file is to have blocks, not what describes them. */
	if (!ret)
		madvise(addr, bytes, MADV_DONTDUMP);
	return ret;
}

void *xl_os_private(size_t bytes)
{
	return anonymous(bytes, 0, MADV_WIPEONFORK);
}

bool xl_os_is_tsan(void)
{
	return xl_tsan_init;
}

int xl_os_wipe_on_fork(void *page)
{
	return madvise(page, XL_OS_PAGE, MADV_WIPEONFORK) ? -errno : 0;
}

uint64_t xl_os_random(void)
{
	uint64_t random;

	/* Before the kernel has any, at boot, the time of day must do. */
	if (syscall(SYS_getrandom, &random, sizeof(random), GRND_NONBLOCK) != sizeof(random))
		random = __builtin_ia32_rdtsc() * 0x9e3779b97f4a7c15ull >> 16;
	return random;
}

void xl_os_unprivate(void *addr, size_t bytes)
{
	munmap(addr, bytes);
}

void *xl_os_lasting(size_t bytes)
{
	return anonymous(bytes, 0, MADV_NORMAL);
}

void *xl_os_sparse(size_t bytes)
{
	return anonymous(bytes, MAP_NORESERVE, MADV_WIPEONFORK);
}

void xl_os_set_root(const void *addr, size_t bytes, bool is_root)
{
	if (is_root && __lsan_register_root_region)
		__lsan_register_root_region(addr, bytes);
	else if (!is_root && __lsan_unregister_root_region)
		__lsan_unregister_root_region(addr, bytes);
}

size_t xl_os_ram(void)
{
	return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
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

void xl_os_sleep(unsigned int ms)
{
	struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

	syscall(SYS_ppoll, NULL, 0, &time, NULL, 0);
}

void xl_os_say(const char *text, size_t bytes)
{
	/* Nobody is left to tell when this fails. */
	if (syscall(SYS_write, STDERR_FILENO, text, bytes) < 0)
		return;
}

int xl_os_write(int fd, const char *text, size_t bytes)
{
	ssize_t nr;

	while (bytes) {
		nr = syscall(SYS_write, fd, text, bytes);
		if (nr < 0 && errno != EINTR)
			return -errno;
		if (nr > 0) {
			text += nr;
			bytes -= nr;
		}
	}
	return 0;
}

void xl_os_lock(pthread_mutex_t *lock)
{
	int i;

	for (i = 0; i < NR_SPINS; i++) {
		if (!pthread_mutex_trylock(lock))
			return;
		__builtin_ia32_pause();
	}
	pthread_mutex_lock(lock);
}
