"""Predicts how fast configs are, beside one another, from those measured: gradient-boosted trees (XGBoost).

What is learned is the log of a config's time over that of its workload's first candidate, as a correction of the
schedule's own estimate: where nothing is known yet, the estimate decides.  One model learns from all workloads of a
target and number of threads, so that what one layer taught ranks the next one's first batch.
"""

import numpy as np

Row = dict[str, float]
ROUNDS = 60
PARAMETERS = {
    "objective": "reg:squarederror",
    "max_depth": 5,
    "eta": 0.15,
    "min_child_weight": 1,
    "lambda": 1.0,
    "base_score": 0.0,
    "seed": 0,
    "verbosity": 0,
}


class CostModel:
    """``prior``: whether predictions correct the schedules' estimates, or start from nothing."""

    def __init__(self, prior: bool = True, threads: int = 1):
        self.prior, self.threads = prior, threads
        self._columns: dict[str, int] = {}
        self._trees = None

    def fit(self, rows: list[Row], priors: list[float], scores: list[float]) -> None:
        """Learns from measured candidates: their features, their priors and their log ratios."""
        import xgboost

        if not rows:
            return
        self._columns = {name: index for index, name in enumerate(sorted({name for row in rows for name in row}))}
        data = self._data(rows, priors)
        data.set_label(np.array(scores))
        self._trees = xgboost.train(PARAMETERS | {"nthread": self.threads}, data, ROUNDS)

    def predict(self, rows: list[Row], priors: list[float]) -> np.ndarray:
        """Log ratios, one a row; the priors where nothing was learned."""
        if self._trees is None:
            return np.array(priors) if self.prior else np.zeros(len(rows))
        return self._trees.predict(self._data(rows, priors))

    def _data(self, rows: list[Row], priors: list[float]):
        import xgboost

        values = np.full((len(rows), len(self._columns)), np.nan, "float32")
        for line, row in zip(values, rows, strict=True):
            for name, value in row.items():
                if name in self._columns and (self.prior or name != "prior"):
                    line[self._columns[name]] = value
        margin = np.array(priors) if self.prior else np.zeros(len(rows))
        return xgboost.DMatrix(values, base_margin=margin, nthread=self.threads)
