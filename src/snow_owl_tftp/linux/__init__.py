"""What Linux offers, and nothing of TFTP.

    descriptors  how a descriptor is closed where nobody can do anything about a failure
    activation   sockets that a service manager has bound for us
    routes       what the kernel knows of the way to a peer
    remedies     what an operator can do where the operating system says no

May know: the operating system, and the package's errors. Must not know peers, names or settings.
"""
