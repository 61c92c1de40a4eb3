"""The built-in model's card says what was measured, no more."""

import json

from provider_starter import MODEL_DIR
from provider_starter.card import CARD

EVALUATION = json.loads((MODEL_DIR.parent / "recipe/evaluation.json").read_text(encoding="utf-8"))
ABILITIES = {
    "Small talk": "chat",
    "Multiplication": "multiply",
    "Facts of a sentence as JSON": "extraction",
    "Calls of realistic tools": "realistic tools",
    "Refusing what it cannot do": "refusal",
}


def test_measurements_are_those_of_the_evaluation() -> None:
    """By ability, with its number of questions."""
    said = {measurement.name: measurement for measurement in CARD.measurements}

    assert said.keys() == ABILITIES.keys()
    for name, measurement in said.items():
        row = EVALUATION["rows"][ABILITIES[name]]
        assert measurement.value == f"{row['measured']:.3f}"
        assert f"n = {row['n']}," in measurement.conditions
