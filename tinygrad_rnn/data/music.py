"""Music: the notes of a score over time as a piano roll, and Bach's chorales."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..core.tensor import get_default_dtype
from .text import check_file

if TYPE_CHECKING:
    from xml.etree import ElementTree

_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
LOWEST, KEYS = 21, 88


def piano_roll(path: str | os.PathLike[str], *, step: float = 1.0, common_key: bool = False) -> np.ndarray:
    """The score of a MusicXML file (.xml, .musicxml, or compressed .mxl) as ones and zeros of shape (time, 88).

    Row t has a one for each of a piano's keys that sounds at the start of step t; a held note and one that is struck again look the same. ``step`` is in
    quarter notes. The grid has the first bar line on it, so that an upbeat shorter than a step comes before the first row.
    ``common_key`` transposes by less than half an octave to the key signature without sharps and flats, C major or A minor, as Boulanger-Lewandowski, Bengio and Vincent (2012)
    do. Repeats are not played, grace notes are left out.

    Raises ``FileNotFoundError``, ``ValueError`` for a file that is no such score and for a step that is not positive.

    >>> import os, tempfile
    >>> import tinygrad_rnn.data as data
    >>> note = "<note><pitch><step>A</step><octave>4</octave></pitch><duration>2</duration></note>"
    >>> score = f"<score-partwise><part><measure><attributes><divisions>1</divisions></attributes>{note}</measure></part></score-partwise>"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "a.xml")
    ...     with open(path, "w") as file:
    ...         n = file.write(score)
    ...     data.piano_roll(path).nonzero()
    (array([0, 1]), array([48, 48]))
    """
    if not 0 < step < math.inf:
        raise ValueError(f"piano_roll: step must be a positive number of quarter notes, got {step!r}")
    return _roll(path, _score(path), step, common_key)


def chorales(*, step: float = 1.0, common_key: bool = False) -> dict[str, np.ndarray]:
    """Bach's chorales in four parts as piano rolls of shape (time, 88), by their names in the package ``music21`` and in the order of their numbers in the
    Bach-Werke-Verzeichnis; see :func:`piano_roll`.

    Chorales with further parts are left out, and so is one whose notes are, in any key, those of one before. The scores are read where the package lies;
    it is not imported.

    Raises ``ImportError`` without the package, ``FileNotFoundError`` where it came without its scores.

    >>> import tinygrad_rnn.data as data
    >>> from importlib.util import find_spec
    >>> not find_spec("music21") or len(data.chorales()) > 300
    True
    """
    import importlib.util

    found = importlib.util.find_spec("music21")
    if found is None or not found.submodule_search_locations:
        raise ImportError("chorales: the scores come with the package music21, which is not installed (pip install music21)")
    folder = os.path.join(found.submodule_search_locations[0], "corpus", "bach")
    scores = {name: os.path.join(folder, name) for name in os.listdir(folder) if name.endswith((".mxl", ".xml"))} if os.path.isdir(folder) else {}
    if not scores:
        raise FileNotFoundError(f"chorales: the package music21 is here without its scores, there are none in {folder}")
    rolls: dict[str, np.ndarray] = {}
    seen = set()
    for name in sorted(scores, key=lambda name: [int(number) for number in re.findall(r"\d+", name)]):
        score = _score(scores[name])
        if len(score.findall("part")) == 4:
            roll = _roll(scores[name], score, step, common_key)
            times, keys = roll.nonzero()
            music = (times.tobytes(), (keys - keys.min()).tobytes())
            if music not in seen:
                seen.add(music)
                rolls[os.path.splitext(name)[0]] = roll
    return rolls


def _score(path: str | os.PathLike[str]) -> ElementTree.Element:
    import zipfile
    from xml.etree import ElementTree

    check_file("piano_roll", path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                place = ElementTree.fromstring(archive.read("META-INF/container.xml")).find(".//{*}rootfile")
                content = archive.read("" if place is None else place.get("full-path", ""))
        else:
            with open(path, "rb") as file:
                content = file.read()
        score = ElementTree.fromstring(content)
    except (ElementTree.ParseError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"piano_roll: {os.fspath(path)} cannot be read as MusicXML: {error}") from error
    if score.tag != "score-partwise":
        raise ValueError(f"piano_roll: {os.fspath(path)} has the root element <{score.tag}>, expected <score-partwise>")
    return score


def _roll(path: str | os.PathLike[str], score: ElementTree.Element, step: float, common_key: bool) -> np.ndarray:
    from fractions import Fraction

    fifths = int(score.findtext(".//key/fifths") or 0) if common_key else 0
    shift = (6 - 7 * fifths) % 12 - 6
    # All times are whole numbers of a unit that divides the step and every note.
    numerator, denominator = Fraction(step).as_integer_ratio()
    unit = denominator * math.lcm(*(int(item.text or 1) for item in score.iter("divisions")))
    width = numerator * unit // denominator
    notes: list[tuple[int, int, int]] = []
    bars = [0]
    parts = [part.findall("measure") for part in score.findall("part")]
    scales = [unit] * len(parts)
    for measures in zip(*parts, strict=False):
        end = bars[-1]
        for part, measure in enumerate(measures):
            divisions = measure.findtext(".//divisions")
            scales[part] = unit // int(divisions) if divisions else scales[part]
            for onset, duration, pitch in _events(measure):
                start = bars[-1] + onset * scales[part]
                stop = start + duration * scales[part]
                end = max(end, stop)
                if pitch is not None:
                    notes.append((start, stop, pitch + shift))
        bars.append(end)
    if not notes:
        raise ValueError(f"piano_roll: {os.fspath(path)} has no notes")
    first = bars[1] % width

    def row(time: int) -> int:
        return max(0, -((first - time) // width))

    roll = np.zeros((row(bars[-1]), KEYS), get_default_dtype())
    for start, stop, pitch in notes:
        if not 0 <= pitch - LOWEST < KEYS:
            raise ValueError(f"piano_roll: {os.fspath(path)} has a note of MIDI number {pitch}, expected {LOWEST} to {LOWEST + KEYS - 1}, those of a piano")
        roll[row(start) : row(stop), pitch - LOWEST] = 1
    return roll


def _events(measure: ElementTree.Element) -> Iterator[tuple[int, int, int | None]]:
    """Onset and duration in divisions of each note and rest of a measure, and the note's MIDI number."""
    onset = now = 0
    for item in measure:
        duration = int(item.findtext("duration") or 0)
        if item.tag in ("backup", "forward"):
            now += duration if item.tag == "forward" else -duration
        elif item.tag == "note" and duration and item.find("cue") is None:
            # A note of a chord begins with the one before it.
            onset = onset if item.find("chord") is not None else now
            now = onset + duration
            pitch = item.find("pitch")
            yield onset, duration, None if pitch is None else _midi(pitch)


def _midi(pitch: ElementTree.Element) -> int:
    return 12 * int(pitch.findtext("octave") or 0) + 12 + _SEMITONES[pitch.findtext("step") or "C"] + int(float(pitch.findtext("alter") or 0))
