# Everything a fresh machine needs: `make demo` and `make test` do their own set-up.
PYTHON ?= python3
VENV   := .venv
STAMP  := $(VENV)/installed
VM     := build/vm

.PHONY: install demo test test-quick test-vm lint bench clean

install: $(STAMP)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP)
	$(VENV)/bin/grapevine run experiments/suites/quickstart.toml --out runs/quickstart

test: $(STAMP)
	$(VENV)/bin/python -m pytest

# Without the tests that start processes or take long: under a minute.
test-quick: $(STAMP)
	$(VENV)/bin/python -m pytest -m 'not live and not slow'

# The kernel backend on a kernel that has netem: Debian's, unpacked here and booted by qemu (apt install qemu-system-x86).
test-vm: $(STAMP) $(VM)/unpacked
	GRAPEVINE_VM=$(VM) $(VENV)/bin/python -m pytest -rs tests/netem/test_namespaces_vm.py

$(VM)/unpacked:
	mkdir -p $(VM)
	cd $(VM) && apt-get download busybox-static $$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p')
	for package in $(VM)/*.deb; do dpkg -x $$package $(VM); done
	touch $@

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/mypy

bench: $(STAMP)
	$(VENV)/bin/python -m benchmarks
	$(VENV)/bin/python -m benchmarks.tcp_model
	$(VENV)/bin/python -m benchmarks.changing_links
	$(VENV)/bin/python -m benchmarks.sharing
	$(VENV)/bin/python -m benchmarks.utilisation
	$(VENV)/bin/python -m benchmarks.lag

clean:
	rm -rf $(VENV) build *.egg-info
