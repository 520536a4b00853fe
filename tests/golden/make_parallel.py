"""Makes tests/golden/parallel: where every leaf of a small ViT's training state lies, and what its step sends.

    python -m tests.golden.make_parallel

Shardings are arithmetic of this project. Collectives are the compiler's choice, and were the same with jax 0.10.2 and
0.12.0.1: a version that differs needs a look at what it does. Steps are compiled as accelerators run them, with XLA's
attention, for 8 devices of a CPU, whose compiler makes no reduce-scatter of an all-reduce that is cut afterwards.
"""

import json
import pathlib
import re
from typing import Any

import jax

from tests.parallel import small_vit
from tests.parallel.small_vit import Case
from transformer_jax.tools.plan import collectives, program_text
from transformer_jax.training import state as states

FOLDER = pathlib.Path(__file__).parent / "parallel"
CASES = {
    "data": Case(plain=True),
    "data, ZeRO-1": Case(plain=True, optimizer_state="data"),
    "fsdp": Case("fsdp", plain=True),
    "fsdp, ZeRO-1": Case("fsdp", (("data", 2), ("fsdp", 4)), plain=True, optimizer_state="data"),
    "hybrid": Case("hybrid", (("replica", 2), ("fsdp", 4)), plain=True),
    "tensor": Case("tensor", plain=True),
    "fsdp+tensor": Case("fsdp+tensor", plain=True),
    "sequence": Case("sequence", plain=True),
}
ADAFACTOR = {
    "fsdp, adafactor": Case("fsdp", optimizer="adafactor", plain=True),
    "fsdp+tensor, adafactor": Case("fsdp+tensor", optimizer="adafactor", plain=True),
}
"""Shardings only: the step sends nothing of another kind."""


def placed(case: Case) -> dict[str, str]:
    """Where every leaf of the training state lies: its shape and, axis by axis, the axes of the mesh that cut it."""
    program = small_vit.program(case)
    leaves, where = states.flatten(program.abstract), states.flatten(program.shardings)
    return {path: f"{tuple(leaf.shape)} {_spec(where[path].spec)}" for path, leaf in leaves.items()}


def sent(case: Case) -> list[dict[str, Any]]:
    """The collectives of a step, by kind and axes of the mesh: how often, and the bytes of the whole arrays."""
    program = small_vit.program(case)
    runs, _ = program_text.walk(*program_text.parse(program.step.as_text()))
    found = collectives.summary(runs, dict(program.mesh.shape))
    rows = [{"kind": one.kind, "axes": one.axes, "count": one.count, "bytes": one.bytes} for one in found]
    return sorted(rows, key=lambda row: (row["kind"], row["axes"]))


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    shardings = {name: placed(case) for name, case in (CASES | ADAFACTOR).items()}
    _write(FOLDER / "shardings.json", shardings)
    _write(FOLDER / "collectives.json", {name: sent(case) for name, case in CASES.items()})


def _spec(spec: Any) -> str:
    return "(" + ", ".join("-" if cut is None else cut if isinstance(cut, str) else "*".join(cut) for cut in spec) + ")"


def _write(path: pathlib.Path, content: Any) -> None:
    text = json.dumps(content, indent=1)
    rows = re.sub(r"\{\s+(\"kind\"[^}]*?)\s+\}", lambda row: "{" + re.sub(r"\s*\n\s*", " ", row[1]) + "}", text)
    path.write_text(rows + "\n")


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    main()
