"""One step of a variational family: Kingma and Welling 2014 (arXiv:1312.6114), algorithm 1, with one draw of z an image."""

from functools import partial

from models.config import TrainingConfig
from models.elbo import negative_elbo
from worker.data.prepared import Data
from worker.engine import Engine
from worker.trainer.feed import Feed
from worker.trainer.parallel import Ranks
from worker.trainer.parts import Parts
from worker.trainer.settings import Settings
from worker.trainer.state import State


class Variational:
    """Both networks climb the same bound: D encodes, and G decodes."""

    def __init__(self, config: TrainingConfig, data: Data, engine: Engine, ranks: Ranks, parts: Parts) -> None:
        self._engine = engine
        self._ranks = ranks
        self._parts = parts
        self._feed = Feed(config, data, engine, ranks, None)
        self._batch = config.batch_size // ranks.world
        self._beta = config.network.model_dump()["beta"]

    def step(self, state: State, now: Settings) -> None:
        self._parts.attempt(state.G, partial(self._step, state, now))

    def _step(self, state: State, now: Settings, at_a_time: int) -> None:
        decoder, encoder = state.G, state.D
        encoder.zero_grad(set_to_none=True)  # of a try for which memory did not last
        for batch in self._feed.parts(state.examples_seen, at_a_time):
            share = len(batch) / self._batch
            with self._engine.autocast():
                mean, log_variance = encoder(batch.real, batch.labels)
                mean, log_variance = mean.float(), log_variance.float()
                z = mean + (log_variance / 2).exp() * self._feed.encoding(batch)
                images = decoder(z, batch.labels)
            loss, reconstruction, kl = negative_elbo(batch.real, images.float(), mean, log_variance, self._beta)
            (loss * share).backward()  # type: ignore[no-untyped-call]
            state.statistics.add(share, loss_g=loss, reconstruction=reconstruction, kl=kl)
        for network, optimizer, lr in (
            (encoder, state.optimizer_d, now.discriminator_lr),
            (decoder, state.optimizer_g, now.generator_lr),
        ):
            self._ranks.average_gradients(network)
            optimizer.step(lr=lr, beta2=now.beta2)
