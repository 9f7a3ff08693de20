// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: every row of the table of refusals, on every descriptor that it names; and that a
 * call which was refused did nothing.
 */
#include "selftest.h"

#define ARENA_BYTES (8 * MIB)

enum { DEVICE, ARENA, READER, SMALL, LIMITED, FULL, NR_DESCRIPTORS };

union argument {
	__u32 size;
	unsigned char bytes[128];
	struct xalloc_ioc_info info;
	struct xalloc_ioc_stat stat;
	struct xalloc_ioc_arena_create create;
	struct xalloc_ioc_grant grant;
	struct xalloc_ioc_free free;
	struct xalloc_ioc_reserve reserve;
	struct xalloc_ioc_trim trim;
	struct xalloc_ioc_attach attach;
	struct xalloc_ioc_limit limit;
	struct xalloc_ioc_list list;
	struct xalloc_ioc_adopt adopt;
	struct xalloc_ioc_export export;
};

/* What a call is given. */
static struct {
	union argument arg;
	struct xalloc_page_grant page;
	struct xalloc_page_info info;
	__u64 offset;
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
		arg->free.offsets = (uintptr_t)&given.offset;
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
	case XALLOC_IOC_ADOPT:
		arg->size = sizeof(arg->adopt);
		arg->adopt.nr = 1;
		arg->adopt.offsets = (uintptr_t)&given.offset;
		break;
	case XALLOC_IOC_EXPORT:
		arg->size = sizeof(arg->export);
		arg->export.bytes = XALLOC_SLICE_BYTES;
		break;
	}
}

static void spoil(const struct wrong *wrong)
{
	/* The machines that run this put the low bytes first. */
	memcpy((unsigned char *)&given + wrong->at, &wrong->value, wrong->bytes);
}

FIXTURE(refusals)
{
	int fds[NR_DESCRIPTORS];
	int other;
	struct xalloc_ioc_stat before;
};

FIXTURE_SETUP(refusals)
{
	int *fds = self->fds;

	fds[DEVICE] = device_setup(_metadata, &self->before);
	fds[ARENA] = arena_create(fds[DEVICE], ARENA_BYTES, 0);
	self->other = fd_reopen(fds[ARENA]);
	fds[READER] = fd_reopen_flags(fds[ARENA], O_RDONLY);
	fds[SMALL] = arena_create_by(fds[DEVICE], ARENA_BYTES, XALLOC_POLICY_SMALL, -1);
	fds[LIMITED] = arena_create(fds[DEVICE], ARENA_BYTES, XALLOC_SEGMENT_BYTES);
	fds[FULL] = arena_create(fds[DEVICE], ARENA_BYTES, 0);
	ASSERT_EQ(1, grant_page(fds[ARENA], 1, 0, NULL));
	ASSERT_EQ(1, grant_page(self->other, 1, 0, NULL));
	ASSERT_EQ(1, grant_page(fds[LIMITED], SEGMENT_SLICES, 0, NULL));
	ASSERT_EQ(1, grant_page(fds[FULL], ARENA_BYTES / XALLOC_SLICE_BYTES, 0, NULL));
}

FIXTURE_TEARDOWN(refusals)
{
	int i;

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

/* The same argument with nothing wrong is accepted, or the rows above would show nothing. */
TEST_F(refusals, good_arguments_are_accepted)
{
	const struct refusal *row;
	int fd, rc;

	for (row = refusals; row < refusals + ARRAY_SIZE(refusals); row++) {
		if (row > refusals && row->cmd == row[-1].cmd)
			continue;
		fd = self->fds[row->descriptor == DEVICE ? DEVICE : ARENA];
		give(row->cmd);
		rc = call(fd, row->cmd, &given.arg);
		/* There is no orphan. */
		EXPECT_TRUE(rc >= 0 || (row->cmd == XALLOC_IOC_ADOPT && rc == -EBUSY)) {
			TH_LOG("%s: %d", row->call, rc);
		}
		if (row->cmd == XALLOC_IOC_ARENA_CREATE || row->cmd == XALLOC_IOC_ATTACH ||
		    row->cmd == XALLOC_IOC_EXPORT)
			close(rc);
		/* For the calls that name it. */
		if (row->cmd == XALLOC_IOC_FREE)
			ASSERT_EQ(1, grant_page(self->fds[ARENA], 1, 0, NULL));
	}
}

TEST_HARNESS_MAIN
