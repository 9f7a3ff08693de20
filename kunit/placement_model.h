/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What placement has to answer, said by a plain model: a byte for each slice and for each
 * segment, searched from the start. Plain C, for KUnit and for the fuzzer of user space.
 *
 * Each call does the same to the placement and to the model. It returns NULL if both agree,
 * else what is wrong.
 */
#ifndef XALLOC_PLACEMENT_MODEL_H
#define XALLOC_PLACEMENT_MODEL_H

#include "placement.h"

enum placement_model_slice {
	MODEL_FREE,
	MODEL_TAKEN,
	MODEL_LOST,
};

struct placement_model {
	struct xalloc_placement *pl;
	uint8_t *slices;	/* enum placement_model_slice, of each */
	uint8_t *backings;	/* enum xalloc_placement_backing, of each segment */
	uint8_t *fenced;	/* of each segment */
	uint32_t nr_free_slices;
};

/* Of the memory for the model of @nr_segments, which is zeroed and has these parts. */
static inline size_t placement_model_bytes(uint32_t nr_segments)
{
	return (size_t)nr_segments * (XALLOC_SLICES_PER_SEGMENT + 2);
}

void placement_model_init(struct placement_model *m, struct xalloc_placement *pl, void *memory);
const char *placement_model_take(struct placement_model *m,
				 const struct xalloc_placement_request *request, bool frugal,
				 int *err, uint32_t *slice);
const char *placement_model_give(struct placement_model *m, uint32_t slice, uint32_t nr_slices);
const char *placement_model_set_backing(struct placement_model *m, uint32_t segment,
					enum xalloc_placement_backing backing, int *err);
const char *placement_model_fence(struct placement_model *m, uint32_t segment);
const char *placement_model_compare(const struct placement_model *m);

#endif /* XALLOC_PLACEMENT_MODEL_H */
