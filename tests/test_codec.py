"""codec and packing: any bytes come back; damaged files and other models are refused;
the size is the model's.
"""

import io
import math
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from commands import edgecap
from conftest import REFERENCE, ROOT
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgecap.errors import EdgecapError, UsageError
from edgecap.meters import text_windows
from edgecap.meters.compression import document_bits
from edgecap.pipeline import compress
from edgecap.spec import PRECISIONS
from edgecap.text import codec, codec_format, token_coder

HEADER = codec_format.Header("fp32", 2, 16, b"m" * 8, b"t" * 4, b"r" * 4)


def test_old_files_mean_the_recipes_of_then():
    """A file stores the index of a precision; the third and fourth were int8d and int4b32."""
    packed = HEADER.pack()
    at = len(codec_format.MAGIC) + 1
    read = [
        codec_format.read_header(io.BytesIO(packed[:at] + bytes([i]) + packed[at + 1 :])).precision
        for i in range(5)
    ]
    assert read == ["fp32", "fp16", "int8d", "int4b32", "bf16"]
    for name in PRECISIONS:
        header = HEADER._replace(precision=name)
        assert codec_format.read_header(io.BytesIO(header.pack())) == header


class Bytes:
    """A tokenizer of bytes that changes what `changes` says, as normalising ones do."""

    def __init__(self, start=256, changes=("", "")):
        self.start, self._changes = start, changes

    def encode(self, text):
        return list(text.replace(*self._changes).encode() if self._changes[0] else text.encode())

    def decode(self, ids):
        return bytes(ids).decode("utf-8", "replace")

    def is_lossless(self, text, ids):
        return self.decode(ids) == text


class Model:
    """Knows which byte follows which: logits depend on the last token and the place only."""

    def __init__(self, vocabulary=257, seed=0):
        self.vocabulary = vocabulary
        self._table = np.random.default_rng(seed).normal(0, 3, (64, vocabulary)).astype(np.float32)

    def step(self, cache, tokens):
        at = cache or 0
        return self._table[(tokens + at) % 64], at + 1

    def nll(self, inputs, targets):
        logits = self._table[(inputs + np.arange(len(inputs))) % 64].astype(np.float64)
        return (
            np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(targets)), targets]
        ) / math.log(2)


def quiet(done, total):
    assert 0 <= done <= total


def press(data, tokenizer=None, model=None, header=HEADER):
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
        source.write(data)
        source.seek(0)
        found = codec.compress(
            source, target, header, model or Model(), tokenizer or Bytes(), quiet
        )
        target.seek(0)
        return target.read(), found


def restore(packed, tokenizer=None, model=None):
    with tempfile.TemporaryFile() as source:
        source.write(packed)
        codec_format.check_checksum(source)
        header, out = codec_format.read_header(source), io.BytesIO()
        found = codec.decompress(source, out, header, model or Model(), tokenizer or Bytes(), quiet)
        assert found.plain_bytes == len(out.getvalue())
        return out.getvalue()


@settings(max_examples=60)
@given(
    st.one_of(
        st.binary(max_size=400),
        st.text(max_size=300).map(lambda t: t.encode("utf-8", "surrogatepass")),
    )
)
@example(b"")
@example(b"\x00")
@example("é".encode()[:1])
def test_any_bytes_come_back(data):
    for tokenizer in (Bytes(), Bytes(start=None), Bytes(changes=("a", "b"))):
        assert restore(press(data, tokenizer)[0], tokenizer) == data


@settings(max_examples=20)
@given(st.text(min_size=1, max_size=3000))
def test_the_size_is_the_summed_nll(text):
    data = text.encode()
    for start in (256, None):
        packed, found = press(data, Bytes(start))
        cut = text_windows.exact_cutter(Bytes(start), HEADER.context, 257)(text)
        bits = document_bits(Model(), cut)
        assert found.nll_bits == pytest.approx(bits, rel=1e-6)
        assert bits / 8 <= len(packed) <= 1.001 * bits / 8 + 64


def test_a_vocabulary_as_large_as_they_come_costs_nothing_extra():
    model, ids = Model(vocabulary=151_936), list(np.random.default_rng(1).integers(0, 151_936, 200))
    coded, bits = token_coder.encode_tokens([int(i) for i in ids], 64, model, 0, quiet)
    assert 8 * len(coded) <= 1.001 * bits + 64
    assert token_coder.decode_tokens(coded, len(ids), 64, model, 0, quiet) == ids


def test_large_input_is_cut_into_pieces(monkeypatch):
    monkeypatch.setattr(codec, "PIECE_BYTES", 1000)
    for data in (("Zeile für Zeile, 行. " * 200).encode(), b"\xff\x80" * 1500, "é".encode() * 1500):
        assert restore(press(data)[0]) == data


def test_text_that_the_tokenizer_changes_is_stored_and_its_neighbours_are_not():
    data = ("plain words\n" * 400 + "strange\n" + "plain words\n" * 400).encode()
    packed, found = press(data, Bytes(changes=("strange", "x")))
    assert restore(packed, Bytes(changes=("strange", "x"))) == data
    assert 0 < found.stored_bytes <= codec.MIN_PIECE_BYTES


def test_another_space_in_front_is_no_reason_to_store():
    class Spaced(Bytes):
        def decode(self, ids):
            return " " + super().decode(ids)

    packed, found = press(b"a text", Spaced())
    assert restore(packed, Spaced()) == b"a text"
    assert found.stored_bytes == 0


@given(st.data())
def test_an_altered_or_truncated_file_is_refused(data):
    packed, _ = press(b"The quick brown fox jumps over the lazy dog. " * 3)
    if data.draw(st.booleans()):
        broken = packed[: data.draw(st.integers(0, len(packed) - 1))]
    else:
        at = data.draw(st.integers(0, len(packed) - 1))
        broken = (
            packed[:at] + bytes([packed[at] ^ data.draw(st.integers(1, 255))]) + packed[at + 1 :]
        )
    with pytest.raises(EdgecapError):
        restore(broken)


def test_another_model_is_noticed_even_where_its_hash_is_not_checked():
    packed, _ = press(b"The quick brown fox jumps over the lazy dog. " * 3)
    with pytest.raises(EdgecapError, match="checksum|damaged"):
        restore(packed, model=Model(seed=1))


def test_an_impossible_token_costs_what_the_coder_pays():
    model = token_coder._Distribution.of(np.array([0.0, -60.0, -900.0, 0.0]))
    assert model.bits(1) == model.bits(2) == token_coder.MAX_TOKEN_BITS
    assert model.bits(0) == pytest.approx(1.0)


def test_nan_is_an_error():
    class Broken(Model):
        def step(self, cache, tokens):
            return np.full((len(tokens), 257), np.nan, np.float32), 1

    with pytest.raises(codec_format.CodecError, match="NaN"):
        press(b"text", model=Broken())


def test_not_a_compressed_file():
    with pytest.raises(UsageError, match="not made by edgecap"):
        codec_format.read_header(io.BytesIO(b"%PDF-1.4"))


# --- the commands, on the real model ----------------------------------------------------------


@pytest.fixture(scope="module")
def packed(cache, tmp_path_factory):
    """A text with a literal special token, some Chinese, and bytes that are no text;
    and its compressed file.
    """
    place = tmp_path_factory.mktemp("packed")
    text = (ROOT / "README.md").read_text()[:3000] + "<|endoftext|> 中文也行。\r\n"
    (place / "in").write_bytes(text.encode() + b"\xff\xfe\x00")
    done = edgecap(
        "compress", place / "in", "-o", place / "out.ecap", "--cache", cache, "--context", 128
    )
    assert done.returncode == 0, done.stderr
    return place


def test_compress_and_decompress(packed, cache, tmp_path):
    assert (packed / "out.ecap").stat().st_size < 0.6 * (packed / "in").stat().st_size
    found = edgecap("decompress", packed / "out.ecap", "-o", tmp_path / "again", "--cache", cache)
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "again").read_bytes() == (packed / "in").read_bytes()


@pytest.mark.slow
def test_the_file_is_as_long_as_the_models_bits(cache, tmp_path):
    text = (ROOT / "docs/method.md").read_text()[:4000]
    (tmp_path / "in.txt").write_text(text)
    done = edgecap("compress", tmp_path / "in.txt", "-o", tmp_path / "out", "--cache", cache)
    assert done.returncode == 0, done.stderr
    words = (
        "--corpus",
        tmp_path / "in.txt",
        "--precision",
        "fp32",
        "--limit",
        0.5,
        "--json",
        "--cache",
        cache,
    )
    record = edgecap("profile", *words, "-o", tmp_path / "profiles")
    import json

    scored = json.loads(record.stdout)["cells"][0]["outcome"]["compression"]
    bits = scored["bits_per_byte"] * scored["bytes"]
    assert bits / 8 <= (tmp_path / "out").stat().st_size <= 1.001 * bits / 8 + 64


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("decompress", "{out}", "--model", "{other}"), "another model"),
        (("decompress", "{in}"), "not made by edgecap compress"),
        (("decompress", "{out}", "--precision", "int8"), "No such option"),
        (("compress", "{nothing}"), "is not there"),
        (("compress", "{folder}"), "is a folder"),
        (("compress", "{in}", "--precision", "int9"), "unknown precision"),
        (("compress", "{in}", "--precision", "int8,int4"), "takes one precision"),
        (("compress", "{in}", "--provider", "cuda"), "not available"),
        (("compress", "{in}", "--context", "100000"), "longer than the model's"),
        (("compress", "{in}", "--threads", "300"), "at most 255"),
        (("compress", "{in}", "--provider", "cpu,cuda"), "one provider"),
        (("compress", "-"), "standard input"),
    ],
)
def test_wrong_requests_end_with_two(packed, cache, tmp_path, tiny, words, said):
    names = {
        "out": packed / "out.ecap",
        "in": packed / "in",
        "other": tiny,
        "nothing": tmp_path / "no",
        "folder": tmp_path,
    }
    done = edgecap(*(w.format(**names) for w in words), "-o", tmp_path / "new", "--cache", cache)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())
    assert not (tmp_path / "new").exists()


def test_another_runtime_and_a_cut_file_are_refused(packed, cache, tmp_path):
    whole = (packed / "out.ecap").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-100])
    done = edgecap("decompress", tmp_path / "cut", "-o", tmp_path / "new", "--cache", cache)
    assert done.returncode == 1 and "cut short or was altered" in " ".join(done.stderr.split())

    import struct
    import zlib

    header = codec_format.read_header(io.BytesIO(whole))._replace(runtime=b"else")
    body = header.pack() + whole[len(header.pack()) : -4]
    (tmp_path / "elsewhere").write_bytes(body + struct.pack("<I", zlib.crc32(body)))
    done = edgecap("decompress", tmp_path / "elsewhere", "-o", tmp_path / "new", "--cache", cache)
    assert done.returncode == 2 and "another processor, ONNX Runtime" in " ".join(
        done.stderr.split()
    )
    assert not (tmp_path / "new").exists()
    assert REFERENCE.exists()


@pytest.mark.kill
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_terminated_run_leaves_nothing(cache, tmp_path):
    (tmp_path / "in").write_text("A sentence that goes on. " * 4000)
    words = [sys.executable, "-m", "edgecap", "compress", "in", "-o", "out", "--cache", str(cache)]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as run:
        next(line for line in run.stderr if "compress" in line)
        run.terminate()
        assert "interrupted" in run.stderr.read()
    assert run.returncode == 130
    assert [p.name for p in tmp_path.iterdir() if p.name != "in"] == []


def test_a_name_that_is_taken_meanwhile_is_left(tmp_path):
    scratch, target = tmp_path / "scratch", tmp_path / "target"
    scratch.write_bytes(b"new")
    target.write_bytes(b"old")
    with pytest.raises(UsageError, match="made by someone else"):
        compress._rename(scratch, target)
    assert target.read_bytes() == b"old"


@pytest.mark.slow
def test_a_folder_without_fp32_is_compressed_with_what_it_holds(cache, tmp_path):
    done = edgecap("export", "--precision", "int8", "-o", tmp_path / "int8", "--cache", cache)
    assert done.returncode == 0, done.stderr
    (tmp_path / "in").write_text("A short text for a small device.")
    words = ("--model", tmp_path / "int8", "--cache", cache)
    done = edgecap("compress", tmp_path / "in", "-o", tmp_path / "new/folder/out", *words)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "new/folder/out").open("rb") as file:
        assert codec_format.read_header(file).precision == "int8"
    assert (
        edgecap(
            "decompress", tmp_path / "new/folder/out", "-o", tmp_path / "again", *words
        ).returncode
        == 0
    )
    assert (tmp_path / "again").read_bytes() == (tmp_path / "in").read_bytes()
    done = edgecap("compress", tmp_path / "in", "-o", tmp_path / "x", "--precision", "fp32", *words)
    assert done.returncode == 2 and "fp32" in done.stderr
