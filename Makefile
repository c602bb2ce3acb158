# Every target makes what it needs: on a fresh machine with Python 3.11 and pip, `make demo` is the first and only command.

PYTHON ?= python3
STORE ?= $(or $(STEPCHAIN_STORE),stepchain-store)
CHAINS ?= digits_wilson digits_mib digits_finetuning
MINUTES ?= 60
RUN := .venv/bin/python
export MLFLOW_DISABLE_TELEMETRY := true
export RAY_USAGE_STATS_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types unit browser verify soak report results ui cluster cluster-down format lock clean

help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: .venv/.installed ## Make .venv and install into it (the other targets do this too)

# The stamp is newer than the lock and pyproject.toml exactly when what they ask for is installed.
.venv/.installed: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
		echo "Stepchain needs Python 3.11 or newer, and there is no '$(PYTHON)' here: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Stepchain needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1): make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing into .venv; this takes a few minutes the first time"
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install -qq --disable-pip-version-check -r requirements.lock
	$(RUN) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## Train three methods on composed digits and show their table (under 5 minutes; again: seconds)
	$(RUN) -m jobs.demo --store $(STORE)

test: lint types unit ## Check style, types and architecture; run the fast tests (under 5 minutes)

lint: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/typos

types: setup
	.venv/bin/pyright

unit: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not slow" -n auto --dist loadfile

# The browser tests need Chromium; they skip where it is not installed and cannot be.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium >/dev/null; } || \
		echo "The browser tests will be skipped: install Chromium (Debian: apt-get install chromium)"

verify: setup browser ## Run the slow tests: demo twice, kills, a cluster, faults, the browser (under 30 minutes)
	$(RUN) -m jobs.demo --store $(STORE)
	$(RUN) -m jobs.demo --store $(STORE)
	STEPCHAIN_DEMO_STORE=$(abspath $(STORE)) $(RUN) -m pytest -m slow

# Ends at the first failure, whose seed is on the last line that starts with "round".
soak: setup browser ## Run what verify samples in full: 200 faults, 200 signals, 30 kills; then all tests, for MINUTES=60
	STEPCHAIN_SOAK=1 $(RUN) -m pytest -s tests/integration/test_mlflow_server.py tests/integration/test_browser.py \
		tests/integration/test_cluster_nodes.py tests/integration/test_short_of_memory.py \
		tests/integration/test_resources.py
	STEPCHAIN_FAULTS=200 $(RUN) -m pytest -s tests/integration/test_faults.py
	STEPCHAIN_SIGNALS=200 STEPCHAIN_SEED=$$(od -An -N2 -tu2 /dev/urandom | tr -d ' ') \
		$(RUN) -m pytest -s tests/integration/test_signals.py
	STEPCHAIN_KILLS=30 STEPCHAIN_SEED=$$(od -An -N2 -tu2 /dev/urandom | tr -d ' ') \
		$(RUN) -m pytest -s tests/integration/test_campaign_kills.py
	@end=$$(( $$(date +%s) + 60 * $(MINUTES) )); round=0; \
	while [ $$(date +%s) -lt $$end ]; do \
		round=$$((round + 1)); seed=$$(od -An -N3 -tu4 /dev/urandom | tr -d ' '); \
		echo "round $$round: pytest --hypothesis-seed=$$seed"; \
		$(RUN) -m pytest --quiet --hypothesis-seed=$$seed || exit 1; \
	done; echo "$$round rounds passed"

report: setup ## Write tables and a page of published chains: CHAINS="digits_wilson digits_mib"
	$(RUN) -m jobs.report $(CHAINS) --store $(STORE)

results: setup ## Write the tables of docs/results.md from docs/results; with STORE=..., read that store first
	$(RUN) -m jobs.results $(if $(filter file,$(origin STORE)),,--store $(STORE))

ui: setup ## Open MLflow on what STORE holds, or on MLFLOW_TRACKING_URI: http://127.0.0.1:5000
	@case "$$MLFLOW_TRACKING_URI" in \
	http*) echo "MLflow is at $$MLFLOW_TRACKING_URI: open that in a browser" ;; \
	*) MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false .venv/bin/mlflow ui --host 127.0.0.1 --port 5000 \
		--backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(abspath $(STORE))/mlflow.db}" ;; \
	esac

cluster: setup ## Start a Ray cluster, MLflow and an S3 server on this machine, for `ray job submit`
	$(RUN) -m infra.local.cluster up

cluster-down: setup ## Stop what `make cluster` started; results stay in stepchain-cluster
	$(RUN) -m infra.local.cluster down

format: setup ## Bring the code into its format
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

lock: setup ## Write requirements.lock from what is installed
	$(RUN) .ci/lock.py

clean: ## Remove what was made, but neither .venv nor the store
	rm -rf build reports .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
