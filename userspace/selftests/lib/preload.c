// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: the preload library in a program that calls malloc(), and closes descriptors that
 * it does not know.
 */
#include <dlfcn.h>
#include <limits.h>
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

/* --- the other calls of glibc's malloc */

/* What one name allocates another may free. */
static int other_names(void)
{
	/* Only old programs are linked with it. */
	void (*cfree)(void *ptr) = (void (*)(void *ptr))dlsym(RTLD_DEFAULT, "cfree");
	void *ptr = __libc_malloc(100);

	CHECK(ptr && is_block(ptr));
	free(ptr);
	ptr = __libc_calloc(10, 10);
	CHECK(ptr && is_block(ptr) && bytes_zero(ptr, 100));
	ptr = __libc_realloc(ptr, 10000);
	CHECK(ptr && is_block(ptr));
	free(ptr);
	ptr = __libc_memalign(4096, 10);
	CHECK(ptr && is_block(ptr) && (uintptr_t)ptr % 4096 == 0);
	free(ptr);
	ptr = __libc_valloc(10);
	CHECK(ptr && is_block(ptr) && (uintptr_t)ptr % 4096 == 0);
	free(ptr);
	ptr = __libc_pvalloc(10);
	CHECK(ptr && is_block(ptr) && malloc_usable_size(ptr) >= 4096);
	free(ptr);
	ptr = strdup("text");
	CHECK(ptr);
	__libc_free(ptr);
	ptr = strdup("text");
	CHECK(ptr && cfree);
	cfree(ptr);
	return 0;
}

/* The library of C++ allocates by malloc(), and its sized calls free by free(). */
static int operators_of_cxx(void)
{
	void *cxx = dlopen("libstdc++.so.6", RTLD_NOW);
	void *(*new)(size_t size), *(*new_aligned)(size_t size, size_t alignment);
	void (*delete_sized)(void *ptr, size_t size);
	void (*delete_aligned)(void *ptr, size_t size, size_t alignment);
	size_t size;
	void *ptr;

	if (!cxx)
		return 0;
	new = (void *(*)(size_t))dlsym(cxx, "_Znwm");
	new_aligned = (void *(*)(size_t, size_t))dlsym(cxx, "_ZnwmSt11align_val_t");
	delete_sized = (void (*)(void *, size_t))dlsym(cxx, "_ZdlPvm");
	delete_aligned = (void (*)(void *, size_t, size_t))dlsym(cxx, "_ZdlPvmSt11align_val_t");
	CHECK(new && new_aligned && delete_sized && delete_aligned);
	for (size = 0; size < 300000; size = size * 3 / 2 + 1) {
		ptr = new(size);
		CHECK(ptr && is_block(ptr));
		delete_sized(ptr, size);
		ptr = new_aligned(size, 256);
		CHECK(ptr && is_block(ptr) && (uintptr_t)ptr % 256 == 0);
		delete_aligned(ptr, size, 256);
	}
	return 0;
}

/* Allocates and frees, so that more is kept than a program needs. */
static int leave_much(void)
{
	/* Through a pointer, for the compiler knows the call. */
	void *(*volatile allocate)(size_t) = malloc;
	void *ptrs[100];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ptrs); i++) {
		ptrs[i] = allocate(1 << 20);
		CHECK(ptrs[i]);
	}
	for (i = 0; i < ARRAY_SIZE(ptrs); i++)
		free(ptrs[i]);
	return 0;
}

static int trims(void)
{
	struct xalloc_arena *arena = xalloc_arena_default();
	uint64_t before, after;
	void *live;

	CHECK(!fill_blocks(1));
	/* It keeps no more than is in use, and a little. */
	live = malloc(8 * MIB);
	CHECK(live);
	CHECK(!leave_much());
	before = stats_of(arena).committed_bytes;
	CHECK(malloc_trim(0) == 1);
	after = stats_of(arena).committed_bytes;
	CHECK(after < before);
	/* The blocks have some 2 MiB, and may lie at the ends of others. */
	CHECK(after <= 20 * MIB);
	CHECK(malloc_trim(0) == 0);
	CHECK(stats_of(arena).committed_bytes == after);
	free(live);
	CHECK(!expect_blocks(1));
	return 0;
}

static int information(void)
{
	struct xalloc_arena_stat stat;
	struct mallinfo2 info;
	struct mallinfo old;
	void *ptr;
	/* Through a pointer, for the compiler knows the call. */
	void *(*volatile allocate)(size_t) = malloc;

	CHECK(!leave_much());
	ptr = allocate(10 << 20);
	info = mallinfo2();
	stat = stats_of(xalloc_arena_default());
	CHECK(info.arena == stat.committed_bytes);
	CHECK(info.uordblks == stat.used_bytes && info.uordblks >= 10 << 20);
	CHECK(info.fordblks == stat.committed_bytes - stat.used_bytes);
	CHECK(info.keepcost == stat.committed_bytes - stat.granted_bytes);
	CHECK(!info.hblkhd && !info.usmblks && !info.fsmblks);
	free(ptr);
	CHECK(mallinfo2().uordblks <= info.uordblks - (10 << 20));

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
	old = mallinfo();
#pragma GCC diagnostic pop
	info = mallinfo2();
	CHECK((size_t)old.arena == info.arena && (size_t)old.uordblks == info.uordblks);
	return 0;
}

static int options(void)
{
	static const int known[] = { M_MXFAST, M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD,
				     M_MMAP_MAX, M_CHECK_ACTION, M_PERTURB, M_ARENA_TEST,
				     M_ARENA_MAX };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(known); i++)
		CHECK(mallopt(known[i], 1) == 1 && __libc_mallopt(known[i], 1) == 1);
	CHECK(!mallopt(12345, 1));
	return 0;
}

static int has_number(const char *text, const char *before, uint64_t number)
{
	char expected[128];

	snprintf(expected, sizeof(expected), "%s%llu", before, (unsigned long long)number);
	CHECK(strstr(text, expected));
	return 0;
}

static int information_in_xml(void)
{
	static const char head[] = " <malloc version=\"1\">\n<heap nr=\"0\">\n";
	struct xalloc_arena_stat stat;
	char *text = NULL;
	size_t size = 0;
	FILE *file;

	CHECK(!fill_blocks(1));
	file = open_memstream(&text, &size);
	CHECK(file && malloc_info(1, file) == EINVAL);
	/* The stream has its buffer now. */
	fputs(" ", file);
	fflush(file);
	stat = stats_of(xalloc_arena_default());
	CHECK(!malloc_info(0, file));
	CHECK(!fclose(file));
	CHECK(!strncmp(text, head, strlen(head)));
	CHECK(strstr(text, "</heap>\n") && !strcmp(text + size - 10, "</malloc>\n"));
	CHECK(!has_number(strstr(text, "</heap>"), "<total type=\"rest\" count=\"0\" size=\"",
			  stat.committed_bytes - stat.used_bytes));
	CHECK(!has_number(strstr(text, "</heap>"), "<system type=\"current\" size=\"",
			  stat.committed_bytes));
	free(text);
	return 0;
}

static int statistics(void)
{
	struct xalloc_arena_stat stat;
	char text[4096];
	int pipes[2];
	ssize_t len;

	CHECK(!fill_blocks(1) && !pipe(pipes));
	dup2(pipes[1], STDERR_FILENO);
	malloc_stats();
	stat = stats_of(xalloc_arena_default());
	len = read(pipes[0], text, sizeof(text) - 1);
	dup2(STDOUT_FILENO, STDERR_FILENO);
	CHECK(len > 0);
	text[len] = 0;
	CHECK(strstr(text, "\nsystem bytes     = "));
	CHECK(!has_number(strstr(text, "system bytes"), " ", stat.committed_bytes));
	CHECK(!has_number(strstr(text, "in use bytes"), " ", stat.used_bytes));
	return 0;
}

static int before_the_first_block(void)
{
	struct mallinfo2 info = mallinfo2();

	CHECK(info.arena >= info.uordblks);
	malloc_trim(0);
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

static int forks_in_pieces(void)
{
	pid_t pid;

	CHECK(!fill_blocks(1));
	CHECK(stats_of(xalloc_arena_default()).small_bytes ==
	      stats_of(xalloc_arena_default()).committed_bytes);
	pid = fork();
	if (!pid)
		_exit(expect_blocks(1) || replace_blocks(2) || expect_blocks(2));
	CHECK(child_status(pid) == 0);
	return expect_blocks(1);
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
	{ "other_names", other_names },
	{ "operators_of_cxx", operators_of_cxx },
	{ "trims", trims },
	{ "information", information },
	{ "options", options },
	{ "information_in_xml", information_in_xml },
	{ "statistics", statistics },
	{ "before_the_first_block", before_the_first_block },
	{ "closed_descriptors", closed_descriptors },
	{ "closed_descriptors_of_two", closed_descriptors_of_two },
	{ "forks_in_pieces", forks_in_pieces },
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

TEST_F(lib_preload, names_of_libc_that_mean_the_same)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("other_names");
}

TEST_F(lib_preload, new_and_delete)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("operators_of_cxx");
}

TEST_F(lib_preload, malloc_trim_gives_back)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("trims");
}

TEST_F(lib_preload, mallinfo_has_the_sums_of_the_default_arena)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("information");
}

TEST_F(lib_preload, mallopt_knows_its_parameters)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("options");
}

TEST_F(lib_preload, malloc_info_is_xml)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("information_in_xml");
}

TEST_F(lib_preload, malloc_stats_writes_to_stderr)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("statistics");
}

TEST_F(lib_preload, they_work_before_the_first_block)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("before_the_first_block");
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

TEST_F(lib_preload, with_options_that_cannot_be_it_is_one_line_and_status_127)
{
	char text[4096];

	SKIP_SANITIZED("has a malloc of its own");
	setenv("XALLOC_OPTIONS", is_local() ? "pages=small" : "node=60", 1);
	EXPECT_EQ(127, run_child(exec_preloaded, "each_call", text, sizeof(text)));
	EXPECT_NE(NULL, strstr(text, "XALLOC_OPTIONS"));
	EXPECT_NE(NULL, strstr(text, getenv("XALLOC_OPTIONS")));
	EXPECT_EQ(text + strlen(text) - 1, strchr(text, '\n'))
	{
		TH_LOG("%s", text);
	}
}

TEST_F(lib_preload, a_program_in_pieces_forks)
{
	SKIP_SANITIZED("has a malloc of its own");
	SKIP_LOCAL("has one kind of memory");
	setenv("XALLOC_OPTIONS", "pages=small", 1);
	EXPECT_CASE("forks_in_pieces");
}

TEST_HARNESS_MAIN
