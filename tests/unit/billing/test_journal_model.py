"""B10: the journal against a model of it, over random histories of admissions, ends and crashes."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from provider_core.billing.settlement import Settlement
from provider_core.types import Usage
from tests.unit.billing.journals import SETTINGS, TIMEOUT_S, Boot, Log, QuickDisk, boot

PROGRESS = Usage(prompt_tokens=812, completion_tokens=7, generated_tokens=9)


class JournalModel(RuleBasedStateMachine):
    """One folder, one log, and what every generation must come to in the end."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        self.log = Log()
        self.expected: dict[str, tuple[str, str]] = {}  # status, and cost with its adjustment
        self.open: list[Settlement] = []
        self.leaving: list[Settlement] = []
        self.num_boots = 0
        self._start()

    def _start(self) -> None:
        self.log.takes = True
        folder = Path(self._folder.name)
        self._context = boot(
            folder, self.log, disk=QuickDisk(), settings=SETTINGS, is_crashing=True
        )
        self.server: Boot = self._context.__enter__()
        self.num_boots += 1

    @rule(stream=st.booleans())
    def admit(self, stream: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        """A generation begins."""
        self.open.append(self.server.open(stream=stream))
        self.expected[self.open[-1].generation_id] = ("interrupted", "0")

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def progress(self, data: st.DataObject) -> None:
        """A generation goes on."""
        running = data.draw(st.sampled_from(self.open))
        self.server.journal.progressed(running.generation_id, PROGRESS)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), status=st.sampled_from(["ok", "cancelled", "error"]))
    def settle(self, data: st.DataObject, status: str) -> None:
        """A generation ends."""
        settlement = data.draw(st.sampled_from(self.open))
        self.open.remove(settlement)
        usage = Usage(prompt_tokens=812, completion_tokens=120, generated_tokens=120)
        record = self.server.settle(settlement, status=status, usage=usage)
        self.expected[settlement.generation_id] = (status, str(record.event["cost"]))
        if status == "ok":
            self.leaving.append(settlement)

    @precondition(lambda self: self.leaving)
    @rule(data=st.data(), is_sent=st.booleans())
    def deliver(self, data: st.DataObject, is_sent: bool) -> None:  # noqa: FBT001
        """The end of an answer leaves, or its client has."""
        settlement = data.draw(st.sampled_from(self.leaving))
        self.leaving.remove(settlement)
        settlement.conclude(is_sent=is_sent)
        record = settlement.record
        assert record is not None
        if not is_sent and not record.event["stream"]:
            self.expected[settlement.generation_id] = ("ok", "0")

    @rule()
    def stall(self) -> None:
        """The log takes nothing for the rest of this boot."""
        self.log.takes = False

    @rule()
    def crash(self) -> None:
        """The process dies and another starts."""
        for settlement in self.leaving:
            self.expected[settlement.generation_id] = ("ok", "0")
        self.open, self.leaving = [], []
        self._context.__exit__(None, None, None)
        self._start()

    @invariant()
    def nothing_is_refused(self) -> None:
        """A sound disk keeps every bill."""
        assert self.server.journal.is_whole

    def teardown(self) -> None:
        """After two more starts the log and the model agree, in every boot without a gap."""
        self.crash()
        assert self.server.journal.flush(TIMEOUT_S)
        self.crash()
        self._context.__exit__(None, None, None)
        events: dict[str, dict[str, Any]] = {}
        for event in self.log.events():
            known = events.setdefault(event["event_id"], event)
            assert known["content_sha256"] == event["content_sha256"]
        assert self._outcomes(events) == self.expected
        seqs: dict[str, list[int]] = {}
        for event in events.values():
            seqs.setdefault(event["boot_id"], []).append(event["seq"])
        for numbers in seqs.values():
            assert sorted(numbers) == list(range(1, len(numbers) + 1))
        self._folder.cleanup()

    @staticmethod
    def _outcomes(events: dict[str, dict[str, Any]]) -> dict[str, tuple[str, str]]:
        outcomes = {
            event["generation_id"]: (event["status"], event["cost"])
            for event in events.values()
            if event["event"] == "usage.final"
        }
        for event in events.values():
            if event["event"] == "usage.adjustment":
                status, cost = outcomes[event["generation_id"]]
                assert event["cost_delta"] == f"-{cost}"
                outcomes[event["generation_id"]] = (status, "0")
        return outcomes


JournalModel.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
TestJournalModel = JournalModel.TestCase
