// SPDX-License-Identifier: MIT
/*
 * The zone: the addresses where arenas lie, and the tables that describe what is in them.
 *
 * Nothing is reserved. The library chooses a part of the address space, far from where the kernel
 * puts mappings that ask for no address, and maps memory there as it is used. Nobody else comes
 * there by chance. If something is mapped there all the same, the library goes round it: it never
 * maps over anything (MAP_FIXED_NOREPLACE).
 *
 * A zone begins with the addresses for arenas, cut into plots of 64 MiB, each for one arena at
 * most. The tables follow. Each has so many bytes for each segment, so the place of an entry
 * follows from the address that it is about. The tables of slices are mapped for a whole plot at
 * once. All other tables are mapped for the segments that are in use.
 *
 * The state of a segment is in the tags of its slices: 0 if its tables are not mapped, or not its
 * memory; else XL_TAG_MAPPED, or the tag of a page. The tags of a plot can be read if
 * xl_map.is_mapped. The default arena has the first plots, whose tags are mapped without a gap up
 * to xl_map.nr_units, so that one comparison tells a free that it may read them.
 *
 * A child of fork() that starts anew takes another zone than its forebears. So none of its blocks
 * has the address of a block of theirs, and the address alone says whose block it is.
 */
#include <errno.h>

#include "backend.h"
#include "os.h"
#include "zone.h"

/*
 * Zones begin above 3/16 of the address space. Below are the shadow memory of AddressSanitizer
 * and programs that are linked to a fixed address; above 5/8 are other programs, their heaps,
 * and what the kernel places.
 */
#define NR_ZONES 8u
#define FIRST_SIXTEENTH 3
#define SIXTEENTHS 7

/*
 * The address space of x86-64, and one that is smaller: of user-mode Linux, and what valgrind and
 * ThreadSanitizer leave to a program.
 */
static const unsigned int address_bits[] = { 47, 39 };

/* A zone begins at a random plot within the first eighth of what there is for it. */
#define SPREAD 8
/* Of the rest so much is for arenas, in quarters; the tables need less than what is left. */
#define ARENA_QUARTERS 3
/* No zone has more: 7/16 of 2^47 bytes in 8 zones, less the eighth, three quarters of it. */
#define NR_PLOTS (4704 * (XL_GIB / XL_PLOT))

/*
 * The default arena has more addresses than memory, so that long runs can be had between segments
 * that are in use: so many times its limit, at least @DEFAULT_BYTES.
 */
#define DEFAULT_SHARE 8
#define DEFAULT_BYTES (64 * XL_GIB)

/*
 * Tags do not begin at a multiple of 4 KiB, so that the states and the tags of the first blocks do
 * not differ in their page alone: to many CPUs a load then seems to depend on a store until their
 * whole addresses are compared.
 */
#define TAGS_SKEW 1000
#define TABLE_GRANULE ((size_t)4096)

/*
 * A sixteenth of what the arena has mapped already is mapped ahead of use. It is little, because
 * mlockall() has all of it filled with memory.
 */
#define AHEAD_SHARE 16

enum table {
	TAGS,
	PAGES,
	NR_PLOT_TABLES,
	EXTENTS = NR_PLOT_TABLES,
	STATES,
	TINY_STATES,
	SLACKS,
	NR_TABLES,
};

/* Bytes of each table for a segment. */
static const size_t bytes_of[NR_TABLES] = {
	[TAGS] = XL_SEGMENT / XL_SLICE * sizeof(*xl_map.tags),
	[PAGES] = XL_SEGMENT / XL_SLICE * sizeof(*xl_map.page_of),
	[EXTENTS] = XL_SEGMENT / XL_KPAGE * sizeof(*xl_map.extent_of),
	[STATES] = XL_SEGMENT / XL_STATE_BYTES,
	[TINY_STATES] = XL_SEGMENT / XL_QUANTUM,
	[SLACKS] = XL_SEGMENT / XL_QUANTUM * sizeof(*xl_map.slacks),
};

struct xl_map xl_map;

/* Of this process. In private memory, which a fork wipes. */
struct zone {
	pthread_mutex_t lock; /* what of the zone is mapped */
	/* What of it, from its base on, is for the default arena alone. */
	size_t default_bytes;
	bool has_slacks;
	/* Of each plot: xl_map.is_mapped, with @lock. One more: there is none at the end. */
	atomic_bool is_mapped[NR_PLOTS + 1];
};

static struct zone *zone;

/* What a fork does not wipe. Changes with lock 1. */
static struct {
	atomic_uint bits; /* of the address space; 0 before the first start */
	atomic_uint own;  /* the zone of this process, or of the last forebear with one */
	atomic_ulong used[NR_ZONES]; /* the start, counted from 1, that took the zone last; or 0 */
	unsigned long nr_starts;
} zones;

static uintptr_t zone_bytes(unsigned int bits)
{
	return ((uintptr_t)1 << bits) / 16 * SIXTEENTHS / NR_ZONES;
}

static uintptr_t zone_first(unsigned int bits, unsigned int nr)
{
	return ((uintptr_t)1 << bits) / 16 * FIRST_SIXTEENTH + nr * zone_bytes(bits);
}

bool xl_zone_inherited(uintptr_t address, bool started)
{
	unsigned int bits = atomic_load_explicit(&zones.bits, memory_order_relaxed), nr;

	if (!bits || address < zone_first(bits, 0) || address >= zone_first(bits, NR_ZONES))
		return false;
	nr = (address - zone_first(bits, 0)) / zone_bytes(bits);
	if (nr == atomic_load_explicit(&zones.own, memory_order_relaxed))
		return !started;
	return atomic_load_explicit(&zones.used[nr], memory_order_relaxed);
}

/* --- tables */

static uintptr_t table_base(enum table table)
{
	uintptr_t base = xl_map.base + xl_map.bytes;
	unsigned int i;

	for (i = 0; i < table; i++)
		base += xl_map.bytes / XL_SEGMENT * bytes_of[i] + TABLE_GRANULE;
	return base;
}

/* Where @table has what it says of @address, a multiple of XL_SEGMENT. */
static uintptr_t entry_of(enum table table, uintptr_t address)
{
	return table_base(table) + (address - xl_map.base) / XL_SEGMENT * bytes_of[table];
}

/* Whether @table is mapped with the segments of @arena. */
static bool is_mapped_with(const struct xalloc_arena *arena, enum table table)
{
	if (table == SLACKS)
		return zone->has_slacks;
	return table != TINY_STATES || !arena->segments;
}

static void unmap_table(enum table table, uintptr_t from, uintptr_t to)
{
	xl_os_unmap((void *)entry_of(table, from), entry_of(table, to) - entry_of(table, from));
}

static int map_table(enum table table, uintptr_t from, uintptr_t to)
{
	return xl_os_map_table((void *)entry_of(table, from),
			       entry_of(table, to) - entry_of(table, from));
}

/* Those that are mapped by segments. */
static void unmap_tables(const struct xalloc_arena *arena, uintptr_t from, uintptr_t to)
{
	unsigned int table;

	for (table = NR_PLOT_TABLES; table < NR_TABLES; table++)
		if (is_mapped_with(arena, table))
			unmap_table(table, from, to);
}

static int map_tables(const struct xalloc_arena *arena, uintptr_t from, uintptr_t to)
{
	unsigned int table;
	int ret;

	for (table = NR_PLOT_TABLES; table < NR_TABLES; table++) {
		ret = is_mapped_with(arena, table) ? map_table(table, from, to) : 0;
		if (ret) {
			while (table-- > NR_PLOT_TABLES)
				if (is_mapped_with(arena, table))
					unmap_table(table, from, to);
			return ret;
		}
	}
	return 0;
}

static bool is_plot_mapped(size_t plot)
{
	return atomic_load_explicit(&zone->is_mapped[plot], memory_order_acquire);
}

/*
 * Because of TAGS_SKEW the last tags of a plot lie in a page that the next plot has in common with
 * it. Calls @visit for those pages of the tags of some plots that neither neighbour has mapped.
 */
static int visit_tags(size_t plot, size_t end, int (*visit)(void *addr, size_t bytes))
{
	uintptr_t first = entry_of(TAGS, xl_map.base + plot * XL_PLOT);
	uintptr_t last = entry_of(TAGS, xl_map.base + end * XL_PLOT);

	if (plot && is_plot_mapped(plot - 1))
		first += TABLE_GRANULE;
	if (!is_plot_mapped(end))
		last += TABLE_GRANULE;
	return last > first ? visit((void *)first, last - first) : 0;
}

static int unmap(void *addr, size_t bytes)
{
	xl_os_unmap(addr, bytes);
	return 0;
}

/* Of plots from @plot to before @end, none of which is mapped. */
static int map_plots(size_t plot, size_t end)
{
	uintptr_t from = xl_map.base + plot * XL_PLOT;
	int ret;

	ret = visit_tags(plot, end, xl_os_map_table);
	if (ret)
		return ret;
	ret = map_table(PAGES, from, xl_map.base + end * XL_PLOT);
	if (ret) {
		visit_tags(plot, end, unmap);
		return ret;
	}
	for (; plot < end; plot++)
		atomic_store_explicit(&zone->is_mapped[plot], true, memory_order_release);
	return 0;
}

/*
 * From the last one down: the tag of the first slice of a segment says that all of the segment is
 * mapped, and then others may set the tags of its slices.
 */
static void set_tags(uintptr_t from, uintptr_t end, uint32_t tag)
{
	while (end > from) {
		end -= XL_SLICE;
		atomic_store_explicit(&xl_map.tags[xl_unit(end) / (XL_SLICE / XL_QUANTUM)], tag,
				      memory_order_release);
	}
}

/* A plot without a segment that is mapped. */
static void unmap_plot(size_t plot)
{
	uintptr_t from = xl_map.base + plot * XL_PLOT;

	/* A neighbour may keep some of them. */
	set_tags(from, from + XL_PLOT, 0);
	atomic_store_explicit(&zone->is_mapped[plot], false, memory_order_relaxed);
	unmap_table(PAGES, from, from + XL_PLOT);
	visit_tags(plot, plot + 1, unmap);
}

/* --- the zone */

/* Sets what follows from xl_map.base and .bytes. */
static void set_map(void)
{
	xl_map.tags = (_Atomic uint32_t *)(table_base(TAGS) + TAGS_SKEW);
	xl_map.page_of = (void *)table_base(PAGES);
	xl_map.extent_of = (struct xl_extent **)table_base(EXTENTS);
	xl_map.states = table_base(STATES) - xl_map.base / XL_STATE_BYTES;
	xl_map.tiny_states = table_base(TINY_STATES) - xl_map.base / XL_QUANTUM;
	xl_map.is_mapped = zone->is_mapped;
	xl_map.slacks = (uint16_t *)table_base(SLACKS);
}

/* One that no forebear has; with none left, the one that was left the longest ago. */
static unsigned int choose_zone(uint64_t random)
{
	unsigned int nr = random % NR_ZONES, best = nr, i;

	for (i = 0; i < NR_ZONES; i++, nr = (nr + 1) % NR_ZONES)
		if (zones.used[nr] < zones.used[best])
			best = nr;
	return best;
}

/* Returns 0 or -errno: -EEXIST where this zone cannot be used. */
static int try_zone(unsigned int bits, unsigned int nr, uint64_t random)
{
	size_t bytes = zone_bytes(bits) / XL_PLOT * XL_PLOT;
	int ret;

	atomic_store_explicit(&xl_map.nr_units, 0, memory_order_release);
	xl_map.base = zone_first(bits, nr) + random % (bytes / SPREAD / XL_PLOT) * XL_PLOT;
	xl_map.bytes = (bytes - bytes / SPREAD) / 4 * ARENA_QUARTERS / XL_PLOT * XL_PLOT;
	ret = map_plots(0, 1);
	if (!ret)
		set_map();
	return ret;
}

static int choose(void)
{
	int ret = -ENOMEM;
	unsigned int i, nr, tries;
	uint64_t random;

	for (i = 0; i < sizeof(address_bits) / sizeof(*address_bits); i++) {
		unsigned int bits = address_bits[i];

		/* A child stays where its forebears could be, or their zones would mean nothing. */
		if (zones.bits ? zones.bits != bits : i == 0 && xl_os_is_tsan())
			continue;
		for (tries = 0; tries < NR_ZONES; tries++) {
			random = xl_os_random();
			nr = choose_zone(random);
			ret = try_zone(bits, nr, random / NR_ZONES);
			if (!ret) {
				zones.bits = bits;
				zones.used[nr] = ++zones.nr_starts;
				zones.own = nr;
				return 0;
			}
			if (ret != -EEXIST)
				break;
		}
	}
	return ret;
}

int xl_zone_start(size_t default_limit, bool has_slacks)
{
	int ret;

	if (!zone)
		zone = xl_os_private(sizeof(*zone));
	if (!zone)
		return -ENOMEM;
	if (!XL_PRELOAD) {
		ret = xl_os_wipe_on_fork(&xl_map);
		if (ret)
			return ret;
	}
	zone->has_slacks = has_slacks;
	ret = choose();
	if (ret)
		return ret;
	zone->default_bytes = DEFAULT_BYTES;
	if (default_limit > xl_zone_default_most())
		default_limit = xl_zone_default_most();
	if (zone->default_bytes < default_limit * DEFAULT_SHARE)
		zone->default_bytes = xl_round_up(default_limit * DEFAULT_SHARE, XL_PLOT);
	/* Where there are few addresses, other arenas have their half. */
	if (zone->default_bytes > xl_map.bytes / 2)
		zone->default_bytes = xl_map.bytes / 2 / XL_PLOT * XL_PLOT;
	if (zone->default_bytes < default_limit)
		zone->default_bytes = xl_zone_default_most();
	return 0;
}

size_t xl_zone_default_most(void)
{
	return xl_map.bytes / 4 * 3 / XL_PLOT * XL_PLOT;
}

size_t xl_zone_default_bytes(void)
{
	return zone->default_bytes;
}

unsigned long xl_zone_nr_starts(void)
{
	return zones.nr_starts;
}

pthread_mutex_t *xl_zone_lock(void)
{
	return &zone->lock;
}

/* --- segments */

bool xl_zone_is_mapped(uintptr_t address)
{
	return is_plot_mapped((address - xl_map.base) / XL_PLOT) && xl_tag(xl_unit(address));
}

/* The end of the segments from @from on that are not mapped, @end at most. */
static uintptr_t unmapped_end(uintptr_t from, uintptr_t end)
{
	while (from < end && !xl_zone_is_mapped(from))
		from += XL_SEGMENT;
	return from;
}

/* Maps tables and memory of segments that are not mapped, all of them or none. */
static int map_segments(struct xalloc_arena *arena, uintptr_t from, uintptr_t end)
{
	int ret = map_tables(arena, from, end);

	if (ret)
		return ret;
	if (arena->grows)
		ret = arena->backend->map(arena, from - arena->base, end - from);
	if (ret) {
		unmap_tables(arena, from, end);
		return ret;
	}
	arena->mapped_bytes += end - from;
	set_tags(from, end, XL_TAG_MAPPED);
	return 0;
}

/* How far to map if it is to be done at all: up to @end, of @arena, at least. */
static uintptr_t ahead_of(const struct xalloc_arena *arena, uintptr_t end)
{
	uintptr_t plot_end = xl_map.base + xl_round_up(end - xl_map.base, XL_PLOT), to = plot_end;
	size_t ahead = arena->mapped_bytes / AHEAD_SHARE / XL_SEGMENT * XL_SEGMENT;

	if (to > arena->base + arena->bytes)
		to = arena->base + arena->bytes;
	if (to - end > ahead)
		to = end + ahead;
	return unmapped_end(end, to);
}

/* Maps the plots of a part of @arena that are not mapped yet. */
static int use_plots(struct xalloc_arena *arena, uintptr_t from, uintptr_t to)
{
	size_t plot = (from - xl_map.base) / XL_PLOT, end = (to - 1 - xl_map.base) / XL_PLOT + 1;
	size_t next;
	int ret;

	/* Without a gap, for xl_map.nr_units. */
	if (arena->grows)
		plot = 0;
	for (; plot < end; plot = next) {
		for (next = plot; next < end && !is_plot_mapped(next); next++)
			;
		ret = next > plot ? map_plots(plot, next) : 0;
		if (ret)
			return ret;
		while (next < end && is_plot_mapped(next))
			next++;
	}
	if (arena->grows && end * (XL_PLOT / XL_QUANTUM) > xl_map.nr_units)
		atomic_store_explicit(&xl_map.nr_units, end * (XL_PLOT / XL_QUANTUM),
				      memory_order_release);
	return 0;
}

static int use_locked(struct xalloc_arena *arena, uintptr_t from, uintptr_t end)
{
	uintptr_t to;
	int ret = use_plots(arena, from, end);

	/* No grant helps where the tables of the arena cannot be. */
	if (ret == -EEXIST)
		ret = -ENOMEM;

	for (; from < end && !ret; from = to) {
		to = unmapped_end(from, end);
		if (to == from) {
			to += XL_SEGMENT;
			continue;
		}
		ret = -EEXIST;
		if (to == end)
			ret = map_segments(arena, from, ahead_of(arena, to));
		if (ret)
			ret = map_segments(arena, from, to);
	}
	return ret;
}

int xl_zone_use(struct xalloc_arena *arena, uint64_t offset, size_t bytes)
{
	uintptr_t from = (arena->base + offset) & ~(XL_SEGMENT - 1), at;
	uintptr_t end = xl_round_up(arena->base + offset + bytes, XL_SEGMENT);
	int ret;

	for (at = from; at < end && xl_zone_is_mapped(at); at += XL_SEGMENT)
		;
	if (at == end)
		return 0;
	pthread_mutex_lock(&zone->lock);
	ret = use_locked(arena, from, end);
	pthread_mutex_unlock(&zone->lock);
	return ret;
}

int xl_zone_use_tiny(struct xalloc_arena *arena, uint64_t offset)
{
	uintptr_t from = (arena->base + offset) & ~(XL_SEGMENT - 1);
	struct xl_segment *segment;
	int ret = 0;

	if (!arena->segments)
		return 0;
	segment = &arena->segments[offset / XL_SEGMENT];
	if (atomic_load_explicit(&segment->has_tiny, memory_order_acquire))
		return 0;
	pthread_mutex_lock(&zone->lock);
	if (!atomic_load_explicit(&segment->has_tiny, memory_order_relaxed))
		ret = map_table(TINY_STATES, from, from + XL_SEGMENT);
	if (!ret)
		atomic_store_explicit(&segment->has_tiny, true, memory_order_release);
	pthread_mutex_unlock(&zone->lock);
	return ret;
}

void xl_zone_leave(struct xalloc_arena *arena)
{
	uintptr_t at, end = arena->base + arena->bytes;
	size_t plot;

	pthread_mutex_lock(&zone->lock);
	for (at = arena->base; at < end; at += XL_SEGMENT)
		if (xl_zone_is_mapped(at))
			unmap_tables(arena, at, at + XL_SEGMENT);
	for (plot = (arena->base - xl_map.base) / XL_PLOT; xl_map.base + plot * XL_PLOT < end;
	     plot++)
		if (is_plot_mapped(plot))
			unmap_plot(plot);
	pthread_mutex_unlock(&zone->lock);
}
