# `make demo` and `make test` do all the set-up they need; see README.md for the same by hand.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
NOTEBOOK := image_similarity

.PHONY: help demo test check sample clean

help:
	@echo "make demo   install, make sample images if dataset/ is empty, run the notebook"
	@echo "make test   install, then lint, types, tests and coverage"
	@echo "make check  lint and types alone"
	@echo "make clean  remove the environment and the caches; dataset/ and outputs/ stay"

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
	$(BIN)/pytest --cov

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -r requirements.txt -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage build *.egg-info
