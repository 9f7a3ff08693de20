/* SPDX-License-Identifier: GPL-2.0-only */
/* Calls on files that are used as files, and what their tests have in common. */
#ifndef XALLOC_HOLES_H
#define XALLOC_HOLES_H

#include "selftest.h"
#include "sharing.h"

#include <linux/falloc.h>

#define SLICE XALLOC_SLICE_BYTES
#define SEGMENT XALLOC_SEGMENT_BYTES
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

/* Each returns the negative errno where it fails. */

static inline int file_create(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : fd;
}

static inline int file_allocate(int fd, int mode, off_t offset, off_t bytes)
{
	return fallocate(fd, mode, offset, bytes) ? -errno : 0;
}

static inline int file_punch(int fd, off_t offset, off_t bytes)
{
	return file_allocate(fd, PUNCH, offset, bytes);
}

static inline int file_resize(int fd, off_t bytes)
{
	return ftruncate(fd, bytes) ? -errno : 0;
}

static inline int range_remove(void *addr, size_t bytes)
{
	return madvise(addr, bytes, MADV_REMOVE) ? -errno : 0;
}

static inline off_t file_size(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? -errno : st.st_size;
}

/* What du shows. */
static inline long long file_blocks(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? -errno : st.st_blocks * 512LL;
}

/* The size of the file, and the memory that it has, in both places that tell. */
#define expect_file(fd, size, bytes) \
	do { \
		EXPECT_EQ(size, file_size(fd)); \
		EXPECT_EQ(bytes, file_blocks(fd)); \
		EXPECT_EQ(bytes, stat_of(fd).committed_bytes); \
	} while (0)

/*
 * Maps the file at an address that is @shift bytes after a border of 2 MiB. NULL where that fails.
 * What is reserved around it stays so.
 */
static inline unsigned char *file_map(int fd, size_t bytes, size_t shift)
{
	unsigned char *range = range_reserve(bytes + shift, SEGMENT);
	void *map;

	if (!range)
		return NULL;
	map = mmap(range + shift, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	return map == MAP_FAILED ? NULL : map;
}

/* Private zeroed memory, or NULL. */
static inline unsigned char *anonymous_map(size_t bytes)
{
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return map == MAP_FAILED ? NULL : map;
}

/* Whether all bytes are zero; nonzero_find() looks at whole words alone. */
static inline bool is_zero(const unsigned char *addr, size_t bytes)
{
	size_t i;

	for (i = 0; i < bytes; i++)
		if (addr[i])
			return false;
	return true;
}

#define PIECE_BYTES 70000

/* At most @most, and often at a border of a kpage, a slice or a segment. */
static inline off_t random_offset(uint32_t *random, off_t most)
{
	static const off_t grains[] = { 1, 1, KPAGE_BYTES, SLICE, SEGMENT };
	off_t grain = grains[random_next(random) % ARRAY_SIZE(grains)];

	return random_next(random) % (most + 1) / grain * grain;
}

static inline long errno_or(long rc)
{
	return rc < 0 ? -errno : rc;
}

#endif /* XALLOC_HOLES_H */
