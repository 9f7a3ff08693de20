// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: what libxalloc takes for what is asked of it: memory committed over bytes
 * requested when an arena is full of blocks of one size, and memory for metadata over memory in
 * blocks.
 */
#include "libtest.h"
#include "selftest.h"

/* What is left at the end of so much is no matter, for blocks up to a slice and above. */
#define SMALL_FILL (64 * MIB)
#define LARGE_FILL (256 * MIB)
#define LARGEST (8 * MIB)
/* Committed bytes for a thousand requested ones. */
#define MOST_PER_MILLE 1150
#define MOST_ODD_PER_MILLE 1320

LIBTEST_FIXTURE(lib_footprint, "64M")

static void *blocks[SMALL_FILL / 16];

/* Adds blocks of @size until there is no memory. Returns how many there are then. */
static size_t fill(struct xalloc_heap *heap, size_t nr, size_t size)
{
	for (; nr < ARRAY_SIZE(blocks); nr++) {
		blocks[nr] = heap ? xalloc_heap_malloc(heap, size) : xalloc_malloc(size);
		if (!blocks[nr])
			return errno == ENOMEM ? nr : 0;
	}
	return 0;
}

/* Frees one in @share of @nr blocks. Returns how many are left. */
static size_t thin(size_t nr, size_t size, unsigned int share, uint32_t *seed)
{
	size_t i, left = 0;

	for (i = 0; i < nr; i++) {
		if (random_next(seed) % share)
			blocks[left++] = blocks[i];
		else
			xalloc_free_sized(blocks[i], size);
	}
	return left;
}

struct worst {
	unsigned int per_mille;
	size_t size;
	unsigned int nr_sizes;
};

/*
 * Fills @arena, which has no block, by way of a heap, or of the default heap if it is that one's,
 * with blocks of @size, and again after some were freed at random. Returns whether so many are
 * had.
 */
static bool measure(struct __test_metadata *_metadata, struct xalloc_arena *arena, size_t size,
		    struct worst *worst, uint32_t *seed)
{
	struct xalloc_heap *heap = NULL;
	size_t nr = 0, round;

	if (arena != xalloc_arena_default())
		heap = xalloc_heap_create(arena);
	/* A request for all of it takes back what is kept of smaller blocks before. */
	else
		xalloc_free(xalloc_malloc(stats_of(arena).limit_bytes));

	for (round = 0; round < 2; round++) {
		struct xalloc_arena_stat stat;
		unsigned int per_mille;

		nr = fill(heap, thin(nr, size, 3, seed), size);
		if (!nr)
			return false;
		stat = stats_of(arena);
		per_mille = (stat.committed_bytes * 1000 + nr * size - 1) / (nr * size);
		if (per_mille > worst->per_mille) {
			worst->per_mille = per_mille;
			worst->size = size;
		}
		if (per_mille > MOST_PER_MILLE || stat.nr_blocks != nr) {
			TH_LOG("round %zu: %zu blocks of %zu bytes in %llu: %u/1000", round, nr,
			       size, (unsigned long long)stat.committed_bytes, per_mille);
			return false;
		}
	}
	worst->nr_sizes++;
	thin(nr, size, 1, seed);
	return stats_of(arena).nr_blocks == 0 && (!heap || !xalloc_heap_destroy(heap));
}

/*
 * Sizes of all classes from @from to below @to: of each the least, which is measured in @first,
 * some size of it, and the class itself; elsewhere than here only the least of one class in @share.
 */
static bool sweep(struct __test_metadata *_metadata, struct xalloc_arena *first,
		  struct xalloc_arena *second, size_t from, size_t to, uint32_t share)
{
	uint32_t seed = random_seed() | 1, k = 0;
	size_t size, next, below;
	struct worst worst = { 0 };

	TH_LOG("SEED=%u", seed);
	for (size = from; size < to; size = next) {
		next = size + (1UL << (63 - __builtin_clzll(size))) / 8;
		if (is_fast() || k++ % share == 0)
			if (!measure(_metadata, first, size + 1, &worst, &seed))
				return false;
		if (!is_fast())
			continue;
		below = size + 1 + random_next(&seed) % (next - size);
		if (!measure(_metadata, second, size + 1, &worst, &seed) ||
		    !measure(_metadata, first, below, &worst, &seed) ||
		    !measure(_metadata, second, next, &worst, &seed))
			return false;
	}
	TH_LOG("%u fills; the most committed: %u/1000 of what was requested, at %zu bytes",
	       worst.nr_sizes, worst.per_mille, worst.size);
	return true;
}

TEST_F_TIMEOUT(lib_footprint, small_blocks_fill_what_is_committed, TEST_TIMEOUT_LONG)
{
	struct xalloc_arena *arena = arena_of(SMALL_FILL, 0), *by_default = xalloc_arena_default();

	ASSERT_NE(NULL, by_default);
	ASSERT_NE(NULL, arena);
	ASSERT_TRUE(sweep(_metadata, by_default, arena, 128, SLICE, 13));
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F_TIMEOUT(lib_footprint, large_blocks_fill_what_is_committed, TEST_TIMEOUT_LONG)
{
	struct xalloc_arena *arena, *by_default;

	setenv("XALLOC_LIMIT", "256M", 1);
	by_default = xalloc_arena_default();
	ASSERT_NE(NULL, by_default);
	arena = arena_of(LARGE_FILL, 0);
	ASSERT_NE(NULL, arena);
	ASSERT_TRUE(sweep(_metadata, arena, by_default, SLICE, LARGEST, 17));
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

/* The most that is committed in thousandths of the most that is in use, of odd sizes. */
static size_t most_for_odd_sizes(uint32_t seed)
{
	size_t committed = 0, used = 0;
	void *odd[24] = { NULL };
	unsigned int i, k;

	for (i = 0; i < 3000; i++) {
		struct xalloc_arena_stat stat;

		k = random_next(&seed) % ARRAY_SIZE(odd);
		xalloc_free(odd[k]);
		odd[k] = xalloc_malloc((65536U << random_next(&seed) % 6) +
				       random_next(&seed) % 65536);
		if (!odd[k])
			return 0;
		stat = stats_of(xalloc_arena_default());
		committed = stat.committed_bytes > committed ? stat.committed_bytes : committed;
		used = stat.used_bytes > used ? stat.used_bytes : used;
	}
	for (k = 0; k < ARRAY_SIZE(odd); k++)
		xalloc_free(odd[k]);
	return committed * 1000 / used;
}

TEST_F_TIMEOUT(lib_footprint, large_blocks_of_odd_sizes_pack, TEST_TIMEOUT_LONG)
{
	size_t most, sum = 0;
	uint32_t seed;

	for (seed = 1; seed <= 8; seed++) {
		most = most_for_odd_sizes(seed);
		ASSERT_NE(0, most);
		sum += most;
	}
	TH_LOG("%zu/1000 on average", sum / 8);
	ASSERT_GE(MOST_ODD_PER_MILLE, sum / 8);
}

TEST_F(lib_footprint, up_to_128_bytes_a_block_takes_the_next_multiple_of_16)
{
	struct xalloc_arena *arena = arena_of(4 * MIB, 0);
	struct xalloc_heap *heap = xalloc_heap_create(arena);
	size_t size, nr, usable;

	ASSERT_NE(NULL, heap);
	for (size = 1; size <= 128; size += is_fast() ? 1 : 9) {
		usable = (size + 15) / 16 * 16;
		nr = fill(heap, 0, size);
		ASSERT_EQ(usable, xalloc_usable_size(blocks[nr / 2]));
		ASSERT_EQ(nr * usable, stats_of(arena).used_bytes);
		/* And no more than that: what is left of a slice is less than a block. */
		ASSERT_EQ(4 * MIB / SLICE * (SLICE / usable), nr);
		thin(nr, size, 1, &(uint32_t){ 1 });
	}
	ASSERT_EQ(0, xalloc_arena_destroy(arena));
}

TEST_F(lib_footprint, metadata_of_blocks_of_64_bytes_is_two_percent)
{
	/* At the first, what does not grow with blocks is still seen. */
	static const size_t fills[] = { 32 * MIB, 128 * MIB, 512 * MIB };
	size_t before, metadata, nr, i = 0;
	struct xalloc_arena *arena;

	SKIP_SANITIZED("has more memory of its own than what is measured");
	setenv("XALLOC_LIMIT", "640M", 1);
	/* The library has not been used yet; once for what measuring itself takes. */
	resident_outside(NULL);
	before = resident_outside(NULL);
	arena = xalloc_arena_default();
	ASSERT_NE(NULL, arena);
	for (nr = 0; i < ARRAY_SIZE(fills) - !is_fast();) {
		ASSERT_NE(NULL, xalloc_malloc(64));
		if (++nr * 64 < fills[i])
			continue;
		metadata = resident_outside(arena) - before;
		TH_LOG("%zu KiB beside %zu MiB in blocks of 64 bytes: %zu.%02zu %%", metadata >> 10,
		       fills[i] >> 20, metadata * 100 / fills[i],
		       metadata * 10000 / fills[i] % 100);
		ASSERT_EQ(fills[i], stats_of(arena).used_bytes);
		if (fills[i++] > 32 * MIB)
			ASSERT_LE(metadata * 100, nr * 64 * 2);
	}
}

TEST_HARNESS_MAIN
