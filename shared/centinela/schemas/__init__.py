"""JSON Schema and an example of every event version, as files.

``python -m centinela.schemas`` writes the schema files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from centinela.events import type_name
from centinela.topics import CATALOGUE

FOLDER = Path(__file__).parent
_PUBLISHED_AS = {"AttachedVerdict": "Verdict"}  # a class that was renamed: its name in the schemas stays


def event_types() -> tuple[type, ...]:
    """Every event type that a topic carries."""
    return tuple(value for topic in CATALOGUE for value in topic.values)


def file_name(event_type: type) -> str:
    """``TransactionReceived.v1.json``; the same under ``examples/``."""
    return f"{type_name(event_type)}.v1.json"


def schema(event_type: type) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one event; how the code wraps a docstring does not show in it."""
    generated, name = _as_published(_unwrapped(msgspec.json.schema(event_type))), type_name(event_type)
    definition = generated["$defs"].pop(event_type.__name__) | {"title": name}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": f"#/$defs/{name}",
        "$defs": generated["$defs"] | {name: definition},
    }


def render(event_type: type) -> str:
    """The text of an event's schema file."""
    return json.dumps(schema(event_type), indent=2, sort_keys=True) + "\n"


def example(event_type: type) -> bytes:
    """The example file of one event."""
    return (FOLDER / "examples" / file_name(event_type)).read_bytes()


def write_all() -> list[Path]:
    """Write every schema file; return their paths."""
    paths = []
    for event_type in event_types():
        path = FOLDER / file_name(event_type)
        path.write_text(render(event_type))
        paths.append(path)
    return paths


def _as_published(generated: dict[str, Any]) -> dict[str, Any]:
    """*generated* with the published name of each class in its references and definitions."""
    text = json.dumps(generated)
    for name, published in _PUBLISHED_AS.items():
        for old, new in ((f"#/$defs/{name}", f"#/$defs/{published}"), (name, published)):
            text = text.replace(json.dumps(old), json.dumps(new))
    return json.loads(text)  # type: ignore[no-any-return]


def _unwrapped(value: Any) -> Any:
    """*value* with every description's paragraphs on one line each."""
    match value:
        case dict():
            return {
                key: "\n\n".join(" ".join(part.split()) for part in item.split("\n\n"))
                if key == "description" and isinstance(item, str)
                else _unwrapped(item)
                for key, item in value.items()
            }
        case list():
            return [_unwrapped(item) for item in value]
        case _:
            return value
