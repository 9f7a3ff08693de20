/* SPDX-License-Identifier: MIT */
/*
 * libxalloc for C++17: containers in pinned huge-page memory.
 *
 *	std::vector<float, xalloc::allocator<float>> samples(1 << 20);
 *
 *	xalloc::memory_resource resource(heap);
 *	std::pmr::vector<packet> packets(&resource);
 *
 * Both hand the size back when they free, so that a container which confuses sizes is found. What
 * <libxalloc.h> says of threads, fork and errors holds here too; where it gives NULL there is
 * std::bad_alloc.
 */
#ifndef LIBXALLOC_HPP
#define LIBXALLOC_HPP

#include <cstddef>
#include <limits>
#include <memory_resource>
#include <new>

#include <libxalloc.h>

namespace xalloc
{

/* The default heap, or a heap of an arena, which must live longer than what is allocated. */
class memory_resource : public std::pmr::memory_resource
{
      public:
	explicit memory_resource(xalloc_heap *heap = nullptr) noexcept : heap_(heap)
	{
	}

	xalloc_heap *heap() const noexcept
	{
		return heap_;
	}

      private:
	void *do_allocate(std::size_t bytes, std::size_t alignment) override
	{
		void *ptr = heap_ ? xalloc_heap_aligned_alloc(heap_, alignment, bytes) :
				    xalloc_aligned_alloc(alignment, bytes);

		if (!ptr)
			throw std::bad_alloc();
		return ptr;
	}

	void do_deallocate(void *ptr, std::size_t bytes, std::size_t alignment) override
	{
		xalloc_free_aligned_sized(ptr, alignment, bytes);
	}

	bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override
	{
		auto *same = dynamic_cast<const memory_resource *>(&other);

		return same && same->heap_ == heap_;
	}

	xalloc_heap *heap_;
};

/* The default heap, without a state. */
template <class T> class allocator
{
      public:
	using value_type = T;

	allocator() noexcept = default;

	template <class U> allocator(const allocator<U> &) noexcept
	{
	}

	[[nodiscard]] T *allocate(std::size_t nr)
	{
		if (nr > std::numeric_limits<std::size_t>::max() / sizeof(T))
			throw std::bad_array_new_length();
		void *ptr = xalloc_aligned_alloc(alignof(T), nr * sizeof(T));
		if (!ptr)
			throw std::bad_alloc();
		return static_cast<T *>(ptr);
	}

	void deallocate(T *ptr, std::size_t nr) noexcept
	{
		xalloc_free_aligned_sized(ptr, alignof(T), nr * sizeof(T));
	}
};

template <class T, class U> bool operator==(const allocator<T> &, const allocator<U> &) noexcept
{
	return true;
}

template <class T, class U> bool operator!=(const allocator<T> &, const allocator<U> &) noexcept
{
	return false;
}

} // namespace xalloc

#endif /* LIBXALLOC_HPP */
