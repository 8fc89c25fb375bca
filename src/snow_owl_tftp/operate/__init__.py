"""The process around one server: descriptors, log, signals, and how it ends.

    run          from settings to an exit status
    reload       a changed configuration: which keys are live, which need a restart
    root_watch   when the root is looked up again
    hooks        the operator's command after an upload
    log_places   where no log may lie
    last_resort  how the process ends although something hangs

May know everything but the command line.
"""
