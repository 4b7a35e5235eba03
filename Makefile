# `make demo` and `make test` do all the set-up they need; see docs/install.md for the same by hand.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
NOTEBOOK := image_similarity

# What needs a server, a cluster or a browser, builds the wheel, or runs the documentation.
OUTSIDE := server or wheel or docs
# Those that drive a browser, by greenlets: with the threads of other servers, coverage that looks for greenlets loops
# for ever.
BROWSER := tests/web/page tests/notebook
# One worker per core, a file each (tests/support/scheduling.py); torch and numpy would otherwise start threads for all cores.
PARALLEL = OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile
IN_ORDER := -p no:randomly

# The long proofs, each a script below trials/ that writes a report into outputs/trials/.
TRIALS := crash machine hostile_pictures server
MINUTES ?= 20
EXAMPLES ?= 300
MUTANTS ?= 20000
SEED ?= 0
ARGUMENTS_crash = --minutes $(MINUTES) --seed $(SEED)
ARGUMENTS_machine = --examples $(EXAMPLES) --seed $(SEED)
ARGUMENTS_hostile_pictures = --mutants $(MUTANTS) --seed $(SEED)
ARGUMENTS_server = --minutes $(MINUTES) --seed $(SEED) --report outputs/trials/server.json

# PyTorch comes from its own index; these are what its build for GPUs needs besides.
GPU_ONLY := triton cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 \
            nvidia-nvshmem-cu13

.PHONY: help demo test test-fast test-random test-all trial check docs lock sbom sample clean
.PHONY: $(TRIALS:%=trial-%)

help:
	@echo "make demo       install, make sample images if dataset/ is empty, run the notebook"
	@echo "make test       install, then lint, types, import rules and tests"
	@echo "make test-fast  the quick tests alone, while you work"
	@echo "make test-random  the same as make test, in random order"
	@echo "make test-all   all tests, with servers, browser, wheel, documentation and coverage"
	@echo "make trial      the long proofs: crashes, a state machine, hostile pictures, the server under"
	@echo "                siege (MINUTES=20 SEED=0); see trials/"
	@echo "make check      lint, types and import rules alone"
	@echo "make docs       the documentation site, into site/"
	@echo "make lock       renew requirements.lock, the container's packages with their digests"
	@echo "make sbom       list what is installed, as CycloneDX, in dist/sbom.json"
	@echo "make clean      remove the environment and the caches; dataset/ and outputs/ stay"

demo: $(VENV)/installed sample
	@mkdir -p outputs
	$(BIN)/jupyter nbconvert --log-level WARN --execute --to notebook --output-dir outputs $(NOTEBOOK).ipynb
	$(BIN)/jupyter nbconvert --log-level WARN --to html outputs/$(NOTEBOOK).ipynb
	@echo
	@echo "The executed notebook, with its pictures, is in"
	@echo "    $(CURDIR)/outputs/$(NOTEBOOK).html   (open it in a browser)"
	@echo "    $(CURDIR)/outputs/$(NOTEBOOK).ipynb"
	@echo "To go on by hand: $(BIN)/jupyter lab $(NOTEBOOK).ipynb"

# Only into an empty folder, or to complete a sample that was cut short: never among a user's images.
sample: $(VENV)/installed
	@if [ -z "$$(ls dataset 2>/dev/null)" ] || [ -e dataset/simsearch-sample.txt ]; then \
		$(BIN)/simsearch sample dataset; \
	fi

test: check
	$(PARALLEL) $(IN_ORDER) -m "not ($(OUTSIDE))"

test-fast: $(VENV)/installed-dev
	$(PARALLEL) $(IN_ORDER) -m "not (slow or $(OUTSIDE))"

test-random: $(VENV)/installed-dev
	$(PARALLEL) -m "not ($(OUTSIDE))"

# A browser and Ray run alone: beside each other they are late, and nothing is gained.
# --durations tells what a shorter run could do without.
COVERED := --cov --cov-report= --cov-fail-under=0 --durations=25
test-all: check $(VENV)/installed-docs
	$(PARALLEL) $(IN_ORDER) -m "not alone" $(COVERED)
	$(BIN)/pytest $(IN_ORDER) -m alone $(BROWSER:%=--ignore=%) $(COVERED) --cov-append
	BROWSER_CONCURRENCY=greenlet $(BIN)/pytest $(IN_ORDER) -m alone $(BROWSER) --cov --cov-append --durations=25

trial: $(TRIALS:%=trial-%)

$(TRIALS:%=trial-%): trial-%: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 SIMSEARCH_RUNTIME=torch $(BIN)/python trials/$*.py $(ARGUMENTS_$*)

trial-hostile_pictures: $(VENV)/installed-fuzz

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# --strict: a warning is an error. The variable leaves out an announcement of the theme's makers.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Resolved for the container's Python and system, whatever runs here. The page, its index and its
# speed; not clip, words, timm and others, which few libraries need: docs/install.md adds them.
lock: $(VENV)/installed-dev
	printf '%s\n' $(GPU_ONLY) > $(VENV)/gpu_only.txt
	$(BIN)/uv pip compile pyproject.toml --extra web --extra faiss --extra fast --upgrade --quiet \
		--python-version 3.12 --python-platform x86_64-manylinux_2_28 \
		--generate-hashes --no-emit-package torch --no-emit-package torchvision \
		--excludes $(VENV)/gpu_only.txt --custom-compile-command "make lock" -o requirements.lock

sbom: $(VENV)/installed-dev
	@mkdir -p dist
	$(BIN)/cyclonedx-py environment $(VENV) --pyproject pyproject.toml --output-reproducible -o dist/sbom.json

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -r requirements.txt -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	@touch $@

# Without it, as where it has no wheel, mutants are chosen by their outcome in place of the code reached.
$(VENV)/installed-fuzz: $(VENV)/installed-dev
	-$(BIN)/python -m pip install --quiet --only-binary :all: "atheris>=3"
	@touch $@

# The references are made from the code, so that the site needs the packages of the code, too.
$(VENV)/installed-docs: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet -e ".[dev,docs]"
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .import_linter_cache build dist site *.egg-info
