"""TFTP as the RFCs define it, free of any I/O.

    datagram ──packets.parse_*──► Request ──options.negotiate──► Negotiated + OACK bytes
                   │                                                    │
                   └──► BadPacket ──packets.refuse_malformed──► ERROR   ▼
                                                                  a transfer

Bytes and plain values go in, bytes and plain values come out. Nothing in this package imports
socket, os, time, asyncio or logging; where time matters it is an argument. Functions named
`_untrusted` read bytes that a peer sent and may raise nothing but BadPacket.

Import the module that defines a name; this one re-exports none.
"""
