"""One round of the game: Goodfellow et al. 2014 (arXiv:1406.2661), algorithm 1, with one step of each network on the same fakes."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor

from models import catalog, penalties
from models.augment import make_augmentation
from models.augment.control import next_probability
from models.config import TrainingConfig
from models.randomness import Purpose
from worker.data.prepared import Data
from worker.engine import Engine
from worker.trainer.feed import Batch, Feed
from worker.trainer.parallel import Ranks
from worker.trainer.parts import Parts
from worker.trainer.settings import Settings
from worker.trainer.state import State

Precision = Callable[[], AbstractContextManager[None]]
Judge = Callable[[Tensor], Tensor]  # images to logits [n], as they are seen by the discriminator


class Adversarial:
    """The steps of G against D. Nothing in them waits for the device."""

    def __init__(self, config: TrainingConfig, data: Data, engine: Engine, ranks: Ranks, parts: Parts) -> None:
        self._config = config
        self._engine = engine
        self._ranks = ranks
        self._parts = parts
        self._loss = catalog.losses(config.loss)
        self._augmentation = make_augmentation(config.augment)
        self._feed = Feed(config, data, engine, ranks, self._augmentation)
        # A difference of two logits that are almost equal is lost in bf16.
        self._precision = engine.autocast if config.penalties.method == "exact" else nullcontext
        self._adaptive = config.augment.kind == "ada" and config.augment.probability is None
        self._batch = config.batch_size // ranks.world

    def step(self, state: State, now: Settings) -> None:
        """One step of D, then one of G against it as it now is."""
        if now.probability is not None:
            state.probability.fill_(now.probability)
        fakes = self._parts.attempt(state.D, partial(self._step_d, state, now))
        self._parts.attempt(state.G, partial(self._step_g, state, now, fakes))

    def _step_d(self, state: State, now: Settings, at_a_time: int) -> list[Tensor]:
        """Returns the fakes, with the graph that G's step needs, where the batch was not taken apart; else nothing."""
        G, D = state.G, state.D
        D.requires_grad_(True)
        state.signs.zero_()
        for batch in self._feed.parts(state.examples_seen, at_a_time):
            share = len(batch) / self._batch
            with self._engine.autocast(), torch.set_grad_enabled(len(batch) == self._batch):
                fake = G(batch.z, batch.labels)
            judge_real, judge_fake = self._judges(state, batch, self._engine.autocast)
            # Real and fake pass apart, so that batch normalisation does not mix them.
            with self._engine.autocast():
                real_logits, fake_logits = judge_real(batch.real), judge_fake(fake.detach())
            loss_d = self._loss.discriminator_loss(real_logits, fake_logits)
            (loss_d * share).backward()
            self._penalise(state, now, batch, fake.detach(), share)
            level = fake_logits if self._loss.LEVEL is None else self._loss.LEVEL
            signs = (real_logits - level).detach().sign().mean()
            state.statistics.add(
                share, loss_d=loss_d, logits_real=real_logits.mean(), logits_fake=fake_logits.mean(), sign=signs
            )
            if self._adaptive:
                state.signs += signs * share
        self._ranks.average_gradients(D)
        state.optimizer_d.step(lr=now.discriminator_lr, beta2=now.beta2)
        self._adapt(state)
        return [fake] if at_a_time >= self._batch else []

    def _step_g(self, state: State, now: Settings, fakes: list[Tensor], at_a_time: int) -> None:
        G, D = state.G, state.D
        D.requires_grad_(False)
        for batch in self._feed.parts(state.examples_seen, at_a_time):
            share = len(batch) / self._batch
            with self._engine.autocast():
                # Popped, so that they are gone should memory run out.
                fake = fakes.pop() if fakes else G(batch.z, batch.labels)
            judge_real, judge_fake = self._judges(state, batch, self._engine.autocast)
            real_logits = None
            with self._engine.autocast():
                if self._loss.PAIRED:
                    real_logits = judge_real(batch.real)
                fake_logits = judge_fake(fake)
            loss_g = self._loss.generator_loss(real_logits, fake_logits)
            (loss_g * share).backward()
            state.statistics.add(share, loss_g=loss_g)
        self._ranks.average_gradients(G)
        state.optimizer_g.step(lr=now.generator_lr, beta2=now.beta2)

    def _judges(self, state: State, batch: Batch, precision: Precision) -> tuple[Judge, Judge]:
        """D as it sees real and generated images: augmented, and told their classes."""
        augmentation, p = self._augmentation, state.probability

        def judge(images: Tensor, numbers: Tensor | None) -> Tensor:
            if augmentation is not None:
                assert numbers is not None
                images = augmentation(images.float(), numbers, p)
            with precision():
                logits: Tensor = state.D(images, batch.rows)
            return logits.float()

        return partial(judge, numbers=batch.augment_real), partial(judge, numbers=batch.augment_fake)

    def _penalise(self, state: State, now: Settings, batch: Batch, fake: Tensor, share: float) -> None:
        """Add the gradients of the penalties, when their turn has come; lazily, with so many times the weight."""
        every = self._config.penalties.every
        if state.examples_seen // self._config.batch_size % every:
            return
        judge_real, judge_fake = self._judges(state, batch, self._precision)
        terms: dict[str, tuple[float, Callable[[], Tensor]]] = {
            "r1": (now.r1_gamma / 2, lambda: self._norm2(judge_real, batch.real, batch, Purpose.PENALTY)),
            "r2": (now.r2_gamma / 2, lambda: self._norm2(judge_fake, fake, batch, Purpose.PENALTY_FAKE)),
            "gradient_penalty": (
                now.gp_weight,
                lambda: penalties.gradient_penalty(judge_fake, batch.real, fake.float(), self._feed.mix(batch)),
            ),
        }
        for name, (weight, term) in terms.items():
            if weight:
                value = term()
                (value * (weight * every * share)).backward()  # type: ignore[no-untyped-call]
                state.statistics.add(share, **{name: value})

    def _norm2(self, judge: Judge, images: Tensor, batch: Batch, purpose: Purpose) -> Tensor:
        if self._config.penalties.method == "exact":
            return penalties.gradient_norm2(judge, images.float())
        noise = self._feed.noise(batch, images[0].numel(), purpose).view(images.shape)
        return penalties.gradient_norm2_estimate(judge, images.float(), noise)

    def _adapt(self, state: State) -> None:
        """Let ada's probability follow what D can tell."""
        if not self._adaptive:
            return
        signs = self._ranks.sum(state.signs) / self._ranks.world
        state.probability.copy_(
            next_probability(state.probability, signs, self._config.batch_size, self._config.augment)
        )
        state.statistics.add(1.0, augment_probability=state.probability)
