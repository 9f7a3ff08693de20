// SPDX-License-Identifier: GPL-2.0-only
/*
 * A kernel client of xalloc: records that user space reads where the kernel wrote them.
 *
 * A timer, in softirq context, makes records in blocks of a heap whose arena can be
 * mapped. A reader maps the arena once, for reading, and then gets a handle, {arena id,
 * offset}, per record: nothing is copied. What the kernel needs to find its blocks again
 * lies in memory of its own; it never reads a block that user space can map.
 */
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "../heap.h"
#include "xalloc_records.h"

#define ARENA_BYTES (8u << 20)
#define RECORDS_PER_TICK 16
#define DATA_BYTES_MAX 6000
#define QUEUE_MAX 256

struct queued {
	struct list_head link;
	struct xalloc_record *record;	/* written once, never read */
	u32 bytes;
};

/* Of a file: its reader has one record at a time. */
struct reader {
	struct mutex lock;	/* protects record */
	struct xalloc_record *record;
};

static struct xalloc_heap *heap;
static LIST_HEAD(queue);
static u32 nr_queued;
static DEFINE_SPINLOCK(queue_lock);	/* protects queue and nr_queued */
static DECLARE_WAIT_QUEUE_HEAD(queue_wait);
static struct timer_list timer;
static u64 last_number;
static u64 nr_dropped;

static struct queued *make_record(u64 number)
{
	u32 data_bytes = number * 37 % DATA_BYTES_MAX, sum = 0, i;
	struct xalloc_record *record;
	struct queued *queued;

	queued = kmalloc(sizeof(*queued), GFP_ATOMIC);
	if (!queued)
		return NULL;
	queued->bytes = sizeof(*record) + data_bytes;
	record = xalloc_heap_alloc(heap, queued->bytes, GFP_ATOMIC);
	if (!record) {
		kfree(queued);
		return NULL;
	}
	for (i = 0; i < data_bytes; i++) {
		record->data[i] = number + i;
		sum += (u8)(number + i);
	}
	record->number = number;
	record->bytes = queued->bytes;
	record->sum = sum;
	queued->record = record;
	return queued;
}

static void make_records(struct timer_list *t)
{
	struct queued *queued;
	u32 i;

	for (i = 0; i < RECORDS_PER_TICK && READ_ONCE(nr_queued) < QUEUE_MAX; i++) {
		queued = make_record(++last_number);
		if (!queued) {
			nr_dropped++;
			continue;
		}
		spin_lock(&queue_lock);
		list_add_tail(&queued->link, &queue);
		nr_queued++;
		spin_unlock(&queue_lock);
	}
	wake_up_interruptible(&queue_wait);
	mod_timer(&timer, jiffies + 1);
}

static struct queued *next_record(void)
{
	struct queued *queued;

	spin_lock_bh(&queue_lock);
	queued = list_first_entry_or_null(&queue, struct queued, link);
	if (queued) {
		list_del(&queued->link);
		nr_queued--;
	}
	spin_unlock_bh(&queue_lock);
	return queued;
}

static int records_open(struct inode *inode, struct file *file)
{
	struct reader *reader = kzalloc(sizeof(*reader), GFP_KERNEL);

	if (!reader)
		return -ENOMEM;
	mutex_init(&reader->lock);
	file->private_data = reader;
	return stream_open(inode, file);
}

static int records_release(struct inode *inode, struct file *file)
{
	struct reader *reader = file->private_data;

	xalloc_heap_free(heap, reader->record);
	kfree(reader);
	return 0;
}

static ssize_t records_read(struct file *file, char __user *buf, size_t bytes, loff_t *pos)
{
	struct xalloc_records_handle out = {};
	struct reader *reader = file->private_data;
	struct xalloc_heap_handle handle;
	struct queued *queued;
	int err;

	if (bytes < sizeof(out))
		return -EINVAL;
	err = wait_event_interruptible(queue_wait, (queued = next_record()));
	if (err)
		return err;
	err = xalloc_heap_handle(heap, queued->record, &handle);
	out.arena_id = handle.arena_id;
	out.offset = handle.offset;
	out.bytes = queued->bytes;
	mutex_lock(&reader->lock);
	xalloc_heap_free(heap, reader->record);
	reader->record = queued->record;
	mutex_unlock(&reader->lock);
	kfree(queued);
	if (err)
		return err;
	return copy_to_user(buf, &out, sizeof(out)) ? -EFAULT : sizeof(out);
}

static long records_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct xalloc_records_arena out;
	struct xalloc_heap_handle handle;
	struct file *arena;
	void *block;
	int fd, err;

	if (cmd != XALLOC_RECORDS_IOC_ARENA)
		return -ENOTTY;
	if (copy_from_user(&out, (void __user *)arg, sizeof(out)))
		return -EFAULT;
	if (out.pad)
		return -EINVAL;
	/* Any block knows the arena's id. */
	block = xalloc_heap_alloc(heap, 1, GFP_KERNEL);
	err = xalloc_heap_handle(heap, block, &handle);
	xalloc_heap_free(heap, block);
	if (err)
		return -ENOMEM;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		return fd;
	/* For reading: a reader cannot change what another reader sees. */
	arena = xalloc_heap_file(heap, O_RDONLY);
	if (IS_ERR(arena)) {
		put_unused_fd(fd);
		return PTR_ERR(arena);
	}
	out.fd = fd;
	out.arena_id = handle.arena_id;
	if (copy_to_user((void __user *)arg, &out, sizeof(out))) {
		fput(arena);
		put_unused_fd(fd);
		return -EFAULT;
	}
	fd_install(fd, arena);
	return 0;
}

static const struct file_operations records_fops = {
	.owner = THIS_MODULE,
	.open = records_open,
	.release = records_release,
	.read = records_read,
	.unlocked_ioctl = records_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "xalloc-records",
	.fops = &records_fops,
	.mode = 0444,
};

static void stop(void)
{
	struct queued *queued;
	u64 nr = last_number;

	timer_delete_sync(&timer);
	while ((queued = next_record())) {
		xalloc_heap_free(heap, queued->record);
		kfree(queued);
	}
	pr_info("xalloc_records: %llu records, %llu dropped for want of memory\n", nr, nr_dropped);
}

static int __init records_init(void)
{
	const struct xalloc_heap_config config = { .arena_bytes = ARENA_BYTES, .mappable = true };
	int err;

	heap = xalloc_heap_create(&config);
	if (IS_ERR(heap))
		return PTR_ERR(heap);
	timer_setup(&timer, make_records, 0);
	mod_timer(&timer, jiffies + 1);
	err = misc_register(&device);
	if (err) {
		stop();
		xalloc_heap_destroy(heap);
	}
	return err;
}

static void __exit records_exit(void)
{
	misc_deregister(&device);
	stop();
	xalloc_heap_destroy(heap);
}

module_init(records_init);
module_exit(records_exit);

MODULE_DESCRIPTION("Sample: records that are read where the kernel wrote them");
MODULE_AUTHOR("The xalloc authors");
MODULE_LICENSE("GPL");
