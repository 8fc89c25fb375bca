"""Types of the compiled module, for checkers and readers."""

def encode(chunk: bytes) -> bytes:
    """Convert local bytes to netascii, as protocol.netascii.encode does, without holding the GIL."""
