use std::{sync::Arc, time::Duration};

use herd_pool::{Connect as _, EndReason, ExitStatus, Lease, Pool, SessionId, Worker as _};
use herd_process::{Connector, ProcessFactory, Readiness, Stream};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    sync::Mutex,
};

use crate::{daemon::HERD, provided};

/// A typed client of a Redis server, as a user of the library would write one: the RESP protocol over the worker's
/// connector, one connection that is opened when it is first needed.
struct Redis {
    connector: Connector,
    connection: Mutex<Option<BufReader<Stream>>>,
}

impl Redis {
    fn new(connector: Connector) -> Self {
        Self { connector, connection: Mutex::new(None) }
    }

    async fn set(&self, key: &str, value: &str) {
        assert_eq!(self.ask(&["SET", key, value]).await.as_deref(), Some("OK"));
    }

    async fn value(&self, key: &str) -> Option<String> {
        self.ask(&["GET", key]).await
    }

    /// Sends one command and returns its answer: a simple string, a bulk string, or nothing.
    async fn ask(&self, words: &[&str]) -> Option<String> {
        let mut connection = self.connection.lock().await;
        let connection = match &mut *connection {
            Some(connection) => connection,
            none => none.insert(BufReader::new(self.connector.connect().await.expect("Redis accepts connections"))),
        };
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command += &format!("${}\r\n{word}\r\n", word.len());
        }
        connection.write_all(command.as_bytes()).await.unwrap();

        let mut line = String::new();
        connection.read_line(&mut line).await.unwrap();
        let (kind, rest) = line.trim_end().split_at(1);
        match (kind, rest) {
            ("+", text) => Some(text.to_owned()),
            ("$", "-1") => None,
            ("$", length) => {
                let mut bulk = vec![0; length.parse::<usize>().unwrap() + 2];
                connection.read_exact(&mut bulk).await.unwrap();
                bulk.truncate(bulk.len() - 2);
                Some(String::from_utf8(bulk).unwrap())
            }
            _ => panic!("Redis answered {line:?}"),
        }
    }
}

type Redises = Pool<ProcessFactory<Redis>>;

async fn acquire(pool: &Redises, session: &str) -> Lease<ProcessFactory<Redis>> {
    pool.acquire(&SessionId::new(session).unwrap()).await.expect("a Redis server")
}

#[tokio::test]
async fn each_session_has_a_redis_server_of_its_own_behind_a_typed_client() {
    let factory = ProcessFactory::new(provided("HERD_TEST_REDIS_SERVER"))
        .args(["--port", "{{.Port}}", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .cwd("{{.Workspace}}")
        .ready(Readiness::Tcp)
        .init_program(HERD)
        .client(Redis::new)
        .build()
        .unwrap();
    let crashes = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&crashes);
    let pool = Pool::builder(factory)
        .max_workers(4)
        .on_crash(move |crash| seen.lock().unwrap().push((crash.session.clone(), crash.exit.status)))
        .build()
        .unwrap();

    let alice = acquire(&pool, "alice").await;
    let bob = acquire(&pool, "bob").await;
    assert_ne!(alice.worker_id(), bob.worker_id());
    alice.worker().client().set("x", "41").await;
    assert_eq!(bob.worker().client().value("x").await, None, "what alice set is not there for bob");
    bob.worker().client().set("x", "1").await;
    drop(alice);

    // The session outlives the lease.
    let alice = acquire(&pool, "alice").await;
    assert!(!alice.is_new());
    assert_eq!(alice.worker().client().value("x").await.as_deref(), Some("41"));

    // The session does not outlive its worker.
    kill_process(Pid::from_raw(i32::try_from(alice.worker().pid()).unwrap()).unwrap(), Signal::KILL).unwrap();
    assert_eq!(alice.worker().exited().await.status, ExitStatus::Signal(9));
    assert_eq!(alice.ended().await, EndReason::Crashed(ExitStatus::Signal(9)));
    let first = alice.worker_id();
    drop(alice);
    let alice = acquire(&pool, "alice").await;
    assert!(alice.is_new());
    assert_ne!(alice.worker_id(), first);
    assert_eq!(alice.worker().client().value("x").await, None, "the new session is empty");
    assert_eq!(bob.worker().client().value("x").await.as_deref(), Some("1"));
    assert_eq!(*crashes.lock().unwrap(), [(Some(SessionId::new("alice").unwrap()), ExitStatus::Signal(9))]);

    drop((alice, bob));
    tokio::time::timeout(Duration::from_secs(20), pool.shutdown()).await.expect("Redis servers stop when asked");
}
