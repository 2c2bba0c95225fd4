"""The three phases of HARNESS-LM, from labelled and unlabelled queries to a release."""

import os

# Torch then takes its memory in huge pages, which it reads from here when it first takes any: a step of MiniLM's
# alignment on a CPU is a tenth shorter, as there are fewer page faults.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
