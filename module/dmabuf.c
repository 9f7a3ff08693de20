// SPDX-License-Identifier: GPL-2.0-only
/*
 * dma-buf: a range of an arena for devices and for whoever is given its descriptor.
 *
 * An export is a file of the arena with a client of its own, which holds the pages of the
 * range (hold.c): while it lives they stay, whoever frees them. The dma-buf has a reference
 * to that file, and so has each mapping of the dma-buf, which vma_set_file() makes a
 * mapping of it: so the core maps it by 2 MiB entries, GUP takes it and giving back unmaps
 * it, as any mapping of an arena.
 */
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/file.h>
#include <linux/iosys-map.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "internal.h"

/* A table counts the bytes of an entry in 32 bits. */
#define ENTRY_BYTES_MAX SZ_2G

struct export {
	struct file *file;
	u32 slice;
	u32 nr_slices;
	struct mutex lock;		/* protects attachments */
	struct list_head attachments;
};

struct attachment {
	struct list_head link;
	struct device *dev;
	struct sg_table table;
	enum dma_data_direction dir;	/* DMA_NONE: not mapped */
};

static struct xalloc_arena *arena_of(const struct export *export)
{
	struct xalloc_client *client = export->file->private_data;

	return client->arena;
}

static u32 nr_kpages_of(const struct export *export)
{
	return export->nr_slices * XALLOC_SLICE_KPAGES;
}

static struct page **kpages_of(const struct export *export)
{
	return xalloc_segment_kpages(arena_of(export), export->slice, nr_kpages_of(export));
}

/*
 * What a device takes as one entry of a table. dma_get_max_seg_size() would be 64 KiB for a device
 * that does not say anything.
 */
static u32 entry_bytes_max(struct device *dev)
{
	u32 max = dev->dma_parms ? dev->dma_parms->max_segment_size : 0;

	return min_t(u64, max ?: ENTRY_BYTES_MAX, dma_max_mapping_size(dev)) & PAGE_MASK;
}

/*
 * Counts the entries for the memory of an export, or fills in those of @sg. An entry is as long as
 * memory lies in one piece and the device takes.
 */
static u32 make_entries(const struct export *export, u32 max, struct scatterlist *sg)
{
	struct xalloc_arena *arena = arena_of(export);
	u32 slice = export->slice, left = export->nr_slices, nr_entries = 0, nr;
	struct page *kpage, *first = NULL;
	u64 bytes = 0;

	while (left || bytes) {
		nr = left ? xalloc_segment_extent(arena, slice, left, &kpage) : 0;
		if (nr && (!bytes ||
			   page_to_pfn(kpage) == page_to_pfn(first) + bytes / PAGE_SIZE)) {
			first = bytes ? first : kpage;
			bytes += (u64)nr * XALLOC_SLICE_BYTES;
			slice += nr;
			left -= nr;
			if (left)
				continue;
		}
		while (bytes) {
			nr = min_t(u64, bytes, max);
			if (sg) {
				sg_set_page(sg, first, nr, 0);
				sg = sg_next(sg);
			}
			first += nr / PAGE_SIZE;
			bytes -= nr;
			nr_entries++;
		}
		cond_resched();
	}
	return nr_entries;
}

static int dmabuf_attach(struct dma_buf *dmabuf, struct dma_buf_attachment *attachment)
{
	u32 max = entry_bytes_max(attachment->dev);
	struct export *export = dmabuf->priv;
	struct attachment *att;
	int err;

	if (!max)
		return -EINVAL;
	att = kzalloc(sizeof(*att), GFP_KERNEL);
	if (!att)
		return -ENOMEM;
	err = sg_alloc_table(&att->table, make_entries(export, max, NULL), GFP_KERNEL);
	if (err) {
		kfree(att);
		return err;
	}
	make_entries(export, max, att->table.sgl);
	att->dev = attachment->dev;
	att->dir = DMA_NONE;
	attachment->priv = att;
	mutex_lock(&export->lock);
	list_add(&att->link, &export->attachments);
	mutex_unlock(&export->lock);
	return 0;
}

static void dmabuf_detach(struct dma_buf *dmabuf, struct dma_buf_attachment *attachment)
{
	struct export *export = dmabuf->priv;
	struct attachment *att = attachment->priv;

	mutex_lock(&export->lock);
	list_del(&att->link);
	mutex_unlock(&export->lock);
	sg_free_table(&att->table);
	kfree(att);
}

static struct sg_table *dmabuf_map(struct dma_buf_attachment *attachment,
				   enum dma_data_direction dir)
{
	struct export *export = attachment->dmabuf->priv;
	struct attachment *att = attachment->priv;
	int err;

	mutex_lock(&export->lock);
	err = dma_map_sgtable(att->dev, &att->table, dir, 0);
	if (!err)
		att->dir = dir;
	mutex_unlock(&export->lock);
	return err ? ERR_PTR(err) : &att->table;
}

static void dmabuf_unmap(struct dma_buf_attachment *attachment, struct sg_table *table,
			 enum dma_data_direction dir)
{
	struct export *export = attachment->dmabuf->priv;
	struct attachment *att = attachment->priv;

	mutex_lock(&export->lock);
	att->dir = DMA_NONE;
	dma_unmap_sgtable(att->dev, table, dir, 0);
	mutex_unlock(&export->lock);
}

static int dmabuf_begin_cpu_access(struct dma_buf *dmabuf, enum dma_data_direction dir)
{
	struct export *export = dmabuf->priv;
	struct attachment *att;

	mutex_lock(&export->lock);
	list_for_each_entry(att, &export->attachments, link)
		if (att->dir != DMA_NONE)
			dma_sync_sgtable_for_cpu(att->dev, &att->table, dir);
	mutex_unlock(&export->lock);
	return 0;
}

static int dmabuf_end_cpu_access(struct dma_buf *dmabuf, enum dma_data_direction dir)
{
	struct export *export = dmabuf->priv;
	struct attachment *att;

	mutex_lock(&export->lock);
	list_for_each_entry(att, &export->attachments, link)
		if (att->dir != DMA_NONE)
			dma_sync_sgtable_for_device(att->dev, &att->table, dir);
	mutex_unlock(&export->lock);
	return 0;
}

/* The core has seen that the range lies in the dma-buf. */
static int dmabuf_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	struct export *export = dmabuf->priv;

	/* As the arena's own file system has it. */
	if (vma->vm_flags & VM_EXEC)
		return -EPERM;
	vm_flags_clear(vma, VM_MAYEXEC);
	vma->vm_pgoff += (pgoff_t)export->slice * XALLOC_SLICE_KPAGES;
	vma_set_file(vma, export->file);
	return xalloc_mmap_export(export->file, vma);
}

/* Called for the first of several users, and undone after the last. */
static int dmabuf_vmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	struct export *export = dmabuf->priv;
	struct page **kpages = kpages_of(export);
	void *address;

	if (!kpages)
		return -ENOMEM;
	address = vmap(kpages, nr_kpages_of(export), VM_MAP, PAGE_KERNEL);
	kvfree(kpages);
	if (!address)
		return -ENOMEM;
	iosys_map_set_vaddr(map, address);
	return 0;
}

static void dmabuf_vunmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	vunmap(map->vaddr);
}

static void dmabuf_release(struct dma_buf *dmabuf)
{
	struct export *export = dmabuf->priv;

	fput(export->file);
	kfree(export);
}

static const struct dma_buf_ops dmabuf_ops = {
	.attach = dmabuf_attach,
	.detach = dmabuf_detach,
	.map_dma_buf = dmabuf_map,
	.unmap_dma_buf = dmabuf_unmap,
	.begin_cpu_access = dmabuf_begin_cpu_access,
	.end_cpu_access = dmabuf_end_cpu_access,
	.mmap = dmabuf_mmap,
	.vmap = dmabuf_vmap,
	.vunmap = dmabuf_vunmap,
	.release = dmabuf_release,
};

static struct dma_buf *create(struct file *file, u64 offset, u64 bytes)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct dma_buf *dmabuf;
	struct export *export;
	int err;

	/* What tables of kpages count. */
	if (bytes / PAGE_SIZE > INT_MAX / sizeof(struct page *))
		return ERR_PTR(-EFBIG);
	export = kzalloc(sizeof(*export), GFP_KERNEL_ACCOUNT);
	if (!export)
		return ERR_PTR(-ENOMEM);
	mutex_init(&export->lock);
	INIT_LIST_HEAD(&export->attachments);
	export->file = xalloc_file_attach(file, O_RDWR);
	if (IS_ERR(export->file)) {
		err = PTR_ERR(export->file);
		goto err_free;
	}
	err = xalloc_page_hold(export->file->private_data, file->private_data, offset, bytes);
	if (err)
		goto err_put_file;
	export->slice = offset / XALLOC_SLICE_BYTES;
	export->nr_slices = bytes / XALLOC_SLICE_BYTES;
	info.ops = &dmabuf_ops;
	info.size = bytes;
	info.flags = O_RDWR;
	info.priv = export;
	dmabuf = dma_buf_export(&info);
	if (!IS_ERR(dmabuf))
		return dmabuf;
	err = PTR_ERR(dmabuf);
err_put_file:
	fput(export->file);
err_free:
	kfree(export);
	return ERR_PTR(err);
}

/**
 * xalloc_dmabuf_export() - export a range of an arena as a dma-buf
 * @file: a file of the arena, by whose client
 * @offset: where the range begins, in bytes
 * @bytes: its length
 *
 * Context: Process context, may sleep.
 * Return: a descriptor, close-on-exec, or -EINVAL, -EFBIG, -ERANGE, -ENOENT, -EPERM, -ENOMEM,
 * -EMFILE, -ENFILE, -EINTR.
 */
int xalloc_dmabuf_export(struct file *file, u64 offset, u64 bytes)
{
	struct dma_buf *dmabuf = create(file, offset, bytes);
	int fd;

	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	fd = dma_buf_fd(dmabuf, O_CLOEXEC);
	if (fd < 0)
		dma_buf_put(dmabuf);
	return fd;
}

XALLOC_IMPORT_DMA_BUF_SYMBOLS;
