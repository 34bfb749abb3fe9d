# SPDX-License-Identifier: MIT
"""A description as lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from trit.inspect.description import Description

_WIDTH = 13
_VALUES = ("-1", "0", "+1", "+2")


def lines(found: Description, layers: bool) -> Iterator[str]:
    """The report, a line at a time; ``layers`` adds one for every layer."""
    for label, text in _facts(found):
        if text:
            yield f"{label:<{_WIDTH}} {text}"
    if layers:
        yield from _layer_lines(found)
    for problem in found.problems[:5]:
        yield f"{'problem':<{_WIDTH}} {problem}"
    if len(found.problems) > 5:
        yield f"{'':<{_WIDTH}} and {len(found.problems) - 5} more"
    # Why something is refused is said as an error, once.
    if not found.refused:
        yield f"{'verdict':<{_WIDTH}} {found.verdict}"
    if found.command:
        yield f"{'command':<{_WIDTH}} {found.command}"


def _megabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _facts(found: Description) -> Iterator[tuple[str, str]]:
    yield "file", f"{found.path}: {found.kind}" + (f", {_megabytes(found.bytes)}" if found.bytes else "")
    yield "model", ", ".join(part for part in (found.name, found.architecture) if part)
    yield "dimensions", ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in found.dimensions.items())
    kinds = sorted(found.types.items(), key=lambda row: -row[1]["bytes"])
    yield "tensors", "; ".join(f"{row['tensors']} {name} ({_megabytes(row['bytes'])})" for name, row in kinds)
    yield "scales", ", ".join(f"{kind}: {count} tensors" for kind, count in found.scales.items())
    yield "weights", _shares(found)
    if found.order:
        scores = ", ".join(f"{name} {score:.1f}" for name, score in found.order.items())
        yield "i2_s order", f"agreement of the columns with the norms, chance is 1: {scores}"
    yield "embedding", found.embedding or ""
    yield "head", found.head or ""
    yield "basis", found.basis or ""
    yield "tokenizer", _tokenizer(found)
    for note in found.tokenizer.get("notes", []):
        yield "", note
    yield "memory", _memory(found)
    yield "speed", _speed(found)


def _shares(found: Description) -> str:
    """Smallest, median and largest share over the layers of every value that occurs."""
    parts = []
    for i, value in enumerate(_VALUES):
        spread = found.spread(i)
        if spread and spread[2] > 0:
            low, middle, high = (f"{100 * share:.1f}" for share in spread)
            parts.append(f"{value}: {low} / {middle} / {high} %")
    if not parts:
        return ""
    looked_at = f"all {found.ternary:,} weights"
    if found.looked_at < found.ternary:
        share = 100 * found.looked_at / found.ternary
        looked_at = f"a sample of {found.looked_at:,} of {found.ternary:,} weights ({share:.2g} %), --exact takes all"
    return f"{', '.join(parts)} of {len(found.layers)} layers (min / median / max of {looked_at})"


def _layer_lines(found: Description) -> Iterator[str]:
    for layer, shares in found.layers.items():
        parts = zip(_VALUES, shares.shares, strict=True)
        yield f"  layer {layer:<5} " + "  ".join(f"{value} {100 * share:5.1f} %" for value, share in parts if share)


def _tokenizer(found: Description) -> str:
    known = found.tokenizer
    if not known.get("model"):
        return "none"
    template = "with" if known["chat_template"] else "without"
    return f"{known['model']}, pre-tokenizer {known['pre']}, {known['tokens']:,} tokens, {template} chat template"


def _memory(found: Description) -> str:
    known = found.memory
    parts = [f"{_megabytes(known['packed'])} weights as loaded"] if known.get("packed") else []
    if "kv_cache" in known:
        parts.append(f"{_megabytes(known['kv_cache'])} KV cache at {known['context']:,} tokens")
    return ", ".join(parts)


def _speed(found: Description) -> str:
    known = found.speed
    if "bound_tokens_per_s" not in known:
        return str(known.get("reason", ""))
    kept = " (measured earlier; --measure: again)" if known["kept"] else ""
    rate = f"{known['gbs']:.1f} GB/s on {known['threads']} threads{kept}"
    return f"bound {known['bound_tokens_per_s']:.1f} tokens/s: {_megabytes(known['bytes_per_token'])} a token at {rate}"
