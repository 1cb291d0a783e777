#!/usr/bin/env bash
# rsyslog with GnuTLS ends a connection of syslog over TLS without the close_notify that RFC 5425 asks for.
#
# Expected: a sender that is done sends close_notify, and the receiver must reply with one (RFC 5425
# section 4.4), so that the sender can tell an end at which everything was read from a connection
# that was cut.
# Seen (rsyslog and rsyslog-gnutls 8.2302.0-1+deb12u2 of Debian 12, module imtcp, driver gtls): over
# TLS 1.2 and 1.3 all messages are written, and the connection ends by TCP alone. A sender whose TLS
# library is strict (Python: SSLEOFError of unwrap) takes each good end for an error.
# What to do: do not ask for close_notify. Close for writing, wait for the end of TCP, and see that
# no byte of yours is unacknowledged (SIOCOUTQ of Linux): a receiver that closes with something
# unread resets the connection. What a killed receiver has read and not written, nothing shows.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
version=8.2302.0-1+deb12u2
apt-get download -q "rsyslog=$version" "rsyslog-gnutls=$version" libestr0 libfastjson4 liblognorm5 2>"$folder/apt" \
    || { cat "$folder/apt" >&2; exit 1; }
for package in *.deb; do dpkg -x "$package" root; done
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out certificate.pem -days 2 \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost 2>/dev/null
cat >"$folder/try.py" <<'PYTHON'
"""Send messages over both versions of TLS, close as RFC 5425 says, and see how the receiver ends."""

import os
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

folder = Path.cwd()
libraries = next(folder.glob("root/usr/lib/*/libestr.so.0")).parent
with socket.create_server(("127.0.0.1", 0)) as probe:
    port = probe.getsockname()[1]
(folder / "rsyslog.conf").write_text(
    f'global(workDirectory="{folder}" defaultNetstreamDriver="gtls"\n'
    f'  defaultNetstreamDriverCAFile="{folder}/certificate.pem"\n'
    f'  defaultNetstreamDriverCertFile="{folder}/certificate.pem"\n'
    f'  defaultNetstreamDriverKeyFile="{folder}/key.pem")\n'
    'module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" '
    'streamDriver.authMode="anon")\n'
    f'input(type="imtcp" port="{port}" address="127.0.0.1")\n'
    f'action(type="omfile" file="{folder}/messages")\n'
)
environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
program = [folder / "root/usr/sbin/rsyslogd", "-M", libraries / "rsyslog"]
server = subprocess.Popen(
    [*program, "-n", "-f", folder / "rsyslog.conf", "-i", folder / "pid"],
    env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
try:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    ends = []
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context(cafile="certificate.pem")
        context.maximum_version = version
        raw = socket.create_connection(("127.0.0.1", port), 10)
        connection = context.wrap_socket(raw, server_hostname="localhost")
        for number in range(3):
            message = f"<85>1 - h a - - - {version.name} {number}".encode()
            connection.sendall(b"%d %s" % (len(message), message))
        try:
            connection.unwrap()
            ends.append("close_notify")
        except ssl.SSLEOFError as error:
            ends.append(f"no close_notify ({error.reason})")
        connection.close()
        print(f"{version.name}: the receiver ended with {ends[-1]}")
    time.sleep(1)
finally:
    server.terminate()
    server.wait()
written = sum(" TLSv1_" in line for line in Path("messages").read_text().splitlines())
print(f"{written} of 6 messages were written")
sys.exit(0 if written == 6 and all(end.startswith("no ") for end in ends) else 1)
PYTHON
LD_LIBRARY_PATH=$(dirname "$(ls root/usr/lib/*/libestr.so.0)") root/usr/sbin/rsyslogd -v | head -1
python3 try.py && echo "as seen: no close_notify" || { echo "changed: see above" >&2; exit 1; }
