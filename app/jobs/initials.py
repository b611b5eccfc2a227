"""The model that a job begins with: which one, whether its weights fit, and how it is kept while the job needs it.

A job holds what it begins with until it has ended: until then neither that version nor the job of that checkpoint can be deleted.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import registry
from app.errors import FieldError, Gone, InUse, Invalid, NotFound
from app.registry import Resolved
from app.tables import Checkpoint, Document, Job
from models.config import DataSpec, NetworkOptions

# Of a network's options, what may differ from those of the model: the classes and how they are used.
MAY_DIFFER = {"conditional", "class_dropout", "components"}
SHAPE = ("height", "width", "channels")


@dataclass(frozen=True)
class Initial:
    """The snapshot that a job begins with, under its lasting name, and the options of its network as far as they are known.

    `classes` is how many it can be asked for, 0 when it takes none, and `components` how many it has of each.
    """

    model: Resolved
    network: Document
    classes: int
    components: int

    def document(self) -> Document:
        """As a job's row keeps it."""
        return {"ref": self.model.label, "snapshot_key": self.model.snapshot_key, "sha256": self.model.sha256}


def find(session: Session, ref: str) -> Initial:
    """What a reference to a model means now. Raises NotFound, Gone and InvalidState (a job without a snapshot yet)."""
    model = registry.resolve(session, ref)
    info = model.info
    network = info.get("network") or {
        name: info[name] for name in ("family", "z_dim")
    }  # which older versions say of it
    classes = len(info["classes"]) if info["conditional"] else 0
    options = {name: value for name, value in network.items() if name not in MAY_DIFFER}
    return Initial(model, options, classes, network.get("components", 1))


def with_options(initial: Initial | None, overrides: dict[str, Any], data: DataSpec) -> dict[str, Any]:
    """The overrides over the options of the model's network, for a network of the same family.

    As many components as the model has where there are as many classes: others would be other tensors, which begin anew.
    """
    network = overrides.get("network", {})
    if initial is None or not isinstance(network, dict):
        return overrides
    if network.get("family", initial.network["family"]) != initial.network["family"]:
        return overrides
    classes = len(data.classes) if network.get("conditional", len(data.classes) > 1) is True else 0
    alike = {"components": initial.components} if classes == initial.classes else {}
    return overrides | {"network": initial.network | alike | network}


def check(initial: Initial, network: NetworkOptions, data: DataSpec) -> None:
    """Raises Invalid, and says what differs, when the weights of the model do not fit such networks."""
    info, options = initial.model.info, network.model_dump(mode="json")
    differing = [
        f"its {name} is {value} and the job's {options.get(name)}"
        for name, value in initial.network.items()
        if options.get(name) != value
    ]
    before, now = (_size(*(source[name] for name in SHAPE)) for source in (info, data.model_dump()))
    if before != now:
        differing.append(f"it makes {before} and the data set has {now}")
    if differing:
        detail = f"{initial.model.label} does not fit: {', '.join(differing)}"
        raise Invalid(f"The job cannot begin with this model: {detail}.", errors=[FieldError("#/initial", detail)])


def hold(session: Session, initial: Initial | None) -> None:
    """Keep it from being deleted until this transaction has committed the job that needs it. Raises NotFound and Gone."""
    if initial is not None:
        registry.hold(session, initial.model.label)


def check_kept(session: Session, job: Job) -> None:
    """Raises Gone when what the job would begin with was deleted since it ended."""
    if job.initial is None:
        return
    try:
        registry.hold(session, job.initial["ref"])
    except (NotFound, Gone) as error:
        raise Gone(f"The model that job {job.id} begins with, {job.initial['ref']}, was deleted.") from error


def check_unneeded(session: Session, job_id: str) -> None:
    """Raises InUse while another unfinished job begins with a checkpoint of this one, or a batch is made from one."""
    own = session.scalars(select(Checkpoint.id).where(Checkpoint.job_id == job_id)).all()
    if needing := [other for other in registry.beginning_with(session, own) if other != job_id]:
        raise InUse(
            f"{', '.join(needing)} begins with a checkpoint of job {job_id}: cancel what needs it, or wait until it ends."
        )
    registry.check_no_batch(session, own)


def _size(height: int, width: int, channels: int) -> str:
    return f"{height} x {width} x {channels}"
