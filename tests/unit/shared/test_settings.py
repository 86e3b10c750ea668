"""Settings come from the environment, and a wrong one says which."""

from __future__ import annotations

import math
import re

import pytest
from pydantic import ValidationError

from centinela.process.start import load_settings
from centinela.settings import Settings
from centinela.settings_table import render
from centinela_drift.settings import DriftSettings
from centinela_local.paths import CHECKOUT


def test_the_plain_kafka_variable_works_and_the_prefixed_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CENTINELA_KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "plain:1")
    assert Settings().kafka_bootstrap_servers == "plain:1"
    monkeypatch.setenv("CENTINELA_KAFKA_BOOTSTRAP_SERVERS", "prefixed:1")
    assert Settings().kafka_bootstrap_servers == "prefixed:1"


@pytest.mark.parametrize("kind", [Settings, DriftSettings])
@pytest.mark.parametrize("value", [math.inf, math.nan, 1e12])
def test_no_setting_in_days_takes_more_than_a_date_can_hold(kind: type[Settings], value: float) -> None:
    names = [name for name in kind.model_fields if name.endswith("_days")]
    assert names
    for name in names:
        with pytest.raises(ValidationError, match=name):
            kind.model_validate({name: value})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CENTINELA_PARTITIONS", "none"),
        ("CENTINELA_PARTITIONS", "0"),
        ("CENTINELA_LOG_LEVEL", "LOUD"),
        ("CENTINELA_LABEL_MATURITY_DAYS", "-1"),
        ("CENTINELA_LABEL_MATURITY_DAYS", "nan"),
    ],
)
def test_a_wrong_value_ends_the_process_with_a_line_that_names_the_variable(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as stopped:
        load_settings(Settings)
    assert stopped.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"centinela: {variable}: ")
    assert repr(value) in line


def test_the_settings_page_is_the_one_that_the_code_generates() -> None:
    page = CHECKOUT / "docs" / "settings.md"
    assert page.read_text() == render(), "run: python -m centinela.settings_table > docs/settings.md"


def test_every_variable_that_any_module_reads_from_the_environment_is_on_the_page() -> None:
    page = render()
    sources = [path for folder in ("shared", "services", "deploy/local") for path in (CHECKOUT / folder).rglob("*.py")]
    read = {name for path in sources for name in _READ.findall(path.read_text())}
    assert {"CENTINELA_CACHE", "MLFLOW_TRACKING_TOKEN"} <= read
    assert [name for name in sorted(read) if f"`{name}`" not in page] == []


_READ = re.compile(r"""(?:environ(?:\.get|\.setdefault|\.pop)?|getenv)[(\[]\s*["'](\w+)["']""")
