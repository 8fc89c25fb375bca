"""Which system calls are counted, and the bpftrace program that counts them.

    sys_exit_recvmmsg returns 17  ─►  @results[number of recvmmsg, 17] += 1

May know: names of system calls and bpftrace's language. Must not start anything.

Invariants:
- One map holds everything: (call, what it returned) → how often. Calls, errors, datagrams and the
  histogram all follow from it in Python, so the kernel side does one addition a call and the figures
  cannot contradict one another.
- Maps are printed, never cleared: a clear between two calls of a busy thread would lose counts.
- `pid` in bpftrace is the process (tgid): every thread of it is counted.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["CALLS", "WIRE_MAP", "Call", "build_script"]

Kind = Literal["receive", "send", "wait", "read"]


@dataclass(frozen=True, slots=True)
class Call:
    """One system call.

    Attributes:
        name: As in tracepoint:syscalls:sys_exit_NAME.
        kind: What it does for a server.
        returns_count: What it returns is a number of datagrams (or, for waits, of ready descriptors); the
            others return bytes, which are counted as one datagram.
    """

    name: str
    kind: Kind
    returns_count: bool = False


CALLS: Final = (
    Call("recvmmsg", "receive", returns_count=True),
    Call("recvmsg", "receive"),
    Call("recvfrom", "receive"),
    Call("sendmmsg", "send", returns_count=True),
    Call("sendmsg", "send"),
    Call("sendto", "send"),
    Call("epoll_wait", "wait", returns_count=True),
    Call("epoll_pwait", "wait", returns_count=True),
    Call("epoll_pwait2", "wait", returns_count=True),
    Call("poll", "wait", returns_count=True),
    Call("ppoll", "wait", returns_count=True),
    Call("select", "wait", returns_count=True),
    Call("pselect6", "wait", returns_count=True),
    Call("read", "read"),
    Call("readv", "read"),
    Call("pread64", "read"),
    Call("preadv", "read"),
    Call("preadv2", "read"),
)
"""recv(2) and send(2) of the C library arrive in the kernel as recvfrom and sendto."""

RESULTS_MAP: Final = "@results"
WIRE_MAP: Final = "@wire"
TREE_MAP: Final = "@tree"
READY: Final = "ready"
TICK: Final = "tick"


def build_script(
    pids: Collection[int], *, with_children: bool, interval_ms: int, calls: Collection[Call] = CALLS
) -> str:
    """The program for these processes.

    Args:
        pids: At least one; in the eyes of the initial PID namespace, as the kernel knows them.
        with_children: Count what they fork from now on as well.
        interval_ms: How often the maps are printed, 1 or more.
        calls: Those of CALLS that the kernel knows: bpftrace refuses a program that names another.

    Returns:
        Text for `bpftrace -f json -e`; it says READY once all probes are attached, and TICK after each print.
    """
    is_ours = " || ".join([f"pid == {pid}" for pid in sorted(pids)] + ([f"{TREE_MAP}[pid]"] if with_children else []))
    probes = [_count_call(number, call, is_ours) for number, call in enumerate(CALLS) if call in calls]
    probes.append(_count_wire(is_ours))
    if with_children:
        # parent_pid is the thread that forks; `pid`, of the same task, is its process. A thread's entry harms nobody.
        probes.append(f"tracepoint:sched:sched_process_fork /{is_ours}/ {{ {TREE_MAP}[args->child_pid] = 1; }}")
        probes.append(f"END {{ clear({TREE_MAP}); }}")
    # Output is read only after every probe is attached, so whatever arrives first says "ready".
    probes.append(f'BEGIN {{ printf("{READY}\\n"); }}')
    probes.append(f'interval:ms:{interval_ms} {{ print({RESULTS_MAP}); print({WIRE_MAP}); printf("{TICK}\\n"); }}')
    return "\n".join(probes)


def _count_call(number: int, call: Call, is_ours: str) -> str:
    result = "args->ret" if call.returns_count else "(args->ret > 0 ? 1 : args->ret)"
    if call.kind == "receive" and not call.returns_count:
        result = "(args->ret >= 0 ? 1 : args->ret)"  # an empty datagram is a datagram
    return (
        f"tracepoint:syscalls:sys_exit_{call.name} /{is_ours}/ "
        f"{{ {RESULTS_MAP}[{number}, (int64){result}] = count(); }}"
    )


def _count_wire(is_ours: str) -> str:
    """Packets handed to a network device, by device; a GSO train counts as its segments.

    The one place where a syscall tracer sees how many datagrams a train was: sendmmsg returns messages.
    """
    return (
        f"tracepoint:net:net_dev_start_xmit /{is_ours}/ "
        f"{{ {WIRE_MAP}[str(args->name)] = sum(args->gso_segs > 0 ? args->gso_segs : 1); }}"
    )
