# What plans are made into, and how much of it is alive.

from libc.stdint cimport int64_t, uint32_t
from snow_owl_tftp._engine.base.content cimport Recipe
from snow_owl_tftp._engine.base.messages cimport Message
from snow_owl_tftp._engine.disk.state cimport Store

cdef struct Stock:
    Store *store                  # it outlives the engine while a thread of it hangs
    int64_t live_recipes
    uint32_t live_sinks           # atomic: workers free them
    uint32_t sink_buffer_bytes
    uint32_t slot_bytes           # longest datagram received whole

cdef Recipe *plan_recipe(Stock *stock, int role, plan) except NULL
cdef int plan_attach(Stock *stock, Message *m, plan) except -1
cdef void plan_undo(Stock *stock, Message *m) noexcept
cdef bint recipe_drop(Stock *stock, Recipe *recipe) noexcept
cdef void recipe_free(Stock *stock, Recipe *recipe) noexcept
