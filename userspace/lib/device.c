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
		xl_explain("xalloc: there is no %s: the module xalloc is not loaded\n", DEVICE);
	else if (ret == -EACCES || ret == -EPERM)
		xl_explain("xalloc: %s cannot be opened by this user, who must be in the group xalloc\n",
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

static int device_create(struct xalloc_arena *arena)
{
	struct xalloc_ioc_arena_create arg = {
		.size = sizeof(arg),
		.arena_bytes = arena->bytes,
		.limit_bytes = arena->limit_bytes,
	};
	struct xalloc_ioc_info info;
	int device = open_device(&info);

	if (device < 0)
		return device;
	arena->fd = call(device, XALLOC_IOC_ARENA_CREATE, &arg);
	xl_os_close(device);
	if (arena->fd < 0)
		return arena->fd;
	arena->id = arg.arena_id;
	return 0;
}

static void device_destroy(struct xalloc_arena *arena)
{
	xl_os_close(arena->fd);
}

static int device_map(struct xalloc_arena *arena)
{
	return xl_os_map_file((void *)arena->base, arena->bytes, arena->fd);
}

static int device_grant(struct xalloc_arena *arena, uint32_t nr_slices, uint64_t tag,
			struct xl_grant *grant)
{
	struct xalloc_page_grant page = { .nr_slices = nr_slices, .tag = tag };
	struct xalloc_ioc_grant arg = {
		.size = sizeof(arg),
		.nr = 1,
		.pages = (uintptr_t)&page,
	};
	int ret = call(arena->fd, XALLOC_IOC_GRANT, &arg);

	grant->offset = page.offset;
	grant->zero = page.flags & XALLOC_PAGE_ZERO;
	return ret < 0 ? ret : 0;
}

static int device_free(struct xalloc_arena *arena, const uint64_t *offsets, uint32_t nr)
{
	struct xalloc_ioc_free arg = {
		.size = sizeof(arg),
		.nr = nr,
		.offsets = (uintptr_t)offsets,
	};

	return call(arena->fd, XALLOC_IOC_FREE, &arg);
}

static int device_stat(struct xalloc_arena *arena, struct xl_backend_stat *stat)
{
	struct xalloc_ioc_stat kernel = { .size = sizeof(kernel) };
	int ret = call(arena->fd, XALLOC_IOC_STAT, &kernel);

	*stat = (struct xl_backend_stat){
		.committed_bytes = kernel.committed_bytes,
		.pinned_bytes = kernel.pinned_bytes,
		.charged_bytes = kernel.charged_bytes,
		.granted_bytes = kernel.granted_bytes,
	};
	return ret;
}

const struct xl_backend xl_device_backend = {
	.bytes_max = device_bytes_max,
	.create = device_create,
	.destroy = device_destroy,
	.map = device_map,
	.grant = device_grant,
	.free = device_free,
	.stat = device_stat,
};
