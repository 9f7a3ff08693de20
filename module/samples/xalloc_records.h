/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * What xalloc_records.ko and its reader, userspace/samples/xalloc-records.c, share.
 *
 * /dev/xalloc-records gives the arena in which records lie, and their handles, one by one.
 */
#ifndef XALLOC_RECORDS_H
#define XALLOC_RECORDS_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct xalloc_records_arena - where records lie
 * @fd: out: the arena, to be mapped for reading; its size is that of the file
 * @pad: must be zero
 * @arena_id: out: its id, as in the handles
 */
struct xalloc_records_arena {
	__s32 fd;
	__u32 pad;
	__aligned_u64 arena_id;
};

#define XALLOC_RECORDS_IOC_ARENA _IOWR(0xD9, 0x00, struct xalloc_records_arena)

/**
 * struct xalloc_records_handle - what a read() of the device returns
 * @arena_id: the arena
 * @offset: where the record begins in it
 * @bytes: length of the record with its head
 * @pad: zero
 *
 * The record stays where it is until the next read() on the same file, or its close().
 */
struct xalloc_records_handle {
	__aligned_u64 arena_id;
	__aligned_u64 offset;
	__u32 bytes;
	__u32 pad;
};

/**
 * struct xalloc_record - a record
 * @number: 1, 2, 3, ... in the order in which they were made; of those that could not be
 *	made for want of memory the numbers are missing
 * @bytes: as in the handle
 * @sum: sum of @data
 * @data: anything
 */
struct xalloc_record {
	__aligned_u64 number;
	__u32 bytes;
	__u32 sum;
	__u8 data[];
};

#endif /* XALLOC_RECORDS_H */
