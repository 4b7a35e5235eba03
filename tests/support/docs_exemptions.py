"""What in the documentation is checked without being run, and why.

A shell line whose start matches is parsed instead: `simsearch` lines by the parser of the command
line, `pip install` by the extras that exist, `make` by the targets. A Python block that contains
the text is compiled, and its `ss.` names must exist.
"""

SHELL = {
    r"python3 -m venv|\. \.venv": "would make an environment and install PyTorch anew",
    r"pip install": "would install PyTorch anew; tests/test_wheel.py installs the package",
    r"make ": "each target runs for minutes, and one of them runs this test",
    r"git clone": "needs the repository's address and a network",
    r"python -m build": "tests/test_wheel.py builds and checks the package",
    r"docker ": "needs a container engine and a network",
    r"jupyter lab": "opens a browser; tests/test_package.py runs the notebooks",
    r"simsearch sample": "takes a minute; tests/test_wheel.py runs it",
    r"simsearch embed .*--engine ray": "starts a cluster; tests/cluster/test_ray.py runs it",
    r"simsearch train .*--finetune": "takes minutes; tests/training/test_finetune.py runs it",
    r"SIMSEARCH_TOKEN=\S+ simsearch serve": "listens on every network address of the machine",
    r"simsearch embed .*--parts": "takes minutes; tests/embedding/test_parts.py makes parts",
    r"simsearch watch": "runs until it is stopped; tests/test_watch.py runs it",
    r"simsearch mcp": "runs until it is stopped; tests/test_mcp.py runs it",
    r"simsearch search .*--open": "opens a window; tests/cli/test_results.py stands in for it",
    r"simsearch search .*--parts": "needs parts; tests/retrieval/test_parts.py searches them",
    r"simsearch index .*--parts": "needs parts; tests/retrieval has test_faiss_parts.py",
    r"simsearch duplicates .*--apply": "moves pictures of a shared dataset; tests/cleanup runs it",
    r"simsearch duplicates inbox": "needs a second library; tests/cleanup runs it",
    r"simsearch duplicates .*--not-duplicates": "needs its pictures; tests/cleanup runs it",
    r"nohup simsearch serve": "would outlive the test; the same command is run without nohup",
    r"simsearch serve .*--root-path": "a second server; tests/web/test_root_path.py serves it",
    r"simsearch serve shop=": "needs two libraries; tests/web/test_root_path.py serves them",
    r"simsearch serve .*--together": "a second server; tests/web/test_together.py serves it",
    r"simsearch serve images\.db#": "tests/web/test_serving.py serves what was published",
}

PYTHON = {
    'engine="ray"': "needs a bucket and a cluster; tests/cluster/test_ray.py runs it",
    '"s3://bucket/outputs"': "needs a bucket; tests/library/test_library_at_address.py has one",
    '"clip:': "needs published weights; tests/backbones/test_clip.py makes small ones",
    "finetune=True": "takes minutes; tests/training/test_finetune.py runs it",
    "api/search": "needs a server at port 8000; tests/web/test_json_bodies.py sends the same",
    "parts=": "takes minutes; tests/embedding and tests/retrieval have test_parts.py",
}

# Pages whose blocks are no examples.
PAGES = {
    "scale.md": "its indented lines are formulas and its commands belong to servers not run here",
}
