// SPDX-License-Identifier: GPL-2.0-only
/*
 * Description: all that moves, splits or evicts page cache, again and again, while two processes
 * work in an arena and in a file. Each byte is right, folios stay whole and where they are, and a
 * block of memory with memory of an arena in it does not go offline.
 */
#include "gup.h"
#include "kpages.h"
#include "loads.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#define NAME "/kernel-moves-test"
#define MOUNT "/tmp/xalloc-kernel-moves"
#define DEBUGFS "/sys/kernel/debug"
#define SPLIT DEBUGFS "/split_huge_pages"
#define COMPACT "/proc/sys/vm/compact_memory"
#define MIN_FREE "/proc/sys/vm/min_free_kbytes"
#define BLOCKS "/sys/devices/system/memory"
#define CGROUP_ROOT "/sys/fs/cgroup"
#define CGROUP CGROUP_ROOT "/xalloc-kernel-moves"

/* The kernel's message when it refuses offline without asking the module. */
#define UNMOVABLE "unmovable page"
/* Where the test looks for a block that could go offline. */
#define MANY_BYTES (512 * MIB)
/* Free memory that pressure leaves at first; twice as much is taken. */
#define LEFT_KB (32 * 1024L)
/* How many kpages of each mapping an act asks for. */
#define NR_ASKED 16

#define MPOL_MF_MOVE_ALL 4

/* Memory that is to stay where it is. */
struct region {
	const char *name;
	unsigned char *addr;
	size_t bytes;
	uint64_t seed;
	unsigned int order;
	uint64_t pfns[SEGMENT / KPAGE_BYTES];
};

/* An arena or a file. Nobody refers to what is kept. */
struct place {
	int fd;
	unsigned char *map;
	struct region kept, in_pipe, in_ring;
	int pipe;
	struct io_uring ring;
	int copy;	/* what the ring reads and writes; -1: there is no ring */
};

FIXTURE(kernel_moves)
{
	int device;
	struct xalloc_ioc_stat before;
	struct place arena, file;
	struct load *loads;	/* in the arena, and in the file */
	char path[80];
	bool has_cgroup;
	uint32_t random;
	char block[80];	/* the state of a block with memory of an arena; empty: there is none */
	int spare;	/* an arena that has memory there; -1: none */
	int log;	/* the kernel's, at its end */
	unsigned int nr_offline, nr_unmovable;
	uint64_t longest_ns;
};

FIXTURE_VARIANT(kernel_moves)
{
	uint32_t policy;
	const char *mount_size;	/* NULL: the mount has room for huge pages */
	size_t kept_bytes;
	unsigned int order;
	size_t shift;	/* of the mappings, from a border of 2 MiB */
};

FIXTURE_VARIANT_ADD(kernel_moves, huge_pages)
{
	.policy = XALLOC_POLICY_HUGE,
	.kept_bytes = SEGMENT,
	.order = 9,
};

FIXTURE_VARIANT_ADD(kernel_moves, huge_pages_by_kpages)
{
	.policy = XALLOC_POLICY_HUGE,
	.kept_bytes = SEGMENT,
	.order = 9,
	.shift = KPAGE_BYTES,
};

FIXTURE_VARIANT_ADD(kernel_moves, pieces)
{
	.policy = XALLOC_POLICY_SMALL,
	.mount_size = "size=1984k",
	.kept_bytes = 4 * SLICE,
	.order = 4,
};

#define moves FIXTURE_DATA(kernel_moves)

/* What is to stay. */

/* Others may unmap it before the second look. */
static uint64_t pfn_when_touched(const volatile unsigned char *addr)
{
	unsigned int tries = 100000;
	uint64_t pfn;

	do {
		(void)*addr;
		pfn = pfn_of(addr);
	} while (!pfn && --tries);
	return pfn;
}

static void region_setup(struct region *region, const char *name, unsigned char *addr, size_t bytes,
			 unsigned int order)
{
	size_t i;

	*region = (struct region){
		.name = name, .addr = addr, .bytes = bytes, .order = order, .seed = bytes,
	};
	pattern_fill(addr, bytes, region->seed);
	for (i = 0; i < bytes / KPAGE_BYTES; i++)
		region->pfns[i] = pfn_when_touched(addr + i * KPAGE_BYTES);
}

/* Looks at each @step-th kpage. */
static bool region_stays(struct __test_metadata *_metadata, const struct region *region,
			 unsigned int step)
{
	size_t i;

	for (i = 0; i < region->bytes / KPAGE_BYTES; i++) {
		if (i % step == 0 &&
		    pfn_when_touched(region->addr + i * KPAGE_BYTES) != region->pfns[i]) {
			TH_LOG("%s: kpage %zu has moved", region->name, i);
			return false;
		}
		if (i % (1U << region->order) == 0 &&
		    !is_in_folio(region->pfns[i], region->order)) {
			TH_LOG("%s: the folio of kpage %zu is not whole", region->name, i);
			return false;
		}
	}
	return true;
}

static bool place_stays(struct __test_metadata *_metadata, const struct place *place,
			unsigned int step)
{
	return region_stays(_metadata, &place->kept, step) &&
	       region_stays(_metadata, &place->in_pipe, step) &&
	       region_stays(_metadata, &place->in_ring, step);
}

static void place_setup(struct place *place, size_t kept_bytes, unsigned int order)
{
	region_setup(&place->kept, "kept", place->map, kept_bytes, order);
	region_setup(&place->in_pipe, "in a pipe", place->map + IN_PIPE, SLICE, order);
	region_setup(&place->in_ring, "in a ring", place->map + IN_RING, SLICE, order);
}

static void place_hold(struct __test_metadata *_metadata, struct place *place)
{
	struct iovec held = { place->in_ring.addr, SLICE };
	int rc;

	place->pipe = pipe_with(_metadata, place->in_pipe.addr, SLICE);
	place->copy = -1;
	if (!is_kernel_at_least(6, 5)) {
		TH_LOG("left out: a ring: io_uring of kernels before 6.5 registers no file mappings");
		return;
	}
	rc = ring_setup(&place->ring);
	if (rc == -ENOSYS || rc == -EPERM) {
		TH_LOG("left out: a ring: this kernel has no io_uring (%s)", strerror(-rc));
		return;
	}
	ASSERT_EQ(0, rc);
	ASSERT_EQ(0, io_uring_register_buffers(&place->ring, &held, 1));
	place->copy = memfd_create("copy", MFD_CLOEXEC);
	ASSERT_LE(0, place->copy);
}

static void place_let_go(struct place *place)
{
	close(place->pipe);
	if (place->copy < 0)
		return;
	io_uring_unregister_buffers(&place->ring);
	io_uring_queue_exit(&place->ring);
	close(place->copy);
}

static void expect_region(struct __test_metadata *_metadata, const struct region *region)
{
	EXPECT_EQ(-1, pattern_mismatch(region->addr, region->bytes, region->seed)) {
		TH_LOG("%s", region->name);
	}
}

/* The pipe keeps what is in it. */
static void expect_in_pipe(struct __test_metadata *_metadata, int pipe, uint64_t seed)
{
	int ends[2];

	ASSERT_EQ(0, pipe2(ends, O_CLOEXEC));
	ASSERT_EQ(SLICE, tee(pipe, ends[1], SLICE, SPLICE_F_NONBLOCK));
	close(ends[1]);
	expect_pipe_holds(_metadata, ends[0], SLICE, seed);
	close(ends[0]);
}

/* The ring writes what the mapping has, and reads something new into it. */
static void expect_in_ring(struct __test_metadata *_metadata, struct place *place)
{
	struct region *region = &place->in_ring;
	static unsigned char copy[SLICE];

	EXPECT_EQ(SLICE, ring_transfer(&place->ring, true, place->copy, region->addr, SLICE, 0));
	EXPECT_EQ(SLICE, pread(place->copy, copy, SLICE, 0));
	EXPECT_EQ(-1, pattern_mismatch(copy, SLICE, region->seed));
	pattern_fill(copy, SLICE, ++region->seed);
	EXPECT_EQ(SLICE, pwrite(place->copy, copy, SLICE, 0));
	EXPECT_EQ(SLICE, ring_transfer(&place->ring, false, place->copy, region->addr, SLICE, 0));
	expect_region(_metadata, region);
}

static void expect_place(struct __test_metadata *_metadata, struct place *place)
{
	EXPECT_TRUE(place_stays(_metadata, place, 1));
	expect_region(_metadata, &place->kept);
	expect_region(_metadata, &place->in_pipe);
	expect_region(_metadata, &place->in_ring);
	expect_in_pipe(_metadata, place->pipe, place->in_pipe.seed);
	pattern_fill(place->in_pipe.addr, SLICE, ++place->in_pipe.seed);
	if (place->copy >= 0)
		expect_in_ring(_metadata, place);
}

/* What the kernel does. Each returns NULL, or why this machine cannot. */

static size_t any_offset(moves *self)
{
	return random_next(&self->random) % (BYTES / KPAGE_BYTES) * KPAGE_BYTES;
}

static unsigned char *any_kpage_that_stays(moves *self)
{
	struct place *place = random_next(&self->random) % 2 ? &self->arena : &self->file;
	struct region *regions[] = { &place->kept, &place->kept, &place->in_pipe, &place->in_ring };
	struct region *region = regions[random_next(&self->random) % ARRAY_SIZE(regions)];

	return region->addr +
	       random_next(&self->random) % (region->bytes / KPAGE_BYTES) * KPAGE_BYTES;
}

static const char *expect_write(struct __test_metadata *_metadata, const char *path,
				const char *text)
{
	if (access(path, W_OK))
		return "there is no such file";
	EXPECT_TRUE(write_text(path, text)) {
		TH_LOG("%s: %s", path, text);
	}
	return NULL;
}

static const char *do_drop(struct __test_metadata *_metadata, moves *self)
{
	(void)self;
	return expect_write(_metadata, "/proc/sys/vm/drop_caches", "3");
}

/* Advice for single kpages, to all three processes. */
static void advise(struct __test_metadata *_metadata, moves *self, int advice)
{
	struct load *load;
	struct iovec kpage;
	unsigned int i;
	int pidfd;

	for (i = 0; i < NR_ASKED; i++)
		EXPECT_EQ(0, madvise(any_kpage_that_stays(self), KPAGE_BYTES, advice));
	for (load = self->loads; load < self->loads + 2; load++) {
		pidfd = syscall(SYS_pidfd_open, load->pid, 0);
		for (i = 0; i < NR_ASKED; i++) {
			kpage = (struct iovec){ load->map + any_offset(self), KPAGE_BYTES };
			EXPECT_EQ(KPAGE_BYTES,
				  syscall(SYS_process_madvise, pidfd, &kpage, 1UL, advice, 0));
		}
		close(pidfd);
	}
}

static const char *do_cold(struct __test_metadata *_metadata, moves *self)
{
	advise(_metadata, self, MADV_COLD);
	return NULL;
}

static const char *do_pageout(struct __test_metadata *_metadata, moves *self)
{
	advise(_metadata, self, MADV_PAGEOUT);
	return NULL;
}

static const char *do_fadvise(struct __test_metadata *_metadata, moves *self)
{
	const int fds[] = { self->arena.fd, self->file.fd };
	unsigned int i;

	for (i = 0; i < NR_ASKED; i++)
		EXPECT_EQ(0, posix_fadvise(fds[i % 2], any_offset(self), KPAGE_BYTES,
					   POSIX_FADV_DONTNEED));
	EXPECT_EQ(0, posix_fadvise(fds[0], 0, 0, POSIX_FADV_DONTNEED));
	EXPECT_EQ(0, posix_fadvise(fds[1], 0, 0, POSIX_FADV_DONTNEED));
	return NULL;
}

static const char *split_mapping(struct __test_metadata *_metadata, pid_t pid, const void *map)
{
	char text[100];

	snprintf(text, sizeof(text), "%d,0x%lx,0x%lx", pid, (unsigned long)map,
		 (unsigned long)map + BYTES);
	return expect_write(_metadata, SPLIT, text);
}

static const char *do_split_ranges(struct __test_metadata *_metadata, moves *self)
{
	char text[120];

	split_mapping(_metadata, getpid(), self->arena.map);
	split_mapping(_metadata, getpid(), self->file.map);
	split_mapping(_metadata, self->loads[0].pid, self->loads[0].map);
	split_mapping(_metadata, self->loads[1].pid, self->loads[1].map);
	snprintf(text, sizeof(text), "%s,0x0,0x%lx", self->path, BYTES / KPAGE_BYTES);
	return expect_write(_metadata, SPLIT, text);
}

static const char *do_split_all(struct __test_metadata *_metadata, moves *self)
{
	(void)self;
	return expect_write(_metadata, SPLIT, "1");
}

static const char *do_compact(struct __test_metadata *_metadata, moves *self)
{
	(void)self;
	return expect_write(_metadata, COMPACT, "1");
}

static bool has_node(int node)
{
	char path[60];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d", node);
	return !access(path, F_OK);
}

/* Kpages of each process, to each node. */
static const char *do_move(struct __test_metadata *_metadata, moves *self)
{
	int nodes[NR_ASKED], status[NR_ASKED], node;
	void *kpages[NR_ASKED];
	unsigned int i, of;

	for (node = 0; node < 2 && has_node(node); node++) {
		for (of = 0; of < 3; of++) {
			for (i = 0; i < NR_ASKED; i++) {
				kpages[i] = of < 2 ? self->loads[of].map + any_offset(self) :
						     any_kpage_that_stays(self);
				nodes[i] = node;
			}
			EXPECT_LE(0, syscall(SYS_move_pages, of < 2 ? self->loads[of].pid : 0,
					     (unsigned long)NR_ASKED, kpages, nodes, status,
					     MPOL_MF_MOVE_ALL));
		}
	}
	return node == 2 ? NULL : "to another node: this machine has one";
}

/* Whether the kernel has said so since the last call. */
static bool log_says(int log, const char *text)
{
	bool found = false;
	char line[1024];
	ssize_t bytes;

	/* EPIPE: lines were lost. */
	while ((bytes = read(log, line, sizeof(line) - 1)) > 0 || (bytes < 0 && errno == EPIPE)) {
		line[bytes > 0 ? bytes : 0] = 0;
		found |= !!strstr(line, text);
	}
	return found;
}

static const char *do_offline(struct __test_metadata *_metadata, moves *self)
{
	uint64_t begin = now_ns(), ns;

	if (!self->block[0])
		return "no block of memory can go offline";
	EXPECT_EQ(-EBUSY, write_errno(self->block, "offline"));
	ns = now_ns() - begin;
	if (ns > self->longest_ns)
		self->longest_ns = ns;
	EXPECT_TRUE(file_says(self->block, "online")) {
		write_text(self->block, "online");
	}
	self->nr_offline++;
	self->nr_unmovable += log_says(self->log, UNMOVABLE);
	return NULL;
}

static const char *do_reclaim(struct __test_metadata *_metadata, moves *self)
{
	(void)_metadata;
	if (!self->has_cgroup)
		return "there is no memory controller of cgroup2 at " CGROUP_ROOT;
	if (access(CGROUP "/memory.reclaim", W_OK))
		return "there is no such file";
	/* The kernel says EAGAIN where it found less. */
	write_text(CGROUP "/memory.reclaim", "64M");
	return NULL;
}

/* Takes memory that the kernel gets back with less effort than all other. */
static void take_memory(size_t bytes)
{
	unsigned char *map = anonymous_map(bytes);
	size_t at, in;

	require(map);
	for (at = 0; at < bytes; at += SEGMENT) {
		for (in = 0; in < SEGMENT; in += KPAGE_BYTES)
			map[at + in] = 1;
		require(!madvise(map + at, SEGMENT, MADV_FREE));
	}
	_exit(0);
}

/* The kernel is to keep nearly all free memory back, so that little has to be taken. */
static const char *do_press(struct __test_metadata *_metadata, moves *self)
{
	const long long kept_kb = read_number(MIN_FREE);
	const long free_kb = meminfo_kb("MemFree");
	char text[40];
	pid_t pid;

	(void)self;
	snprintf(text, sizeof(text), "%ld", free_kb - LEFT_KB);
	if (free_kb > 2 * LEFT_KB)
		EXPECT_TRUE(write_text(MIN_FREE, text));
	pid = fork();
	if (!pid)
		take_memory(2 * LEFT_KB * 1024);
	EXPECT_EQ(0, child_status(pid));
	snprintf(text, sizeof(text), "%lld", kept_kb);
	EXPECT_TRUE(write_text(MIN_FREE, text));
	return NULL;
}

static const struct {
	const char *name;
	const char *(*act)(struct __test_metadata *_metadata, moves *self);
	unsigned int period;	/* in the first of so many turns */
} acts[] = {
	{ "drop_caches", do_drop, 1 },
	{ "MADV_COLD", do_cold, 1 },
	{ "MADV_PAGEOUT", do_pageout, 1 },
	{ "fadvise", do_fadvise, 1 },
	{ "split_huge_pages of ranges", do_split_ranges, 1 },
	{ "split_huge_pages", do_split_all, 1 },
	{ "compact_memory", do_compact, 1 },
	{ "move_pages", do_move, 1 },
	{ "offline", do_offline, 1 },
	{ "memory.reclaim", do_reclaim, 1 },
	{ "memory that runs short", do_press, 8 },
};

/*
 * Takes the block of @addr as the one that is to go offline, unless it has a hole: the kernel
 * refuses that first. Returns whether nothing but memory of an arena is in the way.
 */
static bool block_take(moves *self, const volatile unsigned char *addr, unsigned long block_bytes)
{
	char path[sizeof(self->block)];
	int err;

	snprintf(path, sizeof(path), BLOCKS "/memory%lu/state",
		 (unsigned long)(pfn_when_touched(addr) * KPAGE_BYTES / block_bytes));
	if (!strcmp(path, self->block))
		return false;
	log_says(self->log, UNMOVABLE);
	err = write_errno(path, "offline");
	if (err && err != -EBUSY)
		return false;
	memcpy(self->block, path, sizeof(path));
	return !err || !log_says(self->log, UNMOVABLE);
}

static void block_find(struct __test_metadata *_metadata, moves *self)
{
	FILE *file = fopen(BLOCKS "/block_size_bytes", "r");
	unsigned long block_bytes = 0;
	unsigned char *map;
	size_t at;

	if (!file)
		return;
	ASSERT_EQ(1, fscanf(file, "%lx", &block_bytes));
	fclose(file);
	self->log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ASSERT_LE(0, self->log);
	lseek(self->log, 0, SEEK_END);
	if (block_take(self, self->arena.kept.addr, block_bytes) ||
	    block_take(self, self->file.kept.addr, block_bytes))
		return;
	self->spare = arena_create(self->device, MANY_BYTES, 0);
	map = arena_map(self->spare, MANY_BYTES);
	ASSERT_NE(NULL, map);
	for (at = 0; at < MANY_BYTES; at += SEGMENT) {
		if (grant_page(self->spare, SEGMENT_SLICES, 0, NULL) != 1 ||
		    block_take(self, map + at, block_bytes))
			break;
	}
	TH_LOG("%zu MiB taken for a block that could go offline", at / MIB);
	munmap(map, MANY_BYTES);
}

/* The group pays for the arena and for the file. */
static bool cgroup_join(void)
{
	if (!file_says(CGROUP_ROOT "/cgroup.controllers", "memory"))
		return false;
	write_text(CGROUP_ROOT "/cgroup.subtree_control", "+memory");
	rmdir(CGROUP);
	return !mkdir(CGROUP, 0755) && write_text(CGROUP "/cgroup.procs", "0");
}

FIXTURE_SETUP(kernel_moves)
{
	struct xalloc_page_grant pages[] = {
		{ .nr_slices = variant->kept_bytes / SLICE, .flags = XALLOC_PAGE_AT },
		{ .nr_slices = 1, .flags = XALLOC_PAGE_AT, .offset = IN_PIPE },
		{ .nr_slices = 1, .flags = XALLOC_PAGE_AT, .offset = IN_RING },
	};

	self->device = device_setup(_metadata, &self->before);
	if (!is_thp_kernel())
		SKIP(return, "the page cache of this kernel has no huge pages");
	self->random = random_seed() | 1;
	TH_LOG("seed %u", self->random);
	mount("debugfs", DEBUGFS, "debugfs", 0, NULL);
	self->has_cgroup = cgroup_join();
	self->spare = -1;
	self->loads = mmap(NULL, 2 * sizeof(*self->loads), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->loads);

	self->arena.fd = arena_create_by(self->device, BYTES, variant->policy, -1);
	ASSERT_LE(0, self->arena.fd);
	ASSERT_EQ(ARRAY_SIZE(pages), grant_batch(self->arena.fd, pages, ARRAY_SIZE(pages)));
	self->arena.map = file_map(self->arena.fd, BYTES, variant->shift);
	ASSERT_NE(NULL, self->arena.map);
	place_setup(&self->arena, variant->kept_bytes, variant->order);

	/* A mount that has no room for a huge page takes pieces. */
	if (variant->mount_size) {
		mkdir(MOUNT, 0700);
		ASSERT_EQ(0, mount("none", MOUNT, "xallocfs", 0, variant->mount_size));
	}
	snprintf(self->path, sizeof(self->path), "%s" NAME, variant->mount_size ? MOUNT : NAMES);
	unlink(self->path);
	self->file.fd = file_create(self->path);
	ASSERT_LE(0, self->file.fd);
	ASSERT_EQ(0, file_resize(self->file.fd, BYTES));
	ASSERT_EQ(0, file_allocate(self->file.fd, 0, 0, variant->kept_bytes));
	self->file.map = file_map(self->file.fd, BYTES, variant->shift);
	ASSERT_NE(NULL, self->file.map);
	place_setup(&self->file, variant->kept_bytes, variant->order);
	block_find(_metadata, self);
}

FIXTURE_TEARDOWN(kernel_moves)
{
	munmap(self->arena.map, BYTES);
	close(self->arena.fd);
	munmap(self->file.map, BYTES);
	close(self->file.fd);
	unlink(self->path);
	if (self->spare >= 0)
		close(self->spare);
	if (variant->mount_size) {
		/* A ring lets go a little later. */
		EXPECT_TRUE(wait_for(!umount(MOUNT), 10000));
		rmdir(MOUNT);
	}
	counters_expect(_metadata, self->device, &self->before);
	if (self->has_cgroup) {
		EXPECT_TRUE(write_text(CGROUP_ROOT "/cgroup.procs", "0"));
		EXPECT_EQ(0, rmdir(CGROUP));
	}
	close(self->device);
}

/* Waits until the process has done something. Returns false if it has ended instead. */
static bool load_goes_on(struct load *load)
{
	long seen = load->nr_turns;
	siginfo_t info = {};

	while (load->nr_turns < seen + 2) {
		if (waitid(P_PID, load->pid, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid)
			return false;
		sched_yield();
	}
	return true;
}

static void load_start(struct __test_metadata *_metadata, struct load *load,
		       void (*work)(struct load *load, int fd, size_t shift, uint32_t seed), int fd,
		       size_t shift, uint32_t seed)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		work(load, fd, shift, seed);
		_exit(0);
	}
	/* Only here: the child's copy is the same memory. */
	load->pid = pid;
}

static void load_end(struct __test_metadata *_metadata, struct load *load, const char *name)
{
	load->stop = true;
	EXPECT_EQ(0, child_status(load->pid));
	EXPECT_LT(load->nr_refused + load->nr_busy, load->nr_turns);
	TH_LOG("%s: %ld turns, %ld refused, %ld busy", name, load->nr_turns, load->nr_refused,
	       load->nr_busy);
}

/* Does all once. Returns false where it makes no sense to go on. */
static bool take_turn(struct __test_metadata *_metadata, moves *self, unsigned int turn)
{
	const char *why;
	unsigned int i;
	bool stays;

	for (i = 0; i < ARRAY_SIZE(acts); i++) {
		if (turn % acts[i].period)
			continue;
		why = acts[i].act(_metadata, self);
		if (why && turn == 0)
			TH_LOG("left out: %s: %s", acts[i].name, why);
		stays = place_stays(_metadata, &self->arena, 16) &&
			place_stays(_metadata, &self->file, 16);
		EXPECT_TRUE(stays) {
			TH_LOG("turn %u, after %s", turn, acts[i].name);
			return false;
		}
	}
	expect_place(_metadata, &self->arena);
	expect_place(_metadata, &self->file);
	return load_goes_on(&self->loads[0]) && load_goes_on(&self->loads[1]);
}

TEST_F_TIMEOUT(kernel_moves, all_stays_beside_load, TEST_TIMEOUT_LONG)
{
	unsigned int turn, nr_turns = is_long_run() ? 180 : 3;

	/* A turn takes a second, with KASAN half a minute. */
	if (kernel_has_kasan())
		nr_turns = is_long_run() ? 20 : 1;
	place_hold(_metadata, &self->arena);
	place_hold(_metadata, &self->file);
	load_start(_metadata, &self->loads[0], work_in_arena, self->arena.fd, variant->shift,
		   self->random ^ 0x5555);
	load_start(_metadata, &self->loads[1], work_in_file, self->file.fd, variant->shift,
		   self->random ^ 0xaaaa);
	EXPECT_TRUE(load_goes_on(&self->loads[0]) && load_goes_on(&self->loads[1]));
	for (turn = 0; turn < nr_turns; turn++)
		if (!take_turn(_metadata, self, turn))
			break;
	EXPECT_EQ(nr_turns, turn);
	load_end(_metadata, &self->loads[0], "arena");
	load_end(_metadata, &self->loads[1], "file");
	if (self->block[0])
		TH_LOG("longest of %u answers to offline: %" PRIu64 " ms; %u for unmovable pages",
		       self->nr_offline, self->longest_ns / 1000000, self->nr_unmovable);
	expect_place(_metadata, &self->arena);
	expect_place(_metadata, &self->file);
	place_let_go(&self->arena);
	place_let_go(&self->file);

	/* A new mapping has 2 MiB entries again. */
	if (variant->order < 9 || variant->shift)
		return;
	munmap(self->arena.map, BYTES);
	self->arena.map = file_map(self->arena.fd, BYTES, 0);
	ASSERT_NE(NULL, self->arena.map);
	EXPECT_EQ(-1, pattern_mismatch(self->arena.map, SEGMENT, self->arena.kept.seed));
	EXPECT_EQ(SEGMENT / 1024, smaps_kb(self->arena.map, SEGMENT, "FilePmdMapped"));
}

TEST_HARNESS_MAIN
