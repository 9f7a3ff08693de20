// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: libxalloc takes addresses and private memory by use, whatever the limit of the
 * default heap, and however many arenas there are.
 */
#include "libtest.h"
#include "selftest.h"

LIBTEST_FIXTURE(lib_addresses, "64M")

static int first_block(void *limit)
{
	size_t size, data;

	if (limit)
		setenv("XALLOC_LIMIT", limit, 1);
	else
		unsetenv("XALLOC_LIMIT");
	size = status_bytes("VmSize");
	data = status_bytes("VmData");
	CHECK(xalloc_malloc(100));
	size = status_bytes("VmSize") - size;
	data = status_bytes("VmData") - data;
	fprintf(stderr, "%zu KiB of addresses, %zu of private memory\n", size >> 10, data >> 10);
	CHECK(size <= 64 * MIB);
	CHECK(data <= 4 * MIB);
	return 0;
}

TEST_F(lib_addresses, the_first_block_takes_few)
{
	static const char *const limits[] = { NULL, "64M", "16G" };
	char text[1024];
	size_t i;

	SKIP_SANITIZED("maps memory of its own");
	for (i = 0; i < ARRAY_SIZE(limits); i++) {
		EXPECT_EQ(0, run_child(first_block, (void *)limits[i], text, sizeof(text))) {
			TH_LOG("XALLOC_LIMIT=%s: %s", limits[i] ?: "", text);
		}
	}
}

TEST_F(lib_addresses, a_thousand_arenas_of_a_gib_come_and_go)
{
	struct xalloc_arena_config config = { .size = sizeof(config), .arena_bytes = 1UL << 30 };
	/* The addresses of UML end at 511 GiB. */
	unsigned int nr, nr_arenas = is_thp_kernel() ? turns(1000) : 300, round;
	struct rlimit files = { 4096, 4096 };
	struct xalloc_arena *arenas[1000];
	size_t before, after;
	char *ptr;

	SKIP_SANITIZED("has too few addresses");
	if (is_local() && meminfo_kb("MemAvailable") < 4096 << 10)
		SKIP(return, "the blocks of 1000 arenas may take 2 GiB");
	/* 64 MiB in all instead of 2 GiB. */
	if (!is_local()) {
		config.pages = XALLOC_PAGES_SMALL;
		ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &files));
	}
	before = status_bytes("VmSize");
	for (round = 0; round < 2; round++) {
		for (nr = 0; nr < nr_arenas; nr++) {
			arenas[nr] = xalloc_arena_create(&config);
			ASSERT_NE(NULL, arenas[nr]) {
				TH_LOG("arena %u: %s", nr, strerror(errno));
			}
			ptr = xalloc_heap_malloc(xalloc_heap_create(arenas[nr]), 100);
			ASSERT_NE(NULL, ptr) {
				TH_LOG("block of arena %u: %s", nr, strerror(errno));
			}
			*ptr = 1;
		}
		while (nr--)
			ASSERT_EQ(0, xalloc_arena_destroy(arenas[nr]));
	}
	after = status_bytes("VmSize");
	TH_LOG("%zu KiB of addresses before, %zu after", before >> 10, after >> 10);
	EXPECT_GE(before + 64 * MIB, after);
}

static int limit_is_100g(void *arg)
{
	(void)arg;
	setenv("XALLOC_LIMIT", "100G", 1);
	CHECK(xalloc_malloc(100));
	fprintf(stderr, "%" PRIu64 " GiB\n", stats_of(xalloc_arena_default()).limit_bytes >> 30);
	CHECK(stats_of(xalloc_arena_default()).limit_bytes == 100UL << 30);
	return 0;
}

static int limit_cannot_be(void *arg)
{
	(void)arg;
	setenv("XALLOC_LIMIT", "8388607T", 1);
	CHECK(!xalloc_malloc(100));
	CHECK(!xalloc_arena_default());
	return 0;
}

TEST_F(lib_addresses, a_large_limit_is_honoured_or_refused)
{
	char text[1024];

	/* ThreadSanitizer leaves 512 GiB of addresses. */
	if (!IS_SANITIZED) {
		EXPECT_EQ(0, run_child(limit_is_100g, NULL, text, sizeof(text))) {
			TH_LOG("%s", text);
		}
	}
	EXPECT_EQ(0, run_child(limit_cannot_be, NULL, text, sizeof(text)));
	TH_LOG("%s", text);
	EXPECT_NE(NULL, strstr(text, "XALLOC_LIMIT"));
	EXPECT_EQ(text + strlen(text) - 1, strchr(text, '\n'));
}

TEST_HARNESS_MAIN
