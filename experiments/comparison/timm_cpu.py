"""CPU time of a ViT step, ours against timm's in eager PyTorch: one pinned thread, float32, interleaved, medians.

Both sides take the same images through the same network: forward, cross-entropy, backward and AdamW for `train`, the
forward pass alone for `infer`. Each round is a fresh process of each side in turn, so a busy machine slows both. What
counts is user plus system time of the process, the first (compiling) step left out, and the peak of its memory.

    pip install 'transformer_jax[compare]'     # or name another environment: --timm-python=PATH
    python experiments/comparison/timm_cpu.py --cases=Ti:8,Ti:32,S:8,S:32 --rounds=3 --steps=5

timm imports torchvision, which a ViT does not need: an empty stand-in is enough where it is absent.
"""

import argparse
import importlib.machinery
import importlib.util
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable

RATE, DECAY = 1e-3, 1e-4
TIMM = {"Ti": "vit_tiny_patch16_224", "S": "vit_small_patch16_224", "B": "vit_base_patch16_224"}
# Spinning OpenMP threads would be charged to PyTorch, five times over on a shared machine.
PINNED = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}


def ours(variant: str, batch: int, kind: str) -> Callable[[], object]:
    """One step of this package: its model, loss, optimizer and step, without the clipping that timm's side has not."""
    import jax
    import jax.numpy as jnp

    from transformer_jax.metrics import losses
    from transformer_jax.models import functional
    from transformer_jax.optim import optimizers
    from transformer_jax.training import state, step

    model = functional.from_family("vit", variant=f"{variant}/16")
    examples = {"image": jax.random.normal(jax.random.key(0), (batch, 224, 224, 3)), "label": jnp.arange(batch)}
    params = jax.jit(model.init)(jax.random.key(1))
    if kind == "infer":
        predict = jax.jit(model.apply)
        return lambda: jax.block_until_ready(predict(params, examples["image"]))

    def loss(params, batch, key):
        logits = model.apply(params, batch["image"], key=key)
        return losses.softmax_cross_entropy(logits, batch["label"]).mean(), {}

    optimizer = optimizers.build("adamw", model.abstract, stacks=model.stacks, weight_decay=DECAY, clip_norm=None)
    train_step = jax.jit(step.make_train_step(loss, optimizer), donate_argnums=0)
    current, rate = state.create(params, optimizer, key=jax.random.key(2)), jnp.float32(RATE)

    def train() -> None:
        nonlocal current
        current, metrics = train_step(current, examples, rate)
        jax.block_until_ready((current, metrics))

    return train


def timm(variant: str, batch: int, kind: str) -> Callable[[], object]:
    """One step of timm's model in eager PyTorch, with its own AdamW."""
    if importlib.util.find_spec("torchvision") is None:
        stand_in_for_torchvision()
    timm, torch = importlib.import_module("timm"), importlib.import_module("torch")  # of the extra `compare`

    torch.set_num_threads(1)
    model = timm.create_model(TIMM[variant])
    image, label = torch.randn(batch, 3, 224, 224), torch.arange(batch)
    if kind == "infer":
        model.eval()
        return torch.inference_mode()(lambda: model(image))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)

    def train() -> None:
        torch.nn.functional.cross_entropy(model(image), label).backward()
        optimizer.step()
        optimizer.zero_grad()

    return train


class _Anything(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


def stand_in_for_torchvision() -> None:
    """Modules that have every name timm imports, and nothing behind them."""
    parts = "transforms transforms.functional ops ops.misc datasets models models.feature_extraction"
    for name in ("torchvision", *(f"torchvision.{part}" for part in parts.split())):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        module.__path__ = []

        def attribute(wanted: str, owner: str = name) -> object:
            if wanted.startswith("__"):
                raise AttributeError(wanted)
            return sys.modules.get(f"{owner}.{wanted}") or _Anything(wanted, (), {})

        setattr(module, "__getattr__", attribute)  # noqa: B010  (a type checker refuses the assignment)
        sys.modules[name] = module


def work(side: str, variant: str, batch: int, kind: str, steps: int) -> None:
    """Time one process of one side; print what it took."""
    call = {"ours": ours, "timm": timm}[side](variant, batch, kind)
    call()
    spent = []
    for _ in range(steps):
        begin = time.process_time()
        call()
        spent.append((time.process_time() - begin) * 1e3)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    print(json.dumps({"ms": statistics.median(spent), "least": min(spent), "mb": peak}))


def measure(args: argparse.Namespace, side: str, variant: str, batch: int, kind: str) -> dict[str, float]:
    """`work` in its own pinned process."""
    python = args.timm_python if side == "timm" else sys.executable
    command = [python, __file__, "--work", side, variant, str(batch), kind, "--steps", str(args.steps)]
    if args.core is not None:
        command = ["taskset", "-c", str(args.core), *command]
    done = subprocess.run(command, env={**os.environ, **PINNED}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(args: argparse.Namespace) -> None:
    """All cases, one line each, then the geometric means."""
    print("| kind | model | batch | ours ms | timm ms | ratio | least (both) | ratio | ours MB | timm MB | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for kind in args.kinds.split(","):
        times, leasts = [], []
        for variant, batch in (case.split(":") for case in args.cases.split(",")):
            rounds = {"ours": [], "timm": []}
            for index in range(args.rounds):
                for side in sorted(rounds, reverse=bool(index % 2)):
                    rounds[side].append(measure(args, side, variant, int(batch), kind))
            ms, mb = ({s: statistics.median(r[key] for r in rounds[s]) for s in rounds} for key in ("ms", "mb"))
            least = {s: min(r["least"] for r in rounds[s]) for s in rounds}
            times.append(ms["ours"] / ms["timm"])
            leasts.append(least["ours"] / least["timm"])
            print(
                f"| {kind} | {variant}/16 | {batch} | {ms['ours']:.0f} | {ms['timm']:.0f} | {times[-1]:.2f} |"
                f" {least['ours']:.0f} / {least['timm']:.0f} | {leasts[-1]:.2f} |"
                f" {mb['ours']:.0f} | {mb['timm']:.0f} | {mb['ours'] / mb['timm']:.2f} |",
                flush=True,
            )
        mean, mean_least = (math.exp(statistics.fmean(map(math.log, r))) for r in (times, leasts))
        print(f"| {kind} | geometric mean | | | | **{mean:.2f}** | | {mean_least:.2f} | | | |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="Ti:8,Ti:32,S:8,S:32", help="variant:batch, separated by commas")
    parser.add_argument("--kinds", default="train,infer")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a process")
    parser.add_argument("--core", type=int, default=0, help="the core to pin to (Linux)")
    parser.add_argument("--timm-python", default=sys.executable, help="Python of an environment with torch and timm")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not hasattr(os, "sched_setaffinity"):
        args.core = None
    if args.work:
        side, variant, batch, kind = args.work
        work(side, variant, int(batch), kind, args.steps)
    else:
        compare(args)


if __name__ == "__main__":
    main()
