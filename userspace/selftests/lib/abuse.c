// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: random misuses of random blocks, some by two threads at once, some of blocks whose
 * thread, heap or arena is gone, each in a child of its own. All must end with SIGABRT and one
 * line that names the pointer. 100,000 with LONG=1 on the local backend.
 */
#include <pthread.h>

#include "libtest.h"
#include "selftest.h"

LIBTEST_FIXTURE(lib_abuse, "32M")

#define NR_BYSTANDERS 24
/* Of a child that found nothing to misuse: another seed, please. */
#define NOT_THIS_TIME 77

struct victim {
	char *ptr;
	size_t size;
	size_t usable;
	size_t alignment; /* of xalloc_aligned_alloc(), or 0 */
	uint32_t seed;
};

/* What a child misuses, for its parent to look for in the message. */
static const void *volatile *announced;
static struct xalloc_arena *arena;
static struct xalloc_heap *heap;
static pthread_barrier_t barrier;

static size_t any_size(uint32_t *seed)
{
	unsigned int bits = random_next(seed) % 20;

	/* Up to 1 MiB, and 3 MiB. */
	return bits ? random_next(seed) & ((2UL << bits) - 1) : 3 * MIB;
}

/* In the default heap, in another one, or @aligned; by default any of these. */
static void victim_alloc(struct victim *victim, uint32_t *seed, int how)
{
	victim->size = any_size(seed);
	victim->alignment = 0;
	switch (how < 0 ? (int)(random_next(seed) % 3) : how) {
	case 0:
		victim->ptr = xalloc_malloc(victim->size);
		break;
	case 1:
		victim->ptr = xalloc_heap_malloc(heap, victim->size);
		break;
	default:
		victim->alignment = 1UL << random_next(seed) % 18;
		victim->ptr = xalloc_aligned_alloc(victim->alignment, victim->size);
	}
	if (!victim->ptr)
		_exit(NOT_THIS_TIME);
	victim->usable = xalloc_usable_size(victim->ptr);
}

static void *alloc_in_thread(void *arg)
{
	struct victim *victim = arg;

	victim_alloc(victim, &victim->seed, -1);
	return NULL;
}

static void *free_in_thread(void *arg)
{
	xalloc_free(((struct victim *)arg)->ptr);
	return NULL;
}

static void run_thread(void *(*run)(void *), void *arg)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, run, arg) || pthread_join(thread, NULL))
		_exit(3);
}

/* Blocks come and go around the victim; none where @avoid was, which would make it live again. */
static void traffic(uint32_t *seed, const char *avoid)
{
	struct victim others[NR_BYSTANDERS];
	unsigned int i, nr = random_next(seed) % NR_BYSTANDERS;

	for (i = 0; i < nr; i++)
		victim_alloc(&others[i], seed, -1);
	for (i = 0; i < nr; i++)
		if (others[i].ptr == avoid || random_next(seed) % 4)
			xalloc_free(others[i].ptr);
}

/* Any call that takes a block, with @ptr, which is none. */
static void use_badly(const struct victim *victim, char *ptr, uint32_t *seed)
{
	*announced = ptr;
	switch (random_next(seed) % 8) {
	case 0:
		xalloc_free_sized(ptr, victim->size);
		break;
	case 1:
		xalloc_free_aligned_sized(ptr, victim->alignment ? victim->alignment : 16,
					  victim->size);
		break;
	case 2:
		*announced = xalloc_realloc(ptr, any_size(seed));
		break;
	case 3:
		*announced = xalloc_heap_realloc(heap, ptr, any_size(seed));
		break;
	case 4:
		*announced = (void *)xalloc_usable_size(ptr);
		break;
	default:
		xalloc_free(ptr);
	}
}

/* The ways: they return only if nobody noticed. */

static void free_twice(uint32_t *seed)
{
	struct victim victim;

	victim_alloc(&victim, seed, -1);
	traffic(seed, NULL);
	xalloc_free(victim.ptr);
	traffic(seed, victim.ptr);
	use_badly(&victim, victim.ptr, seed);
}

static void *free_at_once(void *arg)
{
	pthread_barrier_wait(&barrier);
	return free_in_thread(arg);
}

/*
 * One free may be of no effect until the thread that did it hands it on, but not longer than the
 * address is kept from others.
 */
static void free_by_two_threads(uint32_t *seed)
{
	struct victim victim = { .seed = random_next(seed) | 1 };
	pthread_t threads[2];
	unsigned int i, nr = 1 + random_next(seed) % 2, nr_given = 0;
	void *ptr;

	if (random_next(seed) % 2)
		run_thread(alloc_in_thread, &victim);
	else
		victim_alloc(&victim, seed, -1);
	traffic(seed, NULL);
	*announced = victim.ptr;
	pthread_barrier_init(&barrier, NULL, 2);
	for (i = 0; i < nr; i++)
		if (pthread_create(&threads[i], NULL, free_at_once, &victim))
			_exit(3);
	if (nr < 2)
		free_at_once(&victim);
	for (i = 0; i < nr; i++)
		pthread_join(threads[i], NULL);
	for (i = 0; i < 300; i++) {
		ptr = xalloc_malloc(victim.size);
		nr_given += ptr == victim.ptr;
		if (!ptr || nr_given > 1)
			break;
	}
	/* A block that is aligned may be of another class: this thread puts all back. */
	if (nr_given < 2)
		xalloc_arena_trim(xalloc_arena_default());
}

static void use_inside(uint32_t *seed)
{
	struct victim victim;

	victim_alloc(&victim, seed, -1);
	traffic(seed, NULL);
	use_badly(&victim, victim.ptr + 1 + random_next(seed) % (victim.usable - 1), seed);
}

static void use_inside_freed(uint32_t *seed)
{
	struct victim victim;

	victim_alloc(&victim, seed, -1);
	xalloc_free(victim.ptr);
	use_badly(&victim, victim.ptr + 1 + random_next(seed) % (victim.usable - 1), seed);
}

static void use_foreign(uint32_t *seed)
{
	struct xalloc_block_handle handle;
	static char in_data[64];
	struct victim victim;
	struct iovec range;
	uintptr_t ptr;

	victim_alloc(&victim, seed, -1);
	xalloc_arena_range(random_next(seed) % 2 ? arena : xalloc_arena_default(), &range);
	ptr = (uint64_t)random_next(seed) << 32 | random_next(seed);
	switch (random_next(seed) % 10) {
	case 0:
		ptr = (uintptr_t)in_data + ptr % sizeof(in_data);
		break;
	case 1:
		ptr = (uintptr_t)&victim + ptr % sizeof(victim);
		break;
	case 2:
		ptr = (uintptr_t)malloc(1 + ptr % 300000);
		break;
	case 3:
		ptr = (uintptr_t)use_foreign + ptr % 100;
		break;
	case 4:
		ptr = 1 + ptr % 100000;
		break;
	case 5:
		ptr = (uintptr_t)victim.ptr ^ 1UL << (20 + ptr % 44);
		break;
	case 6:
		ptr = (uintptr_t)victim.ptr + victim.usable;
		break;
	case 7:
		ptr = (uintptr_t)range.iov_base + ptr % range.iov_len;
		break;
	case 8:
		ptr = (uintptr_t)range.iov_base + ptr % range.iov_len / 16 * 16;
		break;
	}
	if (!ptr || !xalloc_handle((void *)ptr, &handle))
		_exit(NOT_THIS_TIME);
	use_badly(&victim, (char *)ptr, seed);
}

/* Another size: of a class nearby, near a limit, or any. */
static size_t other_size(const struct victim *victim, uint32_t *seed)
{
	static const size_t sizes[] = {
		0, 1, 65535, 65536, 65537, PTRDIFF_MAX, SIZE_MAX - 65535, SIZE_MAX - 4095,
		SIZE_MAX - 15, SIZE_MAX,
	};

	switch (random_next(seed) % 4) {
	case 0:
		return victim->usable + 1 + random_next(seed) % 16;
	case 1:
		return victim->usable - victim->usable / 8 - random_next(seed) % 16;
	case 2:
		return sizes[random_next(seed) % ARRAY_SIZE(sizes)];
	default:
		return any_size(seed);
	}
}

/* Above 64 KiB and up to 1 MiB sizes are rounded up to an eighth of the power of two below them. */
static size_t medium_bytes(size_t size)
{
	size_t step = SLICE / 8;

	if (size <= SLICE || size > 16 * SLICE)
		return 0;
	while (size > 16 * step)
		step *= 2;
	return (size + step - 1) / step * step;
}

/* Whether @size may be named when the victim is freed; @probe is a block of it, or NULL. */
static bool is_its_size(const struct victim *victim, size_t size, const void *probe)
{
	if (medium_bytes(size) && medium_bytes(size) == medium_bytes(victim->size))
		return true;
	return probe ? xalloc_usable_size(probe) == victim->usable : size <= victim->usable;
}

static void free_with_wrong_size(uint32_t *seed)
{
	struct victim victim;
	size_t size;
	void *probe;

	victim_alloc(&victim, seed, random_next(seed) % 2);
	size = other_size(&victim, seed);
	probe = xalloc_malloc(size);
	if (is_its_size(&victim, size, probe))
		_exit(NOT_THIS_TIME);
	traffic(seed, NULL);
	*announced = victim.ptr;
	xalloc_free_sized(victim.ptr, size);
}

static void free_with_wrong_alignment(uint32_t *seed)
{
	struct victim victim;
	size_t alignment, size;
	void *probe = NULL;
	bool is_power;

	victim_alloc(&victim, seed, 2);
	size = random_next(seed) % 2 ? other_size(&victim, seed) : victim.size;
	alignment = random_next(seed) % 2 ? random_next(seed) % 5000 : victim.alignment;
	if (random_next(seed) % 4 == 0)
		alignment = 1UL << random_next(seed) % 64;
	is_power = alignment && !(alignment & (alignment - 1));
	if (is_power)
		probe = xalloc_aligned_alloc(alignment, size);
	if (is_power && is_its_size(&victim, size ? size : 1, probe))
		_exit(NOT_THIS_TIME);
	*announced = victim.ptr;
	xalloc_free_aligned_sized(victim.ptr, alignment, size);
}

static void use_of_exited_thread(uint32_t *seed)
{
	struct victim victim = { .seed = random_next(seed) | 1 };

	if (random_next(seed) % 2)
		traffic(seed, NULL);
	run_thread(alloc_in_thread, &victim);
	traffic(seed, NULL);
	switch (random_next(seed) % 4) {
	case 0: /* freed by another thread, which is gone too */
		run_thread(free_in_thread, &victim);
		traffic(seed, victim.ptr);
		use_badly(&victim, victim.ptr, seed);
		break;
	case 1:
		xalloc_free(victim.ptr);
		traffic(seed, victim.ptr);
		use_badly(&victim, victim.ptr, seed);
		break;
	case 2: /* the second free is by one that takes over the heap of the first */
		xalloc_free(victim.ptr);
		*announced = victim.ptr;
		run_thread(free_in_thread, &victim);
		break;
	default:
		use_badly(&victim, victim.ptr + 1 + random_next(seed) % (victim.usable - 1), seed);
	}
}

static void use_of_destroyed_heap(uint32_t *seed)
{
	struct victim victim;

	traffic(seed, NULL);
	victim_alloc(&victim, seed, 1);
	if (xalloc_heap_destroy(heap))
		_exit(3);
	heap = xalloc_heap_create(arena);
	if (random_next(seed) % 2)
		traffic(seed, victim.ptr);
	use_badly(&victim, victim.ptr, seed);
}

static void use_of_destroyed_arena(uint32_t *seed)
{
	struct victim victim;

	victim_alloc(&victim, seed, 1);
	if (xalloc_arena_destroy(arena))
		_exit(3);
	arena = arena_of(16 * MIB, 0);
	heap = xalloc_heap_create(arena);
	if (random_next(seed) % 2)
		traffic(seed, victim.ptr);
	use_badly(&victim, victim.ptr, seed);
}

static const struct way {
	const char *name;
	void (*run)(uint32_t *seed);
} ways[] = {
	{ "double", free_twice },
	{ "double by two threads at once", free_by_two_threads },
	{ "interior", use_inside },
	{ "interior of a free block", use_inside_freed },
	{ "foreign", use_foreign },
	{ "wrong size", free_with_wrong_size },
	{ "wrong alignment or size", free_with_wrong_alignment },
	{ "after its thread has ended", use_of_exited_thread },
	{ "after heap_destroy", use_of_destroyed_heap },
	{ "after arena_destroy", use_of_destroyed_arena },
};

#define NR_WAYS ARRAY_SIZE(ways)

/* Returns as child_status(). Into @text goes what it wrote to stderr, which is @pipe. */
static int misuse(const struct way *way, uint32_t seed, int pipes[2], char *text, size_t bytes)
{
	ssize_t len;
	int status;
	pid_t pid;

	pid = fork();
	if (!pid) {
		struct rlimit none = { 0 };

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGABRT, SIG_DFL);
		alarm(CHILD_STUCK_SECONDS);
		dup2(pipes[1], STDERR_FILENO);
		arena = arena_of(16 * MIB, 0);
		heap = xalloc_heap_create(arena);
		if (!heap)
			_exit(3);
		way->run(&seed);
		_exit(0);
	}
	if (pid < 0)
		return -errno;
	status = child_status(pid);
	len = read(pipes[0], text, bytes - 1);
	text[len < 0 ? 0 : len] = 0;
	return status;
}

/* Whether @text is one line, of the library, that names what was announced. */
static bool is_said(const char *text)
{
	char pointer[32];

	snprintf(pointer, sizeof(pointer), "(%p", *announced);
	return strstr(text, "xalloc: xalloc_") == text && strstr(text, pointer) &&
	       strchr(text, '\n') == text + strlen(text) - 1;
}

TEST_F_TIMEOUT(lib_abuse, all_of_many_misuses_are_caught, TEST_TIMEOUT_LONG)
{
	unsigned int i, k, nr = is_local() ? 40 : 10, nr_caught, nr_missed = 0;
	uint32_t seed = random_seed() | 1, child_seed;
	int pipes[2], status;
	char text[4096];

	if (is_long_run())
		nr = (is_local() ? 100000 : 10000) / NR_WAYS;
	TH_LOG("SEED=%u", seed);
	announced = mmap(NULL, KPAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			 -1, 0);
	ASSERT_NE(MAP_FAILED, announced);
	ASSERT_EQ(0, pipe2(pipes, O_NONBLOCK | O_CLOEXEC));
	for (i = 0; i < NR_WAYS; i++) {
		for (k = 0, nr_caught = 0; k < nr; k++) {
			do {
				child_seed = random_next(&seed);
				status = misuse(&ways[i], child_seed, pipes, text, sizeof(text));
			} while (status == NOT_THIS_TIME);
			if (status == 256 + SIGABRT && is_said(text))
				nr_caught++;
			else if (nr_missed++ < 10)
				TH_LOG("%s, %p, seed %u: status %d: %s", ways[i].name, *announced,
				       child_seed, status, text);
		}
		TH_LOG("%5u of %5u caught: %s", nr_caught, nr, ways[i].name);
	}
	ASSERT_EQ(0, nr_missed);
}

TEST_HARNESS_MAIN
