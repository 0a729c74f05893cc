"""Tasks on a Dask cluster, whose machines see the bags and the data set under the same paths.

A worker that is lost has its tasks run again elsewhere: they go on from what is noted, and a note is held by one
process at a time (on a file system that knows locks).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import cv2

from dfd_ros.blas import keep_blas_to_one_thread
from dfd_ros.datasets.files import StorageError
from dfd_ros.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")
AHEAD = 2
"""Tasks handed out per thread of the cluster."""
TIMEOUT = 10.0
"""Seconds in which the scheduler must answer."""


def run_on_cluster(
    function: Callable[[Task], Result], tasks: Iterable[Task], scheduler: str
) -> Iterator[tuple[Task, Result | InputError]]:
    """As `pool.run_tasks`, on the cluster of the scheduler at an address such as tcp://10.0.0.1:8786.

    Raises:
        StorageError: The disk is full or broken; what is not begun is not.
        InputError: Dask is not installed, the scheduler does not answer, it has no worker, or workers were lost.
    """
    try:
        from distributed import Client, as_completed
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise InputError("scheduler: expected Dask, it is not installed: pip install 'dfd_ros[fleet]'") from error
    try:
        client = Client(scheduler, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"scheduler {scheduler}: expected a Dask scheduler, it does not answer ({error})") from error
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise InputError(f"scheduler {scheduler}: expected workers, it has none")
        remaining = iter(tasks)
        waiting: dict[Any, Task] = {}
        done = as_completed(loop=client.loop)
        submit = partial(client.submit, partial(_on_one_core, function), pure=False)
        while True:
            for task in islice(remaining, AHEAD * threads - len(waiting)):
                future = submit(task)
                waiting[future] = task
                done.add(future)
            if not waiting:
                return
            future = next(done)
            try:
                result: Result | InputError = future.result()
            except StorageError:
                client.cancel(list(waiting))
                raise
            except InputError as error:
                result = error
            except KilledWorker as error:
                raise InputError(f"scheduler {scheduler}: several workers were lost with one task ({error})") from error
            yield waiting.pop(future), result


def _on_one_core(function: Callable[[Task], Result], task: Task) -> Result:
    cv2.setNumThreads(1)
    keep_blas_to_one_thread()
    return function(task)
