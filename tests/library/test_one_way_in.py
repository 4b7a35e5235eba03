"""Files of libraries are opened in few modules, so that there are few places to attack."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2] / "simsearch"
# Methods and functions that open a file of a name, whatever calls itself so.
OPENERS = {"open", "read_bytes", "write_bytes", "read_text", "fromfile", "memmap", "tofile"}
OPENERS |= {"safe_open", "load_file", "save_file", "read_index", "write_index", "mkstemp"}
NUMPY, IN_PLACE = {"load", "save", "savez"}, {"write_text"}  # of numpy; of paths
# Modules that open files of a library's folder, with what they open.
OF_LIBRARIES = {
    "files.py": "what it is given: parts that did not exist, and no links",
    "csv_file.py": "tables, which it writes by files.py",
    "library/files.py": "the library",
    "library/stored_rows.py": "signatures and qualities, which bear a mark",
    "library/classifier_rows.py": "rows of its backbone's classifier, which bear a mark",
    "library/user_key.py": "the key",
    "library/block_digests.py": "what it checks block by block",
    "library/row_file.py": "rows of large libraries, the same",
    "library/verify.py": "records of all that is derived, which it checks",
    "library/parts.py": "parts of pictures, which bear a mark",
    "library/part_writer.py": "the same, to add to them",
    "library/object_store.py": "copies in the user's cache of libraries at an address",
    "library/parquet.py": "heads of exported libraries, in a folder that it makes",
    "embedding/quantise.py": "names of pictures that are in the dataset",
    "embedding/recovery.py": "the header of what a stopped run has embedded",
    "backbones/heads.py": "heads, as safetensors",
    "retrieval/pruned_store.py": "the shortened copy of rows, which bears a mark",
    "retrieval/pruned_update.py": "the same of earlier rows",
    "retrieval/part_copy.py": "the shortened copy of parts, which bears a mark",
    "retrieval/faiss_store.py": "the index, which bears a mark",
    "retrieval/faiss_seal.py": "its record",
    "retrieval/trust.py": "records that are to bear a mark",
    "cluster/milvus/publish.py": "the head, to be published",
}
# Modules that open no file of a library, but pictures, weights, tables, figures and the like.
ELSEWHERE = {
    *("samples.py", "web/app.py", "web/thumbnail_cache.py", "library/delimited.py", "cli/main.py"),
    "cli/viewer.py",
    *("backbones/runtime.py", "backbones/runtime_cache.py", "backbones/runtime_convert.py"),
    *("backbones/weights.py", "training/trainer.py", "analysis/similar_rows.py"),
    *("analysis/picture_quality.py", "cluster/milvus/remote_library.py"),
    *(
        "cluster/milvus/reader.py",
        "backbones/words.py",
        "backbones/kept_rows.py",
        "backbones/clip_text.py",
        "web/library_manager.py",
        "web/copy_review.py",
        "web/problems.py",
        "web/page_template.py",
        "retrieval/faiss_candidates.py",
    ),
    *("cleanup/apply.py", "cleanup/plan.py", "cleanup/journal.py"),
    *("web/decoder_pool.py", "web/decode_worker.py", "web/thumbnails.py"),
    "backbones/precision.py",
    "library/incoming_rows.py",  # arrays that the caller names
    "library/fiftyone_export.py",  # a folder that it makes
    "library/fiftyone_import.py",  # two files of JSON in a folder that is given
}


def opens(tree):
    """Return the calls of a module that open files."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            owner, _, name = called.rpartition(".")
            method = name in IN_PLACE and owner
            if name in OPENERS or method or (owner == "np" and name in NUMPY):
                found.add(called)
    return found


def modules():
    return {file.relative_to(ROOT).as_posix(): file for file in ROOT.rglob("*.py")}


def test_only_these_modules_open_files():
    found = {
        name: calls
        for name, file in modules().items()
        if (calls := opens(ast.parse(file.read_text("utf-8"))))
    }
    known = {*OF_LIBRARIES, *ELSEWHERE} | {name for name in found if name.startswith("images/")}
    assert {name: calls for name, calls in found.items() if name not in known} == {}


def test_files_of_a_library_are_named_in_few_modules():
    named = {
        *("embeddings.npy", "image_paths.npy", "file_stats.npy", "file_digests.npy"),
        *("manifest.json", "head.safetensors", "index.faiss", "sketch.npy", "signatures.npy"),
    }
    for name, file in modules().items():
        nodes = ast.walk(ast.parse(file.read_text("utf-8")))
        texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
        assert name in {*OF_LIBRARIES, "cluster/milvus/remote_library.py"} or not texts & named


def test_what_opens_a_file_is_seen():
    seen = opens(ast.parse("np.load(f); Path(f).open(); open(f); f.write_text(t); np.memmap(f)"))
    assert len(seen) == 5
    assert opens(ast.parse("write_text(f, t); json.load(s); ImageLibrary.load(f)")) == set()
