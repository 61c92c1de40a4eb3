"""What a replica's work lasts.

Every call of a model reads all weights, each row and each prompt token adds to it, and so does all
that the rows hold: attention looks at every token before. A step is one
decode call, and one more call for each chunk of a prompt; or, of an engine that mixes them, a
single call with one chunk beside the decode.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Seconds.

    Attributes:
        call_s: Of a call, whatever it computes.
        row_s: More for each row that decodes.
        prompt_token_s: More for each token of a prompt.
        context_token_s: More of a decode for each token that its rows hold.
        request_s: Of a request beside the calls, HTTP and text: other requests do not wait for it.
        mixes: A call that decodes takes a chunk of a prompt beside.
    """

    call_s: float
    row_s: float = 0.0
    prompt_token_s: float = 0.0
    context_token_s: float = 0.0
    request_s: float = 0.0
    mixes: bool = False

    def decode_s(self, num_rows: int, num_context: float = 0) -> float:
        """One token for each row; they hold so many together."""
        return self.call_s + self.row_s * num_rows + self.context_token_s * num_context

    def prefill_s(self, num_tokens: int) -> float:
        """One chunk of a prompt."""
        return self.call_s + self.prompt_token_s * num_tokens

    def mixed_s(self, num_rows: int, num_context: float, num_tokens: int) -> float:
        """Both in one call."""
        return self.decode_s(num_rows, num_context) + self.prompt_token_s * num_tokens
