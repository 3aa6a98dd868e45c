#!/usr/bin/env bash
# bench/gateway.sh [--peers DIR] [--only A,B] [--gate EXPR]...    what the gateway costs, beside nginx, haproxy and other gateways
#
# Builds the release binary, starts it with everything on, loads all of them in turns and judges gates; exit 1 when one fails.
# --help lists the rest.  --build FOLDER takes the programs that are there and builds nothing.  bench/gateway.py does the work.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/env

is_built=false
for argument in "$@"; do
    case $argument in
        --build | --build=* | -h | --help) is_built=true ;;
    esac
done
if ! $is_built; then
    scripts/setup --bench
    make build
    scripts/build release bench_policy_bench
fi
exec /usr/bin/python3 bench/gateway.py "$@"
