"""A file system of our own over /dev/fuse, without a library, that hangs where a test wants it to.

    @own_mounts
    def test_…(tmp_path):
        with Fuse(tmp_path / "mnt", {"a": b"content"}) as fuse:
            fuse.hang("read")        # whoever reads waits in the kernel, and not even SIGKILL ends that
            …
            fuse.go_on()

May know: the protocol, as far as the tests need it (include/uapi/linux/fuse.h). Must not: mount anywhere but in a mount
namespace of its own, and leave anybody waiting: leaving the context answers everything.
"""

import contextlib
import ctypes
import errno
import functools
import os
import struct
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import pytest

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS: Final = 0x20000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18
_MNT_DETACH: Final = 2

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _WRITE, _STATFS, _RELEASE = 1, 2, 3, 14, 15, 16, 17, 18
_FSYNC, _FLUSH, _INIT, _OPENDIR, _RELEASEDIR, _CREATE, _INTERRUPT, _DESTROY, _BATCH_FORGET = (
    20, 25, 26, 27, 29, 35, 36, 38, 42,
)  # fmt: skip
_NAMES: Final = {
    _LOOKUP: "lookup", _OPEN: "open", _READ: "read", _WRITE: "write", _FLUSH: "flush", _CREATE: "create",
    _OPENDIR: "opendir",
}  # fmt: skip
_READERS: Final = 24
"""Threads that take questions; one that hangs holds one. Beyond them a question hangs where SIGKILL still reaches."""

_T = TypeVar("_T", bound=Callable[..., None])


def own_mounts(test: _T) -> _T:
    """Plays a test in a thread with a mount namespace of its own; skips it where that is not allowed."""

    @functools.wraps(test)
    def play(*arguments: Any, **named: Any) -> None:
        outcome: list[BaseException] = []

        def run() -> None:
            try:
                _enter_own_namespace()
                test(*arguments, **named)
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if outcome:
            raise outcome[0]

    return play  # type: ignore[return-value]


def _enter_own_namespace() -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/fuse")
    if _libc.unshare(_CLONE_NEWNS) or _libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        pytest.skip(f"needs a mount namespace: {os.strerror(ctypes.get_errno())}")


class Fuse:
    """Files of one directory.

    Attributes:
        asked: How often each kind of question came.
        stuck: Questions that hang now.
    """

    def __init__(self, where: Path, files: dict[str, bytes]) -> None:
        where.mkdir(exist_ok=True)
        self.where = where
        self.asked: Counter[str] = Counter()
        self.stuck = 0
        self._files = {name: bytearray(content) for name, content in files.items()}
        self._names = list(self._files)
        self._hanging: frozenset[str] = frozenset()
        self._flows = threading.Event()
        self._flows.set()
        self._lock = threading.Lock()
        self._readers = _READERS

    def __enter__(self) -> Self:
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        if _libc.mount(b"test", os.fsencode(self.where), b"fuse", 0, options) != 0:
            error = ctypes.get_errno()
            os.close(self._fd)
            pytest.skip(f"cannot mount FUSE: {os.strerror(error)}")
        for _ in range(_READERS):
            threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.go_on()
        _libc.umount2(os.fsencode(self.where), _MNT_DETACH)  # when nobody uses it any more the readers end

    def hang(self, *questions: str) -> None:
        """Answers no such question from now on: lookup, open, read, write, flush, create, opendir."""
        self._flows.clear()
        self._hanging = frozenset(questions)

    def go_on(self) -> None:
        """Answers everything, what waits as well."""
        self._hanging = frozenset()
        self._flows.set()

    def _serve(self) -> None:
        """The last reader closes the descriptor: another file's may have its number then."""
        self._answer_all()
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                os.close(self._fd)

    def _answer_all(self) -> None:
        while True:
            try:
                question = os.read(self._fd, 1 << 20)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                return
            _, opcode, unique, node = struct.unpack_from("<IIQQ", question)
            if opcode in (_FORGET, _BATCH_FORGET, _INTERRUPT):
                continue
            name = _NAMES.get(opcode, "")
            self.asked[name] += 1
            if name in self._hanging:
                with self._lock:
                    self.stuck += 1
                self._flows.wait()
                with self._lock:
                    self.stuck -= 1
            status, answer = self._answer(opcode, node, question[40:])
            with contextlib.suppress(OSError):  # whoever asked is gone
                os.write(self._fd, struct.pack("<IiQ", 16 + len(answer), -status, unique) + answer)
            if opcode == _DESTROY:
                return

    def _answer(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        if opcode == _INIT:
            return 0, struct.pack("<IIIIHHIIHH", 7, 31, 131072, 0, 64, 48, 131072, 1, 32, 0) + bytes(32)
        if opcode == _LOOKUP:
            name = body.rstrip(b"\0").decode()
            return (0, self._entry(name)) if name in self._files else (errno.ENOENT, b"")
        if opcode == _GETATTR:
            return 0, struct.pack("<QII", 3600, 0, 0) + self._attributes(node)
        if opcode in (_OPEN, _OPENDIR):
            return 0, struct.pack("<QII", 1, 0, 0)
        if opcode == _READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return 0, bytes(self._content(node)[offset : offset + size])
        if opcode == _CREATE:
            name = body[16:].rstrip(b"\0").decode()
            self._files[name] = bytearray()
            self._names.append(name)
            return 0, self._entry(name) + struct.pack("<QII", 1, 0, 0)
        if opcode == _WRITE:
            _, offset, size = struct.unpack_from("<QQI", body)
            self._content(node)[offset : offset + size] = body[40 : 40 + size]
            return 0, struct.pack("<II", size, 0)
        if opcode == _STATFS:
            return 0, struct.pack("<QQQQQIIII", 1000, 1000, 1000, 1000, 1000, 4096, 255, 4096, 0) + bytes(24)
        if opcode in (_RELEASE, _RELEASEDIR, _FLUSH, _FSYNC, _DESTROY):
            return 0, b""
        return errno.ENOSYS, b""

    def _content(self, node: int) -> bytearray:
        return self._files[self._names[node - 2]]

    def _entry(self, name: str) -> bytes:
        node = self._names.index(name) + 2
        return struct.pack("<QQQQII", node, 1, 3600, 3600, 0, 0) + self._attributes(node)

    def _attributes(self, node: int) -> bytes:
        is_root = node == 1
        size = 0 if is_root else len(self._content(node))
        mode, links = (0o40755, 2) if is_root else (0o100644, 1)
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, 8, 1, 1, 1, 0, 0, 0, mode, links, 0, 0, 0, 4096, 0)
