"""Randomness as a function of where the training stands, so that there is no state to lose.

A stream of random numbers that is carried along must be saved, restored and split over processes;
one that is drawn afresh from (seed, step) is the same after a resume, by construction.
"""

import numpy as np
import torch


def generator(seed: int, *place: int) -> np.random.Generator:
    """NumPy's generator for one place, e.g. a step or an epoch."""
    return np.random.default_rng([seed, *place])


def seed_torch(seed: int, *place: int) -> None:
    """Seed torch's own generators (dropout, initial weights) for one place."""
    torch.manual_seed(int(np.random.SeedSequence([seed, *place]).generate_state(1)[0]))
