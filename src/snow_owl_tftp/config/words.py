"""What each key means, in the words of the schema: the text that stands below a field is its description.

    class Table: key: int = 1      ──words_of──► {"key": "What it means."}
                 '''What it means.'''

So a key is described in one place, for the file that `config init` writes, for editors (JSON Schema) and for the
reference page. Python keeps no such text at run time: it is read from the source, once, and only for these.

May know: source texts of schema modules. Must not know any single key.
"""

import ast
import inspect
import textwrap
from functools import cache

import msgspec
from msgspec import Struct

__all__ = ["words_of"]


@cache
def words_of(table_type: type[Struct]) -> dict[str, str]:
    """Return the description of each key of a table that has one, as one line of text."""
    words: dict[str, str] = {}
    for base in reversed(table_type.__mro__):
        if issubclass(base, Struct) and base is not Struct:
            words |= _texts_below_fields(base)
    return {field.name: words[field.name] for field in msgspec.structs.fields(table_type) if field.name in words}


def _texts_below_fields(table_type: type[Struct]) -> dict[str, str]:
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(table_type))).body
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return texts
