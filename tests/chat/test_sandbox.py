"""Hostile templates end in one line, soon, with nothing read, run or allocated on the way."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.chat.sandbox import MeteredEnvironment
from hybrid.chat.template import BASE_BUDGET, ChatTemplate
from hybrid.errors import CheckpointError, KimiLocalError
from tests.reference.chat_strategies import PATIENT

MESSAGES = [{"role": "user", "content": "a" * 1000}]


def doubled(start: str, step: str, times: int = 60) -> str:
    return "{% set x = " + start + " %}" + ("{% set x = " + step + " %}") * times


HOSTILE = {
    # work
    "nested loops": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    ),
    "recursion": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "doubling recursion": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
    ),
    "comparing trees": (
        doubled("1", "dict(a=x, b=x)")
        + doubled("1", "dict(a=x, b=x)").replace("x ", "y ").replace("=x", "=y")
        + "{{ x == y }}"
    ),
    "filter in a loop": (
        "{% for a in range(99999) %}{% if messages | tojson %}{% endif %}{% endfor %}"
    ),
    # memory
    "power": "{{ 9 ** 9 ** 9 }}",
    "text times number": "{{ 'a' * 1000000000 }}",
    "list times number": "{{ [1] * 1000000000 }}",
    "centre": "{{ 'a' | center(10000000000) }}",
    "justify": "{{ 'a'.ljust(10000000000) }}",
    "format": "{{ '{:>9999999999}'.format(1) }}",
    "percent": "{{ '%9999999999d' % 1 }}",
    "format filter": "{{ '%9999999999d' | format(1) }}",
    "doubled by ~": doubled("'aaaa'", "x ~ x") + "{{ x }}",
    "doubled by +": doubled("'aaaa'", "x + x") + "{{ x }}",
    "doubled list": doubled("[1]", "[x, x]") + "{{ x }}",
    "doubled list, as JSON": doubled("[1]", "[x, x]") + "{{ x | tojson }}",
    "doubled dict": doubled("1", "{'a': x, 'b': x}") + "{{ x }}",
    "doubled namespace": doubled("namespace(a=1)", "namespace(a=x, b=x)") + "{{ x }}",
    "doubled by replace": doubled("messages[0].content", "x | replace('a', x)"),
    "doubled by .replace": doubled("messages[0].content", "x.replace('a', x)"),
    "doubled by join": doubled("'aaaa'", "range(90000) | join(x)"),
    "doubled by .join": doubled("'aaaa'", "x.join(range(90000))"),
    "doubled in a namespace": (
        "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}"
        "{% endfor %}"
    ),
    "many slices": doubled("'aaaa'", "x ~ x", 20)
    + "".join("{% set y" + str(i) + " = x[1:] %}" for i in range(99)),
    "long range": "{{ range(1000000000) | list }}",
    "endless output": "{% for i in range(99999) %}{{ messages[0].content }}{% endfor %}" * 20,
    "wide JSON": "{{ messages | tojson(indent=100000000) }}",
    "JSON separators": "{{ messages | tojson(separators=('a' ~ messages[0].content, ':')) }}",
    "rounding": "{{ 5 | round(-1000000000) }}",
    "lorem ipsum": "{{ lipsum(n=100000000) }}",
    "cyclic namespace": "{% set n = namespace() %}{% set n.a = n %}{{ n }}",
    # code and data
    "class": "{{ ''.__class__.__mro__ }}",
    "class by filter": "{{ '' | attr('__class__') }}",
    "class by map": "{{ ([''] | map(attribute='__class__') | first).x }}",
    "globals": "{{ cycler.__init__.__globals__ }}",
    "method kept for later": "{% set f = ''.join %}{{ f.__self__.x }}",
    "mutation": "{{ messages.append(1) }}",
    "mutation by setdefault": "{{ messages[0].setdefault('x', 1) }}",
    "function of a filter": "{{ [''] | map('upper') | list }}",
    "dict.fromkeys": "{{ dict.fromkeys(range(9)) }}",
    "open": "{{ open('/etc/passwd') }}",
    "environment": "{{ environment.getattr }}{{ environment.left }}",
    # files
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'x' as y %}",
    "from import": "{% from 'x' import y %}",
    "extends": "{% extends 'x' %}",
    "block": "{% block a %}{{ self.a() }}{% endblock %}",
    # the compiler
    "deep expression": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep blocks": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "deep loops": "{% for x in [1] %}" * 40 + "{% endfor %}" * 40,
    "long negation": "{{ " + "not " * 50000 + "1 }}",
    "infinity": "{{ 1e999 | int }}",
    # plain mistakes
    "division": "{{ 1 / 0 }}",
    "index": "{{ messages[99].content }}",
    "undefined": "{{ a.b.c }}",
    "types": "{{ [1, 'a'] | sort }}",
    "unknown filter": "{{ 1 | nofilter }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_one_line(name):
    with pytest.raises(CheckpointError) as caught:
        ChatTemplate(HOSTILE[name], "chat_template.jinja").render(MESSAGES)
    assert str(caught.value).startswith("chat_template.jinja ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_without_charges_the_work_is_unbounded(monkeypatch):
    """The planted fault: an environment that counts nothing runs through all the turns."""
    source = "{% for a in range(150) %}{% for b in range(150) %}{% endfor %}{% endfor %}done"
    template = ChatTemplate(source, "t")
    monkeypatch.setattr("hybrid.chat.template.BASE_BUDGET", BASE_BUDGET // 20)
    with pytest.raises(CheckpointError, match="more work"):
        template.render(MESSAGES[:0])
    monkeypatch.setattr(MeteredEnvironment, "charge", lambda self, work: None)
    assert template.render(MESSAGES[:0]) == "done"


HARMLESS = {
    "{{ messages | tojson }}": json.dumps(MESSAGES),
    "{{ {'a': 'ä<b>&'} | tojson }}": '{"a": "ä<b>&"}',
    "{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}": '{"a":2,"b":1}',
    "{{ [1] | tojson(indent=2) }}": "[\n  1\n]",
    "{{ ' a ' | trim }}{{ 'b'.strip().upper() }}{{ 'a,b'.split(',') | join('-') }}": "aBa-b",
    "{{ 'ab'.replace('a', 'c') | replace('b', 'd') }}": "cd",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}": "1",
    "{{ messages | map(attribute='role') | join(',') }}": "user",
    "{{ {'a': 1}.items() | list }}{{ {'a': 1} | items | list }}": "[('a', 1)][('a', 1)]",
    "{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}": "13",
    "{% for x in [1, 2] recursive %}{{ loop.index0 }}{{ loop.last }}{% endfor %}": "0False1True",
    "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% else %}none{% endfor %}": "a1",
    "{% macro m(x) %}{{ x }}{{ caller() }}{% endmacro %}{% call m(1) %}3{% endcall %}": "13",
    "{% set n = namespace(s=0) %}{% for x in [1, 2] %}{% set n.s = x %}{% endfor %}{{ n.s }}": "2",
    "{% set x %}a{{ 1 }}{% endset %}{% filter upper %}{{ x }}{% endfilter %}": "A1",
    "{{ 7 % 4 }}{{ 2 * 3 }}{{ 7 // 2 }}{{ 'a' in ['a'] }}{{ 1 ~ 2 }}": "363True12",
    "{{ nothing | default('d') }}{{ nothing }}{{ none }}": "dNone",
    "{{ 'x' if messages is defined and messages[0].role is string }}": "x",
    "{{ strftime_now('%%') }}": "%",
    "{% for m in messages %}{{ m.get('name', 'x') }}{{ 'b'.join('aa') }}{% endfor %}": "xaba",
    "{% for m in messages %}{{ m.role.replace('u', 'U', 1) }}{{ m.get('name') }}{% endfor %}": (
        "UserNone"
    ),
    "{% for i in range(messages | length - 1, -1, -1) %}{{ i }}{% break %}{% endfor %}": "0",
    "{% set ns = namespace(k=-1) %}{{ messages[ns.k + 1:] | length }}{{ messages[:0] }}": "1[]",
    "{{ messages[0]['content'][:3] }}{{ [3, 1] | sort | first }}": "aaa1",
    "a\n{% if true %}\n  b\n    {% endif %}\nc\n": "a\n  b\nc",  # trimmed as transformers does
}


@pytest.mark.parametrize("source", HARMLESS)
def test_what_templates_really_use_works(source):
    assert ChatTemplate(source, "t").render(MESSAGES) == HARMLESS[source]


WORDS = """
{{ }} {% %} {# #} -%} for if else endif endfor set macro endmacro in not and or is x messages loop
[ ] ( ) { } , : . | = == ~ + - * ** / % 'a' "b" 1 99 1e9 none true role content tojson trim join
upper list range namespace dict length first __class__ items é
"""
PIECES = st.sampled_from([*WORDS.split(), "\n", "\\"])


def error_of(source: str) -> str:
    try:
        ChatTemplate(source, "t").render(MESSAGES)
    except KimiLocalError as error:
        return str(error)
    return ""


@settings(PATIENT, max_examples=300)
@given(st.lists(PIECES, max_size=14))
def test_any_program_ends_in_text_or_one_line(pieces):
    for source in (" ".join(pieces), "{{ " + " ".join(pieces) + " }}"):
        assert "\n" not in error_of(source)
