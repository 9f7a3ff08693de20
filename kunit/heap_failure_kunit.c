// SPDX-License-Identifier: GPL-2.0-only
/* Heaps while each allocation fails in its turn. */
#include <linux/file.h>
#include <linux/sched.h>

#include "heap_fixture.h"

struct failure_row {
	const char *desc;
	bool mappable;
	int (*try)(struct kunit *test);
	/* That must be met at the least; the kernel's tools allocate along, now and then. */
	u32 nr_failures;
};

static int try_create(struct kunit *test)
{
	const struct failure_row *row = test->param_value;
	const struct xalloc_heap_config config = {
		.arena_bytes = FX_MIB(8),
		.mappable = row->mappable,
	};

	fx_heap = xalloc_heap_create(&config);
	if (!IS_ERR(fx_heap))
		return 0;
	fx_heap = NULL;
	return -ENOMEM;
}

static int try_blocks(struct kunit *test)
{
	const size_t sizes[] = { 20, 4000, 20000, 65536, 100000 };
	int err = 0;
	void *block;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		block = xalloc_heap_alloc(fx_heap, sizes[i], GFP_KERNEL);
		if (!block)
			err = -ENOMEM;
		else if (i != 1)	/* which is left to destroy */
			xalloc_heap_free(fx_heap, block);
	}
	return err;
}

static int try_vmap(struct kunit *test)
{
	void *block = xalloc_heap_vmap(fx_heap, 3 * XALLOC_SEGMENT_BYTES);

	xalloc_heap_vunmap(fx_heap, block);
	return block ? 0 : -ENOMEM;
}

static int try_file(struct kunit *test)
{
	struct file *file = xalloc_heap_file(fx_heap, O_RDONLY);

	if (IS_ERR(file))
		return -ENOMEM;
	fput(file);
	return 0;
}

static const struct failure_row failures[] = {
	{ "creating a heap of the kernel's own", false, try_create, 8 },
	{ "creating a heap that can be mapped", true, try_create, 12 },
	{ "allocating blocks of several sizes", false, try_blocks, 1 },
	{ "allocating a mapped block", false, try_vmap, 1 },
	{ "opening a file on the arena", true, try_file, 1 },
};

XALLOC_KUNIT_ROWS(failures, failure_row);

static void no_failed_allocation_leaks(struct kunit *test)
{
#ifdef CONFIG_FAULT_INJECTION
	const struct failure_row *row = test->param_value;
	u32 nth, nr_failures = 0;
	bool met = true;
	int err;

	for (nth = 1; met && nth < 1000; nth++) {
		if (row->try != try_create)
			fx_make_heap(test, 4, row->mappable);
		current->fail_nth = nth;
		err = row->try(test);
		met = !current->fail_nth;
		current->fail_nth = 0;
		nr_failures += !!err;
		KUNIT_EXPECT_TRUE(test, met || !err);
		if (fx_heap)
			KUNIT_ASSERT_TRUE_MSG(test, xalloc_heap_is_valid(fx_heap),
					      "allocation %u failed", nth);
		fx_drop_heap();
		flush_delayed_fput();
		KUNIT_ASSERT_TRUE_MSG(test, fx_wait_for(fx_nothing_counted(test->priv)),
				      "allocation %u failed", nth);
	}
	KUNIT_EXPECT_FALSE(test, met);
	KUNIT_EXPECT_GE_MSG(test, nr_failures, row->nr_failures,
			    "is ignore-gfp-wait of failslab and fail_page_alloc N?");
	kunit_info(test, "%u allocations, %u of which failed it", nth - 2, nr_failures);
#else
	kunit_skip(test, "the kernel is built without CONFIG_FAULT_INJECTION");
#endif
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(no_failed_allocation_leaks, failures_gen_params),
	{}
};

struct kunit_suite xalloc_heap_failure_suite = {
	.name = "xalloc_heap_failure",
	.init = fx_init,
	.exit = fx_heap_exit,
	.test_cases = cases,
};
