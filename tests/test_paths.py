import numpy as np
import pytest

from transformer_jax import paths, types


def test_unflatten_inverts_flatten():
    tree = {"b": {"x": 1, "y": {"z": 2}}, "a": 3}
    assert paths.flatten(tree) == {"a": 3, "b/x": 1, "b/y/z": 2}
    assert paths.unflatten(paths.flatten(tree)) == tree


def test_a_leaf_may_not_be_a_folder():
    with pytest.raises(types.InputError, match="'a/b' continues"):
        paths.unflatten({"a": 1, "a/b": 2})


def test_a_pattern_that_matches_nothing_is_an_error_with_a_hint():
    with pytest.raises(types.InputError, match="'head/kernl' matches none of 2. Did you mean 'head/kernel'"):
        paths.select(["head/kernl"], ["head/kernel", "head/bias"])


def test_stack_inverts_unstack_anywhere_in_a_path():
    leaves = np.arange(6.0).reshape(3, 2)
    stacked = {"optimizer/mu/blocks/mlp/kernel": leaves, "blocks/norm/scale": leaves + 1, "head/kernel": leaves}
    plain = paths.unstack(stacked, {"blocks": 3})
    assert sorted(plain)[:2] == ["blocks/0/norm/scale", "blocks/1/norm/scale"]
    np.testing.assert_array_equal(plain["optimizer/mu/blocks/2/mlp/kernel"], leaves[2])
    back = paths.stack(plain, {"blocks": 3}, np.stack)
    assert sorted(back) == sorted(stacked)
    for path in stacked:
        np.testing.assert_array_equal(back[path], stacked[path])


def test_a_missing_layer_is_named():
    with pytest.raises(types.InputError, match=r"needs layers 0 to 2: 'blocks/scale' has \[0, 2\]"):
        paths.stack({"blocks/0/scale": 1, "blocks/2/scale": 1}, {"blocks": 3}, list)
