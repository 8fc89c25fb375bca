"""A small TFTP server in a process of its own that is honest, or wrong in one way, for tests of what judges servers.

    python tests/support/faulty_server.py ROOT PORT MODE

Modes: `good`; `flip`: one byte of the fifth transfer is another; `short` and `long`: its last block lacks a byte, or
has one more; `stall`: from the fifth transfer on nothing is answered. All of them read and write in lock-step without
options, whole files in memory, from one socket on 127.0.0.1.

May know: RFC 1350. Must not import the project: what it judges must not share its faults.
"""

import socket
import sys
from pathlib import Path

BLOCK = 512
FAULTY = 4  # the number of the transfer, from 0
Peer = tuple[str, int]


def faulty(content: bytes, mode: str) -> bytes:
    """What a faulty transfer makes of it; the content is no multiple of a block."""
    match mode:
        case "flip":
            return content[:-1] + bytes([content[-1] ^ 1])
        case "short":
            return content[:-1]
        case "long":
            return content + b"x"
    return content


class FaultyServer:
    def __init__(self, root: Path, port: int, mode: str) -> None:
        self._root, self._mode = root, mode
        self._begun = 0
        self._reads: dict[Peer, bytes] = {}
        self._writes: dict[Peer, tuple[Path, bytearray, int]] = {}
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._sock.bind(("127.0.0.1", port))

    def run(self) -> None:
        while True:
            datagram, peer = self._sock.recvfrom(2048)
            opcode, number = datagram[1], int.from_bytes(datagram[2:4], "big")
            if opcode in (1, 2):
                self._begin(opcode, self._root / datagram[2:].split(b"\0")[0].decode(), peer)
            elif opcode == 3 and peer in self._writes:
                self._store(peer, number, datagram[4:])
            elif opcode == 4 and peer in self._reads:
                self._send(peer, number + 1)

    def _begin(self, opcode: int, path: Path, peer: Peer) -> None:
        if opcode == 1 and not path.is_file():
            self._sock.sendto(b"\0\5\0\1no file\0", peer)
            return
        self._begun += 1
        if self._mode == "stall" and self._begun > FAULTY:
            return
        if opcode == 1:
            self._reads[peer] = self._touched(path.read_bytes())
            self._send(peer, 1)
        else:
            self._writes[peer] = path, bytearray(), self._begun
            self._sock.sendto(b"\0\4\0\0", peer)

    def _touched(self, content: bytes) -> bytes:
        return faulty(content, self._mode) if self._begun == FAULTY + 1 else content

    def _send(self, peer: Peer, number: int) -> None:
        content = self._reads[peer]
        if (number - 1) * BLOCK > len(content):
            del self._reads[peer]
        else:
            part = content[(number - 1) * BLOCK : number * BLOCK]
            self._sock.sendto(b"\0\3" + number.to_bytes(2, "big") + part, peer)

    def _store(self, peer: Peer, number: int, part: bytes) -> None:
        path, content, begun = self._writes[peer]
        content += part
        if len(part) < BLOCK:
            path.write_bytes(faulty(bytes(content), self._mode) if begun == FAULTY + 1 else content)
            del self._writes[peer]
        self._sock.sendto(b"\0\4" + number.to_bytes(2, "big"), peer)


if __name__ == "__main__":
    FaultyServer(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]).run()
