// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: the preload library in a program that calls malloc(), forks and closes descriptors
 * that it does not know.
 *
 * Each test runs this program once more with the library preloaded. Which case it is to be is in
 * its environment, and is seen before main().
 */
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>

#include "libtest.h"

#define CASE "XALLOC_TEST_CASE"
#define NR_FDS 1024

LIBTEST_FIXTURE(lib_preload, "256M")

/* Whether it is a block of libxalloc. */
static bool is_block(const void *ptr)
{
	struct xalloc_block_handle handle;

	return xalloc_handle(ptr, &handle) == 0;
}

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

/* --- fork */

#define NR_BLOCKS 400

static void *blocks[NR_BLOCKS];

/* A mix that has small blocks, medium ones and large ones. */
static size_t bytes_of(unsigned int i)
{
	return i % 40 == 39 ? 300000 + i : 1 + i * i % 9000;
}

static int fill_blocks(uint64_t seed)
{
	unsigned int i;

	for (i = 0; i < NR_BLOCKS; i++) {
		blocks[i] = malloc(bytes_of(i));
		CHECK(blocks[i]);
		bytes_fill(blocks[i], bytes_of(i), seed + i);
	}
	return 0;
}

static int expect_blocks(uint64_t seed)
{
	unsigned int i;

	for (i = 0; i < NR_BLOCKS; i++)
		CHECK(is_block(blocks[i]) && bytes_same(blocks[i], bytes_of(i), seed + i));
	return 0;
}

static int replace_blocks(uint64_t seed)
{
	unsigned int i;

	for (i = 0; i < NR_BLOCKS; i++)
		free(blocks[i]);
	return fill_blocks(seed);
}

/* Calls @run with the number of this generation, 1 for a child of the first. */
static int forks(int (*run)(unsigned int generation), unsigned int generation)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (!pid)
		_exit(run(generation));
	return child_status(pid);
}

static int generation_goes_on(unsigned int generation)
{
	CHECK(!expect_blocks(1000 * (generation - 1)));
	CHECK(!replace_blocks(1000 * generation));
	if (generation < 4)
		CHECK(!forks(generation_goes_on, generation + 1));
	CHECK(!expect_blocks(1000 * generation));
	CHECK(!replace_blocks(7));
	return 0;
}

static int fork_keeps_blocks(void)
{
	CHECK(!fill_blocks(0));
	CHECK(!forks(generation_goes_on, 1));
	CHECK(!expect_blocks(0));
	CHECK(!replace_blocks(5));
	return expect_blocks(5);
}

/* Threads that allocate, and free each other's blocks, while the process forks. */

#define NR_THREADS 3
#define NR_SHARED 512

static void *_Atomic shared[NR_SHARED];
static atomic_bool stop;

static void *churn(void *arg)
{
	unsigned int seed = (uintptr_t)arg;

	while (!atomic_load(&stop)) {
		unsigned int r = rand_r(&seed);
		size_t bytes = r % 64 ? 1 + r % 3000 : 100000;
		char *ptr = malloc(bytes), *old;

		if (!ptr)
			abort();
		ptr[0] = 1;
		ptr[bytes - 1] = 1;
		old = atomic_exchange(&shared[rand_r(&seed) % NR_SHARED], ptr);
		free(old);
	}
	return NULL;
}

/* The threads are not in the child; their blocks are, and what they had cached is free. */
static int child_of_threads(unsigned int round)
{
	struct xalloc_arena *arena = xalloc_arena_default();
	struct xalloc_arena_stat stat;
	unsigned int i;

	CHECK(!expect_blocks(3));
	CHECK(!replace_blocks(4 + round));
	CHECK(!expect_blocks(4 + round));
	for (i = 0; i < NR_SHARED; i++)
		free(atomic_load(&shared[i]));
	for (i = 0; i < NR_BLOCKS; i++)
		free(blocks[i]);
	/* What stdio and the threads' stacks have, and what the threads had in hand. */
	stat = stats_of(arena);
	CHECK(stat.nr_blocks < 64 && stat.used_bytes < 1 << 20);
	/* None of it is still in the caches of threads that are not there. */
	CHECK(!xalloc_arena_trim(arena));
	stat = stats_of(arena);
	CHECK(stat.granted_bytes < 8 << 20);
	return 0;
}

static int fork_beside_threads(void)
{
	unsigned int i, nr_rounds = is_long_run() ? 1000 : is_local() ? 40 : 12;
	pthread_t threads[NR_THREADS];

	CHECK(!fill_blocks(3));
	for (i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_create(&threads[i], NULL, churn, (void *)(uintptr_t)(i + 1)));
	for (i = 0; i < nr_rounds; i++)
		CHECK(!forks(child_of_threads, i));
	atomic_store(&stop, true);
	for (i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_join(threads[i], NULL));
	return expect_blocks(3);
}

/* Its child could not have the copy: the limit is for both. */
static int fork_without_memory(void)
{
	unsigned char *ptr = malloc(10 << 20);
	pid_t pid;

	CHECK(ptr);
	bytes_fill(ptr, 10 << 20, 1);
	errno = 0;
	pid = fork();
	if (!pid)
		_exit(0);
	CHECK(pid == -1 && errno == ENOMEM);
	CHECK(bytes_same(ptr, 10 << 20, 1));
	free(ptr);
	pid = fork();
	if (!pid)
		_exit(malloc(100) ? 0 : 1);
	CHECK(pid > 0);
	return child_status(pid);
}

/* Threads that hold locks of stdio while they allocate. */

static void *flush_all(void *arg)
{
	while (!atomic_load(&stop))
		fflush(NULL);
	return arg;
}

static void *read_lines(void *arg)
{
	FILE *file = fopen("/proc/self/maps", "r");
	char *line;
	size_t size;

	while (file && !atomic_load(&stop)) {
		line = NULL;
		size = 0;
		if (getline(&line, &size, file) < 0)
			rewind(file);
		free(line);
	}
	return arg;
}

static int child_of_readers(unsigned int round)
{
	FILE *file = fopen("/dev/null", "w");

	CHECK(file && fprintf(file, "%u\n", round) > 0 && fflush(NULL) == 0 && fclose(file) == 0);
	return 0;
}

/* Seconds. Who gets a lock of stdio is luck, and the machine may be slow. */
static unsigned int patience(void)
{
	return is_long_run() ? 1000 : 200;
}

static int fork_beside_stdio(void)
{
	unsigned int i, nr_rounds = is_long_run() ? 2000 : is_local() ? 200 : 20;
	pthread_t flushes, reads;

	alarm(patience());
	CHECK(!pthread_create(&flushes, NULL, flush_all, NULL));
	CHECK(!pthread_create(&reads, NULL, read_lines, NULL));
	for (i = 0; i < nr_rounds; i++)
		CHECK(!forks(child_of_readers, i));
	atomic_store(&stop, true);
	CHECK(!pthread_join(flushes, NULL) && !pthread_join(reads, NULL));
	return 0;
}

/* Handlers of the program, registered before it has allocated anything. */

static void *_Atomic of_handler;

static void allocate_in_handler(void)
{
	free(atomic_exchange(&of_handler, malloc(100000)));
}

static void *wait_for_stop(void *arg)
{
	while (!atomic_load(&stop))
		usleep(1000);
	return arg;
}

static int handlers_allocate(void)
{
	pthread_t thread;
	int i;

	alarm(patience());
	CHECK(!pthread_atfork(allocate_in_handler, allocate_in_handler, allocate_in_handler));
	for (i = 0; i < 2; i++) {
		CHECK(!forks(child_of_readers, 1));
		if (!i)
			CHECK(!pthread_create(&thread, NULL, wait_for_stop, NULL));
	}
	atomic_store(&stop, true);
	return pthread_join(thread, NULL);
}

/* In a program with one thread, as what starts a debugger or other children would. */

static atomic_uint nr_forks, nr_failed;

static void fork_in_handler(int sig)
{
	pid_t pid = fork();

	(void)sig;
	if (!pid)
		_exit(0);
	atomic_fetch_add(&nr_forks, 1);
	if (pid < 0 || child_status(pid))
		atomic_fetch_add(&nr_failed, 1);
}

static int fork_in_signal_handler(void)
{
	struct sigaction action = { .sa_handler = fork_in_handler, .sa_flags = SA_RESTART };
	struct itimerval timer = { .it_interval.tv_usec = 3000, .it_value.tv_usec = 3000 };
	unsigned int nr_rounds = is_long_run() ? 3000 : is_local() ? 200 : 40;
	uint64_t seed = 0;

	alarm(patience());
	CHECK(!fill_blocks(seed));
	CHECK(!sigaction(SIGVTALRM, &action, NULL));
	CHECK(!setitimer(ITIMER_VIRTUAL, &timer, NULL));
	while (atomic_load(&nr_forks) < nr_rounds) {
		CHECK(!expect_blocks(seed));
		CHECK(!replace_blocks(++seed));
	}
	timer = (struct itimerval){ 0 };
	CHECK(!setitimer(ITIMER_VIRTUAL, &timer, NULL));
	CHECK(atomic_load(&nr_failed) == 0);
	return expect_blocks(seed);
}

/* None of the handlers of pthread_atfork() is called. */
static int fork_without_handlers(void)
{
	unsigned int i;
	pid_t pid;

	CHECK(!fill_blocks(1));
	for (i = 0; i < 3; i++) {
		pid = _Fork();
		CHECK(pid >= 0);
		if (!pid)
			_exit(expect_blocks(1) || replace_blocks(2) || expect_blocks(2));
		CHECK(!child_status(pid));
	}
	return expect_blocks(1);
}

/* While another thread is in a chunk hook, or from one. */

#define CHUNK_BYTES (2 << 20)

static struct xalloc_arena *hooked;
static struct xalloc_heap *hooked_heap;
static bool hook_stops, hook_forks; /* the next one */
static sem_t stopped, go;
static pid_t child_of_hook = -1;

static void in_hook(void)
{
	if (hook_forks) {
		hook_forks = false;
		child_of_hook = fork();
	}
	if (hook_stops) {
		hook_stops = false;
		sem_post(&stopped);
		sem_wait(&go);
	}
}

static int on_add(void *ctx, void *address, size_t bytes)
{
	(void)ctx;
	(void)address;
	(void)bytes;
	in_hook();
	return 0;
}

static void on_remove(void *ctx, void *address, size_t bytes)
{
	on_add(ctx, address, bytes);
}

static void *allocate_hooked(void *arg)
{
	if (arg)
		atomic_store((atomic_int *)arg, gettid());
	return xalloc_heap_malloc(hooked_heap, CHUNK_BYTES);
}

static void *trim_hooked(void *arg)
{
	xalloc_arena_trim(hooked);
	return arg;
}

/* So many there are, and the next one is refused without a wait for threads that are not there. */
static int allocate_chunks(unsigned int nr)
{
	alarm(60);
	for (; nr; nr--)
		CHECK(xalloc_heap_malloc(hooked_heap, CHUNK_BYTES));
	CHECK(!xalloc_heap_malloc(hooked_heap, CHUNK_BYTES) && errno == ENOMEM);
	return 0;
}

/* A thread adds the last chunk and another one waits for it: here, and in a child meanwhile. */
static int wait_for_last_chunk(unsigned int generation)
{
	pthread_t adds, waits;
	atomic_int tid = 0;
	void *ptr, *none;

	alarm(60);
	hook_stops = true;
	CHECK(!pthread_create(&adds, NULL, allocate_hooked, NULL) && !sem_wait(&stopped));
	CHECK(!pthread_create(&waits, NULL, allocate_hooked, &tid));
	wait_until_asleep(&tid);
	if (!generation)
		CHECK(!forks(wait_for_last_chunk, 1));
	CHECK(!sem_post(&go));
	CHECK(!pthread_join(adds, &ptr) && !pthread_join(waits, &none));
	CHECK(!!ptr + !!none == 1);
	xalloc_free(ptr ?: none);
	return 0;
}

static int fork_beside_hook(void)
{
	struct xalloc_arena_config config = {
		.size = sizeof(config),
		.arena_bytes = 8 * CHUNK_BYTES,
		.limit_bytes = (is_local() ? 2 : 4) * CHUNK_BYTES,
		.chunk_bytes = CHUNK_BYTES,
	};
	/* What one chunk of the parent leaves: on the device the limit is for both. */
	unsigned int nr = is_local() ? 2 : 3;
	pthread_t thread;
	void *ptr, *other;

	alarm(60);
	CHECK(!sem_init(&stopped, 0, 0) && !sem_init(&go, 0, 0));
	hooked = xalloc_arena_create(&config);
	CHECK(hooked);
	hooked_heap = xalloc_heap_create(hooked);
	CHECK(hooked_heap && !xalloc_set_chunk_hook(hooked, on_add, on_remove, NULL));

	hook_stops = true;
	CHECK(!pthread_create(&thread, NULL, allocate_hooked, NULL) && !sem_wait(&stopped));
	CHECK(!forks(allocate_chunks, nr));
	CHECK(!sem_post(&go) && !pthread_join(thread, &ptr) && ptr);

	/* On the device there must be room for copies, so nobody would wait. */
	CHECK(!is_local() || !wait_for_last_chunk(0));

	xalloc_free(ptr);
	CHECK(!xalloc_arena_trim(hooked));
	ptr = xalloc_heap_malloc(hooked_heap, CHUNK_BYTES);
	CHECK(ptr);
	xalloc_free(ptr);
	hook_stops = true;
	CHECK(!pthread_create(&thread, NULL, trim_hooked, NULL) && !sem_wait(&stopped));
	CHECK(!forks(allocate_chunks, nr));
	CHECK(!sem_post(&go) && !pthread_join(thread, NULL));

	/* What the forking thread adds is added in the child too. */
	hook_stops = true;
	CHECK(!pthread_create(&thread, NULL, allocate_hooked, NULL) && !sem_wait(&stopped));
	hook_forks = true;
	ptr = xalloc_heap_malloc(hooked_heap, CHUNK_BYTES);
	CHECK(ptr);
	memset(ptr, 1, CHUNK_BYTES);
	if (!child_of_hook)
		_exit(allocate_chunks(1));
	CHECK(child_of_hook > 0 && !child_status(child_of_hook));
	CHECK(!sem_post(&go) && !pthread_join(thread, &other) && other && other != ptr);
	return !bytes_are(ptr, CHUNK_BYTES, 1);
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

static const struct {
	const char *name;
	int (*run)(void);
} cases[] = {
	{ "each_call", each_call },
	{ "first_call_is_refused", first_call_is_refused },
	{ "first_call_with_many_keys", first_call_with_many_keys },
	{ "fork_keeps_blocks", fork_keeps_blocks },
	{ "fork_beside_threads", fork_beside_threads },
	{ "fork_without_memory", fork_without_memory },
	{ "fork_beside_stdio", fork_beside_stdio },
	{ "handlers_allocate", handlers_allocate },
	{ "fork_in_signal_handler", fork_in_signal_handler },
	{ "fork_without_handlers", fork_without_handlers },
	{ "fork_beside_hook", fork_beside_hook },
	{ "closed_descriptors", closed_descriptors },
	{ "closed_descriptors_of_two", closed_descriptors_of_two },
	{ "high_descriptors", high_descriptors },
};

static __attribute__((constructor)) void be_preloaded(void)
{
	const char *name = getenv(CASE);
	size_t i;

	for (i = 0; name && i < ARRAY_SIZE(cases); i++) {
		if (strcmp(name, cases[i].name))
			continue;
		/* In the program itself: what it starts is as it is. */
		unsetenv(CASE);
		_exit(cases[i].run());
	}
}

static int library_path(char *path, size_t size)
{
	ssize_t len = readlink("/proc/self/exe", path, size - 64);

	CHECK(len > 0);
	path[len] = 0;
	strcpy(strrchr(path, '/'), "/../lib/libxalloc-preload.so");
	CHECK(access(path, R_OK) == 0);
	return 0;
}

/* For run_child(). */
static int exec_preloaded(void *arg)
{
	char path[4096];

	CHECK(!library_path(path, sizeof(path)));
	setenv("LD_PRELOAD", path, 1);
	setenv(CASE, arg, 1);
	/* What the runner has left open is not the library's. */
	closefrom(3);
	execl("/proc/self/exe", "lib_preload", NULL);
	return 1;
}

#define EXPECT_CASE(name) \
	do { \
		char text[4096]; \
\
		EXPECT_EQ(0, run_child(exec_preloaded, name, text, sizeof(text))) \
		{ \
			TH_LOG("%s", text); \
		} \
	} while (0)

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

TEST_F(lib_preload, a_child_goes_on_with_its_parents_blocks)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("fork_keeps_blocks");
}

TEST_F(lib_preload, fork_beside_threads_that_allocate)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("fork_beside_threads");
}

TEST_F_TIMEOUT(lib_preload, fork_beside_threads_in_stdio, TEST_TIMEOUT_LONG)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("fork_beside_stdio");
}

TEST_F_TIMEOUT(lib_preload, handlers_of_fork_may_allocate, TEST_TIMEOUT_LONG)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("handlers_allocate");
}

TEST_F_TIMEOUT(lib_preload, fork_in_a_signal_handler, TEST_TIMEOUT_LONG)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("fork_in_signal_handler");
}

TEST_F(lib_preload, fork_without_handlers)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("fork_without_handlers");
}

TEST_F(lib_preload, fork_beside_a_chunk_hook)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("fork_beside_hook");
}

TEST_F(lib_preload, fork_is_refused_where_there_is_no_memory_for_the_copy)
{
	SKIP_SANITIZED("has a malloc of its own");
	SKIP_LOCAL("has its memory copied when it is written to");
	setenv("XALLOC_LIMIT", "16M", 1);
	EXPECT_CASE("fork_without_memory");
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
