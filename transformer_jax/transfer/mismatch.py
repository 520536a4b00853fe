"""What to tell a user whose weights are not those of the model."""

import re
from collections.abc import Sequence

from transformer_jax import paths, types
from transformer_jax.transfer import architecture, layouts

_MISSING = "All weights but head and position embedding must be in the file in the shapes of the model"
_LEFT = "All weights of the file that take part in every answer must be in the model"
_SHOWN = 8  # faults in one error message
# What may be left out of a model: it is chosen anew for every task, or with how its tokens become one vector.
_OPTIONAL = re.compile(r"head|pre_logits/|cls$|dist$|pool/|position$")
_KEPT_BY = {  # the setting that builds what a file has; `count` is the length of the first of its arrays
    r"blocks/\d+/scale[12]/": ("model.layer_scale=1e-5", "layer scale"),
    r"blocks/\d+/attention/query_norm/scale": ("model.qk_norm=True", "norms of queries and keys"),
    r"blocks/\d+/attention/query_norm/bias": ("model.qk_norm_bias=True", "biases of these norms"),
    r"blocks/\d+/mlp/gate/": ("model.mlp='gated'", "gates"),
    r"registers$": ("model.registers={count}", "registers"),
}


def require_fit(
    title: str, layout: str, found: types.FlatTree, target: types.FlatTree, unused: Sequence[str], *, skip: set[str]
) -> None:
    """Raises `InputError` unless every path of the target, but for `skip`, is in `found` in its shape, and nothing of
    `found` is left over but what a model may do without: heads, how tokens are pooled, the position embedding.

    `title` and `layout` are those of the file, `unused` its names that are no parameters.
    """
    left = [path for path in found if path not in target]
    faults, spare = [], [*left, *unused]
    for path, leaf in target.items():
        if path in skip:
            continue
        if path not in found:
            faults.append(f"{path}: missing in the file{_near(path, spare, layout)}")
        elif tuple(found[path].shape) != tuple(leaf.shape):
            faults.append(f"{path}: {tuple(found[path].shape)} in the file, {tuple(leaf.shape)} in the model.")
    rule, count = _MISSING, f"{len(faults)} of {len(target)} are not"
    if not faults:  # else what is left over may be what is missing, under another name
        faults = [f"{path}: the model has none." for path in left if not _OPTIONAL.match(path)]
        rule, count = _LEFT, f"{len(faults)} parameters are not"
    if not faults:
        return
    more = [f"  and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    raise types.InputError(
        f"{rule}: {count}.\n"
        + "\n".join([f"  {fault}" for fault in faults[:_SHOWN]] + more)
        + f"\nThe file: {title}, {architecture.summary(found)}"
        + f"\nThe model: {architecture.summary(target)}"
        + f"\nChoose the model after the file.{_remedy(found, target)}"
    )


def _near(path: str, spare: Sequence[str], layout: str) -> str:
    """The unused names of the file that look like the missing one, by its name in the layout of the file."""
    theirs = layouts.rename(path, layout) if layout in layouts.LAYOUTS else None
    called = f", where it would be {theirs!r}" if theirs and theirs != path else ""
    return called + "." + (paths.did_you_mean(theirs or path, spare) or " Nothing in the file has a similar name.")


def _remedy(found: types.FlatTree, target: types.FlatTree) -> str:
    """Settings that would make the model like the file, where one setting does."""
    remedies = {
        "blocks/0/scale1/scale": ("model.layer_scale=None", "layer scale"),
        "pre_logits/kernel": ("model.pre_logits=False", "a hidden layer before the head"),
        "cls": ("model.pool='gap'", "a class token"),
        "dist": ("model.distilled=False", "a distillation token"),
        "registers": ("model.registers=0", "registers"),
        "position": ("model.position='sincos2d' or 'none'", "a learned position embedding"),
    }
    hints = [
        f" {setting} builds it without {what}, which the file lacks."
        for path, (setting, what) in remedies.items()
        if path in target and path not in found
    ]
    for pattern, (setting, what) in _KEPT_BY.items():
        theirs = [name for name in found if re.match(pattern, name)]
        if theirs and not any(re.match(pattern, name) for name in target):
            hints.append(f" {setting.format(count=found[theirs[0]].shape[0])} builds it with the {what} of the file.")
    kernels = [flat["embedding/kernel"].shape[:2] for flat in (found, target) if "embedding/kernel" in flat]
    if len(kernels) == 2 and kernels[0] != kernels[1]:
        hints.append(" init_from.patch='pinv' resizes the patches.")
    return "".join(hints)
