#!/usr/bin/env bash
# imagecodecs (libjxl): the same call writes a bare JPEG XL codestream for 12 bits, a container for 16.
#
# Expected: jpegxl_encode(..., usecontainer=False) writes a bare codestream (it begins FF 0A).
# Seen (imagecodecs 2026.3.6 with libjxl 0.11.2): with 10 and 12 bits a sample it does; with 16 it
# writes a container (ISO/IEC 18181-2, it begins with a box "JXL "), whatever usecontainer says.
# Both decode to every bit.
# What to do: PS3.5 A.4.12 does not say which of the two a fragment holds, and one encoder gives
# both for CT of one scanner, by Bits Stored. Whoever reads the size of a JPEG XL frame before it
# decodes must find the codestream in the boxes jxlc and jxlp too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q imagecodecs==2026.3.6 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import imagecodecs
import numpy as np

print(imagecodecs.__version__, imagecodecs.jpegxl_version())
seen = {}
for bits in (10, 12, 16):
    image = (np.arange(48 * 40, dtype=np.uint32).reshape(48, 40) * 2749 % (1 << bits)).astype(np.uint16)
    encoded = imagecodecs.jpegxl_encode(
        image, lossless=True, bitspersample=bits, usecontainer=False
    )
    assert np.array_equal(imagecodecs.jpegxl_decode(encoded), image)
    seen[bits] = "codestream" if bytes(encoded[:2]) == b"\xff\x0a" else "container"
    print(f"{bits} bits: {seen[bits]}, begins {bytes(encoded[:12]).hex(' ')}")
assert seen == {10: "codestream", 12: "codestream", 16: "container"}, "this has changed"
PYTHON
