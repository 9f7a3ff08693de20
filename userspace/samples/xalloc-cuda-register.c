// SPDX-License-Identifier: MIT
/*
 * xalloc-cuda-register: a heap whose memory is registered with CUDA chunk by chunk
 *
 * libxalloc commits the memory, and the arena's hook registers each chunk before a block is in it.
 * For CUDA each block is pinned memory then, without a call for each block.
 */
#include "cuda-copy.h"

/* For several chunks of the arena. */
#define CHUNK_BYTES ((size_t)8 << 20)

static unsigned int nr_registered;

static int register_chunk(void *ctx, void *address, size_t bytes, void **cookie)
{
	cudaError_t error = cudaHostRegister(address, bytes, cudaHostRegisterDefault);

	(void)ctx;
	(void)cookie;
	if (error) {
		fprintf(stderr, "cudaHostRegister: %s\n", cudaGetErrorString(error));
		return -ENOMEM;
	}
	nr_registered++;
	return 0;
}

static void unregister_chunk(void *ctx, void *address, size_t bytes, void *cookie)
{
	(void)ctx;
	(void)bytes;
	(void)cookie;
	CUDA(cudaHostUnregister, address);
	nr_registered--;
}

int main(void)
{
	const struct xalloc_arena_config config = { .size = sizeof(config),
						    .arena_bytes = ARENA_BYTES,
						    .chunk_bytes = CHUNK_BYTES };
	const struct xalloc_chunk_hook hook = { .size = sizeof(hook),
						.added = register_chunk,
						.removed = unregister_chunk };
	struct xalloc_arena *arena;
	struct xalloc_heap *heap;

	need_device();
	arena = xalloc_arena_create(&config);
	if (!arena)
		die("xalloc_arena_create: %s", strerror(errno));
	if (!xalloc_chunk_hook_add(arena, &hook))
		die("xalloc_chunk_hook_add: %s", strerror(errno));
	heap = xalloc_heap_create(arena);
	if (!heap)
		die("xalloc_heap_create: %s", strerror(errno));
	copy_through(heap);
	printf("%u chunks of %zu bytes are registered\n", nr_registered, CHUNK_BYTES);
	/* Unregisters the chunks first. */
	xalloc_arena_destroy(arena);
	if (nr_registered)
		die("%u chunks are registered still", nr_registered);
	return 0;
}
