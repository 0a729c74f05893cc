"""A fixture for tests of networks: torch on one thread, in this process and in those it starts.

Sums come out to the last bit only on as many threads, and small networks are slow on many while other things run.
"""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)
