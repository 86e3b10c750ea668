"""Whatever bytes come in: a value, or the error that the decoder documents. Never another exception."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from centinela import events, schemas
from centinela.codec import Decoder, ModelEventDecoder
from centinela.deadletters import entries as dead_letters
from centinela.deadletters.record import dead_letter
from centinela.errors import InvalidRecord
from centinela.features.known_fields import KnownFields
from centinela.features.layout import FeatureLayout
from centinela.features.snapshots.format import _LENGTH, _MAGIC, SnapshotDamaged, pack, unpack
from centinela.features.state.id_table import IdTable
from centinela.kafka.headers import header
from centinela.kafka.port import Record
from centinela.model.panes import PANE_ROW, read_pane
from centinela.model.reference import SCORE_BINS
from centinela.operations.reconcile import is_rejected_row, letter_origin
from centinela.security.keys import ApiKeys, Denied, InvalidKeys, new_key, parse
from centinela.telemetry.tracing import traceparent_or_new
from centinela.web.refusals import RequestRefused
from centinela_ingest.api.requests import LabelIn, Parser, TransactionIn
from centinela_predictor.gateway.requests import RequestParser
from centinela_predictor.state import admission
from centinela_predictor.state.admission import verdict_fault
from centinela_predictor.state.terminal_activity import Block, pack_block, unpack_block
from tests.support import fuzz_stream
from tests.support.event_strategies import built
from tests.support.hostile_records import changed
from tests.support.mutations import ODD_VALUES, Mutator, corpus

START = datetime(2025, 1, 1, tzinfo=UTC)
QUICK = settings(max_examples=120, deadline=None)
KINDS = (
    events.TransactionReceived,
    events.LabelReported,
    events.TransactionScored,
    events.FeaturePane,
    events.DriftReported,
    events.RetrainRequested,
)
MODEL_KINDS = (events.ModelPromoted, events.ModelLoaded, events.ModelLoadRejected, events.TrainingCompleted)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["2025-01-01T00:00:00Z", "EUR", "gateway"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def outcome(call: Callable[[], Any], refusal: type[Exception]) -> Any:
    """What *call* gives, or its refusal; any other exception fails the test."""
    try:
        return call()
    except refusal as refused:
        return refused


def jsonlike(kind: type) -> st.SearchStrategy[bytes]:
    """Objects with the fields of *kind*, and any JSON in them."""
    fields = [field.encode_name for field in msgspec.structs.fields(kind)]
    return st.dictionaries(st.sampled_from([*fields, "more"]), json_values).map(lambda body: json.dumps(body).encode())


def any_bytes(kind: type) -> st.SearchStrategy[bytes]:
    event = next(base for base in kind.__mro__ if base in schemas.event_types())
    example = changed(json.loads(schemas.example(event)))
    return example | example | st.binary(max_size=200) | st.sampled_from(ODD_VALUES) | jsonlike(kind)


@pytest.mark.parametrize("kind", [*KINDS, *MODEL_KINDS], ids=lambda kind: kind.__name__)
def test_an_event_decodes_or_is_an_invalid_record(kind: type[events.Event]) -> None:
    decoder = ModelEventDecoder() if kind in MODEL_KINDS else Decoder(kind)

    @settings(QUICK, max_examples=50)
    @given(st.lists(any_bytes(kind) | st.none(), min_size=1, max_size=4))
    def holds(values: list[bytes | None]) -> None:
        together = decoder.decode_many(values)
        assert len(together) == len(values)
        for value, found in zip(values, together, strict=True):
            alone = outcome(partial(decoder.decode, value), InvalidRecord)
            if isinstance(alone, InvalidRecord):
                assert isinstance(found, InvalidRecord)
                assert found.reason == alone.reason
            else:
                assert found == alone
                assert decoder.decode(events.encode(alone)) == alone

    holds()


@pytest.mark.parametrize("kind", [*KINDS, *MODEL_KINDS], ids=lambda kind: kind.__name__)
def test_an_event_survives_its_own_form(kind: type[events.Event]) -> None:
    decoder = ModelEventDecoder() if kind in MODEL_KINDS else Decoder(kind)

    @QUICK
    @given(built(kind))
    def holds(event: events.Event) -> None:
        assert decoder.decode(events.encode(event)) == event

    holds()


def test_changed_transactions_become_transactions_or_dead_letters() -> None:
    """``make fuzz N=1000000`` does the same at length."""
    outcomes = fuzz_stream.fuzz(5_000, seed=20_260)
    assert sum(outcomes.values()) == 5_000
    assert {"transaction", "malformed_json", "invalid_field", "invalid_verdict"} <= set(outcomes)


@QUICK
@given(built(events.AttachedVerdict))
def test_a_verdict_can_be_adopted_or_says_why_not(verdict: events.AttachedVerdict) -> None:
    fault = verdict_fault(verdict)
    assert fault is None or fault.reason == "invalid_verdict"


@QUICK
@given(
    st.text(max_size=60)
    | st.sampled_from(["v1:a,b", "v1:", "v1:a,a", "v2:", "v1:amount", "v1:a;b=user.count(amount,1h)"])
)
def test_a_feature_set_is_read_or_refused(text: str) -> None:
    try:
        layout = FeatureLayout.parse(text)
    except ValueError:
        return
    assert FeatureLayout.parse(layout.id) == layout


@QUICK
@given(
    st.binary(max_size=120)
    | st.builds(
        lambda n, rest: struct.pack("<4sIqQQq", b"TAB2", n, 1, 2, 3, 4) + rest,
        st.integers(0, 2**32 - 1),
        st.binary(max_size=96),
    )
)
def test_a_block_of_activity_is_read_or_refused(value: bytes) -> None:
    block = outcome(lambda: unpack_block(value), InvalidRecord)
    assert block.reason == "invalid_block" if isinstance(block, InvalidRecord) else pack_block(block) == value


@QUICK
@given(
    st.lists(
        st.tuples(st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1)), max_size=20
    ),
    st.integers(-(2**63), 2**63 - 1),
)
def test_a_block_of_activity_survives_its_own_form(rows: list[tuple[int, int, int]], watermark: int) -> None:
    terminals = np.array([row[0] for row in rows], np.uint64)
    times = np.array([row[1] for row in rows], np.int64)
    hashes = np.array([row[2] for row in rows], np.uint64)
    found = unpack_block(pack_block(Block(watermark, 7, 8, terminals, times, hashes)))
    assert found.watermark == watermark
    assert [list(map(int, column)) for column in (found.terminals, found.times, found.ids)] == [
        list(map(int, c)) for c in (terminals, times, hashes)
    ]


@QUICK
@given(built(events.FeaturePane), st.integers(0, 3), st.booleans())
def test_a_pane_is_read_or_refused(pane: events.FeaturePane, count: int, sound: bool) -> None:
    if sound:
        scores = np.zeros(SCORE_BINS, "<u4")
        scores[0] = count
        pane = msgspec.structs.replace(
            pane, transactions=bytes(PANE_ROW.itemsize * count), score_histogram=scores.tobytes(), count=count
        )
    read = outcome(lambda: read_pane(pane), InvalidRecord)
    assert not isinstance(read, InvalidRecord) or read.reason == "invalid_pane"


SNAPSHOT = pack("users:1", {"newest": 5}, {"times": np.arange(6), "names": np.arange(4.0).reshape(2, 2)})


def _resealed(body: bytes) -> bytes:
    return body + xxhash.xxh3_128_digest(body)


headers = st.one_of(
    st.binary(max_size=60),
    json_values.map(lambda value: _packed(value)),
    st.builds(
        lambda kind, dtype, shape: msgspec.msgpack.encode({"kind": kind, "facts": {}, "arrays": [["a", dtype, shape]]}),
        st.sampled_from(["users:1", "x"]),
        st.sampled_from(["<i8", "|O", "O", "V0", "nonsense", "<f4,<f4", "", "U999999999"]),
        st.lists(st.integers(-3, 2**62), max_size=3),
    ),
)


def _packed(value: object) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError):
        return b""


@QUICK
@given(
    st.one_of(
        st.binary(max_size=80),
        st.integers(0, len(SNAPSHOT)).map(lambda n: SNAPSHOT[:n]),
        headers.map(lambda header: _resealed(_MAGIC + len(header).to_bytes(_LENGTH, "little") + header + bytes(64))),
        st.binary(max_size=40).map(lambda rest: _resealed(_MAGIC + rest)),
    )
)
def test_a_snapshot_is_read_or_damaged(data: bytes) -> None:
    try:
        unpack("users:1", data)
    except SnapshotDamaged:
        return


@QUICK
@given(st.integers(0, 8 * len(SNAPSHOT) - 1))
def test_a_snapshot_with_one_bit_flipped_is_damaged(bit: int) -> None:
    changed = bytearray(SNAPSHOT)
    changed[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(SnapshotDamaged):
        unpack("users:1", bytes(changed))


names = st.sampled_from(
    [
        "dlq.reason",
        "dlq.detail",
        "dlq.topic",
        "dlq.partition",
        "dlq.offset",
        "dlq.at",
        "dlq.closed",
        "dlq.letter",
        "dlq.answered-by",
        "redrive.count",
        "redrive.letter",
        "redrive.history",
        "ce_source",
        "traceparent",
        "other",
    ]
) | st.text(max_size=8)
contents = (
    st.none()
    | st.binary(max_size=30)
    | st.sampled_from(
        [
            b"redriven",
            b"dropped",
            b"transactions-dlq:0:5",
            b"a:b:c",
            b"0",
            b"-1",
            b"9" * 5_000,
            "²".encode(),
            b"2025-01-01T00:00:00Z",
            b"[]",
            b"[[]]",
            b"[" * 5_000,
            b'[{"x":' + b"[" * 5_000,
        ]
    )
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(names, contents), max_size=8), contents)
def test_headers_of_a_dead_letter_never_stop_its_reader(headers: list[tuple[str, bytes]], value: bytes | None) -> None:
    record = Record("transactions-dlq", 0, 5, value, value, tuple(headers), 0)
    entry = dead_letters.read_entry(record)
    letter_origin(record, "transactions")
    is_rejected_row(record)
    header(record.headers, "traceparent")
    dead_letter(record, "reason", "detail", at=START)
    dead_letters.read_resolution(record)
    dead_letters.is_resolution(record)
    dead_letters.history_of(record.headers)
    dead_letters.redriven_from(record.headers)
    dead_letters.resolution_record(entry, "dropped", by="é" * 200, why="\x00", at=START)
    try:
        dead_letters.redriven_record(record, entry, by="x", at=START)
    except ValueError:
        assert entry.obstacle is not None


@QUICK
@given(st.lists(st.text(max_size=60), max_size=4))
def test_a_list_of_api_keys_is_read_or_refused(lines: list[str]) -> None:
    try:
        entries = parse(lines)
    except InvalidKeys:
        return
    assert parse(map(str, entries.values())) == entries


KEYS = ApiKeys({made.entry.name: made.entry for made in [new_key("shop", "producer")]})


@QUICK
@given(
    st.text(max_size=80)
    | st.text(max_size=60).map(lambda text: f"Bearer {text}")
    | st.text(max_size=40).map(lambda text: f"Bearer ck_shop_{text}")
)
def test_no_header_lets_in_who_has_no_key(header: str) -> None:
    with pytest.raises(Denied) as denied:
        KEYS.require(header, "producer")
    assert denied.value.status == 401


@QUICK
@given(
    st.none()
    | st.text(max_size=80)
    | st.sampled_from(["00-" + "0" * 32 + "-" + "0" * 16 + "-00", "00-" + "g" * 32 + "-" + "1" * 16 + "-01"])
)
def test_any_traceparent_gives_one_that_is_sound(header: str | None) -> None:
    found = traceparent_or_new(header)
    assert traceparent_or_new(found) == found


@QUICK
@given(st.lists(st.integers(1, 2**64 - 1), unique=True, max_size=60), st.lists(st.integers(1, 2**64 - 1), max_size=20))
def test_a_table_of_ids_knows_what_was_added_and_nothing_else(added: list[int], asked: list[int]) -> None:
    table = IdTable()
    table.add(np.array(added, np.uint64))
    found = table.find(np.array(added + asked, np.uint64))
    assert found.tolist() == [added.index(i) if i in added else -1 for i in added + asked]


KNOWN = KnownFields(frozenset({"v1", "v2", "v3"}), refuse=True)
PARSER = RequestParser(KNOWN)


def _ingest(kind: type, plain: type) -> Callable[[bytes], object]:
    parser = Parser(kind, plain, 10, KNOWN)
    return lambda body: parser.parse(body, START)


@pytest.mark.parametrize(
    ("read", "kind", "refusal"),
    [
        (_ingest(TransactionIn, events.TransactionReceived), TransactionIn, RequestRefused),
        (_ingest(LabelIn, events.LabelReported), LabelIn, RequestRefused),
        (lambda body: PARSER.one(body, START), TransactionIn, RequestRefused),
        (lambda body: PARSER.many(body, START), TransactionIn, RequestRefused),
    ],
    ids=["ingest-transactions", "ingest-labels", "gateway-one", "gateway-many"],
)
def test_a_body_is_read_or_refused_with_4xx(
    read: Callable[[bytes], object], kind: type, refusal: type[RequestRefused]
) -> None:
    bodies = [*corpus(START), *Mutator(corpus(START), 5).many(1_500)]
    wrapped = [b'{"transactions": [' + body + b"]}" for body in bodies[:300]] + [
        b"[" + body + b"]" for body in bodies[:300]
    ]

    def hold(body: bytes) -> None:
        found = outcome(lambda: read(body), refusal)
        assert not isinstance(found, refusal) or 400 <= found.status < 500

    for body in [*bodies, *wrapped, *NASTY]:
        hold(body)

    @QUICK
    @given(any_bytes(kind))
    def holds(body: bytes) -> None:
        hold(body)

    holds()


NASTY = (
    b'{"attributes": {"v1": "x"}, no json any more',
    b'[{"attributes": {"v1": "x"}}, no json any more',
    b'{"attributes": {"v1": "x"}, "attributes": 3}',
    b"[" * 900 + b"NaN" + b"]" * 900,
    b'{"a":' * 900 + b"NaN" + b"}" * 900,
    b'{"attributes": {"' + b"v" * 100_000 + b'": "x"}}',
    b'{"amount": 1e999}',
    b'{"amount": NaN}',
    b'{"amount": ' + b"9" * 5_000 + b"}",
    b'{"transactions": {}}',
    b'{"transactions": [], "transactions": [1]}',
    b'{"transaction_id": "a", "transaction_id": "b", "amount": 1, "occurred_at": "2025-01-01T00:00:00Z"}',
    b"\xef\xbb\xbf{}",
    b"",
)


def test_a_body_of_deep_arrays_costs_no_more_than_a_flat_one() -> None:
    """The lenient reader that names a field at fault once built the path of every value, however deep: quadratic in the
    body."""
    deep = b"[" * 900 + b",".join([b"1"] * 200_000) + b",NaN" + b"]" * 900
    with pytest.raises(RequestRefused):
        Parser(TransactionIn, events.TransactionReceived, 10, KNOWN).parse(deep, START)
    with pytest.raises(RequestRefused):
        PARSER.many(deep, START)


def test_times_at_the_edges_of_what_a_date_can_be_are_refused_not_fatal() -> None:
    decoder = Decoder(events.TransactionReceived)
    for text in (
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
    ):
        body = b'{"transaction_id": "a", "amount": 1, "occurred_at": "%s"}' % text.encode()
        record = Record("transactions", 0, 0, None, body, (), 0)
        admitted = admission.admit([record], START + timedelta(days=1))
        assert len(admitted.refused) == 1
        assert admitted.refused[0].reason in {"time_before_1970", "time_in_future"}
        with pytest.raises(RequestRefused):
            Parser(TransactionIn, events.TransactionReceived, 10, KNOWN).parse(body, START)
        with pytest.raises(InvalidRecord):
            decoder.decode(body)
