"""meters, tokens: driven by fakes in milliseconds, and by the real tokenizers."""

import json
import math

import numpy as np
import pytest
from conftest import REFERENCE
from fakes import ByteTokenizer, FakeClock, FakeEngine
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_files import definition

from edgecap import stats
from edgecap.analysis.metrics import BY_NAME
from edgecap.analysis.verdict import DECIDING
from edgecap.errors import UsageError
from edgecap.meters import compression, context_sweep, divergence, latency, peaks, text_windows
from edgecap.meters.compression import WindowPlan
from edgecap.text import tokenizer
from edgecap.text.corpus import Document


def quiet(done, total):
    pass


# --- windows and compression ------------------------------------------------------------------


@given(st.lists(st.integers(1, 99), max_size=60), st.integers(2, 20), st.sampled_from([0, None]))
def test_every_token_is_scored_or_charged_once(ids, context, start):
    found = list(text_windows.split_windows(ids, start, context, 100))
    scored = [
        t
        for w in found
        for t in (
            w.targets.tolist()
            if start is not None
            else [w.inputs[0] if len(w.inputs) else None, *w.targets.tolist()]
        )
    ]
    if start is not None:
        assert scored == ids
        assert all(
            w.inputs[0] == start and len(w.inputs) == len(w.targets) <= context - 1 for w in found
        )
    else:
        assert sum(len(w.targets) + 1 for w in found) == len(ids)
        assert sum(w.charged_bits for w in found) == pytest.approx(len(found) * math.log2(100))
        assert all(len(w.targets) + 1 <= context for w in found)


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=6),
    st.integers(2, 40),
)
def test_a_uniform_model_costs_log2_vocabulary_a_token(texts, context):
    texts = [*texts, "never empty"]
    documents = [Document(id=str(i), domain="ab"[i % 2], text=t) for i, t in enumerate(texts)]
    clock = FakeClock()
    found = compression.measure_compression(
        FakeEngine(clock, vocabulary=256),
        text_windows.exact_cutter(ByteTokenizer(), context, 256),
        documents,
        WindowPlan("exact", context),
        clock,
    )
    size = sum(len(t.encode()) for t in texts)
    assert (found.bytes, found.tokens, found.documents) == (size, size, len(texts))
    assert found.bits_per_byte == pytest.approx(8.0)
    assert found.gain_bits_per_token == pytest.approx(0.0, abs=1e-9)
    assert sum(d.bytes for d in found.by_domain.values()) == size
    assert math.fsum(d.nll_bits for d in found.per_document) == pytest.approx(8.0 * size)


def test_without_start_token_one_byte_is_charged_in_full():
    clock = FakeClock()
    found = compression.measure_compression(
        FakeEngine(clock, 256, skill=4),
        text_windows.exact_cutter(ByteTokenizer(start=None), 8, 256),
        [Document(id="1", domain="a", text="x")],
        WindowPlan("exact", 8),
        clock,
    )
    assert found.per_document[0].nll_bits == 8.0


def test_nan_is_an_error_not_a_number():
    engine = FakeEngine(FakeClock())
    engine.nll = lambda inputs, targets: np.full(len(targets), np.nan)
    with pytest.raises(compression.NotFinite):
        compression.document_bits(engine, text_windows.exact_cutter(ByteTokenizer(), 8, 256)("abc"))


# --- divergence -------------------------------------------------------------------------------


class Peaked(FakeEngine):
    """Sure of token 0 with probability `p`."""

    def __init__(self, p):
        super().__init__(FakeClock())
        rest = (1 - p) / (self.vocabulary - 1)
        self.row = np.log2(np.array([p] + [rest] * (self.vocabulary - 1)))

    def log_probabilities(self, inputs):
        return np.tile(self.row, (len(inputs), 1))


def test_divergence_of_known_distributions():
    rows = [np.array([0, 1, 2])]
    assert divergence.measure_divergence(Peaked(0.9), Peaked(0.9), rows).bits == pytest.approx(0.0)
    p, q = 2 ** Peaked(0.9).row, 2 ** Peaked(0.7).row
    found = divergence.measure_divergence(Peaked(0.9), Peaked(0.7), rows)
    assert found.bits == pytest.approx(float((p * np.log2(p / q)).sum()))
    assert found.uniform_bits == pytest.approx(float((p * np.log2(p * 16)).sum()))


@pytest.mark.parametrize("bad", [np.nan, -np.inf, "uniform"])
def test_garbage_is_refused(bad):
    variant = FakeEngine(FakeClock())
    if bad != "uniform":
        variant.log_probabilities = lambda inputs: np.full((len(inputs), 16), bad)
    with pytest.raises(divergence.Garbage):
        divergence.measure_divergence(Peaked(0.95), variant, [np.array([0, 1])])


def test_samples_are_spread_and_short():
    rows = divergence.take_samples(
        [chr(65 + i) * 500 for i in range(8)], 8, ByteTokenizer().encode, start=0, length=64, most=4
    )
    assert [r[1] for r in rows] == [65, 67, 69, 71]
    assert all(len(r) == 64 and r[0] == 0 for r in rows)
    assert len(divergence.take_samples(["", "a"], 2, ByteTokenizer().encode, None, 64, 4)) == 1


# --- latency ----------------------------------------------------------------------------------


def test_latency_of_a_steady_engine():
    clock = FakeClock()
    engine = FakeEngine(clock, speed_s=0.002)
    found = latency.measure_latency(engine, clock, latency.LatencyPlan(64, 32, 30.0), 16, quiet)
    assert set(np.round(found.decode.samples_s, 9)) == {0.002}
    assert set(np.round(found.prefill.samples_s, 9)) == {0.128}
    assert max(found.decode.rounds) + 1 >= latency.MIN_ROUNDS
    assert sum(found.prefill.samples_s) >= latency.MIN_SECONDS
    assert sum(found.decode.samples_s) >= latency.MIN_SECONDS
    assert found.decode.context == pytest.approx(32.5)
    assert not found.limit_reached
    assert clock.now() < 8


def test_token_ids_are_fresh_in_every_round():
    clock = FakeClock()
    engine = FakeEngine(clock, vocabulary=10_000)
    latency.measure_latency(engine, clock, latency.LatencyPlan(16, 32, 30.0), 10_000, quiet)
    prompts = [tuple(p) for p in engine.prompts]
    assert len(set(prompts)) == len(prompts)
    assert len(set(engine.decoded)) > 1000


def test_a_slow_engine_stops_at_the_limit():
    clock = FakeClock()
    found = latency.measure_latency(
        FakeEngine(clock, speed_s=1.0), clock, latency.LatencyPlan(4, 8, 60.0), 16, quiet
    )
    assert found.limit_reached
    assert max(found.decode.rounds) + 1 < latency.MIN_ROUNDS
    assert len(found.decode.samples_s) >= 2


def test_warm_up_waits_for_agreement():
    clock, slow = FakeClock(), iter([9.0, 7.0, 5.0, 3.0] + [1.0] * 100)

    def sample():
        taken = next(slow)
        clock.sleep(taken)
        return [taken]

    taken = latency.warm_up(sample, clock, 100.0)
    assert taken[-1] == 1.0
    assert 8 <= len(taken) < 30


# --- tokens -----------------------------------------------------------------------------------

UNIGRAM = {
    "version": "1.0",
    "added_tokens": [{"id": 0, "content": "<s>", "special": True, "single_word": False,
                      "lstrip": False, "rstrip": False, "normalized": False}],
    "normalizer": None,
    "pre_tokenizer": None,
    "post_processor": None,
    "decoder": None,
    "model": {"type": "Unigram", "unk_id": 1, "byte_fallback": False,
              "vocab": [["<s>", 0.0], ["<unk>", 0.0], ["<", -3.0], ["s", -3.0], [">", -3.0],
                        ["a", -2.0]]},
}  # fmt: skip


def test_special_tokens_in_a_text_are_text():
    reference = tokenizer.read_tokenizer(REFERENCE)
    ids = reference.encode("a <|endoftext|> b")
    assert reference.start == 0
    assert 0 not in ids
    assert reference.is_lossless("a <|endoftext|> b", ids)
    unigram = tokenizer.TextTokenizer(UNIGRAM, 0)
    assert unigram.encode("a<s>") == [5, 2, 3, 4]


def token(number, content, special):
    return {
        "id": number,
        "content": content,
        "special": special,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
    }


def test_ids_of_ordinary_added_tokens_stay_as_they_were():
    """<s> stands before <think>: taking it out must not move what follows;
    "!" is a special token and a character.
    """
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "!": 2, "<": 3, "s": 4, ">": 5}, "merges": [],
             "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False}  # fmt: skip
    added = [token(2, "!", True), token(6, "<s>", True), token(7, "<think>", False)]
    found = tokenizer.TextTokenizer({**UNIGRAM, "added_tokens": added, "model": model}, 6)
    assert found.encode("a<think>b<s>!") == [0, 7, 1, 3, 4, 5, 2]
    assert found.size == 8


def test_stories_tokenizer(shared):
    found = tokenizer.read_tokenizer(shared / "models/stories260K")
    assert (found.start, found.size) == (1, 512)
    for text in ("Once <s> upon </s>", "é世界\u2028", "<unk>", " leading"):
        ids = found.encode(text)
        assert not {0, 1, 2} & set(ids)
        assert found.is_lossless(text, ids)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_the_reference_tokenizer_loses_nothing(text):
    assert _REFERENCE.is_lossless(text, _REFERENCE.encode(text))


_REFERENCE = tokenizer.read_tokenizer(REFERENCE)


@pytest.mark.parametrize(
    ("config", "start"),
    [
        ({"bos_token": None, "eos_token": "</s>"}, 2),
        ({"bos_token": {"content": "<s>"}, "eos_token": "</s>"}, 1),
        ({"bos_token": None, "eos_token": None}, None),
        ({}, None),
    ],
)
def test_start_is_bos_else_eos_else_nothing(tmp_path, config, start):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    definition = {"added_tokens": [], "model": {"vocab": {"<s>": 1, "</s>": 2}}}
    assert tokenizer.start_token(tmp_path, definition) == start


def test_start_from_the_models_config(tmp_path):
    (tmp_path / "config.json").write_text('{"eos_token_id": [7, 8]}')
    assert tokenizer.start_token(tmp_path, {"added_tokens": [], "model": {}}) == 7


def test_broken_tokenizers(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        tokenizer.read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(UsageError, match="is not a tokenizer"):
        tokenizer.read_tokenizer(tmp_path)


def reference_with(folder, added=(), config=None, **model):
    """The reference tokenizer with more added tokens, another config, and changes of its model."""
    definition = json.loads((REFERENCE / "tokenizer.json").read_text("utf-8"))
    definition["added_tokens"] += added
    definition["model"].update(model)
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_a_text_that_the_tokenizer_cannot_code_is_refused(tmp_path):
    unigram = definition({"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]], "unk_id": None})
    (tmp_path / "tokenizer.json").write_text(json.dumps(unigram))
    tokenizer.check_ids(tmp_path, 2, ["ab", "ba"])
    with pytest.raises(UsageError, match="cannot code the text.*give it an unknown token"):
        tokenizer.check_ids(tmp_path, 2, ["ab", "abc"])


def test_a_start_token_beyond_the_embeddings_is_refused(tmp_path):
    reference_with(tmp_path, [token(8192, "<bos>", True)], {"bos_token": "<bos>"})
    with pytest.raises(UsageError, match=r"start token has id 8192, .* has 8192 embeddings"):
        tokenizer.check_ids(tmp_path, 8192)
    tokenizer.check_ids(tmp_path, 8193)
    tokenizer.check_ids(tmp_path, None)


def test_only_ids_that_text_can_have_must_be_in_the_model(tmp_path):
    reference_with(tmp_path, [token(8192, "<image>", True)], {"bos_token": None})
    tokenizer.check_ids(tmp_path, 8192)
    reference_with(tmp_path, [token(8192, "<think>", False)])
    with pytest.raises(UsageError, match=r"'<think>' has id 8192, .* has 8192 embeddings"):
        tokenizer.check_ids(tmp_path, 8192)
    with pytest.raises(UsageError, match=r"'distance' has id 8191, .* has 8000 embeddings"):
        tokenizer.check_ids(REFERENCE, 8000)


def test_an_unknown_token_beyond_the_embeddings_is_refused(tmp_path):
    model = {**UNIGRAM["model"], "unk_id": 5}
    model["vocab"] = [*[e for e in model["vocab"] if e[0] != "<unk>"], ["<unk>", 0.0]]
    added = [token(0, "<s>", True), token(5, "<unk>", True)]
    definition = {**UNIGRAM, "added_tokens": added, "model": model}
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    tokenizer.check_ids(tmp_path, 6)
    with pytest.raises(UsageError, match="'<unk>' has id 5"):
        tokenizer.check_ids(tmp_path, 5)


def test_what_the_paper_protocol_adds_must_be_in_the_model(tmp_path):
    reference_with(tmp_path, [token(8192, "<bos>", True)])
    tokenizer.check_paper_ids(tmp_path, 8192, ["a text"])
    with pytest.raises(UsageError, match="'<bos>' in the text has id 8192"):
        tokenizer.check_paper_ids(tmp_path, 8192, ["a text", "and <bos> in it"])
    definition = json.loads((tmp_path / "tokenizer.json").read_text())
    definition["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<bos>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [8192], "tokens": ["<bos>"]}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(UsageError, match="adds to each text has id 8192"):
        tokenizer.check_paper_ids(tmp_path, 8192, ["a text"])


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"tokenizer_config.json": {"bos_token": "<bos>"}}, "bos_token '<bos>'"),
        (
            {"tokenizer_config.json": {"bos_token": "<bos>"}, "added_tokens.json": {"<bos>": 9}},
            "start token has id 9, and the model has 3 embeddings",
        ),
        ({"generation_config.json": {"bos_token_id": 3}}, "start token has id 3"),
        ({"config.json": {"eos_token_id": [-2]}}, "eos_token_id in config.json is -2"),
    ],
)
def test_start_tokens_of_slow_tokenizers_are_checked(tmp_path, files, words):
    for name, content in {"vocab.json": {"a": 0, "b": 1, "</s>": 2}, **files}.items():
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(UsageError, match=words):
        tokenizer.check_slow_ids(tmp_path, 3)


def test_pieces_of_sentencepiece_are_not_looked_for(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    tokenizer.check_slow_ids(tmp_path, 3)


def test_the_paper_protocol_truncates_where_the_config_says(tmp_path):
    text = "one two three four five"
    ids = tokenizer.read_tokenizer(REFERENCE).encode(text)
    for side, kept in (("right", ids[:3]), ("left", ids[-3:])):
        reference_with(tmp_path, config={"truncation_side": side})
        shipped = tokenizer.read_paper_tokenizer(tmp_path)
        assert shipped.encode_with_specials(text, 3) == kept


@pytest.mark.parametrize("listed", [9000, 8193])
def test_ids_are_those_that_the_library_gives(tmp_path, listed):
    """It numbers added tokens on from the vocabulary, whatever the file lists."""
    reference_with(tmp_path, [token(listed, "<bos>", True)], {"bos_token": "<bos>"})
    with pytest.raises(UsageError, match=f"lists '<bos>' as id {listed}, .* gives it 8192"):
        tokenizer.read_tokenizer(tmp_path)
    reference_with(tmp_path, [token(listed, "<think>", False)], {"bos_token": None})
    with pytest.raises(UsageError, match=f"lists '<think>' as id {listed}"):
        tokenizer.read_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"bos_token": "<bos>"}, "bos_token '<bos>' in tokenizer_config.json is no token"),
        ({"bos_token": {"content": "<bos>"}}, "bos_token '<bos>'"),
        ({"bos_token": None, "eos_token": "<eos>"}, "eos_token '<eos>'"),
        ({"bos_token": 5}, "a special token is 5"),
        ({"bos_token": {"content": 5}}, "a special token is {'content': 5}"),
        ([], "tokenizer_config.json is not a JSON object"),
    ],
)
def test_configs_that_name_what_is_no_token(tmp_path, config, words):
    with pytest.raises(UsageError, match=words):
        tokenizer.read_tokenizer(reference_with(tmp_path, config=config))


def test_a_token_that_only_the_config_adds_has_its_id(tmp_path):
    config = {"bos_token": "<bos>", "added_tokens_decoder": {"8192": {"content": "<bos>"}}}
    assert tokenizer.read_tokenizer(reference_with(tmp_path, config=config)).start == 8192


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\xff"])
def test_a_config_that_cannot_be_read_is_not_passed_over(tmp_path, text):
    reference_with(tmp_path)
    (tmp_path / "tokenizer_config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="cannot read tokenizer_config.json"):
        tokenizer.read_tokenizer(tmp_path)


@pytest.mark.parametrize("value", [-1, "1", 1.0, True, {"id": 1}, [-1]])
def test_what_is_no_id_is_refused(tmp_path, value):
    (tmp_path / "generation_config.json").write_text(json.dumps({"bos_token_id": value}))
    with pytest.raises(
        UsageError, match=r"bos_token_id in generation_config.json is .*no token id"
    ):
        tokenizer.read_tokenizer(reference_with(tmp_path))


@pytest.mark.parametrize("kind", ["BPE", "Unigram"])
def test_a_tokenizer_with_randomness_gives_the_same_ids_each_time(tmp_path, kind):
    """Truncation and padding of the file are off as well."""
    reference = json.loads((REFERENCE / "tokenizer.json").read_text("utf-8"))
    definition = reference if kind == "BPE" else {**UNIGRAM}
    random = {"dropout": 0.9} if kind == "BPE" else {"alpha": 0.1, "nbest_size": -1}
    sides = {"direction": "Right", "strategy": "LongestFirst", "stride": 0, "max_length": 3}
    padding = {"strategy": {"Fixed": 64}, "direction": "Left", "pad_to_multiple_of": None,
               "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    text = "asa<s>as a longer text of several words"
    plain = tokenizer.read_tokenizer(tmp_path).encode(text)
    paper = tokenizer.read_paper_tokenizer(tmp_path).encode_with_specials(text, 50)
    definition = {**definition, "model": {**definition["model"], **random}}
    definition |= {"truncation": sides, "padding": padding}
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    for _ in range(5):
        assert tokenizer.read_tokenizer(tmp_path).encode(text) == plain
        shipped = tokenizer.read_paper_tokenizer(tmp_path)
        assert shipped.encode_with_specials(text, 50) == paper


# --- peaks and growth -------------------------------------------------------------------------


class FakeProbes:
    """A machine of 1 TFLOP/s for fp32, four times that for int8, none for fp16,
    and two levels of memory.
    """

    def __init__(self, clock):
        self.clock = clock
        self.sizes = []

    def _takes(self, seconds):
        def run():
            self.clock.time += seconds

        return run

    def gemm(self, precision, m, k, n):
        if precision == "fp16":
            raise RuntimeError("NOT_IMPLEMENTED")
        rate = {"fp32": 1e12, "int8": 4e12}[precision] * (1.0 if n == 16384 else 0.5)
        return self._takes(2 * m * k * n / rate)

    def reads(self, size):
        self.sizes.append(size)
        rate = 1e11 if size <= 1 << 24 else 2e10
        return [self._takes(size / rate), self._takes(2 * size / rate)]

    def copies(self, size):
        return [self._takes(2 * size / 1e10)]


def test_peaks_are_the_best_that_was_seen():
    clock = FakeClock()
    found = peaks.measure_peaks(FakeProbes(clock), clock, 16 << 30)
    assert found.gemm_flops_per_s == {"fp32": pytest.approx(1e12), "int8": pytest.approx(4e12)}
    assert [b.working_set_bytes for b in found.bandwidth] == list(peaks.SIZES)
    assert [b.read_bytes_per_s for b in found.bandwidth] == pytest.approx([1e11, 1e11, 2e10, 2e10])
    assert all(b.copy_bytes_per_s == pytest.approx(1e10) for b in found.bandwidth)


class Swift(FakeProbes):
    """A board on which each run costs 50 us beside its work: 400 TFLOP/s, 3 TB/s, no int8."""

    def gemm(self, precision, m, k, n):
        if precision == "int8":
            raise RuntimeError("NOT_IMPLEMENTED")
        return self._takes(5e-5 + 2 * m * k * n / 4e14)

    def reads(self, size):
        self.sizes.append(size)
        return [self._takes(5e-5 + size / 3e12)]

    def copies(self, size):
        return [self._takes(5e-5 + 2 * size / 3e12)]


def test_peaks_of_a_fast_board_are_not_those_of_its_launches():
    probes = Swift(FakeClock())
    found = peaks.measure_peaks(probes, probes.clock, 80 << 30)
    assert found.gemm_flops_per_s == {p: pytest.approx(4e14, rel=0.03) for p in ("fp32", "fp16")}
    assert max(b.read_bytes_per_s for b in found.bandwidth) == pytest.approx(3e12, rel=0.08)
    assert max(probes.sizes) <= 5 << 30
    small = Swift(FakeClock())
    peaks.measure_peaks(small, small.clock, 4 << 30)
    assert max(small.sizes) <= 256 << 20


def test_a_small_machine_is_not_filled_up():
    probes = FakeProbes(FakeClock())
    peaks.measure_peaks(probes, probes.clock, 512 << 20)
    assert max(probes.sizes) <= 32 << 20


def test_growth_takes_turns_and_keeps_the_cache():
    clock = FakeClock()
    engine = FakeEngine(clock)
    found = context_sweep.measure_context_sweep(engine, clock, (4, 16), 16, 60.0)
    assert [p.context for p in found] == [4, 16]
    assert [len(p) for p in engine.prompts[:4]] == [4, 16, 4, 16]
    assert found[1].prefill_s == pytest.approx([0.016] * context_sweep.ROUNDS)
    assert found[1].decode_s == pytest.approx([0.001] * context_sweep.ROUNDS)
    short = context_sweep.measure_context_sweep(engine, clock, (4, 16), 16, 0.0)
    assert len(short[0].prefill_s) == len(short[1].prefill_s) == 1


def test_a_context_that_does_not_fit_is_not_the_end_of_the_others():
    clock = FakeClock()

    class Small(FakeEngine):
        def prefill(self, inputs):
            if inputs.size > 100:
                raise MemoryError("no room for 128 positions")
            return super().prefill(inputs)

    found = context_sweep.measure_context_sweep(Small(clock), clock, (4, 128), 16, 60.0)
    assert (len(found[0].prefill_s), found[0].failed) == (context_sweep.ROUNDS, None)
    assert (found[1].prefill_s, found[1].failed) == ((), "MemoryError: no room for 128 positions")
    (once,) = context_sweep.measure_context_sweep(FakeEngine(clock), clock, (4,), 16, -1.0)
    assert once.cold
    assert not found[0].cold


def test_engines_take_turns_and_the_order_turns_round():
    clock, order = FakeClock(), []

    class Named(FakeEngine):
        def __init__(self, name, **asked):
            super().__init__(clock, **asked)
            self.name = name

        def prefill(self, inputs):
            order.append(self.name)
            return super().prefill(inputs)

    plan = latency.LatencyPlan(64, 32, 30.0)
    benches = [
        latency.LatencyBench(Named(n, speed_s=s), clock, plan, 16)
        for n, s in (("a", 0.004), ("b", 0.005))
    ]
    order.clear()
    found = latency.measure_in_turns(benches, clock, 60.0, quiet)
    assert "".join(dict.fromkeys(order)) == "ab"
    changes = "".join(n for n, before in zip(order, ["", *order], strict=False) if n != before)
    assert changes.startswith("abab")  # a b | b a | a b: neighbours of two rounds are one stretch
    assert all(f.in_turns for f in found)
    assert max(found[0].decode.rounds) == max(found[1].decode.rounds)


MARGIN = BY_NAME[DECIDING[0]].margin


def wobbling(clock, speed_s, seed):
    """An engine whose steps differ by a twentieth from round to round."""
    engine, rng = FakeEngine(clock, speed_s=speed_s), np.random.default_rng(seed)
    relocated = engine.relocated

    def moved(cache):
        engine.speed_s = speed_s * (1 + 0.05 * rng.random())
        return relocated(cache)

    engine.relocated = moved
    return engine


@pytest.mark.parametrize(
    ("speed_s", "gain", "decides"),
    [
        (0.002, (0.9, 1.0), True),  # worth about twice as much
        (0.008, (0.9, 1.0), True),  # about half as much
        (0.004, (0.98, 1.0), True),  # not a twentieth more
        (0.0038, (0.9, 1.3), False),  # its bits may be worth less or more
    ],
)
def test_rounds_end_when_it_is_sure_which_engine_is_worth_more(speed_s, gain, decides):
    clock = FakeClock()
    plan = latency.LatencyPlan(64, 32, 60.0, target=1e-4)
    benches = [
        latency.LatencyBench(wobbling(clock, s, n), clock, plan, 16)
        for n, s in enumerate((0.004, speed_s))
    ]
    decider = latency.Decider(list(zip(benches, (None, gain), strict=True)), True, MARGIN)
    found = latency.measure_in_turns(benches, clock, 60.0, quiet, decider)
    rounds = max(found[0].decode.rounds) + 1
    assert (rounds < 20, found[0].limit_reached) == (decides, not decides)
    assert rounds >= stats.FEW_ROUNDS


def test_an_engine_that_is_surely_not_the_best_needs_no_verdict():
    clock = FakeClock()
    plan = latency.LatencyPlan(64, 32, 60.0, target=1e-4)
    benches = [
        latency.LatencyBench(wobbling(clock, s, n), clock, plan, 16)
        for n, s in enumerate((0.004, 0.002, 0.0038))
    ]
    engines = list(zip(benches, (None, (0.9, 1.0), (0.9, 1.3)), strict=True))
    latency.measure_in_turns(benches, clock, 60.0, quiet, latency.Decider(engines, True, MARGIN))
    assert max(benches[0].decodes.rounds) + 1 == stats.FEW_ROUNDS


@pytest.mark.parametrize(
    ("gains", "decides"),
    [
        ((), False),
        ((None,), False),
        (((3.0, 3.0), (2.0, 2.0)), False),
        ((None, (2.0, 2.0)), True),
    ],
)
def test_without_a_baseline_or_another_nothing_is_decided(gains, decides):
    clock = FakeClock()
    plan = latency.LatencyPlan(64, 32, 60.0)
    engines = [(latency.LatencyBench(FakeEngine(clock), clock, plan, 16), g) for g in gains]
    decider = latency.Decider(engines, few_rounds=False, margin=MARGIN)
    for number in range(latency.MIN_ROUNDS):
        assert not decider()
        for bench, _ in engines:
            bench.run_round(number)
    assert decider() is decides


def test_progress_of_rounds_is_the_share_of_the_limit():
    """Rounds may end at any time after the first few: their number tells nothing."""
    clock, told = FakeClock(), []
    plan = latency.LatencyPlan(64, 32, 60.0, target=1e-4)
    bench = latency.LatencyBench(wobbling(clock, 0.004, 0), clock, plan, 16)
    latency.measure_in_turns(
        [bench], clock, 60.0, lambda done, total: told.append((clock.now() / 60, done / total))
    )
    assert len(told) > 20
    for passed, share in told[:-1]:
        assert share == pytest.approx(passed, abs=1e-4)
    assert told[-1][1] == 1


def test_a_limit_leaves_the_least_rounds():
    clock = FakeClock()
    bench = latency.LatencyBench(FakeEngine(clock), clock, latency.LatencyPlan(64, 32, 30.0), 16)
    (found,) = latency.measure_in_turns([bench], clock, 0.001, quiet, least_rounds=5)
    assert max(found.prefill.rounds) == 4


def test_rounds_go_on_until_the_median_is_sure():
    """Rounds that differ by a tenth need more of them for 2 %."""
    rounds = []
    for target in (0.0, 0.02):
        clock = FakeClock()
        engine = FakeEngine(clock, speed_s=0.004)
        wobble = iter(range(10_000))
        prefill = engine.prefill

        def uneven(inputs, prefill=prefill, engine=engine, wobble=wobble):
            engine.speed_s = 0.004 * (1 + 0.1 * (next(wobble) % 7 / 6))
            return prefill(inputs)

        engine.prefill = uneven
        found = latency.measure_latency(
            engine, clock, latency.LatencyPlan(64, 32, 300.0, target), 16, quiet
        )
        rounds.append(max(found.prefill.rounds) + 1)
        assert not found.limit_reached
    assert latency.MIN_ROUNDS <= rounds[0] < rounds[1]
