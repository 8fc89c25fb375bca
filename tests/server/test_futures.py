"""What a finished future is said to have failed with."""

import asyncio
import gc
import weakref

from snow_owl_tftp.server.futures import failure_of


class Holder:
    """Something that a caller knows."""


async def test_a_result_is_no_failure_and_an_exception_is() -> None:
    loop = asyncio.get_running_loop()
    good, bad, error = loop.create_future(), loop.create_future(), LookupError()
    good.set_result(None)
    bad.set_exception(error)
    assert failure_of(good) is None
    assert failure_of(bad) is error


async def test_a_cancellation_is_a_failure_that_says_where_it_came_from() -> None:
    async def give_up() -> None:
        raise asyncio.CancelledError("by itself")

    task = asyncio.ensure_future(give_up())
    await asyncio.wait([task])
    error = failure_of(task)
    assert isinstance(error, asyncio.CancelledError)
    frames, traceback = [], error.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert "failure_of" not in frames


async def test_what_a_caller_knows_is_let_go_of_without_the_collector() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()

    def look() -> "weakref.ref[Holder]":
        holder = Holder()
        error = failure_of(future)  # as a local, it is what made a circle
        assert error is not None
        return weakref.ref(holder)

    gc.disable()
    try:
        assert look()() is None
    finally:
        gc.enable()
