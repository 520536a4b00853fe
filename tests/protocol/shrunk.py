"""A protocol of seconds, made of one at its own size: `get_config(FILE)` is an experiment file itself."""

from transformer_jax import config


def shrink(raw):
    """One target, models of one layer, two steps a run, two learning rates, another evaluator, a group."""
    first = sorted(raw.targets)[0]
    raw.targets = {first: raw.targets[first]}
    small = {"depth": 1, "width": 16, "heads": 2, "mlp_dim": 32}
    for section in (raw.pretrain, raw.targets[first].finetune, raw.targets[first].scratch):
        section.model.update(small)
        section.train.total = 2
        section.data.batch_size = 8
        section.schedule.warmup = "50%"
    raw.pretrain.checkpoint = {}
    raw.pretrain.evals = {}
    raw.targets[first].finetune_grid = raw.targets[first].scratch_grid = (1e-3, 2e-3)
    raw.evals.fewshot.shots = (1, 2)
    judge = raw.targets[first].finetune.evals.eval
    raw.targets[first].finetune.evals.again = dict(judge.to_dict(), split="validation")
    raw.groups = {"one": (first,)}
    raw.seeds = 2
    return raw


def get_config(file):
    return shrink(config.load(file))
