"""Where bytes come from: a name that a peer sent becomes a file descriptor with an exact size.

    name ──names──► paths ──source──► open now | not here | later
    path ──confine──► fd ──files──► OpenFile ──translate (netascii)──► OpenFile

May know files and directories. Must not know peers, rules or transfers: who may read what was
decided before, and the engine that reads the descriptor checks that the file stays as it is.
"""
