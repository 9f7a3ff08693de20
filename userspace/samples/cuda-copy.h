/* SPDX-License-Identifier: MIT */
/* What the samples for CUDA share: is there a device, and copies of blocks to it and back. */
#ifndef CUDA_COPY_H
#define CUDA_COPY_H

#include <cuda_runtime_api.h>

#include "advice.h"

#define ARENA_BYTES ((size_t)64 << 20)
#define NR_BLOCKS 1000
#define NR_ROUNDS 3
/* The exit status of a test that is skipped. */
#define EXIT_SKIP 4

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

	if (error || !nr) {
		fprintf(stderr, "%s: no device: %s\n", program_invocation_short_name,
			error ? cudaGetErrorString(error) : "CUDA counts none");
		exit(EXIT_SKIP);
	}
}

static inline unsigned char byte_of(unsigned int block, size_t at)
{
	return (unsigned char)(block * 31 + at % 251);
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
	size_t at, offset;
	char *device;

	CUDA(cudaGetDeviceProperties, &device_prop, 0);
	CUDA(cudaMalloc, (void **)&device, ARENA_BYTES);
	CUDA(cudaStreamCreate, &stream);
	for (round = 0; round < NR_ROUNDS; round++) {
		offset = 0;
		for (i = 0; i < NR_BLOCKS; i++) {
			if (!blocks[i]) {
				random = random * 1664525 + 1013904223;
				sizes[i] = 1 + (random >> 8) % (1U << (random >> 8) % 22);
				blocks[i] = xalloc_heap_malloc(heap, sizes[i]);
			}
			/* The heap is full. */
			if (!blocks[i])
				break;
			CUDA(cudaPointerGetAttributes, &attributes, blocks[i]);
			if (attributes.type != cudaMemoryTypeHost)
				die("CUDA does not know block %u as pinned memory", i);
			for (at = 0; at < sizes[i]; at++)
				blocks[i][at] = byte_of(i, at);
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
			for (at = 0; at < sizes[i]; at++)
				if (blocks[i][at] != byte_of(i, at))
					die("block %u is wrong at byte %zu of %zu", i, at,
					    sizes[i]);
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
