"""The bundle on disk: a manifest and the files whose digests it holds.

::

    manifest.json     what the model is, what it was made from, sha256 of every file below
    model.skops       the scikit-learn estimator
    model.onnx        or model.treelite: the form that serves, where it agrees with the estimator
    golden.npz        rows and the scores that the estimator gave them
    manifest.sig      where bundles are signed: whose signature of the manifest (``centinela.model.signing``)
    metadata.json     a summary for people; written on download, when the version is known; not part of the digests
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal
from uuid import uuid4

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from centinela.errors import ModelRejected
from centinela.files import write_atomically, write_synced
from centinela.model.signing import MAX_SIGNATURE_BYTES, SigningKey, TrustedKeys

Backend = Literal["onnx", "treelite", "sklearn"]
Share = Annotated[float, Meta(ge=0, le=1)]

FORMAT = 1
MANIFEST, SIGNATURE, METADATA = "manifest.json", "manifest.sig", "metadata.json"
SKOPS, ONNX, TREELITE, GOLDEN = "model.skops", "model.onnx", "model.treelite", "golden.npz"
FILES = frozenset({SKOPS, ONNX, TREELITE, GOLDEN})
SERVING_FILE: Mapping[Backend, str] = {"onnx": ONNX, "treelite": TREELITE, "sklearn": SKOPS}
MAX_FILE_BYTES = 2_000_000_000


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What drift is measured against. Edges never change while the model serves.

    ``edges`` are the inner edges of each feature's bins without padding, ``counts`` its rows per bin with the missing
    values last; both over ``rows`` training rows. Scores and rates come from ``recent_rows`` rows not trained on.
    """

    bins: int
    rows: int
    edges: tuple[tuple[float, ...], ...]
    counts: tuple[tuple[int, ...], ...]
    recent_rows: int
    score_counts: tuple[int, ...]
    alert_rate: Share
    review_rate: Share
    average_precision: float | None = None

    def edge_matrix(self) -> NDArray[np.float64]:
        """Edges for ``reference.histogram``, shape (features, bins - 1), padded with ``inf``."""
        matrix = np.full((len(self.edges), self.bins - 1), np.inf)
        for row, edges in zip(matrix, self.edges, strict=True):
            row[: len(edges)] = edges
        return matrix

    def count_matrix(self) -> NDArray[np.uint32]:
        """Rows per bin, shape (features, bins + 1); the last bin counts missing values."""
        return np.array(self.counts, dtype=np.uint32).reshape(-1, self.bins + 1)


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One form of the model compared with the estimator. ``max_error`` is None where it did not run."""

    backend: Backend
    passed: bool
    max_error: float | None = None
    flips: int | None = None
    reason: str = ""


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How the serving form was chosen: scores within ``tolerance`` and equal decisions on all ``rows``."""

    rows: int
    missing_rows: int
    edge_rows: int
    tolerance: float
    attempts: tuple[Attempt, ...]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle says of itself. ``feature_names`` are chosen from the layout, in the model's order."""

    format: int = FORMAT
    model_name: str
    model_kind: str
    layout_id: str
    feature_names: tuple[str, ...]
    backend: Backend
    threshold: Share
    review_threshold: Share
    files: dict[str, str]
    reference: Reference
    parity: Parity
    dataset_digest: str
    request_id: str
    code_commit: str
    created_at: datetime
    versions: dict[str, str]
    metrics: dict[str, float] = {}


class Verified(msgspec.Struct, frozen=True):
    """A manifest and the bytes that its digests cover, read once: nothing can change between check and use."""

    manifest: Manifest
    manifest_digest: str
    files: dict[str, bytes]


def sha256(data: bytes) -> str:
    """Hex digest of *data*."""
    return hashlib.sha256(data).hexdigest()


def write(dest: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Write a bundle to a temporary folder, then rename that to *dest*, so that nobody sees half of one.

    Args:
        dest: Folder to make; must not exist.
        manifest: Its ``files`` are replaced by the digests of *files*.
        files: Names out of ``FILES`` to content.

    Raises:
        FileExistsError: *dest* exists.
        ValueError: A name is not one of a bundle's.
    """
    if dest.exists():
        raise FileExistsError(f"{dest} exists; a bundle is never overwritten")
    if strange := set(files) - FILES:
        raise ValueError(f"not files of a bundle: {sorted(strange)}")
    manifest = msgspec.structs.replace(manifest, files={name: sha256(data) for name, data in sorted(files.items())})
    part = dest.with_name(f".{dest.name}.{uuid4().hex[:8]}")
    part.mkdir(parents=True)
    try:
        for name, data in {**files, MANIFEST: _pretty(manifest)}.items():
            _write_file(part / name, data)
        part.rename(dest)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return manifest


def sign(directory: Path, key: SigningKey) -> None:
    """Put *key*'s signature next to the manifest in *directory*."""
    signature = key.sign(_read(directory / MANIFEST))
    _write_file(directory / SIGNATURE, signature)


def verify(directory: Path, trusted: TrustedKeys | None = None) -> Manifest:
    """The manifest of the bundle in *directory*, after all its digests, and where keys are given its signature, were
    checked.

    Raises:
        ModelRejected: See :func:`read_verified`.
    """
    return read_verified(directory, trusted).manifest


def read_verified(directory: Path, trusted: TrustedKeys | None = None) -> Verified:
    """All of the bundle in *directory*, checked.

    Args:
        trusted: The keys by one of which it must be signed; None takes it signed or not.

    Raises:
        ModelRejected: ``unsigned``, ``unknown_signer``, ``wrong_signature``, ``missing_file``, ``invalid_manifest``,
            ``unknown_format`` or ``digest_mismatch``, with the detail.
    """
    raw = _read(directory / MANIFEST)
    if trusted is not None:
        trusted.check(raw, _signature(directory))
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelRejected(f"invalid_manifest: {error}") from error
    if manifest.format != FORMAT:
        raise ModelRejected(f"unknown_format: format {manifest.format}; this release reads format {FORMAT}")
    if problem := _inconsistency(manifest):
        raise ModelRejected(f"invalid_manifest: {problem}")
    files = {}
    for name, digest in manifest.files.items():
        files[name] = _read(directory / name)
        if sha256(files[name]) != digest:
            raise ModelRejected(f"digest_mismatch: {name} is not what the manifest says")
    return Verified(manifest, sha256(raw), files)


def write_metadata(directory: Path, manifest: Manifest, version: str) -> None:
    """Put ``metadata.json`` next to the bundle: version, name, kind, metrics and age, for people and simple tools."""
    body = {
        "version": version,
        "model_name": manifest.model_name,
        "model_kind": manifest.model_kind,
        "backend": manifest.backend,
        "created_at": manifest.created_at,
        "threshold": manifest.threshold,
        "metrics": manifest.metrics,
        "dataset_digest": manifest.dataset_digest,
        "code_commit": manifest.code_commit,
    }
    write_atomically(directory / METADATA, lambda file: file.write(_pretty(body)))


def _inconsistency(manifest: Manifest) -> str | None:
    """What in *manifest* contradicts itself, or None."""
    names, reference = manifest.feature_names, manifest.reference
    problems = {
        f"files outside a bundle: {sorted(set(manifest.files) - FILES)}": not set(manifest.files) <= FILES,
        f"no digest of {SERVING_FILE[manifest.backend]}": SERVING_FILE[manifest.backend] not in manifest.files,
        f"no digest of {GOLDEN}": GOLDEN not in manifest.files,
        f"no digest of {SKOPS}": SKOPS not in manifest.files,
        "feature names are empty or repeated": not names or len(set(names)) != len(names),
        "review_threshold is above threshold": manifest.review_threshold > manifest.threshold,
        f"reference is not for {len(names)} features": not len(reference.edges) == len(reference.counts) == len(names),
        "reference has rows of the wrong length": (
            reference.bins < 3
            or any(len(row) != reference.bins + 1 for row in reference.counts)
            or any(len(row) >= reference.bins for row in reference.edges)
        ),
    }
    return next((problem for problem, holds in problems.items() if holds), None)


def _signature(directory: Path) -> bytes | None:
    try:
        with (directory / SIGNATURE).open("rb") as file:
            return file.read(MAX_SIGNATURE_BYTES + 1)
    except FileNotFoundError:
        return None


def _pretty(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ModelRejected(f"too_large: {path.name} has more than {MAX_FILE_BYTES} bytes")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ModelRejected(f"missing_file: {path.name}") from error


def _write_file(path: Path, data: bytes) -> None:
    write_synced(path, lambda file: file.write(data))
