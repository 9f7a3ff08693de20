// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: a hook is told of each chunk of an arena before a block is in it, and before it
 * goes; what it refuses is not used.
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "libtest.h"
#include "selftest.h"

LIBTEST_FIXTURE(lib_hook, "32M")

#define NR_CHUNKS 16

/* What a device knows. */
struct device {
	pthread_mutex_t lock;
	struct iovec known[NR_CHUNKS];
	int nr, nr_asked, nr_added, nr_removed;
	int nr_accepted;            /* chunks that add() accepts before it returns an error */
	int error;                  /* this error, or 0: add() accepts all chunks */
	unsigned int delay_ms;
	struct xalloc_heap *nested; /* add() allocates there */
	struct xalloc_heap *last;   /* drop(), in vain */
	bool stops;                 /* the next hook says so and waits */
	sem_t stopped, go;
};

static void stop_next(struct device *device)
{
	sem_init(&device->stopped, 0, 0);
	sem_init(&device->go, 0, 0);
	device->stops = true;
}

/* Also where a thread would be cancelled. */
static void stop(struct device *device)
{
	pthread_testcancel();
	if (!device->stops)
		return;
	device->stops = false;
	sem_post(&device->stopped);
	sem_wait(&device->go);
}

/* What a device gives a chunk; no address. */
static void *cookie_of(const void *address)
{
	return (void *)((uintptr_t)address + 1);
}

static int add(void *ctx, void *address, size_t bytes, void **cookie)
{
	struct device *device = ctx;
	size_t at;
	int i;

	if (device->nested) {
		struct xalloc_heap *heap = device->nested;

		device->nested = NULL;
		if (!xalloc_heap_malloc(heap, 100) || !xalloc_malloc(100))
			abort();
	}
	stop(device);
	sleep_ms(device->delay_ms);
	if (device->error && device->nr_added >= device->nr_accepted) {
		device->nr_asked++;
		return device->error;
	}
	/* All of it is there. */
	for (at = 0; at < bytes; at += SEGMENT)
		*((volatile char *)address + at) = 0;
	pthread_mutex_lock(&device->lock);
	for (i = 0; i < device->nr; i++)
		if (device->known[i].iov_base == address)
			abort();
	if (device->nr == NR_CHUNKS)
		abort();
	device->known[device->nr++] = (struct iovec){ address, bytes };
	device->nr_added++;
	pthread_mutex_unlock(&device->lock);
	*cookie = cookie_of(address);
	return 0;
}

static void drop(void *ctx, void *address, size_t bytes, void *cookie)
{
	struct device *device = ctx;
	int i;

	if (cookie != cookie_of(address))
		abort();
	if (device->last && xalloc_heap_malloc(device->last, 100))
		abort();
	stop(device);
	*(volatile char *)address = 0;
	pthread_mutex_lock(&device->lock);
	for (i = 0; device->known[i].iov_base != address || device->known[i].iov_len != bytes; i++)
		if (i == device->nr)
			abort();
	device->known[i] = device->known[--device->nr];
	device->nr_removed++;
	pthread_mutex_unlock(&device->lock);
}

/* Has the device told of the chunks of @arena. NULL with errno set. */
static struct xalloc_hook *hook(struct xalloc_arena *arena, struct device *device)
{
	struct xalloc_chunk_hook config = {
		.size = sizeof(config),
		.added = add,
		.removed = drop,
		.ctx = device,
	};

	errno = 0;
	return xalloc_chunk_hook_add(arena, &config);
}

/* Whether one chunk that the device knows holds all of the block. */
static bool knows(const struct device *device, const char *ptr, size_t bytes)
{
	int i;

	for (i = 0; i < device->nr; i++) {
		const char *base = device->known[i].iov_base;

		if (ptr >= base && ptr + bytes <= base + device->known[i].iov_len)
			return true;
	}
	return false;
}

static struct xalloc_arena *arena_with(size_t arena_bytes, size_t limit_bytes, size_t chunk_bytes)
{
	struct xalloc_arena_config config = {
		.size = sizeof(config),
		.arena_bytes = arena_bytes,
		.limit_bytes = limit_bytes,
		.chunk_bytes = chunk_bytes,
	};

	return xalloc_arena_create(&config);
}

TEST_F(lib_hook, each_block_lies_in_one_chunk_that_is_known)
{
	struct xalloc_arena *arena = arena_with(64 * MIB, 32 * MIB, 4 * MIB);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	struct device device = { 0 };
	uint32_t seed = random_seed() | 1, i;
	struct iovec range;
	char *blocks[200] = { 0 };

	TH_LOG("SEED=%u", seed);
	ASSERT_NE(NULL, hook(arena, &device));
	ASSERT_EQ(0, xalloc_arena_range(arena, &range));
	ASSERT_EQ(0, device.nr);
	for (i = 0; i < 5000; i++) {
		uint32_t k = random_next(&seed) % 200;
		size_t size = random_next(&seed) % (1U << random_next(&seed) % 22) + 1;

		xalloc_free(blocks[k]);
		blocks[k] = random_next(&seed) % 8 ?
				    xalloc_heap_malloc(heap, size) :
				    xalloc_heap_aligned_alloc(heap, 2 * SLICE, size);
		if (blocks[k] && random_next(&seed) % 4 == 0) {
			char *longer = xalloc_realloc(blocks[k], size + size / 2);

			blocks[k] = longer ?: blocks[k];
		}
		if (!blocks[k])
			continue;
		ASSERT_TRUE(knows(&device, blocks[k], xalloc_usable_size(blocks[k])));
		blocks[k][0] = 1;
	}
	ASSERT_LT(1, device.nr);
	ASSERT_GE(8, device.nr);
	ASSERT_EQ(0, device.nr_removed);
	for (i = 0; i < (uint32_t)device.nr; i++)
		ASSERT_EQ(0, ((char *)device.known[i].iov_base - (char *)range.iov_base) %
				     (4 * MIB));
	/* Charged whole. */
	ASSERT_EQ(device.nr * 4 * MIB, stats_of(arena).committed_bytes);
	for (i = 0; i < 200; i++)
		xalloc_free(blocks[i]);
	ASSERT_EQ(0, xalloc_arena_trim(arena));
	ASSERT_EQ(0, device.nr);
	ASSERT_EQ(device.nr_added, device.nr_removed);
	ASSERT_EQ(0, stats_of(arena).committed_bytes);
	/* And from the start. */
	ASSERT_NE(NULL, xalloc_heap_malloc(heap, 4 * MIB));
	ASSERT_NE(NULL, xalloc_heap_malloc(heap, 1));
	ASSERT_EQ(2, device.nr);
	ASSERT_EQ(0, xalloc_arena_trim(arena));
	ASSERT_EQ(2, device.nr);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	ASSERT_EQ(0, device.nr);
}

TEST_F(lib_hook, an_error_of_the_hook_is_that_of_the_allocation)
{
	struct xalloc_arena *arena = arena_with(16 * MIB, 0, 8 * MIB);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	struct device device = { .error = -EIO };
	void *ptr;

	ASSERT_NE(NULL, hook(arena, &device));
	errno = 0;
	ASSERT_EQ(NULL, xalloc_heap_malloc(heap, 100));
	ASSERT_EQ(EIO, errno);
	ASSERT_EQ(NULL, xalloc_heap_malloc(heap, 3 * MIB));
	ASSERT_EQ(0, stats_of(arena).committed_bytes);
	ASSERT_EQ(EIO, stats_of(arena).refused);
	device.error = 0;
	ptr = xalloc_heap_calloc(heap, 1, 100);
	ASSERT_NE(NULL, ptr);
	ASSERT_TRUE(bytes_zero(ptr, 100));
	/* What fits into a chunk that is known needs no hook. */
	device.error = -EIO;
	ASSERT_NE(NULL, xalloc_heap_malloc(heap, 7 * MIB));
	ASSERT_EQ(NULL, xalloc_heap_malloc(heap, 2 * MIB));
	ASSERT_EQ(NULL, xalloc_heap_malloc(heap, 8 * MIB + 1));
	ASSERT_EQ(EFBIG, stats_of(arena).refused);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	ASSERT_EQ(0, device.nr);
}

/* Also one that the kernel has for its own refusals; and only what it refuses is tried again. */
TEST_F(lib_hook, any_error_of_the_hook_is_passed_on)
{
	static const int errors[] = { EDQUOT, ENOBUFS, EUSERS, ENOSR, ENOSPC, EFBIG, EIO };
	struct xalloc_arena *arena;
	struct xalloc_heap *heap;
	struct device device = { 0 };
	size_t i;

	setenv("XALLOC_LIMIT", "2M", 1);
	arena = arena_with(4 * MIB, 0, 2 * MIB);
	heap = xalloc_heap_create(arena);
	ASSERT_NE(NULL, hook(arena, &device));
	ASSERT_NE(NULL, hook(xalloc_arena_default(), &device));
	for (i = 0; i < ARRAY_SIZE(errors); i++) {
		device.error = -errors[i];
		device.nr_asked = 0;
		errno = 0;
		ASSERT_EQ(NULL, xalloc_heap_malloc(heap, 100));
		ASSERT_EQ(errors[i], errno);
		ASSERT_EQ(1, device.nr_asked);
		errno = 0;
		ASSERT_EQ(NULL, xalloc_malloc(100));
		ASSERT_EQ(errors[i], errno);
		ASSERT_EQ(2, device.nr_asked);
		ASSERT_EQ(errors[i], stats_of(arena).refused);
		ASSERT_EQ(i + 1, stats_of(arena).nr_refused);
		ASSERT_EQ(i + 1, stats_of(xalloc_arena_default()).nr_refused);
	}
	ASSERT_EQ(0, stats_of(arena).committed_bytes);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_hook, calloc_zeroes_what_was_used_in_a_chunk_before)
{
	struct xalloc_arena *arena = arena_with(8 * MIB, 0, 0);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	struct device device = { 0 };
	int i;

	ASSERT_NE(NULL, hook(arena, &device));
	for (i = 0; i < 3; i++) {
		char *small = xalloc_heap_calloc(heap, 1, 1000);
		char *large = xalloc_heap_calloc(heap, 1, 5 * MIB);

		ASSERT_NE(NULL, small);
		ASSERT_NE(NULL, large);
		ASSERT_TRUE(bytes_zero(small, 1000) && bytes_zero(large, 5 * MIB));
		memset(small, 1, 1000);
		memset(large, 1, 5 * MIB);
		ASSERT_EQ(1, device.nr_added);
		/* Its pages leave the heap, but the chunk stays. */
		ASSERT_EQ(0, xalloc_heap_destroy(heap));
		heap = xalloc_heap_create(arena);
	}
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_hook, chunks_are_replayed_to_a_later_hook)
{
	struct xalloc_arena *arena = arena_with(16 * MIB, 0, 2 * MIB);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	struct device first = { 0 }, second = { 0 }, failing = { .nr_accepted = 1, .error = -EIO };
	struct xalloc_hook *one, *two;
	char *ptr;

	ASSERT_NE(NULL, one = hook(arena, &first));
	ASSERT_NE(NULL, xalloc_heap_malloc(heap, 2 * MIB));
	ASSERT_NE(NULL, xalloc_heap_malloc(heap, 2 * MIB));
	ASSERT_EQ(2, first.nr);
	/* It accepts the first chunk and refuses the second. */
	ASSERT_EQ(NULL, hook(arena, &failing));
	ASSERT_EQ(EIO, errno);
	ASSERT_EQ(1, failing.nr_added);
	ASSERT_EQ(1, failing.nr_removed);
	ASSERT_EQ(2, first.nr);
	ASSERT_NE(NULL, two = hook(arena, &second));
	ASSERT_EQ(2, first.nr);
	ASSERT_EQ(2, second.nr);
	ASSERT_EQ(0, xalloc_chunk_hook_remove(one));
	ASSERT_EQ(0, first.nr);
	ASSERT_EQ(2, first.nr_removed);
	ASSERT_EQ(2, second.nr);
	ASSERT_NE(NULL, ptr = xalloc_heap_malloc(heap, MIB));
	ASSERT_EQ(3, second.nr);
	ASSERT_EQ(2, first.nr_added);
	ASSERT_EQ(0, xalloc_chunk_hook_remove(two));
	ASSERT_EQ(0, second.nr);
	/* Without a hook the arena goes on in chunks. */
	ASSERT_NE(NULL, xalloc_heap_malloc(heap, 2 * MIB));
	ASSERT_NE(NULL, one = hook(arena, &first));
	ASSERT_EQ(4, first.nr);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	ASSERT_EQ(0, first.nr);
	ASSERT_EQ(NULL, hook(arena, &first));
	ASSERT_EQ(ESTALE, errno);
	ASSERT_EQ(-ESTALE, xalloc_arena_trim(arena));
}

/* The calls of three hooks, as they come: the digit of the hook, behind a minus if removed. */
static char order[64];

static int add_in_order(void *ctx, void *address, size_t bytes, void **cookie)
{
	const char *digit = ctx;

	(void)address;
	(void)bytes;
	strcat(order, digit);
	*cookie = ctx;
	return *digit == '3' ? -ENOSPC : 0;
}

static void drop_in_order(void *ctx, void *address, size_t bytes, void *cookie)
{
	(void)address;
	(void)bytes;
	strcat(strcat(order, "-"), ctx == cookie ? ctx : "?");
}

TEST_F(lib_hook, hooks_are_told_in_order_and_withdrawn_from_the_last_one_on)
{
	struct xalloc_chunk_hook config = {
		.size = sizeof(config),
		.added = add_in_order,
		.removed = drop_in_order,
	};
	struct xalloc_arena *arena = arena_with(16 * MIB, 0, 2 * MIB);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	char digits[] = "1\0002\0003", *one = digits, *two = digits + 2, *three = digits + 4;
	struct xalloc_hook *hooks[3];
	char *ptr;

	order[0] = 0;
	config.ctx = one;
	ASSERT_NE(NULL, hooks[0] = xalloc_chunk_hook_add(arena, &config));
	config.ctx = two;
	ASSERT_NE(NULL, hooks[1] = xalloc_chunk_hook_add(arena, &config));
	ASSERT_NE(NULL, ptr = xalloc_heap_malloc(heap, 100));
	ASSERT_STREQ("12", order);
	ASSERT_EQ((void *)one, xalloc_chunk_cookie(hooks[0], ptr));
	ASSERT_EQ((void *)two, xalloc_chunk_cookie(hooks[1], ptr + 99));
	xalloc_free(ptr);
	ASSERT_EQ(0, xalloc_arena_trim(arena));
	ASSERT_STREQ("12-2-1", order);
	ASSERT_EQ(NULL, xalloc_chunk_cookie(hooks[0], ptr));
	ASSERT_EQ(NULL, xalloc_chunk_cookie(hooks[0], order));

	/* The third refuses what the other two have been told of. */
	order[0] = 0;
	config.ctx = three;
	ASSERT_NE(NULL, hooks[2] = xalloc_chunk_hook_add(arena, &config));
	errno = 0;
	ASSERT_EQ(NULL, xalloc_heap_malloc(heap, 100));
	ASSERT_EQ(ENOSPC, errno);
	ASSERT_STREQ("123-2-1", order);
	ASSERT_EQ(0, stats_of(arena).committed_bytes);
	ASSERT_EQ(0, xalloc_chunk_hook_remove(hooks[2]));
	ASSERT_NE(NULL, xalloc_heap_malloc(heap, 100));
	order[0] = 0;
	/* And it refuses the replay. */
	errno = 0;
	ASSERT_EQ(NULL, xalloc_chunk_hook_add(arena, &config));
	ASSERT_EQ(ENOSPC, errno);
	ASSERT_STREQ("3", order);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	ASSERT_STREQ("3-2-1", order);
}

TEST_F(lib_hook, an_arena_has_32_hooks)
{
	struct xalloc_arena *arena = arena_with(16 * MIB, 0, 2 * MIB);
	struct xalloc_chunk_hook config = { .size = sizeof(config) - 1 };
	struct device device = { 0 }, later = { 0 };
	struct xalloc_hook *hooks[32];
	int i;

	errno = 0;
	ASSERT_EQ(NULL, xalloc_chunk_hook_add(arena, &config));
	ASSERT_EQ(EINVAL, errno);
	errno = 0;
	ASSERT_EQ(NULL, xalloc_chunk_hook_add(arena, NULL));
	ASSERT_EQ(EINVAL, errno);
	config.size++;
	for (i = 0; i < 31; i++)
		ASSERT_NE(NULL, hooks[i] = xalloc_chunk_hook_add(arena, &config));
	ASSERT_NE(NULL, hooks[31] = hook(arena, &device));
	ASSERT_EQ(NULL, hook(arena, &device));
	ASSERT_EQ(ENOSPC, errno);
	ASSERT_NE(NULL, xalloc_heap_malloc(xalloc_heap_create(arena), 1));
	ASSERT_EQ(1, device.nr);
	ASSERT_EQ(0, xalloc_chunk_hook_remove(hooks[7]));
	ASSERT_NE(NULL, hook(arena, &later));
	ASSERT_EQ(1, later.nr);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	ASSERT_EQ(0, device.nr);
}

/* What a hook does that it may not, and what it was told. */
struct forbidden {
	struct xalloc_arena *arena;
	struct xalloc_hook *other;
	struct device device;
	int errors[4];
};

static int do_forbidden(void *ctx, void *address, size_t bytes, void **cookie)
{
	struct forbidden *f = ctx;

	(void)address;
	(void)bytes;
	(void)cookie;
	f->errors[0] = hook(f->arena, &f->device) ? 0 : errno;
	f->errors[1] = xalloc_chunk_hook_remove(f->other);
	f->errors[2] = xalloc_arena_destroy(f->arena);
	f->errors[3] = xalloc_arena_commit(f->arena, 0, 1);
	return 0;
}

TEST_F(lib_hook, a_hook_may_not_change_hooks)
{
	struct xalloc_arena *arena = arena_with(16 * MIB, 0, 2 * MIB);
	struct xalloc_arena *other = arena_with(16 * MIB, 0, 2 * MIB);
	struct forbidden f = { .arena = other };
	struct xalloc_chunk_hook config = {
		.size = sizeof(config),
		.added = do_forbidden,
		.ctx = &f,
	};

	ASSERT_NE(NULL, f.other = hook(other, &f.device));
	ASSERT_NE(NULL, xalloc_chunk_hook_add(arena, &config));
	ASSERT_NE(NULL, xalloc_heap_malloc(xalloc_heap_create(arena), 1));
	ASSERT_EQ(EDEADLK, f.errors[0]);
	ASSERT_EQ(-EDEADLK, f.errors[1]);
	ASSERT_EQ(-EDEADLK, f.errors[2]);
	ASSERT_EQ(-EDEADLK, f.errors[3]);
	ASSERT_EQ(0, xalloc_arena_destroy(other));
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_hook, a_hook_comes_before_the_first_block)
{
	struct xalloc_arena *arena = arena_of(16 * MIB, 0);
	struct device device = { 0 };
	static const size_t sizes[] = { MIB, 3 * MIB, 5 * MIB, 4097 };
	size_t i;

	ASSERT_NE(NULL, xalloc_heap_malloc(xalloc_heap_create(arena), 1));
	ASSERT_EQ(NULL, hook(arena, &device));
	ASSERT_EQ(EBUSY, errno);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		errno = 0;
		ASSERT_EQ(NULL, arena_with(16 * MIB, 0, sizes[i]));
		ASSERT_EQ(EINVAL, errno);
	}
	errno = 0;
	ASSERT_EQ(NULL, arena_with(16 * MIB, 0, 32 * MIB));
	ASSERT_EQ(EINVAL, errno);
}

TEST_F(lib_hook, the_default_heap_can_have_one)
{
	struct device device = { 0 };
	void *ptr;
	int i;

	ASSERT_NE(NULL, hook(xalloc_arena_default(), &device));
	for (i = 0; i < 1000; i++) {
		ptr = xalloc_malloc(i * 20);
		ASSERT_NE(NULL, ptr);
		ASSERT_TRUE(knows(&device, ptr, i * 20));
	}
	ASSERT_EQ(1, device.nr);
	ASSERT_EQ(32 * MIB, device.known[0].iov_len);
}

TEST_F(lib_hook, a_first_block_of_the_default_heap_commits_32_mib)
{
	struct device device = { 0 };

	setenv("XALLOC_LIMIT", "2G", 1);
	ASSERT_NE(NULL, hook(xalloc_arena_default(), &device));
	ASSERT_NE(NULL, xalloc_malloc(100));
	ASSERT_EQ(1, device.nr);
	ASSERT_EQ(32 * MIB, stats_of(xalloc_arena_default()).committed_bytes);
}

/* 32 MiB, 32, 64, and what is left of the limit. */
TEST_F(lib_hook, chunks_grow_and_use_all_of_the_limit)
{
	static const size_t lengths[] = { 32 * MIB, 32 * MIB, 64 * MIB, 8 * MIB };
	struct xalloc_arena *arena = arena_with(512 * MIB, 136 * MIB, 0);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	struct device device = { 0 };
	int nr = 0;

	ASSERT_NE(NULL, hook(arena, &device));
	ASSERT_NE(NULL, xalloc_heap_malloc(heap, 100));
	ASSERT_EQ(1, device.nr);
	ASSERT_EQ(32 * MIB, stats_of(arena).committed_bytes);
	while (nr < 200 && xalloc_heap_malloc(heap, MIB)) {
		nr++;
		ASSERT_EQ(lengths[device.nr - 1], device.known[device.nr - 1].iov_len);
	}
	ASSERT_EQ(ENOMEM, errno);
	ASSERT_EQ(EDQUOT, stats_of(arena).refused);
	ASSERT_LE(128, nr);
	ASSERT_EQ(4, device.nr);
	ASSERT_EQ(136 * MIB, stats_of(arena).committed_bytes);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	ASSERT_EQ(0, device.nr);
}

TEST_F(lib_hook, a_chunk_is_as_large_as_the_block_that_needs_it)
{
	struct xalloc_arena *arena = arena_with(512 * MIB, 80 * MIB, 0);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	struct device device = { 0 };
	char *ptr;

	ASSERT_NE(NULL, hook(arena, &device));
	ASSERT_NE(NULL, ptr = xalloc_heap_malloc(heap, 41 * MIB));
	ASSERT_TRUE(knows(&device, ptr, 41 * MIB));
	ASSERT_EQ(42 * MIB, stats_of(arena).committed_bytes);
	/* There is room for 38 MiB. */
	ASSERT_EQ(NULL, xalloc_heap_malloc(heap, 39 * MIB));
	ASSERT_EQ(EDQUOT, stats_of(arena).refused);
	ASSERT_NE(NULL, ptr = xalloc_heap_malloc(heap, 37 * MIB));
	ASSERT_TRUE(knows(&device, ptr, 37 * MIB));
	ASSERT_EQ(NULL, xalloc_heap_malloc(heap, 81 * MIB));
	ASSERT_EQ(EFBIG, stats_of(arena).refused);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_hook, a_whole_arena_is_committed_and_stays)
{
	struct xalloc_arena *arena = arena_with(32 * MIB, 0, 2 * MIB);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	struct device device = { 0 };
	struct iovec range;
	char *ptr;
	size_t at;

	/* A register call of the whole range comes before or behind the hook. */
	ASSERT_EQ(0, xalloc_arena_commit(arena, 0, 16 * MIB));
	ASSERT_EQ(16 * MIB, stats_of(arena).committed_bytes);
	ASSERT_NE(NULL, hook(arena, &device));
	ASSERT_EQ(8, device.nr);
	ASSERT_EQ(0, xalloc_arena_commit(arena, 0, 32 * MIB));
	ASSERT_EQ(16, device.nr);
	ASSERT_EQ(0, xalloc_arena_range(arena, &range));
	for (at = 0; at < range.iov_len; at += SLICE)
		((volatile char *)range.iov_base)[at] = 1;
	ASSERT_NE(NULL, ptr = xalloc_heap_calloc(heap, 1, MIB));
	xalloc_free(ptr);
	ASSERT_EQ(0, xalloc_arena_trim(arena));
	ASSERT_EQ(16, device.nr_added);
	ASSERT_EQ(0, device.nr_removed);
	ASSERT_EQ(32 * MIB, stats_of(arena).committed_bytes);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
	ASSERT_EQ(0, device.nr);
}

TEST_F(lib_hook, only_what_is_missing_of_a_range_is_committed)
{
	struct xalloc_arena *arena = arena_with(64 * MIB, 40 * MIB, 0);
	struct xalloc_arena *used = arena_with(8 * MIB, 0, 0);
	struct device device = { 0 };
	struct iovec range;
	char *base;

	ASSERT_EQ(-EINVAL, xalloc_arena_commit(arena, 0, 0));
	ASSERT_EQ(-ERANGE, xalloc_arena_commit(arena, 64 * MIB, 1));
	ASSERT_EQ(-ERANGE, xalloc_arena_commit(arena, 1, 64 * MIB));
	ASSERT_EQ(-ERANGE, xalloc_arena_commit(arena, UINT64_MAX, 2));
	ASSERT_NE(NULL, hook(arena, &device));
	ASSERT_EQ(0, xalloc_arena_range(arena, &range));
	base = range.iov_base;
	/* Rounded to 10 to 14 MiB. */
	ASSERT_EQ(0, xalloc_arena_commit(arena, 11 * MIB, 2 * MIB));
	ASSERT_EQ(1, device.nr);
	ASSERT_TRUE(knows(&device, base + 10 * MIB, 4 * MIB));
	ASSERT_EQ(0, xalloc_arena_commit(arena, 0, 32 * MIB));
	ASSERT_EQ(3, device.nr);
	ASSERT_TRUE(knows(&device, base, 10 * MIB));
	ASSERT_TRUE(knows(&device, base + 14 * MIB, 18 * MIB));
	ASSERT_EQ(32 * MIB, stats_of(arena).committed_bytes);
	ASSERT_EQ(0, xalloc_arena_commit(arena, 0, 32 * MIB));
	ASSERT_EQ(3, device.nr_added);
	ASSERT_EQ(-EDQUOT, xalloc_arena_commit(arena, 0, 64 * MIB));
	device.error = -EIO;
	ASSERT_EQ(-EIO, xalloc_arena_commit(arena, 0, 34 * MIB));
	ASSERT_EQ(32 * MIB, stats_of(arena).committed_bytes);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));

	ASSERT_NE(NULL, xalloc_heap_malloc(xalloc_heap_create(used), 1));
	ASSERT_EQ(-EBUSY, xalloc_arena_commit(used, 0, 1));
	ASSERT_EQ(0, xalloc_arena_destroy(used));
	ASSERT_EQ(-ESTALE, xalloc_arena_commit(used, 0, 1));
}

TEST_F(lib_hook, a_hook_may_allocate)
{
	struct xalloc_arena *arena = arena_with(16 * MIB, 0, 2 * MIB);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	struct device device = { .nested = heap }, second = { 0 };
	char *ptr;

	ASSERT_NE(NULL, hook(arena, &device));
	ASSERT_NE(NULL, hook(xalloc_arena_default(), &second));
	ASSERT_NE(NULL, ptr = xalloc_heap_malloc(heap, 100));
	ASSERT_EQ(2, device.nr);
	ASSERT_EQ(2, stats_of(arena).nr_blocks);
	ASSERT_EQ(1, second.nr);
	/* A hook of the default heap that needs it itself, in the middle of the first call. */
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

struct together {
	struct xalloc_arena *arena;
	struct xalloc_heap *heap;
	pthread_barrier_t barrier;
	struct device *device;
};

static void *allocate(void *arg)
{
	struct together *together = arg;
	char *ptr;
	long nr_bad = 0;
	int i;

	pthread_barrier_wait(&together->barrier);
	for (i = 0; i < 500; i++) {
		ptr = xalloc_heap_malloc(together->heap, 1000);
		nr_bad += !ptr;
		ptr = xalloc_malloc(1000);
		nr_bad += !ptr;
	}
	return (void *)nr_bad;
}

/* Threads that find no room while one of them is telling the hook of a chunk. */
static void expect_one_chunk(struct __test_metadata *_metadata, struct xalloc_arena *arena)
{
	struct device device = { .delay_ms = 50 }, second = { .delay_ms = 50 };
	struct together together = { .heap = xalloc_heap_create(arena), .device = &device };
	pthread_t threads[4];
	void *nr_bad;
	int i;

	ASSERT_NE(NULL, hook(arena, &device));
	ASSERT_NE(NULL, hook(xalloc_arena_default(), &second));
	pthread_barrier_init(&together.barrier, NULL, 4);
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, allocate, &together));
	for (i = 0; i < 4; i++) {
		pthread_join(threads[i], &nr_bad);
		ASSERT_EQ(NULL, nr_bad);
	}
	ASSERT_EQ(1, device.nr_added);
	ASSERT_EQ(1, second.nr_added);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_hook, threads_wait_for_the_only_chunk_that_another_adds)
{
	expect_one_chunk(_metadata, arena_with(16 * MIB, 8 * MIB, 0));
}

TEST_F(lib_hook, threads_wait_for_a_chunk_instead_of_adding_one_each)
{
	expect_one_chunk(_metadata, arena_with(256 * MIB, 256 * MIB, 0));
}

TEST_F(lib_hook, a_commit_that_is_refused_changes_nothing)
{
	struct xalloc_arena *arena = arena_with(6 * MIB, 6 * MIB, 4 * MIB);
	struct xalloc_heap *heap = xalloc_heap_create(arena);

	ASSERT_EQ(-EINVAL, xalloc_arena_commit(arena, 0, 0));
	ASSERT_EQ(-ERANGE, xalloc_arena_commit(arena, 0, 6 * MIB));
	ASSERT_EQ(-ERANGE, xalloc_arena_commit(arena, 4 * MIB, 1));
	ASSERT_EQ(-ERANGE, xalloc_arena_commit(arena, UINT64_MAX, 2));
	ASSERT_NE(NULL, xalloc_heap_malloc(heap, 100));
	/* The arena is not used in chunks, so this is no chunk of 4 MiB. */
	ASSERT_GE(2 * MIB, stats_of(arena).committed_bytes);
	ASSERT_EQ(-EBUSY, xalloc_arena_commit(arena, 0, 4 * MIB));
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

/* A thread that allocates one block. */
struct one {
	struct xalloc_heap *heap;
	bool is_cancelled; /* before that */
	atomic_int tid;
	void *ptr;
	int error;
};

static void *allocate_one(void *arg)
{
	struct one *one = arg;

	if (one->is_cancelled)
		pthread_cancel(pthread_self());
	atomic_store(&one->tid, gettid());
	one->ptr = xalloc_heap_malloc(one->heap, 100);
	one->error = errno;
	pthread_testcancel();
	return NULL;
}

TEST_F(lib_hook, a_thread_is_not_cancelled_where_it_waits_for_a_chunk)
{
	struct xalloc_arena *arena = arena_with(16 * MIB, 8 * MIB, 0);
	struct device device = { 0 };
	struct one first = { .heap = xalloc_heap_create(arena) };
	struct one second = { .heap = first.heap, .is_cancelled = true };
	pthread_t threads[2];
	void *result;

	stop_next(&device);
	ASSERT_NE(NULL, hook(arena, &device));
	ASSERT_EQ(0, pthread_create(&threads[0], NULL, allocate_one, &first));
	sem_wait(&device.stopped);
	ASSERT_EQ(0, pthread_create(&threads[1], NULL, allocate_one, &second));
	wait_until_asleep(&second.tid);
	ASSERT_EQ(EBUSY, pthread_tryjoin_np(threads[1], &result));
	sem_post(&device.go);
	ASSERT_EQ(0, pthread_join(threads[0], &result));
	ASSERT_NE(NULL, first.ptr);
	ASSERT_EQ(0, pthread_join(threads[1], &result));
	ASSERT_EQ(PTHREAD_CANCELED, result);
	ASSERT_NE(NULL, second.ptr);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

static void *trim(void *arg)
{
	xalloc_arena_trim(arg);
	return NULL;
}

/* There is memory for one chunk, which the hook is being told that it goes. */
TEST_F(lib_hook, an_allocation_waits_for_the_chunk_that_is_given_back)
{
	struct xalloc_arena *arena = arena_with(16 * MIB, 8 * MIB, 0);
	struct one one = { .heap = xalloc_heap_create(arena) };
	struct device device = { .last = one.heap };
	pthread_t trims, allocates;

	ASSERT_NE(NULL, hook(arena, &device));
	xalloc_free(xalloc_heap_malloc(one.heap, 100));
	stop_next(&device);
	ASSERT_EQ(0, pthread_create(&trims, NULL, trim, arena));
	sem_wait(&device.stopped);
	device.last = NULL;
	ASSERT_EQ(0, pthread_create(&allocates, NULL, allocate_one, &one));
	wait_until_asleep(&one.tid);
	sem_post(&device.go);
	ASSERT_EQ(0, pthread_join(allocates, NULL));
	ASSERT_EQ(0, pthread_join(trims, NULL));
	ASSERT_NE(NULL, one.ptr)
	{
		TH_LOG("errno %d", one.error);
	}
	ASSERT_EQ(2, device.nr_added);
	ASSERT_EQ(1, device.nr_removed);
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

/* A thread that trims, and one that removes a hook. */
struct leaving {
	struct xalloc_arena *arena;
	struct xalloc_hook *hook;
	atomic_int tid;
};

static void *trim_leaving(void *arg)
{
	struct leaving *leaving = arg;

	atomic_store(&leaving->tid, gettid());
	xalloc_arena_trim(leaving->arena);
	return NULL;
}

static void *remove_leaving(void *arg)
{
	struct leaving *leaving = arg;

	xalloc_chunk_hook_remove(leaving->hook);
	return NULL;
}

static int nr_removed_of(struct device *device)
{
	int nr;

	pthread_mutex_lock(&device->lock);
	nr = device->nr_removed;
	pthread_mutex_unlock(&device->lock);
	return nr;
}

/* Both tell a hook that the same chunk goes. */
TEST_F(lib_hook, memory_stays_until_the_last_hook_has_returned)
{
	struct leaving leaving = { .arena = arena_with(16 * MIB, 0, 2 * MIB) };
	struct xalloc_heap *heap = xalloc_heap_create(leaving.arena);
	struct device first = { 0 }, second = { 0 };
	pthread_t trims, removes;

	ASSERT_NE(NULL, leaving.hook = hook(leaving.arena, &first));
	ASSERT_NE(NULL, hook(leaving.arena, &second));
	xalloc_free(xalloc_heap_malloc(heap, 100));
	ASSERT_EQ(1, first.nr);
	stop_next(&first);
	stop_next(&second);
	ASSERT_EQ(0, pthread_create(&trims, NULL, trim_leaving, &leaving));
	sem_wait(&second.stopped);
	ASSERT_EQ(0, pthread_create(&removes, NULL, remove_leaving, &leaving));
	sem_wait(&first.stopped);
	/* The first hook has not returned yet. */
	sem_post(&second.go);
	while (!nr_removed_of(&second))
		sleep_ms(1);
	wait_until_asleep(&leaving.tid);
	ASSERT_EQ(2 * MIB, stats_of(leaving.arena).committed_bytes);
	sem_post(&first.go);
	ASSERT_EQ(0, pthread_join(trims, NULL));
	ASSERT_EQ(0, pthread_join(removes, NULL));
	ASSERT_EQ(0, stats_of(leaving.arena).committed_bytes);
	ASSERT_EQ(1, first.nr_removed);
	ASSERT_EQ(1, second.nr_removed);
	ASSERT_EQ(0, xalloc_arena_destroy(leaving.arena));
}

static void *take_turns(void *arg)
{
	struct together *together = arg;
	int i, nr_turns = is_fast() ? 500 : 20;
	long nr_bad = 0;
	void *ptr;

	pthread_barrier_wait(&together->barrier);
	for (i = 0; i < nr_turns; i++) {
		ptr = xalloc_heap_malloc(together->heap, 100);
		nr_bad += !ptr;
		xalloc_free(ptr);
		xalloc_arena_trim(together->arena);
		ptr = xalloc_malloc(100);
		nr_bad += !ptr;
		xalloc_free(ptr);
		xalloc_arena_trim(xalloc_arena_default());
	}
	return (void *)nr_bad;
}

/* Wherever the others are when one of them is refused. */
TEST_F(lib_hook, threads_add_and_give_back_the_only_chunk)
{
	struct device device = { 0 }, second = { 0 };
	struct together together = { 0 };
	pthread_t threads[3];
	void *nr_bad;
	size_t i;

	setenv("XALLOC_LIMIT", "2M", 1);
	together.arena = arena_with(4 * MIB, 2 * MIB, 0);
	together.heap = xalloc_heap_create(together.arena);
	ASSERT_NE(NULL, hook(together.arena, &device));
	ASSERT_NE(NULL, hook(xalloc_arena_default(), &second));
	pthread_barrier_init(&together.barrier, NULL, ARRAY_SIZE(threads));
	for (i = 0; i < ARRAY_SIZE(threads); i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, take_turns, &together));
	for (i = 0; i < ARRAY_SIZE(threads); i++) {
		pthread_join(threads[i], &nr_bad);
		EXPECT_EQ(NULL, nr_bad);
	}
	ASSERT_EQ(0, xalloc_arena_destroy(together.arena));
	ASSERT_EQ(device.nr_added, device.nr_removed);
}

/* Threads allocate and free in one arena, with two hooks, while a third comes and goes. */
struct crowd {
	struct xalloc_arena *arena;
	struct xalloc_heap *heap;
	struct xalloc_hook *hooks[2];
	pthread_barrier_t barrier;
	unsigned int nr_blocks; /* for each thread */
	atomic_uint nr_seeds;
	atomic_uint nr_ready;   /* threads that are done */
};

#define CROWD_CHUNK (2 * MIB)

/* The cookie says which chunk it is of: the right one? */
static bool cookie_is_right(struct xalloc_arena *arena, struct xalloc_hook *hook,
			    const char *ptr)
{
	struct iovec range;
	uintptr_t offset;

	if (xalloc_arena_range(arena, &range))
		return false;
	offset = ptr - (char *)range.iov_base;
	return xalloc_chunk_cookie(hook, ptr) ==
	       cookie_of((char *)range.iov_base + offset / CROWD_CHUNK * CROWD_CHUNK);
}

static void *mill_about(void *arg)
{
	struct crowd *crowd = arg;
	uint32_t seed = 77 + atomic_fetch_add(&crowd->nr_seeds, 1);
	char *blocks[64] = { 0 };
	unsigned int i;
	long nr_bad = 0;

	pthread_barrier_wait(&crowd->barrier);
	for (i = 0; i < crowd->nr_blocks; i++) {
		uint32_t k = random_next(&seed) % 64;
		size_t size = random_next(&seed) % (1U << random_next(&seed) % 18) + 1;

		xalloc_free(blocks[k]);
		blocks[k] = xalloc_heap_malloc(crowd->heap, size);
		if (!blocks[k] || !cookie_is_right(crowd->arena, crowd->hooks[0], blocks[k]) ||
		    !cookie_is_right(crowd->arena, crowd->hooks[1], blocks[k] + size - 1))
			nr_bad++;
		if (i % 512 == 0)
			xalloc_arena_trim(crowd->arena);
	}
	for (i = 0; i < 64; i++)
		xalloc_free(blocks[i]);
	atomic_fetch_add(&crowd->nr_ready, 1);
	return (void *)nr_bad;
}

TEST_F_TIMEOUT(lib_hook, each_hook_is_told_once_while_threads_allocate, TEST_TIMEOUT_LONG)
{
	struct device first = { 0 }, second = { 0 }, third = { 0 };
	struct crowd crowd = { .nr_blocks = is_long_run() ? 250000 : is_fast() ? 25000 : 2500 };
	struct xalloc_hook *passing;
	pthread_t threads[4];
	void *nr_bad;
	size_t i;

	crowd.arena = arena_with(NR_CHUNKS * CROWD_CHUNK, 0, CROWD_CHUNK);
	crowd.heap = xalloc_heap_create(crowd.arena);
	ASSERT_NE(NULL, crowd.hooks[0] = hook(crowd.arena, &first));
	ASSERT_NE(NULL, crowd.hooks[1] = hook(crowd.arena, &second));
	pthread_barrier_init(&crowd.barrier, NULL, ARRAY_SIZE(threads) + 1);
	for (i = 0; i < ARRAY_SIZE(threads); i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, mill_about, &crowd));
	pthread_barrier_wait(&crowd.barrier);
	while (atomic_load(&crowd.nr_ready) < ARRAY_SIZE(threads)) {
		void *ptr = xalloc_heap_malloc(crowd.heap, 100);

		ASSERT_NE(NULL, ptr);
		ASSERT_NE(NULL, passing = hook(crowd.arena, &third));
		ASSERT_TRUE(cookie_is_right(crowd.arena, passing, ptr));
		ASSERT_EQ(0, xalloc_chunk_hook_remove(passing));
		ASSERT_EQ(0, third.nr);
		xalloc_free(ptr);
	}
	for (i = 0; i < ARRAY_SIZE(threads); i++) {
		pthread_join(threads[i], &nr_bad);
		EXPECT_EQ(NULL, nr_bad);
	}
	EXPECT_EQ(first.nr_added, second.nr_added);
	EXPECT_EQ(first.nr, second.nr);
	EXPECT_LT(0, third.nr_added);
	TH_LOG("%d chunks told, %d to the hook that came and went", first.nr_added, third.nr_added);
	ASSERT_EQ(0, xalloc_arena_destroy(crowd.arena));
	EXPECT_EQ(0, first.nr);
	EXPECT_EQ(first.nr_added, first.nr_removed);
	EXPECT_EQ(second.nr_added, second.nr_removed);
	EXPECT_EQ(third.nr_added, third.nr_removed);
}

struct cancelled {
	struct xalloc_arena *arena;
	struct xalloc_heap *heap;
	struct device first, second;
	bool went_on;
};

/* Each call of a hook, with a cancellation pending. */
static void *call_hooks_cancelled(void *arg)
{
	struct cancelled *cancelled = arg;

	pthread_cancel(pthread_self());
	xalloc_free(xalloc_heap_malloc(cancelled->heap, 100));
	xalloc_arena_trim(cancelled->arena);
	xalloc_free(xalloc_heap_malloc(cancelled->heap, 100));
	xalloc_chunk_hook_remove(hook(cancelled->arena, &cancelled->second));
	xalloc_arena_destroy(cancelled->arena);
	cancelled->went_on = true;
	pthread_testcancel();
	return NULL;
}

TEST_F(lib_hook, a_thread_is_not_cancelled_in_a_hook)
{
	struct cancelled cancelled = { .arena = arena_with(16 * MIB, 0, 8 * MIB) };
	pthread_t thread;
	void *result;

	cancelled.heap = xalloc_heap_create(cancelled.arena);
	ASSERT_NE(NULL, hook(cancelled.arena, &cancelled.first));
	ASSERT_EQ(0, pthread_create(&thread, NULL, call_hooks_cancelled, &cancelled));
	ASSERT_EQ(0, pthread_join(thread, &result));
	ASSERT_EQ(PTHREAD_CANCELED, result);
	ASSERT_TRUE(cancelled.went_on);
	ASSERT_EQ(2, cancelled.first.nr_added);
	ASSERT_EQ(2, cancelled.first.nr_removed);
	ASSERT_EQ(1, cancelled.second.nr_added);
	ASSERT_EQ(1, cancelled.second.nr_removed);
}

TEST_HARNESS_MAIN
