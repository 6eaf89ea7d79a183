# One command each; PYTHON names the interpreter with the extras "all,training".
PYTHON ?= python
DATA ?= ../shared/data
OUT ?= out/results
IMAGES ?= 24

.PHONY: results
results:  ## raw folders to docs/results: curate, fit, U-Nets, report
	$(PYTHON) training/results.py $(DATA) -o $(OUT) --images $(IMAGES) --docs docs/results
