// SPDX-License-Identifier: GPL-2.0-only
/*
 * Holes: what file calls and touches commit of a file of xallocfs, and what they give back.
 *
 * The calls are those of the VFS, and a touch is a call of the fault, with a vma that is in no
 * address space.
 */
#include <linux/falloc.h>
#include <linux/file.h>
#include <linux/pagemap.h>
#include <linux/workqueue.h>

#include "fixture.h"

#define SLICE ((u64)XALLOC_SLICE_BYTES)
#define SIZE FX_MIB(6)
#define BYTE 0x5a

static int fallocate(struct file *file, int mode, u64 from, u64 to)
{
	return vfs_fallocate(file, mode, from, to - from);
}

static int punch(struct file *file, u64 from, u64 to)
{
	return fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, to);
}

static int set_size(struct file *file, u64 bytes)
{
	return vfs_truncate(&file->f_path, bytes);
}

static u64 size_of(struct file *file)
{
	return i_size_read(file_inode(file));
}

static void write_bytes(struct kunit *test, struct file *file, u64 from, u64 to)
{
	char *buffer = kunit_kmalloc(test, SLICE, GFP_KERNEL);
	loff_t pos = from;

	KUNIT_ASSERT_NOT_NULL(test, buffer);
	memset(buffer, BYTE, SLICE);
	while (pos < to) {
		u64 bytes = min(SLICE, to - pos);

		KUNIT_ASSERT_EQ(test, kernel_write(file, buffer, bytes, &pos), bytes);
	}
	kunit_kfree(test, buffer);
}

/* Whether all bytes from @from to before @to read as @byte. */
static bool reads_as(struct kunit *test, struct file *file, u64 from, u64 to, int byte)
{
	char *buffer = kunit_kmalloc(test, SLICE, GFP_KERNEL);
	bool all = true;
	loff_t pos = from;
	ssize_t bytes;

	KUNIT_ASSERT_NOT_NULL(test, buffer);
	while (all && pos < to) {
		bytes = kernel_read(file, buffer, min(SLICE, to - pos), &pos);
		all = bytes > 0 && !memchr_inv(buffer, byte, bytes);
	}
	kunit_kfree(test, buffer);
	return all;
}

/* A write by somebody who has the folio mapped: it may be past the end of the file. */
static void write_to_memory(struct xalloc_arena *arena, u64 from, u64 to)
{
	for (; from < to; from++)
		((char *)fx_slice_memory(arena, from / SLICE))[from % SLICE] = BYTE;
}

/* Touches a mapping of a file. True if memory is there, false for SIGBUS. */
static bool touch(struct kunit *test, struct file *file, u64 offset)
{
	struct vm_area_struct vma = {
		.vm_end = SIZE,
		.vm_file = file,
	};
	pmd_t pmd = {};
	struct vm_fault vmf = {
		.vma = &vma,
		.pgoff = offset / PAGE_SIZE,
		.pmd = &pmd,
	};
	vm_fault_t rc;

	KUNIT_ASSERT_EQ(test, file->f_op->mmap(file, &vma), 0);
	rc = vma.vm_ops->fault(&vmf);
	if (rc == VM_FAULT_SIGBUS)
		return false;
	KUNIT_ASSERT_TRUE(test, rc == VM_FAULT_LOCKED);
	folio_unlock(page_folio(vmf.page));
	folio_put(page_folio(vmf.page));
	return true;
}

/* All of the memory is in pages of the arena, and all records agree. */
static void expect_slices(struct kunit *test, u32 nr_slices)
{
	struct fixture *fx = test->priv;

	KUNIT_EXPECT_EQ(test, fx_alive(test).nr_granted_slices, nr_slices);
	KUNIT_EXPECT_EQ(test, fx->arena->nr_committed_slices, nr_slices);
	KUNIT_EXPECT_EQ(test, fx->arena->nr_idle_slices, 0);
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(fx->arena));
	if (IS_ENABLED(CONFIG_XARRAY_MULTI))
		KUNIT_EXPECT_EQ(test, fx->arena->mapping->nrpages,
				nr_slices * XALLOC_SLICE_KPAGES);
}

/* A file with three segments of memory, all of it BYTE. */
static struct file *make_filled(struct kunit *test, bool in_pieces)
{
	struct fixture *fx = test->priv;

	fx_make_name(test, 0);
	fx_backing_no_huge = in_pieces;
	write_bytes(test, fx->file, 0, SIZE);
	expect_slices(test, 96);
	return fx->file;
}

/* Filling */

struct fill_row {
	const char *desc;
	int mode;
	u64 from;
	u64 to;
	u32 nr_slices;		/* that it commits in huge pages */
	u32 nr_pieces;		/* and in pieces */
};

static const struct fill_row fills[] = {
	{ "a byte", 0, 0, 1, 32, 1 },
	{ "a slice", 0, 0, SLICE, 32, 1 },
	{ "a byte on either side of the end of a slice", 0, SLICE - 1, SLICE + 1, 32, 2 },
	{ "a byte on either side of the end of a segment",
	  0, FX_MIB(2) - 1, FX_MIB(2) + 1, 64, 2 },
	{ "three segments and a byte", 0, 0, FX_MIB(6) + 1, 128, 97 },
	{ "a segment, without making the file longer",
	  FALLOC_FL_KEEP_SIZE, FX_MIB(2), FX_MIB(4), 32, 32 },
};

XALLOC_KUNIT_ROWS(fills, fill_row);

static void fill(struct kunit *test, const struct fill_row *row, u32 nr_slices)
{
	struct fixture *fx = test->priv;
	struct xalloc_arena *arena = fx->arena;
	u64 size = row->mode ? 0 : row->to;

	KUNIT_EXPECT_EQ(test, fallocate(fx->file, row->mode, row->from, row->to), 0);
	expect_slices(test, nr_slices);
	KUNIT_EXPECT_EQ(test, size_of(fx->file), size);
	KUNIT_EXPECT_TRUE(test, reads_as(test, fx->file, 0, size, 0));
	KUNIT_EXPECT_TRUE(test, fx_is_zero(arena, row->from / SLICE, 1));
	KUNIT_EXPECT_TRUE(test, fx_is_zero(arena, (row->to - 1) / SLICE, 1));

	/* What has memory keeps it, and what is in it. */
	write_to_memory(arena, row->from, row->from + 1);
	KUNIT_EXPECT_EQ(test, fallocate(fx->file, row->mode, row->from, row->to), 0);
	expect_slices(test, nr_slices);
	KUNIT_EXPECT_EQ(test, *(char *)(fx_slice_memory(arena, row->from / SLICE) +
					row->from % SLICE), BYTE);
}

static void fallocate_commits_huge_pages(struct kunit *test)
{
	const struct fill_row *row = test->param_value;

	fx_make_name(test, 0);
	fill(test, row, row->nr_slices);
	KUNIT_EXPECT_EQ(test, fx_alive(test).nr_small_slices, 0);
}

static void fallocate_commits_pieces_without_huge_pages(struct kunit *test)
{
	const struct fill_row *row = test->param_value;

	fx_make_name(test, 0);
	fx_backing_no_huge = true;
	fill(test, row, row->nr_pieces);
	KUNIT_EXPECT_EQ(test, fx_alive(test).nr_small_slices, row->nr_pieces);
}

/* A segment that has a piece gets pieces for its holes. */
static void holes_beside_pieces_get_pieces(struct kunit *test)
{
	struct fixture *fx = test->priv;

	fx_make_name(test, 0);
	fx_backing_no_huge = true;
	KUNIT_EXPECT_EQ(test, fallocate(fx->file, 0, SLICE, 2 * SLICE), 0);
	fx_backing_no_huge = false;
	KUNIT_EXPECT_EQ(test, fallocate(fx->file, 0, 0, 4 * SLICE), 0);
	expect_slices(test, 4);
	KUNIT_EXPECT_EQ(test, fx_alive(test).nr_small_slices, 4);
}

static void failed_fallocate_keeps_the_segments_that_it_filled(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_name(test, 0);
	struct fixture *fx = test->priv;

	/* 33 attempts for each segment. The first one is for a huge page. */
	fx_backing_no_huge = true;
	fx_backing_countdown = 33 + 10;
	KUNIT_EXPECT_EQ(test, fallocate(fx->file, 0, 0, FX_MIB(4)), -ENOSPC);
	KUNIT_EXPECT_EQ(test, fx_backing_countdown, 0);
	KUNIT_EXPECT_EQ(test, size_of(fx->file), 0);
	expect_slices(test, 32);
	KUNIT_EXPECT_EQ(test, arena->nr_given_back, 8);

	KUNIT_EXPECT_EQ(test, fallocate(fx->file, 0, 0, FX_MIB(4)), 0);
	expect_slices(test, 64);
	KUNIT_EXPECT_TRUE(test, reads_as(test, fx->file, 0, FX_MIB(4), 0));
}

/* Touching */

static void touch_fills(struct kunit *test, u32 nr_more)
{
	struct fixture *fx = test->priv;

	KUNIT_EXPECT_EQ(test, set_size(fx->file, FX_MIB(5)), 0);
	expect_slices(test, 0);
	KUNIT_EXPECT_TRUE(test, touch(test, fx->file, FX_MIB(3)));
	expect_slices(test, nr_more);
	KUNIT_EXPECT_TRUE(test, touch(test, fx->file, FX_MIB(3)));
	expect_slices(test, nr_more);
	KUNIT_EXPECT_TRUE(test, fx_is_zero(fx->arena, FX_MIB(3) / SLICE, 1));
	KUNIT_EXPECT_TRUE(test, touch(test, fx->file, FX_MIB(5) - 1));
	expect_slices(test, 2 * nr_more);
	KUNIT_EXPECT_EQ(test, size_of(fx->file), FX_MIB(5));
}

static void touch_commits_a_huge_page(struct kunit *test)
{
	fx_make_name(test, 0);
	touch_fills(test, 32);
}

static void touch_commits_a_piece_without_huge_pages(struct kunit *test)
{
	fx_make_name(test, 0);
	fx_backing_no_huge = true;
	touch_fills(test, 1);
}

static void touch_past_the_end_is_refused(struct kunit *test)
{
	struct fixture *fx = test->priv;

	fx_make_name(test, 0);
	KUNIT_EXPECT_FALSE(test, touch(test, fx->file, 0));
	expect_slices(test, 0);
	KUNIT_EXPECT_EQ(test, set_size(fx->file, PAGE_SIZE + 1), 0);
	KUNIT_EXPECT_TRUE(test, touch(test, fx->file, PAGE_SIZE));
	/* Memory is there by now. */
	KUNIT_EXPECT_FALSE(test, touch(test, fx->file, 2 * PAGE_SIZE));
	expect_slices(test, 32);
}

/* What truncate() does first. It waits while a task gives memory to a segment. */
static void cut_off(struct xalloc_arena *arena)
{
	i_size_write(arena->mapping->host, 0);
}

static void touch_of_what_is_cut_off_meanwhile_leaves_nothing(struct kunit *test)
{
	struct fixture *fx = test->priv;

	fx_make_name(test, 0);
	KUNIT_EXPECT_EQ(test, set_size(fx->file, FX_MIB(2)), 0);
	fx_backing_meanwhile = cut_off;
	KUNIT_EXPECT_FALSE(test, touch(test, fx->file, 0));
	KUNIT_EXPECT_NULL(test, fx_backing_meanwhile);
	expect_slices(test, 0);
}

/* Punching */

struct punch_row {
	const char *desc;
	u64 from;
	u64 to;
	u32 nr_slices;		/* that stay in huge pages */
	u32 nr_pieces;		/* and in pieces */
};

static const struct punch_row punches[] = {
	{ "a byte", 100, 101, 96, 96 },
	{ "a slice", SLICE, 2 * SLICE, 96, 95 },
	{ "a slice but for a byte", SLICE, 2 * SLICE - 1, 96, 96 },
	{ "a segment", FX_MIB(2), FX_MIB(4), 64, 64 },
	{ "a segment but for a byte", FX_MIB(2) + 1, FX_MIB(4), 96, 65 },
	{ "two slices and a half on either side of the end of a segment",
	  FX_MIB(2) - 5 * SLICE / 2, FX_MIB(2) + 5 * SLICE / 2, 96, 92 },
	{ "a segment and half of both beside it", FX_MIB(1), FX_MIB(5), 64, 32 },
	{ "the end of the file", FX_MIB(5) + 1, FX_MIB(6), 96, 81 },
	{ "all", 0, FX_MIB(6), 0, 0 },
	{ "all, and what is past the end", 0, FX_MIB(100), 0, 0 },
};

XALLOC_KUNIT_ROWS(punches, punch_row);

static void punch_and_look(struct kunit *test, bool in_pieces)
{
	struct file *file = make_filled(test, in_pieces);
	const struct punch_row *row = test->param_value;
	u64 to = min(row->to, SIZE);

	KUNIT_EXPECT_EQ(test, punch(file, row->from, row->to), 0);
	expect_slices(test, in_pieces ? row->nr_pieces : row->nr_slices);
	KUNIT_EXPECT_EQ(test, size_of(file), SIZE);
	KUNIT_EXPECT_TRUE(test, reads_as(test, file, 0, row->from, BYTE));
	KUNIT_EXPECT_TRUE(test, reads_as(test, file, row->from, to, 0));
	KUNIT_EXPECT_TRUE(test, reads_as(test, file, to, SIZE, BYTE));

	KUNIT_EXPECT_EQ(test, fallocate(file, 0, 0, SIZE), 0);
	expect_slices(test, 96);
	KUNIT_EXPECT_TRUE(test, reads_as(test, file, row->from, to, 0));
}

static void punch_gives_back_huge_pages_and_zeroes_parts(struct kunit *test)
{
	punch_and_look(test, false);
}

static void punch_gives_back_pieces_and_zeroes_parts(struct kunit *test)
{
	punch_and_look(test, true);
}

/* The last folio goes as a whole, although the file ends inside of it. */
static void punch_to_the_end_gives_back_what_is_past_it(struct kunit *test)
{
	struct fixture *fx = test->priv;

	fx_make_name(test, 0);
	write_bytes(test, fx->file, 0, FX_MIB(3));
	expect_slices(test, 64);
	KUNIT_EXPECT_EQ(test, punch(fx->file, FX_MIB(2), FX_MIB(3)), 0);
	expect_slices(test, 32);
}

static void pin_refuses(struct kunit *test, bool in_pieces)
{
	struct file *file = make_filled(test, in_pieces);
	struct folio *folio = fx_pin(test, 1);

	KUNIT_EXPECT_EQ(test, punch(file, 0, SIZE), -EBUSY);
	KUNIT_EXPECT_EQ(test, set_size(file, 0), -EBUSY);
	KUNIT_EXPECT_EQ(test, size_of(file), SIZE);
	expect_slices(test, 96);
	KUNIT_EXPECT_TRUE(test, reads_as(test, file, 0, SIZE, BYTE));

	/* What is beside it is not pinned; a part of a folio need not be given back. */
	KUNIT_EXPECT_EQ(test, punch(file, 0, FX_MIB(2)), 0);
	KUNIT_EXPECT_EQ(test, punch(file, FX_MIB(2), FX_MIB(2) + 1), 0);
	KUNIT_EXPECT_TRUE(test, reads_as(test, file, 0, FX_MIB(2) + 1, 0));
	KUNIT_EXPECT_TRUE(test, reads_as(test, file, FX_MIB(2) + 1, SIZE, BYTE));
	expect_slices(test, 64);

	fx_unpin(test, folio);
	KUNIT_EXPECT_EQ(test, punch(file, 0, SIZE), 0);
	expect_slices(test, 0);
}

static void pinned_huge_page_is_ebusy(struct kunit *test)
{
	pin_refuses(test, false);
}

static void pinned_piece_is_ebusy(struct kunit *test)
{
	pin_refuses(test, true);
}

static struct folio *lent;

static void let_go(struct work_struct *work)
{
	folio_put(lent);
}

static DECLARE_DELAYED_WORK(let_go_work, let_go);

static void reference_of_a_moment_is_waited_for(struct kunit *test)
{
	struct file *file = make_filled(test, false);
	struct fixture *fx = test->priv;
	int nr_busy = 0, rc;

	lent = fx_folio_at(fx->arena, 32);
	folio_get(lent);
	schedule_delayed_work(&let_go_work, msecs_to_jiffies(40));
	/* A stalled machine lets the reference go late. Without a wait, thousands are refused. */
	do {
		rc = punch(file, 0, SIZE);
	} while (rc == -EBUSY && ++nr_busy < 100);
	KUNIT_EXPECT_EQ(test, rc, 0);
	flush_delayed_work(&let_go_work);
	expect_slices(test, 0);
}

static struct kunit *pinning;

static void pin_the_second_segment(void)
{
	fx_pin(pinning, 1);
}

/* After the look at pins: the memory stays, and the hole is filled with it. */
static void memory_that_is_pinned_too_late_stays(struct kunit *test)
{
	struct file *file = make_filled(test, false);
	struct fixture *fx = test->priv;
	struct folio *folio = fx_folio_at(fx->arena, 32);

	pinning = test;
	fx_backing_once_freed = pin_the_second_segment;
	KUNIT_EXPECT_EQ(test, punch(file, 0, SIZE), 0);
	KUNIT_EXPECT_TRUE(test, reads_as(test, file, 0, SIZE, 0));
	KUNIT_EXPECT_EQ(test, fx->arena->nr_granted_slices, 0);
	KUNIT_EXPECT_EQ(test, fx->arena->nr_idle_slices, 32);
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(fx->arena));

	KUNIT_EXPECT_EQ(test, fallocate(file, 0, 0, SIZE), 0);
	expect_slices(test, 96);
	KUNIT_EXPECT_PTR_EQ(test, fx_folio_at(fx->arena, 32), folio);
	KUNIT_EXPECT_TRUE(test, reads_as(test, file, 0, SIZE, 0));
}

static void killed_task_changes_nothing(struct kunit *test)
{
	struct file *file = make_filled(test, false);
	int punched, made_shorter, filled;

	fx_kill();
	punched = punch(file, 0, SIZE);
	made_shorter = set_size(file, 1);
	filled = fallocate(file, 0, SIZE, 2 * SIZE);
	fx_revive();
	KUNIT_EXPECT_EQ(test, punched, -EINTR);
	KUNIT_EXPECT_EQ(test, made_shorter, -EINTR);
	KUNIT_EXPECT_EQ(test, filled, -EINTR);
	expect_slices(test, 96);
	KUNIT_EXPECT_EQ(test, size_of(file), SIZE);
	KUNIT_EXPECT_TRUE(test, reads_as(test, file, 0, SIZE, BYTE));
}

/* Sizes */

struct size_row {
	const char *desc;
	u64 size;
	u32 nr_slices;		/* that stay in huge pages */
	u32 nr_pieces;		/* and in pieces */
};

static const struct size_row sizes[] = {
	{ "nothing", 0, 0, 0 },
	{ "a byte", 1, 32, 1 },
	{ "a slice", SLICE, 32, 1 },
	{ "a segment but for a byte", FX_MIB(2) - 1, 32, 32 },
	{ "a segment", FX_MIB(2), 32, 32 },
	{ "a segment and a byte", FX_MIB(2) + 1, 64, 33 },
	{ "all but for a byte", SIZE - 1, 96, 96 },
	{ "all", SIZE, 96, 96 },
};

XALLOC_KUNIT_ROWS(sizes, size_row);

static void set_size_and_look(struct kunit *test, bool in_pieces)
{
	struct file *file = make_filled(test, in_pieces);
	const struct size_row *row = test->param_value;

	KUNIT_EXPECT_EQ(test, set_size(file, row->size), 0);
	KUNIT_EXPECT_EQ(test, size_of(file), row->size);
	expect_slices(test, in_pieces ? row->nr_pieces : row->nr_slices);
	KUNIT_EXPECT_FALSE(test, touch(test, file, round_up(row->size, PAGE_SIZE)));

	KUNIT_EXPECT_EQ(test, set_size(file, SIZE), 0);
	KUNIT_EXPECT_TRUE(test, reads_as(test, file, 0, row->size, BYTE));
	KUNIT_EXPECT_TRUE(test, reads_as(test, file, row->size, SIZE, 0));
	expect_slices(test, in_pieces ? row->nr_pieces : row->nr_slices);
}

static void shorter_file_gives_back_huge_pages(struct kunit *test)
{
	set_size_and_look(test, false);
}

static void shorter_file_gives_back_pieces(struct kunit *test)
{
	set_size_and_look(test, true);
}

static void longer_file_shows_nothing_from_past_its_end(struct kunit *test)
{
	struct xalloc_arena *arena = fx_make_name(test, 0);
	struct fixture *fx = test->priv;
	loff_t pos = FX_MIB(1);

	write_bytes(test, fx->file, 0, 100);
	write_to_memory(arena, 100, FX_MIB(2));
	KUNIT_EXPECT_EQ(test, kernel_write(fx->file, "x", 1, &pos), 1);
	KUNIT_EXPECT_TRUE(test, reads_as(test, fx->file, 0, 100, BYTE));
	KUNIT_EXPECT_TRUE(test, reads_as(test, fx->file, 100, FX_MIB(1), 0));

	write_to_memory(arena, FX_MIB(1) + 1, FX_MIB(2));
	KUNIT_EXPECT_EQ(test, set_size(fx->file, FX_MIB(4)), 0);
	KUNIT_EXPECT_TRUE(test, reads_as(test, fx->file, FX_MIB(1), FX_MIB(1) + 1, 'x'));
	KUNIT_EXPECT_TRUE(test, reads_as(test, fx->file, FX_MIB(1) + 1, FX_MIB(4), 0));
	expect_slices(test, 32);
}

/* Budgets */

static void budget_refuses_with_enospc(struct kunit *test)
{
	struct fixture *fx = test->priv;
	struct file *other;
	loff_t pos = 0;

	fx_make_name(test, FX_MIB(4));
	KUNIT_EXPECT_EQ(test, fallocate(fx->file, 0, 0, FX_MIB(6)), -ENOSPC);
	expect_slices(test, 0);
	KUNIT_EXPECT_EQ(test, size_of(fx->file), 0);
	KUNIT_EXPECT_EQ(test, fallocate(fx->file, 0, 0, FX_MIB(4)), 0);
	expect_slices(test, 64);

	other = fx_open_name(test, "other");
	KUNIT_EXPECT_EQ(test, fallocate(other, 0, 0, 1), -ENOSPC);
	KUNIT_EXPECT_EQ(test, kernel_write(other, "x", 1, &pos), -ENOSPC);
	KUNIT_EXPECT_EQ(test, size_of(other), 0);
	KUNIT_EXPECT_EQ(test, set_size(other, 1), 0);
	KUNIT_EXPECT_FALSE(test, touch(test, other, 0));
	KUNIT_EXPECT_EQ(test, punch(fx->file, FX_MIB(2), FX_MIB(4)), 0);
	KUNIT_EXPECT_TRUE(test, touch(test, other, 0));
	KUNIT_EXPECT_EQ(test, fallocate(fx->file, 0, 0, FX_MIB(4)), -ENOSPC);
	KUNIT_EXPECT_EQ(test, fx_counted(fx, XALLOC_NR_COMMITTED_SLICES), 64);
	fput(other);
	flush_delayed_fput();
	KUNIT_EXPECT_TRUE(test, xalloc_arena_is_valid(fx->arena));
}

/* Where a huge page is too much, pieces are had. */
static void budget_is_used_to_its_end(struct kunit *test)
{
	struct fixture *fx = test->priv;

	fx_make_name(test, FX_MIB(2) + SLICE);
	KUNIT_EXPECT_EQ(test, fallocate(fx->file, 0, 0, FX_MIB(2) + SLICE + 1), -ENOSPC);
	expect_slices(test, 0);
	KUNIT_EXPECT_EQ(test, fallocate(fx->file, 0, 0, FX_MIB(2) + SLICE), 0);
	expect_slices(test, 33);
	KUNIT_EXPECT_EQ(test, fx_alive(test).nr_small_slices, 1);
	KUNIT_EXPECT_EQ(test, set_size(fx->file, FX_MIB(4)), 0);
	KUNIT_EXPECT_FALSE(test, touch(test, fx->file, FX_MIB(4) - 1));
	expect_slices(test, 33);
}

static void write_ends_where_the_budget_does(struct kunit *test)
{
	struct fixture *fx = test->priv;
	char *buffer = kunit_kmalloc(test, 2 * SLICE, GFP_KERNEL);
	loff_t pos = FX_MIB(2) - SLICE;

	KUNIT_ASSERT_NOT_NULL(test, buffer);
	memset(buffer, BYTE, 2 * SLICE);
	fx_make_name(test, FX_MIB(2));
	KUNIT_EXPECT_EQ(test, kernel_write(fx->file, buffer, 2 * SLICE, &pos), SLICE);
	KUNIT_EXPECT_EQ(test, size_of(fx->file), FX_MIB(2));
	KUNIT_EXPECT_EQ(test, kernel_write(fx->file, buffer, SLICE, &pos), -ENOSPC);
	expect_slices(test, 32);
	KUNIT_EXPECT_TRUE(test, reads_as(test, fx->file, 0, FX_MIB(2) - SLICE, 0));
	KUNIT_EXPECT_TRUE(test, reads_as(test, fx->file, FX_MIB(2) - SLICE, FX_MIB(2), BYTE));
}

/* Arenas with grants */

static struct xalloc_client *make_granted(struct kunit *test)
{
	struct fixture *fx = test->priv;
	struct xalloc_client *client;
	struct file *file = fx_create_file(SIZE, 0);

	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(file), 0);
	fx->file = file;
	client = file->private_data;
	fx->arena = client->arena;
	return client;
}

/* Two pages of clients, at slices 2 to 4 and 7, stay as they are. */
static void fallocate_grants_what_is_between_pages(struct kunit *test)
{
	struct xalloc_client *client = make_granted(test);
	struct fixture *fx = test->priv;

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 7, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(fx_make_client(test), 1, 0), 7);
	KUNIT_EXPECT_EQ(test, punch(fx->file, 0, 2 * SLICE), 0);
	KUNIT_EXPECT_EQ(test, punch(fx->file, 5 * SLICE, 7 * SLICE), 0);
	FX_EXPECT_ALIVE(test, 2, 4, 1, 0);
	KUNIT_EXPECT_EQ(test, fallocate(fx->file, FALLOC_FL_KEEP_SIZE, SLICE, 9 * SLICE), 0);
	FX_EXPECT_ALIVE(test, 5, 8, 1, 0);
	KUNIT_EXPECT_EQ(test, punch(fx->file, SLICE, 7 * SLICE), 0);
	FX_EXPECT_ALIVE(test, 2, 2, 1, 0);
}

static void arena_with_grants_does_not_grow(struct kunit *test)
{
	struct fixture *fx = test->priv;

	make_granted(test);
	KUNIT_EXPECT_EQ(test, fallocate(fx->file, 0, 0, SIZE + 1), -EPERM);
	KUNIT_EXPECT_EQ(test, fallocate(fx->file, FALLOC_FL_KEEP_SIZE, 0, SIZE + 1), -ENOSPC);
	FX_EXPECT_ALIVE(test, 0, 0, 0, 0);
	KUNIT_EXPECT_EQ(test, size_of(fx->file), SIZE);
}

static void page_of_another_client_is_eperm(struct kunit *test)
{
	struct xalloc_client *client = make_granted(test);
	struct fixture *fx = test->priv;

	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 40, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(fx_make_client(test), 8, 0), 40);
	fx_fill(fx->arena, 0, 48);
	KUNIT_EXPECT_EQ(test, punch(fx->file, 0, 41 * SLICE), -EPERM);
	FX_EXPECT_ALIVE(test, 2, 48, 2, 0);
	KUNIT_EXPECT_TRUE(test, reads_as(test, fx->file, 0, 48 * SLICE, BYTE));
	KUNIT_EXPECT_EQ(test, punch(fx->file, 0, 40 * SLICE), 0);
	FX_EXPECT_ALIVE(test, 1, 8, 1, 0);
}

/* A page of a client that lives, and one of a client that is gone. */
static void persistent_pages_are_punched_by_any_client(struct kunit *test)
{
	struct xalloc_client *client = make_granted(test), *dead;
	struct fixture *fx = test->priv;

	fx->arena->pages_persist = true;
	dead = fx_make_client(test);
	KUNIT_EXPECT_EQ(test, fx_grant_at(client, 32, 0), 0);
	KUNIT_EXPECT_EQ(test, fx_grant_at(fx_make_client(test), 8, 0), 32);
	KUNIT_EXPECT_EQ(test, fx_grant_at(dead, 8, 0), 40);
	fx_drop_client(test, dead);
	FX_EXPECT_ALIVE(test, 3, 48, 2, 0);
	KUNIT_EXPECT_EQ(test, punch(fx->file, 39 * SLICE, 41 * SLICE), 0);
	FX_EXPECT_ALIVE(test, 3, 46, 2, 0);
	KUNIT_EXPECT_EQ(test, punch(fx->file, 32 * SLICE, 48 * SLICE), 0);
	FX_EXPECT_ALIVE(test, 1, 32, 1, 0);
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(fallocate_commits_huge_pages, fills_gen_params),
	KUNIT_CASE_PARAM(fallocate_commits_pieces_without_huge_pages, fills_gen_params),
	KUNIT_CASE(holes_beside_pieces_get_pieces),
	KUNIT_CASE(failed_fallocate_keeps_the_segments_that_it_filled),
	KUNIT_CASE(touch_commits_a_huge_page),
	KUNIT_CASE(touch_commits_a_piece_without_huge_pages),
	KUNIT_CASE(touch_past_the_end_is_refused),
	KUNIT_CASE(touch_of_what_is_cut_off_meanwhile_leaves_nothing),
	KUNIT_CASE_PARAM(punch_gives_back_huge_pages_and_zeroes_parts, punches_gen_params),
	KUNIT_CASE_PARAM(punch_gives_back_pieces_and_zeroes_parts, punches_gen_params),
	KUNIT_CASE(punch_to_the_end_gives_back_what_is_past_it),
	KUNIT_CASE(pinned_huge_page_is_ebusy),
	KUNIT_CASE(pinned_piece_is_ebusy),
	KUNIT_CASE(reference_of_a_moment_is_waited_for),
	KUNIT_CASE(memory_that_is_pinned_too_late_stays),
	KUNIT_CASE(killed_task_changes_nothing),
	KUNIT_CASE_PARAM(shorter_file_gives_back_huge_pages, sizes_gen_params),
	KUNIT_CASE_PARAM(shorter_file_gives_back_pieces, sizes_gen_params),
	KUNIT_CASE(longer_file_shows_nothing_from_past_its_end),
	KUNIT_CASE(budget_refuses_with_enospc),
	KUNIT_CASE(budget_is_used_to_its_end),
	KUNIT_CASE(write_ends_where_the_budget_does),
	KUNIT_CASE(fallocate_grants_what_is_between_pages),
	KUNIT_CASE(arena_with_grants_does_not_grow),
	KUNIT_CASE(page_of_another_client_is_eperm),
	KUNIT_CASE(persistent_pages_are_punched_by_any_client),
	{}
};

struct kunit_suite xalloc_hole_suite = {
	.name = "xalloc_hole",
	.init = fx_init,
	.exit = fx_exit,
	.test_cases = cases,
};
