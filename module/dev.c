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

static const struct file_operations dev_fops = {
	.owner = THIS_MODULE,
	.open = dev_open,
	.unlocked_ioctl = xalloc_device_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
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
