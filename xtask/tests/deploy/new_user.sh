# What somebody does who has a fresh Debian and the package. Runs as root in that Debian, as the first process of its own
# namespace, so that nothing outlives it. Each step says what it is about to try.
set -eu
step() { echo "== $*"; }

export DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
find / -xdev -not -path '/proc/*' -not -path '/var/lib/dpkg/*' -not -path '/var/log/*' -not -path '/var/cache/*' \
    -not -path '/root/*' | sort > /root/before

step install
dpkg --install /root/herd.deb
herd --version
man herd | head -5
man herd-ps | head -5
bash -n /usr/share/bash-completion/completions/herd
systemctl is-enabled herd.service
stat --format '%U:%G %a' /etc/herd
ls -d /usr/share/doc/herd/docs/deployment.md

step doctor
herd check /etc/herd/herd.yaml
herd doctor --config /etc/herd/herd.yaml
echo "doctor: $?"

# As the unit does it, but for its cgroup.
as_unit() {
    install --directory --owner=herd --group=herd --mode=0755 /run/herd /var/lib/herd
    setpriv --reuid=herd --regid=herd --clear-groups --no-new-privs --bounding-set=-all \
        herd serve --config /etc/herd/herd.yaml --control-socket /run/herd/herd.sock --log-format text 2>>/root/log &
    daemon=$!
    tries=0
    until herd ps >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt 300 ] || ! kill -0 "$daemon" 2>/dev/null; then
            herd ps; cat /root/log
            exit 1
        fi
        sleep 0.1
    done
}
end() { kill "$daemon"; wait "$daemon"; }

step serve
as_unit
curl -sS -m 60 -H 'X-Session-ID: alice' -d 'let x = 41' http://127.0.0.1:8080/eval
echo "answer: $(curl -sS -m 60 -H 'X-Session-ID: alice' -d 'x + 1' http://127.0.0.1:8080/eval)"
curl -sS -m 60 -o /dev/null -w 'dashboard: %{http_code}\n' http://127.0.0.1:8081/
herd ps
echo "sessions: $(herd ps --json | python3 -c 'import json, sys; print([s["id"] for s in json.load(sys.stdin)["sessions"]])')"
echo "others: $(setpriv --reuid=nobody --regid=nogroup --clear-groups herd ps 2>&1 || true)"
herd end alice
end

step own-program
cat > /srv/own.py <<'P'
import http.server, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/break":
            print("the flux capacitor is broken", file=sys.stderr, flush=True)
            os._exit(3)
        body = f"{os.getpid()} {os.getuid()}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
P
cat > /etc/herd/herd.yaml <<'Y'
worker:
  command: [/usr/bin/python3, /srv/own.py]
  health_path: /
sandbox:
  read_only: [/srv/own.py]
Y
herd check /etc/herd/herd.yaml
as_unit
curl -sS -m 60 -o /dev/null -w 'own: %{http_code}\n' -H 'X-Session-ID: bob' http://127.0.0.1:8080/
curl -sS -m 60 -H 'X-Session-ID: bob' http://127.0.0.1:8080/break
echo
grep 'flux capacitor' /root/log
end

step upgrade
dpkg --install /root/herd.deb
grep own.py /etc/herd/herd.yaml

step start-again
# Where there is a service manager, dpkg's scripts ask it; here it only writes down what it is asked.
mkdir -p /run/systemd/system
cat > /usr/local/sbin/deb-systemd-invoke <<'S'
#!/bin/sh
echo "asked: $*" >> /root/asked
S
cat > /usr/local/sbin/systemctl <<'S'
#!/bin/sh
[ "$1" = --quiet ] || exit 0
[ "$2" = "$(cat /root/root-unit-is 2>/dev/null)" ]
S
chmod 755 /usr/local/sbin/deb-systemd-invoke /usr/local/sbin/systemctl
asked() { : > /root/asked; "$@" >&2; echo "asked by $*: $(tr '\n' ' ' < /root/asked)"; }
asked dpkg --remove herd
asked dpkg --install /root/herd.deb
echo is-active > /root/root-unit-is
asked dpkg --install /root/herd.deb
echo is-enabled > /root/root-unit-is
asked dpkg --install /root/herd.deb
# What an administrator has enabled is known to the package, so that it goes with it.
ln -s /usr/lib/systemd/system/herd-root.service /etc/systemd/system/multi-user.target.wants/herd-root.service
mkdir -p /etc/systemd/system/sockets.target.wants
ln -s /usr/lib/systemd/system/herd.socket /etc/systemd/system/sockets.target.wants/herd.socket
dpkg --install /root/herd.deb
rm -r /run/systemd /usr/local/sbin/deb-systemd-invoke /usr/local/sbin/systemctl

step remove
# As dpkg would find it after an administrator's own change.
dpkg --remove herd
test ! -e /usr/bin/herd
ls /etc/herd/herd.yaml
dpkg --purge herd
rm -rf /run/herd /srv/own.py
find / -xdev -not -path '/proc/*' -not -path '/var/lib/dpkg/*' -not -path '/var/log/*' -not -path '/var/cache/*' \
    -not -path '/root/*' | sort > /root/after
echo "left: $(diff /root/before /root/after | grep '^[<>]' | grep -v -e '/tmp' -e __pycache__ -e '/etc/\(passwd\|group\|shadow\|gshadow\|subuid\|subgid\)-\?$' | tr '\n' ' ')"
echo "account: $(getent passwd herd || echo none)"

step person
useradd --create-home --uid 1234 herd
echo mine > /home/herd/file
dpkg --install /root/herd.deb || echo "a person: refused"
dpkg --purge herd
echo "a person: $(getent passwd herd) $(cat /home/herd/file)"
userdel --remove herd
# A system account of an administrator's own.
useradd --system --home-dir /opt/herd herd
dpkg --install /root/herd.deb
dpkg --purge herd
echo "a system account: $(getent passwd herd)"
step done
