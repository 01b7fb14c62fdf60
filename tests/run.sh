#!/usr/bin/env bash
# Runs all tests, on a Debian or Ubuntu with Rust:
#
#     tests/run.sh [ARGUMENT OF CARGO TEST]...          tests/run.sh --test docker_restore -- anonymous
#
# Installs what the tests need and is missing (tests/needs.sh), and ends with the summaries of `cargo test`. Run it as root, or as
# a user who may use sudo: then voltool is built as the user, and the tests run as root. Tests that need a Docker engine start
# private ones of their own; the machine's engine, its volumes and its containers are not touched.
#
#   VOLTOOL_TEST_DOCKERD       the engine's program (default: dockerd); $PWD/tests/engine/modern-engine is a newer one than Debian 12's
#   VOLTOOL_TEST_S3_ENDPOINT   a real S3 server for those tests that can use one; tests/garage.sh starts one
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tests/needs.sh
command -v cargo >/dev/null || { echo "run.sh: cargo is not installed; https://rustup.rs says how to get Rust" >&2; exit 1; }

# Where users do not look, and dockerd is.
export PATH=$PATH:/usr/sbin:/sbin
# A repository, an engine or a key of whoever runs this is none of the tests' business.
for name in $(compgen -e); do
  case $name in
    VOLTOOL_TEST_*) ;;
    VOLTOOL_* | DOCKER_*) unset "$name" ;;
  esac
done

if ((EUID != 0)); then
  host=$(rustc -vV | sed -n 's/^host: //p')
  runner=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$host")_RUNNER
  export "$runner=sudo --preserve-env env PATH=$PATH"
fi
exec cargo test --locked --no-fail-fast "$@"
