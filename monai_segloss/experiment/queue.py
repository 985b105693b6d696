"""The runs of a comparison, several at a time: on this machine, or as tasks of a Ray cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from monai_segloss.demo.problem import DemoError
from monai_segloss.experiment.running import Task, execute

LOOK = 1.0  # seconds between two looks at the runs
Show = Callable[[set[str]], None]


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster and what a run takes of it.

    Args:
        address: of the head node, or "auto" for the cluster of this machine.
        cores: of a run.
        gpus: of a run; half a GPU is 0.5.
        retries: how often a run whose node was lost goes on elsewhere.
    """

    address: str
    cores: int = 1
    gpus: float = 0.0
    retries: int = 3


def here(tasks: Sequence[Task], jobs: int, show: Show) -> None:
    """Run all tasks on this machine.

    Args:
        tasks: what is to be done.
        jobs: how many at a time.
        show: called again and again with the keys of the runs at work.

    Raises:
        DemoError: none of the others would get further; those at work have been ended.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(execute, task, stop): task for task in tasks}
        waiting: set[Future[str]] = set(futures)
        try:
            while waiting:
                done, waiting = wait(waiting, LOOK, FIRST_COMPLETED)
                for each in done:
                    each.result()
                show({futures[each].key for each in waiting if each.running()})
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def on_ray(tasks: Sequence[Task], cluster: Cluster, show: Show) -> None:
    """Run all tasks on a cluster whose nodes share the folder of the comparison.

    A task whose node was lost is started on another one, where it goes on from its last checkpoint.

    Raises:
        DemoError: there is no Ray or no cluster, or none of the others would get further.
    """
    if find_spec("ray") is None:
        raise DemoError("--cluster needs Ray: pip install 'monai-segloss[compare,cluster]'")
    import ray

    try:
        ray.init(address=cluster.address, log_to_driver=False)
    except ConnectionError as error:
        raise DemoError(
            f"--cluster {cluster.address}: no Ray cluster was found ({str(error).splitlines()[0]}); "
            "ray start --head starts one"
        ) from None
    options = {"num_cpus": cluster.cores, "num_gpus": cluster.gpus, "max_retries": cluster.retries}
    remote: Any = ray.remote(execute).options(**options)
    waiting = [remote.remote(task) for task in tasks]
    try:
        while waiting:
            done, waiting = ray.wait(waiting, timeout=LOOK)
            ray.get(done)
            show({task.key for task in tasks})
    except ray.exceptions.RayTaskError as error:
        raise DemoError(str(error.cause)) from None
    finally:
        for each in waiting:
            ray.cancel(each)
        ray.shutdown()
