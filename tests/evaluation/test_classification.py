"""Exactly N examples, the same numbers for any batch size and device count (promise 12)."""

import jax
import numpy as np
import pytest
import scipy.special

from transformer_jax import types
from transformer_jax.evaluation import classification

from . import fakes

N, CLASSES = 101, 7


def _data(classes=CLASSES, n=N):
    rng = np.random.default_rng(0)
    label = rng.integers(classes, size=n).astype(np.int32)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), label] += 1.0
    return logits, label


def _evaluator(batch_size=16, devices=1, data=None, **kwargs):
    split = fakes.Split(*(data or _data()), batch_size)
    return classification.Classification("val", split, fakes.predict, fakes.put(devices), **kwargs)


def test_the_numbers_are_numpys():
    logits, label = _data()
    metrics = _evaluator()(fakes.FACTOR)
    order = np.argsort(-logits, axis=1)
    loss = scipy.special.logsumexp(logits.astype(np.float64), axis=1) - logits[np.arange(N), label]
    assert metrics["examples"] == N
    assert metrics["top1"] == (order[:, 0] == label).mean()
    assert metrics["top5"] == (order[:, :5] == label[:, None]).any(axis=1).mean()
    assert metrics["loss"] == pytest.approx(loss.mean(), abs=3e-7)


def test_batch_size_and_devices_change_no_bit():
    cases = [(16, 1), (32, 2), (8, 8)]
    found = [_evaluator(batch, devices)(fakes.FACTOR) for batch, devices in cases]
    assert all(metrics == found[0] for metrics in found)


def test_sums_over_many_batches_stay_exact():
    logits, label = np.zeros((6000, 2), np.float32), np.zeros(6000, np.int32)
    logits[:, 1] = np.linspace(0, 30, 6000)
    expected = np.mean(np.logaddexp(0, logits[:, 1].astype(np.float64)))
    metrics = _evaluator(1000, data=(logits, label))(fakes.FACTOR)
    assert metrics["loss"] == pytest.approx(expected, rel=1e-7)
    assert "top5" not in metrics


def test_the_sigmoid_loss_is_summed_over_classes():
    logits, label = _data()
    wanted = np.logaddexp(0, np.where(np.arange(CLASSES) == label[:, None], -logits, logits)).sum(axis=1).mean()
    assert _evaluator(loss="sigmoid")(fakes.FACTOR)["loss"] == pytest.approx(wanted, rel=1e-6)


def test_outputs_that_are_not_finite_are_neither_right_nor_hidden():
    logits, label = _data()
    logits[3] = np.nan
    metrics = _evaluator(data=(logits, label))(fakes.FACTOR)
    assert np.isnan(metrics["loss"])
    others = np.arange(N) != 3
    assert metrics["top1"] == (logits[others].argmax(axis=1) == label[others]).sum() / N


def test_nothing_is_read_before_the_end_and_nothing_moves_unasked(monkeypatch):
    evaluator = _evaluator(8, devices=8)
    factor = jax.device_put(fakes.FACTOR, fakes.sharding(8))
    reads = []
    monkeypatch.setattr(
        jax, "device_get", lambda x, get=jax.device_get: reads.append(evaluator.pipeline.started) or get(x)
    )
    with jax.transfer_guard("disallow"):
        evaluator(factor)
    assert reads == [13]


def test_one_program_serves_every_batch():
    before = classification._tally._cache_size()
    _evaluator(16, data=_data(3))(fakes.FACTOR)
    assert classification._tally._cache_size() == before + 1


def test_it_stops_between_batches():
    evaluator = _evaluator()
    assert evaluator(fakes.FACTOR, stop=lambda: evaluator.pipeline.started >= 3) == {}
    assert evaluator.pipeline.started == 3


def test_no_examples_are_an_error():
    with pytest.raises(types.InputError, match="needs examples: the split of 'val' has none. Check config.evals.val"):
        _evaluator(data=(np.zeros((0, 3), np.float32), np.zeros(0, np.int32)))


def test_a_pipeline_that_drops_examples_is_caught():
    evaluator = _evaluator()
    evaluator.pipeline = _Lossy(*_data(), 16)
    with pytest.raises(RuntimeError, match="val counted 96 of 101 examples, 0 skipped"):
        evaluator(fakes.FACTOR)


@pytest.mark.parametrize(("skipped", "found"), [(1, 1), (N, 0)])
def test_skipped_images_are_not_examples(skipped, found):
    evaluator = _evaluator()
    evaluator.pipeline = split = _Skipping(*_data(), 16)
    split.skipped = skipped
    if not found:
        with pytest.raises(types.InputError, match="all 101 of 'val' are bad images"):
            evaluator(fakes.FACTOR)
    else:
        assert evaluator(fakes.FACTOR)["examples"] == N - skipped


class _Skipping(fakes.Split):
    def __iter__(self):
        rows = 0
        for batch in super().__iter__():
            bad = np.arange(rows, rows + self.batch_size) < self.skipped
            rows += self.batch_size
            yield {**batch, "mask": batch["mask"] & ~bad}


class _Lossy(fakes.Split):
    def __iter__(self):
        return (batch for batch in super().__iter__() if batch["mask"].all())


@pytest.mark.parametrize(("batch_size", "devices", "loss"), [(8, 8, "softmax"), (16, 1, "sigmoid")])
def test_predictions_are_one_row_an_example_in_order_from_the_same_pass(batch_size, devices, loss):
    logits, label = _data()
    kept = []
    evaluator = _evaluator(batch_size, devices, loss=loss, keep=kept.append)
    assert evaluator(fakes.FACTOR) == _evaluator(loss=loss)(fakes.FACTOR)
    assert evaluator.pipeline.started == -(-N // batch_size)
    (found,) = kept
    np.testing.assert_array_equal(found["index"], np.arange(N))
    np.testing.assert_array_equal(found["predicted"], logits.argmax(axis=1))
    np.testing.assert_array_equal(found["label"], label)
    wide = logits.astype(np.float64)
    probability = scipy.special.softmax(wide, axis=1) if loss == "softmax" else scipy.special.expit(wide)
    np.testing.assert_allclose(found["probability"], probability.max(axis=1), rtol=1e-5)
    one_hot = np.eye(CLASSES)[label]
    each = -np.log(probability) * one_hot
    each = each.sum(axis=1) if loss == "softmax" else (each - np.log1p(-probability) * (1 - one_hot)).sum(axis=1)
    np.testing.assert_allclose(found["loss"], each, rtol=1e-5, atol=1e-6)
    assert found["loss"].dtype == found["probability"].dtype == np.float32


def test_predictions_of_bad_images_and_of_a_stopped_pass_are_not_kept():
    kept = []
    evaluator = _evaluator(keep=kept.append)
    assert evaluator(fakes.FACTOR, stop=lambda: evaluator.pipeline.started >= 3) == {} and not kept
    evaluator.pipeline = split = _Skipping(*_data(), 16)
    split.skipped = 3
    evaluator(fakes.FACTOR)
    np.testing.assert_array_equal(kept[0]["index"], np.arange(3, N))


def test_a_prediction_that_is_no_number_is_none():
    logits, label = _data()
    logits[3], kept = np.nan, []
    metrics = _evaluator(data=(logits, label), keep=kept.append)(fakes.FACTOR)
    assert kept[0]["predicted"][3] == -1
    assert metrics["top1"] == (kept[0]["predicted"] == kept[0]["label"]).mean()


def test_a_subset_of_the_classes_is_judged_among_itself():
    """As ImageNet-R is judged: the logits of the other classes might as well not be there."""
    logits, label = _data()
    columns, kept = np.array([6, 0, 3, 1, 5]), []
    some = np.isin(label, columns)
    own = np.argmax(label[some, None] == columns, axis=1).astype(np.int32)
    evaluator = _evaluator(data=(logits[some], own), columns=columns, keep=kept.append)
    with jax.transfer_guard("disallow"), jax.transfer_guard_device_to_host("allow"):
        found = evaluator(jax.device_put(fakes.FACTOR, fakes.sharding(1)))
    assert found == _evaluator(data=(logits[some][:, columns], own))(fakes.FACTOR)
    np.testing.assert_array_equal(columns[kept[0]["predicted"]], columns[logits[some][:, columns].argmax(axis=1)])
    assert found["examples"] == some.sum() < N and found["top5"] == 1.0


def test_large_losses_are_summed_beyond_32_bits():
    logits = np.full((64, 3), -1e6, np.float32)
    logits[:, 0] = 0.0
    label = np.ones(64, np.int32)
    tally = classification._tally(logits, label, np.ones(64, bool), loss="softmax")
    for _ in range(12):  # 64 * 2**12 examples
        tally = classification._merge(tally, tally)
    assert classification._exact(np.asarray(tally["loss"]), int(tally["bad"])) == 64 * 2**12 * 1e6
    tiny = np.full((4, 3), 0.0, np.float32)
    tiny[:, 1] = 100.0  # nothing is lost on these
    nothing = classification._tally(tiny, label[:4], np.ones(4, bool), loss="softmax")
    assert classification._exact(np.asarray(nothing["loss"]), int(nothing["bad"])) == 0.0
    beyond = classification._tally(logits * 100, label, np.ones(64, bool), loss="softmax")
    assert np.isnan(classification._exact(np.asarray(beyond["loss"]), int(beyond["bad"])))
