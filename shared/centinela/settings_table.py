"""``docs/settings.md``: every setting of every process in one table. ``python -m centinela.settings_table`` prints
it."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from centinela.settings import Settings

GROUP = "centinela.settings"

HEADER = """# Settings

Every process reads its settings from the environment; a value of the wrong kind stops it at start with
a message that names the variable.
This page is generated: `python -m centinela.settings_table > docs/settings.md`.
"""


def variables(name: str, field: FieldInfo) -> list[str]:
    """The environment variables that set *field*, the preferred one first."""
    if isinstance(field.validation_alias, AliasChoices):
        return [str(choice) for choice in field.validation_alias.choices]
    return [f"CENTINELA_{name.upper()}"]


def is_secret(field: FieldInfo) -> bool:
    """Whether what *field* holds is to be shown to nobody."""
    return "Secret" in str(field.annotation)


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True)
    if value is None or value == "":
        return ""
    if isinstance(value, tuple):
        value = f"{value[0]} .. {value[-1]}" if len(value) > 4 else list(value)
    return f"`{value}`"


def _rows(fields: dict[str, FieldInfo]) -> str:
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in sorted(fields.items()):
        names = " or ".join(f"`{variable}`" for variable in variables(name, field))
        lines.append(f"| {names} | {_default(field)} | {field.description or ''} |")
    return "\n".join(lines)


def render() -> str:
    """The page: the shared settings first, then what each service adds."""
    sections = [HEADER, "## Every process\n", _rows(Settings.model_fields), ""]
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        own = {name: field for name, field in point.load().model_fields.items() if name not in Settings.model_fields}
        sections += [f"## {point.name}\n", _rows(own), ""]
    return "\n".join(sections)


if __name__ == "__main__":
    print(render(), end="")
