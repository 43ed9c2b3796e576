"""Whether all numbers of a tensor are finite."""

import pytest
import torch

from gpt2lab.model.finite import all_finite

TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_not_finite_is_found_wherever_it_is(dtype: torch.dtype, bad: float) -> None:
    for place in (0, 17, 1000, 4095):
        tensor = torch.full((64, 64), torch.finfo(dtype).max, dtype=dtype)
        tensor[:, ::2] *= -1
        assert all_finite(tensor), "the largest numbers are finite, their sum need not be"
        tensor.view(-1)[place] = bad
        assert not all_finite(tensor)
        assert not all_finite(tensor.T)


def test_nothing_a_scalar_and_a_parameter_are_tensors_too() -> None:
    assert all_finite(torch.empty(0, 3))
    assert all_finite(torch.tensor(1.0))
    assert not all_finite(torch.tensor(float("nan")))
    assert all_finite(torch.nn.Parameter(torch.ones(3)))
