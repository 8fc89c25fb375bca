"""Which machine it is that asks: one answer a request, from what the operator, DHCP, the kernel and the name say.

    inventory ──┐
    leases ─────┤ by address                       inventory, by MAC, UUID or serial
    neighbours ─┼──────────────► sighting ─ completed by ┘ ──► Machine, or None
    name ───────┘ a claim

    machine      what is known of a machine, and the protocol by which it is asked for
    spellings    one spelling for each address, MAC, UUID
    sighting     what one source says, and the protocol of sources
    inventory    the operator's list; entries: what one may hold; formats: TOML, YAML, JSON, CSV
    leases       addresses that DHCP servers gave away; dhcp: how their files are written
    neighbours   what the kernel has heard
    claims       what a requested name says of who asks for it
    known        all of them, in the operator's order

May know: text and bytes. Must not open a file or a socket: whoever follows them (operate) hands in what they hold.
Invariants: `find` looks into dictionaries and waits for nothing; a claim never adds to what an address proves.
"""

from snow_owl_tftp.policy.machines.machine import NO_MACHINES, Machine, Machines

__all__ = ["NO_MACHINES", "Machine", "Machines"]
