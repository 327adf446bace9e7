"""Writes the frozen record of the newest schema and the goldens: python tests/make_data.py
[--goldens].

A record of an older schema is never written again: it is what old programs left behind.
"""

import json
import sys
from pathlib import Path

import msgspec
from fakes import scripted

from edgecap.pipeline import profile, record_draft, run_context
from edgecap.record import SCHEMA, Machine
from edgecap.spec import Spec
from edgecap.storage.files import resolve_paths
from edgecap.storage.records import save
from edgecap.text.corpus import read_corpus

DATA = Path(__file__).parent / "data"


def frozen_record():
    machine = Machine(
        name="laptop",
        system="Linux 6.1",
        cpu="Example CPU",
        architecture="x86_64",
        flags=("avx2",),
        physical_cores=2,
        logical_cores=4,
        memory_bytes=16_000_000_000,
        governor="performance",
        turbo=True,
        power_source="mains",
        temperature_c=50.0,
        load_average=0.0,
        versions={"onnxruntime": "1.0"},
        providers=("cpu",),
    )
    record_draft.read_machine = lambda providers, on_cuda: machine
    run_context.default_threads = lambda: 2
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        home = resolve_paths(Path(folder) / "cache", Path(folder) / "profiles")
        file = Path(folder) / "six.jsonl"
        rows = [
            {
                "id": f"d{i}",
                "domain": "ab"[i % 2],
                "text": f"Document {i}. " + "Words and more words. " * (4 + i),
            }
            for i in range(6)
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        corpus = read_corpus(str(file))
        record = profile.profile(
            Spec(corpus=str(file)), home, run=scripted(corpus, broken=("int4",))
        )
    source = msgspec.structs.replace(
        record.source, weights_sha256="1" * 64, tokenizer_sha256="2" * 64
    )
    return msgspec.structs.replace(
        record, created_utc="2026-11-23T12:00:00Z", edgecap="0.1.0", source=source, spec=Spec()
    )


def main():
    path = DATA / f"record-{SCHEMA}.json"
    if not path.exists() or "--record" in sys.argv:
        save(frozen_record(), path)
    import test_judging
    import test_recommend
    import test_routing
    from test_report import goldens

    for name, text in goldens().items():
        (DATA / name).write_text(text, "utf-8")
    for name, text in test_judging.goldens().items():
        (DATA / f"{name}-1.txt").write_text(text)
    for name, text in (test_recommend.golden() | test_routing.golden()).items():
        (DATA / name).write_text(text)

    from test_compare import produced

    for form in ("text", "md", "xml", "many.txt"):
        (DATA / f"compare.{form}").write_text(produced(form))


if __name__ == "__main__":
    main()
