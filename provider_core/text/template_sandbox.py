"""A Jinja environment in which a template cannot escape, cannot run long and cannot grow large.

A chat template comes with a model and is a program. Three rules bound it (docs/adr/ says why this
is done in the process):

* Every operation whose cost is not constant (a loop's turn, a call, a filter, a test, a comparison,
  an operator) looks at the clock first.
* Every operation that can make something larger than what went in (`+`, `*`, `~`, `join`,
  `replace`, `tojson`, a list or mapping, the output itself) pays for the result out of a budget.
* What cannot be bounded that way does not exist: `**`, `%` on strings, `format`, padding filters,
  `include` and its kin, attributes other than those named here.

One environment serves many threads; the clock and the budget are the rendering thread's own.
"""

import datetime as dt
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from itertools import islice
from typing import Any, NoReturn, cast

import jinja2
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from provider_core.errors import ConfigurationError
from provider_core.text.template_compiler import BoundedCodeGenerator, GenerationBlock, add_ticks

# The environment handles values of every type, as Jinja does; they are `object` below. Filters,
# arguments and JSON are `Any`, because Jinja's and json's own signatures are.

_words = re.compile(r"\w+").findall
_STR_METHODS = frozenset(
    _words("""
    capitalize casefold count endswith find index isalnum isalpha isdecimal isdigit islower
    isnumeric isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace
    rfind rindex rpartition rsplit rstrip split splitlines startswith strip swapcase title upper
    """)
)
_FILTERS = _words("""
    abs capitalize count d default dictsort e escape first float int items last length lower map
    max min reject rejectattr reverse safe select selectattr sort title trim unique upper
""")
_STRFTIME = re.compile(r"(?:[^%]|%-?[A-Za-z%])*")
_MAX_SOURCE_CHARS = 2**17
_MAX_BITS = 1024  # of a whole number that is still multiplied
_CHARS_PER_NODE = 8  # memory of a list's entry, in characters


class RenderLimitExceeded(Exception):
    """A template ran too long or made too much."""


class TemplateRaised(Exception):
    """The template called `raise_exception`: it refuses these messages."""


class _Local(threading.local):
    """The rendering thread's clock and budget."""

    deadline_s: float = 0.0
    processor_deadline_s: float = 0.0  # of this thread's own time
    chars_left: int = 0


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox. Compile with `load`, render with `render_bounded`."""

    code_generator_class = BoundedCodeGenerator
    intercepted_binops = frozenset({"+", "*", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            cache_size=0,
            extensions=["jinja2.ext.loopcontrols", GenerationBlock],
        )
        self._local = _Local()
        own: dict[str, Callable[..., Any]] = {
            "indent": self._indent,
            "join": self._join,
            "list": self._list,
            "replace": self._replace,
            "string": self.text_of,
            "tojson": self._tojson,
        }
        filters: dict[str, Callable[..., Any]] = {name: self.filters[name] for name in _FILTERS}
        self.filters = {name: self._bounded(f) for name, f in (filters | own).items()}
        tests = cast("dict[str, Callable[..., Any]]", self.tests)  # Jinja declares no parameters
        self.tests = {name: self._bounded(f) for name, f in tests.items()}
        self.globals = {name: self.globals[name] for name in ("range", "dict", "namespace")} | {
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }
        self.finalize = self.text_of

    def load(self, source: str) -> jinja2.Template:
        """Compile a template.

        Raises:
            ConfigurationError: It is not a template, or uses what cannot be bounded.
        """
        if len(source) > _MAX_SOURCE_CHARS:
            message = f"the chat template has {len(source)} characters, over {_MAX_SOURCE_CHARS}"
            raise ConfigurationError(message)
        self._open_budget(10, 2**20)  # constants are folded at compile time
        try:
            code = self.compile(add_ticks(self.parse(source)))
        except (jinja2.TemplateError, SyntaxError, RecursionError, MemoryError) as error:
            raise ConfigurationError(f"the chat template cannot be compiled: {error}") from error
        return jinja2.Template.from_code(self, code, self.make_globals(None))

    def render_bounded(
        self,
        template: jinja2.Template,
        variables: Mapping[str, Any],  # JSON values
        *,
        timeout_s: float,
        max_chars: int,
    ) -> str:
        """Render; `max_chars` counts what is made on the way, too.

        Raises:
            RenderLimitExceeded: It took too long or too much.
            TemplateRaised: The template called `raise_exception`.
            Exception: Whatever the template's code raised.
        """
        self._open_budget(timeout_s, max_chars)
        return self.concat(template.generate(variables))

    def tick(self) -> None:
        """Look at the clocks: a template is not to blame while its thread does not run."""
        local = self._local
        if (
            time.monotonic() > local.deadline_s  # asked first, as it costs a sixth
            and time.thread_time() > local.processor_deadline_s
        ):
            raise RenderLimitExceeded("time")

    def pay(self, chars: int) -> None:
        """Take from the budget."""
        local = self._local
        local.chars_left -= chars
        if local.chars_left < 0:
            raise RenderLimitExceeded("size")

    def paid(self, value: object) -> object:
        """Pay for a value: a string by its length, a container by all it holds."""
        if isinstance(value, str):
            self.pay(len(value))
        elif isinstance(value, list | tuple | dict):
            self._pay_tree(value, is_text=False)
        return value

    def text_of(self, value: object) -> str:
        """A value as text; only what JSON knows has one."""
        if isinstance(value, str):
            return value
        if isinstance(value, list | tuple | dict):
            self._pay_tree(value, is_text=True)
        elif not isinstance(value, int | float | None | Undefined):
            raise jinja2.TemplateRuntimeError(f"a {type(value).__name__} has no text")
        return str(value)

    def join_texts(self, values: Iterable[object]) -> str:
        """`~`: join the values' texts."""
        return self.concat(map(self.text_of, values))

    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
        """Name what may be reached; of plain data only what is bounded."""
        match obj:
            case str():
                return attr in _STR_METHODS
            case dict():
                return attr in {"get", "items", "keys", "values"}
            case list() | tuple():
                return attr in {"count", "index"}
            case int() | float():
                return False
            case _:
                return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: object) -> None:
        """`str.format` is an attribute like others, and not among the safe ones."""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Pay for sums and products."""
        self.tick()
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            self.pay(len(left) + len(right))
            return left + right
        if isinstance(left, int | float) and isinstance(right, int | float):
            if isinstance(left, int) and left.bit_length() > _MAX_BITS:
                raise RenderLimitExceeded("size")
        elif operator == "%":
            raise jinja2.TemplateRuntimeError("only numbers have a remainder")
        elif operator == "*":
            times, value = (left, right) if isinstance(left, int) else (right, left)
            self.pay(len(value) * max(times, 0))
        result = super().call_binop(context, operator, left, right)
        return result if isinstance(result, str) else self.paid(result)  # text is paid already

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a macro, a function, or a method of a string."""
        self.tick()
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            match obj.__name__:
                case "join":
                    return self._join(args[0], owner)
                case "replace":
                    return self._replace(owner, *args)
                case "split" | "rsplit" if args and isinstance(args[0], str) and args[0]:
                    self.pay(owner.count(args[0]) * _CHARS_PER_NODE)
                case "split" | "rsplit" | "splitlines":
                    self.pay(len(owner))
        return self.paid(super().call(context, obj, *args, **kwargs))

    def _open_budget(self, timeout_s: float, chars: int) -> None:
        self._local.deadline_s = time.monotonic() + timeout_s
        self._local.processor_deadline_s = time.thread_time() + timeout_s
        self._local.chars_left = chars

    def concat(self, pieces: Iterable[str]) -> str:
        """Join what a block has written; the compiled template calls it."""
        texts = []
        for piece in pieces:
            self.pay(len(piece))
            texts.append(piece)
        return "".join(texts)

    def _pay_tree(self, value: object, *, is_text: bool) -> None:
        """Pay for every node below a container, as often as it is reached."""
        todo = [value]
        while todo:
            item = todo.pop()
            size = _CHARS_PER_NODE
            if isinstance(item, dict):
                children: Iterable[Any] = [*item.keys(), *item.values()]
            elif isinstance(item, list | tuple):
                children = item
            else:
                children = ()
                if isinstance(item, str):
                    size += len(item) if is_text else 0
                elif is_text and not isinstance(item, int | float | None | Undefined):
                    raise jinja2.TemplateRuntimeError(f"a {type(item).__name__} has no text")
            self.pay(size)
            todo += children

    def _bounded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            return self.paid(function(*args, **kwargs))

        return bounded

    def _join(self, value: Any, d: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            value = (self.getitem(item, attribute) for item in value)
        texts = list(map(self.text_of, self._list(value)))
        self.pay(sum(map(len, texts)) + len(texts) * len(d))
        return d.join(texts)

    def _list(self, value: Iterable[Any]) -> list[Any]:
        items = list(islice(value, self._local.chars_left // _CHARS_PER_NODE + 1))
        self.pay(len(items) * _CHARS_PER_NODE)
        return items

    def _replace(self, value: Any, old: str, new: str, count: int | None = None) -> str:
        text = self.text_of(value)
        self.pay(len(text) + text.count(old) * len(new))
        return text.replace(old, new, -1 if count is None else count)

    def _indent(self, text: str, width: int | str = 4, first: int = 0, blank: int = 0) -> str:
        prefix = width if isinstance(width, str) else " " * min(width, 64)
        lines = text.splitlines(keepends=True)
        self.pay(len(text) + len(lines) * (len(prefix) + _CHARS_PER_NODE))
        return "".join(
            prefix + line if (i or first) and (blank or line.strip()) else line
            for i, line in enumerate(lines)
        )

    def _tojson(
        self,
        value: Any,
        *,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """JSON as Hugging Face's template filter writes it: no escaping of HTML, no sorting."""
        self._pay_tree(value, is_text=True)
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=None if indent is None else min(indent, 16),
            separators=separators,
            sort_keys=sort_keys,
        )


def _raise_exception(message: object) -> NoReturn:
    raise TemplateRaised(message)


def _strftime_now(pattern: str) -> str:
    """Today, as templates that name the date ask for it."""
    if not _STRFTIME.fullmatch(pattern):
        raise jinja2.TemplateRuntimeError("strftime_now takes plain directives")
    return dt.datetime.now(tz=dt.UTC).astimezone().strftime(pattern)
