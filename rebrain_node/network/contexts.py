"""Presentation contexts the node accepts (PS3.8 9.3.2); docs/receiving.md lists them.

CT is what the node is for. Everything else a PACS sends along with a study is accepted, so that
the sender's job ends well, and kept like any instance; the selection then refuses its series.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.presentation import PresentationContext, build_context

from rebrain_node.instance.scan import CT_CLASSES

#: C-ECHO (PS3.4 annex A)
VERIFICATION = UID("1.2.840.10008.1.1")

#: SOP classes whose instances may become a synthetic series
PROCESSED: tuple[UID, ...] = tuple(sorted(CT_CLASSES))

#: storage SOP classes that are kept and not processed: all others that pynetdicom knows
KEPT: tuple[UID, ...] = tuple(
    sorted(
        UID(str(context.abstract_syntax))
        for context in AllStoragePresentationContexts
        if context.abstract_syntax not in CT_CLASSES
    )
)


def accepted_contexts(transfer_syntaxes: Sequence[str]) -> list[PresentationContext]:
    """Return what an association may agree on, given the transfer syntaxes that decode here.

    Verification needs no more than the default transfer syntax, but takes any native one.
    """
    native = [uid for uid in transfer_syntaxes if not UID(uid).is_compressed]
    return [
        build_context(VERIFICATION, native),
        *(build_context(uid, list(transfer_syntaxes)) for uid in (*PROCESSED, *KEPT)),
    ]
