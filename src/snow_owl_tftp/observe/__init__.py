"""What the server tells about itself: log lines for people, audit events for machines.

Nothing here decides anything, and nothing here may fail the server: a full disk costs lines, which
are counted, never a transfer.
"""
