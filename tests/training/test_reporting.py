"""Numbers and where they go."""

import io
import json

import numpy as np
import pytest

from transformer_jax.training import provenance, report, reporting


def test_the_console_and_the_file_carry_the_same_numbers(tmp_path):
    stream = io.StringIO()
    writer = reporting.Writers([reporting.JsonLines(tmp_path / "m.jsonl"), reporting.Console(stream)])
    writer.write(3, {"train/loss": np.float32(0.1), "learning_rate": np.asarray(1 / 3, np.float32), "count": 7})
    writer.text("hello")
    writer.close()
    (line,) = reporting.read(tmp_path / "m.jsonl")
    assert line["train/loss"] == 0.1, "a float32 with the digits it has"
    shown, text = stream.getvalue().splitlines()
    assert shown == f"step 3  train/loss 0.1  learning_rate {line['learning_rate']}  count 7" and text == "hello"


def test_a_number_that_is_none_is_null_in_json(tmp_path):
    writer = reporting.JsonLines(tmp_path / "m.jsonl")
    writer.write(1, {"loss": float("nan")})
    writer.close()
    assert json.loads((tmp_path / "m.jsonl").read_text())["loss"] is None


def test_continuing_drops_the_lines_that_will_come_again(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "val/x": 1}\n{"step": 3}\n{"step": 4, "lo')
    writer = reporting.JsonLines(path, keep_until=2)
    writer.write(3, {"a": 1})
    writer.close()
    assert [line["step"] for line in reporting.read(path)] == [1, 2, 2, 3]


def test_a_new_run_begins_with_an_empty_file(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"step": 0}\n')
    reporting.JsonLines(tmp_path / "m.jsonl").close()
    assert reporting.read(tmp_path / "m.jsonl") == []


def test_tensorboard_gets_the_numbers(tmp_path):
    writer = reporting.Writers([reporting.TensorBoard(tmp_path / "events")])
    writer.write(1, {"train/loss": np.float32(0.5)})
    writer.close()
    (events,) = (tmp_path / "events").iterdir()
    assert b"train/loss" in events.read_bytes()


def test_tensorboard_writes_nothing_when_there_is_nothing(tmp_path):
    reporting.TensorBoard(tmp_path / "events").close()
    assert not (tmp_path / "events").exists()


def test_the_bar_shows_loss_pace_wait_and_time_left():
    stream = io.StringIO()
    bar = reporting.Bar(100, stream)
    bar.advance(20)
    bar.write(20, {"train/loss": 0.25, "time/images_per_s": 1234.0, "time/data_wait": 0.031, "time/eta_s": 187.0})
    bar.write(20, {"val/top1": 0.5})
    bar.text("[not markup]")
    bar.close()
    shown = " ".join(stream.getvalue().split())
    for part in ("20/100", "loss 0.2500", "1234 images/s", "data wait 3%", "3:07 left", "val/top1 0.5", "[not markup]"):
        assert part in shown


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (187, "3:07"), (3727, "1:02:07")])
def test_durations_read_as_on_a_clock(seconds, text):
    assert reporting.duration(seconds) == text


def test_a_run_is_drawn_as_a_page_and_plots(tmp_path):
    writer = reporting.Writers([reporting.JsonLines(tmp_path / "metrics.jsonl")])
    for step in range(1, 31):
        writer.write(step, {"train/loss": 1 / step, "learning_rate": 0.1, "time/images_per_s": 9.0, "time/eta_s": 3.0})
        if step % 10 == 0:
            writer.write(step, {"val/loss": 2 / step, "val/top1": step / 30})
    writer.close()
    page = report.run(tmp_path).read_text()
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "loss.png",
        "learning_rate.png",
        "images_per_s.png",
        "top1.png",
    }
    assert page.count("<svg") == 4 and "currentColor" in page and report._INK not in page
    assert "http" not in page.replace("http://www.w3.org", ""), "the page needs nothing else"
    assert "val/top1" in page and "prefers-color-scheme: dark" in page


def test_points_carry_their_spread():
    tuned = report.Series([50, 100], [0.8, 0.9], [0.02, 0.01])
    scratch = report.Series([50, 100], [0.5, 0.6])
    figure = report.curves({"finetune": tuned, "scratch": scratch}, x="labels", log_x=True)
    assert figure.png.startswith(b"\x89PNG") and "LineCollection" in figure.svg and ">100<" in figure.svg


def test_two_figures_do_not_share_ids():
    one, two = (report.curves({"a": report.Series([1, 2], [3, 4])}).svg for _ in range(2))
    ids = [set(part.split('"')[0] for part in svg.split('<clipPath id="')[1:]) for svg in (one, two)]
    assert ids[0] and not ids[0] & ids[1]


def test_a_page_escapes_what_it_is_given():
    section = report.Section("<b>", text="a < b", table=[("x",), ("<i>",)])
    page = report.page("T&T", [section])
    assert "&lt;b&gt;" in page and "&lt;i&gt;" in page and "T&amp;T" in page and "a &lt; b" in page


def test_the_running_mean_starts_without_bias():
    assert report.running_mean([2.0, 2.0, 2.0], 0.9) == pytest.approx([2.0, 2.0, 2.0])


def test_run_json_says_how_to_run_it_again_and_keeps_its_first_start(tmp_path):
    provenance.write(tmp_path, seed=3)
    provenance.write(tmp_path, seed=3)
    record = json.loads((tmp_path / "run.json").read_text())
    assert {"command", "git", "versions", "devices", "seed", "started"} <= record.keys()
    assert record["seed"] == 3 and record["versions"]["jax"] and record["devices"]["count"] == 8
    assert len(record["restarts"]) == 1
