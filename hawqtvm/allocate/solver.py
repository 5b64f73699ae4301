"""The integer linear program: one binary a group of tied layers, by CBC through PuLP."""

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hawqtvm.allocate.problem import SENSITIVITY, Problem, Quantity
from hawqtvm.errors import BadInput, CheckFailed

if TYPE_CHECKING:
    import pulp

EQUAL = 1e-6  # of a quantity's span: values closer than this are the same
SPAN = 1e4  # of every row CBC sees: its absolute tolerances are then far below EQUAL
SECONDS = 60.0
# CBC stops at no gap, takes every better answer, and does not pass off a fraction as 0 or 1 or a broken row as met
EXACT = {"ratioGap": 0, "allowableGap": 0, "increment": 1e-7, "integerT": 1e-9, "primalT": 1e-9}
BOUND = re.compile(r"^Lower bound:\s+(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Solution:
    """``bits``: {layer: 4 or 8}.  ``gap``: how much lower the optimum may be, in the objective's unit; 0 if proved."""

    bits: dict[str, int]
    gap: float = 0.0


Limits = Sequence[tuple[Quantity, float]]


def minimize(problem: Problem, objective: Quantity, limits: Limits, seconds: float = SECONDS) -> Solution | None:
    """A plan of the least ``objective`` with every (quantity, limit) met to within ``EQUAL``; None if there is none.

    Products x_a x_b become z_ab with z <= x_a, z <= x_b, z >= x_a + x_b - 1 (McCormick: exact for binaries).
    Raises CheckFailed where CBC finds nothing in ``seconds``, or fails.
    """
    rows = [(problem.reduced(quantity), limit) for quantity, limit in limits]
    if any(not row.span and row.constant > limit + EQUAL * row.span for row, limit in rows):
        return None
    rows = [(row, limit) for row, limit in rows if row.span]
    goal = problem.reduced(objective)
    if not problem.groups:
        return Solution(problem.bits(()))
    program, x = _program(list(problem.groups), goal, rows)
    names = {variable.name: a for a, variable in x.items()}
    while True:
        status, at4, bound = _run_cbc(program, seconds)
        if status in ("Infeasible", "Integer"):  # "Integer infeasible"
            return None
        if at4 is None:
            raise CheckFailed(f"CBC found no plan within {seconds:g} s; give it more with --seconds")
        low = {names[name] for name in at4 if name in names}
        bits = problem.bits(low)
        if all(row.at(bits) <= limit + 2 * EQUAL * row.span for row, limit in rows):
            break
        # CBC's presolve takes a row that hardly fails for met: exclude this one answer
        program += sum(1 - x[a] if a in low else x[a] for a in x) >= 1
    if status == "Optimal":
        return Solution(bits)
    lowest = goal.constant + bound * goal.span / SPAN if bound is not None else float("-inf")
    return Solution(bits, max(goal.at(bits) - lowest, 0.0))


def optimum(problem: Problem, limits: Limits, seconds: float = SECONDS) -> Solution | None:
    """The plan of the least sensitivity; of equal ones that with the fewest 4-bit layers, those the latest."""
    sensitivity = problem.quantities[SENSITIVITY]
    best = minimize(problem, sensitivity, limits, seconds)
    if best is None or best.gap:
        return best
    count = len(problem.layers)
    fewest = Quantity(0.0, {a: count**2 + count - at for at, a in enumerate(problem.layers)}, {})
    try:
        found = minimize(problem, fewest, [*limits, (sensitivity, sensitivity.at(best.bits))], seconds)
    except CheckFailed:
        return best  # out of time: what was proved before stays
    return Solution(found.bits) if found else best


def _program(groups: list[str], goal: Quantity, rows: Limits) -> "tuple[pulp.LpProblem, dict[str, pulp.LpVariable]]":
    """The scaled program, and its variable for each group."""
    import pulp

    program = pulp.LpProblem("bits", pulp.LpMinimize)
    x = {a: program.add_variable(f"x{i}", cat=pulp.LpBinary) for i, a in enumerate(groups)}
    products = dict.fromkeys(pair for quantity in (goal, *(row for row, _ in rows)) for pair in quantity.products)
    z = {pair: program.add_variable(f"z{i}", cat=pulp.LpBinary) for i, pair in enumerate(products)}

    def scaled(quantity: Quantity) -> "pulp.LpAffineExpression":
        factor = SPAN / (quantity.span or 1.0)
        linear = [(x[a], value * factor) for a, value in quantity.linear.items()]
        return pulp.LpAffineExpression(
            linear + [(z[pair], value * factor) for pair, value in quantity.products.items()]
        )

    program += scaled(goal)
    for row, limit in rows:
        program += scaled(row) <= ((limit - row.constant) / row.span + EQUAL / 10) * SPAN
    for (a, b), both in z.items():
        program += both <= x[a]
        program += both <= x[b]
        program += both >= x[a] + x[b] - 1
    return program, x


def _run_cbc(program: "pulp.LpProblem", seconds: float) -> tuple[str, list[str] | None, float | None]:
    """CBC's verdict (its first word), the names of the variables at 1 (None without a solution) and its lower bound.

    CBC runs on one thread and is ended with this process's own interrupt; its files go with it.
    """
    import pulp

    with tempfile.TemporaryDirectory(prefix="hawqtvm-cbc-") as folder:
        model, solution = Path(folder) / "model.mps", Path(folder) / "solution"
        program.writeMPS(str(model))
        for preprocess in ("off", "on"):  # on, CBC loses optima of programs with products; off, it may crash
            settings = EXACT | {"preprocess": preprocess, "timeMode": "elapsed", "sec": seconds}
            options = [text for name, value in settings.items() for text in (f"-{name}", str(value))]
            cbc = [pulp.PULP_CBC_CMD.pulp_cbc_path, model, *options, "-solve", "-solution", solution]
            try:
                done = _run(cbc, folder)
            except OSError as error:
                raise BadInput(f"CBC does not run ({error}); install pulp again: it brings CBC along") from error
            if done.returncode == 0 and solution.exists():
                break
        else:
            raise CheckFailed(f"CBC ended with {done.returncode} on a program of {len(program.variables())} variables")
        first, *values = solution.read_text().splitlines()
    bound = BOUND.search(done.stdout)
    columns = (line.lstrip("* ").split() for line in values)  # what breaks a limit is starred
    found = [name for _, name, value, *_ in columns if float(value) > 0.5]
    return first.split()[0], None if "no integer solution" in first else found, float(bound[1]) if bound else None


def _run(command: list, folder: str) -> subprocess.CompletedProcess:
    """As subprocess.run, but an interrupt leaves only when the process has ended."""
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, err = process.communicate()
        except BaseException:
            process.kill()
            process.wait()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)
