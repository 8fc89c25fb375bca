"""A WRQ, explained: it is begun as the server begins it, and given up before its first block.

May know: what decides about uploads. Must not change anything: no file is made, no directory swept.
"""

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.content.store.uploads import UploadArea
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.operate.explain.explanation import Explanation, MeaningTried
from snow_owl_tftp.operate.explain.rules_told import path_of, said_of, tell_rules
from snow_owl_tftp.policy.decision import WriteDecision
from snow_owl_tftp.protocol.options import Negotiated
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.upload_roots import open_place
from snow_owl_tftp.server.upload_terms import begin_upload, decide_upload
from snow_owl_tftp.server.verdict import IncomingRequest

__all__ = ["begin_and_leave", "tell_names"]


def tell_names(generation: Generation, incoming: IncomingRequest, request: Request, told: Explanation) -> None:
    """Tell the names that an upload may get, up to the first that may be written, and what rules say of each."""
    rewrites, name = generation.rewrites, request.filename
    names = (name,) if rewrites is None else rewrites.apply(name, incoming.peer[0], is_write=True).names
    for one in names:
        tried = MeaningTried(way="sent" if one == name else "rewritten")
        told.meanings.append(tried)
        try:
            path = generation.names.spelled.normalise(one)
            tell_rules(generation, incoming, (path,), tried)
            told.machine = generation.machines.find(incoming, (path,))
            generation.policy.decide_write(incoming, request, path)
        except RefusedError as error:
            tried.result = said_of(error)
        else:
            break
    told.rule = told.meanings[-1].rule if told.meanings else 0


def begin_and_leave(
    settings: Settings, generation: Generation, incoming: IncomingRequest, request: Request, told: Explanation
) -> tuple[Negotiated, WriteDecision]:
    """Begin an upload, which makes a file with its first block only.

    Raises:
        RefusedError: What the server would answer.
    """
    name, terms = decide_upload(generation, incoming, request)
    told.rule, told.file = terms.rule, path_of(generation.root_dir, terms.root, terms.path)
    place = None if terms.root is None else open_place(settings.root_dir, terms.root)
    area = UploadArea(
        path_of(settings.root_dir, terms.root, b""), max_file_size_bytes=settings.max_file_size_bytes, place=place
    )
    try:
        upload, negotiated, terms = begin_upload(area, generation, incoming, request, name, terms)
        upload.close()
    finally:
        area.close()
    told.file = path_of(generation.root_dir, terms.root, terms.path)
    return negotiated, terms
