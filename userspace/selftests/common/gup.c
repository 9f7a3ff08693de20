// SPDX-License-Identifier: GPL-2.0-only
#include "gup.h"

bool has_ram_disk(void)
{
	static const char *const modprobe[] = {
		"modprobe", "brd", "rd_nr=1", "rd_size=65536", NULL
	};

	if (access(RAM_DISK, F_OK))
		program_run(modprobe);
	return !access(RAM_DISK, R_OK | W_OK);
}

int ring_setup(struct io_uring *ring)
{
	return io_uring_queue_init(8, ring, 0);
}

int ring_transfer(struct io_uring *ring, bool is_write, int fd, void *addr, size_t bytes,
		  uint64_t file_offset)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int rc;

	if (is_write)
		io_uring_prep_write_fixed(sqe, fd, addr, bytes, file_offset, 0);
	else
		io_uring_prep_read_fixed(sqe, fd, addr, bytes, file_offset, 0);
	rc = io_uring_submit_and_wait(ring, 1);
	if (rc < 0)
		return rc;
	rc = io_uring_wait_cqe(ring, &cqe);
	if (rc)
		return rc;
	rc = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return rc;
}
