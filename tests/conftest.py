"""What every test relies on: nothing reaches the network, and global state is left as it was found."""

import os
import random

# Before any library reads them; processes that the pipeline tests start inherit them. One thread for linear algebra,
# because results of tests and of these processes are compared bit by bit, and pytest workers share the processor.
os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="offline", WANDB_SILENT="true", HF_DATASETS_OFFLINE="1")
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from tests import shapes  # noqa: E402
from tests.postgresql import postgresql, postgresql_schema, postgresql_server  # noqa: E402, F401

# Before any test imports our packages.
shapes.install()


@pytest.fixture(autouse=True)
def global_state_is_left_alone():
    """Fail a test that changes the default dtype or working folder for the tests after it; put random states back."""
    before = (torch.get_default_dtype(), os.getcwd())
    random_before = (random.getstate(), np.random.get_state())
    yield
    assert (torch.get_default_dtype(), os.getcwd()) == before
    random.setstate(random_before[0])
    np.random.set_state(random_before[1])
