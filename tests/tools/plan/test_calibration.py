"""Measured steps in place of estimated ones."""

import json
from types import SimpleNamespace

import jax
import pytest

from transformer_jax import axes, config, experiment, types
from transformer_jax.experiment import sections
from transformer_jax.tools.plan import calibration, chips, compiling, estimate, report, topology

ESTIMATE = estimate.Estimate(0.1, 0.08, 0.15, 0.09, 0.01, 0.05, 9, (), (), 0, 0)


@pytest.fixture(autouse=True)
def own_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFORMER_JAX_CALIBRATION", str(tmp_path / "kept" / "ratios.json"))


@pytest.fixture(scope="module")
def settings():
    return experiment.resolve(config.load("tests/experiment/small.py"), {"model.num_classes": "10"})


def a_run(folder, settings, *, kind="TPU v5 lite", devices=8, processes=1, steps=(200.0,) * 5, waits=0.0):
    """A run directory with what calibration reads of one."""
    folder.mkdir()
    (folder / "config.json").write_text(config.text(settings))
    (folder / "run.json").write_text(json.dumps({"devices": {"kind": kind, "count": devices, "processes": processes}}))
    lines = [{"step": 1, "wall": 0.0, "time/step_ms": 60_000.0, "time/compile_s": 60.0}]
    lines += [{"step": 2 + i, "wall": 0.0, "time/step_ms": ms, "time/data_wait": waits} for i, ms in enumerate(steps)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


class Step(compiling.Compiled):
    """A compiled step, as far as calibration reads it."""

    def __init__(self, settings, kind, devices, where):
        chip, shape, slices = topology.parse(where)
        for name, value in dict(
            settings=sections.settled(settings),
            batch_size=settings["data"]["batch_size"],
            program=SimpleNamespace(mesh=SimpleNamespace(size=devices)),
            topology=topology.Topology(where, chip, shape, slices, ()),
            _kind=kind,
        ).items():
            object.__setattr__(self, name, value)

    @property
    def mesh(self):
        return self.program.mesh

    @property
    def hardware(self):
        return axes.Hardware("tpu", self._kind)


def compiled(settings, *, kind="TPU v5 lite", devices=8, where="v5e:2x4"):
    return Step(settings, kind, devices, where)


def test_the_estimate_becomes_what_the_same_step_took(tmp_path, settings):
    run = a_run(tmp_path / "run", settings, steps=(180.0, 200.0, 200.0, 220.0, 200.0))
    timed = calibration.apply(ESTIMATE, compiled(settings), run)
    assert (timed.step_seconds, timed.low, timed.high) == pytest.approx((0.2, 0.18, 0.22))
    assert timed.source.startswith("measured: 2.00 x the estimate, by ") and run in timed.source


def test_the_first_line_with_its_compile_and_waiting_for_data_do_not_count(tmp_path, settings):
    run = a_run(tmp_path / "run", settings, steps=(400.0,) * 4, waits=0.25)
    assert calibration.measured(run).seconds == pytest.approx(0.3)


def test_the_ratio_of_a_run_scales_later_plans_for_its_chip_and_no_other(tmp_path, settings):
    calibration.apply(ESTIMATE, compiled(settings), a_run(tmp_path / "run", settings))
    larger = estimate.Estimate(1.0, 0.8, 1.5, 0.9, 0.1, 0.5, 90, (), (), 0, 0)
    assert calibration.known(larger, compiled(settings)).step_seconds == pytest.approx(2.0)
    assert calibration.known(larger, compiled(settings, kind="TPU v4")) == larger


def test_a_run_with_another_step_is_compared_with_the_estimate_of_its_own(tmp_path, settings, monkeypatch):
    asked = []

    def compile_step(own, where):
        asked.append((own["data"]["batch_size"], where))
        return "its own step"

    monkeypatch.setattr(calibration.compiling, "compile_step", compile_step)
    half = estimate.Estimate(0.05, 0.04, 0.07, 0.04, 0.01, 0.02, 4, (), (), 0, 0)
    monkeypatch.setattr(calibration.estimate, "of", lambda step: half if step == "its own step" else None)
    run = a_run(tmp_path / "run", settings, devices=16)
    timed = calibration.apply(ESTIMATE, compiled(settings), run)
    assert asked == [(settings["data"]["batch_size"], "v5e:4x4")]
    assert timed.step_seconds == pytest.approx(0.1 * 0.2 / 0.05)


def test_a_run_on_another_chip_is_refused(tmp_path, settings):
    run = a_run(tmp_path / "run", settings, kind="cpu")
    with pytest.raises(types.InputError, match="ran on cpu, the plan is for TPU v5 lite"):
        calibration.apply(ESTIMATE, compiled(settings), run)


def test_too_few_lines_of_steps_are_refused(tmp_path, settings):
    with pytest.raises(types.InputError, match="at least 3 lines .* has 2. Train longer"):
        calibration.measured(a_run(tmp_path / "run", settings, steps=(200.0, 200.0)))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(types.InputError, match="--calibrate must be a run directory of train"):
        calibration.measured(str(tmp_path))


@pytest.mark.parametrize(
    "chip, devices, expected",
    [("v5e", 1, "1x1"), ("v5e", 8, "2x4"), ("v3", 8, "2x2"), ("v5p", 4, "2x2x1"), ("v5p", 64, "4x4x4")],
)
def test_a_run_is_compared_on_the_usual_slice_of_its_size(chip, devices, expected):
    assert calibration.shape(chips.CHIPS[chip], devices) == expected


def test_a_run_on_a_count_that_is_no_slice_is_refused():
    with pytest.raises(types.InputError, match="1, 2, 4, 8, ... chips: it had 6 devices"):
        calibration.shape(chips.CHIPS["v5e"], 6)


def test_no_device_is_asked_for(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda *_: pytest.fail("devices were looked for"))
    calibration.apply(ESTIMATE, compiled(settings), a_run(tmp_path / "run", settings))


def test_a_calibrated_plan_is_labelled_as_measured(tmp_path, settings):
    timed = calibration.apply(ESTIMATE, compiled(settings), a_run(tmp_path / "run", settings))
    how = report._how(compiled(settings), timed)
    assert timed.measured and {how[key] for key in ("step_seconds", "step_seconds_range")} == {"measured ratio"}
    assert {how[key] for key in ("mfu", "days", "core_days_range")} == {"from the measured ratio"}
    assert how["compute_seconds"] == "compiler estimate" == report._how(compiled(settings), ESTIMATE)["step_seconds"]
    gpu = report._how(compiled(settings, where="h100:8"), ESTIMATE)
    assert gpu["step_seconds"].startswith("assumption")
    assert report._how(compiled(settings, where="h100:8"), timed)["step_seconds"] == "measured ratio"


@pytest.fixture
def asked(monkeypatch):
    """The topologies on which a run's own step is compiled."""
    found = []
    monkeypatch.setattr(calibration.compiling, "compile_step", lambda own, where: found.append(where))
    monkeypatch.setattr(calibration.estimate, "of", lambda step: ESTIMATE)
    return found


H100 = "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    "processes, devices, where, compared",
    [
        (2, 16, "h100:1x8", ["h100:2x8"]),  # two nodes are no node of sixteen
        (2, 16, "h100:16", ["h100:2x8"]),
        (1, 4, "h100:2x8", ["h100:1x4"]),
        (2, 16, "h100:2x8", []),  # the very step
        (16, 16, "h100:2x8", []),  # a process a GPU: the plan says where they are
    ],
)
def test_a_run_on_several_nodes_of_gpus_is_compared_with_as_many(
    tmp_path, settings, asked, processes, devices, where, compared
):
    run = a_run(tmp_path / "run", settings, kind=H100, devices=devices, processes=processes)
    chip, shape, _ = topology.parse(where)
    calibration.apply(ESTIMATE, compiled(settings, kind=chip.kind, devices=shape[0] * shape[1], where=where), run)
    assert asked == compared


def test_a_run_that_does_not_say_on_how_many_nodes_it_was_is_refused(tmp_path, settings, asked):
    run = a_run(tmp_path / "run", settings, kind=H100, devices=16, processes=16)
    with pytest.raises(types.InputError, match="16 processes of one GPU each.*--topology h100:NODESxGPUS"):
        calibration.apply(ESTIMATE, compiled(settings, kind=H100, where="h100:8"), run)


def test_a_search_compiles_the_step_of_the_run_once(tmp_path, settings, asked):
    run = a_run(tmp_path / "run", settings, devices=16)
    adjust = calibration.of_run(run, "TPU v5 lite")
    assert adjust(ESTIMATE, compiled(settings)) == adjust(ESTIMATE, compiled(settings))
    assert asked == ["v5e:4x4"]
