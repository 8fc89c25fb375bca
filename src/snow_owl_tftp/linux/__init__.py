"""What Linux offers, and nothing of TFTP.

    descriptors  how a descriptor is closed where nobody can do anything about a failure
    openat2      open a path that the kernel confines
    memfd        files in memory
    unnamed      files that have no name yet, and how they get one
    write_all    write(2) until everything is written
    sockopts     options of UDP sockets
    activation   sockets that a service manager has bound for us
    routes       what the kernel knows of the way to a peer
    neighbours   which MAC has which address on our own links
    folder_news  which names in a folder have changed
    remedies     what an operator can do where the operating system says no

May know: the operating system, and the package's errors. Must not know peers, names or settings.
"""
