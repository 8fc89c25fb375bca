"""Store a file, ask for its size, read it back; then the same through fsspec, as pandas and others do it.

Usage: put_and_fsspec.py tftp://HOST[:PORT]/FILE (uploads have to be on there)
"""

import sys

import fsspec

import snow_owl_tftp as tftp


def with_a_client(url: str) -> None:
    with tftp.Client() as client:
        result = client.put(url, b"hostname switch1\n")
        print(f"stored {result.payload_bytes} bytes in {result.blocks} block(s)")
        print(f"the server says {client.size(url)} bytes")
        print(client.get(url).decode(), end="")


def with_fsspec(url: str) -> None:
    fs = fsspec.filesystem("tftp", windowsize=16)
    try:
        with fs.open(url, "w") as file:
            file.write("hostname swi")
            raise RuntimeError("out of ideas")
    except RuntimeError as error:
        print(f"{error}: still {fs.size(url)} bytes there")  # half a file is never stored
    with fsspec.open(url, "w") as file:
        file.write("hostname switch2\n")
    print(fs.read_text(url), end="")


if __name__ == "__main__":
    with_a_client(sys.argv[1])
    with_fsspec(sys.argv[1])
