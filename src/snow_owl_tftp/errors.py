"""Everything this package raises on purpose, one class for each party that can err.

Every docstring answers three questions: who erred, what do we send, and is the transfer over.
A transfer that fails is no exception at all: it ends as a Completion, because by then Python
holds no frame that could catch anything.

This file is the lowest layer. It knows no packet, no policy and no engine, hence the ERROR codes
below are plain ints. Texts that travel in an ERROR must never name a path, a host or a rule: the
reader of that text is whoever can send a datagram.
"""

__all__ = [
    "BadPacket",
    "ConfigError",
    "EngineError",
    "InternalError",
    "RefusedError",
    "TftpError",
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
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"ERROR {int(self.code)}: {self.text}"


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
