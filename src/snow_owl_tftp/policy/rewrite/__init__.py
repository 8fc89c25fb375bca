"""Names rewritten before anything else looks at them: [[rewrite]] of the settings, and the map file of tftpd-hpa.

    name as sent ─Rewrites.apply─► names to be looked for, the first that can be opened is meant | a denial

    rewrites   what the rest of the server calls          parse     map file → rules
    program    rules one after the other                  rules     what a rule says
    compiled   rules made ready                           expand    replacements, and what they know of the client
    ere        POSIX expressions → nodes (brackets)       translate nodes → text for RE2
    matching   RE2

May know: text and settings. Must not look for any name that it makes.
"""
