# Flows: what Python decided once for a request, repeated by the worker for every identical datagram.
#
# A flow is found by the exact bytes of the request and the address it came to, and holds only while the
# path still leads to the same inode with the same size, mtime and ctime (a chmod moves ctime).  That is
# asked of the kernel once a turn of the loop, for all requests that had arrived by then, and never from
# the disk (RESOLVE_CACHED); at the least doubt the flow is forgotten and Python decides again.
# Only decisions that do not depend on the client become flows: the server says so in the plan.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy
from snow_owl_tftp._engine.data cimport Recipe
from snow_owl_tftp._engine.includes.files cimport fstat, so_ctime_ns, so_mtime_ns, so_open_cached_path, stat_t
from snow_owl_tftp._engine.includes.net cimport close
from snow_owl_tftp._engine.includes.threads cimport so_add32
from snow_owl_tftp._engine.index cimport index_add, index_find, index_remove
from snow_owl_tftp._engine.store cimport recipe_release
from snow_owl_tftp._engine.worker cimport Flow, Worker


cdef inline int flow_identity(Flow *flow, stat_t *status) noexcept nogil:
    """What the path leads to now; -1 when that cannot be told without waiting."""
    cdef int fd = so_open_cached_path(flow.dir, flow.path), result
    if fd < 0:
        return -1
    result = fstat(fd, status)
    close(fd)
    return result


cdef inline void flow_forget(Worker *w, Flow *flow) noexcept nogil:
    if flow.recipe == NULL:
        return
    index_remove(&w.by_flow, flow.hash, <uint32_t>(flow - w.flow_entries))
    recipe_release(w.store, flow.recipe, w.outbox)
    flow.recipe = NULL
    free(flow.request)
    flow.request = NULL


cdef inline void flows_forget(Worker *w) noexcept nogil:
    cdef uint32_t i
    for i in range(w.limits.flows):
        flow_forget(w, &w.flow_entries[i])


cdef inline bint flow_holds(Worker *w, Flow *flow) noexcept nogil:
    """Asked once a turn."""
    cdef stat_t status
    if flow.checked_turn == w.turn:
        return True
    w.counters.file_checks += 1
    if (flow_identity(flow, &status) < 0 or status.st_ino != flow.inode or status.st_dev != flow.device
            or <uint64_t>status.st_size != flow.size or so_mtime_ns(&status) != flow.mtime_ns
            or so_ctime_ns(&status) != flow.ctime_ns or flow.recipe.source.changed):
        return False
    flow.checked_turn = w.turn
    return True


cdef inline Recipe *flow_find(Worker *w, const uint8_t *request, uint32_t size, uint32_t hash,
                              int32_t group) noexcept nogil:
    """The recipe for this request, or NULL: Python must decide."""
    cdef uint32_t at = hash
    cdef int64_t found
    cdef Flow *flow
    while True:
        found = index_find(&w.by_flow, hash, &at)
        if found < 0:
            return NULL
        flow = &w.flow_entries[found]
        if flow.group == group and flow.request_bytes == size and memcmp(flow.request, request, size) == 0:
            if flow_holds(w, flow):
                return flow.recipe
            flow_forget(w, flow)
            return NULL


cdef inline void flow_keep(Worker *w, Recipe *recipe, int dir, const uint8_t *path, uint32_t path_bytes,
                           const uint8_t *request, uint32_t request_bytes, uint32_t hash, int32_t group,
                           int64_t ctime_ns) noexcept nogil:
    """Remembers `recipe` for `request`; quietly does not when anything stands in the way."""
    cdef Flow *flow
    cdef stat_t status
    if w.limits.flows == 0 or recipe.source == NULL or flow_find(w, request, request_bytes, hash, group) != NULL:
        return
    flow = &w.flow_entries[w.flow_hand]
    w.flow_hand = (w.flow_hand + 1) % w.limits.flows
    flow_forget(w, flow)
    flow.request = <uint8_t *>malloc(request_bytes + path_bytes + 1)
    if flow.request == NULL:
        return
    memcpy(flow.request, request, request_bytes)
    memcpy(flow.request + request_bytes, path, path_bytes)
    flow.request[request_bytes + path_bytes] = 0
    flow.request_bytes = request_bytes
    flow.path = <char *>flow.request + request_bytes
    flow.dir = dir
    flow.hash = hash
    flow.group = group
    if (flow_identity(flow, &status) < 0 or status.st_ino != recipe.source.inode
            or status.st_dev != recipe.source.device or <uint64_t>status.st_size != recipe.source.size_bytes
            or so_mtime_ns(&status) != recipe.source.mtime_ns or so_ctime_ns(&status) != ctime_ns
            or index_add(&w.by_flow, hash, <uint32_t>(flow - w.flow_entries)) < 0):
        free(flow.request)
        flow.request = NULL
        return
    flow.device = status.st_dev
    flow.inode = status.st_ino
    flow.size = <uint64_t>status.st_size
    flow.mtime_ns = so_mtime_ns(&status)
    flow.ctime_ns = ctime_ns
    flow.checked_turn = w.turn
    flow.recipe = recipe
    recipe.shared = 1
    so_add32(&recipe.refs, 1)
