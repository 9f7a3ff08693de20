// SPDX-License-Identifier: MIT
/*
 * Size classes: which blocks slabs are cut into, and how long a slab is.
 *
 * Class sizes are (8 to 15) << n from 128 bytes on, so that rounding a size up to its class
 * wastes less than an eighth. Slabs have tails, the rest that no block fits into, and leave slices
 * of a segment that no further slab fits into. A slab is as short as it can be so that a segment
 * of them, full of the smallest blocks of the class, is to seven eighths what was asked for.
 */
#include "internal.h"

#define MAX_SLAB_SLICES (XALLOC_SEGMENT_BYTES / XALLOC_SLICE_BYTES)

struct xl_class xl_classes[XL_NR_CLASSES];
uint8_t xl_class_of_size[XALLOC_SLICE_BYTES / XL_QUANTUM + 1];

static uint32_t class_bytes(unsigned int cls)
{
	unsigned int doubling;

	if (cls < XL_PER_DOUBLING)
		return (cls + 1) * XL_QUANTUM;
	doubling = cls / XL_PER_DOUBLING - 1;
	return (XL_PER_DOUBLING + cls % XL_PER_DOUBLING + 1) * XL_QUANTUM << doubling;
}

/* The class whose blocks are the smallest that hold @size, which is at most one slice. */
static unsigned int class_of_size(size_t size)
{
	unsigned int doubling;

	if (size <= XL_PER_DOUBLING * XL_QUANTUM)
		return (size - 1) / XL_QUANTUM;
	doubling = 63 - __builtin_clzll((size - 1) / (XL_PER_DOUBLING * XL_QUANTUM));
	return (doubling + 1) * XL_PER_DOUBLING + ((size - 1) / XL_QUANTUM >> doubling) -
	       XL_PER_DOUBLING;
}

/* Of the @nr_slices slabs of @cls that lie in a segment. */
static bool is_used_well(unsigned int cls, uint32_t nr_slices)
{
	size_t bytes = class_bytes(cls), least = bytes;
	size_t nr = MAX_SLAB_SLICES / nr_slices * (nr_slices * XL_SLICE / bytes);

	/* Below, what rounding takes is promised, and tails are short. */
	if (cls >= XL_PER_DOUBLING)
		least = class_bytes(cls - 1) + 1;
	return nr * least >= XL_SEGMENT / 8 * 7;
}

void xl_classes_init(void)
{
	unsigned int cls, i;

	_Static_assert(XL_QUANTUM * XL_PER_DOUBLING << (XL_NR_CLASSES / XL_PER_DOUBLING - 1) ==
			       XALLOC_SLICE_BYTES,
		       "the last class is one slice");
	for (cls = 0; cls < XL_NR_CLASSES; cls++) {
		struct xl_class *c = &xl_classes[cls];

		c->block_bytes = class_bytes(cls);
		c->nr_slices = 1;
		while (!is_used_well(cls, c->nr_slices))
			c->nr_slices++;
		c->nr_blocks = c->nr_slices * XL_SLICE / c->block_bytes;
		c->inverse = ((1ULL << 32) + c->block_bytes - 1) / c->block_bytes;
	}
	for (i = 1; i <= XALLOC_SLICE_BYTES / XL_QUANTUM; i++)
		xl_class_of_size[i] = class_of_size(i * XL_QUANTUM);
}

unsigned int xl_class_of(size_t alignment, size_t size)
{
	unsigned int cls;

	if (size > XL_SLICE || alignment > XL_SLICE)
		return XL_CLASS_LARGE;
	cls = class_of_size(size < alignment ? alignment : size);
	/* Slabs start at a multiple of any such alignment; the last class is one itself. */
	while (xl_classes[cls].block_bytes % alignment)
		cls++;
	return cls;
}
