"""Files that somebody hands over: read, or refused with the error that is documented. Never another exception."""

from __future__ import annotations

import gzip
import io
import json
import random
import string
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from centinela.datasets.files import open_table
from centinela.datasets.mapping import Mapping, MappingError, load_mapping
from centinela.datasets.rows import LabelRule, find_formats, to_transactions
from centinela.datasets.table import UnreadableFile
from centinela.errors import ModelRejected
from centinela.features.configured import FeaturesError, load_features
from centinela.model.bundle import FILES, GOLDEN, MANIFEST, SIGNATURE, Manifest, sha256
from centinela.model.export import build_bundle
from centinela.model.scorer import Scorer
from centinela.model.signing import InvalidSigningKeys, new_key, parse_signing_key, parse_trusted
from centinela_drift.state_store import SnapshotStore
from tests.support.small_models import FACTS, RECENT, TRAIN, fitted

NOW = datetime(2026, 11, 24, tzinfo=UTC)
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SCRAPS = (
    "- ",
    "{",
    "}",
    "[",
    "]",
    ": ",
    "?",
    "&a ",
    "*a",
    "!!python/object/apply:os.system ['id']",
    "!!set {a, b}",
    "!!binary aGk=",
    "!!timestamp 2025-01-01",
    "name",
    "entity",
    "user",
    "aggregation",
    "count",
    "window",
    "1h",
    "999999999d",
    "delay",
    "column",
    "amount",
    "columns",
    "attributes",
    "time",
    "unit",
    "s",
    "base",
    "zone",
    "Europe",
    "../etc/passwd",
    "",
    "id_prefix",
    "transaction_id",
    "occurred_at",
    "2025-01-01",
    "\n",
    "\n  ",
    "\n- ",
    ", ",
    "|",
    ">",
    "'",
    '"',
    "\t",
    "\x00",
    "\x85",
    "é",
    "<<: ",
    "---\n",
    "%YAML 9\n",
    "1e999",
    "~",
    "0x1F",
)
scraps = st.lists(st.sampled_from(SCRAPS) | st.text(max_size=4), max_size=25).map("".join)
WHOLE = (
    "columns: {{a: transaction_id, b: occurred_at, c: amount}}\ntime: {{zone: {}, base: {}, unit: {}}}\nid_prefix:"
    " {}\nattributes: {{d: {}}}\n"
)
mappings = (
    scraps
    | st.tuples(
        *[
            scraps.map(json.dumps)
            | st.sampled_from(["UTC", "Europe", "2025-01-01T00:00:00Z", "s", "[1]", "{a: 1}", "null"])
        ]
        * 5
    ).map(lambda parts: WHOLE.format(*parts))
    | st.sampled_from(["[" * 1_500, "a: " + "{a: " * 1_500, "&a [*a]"])
)
FEATURE = "- {{name: {}, entity: {}, aggregation: {}, window: {}, column: {}, delay: {}}}"
features = (
    scraps
    | st.lists(
        scraps.map(json.dumps)
        | st.sampled_from(["user", "terminal", "count", "1h", "amount", "mean", "30d", "distinct"]),
        min_size=6,
        max_size=6,
    ).map(lambda parts: FEATURE.format(*parts))
    | st.sampled_from(["- " * 1_500 + "a", "&a [*a]"])
)


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


@settings(QUICK, max_examples=300)
@given(mappings)
def test_a_mapping_is_read_or_refused(tmp_path: Path, text: str) -> None:
    try:
        load_mapping(str(written(tmp_path / "mapping.yaml", text)))
    except MappingError:
        return


@settings(QUICK, max_examples=300)
@given(features)
def test_a_file_of_features_is_read_or_refused(tmp_path: Path, text: str) -> None:
    try:
        load_features(written(tmp_path / "features.yaml", text))
    except FeaturesError:
        return


MAPPING = Mapping(
    {"id": "transaction_id", "at": "occurred_at", "amount": "amount", "user": "user_id", "fraud": "is_fraud"},
    {"v": "v1"},
    id_prefix="x",
)
CSV = (
    b"id,at,amount,user,fraud,v\n1,2025-01-01T00:00:00Z,10,u,0,1.5\n2,2025-01-01"
    b" 00:00:01,0.5,,1,\n3,1735689602,1e3,w,,nan\n"
)


def rows_of(path: Path, mapping: Mapping = MAPPING) -> int:
    """All rows of *path*, good ones and refused ones."""
    table = open_table(path)
    mapping.require(table.columns, path.name)
    seen = 0
    for batch in table.batches(mapping.required):
        good, refused = to_transactions(batch, mapping, LabelRule(), NOW, find_formats(batch, mapping, None))
        assert len(good.transaction_id) + len(refused) == len(batch.numbers) + len(batch.malformed)
        seen += len(batch.numbers) + len(batch.malformed)
    return seen


def taken_or_refused(path: Path) -> None:
    try:
        rows_of(path)
    except (UnreadableFile, MappingError):
        return


def changed(data: bytes, seed: int) -> bytes:
    """*data* with a few random changes."""
    rng = random.Random(seed)  # noqa: S311 not for secrets
    odd = [
        b"\x00",
        b'"',
        b"\n",
        b"\r",
        b",",
        b"\xff",
        b"9" * 40,
        b"-",
        b"e",
        b"x" * 300,
        b"\xef\xbb\xbf",
        b"9999-12-31T23:59:59Z",
        b"0001-01-01",
        b"inf",
    ]
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        data = rng.choice(
            (
                data[:at] + rng.choice(odd) + data[at:],
                data[:at] + data[min(end, at + 9) :],
                data[:at] or b"i",
                data[:at] + data[at:end] + data[at:],
            )
        )
    return data


def test_a_changed_csv_file_is_taken_row_by_row_or_refused(tmp_path: Path) -> None:
    for seed in range(400):
        data = changed(CSV, seed)
        path = tmp_path / "t.csv"
        path.write_bytes(
            changed(gzip.compress(data), seed) if seed % 5 == 0 else gzip.compress(data) if seed % 5 == 1 else data
        )
        taken_or_refused(path)
    for data in (
        b"",
        b"\x00",
        b"\n",
        b'"',
        b"id," + b"x" * 200_000 + b"\n",
        b'"' + b"a" * 200_000,
        b"\x1f\x8b",
        b"PAR1",
        b"id,id,at,amount,user,fraud,v\n1,2,3,4,5,6,7\n",
    ):
        path.write_bytes(data)
        taken_or_refused(path)


COLUMNS: dict[str, Callable[[], pa.Array]] = {
    "text": lambda: pa.array(["1", None, "x" * 200]),
    "int": lambda: pa.array([1, -1, 2**62]),
    "float": lambda: pa.array([1.5, float("nan"), float("inf")]),
    "whole floats": lambda: pa.array([1.0, 2.0, None]),
    "huge floats": lambda: pa.array([1e300, 1.0, None]),
    "bool": lambda: pa.array([True, False, None]),
    "timestamp": lambda: pa.array([datetime(2025, 1, 1, tzinfo=UTC), None, datetime(2262, 1, 1, tzinfo=UTC)]),
    "seconds": lambda: pa.array([2**52, -1, 0], pa.timestamp("s")),
    "date": lambda: pa.array([date(2025, 1, 1), None, date(1, 1, 1)]),
    "nothing": lambda: pa.nulls(3),
    "binary": lambda: pa.array([b"\xff", b"", None]),
    "list": lambda: pa.array([[1], [], None]),
    "struct": lambda: pa.array([{"a": 1}, {}, None]),
    "decimal": lambda: pa.array([Decimal("1.50"), None, Decimal("-3")]),
    "duration": lambda: pa.array([1, 2, None], pa.duration("s")),
    "dictionary": lambda: pa.array(["a", "b", None]).dictionary_encode(),
    "time": lambda: pa.array([1, 2, 3], pa.time32("s")),
    "uint64": lambda: pa.array([2**64 - 1, 0, 1], pa.uint64()),
    "float16": lambda: pa.array(np.array([1, 2, 3], np.float16)),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_parquet_column_of_any_type_is_taken_row_by_row_or_refused(tmp_path: Path, kind: str) -> None:
    good = {"id": "text", "at": "timestamp", "amount": "int", "user": "text", "fraud": "bool", "v": "float"}
    for name in good:
        table = pa.table({column: COLUMNS[kind if column == name else usual]() for column, usual in good.items()})
        parquet.write_table(table, tmp_path / "t.parquet")
        taken_or_refused(tmp_path / "t.parquet")


def test_a_changed_parquet_file_is_taken_row_by_row_or_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    parquet.write_table(
        pa.table(
            {"id": ["1"], "at": ["2025-01-01T00:00:00Z"], "amount": [1.0], "user": ["u"], "fraud": [0], "v": [0.5]}
        ),
        buffer,
    )
    for seed in range(150):
        (tmp_path / "t.parquet").write_bytes(b"PAR1" + changed(buffer.getvalue()[4:], seed))
        taken_or_refused(tmp_path / "t.parquet")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("fuzz") / "bundle"
    build_bundle(fitted("hgb"), TRAIN, RECENT, FACTS, dest)
    return dest


def loaded_or_rejected(directory: Path, **options: Any) -> bool:
    try:
        Scorer.load(directory, **options)
    except ModelRejected as rejected:
        reason = str(rejected).partition(":")[0]
    else:
        return True
    assert reason.replace("_", "").isalpha()
    return False


@pytest.fixture
def spoilt(bundle: Path, tmp_path: Path) -> Callable[..., Path]:
    """``spoilt(name=bytes, ...)``: the bundle with other content in some files, and a manifest that says it is
    right."""
    directory = tmp_path / "spoilt"
    directory.mkdir()

    def make(**content: bytes) -> Path:
        files = {path.name: path.read_bytes() for path in bundle.iterdir() if path.name in FILES} | {
            n.replace("_", "."): c for n, c in content.items()
        }
        manifest = msgspec.json.decode((bundle / MANIFEST).read_bytes(), type=Manifest)
        for name, data in files.items():
            (directory / name).write_bytes(data)
        digests = {name: sha256(data) for name, data in files.items()}
        (directory / MANIFEST).write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, files=digests)))
        return directory

    return make


def test_a_changed_manifest_is_read_or_rejected(bundle: Path, spoilt: Callable[..., Path]) -> None:
    directory = spoilt()
    whole = (directory / MANIFEST).read_bytes()
    body = json.loads(whole)
    odd: list[Any] = [
        None,
        -1,
        0,
        1e308,
        2**70,
        "",
        "x",
        [],
        {},
        [[]],
        True,
        "../../etc/passwd",
        {"../x": "y"},
        ["amount"] * 5,
        [None],
        "onnx",
        "sklearn",
    ]
    rng = random.Random(7)  # noqa: S311 not for secrets
    texts = [changed(whole, seed) for seed in range(120)]
    for _ in range(250):
        spoiled = json.loads(whole)
        holder, key = rng.choice(
            [(spoiled, k) for k in body]
            + [(spoiled["reference"], k) for k in body["reference"]]
            + [(spoiled["parity"], k) for k in body["parity"]]
        )
        holder[key] = rng.choice(odd)
        texts.append(json.dumps(spoiled).encode())
    for text in [*texts, b"[" * 100_000, b"", b"\xff", b'{"files": {"model.skops": "' + b"0" * 64 + b'"}}']:
        (directory / MANIFEST).write_bytes(text)
        loaded_or_rejected(directory)


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_a_golden_set_of_anything_is_rejected(spoilt: Callable[..., Path], bundle: Path) -> None:
    good = (bundle / GOLDEN).read_bytes()
    pickled = _npz(inputs=np.array([{"a": 1}], object), expected=np.ones(1))
    contents = [
        b"",
        b"PK",
        pickled,
        _npz(),
        _npz(inputs=np.ones((2, 3)), expected=np.ones(2)),
        _npz(inputs=np.array(["x"]), expected=np.ones(1)),
        _npz(inputs=np.ones(0), expected=np.ones(0)),
        np.ones(3).tobytes(),
        *(changed(good, seed) for seed in range(60)),
    ]
    for content in contents:
        directory = spoilt(golden_npz=content)
        assert not loaded_or_rejected(directory) or content == good


@pytest.mark.parametrize("name", ["model.onnx", "model.skops"])
def test_a_changed_model_is_loaded_only_where_it_gives_the_same_scores(
    spoilt: Callable[..., Path], bundle: Path, name: str
) -> None:
    good = (bundle / name).read_bytes()
    for seed in range(25):
        loaded_or_rejected(spoilt(**{name.replace(".", "_"): changed(good, seed)}))
    loaded_or_rejected(spoilt(**{name.replace(".", "_"): b""}))


@QUICK
@given(
    st.binary(max_size=120)
    | st.text(string.printable, max_size=80).map(lambda text: b"trainer:ed25519." + text.encode())
)
def test_a_signature_of_anything_is_rejected(bundle: Path, signature: bytes) -> None:
    (bundle / SIGNATURE).write_bytes(signature)
    try:
        assert not loaded_or_rejected(bundle, trusted=parse_trusted([new_key("trainer")[1].public()]))
    finally:
        (bundle / SIGNATURE).unlink()


@QUICK
@given(
    st.text(max_size=80)
    | st.text(max_size=60).map(lambda text: f"csk_name_{text}")
    | st.text(max_size=60).map(lambda text: f"name:ed25519.{text}")
)
def test_a_key_of_models_is_read_or_refused(text: str) -> None:
    for read in (parse_signing_key, lambda text: parse_trusted(text.splitlines())):
        try:
            read(text)
        except InvalidSigningKeys:
            continue


class Values(msgspec.Struct):
    a: int


def test_a_changed_snapshot_of_drift_is_passed_over(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    good = store.save(Values(1), {"b": np.arange(5)}).read_bytes()
    for seed in range(150):
        (tmp_path / f"state-{seed + 2:010d}.npz").write_bytes(changed(good, seed))
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", 20) + b"{'descr': ((((((((((" + b"x"
    for n, content in enumerate(
        (
            _npz(values=np.array([{}], object)),
            _npz(values=np.frombuffer(header, np.uint8)),
            b"PK\x05\x06" + bytes(18),
            header,
        )
    ):
        (tmp_path / f"state-{n + 500:010d}.npz").write_bytes(content)
    assert store.load(Values) is not None
    store.close()
