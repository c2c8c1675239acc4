# What people type. `make run` and `make test` each work as the very first command after a clone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help suitable run test lint faults test-systemd test-cluster bench bench-peers accuracy soak growth train install uninstall clean

help:  ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

suitable:
	@$(PYTHON) -c 'import sys; "linux" == sys.platform and (3, 11) <= sys.version_info < (3, 14) or sys.exit( \
	    "digitd: expected Linux and Python 3.11, 3.12 or 3.13, for which there is TensorFlow. Received: Python %d.%d on %s. " \
	    "Name another with: make run PYTHON=python3.12" % (sys.version_info[0], sys.version_info[1], sys.platform))'

run: $(VENV)/run-ready  ## set up, then start the daemon on ./config.toml
	$(BIN)/digitd run

test: $(VENV)/dev-ready  ## set up, then run the tests, two files at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/dev-ready  ## style, formatting, types, and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

faults: $(VENV)/dev-ready  ## the whole fault suite: kills, power cuts, full disks, hostile files; as root, over an hour
	FAULTS=full $(BIN)/python -m pytest tests/faults tests/hostile -s

test-systemd: $(VENV)/dev-ready  ## boot a small Debian and prove the service in it; as root, 10 to 25 minutes
	TEST_SYSTEMD=1 $(BIN)/python -m pytest tests/systemd

test-cluster: $(VENV)/dev-ready $(VENV)/spark-ready  ## the stream on a real Spark, in full: kills, a cluster on loopback; needs Java
	TEST_CLUSTER=1 $(BIN)/python -m pytest tests/cluster

install:  ## install or upgrade the systemd service; as root
	PYTHON=$(PYTHON) sh systemd/install.sh

uninstall:  ## remove the service, keeping all data; as root
	sh systemd/uninstall.sh

accuracy: $(VENV)/run-ready  ## read the development set: accuracy, calibration, what is held back
	$(BIN)/python -m benchmarks.accuracy

train: $(VENV)/run-ready  ## train the shipped model anew, from scratch; half an hour on two cores
	rm -rf build/models
	DIGITD_PATHS__MODELS=build/models $(BIN)/digitd retrain
	mv build/models/v0001.h5 build/models/v0001.json models/
	$(BIN)/digitd evaluate v0001

bench: $(VENV)/run-ready  ## how fast it is, against its limits and the tutorial script; about 8 minutes
	$(BIN)/python -m benchmarks.speed

bench-peers: $(VENV)/spark-ready build/peers/ready  ## beside Apache Beam and its own form on Spark; needs Java; about 15 minutes
	$(BIN)/python -m benchmarks.peers

soak: $(VENV)/run-ready  ## two hours of everything at once, kills included: is anything lost, does anything grow; as root
	$(BIN)/python -m benchmarks.soak

growth: $(VENV)/run-ready  ## a root with a million answers against an empty one; as root, a quarter of an hour, 20 GB of disk
	$(BIN)/python -m benchmarks.growth

clean:  ## remove the environment and caches; no data
	rm -rf $(VENV) build .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

$(VENV)/run-ready: requirements.txt pyproject.toml
	@$(MAKE) --no-print-directory suitable
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV)/dev-ready: $(VENV)/run-ready requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	touch $@

build/peers/ready: requirements-peers.txt  # Beam wants an older Pillow
	$(PYTHON) -m venv build/peers
	build/peers/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-peers.txt
	touch $@

$(VENV)/spark-ready: $(VENV)/run-ready requirements-spark.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-spark.txt
	touch $@
