"""Scores as piano rolls, and Bach's chorales where they are installed."""

import importlib.util
import types
import zipfile

import numpy as np
import pytest

import tinygrad_rnn.data as data

A4, C5, E5 = 48, 51, 55  # keys of a piano, the lowest is 0


def note(step, octave, duration, alter=0, extra=""):
    return f"<note>{extra}<pitch><step>{step}</step><alter>{alter}</alter><octave>{octave}</octave></pitch><duration>{duration}</duration></note>"


def rest(duration):
    return f"<note><rest/><duration>{duration}</duration></note>"


def score(*parts, divisions=2, fifths=0, root="score-partwise"):
    """A score of parts, each a list of measures."""
    head = f"<attributes><divisions>{divisions}</divisions><key><fifths>{fifths}</fifths></key></attributes>"
    text = "".join("<part>" + "".join(f"<measure>{head if k == 0 else ''}{measure}</measure>" for k, measure in enumerate(part)) + "</part>" for part in parts)
    return f'<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE {root}><{root}>{text}</{root}>'


def rolled(tmp_path, text, **options):
    path = tmp_path / "a.xml"
    path.write_text(text, encoding="utf-8")
    return data.piano_roll(path, **options)


def ones(roll):
    return [(int(t), int(key)) for t, key in zip(*roll.nonzero(), strict=True)]


def test_notes_rests_and_chords(tmp_path):
    melody = note("A", 4, 4) + rest(2) + note("C", 5, 2) + note("E", 5, 2, extra="<chord/>")
    roll = rolled(tmp_path, score([melody]))
    assert roll.shape == (4, 88) and roll.dtype == np.float32
    assert ones(roll) == [(0, A4), (1, A4), (3, C5), (3, E5)]
    # The first note lasts two quarters, which are four eighths.
    assert ones(rolled(tmp_path, score([melody]), step=0.5)) == [(t, A4) for t in range(4)] + [(t, key) for t in (6, 7) for key in (C5, E5)]
    # What begins and ends between two steps is not heard.
    assert ones(rolled(tmp_path, score([note("A", 4, 1) + note("C", 5, 1) + note("E", 5, 2)]))) == [(0, A4), (1, E5)]


def test_accidentals_and_the_ends_of_the_keyboard(tmp_path):
    assert ones(rolled(tmp_path, score([note("A", 0, 2) + note("C", 8, 2) + note("B", 4, 2, -1) + note("F", 4, 2, 1)]))) == [(0, 0), (1, 87), (2, A4 + 1), (3, A4 - 3)]
    with pytest.raises(ValueError, match=r"piano_roll: .*a\.xml has a note of MIDI number 109, expected 21 to 108"):
        rolled(tmp_path, score([note("C", 8, 2, 1)]))


def test_parts_and_voices_sound_together(tmp_path):
    voices = note("A", 4, 4) + "<backup><duration>4</duration></backup>" + "<forward><duration>2</duration></forward>" + note("C", 5, 2)
    assert ones(rolled(tmp_path, score([voices], [note("E", 5, 2) + rest(2)]))) == [(0, A4), (0, E5), (1, A4), (1, C5)]
    # A measure that one part does not fill ends where the other does; parts count in units of their own.
    two = score([rest(1), note("A", 4, 2)], [note("E", 5, 4), note("C", 5, 4)]).replace("<divisions>2</divisions>", "<divisions>4</divisions>", 1)
    assert ones(rolled(tmp_path, two, step=0.5)) == [(0, E5), (1, E5), (2, E5), (3, E5), (4, A4), (4, C5), (5, C5), (6, C5), (7, C5)]
    assert ones(rolled(tmp_path, score([note("E", 5, 4), note("C", 5, 2)], [rest(2), note("A", 4, 2)]))) == [(0, E5), (1, E5), (2, A4), (2, C5)]


def test_the_first_bar_line_is_on_the_grid(tmp_path):
    half, whole = note("E", 5, 1), note("E", 5, 2)
    assert ones(rolled(tmp_path, score([half, note("A", 4, 4)]))) == [(0, A4), (1, A4)]
    assert ones(rolled(tmp_path, score([whole, note("A", 4, 4)]))) == [(0, E5), (1, A4), (2, A4)]
    assert ones(rolled(tmp_path, score([half + whole, note("A", 4, 4)]))) == [(0, E5), (1, A4), (2, A4)]
    grace, cue = note("E", 5, 0, extra="<grace/>"), note("E", 5, 2, extra="<cue/>")
    assert ones(rolled(tmp_path, score([grace + note("A", 4, 4) + cue]))) == [(0, A4), (1, A4)]


@pytest.mark.parametrize("fifths", range(-7, 8))
def test_common_key(tmp_path, fifths):
    """The keynote of every major key becomes a C, and nothing moves by more than half an octave."""
    tonic = (60 + 7 * fifths - 21) % 12 + 36
    step, alter = [("C", 0), ("C", 1), ("D", 0), ("E", -1), ("E", 0), ("F", 0), ("F", 1), ("G", 0), ("A", -1), ("A", 0), ("B", -1), ("B", 0)][(tonic + 21) % 12]
    text = score([note(step, (tonic + 21) // 12 - 1, 2, alter)], fifths=fifths)
    assert ones(rolled(tmp_path, text)) == [(0, tonic)]
    ((_, moved),) = ones(rolled(tmp_path, text, common_key=True))
    assert (moved + 21) % 12 == 0 and abs(moved - tonic) <= 6


def test_compressed_scores(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.mxl", "w") as archive:
        archive.writestr("META-INF/container.xml", '<container xmlns="urn:x"><rootfiles><rootfile full-path="scores/b.xml"/></rootfiles></container>')
        archive.writestr("scores/b.xml", score([note("A", 4, 2)]))
    assert ones(data.piano_roll(str(tmp_path / "a.mxl"))) == [(0, A4)]
    with zipfile.ZipFile(tmp_path / "b.mxl", "w") as archive:
        archive.writestr("b.xml", score([note("A", 4, 2)]))
    with pytest.raises(ValueError, match=r"piano_roll: .*b\.mxl cannot be read as MusicXML: .*container\.xml"):
        data.piano_roll(tmp_path / "b.mxl")


def test_bad_input(tmp_path):
    with pytest.raises(FileNotFoundError, match="piano_roll: there is no file"):
        data.piano_roll(tmp_path / "b.xml")
    with pytest.raises(ValueError, match="step must be a positive number of quarter notes, got 0"):
        rolled(tmp_path, score([note("A", 4, 2)]), step=0)
    for text, words in (
        ("", "cannot be read as MusicXML"),
        ("<score-partwise><part>", "cannot be read as MusicXML"),
        (score(root="score-timewise"), "root element <score-timewise>, expected <score-partwise>"),
        (score([rest(4)]), "has no notes"),
        (score(), "has no notes"),
    ):
        with pytest.raises(ValueError, match=rf"piano_roll: .*a\.xml.*{words}"):
            rolled(tmp_path, text)


def install(monkeypatch, folder):
    found = folder and types.SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "music21" else None)


def test_chorales_of_a_package(tmp_path, monkeypatch):
    corpus = tmp_path / "corpus" / "bach"
    corpus.mkdir(parents=True)

    def write(name, melody, parts=4):
        (corpus / name).write_text(score(*[[melody]] * parts), encoding="utf-8")

    write("bwv10.7.xml", note("A", 4, 2))
    write("bwv9.7.xml", note("A", 4, 4))
    write("bwv9.10.xml", note("A", 4, 2) + note("E", 5, 2))
    write("bwv11.xml", note("C", 5, 4))  # that of 9.7 in another key
    write("bwv12.xml", note("A", 4, 8), parts=5)
    (corpus / "readme.txt").write_text("no score")
    install(monkeypatch, tmp_path)
    assert {name: ones(roll) for name, roll in data.chorales().items()} == {"bwv9.7": [(0, A4), (1, A4)], "bwv9.10": [(0, A4), (1, E5)], "bwv10.7": [(0, A4)]}
    assert list(data.chorales()) == ["bwv9.7", "bwv9.10", "bwv10.7"]
    assert len(data.chorales(step=0.5)["bwv10.7"]) == 2


def test_chorales_without_the_package(tmp_path, monkeypatch):
    install(monkeypatch, None)
    with pytest.raises(ImportError, match=r"chorales: .*music21.*pip install music21"):
        data.chorales()
    install(monkeypatch, tmp_path)
    with pytest.raises(FileNotFoundError, match="music21 is here without its scores"):
        data.chorales()


@pytest.mark.skipif(importlib.util.find_spec("music21") is None, reason="music21 is not installed")
def test_bach():
    rolls = data.chorales()
    assert 340 < len(rolls) < 400 and all(roll.shape[1:] == (88,) and len(roll) > 20 for roll in rolls.values())
    frames = np.concatenate(list(rolls.values()))
    assert frames.sum(axis=1).max() == 4 and (frames.sum(axis=1) == 4).mean() > 0.85
    # The melody of BWV 66.6 in A major, upbeat and first bar.
    assert [int(frame.nonzero()[0].max()) for frame in rolls["bwv66.6"][:5]] == [C5 + 1, A4, A4 + 2, C5 + 1, E5]
    moved = data.chorales(common_key=True)
    # Three sharps: three semitones up, to C major.
    assert ones(moved["bwv66.6"]) == [(t, key + 3) for t, key in ones(rolls["bwv66.6"])]
