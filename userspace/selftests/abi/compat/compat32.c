// SPDX-License-Identifier: GPL-2.0-only
/*
 * A 32-bit program of system calls alone, for a machine whose C library is a 64-bit one: creates
 * an arena, writes to a page of it by a mapping, and takes all of it back. Its exit status is
 * 0, or the number of the step that failed.
 */
#include <linux/xalloc.h>

#define SYS_EXIT 1
#define SYS_OPEN 5
#define SYS_CLOSE 6
#define SYS_IOCTL 54
#define SYS_MUNMAP 91
#define SYS_MMAP2 192
#define READ_WRITE 2		/* O_RDWR */
#define PROT_READ_WRITE 3
#define SHARED 1		/* MAP_SHARED */

#define ARENA_BYTES (4UL << 20)

/* With %ebp as sixth argument, which the compiler does not hand out. */
static long call(long nr, long a, long b, long c, long d, long e)
{
	long result;

	__asm__ volatile("push %%ebp\n\txor %%ebp, %%ebp\n\tint $0x80\n\tpop %%ebp"
			 : "=a"(result)
			 : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
			 : "memory");
	return result;
}

static int steps(void)
{
	struct xalloc_ioc_info info = { .size = sizeof(info) };
	struct xalloc_ioc_arena_create create = {
		.size = sizeof(create), .arena_bytes = ARENA_BYTES,
	};
	struct xalloc_page_grant page = { .nr_slices = 33, .tag = 0x123456789abcdefULL };
	struct xalloc_page_info found;
	struct xalloc_ioc_grant grant = { .size = sizeof(grant), .nr = 1 };
	struct xalloc_ioc_list list = { .size = sizeof(list), .nr = 1 };
	struct xalloc_ioc_free release = { .size = sizeof(release), .nr = 1 };
	struct xalloc_range range = { .bytes = 0 };
	struct xalloc_ioc_stat stat = { .size = sizeof(stat) };
	long device = call(SYS_OPEN, (long)"/dev/xalloc", READ_WRITE, 0, 0, 0), arena, map;

	if (device < 0)
		return 1;
	if (call(SYS_IOCTL, device, XALLOC_IOC_INFO, (long)&info, 0, 0) ||
	    info.segment_bytes != XALLOC_SEGMENT_BYTES)
		return 2;
	arena = call(SYS_IOCTL, device, XALLOC_IOC_ARENA_CREATE, (long)&create, 0, 0);
	if (arena < 0 || !create.client_id)
		return 3;
	grant.pages = (unsigned long)&page;
	if (call(SYS_IOCTL, arena, XALLOC_IOC_GRANT, (long)&grant, 0, 0) != 1)
		return 4;
	map = call(SYS_MMAP2, 0, ARENA_BYTES, PROT_READ_WRITE, SHARED, arena);
	if (map < 0 && map > -4096)
		return 5;
	*(volatile unsigned int *)(map + (unsigned long)page.offset + (33UL << 16) - 4) = 42;
	list.pages = (unsigned long)&found;
	if (call(SYS_IOCTL, arena, XALLOC_IOC_LIST, (long)&list, 0, 0) != 1 ||
	    found.tag != page.tag || found.client_id != create.client_id ||
	    list.offset != ARENA_BYTES)
		return 6;
	if (call(SYS_IOCTL, arena, XALLOC_IOC_STAT, (long)&stat, 0, 0) ||
	    stat.granted_bytes != 33ULL << 16 || stat.committed_bytes != ARENA_BYTES)
		return 7;
	range.offset = page.offset;
	release.flags = XALLOC_FREE_RANGES;
	release.offsets = (unsigned long)&range;
	if (call(SYS_IOCTL, arena, XALLOC_IOC_FREE, (long)&release, 0, 0) != 1)
		return 8;
	if (call(SYS_MUNMAP, map, ARENA_BYTES, 0, 0, 0) || call(SYS_CLOSE, arena, 0, 0, 0, 0))
		return 9;
	return 0;
}

__attribute__((force_align_arg_pointer)) void _start(void)
{
	call(SYS_EXIT, steps(), 0, 0, 0, 0);
}
