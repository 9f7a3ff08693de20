/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * xalloc: arenas of pinned huge-page memory behind /dev/xalloc
 *
 * The device hands out arenas. An arena is a file: a space of offsets of fixed
 * size, cut into segments of 2 MiB, each segment cut into 32 slices of 64 KiB.
 * A page is a run of slices that was granted at once. Granting commits memory,
 * mapping the arena file makes it addressable, and nothing else does either: the
 * first touch of a mapped offset never allocates. A file that is used as a file is the exception:
 * see below.
 *
 * A client is one open file description on an arena. A page belongs to the client that was granted
 * it, and goes when that client goes. If the arena was created with XALLOC_ARENA_PERSIST, the page
 * stays instead, as an orphan. A client goes when its last descriptor is closed and the last
 * mapping that was made by a descriptor of it is removed. Duplicates of a descriptor (dup, fork,
 * SCM_RIGHTS) are the same client; XALLOC_IOC_ATTACH makes a new one, and so does opening
 * /proc/self/fd/N again, which works only for reading; for writing it is EACCES. So nobody can turn
 * a descriptor for reading into one for writing. A process that can map an arena can read all of
 * it, and write all of it unless its descriptor is open for reading only.
 *
 * Arenas with names are files of a file system that is mounted by its type, "xallocfs".
 * There names, owners and modes are as in any directory, and no file can be executed. Opening a
 * file makes a client, as XALLOC_IOC_ATTACH does. The arena, with its orphans, lives until its name
 * is gone and nobody has it open, mapped or exported.
 *
 * Calls for files work on arenas, too. What is in a page is data, all else is a hole, which reads
 * as zeros. fallocate() grants to its caller those slices of a range that are in no page. With
 * FALLOC_FL_PUNCH_HOLE it frees the whole slices of a range and zeroes the rest of it; MADV_REMOVE
 * does the same, except with XALLOC_ARENA_FORK. Unlike FREE, this is refused with
 * EBUSY, and nothing has changed, if somebody refers to memory that would go, or to the huge page
 * that contains it.
 *
 * A file that open() creates is empty, and can become one of two things. XALLOC_IOC_ARENA_CREATE on
 * its descriptor, once, makes an arena with grants in it, whose size does not change any more
 * (EPERM). Without that it is a file as on any other file system, whose memory is pinned: write(),
 * ftruncate() and fallocate() change its size, and what has no memory is a hole, which reads as
 * zeros. write(), fallocate() and the first touch of a mapping commit memory for a hole, of huge
 * pages where the kernel has them at hand and the budgets have room, else of pieces of 64 KiB; all
 * of it belongs to the arena. A touch for which memory cannot be had is SIGBUS. ftruncate() and
 * fallocate() with FALLOC_FL_PUNCH_HOLE give memory back, a huge page only as a whole: a part of
 * one is zeroed. They are EBUSY as above. GRANT, FREE, CLAIM and RESERVE are not for such a file
 * (EOPNOTSUPP).
 *
 * Every call takes one structure whose first member is its size in bytes, as the
 * caller was compiled. A later kernel accepts a shorter structure and takes what is
 * missing as zero; a kernel that is older than its caller accepts the longer
 * structure as long as what it does not know is zero.
 *
 * What the calls refuse, and how:
 *
 *	ENOTTY		no such call, or not on this kind of descriptor
 *	EEXIST		there is an arena in this file already, or the file has bytes; there is a
 *			page at the offset where one is to be
 *	ESTALE		the descriptor is that of another process: &XALLOC_ARENA_FORK
 *	EINVAL		a structure shorter than its first version; a size, a count or
 *			an alignment that no arena could take; padding that is not zero
 *	E2BIG		a structure with non-zero bytes past what this kernel knows
 *	EOPNOTSUPP	a flag that this kernel does not know, or that this arena's policy
 *			cannot serve; a call that is not for a file that is used as a file
 *	EBADF		a call that changes the arena, on a descriptor not open for writing
 *	EFAULT		memory of the caller that cannot be read or written
 *	EFBIG		more than an arena, or a segment where one is asked, can ever hold
 *	ENODEV		a NUMA node that the machine does not have, or that has no memory
 *	ERANGE		an offset past the end of the arena
 *	ENOENT		freed offset is not the start of a page: never granted, freed
 *			before, or inside a page; freed or exported range is not all in pages;
 *			nothing of an arena is mapped at the address
 *	EPERM		freed or exported page belongs to another client, in an arena without
 *			XALLOC_ARENA_PERSIST; the caller may not set this arena's limit, or
 *			whether it is dumped
 *	EBUSY		claimed page has a client that lives; more is committed than a new limit
 *			allows; a dma-buf holds a page that is to be freed in part; somebody
 *			refers to memory at the offset where a page is to be, or to memory of the
 *			empty file in which an arena is to be created; a file to attach to is empty
 *	ENOSPC		no free run of that length and alignment in the arena's offset space; the
 *			size= of the mount that the arena's file is in
 *	EDQUOT		the arena's own limit, &xalloc_ioc_arena_create.limit_bytes or
 *			&xalloc_ioc_limit.limit_bytes
 *	ENOBUFS		RLIMIT_MEMLOCK of the user who created the arena
 *	EUSERS		a limit of the module for one payer: its parameter user_limit_mb, if that
 *			was set when the arena was created (RLIMIT_MEMLOCK does not apply then), or
 *			its parameter share_mb
 *	ENOSR		the module's limit for all arenas, its parameter total_mb
 *	ENOMEM		the kernel has no huge page at hand, nor what the arena's policy takes
 *			in its place, or no memory for its own records
 *	EMFILE, ENFILE	no descriptor left for a new arena
 *	EINTR		a fatal signal arrived while waiting
 *	EUCLEAN		the arena's records contradict each other, which is a fault of the
 *			module: the segments concerned are granted to nobody any more
 *
 * What mmap() of an arena refuses: a private mapping (EINVAL), PROT_EXEC (EPERM), a
 * range past the end of the arena (ENXIO), offset + length past what fits
 * (EOVERFLOW), the descriptor of another process (ESTALE, as above), writing to the status
 * page (EACCES). The device itself cannot be mapped (ENODEV). Touching a mapped offset
 * whose segment holds no page of anyone is SIGBUS, and so is a slice without one where a
 * segment is made of small pieces. A file that is used as a file can also be mapped privately
 * and past its end; a touch past its end is SIGBUS.
 */
#ifndef _UAPI_LINUX_XALLOC_H
#define _UAPI_LINUX_XALLOC_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Version of this file as a whole; grows when a call or a member is added. */
#define XALLOC_ABI_VERSION 4

#define XALLOC_SLICE_BYTES (64UL << 10)
#define XALLOC_SEGMENT_BYTES (2UL << 20)

/* Most entries in one XALLOC_IOC_GRANT, _FREE, _LIST or _CLAIM. */
#define XALLOC_BATCH_MAX 256

#define XALLOC_IOC_MAGIC 0xD8

/**
 * struct xalloc_ioc_info - what this module is and can do
 * @size: sizeof(struct xalloc_ioc_info)
 * @pad: must be zero
 * @abi_version: XALLOC_ABI_VERSION of the module
 * @slice_bytes: XALLOC_SLICE_BYTES of the module
 * @segment_bytes: XALLOC_SEGMENT_BYTES of the module
 * @batch_max: XALLOC_BATCH_MAX of the module
 * @arena_bytes_max: largest arena that can be created, in bytes; an offset space costs
 *	memory only where it is used, so this may be more than the machine has
 * @features: XALLOC_FEATURE_* bits
 * @unstable: calls that may still change shape, as bits 1 << _IOC_NR()
 *
 * On the device and on arenas.
 */
struct xalloc_ioc_info {
	__u32 size;
	__u32 pad;
	__u32 abi_version;
	__u32 slice_bytes;
	__u32 segment_bytes;
	__u32 batch_max;
	__aligned_u64 arena_bytes_max;
	__aligned_u64 features;
	__aligned_u64 unstable;
};

/* Arenas are mapped by 2 MiB page-table entries where address and offset allow. */
#define XALLOC_FEATURE_PMD (1ULL << 0)

#define XALLOC_IOC_INFO _IOWR(XALLOC_IOC_MAGIC, 0x00, struct xalloc_ioc_info)

/**
 * struct xalloc_ioc_stat - what is alive
 * @size: sizeof(struct xalloc_ioc_stat)
 * @pad: must be zero
 * @arenas: arenas that exist, those that only wait for a pin to drop included
 * @clients: open file descriptions on arenas
 * @pages: granted pages
 * @granted_bytes: slices in granted pages, in bytes
 * @committed_bytes: segments that have memory, in bytes
 * @pinned_bytes: the part of @committed_bytes without a page, kept because somebody
 *	still holds a reference to it
 * @charged_bytes: the part of @committed_bytes charged to a user
 * @reserved_bytes: the part of @committed_bytes without a page, kept for grants to come
 * @small_bytes: the part of @committed_bytes that is in pieces of a slice, by policy or
 *	because the kernel had no huge page; on an arena only
 * @off_node_bytes: the part of @committed_bytes that is not on the arena's node; on an
 *	arena only
 * @cold_bytes: memory that grants had to wait for while it was found and zeroed; only
 *	grows
 * @fenced_bytes: offset space in which nothing is granted any more, because its records
 *	contradict each other (EUCLEAN); on an arena only
 * @pooled_bytes: zeroed memory of nobody, held ready for arenas; on the device only
 * @poisoned_bytes: memory that hardware has broken and that is given to nobody again; on
 *	the device only, only grows
 * @exported_bytes: the part of @granted_bytes in pages that were freed, or whose client is
 *	gone, but that a dma-buf still holds; on an arena only
 * @lazy_bytes: the part of @granted_bytes in pages that were freed with XALLOC_FREE_LAZY and
 *	whose memory is still there; on an arena only
 *
 * On the device: the sums over all arenas. On an arena: that arena's.
 */
struct xalloc_ioc_stat {
	__u32 size;
	__u32 pad;
	__aligned_u64 arenas;
	__aligned_u64 clients;
	__aligned_u64 pages;
	__aligned_u64 granted_bytes;
	__aligned_u64 committed_bytes;
	__aligned_u64 pinned_bytes;
	__aligned_u64 charged_bytes;
	__aligned_u64 reserved_bytes;
	__aligned_u64 small_bytes;
	__aligned_u64 off_node_bytes;
	__aligned_u64 cold_bytes;
	__aligned_u64 fenced_bytes;
	__aligned_u64 pooled_bytes;
	__aligned_u64 poisoned_bytes;
	__aligned_u64 exported_bytes;
	__aligned_u64 lazy_bytes;
};

#define XALLOC_IOC_STAT _IOWR(XALLOC_IOC_MAGIC, 0x01, struct xalloc_ioc_stat)

/**
 * struct xalloc_status - what the kernel tells a client without being called
 * @size: sizeof(struct xalloc_status) of the module
 * @pad: zero
 * @generation: grows whenever memory of this arena is wanted back: because the machine
 *	runs short of it, or because a grant, or the filling of a hole, was refused in this arena
 * @wanted_bytes: how much was wanted, in all; what the reader did not see yet is the
 *	difference to what it saw last. Written before @generation
 *
 * Mapped by mmap() of one page at XALLOC_STATUS_OFFSET of an arena, with PROT_READ. A child
 * of fork does not have that mapping, except for an arena with XALLOC_ARENA_FORK: there the
 * child sees the page of its copy at the same address. A client that keeps pages without
 * need should free some when @generation has changed.
 */
struct xalloc_status {
	__u32 size;
	__u32 pad;
	__aligned_u64 generation;
	__aligned_u64 wanted_bytes;
};

#define XALLOC_STATUS_OFFSET (1ULL << 62)

/**
 * struct xalloc_ioc_arena_create - create an arena
 * @size: sizeof(struct xalloc_ioc_arena_create)
 * @flags: XALLOC_ARENA_NODE, XALLOC_ARENA_FORK, XALLOC_ARENA_DUMP, XALLOC_ARENA_PERSIST
 * @arena_bytes: size of the offset space; a multiple of XALLOC_SEGMENT_BYTES, at most
 *	&xalloc_ioc_info.arena_bytes_max
 * @limit_bytes: most memory to commit, a multiple of XALLOC_SEGMENT_BYTES; zero or
 *	anything above @arena_bytes means @arena_bytes. With XALLOC_ARENA_FORK: in the arena
 *	and in its copies together, and not @arena_bytes but what the machine has is the
 *	most. More than that is never committed
 * @policy: XALLOC_POLICY_*: what to commit
 * @node: with XALLOC_ARENA_NODE: the NUMA node to commit from; else must be zero
 * @arena_id: out: id of the arena, unique until the module is unloaded
 * @client_id: out: id of the client that the returned descriptor is, likewise unique
 *
 * On the device, or on an empty file of xallocfs. Commits nothing. The caller pays for all that is
 * ever committed in an arena of the device; for an arena in a file, the one who created the file
 * pays. The payer's memory cgroup, user and RLIMIT_MEMLOCK, or the parameter user_limit_mb of the
 * module if that is set, are noted when the arena of the device, or the file, is created.
 * CAP_IPC_LOCK at that moment exempts the arena from RLIMIT_MEMLOCK and user_limit_mb, for as long
 * as the arena lives: also after the payer has given the capability up. If the parameter
 * cgroup_pays is set at that moment, and the payer's cgroup or an ancestor of it has memory.max,
 * the outermost such cgroup pays instead of the user, and RLIMIT_MEMLOCK and user_limit_mb do not
 * apply. The parameter share_mb limits what all arenas of one payer have together, without
 * exemption. A segment is charged whole, unless it is in pieces. What comes from the module's pool
 * is charged as all other memory is, except that an arena with XALLOC_ARENA_FORK has memory of the
 * pool only if no cgroup above it has a limit; then that memory is charged to no cgroup.
 *
 * Returns the descriptor of the arena, close-on-exec; on a file of xallocfs, which is the
 * descriptor then, 0.
 */
struct xalloc_ioc_arena_create {
	__u32 size;
	__u32 flags;
	__aligned_u64 arena_bytes;
	__aligned_u64 limit_bytes;
	__u32 policy;
	__u32 node;
	__aligned_u64 arena_id;
	__aligned_u64 client_id;
};

/*
 * @node is meant. Without it memory comes from where the memory policy (set_mempolicy()) and the
 * cpuset of the task that commits say: by default, the nodes nearest to its CPU.
 */
#define XALLOC_ARENA_NODE (1U << 0)
/*
 * A child of fork has what its parent has mapped: a copy of the arena at the time of the
 * fork, an arena of its own with the same pages, tags and offsets, in which it sees and
 * writes its own memory. It is charged to whom the arena is charged to. If it could not be had,
 * touching it in the child is SIGBUS; XALLOC_IOC_FORK_PREPARE tells before.
 *
 * A descriptor of such an arena serves the process (the address space) that opened it. In
 * another, which inherited it or was sent it, its calls and mmap() are ESTALE, but for
 * XALLOC_IOC_INFO and XALLOC_IOC_ATTACH with an address. By that address, or, for reading, by
 * opening /proc/self/fd/N again, a child that has a copy gets a descriptor of it; the first one for
 * writing is the client to whom all pages of the copy belong. The mappings that the child has
 * inherited are mappings of that client, and keep nothing of the parent's. A process that has
 * no copy gets ESTALE from that open.
 *
 * Not for arenas with names, which are there to be shared (EOPNOTSUPP). Without this flag a
 * child has no mapping.
 */
#define XALLOC_ARENA_FORK (1U << 1)
/*
 * Core files contain the arena's pages that the process has mapped, whatever coredump_filter says.
 * XALLOC_IOC_DUMP changes this.
 */
#define XALLOC_ARENA_DUMP (1U << 2)
/*
 * Pages stay when their client goes: they are orphans then, which XALLOC_IOC_LIST finds and
 * XALLOC_IOC_CLAIM gives to another client. Every client that is open for writing may free, split
 * and export every page, also pages of clients that live. The pages go when they are freed, or with
 * the arena. How long the arena lives does not depend on this flag.
 */
#define XALLOC_ARENA_PERSIST (1U << 3)

/* Huge pages of 2 MiB, on the node that was asked for, or ENOMEM at once. */
#define XALLOC_POLICY_HUGE 0
/*
 * Huge pages where the kernel has them at hand, else pieces of 64 KiB; the node that was
 * asked for, else another. &xalloc_ioc_stat tells what it came to.
 */
#define XALLOC_POLICY_HUGE_PREFERRED 1
/* Pieces of 64 KiB on the node that was asked for; each goes back by itself. */
#define XALLOC_POLICY_SMALL 2

#define XALLOC_IOC_ARENA_CREATE \
	_IOWR(XALLOC_IOC_MAGIC, 0x02, struct xalloc_ioc_arena_create)

/**
 * struct xalloc_page_grant - one page to grant
 * @nr_slices: in: length of the run, in slices; at least 1
 * @flags: in: XALLOC_PAGE_CONTIG, XALLOC_PAGE_ZERO, XALLOC_PAGE_AT; out: the same, but
 *	XALLOC_PAGE_ZERO if the page is all zeros
 * @offset: out: offset of the page in the arena, in bytes; with XALLOC_PAGE_AT: in, a multiple
 *	of XALLOC_SLICE_BYTES
 * @tag: in: any number; kept with the page
 * @contig_bytes: out: the page consists of physically contiguous pieces that end
 *	where the offset is a multiple of this
 * @align_slices: in: @offset is to be a multiple of so many slices: a power of two, at
 *	most the arena's size; zero is one
 */
struct xalloc_page_grant {
	__u32 nr_slices;
	__u32 flags;
	__aligned_u64 offset;
	__aligned_u64 tag;
	__u32 contig_bytes;
	__u32 align_slices;
};

/* The page lies inside one huge page, so that it is physically contiguous. */
#define XALLOC_PAGE_CONTIG (1U << 0)
/*
 * In: the page is to be zeroed where it is not known to be. Out: it is, or nobody was
 * granted any of these slices since the kernel zeroed them.
 */
#define XALLOC_PAGE_ZERO (1U << 1)
/*
 * In struct xalloc_page_info alone: the page's client is gone. All pages of a file that is used as
 * a file are listed as orphans.
 */
#define XALLOC_PAGE_ORPHAN (1U << 2)
/*
 * The page is to be at @offset and nowhere else. EEXIST if a page has any of these slices, also one
 * that was freed while a dma-buf has it. EBUSY if nobody may be granted them yet: somebody refers
 * to memory of a page that was there, or hardware has broken some of it. EINVAL if @offset does not
 * fit @align_slices, or if a page with XALLOC_PAGE_CONTIG would lie in two segments.
 */
#define XALLOC_PAGE_AT (1U << 3)

/**
 * struct xalloc_ioc_grant - grant pages to this client
 * @size: sizeof(struct xalloc_ioc_grant)
 * @flags: must be zero
 * @nr: entries in @pages, 1 to XALLOC_BATCH_MAX
 * @pad: must be zero
 * @pages: pointer to an array of struct xalloc_page_grant
 *
 * On an arena. Grants in the order of the array and stops at the first entry that
 * cannot be had. A malformed entry, or an array that cannot be read and written,
 * fails the whole call with nothing granted.
 *
 * Returns the number of pages granted, at least 1, or the error of the first entry.
 */
struct xalloc_ioc_grant {
	__u32 size;
	__u32 flags;
	__u32 nr;
	__u32 pad;
	__aligned_u64 pages;
};

#define XALLOC_IOC_GRANT _IOWR(XALLOC_IOC_MAGIC, 0x10, struct xalloc_ioc_grant)

/**
 * struct xalloc_range - a part of an arena
 * @offset: where it begins, in bytes; a multiple of XALLOC_SLICE_BYTES
 * @bytes: its length, likewise; zero means the whole page that begins at @offset
 */
struct xalloc_range {
	__aligned_u64 offset;
	__aligned_u64 bytes;
};

/**
 * struct xalloc_ioc_free - free pages, or parts of pages
 * @size: sizeof(struct xalloc_ioc_free)
 * @flags: XALLOC_FREE_RANGES, XALLOC_FREE_LAZY, or zero
 * @nr: entries in @offsets, 1 to XALLOC_BATCH_MAX
 * @pad: must be zero
 * @offsets: pointer to an array of __u64, each the offset of a page; with XALLOC_FREE_RANGES, of
 *	struct xalloc_range
 *
 * On an arena. A client frees its own pages, and in an arena with XALLOC_ARENA_PERSIST all pages.
 * Frees in the order of the array and stops at the first entry that cannot be freed. All of an
 * entry is freed or nothing of it, unless others free pages of the same range at the same time.
 *
 * A range with a length may begin and end inside of pages. What remains of such a page at either
 * end is a page by itself, with the tag and the client of the whole. The records of these pages
 * take memory, which is had before anything is freed (ENOMEM). A page that a dma-buf holds is
 * freed as a whole or not at all (EBUSY).
 *
 * What was freed may be granted again at once, also while somebody
 * (a device, a pipe, an io_uring) still holds references to it. A segment whose last
 * page was freed is unmapped everywhere and goes back to the kernel, or stays as part of
 * the reserve; while it is referenced it stays where it is, charged, and counts as pinned.
 * Of a segment in pieces, each slice does so by itself.
 *
 * If the kernel has marked memory as broken by hardware before its page is freed, that memory
 * is never granted again. While the page is granted, a touch of a broken hardware page (4 KiB)
 * that takes a fault is SIGBUS with BUS_MCEERR_AR, on every kernel; system calls fail with
 * EFAULT. The rest of the page can be touched as before. An access through a page-table entry
 * that is already there does not fault: the machine decides what it reads.
 * Documentation/abi.rst has the details.
 *
 * Returns the number of entries freed, at least 1, or the error of the first entry.
 */
struct xalloc_ioc_free {
	__u32 size;
	__u32 flags;
	__u32 nr;
	__u32 pad;
	__aligned_u64 offsets;
};

/* Each entry is a range, which may begin and end inside of pages. */
#define XALLOC_FREE_RANGES (1U << 0)
/*
 * The memory stays, and stays mapped, until a grant takes it, or else for one to two seconds. Then
 * the module gives it back as without this flag. It goes at once if memory is short, if something
 * is refused for want of memory, budget or offsets, or by XALLOC_IOC_TRIM. To the caller the pages
 * are freed: what they contained must not be used, and to free them again is ENOENT. A grant is
 * served from such pages first. If it takes one of them, or a part of one, its memory need neither
 * be mapped nor, without XALLOC_PAGE_ZERO, be zeroed again. A page of more than 64 MiB is freed as
 * without this flag.
 */
#define XALLOC_FREE_LAZY (1U << 1)

#define XALLOC_IOC_FREE _IOWR(XALLOC_IOC_MAGIC, 0x11, struct xalloc_ioc_free)

/**
 * struct xalloc_ioc_reserve - keep memory ready for grants
 * @size: sizeof(struct xalloc_ioc_reserve)
 * @flags: must be zero
 * @low_bytes: the reserve is filled when it falls below this; at most @high_bytes
 * @high_bytes: it is filled up to this, and what is freed is kept up to this
 *
 * On an arena; both are multiples of XALLOC_SEGMENT_BYTES, at most the arena's size, and
 * zero at first. The reserve consists of zeroed huge pages at free offsets. It is filled in
 * the background, within the budgets that grants have, and charged like what is granted.
 * Any grant may take from it, and one that would fail for a budget or for want of memory
 * gives it back first, as the kernel does when the machine is short of memory. A memory
 * cgroup that reaches its limit by other means does not.
 *
 * poll() tells by POLLOUT that nothing is being filled; &xalloc_ioc_stat.reserved_bytes
 * how much there is. An arena whose policy is XALLOC_POLICY_SMALL has none (EOPNOTSUPP).
 */
struct xalloc_ioc_reserve {
	__u32 size;
	__u32 flags;
	__aligned_u64 low_bytes;
	__aligned_u64 high_bytes;
};

#define XALLOC_IOC_RESERVE _IOWR(XALLOC_IOC_MAGIC, 0x12, struct xalloc_ioc_reserve)

/**
 * struct xalloc_ioc_trim - give back memory without a page
 * @size: sizeof(struct xalloc_ioc_trim)
 * @flags: must be zero
 * @keep_bytes: how much of the reserve to keep; rounded up to segments
 * @trimmed_bytes: out: how much went back to the kernel
 *
 * On an arena. What somebody refers to stays. The marks of the reserve stay too: it is
 * filled again when a grant finds it below the low one.
 */
struct xalloc_ioc_trim {
	__u32 size;
	__u32 flags;
	__aligned_u64 keep_bytes;
	__aligned_u64 trimmed_bytes;
};

#define XALLOC_IOC_TRIM _IOWR(XALLOC_IOC_MAGIC, 0x13, struct xalloc_ioc_trim)

/**
 * struct xalloc_ioc_attach - become another client of an arena
 * @size: sizeof(struct xalloc_ioc_attach)
 * @flags: XALLOC_ATTACH_RDONLY, or zero, which wants a descriptor open for writing
 * @address: zero: attach to the arena of this descriptor. Otherwise: attach to the arena that this
 *	process has mapped at this address; the arena of the descriptor does not matter then. A
 *	mapping of a dma-buf does not count (ENOENT)
 * @arena_id: out: id of the arena
 * @client_id: out: id of the client that the returned descriptor is
 * @offset: out: offset in the arena of what is mapped at @address; zero without an address
 * @arena_flags: out: XALLOC_ARENA_* of the arena; XALLOC_ARENA_DUMP as it is now
 * @pad: must be zero
 *
 * On an arena, and with @address also on the device, and on a descriptor for which other calls give
 * ESTALE. Makes another client, so that each of two processes on an arena has pages of its own. The
 * address is for a child of fork (XALLOC_ARENA_FORK), and for a library whose descriptors were
 * closed by the program around it. For writing, the mapping must be a shared one, made by a
 * descriptor that was open for writing. Without @address it is EBUSY on a file of xallocfs that is
 * empty, in which its creator may be about to create an arena.
 *
 * Returns the descriptor, close-on-exec.
 */
struct xalloc_ioc_attach {
	__u32 size;
	__u32 flags;
	__aligned_u64 address;
	__aligned_u64 arena_id;
	__aligned_u64 client_id;
	__aligned_u64 offset;
	__u32 arena_flags;
	__u32 pad;
};

/* The new descriptor maps with PROT_READ only, is granted nothing and changes nothing. */
#define XALLOC_ATTACH_RDONLY (1U << 0)

#define XALLOC_IOC_ATTACH _IOWR(XALLOC_IOC_MAGIC, 0x14, struct xalloc_ioc_attach)

/**
 * struct xalloc_ioc_limit - set the arena's own limit
 * @size: sizeof(struct xalloc_ioc_limit)
 * @flags: must be zero
 * @limit_bytes: as in &xalloc_ioc_arena_create.limit_bytes
 *
 * On an arena, and only for its owner, who is the user that made it, or, of an arena with a name,
 * the owner of the file; or with CAP_FOWNER. Others get EPERM. Nobody can set the limit of an
 * arena that a kernel client made.
 *
 * A limit below what is committed takes the reserve; if that is not enough the call is EBUSY
 * and the old limit stays.
 */
struct xalloc_ioc_limit {
	__u32 size;
	__u32 flags;
	__aligned_u64 limit_bytes;
};

#define XALLOC_IOC_LIMIT _IOWR(XALLOC_IOC_MAGIC, 0x15, struct xalloc_ioc_limit)

/**
 * struct xalloc_page_info - a granted page
 * @offset: offset of the page in the arena, in bytes
 * @tag: the number that came with its grant
 * @client_id: id of the client that was granted it or has claimed it
 * @nr_slices: length of the run, in slices
 * @flags: XALLOC_PAGE_ORPHAN, or zero
 */
struct xalloc_page_info {
	__aligned_u64 offset;
	__aligned_u64 tag;
	__aligned_u64 client_id;
	__u32 nr_slices;
	__u32 flags;
};

/**
 * struct xalloc_ioc_list - list granted pages in the order of their offsets
 * @size: sizeof(struct xalloc_ioc_list)
 * @flags: XALLOC_LIST_ORPHANS, or zero
 * @client_id: only pages of this client, gone or not; zero: of any
 * @offset: in: where to begin; out: where to go on, the size of the arena if there is no
 *	more
 * @nr: entries in @pages, 1 to XALLOC_BATCH_MAX
 * @pad: must be zero
 * @pages: pointer to an array of struct xalloc_page_info, to be filled in
 *
 * On an arena. What others grant and free between two calls may be listed or not.
 *
 * Returns the number of pages listed, which may be 0 although there are more: a call
 * passes a bounded number of pages over.
 */
struct xalloc_ioc_list {
	__u32 size;
	__u32 flags;
	__aligned_u64 client_id;
	__aligned_u64 offset;
	__u32 nr;
	__u32 pad;
	__aligned_u64 pages;
};

/* Only pages whose client is gone. */
#define XALLOC_LIST_ORPHANS (1U << 0)

#define XALLOC_IOC_LIST _IOWR(XALLOC_IOC_MAGIC, 0x16, struct xalloc_ioc_list)

/**
 * struct xalloc_ioc_claim - take orphans over
 * @size: sizeof(struct xalloc_ioc_claim)
 * @flags: must be zero
 * @nr: entries in @offsets, 1 to XALLOC_BATCH_MAX
 * @pad: must be zero
 * @offsets: pointer to an array of __u64, each the offset of a page
 *
 * On an arena. A claimed page belongs to this client; when this client goes, the page is an orphan
 * again. Of several clients that claim the same page, one succeeds. Claims in the order of the
 * array and stops at the first entry that cannot be claimed.
 *
 * Returns the number of pages claimed, at least 1, or the error of the first entry.
 */
struct xalloc_ioc_claim {
	__u32 size;
	__u32 flags;
	__u32 nr;
	__u32 pad;
	__aligned_u64 offsets;
};

#define XALLOC_IOC_CLAIM _IOWR(XALLOC_IOC_MAGIC, 0x17, struct xalloc_ioc_claim)

/**
 * struct xalloc_ioc_export - export a range as a dma-buf
 * @size: sizeof(struct xalloc_ioc_export)
 * @flags: must be zero
 * @offset: where the range begins in the arena, a multiple of XALLOC_SLICE_BYTES
 * @bytes: its length, likewise, at least one slice; all of it must be in pages that this client may
 *	free, and may begin and end inside of them
 *
 * On an arena. The pages stay where they are, with their contents and their charge, until
 * the dma-buf and its mappings are gone: if one is freed before, or its client goes, it is
 * nobody's, but still there. The dma-buf can be mapped as the arena can.
 *
 * Returns the descriptor of the dma-buf, close-on-exec.
 */
struct xalloc_ioc_export {
	__u32 size;
	__u32 flags;
	__aligned_u64 offset;
	__aligned_u64 bytes;
};

#define XALLOC_IOC_EXPORT _IOWR(XALLOC_IOC_MAGIC, 0x18, struct xalloc_ioc_export)

/**
 * struct xalloc_ioc_fork_prepare - commit what the next fork needs
 * @size: sizeof(struct xalloc_ioc_fork_prepare)
 * @flags: XALLOC_FORK_CANCEL, or zero
 *
 * On an arena with XALLOC_ARENA_FORK (else EOPNOTSUPP). Commits memory for a copy of the
 * arena, within the budgets that grants have, and fails as a grant does, so that the caller
 * can fail its fork before it begins. The next fork of this process takes it and then cannot
 * fail to copy the arena, unless pages were granted or freed between the two: then
 * it does as if it had not been prepared. What was prepared before is given back.
 */
struct xalloc_ioc_fork_prepare {
	__u32 size;
	__u32 flags;
};

/* Prepares nothing: only gives back what was prepared and not taken by a fork. */
#define XALLOC_FORK_CANCEL (1U << 0)

#define XALLOC_IOC_FORK_PREPARE \
	_IOWR(XALLOC_IOC_MAGIC, 0x19, struct xalloc_ioc_fork_prepare)

/**
 * struct xalloc_ioc_meta - a second file of the arena, for what its clients note about it
 * @size: sizeof(struct xalloc_ioc_meta)
 * @flags: must be zero
 * @bytes: in: size of the file, of the first call for this arena; a multiple of the page size,
 *	at least one page and at most the arena's size; zero in any other; out: what it is
 *
 * On an arena. Ordinary zeroed memory that costs only where it was written to, can be
 * swapped, is charged like that of memfd_create() and never to the arena. It lives as long as
 * the arena, or as somebody has it open or mapped. The kernel reads nothing of it and no
 * dma-buf has it. Its size is fixed. ENOENT if no call has given it a size yet, EEXIST if
 * one has given another, EBADF to give one by a descriptor not open for writing. A copy that
 * fork makes of an arena has none at first.
 *
 * Returns a descriptor, close-on-exec; open for reading only if that of the call is.
 */
struct xalloc_ioc_meta {
	__u32 size;
	__u32 flags;
	__aligned_u64 bytes;
};

#define XALLOC_IOC_META _IOWR(XALLOC_IOC_MAGIC, 0x1A, struct xalloc_ioc_meta)

/**
 * struct xalloc_ioc_dump - whether core files have memory of an arena
 * @size: sizeof(struct xalloc_ioc_dump)
 * @flags: XALLOC_DUMP_ON to have the memory in core files, zero to leave it out
 *
 * On an arena, and only for its owner, as XALLOC_IOC_LIMIT. Changes the existing mappings of this
 * process and every later mapping of the arena in any process. Existing mappings of other processes
 * do not change. madvise(MADV_DONTDUMP) leaves out a single mapping; MADV_DODUMP is EINVAL.
 *
 * A file that is used as a file is dumped as any other: coredump_filter decides. A dump never
 * commits memory.
 */
struct xalloc_ioc_dump {
	__u32 size;
	__u32 flags;
};

#define XALLOC_DUMP_ON (1U << 0)

#define XALLOC_IOC_DUMP _IOWR(XALLOC_IOC_MAGIC, 0x1B, struct xalloc_ioc_dump)

#endif /* _UAPI_LINUX_XALLOC_H */
