// SPDX-License-Identifier: MIT
/*
 * xalloc-cuda-adopt: a heap in memory that cudaHostAlloc() has pinned
 *
 * cudaHostAlloc() is slow, so the program calls it once. The arena adopts the memory, and blocks of
 * any size come from the heap. For CUDA each block is pinned memory, as all of the arena is.
 */
#include "cuda-copy.h"

int main(void)
{
	struct xalloc_arena *arena;
	struct xalloc_heap *heap;
	void *memory;

	need_device();
	CUDA(cudaHostAlloc, &memory, ARENA_BYTES, cudaHostAllocDefault);
	arena = xalloc_arena_adopt(memory, ARENA_BYTES);
	if (!arena)
		die("xalloc_arena_adopt: %s", strerror(errno));
	heap = xalloc_heap_create(arena);
	if (!heap)
		die("xalloc_heap_create: %s", strerror(errno));
	copy_through(heap);
	/* With the heap. The memory stays CUDA's. */
	xalloc_arena_destroy(arena);
	CUDA(cudaFreeHost, memory);
	return 0;
}
