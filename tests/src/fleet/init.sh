#!/bin/bash
# Process 1 of one host: lays out its file systems, says so, and then only reaps.
# In its own mount, pid, uts, ipc and network namespaces; killing it is a power cut.
# usage: init.sh DIR HOSTNAME DISK_MB      (DISK_MB 0: no limit of the data root)
set -eu
dir=$1 hostname=$2 disk_mb=$3

mount --make-rprivate /
mount -t proc proc /proc
hostname "$hostname"

mkdir -p "$dir/root" "$dir/run" "$dir/docker" "$dir/etc-docker"
if [ "$disk_mb" != 0 ]; then
  if [ ! -e "$dir/disk.img" ]; then
    truncate -s "${disk_mb}M" "$dir/disk.img"
    # No blocks reserved for root: the Engine runs as root and must feel that the disk is full.
    mkfs.ext4 -q -m 0 "$dir/disk.img"
  fi
  # The kernel frees the loop device when the last namespace that has it mounted is gone.
  mount -o loop "$dir/disk.img" "$dir/docker"
fi
chmod 700 "$dir/root"
mount --bind "$dir/root" /root
# A memory file system would be truer, but then the socket could not be reached from outside.
find "$dir/run" -mindepth 1 -delete
mkdir -p "$dir/run/sshd" "$dir/run/lock"
mount --bind "$dir/run" /run
mkdir -p /var/lib/docker
mount --bind "$dir/docker" /var/lib/docker
# Older Engines keep their identity here.
mkdir -p /etc/docker
mount --bind "$dir/etc-docker" /etc/docker

cd /
: > "$dir/run/ready"
# bash collects every child, also those that others left to process 1.
while :; do sleep 1000 & wait; done
