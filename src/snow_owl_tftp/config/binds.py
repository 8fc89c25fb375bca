"""Addresses and port ranges as an operator writes them.

May know: text and the ranges of ports. Must not look a name up, or bind anything.
"""

from typing import Final

from snow_owl_tftp.errors import ConfigError

__all__ = ["MAX_PORT", "parse_bind", "parse_port_range"]

MAX_PORT: Final = 65535
"""A UDP port has 16 bits (RFC 768)."""


def parse_bind(text: str) -> tuple[str, int]:
    """Split "ADDR:PORT" into host and port.

    Args:
        text: "0.0.0.0:69", "[::]:69" or "[fe80::1%eth0]:69"; ":69" or "69" for every address, as
            tftpd-hpa spells it. Names are not looked up: which address a name has may change
            between two starts.

    Returns:
        (host without brackets, port 0..65535); port 0 lets the kernel choose. Every address is
        "::", which takes IPv4 too, and stands for "0.0.0.0" where there is no IPv6.

    Raises:
        ConfigError: It is none of these.
    """
    import socket  # lazy: 4 ms, and a client binds nothing

    host, colon, port_text = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host and port_text.isascii() and port_text.isdigit():
        host, colon, bracketed = "[::]", ":", True
    if not colon or not port_text or port_text.endswith("]"):
        raise ConfigError(f'expected "ADDR:PORT" such as "0.0.0.0:69", or ":69" for every address, got "{text}"')
    if ":" in host and not bracketed:
        raise ConfigError(f'an IPv6 address needs brackets, such as "[::]:69", got "{text}"')
    if not (port_text.isascii() and port_text.isdigit() and int(port_text) <= MAX_PORT):
        raise ConfigError(f'expected a port 0..{MAX_PORT} after the last colon, got "{text}"')
    host = host[1:-1] if bracketed else host
    address, percent, zone = host.partition("%")
    try:
        socket.inet_pton(socket.AF_INET6 if bracketed else socket.AF_INET, address)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the text
        raise ConfigError(
            f'expected a numeric address such as "0.0.0.0" or "[::]" before the port, got "{text}"'
        ) from error
    if percent and not (bracketed and zone):
        raise ConfigError(f'expected a zone such as "[fe80::1%eth0]:69", got "{text}"')
    return host, int(port_text)


def parse_port_range(text: str) -> tuple[int, int]:
    """Split "A-B" into its first and its last port, both included.

    Raises:
        ConfigError: It is no such range, or runs backwards, or leaves 1..65535.
    """
    first, dash, last = text.partition("-")
    if dash and all(part.isascii() and part.isdigit() for part in (first, last)):
        low, high = int(first), int(last)
        if 1 <= low <= high <= MAX_PORT:
            return low, high
    raise ConfigError(f'expected two ports "A-B" with 1 <= A <= B <= {MAX_PORT}, got "{text}"')
