// SPDX-License-Identifier: GPL-2.0-only
#include "events.h"
#include "helpers.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TRACING "/sys/kernel/tracing/"

bool probe_make(const char *name, const char *function, const char *fields)
{
	char line[160];

	snprintf(line, sizeof(line), "p:xalloc/%s %s %s", name, function, fields);
	return !access(TRACING "kprobe_events", W_OK) && write_text(TRACING "kprobe_events", line);
}

void probe_remove(const char *name)
{
	char line[80];

	snprintf(line, sizeof(line), "-:xalloc/%s", name);
	write_text(TRACING "kprobe_events", line);
}

int events_open(const char *event, const char *filter)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_TRACEPOINT, .size = sizeof(attr) };
	char path[128];
	long long id;
	int fd;

	snprintf(path, sizeof(path), TRACING "events/%s/id", event);
	id = read_number(path);
	if (id < 0)
		return -ENODEV;
	attr.config = (uint64_t)id;
	fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (filter && ioctl(fd, PERF_EVENT_IOC_SET_FILTER, filter)) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

uint64_t events_read(int counter)
{
	uint64_t nr = 0;

	return read(counter, &nr, sizeof(nr)) == sizeof(nr) ? nr : UINT64_MAX;
}
