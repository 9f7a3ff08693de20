// SPDX-License-Identifier: MIT
/*
 * xalloc-uring: a file and a socket of io_uring, with all data in blocks
 *
 *	xalloc-uring FILE
 *
 * Writes blocks of many sizes to FILE with O_DIRECT, reads them by a second ring, and sends them
 * over TCP on the loopback interface into a ring of provided buffers. Compares all data. Ends with
 * status 4, after the reason, where the kernel cannot do this.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <xalloc-uring.h>

#include "data.h"

#define NR_BLOCKS 40
/* For several chunks of the arena. */
#define CHUNK_BYTES ((size_t)8 << 20)
#define ARENA_BYTES (8 * CHUNK_BYTES)
/* O_DIRECT moves whole sectors; those of disks have at most this many bytes. */
#define SECTOR ((size_t)4096)
#define NR_BUFS 16
#define BUF_BYTES ((size_t)16 << 10)

static unsigned char *blocks[NR_BLOCKS];
static size_t sizes[NR_BLOCKS];

static void check(int error, const char *what)
{
	if (error < 0)
		die("%s: %s", what, strerror(-error));
}

/* @error is errno of an allocation, which the ring's hook may have refused. */
static void need_block(const void *block, struct xalloc_arena *arena)
{
	if (block)
		return;
	if (errno == EOPNOTSUPP)
		skip("%s", register_advice(-errno, ARENA_BYTES));
	die("no block: %s", block_advice(arena, ARENA_BYTES));
}

static void make_ring(struct io_uring *ring, struct xalloc_uring *fixed, struct xalloc_arena *arena)
{
	int ret = io_uring_queue_init(NR_BLOCKS, ring, 0);

	if (ret == -ENOSYS || ret == -EPERM)
		skip("%s", ring_advice(ret));
	check(ret, "io_uring_queue_init");
	check(xalloc_uring_attach(fixed, ring, arena), "xalloc_uring_attach");
}

static void move_blocks(const struct xalloc_uring *fixed, int fd, bool is_write)
{
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;
	uint64_t offset = 0;
	unsigned int i, block;

	for (i = 0; i < NR_BLOCKS; i++) {
		if (xalloc_uring_index(fixed, blocks[i]) < 0)
			die("block %u is in no fixed buffer", i);
		sqe = io_uring_get_sqe(fixed->ring);
		if (is_write)
			xalloc_uring_prep_write(fixed, sqe, fd, blocks[i], sizes[i], offset);
		else
			xalloc_uring_prep_read(fixed, sqe, fd, blocks[i], sizes[i], offset);
		io_uring_sqe_set_data64(sqe, i);
		offset += sizes[i];
	}
	check(io_uring_submit(fixed->ring), "io_uring_submit");
	for (i = 0; i < NR_BLOCKS; i++) {
		check(io_uring_wait_cqe(fixed->ring, &cqe), "io_uring_wait_cqe");
		block = io_uring_cqe_get_data64(cqe);
		check(cqe->res, is_write ? "write" : "read");
		if ((size_t)cqe->res != sizes[block])
			die("%d bytes of block %u were moved, not %zu", cqe->res, block,
			    sizes[block]);
		io_uring_cqe_seen(fixed->ring, cqe);
	}
}

static void connect_loopback(int sockets[2])
{
	struct sockaddr_in name = { .sin_family = AF_INET };
	socklen_t bytes = sizeof(name);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	sockets[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&name, bytes) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&name, &bytes) ||
	    connect(sockets[0], (struct sockaddr *)&name, bytes))
		die("loopback: %s", strerror(errno));
	sockets[1] = accept(listener, NULL, NULL);
	close(listener);
}

enum { SEND = 1, RECEIVE };

static void receive(const struct xalloc_uring_bufs *bufs, int from)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(bufs->ring);

	io_uring_prep_recv_multishot(sqe, from, NULL, 0, 0);
	xalloc_uring_bufs_select(bufs, sqe);
	io_uring_sqe_set_data64(sqe, RECEIVE);
}

/* Sends @block over a socket to a group of provided buffers. */
static void send_block(const struct xalloc_uring *fixed, struct xalloc_uring_bufs *bufs,
		       int sockets[2], unsigned int block)
{
	size_t sent = 0, received = 0;
	unsigned int nr_pending = 1;
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;
	void *data;

	sqe = io_uring_get_sqe(fixed->ring);
	xalloc_uring_prep_send_zc(fixed, sqe, sockets[0], blocks[block], sizes[block], 0);
	io_uring_sqe_set_data64(sqe, SEND);
	while (received < sizes[block] || nr_pending) {
		check(io_uring_submit_and_wait(fixed->ring, 1), "io_uring_submit_and_wait");
		check(io_uring_peek_cqe(fixed->ring, &cqe), "io_uring_peek_cqe");
		if (io_uring_cqe_get_data64(cqe) == SEND) {
			/* Of the two completions of a send the first says what was sent. */
			if (!(cqe->flags & IORING_CQE_F_NOTIF)) {
				check(cqe->res, "send");
				sent += cqe->res;
			}
			if (!(cqe->flags & IORING_CQE_F_MORE))
				nr_pending--;
			if (!(cqe->flags & IORING_CQE_F_NOTIF) && sent < sizes[block]) {
				sqe = io_uring_get_sqe(fixed->ring);
				xalloc_uring_prep_send_zc(fixed, sqe, sockets[0],
							  blocks[block] + sent, sizes[block] - sent,
							  0);
				io_uring_sqe_set_data64(sqe, SEND);
				nr_pending++;
			}
		} else {
			data = xalloc_uring_bufs_data(bufs, cqe);
			/* Without a free buffer the request ends. */
			if (cqe->res != -ENOBUFS)
				check(cqe->res, "receive");
			if (data) {
				compare_block(data, block, received, cqe->res);
				received += cqe->res;
				xalloc_uring_bufs_put(bufs, data);
			}
			if (!(cqe->flags & IORING_CQE_F_MORE))
				receive(bufs, sockets[1]);
		}
		io_uring_cqe_seen(fixed->ring, cqe);
	}
}

/* Ends the connection, and so the request that waits for a buffer. */
static void disconnect(const struct xalloc_uring_bufs *bufs, int sockets[2])
{
	struct io_uring_cqe *cqe;
	bool is_open = true;

	close(sockets[0]);
	while (is_open) {
		check(io_uring_submit_and_wait(bufs->ring, 1), "io_uring_submit_and_wait");
		check(io_uring_peek_cqe(bufs->ring, &cqe), "io_uring_peek_cqe");
		if (cqe->res > 0)
			die("%d bytes more than were sent", cqe->res);
		if (cqe->res == -ENOBUFS)
			receive(bufs, sockets[1]);
		is_open = cqe->res != 0;
		io_uring_cqe_seen(bufs->ring, cqe);
	}
	close(sockets[1]);
}

int main(int argc, char **argv)
{
	const struct xalloc_arena_config config = { .size = sizeof(config),
						    .arena_bytes = ARENA_BYTES,
						    .chunk_bytes = CHUNK_BYTES };
	struct xalloc_arena_stat stat = { .size = sizeof(stat) };
	static struct xalloc_uring fixed, second_fixed;
	unsigned int i, nr_chunks = 0, random = 1;
	struct io_uring ring, second_ring;
	struct xalloc_uring_bufs bufs;
	struct xalloc_arena *arena;
	struct xalloc_heap *heap;
	size_t bytes = 0;
	int sockets[2];
	int fd;

	if (argc != 2) {
		fprintf(stderr, "Usage: xalloc-uring FILE\n");
		return 2;
	}
	fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0600);
	if (fd < 0)
		die("%s: %s", argv[1], strerror(errno));
	arena = xalloc_arena_create(&config);
	heap = arena ? xalloc_heap_create(arena) : NULL;
	if (!heap)
		die("no arena: %s", arena_advice(errno));
	make_ring(&ring, &fixed, arena);
	for (i = 0; i < NR_BLOCKS; i++) {
		sizes[i] = SECTOR * (1 + next_random(&random) % 256);
		blocks[i] = xalloc_heap_aligned_alloc(heap, SECTOR, sizes[i]);
		need_block(blocks[i], arena);
		memset(blocks[i], 0, sizes[i]);
		bytes += sizes[i];
	}
	/* Hears of the chunks that are there. */
	make_ring(&second_ring, &second_fixed, arena);

	for (i = 0; i < NR_BLOCKS; i++)
		fill_block(blocks[i], i, sizes[i]);
	move_blocks(&fixed, fd, true);
	for (i = 0; i < NR_BLOCKS; i++)
		memset(blocks[i], 0, sizes[i]);
	move_blocks(&second_fixed, fd, false);
	for (i = 0; i < NR_BLOCKS; i++)
		compare_block(blocks[i], i, 0, sizes[i]);

	connect_loopback(sockets);
	check(xalloc_uring_bufs_create(&bufs, &ring, heap, 1, NR_BUFS, BUF_BYTES),
	      "xalloc_uring_bufs_create");
	receive(&bufs, sockets[1]);
	for (i = 0; i < NR_BLOCKS; i++)
		send_block(&fixed, &bufs, sockets, i);
	disconnect(&bufs, sockets);
	for (i = 0; i < XALLOC_URING_CHUNKS; i++)
		nr_chunks += fixed.taken[i];

	for (i = 0; i < NR_BLOCKS; i++)
		xalloc_free(blocks[i]);
	check(xalloc_uring_detach(&second_fixed), "xalloc_uring_detach");
	io_uring_queue_exit(&second_ring);
	xalloc_uring_bufs_destroy(&bufs);
	xalloc_arena_trim(arena);
	for (i = 0; i < XALLOC_URING_CHUNKS; i++)
		if (fixed.taken[i])
			die("fixed buffer %u is there after its chunk went back", i);
	check(xalloc_arena_stats(arena, &stat), "xalloc_arena_stats");
	if (stat.committed_bytes)
		die("%llu bytes stay", (unsigned long long)stat.committed_bytes);
	check(xalloc_uring_detach(&fixed), "xalloc_uring_detach");
	io_uring_queue_exit(&ring);
	xalloc_arena_destroy(arena);
	close(fd);
	printf("%zu bytes in %d blocks of %u fixed buffers: written, read by a second ring and sent to provided buffers, each byte right\n",
	       bytes, NR_BLOCKS, nr_chunks);
	return 0;
}
