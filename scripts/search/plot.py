"""The picture of how soon searches find the best config."""

import io
from pathlib import Path

from hawqtvm.files import write_atomic
from scripts.search.replay import STRATEGIES

MOST_TRIALS, MOST_RATIO = 64, 1.3
COLORS = ("#888888", "#cc7711", "#7744aa", "#1166bb")


def plot(found: dict, path: Path) -> None:
    """One panel a layer: time of the best config so far over the best of all, against trials; bands hold all runs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(found), figsize=(4 * len(found), 3.8), squeeze=False, layout="constrained")
    for axis, (name, layer) in zip(axes[0], found.items(), strict=True):
        for strategy, color in zip(STRATEGIES, COLORS, strict=True):
            curve = {key: layer[strategy][key][:MOST_TRIALS] for key in ("mean", "low", "high")}
            trials = range(1, len(curve["mean"]) + 1)
            axis.plot(trials, curve["mean"], color=color, label=strategy)
            axis.fill_between(trials, curve["low"], curve["high"], color=color, alpha=0.12, linewidth=0)
        axis.axhline(1.0, color="black", linewidth=0.8, linestyle=":", label="exhaustive")
        axis.set(title=f"{name}\n{layer['configs']} configs", xlabel="trials", ylim=(0.99, MOST_RATIO))
    axes[0][0].set_ylabel("best found, times the best of all")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(STRATEGIES) + 1)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:])
    pyplot.close(figure)
    write_atomic(path, picture.getvalue())
