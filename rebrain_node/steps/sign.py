"""Lists the objects of a set with their hashes and signs the list with the key of the node."""

from __future__ import annotations

from dataclasses import dataclass

from rebrain_node.domain.job import DerivedInstance, DerivedSet
from rebrain_node.domain.set_manifest import ManifestObject, SetManifest
from rebrain_node.instance.content import instance_digests
from rebrain_node.model.keys import public_part, sign_statement
from rebrain_node.model.signature import PrivateKey


@dataclass(frozen=True, kw_only=True)
class NodeSigner:
    """In whose name a set is signed."""

    ae_title: str
    key: PrivateKey | None  #: None where the node has none: the manifest is not signed


def sign(derived: DerivedSet, signer: NodeSigner) -> SetManifest:
    """Make the manifest of a set and sign it."""
    made = derived.provenance
    manifest = SetManifest(
        node=signer.ae_title,
        software=made.software_version,
        bundle=f"{made.bundle_name} {made.bundle_version}",
        bundle_digest=made.bundle_digest,
        set_digest=made.digest,
        revision=made.revision,
        objects=tuple(map(_listed, derived.instances)),
        key=None if signer.key is None else public_part(signer.key),
    )
    if signer.key is None:
        return manifest
    signature = sign_statement(manifest.statement, signer.key)
    return manifest.model_copy(update={"signature": signature})


def _listed(instance: DerivedInstance) -> ManifestObject:
    digests = instance_digests(instance.content)
    return ManifestObject(
        kind=instance.kind,
        sop_instance_uid=instance.sop_instance_uid,
        series_instance_uid=instance.series_instance_uid,
        sha256=instance.sha256,
        content_sha256=digests.content,
        pixels_sha256=digests.pixels,
    )
