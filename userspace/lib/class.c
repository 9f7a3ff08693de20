// SPDX-License-Identifier: MIT
/*
 * How long the slabs of each size class are. core/size_class.h says which sizes the classes have.
 *
 * Slabs have tails, the rest that no block fits into, and leave slices of a segment that no further
 * slab fits into. A slab is as short as it can be so that a segment of them, full of the smallest
 * blocks of the class, is to seven eighths what was asked for.
 */
#include "internal.h"

struct xl_class xl_classes[XL_NR_CACHED];
uint8_t xl_class_of_size[XALLOC_SLICE_BYTES / XL_QUANTUM + 1];

/* Of the @nr_slices slabs of @cls that lie in a segment. */
static bool is_used_well(unsigned int cls, uint32_t nr_slices)
{
	size_t bytes = xalloc_class_bytes(cls), least = bytes;
	size_t nr = XL_SEGMENT_SLICES / nr_slices * (nr_slices * XL_SLICE / bytes);

	/* Below, what rounding takes is promised, and tails are short. */
	if (cls >= XALLOC_CLASSES_PER_DOUBLING)
		least = xalloc_class_bytes(cls - 1) + 1;
	return nr * least >= XL_SEGMENT / 8 * 7;
}

/* Before the program has threads, which look at the classes without a lock. */
__attribute__((constructor(101))) void xl_classes_init(void)
{
	unsigned int cls, i;

	if (xl_classes[0].block_bytes)
		return;
	for (cls = 0; cls < XL_NR_CLASSES; cls++) {
		struct xl_class *c = &xl_classes[cls];

		c->block_bytes = xalloc_class_bytes(cls);
		c->nr_slices = 1;
		while (!is_used_well(cls, c->nr_slices))
			c->nr_slices++;
		c->nr_blocks = c->nr_slices * XL_SLICE / c->block_bytes;
		c->inverse = ((1ULL << 32) + c->block_bytes - 1) / c->block_bytes;
	}
	for (cls = XL_CLASS_LARGE + 1; cls < XL_NR_CACHED; cls++)
		xl_classes[cls].block_bytes = xalloc_class_bytes(cls - 1);
	for (i = 1; i <= XALLOC_SLICE_BYTES / XL_QUANTUM; i++)
		xl_class_of_size[i] = xalloc_class_of(i * XL_QUANTUM);
}

unsigned int xl_class_of(size_t alignment, size_t size)
{
	if (size > XL_SLICE || alignment > XL_SLICE)
		return XL_CLASS_LARGE;
	return xalloc_class_of_aligned(size, alignment);
}
