"""Snow Owl: a TFTP server that decides in Python once per request and streams in native code once per datagram.

May know: the names that callers of the package use, nothing of how they work.
Invariant: importing the package costs next to nothing; it pulls in no engine, no event loop and no command line.
Must not: hold logic, or the version anywhere else (pyproject.toml reads it from here, as text).
"""

__version__ = "0.1.0"
