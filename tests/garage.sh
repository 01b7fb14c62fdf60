#!/bin/sh
# A real S3 server for tests: Garage, built from its published source, private to the command that it is run for.
#
#   tests/garage.sh build              builds Garage once, if it is not there yet (about 15 minutes on two cores)
#   tests/garage.sh run COMMAND [ARG]  starts a server on free loopback ports, runs COMMAND, stops the server
#
# COMMAND finds the server in VOLTOOL_TEST_S3_ENDPOINT, VOLTOOL_TEST_S3_BUCKET, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
# AWS_REGION, and its exit status is the script's. The server's data and log are in a temporary directory that is removed.
set -eu

version=2.5.0
tools=${VOLTOOL_TOOLS:-$HOME/.cache/voltool}/garage-$version
garage=$tools/bin/garage

die() {
    echo "garage.sh: $*" >&2
    exit 1
}

build() {
    [ -x "$garage" ] && return
    # The bundled C libraries need a compiler; nothing else comes from the system.
    if ! command -v cc >/dev/null || ! command -v make >/dev/null; then
        [ "$(id -u)" = 0 ] || die "a C compiler and make are needed: apt-get install build-essential"
        DEBIAN_FRONTEND=noninteractive apt-get install -y build-essential >&2 || die "build-essential could not be installed"
    fi
    mkdir -p "$tools"
    # One build at a time; who waited finds it done. Not inside the project's target folder, which it would fill.
    (
        flock 9
        [ -x "$garage" ] || CARGO_TARGET_DIR="$tools/target" cargo install garage --version "$version" --locked \
            --no-default-features --features bundled-libs,sqlite --root "$tools" >&2
    ) 9>"$tools/lock"
    rm -rf "$tools/target"
    [ -x "$garage" ] || die "the build left no $garage"
}

need_python() {
    command -v python3 >/dev/null && return
    [ "$(id -u)" = 0 ] || die "python3 is needed: apt-get install python3"
    DEBIAN_FRONTEND=noninteractive apt-get install -y python3 >&2 || die "python3 could not be installed"
}

random_hex() {
    od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'
}

# Three ports that nobody listens on. Another process may take one meanwhile: then the server does not start, and is tried again.
free_ports() {
    python3 -c '
import socket
sockets = [socket.socket() for _ in range(3)]
for s in sockets: s.bind(("127.0.0.1", 0))
print(*[s.getsockname()[1] for s in sockets])'
}

# Whether the server answers a signed LIST of the bucket. The port is open well before that.
answers() {
    python3 - <<'PYTHON'
import datetime, hashlib, hmac, os, sys, urllib.request
endpoint, bucket = os.environ["VOLTOOL_TEST_S3_ENDPOINT"], os.environ["VOLTOOL_TEST_S3_BUCKET"]
key, secret, region = (os.environ[n] for n in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"))
host, query = endpoint.removeprefix("http://"), "list-type=2&max-keys=1"
now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
scope, empty = f"{now[:8]}/{region}/s3/aws4_request", hashlib.sha256(b"").hexdigest()
signed = "host;x-amz-content-sha256;x-amz-date"
canonical = f"GET\n/{bucket}\n{query}\nhost:{host}\nx-amz-content-sha256:{empty}\nx-amz-date:{now}\n\n{signed}\n{empty}"
text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
mac = b"AWS4" + secret.encode()
for part in scope.split("/"):
    mac = hmac.new(mac, part.encode(), "sha256").digest()
signature = hmac.new(mac, text.encode(), "sha256").hexdigest()
headers = {"x-amz-date": now, "x-amz-content-sha256": empty, "Authorization":
           f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={signed}, Signature={signature}"}
try:
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}?{query}", headers=headers), timeout=5).read()
except Exception as error:
    sys.exit(f"{error}")
PYTHON
}

stop() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        # Garage ends within a moment; a server that hangs must not keep the tests from ending.
        for _ in $(seq 50); do
            kill -0 "$server" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=
    fi
}

cleanup() {
    stop
    rm -rf "$dir"
}

# Starts a server in $dir and waits until it answers. Fails if it ends, or does not answer in 30 s.
start() {
    # shellcheck disable=SC2046 # three words are wanted
    set -- $(free_ports)
    cat >"$dir/garage.toml" <<TOML
metadata_dir = "$dir/meta"
data_dir = "$dir/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:$1"
rpc_public_addr = "127.0.0.1:$1"
rpc_secret = "$(random_hex 32)"

[s3_api]
s3_region = "$AWS_REGION"
api_bind_addr = "127.0.0.1:$2"
root_domain = ".s3.garage.localhost"

[admin]
api_bind_addr = "127.0.0.1:$3"
TOML
    VOLTOOL_TEST_S3_ENDPOINT=http://127.0.0.1:$2
    export VOLTOOL_TEST_S3_ENDPOINT
    GARAGE_DEFAULT_ACCESS_KEY=$AWS_ACCESS_KEY_ID GARAGE_DEFAULT_SECRET_KEY=$AWS_SECRET_ACCESS_KEY \
        GARAGE_DEFAULT_BUCKET=$VOLTOOL_TEST_S3_BUCKET \
        "$garage" -c "$dir/garage.toml" server --single-node --default-bucket >"$dir/log" 2>&1 &
    server=$!
    for _ in $(seq 150); do
        kill -0 "$server" 2>/dev/null || return 1
        answers >"$dir/answer" 2>&1 && return
        sleep 0.1
    done
    return 1
}

run() {
    [ $# -gt 0 ] || die "usage: tests/garage.sh run COMMAND [ARG...]"
    build
    need_python
    AWS_REGION=garage
    AWS_ACCESS_KEY_ID=GK$(random_hex 12)
    AWS_SECRET_ACCESS_KEY=$(random_hex 32)
    VOLTOOL_TEST_S3_BUCKET=backup
    export AWS_REGION AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY VOLTOOL_TEST_S3_BUCKET
    # Whatever else is configured here must not reach the command.
    unset AWS_PROFILE AWS_SESSION_TOKEN AWS_DEFAULT_REGION AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3
    dir=$(mktemp -d)
    server=
    trap cleanup EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    attempt=1
    until start; do
        stop
        if [ "$attempt" = 3 ]; then
            cat "$dir/log" "$dir/answer" >&2 2>/dev/null || true
            die "the server did not start"
        fi
        attempt=$((attempt + 1))
        rm -rf "$dir/meta" "$dir/data"
    done
    status=0
    "$@" || status=$?
    exit "$status"
}

case ${1:-} in
build) build ;;
run)
    shift
    run "$@"
    ;;
*) die "usage: tests/garage.sh build | run COMMAND [ARG...]" ;;
esac
