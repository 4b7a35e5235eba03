"""compose.yaml: its commands are the command line's, and what it mounts is what they read."""

from pathlib import Path

import pytest
import yaml

from simsearch.cli.parser import build_parser

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "compose.yaml").read_text("utf-8")
COMPOSE = yaml.safe_load(TEXT)
RAY_TEXT = (ROOT / "compose.ray.yaml").read_text("utf-8")
RAY = yaml.safe_load(RAY_TEXT)["services"]


def test_commands_are_those_of_the_command_line():
    page = COMPOSE["services"]["page"]
    options = build_parser().parse_args(page["command"])
    assert options.outputs == "outputs"
    mounted = {each.split(":")[1] for each in page["volumes"]}
    assert mounted == {f"/srv/{name}" for name in (options.outputs, options.root)}
    commented = [
        line.partition(" page ")[2]
        for line in TEXT.splitlines()
        if line.startswith("#   docker compose")
    ]
    commands = [each.split() for each in commented if each.startswith(("publish", "serve"))]
    assert [each[0] for each in commands] == ["publish", "serve"]
    for each in commands:
        build_parser().parse_args(each)


def test_ports_and_folders_are_those_of_the_image():
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert "WORKDIR /srv" in dockerfile
    assert "EXPOSE 8000" in dockerfile
    assert COMPOSE["services"]["page"]["ports"] == ["127.0.0.1:8000:8000"]


def test_milvus_starts_alone_when_asked_for_with_its_files():
    milvus = COMPOSE["services"]["milvus"]
    assert milvus["profiles"] == ["milvus"]
    (config,) = milvus["configs"]
    assert config["target"] == milvus["environment"]["ETCD_CONFIG_PATH"]
    assert yaml.safe_load(COMPOSE["configs"][config["source"]]["content"])["listen-client-urls"]
    assert {each.split(":")[0] for each in milvus["volumes"]} == set(COMPOSE["volumes"])


def test_nodes_of_ray_start_by_flags_that_ray_has_and_share_folders_and_token():
    scripts = pytest.importorskip("ray.scripts.scripts")
    known = {flag for option in scripts.start.params for flag in option.opts}
    assert set(RAY) == {"ray-head", "ray-worker"}
    for node in RAY.values():
        assert node["command"][:2] == ["ray", "start"]
        assert {each.partition("=")[0] for each in node["command"][2:]} <= known
        mounted = {each.split(":")[1] for each in node["volumes"]}
        assert mounted == {"/srv/outputs", "/srv/dataset"}
        assert node["environment"]["RAY_AUTH_MODE"] == "token"
        assert node["environment"]["RAY_ADDRESS"] == "ray-head:6379"
    assert RAY["ray-head"]["command"][3] == "--port=6379"
    assert RAY["ray-worker"]["command"][2] == "--address=ray-head:6379"
    (line,) = (each for each in RAY_TEXT.splitlines() if " simsearch embed " in each)
    options = build_parser().parse_args(line.partition(" simsearch ")[2].split())
    assert (options.root, options.outputs, options.engine) == ("dataset", "outputs", "ray")


@pytest.mark.parametrize("text", [TEXT, RAY_TEXT], ids=["compose", "ray"])
def test_files_are_those_of_the_compose_specification(text):
    options = pytest.importorskip("compose_spec").PyOptions()
    options.apply_merge = True
    read = options.from_yaml(text)
    read.validate()
    assert set(read.service_names()) == set(yaml.safe_load(text)["services"])
    with pytest.raises(ValueError, match="restrat"):
        options.from_yaml(text.replace("restart:", "restrat:", 1))
