// SPDX-License-Identifier: MIT
/*
 * Arenas of this process alone: anonymous memory, placed as the kernel places it, or adopted
 * memory.
 *
 * The memory of a segment counts as committed, against the arena's limit, while a slice of it
 * is granted; then it goes back, or a little of it is kept, until the limit leaves
 * no room for a grant. It is ordinary memory: not pinned, charged to nobody, and without a
 * descriptor. A child of fork() does not have it, as with the device. Adopted memory is committed
 * from the start and never given back.
 */
#include <errno.h>
#include <string.h>

#include "placement.h"
#include "backend.h"
#include "os.h"
#include "zone.h"

/*
 * So much of an arena has small pages, which the kernel provides one by one: what needs little is
 * not to have 2 MiB for the first byte of each segment.
 */
#define SMALL_BYTES ((size_t)16 << 20)

#define NR_KEPT_MAX (XL_LOCAL_KEEP / XL_SEGMENT)
#define SLICES_MAX ((size_t)XALLOC_PLACEMENT_SEGMENTS_MAX * XALLOC_SLICES_PER_SEGMENT)

/* In private memory of a size of its own; under xalloc_arena.lock. */
struct xl_local {
	struct xalloc_placement placement;
	uint64_t nr_committed; /* segments */
	uint64_t nr_granted;   /* slices */
	uint32_t nr_kept;
	uint32_t kept[NR_KEPT_MAX]; /* segments that are committed though no slice is granted */
	uint32_t *dirty;            /* of a segment: bit n: slice n was granted since it was zero */
};

void *xalloc_placement_alloc(size_t bytes)
{
	unsigned int pool =
		bytes == sizeof(struct xalloc_placement_node) ? XL_POOL_NODE : XL_POOL_SEGMENT;
	uint64_t *table = xl_meta_get(pool, bytes + XL_QUANTUM);

	if (!table)
		return NULL;
	memset(table, 0, bytes + XL_QUANTUM);
	/* Behind the link of the pool. */
	table[1] = pool;
	return table + 2;
}

void xalloc_placement_free(void *memory)
{
	uint64_t *table = (uint64_t *)memory - 2;

	xl_meta_put(table[1], table);
}

static int local_bytes_max(size_t *bytes)
{
	*bytes = SLICES_MAX * XL_SLICE;
	return 0;
}

static size_t dirty_bytes(const struct xalloc_arena *arena)
{
	return arena->bytes / XL_SEGMENT * sizeof(uint32_t);
}

/* With @arena->bytes. Returns 0 or -errno. */
static int init(struct xalloc_arena *arena)
{
	static atomic_ulong last_id;
	struct xl_local *local = xl_meta_get(XL_POOL_LOCAL, sizeof(*local));

	if (!local)
		return -ENOMEM;
	memset(local, 0, sizeof(*local));
	local->dirty = xl_os_sparse(dirty_bytes(arena));
	if (!local->dirty) {
		xl_meta_put(XL_POOL_LOCAL, local);
		return -ENOMEM;
	}
	xalloc_placement_init(&local->placement, arena->bytes / XL_SEGMENT);
	arena->local = local;
	arena->fd = -EOPNOTSUPP;
	arena->id = atomic_fetch_add(&last_id, 1) + 1;
	return 0;
}

static int local_create(struct xalloc_arena *arena, const struct xalloc_arena_config *config)
{
	if (config->path || config->flags & ~XALLOC_DUMP || config->pages == XALLOC_PAGES_SMALL ||
	    config->reserve_high_bytes)
		return -EOPNOTSUPP;
	if (arena->bytes > SLICES_MAX * XL_SLICE)
		return -EFBIG;
	return init(arena);
}

static void local_destroy(struct xalloc_arena *arena)
{
	xalloc_placement_fini(&arena->local->placement);
	xl_os_unmap(arena->local->dirty, dirty_bytes(arena));
	xl_meta_put(XL_POOL_LOCAL, arena->local);
}

/* What of the first and the last segment is not adopted, nobody is granted. */
int xl_local_adopt(struct xalloc_arena *arena)
{
	uint32_t nr_before = (uintptr_t)arena->blocks.iov_base % XL_SEGMENT / XL_SLICE;
	uint32_t end = nr_before + arena->blocks.iov_len / XL_SLICE;
	uint32_t nr_slices = arena->bytes / XL_SLICE;
	struct xl_local *local;
	int ret;

	if (arena->bytes > SLICES_MAX * XL_SLICE)
		return -EFBIG;
	ret = init(arena);
	if (ret)
		return ret;
	local = arena->local;
	memset(local->dirty, 0xff, arena->bytes / XL_SEGMENT * sizeof(*local->dirty));
	if (nr_before)
		ret = xalloc_placement_take_at(&local->placement, 0, nr_before);
	if (!ret && end < nr_slices)
		ret = xalloc_placement_take_at(&local->placement, end, nr_slices - end);
	if (ret)
		local_destroy(arena);
	return ret;
}

static void adopted_destroy(struct xalloc_arena *arena)
{
	xl_adopted_del(arena);
	local_destroy(arena);
}

static int local_map(struct xalloc_arena *arena, uint64_t offset, size_t bytes)
{
	return xl_os_map_anonymous((char *)arena->base + offset, bytes,
				   offset < SMALL_BYTES ? SMALL_BYTES - offset : 0);
}

/* Only notes where the memory lies. */
static int adopted_map(struct xalloc_arena *arena, uint64_t offset, size_t bytes)
{
	(void)offset;
	(void)bytes;
	return xl_adopted_add(arena);
}

/* Calls @visit for each segment of the run with the bits of the run's slices in it. */
static void each_segment(struct xalloc_arena *arena, uint32_t slice, uint32_t nr_slices,
			 void (*visit)(struct xalloc_arena *arena, uint32_t segment, uint32_t mask,
				       void *arg),
			 void *arg)
{
	uint32_t first = slice / XALLOC_SLICES_PER_SEGMENT;
	uint32_t last = (slice + nr_slices - 1) / XALLOC_SLICES_PER_SEGMENT;
	uint32_t segment;

	for (segment = first; segment <= last; segment++)
		visit(arena, segment, xalloc_placement_mask(segment, slice, nr_slices), arg);
}

static bool is_bare(struct xl_local *local, uint32_t segment)
{
	return xalloc_placement_backing(&local->placement, segment) == XALLOC_BACKING_BARE;
}

static void count_bare(struct xalloc_arena *arena, uint32_t segment, uint32_t mask, void *arg)
{
	uint64_t *nr = arg;

	(void)mask;
	*nr += is_bare(arena->local, segment);
}

static void commit(struct xalloc_arena *arena, uint32_t segment, uint32_t mask, void *arg)
{
	struct xl_local *local = arena->local;
	bool *zero = arg;
	uint32_t i;

	/* Cannot fail: slices of it are taken. */
	if (is_bare(local, segment)) {
		xalloc_placement_set_backing(&local->placement, segment, XALLOC_BACKING_HUGE);
		local->nr_committed++;
	}
	for (i = 0; i < local->nr_kept; i++)
		if (local->kept[i] == segment)
			local->kept[i] = local->kept[--local->nr_kept];
	*zero = *zero && !(local->dirty[segment] & mask);
	local->dirty[segment] |= mask;
}

/* What could not be mapped was not written to, and something of others may be there. */
static void zero_mapped(uintptr_t from, uintptr_t end)
{
	uintptr_t to;

	for (; from < end; from = to) {
		for (to = from; to < end && xl_zone_is_mapped(to); to += XL_SEGMENT)
			;
		if (to > from)
			xl_os_zero((void *)from, to - from);
		else
			to += XL_SEGMENT;
	}
}

/*
 * Gives the memory of @nr whole segments from @first on back. Lets the lock go meanwhile: until
 * then nobody can be granted a slice of them.
 */
static void uncommit(struct xalloc_arena *arena, uint32_t first, uint32_t nr)
{
	struct xl_local *local = arena->local;
	uint32_t i;

	/* Cannot fail: they have records. */
	for (i = first; i < first + nr; i++)
		xalloc_placement_take_at(&local->placement, i * XALLOC_SLICES_PER_SEGMENT,
					 XALLOC_SLICES_PER_SEGMENT);
	pthread_mutex_unlock(&arena->lock);
	zero_mapped(arena->base + first * XL_SEGMENT, arena->base + (first + nr) * XL_SEGMENT);
	pthread_mutex_lock(&arena->lock);
	for (i = first; i < first + nr; i++) {
		local->dirty[i] = 0;
		xalloc_placement_set_backing(&local->placement, i, XALLOC_BACKING_BARE);
		local->nr_committed--;
		xalloc_placement_give(&local->placement, i * XALLOC_SLICES_PER_SEGMENT,
				      XALLOC_SLICES_PER_SEGMENT);
	}
}

/* In segments: a third of what is granted, so that little is kept of little. */
static uint32_t kept_most(const struct xalloc_arena *arena)
{
	size_t most = xl_round_up(arena->local->nr_granted * XL_SLICE / 3, XL_SEGMENT);

	return (most < arena->keep_bytes ? most : arena->keep_bytes) / XL_SEGMENT;
}

/*
 * Of a run that was freed: keeps what may be kept of its whole segments, and gives the rest back.
 */
static void uncommit_whole(struct xalloc_arena *arena, uint32_t slice, uint32_t nr_slices)
{
	uint32_t segment = slice / XALLOC_SLICES_PER_SEGMENT, first = 0, nr = 0;
	uint32_t last = (slice + nr_slices - 1) / XALLOC_SLICES_PER_SEGMENT;
	struct xl_local *local = arena->local;

	for (; segment <= last && !arena->adopted; segment++) {
		if (is_bare(local, segment) ||
		    !xalloc_placement_is_whole(&local->placement, segment))
			continue;
		if (local->nr_kept < kept_most(arena)) {
			local->kept[local->nr_kept++] = segment;
			continue;
		}
		/* Those inside of the run are whole, so there is no gap. */
		if (!nr)
			first = segment;
		nr++;
	}
	if (nr)
		uncommit(arena, first, nr);
	while (local->nr_kept > kept_most(arena))
		uncommit(arena, local->kept[--local->nr_kept], 1);
}

enum how {
	ANYWHERE,
	FRUGALLY, /* where it needs the least memory */
	AT,       /* at *@slice and nowhere else */
};

/* Takes a run within the limit. */
static int take(struct xalloc_arena *arena, uint32_t nr_slices, enum how how, uint32_t *slice)
{
	struct xalloc_placement_request request = { .nr_slices = nr_slices };
	struct xl_local *local = arena->local;
	uint64_t nr_bare = 0;
	int ret;

	/* To take what is not free would mean that the placement is corrupt. */
	if (how == AT && !xalloc_placement_is_free(&local->placement, *slice, nr_slices))
		return -EEXIST;
	if (how == AT)
		ret = xalloc_placement_take_at(&local->placement, *slice, nr_slices);
	else if (how == FRUGALLY)
		ret = xalloc_placement_take_frugal(&local->placement, &request, slice);
	else
		ret = xalloc_placement_take(&local->placement, &request, slice);
	if (ret)
		return ret;
	each_segment(arena, *slice, nr_slices, count_bare, &nr_bare);
	if ((local->nr_committed + nr_bare) * XL_SEGMENT <= arena->limit_bytes)
		return 0;
	xalloc_placement_give(&local->placement, *slice, nr_slices);
	return -EDQUOT;
}

static int local_grant(struct xalloc_arena *arena, uint32_t nr_slices, uint64_t tag,
		       struct xl_grant *grant)
{
	struct xl_local *local = arena->local;
	uint32_t slice = grant->at ? grant->offset / XL_SLICE : 0;
	enum how how = grant->at ? AT : FRUGALLY;
	bool zero = true;
	int ret;

	(void)tag;
	if (nr_slices > arena->bytes / XL_SLICE)
		return -EFBIG;
	xl_meta_ready(nr_slices);
	pthread_mutex_lock(&arena->lock);
	ret = take(arena, nr_slices, grant->at ? AT : ANYWHERE, &slice);
	if (ret == -EDQUOT && nr_slices > 1)
		ret = take(arena, nr_slices, how, &slice);
	while (ret == -EDQUOT && local->nr_kept) {
		uncommit(arena, local->kept[--local->nr_kept], 1);
		ret = take(arena, nr_slices, how, &slice);
	}
	if (!ret) {
		each_segment(arena, slice, nr_slices, commit, &zero);
		local->nr_granted += nr_slices;
		*grant = (struct xl_grant){
			.offset = slice * XL_SLICE,
			.zero = zero,
			.huge = true,
		};
	}
	pthread_mutex_unlock(&arena->lock);
	return ret;
}

static int free_one(struct xalloc_arena *arena, const struct xalloc_range *page)
{
	uint32_t slice = page->offset / XL_SLICE, nr_slices = page->bytes / XL_SLICE;
	struct xl_local *local = arena->local;
	int ret;

	ret = xalloc_placement_give(&local->placement, slice, nr_slices);
	if (ret)
		return ret;
	local->nr_granted -= nr_slices;
	uncommit_whole(arena, slice, nr_slices);
	return 0;
}

static int local_free(struct xalloc_arena *arena, const struct xalloc_range *pages, uint32_t nr)
{
	uint32_t done;
	int ret = 0;

	pthread_mutex_lock(&arena->lock);
	for (done = 0; done < nr && !ret; done++)
		ret = free_one(arena, &pages[done]);
	pthread_mutex_unlock(&arena->lock);
	if (!ret)
		return nr;
	return done > 1 ? (int)done - 1 : ret;
}

static void local_trim(struct xalloc_arena *arena)
{
	struct xl_local *local = arena->local;

	pthread_mutex_lock(&arena->lock);
	while (local->nr_kept)
		uncommit(arena, local->kept[--local->nr_kept], 1);
	pthread_mutex_unlock(&arena->lock);
}

static int local_stat(struct xalloc_arena *arena, struct xalloc_arena_stat *stat)
{
	struct xl_local *local = arena->local;

	pthread_mutex_lock(&arena->lock);
	stat->committed_bytes =
		arena->adopted ? arena->blocks.iov_len : local->nr_committed * XL_SEGMENT;
	stat->granted_bytes = local->nr_granted * XL_SLICE;
	pthread_mutex_unlock(&arena->lock);
	return 0;
}

const struct xl_backend xl_local_backend = {
	.bytes_max = local_bytes_max,
	.create = local_create,
	.destroy = local_destroy,
	.map = local_map,
	.grant = local_grant,
	.free = local_free,
	.stat = local_stat,
	.trim = local_trim,
};

const struct xl_backend xl_adopted_backend = {
	.destroy = adopted_destroy,
	.map = adopted_map,
	.grant = local_grant,
	.free = local_free,
	.stat = local_stat,
};
