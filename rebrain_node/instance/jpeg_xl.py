"""JPEG XL Lossless (PS3.5 A.4.12, since 2024d), which this version of pydicom does not know.

Of the three transfer syntaxes only the lossless one is received: the other two may have lost
values, and a codestream holds no signed integers, so that signed CT values that were changed by
compression could not be told from others (PS3.5 8.2.15).
"""

from __future__ import annotations

from typing import Final

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID

JPEG_XL_LOSSLESS: Final = UID("1.2.840.10008.1.2.4.110")

UID_dictionary.setdefault(
    str(JPEG_XL_LOSSLESS), ("JPEG XL Lossless", "Transfer Syntax", "", "", "JPEGXLLossless")
)
