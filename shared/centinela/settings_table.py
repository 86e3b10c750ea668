"""``docs/settings.md``: every setting of every process. ``python -m centinela.settings_table`` prints it."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, NamedTuple

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from centinela.settings import Settings

GROUP = "centinela.settings"

HEADER = """# Settings

Every process reads its settings from the environment; an invalid value stops it at start with a message
that names the variable.
This page is generated: `python -m centinela.settings_table > docs/settings.md`.
"""


class Variable(NamedTuple):
    """A variable that is read where no settings are at hand. ``reader``: the process or command it concerns."""

    name: str
    reader: str
    meaning: str


OUTSIDE_SETTINGS = (
    Variable("AWS_*", "predictor, trainer, dvc", "Credentials for `s3://` addresses, as boto3 reads them."),
    Variable("CENTINELA_CACHE", "local", "Folder of the downloaded Kafka broker; `~/.cache/centinela` by default."),
    Variable(
        "CENTINELA_CODE_COMMIT",
        "trainer",
        "Commit that models are recorded with; by default that of the checkout, in an image the one it was built from.",
    ),
    Variable(
        "CENTINELA_FEAST_TTL_CLOCK",
        "whatever reads Feast",
        "`wall` (default), or `event`: the age of a feature row counts from the newest event time, for replays.",
    ),
    Variable("JAVA_HOME", "local", "The JVM that runs the local broker; else `java` of the path."),
    Variable("MLFLOW_HTTP_REQUEST_*", "trainer", "Retries and time-outs of MLflow's client."),
    Variable("MLFLOW_TRACKING_PASSWORD", "every process", "Password for the MLflow server."),
    Variable("MLFLOW_TRACKING_TOKEN", "every process", "Bearer token for the MLflow server, instead of a user."),
    Variable("MLFLOW_TRACKING_USERNAME", "every process", "User for the MLflow server."),
    Variable(
        "OMP_NUM_THREADS",
        "predictor",
        "Threads of one computation; also `OPENBLAS_NUM_THREADS` and `MKL_NUM_THREADS`. 1 by default.",
    ),
    Variable(
        "PROMETHEUS_MULTIPROC_DIR",
        "feast",
        "Metrics of several processes in one folder; also `PROMETHEUS_MULTIPROCESS_DIR`. Leave it unset.",
    ),
    Variable("TMPDIR", "local", "Folder of the supervisor's socket where there is no `XDG_RUNTIME_DIR`."),
    Variable("XDG_RUNTIME_DIR", "local", "Folder of the supervisor's socket."),
)
"""Variables of other tools, and those that are read before there are settings."""


def variables(name: str, field: FieldInfo) -> list[str]:
    """The environment variables that set *field*, the preferred one first."""
    if isinstance(field.validation_alias, AliasChoices):
        return [str(choice) for choice in field.validation_alias.choices]
    return [f"CENTINELA_{name.upper()}"]


def is_secret(field: FieldInfo) -> bool:
    """Whether the value of *field* must not be shown."""
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
    return "\n".join([*sections, _outside_settings()])


def _outside_settings() -> str:
    lines = ["## Read outside the settings\n", "| variable | read by | meaning |", "|---|---|---|"]
    lines += [f"| `{variable.name}` | {variable.reader} | {variable.meaning} |" for variable in OUTSIDE_SETTINGS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render(), end="")
