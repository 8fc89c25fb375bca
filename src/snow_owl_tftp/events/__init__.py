"""What happens to requests and transfers, for whoever wants to hear of it: logs today, more sinks later.

    server ──event, if it is wanted──► EventSink.emit

May know: the plan and protocol. Must not know who listens, the engine, files or settings.
"""
