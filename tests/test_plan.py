"""Plans: read whole, or refused with what is wrong; and whose they are."""

import json

import pytest

from hawqtvm.errors import BadInput
from hawqtvm.plan import Plan, load_plan, uniform

SHA = "0123456789abcdef" * 4


@pytest.fixture
def write(tmp_path):
    """Function: writes a plan.json, from an object or from raw text, and returns its path."""

    def write(content) -> str:
        path = tmp_path / "mixed.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return str(path)

    return write


def plan(**changes) -> dict:
    return {"version": 1, "model": "net", "bits": {"conv1": 8, "conv2": 4}} | changes


@pytest.mark.parametrize("bits", [4, 8])
def test_a_number_is_the_uniform_plan(bits):
    assert load_plan(str(bits)) == uniform(bits) == Plan(bits, f"int{bits}")


def test_a_plan_is_read_whole(write):
    found = load_plan(write(plan(checkpoint=SHA, provenance={"device": "cpu"})))
    assert found == Plan({"conv1": 8, "conv2": 4}, "mixed", "net", SHA, {"device": "cpu"})


def test_only_version_and_bits_are_needed(write):
    assert load_plan(write({"version": 1, "bits": {"conv1": 8}})) == Plan({"conv1": 8}, "mixed")


def test_a_plan_writes_what_it_reads(write):
    first = load_plan(write(plan(checkpoint=SHA)))
    assert load_plan(write(first.to_json())) == first


@pytest.mark.parametrize("text", ["0", "5", "16", "44", "\u0664"])
def test_another_number(text):
    with pytest.raises(BadInput, match=f"--bits {text}.*4 or 8"):
        load_plan(text)


@pytest.mark.parametrize("text", ["nothing.json", "-4", "4.0", "four", " 4"])
def test_no_such_plan(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="no such plan.*4 or 8"):
        load_plan(text)


@pytest.mark.parametrize("text", ["", ".", "a\0b"])
def test_what_is_no_file(text):
    with pytest.raises(BadInput):
        load_plan(text)


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 1, "bits": {"conv1"', b"\xff\xfe\x00", b"[" * 100_000])
def test_what_is_not_json(write, content):
    path = write(content)
    with pytest.raises(BadInput, match="not JSON.*write the plan again") as caught:
        load_plan(path)
    assert path in str(caught.value)


@pytest.mark.parametrize(
    "content", [[], 4, None, "4", {}, {"version": 1}, plan(bits=4), plan(bits=[4]), plan(bits=None)]
)
def test_what_is_not_a_plan(write, content):
    with pytest.raises(BadInput, match="not a plan.*bits"):
        load_plan(write(content))


@pytest.mark.parametrize("version", [2, 0, "1", None, 1.5, True])
def test_another_version(write, version):
    with pytest.raises(BadInput, match="version.*reads version 1"):
        load_plan(write(plan(version=version)))


@pytest.mark.parametrize("bits", [5, 0, True, "4", 4.0, None, [4], {}])
def test_other_bits_name_their_layer(write, bits):
    with pytest.raises(BadInput, match="layer conv2 has bits.*4 or 8"):
        load_plan(write(plan(bits={"conv1": 8, "conv2": bits})))


@pytest.mark.parametrize("key", ["model", "checkpoint"])
@pytest.mark.parametrize("value", [3, ["net"], {"name": "net"}, False])
def test_a_name_that_is_none(write, key, value):
    with pytest.raises(BadInput, match=f"'{key}' must be a string"):
        load_plan(write(plan(**{key: value})))


@pytest.mark.parametrize("value", [3, ["cpu"], "cpu"])
def test_a_provenance_that_is_none(write, value):
    with pytest.raises(BadInput, match="'provenance' must be an object"):
        load_plan(write(plan(provenance=value)))


def test_a_plan_belongs_to_its_model_and_checkpoint():
    own = Plan({}, "mixed", "net", SHA)
    own.check_belongs("net", SHA)
    own.check_belongs("net", None)
    Plan({}, "mixed").check_belongs("net", SHA)
    uniform(4).check_belongs("net", SHA)
    with pytest.raises(BadInput, match="mixed is a plan for net, not for other.*another plan"):
        own.check_belongs("other", SHA)
    with pytest.raises(BadInput, match=f"mixed.*{SHA[:12]}.*ffffffffffff"):
        own.check_belongs("net", "f" * 64)


def test_a_plan_says_what_else_it_was_made_for():
    made = Plan({}, "mixed", provenance={"device": "a-cpu", "batch": 8, "threads": None})
    assert made.made_elsewhere({"device": "a-cpu", "batch": 8, "threads": 2}) == ""
    assert made.made_elsewhere({"device": "b-cpu", "batch": 1}) == "device a-cpu (here b-cpu), batch 8 (here 1)"
    assert uniform(4).made_elsewhere({"device": "b-cpu"}) == ""
