/* SPDX-License-Identifier: MIT */
/* What the samples put into blocks of many sizes, and how they look at it again. */
#ifndef DATA_H
#define DATA_H

#include "advice.h"

static inline unsigned char byte_of(unsigned int block, size_t at)
{
	return (unsigned char)(block * 31 + at % 251);
}

static inline void fill_block(unsigned char *data, unsigned int block, size_t bytes)
{
	size_t at;

	for (at = 0; at < bytes; at++)
		data[at] = byte_of(block, at);
}

/* Ends the program if @data is not what fill_block() wrote into @block, from @from on. */
static inline void compare_block(const unsigned char *data, unsigned int block, size_t from,
				 size_t bytes)
{
	size_t i;

	for (i = 0; i < bytes; i++)
		if (data[i] != byte_of(block, from + i))
			die("block %u is wrong at byte %zu", block, from + i);
}

/* The next of a row of numbers below 2^24 that is the same in each run. Begins with *@state = 1. */
static inline unsigned int next_random(unsigned int *state)
{
	*state = *state * 1664525 + 1013904223;
	return *state >> 8;
}

/* From 1 byte to 2 MiB: each power of two is as likely. */
static inline size_t next_size(unsigned int *state)
{
	unsigned int random = next_random(state);

	return 1 + random % (1U << random % 22);
}

#endif /* DATA_H */
