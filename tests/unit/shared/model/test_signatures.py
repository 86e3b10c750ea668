"""Signed bundles: who is trusted, what a signature covers, how a key is changed, and that no pickle is opened on the
way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from centinela.commands.keys import app
from centinela.errors import ModelRejected
from centinela.model import backends, export
from centinela.model.bundle import FILES, MANIFEST, SIGNATURE, SKOPS, Backend, Manifest, sign, verify
from centinela.model.registry import Registry
from centinela.model.scorer import Scorer
from centinela.model.signing import (
    InvalidSigningKeys,
    SigningKey,
    new_key,
    parse_signing_key,
    parse_trusted,
    trusted_keys,
)
from centinela.settings import Settings
from centinela.testing.registry_store import FakeStore
from centinela_trainer.settings import TrainerSettings
from tests.support.small_models import FACTS, RECENT, TRAIN, fitted

TEXT, KEY = new_key("trainer")
OTHER = new_key("trainer")[1]
NEXT = new_key("trainer-2")[1]


def resign(copy: Path, key: SigningKey = KEY) -> None:
    sign(copy, key)


def test_a_signed_bundle_loads_where_its_key_is_trusted(copy: Path) -> None:
    resign(copy)
    assert Scorer.load(copy, trusted=parse_trusted([KEY.public()])).manifest == verify(copy)


def _unsigned(copy: Path) -> None:
    (copy / SIGNATURE).unlink()


def _manifest_changed(copy: Path) -> None:
    manifest = msgspec.json.decode((copy / MANIFEST).read_bytes(), type=Manifest)
    (copy / MANIFEST).write_bytes(
        msgspec.json.encode(msgspec.structs.replace(manifest, threshold=manifest.threshold / 2))
    )


def _one_blank_more(copy: Path) -> None:
    (copy / MANIFEST).write_bytes((copy / MANIFEST).read_bytes() + b" ")


def _bare_manifest_signed(copy: Path) -> None:
    """By the right key, but for another purpose."""
    bare = new_key("trainer")[1]._replace(secret=KEY.secret)
    content = bare.secret.sign((copy / MANIFEST).read_bytes())
    (copy / SIGNATURE).write_text(f"trainer:ed25519.{content.hex()}")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_unsigned, "unsigned"),
        (lambda copy: resign(copy, OTHER), "wrong_signature"),
        (lambda copy: resign(copy, NEXT), "unknown_signer"),
        (_manifest_changed, "wrong_signature"),
        (_one_blank_more, "wrong_signature"),
        (_bare_manifest_signed, "wrong_signature"),
        (lambda copy: (copy / SIGNATURE).write_bytes(b""), "unknown_signer"),
        (lambda copy: (copy / SIGNATURE).write_bytes(b"\xff" * 9_999), "unknown_signer"),
        (lambda copy: (copy / SIGNATURE).write_bytes(b"trainer:ed25519.!!!"), "wrong_signature"),
        (
            lambda copy: (copy / SIGNATURE).write_bytes((copy / SIGNATURE).read_bytes().replace(b"ed25519", b"none")),
            "wrong_signature",
        ),
        (lambda copy: (copy / SKOPS).write_bytes(b"another model"), "digest_mismatch: model.skops"),
    ],
)
def test_where_keys_are_trusted_nothing_else_is_loaded(
    copy: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    resign(copy)
    spoil(copy)
    with pytest.raises(ModelRejected, match=reason):
        Scorer.load(copy, trusted=parse_trusted([KEY.public()]))


def test_a_key_is_changed_by_trusting_both_for_a_while(copy: Path) -> None:
    both = parse_trusted(["# the old one", KEY.public(), "", f"{NEXT.public()}  # the new one"])
    for key in (KEY, NEXT):
        resign(copy, key)
        verify(copy, both)
    resign(copy, KEY)
    with pytest.raises(ModelRejected, match="unknown_signer: signed by 'trainer'; trusted are trainer-2"):
        verify(copy, parse_trusted([NEXT.public()]))


def test_without_trusted_keys_a_signature_is_neither_asked_for_nor_looked_at(copy: Path) -> None:
    verify(copy)
    (copy / SIGNATURE).write_bytes(b"nonsense")
    verify(copy)


def test_the_registry_hands_out_signed_bundles_only_where_keys_are_set(copy: Path, tmp_path: Path) -> None:
    resign(copy)
    files = {name: (copy / name).read_bytes() for name in FILES | {MANIFEST, SIGNATURE} if (copy / name).exists()}
    store = FakeStore()
    registry = Registry(Settings(model_public_keys=KEY.public()), store=store)
    signed = store.add_version("FraudDetector", FACTS.created_at, bundle=files)
    bare = store.add_version(
        "FraudDetector", FACTS.created_at, bundle={name: data for name, data in files.items() if name != SIGNATURE}
    )
    assert (registry.download(signed, tmp_path / "signed") / SIGNATURE).read_bytes() == files[SIGNATURE]
    with pytest.raises(ModelRejected, match="unsigned"):
        registry.download(bare, tmp_path / "bare")
    assert not (tmp_path / "bare").exists()


def test_keys_come_from_the_command_and_from_settings_by_value_or_file(tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["signing", "trainer"])
    lines = [line for line in made.output.splitlines() if line.startswith(("csk_", "trainer:"))]
    key = parse_signing_key(lines[0])
    assert key.public() == lines[1]
    file = tmp_path / "key"
    file.write_text(lines[0] + "\n")
    for settings in (TrainerSettings(model_signing_key=lines[0]), TrainerSettings(model_signing_key_file=file)):
        assert settings.signing_key is not None
        assert settings.signing_key.public() == lines[1]
        assert lines[0] not in f"{settings!r}{settings.model_dump()}{settings.model_dump_json()}"
    assert TrainerSettings().signing_key is None
    assert trusted_keys(Settings()) is None
    file.write_text(lines[1])
    for trusted in (
        trusted_keys(Settings(model_public_keys=lines[1])),
        trusted_keys(Settings(model_public_keys_file=file)),
    ):
        assert trusted is not None
        trusted.check(b"{}", key.sign(b"{}"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: parse_trusted([]),
        lambda: parse_trusted(["# none"]),
        lambda: parse_trusted([KEY.public(), OTHER.public()]),
        lambda: parse_trusted(["trainer:ed25519.AAAA"]),
        lambda: parse_trusted(["trainer:rsa." + "A" * 43]),
        lambda: parse_trusted(["trainer"]),
        lambda: parse_trusted(["Trainer" + KEY.public()[7:]]),
        lambda: parse_signing_key(TEXT[:-3]),
        lambda: parse_signing_key(KEY.public()),
        lambda: parse_signing_key(""),
        lambda: new_key("Not a name"),
        lambda: trusted_keys(Settings(model_public_keys="", model_public_keys_file=Path("x"))),
        lambda: trusted_keys(Settings(model_public_keys_file=Path("/nowhere"))),
        lambda: trusted_keys(Settings(model_public_keys="")),
    ],
)
def test_keys_that_cannot_be_used_are_refused_without_showing_a_secret(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidSigningKeys) as refused:
        make()
    assert TEXT[12:30] not in str(refused.value)


OPENED: list[str] = []
"""Classes that pickles asked for while a test listened; hooks cannot be taken off again."""
LISTENING = [False]


def _listen(event: str, arguments: tuple[object, ...]) -> None:
    if LISTENING[0] and event == "pickle.find_class":
        OPENED.append(".".join(map(str, arguments)))


@pytest.mark.parametrize("backend", ["onnx", "treelite", "sklearn"])
def test_no_pickle_is_opened_while_a_bundle_is_loaded_and_scores(
    backend: Backend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In any form of model, also inside the libraries: CPython itself tells of every class that a pickle asks for."""
    converters = {"onnx": "to_onnx_bytes", "treelite": "to_treelite_bytes"}
    for form, convert in converters.items():
        if form != backend:
            monkeypatch.setattr(export, convert, lambda _estimator: 1 / 0)
    manifest = export.build_bundle(fitted("hgb"), TRAIN, RECENT, FACTS, tmp_path / "bundle")
    assert manifest.backend == backend
    sys.addaudithook(_listen)
    OPENED.clear()
    LISTENING[0] = True
    try:
        scorer = Scorer.load(tmp_path / "bundle")
        backends.load_estimator(((tmp_path / "bundle") / SKOPS).read_bytes())
    finally:
        LISTENING[0] = False
    assert scorer.manifest.backend == backend
    assert OPENED == []
