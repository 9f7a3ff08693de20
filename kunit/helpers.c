// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module around the suites.
 *
 * It starts them itself, from its init, instead of leaving that to KUnit's notifier:
 * 6.1 runs the suites of a module before the module's parameters are set, and without
 * the head that makes the log KTAP.
 */
#include <linux/module.h>
#include <linux/random.h>

#include "helpers.h"

static bool run_long;
module_param_named(long, run_long, bool, 0444);
MODULE_PARM_DESC(long, "Random tests take the many steps of a release instead of a few");

static ulong seed;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "Seed of the random tests, as one of them printed it; 0: a new one each");

/** xalloc_kunit_is_long() - whether the size that was asked for is the long one */
bool xalloc_kunit_is_long(void)
{
	return run_long;
}

/** xalloc_kunit_steps() - steps of a random test in the size that was asked for */
u32 xalloc_kunit_steps(u32 nr_short, u32 nr_long)
{
	return run_long ? nr_long : nr_short;
}

/** xalloc_kunit_seed() - seed @rnd and print how to get the same again */
void xalloc_kunit_seed(struct kunit *test, struct rnd_state *rnd)
{
	u64 from = seed ?: get_random_u32();

	kunit_info(test, "SEED=%llu", from);
	prandom_seed_state(rnd, from);
}

static struct kunit_suite *suites[] = {
	&xalloc_placement_suite,
	&xalloc_placement_model_suite,
	&xalloc_placement_table_suite,
	&xalloc_placement_damage_suite,
	&xalloc_arena_suite,
	&xalloc_client_suite,
	&xalloc_copy_suite,
	&xalloc_pin_suite,
	&xalloc_failure_suite,
	&xalloc_policy_suite,
	&xalloc_reserve_suite,
	&xalloc_validate_suite,
	&xalloc_walk_suite,
	&xalloc_hole_suite,
	&xalloc_heap_suite,
	&xalloc_heap_damage_suite,
	&xalloc_heap_failure_suite,
	&xalloc_heap_walk_suite,
};

static int __init xalloc_kunit_init(void)
{
	pr_info("KTAP version 1\n");
	pr_info("1..%zu\n", ARRAY_SIZE(suites));
	return xalloc_kunit_run_suites(suites, ARRAY_SIZE(suites));
}

static void __exit xalloc_kunit_exit(void)
{
	__kunit_test_suites_exit(suites, ARRAY_SIZE(suites));
}

module_init(xalloc_kunit_init);
module_exit(xalloc_kunit_exit);

MODULE_DESCRIPTION("KUnit suites of xalloc");
MODULE_AUTHOR("The xalloc authors");
MODULE_LICENSE("GPL");
XALLOC_IMPORT_KUNIT_SYMBOLS;
