/* SPDX-License-Identifier: MIT */
/* Runs of slices, as the backend grants them, where the program can have them. */
#ifndef XL_RUN_H
#define XL_RUN_H

#include "backend.h"

/*
 * Grants @nr_slices at addresses that can be had: not where somebody else has mapped something.
 * Nothing is locked. Returns 0 or -errno, or -XL_ADD_CHUNK.
 */
int xl_run_grant(struct xalloc_arena *arena, uint64_t tag, uint32_t nr_slices,
		 struct xl_grant *granted);
/* Frees what was just granted. */
void xl_run_free(struct xalloc_arena *arena, uint32_t nr_slices, const struct xl_grant *granted);
/* Frees @nr runs, at most XALLOC_BATCH_MAX. */
void xl_runs_free(struct xalloc_arena *arena, const struct xalloc_range *runs, uint32_t nr);

#endif /* XL_RUN_H */
