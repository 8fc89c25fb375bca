"""The one core below both faces: transfers in, futures out, an engine of its own in between.

    submit ─► ask ──► Answer (OACK) ─► resume ─┬─► Received ─► target.complete ─► commit ─► Completion ─► future
                  └─► DATA 1 / ACK 0 (RFC 1350)┘

May know: the engine, sockets, transfers. Must not: know asyncio, or who waits for a future.
Invariants:
- Every submitted transfer's future is resolved, also when the core is closed.
- A transfer asks again only while nothing of the file was received: without options where they were refused or met
  silence, at the next address where nobody answered (`attempts`).
- State is guarded by one lock; the engine's events are read by one thread, which never waits for anything but them.
  What may block (copying into somebody's file object) is done by an executor.
- Progress callbacks run in that thread and without the lock: they may wait for another thread that uses the client.
- Once a file is in place its transfer has succeeded, whatever is said afterwards.
"""

import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from snow_owl_tftp.client.address import free_descriptors, is_no_descriptor
from snow_owl_tftp.client.asking import Asking
from snow_owl_tftp.client.settings import ClientSettings
from snow_owl_tftp.client.transfer import (
    HearsSilence,
    Stage,
    Transfer,
    TransferResult,
    attempts_after,
    error_of_completion,
    has_ended_well,
    is_no_room,
)
from snow_owl_tftp.errors import (
    BadPacket,
    InternalError,
    TransferAborted,
    TransferChanged,
    TransferDiskFull,
    TransferError,
)
from snow_owl_tftp.plan.transfer import Outcome, Role
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.options import accept_oack_untrusted

__all__ = ["ClientCore"]

_SLOT_BYTES = 65536
"""UDP_GRO hands over whole trains; what does not fit a slot is lost (udp(7))."""
_BATCH_SLOTS = 16
"""16 trains are 1 MiB: they stay in the cache until they are copied out."""
_SINK_BUFFER_BYTES = 262144
"""One transfer at full speed fills 64 KiB faster than an I/O thread is woken."""
_IO_THREADS = 2
_PROGRESS_S = 0.1
_DESCRIPTORS_EACH = 4
"""Of a transfer: its socket, its file, one for the source that the engine keeps, and one of a download that ended
and whose socket still repeats the last ACK."""
_DALLY_S = 5.0
"""How long the engine keeps the socket of a download, to repeat its last ACK."""


class ClientCore:
    """Runs transfers on an engine of its own.

    Args:
        settings: What to ask for and how long to wait.

    Raises:
        OSError: No descriptors or memory are left.
    """

    def __init__(self, settings: ClientSettings) -> None:
        # Imported here: `import snow_owl_tftp` and the command line's --help must not pay for it.
        from snow_owl_tftp._engine import engine as native

        self.settings = settings
        self._native = native
        self._engine = native.Engine(
            workers=1,
            io_threads=_IO_THREADS,
            slot_bytes=_SLOT_BYTES,
            max_batch=_BATCH_SLOTS,
            source_linger_ns=0,
            sink_buffer_bytes=_SINK_BUFFER_BYTES,
            initial_ns=settings.initial_ns,
            ceiling_ns=settings.ceiling_ns,
            give_up_ns=settings.give_up_ns,
            min_retries=settings.retries,
        )
        self._asking = Asking(self._engine, settings)
        self._lock = threading.RLock()
        self._limit = settings.max_transfers or max(1, free_descriptors() // _DESCRIPTORS_EACH)
        self._waiting: deque[Transfer] = deque()
        self._news: deque[Callable[[], None]] = deque()
        self._live: set[Transfer] = set()
        self._dallying: deque[tuple[float, int]] = deque()
        self._finishers: ThreadPoolExecutor | None = None
        self._closing = False
        self._asleep = False
        self._awake_until_s = 0.0
        self._progress_due = 0.0
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="tftp-client", daemon=True)
        try:
            self._engine.run()
            self._thread.start()
        except BaseException:
            self._engine.stop()
            os.close(self._wake_fd)
            del self._thread  # it refers to this object, which would keep the engine's descriptors until a collection
            raise

    def submit(self, transfer: Transfer) -> None:
        """Start a transfer, or let it wait its turn; its future tells how it ended.

        Raises:
            OSError: No route, no descriptor; the transfer is closed then.
            ValueError: The request does not fit a packet, or the core is closed; the same.
            RuntimeError: A progress callback asks for it and would wait for itself; the same.
        """
        with self._lock:
            try:
                if self._closing:
                    raise ValueError("the client is closed")
                if threading.current_thread() is self._thread:
                    raise RuntimeError("a progress callback cannot wait for a transfer of its own client")
                transfer.future.set_running_or_notify_cancel()
                if self._has_room() and not self._waiting:
                    self._ask_or_wait(transfer)
                else:
                    self._asking.check(transfer)
                    self._waiting.append(transfer)
            except BaseException:
                transfer.close()
                raise
            if self._asleep:
                self._asleep = False
                os.eventfd_write(self._wake_fd, 1)  # under the lock: `close` closes it

    def cancel(self, transfer: Transfer) -> None:
        """End a transfer that nobody waits for: nothing of it appears, the server is told.

        Ignored for one that is unknown, or whose file is in place already.
        """
        with self._lock:
            if transfer in self._waiting:
                self._waiting.remove(transfer)
                self._fail(transfer, TransferAborted("cancelled"))
            elif transfer in self._live and not (transfer.cancelled or transfer.delivered):
                transfer.cancelled = True
                transfer.error = transfer.error or TransferAborted("cancelled")
                transfer.discard()
                self._engine.abort_asked(transfer, ErrorCode.NOT_DEFINED, b"cancelled")

    def counters(self) -> dict[str, Any]:
        """The engine's counters: system calls, datagrams, retransmits and so on, by name."""
        return dict(self._engine.counters())

    def close(self) -> None:
        """End every transfer (TransferAborted, the servers are told) and the threads. May be called twice."""
        with self._lock:
            self._closing = True
            waiting = list(self._waiting)
            self._waiting.clear()
            for transfer in waiting:
                self._fail(transfer, TransferAborted("the client was closed"))
        if self._thread is threading.current_thread() or not self._thread.is_alive():
            return
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        os.close(self._wake_fd)

    # --- asking

    def _has_room(self) -> bool:
        now = time.monotonic()
        while self._dallying and self._dallying[0][0] < now:
            self._dallying.popleft()
        if len(self._live) < self._limit and len(self._dallying) > self._limit:
            # A socket that only waits for a lost ACK is worth less than a transfer that waits for a socket.
            self._engine.abort(self._dallying.popleft()[1])
        return len(self._live) < self._limit

    def _ask_waiting(self) -> None:
        while self._waiting and self._has_room():
            transfer = self._waiting.popleft()
            self._ask_again(transfer)
            if self._waiting and self._waiting[0] is transfer:
                return  # no descriptor yet

    def _ask_or_wait(self, transfer: Transfer) -> None:
        """Where no descriptor is left (the caller's own files count too), one that is under way gives some back."""
        try:
            self._asking.send(transfer)
        except OSError as error:
            if not is_no_descriptor(error) or not (self._live or self._dallying):
                raise
            self._end_dallying()
            self._waiting.appendleft(transfer)
        else:
            self._live.add(transfer)

    def _end_dallying(self) -> None:
        """Their sockets are wanted; until these are closed for certain, there is something to wait for."""
        soon_s = time.monotonic() + 2 * _PROGRESS_S
        for due_s, transfer_id in self._dallying:
            if due_s > soon_s:
                self._engine.abort(transfer_id)
        self._dallying = deque((min(due_s, soon_s), transfer_id) for due_s, transfer_id in self._dallying)

    # --- events

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._engine.fileno(), select.POLLIN)
        poller.register(self._wake_fd, select.POLLIN)
        try:
            while not self._closing:
                poller.poll(self._patience_ms())
                self._drain_wakes()
                self._handle_events()
                self._tell_news()
                self._ask_for_progress()
            self._engine.stop()
            if self._finishers is not None:
                self._finishers.shutdown()
            self._handle_events()
            self._tell_news()
        except Exception as error:  # a bug of ours: whoever waits must hear of it
            self._give_up(error)

    def _give_up(self, cause: Exception) -> None:
        """Nobody reads events any more: every future is resolved with what happened."""
        with self._lock:
            self._closing = True
            transfers = [*self._live, *self._waiting]
            self._live.clear()
            self._waiting.clear()
        self._engine.stop()
        for transfer in transfers:
            error = InternalError("the client failed")
            error.__cause__ = cause
            self._fail(transfer, error)
        self._tell_news()

    def _patience_ms(self) -> float | None:
        """It ticks while there is work and a moment longer: waking it costs what follows a tenth of its time."""
        now = time.monotonic()
        with self._lock:
            if self._live or self._waiting:
                self._awake_until_s = now + 2 * _PROGRESS_S
            self._asleep = now >= self._awake_until_s
            return None if self._asleep else _PROGRESS_S * 1000

    def _drain_wakes(self) -> None:
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:
            return

    def _handle_events(self) -> None:
        native = self._native
        with self._lock:
            for event in self._engine.poll():
                if type(event) is native.Completion:
                    self._on_completion(event)
                elif type(event) is native.Answer:
                    self._on_answer(event)
                elif type(event) is native.Received:
                    self._on_received(event)
                elif isinstance(event, native.Progress) and not event.context.cancelled:
                    self._on_progress(event)
            self._ask_waiting()

    def _on_answer(self, answer: Any) -> None:
        transfer: Transfer = answer.context
        if transfer.cancelled or transfer.stage is Stage.LEFT:
            return
        transfer.stage = Stage.ANSWERED
        self._asking.note_answer(transfer)
        try:
            transfer.negotiated = accept_oack_untrusted(transfer.asked, answer.datagram)
        except BadPacket as bad:
            transfer.stage = Stage.MISANSWERED
            transfer.error = TransferError(f"the server's OACK breaks the rules: {bad.reason}")
            self._engine.abort(answer.transfer_id, ErrorCode.OPTION_REFUSED, bad.reason.encode())
            return
        if transfer.is_probe:
            self._engine.abort(answer.transfer_id, ErrorCode.NOT_DEFINED, b"only the size was asked for")
            return
        size_bytes, limit_bytes = transfer.negotiated.tsize, self.settings.max_size_bytes
        if transfer.target is not None and size_bytes is not None and 0 < limit_bytes < size_bytes:
            transfer.error = TransferDiskFull(f"{size_bytes} bytes is larger than max_size_bytes ({limit_bytes})")
            self._engine.abort(answer.transfer_id, ErrorCode.DISK_FULL, b"the file is too large")
            return
        self._engine.resume(answer.transfer_id, self._asking.plan(transfer))

    def _on_received(self, received: Any) -> None:
        transfer: Transfer = received.context
        announced = transfer.negotiated.tsize
        if announced is not None and announced != received.payload_bytes:
            transfer.error = TransferChanged(
                f"changed: the server announced {announced} bytes and sent {received.payload_bytes}"
            )
            self._engine.commit(received.transfer_id, ErrorCode.NOT_DEFINED, b"size is not the announced tsize")
        elif transfer.target is not None and transfer.target.is_slow:
            transfer.finishing = True
            if self._finishers is None:
                self._finishers = ThreadPoolExecutor(_IO_THREADS, "tftp-finish")
            self._finishers.submit(self._finish, transfer, received.transfer_id)
        else:
            self._finish(transfer, received.transfer_id)

    def _finish(self, transfer: Transfer, transfer_id: int) -> None:
        """Everything is here: make it visible, then send the last ACK."""
        assert transfer.target is not None
        code, text, number = -1, b"", 0
        try:
            if transfer.cancelled:
                code, text = int(ErrorCode.NOT_DEFINED), b"cancelled"
            else:
                transfer.data = transfer.target.complete()
                transfer.delivered = True
        except OSError as error:
            number = error.errno or 0
            full = is_no_room(error)
            code = int(ErrorCode.DISK_FULL if full else ErrorCode.NOT_DEFINED)
            text = b"disk full or allocation exceeded" if full else b"I/O error while writing the file"
            kind = TransferDiskFull if full else TransferError
            transfer.error = transfer.error or kind(
                f"{'disk full' if full else 'local I/O error'}: {error.strerror or error}"
            )
            transfer.error.__cause__ = transfer.error.__cause__ or error
        except BaseException as error:  # somebody's file object: its error is handed on as it is
            code, text = int(ErrorCode.NOT_DEFINED), b"the receiver failed"
            transfer.error = transfer.error or error
        with self._lock:
            transfer.finishing = False
            if transfer.ended is not None:
                self._on_completion(transfer.ended)
                os.eventfd_write(self._wake_fd, 1)
            elif not self._closing:
                self._engine.commit(transfer_id, code, text, number)

    def _on_completion(self, completion: Any) -> None:
        transfer: Transfer = completion.context
        if transfer.finishing:
            transfer.ended = completion  # its file is being read: closing it now could give another file's bytes
            return
        self._live.discard(transfer)
        if completion.datagrams_in:
            self._asking.note_answer(transfer)
        if transfer.delivered or has_ended_well(transfer, completion):
            self._succeed(transfer, completion)
        elif attempts := attempts_after(transfer, completion):
            transfer.attempts, transfer.error = attempts, None
            transfer.asked_total += completion.datagrams_out
            if completion.datagrams_in:
                transfer.began_s = time.monotonic()  # it is there: it has all the time there is
            self._ask_again(transfer)
        else:
            self._fail(transfer, transfer.error or error_of_completion(transfer, completion))

    def _succeed(self, transfer: Transfer, completion: Any) -> None:
        if transfer.role == Role.RECEIVER and completion.outcome == Outcome.OK:
            self._dallying.append((time.monotonic() + _DALLY_S, completion.transfer_id))
        transfer.close()
        self._news.append(partial(self._tell, transfer, completion.payload_bytes, transfer.result(completion)))

    def _ask_again(self, transfer: Transfer) -> None:
        try:
            if self._closing:
                raise TransferAborted("the client was closed")
            self._ask_or_wait(transfer)
        except (OSError, ValueError, TransferError) as error:
            self._fail(transfer, error)

    def _fail(self, transfer: Transfer, error: BaseException) -> None:
        transfer.discard()
        transfer.close()
        transfer.future.set_exception(error)

    # --- progress

    def _ask_for_progress(self) -> None:
        now = time.monotonic()
        with self._lock:
            if now < self._progress_due:
                return
            self._progress_due = now + _PROGRESS_S
            for transfer in self._live:
                if (transfer.progress is not None or transfer.due_s <= now) and not transfer.cancelled:
                    self._engine.ask_progress(transfer)

    def _on_progress(self, event: Any) -> None:
        transfer: Transfer = event.context
        silent = None
        if event.datagrams_in:
            self._asking.note_answer(transfer)
        else:
            silent = str(transfer.attempts[0].address), transfer.asked_total + event.datagrams_out
            if transfer.due_s <= time.monotonic():
                transfer.stage, transfer.due_s = Stage.LEFT, math.inf
                self._engine.abort_asked(transfer, ErrorCode.NOT_DEFINED, b"no answer")
        if transfer.progress is not None:
            self._news.append(partial(self._tell, transfer, event.payload_bytes, silent=silent))

    def _tell_news(self) -> None:
        """Calls callers' code: by one thread, so that a callback hears in order, and never with the lock."""
        while self._news:
            self._news.popleft()()

    def _tell(
        self,
        transfer: Transfer,
        done_bytes: int,
        result: TransferResult | None = None,
        silent: tuple[str, int] | None = None,
    ) -> None:
        """How far it is, and with a result that it is done. A callback that raises fails its own transfer only.

        `silent`: who has not answered yet, and how often it was asked.
        """
        if transfer.future.done():
            return
        try:
            if silent is not None and isinstance(transfer.progress, HearsSilence):
                transfer.progress.unanswered(*silent)
            elif transfer.progress is not None:
                transfer.progress(done_bytes, transfer.size_bytes)
        except BaseException as error:  # anything that a caller's code raises
            transfer.error = transfer.error or error
            if result is None:
                self.cancel(transfer)
            else:
                transfer.future.set_exception(error)
        else:
            if result is not None:
                transfer.future.set_result(result)
