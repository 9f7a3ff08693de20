// SPDX-License-Identifier: GPL-2.0-only
/*
 * The second file of an arena: what its clients note about it, in memory of another kind.
 *
 * It is a file of shmem, as memfd_create() makes them, that the arena keeps: never part of an
 * export, never read here, out of reach of whatever a device writes into the arena.
 */
#include <linux/cred.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/shmem_fs.h>

#include "internal.h"

static struct file *create(u64 bytes)
{
	struct file *file = shmem_file_setup("xalloc-meta", bytes, mk_vma_flags(VMA_NORESERVE_BIT));

	/* What shmem says where there is no memory for an inode. */
	if (IS_ERR(file))
		return PTR_ERR(file) == -ENOSPC ? ERR_PTR(-ENOMEM) : file;
	/* No owner and no mode: a descriptor for reading must not lead to one for writing. */
	file_inode(file)->i_mode = S_IFREG;
	file_inode(file)->i_uid = INVALID_UID;
	/* Whoever may write to it must not take it away below the others. */
	SHMEM_I(file_inode(file))->seals = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
	return file;
}

/* The arena's, with a reference, or NULL; if it is NULL, @fresh, unless NULL, becomes it. */
static struct file *get(struct xalloc_arena *arena, struct file *fresh)
{
	struct file *meta;

	if (mutex_lock_killable(&arena->lock))
		return ERR_PTR(-EINTR);
	meta = arena->meta ? get_file(arena->meta) : NULL;
	if (!meta && fresh)
		arena->meta = get_file(fresh);
	mutex_unlock(&arena->lock);
	return meta;
}

/* Opens @meta again, and drops the reference to it. */
static struct file *open_again(struct file *meta, u64 *bytes, int flags)
{
	u64 is_bytes = i_size_read(file_inode(meta));
	struct file *file = ERR_PTR(-EEXIST);

	if (!*bytes || *bytes == is_bytes)
		file = dentry_open(&meta->f_path, flags, current_cred());
	fput(meta);
	*bytes = is_bytes;
	return file;
}

/**
 * xalloc_meta_open() - open the second file of an arena
 * @arena: the arena
 * @bytes: the size that it has or is to get, or 0; set to what it is
 * @flags: O_RDONLY or O_RDWR
 *
 * Context: Process context, may sleep.
 * Return: the file, or -EINVAL, -EFBIG, -ENOENT, -EEXIST as XALLOC_IOC_META has them, -ENOMEM,
 * -ENFILE, -EINTR, -EBADF to create it by O_RDONLY, -EOPNOTSUPP where the kernel has no shmem.
 */
struct file *xalloc_meta_open(struct xalloc_arena *arena, u64 *bytes, int flags)
{
	struct file *meta, *fresh, *file;

	if (!IS_ENABLED(CONFIG_SHMEM))
		return ERR_PTR(-EOPNOTSUPP);
	if (*bytes % PAGE_SIZE)
		return ERR_PTR(-EINVAL);
	if (*bytes > (u64)arena->nr_segments * XALLOC_SEGMENT_BYTES)
		return ERR_PTR(-EFBIG);
	meta = get(arena, NULL);
	if (IS_ERR(meta))
		return meta;
	if (meta)
		return open_again(meta, bytes, flags);
	if (!*bytes)
		return ERR_PTR(-ENOENT);
	if (flags != O_RDWR)
		return ERR_PTR(-EBADF);
	fresh = create(*bytes);
	if (IS_ERR(fresh))
		return fresh;
	/* Its size is for good, so not before the last that may fail. */
	file = dentry_open(&fresh->f_path, flags, current_cred());
	meta = IS_ERR(file) ? NULL : get(arena, fresh);
	if (meta) {
		/* Another was first. */
		fput(file);
		file = IS_ERR(meta) ? meta : open_again(meta, bytes, flags);
	}
	fput(fresh);
	return file;
}
