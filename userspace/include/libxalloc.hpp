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
 * <libxalloc.h> says of threads, fork and errors holds here too; but where memory is refused they
 * call the std::new_handler until there is some, and without a handler, and for other errors,
 * throw std::bad_alloc. With -fno-exceptions the program then aborts after one line on stderr. With
 * -fno-rtti a memory_resource is equal to itself only. All files of a program that include this
 * header must agree about both options.
 */
#ifndef LIBXALLOC_HPP
#define LIBXALLOC_HPP

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory_resource>
#include <new>

#include <libxalloc.h>

namespace xalloc
{

namespace detail
{

template <class Error> [[noreturn]] inline void fail()
{
#ifdef __cpp_exceptions
	throw Error();
#else
	std::fputs("xalloc: memory was refused; the program ends, as it has no exceptions\n",
		   stderr);
	std::abort();
#endif
}

/* In the default heap without @heap. */
inline void *allocate(xalloc_heap *heap, std::size_t alignment, std::size_t bytes)
{
	for (;;) {
		void *ptr = heap ? xalloc_heap_aligned_alloc(heap, alignment, bytes) :
				   xalloc_aligned_alloc(alignment, bytes);

		if (ptr)
			return ptr;
		/* A handler can free memory, which no other error is about. */
		std::new_handler handler = errno == ENOMEM ? std::get_new_handler() : nullptr;
		if (!handler)
			fail<std::bad_alloc>();
		handler();
	}
}

} // namespace detail

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
		return detail::allocate(heap_, alignment, bytes);
	}

	void do_deallocate(void *ptr, std::size_t bytes, std::size_t alignment) override
	{
		xalloc_free_aligned_sized(ptr, alignment, bytes);
	}

	bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override
	{
#ifdef __cpp_rtti
		auto *same = dynamic_cast<const memory_resource *>(&other);

		return same && same->heap_ == heap_;
#else
		return this == &other;
#endif
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
			detail::fail<std::bad_array_new_length>();
		return static_cast<T *>(detail::allocate(nullptr, alignof(T), nr * sizeof(T)));
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
