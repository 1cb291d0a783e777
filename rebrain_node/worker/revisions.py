"""Has the results of an earlier revision rejected once a later one is published."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from rebrain_node.domain.delivery import ACCEPTED_STATES
from rebrain_node.errors import AlteredBytesError, StateError
from rebrain_node.steps.write.rejection import RejectionReason, write_rejection
from rebrain_node.store.outbox import Outbox
from rebrain_node.store.recall import Recall

_LOG = structlog.get_logger("revisions")


@dataclass(frozen=True, kw_only=True)
class RevisionRule:
    """Rejects what a later revision has replaced; asking twice has no effect."""

    recall: Recall
    outbox: Outbox
    reason: RejectionReason

    def reject(self) -> int:
        """Put a rejection note into the outbox for every replaced set; the number of notes.

        A set whose bytes are gone or altered is left to an operator, with a line in the log.

        Raises
        ------
        StoreUnavailableError
            The database or the disk cannot take it now.
        """
        count = 0
        for each in self.recall.replaced():
            held = [one for one in each.objects if ACCEPTED_STATES & set(one.destinations.values())]
            words = f"replaced by a later revision than {each.revision}"
            try:
                kept = self.outbox.kept_of(each.set_id)
                note = write_rejection(held, kept, self.reason, words, datetime.now(UTC))
                count += self.outbox.add_note(each.set_id, note, words, "rebrain-node") > 0
            except (StateError, AlteredBytesError) as error:
                _LOG.warning("earlier revision not rejected", set=each.set_id, reason=str(error))
        return count
