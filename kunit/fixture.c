// SPDX-License-Identifier: GPL-2.0-only
#include <linux/file.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "fixture.h"

/*
 * The real backing, with an allocation that fails and a look at what is given back.
 * One for all cases, which run one after the other.
 */
u32 fx_backing_countdown;
void (*fx_backing_meanwhile)(struct xalloc_arena *arena);
bool fx_backing_then_fail;
bool fx_backing_no_huge;
struct completion *fx_backing_zero_waits;
void (*fx_backing_once_freed)(void);
u32 fx_backing_nr_freed;
static u32 nr_given_back_pinned;

static struct folio *backing_alloc(const struct xalloc_arena *arena, unsigned int order,
				   pgoff_t index, bool *warm)
{
	void (*meanwhile)(struct xalloc_arena *arena) = fx_backing_meanwhile;
	struct folio *folio;

	fx_backing_meanwhile = NULL;
	if (meanwhile)
		meanwhile((struct xalloc_arena *)arena);
	if (fx_backing_countdown && !--fx_backing_countdown)
		return NULL;
	if (fx_backing_no_huge && order == XALLOC_SEGMENT_ORDER)
		return NULL;
	folio = xalloc_backing_kernel.alloc(arena, order, index, warm);
#ifdef CONFIG_FAULT_INJECTION
	current->make_it_fail = fx_backing_then_fail;
#endif
	return folio;
}

static void backing_free(struct folio *folio)
{
	void (*once)(void) = fx_backing_once_freed;

	fx_backing_once_freed = NULL;
	if (folio_ref_count(folio) != xalloc_backing_nr_refs(folio))
		nr_given_back_pinned++;
	xalloc_backing_kernel.free(folio);
	fx_backing_nr_freed++;
	if (once)
		once();
}

static void backing_zero(struct folio *folio)
{
	struct completion *wait = READ_ONCE(fx_backing_zero_waits);

	if (wait)
		wait_for_completion(wait);
	xalloc_backing_kernel.zero(folio);
}

static const struct xalloc_backing backing = {
	.alloc = backing_alloc,
	.free = backing_free,
	.zero = backing_zero,
};

/* As for a task that is being killed. */
void fx_kill(void)
{
	sigaddset(&current->pending.signal, SIGKILL);
	set_thread_flag(TIF_SIGPENDING);
}

void fx_revive(void)
{
	sigdelset(&current->pending.signal, SIGKILL);
	clear_thread_flag(TIF_SIGPENDING);
}

long fx_counted(struct fixture *fx, enum xalloc_counter counter)
{
	return xalloc_counted(counter) - fx->before[counter];
}

bool fx_nothing_counted(struct fixture *fx)
{
	int i;

	for (i = 0; i < XALLOC_NR_ARENA_COUNTERS; i++)
		if (fx_counted(fx, i))
			return false;
	return true;
}

struct xalloc_arena *fx_create_arena(u64 arena_bytes, u64 limit_bytes, u32 policy)
{
	const struct xalloc_arena_config config = {
		.arena_bytes = arena_bytes,
		.limit_bytes = limit_bytes,
		.policy = policy,
		.node = NUMA_NO_NODE,
	};

	return xalloc_arena_create(&config);
}

struct file *fx_create_file(u64 arena_bytes, u64 limit_bytes)
{
	const struct xalloc_arena_config config = {
		.arena_bytes = arena_bytes,
		.limit_bytes = limit_bytes,
		.node = NUMA_NO_NODE,
	};

	return xalloc_file_create(&config);
}

/* An xallocfs for the case. 0: without size=. */
static void make_mount(struct kunit *test, u64 limit_bytes)
{
	struct file_system_type *type = get_fs_type("xallocfs");
	struct fixture *fx = test->priv;
	struct vfsmount *mount;
	char options[32];

	KUNIT_ASSERT_NOT_NULL(test, type);
	snprintf(options, sizeof(options), "size=%llu", limit_bytes);
	mount = vfs_kern_mount(type, SB_KERNMOUNT, "xallocfs", limit_bytes ? options : NULL);
	module_put(type->owner);
	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(mount), 0);
	fx->mount = mount;
}

/* An arena whose memory is of no mapping, as those of heaps are. */
static struct xalloc_arena *make_unmappable(struct kunit *test, u32 nr_segments,
					    u32 limit_segments, u32 policy)
{
	struct fixture *fx = test->priv;
	struct xalloc_arena *arena;

	arena = fx_create_arena(nr_segments * (u64)XALLOC_SEGMENT_BYTES,
				limit_segments * (u64)XALLOC_SEGMENT_BYTES, policy);
	KUNIT_ASSERT_FALSE(test, IS_ERR(arena));
	arena->backing = &backing;
	fx->arena = arena;
	return arena;
}

struct xalloc_arena *fx_make_unmappable(struct kunit *test, u32 nr_segments, u32 limit_segments)
{
	return make_unmappable(test, nr_segments, limit_segments, XALLOC_POLICY_HUGE);
}

/* An inode as that of a file, which has no client. */
static void give_inode(struct kunit *test, struct xalloc_arena *arena)
{
	struct fixture *fx = test->priv;
	struct inode *inode;

	if (!fx->mount)
		make_mount(test, 0);
	inode = alloc_anon_inode(fx->mount->mnt_sb);
	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(inode), 0);
	inode->i_mode |= S_IFREG;
	i_size_write(inode, arena->nr_segments * (loff_t)XALLOC_SEGMENT_BYTES);
	xalloc_backing_init_inode(inode);
	fx->inode = inode;
	arena->mapping = inode->i_mapping;
}

struct xalloc_arena *fx_make_arena_by(struct kunit *test, u32 nr_segments, u32 limit_segments,
				      u32 policy)
{
	struct xalloc_arena *arena;

	arena = make_unmappable(test, nr_segments, limit_segments, policy);
	give_inode(test, arena);
	return arena;
}

struct xalloc_arena *fx_make_arena(struct kunit *test, u32 nr_segments, u32 limit_segments)
{
	return fx_make_arena_by(test, nr_segments, limit_segments, XALLOC_POLICY_HUGE);
}

/* An arena whose pages outlive their clients. */
struct xalloc_arena *fx_make_persistent(struct kunit *test, u32 nr_segments)
{
	struct xalloc_arena *arena = fx_make_arena(test, nr_segments, 0);

	arena->pages_persist = true;
	return arena;
}

/* An arena of 32 segments that can be copied, on the kernel's own backing. */
struct xalloc_arena *fx_make_family(struct kunit *test, u32 limit_segments, u32 policy)
{
	const struct xalloc_arena_config config = {
		.arena_bytes = FX_MIB(64),
		.limit_bytes = limit_segments * (u64)XALLOC_SEGMENT_BYTES,
		.policy = policy,
		.node = NUMA_NO_NODE,
		.fork = true,
	};
	struct fixture *fx = test->priv;
	struct xalloc_arena *arena = xalloc_arena_create(&config);

	KUNIT_ASSERT_FALSE(test, IS_ERR(arena));
	fx->arena = arena;
	give_inode(test, arena);
	return arena;
}

/* A file of the xallocfs, which is made if it is not there. */
struct file *fx_open_name(struct kunit *test, const char *name)
{
	struct fixture *fx = test->priv;
	const struct path root = { .mnt = fx->mount, .dentry = fx->mount->mnt_root };
	struct file *file = file_open_root(&root, name, O_RDWR | O_CREAT, 0600);
	struct xalloc_client *client;

	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(file), 0);
	client = file->private_data;
	client->arena->backing = &backing;
	return file;
}

/* A file of an xallocfs with that limit, or with none, and its arena, which fills holes. */
struct xalloc_arena *fx_make_name(struct kunit *test, u64 limit_bytes)
{
	struct fixture *fx = test->priv;
	struct xalloc_client *client;

	make_mount(test, limit_bytes);
	fx->file = fx_open_name(test, "file");
	client = fx->file->private_data;
	fx->arena = client->arena;
	return fx->arena;
}

/* The current task's user pays, for @more_segments at most. */
void fx_make_payer(struct xalloc_arena *arena, u32 more_segments)
{
	struct user_struct *user = get_uid(current_user());

	arena->payer.user = user;
	arena->payer.limit_kpages = atomic_long_read(&user->locked_vm) +
				    more_segments * XALLOC_SEGMENT_KPAGES;
}

void fx_drop_arena(struct kunit *test)
{
	struct fixture *fx = test->priv;

	xalloc_arena_destroy(fx->arena);
	fx->arena = NULL;
	iput(fx->inode);
	fx->inode = NULL;
}

struct xalloc_client *fx_make_client(struct kunit *test)
{
	struct fixture *fx = test->priv;
	u32 i;

	for (i = 0; i < FX_NR_CLIENTS && fx->clients[i]; i++)
		;
	KUNIT_ASSERT_LT(test, i, FX_NR_CLIENTS);
	fx->clients[i] = xalloc_client_create(fx->arena);
	if (IS_ERR(fx->clients[i]))
		fx->clients[i] = NULL;
	KUNIT_ASSERT_NOT_NULL(test, fx->clients[i]);
	return fx->clients[i];
}

void fx_drop_client(struct kunit *test, struct xalloc_client *client)
{
	struct fixture *fx = test->priv;
	u32 i;

	for (i = 0; i < FX_NR_CLIENTS; i++)
		if (fx->clients[i] == client)
			fx->clients[i] = NULL;
	xalloc_client_destroy(client);
}

struct folio *fx_folio_at(struct xalloc_arena *arena, u32 slice)
{
	struct xalloc_segment *seg = xa_load(&arena->segments, slice / XALLOC_SLICES_PER_SEGMENT);

	return seg ? seg->folio[slice % XALLOC_SLICES_PER_SEGMENT] : NULL;
}

/* A reference from outside to the memory of a segment's first slice. */
struct folio *fx_pin(struct kunit *test, u32 index)
{
	return fx_pin_slice(test, index * XALLOC_SLICES_PER_SEGMENT);
}

struct folio *fx_pin_slice(struct kunit *test, u32 slice)
{
	struct fixture *fx = test->priv;
	struct folio *folio = fx_folio_at(fx->arena, slice);
	u32 i;

	for (i = 0; i < FX_NR_PINS && fx->pins[i]; i++)
		;
	KUNIT_ASSERT_LT(test, i, FX_NR_PINS);
	KUNIT_ASSERT_NOT_NULL(test, folio);
	folio_get(folio);
	fx->pins[i] = folio;
	return folio;
}

void fx_unpin(struct kunit *test, struct folio *folio)
{
	struct fixture *fx = test->priv;
	u32 i;

	for (i = 0; i < FX_NR_PINS && fx->pins[i] != folio; i++)
		;
	KUNIT_ASSERT_LT(test, i, FX_NR_PINS);
	fx->pins[i] = NULL;
	folio_put(folio);
}

/* Grants and keeps. Returns how many were granted, or the error of the first. */
int fx_grant_batch(struct xalloc_client *client, struct xalloc_page_grant *grants, u32 nr)
{
	LIST_HEAD(granted);
	int rc = xalloc_client_grant(client, grants, nr, &granted);

	if (rc > 0)
		xalloc_client_grant_finish(client, &granted, true);
	return rc;
}

int fx_grant(struct xalloc_client *client, u32 nr_slices, u32 flags,
	     struct xalloc_page_grant *got)
{
	int rc;

	*got = (struct xalloc_page_grant){ .nr_slices = nr_slices, .flags = flags };
	rc = fx_grant_batch(client, got, 1);
	return rc == 1 ? 0 : rc;
}

/* The first slice of a new page, or an error. */
int fx_grant_at(struct xalloc_client *client, u32 nr_slices, u32 flags)
{
	struct xalloc_page_grant got;
	int err = fx_grant(client, nr_slices, flags, &got);

	return err ?: got.offset / XALLOC_SLICE_BYTES;
}

int fx_free_offset(struct xalloc_client *client, u64 offset)
{
	const struct xalloc_range range = { .offset = offset };
	int rc = xalloc_client_free(client, &range, 1, false);

	return rc == 1 ? 0 : rc;
}

int fx_free_at(struct xalloc_client *client, u32 slice)
{
	return fx_free_offset(client, slice * (u64)XALLOC_SLICE_BYTES);
}

int fx_free_lazily_at(struct xalloc_client *client, u32 slice)
{
	const struct xalloc_range range = { .offset = slice * (u64)XALLOC_SLICE_BYTES };
	int rc = xalloc_client_free(client, &range, 1, true);

	return rc == 1 ? 0 : rc;
}

void *fx_slice_memory(struct xalloc_arena *arena, u32 slice)
{
	struct xalloc_segment *seg = xa_load(&arena->segments, slice / XALLOC_SLICES_PER_SEGMENT);

	return page_address(xalloc_segment_kpage(seg, slice % XALLOC_SLICES_PER_SEGMENT));
}

bool fx_is_zero(struct xalloc_arena *arena, u32 slice, u32 nr_slices)
{
	u32 i;

	for (i = slice; i < slice + nr_slices; i++)
		if (memchr_inv(fx_slice_memory(arena, i), 0, XALLOC_SLICE_BYTES))
			return false;
	return true;
}

void fx_fill(struct xalloc_arena *arena, u32 slice, u32 nr_slices)
{
	u32 i;

	for (i = slice; i < slice + nr_slices; i++)
		memset(fx_slice_memory(arena, i), 0x5a, XALLOC_SLICE_BYTES);
}

/* Whether the fault would map the segment, or its first slice. */
bool fx_faults_in(struct xalloc_arena *arena, u32 index)
{
	return fx_slice_faults_in(arena, index * XALLOC_SLICES_PER_SEGMENT);
}

bool fx_slice_faults_in(struct xalloc_arena *arena, u32 slice)
{
	struct folio *folio = xalloc_segment_lock_folio(arena, slice);

	if (!folio)
		return false;
	folio_unlock(folio);
	folio_put(folio);
	return true;
}

static struct fx_alive alive_of(const struct xalloc_ioc_stat *stat)
{
	return (struct fx_alive){
		.nr_pages = stat->pages,
		.nr_granted_slices = stat->granted_bytes / XALLOC_SLICE_BYTES,
		.nr_committed = stat->committed_bytes / XALLOC_SEGMENT_BYTES,
		.nr_idle = (stat->pinned_bytes + stat->reserved_bytes) / XALLOC_SEGMENT_BYTES,
		.nr_reserved = stat->reserved_bytes / XALLOC_SEGMENT_BYTES,
		.nr_small_slices = stat->small_bytes / XALLOC_SLICE_BYTES,
		.nr_cold_slices = stat->cold_bytes / XALLOC_SLICE_BYTES,
	};
}

/* What the arena says, also while its worker gives it memory. */
struct fx_alive fx_seen(struct kunit *test)
{
	struct fixture *fx = test->priv;
	struct xalloc_ioc_stat stat = {};

	mutex_lock(&fx->arena->lock);
	xalloc_arena_stat(fx->arena, &stat);
	mutex_unlock(&fx->arena->lock);
	return alive_of(&stat);
}

/*
 * The same, where the module's counters must agree. They count memory when it has come, the arena
 * counts it when it is asked for, so no worker may be at it.
 */
struct fx_alive fx_alive(struct kunit *test)
{
	struct fixture *fx = test->priv;
	struct xalloc_ioc_stat stat = {};

	mutex_lock(&fx->arena->lock);
	xalloc_arena_stat(fx->arena, &stat);
	KUNIT_EXPECT_EQ(test, stat.pages, fx_counted(fx, XALLOC_NR_PAGES));
	KUNIT_EXPECT_EQ(test, stat.granted_bytes,
			fx_counted(fx, XALLOC_NR_GRANTED_SLICES) * XALLOC_SLICE_BYTES);
	KUNIT_EXPECT_EQ(test, stat.committed_bytes,
			fx_counted(fx, XALLOC_NR_COMMITTED_SLICES) * XALLOC_SLICE_BYTES);
	KUNIT_EXPECT_EQ(test, stat.reserved_bytes,
			fx_counted(fx, XALLOC_NR_RESERVED_SLICES) * XALLOC_SLICE_BYTES);
	KUNIT_EXPECT_EQ(test, stat.pinned_bytes + stat.reserved_bytes,
			fx_counted(fx, XALLOC_NR_IDLE_SLICES) * XALLOC_SLICE_BYTES);
	KUNIT_EXPECT_EQ(test, stat.charged_bytes,
			fx_counted(fx, XALLOC_NR_CHARGED_SLICES) * XALLOC_SLICE_BYTES);
	KUNIT_EXPECT_EQ(test, stat.clients, fx_counted(fx, XALLOC_NR_CLIENTS));
	KUNIT_EXPECT_EQ(test, stat.arenas, 1);
	mutex_unlock(&fx->arena->lock);
	return alive_of(&stat);
}

int fx_init(struct kunit *test)
{
	struct fixture *fx = kunit_kzalloc(test, sizeof(*fx), GFP_KERNEL);
	int i;

	if (!fx)
		return -ENOMEM;
	for (i = 0; i < XALLOC_NR_COUNTERS; i++)
		fx->before[i] = xalloc_counted(i);
	fx_backing_countdown = 0;
	fx_backing_meanwhile = NULL;
	fx_backing_then_fail = false;
	fx_backing_no_huge = false;
	nr_given_back_pinned = 0;
	test->priv = fx;
	return 0;
}

/* Whatever a case has left, in the order in which it would go. */
void fx_drop_all(struct fixture *fx)
{
	u32 i;

	for (i = 0; i < FX_NR_PINS; i++)
		if (fx->pins[i])
			folio_put(fx->pins[i]);
	for (i = 0; i < FX_NR_CLIENTS; i++)
		if (fx->clients[i])
			xalloc_client_destroy(fx->clients[i]);
	if (fx->file)
		fput(fx->file);
	else if (fx->arena)
		xalloc_arena_destroy(fx->arena);
	flush_delayed_fput();
	iput(fx->inode);
	mntput(fx->mount);
	memset(fx->pins, 0, sizeof(fx->pins));
	memset(fx->clients, 0, sizeof(fx->clients));
	fx->arena = NULL;
	fx->file = NULL;
	fx->inode = NULL;
	fx->mount = NULL;
}

void fx_exit(struct kunit *test)
{
	struct fixture *fx = test->priv;
	u32 i;

	if (!fx)
		return;
	fx_drop_all(fx);
	KUNIT_EXPECT_TRUE(test, fx_wait_for(fx_nothing_counted(fx)));
	for (i = 0; i < XALLOC_NR_ARENA_COUNTERS; i++)
		KUNIT_EXPECT_EQ_MSG(test, fx_counted(fx, i), 0, "counter %u after the end", i);
	KUNIT_EXPECT_EQ(test, nr_given_back_pinned, 0);
}

