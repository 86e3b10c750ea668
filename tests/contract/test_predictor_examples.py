"""The predictor reads the published examples of every event that it consumes."""

from __future__ import annotations

from importlib.resources import files

import msgspec
import pytest

from centinela.codec import Decoder, ModelEventDecoder
from centinela.events import ModelPromoted, TransactionReceived, TransactionScored, type_name
from centinela_predictor.gateway.requests import PredictRequest
from centinela_predictor.gateway.verdict_cache import GivenVerdict

EXAMPLES = files("centinela.schemas") / "examples"


def example(name: str) -> bytes:
    return (EXAMPLES / f"{name}.v1.json").read_bytes()


def test_a_transaction_is_what_the_replica_follows_and_what_a_caller_may_post() -> None:
    event = Decoder(TransactionReceived).decode(example("TransactionReceived"))
    request = msgspec.json.decode(example("TransactionReceived"), type=PredictRequest)
    assert request.transaction_id == event.transaction_id
    assert request.attributes == event.attributes


def test_a_verdict_of_predictions_is_one_that_the_gateway_remembers() -> None:
    given = msgspec.json.decode(example("TransactionScored"), type=GivenVerdict)
    whole = Decoder(TransactionScored).decode(example("TransactionScored"))
    for name in set(GivenVerdict.__struct_fields__) - {"attributes", "raw"}:
        assert getattr(given, name) == getattr(whole, name), name
    assert given.attributes is None


@pytest.mark.parametrize("name", ["ModelPromoted", "ModelLoaded", "ModelRejected", "TrainingCompleted"])
def test_every_model_event_decodes_to_its_own_type(name: str) -> None:
    event = ModelEventDecoder().decode(example(name))
    assert type_name(type(event)) == name
    assert isinstance(event, ModelPromoted) == (name == "ModelPromoted")
