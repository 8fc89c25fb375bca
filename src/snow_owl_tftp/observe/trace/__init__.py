"""System calls of a running process, counted by eBPF.

    counter  runs bpftrace; script: the program that it runs
    counts   figures, their differences, and what follows from them
    table    the same for people

May know bpftrace and processes. Must not know TFTP.
"""
