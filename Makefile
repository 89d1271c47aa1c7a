# Each target is one call of the real tool; uv and everything else it needs is installed by the rules below.
UV := $(shell command -v uv || echo .uv/bin/uv)
BIN := .venv/bin
STAMP := .venv/.synced
LOCK := requirements.lock
WORKERS ?= 3
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' service/pyproject.toml)
IMAGE := docker build --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null)

.PHONY: run test endurance lint docs format generate bench images kind lock clean

run: $(STAMP)                      ## everything in one process, embedded, no Docker
	$(BIN)/decklog dev --port 8321 --data-dir .decklog

test: $(STAMP)                     ## all tests, on real backends
	$(BIN)/coverage erase
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup --durations 25 --cov --cov-report=term --cov-fail-under=95 $(ARGS)

endurance: $(STAMP)                ## long rounds of chaos, and property tests with 25 times the examples of `make test`
	DECKLOG_TEST_EXAMPLES=10 $(BIN)/pytest -n $(WORKERS) --timeout 3600 -m "endurance or hypothesis" $(ARGS)

lint: $(STAMP)                     ## style, types, layers, generated files, documentation
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.generate --check
	$(MAKE) docs

docs: $(STAMP)                     ## the documentation as a site in .site; fails on a broken link or anchor
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(STAMP)
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

generate: $(STAMP)                 ## everything that is generated from the code: CRD, manifests, OpenAPI document, chart, reference
	$(BIN)/python -m tools.generate

bench: $(STAMP)                    ## ONLY=<name> runs one, SCALE=small a quick one
	$(BIN)/python -m tests.bench --scale $(or $(SCALE),full) $(if $(ONLY),--only $(ONLY))

images:                            ## needs Docker; ARGS="--build-arg BASE=..." names another base
	$(IMAGE) $(ARGS) -f service/Dockerfile -t decklog:$(VERSION) .
	$(IMAGE) $(ARGS) -f operator/Dockerfile -t decklog-operator:$(VERSION) .

kind: $(STAMP)                     ## a cluster with a registry for `tilt up`; needs Docker, kind and kubectl
	tools/dev/kind.sh

lock: $(UV)                        ## the one lock: hashes, and no address of an index
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --no-emit-package decklog --no-emit-package decklog-operator --group dev pyproject.toml -o $(LOCK) $(ARGS)

$(STAMP): $(UV) $(LOCK) pyproject.toml service/pyproject.toml operator/pyproject.toml
	test -d .venv || $(UV) venv -q .venv
	$(UV) pip sync -q --python .venv --require-hashes $(LOCK)
	$(UV) pip install -q --python .venv --no-deps -e service -e operator
	touch $(STAMP)

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install -q uv

clean:
	rm -rf .venv .uv .bench .site .coverage .coverage.* htmlcov
