"""The training loop: a straight line from step to step, which can be left and entered anywhere."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from xception.data.loader import LoaderError
from xception.errors import Diverged, UserError
from xception.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from xception.training.config import TrainConfig
from xception.training.distributed import (
    World,
    gather,
    largest,
    mean_over,
    place,
    synchronize_batch_norms,
)
from xception.training.feeds import Feed
from xception.training.history import to_csv
from xception.training.interrupts import Interrupted, StopRequest
from xception.training.objectives import Objective
from xception.training.optim import build_average, build_optimizer, set_learning_rate
from xception.training.position import Position, Tally
from xception.training.precision import autocast
from xception.training.progress import Progress, Step
from xception.training.randomness import seed_torch
from xception.training.schedules import factor
from xception.training.tower import with_tower
from xception.weights.atomic import write_whole

_SAVE = 1000  # not a signal's number: only save
_CHECK_EVERY = 20  # steps between looks at a loss that lives on an accelerator


class Trainer:
    """Trains `module` on a feed; saves the best and the last; goes on where a checkpoint stands.

    Args:
        module: what is trained: a network, or the head of a frozen one.
        feed: its inputs and targets; judges the module after an epoch.
        objective: what is minimised; its tensors are on the device of `world`.
        keep_best: stores a module that validated best so far.
        folder: where `last.ckpt` and `metrics.csv` go.
        fingerprint: of all that a resumed training must have in common with this one.
    """

    def __init__(
        self,
        module: nn.Module,
        feed: Feed,
        objective: Objective,
        config: TrainConfig,
        world: World,
        *,
        keep_best: Callable[[nn.Module, dict[str, float]], None],
        folder: Path,
        fingerprint: str,
        progress: Progress,
    ):
        self.config, self.world, self.feed, self.progress = config, world, feed, progress
        self.keep_best = keep_best
        self.folder, self.fingerprint = folder, fingerprint
        device = world.device
        module = synchronize_batch_norms(module, world)
        self.module = place(module, device)
        self.optimizer = build_optimizer(self.module, config.optimizer)
        self.average = (
            build_average(self.module, config.average_decay) if config.average_decay else None
        )
        asked, self.objective = with_tower(self.module, objective)
        self.parallel = DistributedDataParallel(asked) if world.size > 1 else asked
        self.autocast = autocast(config.precision, device)
        self.at = Position()
        self.costs = [side * side for side in config.sizes]  # of the epochs, in proportion
        self._sums = torch.zeros(3, device=device)  # loss, right, answers since the last look
        self._pending = 0

    @property
    def checkpoint(self) -> Path:
        """The file to resume from."""
        return self.folder / "last.ckpt"

    @property
    def final(self) -> nn.Module:
        """The module whose answers count: the average where there is one."""
        return self.average.module if self.average is not None else self.module

    def run(self, stop: StopRequest) -> None:
        """Train to the last epoch.

        Raises:
            Interrupted: a signal arrived; everything is saved.
            Diverged: the loss is no longer a number.
            UserError: a file cannot be written.
        """
        config, per_epoch = self.config, self.feed.steps_per_epoch
        steps = config.epochs * per_epoch
        self._to_training()
        saved = time.monotonic()
        batches = iter(self.feed.training(self.at.step, steps))
        while self.at.step < steps:
            started = time.monotonic()
            try:
                inputs, targets = next(batches)
            except LoaderError:
                if stop.signum is None:
                    raise
                self.save()  # the signal went to the whole group and took the loader with it
                raise Interrupted(stop.signum) from None
            self._step(inputs, targets)
            self.at.epoch_seconds += time.monotonic() - started
            self._report()
            if self.at.step % per_epoch == 0:
                self._finish_epoch()
                saved = time.monotonic()
            due = time.monotonic() - saved > 60 * config.checkpoint_minutes
            asked = largest(self.world, stop.signum or (_SAVE if due else 0))
            if asked:
                self.save()
                saved = time.monotonic()
            if asked not in (0, _SAVE):
                raise Interrupted(asked)

    def _step(self, inputs: Tensor, targets: Tensor) -> None:
        config, step = self.config, self.at.step
        seed_torch(config.seed, step)  # alike in all processes: see layers.Dropout
        epoch = (step + 0.5) / self.feed.steps_per_epoch  # at its middle: never 0 at either end
        samples = self.feed.steps_per_epoch * config.batch_size
        share = factor(config.schedule, epoch, epochs=config.epochs, samples_per_epoch=samples)
        set_learning_rate(self.optimizer, config.optimizer.learning_rate * share)
        counts = mean_over(self.world, self.objective.counts(targets))
        count = min(config.accumulate, len(inputs))  # of parts as equal as can be, none empty
        parts = list(zip(inputs.tensor_split(count), targets.tensor_split(count), strict=True))
        for number, (x, y) in enumerate(parts, start=1):
            with self._unshared() if number < len(parts) else nullcontext():
                logits = self._answers(x)
                loss = self.objective.loss(logits.float(), y, counts)
                loss.backward()
            with torch.no_grad():
                right, answers = self.objective.right(logits, y)
                self._sums += torch.stack([loss.detach() * len(inputs), right, answers])
        if config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.module)
        self._pending += len(inputs)
        self.at.step += 1
        if self.world.device.type == "cpu" or self.at.step % _CHECK_EVERY == 0:
            self._look()

    def _answers(self, x: Tensor) -> Tensor:
        try:
            with self.autocast:
                return self.parallel(x)
        except ValueError as error:  # of batch normalisation, in torch's words
            if "Expected more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                "one photo alone, whose maps shrink to one pixel, has no batch statistics: train "
                "with a larger batch_size, fewer parts in accumulate, or a larger preprocess.size"
            ) from None

    def _unshared(self) -> AbstractContextManager:
        """Gradients of all parts but the last stay with their process."""
        if isinstance(self.parallel, DistributedDataParallel):
            return self.parallel.no_sync()
        return nullcontext()

    def _to_training(self) -> None:
        """Training mode, but for normalisations that are to keep their statistics."""
        self.module.train()
        if self.config.batch_statistics == "frozen":
            for module in self.module.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _look(self) -> None:
        """Fetch the sums from the device and refuse a loss that is not a number."""
        loss, right, answers = self._sums.tolist()
        if not self._sums.isfinite().all():
            self._give_up("loss is")
        self.at.tally += Tally(loss, right, answers, self._pending)
        self._sums.zero_()
        self._pending = 0

    def _give_up(self, what: str) -> NoReturn:
        epoch = self.at.step / self.feed.steps_per_epoch
        saved = f"; {self.checkpoint} is from before" if self.checkpoint.exists() else ""
        raise Diverged(
            f"the {what} no longer a number after step {self.at.step} (epoch {epoch:.2f}): "
            f"try a lower learning rate than {self.config.optimizer.learning_rate:g}, "
            f"or --set clip_norm=1{saved}"
        )

    def _report(self) -> None:
        tally, per_epoch = self.at.tally, self.feed.steps_per_epoch
        if not tally.seen or not self.world.leads:
            return
        epoch, before = divmod(self.at.step - 1, per_epoch)
        done = before + 1  # steps of this epoch
        seconds = max(self.at.epoch_seconds, 1e-9)
        to_come = per_epoch * sum(self.costs[epoch + 1 :]) / self.costs[epoch]
        self.progress.step(
            self.at.step,
            Step(
                epoch=self.at.step / per_epoch,
                loss=tally.loss / tally.seen,
                accuracy=tally.accuracy,
                images_per_second=tally.seen * self.world.size / seconds,
                seconds_left=seconds / done * (per_epoch - done + to_come),
            ),
        )

    def _finish_epoch(self) -> None:
        """Validate, keep the best, write the history, save."""
        self._look()
        at, config = self.at, self.config
        tally = sum(gather(self.world, at.tally), Tally())
        started = time.monotonic()
        if not all(bool(p.isfinite().all()) for p in self.module.parameters()):
            self._give_up("weights are")
        epoch = at.step // self.feed.steps_per_epoch
        due = epoch % config.validate_every == 0 or epoch == config.epochs
        validation = self.feed.validation(self.final) if due else None
        at.seconds += at.epoch_seconds + time.monotonic() - started
        self._to_training()
        standing = (validation.score, -validation.loss) if validation else (float(epoch), 0.0)
        best = due and (at.best is None or standing > at.best)
        row = {
            "epoch": epoch,
            "step": at.step,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": tally.loss / tally.seen,
            "train_accuracy": tally.accuracy,
            **(validation.figures if validation else {}),
            "images_per_second": tally.seen / max(at.epoch_seconds, 1e-9),
            "seconds": at.seconds,
            "best": best,
        }
        at.history.append(row)
        at.tally, at.epoch_seconds = Tally(), 0.0
        if best:
            at.best = standing
            if self.world.leads:  # before the checkpoint: a replay from it writes it again
                self.keep_best(self.final, validation.figures if validation else {})
        if self.world.leads:
            write_whole(self.folder / "metrics.csv", lambda file: file.write(to_csv(at.history)))
            left = row["seconds"] / sum(self.costs[:epoch]) * sum(self.costs[epoch:])
            self.progress.epoch({**row, "epochs": config.epochs, "seconds_left": left})
        self.save()

    def save(self) -> None:
        """Write the checkpoint; every process takes part, the first one writes."""
        self._look()
        tally = sum(gather(self.world, self.at.tally), Tally())
        if not self.world.leads:
            return
        position = {**vars(self.at), "tally": vars(tally)}
        save_checkpoint(
            self.checkpoint,
            {
                "fingerprint": self.fingerprint,
                "position": position,
                "module": self.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.state_dict() if self.average is not None else None,
            },
        )

    def resume(self) -> None:
        """Go on where `last.ckpt` stands.

        Raises:
            CheckpointError: there is none, or it is damaged.
            UserError: it is of a run over other photos or with another configuration.
        """
        state = load_checkpoint(self.checkpoint)
        if state.get("fingerprint") != self.fingerprint:
            raise UserError(
                f"{self.checkpoint} was trained on other photos (or with another version): "
                "give the same PHOTOS, or start anew with another --out"
            )
        try:
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            tally = Tally(**state["position"].pop("tally"))
            self.at = Position(**state["position"], tally=tally if self.world.leads else Tally())
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CheckpointError(f"{self.checkpoint} is incomplete: {error}") from error
