"""get and put: the engine with the roles turned round, behind a blocking and an asyncio face.

    Client ─┐                    ┌─ sources (what is sent)
            ├─► ClientCore ─────►┤                          ──► _engine
    AsyncClient ─┘   (one core)  └─ targets (where it goes)

May know: plan, protocol, linux, errors and the engine. Must not know: the server, policy or content.
Invariants: a target appears under its name only when it is complete; a failed transfer leaves nothing behind; both
faces are a few lines over one `concurrent.futures.Future`; nothing is global.
"""
