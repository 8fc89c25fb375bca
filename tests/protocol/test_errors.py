"""Checklist of the errors: which built-in each one is, and what it carries."""

import errno
import pickle

import pytest

from snow_owl_tftp import errors
from snow_owl_tftp.errors import BadPacket, ConfigError, EngineError, InternalError, RefusedError, TftpError


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_a_tftp_error(name):
    assert issubclass(getattr(errors, name), TftpError)


@pytest.mark.parametrize("kind", [ConfigError, BadPacket, RefusedError, EngineError, InternalError])
def test_docstring_answers_who_what_and_whether_it_is_over(kind):
    text = " ".join(kind.__doc__.split())
    assert "What do we send" in text
    assert "Is the transfer over" in text


def test_config_error_is_a_value_error():
    with pytest.raises(ValueError, match="port out of range"):
        raise ConfigError("port out of range")


def test_bad_packet_carries_its_reason():
    assert BadPacket("no filename").reason == "no filename"
    assert str(BadPacket("no filename")) == "no filename"


def test_refused_error_carries_the_error_to_send():
    refused = RefusedError(2, "Access violation")
    assert (refused.code, refused.text) == (2, "Access violation")
    assert str(refused) == "ERROR 2: Access violation"


def test_engine_error_is_an_os_error_with_its_errno():
    error = EngineError(errno.EADDRINUSE, "Address already in use")
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror) == (errno.EADDRINUSE, "Address already in use")


@pytest.mark.parametrize(
    "error", [BadPacket("no mode"), RefusedError(1, "File not found"), EngineError(errno.ENOMEM, "no memory")]
)
def test_errors_survive_pickling(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
