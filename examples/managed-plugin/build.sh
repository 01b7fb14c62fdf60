#!/bin/sh
# Makes a plugin that the engine manages out of a voltool binary, without a registry and without a network.
#
#   examples/managed-plugin/build.sh [BINARY [NAME]]      default: the voltool in PATH, and the name voltool
#
# Then: docker plugin enable voltool
set -eu

here=$(cd "$(dirname "$0")" && pwd)
binary=${1:-$(command -v voltool)}
name=${2:-voltool}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
root=$work/rootfs
# Everything that is mounted over has to be there.
mkdir -p "$root/usr/local/bin" "$root/etc/voltool" "$root/etc/ssl/certs" "$root/var/lib/voltool" "$root/var/cache/voltool" \
    "$root/mnt/volumes" "$root/host/run" "$root/run/docker/plugins" "$root/tmp" "$root/proc" "$root/sys" "$root/dev"
chmod 1777 "$root/tmp"
cp "$binary" "$root/usr/local/bin/voltool"
chmod 0755 "$root/usr/local/bin/voltool"

# A static binary needs nothing else; a dynamic one its libraries, at the same places.
if libraries=$(ldd "$binary" 2>/dev/null); then
    echo "$libraries" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
fi

# What says which servers are who they say they are.
for certificates in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem; do
    if [ -r "$certificates" ]; then
        cp -L "$certificates" "$root/etc/ssl/certs/ca-certificates.crt"
        break
    fi
done

cp "$here/config.json" "$work/config.json"
docker plugin create "$name" "$work"
