"""Plans: what Python decided becomes a recipe, and a source or a sink, for a worker.

A source's descriptor is the engine's from the call on, come what may; a sink's stays the caller's.
The attributes of a plan are described in docs/engine-contract.md, section 4.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from snow_owl_tftp._engine.base.content cimport Recipe, Sink
from snow_owl_tftp._engine.base.messages cimport Message
from snow_owl_tftp._engine.disk.recipe cimport recipe_new
from snow_owl_tftp._engine.disk.sources cimport store_release, store_unuse
from snow_owl_tftp._engine.disk.store cimport store_discard, store_open
from snow_owl_tftp._engine.disk.stream cimport stream_new
from snow_owl_tftp._engine.includes.threads cimport owl_add32
from snow_owl_tftp._engine.protocol.seq cimport ROLLOVER_TO_1
from snow_owl_tftp._engine.protocol.window cimport RECEIVER, SENDER


cdef Recipe *plan_recipe(Stock *stock, int role, plan) except NULL:
    cdef bytes first = plan.first_packet
    cdef bytes expected = plan.expected_oack
    cdef Recipe *recipe
    cdef uint32_t blksize = plan.blksize_bytes, windowsize = plan.windowsize_blocks
    cdef uint8_t rollover = plan.rollover
    if not 8 <= blksize <= 65464 or not 1 <= windowsize <= 65535 or PyBytes_GET_SIZE(first) > 1024:
        raise ValueError("blksize must be 8..65464, windowsize 1..65535, first_packet at most 1024 bytes")
    if rollover > ROLLOVER_TO_1 or windowsize + rollover > 65535:
        raise ValueError("rollover must be 0 or 1, and windowsize at most 65534 where it is 1")
    recipe = recipe_new(role, blksize, windowsize, plan.timeout_ns,
                        <const uint8_t *>PyBytes_AS_STRING(first), <uint32_t>PyBytes_GET_SIZE(first),
                        <const uint8_t *>PyBytes_AS_STRING(expected), <uint32_t>PyBytes_GET_SIZE(expected))
    if recipe == NULL:
        raise MemoryError()
    recipe.rollover = rollover
    context = plan.context
    recipe.context = <PyObject *>context
    Py_INCREF(context)
    stock.live_recipes += 1
    return recipe


cdef int plan_attach(Stock *stock, Message *m, plan) except -1:
    """Recipe, and source or sink, of a plan.  A source descriptor is ours from here on, come what may."""
    cdef int role = plan.role, fd = plan.fd
    cdef bint is_ours = role == SENDER or plan.compare
    try:
        if role != SENDER and role != RECEIVER:
            raise ValueError("role must be SENDER or RECEIVER")
        m.recipe = plan_recipe(stock, role, plan)
        if role == RECEIVER:
            if m.recipe.blksize_bytes + 4 > stock.slot_bytes:
                raise ValueError("blksize needs larger slot_bytes")
            m.sink = plan_sink(stock, fd, plan.size_bytes, plan)
    except BaseException:
        if is_ours:
            store_discard(stock.store, fd)
        raise
    if is_ours:
        open_source(stock, m, fd, plan.size_bytes, plan.stream, plan.compare)
        if m.sink != NULL:
            m.sink.compared = m.recipe.source
    return 0


cdef int open_source(Stock *stock, Message *m, int fd, uint64_t size, bint is_stream, bint is_compared) except -1:
    cdef int error
    if is_stream:
        m.recipe.source = stream_new(fd, m.recipe.blksize_bytes, m.recipe.windowsize)
        if m.recipe.source == NULL:
            os.close(fd)
            raise MemoryError()
        return 0
    with nogil:
        error = store_open(stock.store, fd, size, is_compared, &m.recipe.source)
    if error:
        raise OSError(error, "the file cannot be sent")
    return 0


cdef Sink *plan_sink(Stock *stock, int fd, uint64_t limit, plan) except NULL:
    cdef Sink *sink = <Sink *>calloc(1, sizeof(Sink))
    cdef uint32_t size = stock.sink_buffer_bytes
    cdef uint32_t windows = <uint32_t>(2 * <uint64_t>plan.blksize_bytes * plan.windowsize_blocks // size)
    declared = plan.declared_bytes
    if sink == NULL:
        raise MemoryError()
    sink.fd = fd
    sink.limit_bytes = limit
    sink.declared_bytes = <uint64_t>-1 if declared is None else declared
    sink.buffer_bytes = size
    sink.gathered = max(1, min(windows, <uint32_t>(262144 // size)))
    sink.max_buffers = max(<uint32_t>4, windows, 2 * sink.gathered)
    sink.live = &stock.live_sinks
    owl_add32(&stock.live_sinks, 1)
    return sink


cdef void plan_undo(Stock *stock, Message *m) noexcept:
    if m.recipe != NULL:
        recipe_drop(stock, m.recipe)
    if m.sink != NULL:
        owl_add32(&stock.live_sinks, -1)
        free(m.sink)
    free(m)


cdef bint recipe_drop(Stock *stock, Recipe *recipe) noexcept:
    """The reference of a transfer, which uses the source no more; True: it was the last one."""
    store_unuse(stock.store, recipe.source)
    if owl_add32(&recipe.refs, -1) != 0:
        return False
    recipe_free(stock, recipe)
    return True


cdef void recipe_free(Stock *stock, Recipe *recipe) noexcept:
    """Nobody refers to it any more: the source and Python's object are let go."""
    store_release(recipe.source)
    Py_DECREF(<object>recipe.context)
    free(recipe)
    stock.live_recipes -= 1
