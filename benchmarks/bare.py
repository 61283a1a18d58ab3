"""The cost of the same gradients alone: a plain torch training loop in as many processes, without exchange."""

from __future__ import annotations

import multiprocessing
import time
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from typing import Any


def _train(hidden: list[int], steps: int, barrier: Barrier, seconds: Any) -> None:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    widths = [64, *hidden, 10]
    layers: list[torch.nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data, labels = torch.rand(1437, 64), torch.randint(0, 10, (1437,))
    barrier.wait()
    started_s = time.perf_counter()
    for step in range(steps):
        batch = torch.arange(step * 32, step * 32 + 32) % 1437
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(data[batch]), labels[batch]).backward()
        optimizer.step()
    seconds.value = time.perf_counter() - started_s


def torch_loop_steps_per_s(peers: int, hidden: list[int], steps: int) -> float:
    """Return the steps per second of all `peers` processes together; each trains alone for `steps` steps of batch 32."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(peers)
    seconds = [context.Value("d", 0.0) for _ in range(peers)]
    processes = [context.Process(target=_train, args=(hidden, steps, barrier, each)) for each in seconds]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return peers * steps / max(each.value for each in seconds)
