"""A training epoch of DiffRec on MovieLens-1M against a straightforward port of the published loop, side by side.

    python tests/benchmarks/bench_model_training.py [--epochs 3] [--threads 1] [--precision auto float32]

Both take the same batches of 400 users through the same network with the same optimizer and noise schedule. The port
keeps what the published code does: a dense users x items matrix on the host, rows collated one by one, and a history of
losses kept example by example with a clone of the whole history each time. Medians of epochs taken in turns, in CPU
seconds, in which other processes of the machine do not count. Needs ml-1m.npz in FRESHET_DATA or ../shared/data.
"""

import argparse
import os
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from model.batch import Histories
from model.config import preset
from model.denoiser import Denoiser
from model.learner import Learner
from model.schedule import NoiseSchedule
from model.study.dataset import load_split

CONFIG = replace(preset("diffrec-ml1m"), ema=0.0)


class Published:
    """The published loop, in its own order of work."""

    def __init__(self, histories: Histories, items: int) -> None:
        dense = np.zeros((len(histories), items), np.float32)
        dense[np.repeat(np.arange(len(histories)), histories.lengths), histories.columns] = 1
        rows: list[Tensor] = list(torch.from_numpy(dense))
        self.loader: DataLoader[Tensor] = DataLoader(rows, batch_size=CONFIG.batch_users, shuffle=True)  # type: ignore[arg-type]
        self.network = Denoiser(items, CONFIG.dims, CONFIG.embedding, 0.0)
        self.dropout = torch.nn.Dropout(CONFIG.dropout)
        self.schedule = NoiseSchedule(CONFIG.schedule)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=CONFIG.learning_rate, weight_decay=0.0)
        self.history = torch.zeros(CONFIG.schedule.steps, 10, dtype=torch.float64)
        self.count = torch.zeros(CONFIG.schedule.steps, dtype=torch.int64)

    def draw(self, users: int) -> tuple[Tensor, Tensor]:
        if not bool((self.count == 10).all()):
            return torch.randint(CONFIG.schedule.steps, (users,)), torch.ones(users)
        size = self.history.square().mean(1).sqrt()
        probability = size / size.sum() * 0.999 + 0.001 / len(size)
        steps = torch.multinomial(probability, users, replacement=True)
        return steps, probability[steps] * len(size)

    def epoch(self) -> None:
        for x0 in self.loader:
            steps, probability = self.draw(len(x0))
            noise = torch.randn_like(x0)
            x_t = self.schedule.signal[steps, None] * x0 + self.schedule.noise[steps, None] * noise
            error = (x0 - self.network(self.dropout(x_t), steps)).square().mean(1)
            losses = self.schedule.snr_gap[steps] * error
            for step, loss in zip(steps, losses, strict=True):
                if self.count[step] == 10:
                    before = self.history.clone()
                    self.history[step, :-1] = before[step, 1:]
                    self.history[step, -1] = loss.detach()
                else:
                    self.history[step, self.count[step]] = loss.detach()
                    self.count[step] += 1
            self.optimizer.zero_grad()
            (losses / probability).mean().backward()
            self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    choices = ("auto", "float32", "bfloat16")  # auto, as the trainer has it: the last on a CPU with AMX, else the other
    parser.add_argument("--precision", nargs="+", choices=choices, default=["auto", "float32"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    folder = Path(os.environ.get("FRESHET_DATA") or Path(__file__).parents[3] / "shared" / "data")
    data = load_split(folder / "ml-1m.npz")
    published = Published(data.train, len(data.catalogue.items))
    ours = {
        precision: Learner.fresh(
            replace(CONFIG, training_precision=precision), data.catalogue.items, seed=0, device=torch.device("cpu")
        )
        for precision in arguments.precision
    }
    taken: dict[str, list[float]] = {"published loop": [], **{f"Learner, {name}": [] for name in ours}}
    for epoch in range(arguments.epochs + 1):  # the first warms up
        start = time.process_time()
        published.epoch()
        taken["published loop"].append(time.process_time() - start)
        for name, learner in ours.items():
            start = time.process_time()
            learner.fit(data.train, epochs=1)
            taken[f"Learner, {name}"].append(time.process_time() - start)
        print(
            f"epoch {epoch}: " + ", ".join(f"{name} {seconds[-1]:.2f} s" for name, seconds in taken.items()), flush=True
        )
    print(f"{platform.processor() or platform.machine()}, {arguments.threads} thread(s), torch {torch.__version__}")
    base = statistics.median(taken["published loop"][1:])
    for name, seconds in taken.items():
        middle = statistics.median(seconds[1:])
        print(f"{name:<20} {middle:8.2f} CPU s per epoch {base / middle:6.1f}x")


if __name__ == "__main__":
    main()
