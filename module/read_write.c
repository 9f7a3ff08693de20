// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reading and writing: what read(), write() and lseek() do on a file of an arena.
 *
 * A slice that is granted to anybody is data. All other slices are holes, which read as zeros. A
 * write neither fills a hole nor makes the file longer, because memory comes by grants alone. There
 * a write ends with ENOSPC, as on a full disk.
 *
 * While bytes are copied, a reference keeps the folio where it is, as a pin does. No lock is held
 * meanwhile: the user's memory may be the arena's own.
 */
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/uio.h>

#include "internal.h"

/*
 * The arena of a file, NULL if a file of xallocfs has none yet, or -ESTALE for a file of another
 * process.
 */
static struct xalloc_arena *arena_of(struct file *file)
{
	struct xalloc_client *client = xalloc_file_client(file);

	if (!client)
		return NULL;
	if (client->view && client->view->mm != current->mm)
		return ERR_PTR(-ESTALE);
	return client->arena;
}

static u64 bytes_of(const struct xalloc_arena *arena)
{
	return arena ? (u64)arena->nr_segments * XALLOC_SEGMENT_BYTES : 0;
}

/* Copies from or to one folio, up to the first broken kpage. Returns how much, or an error. */
static ssize_t copy_folio(struct folio *folio, loff_t pos, size_t bytes, struct iov_iter *iter,
			  bool to_arena)
{
	size_t done = 0, nr, copied;
	struct page *kpage;
	char *address;

	while (done < bytes) {
		kpage = folio_page(folio, (pos >> PAGE_SHIFT) % folio_nr_pages(folio));
		nr = min_t(size_t, bytes - done, PAGE_SIZE - pos % PAGE_SIZE);
		if (PageHWPoison(kpage))
			return done ?: -EIO;
		address = kmap_local_page(kpage);
		/* A pipe gets a copy, too, and not the kpage, which may change. */
		copied = to_arena ? copy_from_iter(address + pos % PAGE_SIZE, nr, iter) :
				    copy_to_iter(address + pos % PAGE_SIZE, nr, iter);
		kunmap_local(address);
		done += copied;
		pos += copied;
		if (copied < nr)
			return done ?: -EFAULT;
	}
	return done;
}

static ssize_t copy_slice(struct xalloc_arena *arena, loff_t pos, size_t bytes,
			  struct iov_iter *iter, bool to_arena)
{
	struct folio *folio = xalloc_segment_get_folio(arena, pos / XALLOC_SLICE_BYTES);
	ssize_t rc;

	if (!folio)
		return to_arena ? -ENOSPC : iov_iter_zero(bytes, iter) ?: -EFAULT;
	rc = copy_folio(folio, pos, bytes, iter, to_arena);
	folio_put(folio);
	return rc;
}

static ssize_t copy_range(struct kiocb *iocb, struct iov_iter *iter, bool to_arena)
{
	struct xalloc_arena *arena = arena_of(iocb->ki_filp);
	ssize_t done = 0, rc = to_arena ? -ENOSPC : 0;
	u64 bytes;

	if (IS_ERR(arena))
		return PTR_ERR(arena);
	bytes = bytes_of(arena);
	while (iov_iter_count(iter) && iocb->ki_pos < bytes) {
		if (fatal_signal_pending(current)) {
			rc = -EINTR;
			break;
		}
		rc = copy_slice(arena, iocb->ki_pos,
				min_t(u64, iov_iter_count(iter),
				      XALLOC_SLICE_BYTES - iocb->ki_pos % XALLOC_SLICE_BYTES),
				iter, to_arena);
		if (rc < 0)
			break;
		iocb->ki_pos += rc;
		done += rc;
		cond_resched();
	}
	return done ?: rc;
}

/**
 * xalloc_read_iter() - read from an arena
 * @iocb: its file and position
 * @to: the user's memory
 *
 * Context: Process context, may sleep.
 * Return: bytes, 0 at the end, or -ESTALE for a file of another process, -EFAULT, -EIO for memory
 * that hardware has broken, -EINTR.
 */
ssize_t xalloc_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	return copy_range(iocb, to, false);
}

/**
 * xalloc_write_iter() - write to what is granted in an arena
 * @iocb: its file and position
 * @from: the user's memory
 *
 * Context: Process context, may sleep.
 * Return: bytes, or as xalloc_read_iter(), -ENOSPC where nothing is granted and past the end, or as
 * from generic_write_checks().
 */
ssize_t xalloc_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	ssize_t rc = generic_write_checks(iocb, from);

	return rc <= 0 ? rc : copy_range(iocb, from, true);
}

/* Slices of a segment that are data, or holes, from @first on. */
static u32 slices_of_kind(struct xalloc_arena *arena, u32 index, u32 first, bool data)
{
	const struct xalloc_segment *seg;
	u32 granted;

	rcu_read_lock();
	seg = xa_load(&arena->segments, index);
	granted = seg ? READ_ONCE(seg->granted) : 0;
	rcu_read_unlock();
	return (data ? granted : ~granted) & (~0u << first);
}

/* The first byte of data, or of a hole, from @pos on. The end of the file is a hole. */
static loff_t find_kind(struct xalloc_arena *arena, loff_t pos, bool data)
{
	unsigned long index = pos / XALLOC_SEGMENT_BYTES;
	u32 first, found;

	for (; index < arena->nr_segments; index++) {
		/* Where no segment has memory there is no data. */
		if (data && !xa_find(&arena->segments, &index, arena->nr_segments - 1, XA_PRESENT))
			break;
		first = index == pos / XALLOC_SEGMENT_BYTES ?
			pos / XALLOC_SLICE_BYTES % XALLOC_SLICES_PER_SEGMENT : 0;
		found = slices_of_kind(arena, index, first, data);
		if (found)
			return max_t(loff_t, pos, index * XALLOC_SEGMENT_BYTES +
					     __ffs(found) * XALLOC_SLICE_BYTES);
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return data ? -ENXIO : bytes_of(arena);
}

/**
 * xalloc_llseek() - set the position in a file of an arena
 * @file: the file
 * @offset: as for lseek()
 * @whence: likewise; SEEK_DATA finds what is granted, SEEK_HOLE what is not
 *
 * Context: Process context, may sleep.
 * Return: the position, or -EINVAL, -ENXIO if SEEK_DATA finds no data or if SEEK_DATA or SEEK_HOLE
 * begin at or past the end, -ESTALE for a file of another process, -EINTR.
 */
loff_t xalloc_llseek(struct file *file, loff_t offset, int whence)
{
	struct xalloc_arena *arena = arena_of(file);

	if (IS_ERR(arena))
		return PTR_ERR(arena);
	if (whence == SEEK_DATA || whence == SEEK_HOLE) {
		if (offset < 0 || offset >= bytes_of(arena))
			return -ENXIO;
		offset = find_kind(arena, offset, whence == SEEK_DATA);
		return offset < 0 ? offset : vfs_setpos(file, offset, bytes_of(arena));
	}
	return generic_file_llseek(file, offset, whence);
}
