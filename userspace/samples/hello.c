// SPDX-License-Identifier: MIT
#include <libxalloc.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
	struct xalloc_block_handle handle;
	char *block = xalloc_malloc(3000000);

	if (!block) {
		perror("xalloc_malloc");
		return 1;
	}
	strcpy(block, "pinned, in huge pages, until it is freed");
	xalloc_handle(block, &handle);
	printf("%s\n", block);
	printf("arena %llu, offset %llu\n", (unsigned long long)handle.arena_id,
	       (unsigned long long)handle.offset);
	xalloc_free(block);
	return 0;
}
