/* SPDX-License-Identifier: MIT */
/*
 * libxalloc inside: what its files share.
 *
 * Words: a slice is 64 KiB of an arena; a page is a run of slices that was granted at once;
 * a slab is a page cut into equal blocks; a large page is cut into extents. Arenas lie in the
 * zone, a part of the address space; struct xl_map says where the tables are that tell what is
 * where in it.
 *
 * Everything here lies in private memory that a fork wipes (MADV_WIPEONFORK): in a child
 * it reads as zero, which means "not started", "not alive" and "not locked", whatever
 * another thread of the parent was doing. What zone.c keeps of the zones of forebears survives, to
 * tell the parent's blocks from foreign pointers. In the preload library a fork copies all
 * of it instead; see preload/fork.c.
 *
 * Locks, outermost first:
 *	1. xl_process.lock	start-up, the lists of arenas and of their heaps, where
 *				arenas lie, the default heap
 *	   xl_process.flight	read: pages that are of no heap; a fork writes
 *	   xl_chunks.grant_lock	held by the thread that obtains a chunk, during system calls too
 *	2. xl_bin.lock		pages of one class of a heap, and the blocks in their free maps;
 *				in the bin of large pages the large blocks, too
 *	3. xl_zone_lock()	which parts of the zone are mapped
 *	4. xalloc_arena.lock	of the local backend: what is granted; of the device: which
 *				descriptor the arena has
 *	   xl_chunks.lock	what is granted in chunks of an arena
 *	   xalloc_arena.shelf_lock	shelves: which of their slices are free
 *	   xl_depot.lock	blocks between caches
 *	5. xl_process.trace_lock	what checks.c keeps
 *	6. xl_process.meta_lock	pools of metadata; the list of caches
 * A thread holds one lock of level 2 at a time; only a fork holds several. A thread that holds a
 * lock of level 2 or 6, a depot's or that of a local arena makes no system call: it adds what the
 * kernel has granted to the heap after the call, and takes what goes back out of the heap before.
 *
 * A pointer is looked up without a lock; the page found is checked again under the lock of
 * its bin (xl_page_lock()). That works because a pool never gives memory back or to
 * another type: a stale page or heap is still a page or a heap.
 */
#ifndef XL_INTERNAL_H
#define XL_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <libxalloc.h>
#include <linux/xalloc.h>

#include "os.h"
#include "size_class.h"

/* For data that another file defines: the compiler then needs no table to find it. */
#define XL_HIDDEN __attribute__((visibility("hidden")))

#define XL_SLICE ((size_t)XALLOC_SLICE_BYTES)
#define XL_SEGMENT ((size_t)XALLOC_SEGMENT_BYTES)
#define XL_SEGMENT_SLICES ((uint32_t)(XALLOC_SEGMENT_BYTES / XALLOC_SLICE_BYTES))
/* A hardware page, which large blocks are multiples of. */
#define XL_KPAGE ((size_t)4096)
#define XL_GIB ((size_t)1 << 30)

/* @multiple is a power of two. */
static inline size_t xl_round_up(size_t n, size_t multiple)
{
	return (n + multiple - 1) & ~(multiple - 1);
}

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

#define XL_QUANTUM XALLOC_CLASS_QUANTUM
#define XL_NR_CLASSES XALLOC_NR_CLASSES
/* Of large pages; follows the slab classes wherever classes are counted. */
#define XL_CLASS_LARGE XL_NR_CLASSES
/*
 * Large blocks of up to XL_MEDIUM_MAX have classes, too, XL_CLASS_LARGE + 1 to XL_NR_CACHED - 1,
 * with sizes as those of slabs go on. They are medium blocks: caches and depots keep them by
 * class.
 */
#define XL_MEDIUM_DOUBLINGS 4
#define XL_MEDIUM_MAX (XL_SLICE << XL_MEDIUM_DOUBLINGS)
#define XL_NR_CACHED (XL_CLASS_LARGE + 1 + XL_MEDIUM_DOUBLINGS * XALLOC_CLASSES_PER_DOUBLING)
/* The class of a medium block may be so much above that of the size that was asked for. */
#define XL_MEDIUM_ABOVE 1

/* The class of sizes up to one slice, by (size + 15) / 16. All zero before the start. */
extern XL_HIDDEN uint8_t xl_class_of_size[XALLOC_SLICE_BYTES / XL_QUANTUM + 1];

struct xl_class {
	uint32_t block_bytes;
	uint32_t nr_slices; /* of a slab */
	uint32_t nr_blocks; /* of a slab */
	uint32_t inverse;   /* 2^32 / block_bytes, rounded up */
};

/* Of a medium class there is @block_bytes alone. */
extern XL_HIDDEN struct xl_class xl_classes[XL_NR_CACHED];

/* The block that begins @offset bytes into a slab: exact, as @offset is a multiple below 2^21. */
static inline uint32_t xl_class_divide(unsigned int cls, uint64_t offset)
{
	return offset * xl_classes[cls].inverse >> 32;
}

/* Before the first allocation. More calls do nothing. */
void xl_classes_init(void);
/* @size is not zero, @alignment a power of two. XL_CLASS_LARGE when no slab has such blocks. */
unsigned int xl_class_of(size_t alignment, size_t size);

static inline bool xl_is_medium(size_t size)
{
	return size > XL_SLICE && size <= XL_MEDIUM_MAX;
}

/* @size is that of a medium block. */
static inline unsigned int xl_medium_class_of(size_t size)
{
	return 1 + xalloc_class_of(size);
}

/* meta.c: private memory for metadata */

enum xl_pool {
	/* 0 to XL_CLASS_LARGE: struct xl_page of that class */
	XL_POOL_ARENA = XL_CLASS_LARGE + 1,
	XL_POOL_HEAP,
	XL_POOL_CACHE,
	XL_POOL_EXTENT,
	XL_POOL_LOCAL,
	XL_POOL_TRACE,
	XL_POOL_CHUNKS,
	XL_POOL_CHUNK,
	XL_POOL_HOOK,
	XL_POOL_SHELF,
	XL_POOL_NODE, /* of placement, as are segments */
	XL_POOL_SEGMENT,
	XL_NR_POOLS,
};

/*
 * Contents are those of the last use but for the first word, zero at first. NULL: errno is
 * ENOMEM.
 */
void *xl_meta_get(unsigned int pool, size_t bytes);
void xl_meta_put(unsigned int pool, void *item);

/*
 * Before locks are taken: has memory ready, so that xl_meta_get() makes no system call, for some
 * items, and for what placement gets for a run of @nr_slices.
 */
void xl_meta_ready(uint32_t nr_slices);

/* options.c: the environment, and what is said on stderr */

struct xl_backend;

struct xl_options {
	bool local;         /* the backend */
	size_t limit_bytes; /* of the default heap; a multiple of XL_SEGMENT */
	bool limit_is_set;  /* by XALLOC_LIMIT */
	size_t verbose;
	size_t zero_on_free;
	size_t canary;
	size_t leaks;
	size_t trace; /* each so manieth allocation; 0: none */
	size_t pages; /* enum xalloc_pages, of the default heap */
	size_t node;  /* of the default heap; SIZE_MAX: none */
};

/* Whether zero_on_free, canary or trace is on; once the process is started. See checks.h. */
extern XL_HIDDEN bool xl_checks;

/* Returns 0, or -EINVAL after a line on stderr. */
int xl_options_read(struct xl_options *options);
void xl_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* As xl_say(), with XALLOC_OPTIONS=verbose only. */
void xl_explain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The map: what the paths without a lock know of an address */

/*
 * The state of a block: a byte of a table, in which one of these is added to the low byte of the
 * address, so that no address inside the block passes for its start. It is written by who has the
 * block: the heap under its lock, a cache, whoever frees it. All look at what it was before, so
 * what is freed twice is found when the second of the two gives it out or puts it back.
 *
 * A large block has a state if it was allocated as a medium one, for a cache. The byte behind the
 * state is its class, the next one the class of the size that was asked for. Of other large blocks
 * all three bytes are 0.
 */
#define XL_FREE 0u /* in the free map of its page; zero whatever the address */
#define XL_KEPT 1u /* taken out of the page, but not given out */
#define XL_LIVE 2u /* given out */

/* A byte for so much. Blocks of the first classes are smaller, and have a table of theirs. */
#define XL_STATE_BYTES 64
#define XL_NR_TINY (XL_STATE_BYTES / XL_QUANTUM - 1)

struct xl_page;

/*
 * The tables of the zone. Each begins with what it says of @base, the first address of the zone.
 * Parts of them are mapped: see zone.c. Lies in a page of its own, which, unless XL_PRELOAD, a fork
 * wipes: then no address has a tag. Set once, and again when a child starts.
 */
struct xl_map {
	/* Programs write to starts of pages most, which share their place in the CPU's caches. */
	char unused[2048];
	uintptr_t base; /* of the zone */
	size_t bytes;   /* of the zone that are for arenas */
	/* Of a slice: the tag of its heap + class, XL_TAG_MAPPED, or 0. */
	_Atomic uint32_t *tags;
	/* Of XL_QUANTUM: how many, from @base on, have a tag that can be read. */
	atomic_size_t nr_units;
	const atomic_bool *is_mapped; /* of XL_PLOT: whether @tags and @page_of can be read */
	struct xl_page *_Atomic *page_of;
	struct xl_extent **extent_of; /* of a hardware page; by the lock of its heap */
	/* Where the states would be of address 0: a byte for XL_STATE_BYTES, or XL_QUANTUM. */
	uintptr_t states;
	uintptr_t tiny_states;
	uint16_t *slacks; /* of XL_QUANTUM, with the option canary alone: see checks.c */
} __attribute__((aligned(4096)));

extern XL_HIDDEN struct xl_map xl_map;

/*
 * A tag is the sum of a class and one of these: the first for pages of the default heap, while
 * threads have caches of its blocks; the second for pages of all other heaps.
 */
#define XL_TAG_CACHED 512u
#define XL_TAG_OWN 256u
#define XL_TAG_STEP 256u
/* Instead of a tag, of a slice that is mapped and has no page. No class has this number. */
#define XL_TAG_MAPPED 255u

static inline size_t xl_unit(uintptr_t address)
{
	return (address - xl_map.base) / XL_QUANTUM;
}

/* Of the block of @cls at @address. */
static inline _Atomic uint8_t *xl_state_of(uintptr_t address, unsigned int cls)
{
	return (_Atomic uint8_t *)(__builtin_expect(cls < XL_NR_TINY, 0) ?
					   xl_map.tiny_states + address / XL_QUANTUM :
					   xl_map.states + address / XL_STATE_BYTES);
}

/*
 * A block that a cache holds is an entry: its address + XL_KEPT, so that no more than the low byte
 * is to be compared, and + XL_FRESH if the block has only zeros.
 */
#define XL_FRESH 4u

static inline uintptr_t xl_address_of(uintptr_t entry)
{
	return entry & -(uintptr_t)XL_QUANTUM;
}

/* Makes it XL_LIVE if it is XL_KEPT. Returns whether it was; false if it is XL_FRESH. */
static inline bool xl_make_live(uintptr_t entry, unsigned int cls)
{
	_Atomic uint8_t *state = xl_state_of(entry, cls);
	uint8_t kept = entry;

	if (__builtin_expect(atomic_load_explicit(state, memory_order_relaxed) != kept, 0))
		return false;
	atomic_store_explicit(state, kept + XL_LIVE - XL_KEPT, memory_order_relaxed);
	return true;
}

/*
 * Makes it XL_KEPT if it is XL_LIVE. Returns whether it was. One instruction, so that no thread is
 * interrupted between the look and the write, and writes when another has put the block back
 * already; without a lock of the bus, so two CPUs may still do it at once. The look before it is
 * for what is no live block, as cmpxchg writes what it saw when it does not exchange. The prefetch
 * has a line that another CPU wrote come once, to be written, not first to be looked at.
 */
static inline bool xl_make_kept(uintptr_t entry, unsigned int cls)
{
	_Atomic uint8_t *state = xl_state_of(entry, cls);
	uint8_t live = entry + XL_LIVE - XL_KEPT, kept = entry;
	bool was;

	__asm__ volatile("prefetchw %0" : : "m"(*state));
	if (__builtin_expect(atomic_load_explicit(state, memory_order_relaxed) != live, 0))
		return false;
	__asm__ volatile("cmpxchgb %3, %1" : "=@ccz"(was), "+m"(*state), "+a"(live) : "q"(kept));
	return __builtin_expect(was, 1);
}

static inline bool xl_is_state(uintptr_t address, unsigned int cls, uint8_t state)
{
	return atomic_load_explicit(xl_state_of(address, cls), memory_order_relaxed) ==
	       (uint8_t)(address | state);
}

static inline bool xl_is_free(uintptr_t address, unsigned int cls)
{
	return atomic_load_explicit(xl_state_of(address, cls), memory_order_relaxed) == XL_FREE;
}

/* Behind the state of the large block at @address: its medium class, or 0. */
static inline _Atomic uint8_t *xl_medium_of(uintptr_t address)
{
	return xl_state_of(address, XL_CLASS_LARGE) + 1;
}

/* And the class of the size that was asked for. */
static inline _Atomic uint8_t *xl_asked_of(uintptr_t address)
{
	return xl_medium_of(address) + 1;
}

static inline void xl_set_state(uintptr_t address, unsigned int cls, uint8_t state)
{
	atomic_store_explicit(xl_state_of(address, cls), state ? address | state : XL_FREE,
			      memory_order_relaxed);
}

/* Whether @unit, of any address, has a tag that can be read. One instruction more if it is C. */
static inline bool xl_has_tag(size_t unit)
{
	bool has;

	__asm__("cmpq %1, %2" : "=@ccb"(has) : "m"(xl_map.nr_units), "r"(unit));
	return has;
}

/* Of the slice that @unit is in. */
static inline uint32_t xl_tag(size_t unit)
{
	return atomic_load_explicit(&xl_map.tags[unit / (XL_SLICE / XL_QUANTUM)],
				    memory_order_acquire);
}

/* process.c: the one object that holds the rest */

#define XL_DEPOT_MAX 255

/* Blocks of a class, XL_KEPT. All zero: there are none. */
struct xl_depot {
	pthread_mutex_t lock;
	_Atomic uint32_t nr; /* changes with @lock */
	uintptr_t entries[XL_DEPOT_MAX];
} __attribute__((aligned(64)));

struct xl_process {
	pthread_mutex_t lock;
	atomic_bool ready;
	int start_error;     /* one that will not go away, or 0 */
	bool said_addresses; /* the line about missing addresses was written */
	bool said_options;   /* the line about a default heap that cannot be */
	struct xl_options options;
	const struct xl_backend *backend;

	struct xl_list arenas; /* by address */
	struct xl_list caches; /* by xl_cache.link; with @meta_lock */
	struct xalloc_arena *default_arena;
	struct xalloc_heap *_Atomic default_heap;
	atomic_uint nr_caches;
	unsigned int nr_started; /* caches since the start; with @meta_lock */
	unsigned int nr_fitted;  /* @nr_caches when stacks were last made to fit their shares */

	pthread_rwlock_t flight; /* see xl_flight_begin() */
	pthread_mutex_t trace_lock;
	struct xl_trace **traces; /* by address; NULL before the first */
	atomic_ulong nr_traced;   /* allocations that were asked about */

	pthread_mutex_t meta_lock;
	struct iovec chunk, spare; /* that no pool has had yet */
	atomic_size_t meta_bytes;  /* of both; changes with @meta_lock */
	void *pools[XL_NR_POOLS];  /* free items, linked by their first word */

	atomic_size_t depot_bytes; /* in all depots */
	struct xl_depot depots[XL_NR_CACHED];
};

/* NULL when this process did not allocate yet. */
struct xl_process *xl_process_peek(void);
/* Not started perhaps. NULL if there was no memory for it; with @create that is tried. */
struct xl_process *xl_process_object(bool create);
/* Says what a fork shall do. Once in a process and its children. Returns 0 or -errno. */
#if XL_PRELOAD
int xl_fork_init(void);
#else
static inline int xl_fork_init(void)
{
	return 0;
}
#endif

/* arena.c */

/* Of an arena that is mapped by use. */
struct xl_segment {
	_Atomic uint8_t nr_slices; /* that pages have */
	atomic_bool has_tiny;      /* states of blocks of tiny classes are mapped */
};

struct xalloc_arena {
	void *next_free;     /* xl_meta_put() */
	struct xl_list link; /* xl_process.arenas */
	struct xl_list heaps;
	atomic_bool alive;
	bool persists; /* XALLOC_PERSIST */
	bool leaving;  /* and what is granted stays so from now on */
	const struct xl_backend *backend;
	pthread_mutex_t lock;
	atomic_int fd;       /* or -errno */
	struct xl_file file; /* what @fd shall be of */
	struct xl_local *local;
	const struct xalloc_status *_Atomic status; /* of the device; NULL: there is none */
	atomic_ulong generation;  /* at which what heaps keep of it was given back */
	struct xl_chunks *chunks; /* or NULL */
	size_t chunk_bytes;       /* zero: chunks grow */
	uint64_t id;
	uintptr_t base; /* in the zone; a multiple of XL_SEGMENT */
	size_t bytes;
	/* Memory is mapped by use, not when it is created; so much is. By the lock of the zone. */
	bool grows;
	size_t mapped_bytes;
	/* Of such an arena: segments in which there are pages, and blocks in them. */
	atomic_size_t nr_segments;
	atomic_size_t used_bytes;
	struct xl_segment *segments; /* NULL: not counted */
	pthread_mutex_t shelf_lock;
	struct xl_list shelves;      /* those with free slices */
	atomic_size_t shelf_refused; /* @nr_segments when a shelf was refused; else SIZE_MAX */
	/*
	 * Adopted memory lies elsewhere: @shift bytes from where in the range it is accounted for.
	 * Both places agree modulo @alignment_max.
	 */
	bool adopted;
	atomic_bool has_exports; /* dma-bufs were made of its memory */
	uintptr_t shift;         /* modulo 2^64; else zero */
	size_t alignment_max;    /* else SIZE_MAX */
	struct iovec blocks;     /* where they may lie; of adopted memory whole slices */
	size_t limit_bytes;
	size_t keep_bytes; /* memory without a grant that the local backend may keep */
	atomic_int refused;
	atomic_ulong nr_refused;
	atomic_bool explains_pieces; /* the first memory in pieces is still to be explained */
};

/* Adds to xalloc_arena.used_bytes, modulo 2^64; nothing where nobody asks for it. */
static inline void xl_arena_count(struct xalloc_arena *arena, size_t bytes)
{
	if (arena->segments)
		atomic_fetch_add_explicit(&arena->used_bytes, bytes, memory_order_relaxed);
}

/* Most of xalloc_arena.keep_bytes. */
#define XL_LOCAL_KEEP ((size_t)16 << 20)

/*
 * The caller holds lock 1; sizes are whole segments and not zero. @grows: see struct xalloc_arena.
 * NULL with errno set.
 */
struct xalloc_arena *xl_arena_create(struct xl_process *p, const struct xalloc_arena_config *config,
				     bool grows);
/* The default heap, created if need be. NULL with errno set. */
struct xalloc_heap *xl_heap_default(void);
/* heap.c: heaps, their pages and blocks */

/*
 * heap == NULL: not in use. All but @heap and @cls is protected by xl_bin.lock. Of blocks of
 * 64 bytes this is the most of the metadata beside their states: 72 bytes and the free map.
 */
struct xl_page {
	struct xl_list all; /* xl_bin.pages; its first word is xl_meta_put()'s */
	struct xalloc_heap *_Atomic heap;
	struct xl_list partial; /* xl_bin.partial, while nr_free > 0; not of a large page */
	uint32_t slice;         /* the first, in the arena */
	uint32_t nr_slices;
	uint32_t nr_free;
	uint32_t hint;          /* words of the free map below this have no bit set */
	uint32_t nr_old;        /* blocks from this one on were never taken */
	struct xl_shelf *shelf; /* that the slab lies on, or NULL */
	uint8_t cls;            /* for ever */
	bool zero;              /* blocks that were never taken are zero */
	/* realloc() could not move a block to the class of its new, smaller size. */
	atomic_bool loose;
	uint64_t free_map[]; /* bit n: block n is free and in no cache */
};

/* A piece of the runs of a heap: a large block, or free. Counted in hardware pages. */
struct xl_extent {
	void *next_free;     /* xl_meta_put() */
	struct xl_list all;  /* xl_large.all */
	struct xl_list free; /* xl_large.free[], if it is no block */
	size_t first;        /* from the start of the zone */
	size_t nr;
	size_t part; /* of a free one: the part that can go, in hardware pages */
	bool used;
	bool zero;
	bool loose; /* as xl_page.loose */
	/* It has grown, and is up to a segment longer than was asked for, to grow again. */
	bool roomy;
};

#define XL_NR_FREE_LISTS 272

struct xl_large {
	struct xl_list all;
	struct xl_list free[XL_NR_FREE_LISTS]; /* by length */
	size_t free_bytes;                     /* of all of them */
	size_t idle_bytes;                     /* of their parts that can go */
	size_t used_bytes;
	bool missing;           /* a little went and nothing was granted since */
	unsigned int nr_missed; /* how often it was granted again */
	atomic_uint nr_far;     /* blocks that were given free offsets behind them */
};

/* The pages of one class in a heap. */
struct xl_bin {
	pthread_mutex_t lock;
	struct xl_list pages;   /* all of them, by xl_page.all */
	struct xl_list partial; /* those with a free block */
	unsigned int nr_empty;  /* pages without a used block, at the tail of @partial */
	size_t nr_taken;        /* blocks that are not in a free map */
};

struct xalloc_heap {
	void *next_free;     /* xl_meta_put() */
	struct xl_list link; /* xalloc_arena.heaps */
	struct xalloc_arena *arena;
	uint32_t tag; /* XL_TAG_CACHED: threads have caches of its blocks; or XL_TAG_OWN */
	atomic_bool alive;
	struct xl_bin bins[XL_NR_CLASSES + 1];
	struct xl_large large; /* by the lock of the last bin */
};

static inline bool xl_heap_is_default(const struct xl_process *p, const struct xalloc_heap *heap)
{
	return heap == atomic_load_explicit(&p->default_heap, memory_order_relaxed);
}

static inline struct xl_bin *xl_bin_of(struct xalloc_heap *heap, unsigned int cls)
{
	return &heap->bins[cls];
}

/* The caller holds lock 1. @tag: XL_TAG_CACHED or XL_TAG_OWN. NULL with errno set. */
struct xalloc_heap *xl_heap_create(struct xalloc_arena *arena, uint32_t tag);
/* Takes lock 2; the caller holds lock 1. */
void xl_heap_destroy(struct xalloc_heap *heap);
/* Gives the empty pages back. Takes lock 2. */
void xl_heap_trim(struct xalloc_heap *heap);
/*
 * One block. @zero: whether all its bytes are zero. Returns its address, without the arena's shift,
 * or 0 with *@error set: to -errno, -XL_ADD_CHUNK, or -XL_RACED and *@raced.
 */
uintptr_t xl_heap_alloc(struct xalloc_heap *heap, unsigned int cls, size_t alignment, size_t size,
			bool *zero, int *error, uintptr_t *raced);
/*
 * Takes up to @nr blocks of @cls for a cache, from @lane of slabs on. Returns how many; with
 * none, *@error is set as by xl_heap_alloc(), -XL_RACED with the address in @entries[0].
 */
uint32_t xl_heap_take(struct xalloc_heap *heap, unsigned int cls, uint8_t lane, uintptr_t *entries,
		      uint32_t nr, int *error);
/*
 * Puts blocks of @cls back that were taken for caches. Returns 0, or the address of the first that
 * two threads have freed.
 */
uintptr_t xl_heap_put(struct xalloc_heap *heap, unsigned int cls, const uintptr_t *entries,
		      uint32_t nr);
/*
 * In a child of fork(): the heap as the states of its blocks say it is. What caches hold is
 * free.
 */
void xl_heap_recover(struct xalloc_heap *heap);

/* No errno: two threads have freed a block. The caller says so, and aborts. */
#define XL_RACED 4097

/* What a pointer is. */
enum xl_verdict {
	XL_BLOCK,          /* the start of a live block */
	XL_INTERIOR,       /* inside a live block */
	XL_FREED,          /* the start of a block that is free */
	XL_INTERIOR_FREED, /* inside a block that is free */
	XL_NO_BLOCK,       /* in a page, where no block can be */
	XL_NO_PAGE,        /* in the zone, where nothing is granted to this process */
	XL_FOREIGN,        /* outside of the zone */
	XL_INHERITED,      /* the parent's */
};

struct xl_where {
	struct xl_process *process;
	struct xalloc_heap *heap;
	struct xl_page *page; /* its bin is locked when the verdict is one about a page */
	uint32_t block;
	struct xl_extent *extent; /* of a large page, or NULL */
	size_t inside;            /* bytes from the start of the block */
	bool flies;               /* xl_flight_begin() was called */
};

/* Locks the bin of the page when the verdict is at most XL_NO_BLOCK. */
enum xl_verdict xl_find(const void *ptr, struct xl_where *where);

static inline void xl_where_unlock(const struct xl_where *where)
{
	pthread_mutex_unlock(&xl_bin_of(where->heap, where->page->cls)->lock);
}

/* heap.c: these take a live block, its bin locked. */
bool xl_block_fits(const struct xl_where *where, size_t alignment, size_t size);
size_t xl_block_bytes(const struct xl_where *where);
/* Whether a free may name any size: realloc() had no memory to move it to another class. */
bool xl_block_is_loose(const struct xl_where *where);
void xl_block_set_loose(const struct xl_where *where);
/*
 * Makes it hold @size bytes where it is. Returns whether it does. This and the next add to @gone
 * the pages that are empty now: for xl_pages_free(), when nothing is locked.
 */
bool xl_block_resize(const struct xl_where *where, size_t size, struct xl_list *gone);
/* Returns 0, or the address if two threads have freed it. */
uintptr_t xl_block_free(const struct xl_where *where, struct xl_list *gone);
/* page.c: gives pages back that have left their heaps. No lock is held. */
void xl_pages_free(struct xalloc_arena *arena, struct xl_list *gone);

/* large.c. If not said otherwise, the caller holds the lock of the bin of large pages. */

void xl_large_init(struct xl_large *large);
/* Forgets all blocks; the runs are still to be given back. */
void xl_large_destroy(struct xalloc_heap *heap);
/* @size is not zero. Nothing is locked. Returns 0 or -errno. */
int xl_large_alloc(struct xalloc_heap *heap, size_t alignment, size_t size, uintptr_t *address,
		   bool *zero);
void xl_large_free(struct xalloc_heap *heap, struct xl_extent *e, struct xl_list *gone);
bool xl_large_resize(struct xalloc_heap *heap, struct xl_extent *e, size_t size,
		     struct xl_list *gone);
/*
 * Makes the block at @address, which the caller has, @size bytes long, by more memory at the
 * offsets behind it. Nothing is locked. Returns 0 or -errno: -EEXIST if somebody else has the
 * offsets.
 */
int xl_large_extend(struct xalloc_heap *heap, uintptr_t address, size_t size);
/*
 * As xl_large_alloc(), with free offsets behind the block. Returns 0 or -errno, if that cannot be,
 * or is not worth it.
 */
int xl_large_alloc_far(struct xalloc_heap *heap, size_t size, uintptr_t *address);
/* Whether a block of @size may be as long as this one. */
bool xl_large_fits(const struct xl_extent *e, size_t size);
/* False of a medium block that a cache or a depot holds. */
bool xl_large_is_live(const struct xl_extent *e);
/* Live blocks, and their bytes. */
void xl_large_count(struct xalloc_heap *heap, uint64_t *nr_blocks, uint64_t *bytes);
/* Puts a medium block back whose state is XL_KEPT. Returns 0, or @address if it is none. */
uintptr_t xl_large_put(struct xalloc_heap *heap, uintptr_t address, struct xl_list *gone);
/* As xl_heap_recover(). */
void xl_large_recover(struct xalloc_heap *heap, struct xl_list *gone);
/* The extent in which an address of a large page of the heap lies. */
struct xl_extent *xl_large_find(struct xalloc_heap *heap, uintptr_t address);
/* Takes free memory out of the heap: @all that can go, or what is more than the heap keeps. */
void xl_large_trim(struct xalloc_heap *heap, bool all, struct xl_list *gone);

/*
 * Between these two a thread may have pages that are of no heap: granted and not added yet, or
 * taken out and not given back yet. In the preload library a fork waits for the end, because its
 * child could not give these pages back; calls that begin later wait for the fork. Lock 1 is not
 * taken between the two. The first of them has memory for metadata ready.
 */
static inline void xl_flight_begin(struct xl_process *p)
{
	xl_meta_ready(0);
	if (XL_PRELOAD)
		pthread_rwlock_rdlock(&p->flight);
}

static inline void xl_flight_end(struct xl_process *p)
{
	if (XL_PRELOAD)
		pthread_rwlock_unlock(&p->flight);
}

/* adopt.c */

/* Whether @address was in an arena of the parent, before this process was forked. */
bool xl_inherited(uintptr_t address);
/*
 * Notes, or forgets, where memory of an arena lies that is not in the zone. The caller holds
 * lock 1. Returns 0 or -errno: -EEXIST if a part of it is noted already.
 */
int xl_adopted_add(struct xalloc_arena *arena);
void xl_adopted_del(const struct xalloc_arena *arena);
/* Where in the zone the address is accounted for; itself, if nowhere else. Takes lock 1. */
uintptr_t xl_inside(uintptr_t address);

/* malloc.c */

/*
 * Tries until there is memory, or nothing more to give back. In the default heap if @heap is NULL.
 * @zero, unless NULL: whether all bytes of the block are zero. NULL with errno set.
 */
void *xl_alloc(struct xalloc_heap *heap, size_t alignment, size_t size, bool *zero);

/* start.c */

/* The process, started, or NULL with errno set. */
struct xl_process *xl_process_get(void);

/* Grows when the kernel wants memory back, without a system call. */
static inline uint64_t xl_arena_generation(struct xalloc_arena *arena)
{
	const struct xalloc_status *status =
		atomic_load_explicit(&arena->status, memory_order_acquire);

	return status ? __atomic_load_n(&status->generation, __ATOMIC_ACQUIRE) : 0;
}

/* trim.c: memory back before it is asked for again, and what is said of refusals */

/* Takes back what heaps of @only, or of all arenas, keep without need. Takes locks 1 and 2. */
void xl_arenas_trim(const struct xalloc_arena *only);
/*
 * As xl_arenas_trim(), after a grant in @arena that was refused with @error: of this arena alone if
 * it is this arena that has no room. @seen is its generation when the caller last did so.
 */
void xl_arena_trim(struct xalloc_arena *arena, int error, atomic_ulong *seen);
/* Of all arenas, if the kernel has wanted memory back since. Mostly no system call. */
void xl_arena_trim_if_wanted(struct xalloc_arena *arena, atomic_ulong *seen);
/*
 * Notes and explains that @bytes were refused with @error, an errno, by the kernel or by the
 * arena's hook. Returns the caller's errno.
 */
int xl_arena_refused(struct xalloc_arena *arena, size_t bytes, int error, bool by_hook);

/*
 * Most memory that threads keep in blocks of slabs, all of them, as much in medium blocks, and as
 * much in depots.
 */
static inline size_t xl_idle_most(const struct xl_process *p)
{
	size_t share = p->default_arena->limit_bytes / 256, most = (size_t)16 << 20;

	return share < most ? share : most;
}

/* depot.c: blocks between caches. What is put there was taken from the default heap. */

/* Returns how many of the blocks, the first ones, it took. */
uint32_t xl_depot_put(struct xl_process *p, unsigned int cls, const uintptr_t *entries,
		      uint32_t nr);
/* Returns how many there were, up to @nr. */
uint32_t xl_depot_take(struct xl_process *p, unsigned int cls, uintptr_t *entries, uint32_t nr);
/* How many blocks of @cls there are; true for a moment. */
uint32_t xl_depot_count(const struct xl_process *p, unsigned int cls);
/*
 * Puts all of them back. The caller has a cache, so that what it has in hand at a fork is free in
 * the child, or holds lock 1. Returns 0, or the address of a block that two threads have freed.
 */
uintptr_t xl_depots_flush(struct xl_process *p);
/* In a child of fork(): they are free in their heaps. */
void xl_depots_forget(struct xl_process *p);

#endif /* XL_INTERNAL_H */
