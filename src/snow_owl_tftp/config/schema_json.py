"""The schema as JSON Schema: what editors complete and check a configuration with. May know: any table of ours."""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from snow_owl_tftp.config.paths import is_table, table_of_list
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.config.words import words_of

__all__ = ["json_schema"]


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12), with what each key means; unknown keys are refused, as by the server."""
    schema = msgspec.json.schema(Settings)
    for table_type in _tables(Settings):
        definition = schema["$defs"][table_type.__name__]
        definition["description"] = (table_type.__doc__ or "").partition("\n")[0]
        definition["additionalProperties"] = False
        for key, words in words_of(table_type).items():
            definition["properties"][key]["description"] = words
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "snow-owl-tftp", **schema}


def _tables(table_type: type[Struct]) -> Iterator[type[Struct]]:
    yield table_type
    for field in msgspec.structs.fields(table_type):
        inner = field.type if is_table(field.type) else table_of_list(field.type)
        if inner is not None:
            yield from _tables(inner)
