"""What a disk may hold after a power cut: every state that the calls written down by recorder.c allow.

    tape = Tape(root)                           # what is there is on the disk
    tape.read(record)                           # lines of recorder.c
    for cut in tape.cuts(): for tree in cut.trees(): ...

Recorded at the border to libc, not by a FUSE file system: there the server has O_TMPFILE, flock, ACLs and the
descriptors of a local disk, which it has not on FUSE, and its own order of calls is what the states follow from.

What is lost, in two models:
- journal (ext4, xfs): names change in the order of the calls; fsync of anything makes all changes until then durable.
- adversary (what POSIX promises): fsync of a directory makes its own entries durable; of those since then any subset
  may be there, but each call as a whole.
In both the bytes of a file are there as of its last fsync; what was written since is there, or not, or in part, or
the file has its length and zeros.

May know: recorder.c's lines. Must not: know what a server promises.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Model = Literal["journal", "adversary"]
Tree = dict[str, bytes | None]
"""Relative path to content; None: a directory."""
_Entries = dict[tuple[int, str], int]
_MAX_PENDING = 10
"""2^10 subsets; more calls than that never wait for an fsync."""


@dataclass(slots=True)
class _File:
    synced: bytes = b""
    now: bytes = b""

    def variants(self) -> list[bytes]:
        if self.synced == self.now:
            return [self.now]
        half = len(self.now) // 2
        torn = [self.now[:half], self.now[:half] + bytes(len(self.now) - half), bytes(len(self.now))]
        return list(dict.fromkeys([self.synced, self.now, *torn]))

    def write(self, offset: int, data: bytes) -> None:
        self.extend(offset)
        self.now = self.now[:offset] + data + self.now[offset + len(data) :]

    def extend(self, size: int) -> None:
        self.now += bytes(max(0, size - len(self.now)))


@dataclass(slots=True)
class _Change:
    """One call that changes entries."""

    kind: str
    words: Sequence[str]

    @property
    def directories(self) -> set[int]:
        places = {"link": (1,), "mkdir": (1,), "unlink": (0,), "rename": (0, 2)}[self.kind]
        return {int(self.words[place]) for place in places}

    def apply(self, entries: _Entries) -> None:
        if self.kind in ("link", "mkdir"):
            entries[int(self.words[1]), self.words[2]] = int(self.words[0])
        elif self.kind == "unlink":
            entries.pop((int(self.words[0]), self.words[1]), None)
        else:
            inode = entries.pop((int(self.words[0]), self.words[1]), None)
            if inode is not None:  # else what it renames is lost, and so is this
                entries[int(self.words[2]), self.words[3]] = inode


@dataclass(slots=True)
class Cut:
    """The power goes behind one call."""

    number: int
    line: str
    model: Model
    root: int
    files: dict[int, _File]
    directories: set[int]
    durable: _Entries
    pending: list[_Change]

    def trees(self) -> Iterator[Tree]:
        for entries in self._entries():
            reachable = [inode for inode in set(entries.values()) if inode in self.files]
            for contents in itertools.product(*(self.files[inode].variants() for inode in reachable)):
                yield self._tree(entries, dict(zip(reachable, contents, strict=True)))

    def _entries(self) -> Iterator[_Entries]:
        if self.model == "journal":
            chosen = [self.pending[:count] for count in range(len(self.pending) + 1)]
        else:
            assert len(self.pending) <= _MAX_PENDING
            counts = range(len(self.pending) + 1)
            chosen = [list(some) for count in counts for some in itertools.combinations(self.pending, count)]
        for changes in chosen:
            entries = dict(self.durable)
            for change in changes:
                change.apply(entries)
            yield entries

    def _tree(self, entries: _Entries, contents: dict[int, bytes]) -> Tree:
        tree: Tree = {}
        below = [(self.root, "")]
        while below:
            directory, prefix = below.pop()
            for (holder, name), inode in entries.items():
                if holder == directory:
                    tree[prefix + name] = None if inode in self.directories else contents[inode]
                    if inode in self.directories:
                        below.append((inode, f"{prefix}{name}/"))
        return tree


@dataclass(slots=True)
class Tape:
    """What the disk of a root goes through."""

    root: Path
    lines: list[str] = field(default_factory=list)
    _files: dict[int, _File] = field(default_factory=dict)
    _directories: set[int] = field(default_factory=set)
    _entries: _Entries = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._directories.add(self.root.stat().st_ino)
        for path in self.root.rglob("*"):
            self._entries[path.parent.stat().st_ino, path.name] = path.stat().st_ino
            if path.is_dir():
                self._directories.add(path.stat().st_ino)
            else:
                content = path.read_bytes()
                self._files[path.stat().st_ino] = _File(content, content)

    def read(self, record: Path) -> None:
        """Take the lines that are about this root, and the ACKs."""
        known = {str(inode) for inode in (*self._files, *self._directories)}
        for line in record.read_text().splitlines():
            kind, *words = line.split(" ")
            directory = words[1 if kind in ("link", "mkdir") else 0]
            if kind == "new" or (kind == "mkdir" and directory in known):
                known.add(words[0])
            if kind == "ack" or directory in known:
                self.lines.append(line)

    def cuts(self, model: Model) -> Iterator[Cut]:
        """One behind each line, and one before all."""
        cut = Cut(0, "", model, self.root.stat().st_ino, self._files, self._directories, self._entries, [])
        cut = deepcopy(cut)
        yield cut
        for number, line in enumerate(self.lines, 1):
            cut.number, cut.line = number, line
            _play(cut, *line.split(" "))
            yield cut

    def is_what_happened(self) -> bool:
        """Whether nothing is missing: with nothing lost, the last cut is what lies there now."""
        for cut in self.cuts("journal"):
            last = cut
        entries = dict(last.durable)
        for change in last.pending:
            change.apply(entries)
        return last._tree(entries, {inode: file.now for inode, file in last.files.items()}) == tree_of(self.root)


def _play(cut: Cut, kind: str, *words: str) -> None:
    if kind in ("link", "mkdir", "unlink", "rename"):
        cut.pending.append(_Change(kind, words))
        if kind == "mkdir":
            cut.directories.add(int(words[0]))
    elif kind == "fsync":
        _sync(cut, int(words[0]))
    elif kind == "new":
        cut.files[int(words[0])] = _File()
    elif kind != "ack":
        file = cut.files.setdefault(int(words[0]), _File())
        if kind == "write":
            file.write(int(words[1]), bytes.fromhex(words[2]))
        elif kind == "extend":
            file.extend(int(words[1]))
        else:
            assert kind == "truncate"
            file.now = file.now[: int(words[1])]
            file.extend(int(words[1]))


def _sync(cut: Cut, inode: int) -> None:
    if inode in cut.files:
        cut.files[inode].synced = cut.files[inode].now
    is_durable = [cut.model == "journal" or inode in change.directories for change in cut.pending]
    for change in itertools.compress(cut.pending, is_durable):
        change.apply(cut.durable)
    cut.pending = [change for change, durable in zip(cut.pending, is_durable, strict=True) if not durable]


def tree_of(root: Path) -> Tree:
    return {str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")}


def lay_out(tree: Tree, root: Path) -> None:
    """Make a tree in an empty directory."""
    for name in sorted(tree, key=lambda name: name.count("/")):
        content = tree[name]
        if content is None:
            (root / name).mkdir()
        else:
            fd = os.open(root / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(fd, content)
            os.close(fd)
