# Runs one private Docker engine. Started by engine.rs as the first process of its own mount, network and process namespaces:
#
#   bash supervisor.sh DIR DOCKERD [DOCKERD ARGUMENT ...]
#
# Takes one command per line from stdin and answers each with one line:
#   start   start dockerd                     -> started
#   stop    SIGTERM, and SIGKILL after 20 s   -> stopped
#   kill    SIGKILL                           -> stopped
#   check   whether dockerd is there          -> running | gone
# When stdin closes, because the engine is dropped or because the test process is gone however that came about, dockerd is
# killed, DIR is removed, and everything else in the namespaces dies with this process. It is one process for the whole life of an engine, so
# that containers and mounts survive a restart of dockerd as they would on a real machine.
set -u
dir=$1
shift
# What goes wrong in here, and the notices about killed processes, belong to the engine's log.
exec 2>>"$dir/log"

fail() {
  echo "failed: $*"
  exit 1
}

# The host's /run is hidden: dockerd's fixed paths below it (plugin sockets, containerd's shims) would be shared with the
# machine's own engine. So is /etc/docker, where old engines keep their key.
mount -t proc proc /proc || fail "cannot mount /proc"
mount -t tmpfs -o mode=755 tmpfs /run || fail "cannot mount /run"
mkdir -p /run/docker/plugins /etc/docker || fail "cannot make folders"
mount --bind "$dir/plugins" /run/docker/plugins || fail "cannot bind the folder of plugin sockets"
mount -t tmpfs -o mode=755 tmpfs /etc/docker || fail "cannot mount /etc/docker"
busybox ip link set lo up || fail "cannot set up the loopback interface"

pid=

# Sends a signal to dockerd and waits until it is gone.
end() {
  [ -n "$pid" ] || return 0
  kill -s "$1" "$pid" 2>/dev/null
  for _ in $(seq 200); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -s KILL "$pid" 2>/dev/null
  wait "$pid" 2>/dev/null
  pid=
  # After SIGKILL these are left, and the next start would stumble over them.
  rm -f "$dir/pid" "$dir/docker.sock"
}

echo ready
while read -r command; do
  case $command in
    start)
      # Without stdin: dockerd must not read the commands.
      "$@" >>"$dir/log" 2>&1 </dev/null &
      pid=$!
      echo started
      ;;
    stop) end TERM && echo stopped ;;
    kill) end KILL && echo stopped ;;
    check) if [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; then echo running; else echo gone; fi ;;
    *) fail "unknown command $command" ;;
  esac
done

# Not in an orderly way, for which dockerd would wait until its containers have stopped: nothing of it is needed any more.
end KILL
# Whatever is left, such as containers of a killed engine. This reaches this process namespace only, and not this process.
kill -s KILL -1 2>/dev/null
for _ in $(seq 50); do
  # Innermost first.
  mapfile -t mounts < <(awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | tac)
  for mount in "${mounts[@]}"; do umount -l "$mount"; done
  rm -rf --one-file-system "$dir" 2>/dev/null && break
  sleep 0.1
done
find /sys/fs/cgroup -depth -type d -path "*/$(basename "$dir")*" -exec rmdir {} + 2>/dev/null
