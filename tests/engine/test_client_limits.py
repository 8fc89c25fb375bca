"""What a rule lets one client have, requests and bytes a second and transfers at a time; by class, by plan, by flow."""

import contextlib
import gc
import time

import pytest
from tests.engine.conftest import Served
from tests.engine.test_classes import classes_of, prefix
from tests.support.client import Client, Refused, Silence

from snow_owl_tftp._engine.engine import ClientClasses, Engine
from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.packets import Data, Error, build_ack

NAME = "a-file-whose-name-is-long-enough-for-the-whole-text"
BUSY = "Too many requests, try again later"
MANY = "too many transfers from your address, try again later"
HERE, OTHER, ELSEWHERE = "127.1.0.1", "127.1.0.2", "127.2.0.1"
REQUESTS, TRANSFERS, BYTES = "rules.limits.requests_per_s", "rules.limits.transfers", "rules.limits.bytes_per_s"


class Limited(Served):
    """Plans carry the limits of `rule`, for clients of `network`, as a server's decisions do it."""

    rule = (1, 0, 0, 0)
    network = "127.1."

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.denied = []

    def _decide(self, event):
        limits = self.rule if event.peer[0].startswith(self.network) else None
        beyond = event.charge(limits)
        assert event.limits == limits
        if beyond is None:
            self.event = event
            super()._decide(event)
        else:
            self.denied.append(beyond)
            self.engine.refuse(event.transfer_id, b"\0\5\0\0" + BUSY.encode() + b"\0")

    def start(self, plan, flow=None):
        self.engine.start(plan, flow if self.gives_flows else None, limits=self.event.limits)
        self.started[plan.transfer_id] += 1


@pytest.fixture
def limited(tmp_path):
    (tmp_path / NAME).write_bytes(bytes(2000))
    with contextlib.ExitStack() as running:

        def make(by_class=False, **options):
            rule = options.pop("rule")
            options.setdefault("kind", Engine)
            served = Limited(tmp_path, **options)
            served.rule = rule
            served.engine.set_limits(rules_pace=bool(rule[2]))
            # Where a rule looks at more than the address its class says nothing, and flows do.
            served.engine.set_classes(ClientClasses([prefix("127.1.0.0/16", 1)], {1: rule} if by_class else {}))
            running.callback(served.check_accounts)
            running.callback(served.stop)
            return served

        yield make


def ask(served, source, name=NAME):
    """What is answered to one request, and by whom nothing more is heard."""
    with Client(served.address, source=source) as client:
        client.request(name)
        return client.receive_packet()[0]


def begin(stack, served, source, *, answers=True):
    """One transfer that has got its first block, and acknowledges it."""
    client = stack.enter_context(Client(served.address, source=source))
    client.request(NAME)
    packet, tid = client.receive_packet()
    if answers and isinstance(packet, Data):
        client.send(build_ack(1), tid)
        packet, _ = client.receive_packet()
        assert packet.block == 2
    return packet


WAYS = {
    "asked": {"flows": False},
    "by flow": {"flows": True},
    "by class": {"flows": False, "by_class": True},
    "by class and flow": {"flows": True, "by_class": True},
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_beyond_its_requests_a_second_a_client_is_refused_and_no_other(limited, way):
    served = limited(rule=(1, 3, 0, 0), **way)
    answers, refused = [], []
    while len(refused) < 3 and len(answers) < 60:  # a slow machine gives tokens back meanwhile
        answers.append(ask(served, HERE))
        refused += [answers[-1]] * isinstance(answers[-1], Error)
    assert all(isinstance(answer, Data) for answer in answers[:3])
    assert len(refused) == 3
    assert {(answer.code, answer.text) for answer in refused} == {(ErrorCode.NOT_DEFINED, BUSY)}
    assert all(isinstance(ask(served, ELSEWHERE), Data) for _ in range(8)), "of no rule"
    assert all(isinstance(ask(served, OTHER), Data) for _ in range(3)), "another client of the rule"
    told = sum(served.counter(name) for name in ("refused_rule_requests",)) + len(served.denied)
    assert told == len(refused)
    assert set(served.denied) <= {REQUESTS}
    if way.get("by_class") or way["flows"]:
        served.wait(lambda: sum(one.count for one in served.refusals) == len(refused), "all of them told")
        assert {one.limit for one in served.refusals} == {REQUESTS}
        assert served.denied == []


def test_storm_of_a_class_never_meets_python(limited):
    """Nor of a name that is not there, of which there is no flow."""
    served = limited(rule=(1, 2, 0, 0), by_class=True, flows=True)
    answers = [ask(served, HERE, "missing-file-with-a-name-that-is-long-enough") for _ in range(30)]
    codes = [answer.code for answer in answers]
    assert codes[:2] == [ErrorCode.FILE_NOT_FOUND] * 2
    assert served.requests == codes.count(ErrorCode.FILE_NOT_FOUND)
    assert served.counter("refused_rule_requests") == codes.count(ErrorCode.NOT_DEFINED) >= 10


def test_a_second_later_there_are_tokens_again(limited):
    served = limited(rule=(1, 2, 0, 0), by_class=True)
    assert [type(ask(served, HERE)) for _ in range(3)] == [Data, Data, Error]
    time.sleep(1)  # what passes is the subject
    assert isinstance(ask(served, HERE), Data)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_beyond_its_transfers_a_client_is_refused_and_no_other(limited, way):
    served = limited(rule=(1, 0, 0, 2), **way)
    with contextlib.ExitStack() as stack:
        for source in (HERE, OTHER):
            assert [begin(stack, served, source).block for _ in range(2)] == [2, 2]
        third = begin(stack, served, HERE)
        assert isinstance(third, Error)
        assert [begin(stack, served, ELSEWHERE).block for _ in range(3)] == [2] * 3
    if served.denied:
        assert served.denied == [TRANSFERS]
    else:
        assert third.text == MANY
        assert served.counter("refused_rule_transfers") == 1


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_transfer_that_has_ended_makes_room(limited, way):
    served = limited(rule=(1, 0, 0, 1), **way)
    for total in range(1, 6):
        with Client(served.address, source=HERE) as client:
            assert client.get(NAME).payload == bytes(2000)
        served.completion(total=total)
        served.wait(lambda: served.engine.live_objects()["accounts"] == 0, "its account is closed")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_who_answers_nothing_gives_way_and_locks_nobody_out(limited, way):
    """Addresses are forged easily: two requests in a client's name must not cost it its turn."""
    served = limited(rule=(1, 0, 0, 2), **way)
    with contextlib.ExitStack() as stack:
        silent = [begin(stack, served, HERE, answers=False) for _ in range(5)]
        assert all(isinstance(packet, Data) for packet in silent)
        served.wait(lambda: served.counter("transfers_gave_way") == 3, "three give way")
        assert served.engine.live_objects()["accounts"] == 2
        assert begin(stack, served, HERE).block == 2


def test_a_client_that_was_reset_is_served_although_its_old_transfer_runs(limited):
    served = limited(rule=(1, 0, 0, 1))
    with Client(served.address, source=HERE) as client:
        for name in (NAME, "missing", NAME):
            client.request(name)
            packet, tid = client.receive_packet()
            if name == NAME:
                assert isinstance(packet, Data)
                client.send(build_ack(1), tid)
                client.receive_packet()
        assert client.port


@pytest.mark.parametrize("workers", [1, 3])
def test_transfers_are_counted_for_all_workers_together(limited, workers):
    served = limited(rule=(1, 0, 0, 3), workers=workers, flows=True, by_class=True)
    with contextlib.ExitStack() as stack:
        began = [begin(stack, served, HERE) for _ in range(12)]
        assert [isinstance(packet, Data) for packet in began] == [True] * 3 + [False] * 9


def test_of_those_that_begin_at_once_none_is_too_many(limited):
    """Python has found room for each before any has begun: the worker ends those that are too many."""
    served = limited(rule=(1, 0, 0, 2))
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            begin(stack, served, HERE, answers=False)
        clients = [stack.enter_context(Client(served.address, source=HERE)) for _ in range(6)]
        for client in clients:
            client.request(NAME)
        for client in clients:
            client.receive_packet()
        assert served.engine.live_objects()["accounts"] <= 2


def test_a_plan_that_comes_too_late_ends_as_it_begins_and_is_told(limited):
    served = limited(rule=(1, 0, 0, 1))
    with contextlib.ExitStack() as stack:
        late = stack.enter_context(Client(served.address, source=HERE))
        plans = []
        served.on_request = lambda event, request: plans.append((event, request))
        late.request(NAME)
        served.wait(lambda: plans, "the request")
        served.on_request = None
        assert begin(stack, served, HERE).block == 2
        event, request = plans[0]
        plan = served.send_plan(event, request)
        served.engine.start(plan, None, limits=served.rule)
        served.started[plan.transfer_id] += 1
        packet, _ = late.receive_packet()
        assert (packet.code, packet.text) == (ErrorCode.NOT_DEFINED, MANY)
        ended = served.completion()
        assert (ended.outcome, ended.text.decode()) == (Outcome.ABORTED, MANY)
        assert served.counter("transfers_too_many") == 1
        served.wait(lambda: [one.limit for one in served.refusals] == [TRANSFERS], "it is told")


@pytest.mark.alone("measures how fast a transfer goes")
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("options", [{}, {"blksize": 1428, "windowsize": 16}], ids=["lock-step", "windows"])
def test_bytes_a_second_are_paced_for_the_client_of_the_rule_alone(limited, tmp_path, way, options):
    rate = 150_000
    (tmp_path / "file").write_bytes(bytes(450_000))
    served = limited(rule=(1, 0, rate, 0), **way)
    took_s = [took(served, source, options) for source in (ELSEWHERE, HERE, OTHER)]
    expected_s = 450_000 / rate - 1
    assert took_s[0] < expected_s / 2
    for client_s in took_s[1:]:
        assert expected_s * 0.95 < client_s < expected_s * 1.05 + 0.7
    assert served.counter("timeouts") == 0
    served.engine.stop()
    paced = served.counter("sends_paced")
    served.wait(lambda: sum(told.count for told in served.refusals) == paced > 0, "all of it told")
    assert {told.limit for told in served.refusals} == {BYTES}


def took(served, source, options):
    began_s = time.monotonic()
    with Client(served.address, source=source, timeout_s=10) as client:
        assert client.get("file", options=options).payload == bytes(450_000)
    return time.monotonic() - began_s


@pytest.mark.alone("measures how fast a transfer goes")
@pytest.mark.parametrize(("of_all", "of_rule"), [(100_000, 10**9), (10**9, 100_000)])
def test_bytes_of_a_rule_stand_for_those_of_every_client_larger_or_smaller(limited, tmp_path, of_all, of_rule):
    (tmp_path / "file").write_bytes(bytes(450_000))
    served = limited(rule=(1, 0, of_rule, 0))
    served.engine.set_limits(max_bytes_per_s_per_client=of_all, rules_pace=True)
    took_s = {rate: took(served, source, {}) for rate, source in ((of_all, ELSEWHERE), (of_rule, HERE))}
    assert took_s[10**9] < 2 < took_s[100_000]


@pytest.mark.alone("measures how fast a transfer goes")
def test_bytes_of_its_network_hold_on_whatever_the_rule_says(limited, tmp_path):
    (tmp_path / "file").write_bytes(bytes(450_000))
    served = limited(rule=(1, 0, 10**9, 0))
    served.engine.set_limits(max_bytes_per_s_per_network=100_000, rules_pace=True)
    assert took(served, HERE, {}) > 3


@pytest.mark.alone("measures how fast an upload goes")
def test_uploads_are_paced_and_counted_too(limited):
    served = limited(rule=(1, 0, 100_000, 1), slot_bytes=65536)
    began_s = time.monotonic()
    with Client(served.address, source=HERE, timeout_s=10) as client, contextlib.ExitStack() as stack:
        assert begin(stack, served, HERE).block == 2
        with pytest.raises(Refused):
            client.put("upload", bytes(1000))
    served.denied.clear()
    served.wait(lambda: served.engine.live_objects()["accounts"] == 0, "its port is closed", 40)
    began_s = time.monotonic()
    with Client(served.address, source=HERE, timeout_s=10) as client:
        client.put("upload", bytes(300_000))
    assert 1.7 < time.monotonic() - began_s < 4


def test_max_transfers_per_client_may_be_another_while_it_runs(limited):
    served = limited(rule=(1, 0, 0, 0), max_transfers_per_client=1)
    with contextlib.ExitStack() as stack:
        assert begin(stack, served, ELSEWHERE).block == 2
        assert isinstance(begin(stack, served, ELSEWHERE), Error)
        served.engine.set_limits(max_transfers_per_client=3)
        assert [type(begin(stack, served, ELSEWHERE)) for _ in range(3)] == [Data, Data, Error]
        served.engine.set_limits()
        assert isinstance(begin(stack, served, ELSEWHERE), Error)


def test_other_classes_bring_other_limits(limited):
    served = limited(rule=(1, 1, 0, 0), by_class=True)
    assert [type(ask(served, HERE)) for _ in range(2)] == [Data, Error]
    served.rule = (0, 0, 0, 0)
    served.engine.set_classes(None)
    assert [type(ask(served, HERE)) for _ in range(5)] == [Data] * 5


def test_limits_without_prefixes_are_for_everybody(limited):
    served = limited(rule=(0, 0, 0, 0))
    served.engine.set_classes(ClientClasses([], {0: (7, 2, 0, 0)}))
    for source in (HERE, ELSEWHERE):
        assert [type(ask(served, source)) for _ in range(3)] == [Data, Data, Error]


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize(
    ("rule", "names"),
    [
        (0, ["max_requests_per_s_per_client", "max_transfers_per_client"]),
        (1, ["rules.limits.requests_per_s", "rules.limits.transfers"]),
    ],
)
def test_what_every_client_has_is_told_by_that_name_although_it_is_counted_like_a_rule_s(
    limited, by_class, rule, names
):
    served = limited(rule=(rule, 3, 0, 1), by_class=by_class)
    with contextlib.ExitStack() as stack:
        assert begin(stack, served, HERE).block == 2
        for _ in range(15):
            begin(stack, served, HERE)
        served.wait(lambda: {one.limit for one in served.refusals} | {*served.denied} == {*names}, "both are told")


def test_a_request_is_charged_once_for_a_rule_whatever_it_may_mean(limited):
    served = limited(rule=(1, 0, 0, 0))
    charged = []

    def on_request(event, request):
        charged.append([event.charge((2, 2, 0, 0)) for _ in range(5)])
        event.charge(None)
        return served.send_plan(event, request)

    served.on_request = on_request
    for _ in range(3):
        ask(served, ELSEWHERE)
    assert charged == [[None] * 5] * 2 + [[REQUESTS] * 5]
    assert served.event.limits is None


@pytest.mark.parametrize(
    "numbers", [(-1, 0, 0, 0), (2**32 - 1, 0, 0, 0), (1, 10**10 + 1, 0, 0), (1, 0, 10**10 + 1, 0), (1, 0, 0, 2**32)]
)
def test_numbers_out_of_their_range_are_refused_and_the_descriptor_is_closed(limited, numbers):
    served = limited(rule=(1, 0, 0, 0))
    with pytest.raises(ValueError, match="a rate is"):
        ClientClasses([], {0: numbers})
    failed = []

    def on_request(event, request):
        try:
            served.engine.start(served.send_plan(event, request), None, limits=numbers)
        except ValueError as error:
            failed.append(str(error))
            served.engine.refuse(event.transfer_id, b"")

    served.on_request = on_request
    with Client(served.address, source=HERE, give_up_s=0.3) as client:
        client.request(NAME)
        with pytest.raises(Silence):
            client.receive_packet(0.5)
    assert len(failed) == 1
    assert served.engine.live_objects()["recipes"] == 0


def test_the_collector_looks_at_no_request(limited):
    """It would be woken by a flood, and look at all that waits."""
    served = limited(rule=(1, 5, 0, 0))
    ask(served, HERE)
    assert served.event.limits
    assert not gc.is_tracked(served.event)


def test_limits_are_for_classes_that_there_are():
    with pytest.raises(ValueError, match="classes of prefixes"):
        ClientClasses([prefix("127.1.0.0/16", 1)], {2: (1, 1, 1, 1)})
    assert classes_of({"127.1.0.0/16": 1}).find(b"\x7f\x01\x00\x01") == 1


def test_a_superseded_transfer_that_its_client_goes_on_with_is_over(limited, tmp_path):
    """Else a client has as many as it likes: each request from its port frees the place of the one before."""
    for number in range(4):
        (tmp_path / f"file-{number}").write_bytes(bytes(20_000))
    served = limited(rule=(1, 0, 0, 1), flows=False)
    with Client(served.address, source=HERE) as client:
        tids, running = [], set()
        for number in range(4):
            client.request(f"file-{number}")
            packet, tid = client.receive_packet()
            while not isinstance(packet, Data) or tid in tids:
                packet, tid = client.receive_packet()
            tids.append(tid)
            client.send(build_ack(1), tid)
            client.receive_packet()
        for block in range(2, 6):
            for tid in tids:
                client.send(build_ack(block), tid)
            with contextlib.suppress(Silence):
                while True:
                    packet, tid = client.receive_packet(0.2)
                    if isinstance(packet, Data) and packet.block > 3:
                        running.add(tid)
        assert running == {tids[-1]}
    assert served.engine.live_objects()["accounts"] == 1


def test_transfers_that_began_at_several_workers_are_counted_when_their_client_answers(limited, tmp_path):
    (tmp_path / "long").write_bytes(bytes(20_000))
    served = limited(rule=(1, 0, 0, 1), flows=False, workers=4)
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(16):
            client = stack.enter_context(Client(served.address, source=HERE))
            client.request("long")
            packet, tid = client.receive_packet()
            if isinstance(packet, Data):
                clients.append((client, tid))
        assert len(clients) > 1
        for client, tid in clients:
            client.send(build_ack(1), tid)
        served.wait(lambda: served.counter("half_open_transfers") == 0)
        served.wait(lambda: served.engine.live_objects()["accounts"] <= 1)
        assert served.engine.live_objects()["accounts"] == 1
        assert served.counter("transfers_too_many") > 0


def test_copies_of_a_request_count(limited):
    served = limited(rule=(1, 1, 0, 0), flows=False)
    with Client(served.address, source=HERE) as client:
        client.request(NAME)
        assert isinstance(client.receive_packet()[0], Data), "decided: before that, copies are not answered at all"
        for _ in range(50):
            client.request(NAME)
        answers = 0
        with contextlib.suppress(Silence):
            while True:
                answers += isinstance(client.receive_packet(0.3)[0], Data)
    assert answers <= 3, "what a second or two of a slow machine bring, and the timer"
    assert served.counter("answers_withheld") >= 40
