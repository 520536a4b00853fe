"""A plan as text for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

GIB = 2**30
MARGIN = 0.95
"""The share of the memory above which a step may run out of it all the same."""


def text(found: Mapping[str, Any]) -> str:
    """The plan `report.make` found, figure by figure with how it was got."""
    mesh = ", ".join(f"{axis}={size}" for axis, size in found["mesh"].items()) or "one device"
    head = (
        f"{found['experiment']} on {found['topology']}: {found['devices']:,} devices ({found['device_kind']},"
        f" {found['chips']:,} chips), mesh {mesh}, rules {found['rules']}, batch {found['batch_size']:,}"
    )
    rows = _memory(found) + (_step(found) + _run(found) if found["step_seconds"] is not None else [])
    width = max(len(name) for name, _, _ in rows)
    lines = [f"  {name:{width}}  {value:<44}  {how}".rstrip() for name, value, how in rows]
    notes = [f"  - {one}" for one in found["assumptions"]]
    warnings = [f"Note: {one}" for one in found["warnings"] or ()]
    return "\n".join([head, verdict(found), *lines, *(["It rests on:"] if notes else []), *notes, *warnings])


def verdict(found: Mapping[str, Any]) -> str:
    """One line: whether it fits."""
    available = _gib(found["available_bytes"])
    if found["fits"]:
        share = found["peak_bytes"] / found["available_bytes"]
        said = f"{_gib(found['peak_bytes'])} of {available} a device ({share:.0%}), {1 - share:.0%} to spare"
        if share > MARGIN:
            return f"fits barely: {said}; keep 5 to 10 %: evaluation and fragmentation may need them"
        return f"fits: {said}"
    temporaries = found["memory"].get("temporaries")
    return (
        f"does not fit: {_gib(temporaries)} of temporaries against {available} a device, beside"
        f" {_gib(found['peak_bytes'] - temporaries)} of state and batch. Recompute (--config.model.remat=full), cut the"
        " state (rules fsdp), take a smaller batch or more devices; --search looks for what fits."
    )


def _memory(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    how, memory = found["how"], found["memory"]
    rows = [
        ("parameters", f"{found['parameters'] / 1e6:,.1f} M, {_gib(found['parameter_bytes'])}", how["parameter_bytes"]),
        ("optimizer state", _gib(found["optimizer_bytes"]), how["optimizer_bytes"]),
        ("peak memory", f"{'' if found['fits'] else 'at least '}{_gib(found['peak_bytes'])}", how["peak_bytes"]),
    ]
    rows += [(f"  {name}", _gib(size), how["memory"]) for name, size in memory.items()]
    if found["host_bytes"]:
        rows.append(("state on the host", _gib(found["host_bytes"]), how["host_bytes"]))
    for one in found["largest_arrays"] or ():
        padding = f", {one['bytes'] / one['unpadded_bytes']:.2f} x with padding" if one["unpadded_bytes"] else ""
        rows.append(("  makes", f"{one['shape']} {_gib(one['bytes'])}{padding}", one["source"]))
    return rows


def _step(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    how = found["how"]
    rows = [("FLOPs of a step", f"{found['flops'] / 1e12:,.2f} T over all devices", how["flops"])]
    for one in found["collectives"]:
        over = f"{one['axes']} ({one['devices']} devices{', across slices' if one['across'] else ''})"
        value = f"{_gib(one['bytes'])} over {over}, {one['count']} times"
        rows.append((one["kind"], value, how["collectives"]))
    cycles = "" if found["estimated_cycles"] is None else f", {found['estimated_cycles']:,} cycles"
    rows.append(("computing", f"{_ms(found['compute_seconds'])}{cycles}", how["compute_seconds"]))
    if found["kernel_seconds"]:
        rows.append(("in kernels", _ms(found["kernel_seconds"]), how["kernel_seconds"]))
    rows += [
        ("sending", _ms(found["collective_seconds"]), how["collective_seconds"]),
        ("roofline", _ms(found["roofline_seconds"]), how["roofline_seconds"]),
        ("step", f"{_ms(found['step_seconds'])}, {_span(found['step_seconds_range'], _ms)}", found["time_source"]),
        ("MFU", f"{found['mfu']:.1%}, {_span(found['mfu_range'], lambda share: f'{share:.1%}')}", how["mfu"]),
        ("images a second", f"{found['images_per_second']:,.0f}", how["images_per_second"]),
    ]
    return rows


def _run(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    how = found["how"]
    rows = [
        ("steps", f"{found['steps']:,}", how["steps"]),
        ("days", f"{_days(found['days'])}, {_span(found['days_range'], _days)}", how["days"]),
        ("device-days", f"{found['device_days']:,.1f}", how["device_days"]),
        ("core-days", f"{found['core_days']:,.1f}, {_span(found['core_days_range'], _number)}", how["core_days"]),
    ]
    if found["cost"] is not None:
        value = f"{_number(found['cost'])}, {_span(found['cost_range'], _number)} {found['currency']}"
        rows.append(("cost", value, how["cost"]))
    return rows


def _span(pair: Sequence[float], form: Any) -> str:
    return f"between {form(pair[0])} and {form(pair[1])}"


def _number(value: float) -> str:
    return f"{value:,.1f}"


def _days(days: float) -> str:
    return f"{days:,.1f}" if days >= 2 else f"{days:.2f} ({days * 24:.1f} h)"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms"


def _gib(size: float) -> str:
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 100 else f"{size / 2**20:,.2f} MiB"
