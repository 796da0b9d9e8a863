"""Writes jinja-cases.json: templates of our own with what Jinja2 itself makes of them, in the environment that transformers'
apply_chat_template sets up. Run with a Python 3 that has jinja2 (3.1): python3 jinja-cases.py [seed [random cases]]"""
import copy
import datetime
import itertools
import json
import os
import random
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


CLOCK = datetime.datetime(2024, 7, 6, 15, 4, 5, 678)
env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = CLOCK.strftime

CONTEXT = {
    "n": 7, "neg": -3, "zero": 0, "big": 12345678901234567890123, "f": 2.5, "tiny": 1e-7, "huge": 1e22, "t": True, "no": False, "nothing": None,
    "s": "Hello, World", "empty": "", "multi": "one\ntwo\n\n  three\n", "uni": "Grüße 🙂 naïve\u200b", "quotes": "it's \"so\" \\ here\t", "html": "<a href='x'>&\"</a>",
    "num": "42", "spaces": "  pad  ded ", "words": "the quick brown-fox jumps over",
    "list": [3, 1, 2], "names": ["bob", "Alice", "carol", "alice"], "mixed": [1, "a", None, True, 2.5, [1, 2], {"k": "v"}], "none_list": [],
    "d": {"b": 1, "a": 2, "C": 3}, "nested": {"x": {"y": [10, {"z": "deep"}]}, "items": "mine", "1": "one"}, "empty_dict": {},
    "people": [{"name": "Ann", "age": 30, "tags": ["x", "y"]}, {"name": "Bob", "age": 25, "tags": []}, {"name": "cid", "age": 30}],
    "tree": [{"v": 1, "c": [{"v": 2, "c": [{"v": 3, "c": []}]}, {"v": 4, "c": []}]}, {"v": 5, "c": []}],
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "A cat.", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1, "b": "x"}}}]},
        {"role": "user", "content": "Thanks <b>"},
    ],
}

T = []


def add(*templates):
    T.extend(templates)


# Literals, printing, escapes
add("{{ 1 }} {{ 1.0 }} {{ 'a' }} {{ \"b\" }} {{ true }} {{ False }} {{ none }} {{ None }} {{ True }}", "{{ [1, 'a', none, 2.5, true] }}", "{{ (1,) }}{{ (1, 2) }}{{ () }}",
    "{{ {'a': 1, 'b': [1, {'c': none}]} }}", "{{ {} }}{{ [] }}", "{{ 'a' 'b' \"c\" }}", r"{{ 'a\nb\t\\ \' \x41 \u00e9 \U0001F642 \q \101 \0' }}", r"{{ ['a\nb', '\x00\x7f', '\u200b', 'é', '\U0001F642', '\ud800'[:0]] }}",
    "{{ [\"it's\", 'say \"x\"', 'both \\' and \"'] }}", "{{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 00 }} {{ 1e3 }} {{ 1.5e-7 }} {{ 1_0.5 }} {{ 1E5 }}",
    "{{ 1e15 }} {{ 1e16 }} {{ 123456789012345678.0 }} {{ 0.0001 }} {{ 0.00001 }} {{ 1e100 }} {{ 1.1 }} {{ 100.0 }} {{ 5e-324 }} {{ 1.7976931348623157e308 }} {{ -0.0 }}", "{{ 2**100 }} {{ 10**20 }}",
    "{{ 007 }}", "{{ 1__0 }}", "{{ 'unterminated }}", "{{ 'x\\'", r"{{ '\x4' }}", "{{ uni }} {{ [uni] }}", "{{ quotes }} {{ [quotes] }}", "{{ big }} {{ tiny }} {{ huge }} {{ f }}", "{{ undefined_thing }}|{{ [undefined_thing] }}",
    "{{ 1, 2 }}", "{{ 'a', }}", "{{ range(3) }} {{ range(1, 10, 3) }}", "{{ d.items() }} {{ d.keys() }} {{ d.values() }}", "{{ namespace(a=1) }}", "{{ messages }}")
# Whitespace control
add("a\n{% if true %}\nb\n{% endif %}\nc\n", "a\n  {% if true %}  \n  b\n  {% endif %}\nc", "a\n  {%- if true -%}\n  b\n  {%- endif -%}\n c", "a {%+ if true +%}\n b {% endif %}", "  {%+ if true %}x{% endif %}", "{{ 1 }}\n{{ 2 }}\n",
    "a  {{- 1 -}}  b", "a\n\n{{- 1 -}}\n\nb", "{# c #}\nx{#- d -#}\n y", "  {# c #}\nx", "x {# c #} y\n{#+ e +#}\nz", "{% raw %}\n{{ x }}{% if %}\n{% endraw %}\nz", "{%- raw -%}\n  {{ x }}\n {%- endraw -%}  z", "  {% raw %} a {% endraw %}  b",
    "x\n  {% raw %}a\n  {% endraw %}\nb", "a\r\nb\rc\n", "a\n\n", "\n", "", "\n\n", "  {% if true %}\n\n  x{% endif %}", "{% if true %}  \n{% endif %}|", "\t{% if true %}\t\n\tx\n\t{% endif %}\n", "x {% if true %}\ny {% endif %}", "{{ '{{' }} {{ '%}' }} {{ '}}' }}",
    "{{ {'a': {'b': 1}}}}", "{{ {'a': {'b': 1}}['a']['b']}}", "{{-5}} {{+5}} {{ -5 }}", "{% set x = {'a': 1} %}{{ x }}", "a\n{%- set x = 1 %}\n\nb", "a{#-#}b", "{#", "{% raw %}", "{{", "{%", "{% if true %}", "a {", "a {b} }} %} #}", "{%if true%}x{%endif%}", "{{1}}{{2}}",
    "{% if true -%}\n   x\n{%- else -%} y {%- endif %}\n", "x\n   {{ 1 }}\n   {% set a = 1 %}\ny", "\u00a0{% if true %}x{% endif %}", "{% set a %}\nx\n{% endset %}[{{ a }}]", "line\\n{% if 1 %}\n{% endif %}")
# Statements
add("{% if n > 5 %}a{% elif n > 3 %}b{% else %}c{% endif %}", "{% if nothing %}a{% elif zero %}b{% elif t %}d{% else %}c{% endif %}", "{% if n == 7 and not no or nothing %}y{% endif %}", "{% for x in list %}{{ x }}{% if not loop.last %},{% endif %}{% endfor %}",
    "{% for x in [] %}a{% else %}none{% endfor %}", "{% for x in list if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}", "{% for a, (b, c) in [(1, (2, 3)), (4, [5, 6])] %}{{ a + b + c }} {% endfor %}",
    "{% for x in list %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }}|{% endfor %}",
    "{% for x in list %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}", "{% for x in list %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% endfor %}", "{% for x in 'abcd' %}{{ loop.cycle('odd', 'even') }} {% endfor %}",
    "{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }} {% endfor %}", "{% for x in [1,2,3,4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in [1] %}{% break %}{% else %}else{% endfor %}",
    "{% for x in [1, 2] %}{% continue %}{% else %}else{% endfor %}", "{% for x in [1, 2] %}{% if x == 2 %}{% break %}{% endif %}{% else %}else{% endfor %}", "{% for x in uni %}[{{ x }}]{% endfor %}", "{% for x in undefined_thing %}a{% else %}b{% endfor %}", "{% for x in nothing %}a{% endfor %}", "{% for x in 5 %}a{% endfor %}",
    "{% for n in tree recursive %}{{ n.v }}{% if n.c %}({{ loop(n.c) }}){% endif %}{% endfor %}", "{% for n in tree recursive %}{{ loop.depth }}{{ loop(n.c) }}{% endfor %}", "{% for x in range(3) %}{% for y in range(2) %}{{ loop.index }}{{ x }}{{ y }} {% endfor %}{{ loop.index }};{% endfor %}",
    "{% for x in list %}{{ loop }}{% endfor %}", "{% for x in people | map(attribute='name') %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{{ x }} {% endfor %}", "{% set x = 1 %}{% for i in range(3) %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "{% set ns = namespace(x=0, y='a') %}{% for i in range(4) %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns.z is defined }}{{ ns['x'] }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a = 1, 2 %}{{ a }}", "{% set x | upper %}a{{ n }}b{% endset %}{{ x }}", "{% set x %}a<b{% endset %}{{ x }}{{ x is string }}", "{% set x.y = 1 %}", "{% set d.y = 1 %}", "{% set 5 = 1 %}", "{% set a, b = 1, 2, 3 %}", "{% set a, b = [1] %}", "{% set x = 1 if no %}[{{ x }}]",
    "{% if true %}{% set q = 5 %}{% endif %}{{ q }}", "{% for i in [1] %}{% set q = 5 %}{% endfor %}[{{ q }}]", "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}", "{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}", "{% with %}{% set z = 1 %}{{ z }}{% endwith %}{{ z is defined }}",
    "{% filter upper %}abc {{ s }}{% endfilter %}", "{% filter replace('a', 'b') | upper %}aaa{% endfilter %}", "{% macro f(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }} {{ f(1, 3) }} {{ f(b=4, a=5) }} {{ f() }}", "{% macro f(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}",
    "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, x=3) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(b=2) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, a=2) }}", "{% macro f(x) %}<{{ x }}|{{ caller(x + 1) }}>{% endmacro %}{% call(y) f(1) %}in {{ y }}{{ n }}{% endcall %}",
    "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}{% call f() %}a{{ n }}{% endcall %}", "{% macro f() %}x{% endmacro %}{% call f() %}a{% endcall %}", "{% macro f() %}{{ caller is defined }}{% endmacro %}{{ f() }}", "{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}", "{{ f(1) }}{% macro f(a) %}{{ a }}{% endmacro %}",
    "{% macro f(a, b) %}{{ b is defined }}{{ a }}{% endmacro %}{{ f.name }}{{ f.arguments }}{{ f.catch_kwargs }}{{ f.catch_varargs }}{{ f.caller }}{{ f(1) }}", "{% macro f(x) -%}\n  {{ x }}\n{%- endmacro %}[{{ f('a') | upper }}]", "{% set y = 1 %}{% macro f() %}{{ y }}{% endmacro %}{% set y = 2 %}{{ f() }}", "{% for i in [1,2] %}{% macro f() %}{{ i }}{% endmacro %}{{ f() }}{% endfor %}",
    "{% macro f() %}{% set inner = 1 %}{% endmacro %}{{ f() }}{{ inner is defined }}", "{% macro f(a=1, b) %}{% endmacro %}", "{% macro f(a, a) %}{% endmacro %}{{ 1 }}", "{% macro outer() %}{% macro inner() %}i{% endmacro %}{{ inner() }}{% endmacro %}{{ outer() }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(*[1]) }}{{ f(**{'a': 2}) }}", "{% generation %}{{ s }}{% set gg = 1 %}{% endgeneration %}{{ gg is defined }}",
    "{% print 1, 'a' %}", "{% block a %}{{ n }}{% endblock %}", "{% block a %}x{% endblock a %}", "{% for i in [1] %}{% block b scoped %}{{ i }}{% endblock %}{% endfor %}", "{% for i in [1] %}{% block b %}[{{ i }}]{% endblock %}{% endfor %}", "{% do list.append(1) %}", "{% unknown %}", "{% endif %}", "{% if true %}{% endfor %}", "{% break %}", "{% for x in list %}{% endfor %}{% continue %}", "{% else %}",
    "{% if false %}{% include 'x' %}{% endif %}ok", "{% include 'x' %}", "{% import 'x' as y %}", "{% from 'x' import y %}", "{% extends 'x' %}", "{% autoescape false %}{{ html }}{% endautoescape %}", "{% if no %}{{ 1 | nosuch }}{% endif %}ok", "{{ 1 | nosuch }}", "{{ 1 is nosuch }}", "{% if true %}{{ 1 | nosuch }}{% endif %}", "{% for x in list: %}{{ x }}{% endfor %}",
    "{% for loop in list %}{% endfor %}", "{% set loop = 1 %}{{ loop }}", "{% for x in list %}{{ x }}{% endfor %}{{ x is defined }}", "{{ raise_exception('boom') }}", "{{ strftime_now('%d %b %Y|%A %a %B %H:%M:%S %I %p %j %y %m %f %U %W %w %u %V %G %% %c %x %X %D %F %T %R %e %-d %-m %h %n%t') }}", "{{ loop is defined }}",
    "{% for a, b in [[1, 2, 3]] %}{% endfor %}", "{% for a, b in [1] %}{% endfor %}", "{% for x in people if x.age == 30 and x.tags %}{{ x.name }}{% else %}nobody{% endfor %}", "{% for m in messages[::-1] %}{{ loop.index }}{{ m.role }} {% endfor %}", "{% for m in messages[1:] %}{{ m['role'] }} {% endfor %}", "{% for x in list recursive %}{{ x }}{% else %}e{% endfor %}",
    "{% for x in [[1,[2]],[3]] recursive %}{{ x if x is number else loop(x) }} {% endfor %}", "{{ list(1) }}", "{{ s() }}", "{{ nothing() }}", "{{ undefined_thing() }}", "{% call n %}{% endcall %}", "{% call n() %}{% endcall %}", "{% if %}{% endif %}", "{% set %}", "{% for %}", "{% for x %}", "{% set x = %}", "{{ }}", "{{ 1 2 }}", "{{ 1 + }}", "{{ (1 }}", "{{ [1, }}", "{{ a.b.}}", "{{ a[ }}", "{{ 1 ] }}", "{{ } }}", "{{ $ }}", "{{ a ! b }}", "{{ x if }}", "{{ not }}")
# Operators
VALUES = ["n", "neg", "zero", "f", "t", "nothing", "s", "num", "list", "(1, 2)", "d", "undefined_thing", "big", "-2.5"]
for op in ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]:
    for a, b in itertools.product(VALUES, VALUES):
        # Not supported: complex numbers, and a quirk of constants below zero to a variable's power.
        if op == "**" and "big" in (a, b) or op == "**" and {"-2.5", "neg"} & {a} or op == "*" and "big" in (a, b) and not {a, b} <= {"big", "n", "neg", "zero", "f", "t"}:
            continue
        add("{{ %s %s %s }}" % (a, op, b))
add("{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 == true }}", "{{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ 2 ** -1 }} {{ -n }} {{ +n }} {{ - -n }}", "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 // -2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 7 / 2 }} {{ 6 / 2 }}", "{{ 1 + 2 * 3 - 4 / 2 }}",
    "{{ 'a' ~ 1 ~ none ~ 2.0 ~ [1] }}", "{{ 1 ~ 2 + 3 }}", "{{ 'a' * 3 }} {{ [1] * 2 }} {{ (1,) * 2 }} {{ 2 * 'ab' }} {{ 'a' * -1 }}", "{{ 'x' if n > 5 else 'y' }} {{ 'x' if no }} {{ ('x' if no) is defined }}", "{{ 1 if no else 2 if no else 3 }}", "{{ not true }} {{ not not 1 }} {{ not n == 7 }}", "{{ 'a' in 'abc' }} {{ 'k' in d }} {{ 'b' in d }} {{ 3 not in list }} {{ 'a' in undefined_thing }}",
    "{{ 1 in 'abc' }}", "{{ n is not none and n is defined }}", "{{ nothing or 'dflt' }} {{ '' or 'e' }} {{ 0 and 1 }} {{ [] or {} }}", "{{ [1, 2] == [1, 2] }} {{ (1, 2) == [1, 2] }} {{ {'a': 1} == {'a': 1.0} }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ none == undefined_thing }} {{ undefined_thing == other_undefined }}", "{{ true + true }} {{ true == 1 }} {{ [true, 1, 1.0] | unique | list }}",
    "{{ {1: 'a', 1.0: 'b', true: 'c'} }}", "{{ {[1]: 2} }}", "{{ 1 / 0 }}", "{{ 1 // 0 }}", "{{ 1 % 0 }}", "{{ '%s and %d' % ('a', 3) }} {{ '%5.2f|%-5s|%05d|%x|%+d|%%|%r|%e|%g' % (3.14159, 'ab', 42, 255, 5, 'q', 12345.678, 0.0001) }}", "{{ '%(a)s %(b)03d' % {'a': 1, 'b': 2} }}", "{{ '%s' % n }} {{ '%s %s' % (1,) }}", "{{ '%d' % 'x' }}", "{{ '%s' % list }}", "{{ 'a' % 1 }}",
    "{{ '%c%c|%5s|%-5d|%.3s|%#x|%o|% d|%*d|%.*f' % ('a', 66, 'x', 3, 'abcdef', 255, 8, 5, 4, 7, 2, 1.005) }}", "{{ '%.0f %.0f %.0f %.1f %.2f %.3e %.3g %G %E %.10g' % (0.5, 1.5, 2.5, 0.25, 0.125, 1234.5, 0.00012345, 1e-10, 1.5, 1/3) }}")
# Access
add("{{ nested.x.y[1].z }} {{ nested['x']['y'].0 }} {{ nested.x['y'][-1]['z'] }}", "{{ nested['items'] }} {{ nested.items is callable }} {{ d.items() | list }}", "{{ nested.nope }}|{{ nested['nope'] }}|{{ list[9] }}|{{ s.nope }}", "{{ nested.nope.deeper }}", "{{ undefined_thing.x }}", "{{ undefined_thing['x'] }}", "{{ nothing.x }}|{{ nothing['x'] }}", "{{ nothing.x.y }}", "{{ n.x }}",
    "{{ s[0] }} {{ s[-1] }} {{ s[1:4] }} {{ s[:-3] }} {{ s[::2] }} {{ s[::-1] }} {{ s[10:2:-3] }} {{ s[100:] }}|", "{{ uni[6] }}{{ uni[6:8] }}{{ uni | length }}{{ uni[::-1] }}{{ uni.find('n') }}{{ uni.index('🙂') }}", "{{ list[0] }} {{ list[1:] }} {{ list[:1] }} {{ list[::-1] }} {{ list[-2:] }} {{ (1,2,3)[1:] }} {{ range(10)[2:8:3] }} {{ range(10)[3] }}", "{{ list['0'] }}|{{ list[1.0] }}|{{ list[true] }}", "{{ d[0] }}|{{ d[none] }}|{{ d[list] }}", "{{ d[1:2] }}",
    "{{ n[1:2] }}", "{{ n[0] }}", "{{ list[::0] }}", "{{ list['a':] }}", "{{ nested[1] }}{{ nested['1'] }}", "{{ list.append(4) }}", "{{ list.append is defined }}", "{{ d.pop('a') }}", "{{ d.update({'z': 1}) }}", "{{ list.sort() }}", "{{ s.__class__ }}", "{{ s.__class__.__mro__ }}", "{{ ''.__class__ is defined }}", "{{ d.get('b') }} {{ d.get('q') }} {{ d.get('q', 5) }} {{ d.get('q', default=5) }}", "{{ d.keys() | list }} {{ d.values() | list }} {{ d.copy() }}",
    "{{ list.index(2) }} {{ list.count(1) }} {{ (1, 2, 1).count(1) }} {{ list.copy() }}", "{{ list.index(99) }}", "{{ n.real }} {{ n.bit_length() }} {{ f.is_integer() }} {{ n.numerator }}", "{{ messages[0].role }} {{ messages[-1]['content'] }} {{ messages[1].content[1].text }} {{ messages[2].tool_calls[0].function.arguments.a }}", "{{ messages[0]['content']['x'] }}", "{{ messages[0].content.text }}|", "{{ people[2].tags }}|{{ people[2].tags.x }}", "{{ (d.items() | list)[0][1] }}", "{{ d.items()[0] }}|", "{{ {'a': {'keys': 5}}.a['keys'] }} {{ {'get': 1}['get'] }}",
    "{{ cycler('a', 'b').next() }}", "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.current }}", "{% set j = joiner(', ') %}{% for x in list %}{{ j() }}{{ x }}{% endfor %}", "{{ dict(a=1, b=2) }} {{ dict([('x', 1)]) }} {{ dict({'q': 1}, r=2) }}", "{{ range(5) | list }} {{ range(2, 5) | list }} {{ range(5, 0, -2) | list }} {{ range(0) | list }} {{ range(3) | length }} {{ 2 in range(3) }}", "{{ range(100001) }}", "{{ range(100000) | length }}", "{{ range('a') }}", "{{ range(1, 2, 0) }}")
# String methods
for call in ["strip()", "lstrip()", "rstrip()", "strip('H d')", "upper()", "lower()", "title()", "capitalize()", "swapcase()", "casefold()", "split()", "split(' ')", "split(',', 1)", "split('o', maxsplit=1)", "rsplit(' ', 1)", "rsplit(None, 1)", "split(None, 1)", "splitlines()", "splitlines(true)", "startswith('He')", "startswith(('x', 'He'))", "endswith('ld')", "endswith('')", "startswith('llo', 2)", "find('o')", "find('o', 5)", "find('zz')", "rfind('o')", "index('e')", "index('zz')", "rindex('o')",
             "count('l')", "count('')", "replace('o', '0')", "replace('l', 'L', 1)", "replace('', '-')", "replace('', '-', 2)", "join(['a', 'b'])", "join(names)", "join([1])", "join('abc')", "center(20)", "center(21, '*')", "ljust(15, '.')", "rjust(15)", "zfill(15)", "partition(', ')", "rpartition('o')", "partition('zz')", "rpartition('zz')", "removeprefix('Hello')", "removesuffix('World')", "isalpha()", "isdigit()", "isalnum()", "isspace()", "isupper()", "islower()", "istitle()",
             "isnumeric()", "isdecimal()", "isidentifier()", "isascii()", "isprintable()", "expandtabs()", "expandtabs(4)", "format()", "split('')", "strip(1)", "startswith(1)", "nosuch()", "upper(1)"]:
    for v in ["s", "multi", "uni", "spaces", "empty"]:
        add("{{ [%s.%s] }}" % (v, call))
add("{{ '42'.isdigit() }}{{ '٣'.isdecimal() }}{{ '½'.isnumeric() }}{{ '²'.isdigit() }}{{ 'a1'.isalnum() }}{{ 'straße'.upper() }}{{ 'ΑΣ'.lower() }}{{ 'ǆ'.title() }}{{ \"they're\".title() }}{{ 'ﬁn'.upper() }}{{ '-5'.zfill(4) }}", "{{ '{} {}'.format(1, 'a') }} {{ '{1} {0}'.format(1, 2) }} {{ '{a} {b}'.format(a=1, b=2) }} {{ '{{}}'.format() }}",
    "{{ '{:>5}|{:<5}|{:^5}|{:05d}|{:.2f}|{:,}|{:x}|{:#x}|{:+d}|{:e}|{:%}|{:*^9}|{:b}|{:_}'.format('a', 'b', 'c', 42, 3.14159, 1234567, 255, 255, 5, 12345.6789, 0.25, 'mid', 5, 1234567) }}", "{{ '{0[a]} {0[b]} {1[0]} {2!r} {2!s}'.format(d, list, 'q') }}", "{{ '{:{}}|{:>{w}}'.format('a', 5, 'b', w=4) }}", "{{ '{}'.format() }}", "{{ '{x}'.format() }}", "{{ '{'.format() }}", "{{ '}'.format() }}", "{{ '{:d}'.format('a') }}",
    "{{ '{} {} {}'.format(1.0, none, true) }} {{ '{:5}|{:5}|{:<5}|{:g}|{:.3}|{:.3}|{:10.3e}|{:,.2f}|{:010,.2f}|{:<08.3f}'.format(1, 1.5, true, 1e10, 'abcdef', 1234.5, 1.5, 12345.678, 1234.5, 2.5) }}", "{{ '{0.__class__}'.format(1) }}", "{{ '{:.0f} {:.0f} {:.1f} {:.2f}'.format(0.5, 1.5, 0.25, 1.005) }} {{ '{:.4}'.format(1234.0) }} {{ '{:.4}'.format(12345.678) }} {{ '{:.5}'.format(100.0) }} {{ '{:}'.format(1e16) }} {{ '{:n}'.format(5) }} {{ '{:c}'.format(65) }}")
# Filters and tests over everything
SUBJECTS = ["n", "neg", "f", "t", "nothing", "s", "empty", "multi", "uni", "html", "num", "words", "list", "names", "mixed", "(1, 2)", "d", "nested", "empty_dict", "undefined_thing", "people", "range(4)", "spaces", "none_list"]
for flt in ["abs", "capitalize", "center(20)", "count", "default('x')", "default('x', true)", "d('q', boolean=true)", "dictsort", "dictsort(true)", "dictsort(false, 'value')", "dictsort(by='value', reverse=true)", "escape", "e", "first", "float", "float(1.5)", "forceescape", "int", "int(9)", "int(base=16)", "items | list", "join", "join(', ')", "last", "length", "list", "lower", "max", "min",
            "reverse | list", "reverse | string | length > 0", "round", "round(1)", "round(-1)", "round(0, 'ceil')", "round(method='floor')", "safe", "sort", "sort(reverse=true)", "sort(case_sensitive=true)", "string", "striptags", "sum", "sum(start=5)", "title", "tojson", "tojson(indent=2)", "tojson(sort_keys=true)", "trim", "trim('H')", "truncate(5)", "truncate(9, true)", "truncate(9, false, '…', 0)", "unique | list", "unique(true) | list", "upper", "urlencode", "wordcount",
            "batch(2) | list", "batch(2, 'x') | list", "slice(2) | list", "slice(2, 'x') | list", "indent", "indent(2, true)", "indent('>> ', first=true, blank=true)", "replace('l', 'L')", "replace('o', '0', 1)", "map('upper') | list", "map('string') | join('+')", "select | list", "reject | list", "select('number') | list", "select('gt', 1) | list", "reject('none') | list", "select('==', 1) | list", "map(attribute='name') | list", "map(attribute='age', default=0) | list",
            "selectattr('age') | list | length", "selectattr('age', 'equalto', 30) | map(attribute='name') | list", "rejectattr('age', '>', 26) | list", "groupby('age')", "groupby('tags', default='none')", "sort(attribute='age')", "sort(attribute='age,name')", "sort(attribute='name', reverse=true)", "max(attribute='age')", "min(attribute='name')", "sum(attribute='age')", "join(', ', attribute='name')", "unique(attribute='age') | list", "attr('upper')", "attr('nope')", "wordwrap(10)", "filesizeformat", "xmlattr", "format(1)", "pprint"]:
    for v in SUBJECTS:
        # Not supported: pprint's sorting and wrapping.
        if flt == "pprint" and v in ("people", "nested", "mixed", "d"):
            continue
        if "attr('upper')" == flt and v not in ("n", "d", "undefined_thing"):
            continue
        add("{{ %s | %s }}" % (v, flt))
for test in ["defined", "undefined", "none", "boolean", "true", "false", "integer", "float", "number", "string", "mapping", "sequence", "iterable", "callable", "escaped", "lower", "upper", "odd", "even", "divisibleby 3", "divisibleby(2)", "eq 7", "equalto 'x'", "ne 7", "gt 3", "ge(3)", "lt 3", "le 3", "lessthan 5", "greaterthan 5", "in [7, 'x']", "sameas none", "sameas true", "filter", "test", "not none", "not string"]:
    for v in SUBJECTS + ["zero", "big", "'upper'", "'ABC'", "'defined'", "d.items()", "d.get", "list | map('string')", "('x' | safe)", "namespace()", "range"]:
        add("{{ %s is %s }}" % (v, test))
add("{{ 'upper' is filter }}{{ 'nope' is filter }}{{ 'odd' is test }}", "{{ n is defined and n is number }} {{ n is string or true }}", "{{ 'a' if n is string else 'b' }}", "{{ n is divisibleby 3 is string }}", "{{ n is eq n }} {{ n is eq(7) }} {{ s is eq s[0] }}", "{{ n is in list }} {{ 1 is in list }} {{ 1 is not in list }}", "{{ not n is string }}", "{{ n is mapping == false }}", "{{ (n is string) == false }}",
    "{{ '<' | e ~ '<' }} {{ ('<' | e) + '<' }} {{ ('<b>' | safe) + '<' }} {{ '<' | safe | e }} {{ '<' | e | forceescape }} {{ ('<' | e) is escaped }} {{ [('<' | e)] }} {{ ('%s' | safe) % '<' }} {{ ('<' | e).upper() }} {{ ('-' | safe).join(['<', 'a']) }}", "{{ {'a': 1, 'b': [1, 2, {'c': none}], 'd': {}} | tojson(indent=4) }}", "{{ mixed | tojson(indent=1) }}", "{{ 'é\"\\n\\u2028/🙂\\x7f\\x01' | tojson }} {{ 'é🙂' | tojson(ensure_ascii=true) }}",
    "{{ {'a': 1.0, 'b': 1e20, 'c': 1e-7, 'd': true} | tojson }} {{ [1, 2] | tojson(separators=(',', ':')) }} {{ {'a': [1, 2]} | tojson(separators=(',', ':'), indent=2) }} {{ {1: 2, none: 3, true: 4, 2.5: 5} | tojson }}", "{{ {(1, 2): 3} | tojson }}", "{{ range(3) | tojson }}", "{{ undefined_thing | tojson }}", "{{ [undefined_thing] | tojson }}", "{{ (1, 'a') | tojson }} {{ '<a>' | tojson }} {{ 'x' | safe | tojson }} {{ [] | tojson(indent=2) }} {{ {} | tojson(indent=2) }} {{ [[]] | tojson(indent=0) }} {{ [1] | tojson(indent='--') }}",
    "{{ messages | tojson }}", "{{ messages | tojson(indent=4) }}", "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "{{ messages | map(attribute='role') | join(',') }} {{ messages | map(attribute='content.0.type') | list }}", "{{ messages | rejectattr('role', 'in', ['system', 'user']) | map(attribute='content') | first }}", "{{ messages | selectattr('tool_calls', 'defined') | list | length }}", "{{ (messages | last).content }} {{ (messages | first)['role'] }}", "{{ messages | groupby('role') | map('first') | list }}",
    "{% for g in people | groupby('age') %}{{ g.grouper }}:{{ g.list | map(attribute='name') | join('/') }} {% endfor %}", "{% for age, them in people | groupby('age') %}{{ age }}{{ them | length }} {% endfor %}", "{{ ['b', 'A', 'a', 'B'] | sort }} {{ ['b', 'A', 'a', 'B'] | sort(true, true) }} {{ ['a', 'A', 'b'] | unique | list }}", "{{ [1, 'a'] | sort }}", "{{ [3.5, 1, 2] | sort }} {{ [(2, 'a'), (1, 'b')] | sort }} {{ [[2], [1, 5]] | max }}", "{{ 42.55 | round(1) }} {{ 2.5 | round }} {{ 3.5 | round }} {{ -2.5 | round }} {{ 1234.5 | round(-2) }} {{ 2.675 | round(2) }} {{ 42 | round(2) }} {{ 45 | round(-1) }} {{ 1e300 | round(2) }} {{ 42.1 | round(1, 'ceil') }} {{ 42 | round(0, 'floor') }}",
    "{{ '3.7' | int }} {{ ' 12 ' | int }} {{ '0x1F' | int(0, 16) }} {{ 'z' | int(5) }} {{ 3.99 | int }} {{ '1e3' | int }} {{ '1_000' | int }} {{ '-7' | int }} {{ true | int }} {{ '0b11' | int(base=2) }} {{ '12' | int(base=8) }} {{ '' | int }} {{ '٣' | int }}", "{{ '3.5' | float }} {{ 'x' | float }} {{ '1e5' | float }} {{ 'inf' | float }} {{ 'nan' | float }} {{ ' -2 ' | float }} {{ '1_0' | float }}", "{{ 1000 | filesizeformat }} {{ 1 | filesizeformat }} {{ 1500000 | filesizeformat }} {{ 1024 | filesizeformat(true) }} {{ 1e30 | filesizeformat }}", "{{ 'a b&c/d?é' | urlencode }} {{ {'a b': 'c&d', 'x': '/'} | urlencode }}",
    "{{ 'hello-world foo_bar [x] (y) {z} <w>' | title }} {{ 'hELLO wORLD' | capitalize }} {{ 'éa' | capitalize }}", "{{ 'foo bar baz qux' | truncate(9) }} {{ 'foo bar baz qux' | truncate(9, True) }} {{ 'foo bar baz qux' | truncate(11) }} {{ 'foo bar baz qux' | truncate(11, False, '...', 0) }}", "{{ 'abc' | truncate(1) }}", "{{ 'a\\n\\nb\\n' | indent }}|{{ 'a\\nb' | indent(width=2, first=true) }}|{{ 'a\\n\\nb' | indent(2, blank=true) }}", "{{ '%s=%s' | format('a', 1) }} {{ '%(x)s' | format(x=3) }} {{ '%d%%' | format(50) }}",
    "{{ [1, 2, 3] | map('string') | map('upper') | join }} {{ [[1, 2], [3]] | map('sum') | list }} {{ ['a', 'b'] | map('replace', 'a', 'z') | list }} {{ [1, 2, 3] | select('odd') | list }} {{ [1, 2, 3, 4] | reject('divisibleby', 2) | list }}", "{{ list | map('nosuch') | list }}", "{{ list | map | list }}", "{{ list | map(attr='x') | list }}", "{{ list | select('nosuch') | list }}", "{{ people | selectattr | list }}", "{{ [1, none, 0, ''] | select | list }} {{ [1, none] | reject | list }} {{ list | first }} {{ [] | first }}|{{ [] | max }}|{{ [] | last }}", "{{ ([] | first).x }}",
    "{{ list | length }} {{ 5 | length }}", "{{ 'abc' | list }} {{ d | list }} {{ d | first }} {{ d | last }} {{ d | reverse | list }} {{ 'abc' | reverse }} {{ d | length }}", "{{ people | map(attribute='tags.0') | list }} {{ people | map(attribute='tags', default=['-']) | map('first') | list }} {{ [[1, 2], [3, 4]] | map(attribute=1) | list }} {{ [[1, 2], [3, 4]] | map(attribute='0') | sum }}", "{{ s | replace('o', '0') | upper | lower | title }} {{ s|length + 1 }} {{ -n | abs }} {{ -1 | abs + 2 }} {{ n ~ s | upper }} {{ 'a' + 'b' | upper }}", "{{ 5 | string + '5' }} {{ 5 | string | int + 1 }}", "{{ 'a,b' .split(',') | join('-') }}",
    "{{ s | default }} {{ undefined_thing | default(nothing) }} {{ undefined_thing.x | default('y') }}", "{{ ({'a': 1}).items() | list | tojson }}", "{{ d.items() | tojson }}", "{{ d | dictsort | tojson }}", "{{ words | wordwrap(10) }}|{{ 'abcdefghijklmno' | wordwrap(5) }}|{{ words | wordwrap(12, break_on_hyphens=false) }}|{{ 'abcdefghijklmno xy' | wordwrap(5, false) }}|{{ multi | wordwrap(3, wrapstring='/') }}", "{{ html | striptags }} {{ 'a  <b>c</b>\\n d <!-- x > y --> e' | striptags }}", "{{ s | upper() | lower() }} {{ s | replace(old='o', new='0') }} {{ list | join(d='-') }}", "{{ s | upper(1) }}", "{{ list | join('-', 'x', 'y') }}", "{{ list | sort(foo=1) }}",
    "{{ {'a': 1} | items | list }} {{ undefined_thing | items | list }}", "{{ 5 | items }}", "{% set g = list | map('string') %}{{ g | list }}{{ g | list }}", "{% set g = d.items() %}{{ g | list }}{{ g | list }}", "{{ list | map('string') | length }}", "{{ (list | map('string')) is iterable }} {{ (list | reverse) is sequence }}", "{{ uni | upper }} {{ uni | tojson }} {{ uni | reverse }} {{ uni | list }} {{ uni | truncate(8, true, '', 0) }} {{ uni | center(20) }}|{{ uni | urlencode }}")
# Chat templates of the usual kinds, all ours
add("{{ bos_token }}{% for m in messages %}\n{% if m.role == 'system' %}\n<<SYS>>{{ m.content }}\n{% elif m.content is string %}\n[{{ m.role }}] {{ m.content | trim }}\n{% else %}\n{% for c in m.content %}\n{% if c.type == 'image' %}<image>{% elif c['type'] == 'text' %}{{ c.text }}{% endif %}\n{% endfor %}\n{% endif %}\n{% endfor %}\n{% if add_generation_prompt %}>{% endif %}\n",
    "{%- set ns = namespace(found=false, idx=-1) -%}\n{%- for m in messages -%}\n  {%- if m.role == 'user' -%}{%- set ns.idx = loop.index0 -%}{%- set ns.found = true -%}{%- endif -%}\n{%- endfor -%}\n{{ ns.idx }}{{ ns.found }}", "{% set loop_messages = messages[1:] if messages[0].role == 'system' else messages %}{{ loop_messages | length }}", "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% endfor %}",
    "{%- macro render(content, count) -%}{%- if content is string -%}{{ content }}{%- else -%}{%- for item in content -%}{%- if 'image' in item or item.type == 'image' -%}{%- set count.value = count.value + 1 -%}Picture {{ count.value }}: {%- elif 'text' in item -%}{{ item.text }}{%- endif -%}{%- endfor -%}{%- endif -%}{%- endmacro -%}{%- set c = namespace(value=0) -%}{%- for m in messages -%}<|{{ m.role }}|>{{ render(m.content, c) }}{%- endfor -%}",
    "{%- for tc in messages[2].tool_calls %}{{- '{\"name\": \"' + tc.function.name + '\", \"arguments\": ' + tc.function.arguments | tojson + '}' }}{%- endfor %}", "{% for k, v in messages[2].tool_calls[0].function.arguments | items %}<{{ k }}>{{ v if v is string else v | tojson }}</{{ k }}>{% endfor %}", "{%- if messages[0]['role'] == 'system' %}{%- set sys = messages[0]['content'].split('/no_think')[0].rstrip() %}{%- endif %}{{ sys }}", "{% set content = '<think>a</think>b' %}{{ content.split('</think>')[-1].lstrip('\\n') }}{{ content.split('</think>')[0].split('<think>')[-1] }}{{ '</think>' in content }}")

FRAGMENTS = ["a", " ", "\n", "  ", "\t", "b\n", "{% if t %}", "{% if t -%}", "{%- if t %}", "{%+ if t %}", "{% if t +%}", "{% endif %}", "{%- endif -%}", "{% endif +%}", "{%+ endif %}", "{{ n }}", "{{- n }}", "{{ n -}}", "{{- n -}}", "{# c #}", "{#- c -#}", "{#+ c #}", "{# c +#}", "{% set z = 1 %}", "{% set z = 1 -%}", "{% raw %}", "{% endraw %}", "{%- raw -%}", "{%- endraw -%}", "{% for i in list %}", "{% endfor %}", "{%- endfor +%}"]


def evaluate(template):
    # A copy, for the sandbox lets a list grow: the filter indent does s += newline.
    try:
        return [template, env.from_string(template).render(**copy.deepcopy(CONTEXT))]
    except Exception as error:
        return [template, None, f"{type(error).__name__}: {error}"]


def noise(seed, count):
    """Random runs of text and tags, most of them about white space; only those that Jinja accepts are kept."""
    rng = random.Random(seed)
    while count > 0:
        case = evaluate("".join(rng.choice(FRAGMENTS) for _ in range(rng.randint(2, 9))))
        if case[1] is not None or rng.random() < 0.02:
            count -= 1
            yield case


seed, count = (int(x) for x in (sys.argv[1:] + ["1", "300"][len(sys.argv) - 1:])[:2])
cases = [c for c in map(evaluate, dict.fromkeys(T)) if c[1] is None or " at 0x" not in c[1]] + list(noise(seed, count))
# Of the many pairs and subjects that are type errors, every fourth is enough.
errors = [c for c in cases if c[1] is None and c[2].startswith("TypeError")]
left_out = {c[0] for i, c in enumerate(errors) if i % 4}
cases = [c for c in cases if c[0] not in left_out]
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "jinja-cases.json"), "w", encoding="utf-8") as out:
    out.write('{"made_by": "jinja-cases.py, Jinja2 ' + jinja2.__version__ + '",\n"clock": "' + CLOCK.isoformat() + '",\n"context": ' + json.dumps(CONTEXT, ensure_ascii=True) + ',\n"cases": [\n')
    out.write(",\n".join(json.dumps(c, ensure_ascii=True) for c in cases) + "\n]}\n")
print(len(cases), "cases,", sum(c[1] is None for c in cases), "of them errors")
