"""A handler for `snow-owl-tftp serve`: state/NAME is how often NAME has asked, and state/help is left to a file."""

from collections import Counter

from snow_owl_tftp import ReadRequest, Refuse, Response

asked: Counter[str] = Counter()


async def answer(request: ReadRequest) -> Response | Refuse | None:
    name = request.path.removeprefix("state/")
    if name == "help":
        return None  # templates and files go on
    asked[name] += 1
    return Response(f"{name} has asked {asked[name]} times, now from {request.client}\n")
