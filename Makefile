# Names for the daily commands. ARGS go to the command: make test ARGS="-k keys"
.DEFAULT_GOAL := help
.PHONY: help setup serve format check test bench

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

setup: ## Make .venv, with all that serving and testing need
	@sh scripts/setup.sh test

serve: ## Start the server
	./start_server.sh $(ARGS)

format: setup ## Format the code, and mend what ruff can mend
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

check: ## Run every check and test, as CI does
	./run_tests.sh $(ARGS)

test: setup ## Run the tests alone
	.venv/bin/pytest $(ARGS)

bench: setup ## Run one of benchmarks/: make bench NAME=accuracy ARGS=FOLDER
	.venv/bin/python -m benchmarks.$(or $(NAME),accuracy) $(ARGS)
