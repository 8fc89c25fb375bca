"""The benchmark: servers side by side under the same load, every byte compared.

    settings   what is asked: Workload, BenchTarget
    servers    which servers are here, and how each is started
    cpu        pinning, and what a server's processes have cost
    load       many clients in one process, on the engine (a process of its own: `python -m`)
    relay      a seeded bad network between load and server (the same)
    helper     these two, and what is said to them
    runs       one timed run, one traced run
    sweeps     which runs a benchmark consists of
    figures    rounds and their medians
    provenance machine, versions, date
    report     report.md and results.json; markdown: its tables; recvmmsg: the pages of --profile recvmmsg
    pictures   PNG, with matplotlib (pip install 'snow-owl-tftp[bench]')

Servers are other processes, also ours.
Invariants: a run with one wrong byte or one failed transfer has no speed; what is timed is not traced.
"""
