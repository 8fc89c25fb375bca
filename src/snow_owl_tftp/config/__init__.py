"""What an operator may set, and whether it holds together.

schema  the tables: names, ranges, defaults
machines  [machines]: where it is learned which machine asks
binds   addresses and port ranges as they are written
paths   key paths
check   a tree of tables to Settings, or every problem at once
load    a file, and flags laid over it
legacy  keys of the earlier Rust server

Must not open a socket or look at a file but the one to load.
"""
