# SPDX-License-Identifier: MIT
"""Send hostile requests to a server: it must answer each with a sentence or a result, soon, and stay small.

Example: python -m tests.fuzz.requests --count 2000           # about five minutes on two cores

Request number I of seed S is always the same: ``--seed S --only I`` sends it again and shows it. Linux only.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from tqdm import tqdm

from trit.base.errors import EXIT_FAILED, EXIT_OK, run_main
from trit.base.flags import ArgumentParser, a_path, whole
from trit.engine.server import Server
from trit.gguf.made import default_model

SECONDS = 60
# What one request may add to the peak: the largest body, parsed and copied.
MEMORY_MB = 500
FLAGS = (
    "--jinja",
    "--chat-template",
    "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    "--embeddings",
    "--slots",
)
NUMBERS = (0, 1, -1, -2, 3, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, 2**64, 1e308, -1e308, 1e-320, 0.5)
JUNK: tuple[Any, ...] = (*NUMBERS, None, True, "", "a", [], {}, [[]], [None], "\ud83d\ude00", "\0")
PATHS = (
    *("/completion", "/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/infill"),
    *("/tokenize", "/detokenize", "/apply-template", "/v1/embeddings", "/v1/chat/completions/input_tokens"),
)
NUMERIC = (
    *("n_predict", "max_tokens", "n", "n_cmpl", "n_keep", "n_discard", "n_probs", "logprobs", "top_logprobs", "seed"),
    *("top_k", "top_p", "min_p", "typical_p", "temperature", "dynatemp_range", "dynatemp_exponent", "top_n_sigma"),
    *("repeat_last_n", "repeat_penalty", "frequency_penalty", "presence_penalty", "dry_multiplier", "dry_base"),
    *("dry_allowed_length", "dry_penalty_last_n", "mirostat", "mirostat_tau", "mirostat_eta", "xtc_probability"),
    *("xtc_threshold", "adaptive_target", "adaptive_decay", "min_keep", "n_indent", "n_cache_reuse", "id_slot"),
    *("t_max_predict_ms", "sse_ping_interval", "reasoning_budget_tokens", "chat_format"),
)
LISTS = (
    *("stop", "samplers", "dry_sequence_breakers", "logit_bias", "preserved_tokens", "grammar_triggers", "lora"),
    "response_fields",
)
OTHER = ("stream", "ignore_eos", "cache_prompt", "return_tokens", "post_sampling_probs", "backend_sampling", "echo")
KEYWORDS = (
    *("pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "minItems", "maxItems", "$ref"),
    *("properties", "required", "items", "prefixItems", "anyOf", "allOf", "oneOf", "enum", "const", "format", "not"),
    *("additionalProperties", "multipleOf", "exclusiveMaximum", "patternProperties", "propertyNames", "uniqueItems"),
    *("minProperties", "maxProperties", "contains", "if", "then", "dependentRequired", "unevaluatedProperties"),
)
PIECES = (
    *'()[]{}|?*+^$.\\"-,',
    "a",
    "é",
    "\\d",
    "\\w",
    "\\p",
    "{2,3}",
    "{3,2}",
    "{,3}",
    "(?=",
    "(?:",
    "[^",
    "\\u00e9",
    "::=",
    "\n",
)


def nested(random: Random, opening: str, middle: str, closing: str) -> str:
    """Text that is nested one to a hundred thousand times."""
    depth = 10 ** random.randint(0, 5)
    return opening * depth + middle + closing * depth


def grammar(random: Random) -> str:
    """A grammar: nested, chained, repeated, ambiguous, or pieces without order."""
    size = 10 ** random.randint(1, 5)
    letter = random.choice("abc")
    return str(
        random.choice(
            (
                f"root ::= {nested(random, '(', f'{letter!r}', ')')}".replace("'", '"'),
                "root ::= r0\n"
                + "".join(f"r{i} ::= r{i + 1}{random.choice(('', '?'))}\n" for i in range(size))
                + f'r{size} ::= "a"',
                f'root ::= "a"{{{random.choice((2, 2000, 5, size))},{random.choice((3, 2000, 10**9))}}}',
                "root ::= " + '("a"{1000}){1000} ' * min(size, 50),
                "root ::= " + "[a-z]? " * min(size, 4000),
                "root ::= (" + " | ".join(f'"{i}"' for i in range(min(size, 20000))) + ")*",
                'root ::= ("a"* "a"*)* ' + '"b"' * min(size, 1000),
                "root ::= root? root?",
                "root ::= " + "".join(random.choices(PIECES, k=random.randint(1, 40))),
            )
        )
    )


def schema(random: Random, depth: int = 0) -> Any:
    """A JSON schema with keywords that fit and that do not."""
    if depth > 3 or random.random() < 0.05:
        return random.choice(JUNK)
    made: dict[str, Any] = {}
    if random.random() < 0.8:
        made["type"] = random.choice(
            ("string", "object", "array", "integer", "number", "boolean", "null", ["string", "object"])
        )
    for _ in range(random.randint(0, 4)):
        key = random.choice(KEYWORDS)
        kind = random.randrange(6)
        if kind == 0:
            made[key] = "".join(("^", *random.choices(PIECES, k=random.randint(1, 12)), "$"))
        elif kind == 1:
            made[key] = {random.choice("abc"): schema(random, depth + 1) for _ in range(3)}
        elif kind == 2:
            made[key] = [schema(random, depth + 1) for _ in range(2)]
        elif kind == 3:
            made[key] = schema(random, depth + 1)
        else:
            made[key] = random.choice((*NUMBERS, "#/properties/a", "#/"))
    return made


def large_schema(random: Random) -> Any:
    """A JSON schema that is too deep, too wide, or refers to itself."""
    size = 10 ** random.randint(1, 4)
    deep: Any = {}
    for _ in range(min(size, 300)):
        deep = {"type": ["object", "array"][: random.randint(1, 2)], "properties": {"a": deep}, "items": {}}
    loop = {"$ref": "#/$defs/a"}
    return random.choice(
        (
            deep,
            {"type": "object", "properties": {f"é{i}": {"type": "string"} for i in range(size)}},
            {"enum": list(range(size))},
            {"type": "string", "minLength": size, "maxLength": 3},
            {"type": "object", "properties": {"x" * size: {}}, "additionalProperties": {}},
            {"$defs": {"a": {"allOf": [loop, loop]}}, **loop},
            {"$defs": {"a": loop}, "allOf": [loop, {}]},
            {"$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(size)}, "$ref": "#/$defs/d0"},
            {"type": "string", "pattern": f"^{nested(random, '(', 'a', ')')}$"},
            {"type": "integer", "minimum": size, "maximum": -size},
        )
    )


def spoiled(random: Random) -> dict[str, Any]:
    """A field of a request that cannot be right, or that asks for too much."""
    parsers = {"root": 0, "rules": {}, "parsers": [{"type": "sequence", "children": [0]}]}
    trigger = {"type": random.choice((0, 1, 2, 3, 9, -1)), "value": "(a*)*b", "token": random.choice(NUMBERS)}
    function = {"name": random.choice(("f", "(" * 500)), "parameters": schema(random)}
    called = {"name": "f", "arguments": nested(random, "[", "", "]")}
    prompts: tuple[Any, ...] = (["a"] * 10 ** random.randint(0, 5), [[1]] * 9, [2**31 - 1], [-1], {"prompt_string": 1})
    size = 10 ** random.randint(0, 4)
    fields: tuple[dict[str, Any], ...] = (
        {random.choice(NUMERIC): random.choice(NUMBERS)},
        {random.choice(NUMERIC): random.choice(NUMBERS), random.choice(NUMERIC): random.choice(NUMBERS)},
        {random.choice((*NUMERIC, *LISTS, *OTHER, "prompt", "messages", "content", "input")): random.choice(JUNK)},
        {random.choice(LISTS): random.choices((*JUNK, "top_k", [5, 1.0]), k=size)},
        {random.choice(OTHER): random.choice((True, False))},
        {"grammar": grammar(random)},
        {"json_schema": schema(random)},
        {"json_schema": large_schema(random)},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": schema(random)}}},
        {"tools": [{"type": "function", "function": function}]},
        {"chat_parser": random.choice(("{", json.dumps(parsers)))},
        {"prompt": random.choice(prompts)},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": called}]}]},
        {"grammar_triggers": [trigger], "grammar_lazy": True, "grammar": 'root ::= "a"'},
    )
    return random.choice(fields)


def request(random: Random) -> tuple[str, bytes]:
    """Path and body of a hostile request."""
    path = random.choice(PATHS)
    if random.random() < 0.1:
        whole = (nested(random, "[", "", "]"), nested(random, '{"a":', "1", "}"))
        return path, random.choice((*whole, "{", "[", '{"a":', "[1," * 1000, "\xff")).encode("latin-1")
    words = "Mary went to the garden. " * random.choice((0, 1, 1, 50, 500))
    body: dict[str, Any] = dict.fromkeys(("prompt", "content", "input"), words)
    body |= {"n_predict": 4, "max_tokens": 4, "tokens": [1, 2]}
    body["messages"] = [{"role": random.choice(("user", "system", "assistant", "x")), "content": words}]
    for _ in range(random.randint(1, 4)):
        body |= spoiled(random)
    return path, json.dumps(body).encode()


def megabytes(pid: int, key: str) -> int:
    """A number of a process's status: VmHWM (peak) or VmRSS (now)."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.partition(f"{key}:")[2].split()[0]) // 1024


def send(url: str, path: str, body: bytes) -> int:
    """The status of the answer; 0: there was none in time."""
    try:
        asked = urllib.request.Request(url + path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=SECONDS) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def check(server: Server, path: str, body: bytes) -> str:
    """What is wrong with how a request is answered; empty: nothing."""
    before, start = megabytes(server.pid, "VmHWM"), time.monotonic()
    status = send(server.url, path, body)
    took = time.monotonic() - start
    if send(server.url, "/tokenize", b"{}") != 200:
        return f"the server is gone or stands still after {took:.0f} s"
    grown = megabytes(server.pid, "VmHWM") - before
    if status == 0 or grown > MEMORY_MB or status == 500:
        return f"status {status} after {took:.1f} s, peak memory grew by {grown} MB"
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Send requests; 1 if one was not answered rightly."""
    parser = ArgumentParser(prog="python -m tests.fuzz.requests", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=a_path, default=default_model(), help="GGUF file (default: the bundled model)")
    parser.add_argument("--count", type=whole(1), default=2000, help="requests (default: %(default)s)")
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--only", type=whole(0), help="send this one and show it")
    args = parser.parse_args(argv)
    numbers = range(args.count) if args.only is None else [args.only]
    failures = 0
    position = 0
    while position < len(numbers):
        with Server(args.model, 1, FLAGS) as server:
            start = megabytes(server.pid, "VmRSS")
            for number in tqdm(numbers[position:], disable=None):
                position += 1
                path, body = request(Random(f"{args.seed} {number}"))
                fault = check(server, path, body)
                if args.only is not None:
                    print(path, body[:2000].decode("utf-8", "replace"))
                if fault:
                    failures += 1
                    print(f"--seed {args.seed} --only {number}: {path}: {fault}", flush=True)
                    break
            else:
                print(f"memory: {start} MB at the start, {megabytes(server.pid, 'VmRSS')} MB at the end")
    print(f"{len(numbers)} requests, {failures} answered wrongly")
    return EXIT_FAILED if failures else EXIT_OK


if __name__ == "__main__":
    sys.exit(run_main(main))
