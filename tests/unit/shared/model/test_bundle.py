"""Bundles: written, tampered with, loaded."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from centinela.errors import ModelRejected
from centinela.model import bundle
from centinela.model.bundle import GOLDEN, MANIFEST, ONNX, SERVING_FILE, SKOPS, Manifest, sha256, verify
from centinela.model.export import to_onnx_bytes
from centinela.model.scorer import Scorer
from tests.support.small_models import KINDS, TRAIN, TRUTH, Layout


def reseal(directory: Path, **changes: object) -> None:
    """Rewrite the manifest with *changes* and the digests of the files as they are: a forger's, or a builder's
    bug."""
    manifest = msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Manifest)
    files = {name: sha256((directory / name).read_bytes()) for name in manifest.files}
    changed = msgspec.structs.replace(manifest, **{"files": files, **changes})
    (directory / MANIFEST).write_bytes(msgspec.json.encode(changed))


@pytest.mark.parametrize("name", [MANIFEST, SKOPS, ONNX, GOLDEN])
def test_a_file_that_is_missing_or_changed_is_refused(copy: Path, name: str) -> None:
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-20] + bytes(20))
    with pytest.raises(ModelRejected, match="invalid_manifest" if name == MANIFEST else f"digest_mismatch: {name}"):
        Scorer.load(copy)
    (copy / name).unlink()
    with pytest.raises(ModelRejected, match=f"missing_file: {name}"):
        Scorer.load(copy)


def test_a_golden_set_with_other_scores_is_refused(copy: Path) -> None:
    with np.load(io.BytesIO((copy / GOLDEN).read_bytes())) as golden:
        inputs, expected = golden["inputs"], golden["expected"].copy()
    expected[-1] += 0.01
    np.savez(copy / GOLDEN, inputs=inputs, expected=expected)
    reseal(copy)
    with pytest.raises(ModelRejected, match=r"golden_mismatch: scores are off by 0\.01"):
        Scorer.load(copy)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"inputs": np.zeros((3, 9)), "expected": np.zeros(3)},
        {"inputs": np.zeros((3, 4)), "expected": np.zeros(2)},
        {"inputs": np.zeros((0, 4)), "expected": np.zeros(0)},
        {"inputs": np.array([[object()]], dtype=object), "expected": np.zeros(1)},
    ],
)
def test_a_golden_set_that_is_none_is_refused(copy: Path, content: dict[str, np.ndarray]) -> None:
    arrays: dict[str, Any] = dict(content)
    np.savez(copy / GOLDEN, **arrays)
    reseal(copy)
    with pytest.raises(ModelRejected, match="invalid_golden_set"):
        Scorer.load(copy)


def test_the_right_digests_of_the_wrong_model_do_not_help(copy: Path) -> None:
    other = KINDS["hgb"]().fit(TRAIN, 1 - TRUTH)
    (copy / ONNX).write_bytes(to_onnx_bytes(other))
    reseal(copy)
    with pytest.raises(ModelRejected, match="golden_mismatch"):
        Scorer.load(copy)


@pytest.mark.parametrize("backend", ["onnx", "sklearn"])
def test_content_that_no_library_reads_is_refused(copy: Path, backend: str) -> None:
    (copy / SERVING_FILE[backend]).write_bytes(b"nonsense")  # type: ignore[index]
    reseal(copy, backend=backend)
    with pytest.raises(ModelRejected, match=f"load_failed: {backend}"):
        Scorer.load(copy)


def test_a_type_that_is_not_allowed_is_never_built(copy: Path) -> None:
    import skops.io

    (copy / SKOPS).write_bytes(skops.io.dumps(Path("/nowhere")))
    reseal(copy, backend="sklearn")
    with pytest.raises(ModelRejected, match="load_failed: sklearn: UntrustedTypesFoundException"):
        Scorer.load(copy)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 2}, "unknown_format"),
        ({"files": {"../../etc/passwd": "0"}}, "files outside a bundle"),
        ({"files": {SKOPS: "0", GOLDEN: "0"}}, "no digest of model.onnx"),
        ({"backend": "treelite"}, "no digest of model.treelite"),
        ({"feature_names": ("amount", "amount", "risk", "v1")}, "repeated"),
        ({"feature_names": ("amount",)}, "reference is not for 1 features"),
        ({"review_threshold": 0.99}, "review_threshold is above"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(copy: Path, changes: dict[str, object], reason: str) -> None:
    reseal(copy, **changes)
    with pytest.raises(ModelRejected, match=reason):
        verify(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model_name": 3}', b"\xff\xfe"])
def test_a_manifest_that_cannot_be_read_is_refused(copy: Path, content: bytes) -> None:
    (copy / MANIFEST).write_bytes(content)
    with pytest.raises(ModelRejected, match="invalid_manifest"):
        verify(copy)


def test_a_layout_without_the_models_columns_is_refused(good: Path) -> None:
    poor = Layout("v1:", ("amount", "count", "risk"))
    with pytest.raises(ModelRejected, match="missing_feature: the layout has no v1"):
        Scorer.load(good, layout=poor)


def test_a_folder_that_is_there_is_never_overwritten(good: Path) -> None:
    with pytest.raises(FileExistsError):
        bundle.write(good, verify(good), {})


def test_a_bundle_that_cannot_be_written_whole_is_not_there_at_all(good: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        bundle.write(tmp_path / "new", verify(good), {SKOPS: None})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="not files of a bundle"):
        bundle.write(tmp_path / "new", verify(good), {"notes.txt": b""})
    assert list(tmp_path.iterdir()) == []


def test_metadata_names_the_version_for_simple_readers(copy: Path) -> None:
    bundle.write_metadata(copy, verify(copy), "12")
    body = json.loads((copy / "metadata.json").read_text())
    assert (body["version"], body["model_name"], body["model_kind"], body["created_at"]) == (
        "12",
        "FraudDetector",
        "hgb",
        "2026-03-01T00:00:00Z",
    )
    assert verify(copy).model_name == "FraudDetector"
