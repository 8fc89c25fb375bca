"""Who may read or write what: settings and a normalised path in, a Decision or a refusal out.

Knows no packet, no socket and no file: whether a path exists, and whether links lead it out of the
root, is found when it is opened. So a rule can be tested with text alone.
"""
