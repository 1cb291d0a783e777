#!/usr/bin/env bash
# pynetdicom: a quick A-ASSOCIATE-RJ is reported as an abort where the requesting thread is late.
#
# Expected: after a rejection Association.is_rejected is true, and the answer says why.
# Seen (pynetdicom 3.0.4 of PyPI, Linux): one thread connects, sends and receives, another one waits
# for the connection and then asks whether it is made. Where the answer has come and the socket is
# closed before that thread has looked, it takes the closed socket for a failed connection:
# is_rejected is false, is_aborted true. Here a handler of EVT_REQUESTED holds the thread up for
# 0.3 s; on a busy machine a few rejections in a hundred from a near peer come out so without it.
# What to do: count an abort right after the request as "perhaps rejected" and try again, or let
# AssociationSocket._is_connected stay true once the connection was made.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pynetdicom==3.0.4 pydicom==3.0.2
cat >"$folder/reject.py" <<'PYTHON'
"""Be rejected at once, by a peer on the same machine, with a thread that is and is not late."""

import socket
import threading
import time

import pynetdicom
from pynetdicom import AE, evt

REJECTION = bytes([3, 0, 0, 0, 0, 4, 0, 1, 1, 3])  # A-ASSOCIATE-RJ: calling AE title not known


def peer(listener):
    """Reject one association and wait until the requestor closes."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(REJECTION)
        connection.recv(1)


def request(late_s):
    """Request an association; whether it is called rejected and aborted."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=peer, args=(listener,))
        thread.start()
        entity = AE()
        entity.add_requested_context("1.2.840.10008.1.1")
        association = entity.associate(
            "127.0.0.1",
            listener.getsockname()[1],
            evt_handlers=[(evt.EVT_REQUESTED, lambda _: time.sleep(late_s))],
        )
        thread.join()
        return association.is_rejected, association.is_aborted


print("pynetdicom", pynetdicom.__version__)
for late_s in (0.0, 0.3):
    rejected, aborted = request(late_s)
    print(f"thread {late_s} s late: is_rejected {rejected}, is_aborted {aborted}")
if (rejected, aborted) != (False, True):
    raise SystemExit("the late thread knows of the rejection: this finding is out of date")
PYTHON
"$folder/venv/bin/python" "$folder/reject.py"
