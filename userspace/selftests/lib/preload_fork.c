// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: the preload library in a program that forks: a child goes on with what its parent
 * had, whatever the parent's threads are doing.
 */
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>

#include "preload.h"
#include "selftest.h"

LIBTEST_FIXTURE(lib_preload_fork, "256M")

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
	unsigned int i, nr_rounds = is_long_run() ? 1000 : is_local() ? 40 : 6;
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

static int fork_beside_stdio(void)
{
	unsigned int i, nr_rounds = is_long_run() ? 2000 : is_local() ? 200 : 10;
	pthread_t flushes, reads;

	alarm(CHILD_STUCK_SECONDS);
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

	alarm(CHILD_STUCK_SECONDS);
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

	alarm(CHILD_STUCK_SECONDS);
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

static int added(void *ctx, void *address, size_t bytes, void **cookie)
{
	(void)ctx;
	(void)address;
	(void)bytes;
	(void)cookie;
	in_hook();
	return 0;
}

static void removed(void *ctx, void *address, size_t bytes, void *cookie)
{
	added(ctx, address, bytes, &cookie);
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
	alarm(CHILD_STUCK_SECONDS);
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

	alarm(CHILD_STUCK_SECONDS);
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
	struct xalloc_chunk_hook hook = {
		.size = sizeof(hook),
		.added = added,
		.removed = removed,
	};
	/* What one chunk of the parent leaves: on the device the limit is for both. */
	unsigned int nr = is_local() ? 2 : 3;
	pthread_t thread;
	void *ptr, *other;

	alarm(CHILD_STUCK_SECONDS);
	CHECK(!sem_init(&stopped, 0, 0) && !sem_init(&go, 0, 0));
	hooked = xalloc_arena_create(&config);
	CHECK(hooked);
	hooked_heap = xalloc_heap_create(hooked);
	CHECK(hooked_heap && xalloc_chunk_hook_add(hooked, &hook));

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

static const struct preload_case cases[] = {
	{ "fork_keeps_blocks", fork_keeps_blocks },
	{ "fork_beside_threads", fork_beside_threads },
	{ "fork_without_memory", fork_without_memory },
	{ "fork_beside_stdio", fork_beside_stdio },
	{ "handlers_allocate", handlers_allocate },
	{ "fork_in_signal_handler", fork_in_signal_handler },
	{ "fork_without_handlers", fork_without_handlers },
	{ "fork_beside_hook", fork_beside_hook },
};

static __attribute__((constructor)) void start(void)
{
	be_preloaded(cases, ARRAY_SIZE(cases));
}

TEST_F(lib_preload_fork, a_child_goes_on_with_its_parents_blocks)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("fork_keeps_blocks");
}

TEST_F(lib_preload_fork, fork_beside_threads_that_allocate)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("fork_beside_threads");
}

TEST_F_TIMEOUT(lib_preload_fork, fork_beside_threads_in_stdio, TEST_TIMEOUT_LONG)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("fork_beside_stdio");
}

TEST_F_TIMEOUT(lib_preload_fork, handlers_of_fork_may_allocate, TEST_TIMEOUT_LONG)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("handlers_allocate");
}

TEST_F_TIMEOUT(lib_preload_fork, fork_in_a_signal_handler, TEST_TIMEOUT_LONG)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("fork_in_signal_handler");
}

TEST_F(lib_preload_fork, fork_without_handlers)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("fork_without_handlers");
}

TEST_F(lib_preload_fork, fork_beside_a_chunk_hook)
{
	SKIP_SANITIZED("has a malloc of its own");
	EXPECT_CASE("fork_beside_hook");
}

TEST_F(lib_preload_fork, fork_is_refused_where_there_is_no_memory_for_the_copy)
{
	SKIP_SANITIZED("has a malloc of its own");
	SKIP_LOCAL("has its memory copied when it is written to");
	setenv("XALLOC_LIMIT", "16M", 1);
	EXPECT_CASE("fork_without_memory");
}

TEST_HARNESS_MAIN
