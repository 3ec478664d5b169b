#!/bin/sh
# Sets up everything at the first start, then serves. Arguments go to `simple-asr serve`; with
# --cluster, Ray is installed too, where a collector of traces is set, OpenTelemetry's SDK, and
# where a store of files is, what speaks S3.
set -eu
CDPATH='' cd -P -- "$(dirname -- "$0")"

is_set() {
    eval "[ -n \"\${$1:-}\" ]" || grep -qsi "^$1=." .env
}

# Each set holds those before it.
package_set=run
if is_set OTEL_EXPORTER_OTLP_ENDPOINT; then package_set=otel; fi
if is_set JOB_FILES_URL; then package_set=s3; fi
for argument; do
    if [ "$argument" = --cluster ]; then package_set=cluster; fi
done
sh scripts/setup.sh "$package_set"
exec .venv/bin/simple-asr serve "$@"
