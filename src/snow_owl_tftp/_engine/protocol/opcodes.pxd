# The opcodes of TFTP, and of what extends it.

cdef enum:
    OP_RRQ = 1                    # RFC 1350 section 5
    OP_WRQ = 2
    OP_DATA = 3
    OP_ACK = 4
    OP_ERROR = 5
    OP_OACK = 6                   # RFC 2347
