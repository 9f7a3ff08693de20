// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: four processes make all calls in a random order, on an arena that they share and on
 * arenas of their own that their children copy, while pipes and dma-bufs hold memory. What a
 * process wrote into its pages stays, each call succeeds at times, and nothing is left in the end.
 */
#include "holes.h"

#include <sys/prctl.h>
#include <sys/uio.h>

#define NR_PROCESSES 4
#define ARENA_BYTES (32 * MIB)
#define NAME NAMES "/storm-test"

/* Pages that a process has in an arena, and pipes and exports that it keeps. */
#define NR_PAGES 48
#define NR_HELD 8

struct page {
	uint64_t offset;
	uint32_t nr_slices;	/* 0: none */
};

struct place {
	int fd;
	unsigned char *map;
	struct page pages[NR_PAGES];
};

struct storm {
	uint32_t seed;
	int device;
	struct place shared, own;
	int pipes[NR_HELD], exports[NR_HELD];	/* -1: none */
};

/* Returns whether the call succeeded. */
typedef bool act(struct storm *s);

static uint32_t below(struct storm *s, uint32_t end)
{
	return random_next(&s->seed) % end;
}

static struct place *any_place(struct storm *s)
{
	return below(s, 2) ? &s->shared : &s->own;
}

static struct page *any_page(struct storm *s, struct place *place)
{
	struct page *page = &place->pages[below(s, NR_PAGES)];

	return page->nr_slices ? page : NULL;
}

/* The first word of each slice names the slice and the process. */
static uint64_t word_of(uint64_t offset)
{
	return offset ^ (uint64_t)getpid() << 40;
}

static void write_words(const struct place *place, const struct page *page)
{
	uint64_t at, end = page->offset + page->nr_slices * XALLOC_SLICE_BYTES;

	for (at = page->offset; at < end; at += XALLOC_SLICE_BYTES)
		*(uint64_t *)(place->map + at) = word_of(at);
}

static void check_words(const struct place *place, const struct page *page)
{
	uint64_t at, end = page->offset + page->nr_slices * XALLOC_SLICE_BYTES;

	for (at = page->offset; at < end; at += XALLOC_SLICE_BYTES)
		require(*(uint64_t *)(place->map + at) == word_of(at));
}

static bool do_info(struct storm *s)
{
	struct xalloc_ioc_info info;

	return !info_read(s->device, &info);
}

static bool do_stat(struct storm *s)
{
	struct xalloc_ioc_stat stat;

	return !counters_read(below(s, 2) ? s->device : any_place(s)->fd, &stat);
}

static bool do_grant(struct storm *s)
{
	static const uint32_t lengths[] = { 1, 1, 2, 5, 16, 32, 40, 96, 200 };
	uint32_t flags = below(s, 4) ? 0 : XALLOC_PAGE_ZERO;
	struct place *place = any_place(s);
	struct page *page = &place->pages[below(s, NR_PAGES)];
	struct xalloc_page_grant grant;
	uint32_t nr = lengths[below(s, ARRAY_SIZE(lengths))];

	if (page->nr_slices)
		return false;
	if (nr <= SEGMENT_SLICES && !below(s, 8))
		flags |= XALLOC_PAGE_CONTIG;
	if (grant_page(place->fd, nr, flags, &grant) != 1)
		return false;
	*page = (struct page){ .offset = grant.offset, .nr_slices = nr };
	if (flags & XALLOC_PAGE_ZERO)
		require(!*(uint64_t *)(place->map + grant.offset));
	write_words(place, page);
	return true;
}

static bool do_free(struct storm *s)
{
	struct place *place = any_place(s);
	struct page *page = any_page(s, place);

	if (!page)
		return false;
	check_words(place, page);
	require(free_page(place->fd, page->offset) == 1);
	page->nr_slices = 0;
	return true;
}

/* Of a page, or of its end. */
static bool do_free_lazily(struct storm *s)
{
	struct place *place = any_place(s);
	struct page *page = any_page(s, place);
	uint32_t kept;
	int rc;

	if (!page)
		return false;
	check_words(place, page);
	kept = below(s, page->nr_slices);
	rc = free_lazily(place->fd, page->offset + kept * XALLOC_SLICE_BYTES,
			 (page->nr_slices - kept) * XALLOC_SLICE_BYTES);
	/* A dma-buf may have it. */
	require(rc == 1 || (rc == -EBUSY && kept));
	if (rc != 1)
		return false;
	page->nr_slices = kept;
	check_words(place, page);
	return true;
}

/* Where we say, and never where we have a page. */
static bool do_grant_at(struct storm *s)
{
	struct place *place = any_place(s);
	struct page *page = &place->pages[below(s, NR_PAGES)];
	struct xalloc_page_grant grant = {
		.nr_slices = 1 + below(s, 40),
		.flags = XALLOC_PAGE_AT,
		.offset = below(s, ARENA_BYTES / XALLOC_SLICE_BYTES) * XALLOC_SLICE_BYTES,
	};

	if (page->nr_slices || grant_batch(place->fd, &grant, 1) != 1)
		return false;
	*page = (struct page){ .offset = grant.offset, .nr_slices = grant.nr_slices };
	write_words(place, page);
	return true;
}

/* The end of a page, by the call or as a hole; what remains is as it was. */
static bool do_free_part(struct storm *s)
{
	struct place *place = any_place(s);
	struct page *page = any_page(s, place);
	uint64_t offset, bytes;
	uint32_t kept;
	int rc;

	if (!page || page->nr_slices == 1)
		return false;
	kept = 1 + below(s, page->nr_slices - 1);
	offset = page->offset + kept * XALLOC_SLICE_BYTES;
	bytes = (page->nr_slices - kept) * XALLOC_SLICE_BYTES;
	if (below(s, 2))
		rc = file_punch(place->fd, offset, bytes) ?: 1;
	else
		rc = free_range(place->fd, offset, bytes);
	/* A dma-buf or a pipe may have it. */
	require(rc == 1 || rc == -EBUSY);
	if (rc != 1)
		return false;
	page->nr_slices = kept;
	check_words(place, page);
	return true;
}

/* A file of our own: what a hole reads, and what was written before. */
static bool do_file(struct storm *s)
{
	uint64_t at = below(s, 16) * (XALLOC_SEGMENT_BYTES / 2), word = 0;
	int fd = open(NAMES, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	unsigned char *map;
	bool done;

	require(fd >= 0 && !ftruncate(fd, ARENA_BYTES));
	map = arena_map(fd, ARENA_BYTES);
	require(map);
	done = pwrite(fd, &at, sizeof(at), at) == sizeof(at);
	if (done)
		require(*(uint64_t *)(map + at) == at);
	if (!touch_read(map + ARENA_BYTES - at - 8, &word))
		require(!word);
	if (below(s, 2))
		require(!ftruncate(fd, at) && !ftruncate(fd, ARENA_BYTES));
	else
		require(!file_punch(fd, at, 8));
	require(pread(fd, &word, 8, at) == 8 && !word);
	munmap(map, ARENA_BYTES);
	close(fd);
	return done;
}

static bool do_list(struct storm *s)
{
	struct xalloc_page_info infos[16];
	uint64_t offset = below(s, ARENA_BYTES);

	return list_some(any_place(s)->fd, below(s, 2) ? XALLOC_LIST_ORPHANS : 0, 0, &offset, infos,
			 ARRAY_SIZE(infos)) >= 0;
}

/* Leaves an orphan in the shared arena. */
static bool do_leave(struct storm *s)
{
	int fd = attach(s->shared.fd, 0, NULL), rc;

	rc = grant_page(fd, 1 + below(s, 40), 0, NULL);
	close(fd);
	return rc == 1;
}

static bool do_claim(struct storm *s)
{
	struct xalloc_page_info info;
	uint64_t offset = below(s, ARENA_BYTES);

	if (list_some(s->shared.fd, XALLOC_LIST_ORPHANS, 0, &offset, &info, 1) != 1)
		return false;
	if (claim(s->shared.fd, info.offset) != 1)
		return false;
	/* Others may free the page, too. */
	free_page(s->shared.fd, info.offset);
	return true;
}

static bool do_reserve(struct storm *s)
{
	uint64_t high = below(s, 5) * XALLOC_SEGMENT_BYTES;

	return !reserve_set(any_place(s)->fd, below(s, 2) ? high : 0, high);
}

static bool do_trim(struct storm *s)
{
	uint64_t trimmed;

	return !arena_trim(any_place(s)->fd, below(s, 4) * XALLOC_SEGMENT_BYTES, &trimmed);
}

static bool do_limit(struct storm *s)
{
	return !arena_limit(any_place(s)->fd, (8 + below(s, 12)) * XALLOC_SEGMENT_BYTES);
}

static bool do_attach(struct storm *s)
{
	struct place *place = any_place(s);
	struct xalloc_page_grant page;
	int fd = below(s, 2) ? attach(place->fd, 0, NULL) :
			       attach_at(s->device, place->map, XALLOC_ATTACH_RDONLY, NULL);

	if (fd < 0)
		return false;
	/* What the client has goes with it, except in the shared arena. */
	if (grant_page(fd, 1 + below(s, 64), 0, &page) == 1 && place == &s->shared)
		free_page(fd, page.offset);
	close(fd);
	return true;
}

static bool do_map(struct storm *s)
{
	uint64_t offset = below(s, 16) * XALLOC_SEGMENT_BYTES;
	struct place *place = any_place(s);
	unsigned char *map = arena_map_at(place->fd, offset, XALLOC_SEGMENT_BYTES, PROT_READ);

	if (!map)
		return false;
	touch_read(map + below(s, XALLOC_SEGMENT_BYTES), NULL);
	munmap(map, XALLOC_SEGMENT_BYTES);
	return true;
}

static bool do_status(struct storm *s)
{
	const volatile struct xalloc_status *status = status_map(any_place(s)->fd);

	if (!status)
		return false;
	require(status->size >= sizeof(*status));
	munmap((void *)status, KPAGE_BYTES);
	return true;
}

/* Puts memory of a page into a pipe, or lets go of what the pipe holds. */
static bool do_pin(struct storm *s)
{
	struct place *place = any_place(s);
	struct page *page = any_page(s, place);
	int *kept = &s->pipes[below(s, NR_HELD)], ends[2];
	struct iovec iov;
	bool done;

	if (*kept >= 0) {
		close(*kept);
		*kept = -1;
	}
	if (!page)
		return false;
	require(!pipe(ends));
	iov = (struct iovec){ place->map + page->offset, KPAGE_BYTES };
	done = vmsplice(ends[1], &iov, 1, 0) == KPAGE_BYTES;
	close(ends[1]);
	*kept = ends[0];
	return done;
}

static bool do_export(struct storm *s)
{
	struct place *place = any_place(s);
	struct page *page = any_page(s, place);
	int *kept = &s->exports[below(s, NR_HELD)];
	struct xalloc_ioc_export arg = { .size = sizeof(arg) };
	unsigned char *map;

	if (*kept >= 0) {
		close(*kept);
		*kept = -1;
	}
	if (!page)
		return false;
	arg.offset = page->offset;
	arg.bytes = page->nr_slices * XALLOC_SLICE_BYTES;
	*kept = call(place->fd, XALLOC_IOC_EXPORT, &arg);
	if (*kept < 0)
		return false;
	map = mmap(NULL, arg.bytes, PROT_READ, MAP_SHARED, *kept, 0);
	require(map != MAP_FAILED);
	require(*(uint64_t *)map == word_of(page->offset));
	munmap(map, arg.bytes);
	return true;
}

static bool do_prepare(struct storm *s)
{
	return !fork_prepare(s->own.fd, below(s, 3) ? 0 : XALLOC_FORK_CANCEL);
}

static bool do_meta(struct storm *s)
{
	struct xalloc_ioc_meta arg = { .size = sizeof(arg), .bytes = KPAGE_BYTES };
	int fd = call(s->shared.fd, XALLOC_IOC_META, &arg);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

static bool do_dump(struct storm *s)
{
	struct xalloc_ioc_dump arg = { .size = sizeof(arg), .flags = below(s, 2) };

	require(!call(any_place(s)->fd, XALLOC_IOC_DUMP, &arg));
	return true;
}

/* An arena that comes and goes. */
static bool do_create(struct storm *s)
{
	int fd = arena_create_by(s->device, ARENA_BYTES, below(s, 3), -1);
	unsigned char *map;

	if (fd < 0)
		return false;
	map = arena_map(fd, ARENA_BYTES);
	if (grant_page(fd, 1 + below(s, 100), 0, NULL) == 1)
		touch_write(map, 1);
	if (below(s, 2))
		close(fd);
	munmap(map, ARENA_BYTES);
	/* Closed by now, or here. */
	close(fd);
	return true;
}

/* The child has our pages in a copy, uses them in its own way, and may die in the middle. */
static bool do_fork(struct storm *s)
{
	pid_t parent = getpid(), pid = fork();
	int fd, status;
	unsigned int i;

	if (pid < 0)
		return false;
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fd = attach_at(s->device, s->own.map, 0, NULL);
		for (i = 0; i < NR_PAGES && fd >= 0; i++) {
			struct page *page = &s->own.pages[i];
			uint64_t *word = (uint64_t *)(s->own.map + page->offset);

			if (!page->nr_slices || below(s, 2))
				continue;
			require(*word == (page->offset ^ (uint64_t)parent << 40));
			*word = 0;
			require(free_page(fd, page->offset) == 1);
			grant_page(fd, 1 + below(s, 40), 0, NULL);
		}
		if (fd >= 0 && below(s, 2))
			kill(getpid(), SIGKILL);
		_exit(0);
	}
	status = child_status(pid);
	require(status == 0 || status == 256 + SIGKILL);
	return true;
}

static const struct {
	const char *name;
	act *act;
	unsigned int weight;
} acts[] = {
	{ "INFO", do_info, 1 },
	{ "STAT", do_stat, 2 },
	{ "GRANT", do_grant, 40 },
	{ "GRANT at an offset", do_grant_at, 10 },
	{ "FREE", do_free, 30 },
	{ "FREE or PUNCH_HOLE of a part", do_free_part, 8 },
	{ "FREE with XALLOC_FREE_LAZY", do_free_lazily, 12 },
	{ "a file", do_file, 3 },
	{ "LIST", do_list, 4 },
	{ "GRANT that leaves an orphan", do_leave, 2 },
	{ "CLAIM", do_claim, 3 },
	{ "RESERVE", do_reserve, 2 },
	{ "TRIM", do_trim, 4 },
	{ "LIMIT", do_limit, 2 },
	{ "ATTACH", do_attach, 4 },
	{ "mmap", do_map, 6 },
	{ "mmap of the status page", do_status, 1 },
	{ "vmsplice", do_pin, 8 },
	{ "EXPORT", do_export, 4 },
	{ "FORK_PREPARE", do_prepare, 1 },
	{ "META", do_meta, 1 },
	{ "DUMP", do_dump, 1 },
	{ "ARENA_CREATE", do_create, 2 },
	{ "fork", do_fork, 1 },
};

/* In a process of its own. @nr_done counts, for each act, how often it succeeded. */
static void run_storm(uint32_t seed, unsigned int least, uint64_t end, uint64_t *nr_done)
{
	struct storm s = { .seed = seed, .device = device_open() };
	unsigned int turn, i;

	guard_install();
	s.shared.fd = name_open(NAME, O_RDWR);
	s.shared.map = arena_map(s.shared.fd, ARENA_BYTES);
	s.own.fd = family_create(s.device, ARENA_BYTES, 0);
	s.own.map = arena_map(s.own.fd, ARENA_BYTES);
	require(s.shared.map && s.own.map);
	for (i = 0; i < NR_HELD; i++) {
		s.pipes[i] = -1;
		s.exports[i] = -1;
	}
	for (turn = 0; turn < least || now_ms() < end; turn++) {
		i = below(&s, ARRAY_SIZE(acts));
		if (below(&s, 40) >= acts[i].weight)
			continue;
		if (acts[i].act(&s))
			__atomic_fetch_add(&nr_done[i], 1, __ATOMIC_RELAXED);
	}
}

TEST(four_processes_make_all_calls)
{
	unsigned int least = is_long_run() ? 1 : 3000, i;
	struct xalloc_ioc_stat before;
	int device = device_setup(_metadata, &before);
	uint64_t end = is_long_run() ? now_ms() + 600000 : 0;
	uint64_t *nr_done = mmap(NULL, KPAGE_BYTES, PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint32_t seed = random_seed();
	pid_t pids[NR_PROCESSES];
	int fd;

	ASSERT_NE(MAP_FAILED, (void *)nr_done);
	ASSERT_TRUE(total_raise());
	unlink(NAME);
	fd = name_create_flags(NAME, ARENA_BYTES, XALLOC_ARENA_PERSIST);
	ASSERT_LE(0, fd);
	TH_LOG("seed %u", seed);
	for (i = 0; i < NR_PROCESSES; i++) {
		pids[i] = fork();
		ASSERT_LE(0, pids[i]);
		if (!pids[i]) {
			run_storm(seed + i, least, end, nr_done);
			_exit(0);
		}
	}
	for (i = 0; i < NR_PROCESSES; i++) {
		EXPECT_EQ(0, child_status(pids[i]));
	}
	for (i = 0; i < ARRAY_SIZE(acts); i++) {
		EXPECT_LT(0, nr_done[i]) {
			TH_LOG("never succeeded: %s", acts[i].name);
		}
	}
	close(fd);
	unlink(NAME);
	munmap(nr_done, KPAGE_BYTES);
	EXPECT_TRUE(total_restore());
	counters_expect(_metadata, device, &before);
	close(device);
}

TEST_HARNESS_MAIN
