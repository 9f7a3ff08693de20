// SPDX-License-Identifier: GPL-2.0-only
/*
 * xallocfs: arenas with names, the files of a file system that can be mounted.
 *
 * A new file is empty. Whoever opens it first may create an arena in it, and until then, or
 * until that file is closed, nobody else can open it. From then on a file on it is a client, as
 * one on an arena without a name is, and the inode owns the arena: it goes with the last of
 * names, files, mappings and exports, or with the file system.
 *
 * Names, modes and owners are the VFS's. Each mount is a file system of its own, and holds the
 * module. As in ramfs, a dentry is kept for each name; that is all there is of a directory.
 */
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/huge_mm.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "internal.h"

#define XALLOCFS_MAGIC 0x78616c66	/* "xalf" */

/* The private data of a regular file's inode. */
struct name {
	struct mutex lock;		/* protects all below; comes before arena->lock */
	struct xalloc_arena *arena;	/* set once; name_getattr() reads it without lock */
	bool opened;			/* by the one that may create the arena */
};

struct options {
	kuid_t uid;
	kgid_t gid;
	umode_t mode;
};

static int name_open(struct inode *inode, struct file *file)
{
	struct name *name = inode->i_private;
	struct xalloc_client *client = NULL;
	int err = 0;

	/* Whoever creates an arena may take long to be told of it. */
	if (mutex_lock_interruptible(&name->lock))
		return -ERESTARTSYS;
	if (name->arena) {
		client = xalloc_client_create(name->arena);
		err = PTR_ERR_OR_ZERO(client);
	} else if (name->opened) {
		err = -EBUSY;
	} else {
		name->opened = true;
	}
	mutex_unlock(&name->lock);
	if (err)
		return err;
	file->private_data = client;
	return 0;
}

static int name_release(struct inode *inode, struct file *file)
{
	struct name *name = inode->i_private;

	if (file->private_data) {
		xalloc_client_destroy(file->private_data);
		return 0;
	}
	mutex_lock(&name->lock);
	name->opened = false;
	mutex_unlock(&name->lock);
	return 0;
}

static const struct file_operations name_fops = {
	.owner = THIS_MODULE,
	.open = name_open,
	.release = name_release,
	.llseek = xalloc_llseek,
	.read_iter = xalloc_read_iter,
	.write_iter = xalloc_write_iter,
	.splice_read = copy_splice_read,
	.splice_write = iter_file_splice_write,
	.fsync = noop_fsync,
	XALLOC_NO_LEASES
	.unlocked_ioctl = xalloc_arena_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = xalloc_mmap,
	.poll = xalloc_file_poll,
	.show_fdinfo = xalloc_file_show_fdinfo,
	.get_unmapped_area = thp_get_unmapped_area,
};

/*
 * The blocks of a file are the memory that its arena has committed: du and ls -s show it.
 *
 * No lock is taken, because an ls must not wait long: name->lock may be held until a fault on a
 * caller's memory has ended, and arena->lock while the kernel looks for huge pages. The arena
 * lives as long as the inode does. Its counter may change meanwhile, but a lock would not help:
 * the figure would be old by the time stat() returns.
 */
static int name_getattr(struct mnt_idmap *idmap, const struct path *path, struct kstat *stat,
			u32 request_mask, unsigned int query_flags)
{
	const struct name *name = d_inode(path->dentry)->i_private;
	/* Pairs with xalloc_name_finish(). */
	const struct xalloc_arena *arena = smp_load_acquire(&name->arena);
	int err = simple_getattr(idmap, path, stat, request_mask, query_flags);

	if (!err && arena)
		stat->blocks = (u64)READ_ONCE(arena->nr_committed_slices) *
			       (XALLOC_SLICE_BYTES / 512);
	return err;
}

/* The size is the arena's. No mode makes a file executable here: SB_I_NOEXEC. */
static int name_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr)
{
	if (attr->ia_valid & ATTR_SIZE)
		return -EPERM;
	return simple_setattr(idmap, dentry, attr);
}

static const struct inode_operations name_iops = {
	.getattr = name_getattr,
	.setattr = name_setattr,
};

/**
 * xalloc_name_begin() - create an arena in an empty file
 * @file: a file of xallocfs
 * @config: as for xalloc_arena_create()
 *
 * Nobody sees it yet. Must be followed by xalloc_name_finish(), with nothing between that
 * opens files.
 *
 * Context: Process context, may sleep. On success the file's name is left locked.
 * Return: the client that the file is to be, or -EEXIST if there is an arena, -ENOTTY if the
 * file is none of xallocfs, -EINTR, or as from xalloc_arena_create().
 */
struct xalloc_client *xalloc_name_begin(struct file *file, const struct xalloc_arena_config *config)
{
	struct name *name = file_inode(file)->i_private;
	struct xalloc_client *client;
	struct xalloc_arena *arena;

	if (file->f_op != &name_fops)
		return ERR_PTR(-ENOTTY);
	if (mutex_lock_killable(&name->lock))
		return ERR_PTR(-EINTR);
	if (name->arena) {
		client = ERR_PTR(-EEXIST);
		goto err_unlock;
	}
	arena = xalloc_arena_create(config);
	if (IS_ERR(arena)) {
		client = ERR_CAST(arena);
		goto err_unlock;
	}
	client = xalloc_client_create(arena);
	if (IS_ERR(client)) {
		xalloc_arena_destroy(arena);
		goto err_unlock;
	}
	arena->mapping = file_inode(file)->i_mapping;
	return client;

err_unlock:
	mutex_unlock(&name->lock);
	return client;
}

/**
 * xalloc_name_finish() - put a new arena into its file, or undo it
 * @file: as in xalloc_name_begin()
 * @client: what that returned
 * @keep: the caller knows of it
 *
 * Context: Process context, may sleep.
 */
void xalloc_name_finish(struct file *file, struct xalloc_client *client, bool keep)
{
	struct inode *inode = file_inode(file);
	struct name *name = inode->i_private;
	struct xalloc_arena *arena = client->arena;

	if (keep) {
		/* The only write to it. */
		i_size_write(inode, (loff_t)arena->nr_segments * XALLOC_SEGMENT_BYTES);
		/* Publishes a complete arena: pairs with name_getattr(), which takes no lock. */
		smp_store_release(&name->arena, arena);
		/* Publishes all of it to other threads: pairs with xalloc_file_client(). */
		smp_store_release(&file->private_data, client);
	} else {
		xalloc_client_destroy(client);
		xalloc_arena_destroy(arena);
	}
	mutex_unlock(&name->lock);
}

static const struct inode_operations dir_iops;

static struct inode *create_inode(struct super_block *sb, struct inode *dir, umode_t mode)
{
	struct inode *inode = new_inode(sb);
	struct name *name;

	if (!inode)
		return NULL;
	inode->i_ino = get_next_ino();
	inode_init_owner(&nop_mnt_idmap, inode, dir, mode);
	simple_inode_init_ts(inode);
	if (S_ISDIR(mode)) {
		inode->i_op = &dir_iops;
		inode->i_fop = &simple_dir_operations;
		inc_nlink(inode);
		return inode;
	}
	name = kzalloc(sizeof(*name), GFP_KERNEL_ACCOUNT);
	if (!name) {
		iput(inode);
		return NULL;
	}
	mutex_init(&name->lock);
	xalloc_backing_init_inode(inode);
	inode->i_op = &name_iops;
	inode->i_fop = &name_fops;
	inode->i_private = name;
	return inode;
}

static int add(struct inode *dir, struct dentry *dentry, umode_t mode)
{
	struct inode *inode = create_inode(dir->i_sb, dir, mode);

	if (!inode)
		return -ENOMEM;
	/* The inode stays until simple_unlink() or simple_rmdir() takes the name away. */
	d_make_persistent(dentry, inode);
	inode_set_mtime_to_ts(dir, inode_set_ctime_current(dir));
	return 0;
}

static int XALLOC_CREATE(dir_create)
{
	return add(dir, dentry, mode | S_IFREG);
}

static XALLOC_MKDIR_TYPE dir_mkdir(struct mnt_idmap *idmap, struct inode *dir,
				   struct dentry *dentry, umode_t mode)
{
	int err = add(dir, dentry, mode | S_IFDIR);

	if (!err)
		inc_nlink(dir);
	return XALLOC_MKDIR_RESULT(err);
}

static int dir_tmpfile(struct mnt_idmap *idmap, struct inode *dir, struct file *file, umode_t mode)
{
	struct inode *inode = create_inode(dir->i_sb, dir, mode | S_IFREG);

	if (!inode)
		return -ENOMEM;
	d_tmpfile(file, inode);
	return finish_open_simple(file, 0);
}

static const struct inode_operations dir_iops = {
	.lookup = simple_lookup,
	.create = dir_create,
	.tmpfile = dir_tmpfile,
	.link = simple_link,
	.unlink = simple_unlink,
	.mkdir = dir_mkdir,
	.rmdir = simple_rmdir,
	.rename = simple_rename,
};

static void xallocfs_evict_inode(struct inode *inode)
{
	struct name *name = inode->i_private;

	if (name && name->arena)
		xalloc_arena_destroy(name->arena);
	truncate_inode_pages_final(inode->i_mapping);
	clear_inode(inode);
	if (!name)
		return;
	mutex_destroy(&name->lock);
	kfree(name);
}

static int xallocfs_show_options(struct seq_file *m, struct dentry *root)
{
	struct inode *inode = d_inode(root);

	seq_printf(m, ",mode=%04o", inode->i_mode & 07777);
	if (!uid_eq(inode->i_uid, GLOBAL_ROOT_UID))
		seq_printf(m, ",uid=%u", from_kuid_munged(&init_user_ns, inode->i_uid));
	if (!gid_eq(inode->i_gid, GLOBAL_ROOT_GID))
		seq_printf(m, ",gid=%u", from_kgid_munged(&init_user_ns, inode->i_gid));
	return 0;
}

static const struct super_operations super_ops = {
	.statfs = simple_statfs,
	.drop_inode = inode_just_drop,
	.evict_inode = xallocfs_evict_inode,
	.show_options = xallocfs_show_options,
};

static int fill_super(struct super_block *sb, struct fs_context *fc)
{
	const struct options *options = fc->fs_private;
	struct inode *root;

	sb->s_maxbytes = MAX_LFS_FILESIZE;
	sb->s_blocksize = PAGE_SIZE;
	sb->s_blocksize_bits = PAGE_SHIFT;
	sb->s_magic = XALLOCFS_MAGIC;
	sb->s_op = &super_ops;
	sb->s_time_gran = 1;
	/* 0: the root has neither owner nor mode of a directory above it. */
	root = create_inode(sb, NULL, S_IFDIR | options->mode);
	if (root) {
		root->i_uid = options->uid;
		root->i_gid = options->gid;
	}
	sb->s_root = d_make_root(root);
	return sb->s_root ? 0 : -ENOMEM;
}

enum option {
	OPTION_UID,
	OPTION_GID,
	OPTION_MODE,
};

static const struct fs_parameter_spec parameters[] = {
	fsparam_u32("uid", OPTION_UID),
	fsparam_u32("gid", OPTION_GID),
	fsparam_u32oct("mode", OPTION_MODE),
	{}
};

static int xallocfs_parse_param(struct fs_context *fc, struct fs_parameter *param)
{
	struct options *options = fc->fs_private;
	struct fs_parse_result result;
	int option = fs_parse(fc, parameters, param, &result);

	switch (option) {
	case OPTION_UID:
		options->uid = make_kuid(current_user_ns(), result.uint_32);
		return uid_valid(options->uid) ? 0 : invalfc(fc, "Unknown uid");
	case OPTION_GID:
		options->gid = make_kgid(current_user_ns(), result.uint_32);
		return gid_valid(options->gid) ? 0 : invalfc(fc, "Unknown gid");
	case OPTION_MODE:
		if (result.uint_32 & ~07777)
			return invalfc(fc, "Bad mode");
		options->mode = result.uint_32;
		return 0;
	}
	return option;
}

static int xallocfs_get_tree(struct fs_context *fc)
{
	return get_tree_nodev(fc, fill_super);
}

static void xallocfs_free_context(struct fs_context *fc)
{
	kfree(fc->fs_private);
}

static const struct fs_context_operations context_ops = {
	.free = xallocfs_free_context,
	.parse_param = xallocfs_parse_param,
	.get_tree = xallocfs_get_tree,
};

static int xallocfs_init_fs_context(struct fs_context *fc)
{
	struct options *options = kzalloc(sizeof(*options), GFP_KERNEL);

	if (!options)
		return -ENOMEM;
	options->uid = current_fsuid();
	options->gid = current_fsgid();
	options->mode = 0755;
	fc->fs_private = options;
	fc->ops = &context_ops;
	fc->s_iflags |= SB_I_NOEXEC | SB_I_NODEV;
	return 0;
}

static struct file_system_type fs_type = {
	.name = "xallocfs",
	.owner = THIS_MODULE,
	.init_fs_context = xallocfs_init_fs_context,
	.parameters = parameters,
	.kill_sb = xalloc_kill_super_with_names,
};
MODULE_ALIAS_FS("xallocfs");

/**
 * xalloc_names_init() - make the file system known
 * Return: 0 or -errno.
 */
int xalloc_names_init(void)
{
	return register_filesystem(&fs_type);
}

/** xalloc_names_fini() - forget the file system, which is mounted nowhere */
void xalloc_names_fini(void)
{
	unregister_filesystem(&fs_type);
}
