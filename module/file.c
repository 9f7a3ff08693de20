// SPDX-License-Identifier: GPL-2.0-only
/*
 * Arena files: an inode per arena, a client per struct file. Those of arenas with names are
 * in xallocfs.c.
 *
 * Each arena has an inode of its own, on a file system that cannot be mounted by hand,
 * because the page tables map by 2 MiB only below i_size of the file's inode, and
 * because giving back unmaps by the inode's mapping. The inode owns the arena.
 *
 * The file system stays mounted while a file exists that has a client or that the mappings of a
 * family use, and while it is mounted it holds a reference to the module. A file's own reference to
 * the module is not enough: __fput() drops that before the dentry, whose end is what evicts the
 * inode. The mount is not the inode's to hold: an inotify watch can drop an inode last, and would
 * end the file system below it.
 */
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/huge_mm.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pseudo_fs.h>
#include <linux/sizes.h>

#include "internal.h"

#define XALLOC_FS_MAGIC 0x78616c63	/* "xalc" */

static void arena_evict_inode(struct inode *inode);

static const struct super_operations super_ops = {
	.statfs = simple_statfs,
	.drop_inode = inode_just_drop,
	.evict_inode = arena_evict_inode,
};

static int arena_init_fs_context(struct fs_context *fc)
{
	struct pseudo_fs_context *ctx = init_pseudo(fc, XALLOC_FS_MAGIC);

	if (!ctx)
		return -ENOMEM;
	ctx->ops = &super_ops;
	fc->s_iflags |= SB_I_NOEXEC;
	return 0;
}

static struct file_system_type fs_type = {
	.name = "xalloc_arena",
	.owner = THIS_MODULE,
	.init_fs_context = arena_init_fs_context,
	.kill_sb = kill_anon_super,
};

static struct vfsmount *fs_mount;
static int fs_mount_count;

static void arena_evict_inode(struct inode *inode)
{
	struct xalloc_arena *arena = inode->i_private;

	/* The root of the file system has none. */
	if (arena)
		xalloc_arena_destroy(arena);
	truncate_inode_pages_final(inode->i_mapping);
	clear_inode(inode);
}

static void destroy_client(struct xalloc_client *client)
{
	if (client->view)
		xalloc_view_put(client);
	else
		xalloc_client_destroy(client);
}

static int arena_file_open(struct inode *inode, struct file *file)
{
	struct xalloc_arena *arena = inode->i_private;
	struct xalloc_client *client;
	int err;

	err = simple_pin_fs(&fs_type, &fs_mount, &fs_mount_count);
	if (err)
		return err;
	client = arena->family ? xalloc_view_open(arena, file->f_mode & FMODE_WRITE) :
				 xalloc_client_create(arena);
	if (IS_ERR(client)) {
		simple_release_fs(&fs_mount, &fs_mount_count);
		return PTR_ERR(client);
	}
	file->private_data = client;
	return 0;
}

static int arena_file_release(struct inode *inode, struct file *file)
{
	destroy_client(file->private_data);
	/* Not the end of the file system: the file has a reference to the mount. */
	simple_release_fs(&fs_mount, &fs_mount_count);
	return 0;
}

/**
 * xalloc_file_poll() - ready when the worker is not at the reserve
 * @file: a file of an arena
 * @wait: as for poll
 *
 * How much it had is in the statistics.
 *
 * Return: EPOLLOUT, or 0.
 */
__poll_t xalloc_file_poll(struct file *file, struct poll_table_struct *wait)
{
	struct xalloc_client *client = file->private_data;

	poll_wait(file, &client->arena->filled, wait);
	return READ_ONCE(client->arena->filling) ? 0 : EPOLLOUT | EPOLLWRNORM;
}

/** xalloc_file_show_stat() - lines of fdinfo on what an arena, or all of them together, hold */
void xalloc_file_show_stat(struct seq_file *m, const struct xalloc_ioc_stat *stat)
{
	seq_printf(m, "xalloc-granted-kB:\t%llu\n", stat->granted_bytes / SZ_1K);
	seq_printf(m, "xalloc-committed-kB:\t%llu\n", stat->committed_bytes / SZ_1K);
	seq_printf(m, "xalloc-pinned-kB:\t%llu\n", stat->pinned_bytes / SZ_1K);
	seq_printf(m, "xalloc-reserved-kB:\t%llu\n", stat->reserved_bytes / SZ_1K);
}

/** xalloc_file_show_fdinfo() - what an operator may read in /proc/PID/fdinfo */
void xalloc_file_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct xalloc_client *client = file->private_data;
	struct xalloc_ioc_stat stat = {};

	mutex_lock(&client->arena->lock);
	xalloc_arena_stat(client->arena, &stat);
	mutex_unlock(&client->arena->lock);
	seq_printf(m, "xalloc-arena:\t%llu\nxalloc-client:\t%llu\n", client->arena->id, client->id);
	seq_printf(m, "xalloc-arena-kB:\t%llu\n",
		   (u64)client->arena->nr_segments * XALLOC_SEGMENT_BYTES / SZ_1K);
	xalloc_file_show_stat(m, &stat);
}

static const struct file_operations arena_fops = {
	.owner = THIS_MODULE,
	.open = arena_file_open,	/* xalloc_file_attach(), and /proc/PID/fd for reading */
	.release = arena_file_release,
	.llseek = xalloc_llseek,
	.read_iter = xalloc_read_iter,
	.write_iter = xalloc_write_iter,
	.splice_read = copy_splice_read,
	.splice_write = iter_file_splice_write,
	.fsync = noop_fsync,
	.fallocate = xalloc_fallocate,
	XALLOC_NO_LEASES
	.unlocked_ioctl = xalloc_arena_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = xalloc_mmap,
	.poll = xalloc_file_poll,
	.show_fdinfo = xalloc_file_show_fdinfo,
	.get_unmapped_area = thp_get_unmapped_area,
};

/* Mode and owner stay as they were made: fchmod() must not make an arena executable. */
static int arena_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr)
{
	return -EOPNOTSUPP;
}

/*
 * Called for opens by /proc/PID/fd. The kernel does not say which descriptor was used, so all opens
 * for writing are refused, root's too. dentry_open() in xalloc_file_attach() does not call this.
 */
static int arena_permission(struct mnt_idmap *idmap, struct inode *inode, int mask)
{
	return mask & MAY_WRITE ? -EACCES : generic_permission(idmap, inode, mask);
}

static const struct inode_operations inode_ops = {
	.setattr = arena_setattr,
	.permission = arena_permission,
};

/* The inode takes over @arena, and destroys it if there is no inode. */
static struct inode *create_inode(struct xalloc_arena *arena)
{
	struct inode *inode = alloc_anon_inode(fs_mount->mnt_sb);

	if (IS_ERR(inode)) {
		xalloc_arena_destroy(arena);
		return inode;
	}
	/* Known to the end of the file system, which takes inotify watches off its inodes. */
	inode_sb_list_add(inode);
	inode->i_mode |= S_IFREG;
	i_size_write(inode, (loff_t)arena->nr_segments * XALLOC_SEGMENT_BYTES);
	xalloc_backing_init_inode(inode);
	inode->i_op = &inode_ops;
	inode->i_fop = &arena_fops;
	inode->i_private = arena;
	arena->mapping = inode->i_mapping;
	return inode;
}

static int mapping_file_release(struct inode *inode, struct file *file)
{
	simple_release_fs(&fs_mount, &fs_mount_count);
	return 0;
}

static const struct file_operations mapping_fops = {
	.owner = THIS_MODULE,
	.release = mapping_file_release,
	.get_unmapped_area = thp_get_unmapped_area,	/* for mremap() */
};

/* A file on the inode, without a client; its release is to release the file system. */
static struct file *open_file(struct inode *inode, const struct file_operations *fops)
{
	struct file *file;
	int err;

	err = simple_pin_fs(&fs_type, &fs_mount, &fs_mount_count);
	if (err)
		return ERR_PTR(err);
	/* fput() drops it; alloc_file_pseudo() does not take it. */
	__module_get(THIS_MODULE);
	ihold(inode);
	file = alloc_file_pseudo(inode, fs_mount, "[xalloc]", O_RDWR, fops);
	if (IS_ERR(file)) {
		iput(inode);
		module_put(THIS_MODULE);
		simple_release_fs(&fs_mount, &fs_mount_count);
	}
	return file;
}

/* The first view of a family, with the file that all mappings of the family are to have. */
static struct xalloc_client *create_view(struct xalloc_arena *arena, struct inode *inode)
{
	struct file *file = open_file(inode, &mapping_fops);
	struct xalloc_client *client;

	if (IS_ERR(file))
		return ERR_CAST(file);
	client = xalloc_view_create(arena, file);
	/* The view has a reference of its own. */
	fput(file);
	return client;
}

/**
 * xalloc_file_create() - create an arena and open its first file
 * @config: as for xalloc_arena_create()
 *
 * Context: Process context, may sleep.
 * Return: the file, whose private_data is the client, or -EINVAL, -EFBIG, -ENODEV,
 * -ENOMEM, -ENFILE. Dropping it undoes all.
 */
struct file *xalloc_file_create(const struct xalloc_arena_config *config)
{
	struct xalloc_client *client;
	struct xalloc_arena *arena;
	struct inode *inode;
	struct file *file;
	int err;

	/* For the inode; each file has its own. */
	err = simple_pin_fs(&fs_type, &fs_mount, &fs_mount_count);
	if (err)
		return ERR_PTR(err);
	arena = xalloc_arena_create(config);
	if (IS_ERR(arena)) {
		file = ERR_CAST(arena);
		goto out_release_fs;
	}
	inode = create_inode(arena);
	if (IS_ERR(inode)) {
		file = ERR_CAST(inode);
		goto out_release_fs;
	}
	client = arena->family ? create_view(arena, inode) : xalloc_client_create(arena);
	if (IS_ERR(client)) {
		file = ERR_CAST(client);
		goto out_put_inode;
	}
	file = open_file(inode, &arena_fops);
	if (IS_ERR(file)) {
		destroy_client(client);
		goto out_put_inode;
	}
	file->private_data = client;
	file->f_mode |= FMODE_LSEEK | FMODE_PREAD | FMODE_PWRITE;
out_put_inode:
	iput(inode);
out_release_fs:
	simple_release_fs(&fs_mount, &fs_mount_count);
	return file;
}
EXPORT_SYMBOL_IF_KUNIT(xalloc_file_create);

/**
 * xalloc_file_attach() - open another file, on a new client, of an arena
 * @file: a file of the arena
 * @flags: O_RDONLY or O_RDWR
 *
 * Context: Process context, may sleep.
 * Return: the file, or -ENOMEM, -ENFILE.
 */
struct file *xalloc_file_attach(struct file *file, int flags)
{
	return dentry_open(&file->f_path, flags, current_cred());
}
