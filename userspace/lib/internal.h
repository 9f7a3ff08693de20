/* SPDX-License-Identifier: MIT */
/*
 * libxalloc inside: what its files share.
 *
 * Words: a slice is 64 KiB of an arena; a page is a run of slices that was granted at once;
 * a slab is a page cut into equal blocks; a large page is one block and is treated as a
 * slab of one. Addresses of arenas lie in one reserved range; page_of[] gives the page of each
 * slice of it.
 *
 * Everything here lies in private memory that a fork wipes (MADV_WIPEONFORK): in a child
 * it reads as zero, which means "not started", "not alive" and "not locked", whatever
 * another thread of the parent was doing. Only struct xl_ranges in process.c survives, to tell
 * the parent's blocks from foreign pointers.
 *
 * Locks, outermost first:
 *	1. xl_process.lock	start-up, the lists of arenas and of their heaps, where
 *				arenas lie, the default heap
 *	2. xalloc_heap.lock	the heap, its pages and their blocks
 *	3. xl_local.lock	what is granted of an arena of the local backend
 *	4. xl_process.meta_lock	pools of metadata
 * A pointer is looked up without a lock; the page found is checked again under the lock of
 * its heap (xl_page_lock()). That works because a pool never gives memory back or to
 * another type: a stale page or heap is still a page or a heap.
 */
#ifndef XL_INTERNAL_H
#define XL_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libxalloc.h>
#include <linux/xalloc.h>

#define XL_SLICE ((size_t)XALLOC_SLICE_BYTES)
#define XL_SEGMENT ((size_t)XALLOC_SEGMENT_BYTES)
#define XL_GIB ((size_t)1 << 30)

/* Lists: rings with a head. All zero is no list; xl_list_init() first. */

struct xl_list {
	struct xl_list *next, *prev;
};

#define xl_entry(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline void xl_list_init(struct xl_list *head)
{
	head->next = head;
	head->prev = head;
}

static inline bool xl_list_empty(const struct xl_list *head)
{
	return head->next == head;
}

/* Before @pos; with the head as @pos, at the tail. */
static inline void xl_list_add_before(struct xl_list *pos, struct xl_list *entry)
{
	entry->next = pos;
	entry->prev = pos->prev;
	pos->prev->next = entry;
	pos->prev = entry;
}

static inline void xl_list_add_head(struct xl_list *head, struct xl_list *entry)
{
	xl_list_add_before(head->next, entry);
}

static inline void xl_list_del(struct xl_list *entry)
{
	entry->prev->next = entry->next;
	entry->next->prev = entry->prev;
}

/* class.c: size classes */

/* 16 to 128 in steps of 16, then XL_PER_DOUBLING steps to each doubling up to one slice. */
#define XL_QUANTUM 16
#define XL_PER_DOUBLING 8
#define XL_NR_CLASSES (XL_PER_DOUBLING * (1 + 9))
/* One block to a page; follows the slab classes wherever classes are counted. */
#define XL_CLASS_LARGE XL_NR_CLASSES

struct xl_class {
	uint32_t block_bytes;
	uint32_t nr_slices; /* of a slab */
	uint32_t nr_blocks; /* of a slab */
};

extern struct xl_class xl_classes[XL_NR_CLASSES];

void xl_classes_init(void);
/* @size is not zero, @alignment a power of two. XL_CLASS_LARGE when no slab has such blocks. */
unsigned int xl_class_of(size_t alignment, size_t size);

/* meta.c: private memory for metadata */

enum xl_pool {
	/* 0 to XL_CLASS_LARGE: struct xl_page of that class */
	XL_POOL_ARENA = XL_CLASS_LARGE + 1,
	XL_POOL_HEAP,
	XL_POOL_LOCAL,
	XL_POOL_NODE, /* of placement, as are segments */
	XL_POOL_SEGMENT,
	XL_NR_POOLS,
};

/* Contents are those of the last use, zero at first. NULL: errno is ENOMEM. */
void *xl_meta_get(unsigned int pool, size_t bytes);
void xl_meta_put(unsigned int pool, void *item);

/* options.c: the environment, and what is said on stderr */

struct xl_backend;

struct xl_options {
	const struct xl_backend *backend;
	size_t limit_bytes; /* of the default heap; a multiple of XL_SEGMENT */
	size_t range_bytes; /* a multiple of XL_SEGMENT */
	bool verbose;
};

/* Returns 0, or -EINVAL after a line on stderr. */
int xl_options_read(struct xl_options *options);
void xl_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* As xl_say(), with XALLOC_OPTIONS=verbose only. */
void xl_explain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* process.c: the one object that holds the rest */

struct xl_page;

struct xl_process {
	pthread_mutex_t lock;
	atomic_bool ready;
	int start_error; /* one that will not go away, or 0 */
	bool said_range; /* the line about XALLOC_RANGE was written */
	struct xl_options options;

	uintptr_t base; /* of the range; a multiple of XL_SEGMENT */
	size_t bytes;
	struct xl_page *_Atomic *page_of;
	struct xl_list arenas; /* by address */
	struct xalloc_arena *default_arena;
	struct xalloc_heap *_Atomic default_heap;

	pthread_mutex_t meta_lock;
	char *chunk; /* of metadata, not yet used */
	size_t chunk_bytes;
	void *pools[XL_NR_POOLS]; /* free items, linked by their first word */
};

/* The process, started, or NULL with errno set. */
struct xl_process *xl_process_get(void);
/* The same without starting it: NULL when this process did not allocate yet. */
struct xl_process *xl_process_peek(void);
/* Whether @address was in an arena of the parent, before this process was forked. */
bool xl_inherited(uintptr_t address);

/* arena.c */

struct xalloc_arena {
	void *next_free;     /* xl_meta_put() */
	struct xl_list link; /* xl_process.arenas */
	struct xl_list heaps;
	atomic_bool alive;
	const struct xl_backend *backend;
	int fd; /* or -errno */
	struct xl_local *local;
	uint64_t id;
	uintptr_t base;
	size_t bytes;
	size_t limit_bytes;
	atomic_int refused;
	atomic_ulong nr_refused;
};

/* The caller holds lock 1. NULL with errno set. */
struct xalloc_arena *xl_arena_create(struct xl_process *p, size_t arena_bytes, size_t limit_bytes);
/* Takes back what heaps of @only, or of all arenas, keep without need. Takes locks 1 and 2. */
void xl_arenas_trim(const struct xalloc_arena *only);
/* Notes and explains that @bytes were refused with @error, an errno. Returns the caller's errno. */
int xl_arena_refused(struct xalloc_arena *arena, size_t bytes, int error);

/* heap.c: heaps, their pages and blocks */

/*
 * A block is FREE (its bit in the free map is set) or USED. What no one was given since the
 * kernel zeroed it is ZERO, the rest DIRTY. LOOSE is used too: realloc() could not move
 * it to the class of its new, smaller size, so that size says nothing about the block.
 */
enum xl_block_state {
	XL_FREE_ZERO,
	XL_FREE_DIRTY,
	XL_USED,
	XL_USED_LOOSE,
};

/* heap == NULL: not in use. Otherwise everything but @heap is protected by heap->lock. */
struct xl_page {
	void *next_free; /* xl_meta_put() */
	struct xalloc_heap *_Atomic heap;
	struct xl_list all;     /* xalloc_heap.pages */
	struct xl_list partial; /* xalloc_heap.classes[].partial, while nr_free > 0 */
	uint64_t offset;        /* in the arena, bytes */
	uint32_t nr_slices;
	uint32_t cls;
	uint64_t first_block; /* from @offset, bytes; not zero for alignment only */
	uint64_t block_bytes;
	uint32_t nr_blocks;
	uint32_t nr_free;
	uint32_t hint; /* words of the free map below this have no bit set */
	/* follow: free map, uint64_t for each 64 blocks; enum xl_block_state, a byte a block */
};

struct xl_class_pages {
	struct xl_list partial;
	unsigned int nr_empty; /* pages on @partial without a used block; at most 1 */
};

struct xalloc_heap {
	void *next_free; /* xl_meta_put() */
	pthread_mutex_t lock;
	struct xl_list link; /* xalloc_arena.heaps */
	struct xalloc_arena *arena;
	atomic_bool alive;
	struct xl_list pages;
	struct xl_class_pages classes[XL_NR_CLASSES];
	size_t nr_blocks;
	size_t used_bytes;
};

/* The caller holds lock 1. */
struct xalloc_heap *xl_heap_create(struct xalloc_arena *arena);
/* Takes lock 2; the caller holds lock 1. */
void xl_heap_destroy(struct xl_process *p, struct xalloc_heap *heap);
/* Gives the empty pages back. Takes lock 2. */
void xl_heap_trim(struct xl_process *p, struct xalloc_heap *heap);

/* @zero, unless NULL: whether all bytes of the block are zero. NULL with errno set. */
void *xl_heap_alloc(struct xalloc_heap *heap, size_t alignment, size_t size, bool *zero);

/* What a pointer is. */
enum xl_verdict {
	XL_BLOCK,          /* the start of a live block */
	XL_INTERIOR,       /* inside a live block */
	XL_FREED,          /* the start of a block that is free */
	XL_INTERIOR_FREED, /* inside a block that is free */
	XL_NO_BLOCK,       /* in a page, where no block can be */
	XL_NO_PAGE,        /* in the range, where nothing is granted to this process */
	XL_FOREIGN,        /* outside the range */
	XL_INHERITED,      /* the parent's */
};

struct xl_where {
	struct xl_process *process;
	struct xalloc_heap *heap; /* locked when the verdict is one about a page */
	struct xl_page *page;
	uint32_t block;
	size_t inside; /* bytes from the start of the block */
};

/* Locks the heap when the verdict is at most XL_NO_BLOCK. */
enum xl_verdict xl_find(const void *ptr, struct xl_where *where);
/* Unlocks, says what @call was given, and aborts. */
_Noreturn void xl_misuse(const char *call, const void *ptr, enum xl_verdict verdict,
			 struct xl_where *where);
/* Unlocks, says that @size does not fit the block, and aborts. */
_Noreturn void xl_mismatch(const char *call, const void *ptr, size_t size, struct xl_where *where);

/* These take a live block, its heap locked. */
bool xl_block_fits(const struct xl_where *where, size_t alignment, size_t size);
bool xl_block_is_loose(const struct xl_where *where);
void xl_block_set_loose(const struct xl_where *where, bool loose);
void xl_block_free(const struct xl_where *where);

#endif /* XL_INTERNAL_H */
