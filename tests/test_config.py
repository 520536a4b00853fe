from collections.abc import Mapping, Sequence
from typing import Literal

import ml_collections
import pytest

from transformer_jax import config, types


def constructor(
    *,
    width: int,
    rate: float = 0.1,
    pool: Literal["tok", "gap"] = "tok",
    clip: float | None = 1.0,
    scan: bool = True,
    size: int | tuple[int, int] = 224,
    patterns: Sequence[str] = (),
    mesh: Mapping[str, int] = {},  # noqa: B006  a default that is only read
    name: str = "x",
):
    pass


FIELDS = config.fields(constructor)
SCHEMA = {f"model.{name}": field for name, field in FIELDS.items()}


def overridden(**assignments):
    c = ml_collections.ConfigDict({"model": {"width": 64, "mesh": {"data": -1}}})
    config.override(c, SCHEMA, {k.replace("__", "."): v for k, v in assignments.items()})
    return c.model


def test_check_fills_defaults_from_the_signature():
    assert config.check({"width": 3}, FIELDS, "model")["rate"] == 0.1


@pytest.mark.parametrize(
    "section, message",
    [
        ({"widht": 3}, r"config.model.widht is not a keyword of this section. Did you mean 'width'\? It takes: width,"),
        ({}, "config.model.width must be given: int"),
        ({"width": True}, r"config.model.width must be int, not True \(bool\)"),
        ({"width": None}, r"config.model.width must be int, not None"),
        ({"width": 1, "pool": "top"}, "config.model.pool must be one of 'tok', 'gap', not 'top'"),
        ({"width": 1, "size": (1, 2, 3)}, r"config.model.size must be int or \(int, int\), not"),
        ({"width": 1, "patterns": 3}, "config.model.patterns must be a list of str, not 3"),
        ({"width": 1, "mesh": 3}, "config.model.mesh must be a section of keys and values, not 3"),
        ({"width": 1, "rate": "0.1"}, "config.model.rate must be float"),
        (7, "config.model must be a section"),
    ],
)
def test_a_wrong_section_is_one_clear_error(section, message):
    with pytest.raises(types.InputError, match=message):
        config.check(section, FIELDS, "model")


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("width", "128", 128),
        ("rate", "3", 3),
        ("rate", "1e-3", 1e-3),
        ("clip", "None", None),
        ("scan", "false", False),
        ("size", "(96, 128)", (96, 128)),
        ("size", "[96, 128]", (96, 128)),
        ("patterns", "('a', 'b')", ("a", "b")),
        ("mesh.data", "4", 4),
        ("mesh.fsdp", "2", 2),
        ("name", "17", "17"),
        ("pool", "gap", "gap"),
    ],
)
def test_an_override_takes_the_type_of_the_signature(name, text, value):
    node = overridden(**{f"model.{name}": text})
    for key in name.split("."):
        node = node[key]
    assert node == value and type(node) is type(value)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("model.width", "None", r"--config.model.width=None: the value must be int"),
        ("model.width", "true", r"--config.model.width=true: the value must be int"),
        ("model.width", "1.5", r"the value must be int"),
        ("model.scan", "1", r"the value must be bool"),
        ("model.pool", "mean", r"one of 'tok', 'gap'"),
        ("model.mesh.data", "many", r"--config.model.mesh.data=many: the value must be int"),
        ("model.wdth", "3", r"--config.model.wdth: there is no such setting. Did you mean 'model.width'"),
        ("modl.width", "3", r"there is no such setting. Did you mean 'model.width'"),
    ],
)
def test_a_bad_override_names_the_setting_and_its_type(name, text, message):
    with pytest.raises(types.InputError, match=message):
        overridden(**{name: text})


def test_an_experiment_file_takes_arguments(tmp_path):
    file = tmp_path / "recipe.py"
    file.write_text("def get_config(size='S', *, data='i1k'):\n    return {'size': size, 'data': data}\n")
    assert config.load(str(file)).to_dict() == {"size": "S", "data": "i1k"}
    assert config.load(f"{file}:L,data=jft").to_dict() == {"size": "L", "data": "jft"}
    with pytest.raises(types.InputError, match=r"does not fit get_config\(size='S', \*, data='i1k'\)"):
        config.load(f"{file}:dta=jft")
    with pytest.raises(types.InputError, match="does not exist"):
        config.load(str(tmp_path / "recip.py"))


@pytest.mark.parametrize(
    "text, message",
    [
        ("import nothing_like_it\n", r"line 1 raised ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("def get_config():\n    return {'a': 1 / 0}\n", "line 2 raised ZeroDivisionError: division by zero"),
        ("def get_config(:\n", "is not Python: line 1"),
    ],
)
def test_an_error_in_an_experiment_file_is_told_with_its_line(tmp_path, monkeypatch, text, message):
    (tmp_path / "recipe.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    for path in (str(tmp_path / "recipe.py"), "recipe.py"):
        with pytest.raises(types.InputError, match=message):
            config.load(path)


def test_changes_name_every_setting_that_differs():
    old = {"train": {"steps": 10, "seed": 0}, "model": {"size": (1, 2)}}
    new = {"train": {"steps": 20, "seed": 0}, "model": {"size": [1, 2]}, "extra": 1}
    assert config.changes(old, new) == {"extra": (None, 1), "train.steps": (10, 20)}


def test_settings_are_replaced_in_a_copy():
    settings = {"schedule": {"name": "cosine", "base": 1.0}, "seed": 0}
    assert config.replaced(settings, {"schedule.base": 0.1, "seed": 3}) == {
        "schedule": {"name": "cosine", "base": 0.1},
        "seed": 3,
    }
    assert settings["schedule"]["base"] == 1.0 and settings["seed"] == 0
    for wrong in ("schedule.bass", "seed.a", "sed"):
        with pytest.raises(types.InputError, match="is not a setting here"):
            config.replaced(settings, {wrong: 1})
