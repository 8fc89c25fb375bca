"""Uploads: from the first byte to a file that is whole, durable and accounted for, or to nothing.

    uploads      one upload from its request to its end; the area that all belong to
    reception    the files that it arrives in; staging: files that nobody sees yet, and the step that shows one
    publishing   how it gets its name
    directories  where it goes; places: what lies there; overwrite: new content for a file that keeps its inode
    permissions  who owns it
    space        how much all may take
    leftovers    what a crash left
    refusals     errno to ERROR

May know: directories, files, terms. Must not know peers or rules.
"""
