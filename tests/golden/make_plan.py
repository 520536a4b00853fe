"""What the step of a ViT-L/16 costs on TPUs, for tests/golden/plan/large.json; run by hand where libtpu is.

python -m tests.golden.make_plan [v5e:8x8 ...]
"""

import json
import pathlib
import sys

import jax

GOLDEN = pathlib.Path(__file__).parent / "plan" / "large.json"


def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    from tests.tools.plan import large
    from transformer_jax.tools.plan import report

    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    for topology in sys.argv[1:] or large.BATCHES:
        versions = {name: report._version(name) for name in ("jax", "libtpu", "flax")}
        known[topology] = {**large.facts(topology, large.BATCHES[topology]), "versions": versions}
        print(json.dumps(known[topology]), flush=True)
        GOLDEN.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
