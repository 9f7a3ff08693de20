// SPDX-License-Identifier: MIT
/*
 * xalloc-copy: copy a file past the page cache, through memory the kernel was told of once
 *
 * The arena is registered with io_uring as one fixed buffer before the first block is used.
 * From then on each block is good for O_DIRECT reads and writes at any address in it, and no
 * request pins or looks up a page again. With 16 blocks of 256 KiB the arena takes 4 MiB of
 * RLIMIT_MEMLOCK and its registration another 4: the 8 MiB of an ordinary Debian user.
 *
 * Each slot owns a block and one piece of the file, and is either reading or writing it. A
 * slot that has written its piece takes the next one, so slots never wait for each other.
 */
#include <fcntl.h>
#include <liburing.h>
#include <libxalloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "advice.h"

#define NR_SLOTS 16
#define BLOCK_BYTES ((size_t)256 << 10)
#define ARENA_BYTES (NR_SLOTS * BLOCK_BYTES)

/* O_DIRECT moves whole sectors; those of disks have at most this many bytes. */
#define SECTOR ((size_t)4096)

struct slot {
	char *block;
	bool is_writing;
	off_t offset; /* of the piece in the file */
	size_t bytes; /* of the piece, at most BLOCK_BYTES; the last one ends with the file */
	size_t done;  /* a multiple of SECTOR: what was read, or written, of the piece */
};

struct copy {
	const char *from_name, *to_name;
	int from, to;
	off_t file_bytes;
	off_t next; /* offset of the first piece that no slot took */
	unsigned int nr_busy;
	struct io_uring ring;
	struct slot slots[NR_SLOTS];
};

static size_t round_up(size_t bytes)
{
	return (bytes + SECTOR - 1) & ~(SECTOR - 1);
}

static int open_direct(const char *name, int flags, mode_t mode)
{
	int fd = open(name, flags | O_DIRECT | O_CLOEXEC, mode);

	if (fd < 0 && errno == EINVAL)
		die("%s: not a regular file, or its file system has no O_DIRECT", name);
	if (fd < 0)
		die("%s: %s", name, strerror(errno));
	return fd;
}

static void open_files(struct copy *copy)
{
	struct stat from, to;

	copy->from = open_direct(copy->from_name, O_RDONLY, 0);
	if (fstat(copy->from, &from))
		die("%s: %s", copy->from_name, strerror(errno));
	if (!S_ISREG(from.st_mode))
		die("%s: not a regular file", copy->from_name);
	copy->file_bytes = from.st_size;

	/* Not O_TRUNC, which would empty the source if both are one file. */
	copy->to = open_direct(copy->to_name, O_WRONLY | O_CREAT, from.st_mode & 0777);
	if (fstat(copy->to, &to))
		die("%s: %s", copy->to_name, strerror(errno));
	if (!S_ISREG(to.st_mode))
		die("%s: not a regular file", copy->to_name);
	if (from.st_dev == to.st_dev && from.st_ino == to.st_ino)
		die("%s and %s are the same file", copy->from_name, copy->to_name);
	if (ftruncate(copy->to, 0))
		die("%s: %s", copy->to_name, strerror(errno));
}

/* Blocks that fill an arena of their own, and a ring that knows the arena. */
static struct xalloc_arena *get_memory(struct copy *copy)
{
	const struct xalloc_arena_config config = {
		.size = sizeof(config),
		.arena_bytes = ARENA_BYTES,
	};
	struct xalloc_arena *arena;
	struct xalloc_heap *heap;
	struct iovec range;
	int ret, i;

	arena = xalloc_arena_create(&config);
	heap = arena ? xalloc_heap_create(arena) : NULL;
	if (!heap)
		die("no arena: %s", arena_advice(errno));
	for (i = 0; i < NR_SLOTS; i++) {
		copy->slots[i].block = xalloc_heap_malloc(heap, BLOCK_BYTES);
		if (!copy->slots[i].block)
			die("no block: %s", block_advice(arena, ARENA_BYTES));
	}

	ret = io_uring_queue_init(NR_SLOTS, &copy->ring, 0);
	if (ret)
		die("no ring: %s", ring_advice(ret));
	xalloc_arena_range(arena, &range);
	ret = io_uring_register_buffers(&copy->ring, &range, 1);
	if (ret)
		die("no registration: %s", register_advice(ret, ARENA_BYTES));
	return arena;
}

/* Queues what is left of the slot's read or write. */
static void queue(struct copy *copy, struct slot *slot)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&copy->ring);
	unsigned int bytes = round_up(slot->bytes) - slot->done;
	char *at = slot->block + slot->done;
	off_t offset = slot->offset + slot->done;

	/* The last argument is the index of the fixed buffer: there is one, the arena. */
	if (slot->is_writing)
		io_uring_prep_write_fixed(sqe, copy->to, at, bytes, offset, 0);
	else
		io_uring_prep_read_fixed(sqe, copy->from, at, bytes, offset, 0);
	io_uring_sqe_set_data(sqe, slot);
}

static void take_next_piece(struct copy *copy, struct slot *slot)
{
	off_t left = copy->file_bytes - copy->next;

	if (!left)
		return;
	slot->is_writing = false;
	slot->offset = copy->next;
	slot->bytes = left < (off_t)BLOCK_BYTES ? (size_t)left : BLOCK_BYTES;
	slot->done = 0;
	copy->next += slot->bytes;
	copy->nr_busy++;
	queue(copy, slot);
}

static void complete(struct copy *copy, struct slot *slot, int res)
{
	const char *name = slot->is_writing ? copy->to_name : copy->from_name;
	size_t done;

	if (res == -EINTR || res == -EAGAIN) {
		queue(copy, slot);
		return;
	}
	if (res < 0)
		die("%s: at %lld: %s", name, (long long)(slot->offset + slot->done),
		    strerror(-res));

	done = slot->done + res;
	if (done < slot->bytes) {
		/* The rest must start at a sector; part of one is moved again. */
		done &= ~(SECTOR - 1);
		if (done == slot->done)
			die("%s: at %lld: %s", name, (long long)(slot->offset + done),
			    slot->is_writing ? "no progress" : "the file became shorter");
		slot->done = done;
		queue(copy, slot);
		return;
	}

	if (slot->is_writing) {
		copy->nr_busy--;
		take_next_piece(copy, slot);
		return;
	}
	/* The end of the last sector is cut off in the end; until then it is zero. */
	memset(slot->block + slot->bytes, 0, round_up(slot->bytes) - slot->bytes);
	slot->is_writing = true;
	slot->done = 0;
	queue(copy, slot);
}

static void run(struct copy *copy)
{
	struct io_uring_cqe *cqe;
	unsigned int head, nr, i;
	int ret;

	for (i = 0; i < NR_SLOTS; i++)
		take_next_piece(copy, &copy->slots[i]);
	while (copy->nr_busy) {
		ret = io_uring_submit_and_wait(&copy->ring, 1);
		if (ret < 0 && ret != -EINTR)
			die("io_uring: %s", strerror(-ret));
		nr = 0;
		io_uring_for_each_cqe(&copy->ring, head, cqe) {
			complete(copy, io_uring_cqe_get_data(cqe), cqe->res);
			nr++;
		}
		io_uring_cq_advance(&copy->ring, nr);
	}
	if (ftruncate(copy->to, copy->file_bytes) || fsync(copy->to) || close(copy->to))
		die("%s: %s", copy->to_name, strerror(errno));
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	struct copy copy = { 0 };
	struct xalloc_arena *arena;
	double start, seconds;

	if (argc != 3) {
		fprintf(stderr, "Usage: xalloc-copy SRC DST\n");
		return 2;
	}
	copy.from_name = argv[1];
	copy.to_name = argv[2];

	arena = get_memory(&copy);
	open_files(&copy);
	start = now();
	run(&copy);
	seconds = now() - start;
	printf("%lld bytes in %.2f s, %.0f MB/s; %d blocks of %zu KiB, registered once\n",
	       (long long)copy.file_bytes, seconds, copy.file_bytes / seconds / 1e6, NR_SLOTS,
	       BLOCK_BYTES >> 10);

	/* In this order: a ring pins what is registered with it. */
	io_uring_queue_exit(&copy.ring);
	xalloc_arena_destroy(arena);
	return 0;
}
