#!/bin/sh
# Sets up everything at the first start, then serves. Arguments go to `simple-asr serve`; with
# --cluster, Ray is installed too, and where a collector of traces is set, OpenTelemetry's SDK.
set -eu
CDPATH='' cd -P -- "$(dirname -- "$0")"

package_set=run
collector=OTEL_EXPORTER_OTLP_ENDPOINT
if [ -n "${OTEL_EXPORTER_OTLP_ENDPOINT:-}" ] || grep -qsi "^$collector=." .env; then
    package_set=otel
fi
for argument; do
    if [ "$argument" = --cluster ]; then package_set=cluster; fi
done
sh scripts/setup.sh "$package_set"
exec .venv/bin/simple-asr serve "$@"
