"""MGSM (Shi et al. 2022): school mathematics; the number after the answer's heading is the right one or not.

Equal to ``parse_answer`` and ``score_mgsm`` of openai/simple-evals (``mgsm_eval.py``, commit ee3b031): of what stands
behind the last heading the last number counts; without a heading there is no answer. A minus sign is not read.
"""

from __future__ import annotations

import re

HEADINGS = {
    "eng": "Answer", "fra": "Réponse", "jpn": "答え", "tha": "คำตอบ",
    "por": "Resposta", "ces": "Odpověď", "dan": "Svar", "ukr": "Відповідь", "bul": "Отговор", "fin": "Vastaus",
    "hun": "Válasz", "nob": "Svar", "ind": "Jawaban", "kor": "답", "slv": "Odgovor", "vie": "Trả lời",
    "pol": "Odpowiedź", "khm": "ចម្លើយ", "spa": "Respuesta",
}  # fmt: skip
"""Word that the answer stands behind; of the first four languages and Spanish it is simple-evals', else ours."""
OFFICIAL = frozenset({"eng", "fra", "jpn", "spa", "tha"})
"""Languages of the table that MGSM itself has."""
_NUMBER = re.compile(r"\d+\.?\d*")


def extract_number(text: str, heading: str) -> str:
    """The answer's number as written, without commas; empty for no answer."""
    if heading not in text:
        return ""
    numbers = _NUMBER.findall(text.rpartition(heading)[2].strip().replace(",", ""))
    return numbers[-1].rstrip(".") if numbers else ""


def score_item(text: str, target: str, lang: str) -> float:
    """1.0 where the number in an answer in ``lang`` (ISO 639-3) is ``target``, else 0.0."""
    found = extract_number(text, HEADINGS[lang])
    if "." in found:
        found = found.rstrip("0").rstrip(".")
    return float(found.replace(",", "") == target.replace(",", ""))
