// SPDX-License-Identifier: MIT
/* Arenas of the device: the ioctls of <linux/xalloc.h>. */
#include <errno.h>
#include <sys/ioctl.h>

#include "backend.h"
#include "os.h"

#define DEVICE "/dev/xalloc"

static int call(int fd, unsigned long request, void *arg)
{
	int ret = ioctl(fd, request, arg);

	return ret < 0 ? -errno : ret;
}

static void explain_open(int ret)
{
	if (ret == -ENOENT || ret == -ENXIO || ret == -ENODEV)
		xl_explain("xalloc: there is no %s: the module xalloc is not loaded (modprobe xalloc); XALLOC_BACKEND=local does without\n",
			   DEVICE);
	else if (ret == -EACCES || ret == -EPERM)
		xl_explain("xalloc: %s cannot be opened by this user, who must be in the group xalloc; XALLOC_BACKEND=local does without\n",
			   DEVICE);
	else
		xl_explain("xalloc: %s cannot be opened (error %d)\n", DEVICE, -ret);
}

/* Opens the device and checks that it is one this library is made for. */
static int open_device(struct xalloc_ioc_info *info)
{
	int device, ret;

	device = xl_os_open(DEVICE);
	if (device < 0) {
		explain_open(device);
		return device;
	}
	*info = (struct xalloc_ioc_info){ .size = sizeof(*info) };
	ret = call(device, XALLOC_IOC_INFO, info);
	if (!ret && (info->slice_bytes != XL_SLICE || info->segment_bytes != XL_SEGMENT)) {
		xl_explain("xalloc: the module has slices of %u and segments of %u bytes, this library is made for others\n",
			   info->slice_bytes, info->segment_bytes);
		ret = -EPROTO;
	}
	if (ret) {
		xl_os_close(device);
		return ret;
	}
	return device;
}

static bool is_same(const struct xl_file *a, const struct xl_file *b)
{
	return a->device == b->device && a->number == b->number;
}

static bool is_of(int fd, const struct xl_file *file)
{
	struct xl_file found;

	return !xl_os_identify(fd, &found) && is_same(&found, file);
}

/*
 * Maps the status page, without which no memory is given back before it is asked for. A child of
 * fork() has the page of its copy at the same address.
 */
static void map_status(struct xalloc_arena *arena, int fd)
{
	const void *status = xl_os_map_page(fd, XALLOC_STATUS_OFFSET);

	if (status)
		atomic_store(&arena->status, status);
}

/* Makes @fd the arena's descriptor, or closes it. Returns 0 or -errno. */
static int use_fd(struct xalloc_arena *arena, int fd)
{
	struct xl_file file;
	int ret;

	fd = xl_os_raise(fd);
	ret = xl_os_identify(fd, &file);
	if (ret) {
		xl_os_close(fd);
		return ret;
	}
	/* With another descriptor of the same file the status page is there already. */
	if (!is_same(&file, &arena->file)) {
		map_status(arena, fd);
		arena->file = file;
	}
	atomic_store(&arena->fd, fd);
	return 0;
}

/*
 * Gives the arena a descriptor again: of what is mapped where it lies, which after a fork is this
 * child's copy. @old is the one that did not do.
 */
static int attach(struct xalloc_arena *arena, int old)
{
	struct xalloc_ioc_attach arg = { .size = sizeof(arg), .address = arena->base };
	bool is_own = is_of(old, &arena->file);
	struct xalloc_ioc_info info;
	int device = is_own ? old : open_device(&info);
	int fd, ret;

	if (device < 0)
		return device;
	fd = call(device, XALLOC_IOC_ATTACH, &arg);
	/* Whoever has taken the number of ours since keeps it. */
	if (!is_own)
		xl_os_close(device);
	if (fd < 0)
		return fd;
	ret = use_fd(arena, fd);
	if (ret)
		return ret;
	arena->id = arg.arena_id;
	if (is_own)
		xl_os_close(old);
	return 0;
}

/*
 * After a call with @fd that ended with @error: gives the arena another descriptor if that was the
 * reason. Returns 0 if the call is to be made again, or -errno.
 */
static int attach_again(struct xalloc_arena *arena, int fd, int error)
{
	struct xl_file file;
	int ret = 0;

	pthread_mutex_lock(&arena->lock);
	file = arena->file;
	pthread_mutex_unlock(&arena->lock);
	/* Most errors have another reason, and this looks at the descriptor without the lock. */
	if (error != -ESTALE && is_of(fd, &file))
		return error;
	pthread_mutex_lock(&arena->lock);
	if (fd == atomic_load(&arena->fd))
		ret = attach(arena, fd);
	pthread_mutex_unlock(&arena->lock);
	return ret;
}

/*
 * The program around the library may have closed its descriptors, and opened others in their
 * place: which they are is looked at when a call fails. In the preload library another arena may
 * have come to the number, on which the call would not fail: there it is looked at before, too.
 */
static int arena_call(struct xalloc_arena *arena, unsigned long request, void *arg)
{
	int fd = atomic_load(&arena->fd);
	int ret = -EBADF;

	if (!XL_PRELOAD || is_of(fd, &arena->file))
		ret = call(fd, request, arg);
	if (ret >= 0)
		return ret;
	ret = attach_again(arena, fd, ret);
	return ret ? ret : call(atomic_load(&arena->fd), request, arg);
}

static int device_bytes_max(size_t *bytes)
{
	struct xalloc_ioc_info info;
	int device = open_device(&info);

	if (device < 0)
		return device;
	xl_os_close(device);
	*bytes = info.arena_bytes_max;
	return 0;
}

/* An arena of the device, or one in a new file of xallocfs. Returns its descriptor or -errno. */
static int create_arena(struct xalloc_ioc_arena_create *arg, const char *path)
{
	struct xalloc_ioc_info info;
	int fd, ret;

	if (!path) {
		int device = open_device(&info);

		if (device < 0)
			return device;
		fd = call(device, XALLOC_IOC_ARENA_CREATE, arg);
		xl_os_close(device);
		return fd;
	}
	fd = xl_os_open_new(path);
	if (fd < 0)
		return fd;
	ret = call(fd, XALLOC_IOC_ARENA_CREATE, arg);
	if (!ret)
		return fd;
	xl_os_unlink(path);
	xl_os_close(fd);
	return ret;
}

static void device_destroy(struct xalloc_arena *arena)
{
	const void *status = atomic_load(&arena->status);

	if (status)
		xl_os_unmap_page(status);
	if (is_of(arena->fd, &arena->file))
		xl_os_close(arena->fd);
}

static int set_reserve(struct xalloc_arena *arena, const struct xalloc_arena_config *config)
{
	struct xalloc_ioc_reserve arg = {
		.size = sizeof(arg),
		.low_bytes = config->reserve_low_bytes,
		.high_bytes = config->reserve_high_bytes,
	};

	return arg.high_bytes ? call(arena->fd, XALLOC_IOC_RESERVE, &arg) : 0;
}

static int device_create(struct xalloc_arena *arena, const struct xalloc_arena_config *config)
{
	/* In the preload library the client that frees a page may be another one: see attach(). */
	struct xalloc_ioc_arena_create arg = {
		.size = sizeof(arg),
		.flags = (config->flags & XALLOC_ON_NODE ? XALLOC_ARENA_NODE : 0) |
			 (config->flags & XALLOC_PERSIST ? XALLOC_ARENA_PERSIST : 0) |
			 (config->flags & XALLOC_DUMP ? XALLOC_ARENA_DUMP : 0) |
			 (XL_PRELOAD ? XALLOC_ARENA_FORK | XALLOC_ARENA_PERSIST : 0),
		.arena_bytes = arena->bytes,
		.limit_bytes = arena->limit_bytes,
		.policy = config->pages,
		.node = config->node,
	};
	int fd = create_arena(&arg, config->path), ret;

	if (fd < 0)
		return fd;
	arena->id = arg.arena_id;
	arena->explains_pieces = config->pages == XALLOC_PAGES_HUGE_PREFERRED;
	ret = use_fd(arena, fd);
	if (!ret) {
		ret = set_reserve(arena, config);
		if (ret < 0)
			device_destroy(arena);
	}
	if (ret < 0 && config->path)
		xl_os_unlink(config->path);
	return ret;
}

/*
 * Whether the kernel grants pages in an arena: not in one that a program uses as a file. A call for
 * no pages is refused by EINVAL where some could be had.
 */
static int check_grants(int fd)
{
	struct xalloc_ioc_grant none = { .size = sizeof(none) };
	int ret = call(fd, XALLOC_IOC_GRANT, &none);

	return ret == -EINVAL ? 0 : ret;
}

static int device_attach(struct xalloc_arena *arena, int fd)
{
	struct xalloc_ioc_attach arg = { .size = sizeof(arg) };
	int ret;

	fd = call(fd, XALLOC_IOC_ATTACH, &arg);
	if (fd < 0)
		return fd;
	arena->id = arg.arena_id;
	/* Where the preload library has set both flags for itself, nothing stays for others. */
	arena->persists = (arg.arena_flags & (XALLOC_ARENA_PERSIST | XALLOC_ARENA_FORK)) ==
			  XALLOC_ARENA_PERSIST;
	ret = xl_os_file_bytes(fd, &arena->bytes);
	if (!ret)
		ret = check_grants(fd);
	if (!ret)
		return use_fd(arena, fd);
	xl_os_close(fd);
	return ret;
}

/* By a descriptor that is not ours any more it would be another file: see arena_call(). */
static int device_map(struct xalloc_arena *arena, uint64_t offset, size_t bytes)
{
	void *address = (char *)arena->base + offset;
	int fd = atomic_load(&arena->fd), ret = -EBADF;

	if (is_of(fd, &arena->file))
		ret = xl_os_map_file(address, bytes, fd, offset);
	if (ret != -EBADF && ret != -ESTALE)
		return ret;
	ret = attach_again(arena, fd, ret);
	return ret ? ret : xl_os_map_file(address, bytes, atomic_load(&arena->fd), offset);
}

static int device_grant(struct xalloc_arena *arena, uint32_t nr_slices, uint64_t tag,
			struct xl_grant *grant)
{
	struct xalloc_page_grant page = {
		.nr_slices = nr_slices,
		.flags = grant->at ? XALLOC_PAGE_AT : 0,
		.offset = grant->at ? grant->offset : 0,
		.tag = tag,
	};
	struct xalloc_ioc_grant arg = {
		.size = sizeof(arg),
		.nr = 1,
		.pages = (uintptr_t)&page,
	};
	int ret = arena_call(arena, XALLOC_IOC_GRANT, &arg);

	grant->offset = page.offset;
	grant->zero = page.flags & XALLOC_PAGE_ZERO;
	grant->huge = page.contig_bytes >= XL_SEGMENT;
	if (ret >= 0 && !grant->huge && atomic_exchange(&arena->explains_pieces, false))
		xl_explain("xalloc: arena %llu goes on with pieces of 64 KiB: the kernel has no huge page at hand\n",
			   (unsigned long long)arena->id);
	return ret < 0 ? ret : 0;
}

static int device_free(struct xalloc_arena *arena, const struct xalloc_range *pages, uint32_t nr)
{
	struct xalloc_ioc_free arg = {
		.size = sizeof(arg),
		.flags = XALLOC_FREE_RANGES,
		.nr = nr,
		.offsets = (uintptr_t)pages,
	};

	return arena_call(arena, XALLOC_IOC_FREE, &arg);
}

static int device_stat(struct xalloc_arena *arena, struct xalloc_arena_stat *stat)
{
	struct xalloc_ioc_stat kernel = { .size = sizeof(kernel) };
	int ret = arena_call(arena, XALLOC_IOC_STAT, &kernel);

	stat->committed_bytes = kernel.committed_bytes;
	stat->pinned_bytes = kernel.pinned_bytes;
	stat->charged_bytes = kernel.charged_bytes;
	stat->granted_bytes = kernel.granted_bytes;
	stat->small_bytes = kernel.small_bytes;
	return ret;
}

static int device_fork_prepare(struct xalloc_arena *arena, bool cancel)
{
	struct xalloc_ioc_fork_prepare arg = {
		.size = sizeof(arg),
		.flags = cancel ? XALLOC_FORK_CANCEL : 0,
	};

	return arena_call(arena, XALLOC_IOC_FORK_PREPARE, &arg);
}

/* At once: the descriptor that the fork has inherited keeps the arena of the parent alive. */
static void device_fork_child(struct xalloc_arena *arena)
{
	/* Should it fail, the next call tries again. */
	attach(arena, atomic_load(&arena->fd));
}

static int device_export(struct xalloc_arena *arena, uint64_t offset, uint64_t bytes)
{
	struct xalloc_ioc_export arg = { .size = sizeof(arg), .offset = offset, .bytes = bytes };

	return arena_call(arena, XALLOC_IOC_EXPORT, &arg);
}

const struct xl_backend xl_device_backend = {
	.bytes_max = device_bytes_max,
	.create = device_create,
	.attach = device_attach,
	.destroy = device_destroy,
	.map = device_map,
	.grant = device_grant,
	.free = device_free,
	.stat = device_stat,
	.export = device_export,
	.fork_prepare = device_fork_prepare,
	.fork_child = device_fork_child,
};
