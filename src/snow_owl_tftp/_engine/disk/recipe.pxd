# Recipes: what Python decided about a transfer, frozen; shared by the transfers of one flow.
#
# References are counted.  `context` is Python's own object: a worker never touches it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy
from snow_owl_tftp._engine.base.data cimport Recipe


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
