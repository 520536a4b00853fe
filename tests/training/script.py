"""A run in a process of its own, to be killed: `python script.py WORKDIR TOTAL_STEPS CACHE [PHASE]`.

It says when it reaches PHASE (compile, train, evaluation, data) and, but for `train`, waits there for ever.
"""

import sys
import threading
import time

import jax
import small_run

from transformer_jax.training import compilation, preemption


def reached(phase: str) -> None:
    if sys.argv[4:] == [phase]:
        print(phase, flush=True)
        threading.Event().wait()


def loss_fn(params, batch, key):
    if sys.argv[4:] == ["compile"]:
        print("compile", flush=True)
        time.sleep(2)  # a compiler does not listen
    return small_run.loss_fn(params, batch, key)


def feed(position):
    for batch in small_run.batches(position):
        if batch["_id"][0] == 24:
            reached("data")
            if sys.argv[4:] == ["train"]:
                print("train", flush=True)
        time.sleep(0.01)
        yield batch


class Evaluate(small_run.Mean):
    def __call__(self, params, *, stop):
        reached("evaluation")
        return super().__call__(params, stop=stop)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    compilation.enable_cache(sys.argv[3])
    with preemption.listen() as stop:
        small_run.run(
            small_run.pathlib.Path(sys.argv[1]),
            int(sys.argv[2]),
            step=small_run.train_step(loss_fn),
            feed=feed,
            stop=stop,
            save_every=2,
            evaluate=Evaluate(),
        )
    print(f"done, cache hits {compilation.tally().hits}, misses {compilation.tally().misses}", flush=True)
