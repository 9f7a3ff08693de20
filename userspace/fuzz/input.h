/* SPDX-License-Identifier: MIT */
/* What fuzzers read their input by: bytes of it, and bursts from a generator that it seeds. */
#ifndef XALLOC_FUZZ_INPUT_H
#define XALLOC_FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct input {
	const uint8_t *data;
	size_t size;
	uint32_t burst; /* bytes to come from the generator */
	uint64_t state;
};

static inline bool is_at_end(const struct input *in)
{
	return !in->size && !in->burst;
}

static inline uint32_t next_byte(struct input *in)
{
	if (in->burst) {
		in->burst--;
		/* Knuth's MMIX generator */
		in->state = in->state * 6364136223846793005ull + 1442695040888963407ull;
		return in->state >> 56;
	}
	if (!in->size)
		return 0;
	in->size--;
	return *in->data++;
}

static inline uint32_t next_word(struct input *in)
{
	uint32_t low = next_byte(in);

	return low | next_byte(in) << 8;
}

#endif /* XALLOC_FUZZ_INPUT_H */
