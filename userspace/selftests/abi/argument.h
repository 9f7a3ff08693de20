/* SPDX-License-Identifier: GPL-2.0-only */
/* For tests that make every call: a structure of any of them. */
#ifndef XALLOC_ARGUMENT_H
#define XALLOC_ARGUMENT_H

#include <linux/xalloc.h>

union argument {
	/* Room for the largest structure and for what a later version may append. */
	unsigned char bytes[256];
	__u32 size;
	struct xalloc_ioc_info info;
	struct xalloc_ioc_stat stat;
	struct xalloc_ioc_arena_create create;
	struct xalloc_ioc_grant grant;
	struct xalloc_ioc_free free;
	struct xalloc_ioc_reserve reserve;
	struct xalloc_ioc_trim trim;
	struct xalloc_ioc_attach attach;
	struct xalloc_ioc_limit limit;
	struct xalloc_ioc_list list;
	struct xalloc_ioc_claim claim;
	struct xalloc_ioc_export export;
	struct xalloc_ioc_fork_prepare fork_prepare;
	struct xalloc_ioc_meta meta;
	struct xalloc_ioc_dump dump;
};

#endif /* XALLOC_ARGUMENT_H */
