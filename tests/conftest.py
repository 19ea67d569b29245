"""What every test relies on: nothing reaches the network, and global state is left as it was found."""

import os
import random

import numpy as np
import pytest
import torch

# Before any library reads them; subprocesses of the pipeline tests inherit them.
os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="offline", WANDB_SILENT="true", HF_DATASETS_OFFLINE="1")


@pytest.fixture(autouse=True)
def global_state_is_left_alone():
    """Fail a test that changes the default dtype or working folder for the tests after it; put random states back."""
    before = (torch.get_default_dtype(), os.getcwd())
    random_before = (random.getstate(), np.random.get_state())
    yield
    assert (torch.get_default_dtype(), os.getcwd()) == before
    random.setstate(random_before[0])
    np.random.set_state(random_before[1])
