"""What a replica's work lasts.

Every call of a model reads all weights, each row and each prompt token adds to it. A step is one
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
        request_s: Of a request beside the calls, HTTP and text: other requests do not wait for it.
        mixes: A call that decodes takes a chunk of a prompt beside.
    """

    call_s: float
    row_s: float = 0.0
    prompt_token_s: float = 0.0
    request_s: float = 0.0
    mixes: bool = False

    def decode_s(self, num_rows: int) -> float:
        """One token for each row."""
        return self.call_s + self.row_s * num_rows

    def prefill_s(self, num_tokens: int) -> float:
        """One chunk of a prompt."""
        return self.call_s + self.prompt_token_s * num_tokens

    def mixed_s(self, num_rows: int, num_tokens: int) -> float:
        """Both in one call."""
        return self.decode_s(num_rows) + self.prompt_token_s * num_tokens
