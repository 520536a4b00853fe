"""What to tell a user whose weights are not those of the model."""

from collections.abc import Sequence

from transformer_jax import paths, types
from transformer_jax.transfer import architecture, layouts

_SHOWN = 8  # faults in one error message


def require_fit(
    title: str, layout: str, found: types.FlatTree, target: types.FlatTree, unused: Sequence[str], *, skip: set[str]
) -> None:
    """Raises `InputError` unless every path of the target, but for `skip`, is in `found` in its shape.

    `title` and `layout` are those of the file, `unused` its names that are no parameters.
    """
    spare = [path for path in found if path not in target] + list(unused)
    faults = []
    for path, leaf in target.items():
        if path in skip:
            continue
        if path not in found:
            faults.append(f"{path}: missing in the file{_near(path, spare, layout)}")
        elif tuple(found[path].shape) != tuple(leaf.shape):
            faults.append(f"{path}: {tuple(found[path].shape)} in the file, {tuple(leaf.shape)} in the model.")
    if not faults:
        return
    more = [f"  and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    raise types.InputError(
        "All weights but head and position embedding must be in the file in the shapes of the model:"
        f" {len(faults)} of {len(target)} are not.\n"
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
    kernels = [flat["embedding/kernel"].shape[:2] for flat in (found, target) if "embedding/kernel" in flat]
    if len(kernels) == 2 and kernels[0] != kernels[1]:
        hints.append(" init_from.patch='pinv' resizes the patches.")
    return "".join(hints)
