# SPDX-License-Identifier: MIT
"""Tests of xalloc.py. scripts/tests/python runs them. To run them in this folder by hand:

    LD_LIBRARY_PATH=../../build/lib XALLOC_BACKEND=local python3 -m unittest
"""
import doctest
import errno
import gc
import multiprocessing.resource_sharer
import os
import pickle
import re
import subprocess
import sys
import tempfile
import textwrap
import threading
import unittest

import numpy

import xalloc

LOCAL = os.environ.get("XALLOC_BACKEND") == "local"
NR_ARRAYS = 1_000_000
METHODS = ("spawn", "fork", "forkserver")
DOCUMENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "Documentation",
                        "python.rst")


def load_tests(loader, tests, _pattern):
    """Adds the examples of the document as a test, unless tests are asked for by name."""
    if not loader.testNamePatterns:
        tests.addTests(doctest.DocFileSuite(DOCUMENT, module_relative=False))
    return tests


def nr_blocks():
    """Returns how many blocks the arenas of this process hold."""
    return sum(arena["nr_blocks"] for arena in xalloc.stats()["arenas"])


def nr_descriptors():
    """Returns how many descriptors of arenas this process has. Arenas are files of one device."""
    if LOCAL:
        return 0
    arena = xalloc.Arena(2 << 20)
    device = os.fstat(arena.fileno()).st_dev
    with os.scandir("/proc/self/fd") as entries:
        # stat() follows each link, also that of a socket or a pipe.
        return [entry.stat().st_dev for entry in entries].count(device)


def run(program, *args):
    """Runs a program in Python, which finds this module. Returns what it prints."""
    done = subprocess.run([sys.executable, "-c", program, *args], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.path.dirname(xalloc.__file__)},
                          check=False)
    return done.returncode, done.stdout, done.stderr


def in_child(function):
    """Runs the function in a child of fork. Returns the exit status of the child."""
    pid = os.fork()
    if pid == 0:
        # Python prints what a destructor raises, and goes on. Here the child fails instead.
        sys.unraisablehook = lambda _: os._exit(2)
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Counted(unittest.TestCase):
    """Checks that a test leaves no block, arena or descriptor behind."""

    def setUp(self):
        xalloc.empty(1)
        before = self.count()
        self.addCleanup(lambda: self.assertEqual(before, self.count()))

    @staticmethod
    def count():
        gc.collect()
        return nr_blocks(), len(xalloc.stats()["arenas"]), nr_descriptors()


class Arrays(Counted):
    def test_a_million_are_made_and_dropped(self):
        for number in range(NR_ARRAYS):
            # Most arrays have up to 8 KiB. One in a thousand has 160 to 400 KiB.
            size = number * 37 % 1024 if number % 1000 else 20000 + number % 30000
            one = xalloc.empty(size)
            self.assertEqual(size, one.size)
            if number % 100_000 == 0:
                self.assertEqual(1, nr_blocks())
        del one
        self.assertEqual(0, nr_blocks())

    def test_many_live_at_a_time(self):
        arrays = [xalloc.array(number) for number in range(10_000)]
        self.assertEqual(10_000, nr_blocks())
        self.assertEqual(list(range(10_000)), [int(each) for each in arrays])
        del arrays[::2]
        self.assertEqual(5_000, nr_blocks())

    def test_a_view_keeps_the_block(self):
        whole = xalloc.array(numpy.arange(1000).reshape(20, 50))
        view = whole[::2, 10:].T
        want = view.sum()
        del whole
        self.assertEqual(1, nr_blocks())
        self.assertEqual(want, view.sum())
        view = view[0, 1:].reshape(3, 3)
        self.assertEqual(1, nr_blocks())
        del view
        self.assertEqual(0, nr_blocks())

    def test_a_result_is_not_on_the_block(self):
        total = xalloc.zeros(1000) + 1
        self.assertEqual(0, nr_blocks())
        self.assertEqual(1000, total.sum())

    def test_shapes_and_types(self):
        record = numpy.dtype([("name", "S8"), ("value", "f4"), ("when", "M8[s]")])
        for shape in (0, 7, (), (0, 3), (2, 3, 4), [5, 6], numpy.int64(3)):
            for dtype in (float, "u1", "c16", record, (float, (2, 2))):
                one, other = xalloc.zeros(shape, dtype), numpy.zeros(shape, dtype)
                self.assertEqual((other.shape, other.dtype), (one.shape, one.dtype))
                self.assertEqual(other.tobytes(), one.tobytes())
                self.assertTrue(one.flags.writeable and one.flags.c_contiguous)

    def test_zeros_are_zero_where_others_wrote(self):
        for size in (10, 5000, 100_000, 3 << 20):
            xalloc.empty(size, "u1").fill(255)
            self.assertFalse(xalloc.zeros(size, "u1").any())
            self.assertFalse(xalloc.zeros(size, "u1", align=8192).any())

    def test_alignment(self):
        for align in (64, 512, 4096, 2 << 20):
            for size in (1, 5000, 70_000):
                for make in (xalloc.empty, xalloc.zeros):
                    self.assertEqual(0, make(size, "u1", align=align).ctypes.data % align)

    def test_values(self):
        self.assertEqual([[1, 2], [3, 4]], xalloc.array([[1, 2], [3, 4]]).tolist())
        self.assertEqual("float32", xalloc.array([1], "f4").dtype)
        self.assertEqual(b"abc", xalloc.array(numpy.frombuffer(b"abc", "S1")).tobytes())

    def test_refusals(self):
        for shape, dtype, error in ((-1, float, ValueError), ((-1, -1), float, ValueError),
                                    ((1 << 40, 1 << 40), float, ValueError),
                                    (1.5, float, TypeError), (1, object, TypeError),
                                    (1, [("a", "i4"), ("b", "O")], TypeError)):
            with self.subTest(shape=shape, dtype=dtype):
                self.assertRaises(error, xalloc.empty, shape, dtype)
                self.assertRaises(error, xalloc.zeros, shape, dtype)
        for align in (0, -64, 3, 1 << 65):
            for make in (xalloc.empty, xalloc.zeros, xalloc.buffer):
                self.assertRaises((ValueError, OSError), make, 1, align=align)

    def test_memory_that_is_refused(self):
        for make in (xalloc.empty, xalloc.zeros, lambda size: xalloc.buffer(8 * size)):
            self.assertRaises(MemoryError, make, 1 << 45)
            with self.assertRaises(OSError) as caught:
                make(1 << 45)
            self.assertEqual(errno.ENOMEM, caught.exception.errno)

    @unittest.skipIf(os.path.exists("/dev/xalloc"), "/dev/xalloc exists")
    def test_without_the_device(self):
        self.assertEqual((0, "2\n", ""), run(
            "import os\n"
            "del os.environ['XALLOC_BACKEND']\n"
            "import xalloc\n"
            "try:\n"
            "    xalloc.buffer(1)\n"
            "except FileNotFoundError as error:\n"
            "    print(error.errno)\n"))

    def test_threads_drop_what_others_made(self):
        arrays = [[xalloc.array(number) for number in range(1000)] for _ in range(4)]

        def swap(mine):
            mine[:] = [each + xalloc.array(1) for each in mine]
            for number in range(1000):
                mine[number] = xalloc.array(mine[number])

        threads = [threading.Thread(target=swap, args=(each,)) for each in arrays]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(4000, nr_blocks())
        self.assertEqual(4 * sum(range(1, 1001)), sum(int(one) for each in arrays for one in each))

    def test_a_cycle_is_collected(self):
        cycle = [xalloc.zeros(100), xalloc.buffer(100)]
        cycle.append(cycle)
        del cycle
        gc.collect()
        self.assertEqual(0, nr_blocks())

    def test_arrays_that_live_at_exit(self):
        self.assertEqual((0, "1.0\n", ""), run(
            "import atexit, xalloc\n"
            "a = xalloc.zeros(100)\n"
            "b = xalloc.buffer(100, arena=xalloc.Arena(2 << 20))\n"
            "atexit.register(lambda: print(a[50] + 1))\n"))

    def test_pickles_are_copies(self):
        copy = pickle.loads(pickle.dumps(xalloc.array([1, 2, 3])))
        self.assertEqual(0, nr_blocks())
        self.assertEqual([1, 2, 3], copy.tolist())


class Buffers(Counted):
    def test_a_buffer_is_bytes_of_zero(self):
        for size in (0, 1, 100, 70_000):
            one = xalloc.buffer(size)
            self.assertEqual((size, "B", 1), (one.nbytes, one.format, one.ndim))
            self.assertEqual(bytes(size), bytes(one))
            self.assertFalse(one.readonly)

    def test_release_frees(self):
        with xalloc.buffer(100) as data:
            data[:5] = b"hello"
            part = data[:5]
        self.assertEqual(1, nr_blocks())
        self.assertEqual(b"hello", bytes(part))
        part.release()
        self.assertEqual(0, nr_blocks())
        self.assertRaises(ValueError, lambda: data[0])

    def test_the_kernel_reads_into_them(self):
        with tempfile.TemporaryFile() as file:
            file.write(bytes(range(256)))
            file.flush()
            data, numbers = xalloc.buffer(100), xalloc.empty(39, "i4")
            self.assertEqual(256, os.preadv(file.fileno(), [data, numbers], 0))
            self.assertEqual(bytes(range(100)), bytes(data))
            self.assertEqual(bytes(range(100, 256)), numbers.tobytes())

    def test_an_array_is_a_buffer(self):
        one = xalloc.array([1, 2, 3], "i4")
        view = memoryview(one)
        del one
        self.assertEqual([1, 2, 3], view.tolist())
        view[1] = 7
        self.assertEqual([1, 7, 3], view.tolist())

    def test_an_array_on_a_buffer(self):
        one = numpy.frombuffer(xalloc.buffer(80), "f8")
        self.assertEqual(1, nr_blocks())
        self.assertEqual(0, one.sum())

    def test_dlpack(self):
        one = xalloc.array(numpy.arange(12.0).reshape(3, 4))
        self.assertEqual((1, 0), one.__dlpack_device__())
        other = numpy.from_dlpack(one)
        one[0, 0] = 5
        del one
        self.assertEqual(1, nr_blocks())
        self.assertEqual(5 + 66, other.sum())
        del other
        capsule = xalloc.zeros(3).__dlpack__()
        self.assertEqual(1, nr_blocks())
        del capsule


class Arenas(Counted):
    def test_an_arena_lives_as_long_as_its_arrays(self):
        arena = xalloc.Arena(4 << 20)
        one, data = xalloc.zeros(1000, arena=arena), xalloc.buffer(1000, arena=arena)
        arenas = len(xalloc.stats()["arenas"])
        del arena
        one[:], data[:3] = 1, b"abc"
        self.assertEqual(arenas, len(xalloc.stats()["arenas"]))
        del one
        self.assertEqual(arenas, len(xalloc.stats()["arenas"]))
        del data
        self.assertEqual(arenas - 1, len(xalloc.stats()["arenas"]))

    def test_one_array_fills_an_arena(self):
        arena = xalloc.Arena(4 << 20)
        one = xalloc.empty(4 << 20, "u1", arena=arena)
        self.assertRaises(MemoryError, xalloc.empty, 1, arena=arena)
        del one
        self.assertEqual(4 << 20, xalloc.zeros(4 << 20, "u1", arena=arena).size)

    def test_a_limit(self):
        arena = xalloc.Arena(16 << 20, limit=4 << 20)
        arrays = [xalloc.empty(1 << 20, "u1", arena=arena) for _ in range(4)]
        with self.assertRaises(xalloc.MemoryRefused):
            xalloc.empty(1 << 20, "u1", arena=arena)
        del arrays

    def test_handles(self):
        arena = xalloc.Arena(4 << 20)
        one = xalloc.array([1, 2, 3], arena=arena)
        arena_id, offset = xalloc.handle(one)
        self.assertEqual(xalloc.Handle(arena_id, offset + 8), xalloc.handle(one[1:]))
        other = arena.at(offset, 3, one.dtype)
        other[2] = 9
        self.assertEqual([1, 2, 9], one.tolist())
        data = xalloc.buffer(100)
        self.assertEqual(xalloc.handle(data).offset + 10, xalloc.handle(data[10:]).offset)
        self.assertNotEqual(arena_id, xalloc.handle(data).arena_id)
        self.assertRaises(FileNotFoundError, xalloc.handle, numpy.zeros(1))

    def test_at_stays_in_the_arena(self):
        arena = xalloc.Arena(2 << 20)
        self.assertEqual((2 << 20) - 1, arena.at(1, (2 << 20) - 1, "u1").size)
        for offset, size in ((2, (2 << 20) - 1), (2 << 20, 0), (0, (2 << 20) + 1)):
            self.assertRaises(OSError, arena.at, offset, size, "u1")
        self.assertRaises(ValueError, arena.at, -1, 1)
        self.assertRaises(ValueError, arena.at, 1 << 64, 1)

    def test_at_keeps_the_arena(self):
        arena = xalloc.Arena(2 << 20)
        arenas = len(xalloc.stats()["arenas"])
        view = arena.at(0, 10)
        del arena
        self.assertEqual(arenas, len(xalloc.stats()["arenas"]))
        del view
        self.assertEqual(arenas - 1, len(xalloc.stats()["arenas"]))

    def test_a_cycle_with_its_arena(self):
        for _ in range(20):
            arena = xalloc.Arena(2 << 20)
            with_array = [arena, xalloc.zeros(100, arena=arena)]
            with_array.append(with_array)
            arena = xalloc.Arena(2 << 20)
            with_buffer = [arena, xalloc.buffer(100, arena=arena)]
            with_buffer.append(with_buffer)
        del arena, with_array, with_buffer
        gc.collect()
        self.assertEqual(0, nr_blocks())

    def test_refusals(self):
        self.assertRaises(KeyError, xalloc.Arena, 2 << 20, pages="tiny")
        self.assertRaises(OSError, xalloc.Arena, 1 << 62)
        self.assertRaises(ValueError, xalloc.Arena, -1)
        self.assertRaises(OSError, xalloc.Arena.open, "/nonexistent")
        self.assertRaises(OSError, xalloc.Arena.from_fd, -1)

    @unittest.skipIf(LOCAL, "the local backend has no arenas with names")
    def test_a_name(self):
        path = f"/run/xalloc/test-python-{os.getpid()}"
        arena = xalloc.Arena(4 << 20, path=path)
        self.addCleanup(os.unlink, path)
        self.assertRaises(FileExistsError, xalloc.Arena, 4 << 20, path=path)
        one = xalloc.array([1, 2, 3], "i4", arena=arena)
        self.assertEqual((0, "[1, 2, 3]\n", ""), run(
            "import sys, xalloc\n"
            "print(xalloc.Arena.open(sys.argv[1]).at(int(sys.argv[2]), 3, 'i4').tolist())\n",
            path, str(xalloc.handle(one).offset)))


class Forks(Counted):
    def test_a_child_frees_nothing_of_its_parent(self):
        kept = [xalloc.array([1, 2, 3]), xalloc.array([4], arena=xalloc.Arena(2 << 20)),
                xalloc.buffer(10)]
        before = nr_blocks()

        def drop():
            kept.clear()
            gc.collect()
            mine = xalloc.zeros(1000)
            assert nr_blocks() == 1 and mine.sum() == 0

        self.assertEqual(0, in_child(drop))
        self.assertEqual(before, nr_blocks())
        self.assertEqual([1, 2, 3, 4], [*kept[0].tolist(), *kept[1].tolist()])

    def test_children_of_children(self):
        kept = [xalloc.array([1, 2, 3]), xalloc.array([4], arena=xalloc.Arena(2 << 20))]

        def go(depth):
            mine = [xalloc.zeros(10) for _ in range(5)]
            assert depth == 0 or in_child(lambda: go(depth - 1)) == 0
            kept.clear()
            assert nr_blocks() == len(mine)

        # The library remembers the addresses of four forebears. These are more.
        self.assertEqual(0, in_child(lambda: go(12)))
        self.assertEqual([1, 2, 3, 4], [*kept[0].tolist(), *kept[1].tolist()])

    def test_dropped_by_a_hook_of_fork(self):
        # In the child the hook runs before that of xalloc.
        self.assertEqual((0, "3.0\n", ""), run(
            "import os\n"
            "kept = []\n"
            "os.register_at_fork(after_in_child=kept.clear)\n"
            "import xalloc\n"
            "kept += [xalloc.zeros(9), xalloc.zeros(9, arena=xalloc.Arena(2 << 20))]\n"
            "kept.append(xalloc.buffer(9, arena=xalloc.Arena(2 << 20)))\n"
            "pid = os.fork()\n"
            "if pid == 0:\n"
            "    os._exit(xalloc.zeros(1000).any() or sum(\n"
            "        arena['nr_blocks'] for arena in xalloc.stats()['arenas']))\n"
            "assert os.waitpid(pid, 0) == (pid, 0)\n"
            "kept[0] += 1\n"
            "kept[1] += 2\n"
            "print(kept[0][8] + kept[1][8])\n"))

    def test_an_arena_of_the_parent_is_none_of_the_child(self):
        arena = xalloc.Arena(2 << 20)

        def use():
            try:
                xalloc.empty(1, arena=arena)
            except OSError as error:
                assert error.errno == errno.ESTALE
            else:
                raise AssertionError

        self.assertEqual(0, in_child(use))


def add_one(shared, answers):
    """Runs in a child."""
    shared.array[...] += 1
    answers.put((shared.array.sum(), shared.array.shape))


def pass_on(answers):
    """Runs in a child: makes a Shared, passes it on, and waits until the parent has it."""
    shared = xalloc.Shared(1000, "i8")
    shared.array[:] = 3
    answers.put(shared)
    answers.join()


def total(shared):
    return int(shared.array.sum())


class Sharing(Counted):
    @unittest.skipUnless(LOCAL, "the device has memory that processes share")
    def test_the_local_backend_refuses(self):
        with self.assertRaisesRegex(OSError, "XALLOC_BACKEND=local") as caught:
            xalloc.Shared(10)
        self.assertEqual(errno.EOPNOTSUPP, caught.exception.errno)


@unittest.skipIf(LOCAL, "processes cannot share memory of the local backend")
class SharingOnTheDevice(Counted):
    def setUp(self):
        super().setUp()
        # Its thread keeps descriptors that are on their way to a child. This ends the thread.
        self.addCleanup(multiprocessing.resource_sharer.stop)

    def test_each_way_to_start_a_child(self):
        for method in METHODS:
            with self.subTest(method):
                context = multiprocessing.get_context(method)
                shared = xalloc.Shared((20, 50), "i8")
                shared.array[:] = numpy.arange(1000).reshape(20, 50)
                answers = context.Queue()
                for turn in range(1, 3):
                    child = context.Process(target=add_one, args=(shared, answers))
                    child.start()
                    self.assertEqual((sum(range(1000)) + 1000 * turn, (20, 50)), answers.get())
                    child.join()
                    self.assertEqual(0, child.exitcode)
                self.assertEqual(sum(range(1000)) + 2000, shared.array.sum())

    def test_a_pool(self):
        for method in METHODS:
            with self.subTest(method), multiprocessing.get_context(method).Pool(2) as pool:
                arrays = [xalloc.Shared(number + 1, "i8") for number in range(5)]
                for each in arrays:
                    each.array[:] = 2
                self.assertEqual([2, 4, 6, 8, 10], pool.map(total, arrays))

    def test_memory_outlives_who_made_it(self):
        for method in METHODS:
            with self.subTest(method):
                context = multiprocessing.get_context(method)
                answers = context.JoinableQueue()
                maker = context.Process(target=pass_on, args=(answers,))
                maker.start()
                shared = answers.get()
                answers.task_done()
                maker.join()
                self.assertEqual((0, 3000), (maker.exitcode, shared.array.sum()))

    def test_an_array_outlives_the_object(self):
        one = xalloc.Shared(100, "i8").array
        one += 1
        self.assertEqual(100, one.sum())

    def test_dropped_in_the_parent_first(self):
        shared = xalloc.Shared(100, "i8")
        shared.array[:] = 1
        answers = multiprocessing.get_context("spawn").Queue()
        child = multiprocessing.get_context("spawn").Process(target=add_one,
                                                             args=(shared, answers))
        child.start()
        del shared
        gc.collect()
        self.assertEqual((200, (100,)), answers.get())
        child.join()

    def test_a_fork_has_the_object_without_a_pickle(self):
        shared = xalloc.Shared(10, "i8")

        def go(depth):
            shared.array[:] += 1
            assert depth == 0 or in_child(lambda: go(depth - 1)) == 0

        self.assertEqual(0, in_child(lambda: go(6)))
        self.assertEqual([7] * 10, shared.array.tolist())

    def test_sizes(self):
        for size in (0, 1, 64 << 10, (64 << 10) + 1, 2 << 20, (2 << 20) + 1, 6 << 20):
            shared = xalloc.Shared(size, "u1")
            self.assertFalse(shared.array.any())
            shared.array[:] = 7
            self.assertEqual(7 * size, shared.array.sum())

    def test_nothing_stays(self):
        for _ in range(200):
            xalloc.Shared(1000).array.fill(1)

    def test_the_documents_example(self):
        with open(DOCUMENT, encoding="utf-8") as file:
            block = re.search(r"^    import multiprocessing\n(?:    .*\n|\n)*", file.read(), re.M)
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "example.py")
            with open(path, "w", encoding="utf-8") as file:
                file.write(textwrap.dedent(block[0]))
            # A child of spawn imports the example, and so needs more of it than other children.
            self.assertEqual((0, "4000\n", ""), run(
                "import multiprocessing, runpy, sys\n"
                "multiprocessing.set_start_method('spawn')\n"
                "runpy.run_path(sys.argv[1], run_name='__main__')\n", path))


if __name__ == "__main__":
    unittest.main()
