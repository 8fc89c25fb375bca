# What the engine calls of a worker: made, run by its thread, freed.

from libc.stdint cimport uint32_t, uint64_t
from snow_owl_tftp._engine.base.accounts cimport AccountTable
from snow_owl_tftp._engine.base.queue cimport Queue
from snow_owl_tftp._engine.base.quotas cimport Quotas, SharedBuckets
from snow_owl_tftp._engine.disk.state cimport Store
from snow_owl_tftp._engine.net.batch cimport Tuning
from snow_owl_tftp._engine.protocol.rtt cimport Retransmit
from snow_owl_tftp._engine.worker.state cimport Limits, Worker

cdef int worker_init(Worker *w, uint32_t number, Queue *inbox, Queue *outbox, Store *store,
                     const Tuning *tuning, const Retransmit *retransmit, const Limits *limits, const Quotas *quotas,
                     SharedBuckets *shared, AccountTable *accounts, uint32_t max_batch, uint32_t slot_bytes,
                     uint64_t secret) noexcept nogil
cdef void worker_run(Worker *w) noexcept nogil
cdef void worker_free(Worker *w) noexcept nogil
