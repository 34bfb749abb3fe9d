# SPDX-License-Identifier: MIT
"""What is asked about a row, and what becomes of the answer. All that changes a result is in a batch's parameters."""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trit.base.errors import UserError
from trit.batch.engine import Client
from trit.batch.source import OPENAI, Row, id_of

COMPLETE, SCORE, EMBED = "text", "score", "embedding"
Answer = Mapping[str, Any]
_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
_OK = 200
# Of OpenAI's routes, those that a batch has -> the field of a body that has the prompt.
_ROUTES = {"/v1/chat/completions": "messages", "/v1/completions": "prompt", "/v1/embeddings": "input"}
_LENGTHS = ("max_tokens", "max_completion_tokens", "n_predict")
# What differs from run to run, or says what was in a cache.
_FLEETING = ("timings", "system_fingerprint", "__verbose")
_FORCED = 1e9
_CHOSEN = {"eos": "stop", "word": "stop", "limit": "length"}


class RowFault(Exception):
    """A row that cannot be answered; says why, in a sentence."""


@dataclass(frozen=True)
class Done:
    """A row of the output.

    Attributes:
        out: what is written.
        tokens: that were made, or read where none are made.
        failed: whether it is an error row.
    """

    out: dict[str, Any]
    tokens: int
    failed: bool


class Task(ABC):
    """What is done with each row.

    Attributes:
        columns: of the input, that are read; None: all.
        each: rows that are asked for at a time, for each slot of the engine.
    """

    columns: Sequence[str] | None
    each = 2

    @abstractmethod
    def text(self, row: Row) -> str:
        """The prompt of a row, by which rows are sorted.

        Raises:
            RowFault: there is none.
        """

    @abstractmethod
    def ask(self, client: Client, row: Row) -> Done:
        """Ask for a row's answer.

        Raises:
            RowFault: the engine refuses the row.
            EngineDied: it gave no answer.
        """

    @abstractmethod
    def failed(self, row: Row, why: str) -> Done:
        """The row of the output for one that has no answer."""


def make(kind: str, parameters: Mapping[str, Any]) -> Task:
    """The task of a batch.

    Args:
        kind: format of the input.
        parameters: those of its manifest.
    """
    if kind == OPENAI:
        return _OpenAI(parameters)
    plain: dict[str, Callable[[Mapping[str, Any]], Task]] = {COMPLETE: _Complete, SCORE: _Score, EMBED: _Embed}
    return plain[parameters["task"]](parameters)


def columns_of(template: str) -> list[str]:
    """The columns that a template names, each once."""
    return list(dict.fromkeys(match[1] for match in _PLACE.finditer(template) if match[1]))


def fill(template: str, row: Row) -> str:
    """A template with a row's values; ``{{`` and ``}}`` stand for braces.

    Raises:
        RowFault: a column is not there, or empty of meaning.
    """

    def value(match: re.Match[str]) -> str:
        return _text(row, match[1]) if match[1] else match[0][0]

    return _PLACE.sub(value, template)


def _text(row: Row, column: str) -> str:
    if column not in row.value:
        there = ", ".join(map(str, row.value)) or "none"
        raise RowFault(f"has no column {column}; its columns are {there}")
    found = row.value[column]
    if found is None:
        raise RowFault(f"column {column} is null, expected a text")
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, default=str)


def _answer(client: Client, path: str, body: Mapping[str, Any]) -> Any:
    status, found = client.post(path, body)
    if status != _OK:
        raise RowFault(message_of(found))
    return found


def message_of(found: Any) -> str:
    """The sentence of an error that the engine's server answered with."""
    error = found.get("error") if isinstance(found, dict) else None
    return str(error.get("message") if isinstance(error, dict) else found)


def _usage(prompt: int, made: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def seed_of(seed: int, number: int) -> int:
    """The seed of a row: it follows from the batch's and the row's number alone, not from when it is answered."""
    found = hashlib.sha256(f"{seed}:{number}".encode()).digest()
    # The engine takes the largest number for no seed.
    return int.from_bytes(found[:4], "big") % ((1 << 32) - 1)


class _Plain(Task):
    """Rows that have a prompt in a column, or in several by a template."""

    fields: Mapping[str, Any]

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters
        self._template: str = parameters["template"]
        self._id: str | None = parameters["id-column"]
        self.columns = [*columns_of(self._template), *([self._id] if self._id else [])]

    def text(self, row: Row) -> str:
        text = fill(self._template, row)
        if not text:
            raise RowFault("the prompt is empty")
        self._name(row)
        return text

    def failed(self, row: Row, why: str) -> Done:
        name = id_of(row, self._id) if self._id else row.number
        return Done({"id": name, **dict.fromkeys(self.fields), "error": why}, 0, True)

    def _done(self, row: Row, count: int, **found: Any) -> Done:
        out = {"id": self._name(row), **{name: found[name] for name in self.fields}, "error": None}
        return Done(out, count, False)

    def _name(self, row: Row) -> str | int:
        if not self._id:
            return row.number
        name = id_of(row, self._id)
        if name is None:
            raise RowFault(f"column {self._id} has no id, expected a text or a whole number")
        return name


class _Complete(_Plain):
    def __init__(self, parameters: Mapping[str, Any]) -> None:
        super().__init__(parameters)
        logprobs = {"logprobs": None} if parameters["logprobs"] else {}
        self.fields = dict.fromkeys(("text", "tokens", "finish_reason", "usage")) | logprobs

    def ask(self, client: Client, row: Row) -> Done:
        given = self._parameters
        prompt = self.text(row)
        if given["chat"]:
            message = {"messages": [{"role": "user", "content": prompt}]}
            prompt = _answer(client, "/apply-template", message)["prompt"]
        body = {"prompt": prompt, "n_predict": given["n-predict"], "temperature": given["temperature"]}
        body |= {"seed": seed_of(given["seed"], row.number), "cache_prompt": True, "return_tokens": True}
        optional = {"top_k": given["top-k"], "top_p": given["top-p"], "stop": given["stop"]}
        body |= {name: value for name, value in optional.items() if value is not None}
        if given["logprobs"]:
            body["n_probs"] = given["logprobs"]
        found = _answer(client, "/completion", body)
        made = found["tokens_predicted"]
        return self._done(
            row,
            made,
            text=found["content"],
            tokens=found["tokens"],
            finish_reason=_CHOSEN.get(found["stop_type"], found["stop_type"]),
            usage=_usage(found["tokens_evaluated"], made),
            logprobs=[_logprob(one) for one in found.get("completion_probabilities", [])],
        )


def _logprob(one: Mapping[str, Any]) -> dict[str, Any]:
    top = [{name: other[name] for name in ("id", "token", "logprob")} for other in one["top_logprobs"]]
    return {"id": one["id"], "token": one["token"], "logprob": one["logprob"], "top": top}


class _Score(_Plain):
    """The log-probability of a continuation: of its tokens, each behind the prompt and those before it."""

    # A row's questions go on from each other, in one slot.
    each = 1
    fields = dict.fromkeys(("score", "tokens", "logprobs", "greedy", "usage"))

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        super().__init__(parameters)
        self._continuation: str = parameters["continuation-column"]
        self.columns = [*(self.columns or ()), self._continuation]

    def text(self, row: Row) -> str:
        text = super().text(row)
        if not (more := _text(row, self._continuation)):
            raise RowFault(f"column {self._continuation} is empty")
        return text + more

    def ask(self, client: Client, row: Row) -> Done:
        whole = self._tokens(client, self.text(row))
        prompt = self._tokens(client, super().text(row))
        # A token may be made of the prompt's end and the continuation's beginning; it counts as the latter.
        shared = next(
            (place for place, pair in enumerate(zip(whole, prompt, strict=False)) if pair[0] != pair[1]),
            min(len(whole), len(prompt)),
        )
        if shared == 0 or shared == len(whole):
            raise RowFault("the continuation has no token behind one of the prompt")
        logprobs, greedy = [], True
        for place in range(shared, len(whole)):
            token = whole[place]
            body = {"prompt": whole[:place], "n_predict": 1, "temperature": 0, "n_probs": 1, "cache_prompt": True}
            # Log-probabilities are those before the bias.
            body |= {"logit_bias": [[token, _FORCED]], "id_slot": client.slot, "return_tokens": True}
            found = _answer(client, "/completion", body)
            one = found["completion_probabilities"][0]
            if one["id"] != token:
                raise RowFault(f"the engine did not say how likely token {token} is")
            logprobs.append(one["logprob"])
            greedy = greedy and one["top_logprobs"][0]["id"] == token
        scored = whole[shared:]
        usage = _usage(shared, len(scored))
        return self._done(
            row, len(scored), score=sum(logprobs), tokens=scored, logprobs=logprobs, greedy=greedy, usage=usage
        )

    def _tokens(self, client: Client, text: str) -> list[int]:
        found: list[int] = _answer(client, "/tokenize", {"content": text, "add_special": True})["tokens"]
        return found


class _Embed(_Plain):
    fields = dict.fromkeys(("embedding", "usage"))

    def ask(self, client: Client, row: Row) -> Done:
        found = _answer(client, "/v1/embeddings", {"input": self.text(row)})
        read = found["usage"]["prompt_tokens"]
        return self._done(row, read, embedding=found["data"][0]["embedding"], usage=_usage(read, 0))


class _OpenAI(Task):
    """Requests and answers in the form of OpenAI's batches."""

    columns = None

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters
        self._embeds = parameters["task"] == EMBED

    def text(self, row: Row) -> str:
        name, url, body = (row.value.get(key) for key in ("custom_id", "url", "body"))
        if id_of(row, "custom_id") is None:
            raise RowFault(f"custom_id {json.dumps(name)}: expected a text")
        if row.value.get("method", "POST") != "POST":
            raise RowFault(f"method {json.dumps(row.value['method'])}: expected POST")
        if url not in _ROUTES:
            raise RowFault(f"url {json.dumps(url)}: expected one of {', '.join(_ROUTES)}")
        if not isinstance(body, dict):
            raise RowFault(f"body {json.dumps(body)[:40]}: expected an object")
        if (url == "/v1/embeddings") != self._embeds:
            raise RowFault(
                f"url {url}: this batch is {'' if self._embeds else 'not '}of /v1/embeddings, as its first row"
            )
        if body.get("stream"):
            raise RowFault("body.stream: a batch has no streams; leave it away")
        if body.get("n", 1) not in (1, None):
            raise RowFault("body.n: a batch has one answer a row; write the row as often as wanted")
        return json.dumps(body.get(_ROUTES[url]), ensure_ascii=False)

    def ask(self, client: Client, row: Row) -> Done:
        url, body = row.value["url"], dict(row.value["body"])
        if not self._embeds:
            given = self._parameters
            defaults = {"temperature": given["temperature"], "seed": seed_of(given["seed"], row.number)}
            if not any(body.get(name) is not None for name in _LENGTHS):
                defaults["max_tokens"] = given["n-predict"]
            for name, value in defaults.items():
                if body.get(name) is None:
                    body[name] = value
            body["cache_prompt"] = True
        status, found = client.post(url, body)
        usage = found.get("usage") or {} if isinstance(found, dict) else {}
        response = {"status_code": status, "request_id": f"req_{row.number}", "body": self._lasting(found, row)}
        out = {**self._names(row), "response": response, "error": None}
        tokens = usage.get("prompt_tokens" if self._embeds else "completion_tokens", 0)
        return Done(out, tokens, status != _OK)

    def failed(self, row: Row, why: str) -> Done:
        error = {"code": "invalid_request" if not row.value else "request_failed", "message": why}
        return Done({**self._names(row), "response": None, "error": error}, 0, True)

    @staticmethod
    def _names(row: Row) -> dict[str, Any]:
        return {"id": f"batch_req_{row.number}", "custom_id": id_of(row, "custom_id")}

    @staticmethod
    def _lasting(found: Any, row: Row) -> Any:
        """An answer without what differs from run to run."""
        if not isinstance(found, dict):
            return found
        kept = {name: value for name, value in found.items() if name not in _FLEETING}
        if "created" in kept:
            kept["created"] = 0
        if "id" in kept:
            kept["id"] = f"answer-{row.number}"
        if isinstance(kept.get("usage"), dict):
            kept["usage"] = {name: value for name, value in kept["usage"].items() if isinstance(value, int)}
        for choice in kept.get("choices", []):
            for call in (choice.get("message") or {}).get("tool_calls") or []:
                if "id" in call:
                    call["id"] = f"call_{row.number}_{call.get('index', 0)}"
        return kept


def check_columns(task: Task, row: Row, path: object) -> None:
    """Look whether the first row has what every row needs: else each would be an error row.

    Raises:
        UserError: it has not.
    """
    missing = [column for column in task.columns or () if column not in row.value]
    if missing:
        there = ", ".join(map(str, row.value))
        raise UserError(
            f"{path}: has no column {missing[0]}; its columns are {there}: name one with --prompt-column, --template, "
            "--continuation-column or --id-column"
        )
