"""Under which name and terms an upload begins: for the server that takes it, and for whoever only explains that.

    WRQ ─rewrite, policy─► name, terms ─area─► the name as sent, where something has it ─negotiate─► OpenUpload

May know: policy, areas, what is negotiated. Must not know threads, or what becomes of the upload.
"""

from snow_owl_tftp.content.store.uploads import OpenUpload, UploadArea
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.policy.asker import Asker
from snow_owl_tftp.policy.decision import DeniedError, WriteDecision
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.options import Negotiated, negotiate
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.charging import charge
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.rewriting import decide_rewritten_write
from snow_owl_tftp.server.verdict import IncomingRequest

__all__ = ["begin_upload", "decide_upload"]


def decide_upload(generation: Generation, incoming: IncomingRequest, request: Request) -> tuple[str, WriteDecision]:
    """Decide about a WRQ, and charge its client for it.

    Returns:
        The name, rewritten, and the terms of it without what firmware hangs behind it.

    Raises:
        RefusedError: The rules do not allow it, or not so often.
    """
    name, terms = _decide(generation, incoming, request)
    rules = generation.policy.rules
    if rules is not None and rules.limits_clients:
        charge(incoming, terms.client_limits)
    return name, terms


def _decide(generation: Generation, asker: Asker, request: Request) -> tuple[str, WriteDecision]:
    name, spelled = request.filename, generation.names.spelled
    if generation.rewrites is None:
        return name, generation.policy.decide_write(asker, request, spelled.normalise(name))
    rewritten = generation.rewrites.apply(name, asker.peer[0], is_write=True)
    return decide_rewritten_write(rewritten, spelled, generation.policy, asker, request)


def begin_upload(
    area: UploadArea, generation: Generation, asker: Asker, request: Request, name: str, terms: WriteDecision
) -> tuple[OpenUpload, Negotiated, WriteDecision]:
    """Begin an upload; may wait for the area's file system.

    Args:
        area: Of the root that the terms name.
        generation: By which it was decided.
        asker: Who asks.
        request: For what.
        name: Of `decide_upload`.
        terms: Likewise.

    Returns:
        The upload, which the caller closes; what was negotiated; the terms, of the name as sent where that exists.

    Raises:
        RefusedError: What to answer instead.
    """
    sent = generation.names.spelled.spellings_of(name)[0]
    if sent != terms.path and area.directories.holds(sent):
        of_sent = generation.policy.decide_write(asker, request, sent)
        terms = of_sent if of_sent.root == terms.root else terms
    negotiated = negotiate(request, size_bytes=None, limits=terms.limits or generation.limits)
    try:
        upload = area.begin(terms, negotiated.tsize, is_netascii=request.mode != "octet")
    except RefusedError as error:
        rules = generation.policy.rules
        if error.code == ErrorCode.FILE_EXISTS and rules is not None and rules.denies_overwrite(terms.rule):
            raise DeniedError(error.code, error.text, terms.rule, why='it has no "overwrite"') from error
        raise
    return upload, negotiated, terms
