"""Model clients that write a file: careful, naive, pausing, with windows, and with timers of their own.

May know: bytes of packets and virtual time. Must not: import the state machines that it judges.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.support.simulation.network import Clock, S
from tests.support.simulation.readers import ACK, DATA, ERROR, OACK


@dataclass(frozen=True, slots=True)
class Manner:
    """What a writing client does its own way.

    Attributes:
        is_naive: Answers a repeated ACK with the window behind it (RFC 1123 section 4.2.3.1).
        timer_ns: Without an answer for so long it sends again.
        backs_off: Its timer doubles.
        tries: Timers in a row before it gives up.
        pause: (every so many blocks, for so long) it reads flash, and sends nothing.
        think_ns: Before each other window.
    """

    is_naive: bool = False
    timer_ns: int = S
    backs_off: bool = False
    tries: int = 6
    pause: tuple[int, int] | None = None
    think_ns: int = 0


class Writer:
    """One client in one upload.

    Attributes:
        acked: The block that the server has acknowledged.
        done_ns: When the ACK of the last block was here.
    """

    def __init__(
        self,
        clock: Clock,
        manner: Manner,
        source: bytes,
        blksize: int,
        windowsize: int,
        send: Callable[[bytes], None],
    ) -> None:
        self.clock = clock
        self.manner = manner
        self.source = source
        self.blksize = blksize
        self.windowsize = windowsize
        self.last = len(source) // blksize + 1
        self.acked = -1
        self.sent_total = 0
        self.done_ns: int | None = None
        self.error = b""
        self._send = send
        self._sent_end = 0
        self._timer_ns = manner.timer_ns
        self._timer_number = 0
        self._tries = 0

    def is_over(self) -> bool:
        return self.done_ns is not None or bool(self.error)

    def start(self) -> None:
        self._arm()

    def arrive(self, datagram: bytes) -> None:
        opcode = datagram[:2]
        if self.is_over() or opcode not in (ACK, OACK, ERROR):
            return
        if opcode == ERROR:
            self.error = datagram
            return
        self._take_ack(int.from_bytes(datagram[2:4], "big") if opcode == ACK else 0)

    def _take_ack(self, block: int) -> None:
        ahead = (block - self.acked + 0x8000) % 0x10000 - 0x8000
        if ahead == 0 and self.manner.is_naive and self._sent_end > self.acked + 1:
            self._send_window()
        if ahead <= 0 or self.acked + ahead >= max(self._sent_end, 1):
            return
        self.acked += ahead
        self._tries = 0
        self._timer_ns = self.manner.timer_ns
        if self.acked == self.last:
            self.done_ns = self.clock.now_ns
            return
        self._go_on()

    def _go_on(self) -> None:
        pause = self.manner.pause
        is_pause = pause is not None and self.acked > 0 and self.acked % pause[0] == 0
        wait_ns = pause[1] if pause and is_pause else self.manner.think_ns
        if not wait_ns:
            self._send_window()
            return
        self._timer_number += 1  # it is not waiting for anybody
        from_block = self.acked
        self.clock.at(self.clock.now_ns + wait_ns, lambda: self._send_window() if self.acked == from_block else None)

    def _send_window(self) -> None:
        end = min(self.acked + 1 + self.windowsize, self.last + 1)
        for block_index in range(self.acked + 1, end):
            start = (block_index - 1) * self.blksize
            self.sent_total += 1
            head = DATA + (block_index & 0xFFFF).to_bytes(2, "big")
            self._send(head + self.source[start : start + self.blksize])
        self._sent_end = max(self._sent_end, end)
        self._arm()

    # --- its timer

    def _arm(self) -> None:
        self._timer_number += 1
        number = self._timer_number
        self.clock.at(self.clock.now_ns + self._timer_ns, lambda: self._on_timer(number))

    def _on_timer(self, number: int) -> None:
        if number != self._timer_number or self.is_over():
            return
        self._tries += 1
        if self._tries > self.manner.tries:
            self.error = b"gave up"
            return
        if self.manner.backs_off:
            self._timer_ns *= 2
        if self.acked < 0:
            self._send(b"\0\2f\0octet\0")
            self._arm()
        else:
            self._send_window()
