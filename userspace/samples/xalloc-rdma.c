// SPDX-License-Identifier: MIT
/*
 * xalloc-rdma: blocks of one process, written and read by another through RDMA
 *
 *	xalloc-rdma
 *
 * Two processes connect a queue pair each, on the first RDMA device of the machine. The client
 * writes 64 MiB in pieces of many sizes into blocks of the server, and reads other data back. Both
 * compare checksums. A write with a wrong key has to be refused. Ends with status 4 where there is
 * no device; "rdma link add rxe0 type rxe netdev eth0" makes one of a network interface.
 */
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xalloc-verbs.h>

#include "data.h"

#define TOTAL_BYTES ((size_t)64 << 20)
#define MAX_BLOCKS 2048
/* For several chunks of the arena. */
#define CHUNK_BYTES ((size_t)16 << 20)
#define ARENA_BYTES (8 * CHUNK_BYTES)
#define ACCESS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ)
#define MAX_GIDS 16

/* What each side tells the other to connect. */
struct address {
	union ibv_gid gid;
	uint32_t qp_num;
};

struct side {
	const char *name;
	int channel; /* a socket to the other side */
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	struct xalloc_arena *arena;
	struct xalloc_verbs verbs;
	unsigned char *blocks[MAX_BLOCKS];
	size_t sizes[MAX_BLOCKS];
	unsigned int nr_blocks;
};

static void check(int error, const char *what)
{
	if (error)
		die("%s: %s", what, strerror(error < 0 ? -error : error));
}

static void tell(const struct side *side, const void *data, size_t bytes)
{
	if (send(side->channel, data, bytes, MSG_NOSIGNAL) != (ssize_t)bytes)
		die("%s: the other side is gone", side->name);
}

static void hear(const struct side *side, void *data, size_t bytes)
{
	if (recv(side->channel, data, bytes, MSG_WAITALL) != (ssize_t)bytes)
		die("%s: the other side is gone", side->name);
}

static void open_device(struct side *side)
{
	struct ibv_device **devices = ibv_get_device_list(NULL);
	struct ibv_qp_init_attr attr = {
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1 }
	};

	side->context = devices && devices[0] ? ibv_open_device(devices[0]) : NULL;
	if (!side->context)
		die("ibv_open_device: %s", strerror(errno));
	ibv_free_device_list(devices);
	side->pd = ibv_alloc_pd(side->context);
	side->cq = ibv_create_cq(side->context, 1, NULL, NULL, 0);
	if (!side->pd || !side->cq)
		die("no protection domain or completion queue: %s", strerror(errno));
	attr.send_cq = side->cq;
	attr.recv_cq = side->cq;
	side->qp = ibv_create_qp(side->pd, &attr);
	if (!side->qp)
		die("ibv_create_qp: %s", strerror(errno));
}

/* The one of an IPv4 address, if there is one. */
static struct ibv_gid_entry choose_gid(const struct side *side)
{
	static const unsigned char ipv4[12] = { [10] = 0xff, [11] = 0xff };
	struct ibv_gid_entry entries[MAX_GIDS];
	ssize_t nr = ibv_query_gid_table(side->context, entries, MAX_GIDS, 0);
	ssize_t i;

	if (nr <= 0)
		die("the device has no address");
	for (i = 0; i < nr; i++)
		if (!memcmp(entries[i].gid.raw, ipv4, sizeof(ipv4)))
			return entries[i];
	return entries[0];
}

static void connect_sides(struct side *side)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT,
				    .port_num = 1,
				    .qp_access_flags = ACCESS };
	struct ibv_gid_entry gid = choose_gid(side);
	struct address here = { .gid = gid.gid, .qp_num = side->qp->qp_num }, there;
	struct ibv_port_attr port;

	check(ibv_query_port(side->context, 1, &port), "ibv_query_port");
	tell(side, &here, sizeof(here));
	hear(side, &there, sizeof(there));
	check(ibv_modify_qp(side->qp, &attr,
			    IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
	      "queue pair to INIT");
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR,
				     .path_mtu = port.active_mtu,
				     .dest_qp_num = there.qp_num,
				     .max_dest_rd_atomic = 1,
				     .min_rnr_timer = 12,
				     .ah_attr = { .is_global = 1,
						  .port_num = 1,
						  .grh = { .dgid = there.gid,
							   .sgid_index = gid.gid_index,
							   .hop_limit = 1 } } };
	check(ibv_modify_qp(side->qp, &attr,
			    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
				    IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
				    IBV_QP_MIN_RNR_TIMER),
	      "queue pair to RTR");
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS,
				     .timeout = 18,
				     .retry_cnt = 7,
				     .rnr_retry = 7,
				     .max_rd_atomic = 1 };
	check(ibv_modify_qp(side->qp, &attr,
			    IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
				    IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC),
	      "queue pair to RTS");
}

/* Both sides have blocks of the same sizes. */
static void get_blocks(struct side *side)
{
	const struct xalloc_arena_config config = { .size = sizeof(config),
						    .arena_bytes = ARENA_BYTES,
						    .chunk_bytes = CHUNK_BYTES };
	struct xalloc_heap *heap;
	unsigned int random = 1;
	size_t left, size;

	side->arena = xalloc_arena_create(&config);
	heap = side->arena ? xalloc_heap_create(side->arena) : NULL;
	if (!heap)
		die("no arena: %s", arena_advice(errno));
	check(xalloc_verbs_attach(&side->verbs, side->pd, ACCESS, side->arena),
	      "xalloc_verbs_attach");
	for (left = TOTAL_BYTES; left; left -= size) {
		size = next_size(&random);
		if (size > left)
			size = left;
		if (side->nr_blocks == MAX_BLOCKS)
			die("more than %d blocks", MAX_BLOCKS);
		side->blocks[side->nr_blocks] = xalloc_heap_malloc(heap, size);
		if (!side->blocks[side->nr_blocks])
			die("no block: %s", block_advice(side->arena, ARENA_BYTES));
		side->sizes[side->nr_blocks++] = size;
	}
}

static void fill(struct side *side, unsigned int seed)
{
	unsigned int i;
	size_t at;

	for (i = 0; i < side->nr_blocks; i++)
		for (at = 0; at < side->sizes[i]; at++)
			side->blocks[i][at] = seed * byte_of(i, at);
}

/* FNV-1a of all blocks. */
static uint64_t checksum(const struct side *side)
{
	uint64_t sum = 0xcbf29ce484222325;
	unsigned int i;
	size_t at;

	for (i = 0; i < side->nr_blocks; i++)
		for (at = 0; at < side->sizes[i]; at++)
			sum = (sum ^ side->blocks[i][at]) * 0x100000001b3;
	return sum;
}

static void tell_checksum(const struct side *side)
{
	uint64_t sum = checksum(side);

	tell(side, &sum, sizeof(sum));
}

static void compare_checksums(const struct side *side, const char *what)
{
	uint64_t theirs, ours = checksum(side);

	hear(side, &theirs, sizeof(theirs));
	if (ours != theirs)
		die("%s: %016llx here, %016llx on the server", what, (unsigned long long)ours,
		    (unsigned long long)theirs);
}

static enum ibv_wc_status move_block(struct side *side, enum ibv_wr_opcode opcode,
				     unsigned int block, struct xalloc_verbs_remote remote)
{
	struct ibv_sge sge;
	struct ibv_send_wr *bad,
		wr = { .sg_list = &sge,
		       .num_sge = 1,
		       .opcode = opcode,
		       .send_flags = IBV_SEND_SIGNALED,
		       .wr.rdma = { .remote_addr = remote.address, .rkey = remote.rkey } };
	struct ibv_wc wc;
	int nr;

	check(xalloc_verbs_sge(&side->verbs, side->blocks[block], side->sizes[block], &sge),
	      "xalloc_verbs_sge");
	check(ibv_post_send(side->qp, &wr, &bad), "ibv_post_send");
	do
		nr = ibv_poll_cq(side->cq, 1, &wc);
	while (!nr);
	if (nr < 0)
		die("ibv_poll_cq failed");
	return wc.status;
}

static void move_blocks(struct side *side, enum ibv_wr_opcode opcode,
			const struct xalloc_verbs_remote *remotes)
{
	enum ibv_wc_status status;
	unsigned int i;

	for (i = 0; i < side->nr_blocks; i++) {
		status = move_block(side, opcode, i, remotes[i]);
		if (status)
			die("block %u: %s", i, ibv_wc_status_str(status));
	}
}

static void close_side(struct side *side)
{
	unsigned int i;

	for (i = 0; i < side->nr_blocks; i++)
		xalloc_free(side->blocks[i]);
	xalloc_arena_trim(side->arena);
	for (i = 0; i < side->nr_blocks; i++)
		if (xalloc_verbs_mr(&side->verbs, side->blocks[i]))
			die("%s: a chunk is registered after it went back", side->name);
	check(xalloc_verbs_detach(&side->verbs), "xalloc_verbs_detach");
	check(xalloc_arena_destroy(side->arena), "xalloc_arena_destroy");
	check(ibv_destroy_qp(side->qp), "ibv_destroy_qp");
	check(ibv_destroy_cq(side->cq), "ibv_destroy_cq");
	check(ibv_dealloc_pd(side->pd), "ibv_dealloc_pd");
	check(ibv_close_device(side->context), "ibv_close_device");
}

static void serve(struct side *side)
{
	static struct xalloc_verbs_remote remotes[MAX_BLOCKS];
	unsigned int i;
	char order;

	fill(side, 0);
	for (i = 0; i < side->nr_blocks; i++)
		check(xalloc_verbs_remote(&side->verbs, side->blocks[i], &remotes[i]),
		      "xalloc_verbs_remote");
	tell(side, remotes, sizeof(remotes));
	hear(side, &order, 1);
	/* What the client wrote. */
	tell_checksum(side);
	fill(side, 5);
	/* What the client shall read. */
	tell_checksum(side);
	hear(side, &order, 1);
	/* The same still, after the refused write. */
	tell_checksum(side);
}

static void ask(struct side *side)
{
	static struct xalloc_verbs_remote remotes[MAX_BLOCKS];
	enum ibv_wc_status status;
	uint64_t theirs;

	hear(side, remotes, sizeof(remotes));
	fill(side, 3);
	move_blocks(side, IBV_WR_RDMA_WRITE, remotes);
	tell(side, "w", 1);
	compare_checksums(side, "written");
	hear(side, &theirs, sizeof(theirs));
	fill(side, 0);
	move_blocks(side, IBV_WR_RDMA_READ, remotes);
	if (checksum(side) != theirs)
		die("what was read is wrong");
	/* The low byte of a key is the one that changes with each registration. */
	remotes[0].rkey ^= 1;
	/* A byte that the server does not have. */
	side->blocks[0][0] ^= 1;
	status = move_block(side, IBV_WR_RDMA_WRITE, 0, remotes[0]);
	if (status != IBV_WC_REM_ACCESS_ERR)
		die("a write with a wrong key: %s", ibv_wc_status_str(status));
	side->blocks[0][0] ^= 1;
	tell(side, "k", 1);
	compare_checksums(side, "after the write with a wrong key");
}

static bool has_device(void)
{
	int nr = 0;
	struct ibv_device **devices = ibv_get_device_list(&nr);

	if (devices)
		ibv_free_device_list(devices);
	return nr > 0;
}

int main(void)
{
	static struct side side;
	int sockets[2], status;
	pid_t server;

	if (!has_device())
		skip("no RDMA device");
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
		die("socketpair: %s", strerror(errno));
	server = fork();
	if (server < 0)
		die("fork: %s", strerror(errno));
	side.name = server ? "client" : "server";
	side.channel = sockets[!server];
	close(sockets[!!server]);
	open_device(&side);
	connect_sides(&side);
	get_blocks(&side);
	if (!server) {
		serve(&side);
		close_side(&side);
		return 0;
	}
	ask(&side);
	close_side(&side);
	if (waitpid(server, &status, 0) != server || status)
		die("the server failed");
	printf("%zu bytes in %u blocks: written and read by another process, checksums of both sides equal; a wrong key was refused\n",
	       TOTAL_BYTES, side.nr_blocks);
	return 0;
}
