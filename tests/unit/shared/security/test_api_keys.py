"""API keys: what is kept of them, who is let in, and how the others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from centinela.commands.keys import app
from centinela.security.access import ExposedWithoutKeys, api_keys, is_loopback, require_guarded
from centinela.security.keys import ROLES, ApiKeys, Denied, InvalidKeys, Role, new_key, parse
from centinela.settings import Settings

SHOP, GATE = new_key("shop", "producer"), new_key("gate", "scorer")
KEYS = ApiKeys(parse([str(SHOP.entry), str(GATE.entry)]))


def bearer(key: str) -> str:
    return f"Bearer {key}"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_a_key_of_the_role_is_let_in_by_name(scheme: str) -> None:
    assert KEYS.require(f"{scheme} {SHOP.key}", "producer") == "shop"


def test_what_is_stored_of_a_key_does_not_reveal_it_and_differs_each_time() -> None:
    secret = SHOP.key.removeprefix("ck_shop_")
    again = new_key("shop", "producer")

    assert len(secret) >= 43
    assert secret not in str(SHOP.entry)
    assert SHOP.key != again.key
    assert SHOP.entry.salt != again.entry.salt


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic c2hvcDp4",
        bearer(SHOP.key[:-1]),
        bearer(SHOP.key + "x"),
        bearer(SHOP.key.replace("shop", "gate")),
        bearer(SHOP.key.removeprefix("ck_")),
        bearer(new_key("shop", "producer").key),
        bearer(new_key("stranger", "producer").key),
        bearer(str(SHOP.entry)),
        bearer("ck_nobody_"),
        bearer("x" * 10_000),
    ],
    ids=[
        "empty",
        "scheme",
        "scheme-and-space",
        "basic",
        "shortened",
        "lengthened",
        "other-name",
        "without-prefix",
        "other-secret",
        "unknown-name",
        "stored-entry",
        "without-secret",
        "very-long",
    ],
)
def test_an_unknown_key_is_401(header: str) -> None:
    with pytest.raises(Denied) as denied:
        KEYS.require(header, "producer")

    assert (denied.value.status, denied.value.error) == (401, "key_invalid")
    assert denied.value.headers == {"WWW-Authenticate": 'Bearer realm="centinela", error="invalid_token"'}


def test_no_key_is_401_with_a_bare_challenge() -> None:
    with pytest.raises(Denied) as denied:
        KEYS.require(None, "producer")

    assert (denied.value.status, denied.value.error, denied.value.headers) == (
        401,
        "key_missing",
        {"WWW-Authenticate": 'Bearer realm="centinela"'},
    )


@pytest.mark.parametrize("role", [role for role in ROLES if role != "scorer"])
def test_a_key_of_another_role_is_403_and_says_which_is_needed(role: Role) -> None:
    with pytest.raises(Denied) as denied:
        KEYS.require(bearer(GATE.key), role)

    assert (denied.value.status, denied.value.error) == (403, "role_missing")
    assert f'scope="{role}"' in denied.value.headers["WWW-Authenticate"]


def test_without_keys_none_is_needed() -> None:
    assert ApiKeys(None).require(None, "operator") is None
    assert (ApiKeys(None).required, KEYS.required) == (False, True)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_no_header_is_an_error_of_ours(header: str) -> None:
    for value in (header, bearer(header), bearer(f"ck_shop_{header}")):
        with pytest.raises(Denied):
            KEYS.require(value, "producer")


def test_comments_and_empty_lines_are_no_entries() -> None:
    assert list(parse(["# ours", "", f"  {SHOP.entry}  # the shop"])) == ["shop"]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["# nothing"],
        ["shop:producer"],
        ["shop:admin:blake2b.x.y"],
        ["Shop:producer:" + str(SHOP.entry).split(":")[2]],
        [str(SHOP.entry)] * 2,
        ["shop:producer:blake2b.x.y"],
        ["shop:producer:plain." + str(SHOP.entry).split(".", 1)[1]],
        ["shop:producer:" + SHOP.key],
        [str(SHOP.entry)[:-1]],
        [str(SHOP.entry) + ".x"],
    ],
)
def test_a_list_that_cannot_be_used_is_refused_without_showing_what_is_in_it(lines: list[str]) -> None:
    with pytest.raises(InvalidKeys) as refused:
        parse(lines)

    assert SHOP.key not in str(refused.value)
    assert str(SHOP.entry).split(".")[-1] not in str(refused.value)


@pytest.mark.parametrize("name", ["", "a_b", "Shop", "a:b", "x" * 41, "a b"])
def test_a_name_that_would_break_the_list_is_refused(name: str) -> None:
    with pytest.raises(InvalidKeys):
        new_key(name, "producer")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("10.0.0.1", False),
        ("ingest", False),
        ("", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def made(**fields: Any) -> Settings:
    return Settings(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"ops_host": "127.0.0.1"},
        {"ops_host": "10.0.0.1", "insecure": True},
        {"ops_host": "10.0.0.1", "api_keys": str(SHOP.entry)},
    ],
)
def test_a_process_may_listen_on_loopback_or_with_keys_or_where_it_is_declared_insecure(fields: dict[str, Any]) -> None:
    require_guarded(made(**fields))


def test_a_process_that_would_be_open_to_others_is_refused() -> None:
    with pytest.raises(ExposedWithoutKeys, match=r"CENTINELA_OPS_HOST=10\.0\.0\.1"):
        require_guarded(made(ops_host="10.0.0.1"))


def test_keys_come_from_a_file_or_a_value(tmp_path: Path) -> None:
    listed = tmp_path / "keys"
    listed.write_text(f"# keys\n{SHOP.entry}\n{GATE.entry}\n")

    for settings_ in (made(api_keys_file=listed), made(api_keys=f"{SHOP.entry} {GATE.entry}")):
        assert api_keys(settings_).require(bearer(GATE.key), "scorer") == "gate"


def test_a_broken_list_stops_a_process_even_where_it_is_insecure(tmp_path: Path) -> None:
    for fields in (
        {"api_keys_file": tmp_path / "none"},
        {"api_keys": ""},
        {"api_keys": "x"},
        {"api_keys": str(SHOP.entry), "api_keys_file": tmp_path},
    ):
        with pytest.raises(InvalidKeys):
            require_guarded(made(insecure=True, ops_host="10.0.0.1", **fields))


def test_settings_do_not_show_keys() -> None:
    assert str(SHOP.entry) not in repr(made(api_keys=str(SHOP.entry)))


@pytest.mark.parametrize("role", ROLES)
def test_a_new_key_fits_its_line(role: Role, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["new", "shop-2", "--role", role])
    key, line = result.stdout.split()

    assert ApiKeys(parse([line])).require(bearer(key), role) == "shop-2"
    listed = tmp_path / "keys"
    listed.write_text(line)
    shown = CliRunner().invoke(app, ["check", str(listed)]).output
    assert "shop-2" in shown
    assert role in shown
    assert line.split(".")[-1] not in shown
