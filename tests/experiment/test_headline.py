"""What the README claims of its first command, run: two of its four targets, from the first step to the table."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.experiment import small
from tests.protocol import recompute

RECIPE = """
from transformer_jax import config

def get_config():
    raw = config.load({file!r})
    raw.targets = {{name: raw.targets[name] for name in ("digits_100", "digits_all")}}
    return raw
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_pretraining_buys_ten_points_at_a_hundred_labels(tmp_path):
    (tmp_path / "recipe.py").write_text(RECIPE.format(file=str(small.ROOT / "experiments/digits/protocol.py")))
    command = [sys.executable, "-m", "transformer_jax", "protocol", "--config", str(tmp_path / "recipe.py")]
    env = dict(os.environ, TRANSFORMER_JAX_CACHE=str(tmp_path / "cache"))
    begun = time.time()
    subprocess.run([*command, "--workdir", str(tmp_path / "run")], check=True, stdout=subprocess.DEVNULL, env=env)
    results = json.loads((tmp_path / "run" / "results.json").read_text())["targets"]
    assert (
        recompute.differences(
            json.loads((tmp_path / "run/results.json").read_text()), recompute.results(tmp_path / "run")
        )
        == []
    )
    few, everything = ({m: results[name][m]["mean"] for m in results[name]} for name in ("digits_100", "digits_all"))
    assert few["finetune"] >= max(0.90, few["scratch"] + 0.10)
    assert everything["finetune"] >= 0.975
    assert few["finetune"] > few["probe"] > 0.7 and everything["finetune"] > everything["scratch"] > 0.9
    with open(tmp_path / "run" / "pretrain" / "metrics.jsonl") as lines:
        first = json.loads(next(lines))
    assert first["step"] == 1 and first["wall"] - begun < 15, "seconds from the command to the first step"
