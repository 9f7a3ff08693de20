// SPDX-License-Identifier: MIT
/*
 * libxalloc on its local backend against a table of what it gave out, for libFuzzer: the input is
 * the sizes of an arena and then a sequence of calls on its heaps and on the default one, some of
 * them by another thread. A few bytes of it may stand for a burst of random ones. Of each block the
 * table has address, size and a pattern. Blocks are aligned, lie in their arena and in no other
 * block, and hold what was written; statistics are the sums of the table; an address is a block's
 * if the table says so. In the end all is freed or destroyed, and no memory is committed.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <libxalloc.h>

#include "input.h"

#define KPAGE ((size_t)4096)
#define SLICE ((size_t)65536)
#define MEDIUM_MAX ((size_t)1 << 20)
#define SEGMENT ((size_t)2 << 20)
#define DEFAULT_LIMIT (8 * SEGMENT)
#define NR_BLOCKS 96
#define NR_HEAPS 4 /* the first is the default one */
#define NR_THREADS_MAX 2

/* Free memory is kept for a second: an input shall do the same each time, so none passes. */
int clock_gettime(clockid_t id, struct timespec *now)
{
	if (id == CLOCK_MONOTONIC_COARSE) {
		*now = (struct timespec){ .tv_sec = 1000 };
		return 0;
	}
	return syscall(SYS_clock_gettime, id, now);
}

static void expect(bool condition, const char *wrong)
{
	if (!condition) {
		fprintf(stderr, "malloc: %s\n", wrong);
		abort();
	}
}

struct block {
	unsigned char *ptr;
	size_t size;
	size_t usable;
	size_t alignment; /* of aligned_alloc(), or 0 */
	unsigned int heap;
	uint8_t seed;
	bool sized; /* by a call that gives the size its class */
};

static struct block blocks[NR_BLOCKS];
static struct xalloc_heap *heaps[NR_HEAPS];
static struct xalloc_arena *arenas[2]; /* default; of the other heaps */
static size_t limits[2];
static unsigned int nr_threads;
static __thread bool in_main;

static unsigned int arena_of(unsigned int heap)
{
	return heap != 0;
}

/* --- contents: the first bytes, the last ones, and one here and there */

#define FIRST 32
#define LAST 16
#define STRIDE 16411

static size_t next_index(size_t i)
{
	return i < FIRST ? i + 1 : (i / STRIDE + 1) * STRIDE;
}

static unsigned char byte_of(const struct block *b, size_t i)
{
	return b->seed + i * 11 + (i >> 8) * 7;
}

static size_t last_of(const struct block *b)
{
	return b->size < LAST ? 0 : b->size - LAST;
}

static void fill(const struct block *b)
{
	size_t i;

	for (i = 0; i < b->size; i = next_index(i))
		b->ptr[i] = byte_of(b, i);
	for (i = last_of(b); i < b->size; i++)
		b->ptr[i] = byte_of(b, i);
}

static void check_first(const struct block *b, size_t bytes)
{
	size_t i;

	for (i = 0; i < bytes; i = next_index(i))
		expect(b->ptr[i] == byte_of(b, i), "contents are not what was written");
}

static void check_contents(const struct block *b)
{
	size_t i;

	check_first(b, b->size);
	for (i = last_of(b); i < b->size; i++)
		expect(b->ptr[i] == byte_of(b, i), "contents are not what was written");
}

static bool is_zero(const unsigned char *ptr, size_t bytes)
{
	return !bytes || (!ptr[0] && !memcmp(ptr, ptr + 1, bytes - 1));
}

/* So many bytes at either end are looked at. */
#define ZEROS (2 * SLICE)

static bool has_zeros(const unsigned char *ptr, size_t bytes)
{
	if (bytes <= ZEROS)
		return is_zero(ptr, bytes);
	return is_zero(ptr, ZEROS) && is_zero(ptr + bytes - ZEROS, ZEROS);
}

/* --- what is known of blocks */

static size_t size_of_class(size_t size)
{
	size_t step = 16;

	if (!size)
		size = 1;
	while (size > 16 * step)
		step *= 2;
	return (size + step - 1) / step * step;
}

/* What the header says xalloc_heap_malloc() gives for @size. */
static size_t rounded(size_t size)
{
	return size > SLICE ? (size + KPAGE - 1) / KPAGE * KPAGE : size_of_class(size);
}

/* Whether the header says that @usable bytes of @heap may be given for @size. */
static bool is_rounded(unsigned int heap, size_t size, size_t usable)
{
	size_t bytes;

	if (usable == rounded(size))
		return true;
	if (heap || size <= SLICE || size > MEDIUM_MAX)
		return false;
	bytes = size_of_class(size);
	return usable == bytes || (usable == size_of_class(bytes + 1) && usable <= MEDIUM_MAX);
}

static bool has_blocks(unsigned int arena)
{
	unsigned int i;

	for (i = 0; i < NR_BLOCKS; i++)
		if (blocks[i].ptr && arena_of(blocks[i].heap) == arena)
			return true;
	return false;
}

static const struct block *block_at(const unsigned char *ptr)
{
	unsigned int i;

	for (i = 0; i < NR_BLOCKS; i++)
		if (blocks[i].ptr && ptr >= blocks[i].ptr && ptr < blocks[i].ptr + blocks[i].usable)
			return &blocks[i];
	return NULL;
}

static bool overlap(const struct block *a, const struct block *b)
{
	return a->ptr < b->ptr + b->usable && b->ptr < a->ptr + a->usable;
}

/* @b is new, or moved or resized, and is in the table. */
static void check_block(struct block *b)
{
	struct iovec range;
	unsigned int i;
	size_t offset;

	b->usable = xalloc_usable_size(b->ptr);
	expect(b->usable >= b->size, "less is usable than was asked for");
	expect((uintptr_t)b->ptr % 16 == 0, "not aligned to 16 bytes");
	expect(b->size <= SLICE || (uintptr_t)b->ptr % KPAGE == 0, "large and not aligned");
	expect(!b->alignment || (uintptr_t)b->ptr % b->alignment == 0, "not aligned as asked for");
	expect(!b->sized || is_rounded(b->heap, b->size, b->usable),
	       "not the size the header says");
	xalloc_arena_range(arenas[arena_of(b->heap)], &range);
	offset = (uintptr_t)b->ptr - (uintptr_t)range.iov_base;
	expect(offset < range.iov_len && b->usable <= range.iov_len - offset,
	       "not in the range of its arena");
	for (i = 0; i < NR_BLOCKS; i++)
		if (&blocks[i] != b && blocks[i].ptr)
			expect(!overlap(b, &blocks[i]), "two blocks overlap");
}

static void check_stats(void)
{
	struct xalloc_arena_stat stat = { .size = sizeof(stat) };
	uint64_t nr[2] = { 0 }, bytes[2] = { 0 };
	unsigned int i, arena;

	for (i = 0; i < NR_BLOCKS; i++) {
		if (!blocks[i].ptr)
			continue;
		arena = arena_of(blocks[i].heap);
		nr[arena]++;
		bytes[arena] += blocks[i].usable;
	}
	for (i = 0; i < 2; i++) {
		expect(!xalloc_arena_stats(arenas[i], &stat), "no statistics");
		/* What the other thread has freed may be among them. */
		expect(stat.nr_blocks == nr[i] || (!in_main && stat.nr_blocks > nr[i]),
		       "blocks are not counted right");
		expect(stat.used_bytes == bytes[i] || (!in_main && stat.used_bytes > bytes[i]),
		       "bytes of blocks are not counted right");
		expect(stat.used_bytes <= stat.granted_bytes, "more is used than is granted");
		expect(stat.granted_bytes <= stat.committed_bytes, "more granted than committed");
		expect(stat.committed_bytes <= limits[i], "more is committed than may be");
	}
}

/* --- calls */

static size_t next_size(struct input *in)
{
	uint32_t how = next_byte(in);

	switch (how % 8) {
	case 0:
		return next_word(in);
	case 1: /* a step of the classes above a slice, or near one */
		return SLICE + next_byte(in) * KPAGE - how / 64;
	case 2:
		return next_word(in) * (size_t)97;
	case 3: /* at a class of slabs */
		return ((size_t)(8 + next_byte(in) % 8) << (1 + next_byte(in) % 13)) - 1 +
		       how / 128;
	case 4:
		return next_byte(in) % 8 * (SEGMENT / 2) + how / 8;
	default:
		return next_byte(in);
	}
}

static void refused(unsigned int heap, size_t alignment, size_t size)
{
	expect(errno == ENOMEM, "refused, and errno is not ENOMEM");
	expect(has_blocks(arena_of(heap)) || size > limits[arena_of(heap)] || alignment > SLICE,
	       "refused although there is no other block");
}

static void allocate(struct block *b, struct input *in)
{
	uint32_t how = next_byte(in), heap = how / 64;
	struct xalloc_heap *h = heaps[heap];
	size_t size = next_size(in);
	unsigned char *ptr;

	*b = (struct block){ .size = size, .heap = heap, .seed = next_byte(in) };
	errno = 0;
	switch (how % 4) {
	case 0:
		b->alignment = (size_t)1 << next_byte(in) % 24;
		ptr = h ? xalloc_heap_aligned_alloc(h, b->alignment, size) :
			  xalloc_aligned_alloc(b->alignment, size);
		break;
	case 1:
		ptr = h ? xalloc_heap_calloc(h, 1, size) : xalloc_calloc(size, 1);
		if (ptr)
			expect(has_zeros(ptr, size), "calloc is not zero");
		break;
	default:
		ptr = h ? xalloc_heap_malloc(h, size) : xalloc_malloc(size);
	}
	if (!ptr) {
		refused(heap, b->alignment, size);
		return;
	}
	b->ptr = ptr;
	b->sized = !b->alignment;
	check_block(b);
	fill(b);
}

static void reallocate(struct block *b, struct input *in)
{
	uint32_t how = next_byte(in), heap = how % 2 ? how / 64 : b->heap;
	bool named = how % 2 && heaps[heap];
	size_t size = next_size(in), old = b->size;
	struct block before = *b;
	unsigned char *ptr;

	if (!named)
		heap = b->heap;
	errno = 0;
	ptr = named ? xalloc_heap_realloc(heaps[heap], b->ptr, size) : xalloc_realloc(b->ptr, size);
	if (!ptr) {
		expect(errno == ENOMEM, "realloc refused, and errno is not ENOMEM");
		expect(size > old || heap != b->heap, "realloc to less refused");
		check_contents(b);
		expect(xalloc_usable_size(b->ptr) == b->usable, "a refusal changed the block");
		return;
	}
	if (heap == b->heap && before.sized && rounded(size) == before.usable)
		expect(ptr == before.ptr, "moved although its class stayed");
	b->ptr = ptr;
	b->size = size;
	b->heap = heap;
	b->alignment = 0;
	/* It may be left where it is, and what it is, when there is no memory for a smaller one. */
	b->sized = is_rounded(heap, size, xalloc_usable_size(ptr));
	expect(b->sized || ptr == before.ptr, "moved to a size the header does not say");
	b->sized = b->sized && (before.sized || ptr != before.ptr);
	check_block(b);
	check_first(b, size < old ? size : old);
	fill(b);
}

static void release(struct block *b, struct input *in)
{
	unsigned char *ptr = b->ptr;

	check_contents(b);
	b->ptr = NULL;
	errno = EXDEV;
	switch (next_byte(in) % 3) {
	case 0:
		if (b->alignment)
			xalloc_free_aligned_sized(ptr, b->alignment, b->size);
		else
			xalloc_free_sized(ptr, b->size);
		break;
	default:
		xalloc_free(ptr);
	}
	expect(errno == EXDEV, "a free changed errno");
}

static void look_up(struct input *in)
{
	unsigned int arena = next_byte(in) % 2;
	struct xalloc_block_handle handle;
	const struct block *b;
	struct iovec range;
	unsigned char *ptr;
	int ret;

	xalloc_arena_range(arenas[arena], &range);
	b = &blocks[next_byte(in) % NR_BLOCKS];
	ptr = b->ptr ?
		      b->ptr + next_word(in) :
		      (unsigned char *)range.iov_base + next_word(in) * (size_t)509 % range.iov_len;
	b = block_at(ptr);
	ret = xalloc_handle(ptr, &handle);
	expect(ret == (b ? 0 : -ENOENT), "a handle of what is no block, or none of one");
	if (b)
		expect(xalloc_at(arenas[arena_of(b->heap)], handle.offset) == ptr,
		       "a handle does not lead back");
}

static void renew_heap(struct input *in)
{
	unsigned int heap = 1 + next_byte(in) % (NR_HEAPS - 1), i;

	expect(!xalloc_heap_destroy(heaps[heap]), "heap_destroy failed");
	for (i = 0; i < NR_BLOCKS; i++)
		if (blocks[i].heap == heap)
			blocks[i].ptr = NULL;
	check_stats();
	heaps[heap] = xalloc_heap_create(arenas[1]);
	expect(heaps[heap], "heap_create failed");
}

static void burst(struct input *in)
{
	/* Not a burst that begins another one for ever. */
	if (in->burst)
		return;
	in->state = next_word(in);
	in->burst = 4 * next_byte(in);
}

static void make_calls(struct input *in, uint32_t nr)
{
	struct block *b;

	while (nr-- && !is_at_end(in)) {
		uint32_t call = next_byte(in);

		b = &blocks[next_byte(in) % NR_BLOCKS];
		if (call == 255)
			renew_heap(in);
		else if (call >= 248)
			burst(in);
		else if (call >= 240)
			check_stats();
		else if (call >= 216)
			look_up(in);
		else if (!b->ptr)
			allocate(b, in);
		else if (call % 3 == 0)
			reallocate(b, in);
		else
			release(b, in);
	}
}

static void *make_calls_in_thread(void *arg)
{
	make_calls(arg, 16);
	return NULL;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	/* Zeroing them would be most of the work. */
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	setenv("XALLOC_BACKEND", "local", 1);
	setenv("XALLOC_LIMIT", "16M", 1);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { .data = data, .size = size };
	struct xalloc_arena_config config = {
		.size = sizeof(config),
		.arena_bytes = (1 + next_byte(&in) % 12) * SEGMENT,
		.limit_bytes = (1 + next_byte(&in) % 12) * SEGMENT,
	};
	struct xalloc_arena_stat stat = { .size = sizeof(stat) };
	unsigned int i;
	pthread_t thread;

	arenas[0] = xalloc_arena_default();
	arenas[1] = xalloc_arena_create(&config);
	expect(arenas[0] && arenas[1], "no arena");
	limits[0] = DEFAULT_LIMIT;
	limits[1] = config.limit_bytes;
	if (config.arena_bytes < limits[1])
		limits[1] = config.arena_bytes;
	for (i = 1; i < NR_HEAPS; i++) {
		heaps[i] = xalloc_heap_create(arenas[1]);
		expect(heaps[i], "heap_create failed");
	}
	memset(blocks, 0, sizeof(blocks));
	nr_threads = 0;
	in_main = true;
	while (!is_at_end(&in)) {
		make_calls(&in, 1 + next_byte(&in) % 64);
		if (is_at_end(&in) || nr_threads++ >= NR_THREADS_MAX)
			continue;
		expect(!pthread_create(&thread, NULL, make_calls_in_thread, &in), "no thread");
		pthread_join(thread, NULL);
	}
	check_stats();
	for (i = 0; i < NR_BLOCKS; i++) {
		if (!blocks[i].ptr)
			continue;
		check_contents(&blocks[i]);
		/* What is left of the other heaps goes with them. */
		if (!blocks[i].heap)
			xalloc_free(blocks[i].ptr);
	}
	for (i = 1; i < NR_HEAPS; i++)
		expect(!xalloc_heap_destroy(heaps[i]), "heap_destroy failed");
	expect(!xalloc_arena_stats(arenas[1], &stat), "no statistics");
	expect(!stat.committed_bytes && !stat.nr_blocks && !stat.used_bytes && !stat.nr_heaps,
	       "an arena without heaps holds something");
	expect(!xalloc_arena_destroy(arenas[1]), "arena_destroy failed");
	/* More than there may be: what is kept goes, and the next input finds nothing of it. */
	expect(!xalloc_malloc(DEFAULT_LIMIT + 1), "more than the limit");
	expect(!xalloc_arena_stats(arenas[0], &stat), "no statistics");
	expect(!stat.committed_bytes && !stat.nr_blocks && !stat.used_bytes,
	       "the default heap holds something without blocks");
	return 0;
}
