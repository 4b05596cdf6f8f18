"""Files: what is saved comes back bit for bit, from any damaged file an error, and a save that fails or is killed changes nothing."""

import errno
import json
import os
import pathlib
import pickle
import random
import signal
import stat
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_rnn as tg
from tinygrad_rnn import atomic, files
from tinygrad_rnn.atomic import atomic_write
from tinygrad_rnn.files import FileError, MissingFileError, Tensors, load, save

DTYPES = [np.dtype(t) for t in "? i1 u1 i2 u2 i4 u4 i8 u8 f2 f4 f8 q Q".split()]


def laws(examples):
    return settings(derandomize=True, deadline=None, max_examples=examples, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def same(loaded, arrays):
    """The same names, dtypes, shapes and bits, NaNs and signed zeros included."""
    assert sorted(arrays) == list(loaded)
    for name, array in arrays.items():
        ours = loaded[name]
        assert type(ours) is tg.Tensor and not ours.requires_grad
        assert (ours.dtype, ours.shape) == (array.dtype.newbyteorder("="), array.shape)
        assert ours.numpy().tobytes() == array.astype(ours.dtype).tobytes()


def twisted(array, turns):
    """The same kind of array with other strides."""
    for turn in turns:
        if turn == "fortran":
            array = np.asfortranarray(array) if array.ndim else array
        elif turn == "transposed":
            array = array.T
        elif turn == "reversed":
            array = array[(slice(None, None, -1),) * array.ndim]
        elif turn == "strided":
            array = np.repeat(array, 2, 0)[::2] if array.ndim else array
        elif turn == "broadcast":
            array = np.broadcast_to(array, (2, *array.shape))
        elif turn == "swapped":
            array = array.astype(array.dtype.newbyteorder(">"))
        elif turn == "readonly":
            array = array.copy()
            array.flags.writeable = False
        elif turn == "unaligned":
            raw = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
            raw[...] = array
            array = raw
    return array


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name != "__metadata__")
turns = st.lists(st.sampled_from("fortran transposed reversed strided broadcast swapped readonly unaligned".split()), max_size=3)
arrays = st.tuples(hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)), turns).map(lambda pair: twisted(*pair))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
    max_leaves=8,
)


@laws(150)
@given(st.dictionaries(names, arrays, max_size=4), st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values, max_size=3))
def test_any_arrays_and_metadata_come_back(path, arrays, metadata):
    save(path, arrays, metadata)
    loaded = load(path)
    assert isinstance(loaded, Tensors) and loaded.metadata == metadata
    same(loaded, arrays)
    # The file is one of the format's own reader too.
    from safetensors.numpy import load_file

    for name, array in load_file(path).items():
        np.testing.assert_array_equal(array, arrays[name])


def test_tensors_are_saved_as_their_values(path):
    W = tg.randn(3, 2, rng=0, requires_grad=True)
    saved = {"W": W, "product": W @ W.T, "turned": W.T, "flag": tg.tensor(True), "scalar": np.float32(3)}
    save(path, saved)
    loaded = load(path)
    same(loaded, {name: v.numpy() if isinstance(v, tg.Tensor) else np.asarray(v) for name, v in saved.items()})
    assert loaded.metadata == {}
    with tg.no_grad():
        loaded["W"] += 1.0
        W.assign_(loaded["W"])


def test_metadata_that_json_changes_or_writes_in_its_own_way(path):
    save(path, {}, {"loss": [float("inf"), -0.0], "shape": (2, (3,)), "rate": np.float64(0.1), "none": {}})
    assert load(path).metadata == {"loss": [float("inf"), 0.0], "shape": [2, [3]], "rate": 0.1, "none": {}}
    save(path, {}, {"loss": float("nan")})
    assert np.isnan(load(path).metadata["loss"])


def test_names_come_back_sorted_and_the_bytes_are_the_same_again(path):
    tensors = {name: tg.zeros(k) for k, name in enumerate("zebra b a 10 9 é".split())}
    save(path, tensors, {"b": 1, "a": {"z": 2, "y": 3}})
    assert list(load(path)) == sorted(tensors)
    code = "import sys; from tinygrad_rnn.files import load, save; f = load(sys.argv[1]); save(sys.argv[1] + '2', dict(reversed(f.items())), f.metadata)"
    subprocess.run([sys.executable, "-c", code, path], check=True)
    assert path.with_name(path.name + "2").read_bytes() == path.read_bytes()


def test_paths_are_strings_or_path_like(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a", pathlib.Path("b"), tmp_path / ("ü" * 120)):
        save(path, {"x": tg.ones(1)})
        same(load(path), {"x": np.ones(1, np.float32)})


EXAMPLE = {"W": np.arange(6, dtype=np.float32).reshape(2, 3), "on": np.array([True, False]), "none": np.zeros((0, 2)), "é": np.array(-3, np.int16)}
METADATA = {"hidden": 2, "rate": 0.5, "name": "ü", "null": None}


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "example"
    save(path, EXAMPLE, METADATA)
    return path.read_bytes()


@laws(600)
@given(st.data(), st.integers(1, 255))
def test_no_changed_byte_goes_unseen(path, content, data, change):
    position = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[position] ^= change
    path.write_bytes(damaged)
    try:
        loaded = load(path)
    except FileError as error:
        assert str(path) in str(error)
    else:
        # Some bytes mean the same, as the case of a hexadecimal digit does.
        same(loaded, EXAMPLE)
        assert loaded.metadata == METADATA


def test_no_flipped_bit_of_the_record_or_the_numbers_goes_unseen(path, content):
    flips = random.Random(0)
    for start, end in (content.index(b"__metadata__"), content.index(b"metadata\\") + 8), (len(content) - 28, len(content)):
        for position in range(start, end):
            damaged = bytearray(content)
            damaged[position] ^= 1 << flips.randrange(8)
            path.write_bytes(damaged)
            with pytest.raises(FileError):
                load(path)


def test_every_truncation_and_anything_appended_is_seen(path, content):
    for n in range(len(content)):
        path.write_bytes(content[:n])
        with pytest.raises(FileError):
            load(path)
    for more in b"\0", b" ", b"}", content:
        path.write_bytes(content + more)
        with pytest.raises(FileError, match="header"):
            load(path)


def picture():
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(50)


def other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02.")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"{", "begins with"),
        (picture(), "PNG"),
        (other_zip, "zip archive"),
        (pickle.dumps({"weights": [1.0]}), "pickle"),
        (b"To be, or not to be, that is the question", "begins with b'To be, o'"),
        (b"step,los{s", "header should have"),
        ((1 << 63).to_bytes(8, "little") + b"{}" + bytes(100), "header should have 9223372036854775808 bytes, and only 102 follow"),
        ((102).to_bytes(8, "little") + b"{}" + bytes(100), "cut short, damaged"),
        ((2).to_bytes(8, "little") + b"{]", "cut short, damaged"),
        ((14).to_bytes(8, "little") + b'{"a":"\xff\xff\xff"}  ', "cut short, damaged"),
        ((100_000_100).to_bytes(8, "little") + b"{}".ljust(100_000_100), "too large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_kinds_of_files(path, content, says):
    content(path) if callable(content) else path.write_bytes(content)
    with pytest.raises(FileError) as caught:
        load(path)
    assert isinstance(caught.value, tg.errors.TinygradError) and isinstance(caught.value, ValueError)
    for part in (str(path), says, "safetensors"):
        assert part in str(caught.value)


def test_a_pickle_is_never_run(path):
    class Trap:
        def __reduce__(self):
            return pathlib.Path.touch, (path.with_name("sprung"),)

    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(FileError, match="pickle"):
        load(path)
    assert not path.with_name("sprung").exists()


def test_missing_files_and_folders(path):
    with pytest.raises(MissingFileError, match="no such file") as caught:
        load(path)
    assert isinstance(caught.value, FileNotFoundError) and isinstance(caught.value, FileError) and str(path) in str(caught.value)
    with pytest.raises(FileError, match="is a folder"):
        load(path.parent)
    with pytest.raises(MissingFileError, match="there is no folder"):
        save(path / "x", {})
    with pytest.raises(FileError, match="is a folder"):
        save(path.parent, {})
    with pytest.raises(FileError, match="is a device"):
        save("/dev/null", {})
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.listdir(path.parent) == []


def test_a_newer_version_is_refused_if_its_major_number_is_higher(path, monkeypatch):
    for version, newer in ("1.7", False), ("2.0", True), ("10.3", True):
        with monkeypatch.context() as patch:
            patch.setattr(files, "_FORMAT", f"tinygrad_rnn {version}")
            save(path, EXAMPLE, METADATA)
        if newer:
            with pytest.raises(FileError, match=rf"{version}.*newer version.*tinygrad_rnn 1\.0.*upgrade"):
                load(path)
        else:
            same(load(path), EXAMPLE)


RECORD = {"format": "tinygrad_rnn 1.0", "checksum": "sha256:0", "metadata": {}}


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"tinygrad_rnn": json.dumps(RECORD)}, "checksum"),
        ({"tinygrad_rnm": json.dumps(RECORD)}, "damaged"),
        ({"tinygrad_rnn": json.dumps({k: v for k, v in RECORD.items() if k != "checksum"})}, "cannot be read"),
        ({"tinygrad_rnn": json.dumps({k: v for k, v in RECORD.items() if k != "metadata"})}, "cannot be read"),
        ({"tinygrad_rnn": json.dumps(RECORD | {"format": "tinygrad_rnn"})}, "cannot be read"),
        ({"tinygrad_rnn": json.dumps(RECORD | {"format": 1})}, "cannot be read"),
        ({"tinygrad_rnn": "[]"}, "cannot be read"),
        ({"tinygrad_rnn": "[" * 100_000}, "cannot be read"),
        ({"tinygrad_rnn": ""}, "cannot be read"),
    ],
)
def test_records_that_are_not_as_they_were_saved(path, entries, says):
    from safetensors.numpy import save_file

    save_file(EXAMPLE, path, entries)
    with pytest.raises(FileError, match=says):
        load(path)


def test_tensors_that_another_program_changed_are_seen(path):
    from safetensors.numpy import load_file, save_file

    save(path, EXAMPLE, METADATA)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    entries, tensors = json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"], load_file(path)
    save_file(tensors, path, entries)
    same(load(path), EXAMPLE)
    for changed in ({"W": tensors["W"] + 1}, {"W": tensors["W"].T.copy()}, {"W": tensors["W"].view(np.int32)}, {"more": tensors["W"]}):
        save_file(tensors | changed, path, entries)
        with pytest.raises(FileError, match="another program"):
            load(path)
    save_file({name: tensors[name] for name in ("W", "on")}, path, entries)
    with pytest.raises(FileError, match="another program"):
        load(path)


def test_files_of_other_programs(path):
    from safetensors.numpy import save_file

    for metadata in None, {"format": "pt", "step": "3", "tinygrad_rnn is": "not here"}:
        save_file(EXAMPLE, path, metadata)
        loaded = load(path)
        same(loaded, EXAMPLE)
        assert loaded.metadata == (metadata or {})


def foreign(path, dtype, shape, data):
    header = json.dumps({"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def test_bools_are_true_for_any_byte_but_zero(path):
    foreign(path, "BOOL", [3], b"\0\1\2")
    loaded = load(path)["x"].numpy()
    assert loaded.dtype == bool and loaded.tobytes() == b"\0\1\1"


def test_bfloat16_becomes_float32(path):
    # Sign, eight bits of exponent, seven of mantissa.
    bits = {0x0000: 0.0, 0x8000: -0.0, 0x3F80: 1.0, 0xBF80: -1.0, 0x4049: 3.140625, 0x7F80: np.inf, 0xFF80: -np.inf, 0x0001: 2.0**-133, 0x7F7F: 255 * 2.0**120}
    foreign(path, "BF16", [3, 3], b"".join(b.to_bytes(2, "little") for b in bits))
    same(load(path), {"x": np.array(list(bits.values()), np.float32).reshape(3, 3)})
    foreign(path, "BF16", [0, 2], b"")
    assert load(path)["x"].shape == (0, 2)


def test_dtypes_that_numpy_or_the_package_does_not_have(path):
    for dtype, size in ("F8_E4M3", 1), ("F8_E5M2", 1), ("C64", 8):
        foreign(path, dtype, [2], bytes(2 * size))
        with pytest.raises(tg.errors.DtypeError) as caught:
            load(path)
        assert all(part in str(caught.value) for part in (str(path), "'x'", dtype, "F32", "BF16"))


def test_exchange_with_pytorch(path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    dtypes = [t for t in DTYPES if t.char not in "qQ"]
    tensors = {t.name: np.arange(6).reshape(2, 3).astype(t) for t in dtypes} | {"scalar": np.array(2.5), "none": np.zeros((0, 3), np.float32)}
    save(path, tensors | {"turned": tensors["float32"].T}, {"by": "us"})
    theirs = load_file(path)
    assert sorted(theirs) == sorted([*tensors, "turned"])
    for name, array in (tensors | {"turned": tensors["float32"].T}).items():
        assert theirs[name].numpy().dtype == array.dtype
        np.testing.assert_array_equal(theirs[name].numpy(), array)
    half = torch.tensor([1.5, -3.0, 1e30]).to(torch.bfloat16)
    save_file({**{name: torch.from_numpy(array) for name, array in tensors.items()}, "half": half}, path, {"format": "pt"})
    loaded = load(path)
    assert loaded.metadata == {"format": "pt"}
    same(loaded, tensors | {"half": half.float().numpy()})


def test_weights_of_a_pytorch_module(path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_model, save_model

    first, second = torch.nn.LSTM(3, 4, 2), torch.nn.LSTM(3, 4, 2)
    save_model(first, path)
    weights = load(path)
    same(weights, {name: p.numpy(force=True) for name, p in first.state_dict().items()})
    save(path, weights, weights.metadata)
    load_model(second, path)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


E = tg.errors
BAD = [
    (lambda: {"x": [1.0]}, None, E.DtypeError, ["'x'", "list"]),
    (lambda: {"x": np.zeros(2, complex)}, None, E.DtypeError, ["'x'", "complex128"]),
    (lambda: {"x": np.zeros(2, np.longdouble)}, None, E.DtypeError, ["'x'", str(np.dtype(np.longdouble))]),
    (lambda: {"x": np.array(["a"])}, None, E.DtypeError, ["'x'", "<U1"]),
    (lambda: {"x": np.array([None])}, None, E.DtypeError, ["'x'", "object"]),
    (lambda: {"x": np.zeros(2, "f4,i4")}, None, E.DtypeError, ["'x'"]),
    (lambda: {"x": np.zeros(2, "M8[s]")}, None, E.DtypeError, ["'x'", "datetime64"]),
    (lambda: {3: np.zeros(2)}, None, E.DtypeError, ["3", "string"]),
    (lambda: {"__metadata__": np.zeros(2)}, None, E.ShapeError, ["__metadata__"]),
    (lambda: {"\ud800": np.zeros(2)}, None, E.ShapeError, ["ud800"]),
    (lambda: {"\udfff": np.zeros(2)}, None, E.ShapeError, ["udfff"]),
    (lambda: [np.zeros(2)], None, E.DtypeError, ["dict", "list"]),
    (lambda: {}, [1], E.DtypeError, ["metadata", "list"]),
    (lambda: {}, {"a": {"b": [0, {1}]}}, E.DtypeError, ["metadata['a']['b'][1]", "set"]),
    (lambda: {}, {"a": np.float32(1)}, E.DtypeError, ["metadata['a']", "float32"]),
    (lambda: {}, {"a": tg.ones(1)}, E.DtypeError, ["metadata['a']", "Tensor"]),
    (lambda: {}, {"a": b"x"}, E.DtypeError, ["bytes"]),
    (lambda: {}, {"a": {1: 2}}, E.DtypeError, ["metadata['a']", "key 1"]),
]


@pytest.mark.parametrize("k", range(len(BAD)))
def test_what_cannot_be_saved_is_refused_before_anything_is_written(path, content, k):
    path.write_bytes(content)
    tensors, metadata, kind, parts = BAD[k]
    with pytest.raises(kind) as caught:
        save(path, tensors(), metadata)
    assert all(part in str(caught.value) for part in ("save", *parts))
    assert path.read_bytes() == content and os.listdir(path.parent) == [path.name]


def failing(stream):
    stream.write(b"half of it")
    stream.flush()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupted(stream):
    stream.write(b"half of it")
    raise KeyboardInterrupt


def odd(stream):
    raise OSError("no number")


@pytest.mark.parametrize(("write", "kind", "says"), [(failing, OSError, "No space"), (interrupted, KeyboardInterrupt, None), (odd, OSError, "no number")])
@pytest.mark.parametrize("exists", [True, False])
def test_a_write_that_fails_changes_nothing(path, content, exists, write, kind, says):
    if exists:
        path.write_bytes(content)
    with pytest.raises(kind, match=says) as caught:
        atomic_write(path, write)
    if write is failing:
        assert caught.value.errno == errno.ENOSPC and str(path) in str(caught.value)
    assert os.listdir(path.parent) == [path.name] * exists
    assert not exists or path.read_bytes() == content


class FullDisk:
    def __init__(self, stream, full):
        self.stream, self.full = stream, full

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()

    def write(self, data):
        self.stream.write(data[: len(data) // 2])
        self.full()


@pytest.mark.parametrize("step", ["fsync", "replace", "write"])
def test_a_save_that_fails_at_any_step_changes_nothing(path, content, monkeypatch, step):
    path.write_bytes(content)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "write":
        monkeypatch.setattr(atomic, "open", lambda *args: FullDisk(open(*args), full), raising=False)  # noqa: SIM115
    else:
        monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space") as caught:
        save(path, {"other": tg.ones(1000)})
    assert str(path) in str(caught.value)
    monkeypatch.undo()
    assert path.read_bytes() == content and os.listdir(path.parent) == [path.name]


def test_a_disk_that_really_takes_no_more(path, content):
    resource = pytest.importorskip("resource")
    path.write_bytes(content)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            save(path, {"large": tg.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG and str(path) in str(caught.value)
    assert path.read_bytes() == content and os.listdir(path.parent) == [path.name]


def test_the_data_are_on_the_disk_before_the_name(path, monkeypatch):
    seen = []

    def watch(name, real):
        def watched(*args):
            if name == "fsync" and stat.S_ISREG(os.fstat(args[0]).st_mode):
                seen.append((name, os.fstat(args[0]).st_size))
            else:
                seen.append((name, path.exists()))
            return real(*args)

        monkeypatch.setattr(os, name, watched)

    watch("fsync", os.fsync)
    watch("replace", os.replace)
    atomic_write(path, b"x" * 10_000)
    assert seen[:2] == [("fsync", 10_000), ("replace", False)]
    assert os.name != "posix" or seen[2:] == [("fsync", True)]


def test_permissions_and_links(tmp_path):
    if os.name != "posix":
        pytest.skip("permissions and links of POSIX")
    path, link = tmp_path / "file", tmp_path / "link"
    mask = os.umask(0o026)
    try:
        atomic_write(path, b"1")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    link.symlink_to("file")
    atomic_write(link, b"2")
    assert link.is_symlink() and path.read_bytes() == b"2" and stat.S_IMODE(path.stat().st_mode) == 0o604
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def child(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def test_a_process_killed_in_the_middle_of_a_save_leaves_the_previous_file(path, content):
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("no SIGKILL")
    path.write_bytes(content)
    code = """
import sys, time
import tinygrad_rnn as tg
from tinygrad_rnn import atomic, files
class Slow:
    def __init__(self, stream): self.stream = stream
    def __enter__(self): return self
    def __exit__(self, *_): self.stream.close()
    def write(self, data):
        self.stream.write(data[: len(data) // 2])
        self.stream.flush()
        print("half", flush=True)
        time.sleep(60)
atomic.open = lambda *args: Slow(open(*args))
files.save(sys.argv[1], {"other": tg.ones(100_000)})
"""
    with child(code, path) as process:
        assert process.stdout.readline() == "half\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == content
    same(load(path), EXAMPLE)
    (left,) = set(os.listdir(path.parent)) - {path.name}
    assert left.startswith(f".{path.name}.") and left.endswith(".tmp")


def test_a_file_that_is_saved_all_the_time_is_whole_whenever_its_writer_is_killed(path):
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("no SIGKILL")
    code = """
import itertools, sys
import numpy as np
from tinygrad_rnn.files import save
for step in itertools.count():
    save(sys.argv[1], {"x": np.full(50_000, step)}, {"step": step})
    if not step: print("begun", flush=True)
"""
    wait = random.Random(0)
    for _ in range(4):
        with child(code, path) as process:
            assert process.stdout.readline() == "begun\n"
            until = time.monotonic() + wait.uniform(0, 0.1)
            while time.monotonic() < until:
                loaded = load(path)
                assert (loaded["x"] == loaded.metadata["step"]).all()
            process.kill()
        loaded = load(path)
        assert loaded["x"].shape == (50_000,) and (loaded["x"] == loaded.metadata["step"]).all()


def test_nothing_is_imported_before_it_is_needed():
    code = "import sys, tinygrad_rnn.files; assert not {'safetensors', 'torch', 'pickle'} & set(sys.modules) - before"
    subprocess.run([sys.executable, "-c", "import sys, numpy, tinygrad_rnn; before = set(sys.modules); " + code], check=True)
