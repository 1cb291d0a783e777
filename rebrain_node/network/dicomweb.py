"""Destination and source over DICOMweb (PS3.18): STOW-RS to send, QIDO-RS and WADO-RS to ask."""

from __future__ import annotations

import json
import socket
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from dicomweb_client.web import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset

from rebrain_node.domain.completeness import SourceAnswer
from rebrain_node.domain.delivery import Answer, CommitmentReport, HeldObject, Outcome, outcome_of
from rebrain_node.domain.job import DerivedInstance
from rebrain_node.errors import DeliveryError, QueryNotOfferedError, SettingsError, UnreachableError
from rebrain_node.instance.comparison import changed_elements, differing_identity
from rebrain_node.network.query import MAXIMUM_ANSWERS, counted, stated_count
from rebrain_node.settings import WebDestinationSettings, WebRemote

#: HTTP statuses after which the same request may succeed later, beside 5xx
LATER: Final = frozenset({401, 403, 404, 408, 425, 429})
_ACCEPTED: Final = frozenset({"taken", "warning", "duplicate"})
_JSON: Final = "application/dicom+json"


@dataclass(frozen=True)
class WebAnswer:
    """What an origin server answered to one request."""

    status: int  #: of HTTP
    content: bytes

    @property
    def is_success(self) -> bool:
        """Whether the request was taken."""
        return 200 <= self.status < 300

    def datasets(self) -> list[Dataset]:
        """Read DICOM JSON; raises what the readers of JSON and of DICOM raise."""
        body: Any = json.loads(self.content)
        return [Dataset.from_json(one) for one in (body if isinstance(body, list) else [body])]


class WebPeer:
    """One origin server: how it is reached, and what it lists."""

    def __init__(self, remote: WebRemote) -> None:
        self._remote = remote

    @property
    def name(self) -> str:
        """Name in the settings."""
        return self._remote.name

    @property
    def _where(self) -> str:
        return f"{self._remote.role} {self._remote.name} ({self._remote.url})"

    @contextmanager
    def _session(self) -> Iterator[requests.Session]:
        with requests.Session() as session:
            session.trust_env = False
            if self._remote.token_file is not None:
                session.headers["Authorization"] = f"Bearer {self._token()}"
            if self._remote.certificate_authority is not None:
                session.verify = str(self._remote.certificate_authority)
            try:
                yield session
            except requests.RequestException as error:
                raise UnreachableError(
                    f"{self._where} cannot be reached: {type(error).__name__}; check url, network "
                    "and certificate"
                ) from error

    def request(
        self,
        method: str,
        path: str,
        body: Dataset | None = None,
        query: Mapping[str, str] | None = None,
    ) -> WebAnswer:
        """Send one request with DICOM JSON, or without a body; no redirection is followed.

        Raises
        ------
        UnreachableError
            The server cannot be reached.
        """
        headers = {"Accept": _JSON} | ({} if body is None else {"Content-Type": _JSON})
        with self._session() as session:
            response = session.request(
                method,
                f"{self._remote.url}{path}",
                params=query,
                data=None if body is None else json.dumps([body.to_json_dict()]),
                headers=headers,
                timeout=self._remote.timeout_s,
                allow_redirects=False,
            )
        return WebAnswer(status=response.status_code, content=response.content)

    def try_search(self) -> float:
        """Search for a study that nobody has (QIDO-RS), and return the seconds it took.

        Raises
        ------
        DeliveryError
            The server cannot be reached, does not answer a search, or with another study.
        """
        begun, study = time.monotonic(), f"2.25.{uuid.uuid4().int}"
        with self._client() as client:
            found = client.search_for_studies(search_filters={"StudyInstanceUID": study})
        if found:
            raise DeliveryError(
                f"{self._where} answered QIDO-RS with {len(found)} studies that were not asked "
                "for: it ignores Study Instance UID, and cannot be asked what it holds; check url"
            )
        return time.monotonic() - begun

    @contextmanager
    def _client(self) -> Iterator[DICOMwebClient]:
        with self._session() as session:
            client = DICOMwebClient(
                url=self._remote.url, session=session, timeout=self._remote.timeout_s
            )
            client.set_http_retry_params(retry=False)
            try:
                yield client
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise DeliveryError(
                    f"{self._where} answered a query with something else than DICOM JSON "
                    f"({type(error).__name__}); check url"
                ) from error
            except requests.HTTPError as error:
                code = error.response.status_code
                text = f"{self._where} answered HTTP {code} to a query"
                raise (QueryNotOfferedError if code in {404, 405, 501} else DeliveryError)(
                    text
                ) from error

    def _token(self) -> str:
        path = self._remote.token_file
        try:
            return path.read_text(encoding="ascii").strip() if path is not None else ""
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"token_file {path} cannot be read: {error}") from error

    def _listed(self, client: DICOMwebClient, study: str, series: str) -> frozenset[str]:
        """SOP Instance UIDs of the instances of a series; page by page until nothing new comes.

        A server that answers the first page to every question is asked twice.
        """
        known: set[str] = set()
        while len(known) < MAXIMUM_ANSWERS:
            page = client.search_for_instances(
                study, series, offset=len(known), fields=["SOPInstanceUID"]
            )
            found = {str(Dataset.from_json(each).get("SOPInstanceUID") or "") for each in page}
            if found <= known | {""}:
                break
            known |= found - {""}
        return frozenset(known)


class WebDestination(WebPeer):
    """One origin server that takes results (port ``Destination``)."""

    def __init__(self, destination: WebDestinationSettings) -> None:
        super().__init__(destination)
        self._destination = destination

    def send(self, instances: Sequence[DerivedInstance]) -> tuple[Answer, ...]:
        """Store the MR series in one request, then its companions; the bytes are those stored.

        An object that the answer does not name is in doubt (`warning`) after a success, and
        `retry` otherwise: servers answer 400 or 409 for a whole request of which they have stored
        a part.

        Raises
        ------
        DeliveryError
            The server cannot be reached, or does not take requests now.
        """
        images = [one for one in instances if one.kind == "MR"]
        companions = [one for one in instances if one.kind != "MR"]
        answers = self._store(images)
        if all(answer.outcome in _ACCEPTED for answer in answers):
            answers += self._store(companions)
        return tuple(answers)

    def identity_conflict(self, instance: DerivedInstance) -> str | None:
        """Say in what the study there is another patient's; None where it agrees or is not there.

        Raises
        ------
        QueryNotOfferedError
            The server does not answer QIDO-RS.
        DeliveryError
            The server cannot be reached.
        """
        ours = dcmread(BytesIO(instance.content), stop_before_pixels=True)
        with self._client() as client:
            found = client.search_for_studies(
                search_filters={"StudyInstanceUID": str(ours.StudyInstanceUID)},
                fields=["PatientID", "AccessionNumber"],
            )
        differing = {
            name for each in found for name in differing_identity(Dataset.from_json(each), ours)
        }
        if not differing:
            return None
        return (
            f"{self._where} holds the study with another {' and '.join(sorted(differing))} than "
            "the result has: send the corrected CT again, or correct the study there and run "
            "`rebrain-node outbox retry`"
        )

    def held(
        self, instances: Sequence[DerivedInstance], read_back: Sequence[str]
    ) -> tuple[HeldObject, ...]:
        """Say of each instance whether the server holds it, and whether unchanged.

        Raises
        ------
        QueryNotOfferedError
            The server does not answer QIDO-RS.
        DeliveryError
            The server cannot be reached.
        """
        study = str(
            dcmread(BytesIO(instances[0].content), stop_before_pixels=True).StudyInstanceUID
        )
        known: set[str] = set()
        changed: dict[str, tuple[str, ...]] = {}
        with self._client() as client:
            for series in dict.fromkeys(one.series_instance_uid for one in instances):
                known |= self._listed(client, study, series)
            for one in instances:
                if one.sop_instance_uid in read_back and one.sop_instance_uid in known:
                    stored = client.retrieve_instance(
                        study, one.series_instance_uid, one.sop_instance_uid
                    )
                    changed[one.sop_instance_uid] = changed_elements(one.content, stored)
        return tuple(
            HeldObject(
                sop_instance_uid=one.sop_instance_uid,
                held=one.sop_instance_uid in known,
                changed=changed.get(one.sop_instance_uid),
            )
            for one in instances
        )

    def request_commitment(
        self,
        instances: Sequence[DerivedInstance],  # noqa: ARG002 - of the port
        transaction_uid: str,  # noqa: ARG002 - of the port
        record: Callable[[CommitmentReport], bool],  # noqa: ARG002 - of the port
    ) -> None:
        """Refuse: storage commitment is a service of DIMSE.

        Raises
        ------
        QueryNotOfferedError
            Always.
        """
        raise QueryNotOfferedError(f"{self._where} is asked by QIDO-RS what it holds")

    def _store(self, instances: Sequence[DerivedInstance]) -> list[Answer]:
        if not instances:
            return []
        boundary = uuid.uuid4().hex
        with self._session() as session:
            response = session.post(
                f"{self._destination.url}/studies",
                data=_multipart(instances, boundary),
                headers={
                    "Content-Type": f'multipart/related; type="application/dicom"; '
                    f"boundary={boundary}",
                    "Accept": _JSON,
                },
                timeout=self._destination.timeout_s,
            )
        if response.status_code >= 500 or response.status_code in LATER:
            raise DeliveryError(f"{self._where} answered HTTP {response.status_code} to STOW-RS")
        said = _body(response)
        return [self._answer(one, said, response) for one in instances]

    def _answer(
        self, instance: DerivedInstance, said: Dataset, response: requests.Response
    ) -> Answer:
        """Read what the answer says of one instance (PS3.18 table 10.5.3-1, annex I)."""
        uid = instance.sop_instance_uid
        outcome, code = _outcome(uid, said, success=response.ok)
        if outcome == "refused" and code == 0x0122 and instance.kind != "MR":
            outcome = "refused" if self._destination.companions == "strict" else "unsupported"
        reason = None
        if outcome != "taken":
            status = "is not named in the answer" if code is None else f"has 0x{code:04X}"
            reason = (
                f"{self._where} answered HTTP {response.status_code} to STOW-RS: "
                f"{instance.kind} instance {uid} {status}"
            )
        return Answer(sop_instance_uid=uid, outcome=outcome, status=code, reason=reason)


class WebSource(WebPeer):
    """One origin server that is asked what it has sent (port ``Source``)."""

    def ask(self, study: str, held: Mapping[str, int]) -> Mapping[str, SourceAnswer]:
        """Ask for Number of Series Related Instances, and for a list where that is not enough.

        Raises
        ------
        QueryNotOfferedError
            The server does not answer QIDO-RS.
        DeliveryError
            The server cannot be reached, or answers something else than data sets.

        References
        ----------
        PS3.18 table 10.6.3-4: (0020,1209) is required in the answer about a series.
        """
        with self._client() as client:
            return {
                series: self._ask(client, (study, series), count) for series, count in held.items()
            }

    def _ask(self, client: DICOMwebClient, uids: tuple[str, str], held: int) -> SourceAnswer:
        found = client.search_for_series(
            uids[0],
            search_filters={"SeriesInstanceUID": uids[1]},
            fields=["NumberOfSeriesRelatedInstances"],
        )
        stated = stated_count([Dataset.from_json(each) for each in found], uids[1])
        if stated and stated != held:
            return SourceAnswer(count=stated)
        return counted(stated, self._listed(client, *uids))


def certificate_end(remote: WebRemote) -> datetime:
    """Read when the certificate of a server expires (aware, UTC).

    Raises
    ------
    UnreachableError
        There is no connection, or the certificate is not one that is trusted.
    """
    parts = urlsplit(remote.url)
    where = f"{remote.role} {remote.name} ({remote.url})"
    trusted = remote.certificate_authority or requests.certs.where()
    try:
        context = ssl.create_default_context(cafile=str(trusted))
        address = (parts.hostname or "", parts.port or 443)
        with (
            socket.create_connection(address, timeout=remote.timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as secured,
        ):
            held = secured.getpeercert() or {}
    except OSError as error:
        raise UnreachableError(
            f"{where} gives no trusted certificate: {error}; check url and certificate_authority"
        ) from error
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(held["notAfter"])), UTC)


def _multipart(instances: Sequence[DerivedInstance], boundary: str) -> Iterator[bytes]:
    """Write the body of a request, one part an instance (PS3.18 8.6.1.2)."""
    for one in instances:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        yield one.content
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _body(response: requests.Response) -> Dataset:
    """Read the answer whatever its status; empty where it cannot be read."""
    try:
        body: Any = response.json()
        return Dataset.from_json(body if isinstance(body, dict) else body[0])
    except (ValueError, LookupError, TypeError, AttributeError):
        return Dataset()


def _outcome(sop_instance_uid: str, said: Dataset, *, success: bool) -> tuple[Outcome, int | None]:
    for item in said.get("FailedSOPSequence") or ():
        if str(item.get("ReferencedSOPInstanceUID")) == sop_instance_uid:
            code = int(item.get("FailureReason") or 0x0110)
            return outcome_of(code), code
    for item in said.get("ReferencedSOPSequence") or ():
        if str(item.get("ReferencedSOPInstanceUID")) == sop_instance_uid:
            code = int(item.get("WarningReason") or 0x0000)
            return ("warning" if code else "taken"), code
    return ("warning" if success else "retry"), None
