"""The three phases of HARNESS-LM, from labelled and unlabelled queries to a release."""

import os

# Torch then takes its memory in huge pages, which it reads from here when it first takes any: a step of MiniLM's
# alignment on a CPU is a tenth shorter, as there are fewer page faults.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# Threads of OpenMP that wait for each other sleep, rather than keep a core from who shares it: beside one other busy
# process the recipe `smoke` takes two thirds of the time.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
