"""What rewriting costs: python benchmarks/rewriting.py

Prints CPU time of this process a name, in µs: of rules that do not match, of those that do, and of names that are made
to be slow. Nothing is remembered between names here; the server remembers the last 1,024.
"""

import random
import time
from collections.abc import Callable, Sequence

from snow_owl_tftp.policy.rewrite import matching
from snow_owl_tftp.policy.rewrite.expand import Client
from snow_owl_tftp.policy.rewrite.parse import parse_map
from snow_owl_tftp.policy.rewrite.program import Program
from snow_owl_tftp.policy.rewrite.rewrites import Rewrites

CLIENT = Client("192.0.2.34")
RULES = (
    r"r ^/?vendor%d/(.*)\.bin$ firmware/v/\1.img",
    r"re ^(boot|boot64)-%d/(.+)$ \2",
    r"rgi \\x%d /x",
    r"e ^ok%d/.*\.(efi|cfg)$",
)
WILD = "e .*{0}.*[^a]{1}.*"


def program_of(lines: Sequence[str]) -> Program:
    return Rewrites([parse_map("\n".join(lines).encode(), "map")], 65_536)._programs[False]


def typical(count: int) -> list[str]:
    return [RULES[at % 4] % at for at in range(count)]


def wild(count: int) -> list[str]:
    return [WILD.format(chr(97 + at % 26), chr(97 + at * 7 % 26)) for at in range(count)]


def cost_us(program: Program, names: Sequence[bytes]) -> tuple[float, float]:
    """Mean and worst."""
    for name in names[:20]:
        program.run(name, CLIENT)
    costs = []
    for name in names:
        began = time.process_time_ns()
        program.run(name, CLIENT)
        costs.append(time.process_time_ns() - began)
    return sum(costs) / len(costs) / 1e3, max(costs) / 1e3


def tell(what: str, lines: Sequence[str], make: Callable[[], bytes], count: int = 2000) -> None:
    mean, worst = cost_us(program_of(lines), [make() for _ in range(count)])
    print(f"{what:60} {mean:8.1f} µs, at worst {worst:8.1f}")


def main() -> None:
    rng = random.Random(20261126)
    parts = [b"vendor4/", b"boot64-1/", rb"\x2", rb"\x6", b"ok3/", b".bin", b".efi", b"/", b"a"]

    def plain() -> bytes:
        return b"pxelinux.cfg/01-%012x" % rng.getrandbits(48)

    def letters() -> bytes:
        return bytes(rng.randrange(97, 123) for _ in range(500))

    def pieces() -> bytes:
        return b"".join(rng.choice(parts) for _ in range(99))[:500]

    for count in (1, 200, 1000):
        tell(f"{count} rules, none matches", typical(count), plain)
    tell("200 rules, one rewrites", typical(200), lambda: b"vendor100/%x.bin" % rng.getrandbits(30))
    tell("200 rules, 500 random bytes", typical(200), lambda: rng.randbytes(500))
    tell("200 rules, 500 bytes of what they look for", typical(200), pieces)
    tell("200 rules like .*x.*[^a]y.*, 500 letters", wild(200), letters, 300)
    matching.groups_of = lambda nodes: [list(range(len(nodes)))]  # type: ignore[assignment,attr-defined]
    tell("the same, all in one set", wild(200), letters, 300)


if __name__ == "__main__":
    main()
