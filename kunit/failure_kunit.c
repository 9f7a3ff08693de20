// SPDX-License-Identifier: GPL-2.0-only
/* Failures: what is left when an allocation fails, each in its turn. */
#include <linux/falloc.h>
#include <linux/file.h>
#include <linux/sched.h>

#include "fixture.h"

struct failure_row {
	const char *desc;
	void (*prepare)(struct kunit *test);
	int (*try)(struct kunit *test);
	/*
	 * That must be met at the least. Their number is not fixed: kmemleak, KASAN and
	 * SLUB allocate along, and do without or otherwise.
	 */
	u32 nr_failures;
	/* Looks at what @try left, when allocations do not fail any more. Or NULL. */
	void (*check)(struct kunit *test, int err);
};

static void prepare_nothing(struct kunit *test)
{
}

static int try_arena(struct kunit *test)
{
	struct fixture *fx = test->priv;
	struct xalloc_arena *arena = fx_create_arena(FX_MIB(64), 0, 0);

	if (IS_ERR(arena))
		return PTR_ERR(arena);
	fx->arena = arena;
	return 0;
}

static void prepare_arena(struct kunit *test)
{
	fx_make_arena(test, 32, 0);
}

static int try_client(struct kunit *test)
{
	struct fixture *fx = test->priv;
	struct xalloc_client *client = xalloc_client_create(fx->arena);

	if (IS_ERR(client))
		return PTR_ERR(client);
	fx->clients[0] = client;
	return 0;
}

static void prepare_client(struct kunit *test)
{
	prepare_arena(test);
	fx_make_client(test);
}

/* Past the slices and the segments that an xarray keeps without a node. */
static int try_grant(struct kunit *test)
{
	struct xalloc_page_grant batch[] = {
		{ .nr_slices = 31 }, { .nr_slices = 70 }, { .nr_slices = 1 }, { .nr_slices = 32 },
	};
	static const struct {
		u32 nr_slices;
		u32 nr_segments;
	} after[] = { { 0, 0 }, { 31, 1 }, { 101, 4 }, { 102, 4 }, { 134, 5 } };
	struct fixture *fx = test->priv;
	int rc = fx_grant_batch(fx->clients[0], batch, ARRAY_SIZE(batch)), i;

	if (rc < 0)
		return rc;
	FX_EXPECT_ALIVE(test, rc, after[rc].nr_slices, after[rc].nr_segments, 0);
	for (i = 0; i < rc; i++)
		KUNIT_EXPECT_EQ(test, fx_free_offset(fx->clients[0], batch[i].offset), 0);
	return rc == ARRAY_SIZE(batch) ? 0 : -ENOMEM;
}

/* A page below which a segment is pinned, another client's beside it. */
static void prepare_free(struct kunit *test)
{
	struct fixture *fx = test->priv;

	prepare_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(fx->clients[0], 31, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(fx->clients[0], 70, 0), 31);
	KUNIT_EXPECT_EQ(test, fx_grant_at(fx_make_client(test), 40, 0), 101);
	fx_pin(test, 1);
	fx_pin(test, 4);
}

static int try_free(struct kunit *test)
{
	struct fixture *fx = test->priv;
	int err = fx_free_at(fx->clients[0], 31);

	fx_drop_client(test, fx->clients[1]);
	return err;
}

/*
 * A grant wants the middle of a page that was freed lazily. That takes two records. Without them
 * the grant has other memory.
 */
static void prepare_lazy(struct kunit *test)
{
	struct fixture *fx = test->priv;

	prepare_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(fx->clients[0], 70, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_free_lazily_at(fx->clients[0], 0), 0);
}

static int try_lazy_grant(struct kunit *test)
{
	struct xalloc_page_grant grant = {
		.nr_slices = 20, .flags = XALLOC_PAGE_AT, .offset = 30 * XALLOC_SLICE_BYTES,
	};
	struct fixture *fx = test->priv;
	int rc = fx_grant_batch(fx->clients[0], &grant, 1);

	if (rc != 1)
		return rc;
	return fx_free_at(fx->clients[0], 30);
}

static int try_file(struct kunit *test)
{
	struct fixture *fx = test->priv;
	struct file *file = fx_create_file(FX_MIB(64), 0);

	if (IS_ERR(file))
		return PTR_ERR(file);
	fx->file = file;
	return 0;
}

/* Two pages in three segments, one of which somebody pins. */
static void prepare_copy(struct kunit *test)
{
	struct fixture *fx = test->priv;

	fx_make_family(test, 0, XALLOC_POLICY_HUGE);
	fx_make_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(fx->clients[0], 31, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(fx->clients[0], 40, 0), 31);
	fx_pin(test, 1);
}

static int try_copy(struct kunit *test)
{
	struct fixture *fx = test->priv;
	struct xalloc_client *heir;
	u64 nr_changes;
	int err;

	heir = xalloc_copy_create(fx->arena, &nr_changes);
	if (IS_ERR(heir))
		return PTR_ERR(heir);
	err = xalloc_copy_fill(heir, fx->arena);
	xalloc_copy_destroy(heir);
	return err;
}

static void prepare_name(struct kunit *test)
{
	fx_make_name(test, 0);
}

/* Past the segments that an xarray keeps without a node, in huge pages and in pieces. */
static int try_fill(struct kunit *test)
{
	struct fixture *fx = test->priv;
	int err = vfs_fallocate(fx->file, 0, 0, FX_MIB(5));

	fx_backing_no_huge = true;
	err = err ?: vfs_fallocate(fx->file, 0, FX_MIB(8) - 2 * XALLOC_SLICE_BYTES,
				   4 * XALLOC_SLICE_BYTES);
	fx_backing_no_huge = false;
	/* What a file call says for want of memory. */
	return err == -ENOSPC ? -ENOMEM : err;
}

/* Nothing is left of a segment that was not filled, and what was filled can be given back. */
static void check_fill(struct kunit *test, int err)
{
	struct fixture *fx = test->priv;

	KUNIT_EXPECT_EQ(test, fx->arena->nr_idle_slices, 0);
	KUNIT_EXPECT_EQ(test, fx->arena->nr_committed_slices, fx->arena->nr_granted_slices);
	KUNIT_EXPECT_EQ(test, fx->arena->nr_filling, 0);
	KUNIT_EXPECT_EQ(test, vfs_fallocate(fx->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					    0, FX_MIB(10)), 0);
	KUNIT_EXPECT_EQ(test, fx->arena->nr_committed_slices, 0);
}

static void prepare_granted_file(struct kunit *test)
{
	struct fixture *fx = test->priv;
	struct xalloc_client *client;

	KUNIT_ASSERT_EQ(test, try_file(test), 0);
	client = fx->file->private_data;
	fx->arena = client->arena;
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 70, 0), 0);
	fx_fill(fx->arena, 0, 70);
}

/* A hole in the middle of a page makes two pages of it. */
static int try_punch(struct kunit *test)
{
	struct fixture *fx = test->priv;

	return vfs_fallocate(fx->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			     10 * XALLOC_SLICE_BYTES, 10 * XALLOC_SLICE_BYTES);
}

/* The hole is zeroed before the page is split. */
static void check_punch(struct kunit *test, int err)
{
	struct fixture *fx = test->priv;

	KUNIT_EXPECT_EQ(test, fx->arena->nr_granted_slices, err ? 70 : 60);
	KUNIT_EXPECT_FALSE(test, fx_is_zero(fx->arena, 9, 1));
	KUNIT_EXPECT_TRUE(test, err || fx_is_zero(fx->arena, 10, 10));
	KUNIT_EXPECT_FALSE(test, fx_is_zero(fx->arena, 20, 1));
}

static const struct failure_row failures[] = {
	{ "creating an arena", prepare_nothing, try_arena, 1 },
	{ "creating a client", prepare_arena, try_client, 1 },
	{ "granting pages", prepare_client, try_grant, 5 },
	{ "freeing a page and destroying a client, beside pins", prepare_free, try_free, 0 },
	{ "granting a part of a page that was freed lazily", prepare_lazy, try_lazy_grant, 0 },
	{ "creating a file", prepare_nothing, try_file, 5 },
	{ "copying an arena", prepare_copy, try_copy, 5 },
	{ "filling holes of a file", prepare_name, try_fill, 3, check_fill },
	{ "punching a hole into a page", prepare_granted_file, try_punch, 1, check_punch },
};

XALLOC_KUNIT_ROWS(failures, failure_row);

/* With the first allocation failing, then the second, until none is left to fail. */
static void no_failed_allocation_leaks(struct kunit *test)
{
#ifdef CONFIG_FAULT_INJECTION
	const struct failure_row *row = test->param_value;
	struct fixture *fx = test->priv;
	u32 nth, nr_failures = 0;
	bool met = true;
	int err;

	for (nth = 1; met && nth < 1000; nth++) {
		row->prepare(test);
		current->fail_nth = nth;
		err = row->try(test);
		met = !current->fail_nth;
		current->fail_nth = 0;
		if (err) {
			KUNIT_EXPECT_EQ(test, err, -ENOMEM);
			nr_failures++;
		}
		KUNIT_EXPECT_TRUE(test, met || !err);
		if (fx->arena)
			KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(fx->arena));
		if (row->check)
			row->check(test, err);
		fx_drop_all(fx);
		KUNIT_ASSERT_TRUE_MSG(test, fx_wait_for(fx_nothing_counted(fx)),
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

/* An xarray tries twice for a node, so that one failure does not do. */
static void no_missing_record_leaks(struct kunit *test)
{
#ifdef CONFIG_FAULT_INJECTION
	struct xalloc_client *client;
	int err;

	fx_make_arena(test, 32, 0);
	client = fx_make_client(test);
	/* The first entry of an xarray needs no node, the second does. */
	KUNIT_ASSERT_EQ(test, fx_grant_at(client, 32, 0), 0);
	fx_backing_then_fail = true;
	err = fx_grant_at(client, 32, 0);
	current->make_it_fail = false;
	fx_backing_then_fail = false;
	KUNIT_EXPECT_EQ(test, err, -ENOMEM);
	FX_EXPECT_ALIVE(test, 1, 32, 1, 0);
	KUNIT_EXPECT_GE(test, fx_grant_at(client, 32, 0), 0);
#else
	kunit_skip(test, "the kernel is built without CONFIG_FAULT_INJECTION");
#endif
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(no_failed_allocation_leaks, failures_gen_params),
	KUNIT_CASE(no_missing_record_leaks),
	{}
};

struct kunit_suite xalloc_failure_suite = {
	.name = "xalloc_failure",
	.init = fx_init,
	.exit = fx_exit,
	.test_cases = cases,
};
