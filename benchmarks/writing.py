"""Time a token: our decoder and CTranslate2's, one window and eight, greedy and beams.

    python -m benchmarks.writing [--model base] [--before 0 200] [--beams 1 5] [--threads 1]
        [--rounds 3]

Noise is heard, and the end of text forbidden, so that as many tokens are written as are asked for.
int8; of one thread the processor time, of several what a caller who is alone waits. A token's time
is what 60 tokens take more than 10; `first` is the rest of what 10 take: what was heard is
prepared, and the prompt is read. The rows take turns; medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import product

import numpy as np

from benchmarks.local_server import model_folder
from simple_asr.engine.backends.ctranslate2 import CTranslate2Backend, load_replicas
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.seek_loop import search_options
from simple_asr.engine.tokens import build_prompt
from simple_asr.engine.tuning import tune
from simple_asr.engine.window import Decode, Encoded

FEW, MANY = 10, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="base")
    parser.add_argument("--before", type=int, nargs="+", default=[0, 200], help="tokens")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    tune()
    ours, *_ = load_replicas(
        arguments.model,
        model_folder(arguments.model),
        device="cpu",
        compute_type="int8",
        num_threads=arguments.threads,
    )
    theirs = CTranslate2Backend(arguments.model, ours.model, ours.tokenizer)
    noise = np.random.default_rng(0).normal(0, 0.5, (8, ours.info.n_mels, 3000)).astype(np.float32)
    heard = [ours.encode([window])[0] for window in noise]
    cases = list(product(arguments.before, arguments.beams, (1, 8)))
    systems = {"ours": ours, "CTranslate2": theirs}
    seconds = defaultdict(list)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    for _, case, name in product(range(arguments.rounds), cases, systems):
        # Patience a hair over 1 has our decoder search with beams: plain ones are CTranslate2's.
        patience = 1.001 if name == "ours" and case[1] > 1 else None
        seconds[case, name].append(
            _token(systems[name], heard, *case, patience=patience, clock=clock)
        )
    print("| tokens before | beams | windows | decoder | ms a token | first, ms |\n|" + "---|" * 6)
    for (before, beams, windows), name in product(cases, systems):
        token, first = (
            statistics.median(part) * 1000
            for part in zip(*seconds[(before, beams, windows), name], strict=True)
        )
        print(f"| {before} | {beams} | {windows} | {name} | {token:.1f} | {first:.0f} |")


def _token(
    backend: CTranslate2Backend,
    heard: list[Encoded],
    num_before: int,
    num_beams: int,
    num_windows: int,
    *,
    patience: float | None,
    clock: Callable[[], float],
) -> tuple[float, float]:
    """Seconds a token, and before the first."""

    def write(num_tokens: int) -> float:
        tokenizer = backend.tokenizer
        options = TranscribeOptions(
            beam_size=num_beams if num_beams > 1 else None,
            patience=patience,
            suppress_tokens=(tokenizer.eot,),
        )
        prompt = build_prompt(tokenizer, options, "en", previous=range(300, 300 + num_before))
        search = search_options(options, tokenizer, 0.0, max_new_tokens=num_tokens)
        began = clock()
        steps = [Decode(prompt, search)] * num_windows
        answers = [
            answer
            for ended in backend.decode(heard[:num_windows], steps)
            for answer in ended.values()
        ]
        took = clock() - began
        assert len(answers) == num_windows
        assert all(len(answer.hypotheses[0].tokens) == num_tokens for answer in answers)
        return took

    few, many = write(FEW), write(MANY)
    token = (many - few) / (MANY - FEW)
    return token, few - FEW * token


if __name__ == "__main__":
    main()
