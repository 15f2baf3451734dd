//! Every kind of mistake in pools, routes, access, tenants, webhooks, telemetry, and in what is filled in.

use super::*;

#[test]
fn each_mistake_of_what_several_pools_and_tenants_need_is_told_with_its_place() {
    let table = [
        (
            "network: {admin_bind: 0.0.0.0:8081}",
            "1:23: network.admin_bind: `0.0.0.0:8081` is not on loopback, and whoever reaches the admin API could end every session; write `admin_token_file` too, a loopback address such as 127.0.0.1:8081, or off",
        ),
        ("network: {tls: {cert_file: /c.pem}}", "1:11: network.tls: has no `key_file`; write `key_file` too"),
        (
            "network: {tls: {cert_file: c.pem, key_file: /k/}}",
            "1:28: network.tls.cert_file: `c.pem` is not an absolute path; write a path that starts with /\nherd.yaml:1:45: network.tls.key_file: `/k/` names no file; write the path of the file",
        ),
        (
            "network: {admin_tls: [a]}",
            "1:22: network.admin_tls: is a list and not a map of settings; write `key: value` lines",
        ),
        (
            "network: {admin_token_file: token}",
            "1:29: network.admin_token_file: `token` is not an absolute path; write a path that starts with /",
        ),
        (
            "network: {admin_hosts: [a.example.com, 'b:80', '*.x', münchen.de]}",
            "1:40: network.admin_hosts[1]: `b:80` has a port; write the name alone; it counts for every port\nherd.yaml:1:48: network.admin_hosts[2]: `*.x` has a `*`, which stands for nothing here; write each name\nherd.yaml:1:55: network.admin_hosts[3]: `münchen.de` has letters beyond ASCII; write it as clients send it, in Punycode (xn--…)",
        ),
        (
            "network: {admin_hosts: a}",
            "1:24: network.admin_hosts: `a` is not a list; write [one, two] or a line `- one` for each",
        ),
        (
            "pools: {}",
            "1:8: pools: has no pools in it; write a line `name:` for each pool, with its settings below, or leave `pools` out",
        ),
        (
            "pools: {Big: {}}",
            "1:9: pools: `Big` is no name of a pool; write 1 to 64 lower-case letters, digits, `-` and `_`, the first of them a letter",
        ),
        (
            "pools: {a: {resources: {ttl: 5}}}",
            "1:30: pools.a.resources.ttl: `5` has a number without a unit (ms, s, m, h, d); write a duration such as 500ms, 15m or 1h30m",
        ),
        ("pools: {a: {}, a: {}}", "1:16: pools.a: is written twice, first on line 1; keep one of them"),
        (
            "pools: {a: {wroker: {}}}",
            "1:13: pools.a.wroker: is an unknown key; did you mean `worker`? known in `pools.a`: worker, resources, sandbox",
        ),
        (
            "pools: [a]",
            "1:8: pools: is a list and not a map of names; write a line `name:` for each, with its settings below",
        ),
        ("pools: {a: 5}", "1:12: pools.a: `5` is not a map of settings; write `key: value` lines"),
        (
            "worker: {}\npools: {default: {}}",
            "2:9: pools.default: is described by the sections at the top level already; keep one of the two, or choose another name",
        ),
        (
            "pools: {a: {sandbox: {workspace: persistent, workspace_dir: /srv/w}}, b: {sandbox: {workspace: persistent, workspace_dir: /srv/w/b}}}",
            "1:123: pools.b.sandbox.workspace_dir: keeps workspaces where the pool a does, and sessions of the same ID would meet; give each pool a `workspace_dir` of its own",
        ),
        (
            "pools: {a: {sandbox: {workspace: persistent, workspace_dir: /srv/w}}, b: {sandbox: {read_only: [/srv]}}}",
            "1:97: pools.b.sandbox.read_only[0]: `/srv` would show workers what `pools.a.sandbox.workspace_dir` names; name something narrower, or keep the two apart",
        ),
        (
            "network: {tls: {cert_file: /srv/c.pem, key_file: /srv/k.pem}}\nsandbox: {read_only: [/srv]}",
            "2:23: sandbox.read_only[0]: `/srv` would show workers what `network.tls.key_file` names; name something narrower, or keep the two apart",
        ),
        (
            "pools: {a: {resources: {max_workers: 2, min_workers: 3}}}",
            "1:54: pools.a.resources.min_workers: `3` is above the most workers there may be, which are 2; write at most 2, or allow more workers",
        ),
        (
            "routes: [{pool: brwoser}]\npools: {browser: {}}",
            "1:17: routes[0].pool: `brwoser` is no pool; did you mean browser? there are: browser",
        ),
        ("routes: [{host: a.example.com}]", "1:10: routes[0]: has no `pool`; write `pool` too"),
        ("routes: {pool: a}", "1:9: routes: is a map and not a list; write [one, two] or a line `- one` for each"),
        ("routes: [a]", "1:10: routes[0]: `a` is not a map of settings; write `key: value` lines"),
        (
            "routes: [{pool: default, host: 'a.example.com:80'}]",
            "1:32: routes[0].host: `a.example.com:80` has a port; write the name alone; it counts for every port",
        ),
        (
            "routes: [{pool: default, host: 'a.*.com'}]",
            "1:32: routes[0].host: `a.*.com` has a `*` elsewhere than as its first label; write *.example.com for all below",
        ),
        (
            "routes: [{pool: default, host: '*.'}]",
            "1:32: routes[0].host: `*.` is no host name; write a name such as a.example.com, or *.example.com for all below",
        ),
        (
            "routes: [{pool: default, host: 'a b'}]",
            "1:32: routes[0].host: `a b` is no host name; write a name such as a.example.com",
        ),
        (
            "routes: [{pool: default, host: '::1'}]",
            "1:32: routes[0].host: `::1` is an IPv6 address without brackets; write it as [::1]",
        ),
        (
            "routes: [{pool: default, host: 'münchen.de'}]",
            "1:32: routes[0].host: `münchen.de` has letters beyond ASCII; write it as clients send it, in Punycode (xn--…)",
        ),
        (
            "routes: [{pool: default, path_prefix: x}]",
            "1:39: routes[0].path_prefix: `x` is no HTTP path; write a path such as /health, without spaces",
        ),
        (
            "routes: [{pool: default, path_prefix: /}]",
            "1:39: routes[0].path_prefix: `/` begins every path; leave it out",
        ),
        (
            "routes: [{pool: default, path_prefix: /x/}]",
            "1:39: routes[0].path_prefix: `/x/` ends with a slash; write it without; it fits whole segments",
        ),
        (
            "routes: [{pool: default, path_prefix: /x/../y}]",
            "1:39: routes[0].path_prefix: `/x/../y` has an empty segment, `.` or `..` in it; write the path without",
        ),
        (
            "routes: [{pool: default, path_prefix: '/x?y'}]",
            "1:39: routes[0].path_prefix: `/x?y` has a query; write the path alone",
        ),
        (
            "routes: [{pool: default, path_prefix: /a;b}]",
            "1:39: routes[0].path_prefix: `;` is a character that not every server reads alike; write letters, digits and -._~!$&'()*+,=:@ alone; percent-encoded characters of requests fit those they stand for",
        ),
        (
            "routes: [{pool: default, path_prefix: /metrics}]",
            "1:39: routes[0].path_prefix: `/metrics` is a page of the gateway itself; choose another path for one of the two",
        ),
        (
            "routes: [{pool: default, path_prefix: /healthz}]",
            "1:39: routes[0].path_prefix: `/healthz` is a page of the gateway itself; choose another path for one of the two",
        ),
        (
            "routes: [{pool: default, strip_prefix: true}]",
            "1:40: routes[0].strip_prefix: `true` has no meaning without `path_prefix`; write one, or leave it out",
        ),
        (
            "routes: [{pool: default, header: 'X Y=1'}]",
            "1:34: routes[0].header: `X Y` names no header; write NAME for any value of the header, or NAME=VALUE",
        ),
        (
            "routes: [{pool: default, header: 'Authorization=Bearer hush'}]",
            "1:34: routes[0].header: `authorization` is a header with secrets in it; choose another header",
        ),
        (
            "routes: [{pool: default, header: Connection}]",
            "1:34: routes[0].header: `connection` is a header that concerns one connection and not the request; choose another header",
        ),
        (
            "routes: [{pool: default, header: Host=a}]",
            "1:34: routes[0].header: `host` is the header Host; write `host: NAME` in the route instead",
        ),
        (
            "routes: [{pool: default, header: \"X-Kind= a\"}]",
            "1:34: routes[0].header: `x-kind` has a value that no header can have; write visible ASCII",
        ),
        (
            "routes: [{pool: default, host: a.example.com}, {pool: default, host: A.example.com}]",
            "1:48: routes[1]: is never reached, because routes[0] fits everything that this one does; put the narrower one first, or remove one",
        ),
        (
            "routes: [{pool: default, host: '*.example.com'}, {pool: default, host: a.example.com, path_prefix: /x}]",
            "1:50: routes[1]: is never reached, because routes[0] fits everything that this one does; put the narrower one first, or remove one",
        ),
        (
            "routes: [{pool: default, path_prefix: /x}, {pool: default, path_prefix: /x/y}]",
            "1:44: routes[1]: is never reached, because routes[0] fits everything that this one does; put the narrower one first, or remove one",
        ),
        (
            "routes: [{pool: default, path_prefix: /x}, {pool: default, path_prefix: /x}]",
            "1:44: routes[1]: is never reached, because routes[0] fits everything that this one does; put the narrower one first, or remove one",
        ),
        (
            "routes: [{pool: default}, {pool: default, header: X-A}]",
            "1:27: routes[1]: is never reached, because routes[0] fits everything that this one does; put the narrower one first, or remove one",
        ),
        (
            "routes: [{pool: default, header: X-A}, {pool: default, header: x-a=1}]",
            "1:40: routes[1]: is never reached, because routes[0] fits everything that this one does; put the narrower one first, or remove one",
        ),
        (
            "routes: [{pool: default, hots: a}]",
            "1:26: routes[0].hots: is an unknown key; did you mean `host`? known in `routes[0]`: pool, host, path_prefix, strip_prefix, header",
        ),
        ("access: {}", "1:1: access: lets nobody in; write `tokens` or `jwt`, or leave `access` out"),
        ("access: {tokens: []}", "1:1: access: lets nobody in; write `tokens` or `jwt`, or leave `access` out"),
        (
            "access: {tokens: [{name: a}]}",
            "1:19: access.tokens[0]: has neither `sha256` nor `file`, so nobody could show it; write one of the two",
        ),
        (
            "access: {tokens: [{tenant: a, sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}]}",
            "1:19: access.tokens[0]: has no `name`; write `name` too",
        ),
        (
            "access: {tokens: [{name: a, sha256: hush}]}",
            "1:37: access.tokens[0].sha256: is no SHA-256 hash; write 64 hexadecimal digits; `printf %s TOKEN | sha256sum` prints them",
        ),
        (
            "access: {tokens: [{name: a, sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef, file: /t}]}",
            "1:109: access.tokens[0].file: `/t` is written beside `sha256`; keep one of the two",
        ),
        (
            "access: {tokens: [{name: a, sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}, {name: a, file: /t}]}",
            "1:111: access.tokens[1].name: `a` is the name of access.tokens[0] as well; give each a name of its own",
        ),
        (
            "access: {tokens: [{name: a, sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}, {name: b, sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}]}",
            "1:122: access.tokens[1].sha256: is the hash of access.tokens[0] as well; keep one of them",
        ),
        (
            "access: {tokens: [{name: a, file: /t}, {name: b, file: /t}]}",
            "1:56: access.tokens[1].file: `/t` is the file of access.tokens[0] as well; keep one of them",
        ),
        (
            "access: {tokens: [{name: a b, file: /t}]}",
            "1:26: access.tokens[0].name: `a b` is no name that a log line could have; write 1 to 64 visible ASCII characters without spaces",
        ),
        (
            "access: {tokens: [{name: a, tenant: 'a b', file: /t}]}",
            "1:37: access.tokens[0].tenant: `a b` is no name of a tenant; write 1 to 128 visible ASCII characters without spaces",
        ),
        (
            "access: {tokens: [{name: a, file: t}]}",
            "1:35: access.tokens[0].file: `t` is not an absolute path; write a path that starts with /",
        ),
        (
            "access: {jwt: {algorithm: EdDSA, key_file: /k}}",
            "1:10: access.jwt: has no `audience`; write `audience` too",
        ),
        (
            "access: {jwt: {algorithm: EdDSA, key_file: /k, audience: []}}",
            "1:58: access.jwt.audience: is an empty list, with which every token would be for somebody else; write what stands in `aud` of tokens for this service",
        ),
        (
            "access: {jwt: {algorithm: none, key_file: /k, audience: herd}}",
            "1:27: access.jwt.algorithm: `none` is not one of the words allowed here; allowed: HS256, EdDSA, RS256",
        ),
        (
            "access: {jwt: {algorithm: hs256, key_file: /k, audience: herd}}",
            "1:27: access.jwt.algorithm: `hs256` is not one of the words allowed here; did you mean HS256? allowed: HS256, EdDSA, RS256",
        ),
        (
            "access: {jwt: {algorithm: HS256, audience: herd}}",
            "1:10: access.jwt: has no `key_file`; write `key_file` too",
        ),
        (
            "access: {jwt: {algorithm: HS256, key_file: /k, audience: herd, leeway: 1h}}",
            "1:72: access.jwt.leeway: `1h` is more than 10 minutes, for which expired tokens would be taken; write a shorter time, and set the clocks",
        ),
        (
            "access: {jwt: {algorithm: HS256, key_file: /k, audience: herd, leeway: -1s}}",
            "1:72: access.jwt.leeway: `-1s` is no duration; write a duration such as 500ms, 15m or 1h30m",
        ),
        (
            "access: {jwt: {algorithm: HS256, key_file: /k, audience: herd, issuer: ''}}",
            "1:72: access.jwt.issuer: `` is empty or has control characters in it; write what stands in the token",
        ),
        (
            "access: {jwt: {algorithm: HS256, key_file: /k, audience: herd, tenant_claim: 'a b'}}",
            "1:78: access.jwt.tenant_claim: `a b` is no name of a claim; write a name such as sub",
        ),
        (
            "access: {query_parameter: 'a b', tokens: [{name: a, file: /t}]}",
            "1:27: access.query_parameter: `a b` is no name of a query parameter; write letters, digits, `.`, `_`, `~` and `-`",
        ),
        (
            "network: {session_key: 'query:t'}\naccess: {query_parameter: t, tokens: [{name: a, file: /t}]}",
            "2:27: access.query_parameter: `t` is the parameter of the session's name, by network.session_key; choose another parameter",
        ),
        (
            "network: {session_key: 'header:Authorization'}\naccess: {tokens: [{name: a, file: /t}]}",
            "1:24: network.session_key: `header:Authorization` is the header of the token, which would be the session's name as well; choose another header",
        ),
        (
            "tenants: {default: {max_sessions: 0}}",
            "1:35: tenants.default.max_sessions: `0` is no whole number above 0; write a number such as 10",
        ),
        (
            "tenants: {default: {max_waiting: -1}}",
            "1:34: tenants.default.max_waiting: `-1` is no whole number above 0; write a number such as 10",
        ),
        (
            "tenants: {default: {requests_per_second: 4294967296}}",
            "1:42: tenants.default.requests_per_second: `4294967296` is no whole number above 0; write a number such as 100",
        ),
        (
            "tenants: {default: {max_sessions: 99999999999999999999}}",
            "1:35: tenants.default.max_sessions: `99999999999999999999` is no whole number above 0; write a number such as 10",
        ),
        (
            "tenants: {named: {'a b': {}}}",
            "1:19: tenants.named: `a b` is no name of a tenant; write 1 to 128 visible ASCII characters without spaces",
        ),
        (
            "tenants: {named: {acme: {max_sesions: 1}}}",
            "1:26: tenants.named.acme.max_sesions: is an unknown key; did you mean `max_sessions`? known in `tenants.named.acme`: max_sessions, max_waiting, requests_per_second",
        ),
        (
            "tenants: {named: [acme]}",
            "1:18: tenants.named: is a list and not a map of names; write a line `name:` for each, with its settings below",
        ),
        ("webhooks: [{events: [draining]}]", "1:12: webhooks[0]: has no `url`; write `url` too"),
        (
            "webhooks: [{url: ftp://a/x}]",
            "1:18: webhooks[0].url: is neither http nor https; write an absolute URL, http://… or https://…",
        ),
        (
            "webhooks: [{url: /hook}]",
            "1:18: webhooks[0].url: is no absolute URL; write an absolute URL, http://… or https://…",
        ),
        (
            "webhooks: [{url: 'https://user:hush@a/x'}]",
            "1:18: webhooks[0].url: has a user or a password in it; take it out; herd signs what it sends instead",
        ),
        (
            "webhooks: [{url: 'https://a/x#y'}]",
            "1:18: webhooks[0].url: has a fragment, which no server sees; write an absolute URL, http://… or https://…",
        ),
        (
            "webhooks: [{url: 'https:///x'}]",
            "1:18: webhooks[0].url: is no URL; write an absolute URL, http://… or https://…",
        ),
        (
            "webhooks: [{url: 'https://a:0/x'}]",
            "1:18: webhooks[0].url: names no server; write an absolute URL, http://… or https://…",
        ),
        (
            "webhooks: [{url: 'https://a:99999/x'}]",
            "1:18: webhooks[0].url: has a port that is none; write an absolute URL, http://… or https://…",
        ),
        (
            "webhooks: [{url: 'https://a b/x'}]",
            "1:18: webhooks[0].url: is no URL; write an absolute URL, http://… or https://…",
        ),
        (
            "webhooks: [{url: 'https://a/x'}, {url: 'https://a/x'}]",
            "1:40: webhooks[1].url: is the receiver of webhooks[0] as well, and would get events twice; keep one of them",
        ),
        (
            "webhooks: [{url: 'https://a/x', events: [session-startet]}]",
            "1:42: webhooks[0].events[0]: `session-startet` is no kind of event; did you mean session-started? allowed: worker-starting, worker-ready, spawn-failed, worker-crashed, worker-unhealthy, worker-gone, session-started, session-ended, draining, shutting-down",
        ),
        (
            "webhooks: [{url: 'https://a/x', timeout: 0}]",
            "1:42: webhooks[0].timeout: `0` is zero; write a duration above zero, such as 500ms or 15m",
        ),
        (
            "webhooks: [{url: 'https://a/x', max_queue: 0}]",
            "1:44: webhooks[0].max_queue: `0` is no whole number above 0; write a number such as 10",
        ),
        (
            "webhooks: [{url: 'https://a/x', give_up_after: 9999999h}]",
            "1:48: webhooks[0].give_up_after: `9999999h` is longer than a hundred years; write a shorter duration",
        ),
        (
            "webhooks: [{url: 'https://a/x', secret_file: key}]",
            "1:46: webhooks[0].secret_file: `key` is not an absolute path; write a path that starts with /",
        ),
        (
            "webhooks: https://a/x",
            "1:11: webhooks: `https://a/x` is not a list; write [one, two] or a line `- one` for each",
        ),
        (
            "telemetry: {trace_ratio: 1.1}",
            "1:26: telemetry.trace_ratio: `1.1` is no share; write a number from 0 to 1, such as 0.1",
        ),
        (
            "telemetry: {trace_ratio: -0.1}",
            "1:26: telemetry.trace_ratio: `-0.1` is no share; write a number from 0 to 1, such as 0.1",
        ),
        (
            "telemetry: {trace_ratio: nan}",
            "1:26: telemetry.trace_ratio: `nan` is no share; write a number from 0 to 1, such as 0.1",
        ),
        (
            "telemetry: {trace_ratio: '0.5'}",
            "1:26: telemetry.trace_ratio: `0.5` is a quoted text; write it without quotes",
        ),
        (
            "telemetry: {otlp_endpoint: localhost:4318}",
            "1:28: telemetry.otlp_endpoint: is neither http nor https; write an absolute URL, http://… or https://…",
        ),
        (
            "telemetry: {metrics_path: /healthz}",
            "1:27: telemetry.metrics_path: `/healthz` is the health page's path; write another, such as /metrics",
        ),
        (
            "worker: {health_path: '${'}",
            "1:23: worker.health_path: `${` has a `${` without a `}`; write ${NAME}, ${NAME:-default} or ${file:/path}, or $${ for the two characters",
        ),
        (
            "worker: {health_path: '${1X}'}",
            "1:23: worker.health_path: `${1X}` has a `${` that names no variable; write ${NAME}, ${NAME:-default} or ${file:/path}, or $${ for the two characters",
        ),
        (
            "worker: {health_path: '${A'}",
            "1:23: worker.health_path: `${A` has a `${` without a `}`; write ${NAME}, ${NAME:-default} or ${file:/path}, or $${ for the two characters",
        ),
        (
            "worker: {health_path: '${A:-${B}}'}",
            "1:23: worker.health_path: `${A:-${B}}` has a `${` within another; write one after the other; there is no nesting",
        ),
        (
            "worker: {health_path: '${UNSET_X}'}",
            "1:23: worker.health_path: `${UNSET_X}` needs the environment variable UNSET_X, which is not set; set it where herd is started, or write ${UNSET_X:-default}",
        ),
        (
            "worker: {health_path: '${A-b}'}",
            "1:23: worker.health_path: `${A-b}` has a `${` that names no variable; write ${NAME}, ${NAME:-default} or ${file:/path}, or $${ for the two characters",
        ),
        (
            "worker: {health_path: '${file:x}'}",
            "1:23: worker.health_path: `${file:x}` names a file by a path that is not absolute; write ${file:/path}",
        ),
        (
            "worker: {health_path: '${file:/nowhere/x}'}",
            "1:23: worker.health_path: `${file:/nowhere/x}` names a file that cannot be read: No such file or directory (os error 2); check its path and permissions",
        ),
        (
            "worker: {health_path: '${file:/dev/zero}'}",
            "1:23: worker.health_path: `${file:/dev/zero}` names a file that is no regular file; name a file with the value in it",
        ),
        (
            "worker: {health_path: ${A}}",
            "1:24: the file has `${A}` outside of quotes, where braces are maps for YAML; quote it: \"${A}\"; the rest is checked afterwards",
        ),
        (
            "worker: {health_path: '${UNSET:-nopath}'}",
            "1:23: worker.health_path: `${UNSET:-nopath}` is no HTTP path; write a path such as /health, without spaces",
        ),
        (
            "worker: {command: ['${UNSET_X}', a]}",
            "1:20: worker.command[0]: `${UNSET_X}` needs the environment variable UNSET_X, which is not set; set it where herd is started, or write ${UNSET_X:-default}",
        ),
        (
            "resources: {max_workers: '${UNSET:-0}'}",
            "1:26: resources.max_workers: `${UNSET:-0}` is no whole number above 0; write a number such as 10",
        ),
        (
            "resources: {max_workers: '${UNSET:-2}', min_workers: '${UNSET:-3}'}",
            "1:54: resources.min_workers: `${UNSET:-3}` is above the most workers there may be, which are ${UNSET:-2}; write at most ${UNSET:-2}, or allow more workers",
        ),
        (
            "network: {data_bind: '${UNSET:-:8080}'}",
            "1:22: network.data_bind: `${UNSET:-:8080}` is no address; write an IP before it: 127.0.0.1, or 0.0.0.0 for all interfaces",
        ),
        (
            "worker: {command: ['x', '${UNSET:-{{.Prot}'}}",
            "1:44: the file is not valid YAML: while parsing a flow sequence, expected ',' or ']'; correct it; the rest is checked afterwards",
        ),
        (
            "network: {admin_bind: off, admin_token_file: 5}",
            "1:46: network.admin_token_file: `5` is not an absolute path; write a path that starts with /",
        ),
        (
            "pools: {a: {worker: {command: [a, '{{.Prot}}']}}}",
            "1:35: pools.a.worker.command[1]: `{{.Prot}}` is not known; allowed are `{{.Port}}`, `{{.Socket}}`, `{{.WorkerID}}`, `{{.Workspace}}`",
        ),
        (
            "worker: {command: [a, '${UNSET:-{{.Prot}}']}",
            "1:23: worker.command[1]: `${UNSET:-{{.Prot}}` cannot be used, once it is filled in; see to it that what the variables and files hold fits here",
        ),
        (
            "pools: {aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggggg: {}}",
            "1:9: pools: `aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggggg` is no name of a pool; write 1 to 64 lower-case letters, digits, `-` and `_`, the first of them a letter",
        ),
        (
            "pools: {1: {}}",
            "1:9: pools: `1` is no name of a pool; write 1 to 64 lower-case letters, digits, `-` and `_`, the first of them a letter",
        ),
        ("pools: {a: {}}\nroutes: [{pool: default}]", "2:17: routes[0].pool: `default` is no pool; there are: a"),
        (
            "routes: [{pool: default, header: 'X-Größe=1'}]",
            "1:34: routes[0].header: `X-Größe` names no header; write NAME for any value of the header, or NAME=VALUE",
        ),
        (
            "worker: {env: ['TOKEN=${file:/nowhere/token}']}",
            "1:16: worker.env[0]: `TOKEN=${file:/nowhere/token}` names a file that cannot be read: No such file or directory (os error 2); check its path and permissions",
        ),
    ];
    let mut wrong = Vec::new();
    for (text, expected) in table {
        let found = complaints(text);
        if found != format!("herd.yaml:{expected}") {
            wrong.push(format!("{text}\n  expected herd.yaml:{expected}\n  found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[cfg(not(feature = "otlp"))]
#[test]
fn traces_are_refused_by_a_build_that_has_none() {
    let Err(mistakes) = load("telemetry: {otlp_endpoint: http://localhost:4318}") else { panic!("there are traces") };
    let expected = "herd.yaml:1:28: telemetry.otlp_endpoint: `http://localhost:4318` wants traces, and this build has no \
                    feature otlp; leave it out, or build herd with `cargo build --release --features otlp`";
    assert_eq!(mistakes.to_string(), expected);
    assert!(mistakes.are_all_unavailable());
}

#[test]
fn what_is_no_mistake_and_hardly_wanted_is_a_warning() {
    let table = [
        (
            "webhooks: [{url: 'http://hooks.example.com/x'}]",
            "webhooks[0].url: events travel in the clear beyond this host; use https",
        ),
        (
            "network: {admin_bind: 0.0.0.0:8081, admin_token_file: /t}",
            "network.admin_bind: the admin token travels in the clear beyond this host; write `network.admin_tls` too",
        ),
        (
            "network: {admin_bind: off, admin_token_file: /t}",
            "network.admin_token_file: means nothing, since there is no admin address; leave it out",
        ),
        (
            "network: {data_bind: 0.0.0.0:80, admin_bind: off}\naccess: {tokens: [{name: a, file: /t}]}",
            "network.data_bind: tokens travel in the clear beyond this host; write `network.tls` too, unless a proxy in \
             front of herd has TLS",
        ),
        (
            "network: {data_bind: 0.0.0.0:80}",
            "network.data_bind: the gateway asks nobody who they are, and is open to the network; ask for tokens \
             (`access`, `herd token`), or let only those reach it who may use it",
        ),
        (
            "access: {tokens: [{name: a, file: /t}]}",
            "network.admin_bind: other users of this host, and workers with `network: host`, may use the admin API, and \
             so end and start every tenant's sessions; write `network.admin_token_file`, or `admin_bind: off`",
        ),
        (
            "tenants: {default: {max_waiting: null}, named: {a: {max_sessions: 3}}}",
            "tenants.named.a.max_sessions: limits nobody: without `access` no request has a tenant; give tokens a \
             `tenant`, or leave the limits out",
        ),
        (
            "tenants: {default: {requests_per_second: 5}}\naccess: {tokens: [{name: a, file: /t}]}\nnetwork: {admin_bind: off}",
            "tenants.default.requests_per_second: limits nobody: no token names a tenant, and there is no \
             `access.jwt.tenant_claim`; give tokens a `tenant`, or leave the limits out",
        ),
        (
            "worker: {command: [x, '${file:/etc/hosts}']}",
            "worker.command[1]: puts what is in a file into an argument, and every user of this host can read the \
             arguments of all processes; use `worker.env`, or let the worker read a file of its own",
        ),
        (
            "sandbox: {mode: off}\naccess: {tokens: [{name: a, file: /t}]}\nnetwork: {admin_bind: off}",
            "sandbox.mode: workers run as herd's own user without a sandbox, and can read what is herd's alone: \
             access.tokens[0].file; write `required`, unless you trust the workers with it",
        ),
        (
            "resources: {ttl: 1m}\npools: {a: {}}\nroutes: [{pool: a, path_prefix: /a}]",
            "resources: makes a pool `default` whose workers are the built-in REPL: pools inherit nothing from the top \
             level; write it in each pool that it is meant for, or give that pool a `worker.command`",
        ),
        (
            "worker: {command: [x]}\npools: {a: {}}\nroutes: [{pool: a}]",
            "worker: no route leads there, so that only the control plane starts sessions",
        ),
        ("pools: {a: {}}", "pools.a: no route leads there, so that only the control plane starts sessions"),
        (
            "sandbox: {mode: off}\nresources: {memory_limit_mb: 5}",
            "resources.memory_limit_mb: a memory limit is skipped because the sandbox is off",
        ),
    ];
    for (text, expected) in table {
        let settings = load(text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let warnings = settings.warnings();
        let key = expected.split([':', '[']).next().and_then(|key| key.rsplit('.').next()).unwrap();
        let is_placed = warnings.all.iter().all(|warning| warning.origin.position.is_some());
        assert_eq!(is_placed, text.contains(key), "what is written has a place: {warnings:?}");
        let told: Vec<_> = warnings.all.iter().map(ToString::to_string).collect();
        assert_eq!(told, [expected], "{text}");
    }
    for quiet in
        ["webhooks: [{url: 'http://[::1]:80/x'}, {url: 'http://127.0.0.1/x'}, {url: 'http://localhost/x'}]", ""]
    {
        assert!(load(quiet).unwrap().warnings().is_empty(), "{quiet}");
    }
}
