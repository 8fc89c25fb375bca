"""The loop that joins all parts: a request comes up, a plan goes down, a Completion ends it.

    engine.poll() ──Request──► loop ──► answer ──► reads, writes ──Accepted(plan)──► engine.start()
                                 │                       └─────────Refused(ERROR)──► engine.refuse_all()
                 ──Completion─►  └──► narrate ──► log, audit

    loop        TransferServer: whose turn it is; knows neither files nor log formats
    waiting     whose request is decided next, and which waited in vain
    verdict     the words of an answer, and what is remembered of a transfer
    answer      one request to one Verdict: parse, answer, negotiate, freeze; the library's too
    reads       one RRQ to a file; knows no engine
    generation  the rules and limits of one configuration, which a reload swaps whole
    writes      one WRQ to a file in its place: begin, commit, release
    texts       what is asked for in netascii, and whose turn it is to be converted
    slow_opens  what waits for a thread that asks a file system; patient: those threads
    engine      settings to an Engine with its sockets
    sockets     which ports are bound, by whom, with which buffers
    narrate     what is told about it, and at what cost

Python sees a transfer twice, at its request and at its Completion (an upload once more, to commit it),
and no datagram of it.
Import the module that defines a name; this one re-exports none.
"""
