"""Who may read or write what: who asks, a request and its normalised paths in, a decision or a refusal out.

    Asker, Request, paths ─Policy─► ReadDecision | WriteDecision | RefusedError

Knows no socket and no file: whether a path exists, and whether links lead it out of the
root, is found when it is opened. So a rule can be tested with text alone.
"""
