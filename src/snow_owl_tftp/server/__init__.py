"""The loop that joins all parts: a request comes up, a plan goes down, a Completion ends it.

    engine.poll() ──Request──► core ──► decide ──Accepted(plan)──► engine.start()
                                  │        └────Refused(ERROR)───► engine.refuse()
                  ──Completion─►  └──► report ──► log, audit

    sockets    which ports are bound, by whom, with which buffers
    assemble   settings to an Engine with its sockets
    decide     one request to one Verdict; knows no engine
    uploads    one WRQ to a file in its place: begin, commit, let go
    hooks      the operator's command after an upload
    library    a Server whose answers are functions of the caller's
    answers    what such a function is given and gives back
    confined   the paths it sees, and files that no link leads out of
    handler    its answers to verdicts
    contents   what it returned, made ready to be sent
    streams    what it still makes, into the pipe that the engine reads
    receiving  what clients send, whole, to be handed to it
    threaded   an event loop for programs that have none
    told       what the program hears: records with fields, the end of every transfer
    core       Server: whose turn it is; knows neither files nor log formats
    report     what is told about it, and at what cost
    samples    what one system call carried of late, for the log at debug
    reload     a changed configuration: which keys are live, which need a restart
    run        the process around one Server: signals, files, exit status

Python sees a transfer twice, at its request and at its Completion (an upload once more, to commit it),
and no datagram of it.
Import the module that defines a name; this one re-exports none.
"""
