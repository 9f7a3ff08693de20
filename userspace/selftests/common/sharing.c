// SPDX-License-Identifier: GPL-2.0-only
#include "sharing.h"

int attach_at(int fd, const volatile void *address, uint32_t flags,
	      struct xalloc_ioc_attach *arg)
{
	struct xalloc_ioc_attach own = {
		.size = sizeof(own),
		.flags = flags,
		.address = (uintptr_t)address,
	};
	int rc = call(fd, XALLOC_IOC_ATTACH, &own);

	if (arg)
		*arg = own;
	return rc;
}

int list_some(int arena, uint32_t flags, uint64_t client_id, uint64_t *offset,
	      struct xalloc_page_info *pages, uint32_t nr)
{
	struct xalloc_ioc_list arg = {
		.size = sizeof(arg),
		.flags = flags,
		.client_id = client_id,
		.offset = *offset,
		.nr = nr,
		.pages = (uintptr_t)pages,
	};
	int rc = call(arena, XALLOC_IOC_LIST, &arg);

	*offset = arg.offset;
	return rc;
}

int list_all(int arena, uint32_t flags, struct xalloc_page_info *pages, int nr)
{
	uint64_t offset = 0, last;
	int rc, seen = 0;

	do {
		last = offset;
		rc = list_some(arena, flags, 0, &offset, pages + seen,
			       nr - seen < XALLOC_BATCH_MAX ? nr - seen : XALLOC_BATCH_MAX);
		if (rc < 0)
			return rc;
		seen += rc;
	} while (seen < nr && offset > last);
	return seen;
}

int claim(int arena, uint64_t offset)
{
	struct xalloc_ioc_claim arg = {
		.size = sizeof(arg),
		.nr = 1,
		.offsets = (uintptr_t)&offset,
	};

	return call(arena, XALLOC_IOC_CLAIM, &arg);
}

int grant_tagged(int arena, uint32_t nr_slices, uint32_t flags, uint64_t tag, uint64_t *offset)
{
	struct xalloc_page_grant page = { .nr_slices = nr_slices, .flags = flags, .tag = tag };
	int rc = grant_batch(arena, &page, 1);

	*offset = page.offset;
	return rc;
}

int arena_limit(int arena, uint64_t limit_bytes)
{
	struct xalloc_ioc_limit arg = { .size = sizeof(arg), .limit_bytes = limit_bytes };

	return call(arena, XALLOC_IOC_LIMIT, &arg);
}

int family_create(int device, uint64_t arena_bytes, uint64_t limit_bytes)
{
	return arena_create_flags(device, arena_bytes, limit_bytes, XALLOC_ARENA_FORK);
}

int fork_prepare(int arena, uint32_t flags)
{
	struct xalloc_ioc_fork_prepare arg = { .size = sizeof(arg), .flags = flags };

	return call(arena, XALLOC_IOC_FORK_PREPARE, &arg);
}

void fd_send(int sock, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = {};
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	require(sendmsg(sock, &msg, 0) == 1);
}

int fd_receive(int sock)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	int fd = -1;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

int name_create_flags(const char *path, uint64_t arena_bytes, uint32_t flags)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), rc;

	if (fd < 0)
		return -errno;
	rc = arena_create_flags(fd, arena_bytes, 0, flags);
	if (!rc)
		return fd;
	close(fd);
	unlink(path);
	return rc;
}

int name_create(const char *path, uint64_t arena_bytes)
{
	return name_create_flags(path, arena_bytes, 0);
}

int name_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}
