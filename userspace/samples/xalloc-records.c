// SPDX-License-Identifier: MIT
/*
 * xalloc-records: read what a kernel module writes, in place
 *
 * The module, module/samples/xalloc_records.c, allocates its records from a heap whose arena
 * it hands out. The arena is mapped once; after that a record costs one read() of 24 bytes,
 * its handle, however long it is: the record itself is read where the kernel wrote it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "xalloc_records.h"

#define DEVICE "/dev/xalloc-records"

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "xalloc-records: %s: %s\n", what, strerror(errno));
	exit(1);
}

static _Noreturn void wrong(const char *what, uint64_t number)
{
	fprintf(stderr, "xalloc-records: record %llu: %s\n", (unsigned long long)number, what);
	exit(1);
}

struct arena {
	const uint8_t *memory;
	uint64_t bytes;
	uint64_t id;
};

static void map_arena(int device, struct arena *arena)
{
	struct xalloc_records_arena arg = { 0 };
	struct stat st;

	if (ioctl(device, XALLOC_RECORDS_IOC_ARENA, &arg))
		die("no arena");
	if (fstat(arg.fd, &st))
		die("no size of the arena");
	arena->memory = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, arg.fd, 0);
	if (arena->memory == MAP_FAILED)
		die("cannot map the arena");
	arena->bytes = st.st_size;
	arena->id = arg.arena_id;
	close(arg.fd);
}

static const struct xalloc_record *record_at(const struct arena *arena,
					     const struct xalloc_records_handle *handle)
{
	if (handle->arena_id != arena->id || handle->bytes < sizeof(struct xalloc_record) ||
	    handle->bytes > arena->bytes || handle->offset > arena->bytes - handle->bytes)
		wrong("its handle leads out of the arena", 0);
	return (const struct xalloc_record *)(arena->memory + handle->offset);
}

static void check(const struct xalloc_record *record, uint32_t bytes)
{
	uint32_t sum = 0;

	if (record->bytes != bytes)
		wrong("it is not as long as its handle says", record->number);
	for (uint32_t i = 0; i < bytes - sizeof(*record); i++)
		sum += record->data[i];
	if (sum != record->sum)
		wrong("its sum is wrong", record->number);
}

int main(int argc, char **argv)
{
	unsigned long nr = argc == 2 ? strtoul(argv[1], NULL, 0) : 0;
	struct xalloc_records_handle handle;
	uint64_t last = 0, bytes = 0;
	struct arena arena;
	int device;

	if (!nr) {
		fprintf(stderr, "Usage: xalloc-records NUMBER-OF-RECORDS\n");
		return 2;
	}
	device = open(DEVICE, O_RDONLY | O_CLOEXEC);
	if (device < 0)
		die(DEVICE);
	map_arena(device, &arena);
	for (unsigned long i = 0; i < nr; i++) {
		const struct xalloc_record *record;

		if (read(device, &handle, sizeof(handle)) != sizeof(handle))
			die("no handle");
		record = record_at(&arena, &handle);
		check(record, handle.bytes);
		if (record->number <= last)
			wrong("it came before", record->number);
		last = record->number;
		bytes += handle.bytes;
	}
	printf("%lu records, %llu bytes, read in place; %llu bytes of handles copied\n", nr,
	       (unsigned long long)bytes, (unsigned long long)(nr * sizeof(handle)));
	return 0;
}
