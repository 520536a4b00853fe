import jax
import pytest

from transformer_jax import types
from transformer_jax.parallel import mesh


def test_minus_one_takes_the_devices_that_are_left():
    made = mesh.make({"data": -1, "fsdp": 2})
    assert dict(made.shape) == {"replica": 1, "data": 4, "fsdp": 2, "tensor": 1, "sequence": 1}
    assert mesh.make({"data": -1}, jax.devices()[:1]).size == 1


@pytest.mark.parametrize(
    "shape, message",
    [
        ({"data": 3}, "make up the 8 devices there are: data 3 makes 3"),
        (
            {"data": -1, "fsdp": 3},
            "fsdp 3 makes 3. Set one axis to -1, or choose sizes whose product is one of 1, 2, 4, 8",
        ),
        ({"data": -1, "fsdp": -1}, "One mesh axis at most may be -1: data and fsdp are"),
        ({"dta": 8}, "not 'dta'. Did you mean 'data'"),
        ({"data": 0}, "at least 1, or -1 for what is left: data has 0"),
        ({"data": 4}, "data 4 makes 4"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_a_clear_error(shape, message):
    with pytest.raises(types.InputError, match=message):
        mesh.make(shape)
