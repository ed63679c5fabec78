#!/usr/bin/env bash
# One test of xfstests, in mount and process namespaces of its own: inside.sh PLACE SUITE BINARY TEST
# What it does to the machine's tree is gone with it, as are its processes and mounts however it ends. PLACE has the folders
# test, scratch, tmp and sbin, and the files passwd and group; it is seen as /mnt. BINARY is mount(8)'s helper.
set -euo pipefail
place=$1 suite=$2 binary=$3 test=$4
# Processes that the namespace ends with are killed: first the daemons get the time to send what they have.
DRAIN_S=90

mount --make-rprivate /
sbin=$(readlink -f /sbin)
mount -t overlay -o "lowerdir=$place/sbin:$sbin" overlay "$sbin"
mount --bind "$binary" "$sbin/mount.fuse.mediafs"
mount --bind "$place/passwd" /etc/passwd
mount --bind "$place/group" /etc/group
mount --bind "$place" /mnt
# Its files there are called by process ids, which other namespaces have too.
mount --bind /mnt/tmp /tmp
cd "$suite"
export TEST_DIR=/mnt/test SCRATCH_MNT=/mnt/scratch RESULT_BASE=/mnt/results HOST_OPTIONS=/mnt/empty TMPDIR=/tmp
code=0
./check "$test" || code=$?
# Their names as the kernel cuts them.
for ((tenths = 0; tenths < DRAIN_S * 10; tenths++)); do
  pgrep -x 'mount.fuse.medi|mediafs' >/dev/null || exit "$code"
  sleep 0.1
done
echo "DAEMON STILL RUNNING after $DRAIN_S s"
exit 1
