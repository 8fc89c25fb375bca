"""One root and one server of it for all tests of a file: tests/support/boot.py."""

from tests.support.boot import client, quick, root, served

__all__ = ["client", "quick", "root", "served"]
