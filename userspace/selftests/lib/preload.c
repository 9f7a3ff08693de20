// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: the preload library in a program that calls malloc(), and closes descriptors that
 * it does not know.
 */
#include <malloc.h>
#include <pthread.h>

#include "preload.h"
#include "selftest.h"

#define NR_FDS 1024

LIBTEST_FIXTURE(lib_preload, "256M")

static bool gives_blocks(void)
{
	/* Through a pointer, for the compiler knows the call. */
	void *(*volatile allocate)(size_t) = malloc;
	void *ptr = allocate(1);
	bool is = ptr && is_block(ptr);

	free(ptr);
	return is;
}

static int each_call(void)
{
	void *ptr, *old;

	/* Through pointers, for the compiler knows these calls. */
	void *(*volatile allocate)(size_t) = malloc;
	void *(*volatile resize)(void *, size_t) = realloc;
	volatile size_t most = SIZE_MAX;

	ptr = allocate(100);
	CHECK(is_block(ptr) && malloc_usable_size(ptr) >= 100);
	old = resize(ptr, 1 << 20);
	CHECK(is_block(old) && malloc_usable_size(old) >= 1 << 20);
	CHECK(!resize(old, 0));
	CHECK(is_block(resize(NULL, 1)));
	ptr = calloc(1000, 1000);
	CHECK(is_block(ptr) && bytes_zero(ptr, 1000000));
	errno = 0;
	CHECK(!calloc(most / 2, 3) && errno == ENOMEM);
	errno = 0;
	CHECK(!reallocarray(NULL, most / 2, 3) && errno == ENOMEM);
	CHECK(is_block(reallocarray(ptr, 10, 10)));

	errno = 77;
	CHECK(posix_memalign(&ptr, 4, 100) == EINVAL && posix_memalign(&ptr, 24, 100) == EINVAL);
	CHECK(posix_memalign(&ptr, 4096, 100) == 0 && is_block(ptr) && (uintptr_t)ptr % 4096 == 0);
	CHECK(posix_memalign(&ptr, 16, most / 2) == ENOMEM && errno == 77);
	CHECK(posix_memalign(&ptr, 0, 100) == EINVAL);
	CHECK(is_block(memalign(1 << 21, 10)) && is_block(aligned_alloc(64, 64)));
	/* Rounded up, as glibc does. */
	ptr = memalign(3000, 10);
	CHECK(is_block(ptr) && (uintptr_t)ptr % 4096 == 0);
	CHECK(is_block(memalign(0, 10)) && is_block(aligned_alloc(24, 10)));
	errno = 0;
	CHECK(!memalign(most - 1, 1) && errno == EINVAL);
	CHECK(is_block(valloc(1)) && malloc_usable_size(pvalloc(1)) >= 4096);
	errno = 0;
	CHECK(!pvalloc(most) && errno == ENOMEM);
	CHECK(!allocate(most) && errno == ENOMEM);
	/* Those that libc makes itself. */
	CHECK(is_block(strdup("text")));
	free(NULL);
	return 0;
}

static int first_call_is_refused(void)
{
	volatile size_t most = SIZE_MAX;

	errno = 0;
	CHECK(!calloc(most, 2) && errno == ENOMEM);
	CHECK(gives_blocks());
	return 0;
}

/* With so many, libc allocates when a thread sets the value of the next. */
static int first_call_with_many_keys(void)
{
	pthread_key_t key;
	int i;

	for (i = 0; i < 40; i++)
		CHECK(!pthread_key_create(&key, NULL));
	CHECK(gives_blocks());
	return 0;
}

/* --- descriptors */

static int grow_and_shrink(uint64_t seed)
{
	unsigned char *ptr = malloc(20 << 20);

	CHECK(ptr);
	bytes_fill(ptr, 20 << 20, seed);
	CHECK(!replace_blocks(seed));
	CHECK(!expect_blocks(seed));
	CHECK(bytes_same(ptr, 20 << 20, seed));
	free(ptr);
	return 0;
}

static int child_grows(unsigned int generation)
{
	CHECK(!expect_blocks(2));
	return grow_and_shrink(generation);
}

static int child_that_closed_grows(unsigned int generation)
{
	closefrom(3);
	return child_grows(generation);
}

/* In the place of each closed descriptor another file, which must be there afterwards. */
static int reuse_all(int *nr)
{
	int fd;

	closefrom(3);
	for (*nr = 3; *nr < NR_FDS; (*nr)++) {
		fd = open("/dev/null", O_RDONLY);
		if (fd < 0)
			break;
		CHECK(fd == *nr);
	}
	return 0;
}

static int all_are_open(int nr)
{
	int fd;

	for (fd = 3; fd < nr; fd++)
		CHECK(fcntl(fd, F_GETFD) == 0);
	return 0;
}

static int closed_descriptors(void)
{
	unsigned char *ptr = malloc(30 << 20);
	int nr, i;

	CHECK(ptr && !fill_blocks(1));
	for (i = 0; i < 3; i++) {
		closefrom(3);
		CHECK(!grow_and_shrink(2));
	}
	/* What was granted before goes back to the kernel all the same. */
	free(ptr);
	CHECK(!grow_and_shrink(2));
	CHECK(!forks(child_grows, 1));
	CHECK(!forks(child_that_closed_grows, 1));
	CHECK(!expect_blocks(2));

	CHECK(!reuse_all(&nr));
	/* The library needs two: the device, through which it comes to its arena again. */
	close(--nr);
	close(--nr);
	CHECK(!grow_and_shrink(3));
	CHECK(!all_are_open(nr));
	CHECK(!expect_blocks(3));
	return 0;
}

/* One arena comes to its memory again by a descriptor that had been the other's. */
static int closed_descriptors_of_two(void)
{
	struct xalloc_arena *arenas[2];
	struct xalloc_heap *heaps[2];
	uint64_t used[2];
	char *ptrs[2];
	int i, round;

	for (i = 0; i < 2; i++) {
		arenas[i] = arena_of(64 << 20, 0);
		CHECK(arenas[i]);
		heaps[i] = xalloc_heap_create(arenas[i]);
		CHECK(heaps[i]);
	}
	for (round = 0; round < 4; round++) {
		closefrom(3);
		for (i = 0; i < 2; i++) {
			/* The other way round each time. */
			int nr = i ^ (round % 2 == 0);

			used[nr] = stats_of(arenas[nr]).granted_bytes;
			ptrs[nr] = xalloc_heap_malloc(heaps[nr], 10 << 20);
			CHECK(ptrs[nr]);
			memset(ptrs[nr], nr + 1, 10 << 20);
		}
		for (i = 0; i < 2; i++) {
			CHECK(stats_of(arenas[i]).granted_bytes >= used[i] + (10 << 20));
			CHECK(stats_of(arenas[i]).granted_bytes <= used[i] + (11 << 20));
			CHECK(ptrs[i][0] == i + 1 && ptrs[i][(10 << 20) - 1] == i + 1);
		}
		for (i = 0; i < 2; i++)
			xalloc_free(ptrs[i]);
		for (i = 0; i < 2; i++)
			CHECK(!xalloc_arena_trim(arenas[i]));
	}
	return 0;
}

/* Descriptors of the library are close-on-exec, and none that programs count on is taken. */
static int high_descriptors(void)
{
	int fd = open("/dev/null", O_RDONLY), library;

	CHECK(fd == 3);
	library = xalloc_arena_fd(xalloc_arena_default());
	CHECK(library == -EOPNOTSUPP || library > 100);
	CHECK(library < 0 || fcntl(library, F_GETFD) == FD_CLOEXEC);
	return 0;
}

static const struct preload_case cases[] = {
	{ "each_call", each_call },
	{ "first_call_is_refused", first_call_is_refused },
	{ "first_call_with_many_keys", first_call_with_many_keys },
	{ "closed_descriptors", closed_descriptors },
	{ "closed_descriptors_of_two", closed_descriptors_of_two },
	{ "high_descriptors", high_descriptors },
};

static __attribute__((constructor)) void start(void)
{
	be_preloaded(cases, ARRAY_SIZE(cases));
}

TEST_F(lib_preload, each_call_of_libc)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("each_call");
}

TEST_F(lib_preload, the_first_call_may_be_refused)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("first_call_is_refused");
}

TEST_F(lib_preload, the_first_call_with_many_keys)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("first_call_with_many_keys");
}

TEST_F(lib_preload, descriptors_may_be_closed_and_used_for_others)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("closed_descriptors");
}

TEST_F(lib_preload, descriptors_of_two_arenas_may_be_closed)
{
	SKIP_SANITIZED("has a malloc of its own");
	SKIP_LOCAL("has no descriptors");
	EXPECT_CASE("closed_descriptors_of_two");
}

TEST_F(lib_preload, its_descriptors_are_out_of_the_way)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("high_descriptors");
}

static int exec_without_device(void *arg)
{
	char path[4096];
	int fd;

	setenv("XALLOC_BACKEND", "device", 1);
	/* Open, as another user may not come to where it is, nor to what this program needs. */
	CHECK(!library_path(path, sizeof(path)));
	fd = open(path, O_RDONLY);
	CHECK(fd >= 0);
	if (!geteuid() && setresuid(65534, 65534, 65534))
		return 1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	setenv("LD_PRELOAD", path, 1);
	execl("/bin/sh", "sh", "-c", arg, NULL);
	return 1;
}

TEST_F(lib_preload, without_a_device_it_is_one_line_and_status_127)
{
	char text[4096];

	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_EQ(127, run_child(exec_without_device, "exit 0", text, sizeof(text)));
	EXPECT_NE(NULL, strstr(text, "/dev/xalloc"));
	EXPECT_NE(NULL, strstr(text, "XALLOC_BACKEND=local"));
	EXPECT_EQ(text + strlen(text) - 1, strchr(text, '\n'))
	{
		TH_LOG("%s", text);
	}
}

TEST_HARNESS_MAIN
