"""The fixture `tftp_server` in somebody else's test suite: found by its entry point, gone when the test ends."""

import pytest

pytest_plugins = ["pytester"]

USER_TESTS = """
    import threading

    import pytest
    from snow_owl_tftp import TransferRefused, get, put

    def test_serves_what_the_dictionary_holds_and_remembers_who_asked(tftp_server):
        tftp_server.files["boot.cfg"] = b"kernel vmlinuz"
        assert get(tftp_server.url("boot.cfg")) == b"kernel vmlinuz"
        tftp_server.files["boot.cfg"] = b"changed"
        assert get(tftp_server.url("boot.cfg")) == b"changed"
        assert [request.path for request in tftp_server.requests] == ["boot.cfg", "boot.cfg"]
        assert tftp_server.requests[0].client == "127.0.0.1"
        assert tftp_server.address[0] == "127.0.0.1"

    def test_refuses_other_names(tftp_server):
        assert tftp_server.files == {} and tftp_server.uploads == {} and tftp_server.requests == []
        with pytest.raises(TransferRefused, match="ERROR 1"):
            get(tftp_server.url("missing"))

    def test_takes_one_name_in_every_spelling(tftp_server):
        tftp_server.files["/boot.cfg"] = b"kernel vmlinuz"
        for spelling in ("boot.cfg", "/boot.cfg", "./boot.cfg", "x/../boot.cfg"):
            assert get(tftp_server.url(spelling)) == tftp_server.files[spelling] == b"kernel vmlinuz"
        assert [request.path for request in tftp_server.requests] == ["boot.cfg"] * 4
        del tftp_server.files["boot.cfg"]
        assert "/boot.cfg" not in tftp_server.files
        with pytest.raises(ValueError, match="no client can ask for"):
            tftp_server.files["../x"] = b""

    def test_takes_text(tftp_server):
        tftp_server.files["motd"] = "grüß Gott\\n"
        assert get(tftp_server.url("motd")).decode() == "grüß Gott\\n"

    def test_takes_uploads(tftp_server):
        data = bytes(range(256)) * 5000
        put(tftp_server.url("/backup/switch.cfg"), data)
        assert tftp_server.uploads == {"backup/switch.cfg": data}
        assert get(tftp_server.url("backup/switch.cfg")) == data
        assert tftp_server.uploads["/backup/switch.cfg"] == data

    def test_leaves_no_thread():
        assert not [t.name for t in threading.enumerate() if "tftp" in t.name]
"""


# Other plugins are not under test, and pytest-asyncio wants a setting.
ALONE = ("-p", "no:cacheprovider", "-p", "no:asyncio")


def test_fixture_serves_a_dictionary_and_leaves_nothing(pytester: pytest.Pytester):
    pytester.makepyfile(USER_TESTS)
    pytester.runpytest_subprocess(*ALONE, "-W", "error").assert_outcomes(passed=6)


def test_suite_that_does_not_use_it_pays_nothing(pytester: pytest.Pytester):
    pytester.makepyfile(
        """
        import sys

        def test_not_imported():
            assert "snow_owl_tftp.library.pytest_plugin" in sys.modules
            assert "snow_owl_tftp.library.server" not in sys.modules
            assert "snow_owl_tftp._engine.engine" not in sys.modules
        """
    )
    pytester.runpytest_subprocess(*ALONE).assert_outcomes(passed=1)
