# What one worker wants of the disk: its store, and what it still owes to it in this turn.
#
# The files of this room take this instead of the worker: they need to know no more of it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.counters cimport Counters
from snow_owl_tftp._engine.disk.state cimport Store

cdef struct Errands:
    Store *store
    Counters *counters            # the worker's
    uint32_t worker               # its number
    uint8_t owes_kick             # jobs were queued in this turn
    uint8_t owes_look             # there was no memory to ask for a chunk: those who wait ask again by their timers
    uint64_t watch_until_ns       # until then each message is preceded by a look whether its pages are there
