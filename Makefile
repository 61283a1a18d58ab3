# Everything a fresh machine needs: `make demo` and `make test` do their own set-up.
PYTHON ?= python3
VENV   := .venv
STAMP  := $(VENV)/installed

.PHONY: install demo test lint bench clean

install: $(STAMP)

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(STAMP)
	$(VENV)/bin/grapevine run experiments/suites/quickstart.toml --out runs/quickstart

test: $(STAMP)
	$(VENV)/bin/python -m pytest

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

bench: $(STAMP)
	$(VENV)/bin/python -m benchmarks
	$(VENV)/bin/python -m benchmarks.tcp_model
	$(VENV)/bin/python -m benchmarks.changing_links

clean:
	rm -rf $(VENV) build *.egg-info
