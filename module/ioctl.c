// SPDX-License-Identifier: GPL-2.0-only
/*
 * Calls: copy the argument in once, check it, do it, copy the answer out.
 *
 * The number of a call is what _IOC_NR() says; the size that it has grown to is the
 * first member of its structure and not the one encoded in the command, so that a call
 * keeps its number for ever.
 */
#include <linux/file.h>
#include <linux/ioctl.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

union call_args {
	u32 size;
	struct xalloc_ioc_info info;
	struct xalloc_ioc_stat stat;
	struct xalloc_ioc_arena_create arena_create;
	struct xalloc_ioc_grant grant;
	struct xalloc_ioc_free free;
	struct xalloc_ioc_reserve reserve;
	struct xalloc_ioc_trim trim;
	struct xalloc_ioc_attach attach;
	struct xalloc_ioc_fork_prepare fork_prepare;
	struct xalloc_ioc_meta meta;
	struct xalloc_ioc_limit limit;
	struct xalloc_ioc_list list;
	struct xalloc_ioc_claim claim;
	struct xalloc_ioc_export export;
	struct xalloc_ioc_dump dump;
};

/* What a descriptor is of. */
#define ON_DEVICE BIT(0)
#define ON_ARENA BIT(1)
#define ON_FILE BIT(2)	/* an arena whose memory comes by file calls: see hole.c */
#define ON_FOREIGN BIT(3)	/* an arena that another process has */
#define ON_ARENAS (ON_ARENA | ON_FILE)
#define ON_ALL (ON_DEVICE | ON_ARENAS | ON_FOREIGN)

struct call {
	unsigned int cmd;
	u32 size;	/* of the structure as this kernel knows it */
	u32 min_size;	/* of its first version */
	u32 on;
	long (*handler)(struct file *file, union call_args *args, void __user *user);
};

#define CALL(_cmd, _struct, _last, _on, _handler) {		\
	.cmd = _cmd,						\
	.size = sizeof(struct _struct) +			\
		BUILD_BUG_ON_ZERO(sizeof(struct _struct) > sizeof(union call_args)), \
	.min_size = offsetofend(struct _struct, _last),		\
	.on = _on,						\
	.handler = _handler,					\
}

/* Copies out what the caller has room for; args->size is what it said. */
static int respond(void __user *user, const union call_args *args, u32 size)
{
	return copy_to_user(user, args, min(args->size, size)) ? -EFAULT : 0;
}

static long ioctl_info(struct file *file, union call_args *args, void __user *user)
{
	struct xalloc_ioc_info *info = &args->info;

	if (info->pad)
		return -EINVAL;
	info->abi_version = XALLOC_ABI_VERSION;
	info->slice_bytes = XALLOC_SLICE_BYTES;
	info->segment_bytes = XALLOC_SEGMENT_BYTES;
	info->batch_max = XALLOC_BATCH_MAX;
	info->arena_bytes_max = xalloc_arena_bytes_max();
	info->features = IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) ? XALLOC_FEATURE_PMD : 0;
	/* Until heaps that are shared have shown what they need. */
	info->unstable = BIT_ULL(_IOC_NR(XALLOC_IOC_LIST)) | BIT_ULL(_IOC_NR(XALLOC_IOC_CLAIM)) |
			 BIT_ULL(_IOC_NR(XALLOC_IOC_META));
	return respond(user, args, sizeof(*info));
}

static long ioctl_device_stat(struct file *file, union call_args *args, void __user *user)
{
	if (args->stat.pad)
		return -EINVAL;
	xalloc_stat_all(&args->stat);
	return respond(user, args, sizeof(args->stat));
}

static long ioctl_arena_stat(struct file *file, union call_args *args, void __user *user)
{
	struct xalloc_client *client = file->private_data;

	if (args->stat.pad)
		return -EINVAL;
	if (mutex_lock_killable(&client->arena->lock))
		return -EINTR;
	xalloc_arena_stat(client->arena, &args->stat);
	mutex_unlock(&client->arena->lock);
	return respond(user, args, sizeof(args->stat));
}

/* Hands @fresh out: as a descriptor, of which the caller is told by @args. */
static long respond_file(void __user *user, const union call_args *args, u32 size, int fd,
			 struct file *fresh)
{
	int err;

	err = respond(user, args, size);
	if (err) {
		fput(fresh);
		put_unused_fd(fd);
		return err;
	}
	fd_install(fd, fresh);
	return fd;
}

static int get_config(const struct xalloc_ioc_arena_create *create,
		      struct xalloc_arena_config *config)
{
	bool on_node = create->flags & XALLOC_ARENA_NODE;

	if (create->flags & ~(XALLOC_ARENA_NODE | XALLOC_ARENA_FORK | XALLOC_ARENA_DUMP |
			      XALLOC_ARENA_PERSIST))
		return -EOPNOTSUPP;
	if (on_node ? create->node > INT_MAX : create->node)
		return -EINVAL;
	*config = (struct xalloc_arena_config){
		.arena_bytes = create->arena_bytes,
		.limit_bytes = create->limit_bytes,
		.policy = create->policy,
		.node = on_node ? create->node : NUMA_NO_NODE,
		.fork = create->flags & XALLOC_ARENA_FORK,
		.pages_persist = create->flags & XALLOC_ARENA_PERSIST,
		.is_dumped = create->flags & XALLOC_ARENA_DUMP,
	};
	return 0;
}

static u32 flags_of(const struct xalloc_arena *arena)
{
	return (arena->node == NUMA_NO_NODE ? 0 : XALLOC_ARENA_NODE) |
	       (arena->family ? XALLOC_ARENA_FORK : 0) |
	       (READ_ONCE(arena->is_dumped) ? XALLOC_ARENA_DUMP : 0) |
	       (arena->pages_persist ? XALLOC_ARENA_PERSIST : 0);
}

static long ioctl_arena_create(struct file *file, union call_args *args, void __user *user)
{
	struct xalloc_ioc_arena_create *create = &args->arena_create;
	struct xalloc_arena_config config;
	struct xalloc_client *client;
	struct file *arena_file;
	int err, fd;

	err = get_config(create, &config);
	if (err)
		return err;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		return fd;
	arena_file = xalloc_file_create(&config);
	if (IS_ERR(arena_file)) {
		put_unused_fd(fd);
		return PTR_ERR(arena_file);
	}
	client = arena_file->private_data;
	create->arena_id = client->arena->id;
	create->client_id = client->id;
	return respond_file(user, args, sizeof(*create), fd, arena_file);
}

/* In the file itself. */
static long ioctl_arena_create_named(struct file *file, union call_args *args, void __user *user)
{
	struct xalloc_ioc_arena_create *create = &args->arena_create;
	struct xalloc_client *client = file->private_data;
	struct xalloc_arena_config config;
	int err;

	err = get_config(create, &config);
	if (err)
		return err;
	if (!(file->f_mode & FMODE_WRITE))
		return -EBADF;
	/* A copy would have no name, and files that are opened by name no copy. */
	if (config.fork)
		return -EOPNOTSUPP;
	create->arena_id = client->arena->id;
	create->client_id = client->id;
	/* First, because it cannot be undone. */
	return respond(user, args, sizeof(*create)) ?: xalloc_name_define(file, &config);
}

/* Opens another file of the arena of @file; the rest of what is responded is filled in. */
static long respond_attached(void __user *user, union call_args *args, struct file *file)
{
	struct xalloc_ioc_attach *attach = &args->attach;
	struct xalloc_client *client;
	struct file *arena_file;
	int err, fd;

	/* Can the answer be written? The open may take the heir of a copy, who owns all pages. */
	err = respond(user, args, sizeof(*attach));
	if (err)
		return err;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		return fd;
	arena_file = xalloc_file_attach(file, attach->flags & XALLOC_ATTACH_RDONLY ?
						      O_RDONLY : O_RDWR);
	if (IS_ERR(arena_file)) {
		put_unused_fd(fd);
		return PTR_ERR(arena_file);
	}
	client = arena_file->private_data;
	attach->arena_id = client->arena->id;
	attach->client_id = client->id;
	attach->arena_flags = flags_of(client->arena);
	return respond_file(user, args, sizeof(*attach), fd, arena_file);
}

static long attach_mapped(union call_args *args, void __user *user)
{
	struct xalloc_ioc_attach *attach = &args->attach;
	struct file *mapped;
	bool writable;
	u64 offset;
	long rc;

	mapped = xalloc_mmap_find(attach->address, &writable, &offset);
	if (IS_ERR(mapped))
		return PTR_ERR(mapped);
	attach->offset = offset;
	rc = -EBADF;
	if (attach->flags & XALLOC_ATTACH_RDONLY || writable)
		rc = respond_attached(user, args, mapped);
	fput(mapped);
	return rc;
}

static int check_attach(const struct xalloc_ioc_attach *attach)
{
	if (attach->flags & ~XALLOC_ATTACH_RDONLY)
		return -EOPNOTSUPP;
	return attach->pad ? -EINVAL : 0;
}

static long ioctl_attach(struct file *file, union call_args *args, void __user *user)
{
	struct xalloc_ioc_attach *attach = &args->attach;
	const struct xalloc_client *client = file->private_data;
	int err = check_attach(attach);

	if (err)
		return err;
	if (attach->address)
		return attach_mapped(args, user);
	if (!(attach->flags & XALLOC_ATTACH_RDONLY) && !(file->f_mode & FMODE_WRITE))
		return -EBADF;
	/* Who has opened the file of an arena that is just being created is to try again. */
	if (xalloc_hole_is_filled(client->arena) && !i_size_read(file_inode(file)))
		return -EBUSY;
	attach->offset = 0;
	return respond_attached(user, args, file);
}

static long ioctl_device_attach(struct file *file, union call_args *args, void __user *user)
{
	int err = check_attach(&args->attach);

	if (err)
		return err;
	return args->attach.address ? attach_mapped(args, user) : -ENOTTY;
}

/* An arena that another process has. */
static long ioctl_foreign_attach(struct file *file, union call_args *args, void __user *user)
{
	return args->attach.address ? ioctl_attach(file, args, user) : -ESTALE;
}

static long ioctl_fork_prepare(struct file *file, union call_args *args, void __user *user)
{
	const struct xalloc_ioc_fork_prepare *prepare = &args->fork_prepare;
	struct xalloc_client *client = file->private_data;

	if (prepare->flags & ~XALLOC_FORK_CANCEL || !client->view)
		return -EOPNOTSUPP;
	if (!(file->f_mode & FMODE_WRITE))
		return -EBADF;
	return xalloc_view_prepare(client->view, prepare->flags & XALLOC_FORK_CANCEL);
}

static long ioctl_limit(struct file *file, union call_args *args, void __user *user)
{
	struct xalloc_client *client = file->private_data;

	if (args->limit.flags)
		return -EOPNOTSUPP;
	if (!(file->f_mode & FMODE_WRITE))
		return -EBADF;
	/* Other writers may use the memory, but not change the owner's limit. */
	if (!file_owner_or_capable(file))
		return -EPERM;
	return xalloc_arena_set_limit(client->arena, args->limit.limit_bytes);
}

static long ioctl_dump(struct file *file, union call_args *args, void __user *user)
{
	struct xalloc_client *client = file->private_data;

	if (args->dump.flags & ~XALLOC_DUMP_ON)
		return -EOPNOTSUPP;
	if (!(file->f_mode & FMODE_WRITE))
		return -EBADF;
	if (!file_owner_or_capable(file))
		return -EPERM;
	return xalloc_mmap_set_dumped(client->arena, args->dump.flags & XALLOC_DUMP_ON);
}

static long ioctl_list(struct file *file, union call_args *args, void __user *user)
{
	struct xalloc_ioc_list *list = &args->list;
	struct xalloc_client *client = file->private_data;
	struct xalloc_arena *arena = client->arena;
	struct xalloc_page_info *infos;
	u64 next;
	long rc;
	u32 nr;

	if (list->flags & ~XALLOC_LIST_ORPHANS)
		return -EOPNOTSUPP;
	if (list->pad || !list->nr || list->nr > XALLOC_BATCH_MAX)
		return -EINVAL;
	if (list->offset > (u64)arena->nr_segments * XALLOC_SEGMENT_BYTES)
		return -ERANGE;
	infos = kcalloc(list->nr, sizeof(*infos), GFP_KERNEL_ACCOUNT);
	if (!infos)
		return -ENOMEM;
	rc = -EINTR;
	if (mutex_lock_killable(&arena->lock))
		goto out;
	nr = xalloc_page_list(arena, list, infos, &next);
	mutex_unlock(&arena->lock);
	list->offset = next;
	rc = -EFAULT;
	if (!copy_to_user(u64_to_user_ptr(list->pages), infos, array_size(nr, sizeof(*infos))))
		rc = respond(user, args, sizeof(*list)) ?: nr;
out:
	kfree(infos);
	return rc;
}

/* Of a page with XALLOC_PAGE_AT, which is no longer than the arena. */
static int check_grant_at(const struct xalloc_arena *arena, const struct xalloc_page_grant *grant)
{
	u32 arena_slices = arena->nr_segments * XALLOC_SLICES_PER_SEGMENT;
	u64 slice = grant->offset / XALLOC_SLICE_BYTES;

	if (grant->offset % XALLOC_SLICE_BYTES)
		return -EINVAL;
	if (slice > arena_slices - grant->nr_slices)
		return -ERANGE;
	if (grant->align_slices && slice % grant->align_slices)
		return -EINVAL;
	/* Not inside of one segment. */
	if (grant->flags & XALLOC_PAGE_CONTIG &&
	    slice % XALLOC_SLICES_PER_SEGMENT + grant->nr_slices > XALLOC_SLICES_PER_SEGMENT)
		return -EINVAL;
	return 0;
}

/* Whether @grant is something that an arena like @arena could ever grant. */
static int check_grant(const struct xalloc_arena *arena, const struct xalloc_page_grant *grant)
{
	u32 arena_slices = arena->nr_segments * XALLOC_SLICES_PER_SEGMENT;
	bool contig = grant->flags & XALLOC_PAGE_CONTIG;

	if (grant->flags & ~(XALLOC_PAGE_CONTIG | XALLOC_PAGE_ZERO | XALLOC_PAGE_AT) ||
	    (contig && arena->policy == XALLOC_POLICY_SMALL))
		return -EOPNOTSUPP;
	if (!grant->nr_slices || grant->align_slices & (grant->align_slices - 1))
		return -EINVAL;
	if (grant->nr_slices > arena_slices || grant->align_slices > arena_slices)
		return -EFBIG;
	if (contig && grant->nr_slices > XALLOC_SLICES_PER_SEGMENT)
		return -EFBIG;
	return grant->flags & XALLOC_PAGE_AT ? check_grant_at(arena, grant) : 0;
}

static int check_batch(struct file *file, u32 flags, u32 nr, u32 pad)
{
	if (flags)
		return -EOPNOTSUPP;
	if (pad || !nr || nr > XALLOC_BATCH_MAX)
		return -EINVAL;
	if (!(file->f_mode & FMODE_WRITE))
		return -EBADF;
	return 0;
}

static long ioctl_grant(struct file *file, union call_args *args, void __user *user)
{
	struct xalloc_ioc_grant *grant = &args->grant;
	struct xalloc_client *client = file->private_data;
	void __user *pages = u64_to_user_ptr(grant->pages);
	struct xalloc_page_grant *grants;
	LIST_HEAD(granted);
	long rc;
	u32 i;

	rc = check_batch(file, grant->flags, grant->nr, grant->pad);
	if (rc)
		return rc;
	grants = memdup_user(pages, array_size(grant->nr, sizeof(*grants)));
	if (IS_ERR(grants))
		return PTR_ERR(grants);
	for (i = 0; i < grant->nr && !rc; i++)
		rc = check_grant(client->arena, &grants[i]);
	if (rc)
		goto out;
	rc = xalloc_client_grant(client, grants, grant->nr, &granted);
	if (rc < 0)
		goto out;
	if (copy_to_user(pages, grants, array_size(rc, sizeof(*grants)))) {
		xalloc_client_grant_finish(client, &granted, false);
		rc = -EFAULT;
		goto out;
	}
	xalloc_client_grant_finish(client, &granted, true);
out:
	kfree(grants);
	return rc;
}

/* What is to be freed, or -EFAULT, -ENOMEM. */
static struct xalloc_range *copy_ranges(const struct xalloc_ioc_free *free)
{
	void __user *user = u64_to_user_ptr(free->offsets);
	struct xalloc_range *ranges;
	u64 *offsets;
	u32 i;

	if (free->flags & XALLOC_FREE_RANGES)
		return memdup_user(user, array_size(free->nr, sizeof(*ranges)));
	offsets = memdup_user(user, array_size(free->nr, sizeof(*offsets)));
	if (IS_ERR(offsets))
		return ERR_CAST(offsets);
	ranges = kcalloc(free->nr, sizeof(*ranges), GFP_KERNEL_ACCOUNT);
	for (i = 0; ranges && i < free->nr; i++)
		ranges[i].offset = offsets[i];
	kfree(offsets);
	return ranges ?: ERR_PTR(-ENOMEM);
}

static long ioctl_free(struct file *file, union call_args *args, void __user *user)
{
	const struct xalloc_ioc_free *free = &args->free;
	struct xalloc_range *ranges;
	long rc;

	rc = check_batch(file, free->flags & ~(XALLOC_FREE_RANGES | XALLOC_FREE_LAZY), free->nr,
			 free->pad);
	if (rc)
		return rc;
	ranges = copy_ranges(free);
	if (IS_ERR(ranges))
		return PTR_ERR(ranges);
	rc = xalloc_client_free(file->private_data, ranges, free->nr,
				free->flags & XALLOC_FREE_LAZY);
	kfree(ranges);
	return rc;
}

static long ioctl_claim(struct file *file, union call_args *args, void __user *user)
{
	const struct xalloc_ioc_claim *claim = &args->claim;
	u64 *offsets;
	long rc;

	rc = check_batch(file, claim->flags, claim->nr, claim->pad);
	if (rc)
		return rc;
	offsets = memdup_user(u64_to_user_ptr(claim->offsets),
			      array_size(claim->nr, sizeof(*offsets)));
	if (IS_ERR(offsets))
		return PTR_ERR(offsets);
	rc = xalloc_client_claim(file->private_data, offsets, claim->nr);
	kfree(offsets);
	return rc;
}

static long ioctl_reserve(struct file *file, union call_args *args, void __user *user)
{
	struct xalloc_ioc_reserve *reserve = &args->reserve;
	struct xalloc_client *client = file->private_data;
	struct xalloc_arena *arena = client->arena;

	if (reserve->flags || arena->policy == XALLOC_POLICY_SMALL)
		return -EOPNOTSUPP;
	if (reserve->low_bytes % XALLOC_SEGMENT_BYTES ||
	    reserve->high_bytes % XALLOC_SEGMENT_BYTES || reserve->low_bytes > reserve->high_bytes)
		return -EINVAL;
	if (!(file->f_mode & FMODE_WRITE))
		return -EBADF;
	if (reserve->high_bytes > (u64)arena->nr_segments * XALLOC_SEGMENT_BYTES)
		return -EFBIG;
	xalloc_reclaim_set_reserve(arena, reserve->low_bytes / XALLOC_SEGMENT_BYTES,
				   reserve->high_bytes / XALLOC_SEGMENT_BYTES);
	return 0;
}

static long ioctl_trim(struct file *file, union call_args *args, void __user *user)
{
	struct xalloc_ioc_trim *trim = &args->trim;
	struct xalloc_client *client = file->private_data;
	struct xalloc_arena *arena = client->arena;
	u64 keep_bytes = min_t(u64, trim->keep_bytes,
			       (u64)arena->nr_segments * XALLOC_SEGMENT_BYTES);
	u32 nr_keep;
	int err;

	if (trim->flags)
		return -EOPNOTSUPP;
	if (!(file->f_mode & FMODE_WRITE))
		return -EBADF;
	/* What is given back cannot be had again. */
	err = respond(user, args, sizeof(*trim));
	if (err)
		return err;
	if (mutex_lock_killable(&arena->lock))
		return -EINTR;
	nr_keep = min_t(u64, DIV_ROUND_UP_ULL(keep_bytes, XALLOC_SEGMENT_BYTES),
			arena->reserve_high);
	trim->trimmed_bytes = (u64)xalloc_reclaim_trim(arena, nr_keep) * XALLOC_SLICE_BYTES;
	xalloc_reclaim_soon(arena);
	mutex_unlock(&arena->lock);
	return respond(user, args, sizeof(*trim));
}

static long ioctl_export(struct file *file, union call_args *args, void __user *user)
{
	if (args->export.flags)
		return -EOPNOTSUPP;
	if (!(file->f_mode & FMODE_WRITE))
		return -EBADF;
	return xalloc_dmabuf_export(file, args->export.offset, args->export.bytes);
}

static long ioctl_meta(struct file *file, union call_args *args, void __user *user)
{
	struct xalloc_ioc_meta *meta = &args->meta;
	struct xalloc_client *client = file->private_data;
	struct file *meta_file;
	u64 bytes = meta->bytes;
	int err, fd;

	if (meta->flags)
		return -EOPNOTSUPP;
	/* The first call gives the file its size for good. */
	err = respond(user, args, sizeof(*meta));
	if (err)
		return err;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		return fd;
	meta_file = xalloc_meta_open(client->arena, &bytes,
				     file->f_mode & FMODE_WRITE ? O_RDWR : O_RDONLY);
	if (IS_ERR(meta_file)) {
		put_unused_fd(fd);
		return PTR_ERR(meta_file);
	}
	meta->bytes = bytes;
	return respond_file(user, args, sizeof(*meta), fd, meta_file);
}

static const struct call calls[] = {
	CALL(XALLOC_IOC_INFO, xalloc_ioc_info, unstable, ON_ALL, ioctl_info),
	CALL(XALLOC_IOC_STAT, xalloc_ioc_stat, exported_bytes, ON_DEVICE, ioctl_device_stat),
	CALL(XALLOC_IOC_STAT, xalloc_ioc_stat, exported_bytes, ON_ARENAS, ioctl_arena_stat),
	CALL(XALLOC_IOC_ARENA_CREATE, xalloc_ioc_arena_create, client_id, ON_DEVICE,
	     ioctl_arena_create),
	CALL(XALLOC_IOC_ARENA_CREATE, xalloc_ioc_arena_create, client_id, ON_ARENAS,
	     ioctl_arena_create_named),
	CALL(XALLOC_IOC_GRANT, xalloc_ioc_grant, pages, ON_ARENA, ioctl_grant),
	CALL(XALLOC_IOC_FREE, xalloc_ioc_free, offsets, ON_ARENA, ioctl_free),
	CALL(XALLOC_IOC_RESERVE, xalloc_ioc_reserve, high_bytes, ON_ARENA, ioctl_reserve),
	CALL(XALLOC_IOC_TRIM, xalloc_ioc_trim, trimmed_bytes, ON_ARENAS, ioctl_trim),
	CALL(XALLOC_IOC_ATTACH, xalloc_ioc_attach, pad, ON_ARENAS, ioctl_attach),
	CALL(XALLOC_IOC_ATTACH, xalloc_ioc_attach, pad, ON_DEVICE, ioctl_device_attach),
	CALL(XALLOC_IOC_ATTACH, xalloc_ioc_attach, pad, ON_FOREIGN, ioctl_foreign_attach),
	CALL(XALLOC_IOC_LIMIT, xalloc_ioc_limit, limit_bytes, ON_ARENAS, ioctl_limit),
	CALL(XALLOC_IOC_LIST, xalloc_ioc_list, pages, ON_ARENAS, ioctl_list),
	CALL(XALLOC_IOC_CLAIM, xalloc_ioc_claim, offsets, ON_ARENA, ioctl_claim),
	CALL(XALLOC_IOC_EXPORT, xalloc_ioc_export, bytes, ON_ARENAS, ioctl_export),
	CALL(XALLOC_IOC_FORK_PREPARE, xalloc_ioc_fork_prepare, flags, ON_ARENAS,
	     ioctl_fork_prepare),
	CALL(XALLOC_IOC_META, xalloc_ioc_meta, bytes, ON_ARENAS, ioctl_meta),
	CALL(XALLOC_IOC_DUMP, xalloc_ioc_dump, flags, ON_ARENA, ioctl_dump),
};

#define CMD_BUT_SIZE(cmd) ((cmd) & ~(_IOC_SIZEMASK << _IOC_SIZESHIFT))

static const struct call *find_call(unsigned int cmd, u32 on)
{
	const struct call *call;

	for (call = calls; call < calls + ARRAY_SIZE(calls); call++)
		if (CMD_BUT_SIZE(call->cmd) == CMD_BUT_SIZE(cmd) && call->on & on)
			return call;
	return NULL;
}

static long do_call(struct file *file, unsigned int cmd, void __user *user, u32 on)
{
	const struct call *call = find_call(cmd, on);
	union call_args args;
	u32 size;
	int err;

	if (!call && find_call(cmd, ON_ARENA))
		return on == ON_FILE ? -EOPNOTSUPP : on == ON_FOREIGN ? -ESTALE : -ENOTTY;
	if (!call)
		return -ENOTTY;
	if (get_user(size, (u32 __user *)user))
		return -EFAULT;
	if (size < call->min_size)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	memset(&args, 0, sizeof(args));
	err = copy_struct_from_user(&args, call->size, user, size);
	if (err)
		return err;
	/* Another thread may have changed it between the two reads. */
	args.size = size;
	return call->handler(file, &args, user);
}

/** xalloc_device_ioctl() - the calls on /dev/xalloc */
long xalloc_device_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return do_call(file, cmd, (void __user *)arg, ON_DEVICE);
}

/** xalloc_arena_ioctl() - the calls on an arena */
long xalloc_arena_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	const struct xalloc_client *client = file->private_data;
	u32 on = ON_ARENA;

	if (xalloc_hole_is_filled(client->arena))
		on = ON_FILE;
	else if (client->view && client->view->mm != current->mm)
		on = ON_FOREIGN;
	return do_call(file, cmd, (void __user *)arg, on);
}
