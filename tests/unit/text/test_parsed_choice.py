"""Generation with reasoning and calls: what is told, in which order, counted how."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provider_core.text.events import (
    ChoiceResult,
    Event,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    fold,
)
from provider_core.text.output_reader import OutputFormat, find_control_tokens
from provider_core.text.reasoning import REASONING_FAMILIES, THINK
from provider_core.text.tool_parsers import harmony, hermes
from tests.unit.text.generation_session import EOS, TOKENIZER, Session, ids_of, logprobs_of

TOOLS = OutputFormat(tool_parser=hermes.PARSER)
BOTH = OutputFormat(tool_parser=hermes.PARSER, reasoning=THINK)
OPENED = OutputFormat(tool_parser=hermes.PARSER, reasoning=THINK, opens_reasoning=True)


def call(name: str, arguments: object) -> str:
    """A call as Hermes models write it."""
    body = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{body}\n</tool_call>"


def played(
    text: str,
    output: OutputFormat | None = TOOLS,
    *,
    size: int = 1,
    reason: str | None = "stop",
    stop: tuple[str, ...] = (),
) -> Session:
    """A reply of a text, `size` ids an output; `reason` `None` leaves it open."""
    session = Session(output=output, stop=stop).start()
    ids = ids_of(text)
    for begin in range(0, len(ids), size):
        session.push(ids[begin : begin + size])
    if reason is not None:
        session.end(reason)
    return session


def result_of(session: Session) -> ChoiceResult:
    """Choice 0, whole."""
    return fold(session.events)[0]


def calls_of(session: Session) -> list[tuple[str, str]]:
    """Names and arguments."""
    return [(call.name, call.arguments) for call in result_of(session).tool_calls]


@pytest.mark.parametrize("names", [["f", "f", "f"], ["f", "g", "h"]])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_bug_02_parallel_calls_count_up_from_zero(names: list[str], size: int) -> None:
    """Each call has its own index, and its fragments carry it."""
    text = "\n".join(call(name, {"n": i}) for i, name in enumerate(names))
    session = played(text, size=size)
    starts = [event for event in session.events if isinstance(event, ToolCallStart)]
    assert [(start.call_index, start.name) for start in starts] == list(enumerate(names))
    assert [json.loads(arguments) for _, arguments in calls_of(session)] == [
        {"n": i} for i in range(3)
    ]
    assert session.finished == [Finished(0, "tool_calls", "stop")]


def test_bug_03_a_call_is_named_once_and_its_id_is_its_own() -> None:
    """One start each, before its fragments; ids are unique and short."""
    session = played("\n".join(call("f", {"n": i}) for i in range(3)))
    kinds = [
        (type(event), event.call_index)
        for event in session.events
        if isinstance(event, ToolCallStart | ToolCallDelta)
    ]
    assert [kind for i, kind in enumerate(kinds) if kind not in kinds[:i]] == [
        (kind, i) for i in range(3) for kind in (ToolCallStart, ToolCallDelta)
    ]
    ids = [call.call_id for call in result_of(session).tool_calls]
    assert len(set(ids)) == 3
    assert all(call_id.startswith("call_") and len(call_id) == 29 for call_id in ids)


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_bug_04_text_around_calls_is_kept_and_markup_is_not_shown(size: int) -> None:
    """The same however the reply was cut into outputs."""
    text = f"before {call('f', {'a': 1})}\n{call('g', {})} after"
    session = played(text, size=size)
    assert result_of(session).text == "before  after"
    assert calls_of(session) == [("f", '{"a": 1}'), ("g", "{}")]


@pytest.mark.parametrize("text", ["a <tool_call", "a <tool_call>", 'a <tool_call>\n{"name": "f'])
def test_bug_04_a_truncated_opener_is_content(text: str) -> None:
    """Nothing that was generated is lost."""
    session = played(text, reason="length")
    assert result_of(session).text == text
    assert session.finished == [Finished(0, "length", "length")]


def test_bug_04_markup_is_content_where_nothing_can_be_called() -> None:
    """A request without tools has no parser."""
    text = f"write {call('f', {})} to call f"
    assert result_of(played(text, None)).text == text
    assert result_of(played(text, OutputFormat(reasoning=THINK))).text == text


CUT_IN_TEXT = "I will call it"
CUT_IN_ARGUMENTS = '<tool_call>\n{"name": "f", "arguments": {"a": 1'
WHOLE = call("f", {"a": 1})


@pytest.mark.parametrize(
    ("text", "reason", "stop", "expected"),
    [
        ("no tool", "stop", (), "stop"),
        (WHOLE, "stop", (), "tool_calls"),
        (CUT_IN_TEXT, "length", (), "length"),
        (CUT_IN_ARGUMENTS, "length", (), "length"),
        (WHOLE + "\n" + CUT_IN_ARGUMENTS, "length", (), "length"),
        (WHOLE, "length", (), "length"),
        (CUT_IN_ARGUMENTS, "stop", (), "stop"),
        (WHOLE + "\n" + CUT_IN_ARGUMENTS, "stop", (), "stop"),
        ("no STOP tool", "stop", ("STOP",), "stop"),
        ("no STOP tool", "length", ("STOP",), "stop"),
        (WHOLE + " done STOP", "stop", ("STOP",), "tool_calls"),
        (call("f", {"a": "STOP"}), "stop", ("STOP",), "tool_calls"),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_bug_05_finish_reasons(
    text: str, reason: str, stop: tuple[str, ...], expected: str, size: int
) -> None:
    """`tool_calls` never hides that the limit cut the reply, or that no call is whole."""
    (finished,) = played(text, size=size, reason=reason, stop=stop).finished
    assert finished.finish_reason == expected


def test_bug_05_arguments_that_the_limit_cut_are_told_so_far() -> None:
    """As far as they were written."""
    session = played(CUT_IN_ARGUMENTS, reason="length")
    assert calls_of(session) == [("f", '{"a": 1')]


@pytest.mark.parametrize("stop", ["sa", "answer", "\n\n", "call", '"a"'])
@pytest.mark.parametrize("size", [1, 1000])
def test_bug_06_stop_strings_are_looked_for_in_the_content_alone(stop: str, size: int) -> None:
    """Not in what the model thinks, nor in the JSON of a call."""
    text = f"<think>sad\n\nanswer: call</think>{call('f', {'a': 'sad answer'})}\nno {stop} more"
    session = played(text, BOTH, size=size, stop=(stop,))
    assert result_of(session).reasoning == "sad\n\nanswer: call"
    assert calls_of(session) == [("f", '{"a": "sad answer"}')]
    assert result_of(session).text == "\nno "
    assert session.finished[0].stop_string == stop


def test_bug_07_a_held_stop_string_before_a_call_is_delivered() -> None:
    """The content ends where the call begins; the text behind it starts anew."""
    session = played(f"the STO{call('f', {})}P", stop=("STOP",))
    assert result_of(session).text == "the STOP"
    assert [type(event) for event in session.events[:-1]] == [
        *[TextDelta] * (session.events.index(_first(session, ToolCallStart))),
        ToolCallStart,
        ToolCallDelta,
        TextDelta,
    ]


def _first(session: Session, kind: type[Event]) -> Event:
    return next(event for event in session.events if isinstance(event, kind))


@pytest.mark.parametrize("arguments", ["{}", "{ }", "{\n}", "null", '""', '"{}"', None])
def test_bug_21_a_call_without_arguments_has_an_empty_object(arguments: str | None) -> None:
    """In one piece: a client that takes the first JSON it sees sees no other."""
    member = "" if arguments is None else f', "arguments": {arguments}'
    session = played(f'<tool_call>{{"name": "f"{member}}}</tool_call>')
    deltas = [event.arguments for event in session.events if isinstance(event, ToolCallDelta)]
    assert deltas == ["{}"]
    assert session.finished[0].finish_reason == "tool_calls"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    arguments=st.dictionaries(st.text(), JSON, min_size=1, max_size=4),
    is_ascii=st.booleans(),
    sizes=st.lists(st.integers(1, 7), min_size=1),
    before=st.text(max_size=5),
)
def test_bug_28_fragments_join_to_the_arguments_as_written(
    arguments: dict[str, object],
    is_ascii: bool,  # noqa: FBT001 - drawn by hypothesis
    sizes: list[int],
    before: str,
) -> None:
    """For any JSON and any cut; and never two entries of one call in one output."""
    written = json.dumps(arguments, ensure_ascii=is_ascii)
    text = f'{before}<tool_call>\n{{"name": "f", "arguments": {written}}}\n</tool_call>'
    session = Session(output=TOOLS).start()
    ids = ids_of(text)
    while ids:
        num_before = len(session.events)
        session.push(ids[: sizes[0]])
        ids = ids[sizes[0] :]
        sizes = [*sizes[1:], sizes[0]]
        new = [event for event in session.events[num_before:] if isinstance(event, ToolCallDelta)]
        assert len(new) <= 1
    session.end("stop")
    assert calls_of(session) == [("f", written)]
    assert result_of(session).text == (before if before.strip() else "")


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize("answer", ["42", call("f", {"a": 1}), ""])
@pytest.mark.parametrize(
    ("output", "prefix"),
    [(OPENED, ""), (OPENED, "<think>\n"), (BOTH, "<think>"), (BOTH, "\n<think>\n")],
)
def test_bug_30_reasoning_and_answer_are_never_mixed_up(
    output: OutputFormat, prefix: str, answer: str, size: int
) -> None:
    """Whether the prompt opens the reasoning or the reply does, and whatever follows it."""
    thought = "is <tool_call> it?\n\nYes: <thin"
    session = played(f"{prefix}{thought}\n</think>\n\n{answer}", output, size=size)
    result = result_of(session)
    assert result.reasoning == thought
    assert result.text == ("42" if answer == "42" else "")
    assert len(result.tool_calls) == answer.count('"name"')
    kinds = [type(event) for event in session.events]
    assert ReasoningDelta not in kinds[kinds.index(TextDelta) :] if TextDelta in kinds else True


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_bug_30_channels_are_reasoning_content_and_calls(size: int) -> None:
    """In the format that frames all it writes; nothing of the frames is shown."""
    output = OutputFormat(tool_parser=harmony.PARSER, reasoning=REASONING_FAMILIES["gpt_oss"])
    text = (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
        "<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant"
        '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'
    )
    session = played(text, output, size=size)
    result = result_of(session)
    assert (result.reasoning, result.text) == ("hm", "Let me see.")
    assert calls_of(session) == [("f", '{"a": 1}')]
    assert session.finished[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("text", ["hello <think>x</think>", " hello</think>", "<thin", "<thinker>"])
def test_bug_30_tags_elsewhere_are_content(text: str) -> None:
    """Thinking is disabled, or the model writes about tags."""
    assert result_of(played(text, OutputFormat(reasoning=THINK))).text == text


@pytest.mark.parametrize("reason", ["length", "stop"])
def test_bug_30_reasoning_that_never_closes_is_reasoning(reason: str) -> None:
    """Cut inside its closing tag even."""
    session = played("<think>so </thi", BOTH, reason=reason)
    assert result_of(session).reasoning == "so </thi"
    assert result_of(session).text == ""


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize("reason", ["stop", "length"])
@pytest.mark.parametrize(
    "output", [OPENED, OutputFormat(reasoning=THINK, opens_reasoning=True, shows_reasoning=False)]
)
def test_bug_18_reasoning_tokens_are_those_up_to_the_closing_tag(
    output: OutputFormat, size: int, reason: str
) -> None:
    """Shown or not; they are among the completion tokens, and so is all that was hidden."""
    thought, answer = "so it is\n</think>", "\n\nyes"
    session = played(thought + answer, output, size=size, reason=reason)
    usage = session.generation.usage
    assert usage.completion_tokens == len(ids_of(thought + answer)) == usage.generated_tokens
    assert len(ids_of(thought)) <= usage.reasoning_tokens <= len(ids_of(thought)) + 1
    assert usage.reasoning_tokens <= usage.completion_tokens
    assert result_of(session).text == "yes"


def test_bug_18_every_completion_token_has_its_log_probabilities() -> None:
    """Of markup, of reasoning and of the end too; the same counts whatever the cut."""
    text = f"<think>so</think>hm {call('f', {'a': 1})}"
    ids = [*ids_of(text), EOS]
    for size in (1, 2, 1000):
        session = Session(output=BOTH, logprobs=0).start()
        entries = logprobs_of(ids)
        for begin in range(0, len(ids), size):
            piece = ids[begin : begin + size]
            is_last = begin + size >= len(ids)
            session.push(
                piece,
                logprobs=entries[begin : begin + size],
                finish_reason="stop" if is_last else None,
                stop_token_id=EOS if is_last else None,
            )
        assert tuple(result_of(session).logprobs) == entries
        assert session.generation.usage.completion_tokens == len(ids)


def test_hidden_reasoning_is_delivered_with_what_follows_it() -> None:
    """A client that leaves before it saw anything is billed for nothing."""
    output = OutputFormat(reasoning=THINK, opens_reasoning=True, shows_reasoning=False)
    session = played("so it is</think>", output, reason=None)
    assert session.events == []
    assert session.generation.usage.completion_tokens == 0
    assert session.generation.usage.generated_tokens == len(ids_of("so it is</think>"))


def test_hidden_reasoning_has_no_log_probabilities() -> None:
    """They would tell what it is; those of the closing tag tell nothing."""
    output = OutputFormat(reasoning=THINK, opens_reasoning=True, shows_reasoning=False)
    ids = ids_of("so</think>yes")
    session = Session(output=output, logprobs=0).start()
    for token_id, entry in zip(ids, logprobs_of(ids), strict=True):
        session.push([token_id], logprobs=(entry,))
    session.end("stop")
    shown = b"".join(TOKENIZER.token_bytes(e.token_id) for e in result_of(session).logprobs)
    assert shown == b"</think>yes"


def test_one_call_only_ends_the_reply_behind_it() -> None:
    """And the engine is told; what a speculating engine made beyond it does not count."""
    output = OutputFormat(tool_parser=hermes.PARSER, allows_parallel_calls=False)
    session = played(f"{call('f', {})}\n{call('g', {})}", output, reason=None)
    assert calls_of(session) == [("f", "{}")]
    assert session.finished == [Finished(0, "tool_calls", "tool_calls")]
    assert session.engine.aborted == ["0"]


def test_bug_23_control_tokens_are_read_as_markup_and_never_shown() -> None:
    """Those of the family's syntax; all others stay hidden."""
    special = sorted(TOKENIZER.special_token_ids)
    opener, closer, other = special[0], special[1], special[2]
    output = OutputFormat(
        tool_parser=hermes.PARSER,
        control_tokens={opener: "<tool_call>", closer: "</tool_call>"},
    )
    session = Session(output=output).start()
    session.push_each(
        [
            *ids_of("hm"),
            other,
            opener,
            *ids_of('\n{"name": "f", "arguments": {"a": 1}}\n'),
            closer,
        ]
    )
    session.end("stop")
    assert result_of(session).text == "hm"
    assert calls_of(session) == [("f", '{"a": 1}')]


def test_control_tokens_are_found_by_their_spelling() -> None:
    """Those that are single ids; text that spells like markup is none."""
    special = min(TOKENIZER.special_token_ids)
    spelling = next(
        text
        for text in ("<|endoftext|>", "<|im_start|>", "<s>")
        if TOKENIZER.encode(text, allow_special=True) == [special]
    )
    assert find_control_tokens(TOKENIZER, [spelling, "<tool_call>"]) == {special: spelling}


@pytest.mark.parametrize("refused_at", range(6))
def test_what_could_not_be_delivered_is_not_counted(refused_at: int) -> None:
    """Whatever event it is; everything ends with it."""
    seen: list[Event] = []

    def answer(event: Event) -> bool | None:
        seen.append(event)
        return False if len(seen) > refused_at else None

    session = Session(output=BOTH, answer=answer).start()
    session.push_each(ids_of(f"<think>so it is</think>hm {call('f', {'a': 1})}"))
    assert session.finished[-1].finish_reason == "abort"
    usage = session.generation.usage
    assert usage.completion_tokens < usage.generated_tokens
    assert usage.reasoning_tokens <= usage.completion_tokens
