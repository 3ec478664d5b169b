#!/bin/sh
# Sets up everything, then runs all checks and tests, whether or not one before has failed.
# Arguments go to pytest: ./run_tests.sh -k keys
# A test process for each core; in one alone: ./run_tests.sh --numprocesses 0
set -eu
CDPATH='' cd -P -- "$(dirname -- "$0")"

sh scripts/setup.sh test

report=''
all_passed=true

step() {
    name=$1
    shift
    printf '\n== %s\n' "$name"
    began=$(date +%s)
    if "$@"; then
        outcome=passed
    else
        outcome=FAILED
        all_passed=false
    fi
    report="$report$(printf '%-6s  %4d s  %s' "$outcome" $(($(date +%s) - began)) "$name")
"
}

trap 'exit 130' INT
step 'format' .venv/bin/ruff format --check .
step 'lint' .venv/bin/ruff check .
step 'types' .venv/bin/mypy
step 'layers' .venv/bin/lint-imports
step 'tests' .venv/bin/pytest --numprocesses auto "$@"

printf '\n%s' "$report"
$all_passed
