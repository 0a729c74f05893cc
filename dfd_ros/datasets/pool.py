"""Tasks side by side: in processes on this machine, or on a cluster (`fleet`)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from multiprocessing.process import BaseProcess as ParentProcess
from typing import TypeVar

import cv2

from dfd_ros.blas import keep_blas_to_one_thread
from dfd_ros.datasets.files import StorageError
from dfd_ros.datasets.fleet import run_on_cluster
from dfd_ros.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")
AHEAD = 2
"""Tasks handed out per worker: a fleet's worth of them is never in memory at once."""


def run_tasks(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int, scheduler: str = ""
) -> Iterator[tuple[Task, Result | InputError]]:
    """Each task with its result, or with the InputError that it ended with, in the order in which they are done.

    Args:
        function: A module's function, for processes to find it.
        tasks: Taken as workers become free.
        workers: Processes; 1 works in this one.
        scheduler: Address of a Dask scheduler, whose cluster is used in place of processes; empty for none.

    Raises:
        StorageError: The disk is full or broken; what was begun is brought to an end, and no more is.
        InputError: A worker was killed, or there is no such cluster.
    """
    if scheduler:
        yield from run_on_cluster(function, tasks, scheduler)
        return
    if workers <= 1:
        for task in tasks:
            yield task, _outcome(partial(function, task))
        return
    remaining = iter(tasks)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_be_a_worker) as pool:
        running: dict[Future[Result], Task] = {}
        try:
            while True:
                for task in islice(remaining, AHEAD * workers - len(running)):
                    running[pool.submit(function, task)] = task
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), _outcome(future.result)
        except BrokenProcessPool as error:
            raise InputError(
                "workers: one was killed (for want of memory?); the same command again goes on from there"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _outcome(work: Callable[[], Result]) -> Result | InputError:
    try:
        return work()
    except StorageError:
        raise
    except InputError as error:
        return error


def _be_a_worker() -> None:
    """One core a worker; Ctrl-C ends it without more words, and so does the end of a parent that was killed."""
    cv2.setNumThreads(1)
    keep_blas_to_one_thread()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: ParentProcess) -> None:
    parent.join()
    os._exit(1)
