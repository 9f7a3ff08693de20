/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Size classes: the sizes of blocks that slabs are cut into.
 *
 * A class is a number from 0 on; all blocks of a class have the same size. Nothing is stored
 * here, because the sizes follow from the number:
 *
 *	classes 0 to 7		16, 32, ... 128 bytes
 *	classes 8 to 15		144, 160, ... 256
 *	classes 16 to 23	288, 320, ... 512
 *	...
 *	classes 72 to 79	36864, 40960, ... 65536
 *
 * What always holds:
 *
 *	a higher class has larger blocks
 *	each size is a multiple of the quantum, 16 bytes
 *	each power of two from the quantum to one slice is the size of a class
 *	the last class has blocks of one slice
 *	rounding a size above 128 bytes up to that of its class adds less than an eighth
 *
 * The module and the library each decide how long the slabs of a class are.
 */
#ifndef XALLOC_SIZE_CLASS_H
#define XALLOC_SIZE_CLASS_H

#include <linux/xalloc.h>

#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/types.h>
#else
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#endif

#define XALLOC_CLASS_QUANTUM 16
#define XALLOC_CLASSES_PER_DOUBLING 8
/* Sizes up to this one are rounded up to the quantum. */
#define XALLOC_CLASS_LINEAR_BYTES (XALLOC_CLASS_QUANTUM * XALLOC_CLASSES_PER_DOUBLING)
/* Doublings from there to one slice. */
#define XALLOC_CLASS_DOUBLINGS 9
#define XALLOC_NR_CLASSES (XALLOC_CLASSES_PER_DOUBLING * (1 + XALLOC_CLASS_DOUBLINGS))

static_assert(XALLOC_CLASS_LINEAR_BYTES << XALLOC_CLASS_DOUBLINGS == XALLOC_SLICE_BYTES,
	      "the last class has blocks of one slice");

/**
 * xalloc_class_bytes() - the size of the blocks of a class
 * @cls: the class, below XALLOC_NR_CLASSES
 *
 * Return: bytes.
 */
static inline uint32_t xalloc_class_bytes(uint32_t cls)
{
	uint32_t doubling;

	if (cls < XALLOC_CLASSES_PER_DOUBLING)
		return (cls + 1) * XALLOC_CLASS_QUANTUM;
	doubling = cls / XALLOC_CLASSES_PER_DOUBLING - 1;
	return (XALLOC_CLASSES_PER_DOUBLING + cls % XALLOC_CLASSES_PER_DOUBLING + 1) *
	       XALLOC_CLASS_QUANTUM << doubling;
}

/**
 * xalloc_class_of() - the class of the smallest blocks that hold a size
 * @bytes: the size, 1 to XALLOC_SLICE_BYTES; or more, as the classes go on: up to 2^31
 *
 * Return: the class.
 */
static inline uint32_t xalloc_class_of(size_t bytes)
{
	uint32_t last = (uint32_t)bytes - 1, doubling;

	if (last < XALLOC_CLASS_LINEAR_BYTES)
		return last / XALLOC_CLASS_QUANTUM;
	doubling = 31 - (uint32_t)__builtin_clz(last / XALLOC_CLASS_LINEAR_BYTES);
	/* @last, counted in steps of this doubling, is 8 to 15; step 8 is in the first class. */
	return doubling * XALLOC_CLASSES_PER_DOUBLING + (last / XALLOC_CLASS_QUANTUM >> doubling);
}

/**
 * xalloc_class_of_aligned() - the class of the smallest aligned blocks that hold a size
 * @bytes: the size, 1 to XALLOC_SLICE_BYTES
 * @alignment: what the address of a block is a multiple of: a power of two, at most
 *	XALLOC_SLICE_BYTES
 *
 * A slab begins at a multiple of XALLOC_SLICE_BYTES, so its blocks are aligned if their size is.
 * The last class always is.
 *
 * Return: the class.
 */
static inline uint32_t xalloc_class_of_aligned(size_t bytes, size_t alignment)
{
	uint32_t cls = xalloc_class_of(bytes < alignment ? alignment : bytes);

	while (xalloc_class_bytes(cls) & (alignment - 1))
		cls++;
	return cls;
}

#endif /* XALLOC_SIZE_CLASS_H */
