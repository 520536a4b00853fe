"""Rows come in the order of the split, whichever process read an example and however the mesh deals them out."""

import jax.numpy as jnp
import numpy as np

from transformer_jax.evaluation import outputs

from . import fakes


def test_a_batch_says_where_its_examples_stand():
    split = fakes.Split(np.zeros((10, 1), np.float32), np.zeros(10, np.int32), 4)
    split.process = (1, 3)  # the second run of four of each batch of twelve
    found = [batch[outputs.POSITION] for batch, _ in outputs.run(fakes.predict, fakes.FACTOR, split, fakes.put(1))]
    assert np.concatenate(found).tolist() == [4, 5, 6, 7, 16, 17, 18, 19, 28, 29, 30, 31]


def test_rows_are_put_in_the_order_of_the_split_without_the_padding():
    position = np.random.default_rng(0).permutation(24).astype(np.int32)
    rows = outputs.Rows()
    for at in position.reshape(3, 8):
        arrays = {"twice": jnp.asarray(2 * at), "row": jnp.asarray(np.stack([at, at + 1], axis=1))}
        rows.add({outputs.POSITION: jnp.asarray(at), "mask": jnp.asarray(at < 21)}, arrays)
    index, found = rows.done()
    np.testing.assert_array_equal(index, np.arange(21))
    np.testing.assert_array_equal(found["twice"], 2 * np.arange(21))
    np.testing.assert_array_equal(found["row"][:, 1], np.arange(21) + 1)


def test_the_model_is_given_its_inputs_only():
    """A label of another form, or a mask, must not compile it again."""
    split, seen = fakes.Split(np.ones((4, 1), np.float32), np.zeros(4, np.int32), 4), []
    for batch, _ in outputs.run(lambda _, batch: seen.append(set(batch)), None, split, fakes.put(1)):
        assert {"label", "mask", outputs.POSITION} < set(batch)
    assert seen == [{"image"}]
