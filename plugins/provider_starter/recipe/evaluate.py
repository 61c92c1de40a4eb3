"""Measure each ability on held-out phrasings and items, against the acceptance table.

`python -m provider_starter.recipe.evaluate --n 200`
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenizers import Tokenizer

from provider_starter.recipe.conversation import Conversation, answer_text, segments
from provider_starter.recipe.judging import is_json, is_right
from provider_starter.recipe.lexicon import Lexicon
from provider_starter.recipe.mixture import SKILLS, Mixture
from provider_starter.recipe.vocabulary import Encoder, letter_pieces, load

# Answers to prompts, both as ids; an answer ends with the end mark if the model ended it.
Generate = Callable[[list[list[int]], int], list[list[int]]]
# The log-probability of each token of each sequence after the ones before it; 0 for the first.
Score = Callable[[list[list[int]]], list[list[float]]]

HERE = Path(__file__).parent
_STOPS = (0, 2)  # the end of the text, the end of a turn
_LONGEST = {"story": 320}  # tokens of an answer, where not the usual
_USUAL = 240
TARGETS = {
    "chat": 0.95, "persona": 0.95, "facts": 0.95, "memory": 0.95, "copy": 0.95,
    "answer after result": 0.95, "realistic tools": 0.95, "composed tools": 0.80,
    "two calls": 0.80, "none fits": 0.90, "extraction": 0.95, "valid JSON": 0.99,
    "add": 0.90, "subtract": 0.90, "multiply": 0.90, "lists": 0.90, "spell": 0.90,
    "uppercase": 0.80, "reverse": 0.70, "story": 0.99, "refusal": 0.90,
    "no markup without tools": 1.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the acceptance table."""

    measured: float
    target: float
    passed: bool
    n: int


@dataclass(frozen=True, slots=True)
class Miss:
    """An answer that is wrong."""

    skill: str
    asked: str
    expected: str
    said: str


def conversations(skill: str, n: int, tokenizer: Tokenizer, *, held: bool) -> list[Conversation]:
    """Return the same `n` conversations of a skill each time."""
    mixture = Mixture(f"evaluate {skill} {held}", Lexicon(letter_pieces(tokenizer)), held=held)
    return [mixture.of(skill) for _ in range(n)]


def prompt(talk: Conversation, encoder: Encoder) -> list[int]:
    """Return the ids up to where the last answer begins."""
    pieces = segments(talk.messages[:-1], talk.tools, open_answer=True)
    return [i for piece in pieces for i in encoder.ids(piece.text)]


def accuracy(
    generate: Generate, n: int, *, held: bool = True, skills: Iterable[str] = SKILLS
) -> tuple[dict[str, Row], list[Miss]]:
    """Return the acceptance table and the wrong answers."""
    tokenizer = load()
    encoder = Encoder(tokenizer)
    rows: dict[str, Row] = {}
    misses: list[Miss] = []
    unmarked = toolless = 0
    for skill in skills:
        talks = conversations(skill, n, tokenizer, held=held)
        answers = generate([prompt(t, encoder) for t in talks], _LONGEST.get(skill, _USUAL))
        right = valid = 0
        for talk, ids in zip(talks, answers, strict=True):
            ended = bool(ids) and ids[-1] in _STOPS
            said = ids[:-1] if ended else ids
            text = tokenizer.decode(said, skip_special_tokens=False)
            good = is_right(talk, text, len(said), ended=ended)
            right += good
            valid += is_json(text)
            if not talk.tools:
                toolless += 1
                unmarked += "<tool" not in text
            if not good:
                expected = answer_text(talk.messages[-1])
                misses.append(Miss(skill, talk.messages[-2].content, expected, text))
        rows[skill] = _row(skill, right, n)
        if skill == "extraction":
            rows["valid JSON"] = _row("valid JSON", valid, n)
    if toolless:
        rows["no markup without tools"] = _row("no markup without tools", unmarked, toolless)
    return rows, misses


def _row(skill: str, right: int, n: int) -> Row:
    share = right / n
    return Row(round(share, 4), TARGETS[skill], share >= TARGETS[skill], n)


def perplexity(score: Score, n: int) -> float:
    """Return the perplexity of the assistant's tokens in held-out conversations."""
    tokenizer = load()
    encoder = Encoder(tokenizer)
    coded = [encoder(t) for s in SKILLS for t in conversations(s, n, tokenizer, held=True)]
    total, count = 0.0, 0
    for (_, learned), scores in zip(coded, score([c[0] for c in coded]), strict=True):
        total += sum(s for s, keep in zip(scores, learned, strict=True) if keep)
        count += sum(learned)
    return math.exp(-total / count)


def table(rows: dict[str, Row]) -> str:
    """Return the acceptance table as Markdown."""
    lines = ["| ability | measured | target | |", "|---|---|---|---|"]
    for skill, row in rows.items():
        verdict = "pass" if row.passed else "**fail**"
        lines.append(f"| {skill} | {row.measured:.3f} | {row.target:.2f} | {verdict} |")
    return "\n".join(lines)


def main() -> None:
    """Evaluate the weights of the recipe, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--n", type=int, default=200, help="conversations of each skill")
    parser.add_argument("--weights", type=Path, default=HERE / "model.safetensors")
    parser.add_argument("--out", type=Path, help="where to write the results as JSON")
    parser.add_argument("--seen", action="store_true", help="trained phrasings and items instead")
    parser.add_argument("--misses", type=int, default=0, help="wrong answers to print a skill")
    parser.add_argument("--skills", nargs="*", default=SKILLS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    # Only this way of running the model needs torch; others may call `accuracy` without it.
    from provider_starter.recipe.inference import TorchModel  # noqa: PLC0415

    model = TorchModel(args.weights, args.threads)
    rows, misses = accuracy(model.generate, args.n, held=not args.seen, skills=args.skills)
    print(table(rows))
    shown: dict[str, int] = {}
    for miss in misses:
        shown[miss.skill] = shown.get(miss.skill, 0) + 1
        if shown[miss.skill] <= args.misses:
            print(f"{miss.skill}: {miss.asked!r}\n   not {miss.expected!r}\n   but {miss.said!r}")
    results: dict[str, object] = {"rows": {k: asdict(v) for k, v in rows.items()}}
    if set(args.skills) == set(SKILLS):
        results["perplexity"] = round(perplexity(model.score, max(1, args.n // 4)), 4)
        print(f"perplexity {results['perplexity']}")
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
