# SPDX-License-Identifier: MIT
"""Models whose calls are written like XML: texts among a call's arguments keep their schema, too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.grammar_driver import ask, build_driver
from trit.engine.server import Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the engine is started there alone")
# What the engine knows the form of Qwen3-Coder by, and a form that it finds out itself.
QWEN3_CODER = (
    "{%- for tool in tools or [] %}{{ tool.function.name }} {% endfor %}"
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{{ m.content or '' }}"
    "{%- for call in m.tool_calls or [] %}"
    "{{ '\n<tool_call>\n<function=' + call.function.name + '>\n' }}"
    "{%- for name, value in call.function.arguments|items %}"
    "{{ '<parameter=' + name + '>\n' }}{{ value if value is string else value|tojson }}{{ '\n</parameter>\n' }}"
    "{%- endfor %}{{ '</function>\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TAGGED = QWEN3_CODER.replace("<function=", "<invoke=").replace("</function>", "</invoke>")
TAGGED = TAGGED.replace("<parameter=", "<arg=").replace("</parameter>", "</arg>")


FORMS = {"qwen3-coder": (QWEN3_CODER, "function", "parameter"), "found": (TAGGED, "invoke", "arg")}
PARAMETERS: dict[str, Any] = {
    "colour": {"type": "string", "enum": ["crimson", "two words", 'a "b"']},
    "code": {"type": "string", "pattern": "^[qz]\\d{2}$"},
    "short": {"type": "string", "minLength": 3, "maxLength": 4},
    "some": {"anyOf": [{"type": "string", "const": "zebra"}, {"type": "null"}]},
    "free": {"type": "string"},
    "count": {"type": "integer", "minimum": 40, "maximum": 41},
}
GOOD = {"colour": "two words", "code": "z07", "short": "a\nb", "some": "zebra", "free": 'any "<b>"\n', "count": "41"}
BAD = {"colour": '"crimson"', "code": "z7", "short": "ab", "some": "horse", "count": "42"}


@pytest.fixture(scope="module")
def driver(engine_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_driver(engine_bin, tmp_path_factory.mktemp("grammar") / "grammar_driver")


def grammar_of(template: str, story_gguf: Path) -> str:
    """What the server holds a forced call to."""
    schema = {"type": "object", "properties": PARAMETERS, "required": list(PARAMETERS), "additionalProperties": False}
    body = {
        "messages": [{"role": "user", "content": "Mary"}],
        "tools": [{"type": "function", "function": {"name": "find", "parameters": schema}}],
        "tool_choice": "required",
        "max_tokens": 1,
        "verbose": True,
    }
    with Server(story_gguf, 1, ["--jinja", "--chat-template", template], slots=1) as server:
        answer = server.post("/v1/chat/completions", body)
    assert "warnings" not in answer, answer["warnings"]
    return str(answer["__verbose"]["generation_settings"]["grammar"])


@pytest.mark.parametrize("form", FORMS)
def test_texts_of_a_call_are_held(form: str, driver: Path, engine_bin: Path, story_gguf: Path) -> None:
    template, function, parameter = FORMS[form]
    grammar = grammar_of(template, story_gguf)

    def call(values: dict[str, str]) -> list[str]:
        arguments = "".join(f"<{parameter}={name}>\n{text}\n</{parameter}>\n" for name, text in values.items())
        text = f"<tool_call>\n<{function}=find>\n{arguments}</{function}>\n</tool_call>"
        return [f"{byte:02x}" for byte in f"<|im_start|>assistant\n{text}".encode()]

    calls = [call(GOOD), *(call({**GOOD, name: text}) for name, text in BAD.items()), call({**GOOD, "some": "null"})]
    (answer,) = ask(driver, [{"grammar": grammar, "tokens": calls}])
    assert answer["taken"] == [True, *([False] * len(BAD)), True]
