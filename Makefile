# Two commands: `make up` and `make test`. Both build .venv first, from requirements.lock.
.PHONY: up down test check demo compose-demo bench simulate properties chaos lock install
BIN := .venv/bin

up:
	./kisum up

down:
	./kisum down

test: install
	$(BIN)/pytest

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

demo:
	./kisum demo

# All figures, or ONLY=decision,relay_p50_ms: names of groups or figures; EXPENSES=20000 is a trial of the group finance.
# Only decisions are measured beside others' packages.
bench: install
	$(if $(or $(findstring decision,$(ONLY)),$(if $(ONLY),,all)),$(BIN)/python -m pip install --quiet \
	    --disable-pip-version-check --require-hashes --only-binary :all: -r benchmarks/requirements.lock)
	$(BIN)/python -m benchmarks $(ONLY) $(if $(EXPENSES),--expenses $(EXPENSES))

# Histories of the access path under faults; SEED=8123 has the same ones again, HISTORIES=2000 is how many.
simulate: install
	$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED)) $(if $(HISTORIES),--histories $(HISTORIES))

# The properties of arithmetic and states over CASES=100000 random cases each; `make test` tries a hundred.
properties: install
	KISUM_TEST_CASES=$(or $(CASES),100000) $(BIN)/pytest -m hypothesis --timeout 0 tests/unit/contracts tests/unit/finance tests/unit/promoter

# Kills, restored databases and lost topics on whole installations: all, or ONLY="workers topic", each for MINUTES=10.
chaos: install
	$(BIN)/python -m tests.chaos $(ONLY) $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

install:
	@./kisum --install-only

# Pins every package for CPython 3.11 to 3.14; an existing pin stays unless pyproject.toml excludes it (remove the file
# to take the newest). The first line is what a first run downloads.
lock: install
	rm -rf build/lock && mkdir -p build/lock
	$(BIN)/python -m venv build/lock/venv
	build/lock/venv/bin/python -m pip install --quiet uv==0.13.8
	test ! -f requirements.lock || grep -v '^# download size' requirements.lock > build/lock/requirements.lock
	build/lock/venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-emit-index-url --no-annotate --extra local --extra dev -o build/lock/requirements.lock pyproject.toml
	build/lock/venv/bin/python -m pip download --quiet --require-hashes --only-binary :all: \
	    -r build/lock/requirements.lock -d build/lock/wheels
	{ echo "# download size: $$(du --summarize --block-size=1MB build/lock/wheels | cut -f1) MB" && \
	    cat build/lock/requirements.lock; } > build/lock/complete && mv build/lock/complete requirements.lock
	build/lock/venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-emit-index-url --no-annotate --group bench --constraint requirements.lock \
	    -o benchmarks/requirements.lock
	build/lock/venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-emit-index-url --no-annotate --constraint requirements.lock -o infra/deploy/requirements.lock pyproject.toml

# The demo's story on docker-compose.yml, against the gateway: from nothing to healthy, and down again.
compose-demo: install
	./kisum demo --containers $(if $(CLUSTER),--cluster)
