# cython: boundscheck=True, wraparound=True
"""Client classes for set_classes(): a list of prefixes, compiled once into ranges that workers search without a lock.

    (network, length, class) … ─sorted─► a sweep with the prefixes that are open at each address ─► ranges
    class ─► how much each of its clients may have, beside them

Compiled once a configuration, so lists are looked at as in Python, with bounds and from their ends.

May know: addresses as bytes. Must not know what else a class means, or who uses the table.
"""

from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc
from snow_owl_tftp._engine.base.classes cimport Classes, MAX_PREFIXES, Range, class_at, classes_drop
from snow_owl_tftp._engine.base.quotas cimport ClientLimits
from snow_owl_tftp._engine.engine.events cimport client_limits

V4_AT = 0xFFFF << 32              # ::ffff:0:0/96, where IPv4 lies
WORD = (1 << 64) - 1


cdef class ClientClasses:
    """Which class a client's address is of: that of the longest prefix it lies in, 0 where there is none.

    Never changed once made; any thread may make one, and ask it.

    Args:
        prefixes: (network, length, class) each. network: 4 bytes, or 16; ::ffff:0:0/96 and what lies in it is IPv4.
            length: 0..32, or 0..128. class: 0..2^32 - 1. An IPv6 prefix around ::ffff:0:0/96, such as ::/0, holds no
            IPv4.
        limits: By class, what each of its clients may have: (rule, requests_per_s, bytes_per_s, transfers), as for
            Request.charge. Requests beyond are refused before anybody is asked; bytes_per_s is start()'s affair.

    Raises:
        ValueError: a number is out of its range, a bit is set behind the prefix, a prefix has two classes, there are
            more than 65,536, or limits are for a class that no prefix has.
    """

    def __cinit__(self, prefixes, limits=None):
        cdef uint32_t i
        cdef Range *range_
        entries = normalised(prefixes)
        ranges = ranges_of(entries)
        limits = limits or {}
        if not {0, *entries.values()}.issuperset(limits):
            raise ValueError("limits are for classes of prefixes")
        limited = max(limits) + 1 if limits else 0
        if limited > MAX_PREFIXES + 1:
            raise ValueError("a class with limits is 0..65536")
        self.prefix_count = <uint32_t>len(entries)
        size = sizeof(Classes) + len(ranges) * sizeof(Range) + limited * sizeof(ClientLimits)
        self.table = <Classes *>calloc(1, size)
        if self.table == NULL:
            raise MemoryError()
        self.table.refs = 1
        self.table.count = <uint32_t>len(ranges)
        self.table.ranges = <Range *>(self.table + 1)
        for i in range(self.table.count):
            start, client_class = ranges[i]
            range_ = &self.table.ranges[i]
            range_.high = start >> 64
            range_.low = start & WORD
            range_.client_class = client_class
        self.table.limit_count = limited
        self.table.limits = <ClientLimits *>(self.table.ranges + self.table.count)
        for client_class, numbers in limits.items():
            client_limits(numbers, &self.table.limits[<uint32_t>client_class])

    def __dealloc__(self):
        classes_drop(self.table)

    def find(self, bytes address):
        """The class of an address of 4 or 16 bytes; as the engine finds it."""
        if PyBytes_GET_SIZE(address) not in (4, 16):
            raise ValueError("an address has 4 or 16 bytes")
        start = int.from_bytes(address, "big") + (V4_AT if PyBytes_GET_SIZE(address) == 4 else 0)
        return class_at(self.table, <uint64_t>(start >> 64), <uint64_t>(start & WORD))


cdef dict normalised(prefixes):
    """(start, length) in 128 bits → class."""
    entries = {}
    for network, length, client_class in prefixes:
        bits = len(network) * 8
        if bits not in (32, 128) or not 0 <= length <= bits or not 0 <= client_class <= 0xFFFFFFFF:
            raise ValueError("a network has 4 or 16 bytes, a length as many bits at most, a class 32 bits")
        start = int.from_bytes(network, "big")
        if start & ((1 << (bits - length)) - 1):
            raise ValueError("a network has no bit set behind its length")
        key = (start + V4_AT, length + 96) if bits == 32 else (start, length)
        if entries.setdefault(key, client_class) != client_class:
            raise ValueError("a prefix has one class")
        if len(entries) > MAX_PREFIXES:
            raise ValueError("more than 65,536 prefixes")
    return entries


cdef list ranges_of(dict entries):
    """(start, class) in order: each address is of the class of the last one that begins at it or before."""
    ranges = [(0, 0)]
    # (first address behind it, class) of the prefixes that lie around this address, the longest last
    opened = [(1 << 128, 0)]
    # Without it ::/0 would hold IPv4 too.
    for (start, length), client_class in sorted({(V4_AT, 96): 0, **entries}.items()):
        while opened[-1][0] <= start:
            close_last(ranges, opened)
        add(ranges, start, client_class)
        opened.append((start + (1 << (128 - length)), client_class))
    while len(opened) > 1:
        close_last(ranges, opened)
    return [one for i, one in enumerate(ranges) if i == 0 or ranges[i - 1][1] != one[1]]


cdef close_last(list ranges, list opened):
    """Behind a prefix the one around it goes on."""
    behind, _ = opened.pop()
    if behind < 1 << 128:
        add(ranges, behind, opened[-1][1])


cdef add(list ranges, start, client_class):
    if ranges[-1][0] == start:
        ranges[-1] = (start, client_class)
    else:
        ranges.append((start, client_class))
