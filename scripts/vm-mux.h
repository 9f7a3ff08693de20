/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The channel between scripts/vm and its guest: one byte stream each way that carries
 * the command's stdin, stdout and stderr and what both ends tell each other.
 *
 * A frame is a struct mux_frame and @len bytes. A stream flows one way. Its receiver
 * grants credit for as many bytes as it has room to store, frames' heads counted, so
 * that a stream nobody reads stops alone and never holds up the channel. Both ends say
 * MUX_END once: the sender after its last byte, the receiver when nobody will read any
 * more.
 */
#ifndef VM_MUX_H
#define VM_MUX_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mux_type {
	MUX_HELLO = 'H',   /* guest: the kernel reached user space */
	MUX_DATA = 'D',    /* bytes of a stream */
	MUX_END = 'E',     /* of a stream, from either end */
	MUX_CREDIT = 'C',  /* of a stream: uint32_t, bytes it may send beyond those so far */
	MUX_WINSIZE = 'W', /* host: struct winsize of its terminal */
	MUX_PING = 'p',    /* host: answer me */
	MUX_PONG = 'P',    /* guest: here */
	MUX_DUMP = 'T',    /* host: write what hangs to the kernel log */
	MUX_FAILED = 'F',  /* guest: text; the command's status is worth nothing */
	MUX_STATUS = 'S',  /* guest: uint32_t, status of the command; the last frame */
};

#define MUX_STREAMS 3
#define MUX_WINDOW_BYTES (128U << 10)
#define MUX_PAYLOAD_BYTES (16U << 10)

struct mux_frame {
	uint8_t type;
	uint8_t stream;
	uint16_t len;
};

struct mux_stream {
	int fd;
	bool incoming; /* from the channel to @fd */
	bool open;
	bool ending;        /* incoming: the sender is done, @nr bytes are left */
	uint32_t credit;    /* outgoing: bytes the receiver has room for */
	uint32_t first, nr; /* incoming: the bytes of @buf not yet written to @fd */
	uint32_t window;    /* incoming: credit in all */
	uint32_t owed;      /* incoming: credit that came back since it was last granted */
	char buf[MUX_WINDOW_BYTES];
};

struct mux {
	int fd; /* -1 once the other end is gone */
	struct mux_stream streams[MUX_STREAMS];
	/* Called for frames that concern no stream. @data has a NUL after its end. */
	void (*handle)(enum mux_type type, const char *data, size_t len);
	size_t nr_in, first_out, nr_out;
	char in[sizeof(struct mux_frame) + MUX_PAYLOAD_BYTES + 1];
	/* Streams are not read while more than half of it is full; the rest is slack. */
	char out[MUX_WINDOW_BYTES];
};

void mux_init(struct mux *m, int fd, void (*handle)(enum mux_type, const char *, size_t));
/* Opens a stream from @fd to the channel, or from the channel to @fd. */
void mux_open_source(struct mux *m, int stream, int fd);
void mux_open_sink(struct mux *m, int stream, int fd, uint32_t window);
void mux_send(struct mux *m, enum mux_type type, int stream, const void *data, size_t len);
/* Moves what can be moved; waits for that, or for @extra, at most @timeout_ms. */
void mux_wait(struct mux *m, struct pollfd *extra, int timeout_ms);

#endif
