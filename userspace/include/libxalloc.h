/* SPDX-License-Identifier: MIT */
/*
 * libxalloc: malloc for pinned huge-page memory
 *
 * Blocks come from arenas: files of the xalloc device, mapped into memory. The memory of a
 * block is committed, zeroed once by the kernel, pinned and mapped with 2 MiB page-table
 * entries where it can be. From the return of the call that gave a block out until it is
 * freed, its addresses mean the same physical memory, so it may be handed to devices and to
 * the kernel (O_DIRECT, io_uring fixed buffers, RDMA).
 *
 * Everything the allocator knows about a block lies outside the arena, in private memory.
 * No write into the arena, by the program or by a device, can corrupt the allocator. A
 * free of anything but the start of a live block is found on every free, always: the
 * library writes one line to stderr that names the pointer and what is wrong, and aborts,
 * unless the program has set a handler, which is asked first.
 *
 * Results
 *	What returns a pointer returns NULL and sets errno. What returns int returns a value
 *	that is not negative, or -errno. Errors that are not named with a call:
 *
 *	ENOMEM		a limit was reached or memory ran out. Which limit it was is in
 *			&xalloc_arena_stat.refused, and on stderr with
 *			XALLOC_OPTIONS=verbose
 *	ENOENT, EACCES	and whatever else open() says: /dev/xalloc cannot be opened (is
 *			the module loaded, is the user in group xalloc?)
 *	EINVAL		an alignment that is not a power of two; an environment variable
 *			(below) with a bad value, after one line on stderr that names it
 *	ESTALE		this arena or heap was destroyed, or was made before a fork() by
 *			the parent
 *	EPROTO		the module is not one this library is made for
 *	EUCLEAN		the kernel found records of the arena damaged
 *
 * Threads
 *	Any call may be made by any thread at any time, with two exceptions: nobody may use
 *	a heap or an arena while it is destroyed, and nobody afterwards. Blocks may be freed by
 *	another thread than the one that allocated them. No call may be made from a signal
 *	handler. A thread keeps free blocks of the default heap for itself, which serve others
 *	when it ends: up to 1 MiB in blocks of up to 64 KiB, and up to 8 MiB in those of up to
 *	1 MiB. Of each it takes at most an even share of 16 MiB, or of a 256th of XALLOC_LIMIT
 *	if that is less; as much again is passed on between threads. What is kept goes back
 *	when the kernel wants memory, as soon as the thread allocates what it has not at hand.
 *	The library takes one pthread key when it is loaded. If the program has taken all keys
 *	before that, threads keep no blocks, and each call takes a lock.
 *
 * dlopen
 *	dlclose() leaves the library where it is, as do blocks and arenas: the next dlopen() finds
 *	all of them. A plugin that is linked with libxalloc.a has to stay as well: link the plugin
 *	with -z nodelete.
 *
 * fork
 *	A child has none of its parent's blocks: touching one is SIGSEGV. In the child
 *	the library starts anew, with a default heap and arenas of its own; arenas and heaps
 *	of the parent give ESTALE, and freeing one of the parent's blocks does nothing, so
 *	that destructors may run; the same goes for the parent's forebears, as far as the
 *	fourth process back that allocated. The descriptors of the parent's arenas are
 *	inherited (not across exec) and keep what is allocated there alive while the child
 *	has them.
 *
 * Preload
 *	LD_PRELOAD=libxalloc-preload.so gives a program that was built without the library its
 *	malloc() from the default heap. There a child of fork() does have copies of all blocks,
 *	and fork() is ENOMEM if the limits, which count the copies in, have no room for them. The
 *	program may close any descriptor; more memory it has then as long as it can open /dev/xalloc
 *	again. An arena that such a program has opened (xalloc_arena_open(), _from_fd()) gives
 *	nothing back after that, unless it was created with XALLOC_PERSIST. If there can be no
 *	default heap, the program ends with status 127 after one line on stderr; the first refusal
 *	of memory is a line there too. fork() may be called in a signal handler by a program with
 *	one thread. Blocks differ from those of libc where the kernel knows of files: after
 *	MADV_DONTNEED they have their contents still, and a mutex or semaphore that processes share
 *	may not lie in one. malloc_trim(), mallinfo2() and what else glibc says of its malloc are
 *	about the default arena; mallopt() accepts each parameter of glibc's, and does nothing.
 *
 * LeakSanitizer
 *	What malloc() of libc returned is no leak while a pointer to it lies in a block, or in the
 *	free memory between blocks. Blocks themselves are not looked for: leaks=1 (below) does that.
 *
 * Environment (as the first call finds it; ignored in set-user-ID programs)
 *	XALLOC_LIMIT	most memory the default heap commits, in bytes or with a suffix K, M, G
 *			or T; at least 2M, rounded down to whole 2M. The largest limit is about
 *			3T on x86-64. Unset: RLIMIT_MEMLOCK,
 *			unless the process is exempt from it, or a quarter of the machine's
 *			memory, whichever is lower
 *	XALLOC_BACKEND	device (or unset), or local: anonymous memory of the process, for tests
 *			and for machines without the module. It is not pinned, charged to
 *			nobody, and its arenas have no descriptor
 *	XALLOC_OPTIONS	key=value,... ; "help" lists the keys on stderr
 *		verbose=1	says on stderr why memory was refused, and once for an arena that it
 *				comes in pieces because the kernel has no huge page at hand
 *		zero_on_free=1	writes zeros over blocks that are freed
 *		canary=1	fills what a block is longer than the size that was asked for,
 *				and looks at it when the block is freed or resized: a write
 *				there is a misuse. xalloc_usable_size() is what was asked for
 *		leaks=1		xalloc_report() to stderr at exit; not after _exit() or a signal
 *		trace=N		keeps the stack of each Nth call that allocates, while the
 *				block lives, for xalloc_report()
 *		pages=WORD	what the default heap commits, as in enum xalloc_pages: huge,
 *				huge_preferred (if unset) or small
 *		node=N		the NUMA node it commits from, with huge_preferred where it can. If
 *				that has no memory, or for node= or small on XALLOC_BACKEND=local,
 *				calls fail as xalloc_arena_create() does, after one line on stderr
 *	While zero_on_free, canary or trace is on, threads keep no blocks for themselves, and
 *	each call takes a lock.
 *
 * Borrowed ideas: a state outside the memory it describes is OpenBSD malloc's and
 * hardened_malloc's; one flat table from address to page, and stacks of addresses for each size
 * class, are tcmalloc's; the spacing of size classes is jemalloc's; heaps that are destroyed as a
 * whole are mimalloc's; -errno as a result is liburing's.
 */
#ifndef LIBXALLOC_H
#define LIBXALLOC_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define XALLOC_ATTR(...) __attribute__((__VA_ARGS__))
#pragma GCC visibility push(default)
#else
#define XALLOC_ATTR(...)
#endif

/* One offset space, one budget; what a device registers and who may map it is decided here. */
struct xalloc_arena;
/* An allocator over one arena, with a lock of its own. */
struct xalloc_heap;
/* A chunk hook of an arena. */
struct xalloc_hook;

/*
 * The default heap
 *
 * Needs no set-up: the first call creates an arena that grows by need up to XALLOC_LIMIT
 * and stays until the process ends.
 */

/**
 * xalloc_malloc() - allocate a block in the default heap
 * @size: bytes; zero counts as one, so that every block has an address of its own
 *
 * The contents are undefined. Blocks are aligned to 16 bytes, those of more than 64 KiB to
 * 4 KiB, of which they take a whole multiple. Smaller ones are rounded up to a multiple of 16
 * bytes, and above 128 bytes to one of eight sizes per doubling. So are those of up to 1 MiB
 * in the default heap, whose threads keep them, unless there is room only for less; a block
 * that a thread has kept may be of the next of these sizes, and so up to a quarter longer than
 * was asked for.
 *
 * Return: the block, or NULL with errno set.
 */
XALLOC_ATTR(malloc, alloc_size(1), warn_unused_result)
void *xalloc_malloc(size_t size);

/**
 * xalloc_calloc() - allocate a zeroed block in the default heap
 * @nmemb: number of members
 * @size: bytes of a member
 *
 * Memory that the kernel zeroed and nobody was given since is not written again.
 *
 * Return: the block, or NULL with errno set; ENOMEM when @nmemb * @size overflows.
 */
XALLOC_ATTR(malloc, alloc_size(1, 2), warn_unused_result)
void *xalloc_calloc(size_t nmemb, size_t size);

/**
 * xalloc_realloc() - change the size of a block
 * @ptr: a block of any heap, or NULL to allocate one in the default heap
 * @size: new size in bytes; zero counts as one and does not free
 *
 * The block stays in the heap it is from. It stays where it is as long as its size class
 * stays, and while more than half of it is used. Above 64 KiB it grows where it is if the
 * offsets behind it are free, by memory that the kernel grants there; if it has to move to
 * grow, it gets free offsets behind it where the arena has some. Otherwise the contents move,
 * and an address that a device knows does not follow. Aborts when @ptr is neither NULL nor the
 * start of a live block.
 *
 * Return: the block, or NULL with errno set and @ptr as it was. Shrinking does not fail.
 */
XALLOC_ATTR(alloc_size(2), warn_unused_result)
void *xalloc_realloc(void *ptr, size_t size);

/**
 * xalloc_aligned_alloc() - allocate an aligned block in the default heap
 * @alignment: bytes; any power of two, up to the size of the arena
 * @size: bytes; need not be a multiple of @alignment
 *
 * Above 64 KiB of alignment the library may have to take @alignment bytes more than @size
 * from the arena to find an aligned address; they serve other blocks of more than 64 KiB.
 *
 * Return: the block, or NULL with errno set; EINVAL when @alignment is not a power of two.
 */
XALLOC_ATTR(malloc, alloc_align(1), alloc_size(2), warn_unused_result)
void *xalloc_aligned_alloc(size_t alignment, size_t size);

/**
 * xalloc_free() - free a block
 * @ptr: a block of any heap, or NULL
 *
 * Aborts when @ptr is not the start of a live block. errno is kept. The memory may be given
 * out again at once: a device that still writes to it must be stopped first.
 *
 * When two threads free a block in the same instant both may keep it among their free blocks;
 * then the second of them that gives it out or puts it back, when it ends at the latest, aborts.
 */
void xalloc_free(void *ptr);

/**
 * xalloc_free_sized() - free a block whose size is known
 * @ptr: what xalloc_malloc(), _calloc() or _realloc() of any heap returned, or NULL
 * @size: the size that was asked for
 *
 * As xalloc_free(); aborts as well when @size belongs to another size class, unless
 * xalloc_realloc() has left a block of that slab where it was.
 */
void xalloc_free_sized(void *ptr, size_t size);

/**
 * xalloc_free_aligned_sized() - free an aligned block whose size is known
 * @ptr: what xalloc_aligned_alloc() of any heap returned, or NULL
 * @alignment: the alignment that was asked for
 * @size: the size that was asked for
 *
 * As xalloc_free(); aborts as well when @alignment and @size belong to another size class.
 */
void xalloc_free_aligned_sized(void *ptr, size_t alignment, size_t size);

/**
 * xalloc_usable_size() - how many bytes of a block may be used
 * @ptr: a block of any heap, or NULL
 *
 * Aborts when @ptr is not the start of a live block.
 *
 * Return: bytes, at least what was asked for; 0 for NULL.
 */
size_t xalloc_usable_size(const void *ptr);

/*
 * Misuse
 *
 * What is no block, or not of the size that is said, is found by each call that takes a block.
 */

/**
 * struct xalloc_misuse - a call with a pointer or a size that cannot be right
 * @size: sizeof(struct xalloc_misuse) of the library
 * @call: the call's name
 * @ptr: what it was given
 * @block_bytes: size class, or length of the large block, that @ptr points into; 0 if none
 * @page: the start of the page that it points into, or NULL
 * @message: all of it in words, without a newline
 */
struct xalloc_misuse {
	size_t size;
	const char *call;
	const void *ptr;
	size_t block_bytes;
	const void *page;
	const char *message;
};

/**
 * xalloc_set_misuse_handler() - be told before the library aborts
 * @handler: what to call, in any thread, or NULL for nothing
 *
 * When it returns, the library writes the message to stderr and aborts. It may end the
 * program itself, and it may leave by longjmp(): the call has then done nothing. It is not
 * called when two threads have each freed the same block, because what both have done cannot
 * be undone.
 */
void xalloc_set_misuse_handler(void (*handler)(const struct xalloc_misuse *misuse));

/*
 * Arenas
 */

/* What memory an arena commits. */
enum xalloc_pages {
	/* Huge pages of 2 MiB, on the node that was asked for; refused at once without one. */
	XALLOC_PAGES_HUGE,
	/* Huge pages where the kernel has them at hand, else pieces of 64 KiB; any node. */
	XALLOC_PAGES_HUGE_PREFERRED,
	/* Pieces of 64 KiB, each of which goes back by itself. */
	XALLOC_PAGES_SMALL,
};

/*
 * &xalloc_arena_config.node is meant. Without it memory comes from where the task's memory policy
 * says.
 */
#define XALLOC_ON_NODE (1U << 0)
/*
 * What a process has allocated stays in the arena when the process calls xalloc_arena_destroy() or
 * ends, for the processes that have the arena or open it later. If the process ends without that
 * call, free memory that the library kept for it stays, too. What stays is freed by the calls of
 * <linux/xalloc.h> alone, or goes with the arena.
 */
#define XALLOC_PERSIST (1U << 1)
/* Core files have the memory of the arena. Those of XALLOC_BACKEND=local have it in any case. */
#define XALLOC_DUMP (1U << 2)

/**
 * struct xalloc_arena_config - what an arena shall be
 * @size: sizeof(struct xalloc_arena_config)
 * @arena_bytes: size of the offset space and of the mapping, rounded up to 2 MiB. Costs
 *	addresses, no memory. Zero: the same as the default heap's XALLOC_LIMIT
 * @limit_bytes: most memory to commit, rounded up to 2 MiB. Zero: @arena_bytes
 * @path: a file to create, in a mounted file system of type xallocfs (/run/xalloc), with mode
 *	0600, which chmod(2) changes. The arena then lives until the file is removed and nobody
 *	has it open, mapped or exported. NULL: an arena without a name, as long as somebody has it
 * @flags: XALLOC_ON_NODE, XALLOC_PERSIST, XALLOC_DUMP
 * @pages: enum xalloc_pages
 * @node: with XALLOC_ON_NODE: the NUMA node to commit from
 * @reserved: zero
 * @reserve_low_bytes: a reserve of zeroed memory, charged like blocks, is filled in the
 *	background when it falls below this; rounded up to 2 MiB
 * @reserve_high_bytes: up to this; at most @arena_bytes
 * @chunk_bytes: for xalloc_chunk_hook_add(): a power of two, at least 2 MiB, at most
 *	@arena_bytes and @limit_bytes. Zero: chunks begin with 32 MiB and grow up to 1 GiB
 *
 * Zero in any member but @size means its default. Later versions append members.
 */
struct xalloc_arena_config {
	size_t size;
	size_t arena_bytes;
	size_t limit_bytes;
	const char *path;
	unsigned int flags;
	unsigned int pages;
	unsigned int node;
	unsigned int reserved;
	size_t reserve_low_bytes;
	size_t reserve_high_bytes;
	size_t chunk_bytes;
};

/**
 * xalloc_arena_create() - create an arena
 * @config: what it shall be, or NULL for all defaults
 *
 * Commits no memory. What is committed later is charged to the user who created the arena,
 * whatever process or user allocates.
 *
 * Return: the arena, or NULL with errno set: EINVAL for a @config->size that is too small and
 * for values that mean nothing, E2BIG for members this library does not know that are not zero,
 * EFBIG for more than any arena can have, ENOMEM when no addresses are left, EMFILE.
 * EEXIST and whatever else open() says of @config->path, ENOTTY if that is not in an xallocfs;
 * ENODEV for a @config->node that has no memory; EOPNOTSUPP for a reserve of small pieces. With
 * XALLOC_BACKEND=local EOPNOTSUPP for a path, a flag but XALLOC_DUMP, XALLOC_PAGES_SMALL and a
 * reserve.
 */
XALLOC_ATTR(warn_unused_result)
struct xalloc_arena *xalloc_arena_create(const struct xalloc_arena_config *config);

/**
 * xalloc_arena_open() - open an arena with a name
 * @path: a file of an xallocfs in which there is an arena
 *
 * The same arena in each process that opens it: what one writes the others see. Blocks are
 * passed on as offsets: xalloc_handle() where the block was allocated, xalloc_at() where it is
 * looked at. What the library knows of blocks is private to each process: heaps and counts
 * of blocks are this process's, and only the process that allocated a block may free or
 * resize it; in another one that aborts. The limit is the arena's, and all share it. The blocks
 * of a process that ends are gone, also while others look at them, unless the arena was created
 * with XALLOC_PERSIST.
 *
 * A process may open an arena more than once, and then has it at several addresses.
 *
 * Return: the arena, or NULL with errno set: whatever open() says, EBUSY while the file is empty,
 * ENOTTY when it is of another file system, ENOMEM when no addresses are left; EOPNOTSUPP with
 * XALLOC_BACKEND=local, and when a program uses the file as a file. &xalloc_arena_stat.limit_bytes
 * is not known and given as the arena's size.
 */
XALLOC_ATTR(warn_unused_result)
struct xalloc_arena *xalloc_arena_open(const char *path);

/**
 * xalloc_arena_from_fd() - have an arena whose descriptor was passed on
 * @fd: a descriptor of an arena, inherited or received by SCM_RIGHTS; stays the caller's
 *
 * As xalloc_arena_open(). The result does not need @fd any more.
 *
 * Return: the arena, or NULL with errno set: EBADF when @fd is closed or open for reading only,
 * ENOTTY when it is of something else, ENOMEM when no addresses are left, ESTALE
 * for one of the parent's that cannot be shared; EOPNOTSUPP with XALLOC_BACKEND=local.
 */
XALLOC_ATTR(warn_unused_result)
struct xalloc_arena *xalloc_arena_from_fd(int fd);

/**
 * xalloc_arena_adopt() - have an arena of memory that is there already
 * @memory: where it begins; of any alignment
 * @size: bytes of it
 *
 * For memory that something else allocated and pinned: cudaHostAlloc(), a hugetlbfs, a device. It
 * stays the caller's, who keeps it mapped while the arena lives; destroying the arena leaves it as
 * it is. It is counted and charged by nobody here. Blocks lie in it, and whatever is known of them
 * lies elsewhere. It is used in whole 64 KiB, aligned to that: less than 64 KiB at either end is
 * not used, and xalloc_arena_range() tells the rest. Blocks can be aligned to the largest power of
 * two in that size, or to 2 MiB, whichever is more. The arena has no descriptor and no chunk hook.
 *
 * Return: the arena, or NULL with errno set: EINVAL for memory without an aligned 64 KiB in it,
 * that wraps around, or of another arena that is not adopted; EEXIST when a part of it is adopted
 * already; ENOMEM when no addresses are left to describe it; EFBIG.
 */
XALLOC_ATTR(warn_unused_result)
struct xalloc_arena *xalloc_arena_adopt(void *memory, size_t size);

/**
 * xalloc_arena_destroy() - destroy an arena with all its heaps and blocks
 * @arena: what xalloc_arena_create(), _open(), _from_fd() or _adopt() returned
 *
 * Of an arena that has a name or that others have, it ends this process's part alone; with
 * XALLOC_PERSIST what its blocks hold stays. Memory that a device or the kernel still has pinned
 * goes back when the last pin drops.
 *
 * Return: 0, or -errno: -EBUSY for the arena of the default heap, -EDEADLK in a chunk hook.
 */
int xalloc_arena_destroy(struct xalloc_arena *arena);

/**
 * xalloc_arena_default() - the arena of the default heap
 *
 * Return: the arena, which is created if need be, or NULL with errno set.
 */
XALLOC_ATTR(warn_unused_result)
struct xalloc_arena *xalloc_arena_default(void);

/**
 * xalloc_arena_fd() - descriptor of an arena
 * @arena: the arena
 *
 * For the calls of <linux/xalloc.h>, for mmap() in a process it was passed to. It stays the
 * library's: duplicate it to keep it, do not close it.
 *
 * Return: the descriptor, or -errno: -EOPNOTSUPP with XALLOC_BACKEND=local and for adopted memory.
 */
int xalloc_arena_fd(const struct xalloc_arena *arena);

/**
 * xalloc_arena_range() - the addresses of an arena
 * @arena: the arena
 * @range: out: address and length in bytes; both are multiples of 2 MiB, of adopted memory of
 *	64 KiB
 *
 * All blocks of the arena lie in this range, which does not change while the arena lives. Of the
 * default arena only those parts can be touched in which blocks are. The range has the form in
 * which io_uring takes buffers. Registering the range, or a part of it, once, makes every block in
 * it known to the device; there must be memory behind all of it, or a device's driver says EFAULT,
 * and the memory must stay until it is deregistered. xalloc_arena_commit() ensures both.
 *
 * Return: 0, or -errno.
 */
int xalloc_arena_range(const struct xalloc_arena *arena, struct iovec *range);

/**
 * xalloc_arena_trim() - give back what an arena keeps without need
 * @arena: the arena
 *
 * Memory without a block that heaps keep, what this thread keeps for itself or threads pass on,
 * and chunks without a block, but not those of xalloc_arena_commit(). The library does so itself
 * when memory is refused.
 *
 * Return: 0, or -errno.
 */
int xalloc_arena_trim(struct xalloc_arena *arena);

/**
 * xalloc_arena_commit() - commit a range of an arena
 * @arena: an arena of this process alone. Nothing was allocated from it before its first hook or
 *	its first committed range
 * @offset: where the range begins in the arena, in bytes
 * @bytes: the length of the range. Both ends are rounded outwards, to
 *	&xalloc_arena_config.chunk_bytes, or to 2 MiB if that is zero
 *
 * For programs that register a whole arena, or a part of it, once. When the call returns, there is
 * memory behind each address of the range. The memory is charged like blocks, and stays until the
 * arena is destroyed, even if no block is in it. From now on the arena is used in chunks, as with
 * xalloc_chunk_hook_add(). Each part of the range that had no memory becomes a chunk, or several
 * chunks of the largest length, and the hooks are told of them. Blocks lie in these chunks as in
 * others.
 *
 * Return: 0, or -errno: -EINVAL if @bytes is zero, -ERANGE for a range that is not in
 * the arena, or in the rest of the arena that is smaller than a chunk;
 * what a hook returned, or an errno of &xalloc_arena_stat.refused when there is no memory, and
 * then the chunks that were committed before stay; -EBUSY when something was allocated in the
 * arena before it was used in chunks; -EEXIST when another process has memory in the range;
 * -EDEADLK in a hook; -EOPNOTSUPP for adopted memory; -ENOMEM; -ESTALE for an arena that is gone.
 */
int xalloc_arena_commit(struct xalloc_arena *arena, uint64_t offset, size_t bytes);

/**
 * struct xalloc_chunk_hook - what to call for each chunk of an arena
 * @size: sizeof(struct xalloc_chunk_hook)
 * @added: called with @ctx, the chunk's address and its length, before a block is in the chunk. It
 *	may set *@cookie, which is NULL at first, to a value that xalloc_chunk_cookie() then
 *	returns. Returns 0, or -errno to refuse the chunk. May be NULL
 * @removed: called with @ctx, the chunk's address, its length and its cookie, when the hook must
 *	forget the chunk: before its memory goes back, when the hook is removed, or when a later
 *	hook refuses the chunk. May be NULL
 * @ctx: passed to both functions
 */
struct xalloc_chunk_hook {
	size_t size;
	int (*added)(void *ctx, void *address, size_t bytes, void **cookie);
	void (*removed)(void *ctx, void *address, size_t bytes, void *cookie);
	void *ctx;
};

/**
 * xalloc_chunk_hook_add() - be told of memory before it is used, and before it goes
 * @arena: an arena of this process alone. Before its first hook nothing was allocated from it
 * @hook: what to call; it is copied
 *
 * For devices and calls with which memory must be registered, such as RDMA and io_uring's fixed
 * buffers. After its first hook was added, an arena commits, charges and gives back memory in
 * chunks, also after that hook is removed. No block lies in two chunks. Chunks stay when their last
 * block is freed, until xalloc_arena_trim() or xalloc_arena_destroy() is called.
 *
 * With &xalloc_arena_config.chunk_bytes all chunks have that length and are aligned to it in the
 * arena; a rest of the limit that is smaller than a chunk is not used. Without it, and in the
 * default arena, chunks are multiples of 2 MiB: 32 MiB at first, then the sum of all chunks,
 * rounded down to a power of two, up to 1 GiB. A chunk is longer if a block needs it, and shorter
 * when that much is refused, so that all of the limit is used. The size of a block, plus its
 * alignment if that is above 64 KiB, may not exceed the largest chunk: chunk_bytes, or without it
 * the smaller of 1 GiB and the limit. Otherwise errno is ENOMEM, and &xalloc_arena_stat.refused is
 * EFBIG.
 *
 * An arena has up to 32 hooks. Each of them is told of each chunk once, in the order in which the
 * hooks were added. If one refuses, the hooks that were told before are told of the removal, the
 * chunk goes back, and the refusal is errno of the allocation. A chunk that goes is withdrawn from
 * the last hook first. A hook that is added later is told of all chunks that are there before this
 * call returns. Other threads may use the arena meanwhile.
 *
 * The thread that allocates, commits or trims, adds or removes a hook, or destroys the arena calls
 * the hooks. The library holds no lock meanwhile, so hooks may run at the same time in several
 * threads, also for one chunk. An allocation that finds no room waits for a chunk that another
 * thread is adding, and an allocation that would be refused waits for the hooks of other threads. A
 * thread that is cancelled meanwhile goes on to the next cancellation point after the call. A hook
 * may allocate, free and trim, in this arena too; but what it allocates in the arena may need a
 * chunk of its own, for which it is called again. It may not add or remove hooks, commit ranges or
 * destroy an arena: EDEADLK. A hook returns: it does not leave by longjmp(), an exception or
 * pthread_exit(), and a child of fork() in a hook calls exec or _exit(). What @added writes into a
 * chunk is in later blocks, also in those of calloc(). At exit nothing is called.
 *
 * Return: the hook, or NULL with errno set: what @hook->added returned, after @hook->removed for
 * the chunks it had accepted; EBUSY when something was allocated in the arena before its first
 * hook; EDEADLK in a hook; EINVAL for a @hook->size that this library does not know; ENOSPC when
 * there are 32 hooks; EOPNOTSUPP for adopted memory; ENOMEM; ESTALE for an arena that is gone.
 */
XALLOC_ATTR(warn_unused_result)
struct xalloc_hook *xalloc_chunk_hook_add(struct xalloc_arena *arena,
					  const struct xalloc_chunk_hook *hook);

/**
 * xalloc_chunk_hook_remove() - end a hook
 * @hook: what xalloc_chunk_hook_add() returned
 *
 * Tells the hook of the removal of each chunk that it knows. The chunks stay, and so do their
 * blocks. When the call returns, the hook is not called any more by any thread, and @hook is gone.
 * xalloc_arena_destroy() removes all hooks of the arena.
 *
 * Return: 0, or -errno: -EDEADLK in a hook, -ESTALE in a child of fork() or when the arena is gone.
 */
int xalloc_chunk_hook_remove(struct xalloc_hook *hook);

/**
 * xalloc_chunk_cookie() - what a hook has for the chunk that holds an address
 * @hook: what xalloc_chunk_hook_add() returned
 * @ptr: any address in a block of the arena
 *
 * One look into a table, without a lock: any thread may call it, also in a hook, until
 * xalloc_chunk_hook_remove() is called.
 *
 * Return: the cookie that @added gave, or NULL if the hook knows no chunk there.
 */
void *xalloc_chunk_cookie(const struct xalloc_hook *hook, const void *ptr);

/*
 * Statistics
 */

/**
 * struct xalloc_arena_stat - what an arena holds
 * @size: in: sizeof(struct xalloc_arena_stat); out: how many bytes were filled
 * @arena_id: id of the arena, unique until the module is unloaded
 * @arena_bytes: size of the offset space
 * @limit_bytes: most memory to commit
 * @committed_bytes: memory the kernel has committed, in whole 2 MiB or pieces of 64 KiB
 * @pinned_bytes: the part of @committed_bytes without a block, kept because a device or the
 *	kernel still refers to it
 * @charged_bytes: the part of @committed_bytes charged to RLIMIT_MEMLOCK of its creator
 * @granted_bytes: what heaps hold of @committed_bytes
 * @used_bytes: what blocks hold of @granted_bytes; sum of their usable sizes
 * @nr_blocks: live blocks of all heaps of this process
 * @nr_heaps: heaps of this process
 * @nr_refused: how often the kernel, or a chunk hook, refused memory to an allocation, which then
 *	failed
 * @refused: errno of the last such refusal, 0 if there was none: EDQUOT the arena's limit,
 *	ENOBUFS RLIMIT_MEMLOCK, EUSERS the module's limit for the creator, ENOSR the module's
 *	limit for all arenas, ENOSPC no free run of that length in the offset space,
 *	ENOMEM the machine has no memory for it, EFBIG larger than the arena, or than its
 *	largest chunk; or the hook's
 * @small_bytes: the part of @committed_bytes in pieces, by &xalloc_arena_config.pages or because
 *	the kernel had no huge page at hand
 */
struct xalloc_arena_stat {
	size_t size;
	uint64_t arena_id;
	uint64_t arena_bytes;
	uint64_t limit_bytes;
	uint64_t committed_bytes;
	uint64_t pinned_bytes;
	uint64_t charged_bytes;
	uint64_t granted_bytes;
	uint64_t used_bytes;
	uint64_t nr_blocks;
	uint64_t nr_heaps;
	uint64_t nr_refused;
	int refused;
	uint64_t small_bytes;
};

/**
 * xalloc_arena_stats() - what an arena holds
 * @arena: the arena
 * @stats: in, out: see there
 *
 * While other threads allocate, each number is true for a moment of its own.
 *
 * Return: 0, or -errno: -EINVAL when @stats->size is too small to hold a number.
 */
int xalloc_arena_stats(struct xalloc_arena *arena, struct xalloc_arena_stat *stats);

/**
 * xalloc_stats_json() - what all arenas of this process hold, as JSON
 * @buffer: where to, or NULL with @size 0
 * @size: bytes of @buffer
 *
 * As snprintf(): the text is cut to @size - 1 bytes and ends with a zero byte. It is one object
 * with "backend" and "arenas": for each arena the members of
 * &struct xalloc_arena_stat by their names, "default", the name of its "file" if it has one, and
 * "heaps", each with its "kind" (default, own), the "classes" that have a block, and "large".
 * Later versions add members.
 *
 * Return: the length of the whole text without its zero byte, which may be @size or more;
 * or -errno.
 */
int xalloc_stats_json(char *buffer, size_t size);

/**
 * xalloc_report() - write what lives, in words
 * @fd: a descriptor open for writing
 *
 * Writes how many blocks of each size class this process has. Blocks in arenas with XALLOC_PERSIST
 * do not count. With XALLOC_OPTIONS=trace=N it also writes who allocated the blocks. With leaks=1
 * the library does all this at exit.
 *
 * Return: 0, or -errno of write().
 */
int xalloc_report(int fd);

/*
 * Heaps of an arena
 */

/**
 * xalloc_heap_create() - create a heap over an arena
 * @arena: the arena
 *
 * Return: the heap, or NULL with errno set.
 */
XALLOC_ATTR(warn_unused_result)
struct xalloc_heap *xalloc_heap_create(struct xalloc_arena *arena);

/**
 * xalloc_heap_destroy() - destroy a heap and free all its blocks
 * @heap: what xalloc_heap_create() returned
 *
 * Return: 0, or -errno.
 */
int xalloc_heap_destroy(struct xalloc_heap *heap);

/* As the calls without heap_ in their names, in @heap. */
XALLOC_ATTR(malloc, alloc_size(2), warn_unused_result)
void *xalloc_heap_malloc(struct xalloc_heap *heap, size_t size);
XALLOC_ATTR(malloc, alloc_size(2, 3), warn_unused_result)
void *xalloc_heap_calloc(struct xalloc_heap *heap, size_t nmemb, size_t size);
XALLOC_ATTR(malloc, alloc_align(2), alloc_size(3), warn_unused_result)
void *xalloc_heap_aligned_alloc(struct xalloc_heap *heap, size_t alignment, size_t size);

/**
 * xalloc_heap_realloc() - change the size of a block and have it in a given heap
 * @heap: the heap the result shall be in
 * @ptr: a block of any heap, or NULL
 * @size: new size in bytes; zero counts as one and does not free
 *
 * As xalloc_realloc(), but a block of another heap always moves into @heap.
 *
 * Return: the block, or NULL with errno set and @ptr as it was.
 */
XALLOC_ATTR(alloc_size(3), warn_unused_result)
void *xalloc_heap_realloc(struct xalloc_heap *heap, void *ptr, size_t size);

/*
 * Handles and dma-bufs
 *
 * A handle names memory by arena and offset, for other mappings of the same arena and for
 * the calls of <linux/xalloc.h>. A handle of a block is good as long as the block lives. It has no
 * generation: a later block at the same offset has the same handle.
 */
struct xalloc_block_handle {
	uint64_t arena_id;
	uint64_t offset; /* in bytes */
};

/**
 * xalloc_handle() - the handle of an address
 * @ptr: any address inside a live block
 * @handle: out
 *
 * Return: 0, or -errno: -ENOENT when no block of this process holds @ptr.
 */
int xalloc_handle(const void *ptr, struct xalloc_block_handle *handle);

/**
 * xalloc_at() - the address of an offset
 * @arena: the arena
 * @offset: &xalloc_block_handle.offset of a live block; touching any other may be SIGBUS
 *
 * Return: the address, or NULL with errno set: ERANGE past the end of the arena.
 */
XALLOC_ATTR(warn_unused_result)
void *xalloc_at(const struct xalloc_arena *arena, uint64_t offset);

/**
 * xalloc_dmabuf() - export memory of a block as a dma-buf
 * @ptr: any address inside a live block
 * @size: bytes from there on, at least 1, all in this block
 * @offset: out: where @ptr is in the dma-buf, in bytes; less than 64 KiB
 *
 * A dma-buf consists of whole slices of 64 KiB, so whoever gets the descriptor sees what else lies
 * in the first and the last of them. Blocks of more than 64 KiB that are aligned to 64 KiB and a
 * multiple of it have them for themselves.
 *
 * The memory stays, and stays charged, until the descriptor and what was made of it are
 * closed, also when the arena is destroyed before. Free the block only after that: the library
 * may give its addresses out again at once.
 *
 * Return: the descriptor, close-on-exec, which is the caller's; or -errno: -ENOENT when no block
 * of this process holds @ptr, -ERANGE when it ends before @size, -EINVAL for a @size of zero,
 * -EOPNOTSUPP with XALLOC_BACKEND=local.
 */
XALLOC_ATTR(warn_unused_result)
int xalloc_dmabuf(const void *ptr, size_t size, size_t *offset);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif /* LIBXALLOC_H */
