"""From rounds of times to what each layer, each kind of layer and each network reaches of the peak."""

import statistics
from collections.abc import Sequence

Rounds = Sequence[Sequence[float]]


def summarize(found: dict) -> dict:
    """The answer of `measure.measure` with plain numbers in it.

    Times are medians over the rounds' medians; "best" ones are minima, which other work on the machine disturbs least,
    and what is said of the peak comes from those.

    Returns:
        {"rounds" (their number), "peak_gmacs" (of one thread, the best), "median_peak_gmacs", "callback_us" (what an
        empty layer takes), "artifacts": [{"path", "model", "plan", "batch", "threads", "residual", "us", "best_us",
        "sum_us", "sum_best_us", "floor_us", "layers": [row], "kinds": [row]}]}; a row is {"name", "layers" (how many),
        "macs", "us", "best_us", "share" (of sum_us), "gmacs", "of_peak", "floor_us", "lost_us"}, and that of a layer
        has {"kind", "shape", "schedule", "bits", "rounds_us"} too.  Without MACs, "gmacs" and "of_peak" are None.
        floor_us: what the MACs take at the peak of the artifact's threads; lost_us: best_us less that.
    """
    peak = max(map(max, found["peak"]))
    return {
        "rounds": len(found["peak"]),
        "peak_gmacs": peak / 1e9,
        "median_peak_gmacs": _median(found["peak"]) / 1e9,
        "callback_us": _median(found["callbacks"]),
        "artifacts": [_artifact(artifact, peak * artifact["threads"]) for artifact in found["artifacts"]],
    }


def _median(rounds: Rounds) -> float:
    return statistics.median(map(statistics.median, rounds))


def _best(rounds: Rounds) -> float:
    return min(map(min, rounds))


def _artifact(found: dict, peak: float) -> dict:
    manifest, rounds = found["manifest"], found["layers"]
    total = sum(map(_median, rounds.values()))
    layers = []
    for row in manifest["layers"]:
        mine = rounds[row["name"]]
        about = {
            "kind": kind(row, manifest["input"]["shape"]),
            "shape": shape(row),
            "schedule": row["schedule"],
            "bits": row["bits"],
            "rounds_us": [statistics.median(samples) for samples in mine],
        }
        layers.append({**_row(row["name"], 1, row["macs"], _median(mine), _best(mine), total, peak), **about})
    return {
        "path": found["path"],
        "model": manifest["model"],
        "plan": manifest["plan"]["name"],
        "batch": manifest["input"]["shape"][0],
        "threads": found["threads"],
        "residual": manifest["residual"],
        "us": _median(found["runs"]),
        "best_us": _best(found["runs"]),
        "sum_us": total,
        "sum_best_us": sum(row["best_us"] for row in layers),
        "floor_us": sum(row["floor_us"] for row in layers),
        "layers": layers,
        "kinds": [_sum(name, layers, total, peak) for name in _kinds_in_order(layers)],
    }


def _sum(name: str, layers: list[dict], total: float, peak: float) -> dict:
    rows = [row for row in layers if row["kind"] == name]
    macs, us, best_us = (sum(row[key] for row in rows) for key in ("macs", "us", "best_us"))
    return _row(name, len(rows), macs, us, best_us, total, peak)


def _row(name: str, layers: int, macs: int, us: float, best_us: float, total: float, peak: float) -> dict:
    floor = 1e6 * macs / peak
    return {
        "name": name,
        "layers": layers,
        "macs": macs,
        "us": us,
        "best_us": best_us,
        "share": us / total,
        "gmacs": macs / best_us / 1e3 if macs else None,
        "of_peak": floor / best_us if macs else None,
        "floor_us": floor,
        "lost_us": best_us - floor,
    }


def _kinds_in_order(layers: list[dict]) -> list[str]:
    """Stem first, dense and what has no MACs last."""
    return sorted({row["kind"] for row in layers}, key=lambda k: (k == "other", k == "dense", k != "stem", k))


def kind(row: dict, input_dims: list[int]) -> str:
    """ "stem" (reads the network's input), "1x1", "3x3 stride 2", ..., "dense" or "other" (a manifest's row)."""
    geometry = row["geometry"]
    if row["op"] == "qnn.dense":
        return "dense"
    if row["op"] != "qnn.conv2d":
        return "other"
    if geometry["x_dims"] == input_dims:
        return "stem"
    size = "x".join(map(str, geometry["kernel"]))
    stride = "" if size == "1x1" else f" stride {geometry['strides'][0]}"
    return size + stride + " grouped" * (geometry["groups"] > 1)


def shape(row: dict) -> str:
    """A manifest's row as "3x3/2 56x56 64->128 +r": window, stride, input's height and width, channels, residual."""
    geometry, (_, out_channels, height, width) = row["geometry"], row["output"]["dims"]
    fused = " +r" * bool(row["fused_residual"]) + " +pool" * bool(row.get("fused_pool"))
    if "x_dims" not in geometry:
        return f"{row['op'].removeprefix('qnn.')} {height}x{width} {out_channels}"
    _, channels, height, width = geometry["x_dims"]
    if "kernel" not in geometry:
        return f"{channels}->{out_channels}{fused}"
    window, stride = "x".join(map(str, geometry["kernel"])), geometry["strides"][0]
    return f"{window}{f'/{stride}' * (stride > 1)} {height}x{width} {channels}->{out_channels}{fused}"
