"""A server inside somebody's program: requests are answered by functions of theirs.

    server          Server
    responses       what such a function is given and gives back
    confined        the paths that it sees, and files that no link leads out of
    handler         its answers to verdicts
    response_bytes  what it returned, made ready to be sent; streams: what it still makes
    receiving       what clients send, whole, to be handed to it
    counts          what has become of requests and transfers, when somebody asks
    told            what the program hears: records with fields, the end of every transfer
    threaded        an event loop for programs that have none
    pytest_plugin   the fixture `tftp_server`

May know the server and all below it. Must not know the process around it.
"""
