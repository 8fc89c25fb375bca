"""How DHCP servers write their leases down: chunks of a file in, what they say out.

    dnsmasq   1795680000 52:54:00:12:34:56 10.0.0.5 lathe 01:…    the whole file again at every change, in place
    Kea       10.0.0.5,52:54:00:12:34:56,…,3600,1795680000,…      appended; cleaned into other files, then begun anew
    dhcpd     lease 10.0.0.5 { … hardware ethernet …; }           appended; now and then a new file takes the name

May know: bytes. Must not know files, tables or clocks.
Invariants: a record that has not arrived whole waits for the rest; one that is none is skipped and counted; what waits
is at most `MAX_WAITING_BYTES`.
"""

from snow_owl_tftp.policy.machines.dhcp.reader import LeaseReader, reader_of

__all__ = ["LeaseReader", "reader_of"]
