"""The specification of features: what a line may say, and what is said of one that may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from centinela.features.configured import FeaturesError, layout_of, load_features
from centinela.features.layout import BASE_FEATURES, FeatureLayout
from centinela.features.spec import (
    BASE_TERMINAL,
    BASE_USER,
    USER_AGGREGATIONS,
    Feature,
    duration_text,
    parse_duration,
    parse_feature,
)
from centinela.features.state.base_windows import base_windows_ms
from centinela.settings import Settings
from centinela.times import DAY_MS, HOUR_MS
from centinela_local.paths import CHECKOUT

TERMINALS_1H = Feature("user_terminals_1h", "user", "distinct", HOUR_MS, "terminal_id")


def test_the_base_features_are_declared_in_their_order() -> None:
    assert tuple(feature.name for feature in BASE_USER + BASE_TERMINAL) == BASE_FEATURES[3:]


@pytest.mark.parametrize(
    ("base", "named"),
    [
        ((*BASE_USER[:2], Feature("user_count_7d", "user", "count", 8 * DAY_MS), *BASE_USER[3:]), "user_count_8d"),
        ((*BASE_USER[:1], Feature("user_sum_1d", "user", "sum", DAY_MS), *BASE_USER[2:]), "user_sum_1d"),
        (BASE_USER[1:], "user_count_1d"),
        ((BASE_USER[1], BASE_USER[0], *BASE_USER[2:]), "the order"),
        ((*BASE_USER, TERMINALS_1H), "user_terminals_1h"),
        (BASE_USER[:-1], "user_seconds_since_last"),
        ((), "user_seconds_since_last"),
    ],
)
def test_base_features_that_the_kernel_does_not_compute_are_refused(base: tuple[Feature, ...], named: str) -> None:
    with pytest.raises(NotImplementedError, match=named):
        base_windows_ms(base)


def test_the_kernel_takes_other_lengths_of_its_windows_from_the_base_features() -> None:
    pair = (
        Feature("user_count_2h", "user", "count", 2 * HOUR_MS),
        Feature("user_mean_2h", "user", "mean", 2 * HOUR_MS),
    )
    assert base_windows_ms((*pair, *BASE_USER[4:])).tolist() == [2 * HOUR_MS, 30 * DAY_MS]


def test_one_line_adds_a_feature(tmp_path: Path) -> None:
    path = tmp_path / "features.yaml"
    path.write_text(
        "- {name: user_terminals_1h, entity: user, aggregation: distinct, column: terminal_id, window: 1h}\n"
    )

    layout = layout_of(Settings(features_file=path, attributes=("v1",)))

    assert layout.extra == (TERMINALS_1H,)
    assert layout.names == (*BASE_FEATURES, "user_terminals_1h", "v1")


def test_without_a_file_there_are_the_base_features_and_the_attributes() -> None:
    assert layout_of(Settings(attributes=("v1",))) == FeatureLayout(("v1",))


def test_an_id_tells_all_about_its_layout() -> None:
    layout = FeatureLayout(
        ("v1", "v2"),
        (
            TERMINALS_1H,
            Feature("terminal_risk_14d", "terminal", "fraud_share", 14 * DAY_MS, delay_ms=7 * DAY_MS),
            Feature("user_v1_std", "user", "std", 90_000, "v1", 1),
        ),
    )

    assert (
        layout.id == "v1+user_terminals_1h=user.distinct(terminal_id,1h);user_v1_std=user.std(v1,90s,1ms);"
        "terminal_risk_14d=terminal.fraud_share(amount,14d,7d):v1,v2"
    )
    assert FeatureLayout.parse(layout.id) == layout
    assert layout.stored == ("terminal_id", "v1")


def test_users_extra_features_come_before_terminals_however_they_were_given() -> None:
    terminal = Feature("terminal_count_2d", "terminal", "count", 2 * DAY_MS, delay_ms=8 * DAY_MS)

    assert FeatureLayout((), (terminal, TERMINALS_1H)) == FeatureLayout((), (TERMINALS_1H, terminal))


@given(st.integers(0, 10**12))
def test_a_duration_comes_back_from_its_text(milliseconds: int) -> None:
    assert parse_duration(duration_text(milliseconds)) == milliseconds


@given(
    st.sampled_from(USER_AGGREGATIONS),
    st.integers(1, 15 * DAY_MS),
    st.integers(0, 15 * DAY_MS),
    st.sampled_from(["amount", "v1", "a.b-c"]),
)
def test_a_feature_comes_back_from_its_text(aggregation: str, window: int, delay: int, column: str) -> None:
    feature = Feature(
        "x_1", "user", aggregation, window, "amount" if aggregation == "seconds_since_last" else column, delay
    )

    assert parse_feature(feature.text) == feature


GOOD = {"name": "x", "entity": "user", "aggregation": "mean", "window": "1h"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"aggregation": "no_such"},
            (
                "'no_such' of a user is not one of count, sum, mean, max, min, std, distinct, seconds_since_last,"
                " ratio_to_mean"
            ),
        ),
        ({"entity": "card"}, "'card' is neither user nor terminal"),
        ({"aggregation": "fraud_share"}, "'fraud_share' of a user is not one of"),
        ({"entity": "terminal", "aggregation": "mean"}, "'mean' of a terminal is not one of count, fraud_share"),
        (
            {"entity": "terminal", "aggregation": "count", "delay": "1d"},
            "delay 1d of a terminal is less than 7d: partitions are only kept that close",
        ),
        ({"entity": "terminal", "aggregation": "count", "delay": "7d", "window": "31d"}, "further back than 37d"),
        ({"entity": "terminal", "aggregation": "count", "delay": "7d", "column": "v1"}, "takes no column"),
        ({"window": "30d", "delay": "1s"}, "further back than 30d"),
        ({"window": "31d"}, "further back than 30d"),
        ({"window": "0s"}, "a window needs a length"),
        (
            {"window": "1 week"},
            "'1 week' is not a duration: give a whole number and a unit, such as 30s, 15m, 1h or 7d",
        ),
        ({"delay": "soon"}, "'soon' is not a duration"),
        ({"column": "terminal_id"}, "only distinct can use it, not mean"),
        ({"column": "a,b"}, "needs letters, digits"),
        ({"aggregation": "seconds_since_last", "column": "v1"}, "takes no column"),
        ({"name": "User"}, "'User' needs lower-case letters"),
        ({"name": "user_id"}, "is a field of the verdict"),
        (
            {"windows": "1h"},
            "'windows': expected one value each for name, entity, aggregation, window, optionally column, delay",
        ),
        ({"name": None}, "name missing"),
    ],
)
def test_a_line_that_is_not_allowed_is_named_with_what_is(
    tmp_path: Path, changes: dict[str, str | None], complaint: str
) -> None:
    path = tmp_path / "features.yaml"
    line = ", ".join(f"{key}: '{value}'" for key, value in {**GOOD, **changes}.items() if value is not None)
    path.write_text(f"# extra\n- {{name: y, entity: user, aggregation: sum, window: 1h}}\n- {{{line}}}\n")

    with pytest.raises(FeaturesError) as caught:
        load_features(path)

    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- [", "line 2: not valid YAML"),
        ("name: x", "line 1: expected a list"),
        ("- x", "line 1: expected a mapping"),
        ("- {name: x, name: y}", "line 1: 'name' is given twice"),
        ("- {name: [x]}", "line 1: 'name': expected one value"),
    ],
)
def test_a_file_of_another_shape_is_refused_with_the_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "features.yaml"
    path.write_text(text + "\n")

    with pytest.raises(FeaturesError, match=complaint):
        load_features(path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "user_count_1d"}, "feature 'user_count_1d' has the name of another column"),
        ({"name": "v1"}, "feature 'v1' has the name of another column"),
        ({"name": "y"}, "feature 'y' has the name of another column"),
        ({"column": "v2"}, "column 'v2' is neither amount, terminal_id nor an attribute"),
    ],
)
def test_a_line_that_does_not_fit_the_layout_is_named(tmp_path: Path, changes: dict[str, str], complaint: str) -> None:
    path = tmp_path / "features.yaml"
    line = ", ".join(f"{key}: {value}" for key, value in {**GOOD, **changes}.items())
    path.write_text(f"- {{name: y, entity: user, aggregation: sum, window: 1h}}\n\n- {{{line}}}\n")

    with pytest.raises(FeaturesError) as caught:
        layout_of(Settings(features_file=path, attributes=("v1",)))

    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert complaint in str(caught.value)


def test_attributes_that_cannot_be_used_are_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "features.yaml"
    path.write_text("- {name: y, entity: user, aggregation: sum, window: 1h}\n")

    with pytest.raises(FeaturesError, match=r"^CENTINELA_ATTRIBUTES: an attribute repeats"):
        layout_of(Settings(features_file=path, attributes=("v1", "v1")))


def test_the_shipped_file_declares_nothing_and_the_examples_of_it_and_of_the_page_are_allowed(tmp_path: Path) -> None:
    shipped, page = CHECKOUT / "features.yaml", CHECKOUT / "docs" / "features.md"
    example = tmp_path / "example.yaml"
    for text, count in (
        (shipped.read_text().replace("# - {", "- {"), 1),
        (page.read_text().split("```yaml\n")[1].split("```")[0], 5),
    ):
        example.write_text(text)
        assert len(layout_of(Settings(features_file=example)).extra) == count
    assert load_features(shipped) == ()


def test_a_missing_file_and_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# none yet\n")

    assert load_features(tmp_path / "empty.yaml") == ()
    with pytest.raises(FeaturesError, match="cannot read"):
        load_features(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("attributes", "extra", "complaint"),
    [
        (("v1",), (Feature("x", "user", "sum", 1, "v2"),), "'v2' is neither amount, terminal_id nor an attribute"),
        (("v1",), (Feature("v1", "user", "sum", 1),), "has the name of another column"),
        ((), (Feature("user_count_1d", "user", "sum", 1),), "has the name of another column"),
        ((), (TERMINALS_1H, TERMINALS_1H), "has the name of another column"),
    ],
)
def test_an_extra_feature_needs_a_name_of_its_own_and_a_declared_column(
    attributes: tuple[str, ...],
    extra: tuple[Feature, ...],
    complaint: str,
) -> None:
    with pytest.raises(ValueError, match=complaint):
        FeatureLayout(attributes, extra)


@pytest.mark.parametrize(
    "text", ["v1+:v1", "v1+x:v1", "v1+x=user.sum(amount,1h)", "v1+x=user.sum(amount,1h);:", "v1+x=user.sum(v9,1h):v1"]
)
def test_what_is_no_layout_with_extra_features_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"feature"):
        FeatureLayout.parse(text)
