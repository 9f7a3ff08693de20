// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: every allocation that a call makes fails in its turn: the call says so, or does
 * without, and nothing of it is left behind. Needs a kernel with fault injection. What fork() makes
 * are mostly the kernel's own, of which it complains; those of a copy fail by FORK_PREPARE here.
 */
#include "selftest.h"
#include "sharing.h"

#define ARENA_BYTES (8 * MIB)
#define FAULTS "/sys/kernel/debug/"
#define NTH_MAX 500
#define NAME NAMES "/fail-nth-test"

/* What a call works on; all of it is there before anything fails. */
struct scene {
	int device;
	int arena;
	uint64_t page, orphan;	/* offsets of pages in it, of one slice each */
};

FIXTURE(fail_nth)
{
	struct scene scene;
	struct xalloc_ioc_stat before;
};

/* The call: its result, or the negative errno. */
FIXTURE_VARIANT(fail_nth)
{
	int (*act)(struct scene *scene);
	/* It returns a descriptor, which is to be closed. */
	bool opens;
	/* Whether the arena is as if it had not been called, where no counter tells. */
	bool (*is_undone)(const struct scene *scene);
	uint32_t policy;
	uint32_t flags;		/* of the arena */
};

static int act_create(struct scene *scene)
{
	return arena_create(scene->device, ARENA_BYTES, 0);
}

FIXTURE_VARIANT_ADD(fail_nth, arena_create)
{
	.act = act_create, .opens = true,
};

static int act_grant(struct scene *scene)
{
	return grant_page(scene->arena, 40, 0, NULL);
}

FIXTURE_VARIANT_ADD(fail_nth, grant_huge)
{
	.act = act_grant,
};

FIXTURE_VARIANT_ADD(fail_nth, grant_huge_preferred)
{
	.act = act_grant, .policy = XALLOC_POLICY_HUGE_PREFERRED,
};

FIXTURE_VARIANT_ADD(fail_nth, grant_small)
{
	.act = act_grant, .policy = XALLOC_POLICY_SMALL,
};

static int act_batch(struct scene *scene)
{
	struct xalloc_page_grant pages[3] = {
		{ .nr_slices = 1 },
		{ .nr_slices = 32 },
		{ .nr_slices = 1, .flags = XALLOC_PAGE_ZERO },
	};

	return grant_batch(scene->arena, pages, 3);
}

FIXTURE_VARIANT_ADD(fail_nth, grant_batch)
{
	.act = act_batch,
};

static int act_free(struct scene *scene)
{
	return free_page(scene->arena, scene->page);
}

FIXTURE_VARIANT_ADD(fail_nth, free)
{
	.act = act_free,
};

static int act_attach(struct scene *scene)
{
	struct xalloc_ioc_attach arg = { .size = sizeof(arg) };

	return call(scene->arena, XALLOC_IOC_ATTACH, &arg);
}

FIXTURE_VARIANT_ADD(fail_nth, attach)
{
	.act = act_attach, .opens = true,
};

static int act_list(struct scene *scene)
{
	struct xalloc_page_info infos[4];
	struct xalloc_ioc_list arg = {
		.size = sizeof(arg), .nr = 4, .pages = (uintptr_t)infos,
	};

	return call(scene->arena, XALLOC_IOC_LIST, &arg);
}

FIXTURE_VARIANT_ADD(fail_nth, list)
{
	.act = act_list,
};

static int act_claim(struct scene *scene)
{
	struct xalloc_ioc_claim arg = {
		.size = sizeof(arg), .nr = 1, .offsets = (uintptr_t)&scene->orphan,
	};

	return call(scene->arena, XALLOC_IOC_CLAIM, &arg);
}

FIXTURE_VARIANT_ADD(fail_nth, claim)
{
	.act = act_claim,
};

static int act_export(struct scene *scene)
{
	struct xalloc_ioc_export arg = {
		.size = sizeof(arg), .offset = scene->page, .bytes = XALLOC_SLICE_BYTES,
	};

	return call(scene->arena, XALLOC_IOC_EXPORT, &arg);
}

FIXTURE_VARIANT_ADD(fail_nth, export)
{
	.act = act_export, .opens = true,
};

static int act_reopen(struct scene *scene)
{
	return attach(scene->arena, 0, NULL);
}

FIXTURE_VARIANT_ADD(fail_nth, open)
{
	.act = act_reopen, .opens = true,
};

static int act_map(struct scene *scene)
{
	unsigned char *map = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
				  scene->arena, 0);

	if (map == MAP_FAILED)
		return -errno;
	munmap(map, ARENA_BYTES);
	return 0;
}

FIXTURE_VARIANT_ADD(fail_nth, mmap)
{
	.act = act_map,
};

static int act_attach_at(struct scene *scene)
{
	unsigned char *map = arena_map(scene->arena, ARENA_BYTES);
	int rc;

	if (!map)
		return -errno;
	rc = attach_at(scene->device, map, 0, NULL);
	munmap(map, ARENA_BYTES);
	return rc;
}

FIXTURE_VARIANT_ADD(fail_nth, attach_at)
{
	.act = act_attach_at, .opens = true,
};

FIXTURE_VARIANT_ADD(fail_nth, attach_at_a_family)
{
	.act = act_attach_at, .opens = true, .flags = XALLOC_ARENA_FORK,
};

static int act_prepare(struct scene *scene)
{
	return fork_prepare(scene->arena, 0);
}

FIXTURE_VARIANT_ADD(fail_nth, fork_prepare)
{
	.act = act_prepare, .flags = XALLOC_ARENA_FORK,
};

FIXTURE_VARIANT_ADD(fail_nth, fork_prepare_small)
{
	.act = act_prepare, .flags = XALLOC_ARENA_FORK, .policy = XALLOC_POLICY_SMALL,
};

static int act_name(struct scene *scene)
{
	int fd = name_create(NAME, ARENA_BYTES);

	(void)scene;
	/* That allocates too. */
	if (unlink(NAME) && errno == ENOMEM)
		unlink(NAME);
	return fd;
}

FIXTURE_VARIANT_ADD(fail_nth, name)
{
	.act = act_name, .opens = true,
};

static int act_meta(struct scene *scene)
{
	struct xalloc_ioc_meta arg = { .size = sizeof(arg), .bytes = KPAGE_BYTES };

	return call(scene->arena, XALLOC_IOC_META, &arg);
}

static bool has_no_meta(const struct scene *scene)
{
	struct xalloc_ioc_meta arg = { .size = sizeof(arg) };

	return call(scene->arena, XALLOC_IOC_META, &arg) == -ENOENT;
}

FIXTURE_VARIANT_ADD(fail_nth, meta)
{
	.act = act_meta, .opens = true, .is_undone = has_no_meta,
};

/* Of any kind, and silent. False where the kernel has no such thing. */
static bool faults_allow(void)
{
	return write_text(FAULTS "failslab/ignore-gfp-wait", "N") &&
	       write_text(FAULTS "fail_page_alloc/ignore-gfp-wait", "N") &&
	       write_text(FAULTS "fail_page_alloc/ignore-gfp-highmem", "N") &&
	       write_text(FAULTS "fail_page_alloc/min-order", "0") &&
	       write_text(FAULTS "failslab/verbose", "0") &&
	       write_text(FAULTS "fail_page_alloc/verbose", "0") &&
	       !access("/proc/self/fail-nth", W_OK);
}

static void scene_make(struct __test_metadata *_metadata, struct scene *scene, uint32_t policy,
		       uint32_t flags)
{
	struct xalloc_ioc_arena_create create = {
		.size = sizeof(create),
		/* For CLAIM, which needs an orphan. */
		.flags = flags | XALLOC_ARENA_PERSIST,
		.arena_bytes = ARENA_BYTES,
		.policy = policy,
	};
	struct xalloc_page_grant page;
	int other;

	scene->arena = call(scene->device, XALLOC_IOC_ARENA_CREATE, &create);
	ASSERT_LE(0, scene->arena);
	ASSERT_EQ(1, grant_page(scene->arena, 1, 0, &page));
	scene->page = page.offset;
	other = attach(scene->arena, 0, NULL);
	ASSERT_LE(0, other);
	ASSERT_EQ(1, grant_page(other, 1, 0, &page));
	scene->orphan = page.offset;
	close(other);
}

FIXTURE_SETUP(fail_nth)
{
	self->scene.device = device_setup(_metadata, &self->before);
	if (!faults_allow())
		SKIP(return, "the kernel has no fault injection: scripts/vm --debug");
}

FIXTURE_TEARDOWN(fail_nth)
{
	counters_expect(_metadata, self->scene.device, &self->before);
	close(self->scene.device);
}

static void nth_set(int fd, unsigned int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", nth);

	if (pwrite(fd, text, len, 0) != len)
		abort();
}

/* Whether the allocation was met that was to fail; then nothing is to fail any more. */
static bool nth_was_met(int fd)
{
	char text[16] = "";
	bool met = pread(fd, text, sizeof(text) - 1, 0) > 0 && atoi(text) == 0;

	nth_set(fd, 0);
	return met;
}

TEST_F(fail_nth, nothing_is_left_behind)
{
	/* Opened before, because an open is one of the things that fail. */
	int nth_fd = open("/proc/self/fail-nth", O_RDWR | O_CLOEXEC), rc;
	unsigned int nth = 0, nr_failed = 0;
	struct xalloc_ioc_stat with_scene;
	bool met = true;

	ASSERT_LE(0, nth_fd);
	while (met && nth++ < NTH_MAX) {
		scene_make(_metadata, &self->scene, variant->policy, variant->flags);
		with_scene = stat_of(self->scene.device);
		nth_set(nth_fd, nth);
		rc = variant->act(&self->scene);
		met = nth_was_met(nth_fd);
		if (rc < 0) {
			nr_failed++;
			EXPECT_TRUE(met && (rc == -ENOMEM || rc == -ENFILE)) {
				TH_LOG("allocation %u: %d", nth, rc);
			}
			EXPECT_TRUE(counters_wait(self->scene.device, &with_scene, 5000)) {
				TH_LOG("allocation %u left something behind", nth);
			}
			EXPECT_TRUE(!variant->is_undone || variant->is_undone(&self->scene)) {
				TH_LOG("allocation %u left the arena changed", nth);
			}
		} else if (variant->opens) {
			close(rc);
		}
		close(self->scene.arena);
		ASSERT_TRUE(counters_wait(self->scene.device, &self->before, 5000)) {
			TH_LOG("allocation %u, result %d", nth, rc);
		}
	}
	EXPECT_GT(NTH_MAX, nth);
	TH_LOG("%u allocations, %u of which failed it", nth - 1, nr_failed);
	close(nth_fd);
}

TEST_HARNESS_MAIN
