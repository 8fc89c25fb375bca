# Flows: what Python decided once for a request, repeated by the worker for every identical datagram.
#
# A flow is found by the exact bytes of the request, the address it came to and the class of its client, and holds only
# while the path still leads to the same inode with the same size, mtime and ctime (a chmod moves ctime).  That is
# asked of the kernel once a batch of received requests, after they came, and never of a disk or a file
# server (RESOLVE_CACHED, RESOLVE_NO_XDEV; for a root that is not local the server gives no flows); at the
# least doubt the flow is forgotten and Python decides again.
# A flow does not use the file: that lingers, and is closed, as if there were no flow, which then holds no more.
# Only decisions that do not depend on the client become flows: the server says so in the plan.
# What Python has told a worker to forget is not repeated from that moment on, although the worker may be in the middle
# of a turn, and hear of it in the next one only: whoever asks afterwards may have been told of the change.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy
from snow_owl_tftp._engine.base.classes cimport Classes, classes_drop
from snow_owl_tftp._engine.base.content cimport Recipe, Source
from snow_owl_tftp._engine.base.index cimport Index, index_add, index_find, index_free, index_init, index_remove
from snow_owl_tftp._engine.base.messages cimport M_RETIRED, Message, Start, message_new
from snow_owl_tftp._engine.base.queue cimport Queue
from snow_owl_tftp._engine.disk.errands cimport Errands
from snow_owl_tftp._engine.disk.recipe cimport recipe_forget
from snow_owl_tftp._engine.disk.sources cimport source_is_changed, source_is_fresh, store_unuse, store_use
from snow_owl_tftp._engine.includes.files cimport owl_file, owl_look, owl_open_cached_path
from snow_owl_tftp._engine.includes.net cimport close
from snow_owl_tftp._engine.includes.threads cimport owl_add32, owl_load32

cdef struct Flow:
    # A decision of Python's that the worker repeats by itself for the same request.
    uint8_t *request              # the datagram; path behind it
    uint32_t request_bytes
    char *path                    # beneath `dir`
    int dir
    uint32_t hash
    int32_t endpoint
    uint32_t client_class
    Recipe *recipe                # NULL: free entry
    Message *farewell             # put by for the recipe's way up
    owl_file file                  # what the path led to when Python decided
    uint64_t checked              # the `round` in which the file was last found the same

cdef struct FlowTable:
    Flow *entries
    uint32_t most                 # so many entries; 0: no flows
    uint32_t hand                 # the entry that makes room next
    uint32_t outdated             # times that Python has said to forget, and that we have not yet; any thread's
    uint64_t round                # batches taken from sockets: what was checked is checked anew for each
    Index by_request
    Classes *classes              # of clients; NULL: all are of class 0
    Errands *errands              # the worker's
    Queue *outbox


cdef inline int flows_init(FlowTable *flows, uint32_t most, Errands *errands, Queue *outbox) noexcept nogil:
    """`flows` is zeroed.  Returns -1 when there is no memory."""
    flows.most = most
    flows.errands = errands
    flows.outbox = outbox
    flows.entries = <Flow *>calloc(most + 1, sizeof(Flow))
    return index_init(&flows.by_request, 1024) if flows.entries != NULL else -1


cdef inline void flows_free(FlowTable *flows) noexcept nogil:
    """After flows_forget()."""
    free(flows.entries)
    index_free(&flows.by_request)
    classes_drop(flows.classes)


cdef inline int flow_look(int dir, const char *path, owl_file *file) noexcept nogil:
    """What the path leads to now; -1 when that cannot be told without waiting."""
    cdef int fd = owl_open_cached_path(dir, path), result
    if fd < 0:
        return -1
    result = owl_look(fd, file)
    close(fd)
    return result


cdef inline void flow_forget(FlowTable *flows, Flow *flow) noexcept nogil:
    if flow.recipe == NULL:
        return
    index_remove(&flows.by_request, flow.hash, <uint32_t>(flow - flows.entries))
    recipe_forget(flow.recipe, flow.farewell, flows.outbox)
    flow.recipe = NULL
    flow.farewell = NULL
    free(flow.request)
    flow.request = NULL


cdef inline void flows_outdate(FlowTable *flows) noexcept nogil:
    """Before a message that ends in flows_forget_told() is sent; any thread may."""
    owl_add32(&flows.outdated, 1)


cdef inline void flows_forget_told(FlowTable *flows) noexcept nogil:
    """After flows_outdate()."""
    flows_forget(flows)
    owl_add32(&flows.outdated, -1)


cdef inline void flows_forget(FlowTable *flows) noexcept nogil:
    cdef uint32_t i
    for i in range(flows.most):
        flow_forget(flows, &flows.entries[i])


cdef inline void flows_reclass(FlowTable *flows, Classes *classes) noexcept nogil:
    """Other classes, a reference to which is taken over: what was decided for the old ones holds for none of them."""
    flows_forget(flows)
    classes_drop(flows.classes)
    flows.classes = classes


cdef inline uint32_t flow_hash(uint32_t hash, uint32_t client_class) noexcept nogil:
    return hash + client_class * <uint32_t>0x9E3779B1


cdef inline void look_behind(FlowTable *flows, Source *source) noexcept nogil:
    """The path leads elsewhere now: a file that was deleted, or changed, need not linger."""
    if store_use(flows.errands.store, source):
        flows.errands.counters.file_checks += 1
        source_is_changed(source)
        store_unuse(flows.errands.store, source)


cdef inline bint flow_holds(FlowTable *flows, Flow *flow) noexcept nogil:
    """Asked once a batch of requests, after they came."""
    cdef owl_file file
    if not source_is_fresh(flow.recipe.source):
        return False
    if flow.checked == flows.round:
        return True
    flows.errands.counters.file_checks += 1
    if flow_look(flow.dir, flow.path, &file) < 0 or memcmp(&file, &flow.file, sizeof(owl_file)):
        look_behind(flows, flow.recipe.source)
        return False
    flow.checked = flows.round
    return True


cdef inline Recipe *flow_find(FlowTable *flows, const uint8_t *request, uint32_t size, uint32_t request_hash,
                              int32_t endpoint, uint32_t client_class) noexcept nogil:
    """The recipe for this request of a client of this class, or NULL: Python must decide."""
    cdef uint32_t hash = flow_hash(request_hash, client_class)
    cdef uint32_t at = hash
    cdef int64_t found
    cdef Flow *flow
    if owl_load32(&flows.outdated):
        return NULL
    while True:
        found = index_find(&flows.by_request, hash, &at)
        if found < 0:
            return NULL
        flow = &flows.entries[found]
        if (flow.endpoint == endpoint and flow.client_class == client_class and flow.request_bytes == size
                and memcmp(flow.request, request, size) == 0):
            if flow_holds(flows, flow):
                return flow.recipe
            flow_forget(flows, flow)
            return NULL


cdef inline void flow_keep(FlowTable *flows, Recipe *recipe, const Start *start, const uint8_t *bytes,
                           uint32_t bytes_used, uint32_t request_hash, int32_t endpoint,
                           uint32_t client_class) noexcept nogil:
    """Remembers `recipe` for `request`, by clients of this class; quietly does not when anything stands in the way.

    `bytes`: the path with its terminating zero, and the request behind it.
    """
    cdef uint32_t hash = flow_hash(request_hash, client_class)
    cdef Source *source = recipe.source
    cdef const uint8_t *request = bytes + start.path_bytes
    cdef uint32_t request_bytes = bytes_used - start.path_bytes
    cdef Flow *flow
    cdef owl_file file
    if (flows.most == 0 or source == NULL or owl_load32(&flows.outdated)
            or flow_find(flows, request, request_bytes, request_hash, endpoint, client_class) != NULL):
        return
    if flow_look(start.directory, <const char *>bytes, &file) < 0:
        return
    if (file.inode != source.inode or file.device != source.device or file.size_bytes != source.size_bytes
            or file.mtime_ns != source.mtime_ns or file.ctime_ns != start.ctime_ns):
        return
    flow = &flows.entries[flows.hand]
    flows.hand = (flows.hand + 1) % flows.most
    flow_forget(flows, flow)
    flow.request = <uint8_t *>malloc(bytes_used)
    flow.farewell = message_new(M_RETIRED, 0, NULL, 0)
    if (flow.request == NULL or flow.farewell == NULL
            or index_add(&flows.by_request, hash, <uint32_t>(flow - flows.entries)) < 0):
        free(flow.request)
        free(flow.farewell)
        flow.request = NULL
        flow.farewell = NULL
        return
    memcpy(flow.request, request, request_bytes)
    memcpy(flow.request + request_bytes, bytes, start.path_bytes)
    flow.request_bytes = request_bytes
    flow.path = <char *>flow.request + request_bytes
    flow.dir = start.directory
    flow.hash = hash
    flow.endpoint = endpoint
    flow.client_class = client_class
    flow.file = file
    flow.checked = flows.round
    flow.recipe = recipe
    owl_add32(&recipe.refs, 1)
