"""The small archive keeps what it is sent, byte for byte, and nothing outside its folder."""

from pathlib import Path

import pytest
from pydicom import dcmread

from rebrain_node.network.mini_pacs import MiniPacs
from tests.support.data_sets import ct, encode
from tests.support.dicom_peers import associated, instance, send


def test_what_is_sent_is_kept(tmp_path: Path) -> None:
    with MiniPacs("ARCHIVE", tmp_path / "kept") as archive:
        assert archive.instances() == ()
        with associated(archive.port, called=archive.ae_title) as association:
            assert association.send_c_echo().Status == 0x0000
            assert send(association, instance(1))[0] == 0x0000
        assert archive.wait_for(1, timeout_s=5)
        assert not archive.wait_for(2, timeout_s=0.05)
        (path,) = archive.instances()
    assert path.name == "1.2.3.4.1.dcm"
    assert path.read_bytes().endswith(instance(1))
    assert dcmread(path).file_meta.MediaStorageSOPInstanceUID == "1.2.3.4.1"


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    content = encode(ct(instance="../../x"))
    with MiniPacs("ARCHIVE", tmp_path / "kept") as archive:
        with associated(archive.port, called=archive.ae_title) as association:
            assert send(association, content, instance="../../x")[0] == 0x0117
        assert archive.instances() == ()
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]
