"""The command line, as its user runs it."""

import os

import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import __main__ as command
from tinygrad_rnn import nn

SMALL = ["--hidden", "16", "--embedding", "8", "--window", "16", "--batch", "8", "--steps", "12"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    command.main(["train", *SMALL, "--out", str(folder)])
    return folder


def test_train_leaves_all_it_promises(trained, capsys):
    names = set(os.listdir(trained))
    assert {"model.safetensors", "checkpoint.safetensors", "history.csv", "graph.dot"} <= names
    text = (trained / "graph.dot").read_text()
    assert "t = 3" in text and "t = 4" not in text and "weight_hh_l0" in text
    assert isinstance(nn.load_model(trained / "model.safetensors"), nn.LanguageModel)
    assert len(tg.load(trained / "model.safetensors").metadata["vocabulary"]) > 100
    # To go on is to end where a run that was never stopped ends.
    command.main(["train", *SMALL[:-1], "12", "--out", str(trained), "--resume"])
    printed = capsys.readouterr().out
    assert "4-gram (Witten-Bell)" in printed and "6-gram" in printed and "a sample:" in printed


def test_generate_repeats_with_its_seed(trained, capsys):
    for _ in range(2):
        command.main(["generate", str(trained), "--length", "30", "--seed", "3", "--prompt", "The ", "--top-k", "5"])
    command.main(["generate", str(trained), "--length", "30", "--temperature", "0"])
    first, second = capsys.readouterr().out[:35], None
    del second
    assert first.startswith("The ") and len(first) == 35


def test_graph_and_info(trained, tmp_path, capsys):
    command.main(["graph", str(trained), "--steps", "2", "--out", str(tmp_path / "g.dot")])
    assert "t = 2" in (tmp_path / "g.dot").read_text()
    command.main(["info", str(trained)])
    printed = capsys.readouterr().out
    assert "LanguageModel(" in printed and "vocabulary: 103 symbols" in printed and "bits:" in printed


def test_a_text_of_ones_own(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("the cat sat on the mat. " * 200, encoding="utf-8")
    command.main(["train", str(tmp_path / "t.txt"), *SMALL, "--cell", "gru", "--out", str(tmp_path / "m")])
    assert "GRU, 16 units" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: COMMAND"),
        (["paint"], "invalid choice"),
        (["train", "--hidden", "0"], "argument --hidden: expected a positive whole number, got '0'"),
        (["train", "--lr", "nan"], "--lr: expected a positive number"),
        (["train", "--dropout", "1"], "--dropout"),
        (["train", "--cell", "elman"], "--cell"),
        (["train", "missing.txt"], "there is no file missing.txt"),
        (["train", "empty.txt"], "is empty"),
        (["train", "latin.txt"], "is not utf-8: byte 0xe4"),
        (["train", "short.txt"], "the text is too short: 10 characters"),
        (["train", "."], "is a folder"),
        (["generate", "missing"], "missing"),
        (["generate", "short.txt"], "short.txt"),
        (["generate", "linear"], "holds a Linear"),
        (["info", "broken"], "broken"),
        (["graph", "short.txt", "--out", "x.bmp"], "expected a name that ends in .dot"),
        (["generate", "linear", "--temperature", "-1"], "--temperature"),
        (["train", "--seed", "-1"], "--seed: expected a whole number of at least 0"),
    ],
)
def test_every_bad_argument_is_one_line_and_status_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "short.txt").write_text("0123456789")
    (tmp_path / "latin.txt").write_bytes("äöü".encode("latin-1") * 1000)
    nn.save_model("linear", nn.Linear(2, 2, rng=0))
    (tmp_path / "broken").write_bytes((tmp_path / "linear").read_bytes()[:-3])
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and "Traceback" not in error
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["train", "generate", "graph", "info"])
def test_help_teaches(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main([name, "--help"])
    assert stopped.value.code == 0 and len(capsys.readouterr().out) > 200


def test_an_unknown_symbol_in_the_prompt(trained, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["generate", str(trained), "--prompt", "火"])
    assert stopped.value.code == 2 and "火" in capsys.readouterr().err


def test_a_run_is_resumed_as_it_was_started(trained, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["train", *SMALL, "--lr", "0.5", "--out", str(trained), "--resume"])
    assert stopped.value.code == 2 and "lr was 0.004, now 0.5" in capsys.readouterr().err
    command.main(["train", *SMALL, "--out", str(tmp_path / "new"), "--resume"])
    assert "there is nothing to resume" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        command.main(["train", *SMALL, "--out", str(tmp_path / "file")])
    assert "is a file, expected a folder" in capsys.readouterr().err


def test_a_run_by_the_clock_has_no_number_of_steps(tmp_path, capsys):
    command.main(["train", *SMALL[:-2], "--minutes", "0.02", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "seconds passed" in printed and len((tmp_path / "history.csv").read_text().splitlines()) > 3


def test_a_checkpoint_can_write_too(trained, capsys):
    command.main(["generate", str(trained / "checkpoint.safetensors"), "--length", "5", "--seed", "0"])
    assert capsys.readouterr().out


def test_ctrl_c_is_one_line(trained, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "write", interrupt)
    with pytest.raises(SystemExit) as stopped:
        command.main(["generate", str(trained)])
    assert stopped.value.code == 130 and capsys.readouterr().err == "\ninterrupted\n"
