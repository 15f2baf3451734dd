#!/bin/sh
# Boots the systemd of a Debian directory in the virtual machine, over a file system in memory, and runs inside.sh there:
# cargo xtask vm --limit 850 -- sh xtask/tests/systemd/boot.sh DEBIAN PACKAGE. It takes about eight minutes of emulation.
set -e
inside=$(realpath "$(dirname "$0")/inside.sh") debian=$(realpath "$1") package=$(realpath "$2")
mkdir -p /run/boot; mount -t tmpfs -o size=1200M,mode=755 boot /run/boot; cd /run/boot; mkdir up work root
modprobe overlay 2>/dev/null || true
mount -t overlay -o lowerdir=$debian,upperdir=/run/boot/up,workdir=/run/boot/work boot root
mkdir -p root/deb; cp "$package" root/deb/herd.deb; cp "$inside" root/deb/run.sh; chmod 755 root/deb/run.sh
cat > root/etc/systemd/system/run.service <<'U'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh /deb/run.sh
ExecStopPost=/bin/systemctl --force --no-block exit 0
TimeoutStartSec=800
U
mkdir -p root/etc/systemd/system/default.target.wants
ln -sf /etc/systemd/system/run.service root/etc/systemd/system/default.target.wants/run.service
ln -sf /lib/systemd/system/multi-user.target root/etc/systemd/system/default.target
for u in systemd-timesyncd.service systemd-networkd.service systemd-resolved.service getty.target console-getty.service systemd-logind.service e2scrub_reap.service systemd-pstore.service apt-daily.timer apt-daily-upgrade.timer; do ln -sf /dev/null root/etc/systemd/system/$u; done
echo 0123456789abcdef0123456789abcdef > root/etc/machine-id
ip link set lo up || true
cat > boot.sh <<'B'
set -e
cd /run/boot
mount --make-rprivate /
mount -t proc proc root/proc; mount -t sysfs sysfs root/sys; mount -t cgroup2 cgroup2 root/sys/fs/cgroup
mount --rbind /dev root/dev; mount -t tmpfs -o mode=755 tmpfs root/run; mount -t tmpfs tmpfs root/tmp
cd root; mkdir -p old; pivot_root . old; umount -l /old
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb chroot . /lib/systemd/systemd --system --log-target=console --show-status=no </dev/null
B
mkdir -p /sys/fs/cgroup/boot
touch up/report; (tail -n +1 -F root/report 2>/dev/null) &
timeout 800 unshare --fork --pid --mount --uts --ipc sh -c 'echo 0 > /sys/fs/cgroup/boot/cgroup.procs; exec unshare --cgroup sh boot.sh' > console.log 2>&1 || echo "systemd ended: $?"
tail -20 console.log
true
