// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: no system call of libxalloc is made with a lock held that another thread's
 * allocation takes: while threads make random calls, and while 2 GiB are allocated and freed.
 *
 * What the library calls in libc comes here first, because symbols of the program come before those
 * of libc. Each thread notes which locks of the library it holds, and which of them it holds when
 * the library makes a system call. To sleep for a lock, or to wake who sleeps, does not count.
 *
 * Two locks are exceptions. With that of the zone memory is mapped: a thread waits for it only to
 * map memory, too, and the kernel has one thread do that at a time. With that of the process memory
 * is taken back when an allocation was refused, or the kernel asks for it. An allocation that is
 * refused waits for it, because there may be enough then; no other takes it.
 */
#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "libtest.h"
#include "selftest.h"

#define NR_HELD 8
#define NR_FRAMES 16
#define NR_KINDS 16

/* Where the code of the library is. */
static uintptr_t library, library_end;

/* The locks of the library that this thread holds, the innermost last. */
static __thread struct {
	const void *locks[NR_HELD];
	const void *takers[NR_HELD]; /* where in the library it was taken */
	unsigned int nr;
} held;

static atomic_bool counts;
static atomic_ulong nr_locks, nr_process_locks, nr_calls, nr_in_zone, nr_in_process, nr_wrong;

/* The locks of the process and of the zone, and whether memory may be taken back. */
static const void *_Atomic process_lock, *_Atomic zone_lock;
static atomic_bool takes_back;

/* What is wrong: each kind once, by where the call is made and where the lock was taken. */
static struct kind {
	const char *call;
	const void *caller, *taker;
	unsigned long nr;
	int nr_frames;
	void *frames[NR_FRAMES];
} kinds[NR_KINDS];

/* A sanitizer has calls of its own in the place of those of libc. */
#if !IS_SANITIZED

static bool is_library(const void *caller)
{
	return (uintptr_t)caller - library < library_end - library;
}

/* The first allocation takes the lock of the process first. */
static void note_lock(const void *lock, const void *caller)
{
	const void *none = NULL;

	if (!is_library(caller))
		return;
	if (held.nr == NR_HELD)
		abort();
	held.locks[held.nr] = lock;
	held.takers[held.nr++] = caller;
	atomic_compare_exchange_strong(&process_lock, &none, lock);
	if (!counts)
		return;
	nr_locks++;
	nr_process_locks += lock == process_lock && !takes_back;
}

/* Whoever calls: a call at the end of a function seems to come from the caller of the function. */
static void note_unlock(const void *lock)
{
	unsigned int i;

	for (i = held.nr; i && held.locks[i - 1] != lock; i--)
		;
	if (!i)
		return;
	held.nr--;
	for (; i <= held.nr; i++) {
		held.locks[i - 1] = held.locks[i];
		held.takers[i - 1] = held.takers[i];
	}
}

static void note_wrong(const char *call, const void *caller, const void *taker)
{
	static atomic_flag busy = ATOMIC_FLAG_INIT;
	size_t i;

	nr_wrong++;
	while (atomic_flag_test_and_set(&busy))
		;
	for (i = 0; i < NR_KINDS - 1 && kinds[i].nr; i++)
		if (kinds[i].caller == caller && kinds[i].taker == taker)
			break;
	if (!kinds[i].nr++) {
		kinds[i].call = call;
		kinds[i].caller = caller;
		kinds[i].taker = taker;
		kinds[i].nr_frames = backtrace(kinds[i].frames, NR_FRAMES);
	}
	atomic_flag_clear(&busy);
}

static void note_call(const char *call, const void *caller)
{
	bool in_zone = false, in_process = false;
	const void *taker = NULL;

	if (!is_library(caller) || !counts)
		return;
	nr_calls++;
	for (unsigned int i = 0; i < held.nr; i++) {
		if (held.locks[i] == zone_lock)
			in_zone = true;
		else if (held.locks[i] == process_lock && takes_back)
			in_process = true;
		else if (!taker)
			taker = held.takers[i];
	}
	nr_in_zone += in_zone;
	nr_in_process += in_process;
	if (taker)
		note_wrong(call, caller, taker);
}

/* --- what the library calls */

#define NEXT(name)									\
	({										\
		static __typeof__(name) *next;						\
											\
		if (!next)								\
			next = (__typeof__(next))dlsym(RTLD_NEXT, #name);		\
		next;									\
	})

#define CALL(type, name, parameters, arguments)						\
	type name parameters								\
	{										\
		note_call(#name, __builtin_return_address(0));				\
		return NEXT(name) arguments;						\
	}

CALL(int, munmap, (void *addr, size_t bytes), (addr, bytes))
CALL(int, madvise, (void *addr, size_t bytes, int advice), (addr, bytes, advice))
CALL(int, fstat, (int fd, struct stat *status), (fd, status))
CALL(int, unlink, (const char *path), (path))
CALL(ssize_t, readlink, (const char *path, char *text, size_t bytes), (path, text, bytes))
CALL(int, getrlimit, (__rlimit_resource_t resource, struct rlimit *limit), (resource, limit))
CALL(long, sysconf, (int name), (name))
CALL(int, backtrace, (void **frames, int nr), (frames, nr))
CALL(void, backtrace_symbols_fd, (void *const *frames, int nr, int fd), (frames, nr, fd))

int ioctl(int fd, unsigned long request, ...)
{
	va_list list;
	void *arg;

	va_start(list, request);
	arg = va_arg(list, void *);
	va_end(list);
	note_call("ioctl", __builtin_return_address(0));
	return NEXT(ioctl)(fd, request, arg);
}

int fcntl(int fd, int command, ...)
{
	va_list list;
	long arg;

	va_start(list, command);
	arg = va_arg(list, long);
	va_end(list);
	note_call("fcntl", __builtin_return_address(0));
	return NEXT(fcntl)(fd, command, arg);
}

long syscall(long number, ...)
{
	long args[6];
	va_list list;

	va_start(list, number);
	for (size_t i = 0; i < ARRAY_SIZE(args); i++)
		args[i] = va_arg(list, long);
	va_end(list);
	note_call("syscall", __builtin_return_address(0));
	return NEXT(syscall)(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

/* The first allocation maps memory under the lock of the zone, and that under the process's. */
void *mmap(void *addr, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	const void *caller = __builtin_return_address(0), *none = NULL;

	note_call("mmap", caller);
	if (is_library(caller) && held.nr == 2 && flags & MAP_FIXED_NOREPLACE)
		atomic_compare_exchange_strong(&zone_lock, &none, held.locks[1]);
	return NEXT(mmap)(addr, bytes, prot, flags, fd, offset);
}

/* Perhaps each page of it is a page fault. */
void *memset(void *addr, int value, size_t bytes)
{
	if (bytes > KPAGE_BYTES)
		note_call("memset", __builtin_return_address(0));
	return NEXT(memset)(addr, value, bytes);
}

int pthread_mutex_lock(pthread_mutex_t *lock)
{
	int ret = NEXT(pthread_mutex_lock)(lock);

	note_lock(lock, __builtin_return_address(0));
	return ret;
}

int pthread_mutex_trylock(pthread_mutex_t *lock)
{
	int ret = NEXT(pthread_mutex_trylock)(lock);

	if (!ret)
		note_lock(lock, __builtin_return_address(0));
	return ret;
}

int pthread_mutex_unlock(pthread_mutex_t *lock)
{
	note_unlock(lock);
	return NEXT(pthread_mutex_unlock)(lock);
}

#endif

/* --- the library, and whether all that it calls is known */

/* What the dynamic section of the library says. */
static struct {
	const Elf64_Sym *symbols;
	const char *names;
	const uint32_t *hash;
} dynamic;

static void read_dynamic(const Elf64_Dyn *entry)
{
	for (; entry->d_tag != DT_NULL; entry++) {
		if (entry->d_tag == DT_SYMTAB)
			dynamic.symbols = (const Elf64_Sym *)entry->d_un.d_ptr;
		else if (entry->d_tag == DT_STRTAB)
			dynamic.names = (const char *)entry->d_un.d_ptr;
		else if (entry->d_tag == DT_GNU_HASH)
			dynamic.hash = (const uint32_t *)entry->d_un.d_ptr;
	}
}

/* Of the object that has @function. */
static int find_library(struct dl_phdr_info *info, size_t size, void *function)
{
	const Elf64_Phdr *header = info->dlpi_phdr, *end = header + info->dlpi_phnum, *text = NULL;

	(void)size;
	for (; header < end; header++)
		if (header->p_type == PT_LOAD &&
		    (uintptr_t)function - info->dlpi_addr - header->p_vaddr < header->p_memsz)
			text = header;
	if (!text)
		return 0;
	library = info->dlpi_addr + text->p_vaddr;
	library_end = library + text->p_memsz;
	for (header = info->dlpi_phdr; header < end; header++)
		if (header->p_type == PT_DYNAMIC)
			read_dynamic((const Elf64_Dyn *)(info->dlpi_addr + header->p_vaddr));
	return 1;
}

/* With the first allocation, which is not counted: it shows which lock is which. */
static void find_all(struct __test_metadata *_metadata)
{
	void *ptr;

	/* It allocates when it is first called. */
	backtrace(&ptr, 1);
	ASSERT_EQ(1, dl_iterate_phdr(find_library, dlsym(RTLD_NEXT, "xalloc_malloc")));
	ptr = xalloc_malloc(1);
	ASSERT_NE(NULL, ptr);
	xalloc_free(ptr);
	ASSERT_TRUE(process_lock && zone_lock && process_lock != zone_lock);
	/* The kernel may want memory back at any time. */
	takes_back = !is_local();
}

static void expect_none_wrong(struct __test_metadata *_metadata)
{
	char **lines;

	counts = false;
	TH_LOG("%lu locks; %lu system calls: %lu with the zone's, %lu with the process's, %lu wrong",
	       nr_locks, nr_calls, nr_in_zone, nr_in_process, nr_wrong);
	for (struct kind *kind = kinds; kind < kinds + NR_KINDS && kind->nr; kind++) {
		TH_LOG("%lu times %s with a lock held:", kind->nr, kind->call);
		lines = backtrace_symbols(kind->frames, kind->nr_frames);
		for (int i = 0; lines && i < kind->nr_frames; i++)
			TH_LOG("  %s", lines[i]);
		free(lines);
	}
	EXPECT_EQ(0, nr_wrong);
	EXPECT_EQ(0, nr_process_locks);
	/* Or nothing came here. */
	EXPECT_NE(0, nr_locks);
	EXPECT_NE(0, nr_in_zone);
	EXPECT_LT(nr_in_zone, nr_calls);
	EXPECT_EQ(0, held.nr);
}

/* The default heap may have so much. */
static size_t most_bytes(void)
{
	return is_local() ? 2048 * MIB : is_long_run() ? 512 * MIB : 64 * MIB;
}

LIBTEST_FIXTURE(lib_syscalls, is_local() ? "2560M" : "640M")

/* Functions of libc that make no system call, or are for locks. */
static bool is_harmless(const char *name)
{
	static const char *const begins[] = {
		"__", "abort", "getauxval", "mem", "pthread_", "secure_getenv", "snprintf", "str",
		"vsnprintf", "xalloc_",
	};

	for (size_t i = 0; i < ARRAY_SIZE(begins); i++)
		if (!strncmp(name, begins[i], strlen(begins[i])))
			return true;
	return false;
}

TEST_F(lib_syscalls, all_that_the_library_calls_comes_here)
{
	Dl_info mine, found;
	unsigned int nr = 0;
	const char *name;

	SKIP_SANITIZED("has calls of its own");
	find_all(_metadata);
	ASSERT_TRUE(dynamic.symbols && dynamic.names && dynamic.hash);
	ASSERT_NE(0, dladdr(kinds, &mine));
	/* Symbols that the library has to find elsewhere come before those that are in the hash. */
	for (uint32_t i = 1; i < dynamic.hash[1]; i++) {
		name = dynamic.names + dynamic.symbols[i].st_name;
		if (ELF64_ST_TYPE(dynamic.symbols[i].st_info) != STT_FUNC || is_harmless(name))
			continue;
		ASSERT_NE(0, dladdr(dlsym(RTLD_DEFAULT, name), &found));
		EXPECT_EQ(mine.dli_fbase, found.dli_fbase) {
			TH_LOG("the library calls %s, which this test does not see", name);
		}
		nr++;
	}
	EXPECT_NE(0, nr);
}

/* --- random calls */

#define NR_SLOTS 4000
#define NR_HEAPS 3
#define NR_WORKERS 4

static void *_Atomic slots[NR_SLOTS];

/* Heap 0 is the default one. */
static struct xalloc_heap *heaps[NR_HEAPS];

static struct worker {
	pthread_t id;
	uint32_t seed;
	uint32_t nr_slots;
	uint32_t nr_steps;
	uint32_t nr_refused;
	uint32_t nr_held; /* after calls, when none should be */
} workers[NR_WORKERS];

/* Mostly small, sometimes large: each doubling as likely as the next. */
static size_t random_size(uint32_t *seed)
{
	unsigned int bits = random_next(seed) % 100;

	bits = bits < 3 ? 21 : bits < 15 ? 18 : 1 + bits % 15;
	return random_next(seed) & ((1U << bits) - 1);
}

static void *random_alloc(uint32_t *seed)
{
	struct xalloc_heap *heap = heaps[random_next(seed) % NR_HEAPS];
	size_t bytes = random_size(seed), alignment = 1UL << random_next(seed) % 19;

	switch (random_next(seed) % 4) {
	case 0:
		return heap ? xalloc_heap_aligned_alloc(heap, alignment, bytes) :
			      xalloc_aligned_alloc(alignment, bytes);
	case 1:
		return heap ? xalloc_heap_calloc(heap, 1, bytes) : xalloc_calloc(1, bytes);
	default:
		return heap ? xalloc_heap_malloc(heap, bytes) : xalloc_malloc(bytes);
	}
}

/* Takes a block from a place that all share, and puts one there, or none at the end. */
static void random_step(struct worker *worker, bool is_end)
{
	uint32_t slot = random_next(&worker->seed) % worker->nr_slots;
	void *old = atomic_exchange(&slots[slot], NULL), *new = NULL;

	if (!is_end && random_next(&worker->seed) % 4 == 0) {
		new = xalloc_realloc(old, random_size(&worker->seed));
		if (new)
			old = NULL;
		worker->nr_refused += !new;
	} else if (!is_end) {
		new = random_alloc(&worker->seed);
		worker->nr_refused += !new;
	}
	xalloc_free(old);
	xalloc_free(atomic_exchange(&slots[slot], new));
	worker->nr_held += held.nr;
}

static void *random_steps(void *arg)
{
	struct worker *worker = arg;

	for (uint32_t i = 0; i < worker->nr_steps; i++)
		random_step(worker, i > worker->nr_steps / 3 * 2);
	return NULL;
}

/* Threads come and go. Returns how many allocations were refused. */
static uint32_t random_rounds(struct __test_metadata *_metadata, uint32_t nr_slots)
{
	uint32_t nr_rounds = is_long_run() ? 20 : 3, nr_refused = 0, round, i;

	counts = true;
	for (round = 0; round < nr_rounds; round++) {
		for (i = 0; i < NR_WORKERS; i++) {
			workers[i] = (struct worker){
				.seed = 1 + round * NR_WORKERS + i,
				.nr_slots = nr_slots,
				.nr_steps = is_fast() ? 20000 : 2000,
			};
			ASSERT_EQ(0, pthread_create(&workers[i].id, NULL, random_steps,
						    &workers[i]));
		}
		for (i = 0; i < NR_WORKERS; i++) {
			ASSERT_EQ(0, pthread_join(workers[i].id, NULL));
			ASSERT_EQ(0, workers[i].nr_held);
			nr_refused += workers[i].nr_refused;
		}
	}
	for (i = 0; i < nr_slots; i++)
		xalloc_free(slots[i]);
	return nr_refused;
}

static void heaps_create(struct __test_metadata *_metadata, size_t limit_bytes)
{
	struct xalloc_arena *arena = arena_of(512 * MIB, limit_bytes);

	for (size_t i = 1; i < NR_HEAPS; i++)
		ASSERT_NE(NULL, heaps[i] = xalloc_heap_create(arena));
}

TEST_F_TIMEOUT(lib_syscalls, while_threads_make_random_calls, TEST_TIMEOUT_LONG)
{
	SKIP_SANITIZED("has calls of its own");
	find_all(_metadata);
	heaps_create(_metadata, 0);
	ASSERT_EQ(0, random_rounds(_metadata, is_fast() ? NR_SLOTS : NR_SLOTS / 10));
	expect_none_wrong(_metadata);
}

TEST_F_TIMEOUT(lib_syscalls, while_threads_are_refused_memory, TEST_TIMEOUT_LONG)
{
	SKIP_SANITIZED("has calls of its own");
	setenv("XALLOC_LIMIT", "8M", 1);
	find_all(_metadata);
	takes_back = true;
	heaps_create(_metadata, 12 * MIB);
	ASSERT_NE(0, random_rounds(_metadata, NR_SLOTS / 10));
	expect_none_wrong(_metadata);
}

/* --- all of it */

struct crowd {
	size_t nr;
	void **blocks;
};

/* A thread that allocated none of them. First all but some, which then lie scattered. */
static void *crowd_free(void *arg)
{
	struct crowd *crowd = arg;
	size_t i;

	for (i = 0; i < crowd->nr; i++)
		if (i % 50)
			xalloc_free(crowd->blocks[i]);
	for (i = 0; i < crowd->nr; i += 50)
		xalloc_free(crowd->blocks[i]);
	return NULL;
}

TEST_F_TIMEOUT(lib_syscalls, while_2_gib_are_allocated_and_freed, TEST_TIMEOUT_LONG)
{
	const size_t sizes[] = { most_bytes(), 32 * MIB, MIB + 100000, 100000, 20000 };
	struct crowd crowd;
	pthread_t thread;
	size_t i, k, bytes;

	SKIP_SANITIZED("has calls of its own");
	find_all(_metadata);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		crowd.nr = most_bytes() / sizes[i];
		bytes = crowd.nr * sizeof(void *);
		crowd.blocks = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		ASSERT_NE(MAP_FAILED, (void *)crowd.blocks);
		counts = true;
		for (k = 0; k < crowd.nr; k++)
			ASSERT_NE(NULL, crowd.blocks[k] = xalloc_malloc(sizes[i]));
		ASSERT_EQ(0, pthread_create(&thread, NULL, crowd_free, &crowd));
		ASSERT_EQ(0, pthread_join(thread, NULL));
		counts = false;
		munmap(crowd.blocks, bytes);
	}
	ASSERT_EQ(0, stats_of(xalloc_arena_default()).nr_blocks);
	expect_none_wrong(_metadata);
}

TEST_HARNESS_MAIN
