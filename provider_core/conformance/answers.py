"""How the lines of a checklist are answered, from what was measured, listed and stated.

What answers a line is a verb with its arguments:

- `check A B`: the results of checks; `group.*` is all of a group.
- `fact KEY`: a key of `provider.toml`, which must be there.
- `option KEY`: the same, where leaving it out says no.
- `choice KEY VALUE`: whether a key has one value of several.
- `member KEY VALUE`, `item KEY N`: whether a list holds a value, and its N-th value.
- `listed PATH`, `listed_if PATH`: a field of the model in the list of models.
- `price NAME`: a listed price, per million tokens.
- `url PATH`, `parameters`, `modalities`, `image NAME`: what the lists say otherwise.
- `say TEXT`, `outside TEXT`: what holds in any case, and why nothing can be said here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from provider_core.conformance.checklist import Line
from provider_core.conformance.facts import Facts, show
from provider_core.conformance.runner import Report, Result
from provider_core.conformance.verdict import Status

Source = Literal["measured", "listed", "stated", "missing", "not_applicable"]

_WORST_FIRST: tuple[Status, ...] = ("fail", "warn", "pass", "not_applicable")
MAX_DETAILS = 4
"""Of checks that passed; more of them are counted."""

_PER_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered to one line; never nothing.

    Attributes:
        source: Where it comes from.
        status: Whether the line can be ticked: `pass`.
    """

    source: Source
    status: Status
    text: str


class Answers:
    """Answers lines.

    Args:
        report: What was measured and listed.
        facts: What the provider states.
    """

    def __init__(self, report: Report, facts: Facts) -> None:
        self._report = report
        self._facts = facts
        self._verbs: Mapping[str, Callable[[str], Answer]] = {
            "check": self._check,
            "fact": self._fact,
            "option": self._option,
            "choice": self._choice,
            "member": self._member,
            "item": self._item,
            "listed": self._listed,
            "listed_if": self._listed_if,
            "price": self._price,
            "url": self._url,
            "parameters": lambda _: self._parameters(),
            "modalities": lambda _: self._modalities(),
            "image": self._image,
            "say": self._say,
            "outside": self._outside,
        }

    def answer(self, line: Line) -> Answer:
        """Answer one line.

        Raises:
            KeyError: Its verb is none.
        """
        verb, _, argument = line.answer.partition(" ")
        return self._verbs[verb](argument)

    def _check(self, argument: str) -> Answer:
        ids = argument.split()
        results = [result for check_id in ids for result in self._report.of(check_id)]
        if not results:
            return Answer("not_applicable", "not_applicable", f"not run: {', '.join(ids)}")
        worst = min((result.status for result in results), key=_WORST_FIRST.index)
        details = _details([result for result in results if result.status == worst])
        if worst == "not_applicable":
            return Answer("not_applicable", worst, details)
        return Answer("measured", worst, details)

    def _fact(self, argument: str) -> Answer:
        value = self._facts.value(argument)
        return _missing(argument) if value is None else Answer("stated", "pass", show(value))

    def _option(self, argument: str) -> Answer:
        value = self._facts.value(argument)
        if value is None or value is False:
            return Answer("not_applicable", "not_applicable", f"not claimed (`{argument}`)")
        return Answer("stated", "pass", show(value))

    def _choice(self, argument: str) -> Answer:
        key, _, wanted = argument.partition(" ")
        value = self._facts.value(key)
        if value is None:
            return _missing(key)
        said = str(value).lower()
        if said == wanted:
            return Answer("stated", "pass", f"yes (`{key}`)")
        return Answer("not_applicable", "not_applicable", f"no: `{key}` is {said}")

    def _member(self, argument: str) -> Answer:
        key, _, wanted = argument.partition(" ")
        value = self._facts.value(key)
        if value is None:
            return _missing(key)
        if wanted in {str(each).lower().replace(" ", "") for each in value}:
            return Answer("stated", "pass", f"yes (`{key}`)")
        return Answer("not_applicable", "not_applicable", f"not among `{key}`")

    def _item(self, argument: str) -> Answer:
        key, _, number = argument.partition(" ")
        values = self._facts.value(key)
        if values is None:
            return _missing(key)
        if int(number) > len(values):
            return Answer("not_applicable", "not_applicable", f"there are {len(values)}")
        return Answer("stated", "pass", str(values[int(number) - 1]))

    def _listed(self, argument: str) -> Answer:
        value = _path(self._report.subject.listed, argument)
        if value is None or value == "":
            return Answer("missing", "warn", f"the list of models does not say `{argument}`")
        return Answer("listed", "pass", show(value))

    def _listed_if(self, argument: str) -> Answer:
        value = _path(self._report.subject.listed, argument)
        if not value:
            return Answer("not_applicable", "not_applicable", "the list of models has none")
        return Answer("listed", "pass", show(value))

    def _price(self, argument: str) -> Answer:
        amount = _path(self._report.subject.listed, f"pricing.{argument}")
        if amount is None or (argument == "image" and not Decimal(str(amount))):
            return Answer("not_applicable", "not_applicable", "no such price is listed")
        if argument == "image":
            return Answer("listed", "pass", f"{amount} USD per image")
        each = Decimal(str(amount)) * _PER_MILLION
        return Answer("listed", "pass", f"{each.normalize():f} USD per million tokens")

    def _url(self, argument: str) -> Answer:
        return Answer("listed", "pass", self._report.endpoint.base + argument.rstrip("/"))

    def _parameters(self) -> Answer:
        names = self._report.subject.parameters
        if not names:
            return Answer("missing", "warn", "no list says which parameters the model has")
        return Answer("listed", "pass", ", ".join(sorted(names)))

    def _modalities(self) -> Answer:
        document = self._report.subject.monitored
        if not document:
            return Answer("missing", "warn", "there is no document for the monitor")
        both = (document["input_modalities"], document["output_modalities"])
        taken, made = (", ".join(entry["type"] for entry in entries) for entries in both)
        return Answer("listed", "pass", f"{taken} in, {made} out")

    def _image(self, argument: str) -> Answer:
        for entry in self._report.subject.monitored.get("input_modalities", ()):
            if entry.get("type") == "image":
                limit = entry.get("supported_inputs", {}).get(argument, {})
                value = limit.get("value", limit.get("max"))
                return Answer("listed", "pass", f"{value} {limit.get('unit', '')}".strip())
        return Answer("not_applicable", "not_applicable", "the model is listed without images")

    def _say(self, argument: str) -> Answer:
        return Answer("measured", "pass", argument)

    def _outside(self, argument: str) -> Answer:
        return Answer("not_applicable", "not_applicable", argument)


def _details(results: list[Result]) -> str:
    if len(results) > MAX_DETAILS and results[0].status == "pass":
        return f"all {len(results)} checks of it passed"
    return "; ".join(dict.fromkeys(result.detail for result in results))


def _missing(key: str) -> Answer:
    table, _, name = key.partition(".")
    where = "[provider]" if table == "provider" else "[[model]]"
    return Answer("missing", "warn", f"not stated: set `{name}` in {where} of provider.toml")


def _path(document: Mapping[str, Any], path: str) -> Any:  # JSON of any server
    found: Any = document
    for step in path.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found
