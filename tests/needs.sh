#!/bin/sh
# Installs the Debian or Ubuntu packages of those commands that the tests use and that are not there. Rust itself is not
# installed. Does nothing, and needs no root, where everything is there.
#
#   tests/needs.sh
set -eu

PATH=$PATH:/usr/sbin:/sbin # where users do not look, and some of the commands are

packages=
need() { # COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || packages="$packages $2"
}

need cc build-essential # links Rust programs, and compiles the C in some crates
need make build-essential
need dockerd docker.io
need unshare util-linux
need nsenter util-linux
need setpriv util-linux
need mount mount
need python3 python3
need docker-compose docker-compose # 1.29, the last one that speaks for itself
need age age
need zstd zstd
need rsync rsync
need tar tar
need openssl openssl
need setfacl acl
need setfattr attr
need setcap libcap2-bin
need mkfs.ext4 e2fsprogs
need mkfs.xfs xfsprogs
need mkfs.btrfs btrfs-progs
need setquota quota
need sshfs sshfs
need fusermount3 fuse3
# What ssh runs at the other end; not in PATH.
if [ ! -x /usr/lib/openssh/sftp-server ]; then
    packages="$packages openssh-sftp-server"
fi
need ip iproute2
need ps procps
need pg_lsclusters postgresql
# The static one: it becomes the images of the private engines.
if ! command -v busybox >/dev/null 2>&1 || ldd "$(command -v busybox)" >/dev/null 2>&1; then
    packages="$packages busybox-static"
fi

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        echo "needs.sh: packages are missing ($packages): install them, or run this as root" >&2
        exit 1
    fi
}

install() {
    # Somebody else may be installing something: wait for them.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends "$@" >&2
}

# A database in a container is wanted, and none of the machine's own.
case $packages in
*postgresql*)
    echo 'create_main_cluster = false' | as_root sh -c 'mkdir -p /etc/postgresql-common/createcluster.d &&
        cat >/etc/postgresql-common/createcluster.d/voltool-tests.conf'
    ;;
esac

if [ -n "$packages" ]; then
    command -v apt-get >/dev/null 2>&1 || {
        echo "needs.sh: this is no Debian or Ubuntu; install the equivalents of:$packages" >&2
        exit 1
    }
    as_root apt-get -o DPkg::Lock::Timeout=600 update -qq >&2
    # shellcheck disable=SC2086 # several words are wanted
    install $packages
fi
# Debian has it in docker.io up to version 12, and in a package of its own since.
command -v docker >/dev/null 2>&1 || install docker-cli
