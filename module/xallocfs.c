// SPDX-License-Identifier: GPL-2.0-only
/*
 * xallocfs: arenas with names, the files of a file system that can be mounted.
 *
 * Each file has an arena from the beginning, which the inode owns. The arena goes when the last
 * name, open file, mapping and export of it is gone, or when the file system goes. An open file is
 * a client, as it is for an arena without a name. The arena of a new file fills holes: see hole.c.
 * While the file is empty, an ioctl can turn its arena into one with grants, whose size does not
 * change any more.
 *
 * In a user namespace, a mount needs (fd=) a descriptor of /dev/xalloc that is open for writing. It
 * shows that the user may create arenas.
 *
 * The VFS keeps names, modes and owners. Each mount is a file system of its own, and holds a
 * reference to the module. As in ramfs, a directory consists only of the dentries of its names,
 * which are kept in memory.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/huge_mm.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/statfs.h>

#include "internal.h"

#define XALLOCFS_MAGIC 0x78616c66	/* "xalf" */

struct options {
	kuid_t uid;
	kgid_t gid;
	umode_t mode;
	u32 limit_slices;
	bool may_create;	/* fd= named a writable /dev/xalloc */
};

/* The limit of a file system that is mounted without size=. */
#define NO_LIMIT U32_MAX

/* The budget that all files of the file system share. */
static struct xalloc_budget *budget_of(const struct super_block *sb)
{
	return sb->s_fs_info;
}

static int name_open(struct inode *inode, struct file *file)
{
	struct xalloc_client *client = xalloc_client_create(inode->i_private);

	if (IS_ERR(client))
		return PTR_ERR(client);
	file->private_data = client;
	/* Reads and writes copy from and to the memory itself, so any alignment will do. */
	file->f_mode |= FMODE_CAN_ODIRECT;
	return 0;
}

static int name_release(struct inode *inode, struct file *file)
{
	xalloc_client_destroy(file->private_data);
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
	.fallocate = xalloc_fallocate,
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
 * This takes no lock, because an ls must not wait while the kernel looks for huge pages. The
 * counter may change meanwhile, but a lock would not help: the figure would be old by the time
 * stat() returns.
 */
static int name_getattr(struct mnt_idmap *idmap, const struct path *path, struct kstat *stat,
			u32 request_mask, unsigned int query_flags)
{
	const struct xalloc_arena *arena = d_inode(path->dentry)->i_private;
	int err = simple_getattr(idmap, path, stat, request_mask, query_flags);

	stat->blocks = (u64)READ_ONCE(arena->nr_committed_slices) * (XALLOC_SLICE_BYTES / 512);
	/*
	 * A program that copies in blocks of this size, and looks for zeros in each block, makes
	 * the best use of huge pages.
	 */
	stat->blksize = XALLOC_SEGMENT_BYTES;
	return err;
}

/* An arena with grants keeps its size. A file can have any mode: SB_I_NOEXEC forbids execution. */
static int name_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr)
{
	struct xalloc_arena *arena = d_inode(dentry)->i_private;
	struct iattr rest = *attr;
	int err;

	if (attr->ia_valid & ATTR_SIZE) {
		err = setattr_prepare(idmap, dentry, attr);
		if (!err && xalloc_hole_is_filled(arena))
			err = xalloc_hole_set_size(arena, attr->ia_size);
		else if (!err && attr->ia_size != i_size_read(d_inode(dentry)))
			err = -EPERM;
		if (err)
			return err;
		inode_set_mtime_to_ts(d_inode(dentry), inode_set_ctime_current(d_inode(dentry)));
		rest.ia_valid &= ~ATTR_SIZE;
	}
	return simple_setattr(idmap, dentry, &rest);
}

static const struct inode_operations name_iops = {
	.getattr = name_getattr,
	.setattr = name_setattr,
};

/**
 * xalloc_name_define() - turn the arena of an empty file into one with grants
 * @file: a file of xallocfs
 * @config: as for xalloc_arena_create()
 *
 * Context: Process context, may sleep. Locks the inode.
 * Return: 0, or -ENOTTY if @file is not of xallocfs, -EEXIST if it is not empty, or as from
 * xalloc_arena_redefine().
 */
int xalloc_name_define(struct file *file, const struct xalloc_arena_config *config)
{
	struct inode *inode = file_inode(file);
	int err = -EEXIST;

	if (file->f_op != &name_fops)
		return -ENOTTY;
	inode_lock(inode);
	if (!i_size_read(inode))
		err = xalloc_arena_redefine(inode->i_private, config);
	if (!err)
		i_size_write(inode, config->arena_bytes);
	inode_unlock(inode);
	return err;
}

static const struct inode_operations dir_iops;

static struct inode *create_inode(struct super_block *sb, struct inode *dir, umode_t mode)
{
	const struct xalloc_arena_config config = {
		.arena_bytes = xalloc_arena_bytes_max(),
		.policy = XALLOC_POLICY_HUGE_PREFERRED,
		.node = NUMA_NO_NODE,
		.budget = budget_of(sb),
		.fills_holes = true,
	};
	struct inode *inode = new_inode(sb);
	struct xalloc_arena *arena;

	if (!inode)
		return NULL;
	inode->i_ino = get_next_ino();
	inode_init_owner(&nop_mnt_idmap, inode, dir, mode);
	simple_inode_init_ts(inode);
	if (S_ISLNK(mode)) {
		inode->i_op = &simple_symlink_inode_operations;
		return inode;
	}
	if (S_ISDIR(mode)) {
		inode->i_op = &dir_iops;
		inode->i_fop = &simple_dir_operations;
		inc_nlink(inode);
		return inode;
	}
	arena = xalloc_arena_create(&config);
	if (IS_ERR(arena)) {
		iput(inode);
		return NULL;
	}
	xalloc_backing_init_inode(inode);
	inode->i_op = &name_iops;
	inode->i_fop = &name_fops;
	inode->i_private = arena;
	arena->mapping = inode->i_mapping;
	return inode;
}

/* The inode stays until simple_unlink() or simple_rmdir() removes the name. */
static void add_inode(struct inode *dir, struct dentry *dentry, struct inode *inode)
{
	d_make_persistent(dentry, inode);
	inode_set_mtime_to_ts(dir, inode_set_ctime_current(dir));
}

static int add(struct inode *dir, struct dentry *dentry, umode_t mode)
{
	struct inode *inode = create_inode(dir->i_sb, dir, mode);

	if (!inode)
		return -ENOMEM;
	add_inode(dir, dentry, inode);
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

static int dir_symlink(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
		       const char *target)
{
	struct inode *inode = create_inode(dir->i_sb, dir, S_IFLNK | 0777);

	if (!inode)
		return -ENOMEM;
	inode->i_link = kstrdup(target, GFP_KERNEL_ACCOUNT);
	if (!inode->i_link) {
		iput(inode);
		return -ENOMEM;
	}
	inode->i_size = strlen(target);
	add_inode(dir, dentry, inode);
	return 0;
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
	.symlink = dir_symlink,
	.mkdir = dir_mkdir,
	.rmdir = simple_rmdir,
	.rename = simple_rename,
};

static void xallocfs_evict_inode(struct inode *inode)
{
	/* A directory and a symbolic link have no arena. */
	if (inode->i_private)
		xalloc_arena_destroy(inode->i_private);
	truncate_inode_pages_final(inode->i_mapping);
	clear_inode(inode);
}

/* After a grace period: a path that is being walked may still read the target of a link. */
static void xallocfs_free_inode(struct inode *inode)
{
	if (S_ISLNK(inode->i_mode))
		kfree(inode->i_link);
	free_inode_nonrcu(inode);
}

static int xallocfs_show_options(struct seq_file *m, struct dentry *root)
{
	u32 limit_slices = READ_ONCE(budget_of(root->d_sb)->limit_slices);
	struct inode *inode = d_inode(root);

	if (limit_slices != NO_LIMIT)
		seq_printf(m, ",size=%luk", limit_slices * (XALLOC_SLICE_BYTES / SZ_1K));
	seq_printf(m, ",mode=%04o", inode->i_mode & 07777);
	if (!uid_eq(inode->i_uid, GLOBAL_ROOT_UID))
		seq_printf(m, ",uid=%u", from_kuid_munged(&init_user_ns, inode->i_uid));
	if (!gid_eq(inode->i_gid, GLOBAL_ROOT_GID))
		seq_printf(m, ",gid=%u", from_kgid_munged(&init_user_ns, inode->i_gid));
	return 0;
}

/*
 * Counts in blocks of a kpage. Without size= the size of the file system is what its files have
 * committed plus what all arenas together may still commit.
 */
static int xallocfs_statfs(struct dentry *dentry, struct kstatfs *buf)
{
	const struct xalloc_budget *budget = budget_of(dentry->d_sb);
	u64 limit = READ_ONCE(budget->limit_slices), used = READ_ONCE(budget->nr_slices);
	int err = simple_statfs(dentry, buf);

	if (limit == NO_LIMIT)
		limit = used + xalloc_total_room();
	buf->f_blocks = limit * XALLOC_SLICE_KPAGES;
	buf->f_bfree = (limit - min(used, limit)) * XALLOC_SLICE_KPAGES;
	buf->f_bavail = buf->f_bfree;
	return err;
}

static const struct super_operations super_ops = {
	.statfs = xallocfs_statfs,
	.drop_inode = inode_just_drop,
	.evict_inode = xallocfs_evict_inode,
	.free_inode = xallocfs_free_inode,
	.show_options = xallocfs_show_options,
};

static int fill_super(struct super_block *sb, struct fs_context *fc)
{
	const struct options *options = fc->fs_private;
	struct inode *root;

	sb->s_fs_info = xalloc_budget_create(options->limit_slices, -ENOSPC);
	if (!sb->s_fs_info)
		return -ENOMEM;
	sb->s_maxbytes = min_t(u64, MAX_LFS_FILESIZE, xalloc_arena_bytes_max());
	sb->s_blocksize = PAGE_SIZE;
	sb->s_blocksize_bits = PAGE_SHIFT;
	sb->s_magic = XALLOCFS_MAGIC;
	sb->s_op = &super_ops;
	sb->s_time_gran = 1;
	/* No parent directory: the root inherits neither owner nor mode. */
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
	OPTION_SIZE,
	OPTION_FD,
};

static const struct fs_parameter_spec parameters[] = {
	fsparam_u32("uid", OPTION_UID),
	fsparam_u32("gid", OPTION_GID),
	fsparam_u32oct("mode", OPTION_MODE),
	fsparam_string("size", OPTION_SIZE),
	fsparam_fd("fd", OPTION_FD),
	{}
};

/* As tmpfs does: bytes with a suffix K, M, G, ..., or percent of RAM. Rounds up to slices. */
static int parse_size(struct fs_context *fc, struct options *options, const char *text)
{
	char *end;
	u64 bytes = memparse(text, &end);

	if (*end == '%' && bytes <= 100) {
		bytes = div_u64(((u64)totalram_pages() << PAGE_SHIFT) * bytes, 100);
		end++;
	}
	if (*end || !bytes || bytes > xalloc_arena_bytes_max())
		return invalfc(fc, "Bad size");
	options->limit_slices = DIV_ROUND_UP_ULL(bytes, XALLOC_SLICE_BYTES);
	return 0;
}

static int parse_fd(struct fs_context *fc, struct options *options, int fd)
{
	struct file *file = fget(fd);

	if (!file)
		return invalfc(fc, "Bad fd");
	options->may_create = file->f_op->unlocked_ioctl == xalloc_device_ioctl &&
			      file->f_mode & FMODE_WRITE;
	fput(file);
	return options->may_create ? 0 : invalfc(fc, "fd is not of /dev/xalloc, open for writing");
}

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
	case OPTION_SIZE:
		return parse_size(fc, options, param->string);
	case OPTION_FD:
		return parse_fd(fc, options, result.uint_32);
	}
	return option;
}

/*
 * Anybody can be root of a user namespace. So a mount there needs an open /dev/xalloc: the mode of
 * that file decides who may use xalloc.
 */
static int xallocfs_get_tree(struct fs_context *fc)
{
	const struct options *options = fc->fs_private;

	if (fc->user_ns != &init_user_ns && !options->may_create) {
		errorf(fc, "xallocfs: in a user namespace, fd=N of /dev/xalloc is needed");
		return -EPERM;
	}
	return get_tree_nodev(fc, fill_super);
}

/* A remount changes only size=. chmod and chown change the mode and owner of the root. */
static int xallocfs_reconfigure(struct fs_context *fc)
{
	const struct options *options = fc->fs_private;
	struct super_block *sb = fc->root->d_sb;

	if (options->limit_slices == NO_LIMIT)
		return 0;
	if (xalloc_budget_set_limit(budget_of(sb), options->limit_slices))
		return invalfc(fc, "More than that is in use");
	return 0;
}

static void xallocfs_free_context(struct fs_context *fc)
{
	kfree(fc->fs_private);
}

static const struct fs_context_operations context_ops = {
	.free = xallocfs_free_context,
	.parse_param = xallocfs_parse_param,
	.get_tree = xallocfs_get_tree,
	.reconfigure = xallocfs_reconfigure,
};

static int xallocfs_init_fs_context(struct fs_context *fc)
{
	struct options *options = kzalloc(sizeof(*options), GFP_KERNEL);

	if (!options)
		return -ENOMEM;
	options->uid = current_fsuid();
	options->gid = current_fsgid();
	options->mode = 0755;
	options->limit_slices = NO_LIMIT;
	fc->fs_private = options;
	fc->ops = &context_ops;
	fc->s_iflags |= SB_I_NOEXEC | SB_I_NODEV;
	return 0;
}

static void xallocfs_kill_sb(struct super_block *sb)
{
	struct xalloc_budget *budget = budget_of(sb);

	xalloc_kill_super_with_names(sb);
	/* Zombies have references of their own to the budget. */
	xalloc_budget_put(budget);
}

static struct file_system_type fs_type = {
	.name = "xallocfs",
	.owner = THIS_MODULE,
	.init_fs_context = xallocfs_init_fs_context,
	.parameters = parameters,
	.kill_sb = xallocfs_kill_sb,
	.fs_flags = FS_USERNS_MOUNT,
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
