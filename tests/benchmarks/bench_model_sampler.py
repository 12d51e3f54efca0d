"""The exact fast sampler against the reverse chain as published, side by side.

    python tests/benchmarks/bench_model_sampler.py [--repeats 5] [--threads 1]

Both give the best 20 unseen items of the same users from the same weights; lists are compared before anything is timed.
Standard widths (200, 600), histories of 100 items. Medians of CPU time per user. The million-item catalogue runs in a
process of its own, fast only, with an item-item term of 50 neighbours, for its peak memory.
"""

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from model.batch import Histories
from model.config import ItemItemConfig, ModelConfig, preset
from model.denoiser import Denoiser
from model.items import ItemIndex
from model.recommend import Recommender
from model.sampler import plain_chain
from model.schedule import NoiseSchedule

PLACES, LIST = 100, 20


def config(steps: int) -> ModelConfig:
    whole = preset("stream-diffusion")
    return replace(whole, schedule=replace(whole.schedule, steps=steps))


def histories(users: int, items: int) -> Histories:
    rng = np.random.default_rng(0)
    columns = np.concatenate([rng.choice(items, PLACES, replace=False) for _ in range(users)])
    times = np.tile(np.arange(PLACES, 0, -1), users)
    return Histories(np.arange(users + 1) * PLACES, columns, times, np.ones(users * PLACES, np.float32))


def network(items: int) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(items, (200, 600), 10, 0.5).eval().requires_grad_(False)


@torch.inference_mode()
def published(denoiser: Denoiser, schedule: NoiseSchedule, given: Histories, model: ModelConfig) -> torch.Tensor:
    """Dense vectors through all steps, seen items masked, top 20."""
    batch = given.padded(torch.device("cpu"))
    place = torch.arange(batch.columns.shape[1]).expand_as(batch.columns)
    weights = model.weighting(place, batch.lengths) * batch.strengths
    x0 = torch.zeros(len(given), denoiser.items).scatter_add_(1, batch.columns, weights)
    scores = plain_chain(denoiser, schedule, x0)
    scores.scatter_(1, batch.columns, -torch.inf)
    return scores.topk(LIST, dim=1).indices


def median_seconds(repeats: int, *functions: Callable[[], object]) -> list[float]:
    """Of each, taken in turns."""
    taken: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, seconds in zip(functions, taken, strict=True):
            start = time.process_time()
            function()
            seconds.append(time.process_time() - start)
    return [statistics.median(seconds) for seconds in taken]


def compare(items: int, steps: int, users: int, repeats: int) -> None:
    denoiser, model, given = network(items), config(steps), histories(users, items)
    schedule = NoiseSchedule(model.schedule)
    index = ItemIndex([str(item) for item in range(items)])
    recommender = Recommender("bench", index, model, denoiser)
    fast, plain = recommender.rank(given, LIST).columns, published(denoiser, schedule, given, model).numpy()
    alike = np.mean([len(set(a) & set(b)) / LIST for a, b in zip(fast, plain, strict=True)])
    naive_s, fast_s = median_seconds(
        repeats, lambda: published(denoiser, schedule, given, model), lambda: recommender.rank(given, LIST)
    )
    print(
        f"{items:>9,} {steps:>3} {users:>6} {naive_s / users * 1e6:>12,.0f} {fast_s / users * 1e6:>12,.0f} "
        f"{naive_s / fast_s:>8.1f}x {alike:>8.4f}",
        flush=True,
    )


def million(users: int, repeats: int) -> None:
    items = 1_000_000
    denoiser, neighbours = network(items), torch.randint(items, (items, 50))
    model = replace(config(5), item_item=ItemItemConfig(neighbours=50))
    index = ItemIndex([str(item) for item in range(items)])
    recommender = Recommender("bench", index, model, denoiser, neighbours, torch.rand(items, 50))
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    given = histories(users, items)
    recommender.rank(given, LIST)
    (seconds,) = median_seconds(repeats, lambda: recommender.rank(given, LIST))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{items:>9,}   5 {users:>6} {'-':>12} {seconds / users * 1e6:>12,.0f}    peak {peak / 2**20:.1f} GiB, "
        f"of which {held / 2**20:.1f} loading the weights"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only-million", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.only_million:
        million(128, arguments.repeats)
        return
    print(f"{platform.processor() or platform.machine()}, {arguments.threads} thread(s), torch {torch.__version__}")
    print(f"{'items':>9} {'T':>3} {'users':>6} {'naive us':>12} {'fast us':>12} {'faster':>9} {'overlap':>8}")
    compare(2_810, 40, 256, arguments.repeats)
    compare(50_000, 5, 128, arguments.repeats)
    command = [sys.executable, __file__, "--only-million", f"--repeats={arguments.repeats}"]
    subprocess.run([*command, f"--threads={arguments.threads}"], check=True)


if __name__ == "__main__":
    main()
