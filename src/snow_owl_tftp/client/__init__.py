"""get and put: the engine with the roles turned round, behind a blocking and an asyncio client.

    api         Client, AsyncClient, get, put; calls: what both share; progress: their callbacks
    url         what a tftp:// URL says; settings: what is asked for, how long to wait
    address     where the server is; sources, targets: what is sent, where it goes
    transfer    one get or put, and the table of its states
    queue       whose turn it is
    attempt     in which ways a server is asked; asking: how a request goes out
    events      the thread that reads what the engine says, and one engine for all transfers of a client
    finish      how what was received becomes visible; endings: what the end of an attempt means
    news        what callers are told, and when
    fs          tftp:// for fsspec

May know: plan, protocol, linux, errors and the engine. Must not know: the server, policy or content.
Invariants: a target appears under its name only when it is complete; a failed transfer leaves nothing behind; both
clients are a few lines over one `concurrent.futures.Future`; nothing is global.
"""
