use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{gateway::Gateway, processes::Watch, provided};

/// Chromium takes its time on a machine that is busy.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A user's program: the Python Playwright client, told what to do line by line.
#[derive(Debug)]
pub(crate) struct Client {
    child: Child,
    /// Until it is told to end.
    stdin: Option<ChildStdin>,
    answers: Receiver<Value>,
}

impl Client {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(provided("HERD_TEST_PYTHON"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/client.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stdin = child.stdin.take();
        let (answer, answers) = mpsc::channel();
        // It ends with the client.
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = answer.send(serde_json::from_str(&line).expect("the client answers in JSON"));
            }
        });
        Self { child, stdin, answers }
    }

    /// Connects to a browser through a gateway and calls the connection `name`.
    pub(crate) fn connect(&mut self, name: &str, gateway: Gateway, session: &str) {
        let endpoint = format!("ws://{}/", gateway.0);
        let answer = self.ask(&json!({"do": "connect", "name": name, "endpoint": endpoint, "session": session}));
        assert_eq!(answer["connected"], true, "{answer}");
    }

    /// Renders a page and says what there is to see.
    pub(crate) fn render(&mut self, name: &str, text: &str) -> Value {
        self.ask(&json!({"do": "render", "name": name, "text": text}))
    }

    /// Enters scripts at the REPL's page and says what it shows. Each is a session and a script; an empty session is the
    /// one that the page came from.
    pub(crate) fn enter(&mut self, name: &str, gateway: Gateway, scripts: &[(&str, &str)]) -> Value {
        self.ask(&json!({"do": "enter", "name": name, "page": format!("http://{}/", gateway.0), "scripts": scripts}))
    }

    pub(crate) fn disconnect(&mut self, name: &str) {
        self.ask(&json!({"do": "disconnect", "name": name}));
    }

    fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.stdin.as_ref().unwrap(), "{question}").expect("the client listens");
        let answer = self.answers.recv_timeout(ANSWER_TIMEOUT).expect("the client answers in time");
        assert_eq!(answer["error"], Value::Null, "{question}");
        answer
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The end of its input ends it, and with it the driver that it started.
        self.stdin = None;
        Watch::of([self.child.id()]).left_after(END_TIMEOUT);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
