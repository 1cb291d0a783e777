"""What the path needs from outside, as roles; the adapters are named in `app` only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from rebrain_node.domain.audit import Checkpoint, Event
    from rebrain_node.domain.completeness import SourceAnswer
    from rebrain_node.domain.delivery import Answer, CommitmentReport, HeldObject
    from rebrain_node.domain.job import DerivedInstance, Job
    from rebrain_node.domain.notice import Notice
    from rebrain_node.domain.notification import AvailabilityReport
    from rebrain_node.domain.volume import FloatArray
    from rebrain_node.domain.workitem import ScheduledWorkitem, StudyOutcome, Workitem

JsonValue = str | int | float | bool | None | Sequence["JsonValue"] | Mapping[str, "JsonValue"]


class Engine(Protocol):
    """One evaluation of the network; the sampling of the bridge is not part of an engine."""

    @property
    def identity(self) -> str:
        """Name, version and precision, e.g. ``openvino 2026.4.1 bf16``."""

    @property
    def batch(self) -> int:
        """Most slices of one evaluation, n; 1 where more at once gain nothing."""

    def evaluate(self, x: FloatArray, s: FloatArray, guide: FloatArray | None = None) -> FloatArray:
        """Evaluate f: x (n, channels, rows, columns), s (n, scalars) to (n, 1, rows, columns).

        x is in [-1, 1], channels as in `model.recipe.CHANNELS`; s as in `model.recipe.SCALARS`.
        ``guide`` (n, 1, rows, columns), brain window in [-1, 1], is a retrieved or interpolated CT
        slice; without one the network is not guided. The last evaluation of a series may be of
        fewer slices.
        """


class Inbox(Protocol):
    """The received instances of a series, bytes as received."""

    def read(self, job: Job) -> tuple[Dataset, ...]: ...

    def input_digest(self, job: Job) -> str: ...


class AuditLog(Protocol):
    """Append-only record of every decision; a failure to write stops the caller."""

    def record(self, event: Event, subject: str, details: Mapping[str, JsonValue]) -> None: ...

    def head(self) -> tuple[int, str] | None:
        """Sequence and hash of the newest row; None where the record is no hash chain."""

    def checkpoint(self) -> Checkpoint | None:
        """Sign the newest row; None where nothing signs the record, or it has no row."""


@dataclass(frozen=True, kw_only=True)
class Exemplar:
    """One retrieved slice of another subject."""

    key: str  #: key of the slice: keyed hash of its subject and of its pixels, opaque
    similarity: float  #: cosine, [-1, 1]
    position_mm: float  #: head frame
    hu: FloatArray  #: (rows / 2, columns / 2) of the recipe's grid, clipped to the brain window


class Encoder(Protocol):
    """Embeds a CT slice; the similarity of two slices is the cosine of their embeddings."""

    @property
    def identity(self) -> str:
        """Name, version and precision, e.g. ``openvino 2026.4.1 bf16``."""

    def embed(self, image: FloatArray) -> FloatArray:
        """Embed (1, 1, rows / 2, columns / 2), brain window in [-1, 1], to (d,) of length 1."""


class ResidualScale(Protocol):
    """One evaluation of the residual-scale head."""

    @property
    def identity(self) -> str:
        """Name, version and precision, e.g. ``openvino 2026.4.1 fp32``."""

    def estimate(self, x: FloatArray, s: FloatArray) -> FloatArray:
        """Estimate b: x (1, 5, rows, columns), s (1, 2) to (1, 1, rows, columns), intensity [0, 1].

        ``x`` is as the network's with the synthetic slice instead of the state; ``s`` contains the
        distance to the nearest measured slice (mm) and the similarity of the exemplar, 0 without
        one.
        """


class Exemplars(Protocol):
    """The knowledge base of a bundle."""

    @property
    def tau(self) -> float:
        """Minimum similarity of an exemplar, [-1, 1]."""

    @property
    def digest(self) -> str:
        """SHA-256 of its index, which contains the SHA-256 of every other file."""

    def nearest(
        self,
        embedding: FloatArray,
        position_mm: float,
        window_mm: float,
        excluded: str | None = None,
    ) -> Exemplar | None:
        """Find the most similar slice within ``window_mm`` of a position in the head frame.

        ``embedding`` is (d,), of length 1; slices of the subject ``excluded`` (keyed hash) are left
        out. None where there is no such slice or the query is not finite.
        """


class Destination(Protocol):
    """A remote that takes instances, e.g. a PACS."""

    @property
    def name(self) -> str: ...

    def send(self, instances: Sequence[DerivedInstance]) -> tuple[Answer, ...]:
        """Send in order; the answers, of which the last may be missing.

        Raises
        ------
        DeliveryError
            The destination cannot be reached: nothing was sent.
        """

    def identity_conflict(self, instance: DerivedInstance) -> str | None:
        """Say in what the study there is another patient's than the instance; None: it is not.

        Raises
        ------
        QueryNotOfferedError
            The destination cannot be asked.
        DeliveryError
            The destination cannot be reached.
        """

    def held(
        self, instances: Sequence[DerivedInstance], read_back: Sequence[str]
    ) -> tuple[HeldObject, ...]:
        """Say which instances it holds, and of those in ``read_back`` whether unchanged.

        Raises
        ------
        QueryNotOfferedError
            The destination cannot be asked.
        DeliveryError
            The destination cannot be reached.
        """

    def request_commitment(
        self,
        instances: Sequence[DerivedInstance],
        transaction_uid: str,
        record: Callable[[CommitmentReport], bool],
    ) -> None:
        """Ask it to promise that it keeps some objects; an early answer goes to ``record``.

        Raises
        ------
        QueryNotOfferedError
            The destination offers no storage commitment.
        DeliveryError
            The destination cannot be reached, or refuses the request.
        """


class NotificationReceiver(Protocol):
    """A remote that is told which sets a destination holds."""

    @property
    def name(self) -> str: ...

    def notify(self, report: AvailabilityReport) -> int:
        """Send one notification and return the status of the answer.

        Raises
        ------
        DeliveryError
            It cannot be reached, or gave no answer.
        """


class AuditCollector(Protocol):
    """A remote that collects audit messages."""

    @property
    def name(self) -> str: ...

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages in order; they are taken when it returns.

        Raises
        ------
        DeliveryError
            It cannot be reached, or did not say that it has read all of them.
        """


class NoticeChannel(Protocol):
    """A way to tell people what needs them, e.g. a webhook."""

    @property
    def name(self) -> str: ...

    def send(self, notice: Notice) -> int:
        """Send one notice; the number of recipients who do not get it although others do.

        Raises
        ------
        DeliveryError
            It was not taken.
        """


class WorkitemManager(Protocol):
    """A remote that holds workitems for this node; each method raises DeliveryError.

    A status is that of HTTP; `domain.workitem.workitem_outcome` says what it means.
    """

    @property
    def name(self) -> str: ...

    def scheduled(self) -> tuple[ScheduledWorkitem, ...]:
        """Workitems that wait for a performer such as this node."""

    def retrieve(self, workitem: Workitem) -> tuple[int, Dataset]:
        """Status, and the workitem as the manager holds it."""

    def claim(self, workitem: Workitem) -> int:
        """Ask that this node performs a workitem; status."""

    def update(self, workitem: Workitem, end: StudyOutcome, scheduled: Dataset) -> int:
        """Write what became of the study into a workitem; status."""

    def finish(self, workitem: Workitem, end: StudyOutcome) -> int:
        """Complete or cancel a workitem; status."""


class Source(Protocol):
    """A remote that holds what a sender sends, e.g. a PACS."""

    def ask(self, study: str, held: Mapping[str, int]) -> Mapping[str, SourceAnswer]:
        """Ask how many instances some series of a study have.

        Parameters
        ----------
        study : str
            Study Instance UID.
        held : mapping of str to int
            Number of instances that arrived, by Series Instance UID. Where the source says the
            same number, or none, it is asked to list them.

        Returns
        -------
        mapping of str to SourceAnswer
            One for each series of ``held``.

        Raises
        ------
        DeliveryError
            The source cannot be reached, cannot be asked, or gives no answer that can be used.
        """
