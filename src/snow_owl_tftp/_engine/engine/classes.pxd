# Prefixes made into ranges: what set_classes() takes.

from libc.stdint cimport uint32_t
from snow_owl_tftp._engine.base.classes cimport Classes

cdef class ClientClasses:
    cdef Classes *table
    cdef readonly uint32_t prefix_count
