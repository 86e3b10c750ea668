"""The schema and example files say what the code says."""

from __future__ import annotations

import json

import jsonschema
import msgspec
import pytest

from centinela import schemas
from centinela.events import Event, TransactionReceived, encode

TYPES = pytest.mark.parametrize("event_type", schemas.event_types(), ids=lambda t: t.__name__)


@TYPES
def test_the_schema_file_is_the_one_that_the_code_generates(event_type: type) -> None:
    assert (schemas.FOLDER / schemas.file_name(event_type)).read_text() == schemas.render(event_type), (
        "run: python -m centinela.schemas"
    )


@TYPES
def test_the_example_decodes_and_encodes_back_to_the_same_content(event_type: type) -> None:
    example = schemas.example(event_type)
    event: Event = msgspec.json.decode(example, type=event_type)
    assert msgspec.json.decode(encode(event), type=event_type) == event
    assert json.loads(encode(event)).items() <= json.loads(example).items()


@TYPES
def test_example_and_encoded_event_satisfy_the_schema_and_an_empty_object_does_not(event_type: type) -> None:
    validator = jsonschema.Draft202012Validator(schemas.schema(event_type))
    example = json.loads(schemas.example(event_type))
    validator.validate(example)
    validator.validate(json.loads(encode(msgspec.json.decode(schemas.example(event_type), type=event_type))))
    assert not validator.is_valid({})


def test_the_verdict_in_a_transaction_keeps_its_published_name() -> None:
    published = schemas.schema(TransactionReceived)["$defs"]
    assert published["TransactionReceived"]["properties"]["verdict"]["anyOf"][0] == {"$ref": "#/$defs/Verdict"}
    assert published["Verdict"]["title"] == "Verdict"


def test_every_schema_file_belongs_to_an_event() -> None:
    expected = {schemas.file_name(t) for t in schemas.event_types()}
    assert {p.name for p in schemas.FOLDER.glob("*.json")} == expected
    assert {p.name for p in (schemas.FOLDER / "examples").glob("*.json")} == expected
