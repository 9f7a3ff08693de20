/* SPDX-License-Identifier: MIT */
/* What the samples for CUDA share: is there a device, and copies of blocks to it and back. */
#ifndef CUDA_COPY_H
#define CUDA_COPY_H

#include <cuda_runtime_api.h>

#include "data.h"

#define ARENA_BYTES ((size_t)64 << 20)
#define NR_BLOCKS 1000
#define NR_ROUNDS 3

static inline void check_cuda(cudaError_t error, const char *call)
{
	if (error)
		die("%s: %s", call, cudaGetErrorString(error));
}

#define CUDA(name, ...) check_cuda(name(__VA_ARGS__), #name)

/* Ends the program where CUDA has no device. */
static inline void need_device(void)
{
	int nr = 0;
	cudaError_t error = cudaGetDeviceCount(&nr);

	if (error || !nr)
		skip("no device: %s", error ? cudaGetErrorString(error) : "CUDA counts none");
}

/*
 * Fills @heap, of an arena of ARENA_BYTES, with blocks of many sizes. Copies all blocks to the
 * device, writes zeros over them, copies them back and looks at each byte. Each further round frees
 * half of the blocks and takes others.
 */
static inline void copy_through(struct xalloc_heap *heap)
{
	static unsigned char *blocks[NR_BLOCKS];
	static size_t sizes[NR_BLOCKS];
	struct cudaPointerAttributes attributes;
	struct cudaDeviceProp device_prop;
	unsigned long long nr_copies = 0, nr_bytes = 0;
	unsigned int round, i, random = 1;
	cudaStream_t stream;
	size_t offset;
	char *device;

	CUDA(cudaGetDeviceProperties, &device_prop, 0);
	CUDA(cudaMalloc, (void **)&device, ARENA_BYTES);
	CUDA(cudaStreamCreate, &stream);
	for (round = 0; round < NR_ROUNDS; round++) {
		offset = 0;
		for (i = 0; i < NR_BLOCKS; i++) {
			if (!blocks[i]) {
				sizes[i] = next_size(&random);
				blocks[i] = xalloc_heap_malloc(heap, sizes[i]);
			}
			/* The heap is full. */
			if (!blocks[i])
				break;
			CUDA(cudaPointerGetAttributes, &attributes, blocks[i]);
			if (attributes.type != cudaMemoryTypeHost)
				die("CUDA does not know block %u as pinned memory", i);
			fill_block(blocks[i], i, sizes[i]);
			CUDA(cudaMemcpyAsync, device + offset, blocks[i], sizes[i],
			     cudaMemcpyHostToDevice, stream);
			offset += sizes[i];
		}
		if (!i)
			die("no block: %s", strerror(errno));
		CUDA(cudaStreamSynchronize, stream);
		nr_copies += i;
		nr_bytes += offset;
		while (i-- > 0) {
			memset(blocks[i], 0, sizes[i]);
			offset -= sizes[i];
			CUDA(cudaMemcpyAsync, blocks[i], device + offset, sizes[i],
			     cudaMemcpyDeviceToHost, stream);
		}
		CUDA(cudaStreamSynchronize, stream);
		for (i = 0; i < NR_BLOCKS && blocks[i]; i++)
			compare_block(blocks[i], i, 0, sizes[i]);
		for (i = round % 2; i < NR_BLOCKS; i += 2) {
			xalloc_free(blocks[i]);
			blocks[i] = NULL;
		}
	}
	CUDA(cudaStreamDestroy, stream);
	CUDA(cudaFree, device);
	printf("%llu blocks, %llu bytes in all, to the device and back, each byte right; %s\n",
	       nr_copies, nr_bytes, device_prop.name);
}

#endif /* CUDA_COPY_H */
