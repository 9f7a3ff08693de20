/* SPDX-License-Identifier: MIT */
/*
 * xalloc-uring: blocks of libxalloc in io_uring
 *
 * For programs that use liburing 2.3 or later. All calls are inline functions: link with liburing
 * and libxalloc. Linux 5.19 or later has the tables and buffer rings.
 *
 * Fixed buffers
 *	xalloc_uring_attach() makes each chunk of an arena a fixed buffer of a ring, before a block
 *	is in the chunk, and takes it out of the ring's table before the memory goes back. So every
 *	block lies in one fixed buffer, and the preparing calls find its index.
 *
 *	Several rings may be attached to one arena. Each has a table and a chunk hook of its own,
 *	and each registration counts against RLIMIT_MEMLOCK. A table that was cloned by
 *	io_uring_clone_buffers() would not hear of later chunks, and would keep those that go.
 *
 *	A chunk is registered by the thread whose allocation needs it. So a ring that is attached
 *	must be one that every such thread may register with: not with IORING_SETUP_SINGLE_ISSUER,
 *	and not after io_uring_register_ring_fd(), unless one thread alone uses the arena.
 *
 *	Linux 6.1 refuses arenas as fixed buffers: blocks are refused there with EOPNOTSUPP.
 *
 * Buffer rings
 *	xalloc_uring_bufs_create() gives the kernel a group of buffers, from which it takes one
 *	when data arrives. The buffers are one block. In an attached arena they are fixed buffers
 *	as well, so what was received can be written on without a copy.
 */
#ifndef XALLOC_URING_H
#define XALLOC_URING_H

#include <errno.h>
#include <liburing.h>
#include <libxalloc.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Most chunks of an arena that is attached to a ring. */
#define XALLOC_URING_CHUNKS 1024U
/* The largest fixed buffer of the kernel, in bytes. */
#define XALLOC_URING_CHUNK_BYTES ((size_t)1 << 30)

/**
 * struct xalloc_uring - a ring that is attached to an arena
 * @ring: the ring
 * @hook: keeps the table of the ring in step with the arena
 * @taken: for each index of the table whether a chunk has it
 *
 * It stays where it is from xalloc_uring_attach() to xalloc_uring_detach().
 */
struct xalloc_uring {
	struct io_uring *ring;
	struct xalloc_hook *hook;
	unsigned char taken[XALLOC_URING_CHUNKS];
};

static inline int xalloc_uring_update(struct io_uring *ring, unsigned int index, void *address,
				      size_t bytes)
{
	struct iovec iov;
	int ret;

	iov.iov_base = address;
	iov.iov_len = bytes;
	ret = io_uring_register_buffers_update_tag(ring, index, &iov, NULL, 1);
	return ret < 0 ? ret : 0;
}

static inline int xalloc_uring_added(void *ctx, void *address, size_t bytes, void **cookie)
{
	struct xalloc_uring *fixed = (struct xalloc_uring *)ctx;
	unsigned int index;
	int ret;

	if (bytes > XALLOC_URING_CHUNK_BYTES)
		return -EFBIG;
	for (index = 0; index < XALLOC_URING_CHUNKS; index++)
		if (!__atomic_test_and_set(&fixed->taken[index], __ATOMIC_ACQUIRE))
			break;
	if (index == XALLOC_URING_CHUNKS)
		return -ENOSPC;
	ret = xalloc_uring_update(fixed->ring, index, address, bytes);
	if (ret) {
		__atomic_clear(&fixed->taken[index], __ATOMIC_RELEASE);
		return ret;
	}
	/* NULL means no chunk. */
	*cookie = (void *)((uintptr_t)index + 1);
	return 0;
}

static inline void xalloc_uring_removed(void *ctx, void *address, size_t bytes, void *cookie)
{
	struct xalloc_uring *fixed = (struct xalloc_uring *)ctx;
	unsigned int index = (unsigned int)((uintptr_t)cookie - 1);

	(void)address;
	(void)bytes;
	xalloc_uring_update(fixed->ring, index, NULL, 0);
	__atomic_clear(&fixed->taken[index], __ATOMIC_RELEASE);
}

/**
 * xalloc_uring_attach() - make the chunks of an arena fixed buffers of a ring
 * @fixed: out
 * @ring: a ring without fixed buffers; its table is for this arena alone
 * @arena: an arena that xalloc_chunk_hook_add() takes
 *
 * Chunks that are there are registered before the call returns, later ones before a block is in
 * them. An allocation that needs a chunk fails with EFBIG when a block needs one of more than
 * XALLOC_URING_CHUNK_BYTES, with ENOSPC when there are XALLOC_URING_CHUNKS, and with what the
 * kernel says: ENOMEM for RLIMIT_MEMLOCK, EOPNOTSUPP on Linux 6.1.
 *
 * Return: 0, or -errno: what io_uring_register_buffers_sparse() and xalloc_chunk_hook_add() say.
 */
static inline int xalloc_uring_attach(struct xalloc_uring *fixed, struct io_uring *ring,
				      struct xalloc_arena *arena)
{
	struct xalloc_chunk_hook hook;
	unsigned int i;
	int ret;

	fixed->ring = ring;
	for (i = 0; i < XALLOC_URING_CHUNKS; i++)
		fixed->taken[i] = 0;
	ret = io_uring_register_buffers_sparse(ring, XALLOC_URING_CHUNKS);
	if (ret)
		return ret;
	hook.size = sizeof(hook);
	hook.added = xalloc_uring_added;
	hook.removed = xalloc_uring_removed;
	hook.ctx = fixed;
	fixed->hook = xalloc_chunk_hook_add(arena, &hook);
	if (!fixed->hook) {
		ret = -errno;
		io_uring_unregister_buffers(ring);
		return ret;
	}
	return 0;
}

/**
 * xalloc_uring_detach() - end what xalloc_uring_attach() began
 * @fixed: the attached ring
 *
 * Comes before xalloc_arena_destroy() and io_uring_queue_exit(). Blocks stay.
 *
 * Return: 0, or -errno of xalloc_chunk_hook_remove().
 */
static inline int xalloc_uring_detach(struct xalloc_uring *fixed)
{
	int ret = xalloc_chunk_hook_remove(fixed->hook);

	if (!ret)
		io_uring_unregister_buffers(fixed->ring);
	return ret;
}

/**
 * xalloc_uring_index() - the fixed buffer that an address lies in
 * @fixed: the attached ring
 * @ptr: any address in a block of the arena
 *
 * One look into a table; any thread may call it at any time.
 *
 * Return: the index, or -ENOENT for memory that is not the arena's.
 */
static inline int xalloc_uring_index(const struct xalloc_uring *fixed, const void *ptr)
{
	uintptr_t cookie = (uintptr_t)xalloc_chunk_cookie(fixed->hook, ptr);

	return cookie ? (int)(cookie - 1) : -ENOENT;
}

/**
 * xalloc_uring_prep_read() - prepare a read into a block, as io_uring_prep_read_fixed()
 * @fixed: the attached ring
 * @sqe: a request of the ring
 * @fd: the file
 * @ptr: any address in a block; other memory is read into without a fixed buffer
 * @bytes: how many, all in the block
 * @offset: in the file, in bytes
 */
static inline void xalloc_uring_prep_read(const struct xalloc_uring *fixed,
					  struct io_uring_sqe *sqe, int fd, void *ptr,
					  unsigned int bytes, uint64_t offset)
{
	int index = xalloc_uring_index(fixed, ptr);

	if (index >= 0)
		io_uring_prep_read_fixed(sqe, fd, ptr, bytes, offset, index);
	else
		io_uring_prep_read(sqe, fd, ptr, bytes, offset);
}

/* As xalloc_uring_prep_read(), for io_uring_prep_write_fixed(). */
static inline void xalloc_uring_prep_write(const struct xalloc_uring *fixed,
					   struct io_uring_sqe *sqe, int fd, const void *ptr,
					   unsigned int bytes, uint64_t offset)
{
	int index = xalloc_uring_index(fixed, ptr);

	if (index >= 0)
		io_uring_prep_write_fixed(sqe, fd, ptr, bytes, offset, index);
	else
		io_uring_prep_write(sqe, fd, ptr, bytes, offset);
}

/**
 * xalloc_uring_prep_send_zc() - prepare a send without a copy, as io_uring_prep_send_zc_fixed()
 * @fixed: the attached ring
 * @sqe: a request of the ring
 * @fd: the socket
 * @ptr: any address in a block; other memory is sent without a fixed buffer
 * @bytes: how many, all in the block
 * @flags: of send()
 *
 * The block may be written and freed after the second completion, the one that has
 * IORING_CQE_F_NOTIF. The first has IORING_CQE_F_MORE if there will be a second.
 */
static inline void xalloc_uring_prep_send_zc(const struct xalloc_uring *fixed,
					     struct io_uring_sqe *sqe, int fd, const void *ptr,
					     size_t bytes, int flags)
{
	int index = xalloc_uring_index(fixed, ptr);

	if (index >= 0)
		io_uring_prep_send_zc_fixed(sqe, fd, ptr, bytes, flags, 0, (unsigned int)index);
	else
		io_uring_prep_send_zc(sqe, fd, ptr, bytes, flags, 0);
}

/**
 * struct xalloc_uring_bufs - a group of buffers that the kernel chooses from
 * @ring: the ring
 * @entries: what the kernel reads of free buffers; a block
 * @data: the buffers; a block
 * @bytes: of a buffer
 * @nr: how many buffers
 * @group: the group's number in the ring
 */
struct xalloc_uring_bufs {
	struct io_uring *ring;
	struct io_uring_buf_ring *entries;
	unsigned char *data;
	size_t bytes;
	unsigned int nr;
	unsigned short group;
};

/**
 * xalloc_uring_bufs_put() - give a buffer back to the kernel
 * @bufs: the group
 * @data: what xalloc_uring_bufs_data() returned, or any address in that buffer
 *
 * One thread at a time may call this for a group.
 */
static inline void xalloc_uring_bufs_put(struct xalloc_uring_bufs *bufs, const void *data)
{
	size_t id = (size_t)((const unsigned char *)data - bufs->data) / bufs->bytes;

	io_uring_buf_ring_add(bufs->entries, bufs->data + id * bufs->bytes,
			      (unsigned int)bufs->bytes, (unsigned short)id,
			      io_uring_buf_ring_mask(bufs->nr), 0);
	io_uring_buf_ring_advance(bufs->entries, 1);
}

/**
 * xalloc_uring_bufs_create() - give the kernel a group of buffers
 * @bufs: out
 * @ring: the ring
 * @heap: where the buffers come from
 * @group: a number that no other group of the ring has
 * @nr: how many buffers: a power of two, at most 32768
 * @bytes: of a buffer, at least 1 and less than 4 GiB
 *
 * Return: 0, or -errno: of xalloc_heap_aligned_alloc() and io_uring_register_buf_ring().
 */
static inline int xalloc_uring_bufs_create(struct xalloc_uring_bufs *bufs, struct io_uring *ring,
					   struct xalloc_heap *heap, unsigned short group,
					   unsigned int nr, size_t bytes)
{
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	struct io_uring_buf_reg reg;
	unsigned int i;
	int ret;

	bufs->ring = ring;
	bufs->bytes = bytes;
	bufs->nr = nr;
	bufs->group = group;
	bufs->entries = (struct io_uring_buf_ring *)
		xalloc_heap_aligned_alloc(heap, page_bytes, nr * sizeof(struct io_uring_buf));
	if (!bufs->entries)
		return -errno;
	bufs->data = (unsigned char *)xalloc_heap_aligned_alloc(heap, page_bytes, nr * bytes);
	if (!bufs->data) {
		ret = -errno;
		xalloc_free(bufs->entries);
		return ret;
	}
	io_uring_buf_ring_init(bufs->entries);
	memset(&reg, 0, sizeof(reg));
	reg.ring_addr = (uintptr_t)bufs->entries;
	reg.ring_entries = nr;
	reg.bgid = group;
	ret = io_uring_register_buf_ring(ring, &reg, 0);
	if (ret) {
		xalloc_free(bufs->data);
		xalloc_free(bufs->entries);
		return ret;
	}
	for (i = 0; i < nr; i++)
		xalloc_uring_bufs_put(bufs, bufs->data + i * bytes);
	return 0;
}

/**
 * xalloc_uring_bufs_destroy() - take the group from the kernel and free its blocks
 * @bufs: the group; no request may wait for a buffer of it
 */
static inline void xalloc_uring_bufs_destroy(struct xalloc_uring_bufs *bufs)
{
	io_uring_unregister_buf_ring(bufs->ring, bufs->group);
	xalloc_free(bufs->data);
	xalloc_free(bufs->entries);
}

/**
 * xalloc_uring_bufs_select() - have a request take its buffer from the group
 * @bufs: the group
 * @sqe: a prepared read or receive, whose address is NULL
 */
static inline void xalloc_uring_bufs_select(const struct xalloc_uring_bufs *bufs,
					    struct io_uring_sqe *sqe)
{
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = bufs->group;
}

/**
 * xalloc_uring_bufs_data() - the buffer that a completion is about
 * @bufs: the group
 * @cqe: the completion; its res says how many bytes the buffer has
 *
 * Return: the start of the buffer, or NULL when the request took none.
 */
static inline void *xalloc_uring_bufs_data(const struct xalloc_uring_bufs *bufs,
					   const struct io_uring_cqe *cqe)
{
	if (!(cqe->flags & IORING_CQE_F_BUFFER))
		return NULL;
	return bufs->data + (cqe->flags >> IORING_CQE_BUFFER_SHIFT) * bufs->bytes;
}

#ifdef __cplusplus
}
#endif

#endif /* XALLOC_URING_H */
