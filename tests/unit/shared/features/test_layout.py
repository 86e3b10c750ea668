"""The layout of feature vectors: names, ids and bytes."""

from __future__ import annotations

import numpy as np
import pytest

from centinela.features.layout import BASE_FEATURES, FeatureLayout, pack_rows, unpack_rows


def test_base_features_come_first_and_attributes_follow_in_their_order() -> None:
    layout = FeatureLayout(("v2", "v1"))

    assert layout.names == (*BASE_FEATURES, "v2", "v1")
    assert len(BASE_FEATURES) == 17


@pytest.mark.parametrize("attributes", [(), ("v1",), ("v1", "v2", "device_age")])
def test_an_id_names_its_layout(attributes: tuple[str, ...]) -> None:
    layout = FeatureLayout(attributes)

    assert FeatureLayout.parse(layout.id) == layout
    assert layout.id == "v1:" + ",".join(attributes)


@pytest.mark.parametrize("text", ["", "v1", "v2:v1", "v1:v1,v1", "v1:amount", "v1:,"])
def test_what_is_no_layout_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"feature set|attribute"):
        FeatureLayout.parse(text)


def test_packed_rows_come_back_bit_for_bit() -> None:
    matrix = np.array([[0.1, np.nan, -0.0], [1e300, np.inf, 2.0]])

    rows = pack_rows(matrix)

    assert [len(row) for row in rows] == [24, 24]
    assert unpack_rows(rows, 3).tobytes() == matrix.tobytes()
    assert rows[0][:8] == np.float64(0.1).tobytes()


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes does not contain 3"):
        unpack_rows([b"\0" * 16], 3)


def test_no_rows_make_an_empty_matrix() -> None:
    assert unpack_rows([], 3).shape == (0, 3)
    assert pack_rows(np.empty((0, 3))) == []
