// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: every row of the table of refusals, on every descriptor that it names; and that a
 * call which was refused did nothing.
 */
#include "argument.h"
#include "selftest.h"
#include "sharing.h"

#define ARENA_BYTES (8 * MIB)

#define NAME NAMES "/refusals-test"

enum {
	DEVICE, ARENA, READER, SMALL, LIMITED, FULL, FAMILY, PLAIN, NAMED,
	/* An arena that another process has. In no row: every call on arenas refuses it. */
	FOREIGN,
	NR_DESCRIPTORS
};

/* What is mapped: ARENA, the same by a reader, and a dma-buf of FULL. */
enum { MAPPED, MAPPED_READ_ONLY, MAPPED_EXPORT, NR_MAPS };
static void *maps[NR_MAPS];

/* What a call is given. */
static struct {
	union argument arg;
	struct xalloc_page_grant page;
	struct xalloc_page_info info;
	__u64 offset;
	struct xalloc_range range;
	__u64 map;	/* 1 + which of maps[] is meant instead of the first */
} given;

/* A member of @given, and what it is set to. */
struct wrong {
	size_t at;
	size_t bytes;
	__u64 value;
};

static const struct refusal {
	const char *call;
	unsigned long cmd;
	int descriptor;
	int error;
	const char *what;
	struct wrong wrong[2];
} refusals[] = {
#define MEMBER(_member, _value) \
	{ offsetof(typeof(given), _member), sizeof(given._member), _value }
#define ARG(_call, _member, _value) MEMBER(arg._call._member, _value)
#define PAGE(_member, _value) MEMBER(page._member, _value)
#define OFFSET(_value) MEMBER(offset, _value)
#define RANGE(_member, _value) MEMBER(range._member, _value)
#define READ_ONLY MEMBER(map, 1 + MAPPED_READ_ONLY)
#define EXPORTED MEMBER(map, 1 + MAPPED_EXPORT)
#define NOTHING { 0, 0, 0 }
#define REFUSAL(_call, _descriptor, _error, _what, ...) \
	{ #_call, XALLOC_IOC_##_call, _descriptor, _error, _what, { __VA_ARGS__ } },
#include "refusals.h"
};

/* A good argument of each call, on the page at 0. */
static void give(unsigned long cmd)
{
	union argument *arg = &given.arg;

	memset(&given, 0, sizeof(given));
	given.page.nr_slices = 1;
	switch (cmd) {
	case XALLOC_IOC_INFO:
		arg->size = sizeof(arg->info);
		break;
	case XALLOC_IOC_STAT:
		arg->size = sizeof(arg->stat);
		break;
	case XALLOC_IOC_ARENA_CREATE:
		arg->size = sizeof(arg->create);
		arg->create.arena_bytes = XALLOC_SEGMENT_BYTES;
		break;
	case XALLOC_IOC_GRANT:
		arg->size = sizeof(arg->grant);
		arg->grant.nr = 1;
		arg->grant.pages = (uintptr_t)&given.page;
		break;
	case XALLOC_IOC_FREE:
		arg->size = sizeof(arg->free);
		arg->free.nr = 1;
		arg->free.flags = XALLOC_FREE_RANGES;
		arg->free.offsets = (uintptr_t)&given.range;
		break;
	case XALLOC_IOC_RESERVE:
		arg->size = sizeof(arg->reserve);
		break;
	case XALLOC_IOC_TRIM:
		arg->size = sizeof(arg->trim);
		break;
	case XALLOC_IOC_ATTACH:
		arg->size = sizeof(arg->attach);
		break;
	case XALLOC_IOC_LIMIT:
		arg->size = sizeof(arg->limit);
		break;
	case XALLOC_IOC_LIST:
		arg->size = sizeof(arg->list);
		arg->list.nr = 1;
		arg->list.pages = (uintptr_t)&given.info;
		break;
	case XALLOC_IOC_CLAIM:
		arg->size = sizeof(arg->claim);
		arg->claim.nr = 1;
		arg->claim.offsets = (uintptr_t)&given.offset;
		break;
	case XALLOC_IOC_EXPORT:
		arg->size = sizeof(arg->export);
		arg->export.bytes = XALLOC_SLICE_BYTES;
		break;
	case XALLOC_IOC_FORK_PREPARE:
		arg->size = sizeof(arg->fork_prepare);
		break;
	case XALLOC_IOC_META:
		arg->size = sizeof(arg->meta);
		arg->meta.bytes = KPAGE_BYTES;
		break;
	case XALLOC_IOC_DUMP:
		arg->size = sizeof(arg->dump);
		break;
	}
}

static void spoil(const struct wrong *wrong)
{
	/* The machines that run this put the low bytes first. */
	memcpy((unsigned char *)&given + wrong->at, &wrong->value, wrong->bytes);
	if (given.map)
		given.arg.attach.address = (uintptr_t)maps[given.map - 1];
}

/* An arena whose process is gone, and its descriptor here. */
static int foreign_receive(int device)
{
	int sockets[2], fd;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
		return -errno;
	pid = fork();
	if (!pid) {
		fd_send(sockets[1], family_create(device, ARENA_BYTES, 0));
		_exit(0);
	}
	fd = fd_receive(sockets[0]);
	child_status(pid);
	close(sockets[0]);
	close(sockets[1]);
	return fd;
}

FIXTURE(refusals)
{
	int fds[NR_DESCRIPTORS];
	int other;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(refusals)
{
	struct xalloc_ioc_export export = { .size = sizeof(export), .bytes = XALLOC_SLICE_BYTES };
	struct xalloc_ioc_meta meta = { .size = sizeof(meta), .bytes = 2 * KPAGE_BYTES };
	int *fds = self->fds, i, fd;

	unlink(NAME);
	unlink(NAME "-file");
	fds[DEVICE] = device_setup(_metadata, &self->before);
	fds[ARENA] = arena_create(fds[DEVICE], ARENA_BYTES, 0);
	self->other = attach(fds[ARENA], 0, NULL);
	fds[READER] = fd_reopen(fds[ARENA], O_RDONLY);
	fds[SMALL] = arena_create_by(fds[DEVICE], ARENA_BYTES, XALLOC_POLICY_SMALL, -1);
	fds[LIMITED] = arena_create(fds[DEVICE], ARENA_BYTES, XALLOC_SEGMENT_BYTES);
	fds[FULL] = arena_create(fds[DEVICE], ARENA_BYTES, 0);
	ASSERT_EQ(1, grant_page(fds[ARENA], 1, 0, NULL));
	ASSERT_EQ(1, grant_page(self->other, 1, 0, NULL));
	ASSERT_EQ(1, grant_page(fds[LIMITED], SEGMENT_SLICES, 0, NULL));
	ASSERT_EQ(1, grant_page(fds[FULL], ARENA_BYTES / XALLOC_SLICE_BYTES, 0, NULL));
	fds[FAMILY] = family_create(fds[DEVICE], ARENA_BYTES, 0);
	fds[PLAIN] = open(NAME "-file", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	fds[NAMED] = name_create(NAME, ARENA_BYTES);
	fds[FOREIGN] = foreign_receive(fds[DEVICE]);
	for (i = 0; i < NR_DESCRIPTORS; i++)
		ASSERT_LE(0, fds[i]);
	fd = call(fds[FULL], XALLOC_IOC_META, &meta);
	ASSERT_LE(0, fd);
	close(fd);
	maps[MAPPED] = arena_map(fds[ARENA], ARENA_BYTES);
	maps[MAPPED_READ_ONLY] = arena_map_at(fds[READER], 0, ARENA_BYTES, PROT_READ);
	fd = call(fds[FULL], XALLOC_IOC_EXPORT, &export);
	maps[MAPPED_EXPORT] = arena_map_at(fd, 0, XALLOC_SLICE_BYTES, PROT_READ);
	for (i = 0; i < NR_MAPS; i++)
		ASSERT_NE(NULL, maps[i]);
	close(fd);
}

FIXTURE_TEARDOWN(refusals)
{
	int i;

	munmap(maps[MAPPED], ARENA_BYTES);
	munmap(maps[MAPPED_READ_ONLY], ARENA_BYTES);
	munmap(maps[MAPPED_EXPORT], XALLOC_SLICE_BYTES);
	unlink(NAME);
	unlink(NAME "-file");
	close(self->other);
	for (i = ARENA; i < NR_DESCRIPTORS; i++)
		close(self->fds[i]);
	counters_expect(_metadata, self->fds[DEVICE], &self->before);
	close(self->fds[DEVICE]);
}

TEST_F(refusals, each_row)
{
	struct xalloc_ioc_stat now = stat_of(self->fds[DEVICE]);
	const struct refusal *row;
	size_t i;

	for (row = refusals; row < refusals + ARRAY_SIZE(refusals); row++) {
		give(row->cmd);
		for (i = 0; i < ARRAY_SIZE(row->wrong); i++)
			spoil(&row->wrong[i]);
		EXPECT_EQ(-row->error, call(self->fds[row->descriptor], row->cmd, &given.arg)) {
			TH_LOG("%s: %s", row->call, row->what);
		}
	}
	TH_LOG("%zu rows", ARRAY_SIZE(refusals));
	counters_expect_now(_metadata, self->fds[DEVICE], &now);
}

TEST_F(refusals, arena_of_another_process)
{
	struct xalloc_ioc_stat now = stat_of(self->fds[DEVICE]);
	const struct refusal *row;

	for (row = refusals; row < refusals + ARRAY_SIZE(refusals); row++) {
		if (row->cmd == XALLOC_IOC_INFO)
			continue;
		give(row->cmd);
		EXPECT_EQ(-ESTALE, call(self->fds[FOREIGN], row->cmd, &given.arg)) {
			TH_LOG("%s", row->call);
		}
	}
	counters_expect_now(_metadata, self->fds[DEVICE], &now);
}

/* The same argument with nothing wrong is accepted, or the rows above would show nothing. */
TEST_F(refusals, good_arguments_are_accepted)
{
	const struct refusal *row;
	int fd, rc;

	for (row = refusals; row < refusals + ARRAY_SIZE(refusals); row++) {
		bool by_address = row->cmd == XALLOC_IOC_ATTACH && row->descriptor == DEVICE;

		if (row > refusals && row->cmd == row[-1].cmd &&
		    (!by_address || row[-1].descriptor == DEVICE))
			continue;
		fd = self->fds[row->descriptor == DEVICE || row->descriptor == FAMILY ?
			       row->descriptor : ARENA];
		give(row->cmd);
		if (by_address)
			given.arg.attach.address = (uintptr_t)maps[MAPPED];
		rc = call(fd, row->cmd, &given.arg);
		/* There is no orphan. */
		EXPECT_TRUE(rc >= 0 || (row->cmd == XALLOC_IOC_CLAIM && rc == -EBUSY)) {
			TH_LOG("%s: %d", row->call, rc);
		}
		if (row->cmd == XALLOC_IOC_ARENA_CREATE || row->cmd == XALLOC_IOC_ATTACH ||
		    row->cmd == XALLOC_IOC_EXPORT || row->cmd == XALLOC_IOC_META)
			close(rc);
		/* For the calls that name it. */
		if (row->cmd == XALLOC_IOC_FREE)
			ASSERT_EQ(1, grant_page(self->fds[ARENA], 1, 0, NULL));
	}
}

TEST_HARNESS_MAIN
