"""Dead letters keep the record and tell where it came from; too many of them are a fault of ours."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from centinela.codec import MAX_RECORD_BYTES
from centinela.deadletters.record import DETAIL_BYTES, KEY_BYTES, DeadLetterCap, DeadLetterFlood, cut_text, dead_letter
from centinela.kafka.port import Record
from centinela.kafka.timeouts import MAX_REQUEST_BYTES

AT = datetime(2018, 4, 1, tzinfo=UTC)


def letter(record: Record) -> tuple[bytes | None, dict[str, bytes]]:
    written = dead_letter(record, "invalid_field", "é" * 5_000, at=AT)
    assert (written.topic, written.key) == ("labels-dlq", record.key)
    return written.value, dict(written.headers)


def test_a_record_too_large_to_write_again_is_cut_and_says_so() -> None:
    value, headers = letter(Record("labels", 1, 2, b"k", b"x" * 2_000_000))

    assert value == b"x" * MAX_RECORD_BYTES
    assert headers["dlq.size"] == b"2000000"
    assert len(value) + sum(len(k) + len(v) for k, v in headers.items()) < MAX_REQUEST_BYTES


def test_a_record_whose_key_and_headers_are_too_large_is_cut_so_that_its_letter_can_be_written() -> None:
    headers = tuple((f"h{n}", b"v" * 900) for n in range(2_000))
    written = dead_letter(
        Record("labels", 1, 2, b"k" * 500_000, b"x" * MAX_RECORD_BYTES, headers), "invalid_field", "", at=AT
    )

    said = dict(written.headers)
    assert written.key == b"k" * KEY_BYTES
    assert written.value == b"x" * MAX_RECORD_BYTES
    assert said["dlq.key_size"] == b"500000"
    kept = [header for header in written.headers if header[0].startswith("h")]
    assert kept == list(headers[: len(kept)])
    assert len(kept) > 0
    assert said["dlq.headers_dropped"] == b"%d" % (2_000 - len(kept))
    assert (
        len(written.key) + len(written.value) + sum(len(k) + len(v) for k, v in written.headers)
        < MAX_REQUEST_BYTES - 8_000
    )


@pytest.mark.parametrize("detail", ["é" * 5_000, "x" + "é" * 5_000, "\ud800 is half a character"])
def test_a_detail_can_be_read_again_wherever_it_was_cut(detail: str) -> None:
    assert len(cut_text(detail)) <= DETAIL_BYTES
    assert cut_text(detail).decode()[:1] in {"é", "x", "?"}


def test_a_tombstone_stays_one() -> None:
    value, headers = letter(Record("labels", 1, 2, b"k", None))

    assert value is None
    assert "dlq.size" not in headers


def test_a_record_of_neither_key_nor_value_gets_a_letter_that_every_client_can_write() -> None:
    headers: Any = (("null", None),)
    written = dead_letter(Record("labels", 1, 2, None, None, headers), "empty", "", at=AT)

    assert (written.key, written.value, written.headers[0]) == (None, b"", ("null", b""))


def test_a_letter_sent_through_again_tells_of_its_last_journey_only() -> None:
    _, headers = letter(Record("labels", 1, 2, None, b"v", (("dlq.reason", b"old"), ("ce_id", b"7"))))

    assert headers["dlq.reason"] == b"invalid_field"
    assert headers["ce_id"] == b"7"


def test_a_few_bad_records_are_no_flood() -> None:
    cap = DeadLetterCap(max_share=0.5, window=1_000, min_records=200)

    cap.check(199, 199)


def test_more_than_the_share_stops() -> None:
    cap = DeadLetterCap(max_share=0.5, window=1_000, min_records=200)
    cap.check(1_000, 500)

    with pytest.raises(DeadLetterFlood):
        cap.check(100, 100)


def test_only_the_newest_records_count() -> None:
    cap = DeadLetterCap(max_share=0.5, window=100, min_records=10)
    for _ in range(50):
        cap.check(20, 0)
    cap.check(50, 50)

    with pytest.raises(DeadLetterFlood):
        cap.check(20, 20)


def test_old_trouble_is_forgotten() -> None:
    cap = DeadLetterCap(max_share=0.5, window=100, min_records=10)
    cap.check(100, 50)
    for _ in range(10):
        cap.check(20, 0)

    cap.check(20, 20)
