import re
from pathlib import Path

import pytest

from transformer_jax.tools.plan import program_text

FOLDER = Path(__file__).parent / "programs"
SMALL = """HloModule small, is_scheduled=true

%fused (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %inner = f32[8,128]{1,0:T(8,128)} negate(%p), backend_config={"estimated_cycles":"999"}
}

%cheap (c: f32[8,128]) -> f32[8,128] {
  ROOT %c = f32[8,128]{1,0:T(8,128)} parameter(0)
}

%dear (d: f32[8,128]) -> f32[8,128] {
  %d = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %work = f32[8,128]{1,0:T(8,128)} fusion(%d), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"50"}
}

%body (b: (s32[], s32[], f32[8,128])) -> (s32[], s32[], f32[8,128]) {
  %b = (s32[], s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%b), index=2
  %y = f32[8,128]{1,0:T(8,128)} fusion(%x), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"100"}
  ROOT %out = (s32[], s32[], f32[8,128]{1,0:T(8,128)}) tuple(%x, %y)
}

%until (u: (s32[], s32[], f32[8,128])) -> pred[] {
  %u = (s32[], s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(256)} get-tuple-element(%u), index=0
  %n = s32[]{:T(256)} get-tuple-element(%u), index=1
  ROOT %lt = pred[]{:T(1024)} compare(%i, %n), direction=LT
}

ENTRY %main (a: f32[8,128], which: s32[]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %which = s32[]{:T(256)} parameter(1)
  %from = s32[]{:T(256)} constant(2)
  %to = s32[]{:T(256)} constant(9)
  %copied = s32[]{:T(256)} copy(%to)
  %start = (s32[], s32[], f32[8,128]{1,0:T(8,128)}) tuple(%from, %copied, %a)
  %loop = (s32[], s32[], f32[8,128]{1,0:T(8,128)}) while(%start), condition=%until, body=%body
  %z = f32[8,128]{1,0:T(8,128)} get-tuple-element(%loop), index=2
  %odd = f32[3,129,9]{1,2,0:T(8,128)} broadcast(%z), metadata={op_name="odd"}
  ROOT %chosen = f32[8,128]{1,0:T(8,128)} conditional(%which, %z, %z), branch_computations={%cheap, %dear}
}
"""


def walked(text):
    return program_text.walk(*program_text.parse(text))


def test_a_loop_counts_as_often_as_it_turns_a_fusion_once_a_conditional_as_its_dearest_branch():
    runs, unknown = walked(SMALL)
    assert program_text.cycles(runs) == (9 - 2) * 100 + 50
    assert unknown == []


def test_a_loop_of_unknown_length_counts_once_and_is_named():
    runs, unknown = walked(SMALL.replace("direction=LT", "direction=LE"))
    assert program_text.cycles(runs) == 100 + 50
    assert unknown == ["loop"]


@pytest.mark.parametrize("name", ["scanned", "sharded", "offloaded", "slices"])
def test_twice_the_turns_cost_the_body_of_the_loop_again(name):
    """Of programs of the compiler, against the sum of the lines of their loops, read without the parser."""
    text = (FOLDER / f"{name}.txt").read_text()
    conditions = re.findall(r"condition=%([\w.-]+), body=%([\w.-]+)", text)
    runs, unknown = walked(text)
    assert len(conditions) == 2 and unknown == []  # forwards and backwards
    longer, expected = text, 0
    for condition, body in conditions:
        block = re.search(rf"^%{re.escape(condition)} \(.*?^}}", longer, re.M | re.S)[0]
        turns = int(re.search(r"s32\[\][^ ]* constant\((\d+)\)", block)[1])
        assert turns in (4, 5)  # of 5 layers; the compiler may peel one off
        longer = longer.replace(block, block.replace(f"constant({turns})", f"constant({2 * turns})"))
        lines = re.search(rf"^%{re.escape(body)} \(.*?^}}", text, re.M | re.S)[0]
        expected += turns * sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', lines)))
    assert expected > 0
    assert program_text.cycles(walked(longer)[0]) - program_text.cycles(runs) == expected


def test_a_tile_pads_its_array():
    runs, _ = walked(SMALL)
    odd = program_text.largest(runs, 1)[0]
    assert (odd.shape, odd.unpadded, odd.source) == ("f32[3,129,9]", 3 * 129 * 9 * 4, "odd")
    assert odd.bytes == 3 * 256 * 16 * 4  # the minor axis is the second: 129 -> 256, then 9 -> 16


def test_kernels_without_an_estimate_are_counted():
    kernel = '  %k = f32[8,128]{1,0} custom-call(%x), custom_call_target="tpu_custom_call"\n  ROOT %out'
    runs, _ = walked(SMALL.replace("  ROOT %out", kernel))
    assert program_text.uncosted_kernels(runs) == 7


def test_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        program_text.parse("HloModule empty")
