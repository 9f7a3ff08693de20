/* SPDX-License-Identifier: GPL-2.0-only */
/* What the suites share. */
#ifndef XALLOC_KUNIT_HELPERS_H
#define XALLOC_KUNIT_HELPERS_H

#include <kunit/test.h>
#include <linux/prandom.h>
#include <linux/string.h>

#include "../module/internal.h"

/* One for each file *_kunit.c here; scripts/kunit looks for them by these names. */
extern struct kunit_suite xalloc_arena_suite;
extern struct kunit_suite xalloc_client_suite;
extern struct kunit_suite xalloc_copy_suite;
extern struct kunit_suite xalloc_failure_suite;
extern struct kunit_suite xalloc_heap_damage_suite;
extern struct kunit_suite xalloc_heap_failure_suite;
extern struct kunit_suite xalloc_heap_suite;
extern struct kunit_suite xalloc_heap_walk_suite;
extern struct kunit_suite xalloc_hole_suite;
extern struct kunit_suite xalloc_pin_suite;
extern struct kunit_suite xalloc_placement_damage_suite;
extern struct kunit_suite xalloc_placement_model_suite;
extern struct kunit_suite xalloc_placement_suite;
extern struct kunit_suite xalloc_placement_table_suite;
extern struct kunit_suite xalloc_policy_suite;
extern struct kunit_suite xalloc_reserve_suite;
extern struct kunit_suite xalloc_validate_suite;
extern struct kunit_suite xalloc_walk_suite;

/*
 * Parameters NAME_gen_params from the array NAME of struct ROW, which has a member desc: a
 * sentence of at most 127 characters, without a hash sign, that says what is tried.
 */
#define XALLOC_KUNIT_ROWS(name, row)					\
	static void name##_desc(struct row const *_row, char *desc)	\
	{								\
		strscpy(desc, _row->desc, KUNIT_PARAM_DESC_SIZE);	\
	}								\
	KUNIT_ARRAY_PARAM(name, name, name##_desc)

bool xalloc_kunit_is_long(void);
u32 xalloc_kunit_steps(u32 nr_short, u32 nr_long);
void xalloc_kunit_seed(struct kunit *test, struct rnd_state *rnd);

/* A number from 0 to @end - 1. */
static inline u32 xalloc_kunit_below(struct rnd_state *rnd, u32 end)
{
	return prandom_u32_state(rnd) % end;
}

/* Bits of a field that are wrong. */
struct flip {
	size_t offset;
	size_t size;
	u64 bits;
};

#define FLIP(type, field, _bits) {					\
	.offset = offsetof(struct type, field),				\
	.size = sizeof_field(struct type, field),			\
	.bits = (_bits),						\
}

static inline void flip(void *object, const struct flip *flip)
{
	void *field = object + flip->offset;

	switch (flip->size) {
	case 1:
		*(u8 *)field ^= flip->bits;
		break;
	case 4:
		*(u32 *)field ^= flip->bits;
		break;
	case 8:
		*(u64 *)field ^= flip->bits;
		break;
	}
}

#endif /* XALLOC_KUNIT_HELPERS_H */
