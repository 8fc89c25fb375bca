"""The one core below both clients: transfers in, futures out, an engine of its own in between.

    submit ─► queue ─ask─► Answer (OACK) ─► resume ─┬─► Received ─► finish ─► commit ─► Completion ─► future
                        └─► DATA 1 / ACK 0 (RFC 1350)┘

May know: the engine, and everything about transfers. Must not: know asyncio, or who waits for a future.
Invariants:
- Every submitted transfer's future is resolved, also when the core is closed.
- A transfer asks again only while nothing of the file was received: without options where they were refused or met
  silence, at the next address where nobody answered (`attempt`).
- State is guarded by one lock; the engine's events are read by one thread, which never waits for anything but them.
- Progress callbacks run in that thread and without the lock (`news`).
- Once a file is in place its transfer has succeeded, whatever is said afterwards.
"""

import math
import os
import select
import threading
import time
from typing import Any

from snow_owl_tftp.client.address import free_descriptors
from snow_owl_tftp.client.asking import Asking
from snow_owl_tftp.client.endings import attempts_after, error_of_completion, has_ended_well
from snow_owl_tftp.client.finish import CANCELLED, Finisher, Refusal
from snow_owl_tftp.client.news import News
from snow_owl_tftp.client.queue import TransferQueue
from snow_owl_tftp.client.settings import ClientSettings
from snow_owl_tftp.client.transfer import Step, Transfer
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
from snow_owl_tftp.protocol.oack import accept_oack_untrusted

__all__ = ["ClientCore"]

_SLOT_BYTES = 65536
"""UDP_GRO hands over whole trains; what does not fit a slot is lost (udp(7))."""
_BATCH_SLOTS = 16
"""16 trains are 1 MiB: they stay in the cache until they are copied out."""
_SINK_BUFFER_BYTES = 262144
"""One transfer at full speed fills 64 KiB faster than an I/O thread is woken."""
_IO_THREADS = 2
_PROGRESS_S = 0.1
_AWAKE_S = 2 * _PROGRESS_S
"""The thread ticks so long after the last work: waking it costs what follows a tenth of its time."""
_DESCRIPTORS_EACH = 4
"""Of a transfer: its socket, its file, one for the source that the engine keeps, and one of a download that ended
and whose socket still repeats the last ACK."""


class ClientCore:
    """Runs transfers on an engine of its own.

    Args:
        settings: What to ask for and how long to wait.

    Raises:
        OSError: No descriptors or memory are left.
    """

    def __init__(self, settings: ClientSettings) -> None:
        # Imported here, so that `import snow_owl_tftp` and --help need not load the engine.
        from snow_owl_tftp._engine import engine as native

        self.settings = settings
        self._native = native
        self._engine = native.Engine(
            workers=1,
            io_threads=_IO_THREADS,
            slot_bytes=_SLOT_BYTES,
            max_batch=_BATCH_SLOTS,
            adaptive=True,  # a lone transfer waits for no batch
            source_linger_ns=0,
            sink_buffer_bytes=_SINK_BUFFER_BYTES,
            initial_ns=settings.initial_ns,
            ceiling_ns=settings.ceiling_ns,
            give_up_ns=settings.give_up_ns,
            min_retries=settings.retries,
        )
        self._lock = threading.RLock()
        self._asking = Asking(self._engine, settings)
        limit = settings.max_transfers or max(1, free_descriptors() // _DESCRIPTORS_EACH)
        self._queue = TransferQueue(self._engine, self._asking, limit)
        self._finisher = Finisher()
        self._news = News()
        self._is_closing = self._has_stopped = False
        self._is_asleep = False
        self._awake_until_s = 0.0
        self._progress_due_s = 0.0
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
                if self._is_closing:
                    raise ValueError("the client is closed")
                if threading.current_thread() is self._thread:
                    raise RuntimeError("a progress callback cannot wait for a transfer of its own client")
                transfer.future.set_running_or_notify_cancel()
                self._queue.submit(transfer)
            except BaseException:
                transfer.close()
                raise
            if self._is_asleep:
                self._is_asleep = False
                os.eventfd_write(self._wake_fd, 1)  # under the lock: `close` closes it

    def cancel(self, transfer: Transfer) -> None:
        """End a transfer that nobody waits for: nothing of it appears, the server is told.

        Ignored for one that is unknown, or whose file is in place already.
        """
        with self._lock:
            if self._queue.withdraw(transfer):
                transfer.fail(TransferAborted("cancelled"))
            elif transfer.move(Step.CANCEL):
                transfer.error = transfer.error or TransferAborted("cancelled")
                transfer.discard()
                self._engine.abort_asked(transfer, ErrorCode.NOT_DEFINED, b"cancelled")

    def counters(self) -> dict[str, Any]:
        """The engine's counters: system calls, datagrams, retransmits and so on, by name."""
        return dict(self._engine.counters())

    def close(self) -> None:
        """End every transfer (TransferAborted, the servers are told) and the threads. May be called twice."""
        with self._lock:
            self._is_closing = True
            for transfer in self._queue.close():
                transfer.fail(TransferAborted("the client was closed"))
        if self._thread is threading.current_thread() or not self._thread.is_alive():
            return
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        os.close(self._wake_fd)

    # --- the thread

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._engine.fileno(), select.POLLIN)
        poller.register(self._wake_fd, select.POLLIN)
        try:
            while not self._is_closing:
                poller.poll(self._patience_ms())
                self._drain_wakes()
                self._handle_events()
                self._news.tell(self.cancel)
                self._ask_for_progress()
            self._engine.stop()
            self._has_stopped = True
            self._finisher.close()
            self._handle_events()
            self._news.tell(self.cancel)
        except Exception as error:  # a bug of ours: whoever waits must be told
            self._give_up(error)

    def _give_up(self, cause: Exception) -> None:
        """Nobody reads events any more: every future is resolved with what happened."""
        with self._lock:
            self._is_closing = True
            transfers = [*self._queue.live, *self._queue.close()]
            self._queue.live.clear()
        self._engine.stop()
        for transfer in transfers:
            error = InternalError("the client failed")
            error.__cause__ = cause
            transfer.fail(error)
        self._news.tell(self.cancel)

    def _patience_ms(self) -> float | None:
        now_s = time.monotonic()
        with self._lock:
            if not self._queue.is_empty:
                self._awake_until_s = now_s + _AWAKE_S
            self._is_asleep = now_s >= self._awake_until_s
            return None if self._is_asleep else _PROGRESS_S * 1000

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
                elif self._has_stopped:
                    continue  # what it asked nobody can answer any more; each transfer's end is among the events
                elif type(event) is native.Answer:
                    self._on_answer(event)
                elif type(event) is native.Received:
                    self._on_received(event)
                elif isinstance(event, native.Progress) and not event.context.is_cancelled:
                    self._on_progress(event)
            self._queue.ask_waiting()

    # --- what the engine says

    def _on_answer(self, answer: Any) -> None:
        transfer: Transfer = answer.context
        if not transfer.move(Step.ANSWER):
            return
        self._asking.note_answer(transfer)
        try:
            transfer.negotiated = accept_oack_untrusted(transfer.asked, answer.datagram)
        except BadPacket as bad:
            transfer.move(Step.MISANSWER)
            transfer.error = TransferError(f"the server's OACK breaks the rules: {bad.reason}")
            self._engine.abort(answer.transfer_id, ErrorCode.OPTION_REFUSED, bad.reason.encode())
            return
        if transfer.is_probe:
            self._engine.abort(answer.transfer_id, ErrorCode.NOT_DEFINED, b"only the size was asked for")
            return
        size_bytes, limit_bytes = transfer.negotiated.tsize, self.settings.max_size_bytes
        if transfer.target is not None and size_bytes is not None and 0 < limit_bytes < size_bytes:
            transfer.move(Step.FAIL)
            transfer.error = TransferDiskFull(f"{size_bytes} bytes is larger than max_size_bytes ({limit_bytes})")
            self._engine.abort(answer.transfer_id, ErrorCode.DISK_FULL, b"the file is too large")
            return
        self._engine.resume(answer.transfer_id, self._asking.plan(transfer))

    def _on_received(self, received: Any) -> None:
        transfer: Transfer = received.context
        if not transfer.move(Step.RECEIVE):  # it was cancelled a moment ago
            self._engine.commit(received.transfer_id, CANCELLED.code, CANCELLED.text)
            return
        announced = transfer.negotiated.tsize
        if announced is not None and announced != received.payload_bytes:
            transfer.move(Step.FAIL)
            transfer.error = TransferChanged(
                f"changed: the server announced {announced} bytes and sent {received.payload_bytes}"
            )
            self._engine.commit(received.transfer_id, ErrorCode.NOT_DEFINED, b"size is not the announced tsize")
            return
        self._finisher.begin(transfer, received.transfer_id, self._on_finished)

    def _on_finished(self, transfer: Transfer, transfer_id: int, refusal: Refusal | None) -> None:
        """Its file is in place, or cannot be; called by any thread."""
        with self._lock:
            if refusal is not None:
                transfer.error = transfer.error or refusal.error
            transfer.move(Step.DELIVER if refusal is None else Step.FAIL)
            if transfer.held is not None:
                self._on_completion(transfer.held)
                os.eventfd_write(self._wake_fd, 1)
            elif self._is_closing:
                return
            elif refusal is None:
                self._engine.commit(transfer_id)
            else:
                self._engine.commit(transfer_id, refusal.code, refusal.text, refusal.number)

    def _on_completion(self, completion: Any) -> None:
        transfer: Transfer = completion.context
        if transfer.is_being_finished:
            transfer.held = completion
            return
        self._queue.leave(transfer)
        if completion.datagrams_in:
            self._asking.note_answer(transfer)
        if has_ended_well(transfer, completion):
            self._succeed(transfer, completion)
        elif attempts := attempts_after(transfer, completion):
            transfer.move(Step.RETRY)
            transfer.attempts, transfer.error = attempts, None
            transfer.asked_total += completion.datagrams_out
            if completion.datagrams_in:
                transfer.began_s = time.monotonic()  # it is there: it has all the time there is
            self._queue.ask_again(transfer)
        else:
            transfer.fail(transfer.error or error_of_completion(transfer, completion))

    def _succeed(self, transfer: Transfer, completion: Any) -> None:
        if transfer.role == Role.RECEIVER and completion.outcome == Outcome.OK:
            self._queue.dally(completion.transfer_id)
        transfer.close()
        self._news.add_result(transfer, completion.payload_bytes, transfer.result(completion))

    # --- progress

    def _ask_for_progress(self) -> None:
        now_s = time.monotonic()
        with self._lock:
            if now_s < self._progress_due_s:
                return
            self._progress_due_s = now_s + _PROGRESS_S
            for transfer in self._queue.live:
                if (transfer.progress is not None or transfer.due_s <= now_s) and not transfer.is_cancelled:
                    self._engine.ask_progress(transfer)

    def _on_progress(self, event: Any) -> None:
        transfer: Transfer = event.context
        silent = None
        if event.datagrams_in:
            self._asking.note_answer(transfer)
        else:
            silent = str(transfer.attempts[0].address), transfer.asked_total + event.datagrams_out
            if transfer.due_s <= time.monotonic() and transfer.move(Step.LEAVE):
                transfer.due_s = math.inf
                self._engine.abort_asked(transfer, ErrorCode.NOT_DEFINED, b"no answer")
        if transfer.progress is not None:
            self._news.add_progress(transfer, event.payload_bytes, silent)
