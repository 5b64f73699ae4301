"""What a report looks like to those who read it: JSON, markdown, JUnit, the benchmark array, the page."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from hawqtvm.errors import BadInput
from hawqtvm.qnn.formats import Format
from hawqtvm.report.compare import INCONCLUSIVE, compare
from hawqtvm.report.formats import benchmark, junit, markdown
from hawqtvm.report.history import trends
from hawqtvm.report.logs import Log, read_logs
from hawqtvm.report.page import chart, page
from hawqtvm.report.predicted import predictions
from hawqtvm.report.report import Report, as_json, dated_changes
from schedules.tuning_log import Device, Record, line, log_path
from schedules.workload import MaxPool2d
from tests.report.simulate import LAYERS, in_turns, run

HOSTILE = "<script>alert(1)</script>|x"


@pytest.fixture(scope="module")
def report():
    rng = np.random.default_rng(0)
    slower = {"slower": {"body.0": 1.3}, "network": 1.0}
    base, head = in_turns("quiet", rng, **slower)
    found = compare(base, head, again=lambda: in_turns("quiet", rng, session="again", **slower))
    assert found.verdict == "regression"
    rows = tuple(
        replace(row, verdict=INCONCLUSIVE, reason="noise: <&") if row.layer == "fc" else row for row in found.rows
    )
    found = replace(found, rows=rows, head=replace(found.head, commit=HOSTILE))
    runs = [
        run(
            np.ones((7, 6)),
            rng,
            measured=f"2026-01-{i + 1:02}T00:00:00+00:00",
            commit=f"c{i}",
            network=1 + 0.1 * (i > 9),
        )
        for i in range(18)
    ]
    history = trends(runs)
    logs = [Log("Tesla T4, 1 cores", "cuda", 1, 3, 24, 1, 12.5, "2026-01-01T00:00:00Z")]
    return Report(found, history, dated_changes(history, 1.03, 1.1), (), logs)


def test_the_json_is_strict_and_versioned(report):
    told = json.loads(json.dumps(as_json(report), allow_nan=False))
    assert (told["format"], told["version"], told["verdict"]) == ("hawqtvm-comparison", 1, "regression")
    (network,) = told["networks"]
    assert [layer["name"] for layer in network["layers"]] == list(LAYERS)
    body = network["layers"][1]
    assert body["verdict"] == "regression" and body["low"] < body["ratio"] < body["high"] and 0 <= body["p"] < 0.05
    assert told["history"][0]["commit"] == "c10" and told["tuning_logs"][0]["device"] == "Tesla T4, 1 cores"
    assert told["base"]["device"]["name"] == "some-cpu-2-cores" and told["base"]["rounds"] == 30


def test_markdown_names_the_regression_first(report):
    text = markdown(report)
    assert text.startswith("### ❌ Latency: regression")
    assert text.index("| body.0 |") < text.index("| stem |") and "step to 1." in text and HOSTILE[:8] not in text
    cells = {line.count("|") for line in text.splitlines() if line.startswith("| ")}
    assert cells == {8}


def test_markdown_folds_a_long_tail_away(report):
    whole = report.comparison.rows[0]
    many = replace(report.comparison, rows=(whole, *(replace(whole, layer=f"layer|{i}") for i in range(30))))
    text = markdown(Report(many))
    assert "<details><summary>20 more layers</summary>" in text and "layer\\|29" in text


def test_junit_counts_what_it_holds(report):
    suites = ElementTree.fromstring(junit(report).encode())
    (suite,) = suites
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("6", "2", "1")
    cases = {case.get("name"): case for case in suite}
    assert cases["body.0"].find("failure").get("message").startswith("slower: 1.3")
    assert cases["fc"].find("skipped").get("message") == "noise: <&" and len(cases["stem"]) == 0
    rows = (replace(report.comparison.rows[0], verdict=INCONCLUSIVE), *report.comparison.rows[1:])
    (suite,) = ElementTree.fromstring(junit(Report(replace(report.comparison, rows=rows))).encode())
    assert (suite.get("errors"), suite.get("skipped"), suite[0][0].tag) == ("1", "1", "error")


def test_the_benchmark_array(report):
    array = benchmark(report)
    assert [set(entry) for entry in array] == [{"name", "unit", "value", "range", "extra"}] * 6
    assert array[2]["name"] == "net / body.0" and array[2]["unit"] == "us"
    assert array[2]["value"] == pytest.approx(78, rel=0.02) and re.fullmatch(r"± \d+\.\d{3}", array[2]["range"])


class Page(HTMLParser):
    """The tags of a page; its elements must be closed in order."""

    VOID = {"meta", "rect", "line", "polygon", "polyline"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID or (tag == "line" and self.get_starttag_text()[-2] != "/"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_is_well_formed(report):
    text = page(report)
    found = Page(text)
    assert not {"img", "link", "iframe"} & set(found.tags) and found.tags.count("script") == 1
    assert not any(name in ("src", "href", "xlink:href") for name, _ in found.attributes)
    assert "url(" not in text and "@import" not in text and "prefers-color-scheme: dark" in text
    assert HOSTILE not in text and "&lt;script&gt;" in text
    assert text.index("<td data-sort") and 'aria-label="Layers of net"' in text
    for part in ("body.0", "History on some-cpu-2-cores", "step: 1.", "Tesla T4, 1 cores", "same.</p>"):
        assert part in text


def test_a_page_of_a_history_alone(report):
    text = page(Report(trends=report.trends, dated=report.dated))
    Page(text)
    assert "Latency history" in text and "What changed" not in text and "c10" in text


def test_a_chart_has_its_points_inside(report):
    trend = next(trend for trend in report.trends if trend.layer is None)
    drawn = chart(trend, report)
    assert len(drawn.points) == 18 and all(0 <= x <= 100 and 0 <= y <= 100 for x, y, _ in drawn.points)
    assert drawn.points[17][1] < drawn.points[0][1] and drawn.marks[0][0] == drawn.points[10][0]
    assert 2 <= len(drawn.ticks) <= 7
    one = chart(replace(trend, points=trend.points[:1]), Report())
    assert len(one.points) == 1 and one.last == ""
    flat = replace(trend.points[0], low=5.0, us=5.0, high=5.0)
    assert [text for _, text in chart(replace(trend, points=(flat,)), Report()).ticks] == ["5"]


def table_for(network, **changes):
    layers = {layer.name: {"4": 10.0, "8": 20.0} for layer in network.layers}
    kept = ("model", "checkpoint", "threads", "batch", "residual", "activations", "target")
    return (
        {"version": 1, "device": "some-cpu-2-cores", "layers": layers, "other_us": 7.0}
        | {name: getattr(network, name) for name in kept}
        | changes
    )


def test_predictions_add_up_and_stand_under_their_device(tmp_path):
    head = run(np.ones((7, 6)), np.random.default_rng(0))
    network = head.networks[0]
    first = replace(network.layers[0], bits=4)
    head = replace(head, networks=(replace(network, layers=(first, *network.layers[1:])),))
    edges = [{"from": "stem", "to": "body.0", "us": {"4-8": 3.0, "8-4": 100.0}}]
    here, there = tmp_path / "here.json", tmp_path / "t4.json"
    here.write_text(json.dumps(table_for(network, edges=edges)))
    there.write_text(json.dumps(table_for(network, device="Tesla T4")))
    ours, t4 = predictions(head, [str(here), str(there)])
    assert ours.predicted_us == 10 + 4 * 20 + 7 + 3 and ours.measured_us == pytest.approx(248.5, rel=0.02)
    assert ours.layers[1][:2] == ("body.0", 20.0) and ours.layers[1][2] == pytest.approx(60, rel=0.02)
    assert (t4.device, t4.measured_us, t4.layers[0][2]) == ("Tesla T4", None, None)
    text = page(Report(predictions=[ours, t4]))
    assert "net on Tesla T4" in text and "not measured: these runs are of another device" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threads": 2}, "none of the measured networks"),
        ({"version": 9}, "no latency table of version 1"),
        ({"layers": {"stem": {"8": 1.0}}}, "lacks what net needs"),
        ({"other_us": "many"}, "lacks what net needs"),
    ],
)
def test_a_wrong_latency_table_is_refused_by_name(tmp_path, changes, message):
    head = run(np.ones((7, 6)), np.random.default_rng(0))
    (tmp_path / "t.json").write_text(json.dumps(table_for(head.networks[0], **changes)))
    with pytest.raises(BadInput, match=message) as raised:
        predictions(head, [str(tmp_path / "t.json")])
    assert "t.json" in str(raised.value)


def test_tuning_logs_are_told_by_device(tmp_path):
    for cpu, us in (("Tesla T4", 4.0), ("Some CPU", 9.0)):
        device = Device(cpu, 2)
        workload = MaxPool2d((1, 8, 8, 8), Format("uint8"), (2, 2), (2, 2), (0, 0, 0, 0), (1, 1))
        common = {"device": device, "target": "any", "threads": 1, "workload": workload, "measured": "m", "tvm": "t"}
        trials = [
            Record(**common, schedule="a", config={}, rounds=((us,),), error=None),
            Record(**common, schedule="b", config={}, rounds=((us + 1,),), error=None),
            Record(**common, schedule="c", config={}, rounds=(), error="no"),
        ]
        path = log_path(tmp_path, device, "any", 1)
        path.parent.mkdir()
        path.write_text("".join(map(line, trials)))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "any-1.jsonl").write_text("no record\n")
    logs = read_logs([tmp_path])
    assert [(log.device, log.workloads, log.trials, log.failures, log.fastest_us) for log in logs] == [
        ("Some CPU, 2 cores", 1, 3, 1, 9.0),
        ("Tesla T4, 2 cores", 1, 3, 1, 4.0),
    ]
