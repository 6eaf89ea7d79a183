from __future__ import annotations

import numpy as np
import pytest

from napari_medsam.document.overlap import Policy, paste

REGION = np.array([[0, 1, 2, 3]], np.uint16)
ALL = np.ones((1, 4), bool)


@pytest.mark.parametrize(
    ("policy", "protected", "expected"),
    [
        ("later", (), [1, 1, 1, 1]),
        ("later", (2,), [1, 1, 1, 1]),
        ("never", (), [1, 0, 0, 1]),
        ("corrected", (), [1, 1, 1, 1]),
        ("corrected", (2, 9), [1, 1, 0, 1]),
        ("corrected", {1, 3}, [1, 0, 1, 1]),
    ],
)
def test_policies(policy: Policy, protected: tuple[int, ...], expected: list[int]) -> None:
    taken = paste(REGION, ALL, 3, policy, protected)
    assert taken.dtype == bool
    assert taken[0].astype(int).tolist() == expected


@pytest.mark.parametrize("policy", ["later", "never", "corrected"])
def test_never_beyond_the_mask_and_nothing_is_written(policy: Policy) -> None:
    region, mask = REGION.copy(), np.array([[True, False, False, False]])
    taken = paste(region, mask, 5, policy, (2,))
    np.testing.assert_array_equal(taken, mask)
    taken[:] = False
    assert mask.any()
    np.testing.assert_array_equal(region, REGION)


def test_refuses_other_shapes_and_policies() -> None:
    with pytest.raises(ValueError, match="shape"):
        paste(REGION, np.ones((2, 4), bool), 1, "later")
    with pytest.raises(ValueError, match="policy"):
        paste(REGION, ALL, 1, "sometimes")  # type: ignore[arg-type]
