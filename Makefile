# Each target is one call of the real tool; uv, Node and everything else it needs is installed by the rules below.
UV := .uv/bin/uv
BIN := .venv/bin
STAMP := .venv/.synced
LOCK := requirements.lock
# Node and npm are in the lock, as packages of PyPI. Node trusts what the system trusts, as uv does.
NPM := cd board && PATH="$(CURDIR)/$(BIN):$$PATH" NODE_USE_SYSTEM_CA=1 npm
# The TypeScript client has no packages of its own: the tools of the board check and build it.
CLIENT := cd clients/typescript && PATH="$(CURDIR)/$(BIN):$(CURDIR)/board/node_modules/.bin:$$PATH" npm
MODULES := board/node_modules/.package-lock.json
ALL_MODULES := board/node_modules/.complete
BOARD := service/src/decklog/board/index.html
WORKERS ?= 3
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' service/pyproject.toml)
BASE := $(shell sed -n 's/^ARG BASE=//p' service/Dockerfile)$(shell sed -n 's/^PYTHON_DIGEST=//p' .env)
IMAGE := docker build --build-arg BASE=$(BASE) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null)

# Two rules fill board/node_modules, so they must not run at once.
.NOTPARALLEL:
.PHONY: run test endurance board client lint docs format generate bench images kind lock lock-uv pin sbom audit clean

run: $(STAMP) $(BOARD)             ## everything in one process, embedded, no Docker, with a demo tenant; BOARD= leaves the board out
	$(BIN)/decklog dev --port 8321 --data-dir .decklog --demo

test: $(STAMP) $(ALL_MODULES) $(BOARD) ## all tests, on real backends
	$(BIN)/python -m tests.lines
	PYTHONPATH=$(CURDIR)/tests/lines $(BIN)/pytest -n $(WORKERS) --dist loadgroup --durations 25 --lines-min 95 $(ARGS)

endurance: $(STAMP) $(ALL_MODULES) $(BOARD) ## long rounds of chaos and attacks, and property tests with 40 times the examples of `make test`
	DECKLOG_TEST_EXAMPLES=10 $(BIN)/pytest -n $(WORKERS) --timeout 3600 -m "endurance or hypothesis" $(ARGS)

board: $(BOARD)                    ## the web board, from board/ into the package; skipped while nothing changed

client: $(STAMP) $(ALL_MODULES)    ## the npm package @decklog/client, as a file in clients/typescript
	$(CLIENT) run --silent build
	$(CLIENT) pack --silent

lint: $(STAMP) $(ALL_MODULES)      ## style, types, layers, generated files, documentation
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy && $(BIN)/mypy --python-version 3.10 clients/python/src
	$(BIN)/lint-imports
	$(BIN)/python -m tools.generate --check
	$(NPM) run --silent lint
	$(NPM) run --silent check
	$(CLIENT) run --silent lint
	$(CLIENT) run --silent check
	$(MAKE) docs

docs: $(STAMP)                     ## the documentation as a site in .site; fails on a broken link or anchor
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(STAMP) $(ALL_MODULES)
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
	$(NPM) run --silent format
	$(CLIENT) run --silent format

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
	  --no-emit-package decklog --no-emit-package decklog-operator --no-emit-package decklog-client --group dev pyproject.toml -o $(LOCK) $(ARGS)

lock-uv: $(UV)                     ## the lock of uv itself
	echo uv | $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate - -o requirements-uv.lock $(ARGS)

pin: $(STAMP)                      ## the digests of all images in .env; needs Docker with buildx and the registries
	$(BIN)/python -m tools.pin $(ARGS)

sbom: $(STAMP)                     ## CycloneDX documents of the lock, of each image's libraries and of the board's packages in .sbom
	$(BIN)/python -m tools.sbom .sbom
	$(NPM) sbom --silent --sbom-format cyclonedx --package-lock-only > ../.sbom/board.cdx.json

audit: $(STAMP)                    ## the locks against ADVISORIES=<zip or folder of OSV advisories>
	$(BIN)/python -m tools.audit $(ADVISORIES) $(LOCK) board/package-lock.json tests/senders/packages/package-lock.json

$(STAMP): $(UV) $(LOCK) pyproject.toml service/pyproject.toml operator/pyproject.toml clients/python/pyproject.toml
	test -d .venv || $(UV) venv -q .venv
	$(UV) pip sync -q --python .venv --require-hashes $(LOCK)
	$(UV) pip install -q --python .venv --no-deps -e service -e operator -e clients/python
	touch $(STAMP)

# The folders are among the sources, because a removed file changes only its folder.
$(BOARD): $(MODULES) $(shell find board -mindepth 1 -name node_modules -prune -o ! -name schema.d.ts -print 2>/dev/null)
	$(NPM) run --silent build
	touch $(BOARD)

# The build needs half of the packages; the other half is for tests and style.
$(MODULES): board/package.json board/package-lock.json board/.npmrc | $(STAMP)
	$(NPM) ci --omit=dev --ignore-scripts --loglevel error
	touch $(MODULES)

$(ALL_MODULES): board/package.json board/package-lock.json board/.npmrc | $(STAMP)
	$(NPM) ci --ignore-scripts --loglevel error
	touch $(MODULES) $(ALL_MODULES)

.uv/bin/uv: requirements-uv.lock   ## by hash, as in the images
	python3 -m venv .uv
	.uv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements-uv.lock
	touch .uv/bin/uv

clean:
	rm -rf .venv .uv .bench .site .sbom .screenshots .coverage .lines htmlcov board/node_modules service/src/decklog/board clients/typescript/dist clients/typescript/*.tgz
