"""Where the knowledge about machines comes from, and how it stays fresh: files that others write, and the kernel.

    inventory, lease files ─inotify, or a look now and then─► threads ─► tables of policy.machines
    neighbour table ─netlink, a change at a time───────────────────────► likewise

    followed     what a look at a file is, and what comes of it
    files        the inventory as a file
    lease_file   a lease file, as it grows, is rewritten, replaced
    hearing      what the kernel says of neighbours
    gathered     all that one [machines] table names
    turn, watch  when a file is due; whose turn it is

May know: files, sockets, the event loop. Must not decide who a machine is: that is policy's.
Invariant: the event loop waits for no file; a file system that hangs costs one thread for each file on it.
"""

from snow_owl_tftp.operate.machines.wanted import wanted_machines
from snow_owl_tftp.operate.machines.watch import MachineWatch, Prepared

__all__ = ["MachineWatch", "Prepared", "wanted_machines"]
