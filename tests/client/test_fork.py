"""fork() takes no threads along: what has some says so in the child, at once, and goes on in the parent."""

import subprocess
import sys
import textwrap

import pytest

from snow_owl_tftp import ForkedError, TftpError

PRELUDE = """
    import asyncio, gc, os, sys, threading, time, traceback, warnings
    from snow_owl_tftp import AsyncClient, Client, ForkedError, ReadRequest, Response, Server, get

    warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, about fork() and threads

    def answer(request):
        return Response(request.path)

    def in_child(function):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                function()
                gc.collect()
                status = 0
            except BaseException:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(status)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        raise SystemExit("the child hangs")

    def refuses(act):
        try:
            act()
        except ForkedError as error:
            assert "in the child" in str(error), error
        else:
            raise AssertionError("no ForkedError")
"""


def run(code: str) -> None:
    """In a process of its own, which must say nothing on standard error."""
    script = textwrap.dedent(PRELUDE) + textwrap.dedent(code)
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_error_is_one_of_ours_and_a_runtime_error() -> None:
    assert issubclass(ForkedError, TftpError)
    assert issubclass(ForkedError, RuntimeError)


def test_client_that_was_used_before_says_so_in_the_child_and_goes_on_in_the_parent() -> None:
    run("""
        with Server(read=answer) as server, Client(*server.address) as client:
            assert client.get("one") == b"one"

            def child():
                refuses(lambda: client.get("two"))
                refuses(lambda: client.put("two", b""))
                refuses(lambda: client.size("two"))
                refuses(client.counters)
                client.close()
                refuses(lambda: client.get("two"))
                with Client(*server.address) as other:
                    assert other.get("three") == b"three"

            assert in_child(child) == 0
            assert client.get("four") == b"four"
            assert client.counters()["transfers_started"] == 2
        print("done")
    """)


def test_client_that_waits_in_another_thread_does_not_hold_up_the_child() -> None:
    run("""
        def slow(request):
            time.sleep(1)
            return Response("late")

        with Server(read=slow) as server, Client(*server.address) as client:
            heard = []
            waiting = threading.Thread(target=lambda: heard.append(client.get("x")))
            waiting.start()
            time.sleep(0.3)
            assert in_child(lambda: refuses(lambda: client.get("y"))) == 0
            waiting.join()
            assert heard == [b"late"]
        print("done")
    """)


def test_client_whose_threads_are_just_being_made_does_not_hold_up_the_child() -> None:
    """The lock is held at the moment of the fork."""
    run("""
        from snow_owl_tftp.client import calls
        real, entered, may_go_on = calls.ClientCore, threading.Event(), threading.Event()

        def slow(settings):
            entered.set()
            may_go_on.wait(20)
            return real(settings)

        calls.ClientCore = slow
        with Server(read=answer) as server, Client(*server.address) as client:
            thread = threading.Thread(target=lambda: client.get("x"))
            thread.start()
            entered.wait(10)
            assert in_child(lambda: refuses(lambda: client.get("y"))) == 0
            assert in_child(client.close) == 0
            may_go_on.set()
            thread.join()
        print("done")
    """)


def test_client_that_was_only_made_before_works_in_the_child() -> None:
    run("""
        with Server(read=answer) as server:
            client = Client(*server.address)

            def child():
                assert client.get("x") == b"x"
                client.close()

            assert in_child(child) == 0
            assert client.get("y") == b"y"
            client.close()
        print("done")
    """)


def test_async_client_says_so_in_the_child() -> None:
    run("""
        async def use(client, name):
            return await client.get(name)

        with Server(read=answer) as server:
            client = AsyncClient(*server.address)
            assert asyncio.run(use(client, "x")) == b"x"

            def child():
                refuses(lambda: asyncio.run(use(client, "y")))
                asyncio.run(client.close())

            assert in_child(child) == 0
            assert asyncio.run(use(client, "z")) == b"z"
            asyncio.run(client.close())
        print("done")
    """)


def test_server_says_so_in_the_child_and_goes_on_in_the_parent() -> None:
    run("""
        server = Server(read=answer)
        with server:
            def child():
                refuses(server.counters)
                refuses(lambda: asyncio.run(server.stop()))
                refuses(lambda: asyncio.run(server.start()))
                refuses(server.__enter__)
                server.__exit__(None, None, None)
                assert get(server.url("x")) == b"x"  # of the parent's, which anybody may ask
                with Server(read=answer) as other:
                    assert get(other.url("y")) == b"y"

            assert in_child(child) == 0
            assert get(server.url("z")) == b"z"

        def child():
            with server:
                assert get(server.url("x")) == b"x"

        assert in_child(child) == 0, "one that has ended may be started anew, in a child as well"
        print("done")
    """)


def test_file_system_of_fsspec_works_in_the_child() -> None:
    pytest.importorskip("fsspec")
    run("""
        import fsspec

        with Server(read=answer) as server:
            files = fsspec.filesystem("tftp")
            assert files.cat_file(server.url("x")) == b"x"

            def child():
                assert files.cat_file(server.url("y")) == b"y"
                assert fsspec.filesystem("tftp").exists(server.url("z"))

            assert in_child(child) == 0
            assert files.cat_file(server.url("x")) == b"x"
        print("done")
    """)
