"""Prices of the user's own."""

import json

import pytest

from transformer_jax import types
from transformer_jax.tools.plan import chips, prices, topology


def slice_of(name, count):
    """So many chips in a row, without devices."""
    return topology.Topology(name, chips.CHIPS[name], (count,), 1, ())


def written(tmp_path, text, name="prices.toml"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    "name, text",
    [
        ("p.toml", 'currency = "EUR"\n[chip_hour]\nv3 = 2\n"tpu-v5e" = 0.5\nH100 = 2.25\n'),
        ("p.json", json.dumps({"currency": "EUR", "chip_hour": {"v3": 2, "tpu-v5e": 0.5, "H100": 2.25}})),
    ],
)
def test_a_cost_is_the_price_of_a_chip_hour_times_chips_and_hours(tmp_path, name, text):
    mine = prices.load(written(tmp_path, text, name))
    assert mine.currency == "EUR"
    assert mine.cost(slice_of("v3", 4), 5400) == pytest.approx(2 * 4 * 1.5)  # 8 devices are 4 chips
    assert mine.cost(slice_of("v5e", 64), 3600) == pytest.approx(32.0)
    assert mine.cost(slice_of("h100", 8), 3600) == pytest.approx(18.0)


def test_a_chip_without_a_price_is_named_with_those_that_have_one(tmp_path):
    mine = prices.load(written(tmp_path, "[chip_hour]\nv3 = 2\n"))
    with pytest.raises(types.InputError, match="has none for v6e, only for v3.*Add it under chip_hour"):
        mine.cost(slice_of("v6e", 1), 1.0)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[chip_hour\n", "must be TOML"),
        ("v3 = 2\n", "it has 'v3'"),
        ('currency = "EUR"\n', "no table chip_hour"),
        ("currency = 3\n[chip_hour]\n", "currency must be a word.*3"),
        ("[chip_hour]\nv3 = -1\n", "not negative.*v3 costs -1"),
        ("[chip_hour]\nv3 = true\n", "v3 costs True"),
        ("[chip_hour]\nv3 = nan\n", "v3 costs nan"),
        ("[chip_hour]\nv9 = 1\n", "chip_hour: The chip of a topology"),
    ],
)
def test_a_file_that_is_not_one_of_prices_is_refused(tmp_path, text, message):
    with pytest.raises(types.InputError, match=message):
        prices.load(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(types.InputError, match="--prices must be a file that can be read.*nothing.toml"):
        prices.load(str(tmp_path / "nothing.toml"))
