"""One WRQ to a file in its place: decide, receive, commit, release.

    WRQ ─rewrite, policy─► terms ─area.begin─► OpenUpload ─negotiate─► TransferPlan (RECEIVER)
    FirstData ─open─► descriptor, or ERROR
    Received ─commit─► durable and visible ─► last ACK, or ERROR          Completion ─close─► nothing left over

May know: policy, content, protocol and the plan. Must not know the engine or the log; `loop` carries
the answers to the engine, `narrate` tells of them.

Invariants:
- The loop never waits for a disk: whatever touches one runs in a thread of its device. Beginnings have threads of
  their own, so that a WRQ is answered while others wait for an fsync.
- Every OpenUpload that was begun is closed: by its Completion, by whoever discards its verdict, or at
  the end by `close`.
- An upload of which nothing has arrived holds no descriptor: whoever sends WRQs and nothing else takes none away.
- A descriptor is closed after the Completion only, or after Released: until then the engine may write to it.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.content.store.leftovers import Survey
from snow_owl_tftp.content.store.uploads import OpenUpload, UploadArea, UploadError
from snow_owl_tftp.content.walk import Place
from snow_owl_tftp.errors import ConfigError, RefusedError
from snow_owl_tftp.plan.freeze import freeze_upload
from snow_owl_tftp.policy.decision import WriteDecision
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.options import Negotiated
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.patient import PatientThreads
from snow_owl_tftp.server.slow_opens import OPEN_PATIENCE_S, Elsewhere, SlowOpens
from snow_owl_tftp.server.upload_roots import UploadRoots, open_place
from snow_owl_tftp.server.upload_terms import begin_upload, decide_upload
from snow_owl_tftp.server.verdict import Accepted, CommitRefusal, IncomingRequest, Sink, UploadContext, Verdict, refuse

__all__ = ["UploadAnswerer"]

_BEGIN_THREADS: Final = 4
"""Of one device. A directory look-up and an O_TMPFILE each: microseconds, unless it is a network mount that hangs."""
_COMMIT_THREADS: Final = 16
"""Of one device. An fsync each: a journal commits what is waiting in one go, so more threads mean fewer waits."""
_SPARES: Final = 8
"""Threads of one device that replace what hangs."""
_DEVICES: Final = 4
"""So many may have all their threads at work; beyond that each has one."""
_SWEEP_PATIENCE_S: Final = 5.0
"""A start waits no longer until the tree is looked through, in which a mount may hang; the walk goes on."""
_COUNT_PATIENCE_S: Final = 1.0
"""An upload that would be refused waits no longer until the files are counted anew."""
_END_PATIENCE_S: Final = 1.0
"""The end waits no longer for what is being stored."""
_MAX_WAITING: Final = 1024
"""Requests waiting for a thread; beyond it a client is told to try again."""
_MAX_OPENING: Final = 4096
"""Uploads whose first DATA is here and whose file is not open yet; beyond it a client is told to try again."""
_BUSY: Final = CommitRefusal(ErrorCode.NOT_DEFINED, "Server busy, try again", 0)
_LOOK_S: Final = 0.05
"""Between two looks at uploads that announced nothing: by what comes meanwhile they may outgrow `max_total_bytes`."""


class UploadAnswerer:
    """Answers WRQs and commits what was received."""

    def __init__(
        self,
        settings: Settings,
        on_stored: Callable[[Path, str], None] = lambda path, client: None,
        generation: Generation | None = None,
    ) -> None:
        """Open the root and remove what a crash left.

        Args:
            settings: All of them.
            on_stored: Told the real path and the client's address of every upload in its place; called by
                the loop, must not wait.
            generation: Of these settings, if somebody has it already.

        Raises:
            ConfigError: The root is no directory that may be entered, or a pattern is none.
        """
        self._generation = generation or Generation.of(settings)
        self._on_stored = on_stored
        self._max_total_bytes = settings.write_config.max_total_bytes
        # Of one area a walk at a time: below any of them something may hang that has nothing to do with who uploads.
        self._walking = PatientThreads(_DEVICES, 1, "tftp-sweep")
        self._area = self._make_area(self._generation.root_dir, None)
        self._users = Counter[UploadArea]()  # uploads that need an area; guarded by the lock
        self._roots = UploadRoots(self._make_area, self._users)  # of rules; guarded by the lock
        self._areas = threading.Lock()
        self.swept: Survey = self._sweep(self._area)
        self._beginning = _threads(_BEGIN_THREADS, "tftp-begin")
        self._committing = _threads(_COMMIT_THREADS, "tftp-commit")
        self.slow_opens = SlowOpens(self._beginning, _MAX_WAITING)
        self._waiting = self._opening = 0
        self._open: dict[OpenUpload, UploadArea] = {}
        # A thread of its own: a look must not wait behind those who wait for a disk.
        self._looking = PatientThreads(1, 1, "tftp-room")
        self._looks_for_room = settings.write_config.max_total_bytes > 0
        self._look: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Close every upload that is still open, and the root; call it when the server has stopped."""
        self._looks_for_room = False
        if self._look is not None:
            self._look.cancel()
        for threads in (self._walking, self._looking, self._beginning):
            threads.shutdown(cancel_futures=True)
        for upload in list(self._open):
            self._committing.submit(self._close, upload)
        self._committing.shutdown()
        # What hangs keeps its upload, and the root that this is in.
        ended_s = time.monotonic() + _END_PATIENCE_S
        for threads in (self._looking, self._beginning, self._committing):
            threads.finish(max(0.0, ended_s - time.monotonic()))
        if not self._open:
            for area in {self._area, *self._users, *self._roots.areas}:
                area.close()
            self._roots.close()

    @property
    def busy_total(self) -> int:
        """Threads that are at work now; after `close` those that hang."""
        return sum(threads.busy_total for threads in (self._beginning, self._committing, self._looking, self._walking))

    def _sweep(self, area: UploadArea) -> Survey:
        """What a crash left; of a tree that takes long, or hangs, the rest is told to nobody."""
        try:
            return self._walking.submit_for(area, area.sweep).result(_SWEEP_PATIENCE_S)
        except (TimeoutError, CancelledError):
            return Survey(0, 0, False)
        except RuntimeError:  # no thread is to be had
            return area.sweep()

    def _count(self, area: UploadArea, count: Callable[[], None]) -> None:
        """See Space. Not by the thread of an upload: its device would lose one for each that hangs."""
        try:
            self._walking.submit_for(area, count).result(_COUNT_PATIENCE_S)
        except (TimeoutError, CancelledError):
            return
        except RuntimeError:
            count()

    @property
    def in_force(self) -> Generation:
        """The configuration that requests are answered by now."""
        return self._generation

    def area_for(self, generation: Generation) -> UploadArea | None:
        """Return what `reload` wants beside a configuration; None: root_dir is the same. May wait.

        Raises:
            ConfigError: The root is no directory that may be entered.
        """
        is_same = self._area.root == _path_of(generation)
        return None if is_same else self._make_area(generation.root_dir, None)

    def reload(self, generation: Generation, area: UploadArea | None = None) -> None:
        """Answer requests that come from now on by another configuration, and store what they send in its root.

        Args:
            generation: It.
            area: Of `area_for` it, taken over; the one that it replaces closes after the last who uses it. None: the
                same as before.
        """
        with self._areas:
            self._generation = generation
            if area is not None and area is not self._area:
                replaced, self._area = self._area, area
                if not self._users[replaced]:
                    replaced.close()
            areas = [self._area, *self._roots.areas]
        for one in areas:
            one.max_file_size_bytes = generation.max_file_size_bytes
            one.space.forget_count()  # other files may count now

    def hold(self) -> UploadArea:
        """Return the area in force, for whoever may put it back: it stays open until he lets go of it."""
        with self._areas:
            self._users[self._area] += 1
            return self._area

    def let_go(self, area: UploadArea) -> None:
        """Need an area no more, of `hold`."""
        self._leave_area(area)

    def tidy(self) -> None:
        """Have a thread remove what a crash left in the area in force, which may be another one now."""
        with suppress(RuntimeError):  # no thread is to be had; the next start tidies up
            self._walking.submit_for(self._area, self._tidy)

    def _tidy(self) -> None:
        """Runs in a thread."""
        with self._areas:
            area = self._area
            self._users[area] += 1
        try:
            area.remove_leftovers()
        finally:
            self._leave_area(area)

    def look_again(self) -> bool:
        """Take uploads that begin from now on to where `root_dir` leads now; call it in a thread.

        An upload that has begun stays with the root that it began in, which is closed after the last of them.

        Returns:
            Whether that is elsewhere.

        Raises:
            ConfigError: It leads to no directory that may be entered; everything stays as it was.
        """
        with self._areas:
            generation, seen = self._generation, self._area
        if seen.is_current():
            return False
        area = self._make_area(generation.root_dir, None)
        self._sweep(area)
        with self._areas:
            is_same = self._area is seen  # else a reload has come between
            if is_same:
                area.max_file_size_bytes = seen.max_file_size_bytes
                self._area = area
            unwanted = seen if is_same else area
            self._users[unwanted] += 1
        self._leave_area(unwanted)
        return is_same

    def _make_area(self, root: str, place: Place | None) -> UploadArea:
        return UploadArea(
            root,
            max_file_size_bytes=self._generation.max_file_size_bytes,
            max_total_bytes=self._max_total_bytes,
            counts=lambda path: self._generation.policy.is_writable(path),
            place=place,
            run_count=self._count,
        )

    def _use_area(self, generation: Generation, terms: WriteDecision, may_wait_on: int | None) -> UploadArea:
        """Raises: RefusedError: The root of a rule is not there, or too many are in use. Elsewhere: As _begin."""
        root = terms.root
        if root is None:
            return self._use_root(generation)
        device = self._roots.device_of(generation.root_dir, root, terms.path, may_wait_on)
        if may_wait_on not in (None, device):
            raise Elsewhere(device)
        place = open_place(generation.root_dir, root)
        with self._areas:
            area, is_new = self._roots.take(generation.root_dir, root, place)
            self._users[area] += 1
        if is_new:
            try:
                self._sweep(area)
            except BaseException:
                self._leave_area(area)
                raise
        return area

    def _use_root(self, generation: Generation) -> UploadArea:
        """What old rules allowed is stored in the root that they were for, although a reload has come between."""
        path = _path_of(generation)
        with self._areas:
            found = next((area for area in (self._area, *self._users) if area.root == path), None)
            if found is not None:
                self._users[found] += 1
                return found
        try:
            area = self._make_area(generation.root_dir, None)
        except ConfigError as error:
            raise RefusedError(ErrorCode.FILE_NOT_FOUND, "File not found", why=str(error)) from error
        with self._areas:
            self._users[area] += 1
        return area

    def _leave_area(self, area: UploadArea) -> None:
        with self._areas:
            self._users[area] -= 1
            if not self._users[area]:
                del self._users[area]
                if area is not self._area and not self._roots.knows(area):
                    area.close()

    def answer(self, incoming: IncomingRequest, request: Request) -> Verdict | Awaitable[Verdict]:
        """Answer a WRQ; see answer.Answer.

        Raises:
            RefusedError: The rules do not allow it, or too many wait.
        """
        generation = self._generation
        name, terms = decide_upload(generation, incoming, request)

        def find(may_wait_on: int | None) -> Verdict:
            return self._begin(incoming, request, name, generation, terms, may_wait_on)

        def refuse_busy() -> Verdict:
            return refuse(request, RefusedError(ErrorCode.NOT_DEFINED, "Server busy, try again"))

        if terms.root is None:
            with self._areas:  # or a thread may close it, where the root has moved
                device = self._area.device_of(terms.path)
        else:
            device = self._roots.device_of(generation.root_dir, terms.root, terms.path, None)
        self._waiting += 1
        self._look_later()
        verdict = self.slow_opens.decide(device, find, refuse_busy)
        if isinstance(verdict, asyncio.Future):
            verdict.add_done_callback(self._note_begun)
        else:
            self._note_begun(None)
        return verdict

    def _look_later(self) -> None:
        if self._look is None and self._looks_for_room:
            self._look = asyncio.get_running_loop().call_later(_LOOK_S, self._look_for_room)

    def _look_for_room(self) -> None:
        def on_done(done: "asyncio.Future[None]") -> None:
            _ = done.cancelled() or done.exception()  # a look that failed is made again, soon
            self._look = None
            if self._open or self._waiting:
                self._look_later()

        trimming = asyncio.get_running_loop().run_in_executor(self._looking, self._trim)
        trimming.add_done_callback(on_done)

    def _trim(self) -> None:
        """Of every root in which an upload may run: it may have moved meanwhile. Runs in a thread."""
        with ExitStack() as leaving:
            with self._areas:
                areas = {self._area, *self._users}
                self._users.update(areas)
            for area in areas:
                leaving.callback(self._leave_area, area)
            for area in areas:
                area.space.trim()

    def _note_begun(self, _: object) -> None:
        self._waiting -= 1

    def _begin(
        self,
        incoming: IncomingRequest,
        request: Request,
        name: str,
        generation: Generation,
        terms: WriteDecision,
        may_wait_on: int | None,
    ) -> Verdict:
        """Runs in a thread; `terms` are those of the name, rewritten, without what firmware hangs behind it."""
        try:
            area = self._use_area(generation, terms, may_wait_on)
        except RefusedError as error:
            return refuse(request, error)
        try:
            device = area.device_of(terms.path, may_wait_on)
            if may_wait_on not in (None, device):
                raise Elsewhere(device)
            upload, negotiated, _ = begin_upload(area, generation, incoming, request, name, terms)
        except BaseException as error:
            self._leave_area(area)
            if isinstance(error, RefusedError):
                return refuse(request, error)
            raise
        self._open[upload] = area
        receiving = _Receiving(self, upload, device, incoming.peer[0], request, negotiated)
        plan = freeze_upload(incoming.transfer_id, upload.limit_bytes, upload.announced_bytes, negotiated, receiving)
        return Accepted(plan, None)

    async def open(self, upload: OpenUpload, device: int) -> Sink | CommitRefusal:
        """Open the file of an upload that begins to arrive; see UploadContext.open."""
        if self._opening >= _MAX_OPENING or self._beginning.is_stuck(device):
            return _BUSY
        self._opening += 1
        try:
            opening = asyncio.wrap_future(self._beginning.submit_for(device, upload.open))
            fd = await asyncio.wait_for(opening, OPEN_PATIENCE_S)
        except RefusedError as error:
            return _refusal_of(error)
        except (TimeoutError, RuntimeError):  # it hangs, or no thread is to be had
            return _BUSY
        finally:
            self._opening -= 1
        return Sink(fd, upload.limit_bytes)

    async def commit(self, upload: OpenUpload, device: int, received_bytes: int, client: str) -> CommitRefusal | None:
        """Make an upload durable and visible; see UploadContext.commit."""
        loop = asyncio.get_running_loop()
        try:
            stored = await loop.run_in_executor(self._committing.of(device), upload.commit, received_bytes)
        except RefusedError as error:
            return _refusal_of(error)
        self._on_stored(stored.real_path, client)
        return None

    def release(self, upload: OpenUpload, device: int) -> None:
        """Close an upload without waiting: what it wrote may take long to give back."""
        upload.abandon()  # now, for a commit that hangs may have all threads
        self._committing.submit_for(device, self._close, upload)

    def _close(self, upload: OpenUpload) -> None:
        """Runs in a thread."""
        upload.close()
        area = self._open.pop(upload, None)
        if area is not None:
            self._leave_area(area)


class _Receiving(UploadContext):
    """An upload under way."""

    __slots__ = ("_answerer", "_client", "_device", "_upload")

    def __init__(
        self,
        answerer: UploadAnswerer,
        upload: OpenUpload,
        device: int,
        client: str,
        request: Request,
        negotiated: Negotiated,
    ) -> None:
        super().__init__(request, upload.announced_bytes, negotiated)
        self._answerer = answerer
        self._upload = upload
        self._device = device
        self._client = client

    async def open(self) -> Sink | CommitRefusal:
        """See UploadContext.open."""
        return await self._answerer.open(self._upload, self._device)

    async def commit(self, received_bytes: int) -> CommitRefusal | None:
        """See UploadContext.commit."""
        refusal = await self._answerer.commit(self._upload, self._device, received_bytes, self._client)
        self.is_stored = refusal is None
        return refusal

    def abandon(self) -> None:
        """See UploadContext.abandon."""
        self._upload.abandon()

    def retired(self) -> None:
        """See UploadContext.retired."""
        self._answerer.release(self._upload, self._device)


def _threads(of_one_device: int, name: str) -> PatientThreads:
    return PatientThreads(_DEVICES * (of_one_device + _SPARES), of_one_device, name, max_spares=_SPARES)


def _path_of(generation: Generation) -> Path:
    return Path(generation.root_dir).absolute()


def _refusal_of(error: RefusedError) -> CommitRefusal:
    return CommitRefusal(error.code, error.text, error.errno if isinstance(error, UploadError) else 0)
