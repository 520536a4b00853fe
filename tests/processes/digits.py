"""The experiment of the tests of several processes: seconds long, with everything that draws random numbers."""

from tests.experiment import small

PARALLEL = {
    "data": dict(rules="data"),
    "fsdp": dict(rules="fsdp"),
    "tensor": dict(rules="tensor", mesh=dict(data=2, tensor=2)),
}
TOTAL, EVERY = 12, 2


def get_config(parallel="data", kinds="one"):
    """`small`'s dropout, augmentation, mixup and average; labels are rows, so that one can be NaN.

    Plain gradient descent, since Adam makes as much of a gradient that is zero but for rounding as of any other.
    """
    config = small.get_config()
    config.data.preprocess = "shift(1) | value_range(-1, 1) | onehot(10)"
    config.optim = dict(name="sgd", momentum=0.9)
    config.schedule = dict(name="cosine", base=0.1, warmup=2)
    config.train.total = TOTAL
    config.checkpoint = dict(every=EVERY)
    config.parallel = PARALLEL[parallel]
    config.evals.val.update(dict(batch_size=72, every=4))
    return every_kind(config) if kinds == "every" else config


def every_kind(config):
    """The experiment with an evaluator of every kind, on a split that fills its last batch to less than half."""
    val = dict(source="digits", preprocess="value_range(-1, 1)", batch_size=72, predictions=True)
    splits = dict(train_split="train", test_split="validation")
    config.evals = dict(
        val=dict(val, split="validation"),
        real=dict(val, kind="multilabel", split="validation", preprocess="value_range(-1, 1) | multihot(10)"),
        near=dict(val, kind="knn", k=(5,), **splits),
        few=dict(val, kind="fewshot", shots=(5,), seeds=2, **splits),
        probe=dict(val, kind="probe", l2=(1.0,), **splits),
    )
    return config
