// SPDX-License-Identifier: GPL-2.0-only
/* /dev/xalloc: where arenas are created. */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>

#include "internal.h"

static int dev_open(struct inode *inode, struct file *file)
{
	return nonseekable_open(inode, file);
}

/* What an operator may read without a tool: the sums over all arenas. */
static void dev_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct xalloc_ioc_stat stat = {};

	xalloc_stat_all(&stat);
	seq_printf(m, "xalloc-arenas:\t%llu\nxalloc-clients:\t%llu\n", stat.arenas, stat.clients);
	xalloc_file_show_stat(m, &stat);
}

static const struct file_operations dev_fops = {
	.owner = THIS_MODULE,
	.open = dev_open,
	.unlocked_ioctl = xalloc_device_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.show_fdinfo = dev_show_fdinfo,
};

static struct miscdevice dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "xalloc",
	.fops = &dev_fops,
	.mode = 0600,	/* the udev rule opens it to the group xalloc */
};

/**
 * xalloc_dev_init() - make /dev/xalloc appear
 * Return: 0 or -errno.
 */
int xalloc_dev_init(void)
{
	return misc_register(&dev);
}

/** xalloc_dev_fini() - take /dev/xalloc away */
void xalloc_dev_fini(void)
{
	misc_deregister(&dev);
}
