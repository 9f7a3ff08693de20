/* SPDX-License-Identifier: MIT */
/*
 * xalloc-verbs: blocks of libxalloc in RDMA
 *
 * For programs that use libibverbs. All calls are inline functions: link with libibverbs and
 * libxalloc.
 *
 * xalloc_verbs_attach() registers each chunk of an arena as a memory region before a block is in
 * the chunk, and deregisters it before the memory goes back. So each block lies in one memory
 * region, which is found from any address in it, and a block never needs more than one SGE.
 *
 * Several protection domains, of one device or of several, may be attached to one arena. Each has
 * memory regions and a chunk hook of its own. A chunk that was deregistered and registered again
 * has other keys: tell the other side the keys of blocks that are live, and tell it before a block
 * that it knows is freed.
 */
#ifndef XALLOC_VERBS_H
#define XALLOC_VERBS_H

#include <errno.h>
#include <infiniband/verbs.h>
#include <libxalloc.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * struct xalloc_verbs - a protection domain that is attached to an arena
 * @pd: the protection domain
 * @access: enum ibv_access_flags of each memory region
 * @hook: keeps the memory regions in step with the arena
 *
 * It stays where it is from xalloc_verbs_attach() to xalloc_verbs_detach().
 */
struct xalloc_verbs {
	struct ibv_pd *pd;
	int access;
	struct xalloc_hook *hook;
};

/**
 * struct xalloc_verbs_remote - what the other side has to know of a block
 * @address: &ibv_send_wr.wr.rdma.remote_addr
 * @rkey: &ibv_send_wr.wr.rdma.rkey
 * @reserved: zero
 */
struct xalloc_verbs_remote {
	uint64_t address;
	uint32_t rkey;
	uint32_t reserved;
};

static inline int xalloc_verbs_added(void *ctx, void *address, size_t bytes, void **cookie)
{
	const struct xalloc_verbs *verbs = (const struct xalloc_verbs *)ctx;
	struct ibv_mr *mr = ibv_reg_mr(verbs->pd, address, bytes, verbs->access);

	if (!mr)
		return errno ? -errno : -ENOMEM;
	*cookie = mr;
	return 0;
}

static inline void xalloc_verbs_removed(void *ctx, void *address, size_t bytes, void *cookie)
{
	(void)ctx;
	(void)address;
	(void)bytes;
	ibv_dereg_mr((struct ibv_mr *)cookie);
}

/**
 * xalloc_verbs_attach() - register the chunks of an arena with a protection domain
 * @verbs: out
 * @pd: the protection domain
 * @access: enum ibv_access_flags, as for ibv_reg_mr()
 * @arena: an arena that xalloc_chunk_hook_add() takes
 *
 * Chunks that are there are registered before the call returns, later ones before a block is in
 * them. An allocation that needs a chunk fails with errno of ibv_reg_mr() when that fails.
 *
 * Return: 0, or -errno of ibv_reg_mr() and xalloc_chunk_hook_add().
 */
static inline int xalloc_verbs_attach(struct xalloc_verbs *verbs, struct ibv_pd *pd, int access,
				      struct xalloc_arena *arena)
{
	struct xalloc_chunk_hook hook;

	verbs->pd = pd;
	verbs->access = access;
	hook.size = sizeof(hook);
	hook.added = xalloc_verbs_added;
	hook.removed = xalloc_verbs_removed;
	hook.ctx = verbs;
	verbs->hook = xalloc_chunk_hook_add(arena, &hook);
	return verbs->hook ? 0 : -errno;
}

/**
 * xalloc_verbs_detach() - deregister all chunks
 * @verbs: the attached protection domain
 *
 * Comes before xalloc_arena_destroy() and ibv_dealloc_pd(). Blocks stay.
 *
 * Return: 0, or -errno of xalloc_chunk_hook_remove().
 */
static inline int xalloc_verbs_detach(struct xalloc_verbs *verbs)
{
	return xalloc_chunk_hook_remove(verbs->hook);
}

/**
 * xalloc_verbs_mr() - the memory region that an address lies in
 * @verbs: the attached protection domain
 * @ptr: any address in a block of the arena
 *
 * One look into a table; any thread may call it at any time.
 *
 * Return: the memory region, or NULL for memory that is not the arena's.
 */
static inline struct ibv_mr *xalloc_verbs_mr(const struct xalloc_verbs *verbs, const void *ptr)
{
	return (struct ibv_mr *)xalloc_chunk_cookie(verbs->hook, ptr);
}

/**
 * xalloc_verbs_sge() - fill a scatter/gather element
 * @verbs: the attached protection domain
 * @ptr: any address in a block of the arena
 * @bytes: how many, all in the block
 * @sge: out
 *
 * Return: 0, or -ENOENT for memory that is not the arena's.
 */
static inline int xalloc_verbs_sge(const struct xalloc_verbs *verbs, const void *ptr,
				   uint32_t bytes, struct ibv_sge *sge)
{
	const struct ibv_mr *mr = xalloc_verbs_mr(verbs, ptr);

	if (!mr)
		return -ENOENT;
	sge->addr = (uintptr_t)ptr;
	sge->length = bytes;
	sge->lkey = mr->lkey;
	return 0;
}

/**
 * xalloc_verbs_remote() - what the other side has to know of a block
 * @verbs: the attached protection domain
 * @ptr: any address in a block of the arena
 * @remote: out, in the byte order of this machine
 *
 * Return: 0, or -ENOENT for memory that is not the arena's.
 */
static inline int xalloc_verbs_remote(const struct xalloc_verbs *verbs, const void *ptr,
				      struct xalloc_verbs_remote *remote)
{
	const struct ibv_mr *mr = xalloc_verbs_mr(verbs, ptr);

	if (!mr)
		return -ENOENT;
	remote->address = (uintptr_t)ptr;
	remote->rkey = mr->rkey;
	remote->reserved = 0;
	return 0;
}

#ifdef __cplusplus
}
#endif

#endif /* XALLOC_VERBS_H */
