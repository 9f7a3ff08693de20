// SPDX-License-Identifier: MIT
/* Runs of slices: granted where they can be mapped, and freed. */
#include <errno.h>

#include "run.h"
#include "zone.h"

/* So many times the addresses of a grant may be taken. */
#define NR_TAKEN 8

void xl_runs_free(struct xalloc_arena *arena, const struct xalloc_range *runs, uint32_t nr)
{
	uint32_t done = 0;
	int ret;

	if (arena->leaving)
		return;
	while (done < nr) {
		ret = arena->backend->free(arena, runs + done, nr - done);
		if (ret <= 0) {
			/* Lost to this process; the kernel has it back when the arena goes. */
			xl_explain("xalloc: the page at %#llx of arena %llu cannot be given back (error %d)\n",
				   (unsigned long long)runs[done].offset,
				   (unsigned long long)arena->id, -ret);
			ret = 1;
		}
		done += ret;
	}
}

void xl_run_free(struct xalloc_arena *arena, uint32_t nr_slices, const struct xl_grant *granted)
{
	struct xalloc_range run = { .offset = granted->offset, .bytes = nr_slices * XL_SLICE };

	xl_runs_free(arena, &run, 1);
}

int xl_run_grant(struct xalloc_arena *arena, uint64_t tag, uint32_t nr_slices,
		 struct xl_grant *granted)
{
	struct xl_grant taken[NR_TAKEN];
	unsigned int nr = 0;
	int ret;

	for (;;) {
		granted->at = false;
		ret = arena->backend->grant(arena, nr_slices, tag, granted);
		if (ret)
			break;
		ret = xl_zone_use(arena, granted->offset, nr_slices * XL_SLICE);
		if (!ret)
			break;
		taken[nr++] = *granted;
		if (ret != -EEXIST || nr == NR_TAKEN) {
			ret = -ENOMEM;
			break;
		}
	}
	while (nr)
		xl_run_free(arena, nr_slices, &taken[--nr]);
	return ret;
}
