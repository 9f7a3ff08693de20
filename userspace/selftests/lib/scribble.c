// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: a thread that writes random bytes over an arena, free and used blocks alike, as a
 * device that went wild would, changes no answer of libxalloc. The same sequence of calls runs
 * with and without it, and all answers are compared: which address, how large, refused or
 * not, what a pointer is, what the statistics say.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "libtest.h"
#include "selftest.h"

LIBTEST_FIXTURE(lib_scribble, "16M")

#define NR_BLOCKS 400
#define NR_HEAPS 3
#define CALLS_PER_WRITE 2
/* Of an arena: less is committed, so that memory runs out now and then. */
#define ARENA_BYTES (32 * MIB)
#define LIMIT_BYTES (16 * MIB)

/* The library keeps free memory for a second: here it never ends, so that speed does not matter. */
int clock_gettime(clockid_t id, struct timespec *now)
{
	if (id == CLOCK_MONOTONIC_COARSE) {
		*now = (struct timespec){ .tv_sec = 1000 };
		return 0;
	}
	return syscall(SYS_clock_gettime, id, now);
}

/* What a call said. An address is told as the arena, 0 or 1, and the offset in it. */
struct answer {
	uint32_t call;
	int32_t error;
	uint64_t offset;
	uint64_t usable;
	uint64_t more;
};

struct run {
	uint32_t seed;
	uint32_t nr;
	bool scribble;
	struct answer *answers;
	atomic_ulong *nr_writes; /* that found memory */
};

static struct {
	char *ptr;
	size_t size;
	size_t alignment;
} blocks[NR_BLOCKS];

static struct iovec ranges[2];
static atomic_bool stop;
/* A block, which may be free by now: half of all writes go there. */
static char *_Atomic latest;

/* Random bytes to random places, by system calls, which fail where no memory is. */
static void *scribble(void *arg)
{
	static char bytes[2 * SLICE];
	struct run *run = arg;
	uint32_t seed = 12345, i;
	/* From a file, which is copied: memory that is pinned would not go back at once. */
	int fd = memfd_create("bytes", 0);

	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = random_next(&seed) >> 24;
	if (fd < 0 || write(fd, bytes, sizeof(bytes)) != sizeof(bytes))
		abort();
	while (!atomic_load(&stop)) {
		struct iovec *range = &ranges[random_next(&seed) % 2];
		size_t length = 1 + random_next(&seed) % (SLICE >> random_next(&seed) % 16);
		size_t at = ((uint64_t)random_next(&seed) << 12) % (range->iov_len - SLICE);
		char *to = (char *)range->iov_base + at + random_next(&seed) % KPAGE_BYTES;
		uint32_t from = random_next(&seed) % SLICE;
		char *ptr = atomic_load(&latest);

		if (ptr && random_next(&seed) % 2) {
			to = ptr;
			length = 16;
		}
		if (syscall(SYS_pread64, fd, to, length, (loff_t)from) > 0)
			atomic_fetch_add(run->nr_writes, 1);
	}
	close(fd);
	return NULL;
}

/* 0 for NULL; the arena in the lowest bit, where addresses have none. */
static uint64_t offset_of(const void *ptr)
{
	unsigned int i;

	if (!ptr)
		return 0;
	for (i = 0; i < 2; i++)
		if ((uintptr_t)ptr - (uintptr_t)ranges[i].iov_base < ranges[i].iov_len)
			return (uintptr_t)ptr - (uintptr_t)ranges[i].iov_base + 16 + i;
	return ~0ULL;
}

static size_t size_any(uint32_t *seed)
{
	unsigned int bits = random_next(seed) % 100;

	bits = bits < 3 ? 21 : bits < 15 ? 18 : 1 + bits % 15;
	return random_next(seed) & ((1U << bits) - 1);
}

/* One call of the sequence, which depends on nothing but @seed and the answers before. */
static void answer_call(struct xalloc_heap **heaps, struct xalloc_arena **arenas, uint32_t *seed,
			struct answer *answer)
{
	uint32_t slot = random_next(seed) % NR_BLOCKS, which = random_next(seed) % NR_HEAPS;
	size_t size = size_any(seed), alignment = 1UL << random_next(seed) % 18;
	struct xalloc_heap *heap = heaps[which];
	uint32_t inside = random_next(seed), how = random_next(seed) % 8;
	struct xalloc_block_handle handle = { 0 };
	struct xalloc_arena_stat stat;
	char *ptr = blocks[slot].ptr;

	errno = 0;
	answer->call = how;
	if (!ptr) {
		blocks[slot].alignment = how < 2 ? alignment : 0;
		if (how < 2)
			ptr = heap ? xalloc_heap_aligned_alloc(heap, alignment, size) :
				     xalloc_aligned_alloc(alignment, size);
		else if (how < 4)
			ptr = heap ? xalloc_heap_calloc(heap, 1, size) : xalloc_calloc(1, size);
		else
			ptr = heap ? xalloc_heap_malloc(heap, size) : xalloc_malloc(size);
		blocks[slot].ptr = ptr;
		blocks[slot].size = size;
	} else if (how == 0) {
		ptr = heap ? xalloc_heap_realloc(heap, ptr, size) : xalloc_realloc(ptr, size);
		if (ptr) {
			blocks[slot].ptr = ptr;
			blocks[slot].size = size;
			blocks[slot].alignment = 0;
		}
	} else if (how == 1) {
		/* What is an address inside of it, and what somewhere? */
		answer->more = -xalloc_handle(ptr + inside % (blocks[slot].size + 1), &handle);
		ptr = (char *)ranges[inside % 2].iov_base + inside % ranges[inside % 2].iov_len;
		answer->more |= (uint64_t)-xalloc_handle(ptr, &handle) << 32 |
				(uint64_t)handle.offset << 40;
		ptr = blocks[slot].ptr;
	} else if (how == 2 && slot % 8 == 0) {
		stat = stats_of(arenas[which % 2]);
		answer->more = stat.nr_blocks ^ stat.used_bytes << 1 ^ stat.granted_bytes << 2 ^
			       stat.committed_bytes << 3 ^ stat.nr_refused << 40;
		ptr = NULL;
	} else {
		if (how < 5)
			xalloc_free(ptr);
		else if (blocks[slot].alignment)
			xalloc_free_aligned_sized(ptr, blocks[slot].alignment, blocks[slot].size);
		else
			xalloc_free_sized(ptr, blocks[slot].size);
		ptr = NULL;
		blocks[slot].ptr = NULL;
	}
	if (ptr)
		atomic_store(&latest, ptr);
	answer->error = errno;
	answer->offset = offset_of(ptr);
	answer->usable = xalloc_usable_size(ptr);
}

static int run_sequence(void *arg)
{
	struct xalloc_arena *arenas[2];
	struct xalloc_heap *heaps[NR_HEAPS] = { NULL };
	struct run *run = arg;
	uint32_t seed = run->seed, i;
	pthread_t thread;
	char *ptr;

	alarm(2000);
	arenas[0] = xalloc_arena_default();
	arenas[1] = arena_of(ARENA_BYTES, LIMIT_BYTES);
	for (i = 0; i < 2; i++)
		if (!arenas[i] || xalloc_arena_range(arenas[i], &ranges[i]))
			return 1;
	for (i = 1; i < NR_HEAPS; i++) {
		heaps[i] = xalloc_heap_create(arenas[1]);
		if (!heaps[i])
			return 2;
	}
	/* In both runs, so that they differ in nothing else. */
	atomic_store(&stop, !run->scribble);
	if (pthread_create(&thread, NULL, scribble, run))
		return 3;
	for (i = 0; i < run->nr; i++) {
		/* No less often than once in so many calls, also with one CPU. */
		while (run->scribble && atomic_load(run->nr_writes) < i / CALLS_PER_WRITE)
			sched_yield();
		answer_call(heaps, arenas, &seed, &run->answers[i]);
	}
	/* And is a wrong pointer still found? */
	ptr = xalloc_malloc(100);
	xalloc_free(ptr);
	xalloc_free(ptr);
	return 4;
}

/* The text of the last message without its numbers. */
static void strip_numbers(char *text)
{
	char *to = text;

	for (; *text; text++)
		if (!strchr("0123456789abcdefx", *text))
			*to++ = *text;
	*to = 0;
}

/* The sequence without the thread and with it: answers and last message of each. */
struct outcome {
	struct answer *answers[2];
	char texts[2][4096];
};

static void run_both(struct __test_metadata *_metadata, struct run *run, struct outcome *outcome)
{
	int i;

	atomic_store(run->nr_writes, 0);
	for (i = 0; i < 2; i++) {
		char *text = outcome->texts[i];
		int status;

		run->answers = outcome->answers[i];
		run->scribble = i;
		status = run_child(run_sequence, run, text, sizeof(outcome->texts[i]));
		ASSERT_EQ(256 + SIGABRT, status) {
			TH_LOG("%s scribbling: %s", i ? "while" : "without", text);
		}
		strip_numbers(text);
	}
}

/* Whether all answers are the same; tells of the first that are not. */
static bool is_same(struct __test_metadata *_metadata, const struct outcome *outcome, uint32_t nr)
{
	uint32_t k;

	for (k = 0; k < nr; k++) {
		const struct answer *a = &outcome->answers[0][k], *b = &outcome->answers[1][k];

		if (!memcmp(a, b, sizeof(*a)))
			continue;
		TH_LOG("call %u (%u): %llx %llu %llx error %d; %llx %llu %llx error %d", k, a->call,
		       (unsigned long long)a->offset, (unsigned long long)a->usable,
		       (unsigned long long)a->more, a->error, (unsigned long long)b->offset,
		       (unsigned long long)b->usable, (unsigned long long)b->more, b->error);
		return false;
	}
	return true;
}

/*
 * A fault of the thread may hold memory of the device for a moment, and what is freed then
 * counts as pinned for 50 ms, which answers tell. That does not happen each time.
 */
TEST_F_TIMEOUT(lib_scribble, wild_writes_change_no_answer, TEST_TIMEOUT_LONG)
{
	uint32_t nr = is_long_run() ? 2000000 : 20000, k, nr_refused = 0;
	int tries = is_local() ? 1 : 3, i;
	size_t bytes = nr * sizeof(struct answer);
	struct run run = { .seed = random_seed() | 1, .nr = nr };
	struct outcome outcome;
	bool same = false;

	TH_LOG("SEED=%u", run.seed);
	run.nr_writes = mmap(NULL, KPAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			     -1, 0);
	ASSERT_NE(MAP_FAILED, run.nr_writes);
	for (i = 0; i < 2; i++) {
		outcome.answers[i] = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
					  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		ASSERT_NE(MAP_FAILED, outcome.answers[i]);
	}
	for (i = 0; i < tries && !same; i++) {
		run_both(_metadata, &run, &outcome);
		same = is_same(_metadata, &outcome, nr);
	}
	ASSERT_TRUE(same);
	ASSERT_STREQ(outcome.texts[0], outcome.texts[1]);
	for (k = 0; k < nr; k++)
		nr_refused += outcome.answers[0][k].error == ENOMEM;
	TH_LOG("%u answers, %u of them ENOMEM, with %llu writes", nr, nr_refused,
	       (unsigned long long)*run.nr_writes);
	ASSERT_NE(0, nr_refused);
	ASSERT_LE(nr / CALLS_PER_WRITE - 1, *run.nr_writes);
}

TEST_HARNESS_MAIN
