#!/usr/bin/env bash
# voltool from nothing to a proven restore, on a Debian or Ubuntu with Rust:
#
#     examples/quickstart.sh
#
# It installs what is missing, builds voltool, makes a named volume, an anonymous volume and a data-only container with real
# content, backs them up into a directory, destroys them, restores them, and proves that every byte and attribute is back. Each
# command is printed before it runs.
#
# If a Docker engine answers (DOCKER_HOST, or the local one), it is used; all that is made on it has a name of its own, is named
# in every command, and is removed at the end. Nothing else on it is changed. If none answers, the script starts a private
# engine in a temporary directory, in network and mount namespaces of its own, which is gone afterwards.
#
# Must be run as root, because it reads volumes. VOLTOOL=/path/to/voltool skips the build.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/voltool-quickstart.XXXXXX")
tag=voltool-quickstart-$$          # the beginning of every name that this script gives
engine=                            # process id of the private engine, if there is one

exec 3>&1                          # commands are shown here, wherever their output goes
say()  { printf '\n# %s\n' "$*"; }
run() {
  local word line='$'
  for word; do
    [[ $word != *[^A-Za-z0-9_./:=@%+,-]* ]] || word="'$word'"
    line+=" $word"
  done
  printf '%s\n' "$line" >&3
  "$@"
}
fail() { printf 'quickstart: error: %s\n' "$*" >&2; exit 1; }

cleanup() {
  local code=$?
  trap - EXIT HUP INT TERM
  if [[ -n ${image_made:-} ]]; then
    docker rm -f -v "$tag-app" "$tag-data" >/dev/null 2>&1 || true
    docker volume rm "$tag-named" ${anonymous:+"$anonymous"} ${held:+"$held"} >/dev/null 2>&1 || true
    docker rmi "$tag" >/dev/null 2>&1 || true
  fi
  if [[ -n $engine ]]; then
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
  fi
  rm -rf "$scratch"
  exit "$code"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Installs the Debian packages of those commands that are not there: need COMMAND PACKAGE [COMMAND PACKAGE]...
need() {
  local missing=()
  while (($#)); do
    command -v "$1" >/dev/null || missing+=("$2")
    shift 2
  done
  ((${#missing[@]})) || return 0
  run apt-get update -qq
  run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

start_engine() {
  say "No Docker engine answers: starting a private one in $scratch/engine"
  mkdir -p "$scratch/engine/plugins" "$scratch/engine/etc"
  # A mount namespace, so that what the engine mounts goes with it; a network namespace, because --bridge=none would
  # otherwise remove the docker0 of the host.
  # shellcheck disable=SC2016 # expanded by the inner shell
  unshare --mount --net bash -euc '
    mount --make-rprivate /
    mkdir -p /run/docker/plugins /etc/docker
    mount --bind "$0/plugins" /run/docker/plugins
    mount --bind "$0/etc" /etc/docker
    exec dockerd --data-root "$0/data" --exec-root "$0/exec" --pidfile "$0/pid" --host "unix://$0/docker.sock" \
      --bridge=none --iptables=false' "$scratch/engine" >"$scratch/engine/log" 2>&1 &
  engine=$!
  export DOCKER_HOST=unix://$scratch/engine/docker.sock
  unset DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH
  for _ in {1..300}; do
    docker version >/dev/null 2>&1 && return
    kill -0 "$engine" 2>/dev/null || { tail -n 20 "$scratch/engine/log" >&2; engine=; fail "the private engine did not start"; }
    sleep 0.1
  done
  tail -n 20 "$scratch/engine/log" >&2
  fail "the private engine does not answer"
}

# Copies the content of our volumes, with everything that belongs to it, to compare with later.
mountpoint() { docker volume inspect --format '{{.Mountpoint}}' "$1"; }
keep_copy()  { mkdir -p "$scratch/before/$1" && rsync -aHAXS "$(mountpoint "$1")/" "$scratch/before/$1/"; }
prove() {
  local differences
  differences=$(rsync -aHAXn --delete --checksum --itemize-changes "$scratch/before/$1/" "$(mountpoint "$1")/")
  [[ -z $differences ]] || { printf '%s\n' "$differences"; fail "volume $1 did not come back as it was"; }
  printf 'identical: %s\n' "$1"
}

((EUID == 0)) || fail "this needs root, to install packages and to read volumes; try: sudo env PATH=\"\$PATH\" examples/quickstart.sh"

# --------------------------------------------------------------------------------------------------------------- prepare
say "What this needs, and what is missing of it"
found_engine=
docker version >/dev/null 2>&1 && found_engine=yes
need busybox busybox-static rsync rsync
[[ -n $found_engine ]] || need dockerd docker.io unshare util-linux
command -v docker >/dev/null || need docker docker-cli
[[ -n $found_engine ]] || start_engine
run docker version --format 'engine {{.Server.Version}}, API {{.Server.APIVersion}}'

if [[ -z ${VOLTOOL:-} ]]; then
  say "Build voltool"
  command -v cargo >/dev/null || fail "cargo is not installed; https://rustup.rs says how to get Rust"
  need cc build-essential
  run cargo build --release --locked --manifest-path "$project/Cargo.toml"
  VOLTOOL=${CARGO_TARGET_DIR:-$project/target}/release/voltool
fi
voltool() { "$VOLTOOL" "$@"; }
[[ -x $VOLTOOL ]] || fail "$VOLTOOL is not there"

# voltool shall leave nothing on this host: its configuration, key, state and cache are in the scratch directory.
export VOLTOOL_CONFIG=$scratch/voltool/config.toml VOLTOOL_STATE_DIR=$scratch/voltool/state VOLTOOL_CACHE_DIR=$scratch/voltool/cache
unset VOLTOOL_REPO VOLTOOL_IDENTITY VOLTOOL_PASSPHRASE VOLTOOL_PASSPHRASE_FILE
mkdir -p "$scratch/voltool"

# ------------------------------------------------------------------------------------------------------------- something to lose
say "An image, made here from a static busybox; nothing is pulled"
busybox=$(command -v busybox)
mkdir -p "$scratch/image/bin" "$scratch/image/tmp"
cp "$busybox" "$scratch/image/bin/busybox"
for applet in sh cat dd ln mkdir chmod chown mkfifo seq true; do ln -s busybox "$scratch/image/bin/$applet"; done
cat >"$scratch/image/fill" <<'EOF'
set -e
cd "$1"
mkdir -p articles private
for n in $(seq 1 200); do echo "article $n of $1" >articles/$n.txt; done
dd if=/dev/urandom of=photo.bin bs=65536 count=48 2>/dev/null
dd if=/dev/urandom of=sparse.img bs=4096 count=1 seek=25000 2>/dev/null
ln photo.bin hard-link.bin
ln -s articles/1.txt newest
mkfifo pipe
chmod 4711 photo.bin
chown 999:999 articles
chmod 0700 private
EOF
image_made=yes
tar -C "$scratch/image" -cf "$scratch/image.tar" .
run docker import "$scratch/image.tar" "$tag"

say "A named volume"
run docker volume create --label purpose=quickstart "$tag-named"
run docker run --rm --network none --volume "$tag-named:/data" "$tag" sh /fill /data

say "A container with an anonymous volume"
run docker run --name "$tag-app" --network none --volume /cache "$tag" sh /fill /cache
anonymous=$(docker inspect --format '{{(index .Mounts 0).Name}}' "$tag-app")

say "A data-only container: it never runs, it only holds a volume for others"
run docker create --name "$tag-data" --volume /srv "$tag" true
held=$(docker inspect --format '{{(index .Mounts 0).Name}}' "$tag-data")
run docker run --rm --network none --volumes-from "$tag-data" "$tag" sh /fill /srv

for volume in "$tag-named" "$anonymous" "$held"; do keep_copy "$volume"; done

# ------------------------------------------------------------------------------------------------------------------ the main job
say "A repository: here a directory; s3://bucket/prefix works the same way"
run voltool init --repo "$scratch/repository"

say "What is there, and what is at risk?"
run voltool ls

say "Back up"
run voltool backup "$tag-named" "$anonymous" "$held"
run voltool snapshots

say "Disaster: containers and volumes are destroyed"
run docker rm -v "$tag-app" "$tag-data"
run docker volume rm "$tag-named"
for volume in "$tag-named" "$anonymous" "$held"; do
  ! docker volume inspect "$volume" >/dev/null 2>&1 || fail "volume $volume is still there"
done

say "Bring them back, as on a host that knows nothing: without local state and cache"
run rm -rf "$VOLTOOL_STATE_DIR" "$VOLTOOL_CACHE_DIR"
for volume in "$tag-named" "$anonymous" "$held"; do run voltool restore "$volume"; done

say "Proof: compare content and all attributes with a copy from before"
for volume in "$tag-named" "$anonymous" "$held"; do prove "$volume"; done
label=$(docker volume inspect --format '{{index .Labels "purpose"}}' "$tag-named")
[[ $label == quickstart ]] || fail "the label of $tag-named did not come back"
say "Everything is back. Next: README.md, and docs/runbook.md for the day when this is not a drill"
