"""Weights that others publish, judged and begun from: the names of their classes, their pixels, how they pool."""

import json
import re

import ml_collections
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from tests.cli.test_predict import parameters
from tests.transfer import fakes
from transformer_jax import experiment, types
from transformer_jax.data import imagenet
from transformer_jax.experiment import agreement, predictor, sections, weights
from transformer_jax.transfer import convert, formats, layouts

MODEL = dict(name="vit", variant=None, width=16, depth=1, heads=2, mlp_dim=32, patch=8, image_size=16)
WORDS = [f"word {i}, Verbum {i}" for i in range(imagenet.CLASSES)]
SOME = (0, 1, 207, 999)
NORMALIZE = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
SCALING = "normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))"


@pytest.fixture(autouse=True)
def _afresh():
    agreement.warn.cache_clear()


def published(path, to, *, classes=3, words=None, normalize=None, **model):
    """A file as others write it, and the logits its code would compute of pixels."""
    path.parent.mkdir(exist_ok=True)
    flat, settings = parameters(depth=1, image_size=16, num_classes=classes, **model)
    rng = np.random.default_rng(1)
    for leaf in ("kernel", "bias"):
        flat[f"head/{leaf}"] = rng.normal(size=flat[f"head/{leaf}"].shape).astype(np.float32)
    meta = ({"class_names": words} if words else {}) | ({"normalize": normalize} if normalize else {})
    convert.save(path, flat, {"name": "vit", **settings}, to=to, meta=meta)
    if path.suffix == ".npz":
        path.with_suffix(".json").unlink(missing_ok=True)
    else:
        safetensors.numpy.save_file(safetensors.numpy.load_file(path), path)  # without what our header tells
    return path


def folder(root, names):
    """Two images a class."""
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(root / name / f"{i}.png")
    return root


def judging(where, *, scaling="value_range(-1, 1)", model=None, **section):
    data = dict(source=f"folder:{where}", split="train", preprocess=f"decode | {scaling}", batch_size=8)
    recipe = dict(
        name="judge",
        model={**MODEL, **(model or {})},
        data=data,
        optim=dict(name="sgd"),
        schedule=dict(name="constant", base=0.1),
        train=dict(total=1),
        evals=dict(val=dict(data, predictions=True, **section)),
    )
    return experiment.resolve(ml_collections.ConfigDict(recipe))


@pytest.mark.parametrize(("to", "words"), [("google", None), ("hf", WORDS)])
def test_a_subset_of_imagenet_finds_its_columns_in_any_published_head(to, words, tmp_path):
    """Folders are named by WordNet ids, heads hold words or nothing: the right columns are those of the usual order."""
    path = published(
        tmp_path / "w" / ("w.npz" if to == "google" else "model.safetensors"), to, classes=1000, words=words
    )
    where = folder(tmp_path / "r", [imagenet.wnids()[i] for i in SOME])
    found = experiment.judge(judging(where, subset=True), str(path))
    pixels = np.stack([np.asarray(Image.open(file)) for file in sorted(where.rglob("*.png"))])
    logits = experiment.Predictor(str(path), preprocess="decode | value_range(-1, 1)").logits(pixels, batch_size=8)
    np.testing.assert_array_equal(found.rows["val"]["predicted"], logits[:, SOME].argmax(axis=1))
    assert found.metrics["val/examples"] == 8


def test_words_are_names_of_imagenet_only_for_published_heads_of_its_size(tmp_path):
    head = {"head/kernel": np.zeros((4, 1000), np.float32)}
    named = convert.Source(head, meta={"class_names": WORDS}, layout="huggingface")
    assert weights.class_names(named) == weights.class_names(convert.Source(head, layout="bit")) == imagenet.wnids()
    other = list(reversed(imagenet.wnids()))  # ids that are told are believed
    assert weights.class_names(convert.Source(head, meta={"class_names": other}, layout="timm")) == tuple(other)
    ours = convert.Source(head, meta={"class_names": WORDS, "config": {"model": {}}}, layout="timm")
    assert weights.class_names(ours) == tuple(WORDS)
    few = convert.Source({"head/kernel": np.zeros((4, 3))}, meta={"class_names": ["a", "b", "c"]}, layout="huggingface")
    assert weights.class_names(few) == ("a", "b", "c")
    assert weights.class_names(convert.Source(head)) is None


def test_published_words_are_taken_in_their_order_with_a_word_and_refused_when_permuted(tmp_path, caplog):
    path = published(tmp_path / "w" / "model.safetensors", "hf", words=["tabby cat", "hound", "owl"])
    where = folder(tmp_path / "own", ["a_cat", "b_dog", "c_owl"])
    assert experiment.evaluate(judging(where), str(path))["val/examples"] == 6
    assert "one by one in their order: the names do not tell" in caplog.text
    permuted = folder(tmp_path / "permuted", ["tabby cat", "hound", "owl"])  # sorted: hound comes first
    with pytest.raises(
        types.InputError, match=r"trained on: .* knows 3 \(tabby cat, hound, owl\), the data has 3 \(ho"
    ):
        experiment.evaluate(judging(permuted), str(path))


def test_classes_of_an_own_run_are_those_of_its_data(tmp_path):
    settings = judging(folder(tmp_path / "a", ["x", "y"]))
    flat, _ = parameters(depth=1, image_size=16, num_classes=2)
    saved = dict(sections.settled(settings), model=dict(sections.settled(settings)["model"], num_classes=2))
    path = tmp_path / "own.safetensors"
    formats.write_safetensors(path, flat, {"config": json.loads(json.dumps(saved)), "class_names": ["x", "y"]})
    assert experiment.evaluate(settings, str(path))["val/examples"] == 4
    with pytest.raises(types.InputError, match=r"judged on the classes it was trained on: .* knows 2 \(x, y\)"):
        experiment.evaluate(judging(folder(tmp_path / "b", ["x", "z"])), str(path))


def test_pixels_elsewhere_are_refused_when_judged_and_warned_of_when_begun_from(tmp_path, caplog):
    path = published(tmp_path / "w" / "model.safetensors", "timm", normalize=NORMALIZE)
    where = folder(tmp_path / "own", ["a", "b", "c"])
    with pytest.raises(types.InputError, match=f"End every preprocess in {re.escape(SCALING)}"):
        experiment.evaluate(judging(where), str(path))
    assert experiment.evaluate(judging(where, scaling=SCALING), str(path))["val/examples"] == 6
    for scaling in ("value_range(-1, 1)", SCALING, "value_range(-1, 1)"):
        settings = judging(where, scaling=scaling)
        settings["init_from"] = dict(path=str(path), head="auto", position="align_corners", patch="error")
        experiment.prepare(settings, experiment.Shared())
    lines = [record.getMessage() for record in caplog.records if "puts pixels elsewhere" in record.getMessage()]
    assert len(lines) == 1 and SCALING in lines[0] and "0 becomes -2.118" in lines[0]


def test_a_mean_is_judged_as_a_mean(tmp_path, caplog):
    """timm's fc_norm beside a class token has the shapes of a model that pools its token: only the weights tell."""
    after = dict(pool="gap", pool_norm="after", class_token=True)
    path = published(tmp_path / "w" / "w.safetensors", "timm", **after)
    path.with_suffix(".json").unlink()
    where = folder(tmp_path / "own", ["a", "b", "c"])
    for key, value in (("pool", "tok"), ("class_token", False)):
        with pytest.raises(types.InputError, match=rf"config.model.{key}={value!r}, those of {path} were trained with"):
            experiment.evaluate(judging(where, model={key: value}), str(path))
    followed = experiment.evaluate(judging(where), str(path))
    assert followed == experiment.evaluate(judging(where, model=after), str(path))
    own = judging(where, model=dict(pool="tok"))
    own["init_from"] = dict(path=str(path), head="auto", position="align_corners", patch="error")
    settings = experiment.prepare(own, experiment.Shared()).settings["model"]
    assert (settings["pool"], settings["pool_norm"], settings["class_token"]) == ("tok", "before", None)
    assert "config.model.pool='tok' is kept, though the weights of w.safetensors were trained with 'gap'" in caplog.text


@pytest.mark.parametrize(
    ("own", "model"),
    [(dict(norm_placement="post"), dict(norm_placement="pre")), (dict(position="none"), dict(position="sincos2d"))],
)
def test_what_no_shape_shows_is_judged_as_it_was_trained(own, model, tmp_path):
    (key,) = own
    formats.write_safetensors(tmp_path / "w", parameters()[0], {"model": {**MODEL, **own}})
    with pytest.raises(types.InputError, match=f"config.model.{key}='{model[key]}', those of .* with '{own[key]}'"):
        experiment.evaluate(judging(folder(tmp_path / "own", "abc"), model=model), str(tmp_path / "w"))


def test_every_convention_of_a_layout_reaches_the_model():
    """The others: pixels are compared (agreement), and where a table has its rows is settled in reading."""
    elsewhere = {"normalize"}
    for key, layout in layouts.LAYOUTS.items():
        known = {*layout.conventions, *(layout.stem if layout.family == "vit" else ())}
        known |= {*layouts.conventions(key, {"position": 0}, {"norm_after_pool": True})}
        assert known <= {*sections.CONVENTIONS, *elsewhere}, key


def test_the_epsilons_of_big_transfer_follow_the_file():
    conventions = layouts.LAYOUTS["timm_bit"].conventions
    source = convert.Source({}, layout="timm_bit", conventions=conventions)
    settings = judging(".")
    settings["model"] = dict(name="resnet", variant="R50x1", epsilon=None, epsilon_of=None, norm_epsilon=None)
    found = sections.settled(settings, weights.conventions(source))["model"]
    assert (found["epsilon"], found["epsilon_of"], found["norm_epsilon"]) == (1e-8, "variance", 1e-5)


@pytest.mark.parametrize(
    ("extra", "model", "message"),
    [
        ({"pre_logits/kernel": (16, 16), "pre_logits/bias": (16,)}, {}, "would not be used.*model.pre_logits=True"),
        ({"blocks/0/scale1/scale": (16,), "blocks/0/scale2/scale": (16,)}, {}, "model.layer_scale=1e-5"),
        ({}, {"layer_scale": 1e-5}, "missing in the file.*model.layer_scale=None"),
    ],
    ids=["hidden layer", "layer scale of the file", "layer scale of the model"],
)
def test_weights_are_judged_whole(extra, model, message, tmp_path):
    flat = parameters(depth=1, image_size=16)[0] | fakes.numbered(extra, 0)
    formats.write_safetensors(tmp_path / "w.safetensors", flat, {})
    settings = judging(folder(tmp_path / "own", "abc"), model=model)
    with pytest.raises(types.InputError, match=f"(?s){message}"):
        experiment.evaluate(settings, str(tmp_path / "w.safetensors"))


def test_a_rehearsal_takes_the_head_as_the_run_does(tmp_path):
    path = published(tmp_path / "w" / "model.safetensors", "hf", words=["a", "b", "c"])
    shared, reset = experiment.Shared(), "reset    head/{bias,kernel}: fresh values, the 3 classes of"
    for names, fresh in (("abc", False), ("abd", True)):
        settings = judging(folder(tmp_path / names, names))
        settings["init_from"] = dict(path=str(path), head="auto", position="align_corners", patch="error")
        assert (reset in experiment.rehearse(settings, shared=shared)) == fresh


def test_predict_resizes_nothing_and_wants_a_head_whoever_trained_it(tmp_path):
    flat, settings = parameters(depth=1)
    saved = {**MODEL, **settings, "pool": "gap"}  # but the file has a class token, and its row
    formats.write_safetensors(tmp_path / "w.safetensors", flat, {"model": saved})
    with pytest.raises(
        types.InputError, match=r"predict as they were trained.*position: 1 \+ 4 x 4 -> 0 \+ 4 x 4.*cls"
    ):
        experiment.Predictor(str(tmp_path / "w.safetensors"))
    recipe = sections.settled(judging("."))
    recipe["model"] = {**recipe["model"], **settings}
    headless = {name: leaf for name, leaf in flat.items() if not name.startswith("head/")}
    formats.write_safetensors(tmp_path / "own.safetensors", headless, {"config": json.loads(json.dumps(recipe))})
    with pytest.raises(types.InputError, match="predict needs a classifier: .* Fine-tune it"):
        predictor.Predictor(str(tmp_path / "own.safetensors"))
    small = {**flat, "head/kernel": flat["head/kernel"][:, :2], "head/bias": flat["head/bias"][:2]}
    formats.write_safetensors(tmp_path / "two.safetensors", small, {"config": json.loads(json.dumps(recipe))})
    with pytest.raises(types.InputError, match="head/kernel: fresh values for 3 classes, the file has 2") as error:
        predictor.Predictor(str(tmp_path / "two.safetensors"))
    assert "init_from" not in str(error.value)
