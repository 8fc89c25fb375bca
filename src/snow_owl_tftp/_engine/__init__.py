"""The compiled engine: streams datagrams without the GIL once Python has decided what to stream.

It imports nothing of the package and raises only OSError and ValueError.  What crosses the border is
specified in docs/engine-contract.md.
"""
