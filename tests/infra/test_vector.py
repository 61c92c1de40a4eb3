"""infra/logs/vector.yaml: its programs, compiled and run by Vector's own language on real lines."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clients.installed import FOLDER, NODE, NODE_MARKS
from tests.infra.shipping import bills

CONFIGURATION = Path(__file__).parents[2] / "infra/logs/vector.yaml"
VECTOR: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
TRANSFORMS = VECTOR["transforms"]

VRL = FOLDER / "node/node_modules/@bpinternal/verel"

pytestmark = [
    *NODE_MARKS,
    pytest.mark.skipif(not VRL.is_dir(), reason="run make client-packages first"),
]


def in_docker(line: str) -> str:
    """As Docker's json-file driver writes it."""
    entry = {"log": f"{line}\n", "stream": "stdout", "time": "2026-11-20T22:40:01Z"}
    return json.dumps(entry, separators=(",", ":"))


def in_cri(line: str) -> str:
    """As containerd and CRI-O do."""
    return f"2026-11-20T22:40:01.482913000Z stdout F {line}"


def run(program: str, *messages: str) -> list[dict[str, Any]]:
    """What a program makes of lines: for each its event and the value of its last expression."""
    asked = {"program": program, "events": [{"message": message} for message in messages]}
    ran = subprocess.run(
        [str(NODE), "vrl.mjs"],
        cwd=FOLDER / "node",
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(ran.stdout)
    assert answer.get("errors", []) + answer["warnings"] == []
    outcomes: list[dict[str, Any]] = answer["outcomes"]
    return outcomes


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A bill and control totals, without their line ends."""
    written = bills(tmp_path_factory.mktemp("journal"), 1)
    assert [json.loads(line)["event"] for line in written] == [
        "usage.final",
        "usage.heartbeat",
    ]
    return [line.decode().rstrip("\n") for line in written]


def test_lines_leave_their_envelope_as_they_were(lines: list[str]) -> None:
    """To the byte, for the folder of their timestamp's day, where Athena looks for them."""
    packed = [envelope(line) for envelope in (str, in_docker, in_cri) for line in lines]
    passed = run(TRANSFORMS["usage"]["condition"], *packed)
    assert [each["result"] for each in passed] == [True] * len(packed)
    shipped = [each["event"] for each in run(TRANSFORMS["lines"]["source"], *packed)]
    assert [event["message"] for event in shipped] == lines * 3
    prefix = VECTOR["sinks"]["bills"]["key_prefix"]
    (field,) = re.findall(r"\{\{ (\w+) \}\}", prefix)
    (key,) = {prefix.replace(f"{{{{ {field} }}}}", event[field]) for event in shipped}
    assert key == f"usage/day={json.loads(lines[0])['timestamp'][:10]}/"


def test_what_is_no_usage_line_is_left_out() -> None:
    """By how it begins, wherever else it has the words."""
    others = [
        '{"event":"server.ready","timestamp":"2026-11-20T22:40:01.482913Z"}',
        '{"event":"request.access","path":"/v1/usage.csv"}',
        '{"event":"request.access","path":"{\\"event\\":\\"usage.final\\"}"}',
        'Traceback: {"event":"usage.final"} of nobody',
    ]
    packed = [envelope(line) for envelope in (str, in_docker, in_cri) for line in others]
    packed.append(in_cri('{"event":"usage.final"}').replace("stdout", "stderr"))
    passed = run(TRANSFORMS["usage"]["condition"], *packed)
    assert [each["result"] for each in passed] == [False] * len(packed)


def test_what_only_begins_like_a_usage_line_is_told_of(lines: list[str]) -> None:
    """A line that the runtime has cut in two would else be lost in silence."""
    cut = in_cri(lines[0][:-10]).replace("stdout F", "stdout P")
    (passed,) = run(TRANSFORMS["usage"]["condition"], cut)
    assert passed["result"] is True
    (outcome,) = run(TRANSFORMS["lines"]["source"], cut)
    assert "parse_regex" in outcome["error"]
    dropped = TRANSFORMS["lines"]
    assert (dropped["drop_on_error"], dropped["reroute_dropped"]) == (True, True)
    assert VECTOR["sinks"]["unreadable"]["inputs"] == ["lines.dropped"]


def test_a_file_is_done_with_when_s3_has_its_lines() -> None:
    """What Vector's reference asks for: a source that acknowledges, and no drop on a refusal."""
    bills = VECTOR["sinks"]["bills"]
    assert VECTOR["sources"]["provider"]["type"] == "file"
    assert bills["acknowledgements"] == {"enabled": True}
    assert bills["retry_strategy"] == {"type": "all"}
    assert "buffer" not in bills  # one on disk would acknowledge for S3
