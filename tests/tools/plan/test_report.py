import dataclasses
import json

import pytest

from tests.tools.plan import conftest, small
from transformer_jax import types
from transformer_jax.cli import main
from transformer_jax.tools.plan import compiling, estimate, page, prices, report, topology


class Prices:
    currency = "EUR"

    def cost(self, where, seconds):
        return 2.0 * where.chip_count * seconds / 3600


@pytest.fixture(scope="module")
def found(compiled):
    return report.make(compiled, estimate.length(compiled.settings, compiled.batch_size))


def test_every_key_is_there_is_documented_and_says_how_it_was_got(found):
    assert list(found) == list(report.KEYS) == list(found["how"])
    assert json.loads(json.dumps(found)) == found
    assert all(how and text for how, text in report.KEYS.values())
    for key in report.KEYS:
        assert key in report.explain()


def test_no_figure_is_negative_and_ranges_are_narrow(found):
    for key, value in found.items():
        if isinstance(value, int | float):
            assert value >= 0, key
        if key.endswith("_range") and value is not None:
            assert 0 < value[0] < value[1] <= 2 * value[0], key
            assert value[0] <= found[key.removesuffix("_range")] <= value[1], key


def test_the_days_of_the_run_are_its_steps(found):
    assert found["steps"] == 10 * 6400 // 64
    assert found["days"] == pytest.approx(found["steps"] * found["step_seconds"] / 86_400)
    assert found["core_days"] == pytest.approx(8 * found["days"])  # on v3 a device is a core
    assert found["mfu"] == pytest.approx(found["flops"] / found["step_seconds"] / (8 * 61.5e12))
    assert "6,400 examples, as the recipe says" in " ".join(found["assumptions"])


def test_prices_make_a_cost_with_a_range(compiled):
    priced = report.make(compiled, 100, prices=Prices())
    assert priced["cost"] == pytest.approx(2.0 * 4 * 24 * priced["days"])
    assert priced["cost_range"][0] < priced["cost"] < priced["cost_range"][1] and priced["currency"] == "EUR"
    assert "EUR" in page.text(priced)


def test_the_page_has_every_figure_with_how_it_was_got(found):
    text = page.text(found)
    assert text.splitlines()[1].startswith("fits: ")
    for word in ("optimizer state", "roofline", "between", "MFU", "core-days", "all-reduce", "over data (8 devices)"):
        assert word in text
    for how in ("fact, compiled", "our count", "compiler estimate", "assumption"):
        assert how in text


def test_a_measured_ratio_takes_the_place_of_the_estimate(compiled):
    def slower(timed, _):
        return dataclasses.replace(timed, step_seconds=2.0, low=1.9, high=2.1, source="measured: 2 s")

    measured = report.make(compiled, 100, adjust=slower)
    assert measured["step_seconds"] == 2.0 and measured["time_source"] == "measured: 2 s"
    assert "compared with nothing" not in " ".join(measured["assumptions"])


def test_a_step_that_does_not_fit_is_reported_with_both_figures(refusing):
    refused = report.plan(small.settings(), small.topology())
    assert refused["fits"] is False and refused["peak_bytes"] > 18.5 * 2**30 > refused["available_bytes"]
    assert refused["step_seconds"] is None and refused["days"] is None and refused["message"] == conftest.REFUSAL
    assert "does not fit: 18.50 GiB of temporaries against 15.48 GiB" in page.text(refused)


@pytest.mark.parametrize("share, verdict", [(0.80, "fits: "), (0.98, "fits barely: ")])
def test_what_is_to_spare_is_part_of_the_verdict(compiled, share, verdict):
    tight = dataclasses.replace(compiled, available_bytes=int(compiled.needed_bytes / share))
    line = page.verdict(report.make(tight, 100))
    assert line.startswith(verdict) and f"{1 - share:.0%} to spare" in line
    assert ("keep 5 to 10 %" in line) is (share > 0.95)


def test_a_missing_price_is_found_before_anything_is_compiled(monkeypatch):
    monkeypatch.setattr(compiling, "compile_step", lambda *_, **__: pytest.fail("it was compiled"))
    mine = prices.Prices({"v5e": 1.0}, "EUR", "mine.toml")
    with pytest.raises(types.InputError, match="has none for v3"):
        report.plan(small.settings(), small.topology(), prices=mine)


def test_state_that_waits_on_the_host_is_named_and_no_time_is_counted_for_it(compiled, monkeypatch):
    monkeypatch.setattr(type(compiled), "host_bytes", 3 * 2**30)
    plan = report.make(compiled, 100)
    assert plan["host_bytes"] == 3 * 2**30 and "state on the host" in page.text(plan)
    assert any("3.00 GiB of the state of a device come from its host" in one for one in plan["assumptions"])


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(
        "from tests.tools.plan import conftest, small\n"
        "import ml_collections\n"
        "def get_config(total='100 steps'):\n"
        "    made = small.settings(source='private:Ours', train=dict(total=total))\n"
        "    return ml_collections.ConfigDict({k: made[k] for k in"
        " ('name', 'model', 'data', 'optim', 'schedule', 'train')})\n"
    )
    return str(path)


@pytest.fixture
def no_compiler(monkeypatch, refusing):
    monkeypatch.setattr(topology, "describe", lambda name: small.topology())


def test_the_verb_prints_the_plan_or_its_json(file, no_compiler, monkeypatch, compiled, capsys):
    asked = []

    def compile_step(settings, where, *, batch_size):
        asked.append((settings["model"]["depth"], settings["model"]["num_classes"], batch_size))
        return compiled

    monkeypatch.setattr(compiling, "compile_step", compile_step)
    assert main.main(["plan", "--config", file, "--topology", "v3:2x2", "--batch", "16"]) == 0
    assert "small on v3:2x2: 8 devices" in capsys.readouterr().out
    words = ["plan", "--config", f"{file}:3 epochs", "--topology", "v3:2x2", "--examples", "640", "--classes", "7"]
    assert main.main([*words, "--json", "--config.model.depth=1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is True and found["steps"] == 30
    assert {"fits", "peak_bytes", "core_days", "core_days_range", "step_seconds_range", "collectives"} <= set(found)
    assert asked == [(2, None, 16), (1, 7, None)]


def test_a_step_that_does_not_fit_is_no_failure(file, no_compiler, capsys):
    assert main.main(["plan", "--config", file, "--topology", "v3:2x2"]) == 0
    assert "does not fit" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, message",
    [
        (["--batch", "0"], "--batch must be at least 1: it is 0"),
        (["--config.train.total=2 epochs"], "needs the number of examples"),
        (["--batch", "12"], "must divide evenly"),
        (["--batch", "65", "--config.train.accumulate=2"], "a divisor of data.batch_size=65: it is 2"),
        (["--calibrate", "nowhere"], "--calibrate must be a run directory"),
    ],
)
def test_what_cannot_be_planned_is_said_in_one_line(file, no_compiler, capsys, words, message):
    assert main.main(["plan", "--config", file, "--topology", "v3:2x2", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_help_has_the_keys_and_a_mistake_has_them_not(capsys):
    with pytest.raises(SystemExit):
        main.main(["plan", "--help"])
    assert report.explain() in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main.main(["plan"])
    error = capsys.readouterr().err
    assert "--topology" in error and "keys of --json" not in error
