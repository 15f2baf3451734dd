use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
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

/// A user's program: the Python Playwright client.
#[derive(Debug)]
pub(crate) struct Client(Driver);

/// A Python program beside these tests, told what to do line by line.
#[derive(Debug)]
pub(crate) struct Driver {
    child: Child,
    /// Until it is told to end.
    stdin: Option<ChildStdin>,
    answers: Receiver<Value>,
}

impl Driver {
    pub(crate) fn start(program: &str) -> Self {
        let mut child = Command::new(provided("HERD_TEST_PYTHON"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real").join(program))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stdin = child.stdin.take();
        let (answer, answers) = mpsc::channel();
        // It ends with the program.
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = answer.send(serde_json::from_str(&line).expect("the program answers in JSON"));
            }
        });
        Self { child, stdin, answers }
    }

    /// Has something done and gives the answer, which says what went wrong in the field `error`.
    pub(crate) fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.stdin.as_ref().unwrap(), "{question}").expect("the program listens");
        self.answers.recv_timeout(ANSWER_TIMEOUT).expect("the program answers in time")
    }
}

impl Client {
    pub(crate) fn start() -> Self {
        Self(Driver::start("client.py"))
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
        let answer = self.0.ask(question);
        assert_eq!(answer["error"], Value::Null, "{question}");
        answer
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The end of its input ends it, and with it the driver that it started.
        self.stdin = None;
        Watch::of([self.child.id()]).left_after(END_TIMEOUT);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
