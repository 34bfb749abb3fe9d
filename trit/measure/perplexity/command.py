# SPDX-License-Identifier: MIT
"""The command line of ``utils/test_perplexity.py``."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from trit.base import by_name
from trit.base.errors import EXIT_OK, UserError
from trit.base.files import check_input, check_output
from trit.base.flags import THREADS, ArgumentParser, a_path, whole
from trit.base.host import cpu_name, physical_cores
from trit.base.places import document
from trit.base.plots import check_plot
from trit.base.progress import until_now
from trit.engine.llama_perplexity import Engine
from trit.engine.logprobs import MAGIC
from trit.gguf.embedding_types import EMBEDDING_TYPES
from trit.gguf.made import default_model
from trit.gguf.types import quiet_gguf_package
from trit.measure.perplexity import held_out, tables
from trit.measure.perplexity.measure import CONTEXT, Row, Settings, logprobs_name, measure
from trit.measure.perplexity.models import SWEEP, Model, with_heads
from trit.measure.perplexity.texts import Text, find_texts
from trit.measure.report import as_csv, as_json, show, write

QUICK_CHUNKS = 8
_ETA = re.compile(r"seconds per pass - ETA (.+)")


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="trit perplexity",
        description="Perplexity of models over texts, and how far their predictions are from a reference's.",
        epilog=f"How it is measured and what the numbers mean: {document('perplexity.md')}",
    )
    add = parser.add_argument
    text = "GGUF files, or names for `trit run` (default: the bundled model)"
    add("-m", "--model", type=a_path, nargs="+", default=[], metavar="FILE", help=text)
    add("names", type=a_path, nargs="*", default=[], metavar="NAME", help="the same without a flag")
    text = "text files, or folders of .txt, .raw and .md files (default: for the bundled model, the shipped stories)"
    add("-d", "--data", type=a_path, nargs="+", default=[], metavar="PATH", help=text)
    text = "threads (default: physical cores, here %(default)s)"
    add("-t", "--threads", type=THREADS, default=physical_cores(), metavar="N", help=text)
    text = f"tokens of each piece of a text (default: {CONTEXT}, {held_out.CONTEXT} for the shipped stories; less "
    add("-c", "--ctx-size", type=whole(4), metavar="N", help=f"{text}where a text is too short)")
    add("--chunks", type=whole(1), metavar="N", help="only the first N pieces of each text")
    text = f"only the first {QUICK_CHUNKS} pieces, to see whether all works"
    add("-q", "--quick", action="store_true", help=text)
    text = "count the tokens from TEXT to the end of its line apart, too (default: for the shipped stories "
    add("--after", metavar="TEXT", help=f"{text}'{held_out.MARK}'; '' for none)")
    text = "what to compare with: a GGUF file or name, such as the model in f16, or what --save-logits has made"
    add("--reference", type=a_path, metavar="PATH", help=text)
    text = "keep the model's log-probabilities as a later reference"
    add("--save-logits", type=a_path, metavar="FOLDER", help=text)
    text = f"compare types of embedding and head (default: {','.join(SWEEP)}; all: {','.join(EMBEDDING_TYPES)}); the "
    text += "first is the reference unless --reference names another"
    add("-e", "--quant-embd", nargs="?", const="", metavar="TYPES", help=text)
    add("--keep", action="store_true", help="keep the files of -e, in the output folder")
    text = "for results.csv, results.json and the engine's log (default: %(default)s)"
    add("-o", "--output-dir", type=a_path, default=Path("perplexity_results"), metavar="FOLDER", help=text)
    add("--csv-output", type=a_path, metavar="FILE", help="write the CSV file here instead")
    add("--json", type=a_path, metavar="FILE", help="write the JSON file here instead")
    add("--plot", type=a_path, metavar="FILE", help="draw the results (PNG; needs matplotlib)")
    add("--llama-perplexity", type=a_path, metavar="FILE", help="another llama-perplexity than the build's")
    text = "taken for the sake of scripts, not used: llama-quantize cannot change a ternary model's head alone"
    add("--quantize-bin", type=a_path, metavar="FILE", help=text)
    return parser


def _check(args: argparse.Namespace) -> None:
    """Raise UserError for flags that cannot be right; fills in what was left out."""
    if args.quick and args.chunks is not None:
        raise UserError("-q and --chunks: give one of them")
    if args.llama_perplexity and not args.llama_perplexity.is_file():
        raise UserError(f"--llama-perplexity {args.llama_perplexity}: is not there; leave it away for the build's own")
    if args.quantize_bin:
        print("note: --quantize-bin is not used; -e makes its files as trit convert does", file=sys.stderr)
    if args.keep and args.quant_embd is None:
        raise UserError("--keep: is for the files that -e makes; give -e, too")
    if args.save_logits and (len(args.model) > 1 or args.quant_embd is not None):
        raise UserError("--save-logits: keeps one model's log-probabilities; give one -m and no -e")
    kept = args.reference and args.reference.resolve()
    if args.save_logits and kept and args.save_logits.resolve() in (kept, kept.parent):
        raise UserError(f"--save-logits {args.save_logits}: would overwrite the --reference; name another folder")
    if args.plot:
        check_plot(args.plot)
    for flag, path in (("--csv-output", args.csv_output), ("--json", args.json), ("--plot", args.plot)):
        check_output(flag, path)
    for flag, folder in (("-o", args.output_dir), ("--save-logits", args.save_logits)):
        check_output(flag, folder and folder / "results.csv", in_folder=True)
    # Only now: models may have to be fetched.
    args.model = by_name.model_files(args.model) if args.model else [default_model()]
    args.reference = args.reference and by_name.named_file(args.reference)


def _reference(path: Path | None, texts: Sequence[Text]) -> Model | Path | None:
    """A model, or a file or folder of log-probabilities."""
    if path is None:
        return None
    if not path.exists():
        raise UserError(f"--reference {path}: is not there; name a GGUF file or what --save-logits has made")
    if path.is_dir():
        return path
    check_input(path)
    with path.open("rb") as file:
        is_saved = file.read(len(MAGIC)) == MAGIC
    if not is_saved:
        try:
            return Model.open(path)
        except UserError as error:
            raise UserError(f"--reference {str(error).removeprefix('-m ')}") from None
    if len(texts) > 1:
        raise UserError(f"--reference {path}: is of one text, and there are {len(texts)}; name its folder")
    return path


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _say_time(line: str) -> None:
    """From the engine's output, unless it is some seconds, which are soon over."""
    if (found := _ETA.search(line)) and not found[1].startswith("0.0"):
        _say(f"  takes about {found[1]}")


def _with_heads(models: Sequence[Model], words: str, has_reference: bool, folder: Path) -> list[Model]:
    """Files with each type of head, in a folder."""
    if len(models) > 1 and not has_reference:
        raise UserError("-e: compares the heads of one model; give one -m, or a --reference for all")
    types = list(dict.fromkeys(word.strip().lower() for word in words.split(",") if word.strip())) or list(SWEEP)
    for kind in types:
        if kind not in EMBEDDING_TYPES:
            raise UserError(f"-e {words}: there is no type {kind}; choose from {', '.join(EMBEDDING_TYPES)}")
    _say(f"making files with {', '.join(types)} heads in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    return [made for model in models for made in with_heads(model, types, bool(words), folder)]


def _measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    models = [Model.open(path) for path in args.model]
    texts = find_texts(args.data, [(model.path, model.header) for model in models])
    reference = _reference(args.reference, texts)
    if args.quant_embd is not None:
        kept = args.output_dir if args.keep else folder
        models = _with_heads(models, args.quant_embd, reference is not None, kept / "heads")
        reference = reference or models[0]
    shipped = held_out.HELD_OUT.is_file() and all(text.path.samefile(held_out.HELD_OUT) for text in texts)
    settings = Settings(
        Engine(args.threads, args.output_dir / "llama-perplexity.log", args.llama_perplexity, on_line=_say_time),
        args.ctx_size or (held_out.CONTEXT if shipped else CONTEXT),
        args.ctx_size is not None,
        QUICK_CHUNKS if args.quick else args.chunks,
        (args.after if args.after is not None else held_out.MARK if shipped else None) or None,
        args.save_logits,
        folder,
        _say,
    )
    rows: list[Row] = []
    with until_now(lambda: tables.table(rows) if rows else "", show):
        for row in measure(models, texts, reference, settings):
            rows.append(row)
    if args.save_logits:
        for text in texts:
            _say(f"kept {args.save_logits / logprobs_name(text)}")
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the files."""
    args = _parser().parse_args(argv)
    args.model += args.names
    _check(args)
    quiet_gguf_package()
    with tempfile.TemporaryDirectory(prefix="perplexity-") as folder:
        rows = _measure(args, Path(folder))
    show(tables.table(rows))
    for note in tables.notes(rows):
        print(f"note: {note}")
    how = {
        "cpu": cpu_name(),
        "threads": args.threads,
        "reference": str(args.reference) if args.reference else None,
        "command": shlex.join(sys.argv),
    }
    content = {**how, "rows": [asdict(row) for row in rows]}
    write(args.csv_output or args.output_dir / "results.csv", as_csv([tables.flat(row) for row in rows]))
    write(args.json or args.output_dir / "results.json", as_json(content, indent=2))
    if args.plot:
        tables.draw(args.plot, rows)
    return EXIT_OK
