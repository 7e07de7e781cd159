"""Settings of the test process; they must stand before torch, Keras and matplotlib are imported."""

import os

os.environ["KERAS_BACKEND"] = "torch"
os.environ["MPLBACKEND"] = "Agg"

import torch
from hypothesis import settings
from typechecker import check_types_of

check_types_of("xception")
torch.set_num_threads(1)  # tests run side by side
settings.register_profile("seeded", derandomize=True, deadline=None, database=None)
settings.load_profile("seeded")
