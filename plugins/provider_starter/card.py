"""What the built-in model's page says of it; its README has the whole evaluation."""

from provider_core import CardExample, CardMeasurement, CardRecommendation, ModelCard

_HELD_OUT = "share of right answers to phrasings not seen in training, n = 200, greedy"

CARD = ModelCard(
    use_cases=(
        "Trying this server out without a download or an accelerator.",
        "Testing a client against a real model that streams, calls tools and writes JSON.",
        "Checking a deployment end to end in seconds, for next to nothing.",
    ),
    strengths=(
        "Small talk, personas, and remembering what it was told in the conversation.",
        "Sums and differences up to 100, the 12 x 12 table, counting and short lists.",
        "Copying, capitals, spelling and reversing words; facts of a sentence as JSON.",
        "Calling one of the tools it knows the kind of, and telling what the tool answered.",
    ),
    limitations=(
        "It knows almost nothing, and it is not meant for any real use.",
        "What it was not trained for it refuses; an answer may be fluent and wrong.",
        "It does not call tools of kinds that it was never trained on.",
        "English only. Contexts over 1,024 tokens run; their quality was not measured.",
    ),
    prompting=(
        "Ask for one thing in one short, plain sentence.",
        "Describe a tool in a few words, as a verb and its object.",
    ),
    examples=(
        CardExample(prompt="What is the capital of Peru?", answer="The capital of Peru is Lima."),
        CardExample(prompt="What is 17 + 25?", answer="17 + 25 = 42."),
        CardExample(
            prompt="Explain quantum physics.",
            answer="Sorry, I am only a small demo model and cannot help with that.",
        ),
    ),
    recommendations=(
        CardRecommendation(purpose="Facts, sums, tools, JSON", parameters={"temperature": 0}),
        CardRecommendation(
            purpose="Stories", parameters={"temperature": 0.7, "top_p": 0.9, "max_tokens": 300}
        ),
    ),
    measurements=(
        CardMeasurement(name="Small talk", value="0.875", conditions=_HELD_OUT),
        CardMeasurement(name="Multiplication", value="1.000", conditions=_HELD_OUT),
        CardMeasurement(name="Facts of a sentence as JSON", value="0.950", conditions=_HELD_OUT),
        CardMeasurement(name="Calls of realistic tools", value="0.835", conditions=_HELD_OUT),
        CardMeasurement(name="Refusing what it cannot do", value="0.960", conditions=_HELD_OUT),
    ),
)
