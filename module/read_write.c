// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reading and writing: what read(), write(), lseek() and fallocate() do on a file of an arena.
 *
 * A slice that is granted to anybody is data. All other slices are holes, which read as zeros. In
 * an arena whose holes are filled (hole.c), a write fills a hole and makes the file longer. In an
 * arena with grants it does neither, because there memory comes by grants alone: a write ends with
 * ENOSPC, as on a full disk.
 *
 * While bytes are copied, a reference keeps the folio where it is, as a pin does. arena->lock is
 * not held meanwhile: the user's memory may be the arena's own. The inode is locked, so that
 * PUNCH_HOLE does not take these references for pins.
 */
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/uio.h>

#include "internal.h"

/* The arena of a file, or -ESTALE for a file of another process. */
static struct xalloc_arena *arena_of(struct file *file)
{
	struct xalloc_client *client = file->private_data;

	if (client->view && client->view->mm != current->mm)
		return ERR_PTR(-ESTALE);
	return client->arena;
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

static ssize_t read_slice(struct xalloc_arena *arena, loff_t pos, size_t bytes,
			  struct iov_iter *to)
{
	struct folio *folio = xalloc_segment_get_folio(arena, pos / XALLOC_SLICE_BYTES);
	ssize_t rc;

	if (!folio)
		return iov_iter_zero(bytes, to) ?: -EFAULT;
	rc = copy_folio(folio, pos, bytes, to, false);
	folio_put(folio);
	return rc;
}

/* What a program expects of a file, for the refusal of a grant. */
static int file_error(int err)
{
	switch (err) {
	case -ENOBUFS:
	case -EUSERS:
		return -EDQUOT;
	case -ENOSR:
	case -ENOMEM:
		return -ENOSPC;
	case -EHWPOISON:
		return -EIO;
	}
	return err;
}

static ssize_t write_slice(struct xalloc_arena *arena, loff_t pos, size_t bytes,
			   struct iov_iter *from)
{
	u32 slice = pos / XALLOC_SLICE_BYTES;
	struct folio *folio;
	ssize_t rc;

	/* In a file that is used as a file, all memory is the arena's. */
	rc = xalloc_hole_is_filled(arena) ?
		     xalloc_hole_fill(&arena->orphans, slice, slice + 1) : 0;
	if (rc)
		return file_error(rc);
	folio = xalloc_segment_get_folio(arena, slice);
	if (!folio)
		return -ENOSPC;
	rc = copy_folio(folio, pos, bytes, from, true);
	folio_put(folio);
	return rc;
}

/* Copies slice by slice from where @iocb is to before @end. */
static ssize_t copy_range(struct kiocb *iocb, struct iov_iter *iter, u64 end,
			  ssize_t (*copy_slice)(struct xalloc_arena *arena, loff_t pos,
						size_t bytes, struct iov_iter *iter))
{
	struct xalloc_client *client = iocb->ki_filp->private_data;
	ssize_t done = 0, rc = 0;
	u64 nr;

	while (iov_iter_count(iter) && iocb->ki_pos < end) {
		if (fatal_signal_pending(current)) {
			rc = -EINTR;
			break;
		}
		nr = min(end - iocb->ki_pos,
			 XALLOC_SLICE_BYTES - (u64)iocb->ki_pos % XALLOC_SLICE_BYTES);
		rc = copy_slice(client->arena, iocb->ki_pos, min_t(u64, nr, iov_iter_count(iter)),
				iter);
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
	struct xalloc_arena *arena = arena_of(iocb->ki_filp);
	struct inode *inode = file_inode(iocb->ki_filp);
	ssize_t rc;

	if (IS_ERR(arena))
		return PTR_ERR(arena);
	inode_lock_shared(inode);
	rc = copy_range(iocb, to, i_size_read(inode), read_slice);
	inode_unlock_shared(inode);
	return rc;
}

/* Makes the file longer, up to where the write ended. */
static ssize_t write_filling(struct kiocb *iocb, struct iov_iter *from)
{
	struct file *file = iocb->ki_filp;
	struct xalloc_client *client = file->private_data;
	struct inode *inode = file_inode(file);
	u64 bytes = i_size_read(inode);
	ssize_t rc;

	rc = generic_write_checks(iocb, from);
	if (rc <= 0)
		return rc;
	rc = file_remove_privs(file) ?: file_update_time(file);
	if (rc)
		return rc;
	/* A mapping may have written past the end of the file. */
	xalloc_hole_zero(client->arena, bytes,
			 min_t(u64, iocb->ki_pos, round_up(bytes, XALLOC_SEGMENT_BYTES)));
	rc = copy_range(iocb, from, inode->i_sb->s_maxbytes, write_slice);
	if (rc > 0 && iocb->ki_pos > bytes)
		i_size_write(inode, iocb->ki_pos);
	return rc;
}

/* Up to where something is granted. */
static ssize_t write_granted(struct kiocb *iocb, struct iov_iter *from)
{
	ssize_t rc = generic_write_checks(iocb, from);

	if (rc <= 0)
		return rc;
	return copy_range(iocb, from, i_size_read(file_inode(iocb->ki_filp)), write_slice) ?:
	       -ENOSPC;
}

/**
 * xalloc_write_iter() - write to an arena
 * @iocb: its file and position
 * @from: the user's memory
 *
 * Context: Process context, may sleep. Locks the inode.
 * Return: bytes, or as xalloc_read_iter(), or as from generic_write_checks(). In an arena with
 * grants, -ENOSPC where nothing is granted and past the end. In others, where memory is refused,
 * -EDQUOT for a limit of the arena or of a user, or -ENOSPC; -EUCLEAN, -EINTR, or an error of the
 * VFS's checks of privileges and times.
 */
ssize_t xalloc_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct xalloc_arena *arena = arena_of(iocb->ki_filp);
	struct inode *inode = file_inode(iocb->ki_filp);
	ssize_t rc;

	if (IS_ERR(arena))
		return PTR_ERR(arena);
	if (!xalloc_hole_is_filled(arena)) {
		inode_lock_shared(inode);
		rc = write_granted(iocb, from);
		inode_unlock_shared(inode);
		return rc;
	}
	inode_lock(inode);
	/* The arena may have been created just now. */
	rc = xalloc_hole_is_filled(arena) ? write_filling(iocb, from) : write_granted(iocb, from);
	inode_unlock(inode);
	return rc;
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

/* The first byte of data, or of a hole, from @pos on. The end of the file, @end, is a hole. */
static loff_t find_kind(struct xalloc_arena *arena, loff_t pos, loff_t end, bool data)
{
	unsigned long index = pos / XALLOC_SEGMENT_BYTES;
	unsigned long last = (end - 1) / XALLOC_SEGMENT_BYTES;
	loff_t at;
	u32 first, found;

	for (; index <= last; index++) {
		/* Where no segment has memory there is no data. */
		if (data && !xa_find(&arena->segments, &index, last, XA_PRESENT))
			break;
		first = index == pos / XALLOC_SEGMENT_BYTES ?
			pos / XALLOC_SLICE_BYTES % XALLOC_SLICES_PER_SEGMENT : 0;
		found = slices_of_kind(arena, index, first, data);
		if (found) {
			at = max_t(loff_t, pos, index * XALLOC_SEGMENT_BYTES +
						__ffs(found) * XALLOC_SLICE_BYTES);
			/* There may be memory past the end. */
			return at < end ? at : data ? -ENXIO : end;
		}
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return data ? -ENXIO : end;
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
	loff_t end = i_size_read(file_inode(file));

	if (IS_ERR(arena))
		return PTR_ERR(arena);
	if (whence == SEEK_DATA || whence == SEEK_HOLE) {
		if (offset < 0 || offset >= end)
			return -ENXIO;
		offset = find_kind(arena, offset, end, whence == SEEK_DATA);
		return offset < 0 ? offset : vfs_setpos(file, offset, end);
	}
	return generic_file_llseek(file, offset, whence);
}

/* The inode is locked. */
static int allocate(struct xalloc_client *client, struct inode *inode, u64 from, u64 to, bool grow)
{
	struct xalloc_arena *arena = client->arena;
	u64 bytes = i_size_read(inode);
	int err = 0;

	if (to > bytes && !xalloc_hole_is_filled(arena))
		return grow ? -EPERM : -ENOSPC;
	grow &= to > bytes;
	if (grow)
		err = inode_newsize_ok(inode, to);
	if (!err)
		err = file_error(xalloc_hole_fill(client, from / XALLOC_SLICE_BYTES,
						  DIV_ROUND_UP_ULL(to, XALLOC_SLICE_BYTES)));
	if (!err && grow)
		err = xalloc_hole_set_size(arena, to);
	return err;
}

/* Likewise. */
static int punch(struct xalloc_client *client, struct inode *inode, u64 from, u64 to)
{
	u64 bytes = i_size_read(inode);

	/* The last folio of a file may end past the end of the file. */
	if (to >= bytes)
		to = min(max(to, round_up(bytes, XALLOC_SEGMENT_BYTES)),
			 (u64)client->arena->nr_segments * XALLOC_SEGMENT_BYTES);
	return from < to ? xalloc_hole_punch(client, from, to) : 0;
}

/**
 * xalloc_fallocate() - commit memory of a file, or give it back
 * @file: a file of an arena
 * @mode: 0, FALLOC_FL_KEEP_SIZE or, with that one, FALLOC_FL_PUNCH_HOLE
 * @offset: as for fallocate()
 * @bytes: likewise
 *
 * Context: Process context, may sleep. Locks the inode.
 * Return: 0, or -EOPNOTSUPP for another mode, -ESTALE for a file of another process, or as from
 * xalloc_write_iter() or xalloc_hole_punch(), -EBUSY where somebody refers to memory that a client
 * left; past the end of an arena with grants, -EPERM, or -ENOSPC with FALLOC_FL_KEEP_SIZE; -EFBIG
 * for a size that the user or the file system may not have.
 */
long xalloc_fallocate(struct file *file, int mode, loff_t offset, loff_t bytes)
{
	struct xalloc_arena *arena = arena_of(file);
	struct inode *inode = file_inode(file);
	int err;

	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE))
		return -EOPNOTSUPP;
	if (IS_ERR(arena))
		return PTR_ERR(arena);
	inode_lock(inode);
	err = file_modified(file);
	if (!err && mode & FALLOC_FL_PUNCH_HOLE)
		err = punch(file->private_data, inode, offset, offset + bytes);
	else if (!err)
		err = allocate(file->private_data, inode, offset, offset + bytes, !mode);
	inode_unlock(inode);
	return err;
}
