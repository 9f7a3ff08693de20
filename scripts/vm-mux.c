// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vm-mux.h"

void mux_init(struct mux *m, int fd, void (*handle)(enum mux_type, const char *, size_t))
{
	memset(m, 0, sizeof(*m));
	m->fd = fd;
	m->handle = handle;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

void mux_open_source(struct mux *m, int stream, int fd)
{
	m->streams[stream].fd = fd;
	m->streams[stream].open = true;
}

void mux_open_sink(struct mux *m, int stream, int fd, uint32_t window)
{
	struct mux_stream *s = &m->streams[stream];

	s->fd = fd;
	s->open = true;
	s->incoming = true;
	s->window = window;
	mux_send(m, MUX_CREDIT, stream, &window, sizeof(window));
}

static void close_stream(struct mux *m, int stream)
{
	struct mux_stream *s = &m->streams[stream];

	close(s->fd);
	s->open = false;
	s->nr = 0;
	mux_send(m, MUX_END, stream, NULL, 0);
}

static void write_channel(struct mux *m)
{
	while (m->nr_out && m->fd >= 0) {
		ssize_t n = write(m->fd, m->out + m->first_out, m->nr_out);

		if (n < 0) {
			if (errno == EPIPE || errno == ECONNRESET)
				m->fd = -1;
			return;
		}
		m->first_out += n;
		m->nr_out -= n;
	}
	m->first_out = 0;
}

void mux_send(struct mux *m, enum mux_type type, int stream, const void *data, size_t len)
{
	struct mux_frame frame = { .type = type, .stream = stream, .len = len };
	char *at;

	if (m->fd < 0)
		return;
	if (m->first_out + m->nr_out + sizeof(frame) + len > sizeof(m->out)) {
		memmove(m->out, m->out + m->first_out, m->nr_out);
		m->first_out = 0;
	}
	/* Cannot be: see @out; what is not data of a stream is a few bytes. */
	if (m->nr_out + sizeof(frame) + len > sizeof(m->out))
		abort();
	at = m->out + m->first_out + m->nr_out;
	memcpy(at, &frame, sizeof(frame));
	if (len)
		memcpy(at + sizeof(frame), data, len);
	m->nr_out += sizeof(frame) + len;
	write_channel(m);
}

static void receive_data(struct mux *m, int stream, const char *data, size_t len)
{
	struct mux_stream *s = &m->streams[stream];
	size_t at, end;

	if (!s->open)
		return;
	if (!s->incoming || s->nr + len > sizeof(s->buf))
		abort();
	at = (s->first + s->nr) % sizeof(s->buf);
	end = len < sizeof(s->buf) - at ? len : sizeof(s->buf) - at;
	memcpy(s->buf + at, data, end);
	memcpy(s->buf, data + end, len - end);
	s->nr += len;
	s->owed += sizeof(struct mux_frame);
}

static void receive_end(struct mux *m, int stream)
{
	struct mux_stream *s = &m->streams[stream];

	if (!s->open)
		return;
	if (s->incoming && s->nr)
		s->ending = true;
	else
		close_stream(m, stream);
}

static void read_channel(struct mux *m)
{
	struct mux_frame frame;
	ssize_t n = read(m->fd, m->in + m->nr_in, sizeof(m->in) - 1 - m->nr_in);
	size_t at = 0;

	if (n <= 0) {
		if (!n || (errno != EAGAIN && errno != EINTR))
			m->fd = -1;
		return;
	}
	m->nr_in += n;
	while (m->nr_in - at >= sizeof(frame)) {
		char *data = m->in + at + sizeof(frame);

		memcpy(&frame, m->in + at, sizeof(frame));
		if (frame.len > MUX_PAYLOAD_BYTES || frame.stream >= MUX_STREAMS) {
			fprintf(stderr, "vm: bytes that are no frame on the guest's channel\n");
			m->fd = -1;
			return;
		}
		if (m->nr_in - at < sizeof(frame) + frame.len)
			break;
		if (frame.type == MUX_DATA) {
			receive_data(m, frame.stream, data, frame.len);
		} else if (frame.type == MUX_END) {
			receive_end(m, frame.stream);
		} else if (frame.type == MUX_CREDIT) {
			uint32_t credit;

			memcpy(&credit, data, sizeof(credit));
			m->streams[frame.stream].credit += credit;
		} else {
			char next = data[frame.len];

			data[frame.len] = '\0';
			m->handle(frame.type, data, frame.len);
			data[frame.len] = next;
		}
		at += sizeof(frame) + frame.len;
	}
	memmove(m->in, m->in + at, m->nr_in - at);
	m->nr_in -= at;
}

/*
 * Only after POLLOUT, and then at most PIPE_BUF bytes, because a pipe that polls
 * writable takes that much without blocking. O_NONBLOCK is not ours to set: it would
 * change the file for everyone who shares it.
 */
static void write_stream(struct mux *m, int stream)
{
	struct mux_stream *s = &m->streams[stream];
	uint32_t len = s->nr;
	ssize_t n;

	if (len > sizeof(s->buf) - s->first)
		len = sizeof(s->buf) - s->first;
	if (len > PIPE_BUF)
		len = PIPE_BUF;
	n = write(s->fd, s->buf + s->first, len);
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			close_stream(m, stream);
		return;
	}
	s->first = (s->first + n) % sizeof(s->buf);
	s->nr -= n;
	s->owed += n;
	if (s->ending && !s->nr) {
		close_stream(m, stream);
	} else if (s->owed >= s->window / 4) {
		mux_send(m, MUX_CREDIT, stream, &s->owed, sizeof(s->owed));
		s->owed = 0;
	}
}

static void read_stream(struct mux *m, int stream)
{
	struct mux_stream *s = &m->streams[stream];
	char buf[MUX_PAYLOAD_BYTES];
	size_t len = s->credit - sizeof(struct mux_frame);
	ssize_t n = read(s->fd, buf, len < sizeof(buf) ? len : sizeof(buf));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* A pseudo-terminal that nobody has open any more reads as EIO. */
	if (n <= 0) {
		close_stream(m, stream);
		return;
	}
	s->credit -= sizeof(struct mux_frame) + n;
	mux_send(m, MUX_DATA, stream, buf, n);
}

void mux_wait(struct mux *m, struct pollfd *extra, int timeout_ms)
{
	struct pollfd pfd[MUX_STREAMS + 2];

	for (int i = 0; i < MUX_STREAMS; i++) {
		struct mux_stream *s = &m->streams[i];

		pfd[i].fd = s->open ? s->fd : -1;
		pfd[i].events = 0;
		if (s->incoming && s->nr)
			pfd[i].events = POLLOUT;
		else if (!s->incoming && s->credit > sizeof(struct mux_frame) &&
			 m->nr_out < sizeof(m->out) / 2)
			pfd[i].events = POLLIN;
		/* Otherwise poll() would report its end, which is not to be read yet. */
		else if (!s->incoming)
			pfd[i].fd = -1;
	}
	pfd[MUX_STREAMS].fd = m->fd;
	pfd[MUX_STREAMS].events = POLLIN | (m->nr_out ? POLLOUT : 0);
	pfd[MUX_STREAMS + 1] = *extra;

	if (poll(pfd, MUX_STREAMS + 2, timeout_ms) < 0) {
		extra->revents = 0;
		return;
	}
	*extra = pfd[MUX_STREAMS + 1];
	if (pfd[MUX_STREAMS].revents & POLLOUT)
		write_channel(m);
	if (pfd[MUX_STREAMS].revents & (POLLIN | POLLHUP | POLLERR) && m->fd >= 0)
		read_channel(m);
	for (int i = 0; i < MUX_STREAMS; i++) {
		struct mux_stream *s = &m->streams[i];

		if (!pfd[i].revents || !s->open)
			continue;
		if (!s->incoming)
			read_stream(m, i);
		else if (pfd[i].revents & (POLLERR | POLLHUP | POLLNVAL))
			close_stream(m, i);
		else if (s->nr)
			write_stream(m, i);
	}
}
