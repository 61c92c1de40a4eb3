"""T6: a chat template is a foreign program. It cannot escape, run long, or grow large."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import jinja2
import pytest

from provider_core.errors import ConfigurationError
from provider_core.text.template_sandbox import (
    BoundedEnvironment,
    RenderLimitExceeded,
    TemplateRaised,
)

REFUSED = (RenderLimitExceeded, ConfigurationError, jinja2.TemplateError, TypeError, OverflowError)


def render(
    source: str, *, timeout_s: float = 0.2, max_chars: int = 2**20, **variables: object
) -> str:
    """Load and render in a fresh environment."""
    environment = BoundedEnvironment()
    template = environment.load(source)
    return environment.render_bounded(template, variables, timeout_s=timeout_s, max_chars=max_chars)


ESCAPES = {
    "class": "{{ ''.__class__.__mro__ }}",
    "class by filter": "{{ ''|attr('__class__') }}",
    "class by item": "{{ ''['__class__']['__mro__'] }}",
    "class by format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "class by format_map": "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "class by map": "{{ ['']|map(attribute='__class__')|list }}",
    "globals of a function": "{{ raise_exception.__globals__ }}",
    "globals of the namespace": "{{ namespace.__init__.__globals__ }}",
    "frame of a generator": "{{ (messages|map('upper')).gi_frame }}",
    "the template itself": "{{ self._TemplateReference__context }}",
    "a file": "{% include '/etc/passwd' %}",
    "an import": "{% import 'os' as os %}",
    "a base": "{% extends 'x' %}",
    "changing the messages": "{{ messages.append(1) }}",
    "changing a mapping": "{{ {'a': 1}.update({'b': 2}) }}",
}


@pytest.mark.parametrize("source", ESCAPES.values(), ids=ESCAPES)
def test_t6_a_template_cannot_escape(source: str) -> None:
    """Nothing but data and the named functions can be reached; nothing can be changed."""
    messages = ["a"]
    try:
        text = render(source, messages=messages)
    except REFUSED:
        text = ""
    assert text in {"", "[Undefined]"}
    assert messages == ["a"]


NESTED_LOOPS = "{% set l = range(99999)|list %}" + "{% for a in l %}" * 5 + "{% endfor %}" * 5
SIXTY_TIMES = "{% for i in range(60) %}{% set ns.x = EXPR %}{% endfor %}"
DOUBLING = "{% set ns = namespace(x='aaaaaaaa') %}" + SIXTY_TIMES
SHARED = "{% set ns = namespace(x=[1]) %}" + SIXTY_TIMES
BOMBS = {
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "range without a power": "{% for i in range(1000000000) %}{% endfor %}",
    "loops in loops": NESTED_LOOPS,
    "loops that write": NESTED_LOOPS.replace("{% endfor %}", "x{% endfor %}", 1),
    "loop with a test": "{% set l = range(99999)|list %}{% for a in l %}{% for b in l if b < 0 %}"
    "{% endfor %}{% endfor %}",
    "string times 10^9": "{{ 'a' * 1000000000 }}",
    "10^9 times string": "{{ 1000000000 * 'a' }}",
    "string times power": "{{ 'a' * 10 ** 9 }}",
    "list times 10^9": "{{ ([1] * 1000000000)|length }}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "growing number": "{% set ns = namespace(x=99) %}{% for i in range(99) %}"
    "{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "doubling by plus": DOUBLING.replace("EXPR", "ns.x + ns.x"),
    "doubling by tilde": DOUBLING.replace("EXPR", "ns.x ~ ns.x"),
    "doubling by join": DOUBLING.replace("EXPR", "[ns.x, ns.x]|join"),
    "doubling by str.join": DOUBLING.replace("EXPR", "''.join([ns.x, ns.x])"),
    "doubling by replace": DOUBLING.replace("EXPR", "ns.x|replace('a', 'aa')"),
    "doubling by str.replace": DOUBLING.replace("EXPR", "ns.x.replace('a', 'aa')"),
    "doubling by block": DOUBLING.replace(
        "{% set ns.x = EXPR %}", "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"
    ),
    "doubling by macro": "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}"
    + DOUBLING.replace("EXPR", "m(ns.x)"),
    "copies": "{% set ns = namespace(l=[]) %}{% set x = 'a' * 99999 %}{% for i in range(99999) %}"
    "{% set ns.l = ns.l + [x|upper] %}{% endfor %}",
    "slices": "{% set ns = namespace(l=[]) %}{% set x = 'a' * 99999 %}{% for i in range(99999) %}"
    "{% set ns.l = ns.l + [x[1:]] %}{% endfor %}",
    "shared lists": SHARED.replace("EXPR", "[ns.x, ns.x]"),
    "shared tuples": SHARED.replace("EXPR", "(ns.x, ns.x)"),
    "shared mappings": SHARED.replace("EXPR", "{'a': ns.x, 'b': ns.x}"),
    "shared by dict": SHARED.replace("EXPR", "dict(a=ns.x, b=ns.x)"),
    "shared by namespace": SHARED.replace("EXPR", "namespace(a=ns.x, b=ns.x)") + "{{ ns.x }}",
    "long output": "{% for i in range(99999) %}{{ 'a' * 99 }}{% endfor %}",
    "padding": "{{ 'a'|center(1000000000) }}",
    "padding by method": "{{ 'a'.ljust(1000000000) }}",
    "padding by format": "{{ '%1000000000d'|format(1) }}",
    "padding by percent": "{{ '%1000000000d' % 1 }}",
    "padding by str.format": "{{ '{:>1000000000}'.format(1) }}",
    "padding by indent": "{{ 'a\\nb'|indent(1000000000) ~ 'x' * 2000000 }}",
    "padding by date": "{{ strftime_now('%1000000000Y') }}",
    "padding by bytes": "{{ (1).to_bytes(1000000000) }}",
    "lorem ipsum": "{{ lipsum(n=100000) }}",
    "batch": "{{ [1]|batch(1000000000, 0)|list }}",
    "round": "{{ 5|round(-1000000000) }}",
    "recursive macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "recursive macros": "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}"
    "{% endmacro %}{{ a() }}",
    "branching macro": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}"
    "{% endmacro %}{{ m(60) }}",
    "recursive loop": "{% for x in [[]] recursive %}{{ loop([x]) }}{% endfor %}",
    "deep ifs": "{% if 1 %}" * 6000 + "{% endif %}" * 6000,
    "deep parentheses": "{{ " + "(" * 6000 + "1" + ")" * 6000 + " }}",
    "deep lists": "{{ " + "[" * 6000 + "]" * 6000 + " }}",
    "deep sums": "{{ 1" + " + 1" * 6000 + " }}",
    "deep filters": "{{ 'a'" + "|upper" * 6000 + " }}",
    "deep not": "{{ " + "not " * 6000 + "1 }}",
    "huge source": "a" * 10**7,
}


@pytest.mark.parametrize("source", BOMBS.values(), ids=BOMBS)
@pytest.mark.timeout(5)
def test_t6_a_bomb_is_refused_at_load_or_stopped_while_rendering(source: str) -> None:
    """And the next template renders."""
    with pytest.raises((*REFUSED, RecursionError)):
        render(source)
    assert render("{{ 1 + 1 }}") == "2"


class _Untouchable:
    """Fails the test when anything is looked for in it, or its text is asked for."""

    def __str__(self) -> str:
        raise AssertionError("its text was asked for")

    def __contains__(self, item: object) -> bool:
        raise AssertionError(f"{item} was compared")


@pytest.mark.parametrize(
    "statement",
    [
        "{% if 'a' in x %}{% endif %}",
        "{% for i in [1] %}{{ 'a' in x }}{% endfor %}",
        "{% set y = x|upper %}",
        "{% set y = 'a' is in x %}",
        "{% set y = 1 + x %}{{ 'a' in x }}",
        "{% set y = raise_exception(x) %}",
    ],
)
def test_t6_every_operation_looks_at_the_clock_first(statement: str) -> None:
    """When the time is over, not one more is done."""
    with pytest.raises(RenderLimitExceeded, match="time"):
        render(statement, timeout_s=-1, x=_Untouchable())


@pytest.mark.parametrize(
    "expression",
    [
        "x[1:]", "x[::-1]", "x + x", "x ~ ''", "x * 2", "2 * x", "x|upper", "x.upper()", "x|trim",
        "x|replace('b', 'c')", "x.replace('b', 'c')", "'-'|replace('-', x)", "x|tojson", "x|list",
        "x.split('a')", "x.splitlines()", "[x]|join", "''.join([x])", "x|indent", "[x]|string",
        "[x] ~ ''", "{'a': x}|tojson", "m[1:]", "m + [1]", "m * 2", "m|list", "[m]", "(m, 1)",
        "{'a': m}", "dict(a=m)", "m|map('upper')|list", "m|join", "m|sort", "m|reverse|list",
        "2 ** 1", "n * n", "n * 2", "'%d' % n",
    ],
)  # fmt: skip
def test_t6_whatever_makes_something_is_paid_for(expression: str) -> None:
    """A result that nobody prints costs as much as one that is printed."""
    environment = BoundedEnvironment()
    variables = {"x": "a" * 1000, "m": ["a"] * 1000, "n": 2**2000}
    with pytest.raises((RenderLimitExceeded, ConfigurationError, jinja2.TemplateError)):
        environment.render_bounded(
            environment.load("{% set y = " + expression + " %}"),
            variables,
            timeout_s=9,
            max_chars=900,
        )


def test_each_thread_has_its_own_budget() -> None:
    """A rendering that fails beside another takes nothing from it."""
    environment = BoundedEnvironment()
    large = environment.load("{{ 'a' * 90 }}")

    def render_elsewhere() -> str:
        with ThreadPoolExecutor(1) as pool:
            rendering = pool.submit(
                environment.render_bounded, large, {}, timeout_s=9, max_chars=10
            )
            return type(rendering.exception()).__name__

    template = environment.load("{{ other() }}{{ 'a' * 9 }}")
    text = environment.render_bounded(
        template, {"other": render_elsewhere}, timeout_s=9, max_chars=90
    )
    assert text == "RenderLimitExceeded" + "a" * 9


def test_t6_a_template_is_not_to_blame_for_a_machine_that_stalls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only time that its own thread runs counts."""
    now_s = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now_s[-1], thread_time=time.thread_time)
    monkeypatch.setattr("provider_core.text.template_sandbox.time", clock)

    def stall() -> str:
        now_s.append(3600.0)
        return ""

    assert render("{{ stall() }}{{ 'a'|upper }}", stall=stall, timeout_s=9) == "A"


def test_raise_exception_is_told_apart() -> None:
    """The template's own refusal is no failure of the template."""
    with pytest.raises(TemplateRaised, match="no"):
        render("{{ raise_exception('no') }}")


def test_tojson_is_hugging_faces() -> None:
    """No escaping of HTML or of Unicode, no sorting, spaces after separators."""
    value = {"b": "<é'&>", "a": [1, None, True]}
    assert render("{{ x|tojson }}", x=value) == json.dumps(value, ensure_ascii=False)
    assert render("{{ x|tojson(indent=2) }}", x=value) == json.dumps(
        value, ensure_ascii=False, indent=2
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ [1, 'a', none, true] }}", "[1, 'a', None, True]"),
        ("{{ {'a': 1} ~ 2 ~ undefined_name }}", "{'a': 1}2"),
        ("{{ [{'a': 1}, {'a': 2}]|map(attribute='a')|join(', ') }}", "1, 2"),
        ("{{ [{'a': 1}, {'a': 2}]|join('-', attribute='a') }}", "1-2"),
        ("{{ '-'.join(['a', 'b']) }}", "a-b"),
        ("{{ 'a b c'.split(' ')[-1] }}{{ 'a b'.split()[0] }}", "ca"),
        ("{{ 'aaa'.replace('a', 'b', 2) }}{{ 'aaa'|replace('a', 'b', 1) }}", "bbabaa"),
        ("{{ 'a\\nb\\n\\nc'|indent(2) }}", "a\n  b\n\n  c"),
        ("{{ 'a\\nb'|indent('> ', true) }}", "> a\n> b"),
        ("{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
         "01345678"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% for k, v in {'b': 1, 'a': 2}|dictsort %}{{ k }}{{ v }}{% endfor %}", "a2b1"),
        ("{% set x = namespace(n=0) %}{% for i in [3] %}{% set x.n = i %}{% endfor %}{{ x.n }}",
         "3"),
        ("{{ 3 * 2 }} {{ 3 % 2 }} {{ 7 // 2 }} {{ 1 - 2.5 }}", "6 1 3 -1.5"),
        ("{% for x in [1, 2, 3] %}{{ loop.last }}{{ loop.length }}{% endfor %}",
         "False3False3True3"),
        ("{{ {'a': 1}.items()|list }}{{ {'a': 1}.get('b', 2) }}", "[('a', 1)]2"),
        ("{{ 'abcd'[1:3] }}{{ [1, 2, 3][::-1] }}", "bc[3, 2, 1]"),
        ("{{ 'a' in ['a'] }}{{ 1 < 2 < 3 }}{{ 2 is even }}{{ 'x' is string }}",
         "TrueTrueTrueTrue"),
        ("{% generation %}a{{ 1 }}{% endgeneration %}", "a1"),
        ("{% macro m(a, b='x') %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}", "1x12"),
        ("{{ strftime_now('%%')  }}", "%"),
        ("{% if true %}\na\n{% endif %}\n  {% if true %}b{% endif %}", "a\nb"),
    ],
)  # fmt: skip
def test_ordinary_template_code_works(source: str, expected: str) -> None:
    """What published chat templates use, with Jinja's own meaning."""
    assert render(source) == expected
