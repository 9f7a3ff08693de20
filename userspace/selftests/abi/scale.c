// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: what the calls cost in an arena of 1 TiB beside many clients and pages, against few,
 * in instructions. Needs a guest whose clock counts them: scripts/vm --icount, and COUNTED=1.
 */
#include "selftest.h"
#include "sharing.h"

#define ARENA_BYTES (1ULL << 40)
#define NR_CLIENTS_MAX 1000
#define NR_TURNS 200
#define NR_LISTED 64

enum cost { OPEN, GRANT, FREE, LIST, CLOSE, NR_COSTS };

static const char *const names[NR_COSTS] = { "open", "grant", "free", "list by entry", "close" };

/* Each page in a segment of its own: a slice is all the memory that it costs. */
static int grant_sparse(int fd, uint64_t *offset)
{
	struct xalloc_page_grant page = { .nr_slices = 1, .align_slices = SEGMENT_SLICES };
	int rc = grant_batch(fd, &page, 1);

	*offset = page.offset;
	return rc;
}

/* Instructions of each call beside so many clients and pages, in the mean of many turns. */
static void measure(struct __test_metadata *_metadata, int device, unsigned int nr_clients,
		    unsigned int nr_pages, uint64_t costs[NR_COSTS])
{
	static struct xalloc_page_info infos[NR_LISTED];
	static int clients[NR_CLIENTS_MAX];
	int arena = arena_create_by(device, ARENA_BYTES, XALLOC_POLICY_SMALL, -1), fd;
	uint64_t offset, marks[NR_COSTS];
	unsigned int i, turn;

	ASSERT_LE(0, arena);
	for (i = 0; i < nr_clients; i++) {
		clients[i] = attach(arena, 0, NULL);
		ASSERT_LE(0, clients[i]);
	}
	for (i = 0; i < nr_pages; i++)
		ASSERT_EQ(1, grant_sparse(clients[i % nr_clients], &offset));
	memset(costs, 0, NR_COSTS * sizeof(*costs));
	for (turn = 0; turn < NR_TURNS; turn++) {
		marks[OPEN] = now_ns();
		fd = attach(arena, 0, NULL);
		marks[GRANT] = now_ns();
		ASSERT_EQ(1, grant_sparse(fd, &offset));
		marks[FREE] = now_ns();
		ASSERT_EQ(1, free_page(fd, offset));
		marks[LIST] = now_ns();
		offset = XALLOC_SEGMENT_BYTES * (turn % (nr_pages - NR_LISTED));
		ASSERT_EQ(NR_LISTED, list_some(arena, 0, 0, &offset, infos, NR_LISTED));
		marks[CLOSE] = now_ns();
		for (i = OPEN; i < CLOSE; i++)
			costs[i] += marks[i + 1] - marks[i];
		/* With a page, which goes, too. */
		ASSERT_EQ(1, grant_sparse(fd, &offset));
		marks[CLOSE] = now_ns();
		close(fd);
		costs[CLOSE] += now_ns() - marks[CLOSE];
	}
	for (i = 0; i < NR_COSTS; i++)
		costs[i] /= NR_TURNS;
	costs[LIST] /= NR_LISTED;
	for (i = 0; i < nr_clients; i++)
		close(clients[i]);
	close(arena);
}

TEST(many_cost_no_more_than_few)
{
	unsigned int nr_pages = is_long_run() ? 100000 : 10000, i;
	uint64_t few[NR_COSTS], many[NR_COSTS];
	struct rlimit limit = { 2 * NR_CLIENTS_MAX, 2 * NR_CLIENTS_MAX };
	struct xalloc_ioc_stat before;
	int device;

	if (!getenv("COUNTED"))
		SKIP(return, "counts instructions: see the head of its source");
	device = device_setup(_metadata, &before);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	ASSERT_TRUE(total_raise());
	measure(_metadata, device, 10, 100, few);
	measure(_metadata, device, NR_CLIENTS_MAX, nr_pages, many);
	for (i = 0; i < NR_COSTS; i++) {
		TH_LOG("%s: %ju instructions beside 10 clients and 100 pages, %ju beside %u and %u",
		       names[i], few[i], many[i], NR_CLIENTS_MAX, nr_pages);
		EXPECT_LE(many[i], 2 * few[i]);
	}
	EXPECT_TRUE(total_restore());
	counters_expect(_metadata, device, &before);
	close(device);
}

TEST_HARNESS_MAIN
