// SPDX-License-Identifier: GPL-2.0-only
/*
 * Arenas, heaps, buffers and heap_allocator of libxalloc.hpp. scripts/tests/hpp builds this with
 * each compiler and runs it on the local backend. Each case runs in a child, because some abort.
 * Prints the cases that failed.
 */
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <libxalloc.hpp>
#include <list>
#include <map>
#include <string>
#include <sys/wait.h>
#include <type_traits>
#include <unistd.h>
#include <unordered_map>
#include <utility>
#include <vector>
#if __cplusplus >= 202002L
#include <span>
#endif

#define CHECK(condition)                                                                            \
	do {                                                                                        \
		if (!(condition)) {                                                                 \
			std::printf("line %d: %s\n", __LINE__, #condition);                         \
			return 1;                                                                   \
		}                                                                                   \
	} while (0)

template <class T>
constexpr bool only_moves = std::is_nothrow_move_constructible_v<T> &&
			    std::is_nothrow_move_assignable_v<T> &&
			    !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T>;

static_assert(only_moves<xalloc::arena>);
static_assert(only_moves<xalloc::heap>);
static_assert(only_moves<xalloc::buffer<int>>);
static_assert(!std::allocator_traits<xalloc::heap_allocator<int>>::is_always_equal::value);

struct alignas(256) line {
	char bytes[256];
};

template <class T> using vector = std::vector<T, xalloc::heap_allocator<T>>;
using string = std::basic_string<char, std::char_traits<char>, xalloc::heap_allocator<char>>;

static xalloc_arena_stat stats_of(const xalloc::arena &arena)
{
	xalloc_arena_stat stat = {};

	stat.size = sizeof(stat);
	if (xalloc_arena_stats(arena.get(), &stat))
		std::abort();
	return stat;
}

static int containers()
{
	xalloc::arena arena(64 << 20);
	{
		xalloc::heap heap(arena);
		vector<int> numbers(heap);
		vector<line> lines(10, heap);
		std::map<int, string, std::less<int>,
			 xalloc::heap_allocator<std::pair<const int, string>>>
			names(heap);
		std::unordered_map<int, int, std::hash<int>, std::equal_to<int>,
				   xalloc::heap_allocator<std::pair<const int, int>>>
			squares(heap);
		std::list<int, xalloc::heap_allocator<int>> list(1000, 7, heap);

		for (int i = 0; i < 1000; i++) {
			numbers.push_back(i);
			names.emplace(i, string(100, 'x', heap));
			squares[i] = i * i;
		}
		CHECK(numbers[999] == 999 && names.at(999).size() == 100 && squares[999] == 998001);
		CHECK(list.back() == 7);
		CHECK(reinterpret_cast<std::uintptr_t>(lines.data()) % 256 == 0);
		/* 1000 strings, three times 1000 nodes, two arrays and the table of squares. */
		CHECK(stats_of(arena).nr_blocks >= 4003);
	}
	CHECK(stats_of(arena).nr_blocks == 0 && stats_of(arena).nr_heaps == 0);
	return 0;
}

static int equality()
{
	xalloc::arena arena(64 << 20);
	xalloc::heap one(arena), two(arena);
	xalloc::heap_allocator<int> ints(one), others(two);
	xalloc::heap_allocator<line> lines(ints);

	CHECK(ints == lines && !(ints != lines) && ints == xalloc::heap_allocator<int>(one));
	CHECK(ints != others && !(ints == others));

	/* A block may go back by an equal allocator of another type. */
	std::allocator_traits<decltype(lines)>::rebind_alloc<int> again(lines);
	again.deallocate(ints.allocate(10), 10);
	CHECK(stats_of(arena).nr_blocks == 0);
	return 0;
}

/* Elements stay in place when a container is moved or swapped, also between heaps. */
static int moved_containers()
{
	xalloc::arena arena(64 << 20);
	xalloc::heap one(arena), two(arena), home(arena);
	vector<int> a(1000, 1, one), b(1000, 2, two), copy(two);
	const int *was_a = a.data(), *was_b = b.data();

	std::swap(a, b);
	CHECK(a.data() == was_b && b.data() == was_a);
	CHECK(a.get_allocator() == xalloc::heap_allocator<int>(two));
	b = std::move(a);
	CHECK(b.data() == was_b && b.get_allocator() == xalloc::heap_allocator<int>(two));

	vector<int> c(1000, 3, one);
	copy = c;
	CHECK(copy == c && copy.get_allocator() == xalloc::heap_allocator<int>(two));

	/* The heap moves, and the containers stay in it. */
	home = std::move(one);
	c.resize(100000);
	CHECK(c.get_allocator() == xalloc::heap_allocator<int>(home) && !one.get());
	return 0;
}

static int moved_owners()
{
	xalloc::arena arena(64 << 20), other(64 << 20);
	xalloc::heap heap(arena), second(arena);

	CHECK(stats_of(arena).nr_heaps == 2);
	second = std::move(heap);
	CHECK(stats_of(arena).nr_heaps == 1);
	heap = xalloc::heap(arena);
	CHECK(stats_of(arena).nr_heaps == 2);

	xalloc_arena *was = arena.get();
	xalloc::arena moved(std::move(arena));
	CHECK(moved.get() == was && !arena.get());
	/* Destroys the arena that it had. */
	other = std::move(moved);
	CHECK(other.get() == was && stats_of(other).nr_heaps == 2);

	std::vector<xalloc::heap> heaps;
	for (int i = 0; i < 100; i++)
		heaps.emplace_back(other);
	CHECK(stats_of(other).nr_heaps == 102);
	heaps.clear();
	CHECK(stats_of(other).nr_heaps == 2);
	return 0;
}

static int buffers()
{
	xalloc::arena arena(64 << 20);
	xalloc::heap heap(arena);
	{
		xalloc::buffer<float> frame(heap, 640 * 480), aligned(heap, 3, 4096);
		xalloc::buffer<> bytes(100), none(heap, 0);

		static_assert(std::is_same_v<decltype(bytes.data()), std::byte *>);
		CHECK(frame.size() == 640 * 480 && bytes.size() == 100 && none.size() == 0);
		CHECK(none.begin() == none.end());
		CHECK(reinterpret_cast<std::uintptr_t>(aligned.data()) % 4096 == 0);
		CHECK(stats_of(arena).nr_blocks == 3);
		for (float &pixel : frame)
			pixel = 1;
		frame[1] = 2;
		const xalloc::buffer<float> &read = frame;
		CHECK(read[0] == 1 && read.data()[1] == 2 && read.end() - read.begin() == 640 * 480);
#if __cplusplus >= 202002L
		std::span<float> span(frame);
		std::span<const float> read_span(read);
		CHECK(span.size() == frame.size() && read_span.data() == frame.data());
#endif
		float *was = frame.data();
		xalloc::buffer<float> moved(std::move(frame));
		CHECK(moved.data() == was && !frame.data() && !frame.size());
		/* Frees what it had. */
		aligned = std::move(moved);
		CHECK(aligned.data() == was && aligned.size() == 640 * 480 && !moved.size());
		CHECK(stats_of(arena).nr_blocks == 2);
	}
	CHECK(stats_of(arena).nr_blocks == 0);
	return 0;
}

/* What the calls of <libxalloc.h> return. */
static int owns_what_c_made()
{
	static char memory[1 << 20];
	xalloc_arena_stat stat = {};

	stat.size = sizeof(stat);
	{
		xalloc::arena arena(xalloc_arena_adopt(memory, sizeof(memory)));
		xalloc::heap heap(arena);
		xalloc::buffer<char> text(heap, 100);

		CHECK(text.data() >= memory && text.data() < memory + sizeof(memory));
		CHECK(xalloc_arena_adopt(memory, sizeof(memory)) == nullptr);
	}
	/* The first arena is destroyed, so the memory can be adopted again. */
	xalloc::arena again(xalloc_arena_adopt(memory, sizeof(memory)));

	xalloc_arena *general = xalloc_arena_default();
	CHECK(general && !xalloc_arena_stats(general, &stat));
	std::uint64_t nr_heaps = stat.nr_heaps;
	{
		xalloc::heap heap(xalloc_heap_create(general));
		vector<int> numbers(1000, 1, heap);

		CHECK(!xalloc_arena_stats(general, &stat) && stat.nr_heaps == nr_heaps + 1);
	}
	CHECK(!xalloc_arena_stats(general, &stat) && stat.nr_heaps == nr_heaps);
	return 0;
}

static int blocks_and_trim()
{
	xalloc::arena arena(64 << 20);
	xalloc::heap heap(arena);
	void *plain = heap.allocate(100), *aligned = heap.allocate(3000000, 1 << 20);

	CHECK(reinterpret_cast<std::uintptr_t>(aligned) % (1 << 20) == 0);
	std::memset(aligned, 1, 3000000);
	heap.deallocate(plain, 100);
	heap.deallocate(aligned, 3000000, 1 << 20);
	CHECK(stats_of(arena).nr_blocks == 0);
	arena.trim();
	CHECK(stats_of(arena).granted_bytes == 0);
	return 0;
}

/* Members are destroyed from the last to the first: the containers, the heap, the arena. */
struct device {
	xalloc::arena arena{ 64 << 20 };
	xalloc::heap heap{ arena };
	xalloc::buffer<> ring{ heap, 1 << 20 };
	vector<int> numbers{ heap };
};

static int destruction_order()
{
	xalloc_arena_config config = {};

	config.size = sizeof(config);
	config.arena_bytes = 64 << 20;
	config.limit_bytes = 4 << 20;
	for (int i = 0; i < 100; i++) {
		device device;

		device.numbers.resize(1000);
		CHECK(stats_of(device.arena).nr_blocks == 2);
	}
	xalloc::arena arena(config);
	CHECK(stats_of(arena).limit_bytes == 4 << 20);
	return 0;
}

/* A child runs the destructors of what its parent has, and changes nothing. */
static int fork_and_destroy()
{
	xalloc::arena arena(64 << 20);
	xalloc::heap heap(arena);
	xalloc::buffer<int> numbers(heap, 1000);

	numbers[999] = 1;
	std::fflush(stdout);
	pid_t child = fork();
	if (!child) {
		xalloc::arena own_arena(64 << 20);
		xalloc::heap own(own_arena);
		{
			xalloc::arena dies(std::move(arena));
			xalloc::heap dies_first(std::move(heap));
			xalloc::buffer<int> dies_before(std::move(numbers));
		}
		xalloc::buffer<int> more(own, 1000);
		_exit(stats_of(own_arena).nr_heaps == 1 && more.size() == 1000 ? 0 : 1);
	}
	int status;
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	CHECK(numbers[999] == 1 && stats_of(arena).nr_blocks == 1);
	return 0;
}

/* The cases from here on end in an error. */

static int no_name()
{
	xalloc::arena::open("/nonexistent");
	return 1;
}

static int no_limit()
{
	xalloc::arena arena(SIZE_MAX);
	return 1;
}

static int name_refused()
{
	xalloc::arena arena(64 << 20, "/run/xalloc/name");
	return 1;
}

static int moved_arena()
{
	xalloc::arena arena(64 << 20), other(std::move(arena));
	xalloc::heap heap(arena);
	return 1;
}

static int moved_arena_trim()
{
	xalloc::arena arena(64 << 20), other(std::move(arena));
	arena.trim();
	return 1;
}

static int moved_heap()
{
	xalloc::arena arena(64 << 20);
	xalloc::heap heap(arena), other(std::move(heap));
	return heap.allocate(1) ? 1 : 2;
}

static int moved_heap_allocator()
{
	xalloc::arena arena(64 << 20);
	xalloc::heap heap(arena), other(std::move(heap));
	vector<int> numbers(heap);
	return 1;
}

static int moved_heap_buffer()
{
	xalloc::arena arena(64 << 20);
	xalloc::heap heap(arena), other(std::move(heap));
	xalloc::buffer<> buffer(heap, 1);
	return 1;
}

static int buffer_refused()
{
	xalloc::arena arena(4 << 20);
	xalloc::heap heap(arena);
	xalloc::buffer<> buffer(heap, 8 << 20);
	return 1;
}

static int buffer_overflows()
{
	xalloc::buffer<line> buffer(SIZE_MAX / 8);
	return 1;
}

static int vector_refused()
{
	xalloc::arena arena(4 << 20);
	xalloc::heap heap(arena);
	vector<line> lines(heap);
	lines.resize(8 << 20);
	return 1;
}

/* The library finds these itself, and says what is wrong. */

static int heap_gone_before_buffer()
{
	xalloc::arena arena(64 << 20);
	xalloc::heap heap(arena);
	xalloc::buffer<> buffer(heap, 100);
	heap = xalloc::heap(arena);
	return 0;
}

static int freed_twice()
{
	xalloc::arena arena(64 << 20);
	xalloc::heap heap(arena);
	void *ptr = heap.allocate(100);
	heap.deallocate(ptr, 100);
	heap.deallocate(ptr, 100);
	return 0;
}

static int wrong_size()
{
	xalloc::arena arena(64 << 20);
	xalloc::heap heap(arena);
	heap.deallocate(heap.allocate(100), 1000);
	return 0;
}

/* @what: "ok", "misuse", "bad_alloc", or what std::system_error says. */
static const struct {
	const char *name;
	int (*run)();
	const char *what;
} cases[] = {
	{ "containers", containers, "ok" },
	{ "equality", equality, "ok" },
	{ "moved_containers", moved_containers, "ok" },
	{ "moved_owners", moved_owners, "ok" },
	{ "buffers", buffers, "ok" },
	{ "owns_what_c_made", owns_what_c_made, "ok" },
	{ "blocks_and_trim", blocks_and_trim, "ok" },
	{ "destruction_order", destruction_order, "ok" },
	{ "fork_and_destroy", fork_and_destroy, "ok" },
	{ "no_name", no_name, "arena: Operation not supported" },
	{ "no_limit", no_limit, "arena: File too large" },
	{ "name_refused", name_refused, "arena: Operation not supported" },
	{ "moved_arena", moved_arena, "heap: Invalid argument" },
	{ "moved_arena_trim", moved_arena_trim, "arena::trim: Invalid argument" },
	{ "moved_heap", moved_heap, "heap::allocate: Invalid argument" },
	{ "moved_heap_allocator", moved_heap_allocator, "heap_allocator: Invalid argument" },
	{ "moved_heap_buffer", moved_heap_buffer, "buffer: Invalid argument" },
	{ "buffer_refused", buffer_refused, "bad_alloc" },
	{ "buffer_overflows", buffer_overflows, "bad_alloc" },
	{ "vector_refused", vector_refused, "bad_alloc" },
	{ "heap_gone_before_buffer", heap_gone_before_buffer, "misuse" },
	{ "freed_twice", freed_twice, "misuse" },
	{ "wrong_size", wrong_size, "misuse" },
};

#define ENDS "; the program ends, as it has no exceptions\n"

/* In a child. Returns its exit status: 3 for an exception. */
static int run(int (*function)())
{
#ifdef __cpp_exceptions
	try {
		return function();
	} catch (const std::system_error &error) {
		std::fprintf(stderr, "system_error: %s\n", error.what());
	} catch (const std::bad_alloc &) {
		std::fputs("bad_alloc\n", stderr);
	}
	return 3;
#else
	return function();
#endif
}

/* Whether a program that ended with @status, and wrote @said to stderr, did so for @what. */
static bool is_right(const std::string &what, int status, const std::string &said)
{
	bool aborted = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;

	if (what == "ok")
		return status == 0 && said.empty();
	if (what == "misuse")
		return aborted && said.rfind("xalloc: xalloc_free", 0) == 0;
#ifdef __cpp_exceptions
	aborted = WIFEXITED(status) && WEXITSTATUS(status) == 3;
	return aborted && said == (what == "bad_alloc" ? what : "system_error: " + what) + "\n";
#else
	return aborted &&
	       said == "xalloc: " + (what == "bad_alloc" ? "memory was refused" : what) + ENDS;
#endif
}

int main()
{
	int bad = 0;

	for (const auto &each : cases) {
		std::string said;
		char buffer[512];
		int pipe_fds[2], status;
		ssize_t got;

		if (pipe(pipe_fds))
			return 2;
		std::fflush(stdout);
		pid_t child = fork();
		if (!child) {
			dup2(pipe_fds[1], STDERR_FILENO);
			close(pipe_fds[0]);
			close(pipe_fds[1]);
			int ret = run(each.run);
			std::fflush(stdout);
			_exit(ret);
		}
		close(pipe_fds[1]);
		while ((got = read(pipe_fds[0], buffer, sizeof(buffer))) > 0)
			said.append(buffer, static_cast<std::size_t>(got));
		close(pipe_fds[0]);
		if (waitpid(child, &status, 0) != child)
			return 2;
		if (!is_right(each.what, status, said)) {
			std::printf("%s: must be: %s; status %#x, stderr: %s\n", each.name,
				    each.what, static_cast<unsigned int>(status), said.c_str());
			bad = 1;
		}
	}
	return bad;
}
