"""The report as markdown."""

MISSING = "-"
COLUMNS = {
    "layers": 0,
    "kernel": 0,
    "config": 0,
    "registers": 1,
    "shared KB": 1,
    "spilled": 1,
    "threads": 1,
    "blocks": 1,
    "blocks/SM": 0,
    "Tensor Core instructions": 0,
    "of loop": 1,
    "MOP": 1,
    "MB": 1,
    "MB asked": 1,
    "operations us": 1,
    "bytes us": 1,
    "instructions us": 1,
    "bound us": 1,
    "HAWQ us": 1,
    "HAWQ of peak": 1,
    "HAWQ / bound": 1,
}
CONFIG = "warps {warps_m}x{warps_n}x{warps_k}, fragments {frags_m}x{frags_n}, width {width}, chunk {chunk}"
SUMS = ["network", "layers", "kernels", "bound us", "by what binds, us", "layers with HAWQ's time", "their bound us"]
SUMS += ["HAWQ us", "HAWQ / bound"]


def markdown(report: dict) -> str:
    """The answer of :func:`hawqtvm.static_report.report` as two tables and what their columns mean."""
    networks = report["networks"]
    rows = [line for network in networks for line in ["", f"## {_name(network)}", "", *_kernels(network)]]
    return "\n".join([*_head(report), *_sums(networks), *rows]) + "\n"


def _head(report: dict) -> list[str]:
    peak = report["peak"]
    return [
        f"# Kernels for {report['target']}, as compiled",
        "",
        f"Batch {report['batch']}, {report['residual']} residual stream, configs by the schedules' own estimate. Every "
        "figure is computed from the binary and the data sheet, none is measured.",
        "",
        "- **kernel**: window and stride, the input's height and width, channels, codes that are read and written. "
        "`+int16`: adds an int16 residual; `and uint8`: writes what it made once more, as uint8.",
        "- **config**: warps of a block, by pixels x channels x parts of the sum; fragments of a warp, of 8 images of "
        "pixels x of 8 channels; how many lie side by side in a row of pixels; 16-byte quads of a pixel at a time.",
        "- **blocks/SM**: what an SM holds at once, and what allows no more.",
        "- **of loop**: share of Tensor Core instructions in the innermost loop; in brackets where the kernel has no "
        "loop, of all its instructions. From 25% on an SM can issue all others beside them.",
        "- **MB**: operands as stored, each once; **MB asked**: what all blocks together copy and write.",
        f"- **operations**: at {peak['int8_tops']:g} TOPS of 8 bits and {peak['int4_tops']:g} of 4; **bytes**: at "
        f"{peak['dram_gb_s']} GB/s, with nothing left in caches by the kernel before; **instructions**: of the SM that "
        "has most blocks, with tails, and with the loop's other instructions, but those that a branch may skip. The "
        "**bound** is the largest of them; launches, latencies, bandwidth of caches and shared memory are not in it.",
        f"- **HAWQ**: {report['published']}. Theirs is the convolution's kernel; ours has the residual add and the "
        "second output in it. **Of peak**: of the operations' peak. **HAWQ / bound** is the room that a kernel has "
        "below their time: a bound predicts nothing.",
        "",
    ]


def _sums(networks: list[dict]) -> list[str]:
    body = []
    for network in networks:
        sums = network["sums"]
        binding = ", ".join(f"{name} {us:.0f}" for name, us in sums["binding_us"].items())
        known = sums["published_layers"]
        theirs = [known, f"{sums['bound_of_published_us']:.0f}", f"{sums['published_us']:.0f}"] if known else []
        ratio = [f"{sums['published_us'] / sums['bound_of_published_us']:.1f}"] if known else []
        cells = [_name(network), sums["layers"], sums["kernels"], f"{sums['bound_us']:.0f}", binding, *theirs, *ratio]
        body.append(cells + [MISSING] * (len(SUMS) - len(cells)))
    return _table({name: int(name not in ("network", "by what binds, us")) for name in SUMS}, body)


def _name(network: dict) -> str:
    return f"{network['model']} INT{network['bits']}"


def _kernels(network: dict) -> list[str]:
    return _table(COLUMNS, [_cells(row) for row in network["kernels"]])


def _cells(row: dict) -> list:
    work, parts, us = row["work"], row["parts_us"], row["published_us"]
    return [
        ", ".join(row["layers"]),
        row["shape"],
        _config(row),
        row["registers"],
        f"{row['shared_bytes'] / 1024:.1f}",
        row["spilled_bytes"],
        row["threads"],
        row["blocks"],
        f"{row['blocks_sm']} ({row['limit']})",
        *_instructions(row["sass"]),
        _number(work["operations"] / 1e6, ".0f"),
        f"{work['bytes'] / 1e6:.2f}",
        _number(work["asked"] and work["asked"] / 1e6, ".2f"),
        _number(parts["operations"], ".1f"),
        _number(parts["bytes"], ".1f"),
        _number(parts["instructions"], ".1f"),
        f"{row['bound_us']:.1f}",
        _number(us, ".1f"),
        _number(row["published_of_peak"], ".0%"),
        _number(us and us / row["bound_us"], ".1f"),
    ]


def _instructions(sass: dict | None) -> list[str]:
    if not sass or not sass["loop"]:
        return [MISSING, MISSING]
    loop = sass["loop"]
    share = f"{loop['tensor'] / loop['instructions']:.0%}"
    counts = ", ".join(f"{count} {name}" for name, count in sass["tensor"].items())
    return [counts, share if loop["repeated"] else f"({share})"]


def _config(row: dict) -> str:
    config = row["config"]
    if "warps_m" not in config:
        return f"{row['schedule']}: " + ", ".join(f"{name} {value}" for name, value in config.items())
    buffers = ", double buffer" if config["double_buffer"] else ""
    return f"{row['schedule']}: {CONFIG.format(**config)}{buffers}"


def _number(value: float | None, form: str) -> str:
    return format(value, form) if value else MISSING


def _table(columns: dict[str, int], rows: list[list]) -> list[str]:
    """Markdown lines; columns of 1 to the right."""
    rule = ["---:" if right else "---" for right in columns.values()]
    return ["| " + " | ".join(map(str, cells)) + " |" for cells in [columns, rule, *rows]]
