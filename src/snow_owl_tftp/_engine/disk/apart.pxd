# Threads that ask file systems, in a process of their own that shares all memory and descriptors with ours.

cdef int start_apart(void *(*run)(void *) noexcept nogil, void *argument) noexcept nogil
