# Recipes: what Python decided about a transfer, frozen; shared by the transfers of one flow.
#
# References are counted.  `context` is Python's own object: a worker never touches it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from snow_owl_tftp._engine.base.content cimport Recipe
from snow_owl_tftp._engine.base.messages cimport M_RETIRED, Message, message_becomes
from snow_owl_tftp._engine.base.queue cimport Queue, queue_push
from snow_owl_tftp._engine.disk.sources cimport store_unuse
from snow_owl_tftp._engine.disk.state cimport Store
from snow_owl_tftp._engine.includes.threads cimport owl_add32


cdef inline Recipe *recipe_new(int role, uint32_t blksize_bytes, uint32_t windowsize, uint64_t fixed_ns,
                               const uint8_t *first, uint32_t first_bytes, const uint8_t *expected,
                               uint32_t expected_bytes) noexcept nogil:
    """A recipe with one reference; NULL when there is no memory."""
    cdef Recipe *recipe = <Recipe *>calloc(1, sizeof(Recipe) + first_bytes + expected_bytes + 1)
    if recipe == NULL:
        return NULL
    recipe.refs = 1
    recipe.role = role
    recipe.blksize_bytes = blksize_bytes
    recipe.windowsize = windowsize
    recipe.fixed_ns = fixed_ns
    recipe.first = <uint8_t *>(recipe + 1)
    recipe.first_bytes = first_bytes
    if first_bytes:
        memcpy(recipe.first, first, first_bytes)
    recipe.expected = recipe.first + first_bytes
    recipe.expected_bytes = expected_bytes
    if expected_bytes:
        memcpy(recipe.expected, expected, expected_bytes)
    return recipe


cdef inline void recipe_release(Store *store, Recipe *recipe, Message *message, Queue *outbox) noexcept nogil:
    """Drops the reference of a transfer, which uses the source.  Takes the message over; see recipe_forget."""
    if recipe == NULL:
        free(message)
        return
    store_unuse(store, recipe.source)
    recipe_forget(recipe, message, outbox)


cdef inline void recipe_forget(Recipe *recipe, Message *message, Queue *outbox) noexcept nogil:
    """Drops a reference; the last one on a worker goes up to Python, which owns `context`.

    Takes over a message, whatever was in it: memory to say so must not be missing.
    """
    if owl_add32(&recipe.refs, -1) != 0 or message == NULL:
        free(message)                            # NULL: of one that was stuck, and even then there was no memory
        return
    message_becomes(message, M_RETIRED, 0)
    message.recipe = recipe
    queue_push(outbox, message)
