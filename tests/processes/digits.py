"""The experiment of the tests of several processes: seconds long, with everything that draws random numbers."""

from tests.experiment import small

PARALLEL = {
    "data": dict(rules="data"),
    "fsdp": dict(rules="fsdp"),
    "tensor": dict(rules="tensor", mesh=dict(data=2, tensor=2)),
}
TOTAL, EVERY = 12, 2


def get_config(parallel="data"):
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
    return config
