// SPDX-License-Identifier: MIT
#include <cstdio>
#include <libxalloc.hpp>
#include <vector>

int main()
{
	xalloc::arena arena(64 << 20);
	xalloc::heap heap(arena);
	xalloc::buffer<float> pixels(heap, 640 * 480);
	std::vector<int, xalloc::heap_allocator<int>> rows(480, 0, heap);

	pixels[0] = 1;
	std::printf("%zu pixels and %zu rows, pinned in one arena\n", pixels.size(), rows.size());
	return 0;
}
