#!/bin/sh
# Sets up everything at the first start, then serves. Arguments go to `simple-asr serve`; with
# --cluster, Ray is installed too.
set -eu
CDPATH='' cd -P -- "$(dirname -- "$0")"

package_set=run
for argument; do
    if [ "$argument" = --cluster ]; then package_set=cluster; fi
done
sh scripts/setup.sh "$package_set"
exec .venv/bin/simple-asr serve "$@"
