// SPDX-License-Identifier: GPL-2.0-only
#include <linux/string.h>

#include "heap_fixture.h"

struct xalloc_heap *fx_heap;

struct xalloc_heap *fx_make_heap(struct kunit *test, u32 nr_segments, bool mappable)
{
	const struct xalloc_heap_config config = {
		.arena_bytes = nr_segments * (u64)XALLOC_SEGMENT_BYTES,
		.mappable = mappable,
	};

	fx_heap = xalloc_heap_create(&config);
	if (IS_ERR(fx_heap)) {
		KUNIT_EXPECT_EQ(test, PTR_ERR(fx_heap), 0);
		fx_heap = NULL;
	}
	KUNIT_ASSERT_NOT_NULL(test, fx_heap);
	return fx_heap;
}

void fx_drop_heap(void)
{
	xalloc_heap_destroy(fx_heap);
	fx_heap = NULL;
}

void fx_heap_exit(struct kunit *test)
{
	fx_drop_heap();
	fx_exit(test);
}

struct xalloc_heap_stat fx_heap_stat(struct xalloc_heap *heap)
{
	struct xalloc_heap_stat stat;

	xalloc_heap_stat(heap, &stat);
	return stat;
}

void fx_stamp(const struct fx_held *held)
{
	u8 *byte = held->block;

	if (held->bytes <= 8192) {
		memset(byte, held->stamp, held->bytes);
	} else {
		memset(byte, held->stamp, 4096);
		memset(byte + held->bytes - 4096, held->stamp, 4096);
	}
	if (held->bytes >= 2 * sizeof(u32)) {
		memcpy(byte, &held->stamp, sizeof(u32));
		memcpy(byte + held->bytes - sizeof(u32), &held->stamp, sizeof(u32));
	}
}

bool fx_has_stamp(const struct fx_held *held)
{
	u8 *byte = held->block, value = held->stamp;
	u32 inner = 0;

	if (held->bytes >= 2 * sizeof(u32)) {
		inner = sizeof(u32);
		if (memcmp(byte, &held->stamp, inner) ||
		    memcmp(byte + held->bytes - inner, &held->stamp, inner))
			return false;
	}
	if (held->bytes <= 8192)
		return !memchr_inv(byte + inner, value, held->bytes - 2 * inner);
	return !memchr_inv(byte + inner, value, 4096 - inner) &&
	       !memchr_inv(byte + held->bytes - 4096, value, 4096 - inner);
}
