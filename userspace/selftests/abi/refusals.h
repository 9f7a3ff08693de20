/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What each call refuses, and by which errno. A row is a good argument with one thing wrong.
 * refusals.c tries each, and scripts/refusals makes Documentation/refusals.rst of them, so a row
 * is a line, or two, that awk can read:
 *
 *	REFUSAL(call, descriptor, errno, "what is wrong", what makes it so)
 *
 * Descriptors: DEVICE; ARENA, in which this client has a page of one slice at 0, another client
 * one at 64 KiB, and nobody one behind; READER, the same arena opened for reading; SMALL, an arena
 * of small pieces; LIMITED, all of whose limit is committed, and FULL, all of whose offsets are
 * granted; FAMILY, an arena with XALLOC_ARENA_FORK; PLAIN, a new file of xallocfs, and NAMED, one
 * in which an arena was created. The page that GRANT is asked for has one slice.
 */

REFUSAL(INFO, DEVICE, EINVAL, "pad is not zero", ARG(info, pad, 1))

REFUSAL(STAT, DEVICE, EINVAL, "pad is not zero", ARG(stat, pad, 1))
REFUSAL(STAT, ARENA, EINVAL, "pad is not zero", ARG(stat, pad, 1))

REFUSAL(ARENA_CREATE, DEVICE, EOPNOTSUPP, "an unknown flag", ARG(create, flags, 1U << 31))
REFUSAL(ARENA_CREATE, DEVICE, EINVAL, "arena_bytes is 0", ARG(create, arena_bytes, 0))
REFUSAL(ARENA_CREATE, DEVICE, EINVAL, "arena_bytes is not whole segments",
	ARG(create, arena_bytes, XALLOC_SEGMENT_BYTES + XALLOC_SLICE_BYTES))
REFUSAL(ARENA_CREATE, DEVICE, EFBIG, "arena_bytes is more than INFO says can be",
	ARG(create, arena_bytes, -XALLOC_SEGMENT_BYTES))
REFUSAL(ARENA_CREATE, DEVICE, EINVAL, "limit_bytes is not whole segments",
	ARG(create, limit_bytes, XALLOC_SLICE_BYTES))
REFUSAL(ARENA_CREATE, DEVICE, EINVAL, "an unknown policy", ARG(create, policy, 3))
REFUSAL(ARENA_CREATE, DEVICE, EINVAL, "node without XALLOC_ARENA_NODE", ARG(create, node, 1))
REFUSAL(ARENA_CREATE, DEVICE, ENODEV, "a node that the machine does not have",
	ARG(create, flags, XALLOC_ARENA_NODE), ARG(create, node, 1023))

REFUSAL(ARENA_CREATE, PLAIN, EOPNOTSUPP, "XALLOC_ARENA_FORK for an arena with a name",
	ARG(create, flags, XALLOC_ARENA_FORK))
REFUSAL(ARENA_CREATE, NAMED, EEXIST, "there is an arena already", NOTHING)

REFUSAL(GRANT, ARENA, EOPNOTSUPP, "an unknown flag", ARG(grant, flags, 1))
REFUSAL(GRANT, ARENA, EINVAL, "pad is not zero", ARG(grant, pad, 1))
REFUSAL(GRANT, ARENA, EINVAL, "nr is 0", ARG(grant, nr, 0))
REFUSAL(GRANT, ARENA, EINVAL, "nr is more than XALLOC_BATCH_MAX",
	ARG(grant, nr, XALLOC_BATCH_MAX + 1))
REFUSAL(GRANT, ARENA, EFAULT, "pages is no address", ARG(grant, pages, 1))
REFUSAL(GRANT, READER, EBADF, "the descriptor is not open for writing", NOTHING)
REFUSAL(GRANT, ARENA, EOPNOTSUPP, "an unknown flag of a page", PAGE(flags, 1U << 31))
REFUSAL(GRANT, ARENA, EOPNOTSUPP, "a flag that only LIST gives", PAGE(flags, XALLOC_PAGE_ORPHAN))
REFUSAL(GRANT, SMALL, EOPNOTSUPP, "XALLOC_PAGE_CONTIG where all is in pieces",
	PAGE(flags, XALLOC_PAGE_CONTIG))
REFUSAL(GRANT, ARENA, EINVAL, "nr_slices is 0", PAGE(nr_slices, 0))
REFUSAL(GRANT, ARENA, EFBIG, "nr_slices is more than the arena has", PAGE(nr_slices, 129))
REFUSAL(GRANT, ARENA, EFBIG, "XALLOC_PAGE_CONTIG for more than a segment",
	PAGE(flags, XALLOC_PAGE_CONTIG), PAGE(nr_slices, 33))
REFUSAL(GRANT, ARENA, EINVAL, "align_slices is no power of two", PAGE(align_slices, 3))
REFUSAL(GRANT, ARENA, EFBIG, "align_slices is more than the arena has", PAGE(align_slices, 256))
REFUSAL(GRANT, ARENA, EINVAL, "XALLOC_PAGE_AT, and offset is not whole slices",
	PAGE(flags, XALLOC_PAGE_AT), PAGE(offset, 1))
REFUSAL(GRANT, ARENA, ERANGE, "XALLOC_PAGE_AT, and offset is past the end of the arena",
	PAGE(flags, XALLOC_PAGE_AT), PAGE(offset, ARENA_BYTES))
REFUSAL(GRANT, ARENA, EEXIST, "XALLOC_PAGE_AT, where there is a page", PAGE(flags, XALLOC_PAGE_AT))
REFUSAL(GRANT, LIMITED, EDQUOT, "the arena's limit", NOTHING)
REFUSAL(GRANT, FULL, ENOSPC, "no free run", NOTHING)
REFUSAL(GRANT, PLAIN, EOPNOTSUPP, "memory comes by file calls", NOTHING)

REFUSAL(FREE, ARENA, EOPNOTSUPP, "an unknown flag", ARG(free, flags, 4))
REFUSAL(FREE, ARENA, EINVAL, "pad is not zero", ARG(free, pad, 1))
REFUSAL(FREE, ARENA, EINVAL, "nr is 0", ARG(free, nr, 0))
REFUSAL(FREE, ARENA, EINVAL, "nr is more than XALLOC_BATCH_MAX",
	ARG(free, nr, XALLOC_BATCH_MAX + 1))
REFUSAL(FREE, ARENA, EFAULT, "offsets is no address", ARG(free, offsets, 1))
REFUSAL(FREE, PLAIN, EOPNOTSUPP, "memory goes by file calls", NOTHING)
REFUSAL(FREE, READER, EBADF, "the descriptor is not open for writing", NOTHING)
REFUSAL(FREE, ARENA, EINVAL, "an offset is not whole slices", RANGE(offset, 1))
REFUSAL(FREE, ARENA, ERANGE, "an offset is past the end of the arena", RANGE(offset, ARENA_BYTES))
REFUSAL(FREE, ARENA, ENOENT, "no page begins there", RANGE(offset, 2 * XALLOC_SLICE_BYTES))
REFUSAL(FREE, ARENA, EPERM, "another client's page", RANGE(offset, XALLOC_SLICE_BYTES))
REFUSAL(FREE, ARENA, EINVAL, "a length is not whole slices", RANGE(bytes, 1))
REFUSAL(FREE, ARENA, ERANGE, "a range ends past the end of the arena",
	RANGE(bytes, ARENA_BYTES + XALLOC_SLICE_BYTES))
REFUSAL(FREE, ARENA, EPERM, "a part of a range is another client's",
	RANGE(bytes, 2 * XALLOC_SLICE_BYTES))
REFUSAL(FREE, FULL, EBUSY, "a dma-buf holds a page that the range covers in part",
	RANGE(bytes, XALLOC_SLICE_BYTES))

REFUSAL(RESERVE, ARENA, EOPNOTSUPP, "an unknown flag", ARG(reserve, flags, 1))
REFUSAL(RESERVE, READER, EBADF, "the descriptor is not open for writing", NOTHING)
REFUSAL(RESERVE, PLAIN, EOPNOTSUPP, "memory comes by file calls", NOTHING)
REFUSAL(RESERVE, SMALL, EOPNOTSUPP, "an arena of small pieces has no reserve", NOTHING)
REFUSAL(RESERVE, ARENA, EINVAL, "low_bytes is more than high_bytes",
	ARG(reserve, low_bytes, XALLOC_SEGMENT_BYTES))
REFUSAL(RESERVE, ARENA, EINVAL, "low_bytes or high_bytes is not whole segments",
	ARG(reserve, high_bytes, XALLOC_SLICE_BYTES))
REFUSAL(RESERVE, ARENA, EFBIG, "high_bytes is more than the arena",
	ARG(reserve, high_bytes, ARENA_BYTES + XALLOC_SEGMENT_BYTES))

REFUSAL(TRIM, ARENA, EOPNOTSUPP, "an unknown flag", ARG(trim, flags, 1))
REFUSAL(TRIM, READER, EBADF, "the descriptor is not open for writing", NOTHING)

REFUSAL(ATTACH, ARENA, EOPNOTSUPP, "an unknown flag", ARG(attach, flags, 2))
REFUSAL(ATTACH, ARENA, EINVAL, "pad is not zero", ARG(attach, pad, 1))
REFUSAL(ATTACH, PLAIN, EBUSY, "the file is empty", NOTHING)
REFUSAL(ATTACH, READER, EBADF, "for writing, by a descriptor that is not open for it", NOTHING)
REFUSAL(ATTACH, DEVICE, EOPNOTSUPP, "an unknown flag", ARG(attach, flags, 2))
REFUSAL(ATTACH, DEVICE, ENOTTY, "address is 0", NOTHING)
REFUSAL(ATTACH, DEVICE, ENOENT, "no arena is mapped at the address", ARG(attach, address, 1))
REFUSAL(ATTACH, DEVICE, ENOENT, "a dma-buf is mapped at the address", EXPORTED)
REFUSAL(ATTACH, DEVICE, EBADF, "for writing, what a read-only descriptor has mapped",
	READ_ONLY)

REFUSAL(LIMIT, ARENA, EOPNOTSUPP, "an unknown flag", ARG(limit, flags, 1))
REFUSAL(LIMIT, READER, EBADF, "the descriptor is not open for writing", NOTHING)
REFUSAL(LIMIT, ARENA, EINVAL, "limit_bytes is not whole segments",
	ARG(limit, limit_bytes, XALLOC_SLICE_BYTES))
REFUSAL(LIMIT, FULL, EBUSY, "more is committed", ARG(limit, limit_bytes, XALLOC_SEGMENT_BYTES))

REFUSAL(DUMP, ARENA, EOPNOTSUPP, "an unknown flag", ARG(dump, flags, 2))
REFUSAL(DUMP, READER, EBADF, "the descriptor is not open for writing", NOTHING)
REFUSAL(DUMP, PLAIN, EOPNOTSUPP, "coredump_filter decides", NOTHING)

REFUSAL(LIST, ARENA, EOPNOTSUPP, "an unknown flag", ARG(list, flags, 2))
REFUSAL(LIST, ARENA, EINVAL, "pad is not zero", ARG(list, pad, 1))
REFUSAL(LIST, ARENA, EINVAL, "nr is 0", ARG(list, nr, 0))
REFUSAL(LIST, ARENA, EINVAL, "nr is more than XALLOC_BATCH_MAX",
	ARG(list, nr, XALLOC_BATCH_MAX + 1))
REFUSAL(LIST, ARENA, ERANGE, "offset is past the end of the arena",
	ARG(list, offset, ARENA_BYTES + 1))
REFUSAL(LIST, ARENA, EFAULT, "pages is no address", ARG(list, pages, 1))

REFUSAL(CLAIM, ARENA, EOPNOTSUPP, "an unknown flag", ARG(claim, flags, 1))
REFUSAL(CLAIM, ARENA, EINVAL, "pad is not zero", ARG(claim, pad, 1))
REFUSAL(CLAIM, ARENA, EINVAL, "nr is 0", ARG(claim, nr, 0))
REFUSAL(CLAIM, ARENA, EINVAL, "nr is more than XALLOC_BATCH_MAX",
	ARG(claim, nr, XALLOC_BATCH_MAX + 1))
REFUSAL(CLAIM, ARENA, EFAULT, "offsets is no address", ARG(claim, offsets, 1))
REFUSAL(CLAIM, PLAIN, EOPNOTSUPP, "all memory is the arena's", NOTHING)
REFUSAL(CLAIM, READER, EBADF, "the descriptor is not open for writing", NOTHING)
REFUSAL(CLAIM, ARENA, EINVAL, "an offset is not whole slices", OFFSET(1))
REFUSAL(CLAIM, ARENA, ERANGE, "an offset is past the end of the arena", OFFSET(ARENA_BYTES))
REFUSAL(CLAIM, ARENA, ENOENT, "no page begins there", OFFSET(2 * XALLOC_SLICE_BYTES))
REFUSAL(CLAIM, ARENA, EBUSY, "the page has a client that lives", OFFSET(XALLOC_SLICE_BYTES))

REFUSAL(EXPORT, ARENA, EOPNOTSUPP, "an unknown flag", ARG(export, flags, 1))
REFUSAL(EXPORT, READER, EBADF, "the descriptor is not open for writing", NOTHING)
REFUSAL(EXPORT, ARENA, EINVAL, "bytes is 0", ARG(export, bytes, 0))
REFUSAL(EXPORT, ARENA, EINVAL, "offset or bytes is not whole slices",
	ARG(export, bytes, XALLOC_SLICE_BYTES - 1))
REFUSAL(EXPORT, ARENA, ERANGE, "a range past the end of the arena",
	ARG(export, offset, ARENA_BYTES))
REFUSAL(EXPORT, ARENA, EFBIG, "1 TiB or more", ARG(export, bytes, 1ULL << 50))
REFUSAL(EXPORT, ARENA, EPERM, "another client's page", ARG(export, offset, XALLOC_SLICE_BYTES))
REFUSAL(EXPORT, ARENA, ENOENT, "a part of the range is in no page",
	ARG(export, offset, 2 * XALLOC_SLICE_BYTES))

REFUSAL(FORK_PREPARE, FAMILY, EOPNOTSUPP, "an unknown flag", ARG(fork_prepare, flags, 2))
REFUSAL(FORK_PREPARE, ARENA, EOPNOTSUPP, "an arena without XALLOC_ARENA_FORK", NOTHING)

REFUSAL(META, ARENA, EOPNOTSUPP, "an unknown flag", ARG(meta, flags, 1))
REFUSAL(META, ARENA, EINVAL, "bytes is not whole kpages", ARG(meta, bytes, 1))
REFUSAL(META, ARENA, EFBIG, "bytes is more than the arena", ARG(meta, bytes, 2 * ARENA_BYTES))
REFUSAL(META, ARENA, ENOENT, "no size was given yet", ARG(meta, bytes, 0))
REFUSAL(META, READER, EBADF, "no size was given yet, by a descriptor not open for writing", NOTHING)
REFUSAL(META, FULL, EEXIST, "another size was given", NOTHING)
