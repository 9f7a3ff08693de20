// SPDX-License-Identifier: MIT
/* What arenas and heaps hold, as numbers and as JSON. */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend.h"
#include "cache.h"

/* Blocks of each class. */
struct counts {
	int64_t nr[XL_NR_CLASSES];
};

/* Counts blocks that no free map, cache or depot has. The caller holds lock 1. */
static void count_classes(struct xl_process *p, struct xalloc_heap *heap, struct counts *counts)
{
	struct xl_list *pos;
	unsigned int cls;

	for (cls = 0; cls < XL_NR_CLASSES; cls++) {
		struct xl_bin *bin = xl_bin_of(heap, cls);

		pthread_mutex_lock(&bin->lock);
		counts->nr[cls] = bin->nr_taken;
		pthread_mutex_unlock(&bin->lock);
		if (!(heap->tag & XL_TAG_CACHED))
			continue;
		counts->nr[cls] -= xl_depot_count(p, cls);
		pthread_mutex_lock(&p->meta_lock);
		for (pos = p->caches.next; pos != &p->caches; pos = pos->next)
			counts->nr[cls] -=
				xl_cache_count(xl_entry(pos, struct xl_cache, link), cls);
		pthread_mutex_unlock(&p->meta_lock);
	}
}

/* A thread that takes or puts back blocks at this moment may not have counted them yet. */
static uint64_t count_of(const struct counts *counts, unsigned int cls)
{
	return counts->nr[cls] > 0 ? counts->nr[cls] : 0;
}

/* Blocks of more than a slice. Returns how many bytes of their runs are in no block. */
static size_t count_large(struct xalloc_heap *heap, uint64_t *nr_blocks, uint64_t *used_bytes)
{
	struct xl_bin *bin = xl_bin_of(heap, XL_CLASS_LARGE);
	size_t free_bytes;

	*nr_blocks = 0;
	*used_bytes = 0;
	pthread_mutex_lock(&bin->lock);
	xl_large_count(heap, nr_blocks, used_bytes);
	free_bytes = heap->large.free_bytes + heap->large.used_bytes - *used_bytes;
	pthread_mutex_unlock(&bin->lock);
	return free_bytes;
}

/* The caller holds lock 1. */
static void count_heaps(struct xl_process *p, struct xalloc_arena *arena,
			struct xalloc_arena_stat *stat)
{
	struct xl_list *pos;

	for (pos = arena->heaps.next; pos != &arena->heaps; pos = pos->next) {
		struct xalloc_heap *heap = xl_entry(pos, struct xalloc_heap, link);
		struct counts counts;
		uint64_t nr, bytes;
		unsigned int cls;

		count_classes(p, heap, &counts);
		for (cls = 0; cls < XL_NR_CLASSES; cls++) {
			stat->nr_blocks += count_of(&counts, cls);
			stat->used_bytes += count_of(&counts, cls) * xl_classes[cls].block_bytes;
		}
		count_large(heap, &nr, &bytes);
		stat->nr_blocks += nr;
		stat->used_bytes += bytes;
		stat->nr_heaps++;
	}
}

/* All but what heaps hold. Returns 0 or -errno. */
static int read_arena(struct xalloc_arena *arena, struct xalloc_arena_stat *stat)
{
	int ret = arena->backend->stat(arena, stat);

	if (ret)
		return ret;
	stat->arena_id = arena->id;
	stat->arena_bytes = arena->blocks.iov_len;
	stat->limit_bytes = arena->adopted ? arena->blocks.iov_len : arena->limit_bytes;
	stat->nr_refused = atomic_load_explicit(&arena->nr_refused, memory_order_relaxed);
	stat->refused = atomic_load_explicit(&arena->refused, memory_order_relaxed);
	return 0;
}

int xalloc_arena_stats(struct xalloc_arena *arena, struct xalloc_arena_stat *stats)
{
	struct xl_process *p = xl_process_peek();
	struct xalloc_arena_stat stat = { .size = sizeof(stat) };
	int ret;

	if (stats->size < offsetof(struct xalloc_arena_stat, arena_bytes))
		return -EINVAL;
	if (!p || !atomic_load(&arena->alive))
		return -ESTALE;
	pthread_mutex_lock(&p->lock);
	count_heaps(p, arena, &stat);
	pthread_mutex_unlock(&p->lock);
	ret = read_arena(arena, &stat);
	if (ret)
		return ret;
	if (stat.size > stats->size)
		stat.size = stats->size;
	memcpy(stats, &stat, stat.size);
	return 0;
}

/* Text for a buffer that may be too small; @len is how long it is in all. */
struct text {
	char *buffer;
	size_t size;
	size_t len;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
	size_t room = text->len < text->size ? text->size - text->len : 0;
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(room ? text->buffer + text->len : NULL, room, format, args);
	va_end(args);
	if (len > 0)
		text->len += len;
}

/* Bytes of the UTF-8 character that @text begins with; 0 if it is none. */
static size_t utf8_length(const unsigned char *text)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t len = *text >= 0xf0 ? 4 : *text >= 0xe0 ? 3 : 2, i;
	uint32_t code = *text & (0xff >> (len + 1));

	if (*text < 0xc0 || *text >= 0xf8)
		return 0;
	for (i = 1; i < len; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (text[i] & 0x3f);
	}
	if (code < least[len] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
		return 0;
	return len;
}

/* A name of a file may be any bytes, a string of JSON may not. */
static void add_string(struct text *text, const char *string)
{
	const unsigned char *s = (const unsigned char *)string;
	size_t len;

	add(text, "\"");
	for (; *s; s += len) {
		len = 1;
		if (*s == '"' || *s == '\\') {
			add(text, "\\%c", *s);
		} else if (*s < 0x20 || *s == 0x7f) {
			add(text, "\\u%04x", *s);
		} else if (*s < 0x80) {
			add(text, "%c", *s);
		} else {
			len = utf8_length(s);
			add(text, "%.*s", len ? (int)len : 6, len ? (const char *)s : "\\ufffd");
			len += !len;
		}
	}
	add(text, "\"");
}

/* The caller holds lock 1. */
static void add_heap(struct text *text, struct xl_process *p, struct xalloc_heap *heap)
{
	struct xalloc_heap *shared = atomic_load_explicit(&p->default_heap, memory_order_relaxed);
	uint64_t nr_blocks, used_bytes;
	const char *comma = "";
	struct counts counts;
	size_t free_bytes;
	unsigned int cls;

	count_classes(p, heap, &counts);
	free_bytes = count_large(heap, &nr_blocks, &used_bytes);
	add(text, "{\"kind\":\"%s\",\"classes\":[", heap == shared ? "default" : "own");
	for (cls = 0; cls < XL_NR_CLASSES; cls++) {
		if (!count_of(&counts, cls))
			continue;
		add(text, "%s{\"block_bytes\":%u,\"nr_blocks\":%llu}", comma,
		    xl_classes[cls].block_bytes, (unsigned long long)count_of(&counts, cls));
		comma = ",";
	}
	add(text, "],\"large\":{\"nr_blocks\":%llu,\"used_bytes\":%llu,\"free_bytes\":%zu}}",
	    (unsigned long long)nr_blocks, (unsigned long long)used_bytes, free_bytes);
}

static void add_number(struct text *text, const char *name, uint64_t value)
{
	add(text, "\"%s\":%llu,", name, (unsigned long long)value);
}

/* What the kernel calls the arena's file, if there is one and /proc is mounted. */
static void add_file(struct text *text, const struct xalloc_arena *arena)
{
	char link[32], path[PATH_MAX];
	ssize_t len;

	if (arena->fd < 0)
		return;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", arena->fd);
	len = readlink(link, path, sizeof(path) - 1);
	if (len < 0)
		return;
	path[len] = 0;
	add(text, "\"file\":");
	add_string(text, path);
	add(text, ",");
}

/* The caller holds lock 1. */
static int add_arena(struct text *text, struct xl_process *p, struct xalloc_arena *arena)
{
	struct xalloc_arena_stat stat = { 0 };
	const char *comma = "";
	struct xl_list *pos;
	int ret;

	ret = read_arena(arena, &stat);
	if (ret)
		return ret;
	count_heaps(p, arena, &stat);
	add(text, "{");
	add_number(text, "arena_id", stat.arena_id);
	add(text, "\"default\":%s,", arena == p->default_arena ? "true" : "false");
	add_file(text, arena);
	add_number(text, "arena_bytes", stat.arena_bytes);
	add_number(text, "limit_bytes", stat.limit_bytes);
	add_number(text, "committed_bytes", stat.committed_bytes);
	add_number(text, "pinned_bytes", stat.pinned_bytes);
	add_number(text, "charged_bytes", stat.charged_bytes);
	add_number(text, "granted_bytes", stat.granted_bytes);
	add_number(text, "used_bytes", stat.used_bytes);
	add_number(text, "nr_blocks", stat.nr_blocks);
	add_number(text, "nr_refused", stat.nr_refused);
	add_number(text, "refused", stat.refused);
	add_number(text, "small_bytes", stat.small_bytes);
	add(text, "\"heaps\":[");
	for (pos = arena->heaps.next; pos != &arena->heaps; pos = pos->next) {
		struct xalloc_heap *heap = xl_entry(pos, struct xalloc_heap, link);

		add(text, "%s", comma);
		add_heap(text, p, heap);
		comma = ",";
	}
	add(text, "]}");
	return 0;
}

/* The caller holds lock 1. */
static int add_process(struct text *text, struct xl_process *p)
{
	const char *comma = "";
	struct xl_list *pos;
	int ret = 0;

	add(text, "\"backend\":\"%s\",", p->options.local ? "local" : "device");
	add(text, "\"arenas\":[");
	for (pos = p->arenas.next; pos != &p->arenas && !ret; pos = pos->next) {
		add(text, "%s", comma);
		ret = add_arena(text, p, xl_entry(pos, struct xalloc_arena, link));
		comma = ",";
	}
	add(text, "]");
	return ret;
}

int xalloc_stats_json(char *buffer, size_t size)
{
	struct text text = { .buffer = buffer, .size = size };
	struct xl_process *p = xl_process_peek();
	int ret = 0;

	add(&text, "{");
	if (p) {
		pthread_mutex_lock(&p->lock);
		ret = add_process(&text, p);
		pthread_mutex_unlock(&p->lock);
	} else {
		add(&text, "\"arenas\":[]");
	}
	add(&text, "}\n");
	if (ret)
		return ret;
	return text.len < INT_MAX ? (int)text.len : -EOVERFLOW;
}
