# Everything a person or CI runs. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
ADS ?= var/feeds/samples.jsonl.gz
PORT ?= 8080
# By folder and file, so that two feeds called ads.jsonl.gz have an index each.
FEED := $(patsubst %.jsonl,%,$(patsubst %.gz,%,$(notdir $(ADS))))
NAME ?= $(if $(filter var/feeds/samples.jsonl.gz,$(ADS)),samples,$(notdir $(patsubst %/,%,$(dir $(abspath $(ADS)))))-$(FEED))
ENCODER := var/encoders/minilm-int8

PIP_INSTALL = $(1)/bin/python -m pip install $(if $(CI),-qq) --disable-pip-version-check

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
export ORT_DISABLE_TELEMETRY ?= 1

.PHONY: help serve test lint types unit e2e bench bench-plot bench-serving bench-zipf bench-low-lane bench-record bench-scale peers bench-peers publish-peers check-overload check-index check-drain check-swap train-smoke recipe experiment lock clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# --- environments, one per file in requirements/ -----------------------------------------------------------------

# $(1) directory, $(2) requirements file, $(3) further options. hnswlib is compiled by requirements/hnswlib.sh; what builds
# it and this project is locked too, so it is installed beforehand.
define make_venv
	@echo "Creating $(1) from $(2) …"
	@$(PYTHON) -m venv --clear $(1)
	@$(call PIP_INSTALL,$(1)) --require-hashes -r requirements/build.txt
	@requirements/hnswlib.sh $(1)/bin/python $(2) $(1)/wheels $(3)
	@$(call PIP_INSTALL,$(1)) --no-deps $(1)/wheels/hnswlib-*.whl
	@$(call PIP_INSTALL,$(1)) $(3) -r $(2)
	@$(call PIP_INSTALL,$(1)) --no-build-isolation --no-deps -e .
	@touch $(1)/.complete
endef

.venv/.complete: requirements/offline.txt requirements/build.txt requirements/hnswlib.sh
	$(call make_venv,.venv,$<)

.venv-serve/.complete: requirements/serve.txt requirements/build.txt requirements/hnswlib.sh
	$(call make_venv,.venv-serve,$<,--require-hashes)

.venv-dev/.complete: requirements/dev.txt requirements/build.txt requirements/hnswlib.sh
	$(call make_venv,.venv-dev,$<)

# --- the demo -----------------------------------------------------------------------------------------------------

serve: .venv/.complete ## Everything from nothing to a running service: make serve [ADS=feed.jsonl.gz] [PORT=8080]
	@.venv/bin/hlm export demo --out $(ENCODER) --precision int8
ifeq ($(ADS),var/feeds/samples.jsonl.gz)
	@.venv/bin/hlm samples --out '$(ADS)'
endif
	@.venv/bin/hlm index build --feed '$(ADS)' --encoder $(ENCODER) --out 'var/indexes/$(NAME)'
	@exec .venv/bin/hlm serve --name '$(NAME)' --encoder $(ENCODER) --index 'var/indexes/$(NAME)' --port $(PORT)

# --- checks -------------------------------------------------------------------------------------------------------

# The environments side by side, and the types beside the slower one; the tests alone, since they take both cores.
test: ## Lint, types, unit tests and end-to-end tests on a real server, from nothing
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=line .venv-serve/.complete lint types
	@$(MAKE) --no-print-directory unit

lint: .venv-dev/.complete ## Ruff, as linter and formatter
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .

types: .venv-dev/.complete ## mypy, strict
	.venv-dev/bin/mypy

unit: .venv-dev/.complete .venv-serve/.complete ## All tests; the end-to-end ones run the server from the serving environment
	.venv-dev/bin/python -m pytest --numprocesses=2

# Real queries and 54,667 real ads where the data set is at hand, the samples otherwise.
DATA ?= ../shared/data/homedepot
BENCH_FEED = $(if $(wildcard $(DATA)/ads.jsonl.gz),$(DATA)/ads.jsonl.gz,var/feeds/samples.jsonl.gz)
BENCH_QUERIES = $(if $(wildcard $(DATA)/queries.dev.tsv),--queries $(DATA)/queries.dev.tsv)
BENCH_INDEX = var/indexes/benchmark

define bench_artifacts
	@.venv-dev/bin/hlm export demo --out $(ENCODER) --precision int8
	@.venv-dev/bin/hlm samples --out var/feeds/samples.jsonl.gz
	@.venv-dev/bin/hlm index build --feed $(BENCH_FEED) --encoder $(ENCODER) --out $(BENCH_INDEX) $(BENCH_QUERIES)
endef
BENCH_HISTORY = benchmarks/history.jsonl
BENCH_PAIR = --encoder $(ENCODER) --index $(BENCH_INDEX)

bench: .venv-dev/.complete ## What each stage of a request costs, kept in benchmarks/history.jsonl and drawn; QUICK=1 keeps nothing
	$(bench_artifacts)
	@.venv-dev/bin/python -m benchmarks.micro $(BENCH_PAIR) $(BENCH_QUERIES) $(if $(QUICK),--rounds 1 --seconds 0.05,--history $(BENCH_HISTORY)) $(BENCH_ARGS)
	@$(if $(QUICK),,$(MAKE) --no-print-directory bench-plot)

bench-plot: .venv-dev/.complete ## The history of these costs over commits, as var/reports/costs.png
	@.venv-dev/bin/python -m benchmarks.history $(BENCH_HISTORY) var/reports/costs.png

bench-serving: .venv-dev/.complete ## The service against its own bare pipeline, one core each for server and clients
	$(bench_artifacts)
	@.venv-dev/bin/python -m benchmarks.serving $(BENCH_PAIR) $(BENCH_QUERIES) $(BENCH_ARGS)

# Many distinct queries, so that those which are never seen twice are real ones too.
ZIPF_QUERIES = $(if $(wildcard $(DATA)/../queries/unlabelled.tsv.gz),--queries $(DATA)/../queries/unlabelled.tsv.gz)

bench-zipf: .venv-dev/.complete ## Embedding caches of several sizes under queries as skewed as a search log
	$(bench_artifacts)
	@.venv-dev/bin/python -m benchmarks.zipf $(BENCH_PAIR) $(ZIPF_QUERIES) $(BENCH_ARGS)

# The wheel of hnswlib is that of the development environment: it has no other.
var/peers/%/.complete: benchmarks/peers/requirements/%.txt .venv-dev/.complete
	@echo "Creating var/peers/$* …"
	@$(PYTHON) -m venv --clear var/peers/$*
	@$(call PIP_INSTALL,var/peers/$*) --no-deps .venv-dev/wheels/hnswlib-*.whl
	@$(call PIP_INSTALL,var/peers/$*) -r $<
	@touch $@

PEERS := $(patsubst benchmarks/peers/requirements/%.txt,%,$(wildcard benchmarks/peers/requirements/*.txt))

peers: $(PEERS:%=var/peers/%/.complete) ## The environments of the servers that this one is compared with

SHORT_CHECKPOINT := var/runs/minilm-3-layers
SHORT_ENCODER := var/encoders/minilm-3-layers-int8
PEER_RESULTS ?= var/reports/peers.jsonl

$(SHORT_CHECKPOINT): .venv-dev/.complete
	@.venv-dev/bin/python -m benchmarks.peers.three_layers $@

# Results are kept, so that a run goes on where another stopped; remove them to begin anew.
bench-peers: peers $(SHORT_CHECKPOINT) ## This service beside six others, an hour, resumable; QUICK=1 for one short round
	$(bench_artifacts)
	@.venv-dev/bin/hlm export $(SHORT_CHECKPOINT) --min-overlap 0 --out $(SHORT_ENCODER)
	@.venv-dev/bin/python -m benchmarks.peers $(BENCH_PAIR) $(BENCH_QUERIES) $(ZIPF_QUERIES:--queries=--skewed-queries) --short-encoder $(SHORT_ENCODER) $(if $(QUICK),--rounds 1 --seconds 0.5,--results $(PEER_RESULTS)) $(BENCH_ARGS)

publish-peers: .venv-dev/.complete ## What `make bench-peers` found, as tables and a plot in docs/benchmarks.md
	@.venv-dev/bin/python -m benchmarks.peers.publish $(PEER_RESULTS)

check-overload: .venv-dev/.complete ## A real server at 2, 5 and 10 times its capacity; QUICK=1 for phases of 1 s
	$(bench_artifacts)
	@.venv-dev/bin/python -m benchmarks.overload $(BENCH_PAIR) $(BENCH_QUERIES) $(if $(QUICK),--seconds 1) $(BENCH_ARGS)

bench-low-lane: .venv-dev/.complete ## What /retrieve/batch costs single requests: their p99 with the low lane full and empty
	$(bench_artifacts)
	@.venv-dev/bin/python -m benchmarks.low_lane $(BENCH_PAIR) $(BENCH_QUERIES) $(BENCH_ARGS)

bench-record: .venv-dev/.complete ## What it costs to make changes of ads durable: commits a second, synced and not
	@.venv-dev/bin/python -m benchmarks.record $(BENCH_ARGS)

bench-scale: .venv-dev/.complete ## What an index costs as it grows to a million ads, about an hour on two cores; QUICK=1 stops at 100,000
	@.venv-dev/bin/hlm export demo --out $(ENCODER) --precision int8
	@.venv-dev/bin/python -m benchmarks.scale --encoder $(ENCODER) $(if $(QUICK),--sizes 10000 100000) $(BENCH_ARGS)

check-drain: .venv-dev/.complete ## Two replicas behind nginx (NGINX=path), restarted in turn under load; QUICK=1 for two restarts
	$(bench_artifacts)
	@.venv-dev/bin/python -m benchmarks.drain $(BENCH_PAIR) $(BENCH_QUERIES) $(if $(NGINX),--nginx $(NGINX)) $(if $(QUICK),--restarts 2 --seconds 10) $(BENCH_ARGS)

check-swap: .venv-dev/.complete ## Releases swapped under load, good and bad ones; QUICK=1 for 6 swaps
	@.venv-dev/bin/hlm export demo --out $(ENCODER) --precision int8
	@.venv-dev/bin/hlm export demo --out var/encoders/minilm-fp32 --precision fp32
	@.venv-dev/bin/hlm samples --out var/feeds/samples.jsonl.gz
	@.venv-dev/bin/python -m benchmarks.swap --encoder $(ENCODER) --other-encoder var/encoders/minilm-fp32 --feed var/feeds/samples.jsonl.gz $(BENCH_QUERIES) $(if $(QUICK),--swaps 6 --seconds 2) $(BENCH_ARGS)

# All five inventories where the data set is at hand; they take minutes to embed and link, so not in a hurry.
FILTERED_FEEDS = $(if $(QUICK),var/feeds/samples.jsonl.gz,$(or $(wildcard $(DATA)/../*/ads.jsonl.gz),$(BENCH_FEED)))

check-index: .venv-dev/.complete ## Filtered search, ads changed while a real server answers, recall after many merges, 500 kills; QUICK=1 for a tenth
	$(bench_artifacts)
	@.venv-dev/bin/python -m benchmarks.check_index $(BENCH_PAIR) $(BENCH_QUERIES) --feed $(FILTERED_FEEDS) $(if $(QUICK),--quick) $(BENCH_ARGS)

# --- training -----------------------------------------------------------------------------------------------------

RECIPE ?= smoke

SMOKE_URL = http://127.0.0.1:$(SMOKE_PORT)
SMOKE_PORT ?= 8189

train-smoke: .venv-dev/.complete ## Every phase of training on made-up data, to a query that is served; SMOKE_PORT=8189
	@if (: < /dev/tcp/127.0.0.1/$(SMOKE_PORT)) 2> /dev/null; then \
	  echo 'port $(SMOKE_PORT) is taken; expected a free one: make train-smoke SMOKE_PORT=…' >&2; exit 1; fi
	@.venv-dev/bin/hlm train samples --out var/data/samples
	@.venv-dev/bin/hlm train run smoke
	@.venv-dev/bin/hlm serve --name smoke --port $(SMOKE_PORT) \
	  --encoder var/runs/smoke/release/encoder --index var/runs/smoke/release/index & \
	server=$$!; trap 'kill $$server' EXIT; \
	until kill -0 $$server && .venv-dev/bin/hlm query 'cordless drill 18v' --top-k 3 --url $(SMOKE_URL) 2>/dev/null; do \
	  sleep 1; kill -0 $$server || exit 1; done

# What `small` and its arms are taught by is put together where the script for it lies beside the data; elsewhere
# the recipe says which directory it lacks.
GET_TEACHER = $(if $(filter small arms/%,$(RECIPE)),$(wildcard ../shared/tools/get-teacher.sh))

recipe: .venv-dev/.complete ## A whole recipe, going on where an earlier run stopped: make recipe RECIPE=small
	@$(if $(GET_TEACHER),$(GET_TEACHER) var/models)
	@.venv-dev/bin/hlm train run '$(RECIPE)'

ARMS = teacher spaces align ladder refine

experiment: ## Small and all its arms, ten hours or so on two cores
	@$(MAKE) --no-print-directory recipe RECIPE=small
	@for arm in $(ARMS); do .venv-dev/bin/hlm train sweep arms/$$arm || exit; done
	@.venv-dev/bin/hlm train run arms/joint

# --- upkeep -------------------------------------------------------------------------------------------------------

lock: ## Resolve requirements/*.txt anew from pyproject.toml
	PYTHON=$(PYTHON) requirements/lock.sh

clean: ## Remove environments and everything that the commands made
	rm -rf .venv .venv-dev .venv-serve var .mypy_cache .ruff_cache .pytest_cache
