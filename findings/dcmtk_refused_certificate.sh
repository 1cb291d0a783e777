#!/usr/bin/env bash
# dcmtk over TLS 1.3 does not say that its own certificate was refused.
#
# Expected: a sender whose certificate has expired is told so by the peer (alert 45, certificate
# expired, RFC 8446 6.2) and its operator reads that, as over TLS 1.2.
# Seen (dcmtk 3.6.7-9~deb12u4 of Debian 12, echoscu, against openssl s_server 3.0): over TLS 1.2
# "TLS error: sslv3 alert certificate expired". Over TLS 1.3, which dcmtk 3.6.7 negotiates where it
# can, the handshake ends for the client before the server has looked at the certificate; the alert
# comes with the first read, and echoscu says "Peer aborted Association (or never connected)".
# What to do: for such a message of a sender look into the log of the receiver, which has the
# reason; or have the sender try with a peer that is limited to TLS 1.2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
version=3.6.7-9~deb12u4
apt-get download -q "dcmtk=$version" "libdcmtk17=$version" 2>"$folder/apt" \
    || { cat "$folder/apt" >&2; exit 1; }
for package in *.deb; do dpkg -x "$package" root; done
libraries=$(dirname "$(find root -name 'libdcmnet.so.17')")
export LD_LIBRARY_PATH=$libraries DCMDICTPATH=$folder/root/usr/share/libdcmtk17/dicom.dic
{
    openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=authority -keyout ca.key -out ca.pem
    for name in server client; do
        openssl req -newkey rsa:2048 -nodes -subj "/CN=$name" -keyout $name.key -out $name.csr
    done
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 9 -out server.pem
    openssl x509 -req -in client.csr -CA ca.pem -CAkey ca.key -days -1 -out client.pem
} 2>/dev/null
root/usr/bin/echoscu --version | head -1
openssl version
declare -A said
for protocol in tls1_2 tls1_3; do
    sleep 60 | openssl s_server -accept 127.0.0.1:0 -$protocol -cert server.pem -key server.key \
        -CAfile ca.pem -Verify 1 -verify_return_error >$protocol.log 2>&1 &
    for _ in $(seq 100); do grep -q ACCEPT $protocol.log && break; sleep 0.1; done
    port=$(grep -o 'ACCEPT 127.0.0.1:[0-9]*' $protocol.log | grep -o '[0-9]*$')
    said[$protocol]=$(root/usr/bin/echoscu -ta 5 +tls client.key client.pem +cf ca.pem 127.0.0.1 "$port" 2>&1 | grep Failed || true)
    echo "$protocol: ${said[$protocol]}"
    kill %% 2>/dev/null || true
done
if [[ ${said[tls1_2]} == *"certificate expired"* && ${said[tls1_3]} == *"Peer aborted Association"* ]]; then
    echo "as seen: over TLS 1.3 the reason is missing"
else
    echo "changed: see above" >&2
    exit 1
fi
