"""The configured layout: the raw attributes, and the extra features of a YAML file."""

from __future__ import annotations

from pathlib import Path

import yaml

from centinela.errors import CentinelaError
from centinela.features.layout import FeatureLayout
from centinela.features.spec import AMOUNT, Feature, parse_duration, parse_window
from centinela.settings import Settings

_REQUIRED = ("name", "entity", "aggregation", "window")
_OPTIONAL = ("column", "delay")


class FeaturesError(CentinelaError):
    """The file of features cannot be used; the message names the line."""


def layout_of(settings: Settings) -> FeatureLayout:
    """The layout of *settings*: ``attributes`` and ``features_file``.

    Raises:
        FeaturesError: They cannot be used.
    """
    try:
        layout = FeatureLayout(settings.attributes)
    except ValueError as error:
        raise FeaturesError(f"CENTINELA_ATTRIBUTES: {error}") from error
    return with_features(layout, settings.features_file) if settings.features_file else layout


def with_features(layout: FeatureLayout, path: Path) -> FeatureLayout:
    """*layout* with the features of the YAML file at *path* as its extra ones.

    Raises:
        FeaturesError: The file cannot be read, or a line is not allowed, or not in this layout.
    """
    features: list[Feature] = []
    for line, feature in _declared(path):
        features.append(feature)
        try:
            layout = FeatureLayout(layout.attributes, tuple(features))
        except ValueError as error:
            raise FeaturesError(f"{path}, line {line}: {error}") from error
    return layout


def load_features(path: Path) -> tuple[Feature, ...]:
    """The features of the YAML file at *path*, a list such as ``- {name: user_count_1h, entity: user, aggregation:
    count, window: 1h}``.

    Raises:
        FeaturesError: The file cannot be read, or a line is not allowed.
    """
    return tuple(feature for _line, feature in _declared(path))


def _declared(path: Path) -> list[tuple[int, Feature]]:
    """The features of the file at *path*, each with its line."""
    try:
        document = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise FeaturesError(
            f"cannot read {path}: {error}; set CENTINELA_FEATURES_FILE to a YAML file, or not at all"
        ) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise FeaturesError(f"{path}, line {line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise FeaturesError(f"{path}: not valid YAML: {error}") from error
    if document is None:
        return []
    if not isinstance(document, yaml.SequenceNode):
        raise _fault(path, document, "expected a list of features, each on a line that begins with `- `")
    return [(_line(item), _feature(path, item)) for item in document.value]


def _feature(path: Path, item: yaml.Node) -> Feature:
    if not isinstance(item, yaml.MappingNode):
        raise _fault(path, item, f"expected a mapping with {', '.join(_REQUIRED)}")
    given: dict[str, str] = {}
    for key, value in item.value:
        if key.value not in _REQUIRED + _OPTIONAL or not isinstance(value, yaml.ScalarNode):
            raise _fault(
                path,
                key,
                f"{key.value!r}: expected one value each for {', '.join(_REQUIRED)}, optionally {', '.join(_OPTIONAL)}",
            )
        if key.value in given:
            raise _fault(path, key, f"{key.value!r} is given twice")
        given[key.value] = value.value
    if missing := [name for name in _REQUIRED if name not in given]:
        raise _fault(path, item, f"{', '.join(missing)} missing")
    try:
        delay = parse_duration(given["delay"]) if "delay" in given else 0
        return Feature(
            given["name"],
            given["entity"],  # type: ignore[arg-type]
            given["aggregation"],
            parse_window(given["window"]),
            given.get("column", AMOUNT),
            delay,
        )
    except ValueError as error:
        raise _fault(path, item, str(error)) from error


def _fault(path: Path, node: yaml.Node, problem: str) -> FeaturesError:
    return FeaturesError(f"{path}, line {_line(node)}: {problem}")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
