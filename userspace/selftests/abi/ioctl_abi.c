// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: what every call on /dev/xalloc and on arenas makes of structures of other
 * sizes, unknown flags, padding, bad pointers and wrong descriptors; and that a call that was
 * refused granted, freed and created nothing.
 */
#include "argument.h"
#include "selftest.h"

#define ARENA_BYTES (8 * MIB)

static struct xalloc_page_grant one_page[1];
static struct xalloc_page_info one_info[1];
static __u64 one_offset[1];
static uintptr_t mapped_at;

/* Offsets of 32-bit members; 0 (which is @size) means there is none. */
static const struct abi_call {
	const char *name;
	unsigned long cmd;
	size_t bytes;
	size_t first_bytes;	/* of its first version, if it has grown since */
	size_t flags_at;
	__u32 flags;	/* that there are */
	size_t pad_at;
	bool on_device;
	bool on_arena;
	int plain;		/* what a good argument leads to */
	bool no_results;	/* in the structure */
} calls[] = {
	{
		.name = "INFO", .cmd = XALLOC_IOC_INFO,
		.bytes = sizeof(struct xalloc_ioc_info),
		.pad_at = offsetof(struct xalloc_ioc_info, pad),
		.on_device = true, .on_arena = true,
	},
	{
		.name = "STAT", .cmd = XALLOC_IOC_STAT,
		.bytes = sizeof(struct xalloc_ioc_stat),
		.first_bytes = offsetof(struct xalloc_ioc_stat, lazy_bytes),
		.pad_at = offsetof(struct xalloc_ioc_stat, pad),
		.on_device = true, .on_arena = true,
	},
	{
		.name = "ARENA_CREATE", .cmd = XALLOC_IOC_ARENA_CREATE,
		.bytes = sizeof(struct xalloc_ioc_arena_create),
		.flags_at = offsetof(struct xalloc_ioc_arena_create, flags),
		.flags = XALLOC_ARENA_NODE | XALLOC_ARENA_FORK | XALLOC_ARENA_DUMP |
			 XALLOC_ARENA_PERSIST,
		.pad_at = offsetof(struct xalloc_ioc_arena_create, node),
		.on_device = true,
	},
	{
		.name = "GRANT", .cmd = XALLOC_IOC_GRANT,
		.bytes = sizeof(struct xalloc_ioc_grant),
		.flags_at = offsetof(struct xalloc_ioc_grant, flags),
		.pad_at = offsetof(struct xalloc_ioc_grant, pad),
		.on_arena = true, .plain = 1, .no_results = true,
	},
	{
		.name = "FREE", .cmd = XALLOC_IOC_FREE,
		.bytes = sizeof(struct xalloc_ioc_free),
		.flags = XALLOC_FREE_RANGES | XALLOC_FREE_LAZY,
		.flags_at = offsetof(struct xalloc_ioc_free, flags),
		.pad_at = offsetof(struct xalloc_ioc_free, pad),
		.on_arena = true, .plain = 1, .no_results = true,
	},
	{
		.name = "RESERVE", .cmd = XALLOC_IOC_RESERVE,
		.bytes = sizeof(struct xalloc_ioc_reserve),
		.flags_at = offsetof(struct xalloc_ioc_reserve, flags),
		.on_arena = true, .no_results = true,
	},
	{
		.name = "TRIM", .cmd = XALLOC_IOC_TRIM,
		.bytes = sizeof(struct xalloc_ioc_trim),
		.flags_at = offsetof(struct xalloc_ioc_trim, flags),
		.on_arena = true,
	},
	{
		.name = "ATTACH", .cmd = XALLOC_IOC_ATTACH,
		.bytes = sizeof(struct xalloc_ioc_attach),
		.flags_at = offsetof(struct xalloc_ioc_attach, flags),
		.pad_at = offsetof(struct xalloc_ioc_attach, pad),
		.flags = XALLOC_ATTACH_RDONLY,
		.on_device = true, .on_arena = true,
	},
	{
		.name = "LIMIT", .cmd = XALLOC_IOC_LIMIT,
		.bytes = sizeof(struct xalloc_ioc_limit),
		.flags_at = offsetof(struct xalloc_ioc_limit, flags),
		.on_arena = true, .no_results = true,
	},
	{
		.name = "LIST", .cmd = XALLOC_IOC_LIST,
		.bytes = sizeof(struct xalloc_ioc_list),
		.flags_at = offsetof(struct xalloc_ioc_list, flags),
		.flags = XALLOC_LIST_ORPHANS,
		.pad_at = offsetof(struct xalloc_ioc_list, pad),
		.on_arena = true, .plain = 1,
	},
	{
		.name = "CLAIM", .cmd = XALLOC_IOC_CLAIM,
		.bytes = sizeof(struct xalloc_ioc_claim),
		.flags_at = offsetof(struct xalloc_ioc_claim, flags),
		.pad_at = offsetof(struct xalloc_ioc_claim, pad),
		/* The client of the fixture's page lives. */
		.on_arena = true, .plain = -EBUSY, .no_results = true,
	},
	{
		.name = "EXPORT", .cmd = XALLOC_IOC_EXPORT,
		.bytes = sizeof(struct xalloc_ioc_export),
		.flags_at = offsetof(struct xalloc_ioc_export, flags),
		.on_arena = true, .no_results = true,
	},
	{
		.name = "FORK_PREPARE", .cmd = XALLOC_IOC_FORK_PREPARE,
		.bytes = sizeof(struct xalloc_ioc_fork_prepare),
		.flags_at = offsetof(struct xalloc_ioc_fork_prepare, flags),
		.flags = XALLOC_FORK_CANCEL,
		.on_arena = true, .no_results = true,
	},
	{
		.name = "META", .cmd = XALLOC_IOC_META,
		.bytes = sizeof(struct xalloc_ioc_meta),
		.flags_at = offsetof(struct xalloc_ioc_meta, flags),
		.on_arena = true,
	},
	{
		.name = "DUMP", .cmd = XALLOC_IOC_DUMP,
		.bytes = sizeof(struct xalloc_ioc_dump),
		.flags_at = offsetof(struct xalloc_ioc_dump, flags),
		.flags = XALLOC_DUMP_ON,
		.on_arena = true, .no_results = true,
	},
};

FIXTURE(ioctl_abi)
{
	int device;
	int arena;
	void *map;
	struct xalloc_ioc_stat before;
	/* The one page that every test finds granted, and the counters with it. */
	uint64_t offset;
	struct xalloc_ioc_stat with_page;
};

FIXTURE_SETUP(ioctl_abi)
{
	struct xalloc_ioc_arena_create create = {
		.size = sizeof(create),
		/* For FORK_PREPARE, which all other calls are none the wiser of. */
		.flags = XALLOC_ARENA_FORK,
		.arena_bytes = ARENA_BYTES,
	};
	struct xalloc_page_grant page;

	self->device = device_setup(_metadata, &self->before);
	self->arena = call(self->device, XALLOC_IOC_ARENA_CREATE, &create);
	ASSERT_LE(0, self->arena);
	self->map = mmap(NULL, XALLOC_SEGMENT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
			 self->arena, 0);
	ASSERT_NE(MAP_FAILED, self->map);
	mapped_at = (uintptr_t)self->map;
	ASSERT_EQ(1, grant_page(self->arena, 1, 0, &page));
	self->offset = page.offset;
	ASSERT_EQ(0, counters_read(self->device, &self->with_page));
}

FIXTURE_TEARDOWN(ioctl_abi)
{
	munmap(self->map, XALLOC_SEGMENT_BYTES);
	close(self->arena);
	counters_expect(_metadata, self->device, &self->before);
	close(self->device);
}

/* A good argument for @which; FREE names the page of the fixture. */
static void argument_fill(const struct abi_call *which, union argument *arg, uint64_t offset)
{
	memset(arg, 0, sizeof(*arg));
	arg->size = which->bytes;
	memset(one_page, 0, sizeof(one_page));
	one_page[0].nr_slices = 1;
	one_offset[0] = offset;
	switch (which->cmd) {
	case XALLOC_IOC_ARENA_CREATE:
		arg->create.arena_bytes = XALLOC_SEGMENT_BYTES;
		break;
	case XALLOC_IOC_GRANT:
		arg->grant.nr = 1;
		arg->grant.pages = (uintptr_t)one_page;
		break;
	case XALLOC_IOC_FREE:
		arg->free.nr = 1;
		arg->free.offsets = (uintptr_t)one_offset;
		break;
	case XALLOC_IOC_LIST:
		arg->list.nr = 1;
		arg->list.pages = (uintptr_t)one_info;
		break;
	case XALLOC_IOC_EXPORT:
		arg->export.offset = offset;
		arg->export.bytes = XALLOC_SLICE_BYTES;
		break;
	case XALLOC_IOC_CLAIM:
		arg->claim.nr = 1;
		arg->claim.offsets = (uintptr_t)one_offset;
		break;
	case XALLOC_IOC_ATTACH:
		arg->attach.address = mapped_at;
		break;
	case XALLOC_IOC_META:
		arg->meta.bytes = KPAGE_BYTES;
		break;
	}
}

/* Takes back what a call that succeeded did; returns what it should have returned. */
static int effect_undo(const struct abi_call *which, int arena, int rc, uint64_t *offset)
{
	struct xalloc_ioc_fork_prepare cancel = {
		.size = sizeof(cancel),
		.flags = XALLOC_FORK_CANCEL,
	};
	struct xalloc_page_grant page;

	switch (which->cmd) {
	case XALLOC_IOC_ARENA_CREATE:
	case XALLOC_IOC_ATTACH:
	case XALLOC_IOC_EXPORT:
	case XALLOC_IOC_META:
		if (rc >= 0)
			close(rc);
		return rc >= 0 ? rc : 0;
	case XALLOC_IOC_FORK_PREPARE:
		call(arena, XALLOC_IOC_FORK_PREPARE, &cancel);
		break;
	case XALLOC_IOC_GRANT:
		if (rc == 1)
			free_page(arena, one_page[0].offset);
		break;
	case XALLOC_IOC_FREE:
		if (rc == 1 && grant_page(arena, 1, 0, &page) == 1)
			*offset = page.offset;
		break;
	}
	return which->plain;
}

/* Each call on each descriptor that takes it. */
#define for_each_call(which, fd) \
	for (which = calls; which < calls + ARRAY_SIZE(calls); which++) \
		for (int on_ = 0; fd = on_ ? self->arena : self->device, on_ < 2; on_++) \
			if (on_ ? which->on_arena : which->on_device)

#define expect_call(want, fd, cmd, arg, fmt, ...) \
	EXPECT_EQ(want, call(fd, cmd, arg)) { \
		TH_LOG(fmt, ##__VA_ARGS__); \
	}

TEST_F(ioctl_abi, plain_call_succeeds)
{
	const struct abi_call *which;
	union argument arg;
	int fd, rc;

	for_each_call(which, fd) {
		argument_fill(which, &arg, self->offset);
		rc = call(fd, which->cmd, &arg);
		EXPECT_EQ(effect_undo(which, self->arena, rc, &self->offset), rc) {
			TH_LOG("%s", which->name);
		}
	}
	counters_expect_now(_metadata, self->device, &self->with_page);
}

TEST_F(ioctl_abi, short_struct_is_einval)
{
	const struct abi_call *which;
	union argument arg;
	size_t bytes;
	int fd;

	for_each_call(which, fd) {
		for (bytes = 0; bytes < (which->first_bytes ?: which->bytes); bytes++) {
			argument_fill(which, &arg, self->offset);
			arg.size = bytes;
			expect_call(-EINVAL, fd, which->cmd, &arg, "%s with size %zu",
				    which->name, bytes);
		}
	}
	counters_expect_now(_metadata, self->device, &self->with_page);
}

TEST_F(ioctl_abi, long_struct_with_zeros_succeeds)
{
	const struct abi_call *which;
	union argument arg;
	size_t more;
	int fd, rc;

	for_each_call(which, fd) {
		for (more = 1; which->bytes + more <= sizeof(arg); more += 7) {
			argument_fill(which, &arg, self->offset);
			arg.size = which->bytes + more;
			rc = call(fd, which->cmd, &arg);
			EXPECT_EQ(effect_undo(which, self->arena, rc, &self->offset), rc) {
				TH_LOG("%s with %zu zero bytes more", which->name, more);
			}
			EXPECT_EQ(which->bytes + more, arg.size);
		}
	}
	counters_expect_now(_metadata, self->device, &self->with_page);
}

TEST_F(ioctl_abi, long_struct_with_nonzero_is_e2big)
{
	const struct abi_call *which;
	union argument arg;
	size_t more;
	int fd;

	for_each_call(which, fd) {
		for (more = 1; which->bytes + more <= sizeof(arg); more += 7) {
			argument_fill(which, &arg, self->offset);
			arg.size = which->bytes + more;
			arg.bytes[arg.size - 1] = 1;
			expect_call(-E2BIG, fd, which->cmd, &arg, "%s with byte %zu set",
				    which->name, which->bytes + more - 1);
		}
	}
	counters_expect_now(_metadata, self->device, &self->with_page);
}

/* A caller built with a later header encodes the longer structure in the number, too. */
TEST_F(ioctl_abi, number_of_longer_struct_is_known)
{
	const struct abi_call *which;
	union argument arg;
	unsigned long cmd;
	int fd, rc;

	for_each_call(which, fd) {
		cmd = _IOC(_IOC_READ | _IOC_WRITE, XALLOC_IOC_MAGIC, _IOC_NR(which->cmd),
			   which->bytes + 8);
		argument_fill(which, &arg, self->offset);
		arg.size = which->bytes + 8;
		rc = call(fd, cmd, &arg);
		EXPECT_EQ(effect_undo(which, self->arena, rc, &self->offset), rc) {
			TH_LOG("%s", which->name);
		}
		argument_fill(which, &arg, self->offset);
		arg.size = which->bytes + 8;
		arg.bytes[which->bytes] = 1;
		expect_call(-E2BIG, fd, cmd, &arg, "%s", which->name);
	}
	counters_expect_now(_metadata, self->device, &self->with_page);
}

TEST_F(ioctl_abi, absurd_size_is_refused)
{
	static const __u32 sizes[] = { 1U << 20, 1U << 31, UINT32_MAX };
	unsigned char *map = mmap(NULL, 2 * KPAGE_BYTES, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const struct abi_call *which;
	union argument arg;
	size_t i;
	int fd, rc;

	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(0, mprotect(map + KPAGE_BYTES, KPAGE_BYTES, PROT_NONE));
	for_each_call(which, fd) {
		for (i = 0; i < ARRAY_SIZE(sizes); i++) {
			argument_fill(which, &arg, self->offset);
			arg.size = sizes[i];
			memcpy(map, &arg, which->bytes);
			rc = call(fd, which->cmd, map);
			EXPECT_TRUE(rc == -E2BIG || rc == -EFAULT) {
				TH_LOG("%s with size %u: %d", which->name, sizes[i], rc);
			}
		}
	}
	munmap(map, 2 * KPAGE_BYTES);
	counters_expect_now(_metadata, self->device, &self->with_page);
}

TEST_F(ioctl_abi, unknown_flag_is_eopnotsupp)
{
	const struct abi_call *which;
	union argument arg;
	unsigned int bit;
	int fd;

	for_each_call(which, fd) {
		if (!which->flags_at)
			continue;
		for (bit = 0; bit < 32; bit++) {
			if (which->flags & 1U << bit)
				continue;
			argument_fill(which, &arg, self->offset);
			*(__u32 *)(arg.bytes + which->flags_at) = 1U << bit;
			expect_call(-EOPNOTSUPP, fd, which->cmd, &arg, "%s with flag bit %u",
				    which->name, bit);
		}
	}
	for (bit = 0; bit < 32; bit++) {
		if (1U << bit & (XALLOC_PAGE_CONTIG | XALLOC_PAGE_ZERO | XALLOC_PAGE_AT))
			continue;
		EXPECT_EQ(-EOPNOTSUPP, grant_page(self->arena, 1, 1U << bit, NULL)) {
			TH_LOG("page flag bit %u", bit);
		}
	}
	counters_expect_now(_metadata, self->device, &self->with_page);
}

TEST_F(ioctl_abi, nonzero_padding_is_einval)
{
	const struct abi_call *which;
	union argument arg;
	unsigned int bit;
	int fd;

	for_each_call(which, fd) {
		if (!which->pad_at)
			continue;
		for (bit = 0; bit < 32; bit++) {
			argument_fill(which, &arg, self->offset);
			*(__u32 *)(arg.bytes + which->pad_at) = 1U << bit;
			expect_call(-EINVAL, fd, which->cmd, &arg, "%s with pad bit %u",
				    which->name, bit);
		}
	}
	counters_expect_now(_metadata, self->device, &self->with_page);
}

TEST_F(ioctl_abi, bad_struct_pointer_is_efault)
{
	unsigned char *map = mmap(NULL, 2 * KPAGE_BYTES, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char *end = map + KPAGE_BYTES;
	const struct abi_call *which;
	union argument arg;
	size_t cut;
	int fd;

	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(0, mprotect(end, KPAGE_BYTES, PROT_NONE));
	for_each_call(which, fd) {
		expect_call(-EFAULT, fd, which->cmd, NULL, "%s", which->name);
		expect_call(-EFAULT, fd, which->cmd, end, "%s", which->name);
		expect_call(-EFAULT, fd, which->cmd, (void *)-KPAGE_BYTES, "%s", which->name);
		expect_call(-EFAULT, fd, which->cmd, (void *)(1UL << 63), "%s", which->name);
		/* Readable up to its byte @cut. */
		for (cut = 1; cut < which->bytes; cut++) {
			argument_fill(which, &arg, self->offset);
			memcpy(end - cut, &arg, cut);
			expect_call(-EFAULT, fd, which->cmd, end - cut,
				    "%s readable up to byte %zu", which->name, cut);
		}
	}
	munmap(map, 2 * KPAGE_BYTES);
	counters_expect_now(_metadata, self->device, &self->with_page);
}

/* What has results to write must not leave anything behind where it cannot. */
TEST_F(ioctl_abi, readonly_struct_of_a_call_with_results_is_efault)
{
	union argument *map = mmap(NULL, KPAGE_BYTES, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const struct abi_call *which;
	int fd, lowest, again;

	ASSERT_NE(MAP_FAILED, (void *)map);
	lowest = dup(self->device);
	close(lowest);
	for_each_call(which, fd) {
		if (which->no_results)
			continue;
		argument_fill(which, map, self->offset);
		ASSERT_EQ(0, mprotect(map, KPAGE_BYTES, PROT_READ));
		expect_call(-EFAULT, fd, which->cmd, map, "%s", which->name);
		ASSERT_EQ(0, mprotect(map, KPAGE_BYTES, PROT_READ | PROT_WRITE));
	}
	again = dup(self->device);
	close(again);
	EXPECT_EQ(lowest, again) {
		TH_LOG("a call that failed left a descriptor behind");
	}
	munmap(map, KPAGE_BYTES);
	counters_expect_now(_metadata, self->device, &self->with_page);
}

/* What cannot be told is not done: no second file that has its size for good, no trim. */
TEST_F(ioctl_abi, readonly_struct_changes_nothing)
{
	union argument *map = mmap(NULL, KPAGE_BYTES, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct xalloc_ioc_meta meta = { .size = sizeof(meta) };
	int fd;

	ASSERT_NE(MAP_FAILED, (void *)map);
	map->meta = (struct xalloc_ioc_meta){ .size = sizeof(meta), .bytes = 2 * KPAGE_BYTES };
	ASSERT_EQ(0, mprotect(map, KPAGE_BYTES, PROT_READ));
	EXPECT_EQ(-EFAULT, call(self->arena, XALLOC_IOC_META, map));
	EXPECT_EQ(-ENOENT, call(self->arena, XALLOC_IOC_META, &meta));
	meta.bytes = KPAGE_BYTES;
	fd = call(self->arena, XALLOC_IOC_META, &meta);
	EXPECT_LE(0, fd);
	close(fd);

	ASSERT_EQ(0, reserve_set(self->arena, 0, XALLOC_SEGMENT_BYTES));
	ASSERT_TRUE(wait_for(stat_of(self->arena).reserved_bytes, 20000));
	ASSERT_EQ(0, mprotect(map, KPAGE_BYTES, PROT_READ | PROT_WRITE));
	map->trim = (struct xalloc_ioc_trim){ .size = sizeof(map->trim) };
	ASSERT_EQ(0, mprotect(map, KPAGE_BYTES, PROT_READ));
	EXPECT_EQ(-EFAULT, call(self->arena, XALLOC_IOC_TRIM, map));
	EXPECT_EQ(XALLOC_SEGMENT_BYTES, stat_of(self->arena).reserved_bytes);
	munmap(map, KPAGE_BYTES);
}

TEST_F(ioctl_abi, bad_array_pointer_is_efault)
{
	unsigned char *map = mmap(NULL, 2 * KPAGE_BYTES, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char *end = map + KPAGE_BYTES;
	struct xalloc_page_grant *pages = (void *)end - 2 * sizeof(*pages);
	struct xalloc_range *ranges = (void *)end - 2 * sizeof(*ranges);
	const __u64 bad[] = {
		0, 1, (uintptr_t)end, 1ULL << 63, UINT64_MAX, UINT64_MAX - 7,
		(__u64)-(__s64)KPAGE_BYTES, 0x00007ffffffff000ULL, 0x8000000000000000ULL - 8,
	};
	struct xalloc_ioc_grant grant = { .size = sizeof(grant), .nr = 1 };
	struct xalloc_ioc_free release = { .size = sizeof(release), .nr = 1 };
	struct xalloc_ioc_claim claim = { .size = sizeof(claim), .nr = 1 };
	struct xalloc_ioc_list list = { .size = sizeof(list), .nr = 1 };
	size_t i;

	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(0, mprotect(end, KPAGE_BYTES, PROT_NONE));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		grant.pages = bad[i];
		release.offsets = bad[i];
		claim.offsets = bad[i];
		list.pages = bad[i];
		expect_call(-EFAULT, self->arena, XALLOC_IOC_GRANT, &grant, "%#" PRIx64,
			    (uint64_t)bad[i]);
		expect_call(-EFAULT, self->arena, XALLOC_IOC_FREE, &release, "%#" PRIx64,
			    (uint64_t)bad[i]);
		expect_call(-EFAULT, self->arena, XALLOC_IOC_CLAIM, &claim, "%#" PRIx64,
			    (uint64_t)bad[i]);
		expect_call(-EFAULT, self->arena, XALLOC_IOC_LIST, &list, "%#" PRIx64,
			    (uint64_t)bad[i]);
	}

	/* Two good entries; the third, and half of the third, cannot be reached. */
	pages[0] = (struct xalloc_page_grant){ .nr_slices = 1 };
	pages[1] = pages[0];
	EXPECT_EQ(-EFAULT, grant_batch(self->arena, pages, 3));
	memmove((void *)pages - 8, pages, 2 * sizeof(*pages));
	EXPECT_EQ(-EFAULT, grant_batch(self->arena, (void *)pages - 8, 3));
	ranges[0] = (struct xalloc_range){ .offset = self->offset };
	ranges[1] = ranges[0];
	EXPECT_EQ(-EFAULT, free_ranges(self->arena, ranges, 3));
	EXPECT_EQ(-EFAULT, free_ranges(self->arena, ranges + 1, 2));
	counters_expect_now(_metadata, self->device, &self->with_page);

	/* Results must be written to it, so the array of GRANT must be writable. */
	memset(map, 0, KPAGE_BYTES);
	pages = (void *)map;
	pages[0].nr_slices = 1;
	ASSERT_EQ(0, mprotect(map, KPAGE_BYTES, PROT_READ));
	EXPECT_EQ(-EFAULT, grant_batch(self->arena, pages, 1));
	counters_expect_now(_metadata, self->device, &self->with_page);

	munmap(map, 2 * KPAGE_BYTES);
}

/* The array begins on a writable page and ends on one that is only readable. */
TEST_F(ioctl_abi, half_readonly_array_grants_nothing)
{
	unsigned char *map = mmap(NULL, 2 * KPAGE_BYTES, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct xalloc_page_grant *pages;
	int i;

	ASSERT_NE(MAP_FAILED, map);
	pages = (void *)(map + KPAGE_BYTES) - 2 * sizeof(*pages);
	for (i = 0; i < 4; i++)
		pages[i] = (struct xalloc_page_grant){ .nr_slices = 1 };
	ASSERT_EQ(0, mprotect(map + KPAGE_BYTES, KPAGE_BYTES, PROT_READ));
	EXPECT_EQ(-EFAULT, grant_batch(self->arena, pages, 4));
	counters_expect_now(_metadata, self->device, &self->with_page);
	munmap(map, 2 * KPAGE_BYTES);
}

TEST_F(ioctl_abi, readonly_array_of_free_succeeds)
{
	struct xalloc_range *map = mmap(NULL, KPAGE_BYTES, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, (void *)map);
	map[0].offset = self->offset;
	ASSERT_EQ(0, mprotect(map, KPAGE_BYTES, PROT_READ));
	EXPECT_EQ(1, free_ranges(self->arena, map, 1));
	munmap(map, KPAGE_BYTES);
}

TEST_F(ioctl_abi, call_on_the_wrong_descriptor_is_enotty)
{
	const struct abi_call *which;
	union argument arg;

	for (which = calls; which < calls + ARRAY_SIZE(calls); which++) {
		argument_fill(which, &arg, self->offset);
		if (!which->on_device) {
			expect_call(-ENOTTY, self->device, which->cmd, &arg, "%s", which->name);
		}
		if (!which->on_arena) {
			expect_call(-ENOTTY, self->arena, which->cmd, &arg, "%s", which->name);
		}
	}
	counters_expect_now(_metadata, self->device, &self->with_page);
}

static bool is_call_number(unsigned int nr)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(calls); i++)
		if (_IOC_NR(calls[i].cmd) == nr)
			return true;
	return false;
}

TEST_F(ioctl_abi, unknown_call_is_enotty)
{
	int fds[] = { self->device, self->arena };
	union argument arg;
	unsigned int i, nr;

	for (i = 0; i < ARRAY_SIZE(fds); i++) {
		for (nr = 0; nr < 256; nr++) {
			memset(&arg, 0, sizeof(arg));
			arg.size = 48;
			if (!is_call_number(nr)) {
				expect_call(-ENOTTY, fds[i],
					    _IOC(_IOC_READ | _IOC_WRITE, XALLOC_IOC_MAGIC, nr, 48),
					    &arg, "number %#x", nr);
			}
			/* Another driver's magic. */
			expect_call(-ENOTTY, fds[i],
				    _IOC(_IOC_READ | _IOC_WRITE, XALLOC_IOC_MAGIC + 1, nr, 48),
				    &arg, "foreign number %#x", nr);
		}
	}
	counters_expect_now(_metadata, self->device, &self->with_page);
}

TEST_HARNESS_MAIN
