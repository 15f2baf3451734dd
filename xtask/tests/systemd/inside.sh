#!/bin/sh
# Run by boot.sh under a real systemd: the package from installation to purge, with limits, reload, watchdog and sockets.
exec >/report 2>&1
set -x
date
systemctl is-system-running
rm -f /usr/bin/mandb; DEBIAN_FRONTEND=noninteractive dpkg -i /deb/herd.deb
systemctl status herd --no-pager -l | head -30
journalctl -u herd --no-pager -n 30 -o cat
curl -sS -H 'X-Session-ID: alice' -d 'let x = 41' http://127.0.0.1:8080/eval; curl -sS -H 'X-Session-ID: alice' -d 'x + 1' http://127.0.0.1:8080/eval
herd ps
systemctl show herd -p Type,NotifyAccess,WatchdogUSec,MainPID,StatusText,ControlGroup,Delegate
PID=$(systemctl show herd -p MainPID --value)
grep -E 'Uid|CapBnd|NoNewPrivs|Seccomp:' /proc/$PID/status
find /sys/fs/cgroup/system.slice/herd.service -maxdepth 3 -type d
# limits hold
cat >/etc/herd/herd.yaml <<'Y'
network: {admin_bind: 127.0.0.1:8081}
resources: {memory_limit_mb: 64, cpu_limit_cores: 0.5, max_workers: 4}
Y
systemctl reload herd; echo reload=$?
systemctl status herd --no-pager | head -12
curl -sS -H 'X-Session-ID: bob' -d '1 + 1' http://127.0.0.1:8080/eval
herd ps
echo 'nonsense: 1' >> /etc/herd/herd.yaml
systemctl reload herd; echo bad-reload=$?
systemctl is-active herd
sed -i '$d' /etc/herd/herd.yaml
cat /sys/fs/cgroup/system.slice/herd.service/*/memory.max; cat /sys/fs/cgroup/system.slice/herd.service/*/*/memory.max
# watchdog
mkdir -p /run/systemd/system/herd.service.d; printf '[Service]\nWatchdogSec=3s\n' >/run/systemd/system/herd.service.d/w.conf
systemctl daemon-reload; systemctl restart herd; echo restart=$?
PID=$(systemctl show herd -p MainPID --value)
sleep 5; systemctl show herd -p NRestarts,MainPID
kill -STOP $(systemctl show herd -p MainPID --value)
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1; [ "$(systemctl show herd -p NRestarts --value)" != 0 ] && break; done
systemctl show herd -p NRestarts,MainPID,Result,ActiveState
journalctl -u herd --no-pager -n 12 -o cat
for i in 1 2 3 4 5 6 7 8 9 10; do systemctl is-active herd && break; sleep 1; done
curl -sS -H 'X-Session-ID: carol' -d '2 + 2' http://127.0.0.1:8080/eval
systemctl stop herd; echo stop=$?; systemctl show herd -p Result
# socket
systemctl start herd.socket; systemctl is-active herd
curl -sS -H 'X-Session-ID: dave' -d '3 + 3' http://127.0.0.1:8080/eval
curl -sS http://127.0.0.1:8081/healthz; systemctl is-active herd; herd ps
systemctl stop herd.socket herd.service
# root
systemctl start herd-root; echo root=$?
journalctl -u herd-root --no-pager -n 15 -o cat
curl -sS -H 'X-Session-ID: erin' -d '4 + 4' http://127.0.0.1:8080/eval
herd ps
systemctl status herd-root --no-pager | head -14
ls -ld /run/herd-uids; ls /run/herd-uids; grep Seccomp: /proc/$(systemctl show herd-root -p MainPID --value)/status
# one of the two at a time, and the users that root handed out outlast both
systemctl start herd; echo herd=$?; systemctl is-active herd herd-root; ls -ld /run/herd /run/herd-uids
systemctl start herd-root; echo root=$?; systemctl is-active herd herd-root; ls -ld /run/herd /run/herd-uids
curl -sS -H 'X-Session-ID: frank' -d '5 + 5' http://127.0.0.1:8080/eval
systemctl stop herd-root
# removed and back
dpkg --remove herd; DEBIAN_FRONTEND=noninteractive dpkg -i /deb/herd.deb; systemctl is-active herd
systemctl enable herd-root herd.socket
DEBIAN_FRONTEND=noninteractive dpkg -i /deb/herd.deb; systemctl is-active herd herd-root
systemd-analyze verify herd.service herd-root.service herd.socket; echo verify=$?
systemd-analyze security --no-pager herd.service | tail -1
apt-get purge -y herd || dpkg -P herd
ls -la /etc/herd /var/lib/herd /run/herd; getent passwd herd; find / -xdev -name '*herd*' -not -path '/proc/*' -not -path '/deb/*' -not -path '/sys/*' 2>/dev/null | head
date
