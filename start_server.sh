#!/bin/sh
# Sets up everything at the first start, then serves. Arguments go to `simple-asr serve`.
set -eu
CDPATH='' cd -P -- "$(dirname -- "$0")"

sh scripts/setup.sh run
exec .venv/bin/simple-asr serve "$@"
