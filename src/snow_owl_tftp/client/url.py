"""TFTP URLs (RFC 3617): `tftp://host[:port]/path[;mode=octet|netascii]`.

May know: text. Must not: resolve a name or look at a file.
Invariant: `parse_url(str(url)) == url` for every TftpUrl.
"""

from dataclasses import dataclass
from urllib.parse import quote, unquote

__all__ = ["DEFAULT_PORT", "TftpUrl", "is_tftp_url", "parse_url"]

DEFAULT_PORT = 69
"""RFC 1350 section 4: where requests go to."""
_SCHEME = "tftp://"
_MODES = ("octet", "netascii")
_BYTES = "surrogateescape"
"""A name is bytes (RFC 1350 section 5 has netascii, old servers have latin-1): what is no UTF-8 is sent as it was."""


@dataclass(frozen=True, slots=True)
class TftpUrl:
    """A server and a name on it.

    Attributes:
        host: A name, an IPv4 or an IPv6 address without brackets; `fe80::1%eth0` names its interface.
        port: UDP port, 1..65535.
        path: What the RRQ or WRQ says, decoded; a URL's first slash is no part of it. Bytes that are no UTF-8 are
            lone surrogates, as os.fsdecode makes them.
        mode: 'octet', 'netascii', or None: the URL does not say.
    """

    host: str
    port: int
    path: str
    mode: str | None = None

    def __str__(self) -> str:
        host = quote(self.host, safe="")
        if ":" in self.host:
            address, percent, zone = self.host.partition("%")
            host = f"[{address}{'%25' if percent else ''}{quote(zone, safe='')}]"
        port = "" if self.port == DEFAULT_PORT else f":{self.port}"
        mode = f";mode={self.mode}" if self.mode else ""
        return f"tftp://{host}{port}/{quote(self.path, errors=_BYTES)}{mode}"


def parse_url(text: str, *, file_name: str = "") -> TftpUrl:
    """Read a TFTP URL.

    Args:
        text: The URL; the path may be percent-encoded, `;` in a name must be, and `%` before two hexadecimal digits.
            Everything else stands for itself: backslashes, `?` and `#` too.
        file_name: What a path that names a folder, by a slash at its end, is completed with; not encoded.

    Returns:
        Its parts. The first slash of the path only separates it from the host, so
        `tftp://h//boot/x` asks for `/boot/x`.

    Raises:
        ValueError: It is no TFTP URL; the message says what is wrong with it.

    Spec: RFC 3617 section 3; RFC 6874 for the zone of a link-local address.

    Deviates: a bare `%` before the zone is accepted beside `%25`, since that is what `ip addr` prints
    (test_link_local_zone_may_be_bare).
    """
    # By hand: urllib drops tabs, newlines and an empty query, all of which a name may have, and refuses zones.
    if not is_tftp_url(text):
        raise ValueError(f"not a tftp:// URL: {text!r}")
    authority, _, raw_path = text[len(_SCHEME) :].partition("/")
    if "@" in authority:
        raise ValueError("TFTP knows no user names")
    host, port = _split_authority(authority)
    raw_path, mode = _split_mode(raw_path)
    # Through bytes: an escape may be the second half of a character whose first one was typed as it is.
    path = unquote(raw_path, errors=_BYTES).encode(errors=_BYTES).decode(errors=_BYTES)
    if not path or path.endswith("/"):
        path += file_name
    if not host:
        raise ValueError(f"no host in {text!r}")
    if not path or "\0" in path:
        raise ValueError(f"no file name in {text!r}")
    return TftpUrl(host, port, path, mode)


def is_tftp_url(text: str) -> bool:
    """Whether it begins as one; the scheme in any case (RFC 3986 section 3.1)."""
    return text[: len(_SCHEME)].lower() == _SCHEME


def _split_authority(authority: str) -> tuple[str, int]:
    if authority.startswith("["):
        host, bracket, port = authority[1:].partition("]")
        if not bracket or ":" not in host or (port and not port.startswith(":")):
            raise ValueError(f"malformed IPv6 host: {authority!r}")
        address, percent, zone = host.partition("%")
        zone = unquote(zone.removeprefix("25"))
        return address + percent + zone, _port(port.removeprefix(":"))
    host, _, port = authority.partition(":")
    if ":" in port:
        raise ValueError(f"an IPv6 address needs brackets: [{authority}]")
    return unquote(host), _port(port)


def _port(text: str) -> int:
    if not text:
        return DEFAULT_PORT
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(f"not a UDP port: {text!r}")
    return int(text)


def _split_mode(path: str) -> tuple[str, str | None]:
    path, semicolon, parameter = path.partition(";")
    if not semicolon:
        return path, None
    name, _, mode = parameter.partition("=")
    if name.lower() != "mode" or mode.lower() not in _MODES:
        raise ValueError(f"expected ;mode=octet or ;mode=netascii, not ;{parameter}")
    return path, mode.lower()
