# Queues of messages between threads: Python, workers and I/O threads.
#
# A mutex held for a few instructions, and an eventfd written only when the queue was empty.  Per
# transfer, never per datagram: the packet path takes no lock.  The queues are bounded by what they
# carry: every message belongs to a transfer or a chunk, and those are limited (Limits in worker/state.pxd).
# A message belongs to its sender until it is pushed and to the receiver once it is taken.

from libc.stdint cimport uint8_t, uint64_t
from snow_owl_tftp._engine.base.messages cimport Message
from snow_owl_tftp._engine.includes.net cimport EFD_CLOEXEC, EFD_NONBLOCK, close, eventfd, read, write
from snow_owl_tftp._engine.includes.threads cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock, owl_store8)

cdef struct Queue:
    pthread_mutex_t mutex
    Message *head
    Message *tail
    int wake_fd                   # eventfd: readable while something may be in the queue
    uint8_t is_noted              # a chunk has come, and there was no memory to say so in a message


cdef inline int queue_init(Queue *queue) noexcept nogil:
    pthread_mutex_init(&queue.mutex, NULL)      # cannot fail: default attributes on Linux
    queue.head = NULL
    queue.tail = NULL
    queue.is_noted = 0
    queue.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    return 0 if queue.wake_fd >= 0 else -1


cdef inline void queue_wake(Queue *queue) noexcept nogil:
    cdef uint64_t one = 1
    write(queue.wake_fd, &one, 8)               # cannot fail: the counter does not reach 2^64 - 1


cdef inline bint queue_append(Queue *queue, Message *first, Message *last) noexcept nogil:
    """Appends first .. last, which are linked.  True: the caller owes a queue_wake(), soon."""
    cdef bint was_empty
    last.next = NULL
    pthread_mutex_lock(&queue.mutex)
    was_empty = queue.head == NULL
    if was_empty:
        queue.head = first
    else:
        queue.tail.next = first
    queue.tail = last
    pthread_mutex_unlock(&queue.mutex)
    return was_empty


cdef inline void queue_push_list(Queue *queue, Message *first, Message *last) noexcept nogil:
    """Appends first .. last, which are linked."""
    if queue_append(queue, first, last):
        queue_wake(queue)


cdef inline void queue_push(Queue *queue, Message *message) noexcept nogil:
    queue_push_list(queue, message, message)


cdef inline void queue_note(Queue *queue) noexcept nogil:
    """What needs no message."""
    owl_store8(&queue.is_noted, 1)
    queue_wake(queue)


cdef inline Message *queue_take_all(Queue *queue) noexcept nogil:
    """Everything in the queue, in order, as a list; NULL when it is empty.  Resets the eventfd."""
    cdef uint64_t count
    cdef Message *messages
    read(queue.wake_fd, &count, 8)              # EAGAIN when nobody wrote: fine
    pthread_mutex_lock(&queue.mutex)
    messages = queue.head
    queue.head = NULL
    queue.tail = NULL
    pthread_mutex_unlock(&queue.mutex)
    return messages


cdef inline void queue_close(Queue *queue) noexcept nogil:
    close(queue.wake_fd)
    pthread_mutex_destroy(&queue.mutex)
