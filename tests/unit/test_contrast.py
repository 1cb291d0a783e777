"""Words for contrast and for none, as technologists of many countries write them."""

# ruff: noqa: RUF001 - letters of other scripts are meant

from __future__ import annotations

import time

import pytest

from rebrain_node.domain.contrast import (
    ContrastElements,
    ContrastReading,
    read_agent,
    read_contrast,
    strongest,
)

NONE = (
    "NO", "N", "none", "None given", "NIL", "0", "0 ml", "0.0 cc", "NON CONTRAST", "non-contrast",
    "NO IV CONTRAST", "no contrast was given", "CONTRAST: NO", "W/O", "without", "WITHOUT CONTRAST",
    "Unenhanced", "plain", "IV-", "C-", "NONE/0",
    "nativ", "Nativ", "ohne KM", "oKM", "o. KM", "ohne Kontrastmittel", "kein KM", "KM: nein",
    "keine", "nein",
    "sans injection", "SANS IV", "sans PDC", "non injecté", "aucun", "pas de contraste", "natif",
    "sin contraste", "SIN CIV", "s/c", "S/C", "simple", "ninguno", "nada",
    "senza mdc", "SENZA", "nessuno", "diretta",
    "sem contraste", "nenhum", "não",
    "zonder contrast", "blanco", "geen",
    "utan kontrast", "ingen", "uten kontrast", "uden kontrast", "u/k", "ingen kontrast",
    "ei", "natiivi", "ilman varjoainetta", "kontrasztanyag nélkül",
    "Not given", "CONTRAST NOT ADMINISTERED", "no oral or iv contrast", "NO ORAL, NO IV",
    "contrast:", "no oral",
    "bez kontrastu", "brak", "nie", "bez KL", "nativně", "žádná", "b/k", "natív",
    "kontrastsız", "yok", "HAYIR",
    "без контраста", "нет", "нативно", "без КУ", "б/к", "χωρίς",
    "nema", "NEMA KONTRASTA", "nincs", "nincs kontrasztanyag", "tanpa kontras", "không", "ללא",
    "بدون", "不使用", "未使用", "使用せず", "none (n/a)",
    "平扫", "无", "無", "単純", "非造影", "なし", "無し", "비조영", "없음",
)  # fmt: skip
SILENT = ("", " ", "-", "--", ".", "?", "N/A", "NA", "UNKNOWN", "not applicable", "xx")
GIVEN = (
    "IODINE 300", "OMNIPAQUE 350", "Ultravist 370", "NON IONIC", "Non-ionic contrast", "yes", "Y",
    "CONTRAST", "IV CONTRAST", "1", "80 ml", "KM", "ORAL", "C+", "Jod", "造影剤", "с контрастом",
    "CONTRAST (IV)", "IV.", "IV/ORAL", "IV + PO", "KM+", "KM: IV", "IV contrast given.",
    "IV CONTRAST, NO ORAL", "IV, not oral", "NO ORAL, IV OMNIPAQUE",
    "ISOVUE 300 NO", "an agent that nobody knows",
)  # fmt: skip


@pytest.mark.hazard("H8")
@pytest.mark.parametrize(
    ("says", "text"),
    [(says, text) for says, texts in
     (("none", NONE), ("silent", SILENT), ("given", GIVEN)) for text in texts],
)  # fmt: skip
def test_an_agent_is_one_unless_its_words_mean_none(says, text):
    assert read_agent(text)[0] == says


def test_of_an_agent_only_the_name_of_a_known_one_is_shown():
    assert read_agent("Omnipaque MILLER^ANNA")[1].endswith("names OMNIPAQUE")
    assert "MILLER" not in read_agent("MILLER^ANNA")[1].upper()


def test_of_a_description_only_known_words_are_shown():
    reading = read_contrast(ContrastElements(description="MILLER^ANNA CTA head"))
    assert reading.words == "Series Description (0008,103E) says «CTA»"
    glued = read_contrast(ContrastElements(description="MILLERangio"))
    assert "MILLER" not in glued.words


WITH = (
    "HEAD POST CONTRAST C+ 5.0", "C+", "+C", "HEAD+C", "Head_CE", "VOLUME Head 3.000 CE", "CECT",
    "head with iv contrast", "HEAD W/CONTRAST", "HEAD W CONTRAST", "W/C", "DE_Head WC 0.75 Hr32",
    "Head post", "Head POST 5.0", "post-contrast", "Postcontrast", "CTA Head", "Angio", "HeadAngio",
    "ANGIO 1.25MM RECON", "CT Venography", "Brain arterial", "Head venous", "Perfusion 5.0",
    "craneo c/cte", "head enh", "mit KM",
    "Schädel nach KM", "Kopf KM 5.0", "avec injection", "IV+", "con mdc", "dopo mdc",
    "CRANEO CON CONTRASTE", "C/C", "com contraste", "pós contraste", "met contrast",
    "med kontrast", "efter kontrast", "z kontrastem", "po kontraście", "s kontrastem",
    "kontrastlı", "с контрастом", "КТА", "增强", "頭部造影", "뇌 조영",
)  # fmt: skip
WITHOUT = (
    "HEAD W/O 5.0", "0.625MM ROUTINE HEAD BONE WO", "NCCT", "Ax NC 5mm", "Head nativ 5.0",
    "1A TRAUMA/PLAIN HEAD DM /Head", "pre contrast", "PRECONTRAST", "C-", "HEAD C- 5.0",
    "TAC CRANEO SIN CTE", "cráneo s/cte", "cranio s. mdc", "S CONTRASTE", "Head Non-Con", "unenh",
    "Schädel ohne KM", "sans inj", "CRANEO SIMPLE", "S/C", "bez kontrastu", "без контраста",
    "頭部単純", "平扫", "뇌 비조영",
)  # fmt: skip
NOTHING = (
    "Brain Head 5.0", "Head 5.0 H31s", "STD BRAIN 5MM", "Brain 5.0 J40s 3", "HEAD 3.0 H20s C",
    "Neck/Head", "c-spine", "basal ganglia", "Head Seq 4.8 s kranial", "Recon 2: 5mm STD",
    "DE_Head  1.5  Q34s  3 Optimum Contrast#0 (Auto)", "High Contrast brain", "Med. Kopf",
    "cavernous angioma", "Haemangioma 5.0",
    "POST-PROCESSED 5MM", "POST 3D", "NON-HELICAL HEAD", "HEAD W MOTION", "pre- and post-contrast",
    "POST OP", "Head POSTTRAUMA", "Post Fossa 2.5", "posterior fossa", "POST THROMBECTOMY",
    "HEAD W AND WO", "HEAD W/WO CONTRAST", "with and without contrast", "mit und ohne KM",
    "Kopf seq nativ und mit KM", "Head PRE/POST",
)  # fmt: skip


@pytest.mark.hazard("H8")
@pytest.mark.parametrize(
    ("evidence", "text"),
    [(evidence, text) for evidence, texts in
     (("described", WITH), ("none", WITHOUT), ("silent", NOTHING)) for text in texts],
)  # fmt: skip
def test_a_description_says_with_without_or_nothing(evidence, text):
    assert read_contrast(ContrastElements(description=text)).evidence == evidence


@pytest.mark.parametrize(
    ("elements", "evidence"),
    [
        ({"protocol": "CTA", "description": "Head nativ"}, "none"),
        ({"protocol": "CTA", "agents": ("NONE",)}, "none"),
        ({"protocol": "CTA"}, "doubtful"),
        ({"ingredient": "IODINE"}, "given"),
        ({"volume_ml": 0.0, "dose_ml": 0.0}, "none"),
        ({"volume_ml": -1.0}, "silent"),
        ({"start_time": "10:10:00", "acquisition_time": "101112.5"}, "given"),
        ({"start_time": "10:12:00", "acquisition_time": "101112.5"}, "none"),
        ({"agents": ("IODINE",), "start_time": "101200", "acquisition_time": "101112"}, "doubtful"),
    ],
)
def test_all_elements_are_read_together(elements, evidence):
    assert read_contrast(ContrastElements(**elements)).evidence == evidence


@pytest.mark.parametrize(
    ("flavour", "evidence"),
    [("POST_CONTRAST", "described"), ("PRE_CONTRAST", "none"), ("VOLUME", "silent")],
)
def test_the_flavour_of_an_enhanced_image_says_whether_it_has_contrast(flavour, evidence):
    reading = read_contrast(ContrastElements(), ("ORIGINAL", "PRIMARY", flavour, "NONE"))
    assert reading.evidence == evidence


@pytest.mark.parametrize("text", ["ohne" + "/" * 60_000, "no" + "." * 60_000, "w" * 60_000])
def test_a_text_that_is_far_too_long_is_read_at_once(text):
    begun = time.process_time()
    read_contrast(ContrastElements(agents=(text,), description=text))
    assert time.process_time() - begun < 0.5


def test_the_strongest_of_many_frames_counts():
    readings = [ContrastReading(evidence=e) for e in ("none", "silent", "doubtful", "described")]
    assert strongest(readings).evidence == "described"
    assert strongest([]).evidence == "silent"
