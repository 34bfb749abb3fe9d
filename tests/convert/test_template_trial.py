# SPDX-License-Identifier: MIT
"""The trial of a chat template at conversion: hostile ones end soon, and what published ones do is no matter."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from trit.convert.tokenizer import load_tokenizer
from trit.convert.vocabulary_check import check
from trit.models.json_files import read_json

SEED = Path(__file__).parents[1] / "fuzz" / "seeds" / "whole"
LONGEST_S = 2.0
TOO_MUCH = "the chat template makes more than "

# Each takes as long as it can before it meets a bound, by another way than the others.
HOSTILE = {
    "loops": "{% for a in range(30000) %}{% for b in range(30000) %}{% endfor %}{% endfor %}",
    "conditions": "{% for a in range(30000) %}{% for b in range(9999) %}{% if b == a and a != 1 %}{% endif %}"
    "{% endfor %}{% endfor %}",
    "searches": "{% set s = 'a' * 100000 %}{% for a in range(30000) %}{% if 'b' in s %}{% endif %}{% endfor %}",
    "splits": "{% set s = 'a b ' * 10000 %}{% for a in range(30000) %}{% set x = s.split(' ') %}{% endfor %}",
    "sorts": "{% set l = range(30000)|list %}{% for i in range(3000) %}{% set x = l|sort %}{% endfor %}",
    "sorts backwards": "{% set l = range(9999)|list %}{% for i in range(9999) %}{% set x = l|sort(reverse=true) %}"
    "{% endfor %}",
    "least": "{% set l = range(30000)|list %}{% for i in range(30000) %}{% set x = l|min %}{% endfor %}",
    "JSON": "{% set l = range(3000)|list %}{% for i in range(3000) %}{% set x = l|tojson %}{% endfor %}",
    "macros": "{% macro f(x) %}{{ x.a }}{% endmacro %}{% for i in range(30000) %}{% for j in range(30000) %}"
    "{% set y = f({'a': 1}) %}{% endfor %}{% endfor %}",
    # Below the bound of one rendering, of which there are dozens.
    "just below": "{% for i in range(800) %}{% for j in range(800) %}{% endfor %}{% endfor %}"
    "{{ messages[-1].content }}",
}
# Written after what the largest published templates do: tools, thinking, calls, results, and text that is gathered.
CHATML_TOOLS = """
{%- macro type_of(spec) %}
    {%- set known = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} %}
    {%- if known[spec.type] is defined %}{{- known[spec.type] }}
    {%- elif spec.type == "array" %}{{- "list[" + type_of(spec.items) + "]" }}
    {%- elif spec.type == "object" %}{{- "dict" }}
    {%- elif spec.type is iterable and spec.type is not string %}
        {{- "Union[" }}
        {%- for t in spec.type %}{{- type_of({"type": t}) }}{%- if not loop.last %},{% endif %}{%- endfor %}{{- "]" }}
    {%- else %}{{- "Any" }}{%- endif %}
{%- endmacro %}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {%- if tool.function is defined %}{%- set tool = tool.function %}{%- endif %}
        {{- "\\n" + tool.name + "(" }}
        {%- for name, spec in tool.parameters.properties|items %}
            {{- name + ": " + type_of(spec) }}{%- if not loop.last %}{{- ", " }}{%- endif %}
        {%- endfor %}
        {{- ")\\n" }}{{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(open=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.open and message.role == "user" and message.content is string
        and not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.open = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thoughts = '' %}
        {%- if '</think>' in content %}
            {%- set thoughts = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last and (loop.last or thoughts) %}
            {{- '<think>\\n' + thoughts.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content }}
        {%- for call in message.tool_calls or [] %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {{- call.arguments if call.arguments is string else call.arguments | tojson }}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or messages[loop.index0 - 1].role != "tool" %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != "tool" %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
HEADERS_TOOLS = """
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not tools_in_user_message is defined %}{%- set tools_in_user_message = true %}{%- endif %}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if builtin_tools is defined or tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | reject('equalto', 'code_interpreter') | join(", ") + "\\n\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}
{{- system_message + "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
    {%- else %}{{- raise_exception("There is no first user message to put the tools into.") }}{%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' }}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
    {{- first + "<|eot_id|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("One call at a time.") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}{{- "}<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""
GATHERS = """
{%- set ns = namespace(is_first=true, is_tool=false, system='', text='', calls=[]) -%}
{%- for message in messages %}{%- if message['role'] == 'system' %}
    {%- set ns.system = message['content'] if ns.is_first else ns.system + '\\n\\n' + message['content'] %}
    {%- set ns.is_first = false %}
{%- endif %}{%- endfor -%}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}{%- set ns.text = ns.text + '<|User|>' + message['content'] %}{%- endif %}
    {%- if message['role'] == 'assistant' and message['content'] is not none %}
        {%- set content = message['content'] %}
        {%- if '</think>' in content %}{%- set content = content.split('</think>')[-1] %}{%- endif %}
        {%- set ns.text = ns.text + '<|Assistant|>' + content + '<|end|>' %}
    {%- endif %}
    {%- if message['role'] == 'assistant' and message['tool_calls'] is defined and message['tool_calls'] %}
        {%- for call in message['tool_calls'] %}{%- set ns.calls = ns.calls + [call['function']['name']] %}{%- endfor %}
        {%- set ns.text = ns.text + '<|calls|>' + ns.calls | join(', ') + '<|end|>' %}
    {%- endif %}
{%- endfor -%}
{{- ns.system + ns.text }}{%- if add_generation_prompt %}{{- '<|Assistant|><think>\\n' }}{%- endif %}
"""
PUBLISHED = {"ChatML with tools": CHATML_TOOLS, "headers with tools": HEADERS_TOOLS, "gathered text": GATHERS}
# As long as the longest that are published.
PUBLISHED["long"] = "{# " + "What each role may say. " * 600 + "#}" + CHATML_TOOLS


def children_cpu() -> float:
    times = os.times()
    return times.children_user + times.children_system


def warnings(template: str, folder: Path, engine_bin: Path) -> list[str]:
    """What the trial says of a template."""
    vocabulary = load_tokenizer(SEED, read_json(SEED / "config.json"), 259)
    tried = replace(vocabulary, templates={"default": template})
    return check(SEED, tried, "llama", tried.write, folder / "m.gguf", engine_bin).warnings


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_hostile_templates_end_soon(template: str, engine_bin: Path, tmp_path: Path) -> None:
    before = children_cpu()
    (warning,) = warnings(template, tmp_path, engine_bin)
    assert children_cpu() - before < LONGEST_S
    assert TOO_MUCH in warning and "a plain prompt does not need it" in warning


@pytest.mark.parametrize("template", PUBLISHED.values(), ids=PUBLISHED)
def test_what_published_templates_do_is_run(template: str, engine_bin: Path, tmp_path: Path) -> None:
    assert warnings(template, tmp_path, engine_bin) == []
