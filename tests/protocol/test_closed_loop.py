import json

import pytest

from transformer_jax import experiment, types
from transformer_jax.protocol import closed_loop
from transformer_jax.training import failures, preemption

TARGET = closed_loop.Target(
    finetune={
        "name": "ft",
        "init_from": None,
        "seed": 9,
        "schedule": {"base": 0},
        "data": {"split": "x"},
        "evals": {"eval": {"split": "y"}},
    },
    finetune_grid=(0.1, 0.2, 0.3),
    scratch={},
    scratch_grid=(),
    train="train[:80]",
    dev="validation[:20]",
    final="train[:80]+validation[:20]",
)


def runner_in(folder, pretrain=None, stop=None):
    return closed_loop._Runner(
        folder, "target", TARGET, pretrain or {"steps": 1}, experiment.Shared(), stop or preemption.Stop()
    )


@pytest.fixture
def trained(monkeypatch):
    """Every call of `experiment.train`. Development accuracy peaks at 0.2, test accuracy grows with the seed."""
    calls = []

    def train(settings, folder, **_):
        calls.append(settings)
        base, split = settings["schedule"]["base"], settings["evals"]["eval"]["split"]
        accuracy = {0.1: 0.5, 0.2: 0.9, 0.3: 0.9}[base] if split.startswith("val") else 0.8 + settings["seed"] / 100
        return {"eval/top1": accuracy, "eval/loss": base}

    monkeypatch.setattr(closed_loop.experiment, "train", train)
    return calls


def test_the_rate_is_picked_on_dev_and_retrained_on_the_full_split_with_seeds(trained, tmp_path):
    runner = runner_in(tmp_path)
    result = runner.method("finetune", TARGET.finetune, TARGET.finetune_grid, seeds=3)
    assert result["lr"] == 0.2  # 0.2 and 0.3 are equally right on dev; 0.2 has the lower loss
    assert result["runs"] == pytest.approx([0.80, 0.81, 0.82])
    assert result["mean"] == pytest.approx(0.81) and result["std"] == pytest.approx(0.01)
    tuning, final = trained[:3], trained[3:]
    assert {c["data"]["split"] for c in tuning} == {TARGET.train} and {c["seed"] for c in tuning} == {0}
    assert {c["data"]["split"] for c in final} == {TARGET.final} and [c["seed"] for c in final] == [0, 1, 2]
    assert {c["evals"]["eval"]["split"] for c in final} == {"test"}


def test_the_test_split_is_read_only_after_the_rate_is_picked(trained, tmp_path):
    runner = runner_in(tmp_path)
    runner.method("finetune", TARGET.finetune, TARGET.finetune_grid, seeds=2)
    judged = [c["evals"]["eval"]["split"] for c in trained]
    assert judged == ["validation[:20]"] * 3 + ["test"] * 2


def test_a_finished_run_is_not_run_again(trained, tmp_path):
    for _ in range(2):
        runner_in(tmp_path).method("finetune", TARGET.finetune, (0.1,), seeds=1)
    assert len(trained) == 2


def test_another_pretraining_makes_the_fine_tuning_stale_and_a_moved_folder_does_not(trained, tmp_path):
    runner_in(tmp_path / "a").method("finetune", TARGET.finetune, (0.1,), seeds=1)
    (tmp_path / "a").rename(tmp_path / "b")
    runner_in(tmp_path / "b").method("finetune", TARGET.finetune, (0.1,), seeds=1)
    assert len(trained) == 2
    with pytest.raises(types.InputError, match="pretrain.steps: 1 -> 2"):
        runner_in(tmp_path / "b", {"steps": 2}).method("finetune", TARGET.finetune, (0.1,), seeds=1)


def test_asked_to_stop_the_next_run_is_not_begun(trained, tmp_path):
    stop = preemption.Stop()
    stop.request()
    with pytest.raises(preemption.Preempted):
        runner_in(tmp_path, stop=stop).method("finetune", TARGET.finetune, (0.1,), seeds=1)
    assert not trained


def test_a_run_interrupted_before_its_outcome_is_run_again(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        closed_loop.once(tmp_path / "run", {"a": 1}, interrupted)
    assert closed_loop.once(tmp_path / "run", {"a": 1}, lambda: {"top1": 1.0}) == {"top1": 1.0}


def test_a_finished_run_of_other_settings_is_refused(tmp_path):
    closed_loop.once(tmp_path, {"train": {"total": 10}}, lambda: {"top1": 1.0})
    with pytest.raises(types.InputError, match=r"train.total: 10 -> 20.*another --workdir"):
        closed_loop.once(tmp_path, {"train": {"total": 20}}, lambda: {"top1": 1.0})


def test_the_table_shows_mean_spread_and_rate():
    results = {
        "digits_50": {
            "finetune": {"mean": 0.9, "std": 0.011, "runs": [0.89, 0.91], "lr": 0.03},
            "scratch": {"mean": 0.6, "std": 0.0, "runs": [0.6], "lr": 0.001},
            "probe": {"mean": 0.7, "std": 0.0, "runs": [0.7], "lr": None},
        }
    }
    assert closed_loop.table(results).splitlines()[2] == "| digits_50 | 90.0 ± 1.1 (lr 0.03) | 60.0 (lr 0.001) | 70.0 |"
    json.dumps(results)


def test_a_rate_at_which_training_diverges_is_passed_over_and_told(trained, tmp_path, monkeypatch):
    train = closed_loop.experiment.train

    def diverging(settings, folder, **options):
        if settings["schedule"]["base"] == 0.3:
            raise failures.Diverged("not finite")
        return train(settings, folder, **options)

    monkeypatch.setattr(closed_loop.experiment, "train", diverging)
    for _ in range(2):
        runner = runner_in(tmp_path)
        assert runner.method("finetune", TARGET.finetune, TARGET.finetune_grid, seeds=1)["lr"] == 0.2
        assert runner.notes == ["target, finetune: training diverged at the rate 0.3."]
    with pytest.raises(types.InputError, match=r"One learning rate.*target, scratch diverged at each of \[0.3\]"):
        runner.method("scratch", TARGET.finetune, (0.3,), seeds=1)


def test_a_best_rate_at_the_end_of_its_grid_is_told(trained, tmp_path):
    runner = runner_in(tmp_path)
    runner.method("finetune", TARGET.finetune, (0.1, 0.2), seeds=1)
    assert runner.notes == ["target, finetune: the best rate, 0.2, is the highest of its grid."]
