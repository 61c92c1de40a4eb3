"""Prompts to ids, refusing what cannot fit before the work is done."""

import asyncio

from provider_core.errors import ContextLengthExceeded
from provider_core.interfaces import RenderedPrompt, Tokenizer

_INLINE_CHARS = 1024  # shorter text is encoded in less time than a thread is woken


async def encode_prompt(
    tokenizer: Tokenizer, prompt: str | RenderedPrompt, *, max_tokens: int
) -> tuple[int, ...]:
    """Encode a prompt without blocking the loop.

    Args:
        tokenizer: The model's.
        prompt: A raw completions prompt, which begins with the tokenizer's `prompt_prefix_ids` and
            in which control tokens are plain text; if it is empty, the tokenizer's
            `document_start_ids` stand for it. Or a rendered conversation.
        max_tokens: Most ids that leave room for one new token.

    Returns:
        The ids, exactly as many as the model will see.

    Raises:
        ContextLengthExceeded: There are more. Text that certainly is longer is not encoded at all.
    """
    prefix: tuple[int, ...] = ()
    if isinstance(prompt, str):
        prefix = tokenizer.prompt_prefix_ids
        if not (prompt or prefix):
            prefix = tokenizer.document_start_ids
        segments: tuple[tuple[str, bool], ...] = ((prompt, False),)
    else:
        segments = prompt.segments
    arguments = (tokenizer, prefix, segments, max_tokens)
    try:
        if sum(len(text) for text, _ in segments) < _INLINE_CHARS:
            return _encode(*arguments)
        return await asyncio.to_thread(_encode, *arguments)
    except ContextLengthExceeded as error:
        error.param = "prompt" if isinstance(prompt, str) else "messages"
        raise


def _encode(
    tokenizer: Tokenizer,
    prefix: tuple[int, ...],
    segments: tuple[tuple[str, bool], ...],
    max_tokens: int,
) -> tuple[int, ...]:
    bound = len(prefix)
    for text, _ in segments:
        if len(text) > max_tokens:
            bound += tokenizer.min_num_tokens(text)
    if bound > max_tokens:
        raise _too_long(f"at least {bound}", max_tokens)
    token_ids = list(prefix)
    for text, allow_special in segments:
        token_ids += tokenizer.encode(text, allow_special=allow_special)
        if len(token_ids) > max_tokens:
            raise _too_long(f"at least {len(token_ids)}", max_tokens)
    return tuple(token_ids)


def _too_long(num_tokens: str, max_tokens: int) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"the prompt has {num_tokens} tokens; this model takes at most {max_tokens}"
    )
