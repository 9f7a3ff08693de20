# SPDX-License-Identifier: MIT
"""numpy arrays and buffers in pinned huge-page memory, which comes from libxalloc.

    import xalloc

    frames = xalloc.zeros((16, 1080, 1920), "u1")
    with xalloc.buffer(1 << 20, align=4096) as data:
        os.preadv(file, [data], 0)

A block of memory is freed when the last array, memoryview or view that lies in it is gone.
Documentation/python.rst shows how processes share an array.

A call that the library refuses raises OSError with the library's errno. If memory is refused,
the error is also a MemoryError.
"""
import ctypes
import errno
import json
import math
import operator
import os
import sys
import weakref
from collections import namedtuple
from multiprocessing.reduction import DupFd

__all__ = ["Arena", "Handle", "MemoryRefused", "Shared", "array", "buffer", "empty", "handle",
           "stats", "zeros"]

Handle = namedtuple("Handle", "arena_id offset")
Handle.__doc__ = "Where a block is: the id of its arena, and an offset in bytes."

_PAGES = {"huge": 0, "huge_preferred": 1, "small": 2}
_ON_NODE, _PERSIST = 1, 2
# A block of more bytes than this begins at a multiple of 4 KiB.
_SLICE = 64 << 10

# How many forks lie between the process that imported this module and this process. An object that
# has kept another number was made by a forebear. os.getpid() would be a system call for each array.
_forks = [0]


def _count_fork():
    _forks[0] += 1


os.register_at_fork(after_in_child=_count_fork)


class MemoryRefused(OSError, MemoryError):
    """ENOMEM: a limit was reached, or the machine has no memory left."""


class _Config(ctypes.Structure):
    """struct xalloc_arena_config"""
    _fields_ = [("size", ctypes.c_size_t), ("arena_bytes", ctypes.c_size_t),
                ("limit_bytes", ctypes.c_size_t), ("path", ctypes.c_char_p),
                ("flags", ctypes.c_uint), ("pages", ctypes.c_uint), ("node", ctypes.c_uint),
                ("reserved", ctypes.c_uint), ("reserve_low_bytes", ctypes.c_size_t),
                ("reserve_high_bytes", ctypes.c_size_t), ("chunk_bytes", ctypes.c_size_t)]


class _Handle(ctypes.Structure):
    """struct xalloc_block_handle"""
    _fields_ = [("arena_id", ctypes.c_uint64), ("offset", ctypes.c_uint64)]


def _fail(number):
    if number == errno.ENOMEM:
        raise MemoryRefused(number, os.strerror(number))
    raise OSError(number, os.strerror(number))


def _check(result, function, _arguments):
    """Raises OSError for NULL and for -errno."""
    if result is None:
        _fail(ctypes.get_errno())
    if function.restype is ctypes.c_int and result < 0:
        _fail(-result)
    return result


def _call(name, restype, *argtypes):
    function = getattr(_library, "xalloc_" + name)
    function.restype = restype
    function.argtypes = argtypes
    if restype:
        function.errcheck = _check
    return function


_library = ctypes.CDLL("libxalloc.so.1", use_errno=True)
_pointer, _size, _offset = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64

_calloc = _call("calloc", _pointer, _size, _size)
_aligned_alloc = _call("aligned_alloc", _pointer, _size, _size)
_free = _call("free", None, _pointer)
_heap_calloc = _call("heap_calloc", _pointer, _pointer, _size, _size)
_heap_aligned_alloc = _call("heap_aligned_alloc", _pointer, _pointer, _size, _size)
_heap_create = _call("heap_create", _pointer, _pointer)
_arena_create = _call("arena_create", _pointer, ctypes.POINTER(_Config))
_arena_open = _call("arena_open", _pointer, ctypes.c_char_p)
_arena_from_fd = _call("arena_from_fd", _pointer, ctypes.c_int)
# Only a destructor calls this, which can tell nobody of an error: ESTALE, where what runs before
# _count_fork() in a child of fork drops an arena.
_arena_destroy = _call("arena_destroy", None, _pointer)
_arena_fd = _call("arena_fd", ctypes.c_int, _pointer)
_at = _call("at", _pointer, _pointer, _offset)
_handle = _call("handle", ctypes.c_int, _pointer, ctypes.POINTER(_Handle))
_stats_json = _call("stats_json", ctypes.c_int, ctypes.c_char_p, _size)


class Arena:
    """Memory with a limit of its own, which is given back when the Arena and its arrays are gone.

    nbytes is the size of the arena. limit is how many of these bytes may have memory; 0 is all.
    pages is "huge", "huge_preferred" or "small". With node, the memory comes from that NUMA node.
    path names a new file in an xallocfs, and other processes open the arena by that name. With
    persist=True, the blocks of a process stay when the process ends.
    """

    def __init__(self, nbytes, *, limit=0, path=None, pages="huge", node=None, persist=False):
        flags = (_ON_NODE if node is not None else 0) | (_PERSIST if persist else 0)
        config = _Config(size=ctypes.sizeof(_Config), arena_bytes=_bytes(nbytes),
                         limit_bytes=_bytes(limit), flags=flags,
                         path=None if path is None else os.fsencode(path),
                         pages=_PAGES[pages], node=node or 0)
        self._begin(_arena_create(config))

    @classmethod
    def open(cls, path):
        """The arena of a file in an xallocfs."""
        arena = cls.__new__(cls)
        arena._begin(_arena_open(os.fsencode(path)))
        return arena

    @classmethod
    def from_fd(cls, fd):
        """The arena behind a descriptor. The caller may close the descriptor afterwards."""
        arena = cls.__new__(cls)
        arena._begin(_arena_from_fd(fd))
        return arena

    def _begin(self, arena):
        self._forks = _forks[0]
        self._arena = arena
        self._heap = _heap_create(arena)

    def __del__(self, forks=_forks, destroy=_arena_destroy):
        arena, self._arena = getattr(self, "_arena", None), None
        if arena and self._forks == forks[0]:
            destroy(arena)

    def fileno(self):
        """The arena's descriptor. It belongs to the library, so do not close it."""
        return _arena_fd(self._arena)

    def at(self, offset, shape, dtype=float):
        """An array of the bytes at an offset. It keeps the arena, but not the block there."""
        shape, dtype, nbytes = _layout(shape, dtype)
        address = _at(self._arena, _bytes(offset))
        _at(self._arena, _bytes(offset + max(nbytes, 1) - 1))
        return _array(_Memory(address, nbytes, self), shape, dtype)


class _Memory:
    """Memory in an arena, or in the default arena if that is None."""
    __slots__ = ("address", "nbytes", "arena")

    def __init__(self, address, nbytes, arena):
        self.address = address
        self.nbytes = nbytes
        self.arena = arena

    @property
    def __array_interface__(self):
        return {"version": 3, "shape": (self.nbytes,), "typestr": "|u1",
                "data": (self.address, False)}


class _Block(_Memory):
    """A block. The destructor frees it, but only in the process that allocated it."""
    __slots__ = ("forks",)

    def __init__(self, nbytes, align, arena, zero=False):
        if align < 1 or align & (align - 1):
            raise ValueError(f"the alignment {align} is not a power of two")
        # calloc() does not write to memory that is zero already, but aligns no further than this.
        clear = zero and align <= (4096 if nbytes > _SLICE else 16)
        if arena:
            address = (_heap_calloc(arena._heap, 1, nbytes) if clear else
                       _heap_aligned_alloc(arena._heap, align, nbytes))
        else:
            address = _calloc(1, nbytes) if clear else _aligned_alloc(align, nbytes)
        super().__init__(address, nbytes, arena)
        self.forks = _forks[0]
        if zero and not clear:
            ctypes.memset(address, 0, nbytes)

    def __del__(self, forks=_forks, free=_free):
        # The garbage collector may have destroyed the arena first. Then the block is gone.
        if (getattr(self, "forks", None) == forks[0] and
                (self.arena is None or self.arena._arena)):
            free(self.address)


def _bytes(number):
    """Checks a number of bytes, because ctypes truncates a number that does not fit."""
    number = operator.index(number)
    if not 0 <= number <= sys.maxsize:
        raise ValueError(f"{number} is not a number of bytes that memory can have")
    return number


def _layout(shape, dtype):
    """Returns the shape as a tuple, the dtype as numpy's, and the bytes that the array needs."""
    import numpy  # Here, because buffer() works without numpy.

    dtype = numpy.dtype(dtype)
    if dtype.hasobject:
        raise TypeError("a block cannot hold Python objects")
    try:
        shape = tuple(shape)
    except TypeError:
        shape = (shape,)
    return shape, dtype, _bytes(math.prod(map(operator.index, shape)) * dtype.itemsize)


def _array(memory, shape, dtype):
    import numpy

    return numpy.ndarray(shape, dtype, buffer=numpy.asarray(memory))


def _find(address):
    found = _Handle()
    _handle(address, found)
    return Handle(found.arena_id, found.offset)


def empty(shape, dtype=float, *, align=64, arena=None):
    """Returns a new array, as numpy.empty() does, in a block that is aligned to align bytes."""
    shape, dtype, nbytes = _layout(shape, dtype)
    return _array(_Block(nbytes, align, arena), shape, dtype)


def zeros(shape, dtype=float, *, align=64, arena=None):
    """Returns a new array of zeros, as numpy.zeros() does."""
    shape, dtype, nbytes = _layout(shape, dtype)
    return _array(_Block(nbytes, align, arena, zero=True), shape, dtype)


def array(values, dtype=None, *, align=64, arena=None):
    """Returns a new array with the given values, as numpy.array() does."""
    import numpy

    values = numpy.asarray(values, dtype)
    result = empty(values.shape, values.dtype, align=align, arena=arena)
    result[...] = values
    return result


def buffer(nbytes, *, align=64, arena=None):
    """Returns a memoryview of a new block of zeros. Its release() frees the block."""
    nbytes = _bytes(nbytes)
    block = _Block(nbytes, align, arena, zero=True)
    # A memoryview of no bytes cannot be cast. Every block has at least one byte.
    exporter = (ctypes.c_ubyte * max(nbytes, 1)).from_address(block.address)
    exporter.block = block
    return memoryview(exporter).cast("B")[:nbytes]


def handle(data):
    """Returns the Handle of the address where an array or a buffer begins."""
    if hasattr(data, "__array_interface__"):
        address = data.__array_interface__["data"][0]
    else:
        address = ctypes.addressof(ctypes.c_ubyte.from_buffer(data))
    return _find(address)


def stats():
    """Returns the counts of all arenas of this process, as xalloc_stats_json() has them."""
    size = 1 << 12
    while True:
        text = ctypes.create_string_buffer(size)
        needed = _stats_json(text, size)
        if needed < size:
            return json.loads(text.value)
        size = 2 * needed


class Shared:
    """An array for several processes. Pass this object to children of spawn, fork or forkserver.

    In each process the attribute array is the array. It is zero at first. The memory is given back
    when every process has dropped this object and its arrays, or has ended.
    """

    def __init__(self, shape, dtype=float):
        shape, dtype, nbytes = _layout(shape, dtype)
        try:
            arena = Arena(max(nbytes, 1), pages="huge_preferred", persist=True)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            raise OSError(error.errno,
                          "processes cannot share memory of XALLOC_BACKEND=local") from None
        # Nobody frees the block. Its memory is given back when no process has the arena any more.
        where = _find(_heap_calloc(arena._heap, 1, nbytes))
        self._begin(os.dup(arena.fileno()), where.offset, shape, dtype)
        self._map(arena)

    def _begin(self, fd, offset, shape, dtype):
        self._fd = fd
        self._layout = offset, shape, dtype
        self._forks = None
        weakref.finalize(self, os.close, fd)

    def _map(self, arena):
        self._array = arena.at(*self._layout)
        self._forks = _forks[0]

    @property
    def array(self):
        """The array, where this process has mapped it."""
        # A child of fork inherits the descriptor, but not its parent's mapping.
        if self._forks != _forks[0]:
            self._map(Arena.from_fd(self._fd))
        return self._array

    def __reduce__(self):
        return _open_shared, (DupFd(self._fd), *self._layout)


def _open_shared(passed, *layout):
    shared = Shared.__new__(Shared)
    shared._begin(passed.detach(), *layout)
    return shared
