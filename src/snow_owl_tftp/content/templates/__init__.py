"""Texts that are made for who asks, from templates of the operator's (minijinja).

    folder ─files─► name → source ─check─► refused with file, line and remedy
                                  └engine─► Template ─render(machine, request, variables)─► bytes | TemplateFailure

May know: paths, text, and the library that renders. Must not know rules, peers or transfers: facts come as plain
values. minijinja is imported by `engine` alone, which nobody imports before there is a template.
Import the module that defines a name; this one re-exports none.
"""
