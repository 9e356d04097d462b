"""The page of a diagnosis: one self-contained HTML file."""

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from modsync_jax.reporting import _drawing, _fields, _html
from modsync_jax.reporting._drawing import PALETTE, WIDTH, colour_bar
from modsync_jax.reporting._history import curve
from modsync_jax.reporting._numbers import number, percent, signed
from modsync_jax.reporting._run import layer_label

_FEW_PAIRS = 6  # pairs with curves of their own; of more, the lowest and the highest are drawn


class _Found(NamedTuple):
    """The files of a diagnosis.

    Attributes:
      facts: `diagnosis.json`.
      arrays: `diagnosis.npz`.
    """

    facts: Mapping[str, Any]
    arrays: Mapping[str, NDArray]

    @property
    def names(self) -> list[str]:
        return list(self.facts["objectives"])

    @property
    def steps(self) -> NDArray:
        """The step of each row."""
        return np.array(self.facts["marks"])

    def column(self, name: str) -> NDArray:
        return np.array([row[name] for row in self.facts["rows"]])

    def family(self, kind: str) -> dict[str, NDArray]:
        start = f"{kind}/"
        found = {n.removeprefix(start): v for n, v in self.arrays.items() if n.startswith(start)}
        return {name.replace("network/params/", ""): value for name, value in found.items()}

    @property
    def pairs(self) -> list[str]:
        rows = self.facts["rows"]
        return [name.removeprefix("cosine/") for name in rows[0] if name.startswith("cosine/")]


def write_diagnosis(folder: str | os.PathLike) -> Path:
    """Draws the figures of a diagnosis and writes its page.

    Args:
      folder: with `diagnosis.json` and `diagnosis.npz`.

    Returns:
      The path of `diagnosis.html`. `figures/` holds PNG files.

    Raises:
      FileNotFoundError: a file is missing.
    """
    path = Path(folder)
    with np.load(path / "diagnosis.npz") as arrays:
        found = _Found(_facts(path), dict(arrays))
    figures = []
    for name, (draw, _) in _PICTURES.items():
        image = _drawing.save(partial(draw, found), path / "figures" / name, pdf=False)
        figures.append(_html.figure(image, name, _caption(name, found.facts)))
    page = path / "diagnosis.html"
    body = _body(found.facts, "\n".join(figures))
    page.write_text(_html.page(_title(found.facts), body), encoding="utf-8")
    return page


def diagnosis_markdown(folder: str | os.PathLike) -> str:
    """Returns the page of a diagnosis as Markdown, with its pictures beside it.

    Args:
      folder: with `diagnosis.json`.
    """
    facts = _facts(Path(folder))
    head, *rows = _evidence(facts)
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    pictures = [f"![{name}]({name}.png)\n\n{_caption(name, facts)}" for name in _PICTURES]
    parts = [f"# {_title(facts)}", facts["reason"], *_doubts(facts), _recommended(facts, "`")]
    parts += [f"```\n{facts['command']}\n```", _beyond(facts), _about(facts)]
    parts += ["## What decided", table]
    return "\n\n".join([*parts, "## Figures", *pictures]) + "\n"


def _facts(path: Path) -> dict[str, Any]:
    return json.loads((path / "diagnosis.json").read_text())


def _title(facts: Mapping[str, Any]) -> str:
    return f"{facts['problem']}: {facts['regime']}"


def _recommended(facts: Mapping[str, Any], quote: str = "") -> str:
    training = " for first-order training" if facts.get("second_order") else ""
    return f"Recommended{training}: {quote}{facts['method']}{quote}."


def _beyond(facts: Mapping[str, Any]) -> str:
    if facts.get("second_order"):
        return (
            f"This run was trained by {facts['trained_by']}. Its curvature rescales the gradients, "
            "so that a regime of plain gradients need not hold it back."
        )
    return (
        f"This network has {facts['weights']:,} weights. Networks of up to some thousand reach far "
        "lower errors with the second-order recipe, --preset=best, whatever the regime."
    )


def _doubts(facts: Mapping[str, Any]) -> list[str]:
    if not facts["borderline"]:
        return []
    verb = "is" if len(facts["borderline"]) == 1 else "are"
    also = ", ".join(facts["borderline"])
    return [f"Not clear-cut: present too, or close to the bounds, {verb} {also}."]


def _about(facts: Mapping[str, Any]) -> str:
    *most, last = facts["objectives"]
    settings = ", ".join(f"{name} {value}" for name, value in facts["settings"].items())
    how = f"{facts['trained_by']}; {settings}"
    error = facts["error"]
    known = "" if error is None else f", whose relative L2 error is {number(error)}"
    return (
        f"This is what {facts['marks'][-1]:,} steps showed ({how}). The "
        f"losses are {', '.join(most)} and {last}. All pictures but the first are of the network "
        f"after step {facts['shown']:,}{known}."
    )


def _caption(name: str, facts: Mapping[str, Any]) -> str:
    """What a picture shows, and for modules also what it says here."""
    text = _PICTURES[name][1]
    if name != "modules":
        return text
    single, useless = facts["modules"]["single"], facts["modules"]["no_better_than_random"]
    said = f"Here {percent(single)} of the weights are in one support alone. "
    if not useless:
        return f"{text} {said}Every loss rises less under its own mask than under random ones."
    masks, are, them = ("masks", "are", "them") if len(useless) > 1 else ("mask", "is", "it")
    return (
        f"{text} {said}The {masks} of {' and '.join(useless)} {are} no better than random ones, so "
        f"nothing follows from {them}."
    )


def _body(facts: Mapping[str, Any], figures: str) -> str:
    texts = [facts["reason"], *_doubts(facts), _recommended(facts)]
    above, below = (
        "\n".join(f"<p>{escape(text)}</p>" for text in part)
        for part in (texts, [_beyond(facts), _about(facts)])
    )
    return f"""{above}
<pre>{escape(facts["command"])}</pre>
{below}
<h2>What decided</h2>
{_html.numbers(_evidence(facts))}
<h2>Figures</h2>
{figures}"""


def _evidence(facts: Mapping[str, Any]) -> list[list[str]]:
    seen, bounds = facts["evidence"], facts["bounds"]
    return [
        ["", "here", "bound", "which shows"],
        [
            "longest gradient over shortest, geometric mean",
            number(seen["norm_ratio"]),
            f"{bounds['ratio']:g} or more",
            "magnitude imbalance",
        ],
        [
            f"share of the training with a cosine below -{bounds['conflict']:g}",
            percent(seen["lasting"]),
            f"{percent(bounds['lasting'])} or more",
            "persistent directional conflict",
        ],
        [
            "cosines of all batches, root mean square",
            number(seen["rms_cosine"]),
            f"{bounds['orthogonal']:g} or less",
            "orthogonal gradients",
        ],
    ]


def _course(found: _Found) -> Figure:
    figure = Figure(figsize=(WIDTH, 7.0))
    cosine, ratio, loss = figure.subplots(3, 1, sharex=True, height_ratios=[2.6, 1.6, 2.0])
    shown = found.pairs
    if len(shown) > _FEW_PAIRS:
        by_mean = sorted(shown, key=lambda pair: found.column(f"cosine/{pair}").mean())
        shown = [*by_mean[: _FEW_PAIRS // 2], *by_mean[-_FEW_PAIRS // 2 :]]
    for pair, colour in zip(shown, PALETTE, strict=False):
        mean, spread = found.column(f"cosine/{pair}"), found.column(f"spread/{pair}")
        curve(cosine, found.steps, mean, _words(pair), color=colour, linestyle="-")
        low, high = np.clip(mean - spread, -1, 1), np.clip(mean + spread, -1, 1)
        cosine.fill_between(found.steps, low, high, color=colour, alpha=0.12)
    bounds = found.facts["bounds"]
    _bound(cosine, -bounds["conflict"])
    cosine.axhline(0, color="black", linewidth=0.8)
    cosine.set(ylim=(-1.05, 1.05), ylabel="cosine of gradients")
    curve(ratio, found.steps, found.column("norm_ratio"), None, color="0.3", linestyle="-")
    _bound(ratio, bounds["ratio"])
    ratio.set(yscale="log", ylabel="longest gradient\nover shortest")
    for name in found.names:
        curve(loss, found.steps, found.column(f"loss/{name}"), name)
    loss.set(yscale="log", ylabel="loss", xlabel="step")
    loss.xaxis.set_major_formatter("{x:,.0f}")
    for axis in (cosine, loss):
        axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0)
    figure.align_ylabels([cosine, ratio, loss])
    return figure


def _layers(found: _Found) -> Figure:
    layers = [n for n in _layers_of(found) if n.endswith("kernel")]
    pairs = found.pairs
    height = max(2.4, 0.4 * len(layers) + 1.2)
    figure = Figure(figsize=(WIDTH, height + 1.5 * len(layers)))
    parts: Any = figure.subfigures(2, 1, height_ratios=[height, 1.5 * len(layers)])
    axis, below = parts[0].subplots(), parts[1]
    of_layers = found.family("layer")
    values = np.array([[of_layers[f"layer_cosine/{p}/{n}"] for p in pairs] for n in layers])
    mesh = axis.imshow(values, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    axis.set_yticks(range(len(layers)), [layer_label(n) for n in layers])
    few = len(pairs) <= _FEW_PAIRS
    axis.set_xticks(range(len(pairs)), [_words(p) for p in pairs], rotation=0 if few else 90)
    axis.grid(False)
    if few:
        for (i, j), value in np.ndenumerate(values):
            colour = "white" if abs(value) > 0.6 else "black"
            axis.text(j, i, signed(value, "z.2f"), ha="center", va="center", color=colour)
    axis.set_title("cosine of gradients in each layer")
    colour_bar(axis, mesh)
    centres = (found.arrays["edges"][1:] + found.arrays["edges"][:-1]) / 2
    histograms = found.family("histogram")
    panels = below.subplots(len(layers), 1, sharex=True, squeeze=False)[:, 0]
    for panel, layer in zip(panels, layers, strict=True):
        for name in found.names:
            counts = histograms[f"{name}/{layer}"]
            panel.step(centres, counts / counts.sum(), where="mid", label=name)
        panel.set_ylabel(layer_label(layer))
        panel.set_yticks([])
    inside = [histograms[f"{n}/{layer}"] for n in found.names for layer in layers]
    there = np.flatnonzero(np.sum(inside, axis=0))
    panels[-1].set_xlim(centres[max(there[0] - 1, 0)], centres[min(there[-1] + 1, 63)])
    panels[-1].set_xlabel("size of a gradient's entries, log10")
    panels[0].legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0)
    return figure


def _spectra(found: _Found) -> Figure:
    figure = Figure(figsize=(WIDTH, 3.4))
    axis = figure.subplots()
    top = 0.0
    for name, values in found.family("spectrum").items():
        top = max(top, values[0])
        label = f"{name}, trace {number(values.sum())}"
        axis.plot(np.arange(1, len(values) + 1), np.maximum(values, 0), label=label)
    axis.set(xscale="log", yscale="log", xlabel="number", ylabel="eigenvalue")
    axis.set_ylim(bottom=1e-7 * top, top=3 * top)  # below, single precision is noise
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0)
    return figure


def _slices(found: _Found) -> Figure:
    names, steps = found.names, found.arrays["slice/steps"]
    columns = min(len(names), 3)
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(WIDTH, 2.9 * lines))
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
    for k, (panel, name) in enumerate(zip(panels, names, strict=False)):
        for j, other in enumerate(names):
            panel.plot(
                steps, found.arrays["slice/losses"][k, :, j], color=PALETTE[j % 6], label=other
            )
        panel.axvline(0, color="0.6", linewidth=0.8)
        nearest = float(np.abs(steps[steps != 0]).min())
        panel.set_xscale("symlog", linthresh=nearest, linscale=0.5)
        panel.set(yscale="log", title=f"downhill for {name}")
        panel.set_xticks([-1e-2, -1e-4, 0, 1e-4, 1e-2])
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    figure.supxlabel("step, share of the weights' norm", fontsize=10.5)
    figure.supylabel("loss", fontsize=10.5)
    panels[columns - 1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0)
    return figure


def _modules(found: _Found) -> Figure:
    of = found.family("module")
    names, pairs = found.names, found.pairs
    layers = [n for n in _layers_of(found) if f"single/{n}" in of]
    figure = Figure(figsize=(WIDTH, max(3.4, 0.4 * len(layers) + 1.6)))
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.3, 1, 1])
    worst = [max(float(of[f"jaccard/{p}/{n}"]) for p in pairs) for n in layers]
    single = [float(of[f"single/{n}"]) for n in layers]
    places = np.arange(len(layers))
    left.barh(places - 0.2, worst, 0.38, label="Jaccard distance (farthest pair)")
    left.barh(places + 0.2, single, 0.38, label="kept by one loss alone")
    left.set_yticks(places, [layer_label(n) for n in layers])
    left.invert_yaxis()
    left.set_xlim(0, 1)
    left.set_title("supports of the losses")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), fontsize=8.5)
    for axis, kind, title in (
        (middle, "ablation", "learnt mask"),
        (right, "ablation_random", "random masks of its size"),
    ):
        factors = np.array([[float(of[f"{kind}/{a}|{b}"]) for b in names] for a in names])
        logs = np.log10(np.maximum(factors, 1e-12))
        mesh = axis.imshow(logs, cmap="Reds", vmin=0, vmax=max(1.0, float(_all_logs(of).max())))
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(names)), names if axis is middle else [])
        axis.grid(False)
        axis.set_title(title)
        if len(names) <= 4:
            for (i, j), value in np.ndenumerate(factors):
                dark = mesh.norm(logs[i, j]) > 0.6
                style = {"color": "white" if dark else "black", "fontsize": 8.5}
                axis.text(j, i, f"×{value:.3g}", ha="center", va="center", **style)
    colour_bar(right, mesh, label="rise of the loss, log10")
    return figure


def _all_logs(of: Mapping[str, NDArray]) -> NDArray:
    return np.log10([max(float(v), 1e-12) for n, v in of.items() if n.startswith("ablation")])


def _layers_of(found: _Found) -> list[str]:
    name = found.names[0]
    paths = found.family("histogram")
    return [n.removeprefix(f"{name}/") for n in paths if n.startswith(f"{name}/")]


def _bound(axis: Axes, value: float) -> None:
    axis.axhline(value, color=PALETTE[1], linewidth=0.9, linestyle=(0, (4, 3)))


def _words(pair: str) -> str:
    return pair.replace("~", " · ")


_Picture = tuple[Callable[[_Found], Figure], str]
_PICTURES: Mapping[str, _Picture] = {
    "course": (
        _course,
        "Above, the mean cosine of the gradients of two losses, with a band of one standard "
        "deviation between batches; below the dashed line the two are in conflict. In the middle, "
        "the longest gradient over the shortest one; above the dashed line magnitudes are out of "
        f"balance. Below, the losses. Of more than {_FEW_PAIRS} pairs, those with the lowest and "
        "the highest cosines are drawn.",
    ),
    "layers": (
        _layers,
        "On one batch. Above, the cosine of two gradients in each layer alone, from the input on. "
        "Below, how large the entries of each gradient are in each layer: where histograms lie "
        "apart, the loss on the left hardly moves the layer. A small loss has small entries too.",
    ),
    "spectra": (
        _spectra,
        "The eigenvalues of the tangent kernel of each loss. By gradient descent a loss falls "
        "along the leading directions first, and the faster the larger the trace, their sum.",
    ),
    "slices": (
        _slices,
        "The losses along the downhill direction of each of them, by steps of all lengths. To the "
        "right of the grey line the loss of the title falls, until the step is too long. Where "
        "another curve rises there, the step hurts that loss.",
    ),
    "modules": (
        _modules,
        "Whether parts of the network serve single losses. With all weights frozen, each loss "
        "learns a mask: the weights that it needs, its support. Left, the largest distance of two "
        "supports in each layer (0 for equal ones, 1 for disjoint ones), and the share of weights "
        "in one support alone. Middle, the factor by which the loss of a row rises under the mask "
        "of a column; right, the same for random masks of the same size. Modules show as a "
        "middle matrix that is pale on the diagonal and dark beside it, unlike the right one.",
    ),
    "residual": (
        lambda found: _fields.residuals(found.arrays),
        "The residual of each equation over the domain.",
    ),
}
