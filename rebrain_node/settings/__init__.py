"""What the site decides: a TOML file, overridden by ``REBRAIN_*`` environment variables.

Three kinds of configuration never mix: settings (this package), limits (clinical lead,
conf/limits.toml) and the recipe (travels in the bundle).
"""

from rebrain_node.settings.load import load_settings, misspelt_variables
from rebrain_node.settings.messages import (
    AuditCollectorSettings,
    AuditMessageSettings,
    MailSettings,
    NoticeSettings,
    WebhookSettings,
)
from rebrain_node.settings.node import Settings
from rebrain_node.settings.reception import Completeness, DecodingSettings, Peer, Receiver
from rebrain_node.settings.release import AcceptanceSettings, ShadowSettings, StopSettings
from rebrain_node.settings.remotes import (
    DestinationSettings,
    DicomRemote,
    NotificationSettings,
    Remote,
    WebDestinationSettings,
    WebRemote,
    WorkflowManagerSettings,
)
from rebrain_node.settings.results import MarksSettings, Model, Objects
from rebrain_node.settings.storage import AuditSettings, HealthSettings, RetentionSettings, Storage
from rebrain_node.settings.tls import ReceiverTlsSettings, RemoteTlsSettings
from rebrain_node.settings.values import AETitle, MailAddress, Port, RemoteName

__all__ = [
    "AETitle",
    "AcceptanceSettings",
    "AuditCollectorSettings",
    "AuditMessageSettings",
    "AuditSettings",
    "Completeness",
    "DecodingSettings",
    "DestinationSettings",
    "DicomRemote",
    "HealthSettings",
    "MailAddress",
    "MailSettings",
    "MarksSettings",
    "Model",
    "NoticeSettings",
    "NotificationSettings",
    "Objects",
    "Peer",
    "Port",
    "Receiver",
    "ReceiverTlsSettings",
    "Remote",
    "RemoteName",
    "RemoteTlsSettings",
    "RetentionSettings",
    "Settings",
    "ShadowSettings",
    "StopSettings",
    "Storage",
    "WebDestinationSettings",
    "WebRemote",
    "WebhookSettings",
    "WorkflowManagerSettings",
    "load_settings",
    "misspelt_variables",
]
