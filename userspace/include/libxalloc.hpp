/* SPDX-License-Identifier: MIT */
/*
 * libxalloc for C++17: containers, arenas, heaps and buffers in pinned huge-page memory.
 *
 *	std::vector<float, xalloc::allocator<float>> samples(1 << 20);
 *
 *	xalloc::arena arena(256 << 20);
 *	xalloc::heap heap(arena);
 *	xalloc::buffer<float> frame(heap, 640 * 480);
 *	std::vector<int, xalloc::heap_allocator<int>> numbers(heap);
 *
 *	xalloc::memory_resource resource(heap.get());
 *	std::pmr::vector<packet> packets(&resource);
 *
 * Containers hand the size back when they free, so that a container which confuses sizes is found.
 * What <libxalloc.h> says of threads and fork holds here too.
 *
 * Where a block is refused, the std::new_handler is called until there is memory. Without a
 * handler, and for other errors, std::bad_alloc is thrown. Where an arena, a heap or a call on one
 * is refused, std::system_error is thrown with the errno that <libxalloc.h> names. With
 * -fno-exceptions the program aborts instead, after one line on stderr. A program that must go on
 * after a refusal calls <libxalloc.h> directly, and passes a result that is not NULL to the
 * constructor of an arena or a heap.
 *
 * With -fno-rtti a memory_resource is equal to itself only. All files of a program that include
 * this header must agree about both options.
 */
#ifndef LIBXALLOC_HPP
#define LIBXALLOC_HPP

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <memory_resource>
#include <new>
#include <system_error>
#include <type_traits>
#include <utility>

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

[[noreturn]] inline void fail(int error, const char *call)
{
#ifdef __cpp_exceptions
	throw std::system_error(error, std::generic_category(), call);
#else
	std::fprintf(stderr, "xalloc: %s: %s; the program ends, as it has no exceptions\n", call,
		     std::strerror(error));
	std::abort();
#endif
}

/* Returns @ptr, which is what @call has returned; NULL is an error, with errno. */
template <class T> T *not_null(T *ptr, const char *call)
{
	if (!ptr)
		fail(errno, call);
	return ptr;
}

/* Returns @ptr, which is what an object owns: NULL if the object was moved from. */
template <class T> T *not_moved(T *ptr, const char *call)
{
	if (!ptr)
		fail(EINVAL, call);
	return ptr;
}

struct destroy {
	void operator()(xalloc_arena *arena) const noexcept
	{
		xalloc_arena_destroy(arena);
	}

	void operator()(xalloc_heap *heap) const noexcept
	{
		xalloc_heap_destroy(heap);
	}
};

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

template <class T> T *allocate_array(xalloc_heap *heap, std::size_t nr, std::size_t alignment)
{
	if (nr > std::numeric_limits<std::size_t>::max() / sizeof(T))
		fail<std::bad_array_new_length>();
	return static_cast<T *>(allocate(heap, alignment, nr * sizeof(T)));
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
		return detail::allocate_array<T>(nullptr, nr, alignof(T));
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

/*
 * An arena, which is destroyed with the object. It must live longer than its heaps. After a move
 * get() returns nullptr, and trim() and each constructor that needs the arena fail with EINVAL.
 */
class arena
{
      public:
	/* @bytes is its size and its limit. @path is as in xalloc_arena_config. */
	explicit arena(std::size_t bytes, const char *path = nullptr) : arena(config(bytes, path))
	{
	}

	explicit arena(const xalloc_arena_config &config) : arena(xalloc_arena_create(&config))
	{
	}

	/* Owns what a call of <libxalloc.h> has just returned. NULL is an error: see errno. */
	explicit arena(xalloc_arena *created) : arena_(detail::not_null(created, "arena"))
	{
	}

	static arena open(const char *path)
	{
		return arena(xalloc_arena_open(path));
	}

	xalloc_arena *get() const noexcept
	{
		return arena_.get();
	}

	void trim()
	{
		int ret = xalloc_arena_trim(detail::not_moved(get(), "arena::trim"));

		if (ret < 0)
			detail::fail(-ret, "arena::trim");
	}

      private:
	static xalloc_arena_config config(std::size_t bytes, const char *path) noexcept
	{
		xalloc_arena_config config = {};

		config.size = sizeof(config);
		config.arena_bytes = bytes;
		config.path = path;
		return config;
	}

	std::unique_ptr<xalloc_arena, detail::destroy> arena_;
};

/*
 * A heap over an arena, which is destroyed with the object. That frees all its blocks, so the heap
 * must live longer than the buffers and containers in it. After a move get() returns nullptr, and
 * allocate() and each constructor that needs the heap fail with EINVAL. Buffers and containers stay
 * in a heap that moves.
 */
class heap
{
      public:
	explicit heap(const arena &arena)
		: heap(xalloc_heap_create(detail::not_moved(arena.get(), "heap")))
	{
	}

	/* Owns what xalloc_heap_create() has just returned. NULL is an error: see errno. */
	explicit heap(xalloc_heap *created) : heap_(detail::not_null(created, "heap"))
	{
	}

	xalloc_heap *get() const noexcept
	{
		return heap_.get();
	}

	[[nodiscard]] void *allocate(std::size_t bytes,
				     std::size_t alignment = alignof(std::max_align_t))
	{
		return detail::allocate(detail::not_moved(get(), "heap::allocate"), alignment,
					bytes);
	}

	/* With the size and the alignment that were asked for. */
	void deallocate(void *ptr, std::size_t bytes,
			std::size_t alignment = alignof(std::max_align_t)) noexcept
	{
		xalloc_free_aligned_sized(ptr, alignment, bytes);
	}

      private:
	std::unique_ptr<xalloc_heap, detail::destroy> heap_;
};

/*
 * An allocator bound to a heap. When a container is moved or swapped, its allocator goes with its
 * elements, which stay where they are. A container that is assigned a copy keeps its allocator.
 */
template <class T> class heap_allocator
{
      public:
	using value_type = T;
	using propagate_on_container_move_assignment = std::true_type;
	using propagate_on_container_swap = std::true_type;

	heap_allocator(const heap &heap) : heap_(detail::not_moved(heap.get(), "heap_allocator"))
	{
	}

	template <class U>
	heap_allocator(const heap_allocator<U> &other) noexcept : heap_(other.get())
	{
	}

	[[nodiscard]] T *allocate(std::size_t nr)
	{
		return detail::allocate_array<T>(heap_, nr, alignof(T));
	}

	void deallocate(T *ptr, std::size_t nr) noexcept
	{
		xalloc_free_aligned_sized(ptr, alignof(T), nr * sizeof(T));
	}

	xalloc_heap *get() const noexcept
	{
		return heap_;
	}

      private:
	xalloc_heap *heap_;
};

template <class T, class U>
bool operator==(const heap_allocator<T> &a, const heap_allocator<U> &b) noexcept
{
	return a.get() == b.get();
}

template <class T, class U>
bool operator!=(const heap_allocator<T> &a, const heap_allocator<U> &b) noexcept
{
	return !(a == b);
}

/*
 * One block of size() elements, which is freed with the object. What they hold at first is
 * undefined. A buffer that was moved from has no elements.
 */
template <class T = std::byte> class buffer
{
	static_assert(std::is_trivially_default_constructible_v<T> &&
			      std::is_trivially_copyable_v<T>,
		      "nothing constructs or destroys the elements of a buffer");

      public:
	/* In the default heap. */
	explicit buffer(std::size_t nr, std::size_t alignment = alignof(T))
		: data_(detail::allocate_array<T>(nullptr, nr, alignment)), nr_(nr)
	{
	}

	buffer(const heap &heap, std::size_t nr, std::size_t alignment = alignof(T))
		: data_(detail::allocate_array<T>(detail::not_moved(heap.get(), "buffer"), nr,
						  alignment)),
		  nr_(nr)
	{
	}

	buffer(buffer &&other) noexcept
		: data_(std::move(other.data_)), nr_(std::exchange(other.nr_, 0))
	{
	}

	buffer &operator=(buffer &&other) noexcept
	{
		data_ = std::move(other.data_);
		nr_ = std::exchange(other.nr_, 0);
		return *this;
	}

	std::size_t size() const noexcept
	{
		return nr_;
	}

	T *data() noexcept
	{
		return data_.get();
	}

	const T *data() const noexcept
	{
		return data_.get();
	}

	T *begin() noexcept
	{
		return data_.get();
	}

	const T *begin() const noexcept
	{
		return data_.get();
	}

	T *end() noexcept
	{
		return data() + nr_;
	}

	const T *end() const noexcept
	{
		return data() + nr_;
	}

	T &operator[](std::size_t i) noexcept
	{
		return data_[i];
	}

	const T &operator[](std::size_t i) const noexcept
	{
		return data_[i];
	}

      private:
	struct free {
		void operator()(T *ptr) const noexcept
		{
			xalloc_free(ptr);
		}
	};

	std::unique_ptr<T[], free> data_;
	std::size_t nr_;
};

} // namespace xalloc

#endif /* LIBXALLOC_HPP */
