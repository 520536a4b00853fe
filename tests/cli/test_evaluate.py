"""`evaluate --report` on a generated folder of images: the page tells what the predictions say."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from transformer_jax import experiment
from transformer_jax.cli import main
from transformer_jax.evaluation import intervals

RECIPE = """
import ml_collections

def get_config(path):
    where = dict(source=f"folder:{path}", preprocess="decode | resize(8) | value_range(-1, 1)", batch_size=8)
    return ml_collections.ConfigDict(dict(
        name="colours",
        model=dict(name="vit", variant=None, width=16, depth=1, heads=2, mlp_dim=16, patch=4, image_size=8),
        data=dict(where, split="train"),
        optim=dict(name="sgd"),
        schedule=dict(name="constant", base=0.1),
        train=dict(total=2),
        evals=dict(
            val=dict(where, split="val", predictions=True),
            few=dict(where, kind="fewshot", test_split="val", shots=(1, 2), seeds=2),
            probe=dict(where, kind="probe", test_split="val", l2=(0.1,)),
        ),
    ))
"""
COLOURS = {"blue & black": (40, 60, 200), "green": (60, 190, 70), "red": (200, 50, 40)}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Three colours, the validation images of two mixed up, trained, judged and reported from the command line."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 6)):
        for label, colour in COLOURS.items():
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(np.array(colour) + rng.integers(-90, 90, (12, 16, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / label / f"{i}.png")
    (root / "val/red/5.png").replace(root / "val/green/x.png")
    (root / "recipe.py").write_text(RECIPE)
    words = ["--config", f"{root}/recipe.py:{root}"]
    assert main.main(["train", *words, "--workdir", f"{root}/run"]) == 0
    capture = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", capture)
        assert main.main(["evaluate", *words, "--checkpoint", f"{root}/run", "--report", f"{root}/report"]) == 0
    return root / "report", json.loads(capture.getvalue().splitlines()[-1])


def _rows(folder):
    with np.load(folder / "predictions" / "val.npz") as file:
        return dict(file)


def _table(page, title):
    """The rows of the table under a heading."""
    part = page[page.index(f"<h2>{title}</h2>") :].split("</table>")[0]
    return [re.findall(r"<td>(.*?)</td>", row) for row in part.split("<tr>")[2:]]


def test_every_accuracy_comes_with_its_interval(report):
    folder, scores = report
    for name, examples in (("val/top1", 18), ("few/1shot", 18), ("few/2shot", 18), ("probe/top1", 18)):
        low, high = intervals.bootstrap(scores[name], examples)
        assert (scores[f"{name}_low"], scores[f"{name}_high"]) == (low, high)
    assert scores["val/top1"] == (_rows(folder)["predicted"] == _rows(folder)["label"]).mean()
    assert [path.name for path in (folder / "predictions").iterdir()] == ["val.npz"]


def test_the_page_tells_what_the_predictions_say(report):
    folder, scores = report
    page, rows = (folder / "report.html").read_text(), _rows(folder)
    names = [name.replace("&", "&amp;") for name in sorted(COLOURS)]
    numbers = {row[0]: row[1:] for row in _table(page, "Numbers")}
    assert float(numbers["val/top1"][0]) == pytest.approx(scores["val/top1"], rel=1e-5)
    assert numbers["val/top1"][1] == f"{scores['val/top1_low']:.4f} to {scores['val/top1_high']:.4f}"
    right = rows["label"] == rows["predicted"]
    for name, _, hits, examples in _table(page, "val: the worst classes"):
        own = rows["label"] == names.index(name)
        assert (int(hits), int(examples)) == (right[own].sum(), own.sum())
    found = {(true, said): int(count) for true, said, count, _ in _table(page, "val: the most frequent confusions")}
    pairs = zip(rows["label"][~right], rows["predicted"][~right], strict=True)
    assert sum(found.values()) == (~right).sum() > 0
    assert all((names[true], names[said]) in found for true, said in pairs)
    assert "probe: the worst classes" in page and "few: the worst classes" not in page


def test_the_contact_sheet_shows_the_errors(report):
    folder, _ = report
    rows = _rows(folder)
    wrong = (rows["label"] != rows["predicted"]).sum()
    sheet = folder / "val_errors.png"
    side = int(np.ceil(np.sqrt(wrong)))
    width, height = Image.open(sheet).size
    assert width == side * 100 + 4 and height == int(np.ceil(wrong / side)) * (100 + 3 * 14) + 4
    page = (folder / "report.html").read_text()
    assert base64.b64encode(sheet.read_bytes()).decode() in page
    assert f"{wrong} of {wrong} errors" in page
    first = np.flatnonzero(rows["label"] != rows["predicted"])
    first = first[np.argmax(rows["probability"][first])]
    shown = np.asarray(Image.open(sheet))[4:100:12, 4:100:12].astype(float).mean(axis=(0, 1))
    colour = np.array(list(COLOURS.values())[rows["label"][first]])
    strongest = int(np.argmax(shown))
    assert strongest == np.argmax(colour) or rows["index"][first] == 12  # the red image among the green ones
    assert Image.open(folder / "val_confusion.png").size[0] > 300


def test_the_report_needs_a_directory(report, capsys):
    folder, _ = report
    words = ["--config", f"{folder.parent}/recipe.py:{folder.parent}", "--checkpoint", f"{folder.parent}/run"]
    assert main.main(["evaluate", *words, "--report", str(folder / "report.html")]) == 2
    assert "--report must be a directory" in capsys.readouterr().err


def test_what_is_no_number_is_null(report, monkeypatch, capsys):
    folder, _ = report
    found = experiment.Judgement({"val/top1": 0.5, "val/loss": float("nan"), "few/1shot": float("inf")}, {})
    monkeypatch.setattr(experiment, "judge", lambda *_, **__: found)
    monkeypatch.setattr(experiment.Judgement, "with_intervals", lambda self: self.metrics)
    words = ["--config", f"{folder.parent}/recipe.py:{folder.parent}", "--checkpoint", "anything"]
    assert main.main(["evaluate", *words]) == 0
    line = capsys.readouterr().out
    assert json.loads(line, parse_constant=pytest.fail) == {"val/top1": 0.5, "val/loss": None, "few/1shot": None}
    with pytest.raises(SystemExit):
        main.main(["evaluate", "--help"])
    assert "NaN" in capsys.readouterr().out
