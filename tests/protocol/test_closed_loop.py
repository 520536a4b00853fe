import dataclasses
import json

import pytest
import scipy.stats

from tests.experiment import small
from transformer_jax import experiment, types
from transformer_jax.protocol import closed_loop, page, plan, runner
from transformer_jax.training import failures, preemption


def resolved(**changes):
    """A real experiment with the evaluator of a target; nothing of it is run here."""
    raw = small.get_config()
    raw.evals = dict(eval=raw.evals.val)
    raw.init_from = dict(path="w", position="half_pixel")
    return experiment.resolve(raw, {key.replace("__", "."): value for key, value in changes.items()})


TARGET = plan.Target(
    finetune=resolved(),
    finetune_grid=(0.1, 0.2, 0.3),
    train="train[:80]",
    dev="validation[:20]",
    final="train[:80]+validation[:20]",
)


def runner_in(folder, pretrain=None, stop=None, target=TARGET):
    return runner.Runner(
        folder,
        "target",
        target,
        weights=str(folder / "pretrain"),
        origin=pretrain or resolved(train__total="1"),
        shared=experiment.Shared(),
        stop=stop or preemption.Stop(),
    )


@pytest.fixture
def trained(monkeypatch):
    """Every call of `experiment.train`. Development accuracy peaks at 0.2, test accuracy grows with the seed."""
    calls = []

    def train(settings, folder, **_):
        calls.append(settings)
        base, split = settings["schedule"]["base"], settings["evals"]["eval"]["split"]
        accuracy = {0.1: 0.5, 0.2: 0.9, 0.3: 0.9}[base] if split.startswith("val") else 0.8 + settings["seed"] / 100
        return {
            "eval/top1": accuracy,
            "eval/loss": base,
            "eval/examples": 200.0,
            "v2/top1": 1 - base,
            "train/loss": 2.0,
        }

    monkeypatch.setattr(runner.experiment, "train", train)
    return calls


def test_the_rate_is_picked_on_dev_and_retrained_on_the_full_split_with_seeds(trained, tmp_path):
    runs = runner_in(tmp_path)
    result = runs.method("finetune", TARGET.finetune, TARGET.finetune_grid, seeds=3)
    assert result["choice"] == {"schedule.base": 0.2}  # 0.2 and 0.3 are equally right on dev; 0.2 has the lower loss
    assert result["runs"] == pytest.approx([0.80, 0.81, 0.82])
    assert result["mean"] == pytest.approx(0.81) and result["std"] == pytest.approx(0.01)
    tuning, final = trained[:3], trained[3:]
    assert {c["data"]["split"] for c in tuning} == {TARGET.train} and {c["seed"] for c in tuning} == {0}
    assert {c["data"]["split"] for c in final} == {TARGET.final} and [c["seed"] for c in final] == [0, 1, 2]
    assert {c["evals"]["eval"]["split"] for c in final} == {"test"}


def test_the_test_split_is_read_only_after_the_rate_is_picked(trained, tmp_path):
    runs = runner_in(tmp_path)
    runs.method("finetune", TARGET.finetune, TARGET.finetune_grid, seeds=2)
    judged = [c["evals"]["eval"]["split"] for c in trained]
    assert judged == ["validation[:20]"] * 3 + ["test"] * 2


def test_tuning_runs_are_judged_by_what_picks_and_by_nothing_else(trained, tmp_path):
    judge = TARGET.finetune["evals"]["eval"]
    evals = {name: judge for name in ("eval", "real", "v2")}
    for select, wanted in (("eval/top1", {"eval"}), ("v2/top1", {"eval", "v2"})):
        target = dataclasses.replace(TARGET, select=select)
        settings = dict(TARGET.finetune, evals=evals)
        runner_in(tmp_path / select, target=target).method("finetune", settings, (0.1, 0.2), seeds=1)
        assert [set(c["evals"]) for c in trained] == [wanted, wanted, set(evals)]
        trained.clear()


def test_a_finished_run_is_not_run_again(trained, tmp_path):
    for _ in range(2):
        runner_in(tmp_path).method("finetune", TARGET.finetune, (0.1, 0.2), seeds=1)
    assert len(trained) == 3


def test_another_pretraining_makes_the_fine_tuning_stale_and_a_moved_folder_does_not(trained, tmp_path):
    runner_in(tmp_path / "a").method("finetune", TARGET.finetune, (0.1,), seeds=1)
    (tmp_path / "a").rename(tmp_path / "b")
    runner_in(tmp_path / "b").method("finetune", TARGET.finetune, (0.1,), seeds=1)
    assert len(trained) == 1
    with pytest.raises(types.InputError, match="pretrain.train.total: 1 -> 2"):
        runner_in(tmp_path / "b", resolved(train__total="2")).method("finetune", TARGET.finetune, (0.1,), seeds=1)


def test_asked_to_stop_the_next_run_is_not_begun(trained, tmp_path):
    stop = preemption.Stop()
    stop.request()
    with pytest.raises(preemption.Preempted):
        runner_in(tmp_path, stop=stop).method("finetune", TARGET.finetune, (0.1,), seeds=1)
    assert not trained


def test_what_does_not_change_the_numbers_may_differ_and_new_settings_had_their_defaults(trained, tmp_path):
    runner_in(tmp_path).method("finetune", TARGET.finetune, (0.1,), seeds=1)
    file = tmp_path / "target" / "finetune" / "seed_0" / "outcome.json"
    outcome = json.loads(file.read_text())
    del outcome["settings"]["experiment"]["train"]["mix_switch"]  # a setting that is newer than this run
    file.write_text(json.dumps(outcome))
    elsewhere = resolved(data__threads="4", parallel__rules="fsdp", model__remat="full", evals__eval__data_dir="/data")
    runner_in(tmp_path).method("finetune", elsewhere, (0.1,), seeds=1)
    assert len(trained) == 1
    with pytest.raises(types.InputError, match="experiment.evals.eval.preprocess: "):
        judged = resolved(evals__eval__preprocess="value_range(0, 1)")
        runner_in(tmp_path).method("finetune", judged, (0.1,), seeds=1)


def test_a_grid_may_say_how_weights_are_taken(trained, tmp_path):
    grid = [{"schedule.base": 0.1, "init_from.position": how} for how in ("half_pixel", "align_corners")]
    runner_in(tmp_path).method("finetune", TARGET.finetune, grid, seeds=1)
    begun = [call["init_from"] for call in trained[:2]]
    assert [section["position"] for section in begun] == ["half_pixel", "align_corners"]
    assert {section["path"] for section in begun} == {str(tmp_path / "pretrain")}


def test_a_run_interrupted_before_its_outcome_is_run_again(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.once(tmp_path / "run", {"a": 1}, interrupted)
    assert runner.once(tmp_path / "run", {"a": 1}, lambda: {"top1": 1.0}) == {"top1": 1.0}


def test_a_finished_run_of_other_settings_is_refused(tmp_path):
    runner.once(tmp_path, {"experiment": resolved(train__total="10")}, lambda: {"top1": 1.0})
    with pytest.raises(types.InputError, match=r"experiment.train.total: 10 -> 20.*another --workdir"):
        runner.once(tmp_path, {"experiment": resolved(train__total="20")}, lambda: {"top1": 1.0})


def test_the_table_shows_mean_spread_choice_and_groups():
    def result(mean, std, runs, choice):
        return {"mean": mean, "std": std, "runs": runs, "low": mean - 0.1, "high": mean + 0.1, "choice": choice}

    results = {
        "targets": {
            "digits_50": {
                "finetune": result(0.9, 0.011, [0.89, 0.91], {"schedule.base": 0.03}),
                "scratch": result(0.6, 0.0, [0.6], {"schedule.base": 0.001, "train.total": 500}),
                "probe": result(0.7, 0.0, [0.7], None),
            }
        },
        "groups": {"all": {"finetune": 0.9}},
        "pretrained": {"knn/20nn": 0.5},
    }
    assert page.table(results).splitlines()[2:] == [
        "| digits_50 | 90.0 ± 1.1 (lr 0.03) | 60.0 (lr 0.001, total 500) | 70.0 |",
        "| mean of all | 90.0 |  |  |",
        "- pretrained weights, knn/20nn: 0.5000",
    ]
    assert page.cell(results["targets"]["digits_50"]["probe"], interval=True) == "70.0 [60.0, 80.0]"
    json.dumps(results)


def test_one_choice_alone_is_taken_without_a_tuning_run(trained, tmp_path):
    result = runner_in(tmp_path).method("finetune", TARGET.finetune, (0.1,), seeds=2)
    assert [c["evals"]["eval"]["split"] for c in trained] == ["test", "test"]
    assert result["choice"] == {"schedule.base": 0.1}


def test_a_grid_of_settings_is_tuned_like_one_of_rates(trained, tmp_path):
    grid = [{"schedule.base": rate, "train.total": total} for rate in (0.1, 0.2) for total in (500, 2500)]
    result = runner_in(tmp_path).method("finetune", TARGET.finetune, grid, seeds=1)
    assert [(c["schedule"]["base"], c["train"]["total"]) for c in trained[:4]] == [
        (0.1, 500),
        (0.1, 2500),
        (0.2, 500),
        (0.2, 2500),
    ]
    assert result["choice"] == {"schedule.base": 0.2, "train.total": 500}
    assert (tmp_path / "target" / "finetune" / "tune" / "lr_0.2_total_2500" / "outcome.json").exists()


def test_another_metric_may_pick(trained, tmp_path):
    by_v2 = dataclasses.replace(TARGET, select="v2/top1")
    result = runner_in(tmp_path, target=by_v2).method("finetune", TARGET.finetune, TARGET.finetune_grid, seeds=1)
    assert result["choice"] == {"schedule.base": 0.1}


def test_a_result_has_the_interval_and_the_other_evaluators(trained, tmp_path):
    result = runner_in(tmp_path).method("finetune", TARGET.finetune, (0.2,), seeds=2)
    low, high = scipy.stats.binom.ppf([0.025, 0.975], 200, result["mean"]) / 200
    assert (result["low"], result["high"]) == pytest.approx((low, high))
    assert result["others"] == {"v2/top1": {"mean": 0.8, "std": 0.0, "runs": [0.8, 0.8]}}


def test_a_group_is_the_mean_of_its_targets_and_all_is_the_mean_of_all_targets():
    targets = {name: {"finetune": {"mean": mean}} for name, mean in (("a", 0.1), ("b", 0.3), ("c", 0.8))}
    found = closed_loop.groups(targets, {"natural": ["a", "b"], "structured": ["c"]})
    assert found["natural"]["finetune"] == pytest.approx(0.2) and found["structured"]["finetune"] == 0.8
    assert found["all"]["finetune"] == pytest.approx(0.4)
    assert closed_loop.groups(targets, {}) == {}
    assert "natural" not in closed_loop.groups({"a": targets["a"]}, {"natural": ["a", "b"]}), "not before all are done"


def test_a_rate_at_which_training_diverges_is_passed_over_and_told(trained, tmp_path, monkeypatch):
    train = runner.experiment.train

    def diverging(settings, folder, **options):
        if settings["schedule"]["base"] == 0.3:
            raise failures.Diverged("not finite")
        return train(settings, folder, **options)

    monkeypatch.setattr(runner.experiment, "train", diverging)
    for _ in range(2):
        runs = runner_in(tmp_path)
        assert runs.method("finetune", TARGET.finetune, TARGET.finetune_grid, seeds=1)["choice"] == {
            "schedule.base": 0.2
        }
        assert runs.notes == ["target, finetune: training diverged with lr 0.3."]
    monkeypatch.setattr(runner.experiment, "train", always_diverging)
    with pytest.raises(
        types.InputError, match=r"One choice of a grid.*target, scratch diverged with each of lr 0.1; lr 0.3"
    ):
        runs.method("scratch", TARGET.finetune, (0.1, 0.3), seeds=1)


def always_diverging(settings, folder, **options):
    raise failures.Diverged("not finite")


def test_a_best_rate_at_the_end_of_its_grid_is_told(trained, tmp_path):
    runs = runner_in(tmp_path)
    runs.method("finetune", TARGET.finetune, (0.1, 0.2), seeds=1)
    assert runs.notes == ["target, finetune: the best rate, 0.2, is the highest of its grid."]


def test_targets_of_one_data_set_are_drawn_over_their_labels(tmp_path):
    found = {"mean": 0.9, "std": 0.0, "runs": [0.9], "low": 0.8, "high": 0.95, "choice": None, "others": {}}
    results = {
        "targets": {"few": {"probe": found}, "many": {"probe": found}},
        "groups": {"all": {"probe": 0.9}},
        "pretrained": {"knn/20nn": 0.123456},
    }
    page.write(tmp_path, "t", results, {"few": 10, "many": 100}, compare_labels=True)
    text = (tmp_path / "report.html").read_text()
    assert (tmp_path / "accuracy.png").stat().st_size > 100
    for cell in ("90.0 [80.0, 95.0]", "0.1235", "linear probe on frozen features"):
        assert f">{cell}<" in text
    (tmp_path / "accuracy.png").unlink()
    page.write(tmp_path, "t", results, {"few": 10, "many": 10}, compare_labels=False)
    assert not (tmp_path / "accuracy.png").exists()
