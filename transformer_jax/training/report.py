"""Plots of a run, and a page to look at them: one self-contained HTML file, for light and dark screens."""

import base64
import dataclasses
import html
import io
import itertools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from transformer_jax.training import reporting

PAGE = "report.html"
_COLORS = ("#3b82c4", "#e07b39", "#3a9d6e", "#b1569e", "#8a8f2a", "#c4544f", "#5f6fd0", "#7d7d7d")
_salts = itertools.count()
_NUMBERED = 16  # of a matrix: so many classes have their counts written out
_INK = "#123456"  # replaced by `currentColor`: text and axes take the colour of the page


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of a plot; `spread` is half the height of its error bars."""

    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] | None = None


@dataclasses.dataclass(frozen=True)
class Figure:
    """A finished plot: `svg` for a page, `png` for everything else."""

    svg: str
    png: bytes


@dataclasses.dataclass(frozen=True)
class Picture:
    """Pixels, and what they show in words."""

    png: bytes
    caption: str


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading, some text, a table (the first row is its head), figures, pictures."""

    title: str
    text: str = ""
    table: Sequence[Sequence[Any]] = ()
    figures: Sequence[Figure] = ()
    pictures: Sequence[Picture] = ()


def curves(
    series: Mapping[str, Series],
    *,
    title: str = "",
    x: str = "step",
    y: str = "",
    log_x: bool = False,
    log_y: bool = False,
    smooth: float | Mapping[str, float] = 0.0,
) -> Figure:
    """Lines, or points with error bars where a series has a spread, in one plot.

    Colours go by position: plots that list the same names in the same order agree. `smooth`, in [0, 1), draws running
    means over faint lines of the values; `{name: weight}` does so for these series only.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(6.4, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, (name, line) in enumerate(series.items()):
        weight = smooth.get(name, 0.0) if isinstance(smooth, Mapping) else smooth
        _draw(axes, name, line, _COLORS[index % len(_COLORS)], weight)
    if log_x:
        _log_x(axes, sorted({value for line in series.values() for value in line.x}))
    if log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "235" else "")
    axes.set(title=title, xlabel=x, ylabel=y)
    if len(series) > 1:
        axes.legend(frameon=False, labelcolor=_INK)
    _ink(axes)
    return Figure(svg=_svg(figure, title), png=_png(figure))


def matrix(
    counts: Float[np.ndarray, "rows columns"] | Int[np.ndarray, "rows columns"],
    names: Sequence[str],
    *,
    title: str = "",
    x: str = "predicted",
    y: str = "true",
) -> Figure:
    """Counts as a grid of squares, each as dark as its share of its row; the numbers stand in small ones."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(6.4, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    colors = np.broadcast_to(to_rgb(_COLORS[0]), (*counts.shape, 3))
    axes.imshow(np.concatenate([colors, shares[..., None]], axis=2), interpolation="nearest")
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    if len(names) <= _NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            axes.text(column, row, f"{counts[row, column]:g}", ha="center", va="center", fontsize=8, color=_INK)
    axes.set(title=title, xlabel=x, ylabel=y)
    _ink(axes)
    axes.grid(False)
    axes.tick_params(labelsize=min(9.0, 360 / len(names)), length=0)
    return Figure(svg=_svg(figure, title), png=_png(figure))


def _draw(axes: Any, name: str, line: Series, color: str, smooth: float) -> None:
    look = {"label": name, "color": color, "lw": 1.6}
    if line.spread is not None:
        axes.errorbar(line.x, line.y, yerr=line.spread, marker="o", ms=4, capsize=3, **look)
    elif smooth and len(line.y) > 10:
        axes.plot(line.x, line.y, color=color, lw=0.8, alpha=0.3)
        axes.plot(line.x, running_mean(line.y, smooth), **look)
    else:
        axes.plot(line.x, line.y, marker="o" if len(line.x) < 30 else None, ms=3, **look)


def _log_x(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic axis; a few values are its ticks."""
    axes.set_xscale("log")
    if len(values) <= 8:
        axes.set_xticks(values, [f"{value:g}" for value in values], minor=False)
        axes.set_xticks([], minor=True)


def running_mean(values: Sequence[float], weight: float) -> list[float]:
    """Exponential mean that starts without bias."""
    means, total, norm = [], 0.0, 0.0
    for value in values:
        total = weight * total + (1.0 - weight) * value
        norm = weight * norm + (1.0 - weight)
        means.append(total / norm)
    return means


def page(title: str, sections: Sequence[Section], *, subtitle: str = "") -> str:
    """The sections as one HTML document that needs nothing else."""
    body = "\n".join(_section(section) for section in sections)
    return _PAGE.format(title=html.escape(title), subtitle=html.escape(subtitle), body=body)


def run(directory: str | os.PathLike[str], *, title: str | None = None) -> pathlib.Path:
    """Writes `report.html` and a PNG a plot into a run directory, from its `metrics.jsonl`. Returns the page."""
    place = pathlib.Path(directory)
    lines = reporting.read(place / reporting.METRICS)
    figures = {}
    for stem, names in groups(lines).items():
        series = {name: series_of(lines, name) for name in names}
        positive = all(value > 0 for line in series.values() for value in line.y)
        smooth = {name: 0.8 for name in names if name.startswith(("train/", "time/"))}
        figures[stem] = curves(series, title=stem.replace("_", " "), log_y=stem == "loss" and positive, smooth=smooth)
    for stem, figure in figures.items():
        (place / f"{stem}.png").write_bytes(figure.png)
    last: dict[str, Any] = {}
    for line in lines:
        last.update(line)
    table = [("metric", "last value"), *((k, f"{v:g}") for k, v in sorted(last.items()) if _is_shown(k, v))]
    sections = [Section("Curves", figures=list(figures.values())), Section("Last values", table=table)]
    path = place / PAGE
    path.write_text(page(title or place.absolute().name, sections, subtitle=f"{last.get('step', 0)} steps"))
    return path


def groups(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Metrics that belong in one plot: those with the same last word (`train/loss`, `val/loss`). Clocks are left out
    but for the images a second."""
    names = sorted({name for line in lines for name, value in line.items() if _is_shown(name, value)})
    grouped: dict[str, list[str]] = {}
    for name in names:
        stem = name.rpartition("/")[2]
        if not name.startswith("time/") or stem == "images_per_s":
            grouped.setdefault(stem, []).append(name)
    return grouped


def series_of(lines: Sequence[Mapping[str, Any]], name: str) -> Series:
    """The values of one metric over steps."""
    points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    return Series([step for step, _ in points], [value for _, value in points])


def _is_shown(name: str, value: Any) -> bool:
    return name not in ("step", "wall") and isinstance(value, int | float)


def _ink(axes: Any) -> None:
    axes.tick_params(which="both", colors=_INK, labelsize=9)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(_INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)
    axes.grid(True, color=_INK, alpha=0.12, lw=0.6)


def _svg(figure: Any, salt: str) -> str:
    import matplotlib

    text = io.StringIO()
    # Every figure salts its ids: two with the same would borrow each other's clip paths.
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": f"{salt}{next(_salts)}", "font.family": "sans-serif"}
    ):
        figure.savefig(
            text, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :].replace(_INK, "currentColor")


def _png(figure: Any) -> bytes:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120, facecolor="white")
    return image.getvalue()


def _section(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    parts += [f"<p>{html.escape(paragraph)}</p>" for paragraph in section.text.split("\n\n") if paragraph]
    if section.table:
        head, *rows = section.table
        cells = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in head)
        lines = ["".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows]
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        parts.append(f"<div class=table><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>")
    for picture in section.pictures:
        data = base64.b64encode(picture.png).decode()
        text = html.escape(picture.caption)
        parts.append(
            f'<figure class=picture><img src="data:image/png;base64,{data}" alt="{text}">'
            f"<figcaption>{text}</figcaption></figure>"
        )
    if section.figures:
        parts.append("<div class=figures>" + "".join(f"<figure>{f.svg}</figure>" for f in section.figures) + "</div>")
    return "\n".join(parts)


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1d2433; --paper: #fbfbfa; --card: #fff; --line: #dfe1e5; --soft: #667; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #dde2ea; --paper: #14171c; --card: #1c2027; --line: #333944; --soft: #98a1b0; }}
}}
body {{ margin: 0 auto; max-width: 82rem; padding: 2.5rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }}
h1 {{ font-size: 1.7rem; margin: 0; }}
h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .8rem; }}
.subtitle {{ color: var(--soft); margin: .2rem 0 0; }}
.figures {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1rem; }}
figure {{ margin: 0; padding: .8rem; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }}
.picture {{ width: fit-content; }}
.picture img {{ max-width: 100%; display: block; }}
figcaption {{ color: var(--soft); font-size: .85rem; margin-top: .5rem; }}
figure svg {{ width: 100%; height: auto; display: block; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: .35rem 1.2rem .35rem 0; border-bottom: 1px solid var(--line); }}
th {{ color: var(--soft); font-weight: 600; }}
</style>
<h1>{title}</h1>
<p class="subtitle">{subtitle}</p>
{body}
</html>
"""
