"""The names of the BiT ResNets (1912.11370) as Google published them: TensorFlow's words, units of two digits."""

from transformer_jax.transfer.layouts import rules

Rule = rules.Rule
_UNIT, _THEIRS = "block{b}/unit{u}", "resnet/block{b}/unit{u:02}"


def _norm(ours: str, theirs: str) -> rules.Table:
    return Rule(f"{ours}/scale", f"{theirs}/gamma"), Rule(f"{ours}/bias", f"{theirs}/beta")


TABLE: rules.Table = (
    Rule("root/conv/kernel", "resnet/root_block/standardized_conv2d/kernel"),
    *(
        rule
        for number, letter in enumerate("abc", start=1)
        for rule in (
            *_norm(f"{_UNIT}/norm{number}", f"{_THEIRS}/{letter}/group_norm"),
            Rule(f"{_UNIT}/conv{number}/kernel", f"{_THEIRS}/{letter}/standardized_conv2d/kernel"),
        )
    ),
    Rule(f"{_UNIT}/conv_proj/kernel", f"{_THEIRS}/a/proj/standardized_conv2d/kernel"),
    *_norm("norm", "resnet/group_norm"),
    Rule("head/kernel", "resnet/head/conv2d/kernel", "two"),
    Rule("head/bias", "resnet/head/conv2d/bias"),
)
