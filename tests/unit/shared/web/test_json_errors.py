"""msgspec's errors become refusals that name the field."""

from __future__ import annotations

import msgspec
import pytest

from centinela.web.json_errors import DECODE_ERRORS, conversion_refusal, refusal


class Row(msgspec.Struct):
    amount: float
    attributes: dict[str, float | None] = {}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b'[{"amount": "x"}]', 422, "[0].amount"),
        (b"[{}]", 422, "[0].amount"),
        (b"[7]", 422, "[0]"),
        (b"{}", 422, None),
        (b'[{"amount": NaN}]', 422, "[0].amount"),
        (b'[{"amount": 1, "attributes": {"a": 1, "b": -1e999}}]', 422, "[0].attributes.b"),
        (b'[{"amount": 1, "attributes": {"a": 1, "b": "x"}}]', 422, "[0].attributes.b"),
        (b'[{"amount": 1, "attributes": {"a": 1' + b"0" * 400 + b', "b": "x"}}]', 422, "[0].attributes.a"),
        (b'[{"amount": 1}', 400, None),
        (b"NaN", 400, None),
    ],
)
def test_a_body_is_refused_by_its_first_invalid_field(body: bytes, status: int, field: str | None) -> None:
    with pytest.raises(DECODE_ERRORS) as error:
        msgspec.json.decode(body, type=list[Row])
    refused = refusal(error.value, body)
    assert (refused.status, refused.field) == (status, field)


def test_a_value_that_cannot_be_converted_is_named_without_reading_the_body_again() -> None:
    content = msgspec.json.decode(b'{"amount": 1, "attributes": {"a": 1, "b": "x"}, "attributes_b": "x"}')
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.convert(content, Row)
    refused = conversion_refusal(error.value, content)
    assert (refused.status, refused.error, refused.field) == (422, "invalid_field", "attributes.b")
