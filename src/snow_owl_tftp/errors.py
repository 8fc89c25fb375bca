"""Everything this package raises on purpose, one class for each party that can err.

Every docstring answers three questions: who erred, what do we send, and is the transfer over.
A transfer that fails in the server is no exception at all: it ends as a Completion, because by
then Python holds no frame that could catch anything. In the client somebody waits for it, and gets
a TransferError.

This file is the lowest layer. It knows no packet, no policy and no engine, hence the ERROR codes
below are plain ints. Texts that travel in an ERROR must never name a path, a host or a rule: the
reader of that text is whoever can send a datagram.
"""

__all__ = [
    "BadPacket",
    "ConfigError",
    "EngineError",
    "ForkedError",
    "InternalError",
    "OptionalMissingError",
    "RefusedError",
    "TftpError",
    "TransferAborted",
    "TransferChanged",
    "TransferDiskFull",
    "TransferError",
    "TransferRefused",
    "TransferTimedOut",
    "TransferUnreachable",
]


class TftpError(Exception):
    """Base of everything raised here on purpose; catch it to tell our errors from Python's.

    Never raised itself, so who erred, what is sent and whether a transfer is over is answered
    by the class below it.
    """


class ConfigError(TftpError, ValueError):
    """The operator erred: a setting is unknown, out of range or contradicts another one.

    What do we send: nothing; it is reported to the operator, at start or at reload.
    Is the transfer over: no; at start there is none, and a reload keeps the old settings.
    """


class ForkedError(TftpError, RuntimeError):
    """The caller erred: what runs threads was used in a child of fork(), where these are not.

    What do we send: nothing.
    Is the transfer over: no; those of the parent go on there.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"this {kind} was used before fork(), and its threads are in the parent; make a new {kind} in the child"
        )


class BadPacket(TftpError):  # noqa: N818 - named for the thing, as the protocol code reads
    """The peer erred: its bytes are not a packet, or not one that may be sent here.

    What do we send: to the request port, what `packets.refuse_malformed_untrusted` says; as a
    client that received a bad OACK, ERROR 8; within a transfer, nothing.
    Is the transfer over: a request never became one; a client that received a bad OACK aborts;
    otherwise the datagram is dropped and the transfer goes on, since anybody can forge one.

    Attributes:
        reason: What is wrong, in a few ASCII words of ours. It holds no byte of the peer's, so
            it may be logged and sent as it is.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RefusedError(TftpError):
    """The requester asked for what policy or the file system does not grant.

    What do we send: ERROR with `code` and `text`, once, and it is not retransmitted (RFC 1350
    section 7: an ERROR is neither acknowledged nor retransmitted).
    Is the transfer over: it never began.

    Attributes:
        code: ErrorCode of the ERROR to send, 0..8.
        text: Its human-readable message; short, ASCII, free of paths.
        why: What the operator needs to know beside it, paths and errno included; never sent.
        rule: By which of [[rules]], from 1; 0: by none of them.
        is_silent: Nothing is sent at all: a rule says so.
        limit: Of a rule, which was reached; empty: it is for another reason.
    """

    rule = 0
    is_silent = False
    limit = ""

    def __init__(self, code: int, text: str, *, why: str = "") -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text
        self.why = why

    def __str__(self) -> str:
        return f"ERROR {int(self.code)}: {self.text}"


class OptionalMissingError(RefusedError):
    """Nobody erred: a client asked for a file that it can do without, and there is none.

    What do we send: ERROR 1, as for any file that is not there; boot loaders go on with the next one.
    Is the transfer over: it never began.
    """


class EngineError(TftpError, OSError):
    """The operating system refused what the engine needs: a socket, a thread, memory.

    What do we send: nothing; the socket may be what is missing.
    Is the transfer over: if a start failed, the requester gets no answer and retries; a transfer
    that already runs ends with its own Completion, never with this.

    Takes the arguments of OSError, so `errno` and `strerror` are set as usual.
    """


class InternalError(TftpError):
    """We erred: an invariant of this package does not hold.

    What do we send: ERROR 0 without detail, if a requester still waits for an answer.
    Is the transfer over: yes, that one; the server goes on with the others.
    """


class TransferError(TftpError):
    """A `get` or `put` failed; the class below it, if any, says how. This one: the system or the peer's bytes.

    Who erred: see the class; for this one, the text says it.
    What do we send: an ERROR, unless the server ended the transfer or stayed silent.
    Is the transfer over: yes, and nothing is left of it: no file under its name, no temporary file.

    Attributes:
        text: One line for a human; what a server wrote is stripped of control characters.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class TransferRefused(TransferError):  # noqa: N818 - the four are named for what happened
    """The server refused the request, or gave up in the middle, with an ERROR.

    Who erred: whoever asked for what the server does not grant, or the server; its code says it.
    What do we send: nothing, an ERROR is not answered (RFC 1350 section 7).
    Is the transfer over: yes.

    Attributes:
        code: Of the ERROR, 0..65535; 0..8 are an ErrorCode.
        server_text: What the server wrote, without control characters.
    """

    def __init__(self, code: int, server_text: str) -> None:
        super().__init__(f"refused by the server: ERROR {code}{': ' if server_text else ''}{server_text}")
        self.args = (code, server_text)  # what pickle calls us with
        self.code = code
        self.server_text = server_text

    def __str__(self) -> str:
        return self.text


class TransferTimedOut(TransferError, TimeoutError):  # noqa: N818
    """The server said nothing for as long as the retransmissions last.

    Who erred: the network or the server, if there is one.
    What do we send: an ERROR 0 into the silence, once.
    Is the transfer over: yes.
    """


class TransferUnreachable(TransferError, ConnectionRefusedError):  # noqa: N818
    """The server's host says that nothing listens on its port (ICMP).

    Who erred: whoever named the port, or the server, which is not running, or went away in the middle.
    What do we send: nothing, nobody is there.
    Is the transfer over: yes; to wait for a server that is just starting is the caller's to decide.
    """


class TransferChanged(TransferError):  # noqa: N818
    """What arrived is not what was announced, or the local file changed while it was sent.

    Who erred: the sender of the file: its size is not its tsize, or somebody writes to it.
    What do we send: ERROR 0, or ERROR 3 when more arrived than was announced.
    Is the transfer over: yes; a mixed or short file is never delivered.
    """


class TransferDiskFull(TransferError):  # noqa: N818
    """Our disk, quota or limit of size is used up.

    Who erred: nobody; the file has no room here.
    What do we send: ERROR 3.
    Is the transfer over: yes.
    """


class TransferAborted(TransferError):  # noqa: N818
    """It was cancelled here, or its client was closed.

    Who erred: nobody.
    What do we send: ERROR 0.
    Is the transfer over: yes.
    """
